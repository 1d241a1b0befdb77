//! The logout route.

use std::time::Duration;

use axum::Router;
use futures_util::{FutureExt as _, StreamExt as _, future::join_all, stream::FuturesUnordered};
use serde_json::json;
use tower_crossmint_auth::{
    Credentials, CrossmintAuth, CrossmintAuthLayer,
    testing::{Endpoint, Fault, MockCrossmint},
};
use tracing::Level;

use crate::support::{
    answer::{Answer, ENDED, JWT, LOGOUT_ROUTE, REFRESH},
    app::App,
    clock::pass,
    direct::{app, auth, get, post},
    events::{Events, JsonLog},
    gate::Gate,
    mock::{Calls, NO_CALLS, beyond, calls, expired},
};

#[tokio::test]
async fn a_logout_makes_one_call_with_the_refresh_token_and_the_api_key() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let alice = mock.sign_in("alice");
    assert_signed_out(&app.post(LOGOUT_ROUTE, &alice.cookie_header(), "").await, "");
    assert_eq!(calls(&mock), Calls { logouts: 1, ..NO_CALLS });
    assert_eq!((app.served(), mock.live_sessions()), (0, 0));
    let request = &mock.requests(Endpoint::Logout)[0];
    assert_eq!(request.json(), Some(json!({ "refresh": alice.refresh_token() })));
    assert_eq!(request.header("x-api-key"), Some(mock.api_key()));
}

#[tokio::test]
async fn the_answer_is_the_same_whatever_happens_upstream() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    for (calls, (case, fault)) in [
        ("500", Fault::Status(500)),
        ("401", Fault::Status(401)),
        ("404", Fault::Status(404)),
        ("a page", Fault::StatusHtml(403)),
        ("a redirect", Fault::Redirect(307, format!("{}/elsewhere", mock.base_url()))),
        ("a reset", Fault::Reset),
        ("an answer that is lost", Fault::LoseAnswer),
        ("no JSON", Fault::Garbage),
        ("an endless body", Fault::Endless),
    ]
    .into_iter()
    .enumerate()
    {
        mock.inject(Endpoint::Logout, fault);
        assert_signed_out(&app.post(LOGOUT_ROUTE, &mock.sign_in("alice").cookie_header(), "").await, case);
        assert_eq!(mock.calls(Endpoint::Logout), calls + 1, "{case}: one call, and no retry");
    }
    assert_eq!(mock.calls(Endpoint::Elsewhere), 0);
    mock.set_down(true);
    assert_signed_out(&app.post(LOGOUT_ROUTE, &mock.sign_in("alice").cookie_header(), "").await, "down");
}

