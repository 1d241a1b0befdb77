//! Rejections: what a request without a session gets, and how to change it.
//!
//! # Statuses, cookies and messages
//!
//! A rejection is a JSON object, `{"error": "<reason phrase>", "message": "<fixed text>"}`. It carries `Cache-Control:
//! no-store`, and an [`AuthError`] in the response's extensions. The message depends on the
//! [kind](crate::AuthErrorKind) alone and never contains text from Crossmint; the cause is for logs, as the error's
//! source.
//!
//! | kind | status | cookies |
//! | --- | --- | --- |
//! | [`MissingCredentials`], [`MissingRefreshToken`], [`AmbiguousCredentials`], [`InvalidCredentials`], [`Refused`] | 401 | cleared |
//! | [`Unavailable`], [`RateLimited`], [`UnusableAnswer`] under [`OutagePolicy::EndSession`] | 401 | cleared |
//! | the same under [`OutagePolicy::KeepSession`] | 503 with `Retry-After` | kept |
//! | [`CrossSite`] | 403 | kept |
//! | [`MethodNotAllowed`] | 405 with `Allow` | kept |
//! | [`InvalidBody`], [`BodyTimeout`], [`BodyTooLarge`], [`UnsupportedMediaType`] | 400, 408, 413, 415 | kept |
//!
//! gRPC requests get `grpc-status` 16 (`UNAUTHENTICATED`) for 401 and 14 (`UNAVAILABLE`) for 503, in the response's
//! headers.
//!
//! A response to a request from another site clears only the cookies that the request carried: see
//! [`security`](super::security#requests-from-other-sites).
//!
//! # Logging and re-rendering rejections
//!
//! An outer layer finds the error in the response's extensions. This one logs each rejection and answers in the format
//! of RFC 9457. It keeps the status and the headers, which clear the cookies and forbid caching, and it keeps
//! `message`, which Crossmint's browser SDK reads:
//!
//! ```
//! use std::error::Error;
//!
//! use axum::{
//!     Router,
//!     body::Body,
//!     http::{HeaderValue, header::{CONTENT_LENGTH, CONTENT_TYPE}},
//!     middleware::map_response,
//!     response::Response,
//!     routing::get,
//! };
//! use serde_json::json;
//! use tower_crossmint_auth::{AuthError, CrossmintAuthLayer};
//!
//! async fn render_rejection(response: Response) -> Response {
//!     let Some(error) = response.extensions().get::<AuthError>().cloned() else { return response };
//!     tracing::info!(kind = ?error.kind(), error = &error as &dyn Error, "rejected a request");
//!
//!     let (mut head, _) = response.into_parts();
//!     let problem = json!({
//!         "title": head.status.canonical_reason(),
//!         "status": head.status.as_u16(),
//!         "message": error.to_string(),
//!         "code": format!("{:?}", error.kind()),
//!     });
//!     head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
//!     head.headers.remove(CONTENT_LENGTH);
//!     Response::from_parts(head, Body::from(problem.to_string()))
//! }
//!
//! fn app(auth: CrossmintAuthLayer) -> Router {
//!     Router::new().route("/me", get(|| async { "signed in" })).layer(auth).layer(map_response(render_rejection))
//! }
//! # use axum::http::Request;
//! # use tower::ServiceExt as _;
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let app = app(CrossmintAuthLayer::new(mock.config().build()?));
//! # let cookie = format!("crossmint-refresh-token-{}=unknown", mock.project_id());
//! # let response = app.oneshot(Request::get("/me").header("cookie", cookie).body(Body::empty())?).await?;
//! # assert_eq!(response.status(), 401);
//! # assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
//! # let body = axum::body::to_bytes(response.into_body(), 1 << 10).await?;
//! # assert!(String::from_utf8(body.to_vec())?.contains(r#""code":"Refused""#));
//! # Ok(())
//! # }
//! ```
//!
//! The text of an [`AuthError`] contains no token and no text from Crossmint, so that it may be shown. Its sources
//! contain no token either, but they describe failures of connections: log them, and do not show them.
//!
//! # Redirecting to a login page
//!
//! The TypeScript SDK's documentation has `redirect("/login")` in a `catch`. Here, an outer layer turns a rejected page
//! view into a redirect. It keeps the headers, so that the cookies of the ended session are cleared. Under
//! [`OutagePolicy::KeepSession`], an outage is a 503, which is not redirected:
//!
//! ```
//! use axum::{
//!     Router,
//!     body::Body,
//!     extract::Request,
//!     http::{HeaderValue, Method, StatusCode, header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE}},
//!     middleware::{Next, from_fn},
//!     response::Response,
//!     routing::get,
//! };
//! use tower_crossmint_auth::{AuthError, CrossmintAuthLayer, Session};
//!
//! async fn redirect_to_login(request: Request, next: Next) -> Response {
//!     // Scripts get the 401 itself.
//!     let is_page_view = request.method() == Method::GET
//!         && request.headers().get("sec-fetch-dest").is_none_or(|destination| destination == "document");
//!     let response = next.run(request).await;
//!     let is_rejection = response.extensions().get::<AuthError>().is_some();
//!     if !(is_page_view && is_rejection && response.status() == StatusCode::UNAUTHORIZED) {
//!         return response;
//!     }
//!     let (mut head, _) = response.into_parts();
//!     head.status = StatusCode::SEE_OTHER;
//!     for name in [CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE] {
//!         head.headers.remove(name);
//!     }
//!     head.headers.insert(LOCATION, HeaderValue::from_static("/login"));
//!     Response::from_parts(head, Body::empty())
//! }
//!
//! fn app(auth: CrossmintAuthLayer) -> Router {
//!     Router::new()
//!         .route("/me", get(|session: Session| async move { session.user_id().to_owned() }))
//!         .layer(auth)
//!         .layer(from_fn(redirect_to_login))
//!         .route("/login", get(|| async { "please sign in" }))
//! }
//! # use tower::ServiceExt as _;
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let app = app(CrossmintAuthLayer::new(mock.config().build()?));
//! # for (destination, status) in [("document", 303), ("empty", 401)] {
//! #     let request = Request::get("/me").header("sec-fetch-dest", destination).body(Body::empty())?;
//! #     let response = app.clone().oneshot(request).await?;
//! #     assert_eq!(response.status(), status);
//! #     assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! # Forwarding requests without a session
//!
//! By default, no request without a session reaches the application. Two policies change that for all routes except the
//! refresh and logout routes.
//!
//! [`Unauthenticated::Allow`] forwards every request. The handler decides, by what it extracts:
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_crossmint_auth::{
//!     AuthError, AuthErrorKind, ConfigError, CrossmintAuthConfigBuilder, CrossmintAuthLayer, OutagePolicy, Session,
//!     Unauthenticated,
//! };
//!
//! /// Shows the page to everyone.
//! async fn home(session: Option<Session>) -> String {
//!     session.map_or("Hello, guest".to_owned(), |session| format!("Hello, {}", session.user_id()))
//! }
//!
//! /// Requires a session: without one, the extractor answers as the layer would have, with 401 or 503.
//! async fn account(session: Session) -> String {
//!     format!("The account of {}", session.user_id())
//! }
//!
//! /// Distinguishes a guest from a user whose session could not be checked.
//! async fn cart(session: Result<Session, AuthError>) -> Result<String, AuthError> {
//!     match session {
//!         Ok(session) => Ok(format!("The cart of {}", session.user_id())),
//!         Err(error) if error.kind() == AuthErrorKind::MissingCredentials => Ok("An empty cart".to_owned()),
//!         Err(error) => Err(error),
//!     }
//! }
//!
//! fn app(config: CrossmintAuthConfigBuilder) -> Result<Router, ConfigError> {
//!     let config = config.unauthenticated(Unauthenticated::Allow).on_outage(OutagePolicy::KeepSession).build()?;
//!     Ok(Router::new()
//!         .route("/", get(home))
//!         .route("/account", get(account))
//!         .route("/cart", get(cart))
//!         .layer(CrossmintAuthLayer::new(config)))
//! }
//! # use axum::{body::Body, http::Request};
//! # use tower::ServiceExt as _;
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let app = app(mock.config())?;
//! # let (alice, bob) = (mock.sign_in("alice"), mock.session("bob").jwt_lifetime(-60).create());
//! # let send = async |path: &str, cookie: String| {
//! #     let request = Request::get(path).header("cookie", cookie).body(Body::empty()).unwrap();
//! #     app.clone().oneshot(request).await.unwrap().status().as_u16()
//! # };
//! # for (path, guest, user, outage) in [("/", 200, 200, 200), ("/account", 401, 200, 503), ("/cart", 200, 200, 503)] {
//! #     mock.set_down(false);
//! #     assert_eq!(send(path, String::new()).await, guest);
//! #     assert_eq!(send(path, alice.cookie_header()).await, user);
//! #     mock.set_down(true);
//! #     assert_eq!(send(path, bob.cookie_header()).await, outage);
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! The cookies of a session that has ended are cleared on the way out, whatever the handler answers. Without the
//! feature `axum`, read [`Session`](crate::Session) and [`AuthError`] from the request's extensions.
//!
//! [`Unauthenticated::AllowMissing`] forwards requests without credentials only. Everything else is rejected: a session
//! that has ended, or one that cannot be checked during an outage, never looks like a guest. A page that must not show
//! a signed-in user the guests' view uses it:
//!
//! ```
//! use axum::{Router, body::Body, http::{Request, StatusCode}, routing::get};
//! use tower::ServiceExt as _;
//! use tower_crossmint_auth::{CrossmintAuthLayer, Session, Unauthenticated, testing::MockCrossmint};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mock = MockCrossmint::start().await;
//! let config = mock.config().unauthenticated(Unauthenticated::AllowMissing).build()?;
//! let home = |session: Option<Session>| async move { if session.is_some() { "a user" } else { "a guest" } };
//! let app = Router::new().route("/", get(home)).layer(CrossmintAuthLayer::new(config));
//!
//! // No cookies: the request is forwarded.
//! let request = Request::get("/").body(Body::empty())?;
//! assert_eq!(app.clone().oneshot(request).await?.status(), StatusCode::OK);
//!
//! // The cookies of a session that was revoked: the request is rejected.
//! let bob = mock.session("bob").jwt_lifetime(-60).create();
//! mock.revoke(bob.refresh_token());
//! let request = Request::get("/").header("cookie", bob.cookie_header()).body(Body::empty())?;
//! assert_eq!(app.oneshot(request).await?.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```
//!
//! On a route without the layer, the `Session` extractor answers 500 ([`LayerMissing`]) and logs an `ERROR`.
//!
//! [`AuthError`]: crate::AuthError
//! [`OutagePolicy::EndSession`]: crate::OutagePolicy::EndSession
//! [`OutagePolicy::KeepSession`]: crate::OutagePolicy::KeepSession
//! [`Unauthenticated::Allow`]: crate::Unauthenticated::Allow
//! [`Unauthenticated::AllowMissing`]: crate::Unauthenticated::AllowMissing
//! [`MissingCredentials`]: crate::AuthErrorKind::MissingCredentials
//! [`MissingRefreshToken`]: crate::AuthErrorKind::MissingRefreshToken
//! [`AmbiguousCredentials`]: crate::AuthErrorKind::AmbiguousCredentials
//! [`InvalidCredentials`]: crate::AuthErrorKind::InvalidCredentials
//! [`Refused`]: crate::AuthErrorKind::Refused
//! [`Unavailable`]: crate::AuthErrorKind::Unavailable
//! [`RateLimited`]: crate::AuthErrorKind::RateLimited
//! [`UnusableAnswer`]: crate::AuthErrorKind::UnusableAnswer
//! [`CrossSite`]: crate::AuthErrorKind::CrossSite
//! [`MethodNotAllowed`]: crate::AuthErrorKind::MethodNotAllowed
//! [`InvalidBody`]: crate::AuthErrorKind::InvalidBody
//! [`BodyTimeout`]: crate::AuthErrorKind::BodyTimeout
//! [`BodyTooLarge`]: crate::AuthErrorKind::BodyTooLarge
//! [`UnsupportedMediaType`]: crate::AuthErrorKind::UnsupportedMediaType
//! [`LayerMissing`]: crate::AuthErrorKind::LayerMissing
