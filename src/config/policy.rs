//! The policies for requests without a session, CORS preflights and outages.

/// What the layer does with a request that has no valid session.
///
/// Set by [`unauthenticated`](crate::CrossmintAuthConfigBuilder::unauthenticated). The refresh and logout routes are
/// not affected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unauthenticated {
    /// Answers 401 (or 503, see [`OutagePolicy`]) without calling the inner service. The default.
    ///
    /// CORS preflights are forwarded nevertheless, unless [`CorsPreflights::Reject`] is set.
    #[default]
    Reject,
    /// Forwards requests without credentials, without a [`Session`](crate::Session). Requests with invalid or
    /// incomplete credentials are rejected.
    AllowMissing,
    /// Forwards every request, with a [`Session`](crate::Session) if it has a valid one.
    ///
    /// The response clears the cookies of an ended session. The request's extensions contain the reason as an
    /// [`AuthError`](crate::AuthError), with which the [`Session`](crate::Session) extractor answers.
    Allow,
}

/// What the layer does with CORS preflights, which carry no cookies.
///
/// A preflight is an `OPTIONS` request with `Origin` and `Access-Control-Request-Method`, without a body, and without
/// `Content-Type`, `Cookie`, `Authorization` or `Upgrade`. Any other `OPTIONS` request is treated like a request of
/// another method.
///
/// A gRPC server rejects preflights:
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
    /// Forwards preflights without a [`Session`](crate::Session), so that a CORS layer or handler behind this layer can
    /// answer them. The default.
    ///
    /// # Security
    ///
    /// Anonymous clients can send a preflight to any path. A handler that ignores the method runs without a session and
    /// with an empty body: axum's `any` and fallbacks do, and tonic calls a method with a client stream.
    #[default]
    Pass,
    /// Treats preflights like other requests without credentials: [`Unauthenticated`] decides, and the default is 401.
    ///
    /// For servers that receive no preflights, such as gRPC servers without gRPC-Web, and for applications with a CORS
    /// layer in front of this one.
    Reject,
}

/// What the layer does with sessions that need a refresh while Crossmint is unavailable: no connection, no answer in
/// time, a 5xx or 429 status, an answer that is not JSON.
///
/// A refusal by Crossmint ends the session under either policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutagePolicy {
    /// Answers 401 and clears the cookies, as `@crossmint/server-sdk` does. The default.
    #[default]
    EndSession,
    /// Answers 503 with `Retry-After` and keeps the cookies, so that an outage signs no one out.
    KeepSession,
}
