//! How many requests a second an axum server keeps behind the layer: the same server with an idle one, in turns.
//!
//! See `benches/README.md`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

mod browser;
mod stage;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Builder,
};
use tower::layer::util::Identity;

use crate::stage::Stage;

fn main() {
    // `cargo test --benches` only wants to know that it works.
    let (turns, turn) = if std::env::args().any(|argument| argument == "--bench") {
        (60, Duration::from_millis(200))
    } else {
        (1, Duration::from_millis(10))
    };
    // A thread for each side, so that neither waits for the other to leave its processor.
    let servers = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let clients = Builder::new_current_thread().enable_all().build().unwrap();
    let stage = Stage::new();
    let app = Router::new().route("/", get(|| async { "hello" }));
    let apps = [app.clone(), app.clone().layer(Identity::new()), app.layer(stage.layer(|config| config))];
    let apps = apps.map(|app| servers.block_on(serve(app)));
    let requests: Vec<Bytes> = (0..CONNECTIONS).map(|_| browser::head(&stage.cookie())).collect();

    let rates: Vec<[f64; 3]> = (0..turns)
        .map(|number| {
            let mut rates = [0.0; 3];
            for index in 0..3 {
                // No server is always the first.
                let index = (number + index) % 3;
                rates[index] = clients.block_on(rate(apps[index], &requests, turn));
            }
            rates
        })
        .collect();
    let median = |compute: &dyn Fn(&[f64; 3]) -> f64| {
        let mut all: Vec<f64> = rates.iter().map(compute).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let row = |what, found: String, goal| println!("{what:<62} {found:>10} {goal:>10}");
    row("requests per second over HTTP, medians of turns: what", "found".into(), "goal");
    row("with an idle layer", format!("{:.0}", median(&|[_, idle, _]| *idle)), "");
    row("  with this one / that", format!("{:.3}", median(&|[_, idle, ours]| ours / idle)), ">= 0.95");
    row("  without a layer / that", format!("{:.3}", median(&|[bare, idle, _]| bare / idle)), "");
}

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// Sends requests over kept connections for a while, each after the answer to the one before.
async fn rate(server: SocketAddr, requests: &[Bytes], time: Duration) -> f64 {
    let connections = join_all(requests.iter().map(|_| TcpStream::connect(server))).await;
    let start = Instant::now();
    let counts = join_all(connections.into_iter().zip(requests).map(|(connection, request)| async move {
        let mut connection = connection.unwrap();
        let (mut answer, mut count) = ([0; 1024], 0_u32);
        while start.elapsed() < time {
            connection.write_all(request).await.unwrap();
            let length = connection.read(&mut answer).await.unwrap();
            assert!(answer[..length].starts_with(b"HTTP/1.1 200 ") && answer[..length].ends_with(b"hello"));
            count += 1;
        }
        f64::from(count)
    }));
    counts.await.iter().sum::<f64>() / start.elapsed().as_secs_f64()
}

const CONNECTIONS: usize = 32;
