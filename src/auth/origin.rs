//! Which requests to the two routes come from another site.
//!
//! `Sec-Fetch-Site` decides where it is present: browsers write it, scripts cannot. Else `Origin` is compared with the
//! host. A request with neither comes from no browser page, or from one so old that `SameSite` has to do.

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{HOST, ORIGIN},
};

/// Tells whether a request may change the session.
pub(crate) fn is_allowed(uri: &Uri, headers: &HeaderMap, trusted: &[String]) -> bool {
    let origin = match single(headers, &ORIGIN) {
        Ok(origin) => origin,
        Err(Repeated) => return false,
    };
    if origin.is_some_and(|origin| trusted.iter().any(|trusted| origin == trusted.as_str())) {
        return true;
    }
    match (single(headers, &SEC_FETCH_SITE), origin) {
        (Err(Repeated), _) => false,
        (Ok(Some(site)), _) => site == "same-origin" || site == "none",
        (Ok(None), Some(origin)) => is_own(origin, uri, headers),
        (Ok(None), None) => true,
    }
}

/// Compares an `Origin` with the host that the request was sent to. The scheme is not known behind a proxy that ends
/// TLS, so a default port may be written or not.
fn is_own(origin: &HeaderValue, uri: &Uri, headers: &HeaderMap) -> bool {
    let Some((scheme, authority)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    let host = match single(headers, &HOST) {
        Ok(Some(host)) => host.to_str().ok(),
        Ok(None) => uri.authority().map(|authority| authority.as_str()),
        Err(Repeated) => None,
    };
    let Some(host) = host else { return false };
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return false,
    };
    let bare = |authority: &str| authority.strip_suffix(default_port).unwrap_or(authority).to_ascii_lowercase();
    bare(authority) == bare(host)
}

struct Repeated;

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Repeated> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(Repeated) } else { Ok(first) }
}

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_site_and_trusted_ones_are_allowed() {
        let host = Some("app.example:8080");
        let (own, foreign, trusted) = ("http://app.example:8080", "https://evil.example", "https://other.example");
        let cases = [
            ("no browser", host, None, None, true),
            ("the page itself", host, Some("same-origin"), Some(own), true),
            ("the user", host, Some("none"), None, true),
            ("a sibling", host, Some("same-site"), Some("http://b.example"), false),
            ("another site", host, Some("cross-site"), Some(foreign), false),
            ("another site that hides", host, Some("cross-site"), None, false),
            ("a word of tomorrow", host, Some("same-planet"), Some(own), false),
            ("a trusted site", host, Some("cross-site"), Some(trusted), true),
            ("a trusted site, once more specific", host, Some("cross-site"), Some("https://other.example:444"), false),
            ("an old browser's page", host, None, Some(own), true),
            ("an old browser's page, upper case", host, None, Some("http://APP.example:8080"), true),
            ("an old browser's page, another port", host, None, Some("http://app.example"), false),
            ("an old browser's other site", host, None, Some(foreign), false),
            ("an old browser's trusted site", host, None, Some(trusted), true),
            ("a sandbox", host, None, Some("null"), false),
            ("a default port, unwritten", Some("app.example"), None, Some("https://app.example:443"), true),
            ("a default port, written", Some("app.example:443"), None, Some("https://app.example"), true),
            ("another scheme's default port", Some("app.example"), None, Some("https://app.example:80"), false),
            ("an extension", Some("app.example"), None, Some("chrome-extension://app.example"), false),
            ("no host", None, None, Some(own), false),
        ];
        for (name, host, site, origin, allowed) in cases {
            let fields = [("host", host), ("sec-fetch-site", site), ("origin", origin)];
            let headers: HeaderMap = fields
                .into_iter()
                .filter_map(|(name, value)| Some((name.parse().unwrap(), value?.parse().unwrap())))
                .collect();
            let uri = Uri::from_static("/api/auth/refresh");
            assert_eq!(is_allowed(&uri, &headers, &[trusted.to_owned()]), allowed, "{name}");
        }
    }

    #[test]
    fn http_2_names_the_host_in_the_target() {
        let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static("https://app.example"))]);
        assert!(is_allowed(&Uri::from_static("https://app.example/api/auth/refresh"), &headers, &[]));
        assert!(!is_allowed(&Uri::from_static("https://other.example/api/auth/refresh"), &headers, &[]));
    }

    #[test]
    fn repeated_fields_are_refused() {
        let uri = Uri::from_static("/api/auth/refresh");
        for name in [&SEC_FETCH_SITE, &ORIGIN] {
            let mut headers = HeaderMap::new();
            headers.append(HOST, HeaderValue::from_static("app.example"));
            headers.append(name, HeaderValue::from_static("same-origin"));
            headers.append(name, HeaderValue::from_static("same-origin"));
            assert!(!is_allowed(&uri, &headers, &[]), "{name}");
        }
    }
}
