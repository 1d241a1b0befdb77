use std::fmt;

use futures_util::FutureExt as _;
use http::HeaderValue;
use tokio::time::advance;

use super::*;
use crate::{
    refresh::{negative_cache::MIN_PAUSE, refreshed::Rescued},
    session::{AuthMaterial, RefreshToken, Session, Verified},
};

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Delivery").field(&self.refreshed).finish()
    }
}

impl<Q> fmt::Debug for Joined<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remembered(delivery) => delivery.fmt(f),
            Self::Waiter(_) => f.write_str("Waiter"),
            Self::Leader(..) => f.write_str("Leader"),
        }
    }
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::AfterRefresh(_) => "AfterRefresh",
        })
    }
}

const PERIOD: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

fn flights() -> Arc<SingleFlight> {
    with_period(PERIOD)
}

fn with_period(period: Duration) -> Arc<SingleFlight> {
    Arc::new(SingleFlight::new(period, 1 << 20))
}

fn refreshed_to(token: &str) -> Result<Refreshed, Failure> {
    let verified = Verified { user_id: "alice".into(), expires_at: 0, generation: 0 };
    let session = Session::new(verified, AuthMaterial::new("jwt", RefreshToken::new(token)));
    let cookie = HeaderValue::from_static("c");
    Ok(Refreshed::new(session, [cookie.clone(), cookie], 0))
}

fn refused() -> Result<Refreshed, Failure> {
    Err(AuthErrorKind::Refused.into())
}

/// An answer whose JWT cannot be used.
fn unusable_to(token: &str) -> Result<Refreshed, Failure> {
    let rescued = Some(Arc::new(Rescued { token: token.into(), set_cookie: None }));
    Err(Failure { rescued, ..AuthErrorKind::UnusableAnswer.into() })
}

/// An answer whose JWT cannot be verified just now.
fn unverified_to(token: &str, kind: AuthErrorKind) -> Result<Refreshed, Failure> {
    let cookie = HeaderValue::from_static("c");
    let rescued = Some(Arc::new(Rescued { token: token.into(), set_cookie: Some([cookie.clone(), cookie]) }));
    Err(Failure { rescued, ..kind.into() })
}

fn join(flights: &Arc<SingleFlight>, token: &str, expired: Option<&Delivery>) -> Result<Joined<()>, AuthError> {
    flights.join(token.into(), expired, || Ok(()))
}

fn start(flights: &Arc<SingleFlight>, token: &str) -> (Leader, Waiter) {
    match join(flights, token, None) {
        Ok(Joined::Leader(leader, waiter, ())) => (leader, waiter),
        other => panic!("{token}: {other:?}"),
    }
}

fn leader(flights: &Arc<SingleFlight>, token: &str) -> Leader {
    start(flights, token).0
}

/// Ends a refresh that no logout has overtaken.
fn finish(leader: Leader, outcome: Result<Refreshed, Failure>) {
    assert!(leader.finish(outcome).0.is_none());
}

/// Refreshes a token for a client that gets its response at once.
fn refresh(flights: &Arc<SingleFlight>, token: &str, successor: &str) {
    let (leader, waiter) = start(flights, token);
    finish(leader, refreshed_to(successor));
    let delivery = waiter.outcome().now_or_never().expect("it has ended").unwrap();
    assert_eq!(token_of(delivery.latest()), successor);
}

/// Returns the refresh token that a response delivers.
fn token_of(delivered: Result<Arc<Refreshed>, AuthErrorKind>) -> String {
    delivered
        .map_or_else(|kind| format!("{kind:?}"), |refreshed| refreshed.material().refresh_token().secret().to_owned())
}

/// Refreshes a token for a client whose response takes its time.
async fn slowly(flights: &Arc<SingleFlight>, token: &str, successor: &str) -> Delivery {
    let (leader, waiter) = start(flights, token);
    finish(leader, refreshed_to(successor));
    waiter.outcome().await.unwrap()
}

/// Refreshes the latest successor of a token, whose session has expired.
fn refresh_expired(flights: &Arc<SingleFlight>, token: &str) -> Leader {
    let Ok(Joined::Remembered(expired)) = join(flights, token, None) else { panic!("{token} is not known") };
    match join(flights, token, Some(&expired)) {
        Ok(Joined::Leader(leader, _, ())) => leader,
        other => panic!("{token}: {other:?}"),
    }
}

