//! One refresh per token, however many requests carry it.
//!
//! Crossmint's refresh tokens are spent by their first use, and a second use ends the session. So:
//!
//! 1. While a token is being refreshed, all requests that carry it wait for that one refresh.
//! 2. Afterwards, the rotated token resolves to its latest successor for a grace period (see [`grace`](super::grace)),
//!    and is not sent again.
//! 3. A token that was refused, limited or answered with something unusable is not sent again for a while (see
//!    [`negative_cache`](super::negative_cache)).
//! 4. A successor whose JWT cannot be used or verified is not lost: it is the token that is sent next.
//! 5. A logout revokes the whole family of a token: pending responses no longer deliver a successor, and neither does a
//!    refresh that is under way.
//!
//! Tokens are looked up by their SHA-256 digest. Nothing slower than such a look-up happens under the lock.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use hashbrown::HashMap;
use tokio::{sync::watch, time::Instant};

use super::{
    digest::{Digest, digest_of},
    grace::{FamilyId, Grace},
    negative_cache::{MIN_REFUSAL, NegativeCache},
    refreshed::{Failure, Refreshed},
};
use crate::{
    error::{AuthError, AuthErrorKind},
    secret::Secret,
    sync::{AtomicBool, Mutex, MutexGuard},
};

/// All refreshes under way, and the results of recent ones.
pub(crate) struct SingleFlight(Mutex<State>);

struct State {
    flights: HashMap<Digest, Flight>,
    grace: Grace,
    negative: NegativeCache,
}

struct Flight {
    waiter: Waiter,
    is_revoked: bool,
}

impl SingleFlight {
    pub(crate) fn new(grace_period: Duration, grace_bytes: usize) -> Self {
        let (grace, negative) = (Grace::new(grace_period, grace_bytes), NegativeCache::new());
        Self(Mutex::new(State { flights: HashMap::new(), grace, negative }))
    }

    /// Decides what a request with this refresh token does. Calls `enqueue` if the request is to lead a refresh.
    ///
    /// A caller that finds the session of a delivery expired passes it as `expired`, and its successor is refreshed.
    /// Only the caller can check that, since it may take the verification of a signature.
    ///
    /// # Errors
    ///
    /// When the token is not sent now.
    pub(crate) fn join<Q>(
        self: &Arc<Self>,
        token: Secret,
        expired: Option<&Delivery>,
        enqueue: impl FnOnce() -> Result<Q, AuthError>,
    ) -> Result<Joined<Q>, AuthError> {
        let presented = digest_of(&token);
        let now = Instant::now();
        let mut state = self.state();
        state.evict_expired(now);
        // The lock is held from here to the new flight: two requests must not lead refreshes of one token.
        let known = state.grace.find(&presented, now);
        if known.as_ref().is_some_and(|known| known.is_revoked) {
            return Err(AuthError::of(AuthErrorKind::Refused));
        }
        let digest = known.as_ref().map_or(presented, |known| known.current);
        if let Some(flight) = state.flights.get(&digest) {
            return Ok(Joined::Waiter(flight.waiter.clone()));
        }
        let negative = state.negative.get(&digest, now);
        let is_over = negative.as_ref().is_some_and(|error| error.kind() == AuthErrorKind::Refused);
        if let Some(known) = &known
            && let Some(refreshed) = known.refreshed
            && !is_over
            && !expired.is_some_and(|expired| Arc::ptr_eq(&expired.refreshed, refreshed))
        {
            let (refreshed, family) = (Arc::clone(refreshed), known.family);
            let hold = self.hold(&mut state, family, digest, now);
            return Ok(Joined::Remembered(Delivery { refreshed, hold: Some(Arc::new(hold)) }));
        }
        if let Some(error) = negative {
            return Err(error);
        }
        let (token, family) = known.map_or((token, None), |known| (known.token.clone(), Some(known.family)));
        let queued = enqueue()?;
        let (sender, receiver) = watch::channel(None);
        let waiter = Waiter(receiver);
        state.flights.insert(digest, Flight { waiter: waiter.clone(), is_revoked: false });
        let hold = family.map(|family| self.hold(&mut state, family, digest, now));
        let leader = Leader { flights: Arc::clone(self), digest, token, sender: Some(sender), _hold: hold };
        Ok(Joined::Leader(leader, waiter, queued))
    }

