//! Each function is one run: shuttle tries its interleavings.
//!
//! A switch of threads happens where a lock is taken or set free; tokio's `watch` counts as one step.

use std::{collections::HashSet, sync::Arc, time::Duration};

use http::HeaderValue;
use shuttle::{
    future::block_on,
    sync::{Mutex, MutexGuard},
    thread::{self, JoinHandle},
};

use crate::{
    error::{AuthError, AuthErrorKind},
    grace::Renewal,
    renewal::{Entry, Failure, Handout, Pending, Renewals, Rescued, Revocation, Ticket},
    session::{AuthMaterial, RefreshToken, Session, Verified},
};

/// Three requests with one token.
pub fn requests_share_one_renewal() {
    let site = Site::new();
    let requests: Vec<_> = (0..3).map(|_| site.in_thread(|site| site.request("a"))).collect();
    for request in requests {
        assert_eq!(request.join().unwrap(), Ok("a'".into()));
    }
    assert_eq!(site.calls(), ["a"]);
    site.is_at_rest();
}

/// A request with a spent token, one with its successor, and one that renews ahead of time.
pub fn a_chain_is_renewed_at_its_end() {
    let site = Site::new();
    assert_eq!(site.request("a"), Ok("a'".into()));
    let requests = ["a", "a'", "a'"].map(|token| site.in_thread(move |site| site.request(token)));
    for request in requests {
        let outcome = request.join().unwrap().unwrap();
        assert!(["a'", "a''"].contains(&&*outcome), "{outcome}");
    }
    assert_eq!(site.calls(), ["a", "a'"]);
    assert_eq!(site.request("a"), Ok("a''".into()));
    site.is_at_rest();
}

/// A renewal whose task dies, while two others come.
pub fn a_renewal_that_dies_is_taken_over() {
    let site = Site::new();
    let Entry::Yours(ticket, pending) = site.enter("a") else { panic!("not ours") };
    let death = thread::spawn(move || drop(ticket));
    let request = site.in_thread(|site| site.request("a"));
    assert_eq!(outcome(pending), Err(AuthErrorKind::Unavailable));
    let (late, early) = (site.request("a"), request.join().unwrap());
    death.join().unwrap();
    // Who has joined the one that dies is sent away; nobody else is.
    for outcome in [&late, &early] {
        assert!([Ok("a'".into()), Err(AuthErrorKind::Unavailable)].contains(outcome), "{outcome:?}");
    }
    assert!(site.calls().len() <= 1);
    assert_eq!(site.request("a"), Ok("a'".into()));
    assert_eq!(site.calls(), ["a"]);
    site.is_at_rest();
}

/// A renewal that comes after those who wait have been sent away, while another request comes.
pub fn a_late_answer_is_kept() {
    let site = Site::new();
    let Entry::Yours(ticket, pending) = site.enter("a") else { panic!("not ours") };
    let renewal = site.in_thread(move |site| {
        ticket.dismiss(AuthError::of(AuthErrorKind::Unavailable));
        site.renew(ticket);
    });
    let request = site.in_thread(|site| site.request("a"));
    for outcome in [outcome(pending), request.join().unwrap()] {
        assert!([Ok("a'".into()), Err(AuthErrorKind::Unavailable)].contains(&outcome), "{outcome:?}");
    }
    renewal.join().unwrap();
    assert_eq!(site.request("a"), Ok("a'".into()));
    assert_eq!(site.calls(), ["a"]);
    site.is_at_rest();
}

/// A logout, a renewal of the same token, and another request with it.
pub fn a_logout_meets_a_renewal() {
    let site = Site::new();
    let logout = site.in_thread(|site| site.log_out("a"));
    let requests = [(); 2].map(|()| site.in_thread(|site| site.respond("a")));
    logout.join().unwrap();
    for request in requests {
        request.join().unwrap();
    }
    site.is_logged_out("a");
}

/// The same with the successor of a spent token.
pub fn a_logout_with_a_spent_token_meets_a_renewal() {
    let site = Site::new();
    assert_eq!(site.request("a"), Ok("a'".into()));
    let logout = site.in_thread(|site| site.log_out("a"));
    let requests = ["a", "a'"].map(|token| site.in_thread(move |site| site.respond(token)));
    logout.join().unwrap();
    for request in requests {
        request.join().unwrap();
    }
    site.is_logged_out("a");
    site.is_logged_out("a'");
}

