//! Three replicas, a store and a Crossmint, between which a test decides what happens next.
//!
//! Crossmint takes each token once: a second use ends its session. The rules that are checked with every step:
//!
//! 1. A token is not sent while it is under way, while its outcome is recorded, or after a logout was.
//! 2. A token is sent at most twice without an outcome.
//! 3. An answer is recorded before anyone gets it, and whoever comes with an old token gets its latest successor.
//! 4. What was looked up or recorded after a logout is not handed out. The session ends at Crossmint, too.
//! 5. What is handed out is a successor of the token that was presented. Nobody is refused whose session is alive.
//! 6. Every refresh ends.
//!
//! A replica whose store was unreachable is excused under `GoOn`, and so is one that was stopped for longer than its
//! claim holds. A store that was emptied excuses all.
//!
//! # What the rules catch
//!
//! Each of these mistakes was made by hand. "Both" are the model and the property test.
//!
//! | mistake | found by |
//! | --- | --- |
//! | every claim is granted | both: sent while it is under way |
//! | a failure is recorded whoever holds the claim | model: sent although a replica has its outcome |
//! | the lease is shorter than a call | model: sent while it is under way; property test: although a replica has its outcome |
//! | an answer replaces a tombstone | model: Crossmint has not heard of the logout; property test: handed out after a logout |
//! | a claim that was marked by a logout is finished like another | both: handed out after a logout |
//! | `Finished::Ended` is taken for a success | both: handed out after a logout |
//! | an answer is handed out first, and recorded then | both: handed out before it is recorded |
//! | `standing` is skipped | both: handed out after a logout |
//! | a logout ends the first token only | both: handed out after a logout |
//! | the record is watched from after the look | model: time has passed without a fault |
//! | a record that is gone is free, although its claim was seen | model: sent by a task that knows better |
//! | claims are taken over any number of times | model: sent a third time |
//! | an outcome that could not be recorded is not repeated | model: used twice |
//! | a claim is given up if its outcome cannot be recorded | model: sent although a replica has its outcome; property test: handed out after a logout |
//! | `Finished::Superseded` is ignored | model: refused, and there is a successor |
//! | an answer is recorded only for the holder of the claim | property test: handed out before it is recorded |
//! | the first answer of a chain is taken for the latest | property test: what a latecomer gets |
//! | `Wait` goes on without the store | both: sent although its outcome is recorded |
//! | a claim that was given up counts as an attempt | both: what a latecomer gets |
//! | the successor is not revoked after a logout | both: Crossmint has not heard of the logout |
//! | nor is it if its record was late | both: Crossmint has not heard of the logout |
//! | nor if its replica has died | model: Crossmint has not heard of the logout |
//! | a claim is used that was granted late, or kept if its reply was lost | the cases |

mod cases;
mod gate;
mod model;
mod promises;
mod property;

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, OnceLock, Weak},
};

use tokio::task;

use self::{gate::Gate, promises::Expected};
use super::*;
use crate::{
    config::{ApiKey, CrossmintAuthConfig, Environment},
    refresh::timed_out,
    store::{LogPosition, MEMORY_OF_CLAIMS, MemoryStore, Sealed, Watch, Watches},
};

struct World {
    net: Arc<Mutex<Net>>,
    store: MemoryStore,
    replicas: Vec<Arc<SharedRenewals>>,
}

/// Everything that is under way, and everything that has happened.
struct Net {
    start: Instant,
    /// Counts the events.
    step: usize,
    /// In the order in which they were sent.
    operations: BTreeMap<usize, Operation>,
    next_operation: usize,
    calls: Vec<Call>,
    tokens: Vec<Token>,
    ids: HashMap<Id, usize>,
    sessions: Vec<Session>,
    tasks: Vec<Task>,
    task_ids: HashMap<task::Id, usize>,
    replicas: Vec<Replica>,
    /// For how long the next JWT is valid.
    jwt_lifetime: Duration,
    when_unreachable: WhenUnreachable,
    was_flushed: bool,
    /// Operations are lost so rarely that a repetition is not.
    is_strict: bool,
    /// Something is repeated after its task has ended.
    has_background: bool,
    trace: Vec<String>,
    violation: Option<String>,
}

