//! Renewals: one call to Crossmint per refresh token, and no token lost or spent twice.

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::any,
};
use futures_util::{FutureExt as _, future::join_all};
use http::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::Semaphore, task::JoinHandle};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_crossmint_auth::{
    AuthErrorKind, Credentials, CrossmintAuth, CrossmintAuthLayer, OutagePolicy,
    testing::{Endpoint, Fault, MockCrossmint, MockSession},
};

use crate::{
    direct::{app, auth, get, pass, post, request, slow_handler},
    support::{Answer, App, JWT, LOGOUT_ROUTE, REFRESH, expired, who},
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
    assert_eq!((pairs.len(), stats.refreshes, stats.joined, stats.grace_hits), (1, 1, 9_999, 0));
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
    let auth = CrossmintAuth::new(mock.config().rotation_grace(Duration::from_secs(300)).build().unwrap());
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
            Some(window) => config.rotation_grace(Duration::from_secs(window)),
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

/// How a response that carries a successor ends, after so many seconds in which nobody asks for it.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Delivered,
    Dropped,
    Error,
    Panic,
}

#[tokio::test]
async fn the_grace_period_starts_when_the_response_with_the_successor_ends() {
    use Ending::{Delivered, Dropped, Error, Panic};
    let endings = [Delivered, Dropped, Error, Panic];
    for (seconds, ending) in [31, 59, 61, 299].into_iter().flat_map(|seconds| endings.map(|ending| (seconds, ending))) {
        let case = &format!("{ending:?} after {seconds} s");
        let mock = MockCrossmint::start().await;
        let auth = auth(&mock);
        let (entered, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let slow = service_fn({
            let (entered, go) = (Arc::clone(&entered), Arc::clone(&go));
            move |_: Request<Body>| {
                let (entered, go) = (Arc::clone(&entered), Arc::clone(&go));
                async move {
                    entered.add_permits(1);
                    drop(go.acquire().await);
                    match ending {
                        Error => Err("on purpose"),
                        Panic => panic!("on purpose"),
                        Delivered | Dropped => Ok(Response::new(Body::empty())),
                    }
                }
            }
        });
        let cookie = expired(&mock, "alice").cookie_header();
        let slow = CrossmintAuthLayer::from(auth.clone()).layer(slow);
        let slow = tokio::spawn(slow.oneshot(request(Method::GET, "/", &cookie)));
        drop(entered.acquire().await);
        pass(Duration::from_secs(seconds)).await;
        if let Dropped = ending {
            slow.abort();
        }
        go.close();
        match (ending, slow.await) {
            (Delivered, Ok(Ok(response))) => {
                assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2, "{case}");
            }
            (Error, Ok(Err(error))) => assert_eq!(error, "on purpose"),
            (Panic, Err(error)) => assert!(error.is_panic()),
            (Dropped, Err(error)) => assert!(error.is_cancelled()),
            (_, other) => panic!("{case}: {other:?}"),
        }

        // Still within the 300 s that are the most.
        pass(Duration::from_secs((299 - seconds).min(29))).await;
        let app = app(&auth);
        let late = get(&app, "/", &cookie).await;
        late.assert_renewed("alice", case);
        assert!(mock.is_live(&refresh_token(&late)), "{case}");
        assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0), "{case}");
    }
}

#[tokio::test]
async fn a_response_is_on_its_way_when_its_head_is_however_long_its_body_takes() {
    let mock = MockCrossmint::start().await;
    mock.set_reuse_grace(Duration::from_secs(3600));
    let auth = auth(&mock);
    let endless = any(|| async { Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>()) });
    let streaming = Router::new().fallback(endless).layer(CrossmintAuthLayer::from(auth.clone()));
    let app = app(&auth);
    let cookie = expired(&mock, "alice").cookie_header();
    let stream = streaming.oneshot(request::<Body>(Method::GET, "/", &cookie)).await.unwrap();
    assert_eq!(stream.headers().get_all("set-cookie").iter().count(), 2);
    for (seconds, calls) in [(29, 1), (30, 2)] {
        pass(Duration::from_secs(seconds)).await;
        get(&app, "/", &cookie).await.assert_renewed("alice", "while the body is sent");
        assert_eq!(mock.calls(Endpoint::Refresh), calls, "after another {seconds} s");
    }
    drop(stream);
}

