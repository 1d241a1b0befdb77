use futures_util::FutureExt as _;
use tokio::time::advance;

use super::*;
use crate::session::{AuthMaterial, RefreshToken, Session, Verified};

const PERIOD: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

fn renewals() -> Arc<Renewals> {
    with_period(PERIOD)
}

fn with_period(period: Duration) -> Arc<Renewals> {
    Arc::new(Renewals::new(period, 1 << 20, 2))
}

fn renewed_to(token: &str) -> Result<Renewal, Failure> {
    let verified = Verified { user_id: "alice".into(), expires_at: 0, generation: 0 };
    let session = Session::new(verified, AuthMaterial::new("jwt", RefreshToken::new(token)));
    let cookie = HeaderValue::from_static("c");
    Ok(Renewal::new(session, [cookie.clone(), cookie], 0))
}

fn refused() -> Result<Renewal, Failure> {
    Err(AuthErrorKind::Refused.into())
}

/// An answer whose JWT cannot be used.
fn unusable_to(token: &str) -> Result<Renewal, Failure> {
    let rescued = Some(Arc::new(Rescued { token: token.into(), set_cookie: None }));
    Err(Failure { rescued, ..AuthErrorKind::UnusableAnswer.into() })
}

/// An answer whose JWT cannot be verified just now.
fn unverified_to(token: &str, kind: AuthErrorKind) -> Result<Renewal, Failure> {
    let cookie = HeaderValue::from_static("c");
    let rescued = Some(Arc::new(Rescued { token: token.into(), set_cookie: Some([cookie.clone(), cookie]) }));
    Err(Failure { rescued, ..kind.into() })
}

fn start(renewals: &Arc<Renewals>, token: &str) -> (Ticket, Pending) {
    match renewals.enter(token.into(), None) {
        Entry::Yours(ticket, pending) => (ticket, pending),
        other => panic!("{token}: {other:?}"),
    }
}

fn ticket(renewals: &Arc<Renewals>, token: &str) -> Ticket {
    start(renewals, token).0
}

/// Ends a renewal that no logout has overtaken.
fn settle(ticket: Ticket, outcome: Result<Renewal, Failure>) {
    assert!(ticket.settle(outcome).revoked.is_none());
}

/// Renews a token for a client that gets its response at once.
fn renew(renewals: &Arc<Renewals>, token: &str, successor: &str) {
    let (ticket, pending) = start(renewals, token);
    settle(ticket, renewed_to(successor));
    let handout = pending.outcome().now_or_never().expect("it has ended").unwrap();
    assert_eq!(token_of(handout.deliver()), successor);
}

/// Returns the refresh token that a response delivers.
fn token_of(delivered: Result<Arc<Renewal>, AuthErrorKind>) -> String {
    delivered.map_or_else(|kind| format!("{kind:?}"), |renewal| renewal.session.refresh_token().secret().to_owned())
}

/// Renews a token for a client whose response takes its time.
async fn slowly(renewals: &Arc<Renewals>, token: &str, successor: &str) -> Handout {
    let (ticket, pending) = start(renewals, token);
    settle(ticket, renewed_to(successor));
    pending.outcome().await.unwrap()
}

/// Renews the latest successor of a token, whose session has expired.
fn renew_expired(renewals: &Arc<Renewals>, token: &str) -> Ticket {
    let Entry::Renewed(expired) = renewals.enter(token.into(), None) else { panic!("{token} is not known") };
    match renewals.enter(token.into(), Some(&expired)) {
        Entry::Yours(ticket, _) => ticket,
        other => panic!("{token}: {other:?}"),
    }
}