#[derive(Default)]
struct Replica {
    is_dead: bool,
    /// Until when it is stopped.
    stopped_until: Option<Instant>,
    /// It may have sent a token without a claim, or after its claim was over.
    is_excused: bool,
    /// It may have gone on without the store.
    is_alone: bool,
    /// The successors that it has handed out, by the token.
    remembered: HashMap<usize, usize>,
    watches: Watches,
}

/// An operation of the store.
struct Operation {
    kind: &'static str,
    replica: usize,
    /// `None` if a task of the engine's own has sent it.
    task: Option<usize>,
    sent_at: Instant,
    /// It is a look after others.
    is_poll: bool,
    state: OperationState,
}

impl Operation {
    fn is_sent(&self) -> bool {
        matches!(self.state, OperationState::Sent(_))
    }
}

enum OperationState {
    Sent(Box<dyn FnOnce(&MemoryStore) -> Effect + Send>),
    Done(Box<dyn FnOnce() + Send>),
}

/// What an operation does.
struct Effect {
    reply: Box<dyn FnOnce() + Send>,
    change: (Id, Change),
}

#[derive(Clone, Copy)]
enum Change {
    /// It is as it was: another replica is sending the token.
    SeenClaimed,
    Claimed,
    Released,
    Failed,
    /// Crossmint's answer is recorded for so long, or its refusal.
    Done(Duration),
    Refused(Duration),
    Ended(Duration),
    Delivered(Duration),
    /// It is as it was.
    None,
}

/// A token on its way to Crossmint and back.
struct Call {
    task: usize,
    token: usize,
    sent_at: Instant,
    verdict: Option<Result<usize, ()>>,
    /// `None` once it is over.
    reply: Option<oneshot::Sender<Result<RefreshAnswer, AuthError>>>,
    /// The replica has received the verdict.
    is_delivered: bool,
    /// The replica has received an error.
    has_failed: bool,
}

#[derive(Clone, Copy)]
struct Token {
    session: usize,
    parent: Option<usize>,
    /// The call that has rotated it.
    spent_by: Option<usize>,
    /// When its outcome was recorded, and until when it stays.
    known: Option<(usize, Instant)>,
    /// It is an answer.
    is_done: bool,
    ended: Option<(usize, Instant)>,
    /// How many claims had no outcome.
    claims: usize,
    jwt_expires_at: Instant,
}

#[derive(Default)]
struct Session {
    /// The tokens, in order.
    chain: Vec<usize>,
    is_over: bool,
    /// A logout has begun.
    is_ending: bool,
    /// The last step of a logout that has found the store reachable, and its time.
    ended: Option<(usize, Instant)>,
}

#[derive(Clone, Copy)]
struct Task {
    replica: usize,
    token: usize,
    is_logout: bool,
    started_at: Instant,
    /// When the store last did something for it.
    last_effect: usize,
    looks: usize,
    /// The token that was being sent when it looked.
    seen_claimed: Option<usize>,
    /// One of its operations was lost, or its reply.
    has_lost: bool,
    is_from_memory: bool,
    outcome: Option<Result<usize, AuthErrorKind>>,
}

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// An operation reaches the store.
    Arrive(usize),
    Reply(usize),
    /// Both, with nothing in between.
    Operate(usize),
    /// So does an operation that changes nothing.
    Look(usize),
    LoseOperation(usize),
    LoseReply(usize),
    /// The replica dies after the operation.
    OperateAndDie(usize),
    Commit(usize),
    Answer(usize),
    /// The call fails, before or after Crossmint has seen the token.
    LoseCall(usize),
    TimeOut(usize),
    Die(usize),
    /// A replica is stopped for longer than its claim holds.
    Stop(usize),
    Resume(usize),
    Flush,
    /// Nothing happens for some milliseconds.
    Wait(u64),
}

