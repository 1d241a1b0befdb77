//! The shell: the only module that uses tower, bodies, requests and responses.

#[cfg(feature = "axum")]
mod axum;
mod body;
mod future;
mod rejection;
mod routes;
mod service;

use std::fmt;

use bytes::Bytes;
use http::{Response, request::Parts};
use tower_layer::Layer;

#[cfg(feature = "axum")]
pub use self::axum::Claims;
#[cfg(fuzzing)]
pub(crate) use self::routes::refresh_token;
pub use self::{body::ResponseBody, future::ResponseFuture, service::CrossmintAuthService};
use self::{rejection::Rejector, service::Context};
use crate::{
    auth::CrossmintAuth,
    config::{Bearer, CorsPreflights, CrossmintAuthConfig, OutagePolicy, Unauthenticated},
    error::AuthError,
    per_thread::PerThreadArc,
};

/// A layer that resolves every request to a verified [`Session`](crate::Session), and answers the refresh and logout
/// routes.
///
/// Clones are cheap and share their caches, and so do all layers that are made from one [`CrossmintAuth`]. Each layer
/// can have policies of its own:
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_crossmint_auth::{Bearer, CrossmintAuth, CrossmintAuthLayer, LoginPage, Session, Unauthenticated};
///
/// # fn app(auth: CrossmintAuth) -> Result<Router, tower_crossmint_auth::ConfigError> {
/// let layer = CrossmintAuthLayer::from(auth.clone());
/// let site = Router::new().route("/", get(|| async { "Welcome" }));
/// let pages = Router::new()
///     .route("/orders", get(|session: Session| async move { session.user_id().to_owned() }))
///     .layer(layer.clone().unauthenticated(Unauthenticated::Redirect(LoginPage::new("/login")?)));
/// let api = Router::new().route("/api/orders", get(|| async { "[]" })).layer(layer.bearer(Bearer::Accept));
/// let app = Router::new().merge(site).merge(pages).merge(api).merge(auth.routes());
/// # Ok(app)
/// # }
/// ```
///
/// In axum, requests for the refresh and logout routes must be routed to the layer or to
/// [`CrossmintAuth::routes`]: see [`docs::placement`](crate::docs::placement).
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_crossmint_auth::{ApiKey, CrossmintAuthConfig, CrossmintAuthLayer, Environment};
///
/// # fn main() -> Result<(), tower_crossmint_auth::ConfigError> {
/// let key = ApiKey::unverified("my-project", Environment::Development);
/// let layer = CrossmintAuthLayer::new(CrossmintAuthConfig::builder(key).build()?);
/// let app: Router = Router::new().route("/", get(|| async { "signed in" })).layer(layer);
/// # let _ = app;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CrossmintAuthLayer(PerThreadArc<Context>);

impl CrossmintAuthLayer {
    /// Creates a layer.
    ///
    /// It shares the caches of all layers and handles that are made from clones of this configuration: see
    /// [`CrossmintAuth::new`].
    #[must_use]
    pub fn new(config: CrossmintAuthConfig) -> Self {
        CrossmintAuth::new(config).into()
    }

    /// Returns the handle behind the layer.
    #[must_use]
    pub fn auth(&self) -> &CrossmintAuth {
        &self.0.auth
    }

    /// Sets what this layer does with a request without a session, in place of the configuration's
    /// [`unauthenticated`](crate::CrossmintAuthConfigBuilder::unauthenticated).
    #[must_use]
    pub fn unauthenticated(self, policy: Unauthenticated) -> Self {
        self.set(|context| context.policies.unauthenticated = policy)
    }

    /// Sets what this layer does with sessions that need a refresh while Crossmint is unavailable, in place of the
    /// configuration's [`on_outage`](crate::CrossmintAuthConfigBuilder::on_outage).
    ///
    /// The refresh route follows the configuration if [`CrossmintAuth::routes`] answers it.
    #[must_use]
    pub fn on_outage(self, policy: OutagePolicy) -> Self {
        self.set(|context| context.policies.on_outage = policy)
    }

    /// Sets what this layer does with CORS preflights, in place of the configuration's
    /// [`cors_preflights`](crate::CrossmintAuthConfigBuilder::cors_preflights).
    #[must_use]
    pub fn cors_preflights(self, policy: CorsPreflights) -> Self {
        self.set(|context| context.policies.cors_preflights = policy)
    }

    /// Sets whether this layer accepts a JWT in the `Authorization` header, in place of the configuration's
    /// [`bearer`](crate::CrossmintAuthConfigBuilder::bearer).
    #[must_use]
    pub fn bearer(self, policy: Bearer) -> Self {
        self.set(|context| context.policies.bearer = policy)
    }

    /// Sets a function that changes the responses with which this layer rejects requests, for example to a page or to
    /// `application/problem+json`.
    ///
    /// The function is given the error, the head of the request, and the response that the layer would send. Whatever
    /// it returns, the layer sets its cookies, `Cache-Control`, `Vary`, `WWW-Authenticate`, `Retry-After`, `Allow` and
    /// the gRPC status. [Redirects](Unauthenticated::Redirect) to the login page are not passed to the function, and
    /// neither are the responses of extractors, which are the application's: extract `Result<Session, AuthError>` to
    /// word those.
    ///
    /// The browser SDK reads `message` from the JSON that the refresh route answers with.
    ///
    /// ```
    /// use http::{HeaderValue, header::CONTENT_TYPE};
    /// use tower_crossmint_auth::CrossmintAuthLayer;
    ///
    /// # fn layer(layer: CrossmintAuthLayer) -> CrossmintAuthLayer {
    /// layer.map_rejection(|error, request, mut response| {
    ///     let (status, path) = (response.status(), request.uri.path());
    ///     response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    ///     response.map(|_| format!("{status} at {path}: {}", error.message()))
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn map_rejection<F, B>(self, map: F) -> Self
    where
        F: Fn(&AuthError, &Parts, Response<Bytes>) -> Response<B> + Send + Sync + 'static,
        B: Into<Bytes>,
    {
        self.set(|context| context.rejector = Rejector::new(map))
    }

    fn set(self, change: impl FnOnce(&mut Context)) -> Self {
        let mut context = Context::clone(&self.0);
        change(&mut context);
        Self(PerThreadArc::new(context))
    }
}

impl From<CrossmintAuth> for CrossmintAuthLayer {
    /// Creates a layer with the policies of the configuration, which shares the handle's caches.
    fn from(auth: CrossmintAuth) -> Self {
        let policies = auth.policies().clone();
        Self(PerThreadArc::new(Context { auth, policies, rejector: Rejector::default() }))
    }
}

impl<S> Layer<S> for CrossmintAuthLayer {
    type Service = CrossmintAuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CrossmintAuthService { inner, context: self.0.clone() }
    }
}

impl fmt::Debug for CrossmintAuthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
