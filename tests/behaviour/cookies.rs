//! The two cookies: how they are read, written and cleared.

use cookie_store::{CookieError, CookieStore};
use http::{HeaderMap, Method};
use reqwest::Url;
use serde_json::{Value, json};
use tower_crossmint_auth::{
    AuthErrorKind, CookieNames, CookieOptions, CrossmintAuth, SameSite, Unauthenticated,
    testing::{Endpoint, MockCrossmint, MockSession},
};

use crate::{
    direct::{app, auth, get},
    support::{Answer, App, ENDED, JWT, LOGOUT_ROUTE, REFRESH, REFRESH_ROUTE, calls, expired, unauthorized},
};

#[tokio::test]
async fn the_credentials_are_found_among_whatever_else_the_cookie_fields_hold() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    app.auth.warm_up().await.unwrap();
    let (alice, bob) = (mock.sign_in("alice"), mock.sign_in("bob"));
    let jwt = format!("{JWT}={}", alice.jwt());
    let token = format!("{REFRESH}={}", alice.refresh_token());
    let unscoped = alice.legacy_cookie_header();
    let junk: String = (0..1000).map(|n| format!("c{n}={n}; ")).collect();
    for (case, cookie) in [
        ("a field for each, as HTTP/2 splits them", format!("theme=dark\n{jwt}\n{token}")),
        ("no space between", format!("{jwt};{token}")),
        ("space and tab between", format!(" {jwt} ;\t {token}\t")),
        ("empty pairs between", format!(";; {jwt};;;{token}; ;")),
        ("the same twice", format!("{jwt}; {token}; {jwt}\n{token}")),
        ("beside empty ones", format!("{JWT}=; {jwt}; {REFRESH}=; {token}; {REFRESH}= ")),
        ("beside the bare name", format!("{JWT}; {jwt}; {token}")),
        ("beside a nameless cookie", format!("={JWT}=evil; {jwt}; {token}")),
        ("beside other names", format!("{JWT}2=x; x-{JWT}=x; Crossmint-JWT-mock-project=x; {jwt}; {token}")),
        ("beside Unicode white space", format!("\u{2000}{JWT}=x; {jwt}; \u{a0}{REFRESH}=x; {token}")),
        ("beside another project's", format!("crossmint-jwt-other=x; crossmint-refresh-token-other=y; {jwt}; {token}")),
        ("inside of quotes", format!("$Version=1; a=\"x; {jwt}; {token}; b=y\"")),
        ("behind a thousand others", format!("{junk}{jwt}; {token}")),
        ("unscoped", unscoped.clone()),
        ("beside another user's unscoped ones", format!("{}; {jwt}; {token}", bob.legacy_cookie_header())),
        ("beside unscoped ones that differ", format!("{unscoped}; {}; {jwt}; {token}", bob.legacy_cookie_header())),
        ("an unscoped refresh token with a scoped JWT", format!("{unscoped}; {jwt}")),
    ] {
        let answer = app.get("/me", cookie).await;
        answer.assert_passed("alice", case);
        assert_eq!(answer.json()["refreshToken"], alice.refresh_token(), "{case}");
    }
    let foreign = [b"name=\xe9\xff; ", alice.cookie_header().as_bytes(), b"; \xff=x"].concat();
    app.get("/me", foreign).await.assert_passed("alice", "beside foreign bytes");
    assert_eq!(calls(&mock), [1, 0, 0]);
}

#[tokio::test]
async fn the_session_is_found_among_twenty_thousand_cookies() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let junk = "a=b; ".repeat(20_000);
    let alice = mock.sign_in("alice").cookie_header();
    for cookie in [format!("{junk}{alice}"), format!("{alice}; {junk}"), format!("x={}; {alice}", "y".repeat(300_000))]
    {
        assert_eq!(get(&app, "/", &cookie).await.user().as_deref(), Some("alice"));
    }
}

#[tokio::test]
async fn a_scoped_refresh_token_is_not_paired_with_an_unscoped_jwt() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let cookie =
        format!("crossmint-jwt={}; {REFRESH}={}", mock.sign_in("bob").jwt(), mock.sign_in("alice").refresh_token());
    app.get("/me", cookie).await.assert_renewed("alice", "");
}

