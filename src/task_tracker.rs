//! Tasks that outlive the request that started them.

use std::{any::Any, sync::Weak};

use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use crate::error::{AuthError, AuthErrorKind};

/// Tracks the tasks that are running. All clones track the same tasks.
#[derive(Clone, Debug)]
pub(crate) struct TaskTracker {
    /// Each running task holds a receiver. Nothing is sent.
    running: watch::Sender<()>,
    owner: Weak<dyn Any + Send + Sync>,
}

impl TaskTracker {
    /// Creates a tracker whose tasks keep `owner` alive.
    pub(crate) fn new(owner: Weak<dyn Any + Send + Sync>) -> Self {
        Self { running: watch::Sender::new(()), owner }
    }

    /// Starts a task.
    ///
    /// # Errors
    ///
    /// When there is no runtime.
    pub(crate) fn spawn<F>(&self, future: F) -> Result<JoinHandle<F::Output>, AuthError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        // Dropped with the task even if it panics, or if the runtime shuts down before it has run.
        let token = (self.running.subscribe(), self.owner.upgrade());
        Ok(runtime()?.spawn(async move {
            let _token = token;
            future.await
        }))
    }

    /// Waits until no task is running.
    pub(crate) async fn wait(&self) {
        self.running.closed().await;
    }
}

/// Returns the runtime, without which there are no calls and no timeouts.
pub(crate) fn runtime() -> Result<Handle, AuthError> {
    Handle::try_current().map_err(|error| AuthError::new(AuthErrorKind::Unavailable, error))
}
