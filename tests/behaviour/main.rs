//! What the layer does, sentence by sentence, over real HTTP against the mock.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod cookies;
mod csrf;
mod logout_route;
mod outage;
mod refresh_route;
mod rejections;
mod session;
mod support;
mod unauthenticated;
