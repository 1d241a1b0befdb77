//! Every order of events in small worlds.
//!
//! Each run takes one path through the tree of choices, from a world of its own; the next one takes the last choice that
//! has another alternative. Orders that differ only in events that do not affect each other are tried once (sleep sets:
//! Godefroid, "Partial-Order Methods for the Verification of Concurrent Systems", 1996).

use tokio::runtime::{Builder, Runtime};

use super::*;

/// A small world.
struct Row {
    name: &'static str,
    /// The replicas at which the token is presented at once.
    requests: &'static [usize],
    /// The replicas at which it is signed out.
    logouts: &'static [usize],
    /// Replicas to which it comes once a claim would be over.
    latecomers: &'static [usize],
    faults: &'static [Fault],
    /// How many of the faults happen at most.
    max_faults: usize,
    when_unreachable: WhenUnreachable,
    jwt_lifetime: Duration,
    /// Whether something can happen between an operation and its reply.
    has_slow_replies: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    LostOperation,
    LostReply,
    LostCall,
    Death,
    Stop,
    /// Nothing happens for longer than a replica waits for another.
    Slowness,
    /// Nothing happens until a replica that waits looks again.
    Pause,
    Flush,
}

const ROW: Row = Row {
    name: "",
    requests: &[0, 1],
    logouts: &[],
    latecomers: &[],
    faults: &[],
    max_faults: 0,
    when_unreachable: WhenUnreachable::Wait,
    jwt_lifetime: HOUR,
    has_slow_replies: false,
};

const ROWS: &[Row] = &[
    Row { name: "three requests", requests: &[0, 1, 2], ..ROW },
    Row { name: "slow replies", has_slow_replies: true, ..ROW },
    Row { name: "slow replies and a logout", requests: &[0], logouts: &[1], has_slow_replies: true, ..ROW },
    Row { name: "a logout", logouts: &[1], ..ROW },
    Row { name: "a logout elsewhere", logouts: &[2], ..ROW },
    Row { name: "two logouts", requests: &[0], logouts: &[0, 1], ..ROW },
    Row { name: "JWTs that have expired on arrival", jwt_lifetime: Duration::ZERO, ..ROW },
    Row { name: "JWTs that have expired, and a logout", jwt_lifetime: Duration::ZERO, logouts: &[1], ..ROW },
    Row { name: "a death", faults: &[Fault::Death], max_faults: 1, latecomers: &[1], ..ROW },
    Row { name: "two deaths", requests: &[0], latecomers: &[1, 2], faults: &[Fault::Death], max_faults: 2, ..ROW },
    Row { name: "a death and a logout", requests: &[0], logouts: &[1], faults: &[Fault::Death], max_faults: 1, ..ROW },
    Row { name: "a lost operation", faults: LOSSES, max_faults: 1, ..ROW },
    Row { name: "a lost reply of three", requests: &[0, 1, 2], faults: &[Fault::LostReply], max_faults: 1, ..ROW },
    Row { name: "two lost operations", requests: &[0], latecomers: &[1], faults: LOSSES, max_faults: 2, ..ROW },
    Row { name: "a lost operation and a logout", requests: &[0], logouts: &[1], faults: LOSSES, max_faults: 1, ..ROW },
    Row {
        name: "a store that is not needed",
        faults: LOSSES,
        max_faults: 1,
        when_unreachable: WhenUnreachable::GoOn,
        ..ROW
    },
    Row { name: "a lost call", faults: &[Fault::LostCall], max_faults: 1, ..ROW },
    Row {
        name: "a lost call and a logout",
        requests: &[0],
        logouts: &[1],
        faults: &[Fault::LostCall],
        max_faults: 1,
        ..ROW
    },
    Row { name: "slowness", faults: &[Fault::Slowness], max_faults: 1, latecomers: &[1], ..ROW },
    Row { name: "a stop", faults: &[Fault::Stop], max_faults: 1, latecomers: &[1], ..ROW },
    Row { name: "a stop and a logout", requests: &[0], logouts: &[1], faults: &[Fault::Stop], max_faults: 1, ..ROW },
    Row { name: "a store that is emptied, and a pause", faults: &[Fault::Flush, Fault::Pause], max_faults: 2, ..ROW },
    Row {
        name: "a death and a lost operation",
        requests: &[0],
        latecomers: &[1],
        faults: &[Fault::Death, Fault::LostOperation, Fault::LostReply],
        max_faults: 2,
        ..ROW
    },
];

