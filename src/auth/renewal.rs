//! One renewal per refresh token, however many requests carry it.
//!
//! Crossmint's refresh tokens are spent by their first use, and using one again ends the session. So:
//!
//! 1. While a token is being renewed, all who carry it wait for that one renewal.
//! 2. Afterwards, a rotated token resolves to its latest successor for a grace period (see [`grace`](super::grace)), and is
//!    not sent again.
//! 3. A token that Crossmint has refused is not sent again for [`REFUSAL_MEMORY`]; one whose answer could not be used,
//!    for a pause that doubles each time; one that Crossmint has limited, for as long as it asked for.
//! 4. After [`MAX_PATIENCE`] limits in a row, no token at all is sent for that long.
//! 5. A successor whose JWT cannot be used or verified is not lost: it is what is sent next.
//! 6. A logout ends the whole family of a token: responses that still have to deliver a successor no longer do, and a
//!    renewal that it overtakes hands out nothing.
//!
//! Tokens are looked up by their SHA-256 digest. Nothing slower than such a look-up happens under the lock.

use std::{
    collections::HashMap,
    fmt,
    ops::Deref,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;
use lru::LruCache;
use tokio::{sync::watch, time::Instant};

use super::grace::{Digest, FamilyId, Grace, Latest, Renewal};
use crate::{
    error::{AuthError, AuthErrorKind},
    secret::Secret,
    sync::{AtomicBool, Mutex, MutexGuard},
};

/// A renewed session on its way to a browser.
///
/// The grace period of the tokens that it replaces starts when the last clone is dropped: once the response is on its
/// way, or nobody is left to receive it.
#[derive(Clone)]
pub(crate) struct Handout(Arc<Delivery>);

struct Delivery {
    renewal: Arc<Renewal>,
    /// `None` where nothing is remembered.
    hold: Option<Hold>,
}

impl Handout {
    /// Hands out what will not be remembered.
    pub(crate) fn without_grace(renewal: Arc<Renewal>) -> Self {
        Self(Arc::new(Delivery { renewal, hold: None }))
    }

    /// Returns what a response that is about to be sent delivers: the latest session of the family, since a slow response
    /// must not replace newer cookies.
    ///
    /// # Errors
    ///
    /// When there was a logout meanwhile, and when the token was rotated and its successor has no session.
    pub(crate) fn deliver(&self) -> Result<Arc<Renewal>, AuthErrorKind> {
        let Delivery { renewal, hold } = &*self.0;
        match hold.as_ref().map_or(Latest::Same, Hold::deliver) {
            Latest::Same => Ok(Arc::clone(renewal)),
            Latest::Other(latest) => Ok(latest),
            Latest::Ended => Err(AuthErrorKind::Refused),
            Latest::Superseded => Err(AuthErrorKind::Unavailable),
        }
    }

    fn is_of(&self, renewal: &Arc<Renewal>) -> bool {
        Arc::ptr_eq(&self.0.renewal, renewal)
    }
}

impl Deref for Handout {
    type Target = Renewal;

    fn deref(&self) -> &Renewal {
        &self.0.renewal
    }
}

impl fmt::Debug for Handout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handout").field(&self.0.renewal).finish()
    }
}

/// Keeps the grace period of a family from starting, until it is dropped. Never drop one while the state is locked.
struct Hold {
    renewals: Arc<Renewals>,
    family: FamilyId,
    /// The token that is handed out.
    digest: Digest,
    is_ended: Arc<AtomicBool>,
}

impl Hold {
    fn deliver(&self) -> Latest {
        let now = Instant::now();
        let latest = self.renewals.state().grace.deliver(&self.digest, now);
        // The family of a token is forgotten sooner or later, and a logout with it.
        if self.is_ended.load(Ordering::Acquire) { Latest::Ended } else { latest }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let now = Instant::now();
        self.renewals.state().grace.release(self.family, now);
    }
}

pub(crate) type Outcome = Result<Handout, Failure>;

/// A renewal that failed.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) error: AuthError,
    /// What Crossmint handed out all the same.
    pub(crate) rescued: Option<Arc<Rescued>>,
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Self { error, rescued: None }
    }
}

impl From<AuthErrorKind> for Failure {
    fn from(kind: AuthErrorKind) -> Self {
        AuthError::of(kind).into()
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("error", &self.error).field("rescued", &self.rescued).finish()
    }
}

