//! How the two cookies are named and which attributes they get.

use std::net::IpAddr;

use crate::error::ConfigError;

/// The attributes of the two cookies.
///
/// Both get `Path=/`. The JWT's cookie is never `HttpOnly`: the browser SDK reads it.
///
/// ```
/// use tower_crossmint_auth::{CookieOptions, SameSite};
///
/// let production = CookieOptions::hardened().domain(".example.com");
/// let embedded = CookieOptions::hardened().same_site(SameSite::None);
/// # let _ = (production, embedded);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieOptions {
    pub(crate) http_only: bool,
    pub(crate) secure: bool,
    pub(crate) same_site: SameSite,
    pub(crate) domain: Option<String>,
}

impl Default for CookieOptions {
    /// Returns the defaults that Crossmint documents: not `HttpOnly`, not `Secure`, `Lax`, no domain.
    ///
    /// They suit development over plain HTTP. In production, take [`hardened`](Self::hardened).
    fn default() -> Self {
        Self { http_only: false, secure: false, same_site: SameSite::Lax, domain: None }
    }
}

impl CookieOptions {
    /// Returns what a production site should use: `HttpOnly` (the refresh token), `Secure`, `SameSite=Strict`.
    ///
    /// To keep the refresh token from scripts altogether, leave it out of the refresh route's body as well:
    /// [`expose_refresh_secret`](crate::CrossmintAuthConfigBuilder::expose_refresh_secret).
    #[must_use]
    pub fn hardened() -> Self {
        Self { http_only: true, secure: true, same_site: SameSite::Strict, domain: None }
    }

    /// Sets whether scripts are kept from reading the refresh token's cookie. Off by default, on in
    /// [`hardened`](Self::hardened).
    ///
    /// # Security
    ///
    /// With `false`, one cross-site scripting hole gives away a session that can be renewed for weeks.
    #[must_use]
    pub fn http_only(mut self, http_only: bool) -> Self {
        self.http_only = http_only;
        self
    }

    /// Sets whether browsers send the cookies over HTTPS only. Off by default, on in [`hardened`](Self::hardened).
    ///
    /// Some browsers make an exception for `localhost`; Safari does not.
    #[must_use]
    pub fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Sets with which cross-site requests browsers send the cookies. [`SameSite::Lax`] by default,
    /// [`SameSite::Strict`] in [`hardened`](Self::hardened).
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    /// Sets the `Domain` attribute of both cookies. A leading dot makes no difference.
    ///
    /// Host-only by default. Set it only to share the session with every subdomain: each of them can then read the JWT.
    ///
    /// # Security
    ///
    /// With or without a domain, a sibling subdomain can plant cookies for the shared parent domain. Where they
    /// contradict the user's, the request is refused, and all are deleted that the request's host and path can name. A
    /// proxy or a nested router may hide these: with [`secure`](Self::secure), the user's refresh token is overwritten, so
    /// that planted cookies that were missed go on being refused. Where the user has none, they count: only names that
    /// begin with `__Host-` ([`CookieNames::Custom`]) keep others from planting cookies.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.same_site == SameSite::None && !self.secure {
            return Err(ConfigError::new(
                "cookies",
                "`SameSite::None` without `secure`: browsers drop such cookies; add `.secure(true)`",
            ));
        }
        match &self.domain {
            Some(domain) => check_domain(domain),
            None => Ok(()),
        }
    }
}

/// When browsers send the cookies along with requests that another site causes.
///
/// Source: the seed page on custom refresh routes, RFC 6265bis section 4.1.2.7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// Never.
    Strict,
    /// Only when the user follows a link. The default.
    #[default]
    Lax,
    /// Always. Needs [`secure`](CookieOptions::secure).
    None,
}