impl World {
    fn new(replicas: usize, when_unreachable: WhenUnreachable, jwt_lifetime: Duration) -> Self {
        let net = Net {
            start: Instant::now(),
            step: 0,
            operations: BTreeMap::new(),
            next_operation: 0,
            calls: Vec::new(),
            tokens: Vec::new(),
            ids: HashMap::new(),
            sessions: Vec::new(),
            tasks: Vec::new(),
            task_ids: HashMap::new(),
            replicas: Vec::new(),
            jwt_lifetime,
            when_unreachable,
            was_flushed: false,
            is_strict: false,
            has_background: false,
            trace: Vec::new(),
            violation: None,
        };
        let net = Arc::new(Mutex::new(net));
        let mut world = Self { net, store: MemoryStore::default(), replicas: Vec::new() };
        (0..replicas).for_each(|_| world.start());
        world
    }

    /// Starts another replica.
    fn start(&mut self) {
        let (settings, options, counters) = fixtures();
        let (net, replica) = (Arc::clone(&self.net), self.replicas.len());
        let options = options.clone().when_unreachable(lock(&net).when_unreachable);
        lock(&net).replicas.push(Replica::default());
        let store = move |_: &str| Arc::new(Gate { net, replica }) as _;
        let tasks = TaskTracker::new(Weak::<()>::new());
        let shared = SharedRenewals::with_store(settings, &options, store, tasks, Arc::clone(counters));
        self.replicas.push(Arc::new(shared));
    }

