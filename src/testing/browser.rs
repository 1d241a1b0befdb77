//! A browser that drives a service.

use std::{
    error::Error,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE},
    request::Parts,
};
use http_body::Body;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tower::ServiceExt as _;
use tower_service::Service;

use super::{
    cookie_jar::{CookieJar, Initiator, is_same_site},
    mock_crossmint::MockCrossmint,
};
use crate::host;

/// A browser, as far as sessions depend on one: it keeps cookies, follows redirects, and tells the server where a
/// request comes from.
///
/// It shows one page. Every request, whatever its host, is sent to the same service, as if TLS ended at a proxy in
/// front of it. Paths are those of the application; URLs of other hosts can be given in their place.
///
/// - Cookies are stored and sent by the rules of RFC 6265bis for `Domain`, `Path`, `Secure`, `HttpOnly`, `SameSite`,
///   `Expires`, `Max-Age` and the prefixes of names. A missing `SameSite` is `Lax`. `Secure` cookies need `https`, on
///   `localhost` too, as in Safari.
/// - Requests have the `Origin` and `Sec-Fetch-*` headers of Chromium, and navigations its `Accept`.
/// - A site is a scheme and the last two labels of a host. There is no list of public suffixes such as `co.uk`.
/// - There is no CORS: no preflights, and scripts may read every response.
///
/// A clone is another tab: it shows a page of its own, and shares the cookies. All methods that send requests panic if
/// the service fails, if a URL is invalid, and after 20 redirects.
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_crossmint_auth::{
///     CookieOptions, CrossmintAuthLayer, Session,
///     testing::{Browser, MockCrossmint},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mock = MockCrossmint::start().await;
/// let config = mock.config().cookies(CookieOptions::hardened()).build()?;
/// let app = Router::new()
///     .route("/me", get(|session: Session| async move { session.user_id().to_owned() }))
///     .layer(CrossmintAuthLayer::new(config));
///
/// let mut browser = Browser::new(app, "https://app.example.com");
/// assert_eq!(browser.open("/me").await.status(), 401);
/// browser.sign_in(&mock, "alice").await;
/// assert_eq!(browser.open("/me").await.text(), "alice");
/// assert!(!browser.document_cookie().contains("refresh-token"), "it is HttpOnly");
/// // Strict cookies do not come along when another site links here.
/// assert_eq!(browser.follow_link_from("https://other.example", "/me").await.status(), 401);
/// // The JWT's cookie ends when the browser is closed. The next day, the session is refreshed.
/// browser.restart();
/// assert_eq!(browser.open("/me").await.text(), "alice");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Browser {
    call: Arc<Call>,
    jar: Arc<Mutex<CookieJar>>,
    /// The application's root page.
    home: Url,
    page: Url,
}

type Call = dyn Fn(Request<String>) -> BoxFuture<'static, Result<Response<Bytes>, BoxError>> + Send + Sync;
type BoxError = Box<dyn Error + Send + Sync>;

