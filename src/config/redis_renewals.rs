//! The store through which replicas share their refreshes.

#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use reqwest::Url;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

use crate::{error::ConfigError, secret::Secret};

/// A Redis or Valkey server through which replicas share their refreshes.
///
/// Without it, each replica sees only its own refreshes, and a browser has to be routed to the same replica every time.
/// [`docs::operations`](crate::docs::operations#replicas) describes what is promised, what is not, and how to size and
/// set up the server. Set by [`share_renewals`](crate::CrossmintAuthConfigBuilder::share_renewals), in the same way on
/// all replicas.
///
/// ```no_run
/// use tower_crossmint_auth::{CrossmintAuthConfig, RedisRenewals};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let renewals = RedisRenewals::new(std::env::var("REDIS_URL")?)?;
/// let config = CrossmintAuthConfig::builder(std::env::var("SERVER_CROSSMINT_API_KEY")?)
///     .share_renewals(renewals)
///     .build()?;
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
///
/// # Security
///
/// The server need not be trusted with sessions. What it stores is encrypted with keys that are derived from refresh
/// tokens, which it never sees; what it returns is verified like an answer of Crossmint's.
#[derive(Clone)]
pub struct RedisRenewals {
    pub(crate) endpoint: Endpoint,
    pub(crate) prefix: String,
    pub(crate) time_limit: Duration,
    pub(crate) when_unreachable: WhenUnreachable,
    pub(crate) pepper: Option<Secret>,
    ca_certificates: Option<Vec<u8>>,
}

/// Where the server is, and how to log in.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: i64,
    is_tls: bool,
    /// Set by the check of the configuration.
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// What a replica does with an expired session while the store is unreachable.
///
/// Set by [`RedisRenewals::when_unreachable`]. Sessions with a valid JWT are not affected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenUnreachable {
    /// Refreshes the session on its own, as without a store. The default.
    ///
    /// Two replicas that refresh one session at that time end it.
    #[default]
    GoOn,
    /// Answers as in an outage of Crossmint: see [`OutagePolicy`](crate::OutagePolicy).
    ///
    /// No session is lost under [`OutagePolicy::KeepSession`](crate::OutagePolicy::KeepSession), but none is refreshed
    /// either until the store is back.
    Wait,
}