    fn net(&self) -> MutexGuard<'_, Net> {
        lock(&self.net)
    }

    fn sign_in(&self) -> usize {
        let mut net = self.net();
        let session = net.sessions.len();
        net.sessions.push(Session::default());
        net.issue(session, None)
    }

    /// A request with a token arrives at a replica.
    fn request(&self, replica: usize, token: usize) -> usize {
        let task = self.net().begin(replica, token, false);
        let (net, shared) = (Arc::clone(&self.net), Arc::clone(&self.replicas[replica]));
        let refresh = async move {
            let outcome = refresh(&net, &shared, task).await;
            lock(&net).complete(task, outcome);
        };
        self.net().task_ids.insert(tokio::spawn(refresh).id(), task);
        task
    }

    fn log_out(&self, replica: usize, token: usize) -> usize {
        let task = self.net().begin(replica, token, true);
        let (net, shared) = (Arc::clone(&self.net), Arc::clone(&self.replicas[replica]));
        let logout = async move {
            log_out(&net, &shared, task).await;
            lock(&net).complete(task, Ok(token));
        };
        self.net().task_ids.insert(tokio::spawn(logout).id(), task);
        task
    }

    /// Lets all tasks run until they wait for something.
    async fn settle(&self) {
        for _ in 0..3 {
            task::yield_now().await;
        }
        let net = self.net();
        if let Some(violation) = &net.violation {
            let trace = net.trace.join("\n");
            panic!("{violation}\n{trace}");
        }
    }

    async fn apply(&self, event: Event) {
        {
            let mut net = self.net();
            net.step += 1;
            let what = net.describe(event);
            net.trace.push(what);
        }
        match event {
            Event::Arrive(operation) => self.arrive(operation),
            Event::Reply(operation) => self.reply(operation),
            Event::Operate(operation) | Event::Look(operation) => {
                self.arrive(operation);
                self.reply(operation);
            }
            Event::LoseOperation(operation) => self.net().lose(operation),
            Event::LoseReply(operation) => {
                if self.net().operations[&operation].is_sent() {
                    self.arrive(operation);
                }
                self.net().lose(operation);
            }
            Event::OperateAndDie(operation) => {
                self.arrive(operation);
                let mut net = self.net();
                let replica = net.operations[&operation].replica;
                net.die(replica);
            }
            Event::Commit(call) => self.net().commit(call),
            Event::Answer(call) => self.net().answer(call),
            Event::LoseCall(call) | Event::TimeOut(call) => self.net().fail_call(call),
            Event::Die(replica) => self.net().die(replica),
            Event::Stop(replica) => {
                let replica = &mut self.net().replicas[replica];
                replica.stopped_until = Some(Instant::now() + LEASE + MARGIN);
                replica.is_excused = true;
            }
            Event::Resume(replica) => self.net().replicas[replica].stopped_until = None,
            Event::Flush => {
                self.store.flush();
                self.net().was_flushed = true;
            }
            Event::Wait(millis) => sleep(Duration::from_millis(millis)).await,
        }
        self.settle().await;
    }

    fn arrive(&self, operation: usize) {
        let sent = self.net().operations.remove(&operation).expect("it was sent");
        let OperationState::Sent(effect) = sent.state else { return };
        let effect = effect(&self.store);
        let mut net = self.net();
        let step = net.step;
        if let Some(task) = sent.task {
            net.tasks[task].last_effect = step;
        }
        let (id, change) = effect.change;
        net.changed(id, change);
        if let (Some(task), Change::SeenClaimed) = (sent.task, change) {
            net.tasks[task].seen_claimed = net.ids.get(&id).copied();
        }
        net.operations.insert(operation, Operation { state: OperationState::Done(effect.reply), ..sent });
    }

    fn reply(&self, operation: usize) {
        let done = self.net().operations.remove(&operation).expect("it was done");
        if let OperationState::Done(reply) = done.state {
            reply();
        }
    }

    /// What is under way takes its course, without another fault, until every refresh has ended.
    async fn come_to_rest(&self) {
        let mut rounds = 0;
        loop {
            while let Some(event) = self.next_due() {
                self.apply(event).await;
            }
            if self.net().is_at_rest() {
                break;
            }
            rounds += 1;
            assert!(rounds < 1000, "a refresh does not end\n{}", self.net().trace.join("\n"));
            self.apply(Event::Wait(POLL_STEP)).await;
        }
        // Something may have to be repeated for as long as a claim holds.
        let rounds = if self.net().has_background { 24 } else { 1 };
        for _ in 0..rounds {
            self.apply(Event::Wait(LATE / rounds)).await;
            while let Some(event) = self.next_due() {
                self.apply(event).await;
            }
        }
    }

    /// Every session is in the state in which the rules want it.
    async fn check_rest(&self, latecomers: &[usize]) {
        self.come_to_rest().await;
        for token in latecomers.iter().copied() {
            let session = self.net().tokens[token].session;
            self.check_end(session);
            for replica in 0..self.replicas.len() {
                if self.net().replicas[replica].is_dead {
                    continue;
                }
                let expected = self.net().expected(session, token);
                let latecomer = self.request(replica, token);
                self.settle().await;
                self.come_to_rest_briefly(latecomer).await;
                let net = self.net();
                let outcome = net.tasks[latecomer].outcome.expect("it has ended");
                // A session whose JWT has expired is rotated once more.
                let latest = net.sessions[session].chain.last().copied();
                let is_right = match expected {
                    Expected::Any => true,
                    Expected::Latest => outcome.ok() == latest,
                    Expected::Refused => outcome == Err(AuthErrorKind::Refused),
                };
                let trace = net.trace.join("\n");
                assert!(is_right, "the latecomer's {token} brings {outcome:?} instead of {expected:?}\n{trace}");
            }
        }
    }

    fn next_due(&self) -> Option<Event> {
        self.net().due().into_iter().next()
    }

    async fn come_to_rest_briefly(&self, task: usize) {
        for _ in 0..100 {
            while let Some(event) = self.next_due() {
                self.apply(event).await;
            }
            if self.net().tasks[task].outcome.is_some() {
                return;
            }
            self.apply(Event::Wait(POLL_STEP)).await;
        }
    }
}

