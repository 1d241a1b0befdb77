//! Logouts during and after a refresh.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt as _;
use tower_crossmint_auth::{
    AuthErrorKind, Credentials, CrossmintAuth,
    testing::{Endpoint, Fault, MockCrossmint},
};
use tracing::Level;

use crate::support::{
    answer::{JWT, LOGOUT_ROUTE, REFRESH},
    direct::{app, auth, get, post, start},
    events::Events,
    mock::{Calls, NO_CALLS, calls, expired},
};

#[tokio::test]
async fn a_logout_revokes_the_successor() {
    for (name, by_the_old_token) in [("the rotated token", true), ("the new token", false)] {
        let mock = MockCrossmint::start().await;
        let auth = auth(&mock);
        let app = app(&auth);
        let alice = expired(&mock, "alice");
        let new = get(&app, "/", &alice.cookie_header()).await;
        let out = if by_the_old_token { alice.cookie_header() } else { new.cookie_header() };
        let answer = post(&app, "/api/auth/logout", &out).await;
        assert!((answer.status, answer.clears(&[JWT, REFRESH])) == (200, true), "{name}");
        assert_eq!(mock.requests(Endpoint::Logout)[0].json().unwrap()["refresh"], new.refresh_token(), "{name}");
        assert_eq!(mock.live_sessions(), 0, "{name}");
        for cookie in [alice.cookie_header(), new.refresh_token_cookie()] {
            let late = get(&app, "/", &cookie).await;
            assert!((late.status, late.clears(&[JWT, REFRESH])) == (401, true), "{name}");
        }
        assert_eq!(calls(&mock), Calls { keys: 1, refreshes: 1, logouts: 1, ..NO_CALLS }, "{name}");
    }
}

#[tokio::test]
async fn a_logout_during_a_refresh_revokes_the_new_token() {
    for held in [MockCrossmint::hold, MockCrossmint::hold_answers] {
        let mock = MockCrossmint::start().await;
        let auth = auth(&mock);
        let app = app(&auth);
        let alice = expired(&mock, "alice");
        let cookie = alice.cookie_header();
        let hold = held(&mock, Endpoint::Refresh);
        let requests: Vec<_> = (0..3).map(|_| start(&app, &cookie)).collect();
        mock.called(Endpoint::Refresh, 1).await;
        let mut logout = Box::pin(post(&app, "/api/auth/logout", &cookie));
        assert!((&mut logout).now_or_never().is_none(), "it takes effect at its first poll, and waits for the refresh");
        hold.release();

        let logout = logout.await;
        assert!((logout.status, logout.clears(&[JWT, REFRESH])) == (200, true));
        for request in requests {
            let answer = request.await.unwrap();
            assert!((answer.status, answer.clears(&[JWT, REFRESH])) == (401, true));
        }
        mock.called(Endpoint::Logout, 1).await;
        assert_eq!(mock.live_sessions(), 0, "the new token was revoked");
        assert_eq!(get(&app, "/", &cookie).await.status, 401);
        assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
    }
}

#[tokio::test]
async fn a_logout_does_not_wait_for_a_refresh_that_hangs() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().logout_timeout(Duration::from_millis(50));
    let app = app(&CrossmintAuth::new(config.build().unwrap()));
    let cookie = expired(&mock, "alice").cookie_header();
    let hold = mock.hold(Endpoint::Refresh);
    let request = start(&app, &cookie);
    mock.called(Endpoint::Refresh, 1).await;
    let logout = post(&app, "/api/auth/logout", &cookie).await;
    assert!((logout.status, logout.clears(&[JWT, REFRESH])) == (200, true));
    hold.release();
    assert_eq!(request.await.unwrap().status, 401);
    mock.called(Endpoint::Logout, 1).await;
    assert_eq!(mock.live_sessions(), 0);
}

#[tokio::test]
async fn a_logout_during_the_next_refresh_revokes_the_previous_jwt_too() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let first = expired(&mock, "alice").cookie_header();
    let second = get(&app, "/", &first).await.json();
    let [jwt, token] = [&second["jwt"], &second["refreshToken"]].map(|value| value.as_str().unwrap().to_owned());
    let hold = mock.hold(Endpoint::Refresh);
    let only_token = format!("{REFRESH}={token}");
    let refresh = start(&app, &only_token);
    mock.called(Endpoint::Refresh, 2).await;
    let mut logout = Box::pin(post(&app, LOGOUT_ROUTE, &first));
    assert!((&mut logout).now_or_never().is_none(), "it takes effect at its first poll, and waits for the refresh");
    hold.release();
    assert_eq!((refresh.await.unwrap().status, logout.await.status), (401, 200));
    assert_eq!(auth.verify_jwt(&jwt).await.unwrap_err().kind(), AuthErrorKind::InvalidToken);
}

#[tokio::test]
async fn a_logout_that_a_refresh_holds_up_is_an_error_of_the_handle_and_is_made_up_for() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().logout_timeout(Duration::from_millis(500));
    let auth = CrossmintAuth::new(config.build().unwrap());
    let alice = expired(&mock, "alice");
    let hold = mock.hold(Endpoint::Refresh);
    let request = start(&app(&auth), &alice.cookie_header());
    mock.called(Endpoint::Refresh, 1).await;
    let error = auth.logout(Credentials::pair("", alice.refresh_token())).await.unwrap_err();
    assert_eq!((error.kind(), mock.live_sessions()), (AuthErrorKind::Unavailable, 1));
    hold.release();
    assert_eq!(request.await.unwrap().status, 401);
    auth.wait_idle().await;
    assert_eq!(mock.live_sessions(), 0, "the new token was revoked");
}

#[tokio::test]
async fn a_logout_that_fails_after_a_refresh_is_logged() {
    let events = Events::capture(Level::INFO);
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let cookie = expired(&mock, "alice").cookie_header();
    mock.inject(Endpoint::Logout, Fault::Status(500));
    let hold = mock.hold(Endpoint::Refresh);
    let request = start(&app, &cookie);
    mock.called(Endpoint::Refresh, 1).await;
    let mut logout = Box::pin(post(&app, LOGOUT_ROUTE, &cookie));
    assert!((&mut logout).now_or_never().is_none());
    hold.release();
    assert_eq!((logout.await.status, request.await.unwrap().status), (200, 401));
    auth.wait_idle().await;
    assert_eq!(events.texts(), ["INFO could not revoke a session at Crossmint"]);
    assert_eq!(mock.live_sessions(), 1);
}

#[tokio::test]
async fn a_logout_during_a_refresh_revokes_the_new_jwt_too() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let cookie = expired(&mock, "alice").cookie_header();
    let issued = Arc::new(Mutex::new(None));
    let copy = Arc::clone(&issued);
    mock.edit_refresh_answers(move |answer| *copy.lock().unwrap() = answer["jwt"].as_str().map(ToOwned::to_owned));
    let hold = mock.hold(Endpoint::Refresh);
    let refresh = start(&app, &cookie);
    mock.called(Endpoint::Refresh, 1).await;
    let mut logout = Box::pin(post(&app, LOGOUT_ROUTE, &cookie));
    assert!((&mut logout).now_or_never().is_none(), "it takes effect at its first poll, and waits for the refresh");
    hold.release();
    assert_eq!((refresh.await.unwrap().status, logout.await.status), (401, 200));
    auth.wait_idle().await;
    let jwt = issued.lock().unwrap().take().unwrap();
    assert_eq!(auth.verify_jwt(&jwt).await.unwrap_err().kind(), AuthErrorKind::InvalidToken);
}
