//! A mock of Crossmint's auth service, for the tests of applications that use this crate.
//!
//! [`MockCrossmint`] listens on loopback, mints JWTs with real RSA keys, publishes these keys, and exchanges refresh
//! tokens as strictly as an identity provider may: a token can be used once, and a second use revokes the session. The
//! layer has no special support for it: it calls the mock over HTTP, and verifies its signatures.
//!
//! ```
//! use axum::{
//!     Router,
//!     body::Body,
//!     http::{Request, StatusCode},
//!     routing::get,
//! };
//! use tower::ServiceExt as _;
//! use tower_crossmint_auth::{
//!     CrossmintAuthLayer,
//!     testing::{Endpoint, MockCrossmint},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mock = MockCrossmint::start().await;
//! let config = mock.config().build()?;
//! let app = Router::new().route("/me", get(|| async { "hello" })).layer(CrossmintAuthLayer::new(config));
//!
//! // The request of a user who has signed in passes.
//! let alice = mock.sign_in("alice");
//! let request = Request::get("/me").header("cookie", alice.cookie_header()).body(Body::empty())?;
//! assert_eq!(app.clone().oneshot(request).await?.status(), StatusCode::OK);
//!
//! // With an expired JWT it passes as well, after one call to the refresh endpoint.
//! let bob = mock.session("bob").jwt_lifetime(-3600).create();
//! let request = Request::get("/me").header("cookie", bob.cookie_header()).body(Body::empty())?;
//! let response = app.clone().oneshot(request).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
//! assert_eq!(mock.calls(Endpoint::Refresh), 1);
//!
//! // With an expired JWT and a revoked session it is rejected.
//! let carol = mock.session("carol").jwt_lifetime(-3600).create();
//! mock.revoke(carol.refresh_token());
//! let request = Request::get("/me").header("cookie", carol.cookie_header()).body(Body::empty())?;
//! assert_eq!(app.oneshot(request).await?.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```
//!
//! # Faults and the order of events
//!
//! [`MockCrossmint::inject`] makes an endpoint fail in one of the ways of [`Fault`], [`MockCrossmint::set_down`] makes
//! the whole service unavailable, and [`MockCrossmint::hold`] holds calls until the test releases them, so that a test
//! needs no sleeps to produce an order of events. A call goes through these steps:
//!
//! 1. It is received, with its body. The faults and holds that are set at this point are the ones that apply to it.
//! 2. It waits for the holds of [`MockCrossmint::hold`].
//! 3. It is executed, unless its fault prevents that: a refresh token is spent, a session is revoked.
//! 4. Its response waits for the holds of [`MockCrossmint::hold_answers`].
//! 5. The response is sent.
//!
//! A call is recorded, which wakes [`MockCrossmint::called`], once it has been executed, or is held or delayed: a test
//! that has waited for a call without a hold or delay can rely on its effects. A client that disconnects does not
//! cancel its call: a call that is held or delayed is executed nevertheless.

mod answer;
mod api;
mod browser;
mod calls;
mod connection;
mod cookie_jar;
mod fault;
mod jwt;
mod keys;
mod ledger;
mod listener;
mod mock_crossmint;
mod script;
mod server;
mod session;
#[cfg(test)]
mod tests;

pub use self::{
    browser::{Browser, Page},
    calls::{Endpoint, RecordedRequest},
    fault::Fault,
    mock_crossmint::MockCrossmint,
    script::Hold,
    session::{MockSession, SessionBuilder},
};