#[tokio::test]
async fn a_session_that_crossmint_does_not_know_counts_as_logged_out() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    for (fault, is_ok) in [
        (Fault::Status(400), true),
        (Fault::Status(401), true),
        (Fault::Status(404), true),
        (Fault::StatusHtml(401), true),
        (Fault::response(404, &[], ""), true),
        (Fault::Status(403), false),
        (Fault::StatusHtml(403), false),
        (Fault::Status(405), false),
        (Fault::Status(429), false),
        (Fault::Status(500), false),
    ] {
        mock.inject(Endpoint::Logout, fault.clone());
        let outcome = auth.logout(Credentials::pair("", mock.sign_in("alice").refresh_token())).await;
        assert_eq!(outcome.is_ok(), is_ok, "{fault:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn failed_logouts_are_logged_once_a_minute_and_unknown_tokens_never() {
    let events = Events::capture(Level::DEBUG);
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    for (fault, logouts) in [(Fault::Status(401), 2), (Fault::Status(500), 3)] {
        mock.inject(Endpoint::Logout, fault);
        for number in 0..logouts {
            post(&app, LOGOUT_ROUTE, &format!("{REFRESH}=junk{number}")).await;
        }
    }
    pass(Duration::from_secs(60)).await;
    post(&app, LOGOUT_ROUTE, &format!("{REFRESH}=junk")).await;
    let levels: Vec<String> = events.texts().into_iter().filter(|text| text.contains("revoke a session")).collect();
    assert_eq!(
        levels,
        ["INFO", "DEBUG", "DEBUG", "INFO"].map(|level| format!("{level} could not revoke a session at Crossmint"))
    );
}

#[tokio::test]
async fn a_logout_queued_behind_junk_logouts_revokes_its_session() {
    let mock = MockCrossmint::start().await;
    let app = app(&CrossmintAuth::new(mock.config().logout_timeout(Duration::from_secs(600)).build().unwrap()));
    let junk: Vec<String> = (0..200).map(|number| format!("{REFRESH}=junk{number}")).collect();
    let alice = mock.sign_in("alice");
    let hold = mock.hold(Endpoint::Logout);
    let mut flood = Box::pin(join_all(junk.iter().map(|cookie| post(&app, LOGOUT_ROUTE, cookie))));
    tokio::select! {
        _ = &mut flood => panic!("the calls are held"),
        () = mock.called(Endpoint::Logout, 128) => {}
    }
    let cookie = alice.cookie_header();
    let mut logout = Box::pin(post(&app, LOGOUT_ROUTE, &cookie));
    assert!((&mut logout).now_or_never().is_none(), "others are queued before it");
    hold.release();
    let (flood, logout) = tokio::join!(flood, logout);
    assert_signed_out(&logout, "the last one");
    assert!(!mock.is_live(alice.refresh_token()));
    assert_eq!((flood.len(), mock.calls(Endpoint::Logout)), (200, 201));
}

#[tokio::test]
async fn time_in_the_queue_counts_towards_the_logout_timeout() {
    let (log, _guard) = JsonLog::capture();
    let mock = MockCrossmint::start().await;
    let (limit, half) = (Duration::from_secs(600), Duration::from_secs(300));
    let config = mock.config().max_concurrent_refreshes(1).logout_timeout(limit);
    let app = app(&CrossmintAuth::new(config.build().unwrap()));
    let _hold = mock.hold(Endpoint::Logout);
    let logout = |token: &str| {
        let (app, cookie) = (app.clone(), format!("{REFRESH}={token}"));
        tokio::spawn(async move { post(&app, LOGOUT_ROUTE, &cookie).await })
    };
    let first = logout("first");
    mock.called(Endpoint::Logout, 1).await;
    tokio::time::pause();
    tokio::time::advance(half).await;
    let (start, second) = (tokio::time::Instant::now(), logout("second"));
    assert_signed_out(&first.await.unwrap(), "the first, at its limit");
    // The call needs real I/O.
    tokio::time::resume();
    mock.called(Endpoint::Logout, 2).await;
    tokio::time::pause();
    let second = second.await.unwrap();
    let over = start.elapsed().abs_diff(limit);
    assert!(over < Duration::from_secs(1), "half of the limit in the queue, and half of it in the call: {over:?}");
    assert_signed_out(&second, "the second");
    let spans = log.ended_spans();
    assert!(spans.len() == 2 && spans.iter().all(|(_, span)| span["error.type"] == "timeout"), "{spans:?}");
}

#[tokio::test]
async fn the_answer_does_not_wait_beyond_the_time_limit() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    for (case, fault) in [("before", Fault::Hang), ("after processing", Fault::HangAfterCommit)] {
        mock.inject(Endpoint::Logout, fault);
        let cookie = mock.sign_in("alice").cookie_header();
        let answer = app.post(LOGOUT_ROUTE, &cookie, "");
        assert_signed_out(&beyond(Duration::from_secs(2), &mock, Endpoint::Logout, answer).await, case);
    }
    assert_eq!(mock.calls(Endpoint::Logout), 2);
}

#[tokio::test]
async fn a_refused_connection_does_not_fail_the_logout() {
    let mock = MockCrossmint::start().await;
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let app = App::configured(&mock, |config| config.base_url(format!("http://{unused}"))).await;
    assert_signed_out(&app.post(LOGOUT_ROUTE, &mock.sign_in("alice").cookie_header(), "").await, "");
}

