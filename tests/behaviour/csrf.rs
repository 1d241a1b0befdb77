//! What other sites can and cannot cause. `tests/browser` runs the same attacks in a browser.

use axum::{
    body::Body,
    http::{Method, Request},
};
use hyper::ext::Protocol;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tower_crossmint_auth::{
    CookieNames, CookieOptions, CorsPreflights, CrossmintAuthConfigBuilder, Unauthenticated,
    testing::{Endpoint, MockCrossmint},
};

use crate::support::{
    answer::{Answer, ENDED, JWT, LOGOUT_ROUTE, REFRESH, REFRESH_ROUTE, SIGN_IN, unauthorized},
    app::App,
    browser::Browser,
    direct,
    mock::{NO_CALLS, calls, expired},
};

#[tokio::test]
async fn sec_fetch_site_decides_and_otherwise_the_origin() {
    let mock = MockCrossmint::start().await;
    let app = App::configured(&mock, |config| config.trusted_origins([TRUSTED])).await;
    let own = app.url("");
    let origins = [None, Some(&*own), Some("https://evil.example"), Some("null"), Some(TRUSTED)];
    for (site, allowed_origins) in [
        (None, &[None, Some(&*own), Some(TRUSTED)][..]),
        (Some("same-origin"), &origins),
        (Some("none"), &origins),
        (Some("same-site"), &[Some(TRUSTED)]),
        (Some("cross-site"), &[Some(TRUSTED)]),
        (Some("Same-Origin, none"), &[Some(TRUSTED)]),
    ] {
        for origin in origins {
            let headers = [("sec-fetch-site", site), ("origin", origin)];
            let headers: Vec<_> = headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            if allowed_origins.contains(&origin) {
                assert_allowed(&app, &mock, &headers).await;
            } else {
                assert_cross_site(&app, &mock, &headers).await;
            }
        }
    }
}

#[tokio::test]
async fn an_origin_must_equal_the_host_or_a_trusted_origin() {
    let mock = MockCrossmint::start().await;
    let app = App::configured(&mock, |config| config.trusted_origins([TRUSTED])).await;
    for (host, origin) in [
        ("app.example", "https://app.example"),
        ("app.example", "http://app.example"),
        ("app.example", "https://APP.example"),
        ("app.example:443", "https://app.example"),
        ("app.example:8443", "https://app.example:8443"),
    ] {
        assert_allowed(&app, &mock, &[("host", host), ("origin", origin)]).await;
    }
    for (host, origin) in [
        ("app.example:8443", "https://app.example"),
        ("app.example", "https://app.example.evil.example"),
        ("app.example", "https://evil.example/app.example"),
        ("app.example", "https://www.app.example"),
        ("app.example", "app.example"),
        ("app.example", ""),
        ("app.example", "https://trusted.example:444"),
        ("app.example", "http://trusted.example"),
        ("app.example", "https://www.trusted.example"),
    ] {
        assert_cross_site(&app, &mock, &[("host", host), ("origin", origin)]).await;
    }
    let twice = [("origin", TRUSTED), ("origin", "https://evil.example")];
    assert_cross_site(&app, &mock, &twice).await;
}

#[tokio::test]
async fn with_secure_cookies_an_http_origin_is_another_site() {
    let mock = MockCrossmint::start().await;
    let app = App::configured(&mock, |config| {
        config.cookies(CookieOptions::hardened()).trusted_origins(["http://trusted.example"])
    });
    let app = app.await;
    for (host, origin) in [
        ("app.example", "https://app.example"),
        ("localhost:3000", "http://localhost:3000"),
        ("app.localhost:3000", "http://app.localhost:3000"),
        ("127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("[::1]:3000", "http://[::1]:3000"),
        ("app.example", "http://trusted.example"),
    ] {
        assert_allowed(&app, &mock, &[("host", host), ("origin", origin)]).await;
    }
    for host in ["app.example", "app.example:80"] {
        assert_cross_site(&app, &mock, &[("host", host), ("origin", "http://app.example")]).await;
    }
}

#[tokio::test]
async fn no_origin_is_trusted_unless_it_is_configured() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    assert_cross_site(&app, &mock, &[("sec-fetch-site", "cross-site"), ("origin", TRUSTED)]).await;
    assert_cross_site(&app, &mock, &[("origin", TRUSTED)]).await;
}

