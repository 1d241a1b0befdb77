//! A WebSocket and server-sent events that end with the session's JWT, and a client that waits for it.
//!
//! ```sh
//! cargo run --example streams --features axum,testing
//! ```

use std::{convert::Infallible, error::Error, time::Duration};

use axum::{
    Router,
    extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    response::{IntoResponse, Sse, sse::Event},
    routing::get,
};
use futures_util::{StreamExt as _, stream};
use tokio::{net::TcpListener, time::interval};
use tokio_tungstenite::{connect_async, tungstenite::client::IntoClientRequest as _};
use tower_crossmint_auth::{CrossmintAuthLayer, Session, testing::MockCrossmint};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mock = MockCrossmint::start().await;
    let app = Router::new()
        .route(
            "/ws",
            get(|session: Session, upgrade: WebSocketUpgrade| async move {
                upgrade.on_upgrade(move |socket| talk(session, socket))
            }),
        )
        .route("/events", get(events))
        .layer(CrossmintAuthLayer::new(mock.config().leeway(Duration::ZERO).build()?));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });

    let cookie = mock.session("alice").jwt_lifetime(2).create().cookie_header();
    let mut request = format!("ws://{address}/ws").into_client_request()?;
    request.headers_mut().insert("cookie", cookie.parse()?);
    let (mut socket, _) = connect_async(request).await?;
    let request = reqwest::Client::new().get(format!("http://{address}/events")).header("cookie", cookie);
    let events = request.send().await?.text();
    while let Some(message) = socket.next().await {
        println!("WebSocket: {:?}", message?);
    }
    println!("events:\n{}both streams have ended with the session", events.await?);
    Ok(())
}

/// Sends a greeting, echoes messages, and closes when the JWT expires.
async fn talk(session: Session, mut socket: WebSocket) {
    let mut expired = std::pin::pin!(session.expired());
    let mut message = Some(Message::text(format!("Hello, {}", session.user_id())));
    while let Some(text) = message.take() {
        if socket.send(text).await.is_err() {
            return;
        }
        message = tokio::select! {
            received = socket.recv() => received.and_then(Result::ok),
            () = &mut expired => None,
        };
    }
    // The client reconnects, with the cookies that its next request has refreshed.
    let reason = CloseFrame { code: 1008, reason: "the session has expired".into() };
    let _ = socket.send(Message::Close(Some(reason))).await;
}

/// Sends an event twice a second until the JWT expires.
async fn events(session: Session) -> impl IntoResponse {
    let ticks = stream::unfold(interval(Duration::from_millis(500)), |mut ticks| async move {
        ticks.tick().await;
        Some((Ok::<_, Infallible>(Event::default().data("tick")), ticks))
    });
    Sse::new(ticks.take_until(session.expired()))
}
