//! What the layer adds to a request, beside what it is compared with; ends with the ratios.
//!
//! See `benches/README.md`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on should panic")]

mod stage;

use std::{
    collections::HashMap,
    fs,
    hint::black_box,
    iter,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use axum::{Router, body::Body, middleware, routing::get};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use criterion::Criterion;
use futures_util::{
    FutureExt, StreamExt,
    future::{join_all, ready},
    stream,
};
use http::{HeaderValue, Request, Response, StatusCode, header::COOKIE};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tokio::{runtime, task::JoinSet};
use tower::{Layer, Service, ServiceExt};
use tower_crossmint_auth::{CrossmintAuthService, testing::Endpoint};

use crate::stage::Stage;

/// Something to be timed, alone by criterion and in turns with all others for the ratios.
struct Case<'a> {
    name: String,
    /// How often it runs in each turn.
    rounds: u64,
    /// Runs so many rounds and tells how long they took, without what they needed to be set up.
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
}

impl<'a> Case<'a> {
    fn new(name: impl Into<String>, rounds: u64, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        Self { name: name.into(), rounds, run: Box::new(run) }
    }

    fn of(name: impl Into<String>, rounds: u64, mut once: impl FnMut() + 'a) -> Self {
        Self::new(name, rounds, move |rounds| time(rounds, &mut once))
    }
}

fn time(rounds: u64, mut once: impl FnMut()) -> Duration {
    // What ran before has left other things in the processor's caches.
    (0..rounds.min(100)).for_each(|_| once());
    let start = Instant::now();
    (0..rounds).for_each(|_| once());
    start.elapsed()
}

fn bare() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

fn request(cookie: HeaderValue) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(COOKIE, cookie);
    request
}

/// Calls a service that answers at once with one cookie after the other, in an order that no prefetcher guesses. Each
/// is copied, as a server copies it from its connection.
fn calls<S, B>(mut service: S, cookies: &[HeaderValue], status: StatusCode) -> impl FnMut() + use<'_, S, B>
where
    S: Service<Request<Body>, Response = Response<B>, Error: std::fmt::Debug>,
{
    let mut next = 0;
    move || {
        next = (next + 7_919) % cookies.len();
        let cookie = HeaderValue::from_bytes(cookies[next].as_bytes()).unwrap();
        assert_eq!(service.call(request(cookie)).now_or_never().unwrap().unwrap().status(), status);
    }
}

/// The least that a new JWT can take: its verification, and then the bare service, with whatever the verification has
/// left in the processor's caches.
fn after(limit: impl Fn(), mut call: impl FnMut()) -> impl FnMut() {
    move || {
        limit();
        call();
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

/// A bare verification: the key has been parsed, the signature decoded.
fn limit(stage: &Stage) -> impl Fn() + use<> {
    let session = stage.session();
    let (message, signature) = session.jwt().rsplit_once('.').unwrap();
    let (message, signature) = (message.to_owned(), URL_SAFE_NO_PAD.decode(signature).unwrap());
    let [n, e] = key(stage).map(|integer| URL_SAFE_NO_PAD.decode(integer).unwrap());
    let key: ParsedPublicKey =
        RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).unwrap();
    move || key.verify_sig(black_box(message.as_bytes()), black_box(&signature)).unwrap()
}

fn key(stage: &Stage) -> [String; 2] {
    let key = &stage.mock.key_set()["keys"][0];
    ["n", "e"].map(|name| key[name].as_str().unwrap().to_owned())
}

/// What one writes without this crate.
fn by_hand(stage: &Stage) -> impl Service<Request<Body>, Response = Response<Body>, Error: std::fmt::Debug> + use<> {
    let [n, e] = key(stage);
    let key = Arc::new(DecodingKey::from_rsa_components(&n, &e).unwrap());
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[stage.mock.project_id()]);
    let validation = Arc::new(validation);
    let name = format!("crossmint-jwt-{}", stage.mock.project_id());
    let check = middleware::from_fn(move |mut request: axum::extract::Request, next: middleware::Next| {
        let (key, validation, name) = (Arc::clone(&key), Arc::clone(&validation), name.clone());
        async move {
            let header = request.headers().get(COOKIE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let jwt =
                header.split("; ").find_map(|pair| pair.strip_prefix(&name)?.strip_prefix('=')).unwrap_or_default();
            match jsonwebtoken::decode::<Value>(jwt, &key, &validation) {
                Ok(token) => {
                    request.extensions_mut().insert(Arc::new(token.claims));
                    Ok(next.run(request).await)
                }
                Err(_) => Err(StatusCode::UNAUTHORIZED),
            }
        }
    });
    check.layer(bare()).map_response(|response| response.map(Body::new))
}

fn requests<'a>(stage: &'a Stage, users: &'a [HeaderValue], odd: &'a [HeaderValue; 2]) -> Vec<Case<'a>> {
    let layer = stage.layer(|config| config);
    // More tokens than a cache has room for, one after the other: each is a stranger when it comes again.
    let forgetful = stage.layer(|config| config.token_cache_bytes(128 << 10));
    let (one, strangers, crowd, ok) = (&users[..1], &users[..400], &users[..users.len().min(25_000)], StatusCode::OK);
    let [nobody, two] = odd.each_ref().map(std::slice::from_ref);
    vec![
        Case::of("bare", 500, calls(bare(), one, ok)),
        Case::of("limit", 25, limit(stage)),
        Case::of("by_hand", 25, calls(by_hand(stage), one, ok)),
        Case::of("warm", 500, calls(layer.layer(bare()), one, ok)),
        Case::of("cold", 25, calls(forgetful.layer(bare()), strangers, ok)),
        Case::of("cold floor", 25, after(limit(stage), calls(bare(), strangers, ok))),
        Case::of("crowd", 25, calls(layer.layer(bare()), crowd, ok)),
        Case::of("crowd floor", 25, after(limit(stage), calls(bare(), crowd, ok))),
        Case::of("anonymous", 100, calls(layer.layer(bare()), nobody, StatusCode::UNAUTHORIZED)),
        Case::of("refused", 100, calls(layer.layer(bare()), two, StatusCode::UNAUTHORIZED)),
    ]
}

