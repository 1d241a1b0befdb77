//! What the layer does, sentence by sentence, over real HTTP against the mock.
//!
//! The modules are named after those of `src`. `matrix` covers every fault in every state of the layer.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod auth;
mod authorize;
mod config;
mod cookies;
#[path = "../../src/test_support/corpus.rs"]
mod corpus;
mod csrf;
mod jwks;
mod layer;
mod matrix;
mod metrics;
mod refresh;
mod security;
mod stats;
mod support;
mod task_tracker;
mod upstream;
mod verify;
