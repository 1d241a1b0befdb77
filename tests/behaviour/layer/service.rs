//! The contract of a tower service: readiness, errors, and other layers around it.

use std::{
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt, service_fn, timeout::TimeoutLayer};
use tower_crossmint_auth::{
    AuthError, AuthErrorKind, AuthMaterial, Credentials, CrossmintAuth, CrossmintAuthConfig, CrossmintAuthLayer,
    CrossmintAuthService, ResponseBody, ResponseFuture, Session, Unauthenticated,
    testing::{Endpoint, MockCrossmint},
};

use crate::support::{
    direct::{auth, request},
    mock::expired,
};

#[test]
fn the_public_types_can_cross_threads() {
    fn value<T: Send + Sync + Clone + fmt::Debug + 'static>() {}
    fn sent<T: Send + 'static>() {}
    type Boxed = tower::util::BoxCloneSyncService<Request<Inner>, Response<Inner>, Infallible>;
    value::<CrossmintAuth>();
    value::<CrossmintAuthConfig>();
    value::<CrossmintAuthLayer>();
    value::<CrossmintAuthService<Strict>>();
    value::<Session>();
    value::<AuthMaterial>();
    value::<AuthError>();
    sent::<ResponseFuture<Boxed, Inner>>();
    sent::<ResponseBody<Inner>>();
    fn service<S: Service<Request<Inner>, Error = Infallible, Future: Send> + Send + Sync + Clone>() {}
    service::<CrossmintAuthService<Boxed>>();
}

#[tokio::test]
async fn the_inner_service_is_called_at_most_once_and_only_when_ready() {
    struct Row<'a> {
        name: &'static str,
        method: Method,
        path: &'static str,
        cookie: &'a str,
        status: u16,
        calls: usize,
    }
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    let bob = expired(&mock, "bob").cookie_header();
    let revoked = expired(&mock, "carol");
    mock.revoke(revoked.refresh_token());
    let valid = mock.sign_in("alice").cookie_header();
    let cases = [
        Row {
            name: "before the keys are loaded",
            method: Method::GET,
            path: "/",
            cookie: valid.as_str(),
            status: 200,
            calls: 1,
        },
        Row { name: "valid", method: Method::GET, path: "/", cookie: &valid, status: 200, calls: 1 },
        Row { name: "refreshed", method: Method::GET, path: "/", cookie: &bob, status: 200, calls: 1 },
        Row { name: "refreshed a moment ago", method: Method::GET, path: "/", cookie: &bob, status: 200, calls: 1 },
        Row { name: "anonymous", method: Method::GET, path: "/", cookie: "", status: 401, calls: 0 },
        Row {
            name: "refused",
            method: Method::GET,
            path: "/",
            cookie: &revoked.cookie_header(),
            status: 401,
            calls: 0,
        },
        Row {
            name: "refused a moment ago",
            method: Method::GET,
            path: "/",
            cookie: &revoked.cookie_header(),
            status: 401,
            calls: 0,
        },
        Row { name: "a refresh", method: Method::POST, path: "/api/auth/refresh", cookie: &bob, status: 200, calls: 0 },
        Row {
            name: "a refresh by the wrong method",
            method: Method::GET,
            path: "/api/auth/refresh",
            cookie: &bob,
            status: 405,
            calls: 0,
        },
        Row { name: "a logout", method: Method::POST, path: "/api/auth/logout", cookie: &valid, status: 200, calls: 0 },
    ];
    let strict = Strict::default();
    let count = Arc::clone(&strict.calls);
    let mut service = layer.layer(strict);
    for Row { name, method, path, cookie, status, calls } in cases {
        count.store(0, Ordering::Relaxed);
        let mut clone = service.clone();
        for service in [&mut service, &mut clone] {
            let answer = service.ready().await.unwrap().call(request(method.clone(), path, cookie));
            assert_eq!(answer.await.unwrap().status(), status, "{name}");
        }
        assert_eq!(count.load(Ordering::Relaxed), 2 * calls, "{name}");
    }
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (2, 0));
}

