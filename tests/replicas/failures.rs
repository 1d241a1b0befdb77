//! What becomes of a session when a replica fails in the middle of its refresh.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tower_crossmint_auth::testing::{Endpoint, Fault};

use crate::{
    proxy::{Network, Part},
    replica::Options,
    stage::{SHORT_LEASE, Stage},
};

#[tokio::test]
async fn replicas_that_get_one_token_at_once_send_it_once() {
    let Some(stage) = Stage::new(3).await else { return };
    let alice = stage.expired("alice");
    let claims = [0, 1, 2].map(|replica| stage.proxies[replica].hold(2, Part::Request));
    let get = |replica| stage.get(replica, &alice);
    let requests = async { tokio::join!(get(0), get(0), get(1), get(1), get(2), get(2)) };
    let scene = async {
        // All have found nothing.
        for claim in &claims {
            claim.reached().await;
        }
        drop(claims);
    };
    let (answers, ()) = tokio::join!(requests, scene);
    let received = <[_; 6]>::from(answers).map(|answer| answer.session("alice"));
    assert!(received.iter().all(|session| *session == received[0]), "{received:?}");
    stage.assert_alive(&alice, &received[0], 1);
}

#[tokio::test]
async fn a_replica_that_dies_before_its_claim_holds_up_nobody() {
    let Some(stage) = Stage::new(2).await else { return };
    let alice = stage.expired("alice");
    let claim = stage.proxies[0].hold(2, Part::Request);
    let dying = async {
        claim.reached().await;
        stage.replicas[0].kill().await;
    };
    tokio::join!(stage.get_in_vain(0, &alice), dying);
    stage.proxies[0].reset();
    drop(claim);
    let received = stage.get(1, &alice).await.session("alice");
    stage.assert_alive(&alice, &received, 1);
}

#[tokio::test]
async fn the_claim_of_a_replica_that_died_before_it_sent_the_token_is_taken_over() {
    let Some(stage) = Stage::with_short_leases(2).await else { return };
    let alice = stage.expired("alice");
    let claimed = stage.proxies[0].hold(2, Part::Reply);
    let dying = async {
        claimed.reached().await;
        stage.replicas[0].kill().await;
        Instant::now()
    };
    let ((), claimed_at) = tokio::join!(stage.get_in_vain(0, &alice), dying);
    stage.get(1, &alice).await.assert_try_later();
    assert_eq!(stage.sent(&alice), 0);
    sleep_until(claimed_at + SHORT_LEASE).await;
    let received = stage.get(1, &alice).await.session("alice");
    stage.assert_alive(&alice, &received, 1);
    assert_eq!(stage.replicas[1].stat("shared_takeovers").await, 1);
}

#[tokio::test]
async fn the_claim_of_a_replica_that_died_before_crossmint_got_the_token_is_taken_over() {
    let Some(stage) = Stage::with_short_leases(3).await else { return };
    let alice = stage.expired("alice");
    stage.mock.inject_times(Endpoint::Refresh, 1, Fault::Hang);
    let sent = stage.next_refresh();
    let dying = async {
        sent.await;
        stage.replicas[0].kill().await;
        Instant::now()
    };
    let ((), sent_at) = tokio::join!(stage.get_in_vain(0, &alice), dying);
    stage.get(1, &alice).await.assert_try_later();
    assert_eq!(stage.sent(&alice), 1);
    sleep_until(sent_at + SHORT_LEASE).await;
    let (answer, other) = tokio::join!(stage.get(1, &alice), stage.get(2, &alice));
    let received = answer.session("alice");
    assert_eq!(other.session("alice"), received);
    stage.assert_alive(&alice, &received, 2);
}

#[tokio::test]
async fn a_token_that_two_replicas_have_died_over_is_not_sent_a_third_time() {
    let Some(stage) = Stage::with_short_leases(3).await else { return };
    let alice = stage.expired("alice");
    stage.mock.inject_times(Endpoint::Refresh, 2, Fault::Hang);
    for replica in [0, 1] {
        let sent = stage.next_refresh();
        let dying = async {
            sent.await;
            stage.replicas[replica].kill().await;
            Instant::now()
        };
        let ((), sent_at) = tokio::join!(stage.get_in_vain(replica, &alice), dying);
        sleep_until(sent_at + SHORT_LEASE).await;
    }
    stage.get(2, &alice).await.assert_try_later();
    assert_eq!((stage.sent(&alice), stage.replicas[2].stat("shared_lost").await), (2, 1));
    assert!(stage.mock.is_live(alice.refresh_token()));
}

