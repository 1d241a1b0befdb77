//! Where the layer can be placed in an axum application.
//!
//! Each test is a row of the table in `docs::placement`. Each path is requested with an expired session and without
//! one, by POST if it is one of the two routes, and otherwise by GET.

use axum::{Router, routing::get};
use http::Method;
use tower::{Layer as _, ServiceBuilder};
use tower_crossmint_auth::{CrossmintAuth, CrossmintAuthLayer, Session, testing::MockCrossmint};

use crate::support::{
    direct::{self, auth, request},
    mock::expired,
};

#[tokio::test]
async fn layer_guards_all_paths_and_answers_both_routes() {
    let shop = Shop::open().await;
    let app = private().layer(shop.layer());
    shop.expect(&app, [("/me", SESSION), ("/unknown", GUARDED), (REFRESH, ANSWERED), (LOGOUT, ANSWERED)]).await;
}

#[tokio::test]
async fn layer_does_not_guard_routes_that_are_added_after_it() {
    let shop = Shop::open().await;
    let app = private().layer(shop.layer()).route("/public", get(who));
    shop.expect(&app, [("/me", SESSION), ("/public", OPEN), ("/unknown", GUARDED)]).await;
    shop.expect(&app, [(REFRESH, ANSWERED), (LOGOUT, ANSWERED)]).await;
}

#[tokio::test]
async fn layer_without_any_route_answers_both_routes() {
    let shop = Shop::open().await;
    let app = Router::new().layer(shop.layer());
    shop.expect(&app, [("/unknown", GUARDED), (REFRESH, ANSWERED), (LOGOUT, ANSWERED)]).await;
}

#[tokio::test]
async fn layer_guards_a_fallback() {
    let shop = Shop::open().await;
    let app = private().fallback(who).layer(shop.layer());
    shop.expect(&app, [("/unknown", SESSION), (REFRESH, ANSWERED), (LOGOUT, ANSWERED)]).await;
}

#[tokio::test]
async fn layer_under_a_service_builder_is_the_same() {
    let shop = Shop::open().await;
    let app = private().layer(ServiceBuilder::new().layer(shop.layer()));
    shop.expect(&app, [("/me", SESSION), ("/unknown", GUARDED), (REFRESH, ANSWERED), (LOGOUT, ANSWERED)]).await;
}

#[tokio::test]
async fn layer_around_the_whole_router_is_the_same() {
    let shop = Shop::open().await;
    let app = Router::new().fallback_service(shop.layer().layer(private()));
    shop.expect(&app, [("/me", SESSION), ("/unknown", GUARDED), (REFRESH, ANSWERED), (LOGOUT, ANSWERED)]).await;
}

#[tokio::test]
async fn merge_answers_both_routes_if_the_guarded_router_comes_last() {
    let shop = Shop::open().await;
    let guarded = || private().layer(shop.layer());
    for app in [public().merge(guarded()), Router::new().merge(public()).merge(guarded())] {
        shop.expect(&app, [("/public", OPEN), ("/me", SESSION), ("/unknown", GUARDED)]).await;
        shop.expect(&app, [(REFRESH, ANSWERED), (LOGOUT, ANSWERED)]).await;
    }
}

#[tokio::test]
async fn merge_loses_both_routes_if_the_guarded_router_comes_first() {
    let shop = Shop::open().await;
    let guarded = || private().layer(shop.layer());
    for app in [guarded().merge(public()), Router::new().merge(guarded()).merge(public())] {
        shop.expect(&app, [("/public", OPEN), ("/me", SESSION), ("/unknown", ABSENT)]).await;
        shop.expect(&app, [(REFRESH, ABSENT), (LOGOUT, ABSENT)]).await;
    }
}

#[tokio::test]
async fn merge_in_any_order_answers_both_routes_if_they_exist_or_a_fallback_is_guarded() {
    let shop = Shop::open().await;
    let with_routes = || private().route(REFRESH, get(who)).route(LOGOUT, get(who)).layer(shop.layer());
    let with_fallback = || private().fallback(who).layer(shop.layer());
    for app in [
        public().merge(with_routes()),
        with_routes().merge(public()),
        public().merge(with_fallback()),
        with_fallback().merge(public()),
    ] {
        shop.expect(&app, [("/public", OPEN), ("/me", SESSION), (REFRESH, ANSWERED), (LOGOUT, ANSWERED)]).await;
    }
}

#[tokio::test]
async fn merge_into_a_public_fallback_loses_both_routes_to_it() {
    let shop = Shop::open().await;
    let guarded = || private().layer(shop.layer());
    for app in [public().fallback(who).merge(guarded()), guarded().merge(public().fallback(who))] {
        shop.expect(&app, [("/public", OPEN), ("/me", SESSION), ("/unknown", OPEN), (REFRESH, OPEN)]).await;
    }
}

