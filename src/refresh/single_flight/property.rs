//! Any series of events against a Crossmint that takes each token once, and ends the session at the second use.
//!
//! `STEPS=1000000 cargo test --lib any_series` tries more of them. A failure names its seed and its step.

use futures_util::FutureExt as _;
use http::HeaderValue;
use tokio::time::advance;

use super::*;
use crate::{
    refresh::{
        grace::{MAX_GRACE, MAX_UNDELIVERED},
        limit::RefreshLimit,
        negative_cache::{MAX_PAUSE, MIN_PAUSE},
        refreshed::Rescued,
    },
    session::{AuthMaterial, RefreshToken, Session, Verified},
    test_support::Random,
};

#[tokio::test(start_paused = true)]
async fn any_series_of_events_loses_no_session_and_brings_none_back() {
    let steps: usize = std::env::var("STEPS").map_or(100_000, |steps| steps.parse().unwrap());
    let mut seen = Seen::default();
    for seed in 1..=steps.div_ceil(STEPS_PER_WORLD) as u64 {
        // In every other world, sessions are evicted.
        let mut world = World::new(seed, seed % 2 == 0);
        for step in 0..STEPS_PER_WORLD {
            world.step = step;
            world.happen().await;
            world.update_holds();
            world.check_memory();
        }
        world.come_to_rest().await;
        seen.add(&world.seen);
    }
    assert!(seen.0.iter().all(|(_, times)| *times * 1000 > steps / 10), "each event is to be frequent: {seen:?}");
    assert_eq!(seen.0.len(), EVENTS, "{seen:?}");
}

/// Everything around the layer: browsers, slow handlers, the tasks of the flights, and Crossmint.
struct World {
    seed: u64,
    step: usize,
    random: Random,
    flights: Arc<SingleFlight>,
    limit: RefreshLimit,
    start: Instant,
    users: Vec<User>,
    tokens: Vec<Token>,
    tasks: Vec<Task>,
    responses: Vec<Response>,
    /// Outcomes that no client has taken yet.
    untaken: Vec<(Waiter, usize)>,
    is_short_of_memory: bool,
    limited_until: Instant,
    seen: Seen,
}

/// A session: a family of tokens.
#[derive(Clone, Copy)]
struct User {
    rotation: Rotation,
    /// What the browser's cookie holds.
    cookie: usize,
    /// Crossmint does not take its tokens any more.
    revoked: bool,
    /// Crossmint has said so, or there was a logout.
    refused: bool,
    /// There was a logout with a token that the layer must know.
    logged_out: bool,
    /// There was one that Crossmint does not know of: its responses hold a family that has ended.
    logout_is_lost: bool,
    mishap_until: Instant,
    /// The token that is not to be sent before then: its last answer was of no use.
    pause: Option<(usize, Instant)>,
    /// When the last task, response or outcome that held the family ended.
    released_at: Instant,
    was_held: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Rotation {
    /// As Crossmint does it.
    Single,
    None,
    /// Two tokens take turns.
    Circle,
}

struct Token {
    user: usize,
    spent: bool,
    /// Whether a browser may have it.
    handed_out: bool,
    parent: Option<usize>,
    successor: Option<Successor>,
}

/// A successor that the layer has received.
#[derive(Clone, Copy)]
struct Successor {
    token: usize,
    since: Instant,
    valid_until: Option<u64>,
    /// Since when a response takes it, or a later one, to the browser.
    delivered_at: Option<Instant>,
    /// Its grace period has passed.
    is_over: bool,
}

struct Task {
    leader: Leader,
    waiter: Waiter,
    waiting: Vec<Waiter>,
    token: usize,
    /// What Crossmint has decided, before it is known here.
    verdict: Option<Result<usize, ()>>,
    dismissed: bool,
    logged_out: bool,
}

/// A response that is to carry a successor as soon as its handler is done.
struct Response {
    delivery: Delivery,
    token: usize,
    since: Instant,
}

impl World {
    fn new(seed: u64, is_short_of_memory: bool) -> Self {
        let now = Instant::now();
        let mut world = Self {
            seed,
            step: 0,
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            flights: Arc::new(SingleFlight::new(WINDOW, MEMORY)),
            limit: RefreshLimit::new(1, MAX_PAUSE),
            start: now,
            users: Vec::new(),
            tokens: Vec::new(),
            tasks: Vec::new(),
            responses: Vec::new(),
            untaken: Vec::new(),
            is_short_of_memory,
            limited_until: now,
            seen: Seen::default(),
        };
        for _ in 0..USERS {
            world.sign_in();
        }
        world
    }

