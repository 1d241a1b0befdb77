//! What anonymous clients and users can make the layer keep in memory, and how often it loads the key set.
//!
//! The mock remembers every token it has made. So another Crossmint takes its place, which only lends its keys and
//! remembers nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tower_crossmint_auth::testing::{Endpoint, MockCrossmint};

use crate::{
    Scale,
    browser::{Browser, JWT, REFRESH},
    load::resident_kib,
    report::{
        Check,
        Mark::{AtMost, Exactly},
    },
    stage::{Stage, call},
};

/// M1: far more tokens than the caches hold.
pub(crate) async fn distinct_tokens(scale: &Scale) -> (String, Vec<Check>) {
    let (tokens, junk, cache) = scale.pick((1_000, 5_000, 1 << 18), (100_000, 1_000_000, 16 << 20));
    let (url, _upstream) = forgetful_crossmint().await;
    let stage = Stage::warm(|config| config.base_url(url).token_cache_bytes(cache)).await;
    let valid = |number: usize| {
        let jwt = jwt_for(&stage.mock, number);
        format!("{JWT}={jwt}; {REFRESH}=of-{number}")
    };
    // The first of everything: allocators, threads and connections take their share before the start.
    send(&stage, 200, |number| format!("{REFRESH}=first-{number}")).await;
    let before = resident_kib();

    let first = valid(0);
    let mut failures = usize::from(call(&stage.app, &first).await.0 != StatusCode::OK);
    failures += send(&stage, tokens, valid).await;
    let after_valid = resident_kib().saturating_sub(before);
    let verified = stage.auth.stats().verifications;
    failures += usize::from(call(&stage.app, &first).await.0 != StatusCode::OK);
    let is_forgotten = stage.auth.stats().verifications > verified;

    failures += send(&stage, tokens, |number| format!("{REFRESH}=spent-{number}")).await;
    let after_expired = resident_kib().saturating_sub(before);
    // Every tenth with a refresh token of its own, which Crossmint refuses.
    let accepted =
        junk - send(&stage, junk, |number| format!("{JWT}=junk.{number}.junk; {REFRESH}=junk-{}", number / 10)).await;
    let after_junk = resident_kib().saturating_sub(before);

    let checks = vec![
        Check::note(format!("growth: {after_valid} KiB, then {after_expired} KiB, then {after_junk} KiB")),
        Check::count("most of these, KiB", after_valid.max(after_expired).max(after_junk), AtMost(64 << 10)),
        Check::count("requests that fail but the junk", failures, Exactly(0)),
        Check::count("junk that is accepted", accepted, Exactly(0)),
        Check::count("the first token has been crowded out", is_forgotten, Exactly(true)),
    ];
    (format!("{tokens} valid tokens, {tokens} refreshes, {junk} junk tokens, all distinct"), checks)
}

/// Sends so many requests over a few lanes, and counts those that are not answered with 200.
async fn send(stage: &Stage, count: usize, cookies: impl Fn(usize) -> String) -> usize {
    let (mut under_way, mut failures) = (JoinSet::new(), 0);
    for number in 0..count {
        let (app, cookies) = (stage.app.clone(), cookies(number));
        under_way.spawn(async move { call(&app, &cookies).await.0 != StatusCode::OK });
        if under_way.len() >= LANES {
            let failed = under_way.join_next().await.expect("there is one").expect("it does not panic");
            failures += usize::from(failed);
        }
    }
    failures + under_way.join_all().await.into_iter().filter(|failed| *failed).count()
}

/// A Crossmint that exchanges every refresh token but junk, and does not remember any.
async fn forgetful_crossmint() -> (String, JoinSet<()>) {
    let keys = MockCrossmint::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be listened on");
    let address = listener.local_addr().expect("a listener has an address");
    let app = Router::new()
        .route("/.well-known/jwks.json", get(|State(keys): State<MockCrossmint>| async move { Json(keys.key_set()) }))
        .route("/api/2024-09-26/session/sdk/auth/refresh", post(exchange))
        .with_state(keys);
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, app).await.expect("the server runs") });
    (format!("http://{address}"), server)
}

async fn exchange(State(keys): State<MockCrossmint>, Json(body): Json<Value>) -> Response {
    let spent = body["refresh"].as_str().unwrap_or_default();
    if spent.starts_with("junk") {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "message": "junk" }))).into_response();
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let refresh = json!({ "secret": format!("after-{spent}") });
    Json(json!({ "jwt": jwt_for(&keys, number), "refresh": refresh })).into_response()
}

fn jwt_for(keys: &MockCrossmint, number: usize) -> String {
    let claims = json!({
        "iss": keys.issuer(),
        "aud": keys.project_id(),
        "sub": format!("user-{number}"),
        "iat": 1_700_000_000,
        "exp": 4_000_000_000_u64,
    });
    keys.sign(json!({ "typ": "JWT" }), claims)
}

/// X7: everybody comes at once, and there is no key set yet.
pub(crate) async fn stampede(scale: &Scale) -> (String, Vec<Check>) {
    let requests = scale.pick(1_000, 10_000);
    let stage = Stage::cold(|config| config).await;
    let hold = stage.mock.hold(Endpoint::Keys);
    let cookies = Arc::new(Browser::with(&stage.mock.sign_in("alice")).cookies());
    let mut under_way = JoinSet::new();
    for _ in 0..requests {
        let (app, cookies) = (stage.app.clone(), Arc::clone(&cookies));
        under_way.spawn(async move { call(&app, &cookies).await.0 == StatusCode::OK });
    }
    stage.mock.called(Endpoint::Keys, 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(hold);
    let passed = under_way.join_all().await.into_iter().filter(|passed| *passed).count();
    let checks = vec![
        Check::count("key set loads", stage.mock.calls(Endpoint::Keys), Exactly(1)),
        Check::count("refreshes", stage.mock.calls(Endpoint::Refresh), Exactly(0)),
        Check::count("requests that pass", passed, Exactly(requests)),
    ];
    (format!("{requests} requests at once at a cold start"), checks)
}

static NEXT: AtomicUsize = AtomicUsize::new(0);
const LANES: usize = 64;
