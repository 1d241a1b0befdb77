//! Many sessions and requests, while replicas and the store come and go.

use std::{
    env,
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, future::join_all, stream};
use tokio::{
    sync::RwLock,
    time::{Instant, sleep},
};
use tower_crossmint_auth::testing::{Endpoint, Fault, MockCrossmint, MockSession};

use crate::{
    proxy::Network,
    replica::{Answer, Options, Received, Replica},
    stage::{Stage, expired, options},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_sessions_is_sent_once_and_all_of_its_requests_get_one_successor() {
    let Some(stage) = Stage::new(3).await else { return };
    let (sent, count) = (stage.mock.calls(Endpoint::Refresh), sessions());
    assert_eq!(losses(&stage, count).await, 0);
    assert_eq!((stage.mock.calls(Endpoint::Refresh) - sent, stage.mock.reuse_detections()), (count, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_restarts_costs_no_session_afterwards_and_under_wait_only_those_in_flight() {
    for waits in [false, true] {
        let Some(stage) = Stage::configured(3, |_, _, options| Options { waits, ..options }).await else { return };
        let before = losses(&stage, sessions() / 5).await;
        let refreshed = stage.mock.calls(Endpoint::Refresh) + sessions() / 2;
        let outage = async {
            stage.mock.called(Endpoint::Refresh, refreshed).await;
            stage.store.kill().await;
            // An outage of a second.
            sleep(Duration::from_secs(1)).await;
            stage.store.restart().await;
        };
        let (meanwhile, ()) = tokio::join!(losses(&stage, sessions()), outage);
        for replica in &stage.replicas {
            assert_shares_again(&stage.mock, replica).await;
        }
        let after = losses(&stage, sessions() / 5).await;
        let counts = [("sessions", sessions()), ("before", before), ("meanwhile", meanwhile), ("after", after)];
        report(&format!("lost to a restart of the store, {}", if waits { "Wait" } else { "GoOn" }), &counts);
        assert_eq!((before, after), (0, 0), "waits: {waits}");
        assert!(!waits || meanwhile <= IN_FLIGHT, "{meanwhile} sessions are lost, of {IN_FLIGHT} in flight");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_that_fail_all_the_time_cost_no_session_under_wait() {
    let time_limit = Duration::from_millis(300);
    let options = |_: &Stage, _, options| Options { waits: true, time_limit, ..options };
    let Some(stage) = Stage::configured(3, options).await else { return };
    let (sent, count) = (stage.mock.calls(Endpoint::Refresh), sessions() / 2);
    // Each network fails for a quarter of the time, and in another way each time.
    let states = [Network::Resets, Network::Closes, Network::Slow(Duration::from_millis(20)), Network::Deaf];
    let failing = async {
        for step in 0.. {
            for (number, proxy) in stage.proxies.iter().enumerate() {
                let turn = step + number;
                proxy.set(if turn % 4 == 0 { states[turn / 4 % states.len()] } else { Network::Works });
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    let lost = tokio::select! {
        lost = losses(&stage, count) => lost,
        () = failing => unreachable!("it goes on for ever"),
    };
    let sent = stage.mock.calls(Endpoint::Refresh) - sent;
    assert_eq!((lost, sent, stage.mock.reuse_detections()), (0, count, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_killed_lose_only_sessions_whose_requests_they_cut_off() {
    let Some(stage) = Stage::with_short_leases(0).await else { return };
    let minutes = env::var("MINUTES").ok().map(|minutes| minutes.parse::<f64>().unwrap());
    let (time, pause) = match minutes {
        Some(minutes) => (Duration::from_secs_f64(60.0 * minutes), Duration::from_secs(20)),
        None => (Duration::from_secs(18), Duration::from_secs(3)),
    };
    // Calls take a while, so that some are in flight at every moment.
    stage.mock.inject(Endpoint::Refresh, Fault::Delay(Duration::from_millis(50)));
    let options = Options {
        refresh_timeout: Duration::from_secs(1),
        ..options(&stage.mock, &format!("redis://{}", stage.store.address()))
    };
    let replicas = join_all((0..3).map(|_| Replica::start(&options))).await;
    let replicas: Vec<_> = replicas.into_iter().map(|replica| RwLock::new(Arc::new(replica))).collect();
    let end = Instant::now() + time;
    let (tally, kills) = (Tally::default(), AtomicUsize::new(0));
    let killer = async {
        while Instant::now() + pause < end {
            sleep(pause).await;
            let number = kills.fetch_add(1, Relaxed) % replicas.len();
            let fresh = Arc::new(Replica::start(&options).await);
            // While a call is in flight, which may be this replica's.
            stage.mock.called(Endpoint::Refresh, stage.mock.calls(Endpoint::Refresh) + 1).await;
            replicas[number].read().await.kill().await;
            *replicas[number].write().await = fresh;
        }
    };
    let browsers = join_all((0..BROWSERS).map(|number| tally.browse(&stage.mock, &replicas, number, end)));
    tokio::join!(browsers, killer);
    let [requests, later, cut, lost] =
        [&tally.requests, &tally.later, &tally.cut, &tally.lost].map(|count| count.load(Relaxed));
    let kills = kills.into_inner();
    report(
        "replicas are killed",
        &[("kills", kills), ("requests", requests), ("later", later), ("cut off", cut), ("lost", lost)],
    );
    assert!(requests > 100 && kills > 2, "{requests} requests, {kills} kills");
    assert!(lost <= cut, "{lost} sessions are lost, and {cut} requests were cut off");
    assert_eq!(stage.mock.reuse_detections(), lost);
}

/// What happened to all browsers.
#[derive(Default)]
struct Tally {
    requests: AtomicUsize,
    later: AtomicUsize,
    cut: AtomicUsize,
    lost: AtomicUsize,
}

impl Tally {
    /// Sends requests with one cookie to all replicas at once, and so on with the cookies of the answers.
    ///
    /// The browser drops each JWT, so that every request needs a refresh.
    async fn browse(&self, mock: &MockCrossmint, replicas: &[RwLock<Arc<Replica>>], number: usize, end: Instant) {
        let user = &format!("user-{number}");
        let without_jwt = |token: &str| format!("crossmint-refresh-token-{}={token}", mock.project_id());
        let mut token = mock.sign_in(user).refresh_token().to_owned();
        let mut is_settled = true;
        while Instant::now() < end || !is_settled {
            let request = async |replica: &RwLock<Arc<Replica>>| {
                let replica = Arc::clone(&*replica.read().await);
                replica.try_get(without_jwt(&token)).await
            };
            let answers = join_all(replicas.iter().map(request)).await;
            self.requests.fetch_add(answers.len(), Relaxed);
            let is = |status| answers.iter().flatten().filter(|answer| answer.status == status).count();
            self.later.fetch_add(is(503), Relaxed);
            self.cut.fetch_add(answers.iter().filter(|answer| answer.is_none()).count(), Relaxed);
            let received: Vec<_> = answers
                .iter()
                .flatten()
                .filter(|answer| answer.status == 200)
                .map(|answer| answer.session(user))
                .collect();
            assert!(
                received.iter().all(|session| *session == received[0]),
                "{user} got different sessions: {received:?}"
            );
            is_settled = true;
            if let Some(session) = received.into_iter().next() {
                assert_eq!(is(401), 0, "{user} is signed out by one replica only");
                assert!(mock.is_live(&session.refresh_token), "{user}");
                token = session.refresh_token;
            } else if is(401) > 0 {
                self.lost.fetch_add(1, Relaxed);
                token = mock.sign_in(user).refresh_token().to_owned();
            } else {
                is_settled = false;
                // `Retry-After`, for the impatient.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Sends many requests for each of new sessions to the replicas in turn. Returns how many sessions are lost.
async fn losses(stage: &Stage, count: usize) -> usize {
    let Stage { mock, replicas, .. } = stage;
    let sessions = (0..count).map(|number| expired(mock, &format!("user-{number}")));
    let is_lost = async |session: MockSession| {
        let requests = (0..REQUESTS).map(|number| get_patiently(&replicas[number % replicas.len()], &session));
        let answers = join_all(requests).await;
        if answers.iter().any(|answer| answer.status == 401) {
            return true;
        }
        let received: Vec<Received> = answers.iter().map(|answer| answer.session(session.user_id())).collect();
        received.iter().any(|session| *session != received[0]) || !mock.is_live(&received[0].refresh_token)
    };
    stream::iter(sessions)
        .map(is_lost)
        .buffer_unordered(IN_FLIGHT)
        .filter(|is_lost| std::future::ready(*is_lost))
        .count()
        .await
}

/// Requests a page until there is an answer other than that it will come later.
async fn get_patiently(replica: &Replica, session: &MockSession) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = replica.get(session.cookie_header()).await;
        if answer.status != 503 {
            return answer;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Refreshes sessions until one is claimed in the store.
async fn assert_shares_again(mock: &MockCrossmint, replica: &Replica) {
    let (deadline, claims) = (Instant::now() + Duration::from_secs(10), replica.stat("shared_claims").await);
    while replica.stat("shared_claims").await == claims {
        assert!(Instant::now() < deadline, "the replica does not connect to the store again");
        replica.get(expired(mock, "rehearsal").cookie_header()).await;
        sleep(Duration::from_millis(50)).await;
    }
}

/// Prints counts, also for a test that passes.
fn report(what: &str, counts: &[(&str, usize)]) {
    let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    // The test harness shows the output of failed tests only: write to stderr directly.
    let _ = writeln!(io::stderr(), "{what}: {}", counts.join(", "));
}

/// How many sessions a test takes.
fn sessions() -> usize {
    if env::var_os("FULL").is_some() { 1000 } else { 50 }
}

/// For each session, to all replicas in turn.
const REQUESTS: usize = 100;
/// How many sessions are used at once.
const IN_FLIGHT: usize = 5;
const BROWSERS: usize = 10;