/// What the two cookies are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CookieNames {
    /// `crossmint-jwt-<project ID>` and `crossmint-refresh-token-<project ID>`, as the browser SDK expects since its
    /// version 1.3. The default.
    ///
    /// The unscoped pair is read where the scoped one is absent, so that users who signed in before a migration from
    /// `@crossmint/server-sdk` stay signed in. It is left alone where its JWT is for another project: a neighbour on the
    /// same domain may use these names.
    #[default]
    Scoped,
    /// `crossmint-jwt` and `crossmint-refresh-token`, as `@crossmint/server-sdk` up to 1.2.78.
    ///
    /// Another project on the same domain may use them, too. A request with its JWT counts as one without a session, and
    /// its cookies are kept; but whoever signs in last replaces the other's.
    Unscoped,
    /// Names of your own, such as `__Host-session`. The browser SDK does not find them.
    Custom {
        /// The JWT's cookie.
        jwt: String,
        /// The refresh token's cookie.
        refresh_token: String,
    },
}

/// The names in use: the pair that is written, and the other pair that requests may have.
#[derive(Clone, Debug)]
pub(crate) struct NamePairs {
    pub(crate) written: NamePair,
    pub(crate) other: Option<NamePair>,
    /// Which of them has the names that all projects share.
    pub(crate) unscoped: Option<Unscoped>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamePair {
    pub(crate) jwt: String,
    pub(crate) refresh_token: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unscoped {
    Written,
    /// It is read where the written one is absent.
    Other,
}

impl NamePairs {
    /// Returns the bytes that the names begin with.
    pub(crate) fn initials(&self) -> [u8; 4] {
        let other = self.other.as_ref().unwrap_or(&self.written);
        let initial = |name: &str| name.as_bytes().first().copied().unwrap_or_default();
        [&self.written.jwt, &self.written.refresh_token, &other.jwt, &other.refresh_token].map(|name| initial(name))
    }
}

impl CookieNames {
    pub(crate) fn resolve(&self, project_id: &str, options: &CookieOptions) -> Result<NamePairs, ConfigError> {
        let unscoped = NamePair { jwt: JWT_COOKIE.to_owned(), refresh_token: REFRESH_TOKEN_COOKIE.to_owned() };
        let scoped = NamePair {
            jwt: format!("{JWT_COOKIE}-{project_id}"),
            refresh_token: format!("{REFRESH_TOKEN_COOKIE}-{project_id}"),
        };
        let pairs = match self {
            Self::Scoped => NamePairs { written: scoped, other: Some(unscoped), unscoped: Some(Unscoped::Other) },
            Self::Unscoped => NamePairs { written: unscoped, other: Some(scoped), unscoped: Some(Unscoped::Written) },
            Self::Custom { jwt, refresh_token } => {
                let written = NamePair { jwt: jwt.clone(), refresh_token: refresh_token.clone() };
                NamePairs { written, other: None, unscoped: None }
            }
        };
        let NamePair { jwt, refresh_token } = &pairs.written;
        if jwt == refresh_token {
            return Err(ConfigError::new(
                "cookie_names",
                format!("both cookies are called `{jwt}`: give them two names"),
            ));
        }
        check_name(jwt, options)?;
        check_name(refresh_token, options)?;
        let demands_http_only = |name: &String| has_prefix(name, "__Http-") || has_prefix(name, "__Host-Http-");
        if demands_http_only(jwt) || (demands_http_only(refresh_token) && !options.http_only) {
            return Err(ConfigError::new(
                "cookie_names",
                "browsers keep a cookie whose name begins with `__Http-` or `__Host-Http-` only if it is HttpOnly, \
                 which the JWT's never is: use another prefix",
            ));
        }
        Ok(pairs)
    }
}

/// Checks a cookie's name (RFC 6265bis section 4.1.1) and the promises of its prefix (section 4.1.3).
fn check_name(name: &str, options: &CookieOptions) -> Result<(), ConfigError> {
    let refuse = |why: &str| Err(ConfigError::new("cookie_names", format!("`{}` {why}", name.escape_debug())));
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_token) {
        return refuse("is not a cookie name: use letters, digits, `-` and `_`, at most 256");
    }
    if (has_prefix(name, "__Secure-") || has_prefix(name, "__Host-") || has_prefix(name, "__Http-")) && !options.secure
    {
        return refuse("has a prefix that needs a `Secure` cookie: add `.secure(true)` to the cookie options");
    }
    if has_prefix(name, "__Host-") && options.domain.is_some() {
        return refuse("has the prefix `__Host-`, which forbids a domain: drop the prefix or the domain");
    }
    Ok(())
}

/// Browsers match the prefixes without regard to case.
pub(crate) fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

pub(crate) fn check_domain(domain: &str) -> Result<(), ConfigError> {
    let refuse = |why: &str| Err(ConfigError::new("cookies.domain", format!("`{}` {why}", domain.escape_debug())));
    let name = domain.strip_prefix('.').unwrap_or(domain);
    if name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return refuse("is an IP address: leave the domain out, cookies for an address are host-only");
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return refuse(
            "is not a domain: write it without scheme, port and path, like `example.com` (IDNs as `xn--...`)",
        );
    }
    Ok(())
}

