//! A replica: a server process behind the layer.

use std::{
    env,
    io::{self, Read as _},
    net::SocketAddr,
    process::Stdio,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, Method},
    routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};
use tower_crossmint_auth::{
    ApiKey, CrossmintAuth, CrossmintAuthConfig, CrossmintAuthLayer, Environment, OutagePolicy, RedisRenewals, Session,
    WhenUnreachable,
};

use crate::store::signal_process;

/// The configuration of a replica.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Options {
    pub(crate) base_url: String,
    pub(crate) project_id: String,
    /// `None`: it shares nothing.
    pub(crate) store: Option<String>,
    pub(crate) refresh_timeout: Duration,
    /// Of a command to the store.
    pub(crate) time_limit: Duration,
    /// In place of [`WhenUnreachable::GoOn`].
    pub(crate) waits: bool,
    pub(crate) prefix: Option<String>,
    pub(crate) pepper: Option<String>,
    pub(crate) ca_certificates: Option<String>,
}

impl Options {
    pub(crate) fn config(&self) -> CrossmintAuthConfig {
        let key = ApiKey::unverified(&self.project_id, Environment::Development);
        let mut config = CrossmintAuthConfig::builder(key)
            .base_url(&self.base_url)
            .on_outage(OutagePolicy::KeepSession)
            .refresh_timeout(self.refresh_timeout)
            .connect_timeout(self.refresh_timeout.min(Duration::from_secs(1)));
        if let Some(url) = &self.store {
            let mut renewals = RedisRenewals::new(url).unwrap().time_limit(self.time_limit);
            if self.waits {
                renewals = renewals.when_unreachable(WhenUnreachable::Wait);
            }
            if let Some(prefix) = &self.prefix {
                renewals = renewals.prefix(prefix);
            }
            if let Some(pepper) = &self.pepper {
                renewals = renewals.pepper(pepper);
            }
            if let Some(pem) = &self.ca_certificates {
                renewals = renewals.ca_certificates(pem.clone());
            }
            config = config.share_renewals(renewals);
        }
        config.build().unwrap()
    }
}

/// Serves until the standard input ends, if the process was started for that.
pub(crate) fn run_if_asked() {
    let Ok(options) = env::var(VARIABLE) else { return };
    let options: Options = serde_json::from_str(&options).unwrap();
    if env::var_os("REPLICA_LOG").is_some() {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(io::stderr).init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let auth = CrossmintAuth::new(options.config());
        let app = Router::new()
            .route("/me", get(async |session: Session| session.user_id().to_owned()))
            .layer(CrossmintAuthLayer::from(auth.clone()))
            .merge(auth.routes())
            .route("/stats", get(stats))
            .route("/idle", get(async |State(auth): State<CrossmintAuth>| auth.wait_idle().await))
            .with_state(auth.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        // On a line of its own, among those of the test harness.
        println!("\n{ANNOUNCEMENT}{}", listener.local_addr().unwrap());
        let input_ended = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
        let end = async { drop(input_ended.await) };
        axum::serve(listener, app).with_graceful_shutdown(end).await.unwrap();
        auth.wait_idle().await;
    });
}

async fn stats(State(auth): State<CrossmintAuth>) -> Json<Map<String, Value>> {
    let stats = auth.stats();
    Json(stats.counters().map(|(name, value)| (name.to_owned(), value.into())).collect())
}

/// A replica's process, as a load balancer sees it. It is killed when it is dropped.
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    process: Child,
    client: reqwest::Client,
}

