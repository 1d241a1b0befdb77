//! Every option of the layer, checked once.

mod api_key;
mod cookie_options;
mod from_env;
mod login_page;
mod path;
mod policy;
#[cfg(feature = "redis")]
mod redis_renewals;
mod shared_handle;

use std::{sync::Arc, time::Duration};

use reqwest::Url;

#[cfg(feature = "redis")]
pub(crate) use self::redis_renewals::Endpoint;
#[cfg(feature = "redis")]
pub use self::redis_renewals::{RedisRenewals, WhenUnreachable};
use self::shared_handle::SharedHandle;
pub use self::{
    api_key::{ApiKey, Environment, IntoApiKey, KeyOrigin},
    cookie_options::{CookieNames, CookieOptions, IntoDomain, SameSite},
    login_page::LoginPage,
    policy::{Bearer, CorsPreflights, OutagePolicy, Unauthenticated},
};
pub(crate) use self::{
    cookie_options::{NamePair, NamePairs, check_domain, has_prefix},
    path::{check_route, local_path},
    policy::Policies,
};
use crate::{error::ConfigError, host};

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
#[derive(Clone, Debug)]
pub struct CrossmintAuthConfig(Arc<Checked>);

/// The settings and everything derived from them. All clones of a configuration share it.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) settings: Settings,
    pub(crate) names: NamePairs,
    pub(crate) client: reqwest::Client,
    pub(crate) handle: SharedHandle,
}

/// Every option.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) api_key: ApiKey,
    pub(crate) base_url: String,
    pub(crate) refresh_route: String,
    pub(crate) logout_route: String,
    pub(crate) cookies: CookieOptions,
    cookie_names: CookieNames,
    /// If `None`, it is not checked. This also applies to the issuer.
    pub(crate) audience: Option<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) leeway: Duration,
    pub(crate) policies: Policies,
    pub(crate) after_logout: Option<String>,
    pub(crate) expose_refresh_secret: bool,
    pub(crate) trusted_origins: Vec<String>,
    /// `None` for the default, which other limits may undercut.
    connect_timeout: Option<Duration>,
    pub(crate) keys_timeout: Duration,
    pub(crate) refresh_timeout: Duration,
    pub(crate) logout_timeout: Duration,
    pub(crate) max_concurrent_refreshes: usize,
    pub(crate) rotation_grace: Duration,
    pub(crate) rotation_grace_bytes: usize,
    pub(crate) refusal_warning: usize,
    pub(crate) token_cache_bytes: usize,
    http_client: Option<reqwest::Client>,
    #[cfg(feature = "redis")]
    pub(crate) share_renewals: Option<RedisRenewals>,
}

impl CrossmintAuthConfig {
    /// Starts a configuration from an API key: a string, or an [`ApiKey`] that has been parsed already.
    ///
    /// An invalid key is reported by [`build`](CrossmintAuthConfigBuilder::build).
    pub fn builder(api_key: impl IntoApiKey) -> CrossmintAuthConfigBuilder {
        CrossmintAuthConfigBuilder(api_key.into_api_key().map(Settings::new))
    }

    pub(crate) fn checked(&self) -> &Checked {
        &self.0
    }
}

impl Settings {
    /// Returns the defaults.
    fn new(api_key: ApiKey) -> Self {
        Self {
            base_url: api_key.environment().base_url().to_owned(),
            refresh_route: "/api/auth/refresh".to_owned(),
            logout_route: "/api/auth/logout".to_owned(),
            cookies: CookieOptions::default(),
            cookie_names: CookieNames::default(),
            audience: Some(api_key.project_id().to_owned()),
            issuer: None,
            leeway: Duration::from_secs(5),
            policies: Policies::default(),
            after_logout: None,
            expose_refresh_secret: true,
            trusted_origins: Vec::new(),
            connect_timeout: None,
            keys_timeout: Duration::from_secs(5),
            refresh_timeout: Duration::from_secs(10),
            logout_timeout: Duration::from_secs(2),
            max_concurrent_refreshes: 128,
            rotation_grace: Duration::from_secs(30),
            rotation_grace_bytes: 16 << 20,
            refusal_warning: 10,
            token_cache_bytes: 16 << 20,
            http_client: None,
            #[cfg(feature = "redis")]
            share_renewals: None,
            api_key,
        }
    }

