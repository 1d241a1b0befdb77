//! The credentials in a request's `Cookie` fields.
//!
//! Reading follows RFC 6265bis section 5.4 with as little interpretation as possible: pairs end at `;`, only space and
//! tab are trimmed, names match byte by byte, the value is all that follows the first `=`.

use http::{HeaderMap, header::COOKIE};

use super::store::{CONTRADICTED, Cookies};
use crate::{
    config::NamePair,
    error::{AuthError, AuthErrorKind},
    secret::Secret,
};

impl Cookies {
    /// Finds the credentials among all `Cookie` fields: HTTP/2 splits them (RFC 9113 section 8.2.3).
    pub(crate) fn read<'a>(&self, headers: &'a HeaderMap) -> CookieCredentials<'a> {
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
        self.choose(written, other)
    }

    /// Ignores the unscoped pair where its JWT belongs to another project on the same domain.
    ///
    /// All projects share the unscoped names. Using another project's refresh token would spend it, and deleting its
    /// cookies would sign its user out. `is_foreign` decodes the JWT, so this is not for the path of known sessions.
    pub(crate) fn ignore_foreign(
        &self,
        credentials: &mut CookieCredentials<'_>,
        is_foreign: impl FnOnce(&[u8]) -> bool,
    ) {
        let CookieCredentials { mut written, mut other, .. } = *credentials;
        let is_written = self.names.writes_unscoped;
        let unscoped = if is_written { &mut written } else { &mut other };
        if !matches!(unscoped.jwt, Slot::One(jwt) if is_foreign(jwt)) {
            return;
        }
        *unscoped = Found::default();
        *credentials = CookieCredentials { has_foreign: is_written, ..self.choose(written, other) };
    }

    /// Chooses between the two pairs.
    fn choose<'a>(&self, written: Found<'a>, other: Found<'a>) -> CookieCredentials<'a> {
        let Found { mut jwt, mut refresh_token } = written;
        // No session can have this value. It is deleted like any other cookie as soon as it contradicts none.
        if refresh_token == Slot::One(CONTRADICTED.as_bytes()) {
            refresh_token = Slot::Ambiguous;
        }
        // An unscoped JWT is never paired with a scoped refresh token: they may be two users'.
        if !self.names.writes_unscoped && refresh_token == Slot::Absent {
            refresh_token = other.refresh_token;
            if jwt == Slot::Absent {
                jwt = other.jwt;
            }
        }
        CookieCredentials { jwt, refresh_token, written, other, has_foreign: false }
    }
}

/// The credentials of one request, and the cookies that they were chosen from.
#[derive(Clone, Copy, Default)]
pub(crate) struct CookieCredentials<'a> {
    pub(crate) jwt: Slot<&'a [u8]>,
    pub(crate) refresh_token: Slot<&'a [u8]>,
    /// Under the names that this configuration writes.
    pub(super) written: Found<'a>,
    /// Under the other names that Crossmint's SDKs use.
    pub(super) other: Found<'a>,
    /// Whether the request has another project's cookies under the names that are written.
    pub(super) has_foreign: bool,
}

impl<'a> CookieCredentials<'a> {
    /// Wraps credentials that came without cookies. Empty ones are absent.
    pub(crate) fn pair(jwt: &'a str, refresh_token: &'a str) -> Self {
        let slot = |text: &'a str| if text.is_empty() { Slot::Absent } else { Slot::One(text.as_bytes()) };
        Self { jwt: slot(jwt), refresh_token: slot(refresh_token), ..Self::default() }
    }

    /// Returns the one refresh token. Ambiguous cookies, the JWT's included, are an error.
    pub(crate) fn one_refresh_token(&self) -> Result<Option<&'a [u8]>, AuthError> {
        match (self.jwt, self.refresh_token) {
            (Slot::Ambiguous, _) | (_, Slot::Ambiguous) => Err(AuthError::of(AuthErrorKind::AmbiguousCredentials)),
            (_, Slot::Absent) => Ok(None),
            (_, Slot::One(token)) => Ok(Some(token)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jwt == Slot::Absent && self.refresh_token == Slot::Absent
    }
}

/// The values of all cookies of one name.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Slot<V> {
    #[default]
    Absent,
    One(V),
    Ambiguous,
}

impl Slot<&[u8]> {
    /// Copies the value, if there is exactly one and it is text.
    pub(crate) fn text(self) -> Option<Secret> {
        let Self::One(value) = self else { return None };
        std::str::from_utf8(value).ok().map(Into::into)
    }
}

/// The cookies of one pair of names.
#[derive(Clone, Copy, Default)]
pub(super) struct Found<'a> {
    pub(super) jwt: Slot<&'a [u8]>,
    pub(super) refresh_token: Slot<&'a [u8]>,
}

impl<'a> Found<'a> {
    /// Records a name-value pair, and returns whether it has one of the names.
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
}

/// Returns the value of a pair of this name. A pair without `=` has no name.
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
