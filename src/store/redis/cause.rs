//! What is reported of a failure.

use std::{error::Error, fmt, sync::Arc};

use crate::store::interface::Unreachable;

/// Why the store is unreachable, for people. Contains no secret.
#[derive(Clone, Debug)]
pub(super) struct Cause(Arc<str>);

impl Cause {
    pub(super) fn new(why: impl Into<Arc<str>>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Cause {}

impl From<Cause> for Unreachable {
    fn from(cause: Cause) -> Self {
        Self(Box::new(cause))
    }
}
