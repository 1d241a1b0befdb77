//! A rate limit for events that clients can cause.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Permits one event a minute.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<Option<Instant>>);

impl Throttle {
    #[cfg(feature = "axum")]
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn is_due(&self) -> bool {
        // Locked by rare events only, and only for a comparison.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= PERIOD);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

/// Logs an event at this level if the throttle permits it, and otherwise at `DEBUG`.
macro_rules! throttled {
    ($throttle:expr, $level:ident, $($event:tt)+) => {
        if $throttle.is_due() {
            tracing::$level!($($event)+);
        } else {
            tracing::debug!($($event)+);
        }
    };
}
pub(crate) use throttled;

const PERIOD: Duration = Duration::from_secs(60);
