//! When the key set is loaded, and which set is used meanwhile.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tower_crossmint_auth::{
    AuthErrorKind, CrossmintAuth,
    testing::{Endpoint, Fault, MockCrossmint, MockSession},
};

use crate::support::{
    clock::{at, pass},
    direct::{app, auth, get},
    mock::{Calls, NO_CALLS, calls, expired},
    signer::FIRST,
};

#[tokio::test]
async fn a_new_key_is_found_by_one_reload_per_cooldown() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let old = mock.sign_in("alice");
    mock.rotate_keys();
    let new = mock.sign_in("bob");
    let unknown: Vec<String> =
        (0..20).map(|n| mock.sign(json!({"kid": n.to_string()}), json!({"sub": "x", "exp": at(60)}))).collect();
    let refuse_unknown = async || {
        let all = join_all(unknown.iter().map(|token| auth.verify_jwt(token))).await;
        assert!(all.iter().all(|outcome| outcome.as_ref().unwrap_err().kind() == AuthErrorKind::InvalidToken));
    };

    // The cooldown counts from the attempt of the warm-up.
    refuse_unknown().await;
    assert!(auth.verify_jwt(new.jwt()).await.is_err());
    pass(Duration::from_secs(28)).await;
    refuse_unknown().await;
    assert_eq!(mock.calls(Endpoint::Keys), 1);

    pass(Duration::from_secs(2)).await;
    assert!(auth.verify_jwt(new.jwt()).await.is_ok());
    refuse_unknown().await;
    assert!(auth.verify_jwt(old.jwt()).await.is_ok());
    assert_eq!(mock.calls(Endpoint::Keys), 2);
}

#[tokio::test]
async fn a_reload_for_an_unknown_kid_does_not_delay_known_ones() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let alice = mock.sign_in("alice");
    let unknown = FIRST.sign(Some("first"));
    pass(Duration::from_secs(30)).await;
    let hold = mock.hold(Endpoint::Keys);
    let waiting = tokio::spawn({
        let auth = auth.clone();
        async move { auth.verify_jwt(&unknown).await.is_err() }
    });
    mock.called(Endpoint::Keys, 2).await;
    assert_eq!(get(&app(&auth), "/", &alice.cookie_header()).await.status, 200);
    assert!(!waiting.is_finished());
    hold.release();
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn a_refreshed_jwt_with_a_new_key_reloads_the_set_during_the_cooldown() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let alice = expired(&mock, "alice");
    mock.rotate_keys();
    let answer = get(&app(&auth), "/", &alice.cookie_header()).await;
    assert_eq!((answer.status, answer.user().as_deref()), (200, Some("alice")));
    assert_eq!(calls(&mock), Calls { keys: 2, refreshes: 1, ..NO_CALLS });
}

#[tokio::test]
async fn a_refresh_does_not_rely_on_a_reload_that_began_before_it() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().max_concurrent_refreshes(1).build().unwrap());
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let [alice, carol] = ["alice", "carol"].map(|user| expired(&mock, user).cookie_header());
    let bob = mock.sign_in("bob").cookie_header();
    pass(Duration::from_secs(601)).await;
    // The set is stale: bob's request starts a reload in the background, whose answer is held.
    let hold = mock.hold_answers(Endpoint::Keys);
    assert_eq!(get(&app, "/", &bob).await.status, 200);
    mock.called(Endpoint::Keys, 2).await;
    mock.rotate_keys();
    let (alice, carol, ()) = tokio::join!(get(&app, "/", &alice), get(&app, "/", &carol), async {
        // One refresh at a time: when the second arrives, the first has been answered and waits for the reload.
        mock.called(Endpoint::Refresh, 2).await;
        hold.release();
    });
    assert_eq!((alice.status, carol.status, mock.reuse_detections()), (200, 200, 0));
}

