//! Crossmint sessions for [Tower](tower): one layer for axum, tonic and hyper services.
//!
//! Crossmint signs users in and hands the browser a short-lived JWT and a refresh token, each in a cookie. This layer
//! checks the JWT of every request, renews the session when the JWT has expired, and answers the two routes that
//! Crossmint's browser SDK calls. It does in Rust what `@crossmint/server-sdk` does in Node.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use tower_crossmint_auth::{CookieOptions, CrossmintAuthConfig, CrossmintAuthLayer, Session};
//!
//! # #[cfg(feature = "axum")]
//! # async fn app() -> Result<(), Box<dyn std::error::Error>> {
//! let config = CrossmintAuthConfig::builder(std::env::var("SERVER_CROSSMINT_API_KEY")?)
//!     .cookies(CookieOptions::hardened())
//!     .build()?;
//!
//! let app: Router = Router::new()
//!     .route("/me", get(|session: Session| async move { session.user_id().to_owned() }))
//!     .layer(CrossmintAuthLayer::new(config));
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! 1. **A valid session passes**: the request gets a [`Session`] in its extensions. Nothing else is touched, and
//!    Crossmint is not asked: a JWT that has been seen before costs a look-up.
//! 2. **An expired session is renewed**: the refresh token is exchanged at Crossmint, the new JWT verified, the inner
//!    service called with the new session, and both cookies set on its response.
//! 3. **One renewal per session**: however many requests carry the expired session, Crossmint gets one call. It runs in
//!    a task of its own, so that a client that hangs up does not lose the new token, and requests that were already on
//!    their way with the old token are served from its result for a while.
//! 4. **Everything else is refused** with 401, and its cookies are cleared: no refresh token, one that Crossmint refuses,
//!    cookies that contradict each other. A request that another site has caused clears only the cookies that it carries:
//!    browsers withhold SameSite cookies from it, and would delete them all the same. The reason is in the response's
//!    extensions, as an [`AuthError`]; the client gets one of a few fixed messages. [`Unauthenticated`] lets requests
//!    without a session pass instead.
//! 5. **While Crossmint fails**, valid sessions go on. One that has to be renewed is refused like the others, which signs
//!    the user out: so does `@crossmint/server-sdk`. [`OutagePolicy::KeepSession`] answers 503 and keeps the cookies.
//! 6. **CORS preflights pass**, to every path, without a session: they carry no cookies by design, and the CORS layer or
//!    handler behind this one answers them. [`CorsPreflights::Reject`] is for servers that get none, such as gRPC's.
//! 7. **Two routes are answered here** and never reach the inner service: `POST /api/auth/refresh` and
//!    `POST /api/auth/logout`. Browsers' requests from other sites are refused there, and so are their WebSocket handshakes
//!    to any path.
//! 8. **Keys are loaded once** and reloaded in the background every ten minutes, and when a JWT names an unknown key. A
//!    key that Crossmint has withdrawn is refused from the next reload on. If Crossmint fails, the last good set goes on
//!    serving for an hour, and while no set can be loaded, no refresh token is spent. A JWT under a key that was published
//!    less than 30 s after the last attempt to load the set may be renewed instead of verified.
//! 9. **Secrets stay secret**: the API key, JWTs and refresh tokens are in no `Debug` output, log line or error.
//!
//! # What it does not do
//!
//! - A JWT is good until it expires, as everywhere, also if it was stolen or its user has signed out: signing out ends
//!   the session at Crossmint, and clears the cookies.
//! - A refresh token, and the one-time secret of a login, can be exchanged again for a while
//!   ([`rotation_grace`](CrossmintAuthConfigBuilder::rotation_grace)): the answer is the same session. A period of
//!   zero makes them good for one use, and parallel requests end sessions.
//! - Rule 3 holds within one process, for the layers of one [`CrossmintAuth`] and of clones of one configuration; a
//!   second configuration for the same project is warned of. Several replicas should send one browser's requests to the
//!   same replica; Crossmint may otherwise see a spent token.
//! - The renewed cookies of a WebSocket's handshake may be ignored by the browser; its next request is served from the
//!   grace period.
//! - It limits no request rates, adds no CORS headers and does not guard your handlers against forged cross-site requests:
//!   other layers do, such as tower-http's `csrf`.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | adds |
//! | --- | --- |
//! | `axum` | [`Session`] and `Option<Session>` as extractors, [`AuthError`] as a response |
//! | `testing` | [`testing::MockCrossmint`], a Crossmint on loopback for your own tests |
//!
//! The layer needs a tokio runtime with time and I/O enabled, which axum, tonic and hyper servers have anyway. Outside of
//! any runtime, requests that need one are answered as in an outage; in a runtime without time or I/O, tokio panics.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod auth;
mod authorize;
mod clock;
mod config;
mod cookies;
#[cfg(test)]
mod corpus;
mod csrf;
#[cfg(test)]
mod deep;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod json;
mod jwks;
mod layer;
mod refresh;
mod registration;
mod secret;
mod session;
mod stats;
mod sync;
mod task_tracker;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod throttle;
mod upstream;
mod verify;

pub use self::{
    auth::{Credentials, CrossmintAuth},
    config::{
        ApiKey, CookieNames, CookieOptions, CorsPreflights, CrossmintAuthConfig, CrossmintAuthConfigBuilder,
        Environment, IntoApiKey, KeyOrigin, OutagePolicy, SameSite, Unauthenticated,
    },
    error::{AuthError, AuthErrorKind, ConfigError},
    layer::{CrossmintAuthLayer, CrossmintAuthService, ResponseBody, ResponseFuture},
    session::{AuthMaterial, RefreshToken, Session, Twitter, User},
    stats::Stats,
};

/// Compiles the README's examples.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;
