//! The tasks that outlive whoever has started them.

use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use crate::error::{AuthError, AuthErrorKind};

/// Counts the tasks under way.
#[derive(Debug)]
pub(crate) struct Tasks(watch::Sender<usize>);

impl Tasks {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
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
        let counted = Counted::new(&self.0);
        Ok(runtime.spawn(async move {
            let _counted = counted;
            future.await
        }))
    }

    /// Waits until no task is under way.
    pub(crate) async fn ended(&self) {
        // An error would say that the sender is gone, which is here.
        let _ = self.0.subscribe().wait_for(|under_way| *under_way == 0).await;
    }
}

/// Finds the runtime, without which there are no calls and no time limits.
pub(crate) fn runtime() -> Result<Handle, AuthError> {
    Handle::try_current().map_err(|error| AuthError::new(AuthErrorKind::Unavailable, error))
}

/// A task under way, also one that panics or whose runtime ends.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(tasks: &watch::Sender<usize>) -> Self {
        tasks.send_modify(|under_way| *under_way += 1);
        Self(tasks.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|under_way| *under_way -= 1);
    }
}
