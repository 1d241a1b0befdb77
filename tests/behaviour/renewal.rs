//! Renewals: one call to Crossmint per refresh token, and no token lost or spent twice.

use std::{collections::HashSet, time::Duration};

use axum::{Router, routing::any};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinHandle};
use tower_crossmint_auth::{
    AuthErrorKind, Credentials, CrossmintAuth, CrossmintAuthLayer,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::{
    direct::{app, auth, get, pass, post, slow_handler},
    support::{Answer, App, JWT, REFRESH, expired, who},
};

#[tokio::test]
async fn concurrent_requests_with_one_expired_session_share_one_refresh() {
    for requests in [2, 5, 100] {
        let mock = MockCrossmint::start().await;
        let app = App::serve(&mock).await;
        let cookie = expired(&mock, "alice").cookie_header();
        let hold = mock.hold(Endpoint::Refresh);
        let (answers, ()) = tokio::join!(join_all((0..requests).map(|_| app.get("/", &cookie))), async {
            mock.called(Endpoint::Refresh, 1).await;
            hold.release();
        });
        for answer in &answers {
            assert_eq!((answer.status, answer.user().as_deref()), (200, Some("alice")), "of {requests}");
            assert_eq!(answer.set_cookie().len(), 2);
            assert_eq!(answer.cookie_header(), answers[0].cookie_header());
            assert_eq!(answer.json()["refreshToken"], refresh_token(&answers[0]));
        }
        assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0), "of {requests}");
    }
}

#[tokio::test]
async fn ten_thousand_requests_with_one_expired_session_share_one_refresh() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let cookie = expired(&mock, "alice").cookie_header();
    let hold = mock.hold(Endpoint::Refresh);
    let requests: Vec<_> = (0..10_000).map(|_| start(&app, &cookie)).collect();
    mock.called(Endpoint::Refresh, 1).await;
    while auth.stats().joined < 9_999 {
        tokio::task::yield_now().await;
    }
    hold.release();
    let mut pairs = HashSet::new();
    for request in requests {
        let answer = request.await.unwrap();
        answer.assert_renewed("alice", "one of many");
        pairs.insert(answer.cookie_header());
    }
    let stats = auth.stats();
    assert_eq!((pairs.len(), stats.renewals, stats.joined, stats.successor_hits), (1, 1, 9_999, 0));
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn the_refresh_route_and_the_handle_share_the_refresh_of_a_request() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let alice = expired(&mock, "alice");
    let cookie = alice.cookie_header();
    let hold = mock.hold(Endpoint::Refresh);
    let (request, route, handle, ()) = tokio::join!(
        get(&app, "/", &cookie),
        post(&app, "/api/auth/refresh", &cookie),
        auth.refresh(alice.refresh_token()),
        async {
            mock.called(Endpoint::Refresh, 1).await;
            hold.release();
        }
    );
    assert_eq!(request.cookie_header(), route.cookie_header());
    assert_eq!(handle.unwrap().refresh_token().secret(), refresh_token(&request));
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn two_sessions_are_renewed_apart() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let [alice, bob] = ["alice", "bob"].map(|user| expired(&mock, user).cookie_header());
    let (alice, bob) = tokio::join!(get(&app, "/", &alice), get(&app, "/", &bob));
    assert_eq!((alice.user().as_deref(), bob.user().as_deref()), (Some("alice"), Some("bob")));
    assert_eq!(mock.calls(Endpoint::Refresh), 2);
}

#[tokio::test]
async fn a_latecomer_with_the_spent_token_gets_the_same_pair_without_a_call() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let cookie = expired(&mock, "alice").cookie_header();
    let first = get(&app, "/", &cookie).await;
    pass(Duration::from_secs(28)).await;
    let late = get(&app, "/", &cookie).await;
    assert_eq!((late.status, late.user().as_deref()), (200, Some("alice")));
    assert_eq!(late.cookie_header(), first.cookie_header());
    assert_eq!(late.header("cache-control"), "no-store");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn a_spent_token_leads_to_the_latest_of_its_successors() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let a = expired(&mock, "alice").cookie_header();
    let b = get(&app, "/", &a).await;
    let c = get(&app, "/", &only_refresh_token(&b)).await;
    assert_ne!(refresh_token(&b), refresh_token(&c));
    for cookie in [&a, &only_refresh_token(&b)] {
        assert_eq!(get(&app, "/", cookie).await.cookie_header(), c.cookie_header());
    }
    assert!(mock.is_live(&refresh_token(&c)));
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (2, 0));
}

