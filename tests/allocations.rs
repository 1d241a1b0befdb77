//! The allocations and bytes that a request takes: counted, not timed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

#[path = "../benches/stage/mod.rs"]
mod stage;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    thread,
};

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use http::{HeaderValue, Request, Response, StatusCode, header::COOKIE};
use http_body_util::Empty;
use tokio::runtime;
use tower::{Layer, Service, ServiceExt, service_fn, util::ServiceFn};
use tower_crossmint_auth::{CrossmintAuthConfigBuilder, CrossmintAuthService, ResponseFuture, testing::Endpoint};

use crate::stage::Stage;

#[test]
fn a_known_session_takes_three_allocations_whatever_the_number_of_cookies() {
    let stage = Stage::new();
    let mut app = app(&stage, |config| config);
    let session = stage.session().cookie_header();
    let cold = cost(&mut app, &session, StatusCode::OK).count_total;
    println!("cold: {cold} allocations");
    assert!(cold <= 9, "{cold}");
    for others in [0, 1, 10, 100, 1_000] {
        let cookie = format!("{}{session}", "theme=dark; ".repeat(others));
        let warm = cost(&mut app, &cookie, StatusCode::OK).count_total;
        // The table of the request's extensions, and the session in it.
        println!("warm, with {others} foreign cookies: {warm} allocations");
        assert!(warm <= 3, "with {others} foreign cookies: {warm}");
    }
}

#[test]
fn a_service_whose_layer_is_gone_is_cloned_without_allocations_on_every_thread() {
    let stage = Stage::new();
    let service = app(&stage, |config| config);
    for _ in 0..100 {
        let clone = || measure(|| drop(service.clone())).count_total;
        let [first, second] = thread::scope(|scope| scope.spawn(|| [clone(), clone()]).join().unwrap());
        // The thread's reference count, and the list of those.
        assert!(first <= 2 && second == 0, "{first} allocations of the first clone, {second} of the second");
    }
}

#[test]
fn a_rejection_takes_a_few_allocations() {
    let stage = Stage::new();
    let mut app = app(&stage, |config| config);
    let refresh = stage.session().refresh_token().to_owned();
    let name = "crossmint-refresh-token-mock-project";
    for (case, cookie) in [
        ("no session", "theme=dark".to_owned()),
        ("two refresh tokens", format!("{name}={refresh}; {name}=x")),
        ("an invalid one", format!("{name}=\"")),
        ("a huge one", format!("{name}={}", "x".repeat(100_000))),
    ] {
        let info = cost(&mut app, &cookie, StatusCode::UNAUTHORIZED);
        println!("{case}: {} allocations, {} bytes", info.count_total, info.bytes_max);
        assert!(info.count_total <= 24 && info.bytes_max <= 4_096, "{case}: {info:?}");
    }
}

#[test]
fn a_session_in_the_cache_takes_at_most_1600_bytes() {
    let stage = Stage::new();
    for count in [1_000_u64, 10_000] {
        let mut app = app(&stage, |config| config.token_cache_bytes(64 << 20));
        let cookies: Vec<HeaderValue> = (0..count).map(|_| stage.cookie()).collect();
        assert!(stage.session().jwt().len().abs_diff(752) < 8);
        let held = measure(|| {
            for cookie in &cookies {
                assert_eq!(app.call(request(cookie.clone())).now_or_never().unwrap().unwrap().status(), StatusCode::OK);
            }
        });
        let each = u64::try_from(held.bytes_current).unwrap() / count;
        println!("{each} bytes for each of {count} sessions");
        assert!(each <= 1_638, "{each} bytes for each of {count}");
    }
}

#[test]
fn a_request_that_waits_for_a_refresh_takes_twelve_allocations_and_a_kilobyte() {
    let stage = Stage::new();
    let app = app(&stage, |config| config);
    let cookie: HeaderValue = stage.mock.session("bob").jwt_lifetime(-60).create().cookie_header().parse().unwrap();
    let requests: Vec<_> = (0..WAITERS).map(|_| request(cookie.clone())).collect();
    let hold = stage.mock.hold(Endpoint::Refresh);
    // One thread for the layer, so that all it does is counted.
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let info = measure(|| {
        runtime.block_on(async {
            let waiting = join_all(requests.into_iter().map(|request| app.clone().oneshot(request)));
            let release = async {
                stage.mock.called(Endpoint::Refresh, 1).await;
                hold.release();
            };
            let (answers, ()) = tokio::join!(waiting, release);
            assert!(answers.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
        });
    });
    let [allocations, bytes] = [info.count_total, info.bytes_max].map(|total| total / u64::try_from(WAITERS).unwrap());
    println!("{allocations} allocations and {bytes} bytes for each of {WAITERS} waiters");
    assert!(allocations <= 12 && bytes <= 1_110, "{allocations} allocations and {bytes} bytes for each");
    assert_eq!(stage.mock.calls(Endpoint::Refresh), 1);
}

#[test]
fn the_future_is_little_larger_than_the_inner_one() {
    let future = size_of::<ResponseFuture<ServiceFn<Handler>, Body>>();
    let inner = size_of::<Ready<Result<Response<Body>, Infallible>>>();
    println!("{} bytes more than the inner future", future - inner);
    assert!(future <= inner + 256, "{future} bytes, of which {inner} are the inner future's");
}

fn app(
    stage: &Stage,
    configure: impl FnOnce(CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder,
) -> CrossmintAuthService<ServiceFn<Handler>> {
    let handler: Handler = |_| ready(Ok(Response::default()));
    stage.layer(configure).layer(service_fn(handler))
}

fn request(cookie: HeaderValue) -> Request<Body> {
    let mut request = Request::new(Body::new());
    request.headers_mut().insert(COOKIE, cookie);
    request
}

/// Measures a request that is answered at its first poll.
fn cost(app: &mut CrossmintAuthService<ServiceFn<Handler>>, cookie: &str, status: StatusCode) -> AllocationInfo {
    let request = request(HeaderValue::from_str(cookie).unwrap());
    let mut answer = None;
    let info = measure(|| answer = Some(app.call(request).now_or_never()));
    assert_eq!(answer.flatten().unwrap().unwrap().status(), status);
    info
}

type Body = Empty<Bytes>;
type Handler = fn(Request<Body>) -> Ready<Result<Response<Body>, Infallible>>;

const WAITERS: usize = 10_000;
