//! The session of every request that is not for one of the two routes.

use tower_crossmint_auth::testing::{Endpoint, MockCrossmint};

use crate::support::{App, JWT, REFRESH};

#[tokio::test]
async fn a_valid_session_passes_without_a_call() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    app.auth.warm_up().await.unwrap();
    let alice = mock.sign_in("alice");
    let answer = app.get("/me", &alice.cookie_header()).await;
    assert_eq!((answer.status, answer.user().as_deref()), (200, Some("alice")));
    assert!(answer.set_cookie().is_empty());
    assert_eq!(answer.header("cache-control"), "");
    assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh)), (1, 0));
}

#[tokio::test]
async fn an_expired_session_is_renewed() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let bob = mock.session("bob").jwt_lifetime(-60).create();
    let answer = app.get("/me", &bob.cookie_header()).await;
    assert_eq!((answer.status, answer.user().as_deref()), (200, Some("bob")));
    assert_eq!(answer.header("cache-control"), "no-store");
    let cookies = answer.set_cookie();
    assert_eq!(cookies.iter().map(|cookie| cookie.name()).collect::<Vec<_>>(), [JWT, REFRESH]);
    assert_eq!(answer.json()["refreshToken"], cookies[1].value(), "the inner service sees the new session");
    assert_eq!(mock.calls(Endpoint::Refresh), 1);

    let next = app.get("/me", &answer.cookie_header()).await;
    assert_eq!((next.status, next.user().as_deref()), (200, Some("bob")));
    assert!(next.set_cookie().is_empty());
    assert_eq!(mock.calls(Endpoint::Refresh), 1);
}
