//! Stands in for the refreshes that are shared between replicas, without the feature `redis`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use crate::{
    config::Settings, error::AuthError, secret::Secret, session::RevokedJwt, stats::Counters,
    task_tracker::TaskTracker, upstream::RefreshAnswer, verify::Verifier,
};

/// There is none.
pub(crate) struct SharedRenewals(Infallible);

pub(crate) struct Course(Infallible);

#[expect(dead_code, reason = "there is no other replica")]
pub(crate) enum Standing {
    Current,
    Rotated,
    Ended,
}

pub(crate) struct Ended {
    pub(crate) jwts: Vec<Secret>,
    pub(crate) last: Option<Secret>,
    pub(crate) claimed: Option<Secret>,
    pub(crate) is_recorded: bool,
}

impl SharedRenewals {
    pub(crate) fn new(_: &Settings, _: &TaskTracker, _: &Arc<Counters>) -> Option<Arc<Self>> {
        None
    }

    pub(crate) fn course(self: &Arc<Self>, _: &Secret) -> Course {
        match self.0 {}
    }

    pub(crate) async fn standing(&self, _: &Secret) -> Standing {
        match self.0 {}
    }

    pub(crate) async fn end(&self, _: &Secret) -> Ended {
        match self.0 {}
    }

    pub(crate) async fn claimer_finishes(&self, _: &Secret) -> bool {
        match self.0 {}
    }

    pub(crate) async fn pause(&self) {
        match self.0 {}
    }

    pub(crate) fn lease(&self) -> Duration {
        match self.0 {}
    }

    pub(crate) fn publish(self: &Arc<Self>, _: Vec<RevokedJwt>) {
        match self.0 {}
    }

    pub(crate) fn follow(&self, _: &Arc<Verifier>) {
        match self.0 {}
    }

    pub(crate) async fn connect(&self) -> Result<(), AuthError> {
        match self.0 {}
    }
}

impl Course {
    pub(crate) async fn exchange<T>(&mut self, _: &T) -> Result<RefreshAnswer, AuthError> {
        match self.0 {}
    }

    pub(crate) fn successor(&self) -> Option<&Secret> {
        match self.0 {}
    }

    pub(crate) fn deliver(&self) -> oneshot::Sender<()> {
        match self.0 {}
    }
}
