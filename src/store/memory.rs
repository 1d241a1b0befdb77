//! A store in the memory of the process, for tests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::{
    interface::{Reply, Store},
    record::{
        Chain, Claim, Claimed, Fence, Finished, Id, LOG, LOG_PAGE, LogPosition, MAX_ANSWERS, MEMORY_OF_CLAIMS, Outcome,
        Previous, Sealed, Tail,
    },
    watches::{Watch, Watches},
};
use crate::session::RevokedJwt;

/// Does what the scripts of Redis do, by tokio's clock. Clones share one state.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryStore {
    state: Arc<Mutex<State>>,
    watches: Watches,
}

#[derive(Debug, Default)]
struct State {
    records: HashMap<Id, (Record, Instant)>,
    /// With each entry's number, the first of which is 1.
    log: Vec<(usize, RevokedJwt)>,
    log_end: usize,
}

#[derive(Clone, Debug)]
enum Record {
    Claimed {
        fence: Option<Fence>,
        proof: Sealed,
        until: Instant,
        number: u32,
        tombstone: Option<(Sealed, Duration)>,
    },
    Done {
        answer: Sealed,
        next: Id,
    },
    Failed(Sealed),
    Refused(Sealed),
    /// With the answer that the record had, for a logout that is repeated.
    Ended(Sealed, Option<Sealed>),
}

impl MemoryStore {
    /// Forgets everything.
    pub(crate) fn flush(&self) {
        let mut state = self.state();
        // A server's positions are times: those before are smaller than those after.
        *state = State { log_end: state.log_end, ..State::default() };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply<T: Send + 'static>(&self, operation: impl FnOnce(&mut State, Instant) -> T) -> Reply<'_, T> {
        let mut state = self.state();
        let now = Instant::now();
        state.records.retain(|_, (_, expires_at)| *expires_at > now);
        let reply = operation(&mut state, now);
        async { Ok(reply) }.boxed()
    }
}

impl State {
    fn look(&self, mut id: Id, now: Instant) -> Chain {
        let mut answers = Vec::new();
        loop {
            let Some((record, expires_at)) = self.records.get(&id) else {
                return Chain { answers, tail: Tail::Absent };
            };
            let tail = match record {
                Record::Done { answer, next } if answers.len() < MAX_ANSWERS => {
                    answers.push(answer.clone());
                    id = *next;
                    continue;
                }
                Record::Done { .. } => Tail::Rotated,
                Record::Claimed { tombstone: Some((tombstone, _)), .. } | Record::Ended(tombstone, _) => {
                    Tail::Ended(tombstone.clone())
                }
                Record::Claimed { proof, until, .. } if now < *until => {
                    Tail::Claimed { proof: proof.clone(), lease: *until - now }
                }
                Record::Claimed { number: 0 | 1, .. } => Tail::Stalled,
                Record::Claimed { proof, .. } => Tail::Lost(proof.clone()),
                Record::Failed(failure) => Tail::Failed(failure.clone(), *expires_at - now),
                Record::Refused(refusal) => Tail::Refused(refusal.clone()),
            };
            return Chain { answers, tail };
        }
    }

    fn claim(&mut self, id: Id, claim: Claim, now: Instant) -> Claimed {
        let Claim { fence, proof, lease } = claim;
        let number = match self.records.get(&id).map(|(record, _)| record) {
            None => 1,
            Some(Record::Claimed { fence: holder, number, tombstone: None, .. }) if *holder == Some(fence) => {
                return Claimed::Granted { is_takeover: *number > 1 };
            }
            Some(Record::Claimed { until, number: number @ (0 | 1), tombstone: None, .. }) if *until <= now => {
                number + 1
            }
            Some(_) => return Claimed::Denied(self.look(id, now)),
        };
        let until = now + lease;
        let record = Record::Claimed { fence: Some(fence), proof, until, number, tombstone: None };
        self.records.insert(id, (record, until + MEMORY_OF_CLAIMS));
        Claimed::Granted { is_takeover: number > 1 }
    }

