//! Table J: the key set cannot be had. Nobody is signed out, and nothing is renewed, for want of a key.

use std::time::Duration;

use serde_json::json;
use tower_crossmint_auth::{
    OutagePolicy,
    testing::{Endpoint, Fault},
};

use crate::{
    matrix::{
        stage::{CROWD, KEYS_LIMIT, LOGOUT_LIMIT, Scene, Stage, assert_no_verdict, keeping},
        troubles::{How, Trouble, Verdict, troubles, typical},
    },
    support::{
        answer::LOGOUT_ROUTE,
        clock::pass,
        mock::{Calls, NO_CALLS, expired},
    },
};

/// Everything that can go wrong with the key set.
fn key_troubles() -> Vec<Trouble> {
    let set = |name, keys| {
        let how = How::Answers(Fault::json(200, json!({ "keys": keys })));
        Trouble { name, how, verdict: Verdict::Unusable }
    };
    let unusable = json!([{ "kty": "oct", "k": "AA" }, { "kty": "RSA", "n": "AQAB", "e": "AQAB" }, null]);
    let mut troubles = troubles();
    troubles.extend([set("no keys", json!([])), set("no usable keys", unusable)]);
    troubles
}

#[tokio::test]
async fn without_a_set_all_who_wait_share_one_attempt_and_later_ones_do_not_wait() {
    let stage = Stage::new(keeping).await;
    for trouble in key_troubles() {
        without_a_usable_set(&trouble, &stage, KEEP, None).await;
    }
}

#[tokio::test]
async fn without_a_set_sessions_end_by_default() {
    let stage = Stage::new(|config| config).await;
    for trouble in typical(key_troubles()) {
        without_a_usable_set(&trouble, &stage, END, None).await;
    }
}

#[tokio::test]
async fn a_set_past_its_hard_limit_is_as_good_as_none() {
    let stage = Stage::new(keeping).await;
    for trouble in key_troubles() {
        without_a_usable_set(&trouble, &stage, KEEP, Some(HARD_TTL)).await;
    }
}

async fn without_a_usable_set(trouble: &Trouble, stage: &Stage, policy: OutagePolicy, age: Option<Duration>) {
    let case = &format!("{}, {policy:?}, {age:?}", trouble.name);
    let scene = trouble.scene(stage);
    let Scene { mock, auth, .. } = &scene;
    if let Some(age) = age {
        auth.warm_up().await.unwrap();
        pass(age).await;
    }
    let loads = scene.calls().keys;
    let (valid, spent) = (mock.sign_in("alice"), expired(mock, "bob"));

    trouble.begin(&scene, Endpoint::Keys).await;
    let crowd = async { tokio::join!(scene.crowd(&valid, CROWD), scene.get(&spent)) };
    let (answers, other) = trouble.endured(&scene, (Endpoint::Keys, 1, KEYS_LIMIT), crowd, async || ()).await;
    answers.iter().chain([&other]).for_each(|answer| assert_no_verdict(answer, policy, case));
    if policy == KEEP && trouble.requested_pause() > 0 {
        assert_eq!(other.header("retry-after"), trouble.requested_pause().to_string(), "{case}");
    }
    let loads = loads + trouble.arrivals();
    assert_eq!((scene.calls(), auth.stats().failed_reloads), (Calls { keys: loads, ..NO_CALLS }, 1), "{case}");

    if !trouble.lasts() {
        let backoff = trouble.requested_pause().max(1);
        for pause in [0, backoff - 1] {
            pass(Duration::from_secs(pause)).await;
            assert_no_verdict(&scene.get(&valid).await, policy, &format!("{case}, after {pause} s"));
            assert_eq!(auth.stats().failed_reloads, 1, "{case}, after {pause} s");
        }
        pass(Duration::from_secs(1)).await;
    }
    trouble.end(&scene);
    scene.get(&valid).await.assert_passed("alice", case);
    assert_eq!((scene.calls(), mock.calls(Endpoint::Elsewhere)), (Calls { keys: loads + 1, ..NO_CALLS }, 0), "{case}");
    scene.get(&spent).await.assert_renewed("bob", case);
}