    async fn happen(&mut self) {
        match self.random.below(100) {
            0..40 => self.request(),
            40..50 => self.send(),
            50..70 => self.answer(),
            70..80 => self.respond(),
            80..82 => self.take_outcome(),
            82..86 => self.hang_up(),
            86..88 => self.time_out(),
            88 => self.log_out(),
            89 => self.sign_in(),
            _ => self.wait().await,
        }
    }

    fn sign_in(&mut self) {
        let rotation = match self.random.below(10) {
            0 => Rotation::None,
            1 => Rotation::Circle,
            _ => Rotation::Single,
        };
        let (user, cookie, now) = (self.users.len(), self.tokens.len(), Instant::now());
        self.tokens.push(Token { user, spent: false, handed_out: true, parent: None, successor: None });
        let user = User {
            rotation,
            cookie,
            revoked: false,
            refused: false,
            logged_out: false,
            logout_is_lost: false,
            mishap_until: now,
            pause: None,
            released_at: now,
            was_held: false,
        };
        self.users.push(user);
    }

    fn join(&self, token: usize, expired: Option<&Delivery>) -> Result<Joined<()>, AuthError> {
        self.flights.join(name(token).as_str().into(), expired, || {
            if self.tasks.len() >= MAX_UNDER_WAY {
                return Err(AuthError::of(AuthErrorKind::Unavailable));
            }
            self.limit.enqueue().map(drop)
        })
    }

    fn request(&mut self) {
        let Some(token) = self.some_token() else { return };
        let (presented, user, now) = (token, self.user_of(token), self.now());
        let could_be_served = self.resolves_to_a_valid_session(token);
        let mut entry = self.join(token, None);
        if let Ok(Joined::Remembered(expired)) = &entry
            && now >= expired.refreshed.session.exp()
        {
            self.seen.count("has expired");
            entry = self.join(token, Some(expired));
        }
        match entry {
            Ok(Joined::Remembered(delivery)) => {
                self.seen.count("served from memory");
                assert!(!user.logged_out, "{token} was logged out");
                assert!(now < delivery.refreshed.session.exp(), "{token} resolves to a session that has expired");
                let latest = number(delivery.refreshed.material().refresh_token().secret());
                assert!(!self.is_superseded(latest), "{token} resolves to {latest}, which is not the latest");
                self.handle(delivery);
            }
            Ok(Joined::Waiter(waiter)) => {
                self.seen.count("waits");
                let task = self.task_of(&waiter);
                let task = &mut self.tasks[task];
                if task.dismissed {
                    assert_eq!(failure(waiter), AuthErrorKind::Unavailable);
                } else {
                    task.waiting.push(waiter);
                }
            }
            Err(error) if error.kind() == AuthErrorKind::Unavailable => {
                self.seen.count("full");
                assert_eq!(self.tasks.len(), MAX_UNDER_WAY);
            }
            Err(error) => {
                self.seen.count("refused from memory");
                let is_due = match error.kind() {
                    AuthErrorKind::Refused => user.refused,
                    AuthErrorKind::UnusableAnswer => Instant::now() < user.mishap_until,
                    AuthErrorKind::RateLimited => Instant::now() < self.limited_until,
                    other => panic!("{token}: {other:?}"),
                };
                assert!(is_due, "{token}: {error}");
                assert!(
                    user.refused || self.is_short_of_memory || !could_be_served,
                    "{token} could be served: {error}"
                );
            }
            Ok(Joined::Leader(leader, waiter, ())) => {
                self.seen.count("sends");
                let token = number(&leader.token);
                assert!(self.tasks.len() < MAX_UNDER_WAY);
                let is_paused = user.pause.is_some_and(|(paused, until)| paused == token && Instant::now() < until);
                assert!(!is_paused, "{token} is sent again at once");
                assert!(self.tasks.iter().all(|task| task.token != token), "{token} is being refreshed");
                if could_be_served && !user.refused {
                    self.seen.count("finds that the session was evicted");
                    assert!(self.is_short_of_memory, "{presented} could be served");
                }
                assert!(!self.is_superseded(token), "{token} was spent, and its successor was to be remembered");
                let waiting = vec![waiter.clone()];
                self.tasks.push(Task {
                    leader,
                    waiter,
                    waiting,
                    token,
                    verdict: None,
                    dismissed: false,
                    logged_out: false,
                });
            }
        }
    }

