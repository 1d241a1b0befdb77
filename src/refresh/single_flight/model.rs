//! What two or three threads may do with a refresh at once: shuttle tries their interleavings, all of them or many.
//!
//! Each function is one run. Threads switch where a lock is taken or released; tokio's `watch` counts as one step.
//!
//! ```sh
//! RUSTFLAGS='--cfg shuttle' cargo test --lib model
//! ```

use std::collections::HashSet;

use http::HeaderValue;
use shuttle::{
    Config, Runner,
    future::block_on,
    scheduler::{DfsScheduler, PctScheduler},
    thread::{self, JoinHandle},
};

use super::*;
use crate::{
    refresh::refreshed::Rescued,
    session::{AuthMaterial, RefreshToken, Session, Verified},
};

macro_rules! scenarios {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let runs = Runner::new(DfsScheduler::new(Some(MAX_RUNS), false), Config::new()).run(scenarios::$name);
            if runs == MAX_RUNS {
                let scheduler = PctScheduler::new_from_seed(1, DEPTH, MAX_RUNS);
                Runner::new(scheduler, Config::new()).run(scenarios::$name);
            }
            println!("{runs} runs in depth");
        }
    )*};
}

scenarios! {
    requests_share_one_refresh
    a_family_is_refreshed_at_its_end
    a_refresh_that_dies_is_taken_over
    a_late_answer_is_kept
    a_logout_meets_a_refresh
    a_logout_with_a_rotated_token_meets_a_refresh
    a_logout_meets_a_rescue
    a_logout_meets_a_successor_that_cannot_be_used
    responses_are_dropped_while_others_ask
    sessions_are_evicted_and_tokens_stay
    two_logouts_meet_a_refresh
    no_more_are_refreshed_than_the_queue_holds
}

mod scenarios {
    use super::*;

    /// Three requests with one token.
    pub(super) fn requests_share_one_refresh() {
        let site = Site::new();
        let requests: Vec<_> = (0..3).map(|_| site.in_thread(|site| site.request("a"))).collect();
        for request in requests {
            assert_eq!(request.join().unwrap(), Ok("a'".into()));
        }
        assert_eq!(site.calls(), ["a"]);
        site.is_at_rest();
    }

