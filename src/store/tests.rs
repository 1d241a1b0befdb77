//! What every store does. Each test runs against the double and, if there is one, against a server.

use std::{sync::Mutex, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    interface::Store,
    memory::MemoryStore,
    record::{Chain, Claim, Claimed, Fence, Finished, Id, LOG_PAGE, MAX_ANSWERS, Outcome, Previous, Tail},
    test_server::TestServer,
    watches::Watch,
};
use crate::{session::RevokedJwt, test_support::Random};

macro_rules! every_store {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::MemoryStore::default()).await;
            })*
        }

        mod server {
            $(#[tokio::test]
            async fn $name() {
                let Some(server) = super::TestServer::start(&[]) else { return };
                let store = server.store();
                super::Store::connect(&store).await.expect("a connection");
                super::$name(&store).await;
            })*
        }
    };
}

every_store!(
    an_answer_is_recorded_and_followed,
    a_claim_may_be_repeated,
    a_claim_that_is_over_is_taken_over_once,
    a_failure_needs_the_fence_of_the_claim,
    a_late_answer_replaces_a_failure,
    a_released_claim_does_not_count,
    failures_and_refusals_expire,
    a_logout_beats_an_answer,
    a_logout_during_a_claim_is_seen_at_once_and_by_the_claimer,
    a_logout_outlives_the_claim_that_it_has_met,
    a_logout_of_a_rotated_token_returns_its_answer,
    a_delivery_shortens_the_life_of_a_record_but_never_lengthens_it,
    a_long_chain_is_read_in_parts,
    values_are_binary,
    the_log_is_read_in_pages,
    changes_wake_those_who_watch,
);

async fn an_answer_is_recorded_and_followed(store: &dyn Store) {
    assert_eq!(look(store, TOKEN).await, tail(Tail::Absent));
    assert_eq!(claim(store, TOKEN, MINE).await, Claimed::Granted { is_takeover: false });
    let seen = look(store, TOKEN).await;
    let Tail::Claimed { proof, lease } = &seen.tail else { panic!("{seen:?}") };
    assert_eq!((proof.as_slice(), seen.answers.len()), (&b"proof"[..], 0));
    assert!(*lease <= LONG && *lease > LONG / 2, "{lease:?}");
    assert!(matches!(claim(store, TOKEN, OTHER).await, Claimed::Denied(Chain { tail: Tail::Claimed { .. }, .. })));
    assert_eq!(finish(store, TOKEN, MINE, done("answer", NEXT)).await, Finished::Recorded);
    assert_eq!(finish(store, TOKEN, MINE, done("answer", NEXT)).await, Finished::Recorded);
    let rotated = Chain { answers: vec![b"answer".to_vec()], tail: Tail::Absent };
    assert_eq!(look(store, TOKEN).await, rotated);
    assert_eq!(claim(store, TOKEN, OTHER).await, Claimed::Denied(rotated));
    assert_eq!(look(store, NEXT).await, tail(Tail::Absent));
}

async fn a_claim_may_be_repeated(store: &dyn Store) {
    for _ in 0..3 {
        assert_eq!(claim(store, TOKEN, MINE).await, Claimed::Granted { is_takeover: false });
    }
    assert!(matches!(claim(store, TOKEN, OTHER).await, Claimed::Denied(_)));
}

async fn a_claim_that_is_over_is_taken_over_once(store: &dyn Store) {
    claim_for(store, TOKEN, MINE, SHORT).await;
    until(store, TOKEN, tail(Tail::Stalled)).await;
    for _ in 0..2 {
        assert_eq!(claim_for(store, TOKEN, OTHER, SHORT).await, Claimed::Granted { is_takeover: true });
    }
    until(store, TOKEN, tail(Tail::Lost(b"proof".to_vec()))).await;
    assert_eq!(claim(store, TOKEN, MINE).await, Claimed::Denied(tail(Tail::Lost(b"proof".to_vec()))));
    assert_eq!(
        finish(store, TOKEN, MINE, refused("late")).await,
        Finished::Superseded(tail(Tail::Lost(b"proof".to_vec())))
    );
    assert_eq!(finish(store, TOKEN, MINE, done("late", NEXT)).await, Finished::Recorded);
}