    /// A token reaches Crossmint, which decides at once. The answer takes a while.
    fn send(&mut self) {
        let Some(task) = self.random.index(self.tasks.len()) else { return };
        if self.tasks[task].verdict.is_some() {
            return;
        }
        let parent = self.tasks[task].token;
        let Token { user, spent, .. } = self.tokens[parent];
        let rotation = self.users[user].rotation;
        let verdict = if self.users[user].revoked {
            Err(())
        } else if spent && rotation == Rotation::Single {
            self.seen.count("is used again");
            self.users[user].revoked = true;
            Err(())
        } else if rotation == Rotation::None {
            Ok(parent)
        } else if let (Rotation::Circle, Some(first)) = (rotation, self.tokens[parent].parent) {
            Ok(first)
        } else if let (Rotation::Circle, true) = (rotation, spent) {
            Ok(self.tokens.iter().position(|token| token.parent == Some(parent)).unwrap())
        } else {
            let parent = Some(parent);
            self.tokens.push(Token { user, spent: false, handed_out: false, parent, successor: None });
            Ok(self.tokens.len() - 1)
        };
        self.tokens[parent].spent = true;
        self.tasks[task].verdict = Some(verdict);
    }

    /// A refresh ends in one of the possible ways.
    fn answer(&mut self) {
        let Some(index) = self.random.index(self.tasks.len()) else { return };
        let Task { leader, waiting, token, verdict, logged_out, .. } = self.tasks.swap_remove(index);
        let user = self.tokens[token].user;
        let now = Instant::now();
        let mut successor = None;
        let outcome = match (self.random.below(20), verdict) {
            (0, _) => {
                self.seen.count("panics");
                drop(leader);
                for waiting in waiting {
                    assert_eq!(failure(waiting), AuthErrorKind::Unavailable);
                }
                if logged_out {
                    let again = self.join(token, None);
                    assert!(matches!(again, Err(error) if error.kind() == AuthErrorKind::Refused));
                    // Crossmint does not know of the logout, and the rotations before it are about to be forgotten.
                    self.users[user].logged_out = false;
                    self.users[user].logout_is_lost = true;
                    for token in self.tokens.iter_mut().filter(|token| token.user == user) {
                        token.successor = None;
                    }
                }
                return;
            }
            (1, _) | (2, None) => {
                self.seen.count("is lost");
                Err(AuthErrorKind::Unavailable.into())
            }
            (2, Some(Ok(_))) => {
                self.seen.count("is lost on the way");
                self.users[user].mishap_until = now + MAX_PAUSE;
                self.users[user].pause = Some((token, now + MIN_PAUSE));
                Err(AuthErrorKind::UnusableAnswer.into())
            }
            (3 | 4, Some(Ok(child))) => {
                self.seen.count("has a successor that cannot be used");
                self.users[user].mishap_until = now + MAX_PAUSE;
                self.users[user].pause = Some((child, now + MIN_PAUSE));
                successor =
                    Some(Successor { token: child, since: now, valid_until: None, delivered_at: None, is_over: false });
                let rescued = Rescued { token: name(child).as_str().into(), set_cookie: None };
                Err(Failure { rescued: Some(Arc::new(rescued)), ..AuthErrorKind::UnusableAnswer.into() })
            }
            (5, Some(Ok(child))) => {
                self.seen.count("is rescued");
                successor =
                    Some(Successor { token: child, since: now, valid_until: None, delivered_at: None, is_over: false });
                let rescued = Rescued { token: name(child).as_str().into(), set_cookie: Some(set_cookie()) };
                Err(Failure { rescued: Some(Arc::new(rescued)), ..AuthErrorKind::Unavailable.into() })
            }
            (_, Some(Ok(child))) => {
                self.seen.count("is refreshed");
                let valid_until = self.now() + self.random.below(90);
                successor = Some(Successor {
                    token: child,
                    since: now,
                    valid_until: Some(valid_until),
                    delivered_at: None,
                    is_over: false,
                });
                Ok(self.refreshed(child, valid_until))
            }
            (_, Some(Err(()))) => {
                self.seen.count("is refused");
                self.users[user].refused = true;
                Err(AuthErrorKind::Refused.into())
            }
            (_, None) => {
                self.seen.count("is limited");
                let delay = Duration::from_secs(1 + self.random.below(8));
                self.limited_until = self.limited_until.max(now + delay);
                Err(AuthError::of(AuthErrorKind::RateLimited).with_retry_after(Some(delay)).into())
            }
        };
        let error = outcome.as_ref().err().map(|failure| &failure.error);
        self.limit.acquire().now_or_never().expect("there are permits").unwrap().record(error);
        let expected = outcome.as_ref().map(|_| ()).map_err(|failure| failure.error.kind());
        let (revoked, evicted) = leader.finish(outcome);
        assert_eq!(evicted, 0, "there is room for all tokens");
        if logged_out {
            let is_over = expected == Err(AuthErrorKind::Refused);
            let latest = successor.map_or(token, |successor| successor.token);
            assert_eq!(revoked.as_deref(), (!is_over).then(|| name(latest)).as_deref());
            self.users[user].revoked = true;
        } else {
            assert!(revoked.is_none());
            if let Some(successor) = successor {
                self.tokens[token].successor = Some(successor);
                self.tokens[successor.token].handed_out |= expected != Err(AuthErrorKind::UnusableAnswer);
            }
        }
        let expected = if logged_out { Err(AuthErrorKind::Refused) } else { expected };
        for waiting in waiting {
            if expected.is_ok() && self.random.below(3) == 0 {
                self.untaken.push((waiting, user));
                continue;
            }
            match waiting.outcome().now_or_never().expect("all waiters have an outcome") {
                Ok(refreshed) => {
                    assert_eq!(expected, Ok(()));
                    self.handle(refreshed);
                }
                Err(failure) => assert_eq!(expected, Err(failure.error.kind())),
            }
        }
    }

