//! Decides from a request's head whether a page of another site can have caused it.
//!
//! `Sec-Fetch-Site` decides where it is present: browsers write it, scripts cannot. Else `Origin` is compared with the
//! host. A request with neither comes from no browser page, or from a browser that sends no Fetch Metadata: an old one,
//! or any over plain HTTP. Of the requests that those send, only `POST`s and `fetch`es carry `Origin`.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    header::{ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, ORIGIN, UPGRADE},
    uri::Authority,
};

use crate::host;

/// What is known of a request before its body is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestHead<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    /// Whether anything may follow the head; filled in for `OPTIONS` only.
    pub(crate) has_body: bool,
}

/// What is known of the site that the layer guards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    /// Other origins that may do what only its own pages may.
    pub(crate) trusted_origins: &'a [String],
    /// Whether it is served over HTTPS only, except on loopback.
    pub(crate) is_https: bool,
}

impl RequestHead<'_> {
    /// Returns whether the request is a CORS preflight (Fetch standard, section 4.8).
    ///
    /// A preflight passes without a session. So nothing that a handler could take for a call may look like one, and
    /// handlers that ignore the method (tonic's, axum's `any`) take a body for a call. Browsers send a preflight
    /// without a body, without credentials and without a content type.
    pub(crate) fn is_preflight(&self) -> bool {
        self.method == Method::OPTIONS
            && !self.has_body
            && [ORIGIN, ACCESS_CONTROL_REQUEST_METHOD].iter().all(|name| self.headers.contains_key(name))
            && ![CONTENT_TYPE, COOKIE, AUTHORIZATION, UPGRADE].iter().any(|name| self.headers.contains_key(name))
    }

    /// Returns whether the request opens a WebSocket, or another two-way stream, which CORS does not cover.
    ///
    /// Over HTTP/1 it names the protocol in `Upgrade` (RFC 6455 section 4.1). From HTTP/2 on it is an extended CONNECT,
    /// the only CONNECT with a path (RFC 8441 section 4).
    pub(crate) fn is_handshake(&self) -> bool {
        let is_websocket = |value: &HeaderValue| {
            value.as_bytes().split(|byte| *byte == b',').any(|protocol| {
                let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
                name.trim_ascii().eq_ignore_ascii_case(b"websocket")
            })
        };
        self.headers.get_all(UPGRADE).iter().any(is_websocket)
            || (self.method == Method::CONNECT && self.uri.path_and_query().is_some())
    }

    /// Returns whether the request loads a page: a link, an address, or a form.
    ///
    /// Without Fetch Metadata, `Accept` decides, and a `POST` may be a script's.
    pub(crate) fn is_navigation(&self) -> bool {
        self.is_shown() && (self.headers.contains_key(&SEC_FETCH_MODE) || self.is_safe())
    }

    /// Returns whether the browser shows the response as a page (Fetch standard, section 2.2.5), whatever the method.
    pub(crate) fn is_shown(&self) -> bool {
        match single(self.headers, &SEC_FETCH_MODE) {
            Ok(Some(mode)) => mode == "navigate",
            Ok(None) => prefers_html(self.headers),
            Err(Repeated) => false,
        }
    }

    /// Returns whether a link can repeat the request.
    pub(crate) fn is_safe(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// Returns whether the request may do what only pages of the site and of trusted origins may.
    pub(crate) fn is_allowed(&self, site: &Site<'_>) -> bool {
        let is_trusted = |origin: &HeaderValue| site.trusted_origins.iter().any(|trusted| origin == trusted.as_str());
        matches!(single(self.headers, &ORIGIN), Ok(Some(origin)) if is_trusted(origin)) || !self.is_from_elsewhere(site)
    }

    /// Returns whether the request is known to come from a page of another site.
    ///
    /// A trusted one is another site, too: browsers withhold SameSite cookies from its requests.
    pub(crate) fn is_from_elsewhere(&self, site: &Site<'_>) -> bool {
        match (single(self.headers, &SEC_FETCH_SITE), single(self.headers, &ORIGIN)) {
            // Which of two values counts is ambiguous, and no browser sends two.
            (Err(Repeated), _) | (_, Err(Repeated)) => true,
            (Ok(Some(relation)), _) => relation != "same-origin" && relation != "none",
            (Ok(None), Ok(Some(origin))) => self.is_own(origin, site) != Some(true),
            (Ok(None), Ok(None)) => false,
        }
    }

    /// Compares an `Origin` with the host that the request was sent to. `None` if there is nothing to compare.
    ///
    /// The scheme of the request is not known behind a proxy that terminates TLS, so a default port may be written or
    /// not. But a site whose cookies are `Secure` has no pages over plain HTTP: there, an attacker on the network can
    /// serve pages.
    fn is_own(&self, origin: &HeaderValue, site: &Site<'_>) -> Option<bool> {
        let (scheme, authority) = origin.to_str().ok()?.split_once("://")?;
        let host = match single(self.headers, &HOST).ok()? {
            Some(host) => host.to_str().ok()?,
            None => self.uri.authority()?.as_str(),
        };
        let default_port = match scheme {
            "https" => ":443",
            "http" if !site.is_https || is_loopback(authority) => ":80",
            _ => return None,
        };
        // Hosts are compared without regard to case (RFC 9110 section 4.2.3).
        let bare = |authority: &str| authority.strip_suffix(default_port).unwrap_or(authority).to_ascii_lowercase();
        Some(bare(authority) == bare(host))
    }
}

