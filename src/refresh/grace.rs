//! The grace period of rotated refresh tokens.
//!
//! All tokens that one session has had are a *family*. Crossmint takes only its current token; the rotated ones resolve to
//! that one until their grace period has passed, and are never sent again meanwhile.
//!
//! 1. The period of a rotated token starts when the last hold on its family is dropped: a response that still has to
//!    deliver the successor holds the family, and so does the refresh of the successor.
//! 2. It ends [`MAX_GRACE`] after the successor was first delivered, whoever holds the family.
//! 3. A successor that no response has delivered is the only copy of a good token. Its family is kept for
//!    [`MAX_UNDELIVERED`], and the periods start when one of its successors is delivered.
//! 4. Finding a family takes one hash look-up, however long it is.
//! 5. When memory runs short, the least recently rotated families lose their session first: their current token, which is
//!    small, can be refreshed. Only then are whole families evicted, those with a delivered successor first.
//! 6. A logout ends the whole family, whichever token it comes with.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use lru::LruCache;
use tokio::time::Instant;

use super::{digest::Digest, outcome::Refreshed};
use crate::{secret::Secret, sync::AtomicBool};

/// Identifies a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FamilyId(u64);

/// All families with rotated tokens whose grace period has not passed.
#[derive(Debug)]
pub(crate) struct Grace {
    period: Duration,
    max_bytes: usize,
    next_id: u64,
    members: HashMap<Digest, Member>,
    /// Least recently rotated first.
    families: LruCache<FamilyId, Family>,
    /// Those of them that have a session, in the same order.
    with_session: LruCache<FamilyId, ()>,
    /// Those of them whose current token was delivered, in the same order.
    delivered: LruCache<FamilyId, ()>,
    /// When to look at which family again.
    deadlines: BTreeSet<(Instant, FamilyId)>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    family: FamilyId,
    /// `None` for a current token that has never been rotated.
    rotated: Option<Rotation>,
}

/// When a token was rotated, and since when its successor is on its way to the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rotation {
    at: Instant,
    delivered_at: Option<Instant>,
}

#[derive(Debug)]
struct Family {
    current: Digest,
    token: Secret,
    /// What the current token came with: absent if it could not be used, or if memory ran short.
    refreshed: Option<Arc<Refreshed>>,
    /// Oldest first.
    rotated: VecDeque<Rotated>,
    rotated_bytes: usize,
    holds: usize,
    /// When the last hold was released.
    released_at: Instant,
    is_revoked: Arc<AtomicBool>,
    /// For how long a logout is remembered.
    revoked_until: Option<Instant>,
    deadline: Instant,
    bytes: usize,
}

#[derive(Debug)]
struct Rotated {
    digest: Digest,
    rotation: Rotation,
    /// The JWT that came with the token, for a logout.
    jwt: Option<Secret>,
}

/// What is known of a refresh token.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    pub(crate) family: FamilyId,
    pub(crate) current: Digest,
    pub(crate) token: &'a Secret,
    /// There was a logout.
    pub(crate) is_revoked: bool,
    /// The session that has replaced the token's own, if the token was rotated.
    pub(crate) refreshed: Option<&'a Arc<Refreshed>>,
}

/// A family that a logout has ended.
#[derive(Debug)]
pub(crate) struct RevokedFamily {
    pub(crate) current: Digest,
    pub(crate) token: Secret,
    pub(crate) jwts: Vec<Secret>,
}

/// What a response delivers in place of the session that it was made with.
#[derive(Debug)]
pub(crate) enum Latest {
    /// That session.
    Same,
    Other(Arc<Refreshed>),
    /// There was a logout.
    Revoked,
    /// The token was rotated, and there is no session that could be delivered.
    Superseded,
}

/// What a rotation has brought about.
#[derive(Debug)]
pub(crate) struct RotateOutcome {
    pub(crate) family: FamilyId,
    /// How many families had to be evicted although their grace period had not passed.
    pub(crate) evicted: usize,
}

