//! Table R: a refresh fails. A token that may have been rotated is sent again only if nothing else can tell.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tower_crossmint_auth::{
    OutagePolicy,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::{
    matrix::{
        failures::{Conclusion, Failure, Mode, failures, typical},
        stage::{CROWD, Scene, Stage, assert_inconclusive, keeping},
    },
    support::{
        answer::{ENDED, LOGOUT_ROUTE},
        clock::pass,
        mock::{Calls, NO_CALLS, expired},
    },
};

/// All failures of a refresh.
fn refresh_failures(mock: &MockCrossmint) -> Vec<Failure> {
    let jwt = |jwt: &str| json!({ "jwt": jwt });
    let forged = mock.sign_in("alice").jwt().rsplit_once('.').unwrap().0.to_owned() + "." + &"A".repeat(342);
    let edits = [
        ("no JWT", jwt("x.y.z")),
        ("a forged JWT", jwt(&forged)),
        ("an expired JWT", jwt(expired(mock, "alice").jwt())),
        ("a JWT for another project", jwt(mock.session("alice").audience("other").create().jwt())),
        ("a JWT of another user", jwt(mock.sign_in("mallory").jwt())),
        ("a JWT that is a number", json!({ "jwt": 5 })),
    ];
    let long = "x".repeat(4096);
    let suffixes = [
        ("a secret that is too long", &*long),
        ("a secret with an attribute", "; Domain=evil.test"),
        ("a secret with a header", "\r\nSet-Cookie: a=b"),
    ];
    let edits = edits.map(|(name, edits)| (name, Mode::Edits(edits)));
    let suffixes = suffixes.map(|(name, suffix)| (name, Mode::Suffixes(suffix.to_owned())));
    let successors = edits.into_iter().chain(suffixes);
    let successors = successors.map(|(name, mode)| Failure { name, mode, conclusion: Conclusion::Unusable });
    failures().into_iter().chain(successors).collect()
}

#[tokio::test]
async fn a_failed_refresh_is_shared_and_retried_only_if_a_retry_can_succeed() {
    let stage = Stage::new(keeping).await;
    for failure in refresh_failures(&stage.mock) {
        a_failed_refresh(&failure, &stage, OutagePolicy::KeepSession, STRICT).await;
    }
}

#[tokio::test]
async fn a_failed_refresh_loses_no_session_if_crossmint_accepts_a_retry() {
    let stage = Stage::new(keeping).await;
    for failure in refresh_failures(&stage.mock) {
        a_failed_refresh(&failure, &stage, OutagePolicy::KeepSession, FORGIVING).await;
    }
}

#[tokio::test]
async fn a_failed_refresh_ends_the_session_by_default() {
    let stage = Stage::new(|config| config).await;
    for failure in typical(refresh_failures(&stage.mock)) {
        a_failed_refresh(&failure, &stage, OutagePolicy::EndSession, FORGIVING).await;
    }
}

async fn a_failed_refresh(failure: &Failure, stage: &Stage, policy: OutagePolicy, grace: Duration) {
    let Failure { name, conclusion, .. } = failure;
    let case = &format!("{name}, {policy:?}, {grace:?}");
    let scene = failure.scene(stage);
    let mock = &stage.mock;
    mock.set_reuse_grace(grace);
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|user| expired(mock, user));
    let successor = scene.get(&carol).await;
    successor.assert_refreshed("carol", case);

    failure.begin(&scene, Endpoint::Refresh).await;
    let both = async { tokio::join!(scene.get(&alice), scene.crowd(&bob, CROWD)) };
    let warm = async || {
        let latecomer = scene.get(&carol).await;
        latecomer.assert_refreshed("carol", case);
        assert_eq!(latecomer.cookie_header(), successor.cookie_header(), "{case}");
    };
    let (one, crowd) = failure.wait_through(&scene, Endpoint::Refresh, 2, both, warm).await;
    crowd.iter().chain([&one]).for_each(|answer| conclusion.assert_response(answer, policy, case));
    warm().await;
    let sent = failure.arrivals();
    assert_eq!(scene.calls(), Calls { keys: 1, refreshes: 1 + 2 * sent, ..NO_CALLS }, "{case}");
    assert_eq!([&alice, &bob, &carol].map(|session| scene.sent(session)), [sent, sent, 1], "{case}");
    assert_eq!(mock.calls(Endpoint::Elsewhere), 0, "{case}");

    if failure.lasts() {
        pass(LATE).await;
        scene.auth.wait_idle().await;
    }
    failure.end(&scene);
    if conclusion.pause() > 0 {
        for pause in [0, conclusion.pause() - 1] {
            pass(Duration::from_secs(pause)).await;
            conclusion.assert_response(&scene.get(&alice).await, policy, &format!("{case}, after {pause} s"));
            assert_eq!(scene.sent(&alice), sent, "{case}, after {pause} s");
        }
        pass(Duration::from_secs(1)).await;
    }
    let is_lost = failure.commits() && !failure.hands_out_a_successor() && grace == STRICT;
    // With a successor, it is the successor that is sent next.
    let sent_again = sent + usize::from(!failure.hands_out_a_successor());
    for _ in 0..2 {
        let next = scene.get(&alice).await;
        if is_lost {
            next.assert_ended(ENDED, case)
        } else {
            next.assert_refreshed("alice", case)
        }
        assert_eq!((scene.sent(&alice), scene.calls().reuses), (sent_again, is_lost.into()), "{case}");
    }
    assert_eq!(scene.calls(), Calls { keys: 1, refreshes: 2 + 2 * sent, logouts: 0, reuses: is_lost.into() }, "{case}");
}

