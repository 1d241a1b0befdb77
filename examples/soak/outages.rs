//! A Crossmint that hangs.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, Response, StatusCode, header::COOKIE},
};
use tokio::time::{Instant, sleep};
use tower::{ServiceBuilder, ServiceExt as _, limit::ConcurrencyLimitLayer, service_fn};
use tower_crossmint_auth::{CrossmintAuthLayer, testing::Endpoint};

use crate::{
    Scale,
    browser::Browser,
    load::{Latencies, open_loop},
    report::{
        Check,
        Mark::{AtMost, Exactly},
    },
    stage::{Stage, Valid, fetch, http1},
};

/// L3: neither keys nor refreshes are answered.
pub(crate) async fn hung_upstream(scale: &Scale) -> (String, Vec<Check>) {
    let (valid, expired, seconds) = scale.pick((200, 100, 5), (2_000, 500, 30));
    let mut stage = Stage::warm(|config| config).await;
    let address = stage.listen().await;
    stage.mock.set_reuse_grace(Duration::from_secs(60));
    let browsers: Arc<Vec<Browser>> = Arc::new(stage.expired_browsers(expired * (seconds as usize + 1)));
    let (alone, loaded) = (Arc::new(Latencies::new()), Arc::new(Latencies::new()));
    let requests = Valid::new(&stage, address, valid);

    let quiet = Duration::from_secs(scale.pick(1, 3));
    requests.send(quiet, &alone).await;
    let holds = [stage.mock.hold(Endpoint::Keys), stage.mock.hold(Endpoint::Refresh)];
    let (start, time) = (Instant::now(), Duration::from_secs(seconds));
    let (early, late) = (Arc::new(Latencies::new()), Arc::new(Latencies::new()));
    let [unavailable, ended, last] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let client = http1();
    let outage = open_loop(expired, time, |number| {
        let (client, browsers, last) = (client.clone(), Arc::clone(&browsers), Arc::clone(&last));
        let (unavailable, ended) = (Arc::clone(&unavailable), Arc::clone(&ended));
        let latencies = Arc::clone(if start.elapsed() < first_second(expired) { &early } else { &late });
        async move {
            let (browser, sent) = (&browsers[number], Instant::now());
            let (status, headers) = fetch(&client, address, &browser.cookies()).await.expect("the server is up");
            latencies.record(sent.elapsed());
            last.fetch_max(number, Ordering::Relaxed);
            unavailable.fetch_add(usize::from(status == StatusCode::SERVICE_UNAVAILABLE), Ordering::Relaxed);
            ended.fetch_add(usize::from(browser.receive(status, &headers)), Ordering::Relaxed);
        }
    });
    let release = async {
        let in_flight = most_in_flight(&stage, time).await;
        drop(holds);
        (in_flight, recovery(&stage).await)
    };
    let ((in_flight, recovery), (), ()) = tokio::join!(release, outage, requests.send(time, &loaded));
    requests.send(quiet, &alone).await;

    // Those whose tokens were sent, and some of the others.
    let sent = last.load(Ordering::Relaxed) + 1;
    let sample = browsers[..sent].iter().enumerate().filter(|(number, _)| *number < 200 || number % 20 == 0);
    let lost = stage.lost(sample.map(|(_, browser)| browser)).await;
    let checks = vec![
        Check::note(format!("{sent} expired, {} times 503", unavailable.load(Ordering::Relaxed))),
        Check::count("refreshes in flight", in_flight, AtMost(PLACES)),
        Check::count("valid requests that fail", requests.failures(), Exactly(0)),
        Check::count("answers that end a session", ended.load(Ordering::Relaxed), Exactly(0)),
        Check::count("lost sessions afterwards", lost, Exactly(0)),
        Check::note(format!("expired, until 1 s after C is full: p50 {:.1?}, p99 {:.1?}", early.p50(), early.p99())),
        Check::time("expired, from then on: p99", late.p99(), Duration::from_millis(5)),
        Check::p99_ratio("valid, against alone", loaded.p99(), alone.p99(), 1.1),
        Check::time("recovery after the end", recovery, Duration::from_secs(1)),
    ];
    (format!("Crossmint hangs for {seconds} s: {valid}/s valid, {expired}/s expired"), checks)
}

/// The time until all places are taken, and one second.
fn first_second(expired: usize) -> Duration {
    Duration::from_secs(1)
        + Duration::from_secs(1) * u32::try_from(PLACES).unwrap_or(u32::MAX) / u32::try_from(expired).unwrap_or(1)
}

/// Counts the calls of the last twelve seconds: each is under way for 12.5 s, the layer's time limit and a quarter.
async fn most_in_flight(stage: &Stage, time: Duration) -> usize {
    let (start, mut most, mut past) = (Instant::now(), 0, VecDeque::from([(Instant::now(), 0)]));
    while start.elapsed() < time {
        sleep(Duration::from_millis(50)).await;
        let calls = stage.mock.calls(Endpoint::Refresh);
        past.push_back((Instant::now(), calls));
        while past.front().is_some_and(|(at, _)| at.elapsed() > Duration::from_secs(12)) {
            past.pop_front();
        }
        most = most.max(calls - past.front().map_or(0, |(_, calls)| *calls));
    }
    most
}

/// Measures how long it takes until an expired session is refreshed.
async fn recovery(stage: &Stage) -> Duration {
    let start = Instant::now();
    for browser in stage.expired_browsers(1_000) {
        if stage.knows(&browser).await {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}

/// L3b: the same before a service that takes one request at a time.
pub(crate) async fn hung_upstream_before_a_narrow_service(scale: &Scale) -> (String, Vec<Check>) {
    let requests = scale.pick(500, 5_000);
    let stage = Stage::warm(|config| config).await;
    let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let service = ServiceBuilder::new()
        .layer(CrossmintAuthLayer::from(stage.auth.clone()))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(inner);
    let call = |browser: &Browser| {
        let request = Request::get("/").header(COOKIE, browser.cookies()).body(Body::empty());
        let answer = service.clone().oneshot(request.expect("the request is sound"));
        async move { answer.await.unwrap_or_else(|never| match never {}).status() }
    };

    let hold = stage.mock.hold(Endpoint::Refresh);
    let waiting: Vec<_> = stage.expired_browsers(EXPIRED).iter().map(|browser| tokio::spawn(call(browser))).collect();
    stage.mock.called(Endpoint::Refresh, EXPIRED).await;
    let alice = Browser::with(&stage.mock.sign_in("alice"));
    let mut passed = 0;
    for _ in 0..requests {
        passed += usize::from(call(&alice).await == StatusCode::OK);
    }
    let still_waiting = waiting.iter().filter(|request| !request.is_finished()).count();
    drop(hold);
    let mut refreshed = 0;
    for request in waiting {
        refreshed += usize::from(request.await.expect("the request is not cancelled") == StatusCode::OK);
    }
    let checks = vec![
        Check::count("valid requests that pass", passed, Exactly(requests)),
        Check::count("expired ones that wait meanwhile", still_waiting, Exactly(EXPIRED)),
        Check::count("of them refreshed afterwards", refreshed, Exactly(EXPIRED)),
    ];
    (format!("Crossmint hangs before ConcurrencyLimit(1): {EXPIRED} expired wait, {requests} valid follow"), checks)
}

const PLACES: usize = 128;
const EXPIRED: usize = 100;