impl Browser {
    /// Opens a browser without cookies. `origin` is where it finds the application, such as `https://app.example.com`.
    ///
    /// # Panics
    ///
    /// Panics if `origin` is not an `http` or `https` origin.
    pub fn new<S, B>(service: S, origin: &str) -> Self
    where
        S: Service<Request<String>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let call = move |request| {
            let response = service.clone().oneshot(request);
            Box::pin(async move {
                let (head, body) = response.await.map_err(Into::into)?.into_parts();
                let body = body.collect().await.map_err(Into::into)?;
                Ok(Response::from_parts(head, body.to_bytes()))
            }) as _
        };
        let home = parse_origin(origin);
        Self { call: Arc::new(call), jar: Arc::default(), page: home.clone(), home }
    }

    /// Opens a browser without cookies, whose requests are sent to a server that speaks HTTP/1.1 without TLS.
    ///
    /// # Panics
    ///
    /// Panics like [`new`](Self::new).
    #[must_use]
    pub fn connect(server: SocketAddr, origin: &str) -> Self {
        Self::new(tower::service_fn(move |request| exchange(server, request)), origin)
    }

    /// Types an address. Follows redirects within the application.
    pub async fn open(&mut self, path: &str) -> Page {
        self.navigate(None, path, Request::default()).await
    }

    /// Follows a link on the page, and redirects.
    pub async fn click(&mut self, path: &str) -> Page {
        self.navigate(Some(self.page.clone()), path, Request::default()).await
    }

    /// Posts a form (`name=value&...`) of the page. Follows redirects.
    pub async fn submit(&mut self, path: &str, form: &str) -> Page {
        let request = post("application/x-www-form-urlencoded", form.to_owned());
        self.navigate(Some(self.page.clone()), path, request).await
    }

    /// Sends a request with a JSON body, if any, from a script of the page, with its cookies. Does not follow
    /// redirects.
    ///
    /// Requests of one page can be in flight at the same time:
    ///
    /// ```
    /// # use http::Method;
    /// # use tower_crossmint_auth::testing::Browser;
    /// # async fn example(browser: &Browser) {
    /// let fetch = |path| browser.fetch(Method::GET, path, None);
    /// let (orders, wallets) = tokio::join!(fetch("/orders"), fetch("/wallets"));
    /// # }
    /// ```
    pub async fn fetch(&self, method: Method, path: &str, body: Option<Value>) -> Page {
        let mut request = body.map_or_else(Request::default, |body| post("application/json", body.to_string()));
        *request.method_mut() = method;
        self.send(Some(&self.page), self.resolve(path), Mode::Fetch, request).await.1
    }

    /// Follows a link on a page of another site.
    pub async fn follow_link_from(&mut self, origin: &str, path: &str) -> Page {
        self.show(origin);
        self.click(path).await
    }

    /// Posts a form of a page of another site, which needs no click.
    pub async fn submit_from(&mut self, origin: &str, path: &str, form: &str) -> Page {
        self.show(origin);
        self.submit(path, form).await
    }

    /// Shows a page without loading it, such as one of another site whose scripts then send requests.
    pub fn show(&mut self, url: &str) {
        self.page = self.resolve(url);
    }

    /// Completes a login as the browser SDK does: posts a one-time secret to the default refresh route.
    ///
    /// For another route, [`fetch`](Self::fetch) it with `{"refresh": <secret>}`.
    ///
    /// # Panics
    ///
    /// Panics if the route does not answer with 200.
    pub async fn sign_in(&self, mock: &MockCrossmint, user_id: &str) {
        let body = json!({ "refresh": mock.one_time_secret(user_id) }).to_string();
        let (request, url) = (post("application/json", body), self.resolve("/api/auth/refresh"));
        let page = self.send(Some(&self.home), url, Mode::Fetch, request).await.1;
        assert_eq!(page.status(), 200, "the refresh route refuses a one-time secret: {}", page.text());
    }

    /// Closes the browser and opens it again, which deletes the cookies without an expiry date.
    pub fn restart(&self) {
        self.jar().end_session();
    }

    /// Handles a `Set-Cookie` header as if the response with the page had it.
    pub fn set_cookie(&self, set_cookie: &str) {
        self.jar().store(set_cookie, &self.page, Initiator::SameSite);
    }

    /// Returns the `Cookie` header of a request for the page, which is empty without cookies.
    #[must_use]
    pub fn cookies(&self) -> String {
        self.jar().header(&self.page, Initiator::SameSite)
    }

    /// Returns the value of the cookie that the application's root page gets, if there is one of this name.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<String> {
        let cookies = self.jar().header(&self.home, Initiator::SameSite);
        cookies.split("; ").find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(ToOwned::to_owned))
    }

    /// Returns the cookies that scripts on the page can read: those that are not `HttpOnly`.
    #[must_use]
    pub fn document_cookie(&self) -> String {
        self.jar().document(&self.page)
    }

    async fn navigate(&mut self, from: Option<Url>, path: &str, request: Request<String>) -> Page {
        let (url, page) = self.send(from.as_ref(), self.resolve(path), Mode::Navigate, request).await;
        self.page = url;
        page
    }

    /// Sends a request and follows redirects. Returns the last URL and its response.
    async fn send(&self, from: Option<&Url>, mut url: Url, mode: Mode, request: Request<String>) -> (Url, Page) {
        let (mut head, mut body) = request.into_parts();
        let mut relation = Relation::None;
        for _ in 0..=MAX_REDIRECTS {
            relation = relation.max(Relation::between(from, &url));
            let initiator = match mode {
                _ if from.is_none_or(|from| is_same_site(from, &url)) => Initiator::SameSite,
                Mode::Navigate if head.method.is_safe() => Initiator::Link,
                Mode::Navigate => Initiator::Form,
                Mode::Fetch => Initiator::Subresource,
            };
            let cookies = self.jar().header(&url, initiator);
            describe(&mut head, &url, from, relation, mode, cookies);
            let request = Request::from_parts(head.clone(), body.clone());
            let response = (self.call)(request).await.unwrap_or_else(|error| panic!("{url}: {error}"));
            for field in response.headers().get_all(SET_COOKIE) {
                if let Ok(field) = std::str::from_utf8(field.as_bytes()) {
                    self.jar().store(field, &url, initiator);
                }
            }
            let target = redirect(&response, &url).filter(|target| target.origin() == self.home.origin());
            let Some(target) = target.filter(|_| mode == Mode::Navigate) else {
                let path = head.uri.to_string();
                return (url, Page { path, response });
            };
            url = target;
            let becomes_get = match response.status() {
                StatusCode::SEE_OTHER => head.method != Method::HEAD,
                StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => head.method == Method::POST,
                _ => false,
            };
            if becomes_get {
                (head.method, body) = (Method::GET, String::new());
                head.headers.remove(CONTENT_TYPE);
            }
        }
        panic!("{url}: more than {MAX_REDIRECTS} redirects")
    }

    fn resolve(&self, url: &str) -> Url {
        let resolved = self.home.join(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert!(resolved.has_host(), "{url}: a browser needs a host");
        resolved
    }

    fn jar(&self) -> MutexGuard<'_, CookieJar> {
        self.jar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser").field("page", &self.page.as_str()).finish_non_exhaustive()
    }
}