#[tokio::test]
async fn the_value_is_everything_after_the_first_equals_sign() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    for (calls, token) in ["a=b==", "=", "r%3B1", "r+1"].into_iter().enumerate() {
        app.get("/me", format!("{REFRESH}={token}")).await.assert_ended(ENDED, token);
        assert_eq!(mock.requests(Endpoint::Refresh)[calls].json(), Some(json!({ "refresh": token })));
    }
}

#[tokio::test]
async fn ambiguous_and_impossible_credentials_are_refused_without_a_call() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let alice = mock.sign_in("alice").cookie_header();
    let (jwt, long) = (mock.sign_in("bob").jwt().to_owned(), "r".repeat(4097));
    for (case, cookie) in [
        ("two JWTs", format!("{alice}; {JWT}={jwt}")),
        ("two refresh tokens", format!("{REFRESH}=x; {alice}")),
        ("two refresh tokens in two fields", format!("{alice}\n{REFRESH}=x")),
        ("three JWTs, two of them equal", format!("{JWT}={jwt}; {alice}; {JWT}={jwt}")),
        ("a space in the refresh token", format!("{REFRESH}=a b")),
        ("a quote in the refresh token", format!("{REFRESH}=\"ab\"")),
        ("a comma in the refresh token", format!("{REFRESH}=a,b")),
        ("a backslash in the refresh token", format!("{REFRESH}=a\\b")),
        ("a foreign letter in the refresh token", format!("{REFRESH}=é")),
        ("a refresh token that no cookie can hold", format!("{REFRESH}={long}")),
    ] {
        app.get("/me", cookie).await.assert_ended(ENDED, case);
    }
    app.get("/me", [REFRESH.as_bytes(), b"=\xff"].concat()).await.assert_ended(ENDED, "a foreign byte in it");
    let unscoped = format!("{}; crossmint-jwt=other", mock.sign_in("alice").legacy_cookie_header());
    let answer = app.get("/me", unscoped).await;
    assert_eq!((answer.status, answer.body), (401, unauthorized(ENDED)), "two unscoped JWTs");
    assert_eq!((calls(&mock), app.served()), ([0, 0, 0], 0));
}

#[tokio::test]
async fn huge_cookies_are_refused_without_a_call() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let (big, crowd) = ("A".repeat(400 << 10), "a=b;".repeat(100_000));
    for cookie in [format!("{JWT}=x; {REFRESH}={big}"), format!("{crowd}{REFRESH}={big}"), crowd] {
        assert_eq!(get(&app, "/", &cookie).await.status, 401);
    }
    assert_eq!(mock.connections(), 0);
}

#[tokio::test]
async fn the_names_are_as_configured() {
    let mock = MockCrossmint::start().await;
    let custom = CookieNames::Custom { jwt: "__Host-a".into(), refresh_token: "b".into() };
    for (case, names, [jwt, refresh_token], reads) in [
        ("scoped", CookieNames::Scoped, [JWT, REFRESH], [200, 200]),
        ("unscoped", CookieNames::Unscoped, ["crossmint-jwt", "crossmint-refresh-token"], [401, 200]),
        ("custom", custom, ["__Host-a", "b"], [401, 401]),
    ] {
        let app = App::configured(&mock, |config| config.cookies(CookieOptions::hardened()).cookie_names(names)).await;
        let alice = expired(&mock, "alice");
        let answer = app.get("/me", format!("{jwt}={}; {refresh_token}={}", alice.jwt(), alice.refresh_token())).await;
        assert_eq!((answer.status, answer.user().as_deref()), (200, Some("alice")), "{case}");
        assert!(answer.set_cookie().iter().map(|cookie| cookie.name()).eq([jwt, refresh_token]), "{case}: {answer:?}");
        let cleared = app.post(LOGOUT_ROUTE, &answer.cookie_header(), "").await;
        assert!(cleared.clears(&[jwt, refresh_token]), "{case}: {cleared:?}");

        let bob = mock.sign_in("bob");
        let scoped = app.get("/me", bob.cookie_header()).await.status;
        let unscoped = app.get("/me", bob.legacy_cookie_header()).await.status;
        assert_eq!([scoped, unscoped], reads, "{case}, reading the scoped and the unscoped pair");
    }
}

