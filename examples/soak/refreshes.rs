//! Sessions that are refreshed: in a burst, under clients that hang up, at a Crossmint that fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::Client;
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower_crossmint_auth::testing::{Endpoint, Fault};

use crate::{
    Scale,
    browser::Browser,
    load::{Random, open_files, resident_kib},
    report::{
        Check,
        Mark::{AtMost, Exactly},
    },
    stage::{Stage, call, fetch, http1, http2},
};

/// L1: many requests at once with each expired session.
pub(crate) async fn burst(scale: &Scale) -> (String, Vec<Check>) {
    let (sessions, requests) = scale.pick((200, 50), (1_000, 100));
    let mut stage = Stage::warm(|config| config).await;
    let mut random = Random::new(1);
    stage.disturb(move || Fault::Delay(random.millis(50, 500)));
    let browsers: Vec<Arc<Browser>> = stage.expired_browsers(sessions).into_iter().map(Arc::new).collect();
    let tally = Arc::new(Tally::default());

    let cookies: Vec<String> = browsers.iter().map(|browser| browser.cookies()).collect();
    let mut tasks = JoinSet::new();
    for _ in 0..requests {
        for (browser, cookies) in browsers.iter().zip(&cookies) {
            let (app, browser, cookies, tally) =
                (stage.app.clone(), Arc::clone(browser), cookies.clone(), Arc::clone(&tally));
            tasks.spawn(async move {
                let (status, headers) = call(&app, &cookies).await;
                tally.answered(status.as_u16(), browser.receive(status, &headers));
            });
        }
    }
    tasks.join_all().await;

    let lost = stage.lost(browsers.iter().map(|browser| &**browser)).await;
    let checks = vec![
        Check::count("refreshes", stage.mock.calls(Endpoint::Refresh), Exactly(sessions)),
        Check::count("lost sessions", lost, Exactly(0)),
        Check::count("answers that are not 200", tally.not_ok(), Exactly(0)),
        Check::count("reuse detections", stage.mock.reuse_detections(), Exactly(0)),
    ];
    (format!("{sessions} expired sessions x {requests} requests at once, Crossmint takes 50-500 ms"), checks)
}

/// L1b: clients that hang up in the middle of it.
pub(crate) async fn hang_ups(scale: &Scale) -> (String, Vec<Check>) {
    let (sessions, seconds) = scale.pick((40, 6), (200, 120));
    let mut stage = Stage::warm(|config| config.leeway(Duration::ZERO)).await;
    let address = stage.listen().await;
    let mut random = Random::new(2);
    stage.disturb(move || Fault::Delay(random.millis(50, 500)));
    stage.mock.set_refreshed_jwt_lifetime(2);
    let browsers: Vec<Arc<Browser>> = stage.expired_browsers(sessions).into_iter().map(Arc::new).collect();
    let tally = Arc::new(Tally::default());
    let shared = [http1(), http2(), http2(), http2(), http2()];
    let end = Instant::now() + Duration::from_secs(seconds);

    let mut users = JoinSet::new();
    for (user, browser) in browsers.iter().enumerate() {
        let (browser, tally) = (Arc::clone(browser), Arc::clone(&tally));
        let clients = [shared[0].clone(), shared[1 + user % 4].clone()];
        users.spawn(async move {
            let mut random = Random::new(1_000 + user);
            while Instant::now() < end {
                let tabs: Vec<_> = (0..=random.below(4))
                    .map(|_| {
                        let client = clients[usize::from(random.below(2) == 0)].clone();
                        let patience = (random.below(5) < 3).then(|| random_point(&mut random));
                        let (browser, tally) = (Arc::clone(&browser), Arc::clone(&tally));
                        tokio::spawn(async move {
                            let answer = async {
                                let cookies = browser.cookies();
                                let (status, headers) =
                                    fetch(&client, address, &cookies).await.expect("the server is up");
                                tally.answered(status.as_u16(), browser.receive(status, &headers));
                            };
                            if timeout(patience.unwrap_or(Duration::MAX), answer).await.is_err() {
                                tally.hung_up.fetch_add(1, Ordering::Relaxed);
                            }
                        })
                    })
                    .collect();
                for tab in tabs {
                    tab.await.expect("the tab works");
                }
                sleep(random.millis(0, 700)).await;
            }
        });
    }
    users.join_all().await;

    stage.calm().await;
    let lost = stage.lost(browsers.iter().map(|browser| &**browser)).await;
    let (answered, hung_up) = (tally.answered.load(Ordering::Relaxed), tally.hung_up.load(Ordering::Relaxed));
    let refreshes = stage.mock.calls(Endpoint::Refresh);
    let checks = vec![
        Check::note(format!("{answered} answers, {hung_up} hang-ups, {refreshes} refreshes")),
        Check::count("lost sessions", lost, Exactly(0)),
        Check::count("answers that end a session", tally.ended(), Exactly(0)),
        Check::count("other answers that are not 200", tally.not_ok() - tally.ended(), Exactly(0)),
        Check::count("reuse detections", stage.mock.reuse_detections(), Exactly(0)),
    ];
    (format!("{sessions} browsers for {seconds} s over HTTP/1 and HTTP/2, JWTs live 2 s, about 20 % hang up"), checks)
}

