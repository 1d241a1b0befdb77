use std::sync::Weak;

use tokio::time::advance;

use super::{key_set::tests::set, *};

/// A cache that is not asked to fetch anything.
fn keys() -> Arc<JwksCache> {
    let fetch = || -> BoxFuture<'static, _> { unreachable!("the tests carry the reloads out") };
    Arc::new(JwksCache::new(fetch, TaskTracker::new(Weak::<()>::new()), Arc::default()))
}

/// A cache with a set.
pub(crate) fn loaded() -> Arc<JwksCache> {
    let keys = keys();
    load(&keys, set("a", 0xFF));
    keys
}

fn start(keys: &Arc<JwksCache>, reason: ReloadReason) -> Option<ReloadGuard> {
    match keys.decide_reload(reason) {
        ReloadDecision::Start(_) => Some(ReloadGuard { cache: Arc::clone(keys), outcome: None }),
        ReloadDecision::Join(_) | ReloadDecision::NotBefore(_) => None,
    }
}

fn load(keys: &Arc<JwksCache>, set: KeySet) {
    start(keys, ReloadReason::Issued).unwrap().outcome = Some(Ok(set));
}

fn fail(keys: &Arc<JwksCache>, reason: ReloadReason, error: AuthError) {
    start(keys, reason).unwrap().outcome = Some(Err(error));
}

#[tokio::test(start_paused = true)]
async fn a_set_is_fresh_then_stale_then_unusable() {
    let keys = keys();
    assert!(!keys.is_usable() && keys.generation().is_none());
    load(&keys, set("a", 0xFF));
    advance(SOFT_TTL - Duration::from_millis(1)).await;
    assert!(keys.is_usable() && start(&keys, ReloadReason::Stale).is_none());
    advance(Duration::from_millis(1)).await;
    assert!(keys.is_usable() && start(&keys, ReloadReason::Stale).is_some());
    assert!(keys.current().is_some());
    advance(HARD_TTL - SOFT_TTL).await;
    assert!(!keys.is_usable() && keys.generation().is_none());
    assert!(keys.current().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_causes_one_reload_per_cooldown_whatever_comes_of_it() {
    let keys = keys();
    load(&keys, set("a", 0xFF));
    assert!(start(&keys, ReloadReason::UnknownKey).is_none(), "the first load was an attempt");
    advance(COOLDOWN).await;
    fail(&keys, ReloadReason::UnknownKey, AuthError::of(AuthErrorKind::Unavailable));
    advance(COOLDOWN - Duration::from_millis(1)).await;
    assert!(start(&keys, ReloadReason::UnknownKey).is_none());
    assert!(start(&keys, ReloadReason::Issued).is_some(), "Crossmint's word counts at any time");
}

#[tokio::test(start_paused = true)]
async fn without_a_set_attempts_back_off() {
    let keys = keys();
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        fail(&keys, ReloadReason::Missing, AuthError::of(AuthErrorKind::Unavailable));
        let pause = Duration::from_secs(pause);
        let ReloadDecision::NotBefore(remaining) = keys.decide_reload(ReloadReason::Missing) else {
            panic!("a reload within {pause:?}");
        };
        assert_eq!(remaining, pause);
        advance(pause).await;
    }
    load(&keys, set("a", 0xFF));
    advance(HARD_TTL).await;
    assert!(start(&keys, ReloadReason::Missing).is_some(), "a success starts anew");
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_respected_up_to_a_minute() {
    for (asked_for, pause) in [(0, 1), (7, 7), (86_400, 60)] {
        let keys = keys();
        let failure = AuthError::of(AuthErrorKind::RateLimited);
        fail(&keys, ReloadReason::Missing, failure.with_retry_after(Some(Duration::from_secs(asked_for))));
        advance(Duration::from_secs(pause) - Duration::from_millis(1)).await;
        assert!(start(&keys, ReloadReason::Missing).is_none(), "{asked_for}");
        assert!(start(&keys, ReloadReason::Stale).is_none(), "{asked_for}");
        assert!(start(&keys, ReloadReason::UnknownKey).is_none(), "{asked_for}");
        advance(Duration::from_millis(1)).await;
        assert!(start(&keys, ReloadReason::Missing).is_some(), "{asked_for}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_reload_serves_all_waiters_even_if_it_panics() {
    let keys = keys();
    let attempt = start(&keys, ReloadReason::Missing).unwrap();
    let ReloadDecision::Join(mut waiting) = keys.decide_reload(ReloadReason::Missing) else {
        panic!("a second reload")
    };
    drop(attempt);
    assert!(waiting.changed().await.is_err(), "the wait is over");
    assert!(keys.state().last_failure.is_some());
    advance(MAX_BACKOFF).await;
    load(&keys, set("a", 0xFF));
    assert!(keys.state().last_failure.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_looked_before_a_reload_does_not_start_another_after_it() {
    let keys = keys();
    load(&keys, set("a", 0xFF));
    advance(SOFT_TTL).await;
    load(&keys, set("a", 0xFF));
    assert!(start(&keys, ReloadReason::Stale).is_none());
    assert!(start(&keys, ReloadReason::Missing).is_none());
}

#[tokio::test(start_paused = true)]
async fn only_another_set_starts_a_new_generation() {
    let keys = keys();
    load(&keys, set("a", 0xFF));
    let generation = keys.generation();
    load(&keys, set("a", 0xFF));
    assert_eq!(keys.generation(), generation);
    load(&keys, set("a", 0xFD));
    assert_ne!(keys.generation(), generation, "the same ID, another key");
    assert_eq!(keys.current().map(|(_, generation)| generation), keys.generation());
}

#[tokio::test(start_paused = true)]
async fn a_failed_reload_for_an_unknown_key_leaves_a_fresh_set_fresh() {
    let keys = loaded();
    advance(COOLDOWN).await;
    fail(&keys, ReloadReason::UnknownKey, AuthError::of(AuthErrorKind::Unavailable));
    advance(SOFT_TTL - COOLDOWN - Duration::from_millis(1)).await;
    assert!(start(&keys, ReloadReason::Stale).is_none());
    advance(Duration::from_millis(1)).await;
    assert!(start(&keys, ReloadReason::Stale).is_some());
}
