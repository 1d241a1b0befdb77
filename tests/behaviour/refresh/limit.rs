//! The limit of concurrent refreshes, its queue and the circuit breaker.

use std::time::Duration;

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
async fn refreshes_beyond_the_limit_wait_and_beyond_the_queue_fail_at_once() {
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
            assert_eq!(get(&app, "/", &cookies[9]).await.status, 401, "one place, and eight who wait");
        }
        assert_eq!((auth.stats().renewals, mock.calls(Endpoint::Refresh)), (call as u64, call), "one at a time");
        assert_eq!(get(&app, "/", &valid).await.status, 200, "valid sessions do not wait");
        let next = mock.hold(Endpoint::Refresh);
        std::mem::replace(&mut hold, next).release();
    }
    for request in waiting {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(mock.reuse_detections(), 0);
    hold.release();
    assert_eq!(get(&app, "/", &cookies[9]).await.status, 200, "there is room again");
}

#[tokio::test]
async fn a_request_dropped_while_it_waits_for_a_place_is_renewed_all_the_same() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().max_concurrent_refreshes(1).build().unwrap());
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let [alice, bob] = ["alice", "bob"].map(|user| expired(&mock, user).cookie_header());
    let hold = mock.hold(Endpoint::Refresh);
    let first = start(&app, &alice);
    mock.called(Endpoint::Refresh, 1).await;
    let second = start(&app, &bob);
    tokio::task::yield_now().await;
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    hold.release();
    first.await.unwrap().assert_renewed("alice", "the one who had the place");
    mock.called(Endpoint::Refresh, 2).await;
    get(&app, "/", &bob).await.assert_renewed("bob", "the one who went");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (2, 0));
}

#[tokio::test]
async fn a_crossmint_that_hangs_keeps_nobody_waiting_who_comes_later() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().max_concurrent_refreshes(2).on_outage(OutagePolicy::KeepSession);
    let auth = CrossmintAuth::new(config.build().unwrap());
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let sessions: Vec<String> = (0..6).map(|n| expired(&mock, &format!("user-{n}")).cookie_header()).collect();
    let hold = mock.hold(Endpoint::Refresh);
    let ask = |number: usize| {
        let (app, cookie) = (app.clone(), sessions[number].clone());
        tokio::spawn(async move { get(&app, "/", &cookie).await.status })
    };
    let hanging = [ask(0), ask(1)];
    mock.called(Endpoint::Refresh, 2).await;
    let in_line = ask(2);
    pass(Duration::from_secs(1)).await;
    assert_eq!(in_line.await.unwrap(), 503);

    // Time stands still: none of these waits for a timer.
    tokio::time::pause();
    assert_eq!(get(&app, "/", &sessions[3]).await.status, 503);
    assert_eq!(
        get(&app, "/", &mock.sign_in("alice").cookie_header()).await.status,
        200,
        "valid sessions do not notice"
    );
    tokio::time::resume();
    assert_eq!(mock.calls(Endpoint::Refresh), 2);

    hold.release();
    for request in hanging {
        assert_eq!(request.await.unwrap(), 200);
    }
    for session in &sessions {
        assert_eq!(get(&app, "/", session).await.status, 200, "and all is well again");
    }
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (6, 0));
}