#[tokio::test]
async fn a_request_that_takes_its_successor_late_has_it_to_itself_all_the_while() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let cookie = expired(&mock, "alice").cookie_header();
    let mut idle = Box::pin(get(&app, "/", &cookie));
    assert!((&mut idle).now_or_never().is_none(), "it waits for Crossmint");
    auth.wait_idle().await;
    // The renewal has ended, and nobody has looked at its outcome.
    pass(Duration::from_secs(120)).await;
    idle.await.assert_renewed("alice", "the request that was not polled");
    get(&app, "/", &cookie).await.assert_renewed("alice", "a latecomer");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn a_slow_response_does_not_bring_a_rotated_token_back() {
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
    let quick = get(&app, "/", &cookie).await;
    let newer = post(&app, "/api/auth/refresh", &only_refresh_token(&quick)).await;
    go.close();
    let slow = waiting.await.unwrap();
    // The browser keeps what came last.
    assert_eq!(refresh_token(&slow), refresh_token(&newer));
    pass(Duration::from_secs(60)).await;
    get(&app, "/", &only_refresh_token(&slow)).await.assert_renewed("alice", "a minute later");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (3, 0));
}

#[tokio::test]
async fn a_successor_that_reached_nobody_is_there_when_its_user_comes_back() {
    for (case, is_late) in [("the client is gone", false), ("the answer was late", true)] {
        let mock = MockCrossmint::start().await;
        let auth = CrossmintAuth::new(mock.config().on_outage(OutagePolicy::KeepSession).build().unwrap());
        auth.warm_up().await.unwrap();
        let app = app(&auth);
        let cookie = expired(&mock, "alice").cookie_header();
        let hold = mock.hold(Endpoint::Refresh);
        let request = start(&app, &cookie);
        mock.called(Endpoint::Refresh, 1).await;
        if is_late {
            pass(Duration::from_secs(10)).await;
            assert_eq!(request.await.unwrap().status, 503);
        } else {
            request.abort();
            assert!(request.await.unwrap_err().is_cancelled());
        }
        hold.release();
        auth.wait_idle().await;
        pass(Duration::from_secs(600)).await;
        get(&app, "/", &cookie).await.assert_renewed("alice", case);
        assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0), "{case}");
    }
}

