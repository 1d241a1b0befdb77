//! The cache of verified JWTs, which spares most requests a signature check.
//!
//! Only verified tokens are cached, so that junk evicts nothing. A hit requires the whole token to be equal; the caller
//! checks expiry and key set.
//!
//! A hit takes no lock. The only memory that it writes to and other threads may use is the session's reference count, and
//! a counter of the application's with the feature `metrics`.

use std::{collections::VecDeque, sync::PoisonError};

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::{
    per_thread::PerThread,
    session::{Session, WeakSession},
    stats::Counter,
    sync::{Mutex, MutexGuard, scheduling_point},
};

/// Sessions by JWT, bounded in bytes.
pub(crate) struct TokenCache {
    /// What is read. Weak, because the table drops what was removed later, in batches, and tokens are to be wiped at once.
    index: papaya::HashMap<Tail, WeakSession, DefaultHashBuilder>,
    /// What is held. Sharded, so that threads rarely contend. An entry changes here and in the index under one lock.
    shards: Box<[Mutex<Entries>]>,
    shard_bytes: usize,
    hits: PerThread<Counter>,
}

struct Entries {
    sessions: HashMap<Tail, Session>,
    /// The same tails, oldest first. A session that takes the place of another of the same JWT is as old as that one.
    ages: VecDeque<Tail>,
    bytes: usize,
}

impl TokenCache {
    /// Creates a cache for about `bytes` of sessions. Zero holds none.
    pub(crate) fn new(bytes: usize, hits: &Counter) -> Self {
        Self {
            // Room for a few, so that the first requests do not allocate tables.
            index: papaya::HashMap::with_capacity_and_hasher(SHARDS, DefaultHashBuilder::default()),
            shards: (0..SHARDS).map(|_| Mutex::new(Entries::new())).collect(),
            shard_bytes: bytes / SHARDS,
            hits: PerThread::new(|| hits.part()),
        }
    }

    /// Returns the session of a token.
    pub(crate) fn get(&self, token: &[u8]) -> Option<Session> {
        scheduling_point();
        // Nothing if the session of this very token is being replaced: then the token is verified again.
        let session = self.index.pin().get(&tail(token)?)?.upgrade()?;
        if session.jwt().as_bytes() != token {
            return None;
        }
        self.hits.own().count();
        Some(session)
    }

    /// Returns the `exp` of a token if it is cached, which does not count as a hit. Waits for changes of its entry.
    pub(crate) fn exp(&self, token: &[u8]) -> Option<u64> {
        let tail = tail(token)?;
        let entries = self.lock(tail);
        entries.sessions.get(&tail).filter(|session| session.jwt().as_bytes() == token).map(Session::exp)
    }

    /// Returns how many tokens have been found.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.iter().map(Counter::read).sum()
    }

    /// Caches a session, and evicts the oldest ones if memory runs short.
    pub(crate) fn insert(&self, session: Session) {
        let bytes = cost(&session);
        let Some(tail) = tail(session.jwt().as_bytes()).filter(|_| bytes <= self.shard_bytes) else { return };
        let mut entries = self.lock(tail);
        let index = self.index.pin();
        index.insert(tail, session.downgrade());
        scheduling_point();
        entries.bytes += bytes;
        match entries.sessions.insert(tail, session) {
            Some(replaced) => entries.bytes -= cost(&replaced),
            None => entries.ages.push_back(tail),
        }
        // Oldest first, not least recently used: a hit must not write. Evicted sessions are verified again.
        while entries.bytes > self.shard_bytes {
            let Some(oldest) = entries.ages.pop_front() else { break };
            index.remove(&oldest);
            entries.take(oldest);
        }
    }

    /// Removes the session of a token.
    pub(crate) fn remove(&self, token: &[u8]) {
        let Some(tail) = tail(token) else { return };
        let mut entries = self.lock(tail);
        scheduling_point();
        self.index.pin().remove(&tail);
        // A scan, but of one shard, and only for a logout.
        if entries.take(tail)
            && let Some(age) = entries.ages.iter().position(|other| *other == tail)
        {
            entries.ages.remove(age);
        }
    }

    /// Removes the sessions of all tokens that match: a pass over the whole cache.
    pub(crate) fn remove_all(&self, matches: impl Fn(&[u8]) -> bool) {
        for shard in &self.shards {
            let tokens: Vec<_> = {
                let entries = shard.lock().unwrap_or_else(PoisonError::into_inner);
                let jwts = entries.sessions.values().map(Session::jwt_secret);
                jwts.filter(|jwt| matches(jwt.as_bytes())).cloned().collect()
            };
            tokens.iter().for_each(|token| self.remove(token.as_bytes()));
        }
    }

    fn lock(&self, tail: Tail) -> MutexGuard<'_, Entries> {
        // The characters of base64 are unevenly spread over the bytes; a sum of several is not.
        let sum: u8 = tail.to_le_bytes()[..4].iter().fold(0, |sum, byte| sum.wrapping_add(*byte));
        self.shards[usize::from(sum) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn new() -> Self {
        Self { sessions: HashMap::with_capacity(3), ages: VecDeque::with_capacity(3), bytes: 0 }
    }

    /// Takes a session out of the table, and returns whether it was there.
    fn take(&mut self, tail: Tail) -> bool {
        let taken = self.sessions.remove(&tail);
        self.bytes -= taken.as_ref().map_or(0, cost);
        taken.is_some()
    }
}

