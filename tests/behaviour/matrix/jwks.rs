//! Table J: the key set cannot be loaded. No session ends and no token is refreshed for lack of a key.

use std::time::Duration;

use serde_json::json;
use tower_crossmint_auth::{
    OutagePolicy,
    testing::{Endpoint, Fault},
};

use crate::{
    matrix::{
        failures::{Conclusion, Failure, Mode, failures, typical},
        stage::{CROWD, Scene, Stage, assert_inconclusive, keeping},
    },
    support::{
        answer::LOGOUT_ROUTE,
        clock::pass,
        mock::{Calls, NO_CALLS, expired},
    },
};

/// All failures of the key set.
fn key_failures() -> Vec<Failure> {
    let set = |name, keys| {
        let mode = Mode::Answers(Fault::json(200, json!({ "keys": keys })));
        Failure { name, mode, conclusion: Conclusion::Unusable }
    };
    let unusable = json!([{ "kty": "oct", "k": "AA" }, { "kty": "RSA", "n": "AQAB", "e": "AQAB" }, null]);
    let mut failures = failures();
    failures.extend([set("no keys", json!([])), set("no usable keys", unusable)]);
    failures
}

#[tokio::test]
async fn without_a_set_waiters_share_one_load_and_later_requests_fail_at_once() {
    let stage = Stage::new(keeping).await;
    for failure in key_failures() {
        without_a_usable_set(&failure, &stage, KEEP, None).await;
    }
}

#[tokio::test]
async fn without_a_set_sessions_end_by_default() {
    let stage = Stage::new(|config| config).await;
    for failure in typical(key_failures()) {
        without_a_usable_set(&failure, &stage, END, None).await;
    }
}

#[tokio::test]
async fn a_set_past_its_hard_limit_is_not_used() {
    let stage = Stage::new(keeping).await;
    for failure in key_failures() {
        without_a_usable_set(&failure, &stage, KEEP, Some(HARD_TTL)).await;
    }
}

async fn without_a_usable_set(failure: &Failure, stage: &Stage, policy: OutagePolicy, age: Option<Duration>) {
    let case = &format!("{}, {policy:?}, {age:?}", failure.name);
    let scene = failure.scene(stage);
    let Scene { mock, auth, .. } = &scene;
    if let Some(age) = age {
        auth.warm_up().await.unwrap();
        pass(age).await;
    }
    let loads = scene.calls().keys;
    let (valid, lapsed) = (mock.sign_in("alice"), expired(mock, "bob"));

    failure.begin(&scene, Endpoint::Keys).await;
    let crowd = async { tokio::join!(scene.crowd(&valid, CROWD), scene.get(&lapsed)) };
    let (answers, other) = failure.wait_through(&scene, Endpoint::Keys, 1, crowd, async || ()).await;
    answers.iter().chain([&other]).for_each(|answer| assert_inconclusive(answer, policy, case));
    if policy == KEEP && failure.requested_pause() > 0 {
        assert_eq!(other.header("retry-after"), failure.requested_pause().to_string(), "{case}");
    }
    let loads = loads + failure.arrivals();
    assert_eq!((scene.calls(), auth.stats().failed_reloads), (Calls { keys: loads, ..NO_CALLS }, 1), "{case}");

    if !failure.lasts() {
        let backoff = failure.requested_pause().max(1);
        for pause in [0, backoff - 1] {
            pass(Duration::from_secs(pause)).await;
            assert_inconclusive(&scene.get(&valid).await, policy, &format!("{case}, after {pause} s"));
            assert_eq!(auth.stats().failed_reloads, 1, "{case}, after {pause} s");
        }
        pass(Duration::from_secs(1)).await;
    }
    failure.end(&scene);
    scene.get(&valid).await.assert_passed("alice", case);
    assert_eq!((scene.calls(), mock.calls(Endpoint::Elsewhere)), (Calls { keys: loads + 1, ..NO_CALLS }, 0), "{case}");
    scene.get(&lapsed).await.assert_refreshed("bob", case);
}

#[tokio::test]
async fn a_fresh_set_serves_known_keys_and_is_reloaded_once_for_an_unknown_one() {
    let stage = Stage::new(keeping).await;
    let known = stage.mock.sign_in("alice");
    let outdated = stage.outdate_keys();
    let unknown = stage.mock.sign_in("bob");
    for failure in key_failures() {
        let case = failure.name;
        let scene = failure.scene(&stage);
        stage.mock.inject_times(Endpoint::Keys, 1, outdated.clone());
        scene.auth.warm_up().await.unwrap();
        failure.begin(&scene, Endpoint::Keys).await;
        scene.get(&known).await.assert_passed("alice", case);
        assert_eq!((scene.calls(), scene.auth.stats().failed_reloads), (Calls { keys: 1, ..NO_CALLS }, 0), "{case}");

        pass(COOLDOWN).await;
        let crowd = scene.crowd(&unknown, CROWD);
        let meanwhile = async || scene.get(&known).await.assert_passed("alice", case);
        for answer in failure.wait_through(&scene, Endpoint::Keys, 1, crowd, meanwhile).await {
            assert_inconclusive(&answer, KEEP, case);
        }
        scene.get(&known).await.assert_passed("alice", case);
        assert_inconclusive(&scene.get(&unknown).await, KEEP, case);
        let loads = 1 + failure.arrivals();
        assert_eq!(
            (scene.calls(), scene.auth.stats().failed_reloads),
            (Calls { keys: loads, ..NO_CALLS }, 1),
            "{case}"
        );

        failure.end(&scene);
        pass(COOLDOWN.max(Duration::from_secs(failure.requested_pause()))).await;
        scene.get(&unknown).await.assert_passed("bob", case);
        assert_eq!(scene.calls(), Calls { keys: loads + 1, ..NO_CALLS }, "{case}");
    }
}

