use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use tokio::time::{Instant, advance};

use super::*;

#[tokio::test]
async fn only_a_fault_that_commits_spends_the_token() {
    let faults = [
        (Fault::Status(503), false),
        (Fault::StatusHtml(403), false),
        (Fault::json(200, json!({})), false),
        (Fault::Redirect(307, "/nowhere".to_owned()), false),
        (Fault::Hang, false),
        (Fault::HangAfterCommit, true),
        (Fault::Reset, false),
        (Fault::LoseAnswer, true),
        (Fault::ResetMidBody, true),
        (Fault::EarlyEof, true),
        (Fault::SlowBody, true),
        (Fault::Garbage, false),
        (Fault::Empty, false),
        (Fault::Endless, false),
        (Fault::Huge(1), false),
        (Fault::CompressedBomb, false),
    ];
    for (fault, commits) in faults {
        assert_eq!(fault.commits(), commits, "{fault:?}");
        let mock = MockCrossmint::start().await;
        let session = mock.sign_in("alice");
        mock.inject(Endpoint::Refresh, fault.clone());
        let _connection = arrived_refresh(&mock, session.refresh_token()).await;
        assert_eq!(mock.is_live(session.refresh_token()), !commits, "{fault:?}");
        assert_eq!(mock.live_sessions(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn limited_faults_apply_in_order_before_the_default_fault() {
    let mock = MockCrossmint::start().await;
    mock.inject(Endpoint::Keys, Fault::Status(500));
    mock.inject_times(Endpoint::Keys, 2, Fault::Status(502));
    mock.inject_times(Endpoint::Keys, 0, Fault::Status(418));
    mock.inject_times(Endpoint::Keys, 1, Fault::Status(503));
    for status in [502, 502, 503, 500, 500] {
        assert_eq!(fetch(&mock, KEYS).await.status(), status);
    }
    mock.clear_faults();
    assert_eq!(fetch(&mock, KEYS).await.status(), 200);
    assert_eq!(mock.calls(Endpoint::Keys), 6);
}

#[tokio::test]
async fn custom_responses_are_sent_unchanged() {
    let mock = MockCrossmint::start().await;
    mock.inject_times(Endpoint::Keys, 1, Fault::Status(418));
    let response = fetch(&mock, KEYS).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    assert!(response.json::<Value>().await.unwrap()["message"].is_string());

    mock.inject_times(Endpoint::Keys, 1, Fault::StatusHtml(502));
    let response = fetch(&mock, KEYS).await;
    assert_eq!(response.status(), 502);
    assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");

    mock.inject_times(Endpoint::Keys, 1, Fault::response(429, &[("x-a", "1"), ("x-a", "2")], "later"));
    let response = fetch(&mock, KEYS).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers().get_all("x-a").iter().count(), 2);
    assert_eq!(response.headers().get(CONTENT_TYPE), None);
    assert_eq!(response.text().await.unwrap(), "later");

    mock.inject_times(Endpoint::Keys, 1, Fault::Redirect(307, format!("{}/elsewhere", mock.base_url())));
    let response = fetch(&mock, KEYS).await;
    assert_eq!(response.status(), 307);
    assert!(response.headers()[LOCATION].to_str().unwrap().ends_with("/elsewhere"));
}

#[tokio::test]
async fn a_false_content_length_of_a_custom_response_is_kept() {
    let mock = MockCrossmint::start().await;
    mock.inject(Endpoint::Refresh, Fault::response(200, &[("content-length", "9")], "123"));
    let mut raw = arrived_refresh(&mock, "any").await;
    let (received, ended) = raw.receive_all().await;
    assert!(received.contains("content-length: 9\r\n"), "{received:?} {ended:?}");
    assert!(received.ends_with("\r\n\r\n123"));
    ended.unwrap();
}

#[tokio::test]
#[should_panic(expected = "42 is not the status of a final response")]
async fn injecting_an_invalid_status_panics() {
    MockCrossmint::start().await.inject(Endpoint::Keys, Fault::Status(42));
}

#[tokio::test]
async fn unusable_bodies_have_the_documented_size_and_encoding() {
    let mock = MockCrossmint::start().await;
    mock.inject_times(Endpoint::Keys, 1, Fault::Garbage);
    fetch(&mock, KEYS).await.json::<Value>().await.unwrap_err();
    mock.inject_times(Endpoint::Keys, 1, Fault::Empty);
    assert_eq!(fetch(&mock, KEYS).await.bytes().await.unwrap(), "");
    mock.inject_times(Endpoint::Keys, 1, Fault::Huge(3_000_001));
    assert_eq!(fetch(&mock, KEYS).await.bytes().await.unwrap().len(), 3_000_001);

    mock.inject_times(Endpoint::Keys, 1, Fault::CompressedBomb);
    let response = fetch(&mock, KEYS).await;
    assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
    let bomb = response.bytes().await.unwrap();
    assert!(bomb.len() < 32 * 1024);
    // The uncompressed length that the file declares (RFC 1952, section 2.3.1).
    let inflated = u32::from_le_bytes(bomb[bomb.len() - 4..].try_into().unwrap());
    assert!(inflated > 31 << 20);

    mock.inject_times(Endpoint::Keys, 1, Fault::Endless);
    let mut response = fetch(&mock, KEYS).await;
    let mut read = 0;
    while read < 8 << 20 {
        read += response.chunk().await.unwrap().unwrap().len();
    }
}

#[tokio::test]
async fn a_reset_comes_before_the_status_line() {
    for fault in [Fault::Reset, Fault::LoseAnswer] {
        let mock = MockCrossmint::start().await;
        mock.inject(Endpoint::Refresh, fault);
        let mut raw = arrived_refresh(&mock, mock.sign_in("alice").refresh_token()).await;
        let (received, ended) = raw.receive_all().await;
        assert_eq!(received, "");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_reset_in_the_body_leaves_half_of_it() {
    let mock = MockCrossmint::start().await;
    mock.inject(Endpoint::Refresh, Fault::ResetMidBody);
    let mut raw = arrived_refresh(&mock, mock.sign_in("alice").refresh_token()).await;
    let (received, ended) = raw.receive_all().await;
    assert!(received.starts_with("HTTP/1.1 200 OK\r\n"));
    let (_, body) = received.split_once("\r\n\r\n").unwrap();
    assert!(body.starts_with(r#"{"jwt":"#) && !body.ends_with('}'));
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_early_eof_follows_a_whole_body_that_is_shorter_than_announced() {
    let mock = MockCrossmint::start().await;
    mock.inject(Endpoint::Refresh, Fault::EarlyEof);
    let mut raw = arrived_refresh(&mock, mock.sign_in("alice").refresh_token()).await;
    let (received, ended) = raw.receive_all().await;
    let (_, body) = received.split_once("\r\n\r\n").unwrap();
    serde_json::from_str::<Value>(body).unwrap();
    ended.unwrap();
}

#[tokio::test]
async fn a_cut_body_is_an_error_over_http_2_as_well() {
    for fault in [Fault::Reset, Fault::ResetMidBody, Fault::EarlyEof] {
        let mock = MockCrossmint::start().await;
        let client = http_2_client();
        let url = format!("{}{KEYS}", mock.base_url());
        mock.inject_times(Endpoint::Keys, 1, fault.clone());
        let answer = async { client.get(&url).send().await?.bytes().await };
        assert!(answer.await.is_err(), "{fault:?}");
        assert_eq!(client.get(&url).send().await.unwrap().status(), 200, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_trickles_endlessly() {
    let mock = MockCrossmint::start().await;
    mock.inject(Endpoint::Refresh, Fault::SlowBody);
    let start = Instant::now();
    let mut raw = arrived_refresh(&mock, mock.sign_in("alice").refresh_token()).await;
    let mut received = String::new();
    while !received.ends_with("\r\n \r\n1\r\n \r\n") {
        received.push(raw.0.read_u8().await.unwrap().into());
    }
    assert!(start.elapsed() > Duration::from_secs(500));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_call_is_executed_after_the_delay() {
    let mock = MockCrossmint::start().await;
    let session = mock.sign_in("alice");
    mock.inject(Endpoint::Refresh, Fault::Delay(Duration::from_secs(60)));
    let start = Instant::now();
    let mut raw = arrived_refresh(&mock, session.refresh_token()).await;
    assert!(mock.is_live(session.refresh_token()));
    assert!(raw.receive().await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(start.elapsed() >= Duration::from_secs(60));
    assert!(!mock.is_live(session.refresh_token()));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_call_is_executed_after_its_client_has_disconnected() {
    let mock = MockCrossmint::start().await;
    let session = mock.sign_in("alice");
    mock.inject_times(Endpoint::Refresh, 1, Fault::Delay(Duration::from_secs(60)));
    drop(arrived_refresh(&mock, session.refresh_token()).await);
    advance(Duration::from_secs(61)).await;
    let mut later = arrived_refresh(&mock, session.refresh_token()).await;
    assert!(later.receive().await.unwrap().contains("Refresh token has been used"));
}