impl Grace {
    pub(crate) fn new(period: Duration, max_bytes: usize) -> Self {
        Self {
            period,
            max_bytes,
            next_id: 0,
            members: HashMap::new(),
            families: LruCache::unbounded(),
            with_session: LruCache::unbounded(),
            delivered: LruCache::unbounded(),
            deadlines: BTreeSet::new(),
            bytes: 0,
        }
    }

    pub(crate) fn period(&self) -> Duration {
        self.period
    }

    /// Finds the family of a token, unless the token's grace period has passed.
    pub(crate) fn find(&self, digest: &Digest, now: Instant) -> Option<Known<'_>> {
        let member = self.members.get(digest)?;
        let family = self.families.peek(&member.family)?;
        let expires_at = match (family.revoked_until, member.rotated) {
            (Some(until), _) => until,
            (None, Some(rotation)) => family.expires_at(rotation, self.period),
            // The current token is known for as long as another one leads to it.
            (None, None) => family.expires_at(family.rotated.back()?.rotation, self.period),
        };
        (now < expires_at).then(|| Known {
            family: member.family,
            current: family.current,
            token: &family.token,
            is_revoked: family.revoked_until.is_some(),
            refreshed: family.refreshed.as_ref().filter(|_| member.rotated.is_some()),
        })
    }

    /// Replaces a token by its successor, which comes with a session unless it cannot be used yet.
    pub(crate) fn rotate(
        &mut self,
        digest: Digest,
        (successor, token): (Digest, Secret),
        refreshed: Option<Arc<Refreshed>>,
        now: Instant,
    ) -> RotateOutcome {
        let known = self.find(&digest, now).filter(|known| !known.is_revoked).map(|known| known.family);
        let id = known.unwrap_or_else(|| self.add(digest, now));
        let rotation = Rotation { at: now, delivered_at: None };
        self.members.insert(digest, Member { family: id, rotated: Some(rotation) });
        if successor != digest {
            self.members.insert(successor, Member { family: id, rotated: None });
        }
        self.families.promote(&id);
        if refreshed.is_some() {
            self.with_session.put(id, ());
        } else {
            self.with_session.pop(&id);
        }
        self.delivered.pop(&id);
        let too_old = self.change(id, |family| {
            let jwt = family.refreshed.take().map(|refreshed| refreshed.session.material().jwt_secret().clone());
            let rotated = Rotated { digest, rotation, jwt };
            family.rotated_bytes += rotated.size();
            family.rotated.push_back(rotated);
            (family.current, family.token, family.refreshed) = (successor, token, refreshed);
            (family.rotated.len() > MAX_ROTATED).then(|| family.pop_oldest()).flatten()
        });
        if let Some(oldest) = too_old.flatten() {
            self.forget(id, &oldest);
        }
        RotateOutcome { family: id, evicted: self.fit(now) }
    }

    /// Notes that a response takes the session of a token to the browser. Returns the session that has replaced it
    /// meanwhile: what the response says is the last word, and must not bring a rotated token back.
    pub(crate) fn deliver(&mut self, digest: &Digest, now: Instant) -> Latest {
        let Some(known) = self.find(digest, now) else { return Latest::Same };
        let (id, is_same) = (known.family, known.current == *digest);
        if known.is_revoked {
            return Latest::Revoked;
        }
        let Some(family) = self.families.peek(&id) else { return Latest::Same };
        let latest = match &family.refreshed {
            _ if is_same => Latest::Same,
            Some(refreshed) => Latest::Other(Arc::clone(refreshed)),
            None => return Latest::Superseded,
        };
        self.start_periods(id, now);
        latest
    }

    fn start_periods(&mut self, id: FamilyId, now: Instant) {
        if self.delivered.contains(&id) {
            return;
        }
        self.delivered.put(id, ());
        let started = self.change(id, |family| {
            let undelivered =
                family.rotated.iter_mut().rev().take_while(|rotated| rotated.rotation.delivered_at.is_none());
            let started = undelivered.map(|rotated| {
                let before = rotated.rotation;
                rotated.rotation.delivered_at = Some(now);
                (rotated.digest, before, rotated.rotation)
            });
            started.collect::<Vec<_>>()
        });
        for (digest, before, after) in started.unwrap_or_default() {
            if let Some(member) = self.members.get_mut(&digest)
                && member.rotated == Some(before)
            {
                member.rotated = Some(after);
            }
        }
    }

    /// Keeps the grace period of a family from starting, until [`release`](Self::release).
    pub(crate) fn hold(&mut self, id: FamilyId, now: Instant) {
        // Whatever has expired by now is not to be revived.
        self.expire(id, now);
        self.change(id, |family| family.holds += 1);
    }

    pub(crate) fn release(&mut self, id: FamilyId, now: Instant) {
        self.change(id, |family| {
            family.holds = family.holds.saturating_sub(1);
            family.released_at = now;
        });
    }

    /// Tells where to look whether a family has ended.
    pub(crate) fn is_revoked(&self, id: FamilyId) -> Option<Arc<AtomicBool>> {
        self.families.peek(&id).map(|family| Arc::clone(&family.is_revoked))
    }

    /// Ends the family of a token, and remembers it until `until`.
    pub(crate) fn revoke(&mut self, digest: &Digest, until: Instant, now: Instant) -> Option<RevokedFamily> {
        let id = self.find(digest, now)?.family;
        self.with_session.pop(&id);
        self.change(id, |family| {
            let jwts = if family.revoked_until.is_some() { Vec::new() } else { family.take_jwts() };
            family.is_revoked.store(true, Ordering::Release);
            family.revoked_until = Some(until);
            RevokedFamily { current: family.current, token: family.token.clone(), jwts }
        })
    }

    /// Forgets what has expired: a few families at a time, since others wait for the lock meanwhile.
    pub(crate) fn sweep(&mut self, now: Instant) {
        for _ in 0..MAX_SWEPT {
            let Some(&(deadline, id)) = self.deadlines.first() else { return };
            if deadline > now {
                return;
            }
            self.expire(id, now);
        }
    }

    fn add(&mut self, digest: Digest, now: Instant) -> FamilyId {
        let id = FamilyId(self.next_id);
        self.next_id += 1;
        let family = Family {
            current: digest,
            token: "".into(),
            refreshed: None,
            rotated: VecDeque::new(),
            rotated_bytes: 0,
            holds: 0,
            released_at: now,
            is_revoked: Arc::new(AtomicBool::new(false)),
            revoked_until: None,
            deadline: now,
            bytes: 0,
        };
        self.deadlines.insert((now, id));
        self.families.put(id, family);
        id
    }

    /// Changes a family, and sees to it that its deadline and its size are right afterwards.
    fn change<T>(&mut self, id: FamilyId, change: impl FnOnce(&mut Family) -> T) -> Option<T> {
        let family = self.families.peek_mut(&id)?;
        let changed = change(family);
        self.deadlines.remove(&(family.deadline, id));
        family.deadline = family.next_deadline(self.period);
        self.deadlines.insert((family.deadline, id));
        self.bytes -= family.bytes;
        family.bytes = family.size();
        self.bytes += family.bytes;
        Some(changed)
    }

    /// Forgets the tokens of a family whose time has passed, and the family with the last of them.
    fn expire(&mut self, id: FamilyId, now: Instant) {
        let period = self.period;
        let Some(family) = self.families.peek_mut(&id) else { return };
        if family.revoked_until.is_some_and(|until| until <= now) {
            self.remove(id);
            return;
        }
        let mut expired = Vec::new();
        if family.revoked_until.is_none() {
            while family.rotated.front().is_some_and(|oldest| family.expires_at(oldest.rotation, period) <= now) {
                expired.extend(family.pop_oldest());
            }
        }
        let is_empty = family.rotated.is_empty();
        for rotated in &expired {
            self.forget(id, rotated);
        }
        if is_empty {
            self.remove(id);
        } else {
            self.change(id, |_| ());
        }
    }

    /// Forgets what a token leads to that its family has given up.
    fn forget(&mut self, id: FamilyId, rotated: &Rotated) {
        // A token that came back since then has another date, or is the current one.
        let is_it = |member: &Member| (member.family, member.rotated) == (id, Some(rotated.rotation));
        if self.members.get(&rotated.digest).is_some_and(is_it) {
            self.members.remove(&rotated.digest);
        }
    }

    fn remove(&mut self, id: FamilyId) {
        let Some(family) = self.families.pop(&id) else { return };
        for digest in family.rotated.iter().map(|rotated| &rotated.digest).chain([&family.current]) {
            if self.members.get(digest).is_some_and(|member| member.family == id) {
                self.members.remove(digest);
            }
        }
        self.with_session.pop(&id);
        self.delivered.pop(&id);
        self.deadlines.remove(&(family.deadline, id));
        self.bytes -= family.bytes;
    }

    /// Makes room. Returns how many families had to go before their time.
    fn fit(&mut self, now: Instant) -> usize {
        let mut evicted = 0;
        while self.bytes > self.max_bytes {
            if let Some((id, ())) = self.with_session.pop_lru() {
                self.change(id, Family::take_jwts);
                continue;
            }
            let delivered = self.delivered.peek_lru().map(|(id, ())| *id);
            let Some(id) = delivered.or_else(|| self.families.peek_lru().map(|(id, _)| *id)) else { break };
            let is_early = |family: &Family| family.revoked_until.is_none() && now < family.deadline;
            evicted += usize::from(self.families.peek(&id).is_some_and(is_early));
            self.remove(id);
        }
        evicted
    }
}

