//! Crossmint, a layer in front of it, and users with credentials of the usual size.

use http::HeaderValue;
use tokio::runtime::Runtime;
use tower_crossmint_auth::{
    CrossmintAuth, CrossmintAuthConfigBuilder, CrossmintAuthLayer,
    testing::{MockCrossmint, MockSession},
};

/// A Crossmint whose threads are its own.
pub(crate) struct Stage {
    pub(crate) runtime: Runtime,
    pub(crate) mock: MockCrossmint,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let mock = runtime.block_on(MockCrossmint::start());
        Self { runtime, mock }
    }

    /// Makes a layer that has its key set.
    pub(crate) fn layer(
        &self,
        configure: impl FnOnce(CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder,
    ) -> CrossmintAuthLayer {
        let auth = CrossmintAuth::new(configure(self.mock.config()).build().unwrap());
        self.runtime.block_on(auth.warm_up()).unwrap();
        auth.into()
    }

    /// Signs somebody in with a JWT of about 750 bytes.
    pub(crate) fn session(&self) -> MockSession {
        self.mock.session("0e8400e2-9b41-4d4a-8716-446655440000").claim("email", "x".repeat(65)).create()
    }

    /// Signs somebody in, and returns the `Cookie` header of about 900 bytes.
    pub(crate) fn cookie(&self) -> HeaderValue {
        self.session().cookie_header().parse().unwrap()
    }
}