const JWT_COOKIE: &str = "crossmint-jwt";
const REFRESH_TOKEN_COOKIE: &str = "crossmint-refresh-token";
const MAX_NAME: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_checked() {
        for domain in ["example.com", ".example.com", "localhost", "a.b-c.example", "xn--bcher-kva.example"] {
            assert!(CookieOptions::default().domain(domain).check().is_ok(), "{domain}");
        }
        for domain in [
            "",
            ".",
            "..example.com",
            "example.com:8080",
            "example.com; Path=/x",
            "exa mple.com",
            "a\r\nb",
            "127.0.0.1",
            "[::1]",
            "::1",
            "https://example.com",
            "example.com/",
            "exämple.com",
            "-a.example",
            "example.com.",
        ] {
            let error = CookieOptions::default().domain(domain).check().unwrap_err();
            assert_eq!(error.option(), "cookies.domain", "{domain}");
        }
    }

    #[test]
    fn same_site_none_needs_secure() {
        let options = CookieOptions::default().same_site(SameSite::None);
        assert!(options.check().unwrap_err().to_string().contains(".secure(true)"));
        assert!(options.secure(true).check().is_ok());
    }

    #[test]
    fn prefixes_are_held_to_their_promises() {
        let names = |jwt: &str, refresh_token: &str| CookieNames::Custom {
            jwt: jwt.into(),
            refresh_token: refresh_token.into(),
        };
        let hardened = CookieOptions::hardened();
        let cases = [
            ("plain", names("jwt", "refresh"), CookieOptions::default(), true),
            ("host", names("__Host-jwt", "__Host-refresh"), hardened.clone(), true),
            ("host, any case", names("__hOST-jwt", "r"), CookieOptions::default(), false),
            ("host with a domain", names("__Host-jwt", "r"), hardened.clone().domain("example.com"), false),
            ("secure", names("__Secure-jwt", "r"), hardened.clone().domain("example.com"), true),
            ("secure without secure", names("__Secure-jwt", "r"), CookieOptions::default(), false),
            ("http for the refresh token", names("jwt", "__Host-Http-r"), hardened.clone(), true),
            ("http for the jwt", names("__Http-jwt", "r"), hardened.clone(), false),
            ("http without HttpOnly", names("jwt", "__Http-r"), hardened.http_only(false), false),
            ("equal", names("a", "a"), CookieOptions::default(), false),
            ("empty", names("", "a"), CookieOptions::default(), false),
            ("injection", names("a; Path=/x", "b"), CookieOptions::default(), false),
        ];
        for (case, names, options, good) in cases {
            assert_eq!(names.resolve("project", &options).is_ok(), good, "{case}");
        }
    }
}
