//! What may differ from one layer to another.

use http::Uri;

use super::login_page::LoginPage;

/// The policies of a layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    pub(crate) unauthenticated: Unauthenticated,
    pub(crate) on_outage: OutagePolicy,
    pub(crate) cors_preflights: CorsPreflights,
    pub(crate) bearer: Bearer,
}

impl Policies {
    /// Returns what happens to sessions in an outage.
    ///
    /// A login page is of no use while Crossmint is unavailable, so that a layer that redirects to one keeps sessions.
    pub(crate) fn on_outage(&self) -> OutagePolicy {
        match self.unauthenticated {
            Unauthenticated::Redirect(_) => OutagePolicy::KeepSession,
            _ => self.on_outage,
        }
    }

    /// Returns what happens to a request for this target. The login page can be loaded without a session.
    pub(crate) fn unauthenticated_at(&self, uri: &Uri) -> &Unauthenticated {
        match &self.unauthenticated {
            Unauthenticated::Redirect(page) if page.is_at(uri) => &Unauthenticated::Allow,
            policy => policy,
        }
    }

    pub(crate) fn allow_missing_at(&self, uri: &Uri) -> bool {
        matches!(self.unauthenticated_at(uri), Unauthenticated::Allow | Unauthenticated::AllowMissing)
    }

    pub(crate) fn accepts_bearer(&self) -> bool {
        self.bearer == Bearer::Accept
    }
}

/// What the layer does with a request that has no valid session.
///
/// Set by [`unauthenticated`](crate::CrossmintAuthConfigBuilder::unauthenticated), or for one layer by
/// [`CrossmintAuthLayer::unauthenticated`](crate::CrossmintAuthLayer::unauthenticated). The refresh and logout routes
/// are not affected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Redirects navigations to a login page, and answers every other request with 401.
    ///
    /// A navigation is a request with `Sec-Fetch-Mode: navigate`, or, without this header, a `GET` or `HEAD` whose
    /// `Accept` prefers `text/html`. It gets 303, and the response clears the cookies of an ended session.
    ///
    /// While Crossmint is unavailable, nobody can sign in: such a request is answered with 503, whatever the
    /// [`OutagePolicy`], and keeps its cookies. The browser SDK's own refreshes follow
    /// [`on_outage`](crate::CrossmintAuthConfigBuilder::on_outage): set [`OutagePolicy::KeepSession`] in the
    /// configuration, too.
    Redirect(LoginPage),
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

/// What the layer does with JWTs in the `Authorization` header, which mobile applications and services send (RFC 6750).
///
/// The refresh route uses the cookie or the body. The logout route also refuses a JWT in the header from then on, under
/// either policy. gRPC clients send the header as metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bearer {
    /// Ignores the header. The default.
    #[default]
    Ignore,
    /// Accepts `Authorization: Bearer <JWT>` beside the cookies.
    ///
    /// The JWT is verified like one from a cookie. The header takes precedence over the cookies. The session has no
    /// [refresh token](crate::Session::refresh_token), is never refreshed, and no response sets or clears a cookie for
    /// it. An invalid JWT is answered with 401, and a malformed header with 400, both with the challenge of RFC 6750
    /// section 3. While there is no key set, the answer is 503, whatever the [`OutagePolicy`].
    Accept,
}