/// A request, as `Refresher::refresh` does it.
async fn refresh(net: &Arc<Mutex<Net>>, shared: &Arc<SharedRenewals>, task: usize) -> Result<usize, AuthErrorKind> {
    let (token, latest, is_valid) = lock(net).remembered(task);
    if latest != token && is_valid {
        match shared.standing(&name(latest)).await {
            Standing::Current => {
                lock(net).tasks[task].is_from_memory = true;
                return Ok(latest);
            }
            Standing::Rotated => {}
            Standing::Ended => return Err(AuthErrorKind::Refused),
        }
    }
    let mut course = shared.course(&name(latest));
    let caller = Arc::new(Caller { net: Arc::clone(net), task });
    let answer = course.exchange(&caller).await.map_err(|error| error.kind())?;
    let successor = number(&answer.secret);
    // Every other response is delivered.
    if successor.is_multiple_of(2) {
        let _ = course.deliver().send(());
    }
    Ok(successor)
}

/// A logout, as `Refresher::end` does it.
async fn log_out(net: &Arc<Mutex<Net>>, shared: &Arc<SharedRenewals>, task: usize) {
    let (token, latest, _) = lock(net).remembered(task);
    let mut ended = shared.end(&name(token)).await;
    if latest != token && ended.last.as_ref().is_some_and(|last| number(last) == token) {
        ended = shared.end(&name(latest)).await;
    }
    let (net, shared, last) = (Arc::clone(net), Arc::clone(shared), ended.last.clone());
    if let Some(last) = &last {
        lock(&net).revoke(task, last);
    }
    if ended.claimed.is_none() && ended.is_recorded {
        return;
    }
    lock(&net).has_background = true;
    tokio::spawn(async move {
        if let Some(claimed) = ended.claimed
            && !shared.claimer_finishes(&claimed).await
        {
            lock(&net).revoke(task, &claimed);
        }
        let until = Instant::now() + LEASE;
        let mut is_recorded = ended.is_recorded;
        let last = last.unwrap_or_else(|| name(latest));
        while !is_recorded && Instant::now() < until {
            shared.pause().await;
            let ended = shared.end(&last).await;
            is_recorded = ended.is_recorded;
            if let Some(successor) = ended.last.filter(|successor| is_recorded && **successor != *last) {
                lock(&net).revoke(task, &successor);
            }
        }
    });
}

struct Caller {
    net: Arc<Mutex<Net>>,
    task: usize,
}

impl Exchange for Caller {
    type Permit<'a> = ();

    fn has_expired(&self, jwt: &str) -> bool {
        let token = number(jwt.strip_prefix("jwt-").unwrap());
        lock(&self.net).tokens[token].jwt_expires_at <= Instant::now()
    }

    async fn acquire(&self) -> Result<(), AuthError> {
        Ok(())
    }

    async fn send<'a>(&'a self, (): (), token: &'a Secret) -> Result<RefreshAnswer, AuthError> {
        let answer = lock(&self.net).send(self.task, number(token));
        answer.await.expect("every call has an end")
    }

    async fn revoke(&self, token: &Secret) {
        lock(&self.net).revoke(self.task, token);
    }

    async fn end(self: &Arc<Self>, ended: Ended, _: Secret) {
        if let Some(last) = ended.last {
            self.revoke(&last).await;
        }
    }
}

impl Net {
    fn begin(&mut self, replica: usize, token: usize, is_logout: bool) -> usize {
        let what = if is_logout { "logout" } else { "request" };
        self.trace.push(format!("{:?} {what} {} with {token} at {replica}", self.start.elapsed(), self.tasks.len()));
        self.tasks.push(Task {
            replica,
            token,
            is_logout,
            started_at: Instant::now(),
            last_effect: self.step,
            looks: 0,
            seen_claimed: None,
            has_lost: false,
            is_from_memory: false,
            outcome: None,
        });
        if is_logout {
            let session = self.tokens[token].session;
            self.sessions[session].is_ending = true;
        }
        self.tasks.len() - 1
    }