#[tokio::test]
async fn a_logout_without_exactly_one_refresh_token_makes_no_call() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let alice = mock.sign_in("alice");
    for (case, cookie) in [
        ("no cookie", String::new()),
        ("a foreign cookie", "theme=dark".to_owned()),
        ("a JWT", format!("{JWT}={}", alice.jwt())),
        ("an empty refresh token", format!("{REFRESH}=")),
        ("two refresh tokens", format!("{}; {REFRESH}=x", alice.cookie_header())),
        ("an impossible refresh token", format!("{REFRESH}=a b")),
    ] {
        assert_signed_out(&app.post(LOGOUT_ROUTE, &cookie, "").await, case);
    }
    let body = json!({ "refresh": mock.sign_in("bob").refresh_token() }).to_string();
    let answer = app.post(LOGOUT_ROUTE, &format!("{REFRESH}=a b"), &body).await;
    assert_signed_out(&answer, "the body is not read if there is a cookie");
    assert_eq!((calls(&mock), mock.live_sessions()), (NO_CALLS, 2));
}

#[tokio::test]
async fn logouts_of_junk_tokens_are_bounded() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().max_concurrent_refreshes(8).logout_timeout(Duration::from_secs(600));
    let app = app(&CrossmintAuth::new(config.build().unwrap()));
    let hold = mock.hold(Endpoint::Logout);
    let cookies: Vec<String> = (0..200).map(|number| format!("{REFRESH}=junk{number}")).collect();
    let mut logouts: FuturesUnordered<_> = cookies.iter().map(|cookie| post(&app, LOGOUT_ROUTE, cookie)).collect();
    for _ in 0..128 {
        let answer = logouts.next().await.unwrap();
        assert!((answer.status, answer.clears(&[JWT, REFRESH])) == (200, true));
    }
    hold.release();
    assert_eq!(logouts.count().await, 72);
    assert_eq!(mock.calls(Endpoint::Logout), 72, "8 under way, and a queue of 64");
}

#[tokio::test]
async fn an_unscoped_session_is_logged_out_too() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let answer = app.post(LOGOUT_ROUTE, &mock.sign_in("alice").legacy_cookie_header(), "").await;
    assert!(answer.clears(&[JWT, REFRESH, "crossmint-jwt", "crossmint-refresh-token"]), "{answer:?}");
    assert_eq!((mock.calls(Endpoint::Logout), mock.live_sessions()), (1, 0));
}

#[tokio::test]
async fn after_a_logout_the_rotated_token_is_rejected() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let old = expired(&mock, "alice").cookie_header();
    let new = app.get("/me", &old).await.cookie_header();
    app.get("/me", &old).await.assert_refreshed("alice", "a latecomer before the logout");
    assert_signed_out(&app.post(LOGOUT_ROUTE, &new, "").await, "");
    app.get("/me", &old).await.assert_ended(ENDED, "a latecomer after the logout");
    app.post("/api/auth/refresh", &old, "{}").await.assert_ended(ENDED, "at the refresh route");
    assert_eq!((calls(&mock), mock.live_sessions()), (Calls { keys: 1, refreshes: 1, logouts: 1, ..NO_CALLS }, 0));
}

#[tokio::test]
async fn a_logout_with_the_rotated_token_revokes_its_successor() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let old = expired(&mock, "alice").cookie_header();
    let refreshed = app.get("/me", &old).await;
    assert_signed_out(&app.post(LOGOUT_ROUTE, &old, "").await, "");
    let sent = mock.requests(Endpoint::Logout)[0].json();
    assert_eq!(sent, Some(json!({ "refresh": refreshed.json()["refreshToken"] })));
    assert_eq!((mock.calls(Endpoint::Logout), mock.live_sessions(), mock.reuse_detections()), (1, 0, 0));
}

#[tokio::test]
async fn no_response_sets_a_session_that_was_logged_out_meanwhile() {
    let mock = MockCrossmint::start().await;
    let gate = Gate::new();
    let app = Router::new().fallback(gate.handler()).layer(CrossmintAuthLayer::from(auth(&mock)));
    let cookie = expired(&mock, "alice").cookie_header();
    let (slow, ()) = tokio::join!(get(&app, "/", &cookie), async {
        gate.entered().await;
        assert!(post(&app, LOGOUT_ROUTE, &cookie).await.clears(&[JWT, REFRESH]));
        gate.open();
    });
    assert_eq!((slow.status, slow.set_cookie().len()), (200, 0));
}

/// Asserts that the response signs the user out.
#[track_caller]
fn assert_signed_out(answer: &Answer, case: &str) {
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{case}");
    assert!(answer.clears(&[JWT, REFRESH]), "{case}: {answer:?}");
}
