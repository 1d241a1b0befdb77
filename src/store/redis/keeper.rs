//! The connection, and what happens while there is none.
//!
//! 1. The first operation connects, and others wait for that attempt: at most [`ATTEMPT_LIMIT`]. So they do after a
//!    connection that worked was lost.
//! 2. After an attempt has failed, operations fail at once. The first one after a pause starts the next attempt, and does
//!    not wait for it. The pause doubles with each failure in a row; a connection that is lost soon counts as one.
//! 3. A command that does not finish because the connection is lost is sent once more. One that times out is not.
//! 4. After three time-outs in a row, the connection counts as failed.
//!
//! Nothing happens without an operation, and no task but the connection's own outlives an attempt. Operations may come
//! from several runtimes: the attempt and the connection of one that has ended are replaced.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use redis::{Cmd, ServerError, ServerErrorKind, Value};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    cause::Cause,
    connection::{Connection, broken},
};
use crate::{
    config::Endpoint,
    store::{interface::Unreachable, watches::Watches},
};

/// Keeps one connection for all operations.
pub(super) struct Keeper(Arc<Shared>);

struct Shared {
    endpoint: Endpoint,
    time_limit: Duration,
    channel: String,
    watches: Watches,
    state: Mutex<State>,
}

struct State {
    link: Link,
    /// In a row: attempts that failed, and connections that were lost soon.
    failures: u32,
    /// The number of the latest attempt.
    attempt: u64,
}

enum Link {
    Idle,
    Connecting {
        outcome: watch::Receiver<Option<Outcome>>,
        since: Instant,
        /// Operations fail with this, instead of waiting.
        why: Option<Cause>,
    },
    Up(Arc<Connection>),
    Down {
        why: Cause,
        until: Instant,
    },
}

type Outcome = Result<Arc<Connection>, Cause>;

/// What an operation does next.
enum Step {
    Use(Arc<Connection>),
    Wait(watch::Receiver<Option<Outcome>>),
    Fail(Cause),
}

/// Which operation wants a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    ForCommand,
    /// The operation is to connect: it waits in any case.
    Explicitly,
}

/// Why a command has failed.
enum Failure {
    Lost(Cause),
    TimedOut(Cause),
    Unavailable(Cause),
    Refused(Cause),
}

impl Keeper {
    pub(super) fn new(endpoint: Endpoint, time_limit: Duration, channel: String, watches: Watches) -> Self {
        let state = Mutex::new(State { link: Link::Idle, failures: 0, attempt: 0 });
        Self(Arc::new(Shared { endpoint, time_limit, channel, watches, state }))
    }

    /// Sends a command that may be repeated. Returns an error of the server's only if it does not know a script.
    pub(super) async fn query(&self, command: &Cmd) -> Result<Value, Unreachable> {
        let mut is_repeated = false;
        loop {
            let connection = self.connection(Wanted::ForCommand).await?;
            let failure = match self.send(&connection, command).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            self.0.note(&connection, &failure);
            match failure {
                Failure::Lost(_) if !is_repeated => is_repeated = true,
                Failure::Lost(why) | Failure::TimedOut(why) | Failure::Unavailable(why) | Failure::Refused(why) => {
                    return Err(why.into());
                }
            }
        }
    }

    pub(super) async fn connect(&self) -> Result<(), Unreachable> {
        self.connection(Wanted::Explicitly).await.map(drop)
    }

    pub(super) fn pushes(&self) -> bool {
        matches!(&self.0.state().link, Link::Up(connection) if connection.pushes && connection.is_alive())
    }

    async fn connection(&self, wanted: Wanted) -> Result<Arc<Connection>, Unreachable> {
        let runtime = Handle::try_current().map_err(|error| Unreachable(error.into()))?;
        let (step, attempt) = self.0.step(wanted, Instant::now());
        if let Some(attempt) = attempt {
            runtime.spawn(attempt.run());
        }
        let mut outcome = match step {
            Step::Use(connection) => return Ok(connection),
            Step::Fail(why) => return Err(why.into()),
            Step::Wait(outcome) => outcome,
        };
        // The attempt has a limit of its own, but may belong to a runtime that has stopped.
        match timeout(WAIT_LIMIT, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => match &*outcome {
                Some(Ok(connection)) => Ok(Arc::clone(connection)),
                Some(Err(why)) => Err(why.clone().into()),
                None => Err(Cause::new(INTERRUPTED).into()),
            },
            Ok(Err(_)) => Err(Cause::new(INTERRUPTED).into()),
            Err(_) => Err(no_connection().into()),
        }
    }