impl RedisRenewals {
    /// Reads the server's URL. Makes no network calls: the first refresh connects, or
    /// [`warm_up`](crate::CrossmintAuth::warm_up).
    ///
    /// The URL is `redis://user:password@host:6379/0`, or `rediss://...` for TLS; the port, the user, the password and
    /// the number of the database are optional. Characters that have a meaning in URLs must be percent-encoded. The
    /// server must be a primary; Cluster and Sentinel are not supported.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL cannot be used. It shows no part of the URL that may contain the password.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        Ok(Self {
            endpoint: Endpoint::parse(url.as_ref())?,
            prefix: "tca1".to_owned(),
            time_limit: Duration::from_millis(50),
            when_unreachable: WhenUnreachable::default(),
            pepper: None,
            ca_certificates: None,
        })
    }

    /// Sets the start of the names of all keys and of the channel.
    ///
    /// The default is `tca1`. Projects need no prefix of their own: the names contain a hash of the project and its
    /// environment. Up to 64 ASCII letters, digits and `-_.:` are allowed.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// Sets the time limit for a command.
    ///
    /// The default is 50 ms, the maximum 1 s. A server that does not answer in time counts as unreachable.
    #[must_use]
    pub fn time_limit(self, limit: Duration) -> Self {
        Self { time_limit: limit, ..self }
    }

    /// Sets what happens to expired sessions while the server is unreachable.
    ///
    /// The default is [`WhenUnreachable::GoOn`].
    #[must_use]
    pub fn when_unreachable(self, behavior: WhenUnreachable) -> Self {
        Self { when_unreachable: behavior, ..self }
    }

    /// Sets the certificate authorities, in PEM, one of which must have issued the server's certificate.
    ///
    /// By default, those of the operating system are trusted. Only for `rediss://`.
    #[must_use]
    pub fn ca_certificates(self, pem: impl Into<Vec<u8>>) -> Self {
        Self { ca_certificates: Some(pem.into()), ..self }
    }

    /// Sets a secret that the encryption keys are derived from, in addition to the refresh token.
    ///
    /// The default is none. With a pepper, a leaked refresh token does not decrypt a copy of the store. It must have
    /// at least 16 bytes and be the same on all replicas; replicas with different ones do not share refreshes.
    #[must_use]
    pub fn pepper(self, secret: impl Into<String>) -> Self {
        Self { pepper: Some(secret.into().into()), ..self }
    }

    /// Checks all options, and prepares TLS.
    pub(crate) fn check(&mut self) -> Result<(), ConfigError> {
        let Self { prefix, time_limit, pepper, ca_certificates, endpoint, .. } = self;
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        let is_prefix = (1..=MAX_PREFIX).contains(&prefix.len()) && prefix.bytes().all(is_legal);
        let why = format!("`{}` is not made of 1 to {MAX_PREFIX} letters, digits and `-_.:`", prefix.escape_debug());
        ConfigError::ensure(is_prefix, "share_renewals.prefix", why)?;
        let why = format!("{time_limit:?} is not between 1 ms and {} s", MAX_TIME_LIMIT.as_secs());
        let is_limit = (Duration::from_millis(1)..=MAX_TIME_LIMIT).contains(time_limit);
        ConfigError::ensure(is_limit, "share_renewals.time_limit", why)?;
        let why = format!("it is shorter than {MIN_PEPPER} bytes: use 32 random ones");
        let is_long = pepper.as_ref().is_none_or(|pepper| pepper.len() >= MIN_PEPPER);
        ConfigError::ensure(is_long, "share_renewals.pepper", why)?;
        let why = "the URL is not `rediss://`, so that there is no TLS: change one";
        ConfigError::ensure(endpoint.is_tls || ca_certificates.is_none(), CA_CERTIFICATES, why)?;
        if endpoint.is_tls {
            let config = Arc::new(client_config(ca_certificates.as_deref())?);
            let name = ServerName::try_from(endpoint.host.clone())
                .map_err(|_| ConfigError::new(OPTION, "the host of the URL cannot be in a certificate"))?;
            endpoint.tls = Some((config, name));
        }
        Ok(())
    }
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let refuse = |why: &str| ConfigError::new(OPTION, why);
        // The errors show none of it: a password with special characters may have been taken for another part.
        let text = text.trim();
        let behind_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
        let is_cut = behind_scheme.split_once(['/', '?', '#']).is_some_and(|(_, rest)| rest.contains('@'));
        let why = "there is a `/`, `?` or `#` before the `@` of the URL: percent-encode it in the user or password";
        ConfigError::ensure(!is_cut, OPTION, why)?;
        let url =
            Url::parse(text).map_err(|why| refuse(&format!("the URL is not like `redis://host:6379` ({why})")))?;
        let is_tls = match url.scheme() {
            "redis" => false,
            "rediss" => true,
            _ => return Err(refuse("the URL does not start with `redis://`, or `rediss://` for TLS")),
        };
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        ConfigError::ensure(!host.is_empty(), OPTION, "the URL has no host: write it like `redis://host:6379`")?;
        let why = "the URL has a query or a fragment: leave it out";
        ConfigError::ensure(url.query().is_none() && url.fragment().is_none(), OPTION, why)?;
        let why = "the path of the URL is not the number of a database: write it like `redis://host:6379/0`";
        let database = match url.path() {
            "" | "/" => 0,
            path => path[1..].parse::<u16>().map_err(|_| refuse(why))?,
        };
        let decode = |text: &str| {
            let text = percent_decode_str(text).decode_utf8().map(Cow::into_owned);
            text.map_err(|_| refuse("the user or password in the URL is not UTF-8 once it is percent-decoded"))
        };
        let username = Some(url.username()).filter(|name| !name.is_empty()).map(decode).transpose()?;
        let password = url.password().map(decode).transpose()?;
        Ok(Self {
            host: host.to_owned(),
            port: url.port().unwrap_or(6379),
            username,
            password: password.map(Secret::from),
            database: database.into(),
            is_tls,
            tls: None,
        })
    }
}

/// Names the provider: rustls's own choice panics if two are linked.
fn client_config(ca_certificates: Option<&[u8]>) -> Result<ClientConfig, ConfigError> {
    let refuse = |why: String| ConfigError::new(CA_CERTIFICATES, why);
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(format!("TLS does not start ({error})")))?;
    let Some(pem) = ca_certificates else {
        let builder = builder.with_platform_verifier().map_err(|error| {
            refuse(format!("those of the operating system cannot be read ({error}): set the server's own"))
        })?;
        return Ok(builder.with_no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| refuse(format!("they are not in PEM ({error})")))?;
        roots.add(certificate).map_err(|error| refuse(format!("one is not a certificate ({error})")))?;
    }
    let why = "there is no `-----BEGIN CERTIFICATE-----` in them: pass the text of a PEM file";
    ConfigError::ensure(!roots.is_empty(), CA_CERTIFICATES, why)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

impl fmt::Debug for RedisRenewals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRenewals")
            .field("host", &self.endpoint.host)
            .field("port", &self.endpoint.port)
            .field("prefix", &self.prefix)
            .field("when_unreachable", &self.when_unreachable)
            .finish_non_exhaustive()
    }
}

const OPTION: &str = "share_renewals";
const CA_CERTIFICATES: &str = "share_renewals.ca_certificates";
const MAX_PREFIX: usize = 64;
/// A claim that takes longer is given up.
const MAX_TIME_LIMIT: Duration = Duration::from_secs(1);
const MIN_PEPPER: usize = 16;
