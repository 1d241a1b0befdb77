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
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
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
        let until = Instant::now() + REFUSAL_MEMORY.max(self.window);
        let mut digest = state.first_of(digest_of(&token));
        let mut latest = token;
        let mut sessions = Vec::new();
        while let Some(renewed) = state.forget(&digest) {
            state.refuse(digest, AuthErrorKind::Refused.into(), until);
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
            state.refuse(digest, AuthErrorKind::Refused.into(), until);
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
        self.forget(&digest);
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
            if oldest.is_awaited() && now < oldest.at_most {
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
            Err(failure) => {
                state.learn(self.digest, &failure.error, now);
                failure.rescued.as_ref().map(|rescued| Renewed::new(None, rescued.token.clone(), window))
            }
        };
        if let Some(successor) = successor.filter(|_| !window.is_zero()) {
            state.remember(self.digest, successor);
        }
        if outcome.is_ok() {
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
            self.renewals.state().under_way.remove(&self.digest);
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
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::session::{AuthMaterial, RefreshToken, Verified};

    const WINDOW: Duration = Duration::from_secs(30);

    fn renewals() -> Arc<Renewals> {
        Arc::new(Renewals::new(WINDOW, 2))
    }

    fn renewed_to(token: &str) -> Outcome {
        let verified = Verified { user_id: "alice".into(), expires_at: 0, generation: 0 };
        let session = Session::new(verified, AuthMaterial::new("jwt", RefreshToken::new(token)));
        let cookie = HeaderValue::from_static("c");
        Ok(Arc::new(Renewal::new(session, [cookie.clone(), cookie], 0)))
    }

    fn refused() -> Outcome {
        Err(AuthErrorKind::Refused.into())
    }

    fn ticket(renewals: &Arc<Renewals>, token: &str) -> Ticket {
        match renewals.enter(token.into(), |_| true) {
            Entry::Yours(ticket, _) => ticket,
            other => panic!("{token}: {other:?}"),
        }
    }

    fn renew(renewals: &Arc<Renewals>, token: &str, successor: &str) {
        assert!(ticket(renewals, token).settle(renewed_to(successor)).is_none());
    }

    /// Says in a word what a request with this token gets.
    fn outcome(renewals: &Arc<Renewals>, token: &str) -> String {
        match renewals.enter(token.into(), |_| true) {
            Entry::Renewed(renewal) => renewal.session.refresh_token().secret().to_owned(),
            Entry::UnderWay(_) => "under way".into(),
            Entry::Refused(error) => format!("{:?}", error.kind()),
            Entry::Yours(ticket, _) => format!("sends {}", &**ticket.token()),
            Entry::Full => "full".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_spent_token_leads_to_the_latest_of_its_chain_and_no_longer_than_the_window() {
        let renewals = renewals();
        renew(&renewals, "a", "b");
        renew(&renewals, "b", "c");
        assert_eq!((outcome(&renewals, "a"), outcome(&renewals, "b")), ("c".into(), "c".into()));
        assert_eq!(outcome(&renewals, "c"), "sends c");
        advance(WINDOW).await;
        assert_eq!(outcome(&renewals, "a"), "sends a");
        assert_eq!(renewals.state().renewed_bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_successor_that_has_expired_is_renewed_in_place_of_the_spent_token() {
        let renewals = renewals();
        renew(&renewals, "a", "b");
        match renewals.enter("a".into(), |_| false) {
            Entry::Yours(ticket, _) => assert_eq!(&**ticket.token(), "b"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_are_not_replaced_and_circles_come_to_an_end() {
        let renewals = renewals();
        renew(&renewals, "a", "a");
        assert_eq!(outcome(&renewals, "a"), "a");
        assert!(matches!(renewals.enter("a".into(), |_| false), Entry::Yours(..)));
        renew(&renewals, "b", "c");
        renew(&renewals, "c", "b");
        let _ = outcome(&renewals, "b");
        assert!(matches!(renewals.end("b".into()).revocation, Revocation::Now(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn only_verdicts_are_remembered() {
        let renewals = renewals();
        assert!(ticket(&renewals, "a").settle(refused()).is_none());
        assert!(ticket(&renewals, "b").settle(Err(AuthErrorKind::UnusableAnswer.into())).is_none());
        assert!(ticket(&renewals, "c").settle(Err(AuthErrorKind::Unavailable.into())).is_none());
        let all = || ["a", "b", "c"].map(|token| outcome(&renewals, token));
        assert_eq!(all(), ["Refused", "UnusableAnswer", "sends c"]);
        advance(MISHAP_MEMORY).await;
        assert_eq!(all(), ["Refused", "sends b", "sends c"]);
        advance(REFUSAL_MEMORY).await;
        assert_eq!(all(), ["sends a", "sends b", "sends c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_is_dropped_sets_its_token_free() {
        let renewals = renewals();
        let Entry::Yours(ticket, waiting) = renewals.enter("a".into(), |_| true) else { panic!("not ours") };
        assert_eq!(outcome(&renewals, "a"), "under way");
        drop(ticket);
        assert_eq!(waiting.outcome().await.unwrap_err().error.kind(), AuthErrorKind::Unavailable);
        assert_eq!(outcome(&renewals, "a"), "sends a");
    }

    #[tokio::test(start_paused = true)]
    async fn a_logout_ends_the_whole_chain() {
        let renewals = renewals();
        renew(&renewals, "a", "b");
        renew(&renewals, "b", "c");
        match renewals.end("b".into()) {
            Ended { sessions, revocation: Revocation::Now(latest) } => {
                assert_eq!((&*latest, sessions.len()), ("c", 2));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(["a", "b", "c"].map(|token| outcome(&renewals, token)), ["Refused"; 3]);
        assert!(renewals.state().predecessors.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_logouts_does_not_bring_a_session_back() {
        let renewals = renewals();
        renew(&renewals, "a", "b");
        let _ = renewals.end("b".into());
        for number in 0..MAX_REFUSED {
            let _ = renewals.end(format!("junk{number}").as_str().into());
        }
        assert_eq!(outcome(&renewals, "a"), "sends a");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mishap_of_the_successor_does_not_end_latecomers() {
        let renewals = renewals();
        renew(&renewals, "a", "b");
        // A browser that renews ahead of time, by the refresh route.
        let ticket = ticket(&renewals, "b");
        assert_eq!(outcome(&renewals, "a"), "under way");
        assert!(ticket.settle(Err(AuthErrorKind::UnusableAnswer.into())).is_none());
        assert_eq!(outcome(&renewals, "a"), "b");
        assert_eq!(outcome(&renewals, "b"), "UnusableAnswer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_logout_overtakes_the_renewal_under_way() {
        let cases = [
            ("it succeeds", renewed_to("b"), Some("b")),
            ("it is refused", refused(), None),
            ("nobody knows", Err(AuthErrorKind::Unavailable.into()), Some("a")),
        ];
        for (name, result, revoked) in cases {
            let renewals = renewals();
            let Entry::Yours(ticket, waiting) = renewals.enter("a".into(), |_| true) else { panic!("not ours") };
            assert!(matches!(renewals.end("a".into()).revocation, Revocation::AfterRenewal(_)), "{name}");
            assert_eq!(ticket.settle(result).as_deref(), revoked, "{name}");
            let outcome_of_waiting = waiting.outcome().await;
            assert_eq!(outcome_of_waiting.unwrap_err().error.kind(), AuthErrorKind::Refused, "{name}");
            assert_eq!(outcome(&renewals, "a"), "Refused", "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn everything_is_bounded() {
        let renewals = renewals();
        let (_one, _two) = (ticket(&renewals, "1"), ticket(&renewals, "2"));
        assert_eq!(outcome(&renewals, "3"), "full");
        let until = Instant::now() + REFUSAL_MEMORY;
        let mut state = renewals.state();
        for number in 0..2 * MAX_REFUSED {
            state.refuse(digest_of(&number.to_string()), AuthErrorKind::Refused.into(), until);
        }
        assert_eq!(state.refused.len(), MAX_REFUSED);
        let renewal = renewed_to(&"r".repeat(4000)).unwrap();
        for number in 0..10_000 {
            let renewed = Renewed::new(Some(Arc::clone(&renewal)), "r".into(), WINDOW);
            state.remember(digest_of(&number.to_string()), renewed);
        }
        assert!(state.renewed_bytes <= MAX_RENEWED_BYTES && !state.renewed.is_empty());
        assert_eq!(state.renewed_bytes, state.renewed.iter().map(|(_, renewed)| cost(renewed)).sum::<usize>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_successor_is_kept_while_a_response_with_it_is_to_be_sent() {
        let renewals = renewals();
        let renewal = renewed_to("b");
        assert!(ticket(&renewals, "a").settle(renewal.clone()).is_none());
        for _ in 0..9 {
            advance(WINDOW).await;
            assert_eq!(outcome(&renewals, "a"), "b");
        }
        drop(renewal);
        advance(WINDOW).await;
        assert_eq!(outcome(&renewals, "a"), "sends a");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_never_ends_keeps_a_successor_for_five_minutes() {
        let renewals = renewals();
        let renewal = renewed_to("b");
        assert!(ticket(&renewals, "a").settle(renewal.clone()).is_none());
        for _ in 0..10 {
            advance(WINDOW).await;
            let _ = outcome(&renewals, "a");
        }
        assert_eq!(outcome(&renewals, "a"), "sends a");
        drop(renewal);
    }

    #[tokio::test(start_paused = true)]
    async fn a_successor_that_could_not_be_verified_is_sent_in_place_of_the_spent_token() {
        let renewals = renewals();
        let cookie = HeaderValue::from_static("c");
        let rescued = Rescued { token: "b".into(), set_cookie: [cookie.clone(), cookie] };
        let failure = Failure { rescued: Some(Arc::new(rescued)), ..AuthErrorKind::Unavailable.into() };
        assert!(ticket(&renewals, "a").settle(Err(failure)).is_none());
        assert_eq!(outcome(&renewals, "a"), "sends b");
    }

    #[tokio::test(start_paused = true)]
    async fn crossmint_is_given_the_time_it_asks_for() {
        let renewals = renewals();
        let delay = Duration::from_secs(7);
        let limited = || Err(AuthError::from(AuthErrorKind::RateLimited).retry_after(Some(delay)).into());
        for number in 0..MAX_PATIENCE {
            assert_eq!(outcome(&renewals, "other"), "sends other");
            assert!(ticket(&renewals, &number.to_string()).settle(limited()).is_none());
            assert_eq!(outcome(&renewals, &number.to_string()), "RateLimited");
        }
        assert_eq!(outcome(&renewals, "other"), "RateLimited", "so often in a row, it means everybody");
        advance(delay).await;
        assert_eq!(outcome(&renewals, "other"), "sends other");
        assert_eq!(outcome(&renewals, "0"), "sends 0");
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_no_memory() {
        let renewals = Arc::new(Renewals::new(Duration::ZERO, 2));
        renew(&renewals, "a", "b");
        assert_eq!(outcome(&renewals, "a"), "sends a");
    }
}
