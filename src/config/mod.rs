//! Every option of the layer, checked once.

mod api_key;
mod cookie_options;
mod policy;
mod shared_handle;

use std::{fmt, sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use reqwest::Url;

pub(crate) use self::cookie_options::{NamePair, NamePairs, Unscoped, check_domain, has_prefix};
use self::shared_handle::SharedHandle;
pub use self::{
    api_key::{ApiKey, Environment, IntoApiKey, KeyOrigin},
    cookie_options::{CookieNames, CookieOptions, SameSite},
    policy::{CorsPreflights, OutagePolicy, Unauthenticated},
};
use crate::error::ConfigError;

/// A checked configuration, from which [`CrossmintAuthLayer::new`](crate::CrossmintAuthLayer::new) makes a layer.
///
/// Clones are cheap and share one handle and its caches: see [`CrossmintAuth::new`](crate::CrossmintAuth::new). All
/// options are listed in [`docs::options`](crate::docs::options).
///
/// ```
/// use tower_crossmint_auth::{ApiKey, CookieOptions, CrossmintAuthConfig, Environment};
///
/// # fn main() -> Result<(), tower_crossmint_auth::ConfigError> {
/// let key = ApiKey::unverified("my-project", Environment::Development);
/// let config = CrossmintAuthConfig::builder(key).cookies(CookieOptions::hardened()).build()?;
///
/// let error = CrossmintAuthConfig::builder("sk_live_123").build().unwrap_err();
/// assert!(error.to_string().contains("old format"));
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CrossmintAuthConfig(Arc<Checked>);

/// What all clones of a configuration share: the settings, and what follows from them.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) settings: Settings,
    pub(crate) api_key: ApiKey,
    pub(crate) base_url: String,
    pub(crate) names: NamePairs,
    pub(crate) client: reqwest::Client,
    pub(crate) handle: SharedHandle,
}

/// Every option.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The environment's, unless set.
    base_url: Option<String>,
    pub(crate) refresh_route: String,
    pub(crate) logout_route: String,
    pub(crate) cookies: CookieOptions,
    cookie_names: CookieNames,
    audience: Audience,
    pub(crate) issuer: Option<String>,
    pub(crate) leeway: Duration,
    pub(crate) unauthenticated: Unauthenticated,
    pub(crate) cors_preflights: CorsPreflights,
    pub(crate) on_outage: OutagePolicy,
    pub(crate) expose_refresh_secret: bool,
    pub(crate) trusted_origins: Vec<String>,
    connect_timeout: Duration,
    pub(crate) keys_timeout: Duration,
    pub(crate) refresh_timeout: Duration,
    pub(crate) logout_timeout: Duration,
    pub(crate) max_concurrent_refreshes: usize,
    pub(crate) rotation_grace: Duration,
    pub(crate) rotation_grace_bytes: usize,
    pub(crate) refusal_warning: usize,
    pub(crate) token_cache_bytes: usize,
    http_client: Option<reqwest::Client>,
}

impl CrossmintAuthConfig {
    /// Starts a configuration from an API key: a string, or an [`ApiKey`] that has been parsed already.
    ///
    /// An invalid key is reported by [`build`](CrossmintAuthConfigBuilder::build).
    pub fn builder(api_key: impl IntoApiKey) -> CrossmintAuthConfigBuilder {
        CrossmintAuthConfigBuilder { api_key: api_key.into_api_key(), settings: Settings::default() }
    }

    pub(crate) fn checked(&self) -> &Checked {
        &self.0
    }
}

impl fmt::Debug for CrossmintAuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checked { settings, api_key, .. } = &*self.0;
        f.debug_struct("CrossmintAuthConfig")
            .field("api_key", api_key)
            .field("settings", settings)
            .finish_non_exhaustive()
    }
}

impl Checked {
    /// Returns the `aud` that a JWT must have.
    pub(crate) fn audience(&self) -> Option<&str> {
        match &self.settings.audience {
            Audience::Project => Some(self.api_key.project_id()),
            Audience::Other(audience) => Some(audience),
            Audience::Any => None,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            base_url: None,
            refresh_route: "/api/auth/refresh".to_owned(),
            logout_route: "/api/auth/logout".to_owned(),
            cookies: CookieOptions::default(),
            cookie_names: CookieNames::default(),
            audience: Audience::Project,
            issuer: None,
            leeway: Duration::from_secs(5),
            unauthenticated: Unauthenticated::default(),
            cors_preflights: CorsPreflights::default(),
            on_outage: OutagePolicy::default(),
            expose_refresh_secret: true,
            trusted_origins: Vec::new(),
            connect_timeout: Duration::from_secs(2),
            keys_timeout: Duration::from_secs(5),
            refresh_timeout: Duration::from_secs(10),
            logout_timeout: Duration::from_secs(2),
            max_concurrent_refreshes: 128,
            rotation_grace: Duration::from_secs(30),
            rotation_grace_bytes: 16 << 20,
            refusal_warning: 10,
            token_cache_bytes: 16 << 20,
            http_client: None,
        }
    }
}

