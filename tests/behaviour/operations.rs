//! What operators see of the layer, and how it ends.

use std::{collections::HashMap, time::Duration};

use axum::body::Body;
use futures_util::{FutureExt, future::join_all};
use http::Method;
use tower::ServiceExt as _;
use tower_crossmint_auth::{
    AuthErrorKind, CrossmintAuth, OutagePolicy,
    testing::{Endpoint, Fault, MockCrossmint},
};
use tracing::Level;

use crate::{
    direct::{app, auth, get, pass, post, request},
    events::Events,
    support::{LOGOUT_ROUTE, expired},
};

#[tokio::test]
async fn events_say_in_a_few_words_what_happened() {
    let events = Events::capture(Level::TRACE);
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    mock.inject_times(Endpoint::Keys, 1, Fault::Status(500));
    auth.warm_up().await.unwrap_err();
    pass(Duration::from_secs(1)).await;
    auth.warm_up().await.unwrap();

    let alice = expired(&mock, "alice");
    let hold = mock.hold(Endpoint::Refresh);
    let cookie = alice.cookie_header();
    let both = join_all((0..2).map(|_| get(&app, "/", &cookie)));
    let release = async {
        mock.called(Endpoint::Refresh, 1).await;
        hold.release();
    };
    tokio::join!(both, release);
    post(&app, LOGOUT_ROUTE, &alice.cookie_header()).await;

    let bob = expired(&mock, "bob");
    mock.revoke(bob.refresh_token());
    get(&app, "/", &bob.cookie_header()).await;
    mock.inject(Endpoint::Refresh, Fault::Garbage);
    for user in ["carol", "dave"] {
        get(&app, "/", &expired(&mock, user).cookie_header()).await;
    }
    assert_eq!(
        events.texts(),
        [
            "WARN the key set could not be loaded kind=Unavailable",
            "DEBUG loaded the key set keys=1",
            "TRACE joined a refresh",
            "DEBUG refreshed a session",
            r#"DEBUG a session has ended reason="logout""#,
            r#"DEBUG a session has ended reason="refused""#,
            "ERROR a session was not refreshed: Crossmint is unavailable kind=UnusableAnswer",
            "DEBUG a session was not refreshed: Crossmint is unavailable kind=UnusableAnswer",
        ]
    );
}

#[tokio::test]
async fn an_outage_makes_one_line_a_minute() {
    let events = Events::capture(Level::WARN);
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    mock.set_down(true);
    for minute in 1..=3 {
        for _ in 0..3 {
            auth.warm_up().await.unwrap_err();
            pass(Duration::from_secs(20)).await;
        }
        let lines = events.texts();
        assert_eq!(lines.len(), minute, "{lines:?}");
    }
    assert!(auth.stats().failed_reloads > 3);
}

#[tokio::test]
async fn a_run_of_refusals_is_a_warning_that_names_the_api_key() {
    let events = Events::capture(Level::WARN);
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().refusal_warning(3).build().unwrap());
    let app = app(&auth);
    let good = expired(&mock, "bob").cookie_header();
    mock.inject_times(Endpoint::Refresh, 2, Fault::Status(401));
    for user in ["alice", "carol"] {
        get(&app, "/", &expired(&mock, user).cookie_header()).await;
    }
    assert_eq!(get(&app, "/", &good).await.status, 200, "which ends the run");
    mock.inject(Endpoint::Refresh, Fault::Status(401));
    let again = expired(&mock, "dave").cookie_header();
    for _ in 0..3 {
        get(&app, "/", &again).await;
        pass(Duration::from_secs(30)).await;
    }
    get(&app, "/", &expired(&mock, "erin").cookie_header()).await;
    assert_eq!((events.texts().len(), auth.stats().refusal_runs), (0, 0), "one token counts once");
    for number in 0..7 {
        get(&app, "/", &expired(&mock, &number.to_string()).cookie_header()).await;
    }
    let lines = events.texts();
    assert!(lines.len() == 1 && lines[0].starts_with("WARN") && lines[0].contains("API key"), "{lines:?}");
    assert_eq!(auth.stats().refusal_runs, 3, "each is counted");
    pass(Duration::from_secs(60)).await;
    for number in 0..3 {
        get(&app, "/", &expired(&mock, &number.to_string()).cookie_header()).await;
    }
    assert_eq!(events.texts().len(), 2, "one line a minute");
}

