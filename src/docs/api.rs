//! APIs: bearer tokens, claims and roles.
//!
//! # Bearer tokens
//!
//! Mobile applications and services have no cookies. They send the JWT in `Authorization: Bearer` (RFC 6750), gRPC
//! clients as metadata. [`Bearer::Accept`] takes it, for one layer or for the whole configuration:
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_crossmint_auth::{Bearer, CrossmintAuth, CrossmintAuthLayer, Session};
//!
//! fn app(auth: &CrossmintAuth) -> Router {
//!     let me = get(|session: Session| async move { session.user_id().to_owned() });
//!     let layer = CrossmintAuthLayer::from(auth.clone()).bearer(Bearer::Accept);
//!     Router::new().route("/api/me", me).route_layer(layer).merge(auth.routes())
//! }
//! # use axum::{body::Body, http::{Request, header::WWW_AUTHENTICATE}};
//! # use tower::ServiceExt as _;
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let app = app(&CrossmintAuth::new(mock.config().build()?));
//! # for (token, status, challenge) in [(mock.sign_in("alice").jwt(), 200, ""), ("x", 401, "invalid_token")] {
//! #     let request = Request::get("/api/me").header("authorization", format!("Bearer {token}"));
//! #     let response = app.clone().oneshot(request.body(Body::empty())?).await?;
//! #     let found = response.headers().get(WWW_AUTHENTICATE).map_or("", |value| value.to_str().unwrap());
//! #     assert!(response.status() == status && found.contains(challenge));
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! The JWT is verified and cached like one from a cookie. The rest differs:
//!
//! - The header takes precedence. If it is invalid, the cookies are not tried.
//! - The session has no [refresh token](crate::Session::refresh_token) and is never refreshed. The caller refreshes it
//!   by posting `{"refresh": "<token>"}` as `application/json` to the refresh route, and signs out by posting the same
//!   to the logout route. Both answer callers without cookies.
//! - No cookie is set or cleared, except that a logout clears those that the request carries as well.
//! - An invalid or expired JWT is answered with 401 and `WWW-Authenticate: Bearer error="invalid_token", ...`; a header
//!   that is repeated or malformed with 400 and `error="invalid_request"`; a request with neither header nor cookies
//!   with 401 and `WWW-Authenticate: Bearer`. If no key set can be loaded, the answer is 503 with `Retry-After`.
//!
//! Without the layer, [`session_from_jwt`](crate::CrossmintAuth::session_from_jwt) resolves a JWT from anywhere else,
//! such as the first message of a WebSocket.
//!
//! # Claims and roles
//!
//! [`Claims`](crate::Claims) extracts the claims of the JWT into a type. If they do not fit, the answer is 403: the
//! user is signed in, but may not do this. The example needs `serde` with its feature `derive`.
//!
//! ```
//! use axum::{Router, middleware::from_extractor, routing::get};
//! use serde::Deserialize;
//! use tower_crossmint_auth::{Claims, CrossmintAuth, CrossmintAuthLayer};
//!
//! #[derive(Deserialize)]
//! struct Team {
//!     team: String,
//! }
//!
//! /// Deserializes for administrators only.
//! #[derive(Deserialize)]
//! struct Admin {
//!     #[serde(rename = "role")]
//!     _role: AdminRole,
//! }
//!
//! #[derive(Deserialize)]
//! #[serde(rename_all = "lowercase")]
//! enum AdminRole {
//!     Admin,
//! }
//!
//! fn app(auth: &CrossmintAuth) -> Router {
//!     let admin = Router::new()
//!         .route("/admin", get(|| async { "Hello, admin" }))
//!         .route_layer(from_extractor::<Claims<Admin>>());
//!     Router::new()
//!         .route("/team", get(|Claims(Team { team })| async move { team }))
//!         .merge(admin)
//!         .route_layer(CrossmintAuthLayer::from(auth.clone()))
//! }
//! # use axum::{body::Body, http::Request};
//! # use tower::ServiceExt as _;
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let app = app(&CrossmintAuth::new(mock.config().build()?));
//! # let admin = mock.session("alice").claim("role", "admin").claim("team", "blue").create();
//! # let user = mock.sign_in("bob");
//! # for (path, cookie, status) in [
//! #     ("/admin", admin.cookie_header(), 200),
//! #     ("/team", admin.cookie_header(), 200),
//! #     ("/admin", user.cookie_header(), 403),
//! #     ("/team", user.cookie_header(), 403),
//! #     ("/admin", String::new(), 401),
//! # ] {
//! #     let request = Request::get(path).header("cookie", cookie).body(Body::empty())?;
//! #     assert_eq!(app.clone().oneshot(request).await?.status(), status, "{path}");
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! The layer goes around the guard, which needs the session: in axum, it is added last. Claims are as old as the JWT,
//! so that a role that was withdrawn is gone after the next refresh. For rights that must end at once, ask your own
//! database by [`user_id`](crate::Session::user_id).
//!
//! [`Bearer::Accept`]: crate::Bearer::Accept
