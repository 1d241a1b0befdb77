//! How cookies are written and cleared.

use axum::{Router, response::AppendHeaders, routing::any};
use http::HeaderMap;
use serde_json::{Value, json};
use tower_crossmint_auth::{
    CookieNames, CookieOptions, CrossmintAuth, SameSite, Unauthenticated, testing::MockCrossmint,
};

use crate::support::{
    answer::{Answer, JWT, LOGOUT_ROUTE, REFRESH},
    app::App,
    browser::Browser,
    mock::expired,
};

#[tokio::test]
async fn the_cookie_names_are_as_configured() {
    struct Row {
        case: &'static str,
        names: CookieNames,
        written: [&'static str; 2],
        /// With the scoped and with the unscoped cookies.
        statuses: [u16; 2],
    }
    let mock = MockCrossmint::start().await;
    let custom = CookieNames::Custom { jwt: "__Host-a".into(), refresh_token: "b".into() };
    for Row { case, names, written, statuses } in [
        Row { case: "scoped", names: CookieNames::Scoped, written: [JWT, REFRESH], statuses: [200, 200] },
        Row { case: "scoped only", names: CookieNames::ScopedOnly, written: [JWT, REFRESH], statuses: [200, 401] },
        Row {
            case: "unscoped",
            names: CookieNames::Unscoped,
            written: ["crossmint-jwt", "crossmint-refresh-token"],
            statuses: [401, 200],
        },
        Row { case: "custom", names: custom, written: ["__Host-a", "b"], statuses: [401, 401] },
    ] {
        let app = App::configured(&mock, |config| config.cookies(CookieOptions::hardened()).cookie_names(names)).await;
        let [jwt, refresh_token] = written;
        let alice = expired(&mock, "alice");
        let answer = app.get("/me", format!("{jwt}={}; {refresh_token}={}", alice.jwt(), alice.refresh_token())).await;
        assert_eq!((answer.status, answer.user().as_deref()), (200, Some("alice")), "{case}");
        assert!(answer.set_cookie().iter().map(|cookie| cookie.name()).eq(written), "{case}: {answer:?}");
        let cleared = app.post(LOGOUT_ROUTE, &answer.cookie_header(), "").await;
        assert!(cleared.clears(&written), "{case}: {cleared:?}");

        let bob = mock.sign_in("bob");
        let scoped = app.get("/me", bob.cookie_header()).await.status;
        let unscoped = app.get("/me", bob.legacy_cookie_header()).await.status;
        assert_eq!([scoped, unscoped], statuses, "{case}, with the scoped and the unscoped cookies");
    }
}

#[tokio::test]
async fn both_cookies_are_written_and_cleared_with_the_configured_attributes() {
    let mock = MockCrossmint::start().await;
    mock.edit_refresh_answers(|answer| answer["refresh"]["expiresAt"] = "2099-01-02T03:04:05.678Z".into());
    for (case, options, common) in configurations() {
        let http_only = matches!(case, "hardened" | "HttpOnly" | "embedded");
        let app = App::configured(&mock, |config| config.cookies(options)).await;
        let with = |more: &[&'static str]| {
            let mut attributes = [&common, more].concat();
            attributes.sort_unstable();
            attributes
        };
        let on_refresh = |expires| if http_only { vec![expires, "HttpOnly"] } else { vec![expires] };

        let stored = app.get("/me", expired(&mock, "alice").cookie_header()).await;
        let seen = stored.json();
        let [jwt, token] = [&seen["jwt"], &seen["refreshToken"]].map(|value| value.as_str().unwrap());
        let fields: Vec<_> = stored.set_cookie_fields().map(split).collect();
        let expires = on_refresh("Expires=Fri, 02 Jan 2099 03:04:05 GMT");
        let expected = [(&*format!("{JWT}={jwt}"), with(&[])), (&*format!("{REFRESH}={token}"), with(&expires))];
        assert_eq!(fields, expected, "{case}, written");

        let cleared = app.post(LOGOUT_ROUTE, &stored.cookie_header(), "").await;
        let fields: Vec<_> = cleared.set_cookie_fields().map(split).collect();
        let epoch = "Expires=Thu, 01 Jan 1970 00:00:00 GMT";
        let expected = [(&*format!("{JWT}="), with(&[epoch])), (&*format!("{REFRESH}="), with(&on_refresh(epoch)))];
        assert_eq!(fields, expected, "{case}, cleared");
    }
}

#[tokio::test]
async fn a_jar_holds_the_session_after_the_login_and_nothing_after_the_logout() {
    let mock = MockCrossmint::start().await;
    for (case, options, _) in configurations() {
        let app = App::configured(&mock, |config| config.cookies(options)).await;
        let mut browser = Browser::at("https://app.example.test/");
        browser.sign_in(&app, &mock, "alice").await;
        browser.get(&app).await.assert_passed("alice", case);
        let answer = app.post(LOGOUT_ROUTE, &browser.cookie_header(), "").await;
        browser.take(&answer);
        assert_eq!(browser.cookie_header(), "", "{case}");
    }
}

#[tokio::test]
async fn the_refresh_cookie_expires_at_crossmints_date_if_it_is_a_future_date() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    for (case, expires_at, expected) in [
        ("a date", json!("2099-01-02T03:04:05Z"), Some("Fri, 02 Jan 2099 03:04:05 GMT")),
        ("a date with an offset", json!("2099-01-02T05:04:05+02:00"), Some("Fri, 02 Jan 2099 03:04:05 GMT")),
        ("a past date", json!("2001-01-01T00:00:00Z"), None),
        ("an impossible date", json!("2099-02-30T00:00:00Z"), None),
        ("a year of five digits", json!("+10000-01-01T00:00:00Z"), None),
        ("another text", json!("soon"), None),
        ("an attribute behind a date", json!("2099-01-02T03:04:05Z; Domain=evil.test"), None),
        ("no text", json!(""), None),
        ("a number", json!(4_000_000_000_u64), None),
        ("null", Value::Null, None),
    ] {
        mock.edit_refresh_answers(move |answer| answer["refresh"]["expiresAt"] = expires_at.clone());
        let answer = app.get("/me", expired(&mock, "alice").cookie_header()).await;
        answer.assert_refreshed("alice", case);
        let field = answer.set_cookie_fields().nth(1).unwrap();
        let expires = split(field).1.into_iter().find_map(|attribute| attribute.strip_prefix("Expires="));
        assert_eq!((expires, field.contains("evil")), (expected, false), "{case}");
    }
}

