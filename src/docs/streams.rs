//! WebSockets, server-sent events and other streams that outlive a JWT.
//!
//! The layer checks the request that opens a stream, and no message after it. Close the stream when the session's JWT
//! expires: [`Session::expired`](crate::Session::expired) is a future for `select!`. The example needs axum's feature
//! `ws`.
//!
//! ```
//! use axum::{
//!     Router,
//!     extract::ws::{WebSocket, WebSocketUpgrade},
//!     routing::get,
//! };
//! use tower_crossmint_auth::{CrossmintAuthLayer, Session};
//!
//! async fn echo(session: Session, mut socket: WebSocket) {
//!     let mut expired = std::pin::pin!(session.expired());
//!     loop {
//!         tokio::select! {
//!             message = socket.recv() => {
//!                 let Some(Ok(message)) = message else { return };
//!                 if socket.send(message).await.is_err() {
//!                     return;
//!                 }
//!             }
//!             // Dropping the socket closes it. `examples/streams.rs` sends a close frame with a reason.
//!             () = &mut expired => return,
//!         }
//!     }
//! }
//!
//! fn app(auth: CrossmintAuthLayer) -> Router {
//!     let open = |session: Session, upgrade: WebSocketUpgrade| async move {
//!         upgrade.on_upgrade(move |socket| echo(session, socket))
//!     };
//!     Router::new().route("/ws", get(open)).layer(auth)
//! }
//! ```
//!
//! A stream of server-sent events ends with one adapter, after which the browser's `EventSource` connects again, with
//! the cookies that it has by then. The example needs `futures-util`:
//!
//! ```
//! use std::convert::Infallible;
//!
//! use axum::response::{IntoResponse, Sse, sse::Event};
//! use futures_util::{Stream, StreamExt as _};
//! use tower_crossmint_auth::Session;
//!
//! fn until_expired<E>(session: &Session, events: E) -> impl IntoResponse + use<E>
//! where
//!     E: Stream<Item = Event> + Send + 'static,
//! {
//!     Sse::new(events.map(Ok::<_, Infallible>).take_until(Box::pin(session.expired())))
//! }
//! # let _ = |session: &Session| until_expired(session, futures_util::stream::empty());
//! ```
//!
//! # Do not refresh in a stream
//!
//! A refresh spends the refresh token, and its successor must reach the browser in a `Set-Cookie` field. Once a stream
//! has begun, there is no response left that could carry one: a refresh by the server would leave the browser with a
//! rotated token, and after the grace period its next request would end the session. So let the client refresh the
//! session with an ordinary request (the browser SDK does so two minutes before the JWT expires), close the stream at
//! the expiry, and let the client connect again.
//!
//! For the same reason, open a WebSocket with a fresh JWT: a browser may ignore the cookies that the response to a
//! handshake sets. If the layer has refreshed the session for a handshake, the browser's next request gets the new
//! cookies again, within the grace period.
//!
//! # Signing out
//!
//! A logout does not end streams that are open: they run until their JWT expires. An application that must end them at
//! once keeps a list of its streams by user or session, and closes them in its logout handler.