#[tokio::test]
async fn requests_to_other_paths_may_come_from_anywhere() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let request = app.request(Method::POST, "/me").header("cookie", mock.sign_in("alice").cookie_header());
    let answer = app.send(request.header("sec-fetch-site", "cross-site").header("origin", "null")).await;
    answer.assert_passed("alice", "");
}

#[tokio::test]
async fn a_cross_site_request_without_cookies_ends_no_session() {
    let mock = MockCrossmint::start().await;
    let held = mock.sign_in("alice").cookie_header();
    let names = || CookieNames::Custom { jwt: JWT.to_owned(), refresh_token: REFRESH.to_owned() };
    for (case, names, sent) in [
        ("no cookie", CookieNames::Scoped, ""),
        ("a foreign cookie", CookieNames::Scoped, "theme=dark"),
        ("empty cookies", CookieNames::Scoped, "crossmint-jwt-mock-project=; crossmint-refresh-token=; crossmint-jwt="),
        ("custom names", names(), ""),
        ("custom names, unscoped ones sent", names(), "crossmint-jwt=x; crossmint-refresh-token=x"),
    ] {
        let app = App::configured(&mock, |config| config.cookie_names(names).trusted_origins([TRUSTED])).await;
        for headers in ELSEWHERE {
            for method in [Method::GET, Method::POST] {
                let answer = send(&app, method, "/me", sent, headers).await;
                assert_eq!((answer.status, &*answer.body), (401, &*unauthorized(SIGN_IN)), "{case}, {headers:?}");
                assert_eq!(answer.header("cache-control"), "no-store", "{case}, {headers:?}");
                assert_eq!(left_of(&held, &answer), [JWT, REFRESH], "{case}, {headers:?}");
            }
        }
        for headers in OWN {
            let answer = send(&app, Method::GET, "/me", sent, headers).await;
            answer.assert_ended(SIGN_IN, &format!("{case}, {headers:?}"));
            assert_eq!(left_of(&held, &answer), [""; 0], "{case}, {headers:?}");
        }
        assert_eq!(app.served(), 0, "{case}");
    }
}