    async fn send(&self, connection: &Connection, command: &Cmd) -> Result<Value, Failure> {
        let limit = self.0.time_limit;
        let Ok(reply) = timeout(limit, connection.send(command)).await else {
            return Err(Failure::TimedOut(Cause::new(format!("no answer within {limit:?}"))));
        };
        let reply = reply.map_err(|error| Failure::Lost(broken(&error)))?;
        connection.timeouts.store(0, Relaxed);
        match &reply {
            Value::ServerError(error) if error.kind() != Some(ServerErrorKind::NoScript) => {
                Err(Failure::of_server(error))
            }
            _ => Ok(reply),
        }
    }
}

impl Shared {
    /// Decides what an operation does. The caller runs the attempt, if there is one.
    fn step(self: &Arc<Self>, wanted: Wanted, now: Instant) -> (Step, Option<Attempt>) {
        let mut state = self.state();
        let why = match &state.link {
            Link::Up(connection) if connection.is_alive() => return (Step::Use(Arc::clone(connection)), None),
            Link::Up(connection) => {
                let lasted = now - connection.since;
                let _replaced = state.lose(lasted, Cause::new(LOST), now);
                drop(state);
                return self.step(wanted, now);
            }
            // An attempt that takes longer belongs to a runtime that has stopped.
            Link::Connecting { outcome, since, why } if now - *since <= 2 * ATTEMPT_LIMIT => match why {
                Some(why) if wanted == Wanted::ForCommand => return (Step::Fail(why.clone()), None),
                _ => return (Step::Wait(outcome.clone()), None),
            },
            Link::Connecting { why, .. } => why.clone(),
            Link::Down { why, until } if wanted == Wanted::ForCommand && now < *until => {
                return (Step::Fail(why.clone()), None);
            }
            Link::Down { why, .. } => Some(why.clone()),
            Link::Idle => None,
        };
        state.attempt += 1;
        let (sender, outcome) = watch::channel(None);
        let attempt = Attempt { shared: Arc::clone(self), number: state.attempt, outcome: sender };
        state.link = Link::Connecting { outcome: outcome.clone(), since: now, why: why.clone() };
        let step = match why {
            Some(why) if wanted == Wanted::ForCommand => Step::Fail(why),
            _ => Step::Wait(outcome),
        };
        (step, Some(attempt))
    }

