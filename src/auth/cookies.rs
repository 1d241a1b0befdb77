//! The two cookies: read from borrowed bytes, written with checked values.
//!
//! Reading follows RFC 6265bis section 5.4 with as little interpretation as possible: pairs end at `;`, only space and
//! tab are trimmed, names match byte by byte, the value is all that follows the first `=`.

use std::fmt;

use cookie::{
    Cookie,
    time::{OffsetDateTime, format_description::well_known::Rfc3339},
};
use http::{
    HeaderMap, HeaderValue, Uri,
    header::{COOKIE, HOST},
    uri::Authority,
};

use crate::{
    clock,
    cookie_options::{CookieOptions, NamePair, NamePairs, SameSite, Unscoped, check_domain, has_prefix},
    error::{AuthError, AuthErrorKind},
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
            jwt: written.jwt.into(),
            refresh_token: written.refresh_token.into(),
            other_jwt: other.jwt.into(),
            other_refresh_token: other.refresh_token.into(),
            may_be_partial: false,
        };
        // Once it is alone, it is deleted as usual.
        if written.refresh_token == Slot::One(CONTRADICTED.as_bytes()) {
            written.refresh_token = Slot::Ambiguous;
        }
        let unscoped_jwt = match self.names.unscoped() {
            Some(Unscoped::Written) => written.jwt,
            Some(Unscoped::Other) => other.jwt,
            None => Slot::Absent,
        };
        // An unscoped JWT is never paired with a scoped refresh token: they may be two users'.
        if self.names.reads_other && written.refresh_token == Slot::Absent {
            written.refresh_token = other.refresh_token;
            if written.jwt == Slot::Absent {
                written.jwt = other.jwt;
            }
        }
        Presented { jwt: written.jwt, refresh_token: written.refresh_token, carried, unscoped_jwt }
    }

    /// Leaves out the unscoped pair where its JWT is a neighbour's.
    ///
    /// Projects that share a domain share the unscoped names. To use a neighbour's refresh token would spend it, and to
    /// delete its cookies would sign its user out. It takes a look into the JWT, and is not for the path of known sessions.
    pub(crate) fn leave_out(&self, presented: &mut Presented<'_>, is_neighbours: impl FnOnce(&[u8]) -> bool) {
        let Slot::One(unscoped_jwt) = std::mem::take(&mut presented.unscoped_jwt) else { return };
        if !is_neighbours(unscoped_jwt) {
            return;
        }
        let carried = &mut presented.carried;
        match self.names.unscoped() {
            Some(Unscoped::Other) => {
                if carried.refresh_token == Came::No {
                    presented.refresh_token = Slot::Absent;
                }
                if carried.jwt == Came::No {
                    presented.jwt = Slot::Absent;
                }
                carried.other_jwt = Came::No;
                carried.other_refresh_token = Came::No;
            }
            Some(Unscoped::Written) => {
                (presented.jwt, presented.refresh_token) = (Slot::Absent, Slot::Absent);
                carried.jwt = Came::No;
                carried.refresh_token = Came::No;
                carried.may_be_partial = true;
            }
            None => {}
        }
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
    /// The configured pair always, unless the request may be partial; the other pair if it came along.
    ///
    /// A sibling subdomain can plant cookies for each parent domain, and with any path. Where cookies of one name
    /// contradict each other, they are deleted wherever they can have been set: one that is left over would be taken for
    /// the user's own from then on. Proxies and nested routers hide hosts and paths, and browsers partition cookies. So the
    /// user's refresh token is not deleted but overwritten, where cookies are `Secure`: while a planted one is left, it goes
    /// on contradicting it. Without that, nothing is deleted unless everything can be.
    pub(crate) fn clear(&self, scope: &ClearScope) -> Vec<HeaderValue> {
        let carried = scope.carried;
        let is_cleared = |came: Came| came != Came::No || !carried.may_be_partial;
        let is_overwritten = self.options.secure && [carried.jwt, carried.refresh_token].contains(&Came::Differing);
        let mut cleared = Vec::with_capacity(4);
        if is_cleared(carried.jwt) {
            cleared.push((self.cookie(&self.names.written.jwt, ""), carried.jwt));
        }
        if is_cleared(carried.refresh_token) {
            cleared.push((self.refresh_cookie(&self.names.written), carried.refresh_token));
        }
        if let Some(other) = &self.names.other {
            let others = [(self.cookie(&other.jwt, ""), carried.other_jwt)];
            let others = others.into_iter().chain([(self.refresh_cookie(other), carried.other_refresh_token)]);
            cleared.extend(others.filter(|(_, came)| *came != Came::No));
        }
        cleared.iter_mut().for_each(|(cookie, _)| cookie.set_expires(OffsetDateTime::UNIX_EPOCH));
        let mut fields: Vec<HeaderValue> = cleared.iter().filter_map(|(cookie, _)| header(cookie).ok()).collect();
        let is_complete = match &scope.reach {
            Reach::Configured => true,
            Reach::Wide { domains, paths } => self.widen(&cleared, domains, paths, &mut fields),
            Reach::TooWide => false,
        };
        if is_overwritten {
            // Behind the deletions: some clients take a cookie for the host as a domain for the same one.
            let mut overwritten = self.refresh_cookie(&self.names.written);
            overwritten.set_value(CONTRADICTED);
            fields.extend(header(&overwritten));
        }
        if is_complete || is_overwritten || scope.is_logout { fields } else { Vec::new() }
    }

    /// Adds deletions for other places in which a cookie may have been set that came along. Tells whether they are all.
    fn widen(
        &self,
        cleared: &[(Cookie<'_>, Came)],
        domains: &[String],
        paths: &[String],
        fields: &mut Vec<HeaderValue>,
    ) -> bool {
        let configured = self.options.domain.as_deref().map(|domain| domain.trim_start_matches('.'));
        let others = domains
            .iter()
            .map(String::as_str)
            .filter(|domain| configured.is_none_or(|configured| !configured.eq_ignore_ascii_case(domain)));
        let domains = || std::iter::once(None).chain(configured.map(Some)).chain(others.clone().map(Some));
        let paths = std::iter::once("/").chain(paths.iter().map(String::as_str));
        let places = paths.flat_map(|path| domains().map(move |domain| (path, domain)));
        let mut bytes = 0;
        for (path, domain) in places.filter(|place| *place != ("/", configured)) {
            // An earlier configuration may have set all of them for this host, at `/`.
            let is_own = (path, domain) == ("/", None);
            for (cookie, came) in cleared {
                // Browsers keep no cookies of such names elsewhere.
                if has_prefix(cookie.name(), "__Host-") || !(is_own || *came == Came::Differing) {
                    continue;
                }
                let mut cookie = cookie.clone();
                cookie.set_path(path.to_owned());
                match domain {
                    Some(domain) => cookie.set_domain(domain.to_owned()),
                    None => cookie.unset_domain(),
                }
                let Ok(field) = header(&cookie) else { continue };
                bytes += field.len();
                if bytes > MAX_WIDENED {
                    return false;
                }
                fields.push(field);
            }
        }
        true
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
    unscoped_jwt: Slot<'a>,
}

impl<'a> Presented<'a> {
    /// Takes credentials that came without cookies. Empty ones are absent.
    pub(crate) fn pair(jwt: &'a [u8], refresh_token: &'a [u8]) -> Self {
        let slot = |value: &'a [u8]| if value.is_empty() { Slot::Absent } else { Slot::One(value) };
        let (jwt, refresh_token) = (slot(jwt), slot(refresh_token));
        Self { jwt, refresh_token, carried: Carried::default(), unscoped_jwt: Slot::Absent }
    }

    /// Returns the one refresh token. Ambiguous cookies, the JWT's included, refuse the request.
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

/// Which cookies came along.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    jwt: Came,
    refresh_token: Came,
    other_jwt: Came,
    other_refresh_token: Came,
    may_be_partial: bool,
}

/// Whether cookies of one name came along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Came {
    #[default]
    No,
    Once,
    Differing,
}

impl From<Slot<'_>> for Came {
    fn from(slot: Slot<'_>) -> Self {
        match slot {
            Slot::Absent => Self::No,
            Slot::One(_) => Self::Once,
            Slot::Ambiguous => Self::Differing,
        }
    }
}

/// What is to be deleted when the session ends.
#[derive(Debug, Default)]
pub(crate) struct ClearScope {
    carried: Carried,
    reach: Reach,
    is_logout: bool,
}

/// Where the cookies are deleted that came along.
#[derive(Debug, Default)]
enum Reach {
    /// Where this configuration sets them.
    #[default]
    Configured,
    /// For each of these domains, and for `/` and each of these paths.
    Wide { domains: Vec<String>, paths: Vec<String> },
    /// They may be in more places than a response can name.
    TooWide,
}

impl ClearScope {
    pub(crate) fn new(carried: Carried, uri: &Uri, headers: &HeaderMap) -> Self {
        let Carried { jwt, refresh_token, other_jwt, other_refresh_token, .. } = carried;
        let is_ambiguous = [jwt, refresh_token, other_jwt, other_refresh_token].contains(&Came::Differing);
        let reach = if is_ambiguous { Reach::of(uri, headers) } else { Reach::Configured };
        Self { carried, reach, is_logout: false }
    }

    /// Deletes the configured pair in any case: the user wants to leave.
    pub(crate) fn for_logout(mut self) -> Self {
        self.is_logout = true;
        self
    }

    /// Leaves out what did not come along with a request from another site.
    ///
    /// Browsers withhold SameSite cookies from it, and accept `Set-Cookie` in its response (RFC 6265bis section 5.7). To
    /// delete a cookie that did not come along would let any site end a session that it cannot use.
    pub(crate) fn partial(mut self) -> Self {
        self.carried.may_be_partial = true;
        self
    }
}

impl Reach {
    /// Finds all domains and paths of cookies that browsers send with this request (RFC 6265bis sections 5.1.3, 5.1.4).
    fn of(uri: &Uri, headers: &HeaderMap) -> Self {
        let domains = parent_domains(uri, headers);
        if domains.is_empty() {
            // No sibling can have set them: an earlier configuration of the domain has.
            return Self::Wide { domains, paths: Vec::new() };
        }
        let path = uri.path();
        let slashes = || memchr::memchr_iter(b'/', path.as_bytes()).skip(1);
        if slashes().count() >= MAX_SEGMENTS {
            return Self::TooWide;
        }
        let prefixes = slashes().flat_map(|slash| [&path[..slash], &path[..=slash]]);
        let whole = (!path.ends_with('/')).then_some(path);
        // An attribute's value ends at a semicolon, and browsers ignore one of more than 1 KiB (RFC 6265bis section 5.6).
        let is_kept = |path: &&str| path.starts_with('/') && !path.contains(';') && path.len() <= MAX_ATTRIBUTE;
        let prefixes = prefixes.chain(whole).filter(is_kept);
        let paths = prefixes.map(ToOwned::to_owned).collect();
        Self::Wide { domains, paths }
    }
}

/// Returns the host that a request was sent to, and its parent domains of two labels at least.
///
/// The field is the client's own: of what is no domain name, or none at all, nothing is made.
fn parent_domains(uri: &Uri, headers: &HeaderMap) -> Vec<String> {
    let mut fields = headers.get_all(HOST).iter();
    let host = match (fields.next(), fields.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        (None, _) => uri.authority().cloned(),
        (Some(_), Some(_)) => None,
    };
    let host = host.map(|host| host.host().to_ascii_lowercase()).unwrap_or_default();
    if host.starts_with('.') || check_domain(&host).is_err() {
        return Vec::new();
    }
    let labels = memchr::memchr_iter(b'.', host.as_bytes()).map(|dot| dot + 1);
    let suffixes = std::iter::once(0).chain(labels).map(|start| &host[start..]);
    suffixes.filter(|domain| domain.contains('.')).take(MAX_DOMAINS).map(ToOwned::to_owned).collect()
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
    (date > OffsetDateTime::from(clock::now())).then_some(date)
}

fn header(cookie: &Cookie<'_>) -> Result<HeaderValue, &'static str> {
    let mut value = HeaderValue::try_from(cookie.to_string()).map_err(|_| NOT_WRITABLE)?;
    value.set_sensitive(true);
    Ok(value)
}

const NOT_WRITABLE: &str = "a token is empty, too long for a cookie, or has bytes that no cookie may have";

/// What the refresh token's cookie holds after cookies have contradicted each other. Never accepted, never sent.
const CONTRADICTED: &str = "__contradicted__";

/// How many bytes of deletions are added where cookies contradict each other: proxies take no heads of any size.
const MAX_WIDENED: usize = 3 << 10;
const MAX_SEGMENTS: usize = 16;
const MAX_ATTRIBUTE: usize = 1024;
const MAX_DOMAINS: usize = 16;

/// Browsers drop a cookie whose name and value are longer (RFC 6265bis section 5.6).
pub(crate) const MAX_COOKIE: usize = 4096;

#[cfg(test)]
mod tests;
