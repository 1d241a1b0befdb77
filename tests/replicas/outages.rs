//! What happens while the store, or the network in front of it, fails.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tower_crossmint_auth::testing::Endpoint;

use crate::{
    proxy::{Network, Part, Proxy},
    replica::Options,
    stage::Stage,
    store::Store,
};

#[tokio::test]
async fn without_a_store_replicas_go_on_alone() {
    let Some(stage) = Stage::configured(1, at_the_store).await else { return };
    stage.store.kill().await;
    let before = stage.replicas[0].stat("shared_unreachable").await;
    let started = Instant::now();
    for user in ["alice", "bob", "carol"] {
        let session = stage.expired(user);
        let received = stage.get(0, &session).await.session(user);
        stage.assert_alive(&session, &received, 1);
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(stage.replicas[0].stat("shared_unreachable").await >= before + 3);

    stage.store.restart().await;
    is_shared_again(&stage).await;
}

#[tokio::test]
async fn without_a_store_replicas_that_are_to_wait_keep_the_session() {
    let waiting = |stage: &Stage, number, options| Options { waits: true, ..at_the_store(stage, number, options) };
    let Some(stage) = Stage::configured(2, waiting).await else { return };
    stage.store.kill().await;
    let (alice, valid) = (stage.expired("alice"), stage.mock.sign_in("bob"));
    for replica in [0, 1, 0] {
        stage.get(replica, &alice).await.assert_try_later();
    }
    let answer = stage.get(0, &valid).await;
    assert_eq!((answer.status, &*answer.body), (200, "bob"), "a valid JWT needs no store");
    assert_eq!(stage.sent(&alice), 0);

    stage.store.restart().await;
    let received = stage.get_patiently(0, &alice).await.session("alice");
    assert_eq!(stage.get_patiently(1, &alice).await.session("alice"), received);
    stage.assert_alive(&alice, &received, 1);
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up_after_three_commands() {
    for hang in [Hang::Network, Hang::Process] {
        let Some(stage) = Stage::configured(1, brief).await else { return };
        hang.begin(&stage).await;
        let before = stage.proxies[0].scripts();
        refreshes_alone(&stage).await;
        // Each refresh would send two. Those in the background may be under way when the third command times out.
        let sent = stage.proxies[0].scripts() - before;
        assert!((1..=6).contains(&sent), "{hang:?}: {sent}");

        hang.end(&stage).await;
        is_shared_again(&stage).await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Hang {
    Network,
    Process,
}

impl Hang {
    async fn begin(self, stage: &Stage) {
        match self {
            Self::Network => stage.proxies[0].set(Network::Deaf),
            Self::Process => stage.store.signal("STOP").await,
        }
    }

    async fn end(self, stage: &Stage) {
        match self {
            Self::Network => stage.proxies[0].set(Network::Works),
            Self::Process => stage.store.signal("CONT").await,
        }
    }
}

#[tokio::test]
async fn a_store_whose_writes_are_paused_costs_time_and_nothing_else() {
    let Some(stage) = Stage::configured(1, brief).await else { return };
    // As `FAILOVER` does. Scripts count as writes.
    stage.store.command::<()>("CLIENT PAUSE 60000 WRITE").await;
    refreshes_alone(&stage).await;
    stage.store.command::<()>("CLIENT UNPAUSE").await;
    is_shared_again(&stage).await;
}

#[tokio::test]
async fn those_who_have_seen_a_claim_wait_for_it_whatever_becomes_of_the_store() {
    for trouble in
        [Trouble::Flush, Trouble::ScriptFlush, Trouble::Restart, Trouble::Reset, Trouble::Slow, Trouble::Failover]
    {
        let Some(stage) = Stage::new(2).await else { return };
        let Some(empty) = Store::start().await else { return };
        let alice = stage.expired("alice");
        let sending = stage.mock.hold(Endpoint::Refresh);
        let sent = stage.next_refresh();
        let following = async {
            sent.await;
            let scene = async {
                trouble.make(&stage, &empty).await;
                // It has looked again, and has found what the trouble has left of the claim.
                let looks = stage.proxies[1].scripts() + 4;
                while stage.proxies[1].scripts() < looks {
                    sleep(Duration::from_millis(10)).await;
                }
                drop(sending);
            };
            stage.get_while(1, &alice, scene).await
        };
        let (leader, follower) = tokio::join!(stage.get(0, &alice), following);
        let received = leader.session("alice");
        assert_eq!(follower.session("alice"), received, "{trouble:?}");
        assert_eq!(stage.sent(&alice), 1, "{trouble:?}");
        stage.assert_alive(&alice, &received, 1);
    }
}

#[derive(Debug)]
enum Trouble {
    Flush,
    ScriptFlush,
    Restart,
    Reset,
    Slow,
    /// The server that takes over knows nothing.
    Failover,
}

impl Trouble {
    async fn make(&self, stage: &Stage, empty: &Store) {
        let proxies = &stage.proxies;
        match self {
            Self::Flush => stage.store.command("FLUSHALL").await,
            Self::ScriptFlush => stage.store.command("SCRIPT FLUSH").await,
            Self::Restart => {
                stage.store.kill().await;
                stage.store.restart().await;
            }
            Self::Reset => proxies.iter().for_each(Proxy::reset),
            Self::Slow => proxies.iter().for_each(|proxy| proxy.set(Network::Slow(Duration::from_millis(40)))),
            Self::Failover => proxies.iter().for_each(|proxy| proxy.redirect(empty.address())),
        }
    }
}

#[tokio::test]
async fn a_claim_survives_a_failover_that_loses_no_writes() {
    let Some(stage) = Stage::new(3).await else { return };
    let primary = stage.store.port.to_string();
    let Some(secondary) = Store::with(&["--replicaof", "127.0.0.1", &primary]).await else { return };
    let alice = stage.expired("alice");
    let sending = stage.mock.hold(Endpoint::Refresh);
    let sent = stage.next_refresh();
    let failover = async {
        sent.await;
        // Once a later write has arrived there, the claim has.
        let mut connection = stage.store.connect().await;
        redis::cmd("SET").arg("later").arg("").exec_async(&mut connection).await.unwrap();
        let arrived: u32 = redis::cmd("WAIT").arg(1).arg(10_000).query_async(&mut connection).await.unwrap();
        assert_eq!(arrived, 1);
        stage.store.kill().await;
        secondary.command::<()>("REPLICAOF NO ONE").await;
        stage.proxies.iter().for_each(|proxy| proxy.redirect(secondary.address()));
        // The third replica has not seen the claim before.
        stage.get_while(2, &alice, async { drop(sending) }).await
    };
    let (leader, late) = tokio::join!(stage.get(0, &alice), failover);
    let received = leader.session("alice");
    assert_eq!(late.session("alice"), received);
    stage.assert_alive(&alice, &received, 1);
}

#[tokio::test]
async fn a_primary_that_becomes_read_only_is_connected_to_anew() {
    let Some(stage) = Stage::new(1).await else { return };
    let Some(other) = Store::start().await else { return };
    // As after a failover behind one address, whose old connections still lead to the old primary.
    stage.store.command::<()>(&format!("REPLICAOF 127.0.0.1 {}", other.port)).await;
    let connections = stage.proxies[0].connections();
    let alice = stage.expired("alice");
    let received = stage.get(0, &alice).await.session("alice");
    stage.assert_alive(&alice, &received, 1);
    timeout(Duration::from_secs(10), stage.proxies[0].connected(connections + 1)).await.unwrap();
    stage.proxies[0].redirect(other.address());
    is_shared_again(&stage).await;
}

#[tokio::test]
async fn a_replica_that_is_cut_off_from_the_store_fails_alone() {
    for network in [Network::Closes, Network::Resets, Network::Deaf] {
        let waiting = |_: &Stage, _, options| Options { waits: true, ..options };
        let Some(stage) = Stage::configured(2, waiting).await else { return };
        let [alice, bob] = ["alice", "bob"].map(|user| stage.expired(user));
        stage.proxies[0].set(network);
        stage.get(0, &alice).await.assert_try_later();
        let received = stage.get(1, &bob).await.session("bob");
        stage.assert_alive(&bob, &received, 1);
        assert_eq!(stage.sent(&alice), 0, "{network:?}");

        stage.proxies[0].set(Network::Works);
        let received = stage.get_patiently(0, &alice).await.session("alice");
        stage.assert_alive(&alice, &received, 1);
        let received = stage.get_patiently(0, &bob).await.session("bob");
        stage.assert_alive(&bob, &received, 1);
    }
}

#[tokio::test]
async fn a_claim_that_arrives_late_is_given_up() {
    let waiting = |_: &Stage, number, options| Options { waits: number == 0, ..options };
    let Some(stage) = Stage::configured(2, waiting).await else { return };
    let alice = stage.expired("alice");
    let claim = stage.proxies[0].hold(2, Part::Request);
    let hang = async {
        claim.reached().await;
        stage.store.signal("STOP").await;
        drop(claim);
    };
    let (answer, ()) = tokio::join!(stage.get(0, &alice), hang);
    answer.assert_try_later();
    stage.store.signal("CONT").await;
    let received = stage.get(1, &alice).await.session("alice");
    stage.assert_alive(&alice, &received, 1);
    assert_eq!(stage.replicas[1].stat("shared_lost").await, 0);
}

#[tokio::test]
async fn a_replica_that_is_shut_down_stores_the_successor_first() {
    let Some(mut stage) = Stage::new(2).await else { return };
    let alice = stage.expired("alice");
    let answers = stage.mock.hold_answers(Endpoint::Refresh);
    let sent = stage.next_refresh();
    let cut = async {
        sent.await;
        stage.proxies[0].set(Network::Resets);
        drop(answers);
    };
    let (answer, ()) = tokio::join!(stage.get(0, &alice), cut);
    let received = answer.session("alice");
    let mut ending = stage.replicas.remove(0);
    let mend = async {
        stage.proxies[0].set(Network::Works);
    };
    tokio::join!(ending.shut_down(), mend);
    assert_eq!(stage.get(0, &alice).await.session("alice"), received);
    stage.assert_alive(&alice, &received, 1);
}

/// Has a replica wait for a command for as long as it does by default.
fn brief(_: &Stage, _: usize, options: Options) -> Options {
    Options { time_limit: Duration::from_millis(50), ..options }
}

/// Has a replica find the store without a proxy: connections are refused while it is dead.
fn at_the_store(stage: &Stage, _: usize, options: Options) -> Options {
    Options { store: Some(format!("redis://{}", stage.store.address())), ..options }
}

/// Has the first replica refresh ten sessions, none of which takes long.
async fn refreshes_alone(stage: &Stage) {
    for number in 0..10 {
        let (user, started) = (format!("user-{number}"), Instant::now());
        let session = stage.expired(&user);
        let received = stage.get(0, &session).await.session(&user);
        stage.assert_alive(&session, &received, 1);
        assert!(started.elapsed() < Duration::from_secs(1), "{user}: {:?}", started.elapsed());
    }
}

/// Waits until the first replica records its refreshes again.
async fn is_shared_again(stage: &Stage) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let before = stage.replicas[0].stat("shared_claims").await;
    while stage.replicas[0].stat("shared_claims").await == before {
        assert!(Instant::now() < deadline, "the replica stays alone");
        let session = stage.expired("dave");
        let received = stage.get(0, &session).await.session("dave");
        stage.assert_alive(&session, &received, 1);
        sleep(Duration::from_millis(20)).await;
    }
}
