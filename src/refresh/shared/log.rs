//! The logouts at other replicas.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    store::{LOG_PAGE, LogPosition, Store},
    task_tracker::runtime,
    verify::Verifier,
};

/// Reads the log of revoked JWTs, in a task that ends with the handle.
#[derive(Default)]
pub(crate) struct Follower(Mutex<Option<JoinHandle<()>>>);

impl Follower {
    /// Starts the task, unless it is running.
    pub(crate) fn start(&self, store: &Arc<dyn Store>, verifier: &Arc<Verifier>) {
        // Held for a look at the task, by requests that verify a signature or refresh a session.
        let mut task = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // It ends with its runtime, of which tests have several.
        if task.as_ref().is_none_or(JoinHandle::is_finished)
            && let Ok(runtime) = runtime()
        {
            *task = Some(runtime.spawn(follow(Arc::downgrade(store), Arc::downgrade(verifier))));
        }
    }
}

async fn follow(store: Weak<dyn Store>, verifier: Weak<Verifier>) {
    let mut position: Option<LogPosition> = None;
    loop {
        let (Some(store), Some(verifier)) = (store.upgrade(), verifier.upgrade()) else { return };
        let mut watch = store.watch_log();
        // A failure is reported by those who need the store.
        let revoked = store.revoked_since(position.clone()).await.unwrap_or_default();
        let is_page = revoked.len() >= LOG_PAGE;
        if let Some((latest, _)) = revoked.last() {
            position = Some(latest.clone());
            verifier.refuse(revoked.iter().filter_map(|(_, revoked)| *revoked));
        }
        drop((store, verifier));
        if !is_page {
            let _ = timeout(LOG_POLL, watch.changed()).await;
            sleep(BATCH).await;
        }
    }
}

/// A replica refuses the JWTs of a logout elsewhere within a second, whether or not the store tells it.
const LOG_POLL: Duration = Duration::from_millis(500);
/// Collects the logouts of a busy time: each batch is a pass over the cache.
const BATCH: Duration = Duration::from_millis(50);
