//! What the layer adds to a request, beside what it is compared with; ends with the ratios.
//!
//! See `benches/README.md`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

use std::{
    hint::black_box,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use axum::{Router, body::Body, middleware, routing::get};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use criterion::{BenchmarkId, Criterion, criterion_group};
use futures_util::{FutureExt, future::join_all};
use http::{HeaderValue, Request, Response, StatusCode, header::COOKIE};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower::{Layer, Service};
use tower_crossmint_auth::{
    CrossmintAuth, CrossmintAuthLayer, CrossmintAuthService,
    testing::{Endpoint, MockCrossmint, MockSession},
};

/// Crossmint, and an application behind the layer, without a connection between.
struct Stage {
    runtime: Runtime,
    mock: MockCrossmint,
}

impl Stage {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let mock = runtime.block_on(MockCrossmint::start());
        Self { runtime, mock }
    }

    fn app(&self, token_cache_bytes: usize) -> CrossmintAuthService<Router> {
        let auth = CrossmintAuth::new(self.mock.config().token_cache_bytes(token_cache_bytes).build().unwrap());
        self.runtime.block_on(auth.warm_up()).unwrap();
        CrossmintAuthLayer::from(auth).layer(bare())
    }

    /// Signs somebody in with a JWT of about 750 bytes.
    fn session(&self) -> MockSession {
        self.mock.session("0e8400e2-9b41-4d4a-8716-446655440000").claim("email", "x".repeat(65)).create()
    }

    fn cookie(&self) -> HeaderValue {
        self.session().cookie_header().parse().unwrap()
    }

    fn cookies(&self, count: usize) -> Vec<HeaderValue> {
        let half = || (0..count / 2).map(|_| self.cookie()).collect::<Vec<_>>();
        thread::scope(|scope| {
            let other = scope.spawn(half);
            let mut all = half();
            all.extend(other.join().unwrap());
            all
        })
    }

    fn key(&self) -> (String, String) {
        let key = &self.mock.key_set()["keys"][0];
        let text = |name: &str| key[name].as_str().unwrap().to_owned();
        (text("n"), text("e"))
    }
}

fn bare() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

fn request(cookie: &HeaderValue) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(COOKIE, cookie.clone());
    request
}

/// Calls a service that answers at once.
fn call<S, B>(service: &mut S, cookie: &HeaderValue) -> StatusCode
where
    S: Service<Request<Body>, Response = Response<B>, Error: std::fmt::Debug>,
{
    service.call(request(cookie)).now_or_never().unwrap().unwrap().status()
}

/// What is not ours: nothing, a bare verification, and what one writes by hand.
fn yardsticks(criterion: &mut Criterion) {
    let stage = Stage::new();
    let cookie = stage.cookie();
    let mut group = criterion.benchmark_group("request");
    let mut inner = bare();
    group.bench_function("bare", |bencher| bencher.iter(|| call(&mut inner, &cookie)));

    let (n, e) = stage.key();
    let session = stage.session();
    let (message, signature) = session.jwt().rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let integer = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let key: ParsedPublicKey = RsaPublicKeyComponents { n: integer(&n), e: integer(&e) }
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .unwrap();
    group.bench_function("limit", |bencher| {
        bencher.iter(|| key.verify_sig(black_box(message.as_bytes()), black_box(&signature)).unwrap());
    });

    let key = Arc::new(DecodingKey::from_rsa_components(&n, &e).unwrap());
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[stage.mock.project_id()]);
    let validation = Arc::new(validation);
    let name = format!("crossmint-jwt-{}", stage.mock.project_id());
    let check = middleware::from_fn(move |mut request: axum::extract::Request, next: middleware::Next| {
        let (key, validation, name) = (Arc::clone(&key), Arc::clone(&validation), name.clone());
        async move {
            let header = request.headers().get(COOKIE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let jwt =
                header.split("; ").find_map(|pair| pair.strip_prefix(&name)?.strip_prefix('=')).unwrap_or_default();
            match jsonwebtoken::decode::<Value>(jwt, &key, &validation) {
                Ok(token) => {
                    request.extensions_mut().insert(Arc::new(token.claims));
                    Ok(next.run(request).await)
                }
                Err(_) => Err(StatusCode::UNAUTHORIZED),
            }
        }
    });
    let mut by_hand = check.layer(bare());
    assert_eq!(call(&mut by_hand, &cookie), StatusCode::OK);
    group.bench_function("by_hand", |bencher| bencher.iter(|| call(&mut by_hand, &cookie)));
}

