//! The `Set-Cookie` fields that delete the cookies.
//!
//! 1. A response deletes the configured pair, and the pair of the other names if the request has it.
//! 2. Another site can cause requests without SameSite cookies. The response to one deletes only what the request has.
//! 3. A sibling subdomain can plant cookies for each parent domain, with any path. Where cookies of one name contradict each
//!    other, they are deleted for every domain and path that they can have: one that is left over would be taken for the
//!    user's own from then on.
//! 4. Proxies and nested routers hide hosts and paths, and browsers partition cookies. So where cookies are `Secure`, the
//!    user's refresh token is not deleted but overwritten: while a planted one is left, it goes on contradicting it. Where
//!    they are not, nothing is deleted unless everything can be.

use cookie::{Cookie, time::OffsetDateTime};
use http::{HeaderMap, HeaderValue, Uri, header::HOST, uri::Authority};

use super::{
    read::{CookieCredentials, Found, Slot},
    store::{CONTRADICTED, Cookies, field},
};
use crate::config::{check_domain, has_prefix};

impl Cookies {
    /// Builds the `Set-Cookie` fields that delete the cookies.
    pub(crate) fn clear(&self, scope: &ClearScope) -> Vec<HeaderValue> {
        let [jwt, refresh_token, other_jwt, other_refresh_token] = scope.occurrences;
        let is_overwritten = self.options.secure && [jwt, refresh_token].contains(&Occurrence::Differing);
        let names = &self.names.written;
        let configured = [(self.cookie(&names.jwt, ""), jwt), (self.refresh_cookie(names, ""), refresh_token)];
        let others = self.names.other.iter().flat_map(|names| {
            [(self.cookie(&names.jwt, ""), other_jwt), (self.refresh_cookie(names, ""), other_refresh_token)]
        });
        let is_cleared = |(_, occurrence): &(_, Occurrence)| *occurrence != Occurrence::None;
        let configured = configured.into_iter().filter(|cookie| !scope.is_partial || is_cleared(cookie));
        let mut cleared: Vec<_> = configured.chain(others.filter(is_cleared)).collect();
        cleared.iter_mut().for_each(|(cookie, _)| cookie.set_expires(OffsetDateTime::UNIX_EPOCH));
        let mut fields: Vec<_> = cleared.iter().filter_map(|(cookie, _)| field(cookie).ok()).collect();
        let is_complete = match &scope.reach {
            Reach::Configured => true,
            Reach::Wide { domains, paths } => self.widen(&cleared, domains, paths, &mut fields),
            Reach::TooWide => false,
        };
        if is_overwritten {
            // Behind the deletions: some clients take a cookie for the host as a domain for the same one.
            fields.extend(field(&self.refresh_cookie(names, CONTRADICTED)));
        }
        if is_complete || is_overwritten || scope.is_logout { fields } else { Vec::new() }
    }

    /// Adds deletions for other domains and paths that a cookie of the request may have. Returns whether all of them fit.
    fn widen(
        &self,
        cleared: &[(Cookie<'_>, Occurrence)],
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
            for (cookie, occurrence) in cleared {
                // Browsers keep no cookies of such names elsewhere.
                if has_prefix(cookie.name(), "__Host-") || !(is_own || *occurrence == Occurrence::Differing) {
                    continue;
                }
                let mut cookie = cookie.clone();
                cookie.set_path(path.to_owned());
                match domain {
                    Some(domain) => cookie.set_domain(domain.to_owned()),
                    None => cookie.unset_domain(),
                }
                let Ok(deletion) = field(&cookie) else { continue };
                bytes += deletion.len();
                if bytes > MAX_WIDENED {
                    return false;
                }
                fields.push(deletion);
            }
        }
        true
    }
}

/// Which cookies to delete, and where.
#[derive(Debug, Default)]
pub(crate) struct ClearScope {
    /// The JWT and the refresh token under the names that are written, then under the other names.
    occurrences: [Occurrence; 4],
    reach: Reach,
    /// Leaves the configured pair alone unless the request has it.
    is_partial: bool,
    /// Deletes the configured pair even if cookies are left over.
    is_logout: bool,
}

/// How many values the cookies of one name have in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Occurrence {
    #[default]
    None,
    One,
    Differing,
}

/// The domains and paths that cookies are deleted for.
#[derive(Debug, Default)]
enum Reach {
    /// Where this configuration sets them.
    #[default]
    Configured,
    /// For each of these domains, and for `/` and each of these paths.
    Wide { domains: Vec<String>, paths: Vec<String> },
    /// There may be more of them than a response can name.
    TooWide,
}

impl ClearScope {
    /// Covers the cookies of a request.
    pub(crate) fn new(credentials: &CookieCredentials<'_>, uri: &Uri, headers: &HeaderMap) -> Self {
        let CookieCredentials { written, other, has_foreign, .. } = credentials;
        let slots = [written, other].map(|Found { jwt, refresh_token }| [*jwt, *refresh_token]);
        let occurrences = slots.as_flattened().iter().map(|slot| match slot {
            Slot::Absent => Occurrence::None,
            Slot::One(_) => Occurrence::One,
            Slot::Ambiguous => Occurrence::Differing,
        });
        let mut scope = Self { is_partial: *has_foreign, ..Self::default() };
        scope.occurrences.iter_mut().zip(occurrences).for_each(|(place, occurrence)| *place = occurrence);
        if scope.occurrences.contains(&Occurrence::Differing) {
            scope.reach = Reach::of(uri, headers);
        }
        scope
    }

    /// Deletes the configured pair in any case: the user wants to sign out.
    pub(crate) fn for_logout(self) -> Self {
        Self { is_logout: true, ..self }
    }

    /// Leaves out what a request from another site does not have.
    ///
    /// Browsers withhold SameSite cookies from it, and accept `Set-Cookie` in its response (RFC 6265bis section 5.7).
    /// Deleting more than it has would let any site end a session that it cannot use.
    pub(crate) fn partial(self) -> Self {
        Self { is_partial: true, ..self }
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
        Self::Wide { domains, paths: prefixes.chain(whole).filter(is_kept).map(ToOwned::to_owned).collect() }
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

/// Proxies do not accept response heads of any size: where cookies contradict each other, this many bytes are added at most.
const MAX_WIDENED: usize = 3 << 10;
const MAX_SEGMENTS: usize = 16;
const MAX_ATTRIBUTE: usize = 1024;
const MAX_DOMAINS: usize = 16;