    /// Revokes the whole family of this refresh token. Returns the JWTs of the family, too.
    pub(crate) fn revoke(&self, token: Secret) -> (Vec<Secret>, Revocation) {
        let presented = digest_of(&token);
        let now = Instant::now();
        let mut state = self.state();
        state.evict_expired(now);
        let until = state.revoked_until(now);
        let family = state.grace.revoke(&presented, until, now);
        let is_known = family.is_some();
        let (digest, token, jwts) = family.unwrap_or((presented, token, Vec::new()));
        if let Some(flight) = state.flights.get_mut(&digest) {
            flight.is_revoked = true;
            return (jwts, Revocation::AfterRefresh(flight.waiter.clone()));
        }
        if !is_known {
            state.negative.refuse(digest, until);
        }
        (jwts, Revocation::Now(token))
    }

    fn hold(self: &Arc<Self>, state: &mut State, family: FamilyId, digest: Digest, now: Instant) -> GraceHold {
        let is_revoked = state.grace.hold(family, now).unwrap_or_default();
        GraceHold { flights: Arc::clone(self), family, digest, is_revoked }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Held for look-ups and the eviction of a few entries. One lock, so that a flight and its family change
        // together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns until when a logout is remembered: browsers may send a token of the family for as long.
    fn revoked_until(&self, now: Instant) -> Instant {
        now + MIN_REFUSAL.max(self.grace.period)
    }

    fn evict_expired(&mut self, now: Instant) {
        // A few entries per operation: no request waits long for the lock, and no timer is needed.
        self.grace.sweep(now);
        self.negative.evict_expired(now);
    }

    /// Ends a flight. Returns whether there was a logout meanwhile, after which the token is refused for a while.
    fn land(&mut self, digest: Digest, now: Instant) -> bool {
        let is_revoked = self.flights.remove(&digest).is_some_and(|flight| flight.is_revoked);
        if is_revoked {
            self.negative.refuse(digest, self.revoked_until(now));
        }
        is_revoked
    }
}

/// What to do with a refresh token.
pub(crate) enum Joined<Q> {
    /// It was rotated within its grace period. The session may have expired meanwhile.
    Remembered(Delivery),
    /// It is being refreshed.
    Waiter(Waiter),
    /// The caller refreshes the leader's token, in a task of its own.
    Leader(Leader, Waiter, Q),
}

/// Which token to revoke at Crossmint.
pub(crate) enum Revocation {
    /// The latest token of the family.
    Now(Secret),
    /// The successor that the refresh under way returns: its task revokes it.
    AfterRefresh(Waiter),
}

/// Waits for the refresh of another task.
#[derive(Clone)]
pub(crate) struct Waiter(watch::Receiver<Option<Outcome>>);

pub(crate) type Outcome = Result<Delivery, Failure>;

impl Waiter {
    pub(crate) async fn outcome(mut self) -> Outcome {
        let outcome = self.0.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err(AuthError::new(AuthErrorKind::Unavailable, "the refresh was interrupted").into()))
    }
}

/// The duty to refresh one token. Dropped unfinished (a panic, a runtime that shuts down), it frees the token.
pub(crate) struct Leader {
    flights: Arc<SingleFlight>,
    digest: Digest,
    /// The token to send to Crossmint.
    pub(crate) token: Secret,
    sender: Option<watch::Sender<Option<Outcome>>>,
    /// Keeps the rotated tokens of the family resolvable until the refresh has ended: the requests that wait carry
    /// them. `None` for a token that belongs to no family yet.
    _hold: Option<GraceHold>,
}

impl Leader {
    /// Fails the waiters, while the refresh continues.
    pub(crate) fn dismiss_waiters(&self, error: AuthError) {
        if let Some(sender) = &self.sender {
            sender.send_replace(Some(Err(error.into())));
        }
    }

