//! gRPC with tonic.
//!
//! The layer goes around a whole server, or around one service of it:
//!
//! ```no_run
//! use tonic::{service::LayerExt as _, transport::Server};
//! use tower::ServiceBuilder;
//! use tower_crossmint_auth::{Bearer, CorsPreflights, CrossmintAuthConfig, CrossmintAuthLayer};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let config = CrossmintAuthConfig::from_env()
//!     .bearer(Bearer::Accept)
//!     .cors_preflights(CorsPreflights::Reject)
//!     .build()?;
//! let (_reporter, health) = tonic_health::server::health_reporter();
//! let protected = ServiceBuilder::new().layer(CrossmintAuthLayer::new(config)).named_layer(health);
//! Server::builder().add_service(protected).serve("127.0.0.1:50051".parse()?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! `Server::builder().layer(CrossmintAuthLayer::new(config))` protects every service. `examples/tonic.rs` is a server
//! with a client.
//!
//! - **The session** is in the request's extensions: `request.extensions().get::<Session>()`.
//! - **Credentials** are metadata: `authorization`, with [`Bearer::Accept`], or `cookie`. Browsers send the cookies
//!   with gRPC-Web. A cookie that was refreshed is in the metadata of the response, as `set-cookie`; callers that do
//!   not keep cookies should send a bearer token, and refresh it over HTTP.
//! - **Rejections** have the status in the header fields of a response without messages, where clients of gRPC and
//!   gRPC-Web look for it: `grpc-status` 16 (`UNAUTHENTICATED`) for 401 (which a malformed header gets as well), 14
//!   (`UNAVAILABLE`) for 503, and `grpc-message`. With [`OutagePolicy::KeepSession`], an outage at Crossmint is
//!   `UNAVAILABLE`, which clients retry.
//! - **Preflights**: tonic ignores the HTTP method, and calls a method with a client stream even for an `OPTIONS`
//!   request. Set [`CorsPreflights::Reject`], and put a CORS layer in front for gRPC-Web.
//! - **Streams**: a call with a client stream is not read while its session is refreshed, and a call that has begun is
//!   not checked again. [`streams`](super::streams) shows how to end one with the session.
//!
//! [`Bearer::Accept`]: crate::Bearer::Accept
//! [`CorsPreflights::Reject`]: crate::CorsPreflights::Reject
//! [`OutagePolicy::KeepSession`]: crate::OutagePolicy::KeepSession