fn sizes<'a>(stage: &Stage, cookies: &'a [(String, HeaderValue)]) -> Vec<Case<'a>> {
    let layer = stage.layer(|config| config);
    let pair = |(name, cookie): &'a (String, HeaderValue)| {
        let cookie = std::slice::from_ref(cookie);
        [
            Case::of(format!("{name} bare"), 50, calls(bare(), cookie, StatusCode::OK)),
            Case::of(name, 50, calls(layer.layer(bare()), cookie, StatusCode::OK)),
        ]
    };
    cookies.iter().flat_map(pair).collect()
}

fn large_cookies(user: &HeaderValue) -> Vec<(String, HeaderValue)> {
    let user = user.to_str().unwrap();
    let sizes = SIZES.map(|size| (size_of_header(size), format!("x={}; {user}", "y".repeat(size - user.len() - 4))));
    let counts = COUNTS
        .map(|count| (foreign_cookies(count), format!("{}{user}", "theme=dark; consent=yes; ".repeat(count / 2))));
    sizes.into_iter().chain(counts).map(|(name, cookie)| (name, cookie.parse().unwrap())).collect()
}

fn size_of_header(bytes: usize) -> String {
    format!("header of {bytes} bytes")
}

fn foreign_cookies(count: usize) -> String {
    format!("{count} foreign cookies")
}

fn sessions<'a>(stage: &Stage, users: &'a [HeaderValue]) -> Vec<Case<'a>> {
    let layer = stage.layer(|config| config.token_cache_bytes(256 << 20));
    // In another order than that of the calls below: what is asked for next is not to be found nearby.
    users.iter().for_each(|user| calls(layer.layer(bare()), std::slice::from_ref(user), StatusCode::OK)());
    let pair = |count: usize| {
        let users = &users[..count.min(users.len())];
        [
            Case::of(format!("{count} sessions bare"), 1_000, calls(bare(), users, StatusCode::OK)),
            Case::of(format!("{count} sessions"), 1_000, calls(layer.layer(bare()), users, StatusCode::OK)),
        ]
    };
    SESSIONS.into_iter().flat_map(pair).collect()
}