/// Somewhere in an answer that is quick, or in one that takes a refresh.
fn random_point(random: &mut Random) -> Duration {
    let longest = if random.below(2) == 0 { 1_500 } else { 600_000 };
    Duration::from_micros(random.below(longest))
}

/// L6: a Crossmint that fails four times in ten.
pub(crate) async fn faulty_upstream(scale: &Scale) -> (String, Vec<Check>) {
    let (sessions, seconds) = scale.pick((60, 8), (2_000, 180));
    let (files_before, tasks_before) = (open_files(), alive_tasks());
    let mut stage = Stage::warm(|config| config.refresh_timeout(TIME_LIMIT).token_cache_bytes(1 << 20)).await;
    let address = stage.listen().await;
    let mut random = Random::new(6);
    stage.disturb(move || any_fault(&mut random));
    stage.mock.set_reuse_grace(Duration::from_secs(30));
    stage.mock.set_refreshed_jwt_lifetime(scale.pick(2, 20));
    let browsers: Vec<Arc<Browser>> = stage.expired_browsers(sessions).into_iter().map(Arc::new).collect();
    let tally = Arc::new(Tally::default());
    let clients: Vec<Client> = (0..CLIENTS).map(|_| http2()).collect();
    let (start, time) = (Instant::now(), Duration::from_secs(seconds));

    let mut users = JoinSet::new();
    for (user, browser) in browsers.iter().enumerate() {
        let (client, browser, tally) = (clients[user % CLIENTS].clone(), Arc::clone(browser), Arc::clone(&tally));
        users.spawn(async move {
            let mut random = Random::new(6_000 + user);
            while start.elapsed() < time {
                sleep(random.millis(200, 2_000)).await;
                let (status, headers) = fetch(&client, address, &browser.cookies()).await.expect("the server is up");
                tally.answered(status.as_u16(), browser.receive(status, &headers));
            }
        });
    }
    let (files, memory) = tokio::join!(most_files(start + time), growth(start, time));
    users.join_all().await;

    stage.calm().await;
    let (ended, refreshes) = (tally.ended(), stage.mock.calls(Endpoint::Refresh));
    let lost = stage.lost(browsers.iter().map(|browser| &**browser)).await;
    let reuse_detections = stage.mock.reuse_detections();
    drop((stage, clients));
    sleep(Duration::from_secs(1)).await;

    let checks = vec![
        Check::note(format!("{} answers, {refreshes} refreshes, {} times 503", tally.count(), tally.not_ok() - ended)),
        Check::count("lost sessions", lost, Exactly(0)),
        Check::count("answers that end a session", ended, Exactly(0)),
        Check::count("reuse detections", reuse_detections, Exactly(0)),
        Check::count("most files open", files - files_before, AtMost(MOST_FILES)),
        Check::count("files left open at the end", open_files().saturating_sub(files_before), AtMost(0)),
        Check::count("tasks left at the end", alive_tasks().saturating_sub(tasks_before), AtMost(0)),
        Check::count("growth in the last half, the mock's ledger included, KiB", memory, AtMost(16 << 10)),
    ];
    let faults = "30 % 5xx, 10 % time-outs, 1 % resets";
    (format!("{sessions} browsers for {seconds} s, {faults}, retries within 2 s, time limit 2 s"), checks)
}

/// 30 % 5xx, 10 % time-outs of three kinds, 1 % resets of three kinds, and some latency for the rest.
fn any_fault(random: &mut Random) -> Fault {
    match random.below(1_000) {
        0..300 => Fault::Status(if random.below(2) == 0 { 500 } else { 503 }),
        300..333 => Fault::Hang,
        333..366 => Fault::HangAfterCommit,
        366..400 => Fault::Delay(TIME_LIMIT * 11 / 10),
        400..403 => Fault::Reset,
        403..406 => Fault::LoseAnswer,
        406..410 => Fault::ResetMidBody,
        _ => Fault::Delay(random.millis(1, 50)),
    }
}

async fn most_files(end: Instant) -> usize {
    let mut most = 0;
    while Instant::now() < end {
        most = most.max(open_files());
        sleep(Duration::from_millis(250)).await;
    }
    most
}

/// Measures how much the process grows in the second half of a time.
async fn growth(start: Instant, time: Duration) -> u64 {
    tokio::time::sleep_until(start + time / 2).await;
    let before = resident_kib();
    tokio::time::sleep_until(start + time).await;
    resident_kib().saturating_sub(before)
}

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    not_ok: AtomicUsize,
    ended: AtomicUsize,
    hung_up: AtomicUsize,
}

impl Tally {
    fn answered(&self, status: u16, has_ended: bool) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.not_ok.fetch_add(usize::from(status != 200), Ordering::Relaxed);
        self.ended.fetch_add(usize::from(has_ended), Ordering::Relaxed);
    }

    fn count(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    fn not_ok(&self) -> usize {
        self.not_ok.load(Ordering::Relaxed)
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }
}

const TIME_LIMIT: Duration = Duration::from_secs(2);
const CLIENTS: usize = 8;
/// Both ends of the calls under way, of the idle connections left by as many, and of the clients' connections.
const MOST_FILES: usize = 2 * (2 * 128 + CLIENTS) + 16;
