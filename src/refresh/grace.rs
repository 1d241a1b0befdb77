//! The grace period of rotated refresh tokens.
//!
//! All tokens that one session has had are a *family*. Crossmint takes only its current token; the rotated ones resolve
//! to that one until their grace period has passed, and are never sent again meanwhile.
//!
//! 1. The period of a rotated token starts when the last hold on its family is dropped: a response that still has to
//!    deliver the successor holds the family, and so does the refresh of the successor.
//! 2. It ends [`MAX_GRACE`] after the successor was first delivered, even if the family is still held.
//! 3. A successor that no response has delivered is the only copy of a good token. Its family is kept for
//!    [`MAX_UNDELIVERED`], and the periods start when one of its successors is delivered.
//! 4. Finding a family takes one hash look-up, however long it is.
//! 5. When memory runs short, the least recently rotated families lose their session first: their current token, which
//!    is small, can be refreshed. Only then are whole families evicted, those with a delivered successor first.
//! 6. A logout ends the whole family, whichever of its tokens the request carries.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hashbrown::HashMap;
use tokio::time::Instant;

use super::{digest::Digest, refreshed::Refreshed};
use crate::{error::AuthErrorKind, secret::Secret, sync::AtomicBool};

/// Identifies a family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FamilyId(u64);

/// All families with rotated tokens whose grace period has not passed.
#[derive(Default)]
pub(crate) struct Grace {
    pub(crate) period: Duration,
    max_bytes: usize,
    next_id: u64,
    members: HashMap<Digest, Member>,
    families: HashMap<FamilyId, Family>,
    /// When to look at which family again.
    deadlines: BTreeSet<(Instant, FamilyId)>,
    /// In the order of rule 5, with the time of the last rotation.
    evictions: BTreeSet<(Loss, Option<Instant>, FamilyId)>,
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq)]
struct Member {
    family: FamilyId,
    /// The position among all tokens that the family has had. The current token is behind the last rotated one, unless
    /// Crossmint has returned the same token again.
    number: usize,
}

struct Family {
    current: Digest,
    token: Secret,
    /// What the current token came with: absent if it could not be used, or if memory ran short.
    refreshed: Option<Arc<Refreshed>>,
    /// Oldest first.
    rotated: VecDeque<Rotated>,
    /// The number of the oldest.
    first: usize,
    jwt_bytes: usize,
    holds: usize,
    /// When the last hold was released.
    released_at: Instant,
    is_revoked: Arc<AtomicBool>,
    /// For how long a logout is remembered.
    revoked_until: Option<Instant>,
}

struct Rotated {
    digest: Digest,
    at: Instant,
    /// Since when its successor, or a later one, is on its way to the browser.
    delivered_at: Option<Instant>,
    /// The JWT that came with the token, for a logout.
    jwt: Option<Secret>,
}

/// What a family loses when memory runs short.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Loss {
    Session,
    DeliveredToken,
    OnlyCopy,
}

/// What is known of a refresh token.
pub(crate) struct Known<'a> {
    pub(crate) family: FamilyId,
    pub(crate) current: Digest,
    pub(crate) token: &'a Secret,
    /// There was a logout.
    pub(crate) is_revoked: bool,
    /// The session that has replaced the token's own, if the token was rotated.
    pub(crate) refreshed: Option<&'a Arc<Refreshed>>,
}

impl Grace {
    pub(crate) fn new(period: Duration, max_bytes: usize) -> Self {
        Self { period, max_bytes, ..Self::default() }
    }