/// A logout during a renewal whose successor could not be verified.
pub fn a_logout_meets_a_rescue() {
    let site = Site::new();
    let Entry::Yours(ticket, pending) = site.enter("a") else { panic!("not ours") };
    let renewal = site.in_thread(move |site| {
        let token = site.exchange(ticket.token()).as_str().into();
        let rescued = Arc::new(Rescued { token, set_cookie: Some(set_cookie()) });
        let failure = Failure { rescued: Some(rescued), ..AuthErrorKind::Unavailable.into() };
        site.settle(ticket, Err(failure));
    });
    let logout = site.in_thread(|site| site.log_out("a"));
    assert!(outcome(pending).is_err());
    renewal.join().unwrap();
    logout.join().unwrap();
    site.is_logged_out("a");
}

/// A logout, and two requests, after an answer whose JWT cannot be used.
pub fn a_logout_meets_a_successor_that_cannot_be_used() {
    let site = Site::new();
    let Entry::Yours(ticket, _) = site.enter("a") else { panic!("not ours") };
    let renewal = site.in_thread(move |site| {
        let token = site.exchange(ticket.token()).as_str().into();
        let rescued = Some(Arc::new(Rescued { token, set_cookie: None }));
        site.settle(ticket, Err(Failure { rescued, ..AuthErrorKind::UnusableAnswer.into() }));
    });
    let logout = site.in_thread(|site| site.log_out("a"));
    site.respond("a");
    renewal.join().unwrap();
    logout.join().unwrap();
    site.is_logged_out("a");
}

/// Responses that let go of a successor, while others ask for it and renew it.
pub fn responses_let_go_while_others_ask() {
    let site = Site::new();
    let held = site.ask("a").unwrap();
    let release = thread::spawn(move || drop(held));
    let requests = ["a", "a'"].map(|token| site.in_thread(move |site| site.respond(token)));
    let outcome = site.request("a").unwrap();
    assert!(["a'", "a''"].contains(&&*outcome), "{outcome}");
    release.join().unwrap();
    requests.into_iter().for_each(|request| request.join().unwrap());
    assert_eq!(site.calls(), ["a", "a'"]);
    site.is_at_rest();
}

/// Requests with rotated tokens whose sessions had to give way to others.
pub fn sessions_give_way_and_tokens_stay() {
    let site = Site::with_memory(1 << 11);
    assert_eq!(site.request("a"), Ok("a'".into()));
    let requests = ["a", "b"].map(|token| site.in_thread(move |site| site.request(token)));
    let late = site.request("a").unwrap();
    let [early, other] = requests.map(|request| request.join().unwrap().unwrap());
    assert!(late.starts_with("a'") && early.starts_with("a'") && other == "b'", "{late}, {early}, {other}");
    site.is_at_rest();
}

/// Two logouts and a renewal.
pub fn two_logouts_meet_a_renewal() {
    let site = Site::new();
    let logouts = [(); 2].map(|()| site.in_thread(|site| site.log_out("a")));
    let request = site.in_thread(|site| site.respond("a"));
    for logout in logouts {
        logout.join().unwrap();
    }
    request.join().unwrap();
    site.is_logged_out("a");
}

/// Three tokens, and room for two.
pub fn no_more_are_renewed_than_there_is_room_for() {
    let site = Site::new();
    let requests = ["a", "b", "c"].map(|token| site.in_thread(move |site| site.request(token)));
    for (request, token) in requests.into_iter().zip(["a'", "b'", "c'"]) {
        let outcome = request.join().unwrap();
        assert!([Ok(token.into()), Err(CROWDED)].contains(&outcome), "{outcome:?}");
    }
    assert!(site.calls().len() >= 2);
    site.is_at_rest();
}

/// A process with the layer, and its Crossmint.
struct Site {
    renewals: Arc<Renewals>,
    crossmint: Mutex<Crossmint>,
}

#[derive(Default)]
struct Crossmint {
    calls: Vec<String>,
    /// How many calls are under way.
    load: usize,
    revoked: HashSet<String>,
    logged_out: bool,
}

impl Site {
    fn new() -> Arc<Self> {
        Self::with_memory(1 << 20)
    }

    fn with_memory(memory: usize) -> Arc<Self> {
        let renewals = Arc::new(Renewals::new(Duration::from_secs(300), memory, ROOM));
        Arc::new(Self { renewals, crossmint: Mutex::default() })
    }

