//! A tonic server behind the layer, and a tonic client.

use std::net::SocketAddr;

use http::Uri;
use tonic::{
    Code, Request,
    metadata::MetadataValue,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower_crossmint_auth::{
    CrossmintAuth, CrossmintAuthLayer, OutagePolicy,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::support::{ENDED, SIGN_IN, TRY_LATER, expired};

#[tokio::test]
async fn a_tonic_client_gets_an_answer_or_a_status() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().on_outage(OutagePolicy::KeepSession).build().unwrap();
    let mut client = serve(CrossmintAuth::new(config)).await;
    let (outage, revoked) = (expired(&mock, "carol"), expired(&mock, "dave"));
    mock.revoke(revoked.refresh_token());
    mock.inject_times(Endpoint::Refresh, 1, Fault::Status(503));
    let cases = [
        ("an outage", outage.cookie_header(), Err((Code::Unavailable, TRY_LATER))),
        ("nobody", String::new(), Err((Code::Unauthenticated, SIGN_IN))),
        ("a session that was revoked", revoked.cookie_header(), Err((Code::Unauthenticated, ENDED))),
        ("a valid session", mock.sign_in("alice").cookie_header(), Ok(0)),
        ("a session to be renewed", expired(&mock, "bob").cookie_header(), Ok(2)),
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

/// Serves the health service, which is as good as any, behind the layer.
async fn serve(auth: CrossmintAuth) -> HealthClient<Channel> {
    let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = incoming.local_addr().unwrap();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::builder().layer(CrossmintAuthLayer::from(auth)).add_service(health);
    tokio::spawn(server.serve_with_incoming(incoming));
    let uri = Uri::builder().scheme("http").authority(address.to_string()).path_and_query("/").build().unwrap();
    HealthClient::new(Channel::builder(uri).connect().await.unwrap())
}
