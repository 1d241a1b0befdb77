//! The manners of a tower service: readiness, errors, bodies, and the company of other layers.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, routing::any};
use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt, service_fn, timeout::TimeoutLayer};
use tower_crossmint_auth::{
    AuthError, AuthErrorKind, AuthMaterial, Credentials, CrossmintAuth, CrossmintAuthConfig, CrossmintAuthLayer,
    CrossmintAuthService, ResponseBody, ResponseFuture, Session, Unauthenticated,
    testing::{Endpoint, MockCrossmint},
};

use crate::{
    direct::{auth, request, send},
    support::expired,
};

type Inner = Full<Bytes>;

#[test]
fn everything_can_cross_threads() {
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
async fn the_inner_service_is_called_once_if_at_all_and_only_when_ready() {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    let expired = mock.session("bob").jwt_lifetime(-60).create().cookie_header();
    let dead = mock.session("carol").jwt_lifetime(-60).create();
    mock.revoke(dead.refresh_token());
    let valid = mock.sign_in("alice").cookie_header();
    let cases = [
        ("before the keys are loaded", Method::GET, "/", valid.as_str(), 200, 1),
        ("valid", Method::GET, "/", &valid, 200, 1),
        ("renewed", Method::GET, "/", &expired, 200, 1),
        ("renewed a moment ago", Method::GET, "/", &expired, 200, 1),
        ("anonymous", Method::GET, "/", "", 401, 0),
        ("refused", Method::GET, "/", &dead.cookie_header(), 401, 0),
        ("refused a moment ago", Method::GET, "/", &dead.cookie_header(), 401, 0),
        ("a refresh", Method::POST, "/api/auth/refresh", &expired, 200, 0),
        ("a refresh by the wrong method", Method::GET, "/api/auth/refresh", &expired, 405, 0),
        ("a logout", Method::POST, "/api/auth/logout", &valid, 200, 0),
    ];
    let strict = Strict::default();
    let count = Arc::clone(&strict.calls);
    let mut service = layer.layer(strict);
    for (name, method, path, cookie, status, calls) in cases {
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
    let bob = mock.session("bob").jwt_lifetime(-60).create().cookie_header();

    let mut broken = layer.layer(Strict { broken: true, ..Strict::default() });
    assert_eq!(ServiceExt::<Request<Inner>>::ready(&mut broken).await.err(), Some("broken"));
    let failing = layer.layer(service_fn(|_: Request<Inner>| async { Err::<Response<Inner>, _>("failed") }));
    for cookie in [&alice, &bob] {
        assert_eq!(failing.clone().oneshot(request(Method::GET, "/", cookie)).await.err(), Some("failed"));
    }
    // The pair that the error has kept from the browser is not lost.
    let next = layer.layer(Strict::default()).oneshot(request(Method::GET, "/", &bob)).await.unwrap();
    assert_eq!((next.status(), next.headers().get_all("set-cookie").iter().count()), (StatusCode::OK, 2));
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn the_inner_service_can_be_reached_and_taken_out() {
    let mock = MockCrossmint::start().await;
    let mut service = CrossmintAuthLayer::from(auth(&mock)).layer(Strict::default());
    service.get_mut().broken = true;
    assert!(service.get_ref().broken);
    assert_eq!(service.ready().await.unwrap_err(), "broken", "it is the one that is called");
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
async fn a_renewal_that_hangs_takes_no_place_from_others() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let layer = CrossmintAuthLayer::from(auth);
    let service = ServiceBuilder::new().layer(layer).concurrency_limit(1).service(service_fn(greet));
    let hold = mock.hold(Endpoint::Refresh);
    let (mut first, mut second) = (service.clone(), service);
    let bob = mock.session("bob").jwt_lifetime(-60).create().cookie_header();
    let hanging = first.ready().await.unwrap().call(request(Method::GET, "/", &bob));
    let mut hanging = tokio::spawn(hanging);
    mock.called(Endpoint::Refresh, 1).await;

    let valid = request(Method::GET, "/", &mock.sign_in("alice").cookie_header());
    let ready = second.ready().now_or_never().expect("the one place is free");
    assert_eq!(ready.unwrap().call(valid).await.unwrap().status(), 200);
    assert!((&mut hanging).now_or_never().is_none());
    hold.release();
    assert_eq!(hanging.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_request_that_is_answered_here_gives_its_place_back() {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    let service = ServiceBuilder::new().layer(layer).concurrency_limit(1).service(service_fn(greet));
    let cookie = mock.sign_in("alice").cookie_header();
    let cases = [
        ("anonymous", Method::GET, "/", ""),
        ("wrong method", Method::GET, "/api/auth/refresh", &cookie),
        ("refresh", Method::POST, "/api/auth/refresh", &cookie),
        ("logout", Method::POST, "/api/auth/logout", &cookie),
    ];
    for (name, method, path, cookie) in cases {
        let (mut first, mut second) = (service.clone(), service.clone());
        let answer = first.ready().await.unwrap().call(request(method, path, cookie));
        let next = ServiceExt::<Request<Inner>>::ready(&mut second).now_or_never();
        assert!(next.is_some(), "{name}: the one place is taken");
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
    let alice = mock.session("alice").jwt_lifetime(-60).create().cookie_header();
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
async fn a_session_that_somebody_else_put_there_is_removed() {
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
async fn a_rejection_says_why_in_its_extensions() {
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

#[tokio::test]
async fn a_body_passes_frame_by_frame() {
    use Piece::{Data, Error, Trailers};
    let mut range = SizeHint::new();
    range.set_lower(1);
    range.set_upper(9);
    let cases: [(&str, &[Piece], SizeHint); 6] = [
        ("empty", &[], SizeHint::with_exact(0)),
        ("two frames", &[Data("abc"), Data("def")], SizeHint::with_exact(6)),
        ("trailers", &[Data("abc"), Trailers("x")], SizeHint::default()),
        ("only trailers", &[Trailers("x")], SizeHint::default()),
        ("a range", &[Data("abc")], range),
        ("an error", &[Data("abc"), Error("broken")], SizeHint::default()),
    ];
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    for (name, script, hint) in cases {
        for lifetime in [60, -60] {
            let body = Scripted { script: script.to_vec().into(), hint };
            let service = layer
                .layer(service_fn(move |_: Request<Inner>| ready(Ok::<_, Infallible>(Response::new(body.clone())))));
            let cookie = mock.session("alice").jwt_lifetime(lifetime).create().cookie_header();
            let mut body = service.oneshot(request(Method::GET, "/", &cookie)).await.unwrap().into_body();
            for piece in script {
                assert!(!body.is_end_stream(), "{name}");
                assert_eq!(
                    (body.size_hint().lower(), body.size_hint().upper()),
                    (hint.lower(), hint.upper()),
                    "{name}"
                );
                assert_eq!(Piece::of(body.frame().await.unwrap()), *piece, "{name}");
            }
            assert!(body.is_end_stream(), "{name}");
            assert!(body.frame().await.is_none(), "{name}");
        }
    }
}

#[tokio::test]
async fn the_layers_own_body_tells_its_size_and_its_end() {
    let mock = MockCrossmint::start().await;
    let service = CrossmintAuthLayer::from(auth(&mock)).layer(Strict::default());
    let mut refused = service.clone().oneshot(request(Method::GET, "/", "")).await.unwrap().into_body();
    let size = refused.size_hint().exact().unwrap();
    assert!(!refused.is_end_stream());
    assert_eq!(refused.frame().await.unwrap().unwrap().into_data().unwrap().len() as u64, size);
    assert_eq!((refused.is_end_stream(), refused.size_hint().exact()), (true, Some(0)));
    assert!(refused.frame().await.is_none());
    let logged_out = service.oneshot(request(Method::POST, "/api/auth/logout", "")).await.unwrap().into_body();
    assert!(logged_out.is_end_stream());
}

#[tokio::test]
async fn a_bare_hyper_server_needs_nothing_else() {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    let service = layer.layer(service_fn(|request: Request<hyper::body::Incoming>| async move {
        let user = request.extensions().get::<Session>().unwrap().user_id().to_owned();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(user)))
    }));
    for http2 in [false, true] {
        let (client, server) = tokio::io::duplex(1 << 16);
        let (client, server) = (TokioIo::new(client), TokioIo::new(server));
        let service = TowerToHyperService::new(service.clone());
        let mut send: Box<dyn FnMut(Request<Inner>) -> BoxFuture<'static, Response<hyper::body::Incoming>>> = if http2 {
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(server, service),
            );
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), client).await;
            let (mut sender, connection) = handshake.unwrap();
            tokio::spawn(connection);
            Box::new(move |request| sender.send_request(request).map(Result::unwrap).boxed())
        } else {
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(server, service));
            let (mut sender, connection) = hyper::client::conn::http1::handshake(client).await.unwrap();
            tokio::spawn(connection);
            Box::new(move |request| sender.send_request(request).map(Result::unwrap).boxed())
        };
        let alice = mock.sign_in("alice").cookie_header();
        let bob = mock.session("bob").jwt_lifetime(-60).create().cookie_header();
        let carol = mock.session("carol").jwt_lifetime(-60).create().cookie_header();
        let cases = [
            ("valid", Method::GET, "/", alice.as_str(), 200, 0, "alice"),
            ("renewed", Method::GET, "/", &bob, 200, 2, "bob"),
            ("anonymous", Method::GET, "/", "", 401, 2, "sign in"),
            ("refreshed", Method::POST, "/api/auth/refresh", &carol, 200, 2, r#""id":"carol""#),
            ("logged out", Method::POST, "/api/auth/logout", &alice, 200, 2, ""),
        ];
        for (name, method, path, cookie, status, cookies, text) in cases {
            let answer = send(request(method, &format!("http://app.test{path}"), cookie)).await;
            assert_eq!(answer.status(), status, "{name}, HTTP/2: {http2}");
            assert_eq!(answer.headers().get_all("set-cookie").iter().count(), cookies, "{name}, HTTP/2: {http2}");
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(String::from_utf8_lossy(&body).contains(text), "{name}, HTTP/2: {http2}");
        }
    }
}

#[tokio::test]
async fn an_upgrade_with_a_valid_session_is_left_alone() {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    let service = layer.layer(service_fn(|mut request: Request<hyper::body::Incoming>| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut line = [0; 4];
            io.read_exact(&mut line).await.unwrap();
            io.write_all(&line).await.unwrap();
        });
        let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
        Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
    }));
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(server), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::spawn(connection);
    let cookie = mock.sign_in("alice").cookie_header();
    let request = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    client.write_all(format!("{request}cookie: {cookie}\r\n\r\n").as_bytes()).await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(client.read_u8().await.unwrap()));
    }
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(["set-cookie", "cache-control", "vary"].iter().all(|name| !head.contains(name)), "{head}");
    client.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    client.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
}

