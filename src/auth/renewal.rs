//! One renewal per refresh token, however many requests carry it.
//!
//! Crossmint's refresh tokens are spent by their first use, and using one again ends the session. So:
//!
//! 1. While a token is being renewed, all who carry it wait for that one renewal.
//! 2. For a while after, a spent token leads to its successor, and on to the latest one; it is never sent again. The
//!    while lasts at least until every response that carries the successor is on its way.
//! 3. A token that Crossmint has refused is not sent again for [`REFUSAL_MEMORY`]; one whose answer could not be used,
//!    for [`MISHAP_MEMORY`]; one that Crossmint wants to see later, until then.
//! 4. After [`MAX_PATIENCE`] wishes of that kind in a row, no token at all is sent until then.
//! 5. A successor whose JWT could not be verified for want of a key is not lost: it is what is sent next.
//! 6. A logout ends the whole chain, whichever of its tokens it comes with: successors are forgotten, responses that are
//!    still to carry them no longer do, and a renewal that it overtakes hands out nothing.
//!
//! Tokens are looked up by their SHA-256 digest and not kept.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;
use lru::LruCache;
use tokio::{sync::watch, time::Instant};

use crate::{
    error::{AuthError, AuthErrorKind},
    secret::Secret,
    session::Session,
    sync::{AtomicBool, Mutex, MutexGuard},
};

/// A renewed session, and the `Set-Cookie` fields that hand it to the browser.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) session: Session,
    set_cookie: [HeaderValue; 2],
    /// The size of Crossmint's answer, of which the session holds some.
    bytes: usize,
    is_ended: AtomicBool,
}

impl Renewal {
    pub(crate) fn new(session: Session, set_cookie: [HeaderValue; 2], bytes: usize) -> Self {
        Self { session, set_cookie, bytes, is_ended: AtomicBool::new(false) }
    }

    /// Returns the fields for a response that is about to be sent: none if there was a logout meanwhile.
    pub(crate) fn set_cookie(&self) -> &[HeaderValue] {
        if self.is_ended.load(Ordering::Acquire) { &[] } else { &self.set_cookie }
    }
}

pub(crate) type Outcome = Result<Arc<Renewal>, Failure>;

/// A renewal that failed.
#[derive(Clone, Debug)]
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
        AuthError::from(kind).into()
    }
}

/// A successor that could not be verified, and the `Set-Cookie` fields that keep it from being lost.
#[derive(Debug)]
pub(crate) struct Rescued {
    pub(crate) token: Secret,
    pub(crate) set_cookie: [HeaderValue; 2],
}

/// All renewals under way, and what became of the recent ones.
#[derive(Debug)]
pub(crate) struct Renewals {
    window: Duration,
    max_under_way: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    under_way: HashMap<Digest, Flight>,
    renewed: LruCache<Digest, Renewed>,
    renewed_bytes: usize,
    /// The spent token of each successor.
    predecessors: HashMap<Digest, Digest>,
    refused: LruCache<Digest, (AuthError, Instant)>,
    /// How often in a row Crossmint has asked for patience, and until when.
    impatience: u32,
    pause: Option<(AuthError, Instant)>,
}

#[derive(Debug)]
struct Flight {
    pending: Pending,
    logged_out: bool,
}

#[derive(Debug)]
struct Renewed {
    /// None if the successor could not be verified.
    renewal: Option<Arc<Renewal>>,
    token: Secret,
    successor: Digest,
    until: Instant,
    at_most: Instant,
}

impl Renewed {
    fn new(renewal: Option<Arc<Renewal>>, token: Secret, window: Duration) -> Self {
        let (now, successor) = (Instant::now(), digest_of(&token));
        Self { renewal, token, successor, until: now + window, at_most: now + MAX_WINDOW }
    }

    /// Tells whether a response that carries the successor is still to be sent.
    fn is_awaited(&self) -> bool {
        self.renewal.as_ref().is_some_and(|renewal| Arc::strong_count(renewal) > 1)
    }
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
    /// It has just been renewed.
    Renewed(Arc<Renewal>),
    /// It is being renewed.
    UnderWay(Pending),
    /// It has just been refused.
    Refused(AuthError),
    /// The caller renews the ticket's token, in a task of its own.
    Yours(Ticket, Pending),
    /// Too many others are being renewed.
    Full,
}

/// What a logout has ended here.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) sessions: Vec<Session>,
    pub(crate) revocation: Revocation,
}

/// What is to be ended at Crossmint.
#[derive(Debug)]
pub(crate) enum Revocation {
    /// The latest token of the chain.
    Now(Secret),
    /// What the renewal under way brings: its task sees to it.
    AfterRenewal(Pending),
}

