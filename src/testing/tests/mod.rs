//! Tests of the mock itself, over its sockets.

mod connections;
mod endpoints;
mod faults;
mod holds;

use std::io;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Endpoint, MockCrossmint};

#[test]
fn handles_go_to_other_threads() {
    fn assert<T: Send + Sync + 'static>() {}
    assert::<MockCrossmint>();
    assert::<super::Hold>();
    assert::<super::Fault>();
}

const REFRESH: &str = "/api/2024-09-26/session/sdk/auth/refresh";
const LOGOUT: &str = "/api/2024-09-26/session/sdk/auth/logout";
const USER: &str = "/api/2024-09-26/sdk/auth/user/";
const KEYS: &str = "/.well-known/jwks.json";

fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.build().unwrap()
}

async fn post(mock: &MockCrossmint, path: &str, secret: &str) -> (StatusCode, Value) {
    let request = client().post(format!("{}{path}", mock.base_url())).header("x-api-key", mock.api_key());
    let response = request.json(&json!({ "refresh": secret })).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// Exchanges a refresh token that is good, and returns its successor.
async fn successor(mock: &MockCrossmint, secret: &str) -> String {
    let (status, answer) = post(mock, REFRESH, secret).await;
    assert_eq!(status, StatusCode::OK);
    answer["refresh"]["secret"].as_str().unwrap().to_owned()
}

async fn fetch(mock: &MockCrossmint, path: &str) -> reqwest::Response {
    let request = client().get(format!("{}{path}", mock.base_url())).header("x-api-key", mock.api_key());
    request.send().await.unwrap()
}

/// A connection that speaks HTTP/1.1 as bytes.
struct Raw(TcpStream);

impl Raw {
    async fn connect(mock: &MockCrossmint) -> io::Result<Self> {
        let address = mock.base_url().strip_prefix("http://").unwrap();
        Ok(Self(TcpStream::connect(address).await?))
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

    /// Reads the head and the body that its `content-length` announces.
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

    /// Reads whatever comes, and says how it ended.
    async fn receive_all(&mut self) -> (String, io::Result<()>) {
        let mut received = Vec::new();
        let ended = self.0.read_to_end(&mut received).await;
        (String::from_utf8_lossy(&received).into_owned(), ended.map(drop))
    }
}

/// Sends one refresh on a connection of its own, and waits until it has arrived.
async fn arrived_refresh(mock: &MockCrossmint, secret: &str) -> Raw {
    let before = mock.calls(Endpoint::Refresh);
    let mut raw = Raw::connect(mock).await.unwrap();
    raw.send_refresh(mock, secret).await.unwrap();
    mock.called(Endpoint::Refresh, before + 1).await;
    raw
}
