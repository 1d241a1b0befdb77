//! Counters of what the layer has done.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::AuthErrorKind;

/// A snapshot of the counters of a [`CrossmintAuth`](crate::CrossmintAuth) and its layers.
///
/// The counters start at zero when the handle is created, and only grow.
/// [`docs::operations`](crate::docs::operations#counters) shows how to export them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// JWTs that were found in the cache of verified tokens.
    pub cache_hits: u64,
    /// Signatures that were checked.
    pub verifications: u64,
    /// Successful loads of the key set.
    pub reloads: u64,
    /// Failed attempts to load the key set.
    pub failed_reloads: u64,
    /// Refresh tokens that were sent to Crossmint.
    pub refreshes: u64,
    /// Requests that joined a refresh in flight.
    pub joined: u64,
    /// Requests with a rotated token that were resolved to its successor.
    pub grace_hits: u64,
    /// Rotated tokens that were evicted before their grace period ended, for lack of memory
    /// ([`rotation_grace_bytes`](crate::CrossmintAuthConfigBuilder::rotation_grace_bytes)). A request that still
    /// carries one ends its session.
    pub grace_evictions: u64,
    /// Runs of refused refresh tokens without an accepted one in between
    /// ([`refusal_warning`](crate::CrossmintAuthConfigBuilder::refusal_warning)). The API key may have been revoked.
    pub refusal_runs: u64,
    rejections: [u64; AuthErrorKind::ALL.len()],
}

impl Stats {
    /// Returns, for each reason, how many requests had no session or were rejected at one of the two routes.
    ///
    /// The `Debug` form of a kind is suitable as a label. Requests that are forwarded under
    /// [`Unauthenticated::Allow`](crate::Unauthenticated::Allow) are counted too.
    pub fn rejections(&self) -> impl Iterator<Item = (AuthErrorKind, u64)> {
        AuthErrorKind::ALL.iter().copied().zip(self.rejections)
    }
}

/// The counters behind [`Stats`], but for the cache's own.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) verifications: Counter,
    pub(crate) reloads: Counter,
    pub(crate) failed_reloads: Counter,
    pub(crate) refreshes: Counter,
    pub(crate) joined: Counter,
    pub(crate) grace_hits: Counter,
    pub(crate) grace_evictions: Counter,
    pub(crate) refusal_runs: Counter,
    rejections: [Counter; AuthErrorKind::ALL.len()],
}

impl Counters {
    pub(crate) fn rejection(&self, kind: AuthErrorKind) {
        self.rejections[kind as usize].count();
    }

    pub(crate) fn read(&self, cache_hits: u64) -> Stats {
        Stats {
            cache_hits,
            verifications: self.verifications.read(),
            reloads: self.reloads.read(),
            failed_reloads: self.failed_reloads.read(),
            refreshes: self.refreshes.read(),
            joined: self.joined.read(),
            grace_hits: self.grace_hits.read(),
            grace_evictions: self.grace_evictions.read(),
            refusal_runs: self.refusal_runs.read(),
            rejections: std::array::from_fn(|index| self.rejections[index].read()),
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, times: usize) {
        // Nothing is ordered by a counter.
        self.0.fetch_add(times as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