/// What a [`Browser`] gets for a request.
#[derive(Debug)]
pub struct Page {
    path: String,
    response: Response<Bytes>,
}

impl Page {
    /// Returns the path and query of the page, after redirects.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Returns the header fields of the response.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Returns the body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.response.body()).into_owned()
    }
}

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Navigate,
    Fetch,
}

/// The values of `Sec-Fetch-Site`. After redirects, the last one of the URLs counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Relation {
    None,
    SameOrigin,
    SameSite,
    CrossSite,
}

impl Relation {
    fn between(from: Option<&Url>, to: &Url) -> Self {
        match from {
            None => Self::None,
            Some(from) if from.origin() == to.origin() => Self::SameOrigin,
            Some(from) if is_same_site(from, to) => Self::SameSite,
            Some(_) => Self::CrossSite,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SameOrigin => "same-origin",
            Self::SameSite => "same-site",
            Self::CrossSite => "cross-site",
        }
    }
}

/// Sets the URL of a request, and the headers that browsers add.
fn describe(head: &mut Parts, url: &Url, from: Option<&Url>, relation: Relation, mode: Mode, cookies: String) {
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    head.uri = format!("{}{query}", url.path()).parse().expect("the path of a URL is one of a URI");
    let is_navigation = mode == Mode::Navigate;
    // `fetch` sends it to other origins whatever the method is (Fetch standard, section 3.2).
    let sends_origin = !head.method.is_safe() || (!is_navigation && relation > Relation::SameOrigin);
    let origin = from.filter(|_| sends_origin).map(|from| from.origin().ascii_serialization());
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    set(&mut head.headers, HOST, Some(format!("{}{port}", url.host_str().unwrap_or_default())));
    set(&mut head.headers, COOKIE, Some(cookies).filter(|cookies| !cookies.is_empty()));
    set(&mut head.headers, ORIGIN, origin);
    let (mode, destination) = if is_navigation { ("navigate", "document") } else { ("cors", "empty") };
    let user = is_navigation.then_some("?1");
    // Sent to secure URLs only (Fetch Metadata, section 3).
    for (name, value) in [
        ("sec-fetch-site", Some(relation.name())),
        ("sec-fetch-mode", Some(mode)),
        ("sec-fetch-dest", Some(destination)),
        ("sec-fetch-user", user),
    ] {
        let value = value.filter(|_| is_trustworthy(url)).map(ToOwned::to_owned);
        set(&mut head.headers, HeaderName::from_static(name), value);
    }
    let accept = if is_navigation { "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8" } else { "*/*" };
    head.headers.entry(ACCEPT).or_insert(HeaderValue::from_static(accept));
}

fn post(content_type: &'static str, body: String) -> Request<String> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    request
}

fn parse_origin(text: &str) -> Url {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.unwrap_or_else(|| panic!("`{text}` is not an origin: write it like `https://app.example.com`"))
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<String>) {
    headers.remove(&name);
    if let Some(value) = value {
        headers.insert(name, value.parse().expect("URLs and cookies have no control characters"));
    }
}

/// Returns whether browsers treat a URL as secure (Secure Contexts, section 3.1).
fn is_trustworthy(url: &Url) -> bool {
    url.scheme() == "https" || host::is_loopback(url.host_str().unwrap_or_default())
}

/// Returns the URL that a response redirects to.
fn redirect(response: &Response<Bytes>, url: &Url) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    url.join(location).ok().filter(Url::has_host)
}

/// Sends a request on a connection of its own.
async fn exchange(server: SocketAddr, request: Request<String>) -> Result<Response<Incoming>, BoxError> {
    let socket = TcpStream::connect(server).await?;
    let (mut client, connection) = http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    Ok(client.send_request(request).await?)
}

/// As in the Fetch standard, section 4.4.
const MAX_REDIRECTS: usize = 20;
