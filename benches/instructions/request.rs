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
};

use futures_util::FutureExt;
use gungraun::{Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use http::{HeaderValue, Request, Response, StatusCode, header::COOKIE};
use http_body_util::Empty;
use tower::{Layer, Service, service_fn, util::ServiceFn};
use tower_crossmint_auth::CrossmintAuthService;

use crate::stage::Stage;

type Body = Empty<bytes::Bytes>;
type Handler = fn(Request<Body>) -> Ready<Result<Response<Body>, Infallible>>;

struct Scene {
    app: CrossmintAuthService<ServiceFn<Handler>>,
    request: Option<Request<Body>>,
    _stage: Stage,
}

/// Sets up an application that has seen the session so many times, and the request that is to be measured.
fn seen(times: usize) -> Scene {
    let stage = Stage::new();
    let handler: Handler = |_| ready(Ok(Response::default()));
    let mut app = stage.layer(|config| config).layer(service_fn(handler));
    let request = |cookie: &HeaderValue| {
        let mut request = Request::new(Body::new());
        request.headers_mut().insert(COOKIE, cookie.clone());
        request
    };
    // Whatever is set up at the first use is set up by somebody else.
    let (other, cookie) = (stage.cookie(), stage.cookie());
    for cookie in std::iter::repeat_n(&other, 2).chain(std::iter::repeat_n(&cookie, times)) {
        assert_eq!(app.call(request(cookie)).now_or_never().unwrap().unwrap().status(), StatusCode::OK);
    }
    Scene { app, request: Some(request(&cookie)), _stage: stage }
}

fn nobody() -> Scene {
    Scene { request: Some(Request::new(Body::new())), ..seen(0) }
}

#[library_benchmark(config = at_most(WARM))]
#[bench::warm(args = (1), setup = seen)]
fn warm(scene: Scene) -> Scene {
    answer(scene, StatusCode::OK)
}

#[library_benchmark(config = at_most(COLD))]
#[bench::cold(args = (0), setup = seen)]
fn cold(scene: Scene) -> Scene {
    answer(scene, StatusCode::OK)
}

#[library_benchmark(config = at_most(ANONYMOUS))]
#[bench::anonymous(args = (), setup = nobody)]
fn anonymous(scene: Scene) -> Scene {
    answer(scene, StatusCode::UNAUTHORIZED)
}

/// Answers the request. The scene is handed back, so that its end is not measured.
fn answer(mut scene: Scene, expected: StatusCode) -> Scene {
    let request = scene.request.take().unwrap();
    let answer = black_box(scene.app.call(black_box(request)).now_or_never());
    assert_eq!(answer.unwrap().unwrap().status(), expected);
    scene
}

fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions)]));
    config
}

const WARM: u64 = 3_600;
const COLD: u64 = 320_000;
const ANONYMOUS: u64 = 19_700;

library_benchmark_group!(name = requests, benchmarks = [warm, cold, anonymous]);
main!(library_benchmark_groups = requests);
