//! Which requests the refresh route and the logout route answer.

mod logout;
mod refresh;

use axum::{
    body::Body,
    extract::Request,
    http::{Method, Version},
};
use tower_crossmint_auth::{
    CrossmintAuth,
    testing::{Endpoint, MockCrossmint},
};

use crate::{
    corpus::{cases, text},
    support::{
        answer::{Answer, LOGOUT_ROUTE, REFRESH_ROUTE},
        app::App,
        direct::{app, auth, request, send},
        mock::{Calls, NO_CALLS, calls, expired},
    },
};

#[tokio::test]
async fn only_post_is_allowed_at_the_two_routes() {
    let invalid = Invalid::new().await;
    let lower_case = Method::from_bytes(b"post").unwrap();
    for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, lower_case] {
        for route in [REFRESH_ROUTE, LOGOUT_ROUTE] {
            let request = invalid.app.request(method.clone(), route).header("x-http-method-override", "POST");
            let answer = invalid.send(request, 405, WRONG_METHOD, &format!("{method} {route}")).await;
            assert_eq!(answer.header("allow"), "POST", "{method} {route}");
        }
    }
}

#[tokio::test]
async fn a_preflight_reaches_the_application_without_a_session() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    for (served, path) in [REFRESH_ROUTE, LOGOUT_ROUTE, "/me"].into_iter().enumerate() {
        let request = app.request(Method::OPTIONS, path);
        let request = request.header("origin", "https://x.test").header("access-control-request-method", "POST");
        let answer = app.send(request.header("sec-fetch-site", "cross-site")).await;
        assert_eq!((answer.status, answer.user(), app.served()), (200, None, served + 1), "{path}");
        assert_eq!(answer.set_cookie_fields().count(), 0, "{path}");
    }
    assert_eq!(calls(&mock), NO_CALLS);
}

#[tokio::test]
async fn the_query_is_ignored() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let token = mock.sign_in("bob").refresh_token().to_owned();
    let path = format!("{REFRESH_ROUTE}?refresh={token}");
    let answer = app.post(&path, &mock.sign_in("alice").cookie_header(), "{}").await;
    assert_signed_in(&answer, "alice", "the cookie's user");
    assert_eq!(app.post(&format!("{LOGOUT_ROUTE}?"), &answer.cookie_header(), "").await.body, "");
    assert_eq!((calls(&mock), app.served()), (Calls { keys: 1, refreshes: 1, logouts: 1, ..NO_CALLS }, 0));
}

#[tokio::test]
async fn paths_that_only_resemble_the_routes_are_authenticated_as_any_other() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let cookie = mock.sign_in("alice").cookie_header();
    app.auth.warm_up().await.unwrap();
    for path in [
        "/api/auth/refresh/",
        "/api/auth/refresh/x",
        "/api/auth/refres",
        "/api/auth/refresh.json",
        "/api/auth/Refresh",
        "/api/auth//refresh",
        "//api/auth/refresh",
        "/api/auth/%72efresh",
        "/api/auth%2frefresh",
        "/api/auth/refresh%00",
        "/api/auth/refresh;x=1",
        "/x/api/auth/refresh",
        "/api/auth/logout/",
        "/api/auth/%6cogout",
        "/API/AUTH/LOGOUT",
    ] {
        let answer = app.post(path, &cookie, "{}").await;
        answer.assert_passed("alice", path);
        assert_eq!(answer.json()["path"], path, "the path is forwarded unchanged");
        let served = app.served();
        assert_eq!((app.post(path, "", "{}").await.status, app.served()), (401, served), "{path}");
    }
    assert_eq!(calls(&mock), Calls { keys: 1, ..NO_CALLS });
}

/// What a request has led to.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: u16,
    cookies: usize,
    refreshes: usize,
    logouts: usize,
}

