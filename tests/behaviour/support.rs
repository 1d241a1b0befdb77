//! A real server with the layer, and a client that shows all of an answer.

use std::net::SocketAddr;

use axum::{Json, Router, extract::Request, http::HeaderMap, routing::any};
use serde_json::{Value, json};
use tower_crossmint_auth::{CrossmintAuth, CrossmintAuthLayer, Session, testing::MockCrossmint};

/// An application on loopback. It says of each request who sent it.
pub(crate) struct App {
    pub(crate) auth: CrossmintAuth,
    pub(crate) address: SocketAddr,
    pub(crate) client: reqwest::Client,
    server: tokio::task::JoinHandle<()>,
}

impl App {
    pub(crate) async fn serve(mock: &MockCrossmint) -> Self {
        Self::with(CrossmintAuth::new(mock.config().build().unwrap())).await
    }

    pub(crate) async fn with(auth: CrossmintAuth) -> Self {
        let router = Router::new().fallback(any(who)).layer(CrossmintAuthLayer::from(auth.clone()));
        Self::of(auth, router).await
    }

    pub(crate) async fn of(auth: CrossmintAuth, router: Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
        Self { auth, address, client, server }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str, cookie: &str) -> Answer {
        self.send(self.client.get(self.url(path)).header("cookie", cookie)).await
    }

    /// Posts JSON as the browser SDK does.
    pub(crate) async fn post(&self, path: &str, cookie: &str, body: &str) -> Answer {
        let request = self.client.post(self.url(path)).header("cookie", cookie);
        self.send(request.header("content-type", "application/json").body(body.to_owned())).await
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.text().await.unwrap() }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) async fn who(session: Option<Session>, request: Request) -> Json<Value> {
    Json(json!({
        "path": request.uri().path(),
        "user": session.as_ref().map(|session| session.user_id().to_owned()),
        "refreshToken": session.as_ref().map(|session| session.refresh_token().secret().to_owned()),
    }))
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Returns the user that the inner service saw.
    pub(crate) fn user(&self) -> Option<String> {
        self.json()["user"].as_str().map(ToOwned::to_owned)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn set_cookie(&self) -> Vec<cookie::Cookie<'static>> {
        let fields = self.headers.get_all("set-cookie").iter();
        fields.map(|field| cookie::Cookie::parse(field.to_str().unwrap().to_owned()).unwrap()).collect()
    }

    /// Returns the `Cookie` header that a browser sends after this answer, if the answer sets cookies.
    pub(crate) fn cookie_header(&self) -> String {
        let pairs: Vec<String> = self.set_cookie().iter().map(|cookie| cookie.stripped().to_string()).collect();
        pairs.join("; ")
    }

    /// Tells whether the answer deletes exactly the cookies of these names.
    pub(crate) fn clears(&self, names: &[&str]) -> bool {
        let cookies = self.set_cookie();
        let epoch = cookie::time::OffsetDateTime::UNIX_EPOCH;
        cookies.iter().map(cookie::Cookie::name).collect::<Vec<_>>() == names
            && cookies.iter().all(|cookie| cookie.value().is_empty() && cookie.expires_datetime() == Some(epoch))
    }
}

pub(crate) const JWT: &str = "crossmint-jwt-mock-project";
pub(crate) const REFRESH: &str = "crossmint-refresh-token-mock-project";