#[tokio::test]
async fn a_latecomer_whose_successor_has_ended_renews_the_successor() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().successor_window(Duration::from_secs(300)).build().unwrap());
    let app = app(&auth);
    let a = expired(&mock, "alice").cookie_header();
    get(&app, "/", &a).await;
    // The JWT that belongs to the successor is no longer valid ...
    mock.rotate_keys();
    mock.withdraw_old_keys();
    pass(Duration::from_secs(30)).await;
    auth.verify_jwt(mock.sign_in("bob").jwt()).await.unwrap();
    // ... and the token that is sent is not the spent one.
    let c = get(&app, "/", &a).await;
    assert_eq!((c.status, c.user().as_deref()), (200, Some("alice")));
    assert!(mock.is_live(&refresh_token(&c)));
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (2, 0));
}

#[tokio::test]
async fn a_dropped_response_future_does_not_lose_the_new_token() {
    for held in [MockCrossmint::hold, MockCrossmint::hold_answers] {
        let mock = MockCrossmint::start().await;
        let app = app(&auth(&mock));
        let cookie = expired(&mock, "alice").cookie_header();
        let hold = held(&mock, Endpoint::Refresh);
        let request = start(&app, &cookie);
        mock.called(Endpoint::Refresh, 1).await;
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        hold.release();
        let next = get(&app, "/", &cookie).await;
        assert_eq!((next.status, next.set_cookie().len()), (200, 2));
        assert!(mock.is_live(&refresh_token(&next)));
        assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
    }
}

#[tokio::test]
async fn those_who_go_do_not_affect_those_who_stay() {
    // Of three, the first one starts the renewal.
    for gone in [&[0][..], &[1], &[2], &[0, 1], &[1, 2], &[0, 1, 2]] {
        for held in [MockCrossmint::hold, MockCrossmint::hold_answers] {
            let mock = MockCrossmint::start().await;
            let auth = auth(&mock);
            auth.warm_up().await.unwrap();
            let app = app(&auth);
            let cookie = expired(&mock, "alice").cookie_header();
            let hold = held(&mock, Endpoint::Refresh);
            let requests: Vec<_> = (0..3).map(|_| start(&app, &cookie)).collect();
            mock.called(Endpoint::Refresh, 1).await;
            assert_eq!(auth.stats().joined, 2);
            for request in gone {
                requests[*request].abort();
            }
            hold.release();
            for (number, request) in requests.into_iter().enumerate() {
                match request.await {
                    Ok(answer) => answer.assert_renewed("alice", &format!("{number}, without {gone:?}")),
                    Err(error) => assert!(error.is_cancelled() && gone.contains(&number), "{number}, without {gone:?}"),
                }
            }
            get(&app, "/", &cookie).await.assert_renewed("alice", &format!("after {gone:?}"));
            assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0), "without {gone:?}");
        }
    }
}

#[tokio::test]
async fn a_request_dropped_while_it_waits_for_a_place_is_renewed_all_the_same() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().max_concurrent_refreshes(1).build().unwrap());
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let [alice, bob] = ["alice", "bob"].map(|user| expired(&mock, user).cookie_header());
    let hold = mock.hold(Endpoint::Refresh);
    let first = start(&app, &alice);
    mock.called(Endpoint::Refresh, 1).await;
    let second = start(&app, &bob);
    tokio::task::yield_now().await;
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    hold.release();
    first.await.unwrap().assert_renewed("alice", "the one who had the place");
    mock.called(Endpoint::Refresh, 2).await;
    get(&app, "/", &bob).await.assert_renewed("bob", "the one who went");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (2, 0));
}

#[tokio::test]
async fn a_request_dropped_before_the_key_set_arrives_spends_nothing() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let cookie = expired(&mock, "alice").cookie_header();
    let hold = mock.hold(Endpoint::Keys);
    let request = start(&app, &cookie);
    mock.called(Endpoint::Keys, 1).await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    hold.release();
    get(&app, "/", &cookie).await.assert_renewed("alice", "the next one");
    assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 1, 0));
}