/// Each of the configurations, and the attributes that it gives to both cookies.
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
async fn the_refresh_cookie_expires_when_crossmint_says_if_that_is_a_date_to_come() {
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
        answer.assert_renewed("alice", case);
        let field = answer.set_cookie_fields().nth(1).unwrap();
        let expires = split(field).1.into_iter().find_map(|attribute| attribute.strip_prefix("Expires="));
        assert_eq!((expires, field.contains("evil")), (expected, false), "{case}");
    }
}

#[tokio::test]
async fn the_other_name_variant_is_cleared_only_if_the_request_carried_it() {
    let mock = MockCrossmint::start().await;
    let [jwt, refresh_token] = ["crossmint-jwt", "crossmint-refresh-token"];
    let scoped = format!("{JWT}=x; {REFRESH}=y");
    let unscoped = format!("{jwt}=x; {refresh_token}=y");
    let custom = CookieNames::Custom { jwt: "a".into(), refresh_token: "b".into() };
    let cases: &[(&str, &CookieNames, &str, &[&str])] = &[
        ("nothing", &CookieNames::Scoped, "", &[JWT, REFRESH]),
        ("the configured pair", &CookieNames::Scoped, &scoped, &[JWT, REFRESH]),
        ("the other pair", &CookieNames::Scoped, &unscoped, &[JWT, REFRESH, jwt, refresh_token]),
        ("the other JWT", &CookieNames::Scoped, "crossmint-jwt=x", &[JWT, REFRESH, jwt]),
        (
            "the other refresh token beside the pair",
            &CookieNames::Scoped,
            &format!("{scoped}; {refresh_token}=z"),
            &[JWT, REFRESH, refresh_token],
        ),
        (
            "the scoped pair where the unscoped one is configured",
            &CookieNames::Unscoped,
            &scoped,
            &[jwt, refresh_token, JWT, REFRESH],
        ),
        ("both pairs where neither is configured", &custom, &format!("{scoped}; {unscoped}"), &["a", "b"]),
    ];
    for (case, names, cookie, cleared) in cases {
        let app = App::configured(&mock, |config| config.cookie_names((*names).clone())).await;
        let refused = app.get("/me", cookie).await;
        assert_eq!(refused.status, 401, "{case}");
        assert!(refused.clears(cleared), "{case}, refused: {refused:?}");
        let left = app.post(LOGOUT_ROUTE, cookie, "").await;
        assert!(left.clears(cleared), "{case}, at the logout: {left:?}");
    }
}

#[tokio::test]
async fn the_host_only_variant_is_cleared_where_a_domain_is_configured_and_cookies_differ() {
    let mock = MockCrossmint::start().await;
    let (one, two) = (format!("{JWT}=x; {REFRESH}=y"), format!("{JWT}=x; {REFRESH}=y; {REFRESH}=z"));
    let host_only = CookieOptions::default();
    let shared = CookieOptions::default().domain("example.test");
    for (case, options, cookie, domains) in [
        ("one cookie, no domain", &host_only, &one, vec![None, None]),
        ("two cookies, no domain", &host_only, &two, vec![None, None]),
        ("one cookie, a domain", &shared, &one, vec![Some("example.test"); 2]),
        ("two cookies, a domain", &shared, &two, vec![Some("example.test"), Some("example.test"), None, None]),
    ] {
        let app = App::configured(&mock, |config| config.cookies(options.clone())).await;
        let answer = app.get("/me", cookie).await;
        assert!(answer.clears(&[JWT, REFRESH, JWT, REFRESH][..domains.len()]), "{case}: {answer:?}");
        assert_eq!(answer.set_cookie().iter().map(|cookie| cookie.domain()).collect::<Vec<_>>(), domains, "{case}");
    }
}