    fn recall(&self, replica: usize, mut token: usize) -> usize {
        while let Some(successor) = self.replicas[replica].remembered.get(&token) {
            token = *successor;
        }
        token
    }

    fn remembered(&self, task: usize) -> (usize, usize, bool) {
        let Task { replica, token, .. } = self.tasks[task];
        let latest = self.recall(replica, token);
        (token, latest, Instant::now() < self.tokens[latest].jwt_expires_at)
    }

    fn fail(&mut self, violation: String) {
        self.violation.get_or_insert(violation);
    }

    fn is_excused(&self, replica: usize) -> bool {
        self.was_flushed || self.replicas[replica].is_excused
    }

    /// A token is issued.
    fn issue(&mut self, session: usize, parent: Option<usize>) -> usize {
        let token = self.tokens.len();
        let jwt_expires_at = Instant::now() + self.jwt_lifetime;
        self.tokens.push(Token {
            session,
            parent,
            spent_by: None,
            known: None,
            is_done: false,
            ended: None,
            claims: 0,
            jwt_expires_at,
        });
        self.sessions[session].chain.push(token);
        token
    }

    fn send(&mut self, task: usize, token: usize) -> oneshot::Receiver<Result<RefreshAnswer, AuthError>> {
        self.check_send(task, token);
        let (sender, receiver) = oneshot::channel();
        let call = self.calls.len();
        self.trace.push(format!("    task {task} sends {token}: call {call}"));
        self.calls.push(Call {
            task,
            token,
            sent_at: Instant::now(),
            verdict: None,
            reply: Some(sender),
            is_delivered: false,
            has_failed: false,
        });
        receiver
    }

    /// Crossmint decides about a token.
    fn commit(&mut self, call: usize) {
        let Call { token, task, .. } = self.calls[call];
        let Token { session, spent_by, known, .. } = self.tokens[token];
        let verdict = if self.sessions[session].is_over {
            Err(())
        } else if let Some(first) = spent_by {
            self.sessions[session].is_over = true;
            let first = &self.calls[first];
            let Task { replica, has_lost, .. } = self.tasks[first.task];
            let is_excused = !first.is_delivered
                || (has_lost && !self.is_strict)
                || self.replicas[replica].is_dead
                || self.is_excused(replica)
                || self.is_excused(self.tasks[task].replica)
                || known.is_some_and(|(_, until)| until <= Instant::now());
            if !is_excused {
                self.fail(format!("{token} is used twice"));
            }
            Err(())
        } else {
            self.tokens[token].spent_by = Some(call);
            Ok(self.issue(session, Some(token)))
        };
        self.calls[call].verdict = Some(verdict);
        self.trace.push(format!("    call {call} is decided: {verdict:?}"));
    }

    fn answer(&mut self, call: usize) {
        let call = &mut self.calls[call];
        let Some(verdict) = call.verdict else { return };
        call.is_delivered = true;
        let answer = match verdict {
            Ok(successor) => {
                let (secret, lifetime) = (name(successor), "2030-01-01T00:00:00.000Z");
                let body = format!(
                    r#"{{"jwt":"jwt-{}","refresh":{{"secret":"{}","expiresAt":"{lifetime}"}}}}"#,
                    &*secret, &*secret
                );
                RefreshAnswer::parse(body.into_bytes())
            }
            Err(()) => Err(AuthError::of(AuthErrorKind::Refused)),
        };
        if let Some(reply) = call.reply.take() {
            let _ = reply.send(answer);
        }
    }

    fn fail_call(&mut self, call: usize) {
        let call = &mut self.calls[call];
        call.has_failed = true;
        if let Some(reply) = call.reply.take() {
            let _ = reply.send(Err(timed_out()));
        }
    }