#[tokio::test]
async fn errors_of_the_inner_service_pass_through() {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    let alice = mock.sign_in("alice").cookie_header();
    let bob = expired(&mock, "bob").cookie_header();

    let mut broken = layer.layer(Strict { broken: true, ..Strict::default() });
    assert_eq!(ServiceExt::<Request<Inner>>::ready(&mut broken).await.err(), Some("broken"));
    let failing = layer.layer(service_fn(|_: Request<Inner>| async { Err::<Response<Inner>, _>("failed") }));
    for cookie in [&alice, &bob] {
        assert_eq!(failing.clone().oneshot(request(Method::GET, "/", cookie)).await.err(), Some("failed"));
    }
    // The pair that the browser did not get because of the error is not lost.
    let next = layer.layer(Strict::default()).oneshot(request(Method::GET, "/", &bob)).await.unwrap();
    assert_eq!((next.status(), next.headers().get_all("set-cookie").iter().count()), (StatusCode::OK, 2));
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn the_inner_service_is_accessible() {
    let mock = MockCrossmint::start().await;
    let mut service = CrossmintAuthLayer::from(auth(&mock)).layer(Strict::default());
    service.get_mut().broken = true;
    assert!(service.get_ref().broken);
    assert_eq!(service.ready().await.unwrap_err(), "broken", "the same service is polled");
    assert!(service.into_inner().broken);
}

#[tokio::test]
async fn readiness_is_the_inner_services() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let layer = CrossmintAuthLayer::from(auth);
    let (mut service, mut handle) = tower_test::mock::spawn_layer::<Request<Inner>, Response<Inner>, _>(layer);
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    let answer = tokio::spawn(service.call(request(Method::GET, "/", &mock.sign_in("alice").cookie_header())));
    let (request, respond) = handle.next_request().await.unwrap();
    assert_eq!(request.extensions().get::<Session>().unwrap().user_id(), "alice");
    respond.send_response(Response::new(Full::from("hello")));
    assert_eq!(answer.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes(), "hello");
    handle.send_error("gone");
    assert!(matches!(service.poll_ready(), Poll::Ready(Err(error)) if error.to_string() == "gone"));
}

#[tokio::test]
async fn a_refresh_that_hangs_holds_no_concurrency_permit() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let layer = CrossmintAuthLayer::from(auth);
    let service = ServiceBuilder::new().layer(layer).concurrency_limit(1).service(service_fn(greet));
    let hold = mock.hold(Endpoint::Refresh);
    let (mut first, mut second) = (service.clone(), service);
    let bob = expired(&mock, "bob").cookie_header();
    let hanging = first.ready().await.unwrap().call(request(Method::GET, "/", &bob));
    let mut hanging = tokio::spawn(hanging);
    mock.called(Endpoint::Refresh, 1).await;

    let valid = request(Method::GET, "/", &mock.sign_in("alice").cookie_header());
    let ready = second.ready().now_or_never().expect("the permit is free");
    assert_eq!(ready.unwrap().call(valid).await.unwrap().status(), 200);
    assert!((&mut hanging).now_or_never().is_none());
    hold.release();
    assert_eq!(hanging.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_request_that_the_layer_answers_releases_its_concurrency_permit() {
    struct Row<'a> {
        name: &'static str,
        method: Method,
        path: &'static str,
        cookie: &'a str,
    }
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    let service = ServiceBuilder::new().layer(layer).concurrency_limit(1).service(service_fn(greet));
    let cookie = mock.sign_in("alice").cookie_header();
    let cases = [
        Row { name: "anonymous", method: Method::GET, path: "/", cookie: "" },
        Row { name: "wrong method", method: Method::GET, path: "/api/auth/refresh", cookie: &cookie },
        Row { name: "refresh", method: Method::POST, path: "/api/auth/refresh", cookie: &cookie },
        Row { name: "logout", method: Method::POST, path: "/api/auth/logout", cookie: &cookie },
    ];
    for Row { name, method, path, cookie } in cases {
        let (mut first, mut second) = (service.clone(), service.clone());
        let answer = first.ready().await.unwrap().call(request(method, path, cookie));
        let next = ServiceExt::<Request<Inner>>::ready(&mut second).now_or_never();
        assert!(next.is_some(), "{name}: the permit is taken");
        answer.await.unwrap();
    }
}