async fn a_failure_needs_the_fence_of_the_claim(store: &dyn Store) {
    for outcome in [refused("no"), failed("no", LONG), Outcome::Released] {
        assert_eq!(finish(store, TOKEN, MINE, outcome).await, Finished::Superseded(tail(Tail::Absent)));
    }
    claim(store, TOKEN, MINE).await;
    for outcome in [refused("no"), failed("no", LONG), Outcome::Released] {
        let finished = finish(store, TOKEN, OTHER, outcome).await;
        let is_mine = matches!(&finished, Finished::Superseded(Chain { tail: Tail::Claimed { .. }, .. }));
        assert!(is_mine, "{finished:?}");
    }
    assert_eq!(finish(store, TOKEN, MINE, refused("no")).await, Finished::Recorded);
    assert_eq!(look(store, TOKEN).await, tail(Tail::Refused(b"no".to_vec())));
    let repeated = finish(store, TOKEN, MINE, refused("no")).await;
    assert_eq!(repeated, Finished::Superseded(tail(Tail::Refused(b"no".to_vec()))));
}

async fn a_late_answer_replaces_a_failure(store: &dyn Store) {
    for (outcome, token) in [(refused("no"), TOKEN), (failed("no", LONG), [9; 32])] {
        claim(store, token, OTHER).await;
        assert_eq!(finish(store, token, OTHER, outcome).await, Finished::Recorded);
        assert_eq!(finish(store, token, MINE, done("answer", NEXT)).await, Finished::Recorded);
        let rotated = Chain { answers: vec![b"answer".to_vec()], tail: Tail::Absent };
        assert_eq!(finish(store, token, OTHER, refused("no")).await, Finished::Superseded(rotated.clone()));
        assert_eq!(look(store, token).await, rotated);
    }
}

async fn a_released_claim_does_not_count(store: &dyn Store) {
    claim(store, TOKEN, MINE).await;
    assert_eq!(finish(store, TOKEN, MINE, Outcome::Released).await, Finished::Recorded);
    // A repetition changes nothing: the claim is released once, and does not count.
    assert_eq!(finish(store, TOKEN, MINE, Outcome::Released).await, Finished::Superseded(tail(Tail::Stalled)));
    assert_eq!(look(store, TOKEN).await, tail(Tail::Stalled));
    assert_eq!(claim_for(store, TOKEN, OTHER, SHORT).await, Claimed::Granted { is_takeover: false });
    until(store, TOKEN, tail(Tail::Stalled)).await;
    // Nor does one release count for two claims.
    assert_eq!(claim(store, TOKEN, MINE).await, Claimed::Granted { is_takeover: true });
    assert_eq!(finish(store, TOKEN, MINE, Outcome::Released).await, Finished::Recorded);
    finish(store, TOKEN, MINE, Outcome::Released).await;
    assert_eq!(claim_for(store, TOKEN, OTHER, SHORT).await, Claimed::Granted { is_takeover: true });
    until(store, TOKEN, tail(Tail::Lost(b"proof".to_vec()))).await;
}

async fn failures_and_refusals_expire(store: &dyn Store) {
    claim(store, TOKEN, MINE).await;
    finish(store, TOKEN, MINE, failed("later", LONG)).await;
    let seen = look(store, TOKEN).await;
    let Tail::Failed(failure, wait) = &seen.tail else { panic!("{seen:?}") };
    assert_eq!(failure, b"later");
    assert!(*wait <= LONG && *wait > LONG / 2, "{wait:?}");
    for outcome in [failed("no", SHORT), Outcome::Refused { refusal: b"no".to_vec(), time_to_live: SHORT }] {
        claim(store, NEXT, MINE).await;
        assert_eq!(finish(store, NEXT, MINE, outcome).await, Finished::Recorded);
        until(store, NEXT, tail(Tail::Absent)).await;
    }
}

