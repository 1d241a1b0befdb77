//! The JWTs of sessions that have signed out, until they expire.
//!
//! Verified tokens and others are recorded apart, so that junk evicts no verified one. The memory is not on the path of
//! cached sessions: a token that is recorded is removed from the cache.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::PoisonError,
};

use aws_lc_rs::digest::{SHA256, digest};

use super::token_cache::{Tail, tail};
use crate::sync::{Mutex, MutexGuard};

/// Bounded in number. Locked for a look-up and an insertion into the cache, and only by requests that verify a signature
/// or sign out.
#[derive(Default)]
pub(crate) struct RevokedTokens(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    here: Expiring<Tail>,
    /// Of tokens whose key was not loaded when they were revoked, oldest first.
    unverified: VecDeque<Tail>,
    /// Of tokens that were revoked at other replicas.
    elsewhere: Expiring<Digest>,
}

/// A bounded set, whose members are dropped when they expire.
struct Expiring<K> {
    members: HashSet<K>,
    /// The same ones, the next to expire first.
    expiries: BTreeSet<(u64, K)>,
}

/// The start of a digest of a token's end.
pub(super) type Digest = [u8; 16];

/// Names a token to other replicas, without anything of the token in it.
pub(super) fn digest_of(token: &[u8]) -> Option<Digest> {
    let digest = digest(&SHA256, &tail(token)?.to_le_bytes());
    digest.as_ref().first_chunk().copied()
}

impl RevokedTokens {
    pub(super) fn contains(&self, token: &[u8]) -> bool {
        self.entries().contains(token)
    }

    /// Calls `accept` unless a token is recorded. None is recorded meanwhile.
    pub(super) fn unless_revoked(&self, token: &[u8], accept: impl FnOnce()) {
        let entries = self.entries();
        if !entries.contains(token) {
            accept();
        }
    }

    /// Records a verified token until `expires_at`. Returns whether another one was evicted before its time.
    pub(super) fn insert(&self, token: &[u8], expires_at: u64, now: u64) -> bool {
        tail(token).is_some_and(|tail| self.entries().here.insert(tail, expires_at, now))
    }

    /// Records a token that may turn out to be valid once its key is loaded.
    ///
    /// Returns whether another one was evicted.
    pub(super) fn insert_unverified(&self, token: &[u8]) -> bool {
        let Some(tail) = tail(token) else { return false };
        let mut entries = self.entries();
        if entries.unverified.contains(&tail) {
            return false;
        }
        entries.unverified.push_back(tail);
        let is_full = entries.unverified.len() > MAX_UNVERIFIED;
        if is_full {
            entries.unverified.pop_front();
        }
        is_full
    }

    /// Records tokens that were revoked at other replicas. Returns whether another one was evicted before its time.
    pub(super) fn insert_remote(&self, revoked: &HashMap<Digest, u64>, now: u64) -> bool {
        let elsewhere = &mut self.entries().elsewhere;
        let revoked = revoked.iter().filter(|(_, expires_at)| **expires_at > now);
        revoked.fold(false, |evicts, (digest, expires_at)| elsewhere.insert(*digest, *expires_at, now) | evicts)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn contains(&self, token: &[u8]) -> bool {
        let is_revoked_elsewhere = || {
            let members = &self.elsewhere.members;
            !members.is_empty() && digest_of(token).is_some_and(|digest| members.contains(&digest))
        };
        tail(token).is_some_and(|tail| self.here.members.contains(&tail) || self.unverified.contains(&tail))
            || is_revoked_elsewhere()
    }
}

impl<K: Copy + Eq + Hash + Ord> Expiring<K> {
    /// Returns whether one was evicted before its time.
    fn insert(&mut self, member: K, expires_at: u64, now: u64) -> bool {
        while self.expiries.first().is_some_and(|(expires_at, _)| *expires_at <= now) {
            self.evict_first();
        }
        if !self.members.insert(member) {
            return false;
        }
        self.expiries.insert((expires_at, member));
        let is_full = self.members.len() > MAX_REVOKED;
        if is_full {
            // The one that will be harmless soonest.
            self.evict_first();
        }
        is_full
    }

