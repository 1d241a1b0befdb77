//! The two cookies: read from borrowed bytes, written with checked values.
//!
//! Reading follows RFC 6265bis section 5.4 with as little interpretation as possible: pairs end at `;`, only space and
//! tab are trimmed, names match byte by byte, the value is all that follows the first `=`.

use std::fmt;

use cookie::{
    Cookie,
    time::{OffsetDateTime, format_description::well_known::Rfc3339},
};
use http::{HeaderMap, HeaderValue, header::COOKIE};

use crate::{
    cookie_options::{CookieOptions, NamePair, NamePairs, SameSite},
    error::AuthErrorKind,
    secret::Secret,
    session::AuthMaterial,
};

/// Reads and writes the cookies of one configuration.
#[derive(Debug)]
pub(crate) struct Cookies {
    names: NamePairs,
    /// The bytes that the names begin with.
    initials: [u8; 4],
    options: CookieOptions,
}

impl Cookies {
    pub(crate) fn new(names: NamePairs, options: CookieOptions) -> Self {
        Self { initials: names.initials(), names, options }
    }

    /// Finds the credentials among all `Cookie` fields: HTTP/2 splits them (RFC 9113 section 8.2.3).
    pub(crate) fn read<'a>(&self, headers: &'a HeaderMap) -> Presented<'a> {
        let (mut written, mut other) = (Found::default(), Found::default());
        for field in headers.get_all(COOKIE) {
            let mut rest = Some(field.as_bytes());
            while let Some(field) = rest {
                let pair;
                (pair, rest) = match memchr::memchr(b';', field) {
                    Some(end) => (&field[..end], Some(&field[end + 1..])),
                    None => (field, None),
                };
                let pair = trim(pair);
                // Foreign cookies, which may be many, cost no more than this.
                if !pair.first().is_some_and(|first| self.initials.contains(first)) {
                    continue;
                }
                if !written.take(&self.names.written, pair)
                    && let Some(names) = &self.names.other
                {
                    other.take(names, pair);
                }
            }
        }
        let carried = Carried {
            jwt: written.jwt != Slot::Absent,
            refresh_token: written.refresh_token != Slot::Absent,
            other_jwt: other.jwt != Slot::Absent,
            other_refresh_token: other.refresh_token != Slot::Absent,
            duplicates: written.is_ambiguous() || other.is_ambiguous(),
            may_be_partial: false,
        };
        // An unscoped JWT is never paired with a scoped refresh token: they may be two users'.
        if self.names.reads_other && written.refresh_token == Slot::Absent {
            written.refresh_token = other.refresh_token;
            if written.jwt == Slot::Absent {
                written.jwt = other.jwt;
            }
        }
        Presented { jwt: written.jwt, refresh_token: written.refresh_token, carried }
    }

    /// Builds the `Set-Cookie` fields that store `material`.
    ///
    /// # Errors
    ///
    /// When a value is not made of cookie-octets (RFC 6265bis section 4.1.1) or too long for browsers to keep: written
    /// anyway, it could add attributes, or vanish.
    pub(crate) fn store(&self, material: &AuthMaterial) -> Result<[HeaderValue; 2], &'static str> {
        let NamePair { jwt, refresh_token } = &self.names.written;
        let secret = material.refresh_token().secret();
        for (name, value) in [(jwt, material.jwt()), (refresh_token, secret)] {
            if value.is_empty() || !is_cookie_value(value.as_bytes()) || name.len() + value.len() > MAX_COOKIE {
                return Err(NOT_WRITABLE);
            }
        }
        let mut renewable = self.refresh_cookie(&self.names.written);
        renewable.set_value(secret);
        if let Some(expires_at) = material.refresh_token().expires_at().and_then(parse_date) {
            renewable.set_expires(expires_at);
        }
        Ok([header(&self.cookie(jwt, material.jwt()))?, header(&renewable)?])
    }

    /// Builds the `Set-Cookie` fields that delete what the request carried.
    ///
    /// The configured pair always, unless the request may be partial; the other pair if it came along; where there is a domain and cookies contradict each
    /// other, their host-only twins too, which an earlier configuration may have left.
    pub(crate) fn clear(&self, carried: Carried) -> Vec<HeaderValue> {
        let is_cleared = |came: bool| came || !carried.may_be_partial;
        let mut cleared = Vec::new();
        cleared.extend(is_cleared(carried.jwt).then(|| self.cookie(&self.names.written.jwt, "")));
        cleared.extend(is_cleared(carried.refresh_token).then(|| self.refresh_cookie(&self.names.written)));
        if let Some(other) = &self.names.other {
            cleared.extend(carried.other_jwt.then(|| self.cookie(&other.jwt, "")));
            cleared.extend(carried.other_refresh_token.then(|| self.refresh_cookie(other)));
        }
        if carried.duplicates && self.options.domain.is_some() {
            for index in 0..cleared.len() {
                let mut twin = cleared[index].clone();
                twin.unset_domain();
                cleared.push(twin);
            }
        }
        for cookie in &mut cleared {
            cookie.set_expires(OffsetDateTime::UNIX_EPOCH);
        }
        cleared.iter().filter_map(|cookie| header(cookie).ok()).collect()
    }

    /// Tells whether two `Set-Cookie` fields are about cookies of one name.
    pub(crate) fn same_cookie(a: &HeaderValue, b: &HeaderValue) -> bool {
        fn name(field: &HeaderValue) -> &[u8] {
            let end = memchr::memchr2(b'=', b';', field.as_bytes()).unwrap_or(field.len());
            field.as_bytes()[..end].trim_ascii()
        }
        name(a) == name(b)
    }

    fn refresh_cookie<'c>(&self, names: &'c NamePair) -> Cookie<'c> {
        let mut cookie = self.cookie(&names.refresh_token, "");
        cookie.set_http_only(self.options.http_only);
        cookie
    }

    fn cookie<'c>(&self, name: &'c str, value: &'c str) -> Cookie<'c> {
        let mut cookie = Cookie::new(name, value);
        cookie.set_path("/");
        cookie.set_secure(self.options.secure);
        cookie.set_same_site(match self.options.same_site {
            SameSite::Strict => cookie::SameSite::Strict,
            SameSite::Lax => cookie::SameSite::Lax,
            SameSite::None => cookie::SameSite::None,
        });
        if let Some(domain) = &self.options.domain {
            cookie.set_domain(domain.clone());
        }
        cookie
    }
}

