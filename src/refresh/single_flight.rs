//! One refresh per token, however many requests carry it.
//!
//! Crossmint's refresh tokens are spent by their first use, and a second use ends the session. So:
//!
//! 1. While a token is being refreshed, all requests that carry it wait for that one refresh.
//! 2. Afterwards, the rotated token resolves to its latest successor for a grace period (see [`grace`](super::grace)), and
//!    is not sent again.
//! 3. A token that was refused, limited or answered with something unusable is not sent again for a while (see
//!    [`negative_cache`](super::negative_cache)).
//! 4. A successor whose JWT cannot be used or verified is not lost: it is the token that is sent next.
//! 5. A logout revokes the whole family of a token: responses that still have to deliver a successor no longer do, and a
//!    refresh that is under way delivers nothing.
//!
//! Tokens are looked up by their SHA-256 digest. Nothing slower than such a look-up happens under the lock.

use std::{
    collections::HashMap,
    fmt,
    ops::Deref,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    digest::{Digest, digest_of},
    grace::{FamilyId, Grace, Latest},
    negative_cache::{MIN_REFUSAL, NegativeCache},
    outcome::{Failure, Refreshed},
};
use crate::{
    error::{AuthError, AuthErrorKind},
    secret::Secret,
    sync::{AtomicBool, Mutex, MutexGuard},
};

/// All refreshes under way, and what became of the recent ones.
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

    /// Decides what a request with this refresh token does. `enqueue` is called where it would lead a refresh.
    ///
    /// A delivery whose session is no longer valid is brought back as `expired`: its successor is refreshed then. It is the
    /// caller that checks, since that may take the verification of a signature.
    pub(crate) fn join<Q>(
        self: &Arc<Self>,
        token: Secret,
        expired: Option<&Delivery>,
        enqueue: impl FnOnce() -> Result<Q, AuthError>,
    ) -> Joined<Q> {
        let presented = digest_of(&token);
        let now = Instant::now();
        let mut state = self.state();
        state.evict_expired(now);
        let known = state.grace.find(&presented, now);
        if known.as_ref().is_some_and(|known| known.is_revoked) {
            return Joined::Rejected(AuthError::of(AuthErrorKind::Refused));
        }
        let digest = known.as_ref().map_or(presented, |known| known.current);
        if let Some(flight) = state.flights.get(&digest) {
            return Joined::Waiter(flight.waiter.clone());
        }
        let negative = state.negative.get(&digest, now);
        let is_over = negative.as_ref().is_some_and(|error| error.kind() == AuthErrorKind::Refused);
        if let Some(known) = &known
            && let Some(refreshed) = known.refreshed
            && !is_over
            && !expired.is_some_and(|expired| Arc::ptr_eq(&expired.0.refreshed, refreshed))
        {
            let (refreshed, family) = (Arc::clone(refreshed), known.family);
            return Joined::Remembered(self.deliver(&mut state, refreshed, (family, digest), now));
        }
        if let Some(error) = negative {
            return Joined::Rejected(error);
        }
        let (token, family) = match known {
            Some(known) => (known.token.clone(), Some(known.family)),
            None => (token, None),
        };
        let queued = match enqueue() {
            Ok(queued) => queued,
            Err(error) => return Joined::Rejected(error),
        };
        let (sender, receiver) = watch::channel(None);
        let waiter = Waiter(receiver);
        state.flights.insert(digest, Flight { waiter: waiter.clone(), is_revoked: false });
        let hold = family.map(|family| self.hold(&mut state, (family, digest), now));
        let leader = Leader { flights: Arc::clone(self), digest, token, sender: Some(sender), _hold: hold };
        Joined::Leader(leader, waiter, queued)
    }

    /// Revokes the whole family of this refresh token.
    pub(crate) fn revoke(&self, token: Secret) -> Revoked {
        let presented = digest_of(&token);
        let now = Instant::now();
        let mut state = self.state();
        state.evict_expired(now);
        let until = now + state.revocation_memory();
        let family = state.grace.revoke(&presented, until, now);
        let is_known = family.is_some();
        let (digest, token, jwts) = match family {
            Some(family) => (family.current, family.token, family.jwts),
            None => (presented, token, Vec::new()),
        };
        let upstream = if let Some(flight) = state.flights.get_mut(&digest) {
            flight.is_revoked = true;
            Revocation::AfterRefresh(flight.waiter.clone())
        } else {
            if !is_known {
                state.negative.refuse(digest, until);
            }
            Revocation::Now(token)
        };
        Revoked { jwts, upstream }
    }

    fn deliver(
        self: &Arc<Self>,
        state: &mut State,
        refreshed: Arc<Refreshed>,
        current: (FamilyId, Digest),
        now: Instant,
    ) -> Delivery {
        Delivery(Arc::new(Shared { refreshed, hold: Some(self.hold(state, current, now)) }))
    }

    fn hold(self: &Arc<Self>, state: &mut State, (family, digest): (FamilyId, Digest), now: Instant) -> GraceHold {
        state.grace.hold(family, now);
        let is_revoked = state.grace.is_revoked(family).unwrap_or_default();
        GraceHold { flights: Arc::clone(self), family, digest, is_revoked }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns for how long a logout is remembered: as long as requests may still come with a token of the family.
    fn revocation_memory(&self) -> Duration {
        MIN_REFUSAL.max(self.grace.period())
    }

    /// A little at each operation, so that none waits long for the lock, and no timer is needed.
    fn evict_expired(&mut self, now: Instant) {
        self.grace.sweep(now);
        self.negative.evict_expired(now);
    }
}

