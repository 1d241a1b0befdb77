//! Counters of what the layer has done.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::AuthErrorKind;

/// What a [`CrossmintAuth`](crate::CrossmintAuth) and its layers have done since they were created.
///
/// Each number only grows: export them as counters.
///
/// ```
/// use tower_crossmint_auth::CrossmintAuth;
///
/// fn export(auth: &CrossmintAuth, mut counter: impl FnMut(&str, String, u64)) {
///     let stats = auth.stats();
///     counter("crossmint_refreshes_total", String::new(), stats.refreshes);
///     for (kind, count) in stats.rejections() {
///         counter("crossmint_rejections_total", format!("{kind:?}"), count);
///     }
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// JWTs that were found in the cache of verified ones.
    pub cache_hits: u64,
    /// Signatures that were verified.
    pub verifications: u64,
    /// Key sets that were loaded.
    pub reloads: u64,
    /// Attempts to load a key set that failed.
    pub failed_reloads: u64,
    /// Refresh tokens that were sent to Crossmint.
    pub refreshes: u64,
    /// Requests that waited for a refresh which another request had started.
    pub joined: u64,
    /// Requests with a rotated refresh token that were served during its grace period.
    pub grace_hits: u64,
    /// Refresh tokens whose rotation was evicted before its grace period had passed, for want of memory
    /// ([`rotation_grace_bytes`](crate::CrossmintAuthConfigBuilder::rotation_grace_bytes)). A request that still carries
    /// one ends its session.
    pub grace_evictions: u64,
    /// How often Crossmint refused several refresh tokens without accepting one in between
    /// ([`refusal_warning`](crate::CrossmintAuthConfigBuilder::refusal_warning)). The API key may be revoked.
    pub refusal_runs: u64,
    rejections: [u64; AuthErrorKind::ALL.len()],
}

impl Stats {
    /// Returns how many requests were rejected, for each reason. The `Debug` form of a kind is a good label.
    ///
    /// Under [`Unauthenticated::Allow`](crate::Unauthenticated::Allow), requests count although they were let through.
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