    fn finish(&mut self, id: Id, fence: Fence, outcome: Outcome, now: Instant) -> Finished {
        match self.records.get(&id).map(|(record, _)| record) {
            Some(Record::Ended(tombstone, _)) => return Finished::Ended(tombstone.clone()),
            Some(Record::Claimed { fence: holder, tombstone: Some((tombstone, time_to_live)), .. })
                if *holder == Some(fence) || matches!(outcome, Outcome::Done { .. }) =>
            {
                let (tombstone, expires_at) = (tombstone.clone(), now + *time_to_live);
                self.records.insert(id, (Record::Ended(tombstone.clone(), None), expires_at));
                return Finished::Ended(tombstone);
            }
            Some(Record::Claimed { fence: holder, .. }) if *holder == Some(fence) => {}
            _ if matches!(outcome, Outcome::Done { .. }) => {}
            _ => return Finished::Superseded(self.look(id, now)),
        }
        let (record, time_to_live) = match outcome {
            Outcome::Done { answer, next, time_to_live } => (Record::Done { answer, next }, time_to_live),
            Outcome::Refused { refusal, time_to_live } => (Record::Refused(refusal), time_to_live),
            Outcome::Failed { failure, time_to_live } => (Record::Failed(failure), time_to_live),
            Outcome::Released => {
                if let Some((Record::Claimed { fence, until, number, .. }, _)) = self.records.get_mut(&id) {
                    // Without its fence: a repetition must not give it up twice.
                    (*fence, *until, *number) = (None, now, *number - 1);
                }
                return Finished::Recorded;
            }
        };
        self.records.insert(id, (record, now + time_to_live));
        Finished::Recorded
    }

    fn end(&mut self, id: Id, tombstone: Sealed, time_to_live: Duration, now: Instant) -> Previous {
        let answer = match self.records.get_mut(&id) {
            Some((Record::Claimed { proof, until, tombstone: ended, .. }, expires_at)) if now < *until => {
                *ended = Some((tombstone, time_to_live));
                *expires_at = (*expires_at).max(now + time_to_live);
                return Previous::Claimed(proof.clone());
            }
            Some((Record::Done { answer, .. } | Record::Ended(_, Some(answer)), _)) => Some(answer.clone()),
            Some((Record::Claimed { .. }, _)) => {
                self.records.insert(id, (Record::Ended(tombstone, None), now + time_to_live));
                return Previous::Stalled;
            }
            _ => None,
        };
        self.records.insert(id, (Record::Ended(tombstone, answer.clone()), now + time_to_live));
        answer.map_or(Previous::Nothing, Previous::Rotated)
    }
}

impl Store for MemoryStore {
    fn look(&self, id: Id) -> Reply<'_, Chain> {
        self.reply(|state, now| state.look(id, now))
    }

    fn claim(&self, id: Id, claim: Claim) -> Reply<'_, Claimed> {
        self.reply(|state, now| state.claim(id, claim, now))
    }

    fn finish(&self, id: Id, fence: Fence, outcome: Outcome) -> Reply<'_, Finished> {
        let reply = self.reply(|state, now| state.finish(id, fence, outcome, now));
        self.watches.wake(&id);
        reply
    }

    fn end(&self, id: Id, tombstone: Sealed, time_to_live: Duration) -> Reply<'_, Previous> {
        let reply = self.reply(|state, now| state.end(id, tombstone, time_to_live, now));
        self.watches.wake(&id);
        reply
    }

    fn delivered(&self, id: Id, time_to_live: Duration) -> Reply<'_, ()> {
        self.reply(|state, now| {
            if let Some((Record::Done { .. }, expires_at)) = state.records.get_mut(&id) {
                *expires_at = (*expires_at).min(now + time_to_live);
            }
        })
    }

    fn revoke(&self, revoked: Vec<RevokedJwt>) -> Reply<'_, ()> {
        let reply = self.reply(|state, _| {
            for revoked in revoked {
                state.log_end += 1;
                state.log.push((state.log_end, revoked));
            }
        });
        self.watches.wake(&LOG);
        reply
    }

    fn revoked_since(&self, position: Option<LogPosition>) -> Reply<'_, Vec<(LogPosition, Option<RevokedJwt>)>> {
        let start = position.map_or(0, |position| position.0.parse::<usize>().expect("a position of this log"));
        self.reply(|state, _| {
            let entries = state.log.iter().filter(|(number, _)| *number > start).take(LOG_PAGE);
            entries.map(|(number, revoked)| (LogPosition(number.to_string()), Some(*revoked))).collect()
        })
    }

    fn watch(&self, id: Id) -> Watch {
        self.watches.watch(id)
    }

    fn pushes(&self) -> bool {
        true
    }

    fn connect(&self) -> Reply<'_, ()> {
        self.reply(|_, _| ())
    }
}
