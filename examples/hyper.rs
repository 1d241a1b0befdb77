//! A hyper server behind the layer, without a framework, and a client.
//!
//! ```sh
//! cargo run --example hyper --features testing
//! ```

use std::{convert::Infallible, error::Error};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_crossmint_auth::{CrossmintAuthLayer, Session, testing::MockCrossmint};

async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // The layer forwards no request without a session.
    let user = request.extensions().get::<Session>().map(Session::user_id).unwrap_or_default();
    Ok(Response::new(Full::from(format!("Hello, {user}"))))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::new(mock.config().build()?);
    let service = ServiceBuilder::new().layer(layer).service_fn(hello);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });

    let client = reqwest::Client::new();
    let expired = mock.session("alice").jwt_lifetime(-60).create().cookie_header();
    for (name, cookie, status, body) in [
        ("signed in", mock.sign_in("alice").cookie_header(), 200, "Hello, alice"),
        ("with an expired JWT", expired, 200, "Hello, alice"),
        ("signed out", String::new(), 401, r#"{"error":"Unauthorized","message":"Please sign in"}"#),
    ] {
        let answer = client.get(format!("http://{address}/")).header("cookie", cookie).send().await?;
        let refreshed = answer.headers().get_all("set-cookie").iter().count();
        let (found, text) = (answer.status(), answer.text().await?);
        println!("{name}: {found}, {refreshed} cookies set: {text}");
        assert_eq!((found.as_u16(), &*text), (status, body));
    }
    Ok(())
}