impl Renewals {
    pub(crate) fn new(window: Duration, max_under_way: usize) -> Self {
        let state = State {
            under_way: HashMap::new(),
            renewed: LruCache::unbounded(),
            renewed_bytes: 0,
            predecessors: HashMap::new(),
            refused: LruCache::unbounded(),
            impatience: 0,
            pause: None,
        };
        Self { window, max_under_way, state: Mutex::new(state) }
    }

    /// Decides what a request with this refresh token does. `is_valid` tells whether a renewed session still is.
    pub(crate) fn enter(self: &Arc<Self>, token: Secret, is_valid: impl Fn(&Session) -> bool) -> Entry {
        let mut state = self.state();
        state.forget_old(self.window);
        let (digest, latest) = state.follow(digest_of(&token));
        if let Some(flight) = state.under_way.get(&digest) {
            return Entry::UnderWay(flight.pending.clone());
        }
        let refused = state.refused.peek(&digest).filter(|(_, until)| *until > Instant::now());
        let is_over = refused.is_some_and(|(error, _)| error.kind() == AuthErrorKind::Refused);
        if let Some(renewal) = latest.and_then(|latest| latest.renewal.as_ref())
            && !is_over
            && is_valid(&renewal.session)
        {
            return Entry::Renewed(Arc::clone(renewal));
        }
        if let Some((error, _)) = refused.or(state.pause.as_ref()) {
            return Entry::Refused(error.clone());
        }
        let token = latest.map_or(token, |latest| latest.token.clone());
        if state.under_way.len() >= self.max_under_way {
            return Entry::Full;
        }
        let (sender, receiver) = watch::channel(None);
        let pending = Pending(receiver);
        state.under_way.insert(digest, Flight { pending: pending.clone(), logged_out: false });
        Entry::Yours(Ticket { renewals: Arc::clone(self), digest, token, sender: Some(sender) }, pending)
    }

