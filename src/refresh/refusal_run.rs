//! A suspicion: Crossmint answers a revoked API key as it answers a dead session.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::digest::Digest;

/// Counts the refresh tokens that Crossmint has refused since it last accepted one.
#[derive(Debug)]
pub(crate) struct RefusalRun {
    threshold: usize,
    refused: Mutex<HashSet<Digest>>,
}

impl RefusalRun {
    pub(crate) fn new(threshold: usize) -> Self {
        Self { threshold, refused: Mutex::default() }
    }

    /// Records a refusal, and returns whether it completes a run. One token counts once; the next run starts with the next
    /// refusal.
    pub(crate) fn completes_with(&self, token: Digest) -> bool {
        let mut refused = self.refused();
        refused.insert(token);
        let is_complete = refused.len() >= self.threshold;
        if is_complete {
            refused.clear();
        }
        is_complete
    }

    /// Ends the run: Crossmint has accepted a token.
    pub(crate) fn end(&self) {
        self.refused().clear();
    }

    /// Locked once for each answer of Crossmint's, for one hash operation.
    fn refused(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
