//! placeholder

mod api_key;
mod auth;
mod config;
mod cookie_options;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod layer;
mod refresh_body;
mod response;
mod secret;
mod service;
mod session;
#[cfg(feature = "testing")]
pub mod testing;

pub use self::{
    api_key::{ApiKey, Environment, KeyOrigin},
    auth::{Credentials, CrossmintAuth},
    config::{ConfigError, CrossmintAuthConfig, CrossmintAuthConfigBuilder, Unauthenticated},
    cookie_options::{CookieNames, CookieOptions, SameSite},
    error::{AuthError, AuthErrorKind, OutagePolicy},
    future::ResponseFuture,
    layer::CrossmintAuthLayer,
    response::ResponseBody,
    service::CrossmintAuthService,
    session::{AuthMaterial, RefreshToken, Session, Twitter, User},
};