#[tokio::test]
async fn a_fresh_set_serves_known_keys_and_asks_once_for_an_unknown_one() {
    let stage = Stage::new(keeping).await;
    let known = stage.mock.sign_in("alice");
    let outdated = stage.outdate_keys();
    let unknown = stage.mock.sign_in("bob");
    for trouble in key_troubles() {
        let case = trouble.name;
        let scene = trouble.scene(&stage);
        stage.mock.inject_times(Endpoint::Keys, 1, outdated.clone());
        scene.auth.warm_up().await.unwrap();
        trouble.begin(&scene, Endpoint::Keys).await;
        scene.get(&known).await.assert_passed("alice", case);
        assert_eq!((scene.calls(), scene.auth.stats().failed_reloads), (Calls { keys: 1, ..NO_CALLS }, 0), "{case}");

        pass(COOLDOWN).await;
        let crowd = scene.crowd(&unknown, CROWD);
        let meanwhile = async || scene.get(&known).await.assert_passed("alice", case);
        for answer in trouble.endured(&scene, (Endpoint::Keys, 1, KEYS_LIMIT), crowd, meanwhile).await {
            assert_no_verdict(&answer, KEEP, case);
        }
        scene.get(&known).await.assert_passed("alice", case);
        assert_no_verdict(&scene.get(&unknown).await, KEEP, case);
        let loads = 1 + trouble.arrivals();
        assert_eq!(
            (scene.calls(), scene.auth.stats().failed_reloads),
            (Calls { keys: loads, ..NO_CALLS }, 1),
            "{case}"
        );

        trouble.end(&scene);
        pass(COOLDOWN.max(Duration::from_secs(trouble.requested_pause()))).await;
        scene.get(&unknown).await.assert_passed("bob", case);
        assert_eq!(scene.calls(), Calls { keys: loads + 1, ..NO_CALLS }, "{case}");
    }
}

#[tokio::test]
async fn a_stale_set_serves_at_once_while_one_reload_fails_behind_it() {
    let stage = Stage::new(keeping).await;
    let alice = stage.mock.sign_in("alice");
    for trouble in key_troubles() {
        let case = trouble.name;
        let scene = trouble.scene(&stage);
        let stats = || scene.auth.stats();
        scene.auth.warm_up().await.unwrap();
        let all_pass = async || {
            scene.crowd(&alice, 3).await.iter().for_each(|answer| answer.assert_passed("alice", case));
        };
        trouble.begin(&scene, Endpoint::Keys).await;
        pass(SOFT_TTL).await;
        let failed = async {
            all_pass().await;
            scene.auth.wait_idle().await;
            assert_eq!(stats().failed_reloads, 1, "{case}");
        };
        trouble.endured(&scene, (Endpoint::Keys, 1, KEYS_LIMIT), failed, all_pass).await;
        let loads = 1 + trouble.arrivals();
        assert_eq!(scene.calls(), Calls { keys: loads, ..NO_CALLS }, "{case}");
        if !trouble.lasts() {
            all_pass().await;
            assert_eq!((scene.calls(), stats().failed_reloads), (Calls { keys: loads, ..NO_CALLS }, 1), "{case}");
        }

        trouble.end(&scene);
        pass(Duration::from_secs(trouble.requested_pause().max(1))).await;
        all_pass().await;
        scene.auth.wait_idle().await;
        assert_eq!(stats().reloads, 2, "{case}");
        all_pass().await;
        assert_eq!(scene.calls(), Calls { keys: loads + 1, ..NO_CALLS }, "{case}");
    }
}

#[tokio::test]
async fn a_withdrawn_key_ends_with_the_set_that_had_it_and_not_in_the_token_cache() {
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
        scene.get(&old).await.assert_renewed("alice", case);
        assert_eq!(scene.calls(), Calls { keys: 2, refreshes: 1, ..NO_CALLS }, "{case}");
    }
}

#[tokio::test]
async fn a_handshake_that_fails_is_an_outage() {
    let stage = Stage::new(keeping).await;
    let base_url = stage.mock.base_url().replace("http:", "https:");
    for (name, how) in [
        ("no TLS", How::Answers(Fault::Empty)),
        ("refused", How::Refuses),
        ("reset", How::Resets),
        ("stalled", How::IsSilent),
        ("unreachable", How::IsUnreachable),
    ] {
        let trouble = Trouble { name, how, verdict: Verdict::Nothing };
        let scene = Scene::with(&stage, stage.config().base_url(&base_url));
        let mock = &stage.mock;
        trouble.begin(&scene, Endpoint::Elsewhere).await;
        let (valid, spent) = (mock.sign_in("alice"), expired(mock, "bob"));
        let both = async { tokio::join!(scene.get(&valid), scene.get(&spent)) };
        let (valid, spent) = trouble.endured(&scene, (Endpoint::Keys, 1, KEYS_LIMIT), both, async || ()).await;
        assert_no_verdict(&valid, KEEP, name);
        assert_no_verdict(&spent, KEEP, name);
        let carol = mock.sign_in("carol").cookie_header();
        let logout = scene.post(LOGOUT_ROUTE, &carol);
        let logout = trouble.endured(&scene, (Endpoint::Logout, 1, LOGOUT_LIMIT), logout, async || ()).await;
        assert_eq!((logout.status, logout.set_cookie().len()), (200, 2), "{name}");
        assert_eq!((scene.calls(), scene.auth.stats().failed_reloads), (NO_CALLS, 1), "{name}");
        trouble.end(&scene);
    }
}

const KEEP: OutagePolicy = OutagePolicy::KeepSession;
const END: OutagePolicy = OutagePolicy::EndSession;
const SOFT_TTL: Duration = Duration::from_secs(10 * 60);
const HARD_TTL: Duration = Duration::from_secs(60 * 60);
const COOLDOWN: Duration = Duration::from_secs(30);
