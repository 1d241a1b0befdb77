//! The sessions whose JWTs have been verified: what makes a request cheap.
//!
//! Only verified tokens get in, so that nobody can crowd out others with junk. A hit needs the whole token to be equal;
//! the caller checks expiry and key set.

use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use lru::LruCache;

use crate::session::Session;

/// A cache bounded in bytes, split so that threads rarely meet.
#[derive(Debug)]
pub(crate) struct Tokens {
    shards: Box<[Shard]>,
    shard_bytes: usize,
}

#[derive(Debug)]
struct Shard {
    entries: RwLock<Entries>,
    /// Counted here, where a thread has been anyway, and not in one place for all.
    hits: AtomicU64,
}

#[derive(Debug)]
struct Entries {
    sessions: LruCache<Tail, Session>,
    bytes: usize,
}

impl Tokens {
    /// Creates a cache for about `bytes` of sessions. Zero holds none.
    pub(crate) fn new(bytes: usize) -> Self {
        let shard = || Shard {
            entries: RwLock::new(Entries { sessions: LruCache::unbounded(), bytes: 0 }),
            hits: AtomicU64::new(0),
        };
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), shard_bytes: bytes / SHARDS }
    }

    /// Finds the session of a token.
    pub(crate) fn find(&self, token: &[u8]) -> Option<Session> {
        let tail = tail(token)?;
        let shard = self.shard(&tail);
        let entries = shard.entries.read().unwrap_or_else(PoisonError::into_inner);
        let session = entries.sessions.peek(&tail).filter(|session| session.jwt().as_bytes() == token)?;
        shard.hits.fetch_add(1, Ordering::Relaxed);
        Some(session.clone())
    }

    /// Returns how many tokens have been found.
    pub(crate) fn hits(&self) -> u64 {
        self.shards.iter().map(|shard| shard.hits.load(Ordering::Relaxed)).sum()
    }

    /// Keeps a session, in place of the oldest ones if need be.
    pub(crate) fn insert(&self, session: Session) {
        let cost = ENTRY_BYTES + session.cost();
        let Some(tail) = tail(session.jwt().as_bytes()).filter(|_| cost <= self.shard_bytes) else { return };
        let mut entries = self.shard(&tail).entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.bytes += cost;
        if let Some(replaced) = entries.sessions.put(tail, session) {
            entries.bytes -= ENTRY_BYTES + replaced.cost();
        }
        while entries.bytes > self.shard_bytes {
            let Some((_, oldest)) = entries.sessions.pop_lru() else { break };
            entries.bytes -= ENTRY_BYTES + oldest.cost();
        }
    }

    /// Forgets the session of a token.
    pub(crate) fn remove(&self, token: &[u8]) {
        let Some(tail) = tail(token) else { return };
        let mut entries = self.shard(&tail).entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(removed) = entries.sessions.pop(&tail) {
            entries.bytes -= ENTRY_BYTES + removed.cost();
        }
    }

    fn shard(&self, tail: &Tail) -> &Shard {
        &self.shards[usize::from(tail[0]) % SHARDS]
    }
}

/// The end of a token's signature: as good as a hash of the token, without reading it all.
///
/// Nobody can make a verified token end like another; and an unverified one that does still has to equal it.
type Tail = [u8; 32];

fn tail(token: &[u8]) -> Option<Tail> {
    token.last_chunk().copied()
}

const SHARDS: usize = 16;

/// What an entry takes beside its session: reference counts, links, its place in the table.
const ENTRY_BYTES: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{AuthMaterial, RefreshToken, Verified};

    fn session(jwt: &str) -> Session {
        let verified = Verified { user_id: "alice".into(), expires_at: 0, generation: 0 };
        Session::new(verified, AuthMaterial::new(jwt, RefreshToken::new("r")))
    }

    fn token(number: usize) -> String {
        format!("{number:0>732}")
    }

    #[test]
    fn a_hit_needs_the_whole_token() {
        let tokens = Tokens::new(1 << 20);
        let (jwt, twin) = (format!("a{}", "x".repeat(40)), format!("b{}", "x".repeat(40)));
        tokens.insert(session(&jwt));
        assert_eq!(tokens.find(jwt.as_bytes()).unwrap().jwt(), jwt);
        assert!(tokens.find(twin.as_bytes()).is_none());
        assert!(tokens.find(b"short").is_none());
    }

    #[test]
    fn it_is_bounded_in_bytes_and_forgets_the_oldest() {
        let tokens = Tokens::new(SHARDS * 10_000);
        for number in 0..1_000 {
            tokens.insert(session(&token(number)));
        }
        assert!(tokens.find(token(999).as_bytes()).is_some());
        assert!(tokens.find(token(0).as_bytes()).is_none());
        for shard in &tokens.shards {
            let shard = shard.entries.read().unwrap();
            let held: usize = shard.sessions.iter().map(|(_, session)| ENTRY_BYTES + session.cost()).sum();
            assert_eq!(shard.bytes, held);
            assert!(held <= 10_000);
        }
    }

    #[test]
    fn what_is_removed_is_gone_and_paid_back() {
        let tokens = Tokens::new(1 << 20);
        tokens.insert(session(&token(1)));
        tokens.insert(session(&token(1)));
        tokens.remove(token(1).as_bytes());
        assert!(tokens.find(token(1).as_bytes()).is_none());
        assert!(tokens.shards.iter().all(|shard| shard.entries.read().unwrap().bytes == 0));
    }

    #[test]
    fn without_room_it_holds_nothing() {
        let tokens = Tokens::new(0);
        tokens.insert(session(&token(1)));
        assert!(tokens.find(token(1).as_bytes()).is_none());
    }
}
