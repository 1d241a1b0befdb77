//! Tasks that outlive a client.

use axum::body::Body;
use futures_util::FutureExt as _;
use http::Method;
use tower::ServiceExt as _;
use tower_crossmint_auth::testing::{Endpoint, MockCrossmint};

use crate::support::{
    direct::{app, auth, get, request},
    mock::expired,
};

#[tokio::test]
async fn a_shutdown_waits_for_refreshes_whose_clients_have_hung_up() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    auth.wait_idle().await;

    let alice = expired(&mock, "alice");
    let hold = mock.hold_answers(Endpoint::Refresh);
    let request_to_drop = app(&auth).oneshot(request::<Body>(Method::GET, "/", &alice.cookie_header()));
    tokio::select! {
        _ = request_to_drop => panic!("the answer is held"),
        () = mock.called(Endpoint::Refresh, 1) => {}
    }
    let mut idle = Box::pin(auth.wait_idle());
    assert!((&mut idle).now_or_never().is_none(), "a refresh is under way");
    hold.release();
    idle.await;
    assert_eq!(get(&app(&auth), "/", &alice.cookie_header()).await.status, 200);
    assert_eq!(mock.calls(Endpoint::Refresh), 1, "its successor is kept");
}
