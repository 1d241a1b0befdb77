//! How the two cookies are named and which attributes they get.

use crate::{error::ConfigError, host};

/// The attributes of the two cookies.
///
/// Both cookies get `Path=/`. The JWT's cookie is never `HttpOnly`, because the browser SDK reads it.
///
/// The defaults are those that Crossmint documents: not `HttpOnly`, not `Secure`, `SameSite=Lax`, no `Domain`. They
/// suit development over plain HTTP. Use [`hardened`](Self::hardened) in production.
///
/// ```
/// use tower_crossmint_auth::{CookieOptions, SameSite};
///
/// let production = CookieOptions::hardened().domain(".example.com");
/// let embedded = CookieOptions::hardened().same_site(SameSite::None);
/// # let _ = (production, embedded);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieOptions {
    pub(crate) http_only: bool,
    pub(crate) secure: bool,
    pub(crate) same_site: SameSite,
    pub(crate) domain: Option<String>,
}

impl CookieOptions {
    /// Returns the options for production: `HttpOnly` (for the refresh token), `Secure`, `SameSite=Strict`, no
    /// `Domain`.
    ///
    /// To hide the refresh token from scripts entirely, also set
    /// [`expose_refresh_secret(false)`](crate::CrossmintAuthConfigBuilder::expose_refresh_secret).
    #[must_use]
    pub fn hardened() -> Self {
        Self { http_only: true, secure: true, same_site: SameSite::Strict, domain: None }
    }

    /// Sets whether the refresh token's cookie is `HttpOnly`, so that scripts cannot read it.
    ///
    /// The default is `false`; [`hardened`](Self::hardened) sets it to `true`.
    ///
    /// # Security
    ///
    /// With `false`, a cross-site scripting vulnerability discloses a session that can be refreshed for weeks.
    #[must_use]
    pub fn http_only(mut self, http_only: bool) -> Self {
        self.http_only = http_only;
        self
    }

    /// Sets whether the cookies are `Secure`, so that browsers send them over HTTPS only.
    ///
    /// The default is `false`; [`hardened`](Self::hardened) sets it to `true`. Some browsers make an exception for
    /// `localhost`; Safari does not.
    #[must_use]
    pub fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Sets on which cross-site requests browsers send the cookies.
    ///
    /// The default is [`SameSite::Lax`]; [`hardened`](Self::hardened) sets [`SameSite::Strict`].
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    /// Sets the `Domain` attribute of both cookies: a string, or an `Option` of one. A leading dot makes no difference.
    ///
    /// By default, the cookies are host-only, as with `None`. Set it only to share the session with every subdomain:
    /// each of them can then read the JWT.
    ///
    /// # Security
    ///
    /// With or without a domain, a sibling subdomain can plant cookies for the shared parent domain. If they differ
    /// from the user's, the request is rejected, and its response deletes the cookies of every domain and path that the
    /// request's host and path allow. A proxy or a nested router may hide these from the layer. With
    /// [`secure`](Self::secure), the refresh token's cookie is therefore overwritten, so that requests with a planted
    /// cookie that the deletions miss stay rejected. Cookies that are planted where the user has none are accepted:
    /// only names that begin with `__Host-` ([`CookieNames::Custom`]) prevent it.
    #[must_use]
    pub fn domain(mut self, domain: impl IntoDomain) -> Self {
        self.domain = domain.into_domain();
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let why = "`SameSite::None` without `secure`: browsers drop such cookies; add `.secure(true)`";
        ConfigError::ensure(self.same_site != SameSite::None || self.secure, "cookies", why)?;
        let Some(domain) = &self.domain else { return Ok(()) };
        let is_kept = domain.trim_start_matches('.').contains('.');
        let why =
            "has no dot in it: browsers keep no cookies for a top-level domain or `localhost`; leave the domain out";
        check_domain(domain)
            .and(if is_kept { Ok(()) } else { Err(why) })
            .map_err(|why| ConfigError::new("cookies.domain", format!("`{}` {why}", domain.escape_debug())))
    }
}

/// A string or an `Option` of one, for [`CookieOptions::domain`].
///
/// This trait is sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a cookie's domain",
    label = "expected a `&str`, a `String`, or an `Option` of one of them"
)]
pub trait IntoDomain: sealed::Sealed {}

impl IntoDomain for &str {}
impl IntoDomain for String {}
impl IntoDomain for Option<&str> {}
impl IntoDomain for Option<String> {}

mod sealed {
    #[expect(unnameable_types, reason = "a trait is sealed by a supertrait that cannot be named")]
    pub trait Sealed {
        fn into_domain(self) -> Option<String>;
    }

    impl Sealed for &str {
        fn into_domain(self) -> Option<String> {
            Some(self.to_owned())
        }
    }

    impl Sealed for String {
        fn into_domain(self) -> Option<String> {
            Some(self)
        }
    }

    impl Sealed for Option<&str> {
        fn into_domain(self) -> Option<String> {
            self.map(ToOwned::to_owned)
        }
    }

    impl Sealed for Option<String> {
        fn into_domain(self) -> Option<String> {
            self
        }
    }
}

/// On which cross-site requests browsers send the cookies (RFC 6265bis section 4.1.2.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// On none.
    Strict,
    /// Only when the user follows a link. The default.
    #[default]
    Lax,
    /// On all. Requires [`secure`](CookieOptions::secure).
    None,
}

