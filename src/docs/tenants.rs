//! Several Crossmint projects in one server.
//!
//! A [`CrossmintAuthConfig`](crate::CrossmintAuthConfig) stands for one project. For several projects, build one each,
//! with routes of their own. Choose [`CookieNames::ScopedOnly`](crate::CookieNames::ScopedOnly): all projects on a
//! domain share the unscoped names, which older SDKs write. With it, no layer reads or deletes cookies of another
//! project.
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_crossmint_auth::{
//!     ConfigError, CookieNames, CookieOptions, CrossmintAuth, CrossmintAuthConfig, CrossmintAuthLayer, IntoApiKey,
//!     Session,
//! };
//!
//! fn tenant(name: &str, api_key: impl IntoApiKey) -> Result<Router, ConfigError> {
//!     let config = CrossmintAuthConfig::builder(api_key)
//!         .cookie_names(CookieNames::ScopedOnly)
//!         .cookies(CookieOptions::hardened())
//!         .refresh_route(format!("/{name}/refresh"))
//!         .logout_route(format!("/{name}/logout"))
//!         .build()?;
//!     let auth = CrossmintAuth::new(config);
//!     Ok(Router::new()
//!         .route(&format!("/{name}/me"), get(|session: Session| async move { session.user_id().to_owned() }))
//!         .route_layer(CrossmintAuthLayer::from(auth.clone()))
//!         .merge(auth.routes()))
//! }
//!
//! fn app(blue: impl IntoApiKey, green: impl IntoApiKey) -> Result<Router, ConfigError> {
//!     Ok(tenant("blue", blue)?.merge(tenant("green", green)?))
//! }
//! # use tower_crossmint_auth::{ApiKey, Environment};
//! # let key = |project| ApiKey::unverified(project, Environment::Development);
//! # app(key("a"), key("b")).unwrap();
//! ```
//!
//! # Layers around each other
//!
//! A handler behind two layers sees the session of the inner one, or none: the inner layer removes what an outer one
//! has inserted. A handler must be able to rely on the layer next to it, and not find a user of another project because
//! its own layer allows requests without a session. To keep both sessions, copy the outer one to an extension of your
//! own type, in a middleware between the layers.
//!
//! Two layers of one handle, such as a permissive one around the whole application and a strict one around a part of
//! it, resolve a request to the same session. A refresh is made once, and the cookies are set once. What the inner
//! layer does not accept, such as a bearer token, does not pass it. Without a [grace
//! period](crate::CrossmintAuthConfigBuilder::rotation_grace), the inner layer sends the rotated token again, which
//! ends the session.
//!
//! # In tests
//!
//! [`MockCrossmint::start_as`](crate::testing::MockCrossmint::start_as) starts a mock for a project. Two of them have
//! users and refresh tokens of their own, and share their signing keys.