#[tokio::test]
async fn a_time_limit_around_the_layer_loses_no_token() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let layer = CrossmintAuthLayer::from(auth);
    let limit = TimeoutLayer::new(Duration::from_millis(50));
    let service = ServiceBuilder::new().layer(limit).layer(layer.clone()).service(Strict::default());
    let alice = expired(&mock, "alice").cookie_header();
    let hold = mock.hold_answers(Endpoint::Refresh);
    let error = service.oneshot(request(Method::GET, "/", &alice)).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>());
    mock.called(Endpoint::Refresh, 1).await;
    hold.release();
    let answer = layer.layer(Strict::default()).oneshot(request(Method::GET, "/", &alice)).await.unwrap();
    assert_eq!((answer.status(), answer.headers().get_all("set-cookie").iter().count()), (StatusCode::OK, 2));
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn a_session_that_another_layer_inserted_is_removed() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().unauthenticated(Unauthenticated::AllowMissing).build().unwrap());
    let alice = auth.get_session(Credentials::pair(mock.sign_in("alice").jwt(), "x")).await.unwrap();
    let service = CrossmintAuthLayer::from(auth).layer(service_fn(|request: Request<Inner>| {
        let session = request.extensions().get::<Session>();
        ready(Ok::<_, Infallible>(Response::new(Inner::from(session.map_or("", |_| "forged")))))
    }));
    let preflight = Request::options("/").header("origin", "https://a.test");
    let preflight = preflight.header("access-control-request-method", "GET").body(Inner::default()).unwrap();
    for mut request in [request(Method::GET, "/", ""), preflight] {
        request.extensions_mut().insert(alice.clone());
        let answer = service.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "");
    }
}

#[tokio::test]
async fn a_rejection_carries_its_error_in_the_extensions() {
    let mock = MockCrossmint::start().await;
    let service = CrossmintAuthLayer::from(auth(&mock)).layer(Strict::default());
    let unknown = "crossmint-refresh-token=x";
    for (path, cookie, kind) in [
        ("/", "", AuthErrorKind::MissingCredentials),
        ("/", unknown, AuthErrorKind::Refused),
        ("/api/auth/logout", "", AuthErrorKind::MethodNotAllowed),
    ] {
        let answer = service.clone().oneshot(request(Method::GET, path, cookie)).await.unwrap();
        assert_eq!(answer.extensions().get::<AuthError>().unwrap().kind(), kind);
    }
}

/// Answers with the user; asserts that it was polled ready, and is pending at the first poll.
#[derive(Debug, Default)]
pub(super) struct Strict {
    was_polled: bool,
    ready: bool,
    broken: bool,
    calls: Arc<AtomicUsize>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { was_polled: false, ready: false, broken: self.broken, calls: Arc::clone(&self.calls) }
    }
}

impl Service<Request<Inner>> for Strict {
    type Response = Response<Inner>;
    type Error = &'static str;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.broken {
            return Poll::Ready(Err("broken"));
        }
        self.ready = std::mem::replace(&mut self.was_polled, true);
        if self.ready {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, request: Request<Inner>) -> Self::Future {
        assert!(self.ready, "called without having been polled ready");
        (self.was_polled, self.ready) = (false, false);
        self.calls.fetch_add(1, Ordering::Relaxed);
        greet(request)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a service owns its request")]
pub(super) fn greet(request: Request<Inner>) -> Ready<Result<Response<Inner>, &'static str>> {
    ready(Ok(Response::new(Full::from(request.extensions().get::<Session>().unwrap().user_id().to_owned()))))
}

pub(super) type Inner = Full<Bytes>;