    /// Ends the refresh. Returns the token to revoke at Crossmint if there was a logout meanwhile, and how many
    /// families were evicted before their grace period had passed, for want of memory.
    pub(crate) fn finish(mut self, outcome: Result<Refreshed, Failure>) -> (Option<Secret>, usize) {
        let successor = match &outcome {
            Ok(refreshed) => Some(refreshed.material().refresh_token().secret().into()),
            Err(failure) => failure.rescued.as_ref().map(|rescued| rescued.token.clone()),
        };
        let successor = successor.map(|token: Secret| (digest_of(&token), token));
        let now = Instant::now();
        let flights = Arc::clone(&self.flights);
        let mut state = flights.state();
        let (mut revoked, mut evicted) = (None, 0);
        let outcome = if state.land(self.digest, now) {
            let is_over = outcome.is_err_and(|failure| failure.error.kind() == AuthErrorKind::Refused);
            revoked = (!is_over).then(|| successor.map_or_else(|| self.token.clone(), |(_, token)| token));
            Err(AuthErrorKind::Refused.into())
        } else {
            let outcome = outcome.map(Arc::new);
            // Without a grace period, nothing is remembered of a token.
            let rotation = successor.filter(|_| !state.grace.period.is_zero()).map(|successor| {
                let (digest, refreshed) = (successor.0, outcome.as_ref().ok().cloned());
                let family;
                (family, evicted) = state.grace.rotate(self.digest, successor, refreshed, now);
                (family, digest)
            });
            match outcome {
                Ok(refreshed) => {
                    state.negative.remove(&self.digest);
                    let hold = rotation.map(|(family, digest)| flights.hold(&mut state, family, digest, now));
                    Ok(Delivery { refreshed, hold: hold.map(Arc::new) })
                }
                Err(mut failure) => {
                    // If the pair only lacks a key to verify it, the key set has failed, not the token.
                    if failure.rescued.as_ref().is_none_or(|rescued| rescued.set_cookie.is_none()) {
                        let next = rotation.map_or(self.digest, |(_, digest)| digest);
                        failure.error = state.negative.insert(self.digest, next, failure.error, now);
                    }
                    Err(failure)
                }
            }
        };
        // Waiters that wake up take the lock when they drop a delivery.
        drop(state);
        if let Some(sender) = self.sender.take() {
            sender.send_replace(Some(outcome));
        }
        (revoked, evicted)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.sender.is_some() {
            let now = Instant::now();
            self.flights.state().land(self.digest, now);
        }
    }
}

/// A refreshed session on its way to a browser.
///
/// The grace period of the tokens that it replaces starts when the last clone is dropped: the inner service has
/// returned the response that delivers it, or the request was cancelled.
#[derive(Clone)]
pub(crate) struct Delivery {
    pub(crate) refreshed: Arc<Refreshed>,
    /// `None` where nothing is remembered.
    hold: Option<Arc<GraceHold>>,
}

impl Delivery {
    /// Returns what a response that is about to be sent delivers: the latest session of the family, since a slow
    /// response must not replace newer cookies.
    ///
    /// # Errors
    ///
    /// When there was a logout meanwhile, and when the token was rotated and its successor has no session.
    pub(crate) fn latest(&self) -> Result<Arc<Refreshed>, AuthErrorKind> {
        self.refreshed.receipt.send();
        let Some(hold) = &self.hold else { return Ok(Arc::clone(&self.refreshed)) };
        let now = Instant::now();
        let latest = hold.flights.state().grace.deliver(&hold.digest, now);
        // The family may be evicted, and the logout with it; the flag outlives it. `Acquire` pairs with the `Release`
        // of the logout, whatever the lock orders.
        if hold.is_revoked.load(Ordering::Acquire) {
            return Err(AuthErrorKind::Refused);
        }
        Ok(latest?.unwrap_or_else(|| Arc::clone(&self.refreshed)))
    }
}

/// Keeps the grace period of a family from starting, until it is dropped.
///
/// Its drop takes the lock: never drop one while the state is locked.
struct GraceHold {
    flights: Arc<SingleFlight>,
    family: FamilyId,
    /// The token that is delivered.
    digest: Digest,
    is_revoked: Arc<AtomicBool>,
}

impl Drop for GraceHold {
    fn drop(&mut self) {
        let now = Instant::now();
        self.flights.state().grace.release(self.family, now);
    }
}

#[cfg(test)]
#[cfg(shuttle)]
mod model;
#[cfg(test)]
#[cfg(not(shuttle))]
mod property;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