/// The same on one and on two threads. They share the layer, if any, and nothing else but what `own` has two of.
fn threads<'a>(stage: &'a Stage, users: &'a [HeaderValue]) -> Vec<Case<'a>> {
    fn on<'a, F: FnMut()>(threads: usize, name: &str, rounds: u64, case: impl Fn(usize) -> F + Sync + 'a) -> Case<'a> {
        Case::new(format!("{name} on {threads}"), rounds, move |rounds| {
            let ready = Barrier::new(threads);
            let run = |thread| {
                let mut once = case(thread);
                once();
                ready.wait();
                time(rounds, once)
            };
            thread::scope(|scope| {
                let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
                all.into_iter().map(|one| one.join().unwrap()).max().unwrap()
            })
        })
    }
    let layer = stage.layer(|config| config);
    let own = [stage.layer(|config| config), stage.layer(|config| config)];
    let ok = StatusCode::OK;
    [1, 2]
        .into_iter()
        .flat_map(|threads| {
            let (layer, own) = (layer.clone(), own.clone());
            [
                on(threads, "limit", 100, |_| limit(stage)),
                on(threads, "bare", 2_000, move |_| calls(bare(), users, ok)),
                on(threads, "a layer each", 2_000, move |thread| calls(own[thread].layer(bare()), users, ok)),
                on(threads, "one layer", 2_000, move |_| calls(layer.layer(bare()), users, ok)),
            ]
        })
        .collect()
}

/// A refresh: the call alone, the same through the layer, and fifty-one at once that join.
fn refreshes(stage: &Stage) -> Vec<Case<'_>> {
    let expired = |_| stage.mock.session("bob").jwt_lifetime(-60).create();
    let app = stage.layer(|config| config).layer(bare());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/api/2024-09-26/session/sdk/auth/refresh", stage.mock.base_url());
    // One thread for either side: what the layer takes, and not how long a sleeping thread takes to wake up.
    let one_thread = Arc::new(runtime::Builder::new_current_thread().enable_all().build().unwrap());
    let direct = {
        let one_thread = Arc::clone(&one_thread);
        move |rounds| {
            let all: Vec<_> = (0..rounds).map(expired).collect();
            one_thread.block_on(async {
                let start = Instant::now();
                for session in all {
                    let body = json!({"refresh": session.refresh_token()}).to_string();
                    let request = client.post(&url).header("x-api-key", stage.mock.api_key()).body(body);
                    let answer = request.header("content-type", "application/json").send().await.unwrap();
                    assert!(answer.status().is_success());
                    answer.bytes().await.unwrap();
                }
                start.elapsed()
            })
        }
    };
    let at_once = |count: usize| {
        let (app, one_thread) = (app.clone(), Arc::clone(&one_thread));
        move |rounds| {
            let cookies = (0..rounds).map(expired).map(|session| session.cookie_header().parse().unwrap());
            let cookies: Vec<HeaderValue> = cookies.collect();
            one_thread.block_on(async {
                let start = Instant::now();
                for cookie in cookies {
                    let answers = join_all((0..count).map(|_| app.clone().call(request(cookie.clone())))).await;
                    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
                }
                start.elapsed()
            })
        }
    };
    vec![
        Case::new("refresh by hand", 3, direct),
        Case::new("refresh", 3, at_once(1)),
        Case::new("refresh joined by 50", 1, at_once(51)),
    ]
}

/// The time that a thread spends on a processor while it serves so many requests at once: without the layer, and with
/// it while they wait for one refresh.
fn waiters(stage: &Stage, app: CrossmintAuthService<Router>, cookie: &HeaderValue) -> [Duration; 2] {
    async fn serve<S, B>(app: S, requests: Vec<Request<Body>>, meanwhile: impl Future<Output = ()>)
    where
        S: Service<Request<Body>, Response = Response<B>, Future: Send, Error: std::fmt::Debug + Send> + Clone + Send,
        S: 'static,
        B: Send + 'static,
    {
        let mut all: JoinSet<_> = requests.into_iter().map(|request| app.clone().oneshot(request)).collect();
        meanwhile.await;
        while let Some(answer) = all.join_next().await {
            assert_eq!(answer.unwrap().unwrap().status(), StatusCode::OK);
        }
    }
    fn busy(run: impl FnOnce()) -> Duration {
        let so_far = || {
            let schedule = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
            schedule.split(' ').next().and_then(|ran| ran.parse().ok()).map_or(Duration::ZERO, Duration::from_nanos)
        };
        let before = so_far();
        run();
        so_far() - before
    }
    let requests = || (0..WAITERS).map(|_| request(cookie.clone())).collect();
    let one_thread = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let alone = busy(|| one_thread.block_on(serve(bare(), requests(), ready(()))));
    let hold = stage.mock.hold(Endpoint::Refresh);
    let refresh_starts = async {
        stage.mock.called(Endpoint::Refresh, 1).await;
        hold.release();
    };
    [alone, busy(|| one_thread.block_on(serve(app, requests(), refresh_starts)))]
}

