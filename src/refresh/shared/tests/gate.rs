//! The way of one replica to the store, which the test holds up.

use super::*;

/// The way of one replica to the store.
pub(super) struct Gate {
    pub(super) net: Arc<Mutex<Net>>,
    pub(super) replica: usize,
}

impl Gate {
    /// Sends an operation. `change` says what it has changed, by its result.
    fn send<T: Send + 'static>(
        &self,
        kind: &'static str,
        id: Id,
        operation: impl FnOnce(&MemoryStore) -> Reply<'_, T> + Send + 'static,
        change: impl FnOnce(&T) -> Change + Send + 'static,
    ) -> Reply<'_, T> {
        let (sender, reply) = oneshot::channel();
        let effect = move |store: &MemoryStore| {
            let result = operation(store).now_or_never().expect("it is in memory").expect("it is reachable");
            let change = (id, change(&result));
            Effect { reply: Box::new(move || drop(sender.send(result))), change }
        };
        let mut net = lock(&self.net);
        let task = task::try_id().and_then(|id| net.task_ids.get(&id).copied());
        net.has_background |= task.is_none();
        let mut is_poll = false;
        if let Some(task) = task.filter(|_| kind == "look") {
            net.tasks[task].looks += 1;
            is_poll = net.tasks[task].looks > 2;
        }
        let number = net.next_operation;
        net.next_operation += 1;
        let state = OperationState::Sent(Box::new(effect));
        net.operations
            .insert(number, Operation { kind, replica: self.replica, task, sent_at: Instant::now(), is_poll, state });
        async { reply.await.map_err(|_| Unreachable("it was lost".into())) }.boxed()
    }
}

impl Store for Gate {
    fn look(&self, id: Id) -> Reply<'_, Chain> {
        self.send("look", id, move |store| store.look(id), seen)
    }

    fn claim(&self, id: Id, claim: Claim) -> Reply<'_, Claimed> {
        let change = |claimed: &Claimed| match claimed {
            Claimed::Granted { .. } => Change::Claimed,
            Claimed::Denied(chain) => seen(chain),
        };
        self.send("claim", id, move |store| store.claim(id, claim), change)
    }

    fn finish(&self, id: Id, fence: Fence, outcome: Outcome) -> Reply<'_, Finished> {
        let change = match outcome {
            Outcome::Done { time_to_live, .. } => Change::Done(time_to_live),
            Outcome::Refused { time_to_live, .. } => Change::Refused(time_to_live),
            Outcome::Failed { .. } => Change::Failed,
            Outcome::Released => Change::Released,
        };
        let change = move |finished: &Finished| match finished {
            Finished::Recorded => change,
            Finished::Ended(_) | Finished::Superseded(_) => Change::None,
        };
        self.send("finish", id, move |store| store.finish(id, fence, outcome), change)
    }

    fn end(&self, id: Id, tombstone: Sealed, time_to_live: Duration) -> Reply<'_, Previous> {
        let change = move |_: &Previous| Change::Ended(time_to_live);
        self.send("end", id, move |store| store.end(id, tombstone, time_to_live), change)
    }

    fn delivered(&self, id: Id, time_to_live: Duration) -> Reply<'_, ()> {
        let change = move |(): &()| Change::Delivered(time_to_live);
        self.send("delivered", id, move |store| store.delivered(id, time_to_live), change)
    }

    fn revoke(&self, _: Vec<RevokedJwt>) -> Reply<'_, ()> {
        unreachable!("the log is not used here")
    }

    fn revoked_since(&self, _: Option<LogPosition>) -> Reply<'_, Vec<(LogPosition, Option<RevokedJwt>)>> {
        unreachable!("the log is not used here")
    }

    fn watch(&self, id: Id) -> Watch {
        lock(&self.net).replicas[self.replica].watches.watch(id)
    }

    fn pushes(&self) -> bool {
        true
    }

    fn connect(&self) -> Reply<'_, ()> {
        async { Ok(()) }.boxed()
    }
}

/// Returns what a replica learns of a token from its record.
fn seen(chain: &Chain) -> Change {
    match chain.tail {
        Tail::Claimed { .. } if chain.answers.is_empty() => Change::SeenClaimed,
        _ => Change::None,
    }
}
