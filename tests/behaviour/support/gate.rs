//! A gate in a handler: a test waits until a request has entered it, and opens it.

use std::sync::Arc;

use axum::routing::{MethodRouter, any};
use tokio::sync::Semaphore;

#[derive(Clone)]
pub(crate) struct Gate {
    entered: Arc<Semaphore>,
    /// Closed when the gate opens.
    opened: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { entered: Arc::new(Semaphore::new(0)), opened: Arc::new(Semaphore::new(0)) }
    }

    /// Makes a handler that waits at the gate.
    pub(crate) fn handler(&self) -> MethodRouter {
        let gate = self.clone();
        any(async move || gate.pass().await)
    }

    /// Enters the gate, and waits until it is open.
    pub(crate) async fn pass(&self) {
        self.entered.add_permits(1);
        drop(self.opened.acquire().await);
    }

    /// Waits until a request has entered the gate.
    pub(crate) async fn entered(&self) {
        drop(self.entered.acquire().await);
    }

    pub(crate) fn open(&self) {
        self.opened.close();
    }
}
