//! Floods by anonymous clients: tokens with unknown keys, streams that are reset, bodies that do not end.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::{Request, StatusCode, header::COOKIE};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tower_crossmint_auth::testing::{Endpoint, Fault};

use crate::{
    Scale,
    browser::{Browser, JWT, REFRESH},
    load::{Latencies, Random, open_files, open_files_limit, resident_kib, steady},
    report::{
        Check,
        Mark::{AtMost, Exactly},
    },
    stage::{Stage, Valid, call},
};

/// L2: JWTs whose `kid` is in no key set, beside valid sessions. A quiet second goes before every five of flood.
pub(crate) async fn unknown_keys(scale: &Scale) -> (String, Vec<Check>) {
    let (flood, valid, rounds) = scale.pick((1_000, 200, 1), (10_000, 1_000, 10));
    let stage = Stage::warm(|config| config).await;
    let browser = Browser::with(&stage.mock.sign_in("alice"));
    let forgery = Arc::new(Forgery::of(stage.mock.sign_in("alice").jwt()));
    let (alone, loaded) = (Arc::new(Latencies::new()), Arc::new(Latencies::new()));
    let failures = Arc::new(AtomicUsize::new(0));
    let measured = |latencies: &Arc<Latencies>, seconds| {
        let (app, cookies, failures) = (stage.app.clone(), browser.cookies(), Arc::clone(&failures));
        let latencies = Arc::clone(latencies);
        steady(valid, Duration::from_secs(seconds), move |_| {
            let (app, cookies, failures) = (app.clone(), cookies.clone(), Arc::clone(&failures));
            let latencies = Arc::clone(&latencies);
            async move {
                let start = Instant::now();
                let (status, _) = call(&app, &cookies).await;
                latencies.record(start.elapsed());
                failures.fetch_add(usize::from(status != StatusCode::OK), Ordering::Relaxed);
            }
        })
    };
    let sent = Arc::new(AtomicUsize::new(0));
    let mut resident = None;
    for _ in 0..rounds {
        measured(&alone, 1).await;
        let flooding = {
            let (app, forgery, sent) = (stage.app.clone(), Arc::clone(&forgery), Arc::clone(&sent));
            steady(flood, Duration::from_secs(FLOOD), move |_| {
                let (app, forgery, number) = (app.clone(), Arc::clone(&forgery), sent.fetch_add(1, Ordering::Relaxed));
                async move {
                    let (status, _) = call(&app, &forgery.cookies(number)).await;
                    assert_ne!(status, StatusCode::OK, "a forgery is let in");
                }
            })
        };
        tokio::join!(flooding, measured(&loaded, FLOOD));
        resident.get_or_insert_with(resident_kib);
    }
    let growth = resident_kib().saturating_sub(resident.unwrap_or_default());

    let seconds = rounds * (1 + usize::try_from(FLOOD).expect("a few seconds"));
    let checks = vec![
        Check::note(format!("{} forgeries", sent.load(Ordering::Relaxed))),
        Check::count("key set loads", stage.mock.calls(Endpoint::Keys), AtMost(1 + seconds.div_ceil(30))),
        Check::count("refreshes (one made-up token)", stage.mock.calls(Endpoint::Refresh), AtMost(1 + seconds / 30)),
        Check::count("valid requests that fail", failures.load(Ordering::Relaxed), Exactly(0)),
        Check::count("growth after the first round, KiB", growth, AtMost(1024)),
        Check::p99_ratio("valid, against alone", loaded.p99(), alone.p99(), 1.1),
    ];
    (format!("{flood}/s unknown keys for {} s, {valid}/s valid", rounds as u64 * FLOOD), checks)
}

/// A JWT that was signed, and is to be sent with other headers.
struct Forgery {
    rest: String,
}

impl Forgery {
    fn of(jwt: &str) -> Self {
        let (_, rest) = jwt.split_once('.').expect("a JWT has dots");
        Self { rest: rest.to_owned() }
    }

    fn cookies(&self, number: usize) -> String {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"RS256","kid":"unknown-{number}"}}"#));
        format!("{JWT}={header}.{}; {REFRESH}=made-up", self.rest)
    }
}

/// L4: HTTP/2 streams that are reset at once, each with a refresh token of its own.
pub(crate) async fn rapid_resets(scale: &Scale) -> (String, Vec<Check>) {
    let (rate, valid, seconds) = scale.pick((500, 50, 3), (5_000, 200, 30));
    let mut stage = Stage::warm(|config| config).await;
    let address = stage.listen().await;
    stage.mock.inject(Endpoint::Refresh, Fault::Delay(LATENCY));
    let (alone, loaded) = (Arc::new(Latencies::new()), Arc::new(Latencies::new()));
    let requests = Valid::new(&stage, address, valid);

    let attack = |cookie, seconds| {
        let (mut attackers, resets) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for attacker in 0..ATTACKERS {
            let (time, resets) = (Duration::from_secs(seconds), Arc::clone(&resets));
            attackers.spawn(reset_streams(cookie, attacker, address, rate / ATTACKERS, time, resets));
        }
        (attackers, resets)
    };
    let shorter = 1 + seconds / 4;
    let (attackers, _) = attack("unrelated", shorter);
    requests.send(Duration::from_secs(shorter), &alone).await;
    attackers.join_all().await;

    let (time, (attackers, resets)) = (Duration::from_secs(seconds), attack(REFRESH, seconds));
    let before = resident_kib();
    let (growth, in_flight, ()) = tokio::join!(
        async {
            sleep(time / 4).await;
            let before = resident_kib();
            sleep(time * 3 / 4).await;
            resident_kib().saturating_sub(before)
        },
        most_in_flight(&stage, time),
        requests.send(Duration::from_secs(seconds), &loaded),
    );
    attackers.join_all().await;
    stage.auth.wait_idle().await;

    let refreshes = stage.mock.calls(Endpoint::Refresh);
    let most = usize::try_from(seconds).expect("a few seconds") * PLACES * 10 + WAITING;
    let resets = resets.load(Ordering::Relaxed);
    let all = resident_kib().saturating_sub(before);
    let checks = vec![
        Check::note(format!("{resets} streams, {} refreshes/s, {all} KiB more in all", refreshes / seconds as usize)),
        Check::count("refreshes in flight", in_flight, AtMost(PLACES)),
        Check::count("refreshes (C / latency, and the line)", refreshes, AtMost(most)),
        Check::count("growth after the first quarter, KiB", growth, AtMost(16 << 10)),
        Check::count("valid requests that fail", requests.failures(), Exactly(0)),
        Check::p99_ratio("valid, against the same streams without tokens", loaded.p99(), alone.p99(), 1.2),
    ];
    (format!("{rate}/s streams reset within 3 ms for {seconds} s, made-up tokens, Crossmint takes 100 ms"), checks)
}

