//! How many instructions a request takes: the same in every run, whatever else the machine does.
//!
//! See `benches/README.md`. Above its limit, a bench fails.

#![expect(missing_docs, unused_qualifications, clippy::must_use_candidate, reason = "gungraun's macros make some")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
};

use futures_util::FutureExt;
use gungraun::{Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use http::{HeaderValue, Request, Response, StatusCode, header::COOKIE};
use http_body_util::Empty;
use tokio::runtime::Runtime;
use tower::{Layer, Service, service_fn, util::ServiceFn};
use tower_crossmint_auth::{CrossmintAuth, CrossmintAuthLayer, CrossmintAuthService, testing::MockCrossmint};

type Body = Empty<bytes::Bytes>;
type Handler = fn(Request<Body>) -> Ready<Result<Response<Body>, Infallible>>;

struct Stage {
    app: CrossmintAuthService<ServiceFn<Handler>>,
    request: Option<Request<Body>>,
    _runtime: Runtime,
    _mock: MockCrossmint,
}

/// Sets up an application that has seen the session so many times, and the request that is to be measured.
fn seen(times: usize) -> Stage {
    let runtime = Runtime::new().unwrap();
    let mock = runtime.block_on(MockCrossmint::start());
    let auth = CrossmintAuth::new(mock.config().build().unwrap());
    runtime.block_on(auth.warm_up()).unwrap();
    let handler: Handler = |_| ready(Ok(Response::default()));
    let mut app = CrossmintAuthLayer::from(auth).layer(service_fn(handler));
    let request = |session: &tower_crossmint_auth::testing::MockSession| {
        let mut request = Request::new(Body::new());
        request.headers_mut().insert(COOKIE, HeaderValue::from_str(&session.cookie_header()).unwrap());
        request
    };
    // Whatever is set up at the first use is set up by somebody else.
    let (other, session) =
        (mock.sign_in("somebody else"), mock.session("alice").claim("email", "x".repeat(65)).create());
    for session in std::iter::repeat_n(&other, 2).chain(std::iter::repeat_n(&session, times)) {
        assert_eq!(app.call(request(session)).now_or_never().unwrap().unwrap().status(), StatusCode::OK);
    }
    let request = Some(request(&session));
    Stage { app, request, _runtime: runtime, _mock: mock }
}

fn nobody() -> Stage {
    Stage { request: Some(Request::new(Body::new())), ..seen(0) }
}

#[library_benchmark(config = at_most(WARM))]
#[bench::warm(args = (1), setup = seen)]
fn warm(stage: Stage) -> Stage {
    answer(stage, StatusCode::OK)
}

#[library_benchmark(config = at_most(COLD))]
#[bench::cold(args = (0), setup = seen)]
fn cold(stage: Stage) -> Stage {
    answer(stage, StatusCode::OK)
}

#[library_benchmark(config = at_most(ANONYMOUS))]
#[bench::anonymous(args = (), setup = nobody)]
fn anonymous(stage: Stage) -> Stage {
    answer(stage, StatusCode::UNAUTHORIZED)
}

/// Answers the request. The stage is handed back, so that its end is not measured.
fn answer(mut stage: Stage, expected: StatusCode) -> Stage {
    let request = stage.request.take().unwrap();
    let answer = black_box(stage.app.call(black_box(request)).now_or_never());
    assert_eq!(answer.unwrap().unwrap().status(), expected);
    stage
}

fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions)]));
    config
}

const WARM: u64 = 4_000;
const COLD: u64 = 340_000;
const ANONYMOUS: u64 = 20_000;

library_benchmark_group!(name = requests, benchmarks = [warm, cold, anonymous]);
main!(library_benchmark_groups = requests);