async fn a_logout_beats_an_answer(store: &dyn Store) {
    assert_eq!(end(store, TOKEN, "over").await, Previous::Nothing);
    let ended = tail(Tail::Ended(b"over".to_vec()));
    assert_eq!(look(store, TOKEN).await, ended);
    assert_eq!(claim(store, TOKEN, MINE).await, Claimed::Denied(ended.clone()));
    for outcome in [done("answer", NEXT), refused("no"), failed("no", LONG), Outcome::Released] {
        assert_eq!(finish(store, TOKEN, MINE, outcome).await, Finished::Ended(b"over".to_vec()));
        assert_eq!(look(store, TOKEN).await, ended);
    }
    assert_eq!(end(store, TOKEN, "over again").await, Previous::Nothing);
    store.end(TOKEN, b"shorter".to_vec(), SHORT).await.expect("an answer");
    until(store, TOKEN, tail(Tail::Absent)).await;
}

async fn a_logout_during_a_claim_is_seen_at_once_and_by_the_claimer(store: &dyn Store) {
    for outcome in [done("answer", NEXT), refused("no"), failed("no", LONG), Outcome::Released] {
        let mine = claim(store, TOKEN, MINE).await;
        assert_eq!(mine, Claimed::Granted { is_takeover: false });
        for _ in 0..2 {
            assert_eq!(
                store.end(TOKEN, b"over".to_vec(), SHORT).await.expect("an answer"),
                Previous::Claimed(b"proof".to_vec())
            );
        }
        let ended = tail(Tail::Ended(b"over".to_vec()));
        assert_eq!(look(store, TOKEN).await, ended);
        assert_eq!(claim(store, TOKEN, MINE).await, Claimed::Denied(ended.clone()));
        assert_eq!(claim(store, TOKEN, OTHER).await, Claimed::Denied(ended.clone()));
        for outcome in [refused("no"), failed("no", LONG), Outcome::Released] {
            assert_eq!(
                finish(store, TOKEN, OTHER, outcome).await,
                Finished::Superseded(ended.clone()),
                "it has no claim"
            );
        }
        assert_eq!(finish(store, TOKEN, MINE, outcome).await, Finished::Ended(b"over".to_vec()));
        // The tombstone lives for as long as the logout asked for, counted from here.
        until(store, TOKEN, tail(Tail::Absent)).await;
    }
}

async fn a_logout_outlives_the_claim_that_it_has_met(store: &dyn Store) {
    claim_for(store, TOKEN, MINE, SHORT).await;
    until(store, TOKEN, tail(Tail::Stalled)).await;
    assert_eq!(end(store, TOKEN, "over").await, Previous::Stalled);
    assert_eq!(finish(store, TOKEN, MINE, done("answer", NEXT)).await, Finished::Ended(b"over".to_vec()));
    claim_for(store, NEXT, MINE, Duration::from_secs(1)).await;
    assert_eq!(end(store, NEXT, "over").await, Previous::Claimed(b"proof".to_vec()));
    // Over, but not forgotten: a logout is not taken over.
    let give_up = Instant::now() + PATIENCE;
    while end(store, NEXT, "later").await == Previous::Claimed(b"proof".to_vec()) {
        assert!(Instant::now() < give_up);
        sleep(SHORT).await;
    }
    assert_eq!(claim(store, NEXT, OTHER).await, Claimed::Denied(tail(Tail::Ended(b"later".to_vec()))));
}

async fn a_logout_of_a_rotated_token_returns_its_answer(store: &dyn Store) {
    finish(store, TOKEN, MINE, done("answer", NEXT)).await;
    for _ in 0..2 {
        // A repetition gets the same reply, in case the first one was lost.
        assert_eq!(end(store, TOKEN, "over").await, Previous::Rotated(b"answer".to_vec()));
    }
    assert_eq!(look(store, TOKEN).await, tail(Tail::Ended(b"over".to_vec())));
    assert_eq!(end(store, TOKEN, "over again").await, Previous::Rotated(b"answer".to_vec()));
    for failure in [refused("no"), failed("no", LONG)] {
        claim(store, NEXT, MINE).await;
        finish(store, NEXT, MINE, failure).await;
        assert_eq!(store.end(NEXT, b"over".to_vec(), SHORT).await.expect("an answer"), Previous::Nothing);
        until(store, NEXT, tail(Tail::Absent)).await;
    }
}

