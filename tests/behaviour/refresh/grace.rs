//! The grace period of rotated tokens.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::any,
};
use futures_util::FutureExt as _;
use http::{Method, Request, Response};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_crossmint_auth::{
    CrossmintAuth, CrossmintAuthLayer, OutagePolicy,
    testing::{Endpoint, MockCrossmint},
};
use tracing::Level;

use crate::support::{
    app::who,
    clock::pass,
    direct::{app, auth, get, post, request, start},
    events::Events,
    gate::Gate,
    mock::expired,
};

#[tokio::test]
async fn a_latecomer_with_the_rotated_token_gets_the_same_pair_without_a_call() {
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
async fn a_rotated_token_resolves_to_its_latest_successor() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let a = expired(&mock, "alice").cookie_header();
    let b = get(&app, "/", &a).await;
    let c = get(&app, "/", &b.refresh_token_cookie()).await;
    assert_ne!(b.refresh_token(), c.refresh_token());
    for cookie in [&a, &b.refresh_token_cookie()] {
        assert_eq!(get(&app, "/", cookie).await.cookie_header(), c.cookie_header());
    }
    assert!(mock.is_live(&c.refresh_token()));
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (2, 0));
}

#[tokio::test]
async fn a_latecomer_whose_successor_no_longer_verifies_refreshes_the_successor() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().rotation_grace(Duration::from_secs(300)).build().unwrap());
    let app = app(&auth);
    let a = expired(&mock, "alice").cookie_header();
    get(&app, "/", &a).await;
    // The JWT beside the successor no longer verifies ...
    mock.rotate_keys();
    mock.withdraw_old_keys();
    pass(Duration::from_secs(30)).await;
    auth.verify_jwt(mock.sign_in("bob").jwt()).await.unwrap();
    // ... and the successor is sent, not the rotated token.
    let c = get(&app, "/", &a).await;
    assert_eq!((c.status, c.user().as_deref()), (200, Some("alice")));
    assert!(mock.is_live(&c.refresh_token()));
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (2, 0));
}

#[tokio::test]
async fn the_successor_is_forgotten_when_its_grace_period_ends() {
    // The grace period, the time that passes, and the calls made for two requests with one token.
    let cases = [(None, 28, 1), (None, 30, 2), (Some(0), 0, 2), (Some(300), 298, 1), (Some(300), 300, 2)];
    for (grace, pause, calls) in cases {
        let mock = MockCrossmint::start().await;
        mock.set_reuse_grace(Duration::from_secs(3600));
        let config = mock.config();
        let config = match grace {
            Some(grace) => config.rotation_grace(Duration::from_secs(grace)),
            None => config,
        };
        let app = app(&CrossmintAuth::new(config.build().unwrap()));
        let cookie = expired(&mock, "alice").cookie_header();
        assert_eq!(get(&app, "/", &cookie).await.status, 200);
        pass(Duration::from_secs(pause)).await;
        assert_eq!(get(&app, "/", &cookie).await.status, 200);
        assert_eq!(mock.calls(Endpoint::Refresh), calls, "{grace:?}, after {pause} s");
    }
}

#[tokio::test]
async fn the_grace_period_starts_when_the_response_with_the_successor_ends() {
    use Ending::{Delivered, Dropped, Error, Panic};
    let endings = [Delivered, Dropped, Error, Panic];
    for (seconds, ending) in [31, 59, 61, 299].into_iter().flat_map(|seconds| endings.map(|ending| (seconds, ending))) {
        let case = &format!("{ending:?} after {seconds} s");
        let mock = MockCrossmint::start().await;
        let auth = auth(&mock);
        let gate = Gate::new();
        let inner = gate.clone();
        let slow = service_fn(move |_: Request<Body>| {
            let gate = inner.clone();
            async move {
                gate.pass().await;
                match ending {
                    Error => Err("on purpose"),
                    Panic => panic!("on purpose"),
                    Delivered | Dropped => Ok(Response::new(Body::empty())),
                }
            }
        });
        let cookie = expired(&mock, "alice").cookie_header();
        let slow = CrossmintAuthLayer::from(auth.clone()).layer(slow);
        let slow = tokio::spawn(slow.oneshot(request(Method::GET, "/", &cookie)));
        gate.entered().await;
        pass(Duration::from_secs(seconds)).await;
        if let Dropped = ending {
            slow.abort();
        }
        gate.open();
        match (ending, slow.await) {
            (Delivered, Ok(Ok(response))) => {
                assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2, "{case}");
            }
            (Error, Ok(Err(error))) => assert_eq!(error, "on purpose"),
            (Panic, Err(error)) => assert!(error.is_panic()),
            (Dropped, Err(error)) => assert!(error.is_cancelled()),
            (_, other) => panic!("{case}: {other:?}"),
        }

        // Still within the maximum of 300 s.
        pass(Duration::from_secs((299 - seconds).min(29))).await;
        let app = app(&auth);
        let late = get(&app, "/", &cookie).await;
        late.assert_refreshed("alice", case);
        assert!(mock.is_live(&late.refresh_token()), "{case}");
        assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0), "{case}");
    }
}