/// What there is for a refresh token.
#[derive(Debug)]
pub(crate) enum Joined<Q> {
    /// It was rotated within its grace period. The session may have expired meanwhile.
    Remembered(Delivery),
    /// It is being refreshed.
    Waiter(Waiter),
    /// The caller refreshes the leader's token, in a task of its own.
    Leader(Leader, Waiter, Q),
    /// It is not sent now.
    Rejected(AuthError),
}

/// What a logout leaves to do elsewhere.
#[derive(Debug)]
pub(crate) struct Revoked {
    /// The JWTs of the family.
    pub(crate) jwts: Vec<Secret>,
    pub(crate) upstream: Revocation,
}

/// Which token to revoke at Crossmint.
#[derive(Debug)]
pub(crate) enum Revocation {
    /// The latest token of the family.
    Now(Secret),
    /// The successor that the refresh under way returns: its task revokes it.
    AfterRefresh(Waiter),
}

/// Waits for a refresh that another task carries out.
#[derive(Clone, Debug)]
pub(crate) struct Waiter(watch::Receiver<Option<Outcome>>);

pub(crate) type Outcome = Result<Delivery, Failure>;

impl Waiter {
    pub(crate) async fn outcome(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone()) {
            Some(outcome) => outcome,
            None => Err(AuthError::new(AuthErrorKind::Unavailable, "the refresh was interrupted").into()),
        }
    }
}

/// The duty to refresh one token. Dropped unfinished (a panic, a runtime that shuts down), it frees the token.
pub(crate) struct Leader {
    flights: Arc<SingleFlight>,
    digest: Digest,
    token: Secret,
    sender: Option<watch::Sender<Option<Outcome>>>,
    /// All requests that wait for this refresh still have a rotated token.
    _hold: Option<GraceHold>,
}

/// What is left to do when a refresh has ended.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    /// The token to revoke at Crossmint: a logout has overtaken the refresh.
    pub(crate) revoked: Option<Secret>,
    /// How many families had to be evicted before their grace period had passed, for want of memory.
    pub(crate) evicted: usize,
}

impl Leader {
    /// Returns the token to send to Crossmint.
    pub(crate) fn token(&self) -> &Secret {
        &self.token
    }

    /// Sends the waiters away with an error, while the refresh goes on.
    pub(crate) fn dismiss_waiters(&self, error: AuthError) {
        if let Some(sender) = &self.sender {
            sender.send_replace(Some(Err(error.into())));
        }
    }