/// Collects the options of a [`CrossmintAuthConfig`].
///
/// Every option has a default. [`build`](Self::build) checks them all.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct CrossmintAuthConfigBuilder {
    api_key: Result<ApiKey, ConfigError>,
    settings: Settings,
}

impl CrossmintAuthConfigBuilder {
    /// Sets the URL of Crossmint.
    ///
    /// The default follows from the API key's [`Environment`]. Set it to use a proxy, or a mock in tests. The URL must
    /// be `https`, or `http` on loopback, because the API key and every refresh token are sent to it.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.settings.base_url = Some(url.into());
        self
    }

    /// Sets the path at which the browser SDK refreshes a session.
    ///
    /// The default is `/api/auth/refresh`. The layer answers requests for this path, which never reach the inner
    /// service. The path is compared byte by byte, without the query. In axum, requests for it must be routed through
    /// the layer: see [`docs::placement`](crate::docs::placement).
    pub fn refresh_route(mut self, path: impl Into<String>) -> Self {
        self.settings.refresh_route = path.into();
        self
    }

    /// Sets the path at which the browser SDK signs out.
    ///
    /// The default is `/api/auth/logout`. The path is handled as that of [`refresh_route`](Self::refresh_route), and
    /// must differ from it.
    pub fn logout_route(mut self, path: impl Into<String>) -> Self {
        self.settings.logout_route = path.into();
        self
    }

    /// Sets the attributes of the two cookies.
    ///
    /// The default is [`CookieOptions::default`], which Crossmint documents and which suits development over plain
    /// HTTP. Use [`CookieOptions::hardened`] in production.
    pub fn cookies(mut self, options: CookieOptions) -> Self {
        self.settings.cookies = options;
        self
    }

    /// Sets the names of the two cookies.
    ///
    /// The default is [`CookieNames::Scoped`], which the browser SDK expects.
    pub fn cookie_names(mut self, names: CookieNames) -> Self {
        self.settings.cookie_names = names;
        self
    }

    /// Sets the audience that a JWT must be for (`aud`, RFC 7519 section 4.1.3).
    ///
    /// The default is the API key's project ID.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.settings.audience = Audience::Other(audience.into());
        self
    }

    /// Accepts JWTs for any audience.
    ///
    /// By default, `aud` must contain the API key's project ID.
    ///
    /// # Security
    ///
    /// Crossmint's projects may share signing keys. Without this check, users of every other project are let in.
    pub fn dangerous_accept_any_audience(mut self) -> Self {
        self.settings.audience = Audience::Any;
        self
    }

    /// Sets the issuer that a JWT must be from (`iss`, RFC 7519 section 4.1.1), which is compared exactly.
    ///
    /// By default, the issuer is not checked.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.settings.issuer = Some(issuer.into());
        self
    }

    /// Sets the clock skew that is tolerated for `exp` and `nbf`.
    ///
    /// The default is 5 s, the maximum 300 s.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.settings.leeway = leeway;
        self
    }

    /// Sets what happens to a request without a session.
    ///
    /// The default is [`Unauthenticated::Reject`]. [`docs::rejections`](crate::docs::rejections) has examples of the
    /// others.
    pub fn unauthenticated(mut self, policy: Unauthenticated) -> Self {
        self.settings.unauthenticated = policy;
        self
    }

    /// Sets what happens to CORS preflights.
    ///
    /// The default is [`CorsPreflights::Pass`]. gRPC servers should set [`CorsPreflights::Reject`].
    pub fn cors_preflights(mut self, policy: CorsPreflights) -> Self {
        self.settings.cors_preflights = policy;
        self
    }

    /// Sets what happens to sessions that need a refresh while Crossmint is unavailable.
    ///
    /// The default is [`OutagePolicy::EndSession`], as in `@crossmint/server-sdk`. Set [`OutagePolicy::KeepSession`] so
    /// that an outage signs no one out.
    pub fn on_outage(mut self, policy: OutagePolicy) -> Self {
        self.settings.on_outage = policy;
        self
    }

    /// Sets whether the body of the refresh route's response contains the refresh token.
    ///
    /// The default is `true`, as Crossmint documents. The browser SDK needs only the JWT and the user; it passes the
    /// rest to the page's `onTokenRefresh` callback.
    ///
    /// # Security
    ///
    /// With `true`, scripts see the refresh token at every refresh, even if its cookie is `HttpOnly`.
    pub fn expose_refresh_secret(mut self, expose: bool) -> Self {
        self.settings.expose_refresh_secret = expose;
        self
    }

    /// Sets the other origins that may call the refresh and logout routes and open WebSockets, such as
    /// `https://app.example.com`.
    ///
    /// The default is none. Origins are compared as a whole, including scheme and port.
    ///
    /// The site's own origin need not be listed: `Sec-Fetch-Site` identifies it, or, in requests without this header,
    /// an `Origin` with the request's host. List it if a proxy rewrites `Host`. The scheme of the site's own origin is
    /// not compared, because a proxy may terminate TLS; but with [`Secure`](CookieOptions::secure) cookies, an `http`
    /// origin counts as another site's, except on loopback.
    pub fn trusted_origins<I>(mut self, origins: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.settings.trusted_origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the time limit for opening a connection to Crossmint.
    ///
    /// The default is 2 s. It has no effect on a client that is set with [`http_client`](Self::http_client).
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.settings.connect_timeout = limit;
        self
    }

    /// Sets the time limit for loading the key set, from the connection to the end of the answer.
    ///
    /// The default is 5 s.
    pub fn keys_timeout(mut self, limit: Duration) -> Self {
        self.settings.keys_timeout = limit;
        self
    }

    /// Sets the time limit for a refresh, and for [`get_user`](crate::CrossmintAuth::get_user).
    ///
    /// The default is 10 s. An answer to a refresh that arrives up to a quarter later is kept for the client's next
    /// request, because it contains the only copy of the new refresh token.
    pub fn refresh_timeout(mut self, limit: Duration) -> Self {
        self.settings.refresh_timeout = limit;
        self
    }

    /// Sets the time limit for a logout, including the time spent in the queue.
    ///
    /// The default is 2 s.
    pub fn logout_timeout(mut self, limit: Duration) -> Self {
        self.settings.logout_timeout = limit;
        self
    }

    /// Sets the maximum number of refreshes in flight.
    ///
    /// The default is 128; the value must be between 1 and 65 536. Eight times as many requests wait in a queue.
    /// Requests beyond the queue are treated as in an outage ([`on_outage`](Self::on_outage)). So are all requests that
    /// need a refresh once no permit has been returned for a tenth of [`refresh_timeout`](Self::refresh_timeout), and
    /// at least 1 s: then a circuit breaker opens until Crossmint answers again. Requests with a valid JWT never wait.
    ///
    /// Logouts have the same number of permits and a queue of their own. A logout waits no longer than
    /// [`logout_timeout`](Self::logout_timeout); logouts beyond the queue only clear the cookies. Each call takes a few
    /// KiB, even after its client has disconnected.
    pub fn max_concurrent_refreshes(mut self, limit: usize) -> Self {
        self.settings.max_concurrent_refreshes = limit;
        self
    }

    /// Sets the grace period in which a rotated token still resolves to its successor.
    ///
    /// The default is 30 s, the maximum 300 s; zero switches the grace period off. Requests that left the browser
    /// before the new cookies arrived carry the rotated token. Sending it to Crossmint again would end the session.
    ///
    /// The grace period starts when the head of the last response with the new cookies has been sent, or the client has
    /// disconnected. It ends at the latest 300 s after the first such response. For methods of
    /// [`CrossmintAuth`](crate::CrossmintAuth), it starts when they return. A successor that no response has delivered
    /// is kept for an hour.
    ///
    /// # Security
    ///
    /// During the grace period, a stolen rotated token resolves to the live session. With a period of zero, parallel
    /// requests with one expired session end it.
    pub fn rotation_grace(mut self, period: Duration) -> Self {
        self.settings.rotation_grace = period;
        self
    }

    /// Sets the memory limit for rotated tokens and their successors, in bytes.
    ///
    /// The default is 16 MiB, enough for about 500 refreshes a second; the minimum is 64 KiB. A refresh takes about 6
    /// KiB until its grace period ends. If memory runs short, the oldest sessions are evicted and only their tokens
    /// kept, at about 1 KiB each: a late request then costs one more refresh. If that is not enough, the oldest tokens
    /// are evicted too, which ends the sessions of late requests.
    /// [`Stats::grace_evictions`](crate::Stats::grace_evictions) counts these evictions, and a warning reports them
    /// once a minute.
    pub fn rotation_grace_bytes(mut self, bytes: usize) -> Self {
        self.settings.rotation_grace_bytes = bytes;
        self
    }

    /// Sets the number of different refresh tokens that Crossmint must refuse in a row before a warning names the API
    /// key.
    ///
    /// The default is 10; the value must be between 1 and 100 000. Crossmint answers a revoked API key as it answers an
    /// ended session, so that every session that needs a refresh ends. The warning is logged at most once a minute;
    /// [`Stats::refusal_runs`](crate::Stats::refusal_runs) counts the runs.
    pub fn refusal_warning(mut self, refusals: usize) -> Self {
        self.settings.refusal_warning = refusals;
        self
    }

    /// Sets the memory limit of the cache of verified tokens, in bytes.
    ///
    /// The default is 16 MiB, about 14 000 sessions. Zero switches the cache off: every request then costs a signature
    /// check.
    pub fn token_cache_bytes(mut self, bytes: usize) -> Self {
        self.settings.token_cache_bytes = bytes;
        self
    }

    /// Sets the HTTP client, for a proxy or a private certificate authority.
    ///
    /// The built-in client follows no redirects, uses no proxy, decompresses nothing, and closes connections that have
    /// been idle for 15 s. [`docs::options`](crate::docs::options#the-http-client) has an example of a client of your
    /// own.
    ///
    /// Let it close idle connections (`pool_idle_timeout`) well before Crossmint or a proxy does. A refresh on a
    /// connection that is being closed fails and is not retried, because the token may be spent. reqwest's default of
    /// 90 s exceeds the idle time-out of many load balancers.
    ///
    /// # Security
    ///
    /// The client must not follow redirects, which would re-post the API key and refresh tokens to another host. It
    /// must not have a cookie store, which would send cookies that Crossmint has set for one user with the refresh of
    /// another.
    #[cfg(feature = "http-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http-client")))]
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.settings.http_client = Some(client);
        self
    }

    /// Checks all options. Makes no network calls.
    ///
    /// # Errors
    ///
    /// Returns the first option with a value that cannot work: its name, the value unless it is a secret, and what to
    /// change.
    pub fn build(self) -> Result<CrossmintAuthConfig, ConfigError> {
        let Self { api_key, mut settings } = self;
        let api_key = api_key?;
        check_project_id(api_key.project_id())?;
        let base_url = parse_base_url(settings.base_url.as_deref().unwrap_or(api_key.environment().base_url()))?;
        check_route("refresh_route", &settings.refresh_route)?;
        check_route("logout_route", &settings.logout_route)?;
        if settings.refresh_route == settings.logout_route {
            let why = format!("`{}` is the refresh route as well: give them two paths", settings.logout_route);
            return Err(ConfigError::new("logout_route", why));
        }
        settings.cookies.check()?;
        let names = settings.cookie_names.resolve(api_key.project_id(), &settings.cookies)?;
        if matches!(&settings.audience, Audience::Other(audience) if audience.is_empty()) {
            let why = "it is empty: name one, or call `dangerous_accept_any_audience`";
            return Err(ConfigError::new("audience", why));
        }
        if settings.issuer.as_deref() == Some("") {
            return Err(ConfigError::new("issuer", "it is empty: leave it out to accept any"));
        }
        for origin in &mut settings.trusted_origins {
            *origin = parse_origin(origin)?;
        }
        for (option, value) in [("leeway", settings.leeway), ("rotation_grace", settings.rotation_grace)] {
            if value > MAX_PERIOD {
                let why = format!("{value:?} is more than the maximum of {} s", MAX_PERIOD.as_secs());
                return Err(ConfigError::new(option, why));
            }
        }
        for (option, limit) in [
            ("connect_timeout", settings.connect_timeout),
            ("keys_timeout", settings.keys_timeout),
            ("refresh_timeout", settings.refresh_timeout),
            ("logout_timeout", settings.logout_timeout),
        ] {
            if limit.is_zero() {
                return Err(ConfigError::new(option, "it is zero, and no call could ever succeed: make it longer"));
            }
        }
        for (option, value, max) in [
            ("max_concurrent_refreshes", settings.max_concurrent_refreshes, MAX_CONCURRENCY),
            ("refusal_warning", settings.refusal_warning, MAX_REFUSAL_RUN),
        ] {
            if !(1..=max).contains(&value) {
                return Err(ConfigError::new(option, format!("{value} is not between 1 and {max}")));
            }
        }
        if settings.rotation_grace_bytes < MIN_GRACE_BYTES {
            let why = format!("{} bytes are too few: use {MIN_GRACE_BYTES} at least", settings.rotation_grace_bytes);
            return Err(ConfigError::new("rotation_grace_bytes", why));
        }
        let client = match settings.http_client.clone() {
            Some(client) => client,
            None => built_in_client(settings.connect_timeout)?,
        };
        warn_of_risks(&api_key, &settings.cookies);
        let handle = SharedHandle::default();
        Ok(CrossmintAuthConfig(Arc::new(Checked { settings, api_key, base_url, names, client, handle })))
    }
}

