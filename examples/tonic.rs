//! A gRPC server behind the layer, and a client with a cookie, with a bearer token and with nothing.
//!
//! ```sh
//! cargo run --example tonic --features testing
//! ```

use std::error::Error;

use tokio::net::TcpListener;
use tonic::{
    Code, Request,
    metadata::AsciiMetadataValue,
    transport::{Endpoint, Server, server::TcpIncoming},
};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::health_reporter,
};
use tower_crossmint_auth::{Bearer, CorsPreflights, CrossmintAuthLayer, OutagePolicy, testing::MockCrossmint};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mock = MockCrossmint::start().await;
    let config = mock
        .config()
        // Callers that are no browsers send `authorization` as metadata.
        .bearer(Bearer::Accept)
        // tonic calls a method with a client stream for any HTTP method, so that a preflight would reach it.
        .cors_preflights(CorsPreflights::Reject)
        // UNAVAILABLE instead of UNAUTHENTICATED while Crossmint is unavailable.
        .on_outage(OutagePolicy::KeepSession)
        .build()?;

    let (reporter, health) = health_reporter();
    reporter.set_service_status("demo", ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::builder().layer(CrossmintAuthLayer::new(config)).add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let mut client = HealthClient::new(Endpoint::from_shared(format!("http://{address}"))?.connect().await?);
    let alice = mock.sign_in("alice");
    let bearer = format!("Bearer {}", alice.jwt());
    for (name, metadata, expected) in [
        ("a cookie", Some(("cookie", alice.cookie_header())), Ok(())),
        ("a bearer token", Some(("authorization", bearer)), Ok(())),
        ("an invalid token", Some(("authorization", "Bearer x".to_owned())), Err(Code::Unauthenticated)),
        ("nothing", None, Err(Code::Unauthenticated)),
    ] {
        let mut request = Request::new(HealthCheckRequest { service: "demo".into() });
        if let Some((key, value)) = metadata {
            request.metadata_mut().insert(key, AsciiMetadataValue::try_from(value)?);
        }
        let answer = client.check(request).await;
        assert_eq!(answer.as_ref().map(drop).map_err(|status| status.code()), expected);
        match answer {
            Ok(answer) => println!("{name}: {:?}", answer.into_inner().status()),
            Err(status) => println!("{name}: {:?}: {}", status.code(), status.message()),
        }
    }
    Ok(())
}