    /// Finds the family of a token, unless the token's grace period has passed.
    pub(crate) fn find(&self, digest: &Digest, now: Instant) -> Option<Known<'_>> {
        let &Member { family: id, number } = self.members.get(digest)?;
        let family = self.families.get(&id)?;
        let rotated = family.rotated.get(number.checked_sub(family.first)?);
        let expires_at = match family.revoked_until {
            Some(until) => until,
            // The current token is known for as long as another one resolves to it.
            None => family.expires_at(rotated.or(family.rotated.back())?, self.period),
        };
        (now < expires_at).then(|| Known {
            family: id,
            current: family.current,
            token: &family.token,
            is_revoked: family.revoked_until.is_some(),
            refreshed: rotated.and(family.refreshed.as_ref()),
        })
    }

    /// Replaces a token by its successor, which has a session unless it cannot be used yet. Returns the family, and how
    /// many families were evicted although their grace period had not passed.
    pub(crate) fn rotate(
        &mut self,
        digest: Digest,
        (successor, token): (Digest, Secret),
        refreshed: Option<Arc<Refreshed>>,
        now: Instant,
    ) -> (FamilyId, usize) {
        // Another replica may have rotated the token, and this one the token before it.
        let by_successor = self.find(&successor, now).filter(|known| known.current == successor);
        let known = self.find(&digest, now).or(by_successor).filter(|known| !known.is_revoked);
        let known = known.map(|known| known.family);
        let id = known.unwrap_or(FamilyId(self.next_id));
        let mut family = self.take(id).unwrap_or_else(|| {
            self.next_id += 1;
            Family::new(digest, token.clone(), now)
        });
        let number = family.first + family.rotated.len();
        self.members.insert(digest, Member { family: id, number });
        if successor != digest {
            self.members.insert(successor, Member { family: id, number: number + 1 });
        }
        let jwt = family.refreshed.take().map(|refreshed| refreshed.session.jwt_secret().clone());
        family.jwt_bytes += jwt.as_ref().map_or(0, |jwt| jwt.len());
        family.rotated.push_back(Rotated { digest, at: now, delivered_at: None, jwt });
        (family.current, family.token, family.refreshed) = (successor, token, refreshed);
        let excess = family.rotated.len().saturating_sub(MAX_ROTATED);
        self.forget(id, &mut family, excess);
        self.put(id, family);
        (id, self.fit(now))
    }

    /// Notes that a response delivers the session of a token to the browser. Returns the session that has replaced it
    /// meanwhile: a slow response must not bring a rotated token back.
    ///
    /// # Errors
    ///
    /// When there was a logout, and when the token was rotated and its successor has no session.
    pub(crate) fn deliver(&mut self, digest: &Digest, now: Instant) -> Result<Option<Arc<Refreshed>>, AuthErrorKind> {
        let Some(known) = self.find(digest, now) else { return Ok(None) };
        let id = known.family;
        let latest = match known.refreshed {
            _ if known.is_revoked => return Err(AuthErrorKind::Refused),
            _ if known.current == *digest => None,
            Some(refreshed) => Some(Arc::clone(refreshed)),
            None => return Err(AuthErrorKind::Unavailable),
        };
        if !self.families.get(&id).is_some_and(Family::is_delivered) {
            self.change(id, |family| {
                let undelivered = family.rotated.iter_mut().rev().take_while(|rotated| rotated.delivered_at.is_none());
                undelivered.for_each(|rotated| rotated.delivered_at = Some(now));
            });
        }
        Ok(latest)
    }

    /// Keeps the grace period of a family from starting, until [`release`](Self::release). Returns the flag that a
    /// logout sets.
    pub(crate) fn hold(&mut self, id: FamilyId, now: Instant) -> Option<Arc<AtomicBool>> {
        // A hold must not revive tokens whose period has passed.
        self.expire(id, now);
        self.change(id, |family| {
            family.holds += 1;
            Arc::clone(&family.is_revoked)
        })
    }

    pub(crate) fn release(&mut self, id: FamilyId, now: Instant) {
        self.change(id, |family| {
            family.holds = family.holds.saturating_sub(1);
            family.released_at = now;
        });
    }

    /// Ends the family of a token, and remembers it until `until`. Returns its current token and its JWTs.
    pub(crate) fn revoke(
        &mut self,
        digest: &Digest,
        until: Instant,
        now: Instant,
    ) -> Option<(Digest, Secret, Vec<Secret>)> {
        let id = self.find(digest, now)?.family;
        self.change(id, |family| {
            // Pairs with the `Acquire` of pending responses, which outlive the family.
            family.is_revoked.store(true, Ordering::Release);
            family.revoked_until = Some(until);
            (family.current, family.token.clone(), family.take_jwts())
        })
    }

    /// Forgets what has expired: a few families at a time, since other requests wait for the lock.
    pub(crate) fn sweep(&mut self, now: Instant) {
        for _ in 0..MAX_SWEPT {
            let Some(&(_, id)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) else { return };
            self.expire(id, now);
        }
    }

    fn change<T>(&mut self, id: FamilyId, change: impl FnOnce(&mut Family) -> T) -> Option<T> {
        let mut family = self.take(id)?;
        let changed = change(&mut family);
        self.put(id, family);
        Some(changed)
    }

    /// Takes a family out of the sets that depend on its state, so that it can be changed and [`put`](Self::put) back.
    fn take(&mut self, id: FamilyId) -> Option<Family> {
        let family = self.families.remove(&id)?;
        self.deadlines.remove(&(family.deadline(self.period), id));
        self.evictions.remove(&family.eviction(id));
        self.bytes -= family.size();
        Some(family)
    }

    fn put(&mut self, id: FamilyId, family: Family) {
        self.deadlines.insert((family.deadline(self.period), id));
        self.evictions.insert(family.eviction(id));
        self.bytes += family.size();
        self.families.insert(id, family);
    }

    /// Forgets the tokens of a family whose time has passed, and the family with the last of them.
    fn expire(&mut self, id: FamilyId, now: Instant) {
        let Some(mut family) = self.take(id) else { return };
        let is_over = |rotated: &&Rotated| family.expires_at(rotated, self.period) <= now;
        let expired = match family.revoked_until {
            Some(until) if until <= now => family.rotated.len(),
            Some(_) => 0,
            None => family.rotated.iter().take_while(is_over).count(),
        };
        self.forget(id, &mut family, expired);
        if !family.rotated.is_empty() {
            self.put(id, family);
        }
    }

    /// Forgets the oldest rotated tokens of a family, and its current token with the last of them.
    fn forget(&mut self, id: FamilyId, family: &mut Family, count: usize) {
        // A token that came back since then has another number, or is in another family.
        let mut forget = |digest: &Digest, number| {
            if self.members.get(digest) == Some(&Member { family: id, number }) {
                self.members.remove(digest);
            }
        };
        for rotated in family.rotated.drain(..count) {
            family.jwt_bytes -= rotated.jwt.map_or(0, |jwt| jwt.len());
            forget(&rotated.digest, family.first);
            family.first += 1;
        }
        if family.rotated.is_empty() {
            forget(&family.current, family.first);
        }
    }

    /// Makes room. Returns how many families were evicted before their time.
    fn fit(&mut self, now: Instant) -> usize {
        let mut evicted = 0;
        while self.bytes > self.max_bytes
            && let Some(&(_, _, id)) = self.evictions.first()
            && let Some(mut family) = self.take(id)
        {
            // The token is small, and is all that a refresh needs.
            if family.refreshed.is_some() {
                family.take_jwts();
                self.put(id, family);
                continue;
            }
            evicted += usize::from(family.revoked_until.is_none() && now < family.deadline(self.period));
            let all = family.rotated.len();
            self.forget(id, &mut family, all);
        }
        evicted
    }
}

