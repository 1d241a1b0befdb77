//! One renewal per refresh token, however many requests carry it.
//!
//! Crossmint's refresh tokens are spent by their first use, and using one again ends the session. So:
//!
//! 1. While a token is being renewed, all who carry it wait for that one renewal.
//! 2. For a while after, a spent token leads to its successor, and on to the latest one; it is never sent again.
//! 3. A token that Crossmint has refused is not sent again for [`REFUSAL_MEMORY`]; one whose answer could not be used,
//!    for [`MISHAP_MEMORY`].
//! 4. A logout ends the whole chain: successors are forgotten, and a renewal that it overtakes hands out nothing.
//!
//! Tokens are looked up by their SHA-256 digest and not kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    pub(crate) set_cookie: [HeaderValue; 2],
}

pub(crate) type Outcome = Result<Arc<Renewal>, AuthError>;

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
    refused: LruCache<Digest, (AuthError, Instant)>,
}

#[derive(Debug)]
struct Flight {
    outcome: watch::Receiver<Option<Outcome>>,
    logged_out: bool,
}

#[derive(Debug)]
struct Renewed {
    renewal: Arc<Renewal>,
    successor: Digest,
    until: Instant,
}

/// What there is for a refresh token.
#[derive(Debug)]
pub(crate) enum Entry {
    /// It has just been renewed.
    Renewed(Arc<Renewal>),
    /// It is being renewed.
    UnderWay(watch::Receiver<Option<Outcome>>),
    /// It has just been refused.
    Refused(AuthError),
    /// The caller renews the ticket's token, in a task of its own.
    Yours(Ticket, watch::Receiver<Option<Outcome>>),
    /// Too many others are being renewed.
    Full,
}

/// What a logout found.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The token to revoke is the latest of the chain.
    Now { latest: Secret, sessions: Vec<Session> },
    /// A renewal is under way: its task revokes what it gets, and ends with that.
    AfterRenewal(watch::Receiver<Option<Outcome>>),
}

impl Renewals {
    pub(crate) fn new(window: Duration, max_under_way: usize) -> Self {
        let state = State {
            under_way: HashMap::new(),
            renewed: LruCache::unbounded(),
            renewed_bytes: 0,
            refused: LruCache::unbounded(),
        };
        Self { window, max_under_way, state: Mutex::new(state) }
    }

    /// Decides what a request with this refresh token does. `is_valid` tells whether a renewed session still is.
    pub(crate) fn enter(self: &Arc<Self>, token: Secret, is_valid: impl Fn(&Session) -> bool) -> Entry {
        let mut state = self.state();
        state.forget_old();
        let (digest, latest) = state.follow(digest_of(&token));
        if let Some(flight) = state.under_way.get(&digest) {
            return Entry::UnderWay(flight.outcome.clone());
        }
        if let Some((error, until)) = state.refused.peek(&digest)
            && *until > Instant::now()
        {
            return Entry::Refused(error.clone());
        }
        let token = match latest {
            Some(renewal) if is_valid(&renewal.session) => return Entry::Renewed(renewal),
            Some(renewal) => renewal.session.refresh_token().secret().into(),
            None => token,
        };
        if state.under_way.len() >= self.max_under_way {
            return Entry::Full;
        }
        let (sender, outcome) = watch::channel(None);
        state.under_way.insert(digest, Flight { outcome: outcome.clone(), logged_out: false });
        Entry::Yours(Ticket { renewals: Arc::clone(self), digest, token, sender: Some(sender) }, outcome)
    }