    /// Ends the refresh.
    pub(crate) fn finish(mut self, outcome: Result<Refreshed, Failure>) -> Finished {
        let successor = match &outcome {
            Ok(refreshed) => Some(refreshed.session.refresh_token().secret().into()),
            Err(failure) => failure.rescued.as_ref().map(|rescued| rescued.token.clone()),
        };
        let successor = successor.map(|token: Secret| (digest_of(&token), token));
        let now = Instant::now();
        let flights = Arc::clone(&self.flights);
        let mut finished = Finished::default();
        let mut state = flights.state();
        let is_revoked = state.flights.remove(&self.digest).is_some_and(|flight| flight.is_revoked);
        // Without a grace period, nothing is remembered of a token.
        let remembered = successor.clone().filter(|_| !is_revoked && !state.grace.period().is_zero());
        let outcome = match outcome {
            outcome if is_revoked => {
                let until = now + state.revocation_memory();
                state.negative.refuse(self.digest, until);
                let is_over = outcome.is_err_and(|failure| failure.error.kind() == AuthErrorKind::Refused);
                finished.revoked = (!is_over).then(|| successor.map_or_else(|| self.token.clone(), |(_, token)| token));
                Err(AuthErrorKind::Refused.into())
            }
            Ok(refreshed) => {
                state.negative.remove(&self.digest);
                let refreshed = Arc::new(refreshed);
                Ok(match remembered {
                    Some(successor) => {
                        let digest = successor.0;
                        let rotation = state.grace.rotate(self.digest, successor, Some(Arc::clone(&refreshed)), now);
                        finished.evicted = rotation.evicted;
                        flights.deliver(&mut state, refreshed, (rotation.family, digest), now)
                    }
                    None => Delivery::without_grace(refreshed),
                })
            }
            Err(mut failure) => {
                let next = remembered.as_ref().map_or(self.digest, |(digest, _)| *digest);
                if let Some(successor) = remembered {
                    finished.evicted = state.grace.rotate(self.digest, successor, None, now).evicted;
                }
                // Where a pair only lacks a key, it is the key set that failed.
                if failure.rescued.as_ref().is_none_or(|rescued| rescued.set_cookie.is_none()) {
                    let pause = state.negative.insert(self.digest, next, &failure.error, now);
                    if pause.is_some() {
                        failure.error = failure.error.with_retry_after(pause);
                    }
                }
                Err(failure)
            }
        };
        drop(state);
        if let Some(sender) = self.sender.take() {
            sender.send_replace(Some(outcome));
        }
        finished
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.sender.is_some() {
            let now = Instant::now();
            let mut state = self.flights.state();
            if state.flights.remove(&self.digest).is_some_and(|flight| flight.is_revoked) {
                let until = now + state.revocation_memory();
                state.negative.refuse(self.digest, until);
            }
        }
    }
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader").finish_non_exhaustive()
    }
}

/// A refreshed session on its way to a browser.
///
/// The grace period of the tokens that it replaces starts when the last clone is dropped: the response has been sent then,
/// or its client is gone.
#[derive(Clone)]
pub(crate) struct Delivery(Arc<Shared>);

struct Shared {
    refreshed: Arc<Refreshed>,
    /// `None` where nothing is remembered.
    hold: Option<GraceHold>,
}

impl Delivery {
    /// Delivers what is not remembered.
    pub(crate) fn without_grace(refreshed: Arc<Refreshed>) -> Self {
        Self(Arc::new(Shared { refreshed, hold: None }))
    }

    /// Returns what a response that is about to be sent delivers: the latest session of the family, since a slow response
    /// must not replace newer cookies.
    ///
    /// # Errors
    ///
    /// When there was a logout meanwhile, and when the token was rotated and its successor has no session.
    pub(crate) fn latest(&self) -> Result<Arc<Refreshed>, AuthErrorKind> {
        let Shared { refreshed, hold } = &*self.0;
        match hold.as_ref().map_or(Latest::Same, GraceHold::deliver) {
            Latest::Same => Ok(Arc::clone(refreshed)),
            Latest::Other(latest) => Ok(latest),
            Latest::Revoked => Err(AuthErrorKind::Refused),
            Latest::Superseded => Err(AuthErrorKind::Unavailable),
        }
    }
}

impl Deref for Delivery {
    type Target = Refreshed;

    fn deref(&self) -> &Refreshed {
        &self.0.refreshed
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Delivery").field(&self.0.refreshed).finish()
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

impl GraceHold {
    fn deliver(&self) -> Latest {
        let now = Instant::now();
        let latest = self.flights.state().grace.deliver(&self.digest, now);
        // The family of a token is evicted sooner or later, and with it the logout; the flag outlives it. `Acquire` pairs
        // with the `Release` of the logout, whatever the lock orders.
        if self.is_revoked.load(Ordering::Acquire) { Latest::Revoked } else { latest }
    }
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
