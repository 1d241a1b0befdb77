//! Using [`CrossmintAuth`] directly: in handlers, in background tasks, and without Tower.
//!
//! [`CrossmintAuth`] is the handle behind the layer. It does what the class of the same name in `@crossmint/server-sdk`
//! does. A handle shares its key set, its caches and its refreshes in flight with its clones, with the layers made from
//! it, and with everything else that is made from clones of its configuration.
//!
//! **Build one configuration per project.** Two configurations have separate caches. A browser session that is
//! refreshed through both is signed out, because the second refresh sends a rotated token. A second configuration for
//! the same project and base URL is logged as a warning.
//!
//! ```no_run
//! use axum::{Router, extract::State, routing::get};
//! use tower_crossmint_auth::{AuthError, CrossmintAuth, CrossmintAuthConfig, CrossmintAuthLayer, Session};
//!
//! /// Needs an API key with the scope `users.read`.
//! async fn email(State(auth): State<CrossmintAuth>, session: Session) -> Result<String, AuthError> {
//!     let user = auth.get_user(session.user_id()).await?;
//!     Ok(user.email.unwrap_or_default())
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = CrossmintAuthConfig::builder(std::env::var("SERVER_CROSSMINT_API_KEY")?).build()?;
//! let auth = CrossmintAuth::new(config);
//! auth.warm_up().await?; // loads the key set before the first request
//!
//! let app = Router::new()
//!     .route("/email", get(email))
//!     .layer(CrossmintAuthLayer::from(auth.clone()))
//!     .with_state(auth.clone());
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
//! axum::serve(listener, app).with_graceful_shutdown(stop).await?;
//! auth.wait_idle().await; // waits for refreshes whose clients have disconnected
//! # Ok(())
//! # }
//! ```
//!
//! # Resolving a request's cookies to a session
//!
//! Behind the layer, the session is in the request's extensions. Elsewhere, [`get_session`] resolves the cookies of a
//! request, and refreshes the session if its JWT is missing, expired or invalid. A refreshed session has new cookies,
//! which the response must set:
//!
//! ```
//! use http::HeaderMap;
//! use tower_crossmint_auth::{AuthError, AuthErrorKind, CrossmintAuth, Session};
//!
//! async fn session(auth: &CrossmintAuth, request: &HeaderMap, response: &mut HeaderMap) -> Result<Session, AuthError> {
//!     let session = auth.get_session(request).await.inspect_err(|error| {
//!         // Not for `MissingCredentials`: another site can cause a request without cookies, to sign the user out.
//!         use AuthErrorKind::{AmbiguousCredentials, InvalidCredentials, Refused};
//!         if matches!(error.kind(), Refused | AmbiguousCredentials | InvalidCredentials) {
//!             auth.clear_auth_material(response);
//!         }
//!     })?;
//!     if let (true, Some(material)) = (session.is_refreshed(), session.material()) {
//!         auth.store_auth_material(response, material)?;
//!     }
//!     Ok(session)
//! }
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let auth = CrossmintAuth::new(mock.config().build()?);
//! # let alice = mock.session("alice").jwt_lifetime(-60).create();
//! # let request = HeaderMap::from_iter([(http::header::COOKIE, alice.cookie_header().parse()?)]);
//! # let mut response = HeaderMap::new();
//! # assert_eq!(session(&auth, &request, &mut response).await?.user_id(), "alice");
//! # assert_eq!(response.get_all("set-cookie").iter().count(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # Completing a login
//!
//! At the end of a login, the browser SDK receives a one-time secret and posts it to the refresh route, which the layer
//! answers. A login route of your own exchanges the secret in the same way:
//!
//! ```
//! use axum::{extract::State, http::HeaderMap};
//! use tower_crossmint_auth::{AuthError, CrossmintAuth};
//!
//! /// The body is the one-time secret.
//! async fn login(State(auth): State<CrossmintAuth>, one_time_secret: String) -> Result<HeaderMap, AuthError> {
//!     let material = auth.refresh(&one_time_secret).await?;
//!     let mut headers = HeaderMap::new();
//!     auth.store_auth_material(&mut headers, &material)?;
//!     Ok(headers)
//! }
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let auth = CrossmintAuth::new(mock.config().build()?);
//! # let headers = login(State(auth), mock.one_time_secret("alice")).await?;
//! # assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! Protect such a route against requests from other sites, as the layer protects the refresh route: otherwise another
//! site can sign the user in as somebody else. See [`security`](super::security#requests-from-other-sites).
//!
//! # Revoking a session
//!
//! A handler that changes a password or closes an account ends the session of its request with [`revoke_session`]. This
//! process refuses the session's JWTs from then on; Crossmint refuses its refresh token:
//!
//! ```
//! use axum::{extract::State, http::HeaderMap};
//! use tower_crossmint_auth::{CrossmintAuth, Session};
//!
//! async fn close_account(State(auth): State<CrossmintAuth>, session: Session) -> HeaderMap {
//!     // delete the user's data here
//!     if let Err(error) = auth.revoke_session(&session).await {
//!         tracing::warn!(%error, "the session can still be refreshed at Crossmint");
//!     }
//!     let mut headers = HeaderMap::new();
//!     auth.clear_auth_material(&mut headers);
//!     headers
//! }
//! # use tower_crossmint_auth::{Credentials, testing::MockCrossmint};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let auth = CrossmintAuth::new(mock.config().build()?);
//! # let alice = mock.sign_in("alice");
//! # let session = auth.get_session(Credentials::pair(alice.jwt(), alice.refresh_token())).await?;
//! # let headers = close_account(State(auth.clone()), session).await;
//! # assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
//! # assert!(auth.verify_jwt(alice.jwt()).await.is_err() && !mock.is_live(alice.refresh_token()));
//! # Ok(())
//! # }
//! ```
//!
//! It does not reach the user's other sessions, which Crossmint does not list, nor processes that do not share a store
//! with this one, which accept the JWT until it expires: see [`security`](super::security#jwts). Handlers that are
//! running keep their session.
//!
//! # Answering the two routes yourself
//!
//! [`handle_refresh`] and [`handle_logout`] answer requests as the layer does on its two routes, for applications with
//! routes of their own. With axum, [`routes`] has both at the configured paths. Without a framework:
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use hyper::body::{Bytes, Incoming};
//! use tower_crossmint_auth::CrossmintAuth;
//!
//! async fn serve(auth: &CrossmintAuth, request: Request<Incoming>) -> Response<Full<Bytes>> {
//!     match request.uri().path() {
//!         "/session/refresh" => auth.handle_refresh(request).await,
//!         "/session/logout" => auth.handle_logout(request).await,
//!         _ => {
//!             let mut response = Response::default();
//!             *response.status_mut() = StatusCode::NOT_FOUND;
//!             response
//!         }
//!     }
//! }
//! ```
//!
//! # Verifying a JWT without cookies
//!
//! [`session_from_jwt`] resolves a JWT alone to a session, and [`verify_jwt`] returns its claims. Nothing is refreshed.
//! For the `Authorization` header, the layer has [`Bearer::Accept`](super::api#bearer-tokens).
//!
//! # Runtimes
//!
//! Methods that call Crossmint need a tokio runtime with time and I/O enabled. Outside of one they return
//! [`Unavailable`](crate::AuthErrorKind::Unavailable).
//!
//! # Errors as responses
//!
//! With the feature `axum`, an [`AuthError`](crate::AuthError) is a response. An error from a method of the handle is
//! rendered as under [`OutagePolicy::KeepSession`](crate::OutagePolicy::KeepSession), whatever the configuration says,
//! and sets no cookies.
//!
//! [`CrossmintAuth`]: crate::CrossmintAuth
//! [`get_session`]: crate::CrossmintAuth::get_session
//! [`handle_refresh`]: crate::CrossmintAuth::handle_refresh
//! [`handle_logout`]: crate::CrossmintAuth::handle_logout
//! [`revoke_session`]: crate::CrossmintAuth::revoke_session
//! [`routes`]: crate::CrossmintAuth::routes
//! [`session_from_jwt`]: crate::CrossmintAuth::session_from_jwt
//! [`verify_jwt`]: crate::CrossmintAuth::verify_jwt
