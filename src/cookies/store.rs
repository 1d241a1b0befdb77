//! The `Set-Cookie` fields that store a session.

use cookie::{
    Cookie,
    time::{OffsetDateTime, format_description::well_known::Rfc3339},
};
use http::HeaderValue;

use crate::{
    clock,
    config::{CookieOptions, NamePair, NamePairs, SameSite},
    session::AuthMaterial,
};

/// Reads and writes the cookies of one configuration.
#[derive(Debug)]
pub(crate) struct Cookies {
    pub(super) names: NamePairs,
    /// The bytes that the names begin with.
    pub(super) initials: [u8; 4],
    pub(super) options: CookieOptions,
}

impl Cookies {
    pub(crate) fn new(names: NamePairs, options: CookieOptions) -> Self {
        let other = names.other.as_ref().unwrap_or(&names.written);
        let initials = [&names.written.jwt, &names.written.refresh_token, &other.jwt, &other.refresh_token]
            .map(|name| name.as_bytes().first().copied().unwrap_or_default());
        Self { initials, names, options }
    }

    /// Builds the `Set-Cookie` fields that store `material`.
    ///
    /// # Errors
    ///
    /// When a value is not made of cookie-octets (RFC 6265bis section 4.1.1) or too long for browsers to keep: written
    /// anyway, it could add attributes, or vanish.
    pub(crate) fn store(&self, material: &AuthMaterial) -> Result<[HeaderValue; 2], &'static str> {
        let token = material.refresh_token();
        let [jwt, mut refresh_token] = self.pair(&self.names.written, material.jwt(), token.secret());
        for (name, value) in [jwt.name_value(), refresh_token.name_value()] {
            if value.is_empty() || !is_cookie_value(value.as_bytes()) || name.len() + value.len() > MAX_COOKIE {
                return Err(UNWRITABLE);
            }
        }
        if let Some(expires_at) = token.expires_at().and_then(parse_date) {
            refresh_token.set_expires(expires_at);
        }
        Ok([field(&jwt)?, field(&refresh_token)?])
    }

    /// Builds the cookies of one pair of names, as session cookies.
    pub(super) fn pair<'c>(&'c self, names: &'c NamePair, jwt: &'c str, refresh_token: &'c str) -> [Cookie<'c>; 2] {
        let same_site = match self.options.same_site {
            SameSite::Strict => cookie::SameSite::Strict,
            SameSite::Lax => cookie::SameSite::Lax,
            SameSite::None => cookie::SameSite::None,
        };
        let mut pair = [Cookie::new(&names.jwt, jwt), Cookie::new(&names.refresh_token, refresh_token)];
        for cookie in &mut pair {
            cookie.set_path("/");
            cookie.set_secure(self.options.secure);
            cookie.set_same_site(same_site);
            if let Some(domain) = &self.options.domain {
                cookie.set_domain(domain);
            }
        }
        // The refresh token only: the browser SDK reads the JWT.
        pair[1].set_http_only(self.options.http_only);
        pair
    }
}

/// Writes a `Set-Cookie` field, and marks it as sensitive: HTTP/2 must not index it (RFC 7541 section 7.1.3).
pub(super) fn field(cookie: &Cookie<'_>) -> Result<HeaderValue, &'static str> {
    let mut value = HeaderValue::try_from(cookie.to_string()).map_err(|_| UNWRITABLE)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns whether all bytes are cookie-octets (RFC 6265bis section 4.1.1).
pub(crate) fn is_cookie_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x2B | 0x2D..=0x3A | 0x3C..=0x5B | 0x5D..=0x7E))
}

/// Parses Crossmint's date. An invalid or past date is ignored: a session cookie is better than a lost refresh token.
fn parse_date(text: &str) -> Option<OffsetDateTime> {
    let date = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (date > OffsetDateTime::from(clock::now())).then_some(date)
}

const UNWRITABLE: &str = "a token is empty, too long for a cookie, or has bytes that no cookie may have";

/// The value of the refresh token's cookie after cookies have contradicted each other. Never accepted, never sent.
pub(super) const CONTRADICTED: &str = "__contradicted__";

/// Browsers drop a cookie whose name and value are longer (RFC 6265bis section 5.6).
pub(crate) const MAX_COOKIE: usize = 4096;
