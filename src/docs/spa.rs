//! A single-page application with Crossmint's browser SDK.
//!
//! # How a user signs in
//!
//! 1. The browser SDK signs the user in at Crossmint (by a code in an e-mail, or by Google, for instance) and receives
//!    a *one-time secret*.
//! 2. It posts the secret to the refresh route of your server: `POST /api/auth/refresh` with `{"refresh": "<secret>"}`.
//! 3. The layer exchanges the secret at Crossmint, and answers with the JWT and the user. Both cookies are set: the
//!    JWT's, which scripts can read, and the refresh token's, which is `HttpOnly` with
//!    [`CookieOptions::hardened`](crate::CookieOptions::hardened).
//! 4. From then on the browser sends the cookies, and handlers extract the [`Session`](crate::Session). When a page is
//!    loaded, and two minutes before the JWT expires, the SDK posts `{}` to the refresh route.
//! 5. The SDK's `logout()` posts to the logout route, which revokes the session and deletes the cookies.
//!
//! # The browser
//!
//! In React, Crossmint's provider does all of this:
//!
//! ```tsx
//! import { CrossmintAuthProvider, CrossmintProvider, useCrossmintAuth } from "@crossmint/client-sdk-react-ui";
//!
//! export function App() {
//!     return (
//!         <CrossmintProvider apiKey="ck_...">
//!             <CrossmintAuthProvider refreshRoute="/api/auth/refresh" logoutRoute="/api/auth/logout">
//!                 <Account />
//!             </CrossmintAuthProvider>
//!         </CrossmintProvider>
//!     );
//! }
//!
//! function Account() {
//!     const { login, logout, user } = useCrossmintAuth();
//!     return user ? <button onClick={logout}>Sign out {user.email}</button> : <button onClick={login}>Sign in</button>;
//! }
//! ```
//!
//! At page load, the provider shows a user as signed in if it finds the JWT's cookie under its scoped name,
//! `crossmint-jwt-<project ID>`, which [`CookieNames::Scoped`](crate::CookieNames::Scoped) (the default) writes.
//! Without React:
//!
//! ```ts
//! import { CrossmintAuth, createCrossmint } from "@crossmint/client-sdk-auth";
//!
//! const auth = CrossmintAuth.from(createCrossmint({ apiKey: "ck_..." }), {
//!     refreshRoute: "/api/auth/refresh",
//!     logoutRoute: "/api/auth/logout",
//!     callbacks: { onTokenRefresh: ({ user }) => show(user), onLogout: () => show(undefined) },
//! });
//! ```
//!
//! The browser has a *client* key (`ck_...`), the server a *server* key (`sk_...`) of the same project.
//!
//! # The server
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use tower_crossmint_auth::{CrossmintAuth, CrossmintAuthConfig, CrossmintAuthLayer, OutagePolicy, Session};
//!
//! # fn app() -> Result<Router, Box<dyn std::error::Error>> {
//! let config = CrossmintAuthConfig::from_env()
//!     .expose_refresh_secret(false) // scripts see the JWT only
//!     .on_outage(OutagePolicy::KeepSession)
//!     .build()?;
//! let auth = CrossmintAuth::new(config);
//!
//! let api = Router::new()
//!     .route("/api/me", get(|session: Session| async move { session.user_id().to_owned() }))
//!     .route_layer(CrossmintAuthLayer::from(auth.clone()));
//! let app = Router::new()
//!     .route("/", get(|| async { axum::response::Html(include_str!("../../examples/demo/page.html")) }))
//!     .merge(api)
//!     .merge(auth.routes());
//! # Ok(app)
//! # }
//! ```
//!
//! A `fetch("/api/me")` that gets 401 means that nobody is signed in; 503 means that the session could not be checked,
//! and that a later attempt may succeed.
//!
//! # A page on another origin
//!
//! A development server, or an application at `https://app.example.com` with its API at `https://api.example.com`:
//!
//! - Simplest is a proxy that makes them one origin: with Vite, `server: { proxy: { "/api": "http://localhost:3000" }
//!   }`.
//! - Otherwise, add the page's origin to [`trusted_origins`](crate::CrossmintAuthConfigBuilder::trusted_origins),
//!   without which the two routes answer 403, and put a CORS layer that allows this origin *with credentials* in front
//!   of this layer: see [`placement`](super::placement#order-among-other-layers). Scripts need `credentials:
//!   "include"`.
//! - If both are on one site (`example.com`), cookies with `SameSite=Strict` are sent. The browser SDK and the provider
//!   read the JWT's cookie, so that it has to be for the common domain:
//!   [`.domain(".example.com")`](crate::CookieOptions::domain).
//! - If they are on different sites, the cookies need [`SameSite::None`](crate::SameSite::None), and browsers that
//!   block third-party cookies keep none. Avoid it.
