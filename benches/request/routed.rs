//! Requests as users have them: a browser's, to a layer around axum's routes.
//!
//! The baseline of each case is the same with an idle layer. Around the service of any layer, axum's `Router::layer` puts
//! a box that it clones for each request, and another one around its future: neither is this layer's.

use std::{
    fmt::Debug,
    slice,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, middleware};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use tower::{Service, ServiceBuilder, layer::util::Identity};
use tower_crossmint_auth::CrossmintAuthLayer;

use crate::{
    SESSIONS,
    baseline::{ByHand, bare, check, limit},
    browser,
    case::{Case, Gate},
    stage::Stage,
};

/// A session that is known, one user's for each length of a JWT.
pub(crate) fn known<'a>(stage: &Stage, users: &'a [(usize, HeaderValue)]) -> Vec<Case<'a>> {
    let layer = stage.layer(|config| config);
    let cases = |(jwt, user): &'a (usize, HeaderValue)| {
        let user = slice::from_ref(user);
        let router = bare().layer(layer.clone()).with_state(());
        let idle_router = bare().layer(Identity::new()).with_state(());
        let builder = ServiceBuilder::new().layer(layer.clone()).service(bare());
        let idle_builder = ServiceBuilder::new().layer(Identity::new()).service(bare());
        [
            Case::new(format!("Router, {jwt}"), 1_920, visits(user, served(router))),
            Case::new(format!("Router, {jwt}, idle"), 1_920, visits(user, served(idle_router))),
            Case::new(format!("ServiceBuilder, {jwt}"), 1_920, visits(user, served(builder))),
            Case::new(format!("ServiceBuilder, {jwt}, idle"), 1_920, visits(user, served(idle_builder))),
        ]
    };
    users.iter().flat_map(cases).collect()
}

/// A JWT that has to be verified, by this crate and by hand.
///
/// The floor is a verification and then the idle layer, with whatever the verification has left in the caches.
pub(crate) fn new<'a>(stage: &Stage, users: &'a [HeaderValue]) -> Vec<Case<'a>> {
    // More tokens than a cache has room for, one after the other: each is new when it comes again.
    let forgetful = bare().layer(stage.layer(|config| config.token_cache_bytes(128 << 10))).with_state(());
    let by_hand = bare().layer(middleware::from_fn_with_state(ByHand::new(stage), check)).with_state(());
    let (verify, mut idle) = (limit(stage), served(bare().layer(Identity::new()).with_state(())));
    let floor = move |request| {
        verify();
        idle(request);
    };
    vec![
        Case::new("new JWT", 32, visits(users, served(forgetful))),
        Case::new("new JWT floor", 32, visits(users, floor)),
        Case::new("routed by hand", 32, visits(&users[..1], served(by_hand))),
    ]
}

/// So many known sessions, in turns.
pub(crate) fn sessions<'a>(layer: &CrossmintAuthLayer, users: &'a [HeaderValue]) -> Vec<Case<'a>> {
    let pair = |count: usize| {
        let users = &users[..count.min(users.len())];
        let router = bare().layer(layer.clone()).with_state(());
        let idle = bare().layer(Identity::new()).with_state(());
        [
            Case::new(format!("Router, {count} sessions"), 960, visits(users, served(router))),
            Case::new(format!("Router, {count} sessions, idle"), 960, visits(users, served(idle))),
        ]
    };
    SESSIONS.into_iter().flat_map(pair).collect()
}

/// The same on one and on two threads. Each has a clone of the application, like a connection to axum's server.
pub(crate) fn threads<'a>(stage: &Stage, users: &'a [HeaderValue]) -> Vec<Case<'a>> {
    let routed = || bare().layer(stage.layer(|config| config));
    let (idle, one, each) = (bare().layer(Identity::new()), routed(), [routed(), routed()]);
    let on = |threads, name, app: [Router; 2]| {
        Case::on(threads, name, 1_920, move |thread, gate| {
            visits_in_step(gate, users, served(app[thread].clone().with_state(())))
        })
    };
    let cases = |threads| {
        [
            on(threads, "idle layer", [idle.clone(), idle.clone()]),
            on(threads, "routed, a layer each", each.clone()),
            on(threads, "routed, one layer", [one.clone(), one.clone()]),
        ]
    };
    [1, 2].into_iter().flat_map(cases).collect()
}

/// Times the calls with the requests of one user after the other, in an order that no prefetcher guesses.
fn visits<'a>(users: &'a [HeaderValue], call: impl FnMut(Request<Body>) + 'a) -> impl FnMut(u64) -> Duration {
    visits_in_step(Gate::of(1), users, call)
}

/// The same on several threads, which write at the same time and call at the same time.
fn visits_in_step<'a>(
    gate: Arc<Gate>,
    users: &'a [HeaderValue],
    mut call: impl FnMut(Request<Body>) + 'a,
) -> impl FnMut(u64) -> Duration {
    let (mut next, mut batch) = (0, Vec::with_capacity(BATCH));
    let mut run = move |rounds: u64| {
        let mut time = Duration::ZERO;
        for _ in 0..rounds / BATCH as u64 {
            batch.extend((0..BATCH).map(|_| {
                next = (next + 7_919) % users.len();
                request(&users[next])
            }));
            gate.wait();
            let start = Instant::now();
            batch.drain(..).for_each(&mut call);
            time += start.elapsed();
        }
        time
    };
    move |rounds| {
        // What ran before has left other things in the processor's caches.
        run(rounds.min(480));
        run(rounds)
    }
}

/// Serves requests at once, each with a clone of the service, as hyper-util does.
fn served<S, B>(service: S) -> impl FnMut(Request<Body>)
where
    S: Service<Request<Body>, Response = Response<B>, Error: Debug> + Clone,
{
    move |request| {
        let response = service.clone().call(request).now_or_never().unwrap();
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
}

/// Writes a browser's request, and reads it as hyper does: the values are slices of what was written.
fn request(user: &HeaderValue) -> Request<Body> {
    let head = browser::head(user);
    let lines = str::from_utf8(&head).unwrap().lines();
    let mut request = Request::new(Body::empty());
    request.headers_mut().reserve(15);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let value = HeaderValue::from_maybe_shared(head.slice_ref(value.as_bytes())).unwrap();
        request.headers_mut().append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    request
}

/// So few requests that they are still in the processor's caches when they are served.
const BATCH: usize = 16;
