//! The limit of concurrent refreshes, its queue and the circuit breaker.

use std::time::Duration;

use futures_util::FutureExt as _;
use tower_crossmint_auth::{
    CrossmintAuth, OutagePolicy,
    testing::{Endpoint, MockCrossmint},
};

use crate::support::{
    clock::pass,
    direct::{app, get, start},
    mock::expired,
};

#[tokio::test]
async fn refreshes_beyond_the_limit_queue_and_beyond_the_queue_fail_at_once() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().max_concurrent_refreshes(1).refresh_timeout(Duration::from_secs(600));
    let auth = CrossmintAuth::new(config.build().unwrap());
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let cookies: Vec<String> = (0..10).map(|n| expired(&mock, &format!("user-{n}")).cookie_header()).collect();
    let valid = mock.sign_in("alice").cookie_header();
    let mut hold = mock.hold(Endpoint::Refresh);
    let waiting: Vec<_> = cookies[..9].iter().map(|cookie| start(&app, cookie)).collect();
    for call in 1..=9 {
        mock.called(Endpoint::Refresh, call).await;
        if call == 1 {
            assert_eq!(get(&app, "/", &cookies[9]).await.status, 401, "one permit, and a queue of eight");
        }
        assert_eq!((auth.stats().refreshes, mock.calls(Endpoint::Refresh)), (call as u64, call), "one at a time");
        assert_eq!(get(&app, "/", &valid).await.status, 200, "valid sessions do not wait");
        let next = mock.hold(Endpoint::Refresh);
        std::mem::replace(&mut hold, next).release();
    }
    for request in waiting {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(mock.reuse_detections(), 0);
    hold.release();
    assert_eq!(get(&app, "/", &cookies[9]).await.status, 200, "the queue is empty again");
}

#[tokio::test]
async fn a_request_dropped_in_the_queue_is_refreshed_all_the_same() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().max_concurrent_refreshes(1).build().unwrap());
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let [alice, bob] = ["alice", "bob"].map(|user| expired(&mock, user).cookie_header());
    let hold = mock.hold(Endpoint::Refresh);
    let first = start(&app, &alice);
    mock.called(Endpoint::Refresh, 1).await;
    assert!(get(&app, "/", &bob).now_or_never().is_none(), "it is queued at its first poll, and then dropped");
    hold.release();
    first.await.unwrap().assert_refreshed("alice", "the one with the permit");
    mock.called(Endpoint::Refresh, 2).await;
    get(&app, "/", &bob).await.assert_refreshed("bob", "the one that was dropped");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (2, 0));
}

#[tokio::test]
async fn once_a_queued_refresh_times_out_later_ones_fail_at_once() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().max_concurrent_refreshes(2).on_outage(OutagePolicy::KeepSession);
    let auth = CrossmintAuth::new(config.build().unwrap());
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let sessions: Vec<String> = (0..6).map(|n| expired(&mock, &format!("user-{n}")).cookie_header()).collect();
    let hold = mock.hold(Endpoint::Refresh);
    let request = |number: usize| {
        let (app, cookie) = (app.clone(), sessions[number].clone());
        tokio::spawn(async move { get(&app, "/", &cookie).await.status })
    };
    let hanging = [request(0), request(1)];
    mock.called(Endpoint::Refresh, 2).await;
    let queued = request(2);
    pass(Duration::from_secs(1)).await;
    assert_eq!(queued.await.unwrap(), 503);

    // The clock is paused: none of these waits for a timer.
    tokio::time::pause();
    assert_eq!(get(&app, "/", &sessions[3]).await.status, 503);
    assert_eq!(
        get(&app, "/", &mock.sign_in("alice").cookie_header()).await.status,
        200,
        "valid sessions are not affected"
    );
    tokio::time::resume();
    assert_eq!(mock.calls(Endpoint::Refresh), 2);

    hold.release();
    for request in hanging {
        assert_eq!(request.await.unwrap(), 200);
    }
    for session in &sessions {
        assert_eq!(get(&app, "/", session).await.status, 200, "after the hang");
    }
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (6, 0));
}
