//! One call to Crossmint per refresh token.

use std::collections::HashSet;

use futures_util::{FutureExt as _, future::join_all};
use tower_crossmint_auth::testing::{Endpoint, MockCrossmint};

use crate::support::{
    app::App,
    direct::{app, auth, get, post},
    mock::{Calls, NO_CALLS, calls, expired},
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
            assert_eq!(answer.json()["refreshToken"], answers[0].refresh_token());
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
    let mut requests = Box::pin(join_all((0..10_000).map(|_| get(&app, "/", &cookie))));
    assert!((&mut requests).now_or_never().is_none(), "each joins the refresh at its first poll");
    assert_eq!(auth.stats().joined, 9_999);
    mock.called(Endpoint::Refresh, 1).await;
    hold.release();
    let mut pairs = HashSet::new();
    for answer in requests.await {
        answer.assert_refreshed("alice", "one of many");
        pairs.insert(answer.cookie_header());
    }
    assert_eq!(pairs.len(), 1);
    let stats = auth.stats();
    assert_eq!((stats.refreshes, stats.joined, stats.grace_hits), (1, 9_999, 0));
    assert_eq!(calls(&mock), Calls { keys: 1, refreshes: 1, ..NO_CALLS });
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
    assert_eq!(handle.unwrap().refresh_token().secret(), request.refresh_token());
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn waiters_of_a_refused_refresh_share_one_call() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let alice = expired(&mock, "alice");
    mock.revoke(alice.refresh_token());
    let cookie = alice.cookie_header();
    let answers = join_all((0..10).map(|_| get(&app, "/", &cookie))).await;
    assert!(answers.iter().all(|answer| answer.status == 401));
    assert_eq!(mock.calls(Endpoint::Refresh), 1);
}
