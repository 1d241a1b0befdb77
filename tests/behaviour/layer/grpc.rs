//! A tonic server behind the layer, and a tonic client.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::{Buf as _, BufMut as _};
use futures_util::{future::BoxFuture, stream};
use http::{HeaderValue, StatusCode, Uri};
use tokio::net::TcpStream;
use tonic::{
    Code, Request, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataValue,
    server::{ClientStreamingService, Grpc, NamedService},
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::Service;
use tower_crossmint_auth::{
    CorsPreflights, CrossmintAuth, CrossmintAuthLayer, OutagePolicy,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::support::{
    answer::{ENDED, SIGN_IN, TRY_LATER},
    direct::http2,
    mock::expired,
};

#[tokio::test]
async fn a_tonic_client_gets_a_response_or_a_grpc_status() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().on_outage(OutagePolicy::KeepSession).cors_preflights(CorsPreflights::Reject);
    let mut client = serve(CrossmintAuth::new(config.build().unwrap())).await;
    let (outage, revoked) = (expired(&mock, "carol"), expired(&mock, "dave"));
    mock.revoke(revoked.refresh_token());
    mock.inject_times(Endpoint::Refresh, 1, Fault::Status(503));
    let cases = [
        ("an outage", outage.cookie_header(), Err((Code::Unavailable, TRY_LATER))),
        ("no session", String::new(), Err((Code::Unauthenticated, SIGN_IN))),
        ("a session that was revoked", revoked.cookie_header(), Err((Code::Unauthenticated, ENDED))),
        ("a valid session", mock.sign_in("alice").cookie_header(), Ok(0)),
        ("a session to be refreshed", expired(&mock, "bob").cookie_header(), Ok(2)),
    ];
    for (case, cookie, expected) in cases {
        let mut request = Request::new(HealthCheckRequest { service: String::new() });
        if let Ok(cookie) = MetadataValue::try_from(cookie)
            && !cookie.is_empty()
        {
            request.metadata_mut().insert("cookie", cookie);
        }
        let answer = client.check(request).await;
        let found = match &answer {
            Ok(answer) => Ok(answer.metadata().get_all("set-cookie").iter().count()),
            Err(status) => Err((status.code(), status.message())),
        };
        assert_eq!(found, expected, "{case}");
    }
}

#[tokio::test]
async fn no_grpc_method_runs_for_a_request_that_only_resembles_a_preflight() {
    let mock = MockCrossmint::start().await;
    for policy in [CorsPreflights::Pass, CorsPreflights::Reject] {
        let counter = Counter::default();
        let address =
            listen(CrossmintAuth::new(mock.config().cors_preflights(policy).build().unwrap()), counter.clone());
        let mut client = http2(TcpStream::connect(address).await.unwrap()).await;
        let frame = || Body::from(&b"\0\0\0\0\x01x"[..]);
        for (case, content_type, body) in [
            ("a message", Some("application/grpc"), frame()),
            ("a message of no type", None, frame()),
            ("a stream that is empty after all", None, Body::from_stream(stream::empty::<io::Result<Vec<u8>>>())),
            ("no stream, but a type", Some("application/grpc"), Body::empty()),
        ] {
            let mut request = preflight(address, body);
            if let Some(content_type) = content_type {
                request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
            }
            let response = client.send_request(request).await.unwrap();
            assert_eq!((response.status(), counter.calls()), (StatusCode::UNAUTHORIZED, 0), "{case}, {policy:?}");
        }
        // A genuine preflight also calls a method with a client stream, hence `Reject` for gRPC.
        let response = client.send_request(preflight(address, Body::empty())).await.unwrap();
        let (status, calls) = match policy {
            CorsPreflights::Reject => (StatusCode::UNAUTHORIZED, 0),
            _ => (StatusCode::OK, 1),
        };
        assert_eq!((response.status(), counter.calls()), (status, calls), "a preflight, {policy:?}");
    }
}

/// Makes a preflight for a call from another site.
fn preflight(address: SocketAddr, body: Body) -> http::Request<Body> {
    http::Request::options(format!("http://{address}/{}/Count", Counter::NAME))
        .header("origin", "https://x.example")
        .header("access-control-request-method", "POST")
        .body(body)
        .unwrap()
}

/// Serves the health service behind the layer.
async fn serve(auth: CrossmintAuth) -> HealthClient<Channel> {
    let (_reporter, health) = tonic_health::server::health_reporter();
    let address = listen(auth, health);
    let uri = Uri::builder().scheme("http").authority(address.to_string()).path_and_query("/").build().unwrap();
    HealthClient::new(Channel::builder(uri).connect().await.unwrap())
}

fn listen<S>(auth: CrossmintAuth, service: S) -> SocketAddr
where
    S: Service<http::Request<tonic::body::Body>, Response = http::Response<tonic::body::Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = incoming.local_addr().unwrap();
    let server = Server::builder().layer(CrossmintAuthLayer::from(auth)).add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

/// A method with a client stream, whose handler tonic calls before anything has arrived.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

impl Counter {
    fn calls(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl NamedService for Counter {
    const NAME: &'static str = "test.Counter";
}

impl Service<http::Request<tonic::body::Body>> for Counter {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move { Ok(Grpc::new(Raw).client_streaming(method, request).await) })
    }
}

impl ClientStreamingService<Vec<u8>> for Counter {
    type Response = Vec<u8>;
    type Future = BoxFuture<'static, Result<tonic::Response<Vec<u8>>, Status>>;

    fn call(&mut self, request: Request<Streaming<Vec<u8>>>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        let mut messages = request.into_inner();
        Box::pin(async move {
            while messages.message().await?.is_some() {}
            Ok(tonic::Response::new(Vec::new()))
        })
    }
}

/// A codec for raw messages.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