    /// Revokes the session of a token that was not rotated.
    fn revoke(&mut self, task: usize, token: &str) {
        if self.replicas[self.tasks[task].replica].is_dead {
            return;
        }
        let token = number(token);
        let Token { session, spent_by, .. } = self.tokens[token];
        self.trace.push(format!("    {token} is revoked"));
        self.sessions[session].is_over |= spent_by.is_none();
    }

    fn die(&mut self, replica: usize) {
        self.replicas[replica].is_dead = true;
    }

    fn lose(&mut self, operation: usize) {
        let Operation { kind, replica, task, .. } = self.operations.remove(&operation).expect("it was sent");
        if let Some(task) = task {
            self.tasks[task].has_lost = true;
        }
        // It goes on without a claim.
        if self.when_unreachable == WhenUnreachable::GoOn && matches!(kind, "look" | "claim") {
            let replica = &mut self.replicas[replica];
            (replica.is_alone, replica.is_excused) = (true, true);
        }
    }

    /// A record has changed.
    fn changed(&mut self, id: Id, change: Change) {
        if !matches!(change, Change::None | Change::SeenClaimed | Change::Claimed | Change::Delivered(_)) {
            self.replicas.iter().for_each(|replica| replica.watches.wake(&id));
        }
        while self.ids.len() < self.tokens.len() {
            let token = self.ids.len();
            self.ids.insert(id_of(token), token);
        }
        let (now, step) = (Instant::now(), self.step);
        let Some(token) = self.ids.get(&id).map(|token| &mut self.tokens[*token]) else { return };
        match change {
            Change::Claimed => token.claims += 1,
            Change::Released => token.claims = token.claims.saturating_sub(1),
            Change::Failed => token.claims = 0,
            Change::Done(time_to_live) | Change::Refused(time_to_live) => {
                token.known = Some((step, now + time_to_live));
                token.is_done = matches!(change, Change::Done(_));
            }
            Change::Ended(time_to_live) => {
                let until = now + time_to_live;
                token.ended = Some((step, until));
                // The tombstone takes the place of the outcome.
                if let Some((_, known_until)) = token.known.as_mut().filter(|(_, known_until)| now < *known_until) {
                    *known_until = until;
                }
            }
            Change::Delivered(time_to_live) => {
                if let Some((_, until)) = &mut token.known {
                    *until = (*until).min(now + time_to_live);
                }
            }
            Change::SeenClaimed | Change::None => {}
        }
    }

    /// A request or a logout has ended.
    fn complete(&mut self, task: usize, outcome: Result<usize, AuthErrorKind>) {
        self.trace.push(format!("    task {task} ends: {outcome:?}"));
        self.tasks[task].outcome = Some(outcome);
        let now = Instant::now();
        let Task { replica, token, is_logout, last_effect, has_lost, started_at, .. } = self.tasks[task];
        if self.replicas[replica].is_dead {
            return;
        }
        let session_number = self.tokens[token].session;
        if is_logout {
            self.replicas[replica].remembered.clear();
            // It has come with a token whose successor is not known any more.
            let mut after = self.sessions[session_number].chain.iter().skip_while(|member| **member != token);
            let is_too_late = after.any(|member| self.tokens[*member].known.is_some_and(|(_, until)| until <= now));
            if !has_lost && !is_too_late && !self.was_flushed {
                self.sessions[session_number].ended.get_or_insert((last_effect, started_at));
            }
            return;
        }
        self.check_outcome(task, outcome);
        if let Ok(successor) = outcome
            && successor != token
        {
            self.replicas[replica].remembered.insert(token, successor);
        }
    }

