//! Helpers around the mock.

use std::time::Duration;

use tower_crossmint_auth::{
    AuthMaterial, RefreshToken,
    testing::{Endpoint, MockCrossmint, MockSession},
};

use crate::support::{answer::Answer, clock::pass};

/// How often Crossmint was called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Calls {
    pub(crate) keys: usize,
    pub(crate) refreshes: usize,
    pub(crate) logouts: usize,
    /// The refreshes with a rotated token, for which Crossmint ended the session.
    pub(crate) reuses: usize,
}

impl Calls {
    /// Returns the calls that were made after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            keys: self.keys - before.keys,
            refreshes: self.refreshes - before.refreshes,
            logouts: self.logouts - before.logouts,
            reuses: self.reuses - before.reuses,
        }
    }
}

pub(crate) const NO_CALLS: Calls = Calls { keys: 0, refreshes: 0, logouts: 0, reuses: 0 };

/// Returns the calls that Crossmint got so far.
pub(crate) fn calls(mock: &MockCrossmint) -> Calls {
    Calls {
        keys: mock.calls(Endpoint::Keys),
        refreshes: mock.calls(Endpoint::Refresh),
        logouts: mock.calls(Endpoint::Logout),
        reuses: mock.reuse_detections(),
    }
}

/// Lets a time limit pass once a call has arrived that Crossmint does not answer.
pub(crate) async fn beyond(
    limit: Duration,
    mock: &MockCrossmint,
    endpoint: Endpoint,
    answer: impl Future<Output = Answer>,
) -> Answer {
    let call = mock.calls(endpoint) + 1;
    let clock = async {
        mock.called(endpoint, call).await;
        pass(limit).await;
    };
    tokio::join!(answer, clock).0
}

/// Signs a user in with an expired JWT: the next request needs a refresh.
pub(crate) fn expired(mock: &MockCrossmint, user_id: &str) -> MockSession {
    mock.session(user_id).jwt_lifetime(-60).create()
}

pub(crate) fn material(session: &MockSession) -> AuthMaterial {
    AuthMaterial::new(session.jwt(), RefreshToken::new(session.refresh_token()))
}