    /// A client that was not scheduled for a while takes its outcome, or hangs up.
    fn take_outcome(&mut self) {
        let Some(index) = self.random.index(self.untaken.len()) else { return };
        let (waiter, _) = self.untaken.swap_remove(index);
        self.seen.count("is taken late");
        if self.random.below(2) == 0 {
            self.handle(waiter.outcome().now_or_never().unwrap().unwrap());
        }
    }

    /// A handler gets to work.
    fn handle(&mut self, delivery: Delivery) {
        let token = number(delivery.refreshed.material().refresh_token().secret());
        let parent = self.tokens.iter().rev().find_map(|parent| parent.successor.filter(|next| next.token == token));
        // After a logout that was lost, nothing is known of it.
        let since = parent.map_or_else(Instant::now, |parent| parent.since);
        self.responses.push(Response { delivery, token, since });
    }

    /// A handler is done: the browser gets its cookies.
    fn respond(&mut self) {
        let Some(index) = self.random.index(self.responses.len()) else { return };
        let Response { delivery, token, .. } = self.responses.swap_remove(index);
        let (user, now) = (self.tokens[token].user, Instant::now());
        let Ok(latest) = delivery.latest() else {
            let is_newer = self.tokens[token].successor.is_some();
            let user = self.users[user];
            assert!(
                user.refused || user.rotation != Rotation::Single || is_newer,
                "the cookies of {token} are withheld"
            );
            return;
        };
        let latest = number(latest.material().refresh_token().secret());
        assert!(!self.users[user].logged_out, "the cookies of {latest} outlive the logout");
        assert!(!self.is_superseded(latest), "{token} brings {latest} back, which was rotated");
        self.seen.count(if latest == token { "is delivered" } else { "delivers what is newer" });
        self.users[user].cookie = latest;
        for token in self.tokens.iter_mut().filter(|token| token.user == user) {
            if let Some(successor) = &mut token.successor {
                successor.delivered_at.get_or_insert(now);
            }
        }
    }

