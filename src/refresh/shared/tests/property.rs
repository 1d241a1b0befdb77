//! Any series of events, with chains of tokens and operations that overtake each other.
//!
//! `STEPS=1000000 cargo test --all-features --lib any_series_of_events_between` tries more of them. A failure names its
//! seed, and prints what has happened.

use super::*;
use crate::test_support::Random;

#[tokio::test(start_paused = true)]
async fn any_series_of_events_between_replicas_keeps_the_promises() {
    let steps: usize = std::env::var("STEPS").map_or(100_000, |steps| steps.parse().unwrap());
    let first = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut seen = BTreeMap::new();
    for seed in (first..).take(steps.div_ceil(STEPS_PER_WORLD)) {
        let mut history = History::new(seed);
        for _ in 0..STEPS_PER_WORLD {
            history.happen(&mut seen).await;
        }
        history.end().await;
    }
    assert!(seen.values().all(|times| *times * 5000 > steps), "each event is to be frequent: {seen:?}");
    assert_eq!(seen.len(), EVENTS, "{seen:?}");
}

/// A world, and what may happen in it.
struct History {
    seed: u64,
    random: Random,
    world: World,
    faults: Faults,
    /// What the browsers hold.
    cookies: Vec<usize>,
}

/// Each series has faults of one kind, so that the promises that the others void are checked.
#[derive(Clone, Copy, PartialEq)]
enum Faults {
    Deaths,
    Losses,
    Stops,
    All,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let faults = [Faults::Deaths, Faults::Losses, Faults::Stops, Faults::All][usize::try_from(seed % 4).unwrap()];
        let when_unreachable = if faults == Faults::All { WhenUnreachable::GoOn } else { WhenUnreachable::Wait };
        let lifetime = [0, 2, 60][random.index(3).unwrap()];
        let world = World::new(REPLICAS, when_unreachable, Duration::from_secs(lifetime));
        let mut history = Self { seed, random, world, faults, cookies: Vec::new() };
        for _ in 0..SESSIONS {
            history.sign_in();
        }
        history
    }

    fn sign_in(&mut self) {
        let token = self.world.sign_in();
        self.cookies.push(token);
    }

    async fn happen(&mut self, seen: &mut BTreeMap<String, usize>) {
        let mut count = |event: &str| *seen.entry(event.to_owned()).or_default() += 1;
        let has = |faults| self.faults == faults || self.faults == Faults::All;
        let event = match self.random.below(100) {
            0..12 => {
                count("Request");
                let (token, replica) = (self.some_token(), self.some_replica());
                self.world.request(replica, token);
                return self.world.settle().await;
            }
            12 if self.random.below(2) == 0 => {
                count("Logout");
                let (token, replica) = (self.some_token(), self.some_replica());
                self.world.log_out(replica, token);
                return self.world.settle().await;
            }
            13 => {
                count("SignIn");
                return self.sign_in();
            }
            14 if has(Faults::Losses) => self.some_operation().map(|(number, is_sent)| {
                let is_lost = is_sent && self.random.below(2) == 0;
                if is_lost { Event::LoseOperation(number) } else { Event::LoseReply(number) }
            }),
            15 if has(Faults::Losses) && self.random.below(2) == 0 => {
                self.some_event(|event| matches!(event, Event::Commit(_) | Event::Answer(_))).map(|event| match event {
                    Event::Commit(call) | Event::Answer(call) => Event::LoseCall(call),
                    other => other,
                })
            }
            16 if has(Faults::Deaths) && self.random.below(3) == 0 => {
                let replica = self.some_replica();
                self.world.start();
                Some(Event::Die(replica))
            }
            17 if has(Faults::Stops) && self.random.below(2) == 0 => {
                let replica = self.some_replica();
                Some(Event::Stop(replica))
            }
            18 if self.faults == Faults::All && self.random.below(5) == 0 => Some(Event::Flush),
            19..29 => {
                let limit = [20, 300, 3000, 20_000][self.random.index(4).unwrap()];
                self.world.net().max_wait().map(|max| Event::Wait(self.random.below(limit).min(max)))
            }
            _ => None,
        };
        let event = event.or_else(|| self.some_event(|_| true));
        let Some(event) = event else { return };
        // An operation that has not arrived is lost, or arrives before its reply is.
        let event = match event {
            Event::Operate(number) | Event::Look(number) => Event::Arrive(number),
            other => other,
        };
        let name = format!("{event:?}");
        count(name.split('(').next().unwrap());
        self.world.apply(event).await;
        self.take_cookies();
    }

    /// The browsers get what their requests have brought.
    fn take_cookies(&mut self) {
        let net = self.world.net();
        for (session, cookie) in self.cookies.iter_mut().enumerate() {
            let tasks = net.tasks.iter().filter(|task| net.tokens[task.token].session == session && !task.is_logout);
            *cookie = tasks.filter_map(|task| task.outcome?.ok()).max().unwrap_or(*cookie).max(*cookie);
        }
    }

    /// Picks a token of one of the latest sessions: mostly the one that its browser has, or an older one.
    fn some_token(&mut self) -> usize {
        let session = self.cookies.len() - 1 - self.random.index(SESSIONS).unwrap();
        let mut token = self.cookies[session];
        let net = self.world.net();
        for _ in 0..self.random.below(8).saturating_sub(4) {
            token = net.tokens[token].parent.unwrap_or(token);
        }
        token
    }

    fn some_replica(&mut self) -> usize {
        let net = self.world.net();
        let alive: Vec<_> = (0..net.replicas.len()).filter(|replica| !net.replicas[*replica].is_dead).collect();
        alive[self.random.index(alive.len()).unwrap()]
    }

    fn some_event(&mut self, is_meant: impl Fn(&Event) -> bool) -> Option<Event> {
        let events: Vec<_> = self.world.net().due().into_iter().filter(is_meant).collect();
        self.random.index(events.len()).map(|index| events[index])
    }

    /// Picks an operation that has no reply yet, and tells whether it has not arrived either.
    fn some_operation(&mut self) -> Option<(usize, bool)> {
        let event = self.some_event(|event| matches!(event, Event::Operate(_) | Event::Look(_) | Event::Reply(_)))?;
        match event {
            Event::Reply(number) => Some((number, false)),
            Event::Operate(number) | Event::Look(number) => Some((number, true)),
            _ => None,
        }
    }

    async fn end(mut self) {
        let latest: Vec<_> = (0..SESSIONS).map(|_| self.some_token()).collect();
        self.world.check_rest(&latest).await;
    }
}

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.seed);
        }
    }
}

impl Net {
    /// Returns for how long nothing can happen: operations and calls have time limits. `None` if something has to.
    fn max_wait(&self) -> Option<u64> {
        let is_up = |replica: usize| !self.replicas[replica].is_dead && self.replicas[replica].stopped_until.is_none();
        let operations = self.operations.values().filter(|operation| is_up(operation.replica));
        let operations = operations.map(|operation| operation.sent_at + OPERATION_LIMIT);
        let calls = self.calls.iter().filter(|call| call.reply.is_some() && is_up(self.tasks[call.task].replica));
        let calls = calls.map(|call| call.sent_at + CALL_LIMIT);
        let until = operations.chain(calls).min();
        // Those who wait look again after a while.
        let longest = if self.is_at_rest() { u64::MAX } else { POLL_STEP };
        let max = until.map_or(longest, |until| u64::try_from((until - Instant::now()).as_millis()).unwrap());
        (max > 0).then_some(max)
    }
}

const REPLICAS: usize = 3;
const SESSIONS: usize = 4;
const STEPS_PER_WORLD: usize = 500;
/// Longer than the delay after which a claim is given up.
const OPERATION_LIMIT: Duration = Duration::from_millis(1300);
/// How many kinds of them there are.
const EVENTS: usize = 16;
