//! A browser, as far as cookies are concerned.

use std::{fmt, net::IpAddr};

use bytes::Bytes;
use cookie::{Cookie, SameSite, time::OffsetDateTime};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE},
};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use reqwest::Url;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_service::Service;

use super::mock_crossmint::MockCrossmint;

/// A browser with a cookie jar, which shows one application.
///
/// It calls the application in process, keeps cookies by the rules of RFC 6265bis (`Domain`, `Path`, `Secure`,
/// `SameSite`, name prefixes, expiry), and sends the Fetch Metadata and `Origin` headers of Chromium. Sites are told by
/// the last two labels of a host, without a list of public suffixes.
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
/// // Strict cookies do not come along when another site links here.
/// assert_eq!(browser.follow_link_from("https://other.example", "/me").await.status(), 401);
/// # Ok(())
/// # }
/// ```
pub struct Browser<S> {
    service: S,
    origin: Url,
    jar: Vec<Kept>,
}

/// A cookie in the jar.
struct Kept {
    cookie: Cookie<'static>,
    domain: String,
    is_host_only: bool,
    path: String,
}

/// How a request comes about.
#[derive(Clone, Copy)]
enum Cause<'a> {
    /// The user has typed the address.
    User,
    /// A link or a form on a page of this origin.
    Navigation(&'a Url),
    /// A script on a page of this origin.
    Script(&'a Url),
}

impl<S, B> Browser<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone,
    S::Error: fmt::Debug,
    B: Body,
    B::Error: fmt::Debug,
{
    /// Creates a browser without cookies. `origin` is where it finds the application, such as
    /// `https://app.example.com`.
    ///
    /// # Panics
    ///
    /// Panics if `origin` is not an `http` or `https` origin. Its other methods panic if the application does not
    /// answer.
    pub fn new(service: S, origin: &str) -> Self {
        Self { service, origin: parse_origin(origin), jar: Vec::new() }
    }

    /// Types an address: a path of the application. Follows redirects.
    pub async fn open(&mut self, path: &str) -> Page {
        self.request(Cause::User, Method::GET, path, None).await
    }

    /// Follows a link on a page of the application.
    pub async fn click(&mut self, path: &str) -> Page {
        let origin = self.origin.clone();
        self.request(Cause::Navigation(&origin), Method::GET, path, None).await
    }

    /// Posts a form (`name=value&...`) of a page of the application.
    pub async fn submit(&mut self, path: &str, form: &str) -> Page {
        let origin = self.origin.clone();
        self.request(Cause::Navigation(&origin), Method::POST, path, Some((FORM, form.to_owned()))).await
    }

    /// Sends a request with a JSON body, if any, from a script of the application. Does not follow redirects.
    pub async fn fetch(&mut self, method: Method, path: &str, body: Option<Value>) -> Page {
        let origin = self.origin.clone();
        let body = body.map(|body| ("application/json", body.to_string()));
        self.request(Cause::Script(&origin), method, path, body).await
    }

    /// Follows a link on a page of another site.
    pub async fn follow_link_from(&mut self, origin: &str, path: &str) -> Page {
        self.request(Cause::Navigation(&parse_origin(origin)), Method::GET, path, None).await
    }

    /// Posts a form of a page of another site, which needs no click.
    pub async fn submit_from(&mut self, origin: &str, path: &str, form: &str) -> Page {
        let body = Some((FORM, form.to_owned()));
        self.request(Cause::Navigation(&parse_origin(origin)), Method::POST, path, body).await
    }

    /// Completes a login as the browser SDK does: posts a one-time secret to the default refresh route.
    ///
    /// # Panics
    ///
    /// Panics if the route does not answer with 200.
    pub async fn sign_in(&mut self, mock: &MockCrossmint, user_id: &str) {
        let body = json!({ "refresh": mock.one_time_secret(user_id) });
        let page = self.fetch(Method::POST, "/api/auth/refresh", Some(body)).await;
        assert_eq!(page.status(), 200, "the refresh route refuses a one-time secret: {}", page.text());
    }

    /// Returns the value of the cookie that the application's root page gets, if there is one of this name.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let kept =
            self.jar.iter().find(|kept| kept.cookie.name() == name && self.is_sent(kept, "/", Cause::User, true));
        kept.map(|kept| kept.cookie.value())
    }

    async fn request(
        &mut self,
        cause: Cause<'_>,
        mut method: Method,
        path: &str,
        mut body: Option<(&'static str, String)>,
    ) -> Page {
        let mut path = path.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let request = self.build(cause, &method, &path, body.as_ref());
            let response = self.service.clone().oneshot(request).await.expect("the application answers");
            let (head, content) = response.into_parts();
            let content = content.collect().await.expect("the response has a body").to_bytes();
            for field in head.headers.get_all(SET_COOKIE).iter().filter_map(|field| field.to_str().ok()) {
                self.keep(field, &path, cause);
            }
            let location = head.headers.get(LOCATION).and_then(|location| location.to_str().ok());
            let target = location.filter(|_| head.status.is_redirection() && !matches!(cause, Cause::Script(_)));
            let target = target.and_then(|target| self.origin.join(&path).ok()?.join(target).ok());
            let Some(target) = target.filter(|target| target.origin() == self.origin.origin()) else {
                return Page { path, status: head.status, headers: head.headers, content };
            };
            path =
                target.query().map_or_else(|| target.path().to_owned(), |query| format!("{}?{query}", target.path()));
            if !matches!(head.status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
                (method, body) = (Method::GET, None);
            }
        }
        panic!("the application redirects in a circle: {path}");
    }

    fn build(
        &self,
        cause: Cause<'_>,
        method: &Method,
        path: &str,
        body: Option<&(&'static str, String)>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from(body.map(|(_, text)| text.clone()).unwrap_or_default()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = path.parse().expect("the path is one");
        let headers = request.headers_mut();
        let mut set = |name: &'static str, value: &str| {
            headers.insert(name, HeaderValue::from_str(value).expect("the header's value is one"));
        };
        let authority =
            self.origin.port().map_or_else(|| host(&self.origin), |port| format!("{}:{port}", host(&self.origin)));
        set(HOST.as_str(), &authority);
        if let Some((content_type, _)) = body {
            set(CONTENT_TYPE.as_str(), content_type);
        }
        let (initiator, mode, destination, accept) = match cause {
            Cause::User => (None, "navigate", "document", HTML),
            Cause::Navigation(origin) => (Some(origin), "navigate", "document", HTML),
            Cause::Script(origin) => (Some(origin), "cors", "empty", "*/*"),
        };
        set(ACCEPT.as_str(), accept);
        let relation = initiator.map_or("none", |origin| self.relation(origin));
        // Fetch Metadata goes to trustworthy origins only.
        if self.is_trustworthy() {
            set("sec-fetch-site", relation);
            set("sec-fetch-mode", mode);
            set("sec-fetch-dest", destination);
        }
        if let Some(origin) = initiator.filter(|_| *method != Method::GET && *method != Method::HEAD) {
            set(ORIGIN.as_str(), &origin.origin().ascii_serialization());
        }
        let is_safe = *method == Method::GET || *method == Method::HEAD;
        let mut sent: Vec<&Kept> = self.jar.iter().filter(|kept| self.is_sent(kept, path, cause, is_safe)).collect();
        // RFC 6265bis section 5.7.3: longer paths first.
        sent.sort_by_key(|kept| std::cmp::Reverse(kept.path.len()));
        if !sent.is_empty() {
            let pairs: Vec<String> = sent.iter().map(|kept| kept.cookie.stripped().to_string()).collect();
            set(COOKIE.as_str(), &pairs.join("; "));
        }
        request
    }

    /// Keeps a cookie, or deletes it (RFC 6265bis section 5.6).
    fn keep(&mut self, field: &str, path: &str, cause: Cause<'_>) {
        let Ok(cookie) = Cookie::parse(field.to_owned()) else { return };
        let own = host(&self.origin);
        let domain = cookie.domain().map(|domain| domain.trim_start_matches('.').to_ascii_lowercase());
        let (name, secure) = (cookie.name(), cookie.secure() == Some(true));
        let same_site = cookie.same_site().unwrap_or(SameSite::Lax);
        let is_kept = domain.as_deref().is_none_or(|domain| is_under(&own, domain))
            && (!secure || self.is_trustworthy())
            && (secure || same_site != SameSite::None)
            && (secure || !(name.starts_with("__Secure-") || name.starts_with("__Host-")))
            && (!name.starts_with("__Host-") || (domain.is_none() && cookie.path() == Some("/")))
            && name.len() + cookie.value().len() <= 4096
            // A script of another site cannot set the cookies of this one.
            && (same_site == SameSite::None || !matches!(cause, Cause::Script(origin) if self.is_cross_site(origin)));
        if !is_kept {
            return;
        }
        let default_path = path.split('?').next().and_then(|path| path.rsplit_once('/')).map_or("", |(start, _)| start);
        let default_path = if default_path.is_empty() { "/" } else { default_path };
        let path = cookie.path().filter(|path| path.starts_with('/')).unwrap_or(default_path).to_owned();
        let kept =
            Kept { is_host_only: domain.is_none(), domain: domain.unwrap_or(own), path, cookie: cookie.into_owned() };
        let is_same = |other: &Kept| {
            (other.cookie.name(), &other.domain, &other.path, other.is_host_only)
                == (kept.cookie.name(), &kept.domain, &kept.path, kept.is_host_only)
        };
        self.jar.retain(|other| !is_same(other));
        let is_expired = kept.cookie.max_age().is_some_and(|age| !age.is_positive())
            || kept.cookie.expires_datetime().is_some_and(|date| date <= OffsetDateTime::now_utc());
        if !is_expired {
            self.jar.push(kept);
        }
    }

    fn is_sent(&self, kept: &Kept, path: &str, cause: Cause<'_>, is_safe: bool) -> bool {
        let own = host(&self.origin);
        let path = path.split('?').next().unwrap_or_default();
        let is_below = path == kept.path
            || path.strip_prefix(&*kept.path).is_some_and(|rest| kept.path.ends_with('/') || rest.starts_with('/'));
        let same_site = kept.cookie.same_site().unwrap_or(SameSite::Lax);
        let passes = match cause {
            Cause::User => true,
            Cause::Navigation(origin) | Cause::Script(origin) if !self.is_cross_site(origin) => true,
            Cause::Navigation(_) => same_site == SameSite::None || (same_site == SameSite::Lax && is_safe),
            Cause::Script(_) => same_site == SameSite::None,
        };
        let is_here = if kept.is_host_only { own == kept.domain } else { is_under(&own, &kept.domain) };
        is_here && is_below && passes && (kept.cookie.secure() != Some(true) || self.is_trustworthy())
    }

    /// Returns the value of `Sec-Fetch-Site` for a request from a page of `origin`.
    fn relation(&self, origin: &Url) -> &'static str {
        match (origin.origin() == self.origin.origin(), self.is_cross_site(origin)) {
            (true, _) => "same-origin",
            (false, false) => "same-site",
            (false, true) => "cross-site",
        }
    }

    fn is_cross_site(&self, origin: &Url) -> bool {
        (site(&host(origin)), origin.scheme()) != (site(&host(&self.origin)), self.origin.scheme())
    }

    /// Returns whether the origin counts as secure (Secure Contexts, section 3.1).
    fn is_trustworthy(&self) -> bool {
        let host = host(&self.origin);
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        self.origin.scheme() == "https" || is_under(&host, "localhost") || address.is_ok_and(|it| it.is_loopback())
    }
}

impl<S> fmt::Debug for Browser<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser").field("origin", &self.origin.as_str()).finish_non_exhaustive()
    }
}

/// What a [`Browser`] shows after a request.
#[derive(Debug)]
pub struct Page {
    path: String,
    status: StatusCode,
    headers: HeaderMap,
    content: Bytes,
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
        self.status.as_u16()
    }

    /// Returns the header fields of the response.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }
}

fn parse_origin(text: &str) -> Url {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.unwrap_or_else(|| panic!("`{text}` is not an origin: write it like `https://app.example.com`"))
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

fn is_under(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Returns the last two labels of a host.
fn site(host: &str) -> &str {
    let end = host.rfind('.').unwrap_or_default();
    host[..end].rfind('.').filter(|_| host.parse::<IpAddr>().is_err()).map_or(host, |dot| &host[dot + 1..])
}

const FORM: &str = "application/x-www-form-urlencoded";
const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const MAX_REDIRECTS: usize = 20;
