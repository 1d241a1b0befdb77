//! Cookie names without a project, which another project on the same domain may use too.

use serde_json::{Value, json};
use tower_crossmint_auth::{
    AuthErrorKind, CookieNames,
    testing::{Endpoint, MockCrossmint, MockSession},
};

use crate::support::{
    answer::{LOGOUT_ROUTE, REFRESH_ROUTE},
    app::App,
    browser::Browser,
    mock::expired,
};

#[tokio::test]
async fn another_projects_unscoped_cookies_are_neither_sent_nor_deleted() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    for (case, lifetime, audience) in [
        ("valid", 3600, json!("neighbour")),
        ("expired", -60, json!("neighbour")),
        ("several audiences", 3600, json!(["neighbour", "other"])),
    ] {
        let bob = mock.session("bob").jwt_lifetime(lifetime).audience(audience).create();
        let neighbour = bob.legacy_cookie_header();
        let mut browser = Browser::at("https://app.example.test/");
        for pair in neighbour.split("; ") {
            browser.keep(&format!("{pair}; Domain=example.test; Path=/"));
        }
        browser.visit(&app, "/").await.assert_status(401, case);
        assert_eq!(browser.cookies(), neighbour, "{case}, after a 401");
        let answer = app.post(REFRESH_ROUTE, &browser.cookie_header(), "{}").await;
        browser.take(&answer);
        assert_eq!((answer.status, browser.cookies()), (401, neighbour.clone()), "{case}, at the refresh route");

        browser.sign_in(&app, &mock, "alice").await;
        browser.visit(&app, "/").await.assert_passed("alice", case);
        browser.take(&app.post(LOGOUT_ROUTE, &browser.cookie_header(), "").await);
        assert_eq!(browser.cookies(), neighbour, "{case}, after our logout");
        browser.take(&app.post(LOGOUT_ROUTE, &browser.cookie_header(), "").await);
        assert_eq!(browser.cookies(), neighbour, "{case}, after another one");
        let from_handle = app.auth.get_session(&browser.headers()).await.unwrap_err();
        assert_eq!(from_handle.kind(), AuthErrorKind::MissingCredentials, "{case}");
        app.auth.logout(&browser.headers()).await.unwrap();
        assert!(mock.is_live(bob.refresh_token()), "{case}: neither refreshed nor revoked");
    }
    let sent = mock.requests(Endpoint::Refresh).len() + mock.requests(Endpoint::Logout).len();
    assert_eq!(sent, 2 * 3, "alice's login and logout, three times");
}

#[tokio::test]
async fn unscoped_cookies_that_may_be_this_projects_are_accepted() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let old = |session: MockSession| session.legacy_cookie_header();
    for (case, cookie) in [
        ("ours", old(mock.sign_in("alice"))),
        ("among other audiences", old(mock.session("alice").audience(json!(["x", mock.project_id()])).create())),
    ] {
        app.get("/me", cookie).await.assert_passed("alice", case);
    }
    for (case, cookie) in [
        ("ours, expired", old(expired(&mock, "alice"))),
        ("no audience", old(mock.session("alice").claim("aud", Value::Null).create())),
        ("an invalid audience", old(mock.session("alice").audience(json!({"x": 1})).create())),
        ("no JWT", format!("crossmint-refresh-token={}", mock.sign_in("alice").refresh_token())),
        (
            "an invalid JWT",
            format!("crossmint-jwt=x; crossmint-refresh-token={}", mock.sign_in("alice").refresh_token()),
        ),
    ] {
        app.get("/me", cookie).await.assert_refreshed("alice", case);
    }
}

#[tokio::test]
async fn with_unscoped_names_another_projects_session_is_ignored_and_kept() {
    let mock = MockCrossmint::start().await;
    let app = App::configured(&mock, |config| config.cookie_names(CookieNames::Unscoped)).await;
    let bob = mock.session("bob").audience("neighbour").create();
    let mut browser = Browser::at("https://app.example.test/");
    for pair in bob.legacy_cookie_header().split("; ") {
        browser.keep(&format!("{pair}; Path=/"));
    }
    browser.visit(&app, "/").await.assert_status(401, "");
    assert_eq!((browser.cookies(), mock.calls(Endpoint::Refresh)), (bob.legacy_cookie_header(), 0));
    browser.sign_in(&app, &mock, "alice").await;
    browser.visit(&app, "/").await.assert_passed("alice", "the last one to sign in");
}

#[tokio::test]
async fn a_neighbours_refresh_token_without_a_jwt_is_left_alone_only_without_the_fallback() {
    let mock = MockCrossmint::start_as("ours").await;
    let bob = MockCrossmint::start_as("neighbour").await.sign_in("bob");
    let token = format!("crossmint-refresh-token={}", bob.refresh_token());
    for (names, sent, kept) in [(CookieNames::Scoped, 1, ""), (CookieNames::ScopedOnly, 0, &*token)] {
        let app = App::configured(&mock, |config| config.cookie_names(names.clone())).await;
        let mut browser = Browser::at("https://app.example.test/");
        browser.keep(&format!("{token}; Path=/"));
        let before = mock.calls(Endpoint::Refresh);
        browser.visit(&app, "/").await.assert_status(401, "our user has not signed in");
        assert_eq!(mock.calls(Endpoint::Refresh) - before, sent, "{names:?}");
        browser.take(&app.post(LOGOUT_ROUTE, &browser.cookie_header(), "").await);
        assert_eq!(browser.cookie_header(), kept, "{names:?}");
    }
}