#[tokio::test]
async fn a_handshake_with_an_expired_session_renews_it_and_the_window_covers_a_cookie_that_is_ignored() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let switch = any(|| async { StatusCode::SWITCHING_PROTOCOLS });
    let app = Router::new().fallback(switch).layer(CrossmintAuthLayer::from(auth));
    let bob = expired(&mock, "bob").cookie_header();
    for _ in 0..2 {
        let handshake = Request::get("/ws").header("cookie", &bob).header("upgrade", "websocket");
        let answer =
            send(&app, handshake.header("connection", "upgrade").body(axum::body::Body::empty()).unwrap()).await;
        assert!(answer.status == 101 && answer.stores_a_session(), "{answer:?}");
    }
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

/// Greets whoever has a session; insists on being polled ready, and is not ready the first time it is asked.
#[derive(Debug, Default)]
struct Strict {
    asked: bool,
    ready: bool,
    broken: bool,
    calls: Arc<AtomicUsize>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { asked: false, ready: false, broken: self.broken, calls: Arc::clone(&self.calls) }
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
        self.ready = std::mem::replace(&mut self.asked, true);
        if self.ready {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, request: Request<Inner>) -> Self::Future {
        assert!(self.ready, "called without having been polled ready");
        (self.asked, self.ready) = (false, false);
        self.calls.fetch_add(1, Ordering::Relaxed);
        greet(request)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a service owns its request")]
fn greet(request: Request<Inner>) -> Ready<Result<Response<Inner>, &'static str>> {
    ready(Ok(Response::new(Full::from(request.extensions().get::<Session>().unwrap().user_id().to_owned()))))
}

/// A body that does as it is told.
#[derive(Clone)]
struct Scripted {
    script: VecDeque<Piece>,
    hint: SizeHint,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Piece {
    Data(&'static str),
    Trailers(&'static str),
    Error(&'static str),
}

impl Piece {
    fn of(frame: Result<Frame<Bytes>, &'static str>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().leak();
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => Self::Data(text(&data)),
            Ok(Err(trailers)) => Self::Trailers(text(trailers.into_trailers().unwrap()["x-script"].as_bytes())),
            Err(error) => Self::Error(error),
        }
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(self.script.pop_front().map(|piece| match piece {
            Piece::Data(text) => Ok(Frame::data(Bytes::from(text))),
            Piece::Trailers(text) => {
                let field = (HeaderName::from_static("x-script"), HeaderValue::from_static(text));
                Ok(Frame::trailers(HeaderMap::from_iter([field])))
            }
            Piece::Error(error) => Err(error),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.script.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
