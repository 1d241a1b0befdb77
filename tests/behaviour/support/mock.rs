//! What many tests do with the mock.

use std::time::Duration;

use tower_crossmint_auth::{
    AuthMaterial, RefreshToken,
    testing::{Endpoint, MockCrossmint, MockSession},
};

use crate::support::{answer::Answer, clock::pass};

/// Counts the calls that Crossmint got for keys, refreshes and logouts.
pub(crate) fn calls(mock: &MockCrossmint) -> [usize; 3] {
    [Endpoint::Keys, Endpoint::Refresh, Endpoint::Logout].map(|endpoint| mock.calls(endpoint))
}

/// Lets a time limit pass as soon as a call has arrived that Crossmint does not answer.
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

/// Signs a user in whose JWT has expired: their next request needs a renewal.
pub(crate) fn expired(mock: &MockCrossmint, user_id: &str) -> MockSession {
    mock.session(user_id).jwt_lifetime(-60).create()
}

pub(crate) fn material(session: &MockSession) -> AuthMaterial {
    AuthMaterial::new(session.jwt(), RefreshToken::new(session.refresh_token()))
}