/// A successor without a verified session.
#[derive(Debug)]
pub(crate) struct Rescued {
    pub(crate) token: Secret,
    /// Delivers a pair that only lacks a key to verify it. Without these fields, the JWT or the token cannot be used.
    pub(crate) set_cookie: Option<[HeaderValue; 2]>,
}

/// All renewals under way, and what became of the recent ones.
pub(crate) struct Renewals {
    max_under_way: usize,
    state: Mutex<State>,
}

struct State {
    under_way: HashMap<Digest, Flight>,
    grace: Grace,
    pauses: LruCache<Digest, Pause>,
    /// How often in a row Crossmint has asked for patience, and until when.
    impatience: u32,
    pause: Option<(AuthError, Instant)>,
}

struct Flight {
    pending: Pending,
    logged_out: bool,
}

/// Why a token is not sent again for a while.
struct Pause {
    error: AuthError,
    until: Instant,
    /// How many unusable answers there were in a row.
    mishaps: u32,
}

/// A renewal that another task carries out, for whoever waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Pending(watch::Receiver<Option<Outcome>>);

impl Pending {
    pub(crate) async fn outcome(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone()) {
            Some(outcome) => outcome,
            None => Err(AuthError::new(AuthErrorKind::Unavailable, "the renewal was interrupted").into()),
        }
    }
}

/// What there is for a refresh token.
#[derive(Debug)]
pub(crate) enum Entry {
    /// It has just been renewed. The session may have expired meanwhile.
    Renewed(Handout),
    /// It is being renewed.
    UnderWay(Pending),
    /// It is not to be sent now.
    Refused(AuthError),
    /// The caller renews the ticket's token, in a task of its own.
    Yours(Ticket, Pending),
    /// Too many others are being renewed.
    Full,
}

/// What a logout has ended here.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) jwts: Vec<Secret>,
    pub(crate) revocation: Revocation,
}

/// What is to be ended at Crossmint.
#[derive(Debug)]
pub(crate) enum Revocation {
    /// The latest token of the family.
    Now(Secret),
    /// What the renewal under way brings: its task sees to it.
    AfterRenewal(Pending),
}

impl Renewals {
    pub(crate) fn new(grace_period: Duration, grace_bytes: usize, max_under_way: usize) -> Self {
        let state = State {
            under_way: HashMap::new(),
            grace: Grace::new(grace_period, grace_bytes),
            pauses: LruCache::unbounded(),
            impatience: 0,
            pause: None,
        };
        Self { max_under_way, state: Mutex::new(state) }
    }

    /// Decides what a request with this refresh token does.
    ///
    /// A handout whose session is no longer valid is brought back as `expired`: its successor is renewed then. It is the
    /// caller that checks, since it may have to verify a signature.
    pub(crate) fn enter(self: &Arc<Self>, token: Secret, expired: Option<&Handout>) -> Entry {
        let presented = digest_of(&token);
        let now = Instant::now();
        let mut state = self.state();
        state.forget_old(now);
        let known = state.grace.find(&presented, now);
        if known.as_ref().is_some_and(|known| known.is_ended) {
            return Entry::Refused(AuthError::of(AuthErrorKind::Refused));
        }
        let digest = known.as_ref().map_or(presented, |known| known.current);
        if let Some(flight) = state.under_way.get(&digest) {
            return Entry::UnderWay(flight.pending.clone());
        }
        let pause = state.pauses.peek(&digest).filter(|pause| pause.until > now);
        let is_over = pause.is_some_and(|pause| pause.error.kind() == AuthErrorKind::Refused);
        if let Some(known) = &known
            && let Some(renewal) = known.renewal
            && !is_over
            && !expired.is_some_and(|expired| expired.is_of(renewal))
        {
            let (renewal, family) = (Arc::clone(renewal), known.family);
            return Entry::Renewed(self.hand_out(&mut state, renewal, (family, digest), now));
        }
        if let Some((error, until)) = pause
            .map(|pause| (&pause.error, pause.until))
            .or(state.pause.as_ref().map(|(error, until)| (error, *until)))
        {
            return Entry::Refused(error.clone().retry_after(Some(until - now)));
        }
        let (token, family) = match known {
            Some(known) => (known.token.clone(), Some(known.family)),
            None => (token, None),
        };
        if state.under_way.len() >= self.max_under_way {
            return Entry::Full;
        }
        let (sender, receiver) = watch::channel(None);
        let pending = Pending(receiver);
        state.under_way.insert(digest, Flight { pending: pending.clone(), logged_out: false });
        let hold = family.map(|family| self.hold(&mut state, (family, digest), now));
        Entry::Yours(Ticket { renewals: Arc::clone(self), digest, token, sender: Some(sender), _hold: hold }, pending)
    }

