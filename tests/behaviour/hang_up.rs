//! Clients that hang up, over HTTP/1 and HTTP/2: hyper drops what it serves them.

use std::{net::SocketAddr, sync::Arc};

use axum::body::Body;
use http::{Method, Request};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tower::{ServiceExt as _, service_fn};
use tower_crossmint_auth::{
    CrossmintAuth,
    testing::{Endpoint, MockCrossmint},
};

use crate::{
    direct::{app, auth, get, request},
    support::expired,
};

#[tokio::test]
async fn whenever_a_client_hangs_up_its_next_request_gets_the_new_pair() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (point, endpoint, committed) in [
            ("the key set is asked for", Endpoint::Keys, false),
            ("the key set is on its way", Endpoint::Keys, true),
            ("the refresh is asked for", Endpoint::Refresh, false),
            ("the refresh has been carried out", Endpoint::Refresh, true),
        ] {
            let case = format!("{protocol:?}, {point}");
            let mock = MockCrossmint::start().await;
            let auth = auth(&mock);
            let cookie = expired(&mock, "alice").cookie_header();
            let (server, dropped) = serve(&auth).await;
            let hold = if committed { mock.hold_answers(endpoint) } else { mock.hold(endpoint) };
            let client = protocol.send(server, request(Method::GET, "/", &cookie)).await;
            mock.called(endpoint, 1).await;
            client.hang_up();
            dropped.acquire().await.unwrap().forget();
            hold.release();
            get(&app(&auth), "/", &cookie).await.assert_renewed("alice", &case);
            assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0), "{case}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    async fn send(self, server: SocketAddr, request: Request<Body>) -> Client {
        let stream = TokioIo::new(TcpStream::connect(server).await.unwrap());
        match self {
            Self::Http1 => {
                let (mut sender, connection) = http1::handshake(stream).await.unwrap();
                let connection = Some(tokio::spawn(async move { drop(connection.await) }));
                Client { answer: tokio::spawn(async move { drop(sender.send_request(request).await) }), connection }
            }
            Self::Http2 => {
                let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
                tokio::spawn(async move { drop(connection.await) });
                let mut request = request;
                *request.uri_mut() = "http://localhost/".parse().unwrap();
                // The stream is reset when its answer is no longer waited for.
                let answer = tokio::spawn(async move { drop(sender.send_request(request).await) });
                Client { answer, connection: None }
            }
        }
    }
}

struct Client {
    answer: JoinHandle<()>,
    connection: Option<JoinHandle<()>>,
}

impl Client {
    fn hang_up(self) {
        self.answer.abort();
        if let Some(connection) = self.connection {
            connection.abort();
        }
    }
}

/// Serves both protocols. The semaphore gets a permit for each response future that is dropped before its end.
async fn serve(auth: &CrossmintAuth) -> (SocketAddr, Arc<Semaphore>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dropped = Arc::new(Semaphore::new(0));
    let (inner, watch) = (app(auth), Arc::clone(&dropped));
    let service = service_fn(move |request: Request<Incoming>| {
        let watch = Watch(Some(Arc::clone(&watch)));
        let response = inner.clone().oneshot(request.map(Body::new));
        async move {
            let mut watch = watch;
            let response = response.await;
            watch.0 = None;
            response
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    (address, dropped)
}

struct Watch(Option<Arc<Semaphore>>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(dropped) = self.0.take() {
            dropped.add_permits(1);
        }
    }
}