#[tokio::test]
async fn hanging_refreshes_do_not_delay_requests_that_need_no_permit() {
    let stage = Stage::new(|config| keeping(config).max_concurrent_refreshes(1)).await;
    let scene = Scene::of(&stage);
    let mock = &stage.mock;
    let (valid, carol) = (mock.sign_in("alice"), expired(mock, "carol"));
    let bobs: [_; 10] = std::array::from_fn(|_| expired(mock, "bob"));
    scene.get(&carol).await.assert_refreshed("carol", "before");

    let hang = Failure { name: "a hang", mode: Mode::Answers(Fault::Hang), conclusion: Conclusion::Nothing };
    hang.begin(&scene, Endpoint::Refresh).await;
    // One has the permit, and eight are in the queue.
    let waiting = join_all(bobs[..9].iter().map(|bob| scene.get(bob)));
    let meanwhile = async || {
        assert_inconclusive(&scene.get(&bobs[9]).await, OutagePolicy::KeepSession, "one too many");
        scene.get(&valid).await.assert_passed("alice", "valid");
        scene.get(&carol).await.assert_refreshed("carol", "a latecomer");
    };
    for answer in hang.wait_through(&scene, Endpoint::Refresh, 1, waiting, meanwhile).await {
        assert_inconclusive(&answer, OutagePolicy::KeepSession, "waited");
    }
    assert_eq!(scene.calls(), Calls { keys: 1, refreshes: 2, ..NO_CALLS });
    assert_eq!(bobs.each_ref().map(|bob| scene.sent(bob)), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

    pass(LATE).await;
    scene.auth.wait_idle().await;
    hang.end(&scene);
    for (index, bob) in bobs.iter().enumerate() {
        scene.get(bob).await.assert_refreshed("bob", &format!("{index}, after the hang"));
    }
    assert_eq!(scene.calls(), Calls { keys: 1, refreshes: 12, ..NO_CALLS });
}

#[tokio::test]
async fn a_pair_whose_key_is_unavailable_is_stored_unverified_and_accepted_later() {
    let stage = Stage::new(keeping).await;
    let (mock, outdated) = (&stage.mock, stage.outdate_keys());
    // Failures to connect are covered by the tables above.
    for failure in failures().iter().filter(|failure| failure.arrivals() > 0) {
        let case = failure.name;
        let scene = failure.scene(&stage);
        mock.inject_times(Endpoint::Keys, 1, outdated.clone());
        scene.auth.warm_up().await.unwrap();
        failure.begin(&scene, Endpoint::Keys).await;
        let alice = expired(mock, "alice");
        let crowd = scene.crowd(&alice, CROWD);
        for answer in failure.wait_through(&scene, Endpoint::Keys, 1, crowd, async || ()).await {
            assert_eq!((answer.status, answer.stores_a_session()), (503, true), "{case}: {answer:?}");
        }
        assert_eq!(scene.calls(), Calls { keys: 2, refreshes: 1, ..NO_CALLS }, "{case}");
        failure.end(&scene);
        scene.get(&alice).await.assert_refreshed("alice", case);
        assert_eq!((scene.calls(), scene.sent(&alice)), (Calls { keys: 3, refreshes: 2, ..NO_CALLS }, 1), "{case}");
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_causes_no_failure() {
    let stage = Stage::new(keeping).await;
    let scene = Scene::of(&stage);
    let mock = &stage.mock;
    for round in 1..=10 {
        let case = &round.to_string();
        scene.get(&expired(mock, "alice")).await.assert_refreshed("alice", case);
        mock.close_connections();
        mock.disconnected().await;
        scene.get(&expired(mock, "bob")).await.assert_refreshed("bob", case);
        mock.close_connections();
        mock.disconnected().await;
        let logout = scene.post(LOGOUT_ROUTE, &mock.sign_in("carol").cookie_header()).await;
        assert_eq!(logout.status, 200, "{case}");
        mock.close_connections();
        mock.disconnected().await;
        pass(Duration::from_secs(60 * 60)).await;
        scene.get(&mock.sign_in("dave")).await.assert_passed("dave", case);
        assert_eq!(
            scene.calls(),
            Calls { keys: 1 + round, refreshes: 2 * round, logouts: round, ..NO_CALLS },
            "{case}"
        );
    }
}

const STRICT: Duration = Duration::ZERO;
const FORGIVING: Duration = Duration::from_secs(30);
/// A late answer is accepted for a quarter longer than the time limit.
const LATE: Duration = Duration::from_millis(2500);
