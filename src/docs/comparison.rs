//! What other libraries have, and this one has not; and the reverse.
//!
//! Compared in November 2026, by documentation and source, with the newest versions in the registries: [axum-login]
//! 0.18, [axum-oidc] 0.6 and its pre-release 1.0.0-dev-2, [Auth.js] (`@auth/core` 0.41, the base of the beta of next-auth
//! 5) and Clerk's [`@clerk/backend`] 3.25. "–" means that a question does not arise. What we could not verify is left
//! out.
//!
//! # Where the others are better
//!
//! - **Your own users**: axum-login and Auth.js work with the user table and the passwords that you have. Here, users
//!   are Crossmint's.
//! - **A choice of providers**: axum-oidc works with every provider that speaks OpenID Connect, and Auth.js contains
//!   more than eighty. Here, the provider is Crossmint.
//! - **Sign-in pages**: Auth.js and Clerk have them. Here, Crossmint's browser SDK signs users in.
//! - **Sessions that end at once, on every replica**: a store in the server can delete them. Here, replicas that share
//!   a store refuse a JWT within a second of its logout; without one, other replicas accept it until it expires.
//! - **Hidden tokens**: with a store in the server, or an encrypted cookie, scripts see no token. Here, they see the
//!   JWT, which the browser SDK needs.
//! - **Support**: Clerk makes its SDK itself. This crate is not made by Crossmint.
//! - **A smaller build**: axum-login brings in neither an HTTP client nor TLS.
//!
//! # Users and sessions
//!
//! | | this crate | axum-login | axum-oidc | Auth.js | Clerk's backend SDK |
//! | --- | --- | --- | --- | --- | --- |
//! | users come from | Crossmint | your implementation of `AuthnBackend`: passwords, OAuth | one OpenID Connect provider | OAuth and OpenID Connect, e-mail, passkeys, credentials of your own | Clerk |
//! | sign-in pages | Crossmint's browser SDK | your own | the provider's | built in | Clerk's, and components |
//! | maintained by the provider | no | – | – | – | yes |
//! | the session is kept in | two cookies: JWT and refresh token | a store in the server (tower-sessions) | a store in the server: tower-sessions, or in 1.0.0-dev-2 one of your own | an encrypted JWT in a cookie, or a database | a short-lived JWT in a cookie |
//! | work for each request | a look-up in the cache of verified JWTs | the session from the store, the user from your backend | the session from the store, a signature check | decryption, and encryption of a new cookie where the session is read; or a database query | a signature check |
//! | an expired session | is refreshed | has ended | is refreshed | is prolonged with each use; tokens of the provider are refreshed by your code | is refreshed for a `GET` with Clerk's refresh cookie; otherwise, navigations are redirected to Clerk |
//! | parallel requests with an expired session | one refresh per session, across replicas that share a store, otherwise per process; a grace period for late requests | – | one refresh for each request | your code's task; its guide names the race | one refresh for each request |
//! | a session ends at once | in the process that revokes it, and within a second on replicas that share a store; elsewhere, its JWT is accepted until it expires | yes, everywhere; also when the user's `session_auth_hash` changes | yes, everywhere | with a database; a JWT is accepted until it expires | when its JWT expires |
//!
//! # Tokens
//!
//! | | this crate | axum-login | axum-oidc | Auth.js | Clerk's backend SDK |
//! | --- | --- | --- | --- | --- | --- |
//! | signing keys | cached, reloaded in the background; unknown keys cause at most one reload per 30 s | – | loaded at the start; in 1.0.0-dev-2 again when you call `rediscover` | – (keys are derived from its own secret) | cached for five minutes, fetched for each unknown key; or one key in the options |
//! | algorithms | RS256 | – | RS256 | A256CBC-HS512, A256GCM | RS256, RS384, RS512 |
//! | audience | the project's ID | – | the client's ID | – | `azp` and `aud`, if you set `authorizedParties` and `audience` |
//! | bearer tokens | Crossmint's JWTs, if enabled | no | no | its own JWTs, by `getToken` | session, machine and OAuth tokens, API keys |
//! | roles and permissions | claims of the JWT, by [`Claims<T>`](crate::Claims) | of users and groups, from your `AuthzBackend`; `permission_required!` | claims of the ID token | what your callbacks put into the session | organizations, roles, permissions |
//!
//! # Requests
//!
//! | | this crate | axum-login | axum-oidc | Auth.js | Clerk's backend SDK |
//! | --- | --- | --- | --- | --- | --- |
//! | frameworks | every Tower service: axum, tonic, hyper | axum | axum | Next.js, SvelteKit, SolidStart, Qwik, Express | whatever has the `Request` of the Fetch API |
//! | gRPC | statuses and metadata | no | no | no | no |
//! | forged requests from other sites | rejected at the two routes, by Fetch Metadata and `Origin`; `SameSite=Lax` by default, `Strict` if hardened | `SameSite=Strict` by default | `state`, nonce and PKCE at the login; `SameSite=Strict` by default in 0.6 | a token for its own routes; `state` and PKCE at the login; `SameSite=Lax` | `SameSite=Lax`; `authorizedParties` for tokens of other origins |
//! | WebSocket handshakes from other origins | rejected | not checked | not checked | not checked | not checked |
//! | redirect to a login page | of navigations; others get 401 | of all requests, by `login_required!` | of all requests, to the provider | by the SDKs for frameworks | by the SDKs for frameworks |
//! | the way back | [`LoginPage::local_path`](crate::LoginPage::local_path) checks `return_to` against open redirects | `next`, which you check | the requested page | own origin only, unless your callback decides otherwise | by the SDKs for frameworks |
//!
//! # Operation
//!
//! | | this crate | axum-login | axum-oidc | Auth.js | Clerk's backend SDK |
//! | --- | --- | --- | --- | --- | --- |
//! | an outage at the provider | valid sessions are not affected; the others end, or get 503 and are kept | – (an error of the store or backend is 500) | valid sessions are not affected; a failed refresh is an error for your `HandleErrorLayer` | signed-in users are not affected | a valid JWT is accepted if its key is cached or set; after that, navigations are redirected to Clerk |
//! | tests of an application | a mock of the provider with faults, and a browser | a store in memory | nothing of its own | its guide: Keycloak, or a login with credentials | `@clerk/testing`, against Clerk's own service |
//! | metrics | yes | no; spans | no | no; callbacks for events | no; telemetry for Clerk, which can be disabled |
//! | packages in a build | 121 crates | 84 crates | 207 crates, 194 in 1.0.0-dev-2 | 6 from npm | 10 from npm |
//! | licence | MIT or Apache-2.0 | MIT | LGPL-3.0-or-later, MPL-2.0 in 1.0.0-dev-2 | ISC | MIT |
//!
//! The crates are those of an application with axum 0.8 (47 crates) and the library with its default features, here
//! `axum`, counted by `cargo tree -e no-dev` on Linux.
//!
//! # Which one?
//!
//! Choose axum-login if your users are in your own database, or if sessions have to end everywhere at once. Choose
//! axum-oidc if your provider speaks OpenID Connect: Crossmint's refresh is an API of its own. With Auth.js or Clerk's
//! SDK, the server is written in JavaScript; the project of Auth.js has joined [Better Auth], and recommends that to
//! most new projects. This crate is for Rust servers whose users sign in with Crossmint.
//!
//! [axum-login]: https://docs.rs/axum-login/0.18.0
//! [axum-oidc]: https://docs.rs/axum-oidc/0.6.0
//! [Auth.js]: https://authjs.dev
//! [`@clerk/backend`]: https://clerk.com/docs/references/backend/overview
//! [Better Auth]: https://better-auth.com/blog/authjs-joins-better-auth