impl Replica {
    pub(crate) async fn start(options: &Options) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "replica_process", "--nocapture"])
            .env(VARIABLE, serde_json::to_string(options).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("a replica starts");
            if let Some(address) = line.strip_prefix(ANNOUNCEMENT) {
                break address.parse().unwrap();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { address, process, client }
    }

    /// Requests a page, with this `Cookie` header.
    pub(crate) async fn get(&self, cookies: impl Into<String>) -> Answer {
        self.try_get(cookies).await.unwrap()
    }

    /// Requests a page. Returns `None` if the replica does not answer.
    pub(crate) async fn try_get(&self, cookies: impl Into<String>) -> Option<Answer> {
        self.request(Method::GET, "/me", cookies).await
    }

    pub(crate) async fn log_out(&self, cookies: impl Into<String>) -> Answer {
        self.request(Method::POST, "/api/auth/logout", cookies).await.unwrap()
    }

    pub(crate) async fn stat(&self, name: &str) -> u64 {
        let answer = self.request(Method::GET, "/stats", "").await.unwrap();
        let stats: Value = serde_json::from_str(&answer.body).unwrap();
        stats[format!("crossmint_auth_{name}_total")].as_u64().unwrap()
    }

    /// Waits until the replica does nothing in the background.
    pub(crate) async fn idle(&self) {
        self.request(Method::GET, "/idle", "").await.unwrap();
    }

    /// Shuts the process down as a deployment does, and waits for its end.
    pub(crate) async fn shut_down(&mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().await.unwrap().success());
    }

    /// Kills the process as `kill -9` does.
    pub(crate) async fn kill(&self) {
        self.signal("KILL").await;
    }

    /// Sends a signal, such as `STOP`.
    pub(crate) async fn signal(&self, signal: &str) {
        signal_process(self.process.id().unwrap(), signal).await;
    }

    async fn request(&self, method: Method, path: &str, cookies: impl Into<String>) -> Option<Answer> {
        let request = self.client.request(method, format!("http://{}{path}", self.address));
        // Another host than loopback's: the requests of a browser have one.
        let response =
            request.header("cookie", cookies.into()).header("sec-fetch-site", "same-origin").send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Some(Answer { status, headers, body: response.text().await.ok()? })
    }
}

/// What a browser gets.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// Returns the refresh token that the answer sets, and the `Cookie` header of a browser that has received both.
    #[track_caller]
    pub(crate) fn session(&self, user_id: &str) -> Received {
        assert_eq!((self.status, &*self.body), (200, user_id), "{self:?}");
        let cookies: Vec<_> = self.cookies().collect();
        let [jwt, refresh] = &cookies[..] else { panic!("there are no new cookies: {self:?}") };
        assert!(jwt.name().starts_with("crossmint-jwt") && !jwt.value().is_empty(), "{self:?}");
        Received {
            refresh_token: refresh.value().to_owned(),
            cookies: format!("{}; {}", jwt.stripped(), refresh.stripped()),
        }
    }

    /// Asserts that the session has ended: the browser has to sign in.
    #[track_caller]
    pub(crate) fn assert_ended(&self) {
        assert_eq!(self.status, 401, "{self:?}");
        assert_eq!(self.cookies().filter(|cookie| cookie.value().is_empty()).count(), 2, "{self:?}");
    }

    /// Asserts that the request can be repeated later, with the same cookies.
    #[track_caller]
    pub(crate) fn assert_try_later(&self) {
        assert_eq!((self.status, self.cookies().count()), (503, 0), "{self:?}");
    }

    fn cookies(&self) -> impl Iterator<Item = cookie::Cookie<'static>> {
        let fields = self.headers.get_all("set-cookie").iter();
        fields.map(|field| cookie::Cookie::parse(field.to_str().unwrap().to_owned()).unwrap())
    }
}

/// A session that a browser has received.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Received {
    pub(crate) refresh_token: String,
    pub(crate) cookies: String,
}

impl Received {
    /// Returns the `Cookie` header of a browser that has lost the JWT.
    pub(crate) fn without_jwt(&self) -> String {
        self.cookies.split_once("; ").unwrap().1.to_owned()
    }
}

const VARIABLE: &str = "REPLICA_OPTIONS";
const ANNOUNCEMENT: &str = "replica on ";