#[tokio::test]
async fn rotated_tokens_that_do_not_fit_into_memory_are_counted_and_warned_of_once_a_minute() {
    let events = Events::capture(Level::WARN);
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().rotation_grace_bytes(64 << 10).build().unwrap());
    let app = app(&auth);
    for number in 0..200 {
        let cookie = expired(&mock, &number.to_string()).cookie_header();
        assert_eq!(get(&app, "/", &cookie).await.status, 200);
    }
    let evicted = auth.stats().grace_evictions;
    assert!((50..200).contains(&evicted), "{evicted}");
    let lines = events.texts();
    assert!(lines.len() == 1 && lines[0].contains("rotation_grace_bytes"), "{lines:?}");
}

#[tokio::test]
async fn counters_tell_what_was_done() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    mock.inject_times(Endpoint::Keys, 1, Fault::Status(500));
    auth.warm_up().await.unwrap_err();
    pass(Duration::from_secs(1)).await;

    let alice = mock.sign_in("alice").cookie_header();
    for _ in 0..3 {
        assert_eq!(get(&app, "/", &alice).await.status, 200);
    }
    let bob = expired(&mock, "bob").cookie_header();
    let hold = mock.hold(Endpoint::Refresh);
    let four = join_all((0..4).map(|_| get(&app, "/", &bob)));
    let release = async {
        mock.called(Endpoint::Refresh, 1).await;
        hold.release();
    };
    tokio::join!(four, release);
    get(&app, "/", &bob).await;
    get(&app, "/", "").await;
    get(&app, "/", "").await;
    get(&app, "/api/auth/refresh", &alice).await;
    mock.inject(Endpoint::Refresh, Fault::Status(401));
    get(&app, "/", &expired(&mock, "carol").cookie_header()).await;

    let stats = auth.stats();
    assert_eq!((stats.cache_hits, stats.verifications), (2, 2), "alice twice; alice and bob, once each");
    assert_eq!((stats.reloads, stats.failed_reloads), (1, 1));
    assert_eq!((stats.refreshes, stats.joined, stats.grace_hits), (2, 3, 1));
    let refusals: HashMap<AuthErrorKind, u64> = stats.rejections().filter(|(_, count)| *count > 0).collect();
    let expected =
        [(AuthErrorKind::MissingCredentials, 2), (AuthErrorKind::MethodNotAllowed, 1), (AuthErrorKind::Refused, 1)];
    assert_eq!(refusals, HashMap::from(expected));
}

#[tokio::test]
async fn a_shutdown_waits_for_the_renewals_whose_clients_are_gone() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    auth.wait_idle().await;

    let alice = expired(&mock, "alice");
    let hold = mock.hold_answers(Endpoint::Refresh);
    let gone = app(&auth).oneshot(request::<Body>(Method::GET, "/", &alice.cookie_header()));
    tokio::select! {
        _ = gone => panic!("the answer is held"),
        () = mock.called(Endpoint::Refresh, 1) => {}
    }
    let mut idle = Box::pin(auth.wait_idle());
    assert!((&mut idle).now_or_never().is_none(), "one is under way");
    hold.release();
    idle.await;
    assert_eq!(get(&app(&auth), "/", &alice.cookie_header()).await.status, 200);
    assert_eq!(mock.calls(Endpoint::Refresh), 1, "its pair has been kept");
}

#[tokio::test]
async fn a_crossmint_that_hangs_keeps_nobody_waiting_who_comes_later() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().max_concurrent_refreshes(2).on_outage(OutagePolicy::KeepSession);
    let auth = CrossmintAuth::new(config.build().unwrap());
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let sessions: Vec<String> = (0..6).map(|n| expired(&mock, &format!("user-{n}")).cookie_header()).collect();
    let hold = mock.hold(Endpoint::Refresh);
    let ask = |number: usize| {
        let (app, cookie) = (app.clone(), sessions[number].clone());
        tokio::spawn(async move { get(&app, "/", &cookie).await.status })
    };
    let hanging = [ask(0), ask(1)];
    mock.called(Endpoint::Refresh, 2).await;
    let in_line = ask(2);
    pass(Duration::from_secs(1)).await;
    assert_eq!(in_line.await.unwrap(), 503);

    // Time stands still: none of these waits for a timer.
    tokio::time::pause();
    assert_eq!(get(&app, "/", &sessions[3]).await.status, 503);
    assert_eq!(
        get(&app, "/", &mock.sign_in("alice").cookie_header()).await.status,
        200,
        "valid sessions do not notice"
    );
    tokio::time::resume();
    assert_eq!(mock.calls(Endpoint::Refresh), 2);

    hold.release();
    for request in hanging {
        assert_eq!(request.await.unwrap(), 200);
    }
    for session in &sessions {
        assert_eq!(get(&app, "/", session).await.status, 200, "and all is well again");
    }
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (6, 0));
}