#[tokio::test]
async fn a_stale_set_serves_during_one_reload_in_the_background() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let alice = mock.sign_in("alice").cookie_header();
    auth.warm_up().await.unwrap();
    pass(Duration::from_secs(10 * 60 - 2)).await;
    assert_eq!(get(&app, "/", &alice).await.status, 200);
    assert_eq!(mock.calls(Endpoint::Keys), 1);

    let hold = mock.hold(Endpoint::Keys);
    pass(Duration::from_secs(2)).await;
    for n in 0..10 {
        assert_eq!(get(&app, "/", &alice).await.status, 200, "request {n}");
    }
    mock.called(Endpoint::Keys, 2).await;
    assert_eq!(get(&app, "/", &alice).await.status, 200);
    hold.release();
    loaded(&auth).await;
    assert_eq!(get(&app, "/", &alice).await.status, 200);
    assert_eq!(calls(&mock), Calls { keys: 2, ..NO_CALLS });
}

#[tokio::test]
async fn a_day_without_requests_costs_one_reload_and_no_refresh() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let alice = mock.session("alice").jwt_lifetime(100_000).create().cookie_header();
    assert_eq!(get(&app, "/", &alice).await.status, 200);
    pass(Duration::from_secs(24 * 3600)).await;
    let answers = join_all((0..100).map(|_| get(&app, "/", &alice))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(calls(&mock), Calls { keys: 2, ..NO_CALLS });
}

#[tokio::test]
async fn a_withdrawn_key_is_rejected_after_the_next_reload() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let alice = mock.sign_in("alice");
    assert!(get(&app, "/", &alice.cookie_header()).await.set_cookie().is_empty());
    mock.rotate_keys();
    mock.withdraw_old_keys();
    assert!(get(&app, "/", &alice.cookie_header()).await.set_cookie().is_empty(), "before the reload");
    pass(Duration::from_secs(10 * 60)).await;
    assert!(auth.verify_jwt(mock.sign_in("bob").jwt()).await.is_ok());

    assert_eq!(auth.verify_jwt(alice.jwt()).await.unwrap_err().kind(), AuthErrorKind::InvalidToken);
    let answer = get(&app, "/", &alice.cookie_header()).await;
    assert_eq!((answer.status, answer.set_cookie().len()), (200, 2), "nor is it served from the token cache");
    assert_eq!(calls(&mock), Calls { keys: 2, refreshes: 1, ..NO_CALLS });
}

#[tokio::test]
async fn a_failed_reload_keeps_the_good_set_for_an_hour() {
    for (name, fault) in faults("http://127.0.0.1:1/") {
        let mock = MockCrossmint::start().await;
        let auth = with_short_time_limit(&mock);
        let app = app(&auth);
        let alice = mock.sign_in("alice").cookie_header();
        auth.warm_up().await.unwrap();
        mock.inject(Endpoint::Keys, fault);
        pass(Duration::from_secs(10 * 60)).await;
        assert_eq!(get(&app, "/", &alice).await.status, 200, "{name}");
        let unknown = auth.verify_jwt(&FIRST.sign(Some("first"))).await.unwrap_err().kind();
        assert!(matches!(unknown, AuthErrorKind::Unavailable | AuthErrorKind::UnusableAnswer), "{name}: {unknown:?}");
        assert_eq!(mock.calls(Endpoint::Keys), 2, "{name}");
        assert_eq!(get(&app, "/", &alice).await.status, 200, "{name}");

        pass(Duration::from_secs(50 * 60)).await;
        assert_eq!(get(&app, "/", &alice).await.status, 401, "{name}");
        assert_eq!(mock.calls(Endpoint::Refresh), 0, "{name}");
    }
}

#[tokio::test]
async fn a_cold_start_loads_the_key_set_once_for_all_waiters() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let sessions: Vec<MockSession> =
        (0..50).map(|n| mock.session("alice").jwt_lifetime(if n < 40 { 60 } else { -60 }).create()).collect();
    let hold = mock.hold(Endpoint::Keys);
    let cookies: Vec<String> = sessions.iter().map(MockSession::cookie_header).collect();
    let requests = join_all(cookies.iter().map(|cookie| get(&app, "/", cookie)));
    let (answers, ()) = tokio::join!(requests, async {
        mock.called(Endpoint::Keys, 1).await;
        assert_eq!(mock.calls(Endpoint::Refresh), 0, "no refresh without a key to verify its JWT");
        hold.release();
    });
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(calls(&mock), Calls { keys: 1, refreshes: 10, ..NO_CALLS });
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_the_reload() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let hold = mock.hold(Endpoint::Keys);
    let cookie = mock.sign_in("alice").cookie_header();
    let dropped = tokio::spawn({
        let (app, cookie) = (app(&auth), cookie.clone());
        async move { get(&app, "/", &cookie).await.status }
    });
    mock.called(Endpoint::Keys, 1).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    hold.release();
    assert_eq!(get(&app(&auth), "/", &cookie).await.status, 200);
    assert_eq!(mock.calls(Endpoint::Keys), 1);
}

