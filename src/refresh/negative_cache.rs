//! Refresh tokens that are not sent again for a while, and why.

use std::{num::NonZeroUsize, time::Duration};

use lru::LruCache;
use tokio::time::Instant;

use super::digest::Digest;
use crate::error::{AuthError, AuthErrorKind};

/// Failures by refresh token, bounded in number.
pub(crate) struct NegativeCache(LruCache<Digest, Entry>);

struct Entry {
    error: AuthError,
    until: Instant,
    /// How many unusable answers there were in a row.
    unusable_answers: u32,
}

impl NegativeCache {
    pub(crate) fn new() -> Self {
        // Grows as needed: a cache that is created with a bound allocates all of it.
        let mut entries = LruCache::unbounded();
        entries.resize(MAX_ENTRIES);
        Self(entries)
    }

    /// Returns why a token is not sent now, and for how long.
    pub(crate) fn get(&self, digest: &Digest, now: Instant) -> Option<AuthError> {
        let entry = self.0.peek(digest).filter(|entry| entry.until > now)?;
        Some(entry.error.clone().with_retry_after(Some(entry.until - now)))
    }

    /// Records a failure to refresh `digest`, which delays the next attempt to send `next`. Returns the error, with
    /// the delay if the answer was unusable.
    pub(crate) fn insert(&mut self, digest: Digest, next: Digest, error: AuthError, now: Instant) -> AuthError {
        let before = self.remove(&digest);
        let (pause, unusable_answers) = match error.kind() {
            AuthErrorKind::Refused => (MIN_REFUSAL, 0),
            AuthErrorKind::UnusableAnswer => (pause(before), before.saturating_add(1)),
            AuthErrorKind::RateLimited => (error.retry_after(), 0),
            _ => return error,
        };
        let error = if unusable_answers > 0 { error.with_retry_after(Some(pause)) } else { error };
        self.0.put(next, Entry { error: error.clone(), until: now + pause, unusable_answers });
        error
    }

    /// Refuses a token until `until`.
    pub(crate) fn refuse(&mut self, digest: Digest, until: Instant) {
        self.0.put(digest, Entry { error: AuthError::of(AuthErrorKind::Refused), until, unusable_answers: 0 });
    }

    /// Removes a token, and returns how many unusable answers in a row it has had.
    pub(crate) fn remove(&mut self, digest: &Digest) -> u32 {
        self.0.pop(digest).map_or(0, |entry| entry.unusable_answers)
    }

    /// Evicts entries whose time has passed: as many as one operation adds, and one more.
    pub(crate) fn evict_expired(&mut self, now: Instant) {
        for _ in 0..2 {
            // The next pause depends on the number of unusable answers, which is kept for some time after this one.
            if self.0.peek_lru().is_some_and(|(_, entry)| entry.until + pause(entry.unusable_answers) <= now) {
                self.0.pop_lru();
            }
        }
    }
}

/// Returns the pause after another unusable answer.
fn pause(unusable_answers: u32) -> Duration {
    MIN_PAUSE.saturating_mul(1 << unusable_answers.min(5)).min(MAX_PAUSE)
}

/// For how long a refused token is refused without a call.
pub(crate) const MIN_REFUSAL: Duration = Duration::from_secs(30);

pub(crate) const MIN_PAUSE: Duration = Duration::from_secs(1);
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Anonymous clients can fill the cache with tokens that Crossmint refuses.
const MAX_ENTRIES: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");

#[cfg(test)]
mod tests {
    use super::*;

    impl NegativeCache {
        pub(crate) fn len(&self) -> usize {
            self.0.len()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.0.is_empty()
        }
    }

    #[test]
    fn it_is_bounded() {
        let mut cache = NegativeCache::new();
        let until = Instant::now() + MIN_REFUSAL;
        for number in 0..=MAX_ENTRIES.get() {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            cache.refuse(digest, until);
        }
        assert_eq!(cache.len(), MAX_ENTRIES.get());
    }
}