    /// A request with a rotated token, one with its successor, and one that refreshes ahead of time.
    pub(super) fn a_family_is_refreshed_at_its_end() {
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

    /// A refresh whose task dies, while two other requests arrive.
    pub(super) fn a_refresh_that_dies_is_taken_over() {
        let site = Site::new();
        let Ok(Joined::Leader(leader, waiter, queued)) = site.enter("a") else { panic!("not ours") };
        let death = thread::spawn(move || drop((leader, queued)));
        let request = site.in_thread(|site| site.request("a"));
        assert_eq!(outcome(waiter), Err(AuthErrorKind::Unavailable));
        let (late, early) = (site.request("a"), request.join().unwrap());
        death.join().unwrap();
        // Only requests that have joined the dead refresh may fail.
        for outcome in [&late, &early] {
            assert!([Ok("a'".into()), Err(AuthErrorKind::Unavailable)].contains(outcome), "{outcome:?}");
        }
        assert!(site.calls().len() <= 1);
        assert_eq!(site.request("a"), Ok("a'".into()));
        assert_eq!(site.calls(), ["a"]);
        site.is_at_rest();
    }

    /// A refresh that ends after its waiters have failed, while another request arrives.
    pub(super) fn a_late_answer_is_kept() {
        let site = Site::new();
        let Ok(Joined::Leader(leader, waiter, queued)) = site.enter("a") else { panic!("not ours") };
        let refresh = site.in_thread(move |site| {
            leader.dismiss_waiters(AuthError::of(AuthErrorKind::Unavailable));
            site.refresh(leader);
            drop(queued);
        });
        let request = site.in_thread(|site| site.request("a"));
        for outcome in [outcome(waiter), request.join().unwrap()] {
            assert!([Ok("a'".into()), Err(AuthErrorKind::Unavailable)].contains(&outcome), "{outcome:?}");
        }
        refresh.join().unwrap();
        assert_eq!(site.request("a"), Ok("a'".into()));
        assert_eq!(site.calls(), ["a"]);
        site.is_at_rest();
    }

    /// A logout, a refresh of the same token, and another request with it.
    pub(super) fn a_logout_meets_a_refresh() {
        let site = Site::new();
        let logout = site.in_thread(|site| site.log_out("a"));
        let requests = [(); 2].map(|()| site.in_thread(|site| site.respond("a")));
        logout.join().unwrap();
        for request in requests {
            request.join().unwrap();
        }
        site.is_logged_out("a");
    }

    /// The same with the successor of a rotated token.
    pub(super) fn a_logout_with_a_rotated_token_meets_a_refresh() {
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

    /// A logout during a refresh whose successor could not be verified.
    pub(super) fn a_logout_meets_a_rescue() {
        let site = Site::new();
        let Ok(Joined::Leader(leader, waiter, queued)) = site.enter("a") else { panic!("not ours") };
        let refresh = site.in_thread(move |site| {
            let token = site.exchange(&leader.token).as_str().into();
            let rescued = Arc::new(Rescued { token, set_cookie: Some(set_cookie()) });
            let failure = Failure { rescued: Some(rescued), ..AuthErrorKind::Unavailable.into() };
            site.finish(leader, Err(failure));
            drop(queued);
        });
        let logout = site.in_thread(|site| site.log_out("a"));
        assert!(outcome(waiter).is_err());
        refresh.join().unwrap();
        logout.join().unwrap();
        site.is_logged_out("a");
    }

    /// A logout, and two requests, after an answer whose JWT cannot be used.
    pub(super) fn a_logout_meets_a_successor_that_cannot_be_used() {
        let site = Site::new();
        let Ok(Joined::Leader(leader, _, queued)) = site.enter("a") else { panic!("not ours") };
        let refresh = site.in_thread(move |site| {
            let token = site.exchange(&leader.token).as_str().into();
            let rescued = Some(Arc::new(Rescued { token, set_cookie: None }));
            site.finish(leader, Err(Failure { rescued, ..AuthErrorKind::UnusableAnswer.into() }));
            drop(queued);
        });
        let logout = site.in_thread(|site| site.log_out("a"));
        site.respond("a");
        refresh.join().unwrap();
        logout.join().unwrap();
        site.is_logged_out("a");
    }

    /// Responses that release a successor, while other requests carry it and refresh it.
    pub(super) fn responses_are_dropped_while_others_ask() {
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

    /// Requests with rotated tokens whose sessions were evicted.
    pub(super) fn sessions_are_evicted_and_tokens_stay() {
        let site = Site::with_memory(1 << 11);
        assert_eq!(site.request("a"), Ok("a'".into()));
        let requests = ["a", "b"].map(|token| site.in_thread(move |site| site.request(token)));
        let late = site.request("a").unwrap();
        let [early, other] = requests.map(|request| request.join().unwrap().unwrap());
        assert!(late.starts_with("a'") && early.starts_with("a'") && other == "b'", "{late}, {early}, {other}");
        site.is_at_rest();
    }

    /// Two logouts and a refresh.
    pub(super) fn two_logouts_meet_a_refresh() {
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
    pub(super) fn no_more_are_refreshed_than_the_queue_holds() {
        let site = Site::new();
        let requests = ["a", "b", "c"].map(|token| site.in_thread(move |site| site.request(token)));
        for (request, token) in requests.into_iter().zip(["a'", "b'", "c'"]) {
            let outcome = request.join().unwrap();
            assert!([Ok(token.into()), Err(CROWDED)].contains(&outcome), "{outcome:?}");
        }
        assert!(site.calls().len() >= 2);
        site.is_at_rest();
    }
}

/// A process with the layer, and its Crossmint.
struct Site {
    flights: Arc<SingleFlight>,
    queue: Arc<()>,
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
        let flights = Arc::new(SingleFlight::new(Duration::from_secs(300), memory));
        Arc::new(Self { flights, queue: Arc::default(), crossmint: Mutex::default() })
    }

    fn in_thread<T: Send + 'static>(self: &Arc<Self>, work: impl FnOnce(&Self) -> T + Send + 'static) -> JoinHandle<T> {
        let site = Arc::clone(self);
        thread::spawn(move || work(&site))
    }

    fn enter(&self, token: &str) -> Result<Joined<Arc<()>>, AuthError> {
        self.flights.join(token.into(), None, || {
            // Besides the queue's own.
            let is_free = Arc::strong_count(&self.queue) <= ROOM;
            is_free.then(|| Arc::clone(&self.queue)).ok_or_else(|| AuthError::of(CROWDED))
        })
    }

    /// A request, up to where its handler is called. Returns the session's refresh token.
    fn request(&self, token: &str) -> Result<String, AuthErrorKind> {
        self.ask(token).map(|delivery| delivery.refreshed.material().refresh_token().secret().to_owned())
    }

    /// A request, and its response.
    fn respond(&self, token: &str) {
        if let Ok(delivery) = self.ask(token) {
            let logged_out = self.crossmint().logged_out;
            assert!(!logged_out || delivery.latest().is_err(), "a response brings the session back");
        }
    }

    fn ask(&self, token: &str) -> Result<Delivery, AuthErrorKind> {
        let waiter = match self.enter(token) {
            Ok(Joined::Remembered(delivery)) => return Ok(delivery),
            Err(error) => return Err(error.kind()),
            Ok(Joined::Waiter(waiter)) => waiter,
            Ok(Joined::Leader(leader, waiter, _queued)) => {
                self.refresh(leader);
                waiter
            }
        };
        block_on(waiter.outcome()).map_err(|failure| failure.error.kind())
    }

    fn refresh(&self, leader: Leader) {
        let token = self.exchange(&leader.token);
        let verified = Verified { user_id: "alice".into(), expires_at: 0, generation: 0 };
        let session = Session::new(verified, AuthMaterial::new("jwt", RefreshToken::new(token)));
        self.finish(leader, Ok(Refreshed::new(session, set_cookie(), 0)));
    }

    /// A call to Crossmint, which takes each token once.
    fn exchange(&self, token: &str) -> String {
        {
            let mut crossmint = self.crossmint();
            crossmint.load += 1;
            assert!(crossmint.load <= ROOM, "more refreshes than there is room for");
            assert!(!crossmint.calls.iter().any(|call| call == token), "{token} is spent twice");
            crossmint.calls.push(token.to_owned());
        }
        thread::yield_now();
        self.crossmint().load -= 1;
        format!("{token}'")
    }

    fn finish(&self, leader: Leader, outcome: Result<Refreshed, Failure>) {
        if let Some(token) = leader.finish(outcome).0 {
            self.crossmint().revoked.insert(token.to_string());
        }
    }

    fn log_out(&self, token: &str) {
        match self.flights.revoke(token.into()).1 {
            Revocation::Now(token) => {
                let mut crossmint = self.crossmint();
                crossmint.revoked.insert(token.to_string());
                crossmint.logged_out = true;
            }
            Revocation::AfterRefresh(waiter) => {
                self.crossmint().logged_out = true;
                assert_eq!(outcome(waiter), Err(AuthErrorKind::Refused));
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
        let entries: [_; ROOM] = std::array::from_fn(|number| self.enter(&format!("new-{number}")));
        assert!(entries.iter().all(|entry| matches!(entry, Ok(Joined::Leader(..)))), "a refresh is under way for ever");
    }

    fn crossmint(&self) -> MutexGuard<'_, Crossmint> {
        self.crossmint.lock().unwrap()
    }
}

fn outcome(waiter: Waiter) -> Result<String, AuthErrorKind> {
    match block_on(waiter.outcome()) {
        Ok(delivery) => Ok(delivery.refreshed.material().refresh_token().secret().to_owned()),
        Err(failure) => Err(failure.error.kind()),
    }
}

fn set_cookie() -> [HeaderValue; 2] {
    [HeaderValue::from_static("jwt"), HeaderValue::from_static("refresh")]
}

const ROOM: usize = 2;
const CROWDED: AuthErrorKind = AuthErrorKind::Unavailable;

const MAX_RUNS: usize = 10_000;

/// How many switches of threads, at the right places, a mistake may need.
const DEPTH: usize = 3;