#[tokio::test]
async fn a_request_dropped_while_its_new_token_is_verified_does_not_lose_it() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let alice = expired(&mock, "alice");
    let cookie = alice.cookie_header();
    mock.rotate_keys();
    let hold = mock.hold(Endpoint::Keys);
    let request = tokio::spawn({
        let (app, cookie) = (app.clone(), format!("{REFRESH}={}", alice.refresh_token()));
        async move { get(&app, "/", &cookie).await }
    });
    mock.called(Endpoint::Keys, 2).await;
    assert_eq!(mock.calls(Endpoint::Refresh), 1, "it is the new token that needs the key");
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    hold.release();
    get(&app, "/", &cookie).await.assert_renewed("alice", "the next one");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn a_request_dropped_in_a_slow_handler_does_not_lose_the_new_token() {
    let mock = MockCrossmint::start().await;
    let (slow, entered, _go) = slow_handler();
    let app = Router::new().route("/slow", slow).fallback(any(who)).layer(CrossmintAuthLayer::from(auth(&mock)));
    let cookie = expired(&mock, "alice").cookie_header();
    let request = tokio::spawn({
        let (app, cookie) = (app.clone(), cookie.clone());
        async move { get(&app, "/slow", &cookie).await }
    });
    drop(entered.acquire().await);
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    get(&app, "/", &cookie).await.assert_renewed("alice", "the next one");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_lose_the_new_token() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let cookie = expired(&mock, "alice").cookie_header();
    let hold = mock.hold(Endpoint::Refresh);
    let mut client = TcpStream::connect(app.address).await.unwrap();
    client.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\n\r\n").as_bytes()).await.unwrap();
    mock.called(Endpoint::Refresh, 1).await;
    drop(client);
    // The server has seen the end of the connection when it has answered a later one.
    assert_eq!(app.get("/", "").await.status, 401);
    hold.release();
    let next = app.get("/", &cookie).await;
    assert_eq!((next.status, next.user().as_deref()), (200, Some("alice")));
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn the_successor_is_forgotten_when_its_window_is_over() {
    // The window, the time that passes, and the calls that two requests with one token make.
    let cases = [(None, 28, 1), (None, 30, 2), (Some(0), 0, 2), (Some(300), 298, 1), (Some(300), 300, 2)];
    for (window, pause, calls) in cases {
        let mock = MockCrossmint::start().await;
        mock.set_reuse_grace(Duration::from_secs(3600));
        let config = mock.config();
        let config = match window {
            Some(window) => config.successor_window(Duration::from_secs(window)),
            None => config,
        };
        let app = app(&CrossmintAuth::new(config.build().unwrap()));
        let cookie = expired(&mock, "alice").cookie_header();
        assert_eq!(get(&app, "/", &cookie).await.status, 200);
        pass(Duration::from_secs(pause)).await;
        assert_eq!(get(&app, "/", &cookie).await.status, 200);
        assert_eq!(mock.calls(Endpoint::Refresh), calls, "{window:?}, after {pause} s");
    }
}

#[tokio::test]
async fn a_slow_handler_keeps_its_successor_beyond_the_window() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let (slow, entered, go) = slow_handler();
    let app = Router::new().route("/slow", slow).fallback(any(who)).layer(CrossmintAuthLayer::from(auth));
    let cookie = expired(&mock, "alice").cookie_header();
    let waiting = tokio::spawn({
        let (app, cookie) = (app.clone(), cookie.clone());
        async move { get(&app, "/slow", &cookie).await }
    });
    drop(entered.acquire().await);
    for _ in 0..3 {
        pass(Duration::from_secs(30)).await;
        assert_eq!(get(&app, "/", &cookie).await.status, 200);
    }
    go.close();
    let first = waiting.await.unwrap();
    assert_eq!(get(&app, "/", &cookie).await.cookie_header(), first.cookie_header());
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn a_logout_drops_the_successor() {
    for (name, by_the_old_token) in [("the spent token", true), ("the new token", false)] {
        let mock = MockCrossmint::start().await;
        let auth = auth(&mock);
        let app = app(&auth);
        let alice = expired(&mock, "alice");
        let new = get(&app, "/", &alice.cookie_header()).await;
        let out = if by_the_old_token { alice.cookie_header() } else { new.cookie_header() };
        let answer = post(&app, "/api/auth/logout", &out).await;
        assert!((answer.status, answer.clears(&[JWT, REFRESH])) == (200, true), "{name}");
        assert_eq!(mock.requests(Endpoint::Logout)[0].json().unwrap()["refresh"], refresh_token(&new), "{name}");
        assert_eq!(mock.live_sessions(), 0, "{name}");
        for cookie in [alice.cookie_header(), only_refresh_token(&new)] {
            let late = get(&app, "/", &cookie).await;
            assert!((late.status, late.clears(&[JWT, REFRESH])) == (401, true), "{name}");
        }
        let calls = (mock.calls(Endpoint::Refresh), mock.calls(Endpoint::Logout), mock.reuse_detections());
        assert_eq!(calls, (1, 1, 0), "{name}");
    }
}

#[tokio::test]
async fn a_logout_during_a_renewal_ends_what_the_renewal_brings() {
    for held in [MockCrossmint::hold, MockCrossmint::hold_answers] {
        let mock = MockCrossmint::start().await;
        let auth = auth(&mock);
        let app = app(&auth);
        let alice = expired(&mock, "alice");
        let cookie = alice.cookie_header();
        let hold = held(&mock, Endpoint::Refresh);
        let requests: Vec<_> = (0..3).map(|_| start(&app, &cookie)).collect();
        mock.called(Endpoint::Refresh, 1).await;
        let logout = tokio::spawn({
            let (app, cookie) = (app.clone(), cookie.clone());
            async move { post(&app, "/api/auth/logout", &cookie).await }
        });
        // The logout is noted as soon as it is polled, and then waits for the renewal.
        tokio::task::yield_now().await;
        assert!(!logout.is_finished());
        hold.release();

        let logout = logout.await.unwrap();
        assert!((logout.status, logout.clears(&[JWT, REFRESH])) == (200, true));
        for request in requests {
            let answer = request.await.unwrap();
            assert!((answer.status, answer.clears(&[JWT, REFRESH])) == (401, true));
        }
        mock.called(Endpoint::Logout, 1).await;
        assert_eq!(mock.live_sessions(), 0, "the new token was revoked");
        assert_eq!(get(&app, "/", &cookie).await.status, 401);
        assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
    }
}

#[tokio::test]
async fn a_logout_does_not_wait_for_a_renewal_that_hangs() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().logout_timeout(Duration::from_millis(50));
    let app = app(&CrossmintAuth::new(config.build().unwrap()));
    let cookie = expired(&mock, "alice").cookie_header();
    let hold = mock.hold(Endpoint::Refresh);
    let request = start(&app, &cookie);
    mock.called(Endpoint::Refresh, 1).await;
    let logout = post(&app, "/api/auth/logout", &cookie).await;
    assert!((logout.status, logout.clears(&[JWT, REFRESH])) == (200, true));
    hold.release();
    assert_eq!(request.await.unwrap().status, 401);
    mock.called(Endpoint::Logout, 1).await;
    assert_eq!(mock.live_sessions(), 0);
}

