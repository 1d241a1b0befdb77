//! What is checked: see the rules of the module above.

use super::*;

/// What a latecomer is to get.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    Any,
    Latest,
    Refused,
}

impl World {
    /// Crossmint has heard of every logout that the store has recorded.
    pub(super) fn check_end(&self, session: usize) {
        let net = self.net();
        let is_lost = |call: &Call| {
            call.verdict.is_some() && (!call.is_delivered || net.replicas[net.tasks[call.task].replica].is_dead)
        };
        let died = |task: &Task| net.replicas[task.replica].is_dead && task.is_logout;
        let is_excused = net.was_flushed || net.tasks.iter().any(died) || net.calls.iter().any(is_lost);
        let Session { ended, is_over, .. } = &net.sessions[session];
        if ended.is_some() && !is_excused {
            assert!(is_over, "Crossmint has not heard of the logout\n{}", net.trace.join("\n"));
        }
    }
}

impl Net {
    pub(super) fn check_send(&mut self, task: usize, token: usize) {
        let (now, Task { replica, last_effect, seen_claimed, .. }) = (Instant::now(), self.tasks[task]);
        let is_under_way = |call: &Call| call.token == token && call.reply.is_some() && now < call.sent_at + CALL_LIMIT;
        // The store may have lost the claim, but not the task.
        if seen_claimed == Some(token) && !self.replicas[replica].is_excused && self.calls.iter().any(is_under_way) {
            return self.fail(format!("{token} is sent by a task that knows that it is under way"));
        }
        if self.is_excused(replica) {
            return;
        }
        let others = || {
            let others = self.calls.iter().filter(|call| call.token == token);
            others.filter(|call| !self.is_excused(self.tasks[call.task].replica))
        };
        // A replica without a claim may record an outcome after the claim was granted.
        let has_loner = self.calls.iter().filter(|call| call.token == token).count() > others().count();
        let holds_verdict = |call: &Call| {
            let Task { replica, has_lost, .. } = self.tasks[call.task];
            call.is_delivered && (!has_lost || self.is_strict) && !self.replicas[replica].is_dead
        };
        let is_open = |call: &Call| !call.has_failed && now < call.sent_at + LEASE + MEMORY_OF_CLAIMS;
        let Token { known, ended, .. } = self.tokens[token];
        let known_at = known.filter(|(_, until)| now < *until).map(|(step, _)| step);
        let ended_at = ended.filter(|(_, until)| now < *until).map(|(step, _)| step);
        let violation = if others().any(is_under_way) {
            "while it is under way"
        } else if known_at.is_some_and(|step| step < last_effect || !has_loner) {
            "although its outcome is recorded"
        } else if others().any(|call| holds_verdict(call) && now < call.sent_at + LEASE) {
            "although a replica has its outcome"
        } else if ended_at.is_some_and(|step| step < last_effect) {
            "after a logout"
        } else if known.is_none() && others().filter(|call| is_open(call)).count() > 1 {
            "a third time"
        } else {
            return;
        };
        self.fail(format!("{token} is sent {violation}"));
    }

    pub(super) fn check_outcome(&mut self, task: usize, outcome: Result<usize, AuthErrorKind>) {
        let now = Instant::now();
        let Task { replica, token, last_effect, has_lost, is_from_memory, started_at, .. } = self.tasks[task];
        let is_late = now > started_at + DEADLINE;
        if is_late && !self.replicas[replica].is_excused {
            self.fail(format!("task {task} has taken too long"));
        }
        let session = &self.sessions[self.tokens[token].session];
        // Its record has expired before that of the token before it, whose delivery was not reported.
        let is_forgotten = |token: usize| self.tokens[token].known.is_some_and(|(_, until)| until <= now);
        match outcome {
            Ok(successor) => {
                let position = |token| session.chain.iter().position(|member| *member == token);
                let violation = if position(successor).is_none_or(|position_of| Some(position_of) <= position(token)) {
                    "is no successor"
                } else if has_lost || self.was_flushed || self.replicas[replica].is_alone || is_forgotten(successor) {
                    ""
                } else if session.ended.is_some_and(|(step, at)| step < last_effect && now < at + TOMBSTONE) {
                    "is handed out after a logout"
                } else if !is_from_memory
                    && self.tokens[successor].parent.is_some_and(|parent| {
                        self.tokens[parent].known.is_none() && self.tokens[parent].ended.is_none()
                    })
                {
                    "is handed out before it is recorded"
                } else {
                    ""
                };
                if !violation.is_empty() {
                    self.fail(format!("task {task}: {successor} {violation}"));
                }
            }
            Err(AuthErrorKind::Refused) if !session.is_over && !session.is_ending => {
                self.fail(format!("task {task} is refused, and the session is alive"));
            }
            Err(AuthErrorKind::Refused) if self.is_strict && !self.was_flushed && self.has_valid_successor(token) => {
                self.fail(format!("task {task} is refused, and there is a successor"));
            }
            Err(_) => {}
        }
    }

    /// Returns what a request with an old token is to get when nothing is under way.
    pub(super) fn expected(&self, session: usize, token: usize) -> Expected {
        let Session { chain, is_over, is_ending, ended } = &self.sessions[session];
        let now = Instant::now();
        if self.was_flushed || self.replicas.iter().any(|replica| replica.is_excused) {
            return Expected::Any;
        }
        let is_forgotten = |token: &usize| self.tokens[*token].known.is_some_and(|(_, until)| until <= now);
        if chain.iter().skip_while(|member| **member != token).any(is_forgotten) {
            return Expected::Any;
        }
        if ended.is_some_and(|(_, at)| now < at + TOMBSTONE) {
            return Expected::Refused;
        }
        if *is_over || *is_ending {
            return Expected::Any;
        }
        // Every token from this one on must have its outcome in the store.
        let after = chain.iter().skip_while(|member| **member != token);
        let is_recorded = |token: usize| {
            let Token { spent_by, known, .. } = self.tokens[token];
            spent_by.is_none() || known.is_some_and(|(_, until)| now < until)
        };
        let is_known = |token: &usize| {
            let Token { spent_by, .. } = self.tokens[*token];
            // Its replica is there, and has had the answer: it is in the store by now.
            let is_alive = spent_by.is_some_and(|call| {
                let call = &self.calls[call];
                call.is_delivered && !self.replicas[self.tasks[call.task].replica].is_dead
            });
            is_recorded(*token) || (is_alive && self.tokens[*token].known.is_none())
        };
        // After two claims without an outcome, it is not sent again for a while.
        let is_lost = chain.last().is_some_and(|last| self.tokens[*last].claims > 1);
        if after.into_iter().all(is_known) && !is_lost { Expected::Latest } else { Expected::Any }
    }

    /// Returns whether the latest successor is recorded, and its JWT valid.
    fn has_valid_successor(&self, token: usize) -> bool {
        let Session { chain, is_ending, .. } = &self.sessions[self.tokens[token].session];
        let Some(latest) = chain.last().filter(|latest| **latest != token && !is_ending) else { return false };
        let Token { parent, known, jwt_expires_at, .. } = self.tokens[*latest];
        let is_recorded = parent.is_some_and(|parent| self.tokens[parent].is_done);
        is_recorded && known.is_none() && Instant::now() < jwt_expires_at
    }
}