const LOSSES: &[Fault] = &[Fault::LostOperation, Fault::LostReply];
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn every_order_of_events_keeps_the_promises() {
    let only = std::env::var("ROW").ok();
    let mut all = 0;
    for row in ROWS.iter().filter(|row| only.as_ref().is_none_or(|only| row.name.contains(only.as_str()))) {
        let start = std::time::Instant::now();
        let mut search = Search::default();
        while search.is_running {
            search.run(row);
        }
        eprintln!("{:7} orders of events, {:?}: {}", search.orders, start.elapsed(), row.name);
        all += search.orders;
    }
    eprintln!("{all:7} in all");
}

/// A search of the tree of choices, depth first.
struct Search {
    is_running: bool,
    path: Vec<Choice>,
    orders: usize,
}

struct Choice {
    events: Vec<Event>,
    /// The event that is taken.
    taken: usize,
    /// Events whose orders with the rest were tried in another branch.
    asleep: Vec<Event>,
}

impl Default for Search {
    fn default() -> Self {
        Self { is_running: true, path: Vec::new(), orders: 0 }
    }
}

impl Search {
    fn run(&mut self, row: &Row) {
        let is_new = runtime().block_on(self.walk(row));
        self.orders += usize::from(is_new);
        while let Some(choice) = self.path.last_mut() {
            choice.taken += 1;
            if choice.taken < choice.events.len() {
                return;
            }
            self.path.pop();
        }
        self.is_running = false;
    }

    /// Takes one path. Returns whether it leads to the end.
    async fn walk(&mut self, row: &Row) -> bool {
        let world = World::new(3, row.when_unreachable, row.jwt_lifetime);
        world.net().is_strict = true;
        let token = world.sign_in();
        for replica in row.requests {
            world.request(*replica, token);
        }
        for replica in row.logouts {
            world.log_out(*replica, token);
        }
        world.settle().await;
        let mut latecomers = row.latecomers;
        let (mut faults, mut depth, mut actor, mut waited) = (0, 0, None, 0);
        loop {
            let mut events = world.net().due();
            if events.is_empty() {
                if world.net().is_at_rest() {
                    let [latecomer, rest @ ..] = latecomers else { break };
                    // What is repeated must not be held up for so long.
                    let pause = if world.net().has_background { PAUSE } else { LATE };
                    waited += pause;
                    world.apply(Event::Wait(pause)).await;
                    if waited < LATE {
                        continue;
                    }
                    (latecomers, waited) = (rest, 0);
                    if !world.net().replicas[*latecomer].is_dead {
                        world.request(*latecomer, token);
                    }
                    world.settle().await;
                } else {
                    world.apply(Event::Wait(PAUSE)).await;
                }
                continue;
            }
            if row.has_slow_replies {
                for event in &mut events {
                    if let Event::Operate(number) | Event::Look(number) = *event {
                        *event = Event::Arrive(number);
                    }
                }
            }
            if faults < row.max_faults {
                let all = world.net().faults(row.faults, actor);
                events.extend(all);
            }
            let event = if depth < self.path.len() {
                let choice = &self.path[depth];
                choice.events[choice.taken]
            } else {
                let asleep = self.path.last().map_or_else(Vec::new, |Choice { events, taken, asleep }| {
                    let others = asleep.iter().chain(&events[..*taken]);
                    others.filter(|other| are_independent(**other, events[*taken])).copied().collect()
                });
                events.retain(|event| !asleep.contains(event));
                let Some(first) = events.first().copied() else { return false };
                self.path.push(Choice { events, taken: 0, asleep });
                first
            };
            depth += 1;
            faults += usize::from(is_fault(event));
            actor = Some(world.net().actor(event));
            world.apply(event).await;
        }
        if faults == 0 {
            world.net().check_without_faults(row);
        }
        world.check_rest(&[token]).await;
        true
    }
}

