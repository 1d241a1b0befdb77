//! Server-rendered pages: links, forms and redirects.
//!
//! A site has pages for everyone, pages for users, and a login page. One handle serves them all, with a policy for each
//! group:
//!
//! ```
//! use axum::{Router, response::Html, routing::get};
//! use tower_crossmint_auth::{ConfigError, CrossmintAuth, CrossmintAuthLayer, LoginPage, Session, Unauthenticated};
//!
//! async fn home(session: Option<Session>) -> Html<&'static str> {
//!     Html(match session {
//!         Some(_) => r#"<form action="/api/auth/logout" method="post"><button>Sign out</button></form>"#,
//!         None => r#"<a href="/orders">Your orders</a>"#,
//!     })
//! }
//!
//! fn site(auth: &CrossmintAuth) -> Result<Router, ConfigError> {
//!     let layer = CrossmintAuthLayer::from(auth.clone());
//!     let everyone = layer.clone().unauthenticated(Unauthenticated::Allow);
//!     let users = layer.unauthenticated(Unauthenticated::Redirect(LoginPage::new("/login")?));
//!     let orders = get(|session: Session| async move { format!("The orders of {}", session.user_id()) });
//!     Ok(Router::new()
//!         .merge(Router::new().route("/", get(home)).route_layer(everyone))
//!         .merge(Router::new().route("/orders", orders).route_layer(users))
//!         .route("/login", get(|| async { Html(r#"<script type="module" src="/login.js"></script>"#) }))
//!         .merge(auth.routes()))
//! }
//! # use tower_crossmint_auth::testing::{Browser, MockCrossmint};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let auth = CrossmintAuth::new(mock.config().after_logout("/").build()?);
//! # let mut browser = Browser::new(site(&auth)?, "http://localhost:3000");
//! # assert!(browser.open("/").await.text().contains("Your orders"));
//! # assert_eq!(browser.click("/orders").await.path(), "/login?return_to=%2Forders");
//! # browser.sign_in(&mock, "alice").await;
//! # assert_eq!(browser.click("/orders").await.text(), "The orders of alice");
//! # assert_eq!(browser.submit("/api/auth/logout", "").await.path(), "/");
//! # Ok(())
//! # }
//! ```
//!
//! - **The login page** signs the user in with the browser SDK, which posts the one-time secret to the refresh route:
//!   see [`spa`](super::spa#how-a-user-signs-in). Then it continues to the page in `return_to`, after the server has
//!   checked it with [`LoginPage::local_path`](crate::LoginPage::local_path):
//!   [`rejections`](super::rejections#redirecting-to-a-login-page) has a handler.
//! - **Signing out** is a form that posts to the logout route. With
//!   [`after_logout("/")`](crate::CrossmintAuthConfigBuilder::after_logout) the browser is redirected; without it, it
//!   shows an empty page. A link cannot sign out: the route accepts only `POST`, so that no image on another site signs
//!   users out.
//! - **An outage** of Crossmint is answered with 503 on pages that redirect. So that the browser SDK's refreshes on
//!   these pages sign nobody out either, set
//!   [`on_outage(OutagePolicy::KeepSession)`](crate::CrossmintAuthConfigBuilder::on_outage) in the configuration, and do
//!   not tell the SDK the logout route: see [`spa`](super::spa#outages).
//! - **Strict cookies** do not come along when a user follows a link from another site, such as a search engine. The
//!   first page then shows a guest, or redirects to the login page, whose script finds the session and continues. If
//!   that is a nuisance, use [`SameSite::Lax`](crate::SameSite::Lax), with which links carry the cookies and forms do
//!   not.
//! - **Forms** of your own need protection against forged requests from other sites, which this layer gives to its two
//!   routes only: tower-http's `csrf` layer, in front of this one.
//! - **Pages that differ for users and guests** should not be kept by shared caches: set `Cache-Control: private`. The
//!   layer sets `no-store` on the responses that carry its cookies, and no field on others.
//!
//! `examples/site.rs` is such a site, with a login page that works without Crossmint.
