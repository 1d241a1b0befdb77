//! A refresh loses no token, and sends none twice.

mod grace;
mod hang_up;
mod limit;
mod logout;
mod single_flight;
mod unusable;

use std::time::Duration;

use futures_util::FutureExt as _;
use tower_crossmint_auth::{
    AuthErrorKind, Credentials, CrossmintAuth,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::support::{
    answer::{JWT, REFRESH},
    clock::pass,
    direct::{app, auth, get, post},
    mock::{Calls, NO_CALLS, calls, expired},
};

#[tokio::test]
async fn two_sessions_are_refreshed_independently() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let [alice, bob] = ["alice", "bob"].map(|user| expired(&mock, user).cookie_header());
    let (alice, bob) = tokio::join!(get(&app, "/", &alice), get(&app, "/", &bob));
    assert_eq!((alice.user().as_deref(), bob.user().as_deref()), (Some("alice"), Some("bob")));
    assert_eq!(mock.calls(Endpoint::Refresh), 2);
}

#[tokio::test]
async fn a_crossmint_that_does_not_rotate_tokens_works_too() {
    let mock = MockCrossmint::start().await;
    mock.set_rotation(false);
    let app = app(&auth(&mock));
    let alice = expired(&mock, "alice");
    let cookie = alice.cookie_header();
    let first = get(&app, "/", &cookie).await;
    assert_eq!(first.refresh_token(), alice.refresh_token());
    assert_eq!(get(&app, "/", &cookie).await.cookie_header(), first.cookie_header());
    assert_eq!(mock.calls(Endpoint::Refresh), 1);
    pass(Duration::from_secs(30)).await;
    assert_eq!(get(&app, "/", &cookie).await.status, 200);
    assert_eq!(mock.calls(Endpoint::Refresh), 2);
    assert_eq!(post(&app, "/api/auth/logout", &cookie).await.status, 200);
    assert_eq!(get(&app, "/", &cookie).await.status, 401);
    assert_eq!((mock.calls(Endpoint::Refresh), mock.live_sessions()), (2, 0));
}

#[tokio::test]
async fn a_token_is_sent_again_after_an_outage() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let alice = expired(&mock, "alice");
    mock.inject_times(Endpoint::Refresh, 1, Fault::Status(503));
    let credentials = || Credentials::pair(alice.jwt(), alice.refresh_token());
    assert_eq!(auth.get_session(credentials()).await.unwrap_err().kind(), AuthErrorKind::Unavailable);
    assert_eq!(auth.get_session(credentials()).await.unwrap().user_id(), "alice");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (2, 0));
}

#[tokio::test]
async fn a_refused_token_is_not_sent_again_for_half_a_minute() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let alice = expired(&mock, "alice");
    mock.revoke(alice.refresh_token());
    let cookie = alice.cookie_header();
    for (pause, calls) in [(0, 1), (0, 1), (28, 1), (2, 2)] {
        pass(Duration::from_secs(pause)).await;
        let answer = get(&app, "/", &cookie).await;
        assert!((answer.status, answer.clears(&[JWT, REFRESH])) == (401, true));
        assert_eq!(mock.calls(Endpoint::Refresh), calls, "after another {pause} s");
    }
}

#[tokio::test]
async fn a_new_key_does_not_refresh_successors() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().rotation_grace(Duration::from_secs(300)).build().unwrap());
    let app = app(&auth);
    let cookie = expired(&mock, "alice").cookie_header();
    assert_eq!(get(&app, "/", &cookie).await.status, 200);
    mock.rotate_keys();
    pass(Duration::from_secs(31)).await;
    auth.verify_jwt(mock.sign_in("bob").jwt()).await.unwrap();
    assert_eq!(get(&app, "/", &cookie).await.status, 200);
    assert_eq!(calls(&mock), Calls { keys: 2, refreshes: 1, ..NO_CALLS });
}

#[tokio::test]
async fn a_caller_that_is_polled_late_gets_the_latest_session_or_none() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let [alice, bob] = ["alice", "bob"].map(|user| expired(&mock, user));
    let [mut late_alice, mut late_bob] = [&alice, &bob]
        .map(|session| Box::pin(auth.get_session(Credentials::pair(session.jwt(), session.refresh_token()))));
    assert!((&mut late_alice).now_or_never().is_none() && (&mut late_bob).now_or_never().is_none());
    auth.wait_idle().await;
    // Both refreshes have ended, and their callers have not been polled since.
    let first = auth.refresh(alice.refresh_token()).await.unwrap();
    let newer = auth.refresh(first.refresh_token().secret()).await.unwrap();
    auth.logout(Credentials::pair("", bob.refresh_token())).await.unwrap();
    assert_eq!(late_alice.await.unwrap().refresh_token().unwrap().secret(), newer.refresh_token().secret());
    assert_eq!(late_bob.await.unwrap_err().kind(), AuthErrorKind::Refused);
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (3, 0));
}
