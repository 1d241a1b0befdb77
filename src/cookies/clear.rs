//! The `Set-Cookie` fields that delete the cookies.
//!
//! 1. A response deletes the configured pair, and the pair of the other names if the request has it.
//! 2. Another site can cause requests without SameSite cookies. The response to one deletes only what the request has.
//! 3. A sibling subdomain can plant cookies for each parent domain, with any path. Where cookies of one name contradict
//!    each other, they are deleted for every domain and path that they can have: one that is left over would be taken
//!    for the user's own from then on.
//! 4. Proxies and nested routers hide hosts and paths, and browsers partition cookies. So where cookies are `Secure`,
//!    the user's refresh token is not deleted but overwritten: while a planted one remains, the two differ and requests
//!    are rejected. Where they are not, nothing is deleted unless everything can be.

use cookie::{Cookie, time::OffsetDateTime};
use http::{HeaderMap, HeaderValue, Uri, header::HOST, uri::Authority};

use super::{
    read::{CookieCredentials, Slot},
    store::{CONTRADICTED, Cookies, field},
};
use crate::config::{check_domain, has_prefix};

impl Cookies {
    /// Builds the `Set-Cookie` fields that delete the cookies.
    pub(crate) fn clear(&self, scope: &ClearScope) -> Vec<HeaderValue> {
        let written = &self.names.written;
        let pairs = [Some(written), self.names.other.as_ref()].into_iter().flatten();
        let cookies = pairs.flat_map(|names| self.pair(names, "", "")).zip(scope.slots).enumerate();
        let mut cleared: Vec<_> = cookies
            .filter(|(index, (_, slot))| *slot != Slot::Absent || (*index < 2 && !scope.is_partial))
            .map(|(_, cookie)| cookie)
            .collect();
        cleared.iter_mut().for_each(|(cookie, _)| cookie.set_expires(OffsetDateTime::UNIX_EPOCH));
        let mut fields: Vec<_> = cleared.iter().filter_map(|(cookie, _)| field(cookie).ok()).collect();
        let is_complete = !scope.slots.contains(&Slot::Ambiguous)
            || scope.reach.as_ref().is_some_and(|reach| self.widen(&cleared, reach, &mut fields));
        let is_overwritten = self.options.secure && scope.slots[..2].contains(&Slot::Ambiguous);
        if is_overwritten {
            // Behind the deletions: some clients take a cookie for the host as a domain for the same one.
            let [_, contradicted] = self.pair(written, "", CONTRADICTED);
            fields.extend(field(&contradicted));
        }
        if is_complete || is_overwritten || scope.is_logout { fields } else { Vec::new() }
    }

    /// Adds deletions for other domains and paths that a cookie of the request may have. Returns whether all of them
    /// fit.
    fn widen(&self, cleared: &[(Cookie<'_>, Slot<()>)], reach: &Reach, fields: &mut Vec<HeaderValue>) -> bool {
        let configured = self.options.domain.as_deref().map(|domain| domain.trim_start_matches('.'));
        let is_other = |domain: &&str| configured.is_none_or(|configured| !configured.eq_ignore_ascii_case(domain));
        let others = reach.domains.iter().map(String::as_str).filter(is_other);
        let domains = || [None].into_iter().chain(configured.into_iter().chain(others.clone()).map(Some));
        let paths = std::iter::once("/").chain(reach.paths.iter().map(String::as_str));
        let places = paths.flat_map(|path| domains().map(move |domain| (path, domain)));
        let mut bytes = 0;
        for (path, domain) in places.filter(|place| *place != ("/", configured)) {
            // An earlier configuration may have set all of them for this host, at `/`.
            let is_own = (path, domain) == ("/", None);
            for (cookie, slot) in cleared {
                // Browsers keep no cookies of such names elsewhere.
                if has_prefix(cookie.name(), "__Host-") || !(is_own || *slot == Slot::Ambiguous) {
                    continue;
                }
                let mut cookie = cookie.clone();
                cookie.set_path(path);
                cookie.unset_domain();
                if let Some(domain) = domain {
                    cookie.set_domain(domain);
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
#[derive(Default)]
pub(crate) struct ClearScope {
    /// The JWT and the refresh token under the names that are written, then under the other names.
    slots: [Slot<()>; 4],
    /// Where cookies that contradict each other may be. `None` if a response cannot name all of these places.
    reach: Option<Reach>,
    /// Leaves the configured pair alone unless the request has it.
    ///
    /// Browsers withhold SameSite cookies from a request that another site causes, and accept `Set-Cookie` in its
    /// response (RFC 6265bis section 5.7). Deleting more than it has would let any site end a session that it cannot
    /// use.
    pub(crate) is_partial: bool,
    /// Deletes the configured pair even if cookies are left over: the user wants to sign out.
    pub(crate) is_logout: bool,
}

/// The domains that cookies are deleted for, and the paths, apart from `/`.
struct Reach {
    domains: Vec<String>,
    paths: Vec<String>,
}

impl ClearScope {
    /// Covers the cookies of a request.
    pub(crate) fn new(credentials: &CookieCredentials<'_>, uri: &Uri, headers: &HeaderMap) -> Self {
        let CookieCredentials { written, other, has_foreign, .. } = credentials;
        let slots = [written.jwt, written.refresh_token, other.jwt, other.refresh_token].map(|slot| match slot {
            Slot::Absent => Slot::Absent,
            Slot::One(_) => Slot::One(()),
            Slot::Ambiguous => Slot::Ambiguous,
        });
        let reach = if slots.contains(&Slot::Ambiguous) { Reach::of(uri, headers) } else { None };
        Self { slots, reach, is_partial: *has_foreign, is_logout: false }
    }
}

impl Reach {
    /// Finds all domains and paths of cookies that browsers send with this request (RFC 6265bis sections 5.1.3, 5.1.4).
    fn of(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let domains = parent_domains(uri, headers);
        if domains.is_empty() {
            // No sibling can have set them: an earlier configuration of the domain has.
            return Some(Self { domains, paths: Vec::new() });
        }
        let path = uri.path();
        let slashes = || memchr::memchr_iter(b'/', path.as_bytes()).skip(1);
        if slashes().count() >= MAX_SEGMENTS {
            return None;
        }
        let prefixes = slashes().flat_map(|slash| [&path[..slash], &path[..=slash]]);
        let whole = (!path.ends_with('/')).then_some(path);
        // An attribute's value ends at a semicolon, and browsers ignore one of more than 1 KiB (RFC 6265bis section
        // 5.6).
        let is_kept = |path: &&str| path.starts_with('/') && !path.contains(';') && path.len() <= MAX_ATTRIBUTE;
        Some(Self { domains, paths: prefixes.chain(whole).filter(is_kept).map(ToOwned::to_owned).collect() })
    }
}

/// Returns the host that a request was sent to, and its parent domains of two labels at least.
///
/// The client chooses the field: an invalid or missing host has no domains.
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
    let domains = std::iter::successors(Some(host.as_str()), |domain| Some(domain.split_once('.')?.1));
    domains.filter(|domain| domain.contains('.')).take(MAX_DOMAINS).map(ToOwned::to_owned).collect()
}

/// Proxies do not accept response heads of any size: where cookies contradict each other, this many bytes are added at
/// most.
const MAX_WIDENED: usize = 3 << 10;
const MAX_SEGMENTS: usize = 16;
const MAX_ATTRIBUTE: usize = 1024;
const MAX_DOMAINS: usize = 16;