#[tokio::test]
async fn the_other_name_variant_is_cleared_only_if_the_request_carried_it() {
    struct Row<'a> {
        case: &'static str,
        names: &'a CookieNames,
        cookie: &'a str,
        cleared: &'a [&'a str],
    }
    let mock = MockCrossmint::start().await;
    let [jwt, refresh_token] = ["crossmint-jwt", "crossmint-refresh-token"];
    let scoped = format!("{JWT}=x; {REFRESH}=y");
    let unscoped = format!("{jwt}=x; {refresh_token}=y");
    let custom = CookieNames::Custom { jwt: "a".into(), refresh_token: "b".into() };
    let beside = format!("{scoped}; {refresh_token}=z");
    let both = format!("{scoped}; {unscoped}");
    let cases = [
        Row { case: "nothing", names: &CookieNames::Scoped, cookie: "", cleared: &[JWT, REFRESH] },
        Row { case: "the configured pair", names: &CookieNames::Scoped, cookie: &scoped, cleared: &[JWT, REFRESH] },
        Row {
            case: "the other pair",
            names: &CookieNames::Scoped,
            cookie: &unscoped,
            cleared: &[JWT, REFRESH, jwt, refresh_token],
        },
        Row {
            case: "the other JWT",
            names: &CookieNames::Scoped,
            cookie: "crossmint-jwt=x",
            cleared: &[JWT, REFRESH, jwt],
        },
        Row {
            case: "the other refresh token beside the pair",
            names: &CookieNames::Scoped,
            cookie: &beside,
            cleared: &[JWT, REFRESH, refresh_token],
        },
        Row {
            case: "the scoped pair where the unscoped one is configured",
            names: &CookieNames::Unscoped,
            cookie: &scoped,
            cleared: &[jwt, refresh_token, JWT, REFRESH],
        },
        Row {
            case: "both pairs where only the scoped one is used",
            names: &CookieNames::ScopedOnly,
            cookie: &both,
            cleared: &[JWT, REFRESH],
        },
        Row { case: "both pairs where neither is configured", names: &custom, cookie: &both, cleared: &["a", "b"] },
    ];
    for Row { case, names, cookie, cleared } in cases {
        let app = App::configured(&mock, |config| config.cookie_names(names.clone())).await;
        let refused = app.get("/me", cookie).await;
        assert_eq!(refused.status, 401, "{case}");
        assert!(refused.clears(cleared), "{case}, refused: {refused:?}");
        let left = app.post(LOGOUT_ROUTE, cookie, "").await;
        assert!(left.clears(cleared), "{case}, at the logout: {left:?}");
    }
}

