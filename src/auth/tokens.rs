//! The sessions whose JWTs have been verified: what makes a request cheap.
//!
//! Only verified tokens get in, so that nobody can crowd out others with junk. A hit needs the whole token to be equal;
//! the caller checks expiry and key set.

use std::sync::{PoisonError, RwLock};

use lru::LruCache;

use crate::session::Session;

/// A cache bounded in bytes, split so that threads rarely meet.
#[derive(Debug)]
pub(crate) struct Tokens {
    shards: Box<[RwLock<Shard>]>,
    shard_bytes: usize,
}

#[derive(Debug)]
struct Shard {
    sessions: LruCache<Tail, Session>,
    bytes: usize,
}

impl Tokens {
    /// Creates a cache for about `bytes` of sessions. Zero holds none.
    pub(crate) fn new(bytes: usize) -> Self {
        let shard = || RwLock::new(Shard { sessions: LruCache::unbounded(), bytes: 0 });
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), shard_bytes: bytes / SHARDS }
    }

    /// Finds the session of a token.
    pub(crate) fn find(&self, token: &[u8]) -> Option<Session> {
        let tail = tail(token)?;
        let shard = self.shard(&tail).read().unwrap_or_else(PoisonError::into_inner);
        shard.sessions.peek(&tail).filter(|session| session.jwt().as_bytes() == token).cloned()
    }

    /// Keeps a session, in place of the oldest ones if need be.
    pub(crate) fn insert(&self, session: Session) {
        let cost = ENTRY_BYTES + session.cost();
        let Some(tail) = tail(session.jwt().as_bytes()).filter(|_| cost <= self.shard_bytes) else { return };
        let mut shard = self.shard(&tail).write().unwrap_or_else(PoisonError::into_inner);
        shard.bytes += cost;
        if let Some(replaced) = shard.sessions.put(tail, session) {
            shard.bytes -= ENTRY_BYTES + replaced.cost();
        }
        while shard.bytes > self.shard_bytes {
            let Some((_, oldest)) = shard.sessions.pop_lru() else { break };
            shard.bytes -= ENTRY_BYTES + oldest.cost();
        }
    }

    /// Forgets the session of a token.
    pub(crate) fn remove(&self, token: &[u8]) {
        let Some(tail) = tail(token) else { return };
        let mut shard = self.shard(&tail).write().unwrap_or_else(PoisonError::into_inner);
        if let Some(removed) = shard.sessions.pop(&tail) {
            shard.bytes -= ENTRY_BYTES + removed.cost();
        }
    }

    fn shard(&self, tail: &Tail) -> &RwLock<Shard> {
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
            let shard = shard.read().unwrap();
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
        assert!(tokens.shards.iter().all(|shard| shard.read().unwrap().bytes == 0));
    }

    #[test]
    fn without_room_it_holds_nothing() {
        let tokens = Tokens::new(0);
        tokens.insert(session(&token(1)));
        assert!(tokens.find(token(1).as_bytes()).is_none());
    }
}
