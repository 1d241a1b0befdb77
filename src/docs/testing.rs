//! Testing an application.
//!
//! Enable the feature `testing` for tests only:
//!
//! ```toml
//! [dev-dependencies]
//! tower-crossmint-auth = { version = "0.1", features = ["testing"] }
//! ```
//!
//! [`MockCrossmint`] is a Crossmint on loopback. It signs users in, issues real JWTs, rotates refresh tokens, and ends
//! a session whose refresh token is used twice. Your application calls it over HTTP, with
//! [`mock.config()`](crate::testing::MockCrossmint::config) in place of a configuration with an API key; all other
//! options are yours.
//!
//! # Signing in, clicking, coming back
//!
//! [`Browser`] has a cookie jar and sends the headers of a browser, so that a test sees what a user sees:
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_crossmint_auth::{
//!     CookieOptions, CrossmintAuth, CrossmintAuthLayer, LoginPage, Session, Unauthenticated,
//!     testing::{Browser, MockCrossmint},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mock = MockCrossmint::start().await;
//! let config = mock.config().cookies(CookieOptions::hardened()).after_logout("/").build()?;
//! let auth = CrossmintAuth::new(config);
//! let redirect = Unauthenticated::Redirect(LoginPage::new("/login")?);
//! let app = Router::new()
//!     .route("/orders", get(|session: Session| async move { session.user_id().to_owned() }))
//!     .route_layer(CrossmintAuthLayer::from(auth.clone()).unauthenticated(redirect))
//!     .route("/", get(|| async { "Welcome" }))
//!     .route("/login", get(|| async { "Please sign in" }))
//!     .merge(auth.routes());
//!
//! let mut browser = Browser::new(app, "https://app.example.com");
//! assert_eq!(browser.open("/orders?page=2").await.path(), "/login?return_to=%2Forders%3Fpage%3D2");
//! browser.sign_in(&mock, "alice").await;
//! assert_eq!(browser.click("/orders").await.text(), "alice");
//!
//! // A form on another site does not sign her out; her own does.
//! assert_eq!(browser.submit_from("https://evil.example", "/api/auth/logout", "").await.status(), 403);
//! assert_eq!(browser.submit("/api/auth/logout", "").await.text(), "Welcome");
//! assert_eq!(mock.live_sessions(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! [`restart`](crate::testing::Browser::restart) ends the JWT's cookie, so that the next request refreshes the session,
//! and [`set_cookie`](crate::testing::Browser::set_cookie) stores the cookies of a session that the mock has made.
//! [`fetch`](crate::testing::Browser::fetch) sends requests in parallel, and
//! [`connect`](crate::testing::Browser::connect) drives a server on loopback.
//!
//! For a request without a browser, [`mock.sign_in("alice")`](crate::testing::MockCrossmint::sign_in) returns a session
//! with its `Cookie` header and its JWT. [`mock.session("alice")`](crate::testing::MockCrossmint::session) sets claims,
//! such as a role, and the lifetime.
//!
//! # Time
//!
//! Whether a JWT has expired is decided by the wall clock, which a test cannot move. Create an expired one instead:
//! `mock.session("alice").jwt_lifetime(-60).create()`. JWTs that a refresh issues get their lifetime from
//! [`set_refreshed_jwt_lifetime`](crate::testing::MockCrossmint::set_refreshed_jwt_lifetime). The wall clock is read once
//! a second, by tokio's clock: while that stands still, known sessions do not expire.
//!
//! Everything else (time-outs, the grace period, pauses after failures, the age of the key set) is measured with
//! tokio's clock, which `tokio::time::pause` stops and `tokio::time::advance` moves. The mock answers while time is
//! paused. Do not let tokio move the clock of its own accord while a call is on its way: pause after the call has
//! arrived ([`called`](crate::testing::MockCrossmint::called)), advance, and resume.
//!
//! ```
//! use std::time::Duration;
//!
//! use tower_crossmint_auth::{AuthErrorKind, CrossmintAuth, testing::{Endpoint, MockCrossmint}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mock = MockCrossmint::start().await;
//! let auth = CrossmintAuth::new(mock.config().build()?);
//! auth.warm_up().await?;
//! let _hold = mock.hold(Endpoint::Refresh);
//! let alice = mock.sign_in("alice");
//! let clock = async {
//!     mock.called(Endpoint::Refresh, 1).await;
//!     tokio::time::pause();
//!     tokio::time::advance(Duration::from_secs(11)).await;
//!     tokio::time::resume();
//! };
//! let (refreshed, ()) = tokio::join!(auth.refresh(alice.refresh_token()), clock);
//! assert_eq!(refreshed.unwrap_err().kind(), AuthErrorKind::Unavailable);
//! # Ok(())
//! # }
//! ```
//!
//! # Faults and the order of events
//!
//! [`inject`](crate::testing::MockCrossmint::inject) makes the calls to an endpoint fail,
//! [`inject_times`](crate::testing::MockCrossmint::inject_times) the next ones, and
//! [`set_down`](crate::testing::MockCrossmint::set_down) all calls. [`hold`](crate::testing::MockCrossmint::hold) and
//! [`called`](crate::testing::MockCrossmint::called) order events without sleeping. What Crossmint has seen is in
//! [`calls`](crate::testing::MockCrossmint::calls), [`requests`](crate::testing::MockCrossmint::requests) and
//! [`live_sessions`](crate::testing::MockCrossmint::live_sessions): assert on it rather than on what your code has
//! logged.
//!
//! [`MockCrossmint`]: crate::testing::MockCrossmint
//! [`Browser`]: crate::testing::Browser