#[tokio::test]
async fn the_session_of_a_replica_that_died_with_the_only_copy_ends_after_one_more_send() {
    let Some(stage) = Stage::with_short_leases(3).await else { return };
    let alice = stage.expired("alice");
    let answers = stage.mock.hold_answers(Endpoint::Refresh);
    let sent = stage.next_refresh();
    let dying = async {
        sent.await;
        assert!(!stage.mock.is_live(alice.refresh_token()), "it is spent");
        stage.replicas[0].kill().await;
        Instant::now()
    };
    let ((), sent_at) = tokio::join!(stage.get_in_vain(0, &alice), dying);
    drop(answers);
    stage.get(1, &alice).await.assert_try_later();
    sleep_until(sent_at + SHORT_LEASE).await;
    for replica in [1, 2, 1] {
        stage.get(replica, &alice).await.assert_ended();
        assert_eq!((stage.sent(&alice), stage.mock.reuse_detections()), (2, 1));
    }
}

#[tokio::test]
async fn those_who_follow_a_refresh_share_its_failure() {
    let Some(stage) = Stage::new(2).await else { return };
    let alice = stage.expired("alice");
    stage.mock.inject_times(Endpoint::Refresh, 1, Fault::Status(500));
    let sending = stage.mock.hold(Endpoint::Refresh);
    let sent = stage.next_refresh();
    let following = async {
        sent.await;
        stage.get_while(1, &alice, async { drop(sending) }).await
    };
    let (leader, follower) = tokio::join!(stage.get(0, &alice), following);
    leader.assert_try_later();
    follower.assert_try_later();
    assert_eq!(stage.sent(&alice), 1);
    let received = stage.get_patiently(1, &alice).await.session("alice");
    stage.assert_alive(&alice, &received, 2);
}