    /// Returns whether refreshes are shared with other handles, in this process or elsewhere.
    pub(crate) fn shares_renewals(&self) -> bool {
        #[cfg(feature = "redis")]
        return self.share_renewals.is_some();
        #[cfg(not(feature = "redis"))]
        false
    }
}

/// Collects the options of a [`CrossmintAuthConfig`].
///
/// Every option has a default. [`build`](Self::build) checks them all.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct CrossmintAuthConfigBuilder(Result<Settings, ConfigError>);

/// Defines a setter for each row: the option, the parameter, and the value that the option is set to.
macro_rules! setters {
    ($($(#[$attribute:meta])+ $option:ident($parameter:ident: $type:ty) = $value:expr $(, in $group:ident)?;)+) => {
        impl CrossmintAuthConfigBuilder {
            $($(#[$attribute])+
            pub fn $option(self, $parameter: $type) -> Self {
                self.set(|settings| settings$(.$group)?.$option = $value)
            })+
        }
    };
}

setters! {
    /// Sets the URL of Crossmint.
    ///
    /// The default follows from the API key's [`Environment`]. Set it to use a proxy, or a mock in tests. The URL must
    /// be `https`, or `http` on loopback, because the API key and every refresh token are sent to it.
    base_url(url: impl Into<String>) = url.into();

    /// Sets the path at which the browser SDK refreshes a session.
    ///
    /// The default is `/api/auth/refresh`. The layer answers requests for this path, which never reach the inner
    /// service. The path is compared byte by byte, without the query. In axum, requests for it must be routed through
    /// the layer: see [`docs::placement`](crate::docs::placement).
    refresh_route(path: impl Into<String>) = path.into();

    /// Sets the path at which the browser SDK signs out.
    ///
    /// The default is `/api/auth/logout`. The path is handled as that of [`refresh_route`](Self::refresh_route), and
    /// must differ from it.
    logout_route(path: impl Into<String>) = path.into();

    /// Sets the attributes of the two cookies.
    ///
    /// The default is [`CookieOptions::default`], which Crossmint documents and which suits development over plain
    /// HTTP. Use [`CookieOptions::hardened`] in production.
    cookies(options: CookieOptions) = options;

    /// Sets the names of the two cookies.
    ///
    /// The default is [`CookieNames::Scoped`], which the browser SDK expects.
    cookie_names(names: CookieNames) = names;

    /// Sets the audience that a JWT must be for (`aud`, RFC 7519 section 4.1.3).
    ///
    /// The default is the API key's project ID.
    audience(audience: impl Into<String>) = Some(audience.into());

    /// Sets the issuer that a JWT must be from (`iss`, RFC 7519 section 4.1.1), which is compared exactly.
    ///
    /// By default, the issuer is not checked.
    issuer(issuer: impl Into<String>) = Some(issuer.into());

    /// Sets the clock skew that is tolerated for `exp` and `nbf`.
    ///
    /// The default is 5 s, the maximum 300 s.
    leeway(leeway: Duration) = leeway;

    /// Sets what happens to a request without a session.
    ///
    /// The default is [`Unauthenticated::Reject`]. [`docs::rejections`](crate::docs::rejections) has examples of the
    /// others. A layer can [override](crate::CrossmintAuthLayer::unauthenticated) it, as it can the three that follow.
    unauthenticated(policy: Unauthenticated) = policy, in policies;

    /// Sets what happens to CORS preflights.
    ///
    /// The default is [`CorsPreflights::Pass`]. gRPC servers should set [`CorsPreflights::Reject`].
    cors_preflights(policy: CorsPreflights) = policy, in policies;

    /// Sets what happens to sessions that need a refresh while Crossmint is unavailable.
    ///
    /// The default is [`OutagePolicy::EndSession`], as in `@crossmint/server-sdk`. Set [`OutagePolicy::KeepSession`] so
    /// that an outage signs no one out.
    on_outage(policy: OutagePolicy) = policy, in policies;

    /// Sets whether a JWT in the `Authorization` header is accepted.
    ///
    /// The default is [`Bearer::Ignore`]. Set [`Bearer::Accept`] for mobile applications and services, which have no
    /// cookies.
    bearer(policy: Bearer) = policy, in policies;

    /// Sets the path, with or without a query, that a form's logout is redirected to with 303.
    ///
    /// By default, every logout is answered with 200, which a browser that has posted a form shows as an empty page.
    /// Requests of scripts, the browser SDK's included, always get 200.
    after_logout(path: impl Into<String>) = Some(path.into());

    /// Sets whether the body of the refresh route's response contains the refresh token.
    ///
    /// The default is `true`, as Crossmint documents. The browser SDK needs only the JWT and the user; it passes the
    /// rest to the page's `onTokenRefresh` callback.
    ///
    /// # Security
    ///
    /// With `true`, scripts see the refresh token at every refresh, even if its cookie is `HttpOnly`.
    expose_refresh_secret(expose: bool) = expose;

    /// Sets the time limit for opening a connection to Crossmint.
    ///
    /// The default is 2 s. It is part of the other limits, and cannot be longer than
    /// [`refresh_timeout`](Self::refresh_timeout). It has no effect on a client that is set with
    /// [`http_client`](Self::http_client).
    connect_timeout(limit: Duration) = Some(limit);

    /// Sets the time limit for loading the key set, from the connection to the end of the answer.
    ///
    /// The default is 5 s.
    keys_timeout(limit: Duration) = limit;

    /// Sets the time limit for a refresh, and for [`get_user`](crate::CrossmintAuth::get_user).
    ///
    /// The default is 10 s. An answer to a refresh that arrives up to a quarter later is kept for the client's next
    /// request, because it contains the only copy of the new refresh token.
    refresh_timeout(limit: Duration) = limit;

    /// Sets the time limit for a logout, including the time spent in the queue.
    ///
    /// The default is 2 s.
    logout_timeout(limit: Duration) = limit;

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
    max_concurrent_refreshes(limit: usize) = limit;

    /// Sets the grace period in which a rotated token still resolves to its successor.
    ///
    /// The default is 30 s, the maximum 300 s; zero switches the grace period off. Requests that left the browser
    /// before the new cookies arrived carry the rotated token. Sending it to Crossmint again would end the session.
    ///
    /// The grace period starts when the inner service has returned the last response that gets the new cookies, or its
    /// client has disconnected. It ends at the latest 300 s after the first such response. For methods of
    /// [`CrossmintAuth`](crate::CrossmintAuth), it starts when they return. A successor that no response has delivered
    /// is kept for an hour.
    ///
    /// # Security
    ///
    /// During the grace period, a stolen rotated token resolves to the live session. With a period of zero, parallel
    /// requests with one expired session end it.
    rotation_grace(period: Duration) = period;

    /// Sets the memory limit for rotated tokens and their successors, in bytes.
    ///
    /// The default is 16 MiB, enough for about 500 refreshes a second; the minimum is 64 KiB. A refresh takes about 6
    /// KiB until its grace period ends. If memory runs short, the oldest sessions are evicted and only their tokens
    /// kept, at about 1 KiB each: a late request then costs one more refresh. If that is not enough, the oldest tokens
    /// are evicted too, which ends the sessions of late requests.
    /// [`Stats::grace_evictions`](crate::Stats::grace_evictions) counts these evictions, and a warning reports them
    /// once a minute.
    rotation_grace_bytes(bytes: usize) = bytes;

    /// Sets the number of different refresh tokens that Crossmint must refuse in a row before a warning names the API
    /// key.
    ///
    /// The default is 10; the value must be between 1 and 100 000. Crossmint answers a revoked API key as it answers an
    /// ended session, so that every session that needs a refresh ends. The warning is logged at most once a minute;
    /// [`Stats::refusal_runs`](crate::Stats::refusal_runs) counts the runs.
    refusal_warning(refusals: usize) = refusals;

    /// Sets the memory limit of the cache of verified tokens, in bytes.
    ///
    /// The default is 16 MiB, about 14 000 sessions. Zero switches the cache off: every request then costs a signature
    /// check.
    token_cache_bytes(bytes: usize) = bytes;

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
    http_client(client: reqwest::Client) = Some(client);

    /// Shares refreshes with the other replicas of the server, through Redis or Valkey.
    ///
    /// By default, each process sees only its own refreshes, so that every browser has to be routed to the same one:
    /// see [`docs::operations`](crate::docs::operations#replicas). Requires a [`rotation_grace`](Self::rotation_grace)
    /// above zero.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    share_renewals(store: RedisRenewals) = Some(store);
}

impl CrossmintAuthConfigBuilder {
    /// Accepts JWTs for any audience.
    ///
    /// By default, `aud` must contain the API key's project ID.
    ///
    /// # Security
    ///
    /// Crossmint's projects may share signing keys. Without this check, users of every other project are let in.
    pub fn dangerous_accept_any_audience(self) -> Self {
        self.set(|settings| settings.audience = None)
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
    pub fn trusted_origins<I>(self, origins: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.set(|settings| settings.trusted_origins = origins.into_iter().map(Into::into).collect())
    }

    /// Checks all options. Makes no network calls.
    ///
    /// # Errors
    ///
    /// Returns the first option with a value that cannot work: its name, the value unless it is a secret, and what to
    /// change.
    pub fn build(self) -> Result<CrossmintAuthConfig, ConfigError> {
        let mut settings = self.0?;
        let project_id = settings.api_key.project_id();
        // Only `ApiKey::unverified` can have one that fails: Crossmint's are UUIDs.
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_cookie_name = (1..=128).contains(&project_id.len()) && project_id.bytes().all(is_legal);
        let why = format!("its project ID `{}` cannot be part of a cookie's name", project_id.escape_debug());
        ConfigError::ensure(is_cookie_name, "api_key", why)?;
        settings.base_url = parse_base_url(&settings.base_url, settings.api_key.environment())?;
        check_route("refresh_route", &settings.refresh_route)?;
        check_route("logout_route", &settings.logout_route)?;
        let why = format!("`{}` is the refresh route as well: give them two paths", settings.logout_route);
        ConfigError::ensure(settings.refresh_route != settings.logout_route, "logout_route", why)?;
        if let Some(path) = &settings.after_logout {
            let why = format!("`{}` is not a path of this site: write it like `/`", path.escape_debug());
            ConfigError::ensure(local_path(path).is_some(), "after_logout", why)?;
        }
        settings.cookies.check()?;
        let names = settings.cookie_names.resolve(settings.api_key.project_id(), &settings.cookies)?;
        let why = "it is empty: name one, or call `dangerous_accept_any_audience`";
        ConfigError::ensure(settings.audience.as_deref() != Some(""), "audience", why)?;
        let why = "it is empty: leave it out to accept any";
        ConfigError::ensure(settings.issuer.as_deref() != Some(""), "issuer", why)?;
        for origin in &mut settings.trusted_origins {
            *origin = parse_origin(origin)?;
        }
        for (option, value) in [("leeway", settings.leeway), ("rotation_grace", settings.rotation_grace)] {
            let why = format!("{value:?} is more than the maximum of {} s", MAX_PERIOD.as_secs());
            ConfigError::ensure(value <= MAX_PERIOD, option, why)?;
        }
        for (option, limit) in [
            ("connect_timeout", settings.connect_timeout.unwrap_or(CONNECT_TIMEOUT)),
            ("keys_timeout", settings.keys_timeout),
            ("refresh_timeout", settings.refresh_timeout),
            ("logout_timeout", settings.logout_timeout),
        ] {
            let why = "it is zero, and no call could ever succeed: make it longer";
            ConfigError::ensure(!limit.is_zero(), option, why)?;
        }
        if let Some(limit) = settings.connect_timeout {
            let why = format!("{limit:?} is longer than `refresh_timeout`, of which it is a part: shorten it");
            ConfigError::ensure(limit <= settings.refresh_timeout, "connect_timeout", why)?;
        }
        for (option, value, max) in [
            ("max_concurrent_refreshes", settings.max_concurrent_refreshes, MAX_CONCURRENCY),
            ("refusal_warning", settings.refusal_warning, MAX_REFUSAL_RUN),
        ] {
            ConfigError::ensure((1..=max).contains(&value), option, format!("{value} is not between 1 and {max}"))?;
        }
        let bytes = settings.rotation_grace_bytes;
        let why = format!("{bytes} bytes are too few: use {MIN_GRACE_BYTES} at least");
        ConfigError::ensure(bytes >= MIN_GRACE_BYTES, "rotation_grace_bytes", why)?;
        #[cfg(feature = "redis")]
        if let Some(store) = &mut settings.share_renewals {
            let why = "it is zero, and refreshes are shared: other replicas could not find a rotated token's successor";
            ConfigError::ensure(!settings.rotation_grace.is_zero(), "rotation_grace", why)?;
            store.check()?;
        }
        let connect_timeout = settings.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let client = settings.http_client.take().map_or_else(|| built_in_client(connect_timeout), Ok)?;
        warn_of_risks(&settings);
        Ok(CrossmintAuthConfig(Arc::new(Checked { settings, names, client, handle: SharedHandle::default() })))
    }

    /// Changes the settings. Does nothing if the API key is invalid: `build` reports it.
    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        if let Ok(settings) = &mut self.0 {
            change(settings);
        }
        self
    }
}

fn parse_base_url(text: &str, environment: Environment) -> Result<String, ConfigError> {
    let refuse = |why: &str| ConfigError::new("base_url", format!("`{}` {why}", text.escape_debug()));
    // Checked first: the other messages show the value, and a password must not be shown.
    ConfigError::ensure(!text.contains('@'), "base_url", "it contains a user name or password: leave them out")?;
    let url = Url::parse(text.trim_matches('/'))
        .map_err(|_| refuse("is not an absolute URL: write it like `https://www.crossmint.com`"))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("has a query or a fragment: leave it out"));
    }
    let host = url.host_str().unwrap_or_default();
    let on_loopback = host == "localhost" || host::address(host).is_some_and(|address| address.is_loopback());
    let is_private = url.scheme() == "https" || (url.scheme() == "http" && on_loopback);
    if !is_private {
        return Err(refuse("would send the API key in the clear: use https, or http on loopback"));
    }
    let served = Environment::of_host(host);
    if let Some(served) = served.filter(|served| *served != environment) {
        let (served, own) = (served.name(), environment.name());
        return Err(refuse(&format!("is Crossmint's {served} environment, and the API key is for {own}: change one")));
    }
    let is_of_api = |segment: &str| segment == ".well-known" || segment.starts_with("2024-");
    if url.path_segments().is_some_and(|mut segments| segments.any(is_of_api))
        || (served.is_some() && url.path() != "/")
    {
        return Err(refuse("has the path of an endpoint, which is added to it: leave the path out"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Returns the origin as browsers write it (RFC 6454 section 6.2).
fn parse_origin(text: &str) -> Result<String, ConfigError> {
    let why = "one contains a user name or password: leave them out";
    ConfigError::ensure(!text.contains('@'), "trusted_origins", why)?;
    let is_origin = |url: &Url| {
        let has_more = url.path() != "/" || url.query().is_some() || url.fragment().is_some();
        matches!(url.scheme(), "http" | "https") && !has_more && !text.contains('*')
    };
    let origin = Url::parse(text).ok().filter(is_origin).map(|url| url.origin().ascii_serialization());
    origin.ok_or_else(|| {
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
        // Other crates may enable reqwest's decompression, with which a small answer can become a large one.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        // A refresh that fails on a connection that is being closed cannot be retried: the token may be spent.
        .pool_idle_timeout(MAX_IDLE_TIME)
        .user_agent(concat!("tower-crossmint-auth/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| {
            let why = format!("the built-in client does not start ({error:?}): pass one of your own");
            ConfigError::new("http_client", why)
        })
}

fn warn_of_risks(settings: &Settings) {
    let Settings { api_key, cookies, trusted_origins, .. } = settings;
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
    if cookies.same_site != SameSite::None
        && let Some(origin) = trusted_origins.iter().find(|origin| !may_be_same_site(origin, cookies.domain.as_deref()))
    {
        tracing::warn!(
            origin,
            same_site = ?cookies.same_site,
            "a trusted origin seems to be on another site, from which browsers send no such cookies: use \
             `SameSite::None`, or set the cookies' domain if it is on the same site"
        );
    }
}

/// Returns whether an origin can be on the site of the cookies. Without a domain, only loopback is sure to be.
fn may_be_same_site(origin: &str, domain: Option<&str>) -> bool {
    let Some(host) = Url::parse(origin).ok().and_then(|url| url.host_str().map(ToOwned::to_owned)) else {
        return false;
    };
    let is_under = |domain: &str| host::domain_matches(&host, &domain.trim_start_matches('.').to_ascii_lowercase());
    host::is_loopback(&host) || domain.is_some_and(is_under)
}

/// The maximum of the leeway and of the grace period, during which an expired JWT or a rotated token still works.
const MAX_PERIOD: Duration = Duration::from_secs(300);
/// About ten refreshes: with less, tokens would be evicted before the requests in flight have arrived.
const MIN_GRACE_BYTES: usize = 64 << 10;
const MAX_REFUSAL_RUN: usize = 100_000;
const MAX_IDLE_CONNECTIONS: usize = 32;
/// Much shorter than the idle time-outs of load balancers, of which many are 60 s.
const MAX_IDLE_TIME: Duration = Duration::from_secs(15);
const MAX_CONCURRENCY: usize = 65_536;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
