//! All options, with their defaults.
//!
//! Options are methods of the builder that [`CrossmintAuthConfig::builder`] returns. [`build`] checks all of them and
//! makes no network calls. A value that cannot work is a [`ConfigError`]: it names the option, shows the value unless
//! it is a secret, and says what to change.
//!
//! ```
//! use tower_crossmint_auth::{ApiKey, CookieOptions, CrossmintAuthConfig, Environment, OutagePolicy};
//!
//! # fn main() -> Result<(), tower_crossmint_auth::ConfigError> {
//! # let api_key = ApiKey::unverified("my-project", Environment::Production);
//! let config = CrossmintAuthConfig::builder(api_key)
//!     .cookies(CookieOptions::hardened())     // HttpOnly, Secure, SameSite=Strict
//!     .expose_refresh_secret(false)           // scripts see the JWT only
//!     .on_outage(OutagePolicy::KeepSession)   // in an outage at Crossmint, the layer signs no one out
//!     .build()?;
//!
//! let error = CrossmintAuthConfig::builder(ApiKey::unverified("my-project", Environment::Production))
//!     .refresh_route("api/refresh")
//!     .build()
//!     .unwrap_err();
//! assert_eq!(error.option(), "refresh_route");
//! # let _ = config;
//! # Ok(())
//! # }
//! ```
//!
//! [`CrossmintAuthConfig::from_env`] starts from environment variables: `SERVER_CROSSMINT_API_KEY`, `COOKIE_DOMAIN` and
//! a few more. Where Crossmint's documentation has `secure: process.env.NODE_ENV === "production"`, set `COOKIE_SECURE`
//! to `false` for development, or write `.secure(!cfg!(debug_assertions))`.
//!
//! # Crossmint and the API key
//!
//! | option | default | meaning |
//! | --- | --- | --- |
//! | [`builder(api_key)`] | required | A server key (`sk_...`). A client key (`ck_...`) works too, with a warning. The signature and the project are checked locally. [`ApiKey::unverified`] creates a key for tests. |
//! | [`base_url`] | from the key's environment | The URL of Crossmint: `https`, or `http` on loopback. A development key selects `http://localhost:3000`. |
//!
//! # Routes and origins
//!
//! | option | default | meaning |
//! | --- | --- | --- |
//! | [`refresh_route`] | `/api/auth/refresh` | The path of the refresh route, compared byte by byte and without the query. |
//! | [`logout_route`] | `/api/auth/logout` | The path of the logout route, compared in the same way. |
//! | [`trusted_origins`] | none | Other origins that may call the two routes and open WebSockets. |
//! | [`after_logout`] | 200 | The path that a form's logout is redirected to with 303. Scripts always get 200. |
//! | [`expose_refresh_secret`] | `true` | Whether the refresh route's body contains `refreshToken.secret`. |
//!
//! # Cookies
//!
//! | option | default | meaning |
//! | --- | --- | --- |
//! | [`cookies`] | [`CookieOptions::default`]: no `HttpOnly`, no `Secure`, `SameSite=Lax`, no `Domain` | The attributes of both cookies. The default is the one that Crossmint documents; use [`CookieOptions::hardened`] in production. |
//! | [`cookie_names`] | [`CookieNames::Scoped`]: `crossmint-jwt-<project>` and `crossmint-refresh-token-<project>` | Where the scoped pair is absent, the unscoped pair is read, except with [`CookieNames::ScopedOnly`]. |
//!
//! # Verification of JWTs
//!
//! | option | default | meaning |
//! | --- | --- | --- |
//! | [`audience`] | the key's project ID | The value that `aud` must contain. [`dangerous_accept_any_audience`] switches the check off. |
//! | [`issuer`] | unchecked | The exact value of `iss`. |
//! | [`leeway`] | 5 s | The clock skew that is tolerated for `exp` and `nbf`; at most 300 s. |
//!
//! # Requests without a session
//!
//! [`rejections`](super::rejections) and [`api`](super::api) have examples of these options. Each layer can override
//! them: see [`CrossmintAuthLayer`](crate::CrossmintAuthLayer).
//!
//! | option | default | meaning |
//! | --- | --- | --- |
//! | [`unauthenticated`] | [`Unauthenticated::Reject`] | `AllowMissing` forwards requests without credentials; `Allow` forwards all requests and clears the cookies of ended sessions; `Redirect` sends page views to a [`LoginPage`](crate::LoginPage). |
//! | [`cors_preflights`] | [`CorsPreflights::Pass`] | `Reject` treats a preflight like any other request. Use it for gRPC servers, and where a CORS layer in front of this one answers preflights. |
//! | [`on_outage`] | [`OutagePolicy::EndSession`]: 401, cookies cleared | `KeepSession` answers 503 with `Retry-After` and keeps the cookies. The browser SDK needs [one setting more](super::spa#outages). |
//! | [`bearer`] | [`Bearer::Ignore`] | `Accept` takes a JWT from the `Authorization` header, without a refresh token. |
//!
//! # Time limits
//!
//! | option | default | meaning |
//! | --- | --- | --- |
//! | [`connect_timeout`] | 2 s | For opening a connection to Crossmint; not longer than `refresh_timeout`. Has no effect on a client passed to [`http_client`]. |
//! | [`keys_timeout`] | 5 s | For loading the key set. |
//! | [`refresh_timeout`] | 10 s | For a refresh, and for [`get_user`](crate::CrossmintAuth::get_user). |
//! | [`logout_timeout`] | 2 s | For a logout, including the time spent in the queue. |
//!
//! # Concurrency and memory
//!
//! [`operations`](super::operations) explains how to choose these values.
//!
//! | option | default | meaning |
//! | --- | --- | --- |
//! | [`max_concurrent_refreshes`] | 128 | The number of refreshes in flight. Eight times as many wait in a queue. Logouts have the same number of permits and a queue of their own. |
//! | [`rotation_grace`] | 30 s | How long a rotated token still resolves to its successor, counted from the last response that delivers the successor; at most 300 s. Zero switches the grace period off. |
//! | [`rotation_grace_bytes`] | 16 MiB | Memory for rotated tokens and their successors, enough for about 500 refreshes a second; at least 64 KiB. |
//! | [`token_cache_bytes`] | 16 MiB | Memory for verified JWTs, about 14 000 sessions. Zero switches the cache off. |
//! | [`refusal_warning`] | 10 | The number of different refresh tokens that Crossmint must refuse in a row before a warning names the API key. |
//!
//! # Replicas
//!
//! | option | default | meaning |
//! | --- | --- | --- |
//! | [`share_renewals`] (feature `redis`) | none | The Redis or Valkey server through which replicas share refreshes and logouts. Without it, each browser has to be routed to the same replica. |
//!
//! [`RedisRenewals`] has the options of the store. [`operations`](super::operations#replicas) explains when to change
//! them.
//!
//! | option | default | meaning |
//! | --- | --- | --- |
//! | [`RedisRenewals::new`] | required | The URL, `redis://user:password@host:6379/0`, or `rediss://` for TLS. |
//! | [`prefix`] | `tca1` | The start of all keys and of the channel, for permissions. |
//! | [`time_limit`] | 50 ms | For a command; at most 1 s. |
//! | [`when_unreachable`] | [`WhenUnreachable::GoOn`]: each replica refreshes on its own | `Wait` treats the session as in an outage of Crossmint. |
//! | [`ca_certificates`] | the operating system's | The authorities that may have issued the server's certificate. |
//! | [`pepper`] | none | A secret that protects a copy of the store from those who have a refresh token. |
//!
//! # The HTTP client
//!
//! | option | default | meaning |
//! | --- | --- | --- |
//! | [`http_client`] (feature `http-client`) | built in | A `reqwest::Client` for calls through a proxy or to a server with a private certificate authority. |
//!
//! The built-in client follows no redirects, uses no proxy, decompresses nothing, and closes connections that have been
//! idle for 15 s. A client of your own should be configured in the same way:
//!
//! ```no_run
//! use std::time::Duration;
//! use tower_crossmint_auth::CrossmintAuthConfig;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let authority = reqwest::Certificate::from_pem(&std::fs::read("/etc/ssl/private-ca.pem")?)?;
//! let client = reqwest::Client::builder()
//!     .proxy(reqwest::Proxy::https("http://proxy.internal:3128")?)
//!     .tls_certs_merge([authority])
//!     // A redirect would re-post the API key and the refresh token to another host.
//!     .redirect(reqwest::redirect::Policy::none())
//!     // Less than the idle time-out of Crossmint and of the proxy: a refresh on a connection that is being closed fails,
//!     // and is not retried because the token may be spent.
//!     .pool_idle_timeout(Duration::from_secs(15))
//!     .connect_timeout(Duration::from_secs(2))
//!     .build()?;
//!
//! let config = CrossmintAuthConfig::builder(std::env::var("SERVER_CROSSMINT_API_KEY")?)
//!     .http_client(client)
//!     .build()?;
//! # let _ = config;
//! # Ok(())
//! # }
//! ```
//!
//! Do not enable its cookie store: it would send cookies that Crossmint has set for one user with the refresh of
//! another.
//!
//! [`CrossmintAuthConfig::from_env`]: crate::CrossmintAuthConfig::from_env
//! [`CookieNames::ScopedOnly`]: crate::CookieNames::ScopedOnly
//! [`CrossmintAuthConfig::builder`]: crate::CrossmintAuthConfig::builder
//! [`builder(api_key)`]: crate::CrossmintAuthConfig::builder
//! [`build`]: crate::CrossmintAuthConfigBuilder::build
//! [`ConfigError`]: crate::ConfigError
//! [`ApiKey::unverified`]: crate::ApiKey::unverified
//! [`base_url`]: crate::CrossmintAuthConfigBuilder::base_url
//! [`refresh_route`]: crate::CrossmintAuthConfigBuilder::refresh_route
//! [`logout_route`]: crate::CrossmintAuthConfigBuilder::logout_route
//! [`trusted_origins`]: crate::CrossmintAuthConfigBuilder::trusted_origins
//! [`expose_refresh_secret`]: crate::CrossmintAuthConfigBuilder::expose_refresh_secret
//! [`cookies`]: crate::CrossmintAuthConfigBuilder::cookies
//! [`CookieOptions::default`]: crate::CookieOptions::default
//! [`CookieOptions::hardened`]: crate::CookieOptions::hardened
//! [`cookie_names`]: crate::CrossmintAuthConfigBuilder::cookie_names
//! [`CookieNames::Scoped`]: crate::CookieNames::Scoped
//! [`audience`]: crate::CrossmintAuthConfigBuilder::audience
//! [`dangerous_accept_any_audience`]: crate::CrossmintAuthConfigBuilder::dangerous_accept_any_audience
//! [`issuer`]: crate::CrossmintAuthConfigBuilder::issuer
//! [`leeway`]: crate::CrossmintAuthConfigBuilder::leeway
//! [`unauthenticated`]: crate::CrossmintAuthConfigBuilder::unauthenticated
//! [`Unauthenticated::Reject`]: crate::Unauthenticated::Reject
//! [`cors_preflights`]: crate::CrossmintAuthConfigBuilder::cors_preflights
//! [`CorsPreflights::Pass`]: crate::CorsPreflights::Pass
//! [`on_outage`]: crate::CrossmintAuthConfigBuilder::on_outage
//! [`OutagePolicy::EndSession`]: crate::OutagePolicy::EndSession
//! [`bearer`]: crate::CrossmintAuthConfigBuilder::bearer
//! [`Bearer::Ignore`]: crate::Bearer::Ignore
//! [`after_logout`]: crate::CrossmintAuthConfigBuilder::after_logout
//! [`connect_timeout`]: crate::CrossmintAuthConfigBuilder::connect_timeout
//! [`keys_timeout`]: crate::CrossmintAuthConfigBuilder::keys_timeout
//! [`refresh_timeout`]: crate::CrossmintAuthConfigBuilder::refresh_timeout
//! [`logout_timeout`]: crate::CrossmintAuthConfigBuilder::logout_timeout
//! [`max_concurrent_refreshes`]: crate::CrossmintAuthConfigBuilder::max_concurrent_refreshes
//! [`rotation_grace`]: crate::CrossmintAuthConfigBuilder::rotation_grace
//! [`rotation_grace_bytes`]: crate::CrossmintAuthConfigBuilder::rotation_grace_bytes
//! [`token_cache_bytes`]: crate::CrossmintAuthConfigBuilder::token_cache_bytes
//! [`refusal_warning`]: crate::CrossmintAuthConfigBuilder::refusal_warning
//! [`share_renewals`]: crate::CrossmintAuthConfigBuilder::share_renewals
//! [`RedisRenewals`]: crate::RedisRenewals
//! [`RedisRenewals::new`]: crate::RedisRenewals::new
//! [`prefix`]: crate::RedisRenewals::prefix
//! [`time_limit`]: crate::RedisRenewals::time_limit
//! [`when_unreachable`]: crate::RedisRenewals::when_unreachable
//! [`WhenUnreachable::GoOn`]: crate::WhenUnreachable::GoOn
//! [`ca_certificates`]: crate::RedisRenewals::ca_certificates
//! [`pepper`]: crate::RedisRenewals::pepper
//! [`http_client`]: crate::CrossmintAuthConfigBuilder::http_client
