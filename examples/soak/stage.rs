//! The layer between a client and a mock of Crossmint.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header::COOKIE},
    routing::get,
};
use reqwest::{Client, ClientBuilder, redirect::Policy};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, interval},
};
use tower::ServiceExt as _;
use tower_crossmint_auth::{
    CrossmintAuth, CrossmintAuthConfigBuilder, CrossmintAuthLayer, OutagePolicy, Session,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::{
    browser::Browser,
    load::{Latencies, steady},
};

pub(crate) struct Stage {
    pub(crate) mock: MockCrossmint,
    pub(crate) auth: CrossmintAuth,
    pub(crate) app: Router,
    /// The server, which ends with the stage.
    server: JoinSet<()>,
    disturber: JoinSet<()>,
}

impl Stage {
    /// A layer that keeps sessions through outages, and has its keys.
    pub(crate) async fn warm(configure: impl FnOnce(CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder) -> Self {
        let stage = Self::cold(configure).await;
        stage.auth.warm_up().await.expect("the mock is up");
        stage
    }

    pub(crate) async fn cold(configure: impl FnOnce(CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder) -> Self {
        let mock = MockCrossmint::start().await;
        let config = configure(mock.config().on_outage(OutagePolicy::KeepSession));
        let auth = CrossmintAuth::new(config.build().expect("the configuration is sound"));
        let handler = get(|session: Session| async move { session.user_id().to_owned() });
        let app = Router::new().fallback(handler).layer(CrossmintAuthLayer::from(auth.clone()));
        Self { mock, auth, app, server: JoinSet::new(), disturber: JoinSet::new() }
    }

    /// Serves the application on loopback.
    pub(crate) async fn listen(&mut self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be listened on");
        let address = listener.local_addr().expect("a listener has an address");
        let app = self.app.clone();
        self.server.spawn(async move { axum::serve(listener, app).await.expect("the server runs") });
        address
    }

    /// Gives every refresh a fault of its own.
    pub(crate) fn disturb(&mut self, mut fault: impl FnMut() -> Fault + Send + 'static) {
        let mock = self.mock.clone();
        let mut ordered = mock.calls(Endpoint::Refresh);
        let mut order = move || {
            while ordered < mock.calls(Endpoint::Refresh) + AHEAD {
                mock.inject_times(Endpoint::Refresh, 1, fault());
                ordered += 1;
            }
        };
        order();
        self.disturber.spawn(async move {
            let mut ticks = interval(Duration::from_millis(20));
            loop {
                ticks.tick().await;
                order();
            }
        });
    }

    /// Ends that.
    pub(crate) async fn calm(&mut self) {
        self.disturber.shutdown().await;
        self.mock.clear_faults();
    }

    /// Returns a JWT that has expired.
    pub(crate) fn expired_jwt(&self) -> String {
        self.mock.session("somebody").jwt_lifetime(-60).create().jwt().to_owned()
    }

    pub(crate) fn expired_browsers(&self, count: usize) -> Vec<Browser> {
        let jwt = self.expired_jwt();
        (0..count).map(|user| Browser::expired(&self.mock, &jwt, user)).collect()
    }

    /// Says whether a browser is still signed in: here, and at Crossmint.
    pub(crate) async fn knows(&self, browser: &Browser) -> bool {
        let (status, headers) = call(&self.app, &browser.cookies()).await;
        let has_ended = browser.receive(status, &headers);
        let is_live = browser.refresh_token().is_some_and(|token| self.mock.is_live(&token));
        status == StatusCode::OK && !has_ended && is_live
    }

    /// Counts the browsers that are not signed in any more.
    pub(crate) async fn lost(&self, browsers: impl IntoIterator<Item = &Browser>) -> usize {
        self.auth.wait_idle().await;
        let mut lost = 0;
        for browser in browsers {
            lost += usize::from(!self.knows(browser).await);
        }
        lost
    }
}

/// Calls the application without a connection.
pub(crate) async fn call(app: &Router, cookies: &str) -> (StatusCode, HeaderMap) {
    let request = Request::get("/").header(COOKIE, cookies).body(Body::empty()).expect("the request is sound");
    let response = app.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
    (response.status(), response.headers().clone())
}

/// Calls it over HTTP, and reads all of the answer.
pub(crate) async fn fetch(
    client: &Client,
    address: SocketAddr,
    cookies: &str,
) -> reqwest::Result<(StatusCode, HeaderMap)> {
    let response = client.get(format!("http://{address}/")).header(COOKIE, cookies).send().await?;
    let head = (response.status(), response.headers().clone());
    response.bytes().await?;
    Ok(head)
}

/// Valid requests over HTTP.
pub(crate) struct Valid {
    rate: usize,
    address: SocketAddr,
    cookies: String,
    failures: Arc<AtomicUsize>,
}

impl Valid {
    pub(crate) fn new(stage: &Stage, address: SocketAddr, rate: usize) -> Self {
        let cookies = Browser::with(&stage.mock.sign_in("alice")).cookies();
        Self { rate, address, cookies, failures: Arc::default() }
    }

    /// Sends them, and takes their times.
    pub(crate) async fn send(&self, time: Duration, latencies: &Arc<Latencies>) {
        let (client, address) = (http1(), self.address);
        let (cookies, latencies, failures) = (self.cookies.clone(), Arc::clone(latencies), Arc::clone(&self.failures));
        let send = move |_| {
            let (client, cookies) = (client.clone(), cookies.clone());
            let (latencies, failures) = (Arc::clone(&latencies), Arc::clone(&failures));
            async move {
                let start = Instant::now();
                let answer = fetch(&client, address, &cookies).await;
                latencies.record(start.elapsed());
                let is_ok = answer.is_ok_and(|(status, _)| status == StatusCode::OK);
                failures.fetch_add(usize::from(!is_ok), Ordering::Relaxed);
            }
        };
        steady(self.rate, time, send).await;
    }

    pub(crate) fn failures(&self) -> usize {
        self.failures.load(Ordering::Relaxed)
    }
}

pub(crate) fn http1() -> Client {
    client(|builder| builder.http1_only())
}

pub(crate) fn http2() -> Client {
    client(|builder| builder.http2_prior_knowledge())
}

fn client(configure: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
    configure(Client::builder().redirect(Policy::none()).no_proxy()).build().expect("a client without TLS of its own")
}

/// More than can be sent between two looks.
const AHEAD: usize = 2_000;