async fn reset_streams(
    cookie: &'static str,
    attacker: usize,
    address: SocketAddr,
    rate: usize,
    time: Duration,
    resets: Arc<AtomicUsize>,
) {
    let (start, mut random, mut sent) = (Instant::now(), Random::new(4_000 + attacker), 0);
    let (mut ticks, mut streams) = (interval(Duration::from_millis(5)), JoinSet::new());
    let mut connection = connect(address).await;
    while start.elapsed() < time {
        ticks.tick().await;
        while sent < rate * start.elapsed().as_millis() as usize / 1000 {
            sent += 1;
            // The server ends connections with too many resets.
            if connection.ready().await.is_err() {
                connection = connect(address).await;
                continue;
            }
            let request = Request::get(format!("http://{address}/"))
                .header(COOKIE, format!("{cookie}=made-up-{attacker}-{sent}"))
                .body(Empty::new())
                .expect("the request is sound");
            let (answer, patience) = (connection.send_request(request), random.millis(0, 4));
            let resets = Arc::clone(&resets);
            streams.spawn(async move {
                resets.fetch_add(usize::from(timeout(patience, answer).await.is_err()), Ordering::Relaxed);
            });
        }
        while streams.try_join_next().is_some() {}
    }
    streams.join_all().await;
}

async fn connect(address: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("the server accepts");
    let (sender, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

/// Counts the calls within less than the latency: none of them can have been answered.
async fn most_in_flight(stage: &Stage, time: Duration) -> usize {
    let (start, mut most) = (Instant::now(), 0);
    while start.elapsed() < time {
        let (from, calls) = (Instant::now(), stage.mock.calls(Endpoint::Refresh));
        sleep(LATENCY * 9 / 10).await;
        let calls = stage.mock.calls(Endpoint::Refresh) - calls;
        if from.elapsed() < LATENCY {
            most = most.max(calls);
        }
    }
    most
}

/// L5: bodies on the refresh route that come a byte a second, and never end.
pub(crate) async fn slow_bodies(scale: &Scale) -> (String, Vec<Check>) {
    let (wanted, valid) = scale.pick((500, 50), (5_000, 200));
    let connections = wanted.min(open_files_limit().saturating_sub(open_files() + 200) / 2);
    let mut stage = Stage::warm(|config| config).await;
    let address = stage.listen().await;
    let (alone, loaded) = (Arc::new(Latencies::new()), Arc::new(Latencies::new()));
    let requests = Valid::new(&stage, address, valid);

    requests.send(Duration::from_secs(2), &alone).await;
    let before = resident_kib();
    let closed = Arc::new(Latencies::new());
    let mut slow = JoinSet::new();
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address).await.expect("the server accepts");
        let closed = Arc::clone(&closed);
        slow.spawn(async move {
            let start = Instant::now();
            dribble(&mut stream).await;
            closed.record(start.elapsed());
        });
    }
    requests.send(Duration::from_secs(3), &loaded).await;
    let memory = resident_kib().saturating_sub(before);
    slow.join_all().await;

    let checks = vec![
        Check::count("connections that were closed", closed.count(), Exactly(connections as u64)),
        Check::count("KiB for each, the client's end included", memory / connections.max(1) as u64, AtMost(32)),
        Check::count("refreshes", stage.mock.calls(Endpoint::Refresh), Exactly(0)),
        Check::count("valid requests that fail", requests.failures(), Exactly(0)),
        Check::time("closed after, p99", closed.p99(), Duration::from_secs(6)),
        Check::p99_ratio("valid, against alone", loaded.p99(), alone.p99(), 1.2),
    ];
    (format!("{connections} connections that send a refresh body a byte a second, {valid}/s valid"), checks)
}

/// Sends a body a byte a second, until the server hangs up.
async fn dribble(stream: &mut TcpStream) {
    let head = "POST /api/auth/refresh HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let mut answer = [0; 1024];
    loop {
        match timeout(Duration::from_secs(1), stream.read(&mut answer)).await {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(_)) => {}
            // A reset shows at the next read.
            Err(_) => drop(stream.write_all(b" ").await),
        }
    }
}

const FLOOD: u64 = 5;
const ATTACKERS: usize = 4;
const LATENCY: Duration = Duration::from_millis(100);
const PLACES: usize = 128;
const WAITING: usize = 9 * PLACES;
