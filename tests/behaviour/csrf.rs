//! Which requests to the two routes count as cross-site.

use axum::http::Method;
use tower_crossmint_auth::testing::{Endpoint, MockCrossmint};

use crate::support::{App, LOGOUT_ROUTE, REFRESH_ROUTE};

const CROSS_SITE: &str = "Cross-site requests are not allowed here";
const TRUSTED: &str = "https://trusted.example";

/// Posts to both routes with these headers, and asserts that both are carried out, or neither.
async fn assert_allowed(app: &App, mock: &MockCrossmint, headers: &[(&str, &str)], allowed: bool) {
    for (route, endpoint) in [(REFRESH_ROUTE, Endpoint::Refresh), (LOGOUT_ROUTE, Endpoint::Logout)] {
        let before = mock.calls(endpoint);
        let request = app.request(Method::POST, route).header("cookie", mock.sign_in("alice").cookie_header());
        let answer =
            app.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await;
        let case = format!("{route} with {headers:?}");
        if allowed {
            assert_eq!((answer.status, mock.calls(endpoint)), (200, before + 1), "{case}");
            assert_eq!(answer.set_cookie_fields().count(), 2, "{case}");
        } else {
            answer.assert_refused_gently(403, CROSS_SITE, &case);
            assert_eq!(mock.calls(endpoint), before, "{case}");
            assert_eq!(answer.header("cache-control"), "no-store", "{case}");
        }
    }
}

#[tokio::test]
async fn sec_fetch_site_decides_and_else_the_origin() {
    let mock = MockCrossmint::start().await;
    let app = App::configured(&mock, |config| config.trusted_origins([TRUSTED])).await;
    let own = app.url("");
    let origins = [None, Some(&*own), Some("https://evil.example"), Some("null"), Some(TRUSTED)];
    for (site, allowed) in [
        (None, [true, true, false, false, true]),
        (Some("same-origin"), [true, true, true, true, true]),
        (Some("none"), [true, true, true, true, true]),
        (Some("same-site"), [false, false, false, false, true]),
        (Some("cross-site"), [false, false, false, false, true]),
        (Some("Same-Origin, none"), [false, false, false, false, true]),
    ] {
        for (origin, allowed) in origins.into_iter().zip(allowed) {
            let headers = [("sec-fetch-site", site), ("origin", origin)];
            let headers: Vec<_> = headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            assert_allowed(&app, &mock, &headers, allowed).await;
        }
    }
}

#[tokio::test]
async fn an_origin_is_compared_with_the_host_and_the_trusted_ones_to_the_letter() {
    let mock = MockCrossmint::start().await;
    let app = App::configured(&mock, |config| config.trusted_origins([TRUSTED])).await;
    for (host, origin, allowed) in [
        ("app.example", "https://app.example", true),
        ("app.example", "http://app.example", true),
        ("app.example", "https://APP.example", true),
        ("app.example:443", "https://app.example", true),
        ("app.example:8443", "https://app.example:8443", true),
        ("app.example:8443", "https://app.example", false),
        ("app.example", "https://app.example.evil.example", false),
        ("app.example", "https://evil.example/app.example", false),
        ("app.example", "https://www.app.example", false),
        ("app.example", "app.example", false),
        ("app.example", "", false),
        ("app.example", "https://trusted.example:444", false),
        ("app.example", "http://trusted.example", false),
        ("app.example", "https://www.trusted.example", false),
    ] {
        assert_allowed(&app, &mock, &[("host", host), ("origin", origin)], allowed).await;
    }
    let twice = [("origin", TRUSTED), ("origin", "https://evil.example")];
    assert_allowed(&app, &mock, &twice, false).await;
}

#[tokio::test]
async fn no_origin_is_trusted_unless_it_is_configured() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    assert_allowed(&app, &mock, &[("sec-fetch-site", "cross-site"), ("origin", TRUSTED)], false).await;
    assert_allowed(&app, &mock, &[("origin", TRUSTED)], false).await;
}

#[tokio::test]
async fn requests_to_other_paths_may_come_from_anywhere() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let request = app.request(Method::POST, "/me").header("cookie", mock.sign_in("alice").cookie_header());
    let answer = app.send(request.header("sec-fetch-site", "cross-site").header("origin", "null")).await;
    answer.assert_passed("alice", "");
}
