//! The shell: the only place that knows tower, bodies, requests and responses.

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

/// Gives every request behind it a verified [`Session`](crate::Session), and answers the refresh and logout routes.
///
/// A clone is one reference count; all clones share their caches.
///
/// In axum, add it with `Router::layer`: the two routes need no route of their own then. `Router::route_layer`, a nested
/// router, or a merge in the wrong order can make axum answer them with 404 before the layer sees them: the README has a
/// table of what works.
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
    /// Creates a layer. It shares the caches of all layers and handles that come from clones of this configuration: see
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
        CrossmintAuthService::new(inner, self.auth.clone())
    }
}