    /// Ends the session of this refresh token and of its whole family.
    pub(crate) fn end(&self, token: Secret) -> Ended {
        let presented = digest_of(&token);
        let now = Instant::now();
        let mut state = self.state();
        state.forget_old(now);
        let until = now + state.logout_memory();
        let ended = state.grace.end(&presented, until, now);
        let is_known = ended.is_some();
        let (digest, token, jwts) = match ended {
            Some(family) => (family.current, family.token, family.jwts),
            None => (presented, token, Vec::new()),
        };
        let revocation = if let Some(flight) = state.under_way.get_mut(&digest) {
            flight.logged_out = true;
            Revocation::AfterRenewal(flight.pending.clone())
        } else {
            if !is_known {
                state.sign_out(digest, now);
            }
            Revocation::Now(token)
        };
        Ended { jwts, revocation }
    }

    fn hand_out(
        self: &Arc<Self>,
        state: &mut State,
        renewal: Arc<Renewal>,
        current: (FamilyId, Digest),
        now: Instant,
    ) -> Handout {
        Handout(Arc::new(Delivery { renewal, hold: Some(self.hold(state, current, now)) }))
    }

    fn hold(self: &Arc<Self>, state: &mut State, (family, digest): (FamilyId, Digest), now: Instant) -> Hold {
        state.grace.hold(family, now);
        let is_ended = state.grace.is_ended(family).unwrap_or_default();
        Hold { renewals: Arc::clone(self), family, digest, is_ended }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Renewals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewals").field("max_under_way", &self.max_under_way).finish_non_exhaustive()
    }
}

impl State {
    /// Remembers what a failure says about the next attempt to send `next`, where `digest` was sent. Returns for how long
    /// that has to wait, if the failure is one of the answer's.
    fn learn(&mut self, digest: Digest, next: Digest, error: &AuthError, now: Instant) -> Option<Duration> {
        let mishaps = self.pauses.pop(&digest).map_or(0, |pause| pause.mishaps);
        let kind = error.kind();
        let (memory, mishaps) = match kind {
            AuthErrorKind::Refused => (REFUSAL_MEMORY, 0),
            AuthErrorKind::UnusableAnswer => (mishap_pause(mishaps), mishaps.saturating_add(1)),
            AuthErrorKind::RateLimited => (error.delay(), 0),
            _ => {
                self.impatience = 0;
                return None;
            }
        };
        self.refuse(next, Pause { error: error.clone(), until: now + memory, mishaps });
        if kind == AuthErrorKind::RateLimited {
            self.impatience = self.impatience.saturating_add(1);
            if self.impatience >= MAX_PATIENCE {
                self.pause = Some((error.clone(), now + memory));
            }
        } else {
            self.impatience = 0;
        }
        (kind == AuthErrorKind::UnusableAnswer).then_some(memory)
    }

    /// Refuses a token whose session was signed out, for as long as anybody may still come with it.
    fn sign_out(&mut self, digest: Digest, now: Instant) {
        let until = now + self.logout_memory();
        self.refuse(digest, Pause { error: AuthError::of(AuthErrorKind::Refused), until, mishaps: 0 });
    }

    fn logout_memory(&self) -> Duration {
        REFUSAL_MEMORY.max(self.grace.period())
    }

    fn refuse(&mut self, digest: Digest, pause: Pause) {
        self.pauses.put(digest, pause);
        if self.pauses.len() > MAX_PAUSES {
            self.pauses.pop_lru();
        }
    }

    fn forget_old(&mut self, now: Instant) {
        self.grace.sweep(now);
        self.pause.take_if(|(_, until)| *until <= now);
        // What one operation adds, and one more. The number of mishaps is worth remembering beyond the pause.
        for _ in 0..2 {
            let is_old = |pause: &Pause| pause.until + mishap_pause(pause.mishaps) <= now;
            if self.pauses.peek_lru().is_some_and(|(_, pause)| is_old(pause)) {
                self.pauses.pop_lru();
            }
        }
    }
}