#[tokio::test]
async fn a_response_counts_as_delivered_with_its_head_however_long_its_body_takes() {
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
        get(&app, "/", &cookie).await.assert_refreshed("alice", "while the body is sent");
        assert_eq!(mock.calls(Endpoint::Refresh), calls, "after another {seconds} s");
    }
    drop(stream);
}

#[tokio::test]
async fn a_waiter_that_is_polled_late_still_gets_its_successor() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let cookie = expired(&mock, "alice").cookie_header();
    let mut idle = Box::pin(get(&app, "/", &cookie));
    assert!((&mut idle).now_or_never().is_none(), "Crossmint has not answered yet");
    auth.wait_idle().await;
    // The refresh has ended, and its waiter has not been polled since.
    pass(Duration::from_secs(120)).await;
    idle.await.assert_refreshed("alice", "the request that was not polled");
    get(&app, "/", &cookie).await.assert_refreshed("alice", "a latecomer");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn a_slow_response_does_not_bring_a_rotated_token_back() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let gate = Gate::new();
    let app = Router::new().route("/slow", gate.handler()).fallback(any(who)).layer(CrossmintAuthLayer::from(auth));
    let cookie = expired(&mock, "alice").cookie_header();
    let waiting = tokio::spawn({
        let (app, cookie) = (app.clone(), cookie.clone());
        async move { get(&app, "/slow", &cookie).await }
    });
    gate.entered().await;
    let quick = get(&app, "/", &cookie).await;
    let newer = post(&app, "/api/auth/refresh", &quick.refresh_token_cookie()).await;
    gate.open();
    let slow = waiting.await.unwrap();
    // The browser keeps the cookies of the last response.
    assert_eq!(slow.refresh_token(), newer.refresh_token());
    pass(Duration::from_secs(60)).await;
    get(&app, "/", &slow.refresh_token_cookie()).await.assert_refreshed("alice", "a minute later");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (3, 0));
}

#[tokio::test]
async fn an_undelivered_successor_is_kept_until_its_user_returns() {
    for (case, is_late) in [("the client has hung up", false), ("the answer was late", true)] {
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
        get(&app, "/", &cookie).await.assert_refreshed("alice", case);
        assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0), "{case}");
    }
}

#[tokio::test]
async fn if_memory_is_short_sessions_are_refreshed_again_and_not_lost() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().rotation_grace_bytes(64 << 10).build().unwrap());
    let app = app(&auth);
    let cookies: Vec<_> = (0..40).map(|number| expired(&mock, &format!("user-{number}")).cookie_header()).collect();
    for _ in 0..2 {
        for (number, cookie) in cookies.iter().enumerate() {
            get(&app, "/", cookie).await.assert_refreshed(&format!("user-{number}"), "first, or late");
        }
    }
    let stats = auth.stats();
    assert_eq!((mock.reuse_detections(), stats.grace_evictions), (0, 0));
    assert_eq!(mock.calls(Endpoint::Refresh), 80, "40 sessions of 6 KiB each do not fit in 64 KiB");
}

#[tokio::test]
async fn rotated_tokens_evicted_early_are_counted_and_warned_of_once_a_minute() {
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

/// How a response that carries a successor ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Delivered,
    Dropped,
    Error,
    Panic,
}
