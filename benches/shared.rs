//! What sharing refreshes through a store adds to a refresh. Needs `redis-server` and `redis-cli`.
//!
//! See `benches/README.md`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join;
use tower_crossmint_auth::{CrossmintAuth, RedisRenewals, testing::MockCrossmint};

fn main() {
    // `cargo test --benches` only wants to know that it works.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { 1_000 } else { 10 };
    let Some(store) = Store::start() else {
        return eprintln!("redis-server is not installed: there is nothing to measure");
    };
    tokio::runtime::Runtime::new().unwrap().block_on(measure(rounds, store));
}

async fn measure(rounds: usize, mut store: Store) {
    let mock = MockCrossmint::start().await;
    let shared = || mock.config().share_renewals(RedisRenewals::new(store.url()).unwrap());
    let alone = CrossmintAuth::new(mock.config().build().unwrap());
    let [leader, follower] = [shared(), shared()].map(|config| CrossmintAuth::new(config.build().unwrap()));
    for auth in [&alone, &leader, &follower] {
        auth.warm_up().await.unwrap();
    }
    let token = || mock.session("alice").jwt_lifetime(-60).create().refresh_token().to_owned();
    let mut rows = ["alone", "leader", "follower, after its leader", "latecomer"].map(|name| (name, Vec::new()));
    for _ in 0..rounds {
        rows[0].1.push(timed(&alone, &token()).await);
        rows[1].1.push(timed(&leader, &token()).await);
        let token = token();
        let (one, other) = join(timed(&leader, &token), timed(&follower, &token)).await;
        // Whichever was first has led.
        rows[2].1.push(one.abs_diff(other));
        rows[3].1.push(timed(&follower, &token).await);
    }
    for (name, times) in &mut rows {
        println!("{name}: {}", quantiles(times));
    }
    let tokens: Vec<String> = (0..rounds).map(|_| token()).collect();
    for (auth, name) in [(&leader, "leader"), (&follower, "latecomer")] {
        let before = store.scripts();
        for token in &tokens {
            auth.refresh(token).await.unwrap();
        }
        // The last of them is sent in the background.
        tokio::time::sleep(Duration::from_millis(100)).await;
        println!("scripts of a {name}: {:.2}", (store.scripts() - before) as f64 / rounds as f64);
    }
    println!("bytes of a record: {}", store.bytes_of_a_record());

    // Both give up in turns, so that the machine's own variation meets both.
    let mut rows = ["alone", "with a dead store"].map(|name| (name, Vec::new()));
    store.0.kill().unwrap();
    store.0.wait().unwrap();
    for _ in 0..rounds {
        rows[0].1.push(timed(&alone, &token()).await);
        rows[1].1.push(timed(&leader, &token()).await);
    }
    for (name, times) in &mut rows {
        println!("{name}: {}", quantiles(times));
    }
}

async fn timed(auth: &CrossmintAuth, token: &str) -> Duration {
    let start = Instant::now();
    auth.refresh(token).await.unwrap();
    start.elapsed()
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort();
    let [p50, p99] = [50, 99].map(|percent| times[times.len() * percent / 100].as_micros());
    format!("p50 {p50} us, p99 {p99} us")
}

/// A server of its own, which ends with the bench.
struct Store(Child, u16);

impl Store {
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let arguments = ["--port", &port.to_string(), "--save", "", "--appendonly", "no"];
        let child = Command::new("redis-server").args(arguments).stdout(Stdio::null()).spawn().ok()?;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            thread::sleep(Duration::from_millis(10));
        }
        Some(Self(child, port))
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.1)
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.1.to_string()]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns how many scripts have run.
    fn scripts(&self) -> u64 {
        let stats = self.ask(&["INFO", "commandstats"]);
        let calls = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        calls.map(|line| line.split(',').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Returns the size of the largest of a hundred records: some have no answer.
    fn bytes_of_a_record(&self) -> u64 {
        let keys = self.ask(&["--scan"]);
        let records = keys.lines().filter(|key| !key.ends_with("revoked")).take(100);
        records.map(|key| self.ask(&["MEMORY", "USAGE", key, "SAMPLES", "0"]).trim().parse().unwrap()).max().unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