async fn a_delivery_shortens_the_life_of_a_record_but_never_lengthens_it(store: &dyn Store) {
    finish(store, TOKEN, MINE, done("answer", NEXT)).await;
    store.delivered(TOKEN, SHORT).await.expect("an answer");
    until(store, TOKEN, tail(Tail::Absent)).await;
    let short = Outcome::Done { answer: b"answer".to_vec(), next: NEXT, time_to_live: SHORT };
    finish(store, TOKEN, MINE, short).await;
    store.delivered(TOKEN, LONG).await.expect("an answer");
    until(store, TOKEN, tail(Tail::Absent)).await;
    store.delivered(TOKEN, LONG).await.expect("an answer");
    assert_eq!(look(store, TOKEN).await, tail(Tail::Absent));
    claim(store, TOKEN, MINE).await;
    store.delivered(TOKEN, Duration::from_millis(1)).await.expect("an answer");
    sleep(SHORT).await;
    assert!(matches!(look(store, TOKEN).await.tail, Tail::Claimed { .. }));
}

async fn a_long_chain_is_read_in_parts(store: &dyn Store) {
    let token = |n: usize| [n as u8 + 1; 32];
    for n in 0..20 {
        finish(store, token(n), MINE, done(&n.to_string(), token(n + 1))).await;
    }
    let answers = |from: usize, to: usize| (from..to).map(|n| n.to_string().into_bytes()).collect::<Vec<_>>();
    let first = look(store, token(0)).await;
    assert_eq!(first, Chain { answers: answers(0, MAX_ANSWERS), tail: Tail::Rotated });
    assert_eq!(look(store, token(4)).await, Chain { answers: answers(4, 20), tail: Tail::Absent });
    let rest = look(store, token(MAX_ANSWERS)).await;
    assert_eq!(rest, Chain { answers: answers(MAX_ANSWERS, 20), tail: Tail::Absent });
    claim(store, token(20), MINE).await;
    finish(store, token(20), MINE, refused("no")).await;
    let denied = Chain { answers: answers(16, 20), tail: Tail::Refused(b"no".to_vec()) };
    assert_eq!(claim(store, token(16), OTHER).await, Claimed::Denied(denied.clone()));
    assert_eq!(finish(store, token(16), OTHER, refused("x")).await, Finished::Superseded(denied));
    // A ring ends, too.
    finish(store, token(20), MINE, done("20", token(0))).await;
    assert_eq!(look(store, token(0)).await.tail, Tail::Rotated);
}

async fn values_are_binary(store: &dyn Store) {
    let mut value: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    value.extend_from_slice(b"\r\n$-1\r\n\0");
    let fence = *b"\r\n\0\xff and so on.\0";
    let claim = Claim { fence, proof: value.clone(), lease: LONG };
    assert_eq!(store.claim(TOKEN, claim).await.expect("an answer"), Claimed::Granted { is_takeover: false });
    assert!(matches!(look(store, TOKEN).await.tail, Tail::Claimed { proof, .. } if proof == value));
    let outcome = Outcome::Done { answer: value.clone(), next: [0xff; 32], time_to_live: LONG };
    assert_eq!(finish(store, TOKEN, fence, outcome).await, Finished::Recorded);
    assert_eq!(look(store, TOKEN).await.answers, [value.clone()]);
    assert_eq!(store.end(TOKEN, value.clone(), LONG).await.expect("an answer"), Previous::Rotated(value.clone()));
    assert_eq!(look(store, TOKEN).await.tail, Tail::Ended(value));
}

