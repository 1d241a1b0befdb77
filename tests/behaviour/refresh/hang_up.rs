//! Clients that hang up: hyper drops the response futures of their requests.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, body::Body, routing::any};
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
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tower::{ServiceExt as _, service_fn};
use tower_crossmint_auth::{
    CrossmintAuth, CrossmintAuthLayer,
    testing::{Endpoint, MockCrossmint},
};

use crate::support::{
    answer::REFRESH,
    app::{App, who},
    direct::{app, auth, get, request, start},
    gate::Gate,
    mock::{Calls, NO_CALLS, calls, expired},
};

#[tokio::test]
async fn whenever_a_client_hangs_up_its_next_request_gets_the_new_pair() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (point, endpoint, committed) in [
            ("the key set is requested", Endpoint::Keys, false),
            ("the key set is on its way", Endpoint::Keys, true),
            ("the refresh is requested", Endpoint::Refresh, false),
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
            get(&app(&auth), "/", &cookie).await.assert_refreshed("alice", &case);
            assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0), "{case}");
        }
    }
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
    // Once the server answers a later connection, it has seen the end of this one.
    assert_eq!(app.get("/", "").await.status, 401);
    hold.release();
    let next = app.get("/", &cookie).await;
    assert_eq!((next.status, next.user().as_deref()), (200, Some("alice")));
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
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
        assert!(mock.is_live(&next.refresh_token()));
        assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
    }
}

#[tokio::test]
async fn dropped_waiters_do_not_affect_the_others() {
    // The first of the three requests starts the refresh.
    for dropped in [&[0][..], &[1], &[2], &[0, 1], &[1, 2], &[0, 1, 2]] {
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
            for request in dropped {
                requests[*request].abort();
            }
            hold.release();
            for (number, request) in requests.into_iter().enumerate() {
                match request.await {
                    Ok(answer) => answer.assert_refreshed("alice", &format!("{number}, without {dropped:?}")),
                    Err(error) => {
                        assert!(error.is_cancelled() && dropped.contains(&number), "{number}, without {dropped:?}")
                    }
                }
            }
            get(&app, "/", &cookie).await.assert_refreshed("alice", &format!("after {dropped:?}"));
            assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0), "without {dropped:?}");
        }
    }
}

#[tokio::test]
async fn a_request_dropped_before_the_key_set_arrives_sends_no_refresh() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let cookie = expired(&mock, "alice").cookie_header();
    let hold = mock.hold(Endpoint::Keys);
    let request = start(&app, &cookie);
    mock.called(Endpoint::Keys, 1).await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    hold.release();
    get(&app, "/", &cookie).await.assert_refreshed("alice", "the next one");
    assert_eq!(calls(&mock), Calls { keys: 1, refreshes: 1, ..NO_CALLS });
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
    get(&app, "/", &cookie).await.assert_refreshed("alice", "the next one");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn a_request_dropped_in_a_slow_handler_does_not_lose_the_new_token() {
    let mock = MockCrossmint::start().await;
    let gate = Gate::new();
    let app =
        Router::new().route("/slow", gate.handler()).fallback(any(who)).layer(CrossmintAuthLayer::from(auth(&mock)));
    let cookie = expired(&mock, "alice").cookie_header();
    let request = tokio::spawn({
        let (app, cookie) = (app.clone(), cookie.clone());
        async move { get(&app, "/slow", &cookie).await }
    });
    gate.entered().await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    get(&app, "/", &cookie).await.assert_refreshed("alice", "the next one");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
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
                // Dropping this future resets the stream.
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

/// Serves both protocols. Adds a permit to the semaphore for each response future that is dropped early.
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
