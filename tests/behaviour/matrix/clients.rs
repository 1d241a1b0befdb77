//! Table R, the waiters: clients that hang up, and late answers.

use axum::Router;
use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tower_crossmint_auth::{
    CrossmintAuthLayer, OutagePolicy,
    testing::{Endpoint, Fault, Hold, MockCrossmint, MockSession},
};

use crate::{
    matrix::{
        failures::{Conclusion, Failure, Mode},
        stage::{CROWD, KEYS_LIMIT, REFRESH_LIMIT, Scene, Stage, assert_inconclusive, keeping},
    },
    support::{
        answer::Answer,
        clock::pass,
        direct,
        gate::Gate,
        mock::{Calls, NO_CALLS, expired},
    },
};

/// At each point at which a request waits, its client hangs up; the other requests are not affected.
#[tokio::test]
async fn a_client_that_hangs_up_does_not_affect_others() {
    struct Point {
        case: &'static str,
        hold: MakeHold,
        endpoint: Endpoint,
        /// Whether the keys are loaded for the new JWT, after the refresh.
        is_key_new: bool,
    }
    let points = [
        Point { case: "the keys are requested", hold: BEFORE, endpoint: Endpoint::Keys, is_key_new: false },
        Point { case: "the keys are on their way", hold: AFTER, endpoint: Endpoint::Keys, is_key_new: false },
        Point {
            case: "the refresh is not carried out yet",
            hold: BEFORE,
            endpoint: Endpoint::Refresh,
            is_key_new: false,
        },
        Point { case: "the refresh has been carried out", hold: AFTER, endpoint: Endpoint::Refresh, is_key_new: false },
        Point { case: "the key of the new JWT is requested", hold: BEFORE, endpoint: Endpoint::Keys, is_key_new: true },
        Point { case: "the key of the new JWT is on its way", hold: AFTER, endpoint: Endpoint::Keys, is_key_new: true },
    ];
    let stage = Stage::new(keeping).await;
    let (mock, outdated) = (&stage.mock, stage.outdate_keys());
    for (Point { case, hold, endpoint, is_key_new }, others) in points.iter().flat_map(|point| [(point, 0), (point, 3)])
    {
        let scene = Scene::of(&stage);
        let alice = expired(mock, "alice");
        if *is_key_new {
            mock.inject_times(Endpoint::Keys, 1, outdated.clone());
            scene.auth.warm_up().await.unwrap();
        }
        let arrived = mock.calls(*endpoint) + 1;
        let held = hold(mock, *endpoint);
        let dropped = start(&scene, &alice);
        let others: Vec<_> = (0..others).map(|_| start(&scene, &alice)).collect();
        mock.called(*endpoint, arrived).await;
        // Requests that were started before the call have joined it by the time it arrives.
        let joined = if *endpoint == Endpoint::Refresh || *is_key_new { others.len() } else { 0 };
        assert_eq!(scene.auth.stats().joined, joined as u64, "{case}");
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled(), "{case}");
        held.release();
        for other in others {
            other.await.unwrap().assert_refreshed("alice", case);
        }
        scene.get(&alice).await.assert_refreshed("alice", case);
        let loads = 1 + usize::from(*is_key_new);
        assert_eq!((scene.calls(), scene.sent(&alice)), (Calls { keys: loads, refreshes: 1, ..NO_CALLS }, 1), "{case}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_in_the_queue_is_refreshed_all_the_same() {
    let stage = Stage::new(|config| keeping(config).max_concurrent_refreshes(1)).await;
    let scene = Scene::of(&stage);
    let [alice, bob] = ["alice", "bob"].map(|user| expired(&stage.mock, user));
    let held = stage.mock.hold(Endpoint::Refresh);
    let first = start(&scene, &bob);
    stage.mock.called(Endpoint::Refresh, 1).await;
    // The keys are loaded: the first poll joins the queue.
    assert!(scene.get(&alice).now_or_never().is_none());
    held.release();
    first.await.unwrap().assert_refreshed("bob", "");
    stage.mock.called(Endpoint::Refresh, 2).await;
    scene.get(&alice).await.assert_refreshed("alice", "");
    assert_eq!((scene.calls(), scene.sent(&alice)), (Calls { keys: 1, refreshes: 2, ..NO_CALLS }, 1));
}

#[tokio::test]
async fn a_client_that_hangs_up_during_the_handler_finds_its_session_refreshed() {
    let stage = Stage::new(keeping).await;
    let mut scene = Scene::of(&stage);
    let quick = scene.app.clone();
    let gate = Gate::new();
    scene.app = Router::new().fallback(gate.handler()).layer(CrossmintAuthLayer::from(scene.auth.clone()));
    let alice = expired(&stage.mock, "alice");
    let dropped = start(&scene, &alice);
    gate.entered().await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    scene.app = quick;
    scene.get(&alice).await.assert_refreshed("alice", "");
    assert_eq!(scene.calls(), Calls { keys: 1, refreshes: 1, ..NO_CALLS });
}

#[tokio::test]
async fn a_late_answer_is_not_lost() {
    let stage = Stage::new(keeping).await;
    for (case, is_held) in [("before processing", BEFORE), ("after it", AFTER)] {
        let scene = Scene::of(&stage);
        let mock = &stage.mock;
        scene.auth.warm_up().await.unwrap();
        let alice = expired(mock, "alice");
        let hold = is_held(mock, Endpoint::Refresh);
        let hang = Failure { name: case, mode: Mode::Answers(Fault::Hang), conclusion: Conclusion::Nothing };
        let crowd = scene.crowd(&alice, CROWD);
        for answer in hang.wait_through(&scene, Endpoint::Refresh, 1, crowd, async || ()).await {
            assert_inconclusive(&answer, OutagePolicy::KeepSession, case);
        }
        pass(REFRESH_LIMIT / 10).await;
        assert_inconclusive(&scene.get(&alice).await, OutagePolicy::KeepSession, case);
        hold.release();
        scene.auth.wait_idle().await;
        scene.get(&alice).await.assert_refreshed("alice", case);
        assert_eq!((scene.calls(), scene.sent(&alice)), (Calls { keys: 1, refreshes: 1, ..NO_CALLS }, 1), "{case}");
    }
}

#[tokio::test]
async fn an_answer_just_before_the_limit_is_in_time() {
    let stage = Stage::new(keeping).await;
    for (case, endpoint, limit) in [("keys", Endpoint::Keys, KEYS_LIMIT), ("refresh", Endpoint::Refresh, REFRESH_LIMIT)]
    {
        let scene = Scene::of(&stage);
        let alice = expired(&stage.mock, "alice");
        let before = stage.mock.calls(endpoint);
        let hold = stage.mock.hold(endpoint);
        let (answers, ()) = tokio::join!(scene.crowd(&alice, CROWD), async {
            stage.mock.called(endpoint, before + 1).await;
            pass(limit * 9 / 10).await;
            hold.release();
        });
        answers.iter().for_each(|answer| answer.assert_refreshed("alice", case));
        assert_eq!(scene.calls(), Calls { keys: 1, refreshes: 1, ..NO_CALLS }, "{case}");
    }
}

/// Sends a request that the test can drop.
fn start(scene: &Scene, session: &MockSession) -> JoinHandle<Answer> {
    let (app, cookie) = (scene.app.clone(), session.cookie_header());
    tokio::spawn(async move { direct::get(&app, "/me", &cookie).await })
}

type MakeHold = fn(&MockCrossmint, Endpoint) -> Hold;

const BEFORE: MakeHold = MockCrossmint::hold;
const AFTER: MakeHold = MockCrossmint::hold_answers;
