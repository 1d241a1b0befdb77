//! The sessions of requests that are not for the two routes.

mod unauthenticated;

use axum::{
    Router,
    http::{Method, header},
    response::AppendHeaders,
    routing::any,
};
use serde_json::json;
use tower_crossmint_auth::{
    CrossmintAuth,
    testing::{Endpoint, MockCrossmint},
};

use crate::support::{
    answer::{Answer, JWT, REFRESH, SIGN_IN},
    app::App,
    direct::{app, auth, request, send},
    mock::{Calls, NO_CALLS, calls, expired},
};

#[tokio::test]
async fn a_valid_session_passes_without_a_call() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    app.auth.warm_up().await.unwrap();
    let alice = mock.sign_in("alice");
    for served in 1..=2 {
        let answer = app.get("/me", alice.cookie_header()).await;
        answer.assert_passed("alice", "");
        assert_eq!((answer.header("cache-control"), answer.header("vary")), ("", ""));
        assert_eq!(app.served(), served, "the inner service is called once");
    }
    assert_eq!(calls(&mock), Calls { keys: 1, ..NO_CALLS });
}

#[tokio::test]
async fn an_expired_session_is_refreshed() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let bob = expired(&mock, "bob");
    let answer = app.get("/me", bob.cookie_header()).await;
    answer.assert_refreshed("bob", "");
    assert_eq!(answer.header("vary"), "cookie");
    let stored: Vec<_> = answer.set_cookie().iter().map(|cookie| cookie.value().to_owned()).collect();
    let seen = answer.json();
    assert_eq!(seen["jwt"], stored[0], "the inner service sees the new session");
    assert_eq!(seen["refreshToken"], stored[1], "the inner service sees the new session");
    assert!(stored[0] != bob.jwt() && stored[1] != bob.refresh_token());
    assert_eq!((calls(&mock), app.served()), (Calls { keys: 1, refreshes: 1, ..NO_CALLS }, 1));

    app.get("/me", answer.cookie_header()).await.assert_passed("bob", "with the new cookies");
    assert_eq!(calls(&mock), Calls { keys: 1, refreshes: 1, ..NO_CALLS });
}

#[tokio::test]
async fn a_missing_or_invalid_jwt_is_refreshed() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let valid = mock.sign_in("mallory").jwt().to_owned();
    let (message, signature) = valid.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { 'B' } else { 'A' };
    let unknown_key = mock.sign(json!({ "kid": "unknown" }), json!({ "sub": "mallory", "exp": 4_000_000_000_u64 }));
    for (case, jwt) in [
        ("empty", String::new()),
        ("no JWT at all", "not a token".to_owned()),
        ("expired", mock.session("mallory").jwt_lifetime(-6).create().jwt().to_owned()),
        ("not valid yet", mock.session("mallory").claim("nbf", 4_000_000_000_u64).create().jwt().to_owned()),
        ("for another project", mock.session("mallory").audience("other").create().jwt().to_owned()),
        ("unsigned", format!("{message}.")),
        ("forged", format!("{message}.{flipped}{}", &signature[1..])),
        ("of an unknown key", unknown_key),
    ] {
        let refreshed = mock.calls(Endpoint::Refresh);
        let token = mock.sign_in("alice").refresh_token().to_owned();
        app.get("/me", format!("{JWT}={jwt}; {REFRESH}={token}")).await.assert_refreshed("alice", case);
        assert_eq!(mock.calls(Endpoint::Refresh), refreshed + 1, "{case}");
    }
    let token = mock.sign_in("alice").refresh_token().to_owned();
    app.get("/me", format!("{REFRESH}={token}")).await.assert_refreshed("alice", "missing");
}

#[tokio::test]
async fn a_valid_jwt_without_a_refresh_token_is_rejected() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let jwt = mock.sign_in("alice").jwt().to_owned();
    for (case, cookie) in
        [("absent", format!("{JWT}={jwt}")), ("empty", format!("{JWT}={jwt}; {REFRESH}=")), ("nothing", String::new())]
    {
        app.get("/me", cookie).await.assert_ended(SIGN_IN, case);
    }
    assert_eq!((calls(&mock), app.served()), (NO_CALLS, 0));
}

#[tokio::test]
async fn the_new_cookies_are_set_whatever_the_status_of_the_inner_response() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    for status in [201, 204, 302, 304, 401, 404, 500] {
        let cookie = expired(&mock, "alice").cookie_header();
        let answer = app.get(&format!("/me?status={status}"), cookie).await;
        assert_eq!(answer.status, status);
        assert!(answer.stores_a_session(), "{status}: {answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store", "{status}");
    }
}

#[tokio::test]
async fn a_head_request_is_treated_as_a_get() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    for (cookie, status, cookies) in [
        (mock.sign_in("alice").cookie_header(), 200, 0),
        (expired(&mock, "bob").cookie_header(), 200, 2),
        (String::new(), 401, 2),
    ] {
        let answer = send(&app, request(Method::HEAD, "/", &cookie)).await;
        assert_eq!((answer.status, answer.set_cookie_fields().count()), (status, cookies), "{cookie}");
    }
}

#[tokio::test]
async fn only_a_refresh_changes_the_headers_of_the_inner_response() {
    let mock = MockCrossmint::start().await;
    let headers = [
        (header::CACHE_CONTROL, "public, max-age=60"),
        (header::VARY, "accept"),
        (header::SET_COOKIE, "theme=dark"),
        (header::SET_COOKIE, "crossmint-jwt-mock-project=the application's own"),
    ];
    let inner = Router::new().fallback(any(async move || AppendHeaders(headers)));
    let app = App::of(CrossmintAuth::new(mock.config().build().unwrap()), inner).await;
    let fields = |answer: &Answer, name: &str| -> Vec<String> {
        answer.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };

    let passed = app.get("/", mock.sign_in("alice").cookie_header()).await;
    assert_eq!(fields(&passed, "cache-control"), ["public, max-age=60"]);
    assert_eq!(fields(&passed, "vary"), ["accept"]);
    assert_eq!(fields(&passed, "set-cookie"), ["theme=dark", "crossmint-jwt-mock-project=the application's own"]);

    let refreshed = app.get("/", expired(&mock, "bob").cookie_header()).await;
    assert_eq!(fields(&refreshed, "cache-control"), ["no-store"]);
    assert_eq!(fields(&refreshed, "vary"), ["accept", "cookie"]);
    let cookies = fields(&refreshed, "set-cookie");
    assert_eq!(cookies[..2], fields(&passed, "set-cookie"), "the cookies of the application stay");
    assert!(cookies.len() == 3 && cookies[2].starts_with(REFRESH), "{cookies:?}");
}
