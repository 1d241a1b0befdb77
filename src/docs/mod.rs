//! Guides: everything that is longer than the documentation of one item.
//!
//! | guide | answers |
//! | --- | --- |
//! | [`options`] | Which options are there, what is each one's default, and when should it change? |
//! | [`placement`] | Where does the layer go in an axum router? |
//! | [`rejections`] | What does a request without a session get, and how is that worded, logged or turned into a redirect? |
//! | [`api`] | How are bearer tokens accepted, and how are claims and roles required? |
//! | [`spa`] | How does a single-page application sign in, and what does the browser need? |
//! | [`html`] | How do server-rendered pages redirect, sign in and sign out? |
//! | [`handle`] | How is [`CrossmintAuth`](crate::CrossmintAuth) used without the layer? |
//! | [`migration`] | What replaces each call of `@crossmint/server-sdk`, and what behaves differently? |
//! | [`security`] | What does the layer protect, and what is left to the application? |
//! | [`operations`] | Which events, counters and limits does it have, and how is it shut down? |
//! | [`grpc`] | What is different in a tonic server? |
//! | [`streams`] | How do WebSockets and server-sent events end with the session? |
//! | [`tenants`] | How does one server serve several Crossmint projects? |
//! | [`testing`] | How is an application tested, without a network? |
//! | [`comparison`] | What do axum-login, axum-oidc, Auth.js and Clerk have? |
//! | [`architecture`] | How is the crate built? For contributors. |
//!
//! The threat model, its evidence and the load figures are in `SECURITY.md`, the measurements in `benches/README.md`.
//!
//! These modules contain text and compiled examples only, and add nothing to a build.

pub mod api;
pub mod architecture;
pub mod comparison;
pub mod grpc;
pub mod handle;
pub mod html;
pub mod migration;
pub mod operations;
pub mod options;
pub mod placement;
pub mod rejections;
pub mod security;
pub mod spa;
pub mod streams;
pub mod tenants;
pub mod testing;
