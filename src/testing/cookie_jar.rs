//! A browser's cookies, by the storage and retrieval models of RFC 6265bis (sections 5.7 and 5.8).

use cookie::{Cookie, SameSite, time::OffsetDateTime};
use reqwest::Url;

use crate::{
    config::has_prefix,
    host::{self, domain_matches},
};

/// The cookies, in the order of their creation.
#[derive(Default)]
pub(crate) struct CookieJar(Vec<StoredCookie>);

struct StoredCookie {
    name: String,
    value: String,
    domain: String,
    is_host_only: bool,
    path: String,
    is_secure: bool,
    is_http_only: bool,
    same_site: SameSite,
    /// `None` for a cookie that lasts until the browser is closed.
    expires: Option<OffsetDateTime>,
}

/// How a request relates to the page that causes it, as far as the attribute `SameSite` distinguishes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Initiator {
    /// A page of the same site, or the user.
    SameSite,
    /// Another site, which navigates the user by a safe method.
    Link,
    /// Another site, which navigates the user by another method.
    Form,
    /// A script or an embedded element of another site.
    Subresource,
}

impl CookieJar {
    /// Stores the cookie of a `Set-Cookie` field, replaces or deletes an earlier one, or ignores the field.
    pub(crate) fn store(&mut self, set_cookie: &str, url: &Url, initiator: Initiator) {
        let Some(new) = StoredCookie::parse(set_cookie, url) else { return };
        if initiator == Initiator::Subresource && new.same_site != SameSite::None {
            return;
        }
        // An insecure page cannot replace or hide a secure cookie.
        let hides = |old: &StoredCookie| {
            old.is_secure
                && old.name == new.name
                && (domain_matches(&old.domain, &new.domain) || domain_matches(&new.domain, &old.domain))
                && path_matches(&new.path, &old.path)
        };
        if url.scheme() != "https" && self.0.iter().any(hides) {
            return;
        }
        let is_same = |old: &StoredCookie| {
            (&old.name, &old.domain, old.is_host_only, &old.path)
                == (&new.name, &new.domain, new.is_host_only, &new.path)
        };
        match self.0.iter().position(is_same) {
            Some(at) => self.0[at] = new,
            None => self.0.push(new),
        }
        self.0.retain(|cookie| !cookie.has_expired());
    }

    /// Returns the `Cookie` field of a request, which is empty if there are no cookies for it.
    pub(crate) fn header(&self, url: &Url, initiator: Initiator) -> String {
        self.pairs(url, |cookie| match initiator {
            Initiator::SameSite => true,
            Initiator::Link => cookie.same_site != SameSite::Strict,
            Initiator::Form | Initiator::Subresource => cookie.same_site == SameSite::None,
        })
    }

    /// Returns what scripts of a page can read.
    pub(crate) fn document(&self, url: &Url) -> String {
        self.pairs(url, |cookie| !cookie.is_http_only)
    }

    /// Deletes the cookies without an expiry date, as closing the browser does.
    pub(crate) fn end_session(&mut self) {
        self.0.retain(|cookie| cookie.expires.is_some());
    }

    fn pairs(&self, url: &Url, is_visible: impl Fn(&StoredCookie) -> bool) -> String {
        let visible = |cookie: &&StoredCookie| cookie.is_for(url) && !cookie.has_expired() && is_visible(cookie);
        let mut cookies: Vec<_> = self.0.iter().filter(visible).collect();
        // Stable: cookies with paths of the same length stay in the order of their creation.
        cookies.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<_> = cookies.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        pairs.join("; ")
    }
}

impl StoredCookie {
    /// Parses a cookie, and applies all rules that do not depend on other cookies or on the initiator.
    fn parse(set_cookie: &str, url: &Url) -> Option<Self> {
        let cookie = Cookie::parse(set_cookie).ok()?;
        let (name, value, host) = (cookie.name(), cookie.value(), url.host_str()?);
        let is_https = url.scheme() == "https";
        let is_secure = cookie.secure() == Some(true);
        // Browsers treat a missing attribute as `Lax`.
        let same_site = cookie.same_site().unwrap_or(SameSite::Lax);
        let is_kept = name.len() + value.len() <= MAX_PAIR
            && !set_cookie.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t')
            && (is_https || !is_secure)
            && (is_secure || same_site != SameSite::None);
        if !is_kept {
            return None;
        }
        let attribute = |value: &&str| value.len() <= MAX_ATTRIBUTE;
        let domain = cookie.domain().filter(attribute).filter(|domain| !domain.is_empty()).map(str::to_ascii_lowercase);
        let domain = match domain {
            // A cookie for a public suffix is one for the host of that name.
            Some(domain) if domain == host && !domain.contains('.') => None,
            Some(domain) if domain.contains('.') && domain_matches(host, &domain) => Some(domain),
            Some(_) => return None,
            None => None,
        };
        let given_path = cookie.path().filter(attribute).filter(|path| path.starts_with('/'));
        let is_http_only = cookie.http_only() == Some(true);
        let is_for_host = domain.is_none() && given_path == Some("/");
        let keeps_promise = (is_secure || !PREFIXES.iter().any(|prefix| has_prefix(name, prefix)))
            && (is_for_host || !has_prefix(name, "__Host-"))
            && (is_http_only || !(has_prefix(name, "__Http-") || has_prefix(name, "__Host-Http-")));
        keeps_promise.then(|| Self {
            name: name.to_owned(),
            value: value.to_owned(),
            is_host_only: domain.is_none(),
            domain: domain.unwrap_or_else(|| host.to_owned()),
            path: given_path.map_or_else(|| default_path(url.path()).to_owned(), ToOwned::to_owned),
            is_secure,
            is_http_only,
            same_site,
            expires: match cookie.max_age() {
                Some(age) => Some(OffsetDateTime::now_utc().saturating_add(age)),
                None => cookie.expires_datetime(),
            },
        })
    }

    fn is_for(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let is_domain = if self.is_host_only { host == self.domain } else { domain_matches(host, &self.domain) };
        is_domain && path_matches(url.path(), &self.path) && (!self.is_secure || url.scheme() == "https")
    }

    fn has_expired(&self) -> bool {
        self.expires.is_some_and(|expires| expires <= OffsetDateTime::now_utc())
    }
}

/// Returns whether two URLs belong to one site: scheme and registrable domain are equal.
///
/// The registrable domain is taken to be the last two labels, for want of the public suffix list.
pub(crate) fn is_same_site(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme() && registrable_domain(one) == registrable_domain(other)
}

fn registrable_domain(url: &Url) -> &str {
    let host = url.host_str().unwrap_or_default();
    match host.rmatch_indices('.').nth(1) {
        Some((dot, _)) if host::address(host).is_none() => &host[dot + 1..],
        _ => host,
    }
}

/// RFC 6265bis, section 5.1.4.
fn path_matches(request: &str, cookie: &str) -> bool {
    let rest = request.strip_prefix(cookie);
    rest.is_some_and(|rest| rest.is_empty() || cookie.ends_with('/') || rest.starts_with('/'))
}

/// RFC 6265bis, section 5.1.4.
fn default_path(request: &str) -> &str {
    match request.rfind('/') {
        Some(slash) if slash > 0 => &request[..slash],
        _ => "/",
    }
}

const PREFIXES: [&str; 3] = ["__Secure-", "__Host-", "__Http-"];

/// The limits of RFC 6265bis, section 5.6.
const MAX_PAIR: usize = 4096;
const MAX_ATTRIBUTE: usize = 1024;
