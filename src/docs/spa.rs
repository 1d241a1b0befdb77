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
//!     const { login, logout, status, user } = useCrossmintAuth();
//!     if (status === "initializing") return null;
//!     return status === "logged-in"
//!         ? <button onClick={logout}>Sign out {user?.email}</button>
//!         : <button onClick={login}>Sign in</button>;
//! }
//! ```
//!
//! At page load, the provider shows a user as signed in if it finds the JWT's cookie under its scoped name,
//! `crossmint-jwt-<project ID>`, which [`CookieNames::Scoped`](crate::CookieNames::Scoped) (the default) writes. `user`
//! follows with the answer of the refresh route. Without React:
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
//! and that a later attempt may succeed. A page that nobody is signed in to makes two requests when it is loaded: the
//! SDK's refresh gets 401, and the SDK then posts to the logout route.
//!
//! # Outages
//!
//! The SDK takes every failure of the refresh route for the end of the session, the 503 of
//! [`KeepSession`](crate::OutagePolicy::KeepSession) too, and posts to the logout route: a page that is loaded during
//! an outage signs its user out. To keep the session, leave `logoutRoute` out, so that the SDK signs out in the page
//! only, and call the route where the user signs out:
//!
//! ```ts
//! async function signOut() {
//!     await fetch("/api/auth/logout", { method: "POST" });
//!     await auth.logout(); // `logout()` of `useCrossmintAuth()` in React
//! }
//! ```
//!
//! This needs [`http_only`](crate::CookieOptions::http_only), without which the SDK deletes the refresh token's cookie
//! itself. The next page that is loaded after the outage finds the session.
//!
//! # A page on another origin
//!
//! The SDK calls the two routes by `fetch` without `credentials`: browsers neither send nor store the cookies unless
//! page and routes have the same origin, whatever the CORS headers say. A user seems to be signed in until the next
//! refresh, which finds no cookie, and signs the user out. There are three ways:
//!
//! - **One origin.** A proxy puts the server behind the page's origin: with Vite, `server: { proxy: { "/api":
//!   "http://localhost:3000" } }`. If a browser stores no `Secure` cookies for `http://localhost`, set
//!   `COOKIE_SECURE=false` in development.
//! - **One site**, such as a page at `https://app.example.com` and an API at `https://api.example.com`. Put the two
//!   routes behind the page's origin, and set [`.domain(".example.com")`](crate::CookieOptions::domain). Scripts of
//!   your own send the cookies with `credentials: "include"`, also those with `SameSite=Strict`. The API needs a CORS
//!   layer that allows the page's origin *with credentials*, in front of this layer: see
//!   [`placement`](super::placement#order-among-other-layers). WebSockets need the origin in
//!   [`trusted_origins`](crate::CrossmintAuthConfigBuilder::trusted_origins).
//! - **Different sites.** Leave both routes out of the SDK's configuration. It then refreshes the session at Crossmint,
//!   keeps both tokens in cookies of the page, where scripts can read them, and the page sends the JWT as a [bearer
//!   token](super::api#bearer-tokens). Cookies with [`SameSite::None`](crate::SameSite::None) are not a way: browsers
//!   that block third-party cookies do not keep them.
//!
//! ```ts
//! const { jwt } = useCrossmintAuth();
//! await fetch("https://api.example.net/me", { headers: { authorization: `Bearer ${jwt}` } });
//! ```
//!
//! ```
//! use axum::{Router, http::{HeaderValue, header::AUTHORIZATION}, routing::get};
//! use tower_crossmint_auth::{Bearer, CrossmintAuth, CrossmintAuthLayer, Session};
//! use tower_http::cors::CorsLayer;
//!
//! fn api(auth: &CrossmintAuth) -> Router {
//!     let page = HeaderValue::from_static("https://app.example.com");
//!     Router::new()
//!         .route("/me", get(|session: Session| async move { session.user_id().to_owned() }))
//!         .route_layer(CrossmintAuthLayer::from(auth.clone()).bearer(Bearer::Accept))
//!         .layer(CorsLayer::new().allow_origin(page).allow_headers([AUTHORIZATION]))
//! }
//! # use axum::{body::{Body, to_bytes}, http::{Method, Request}};
//! # use tower::ServiceExt as _;
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let app = api(&CrossmintAuth::new(mock.config().build()?));
//! # let request = |method| Request::builder().method(method).uri("/me").header("origin", "https://app.example.com");
//! # let preflight = request(Method::OPTIONS).header("access-control-request-method", "GET").body(Body::empty())?;
//! # let allowed = app.clone().oneshot(preflight).await?;
//! # assert_eq!(allowed.headers()["access-control-allow-headers"], "authorization");
//! # let bearer = format!("Bearer {}", mock.sign_in("alice").jwt());
//! # for (bearer, status, body) in [(bearer.as_str(), 200, Some("alice")), ("Bearer x", 401, None)] {
//! #     let request = request(Method::GET).header("authorization", bearer).body(Body::empty())?;
//! #     let response = app.clone().oneshot(request).await?;
//! #     assert_eq!(response.status(), status);
//! #     assert_eq!(response.headers()["access-control-allow-origin"], "https://app.example.com");
//! #     let text = to_bytes(response.into_body(), 1 << 14).await?;
//! #     assert!(body.is_none_or(|body| text == body));
//! # }
//! # Ok(())
//! # }
//! ```
