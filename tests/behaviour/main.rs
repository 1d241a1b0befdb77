//! What the layer does, sentence by sentence, over real HTTP against the mock.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod config;
mod direct;
mod handle;
mod keys;
mod placement;
mod renewal;
mod session;
mod support;
mod tower;