    /// Returns the events that are neither a fault nor time.
    fn due(&self) -> Vec<Event> {
        let now = Instant::now();
        let is_up = |replica: usize| {
            let replica = &self.replicas[replica];
            !replica.is_dead && replica.stopped_until.is_none()
        };
        let operations = self.operations.iter().filter(|(_, operation)| is_up(operation.replica));
        let operations = operations.map(|(number, operation)| match operation.state {
            OperationState::Sent(_) if operation.kind == "look" => Event::Look(*number),
            OperationState::Sent(_) => Event::Operate(*number),
            OperationState::Done(_) => Event::Reply(*number),
        });
        let calls = self.calls.iter().enumerate().filter_map(|(number, call)| {
            call.reply.as_ref()?;
            let replica = &self.replicas[self.tasks[call.task].replica];
            let is_over = now >= call.sent_at + CALL_LIMIT;
            if replica.stopped_until.is_some() || (replica.is_dead && is_over) {
                return None;
            }
            match call.verdict {
                _ if is_over && !replica.is_excused => Some(Event::TimeOut(number)),
                None => Some(Event::Commit(number)),
                Some(_) => (!replica.is_dead).then_some(Event::Answer(number)),
            }
        });
        let replicas = self.replicas.iter().enumerate().filter_map(|(number, replica)| {
            (replica.stopped_until? <= now && !replica.is_dead).then_some(Event::Resume(number))
        });
        operations.chain(calls).chain(replicas).collect()
    }

    /// Returns whether all replicas that live have done their work.
    fn is_at_rest(&self) -> bool {
        let is_running = |task: &Task| task.outcome.is_none() && !self.replicas[task.replica].is_dead;
        let is_stopped = |replica: &Replica| replica.stopped_until.is_some() && !replica.is_dead;
        !self.replicas.iter().any(is_stopped) && !self.tasks.iter().any(is_running)
    }

    fn describe(&self, event: Event) -> String {
        let what = match event {
            Event::Arrive(number)
            | Event::Reply(number)
            | Event::Operate(number)
            | Event::Look(number)
            | Event::LoseOperation(number)
            | Event::LoseReply(number)
            | Event::OperateAndDie(number) => {
                let Operation { kind, replica, task, .. } = &self.operations[&number];
                format!("{kind} of task {task:?} at {replica}")
            }
            _ => String::new(),
        };
        format!("{:?} {event:?} {what}", self.start.elapsed())
    }
}

fn lock(net: &Mutex<Net>) -> MutexGuard<'_, Net> {
    net.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fixtures() -> &'static (Settings, RedisRenewals, Arc<Counters>) {
    static FIXTURES: OnceLock<(Settings, RedisRenewals, Arc<Counters>)> = OnceLock::new();
    FIXTURES.get_or_init(|| {
        let config = CrossmintAuthConfig::builder(ApiKey::unverified("project", Environment::Development))
            .refresh_timeout(TIME_LIMIT)
            .connect_timeout(TIME_LIMIT)
            .build()
            .unwrap();
        let options = RedisRenewals::new("redis://localhost").unwrap();
        (config.checked().settings.clone(), options, Arc::new(Counters::new("project")))
    })
}

fn id_of(token: usize) -> Id {
    static SEALS: OnceLock<Seals> = OnceLock::new();
    let seals = SEALS.get_or_init(|| Seals::new(&fixtures().0, None, LEASE).0);
    seals.seal_of(&name(token)).expect("it is long").id
}

fn name(token: usize) -> Secret {
    format!("{PREFIX}{token}").into()
}

fn number(token: &str) -> usize {
    token.strip_prefix(PREFIX).expect("Crossmint has issued it").parse().unwrap()
}

const PREFIX: &str = "a-refresh-token-of-32-bytes-or-more-";
const TIME_LIMIT: Duration = Duration::from_secs(1);
const CALL_LIMIT: Duration = Duration::from_millis(1250);
const LEASE: Duration = Duration::from_millis(6250);
const MARGIN: Duration = Duration::from_millis(10);
/// A refresh waits for another replica, then for Crossmint, and may have to do both again.
const DEADLINE: Duration = Duration::from_secs(10);
const TOMBSTONE: Duration = Duration::from_secs(30);
const POLL_STEP: u64 = 50;
/// After that, a claim is over.
const LATE: u64 = 6480;