async fn the_log_is_read_in_pages(store: &dyn Store) {
    let jwt = |n: u64| RevokedJwt { digest: u128::from(n).to_be_bytes(), expires_at: n };
    assert_eq!(store.revoked_since(None).await.expect("an answer"), []);
    store.revoke(Vec::new()).await.expect("an answer");
    store.revoke((0..700).map(jwt).collect()).await.expect("an answer");
    for n in 700..705 {
        store.revoke(vec![jwt(n)]).await.expect("an answer");
    }
    store.revoke((705..1200).map(jwt).collect()).await.expect("an answer");
    let (mut position, mut read) = (None, Vec::new());
    for expected in [LOG_PAGE, 200, 0] {
        let page = store.revoked_since(position.clone()).await.expect("an answer");
        assert_eq!(page.len(), expected);
        position = page.last().map(|(position, _)| position.clone()).or(position);
        read.extend(page.into_iter().filter_map(|(_, jwt)| jwt));
    }
    assert_eq!(read, (0..1200).map(jwt).collect::<Vec<_>>());
    store.revoke(vec![jwt(9)]).await.expect("an answer");
    let new: Vec<_> =
        store.revoked_since(position).await.expect("an answer").into_iter().filter_map(|(_, jwt)| jwt).collect();
    assert_eq!(new, [jwt(9)]);
}

async fn changes_wake_those_who_watch(store: &dyn Store) {
    let woken = async |watched: &mut Watch| timeout(PATIENCE, watched.changed()).await.is_ok();
    let (mut watch, mut log) = (store.watch(TOKEN), store.watch_log());
    claim(store, TOKEN, MINE).await;
    finish(store, TOKEN, MINE, failed("no", LONG)).await;
    assert!(woken(&mut watch).await);
    finish(store, TOKEN, MINE, done("answer", NEXT)).await;
    assert!(woken(&mut watch).await);
    end(store, TOKEN, "over").await;
    assert!(woken(&mut watch).await);
    claim(store, NEXT, MINE).await;
    let mut watch = store.watch(NEXT);
    end(store, NEXT, "over").await;
    assert!(woken(&mut watch).await);
    finish(store, NEXT, MINE, done("answer", TOKEN)).await;
    assert!(woken(&mut watch).await);
    store.revoke(vec![RevokedJwt { digest: [1; 16], expires_at: 2 }]).await.expect("an answer");
    assert!(woken(&mut log).await);
    assert!(store.pushes());
}

#[tokio::test]
async fn a_log_that_was_lost_is_continued_behind_the_old_positions() {
    let Some(server) = TestServer::start(&[]) else { return };
    let double = MemoryStore::default();
    let flush = || {
        double.flush();
        redis::cmd("FLUSHALL").exec(&mut server.connection()).expect("an answer");
    };
    let stores: [&dyn Store; 2] = [&double, &server.store()];
    for store in stores {
        let jwt = |n: u64| RevokedJwt { digest: u128::from(n).to_be_bytes(), expires_at: n };
        store.revoke((0..3).map(jwt).collect()).await.expect("an answer");
        let page = store.revoked_since(None).await.expect("an answer");
        let position = page.last().map(|(position, _)| position.clone());
        flush();
        assert_eq!(store.revoked_since(position.clone()).await.expect("an answer"), []);
        // A server's positions are times in milliseconds: what is added within the last one is not behind it.
        let last: u64 =
            position.as_ref().and_then(|position| position.0.split('-').next()?.parse().ok()).expect("a time");
        while now(&server) <= last {}
        store.revoke(vec![jwt(7)]).await.expect("an answer");
        let new = store.revoked_since(position).await.expect("an answer");
        assert!(matches!(new[..], [(_, Some(new))] if new == jwt(7)), "{new:?}");
    }
}

