//! Replicas, the proxy in front of them, and the mock behind them.

use std::{error::Error, net::SocketAddr, time::Duration};

use futures_util::future::{join_all, try_join_all};
use reqwest::{RequestBuilder, StatusCode, header::COOKIE};
use tokio::time::{Instant, sleep, timeout};
use tower_crossmint_auth::testing::{Endpoint, MockCrossmint};

use crate::{REPLICAS, proxy, replica::Replica};

pub(crate) struct Site {
    mock: MockCrossmint,
    replicas: Vec<Replica>,
    proxy: SocketAddr,
    client: reqwest::Client,
}

/// What has become of a session that was refreshed.
pub(crate) struct Refreshed {
    /// The requests that were answered with 200.
    pub(crate) served: usize,
    /// The refresh tokens that were sent to Crossmint, and those of them that had been used before.
    pub(crate) calls: usize,
    pub(crate) detections: usize,
    pub(crate) fate: &'static str,
}

/// What has become of a session that has signed out.
pub(crate) struct SignedOut {
    /// The replicas that accept its JWT a second later.
    pub(crate) accepting: usize,
    /// When the last replica was first seen to refuse it.
    pub(crate) refused_after: String,
}

impl Site {
    /// Starts a mock of its own, and replicas that use the store, if any.
    pub(crate) async fn start(store: Option<&str>) -> Result<Self, Box<dyn Error>> {
        let mock = MockCrossmint::start().await;
        let replicas = try_join_all((0..REPLICAS).map(|_| Replica::start(&mock, store))).await?;
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
        let addresses = replicas.iter().map(|replica| replica.address).collect();
        let proxy = proxy::start(addresses, client.clone()).await?;
        Ok(Self { mock, replicas, proxy, client })
    }

    /// Sends requests with one expired session, at the same time, through the proxy.
    pub(crate) async fn expired_session(&self, requests: usize) -> Result<Refreshed, Box<dyn Error>> {
        let alice = self.mock.session("alice").jwt_lifetime(-60).create();
        let (calls, detections) = (self.mock.calls(Endpoint::Refresh), self.mock.reuse_detections());
        let live_sessions = self.mock.live_sessions();
        // Crossmint answers once every replica that sends the token has done so, or after a second.
        let held = self.mock.hold(Endpoint::Refresh);
        let requests = (0..requests).map(|_| {
            let request = self.client.get(format!("http://{}/me", self.proxy)).header(COOKIE, alice.cookie_header());
            tokio::spawn(request.send())
        });
        let requests: Vec<_> = requests.collect();
        let _ = timeout(Duration::from_secs(1), self.mock.called(Endpoint::Refresh, calls + REPLICAS)).await;
        held.release();

        let mut served = 0;
        for answer in join_all(requests).await {
            served += usize::from(answer??.status() == StatusCode::OK);
        }
        let lives = self.mock.live_sessions() == live_sessions;
        Ok(Refreshed {
            served,
            calls: self.mock.calls(Endpoint::Refresh) - calls,
            detections: self.mock.reuse_detections() - detections,
            fate: if lives { "lives" } else { "is lost" },
        })
    }

    /// Signs a user out through the first replica, and tries the JWT at the others.
    pub(crate) async fn logout(&self) -> Result<SignedOut, Box<dyn Error>> {
        let bob = self.mock.sign_in("bob");
        if self.accepting(bob.jwt()).await? != REPLICAS {
            return Err("a replica has not accepted a valid JWT".into());
        }
        let logout = self.client.post(format!("http://{}/api/auth/logout", self.replicas[0].address));
        let status = logout.header(COOKIE, bob.cookie_header()).send().await?.status();
        if status != StatusCode::OK {
            return Err(format!("a logout was answered with {status}").into());
        }
        let logged_out_at = Instant::now();
        let mut refused_after = "-".to_owned();
        loop {
            let elapsed = logged_out_at.elapsed();
            let accepting = self.accepting(bob.jwt()).await?;
            if accepting == 0 {
                refused_after = format!("{} ms", elapsed.as_millis());
            }
            if accepting == 0 || elapsed >= GIVE_UP {
                return Ok(SignedOut { accepting, refused_after });
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns how many replicas accept a valid session.
    pub(crate) async fn valid_session(&self) -> Result<usize, Box<dyn Error>> {
        self.accepting(self.mock.sign_in("carol").jwt()).await
    }

    /// Returns whether a counter is above zero at any replica.
    pub(crate) async fn counts(&self, counter: &str) -> Result<bool, Box<dyn Error>> {
        let name = format!("crossmint_auth_{counter}_total");
        let counters = self.replicas.iter().map(|replica| async {
            self.client.get(format!("http://{}/counters", replica.address)).send().await?.text().await
        });
        Ok(try_join_all(counters).await?.iter().any(|counters| counters.contains(&name)))
    }

    /// Waits until all replicas are connected to the store.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<(), Box<dyn Error>> {
        let connect = async {
            for replica in &self.replicas {
                let connect = || self.client.post(format!("http://{}/connect", replica.address)).send();
                while connect().await?.status() != StatusCode::NO_CONTENT {
                    sleep(Duration::from_millis(50)).await;
                }
            }
            Ok(())
        };
        timeout(limit, connect).await.map_err(|_| "a replica has not found the store again")?
    }

    /// Returns how many replicas accept a JWT without a refresh token.
    async fn accepting(&self, jwt: &str) -> Result<usize, Box<dyn Error>> {
        let request = |replica: &Replica| self.client.get(format!("http://{}/me", replica.address)).bearer_auth(jwt);
        let answers = try_join_all(self.replicas.iter().map(request).map(RequestBuilder::send)).await?;
        Ok(answers.iter().filter(|answer| answer.status() == StatusCode::OK).count())
    }
}

/// A busy machine gets more time than the second that is promised.
const GIVE_UP: Duration = Duration::from_secs(5);