    /// Ends the session of this refresh token and of all that have succeeded it.
    pub(crate) fn end(&self, token: Secret) -> Ended {
        let mut state = self.state();
        state.forget_old();
        let until = Instant::now() + REFUSAL_MEMORY.max(self.window);
        let mut digest = digest_of(&token);
        let mut latest = token;
        let mut sessions = Vec::new();
        while let Some(renewed) = state.forget(&digest) {
            state.refuse(digest, AuthErrorKind::Refused.into(), until);
            latest = renewed.renewal.session.refresh_token().secret().into();
            digest = renewed.successor;
            sessions.push(renewed.renewal.session.clone());
        }
        if let Some(flight) = state.under_way.get_mut(&digest) {
            flight.logged_out = true;
            return Ended::AfterRenewal(flight.outcome.clone());
        }
        state.refuse(digest, AuthErrorKind::Refused.into(), until);
        Ended::Now { latest, sessions }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Follows a token to its latest successor. A chain is as long as the window has renewals; a circle ends.
    fn follow(&self, mut digest: Digest) -> (Digest, Option<Arc<Renewal>>) {
        let mut latest = None;
        for _ in 0..=self.renewed.len() {
            let Some(renewed) = self.renewed.peek(&digest) else { break };
            latest = Some(Arc::clone(&renewed.renewal));
            if digest == renewed.successor {
                break;
            }
            digest = renewed.successor;
        }
        (digest, latest)
    }

    fn remember(&mut self, digest: Digest, renewed: Renewed) {
        self.forget(&digest);
        self.renewed_bytes += cost(&renewed);
        self.renewed.put(digest, renewed);
        while self.renewed_bytes > MAX_RENEWED_BYTES {
            let Some((_, oldest)) = self.renewed.pop_lru() else { break };
            self.renewed_bytes -= cost(&oldest);
        }
    }

    fn forget(&mut self, digest: &Digest) -> Option<Renewed> {
        let renewed = self.renewed.pop(digest)?;
        self.renewed_bytes -= cost(&renewed);
        Some(renewed)
    }

    fn refuse(&mut self, digest: Digest, error: AuthError, until: Instant) {
        self.refused.put(digest, (error, until));
        if self.refused.len() > MAX_REFUSED {
            self.refused.pop_lru();
        }
    }

    fn forget_old(&mut self) {
        let now = Instant::now();
        while let Some((_, oldest)) = self.renewed.peek_lru()
            && oldest.until <= now
        {
            let oldest = self.renewed.pop_lru();
            self.renewed_bytes -= oldest.map_or(0, |(_, oldest)| cost(&oldest));
        }
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

    /// Ends the renewal. Returns the token to revoke at Crossmint, if a logout has overtaken the renewal.
    #[must_use]
    pub(crate) fn settle(mut self, outcome: Outcome) -> Option<Secret> {
        let now = Instant::now();
        let mut state = self.renewals.state();
        let logged_out = state.under_way.remove(&self.digest).is_some_and(|flight| flight.logged_out);
        let (outcome, revoked) = match outcome {
            outcome if !logged_out => (outcome, None),
            Ok(renewal) => (Err(AuthErrorKind::Refused.into()), Some(renewal.session.refresh_token().secret().into())),
            Err(error) if error.kind() == AuthErrorKind::Refused => (Err(error), None),
            Err(_) => (Err(AuthErrorKind::Refused.into()), Some(self.token.clone())),
        };
        match &outcome {
            Ok(renewal) if !self.renewals.window.is_zero() => {
                let successor = digest_of(renewal.session.refresh_token().secret());
                let renewed = Renewed { renewal: Arc::clone(renewal), successor, until: now + self.renewals.window };
                state.remember(self.digest, renewed);
            }
            Err(error) if error.kind() == AuthErrorKind::Refused => {
                state.refuse(self.digest, error.clone(), now + REFUSAL_MEMORY);
            }
            Err(error) if error.kind() == AuthErrorKind::UnusableAnswer => {
                state.refuse(self.digest, error.clone(), now + MISHAP_MEMORY);
            }
            _ => {}
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
    ENTRY_BYTES + 2 * renewed.renewal.session.cost()
}

const REFUSAL_MEMORY: Duration = Duration::from_secs(30);
const MISHAP_MEMORY: Duration = Duration::from_secs(5);
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
        Ok(Arc::new(Renewal { session, set_cookie: [cookie.clone(), cookie] }))
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
        assert!(matches!(renewals.end("b".into()), Ended::Now { .. }));
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
        let Entry::Yours(ticket, mut waiting) = renewals.enter("a".into(), |_| true) else { panic!("not ours") };
        assert_eq!(outcome(&renewals, "a"), "under way");
        drop(ticket);
        assert!(waiting.wait_for(Option::is_some).await.is_err());
        assert_eq!(outcome(&renewals, "a"), "sends a");
    }

    #[tokio::test(start_paused = true)]
    async fn a_logout_ends_the_whole_chain() {
        let renewals = renewals();
        renew(&renewals, "a", "b");
        renew(&renewals, "b", "c");
        match renewals.end("a".into()) {
            Ended::Now { latest, sessions } => assert_eq!((&*latest, sessions.len()), ("c", 2)),
            other => panic!("{other:?}"),
        }
        assert_eq!(["a", "b", "c"].map(|token| outcome(&renewals, token)), ["Refused"; 3]);
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
            assert!(matches!(renewals.end("a".into()), Ended::AfterRenewal(_)), "{name}");
            assert_eq!(ticket.settle(result).as_deref(), revoked, "{name}");
            let outcome_of_waiting = waiting.borrow().clone().unwrap();
            assert_eq!(outcome_of_waiting.unwrap_err().kind(), AuthErrorKind::Refused, "{name}");
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
            let digest = digest_of(&number.to_string());
            state.remember(digest, Renewed { renewal: Arc::clone(&renewal), successor: digest, until });
        }
        assert!(state.renewed_bytes <= MAX_RENEWED_BYTES && !state.renewed.is_empty());
        assert_eq!(state.renewed_bytes, state.renewed.iter().map(|(_, renewed)| cost(renewed)).sum::<usize>());
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_no_memory() {
        let renewals = Arc::new(Renewals::new(Duration::ZERO, 2));
        renew(&renewals, "a", "b");
        assert_eq!(outcome(&renewals, "a"), "sends a");
    }
}