#[tokio::test]
async fn a_server_does_what_the_double_does() {
    let Some(server) = TestServer::start(&[]) else { return };
    let (double, store) = (MemoryStore::default(), server.store());
    let numbers = Numbers(Mutex::new(Random(0x2545_f491_4f6c_dd1d)));
    for step in 0..4000 {
        let (id, fence) = ([numbers.below(4); 32], [numbers.below(2); 16]);
        let value = vec![numbers.below(3)];
        let operation = numbers.below(12);
        let replies = async |store: &dyn Store, next: Id| {
            let finish = async |outcome| format!("{:?}", store.finish(id, fence, outcome).await.map(erase_finished));
            match operation {
                0 | 1 => format!("{:?}", store.look(id).await.map(erase)),
                2..=4 => {
                    let claim = Claim { fence, proof: value.clone(), lease: LONG };
                    format!("{:?}", store.claim(id, claim).await.map(erase_claimed))
                }
                5 => finish(Outcome::Done { answer: value.clone(), next, time_to_live: LONG }).await,
                6 => finish(Outcome::Refused { refusal: value.clone(), time_to_live: LONG }).await,
                7 | 8 => finish(Outcome::Failed { failure: value.clone(), time_to_live: LONG }).await,
                9 => finish(Outcome::Released).await,
                10 => format!("{:?}", store.end(id, value.clone(), LONG).await),
                _ => format!("{:?}", store.delivered(id, LONG).await),
            }
        };
        let next = [numbers.below(4); 32];
        let (expected, actual) = (replies(&double, next).await, replies(&store, next).await);
        assert_eq!(actual, expected, "step {step}, operation {operation} on {}", id[0]);
        if step % 60 == 59 {
            double.flush();
            redis::cmd("FLUSHALL").exec(&mut server.connection()).expect("an answer");
        }
    }
}

/// Returns the server's time in milliseconds.
fn now(server: &TestServer) -> u64 {
    let (seconds, microseconds): (u64, u64) =
        redis::cmd("TIME").query(&mut server.connection()).expect("the server's time");
    seconds * 1000 + microseconds / 1000
}

struct Numbers(Mutex<Random>);

impl Numbers {
    fn below(&self, limit: u64) -> u8 {
        u8::try_from(self.0.lock().expect("no panic").below(limit)).expect("a small limit")
    }
}

fn erase(chain: Chain) -> Chain {
    let tail = match chain.tail {
        Tail::Claimed { proof, .. } => Tail::Claimed { proof, lease: LONG },
        Tail::Failed(failure, _) => Tail::Failed(failure, LONG),
        tail => tail,
    };
    Chain { tail, ..chain }
}

fn erase_claimed(claimed: Claimed) -> Claimed {
    match claimed {
        Claimed::Denied(chain) => Claimed::Denied(erase(chain)),
        granted => granted,
    }
}

fn erase_finished(finished: Finished) -> Finished {
    match finished {
        Finished::Superseded(chain) => Finished::Superseded(erase(chain)),
        finished => finished,
    }
}

async fn look(store: &dyn Store, id: Id) -> Chain {
    store.look(id).await.expect("an answer")
}

async fn claim(store: &dyn Store, id: Id, fence: Fence) -> Claimed {
    claim_for(store, id, fence, LONG).await
}

async fn claim_for(store: &dyn Store, id: Id, fence: Fence, lease: Duration) -> Claimed {
    store.claim(id, Claim { fence, proof: b"proof".to_vec(), lease }).await.expect("an answer")
}

async fn finish(store: &dyn Store, id: Id, fence: Fence, outcome: Outcome) -> Finished {
    store.finish(id, fence, outcome).await.expect("an answer")
}

async fn end(store: &dyn Store, id: Id, tombstone: &str) -> Previous {
    store.end(id, tombstone.into(), LONG).await.expect("an answer")
}

/// Waits for a state that comes with time.
async fn until(store: &dyn Store, id: Id, expected: Chain) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let seen = look(store, id).await;
        if seen == expected {
            return;
        }
        assert!(Instant::now() < give_up, "{seen:?} instead of {expected:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn tail(tail: Tail) -> Chain {
    Chain { answers: Vec::new(), tail }
}

fn done(answer: &str, next: Id) -> Outcome {
    Outcome::Done { answer: answer.into(), next, time_to_live: LONG }
}

fn refused(refusal: &str) -> Outcome {
    Outcome::Refused { refusal: refusal.into(), time_to_live: LONG }
}

fn failed(failure: &str, time_to_live: Duration) -> Outcome {
    Outcome::Failed { failure: failure.into(), time_to_live }
}

const TOKEN: Id = [7; 32];
const NEXT: Id = [8; 32];
const MINE: Fence = [1; 16];
const OTHER: Fence = [2; 16];
const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(10);