/// The median latencies of refreshes while 50 clients replay a token that was rotated once, and one rotated 300 times.
fn beside_replays(stage: &Stage) -> [Duration; 2] {
    let layer = stage.layer(|config| config.rotation_grace(Duration::from_secs(300)));
    let one_thread = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let replayed = [1, 300].map(|rotations| {
        let first = stage.session();
        one_thread.block_on(async {
            let mut token = first.refresh_token().to_owned();
            for _ in 0..rotations {
                token = layer.auth().refresh(&token).await.unwrap().refresh_token().secret().to_owned();
            }
        });
        let cookie = first.cookie_header();
        HeaderValue::from_str(cookie.split("; ").last().unwrap()).unwrap()
    });
    let app = layer.layer(bare());
    let mut latencies = [Vec::new(), Vec::new()];
    // In turns: both share the machine's good and bad moments.
    for turn in 0..20 {
        let of = turn % 2;
        latencies[of].extend(one_thread.block_on(async {
            let mut replays = JoinSet::new();
            for _ in 0..REPLAYING_CLIENTS {
                let (app, cookie) = (app.clone(), replayed[of].clone());
                replays.spawn(async move {
                    loop {
                        let answer = app.clone().oneshot(request(cookie.clone())).await.unwrap();
                        assert_eq!(answer.headers().get_all("set-cookie").iter().count(), 2);
                        tokio::task::yield_now().await;
                    }
                });
            }
            let refreshes = (0..REFRESHES_PER_TURN).map(|_| {
                let cookie = stage.mock.session("bob").jwt_lifetime(-60).create().cookie_header();
                let app = app.clone();
                async move {
                    let start = Instant::now();
                    let answer = app.oneshot(request(cookie.parse().unwrap())).await.unwrap();
                    assert_eq!(answer.status(), StatusCode::OK);
                    start.elapsed()
                }
            });
            stream::iter(refreshes).buffered(10).collect::<Vec<_>>().await
        }));
    }
    latencies.map(|mut all| {
        all.sort_unstable();
        all[all.len() / 2]
    })
}

/// The times of all cases in nanoseconds, turn by turn: they share the machine's good and bad moments.
struct Turns(HashMap<String, Vec<f64>>);

