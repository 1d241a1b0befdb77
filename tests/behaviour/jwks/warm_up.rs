//! A warm-up at the start of an application.

use std::{pin::pin, time::Duration};

use futures_util::{FutureExt as _, future::join_all};
use tower_crossmint_auth::{
    AuthErrorKind,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::support::{
    clock::pass,
    direct::{app, auth, get},
};

#[tokio::test]
async fn every_warm_up_asks_crossmint_but_not_twice_within_a_second() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    mock.inject_times(Endpoint::Keys, 3, Fault::Status(500));
    auth.warm_up().await.unwrap_err();
    for attempt in 2..=3 {
        let mut next = pin!(auth.warm_up());
        assert!(next.as_mut().now_or_never().is_none());
        pass(Duration::from_millis(900)).await;
        assert!(next.as_mut().now_or_never().is_none());
        auth.wait_idle().await;
        assert_eq!(mock.calls(Endpoint::Keys), attempt - 1);
        pass(Duration::from_millis(100)).await;
        next.await.unwrap_err();
        assert_eq!(mock.calls(Endpoint::Keys), attempt);
    }
    pass(Duration::from_secs(1)).await;
    auth.warm_up().await.unwrap();
    auth.warm_up().await.unwrap();
    assert_eq!(mock.calls(Endpoint::Keys), 4);
}

#[tokio::test]
async fn the_back_off_of_requests_does_not_hold_up_a_warm_up() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let (app, alice) = (app(&auth), mock.sign_in("alice").cookie_header());
    mock.inject(Endpoint::Keys, Fault::Status(500));
    for pause in [1, 2, 4, 8, 16] {
        get(&app, "/", &alice).await.assert_status(401, "no keys");
        pass(Duration::from_secs(pause)).await;
    }
    get(&app, "/", &alice).await.assert_status(401, "no keys");
    mock.clear_faults();
    pass(Duration::from_secs(1)).await;
    get(&app, "/", &alice).await.assert_status(401, "requests do not ask for half a minute");
    assert_eq!(mock.calls(Endpoint::Keys), 6);
    auth.warm_up().await.unwrap();
    get(&app, "/", &alice).await.assert_passed("alice", "after the warm-up");
    assert_eq!(mock.calls(Endpoint::Keys), 7);
}

#[tokio::test]
async fn a_warm_up_waits_for_as_long_as_crossmint_asks_for() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    mock.inject_times(Endpoint::Keys, 1, Fault::response(429, &[("retry-after", "20")], ""));
    assert_eq!(auth.warm_up().await.unwrap_err().kind(), AuthErrorKind::RateLimited);
    let mut next = pin!(auth.warm_up());
    assert!(next.as_mut().now_or_never().is_none());
    pass(Duration::from_secs(19)).await;
    assert!(next.as_mut().now_or_never().is_none());
    auth.wait_idle().await;
    assert_eq!(mock.calls(Endpoint::Keys), 1);
    pass(Duration::from_secs(1)).await;
    next.await.unwrap();
    assert_eq!(mock.calls(Endpoint::Keys), 2);
}

#[tokio::test]
async fn warm_ups_that_wait_make_one_call() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    mock.inject_times(Endpoint::Keys, 1, Fault::Reset);
    auth.warm_up().await.unwrap_err();
    let (outcomes, ()) = tokio::join!(join_all((0..10).map(|_| auth.warm_up())), pass(Duration::from_secs(1)));
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(mock.calls(Endpoint::Keys), 2);
}
