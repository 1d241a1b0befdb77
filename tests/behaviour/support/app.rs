//! An application on loopback behind the layer.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Body,
    extract::Request,
    http::{Method, Response, StatusCode},
    routing::any,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_crossmint_auth::{
    AuthError, CrossmintAuth, CrossmintAuthConfigBuilder, CrossmintAuthLayer, RefreshToken, Session,
    testing::MockCrossmint,
};

use crate::support::answer::Answer;

/// An application on loopback, whose responses name the user of the request.
pub(crate) struct App {
    pub(crate) auth: CrossmintAuth,
    pub(crate) address: SocketAddr,
    pub(crate) client: reqwest::Client,
    router: Router,
    served: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<()>,
}

impl App {
    pub(crate) async fn serve(mock: &MockCrossmint) -> Self {
        Self::configured(mock, |config| config).await
    }

    pub(crate) async fn configured(
        mock: &MockCrossmint,
        configure: impl FnOnce(CrossmintAuthConfigBuilder) -> CrossmintAuthConfigBuilder,
    ) -> Self {
        Self::with(CrossmintAuth::new(configure(mock.config()).build().unwrap())).await
    }

    pub(crate) async fn with(auth: CrossmintAuth) -> Self {
        let served = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&served);
        let handler = move |session, request| {
            count.fetch_add(1, Ordering::Relaxed);
            who(session, request)
        };
        let mut app = Self::of(auth, Router::new().fallback(any(handler))).await;
        app.served = served;
        app
    }

    /// Serves another application behind the layer.
    pub(crate) async fn of(auth: CrossmintAuth, inner: Router) -> Self {
        let router = inner.layer(CrossmintAuthLayer::from(auth.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn({
            let router = router.clone();
            async move { axum::serve(listener, router).await.unwrap() }
        });
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
        Self { auth, address, client, router, served: Arc::default(), server }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str, cookie: impl AsRef<[u8]>) -> Answer {
        self.send(with_cookies(self.request(Method::GET, path), cookie.as_ref())).await
    }

    /// Posts JSON as the browser SDK does.
    pub(crate) async fn post(&self, path: &str, cookie: &str, body: &str) -> Answer {
        let request = with_cookies(self.request(Method::POST, path), cookie.as_bytes());
        self.send(request.header("content-type", "application/json").body(body.to_owned())).await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.text().await.unwrap() }
    }

    /// Calls the application without a connection, so that extensions are kept.
    pub(crate) async fn call(&self, request: Request) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Counts the requests that reached the inner service.
    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Answers with what the inner service sees. A query such as `?status=404` sets the status.
pub(crate) async fn who(session: Option<Session>, request: Request) -> (StatusCode, Json<Value>) {
    let status = request.uri().query().and_then(|query| query.strip_prefix("status=")?.parse().ok());
    let seen = json!({
        "path": request.uri().path(),
        "user": session.as_ref().map(Session::user_id),
        "jwt": session.as_ref().map(Session::jwt),
        "refreshToken": session.as_ref().and_then(Session::refresh_token).map(RefreshToken::secret),
        "error": request.extensions().get::<AuthError>().map(|error| format!("{:?}", error.kind())),
    });
    (status.unwrap_or_default(), Json(seen))
}

/// Adds a `Cookie` field for each line that is not empty.
fn with_cookies(request: reqwest::RequestBuilder, lines: &[u8]) -> reqwest::RequestBuilder {
    let fields = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    fields.fold(request, |request, field| request.header("cookie", field))
}