fn requests(criterion: &mut Criterion) {
    let stage = Stage::new();
    let mut group = criterion.benchmark_group("request");
    let (mut app, cookie) = (stage.app(CACHE), stage.cookie());
    assert_eq!(call(&mut app, &cookie), StatusCode::OK);
    group.bench_function("warm", |bencher| bencher.iter(|| call(&mut app, &cookie)));

    // More tokens than the cache has room for, one after the other: each is a stranger when it comes again.
    let (mut app, cookies) = (stage.app(1 << 20), stage.cookies(4_000));
    let mut next = cookies.iter().cycle();
    group.bench_function("cold", |bencher| bencher.iter(|| call(&mut app, next.next().unwrap())));

    let nobody = HeaderValue::from_static("theme=dark");
    group.bench_function("anonymous", |bencher| bencher.iter(|| call(&mut app, &nobody)));
    let refresh = cookie.to_str().unwrap().split("; ").last().unwrap();
    let two = HeaderValue::from_str(&format!("{refresh}; {refresh}x")).unwrap();
    assert_eq!(call(&mut app, &two), StatusCode::UNAUTHORIZED);
    group.bench_function("refused", |bencher| bencher.iter(|| call(&mut app, &two)));
}

/// Fifty requests with one expired session: one asks, and the others wait for it.
fn joined(criterion: &mut Criterion) {
    let stage = Stage::new();
    let app = stage.app(CACHE);
    criterion.benchmark_group("request").sample_size(20).bench_function("renewal joined by 50", |bencher| {
        bencher.iter_custom(|rounds| {
            let session = |_| stage.mock.session("bob").jwt_lifetime(-60).create().cookie_header().parse().unwrap();
            let expired: Vec<HeaderValue> = (0..rounds).map(session).collect();
            stage.runtime.block_on(async {
                let start = Instant::now();
                for cookie in &expired {
                    let all = join_all((0..51).map(|_| app.clone().call(request(cookie)))).await;
                    assert!(all.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
                }
                start.elapsed()
            })
        });
    });
    assert_eq!(stage.mock.reuse_detections(), 0);
}

fn sizes(criterion: &mut Criterion) {
    let stage = Stage::new();
    let (mut app, mut inner, session) = (stage.app(CACHE), bare(), stage.cookie());
    let session = session.to_str().unwrap();
    let mut group = criterion.benchmark_group("size");
    let mut compare = |name: &str, parameter: usize, cookie: String| {
        let cookie = HeaderValue::from_str(&cookie).unwrap();
        group.bench_with_input(BenchmarkId::new(format!("{name} bare"), parameter), &cookie, |bencher, cookie| {
            bencher.iter(|| call(&mut inner, cookie));
        });
        group.bench_with_input(BenchmarkId::new(name, parameter), &cookie, |bencher, cookie| {
            bencher.iter(|| call(&mut app, cookie));
        });
    };
    for size in [1 << 10, 4 << 10, 16 << 10] {
        compare("header", size, format!("x={}; {session}", "y".repeat(size - session.len() - 4)));
    }
    for count in [10, 100, 1_000] {
        compare("cookies", count, format!("{}{session}", "theme=dark; ".repeat(count)));
    }
}

fn sessions(criterion: &mut Criterion) {
    let stage = Stage::new();
    let cookies = stage.cookies(100_000);
    let mut app = stage.app(256 << 20);
    let mut group = criterion.benchmark_group("sessions");
    for count in [10, 1_000, 100_000] {
        let cookies = &cookies[..count];
        cookies.iter().for_each(|cookie| assert_eq!(call(&mut app, cookie), StatusCode::OK));
        // In an order that no prefetcher guesses.
        let mut next = 0;
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                next = (next + 7_919) % count;
                call(&mut app, &cookies[next])
            });
        });
    }
    let mut inner = bare();
    let mut next = 0;
    group.bench_function("100000 bare", |bencher| {
        bencher.iter(|| {
            next = (next + 7_919) % cookies.len();
            call(&mut inner, &cookies[next])
        });
    });
}

fn threads(criterion: &mut Criterion) {
    let stage = Stage::new();
    let app = stage.app(CACHE);
    let cookies = stage.cookies(100);
    let mut group = criterion.benchmark_group("threads");
    for threads in [1, 2] {
        group.bench_function(BenchmarkId::from_parameter(threads), |bencher| {
            bencher.iter_custom(|rounds| {
                let start = Instant::now();
                thread::scope(|scope| {
                    for _ in 0..threads {
                        let mut app = app.clone();
                        let cookies = &cookies;
                        scope.spawn(move || {
                            for cookie in cookies.iter().cycle().take(usize::try_from(rounds).unwrap()) {
                                call(&mut app, cookie);
                            }
                        });
                    }
                });
                start.elapsed()
            });
        });
    }
}