impl Family {
    /// Returns when the grace period of a token is over.
    fn expires_at(&self, Rotation { at, delivered_at }: Rotation, period: Duration) -> Instant {
        let Some(start) = delivered_at else { return at + MAX_UNDELIVERED };
        let latest = start + MAX_GRACE;
        if self.holds > 0 { latest } else { latest.min(self.released_at.max(start) + period) }
    }

    fn next_deadline(&self, period: Duration) -> Instant {
        let oldest = || self.rotated.front().map(|oldest| self.expires_at(oldest.rotation, period));
        self.revoked_until.or_else(oldest).unwrap_or(self.released_at)
    }

    fn pop_oldest(&mut self) -> Option<Rotated> {
        let oldest = self.rotated.pop_front();
        self.rotated_bytes -= oldest.as_ref().map_or(0, Rotated::size);
        oldest
    }

    /// Gives up the sessions, and returns their JWTs.
    fn take_jwts(&mut self) -> Vec<Secret> {
        let jwts = self.rotated.iter_mut().filter_map(|rotated| rotated.jwt.take());
        let current = self.refreshed.take().map(|refreshed| refreshed.session.material().jwt_secret().clone());
        let jwts = jwts.chain(current).collect();
        self.rotated_bytes = self.rotated.len() * ROTATED_BYTES;
        jwts
    }

    fn size(&self) -> usize {
        let refreshed = self.refreshed.as_ref().map_or(0, |refreshed| refreshed.cost());
        FAMILY_BYTES + self.token.len() + self.rotated_bytes + refreshed
    }
}

impl Rotated {
    fn size(&self) -> usize {
        ROTATED_BYTES + self.jwt.as_ref().map_or(0, |jwt| jwt.len())
    }
}

/// For how long a family is held at most: a handler that never ends must not keep it for ever.
pub(crate) const MAX_GRACE: Duration = Duration::from_secs(300);

/// For how long a successor is kept that could not be delivered: time for an operator to mend a clock or a configuration.
pub(crate) const MAX_UNDELIVERED: Duration = Duration::from_secs(3600);

/// How many rotated tokens a family has at most: one client must not take the memory, nor the time, of all others.
const MAX_ROTATED: usize = 1024;

/// More than what one operation adds, so that the backlog shrinks.
const MAX_SWEPT: usize = 16;

/// What a family takes beside its texts: its places in the maps, and those of its current token.
const FAMILY_BYTES: usize = 512;

/// What a rotated token takes: its digest, twice.
const ROTATED_BYTES: usize = 160;

#[cfg(test)]
mod tests;
