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

/// A checked configuration, ready for [`CrossmintAuthLayer::new`](crate::CrossmintAuthLayer::new).
///
/// A clone is one reference count, and stands for the same handle: see [`CrossmintAuth::new`](crate::CrossmintAuth::new).
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
    /// An unusable key is reported by [`build`](CrossmintAuthConfigBuilder::build).
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

/// Collects the options of a [`CrossmintAuthConfig`]. Each has a default.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct CrossmintAuthConfigBuilder {
    api_key: Result<ApiKey, ConfigError>,
    settings: Settings,
}

impl CrossmintAuthConfigBuilder {
    /// Sets where Crossmint is. The default follows from the API key's environment.
    ///
    /// `https`, or `http` on loopback: the API key and every refresh token travel there.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.settings.base_url = Some(url.into());
        self
    }

    /// Sets the path at which the browser SDK renews a session. The default is `/api/auth/refresh`.
    ///
    /// The layer answers it, and the inner service never sees it. In axum, the request has to reach the layer: see the
    /// README on public and protected routes. Matching is byte by byte, without the query.
    pub fn refresh_route(mut self, path: impl Into<String>) -> Self {
        self.settings.refresh_route = path.into();
        self
    }

    /// Sets the path at which the browser SDK signs out. The default is `/api/auth/logout`.
    pub fn logout_route(mut self, path: impl Into<String>) -> Self {
        self.settings.logout_route = path.into();
        self
    }

    /// Sets the attributes of the two cookies. The default is [`CookieOptions::default`], Crossmint's documented one;
    /// production wants [`CookieOptions::hardened`].
    pub fn cookies(mut self, options: CookieOptions) -> Self {
        self.settings.cookies = options;
        self
    }

    /// Sets the names of the two cookies. The default is [`CookieNames::Scoped`].
    pub fn cookie_names(mut self, names: CookieNames) -> Self {
        self.settings.cookie_names = names;
        self
    }

    /// Sets the audience (`aud`) that a JWT must have. The default is the API key's project ID.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.settings.audience = Audience::Other(audience.into());
        self
    }

    /// Accepts JWTs for any audience.
    ///
    /// # Security
    ///
    /// Crossmint's projects may share signing keys: without this check, a user of any other project is let in.
    pub fn dangerous_accept_any_audience(mut self) -> Self {
        self.settings.audience = Audience::Any;
        self
    }

    /// Sets the issuer (`iss`) that a JWT must have, to the letter. Unchecked by default.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.settings.issuer = Some(issuer.into());
        self
    }

    /// Sets how far Crossmint's clock and this one may disagree, for `exp` and `nbf` alike. The default is 5 s, the
    /// maximum 300 s.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.settings.leeway = leeway;
        self
    }

    /// Sets what happens to a request without a session. The default is [`Unauthenticated::Reject`].
    pub fn unauthenticated(mut self, policy: Unauthenticated) -> Self {
        self.settings.unauthenticated = policy;
        self
    }

    /// Sets what happens to CORS preflights. The default is [`CorsPreflights::Pass`]; a gRPC server should use
    /// [`CorsPreflights::Reject`].
    pub fn cors_preflights(mut self, policy: CorsPreflights) -> Self {
        self.settings.cors_preflights = policy;
        self
    }

    /// Sets what happens to sessions while Crossmint is failing. The default is [`OutagePolicy::EndSession`].
    pub fn on_outage(mut self, policy: OutagePolicy) -> Self {
        self.settings.on_outage = policy;
        self
    }

    /// Sets whether the refresh route's body carries the refresh secret. The default is `true`, as documented by
    /// Crossmint.
    ///
    /// # Security
    ///
    /// With `true`, scripts see the secret at every refresh even if its cookie is `HttpOnly`. The browser SDK needs
    /// only the JWT and the user; it hands the rest to the `onTokenRefresh` callback of the page.
    pub fn expose_refresh_secret(mut self, expose: bool) -> Self {
        self.settings.expose_refresh_secret = expose;
        self
    }

    /// Sets which other origins may call the refresh and logout routes and open WebSockets, such as
    /// `https://app.example.com`. None by default.
    ///
    /// The site's own origin need not be listed, unless a proxy rewrites `Host`: `Sec-Fetch-Site` tells it and, in requests
    /// without that, an `Origin` with the request's host. Its scheme does not count (a proxy may terminate TLS), except
    /// that with [`Secure`](CookieOptions::secure) cookies an `http` origin is another site's, save on loopback. Origins
    /// in this list are compared as a whole, scheme and port included.
    pub fn trusted_origins<I>(mut self, origins: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.settings.trusted_origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how long a connection to Crossmint may take to open. The default is 2 s.
    ///
    /// Without effect on a client of your own ([`http_client`](Self::http_client)).
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.settings.connect_timeout = limit;
        self
    }

    /// Sets how long loading the key set may take, all told. The default is 5 s.
    pub fn keys_timeout(mut self, limit: Duration) -> Self {
        self.settings.keys_timeout = limit;
        self
    }

    /// Sets how long a request waits for a refresh (or a look-up of a user). The default is 10 s.
    ///
    /// An answer to a refresh that comes up to a quarter later is still kept, for the next request: it is the only copy
    /// of a good token.
    pub fn refresh_timeout(mut self, limit: Duration) -> Self {
        self.settings.refresh_timeout = limit;
        self
    }

    /// Sets how long a logout may take, waiting for others included. The default is 2 s.
    pub fn logout_timeout(mut self, limit: Duration) -> Self {
        self.settings.logout_timeout = limit;
        self
    }

    /// Sets how many refreshes may be under way at Crossmint at once. The default is 128.
    ///
    /// Eight times as many more wait for a place. Beyond that, and where no place has become free for a tenth of
    /// [`refresh_timeout`](Self::refresh_timeout) (but at least 1 s), sessions that need a refresh are treated as in an outage
    /// ([`on_outage`](Self::on_outage)) at once. Valid sessions never wait.
    ///
    /// Logouts under way are limited to the same number, apart from the refreshes. Eight times as many more wait, no longer
    /// than [`logout_timeout`](Self::logout_timeout); further ones only clear the cookies. Each takes a few KiB, even when
    /// its client has gone.
    pub fn max_concurrent_refreshes(mut self, limit: usize) -> Self {
        self.settings.max_concurrent_refreshes = limit;
        self
    }

    /// Sets for how long a rotated refresh token still resolves to the session that replaced it. The default is 30 s, the
    /// maximum 300 s; zero switches it off.
    ///
    /// Requests that left the browser before the new cookies arrived are served from it: sending their token to Crossmint
    /// again would end the session. The period starts when the last response that carries the new cookies is on its way
    /// (its head, not the end of its body) or its client is gone, and ends 300 s after the first of them at the latest. It
    /// starts at once for a [`CrossmintAuth`](crate::CrossmintAuth) method, which cannot tell when its result arrives.
    ///
    /// A refresh token that no response has delivered is kept for an hour: its client was gone, it came too late, or the
    /// JWT beside it could not be used.
    pub fn rotation_grace(mut self, period: Duration) -> Self {
        self.settings.rotation_grace = period;
        self
    }

    /// Sets how much memory rotated refresh tokens may take during their grace period, in bytes. The default is 16 MiB,
    /// the minimum 64 KiB.
    ///
    /// A refresh takes about 6 KiB until its grace period has passed. Where they do not fit, the oldest keep only their
    /// token, about 1 KiB: a late request refreshes it once more. Where these do not fit either, the oldest are
    /// forgotten, which [`Stats::evicted_successors`](crate::Stats::evicted_successors) counts and a warning reports once
    /// a minute. The default suffices for about 500 refreshes a second.
    pub fn rotation_grace_bytes(mut self, bytes: usize) -> Self {
        self.settings.rotation_grace_bytes = bytes;
        self
    }

    /// Sets after how many refusals of different refresh tokens, without a success in between, a warning names the API
    /// key as a likely cause. The default is 10.
    ///
    /// Crossmint answers a revoked API key as it answers a dead session: every session that has to be refreshed ends.
    /// The warning is logged at most once a minute, and counted in
    /// [`Stats::refusal_runs`](crate::Stats::refusal_runs).
    pub fn refusal_warning(mut self, refusals: usize) -> Self {
        self.settings.refusal_warning = refusals;
        self
    }

    /// Sets how much memory verified tokens may take, in bytes. The default is 16 MiB, about 14 000 sessions; zero
    /// switches the cache off.
    pub fn token_cache_bytes(mut self, bytes: usize) -> Self {
        self.settings.token_cache_bytes = bytes;
        self
    }

    /// Sets the HTTP client (of reqwest 0.13), for a proxy or a private certificate authority.
    ///
    /// The built-in one follows no redirects, uses no proxy, decompresses nothing and closes connections that have been
    /// idle for 15 s.
    ///
    /// Your own should close idle connections (`pool_idle_timeout`) well before Crossmint or a proxy does: a refresh on a
    /// connection that is being closed fails, and cannot be tried again because the token may be spent. reqwest's default
    /// of 90 s is longer than many load balancers wait.
    ///
    /// # Security
    ///
    /// Your own should not follow redirects either: one that does re-posts refresh tokens and the API key wherever it is
    /// sent. Nor should it have a cookie store: it would send cookies that Crossmint has set for one user with the refresh
    /// of another.
    #[cfg(feature = "http-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http-client")))]
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.settings.http_client = Some(client);
        self
    }

    /// Checks all options.
    ///
    /// # Errors
    ///
    /// The first option with a value that cannot work: its name, the value (if it is no secret) and what to do about it.
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
