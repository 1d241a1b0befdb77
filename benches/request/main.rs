//! What the layer adds to a request, beside what it is compared with; ends with the ratios.
//!
//! See `benches/README.md`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

mod baseline;
#[path = "../browser/mod.rs"]
mod browser;
mod case;
mod plain;
mod refreshes;
mod routed;
#[path = "../stage/mod.rs"]
mod stage;
mod table;

use std::{iter, thread, time::Duration};

use criterion::Criterion;
use http::HeaderValue;

use crate::{case::Turns, stage::Stage};

fn main() {
    let stage = Stage::new();
    // `cargo test --benches` only wants to know that it works.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let users = users(&stage, if is_bench { 100_000 } else { 1_000 });
    let refresh = users[0].to_str().unwrap().split("; ").last().unwrap().to_owned();
    let odd = ["theme=dark".to_owned(), format!("{refresh}; {refresh}x")].map(|cookie| cookie.parse().unwrap());
    let by_jwt = users_by_jwt(&stage);
    let large = plain::large_cookies(&users[0]);
    let all = plain::layer_of_all(&stage, &users);
    let mut cases = plain::requests(&stage, &users, &odd);
    cases.extend(plain::sizes(&stage, &large));
    cases.extend(plain::sessions(&all, &users));
    cases.extend(plain::threads(&stage, &users[..100]));
    cases.extend(refreshes::refreshes(&stage));

    let (warm_up, time) = (Duration::from_millis(200), Duration::from_secs(1));
    let mut criterion =
        Criterion::default().warm_up_time(warm_up).measurement_time(time).without_plots().configure_from_args();
    let mut group = criterion.benchmark_group("request");
    for case in &mut cases {
        group.sample_size(20).bench_function(case.name.as_str(), |bencher| bencher.iter_custom(&mut case.run));
    }
    group.finish();
    criterion.final_summary();

    cases.extend(routed::known(&stage, &by_jwt));
    cases.extend(routed::new(&stage, &users[..400]));
    cases.extend(routed::sessions(&all, &users));
    cases.extend(routed::threads(&stage, &users[..100]));
    let turns = Turns::take(&mut cases, if is_bench { 200 } else { 1 });
    if is_bench {
        table::print(&turns, refreshes::waiters(&stage), refreshes::beside_replays(&stage));
        assert_eq!(stage.mock.reuse_detections(), 0);
    }
}

/// Signs so many users in, on two threads: every one is a signature.
fn users(stage: &Stage, count: usize) -> Vec<HeaderValue> {
    let half = || iter::repeat_with(|| stage.cookie()).take(count / 2).collect();
    thread::scope(|scope| {
        let other = scope.spawn(half);
        let mut all: Vec<_> = half();
        all.extend(other.join().unwrap());
        all
    })
}

/// Signs a user in with a JWT of about each length.
fn users_by_jwt(stage: &Stage) -> Vec<(usize, HeaderValue)> {
    let user = |jwt: usize| {
        // The stage's JWTs have about 752 characters with 65 of `email`. Base64 makes four of three.
        let email = "x".repeat(65 + (jwt - 752) * 3 / 4);
        let session = stage.mock.session("0e8400e2-9b41-4d4a-8716-446655440000").claim("email", email).create();
        (jwt, session.cookie_header().parse().unwrap())
    };
    JWTS.map(user).to_vec()
}

const JWTS: [usize; 2] = [752, 1_400];
const SESSIONS: [usize; 3] = [10, 1_000, 100_000];