    /// A client hangs up, while it waits for a refresh or for a handler.
    fn hang_up(&mut self) {
        if self.random.below(2) == 0 {
            if let Some(index) = self.random.index(self.responses.len()) {
                self.responses.swap_remove(index);
            }
        } else if let Some(task) = self.random.index(self.tasks.len())
            && let Some(index) = self.random.index(self.tasks[task].waiting.len())
        {
            self.tasks[task].waiting.swap_remove(index);
        }
    }

    /// The waiters of a refresh fail, and it continues.
    fn time_out(&mut self) {
        let Some(task) = self.random.index(self.tasks.len()) else { return };
        let task = &mut self.tasks[task];
        task.dismissed = true;
        task.leader.dismiss_waiters(AuthError::of(AuthErrorKind::Unavailable));
        for waiting in task.waiting.drain(..) {
            assert_eq!(failure(waiting), AuthErrorKind::Unavailable);
        }
    }

    fn log_out(&mut self) {
        let Some(token) = self.some_token() else { return };
        let user = self.tokens[token].user;
        let mut latest = token;
        while let Some(successor) = self.tokens[latest].successor.filter(|_| self.is_superseded(latest)) {
            latest = successor.token;
        }
        // A browser that comes with a token from before the window is not understood.
        let is_understood = match self.users[user].rotation {
            _ if self.users[user].logout_is_lost => false,
            Rotation::Single => self.tokens[latest].successor.is_none(),
            Rotation::None => true,
            Rotation::Circle => false,
        };
        self.users[user].refused = true;
        self.users[user].logged_out |= is_understood;
        match self.flights.revoke(name(token).as_str().into()).1 {
            Revocation::Now(token) => {
                self.seen.count("logs out");
                if is_understood && self.users[user].rotation == Rotation::Single {
                    assert_eq!(number(&token), latest);
                }
                self.users[user].revoked = true;
            }
            Revocation::AfterRefresh(waiter) => {
                self.seen.count("logs out, in a while");
                let task = self.task_of(&waiter);
                self.tasks[task].logged_out = true;
            }
        }
    }

    async fn wait(&mut self) {
        let millis = 10_u64.pow(1 + u32::try_from(self.random.below(5)).unwrap());
        advance(Duration::from_millis(self.random.below(millis.min(40_000)))).await;
        // Slower ones than that are on their own.
        self.responses.retain(|response| response.since.elapsed() < MAX_GRACE - WINDOW);
        if self.untaken.iter().any(|(waiter, _)| waiter.0.borrow().is_some()) && self.random.below(20) == 0 {
            self.untaken.clear();
        }
    }

    /// What is remembered adds up.
    fn check_memory(&self) {
        let state = self.flights.state();
        assert_eq!(state.flights.len(), self.tasks.len());
        state.grace.check();
    }

    /// Records which families are held, and since when the others are not.
    fn update_holds(&mut self) {
        let now = Instant::now();
        let mut is_held = vec![false; self.users.len()];
        // A browser that comes with a token from before its grace period is on its own.
        let tasks = self.tasks.iter().map(|task| task.token);
        let tasks = tasks.filter(|token| !self.tokens[*token].successor.is_some_and(|successor| successor.is_over));
        let tokens = tasks.chain(self.responses.iter().map(|response| response.token));
        tokens.for_each(|token| is_held[self.tokens[token].user] = true);
        self.untaken.iter().for_each(|(_, user)| is_held[*user] = true);
        for (user, is_held) in self.users.iter_mut().zip(&is_held) {
            if user.was_held && !is_held {
                user.released_at = now;
            }
            user.was_held = *is_held;
        }
        for token in &mut self.tokens {
            let (user, Some(successor)) = (self.users[token.user], &mut token.successor) else { continue };
            let expires_at = match successor.delivered_at {
                None => successor.since + MAX_UNDELIVERED,
                Some(start) if user.was_held => start + MAX_GRACE,
                Some(start) => (start + MAX_GRACE).min(start.max(user.released_at) + WINDOW),
            };
            successor.is_over |= expires_at <= now;
        }
    }