/// What can be wrong with an answer whose refresh token is good, and how it is mended.
type Cause = (&'static str, fn(&MockCrossmint), fn(&MockCrossmint));

const CAUSES: [Cause; 9] = [
    ("exp in the past", |mock| mock.set_refreshed_jwt_lifetime(-60), |mock| mock.set_refreshed_jwt_lifetime(3600)),
    (
        "nbf in the future",
        |mock| mock.set_refreshed_claim("nbf", 4_000_000_000_u64),
        |mock| mock.set_refreshed_claim("nbf", Value::Null),
    ),
    (
        "another audience",
        |mock| mock.set_refreshed_claim("aud", "other-project"),
        |mock| mock.set_refreshed_claim("aud", mock.project_id()),
    ),
    (
        "another issuer",
        |mock| mock.set_refreshed_claim("iss", "https://other.test"),
        |mock| mock.set_refreshed_claim("iss", mock.issuer()),
    ),
    (
        "a JWT too large for a cookie",
        |mock| mock.set_refreshed_claim("pad", "x".repeat(3000)),
        |mock| mock.set_refreshed_claim("pad", Value::Null),
    ),
    (
        "a refresh token that no cookie can hold",
        |mock| mock.set_secret_suffix("; Domain=evil.test"),
        |mock| mock.set_secret_suffix(""),
    ),
    (
        "a refresh token too large for a cookie",
        |mock| mock.set_secret_suffix("x".repeat(4096)),
        |mock| mock.set_secret_suffix(""),
    ),
    (
        "another user",
        |mock| mock.set_refreshed_claim("sub", "mallory"),
        |mock| mock.set_refreshed_claim("sub", "alice"),
    ),
    (
        "no JWT",
        |mock| mock.edit_refresh_answers(|answer| answer["jwt"] = Value::Null),
        |mock| mock.edit_refresh_answers(|_| ()),
    ),
];

#[derive(Clone, Copy, Debug)]
enum Way {
    Layer,
    Route,
    Handle,
}

impl Way {
    /// Renews a session. Returns the status, and the refresh token where there is a new one.
    async fn renew(self, auth: &CrossmintAuth, session: &MockSession) -> (u16, Option<String>) {
        let app = app(auth);
        let answer = match self {
            Self::Layer => get(&app, "/", &session.cookie_header()).await,
            Self::Route => post(&app, "/api/auth/refresh", &session.cookie_header()).await,
            Self::Handle => {
                return match auth.refresh(session.refresh_token()).await {
                    Ok(material) => (200, Some(material.refresh_token().secret().to_owned())),
                    Err(error) if error.kind() == AuthErrorKind::UnusableAnswer => (503, None),
                    Err(error) => panic!("{error}"),
                };
            }
        };
        assert!(answer.status == 200 || !answer.stores_a_session(), "nothing of a bad answer is handed out");
        let secret = (answer.status == 200).then(|| refresh_token(&answer));
        (answer.status, secret)
    }
}

/// Each cause under each policy, in each way.
fn causes() -> impl Iterator<Item = (Cause, OutagePolicy, Way, String)> {
    let policies = [OutagePolicy::EndSession, OutagePolicy::KeepSession];
    let ways = policies.into_iter().flat_map(|policy| [Way::Layer, Way::Route, Way::Handle].map(|way| (policy, way)));
    ways.flat_map(|(policy, way)| CAUSES.map(|cause| (cause, policy, way, format!("{}, {policy:?}, {way:?}", cause.0))))
}

async fn with_issuer(mock: &MockCrossmint, policy: OutagePolicy) -> CrossmintAuth {
    let auth = CrossmintAuth::new(mock.config().issuer(mock.issuer()).on_outage(policy).build().unwrap());
    auth.warm_up().await.unwrap();
    auth
}

#[tokio::test]
async fn a_successor_that_cannot_be_used_is_sent_once_the_cause_is_gone() {
    let mock = MockCrossmint::start().await;
    for ((_, cause, mend), policy, way, case) in causes() {
        let auth = with_issuer(&mock, policy).await;
        let alice = expired(&mock, "alice");
        let before = mock.calls(Endpoint::Refresh);
        cause(&mock);
        let unavailable = if policy == OutagePolicy::KeepSession || matches!(way, Way::Handle) { 503 } else { 401 };
        for attempt in 1..=3 {
            assert_eq!(way.renew(&auth, &alice).await, (unavailable, None), "{case}");
            assert_eq!(way.renew(&auth, &alice).await, (unavailable, None), "{case}, in the pause");
            assert_eq!(mock.calls(Endpoint::Refresh), before + attempt, "{case}");
            pass(Duration::from_secs(1 << (attempt - 1))).await;
        }
        mend(&mock);
        let (status, token) = way.renew(&auth, &alice).await;
        assert_eq!((status, mock.reuse_detections()), (200, 0), "{case}");
        assert!(mock.is_live(&token.unwrap()), "{case}");
        assert_eq!(mock.calls(Endpoint::Refresh), before + 4, "{case}");
    }
}

#[tokio::test]
async fn a_logout_after_an_answer_that_cannot_be_used_revokes_the_successor() {
    let mock = MockCrossmint::start().await;
    for ((_, cause, mend), policy, way, case) in causes() {
        let auth = with_issuer(&mock, policy).await;
        let alice = expired(&mock, "alice");
        let before = mock.live_sessions();
        cause(&mock);
        way.renew(&auth, &alice).await;
        mend(&mock);
        assert_eq!(post(&app(&auth), "/api/auth/logout", &alice.cookie_header()).await.status, 200, "{case}");
        let revoked = mock.requests(Endpoint::Logout).pop().unwrap().json().unwrap();
        assert_ne!(revoked["refresh"], alice.refresh_token(), "{case}: it is the successor that lives");
        assert_eq!(mock.live_sessions(), before - 1, "{case}");
        pass(Duration::from_secs(1)).await;
        assert_eq!(get(&app(&auth), "/", &alice.cookie_header()).await.status, 401, "{case}");
        assert_eq!(mock.reuse_detections(), 0, "{case}");
    }
}

#[tokio::test]
async fn an_unusable_answer_pauses_its_token_for_as_long_as_retry_after_says() {
    let mock = MockCrossmint::start().await;
    let auth = with_issuer(&mock, OutagePolicy::KeepSession).await;
    let app = app(&auth);
    let alice = expired(&mock, "alice").cookie_header();
    mock.inject(Endpoint::Refresh, Fault::Garbage);
    for (attempt, pause) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
        for _ in 0..2 {
            let answer = get(&app, "/", &alice).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, &*pause.to_string()));
            assert_eq!(mock.calls(Endpoint::Refresh), attempt + 1);
        }
        pass(Duration::from_secs(pause)).await;
    }
    mock.clear_faults();
    get(&app, "/", &alice).await.assert_renewed("alice", "in the end");
}