impl Family {
    fn new(current: Digest, token: Secret, now: Instant) -> Self {
        Self {
            current,
            token,
            refreshed: None,
            rotated: VecDeque::new(),
            first: 0,
            jwt_bytes: 0,
            holds: 0,
            released_at: now,
            is_revoked: Arc::default(),
            revoked_until: None,
        }
    }

    /// Returns when the grace period of a token is over.
    fn expires_at(&self, rotated: &Rotated, period: Duration) -> Instant {
        let Some(start) = rotated.delivered_at else { return rotated.at + MAX_UNDELIVERED };
        let latest = start + MAX_GRACE;
        if self.holds > 0 { latest } else { latest.min(self.released_at.max(start) + period) }
    }

    fn deadline(&self, period: Duration) -> Instant {
        let oldest = || self.rotated.front().map(|oldest| self.expires_at(oldest, period));
        self.revoked_until.or_else(oldest).unwrap_or(self.released_at)
    }

    fn is_delivered(&self) -> bool {
        self.rotated.back().is_some_and(|last| last.delivered_at.is_some())
    }

    fn eviction(&self, id: FamilyId) -> (Loss, Option<Instant>, FamilyId) {
        let loss = match self.refreshed {
            Some(_) => Loss::Session,
            None if self.is_delivered() => Loss::DeliveredToken,
            None => Loss::OnlyCopy,
        };
        (loss, self.rotated.back().map(|last| last.at), id)
    }

    /// Gives up the sessions, and returns their JWTs.
    fn take_jwts(&mut self) -> Vec<Secret> {
        self.jwt_bytes = 0;
        let rotated = self.rotated.iter_mut().filter_map(|rotated| rotated.jwt.take());
        let current = self.refreshed.take().map(|refreshed| refreshed.session.jwt_secret().clone());
        rotated.chain(current).collect()
    }

    fn size(&self) -> usize {
        let refreshed = self.refreshed.as_ref().map_or(0, |refreshed| refreshed.cost());
        FAMILY_BYTES + self.token.len() + self.rotated.len() * ROTATED_BYTES + self.jwt_bytes + refreshed
    }
}

/// For how long a family is held at most: a handler that never ends must not keep it forever.
pub(crate) const MAX_GRACE: Duration = Duration::from_secs(300);

/// For how long a successor is kept that could not be delivered: time for an operator to fix a clock or a
/// configuration.
pub(crate) const MAX_UNDELIVERED: Duration = Duration::from_secs(3600);

/// How many rotated tokens a family has at most: one client must not take up the memory and the time of all others.
const MAX_ROTATED: usize = 1024;

/// More than what one operation adds, so that the backlog shrinks.
const MAX_SWEPT: usize = 16;

/// What a family takes besides its strings: its entries in the maps and sets, and that of its current token.
const FAMILY_BYTES: usize = 512;

/// What a rotated token takes besides its JWT: its digest twice, and its dates.
const ROTATED_BYTES: usize = 160;

#[cfg(test)]
mod tests;