impl Turns {
    fn take(cases: &mut [Case<'_>], turns: usize) -> Self {
        let mut times: HashMap<String, Vec<f64>> = HashMap::new();
        for turn in 0..turns {
            for Case { name, rounds, run } in &mut *cases {
                times.entry(name.clone()).or_default().push(run(*rounds).as_nanos() as f64 / *rounds as f64);
            }
            // No case is to gain from what ran before it.
            if turn % 2 == 0 { cases.reverse() } else { cases.rotate_left(1) }
        }
        Self(times)
    }

    /// The median, over the turns, of something that is computed from the times of these cases.
    fn median<const N: usize>(&self, names: [&str; N], compute: impl Fn([f64; N]) -> f64) -> f64 {
        let times = names.map(|name| &self.0[name]);
        let mut all: Vec<f64> = (0..times[0].len()).map(|turn| compute(times.map(|times| times[turn]))).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }
}

fn print(turns: &Turns, waiters: [Duration; 2], replays: [Duration; 2]) {
    let row = |what: &str, found: String, mark: &str| println!("{what:<58} {found:>12} {mark:>14}");
    let time = |name: &str| turns.median([name], |[time]| time);
    let added = |name: &str, bare: &str| turns.median([name, bare], |[time, bare]| time - bare);
    let nanos = |time: f64| format!("{time:.0} ns");
    let micros = |time: f64| format!("{:.0} us", time / 1e3);
    row("\nmedians of turns in this run", "found".into(), "to be");
    row("bare inner service", nanos(time("bare")), "");
    row("limit: one RSA-2048 verification", nanos(time("limit")), "");
    row("by hand adds", nanos(added("by_hand", "bare")), "");
    row("warm adds", nanos(added("warm", "bare")), "");
    let share = turns.median(["limit", "warm", "bare"], |[limit, warm, bare]| limit / (warm - bare));
    row("  limit / that", format!("{share:.1}"), ">= 50");
    for (name, what, mark) in
        [("cold", "cold, beside a verification, adds", "<= 1.12"), ("crowd", "  where 16 MiB are full of others", "")]
    {
        let floor = format!("{name} floor");
        row(what, nanos(added(name, &floor)), "");
        let share = turns.median([name, &floor, "limit"], |[cold, floor, limit]| 1.0 + (cold - floor) / limit);
        row("  (limit + that) / limit", format!("{share:.3}"), mark);
    }
    for name in ["anonymous", "refused"] {
        row(&format!("{name}, instead of the inner service"), nanos(time(name)), "");
    }
    for (name, mark) in [("limit", ""), ("bare", ""), ("a layer each", ""), ("one layer", ">= 1.9")] {
        let gain = turns.median([&format!("{name} on 1"), &format!("{name} on 2")], |[one, two]| 2.0 * one / two);
        row(&format!("throughput of 2 threads / 1 thread: {name}"), format!("{gain:.2}"), mark);
    }
    let large = SIZES.map(size_of_header).into_iter().chain(COUNTS.map(foreign_cookies)).map(|name| (name, "linear"));
    for (name, mark) in large.chain(SESSIONS.map(|count| (format!("{count} sessions"), "flat"))) {
        row(&format!("warm adds, {name}"), nanos(added(&name, &format!("{name} bare"))), mark);
    }
    row("a refresh, beyond the call itself", micros(added("refresh", "refresh by hand")), "< 100 us");
    row("a refresh joined by 50", micros(time("refresh joined by 50")), "");
    let [once, often] = replays.map(|median| median.as_secs_f64() * 1e9);
    row("a refresh beside 50 replays of a token rotated once", micros(once), "");
    row("  where it was rotated 300 times, that many times", format!("{:.3}", often / once), "< 1.1");
    let [alone, waiting] = waiters.map(|time| if time.is_zero() { f64::NAN } else { time.as_secs_f64() * 1e3 });
    row("10000 requests, on a processor: bare", format!("{alone:.0} ms"), "");
    row("  waiting for one refresh, beyond that", format!("{:.0} ms", waiting - alone), "< 40 ms");
}

const SIZES: [usize; 3] = [1 << 10, 4 << 10, 16 << 10];
const COUNTS: [usize; 3] = [10, 100, 1_000];
const SESSIONS: [usize; 3] = [10, 1_000, 100_000];
const WAITERS: usize = 10_000;
const REPLAYING_CLIENTS: usize = 50;
const REFRESHES_PER_TURN: usize = 100;

fn main() {
    let stage = Stage::new();
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    // `cargo test --benches` only wants to know that it works.
    let users = users(&stage, if is_bench { 100_000 } else { 1_000 });
    let refresh = users[0].to_str().unwrap().split("; ").last().unwrap().to_owned();
    let odd = ["theme=dark".to_owned(), format!("{refresh}; {refresh}x")].map(|cookie| cookie.parse().unwrap());
    let large = large_cookies(&users[0]);
    let mut cases = requests(&stage, &users, &odd);
    cases.extend(sizes(&stage, &large));
    cases.extend(sessions(&stage, &users));
    cases.extend(threads(&stage, &users[..100]));
    cases.extend(refreshes(&stage));

    let (warm_up, time) = (Duration::from_millis(200), Duration::from_secs(1));
    let mut criterion =
        Criterion::default().warm_up_time(warm_up).measurement_time(time).without_plots().configure_from_args();
    let mut group = criterion.benchmark_group("request");
    for Case { name, run, .. } in &mut cases {
        group.sample_size(20).bench_function(name.as_str(), |bencher| bencher.iter_custom(&mut *run));
    }
    group.finish();
    criterion.final_summary();
    if is_bench {
        let turns = Turns::take(&mut cases, 200);
        // Sessions that are known, and have expired since.
        let app = stage.layer(|config| config.leeway(Duration::ZERO)).layer(bare());
        let short = || stage.mock.session("bob").jwt_lifetime(2).create().cookie_header().parse().unwrap();
        let known: [HeaderValue; 6] = std::array::from_fn(|_| short());
        known.iter().for_each(|cookie| calls(app.clone(), std::slice::from_ref(cookie), StatusCode::OK)());
        thread::sleep(Duration::from_secs(3));
        // The first of all takes the memory from the system.
        let mut all: Vec<_> = known.iter().map(|cookie| waiters(&stage, app.clone(), cookie)).skip(1).collect();
        all.sort_by_key(|[alone, waiting]| waiting.saturating_sub(*alone));
        print(&turns, all[all.len() / 2], beside_replays(&stage));
        assert_eq!(stage.mock.reuse_detections(), 0);
    }
}
