//! Requests without a connection: a test can hold the response future, and drop it.

use axum::{Router, body::Body, routing::any};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};
use tower::ServiceExt as _;
use tower_crossmint_auth::{CrossmintAuth, CrossmintAuthLayer, testing::MockCrossmint};

use crate::support::{answer::Answer, app::who};

/// A handle with the mock's defaults.
pub(crate) fn auth(mock: &MockCrossmint) -> CrossmintAuth {
    CrossmintAuth::new(mock.config().build().unwrap())
}

/// An application behind the layer, whose responses name the user of the request.
pub(crate) fn app(auth: &CrossmintAuth) -> Router {
    Router::new().fallback(any(who)).layer(CrossmintAuthLayer::from(auth.clone()))
}

pub(crate) async fn get(app: &Router, path: &str, cookie: &str) -> Answer {
    send(app, request(Method::GET, path, cookie)).await
}

pub(crate) async fn post(app: &Router, path: &str, cookie: &str) -> Answer {
    send(app, request(Method::POST, path, cookie)).await
}

/// Sends a request that the test can drop.
pub(crate) fn start(app: &Router, cookie: &str) -> JoinHandle<Answer> {
    let (app, cookie) = (app.clone(), cookie.to_owned());
    tokio::spawn(async move { get(&app, "/", &cookie).await })
}

pub(crate) async fn send(app: &Router, request: Request<Body>) -> Answer {
    let (head, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

pub(crate) fn request<B: Default>(method: Method, path: &str, cookie: &str) -> Request<B> {
    let request = Request::builder().method(method).uri(path);
    let request = if cookie.is_empty() { request } else { request.header("cookie", cookie) };
    request.body(B::default()).unwrap()
}

/// Opens an HTTP/2 connection, on which a test can send what no ordinary client sends.
pub(crate) async fn http2(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Body> {
    let (client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    client
}
