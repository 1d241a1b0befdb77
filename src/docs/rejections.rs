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
//! | [`InvalidToken`], [`InvalidAuthorization`] of a [bearer token](super::api) | 401, 400 | untouched |
//! | [`Unavailable`], [`RateLimited`], [`UnusableAnswer`] under [`OutagePolicy::EndSession`] | 401 | cleared |
//! | the same under [`OutagePolicy::KeepSession`], or under [`Unauthenticated::Redirect`] | 503 with `Retry-After` | kept |
//! | [`CrossSite`], [`MissingClaims`] | 403 | kept |
//! | [`MethodNotAllowed`] | 405 with `Allow` | kept |
//! | [`InvalidBody`], [`BodyTimeout`], [`BodyTooLarge`], [`UnsupportedMediaType`] | 400, 408, 413, 415 | kept |
//!
//! A 401 has the challenge `WWW-Authenticate: Bearer` if the layer accepts bearer tokens, and `Cookie` if it does not.
//!
//! gRPC requests get `grpc-status` 16 (`UNAUTHENTICATED`) for 401 and 14 (`UNAVAILABLE`) for 503, in the response's
//! headers.
//!
//! A response to a request from another site clears only the cookies that the request carried: see
//! [`security`](super::security#requests-from-other-sites).
//!
//! # In the words of the application
//!
//! [`map_rejection`] is given the error, the head of the request, and the response that the layer would send, and
//! returns the response to send. This one answers in the format of RFC 9457, and keeps `message`, which Crossmint's
//! browser SDK reads. Cookies and caching fields stay those of the layer, whatever the function does:
//!
//! ```
//! use axum::{
//!     Router,
//!     http::{HeaderValue, header::CONTENT_TYPE},
//!     routing::get,
//! };
//! use serde_json::json;
//! use tower_crossmint_auth::CrossmintAuthLayer;
//!
//! fn app(auth: CrossmintAuthLayer) -> Router {
//!     let auth = auth.map_rejection(|error, request, mut response| {
//!         let problem = json!({
//!             "title": response.status().canonical_reason(),
//!             "status": response.status().as_u16(),
//!             "instance": request.uri.path(),
//!             "message": error.message(),
//!             "code": error.kind().as_str(),
//!         });
//!         response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
//!         response.map(|_| problem.to_string())
//!     });
//!     Router::new().route("/me", get(|| async { "signed in" })).layer(auth)
//! }
//! # use axum::{body::Body, http::Request};
//! # use tower::ServiceExt as _;
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let app = app(CrossmintAuthLayer::new(mock.config().build()?));
//! # let cookie = format!("crossmint-refresh-token-{}=unknown", mock.project_id());
//! # let response = app.oneshot(Request::get("/me").header("cookie", cookie).body(Body::empty())?).await?;
//! # assert_eq!(response.status(), 401);
//! # assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
//! # let body = axum::body::to_bytes(response.into_body(), 1 << 10).await?;
//! # assert!(String::from_utf8(body.to_vec())?.contains(r#""code":"refused""#));
//! # Ok(())
//! # }
//! ```
//!
//! [`message`](crate::AuthError::message) is for the client. The text of an [`AuthError`] contains no token and no text
//! from Crossmint, but its sources describe failures of connections: log them, and do not show them.
//!
//! An outer layer finds the error in the response's extensions, to log it:
//!
//! ```
//! use std::error::Error;
//!
//! use axum::{Router, middleware::map_response, response::Response};
//! use tower_crossmint_auth::{AuthError, CrossmintAuthLayer};
//!
//! async fn log_rejection(response: Response) -> Response {
//!     if let Some(error) = response.extensions().get::<AuthError>() {
//!         tracing::info!(kind = error.kind().as_str(), error = error as &dyn Error, "rejected a request");
//!     }
//!     response
//! }
//!
//! fn app(auth: CrossmintAuthLayer, inner: Router) -> Router {
//!     inner.layer(auth).layer(map_response(log_rejection))
//! }
//! ```
//!
//! # Redirecting to a login page
//!
//! [`Unauthenticated::Redirect`] redirects page views without a session to a login page, and answers scripts with 401.
//! The redirect clears the cookies of an ended session, and tells the login page in `return_to` where the user was
//! going. Whatever is in that parameter, [`LoginPage::local_path`] only lets a path of this site pass: without it, a
//! link to your login page could lead to any site.
//!
//! ```
//! use axum::{Router, extract::Query, response::Html, routing::get};
//! use serde::Deserialize;
//! use tower_crossmint_auth::{ConfigError, CrossmintAuth, CrossmintAuthLayer, LoginPage, Session, Unauthenticated};
//!
//! #[derive(Deserialize)]
//! struct Login {
//!     return_to: Option<String>,
//! }
//!
//! /// The page signs the user in by Crossmint's browser SDK, and continues to `data-next`.
//! async fn login(Query(login): Query<Login>) -> Html<String> {
//!     let next = login.return_to.as_deref().and_then(LoginPage::local_path).unwrap_or("/");
//!     let next = next.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
//!     Html(format!(r#"<script type="module" src="/login.js" data-next="{next}"></script>"#))
//! }
//!
//! fn app(auth: &CrossmintAuth) -> Result<Router, ConfigError> {
//!     let redirect = Unauthenticated::Redirect(LoginPage::new("/login")?);
//!     let pages = Router::new()
//!         .route("/orders", get(|session: Session| async move { format!("The orders of {}", session.user_id()) }))
//!         .route_layer(CrossmintAuthLayer::from(auth.clone()).unauthenticated(redirect));
//!     Ok(Router::new().route("/login", get(login)).merge(pages).merge(auth.routes()))
//! }
//! # use axum::{body::Body, http::Request};
//! # use tower::ServiceExt as _;
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let app = app(&CrossmintAuth::new(mock.config().build()?))?;
//! # for (mode, status) in [("navigate", 303), ("cors", 401)] {
//! #     let request = Request::get("/orders?page=2").header("sec-fetch-mode", mode).body(Body::empty())?;
//! #     let response = app.clone().oneshot(request).await?;
//! #     assert_eq!(response.status(), status);
//! #     assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
//! # }
//! # for (return_to, next) in [("%2Forders", "/orders"), ("%2F%2Fevil.example", "/")] {
//! #     let request = Request::get(format!("/login?return_to={return_to}")).body(Body::empty())?;
//! #     let body = axum::body::to_bytes(app.clone().oneshot(request).await?.into_body(), 1 << 10).await?;
//! #     assert!(String::from_utf8(body.to_vec())?.contains(&format!(r#"data-next="{next}""#)));
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! The login page may be behind the layer as well: it is forwarded without a session. An outage is answered with 503
//! and keeps the cookies, because nobody could sign in. The layer compares and returns the path that it sees: put it
//! outside of `Router::nest`, which strips the prefix.
//!
//! A form that posts to the logout route is redirected with
//! [`after_logout("/")`](crate::CrossmintAuthConfigBuilder::after_logout); a script gets 200, as the browser SDK
//! expects.
//!
//! # Forwarding requests without a session
//!
//! By default, no request without a session reaches the application. Two policies change that, for the whole
//! configuration or [for one layer](crate::CrossmintAuthLayer::unauthenticated). The refresh and logout routes are not
//! affected.
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
//! [`Unauthenticated::Redirect`]: crate::Unauthenticated::Redirect
//! [`map_rejection`]: crate::CrossmintAuthLayer::map_rejection
//! [`LoginPage::local_path`]: crate::LoginPage::local_path
//! [`InvalidToken`]: crate::AuthErrorKind::InvalidToken
//! [`InvalidAuthorization`]: crate::AuthErrorKind::InvalidAuthorization
//! [`MissingClaims`]: crate::AuthErrorKind::MissingClaims
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
