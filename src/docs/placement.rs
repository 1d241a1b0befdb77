//! Placement in axum: which requests reach the layer.
//!
//! Merge [`CrossmintAuth::routes`] into the outermost router. It answers the refresh and logout routes. Add the layer
//! to the routes that need a session, in whatever way suits the application:
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
//! [`routes`](crate::CrossmintAuth::routes), add it with `Router::layer` to the outermost router, whose fallback it
//! then wraps, and merge that router last.[^1] Inside `Router::nest`, the layer sees paths without the prefix.
//!
//! [^1]: `protected.layer(auth).merge(public)`, `protected.route_layer(auth)`, a public `fallback`, and
//! `Router::new().nest("/app", protected.layer(auth))` answer the two routes with 404 or with the fallback. Each is a
//! test in `tests/behaviour/layer/placement.rs`.
//!
//! [`CrossmintAuth::routes`]: crate::CrossmintAuth::routes
//!
//! # Order among other layers
//!
//! Requests pass through axum's layers from the last one added to the first. Each row is a test in
//! `tests/behaviour/layer/stacks.rs`, with the layers of tower-http 0.7 (features
//! `compression-gzip`, `cors`, `csrf`, `timeout` and `trace`):
//!
//! | layer | place | in the other place |
//! | --- | --- | --- |
//! | `cors` | outside | 401 and the answers of the two routes carry no CORS headers, so that scripts on other origins can read neither |
//! | `csrf` | outside | a forged request spends a refresh token before it is refused |
//! | `trace`, request IDs, rate limits | outside | rejected requests and the two routes pass unseen |
//! | `timeout` | outside | the time that Crossmint takes for a refresh is not limited by it; in either place, a refresh that is cut off completes in the background |
//! | `compression` | inside | the tokens in the refresh route's answer are compressed, which this layer avoids because of attacks such as BREACH |
//! | whatever needs the [`Session`](crate::Session) | inside | there is none |
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::{Router, http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE}, routing::get};
//! use tower_crossmint_auth::{CrossmintAuth, CrossmintAuthLayer, Session};
//! use tower_http::{compression::CompressionLayer, cors::CorsLayer, csrf::CsrfLayer, timeout::TimeoutLayer, trace::TraceLayer};
//!
//! fn app(auth: &CrossmintAuth) -> Result<Router, Box<dyn std::error::Error>> {
//!     let cors = CorsLayer::new()
//!         .allow_origin("https://app.example.com".parse::<HeaderValue>()?)
//!         .allow_methods([Method::GET, Method::POST])
//!         .allow_headers([CONTENT_TYPE])
//!         .allow_credentials(true);
//!     Ok(Router::new()
//!         .route("/me", get(|session: Session| async move { session.user_id().to_owned() }))
//!         .layer(CompressionLayer::new())
//!         .layer(CrossmintAuthLayer::from(auth.clone()))
//!         .layer(CsrfLayer::new().add_trusted_origin("https://app.example.com")?)
//!         .layer(cors)
//!         .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(30)))
//!         .layer(TraceLayer::new_for_http()))
//! }
//! # let _ = app;
//! ```
//!
//! A CORS layer outside answers preflights itself. Without one, they are forwarded to the handlers, unless
//! [`CorsPreflights::Reject`](crate::CorsPreflights::Reject) is set. List the origins of your scripts in
//! [`trusted_origins`](crate::CrossmintAuthConfigBuilder::trusted_origins), too: the layer does not know those of the
//! CORS layer.
//!
//! # Pages for everyone
//!
//! An application that shows its pages to everyone but knows its users wraps all routes, sets
//! [`Unauthenticated::Allow`](crate::Unauthenticated::Allow) and extracts `Option<Session>`: see
//! [`rejections`](super::rejections#forwarding-requests-without-a-session).