/// Says in a word what a request with this token gets.
fn outcome(flights: &Arc<SingleFlight>, token: &str) -> String {
    match join(flights, token, None) {
        Ok(Joined::Remembered(delivery)) => delivery.refreshed.material().refresh_token().secret().to_owned(),
        Ok(Joined::Waiter(_)) => "under way".into(),
        Err(error) => format!("{:?}", error.kind()),
        Ok(Joined::Leader(leader, _, ())) => format!("sends {}", &*leader.token),
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_resolves_to_the_latest_of_its_family_during_the_grace_period() {
    let flights = flights();
    refresh(&flights, "a", "b");
    refresh(&flights, "b", "c");
    assert_eq!((outcome(&flights, "a"), outcome(&flights, "b")), ("c".into(), "c".into()));
    assert_eq!(outcome(&flights, "c"), "sends c");
    advance(PERIOD).await;
    assert_eq!(outcome(&flights, "a"), "sends a");
    flights.state().grace.check();
}

#[tokio::test(start_paused = true)]
async fn an_expired_successor_is_refreshed_in_place_of_the_rotated_token() {
    let flights = flights();
    refresh(&flights, "a", "b");
    assert_eq!(&*refresh_expired(&flights, "a").token, "b");
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_not_rotated_and_circles_end() {
    let flights = flights();
    refresh(&flights, "a", "a");
    assert_eq!(outcome(&flights, "a"), "a");
    drop(refresh_expired(&flights, "a"));
    refresh(&flights, "b", "c");
    refresh(&flights, "c", "b");
    let _ = outcome(&flights, "b");
    assert!(matches!(flights.revoke("b".into()).1, Revocation::Now(_)));
}

#[tokio::test(start_paused = true)]
async fn only_answers_are_remembered() {
    let flights = flights();
    finish(leader(&flights, "a"), refused());
    finish(leader(&flights, "b"), Err(AuthErrorKind::UnusableAnswer.into()));
    finish(leader(&flights, "c"), Err(AuthErrorKind::Unavailable.into()));
    let all = || ["a", "b", "c"].map(|token| outcome(&flights, token));
    assert_eq!(all(), ["Refused", "UnusableAnswer", "sends c"]);
    advance(MIN_PAUSE).await;
    assert_eq!(all(), ["Refused", "sends b", "sends c"]);
    advance(MIN_REFUSAL).await;
    assert_eq!(all(), ["sends a", "sends b", "sends c"]);
}

#[tokio::test(start_paused = true)]
async fn the_pause_after_an_unusable_answer_doubles_until_one_can_be_used() {
    let flights = flights();
    for pause in [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs) {
        let (leader, waiter) = start(&flights, "a");
        finish(leader, Err(AuthErrorKind::UnusableAnswer.into()));
        assert_eq!(waiter.outcome().await.unwrap_err().error.retry_after(), pause);
        advance(pause - Duration::from_millis(1)).await;
        let Err(error) = join(&flights, "a", None) else { panic!("{pause:?} are not over") };
        assert_eq!((error.kind(), error.retry_after()), (AuthErrorKind::UnusableAnswer, Duration::from_secs(1)));
        advance(Duration::from_millis(1)).await;
    }
    refresh(&flights, "a", "b");
    finish(leader(&flights, "b"), Err(AuthErrorKind::UnusableAnswer.into()));
    advance(Duration::from_secs(1)).await;
    assert_eq!(outcome(&flights, "b"), "sends b", "the first mishap of its kind again");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_refresh_frees_its_token() {
    let flights = flights();
    let (leader, waiting) = start(&flights, "a");
    assert_eq!(outcome(&flights, "a"), "under way");
    drop(leader);
    assert_eq!(waiting.outcome().await.unwrap_err().error.kind(), AuthErrorKind::Unavailable);
    assert_eq!(outcome(&flights, "a"), "sends a");
}

#[tokio::test(start_paused = true)]
async fn a_logout_revokes_the_whole_family() {
    let flights = flights();
    refresh(&flights, "a", "b");
    refresh(&flights, "b", "c");
    match flights.revoke("b".into()) {
        (jwts, Revocation::Now(latest)) => {
            assert_eq!((&*latest, jwts.len()), ("c", 2));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(["a", "b", "c"].map(|token| outcome(&flights, token)), ["Refused"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_logouts_does_not_bring_a_session_back() {
    let flights = flights();
    refresh(&flights, "a", "b");
    let _ = flights.revoke("b".into());
    for number in 0..10_000 {
        let _ = flights.revoke(format!("junk{number}").as_str().into());
    }
    assert_eq!(outcome(&flights, "a"), "Refused");
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_of_the_successor_does_not_reject_latecomers() {
    let flights = flights();
    refresh(&flights, "a", "b");
    // A browser that refreshes ahead of time, by the refresh route.
    let leader = leader(&flights, "b");
    assert_eq!(outcome(&flights, "a"), "under way");
    finish(leader, Err(AuthErrorKind::UnusableAnswer.into()));
    assert_eq!(outcome(&flights, "a"), "b");
    assert_eq!(outcome(&flights, "b"), "UnusableAnswer");
}

#[tokio::test(start_paused = true)]
async fn a_logout_overtakes_the_refresh_under_way() {
    let cases = [
        ("it succeeds", refreshed_to("b"), Some("b")),
        ("it is refused", refused(), None),
        ("it fails", Err(AuthErrorKind::Unavailable.into()), Some("a")),
    ];
    for (name, result, revoked) in cases {
        let flights = flights();
        let (leader, waiting) = start(&flights, "a");
        assert!(matches!(flights.revoke("a".into()).1, Revocation::AfterRefresh(_)), "{name}");
        assert_eq!(leader.finish(result).0.as_deref(), revoked, "{name}");
        let outcome_of_waiting = waiting.outcome().await;
        assert_eq!(outcome_of_waiting.unwrap_err().error.kind(), AuthErrorKind::Refused, "{name}");
        assert_eq!(outcome(&flights, "a"), "Refused", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_finds_the_queue_full_leaves_its_token_free() {
    let flights = flights();
    let full = || Err::<(), _>(AuthError::of(AuthErrorKind::Unavailable));
    let Err(error) = flights.join("a".into(), None, full) else { panic!("the queue is full") };
    assert_eq!(error.kind(), AuthErrorKind::Unavailable);
    let (_leader, _waiter) = start(&flights, "a");
    assert!(matches!(flights.join("a".into(), None, full), Ok(Joined::Waiter(_))), "it needs no place in the queue");
}

/// No request arrives in between: the response starts the grace period when it is delivered or dropped.
#[tokio::test(start_paused = true)]
async fn the_grace_period_starts_when_the_last_response_is_delivered() {
    for (held, known_for) in [(31, 30), (59, 30), (61, 30), (270, 30), (299, 30), (400, 30)] {
        let flights = flights();
        let [first, last] = [
            slowly(&flights, "a", "b").await,
            match join(&flights, "a", None) {
                Ok(Joined::Remembered(delivery)) => delivery,
                other => panic!("{other:?}"),
            },
        ];
        advance(Duration::from_secs(held / 2)).await;
        drop(first);
        advance(Duration::from_secs(held - held / 2)).await;
        assert_eq!(token_of(last.latest()), "b");
        drop(last);
        {
            advance(Duration::from_secs(known_for) - Duration::from_millis(1)).await;
            assert_eq!(outcome(&flights, "a"), "b", "held for {held} s");
        }
    }
    for held in [0, 31, 61, 299] {
        let flights = flights();
        let delivery = slowly(&flights, "a", "b").await;
        advance(Duration::from_secs(held)).await;
        assert_eq!(token_of(delivery.latest()), "b");
        drop(delivery);
        advance(PERIOD).await;
        assert_eq!(outcome(&flights, "a"), "sends a", "held for {held} s, and then released");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_was_not_taken_holds_the_grace_period() {
    let flights = flights();
    let (leader, waiter) = start(&flights, "a");
    finish(leader, refreshed_to("b"));
    advance(2 * MINUTE).await;
    let delivery = waiter.outcome().await.unwrap();
    advance(2 * MINUTE).await;
    drop(delivery);
    advance(PERIOD / 2).await;
    assert_eq!(outcome(&flights, "a"), "b");
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_stays_known_while_its_successor_is_refreshed() {
    let flights = flights();
    refresh(&flights, "a", "b");
    let (leader, waiter) = start(&flights, "b");
    advance(MINUTE).await;
    assert_eq!(outcome(&flights, "a"), "under way");
    finish(leader, refreshed_to("c"));
    assert_eq!(outcome(&flights, "a"), "c");
    drop(waiter);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_ends_keeps_a_successor_for_five_minutes() {
    let flights = flights();
    let delivery = slowly(&flights, "a", "b").await;
    // Another response was quicker.
    let Ok(Joined::Remembered(other)) = join(&flights, "a", None) else { panic!("it is not known") };
    assert_eq!(token_of(other.latest()), "b");
    drop(other);
    advance(5 * MINUTE).await;
    assert_eq!(outcome(&flights, "a"), "sends a");
    drop(delivery);
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_is_not_delivered_where_its_successor_cannot_be_used() {
    let flights = flights();
    let slow = slowly(&flights, "a", "b").await;
    finish(leader(&flights, "b"), unusable_to("c"));
    assert_eq!(token_of(slow.latest()), "Unavailable", "which ends no session");
    let _ = flights.revoke("a".into());
    assert_eq!(token_of(slow.latest()), "Refused");
}

#[tokio::test(start_paused = true)]
async fn an_undelivered_successor_is_kept_for_an_hour() {
    let flights = flights();
    drop(slowly(&flights, "a", "b").await);
    advance(59 * MINUTE).await;
    assert_eq!(outcome(&flights, "a"), "b");
    advance(MINUTE).await;
    assert_eq!(outcome(&flights, "a"), "sends a");
}

#[tokio::test(start_paused = true)]
async fn an_expired_rotation_is_not_revived_by_a_later_refresh() {
    let flights = flights();
    refresh(&flights, "a", "b");
    advance(PERIOD).await;
    let delivery = slowly(&flights, "b", "c").await;
    assert_eq!((outcome(&flights, "a"), outcome(&flights, "b")), ("sends a".into(), "c".into()));
    drop(delivery);
}

#[tokio::test(start_paused = true)]
async fn an_unusable_successor_is_sent_after_the_pause_in_place_of_the_rotated_token() {
    let flights = flights();
    finish(leader(&flights, "a"), unusable_to("b"));
    assert_eq!(outcome(&flights, "a"), "UnusableAnswer");
    advance(Duration::from_secs(1)).await;
    assert_eq!(outcome(&flights, "a"), "sends b");
    finish(leader(&flights, "a"), unusable_to("c"));
    advance(Duration::from_secs(1)).await;
    assert_eq!(outcome(&flights, "a"), "UnusableAnswer", "the second pause is longer");
    advance(Duration::from_secs(1)).await;
    // However long it takes until the next request.
    advance(30 * MINUTE).await;
    let (leader, waiter) = start(&flights, "a");
    assert_eq!(&*leader.token, "c");
    finish(leader, refreshed_to("d"));
    advance(MINUTE).await;
    assert_eq!(["a", "b", "c"].map(|token| outcome(&flights, token)), ["d"; 3], "the response is not delivered yet");
    assert_eq!(token_of(waiter.outcome().await.unwrap().latest()), "d");
    advance(PERIOD).await;
    assert_eq!(["a", "b", "c"].map(|token| outcome(&flights, token)), ["sends a", "sends b", "sends c"]);
}

#[tokio::test(start_paused = true)]
async fn a_logout_revokes_an_unusable_successor() {
    let flights = flights();
    finish(leader(&flights, "a"), unusable_to("b"));
    let Revocation::Now(token) = flights.revoke("a".into()).1 else { panic!("nothing is under way") };
    assert_eq!(&*token, "b");
    advance(PERIOD / 2).await;
    assert_eq!(outcome(&flights, "a"), "Refused");
}

#[tokio::test(start_paused = true)]
async fn an_unverified_successor_is_sent_in_place_of_the_rotated_token() {
    let flights = flights();
    finish(leader(&flights, "a"), unverified_to("b", AuthErrorKind::Unavailable));
    assert_eq!(outcome(&flights, "a"), "sends b");
}

#[tokio::test(start_paused = true)]
async fn a_limited_token_is_sent_when_crossmint_has_asked_for_it() {
    let flights = flights();
    let delay = Duration::from_secs(7);
    let limited = AuthError::of(AuthErrorKind::RateLimited).with_retry_after(Some(delay));
    finish(leader(&flights, "a"), Err(limited.into()));
    assert_eq!((outcome(&flights, "a"), outcome(&flights, "other")), ("RateLimited".into(), "sends other".into()));
    advance(delay).await;
    assert_eq!(outcome(&flights, "a"), "sends a");
}

#[tokio::test(start_paused = true)]
async fn without_a_grace_period_nothing_is_remembered() {
    let flights = with_period(Duration::ZERO);
    refresh(&flights, "a", "b");
    assert_eq!(outcome(&flights, "a"), "sends a");
}

#[tokio::test(start_paused = true)]
async fn a_slow_response_holds_the_whole_family() {
    let flights = flights();
    let slow = slowly(&flights, "a", "b").await;
    advance(PERIOD / 2).await;
    refresh(&flights, "b", "c");
    advance(3 * PERIOD).await;
    assert_eq!((outcome(&flights, "a"), outcome(&flights, "b")), ("c".into(), "c".into()));
    assert_eq!(token_of(slow.latest()), "c", "it does not bring the rotated token back");
    drop(slow);
    advance(PERIOD).await;
    assert_eq!((outcome(&flights, "a"), outcome(&flights, "b")), ("sends a".into(), "sends b".into()));
}

#[tokio::test(start_paused = true)]
async fn a_logout_outlasts_a_dropped_refresh() {
    let flights = flights();
    let leader = leader(&flights, "a");
    assert!(matches!(flights.revoke("a".into()).1, Revocation::AfterRefresh(_)));
    drop(leader);
    assert_eq!(outcome(&flights, "a"), "Refused");
}

#[tokio::test(start_paused = true)]
async fn a_logout_reaches_all_refreshes_of_a_token_that_is_not_rotated() {
    let flights = flights();
    let slow = slowly(&flights, "a", "a").await;
    finish(refresh_expired(&flights, "a"), refreshed_to("a"));
    let _ = flights.revoke("a".into());
    assert_eq!(token_of(slow.latest()), "Refused");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_leaves_no_waiter_and_no_lock_behind() {
    let flights = flights();
    let (leader, waiter) = start(&flights, "a");
    let task = tokio::spawn({
        let flights = Arc::clone(&flights);
        async move {
            let _leader = leader;
            let _state = flights.0.lock();
            panic!("on purpose");
        }
    });
    assert!(task.await.unwrap_err().is_panic());
    assert!(flights.0.is_poisoned());
    assert_eq!(waiter.outcome().await.unwrap_err().error.kind(), AuthErrorKind::Unavailable);
    refresh(&flights, "a", "b");
    assert_eq!(outcome(&flights, "a"), "b");
}

#[tokio::test(start_paused = true)]
async fn a_logout_during_a_refresh_is_remembered_for_the_grace_period() {
    let window = 4 * MIN_REFUSAL;
    let flights = with_period(window);
    let leader = leader(&flights, "a");
    assert!(matches!(flights.revoke("a".into()).1, Revocation::AfterRefresh(_)));
    finish(leader, refused());
    advance(window - Duration::from_secs(1)).await;
    assert_eq!(outcome(&flights, "a"), "Refused");
}

#[tokio::test(start_paused = true)]
async fn a_rate_limited_key_set_delays_no_refresh() {
    let flights = flights();
    for number in 0..20 {
        let unverified = unverified_to("b", AuthErrorKind::RateLimited);
        finish(leader(&flights, &number.to_string()), unverified);
    }
    assert_eq!(outcome(&flights, "other"), "sends other");
}

#[tokio::test(start_paused = true)]
async fn a_latecomer_does_not_get_a_session_that_crossmint_has_refused() {
    let flights = flights();
    refresh(&flights, "a", "b");
    finish(leader(&flights, "b"), refused());
    assert_eq!(outcome(&flights, "a"), "Refused");
}