#[tokio::test]
async fn a_cross_site_request_deletes_only_the_invalid_cookies_that_it_carried() {
    struct Row {
        case: &'static str,
        sent: String,
        message: &'static str,
        left: &'static [&'static str],
    }
    let mock = MockCrossmint::start().await;
    let held = mock.sign_in("alice").cookie_header();
    let revoked = || {
        let session = expired(&mock, "bob");
        mock.revoke(session.refresh_token());
        session
    };
    let kept: &[&str] = &[JWT, REFRESH];
    for Row { case, sent, message, left } in [
        Row { case: "a revoked session", sent: revoked().cookie_header(), message: ENDED, left: &[][..] },
        Row {
            case: "two refresh tokens",
            sent: format!("{REFRESH}=x; {REFRESH}=y; {JWT}=x"),
            message: ENDED,
            left: &[],
        },
        Row { case: "a JWT alone", sent: format!("{JWT}=x"), message: SIGN_IN, left: &[REFRESH] },
        Row { case: "a refresh token alone", sent: format!("{REFRESH}=x"), message: ENDED, left: &[JWT] },
        Row {
            case: "a revoked session under the unscoped names",
            sent: revoked().legacy_cookie_header(),
            message: ENDED,
            left: kept,
        },
    ] {
        for policy in [Unauthenticated::Reject, Unauthenticated::Allow] {
            let app = App::configured(&mock, |config| config.unauthenticated(policy.clone())).await;
            let case = format!("{case}, {policy:?}");
            for headers in ELSEWHERE {
                let answer = send(&app, Method::GET, "/me", &sent, headers).await;
                if policy == Unauthenticated::Reject {
                    assert_eq!((answer.status, &*answer.body), (401, &*unauthorized(message)), "{case}, {headers:?}");
                }
                assert_eq!(left_of(&held, &answer), left, "{case}, {headers:?}");
                let rest = left_of(&sent, &answer);
                assert_eq!(rest, [""; 0], "{case}, {headers:?}");
            }
            for headers in OWN {
                let answer = send(&app, Method::GET, "/me", &sent, headers).await;
                assert_eq!(left_of(&held, &answer), [""; 0], "{case}, {headers:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_trusted_site_may_log_out_but_its_refresh_without_cookies_ends_no_session() {
    let mock = MockCrossmint::start().await;
    let held = mock.sign_in("alice").cookie_header();
    let app = App::configured(&mock, |config| config.trusted_origins([TRUSTED])).await;
    for headers in [&[("origin", TRUSTED)][..], &[("sec-fetch-site", "cross-site"), ("origin", TRUSTED)]] {
        let refused = send(&app, Method::POST, REFRESH_ROUTE, "", headers).await;
        assert_eq!((refused.status, left_of(&held, &refused)), (401, vec![JWT.into(), REFRESH.into()]), "{headers:?}");
        let signed_out = send(&app, Method::POST, LOGOUT_ROUTE, "", headers).await;
        assert_eq!((signed_out.status, left_of(&held, &signed_out)), (200, vec![]), "{headers:?}");
    }
    let own = send(&app, Method::POST, REFRESH_ROUTE, "", &[("sec-fetch-site", "same-origin")]).await;
    assert_eq!((own.status, left_of(&held, &own)), (401, vec![]));
    assert_eq!(calls(&mock), NO_CALLS);
}

#[tokio::test]
async fn only_this_site_and_trusted_ones_open_a_web_socket() {
    let mock = MockCrossmint::start().await;
    let cookie = mock.sign_in("alice").cookie_header();
    for policy in [Unauthenticated::Reject, Unauthenticated::AllowMissing, Unauthenticated::Allow] {
        let app =
            App::configured(&mock, |config| config.unauthenticated(policy.clone()).trusted_origins([TRUSTED])).await;
        for protocol in ["websocket", "WebSocket", "h2c, websocket", "websocket/13"] {
            let handshake = async |cookie: &str, headers: &[(&str, &str)]| {
                let upgrade = [("connection", "upgrade"), ("upgrade", protocol)];
                let headers: Vec<_> = upgrade.iter().chain(headers).copied().collect();
                (send(&app, Method::GET, "/ws", cookie, &headers).await, format!("{policy:?}, {headers:?}"))
            };
            let trusted = [&[("origin", TRUSTED)][..], &[("sec-fetch-site", "cross-site"), ("origin", TRUSTED)]];
            for headers in OWN.into_iter().chain(trusted) {
                let (answer, case) = handshake(&cookie, headers).await;
                answer.assert_passed("alice", &case);
            }
            let served = app.served();
            for headers in ELSEWHERE.into_iter().filter(|headers| !trusted.contains(headers)) {
                for cookie in [&*cookie, ""] {
                    let (answer, case) = handshake(cookie, headers).await;
                    answer.assert_rejected(403, CROSS_SITE, &case);
                }
            }
            assert_eq!(app.served(), served, "{policy:?}, {protocol}");
        }
    }
    let app = App::serve(&mock).await;
    let other = [("upgrade", "h2c"), ("connection", "upgrade"), ("origin", "https://evil.example")];
    send(&app, Method::GET, "/", &cookie, &other).await.assert_passed("alice", "an upgrade to something else");
}

#[tokio::test]
async fn an_extended_connect_is_a_handshake_and_a_plain_one_is_not() {
    struct Row {
        case: &'static str,
        method: Method,
        uri: &'static str,
        protocol: Option<&'static str>,
        origin: &'static str,
        status: u16,
    }
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let service = TowerToHyperService::new(direct::app(&app.auth));
    let (client, server) = tokio::io::duplex(1 << 16);
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(builder.enable_connect_protocol().serve_connection(TokioIo::new(server), service));
    let mut client = direct::http2(client).await;
    let cookie = mock.sign_in("alice").cookie_header();
    // The client learns the server's settings with the first response.
    for Row { case, method, uri, protocol, origin, status } in [
        Row {
            case: "a request",
            method: Method::GET,
            uri: "http://app.example/ws",
            protocol: None,
            origin: "https://evil.example",
            status: 200,
        },
        Row {
            case: "another site",
            method: Method::CONNECT,
            uri: "http://app.example/ws",
            protocol: Some("websocket"),
            origin: "https://evil.example",
            status: 403,
        },
        Row {
            case: "a sandbox",
            method: Method::CONNECT,
            uri: "http://app.example/ws",
            protocol: Some("webtransport"),
            origin: "null",
            status: 403,
        },
        Row {
            case: "this site",
            method: Method::CONNECT,
            uri: "http://app.example/ws",
            protocol: Some("websocket"),
            origin: "https://app.example",
            status: 200,
        },
        Row {
            case: "a tunnel",
            method: Method::CONNECT,
            uri: "other.example:443",
            protocol: None,
            origin: "https://evil.example",
            status: 200,
        },
    ] {
        let request = Request::builder().method(method).uri(uri).header("cookie", &cookie).header("origin", origin);
        let mut request = request.body(Body::empty()).unwrap();
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(Protocol::from_static(protocol));
        }
        client.ready().await.unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{case}");
        assert!(!response.headers().contains_key("set-cookie"), "{case}");
    }
}

#[tokio::test]
async fn a_request_that_only_resembles_a_preflight_needs_a_session() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    const PREFLIGHT: [(&str, &str); 2] = [("origin", "https://x.example"), ("access-control-request-method", "POST")];
    let asks = |app: &App, path: &str| {
        let request = app.request(Method::OPTIONS, path);
        PREFLIGHT.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    };
    let invalid = format!("{JWT}=x");
    for (case, field, body) in [
        ("a body", None, "{}"),
        ("a content type", Some(("content-type", "application/grpc")), ""),
        ("authorization", Some(("authorization", "Bearer x")), ""),
        ("a cookie", Some(("cookie", &*invalid)), ""),
        ("a foreign cookie", Some(("cookie", "theme=dark")), ""),
    ] {
        let request = field.into_iter().fold(asks(&app, "/me"), |request, (name, value)| request.header(name, value));
        let answer = app.send(request.body(body)).await;
        assert_eq!((answer.status, &*answer.body, app.served()), (401, &*unauthorized(SIGN_IN), 0), "{case}");
    }
    let cookie = mock.sign_in("alice").cookie_header();
    app.send(asks(&app, "/me").header("cookie", cookie)).await.assert_passed("alice", "a session");
}

#[tokio::test]
async fn a_preflight_is_treated_as_any_request_if_preflights_are_rejected() {
    let mock = MockCrossmint::start().await;
    let preflight = [("origin", "https://x.example"), ("access-control-request-method", "POST")];
    for (policy, status) in
        [(Unauthenticated::Reject, 401), (Unauthenticated::AllowMissing, 200), (Unauthenticated::Allow, 200)]
    {
        let config = |config: CrossmintAuthConfigBuilder| {
            config.unauthenticated(policy.clone()).cors_preflights(CorsPreflights::Reject)
        };
        let app = App::configured(&mock, config).await;
        let answer = send(&app, Method::OPTIONS, "/me", "", &preflight).await;
        assert_eq!((answer.status, app.served()), (status, usize::from(status == 200)), "{policy:?}");
        assert_eq!(answer.set_cookie_fields().count(), 0, "{policy:?}");
        let answer = send(&app, Method::OPTIONS, LOGOUT_ROUTE, "", &preflight).await;
        assert_eq!(answer.status, 405, "{policy:?}");
    }
}

/// Posts to both routes with these headers, and asserts that both answer.
async fn assert_allowed(app: &App, mock: &MockCrossmint, headers: &[(&str, &str)]) {
    for (route, endpoint) in [(REFRESH_ROUTE, Endpoint::Refresh), (LOGOUT_ROUTE, Endpoint::Logout)] {
        let (before, case) = (mock.calls(endpoint), format!("{route} with {headers:?}"));
        let answer = post_with_session(app, mock, route, headers).await;
        assert_eq!((answer.status, mock.calls(endpoint)), (200, before + 1), "{case}");
        assert_eq!(answer.set_cookie_fields().count(), 2, "{case}");
    }
}

/// Posts to both routes with these headers, and asserts that both reject the request as one of another site.
async fn assert_cross_site(app: &App, mock: &MockCrossmint, headers: &[(&str, &str)]) {
    for (route, endpoint) in [(REFRESH_ROUTE, Endpoint::Refresh), (LOGOUT_ROUTE, Endpoint::Logout)] {
        let (before, case) = (mock.calls(endpoint), format!("{route} with {headers:?}"));
        let answer = post_with_session(app, mock, route, headers).await;
        answer.assert_rejected(403, CROSS_SITE, &case);
        assert_eq!(mock.calls(endpoint), before, "{case}");
        assert_eq!(answer.header("cache-control"), "no-store", "{case}");
    }
}

async fn post_with_session(app: &App, mock: &MockCrossmint, route: &str, headers: &[(&str, &str)]) -> Answer {
    let request = app.request(Method::POST, route).header("cookie", mock.sign_in("alice").cookie_header());
    app.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

async fn send(app: &App, method: Method, path: &str, cookie: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = app.request(method, path).header("host", "app.example");
    if !cookie.is_empty() {
        request = request.header("cookie", cookie);
    }
    app.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

/// Returns the names of the cookies in `held` that a browser still has after this answer.
fn left_of(held: &str, answer: &Answer) -> Vec<String> {
    let mut browser = Browser::at("http://app.example/");
    held.split("; ").for_each(|pair| browser.keep(pair));
    browser.take(answer);
    browser.cookies().split("; ").filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())).collect()
}

/// Header fields of cross-site requests.
const ELSEWHERE: [&[(&str, &str)]; 14] = [
    &[("sec-fetch-site", "cross-site")],
    &[("sec-fetch-site", "same-site")],
    &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
    &[("sec-fetch-site", "cross-site"), ("origin", "http://app.example")],
    &[("sec-fetch-site", "cross-site"), ("origin", TRUSTED)],
    &[("sec-fetch-site", "same-planet"), ("origin", "http://app.example")],
    &[("sec-fetch-site", "")],
    &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")],
    &[("origin", "https://evil.example")],
    &[("origin", "null")],
    &[("origin", "")],
    &[("origin", TRUSTED)],
    &[("origin", "http://app.example"), ("origin", "http://app.example")],
    &[("sec-fetch-site", "same-origin"), ("origin", "http://app.example"), ("origin", "null")],
];

/// Header fields of requests that may be the user's own.
const OWN: [&[(&str, &str)]; 5] = [
    &[],
    &[("sec-fetch-site", "none")],
    &[("sec-fetch-site", "same-origin")],
    &[("sec-fetch-site", "same-origin"), ("origin", "https://public.example")],
    &[("origin", "http://app.example")],
];

const CROSS_SITE: &str = "Cross-site requests are not allowed here";
const TRUSTED: &str = "https://trusted.example";
