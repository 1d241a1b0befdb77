use std::{sync::Weak, time::Duration};

use futures_util::FutureExt as _;
use reqwest::Version;
use tokio::{task::yield_now, time::timeout};

use super::*;
use crate::testing::server::Server;

/// Waits until no task and no connection owns the server.
async fn assert_freed(server: &Weak<Server>) {
    let freed = async {
        while server.strong_count() > 0 {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), freed).await.expect("a task outlives the mock");
}

async fn is_refused(base_url: &str) -> bool {
    let refused = TcpStream::connect(base_url.strip_prefix("http://").unwrap()).await;
    refused.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[tokio::test]
async fn the_last_handle_stops_the_server() {
    let mock = MockCrossmint::start().await;
    let server = mock.server();
    let base_url = mock.base_url().to_owned();
    let clone = mock.clone();
    drop(mock);
    assert_eq!(fetch(&clone, KEYS).await.status(), 200);
    drop(clone);
    assert_freed(&server).await;
    assert!(is_refused(&base_url).await);
}

#[tokio::test]
async fn a_hung_connection_is_closed_with_the_server() {
    for fault in [Fault::Hang, Fault::HangAfterCommit] {
        let mock = MockCrossmint::start().await;
        let server = mock.server();
        mock.inject(Endpoint::Refresh, fault);
        let mut raw = arrived_refresh(&mock, mock.sign_in("alice").refresh_token()).await;
        drop(mock);
        let (received, _) = raw.receive_all().await;
        assert_eq!(received, "");
        assert_freed(&server).await;
    }
}

#[tokio::test]
async fn a_held_connection_is_closed_with_the_server() {
    let mock = MockCrossmint::start().await;
    let server = mock.server();
    let _hold = mock.hold(Endpoint::Refresh);
    let mut raw = arrived_refresh(&mock, mock.sign_in("alice").refresh_token()).await;
    drop(mock);
    let (received, _) = raw.receive_all().await;
    assert_eq!(received, "");
    assert_freed(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_http_2_connection_is_closed_with_the_server() {
    let mock = MockCrossmint::start().await;
    let server = mock.server();
    mock.inject_times(Endpoint::Keys, 1, Fault::Hang);
    let client = http_2_client();
    let url = format!("{}{KEYS}", mock.base_url());
    let hung = tokio::spawn(client.get(&url).send());
    mock.called(Endpoint::Keys, 1).await;
    assert_eq!(client.get(&url).send().await.unwrap().version(), Version::HTTP_2);
    drop(mock);
    hung.await.unwrap().unwrap_err();
    assert_freed(&server).await;
}

#[tokio::test]
async fn a_service_that_is_down_resets_old_and_new_connections() {
    let mock = MockCrossmint::start().await;
    let mut old = Raw::connect_and_call(&mock).await;

    mock.set_down(true);
    let (received, ended) = old.receive_all().await;
    assert_eq!(received, "");
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let refused = async {
        let mut new = Raw::connect(&mock).await?;
        new.send_keys().await?;
        new.receive().await
    };
    refused.await.unwrap_err();
    assert_eq!(mock.calls(Endpoint::Keys), 1);
    assert_eq!(mock.connections(), 2);

    mock.set_down(false);
    assert_eq!(fetch(&mock, KEYS).await.status(), 200);
}

#[tokio::test]
async fn a_service_that_refuses_connections_comes_back_on_its_port() {
    let mock = MockCrossmint::start().await;
    for round in 1..=3 {
        let mut old = Raw::connect_and_call(&mock).await;

        mock.set_refusing(true);
        mock.set_refusing(true);
        let (_, ended) = old.receive_all().await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{round}");
        assert!(is_refused(mock.base_url()).await, "{round}");

        mock.set_refusing(false);
        mock.set_refusing(false);
        assert_eq!(fetch(&mock, KEYS).await.status(), 200, "{round}");
        assert_eq!((mock.calls(Endpoint::Keys), mock.connections()), (2 * round, 2 * round));
    }
}

#[tokio::test]
async fn a_silent_service_accepts_connections_and_sends_nothing() {
    let mock = MockCrossmint::start().await;
    let server = mock.server();
    let mut old = Raw::connect_and_call(&mock).await;

    mock.set_silent(true);
    let (_, ended) = old.receive_all().await;
    ended.unwrap();
    let mut silent = Raw::connect(&mock).await.unwrap();
    silent.send_keys().await.unwrap();
    mock.connected(2).await;
    mock.set_silent(false);
    assert_eq!(fetch(&mock, KEYS).await.status(), 200);
    assert_eq!(mock.calls(Endpoint::Keys), 2);
    let mut byte = [0];
    assert_eq!(silent.0.try_read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);

    drop(mock);
    assert_eq!(silent.receive_all().await.0, "");
    assert_freed(&server).await;
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_service_does_not_respond_to_attempts_to_connect() {
    let mock = MockCrossmint::start().await;
    for round in 1..=3 {
        let mut old = Raw::connect_and_call(&mock).await;

        mock.set_unreachable(true);
        mock.set_unreachable(true);
        let (_, ended) = old.receive_all().await;
        ended.unwrap();
        // The paused clock advances once all tasks are idle.
        let attempt = timeout(Duration::from_secs(60), Raw::connect(&mock)).await;
        assert!(attempt.is_err(), "{round}");
        // Does not end the unreachable state.
        mock.set_refusing(false);
        let attempt = timeout(Duration::from_secs(60), Raw::connect(&mock)).await;
        assert!(attempt.is_err(), "{round}");

        mock.set_unreachable(false);
        mock.set_unreachable(false);
        assert_eq!(fetch(&mock, KEYS).await.status(), 200, "{round}");
        assert_eq!((mock.calls(Endpoint::Keys), mock.connections()), (2 * round, 2 * round));
    }
    mock.set_refusing(true);
    mock.set_unreachable(true);
    mock.set_refusing(true);
    assert!(is_refused(mock.base_url()).await);
    mock.set_refusing(false);
    assert_eq!(fetch(&mock, KEYS).await.status(), 200);
}

#[tokio::test]
async fn a_connection_counts_as_open_until_both_ends_have_closed_it() {
    let mock = MockCrossmint::start().await;
    mock.disconnected().await;
    let mut raw = Raw::connect_and_call(&mock).await;
    assert!(mock.disconnected().now_or_never().is_none());
    mock.close_connections();
    let (_, ended) = raw.receive_all().await;
    ended.unwrap();
    assert!(mock.disconnected().now_or_never().is_none());
    drop(raw);
    mock.disconnected().await;

    // The client closes the connection, first to a responsive service, then to a silent one.
    for silent in [false, true] {
        mock.set_silent(silent);
        let before = mock.connections();
        let raw = Raw::connect(&mock).await.unwrap();
        mock.connected(before + 1).await;
        assert!(mock.disconnected().now_or_never().is_none(), "{silent}");
        drop(raw);
        mock.disconnected().await;
    }
}

#[tokio::test]
async fn open_connections_can_be_closed() {
    let mock = MockCrossmint::start().await;
    let mut raw = Raw::connect_and_call(&mock).await;
    mock.close_connections();
    let (received, ended) = raw.receive_all().await;
    assert_eq!(received, "");
    ended.unwrap();
    assert_eq!(fetch(&mock, KEYS).await.status(), 200);
}

#[tokio::test]
async fn connections_are_counted_and_reused() {
    let mock = MockCrossmint::start().await;
    assert_eq!(mock.connections(), 0);
    let mut raw = Raw::connect(&mock).await.unwrap();
    for _ in 0..3 {
        raw.send_keys().await.unwrap();
        raw.receive().await.unwrap();
    }
    assert_eq!(mock.connections(), 1);
    assert_eq!(mock.calls(Endpoint::Keys), 3);
}