/// Says in a word what a request with this token gets.
fn outcome(renewals: &Arc<Renewals>, token: &str) -> String {
    match renewals.enter(token.into(), None) {
        Entry::Renewed(renewal) => renewal.session.refresh_token().secret().to_owned(),
        Entry::UnderWay(_) => "under way".into(),
        Entry::Refused(error) => format!("{:?}", error.kind()),
        Entry::Yours(ticket, _) => format!("sends {}", &**ticket.token()),
        Entry::Full => "full".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_spent_token_leads_to_the_latest_of_its_chain_and_no_longer_than_the_window() {
    let renewals = renewals();
    renew(&renewals, "a", "b");
    renew(&renewals, "b", "c");
    assert_eq!((outcome(&renewals, "a"), outcome(&renewals, "b")), ("c".into(), "c".into()));
    assert_eq!(outcome(&renewals, "c"), "sends c");
    advance(PERIOD).await;
    assert_eq!(outcome(&renewals, "a"), "sends a");
    renewals.state().grace.check();
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_has_expired_is_renewed_in_place_of_the_spent_token() {
    let renewals = renewals();
    renew(&renewals, "a", "b");
    assert_eq!(&**renew_expired(&renewals, "a").token(), "b");
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_not_replaced_and_circles_come_to_an_end() {
    let renewals = renewals();
    renew(&renewals, "a", "a");
    assert_eq!(outcome(&renewals, "a"), "a");
    drop(renew_expired(&renewals, "a"));
    renew(&renewals, "b", "c");
    renew(&renewals, "c", "b");
    let _ = outcome(&renewals, "b");
    assert!(matches!(renewals.end("b".into()).revocation, Revocation::Now(_)));
}

#[tokio::test(start_paused = true)]
async fn only_verdicts_are_remembered() {
    let renewals = renewals();
    settle(ticket(&renewals, "a"), refused());
    settle(ticket(&renewals, "b"), Err(AuthErrorKind::UnusableAnswer.into()));
    settle(ticket(&renewals, "c"), Err(AuthErrorKind::Unavailable.into()));
    let all = || ["a", "b", "c"].map(|token| outcome(&renewals, token));
    assert_eq!(all(), ["Refused", "UnusableAnswer", "sends c"]);
    advance(MIN_MISHAP_PAUSE).await;
    assert_eq!(all(), ["Refused", "sends b", "sends c"]);
    advance(REFUSAL_MEMORY).await;
    assert_eq!(all(), ["sends a", "sends b", "sends c"]);
}

#[tokio::test(start_paused = true)]
async fn the_pause_after_an_unusable_answer_doubles_until_one_can_be_used() {
    let renewals = renewals();
    for pause in [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs) {
        let (ticket, pending) = start(&renewals, "a");
        settle(ticket, Err(AuthErrorKind::UnusableAnswer.into()));
        assert_eq!(pending.outcome().await.unwrap_err().error.delay(), pause);
        advance(pause - Duration::from_millis(1)).await;
        let Entry::Refused(error) = renewals.enter("a".into(), None) else { panic!("{pause:?} are not over") };
        assert_eq!((error.kind(), error.delay()), (AuthErrorKind::UnusableAnswer, Duration::from_secs(1)));
        advance(Duration::from_millis(1)).await;
    }
    renew(&renewals, "a", "b");
    settle(ticket(&renewals, "b"), Err(AuthErrorKind::UnusableAnswer.into()));
    advance(Duration::from_secs(1)).await;
    assert_eq!(outcome(&renewals, "b"), "sends b", "the first mishap of its kind again");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_dropped_sets_its_token_free() {
    let renewals = renewals();
    let (ticket, waiting) = start(&renewals, "a");
    assert_eq!(outcome(&renewals, "a"), "under way");
    drop(ticket);
    assert_eq!(waiting.outcome().await.unwrap_err().error.kind(), AuthErrorKind::Unavailable);
    assert_eq!(outcome(&renewals, "a"), "sends a");
}

#[tokio::test(start_paused = true)]
async fn a_logout_ends_the_whole_chain() {
    let renewals = renewals();
    renew(&renewals, "a", "b");
    renew(&renewals, "b", "c");
    match renewals.end("b".into()) {
        Ended { jwts, revocation: Revocation::Now(latest) } => {
            assert_eq!((&*latest, jwts.len()), ("c", 2));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(["a", "b", "c"].map(|token| outcome(&renewals, token)), ["Refused"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_logouts_does_not_bring_a_session_back() {
    let renewals = renewals();
    renew(&renewals, "a", "b");
    let _ = renewals.end("b".into());
    for number in 0..MAX_PAUSES {
        let _ = renewals.end(format!("junk{number}").as_str().into());
    }
    assert_eq!(outcome(&renewals, "a"), "Refused");
}

#[tokio::test(start_paused = true)]
async fn a_mishap_of_the_successor_does_not_end_latecomers() {
    let renewals = renewals();
    renew(&renewals, "a", "b");
    // A browser that renews ahead of time, by the refresh route.
    let ticket = ticket(&renewals, "b");
    assert_eq!(outcome(&renewals, "a"), "under way");
    settle(ticket, Err(AuthErrorKind::UnusableAnswer.into()));
    assert_eq!(outcome(&renewals, "a"), "b");
    assert_eq!(outcome(&renewals, "b"), "UnusableAnswer");
}

#[tokio::test(start_paused = true)]
async fn a_logout_overtakes_the_renewal_under_way() {
    let cases = [
        ("it succeeds", renewed_to("b"), Some("b")),
        ("it is refused", refused(), None),
        ("nobody knows", Err(AuthErrorKind::Unavailable.into()), Some("a")),
    ];
    for (name, result, revoked) in cases {
        let renewals = renewals();
        let (ticket, waiting) = start(&renewals, "a");
        assert!(matches!(renewals.end("a".into()).revocation, Revocation::AfterRenewal(_)), "{name}");
        assert_eq!(ticket.settle(result).revoked.as_deref(), revoked, "{name}");
        let outcome_of_waiting = waiting.outcome().await;
        assert_eq!(outcome_of_waiting.unwrap_err().error.kind(), AuthErrorKind::Refused, "{name}");
        assert_eq!(outcome(&renewals, "a"), "Refused", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn everything_is_bounded() {
    let renewals = renewals();
    let (_one, _two) = (ticket(&renewals, "1"), ticket(&renewals, "2"));
    assert_eq!(outcome(&renewals, "3"), "full");
    let until = Instant::now() + REFUSAL_MEMORY;
    let mut state = renewals.state();
    for number in 0..2 * MAX_PAUSES {
        let pause = Pause { error: AuthError::of(AuthErrorKind::Refused), until, mishaps: 0 };
        state.refuse(digest_of(&number.to_string()), pause);
    }
    assert_eq!(state.pauses.len(), MAX_PAUSES);
}

/// Nobody asks in between: it is the response that starts the grace period, when it is delivered or dropped.
#[tokio::test(start_paused = true)]
async fn the_grace_period_starts_when_the_last_response_is_delivered() {
    for (held, known_for) in [(31, 30), (59, 30), (61, 30), (270, 30), (299, 30), (400, 30)] {
        let renewals = renewals();
        let [first, last] = [
            slowly(&renewals, "a", "b").await,
            match renewals.enter("a".into(), None) {
                Entry::Renewed(handout) => handout,
                other => panic!("{other:?}"),
            },
        ];
        advance(Duration::from_secs(held / 2)).await;
        drop(first);
        advance(Duration::from_secs(held - held / 2)).await;
        assert_eq!(token_of(last.deliver()), "b");
        drop(last);
        {
            advance(Duration::from_secs(known_for) - Duration::from_millis(1)).await;
            assert_eq!(outcome(&renewals, "a"), "b", "held for {held} s");
        }
    }
    for held in [0, 31, 61, 299] {
        let renewals = renewals();
        let handout = slowly(&renewals, "a", "b").await;
        advance(Duration::from_secs(held)).await;
        assert_eq!(token_of(handout.deliver()), "b");
        drop(handout);
        advance(PERIOD).await;
        assert_eq!(outcome(&renewals, "a"), "sends a", "held for {held} s, and then released");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_nobody_has_taken_yet_holds_the_grace_period() {
    let renewals = renewals();
    let (ticket, pending) = start(&renewals, "a");
    settle(ticket, renewed_to("b"));
    advance(2 * MINUTE).await;
    let handout = pending.outcome().await.unwrap();
    advance(2 * MINUTE).await;
    drop(handout);
    advance(PERIOD / 2).await;
    assert_eq!(outcome(&renewals, "a"), "b");
}

#[tokio::test(start_paused = true)]
async fn a_token_stays_known_while_its_successor_is_being_renewed() {
    let renewals = renewals();
    renew(&renewals, "a", "b");
    let (ticket, pending) = start(&renewals, "b");
    advance(MINUTE).await;
    assert_eq!(outcome(&renewals, "a"), "under way");
    settle(ticket, renewed_to("c"));
    assert_eq!(outcome(&renewals, "a"), "c");
    drop(pending);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_ends_keeps_a_successor_for_five_minutes() {
    let renewals = renewals();
    let handout = slowly(&renewals, "a", "b").await;
    // Another response was quicker.
    let Entry::Renewed(other) = renewals.enter("a".into(), None) else { panic!("it is not known") };
    assert_eq!(token_of(other.deliver()), "b");
    drop(other);
    advance(5 * MINUTE).await;
    assert_eq!(outcome(&renewals, "a"), "sends a");
    drop(handout);
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_is_not_delivered_where_its_successor_cannot_be_used() {
    let renewals = renewals();
    let slow = slowly(&renewals, "a", "b").await;
    settle(ticket(&renewals, "b"), unusable_to("c"));
    assert_eq!(token_of(slow.deliver()), "Unavailable", "which ends no session");
    let _ = renewals.end("a".into());
    assert_eq!(token_of(slow.deliver()), "Refused");
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_nobody_has_got_is_kept_for_an_hour() {
    let renewals = renewals();
    drop(slowly(&renewals, "a", "b").await);
    advance(59 * MINUTE).await;
    assert_eq!(outcome(&renewals, "a"), "b");
    advance(MINUTE).await;
    assert_eq!(outcome(&renewals, "a"), "sends a");
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_not_revived_by_a_later_renewal() {
    let renewals = renewals();
    renew(&renewals, "a", "b");
    advance(PERIOD).await;
    let handout = slowly(&renewals, "b", "c").await;
    assert_eq!((outcome(&renewals, "a"), outcome(&renewals, "b")), ("sends a".into(), "c".into()));
    drop(handout);
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_cannot_be_used_is_sent_after_the_pause_in_place_of_the_spent_token() {
    let renewals = renewals();
    settle(ticket(&renewals, "a"), unusable_to("b"));
    assert_eq!(outcome(&renewals, "a"), "UnusableAnswer");
    advance(Duration::from_secs(1)).await;
    assert_eq!(outcome(&renewals, "a"), "sends b");
    settle(ticket(&renewals, "a"), unusable_to("c"));
    advance(Duration::from_secs(1)).await;
    assert_eq!(outcome(&renewals, "a"), "UnusableAnswer", "the second pause is longer");
    advance(Duration::from_secs(1)).await;
    // However long it takes until somebody comes again.
    advance(30 * MINUTE).await;
    let (ticket, pending) = start(&renewals, "a");
    assert_eq!(&**ticket.token(), "c");
    settle(ticket, renewed_to("d"));
    advance(MINUTE).await;
    assert_eq!(["a", "b", "c"].map(|token| outcome(&renewals, token)), ["d"; 3], "the response is not delivered yet");
    assert_eq!(token_of(pending.outcome().await.unwrap().deliver()), "d");
    advance(PERIOD).await;
    assert_eq!(["a", "b", "c"].map(|token| outcome(&renewals, token)), ["sends a", "sends b", "sends c"]);
}

#[tokio::test(start_paused = true)]
async fn a_logout_ends_a_successor_that_cannot_be_used() {
    let renewals = renewals();
    settle(ticket(&renewals, "a"), unusable_to("b"));
    let Revocation::Now(token) = renewals.end("a".into()).revocation else { panic!("nothing is under way") };
    assert_eq!(&*token, "b");
    advance(PERIOD / 2).await;
    assert_eq!(outcome(&renewals, "a"), "Refused");
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_could_not_be_verified_is_sent_in_place_of_the_spent_token() {
    let renewals = renewals();
    settle(ticket(&renewals, "a"), unverified_to("b", AuthErrorKind::Unavailable));
    assert_eq!(outcome(&renewals, "a"), "sends b");
}

#[tokio::test(start_paused = true)]
async fn crossmint_is_given_the_time_it_asks_for() {
    let renewals = renewals();
    let delay = Duration::from_secs(7);
    let limited = || Err(AuthError::of(AuthErrorKind::RateLimited).retry_after(Some(delay)).into());
    for number in 0..MAX_PATIENCE {
        assert_eq!(outcome(&renewals, "other"), "sends other");
        settle(ticket(&renewals, &number.to_string()), limited());
        assert_eq!(outcome(&renewals, &number.to_string()), "RateLimited");
    }
    assert_eq!(outcome(&renewals, "other"), "RateLimited", "so often in a row, it means everybody");
    advance(delay).await;
    assert_eq!(outcome(&renewals, "other"), "sends other");
    assert_eq!(outcome(&renewals, "0"), "sends 0");
}

#[tokio::test(start_paused = true)]
async fn no_window_no_memory() {
    let renewals = with_period(Duration::ZERO);
    renew(&renewals, "a", "b");
    assert_eq!(outcome(&renewals, "a"), "sends a");
}

#[tokio::test(start_paused = true)]
async fn a_slow_response_holds_the_whole_family() {
    let renewals = renewals();
    let slow = slowly(&renewals, "a", "b").await;
    advance(PERIOD / 2).await;
    renew(&renewals, "b", "c");
    advance(3 * PERIOD).await;
    assert_eq!((outcome(&renewals, "a"), outcome(&renewals, "b")), ("c".into(), "c".into()));
    assert_eq!(token_of(slow.deliver()), "c", "it does not bring the rotated token back");
    drop(slow);
    advance(PERIOD).await;
    assert_eq!((outcome(&renewals, "a"), outcome(&renewals, "b")), ("sends a".into(), "sends b".into()));
}

#[tokio::test(start_paused = true)]
async fn a_logout_outlasts_a_renewal_that_is_dropped() {
    let renewals = renewals();
    let ticket = ticket(&renewals, "a");
    assert!(matches!(renewals.end("a".into()).revocation, Revocation::AfterRenewal(_)));
    drop(ticket);
    assert_eq!(outcome(&renewals, "a"), "Refused");
}

#[tokio::test(start_paused = true)]
async fn a_logout_reaches_all_renewals_of_a_token_that_is_not_replaced() {
    let renewals = renewals();
    let slow = slowly(&renewals, "a", "a").await;
    settle(renew_expired(&renewals, "a"), renewed_to("a"));
    let _ = renewals.end("a".into());
    assert_eq!(token_of(slow.deliver()), "Refused");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_leaves_nobody_waiting_and_no_lock_behind() {
    let renewals = renewals();
    let (ticket, pending) = start(&renewals, "a");
    let task = tokio::spawn({
        let renewals = Arc::clone(&renewals);
        async move {
            let _ticket = ticket;
            let _state = renewals.state.lock();
            panic!("on purpose");
        }
    });
    assert!(task.await.unwrap_err().is_panic());
    assert!(renewals.state.is_poisoned());
    assert_eq!(pending.outcome().await.unwrap_err().error.kind(), AuthErrorKind::Unavailable);
    renew(&renewals, "a", "b");
    assert_eq!(outcome(&renewals, "a"), "b");
}

#[tokio::test(start_paused = true)]
async fn a_logout_during_a_renewal_is_remembered_as_long_as_the_window() {
    let window = 4 * REFUSAL_MEMORY;
    let renewals = with_period(window);
    let ticket = ticket(&renewals, "a");
    assert!(matches!(renewals.end("a".into()).revocation, Revocation::AfterRenewal(_)));
    settle(ticket, refused());
    advance(window - Duration::from_secs(1)).await;
    assert_eq!(outcome(&renewals, "a"), "Refused");
}

#[tokio::test(start_paused = true)]
async fn a_key_set_that_asks_for_patience_holds_up_no_renewal() {
    let renewals = renewals();
    for number in 0..2 * MAX_PATIENCE {
        let unverified = unverified_to("b", AuthErrorKind::RateLimited);
        settle(ticket(&renewals, &number.to_string()), unverified);
    }
    assert_eq!(outcome(&renewals, "other"), "sends other");
}
