//! Cookies of the same name that a sibling subdomain or an earlier configuration has set.

use http::Method;
use tower_crossmint_auth::{
    CookieNames, CookieOptions,
    testing::{Endpoint, MockCrossmint},
};

use crate::support::{
    answer::{JWT, LOGOUT_ROUTE, REFRESH},
    app::App,
    browser::Browser,
};

#[tokio::test]
async fn one_401_deletes_the_cookies_wherever_a_sibling_has_planted_others() {
    let mock = MockCrossmint::start().await;
    let shared = CookieOptions::default().domain("example.test");
    for (configured, options) in [("host-only", CookieOptions::default()), ("a domain", shared)] {
        // If both set the same cookie, one replaces the other, and nothing differs.
        let is_own = |planted: &&Planted| configured == "a domain" && planted.name == "the parent domain";
        let app = App::configured(&mock, |config| config.cookies(options)).await;
        for planted in PLANTED.iter().filter(|planted| !is_own(planted)) {
            for names in [&[JWT, REFRESH][..], &[JWT], &[REFRESH]] {
                for order in [Order::BeforeTheLogin, Order::AfterTheLogin] {
                    let case = format!("{configured}, {}, {names:?}, {order:?}", planted.name);
                    assert_one_401_deletes(planted, names, order, &mock, &app, &case).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn cookies_of_an_earlier_domain_are_gone_after_one_401() {
    let mock = MockCrossmint::start().await;
    let shared = App::configured(&mock, |config| config.cookies(CookieOptions::default().domain("example.test"))).await;
    let host_only = App::serve(&mock).await;
    let mut browser = Browser::at("https://app.example.test/");
    browser.sign_in(&shared, &mock, "alice").await;
    // The domain was removed from the configuration.
    browser.sign_in(&host_only, &mock, "alice").await;
    browser.visit(&host_only, "/").await.assert_status(401, "both are sent");
    assert_eq!(browser.cookie_header(), "");
    browser.sign_in(&host_only, &mock, "alice").await;
    browser.visit(&host_only, "/").await.assert_passed("alice", "after the login");
}

#[tokio::test]
async fn deletions_cover_only_the_requests_host_and_path_and_are_bounded() {
    struct Row<'a> {
        case: &'static str,
        host: Option<&'a str>,
        path: &'a str,
        domains: &'static [&'static str],
        count: usize,
    }
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let two = format!("{JWT}=x; {REFRESH}=y; {REFRESH}=z");
    let deep = format!("/{}", "a/".repeat(12));
    let (long, endless) = ("a".repeat(300), format!("/{}", "a/".repeat(500)));
    for Row { case, host, path, domains, count } in [
        Row {
            case: "a host",
            host: Some("app.example.test:8080"),
            path: "/",
            domains: &["app.example.test", "example.test"][..],
            count: 4,
        },
        Row {
            case: "a host in upper case",
            host: Some("APP.example.test"),
            path: "/",
            domains: &["app.example.test", "example.test"],
            count: 4,
        },
        Row { case: "one label", host: Some("localhost"), path: "/", domains: &[], count: 2 },
        Row { case: "below localhost", host: Some("app.localhost"), path: "/", domains: &["app.localhost"], count: 3 },
        Row { case: "an IPv4 address", host: Some("127.0.0.1:80"), path: "/", domains: &[], count: 2 },
        Row { case: "an IPv6 address", host: Some("[::1]:80"), path: "/", domains: &[], count: 2 },
        Row { case: "no domain name", host: Some("a_b..c"), path: "/", domains: &[], count: 2 },
        Row { case: "an attribute", host: Some("example.test; Path=/x"), path: "/", domains: &[], count: 2 },
        Row { case: "a long label", host: Some(&*long), path: "/", domains: &[], count: 2 },
        Row { case: "a dot in front", host: Some(".example.test"), path: "/", domains: &[], count: 2 },
        Row {
            case: "many labels",
            host: Some("a.b.c.d.e.f.example.test"),
            path: "/",
            domains: &["b.c.d.e.f.example.test", "example.test"],
            count: 9,
        },
        Row { case: "a path", host: Some("example.test"), path: "/me/page", domains: &["example.test"], count: 2 + 7 },
        Row { case: "a path of one label", host: Some("localhost"), path: "/me/page", domains: &[], count: 2 },
        Row {
            case: "a semicolon in the path",
            host: Some("example.test"),
            path: "/me;x/page",
            domains: &["example.test"],
            count: 3,
        },
        // Deletions that miss some would leave planted cookies alone in the jar: none is deleted.
        Row { case: "a deep path", host: Some("app.example.test"), path: &deep, domains: &[], count: 0 },
        Row { case: "an endless path", host: Some("example.test"), path: &endless, domains: &[], count: 0 },
    ] {
        let request = app.request(Method::GET, path).header("cookie", &two);
        let answer = app.send(host.map_or(request.try_clone().unwrap(), |host| request.header("host", host))).await;
        let set: Vec<_> = answer.set_cookie();
        assert_eq!((answer.status, set.len()), (401, count), "{case}: {answer:?}");
        for domain in domains {
            let paths = set.iter().filter(|cookie| cookie.domain() == Some(domain) && cookie.path() == Some("/"));
            assert_eq!(paths.count(), 1, "{case}");
        }
        assert!(set.iter().all(|cookie| cookie.value().is_empty()), "{case}");
    }
    let same = app.request(Method::GET, "/me").header("cookie", format!("{JWT}=x; {REFRESH}=y; {REFRESH}=y"));
    let answer = app.send(same.header("host", "app.example.test")).await;
    assert!(answer.clears(&[JWT, REFRESH]), "what does not contradict is deleted as usual: {answer:?}");
}

/// A proxy or a router may rewrite the host or the path: then deletions miss planted cookies.
#[tokio::test]
async fn with_secure_cookies_a_planted_cookie_that_deletions_miss_is_still_rejected() {
    let mock = MockCrossmint::start().await;
    let app = App::configured(&mock, |config| config.cookies(CookieOptions::hardened())).await;
    for (case, host, place) in [
        ("a stripped prefix", "app.example.test", "Domain=example.test; Path=/app"),
        ("a rewritten host", "127.0.0.1:3000", "Domain=example.test; Path=/"),
        ("a rewritten host of one label", "backend", "Domain=example.test; Path=/"),
        ("a rewritten host of two labels", "backend.internal", "Domain=example.test; Path=/"),
    ] {
        let mut browser = Browser::at("https://app.example.test/app/me");
        let mallory = mock.sign_in("mallory");
        let plant = |browser: &mut Browser, more: &str| {
            browser.keep(&format!("{JWT}={}; {place}; Secure{more}", mallory.jwt()));
            browser.keep(&format!("{REFRESH}={}; {place}; Secure{more}", mallory.refresh_token()));
        };
        let visit = async |browser: &mut Browser| {
            let request = app.request(Method::GET, "/me").header("host", host);
            let answer = app.send(request.header("cookie", browser.cookie_header())).await;
            browser.take(&answer);
            answer.status
        };
        browser.sign_in(&app, &mock, "alice").await;
        plant(&mut browser, "");
        for _ in 0..3 {
            assert_eq!(visit(&mut browser).await, 401, "{case}");
        }
        browser.take(&app.post(LOGOUT_ROUTE, &browser.cookie_header(), "").await);
        assert_eq!(visit(&mut browser).await, 401, "{case}, after a logout");
        browser.sign_in(&app, &mock, "alice").await;
        assert_eq!(visit(&mut browser).await, 401, "{case}, after a login");

        plant(&mut browser, "; Expires=Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(visit(&mut browser).await, 401, "{case}, once it has expired");
        assert_eq!(browser.cookie_header(), "", "{case}");
        assert!(mock.is_live(mallory.refresh_token()), "{case}");
        browser.sign_in(&app, &mock, "alice").await;
        assert_eq!(visit(&mut browser).await, 200, "{case}, after another login");
    }
    let sent = mock.requests(Endpoint::Refresh).into_iter().chain(mock.requests(Endpoint::Logout));
    assert!(sent.filter_map(|request| request.json()).all(|body| body["refresh"] != "__contradicted__"));
}

#[tokio::test]
async fn a_logout_deletes_the_users_own_cookies_whatever_was_planted() {
    let mock = MockCrossmint::start().await;
    for options in [CookieOptions::default(), CookieOptions::hardened()] {
        let app = App::configured(&mock, |config| config.cookies(options)).await;
        let (alice, old) = (mock.sign_in("alice"), mock.sign_in("alice"));
        let endless = format!("/{}", "a/".repeat(500));
        for path in [LOGOUT_ROUTE, &endless] {
            let app = App::configured(&mock, |config| config.logout_route(path)).await;
            let planted = format!("{}; {}; {REFRESH}=planted", alice.cookie_header(), old.legacy_cookie_header());
            let request = app.request(Method::POST, path).header("host", "app.example.test").header("cookie", planted);
            let answer = app.send(request).await;
            let deleted: Vec<_> = answer.set_cookie().iter().map(|cookie| cookie.name().to_owned()).collect();
            for name in [JWT, REFRESH, "crossmint-jwt", "crossmint-refresh-token"] {
                assert!(deleted.iter().any(|deleted| deleted == name), "{path}: {name}: {deleted:?}");
            }
            let head: usize = answer.set_cookie_fields().map(str::len).sum();
            assert!(head < 4 << 10, "{head} bytes");
        }
        drop(app);
    }
}

#[tokio::test]
async fn a_host_prefixed_cookie_is_deleted_only_where_browsers_keep_it() {
    let mock = MockCrossmint::start().await;
    let names = CookieNames::Custom { jwt: "__Host-a".into(), refresh_token: "b".into() };
    let app =
        App::configured(&mock, |config| config.cookies(CookieOptions::hardened()).cookie_names(names.clone())).await;
    let request = app.request(Method::GET, "/me").header("cookie", "__Host-a=x; b=y; b=z");
    let answer = app.send(request.header("host", "app.example.test")).await;
    let of = |name: &str| answer.set_cookie().iter().filter(|cookie| cookie.name() == name).count();
    assert_eq!((of("__Host-a"), of("b")), (1, 7), "{answer:?}");
}

/// Plants cookies of these names before or after a login, and asserts that a 401 leaves none of them, nor the user's
/// own.
async fn assert_one_401_deletes(
    planted: &Planted,
    names: &[&str],
    order: Order,
    mock: &MockCrossmint,
    app: &App,
    case: &str,
) {
    let mut browser = Browser::at("https://app.example.test/me/page");
    let mallory = mock.sign_in("mallory");
    let plant = |browser: &mut Browser| {
        for (name, value) in [(JWT, mallory.jwt()), (REFRESH, mallory.refresh_token())] {
            for place in planted.places.iter().filter(|_| names.contains(&name)) {
                browser.keep(&format!("{name}={value}; {place}"));
            }
        }
    };
    if order == Order::BeforeTheLogin {
        plant(&mut browser);
    }
    browser.sign_in(app, mock, "alice").await;
    if order == Order::AfterTheLogin {
        plant(&mut browser);
    }
    browser.visit(app, "/me/page").await.assert_status(401, case);
    assert_eq!(browser.cookie_header(), "", "{case}");
    browser.visit(app, "/me/page").await.assert_status(401, case);
    assert!(mock.is_live(mallory.refresh_token()), "{case}: no token was sent");

    browser.sign_in(app, mock, "alice").await;
    browser.visit(app, "/me/page").await.assert_passed("alice", case);
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    BeforeTheLogin,
    AfterTheLogin,
}

struct Planted {
    name: &'static str,
    /// The attributes of the cookies.
    places: &'static [&'static str],
}

/// Sibling subdomains of `app.example.test` set these, or an earlier configuration has.
const PLANTED: [Planted; 7] = [
    Planted { name: "the parent domain", places: &["Domain=example.test; Path=/"] },
    Planted { name: "the host as a domain", places: &["Domain=app.example.test; Path=/"] },
    Planted { name: "the path of the page", places: &["Domain=example.test; Path=/me/page"] },
    Planted { name: "a directory", places: &["Domain=example.test; Path=/me"] },
    Planted { name: "a directory with a slash", places: &["Domain=example.test; Path=/me/"] },
    Planted {
        name: "many at once",
        places: &["Domain=app.example.test; Path=/me", "Domain=example.test; Path=/me/", "Path=/me/page"],
    },
    Planted { name: "the host itself, with a path", places: &["Path=/me"] },
];
