//! Tasks that outlive the client that has caused them.

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use crate::error::{AuthError, AuthErrorKind};

/// Counts the tasks that are running. All clones share one count.
#[derive(Clone, Debug)]
pub(crate) struct TaskTracker {
    running: watch::Sender<usize>,
    owner: Weak<dyn Any + Send + Sync>,
}

impl TaskTracker {
    /// Creates a tracker whose tasks keep `owner` alive.
    pub(crate) fn new(owner: Weak<dyn Any + Send + Sync>) -> Self {
        Self { running: watch::Sender::new(0), owner }
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
        let runtime = runtime()?;
        self.running.send_modify(|running| *running += 1);
        let token = Token { running: self.running.clone(), _owner: self.owner.upgrade() };
        Ok(runtime.spawn(async move {
            let _token = token;
            future.await
        }))
    }

    /// Waits until no task is running.
    pub(crate) async fn wait(&self) {
        // The sender is here: there is no error.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }
}

/// Returns the runtime, without which there are no calls and no timeouts.
pub(crate) fn runtime() -> Result<Handle, AuthError> {
    Handle::try_current().map_err(|error| AuthError::new(AuthErrorKind::Unavailable, error))
}

/// A running task. Its drop counts tasks that panic, and those of a runtime that shuts down, as well.
struct Token {
    running: watch::Sender<usize>,
    _owner: Option<Arc<dyn Any + Send + Sync>>,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.running.send_modify(|running| *running -= 1);
    }
}
