//! What the tests have in common.

pub(crate) mod answer;
pub(crate) mod app;
pub(crate) mod browser;
pub(crate) mod clock;
pub(crate) mod direct;
pub(crate) mod events;
pub(crate) mod gate;
pub(crate) mod mock;
pub(crate) mod signer;
