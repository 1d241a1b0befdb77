//! What the layer does with requests that it could decide either way.

/// What the layer does with a request that has no valid session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unauthenticated {
    /// Answers 401 (or 503, see [`OutagePolicy`]); the inner service is not called. The default.
    ///
    /// CORS preflights pass nevertheless, unless [`CorsPreflights::Reject`] is set.
    #[default]
    Reject,
    /// Passes a request without any credentials on, without a [`Session`](crate::Session). One with broken or
    /// incomplete credentials is rejected.
    AllowMissing,
    /// Passes every request on, with a [`Session`](crate::Session) if it has a valid one. The cookies of a dead
    /// session are cleared on the way out; the reason is in the request's extensions, as an
    /// [`AuthError`](crate::AuthError), with which the [`Session`](crate::Session) extractor answers.
    Allow,
}

/// What the layer does with CORS preflights, which carry no cookies by design.
///
/// A preflight is an `OPTIONS` request that has `Origin` and `Access-Control-Request-Method`, but no body and no
/// `Content-Type`, `Cookie` or `Authorization`. With any of these, it is a request like any other.
///
/// A gRPC server rejects them:
///
/// ```no_run
/// use tonic::transport::Server;
/// use tower_crossmint_auth::{CorsPreflights, CrossmintAuthConfig, CrossmintAuthLayer};
///
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let config = CrossmintAuthConfig::builder(std::env::var("SERVER_CROSSMINT_API_KEY")?)
///     .cors_preflights(CorsPreflights::Reject)
///     .build()?;
/// let (_reporter, health) = tonic_health::server::health_reporter();
/// Server::builder()
///     .layer(CrossmintAuthLayer::new(config))
///     .add_service(health)
///     .serve("127.0.0.1:50051".parse()?)
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CorsPreflights {
    /// Passes a preflight on without a [`Session`](crate::Session), so that a CORS layer or handler behind this one can
    /// answer it. The default.
    ///
    /// # Security
    ///
    /// Anybody can send one, to any path: a handler that ignores the method runs without a session, with an empty body.
    /// axum's `any` and fallbacks do, and so does tonic: a gRPC method with a client stream is called with an empty one.
    #[default]
    Pass,
    /// Treats a preflight as any other request without credentials: [`Unauthenticated`] decides, so that by default the
    /// answer is 401.
    ///
    /// For servers that get no preflights, such as gRPC servers without gRPC-Web, and where a CORS layer in front of this
    /// one answers them.
    Reject,
}

/// What the layer does when Crossmint itself is failing: no connection, a timeout, a 5xx or 429, an answer that is not JSON.
///
/// A definite refusal by Crossmint always ends the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutagePolicy {
    /// Answers 401 and clears the cookies, as `@crossmint/server-sdk` does. The default.
    #[default]
    EndSession,
    /// Answers 503 with `Retry-After` and keeps the cookies, so that an outage logs nobody out.
    KeepSession,
}