/// The duty to renew one token. Dropped unsettled (a panic, a runtime that shuts down), it sets the token free.
pub(crate) struct Ticket {
    renewals: Arc<Renewals>,
    digest: Digest,
    token: Secret,
    sender: Option<watch::Sender<Option<Outcome>>>,
    /// Whoever waits for this renewal still has a rotated token.
    _hold: Option<Hold>,
}

/// What is left to do when a renewal has ended.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The token to revoke at Crossmint: a logout has overtaken the renewal.
    pub(crate) revoked: Option<Secret>,
    /// How many rotated tokens of others have been forgotten before their time, for want of memory.
    pub(crate) evicted: usize,
}

impl Ticket {
    /// Returns the token to send to Crossmint.
    pub(crate) fn token(&self) -> &Secret {
        &self.token
    }

    /// Lets those go who wait for the renewal, while it goes on.
    pub(crate) fn dismiss(&self, error: AuthError) {
        if let Some(sender) = &self.sender {
            sender.send_replace(Some(Err(error.into())));
        }
    }

    /// Ends the renewal.
    pub(crate) fn settle(mut self, outcome: Result<Renewal, Failure>) -> Settled {
        let successor = match &outcome {
            Ok(renewal) => Some(renewal.session.refresh_token().secret().into()),
            Err(failure) => failure.rescued.as_ref().map(|rescued| rescued.token.clone()),
        };
        let successor = successor.map(|token: Secret| (digest_of(&token), token));
        let now = Instant::now();
        let renewals = Arc::clone(&self.renewals);
        let mut settled = Settled::default();
        let mut state = renewals.state();
        let logged_out = state.under_way.remove(&self.digest).is_some_and(|flight| flight.logged_out);
        // Without a grace period, nothing is remembered of a token.
        let remembered = successor.clone().filter(|_| !logged_out && !state.grace.period().is_zero());
        let outcome = match outcome {
            outcome if logged_out => {
                state.impatience = 0;
                state.sign_out(self.digest, now);
                let is_over = outcome.is_err_and(|failure| failure.error.kind() == AuthErrorKind::Refused);
                settled.revoked = (!is_over).then(|| successor.map_or_else(|| self.token.clone(), |(_, token)| token));
                Err(AuthErrorKind::Refused.into())
            }
            Ok(renewal) => {
                state.impatience = 0;
                state.pauses.pop(&self.digest);
                let renewal = Arc::new(renewal);
                Ok(match remembered {
                    Some(successor) => {
                        let digest = successor.0;
                        let outcome = state.grace.rotate(self.digest, successor, Some(Arc::clone(&renewal)), now);
                        settled.evicted = outcome.evicted;
                        renewals.hand_out(&mut state, renewal, (outcome.family, digest), now)
                    }
                    None => Handout::without_grace(renewal),
                })
            }
            Err(mut failure) => {
                let next = remembered.as_ref().map_or(self.digest, |(digest, _)| *digest);
                if let Some(successor) = remembered {
                    settled.evicted = state.grace.rotate(self.digest, successor, None, now).evicted;
                }
                // Where a pair only lacks a key, it is the key set that failed.
                if failure.rescued.as_ref().is_none_or(|rescued| rescued.set_cookie.is_none()) {
                    let pause = state.learn(self.digest, next, &failure.error, now);
                    if pause.is_some() {
                        failure.error = failure.error.retry_after(pause);
                    }
                }
                Err(failure)
            }
        };
        drop(state);
        if let Some(sender) = self.sender.take() {
            sender.send_replace(Some(outcome));
        }
        settled
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.sender.is_some() {
            let now = Instant::now();
            let mut state = self.renewals.state();
            if state.under_way.remove(&self.digest).is_some_and(|flight| flight.logged_out) {
                state.sign_out(self.digest, now);
            }
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

/// Returns how long a token rests after so many unusable answers, and one more.
fn mishap_pause(mishaps: u32) -> Duration {
    MIN_MISHAP_PAUSE.saturating_mul(1 << mishaps.min(5)).min(MAX_MISHAP_PAUSE)
}

pub(crate) fn digest_of(token: &str) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

const REFUSAL_MEMORY: Duration = Duration::from_secs(30);
const MIN_MISHAP_PAUSE: Duration = Duration::from_secs(1);
const MAX_MISHAP_PAUSE: Duration = Duration::from_secs(30);
const MAX_PATIENCE: u32 = 10;
const MAX_PAUSES: usize = 10_000;

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
