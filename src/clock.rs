//! The wall clock, by which tokens and cookies expire. Everything else is timed by tokio's clock, which does not jump.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

/// Returns the time of this machine's wall clock, which may be wrong.
#[inline]
pub(crate) fn now() -> SystemTime {
    #[cfg(test)]
    return tests::shifted(SystemTime::now());
    #[cfg(not(test))]
    SystemTime::now()
}

/// Returns the same in seconds since 1970. With a clock before 1970, every token has expired.
pub(crate) fn unix_seconds() -> u64 {
    now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}

/// Tells the time by both clocks from one reading of tokio's, because a reading takes as long as the search for a
/// cookie.
pub(crate) struct Clock {
    epoch: Instant,
    /// When the wall clock was read, in nanoseconds since `epoch`, and what it showed, in nanoseconds since 1970.
    read_at: AtomicU64,
    unix_epoch: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { epoch: Instant::now(), read_at: AtomicU64::new(u64::MAX / 2), unix_epoch: AtomicU64::new(0) }
    }

    /// Returns the time by tokio's clock, in nanoseconds since this was created.
    pub(crate) fn elapsed(&self) -> u64 {
        nanos(self.epoch.elapsed())
    }

    /// Returns the time by the wall clock at an [`elapsed`](Self::elapsed) time that is now, in seconds since 1970.
    ///
    /// A step of the wall clock is noticed after a second.
    pub(crate) fn unix_seconds(&self, elapsed: u64) -> u64 {
        // Also if tokio's clock is behind: a runtime may have paused it.
        if elapsed.wrapping_sub(self.read_at.load(Ordering::Acquire)) >= MAX_AGE {
            return self.read_wall_clock();
        }
        self.unix_epoch.load(Ordering::Relaxed).wrapping_add(elapsed) / NANOS_PER_SECOND
    }

    // Out of line: once a second.
    #[cold]
    fn read_wall_clock(&self) -> u64 {
        // One right after the other.
        let (elapsed, now) = (self.elapsed(), now());
        let Ok(unix) = now.duration_since(UNIX_EPOCH) else { return u64::MAX };
        self.unix_epoch.store(nanos(unix).wrapping_sub(elapsed), Ordering::Relaxed);
        // Last, with `Release`: whoever sees the time of a reading sees the reading.
        self.read_at.store(elapsed, Ordering::Release);
        unix.as_secs()
    }
}

/// Five centuries fit.
pub(crate) fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(NANOS_PER_SECOND).saturating_add(duration.subsec_nanos().into())
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The age at which a reading of the wall clock is repeated.
const MAX_AGE: u64 = NANOS_PER_SECOND;

#[cfg(test)]
mod tests;
