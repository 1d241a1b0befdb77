//! Crossmint, a store, and replicas that share their refreshes through it.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_crossmint_auth::testing::{Endpoint, MockCrossmint, MockSession};

use crate::{
    proxy::{Part, Proxy},
    replica::{Answer, Options, Received, Replica},
    store::Store,
};

/// Replicas, each with a network of its own to the store.
pub(crate) struct Stage {
    pub(crate) mock: MockCrossmint,
    pub(crate) store: Store,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) replicas: Vec<Replica>,
}

impl Stage {
    /// Starts replicas that have refreshed a session each: they are connected, and the store knows their scripts.
    ///
    /// Returns `None` if there is no store.
    pub(crate) async fn new(replicas: usize) -> Option<Self> {
        Self::configured(replicas, |_, _, options| options).await
    }

    /// Starts replicas whose claims hold for [`SHORT_LEASE`], and whose requests wait for two seconds.
    pub(crate) async fn with_short_leases(replicas: usize) -> Option<Self> {
        Self::configured(replicas, |_, _, options| Options { refresh_timeout: Duration::from_secs(2), ..options }).await
    }

    /// Starts replicas whose options depend on their number.
    pub(crate) async fn configured(
        replicas: usize,
        configure: impl Fn(&Self, usize, Options) -> Options,
    ) -> Option<Self> {
        let stage = Self::at(Store::start().await?, replicas, configure).await;
        for replica in &stage.replicas {
            replica.get(stage.expired("rehearsal").cookie_header()).await.session("rehearsal");
            replica.idle().await;
        }
        Some(stage)
    }

    /// Starts replicas that have no connection yet, and a store of which they may have the wrong idea.
    pub(crate) async fn at(
        store: Store,
        replicas: usize,
        configure: impl Fn(&Self, usize, Options) -> Options,
    ) -> Self {
        let mock = MockCrossmint::start().await;
        let mut stage = Self { mock, store, proxies: Vec::new(), replicas: Vec::new() };
        for number in 0..replicas {
            let proxy = Proxy::start(stage.store.address()).await;
            let options = options(&stage.mock, &format!("redis://127.0.0.1:{}", proxy.port));
            stage.proxies.push(proxy);
            let replica = Replica::start(&configure(&stage, number, options)).await;
            stage.replicas.push(replica);
        }
        stage
    }

    /// Signs a user in with an expired JWT: the next request needs a refresh.
    pub(crate) fn expired(&self, user_id: &str) -> MockSession {
        expired(&self.mock, user_id)
    }

    /// Requests a page with a session's first cookies.
    pub(crate) async fn get(&self, replica: usize, session: &MockSession) -> Answer {
        self.replicas[replica].get(session.cookie_header()).await
    }

    /// Requests a page from a replica that dies meanwhile: there is no answer.
    pub(crate) async fn get_in_vain(&self, replica: usize, session: &MockSession) {
        let answer = self.replicas[replica].try_get(session.cookie_header()).await;
        assert!(answer.is_none(), "{answer:?}");
    }

    /// Requests a page, and does as `Retry-After` says until there is another answer.
    pub(crate) async fn get_patiently(&self, replica: usize, session: &MockSession) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.get(replica, session).await;
            if answer.status != 503 {
                return answer;
            }
            assert!(Instant::now() < deadline, "{answer:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Requests a page from a replica that follows the refresh of another one. The scene begins when it does.
    pub(crate) async fn get_while<T>(
        &self,
        replica: usize,
        session: &MockSession,
        scene: impl Future<Output = T>,
    ) -> Answer {
        let second_look = self.proxies[replica].hold(2, Part::Request);
        let scene = async {
            second_look.reached().await;
            drop(second_look);
            scene.await;
        };
        tokio::join!(self.get(replica, session), scene).0
    }

    /// Returns how often the replicas have sent a session's first refresh token.
    pub(crate) fn sent(&self, session: &MockSession) -> usize {
        let requests = self.mock.requests(Endpoint::Refresh);
        let tokens = requests.iter().filter_map(|request| Some(request.json()?["refresh"].as_str()?.to_owned()));
        tokens.filter(|token| token == session.refresh_token()).count()
    }

    /// Waits for the next refresh to reach Crossmint. To be called before it is caused.
    pub(crate) fn next_refresh(&self) -> impl Future<Output = ()> {
        let (mock, count) = (self.mock.clone(), self.mock.calls(Endpoint::Refresh) + 1);
        async move { mock.called(Endpoint::Refresh, count).await }
    }

    /// Asserts that Crossmint got a session's token this often, and has the browser's new session for the only one.
    #[track_caller]
    pub(crate) fn assert_alive(&self, session: &MockSession, received: &Received, sent: usize) {
        assert_eq!((self.sent(session), self.mock.reuse_detections()), (sent, 0));
        assert!(self.mock.is_live(&received.refresh_token));
    }
}

/// Returns the options of a replica that shares its refreshes.
pub(crate) fn options(mock: &MockCrossmint, store: &str) -> Options {
    Options {
        base_url: mock.base_url().to_owned(),
        project_id: mock.project_id().to_owned(),
        store: Some(store.to_owned()),
        refresh_timeout: Duration::from_secs(10),
        // Two processors run the tests, the replicas and the store.
        time_limit: Duration::from_secs(1),
        waits: false,
        prefix: None,
        pepper: None,
        ca_certificates: None,
    }
}

pub(crate) fn expired(mock: &MockCrossmint, user_id: &str) -> MockSession {
    mock.session(user_id).jwt_lifetime(-60).create()
}

/// For how long a claim holds: a quarter longer than the time limit of a refresh, and 5 s.
pub(crate) const SHORT_LEASE: Duration = Duration::from_millis(7500);