#[tokio::test]
async fn a_refused_token_is_not_sent_again_for_half_a_minute() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let alice = expired(&mock, "alice");
    mock.revoke(alice.refresh_token());
    let cookie = alice.cookie_header();
    for (pause, calls) in [(0, 1), (0, 1), (28, 1), (2, 2)] {
        pass(Duration::from_secs(pause)).await;
        let answer = get(&app, "/", &cookie).await;
        assert!((answer.status, answer.clears(&[JWT, REFRESH])) == (401, true));
        assert_eq!(mock.calls(Endpoint::Refresh), calls, "after another {pause} s");
    }
}

#[tokio::test]
async fn waiters_of_a_refused_renewal_are_all_refused_by_one_call() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let alice = expired(&mock, "alice");
    mock.revoke(alice.refresh_token());
    let cookie = alice.cookie_header();
    let answers = join_all((0..10).map(|_| get(&app, "/", &cookie))).await;
    assert!(answers.iter().all(|answer| answer.status == 401));
    assert_eq!(mock.calls(Endpoint::Refresh), 1);
}

#[tokio::test]
async fn refreshes_beyond_the_limit_wait_and_beyond_the_queue_fail_at_once() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().max_concurrent_refreshes(1).refresh_timeout(Duration::from_secs(600));
    let auth = CrossmintAuth::new(config.build().unwrap());
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let cookies: Vec<String> = (0..10).map(|n| expired(&mock, &format!("user-{n}")).cookie_header()).collect();
    let valid = mock.sign_in("alice").cookie_header();
    let mut hold = mock.hold(Endpoint::Refresh);
    let waiting: Vec<_> = cookies[..9].iter().map(|cookie| start(&app, cookie)).collect();
    for call in 1..=9 {
        mock.called(Endpoint::Refresh, call).await;
        if call == 1 {
            assert_eq!(get(&app, "/", &cookies[9]).await.status, 401, "one place, and eight who wait");
        }
        // Whatever else was on its way has arrived when this has been answered.
        auth.get_user("alice").await.unwrap();
        assert_eq!(mock.calls(Endpoint::Refresh), call, "one at a time");
        assert_eq!(get(&app, "/", &valid).await.status, 200, "valid sessions do not wait");
        let next = mock.hold(Endpoint::Refresh);
        std::mem::replace(&mut hold, next).release();
    }
    for request in waiting {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(mock.reuse_detections(), 0);
    hold.release();
    assert_eq!(get(&app, "/", &cookies[9]).await.status, 200, "there is room again");
}