#[tokio::test]
async fn a_changed_cookie_domain_heals_after_one_login() {
    let mock = MockCrossmint::start().await;
    let app = App::configured(&mock, |config| config.cookies(CookieOptions::default().domain("example.test"))).await;
    let mut browser = Browser::at("https://app.example.test/");
    // An earlier configuration had no domain.
    for pair in expired(&mock, "alice").cookie_header().split("; ") {
        browser.keep(&format!("{pair}; Path=/; SameSite=Lax"));
    }
    browser.get(&app).await.assert_renewed("alice", "the old cookies still count");
    let ambiguous = browser.get(&app).await;
    assert_eq!((ambiguous.status, browser.cookie_header()), (401, String::new()), "old and new cookies differ");

    browser.sign_in(&app, &mock, "alice").await;
    browser.get(&app).await.assert_passed("alice", "after the login");
    browser.get(&app).await.assert_passed("alice", "and from then on");
}

/// A name, and the places from which somebody else has set a cookie of that name.
type Planted = (&'static str, &'static [&'static str]);

/// Sibling subdomains of `app.example.test` set these; so does an earlier configuration.
const PLANTED: [Planted; 7] = [
    ("the parent domain", &["Domain=example.test; Path=/"]),
    ("the host as a domain", &["Domain=app.example.test; Path=/"]),
    ("the path of the page", &["Domain=example.test; Path=/me/page"]),
    ("a directory", &["Domain=example.test; Path=/me"]),
    ("a directory with a slash", &["Domain=example.test; Path=/me/"]),
    ("many places at once", &["Domain=app.example.test; Path=/me", "Domain=example.test; Path=/me/", "Path=/me/page"]),
    ("the host itself, with a path", &["Path=/me"]),
];

#[tokio::test]
async fn after_one_401_nobody_is_anybody_wherever_a_sibling_has_planted_its_cookies() {
    let mock = MockCrossmint::start().await;
    let shared = CookieOptions::default().domain("example.test");
    let configurations = [("host-only", CookieOptions::default()), ("a domain", shared)];
    for (options, (planted, places), which, plants_first) in configurations.iter().flat_map(|options| {
        PLANTED.into_iter().flat_map(move |planted| {
            [&[JWT, REFRESH][..], &[JWT], &[REFRESH]]
                .into_iter()
                .flat_map(move |which| [true, false].map(move |first| (options, planted, which, first)))
        })
    }) {
        let case = format!("{}, {planted}, {which:?}, first: {plants_first}", options.0);
        // Where both set the same cookie, one replaces the other: nothing contradicts. To this jar, a host-only cookie and
        // one for the host as a domain are the same.
        let own = if options.0 == "a domain" { "the parent domain" } else { "the host as a domain" };
        if planted == own {
            continue;
        }
        let app = App::configured(&mock, |config| config.cookies(options.1.clone())).await;
        let mut browser = Browser::at("https://app.example.test/me/page");
        let mallory = mock.sign_in("mallory");
        let plant = |browser: &mut Browser| {
            for (name, value) in [(JWT, mallory.jwt()), (REFRESH, mallory.refresh_token())] {
                for place in places.iter().filter(|_| which.contains(&name)) {
                    browser.keep(&format!("{name}={value}; {place}"));
                }
            }
        };
        if plants_first {
            plant(&mut browser);
        }
        browser.sign_in(&app, &mock, "alice").await;
        if !plants_first {
            plant(&mut browser);
        }
        browser.visit(&app, "/me/page").await.assert_status(401, &case);
        assert_eq!(browser.cookie_header(), "", "{case}");
        browser.visit(&app, "/me/page").await.assert_status(401, &case);
        assert!(mock.is_live(mallory.refresh_token()), "{case}: nobody's token was sent");

        browser.sign_in(&app, &mock, "alice").await;
        browser.visit(&app, "/me/page").await.assert_passed("alice", &case);
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
async fn deletions_go_only_where_the_request_was_sent_and_are_bounded() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let two = format!("{JWT}=x; {REFRESH}=y; {REFRESH}=z");
    let deep = format!("/{}", "a/".repeat(12));
    let (long, endless) = ("a".repeat(300), format!("/{}", "a/".repeat(500)));
    for (case, host, path, domains, count) in [
        ("a host", Some("app.example.test:8080"), "/", &["app.example.test", "example.test"][..], 4),
        ("a host in upper case", Some("APP.example.test"), "/", &["app.example.test", "example.test"], 4),
        ("one label", Some("localhost"), "/", &[], 2),
        ("below localhost", Some("app.localhost"), "/", &["app.localhost"], 3),
        ("an IPv4 address", Some("127.0.0.1:80"), "/", &[], 2),
        ("an IPv6 address", Some("[::1]:80"), "/", &[], 2),
        ("no domain name", Some("a_b..c"), "/", &[], 2),
        ("an attribute", Some("example.test; Path=/x"), "/", &[], 2),
        ("a long label", Some(&*long), "/", &[], 2),
        ("a dot in front", Some(".example.test"), "/", &[], 2),
        ("many labels", Some("a.b.c.d.e.f.example.test"), "/", &["b.c.d.e.f.example.test", "example.test"], 9),
        ("a path", Some("example.test"), "/me/page", &["example.test"], 2 + 7),
        ("a path of one label", Some("localhost"), "/me/page", &[], 2),
        ("a semicolon in the path", Some("example.test"), "/me;x/page", &["example.test"], 3),
        // Some would be left over, and pass for the user's own: better none is touched.
        ("a deep path", Some("app.example.test"), &*deep, &[], 0),
        ("an endless path", Some("example.test"), &*endless, &[], 0),
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

/// A proxy or a router may hide the host or a part of the path: then deletions miss what a sibling has planted.
#[tokio::test]
async fn where_cookies_are_secure_a_planted_cookie_that_deletions_miss_goes_on_being_refused() {
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
        assert_eq!(visit(&mut browser).await, 401, "{case}, once it is gone");
        assert_eq!(browser.cookie_header(), "", "{case}");
        assert!(mock.is_live(mallory.refresh_token()), "{case}");
        browser.sign_in(&app, &mock, "alice").await;
        assert_eq!(visit(&mut browser).await, 200, "{case}, after another login");
    }
    let sent = mock.requests(Endpoint::Refresh).into_iter().chain(mock.requests(Endpoint::Logout));
    assert!(sent.filter_map(|request| request.json()).all(|body| body["refresh"] != "__contradicted__"));
}

#[tokio::test]
async fn a_logout_leaves_nothing_of_the_users_own_whatever_was_planted() {
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
async fn a_host_name_prefix_is_deleted_where_browsers_keep_it_and_nowhere_else() {
    let mock = MockCrossmint::start().await;
    let names = CookieNames::Custom { jwt: "__Host-a".into(), refresh_token: "b".into() };
    let app =
        App::configured(&mock, |config| config.cookies(CookieOptions::hardened()).cookie_names(names.clone())).await;
    let request = app.request(Method::GET, "/me").header("cookie", "__Host-a=x; b=y; b=z");
    let answer = app.send(request.header("host", "app.example.test")).await;
    let of = |name: &str| answer.set_cookie().iter().filter(|cookie| cookie.name() == name).count();
    assert_eq!((of("__Host-a"), of("b")), (1, 7), "{answer:?}");
}

#[tokio::test]
async fn a_neighbours_unscoped_cookies_are_neither_sent_nor_deleted() {
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
        assert!(mock.is_live(bob.refresh_token()), "{case}: neither spent nor revoked");
    }
    let sent = mock.requests(Endpoint::Refresh).len() + mock.requests(Endpoint::Logout).len();
    assert_eq!(sent, 2 * 3, "alice's login and logout, three times");
}

#[tokio::test]
async fn unscoped_cookies_that_may_be_ours_still_count() {
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
        ("an odd audience", old(mock.session("alice").audience(json!({"x": 1})).create())),
        ("no JWT", format!("crossmint-refresh-token={}", mock.sign_in("alice").refresh_token())),
        (
            "a JWT that is none",
            format!("crossmint-jwt=x; crossmint-refresh-token={}", mock.sign_in("alice").refresh_token()),
        ),
    ] {
        app.get("/me", cookie).await.assert_renewed("alice", case);
    }
}

#[tokio::test]
async fn where_unscoped_names_are_configured_a_neighbours_session_is_none_and_stays() {
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
async fn a_response_that_sets_cookies_is_stored_by_no_cache() {
    let mock = MockCrossmint::start().await;
    let caching = [
        ("cache-control", "public, max-age=600"),
        ("cdn-cache-control", "max-age=600"),
        ("cloudflare-cdn-cache-control", "max-age=600"),
        ("surrogate-control", "max-age=600"),
        ("x-accel-expires", "600"),
        ("edge-control", "max-age=600"),
    ];
    let page = axum::routing::any(move || async move { (axum::response::AppendHeaders(caching), "page") });
    let inner = axum::Router::new().fallback(page);
    let config = mock.config().unauthenticated(Unauthenticated::Allow).build().unwrap();
    let app = App::of(CrossmintAuth::new(config), inner).await;
    let seen = |answer: &Answer| {
        let names = caching.iter().map(|(name, _)| *name).filter(|name| answer.headers.contains_key(*name));
        (names.collect::<Vec<_>>(), answer.header("cache-control").to_owned())
    };
    let none = (vec!["cache-control"], "no-store".to_owned());
    let all = (caching.iter().map(|(name, _)| *name).collect(), caching[0].1.to_owned());
    for (case, cookie, expected) in [
        ("a renewal", expired(&mock, "alice").cookie_header(), &none),
        ("a dead session", format!("{REFRESH}=a b"), &none),
        ("a valid session", mock.sign_in("alice").cookie_header(), &all),
        ("nobody", String::new(), &all),
    ] {
        assert_eq!(seen(&app.get("/", cookie).await), *expected, "{case}");
    }
    let fields = caching.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let mut response: HeaderMap = fields.collect();
    app.auth.clear_auth_material(&mut response);
    assert_eq!(response.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["cache-control", "set-cookie"]);
    assert_eq!(response["cache-control"], "no-store");
}

/// A browser that shows one site.
struct Browser {
    jar: CookieStore,
    site: Url,
}

impl Browser {
    fn at(site: &str) -> Self {
        Self { jar: CookieStore::default(), site: site.parse().unwrap() }
    }

    async fn get(&mut self, app: &App) -> Answer {
        self.visit(app, "/me").await
    }

    async fn visit(&mut self, app: &App, path: &str) -> Answer {
        let request = app.request(Method::GET, path).header("host", self.site.host_str().unwrap());
        let answer = app.send(request.header("cookie", self.cookie_header())).await;
        self.take(&answer);
        answer
    }

    async fn sign_in(&mut self, app: &App, mock: &MockCrossmint, user_id: &str) {
        let body = json!({ "refresh": mock.one_time_secret(user_id) }).to_string();
        let answer = app.post(REFRESH_ROUTE, &self.cookie_header(), &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.take(&answer);
    }

    fn take(&mut self, answer: &Answer) {
        answer.set_cookie_fields().for_each(|field| self.keep(field));
    }

    fn keep(&mut self, set_cookie: &str) {
        match self.jar.parse(set_cookie, &self.site) {
            // The deletion of a cookie that is not there, or not to be touched.
            Ok(_) | Err(CookieError::Expired | CookieError::DomainMismatch) => {}
            Err(error) => panic!("{set_cookie}: {error}"),
        }
    }

    fn cookie_header(&self) -> String {
        let pairs: Vec<_> =
            self.jar.get_request_values(&self.site).map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    /// Returns the cookies in the order of their names.
    fn cookies(&self) -> String {
        let header = self.cookie_header();
        let mut pairs: Vec<_> = header.split("; ").collect();
        pairs.sort_unstable();
        pairs.join("; ")
    }

    fn headers(&self) -> HeaderMap {
        HeaderMap::from_iter([(http::header::COOKIE, self.cookie_header().parse().unwrap())])
    }
}