impl Net {
    /// Returns the faults that can happen now.
    ///
    /// A replica dies or stops at once after it has done something: later makes no difference to the others.
    fn faults(&self, kinds: &[Fault], actor: Option<usize>) -> Vec<Event> {
        let mut faults = Vec::new();
        let has = |kind| kinds.contains(&kind);
        let is_up = |replica: usize| !self.replicas[replica].is_dead && self.replicas[replica].stopped_until.is_none();
        for (number, operation) in self.operations.iter().filter(|(_, operation)| is_up(operation.replica)) {
            let is_look = operation.kind == "look";
            if has(Fault::LostOperation) && !operation.is_poll {
                faults.push(Event::LoseOperation(*number));
            }
            if has(Fault::LostReply) && !is_look {
                faults.push(Event::LoseReply(*number));
            }
            if has(Fault::Death) && !is_look {
                faults.push(Event::OperateAndDie(*number));
            }
        }
        for (number, call) in self.calls.iter().enumerate() {
            if has(Fault::LostCall) && call.reply.is_some() && is_up(self.tasks[call.task].replica) {
                faults.push(Event::LoseCall(number));
            }
        }
        let actors = (0..self.replicas.len()).filter(|replica| actor.is_none_or(|actor| actor == *replica));
        for replica in actors.filter(|replica| is_up(*replica)) {
            let is_busy =
                self.tasks.iter().any(|task| task.replica == replica && task.outcome.is_none() && !task.is_logout);
            if has(Fault::Death) && is_busy {
                faults.push(Event::Die(replica));
            }
            if has(Fault::Stop) && is_busy {
                faults.push(Event::Stop(replica));
            }
        }
        if has(Fault::Slowness) {
            faults.push(Event::Wait(SLOW));
        }
        if has(Fault::Pause) {
            faults.push(Event::Wait(PAUSE));
        }
        if has(Fault::Flush) {
            faults.push(Event::Flush);
        }
        faults
    }

    fn actor(&self, event: Event) -> usize {
        match event {
            Event::Operate(number)
            | Event::Look(number)
            | Event::Arrive(number)
            | Event::Reply(number)
            | Event::LoseOperation(number)
            | Event::LoseReply(number)
            | Event::OperateAndDie(number) => self.operations[&number].replica,
            Event::Commit(call) | Event::Answer(call) | Event::LoseCall(call) | Event::TimeOut(call) => {
                self.tasks[self.calls[call].task].replica
            }
            Event::Die(replica) | Event::Stop(replica) | Event::Resume(replica) => replica,
            Event::Flush | Event::Wait(_) => usize::MAX,
        }
    }

    /// Without a fault, nobody waits, nobody fails, and no token is sent in vain.
    fn check_without_faults(&self, row: &Row) {
        let trace = || self.trace.join("\n");
        assert!(self.start.elapsed().is_zero() || !row.latecomers.is_empty(), "time has passed\n{}", trace());
        let is_good = |task: &Task| match task.outcome {
            Some(Ok(_)) => true,
            Some(Err(AuthErrorKind::Refused)) => !row.logouts.is_empty(),
            _ => false,
        };
        assert!(self.tasks.iter().all(is_good), "{}", trace());
        assert!(self.calls.len() <= 1 || row.jwt_lifetime.is_zero(), "{}", trace());
    }
}

fn is_fault(event: Event) -> bool {
    matches!(
        event,
        Event::LoseOperation(_)
            | Event::LoseReply(_)
            | Event::OperateAndDie(_)
            | Event::LoseCall(_)
            | Event::Die(_)
            | Event::Stop(_)
            | Event::Flush
            | Event::Wait(_)
    )
}

/// Returns whether two events of different replicas have the same effect in either order.
///
/// A look reads the store, and its replica then sends something that is another event.
fn are_independent(one: Event, other: Event) -> bool {
    let is_look = |event| matches!(event, Event::Look(_));
    let is_elsewhere = |event| matches!(event, Event::Commit(_) | Event::Answer(_));
    (is_look(one) && (is_look(other) || is_elsewhere(other))) || (is_elsewhere(one) && is_look(other))
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Longer than a replica may wait for its claim, or for another replica, and shorter than a call may take.
const SLOW: u64 = 1100;
const PAUSE: u64 = 250;