#[tokio::test]
async fn where_memory_is_short_sessions_are_renewed_once_more_instead_of_being_lost() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().rotation_grace_bytes(64 << 10).build().unwrap());
    let app = app(&auth);
    let cookies: Vec<_> = (0..40).map(|number| expired(&mock, &format!("user-{number}")).cookie_header()).collect();
    for _ in 0..2 {
        for (number, cookie) in cookies.iter().enumerate() {
            get(&app, "/", cookie).await.assert_renewed(&format!("user-{number}"), "first, or late");
        }
    }
    let stats = auth.stats();
    assert_eq!((mock.reuse_detections(), stats.grace_evictions), (0, 0));
    assert_eq!(mock.calls(Endpoint::Refresh), 80, "none of 40 sessions of 6 KiB fits in for long");
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
        assert_eq!((auth.stats().refreshes, mock.calls(Endpoint::Refresh)), (call as u64, call), "one at a time");
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
        ("another audience", |mock| mock.set_refreshed_claim("aud", "other-project")),
        ("no audience", |mock| mock.set_refreshed_claim("aud", Value::Null)),
        ("no exp", |mock| mock.set_refreshed_claim("exp", Value::Null)),
        ("another user", |mock| mock.set_refreshed_claim("sub", "mallory")),
        ("expired", |mock| mock.set_refreshed_jwt_lifetime(-60)),
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

#[tokio::test]
async fn a_new_key_does_not_spend_successors() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().rotation_grace(Duration::from_secs(300)).build().unwrap());
    let app = app(&auth);
    let cookie = expired(&mock, "alice").cookie_header();
    assert_eq!(get(&app, "/", &cookie).await.status, 200);
    mock.rotate_keys();
    pass(Duration::from_secs(31)).await;
    auth.verify_jwt(mock.sign_in("bob").jwt()).await.unwrap();
    assert_eq!(get(&app, "/", &cookie).await.status, 200);
    assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh)), (2, 1));
}

#[tokio::test]
async fn a_logout_during_the_next_renewal_forgets_the_last_one_too() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let first = expired(&mock, "alice").cookie_header();
    let second = get(&app, "/", &first).await.json();
    let [jwt, token] = [&second["jwt"], &second["refreshToken"]].map(|value| value.as_str().unwrap().to_owned());
    let hold = mock.hold(Endpoint::Refresh);
    let only_token = format!("{REFRESH}={token}");
    let (renewal, logout, ()) = tokio::join!(
        get(&app, "/", &only_token),
        async {
            mock.called(Endpoint::Refresh, 2).await;
            post(&app, LOGOUT_ROUTE, &first).await
        },
        async {
            mock.called(Endpoint::Refresh, 2).await;
            tokio::task::yield_now().await;
            hold.release();
        }
    );
    assert_eq!((renewal.status, logout.status), (401, 200));
    let before = auth.stats().verifications;
    auth.get_session(Credentials::pair(&jwt, &token)).await.unwrap();
    assert_eq!(auth.stats().verifications, before + 1, "the JWT is verified anew");
}