#[tokio::test]
async fn route_layer_answers_a_route_only_where_it_exists() {
    let shop = Shop::open().await;
    let app = private().route_layer(shop.layer());
    shop.expect(&app, [("/me", SESSION), ("/unknown", ABSENT), (REFRESH, ABSENT), (LOGOUT, ABSENT)]).await;
    let app = private().route(REFRESH, get(who)).route(LOGOUT, get(who)).route_layer(shop.layer());
    shop.expect(&app, [("/me", SESSION), ("/unknown", ABSENT), (REFRESH, ANSWERED), (LOGOUT, ANSWERED)]).await;
}

#[tokio::test]
async fn nest_with_the_layer_outside_sees_whole_paths() {
    let shop = Shop::open().await;
    let app = Router::new().nest("/app", private()).layer(shop.layer());
    shop.expect(&app, [("/app/me", SESSION), ("/app/unknown", GUARDED), (REFRESH, ANSWERED), (LOGOUT, ANSWERED)]).await;
}

#[tokio::test]
async fn nest_with_the_layer_inside_loses_both_routes_unless_a_fallback_is_guarded() {
    let shop = Shop::open().await;
    let app = Router::new().nest("/app", private().layer(shop.layer()));
    shop.expect(&app, [("/app/me", SESSION), ("/app/unknown", ABSENT), ("/app/api/auth/refresh", ABSENT)]).await;
    let app = Router::new().nest("/app", private().fallback(who).layer(shop.layer()));
    shop.expect(&app, [("/app/unknown", SESSION), ("/app/api/auth/refresh", ANSWERED), (REFRESH, ABSENT)]).await;
}

#[tokio::test]
async fn nest_with_the_layer_inside_sees_paths_without_the_prefix() {
    let shop = Shop::open().await;
    let config = shop.mock.config().refresh_route("/refresh").logout_route("/logout");
    let layer = CrossmintAuthLayer::new(config.build().unwrap());
    let nested = Router::new().nest("/api/auth", private().fallback(who).layer(layer.clone()));
    let service = Router::new().nest_service("/api/auth", layer.layer(private()));
    for app in [nested, service] {
        shop.expect(&app, [("/api/auth/me", SESSION), (REFRESH, ANSWERED), (LOGOUT, ANSWERED)]).await;
        shop.expect(&app, [("/me", ABSENT), ("/refresh", ABSENT)]).await;
    }
}

/// A mock and the layer in front of it.
struct Shop {
    mock: MockCrossmint,
    auth: CrossmintAuth,
}

impl Shop {
    async fn open() -> Self {
        let mock = MockCrossmint::start().await;
        let auth = auth(&mock);
        Self { mock, auth }
    }

    fn layer(&self) -> CrossmintAuthLayer {
        self.auth.clone().into()
    }

    /// Asserts the outcome of each path.
    async fn expect(&self, app: &Router, paths: impl IntoIterator<Item = (&str, &str)>) {
        let mut seen = Vec::new();
        let mut expected = Vec::new();
        for (path, outcome) in paths {
            seen.push((path.to_owned(), self.outcome(app, path).await));
            expected.push((path.to_owned(), outcome));
        }
        assert_eq!(seen, expected);
    }

    async fn outcome(&self, app: &Router, path: &str) -> &'static str {
        let is_route = path.ends_with("/refresh") || path.ends_with("/logout");
        let method = if is_route { Method::POST } else { Method::GET };
        let expired = expired(&self.mock, "alice").cookie_header();
        let signed_in = direct::send(app, request(method.clone(), path, &expired)).await;
        let anonymous = direct::send(app, request(method, path, "")).await;
        let cookies = signed_in.set_cookie().len();
        match (signed_in.status, anonymous.status) {
            (200, 200 | 401) if is_route && cookies == 2 => ANSWERED,
            (200, 401) if cookies == 2 && signed_in.body == "alice" => SESSION,
            (404, 401) if cookies == 2 => GUARDED,
            (200, 200) if cookies == 0 && signed_in.body == "anonymous" => OPEN,
            (404, 404) if cookies == 0 => ABSENT,
            other => panic!("{path}: {other:?}, {cookies} cookies, {}", signed_in.body),
        }
    }
}

fn private() -> Router {
    Router::new().route("/me", get(who))
}

fn public() -> Router {
    Router::new().route("/public", get(who))
}

async fn who(session: Option<Session>) -> String {
    session.map_or("anonymous".to_owned(), |session| session.user_id().to_owned())
}

const REFRESH: &str = "/api/auth/refresh";
const LOGOUT: &str = "/api/auth/logout";

/// Anonymous requests get 401; others reach the handler with their session.
const SESSION: &str = "a session";
/// Anonymous requests get 401; others the router's 404.
const GUARDED: &str = "guarded";
/// The layer answers the route.
const ANSWERED: &str = "answered by the layer";
/// Every request reaches the handler, without a session.
const OPEN: &str = "open";
/// Every request gets the router's 404.
const ABSENT: &str = "absent";
