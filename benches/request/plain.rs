//! Requests as release 0.1 measured them: a `Cookie` header alone, a service around a router, no layer as the baseline.

use std::{fmt::Debug, slice, time::Duration};

use axum::{body::Body, middleware};
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, header::COOKIE};
use tower::{Layer, Service};
use tower_crossmint_auth::CrossmintAuthLayer;

use crate::{
    SESSIONS,
    baseline::{ByHand, bare, check, limit},
    case::{Case, time},
    stage::Stage,
};

pub(crate) fn requests<'a>(stage: &'a Stage, users: &'a [HeaderValue], odd: &'a [HeaderValue; 2]) -> Vec<Case<'a>> {
    let layer = stage.layer(|config| config);
    // More tokens than a cache has room for, one after the other: each is a stranger when it comes again.
    let forgetful = stage.layer(|config| config.token_cache_bytes(128 << 10));
    let by_hand = middleware::from_fn_with_state(ByHand::new(stage), check);
    let (one, strangers, crowd, ok) = (&users[..1], &users[..400], &users[..users.len().min(25_000)], StatusCode::OK);
    let [nobody, two] = odd.each_ref().map(slice::from_ref);
    vec![
        Case::of("bare", 500, calls(bare(), one, ok)),
        Case::of("limit", 25, limit(stage)),
        Case::of("by_hand", 25, calls(by_hand.layer(bare()), one, ok)),
        Case::of("warm", 500, calls(layer.layer(bare()), one, ok)),
        Case::of("cold", 25, calls(forgetful.layer(bare()), strangers, ok)),
        Case::of("cold floor", 25, after(limit(stage), calls(bare(), strangers, ok))),
        Case::of("crowd", 25, calls(layer.layer(bare()), crowd, ok)),
        Case::of("crowd floor", 25, after(limit(stage), calls(bare(), crowd, ok))),
        Case::of("anonymous", 100, calls(layer.layer(bare()), nobody, StatusCode::UNAUTHORIZED)),
        Case::of("refused", 100, calls(layer.layer(bare()), two, StatusCode::UNAUTHORIZED)),
    ]
}

pub(crate) fn sizes<'a>(stage: &Stage, cookies: &'a [(String, HeaderValue)]) -> Vec<Case<'a>> {
    let layer = stage.layer(|config| config);
    let pair = |(name, cookie): &'a (String, HeaderValue)| {
        let cookie = slice::from_ref(cookie);
        [
            Case::of(format!("{name} bare"), 50, calls(bare(), cookie, StatusCode::OK)),
            Case::of(name, 50, calls(layer.layer(bare()), cookie, StatusCode::OK)),
        ]
    };
    cookies.iter().flat_map(pair).collect()
}

/// Makes a layer that knows the sessions of all users.
pub(crate) fn layer_of_all(stage: &Stage, users: &[HeaderValue]) -> CrossmintAuthLayer {
    let layer = stage.layer(|config| config.token_cache_bytes(256 << 20));
    // In another order than that of the calls: what is asked for next is not to be found nearby.
    users.iter().for_each(|user| calls(layer.layer(bare()), slice::from_ref(user), StatusCode::OK)());
    layer
}

pub(crate) fn sessions<'a>(layer: &CrossmintAuthLayer, users: &'a [HeaderValue]) -> Vec<Case<'a>> {
    let pair = |count: usize| {
        let users = &users[..count.min(users.len())];
        [
            Case::of(format!("{count} sessions bare"), 1_000, calls(bare(), users, StatusCode::OK)),
            Case::of(format!("{count} sessions"), 1_000, calls(layer.layer(bare()), users, StatusCode::OK)),
        ]
    };
    SESSIONS.into_iter().flat_map(pair).collect()
}

/// The same on one and on two threads. They share the layer, if any, and nothing else but what `own` has two of.
pub(crate) fn threads<'a>(stage: &'a Stage, users: &'a [HeaderValue]) -> Vec<Case<'a>> {
    fn together(mut once: impl FnMut()) -> impl FnMut(u64) -> Duration {
        once();
        move |rounds| time(rounds, &mut once)
    }
    let layer = stage.layer(|config| config);
    let own = [stage.layer(|config| config), stage.layer(|config| config)];
    let ok = StatusCode::OK;
    [1, 2]
        .into_iter()
        .flat_map(|threads| {
            let (layer, own) = (layer.clone(), own.clone());
            [
                Case::on(threads, "limit", 100, |_, _| together(limit(stage))),
                Case::on(threads, "bare", 2_000, move |_, _| together(calls(bare(), users, ok))),
                Case::on(threads, "a layer each", 2_000, move |thread, _| {
                    together(calls(own[thread].layer(bare()), users, ok))
                }),
                Case::on(threads, "one layer", 2_000, move |_, _| together(calls(layer.layer(bare()), users, ok))),
            ]
        })
        .collect()
}

pub(crate) fn large_cookies(user: &HeaderValue) -> Vec<(String, HeaderValue)> {
    let user = user.to_str().unwrap();
    let sizes = SIZES.map(|size| (size_of_header(size), format!("x={}; {user}", "y".repeat(size - user.len() - 4))));
    let counts = COUNTS
        .map(|count| (foreign_cookies(count), format!("{}{user}", "theme=dark; consent=yes; ".repeat(count / 2))));
    sizes.into_iter().chain(counts).map(|(name, cookie)| (name, cookie.parse().unwrap())).collect()
}

pub(crate) fn size_of_header(bytes: usize) -> String {
    format!("header of {bytes} bytes")
}

pub(crate) fn foreign_cookies(count: usize) -> String {
    format!("{count} foreign cookies")
}

/// Calls a service that answers at once with one cookie after the other, in an order that no prefetcher guesses. Each
/// is copied, as a server copies it from its connection.
pub(crate) fn calls<S, B>(mut service: S, cookies: &[HeaderValue], status: StatusCode) -> impl FnMut() + use<'_, S, B>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Debug>,
{
    let mut next = 0;
    move || {
        next = (next + 7_919) % cookies.len();
        let cookie = HeaderValue::from_bytes(cookies[next].as_bytes()).unwrap();
        assert_eq!(service.call(request(cookie)).now_or_never().unwrap().unwrap().status(), status);
    }
}

/// The least that a new JWT can take: its verification, and then the bare service, with whatever the verification has
/// left in the processor's caches.
fn after(limit: impl Fn(), mut call: impl FnMut()) -> impl FnMut() {
    move || {
        limit();
        call();
    }
}

pub(crate) fn request(cookie: HeaderValue) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(COOKIE, cookie);
    request
}

pub(crate) const SIZES: [usize; 3] = [1 << 10, 4 << 10, 16 << 10];
pub(crate) const COUNTS: [usize; 3] = [10, 100, 1_000];