    async fn come_to_rest(&mut self) {
        while !self.tasks.is_empty() {
            self.answer();
        }
        self.responses.clear();
        self.untaken.clear();
        advance(MAX_UNDELIVERED).await;
        let mut state = self.flights.state();
        while state.grace.check() > 0 || !state.negative.is_empty() {
            let before = state.grace.check() + state.negative.len();
            state.evict_expired(Instant::now());
            assert!(state.grace.check() + state.negative.len() < before);
        }
        assert!(state.flights.is_empty() && self.limit.enqueue().is_ok());
    }

    /// Returns whether the layer must know of a token's successor.
    fn is_superseded(&self, token: usize) -> bool {
        let user = self.user_of(token);
        let Some(successor) = self.tokens[token].successor else { return false };
        // A session that is over at Crossmint may have been ended here by a logout with a token that is known for
        // longer than it has to be.
        let is_over = user.logged_out || user.logout_is_lost || user.revoked;
        user.rotation == Rotation::Single && !is_over && !successor.is_over
    }

    fn resolves_to_a_valid_session(&self, token: usize) -> bool {
        let mut latest = (token, None);
        while let Some(successor) = self.tokens[latest.0].successor.filter(|_| self.is_superseded(latest.0)) {
            latest = (successor.token, successor.valid_until);
        }
        latest.1.is_some_and(|valid_until| self.now() < valid_until)
    }

    /// Picks a token that a browser may send: mostly the one that it has, now and then an older one.
    fn some_token(&mut self) -> Option<usize> {
        let user = self.users.len() - 1 - self.random.index(USERS)?;
        let mut token = self.users[user].cookie;
        for _ in 0..self.random.below(12).saturating_sub(8) {
            token = self.tokens[token].parent.unwrap_or(token);
        }
        self.tokens[token].handed_out.then_some(token)
    }

    fn user_of(&self, token: usize) -> User {
        self.users[self.tokens[token].user]
    }

    fn task_of(&self, waiter: &Waiter) -> usize {
        let is_same = |task: &Task| task.waiter.0.same_channel(&waiter.0);
        self.tasks.iter().position(is_same).expect("it has a task")
    }

    fn refreshed(&mut self, token: usize, valid_until: u64) -> Refreshed {
        let verified = Verified { user_id: "alice".into(), expires_at: valid_until, generation: 0 };
        let session = Session::new(verified, AuthMaterial::new("jwt", RefreshToken::new(name(token))));
        let bytes = self.random.index(if self.is_short_of_memory { 2 * MEMORY } else { 4096 }).unwrap_or_default();
        Refreshed::new(session, set_cookie(), bytes)
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_secs()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, step {}", self.seed, self.step);
        }
    }
}

/// How often each event was seen.
#[derive(Debug, Default)]
struct Seen(HashMap<&'static str, usize>);

impl Seen {
    fn count(&mut self, event: &'static str) {
        *self.0.entry(event).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        for (event, times) in &other.0 {
            *self.0.entry(event).or_default() += times;
        }
    }
}

fn failure(waiter: Waiter) -> AuthErrorKind {
    waiter.outcome().now_or_never().expect("all waiters have an outcome").unwrap_err().error.kind()
}

fn name(token: usize) -> String {
    format!("token-{token}")
}

fn number(token: &str) -> usize {
    token.strip_prefix("token-").unwrap().parse().unwrap()
}

fn set_cookie() -> [HeaderValue; 2] {
    [HeaderValue::from_static("jwt"), HeaderValue::from_static("refresh")]
}

const WINDOW: Duration = Duration::from_secs(30);
const MEMORY: usize = 1 << 20;
const MAX_UNDER_WAY: usize = 4;
const USERS: usize = 6;
/// How many kinds of them there are.
const EVENTS: usize = 21;
const STEPS_PER_WORLD: usize = 2000;
