//! Counters of what the layer has done, and restraint in saying so.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::grace::Digest;
use crate::error::AuthErrorKind;

/// What a [`CrossmintAuth`](crate::CrossmintAuth) and its layers have done since they were made.
///
/// Each number only grows: export them as counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// JWTs that were found among the verified ones.
    pub cache_hits: u64,
    /// Signatures that were checked.
    pub verifications: u64,
    /// Key sets that were loaded.
    pub reloads: u64,
    /// Attempts to load a key set that failed.
    pub failed_reloads: u64,
    /// Refresh tokens that were sent to Crossmint.
    pub renewals: u64,
    /// Requests that waited for a renewal which another one had started.
    pub joined: u64,
    /// Requests with a spent refresh token that were served from its successor.
    pub successor_hits: u64,
    /// Rotated refresh tokens that were forgotten before their grace period had passed, for want of memory
    /// ([`rotation_grace_bytes`](crate::CrossmintAuthConfigBuilder::rotation_grace_bytes)). A request that still carries
    /// one ends its session.
    pub evicted_successors: u64,
    /// How often Crossmint refused several refresh tokens without accepting one in between
    /// ([`refusal_warning`](crate::CrossmintAuthConfigBuilder::refusal_warning)). The API key may be revoked.
    pub refusal_runs: u64,
    refusals: [u64; AuthErrorKind::ALL.len()],
}

impl Stats {
    /// Returns how many requests had no session, or got no answer of the two routes, for each reason. The `Debug` form
    /// of a kind is a good label.
    ///
    /// Under [`Unauthenticated::Allow`](crate::Unauthenticated::Allow), they count although they were let through.
    pub fn refusals(&self) -> impl Iterator<Item = (AuthErrorKind, u64)> {
        AuthErrorKind::ALL.into_iter().zip(self.refusals)
    }
}

/// The counters behind [`Stats`], but for the cache's own.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) verifications: Counter,
    pub(super) reloads: Counter,
    pub(super) failed_reloads: Counter,
    pub(super) renewals: Counter,
    pub(super) joined: Counter,
    pub(super) successor_hits: Counter,
    pub(super) evicted_successors: Counter,
    pub(super) refusal_runs: Counter,
    refusals: [Counter; AuthErrorKind::ALL.len()],
}

impl Counters {
    pub(super) fn refusal(&self, kind: AuthErrorKind) {
        self.refusals[kind as usize].count();
    }

    pub(super) fn read(&self, cache_hits: u64) -> Stats {
        Stats {
            cache_hits,
            verifications: self.verifications.read(),
            reloads: self.reloads.read(),
            failed_reloads: self.failed_reloads.read(),
            renewals: self.renewals.read(),
            joined: self.joined.read(),
            successor_hits: self.successor_hits.read(),
            evicted_successors: self.evicted_successors.read(),
            refusal_runs: self.refusal_runs.read(),
            refusals: std::array::from_fn(|index| self.refusals[index].read()),
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn count(&self) {
        self.add(1);
    }

    pub(super) fn add(&self, times: usize) {
        self.0.fetch_add(times as u64, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Notices when Crossmint refuses one refresh token after the other: a wrong API key looks like that.
#[derive(Debug)]
pub(super) struct RefusalRun {
    threshold: usize,
    refused: Mutex<HashSet<Digest>>,
}

impl RefusalRun {
    pub(super) fn new(threshold: usize) -> Self {
        Self { threshold, refused: Mutex::default() }
    }

    /// Tells whether this refusal completes a run. One token counts once; the next run starts with the next refusal.
    pub(super) fn is_suspicious(&self, token: Digest) -> bool {
        let mut refused = self.refused();
        refused.insert(token);
        let is_complete = refused.len() >= self.threshold;
        if is_complete {
            refused.clear();
        }
        is_complete
    }

    /// Ends the run: Crossmint has accepted a token.
    pub(super) fn end(&self) {
        self.refused().clear();
    }

    fn refused(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets one event a minute through.
#[derive(Debug)]
pub(crate) struct Throttle(Mutex<Option<Instant>>);

impl Throttle {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= LOG_PAUSE);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

const LOG_PAUSE: Duration = Duration::from_secs(60);
