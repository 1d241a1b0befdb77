//! Every option: its default, its effect, and the error for a value that cannot work.

use std::{
    future::{Future, ready},
    time::Duration,
};

use http::{HeaderMap, Method};
use tower_crossmint_auth::{
    ApiKey, AuthErrorKind, AuthMaterial, CookieNames, CookieOptions, CrossmintAuth, CrossmintAuthConfig,
    CrossmintAuthConfigBuilder, CrossmintAuthLayer, Environment, KeyOrigin, RefreshToken, SameSite,
    testing::{Endpoint, Fault, MockCrossmint},
};
use tracing::Level;

use crate::support::{
    answer::{Answer, JWT, LOGOUT_ROUTE, REFRESH, REFRESH_ROUTE},
    app::App,
    clock::pass,
    direct::{app, auth, get, post, request, send},
    events::Events,
    mock::{Calls, NO_CALLS, calls, expired},
};

#[test]
fn a_genuine_key_is_accepted_and_names_its_project() {
    let key: ApiKey = GENUINE.parse().unwrap();
    assert_eq!((key.origin(), key.environment()), (KeyOrigin::Client, Environment::Development));
    assert_eq!((key.project_id(), key.expose()), ("dfb06708-a46f-4615-bd34-f614ae284e7b", GENUINE));
    for builder in [
        CrossmintAuthConfig::builder(GENUINE),
        CrossmintAuthConfig::builder(GENUINE.to_owned()),
        CrossmintAuthConfig::builder(key),
    ] {
        let config = builder.build().unwrap();
        assert!(!format!("{config:?}").contains(&GENUINE[16..40]), "the key is shown");
        let names = stored(&CrossmintAuth::new(config)).into_iter().map(|cookie| cookie.name().to_owned());
        assert!(names.into_iter().all(|name| name.ends_with("-dfb06708-a46f-4615-bd34-f614ae284e7b")));
    }
}