/// The credentials of one request, as they came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented<'a> {
    pub(crate) jwt: Slot<'a>,
    pub(crate) refresh_token: Slot<'a>,
    pub(crate) carried: Carried,
}

impl<'a> Presented<'a> {
    /// Takes credentials that came without cookies. Empty ones are absent.
    pub(crate) fn pair(jwt: &'a [u8], refresh_token: &'a [u8]) -> Self {
        let slot = |value: &'a [u8]| if value.is_empty() { Slot::Absent } else { Slot::One(value) };
        Self { jwt: slot(jwt), refresh_token: slot(refresh_token), carried: Carried::default() }
    }

    /// Returns the one refresh token. Ambiguous cookies, the JWT's included, refuse the request.
    pub(crate) fn one_refresh_token(&self) -> Result<Option<&'a [u8]>, AuthErrorKind> {
        match (self.jwt, self.refresh_token) {
            (Slot::Ambiguous, _) | (_, Slot::Ambiguous) => Err(AuthErrorKind::AmbiguousCredentials),
            (_, Slot::Absent) => Ok(None),
            (_, Slot::One(token)) => Ok(Some(token)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jwt == Slot::Absent && self.refresh_token == Slot::Absent
    }
}

/// Which cookies came along: what is to be deleted when the session ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    jwt: bool,
    refresh_token: bool,
    other_jwt: bool,
    other_refresh_token: bool,
    duplicates: bool,
    may_be_partial: bool,
}

impl Carried {
    /// Marks the cookies of a request from another site.
    ///
    /// Browsers withhold SameSite cookies from it, and accept `Set-Cookie` in its response (RFC 6265bis section 5.7). To
    /// delete a cookie that did not come along would let any site end a session that it cannot use.
    pub(crate) fn partial(self) -> Self {
        Self { may_be_partial: true, ..self }
    }
}

/// What came under one name.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Slot<'a> {
    #[default]
    Absent,
    One(&'a [u8]),
    Ambiguous,
}

impl Slot<'_> {
    /// Copies what came, if it is one value, and text.
    pub(crate) fn text(self) -> Option<Secret> {
        match self {
            Slot::One(value) => std::str::from_utf8(value).ok().map(Into::into),
            Slot::Absent | Slot::Ambiguous => None,
        }
    }
}

impl fmt::Debug for Slot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Slot::Absent => "Absent",
            Slot::One(_) => "One(***)",
            Slot::Ambiguous => "Ambiguous",
        })
    }
}

#[derive(Default)]
struct Found<'a> {
    jwt: Slot<'a>,
    refresh_token: Slot<'a>,
}

impl<'a> Found<'a> {
    /// Takes a pair, if it goes by one of the names.
    fn take(&mut self, names: &NamePair, pair: &'a [u8]) -> bool {
        let (slot, value) = if let Some(value) = value(pair, &names.jwt) {
            (&mut self.jwt, value)
        } else if let Some(value) = value(pair, &names.refresh_token) {
            (&mut self.refresh_token, value)
        } else {
            return false;
        };
        match *slot {
            _ if value.is_empty() => {}
            Slot::Absent => *slot = Slot::One(value),
            Slot::One(first) if first == value => {}
            Slot::One(_) | Slot::Ambiguous => *slot = Slot::Ambiguous,
        }
        true
    }

    fn is_ambiguous(&self) -> bool {
        self.jwt == Slot::Ambiguous || self.refresh_token == Slot::Ambiguous
    }
}

/// Tells whether all bytes are cookie-octets (RFC 6265bis section 4.1.1).
pub(crate) fn is_cookie_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x2B | 0x2D..=0x3A | 0x3C..=0x5B | 0x5D..=0x7E))
}

/// Returns the value of a pair that goes by this name. What has no `=` has no name, and is nobody's.
fn value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let rest = trim(pair.strip_prefix(name.as_bytes())?);
    rest.strip_prefix(b"=").map(trim)
}

/// Trims space and tab, and nothing else: Unicode white space would let a sibling domain forge a prefixed name.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Reads Crossmint's date. One that is odd or past is left out: a session cookie loses less than a lost token.
fn parse_date(text: &str) -> Option<OffsetDateTime> {
    let date = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (date > OffsetDateTime::now_utc()).then_some(date)
}

fn header(cookie: &Cookie<'_>) -> Result<HeaderValue, &'static str> {
    let mut value = HeaderValue::try_from(cookie.to_string()).map_err(|_| NOT_WRITABLE)?;
    value.set_sensitive(true);
    Ok(value)
}

const NOT_WRITABLE: &str = "a token is empty, too long for a cookie, or has bytes that no cookie may have";

/// Browsers drop a cookie whose name and value are longer (RFC 6265bis section 5.6).
pub(crate) const MAX_COOKIE: usize = 4096;

#[cfg(test)]
mod tests;