/// The names of the two cookies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CookieNames {
    /// `crossmint-jwt-<project ID>` and `crossmint-refresh-token-<project ID>`, which the browser SDK expects since
    /// version 1.3. The default.
    ///
    /// If the scoped pair is absent, the unscoped pair is read, so that users who signed in before a migration from
    /// `@crossmint/server-sdk` stay signed in. It is ignored and kept if its JWT is for another project, which may use
    /// these names on the same domain.
    #[default]
    Scoped,
    /// The same names, and never the unscoped ones: neither read nor deleted.
    ///
    /// For several projects on one domain, whose users have all signed in with scoped cookies: see
    /// [`docs::tenants`](crate::docs::tenants).
    ScopedOnly,
    /// `crossmint-jwt` and `crossmint-refresh-token`, as in `@crossmint/server-sdk` up to 1.2.78.
    ///
    /// Another project on the same domain may use these names too. A request with its JWT has no session, and its
    /// cookies are kept; but a sign-in at either application replaces the cookies of the other.
    Unscoped,
    /// Other names, such as `__Host-session`. The browser SDK does not find them.
    Custom {
        /// The name of the JWT's cookie.
        jwt: String,
        /// The name of the refresh token's cookie.
        refresh_token: String,
    },
}

/// The names in use: the pair that is written, and the other pair that requests may have.
#[derive(Clone, Debug)]
pub(crate) struct NamePairs {
    pub(crate) written: NamePair,
    /// Read where the written pair is absent, if it is the unscoped one. Deleted where a request has it.
    pub(crate) other: Option<NamePair>,
    /// Whether `written` is the unscoped pair, whose names all projects share. If not, `other` is, unless it is absent.
    pub(crate) writes_unscoped: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct NamePair {
    pub(crate) jwt: String,
    pub(crate) refresh_token: String,
}

impl CookieNames {
    pub(crate) fn resolve(&self, project_id: &str, options: &CookieOptions) -> Result<NamePairs, ConfigError> {
        let pair = |suffix: &str| NamePair {
            jwt: format!("crossmint-jwt{suffix}"),
            refresh_token: format!("crossmint-refresh-token{suffix}"),
        };
        let (unscoped, scoped) = (pair(""), pair(&format!("-{project_id}")));
        let (written, other) = match self.clone() {
            Self::Scoped => (scoped, Some(unscoped)),
            Self::ScopedOnly => (scoped, None),
            Self::Unscoped => (unscoped, Some(scoped)),
            Self::Custom { jwt, refresh_token } => (NamePair { jwt, refresh_token }, None),
        };
        let NamePair { jwt, refresh_token } = &written;
        let why = format!("both cookies are called `{jwt}`: give them two names");
        ConfigError::ensure(jwt != refresh_token, "cookie_names", why)?;
        check_name(jwt, options)?;
        check_name(refresh_token, options)?;
        let demands_http_only = |name| has_prefix(name, "__Http-") || has_prefix(name, "__Host-Http-");
        let is_kept = !demands_http_only(jwt) && (options.http_only || !demands_http_only(refresh_token));
        let why = "browsers keep a cookie whose name begins with `__Http-` or `__Host-Http-` only if it is HttpOnly, \
                   which the JWT's never is: use another prefix";
        ConfigError::ensure(is_kept, "cookie_names", why)?;
        Ok(NamePairs { written, other, writes_unscoped: *self == Self::Unscoped })
    }
}

/// Checks a cookie's name (RFC 6265bis section 4.1.1) and what its prefix requires (section 4.1.3).
fn check_name(name: &str, options: &CookieOptions) -> Result<(), ConfigError> {
    let ensure = |is_usable, why: &str| {
        ConfigError::ensure(is_usable, "cookie_names", format!("`{}` {why}", name.escape_debug()))
    };
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_name = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_token);
    ensure(is_name, "is not a cookie name: use letters, digits, `-` and `_`, at most 256")?;
    let needs_secure = ["__Secure-", "__Host-", "__Http-"].iter().any(|prefix| has_prefix(name, prefix));
    let why = "has a prefix that needs a `Secure` cookie: add `.secure(true)` to the cookie options";
    ensure(options.secure || !needs_secure, why)?;
    let why = "has the prefix `__Host-`, which forbids a domain: drop the prefix or the domain";
    ensure(options.domain.is_none() || !has_prefix(name, "__Host-"), why)
}

/// Compares a prefix without regard to case, as browsers do (RFC 6265bis section 5.4).
pub(crate) fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Checks a domain. Does not allocate, since the response to a request with ambiguous cookies uses it.
pub(crate) fn check_domain(domain: &str) -> Result<(), &'static str> {
    let name = domain.strip_prefix('.').unwrap_or(domain);
    if host::address(name).is_some() {
        return Err("is an IP address: leave the domain out, cookies for an address are host-only");
    }
    // The limits of RFC 1035 section 2.3.4. Underscores are not host names, but browsers accept them.
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err("is not a domain: write it without scheme, port and path, like `example.com` (IDNs as `xn--...`)");
    }
    Ok(())
}

/// Browsers keep at most 4096 bytes of name and value together: the rest is for the JWT.
const MAX_NAME: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_checked() {
        for domain in ["example.com", ".example.com", "a.b-c.example", "xn--bcher-kva.example"] {
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
            "com",
            ".com",
            "localhost",
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
