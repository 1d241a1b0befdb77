//! Crossmint's browser SDK, in Chromium, against the layer: login, reload, expiry, parallel requests, two tabs, logout.

use std::{
    env, fs,
    io::{self, Write as _},
    path::Path,
    process::Command,
    sync::LazyLock,
};

use axum::{
    Router,
    response::Html,
    routing::{any, get},
};
use serde_json::json;
use tower_crossmint_auth::{
    CookieNames, CookieOptions, OutagePolicy, Session,
    testing::{Endpoint, MockCrossmint},
};

use crate::{site::App, webdriver::Browser};

/// The project of the client API key that Crossmint has published in its SDK's own tests. The SDK checks its signature.
const PROJECT: &str = "dfb06708-a46f-4615-bd34-f614ae284e7b";
const API_KEY: &str = "ck_development_A61UZQnvjSQcM5qVBaBactgqebxafWAVsNdD2xLkgBxoYuH5q2guM8r9DUmZQzE1WYyoByGVYpEG2o9gVSzAZFsrLbfKGERUJ6D5CW6S9AsJGAc3ctgrsD4n2ioekzGj7KPbLwT3SysDjMamYXLxEroUbQSdwf6aLF4zeEpECq2crkTUQeLFzxzmjWNxFDHFYefDrfrFPCURvBXJLf5pCxCQ";

#[tokio::test]
async fn the_browser_sdk_signs_in_comes_back_and_signs_out() {
    for names in [CookieNames::Scoped, CookieNames::ScopedOnly, CookieNames::Unscoped] {
        let Some((browser, app)) = start(names.clone()).await else { return };
        let case = format!("{names:?}");
        browser.open(&app.url("/app")).await;
        assert_eq!(browser.run("return loaded").await, "signed out", "{case}: nobody has signed in");

        // At the end of a login, the SDK has a one-time secret, which its refresh exchanges.
        let secret = app.mock.one_time_secret("alice");
        let material = browser.run(&format!("return client.handleRefreshAuthMaterial('{secret}')")).await;
        assert_eq!(material["user"]["id"], "alice", "{case}: {material}");
        assert_eq!(browser.run(ME).await, "200 alice", "{case}");
        let jar = browser.cookies().await;
        let [jwt, refresh_token] = names_of(&names);
        assert_eq!(jar.keys().collect::<Vec<_>>(), [&jwt, &refresh_token], "{case}");
        assert_eq!(jar[&jwt], material["jwt"], "{case}");
        assert!(app.mock.is_live(&jar[&refresh_token]), "{case}");
        let visible = browser.run("return document.cookie").await;
        assert_eq!(visible, format!("{jwt}={}", jar[&jwt]), "{case}: scripts see the JWT only");

        browser.open(&app.url("/app")).await;
        assert_eq!(browser.run("return loaded").await["user"]["id"], "alice", "{case}: after a reload");
        assert_eq!(browser.run(ME).await, "200 alice", "{case}");

        browser.run("return client.logout()").await;
        assert_eq!(browser.cookies().await.len(), 0, "{case}");
        assert_eq!(browser.run(ME).await, "401 ", "{case}");
        assert_eq!((app.mock.live_sessions(), app.mock.reuse_detections()), (0, 0), "{case}");
    }
}