    fn in_thread<T: Send + 'static>(self: &Arc<Self>, work: impl FnOnce(&Self) -> T + Send + 'static) -> JoinHandle<T> {
        let site = Arc::clone(self);
        thread::spawn(move || work(&site))
    }

    fn enter(&self, token: &str) -> Entry {
        self.renewals.enter(token.into(), None)
    }

    /// A request, up to where its handler is called. Returns the session's refresh token.
    fn request(&self, token: &str) -> Result<String, AuthErrorKind> {
        self.ask(token).map(|renewal| renewal.session.refresh_token().secret().to_owned())
    }

    /// A request, and its response.
    fn respond(&self, token: &str) {
        if let Ok(renewal) = self.ask(token) {
            let logged_out = self.crossmint().logged_out;
            assert!(!logged_out || renewal.deliver().is_err(), "a response brings the session back");
        }
    }

    fn ask(&self, token: &str) -> Result<Handout, AuthErrorKind> {
        let pending = match self.enter(token) {
            Entry::Renewed(renewal) => return Ok(renewal),
            Entry::Refused(error) => return Err(error.kind()),
            Entry::Full => return Err(CROWDED),
            Entry::UnderWay(pending) => pending,
            Entry::Yours(ticket, pending) => {
                self.renew(ticket);
                pending
            }
        };
        block_on(pending.outcome()).map_err(|failure| failure.error.kind())
    }

    fn renew(&self, ticket: Ticket) {
        let token = self.exchange(ticket.token());
        let verified = Verified { user_id: "alice".into(), expires_at: 0, generation: 0 };
        let session = Session::new(verified, AuthMaterial::new("jwt", RefreshToken::new(token)));
        self.settle(ticket, Ok(Renewal::new(session, set_cookie(), 0)));
    }

    /// A call to Crossmint, which takes each token once.
    fn exchange(&self, token: &str) -> String {
        {
            let mut crossmint = self.crossmint();
            crossmint.load += 1;
            assert!(crossmint.load <= ROOM, "more renewals than there is room for");
            assert!(!crossmint.calls.iter().any(|call| call == token), "{token} is spent twice");
            crossmint.calls.push(token.to_owned());
        }
        thread::yield_now();
        self.crossmint().load -= 1;
        format!("{token}'")
    }

    fn settle(&self, ticket: Ticket, outcome: Result<Renewal, Failure>) {
        if let Some(token) = ticket.settle(outcome).revoked {
            self.crossmint().revoked.insert(token.to_string());
        }
    }

    fn log_out(&self, token: &str) {
        match self.renewals.end(token.into()).revocation {
            Revocation::Now(token) => {
                let mut crossmint = self.crossmint();
                crossmint.revoked.insert(token.to_string());
                crossmint.logged_out = true;
            }
            Revocation::AfterRenewal(pending) => {
                self.crossmint().logged_out = true;
                assert_eq!(outcome(pending), Err(AuthErrorKind::Refused));
            }
        }
    }

    fn calls(&self) -> Vec<String> {
        let mut calls = self.crossmint().calls.clone();
        calls.sort();
        calls
    }

    /// Asserts that nothing is left of a session, here or at Crossmint, of which this is a token.
    fn is_logged_out(&self, token: &str) {
        assert_eq!(self.request(token), Err(AuthErrorKind::Refused));
        let crossmint = self.crossmint();
        let latest =
            crossmint.calls.iter().max_by_key(|call| call.len()).map_or(token.into(), |call| format!("{call}'"));
        assert!(crossmint.revoked.contains(&latest), "{latest} is not revoked");
        drop(crossmint);
        self.is_at_rest();
    }

    /// Asserts that there is as much room as in the beginning.
    fn is_at_rest(&self) {
        let entries: [Entry; ROOM] = std::array::from_fn(|number| self.enter(&format!("new-{number}")));
        assert!(entries.iter().all(|entry| matches!(entry, Entry::Yours(..))), "a renewal is under way for ever");
    }

    fn crossmint(&self) -> MutexGuard<'_, Crossmint> {
        self.crossmint.lock().unwrap()
    }
}

fn outcome(pending: Pending) -> Result<String, AuthErrorKind> {
    match block_on(pending.outcome()) {
        Ok(renewal) => Ok(renewal.session.refresh_token().secret().to_owned()),
        Err(failure) => Err(failure.error.kind()),
    }
}

fn set_cookie() -> [HeaderValue; 2] {
    [HeaderValue::from_static("jwt"), HeaderValue::from_static("refresh")]
}

const ROOM: usize = 2;
const CROWDED: AuthErrorKind = AuthErrorKind::Unavailable;