#[tokio::test]
async fn host_only_cookies_are_also_cleared_if_a_domain_is_configured_and_cookies_differ() {
    struct Row<'a> {
        case: &'static str,
        options: &'a CookieOptions,
        cookie: &'a str,
        domains: Vec<Option<&'static str>>,
    }
    let mock = MockCrossmint::start().await;
    let (one, two) = (format!("{JWT}=x; {REFRESH}=y"), format!("{JWT}=x; {REFRESH}=y; {REFRESH}=z"));
    let host_only = CookieOptions::default();
    let shared = CookieOptions::default().domain("example.test");
    for Row { case, options, cookie, domains } in [
        Row { case: "one cookie, no domain", options: &host_only, cookie: &one, domains: vec![None, None] },
        Row { case: "two cookies, no domain", options: &host_only, cookie: &two, domains: vec![None, None] },
        Row { case: "one cookie, a domain", options: &shared, cookie: &one, domains: vec![Some("example.test"); 2] },
        Row {
            case: "two cookies, a domain",
            options: &shared,
            cookie: &two,
            domains: vec![Some("example.test"), Some("example.test"), None, None],
        },
    ] {
        let app = App::configured(&mock, |config| config.cookies(options.clone())).await;
        let answer = app.get("/me", cookie).await;
        assert!(answer.clears(&[JWT, REFRESH, JWT, REFRESH][..domains.len()]), "{case}: {answer:?}");
        assert_eq!(answer.set_cookie().iter().map(|cookie| cookie.domain()).collect::<Vec<_>>(), domains, "{case}");
    }
}

#[tokio::test]
async fn a_changed_cookie_domain_recovers_after_one_login() {
    let mock = MockCrossmint::start().await;
    let app = App::configured(&mock, |config| config.cookies(CookieOptions::default().domain("example.test"))).await;
    let mut browser = Browser::at("https://app.example.test/");
    // An earlier configuration had no domain.
    for pair in expired(&mock, "alice").cookie_header().split("; ") {
        browser.keep(&format!("{pair}; Path=/; SameSite=Lax"));
    }
    browser.get(&app).await.assert_refreshed("alice", "the old cookies still count");
    let ambiguous = browser.get(&app).await;
    assert_eq!((ambiguous.status, browser.cookie_header()), (401, String::new()), "old and new cookies differ");

    browser.sign_in(&app, &mock, "alice").await;
    browser.get(&app).await.assert_passed("alice", "after the login");
    browser.get(&app).await.assert_passed("alice", "and from then on");
}

#[tokio::test]
async fn a_response_that_sets_cookies_is_not_cacheable() {
    let mock = MockCrossmint::start().await;
    let caching = [
        ("cache-control", "public, max-age=600"),
        ("cdn-cache-control", "max-age=600"),
        ("cloudflare-cdn-cache-control", "max-age=600"),
        ("surrogate-control", "max-age=600"),
        ("x-accel-expires", "600"),
        ("edge-control", "max-age=600"),
    ];
    let page = any(move || async move { (AppendHeaders(caching), "page") });
    let inner = Router::new().fallback(page);
    let config = mock.config().unauthenticated(Unauthenticated::Allow).build().unwrap();
    let app = App::of(CrossmintAuth::new(config), inner).await;
    let seen = |answer: &Answer| {
        let names = caching.iter().map(|(name, _)| *name).filter(|name| answer.headers.contains_key(*name));
        (names.collect::<Vec<_>>(), answer.header("cache-control").to_owned())
    };
    let none = (vec!["cache-control"], "no-store".to_owned());
    let all = (caching.iter().map(|(name, _)| *name).collect(), caching[0].1.to_owned());
    for (case, cookie, expected) in [
        ("a refresh", expired(&mock, "alice").cookie_header(), &none),
        ("an invalid refresh token", format!("{REFRESH}=a b"), &none),
        ("a valid session", mock.sign_in("alice").cookie_header(), &all),
        ("no session", String::new(), &all),
    ] {
        assert_eq!(seen(&app.get("/", cookie).await), *expected, "{case}");
    }
    let fields = caching.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let mut response: HeaderMap = fields.collect();
    app.auth.clear_auth_material(&mut response);
    assert_eq!(response.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["cache-control", "set-cookie"]);
    assert_eq!(response["cache-control"], "no-store");
}

/// Returns configurations, and the attributes of both cookies.
fn configurations() -> Vec<(&'static str, CookieOptions, Vec<&'static str>)> {
    let options = CookieOptions::default;
    vec![
        ("default", options(), vec!["Path=/", "SameSite=Lax"]),
        ("hardened", CookieOptions::hardened(), vec!["Path=/", "SameSite=Strict", "Secure"]),
        ("HttpOnly", options().http_only(true), vec!["Path=/", "SameSite=Lax"]),
        ("a domain", options().domain("example.test"), vec!["Domain=example.test", "Path=/", "SameSite=Lax"]),
        ("a dotted domain", options().domain(".example.test"), vec!["Domain=example.test", "Path=/", "SameSite=Lax"]),
        ("none", options().same_site(SameSite::None).secure(true), vec!["Path=/", "SameSite=None", "Secure"]),
        (
            "embedded",
            CookieOptions::hardened().same_site(SameSite::None).domain("example.test"),
            vec!["Domain=example.test", "Path=/", "SameSite=None", "Secure"],
        ),
    ]
}

/// Splits a `Set-Cookie` field into its pair and its attributes, sorted.
fn split(field: &str) -> (&str, Vec<&str>) {
    let (pair, attributes) = field.split_once("; ").unwrap();
    let mut attributes: Vec<_> = attributes.split("; ").collect();
    attributes.sort_unstable();
    (pair, attributes)
}