fn is_loopback(authority: &str) -> bool {
    let authority = authority.to_ascii_lowercase().parse::<Authority>();
    authority.is_ok_and(|authority| host::is_loopback(authority.host()))
}

/// Returns whether `text/html` is the first of the media ranges with the highest weight (RFC 9110 section 12.5.1).
///
/// Browsers list it first for pages. Scripts and libraries list `*/*`, or their own types before it.
fn prefers_html(headers: &HeaderMap) -> bool {
    let mut best = (false, 0.0);
    for value in headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let is_html = parts.next().is_some_and(|range| range.eq_ignore_ascii_case("text/html"));
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            if weight > best.1 {
                best = (is_html, weight);
            }
        }
    }
    best.0
}

struct Repeated;

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Repeated> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(Repeated) } else { Ok(first) }
}

static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "http://app.example:8080";
    const FOREIGN: &str = "https://evil.example";
    const TRUSTED: &str = "https://other.example";

    fn headers<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> HeaderMap {
        fields.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn head<'a>(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> RequestHead<'a> {
        RequestHead { method, uri, headers, has_body: false }
    }

    /// Returns whether a POST with these fields is allowed, and whether it comes from elsewhere.
    fn judge(is_https: bool, uri: &Uri, headers: &HeaderMap) -> (bool, bool) {
        let trusted_origins = &[TRUSTED.to_owned()];
        let (head, site) = (head(&Method::POST, uri, headers), Site { trusted_origins, is_https });
        (head.is_allowed(&site), head.is_from_elsewhere(&site))
    }

    #[test]
    fn only_pages_of_this_site_and_trusted_ones_are_allowed() {
        let host = Some("app.example:8080");
        const ALLOWED: (bool, bool) = (true, false);
        const REFUSED: (bool, bool) = (false, true);
        const ALLOWED_FROM_ELSEWHERE: (bool, bool) = (true, true);
        let cases = [
            ("no browser", host, None, None, ALLOWED),
            ("the page itself", host, Some("same-origin"), Some(OWN), ALLOWED),
            ("the page itself, behind a proxy", host, Some("same-origin"), Some("https://public.example"), ALLOWED),
            ("the user", host, Some("none"), None, ALLOWED),
            ("a sibling", host, Some("same-site"), Some("http://b.example"), REFUSED),
            ("another site", host, Some("cross-site"), Some(FOREIGN), REFUSED),
            ("another site that hides", host, Some("cross-site"), None, REFUSED),
            ("another site that poses", host, Some("cross-site"), Some(OWN), REFUSED),
            ("a word of tomorrow", host, Some("same-planet"), Some(OWN), REFUSED),
            ("an empty word", host, Some(""), Some(OWN), REFUSED),
            ("a trusted site", host, Some("cross-site"), Some(TRUSTED), ALLOWED_FROM_ELSEWHERE),
            ("a trusted site, another port", host, Some("cross-site"), Some("https://other.example:444"), REFUSED),
            ("an old browser's page", host, None, Some(OWN), ALLOWED),
            ("an old browser's page, upper case", host, None, Some("http://APP.example:8080"), ALLOWED),
            ("an old browser's page, another port", host, None, Some("http://app.example"), REFUSED),
            ("an old browser's other site", host, None, Some(FOREIGN), REFUSED),
            ("an old browser's trusted site", host, None, Some(TRUSTED), ALLOWED_FROM_ELSEWHERE),
            ("a sandbox", host, None, Some("null"), REFUSED),
            ("a default port, unwritten", Some("app.example"), None, Some("https://app.example:443"), ALLOWED),
            ("a default port, written", Some("app.example:443"), None, Some("https://app.example"), ALLOWED),
            ("another scheme's default port", Some("app.example"), None, Some("https://app.example:80"), REFUSED),
            ("an extension", Some("app.example"), None, Some("chrome-extension://app.example"), REFUSED),
            ("no host", None, None, Some(OWN), REFUSED),
        ];
        for (name, host, site, origin, expected) in cases {
            let fields = [("host", host), ("sec-fetch-site", site), ("origin", origin)];
            let headers = headers(fields.into_iter().filter_map(|(name, value)| Some((name, value?))));
            assert_eq!(judge(false, &Uri::from_static("/api/auth/refresh"), &headers), expected, "{name}");
        }
    }

    #[test]
    fn plain_http_is_another_site_where_cookies_are_secure_but_not_on_loopback() {
        let cases = [
            ("https", "app.example", "https://app.example", true),
            ("http", "app.example", "http://app.example", false),
            ("http, with a port", "app.example:8080", "http://app.example:8080", false),
            ("localhost", "localhost:3000", "http://localhost:3000", true),
            ("below localhost", "app.localhost", "http://app.localhost", true),
            ("like localhost", "notlocalhost", "http://notlocalhost", false),
            ("localhost within", "localhost.example", "http://localhost.example", false),
            ("IPv4 loopback", "127.0.0.1:3000", "http://127.0.0.1:3000", true),
            ("another address", "10.0.0.1", "http://10.0.0.1", false),
            ("IPv6 loopback", "[::1]:3000", "http://[::1]:3000", true),
            ("another IPv6 address", "[fe80::1]", "http://[fe80::1]", false),
        ];
        let uri = Uri::from_static("/api/auth/refresh");
        for (name, host, origin, is_own) in cases {
            let headers = headers([("host", host), ("origin", origin)]);
            assert_eq!(judge(true, &uri, &headers), (is_own, !is_own), "{name}");
            assert_eq!(judge(false, &uri, &headers), (true, false), "{name}, where cookies are not secure");
        }
    }

    #[test]
    fn http_2_names_the_host_in_the_target() {
        let headers = headers([("origin", "https://app.example")]);
        // Behind a proxy that terminates TLS, the scheme is that of the proxy's own connection.
        for own in ["https://app.example/api/auth/refresh", "http://app.example/api/auth/refresh"] {
            assert_eq!(judge(true, &Uri::from_static(own), &headers), (true, false), "{own}");
        }
        let other = Uri::from_static("https://other.example/api/auth/refresh");
        assert_eq!(judge(true, &other, &headers), (false, true));
    }

    #[test]
    fn repeated_fields_are_refused() {
        let uri = Uri::from_static("/api/auth/refresh");
        let own = "http://app.example";
        for (name, value) in [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none"), ("origin", own)] {
            let headers = headers([("host", "app.example"), (name, value), (name, value)]);
            assert_eq!(judge(false, &uri, &headers), (false, true), "{name}: {value}");
        }
        let twice = headers([("host", "app.example"), ("host", "app.example"), ("origin", own)]);
        assert_eq!(judge(false, &uri, &twice), (false, true), "host");
    }

    #[test]
    fn a_preflight_has_neither_body_nor_credentials() {
        const ASKS: [(&str, &str); 2] = [("origin", FOREIGN), ("access-control-request-method", "POST")];
        let cases = [
            ("a preflight", Method::OPTIONS, &ASKS[..], None, false, true),
            ("one that asks for headers", Method::OPTIONS, &ASKS, Some("access-control-request-headers"), false, true),
            ("another method", Method::POST, &ASKS, None, false, false),
            ("no origin", Method::OPTIONS, &ASKS[1..], None, false, false),
            ("no method to ask for", Method::OPTIONS, &ASKS[..1], None, false, false),
            ("a body", Method::OPTIONS, &ASKS, None, true, false),
            ("a content type", Method::OPTIONS, &ASKS, Some("content-type"), false, false),
            ("a cookie", Method::OPTIONS, &ASKS, Some("cookie"), false, false),
            ("authorization", Method::OPTIONS, &ASKS, Some("authorization"), false, false),
            ("a protocol", Method::OPTIONS, &ASKS, Some("upgrade"), false, false),
        ];
        for (name, method, fields, added, has_body, expected) in cases {
            let headers = headers(fields.iter().copied().chain(added.map(|name| (name, "x"))));
            let head = RequestHead { method: &method, uri: &Uri::from_static("/"), headers: &headers, has_body };
            assert_eq!(head.is_preflight(), expected, "{name}");
        }
    }

    #[test]
    fn a_navigation_is_told_by_its_mode_or_by_what_it_accepts() {
        const CHROME: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        let (get, post) = (&Method::GET, &Method::POST);
        // Each with whether it is a navigation, and whether its response is shown.
        let cases = [
            ("a link", get, &[("sec-fetch-mode", "navigate")][..], (true, true)),
            ("a form", post, &[("sec-fetch-mode", "navigate")], (true, true)),
            ("a fetch", get, &[("sec-fetch-mode", "cors"), ("accept", CHROME)], (false, false)),
            ("an image", get, &[("sec-fetch-mode", "no-cors")], (false, false)),
            ("a WebSocket", get, &[("sec-fetch-mode", "websocket")], (false, false)),
            ("a word of tomorrow", get, &[("sec-fetch-mode", "teleport"), ("accept", CHROME)], (false, false)),
            ("two modes", get, &[("sec-fetch-mode", "navigate"), ("sec-fetch-mode", "navigate")], (false, false)),
            ("an old browser's link", get, &[("accept", CHROME)], (true, true)),
            ("its HEAD", &Method::HEAD, &[("accept", CHROME)], (true, true)),
            ("its form", post, &[("accept", CHROME)], (false, true)),
            ("upper case", get, &[("accept", "Text/HTML")], (true, true)),
            ("two fields", get, &[("accept", "text/plain;q=0.5"), ("accept", "text/html;q=0.6")], (true, true)),
            ("anything", get, &[("accept", "*/*")], (false, false)),
            ("no preference", get, &[], (false, false)),
            ("JSON", get, &[("accept", "application/json, text/plain, */*")], (false, false)),
            ("JSON rather than HTML", get, &[("accept", "text/html;q=0.8, application/json")], (false, false)),
            ("JSON or HTML", get, &[("accept", "application/json, text/html")], (false, false)),
            ("anything but HTML", get, &[("accept", "text/html;q=0, */*;q=0.1")], (false, false)),
            ("an odd weight", get, &[("accept", "text/html;q=x")], (false, false)),
            ("a weight that is no number", get, &[("accept", "text/html;q=nan, */*")], (false, false)),
        ];
        for (name, method, fields, expected) in cases {
            let headers = headers(fields.iter().copied());
            let uri = Uri::from_static("/");
            let head = head(method, &uri, &headers);
            assert_eq!((head.is_navigation(), head.is_shown()), expected, "{name}");
        }
    }

    #[test]
    fn a_handshake_is_told_by_its_protocol_or_an_extended_connect() {
        let cases = [
            ("a plain request", Method::GET, "/ws", &[][..], false),
            ("a WebSocket", Method::GET, "/ws", &["websocket"], true),
            ("any case", Method::GET, "/ws", &["WebSocket"], true),
            ("a version", Method::GET, "/ws", &["websocket/13"], true),
            ("a list", Method::GET, "/ws", &["h2c, websocket"], true),
            ("two fields", Method::GET, "/ws", &["h2c", "websocket"], true),
            ("another protocol", Method::GET, "/", &["h2c"], false),
            ("another protocol of a similar name", Method::GET, "/", &["websockets"], false),
            ("an extended CONNECT", Method::CONNECT, "https://app.example/ws", &[], true),
            ("a tunnel", Method::CONNECT, "app.example:443", &[], false),
        ];
        for (name, method, uri, upgrade, expected) in cases {
            let headers = headers(upgrade.iter().map(|value| ("upgrade", *value)));
            assert_eq!(head(&method, &uri.parse().unwrap(), &headers).is_handshake(), expected, "{name}");
        }
    }
}
