//! Placement in axum: which requests reach the layer.
//!
//! Merge [`CrossmintAuth::routes`] into the outermost router. It answers the refresh and logout routes. Add the layer to
//! the routes that need a session, in whatever way suits the application:
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_crossmint_auth::{CrossmintAuth, CrossmintAuthLayer, Session};
//!
//! fn app(auth: &CrossmintAuth) -> Router {
//!     let protected = Router::new()
//!         .route("/me", get(|session: Session| async move { session.user_id().to_owned() }))
//!         .route_layer(CrossmintAuthLayer::from(auth.clone()));
//!     Router::new()
//!         .route("/", get(|| async { "a public page" }))
//!         .merge(protected)
//!         .merge(auth.routes())
//! }
//! # use axum::{body::Body, http::Request};
//! # use tower::ServiceExt as _;
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let app = app(&CrossmintAuth::new(mock.config().build()?));
//! # for (path, status) in [("/", 200), ("/me", 401), ("/unknown", 404), ("/api/auth/refresh", 405)] {
//! #     assert_eq!(app.clone().oneshot(Request::get(path).body(Body::empty())?).await?.status(), status, "{path}");
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! With `route_layer`, unknown paths get 404. With `layer`, they get 401, so that nobody learns which paths exist.
//!
//! The layer answers the two routes as well, for requests that axum sends through it: without
//! [`routes`](crate::CrossmintAuth::routes), add it with `Router::layer` to the outermost router, whose fallback it then wraps,
//! and merge that router last.[^1] Inside `Router::nest`, the layer sees paths without the prefix.
//!
//! [^1]: `protected.layer(auth).merge(public)`, `protected.route_layer(auth)`, a public `fallback`, and
//! `Router::new().nest("/app", protected.layer(auth))` answer the two routes with 404 or with the fallback. Each is a
//! test in `tests/behaviour/layer/placement.rs`.
//!
//! [`CrossmintAuth::routes`]: crate::CrossmintAuth::routes
//!
//! # Order among other layers
//!
//! Requests pass through axum's layers from the last one added to the first.
//!
//! - **Outside** this layer, added after it: rate limits, request IDs and tracing, `csrf`, and layers that log or
//!   re-render [rejections](super::rejections).
//! - **Either side**: CORS. Inside, it answers preflights, which this layer forwards without a session; but rejections
//!   bypass it and carry no CORS headers, so that scripts on other origins cannot read them. Outside, it adds its
//!   headers to rejections as well; combine it with [`CorsPreflights::Reject`](crate::CorsPreflights::Reject).
//! - **Inside**, added before it: everything that needs the [`Session`](crate::Session).
//!
//! # Pages for everyone
//!
//! An application that shows its pages to everyone but knows its users wraps all routes, sets
//! [`Unauthenticated::Allow`](crate::Unauthenticated::Allow) and extracts `Option<Session>`: see
//! [`rejections`](super::rejections#forwarding-requests-without-a-session).
