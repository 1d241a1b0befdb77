//! Three replicas behind a round-robin proxy, with and without a store through which they share their refreshes.
//!
//! ```sh
//! cargo run --example replicas --features axum,redis,testing
//! ```
//!
//! Everything stays on this machine: a mock of Crossmint in this process, `redis-server` or `valkey-server` on a free
//! port of loopback, and replicas that are this executable once more. Ends with an error unless everything was as
//! [`docs::operations`](tower_crossmint_auth::docs::operations#replicas) promises.

mod proxy;
mod replica;
mod report;
mod site;
mod store;

use std::{env, error::Error, io, process::ExitCode, time::Duration};

use tokio::signal;

use crate::{report::Report, site::Site, store::StoreServer};

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let outcome = match arguments.next().as_deref() {
        Some("replica") => replica::serve(arguments).await.map(|()| ExitCode::SUCCESS),
        // The processes end with `run`, whose destructors a signal would skip.
        _ => tokio::select! {
            outcome = run() => outcome,
            interrupted = interrupted() => interrupted.map_err(Into::into).and(Err("interrupted".into())),
        },
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

async fn run() -> Result<ExitCode, Box<dyn Error>> {
    let mut store = StoreServer::start().await?;
    let shared = Site::start(Some(&store.url())).await?;
    let alone = Site::start(None).await?;
    let mut report = Report::default();

    report.comparison(&format!("{REQUESTS} requests with one expired session, at once, through the proxy"));
    let (with, without) = (shared.expired_session(REQUESTS).await?, alone.expired_session(REQUESTS).await?);
    report.row("requests answered with 200", (with.served, REQUESTS), (without.served, REQUESTS / REPLICAS));
    report.row("refresh tokens sent to Crossmint", (with.calls, 1), (without.calls, REPLICAS));
    report.row("reuse detections at Crossmint", (with.detections, 0), (without.detections, 1));
    report.row("the session", (with.fate, "lives"), (without.fate, "is lost"));

    report.comparison("a logout through the first replica");
    let (with, without) = (shared.logout().await?, alone.logout().await?);
    report.row("replicas that go on accepting its JWT", (with.accepting, 0), (without.accepting, REPLICAS - 1));
    report.note("the last one has refused it after", with.refused_after, without.refused_after);

    store.stop().await?;
    report.heading("the store is killed");
    report.only("replicas that accept a valid session", shared.valid_session().await?, REPLICAS);
    let outage = shared.expired_session(1).await?;
    report.only("requests with an expired session answered with 200", outage.served, 1);
    report.only("refresh tokens sent to Crossmint", outage.calls, 1);
    report.only("the session", outage.fate, "lives");
    report.only("it is reported that the store is unreachable", shared.counts("shared_unreachable").await?, true);

    store.restart().await?;
    shared.connect(Duration::from_secs(10)).await?;
    report.heading("the store is back, and empty");
    let again = shared.expired_session(REQUESTS).await?;
    report.only("requests answered with 200", again.served, REQUESTS);
    report.only("refresh tokens sent to Crossmint", again.calls, 1);
    report.only("the session", again.fate, "lives");
    Ok(report.conclusion())
}

/// Waits for Ctrl-C, or for a request to terminate.
async fn interrupted() -> io::Result<()> {
    #[cfg(unix)]
    let terminated = async {
        signal::unix::signal(signal::unix::SignalKind::terminate())?.recv().await;
        Ok(())
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending();
    tokio::select! {
        interrupted = signal::ctrl_c() => interrupted,
        terminated = terminated => terminated,
    }
}

const REPLICAS: usize = 3;
const REQUESTS: usize = 4 * REPLICAS;