#[tokio::test]
async fn an_expired_session_survives_parallel_requests_and_two_tabs() {
    let Some((browser, app)) = start(CookieNames::Scoped).await else { return };
    let alice = app.mock.session("alice").jwt_lifetime(-60).create();
    app.store(&browser, &alice).await;
    browser.open(&app.url("/app")).await;
    // With the refresh that the SDK starts at the same time.
    let script = format!("return Promise.all([loaded, ...Array(20).keys()].map((it, n) => n ? {ME_CALL} : it))");
    let answers = browser.run(&script).await;
    assert_eq!(answers[0]["user"]["id"], "alice");
    assert_eq!(answers.as_array().unwrap()[1..], vec![json!("200 alice"); 20]);
    assert_eq!((app.mock.live_sessions(), app.mock.reuse_detections()), (1, 0));

    let refreshes = app.mock.calls(Endpoint::Refresh);
    let tabs = "const other = window.open('/app');
        await new Promise(done => other.onload = done);
        const both = await Promise.all([other.loaded, client.handleRefreshAuthMaterial()]);
        other.close();
        return both.map(material => material.user.id)";
    assert_eq!(browser.run(tabs).await, json!(["alice", "alice"]));
    assert!(app.mock.calls(Endpoint::Refresh) > refreshes);
    assert_eq!(browser.run(ME).await, "200 alice");
    let jar = browser.cookies().await;
    assert!(app.mock.is_live(&jar[&names_of(&CookieNames::Scoped)[1]]), "the jar has the latest token");
    assert_eq!((app.mock.live_sessions(), app.mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn a_session_that_has_ended_signs_the_sdk_out() {
    let Some((browser, app)) = start(CookieNames::Scoped).await else { return };
    let alice = app.mock.sign_in("alice");
    app.store(&browser, &alice).await;
    app.mock.revoke(alice.refresh_token());
    browser.open(&app.url("/app")).await;
    assert_eq!(browser.run("return loaded").await, "signed out");
    assert_eq!(browser.cookies().await.len(), 0);
}

/// `docs::spa` says how a page keeps its session in an outage.
#[tokio::test]
async fn in_an_outage_the_sdk_signs_out_at_the_logout_route_if_it_has_one() {
    for (page, after_the_outage) in [("/app", "401 "), ("/app?own-logout", "200 alice")] {
        let Some((browser, app)) = start(CookieNames::Scoped).await else { return };
        app.store(&browser, &app.mock.sign_in("alice")).await;
        browser.open(&app.url(page)).await;
        assert_eq!(browser.run("return loaded").await["user"]["id"], "alice", "{page}");
        app.mock.set_down(true);
        browser.open(&app.url(page)).await;
        assert_eq!(browser.run("return loaded").await, "signed out", "{page}");
        // Again, to wait for the answer of the route.
        browser.run("return client.logout()").await;
        app.mock.set_down(false);
        assert_eq!(browser.run(ME).await, after_the_outage, "{page}");
    }
}

/// Therefore the cookies of another origin are neither sent nor stored.
#[tokio::test]
async fn the_sdk_calls_both_routes_without_credentials_for_other_origins() {
    let Some((browser, app)) = start(CookieNames::Scoped).await else { return };
    browser.open(&app.url("/app")).await;
    browser.run("return loaded").await;
    let script = "const calls = [], send = fetch;
        window.fetch = (url, init) => { calls.push([url, init.credentials ?? null]); return send(url, init); };
        await client.handleRefreshAuthMaterial();
        return calls";
    let calls = browser.run(script).await;
    assert_eq!(calls, json!([["/api/auth/refresh", null], ["/api/auth/logout", null]]));
}

/// What a script of the page gets from a route that needs a session.
const ME: &str = "return fetch('/me').then(async it => `${it.status} ${it.ok ? await it.text() : ''}`)";
const ME_CALL: &str = "fetch('/me').then(async it => `${it.status} ${await it.text()}`)";

fn names_of(names: &CookieNames) -> [String; 2] {
    let suffix = if *names == CookieNames::Unscoped { String::new() } else { format!("-{PROJECT}") };
    ["crossmint-jwt", "crossmint-refresh-token"].map(|name| format!("{name}{suffix}"))
}

/// Starts a browser and an application with the SDK, unless a piece of them is missing.
async fn start(names: CookieNames) -> Option<(Browser, App)> {
    let browser = Browser::start().await?;
    let script = match &*BUNDLE {
        Ok(script) => script.clone(),
        Err(why) => {
            assert!(env::var_os("REQUIRE_BROWSER").is_none(), "{why}");
            let _ = writeln!(io::stderr(), "skipped a test of the browser SDK: {why}");
            return None;
        }
    };
    let page = format!(r#"<!doctype html><title>App</title><script src="/sdk.js" data-api-key="{API_KEY}"></script>"#);
    let public = Router::new()
        .route("/app", get(async || Html(page)))
        .route("/sdk.js", get(async || ([("content-type", "text/javascript")], script)));
    let users = Router::new().route("/users", any(async |session: Session| session.user_id().to_owned()));
    let configure = |config: tower_crossmint_auth::CrossmintAuthConfigBuilder| {
        config.cookies(CookieOptions::hardened()).cookie_names(names).on_outage(OutagePolicy::KeepSession)
    };
    let mock = MockCrossmint::start_as(PROJECT).await;
    Some((browser, App::of(mock, "app.localhost", configure, users, public, |_| ()).await))
}

/// Crossmint's SDK, bundled with the page's script.
static BUNDLE: LazyLock<Result<String, String>> = LazyLock::new(|| {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/sdk");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser-sdk");
    let outcome = Command::new(sources.join("bundle")).arg(&folder).output();
    let outcome = outcome.map_err(|error| format!("the bundle cannot be built: {error}"))?;
    if !outcome.status.success() {
        let why = String::from_utf8_lossy(&outcome.stderr).into_owned();
        return Err(format!("the bundle cannot be built, for which `npm` and its registry are needed: {why}"));
    }
    fs::read_to_string(folder.join("sdk.js")).map_err(|error| error.to_string())
});
