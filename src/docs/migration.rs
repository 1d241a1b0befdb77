//! Migrating from `@crossmint/server-sdk`: Crossmint's documentation, in Rust.
//!
//! Each snippet of Crossmint's pages about custom refresh routes and session methods has its counterpart here. The
//! browser keeps its SDK and, by default, its session: this crate reads the cookies that the TypeScript SDK has set. In
//! the server, one layer replaces the calls in every handler and the two route handlers.
//!
//! # What replaces what
//!
//! | TypeScript | this crate |
//! | --- | --- |
//! | `createCrossmint({ apiKey })`, `CrossmintAuth.from(crossmint, options)` | [`CrossmintAuthConfig::builder(api_key)`](crate::CrossmintAuthConfig::builder) with options, [`build()`](crate::CrossmintAuthConfigBuilder::build), [`CrossmintAuth::new(config)`](crate::CrossmintAuth::new) |
//! | `refreshRoute: "/api/refresh"` | [`.refresh_route("/api/refresh")`](crate::CrossmintAuthConfigBuilder::refresh_route); the browser is configured with the same path |
//! | `cookieOptions: { httpOnly, secure, sameSite, domain }` | [`.cookies(..)`](crate::CrossmintAuthConfigBuilder::cookies) with [`CookieOptions`](crate::CookieOptions) |
//! | `getSession(request, response)` in every handler | the [layer](crate::CrossmintAuthLayer); [`Session`](crate::Session) as an extractor, or from the request's extensions |
//! | `session.jwt`, `session.refreshToken`, `session.userId` | [`jwt()`](crate::Session::jwt), [`refresh_token()`](crate::Session::refresh_token), [`user_id()`](crate::Session::user_id); an unknown `expiresAt` is `None`, not `""` |
//! | `getSession({ jwt, refreshToken })` | [`get_session(Credentials::pair(jwt, refresh_secret))`](crate::CrossmintAuth::get_session) |
//! | `handleCustomRefresh(request)` in a route handler | [`routes()`](crate::CrossmintAuth::routes) or the layer; [`handle_refresh(request)`](crate::CrossmintAuth::handle_refresh) in a handler of your own |
//! | `logout(request)` in a route handler | the same; [`handle_logout(request)`](crate::CrossmintAuth::handle_logout), or [`logout`](crate::CrossmintAuth::logout) in code |
//! | `getUser(id)`, `verifyCrossmintJwt(jwt)` | [`get_user`](crate::CrossmintAuth::get_user), [`verify_jwt`](crate::CrossmintAuth::verify_jwt) |
//! | `storeAuthMaterial`, `getJwksUri` | [`store_auth_material`](crate::CrossmintAuth::store_auth_material), [`jwks_uri`](crate::CrossmintAuth::jwks_uri) |
//! | `redirect("/login")` in a `catch` | [`Unauthenticated::Redirect`](crate::Unauthenticated::Redirect) |
//!
//! # Configuration
//!
//! The TypeScript documentation's complete example:
//!
//! ```ts
//! const crossmint = createCrossmint({
//!     apiKey: process.env.SERVER_CROSSMINT_API_KEY || "",
//! });
//!
//! export const crossmintAuth = CrossmintAuth.from(crossmint, {
//!     refreshRoute: "/api/auth/refresh",
//!     cookieOptions: {
//!         httpOnly: true,
//!         sameSite: "Strict",
//!         secure: process.env.NODE_ENV === "production",
//!         domain: process.env.COOKIE_DOMAIN,
//!     },
//! });
//! ```
//!
//! [`from_env`](crate::CrossmintAuthConfig::from_env) reads the same variables. Its cookies are HttpOnly and Strict,
//! and Secure unless `COOKIE_SECURE` is `false`:
//!
//! ```no_run
//! use tower_crossmint_auth::{ConfigError, CrossmintAuth, CrossmintAuthConfig};
//!
//! fn crossmint_auth() -> Result<CrossmintAuth, ConfigError> {
//!     Ok(CrossmintAuth::new(CrossmintAuthConfig::from_env().refresh_route("/api/auth/refresh").build()?))
//! }
//! ```
//!
//! The same, written out:
//!
//! ```
//! use tower_crossmint_auth::{ConfigError, CookieOptions, CrossmintAuth, CrossmintAuthConfig, IntoApiKey, SameSite};
//!
//! fn crossmint_auth(api_key: impl IntoApiKey) -> Result<CrossmintAuth, ConfigError> {
//!     let cookies = CookieOptions::default()
//!         .http_only(true)
//!         .same_site(SameSite::Strict)
//!         .secure(!cfg!(debug_assertions))
//!         .domain(std::env::var("COOKIE_DOMAIN").ok());
//!     let config =
//!         CrossmintAuthConfig::builder(api_key).refresh_route("/api/auth/refresh").cookies(cookies).build()?;
//!     Ok(CrossmintAuth::new(config))
//! }
//! # use tower_crossmint_auth::{ApiKey, Environment};
//! # crossmint_auth(ApiKey::unverified("my-project", Environment::Development)).unwrap();
//! ```
//!
//! Single options are:
//!
//! | TypeScript | this crate |
//! | --- | --- |
//! | `httpOnly: true` | `CookieOptions::default().http_only(true)` |
//! | `secure: true` | `.secure(true)` |
//! | `sameSite: "Strict"` | `.same_site(SameSite::Strict)` |
//! | `domain: ".example.com"` | `.domain(".example.com")` |
//! | the first three together | `CookieOptions::hardened()` |
//!
//! # The refresh and logout routes
//!
//! Crossmint's pages have a handler for each route:
//!
//! ```ts
//! // app/api/refresh/route.ts
//! export async function POST(request: NextRequest) {
//!     return await crossmintAuth.handleCustomRefresh(request);
//! }
//!
//! // app/api/logout/route.ts
//! export async function POST(request: NextRequest) {
//!     return await crossmintAuth.logout(request);
//! }
//! ```
//!
//! Here, [`routes`](crate::CrossmintAuth::routes) has both:
//!
//! ```
//! use axum::Router;
//! use tower_crossmint_auth::{ConfigError, CrossmintAuth, CrossmintAuthConfigBuilder};
//!
//! fn app(config: CrossmintAuthConfigBuilder) -> Result<Router, ConfigError> {
//!     let config = config.refresh_route("/api/refresh").logout_route("/api/logout").build()?;
//!     Ok(Router::new().merge(CrossmintAuth::new(config).routes()))
//! }
//! # use axum::{body::{Body, to_bytes}, http::Request};
//! # use tower::ServiceExt as _;
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let app = app(mock.config())?;
//! # let body = serde_json::json!({ "refresh": mock.one_time_secret("alice") }).to_string();
//! # let request = Request::post("/api/refresh").header("content-type", "application/json").body(Body::from(body))?;
//! # let response = app.clone().oneshot(request).await?;
//! # assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
//! # let body: serde_json::Value = serde_json::from_slice(&to_bytes(response.into_body(), 1 << 14).await?)?;
//! # assert!(body["jwt"].is_string() && body["refreshToken"]["expiresAt"].is_string() && body["user"]["id"] == "alice");
//! # assert_eq!(app.oneshot(Request::post("/api/logout").body(Body::empty())?).await?.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! Handlers of your own, as in the snippets:
//!
//! ```
//! use axum::{Router, extract::{Request, State}, response::IntoResponse, routing::post};
//! use tower_crossmint_auth::CrossmintAuth;
//!
//! /// Errors are handled: the response is 401 and clears the cookies.
//! async fn refresh(State(auth): State<CrossmintAuth>, request: Request) -> impl IntoResponse {
//!     auth.handle_refresh(request).await
//! }
//!
//! /// Clears the cookies even if Crossmint cannot be reached.
//! async fn logout(State(auth): State<CrossmintAuth>, request: Request) -> impl IntoResponse {
//!     auth.handle_logout(request).await
//! }
//!
//! fn app(auth: CrossmintAuth) -> Router {
//!     Router::new().route("/api/refresh", post(refresh)).route("/api/logout", post(logout)).with_state(auth)
//! }
//! # use axum::{body::Body, http};
//! # use tower::ServiceExt as _;
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let app = app(CrossmintAuth::new(mock.config().build()?));
//! # for (path, status) in [("/api/refresh", 401), ("/api/logout", 200)] {
//! #     let response = app.clone().oneshot(http::Request::post(path).body(Body::empty())?).await?;
//! #     assert_eq!(response.status(), status);
//! #     assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! Step by step, as Crossmint's page explains `handleCustomRefresh`: find the token in the body or the cookies, refresh
//! it, store the result in the cookies of the response. Whoever does this by hand has to protect the route against
//! other sites, too: see [`security`](super::security#requests-from-other-sites).
//!
//! ```
//! use http::HeaderMap;
//! use tower_crossmint_auth::{AuthError, AuthMaterial, CrossmintAuth};
//!
//! async fn refresh(auth: &CrossmintAuth, secret: &str, response: &mut HeaderMap) -> Result<AuthMaterial, AuthError> {
//!     let material = auth.refresh(secret).await?;
//!     auth.store_auth_material(response, &material)?;
//!     Ok(material)
//! }
//! # use tower_crossmint_auth::testing::MockCrossmint;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let (auth, mut response) = (CrossmintAuth::new(mock.config().build()?), HeaderMap::new());
//! # refresh(&auth, mock.sign_in("alice").refresh_token(), &mut response).await?;
//! # assert_eq!(response.get_all("set-cookie").iter().count(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! The browser SDK is configured with both routes, because only the server can clear an `HttpOnly` cookie:
//!
//! ```ts
//! import { CrossmintAuth, createCrossmint } from "@crossmint/client-sdk-auth";
//!
//! const authClient = CrossmintAuth.from(createCrossmint({ apiKey: "ck_..." }), {
//!     refreshRoute: "/api/refresh",
//!     logoutRoute: "/api/logout",
//! });
//! ```
//!
//! As in the TypeScript SDK, the refresh token in the body, `{"refresh": "..."}`, takes precedence over the cookie. The
//! answer is `{"jwt", "refreshToken": {"secret", "expiresAt"}, "user"}` with both cookies;
//! [`expose_refresh_secret(false)`](crate::CrossmintAuthConfigBuilder::expose_refresh_secret) leaves `secret` out.
//!
//! # Sessions
//!
//! ```ts
//! app.get("/me", async (req, res) => {
//!     try {
//!         const session = await crossmintAuth.getSession(req, res);
//!         res.json({ userId: session.userId });
//!     } catch (error) {
//!         res.status(401).json({ error: "Unauthorized" });
//!     }
//! });
//! ```
//!
//! Behind the layer, a handler takes the session as an argument. The layer has rejected requests without one:
//!
//! ```
//! use axum::{Json, Router, routing::get};
//! use serde_json::{Value, json};
//! use tower_crossmint_auth::{CrossmintAuthLayer, Session};
//!
//! async fn me(session: Session) -> Json<Value> {
//!     Json(json!({ "userId": session.user_id() }))
//! }
//!
//! fn app(auth: CrossmintAuthLayer) -> Router {
//!     Router::new().route("/me", get(me)).layer(auth)
//! }
//! ```
//!
//! "Always handle refresh errors by redirecting users to login" is a policy of the layer:
//!
//! ```ts
//! try {
//!     await crossmintAuth.getSession(request, response);
//! } catch (error) {
//!     return redirect("/login");
//! }
//! ```
//!
//! ```
//! use tower_crossmint_auth::{ConfigError, CrossmintAuth, CrossmintAuthLayer, LoginPage, Unauthenticated};
//!
//! fn pages(auth: CrossmintAuth) -> Result<CrossmintAuthLayer, ConfigError> {
//!     let redirect = Unauthenticated::Redirect(LoginPage::new("/login")?);
//!     Ok(CrossmintAuthLayer::from(auth).unauthenticated(redirect))
//! }
//! ```
//!
//! Where the page about session methods lists the reasons for a `CrossmintAuthenticationError`, an
//! [`AuthError`](crate::AuthError) has a [kind](crate::AuthErrorKind). A JWT that cannot be verified is not among them:
//! it is refreshed.
//!
//! ```
//! use tower_crossmint_auth::{AuthError, AuthErrorKind};
//!
//! fn reason(error: &AuthError) -> &'static str {
//!     match error.kind() {
//!         AuthErrorKind::MissingCredentials => "no authentication material, or no refresh token",
//!         AuthErrorKind::Refused => "the session has ended",
//!         _ if error.is_outage() => "Crossmint cannot be reached, or its answer cannot be used",
//!         _ => "the cookies contradict each other, or are not Crossmint's",
//!     }
//! }
//! # use tower_crossmint_auth::{CrossmintAuth, testing::MockCrossmint};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let auth = CrossmintAuth::new(mock.config().build()?);
//! # let [alice, bob] = ["alice", "bob"].map(|user| mock.session(user).jwt_lifetime(-60).create());
//! # let request = |cookie: String| http::HeaderMap::from_iter([(http::header::COOKIE, cookie.parse().unwrap())]);
//! # let jwt_only = format!("crossmint-jwt={}", mock.sign_in("carol").jwt());
//! # let error = auth.get_session(&request(jwt_only)).await.unwrap_err();
//! # assert_eq!(reason(&error), "no authentication material, or no refresh token");
//! # mock.revoke(alice.refresh_token());
//! # let error = auth.get_session(&request(alice.cookie_header())).await.unwrap_err();
//! # assert_eq!(reason(&error), "the session has ended");
//! # mock.set_down(true);
//! # let error = auth.get_session(&request(bob.cookie_header())).await.unwrap_err();
//! # assert_eq!(reason(&error), "Crossmint cannot be reached, or its answer cannot be used");
//! # Ok(())
//! # }
//! ```
//!
//! `getSession({ jwt, refreshToken })`, for tokens that do not come from cookies:
//!
//! ```
//! use tower_crossmint_auth::{AuthError, Credentials, CrossmintAuth, Session};
//!
//! async fn session(auth: &CrossmintAuth, jwt: &str, refresh_token: &str) -> Result<Session, AuthError> {
//!     auth.get_session(Credentials::pair(jwt, refresh_token)).await
//! }
//! ```
//!
//! `getSession(request, response)` outside of the layer, with the new cookies of a refreshed session, is in
//! [`handle`](super::handle#resolving-a-requests-cookies-to-a-session).
//!
//! # Logging out in code
//!
//! A form that posts to the logout route is redirected with
//! [`after_logout("/")`](crate::CrossmintAuthConfigBuilder::after_logout), and a script does what it likes after the
//! browser SDK's `logout()`. In code, `logout(request, response)` and a redirect are:
//!
//! ```
//! use axum::{extract::State, http::HeaderMap, response::{IntoResponse, Redirect}};
//! use tower_crossmint_auth::CrossmintAuth;
//!
//! async fn logout(State(auth): State<CrossmintAuth>, request: HeaderMap) -> impl IntoResponse {
//!     // The user is signed out here even if Crossmint cannot be reached.
//!     if let Err(error) = auth.logout(&request).await {
//!         tracing::info!(%error, "the session could not be revoked at Crossmint");
//!     }
//!     let mut headers = HeaderMap::new();
//!     auth.clear_auth_material(&mut headers);
//!     (headers, Redirect::to("/"))
//! }
//! # use tower_crossmint_auth::testing::{Endpoint, MockCrossmint};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mock = MockCrossmint::start().await;
//! # let auth = CrossmintAuth::new(mock.config().build()?);
//! # let request = HeaderMap::from_iter([(http::header::COOKIE, mock.sign_in("alice").cookie_header().parse()?)]);
//! # let response = logout(State(auth), request).await.into_response();
//! # assert_eq!((response.status().as_u16(), mock.calls(Endpoint::Logout)), (303, 1));
//! # assert!(response.headers().get_all("set-cookie").iter().count() >= 2);
//! # Ok(())
//! # }
//! ```
//!
//! Make it a `POST` route and protect it as described in [`security`](super::security#requests-from-other-sites):
//! another site must not be able to call it.
//!
//! # What behaves differently
//!
//! | TypeScript SDK | this crate | reason |
//! | --- | --- | --- |
//! | fetches the key set for every verification | caches it, reloads it in the background, and when a JWT names an unknown key | speed; an outage at Crossmint does not affect valid sessions |
//! | does not check `aud` | requires the project's ID | a user of another project must not be let in |
//! | two requests with one expired JWT refresh twice | one refresh, whose result all of them get | with rotating refresh tokens, the second refresh ends the session |
//! | a client that disconnects loses the new token | the refresh completes, and its result is kept for the client's next request | the same |
//! | any verification error triggers a refresh | no refresh while the key set cannot be loaded | an outage must not use up refresh tokens |
//! | a rejected request calls Crossmint's logout | it only clears the cookies | a 401 by mistake must not revoke the session |
//! | unscoped cookie names | names with the project's ID; unscoped cookies are still read | the browser SDK looks for these since version 1.3; [`CookieNames::Unscoped`](crate::CookieNames::Unscoped) keeps the old ones |
//! | reads a cookie's value up to the next `=` | reads all of it | tokens may contain `=` |
//! | uses one of two cookies with the same name | rejects a request whose cookies differ | a sibling subdomain may have planted one |
//! | accepts any method, origin and content type at the two routes | accepts only `POST`, no requests from other sites, and a token in the body only as `application/json` | forms on other sites could sign users out, or in as somebody else |
//! | answers every failure of the refresh route with 401 and clears the cookies | 400, 403, 405, 408, 413 and 415 keep the cookies | a malformed request says nothing about the session |
//! | passes Crossmint's error texts to the browser | fixed messages; the cause is the [`AuthError`](crate::AuthError)'s source | error texts are for logs |
//! | sets cookies only if it is given a `response` | always sets them | |
