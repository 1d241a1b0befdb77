//! The wall clock, by which tokens and cookies expire. Everything else is timed by tokio's clock, which does not jump.

use std::time::SystemTime;

/// Returns the time of this machine's wall clock, which may be wrong.
#[inline]
pub(crate) fn now() -> SystemTime {
    #[cfg(test)]
    return tests::shifted(SystemTime::now());
    #[cfg(not(test))]
    SystemTime::now()
}

#[cfg(test)]
mod tests;