    /// Ends the session of this refresh token and of all that have succeeded it.
    pub(crate) fn end(&self, token: Secret) -> Ended {
        let mut state = self.state();
        state.forget_old(self.window);
        let mut digest = state.first_of(digest_of(&token));
        let mut latest = token;
        let mut sessions = Vec::new();
        while let Some(renewed) = state.forget(&digest) {
            state.sign_out(digest, self.window);
            latest = renewed.token;
            digest = renewed.successor;
            if let Some(renewal) = renewed.renewal {
                renewal.is_ended.store(true, Ordering::Release);
                sessions.push(renewal.session.clone());
            }
        }
        let revocation = if let Some(flight) = state.under_way.get_mut(&digest) {
            flight.logged_out = true;
            Revocation::AfterRenewal(flight.pending.clone())
        } else {
            state.sign_out(digest, self.window);
            Revocation::Now(latest)
        };
        Ended { sessions, revocation }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Follows a token to its latest successor. A chain is as long as the window has renewals; a circle ends.
    fn follow(&self, mut digest: Digest) -> (Digest, Option<&Renewed>) {
        let mut latest = None;
        for _ in 0..=self.renewed.len() {
            let Some(renewed) = self.renewed.peek(&digest) else { break };
            latest = Some(renewed);
            if digest == renewed.successor {
                break;
            }
            digest = renewed.successor;
        }
        (digest, latest)
    }

    /// Goes back to the first token of a chain.
    fn first_of(&self, mut digest: Digest) -> Digest {
        for _ in 0..self.predecessors.len() {
            let Some(predecessor) = self.predecessors.get(&digest) else { break };
            digest = *predecessor;
        }
        digest
    }

    fn remember(&mut self, digest: Digest, renewed: Renewed) {
        // Of a token that is not replaced: no logout would find the older one.
        if let Some(Renewed { renewal: Some(older), .. }) = self.forget(&digest) {
            older.is_ended.store(true, Ordering::Release);
        }
        self.renewed_bytes += cost(&renewed);
        self.predecessors.insert(renewed.successor, digest);
        self.renewed.put(digest, renewed);
        while self.renewed_bytes > MAX_RENEWED_BYTES {
            let Some(oldest) = self.renewed.peek_lru().map(|(digest, _)| *digest) else { break };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, digest: &Digest) -> Option<Renewed> {
        let renewed = self.renewed.pop(digest)?;
        self.renewed_bytes -= cost(&renewed);
        if self.predecessors.get(&renewed.successor) == Some(digest) {
            self.predecessors.remove(&renewed.successor);
        }
        Some(renewed)
    }

    /// Remembers what a failure says about the next attempt.
    fn learn(&mut self, digest: Digest, error: &AuthError, now: Instant) {
        let memory = match error.kind() {
            AuthErrorKind::Refused => REFUSAL_MEMORY,
            AuthErrorKind::UnusableAnswer => MISHAP_MEMORY,
            AuthErrorKind::RateLimited => error.delay(),
            _ => {
                self.impatience = 0;
                return;
            }
        };
        self.refuse(digest, error.clone(), now + memory);
        if error.kind() == AuthErrorKind::RateLimited {
            self.impatience = self.impatience.saturating_add(1);
            if self.impatience >= MAX_PATIENCE {
                self.pause = Some((error.clone(), now + memory));
            }
        } else {
            self.impatience = 0;
        }
    }

    /// Refuses a token whose session was signed out, for as long as anybody may still come with it.
    fn sign_out(&mut self, digest: Digest, window: Duration) {
        self.refuse(digest, AuthErrorKind::Refused.into(), Instant::now() + REFUSAL_MEMORY.max(window));
    }

    fn refuse(&mut self, digest: Digest, error: AuthError, until: Instant) {
        self.refused.put(digest, (error, until));
        if self.refused.len() > MAX_REFUSED {
            self.refused.pop_lru();
        }
    }

    fn forget_old(&mut self, window: Duration) {
        let now = Instant::now();
        while let Some((&digest, oldest)) = self.renewed.peek_lru()
            && oldest.until <= now
        {
            let Some(mut oldest) = self.forget(&digest) else { break };
            // What is still to be handed out leads on, too.
            let is_led_to = self.predecessors.contains_key(&digest);
            if (oldest.is_awaited() || is_led_to) && now < oldest.at_most {
                oldest.until = now + window;
                self.remember(digest, oldest);
            }
        }
        self.pause.take_if(|(_, until)| *until <= now);
        while self.refused.peek_lru().is_some_and(|(_, (_, until))| *until <= now) {
            self.refused.pop_lru();
        }
    }
}

/// The duty to renew one token. Dropped unsettled (a panic, a runtime that shuts down), it sets the token free.
#[derive(Debug)]
pub(crate) struct Ticket {
    renewals: Arc<Renewals>,
    digest: Digest,
    token: Secret,
    sender: Option<watch::Sender<Option<Outcome>>>,
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

    /// Ends the renewal. Returns the token to revoke at Crossmint, if a logout has overtaken the renewal.
    #[must_use]
    pub(crate) fn settle(mut self, outcome: Outcome) -> Option<Secret> {
        let now = Instant::now();
        let mut state = self.renewals.state();
        let logged_out = state.under_way.remove(&self.digest).is_some_and(|flight| flight.logged_out);
        let (outcome, revoked) = match outcome {
            outcome if !logged_out => (outcome, None),
            Ok(renewal) => (Err(AuthErrorKind::Refused.into()), Some(renewal.session.refresh_token().secret().into())),
            Err(failure) if failure.error.kind() == AuthErrorKind::Refused => (Err(failure), None),
            Err(Failure { rescued, .. }) => {
                let token = rescued.map_or_else(|| self.token.clone(), |rescued| rescued.token.clone());
                (Err(AuthErrorKind::Refused.into()), Some(token))
            }
        };
        let window = self.renewals.window;
        let successor = match &outcome {
            Ok(renewal) => {
                let token = renewal.session.refresh_token().secret().into();
                Some(Renewed::new(Some(Arc::clone(renewal)), token, window))
            }
            Err(_) if logged_out => {
                state.sign_out(self.digest, window);
                None
            }
            Err(failure) => {
                // Of a rescue, it is the key set that failed.
                if failure.rescued.is_none() {
                    state.learn(self.digest, &failure.error, now);
                }
                failure.rescued.as_ref().map(|rescued| Renewed::new(None, rescued.token.clone(), window))
            }
        };
        if let Some(successor) = successor.filter(|_| !window.is_zero()) {
            state.remember(self.digest, successor);
        }
        if outcome.is_ok() || logged_out {
            state.impatience = 0;
        }
        drop(state);
        if let Some(sender) = self.sender.take() {
            sender.send_replace(Some(outcome));
        }
        revoked
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.sender.is_some() {
            let mut state = self.renewals.state();
            if state.under_way.remove(&self.digest).is_some_and(|flight| flight.logged_out) {
                state.sign_out(self.digest, self.renewals.window);
            }
        }
    }
}

type Digest = [u8; 32];

fn digest_of(token: &str) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

fn cost(renewed: &Renewed) -> usize {
    // The session's strings stand in the `Set-Cookie` fields once more.
    ENTRY_BYTES + renewed.renewal.as_ref().map_or(0, |renewal| renewal.bytes + 2 * renewal.session.cost())
}

const REFUSAL_MEMORY: Duration = Duration::from_secs(30);
const MISHAP_MEMORY: Duration = Duration::from_secs(5);
const MAX_PATIENCE: u32 = 10;

/// For how long a handler that is not done keeps the successor of its session in memory.
const MAX_WINDOW: Duration = Duration::from_secs(300);
const MAX_REFUSED: usize = 10_000;
const MAX_RENEWED_BYTES: usize = 16 << 20;
const ENTRY_BYTES: usize = 512;

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
