//! What other libraries have, and this one has not; and the reverse.
//!
//! Compared in November 2026 with [axum-login] 0.18, [axum-oidc] 1.0.0-dev-2, [Auth.js] (`@auth/core` 0.41) and Clerk's
//! [`@clerk/backend`] 3.25, by their documentation, and the Rust crates by their source as well. Where a cell is empty,
//! we have not found out.
//!
//! | | this crate | axum-login | axum-oidc | Auth.js | Clerk's backend SDK |
//! | --- | --- | --- | --- | --- | --- |
//! | users come from | Crossmint only | your own backend: a database, LDAP, a provider | any OpenID Connect provider | dozens of providers, e-mail, credentials | Clerk only |
//! | maintained by the provider | no | – | – | – | yes |
//! | sign-in pages and components | none; Crossmint's browser SDK | none | the provider's | yes | yes |
//! | sessions | JWT and refresh token in cookies | tower-sessions: a store in the server | tower-sessions: a store in the server | encrypted JWT, or a database | JWT in a cookie |
//! | a session ends at once, everywhere | no: in the process that handled the logout; elsewhere when the JWT expires | yes, it is deleted from the store | yes, it is deleted from the store | with a database, yes | no, when the JWT expires after a minute |
//! | calls per request | none | the session store, and the user from your backend | the session store | none, or the database | none with the public key |
//! | refresh with a rotating token | once per session and process, with a grace period | does not apply | in each request that finds the session expired | by hand; its guide names the race | does not apply: the browser fetches the JWTs |
//! | forged requests from other sites | its two routes and WebSocket handshakes; your forms are left to another layer | left to another layer and the cookie's `SameSite` | `state` and nonce of the login | its own routes, by a token | `authorizedParties` |
//! | redirect to a login page and back | yes, with a check for open redirects | yes | yes, to the provider | yes | yes, in the SDKs for frameworks |
//! | bearer tokens | JWTs of Crossmint | no | no | no | session, machine and OAuth tokens, API keys |
//! | roles and permissions | `Claims<T>`: what is in the JWT | `AuthzBackend`: users and groups from your backend | claims of the ID token | callbacks | organizations, roles, permissions |
//! | frameworks | every tower service: axum, tonic, hyper | axum | axum | Next.js, SvelteKit, Express and others | every JavaScript runtime |
//! | an outage at the provider | valid sessions are not affected; policy for the rest | does not apply | valid sessions are not affected | | valid sessions are not affected with the public key |
//! | a mock for tests | yes, with a browser | a store in memory | no | no | testing tokens for its own service |
//! | metrics | yes | no | no | no | telemetry for the vendor |
//! | crates in a build with axum, axum's included | 116 | 78 | 193 | | |
//!
//! Choose axum-login if your users are in your own database, or if a session has to end everywhere at once. Choose
//! axum-oidc if your provider speaks OpenID Connect: Crossmint's refresh is an API of its own. With Auth.js or Clerk,
//! the server is written in JavaScript. This crate is for Rust servers whose users sign in with Crossmint.
//!
//! [axum-login]: https://docs.rs/axum-login
//! [axum-oidc]: https://docs.rs/axum-oidc
//! [Auth.js]: https://authjs.dev
//! [`@clerk/backend`]: https://clerk.com/docs/references/backend/overview
