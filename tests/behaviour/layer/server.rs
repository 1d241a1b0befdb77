//! The service under hyper: both protocols, and upgrades.

use std::convert::Infallible;

use axum::{Router, routing::any};
use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::{Layer as _, service_fn};
use tower_crossmint_auth::{
    CrossmintAuthLayer, Session,
    testing::{Endpoint, MockCrossmint},
};

use crate::{
    layer::service::Inner,
    support::{
        direct::{auth, request, send},
        mock::expired,
    },
};

#[tokio::test]
async fn the_service_runs_on_a_bare_hyper_server() {
    struct Row<'a> {
        name: &'static str,
        method: Method,
        path: &'static str,
        cookie: &'a str,
        status: u16,
        cookies: usize,
        text: &'static str,
    }
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
        let bob = expired(&mock, "bob").cookie_header();
        let carol = expired(&mock, "carol").cookie_header();
        let cases = [
            Row {
                name: "valid",
                method: Method::GET,
                path: "/",
                cookie: alice.as_str(),
                status: 200,
                cookies: 0,
                text: "alice",
            },
            Row {
                name: "refreshed",
                method: Method::GET,
                path: "/",
                cookie: &bob,
                status: 200,
                cookies: 2,
                text: "bob",
            },
            Row {
                name: "anonymous",
                method: Method::GET,
                path: "/",
                cookie: "",
                status: 401,
                cookies: 2,
                text: "sign in",
            },
            Row {
                name: "refreshed",
                method: Method::POST,
                path: "/api/auth/refresh",
                cookie: &carol,
                status: 200,
                cookies: 2,
                text: r#""id":"carol""#,
            },
            Row {
                name: "logged out",
                method: Method::POST,
                path: "/api/auth/logout",
                cookie: &alice,
                status: 200,
                cookies: 2,
                text: "",
            },
        ];
        for Row { name, method, path, cookie, status, cookies, text } in cases {
            let answer = send(request(method, &format!("http://app.test{path}"), cookie)).await;
            assert_eq!(answer.status(), status, "{name}, HTTP/2: {http2}");
            assert_eq!(answer.headers().get_all("set-cookie").iter().count(), cookies, "{name}, HTTP/2: {http2}");
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(String::from_utf8_lossy(&body).contains(text), "{name}, HTTP/2: {http2}");
        }
    }
}

#[tokio::test]
async fn an_upgrade_with_a_valid_session_passes_unchanged() {
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
async fn a_handshake_refreshes_an_expired_session_and_the_grace_period_covers_an_ignored_cookie() {
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