#[tokio::test]
async fn request_targets_select_the_routes_as_specified() {
    for case in cases("intercept_targets.json", 62, &[]) {
        let id = text(&case, "id");
        let mock = MockCrossmint::start().await;
        let config = mock.config().refresh_route("/api/refresh").logout_route("/api/logout");
        let app = app(&CrossmintAuth::new(config.build().unwrap()));
        let headers: &[(&str, &str)] = match id {
            "options-preflight/api/logout" => {
                &[("origin", "https://x.example"), ("access-control-request-method", "POST")]
            }
            "override/api/refresh" => &[("x-http-method-override", "POST")],
            "x-original-url/api/logout" => &[
                ("x-original-url", "/api/logout"),
                ("x-rewrite-url", "/api/logout"),
                ("x-forwarded-uri", "/api/logout"),
            ],
            "expect-100" => &[("expect", "100-continue")],
            _ => &[],
        };
        // A preflight carries no cookies.
        let cookie = if id.contains("preflight") { String::new() } else { mock.sign_in("alice").cookie_header() };
        let method = Method::from_bytes(text(&case, "method").as_bytes()).unwrap();
        let mut request: Request = request(method, "/", &cookie);
        *request.uri_mut() = text(&case, "target").parse().unwrap();
        *request.version_mut() = match text(&case, "http") {
            "1.1" => Version::HTTP_11,
            "2" => Version::HTTP_2,
            unknown => panic!("{id}: the version {unknown} is not known"),
        };
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let answer = send(&app, request).await;
        let Calls { refreshes, logouts, .. } = calls(&mock);
        let seen = Outcome { status: answer.status, cookies: answer.set_cookie().len(), refreshes, logouts };
        let expected = match text(&case, "expect") {
            "refresh" => Outcome { status: 200, cookies: 2, refreshes: 1, logouts: 0 },
            // `Uri` drops the fragment, for the layer and the inner service alike.
            "logout" | "same_as_inner" => Outcome { status: 200, cookies: 2, refreshes: 0, logouts: 1 },
            "pass" => {
                // The inner service answers with the path that it saw; axum answers CONNECT without a body.
                assert!(answer.body.contains("path") || id.contains("connect"), "{id}");
                Outcome { status: 200, cookies: 0, refreshes: 0, logouts: 0 }
            }
            "no_action" => Outcome { status: 405, cookies: 0, refreshes: 0, logouts: 0 },
            unknown => panic!("{id}: the expectation {unknown} is not known"),
        };
        assert_eq!(seen, expected, "{id}");
    }
}

#[tokio::test]
async fn only_the_requests_own_path_and_method_select_a_route() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let alice = mock.sign_in("alice").cookie_header();
    for (name, value) in [
        ("x-original-url", LOGOUT_ROUTE),
        ("x-rewrite-url", LOGOUT_ROUTE),
        ("x-forwarded-uri", LOGOUT_ROUTE),
        ("x-forwarded-prefix", "/api"),
        ("x-http-method-override", "GET"),
        ("x-forwarded-host", "evil.test"),
        ("forwarded", "host=evil.test;proto=http"),
        ("host", "evil.test"),
    ] {
        let mut plain = request::<Body>(Method::POST, "/", &alice);
        plain.headers_mut().insert(name, value.parse().unwrap());
        assert_eq!(send(&app, plain).await.json()["path"], "/", "{name}");

        let mut refresh = request::<Body>(Method::POST, REFRESH_ROUTE, &expired(&mock, "bob").cookie_header());
        refresh.headers_mut().insert(name, value.parse().unwrap());
        let answer = send(&app, refresh).await;
        assert_eq!(answer.status, 200, "{name}");
        assert!(answer.set_cookie_fields().all(|field| !field.contains("evil.test")), "{name}");
    }
    assert_eq!(mock.calls(Endpoint::Logout), 0);
}

/// Sends invalid requests, and asserts that each is rejected with the cookies kept and without a call.
pub(super) struct Invalid {
    pub(super) mock: MockCrossmint,
    app: App,
}

impl Invalid {
    pub(super) async fn new() -> Self {
        let mock = MockCrossmint::start().await;
        Self { app: App::serve(&mock).await, mock }
    }

    pub(super) async fn post(&self, content_type: Option<&str>, body: &[u8], status: u16, message: &str, case: &str) {
        let request = self.app.request(Method::POST, REFRESH_ROUTE).body(body.to_vec());
        let request = content_type.iter().fold(request, |request, value| request.header("content-type", *value));
        self.send(request, status, message, case).await;
    }

    async fn send(&self, request: reqwest::RequestBuilder, status: u16, message: &str, case: &str) -> Answer {
        let answer = self.app.send(request.header("cookie", self.mock.sign_in("alice").cookie_header())).await;
        answer.assert_rejected(status, message, case);
        assert_eq!((answer.header("content-type"), answer.header("cache-control")), ("application/json", "no-store"));
        assert_eq!((calls(&self.mock), self.app.served()), (NO_CALLS, 0), "{case}");
        answer
    }
}

/// Asserts that the answer signs a user in.
#[track_caller]
pub(super) fn assert_signed_in(answer: &Answer, user: &str, case: &str) {
    assert_eq!((answer.status, answer.json()["user"]["id"].as_str()), (200, Some(user)), "{case}");
    assert!(answer.stores_a_session(), "{case}: {answer:?}");
}

const WRONG_METHOD: &str = "Only POST is allowed here";