#[derive(Clone, Debug)]
enum Audience {
    Project,
    Other(String),
    Any,
}

/// Only [`ApiKey::unverified`] can hold one that fails: Crossmint's are UUIDs.
fn check_project_id(project_id: &str) -> Result<(), ConfigError> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if project_id.is_empty() || project_id.len() > 128 || !project_id.bytes().all(is_legal) {
        let why = format!("its project ID `{}` cannot be part of a cookie's name", project_id.escape_debug());
        return Err(ConfigError::new("api_key", why));
    }
    Ok(())
}

fn parse_base_url(text: &str) -> Result<String, ConfigError> {
    let refuse = |why: &str| Err(ConfigError::new("base_url", format!("`{}` {why}", text.escape_debug())));
    if text.contains('@') {
        return Err(ConfigError::new("base_url", "it contains a user name or password: leave them out"));
    }
    let Ok(url) = Url::parse(text.trim_matches('/')) else {
        return refuse("is not an absolute URL: write it like `https://www.crossmint.com`");
    };
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("has a query or a fragment: leave it out");
    }
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let on_loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if on_loopback => {}
        _ => return refuse("would send the API key in the clear: use https, or http on loopback"),
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

pub(crate) fn check_route(option: &'static str, path: &str) -> Result<(), ConfigError> {
    let is_path = path.starts_with('/')
        && path.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.query().is_none() && parsed.path() == path);
    if is_path {
        return Ok(());
    }
    let why = format!("`{}` is not a path: write it like `/api/auth/refresh`, without a query", path.escape_debug());
    Err(ConfigError::new(option, why))
}

