//! What several unit tests need.

pub(crate) mod corpus;
pub(crate) mod deep;
