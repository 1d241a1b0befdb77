//! Refresh tokens that are not sent again for a while, and why.

use std::time::Duration;

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
        Self(LruCache::unbounded())
    }

    /// Returns why a token is not sent now, and for how long.
    pub(crate) fn get(&self, digest: &Digest, now: Instant) -> Option<AuthError> {
        let entry = self.0.peek(digest).filter(|entry| entry.until > now)?;
        Some(entry.error.clone().with_retry_after(Some(entry.until - now)))
    }

    /// Records what a failure says about the next attempt to send `next`, where `digest` was sent. Returns for how long
    /// that has to wait, if the answer was unusable.
    pub(crate) fn insert(&mut self, digest: Digest, next: Digest, error: &AuthError, now: Instant) -> Option<Duration> {
        let before = self.remove(&digest);
        let (pause, unusable_answers) = match error.kind() {
            AuthErrorKind::Refused => (MIN_REFUSAL, 0),
            AuthErrorKind::UnusableAnswer => (pause(before), before.saturating_add(1)),
            AuthErrorKind::RateLimited => (error.retry_after(), 0),
            _ => return None,
        };
        self.put(next, Entry { error: error.clone(), until: now + pause, unusable_answers });
        (error.kind() == AuthErrorKind::UnusableAnswer).then_some(pause)
    }

    /// Refuses a token until then.
    pub(crate) fn refuse(&mut self, digest: Digest, until: Instant) {
        self.put(digest, Entry { error: AuthError::of(AuthErrorKind::Refused), until, unusable_answers: 0 });
    }

    /// Removes a token, and returns how many unusable answers in a row it has had.
    pub(crate) fn remove(&mut self, digest: &Digest) -> u32 {
        self.0.pop(digest).map_or(0, |entry| entry.unusable_answers)
    }

    /// Evicts entries whose time has passed: as many as one operation adds, and one more.
    pub(crate) fn evict_expired(&mut self, now: Instant) {
        for _ in 0..2 {
            // The number of unusable answers is worth remembering beyond the pause.
            let is_old = |entry: &Entry| entry.until + pause(entry.unusable_answers) <= now;
            if self.0.peek_lru().is_some_and(|(_, entry)| is_old(entry)) {
                self.0.pop_lru();
            }
        }
    }

    fn put(&mut self, digest: Digest, entry: Entry) {
        self.0.put(digest, entry);
        // Anonymous clients can fill the cache with tokens that Crossmint refuses.
        if self.0.len() > MAX_ENTRIES {
            self.0.pop_lru();
        }
    }
}

/// Returns for how long a token is not sent after so many unusable answers, and one more.
fn pause(unusable_answers: u32) -> Duration {
    MIN_PAUSE.saturating_mul(1 << unusable_answers.min(5)).min(MAX_PAUSE)
}

/// For how long a refused token is refused without a call.
pub(crate) const MIN_REFUSAL: Duration = Duration::from_secs(30);

pub(crate) const MIN_PAUSE: Duration = Duration::from_secs(1);
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(30);
const MAX_ENTRIES: usize = 10_000;

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
        for number in 0..=MAX_ENTRIES {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            cache.refuse(digest, until);
        }
        assert_eq!(cache.len(), MAX_ENTRIES);
    }
}
