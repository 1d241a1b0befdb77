//! Tests of the mock itself, over its sockets.

mod browser;
mod connections;
mod endpoints;
mod faults;
mod holds;

use std::io;

use reqwest::{Client, Response, StatusCode, redirect::Policy};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Endpoint, Fault, Hold, MockCrossmint};

#[test]
fn handles_can_be_sent_to_other_threads() {
    fn assert<T: Send + Sync + 'static>() {}
    assert::<MockCrossmint>();
    assert::<Hold>();
    assert::<Fault>();
}

const REFRESH: &str = "/api/2024-09-26/session/sdk/auth/refresh";
const LOGOUT: &str = "/api/2024-09-26/session/sdk/auth/logout";
const USER: &str = "/api/2024-09-26/sdk/auth/user/";
const KEYS: &str = "/.well-known/jwks.json";

fn client() -> Client {
    Client::builder().no_proxy().redirect(Policy::none()).build().unwrap()
}

fn http_2_client() -> Client {
    Client::builder().no_proxy().http2_prior_knowledge().build().unwrap()
}

async fn post(mock: &MockCrossmint, path: &str, secret: &str) -> (StatusCode, Value) {
    let request = client().post(format!("{}{path}", mock.base_url())).header("x-api-key", mock.api_key());
    let response = request.json(&json!({ "refresh": secret })).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// Exchanges a valid refresh token, and returns its successor.
async fn successor(mock: &MockCrossmint, secret: &str) -> String {
    let (status, answer) = post(mock, REFRESH, secret).await;
    assert_eq!(status, StatusCode::OK);
    answer["refresh"]["secret"].as_str().unwrap().to_owned()
}

async fn fetch(mock: &MockCrossmint, path: &str) -> Response {
    let request = client().get(format!("{}{path}", mock.base_url())).header("x-api-key", mock.api_key());
    request.send().await.unwrap()
}

/// A connection on which the test writes and reads raw HTTP/1.1.
struct Raw(TcpStream);

impl Raw {
    async fn connect(mock: &MockCrossmint) -> io::Result<Self> {
        let address = mock.base_url().strip_prefix("http://").unwrap();
        Ok(Self(TcpStream::connect(address).await?))
    }

    /// Connects and completes one call to the keys endpoint.
    async fn connect_and_call(mock: &MockCrossmint) -> Self {
        let mut raw = Self::connect(mock).await.unwrap();
        raw.send_keys().await.unwrap();
        raw.receive().await.unwrap();
        raw
    }

    async fn send_refresh(&mut self, mock: &MockCrossmint, secret: &str) -> io::Result<()> {
        let body = json!({ "refresh": secret }).to_string();
        let head = format!("POST {REFRESH} HTTP/1.1\r\nhost: mock\r\nx-api-key: {}\r\n", mock.api_key());
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        self.0.write_all(request.as_bytes()).await
    }

    async fn send_keys(&mut self) -> io::Result<()> {
        self.0.write_all(format!("GET {KEYS} HTTP/1.1\r\nhost: mock\r\n\r\n").as_bytes()).await
    }

    /// Reads a response head and as much of the body as its `content-length` announces.
    async fn receive(&mut self) -> io::Result<String> {
        let mut received = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&received);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let announced = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if announced.unwrap().parse::<usize>().unwrap() == body.len() {
                    return Ok(text.into_owned());
                }
            }
            if self.0.read_buf(&mut received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads until the connection ends, and returns what was read and how the connection ended.
    async fn receive_all(&mut self) -> (String, io::Result<()>) {
        let mut received = Vec::new();
        let ended = self.0.read_to_end(&mut received).await;
        (String::from_utf8_lossy(&received).into_owned(), ended.map(drop))
    }
}

/// Sends a refresh on a new connection, and waits until it has arrived.
async fn arrived_refresh(mock: &MockCrossmint, secret: &str) -> Raw {
    let before = mock.calls(Endpoint::Refresh);
    let mut raw = Raw::connect(mock).await.unwrap();
    raw.send_refresh(mock, secret).await.unwrap();
    mock.called(Endpoint::Refresh, before + 1).await;
    raw
}
