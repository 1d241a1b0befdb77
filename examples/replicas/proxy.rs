//! A proxy that sends each request to the next replica.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use tokio::net::TcpListener;

/// Starts a proxy on a free port of loopback. Returns its address.
pub(crate) async fn start(replicas: Vec<SocketAddr>, client: reqwest::Client) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let turns = Arc::new(AtomicUsize::new(0));
    let forward = async move |request| {
        let replica = replicas[turns.fetch_add(1, Ordering::Relaxed) % replicas.len()];
        forward(request, replica, &client).await
    };
    tokio::spawn(async { axum::serve(listener, Router::new().fallback(forward)).await });
    Ok(address)
}

async fn forward(request: Request, replica: SocketAddr, client: &reqwest::Client) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let answer = client.request(head.method, format!("http://{replica}{}", head.uri)).headers(head.headers).body(body);
    let Ok(answer) = answer.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let mut response = Response::new(Body::empty());
    (*response.status_mut(), *response.headers_mut()) = (answer.status(), answer.headers().clone());
    match answer.bytes().await {
        Ok(body) => response.map(|_| body.into()),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

const MAX_BODY: usize = 1 << 16;
