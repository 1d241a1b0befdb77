//! A real server with the layer, and a client that shows all of an answer.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, Response, StatusCode},
    routing::any,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_crossmint_auth::{
    AuthError, CrossmintAuth, CrossmintAuthConfigBuilder, CrossmintAuthLayer, Session,
    testing::{Endpoint, MockCrossmint, MockSession},
};

use crate::direct::pass;

/// An application on loopback. It says of each request who sent it.
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

    /// Serves an application of the test's own behind the layer.
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

    /// Calls the application without a connection: extensions do not travel over one.
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

/// Answers with what the inner service sees; with another status than 200 if the query says so: `?status=404`.
pub(crate) async fn who(session: Option<Session>, request: Request) -> (StatusCode, Json<Value>) {
    let status = request.uri().query().and_then(|query| query.strip_prefix("status=")?.parse().ok());
    let seen = json!({
        "path": request.uri().path(),
        "user": session.as_ref().map(Session::user_id),
        "jwt": session.as_ref().map(Session::jwt),
        "refreshToken": session.as_ref().map(|session| session.refresh_token().secret()),
        "error": request.extensions().get::<AuthError>().map(|error| format!("{:?}", error.kind())),
    });
    (status.unwrap_or_default(), Json(seen))
}

/// Adds a `Cookie` field for each line that is not empty.
fn with_cookies(request: reqwest::RequestBuilder, lines: &[u8]) -> reqwest::RequestBuilder {
    let fields = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    fields.fold(request, |request, field| request.header("cookie", field))
}

/// Counts the calls that Crossmint got for keys, refreshes and logouts.
pub(crate) fn calls(mock: &MockCrossmint) -> [usize; 3] {
    [Endpoint::Keys, Endpoint::Refresh, Endpoint::Logout].map(|endpoint| mock.calls(endpoint))
}

/// Lets a time limit pass as soon as a call has arrived that Crossmint does not answer.
pub(crate) async fn beyond(
    limit: Duration,
    mock: &MockCrossmint,
    endpoint: Endpoint,
    answer: impl Future<Output = Answer>,
) -> Answer {
    let call = mock.calls(endpoint) + 1;
    let clock = async {
        mock.called(endpoint, call).await;
        pass(limit).await;
    };
    tokio::join!(answer, clock).0
}

/// Signs a user in whose JWT has expired: their next request needs a renewal.
pub(crate) fn expired(mock: &MockCrossmint, user_id: &str) -> MockSession {
    mock.session(user_id).jwt_lifetime(-60).create()
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
        self.set_cookie_fields().map(|field| cookie::Cookie::parse(field.to_owned()).unwrap()).collect()
    }

    pub(crate) fn set_cookie_fields(&self) -> impl Iterator<Item = &str> {
        self.headers.get_all("set-cookie").iter().map(|field| field.to_str().unwrap())
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

    /// Tells whether the answer stores a pair of tokens in the two cookies.
    pub(crate) fn stores_a_session(&self) -> bool {
        let cookies = self.set_cookie();
        cookies.iter().map(cookie::Cookie::name).eq([JWT, REFRESH])
            && cookies.iter().all(|cookie| !cookie.value().is_empty())
    }

    #[track_caller]
    pub(crate) fn assert_status(&self, status: u16, case: &str) {
        assert_eq!(self.status, status, "{case}: {self:?}");
    }

    /// Asserts that a request was let through for a user, with no cookie touched.
    #[track_caller]
    pub(crate) fn assert_passed(&self, user: &str, case: &str) {
        assert_eq!((self.status, self.user().as_deref()), (200, Some(user)), "{case}");
        assert_eq!(self.set_cookie_fields().count(), 0, "{case}");
    }

    /// Asserts that a request was let through for a user whose session was renewed on the way.
    #[track_caller]
    pub(crate) fn assert_renewed(&self, user: &str, case: &str) {
        assert_eq!((self.status, self.user().as_deref()), (200, Some(user)), "{case}");
        assert!(self.stores_a_session(), "{case}: {self:?}");
        assert_eq!(self.header("cache-control"), "no-store", "{case}");
    }

    /// Asserts that a request was refused with 401, this message and both cookies cleared.
    #[track_caller]
    pub(crate) fn assert_ended(&self, message: &str, case: &str) {
        assert_eq!((self.status, &*self.body), (401, &*unauthorized(message)), "{case}");
        assert!(self.clears(&[JWT, REFRESH]), "{case}: {self:?}");
    }

    /// Asserts that a request was refused with this status, as JSON, and that the cookies stay as they are.
    #[track_caller]
    pub(crate) fn assert_refused_gently(&self, status: u16, message: &str, case: &str) {
        assert_eq!((self.status, self.json()["message"].as_str()), (status, Some(message)), "{case}");
        assert_eq!(self.set_cookie_fields().count(), 0, "{case}");
    }
}

/// Returns the body of a 401.
pub(crate) fn unauthorized(message: &str) -> String {
    format!(r#"{{"error":"Unauthorized","message":"{message}"}}"#)
}

pub(crate) const JWT: &str = "crossmint-jwt-mock-project";
pub(crate) const REFRESH: &str = "crossmint-refresh-token-mock-project";
pub(crate) const REFRESH_ROUTE: &str = "/api/auth/refresh";
pub(crate) const LOGOUT_ROUTE: &str = "/api/auth/logout";

pub(crate) const SIGN_IN: &str = "Please sign in";
pub(crate) const ENDED: &str = "The session has ended, please sign in again";
pub(crate) const TRY_LATER: &str = "The session could not be checked, please try again later";
