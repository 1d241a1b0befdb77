//! What the tables of the matrix have in common.

use std::time::Duration;

use axum::Router;
use futures_util::future::join_all;
use http::Method;
use serde_json::json;
use tower_crossmint_auth::{
    CrossmintAuth, CrossmintAuthConfigBuilder, OutagePolicy,
    testing::{Endpoint, Fault, MockCrossmint, MockSession},
};

use crate::support::{
    answer::{Answer, TRY_LATER},
    direct::{self, app, request},
    mock::{Calls, calls},
};

/// A mock, and what its handles have in common.
pub(super) struct Stage {
    pub(super) mock: MockCrossmint,
    pub(super) configure: fn(CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder,
    pub(super) client: reqwest::Client,
}

impl Stage {
    pub(super) async fn new(configure: fn(CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder) -> Self {
        let mock = MockCrossmint::start().await;
        // Like the built-in client. To build one for each configuration takes 17 ms in a debug build.
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate();
        Self { mock, configure, client: client.build().unwrap() }
    }

    /// Starts a configuration with the built-in client.
    pub(super) fn config(&self) -> CrossmintAuthConfigBuilder {
        (self.configure)(self.mock.config())
    }

    /// Rotates the signing key. Returns the previous key set as an answer.
    pub(super) fn outdate_keys(&self) -> Fault {
        let outdated = Fault::json(200, self.mock.key_set());
        self.mock.rotate_keys();
        outdated
    }
}

/// A new handle, and an application behind its layer.
pub(super) struct Scene {
    pub(super) mock: MockCrossmint,
    pub(super) auth: CrossmintAuth,
    pub(super) app: Router,
    before: Calls,
}

impl Scene {
    pub(super) fn of(stage: &Stage) -> Self {
        Self::with(stage, stage.config().http_client(stage.client.clone()))
    }

    pub(super) fn with(Stage { mock, .. }: &Stage, config: CrossmintAuthConfigBuilder) -> Self {
        let auth = CrossmintAuth::new(config.build().unwrap());
        Self { app: app(&auth), auth, mock: mock.clone(), before: calls(mock) }
    }

    /// Returns the calls since the scene began.
    pub(super) fn calls(&self) -> Calls {
        calls(&self.mock).since(self.before)
    }

    pub(super) async fn get(&self, session: &MockSession) -> Answer {
        direct::get(&self.app, "/me", &session.cookie_header()).await
    }

    /// Sends requests at the same time.
    pub(super) async fn crowd(&self, session: &MockSession, requests: usize) -> Vec<Answer> {
        join_all((0..requests).map(|_| self.get(session))).await
    }

    pub(super) async fn post(&self, path: &str, cookie: &str) -> Answer {
        direct::send(&self.app, request(Method::POST, path, cookie)).await
    }

    /// Counts how often the session's refresh token was sent to Crossmint.
    pub(super) fn sent(&self, session: &MockSession) -> usize {
        let body = json!({ "refresh": session.refresh_token() });
        self.mock.requests(Endpoint::Refresh).iter().filter(|request| request.json().as_ref() == Some(&body)).count()
    }
}

/// Asserts that a session was ended or kept as the policy says after an inconclusive failure.
#[track_caller]
pub(super) fn assert_inconclusive(answer: &Answer, policy: OutagePolicy, case: &str) {
    match policy {
        OutagePolicy::KeepSession => {
            answer.assert_rejected(503, TRY_LATER, case);
            let pause: u64 = answer.header("retry-after").parse().unwrap();
            assert!((1..=60).contains(&pause), "{case}: {pause}");
        }
        _ => answer.assert_ended(TRY_LATER, case),
    }
}

pub(super) fn keeping(config: CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder {
    config.on_outage(OutagePolicy::KeepSession)
}

/// Returns the default time limit of the calls to an endpoint.
pub(super) fn time_limit(endpoint: Endpoint) -> Duration {
    match endpoint {
        Endpoint::Keys => KEYS_LIMIT,
        Endpoint::Refresh => REFRESH_LIMIT,
        Endpoint::Logout => LOGOUT_LIMIT,
        other => panic!("{other:?} has no time limit"),
    }
}

pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(2);
pub(super) const KEYS_LIMIT: Duration = Duration::from_secs(5);
pub(super) const REFRESH_LIMIT: Duration = Duration::from_secs(10);
pub(super) const LOGOUT_LIMIT: Duration = Duration::from_secs(2);
pub(super) const CROWD: usize = 20;