#[tokio::test]
async fn a_stale_set_serves_while_one_reload_fails_in_the_background() {
    let stage = Stage::new(keeping).await;
    let alice = stage.mock.sign_in("alice");
    for failure in key_failures() {
        let case = failure.name;
        let scene = failure.scene(&stage);
        let stats = || scene.auth.stats();
        scene.auth.warm_up().await.unwrap();
        let all_pass = async || {
            scene.crowd(&alice, 3).await.iter().for_each(|answer| answer.assert_passed("alice", case));
        };
        failure.begin(&scene, Endpoint::Keys).await;
        pass(SOFT_TTL).await;
        let failed = async {
            all_pass().await;
            scene.auth.wait_idle().await;
            assert_eq!(stats().failed_reloads, 1, "{case}");
        };
        failure.wait_through(&scene, Endpoint::Keys, 1, failed, all_pass).await;
        let loads = 1 + failure.arrivals();
        assert_eq!(scene.calls(), Calls { keys: loads, ..NO_CALLS }, "{case}");
        if !failure.lasts() {
            all_pass().await;
            assert_eq!((scene.calls(), stats().failed_reloads), (Calls { keys: loads, ..NO_CALLS }, 1), "{case}");
        }

        failure.end(&scene);
        pass(Duration::from_secs(failure.requested_pause().max(1))).await;
        all_pass().await;
        scene.auth.wait_idle().await;
        assert_eq!(stats().reloads, 2, "{case}");
        all_pass().await;
        assert_eq!(scene.calls(), Calls { keys: loads + 1, ..NO_CALLS }, "{case}");
    }
}

#[tokio::test]
async fn a_withdrawn_key_invalidates_the_tokens_that_it_verified() {
    let stage = Stage::new(keeping).await;
    for (case, age) in [("warm", COOLDOWN), ("stale", SOFT_TTL)] {
        let scene = Scene::of(&stage);
        let old = stage.mock.sign_in("alice");
        scene.get(&old).await.assert_passed("alice", case);
        stage.mock.rotate_keys();
        stage.mock.withdraw_old_keys();
        pass(age).await;
        scene.get(&stage.mock.sign_in("bob")).await.assert_passed("bob", case);
        assert_eq!(scene.calls(), Calls { keys: 2, ..NO_CALLS }, "{case}");
        scene.get(&old).await.assert_refreshed("alice", case);
        assert_eq!(scene.calls(), Calls { keys: 2, refreshes: 1, ..NO_CALLS }, "{case}");
    }
}

#[tokio::test]
async fn a_handshake_that_fails_is_an_outage() {
    let stage = Stage::new(keeping).await;
    let base_url = stage.mock.base_url().replace("http:", "https:");
    for (name, mode) in [
        ("no TLS", Mode::Answers(Fault::Empty)),
        ("refused", Mode::Refuses),
        ("reset", Mode::Resets),
        ("stalled", Mode::IsSilent),
        ("unreachable", Mode::IsUnreachable),
    ] {
        let failure = Failure { name, mode, conclusion: Conclusion::Nothing };
        let scene = Scene::with(&stage, stage.config().base_url(&base_url));
        let mock = &stage.mock;
        failure.begin(&scene, Endpoint::Elsewhere).await;
        let (valid, lapsed) = (mock.sign_in("alice"), expired(mock, "bob"));
        let both = async { tokio::join!(scene.get(&valid), scene.get(&lapsed)) };
        let (valid, lapsed) = failure.wait_through(&scene, Endpoint::Keys, 1, both, async || ()).await;
        assert_inconclusive(&valid, KEEP, name);
        assert_inconclusive(&lapsed, KEEP, name);
        let carol = mock.sign_in("carol").cookie_header();
        let logout = scene.post(LOGOUT_ROUTE, &carol);
        let logout = failure.wait_through(&scene, Endpoint::Logout, 1, logout, async || ()).await;
        assert_eq!((logout.status, logout.set_cookie().len()), (200, 2), "{name}");
        assert_eq!((scene.calls(), scene.auth.stats().failed_reloads), (NO_CALLS, 1), "{name}");
        failure.end(&scene);
    }
}

const KEEP: OutagePolicy = OutagePolicy::KeepSession;
const END: OutagePolicy = OutagePolicy::EndSession;
const SOFT_TTL: Duration = Duration::from_secs(10 * 60);
const HARD_TTL: Duration = Duration::from_secs(60 * 60);
const COOLDOWN: Duration = Duration::from_secs(30);
