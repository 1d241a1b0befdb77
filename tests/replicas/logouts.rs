//! Logouts at one replica, as the others see them.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_crossmint_auth::testing::Endpoint;

use crate::{
    proxy::Part,
    replica::Replica,
    stage::{Stage, options},
};

#[tokio::test]
async fn a_logout_at_another_replica_ends_a_refresh_that_is_under_way() {
    let Some(stage) = Stage::new(3).await else { return };
    let alice = stage.expired("alice");
    let answers = stage.mock.hold_answers(Endpoint::Refresh);
    let sent = stage.next_refresh();
    let logout = async {
        sent.await;
        let answer = stage.replicas[1].log_out(alice.cookie_header()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        // Its replica knows no successor that it could revoke.
        assert_eq!(stage.mock.calls(Endpoint::Logout), 0);
        let follower = stage.get(2, &alice).await;
        drop(answers);
        follower
    };
    let (leader, follower) = tokio::join!(stage.get(0, &alice), logout);
    leader.assert_ended();
    follower.assert_ended();
    for replica in [0, 1, 2] {
        stage.get(replica, &alice).await.assert_ended();
    }
    assert_eq!((stage.sent(&alice), stage.mock.calls(Endpoint::Logout), stage.mock.reuse_detections()), (1, 1, 0));
    // Those of the rehearsal.
    assert_eq!(stage.mock.live_sessions(), 3);
}

#[tokio::test]
async fn those_who_follow_a_refresh_hear_of_the_logout() {
    let Some(stage) = Stage::new(3).await else { return };
    let alice = stage.expired("alice");
    let sending = stage.mock.hold(Endpoint::Refresh);
    let sent = stage.next_refresh();
    let following = async {
        sent.await;
        let logout = async { stage.replicas[2].log_out(alice.cookie_header()).await };
        // While Crossmint has not answered.
        stage.get_while(1, &alice, logout).await.assert_ended();
        drop(sending);
    };
    let (leader, ()) = tokio::join!(stage.get(0, &alice), following);
    leader.assert_ended();
    assert_eq!((stage.sent(&alice), stage.mock.calls(Endpoint::Logout), stage.mock.live_sessions()), (1, 1, 3));
}

#[tokio::test]
async fn a_rotated_token_is_refused_everywhere_after_a_logout() {
    let Some(stage) = Stage::new(3).await else { return };
    let alice = stage.expired("alice");
    let received = stage.get(0, &alice).await.session("alice");
    // Remembered at a second replica, too.
    assert_eq!(stage.get(1, &alice).await.session("alice"), received);
    let answer = stage.replicas[2].log_out(received.cookies.clone()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for replica in [0, 1, 2] {
        stage.get(replica, &alice).await.assert_ended();
    }
    assert_eq!((stage.sent(&alice), stage.mock.calls(Endpoint::Refresh)), (1, 4), "three of them are rehearsals");
    assert_eq!((stage.mock.live_sessions(), stage.mock.reuse_detections()), (3, 0));
}

#[tokio::test]
async fn a_logout_with_a_rotated_token_ends_the_latest_session() {
    let Some(stage) = Stage::new(3).await else { return };
    let alice = stage.expired("alice");
    let received = stage.get(0, &alice).await.session("alice");
    let second = stage.replicas[1].get(received.without_jwt()).await.session("alice");
    assert_eq!(stage.replicas[2].log_out(alice.cookie_header()).await.status, 200);
    assert!(!stage.mock.is_live(&second.refresh_token));
    for cookies in [alice.cookie_header(), received.without_jwt(), second.without_jwt()] {
        for replica in &stage.replicas {
            replica.get(cookies.clone()).await.assert_ended();
        }
    }
    assert_eq!((stage.mock.live_sessions(), stage.mock.reuse_detections()), (3, 0));
}

#[tokio::test]
async fn a_jwt_is_refused_at_all_replicas_within_a_second_of_the_logout() {
    let Some(mut stage) = Stage::new(3).await else { return };
    let alice = stage.mock.sign_in("alice");
    for replica in [0, 1, 2] {
        let answer = stage.get(replica, &alice).await;
        assert_eq!((answer.status, &*answer.body), (200, "alice"));
    }
    assert_eq!(stage.replicas[0].log_out(alice.cookie_header()).await.status, 200);
    for replica in [0, 1, 2] {
        until_refused(&stage, replica, &alice.cookie_header()).await;
    }
    // The session itself is refused by the record of the logout.
    assert_eq!((stage.sent(&alice), stage.mock.live_sessions()), (0, 3));

    // So it is at a replica that starts later, within a second of its first request.
    let options = options(&stage.mock, &format!("redis://{}", stage.store.address()));
    stage.replicas.push(Replica::start(&options).await);
    stage.get(3, &stage.mock.sign_in("bob")).await;
    until_refused(&stage, 3, &alice.cookie_header()).await;
    assert_eq!(stage.sent(&alice), 0);
}

#[tokio::test]
async fn a_logout_is_recorded_once_the_store_is_back() {
    let Some(stage) = Stage::new(2).await else { return };
    let alice = stage.expired("alice");
    let received = stage.get(0, &alice).await.session("alice");
    // The store has got the logout, and its answer is lost.
    let ended = stage.proxies[0].hold(1, Part::Reply);
    let losing = async {
        ended.reached().await;
        stage.proxies[0].reset();
    };
    let (answer, ()) = tokio::join!(stage.replicas[0].log_out(received.cookies.clone()), losing);
    assert_eq!(answer.status, 200, "{answer:?}");
    stage.replicas[0].idle().await;
    stage.get(1, &alice).await.assert_ended();
    assert_eq!((stage.sent(&alice), stage.mock.live_sessions(), stage.mock.reuse_detections()), (1, 2, 0));
}

#[tokio::test]
async fn a_logout_reaches_crossmint_although_the_replica_that_refreshes_the_session_dies() {
    let Some(stage) = Stage::with_short_leases(2).await else { return };
    let alice = stage.expired("alice");
    let claimed = stage.proxies[0].hold(2, Part::Reply);
    let dying = async {
        claimed.reached().await;
        stage.replicas[0].kill().await;
    };
    tokio::join!(stage.get_in_vain(0, &alice), dying);
    let answer = stage.replicas[1].log_out(alice.cookie_header()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // At the latest when the claim is over.
    stage.replicas[1].idle().await;
    assert!(!stage.mock.is_live(alice.refresh_token()));
    assert_eq!((stage.sent(&alice), stage.mock.calls(Endpoint::Logout)), (0, 1));
}

#[tokio::test]
async fn a_jwt_that_was_handed_out_before_the_logout_was_recorded_is_refused_everywhere() {
    let Some(stage) = Stage::new(3).await else { return };
    let alice = stage.expired("alice");
    // What has become of the token, which is recorded after the look and the claim.
    let outcome = stage.proxies[0].hold(3, Part::Request);
    let received = stage.get(0, &alice).await.session("alice");
    let answer = stage.replicas[1].log_out(alice.cookie_header()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(stage.mock.calls(Endpoint::Logout), 0, "the successor is not known there");
    drop(outcome);
    stage.replicas[0].idle().await;
    assert!(!stage.mock.is_live(&received.refresh_token));
    for replica in [0, 1, 2] {
        until_refused(&stage, replica, &received.cookies).await;
    }
    assert_eq!((stage.sent(&alice), stage.mock.calls(Endpoint::Logout), stage.mock.live_sessions()), (1, 1, 3));
}

/// Waits until a replica refuses a session that has been signed out. A busy machine gets more time than a second.
async fn until_refused(stage: &Stage, replica: usize, cookies: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = stage.replicas[replica].get(cookies).await;
        if answer.status != 200 {
            return answer.assert_ended();
        }
        assert!(Instant::now() < deadline, "replica {replica} still accepts the JWT");
        // The only sign of it is that the replica refuses the JWT.
        sleep(Duration::from_millis(20)).await;
    }
}
