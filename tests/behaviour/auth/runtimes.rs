//! Outside a runtime, and in one that ends.

use std::convert::Infallible;

use axum::body::Body;
use futures_util::FutureExt as _;
use http::{Method, Response};
use tower::{Layer as _, Service as _};
use tower_crossmint_auth::{
    AuthError, AuthErrorKind, CrossmintAuth, CrossmintAuthLayer, OutagePolicy,
    testing::{Endpoint, MockCrossmint},
};

use crate::support::{
    answer::{JWT, LOGOUT_ROUTE, REFRESH, REFRESH_ROUTE, TRY_LATER},
    direct::{app, auth, post, request, send},
    mock::{Calls, NO_CALLS, calls, expired, material},
};

#[test]
fn the_handle_works_on_one_thread_and_fails_outside_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mock, auth) = runtime.block_on(async {
        let mock = MockCrossmint::start().await;
        let auth = auth(&mock);
        (mock, auth)
    });
    let alice = mock.sign_in("alice");
    let (material, lapsed) = (material(&alice), material(&expired(&mock, "bob")));

    let outside = |name: &str, error: AuthError| {
        assert_eq!(error.kind(), AuthErrorKind::Unavailable, "{name}");
    };
    outside("warm_up", auth.warm_up().now_or_never().unwrap().unwrap_err());
    outside("get_session", auth.get_session(&material).now_or_never().unwrap().unwrap_err());
    outside("verify_jwt", auth.verify_jwt(alice.jwt()).now_or_never().unwrap().unwrap_err());
    outside("refresh", auth.refresh(alice.refresh_token()).now_or_never().unwrap().unwrap_err());
    outside("get_user", auth.get_user("alice").now_or_never().unwrap().unwrap_err());
    outside("logout", auth.logout(&material).now_or_never().unwrap().unwrap_err());

    // None of these counts as a failure of Crossmint.
    let carol = self::material(&mock.sign_in("carol"));
    runtime.block_on(async {
        auth.warm_up().await.unwrap();
        assert_eq!(auth.get_user("alice").await.unwrap().id, "alice");
    });
    assert_eq!(auth.get_session(&carol).now_or_never().unwrap().unwrap().user_id(), "carol", "without a call");
    outside("a refresh", auth.get_session(&lapsed).now_or_never().unwrap().unwrap_err());
    runtime.block_on(async {
        assert_eq!(auth.get_session(&lapsed).await.unwrap().user_id(), "bob");
        auth.logout(&carol).await.unwrap();
    });
    assert_eq!(calls(&mock), Calls { keys: 1, refreshes: 1, logouts: 1, ..NO_CALLS });
}

#[test]
fn outside_a_runtime_the_layer_answers_as_in_an_outage() {
    let runtime = runtime();
    let mock = runtime.block_on(MockCrossmint::start());
    let cookie = expired(&mock, "alice").cookie_header();
    for (policy, status) in [(OutagePolicy::EndSession, 401), (OutagePolicy::KeepSession, 503)] {
        let app = app(&CrossmintAuth::new(mock.config().on_outage(policy).build().unwrap()));
        for (method, path) in [(Method::POST, REFRESH_ROUTE), (Method::GET, "/")] {
            let answer = send(&app, request(method, path, &cookie)).now_or_never().unwrap();
            assert_eq!((answer.status, answer.json()["message"].as_str()), (status, Some(TRY_LATER)), "{path}");
            assert_eq!(answer.clears(&[JWT, REFRESH]), policy == OutagePolicy::EndSession, "{path}, {policy:?}");
        }
        let answer = post(&app, LOGOUT_ROUTE, &cookie).now_or_never().unwrap();
        assert!(answer.status == 200 && answer.clears(&[JWT, REFRESH]), "{policy:?}: {answer:?}");
    }
    assert_eq!((calls(&mock), mock.live_sessions()), (NO_CALLS, 1));

    // It is the poll that needs a runtime, not the call.
    let inner = tower::service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let mut service = CrossmintAuthLayer::from(auth(&mock)).layer(inner);
    let response = service.call(request::<Body>(Method::POST, REFRESH_ROUTE, &cookie));
    assert_eq!(runtime.block_on(response).unwrap().status(), 200);
}

#[test]
fn waiters_of_a_refresh_whose_runtime_ends_get_an_error() {
    let (lost, alive) = (runtime(), runtime());
    let mock = alive.block_on(MockCrossmint::start());
    let auth = auth(&mock);
    alive.block_on(auth.warm_up()).unwrap();
    let alice = expired(&mock, "alice");
    let _hold = mock.hold(Endpoint::Refresh);
    let credentials = material(&alice);
    let refresh = lost.spawn({
        let (auth, credentials) = (auth.clone(), credentials.clone());
        async move { auth.get_session(&credentials).await }
    });
    alive.block_on(mock.called(Endpoint::Refresh, 1));
    let mut waiting = Box::pin(auth.get_session(&credentials));
    assert!((&mut waiting).now_or_never().is_none());
    let outside = auth.logout(&credentials).now_or_never().unwrap();
    assert_eq!(outside.unwrap_err().kind(), AuthErrorKind::Unavailable);
    drop(lost);
    assert!(alive.block_on(refresh).is_err());
    assert_eq!(alive.block_on(waiting).unwrap_err().kind(), AuthErrorKind::Unavailable);
    assert_eq!(mock.calls(Endpoint::Refresh), 1);
    assert_eq!(alive.block_on(auth.get_session(&material(&mock.sign_in("bob")))).unwrap().user_id(), "bob");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}
