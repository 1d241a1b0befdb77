//! How many instructions a request takes: the same in every run, whatever else the machine does.
//!
//! See `benches/README.md`. Above its limit, a bench fails.

#![expect(missing_docs, unused_qualifications, clippy::must_use_candidate, reason = "gungraun's macros make some")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

#[path = "../stage/mod.rs"]
mod stage;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use axum::{Router, routing::get};
use futures_util::FutureExt;
use gungraun::{Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use http::{HeaderValue, Request, Response, StatusCode, header::COOKIE};
use http_body_util::Empty;
use tower::{Layer, Service, ServiceExt, layer::util::Identity, service_fn, util::ServiceFn};
use tower_crossmint_auth::CrossmintAuthService;

use crate::stage::Stage;

type Body = Empty<bytes::Bytes>;
type Handler = fn(Request<Body>) -> Ready<Result<Response<Body>, Infallible>>;
type Direct = Scene<CrossmintAuthService<ServiceFn<Handler>>, Body>;
type Routed = Scene<Router, axum::body::Body>;

struct Scene<S, ReqBody> {
    app: S,
    request: Option<Request<ReqBody>>,
    _stage: Stage,
}

/// Sets up an application that has seen the session so many times, and the request that is to be measured.
fn seen(times: usize) -> Direct {
    let stage = Stage::new();
    let handler: Handler = |_| ready(Ok(Response::default()));
    let app = stage.layer(|config| config).layer(service_fn(handler));
    Scene::new(stage, app, times)
}

/// Sets up an application that has rejected a request without cookies, and another one.
fn nobody() -> Direct {
    let anonymous = |scene| Scene { request: Some(Request::new(Body::new())), ..scene };
    anonymous(answer(anonymous(seen(0)), StatusCode::UNAUTHORIZED))
}

/// Sets up a router that has seen the session, as `axum::serve` has it: with its state, so that its layers are applied.
fn routed(layered: fn(Router, &Stage) -> Router) -> Routed {
    let stage = Stage::new();
    let app = layered(Router::new().route("/", get(async || "hello")), &stage).with_state(());
    Scene::new(stage, app, 1)
}

fn ours(router: Router, stage: &Stage) -> Router {
    router.layer(stage.layer(|config| config))
}

fn idle(router: Router, _: &Stage) -> Router {
    router.layer(Identity::new())
}

impl<S, ReqBody: Default> Scene<S, ReqBody> {
    fn new<ResBody>(stage: Stage, mut app: S, times: usize) -> Self
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Infallible>,
    {
        let request = |cookie: &HeaderValue| {
            let mut request = Request::new(ReqBody::default());
            request.headers_mut().insert(COOKIE, cookie.clone());
            request
        };
        // Whatever is set up at the first use is set up by somebody else.
        let (other, cookie) = (stage.cookie(), stage.cookie());
        for cookie in std::iter::repeat_n(&other, 2).chain(std::iter::repeat_n(&cookie, times)) {
            assert_eq!(app.call(request(cookie)).now_or_never().unwrap().unwrap().status(), StatusCode::OK);
        }
        Self { app, request: Some(request(&cookie)), _stage: stage }
    }
}

#[library_benchmark(config = at_most(WARM))]
#[bench::warm(args = (1), setup = seen)]
fn warm(scene: Direct) -> Direct {
    answer(scene, StatusCode::OK)
}

#[library_benchmark(config = at_most(COLD))]
#[bench::cold(args = (0), setup = seen)]
fn cold(scene: Direct) -> Direct {
    answer(scene, StatusCode::OK)
}

#[library_benchmark(config = at_most(ANONYMOUS))]
#[bench::anonymous(args = (), setup = nobody)]
fn anonymous(scene: Direct) -> Direct {
    answer(scene, StatusCode::UNAUTHORIZED)
}

// What axum does with each request of a connection.
#[library_benchmark(config = counted())]
#[bench::ours(args = (ours), setup = routed)]
#[bench::idle(args = (idle), setup = routed)]
fn router(mut scene: Routed) -> Routed {
    let request = scene.request.take().unwrap();
    let answer = black_box(scene.app.clone().oneshot(black_box(request)).now_or_never());
    assert_eq!(answer.unwrap().unwrap().status(), StatusCode::OK);
    scene
}

// The control of `request_atomics`: three that count, and two that do not.
#[library_benchmark(config = counted())]
#[bench::three(AtomicU64::new(0))]
fn planted(atomic: AtomicU64) -> AtomicU64 {
    let shared = black_box(&atomic);
    shared.store(1, Relaxed);
    let _ = black_box(shared.fetch_add(1, Relaxed));
    let _ = black_box(shared.swap(3, Relaxed));
    let _ = black_box(shared.compare_exchange(3, 4, Relaxed, Relaxed));
    let _ = black_box(shared.load(Relaxed));
    atomic
}

/// Answers the request. The scene is handed back, so that its end is not measured.
fn answer(mut scene: Direct, expected: StatusCode) -> Direct {
    let request = scene.request.take().unwrap();
    let answer = black_box(scene.app.call(black_box(request)).now_or_never());
    assert_eq!(answer.unwrap().unwrap().status(), expected);
    scene
}

fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    with(Callgrind::default().hard_limits([(EventKind::Ir, instructions)]))
}

fn counted() -> LibraryBenchmarkConfig {
    with(&mut Callgrind::default())
}

/// Counts bus events, callgrind's name of atomic read-modify-writes, and keeps the address of each instruction.
fn with(callgrind: &mut Callgrind) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind.args(["--collect-bus=yes", "--dump-instr=yes"]));
    config
}

const WARM: u64 = 3_600;
const COLD: u64 = 318_000;
const ANONYMOUS: u64 = 19_400;

library_benchmark_group!(name = requests, benchmarks = [warm, cold, anonymous, router, planted]);
main!(library_benchmark_groups = requests);