/// Returns the origin as browsers write it (RFC 6454 section 6.2).
fn parse_origin(text: &str) -> Result<String, ConfigError> {
    if text.contains('@') {
        return Err(ConfigError::new("trusted_origins", "one contains a user name or password: leave them out"));
    }
    let normalized = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && !text.contains('*')
    });
    normalized.map(|url| url.origin().ascii_serialization()).ok_or_else(|| {
        let why = format!("`{}` is not an origin: write it like `https://app.example.com`", text.escape_debug());
        ConfigError::new("trusted_origins", why)
    })
}

fn built_in_client(connect_timeout: Duration) -> Result<reqwest::Client, ConfigError> {
    reqwest::Client::builder()
        .connect_timeout(connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        // Whatever features other crates turn on: a small answer must not become a large one.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        // A refresh must not meet a connection that the other side is about to close: it cannot be tried again.
        .pool_idle_timeout(MAX_IDLE_TIME)
        .user_agent(concat!("tower-crossmint-auth/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| {
            let why = format!("the built-in client does not start ({error:?}): pass one of your own");
            ConfigError::new("http_client", why)
        })
}

fn warn_of_risks(api_key: &ApiKey, cookies: &CookieOptions) {
    if api_key.origin() == KeyOrigin::Client {
        tracing::warn!("a client API key (`ck_...`) is in use: a server should have a server key (`sk_...`)");
    }
    if api_key.environment() == Environment::Production && !(cookies.secure && cookies.http_only) {
        tracing::warn!(
            secure = cookies.secure,
            http_only = cookies.http_only,
            "a production API key with weak cookies: use `CookieOptions::hardened()`"
        );
    }
}

const MAX_PERIOD: Duration = Duration::from_secs(300);
const MIN_GRACE_BYTES: usize = 64 << 10;
const MAX_REFUSAL_RUN: usize = 100_000;
const MAX_IDLE_CONNECTIONS: usize = 32;
const MAX_IDLE_TIME: Duration = Duration::from_secs(15);
const MAX_CONCURRENCY: usize = 65_536;
