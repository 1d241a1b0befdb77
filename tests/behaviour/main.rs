//! What the layer does, sentence by sentence, over real HTTP against the mock.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod config;
mod cookies;
#[path = "../../src/corpus.rs"]
mod corpus;
mod csrf;
mod direct;
mod events;
mod extractor;
mod grpc;
mod handle;
mod hang_up;
mod keys;
mod logout_route;
mod matrix;
mod operations;
mod outage;
mod placement;
mod refresh_route;
mod rejections;
mod renewal;
mod security;
mod session;
mod support;
mod tower;
mod unauthenticated;
