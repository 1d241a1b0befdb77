//! The shell: the only module that uses tower, bodies, requests and responses.

mod body;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod rejection;
mod routes;
mod service;

use tower_layer::Layer;

#[cfg(fuzzing)]
pub(crate) use self::routes::refresh_token;
pub use self::{body::ResponseBody, future::ResponseFuture, service::CrossmintAuthService};
use crate::{auth::CrossmintAuth, config::CrossmintAuthConfig};

/// A layer that resolves every request to a verified [`Session`](crate::Session), and answers the refresh and logout
/// routes.
///
/// Clones are cheap and share their caches.
///
/// In axum, add it with `Router::layer`, so that requests for the two routes reach it. With `Router::route_layer`,
/// nested routers and merges in the wrong order, axum may answer the two routes with 404 before the layer sees them:
/// see [`docs::placement`](crate::docs::placement).
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
#[derive(Clone, Debug)]
pub struct CrossmintAuthLayer {
    auth: CrossmintAuth,
}

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
        &self.auth
    }
}

impl From<CrossmintAuth> for CrossmintAuthLayer {
    /// Creates a layer that shares the handle's caches.
    fn from(auth: CrossmintAuth) -> Self {
        Self { auth }
    }
}

impl<S> Layer<S> for CrossmintAuthLayer {
    type Service = CrossmintAuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CrossmintAuthService { inner, auth: self.auth.clone() }
    }
}