fn cost(session: &Session) -> usize {
    ENTRY_BYTES + session.cost()
}

/// The end of a token's signature: as good as a hash of the token, without reading it all.
///
/// A signature cannot be chosen, so verified tokens do not collide. An unverified token with the same end still has to
/// equal the cached one.
pub(super) type Tail = u128;

pub(super) fn tail(token: &[u8]) -> Option<Tail> {
    token.last_chunk().copied().map(Tail::from_le_bytes)
}

const SHARDS: usize = 16;

/// What an entry takes beside its session: reference counts, its places in the two tables and in the queue of ages.
const ENTRY_BYTES: usize = 208;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        session::{AuthMaterial, RefreshToken, Verified},
        stats::Counters,
    };

    fn cache(bytes: usize) -> TokenCache {
        TokenCache::new(bytes, &Counters::default().cache_hits)
    }

    fn session(jwt: &str) -> Session {
        let verified = Verified { user_id: "alice".into(), expires_at: 0, generation: 0 };
        Session::new(verified, AuthMaterial::new(jwt, RefreshToken::new("r")))
    }

    fn token(number: usize) -> String {
        format!("{number:0>720}{number:0>12}")
    }

    #[test]
    fn a_hit_needs_the_whole_token() {
        let cache = cache(1 << 20);
        let (jwt, twin) = (format!("a{}", "x".repeat(40)), format!("b{}", "x".repeat(40)));
        cache.insert(session(&jwt));
        assert_eq!(cache.get(jwt.as_bytes()).unwrap().jwt(), jwt);
        assert!(cache.get(twin.as_bytes()).is_none());
        assert!(cache.get(b"short").is_none());
    }

    #[test]
    fn it_is_bounded_in_bytes_and_forgets_the_oldest() {
        let cache = cache(SHARDS * 10_000);
        for number in 0..1_000 {
            cache.insert(session(&token(number)));
        }
        assert!(cache.get(token(999).as_bytes()).is_some());
        assert!(cache.get(token(0).as_bytes()).is_none());
        for shard in &cache.shards {
            let shard = shard.lock().unwrap();
            assert!(
                shard.ages.len() == shard.sessions.len()
                    && shard.ages.iter().all(|tail| shard.sessions.contains_key(tail))
            );
            let held: usize = shard.sessions.values().map(cost).sum();
            assert_eq!(shard.bytes, held);
            assert!(held <= 10_000);
        }
    }

    #[test]
    fn what_is_removed_is_gone_and_paid_back() {
        let cache = cache(1 << 20);
        cache.insert(session(&token(1)));
        cache.insert(session(&token(1)));
        cache.remove(token(1).as_bytes());
        cache.remove(token(2).as_bytes());
        assert!(cache.get(token(1).as_bytes()).is_none());
        assert!(cache.shards.iter().all(|shard| {
            let entries = shard.lock().unwrap();
            entries.bytes == 0 && entries.ages.is_empty()
        }));
    }

    #[test]
    fn without_room_it_holds_nothing() {
        let cache = cache(0);
        cache.insert(session(&token(1)));
        assert!(cache.get(token(1).as_bytes()).is_none());
    }
}
