//! Refreshes, and the requests that wait for them or run beside them.

use std::{
    array,
    fmt::Debug,
    fs, slice,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use futures_util::{
    StreamExt,
    future::{join_all, ready},
    stream,
};
use http::{HeaderValue, Request, Response, StatusCode};
use serde_json::json;
use tokio::{runtime, task::JoinSet};
use tower::{Layer, Service, ServiceExt};
use tower_crossmint_auth::{CrossmintAuthService, testing::Endpoint};

use crate::{
    baseline::bare,
    case::Case,
    plain::{calls, request},
    stage::Stage,
};

/// A refresh: the call alone, the same through the layer, and fifty-one at once that join.
pub(crate) fn refreshes(stage: &Stage) -> Vec<Case<'_>> {
    let expired = |_| stage.mock.session("bob").jwt_lifetime(-60).create();
    let app = stage.layer(|config| config).layer(bare());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/api/2024-09-26/session/sdk/auth/refresh", stage.mock.base_url());
    // One thread for either side: what the layer takes, and not how long a sleeping thread takes to wake up.
    let one_thread = Arc::new(runtime::Builder::new_current_thread().enable_all().build().unwrap());
    let direct = {
        let one_thread = Arc::clone(&one_thread);
        move |rounds| {
            let all: Vec<_> = (0..=rounds).map(expired).collect();
            one_thread.block_on(async {
                let mut start = Instant::now();
                for (round, session) in all.into_iter().enumerate() {
                    // What ran before has left other things in the processor's caches.
                    if round == 1 {
                        start = Instant::now();
                    }
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
            let cookies = (0..=rounds).map(expired).map(|session| session.cookie_header().parse().unwrap());
            let cookies: Vec<HeaderValue> = cookies.collect();
            one_thread.block_on(async {
                let mut start = Instant::now();
                for (round, cookie) in cookies.into_iter().enumerate() {
                    if round == 1 {
                        start = Instant::now();
                    }
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
        Case::new("refresh joined by 50", 3, at_once(51)),
    ]
}

/// The time that a thread spends on a processor while it serves so many requests at once: without the layer, and with
/// it while they wait for one refresh.
pub(crate) fn waiters(stage: &Stage) -> [Duration; 2] {
    // Sessions that are known, and have expired since.
    let app = stage.layer(|config| config.leeway(Duration::ZERO)).layer(bare());
    let short = || stage.mock.session("bob").jwt_lifetime(2).create().cookie_header().parse().unwrap();
    let known: [HeaderValue; 6] = array::from_fn(|_| short());
    known.iter().for_each(|cookie| calls(app.clone(), slice::from_ref(cookie), StatusCode::OK)());
    thread::sleep(Duration::from_secs(3));
    // The first of all takes the memory from the system.
    let mut all: Vec<_> = known.iter().map(|cookie| wait(stage, app.clone(), cookie)).skip(1).collect();
    all.sort_by_key(|[alone, waiting]| waiting.saturating_sub(*alone));
    all[all.len() / 2]
}

fn wait(stage: &Stage, app: CrossmintAuthService<Router>, cookie: &HeaderValue) -> [Duration; 2] {
    async fn serve<S, B>(app: S, requests: Vec<Request<Body>>, meanwhile: impl Future<Output = ()>)
    where
        S: Service<Request<Body>, Response = Response<B>, Future: Send, Error: Debug + Send> + Clone + Send,
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
pub(crate) fn beside_replays(stage: &Stage) -> [Duration; 2] {
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

const WAITERS: usize = 10_000;
const REPLAYING_CLIENTS: usize = 50;
const REFRESHES_PER_TURN: usize = 100;
