//! How many requests a second an axum server keeps behind the layer: the same server with and without it, in turns.
//!
//! See `benches/README.md`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};
use tower_crossmint_auth::{CrossmintAuth, CrossmintAuthLayer, testing::MockCrossmint};

fn main() {
    // `cargo test --benches` only wants to know that it works.
    let (rounds, round) = if std::env::args().any(|argument| argument == "--bench") {
        (21, Duration::from_secs(1))
    } else {
        (1, Duration::from_millis(10))
    };
    let one_thread = || Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (servers, clients): (Runtime, Runtime) = (one_thread(), one_thread());
    let mock = servers.block_on(MockCrossmint::start());
    let auth = CrossmintAuth::new(mock.config().build().unwrap());
    let app = Router::new().route("/", get(|| async { "hello" }));
    let bare = servers.block_on(serve(app.clone()));
    let layered = servers.block_on(serve(app.layer(CrossmintAuthLayer::from(auth))));
    let requests: Vec<String> = (0..CONNECTIONS)
        .map(|number| {
            let session = mock.session(&format!("user-{number}")).claim("email", "x".repeat(65)).create();
            format!("GET / HTTP/1.1\r\nhost: localhost\r\ncookie: {}\r\n\r\n", session.cookie_header())
        })
        .collect();

    let mut rates = [bare, layered].map(|server| (server, Vec::new()));
    for _ in 0..rounds {
        for (server, rates) in &mut rates {
            rates.push(clients.block_on(rate(*server, &requests, round)));
        }
    }
    let [bare, layered] = rates.map(|(_, mut rates)| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!("{:<58} {:>12} {:>14}", "served over HTTP, medians of rounds in turns", "found", "to be");
    println!("{:<58} {bare:>12.0}", "requests per second without the layer");
    println!("{:<58} {layered:>12.0}", "requests per second with it");
    println!("{:<58} {:>12.3} {:>14}", "  that / without", layered / bare, ">= 0.97");
}

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// Sends requests over kept connections for a while, each after the answer to the one before.
async fn rate(server: SocketAddr, requests: &[String], time: Duration) -> f64 {
    let connections = join_all(requests.iter().map(|_| TcpStream::connect(server))).await;
    let start = Instant::now();
    let counts = join_all(connections.into_iter().zip(requests).map(|(connection, request)| async move {
        let mut connection = connection.unwrap();
        let (mut answer, mut count) = ([0; 1024], 0_u32);
        while start.elapsed() < time {
            connection.write_all(request.as_bytes()).await.unwrap();
            let length = connection.read(&mut answer).await.unwrap();
            assert!(answer[..length].starts_with(b"HTTP/1.1 200 ") && answer[..length].ends_with(b"hello"));
            count += 1;
        }
        f64::from(count)
    }));
    counts.await.iter().sum::<f64>() / start.elapsed().as_secs_f64()
}

const CONNECTIONS: usize = 32;
