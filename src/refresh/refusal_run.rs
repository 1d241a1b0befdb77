//! Detects a wrong API key: Crossmint's answer to it is the same as to a session that has ended.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::digest::Digest;

/// Counts the refresh tokens that Crossmint has refused since it last accepted one.
pub(crate) struct RefusalRun {
    pub(crate) threshold: usize,
    refused: Mutex<HashSet<Digest>>,
}

impl RefusalRun {
    pub(crate) fn new(threshold: usize) -> Self {
        Self { threshold, refused: Mutex::default() }
    }

    /// Records a refusal, and returns whether it completes a run. A token counts once; the next refusal starts the
    /// next run.
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

    fn refused(&self) -> MutexGuard<'_, HashSet<Digest>> {
        // Held once per answer of Crossmint's, for one operation on the set.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