#[tokio::test]
async fn nothing_of_an_answer_is_trusted_before_it_is_checked() {
    type Edit = fn(&MockCrossmint);
    let cases: [(&str, Edit); 11] = [
        ("another audience", |mock| mock.set_renewed_claim("aud", "other-project")),
        ("no audience", |mock| mock.set_renewed_claim("aud", Value::Null)),
        ("no exp", |mock| mock.set_renewed_claim("exp", Value::Null)),
        ("another user", |mock| mock.set_renewed_claim("sub", "mallory")),
        ("expired", |mock| mock.set_renewed_jwt_lifetime(-60)),
        ("forged", |mock| {
            mock.edit_refresh_answers(|answer| {
                let jwt = answer["jwt"].as_str().unwrap();
                answer["jwt"] = format!("{}.{}", jwt.rsplit_once('.').unwrap().0, "A".repeat(342)).into();
            });
        }),
        ("no JWT", |mock| mock.edit_refresh_answers(|answer| answer["jwt"] = json!("x"))),
        ("JWT null", |mock| mock.edit_refresh_answers(|answer| answer["jwt"] = Value::Null)),
        ("no secret", |mock| mock.edit_refresh_answers(|answer| answer["refresh"] = json!({}))),
        ("an empty secret", |mock| mock.edit_refresh_answers(|answer| answer["refresh"]["secret"] = json!(""))),
        ("an injection", |mock| {
            mock.edit_refresh_answers(|answer| answer["refresh"]["secret"] = json!("x; Domain=evil.test"));
        }),
    ];
    for (name, edit) in cases {
        let mock = MockCrossmint::start().await;
        edit(&mock);
        let auth = auth(&mock);
        let alice = expired(&mock, "alice");
        for request in 0..3 {
            let error = auth.get_session(Credentials::pair("", alice.refresh_token())).await.unwrap_err();
            assert_eq!(error.kind(), AuthErrorKind::UnusableAnswer, "{name}, request {request}");
        }
        let answer = get(&app(&auth), "/", &alice.cookie_header()).await;
        assert!((answer.status, answer.clears(&[JWT, REFRESH])) == (401, true), "{name}");
        assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0), "{name}");
    }
}

#[tokio::test]
async fn a_crossmint_that_keeps_its_tokens_is_as_good() {
    let mock = MockCrossmint::start().await;
    mock.set_rotation(false);
    let app = app(&auth(&mock));
    let alice = expired(&mock, "alice");
    let cookie = alice.cookie_header();
    let first = get(&app, "/", &cookie).await;
    assert_eq!(refresh_token(&first), alice.refresh_token());
    assert_eq!(get(&app, "/", &cookie).await.cookie_header(), first.cookie_header());
    assert_eq!(mock.calls(Endpoint::Refresh), 1);
    pass(Duration::from_secs(30)).await;
    assert_eq!(get(&app, "/", &cookie).await.status, 200);
    assert_eq!(mock.calls(Endpoint::Refresh), 2);
    assert_eq!(post(&app, "/api/auth/logout", &cookie).await.status, 200);
    assert_eq!(get(&app, "/", &cookie).await.status, 401);
    assert_eq!((mock.calls(Endpoint::Refresh), mock.live_sessions()), (2, 0));
}

#[tokio::test]
async fn an_outage_is_no_verdict_on_a_token() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let alice = expired(&mock, "alice");
    mock.inject_times(Endpoint::Refresh, 1, Fault::Status(503));
    let credentials = || Credentials::pair(alice.jwt(), alice.refresh_token());
    assert_eq!(auth.get_session(credentials()).await.unwrap_err().kind(), AuthErrorKind::Unavailable);
    assert_eq!(auth.get_session(credentials()).await.unwrap().user_id(), "alice");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (2, 0));
}

/// Sends a request that the test can drop.
fn start(app: &Router, cookie: &str) -> JoinHandle<Answer> {
    let (app, cookie) = (app.clone(), cookie.to_owned());
    tokio::spawn(async move { get(&app, "/", &cookie).await })
}

/// Returns the refresh token that an answer sets.
fn refresh_token(answer: &Answer) -> String {
    answer.set_cookie().iter().find(|cookie| cookie.name() == REFRESH).unwrap().value().to_owned()
}

/// Returns the cookies of a browser that has kept the refresh token of an answer, and not its JWT.
fn only_refresh_token(answer: &Answer) -> String {
    format!("{REFRESH}={}", refresh_token(answer))
}
