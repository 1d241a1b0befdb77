//! Redirects of navigations to the login page, and of forms after a logout.

use axum::{Router, routing::any};
use http::Method;
use serde_json::json;
use tower_crossmint_auth::{
    AuthErrorKind, CrossmintAuth, CrossmintAuthLayer, LoginPage, OutagePolicy, Unauthenticated,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::support::{
    answer::{Answer, ENDED, JWT, LOGOUT_ROUTE, REFRESH, SIGN_IN, TRY_LATER},
    app::who,
    direct::{self, request, send},
    mock::{NO_CALLS, calls, expired},
};

fn app(mock: &MockCrossmint) -> Router {
    redirecting(mock, LoginPage::new("/login").unwrap())
}

fn redirecting(mock: &MockCrossmint, page: LoginPage) -> Router {
    let config = mock.config().unauthenticated(Unauthenticated::Redirect(page)).after_logout("/").build().unwrap();
    Router::new().fallback(any(who)).layer(CrossmintAuthLayer::new(config))
}

async fn with(app: &Router, method: Method, path: &str, cookie: &str, fields: &[(&'static str, &str)]) -> Answer {
    let mut request = request(method, path, cookie);
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    send(app, request).await
}

async fn navigate(app: &Router, path: &str, cookie: &str) -> Answer {
    with(app, Method::GET, path, cookie, &NAVIGATION).await
}

#[tokio::test]
async fn a_navigation_without_a_session_is_redirected_and_its_cookies_are_cleared() {
    let mock = MockCrossmint::start().await;
    let app = app(&mock);
    let alice = expired(&mock, "alice");
    mock.revoke(alice.refresh_token());
    let bare = format!("{JWT}={}", alice.jwt());
    for (case, cookie) in [("nothing", ""), ("a JWT alone", &bare), ("an ended session", &alice.cookie_header())] {
        let answer = navigate(&app, "/orders?page=2", cookie).await;
        answer.assert_status(303, case);
        assert_eq!(answer.header("location"), "/login?return_to=%2Forders%3Fpage%3D2", "{case}");
        assert_eq!((answer.header("cache-control"), answer.header("vary")), ("no-store", "cookie"), "{case}");
        assert!(answer.clears(&[JWT, REFRESH]) && answer.body.is_empty(), "{case}: {answer:?}");
    }
    let answer = navigate(&app, "/orders", &mock.sign_in("bob").cookie_header()).await;
    answer.assert_passed("bob", "a session");
}

#[tokio::test]
async fn everything_but_a_navigation_gets_401() {
    let mock = MockCrossmint::start().await;
    let app = app(&mock);
    for (case, method, fields) in [
        ("a fetch", Method::GET, &[("sec-fetch-mode", "cors"), ("accept", "text/html")][..]),
        ("a WebSocket", Method::GET, &[("sec-fetch-mode", "websocket")]),
        ("an old browser's POST", Method::POST, &[("accept", "text/html")]),
        ("a script", Method::GET, &[("accept", "application/json, */*")]),
        ("a client", Method::GET, &[]),
    ] {
        with(&app, method, "/orders", "", fields).await.assert_ended(SIGN_IN, case);
    }
    let old = with(&app, Method::HEAD, "/orders", "", &[("accept", "text/html,*/*;q=0.8")]).await;
    assert_eq!((old.status, old.header("location")), (303, "/login?return_to=%2Forders"), "an old browser's HEAD");
}

#[tokio::test]
async fn a_form_is_redirected_without_a_way_back() {
    let mock = MockCrossmint::start().await;
    let answer = with(&app(&mock), Method::POST, "/orders", "", &NAVIGATION).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/login"));
}

#[tokio::test]
async fn the_login_page_is_shown_without_a_session_and_never_redirects_to_itself() {
    let mock = MockCrossmint::start().await;
    let app = app(&mock);
    for path in ["/login", "/login?return_to=%2Forders"] {
        for method in [Method::GET, Method::POST] {
            let answer = with(&app, method, path, "", &NAVIGATION).await;
            assert_eq!((answer.status, answer.user()), (200, None), "{path}");
        }
    }
    let ended = expired(&mock, "alice");
    mock.revoke(ended.refresh_token());
    let answer = navigate(&app, "/login", &ended.cookie_header()).await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (200, Some("Refused")));
    assert!(answer.clears(&[JWT, REFRESH]));
    navigate(&app, "/login/", "").await.assert_status(303, "another path");
}

#[tokio::test]
async fn an_outage_is_503_and_keeps_the_cookies_under_either_policy() {
    let mock = MockCrossmint::start().await;
    for policy in [OutagePolicy::EndSession, OutagePolicy::KeepSession] {
        let page = Unauthenticated::Redirect(LoginPage::new("/login").unwrap());
        let config = mock.config().unauthenticated(page).on_outage(policy).build().unwrap();
        let app = direct::app(&CrossmintAuth::new(config));
        mock.inject(Endpoint::Refresh, Fault::json(500, json!({})));
        let answer = navigate(&app, "/orders", &expired(&mock, "alice").cookie_header()).await;
        answer.assert_rejected(503, TRY_LATER, &format!("{policy:?}"));
    }
}

#[tokio::test]
async fn another_site_cannot_clear_cookies_by_way_of_the_redirect() {
    let mock = MockCrossmint::start().await;
    let fields = [("sec-fetch-mode", "navigate"), ("sec-fetch-site", "cross-site")];
    let answer = with(&app(&mock), Method::GET, "/orders", "", &fields).await;
    assert_eq!((answer.status, answer.set_cookie_fields().count()), (303, 0));
}

#[tokio::test]
async fn the_way_back_has_another_name_or_none() {
    let mock = MockCrossmint::start().await;
    let page = LoginPage::new("/login").unwrap();
    for (page, location) in
        [(page.clone().return_to("next"), "/login?next=%2Forders"), (page.return_to(None), "/login")]
    {
        let answer = navigate(&redirecting(&mock, page), "/orders", "").await;
        assert_eq!((answer.status, answer.header("location")), (303, location));
    }
}

#[tokio::test]
async fn a_way_back_to_another_site_is_left_out() {
    let mock = MockCrossmint::start().await;
    for path in ["//evil.example/", "/%2Fevil.example", "/.//evil.example"] {
        let answer = navigate(&app(&mock), path, "").await;
        assert_eq!((answer.status, answer.header("location")), (303, "/login"), "{path}");
    }
}

#[tokio::test]
async fn the_error_stays_in_the_response_of_a_redirect() {
    let mock = MockCrossmint::start().await;
    let mut request = request::<axum::body::Body>(Method::GET, "/orders", "");
    request.headers_mut().insert("sec-fetch-mode", "navigate".parse().unwrap());
    let response = tower::ServiceExt::oneshot(app(&mock), request).await.unwrap();
    let error = response.extensions().get::<tower_crossmint_auth::AuthError>().unwrap();
    assert_eq!(error.kind(), AuthErrorKind::MissingCredentials);
}

#[tokio::test]
async fn a_forms_logout_is_redirected_and_a_scripts_is_not() {
    let mock = MockCrossmint::start().await;
    let app = app(&mock);
    let form = [("content-type", "application/x-www-form-urlencoded"), ("accept", "text/html,*/*;q=0.8")];
    for (case, fields, status, location) in [
        ("a form", &NAVIGATION[..], 303, "/"),
        ("an old browser's form", &form, 303, "/"),
        ("the SDK", &[("sec-fetch-mode", "cors")], 200, ""),
        ("a client", &[], 200, ""),
    ] {
        let alice = mock.sign_in("alice");
        let answer = with(&app, Method::POST, LOGOUT_ROUTE, &alice.cookie_header(), fields).await;
        assert_eq!((answer.status, answer.header("location")), (status, location), "{case}");
        assert!(answer.clears(&[JWT, REFRESH]) && !mock.is_live(alice.refresh_token()), "{case}");
    }
    let bare = direct::app(&direct::auth(&mock));
    let answer = with(&bare, Method::POST, LOGOUT_ROUTE, "", &NAVIGATION).await;
    answer.assert_status(200, "no target is configured");
}

#[tokio::test]
async fn a_form_without_a_session_is_signed_out_whatever_it_contains() {
    let mock = MockCrossmint::start().await;
    let mut request = request(Method::POST, LOGOUT_ROUTE, "");
    *request.body_mut() = "csrf=1".into();
    for (name, value) in [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-mode", "navigate")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = send(&app(&mock), request).await;
    assert_eq!((answer.status, answer.header("location"), calls(&mock)), (303, "/", NO_CALLS));
    assert!(!answer.body.contains(ENDED));
}

const NAVIGATION: [(&str, &str); 1] = [("sec-fetch-mode", "navigate")];
