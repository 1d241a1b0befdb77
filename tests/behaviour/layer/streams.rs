//! Streams that end with the JWT of their session.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    response::{Sse, sse::Event},
    routing::get,
};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest as _};
use tower_crossmint_auth::{CrossmintAuth, Session, testing::MockCrossmint};

use crate::support::{app::App, clock::pass, direct::auth};

async fn session(auth: &CrossmintAuth, mock: &MockCrossmint, lifetime: i64) -> Session {
    auth.session_from_jwt(mock.session("alice").jwt_lifetime(lifetime).create().jwt()).await.unwrap()
}

#[tokio::test]
async fn a_session_expires_when_its_jwt_does() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    // The leeway of the layer is not added: within it, the JWT still opens new streams.
    assert_eq!(session(&auth, &mock, -1).await.expired().now_or_never(), Some(()));
    let mut expired = Box::pin(session(&auth, &mock, 60).await.expired());
    assert_eq!((&mut expired).now_or_never(), None);
    pass(Duration::from_secs(50)).await;
    assert_eq!((&mut expired).now_or_never(), None);
    pass(Duration::from_secs(11)).await;
    assert_eq!((&mut expired).now_or_never(), Some(()));
    let never = session(&auth, &mock, 1 << 40).await;
    assert_eq!(never.expired().now_or_never(), None, "in 35 000 years");
}

#[tokio::test]
async fn a_web_socket_and_events_end_with_the_session() {
    async fn talk(session: Session, mut socket: WebSocket) {
        let mut expired = std::pin::pin!(session.expired());
        // The client knows from this that the time has been determined.
        assert_eq!((&mut expired).now_or_never(), None);
        socket.send(Message::text(session.user_id())).await.unwrap();
        expired.await;
        socket.send(Message::Close(None)).await.unwrap();
    }
    let mock = MockCrossmint::start().await;
    let events = |session: Session| async move {
        let one = stream::iter([Ok::<_, Infallible>(Event::default().data(session.user_id()))]);
        Sse::new(one.chain(stream::pending()).take_until(Box::pin(session.expired())))
    };
    let open = |session: Session, upgrade: WebSocketUpgrade| async move {
        upgrade.on_upgrade(move |socket| talk(session, socket))
    };
    let inner = Router::new().route("/ws", get(open)).route("/events", get(events));
    let app = App::of(auth(&mock), inner).await;
    let cookie = mock.session("alice").jwt_lifetime(60).create().cookie_header();

    let mut request = app.url("/ws").replace("http", "ws").into_client_request().unwrap();
    request.headers_mut().insert("cookie", cookie.parse().unwrap());
    let connection = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let (mut socket, _) = client_async(request, connection).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), "alice");
    let mut response = app.client.get(app.url("/events")).header("cookie", cookie).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "data: alice\n\n");

    pass(Duration::from_secs(61)).await;
    assert!(socket.next().await.unwrap().unwrap().is_close());
    assert_eq!(response.chunk().await.unwrap(), None);
}
