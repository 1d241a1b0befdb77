use tokio::time::advance;

use super::*;
use crate::session::{AuthMaterial, RefreshToken, Verified};

const WINDOW: Duration = Duration::from_secs(30);

fn renewals() -> Arc<Renewals> {
    Arc::new(Renewals::new(WINDOW, 2))
}

fn renewed_to(token: &str) -> Outcome {
    let verified = Verified { user_id: "alice".into(), expires_at: 0, generation: 0 };
    let session = Session::new(verified, AuthMaterial::new("jwt", RefreshToken::new(token)));
    let cookie = HeaderValue::from_static("c");
    Ok(Arc::new(Renewal::new(session, [cookie.clone(), cookie], 0)))
}

fn refused() -> Outcome {
    Err(AuthErrorKind::Refused.into())
}

fn ticket(renewals: &Arc<Renewals>, token: &str) -> Ticket {
    match renewals.enter(token.into(), |_| true) {
        Entry::Yours(ticket, _) => ticket,
        other => panic!("{token}: {other:?}"),
    }
}

fn renew(renewals: &Arc<Renewals>, token: &str, successor: &str) {
    assert!(ticket(renewals, token).settle(renewed_to(successor)).is_none());
}

/// Says in a word what a request with this token gets.
fn outcome(renewals: &Arc<Renewals>, token: &str) -> String {
    match renewals.enter(token.into(), |_| true) {
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
    advance(WINDOW).await;
    assert_eq!(outcome(&renewals, "a"), "sends a");
    assert_eq!(renewals.state().renewed_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_has_expired_is_renewed_in_place_of_the_spent_token() {
    let renewals = renewals();
    renew(&renewals, "a", "b");
    match renewals.enter("a".into(), |_| false) {
        Entry::Yours(ticket, _) => assert_eq!(&**ticket.token(), "b"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_not_replaced_and_circles_come_to_an_end() {
    let renewals = renewals();
    renew(&renewals, "a", "a");
    assert_eq!(outcome(&renewals, "a"), "a");
    assert!(matches!(renewals.enter("a".into(), |_| false), Entry::Yours(..)));
    renew(&renewals, "b", "c");
    renew(&renewals, "c", "b");
    let _ = outcome(&renewals, "b");
    assert!(matches!(renewals.end("b".into()).revocation, Revocation::Now(_)));
}

#[tokio::test(start_paused = true)]
async fn only_verdicts_are_remembered() {
    let renewals = renewals();
    assert!(ticket(&renewals, "a").settle(refused()).is_none());
    assert!(ticket(&renewals, "b").settle(Err(AuthErrorKind::UnusableAnswer.into())).is_none());
    assert!(ticket(&renewals, "c").settle(Err(AuthErrorKind::Unavailable.into())).is_none());
    let all = || ["a", "b", "c"].map(|token| outcome(&renewals, token));
    assert_eq!(all(), ["Refused", "UnusableAnswer", "sends c"]);
    advance(MISHAP_MEMORY).await;
    assert_eq!(all(), ["Refused", "sends b", "sends c"]);
    advance(REFUSAL_MEMORY).await;
    assert_eq!(all(), ["sends a", "sends b", "sends c"]);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_dropped_sets_its_token_free() {
    let renewals = renewals();
    let Entry::Yours(ticket, waiting) = renewals.enter("a".into(), |_| true) else { panic!("not ours") };
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
        Ended { sessions, revocation: Revocation::Now(latest) } => {
            assert_eq!((&*latest, sessions.len()), ("c", 2));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(["a", "b", "c"].map(|token| outcome(&renewals, token)), ["Refused"; 3]);
    assert!(renewals.state().predecessors.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_logouts_does_not_bring_a_session_back() {
    let renewals = renewals();
    renew(&renewals, "a", "b");
    let _ = renewals.end("b".into());
    for number in 0..MAX_REFUSED {
        let _ = renewals.end(format!("junk{number}").as_str().into());
    }
    assert_eq!(outcome(&renewals, "a"), "sends a");
}

#[tokio::test(start_paused = true)]
async fn a_mishap_of_the_successor_does_not_end_latecomers() {
    let renewals = renewals();
    renew(&renewals, "a", "b");
    // A browser that renews ahead of time, by the refresh route.
    let ticket = ticket(&renewals, "b");
    assert_eq!(outcome(&renewals, "a"), "under way");
    assert!(ticket.settle(Err(AuthErrorKind::UnusableAnswer.into())).is_none());
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
        let Entry::Yours(ticket, waiting) = renewals.enter("a".into(), |_| true) else { panic!("not ours") };
        assert!(matches!(renewals.end("a".into()).revocation, Revocation::AfterRenewal(_)), "{name}");
        assert_eq!(ticket.settle(result).as_deref(), revoked, "{name}");
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
    for number in 0..2 * MAX_REFUSED {
        state.refuse(digest_of(&number.to_string()), AuthErrorKind::Refused.into(), until);
    }
    assert_eq!(state.refused.len(), MAX_REFUSED);
    let renewal = renewed_to(&"r".repeat(4000)).unwrap();
    for number in 0..10_000 {
        let renewed = Renewed::new(Some(Arc::clone(&renewal)), "r".into(), WINDOW);
        state.remember(digest_of(&number.to_string()), renewed);
    }
    assert!(state.renewed_bytes <= MAX_RENEWED_BYTES && !state.renewed.is_empty());
    assert_eq!(state.renewed_bytes, state.renewed.iter().map(|(_, renewed)| cost(renewed)).sum::<usize>());
}

#[tokio::test(start_paused = true)]
async fn a_successor_is_kept_while_a_response_with_it_is_to_be_sent() {
    let renewals = renewals();
    let renewal = renewed_to("b");
    assert!(ticket(&renewals, "a").settle(renewal.clone()).is_none());
    for _ in 0..9 {
        advance(WINDOW).await;
        assert_eq!(outcome(&renewals, "a"), "b");
    }
    drop(renewal);
    advance(WINDOW).await;
    assert_eq!(outcome(&renewals, "a"), "sends a");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_ends_keeps_a_successor_for_five_minutes() {
    let renewals = renewals();
    let renewal = renewed_to("b");
    assert!(ticket(&renewals, "a").settle(renewal.clone()).is_none());
    for _ in 0..10 {
        advance(WINDOW).await;
        let _ = outcome(&renewals, "a");
    }
    assert_eq!(outcome(&renewals, "a"), "sends a");
    drop(renewal);
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_could_not_be_verified_is_sent_in_place_of_the_spent_token() {
    let renewals = renewals();
    let cookie = HeaderValue::from_static("c");
    let rescued = Rescued { token: "b".into(), set_cookie: [cookie.clone(), cookie] };
    let failure = Failure { rescued: Some(Arc::new(rescued)), ..AuthErrorKind::Unavailable.into() };
    assert!(ticket(&renewals, "a").settle(Err(failure)).is_none());
    assert_eq!(outcome(&renewals, "a"), "sends b");
}

#[tokio::test(start_paused = true)]
async fn crossmint_is_given_the_time_it_asks_for() {
    let renewals = renewals();
    let delay = Duration::from_secs(7);
    let limited = || Err(AuthError::from(AuthErrorKind::RateLimited).retry_after(Some(delay)).into());
    for number in 0..MAX_PATIENCE {
        assert_eq!(outcome(&renewals, "other"), "sends other");
        assert!(ticket(&renewals, &number.to_string()).settle(limited()).is_none());
        assert_eq!(outcome(&renewals, &number.to_string()), "RateLimited");
    }
    assert_eq!(outcome(&renewals, "other"), "RateLimited", "so often in a row, it means everybody");
    advance(delay).await;
    assert_eq!(outcome(&renewals, "other"), "sends other");
    assert_eq!(outcome(&renewals, "0"), "sends 0");
}

#[tokio::test(start_paused = true)]
async fn no_window_no_memory() {
    let renewals = Arc::new(Renewals::new(Duration::ZERO, 2));
    renew(&renewals, "a", "b");
    assert_eq!(outcome(&renewals, "a"), "sends a");
}

#[tokio::test(start_paused = true)]
async fn a_spent_token_that_a_slow_response_is_still_to_carry_leads_on() {
    let renewals = renewals();
    let slow = renewed_to("b");
    assert!(ticket(&renewals, "a").settle(slow.clone()).is_none());
    advance(WINDOW / 2).await;
    renew(&renewals, "b", "c");
    for _ in 0..3 {
        advance(WINDOW).await;
        assert_eq!((outcome(&renewals, "a"), outcome(&renewals, "b")), ("c".into(), "c".into()));
    }
    drop(slow);
    advance(2 * WINDOW).await;
    assert_eq!((outcome(&renewals, "b"), renewals.state().renewed_bytes), ("sends b".into(), 0));
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
    let slow = renewed_to("a").unwrap();
    assert!(ticket(&renewals, "a").settle(Ok(Arc::clone(&slow))).is_none());
    let Entry::Yours(ticket, _) = renewals.enter("a".into(), |_| false) else { panic!("not ours") };
    assert!(ticket.settle(renewed_to("a")).is_none());
    let _ = renewals.end("a".into());
    assert!(slow.set_cookie().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_leaves_nobody_waiting_and_no_lock_behind() {
    let renewals = renewals();
    let Entry::Yours(ticket, pending) = renewals.enter("a".into(), |_| true) else { panic!("not ours") };
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
    let renewals = Arc::new(Renewals::new(window, 2));
    let ticket = ticket(&renewals, "a");
    assert!(matches!(renewals.end("a".into()).revocation, Revocation::AfterRenewal(_)));
    assert!(ticket.settle(refused()).is_none());
    advance(window - Duration::from_secs(1)).await;
    assert_eq!(outcome(&renewals, "a"), "Refused");
}

#[tokio::test(start_paused = true)]
async fn a_key_set_that_asks_for_patience_holds_up_no_renewal() {
    let renewals = renewals();
    for number in 0..2 * MAX_PATIENCE {
        let cookie = HeaderValue::from_static("c");
        let rescued = Rescued { token: "b".into(), set_cookie: [cookie.clone(), cookie] };
        let failure = Failure { rescued: Some(Arc::new(rescued)), ..AuthErrorKind::RateLimited.into() };
        assert!(ticket(&renewals, &number.to_string()).settle(Err(failure)).is_none());
    }
    assert_eq!(outcome(&renewals, "other"), "sends other");
}