#[tokio::test]
async fn a_token_that_crossmint_has_refused_is_sent_by_no_other_replica() {
    let Some(stage) = Stage::new(3).await else { return };
    let alice = stage.expired("alice");
    stage.mock.revoke(alice.refresh_token());
    for replica in [0, 1, 2] {
        stage.get(replica, &alice).await.assert_ended();
    }
    assert_eq!((stage.sent(&alice), stage.mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn a_successor_that_was_stored_survives_its_replica() {
    let Some(stage) = Stage::new(2).await else { return };
    let alice = stage.expired("alice");
    let stored = stage.proxies[0].hold(3, Part::Reply);
    let sending = stage.mock.hold(Endpoint::Refresh);
    let sent = stage.next_refresh();
    let scene = async {
        sent.await;
        let dying = async {
            drop(sending);
            stored.reached().await;
            stage.replicas[0].kill().await;
        };
        stage.get_while(1, &alice, dying).await
    };
    let ((), answer) = tokio::join!(stage.get_in_vain(0, &alice), scene);
    let received = answer.session("alice");
    stage.assert_alive(&alice, &received, 1);
    // So does one that nobody has waited for.
    assert_eq!(stage.get(1, &alice).await.session("alice"), received);
    stage.assert_alive(&alice, &received, 1);
}

#[tokio::test]
async fn no_browser_gets_a_successor_before_the_store_does() {
    let Some(stage) = Stage::new(1).await else { return };
    let alice = stage.expired("alice");
    let storing = stage.proxies[0].hold(3, Part::Request);
    let dying = async {
        storing.reached().await;
        stage.replicas[0].kill().await;
    };
    tokio::join!(stage.get_in_vain(0, &alice), dying);
}

#[tokio::test]
async fn a_replica_that_dies_while_it_follows_takes_nothing_with_it() {
    let Some(stage) = Stage::new(3).await else { return };
    let alice = stage.expired("alice");
    let sending = stage.mock.hold(Endpoint::Refresh);
    let sent = stage.next_refresh();
    let second_look = stage.proxies[1].hold(2, Part::Request);
    let following = async {
        sent.await;
        let dying = async {
            second_look.reached().await;
            stage.replicas[1].kill().await;
        };
        tokio::join!(stage.get_in_vain(1, &alice), dying);
        drop(sending);
    };
    let (answer, ()) = tokio::join!(stage.get(0, &alice), following);
    let received = answer.session("alice");
    assert_eq!(stage.get(2, &alice).await.session("alice"), received);
    stage.assert_alive(&alice, &received, 1);
}

#[tokio::test]
async fn a_claim_holds_for_as_long_as_crossmint_may_take_and_the_late_successor_is_kept() {
    let short = |_: &Stage, _, options| Options { refresh_timeout: Duration::from_secs(4), ..options };
    let Some(stage) = Stage::configured(3, short).await else { return };
    let alice = stage.expired("alice");
    let answers = stage.mock.hold_answers(Endpoint::Refresh);
    // The call itself may take a second longer than a request waits.
    let (leader, follower) = tokio::join!(stage.get(0, &alice), stage.get(1, &alice));
    drop(answers);
    leader.assert_try_later();
    follower.assert_try_later();
    let received = stage.get(2, &alice).await.session("alice");
    for replica in [0, 1] {
        assert_eq!(stage.get(replica, &alice).await.session("alice"), received, "{replica}");
    }
    stage.assert_alive(&alice, &received, 1);
}

#[tokio::test]
async fn a_successor_that_cannot_be_stored_is_handed_out_and_stored_later() {
    let Some(stage) = Stage::new(2).await else { return };
    let alice = stage.expired("alice");
    let answers = stage.mock.hold_answers(Endpoint::Refresh);
    let sent = stage.next_refresh();
    let scene = async {
        sent.await;
        stage.proxies[0].set(Network::Resets);
        drop(answers);
    };
    let (answer, ()) = tokio::join!(stage.get(0, &alice), scene);
    let received = answer.session("alice");
    // The claim is not given up meanwhile.
    let mending = async { stage.proxies[0].set(Network::Works) };
    assert_eq!(stage.get_while(1, &alice, mending).await.session("alice"), received);
    stage.assert_alive(&alice, &received, 1);
}

#[tokio::test]
async fn a_replica_that_is_stopped_beyond_its_lease_costs_one_more_send() {
    let Some(stage) = Stage::with_short_leases(2).await else { return };
    let alice = stage.expired("alice");
    stage.mock.inject_times(Endpoint::Refresh, 1, Fault::Hang);
    let sent = stage.next_refresh();
    let scene = async {
        sent.await;
        stage.replicas[0].signal("STOP").await;
        sleep_until(Instant::now() + SHORT_LEASE).await;
        let received = stage.get(1, &alice).await.session("alice");
        stage.replicas[0].signal("CONT").await;
        received
    };
    let (late, received) = tokio::join!(stage.get(0, &alice), scene);
    late.assert_try_later();
    // It adopts what it finds in the place of its own failure.
    stage.replicas[0].idle().await;
    assert_eq!(stage.get(0, &alice).await.session("alice"), received);
    stage.assert_alive(&alice, &received, 2);
}

#[tokio::test]
async fn a_replica_that_is_stopped_with_the_only_copy_costs_one_more_send_and_the_session() {
    let Some(stage) = Stage::with_short_leases(2).await else { return };
    let alice = stage.expired("alice");
    let answers = stage.mock.hold_answers(Endpoint::Refresh);
    let sent = stage.next_refresh();
    let scene = async {
        sent.await;
        stage.replicas[0].signal("STOP").await;
        drop(answers);
        sleep_until(Instant::now() + SHORT_LEASE).await;
        stage.get(1, &alice).await.assert_ended();
        stage.replicas[0].signal("CONT").await;
    };
    let (late, ()) = tokio::join!(stage.replicas[0].try_get(alice.cookie_header()), scene);
    assert!(late.is_some_and(|late| [200, 401, 503].contains(&late.status)), "it answers once it goes on");
    stage.replicas[0].idle().await;
    assert_eq!((stage.sent(&alice), stage.mock.reuse_detections(), stage.mock.live_sessions()), (2, 1, 2));
}
