//! A replica: this executable once more, with the layer in front of one route.

use std::{
    env,
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
};
use tower_crossmint_auth::{
    ApiKey, Bearer, CrossmintAuth, CrossmintAuthConfig, CrossmintAuthLayer, Environment, RedisRenewals, Session,
    testing::MockCrossmint,
};

/// A process with a replica, which is killed when this is dropped.
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    _process: Child,
}

impl Replica {
    pub(crate) async fn start(mock: &MockCrossmint, store: Option<&str>) -> Result<Self, Box<dyn Error>> {
        let mut process = Command::new(env::current_exe()?)
            .args(["replica", mock.base_url(), mock.project_id()])
            .args(store)
            // Closed when this process ends, however it does.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = process.stdout.take().ok_or("the replica has no output")?;
        let line = BufReader::new(output).lines().next_line().await?;
        Ok(Self { address: line.ok_or("the replica has not started")?.parse()?, _process: process })
    }
}

/// Serves until the standard input is closed. The arguments are the mock's URL, its project, and the store, if any.
pub(crate) async fn serve(mut arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let base_url = arguments.next().ok_or("the mock's URL is missing")?;
    let project = arguments.next().ok_or("the project is missing")?;
    let mut config = CrossmintAuthConfig::builder(ApiKey::unverified(&project, Environment::Development))
        .base_url(base_url)
        // So that a JWT can be tried without its refresh token.
        .bearer(Bearer::Accept);
    if let Some(url) = arguments.next() {
        config = config.share_renewals(RedisRenewals::new(url)?.time_limit(TIME_LIMIT));
    }
    let auth = CrossmintAuth::new(config.build()?);
    // Connects to the store, and starts to read the log of logouts.
    auth.warm_up().await?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    let stop = async {
        let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    };
    axum::serve(listener, app(auth.clone())).with_graceful_shutdown(stop).await?;
    auth.wait_idle().await;
    Ok(())
}

fn app(auth: CrossmintAuth) -> Router {
    Router::new()
        .route("/me", get(|session: Session| async move { session.user_id().to_owned() }))
        .route_layer(CrossmintAuthLayer::from(auth.clone()))
        .merge(auth.routes())
        .route("/connect", post(connect))
        .route("/counters", get(counters))
        .with_state(auth)
}

async fn connect(State(auth): State<CrossmintAuth>) -> StatusCode {
    match auth.warm_up().await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Names each counter that is not zero.
async fn counters(State(auth): State<CrossmintAuth>) -> String {
    let stats = auth.stats();
    stats.counters().filter(|(_, value)| *value > 0).map(|(name, _)| format!("{name}\n")).collect()
}

/// Longer than usual: this machine runs all the replicas, the store and Crossmint, without optimizations.
const TIME_LIMIT: Duration = Duration::from_secs(1);