    fn evict_first(&mut self) {
        if let Some((_, member)) = self.expiries.pop_first() {
            self.members.remove(&member);
        }
    }
}

impl<K> Default for Expiring<K> {
    fn default() -> Self {
        Self { members: HashSet::new(), expiries: BTreeSet::new() }
    }
}

/// About 8 MiB: 27 logouts a second with JWTs that are valid for an hour.
pub(super) const MAX_REVOKED: usize = 100_000;
/// Scanned by every verification: enough for the logouts of a server that has just started.
const MAX_UNVERIFIED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: usize) -> String {
        format!("header.claims.signature-{number:016}")
    }

    #[test]
    fn a_token_is_recorded_until_it_expires() {
        let revoked = RevokedTokens::default();
        let [first, second] = [token(1), token(2)];
        assert!(!revoked.insert(first.as_bytes(), 100, 0));
        assert!(!revoked.insert(first.as_bytes(), 100, 0), "once is enough");
        assert!(revoked.contains(first.as_bytes()) && !revoked.contains(second.as_bytes()));
        assert!(!revoked.insert(second.as_bytes(), 200, 100));
        assert!(!revoked.contains(first.as_bytes()) && revoked.contains(second.as_bytes()));
        let entries = revoked.entries();
        assert_eq!((entries.here.members.len(), entries.here.expiries.len()), (1, 1));
    }

    #[test]
    fn it_is_bounded_and_evicts_what_expires_first() {
        let revoked = RevokedTokens::default();
        for number in 0..MAX_REVOKED {
            assert!(!revoked.insert(token(number).as_bytes(), 1_000_000 - number as u64, 0));
        }
        assert!(revoked.insert(token(MAX_REVOKED).as_bytes(), 2_000_000, 0), "an eviction is reported");
        assert_eq!(revoked.entries().here.members.len(), MAX_REVOKED);
        assert!(!revoked.contains(token(MAX_REVOKED - 1).as_bytes()), "it would have expired first");
        assert!(revoked.contains(token(0).as_bytes()) && revoked.contains(token(MAX_REVOKED).as_bytes()));
    }

    #[test]
    fn tokens_revoked_elsewhere_are_recorded_by_digest_and_evict_only_each_other() {
        let revoked = RevokedTokens::default();
        let digest = |number| digest_of(token(number).as_bytes()).unwrap();
        revoked.insert(token(0).as_bytes(), 100, 0);
        assert!(!revoked.insert_remote(&HashMap::from([(digest(1), 100), (digest(2), 200)]), 0));
        assert!(!revoked.insert_remote(&HashMap::from([(digest(1), 900), (digest(3), 50)]), 50), "expired, or known");
        let known = [0, 1, 2, 3].map(|number| revoked.contains(token(number).as_bytes()));
        assert_eq!(known, [true, true, true, false]);
        // Junk that somebody has written into the log.
        let junk = (4..MAX_REVOKED + 4).map(|number| (digest(number), 1_000)).collect();
        assert!(revoked.insert_remote(&junk, 100), "an eviction is reported");
        assert!(!revoked.contains(token(1).as_bytes()), "it has expired");
        assert!(!revoked.contains(token(2).as_bytes()), "it would have expired first");
        assert!(revoked.contains(token(0).as_bytes()) && revoked.contains(token(4).as_bytes()));
        let entries = revoked.entries();
        assert_eq!((entries.elsewhere.members.len(), entries.elsewhere.expiries.len()), (MAX_REVOKED, MAX_REVOKED));
    }

    #[test]
    fn a_digest_contains_nothing_of_its_token() {
        let digest = digest_of(token(7).as_bytes()).unwrap();
        assert!(!token(7).as_bytes().windows(4).any(|part| digest.windows(4).any(|other| other == part)));
        assert_eq!(digest_of(b"short"), None);
    }

    #[test]
    fn unverified_tokens_evict_only_each_other() {
        let revoked = RevokedTokens::default();
        revoked.insert(token(0).as_bytes(), 100, 0);
        for number in 1..=MAX_UNVERIFIED + 1 {
            let is_evicted = revoked.insert_unverified(token(number).as_bytes());
            assert_eq!(is_evicted, number > MAX_UNVERIFIED);
            assert!(!revoked.insert_unverified(token(number).as_bytes()), "the same one again evicts nothing");
        }
        assert!(revoked.contains(token(0).as_bytes()));
        assert!(!revoked.contains(token(1).as_bytes()) && revoked.contains(token(2).as_bytes()));
    }
}
