//! Hosts, as URLs and header fields write them.

use std::net::IpAddr;

/// Returns the address that a host is, if it is one. IPv6 addresses are in brackets.
pub(crate) fn address(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

/// Returns whether browsers treat plain HTTP to a host in lower case as secure (Secure Contexts, section 3.1).
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost") || address(host).is_some_and(|address| address.is_loopback())
}

/// Returns whether a host is a domain or one under it, both in lower case (RFC 6265bis, section 5.1.3).
pub(crate) fn domain_matches(host: &str, domain: &str) -> bool {
    host == domain || (host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')) && address(host).is_none())
}
