//! Crossmint sessions for [Tower](tower): one layer for axum, tonic and hyper services.
//!
//! Crossmint signs users in and gives the browser a short-lived JWT and a refresh token, each in a cookie. This layer
//! verifies the JWT of every request, refreshes the session when the JWT has expired, and answers the two routes that
//! Crossmint's browser SDK calls. It is the counterpart of `@crossmint/server-sdk` for Rust.
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
//! # Start here
//!
//! [Crossmint](https://www.crossmint.com) is a service that signs users in: by e-mail, social login or wallet. This
//! crate is not made by Crossmint. A user signs in with Crossmint's browser SDK, [`@crossmint/client-sdk-auth`] or its
//! React components, which receives a one-time secret and posts it to the refresh route of your server. The layer
//! exchanges it, and sets the cookies: [`docs::spa`] has the whole way.
//!
//! | you have | read |
//! | --- | --- |
//! | a single-page application | [`docs::spa`], [`docs::placement`] |
//! | server-rendered pages | [`docs::html`], [`docs::rejections`] |
//! | an API for mobile applications or services, or roles | [`docs::api`], [`docs::grpc`] |
//! | WebSockets or server-sent events | [`docs::streams`] |
//! | several Crossmint projects | [`docs::tenants`] |
//! | tests to write | [`docs::testing`] |
//! | `@crossmint/server-sdk` today | [`docs::migration`] |
//! | a production server | [`docs::options`], [`docs::security`], [`docs::operations`] |
//! | routes or background tasks of your own | [`docs::handle`] |
//! | a choice to make | [`docs::comparison`] |
//!
//! [`@crossmint/client-sdk-auth`]: https://www.npmjs.com/package/@crossmint/client-sdk-auth
//!
//! # What it does
//!
//! 1. **A request with a valid session is forwarded**, with a [`Session`] in its extensions. Nothing else is changed,
//!    and no network call is made: a JWT that was verified before costs a cache look-up.
//! 2. **An expired session is refreshed.** The layer exchanges the refresh token at Crossmint, verifies the new JWT,
//!    calls the inner service with the new session, and sets both cookies on its response.
//! 3. **Each session is refreshed once**, however many requests carry it. The refresh runs in a task of its own, so
//!    that a client that disconnects does not lose the new token. Requests that were already on their way with the
//!    rotated token get the same result during a grace period.
//! 4. **All other requests are rejected** with 401, and their cookies are cleared: there is no refresh token, Crossmint
//!    refuses it, or cookies of one name differ. The response's extensions contain the [`AuthError`]; the client gets
//!    one of a few fixed messages. A request from another site clears only the cookies that it carries.
//!    [`Unauthenticated`] can forward requests without a session instead, or redirect page views to a login page.
//! 5. **While Crossmint is unavailable**, valid sessions are not affected. Sessions that need a refresh are rejected as
//!    in rule 4, which signs the user out, as `@crossmint/server-sdk` does. [`OutagePolicy::KeepSession`] answers 503
//!    and keeps the cookies.
//! 6. **CORS preflights are forwarded** without a session, on every path: they carry no cookies. A CORS layer belongs
//!    in front of this one, so that rejections carry its headers, and answers preflights there.
//!    [`CorsPreflights::Reject`] is for such applications, and for servers that get no preflights, such as gRPC
//!    servers.
//! 7. **Two routes are answered by the layer** and never reach the inner service: `POST /api/auth/refresh` and
//!    `POST /api/auth/logout`. Browsers' requests from other sites are rejected there, and so are WebSocket handshakes
//!    from other sites, on every path.
//! 8. **The key set is loaded once**, and reloaded in the background every ten minutes. A JWT that names an unknown key
//!    waits for a reload. A key that Crossmint has withdrawn is rejected from the next reload on. If reloads fail, the
//!    last good key set is used for an hour; while none can be loaded, no refresh token is sent. A JWT with a key that
//!    was published less than 30 s after the last attempt to load the key set may be refreshed instead of verified.
//! 9. **Secrets stay secret**: the API key, JWTs and refresh tokens are in no `Debug` output, event or error.
//!
//! # Caveats
//!
//! - A JWT is valid until it expires, even if it was stolen. After a logout, the process that handled it refuses the
//!   session's JWTs, and so do the replicas that share a store with it. Everything else that verifies them accepts them
//!   until they expire.
//! - A refresh token, and the one-time secret of a login, can be exchanged again during the grace period
//!   ([`rotation_grace`](CrossmintAuthConfigBuilder::rotation_grace)), with the same session as the result. A grace
//!   period of zero makes them usable once, and parallel requests then end sessions.
//! - Rule 3 holds within one process, for the layers and handles made from one [`CrossmintAuth`] or from clones of one
//!   configuration. A second configuration for the same project is logged as a warning. Several replicas share their
//!   refreshes through Redis or Valkey ([`share_renewals`](CrossmintAuthConfigBuilder::share_renewals)), or each
//!   browser is routed to the same replica: see [`docs::operations`](docs::operations#replicas).
//! - A browser may ignore the cookies that a WebSocket handshake sets. Its next request gets them again, within the
//!   grace period.
//! - The layer does not limit request rates, adds no CORS headers and does not protect your handlers against cross-site
//!   request forgery. Other layers do, such as tower-http's `csrf`: see [`docs::security`].
//! - It needs a tokio runtime with time and I/O enabled, which axum, tonic and hyper servers provide. Outside of any
//!   runtime, requests that need one are answered as in an outage; in a runtime without time or I/O, tokio panics.
//!
//! # Features
//!
//! None is enabled by default.
//!
//! | feature | adds |
//! | --- | --- |
//! | `axum` | `Session`, `Option<Session>` and `Claims<T>` as extractors, `CrossmintAuth::routes`, and [`AuthError`] as a response |
//! | `metrics` | Metrics through the facade of the same name: see [`docs::operations`](docs::operations#metrics) |
//! | `redis` | [`share_renewals`](CrossmintAuthConfigBuilder::share_renewals): replicas that share their refreshes through Redis or Valkey |
//! | `testing` | [`testing::MockCrossmint`], a mock of Crossmint on loopback for an application's tests |
//! | `http-client` | [`http_client`](CrossmintAuthConfigBuilder::http_client), for a `reqwest::Client` with a proxy or a private certificate authority |
//!
//! # How it is built
//!
//! A synchronous decision about each request's head, one owner for each state, and a shell that is the only part to
//! know Tower: [`docs::architecture`] has the modules and the invariants.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod auth;
mod authorize;
mod bearer;
mod clock;
mod config;
mod cookies;
mod csrf;
pub mod docs;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handle_registry;
mod host;
mod json;
mod jwks;
mod layer;
mod log_throttle;
mod per_thread;
mod refresh;
mod secret;
mod session;
mod stats;
#[cfg(feature = "redis")]
mod store;
mod sync;
mod task_tracker;
#[cfg(test)]
mod test_support;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod upstream;
mod verify;

#[cfg(feature = "redis")]
pub use self::config::{RedisRenewals, WhenUnreachable};
#[cfg(feature = "axum")]
pub use self::layer::Claims;
pub use self::{
    auth::{Credentials, CrossmintAuth},
    config::{
        ApiKey, Bearer, CookieNames, CookieOptions, CorsPreflights, CrossmintAuthConfig, CrossmintAuthConfigBuilder,
        Environment, IntoApiKey, IntoDomain, KeyOrigin, LoginPage, OutagePolicy, SameSite, Unauthenticated,
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