/// What a renewal takes beyond the call itself, at the median of alternating runs.
fn renewal_overhead() -> Duration {
    let stage = Stage::new();
    let mut app = stage.app(CACHE);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/api/2024-09-26/session/sdk/auth/refresh", stage.mock.base_url());
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    stage.runtime.block_on(async {
        for _ in 0..1_000 {
            let session = stage.mock.session("bob").jwt_lifetime(-60).create();
            let body = json!({"refresh": session.refresh_token()}).to_string();
            let start = Instant::now();
            let request = client.post(&url).header("x-api-key", stage.mock.api_key()).body(body);
            let answer = request.header("content-type", "application/json").send().await.unwrap();
            assert!(answer.status().is_success());
            answer.bytes().await.unwrap();
            direct.push(start.elapsed());

            let session = stage.mock.session("bob").jwt_lifetime(-60).create();
            let cookie = session.cookie_header().parse().unwrap();
            let start = Instant::now();
            assert_eq!(app.call(self::request(&cookie)).await.unwrap().status(), StatusCode::OK);
            through.push(start.elapsed());
        }
    });
    assert_eq!(stage.mock.calls(Endpoint::Refresh), 2_000);
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    median(&mut through).saturating_sub(median(&mut direct))
}

/// Prints the ratios of this run beside what they are to be.
fn ratios() {
    let time = |path: &str| -> f64 {
        let file = format!("{}/criterion/{path}/new/estimates.json", target());
        let estimates: Value = serde_json::from_slice(&std::fs::read(&file).unwrap_or_default()).unwrap_or_default();
        estimates["median"]["point_estimate"].as_f64().unwrap_or(f64::NAN)
    };
    let request = |name: &str| time(&format!("request/{name}"));
    let (bare, limit) = (request("bare"), request("limit"));
    let added = |name: &str| request(name) - bare;
    let size = |name: &str, parameter: usize| {
        time(&format!("size/{name}/{parameter}")) - time(&format!("size/{name} bare/{parameter}"))
    };
    println!("\n{:<58} {:>12} {:>14}", "this run", "found", "to be");
    let row = |what: &str, found: String, mark: &str| println!("{what:<58} {found:>12} {mark:>14}");
    row("bare inner service", format!("{bare:.0} ns"), "");
    row("limit: one RSA-2048 verification", format!("{limit:.0} ns"), "");
    row("by hand adds", format!("{:.0} ns", added("by_hand")), "");
    row("warm adds", format!("{:.0} ns", added("warm")), "");
    row("  limit / that", format!("{:.1}", limit / added("warm")), ">= 50");
    row("cold adds", format!("{:.0} ns", added("cold")), "");
    row("  that / limit", format!("{:.3}", added("cold") / limit), "<= 1.12");
    row("anonymous, instead of the inner service", format!("{:.0} ns", request("anonymous")), "");
    row("refused, instead of the inner service", format!("{:.0} ns", request("refused")), "");
    row("throughput of 2 threads / 1 thread", format!("{:.2}", 2.0 * time("threads/1") / time("threads/2")), ">= 1.9");
    for count in [10, 1_000, 100_000] {
        row(&format!("request with {count} sessions"), format!("{:.0} ns", time(&format!("sessions/{count}"))), "flat");
    }
    row("  of which the bare one, with 100000 headers", format!("{:.0} ns", time("sessions/100000 bare")), "");
    for bytes in [1 << 10, 4 << 10, 16 << 10] {
        row(&format!("warm adds, Cookie of {bytes} bytes"), format!("{:.0} ns", size("header", bytes)), "linear");
    }
    for count in [10, 100, 1_000] {
        row(&format!("warm adds, {count} foreign cookies"), format!("{:.0} ns", size("cookies", count)), "linear");
    }
    row("renewal joined by 50", format!("{:.0} us", request("renewal joined by 50") / 1e3), "");
    row("a renewal, beyond the call itself", format!("{} us", renewal_overhead().as_micros()), "< 100 us");
}

fn target() -> String {
    std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| format!("{}/target", env!("CARGO_MANIFEST_DIR")))
}

const CACHE: usize = 16 << 20;

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .without_plots();
    targets = yardsticks, requests, joined, sizes, sessions, threads
}

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    if std::env::args().any(|argument| argument == "--bench") {
        ratios();
    }
}
