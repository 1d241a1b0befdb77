//! Placement in axum: which requests reach the layer.
//!
//! The layer answers the refresh and logout routes itself, but only for requests that axum sends through it.
//! `Router::layer` wraps all routes that were added before it, and the router's fallback, so that unknown paths and the
//! two routes reach the layer too. Routes that are added afterwards are public:
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_crossmint_auth::{CrossmintAuthLayer, Session};
//!
//! fn app(auth: CrossmintAuthLayer) -> Router {
//!     Router::new()
//!         .route("/me", get(|session: Session| async move { session.user_id().to_owned() }))
//!         .layer(auth)
//!         .route("/", get(|| async { "a public page" }))
//! }
//! ```
//!
//! With other placements, axum may answer the two routes with 404 before the layer sees them. Each row of this table is
//! a test in `tests/behaviour`, in `placement.rs`; `auth` is the layer, `protected` and `public` are routers.
//!
//! | application | protected routes | refresh and logout | unknown paths |
//! | --- | --- | --- | --- |
//! | `protected.layer(auth)`, then `.route(public)` | session | answered | 401 |
//! | `public.merge(protected.layer(auth))` | session | answered | 401 |
//! | `protected.layer(auth).merge(public)` | session | **404** | 404, public |
//! | either order, and one router has a public `.fallback(..)` | session | **handled by the fallback** | public |
//! | either order, and `protected` has a fallback, or the two routes, under the layer | session | answered | as the fallback |
//! | `protected.route_layer(auth)` | session | **404**, unless routes with these paths exist | 404, public |
//! | `Router::new().nest("/app", protected).layer(auth)` | session | answered | 401 |
//! | `Router::new().nest("/app", protected.layer(auth))` | session | **404** | 404, public |
//! | the same, and `protected` has a fallback under the layer | session | answered, without the prefix: `refresh_route("/refresh")` matches `/app/refresh` | session |
//!
//! # Merged routers
//!
//! In a merge, a fallback that the application has set wins over axum's own; of two routers without one, the last
//! router's counts. Where the order cannot change, add routes for the two paths under the layer. The layer answers
//! before their handlers are called:
//!
//! ```
//! use axum::{Router, http::StatusCode, routing::{any, get}};
//! use tower_crossmint_auth::{CrossmintAuthLayer, Session};
//!
//! fn app(auth: CrossmintAuthLayer, public: Router) -> Router {
//!     Router::new()
//!         .route("/me", get(|session: Session| async move { session.user_id().to_owned() }))
//!         .route("/api/auth/{action}", any(StatusCode::NOT_FOUND))
//!         .layer(auth)
//!         .merge(public)
//! }
//! # use axum::{body::Body, http::Request};
//! # use tower::ServiceExt as _;
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let app = app(CrossmintAuthLayer::new(mock.config().build()?), Router::new().route("/", get(|| async { "public" })));
//! # for (path, status) in [("/api/auth/logout", StatusCode::OK), ("/api/auth/other", StatusCode::UNAUTHORIZED)] {
//! #     assert_eq!(app.clone().oneshot(Request::post(path).body(Body::empty())?).await?.status(), status);
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! # Nested routers
//!
//! axum strips the prefix of a nested router before its layers see a request. Put the layer around the outer router, or
//! configure the two routes without the prefix and give the nested router a fallback:
//!
//! ```
//! use axum::{Router, http::StatusCode, routing::get};
//! use tower_crossmint_auth::{ConfigError, CrossmintAuthConfigBuilder, CrossmintAuthLayer, Session};
//!
//! fn app(config: CrossmintAuthConfigBuilder) -> Result<Router, ConfigError> {
//!     let config = config.refresh_route("/refresh").logout_route("/logout").build()?;
//!     let nested = Router::new()
//!         .route("/me", get(|session: Session| async move { session.user_id().to_owned() }))
//!         .fallback(|| async { StatusCode::NOT_FOUND })
//!         .layer(CrossmintAuthLayer::new(config));
//!     // The browser calls `/app/refresh` and `/app/logout`.
//!     Ok(Router::new().nest("/app", nested))
//! }
//! # use axum::{body::Body, http::Request};
//! # use tower::ServiceExt as _;
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let request = Request::post("/app/logout").body(Body::empty())?;
//! # assert_eq!(app(mock.config())?.oneshot(request).await?.status(), StatusCode::OK);
//! # Ok(())
//! # }
//! ```
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