#[tokio::test]
async fn a_failing_cold_start_backs_off_and_recovers() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let valid = mock.sign_in("alice").cookie_header();
    let expired = expired(&mock, "bob").cookie_header();
    mock.inject(Endpoint::Keys, Fault::Status(500));
    // The seconds that pass, and the calls made until then.
    for (pause, calls) in [(0, 1), (0, 1), (1, 2), (1, 2), (1, 3), (3, 3), (1, 4)] {
        pass(Duration::from_secs(pause)).await;
        assert_eq!(get(&app, "/", &valid).await.status, 401);
        assert_eq!(get(&app, "/", &expired).await.status, 401);
        assert_eq!(mock.calls(Endpoint::Keys), calls, "after another {pause} s");
    }
    assert_eq!(mock.calls(Endpoint::Refresh), 0);

    mock.clear_faults();
    pass(Duration::from_secs(30)).await;
    assert_eq!(get(&app, "/", &valid).await.status, 200);
    assert_eq!(get(&app, "/", &expired).await.status, 200);
    assert_eq!(calls(&mock), Calls { keys: 5, refreshes: 1, ..NO_CALLS });
}

#[tokio::test]
async fn no_fault_of_the_key_set_causes_a_refresh() {
    let elsewhere = MockCrossmint::start().await;
    for (name, fault) in faults(&format!("{}/.well-known/jwks.json", elsewhere.base_url())) {
        let mock = MockCrossmint::start().await;
        mock.inject(Endpoint::Keys, fault);
        let auth = with_short_time_limit(&mock);
        for session in [mock.sign_in("alice"), expired(&mock, "bob")] {
            assert_eq!(get(&app(&auth), "/", &session.cookie_header()).await.status, 401, "{name}");
            assert!(mock.is_live(session.refresh_token()), "{name}");
        }
        assert!(auth.refresh("a-one-time-secret").await.is_err(), "{name}");
        assert_eq!(calls(&mock), Calls { keys: 1, ..NO_CALLS }, "{name}");
    }
    assert_eq!(elsewhere.connections(), 0, "redirects are not followed");
}

/// Ways in which the endpoint of the key set can fail.
fn faults(redirect: &str) -> Vec<(&'static str, Fault)> {
    vec![
        ("500", Fault::Status(500)),
        ("404", Fault::Status(404)),
        ("a page", Fault::StatusHtml(200)),
        ("garbage", Fault::Garbage),
        ("empty", Fault::Empty),
        ("no keys", Fault::json(200, json!({"keys": []}))),
        ("no usable keys", Fault::json(200, json!({"keys": [{"kty": "oct", "k": "AA"}]}))),
        ("an error object", Fault::json(200, json!({"error": "x"}))),
        ("an array", Fault::json(200, json!([]))),
        ("huge", Fault::Huge(300 << 10)),
        ("endless", Fault::Endless),
        ("a redirect", Fault::Redirect(302, redirect.to_owned())),
        ("another redirect", Fault::Redirect(307, redirect.to_owned())),
        ("reset", Fault::Reset),
        ("reset in the body", Fault::ResetMidBody),
        ("cut off", Fault::EarlyEof),
        ("hang", Fault::Hang),
        ("a byte a second", Fault::SlowBody),
        ("a compressed bomb", Fault::CompressedBomb),
    ]
}

/// A handle with a short time limit for the key set.
fn with_short_time_limit(mock: &MockCrossmint) -> CrossmintAuth {
    CrossmintAuth::new(mock.config().keys_timeout(Duration::from_millis(250)).build().unwrap())
}

/// Waits until the reload that is under way has ended.
async fn loaded(auth: &CrossmintAuth) {
    // The verification of a token with an unknown `kid` waits for it.
    assert!(auth.verify_jwt(&FIRST.sign(Some("first"))).await.is_err());
}