#[test]
fn each_bad_api_key_has_an_error_of_its_own() {
    let payload = GENUINE.rsplit_once('_').unwrap().1;
    let cases = [
        ("old format", format!("sk_live_{payload}"), "create a new key"),
        ("old format for tests", format!("sk_test_{payload}"), "create a new key"),
        ("wrong origin", format!("pk_development_{payload}"), "does not begin with `sk_`"),
        ("unknown environment", format!("ck_local_{payload}"), "its environment is unknown"),
        ("not base58", format!("ck_development_0{payload}"), "not base58"),
        ("bad signature", format!("sk_development_{payload}"), "signature does not verify"),
        ("another environment", format!("ck_production_{payload}"), "signature does not verify"),
        ("cut off", GENUINE[..100].to_owned(), "not copied whole"),
        ("empty", String::new(), "it is empty"),
        ("a line break", format!("{GENUINE}\n"), "white space"),
    ];
    for (name, key, expected) in cases {
        let error = CrossmintAuthConfig::builder(key).build().unwrap_err();
        assert_eq!(error.option(), "api_key", "{name}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert!(![error.to_string(), format!("{error:?}")].concat().contains(&payload[..8]), "{name} shows the key");
    }
}

#[test]
fn a_bad_value_is_an_error_that_names_the_option_and_the_fix() {
    let custom =
        |jwt: &str, refresh_token: &str| CookieNames::Custom { jwt: jwt.into(), refresh_token: refresh_token.into() };
    let named = |jwt, refresh_token, options| builder().cookie_names(custom(jwt, refresh_token)).cookies(options);
    let hardened = CookieOptions::hardened;
    let lax = CookieOptions::default;
    let same_site_none = lax().same_site(SameSite::None);
    // The builder, the option, and what the error says: the value, and how to fix it.
    let cases = [
        (builder().base_url("crossmint.com"), "base_url", ["`crossmint.com`", "write it like"]),
        (builder().base_url("/relative"), "base_url", ["`/relative`", "write it like"]),
        (builder().base_url(""), "base_url", ["``", "write it like"]),
        (builder().base_url("http://example.com"), "base_url", ["`http://example.com`", "use https"]),
        (
            builder().base_url("http://127.0.0.1.example.com"),
            "base_url",
            ["`http://127.0.0.1.example.com`", "use https"],
        ),
        (builder().base_url("http://10.0.0.1"), "base_url", ["`http://10.0.0.1`", "use https"]),
        (builder().base_url("ftp://localhost"), "base_url", ["`ftp://localhost`", "use https"]),
        (builder().base_url("https://a.test?x=1"), "base_url", ["`https://a.test?x=1`", "leave it out"]),
        (builder().base_url("https://a.test/#x"), "base_url", ["`https://a.test/#x`", "leave it out"]),
        (builder().base_url("https://user:hunter2@a.test"), "base_url", ["password", "leave them out"]),
        (builder().refresh_route("api/refresh"), "refresh_route", ["`api/refresh`", "write it like"]),
        (builder().refresh_route(""), "refresh_route", ["``", "write it like"]),
        (builder().refresh_route("/refresh?x=1"), "refresh_route", ["`/refresh?x=1`", "without a query"]),
        (builder().refresh_route("/a b"), "refresh_route", ["`/a b`", "write it like"]),
        (builder().logout_route("https://a.test/logout"), "logout_route", ["`https://a.test/logout`", "write it like"]),
        (builder().logout_route("/logout#x"), "logout_route", ["`/logout#x`", "write it like"]),
        (builder().logout_route("/api/auth/refresh"), "logout_route", ["`/api/auth/refresh`", "two paths"]),
        (builder().refresh_route("/größe"), "refresh_route", ["`/größe`", "write it like"]),
        (builder().refresh_route("/{tenant}/refresh"), "refresh_route", ["placeholder", "name one path"]),
        (builder().refresh_route("/:tenant/refresh"), "refresh_route", ["placeholder", "name one path"]),
        (builder().logout_route("/auth/*rest"), "logout_route", ["placeholder", "name one path"]),
        (builder().after_logout("https://evil.example"), "after_logout", ["`https://evil.example`", "write it like"]),
        (builder().after_logout("//evil.example"), "after_logout", ["`//evil.example`", "write it like"]),
        (key(Environment::Production).base_url("https://staging.crossmint.com"), "base_url", ["staging", "change one"]),
        (key(Environment::Staging).base_url("https://www.crossmint.com/"), "base_url", ["production", "change one"]),
        (key(Environment::Staging).base_url("https://crossmint.com"), "base_url", ["production", "change one"]),
        (
            key(Environment::Production).base_url("https://www.crossmint.com/api"),
            "base_url",
            ["path", "leave the path out"],
        ),
        (builder().base_url("https://a.test/api/2024-09-26"), "base_url", ["path", "leave the path out"]),
        (builder().base_url("https://a.test/.well-known/jwks.json"), "base_url", ["path", "leave the path out"]),
        (builder().connect_timeout(Duration::from_secs(11)), "connect_timeout", ["11s", "`refresh_timeout`"]),
        (builder().cookies(lax().domain("com")), "cookies.domain", ["`com`", "leave the domain out"]),
        (builder().cookies(lax().domain("localhost")), "cookies.domain", ["`localhost`", "leave the domain out"]),
        (builder().audience(""), "audience", ["empty", "dangerous_accept_any_audience"]),
        (builder().issuer(""), "issuer", ["empty", "leave it out"]),
        (builder().leeway(Duration::from_millis(300_001)), "leeway", ["300.001s", "maximum of 300 s"]),
        (builder().rotation_grace(Duration::from_secs(301)), "rotation_grace", ["301s", "maximum of 300 s"]),
        (builder().trusted_origins(["app.example.com"]), "trusted_origins", ["`app.example.com`", "write it like"]),
        (
            builder().trusted_origins(["https://b.test", "https://a.test/x"]),
            "trusted_origins",
            ["`https://a.test/x`", "write it like"],
        ),
        (builder().trusted_origins(["*"]), "trusted_origins", ["`*`", "write it like"]),
        (builder().trusted_origins(["https://*.a.test"]), "trusted_origins", ["`https://*.a.test`", "write it like"]),
        (builder().trusted_origins(["null"]), "trusted_origins", ["`null`", "write it like"]),
        (builder().trusted_origins(["https://user:hunter2@a.test"]), "trusted_origins", ["password", "leave them out"]),
        (builder().connect_timeout(Duration::ZERO), "connect_timeout", ["zero", "longer"]),
        (builder().max_concurrent_refreshes(0), "max_concurrent_refreshes", ["0 is not", "between 1 and 65536"]),
        (
            builder().max_concurrent_refreshes(65_537),
            "max_concurrent_refreshes",
            ["65537 is not", "between 1 and 65536"],
        ),
        (builder().keys_timeout(Duration::ZERO), "keys_timeout", ["zero", "longer"]),
        (builder().refresh_timeout(Duration::ZERO), "refresh_timeout", ["zero", "longer"]),
        (builder().logout_timeout(Duration::ZERO), "logout_timeout", ["zero", "longer"]),
        (builder().cookies(same_site_none), "cookies", ["`SameSite::None`", ".secure(true)"]),
        (
            builder().cookies(lax().domain("a.test; Path=/x")),
            "cookies.domain",
            ["`a.test; Path=/x`", "write it without"],
        ),
        (builder().cookies(lax().domain("a\nb")), "cookies.domain", [r"`a\nb`", "write it without"]),
        (builder().cookies(lax().domain("a.test:80")), "cookies.domain", ["`a.test:80`", "without scheme, port"]),
        (builder().cookies(lax().domain("127.0.0.1")), "cookies.domain", ["`127.0.0.1`", "leave the domain out"]),
        (builder().cookies(lax().domain("::1")), "cookies.domain", ["`::1`", "leave the domain out"]),
        (named("a b", "r", lax()), "cookie_names", ["`a b`", "use letters"]),
        (named("same", "same", lax()), "cookie_names", ["`same`", "two names"]),
        (named("j", "__Secure-r", lax()), "cookie_names", ["`__Secure-r`", ".secure(true)"]),
        (named("__Host-j", "r", lax()), "cookie_names", ["`__Host-j`", ".secure(true)"]),
        (
            named("__Host-j", "r", hardened().domain("a.test")),
            "cookie_names",
            ["`__Host-j`", "drop the prefix or the domain"],
        ),
        (
            CrossmintAuthConfig::builder(ApiKey::unverified("a b", Environment::Staging)),
            "api_key",
            ["`a b`", "cookie's name"],
        ),
        (
            CrossmintAuthConfig::builder(ApiKey::unverified("", Environment::Staging)),
            "api_key",
            ["``", "cookie's name"],
        ),
    ];
    for (builder, option, texts) in cases {
        let error = builder.build().map(drop).expect_err(&format!("{option}: {texts:?}"));
        let text = error.to_string();
        assert_eq!(error.option(), option, "{text}");
        assert!(text.contains(&format!("`{option}`")), "{text}");
        assert!(texts.iter().all(|part| text.contains(part)), "{texts:?}: {text}");
        assert!(!text.contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{text}");
    }
}

#[test]
fn good_values_at_the_edge_are_accepted() {
    let cases = [
        ("no leeway", builder().leeway(Duration::ZERO)),
        ("the longest leeway", builder().leeway(Duration::from_secs(300))),
        ("no successors", builder().rotation_grace(Duration::ZERO)),
        ("the longest window", builder().rotation_grace(Duration::from_secs(300))),
        ("one refresh at a time", builder().max_concurrent_refreshes(1)),
        ("no token cache", builder().token_cache_bytes(0)),
        ("a leading dot", builder().cookies(CookieOptions::default().domain(".example.com"))),
        ("SameSite::None over HTTPS", builder().cookies(CookieOptions::hardened().same_site(SameSite::None))),
        ("the routes' shortest paths", builder().refresh_route("/").logout_route("/x")),
        ("an IPv6 loopback", builder().base_url("http://[::1]:3000")),
        ("an origin of any spelling", builder().trusted_origins(["HTTPS://App.Example.com:443/"])),
    ];
    for (name, builder) in cases {
        assert!(builder.build().is_ok(), "{name}");
    }
}

#[test]
fn the_base_url_follows_the_environment_and_an_override_is_normalised() {
    let of = |builder: CrossmintAuthConfigBuilder| CrossmintAuth::new(builder.build().unwrap()).jwks_uri().to_owned();
    let environments = [
        (Environment::Development, "http://localhost:3000"),
        (Environment::Staging, "https://staging.crossmint.com"),
        (Environment::Production, "https://www.crossmint.com"),
    ];
    for (environment, base_url) in environments {
        let uri = of(CrossmintAuthConfig::builder(ApiKey::unverified("p", environment)));
        assert_eq!(uri, format!("{base_url}/.well-known/jwks.json"));
    }
    let overrides = [
        ("https://a.test/", "https://a.test"),
        ("//https://a.test///", "https://a.test"),
        ("https://a.test/crossmint/", "https://a.test/crossmint"),
        ("HTTPS://A.test:443", "https://a.test"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.8.8.8", "http://127.8.8.8"),
    ];
    for (base_url, normalised) in overrides {
        assert_eq!(of(builder().base_url(base_url)), format!("{normalised}/.well-known/jwks.json"));
    }
}

#[test]
fn cookies_are_as_documented_hardened_or_custom() {
    #[derive(Clone, Copy)]
    struct Expected {
        names: [&'static str; 2],
        /// Of the cookie of the refresh token. That of the JWT is never `HttpOnly`.
        http_only: Option<bool>,
        secure: Option<bool>,
        same_site: cookie::SameSite,
        domain: Option<&'static str>,
    }
    let custom = CookieNames::Custom { jwt: "__Host-j".into(), refresh_token: "__Host-r".into() };
    let default = Expected {
        names: ["crossmint-jwt-p", "crossmint-refresh-token-p"],
        http_only: None,
        secure: None,
        same_site: cookie::SameSite::Lax,
        domain: None,
    };
    let hardened =
        Expected { http_only: Some(true), secure: Some(true), same_site: cookie::SameSite::Strict, ..default };
    let unscoped = Expected { names: ["crossmint-jwt", "crossmint-refresh-token"], ..default };
    let cases = [
        ("default", builder(), default),
        ("hardened", builder().cookies(CookieOptions::hardened()), hardened),
        ("unscoped", builder().cookie_names(CookieNames::Unscoped), unscoped),
        (
            "custom",
            builder().cookies(CookieOptions::hardened()).cookie_names(custom),
            Expected { names: ["__Host-j", "__Host-r"], ..hardened },
        ),
        (
            "domain",
            builder().cookies(CookieOptions::default().domain(".a.test")),
            Expected { domain: Some("a.test"), ..default },
        ),
    ];
    for (name, builder, expected) in cases {
        let cookies = stored(&CrossmintAuth::new(builder.build().unwrap()));
        assert_eq!(cookies.iter().map(|cookie| cookie.name()).collect::<Vec<_>>(), expected.names, "{name}");
        assert_eq!((cookies[0].http_only(), cookies[1].http_only()), (None, expected.http_only), "{name}");
        for cookie in cookies {
            assert_eq!((cookie.secure(), cookie.same_site()), (expected.secure, Some(expected.same_site)), "{name}");
            assert_eq!((cookie.domain(), cookie.path()), (expected.domain, Some("/")), "{name}");
            assert_eq!(cookie.max_age(), None, "{name}");
        }
    }
}

#[tokio::test]
async fn scoped_names_fall_back_to_unscoped_ones_and_others_do_not() {
    let mock = MockCrossmint::start().await;
    let alice = mock.sign_in("alice");
    let (scoped, unscoped) = (alice.cookie_header(), alice.legacy_cookie_header());
    let own = format!("j={}; r={}", alice.jwt(), alice.refresh_token());
    let custom = CookieNames::Custom { jwt: "j".into(), refresh_token: "r".into() };
    let cases = [
        ("scoped", CookieNames::Scoped, [200, 200, 401]),
        ("scoped only", CookieNames::ScopedOnly, [200, 401, 401]),
        ("unscoped", CookieNames::Unscoped, [401, 200, 401]),
        ("custom", custom, [401, 401, 200]),
    ];
    for (name, names, expected) in cases {
        let app = app(&CrossmintAuth::new(mock.config().cookie_names(names).build().unwrap()));
        for (cookie, status) in [&scoped, &unscoped, &own].into_iter().zip(expected) {
            assert_eq!(get(&app, "/", cookie).await.status, status, "{name}");
        }
    }
}

#[tokio::test]
async fn the_two_routes_are_configurable() {
    let mock = MockCrossmint::start().await;
    let refresh = "{\"refresh\":null}";
    let default = App::serve(&mock).await;
    let config = mock.config().refresh_route("/r").logout_route("/l");
    let moved = App::with(CrossmintAuth::new(config.build().unwrap())).await;
    for (app, routes, others) in [
        (&default, ["/api/auth/refresh", "/api/auth/logout"], ["/r", "/l"]),
        (&moved, ["/r", "/l"], ["/api/auth/refresh", "/api/auth/logout"]),
    ] {
        let cookie = mock.sign_in("alice").cookie_header();
        for path in others {
            assert_eq!(
                app.post(path, &cookie, refresh).await.json()["path"],
                path,
                "the default route is an ordinary path"
            );
        }
        assert_eq!(app.post(routes[0], &cookie, refresh).await.json()["user"]["id"], "alice");
        assert!(app.post(routes[1], &cookie, "").await.clears(&[JWT, REFRESH]));
    }
}

#[tokio::test]
async fn configured_routes_replace_the_default_ones() {
    let mock = MockCrossmint::start().await;
    let app = App::configured(&mock, |config| config.refresh_route("/refresh").logout_route("/leave")).await;
    let cookie = mock.sign_in("alice").cookie_header();
    app.post(REFRESH_ROUTE, &cookie, "{}")
        .await
        .assert_passed("alice", "the default route is one of the application's");
    let refreshed = app.post("/refresh", &cookie, "{}").await;
    assert!(refreshed.stores_a_session(), "{refreshed:?}");
    assert!(app.post("/leave", &refreshed.cookie_header(), "").await.clears(&[JWT, REFRESH]));
    assert_eq!(calls(&mock), Calls { keys: 1, refreshes: 1, logouts: 1, ..NO_CALLS });
}

#[tokio::test]
async fn policies_are_strict_and_bodies_complete_by_default() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    assert_eq!(get(&app, "/", "").await.status, 401, "unauthenticated");
    let alice = expired(&mock, "alice").cookie_header();
    let mut foreign = request(Method::POST, "/api/auth/refresh", &alice);
    foreign.headers_mut().insert("origin", "https://app.example.com".parse().unwrap());
    assert_eq!(send(&app, foreign).await.status, 403, "trusted_origins");
    let refreshed = post(&app, "/api/auth/refresh", &alice).await;
    assert!(refreshed.json()["refreshToken"]["secret"].is_string(), "expose_refresh_secret");
    mock.inject(Endpoint::Refresh, Fault::Status(500));
    let bob = expired(&mock, "bob").cookie_header();
    let outage = get(&app, "/", &bob).await;
    assert!((outage.status, outage.clears(&[JWT, REFRESH])) == (401, true), "on_outage");
}

#[tokio::test]
async fn a_trusted_origin_is_normalised_before_it_is_compared() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().trusted_origins(["HTTPS://App.Example.com:443/", "http://localhost:5173"]);
    let app = app(&CrossmintAuth::new(config.build().unwrap()));
    for (origin, status) in [
        ("https://app.example.com", 401),
        ("http://localhost:5173", 401),
        ("http://app.example.com", 403),
        ("https://app.example.com.evil.test", 403),
        ("http://localhost", 403),
    ] {
        let mut request = request(Method::POST, "/api/auth/refresh", "");
        request.headers_mut().insert("origin", origin.parse().unwrap());
        assert_eq!(send(&app, request).await.status, status, "{origin}");
    }
}

#[tokio::test]
async fn time_limits_are_as_documented_or_configured() {
    struct Limits {
        keys: Duration,
        refresh: Duration,
        logout: Duration,
    }
    let seconds = Duration::from_secs;
    let default = Limits { keys: seconds(5), refresh: seconds(10), logout: seconds(2) };
    let custom = Limits { keys: seconds(50), refresh: seconds(100), logout: seconds(20) };
    for (name, Limits { keys, refresh, logout }) in [("default", default), ("custom", custom)] {
        let mock = MockCrossmint::start().await;
        let config = mock.config();
        let config = match name {
            "default" => config,
            _ => config.keys_timeout(keys).refresh_timeout(refresh).logout_timeout(logout),
        };
        let auth = CrossmintAuth::new(config.build().unwrap());
        let alice = expired(&mock, "alice");
        let material = AuthMaterial::new("", RefreshToken::new(alice.refresh_token()));

        mock.inject(Endpoint::Keys, Fault::Hang);
        let call = {
            let auth = auth.clone();
            async move { auth.warm_up().await.unwrap_err().kind() }
        };
        assert_eq!(times_out_after(keys, call, mock.called(Endpoint::Keys, 1)).await, AuthErrorKind::Unavailable);
        mock.clear_faults();
        pass(Duration::from_secs(1)).await;
        auth.warm_up().await.unwrap();

        mock.inject(Endpoint::Refresh, Fault::Hang);
        let call = {
            let (auth, material) = (auth.clone(), material.clone());
            async move { auth.get_session(&material).await.unwrap_err().kind() }
        };
        assert_eq!(times_out_after(refresh, call, mock.called(Endpoint::Refresh, 1)).await, AuthErrorKind::Unavailable);
        // A late answer is accepted until then.
        pass(refresh / 4).await;
        auth.wait_idle().await;
        mock.inject(Endpoint::Logout, Fault::Hang);
        let call = {
            let auth = auth.clone();
            async move { auth.logout(&material).await.unwrap_err().kind() }
        };
        assert_eq!(times_out_after(logout, call, mock.called(Endpoint::Logout, 1)).await, AuthErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn unlimited_time_limits_work() {
    let mock = MockCrossmint::start().await;
    let max = Duration::MAX;
    let config = mock.config().refresh_timeout(max).keys_timeout(max).logout_timeout(max).connect_timeout(max);
    let app = App::with(CrossmintAuth::new(config.build().unwrap())).await;
    let answer = app.get("/", expired(&mock, "alice").cookie_header()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(app.post(LOGOUT_ROUTE, &answer.cookie_header(), "").await.status, 200);
}

#[tokio::test]
async fn connecting_times_out_after_2_s_or_as_configured() {
    // With a full backlog, further connections do not open.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let _queued = tokio::net::TcpStream::connect(address).await.unwrap();
    for limit in [2, 4] {
        let config = builder().base_url(format!("http://{address}"));
        let config = if limit == 2 { config } else { config.connect_timeout(Duration::from_secs(limit)) };
        let auth = CrossmintAuth::new(config.build().unwrap());
        let call = async move { auth.warm_up().await.unwrap_err().kind() };
        let kind = times_out_after(Duration::from_secs(limit), call, ready(())).await;
        assert_eq!(kind, AuthErrorKind::Unavailable, "{limit} s");
    }
}

#[test]
fn risky_configurations_are_warned_of_once() {
    let production = || CrossmintAuthConfig::builder(ApiKey::unverified("risky", Environment::Production));
    let staging = || CrossmintAuthConfig::builder(ApiKey::unverified("risky", Environment::Staging));
    let hardened = CookieOptions::hardened;
    let cases = [
        ("a client key", CrossmintAuthConfig::builder(GENUINE), vec!["client API key"]),
        ("weak cookies in production", production(), vec!["weak cookies"]),
        ("not Secure", production().cookies(hardened().secure(false)), vec!["weak cookies"]),
        ("not HttpOnly", production().cookies(hardened().http_only(false)), vec!["weak cookies"]),
        ("hardened in production", production().cookies(hardened()), vec![]),
        ("weak cookies in staging", staging(), vec![]),
        ("a trusted origin elsewhere", staging().trusted_origins(["https://other.example"]), vec!["on another site"]),
        (
            "a trusted origin under another domain",
            staging().cookies(hardened().domain("app.example")).trusted_origins(["https://notapp.example"]),
            vec!["on another site"],
        ),
        (
            "a trusted origin under the domain",
            staging().cookies(hardened().domain(".app.example")).trusted_origins(["https://www.app.example:8443"]),
            vec![],
        ),
        ("a trusted origin on loopback", staging().trusted_origins(["http://localhost:5173", "http://[::1]"]), vec![]),
        (
            "cookies for every site",
            staging().cookies(hardened().same_site(SameSite::None)).trusted_origins(["https://other.example"]),
            vec![],
        ),
    ];
    for (name, builder, expected) in cases {
        let events = Events::capture(Level::WARN);
        let config = builder.build().unwrap();
        let auth = CrossmintAuth::new(config.clone());
        let _layers = [CrossmintAuthLayer::new(config), CrossmintAuthLayer::from(auth)];
        let texts = events.texts();
        assert_eq!(texts.len(), expected.len(), "{name}: {texts:?}");
        assert!(texts.iter().zip(expected).all(|(text, expected)| text.contains(expected)), "{name}: {texts:?}");
        assert!(texts.iter().all(|text| !text.contains(&GENUINE[16..40])), "{name} shows the key");
    }
}

#[test]
fn from_env_reads_the_environment_of_the_process() {
    let variables = [("SERVER_CROSSMINT_API_KEY", GENUINE), ("CROSSMINT_BASE_URL", "https://proxy.test")];
    if variables.iter().all(|(name, value)| std::env::var(name).as_deref() == Ok(value)) {
        let auth = CrossmintAuth::new(CrossmintAuthConfig::from_env().build().unwrap());
        assert_eq!(auth.jwks_uri(), "https://proxy.test/.well-known/jwks.json");
        return;
    }
    // A process cannot safely change its own environment, but it can start another: this test, once more.
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "config::from_env_reads_the_environment_of_the_process"]).envs(variables);
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_config_error_is_readable_in_main() {
    let error: Box<dyn std::error::Error> = Box::new(builder().refresh_route("x").build().unwrap_err());
    assert_eq!(format!("{error:?}"), error.to_string());
}

#[test]
fn a_domain_may_be_optional() {
    let domain = |name: &str| std::env::var(name).ok();
    assert_eq!(CookieOptions::default().domain(domain("NOT_SET_FOR_THIS_TEST")), CookieOptions::default());
    let options = CookieOptions::default().domain("a.test");
    assert_eq!(CookieOptions::default().domain(Some("a.test")), options);
    assert_eq!(CookieOptions::default().domain("a.test".to_owned()), options);
    assert_eq!(options.domain(None::<&str>), CookieOptions::default());
}

fn key(environment: Environment) -> CrossmintAuthConfigBuilder {
    CrossmintAuthConfig::builder(ApiKey::unverified("project", environment)).cookies(CookieOptions::hardened())
}

fn builder() -> CrossmintAuthConfigBuilder {
    CrossmintAuthConfig::builder(ApiKey::unverified("p", Environment::Development))
}

/// Returns the cookies in which a handle stores a session.
fn stored(auth: &CrossmintAuth) -> Vec<cookie::Cookie<'static>> {
    let mut headers = HeaderMap::new();
    auth.store_auth_material(&mut headers, &AuthMaterial::new("jwt", RefreshToken::new("secret"))).unwrap();
    Answer { status: 200, headers, body: String::new() }.set_cookie()
}

/// Asserts that a call that has begun ends when this much time has passed, and not a second earlier.
async fn times_out_after<C>(limit: Duration, call: C, begun: impl Future<Output = ()>) -> C::Output
where
    C: Future<Output: Send> + Send + 'static,
{
    let call = tokio::spawn(call);
    begun.await;
    // Nothing arrives from here on, and the paused clock advances to the next timer.
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let output = call.await.unwrap();
    let elapsed = start.elapsed();
    // Timers have a resolution of one millisecond.
    assert!((limit - Duration::from_secs(1)..limit + Duration::from_millis(10)).contains(&elapsed), "{elapsed:?}");
    tokio::time::resume();
    output
}

/// A client key of Crossmint, published in the tests of its SDK.
const GENUINE: &str = "ck_development_A61UZQnvjSQcM5qVBaBactgqebxafWAVsNdD2xLkgBxoYuH5q2guM8r9DUmZQzE1WYyoByGVYpEG2o9gVSzAZFsrLbfKGERUJ6D5CW6S9AsJGAc3ctgrsD4n2ioekzGj7KPbLwT3SysDjMamYXLxEroUbQSdwf6aLF4zeEpECq2crkTUQeLFzxzmjWNxFDHFYefDrfrFPCURvBXJLf5pCxCQ";