    /// Draws the consequences of a failed command.
    fn note(&self, connection: &Arc<Connection>, failure: &Failure) {
        let now = Instant::now();
        let mut state = self.state();
        let is_current = matches!(&state.link, Link::Up(current) if Arc::ptr_eq(current, connection));
        if !is_current {
            return;
        }
        let lasted = now - connection.since;
        // Dropped without the lock.
        let _replaced = match failure {
            Failure::Refused(_) => return,
            Failure::TimedOut(_) if connection.timeouts.fetch_add(1, Relaxed) + 1 < MAX_TIMEOUTS => return,
            Failure::Lost(why) => state.lose(lasted, why.clone(), now),
            Failure::TimedOut(why) | Failure::Unavailable(why) => {
                state.forget_failures(lasted);
                state.fail(why.clone(), now)
            }
        };
        drop(state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Held for a decision, never while anything is awaited.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Replaces a connection that was lost, unless it was as short as others before it. Returns it.
    fn lose(&mut self, lasted: Duration, why: Cause, now: Instant) -> Link {
        self.forget_failures(lasted);
        if self.failures > 0 {
            return self.fail(why, now);
        }
        self.failures = u32::from(lasted < STABLE);
        mem::replace(&mut self.link, Link::Idle)
    }

    /// Starts the count of failures afresh if the connection has worked for a while.
    fn forget_failures(&mut self, lasted: Duration) {
        if lasted >= STABLE {
            self.failures = 0;
        }
    }

    /// Lets operations fail for a while. Returns what was there.
    fn fail(&mut self, why: Cause, now: Instant) -> Link {
        let pause = pause_after(self.failures);
        self.failures = self.failures.saturating_add(1);
        mem::replace(&mut self.link, Link::Down { why, until: now + pause })
    }
}

/// An attempt to connect.
struct Attempt {
    shared: Arc<Shared>,
    number: u64,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Attempt {
    async fn run(self) {
        let Shared { endpoint, channel, watches, .. } = &*self.shared;
        let opened = timeout(ATTEMPT_LIMIT, Connection::open(endpoint, channel, watches)).await;
        let outcome = opened.unwrap_or_else(|_| Err(no_connection())).map(Arc::new);
        if self.settle(&outcome) {
            // Changes may have been missed since the last connection.
            self.shared.watches.wake_all();
        }
        self.outcome.send_replace(Some(outcome));
    }

    /// Records the outcome. Returns whether there is a new connection.
    fn settle(&self, outcome: &Outcome) -> bool {
        let now = Instant::now();
        let mut state = self.shared.state();
        if !self.is_current(&state) {
            return false;
        }
        match outcome {
            Ok(connection) => state.link = Link::Up(Arc::clone(connection)),
            Err(why) => drop(state.fail(why.clone(), now)),
        }
        outcome.is_ok()
    }

    fn is_current(&self, state: &State) -> bool {
        state.attempt == self.number && matches!(state.link, Link::Connecting { .. })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        // Dropped without an outcome, with its runtime.
        if self.is_current(&state) {
            state.link = Link::Idle;
        }
    }
}

impl Failure {
    fn of_server(error: &ServerError) -> Self {
        let details = error.details().unwrap_or_default();
        // Up to version 6, the error of a command in a script comes as text: "Error running script (...): -READONLY ...".
        let (code, details) = match details.rsplit_once(": -") {
            Some((_, inner)) => inner.split_once(' ').unwrap_or((inner, "")),
            None => (error.code(), details),
        };
        // Some errors repeat what was sent.
        let details = details.split(", with args").next().unwrap_or_default();
        let details: String = details.chars().filter(|char| !char.is_control()).take(MAX_DETAILS).collect();
        let code: String = code.chars().filter(char::is_ascii_uppercase).take(MAX_CODE).collect();
        let why = Cause::new(format!("the store refused a command ({})", format!("{code} {details}").trim()));
        if REPLACE.contains(&code.as_str()) { Self::Unavailable(why) } else { Self::Refused(why) }
    }
}

fn no_connection() -> Cause {
    Cause::new(format!("no connection within {ATTEMPT_LIMIT:?}"))
}

/// Returns how long operations fail without an attempt, with up to a quarter more, so that replicas do not return together.
fn pause_after(failures: u32) -> Duration {
    let pause = MIN_RETRY_PAUSE.saturating_mul(1 << failures.min(16)).min(MAX_RETRY_PAUSE);
    let mut random = [0];
    // Without randomness there is no spread.
    let _ = aws_lc_rs::rand::fill(&mut random);
    pause + pause / 4 * u32::from(random[0]) / 255
}

/// For the name's resolution, TCP, TLS, the login and the subscription together.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(1);
/// Longer, so that the attempt's own limit is what decides.
const WAIT_LIMIT: Duration = Duration::from_millis(1100);
const MAX_TIMEOUTS: u32 = 3;
const MIN_RETRY_PAUSE: Duration = Duration::from_millis(100);
const MAX_RETRY_PAUSE: Duration = Duration::from_millis(250);
/// A connection that has lasted for this long worked.
const STABLE: Duration = Duration::from_millis(500);
/// What a server says that must not be used now: a replica, one that starts, one that wants another login.
const REPLACE: [&str; 4] = ["READONLY", "LOADING", "MASTERDOWN", "NOAUTH"];
const MAX_CODE: usize = 32;
const MAX_DETAILS: usize = 160;
const LOST: &str = "the connection was closed";
const INTERRUPTED: &str = "the attempt to connect was interrupted by the end of its runtime";
