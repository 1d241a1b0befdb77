//! Paths of this site: the two routes, and targets of redirects.

use std::sync::LazyLock;

use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::error::ConfigError;

pub(crate) fn check_route(option: &'static str, path: &str) -> Result<(), ConfigError> {
    // Browsers send other characters percent-encoded.
    let is_path = path.starts_with('/')
        && path.is_ascii()
        && path.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.query().is_none() && parsed.path() == path);
    let why = format!("`{}` is not a path: write it like `/api/auth/refresh`, without a query", path.escape_debug());
    ConfigError::ensure(is_path, option, why)?;
    // As axum's routers write them, now and before 0.8.
    let is_placeholder = |segment: &str| segment.contains(['{', '}']) || segment.starts_with([':', '*']);
    let why = format!("`{path}` has a placeholder, and routes are compared byte by byte: name one path");
    ConfigError::ensure(!path.split('/').any(is_placeholder), option, why)
}

/// Returns `target` if it is a path of this site, whatever decodes it before a browser follows it.
pub(crate) fn local_path(target: &str) -> Option<&str> {
    // Longer ones do not fit into the login page's URL.
    if target.len() > MAX_RETURN_TO || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let path = target.split(['?', '#']).next().unwrap_or_default();
    // A handler, a proxy or a script may decode it once more.
    let mut decoded = path.to_owned();
    for _ in 0..MAX_DECODINGS {
        if !is_local(&decoded) {
            return None;
        }
        let next = percent_decode_str(&decoded).decode_utf8().ok()?.into_owned();
        if next == decoded {
            return Some(target);
        }
        decoded = next;
    }
    None
}

/// Returns whether browsers resolve a path, which has no query, to a page of the same site.
fn is_local(path: &str) -> bool {
    let is_plain = path.starts_with('/') && !path.contains('\\') && !path.chars().any(char::is_control);
    let stays = |url: Url| url.host_str() == BASE.host_str() && !url.path().starts_with("//");
    is_plain && !path.starts_with("//") && BASE.join(path).is_ok_and(stays)
}

static BASE: LazyLock<Url> = LazyLock::new(|| Url::parse("http://localhost").expect("it is a URL"));
const MAX_RETURN_TO: usize = 2048;
/// Nothing honest is encoded more often, and each decoding costs time.
const MAX_DECODINGS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_site_are_local() {
        let cases = [
            ("the root", "/", true),
            ("a path", "/orders/1", true),
            ("a query", "/orders?page=2&x=%2F%2F", true),
            ("a URL in the query", "/go?to=https://evil.example//", true),
            ("a fragment", "/orders#top", true),
            ("an encoded slash within", "/files/a%2Fb", true),
            ("an encoded space", "/a%20b", true),
            ("a percent sign", "/100%", true),
            ("dot segments", "/a/../b", true),
            ("nothing", "", false),
            ("a relative path", "orders", false),
            ("a query alone", "?a", false),
            ("a host", "//evil.example", false),
            ("three slashes", "///evil.example", false),
            ("a backslash", "/\\evil.example", false),
            ("two backslashes", "\\\\evil.example", false),
            ("a backslash later", "/a\\b", false),
            ("https", "https://evil.example", false),
            ("https, one slash", "https:/evil.example", false),
            ("javascript", "javascript:alert(1)", false),
            ("data", "data:text/html,x", false),
            ("a tab", "/\t/evil.example", false),
            ("a line break", "/\n/evil.example", false),
            ("a header", "/a\r\nSet-Cookie: a=b", false),
            ("a null", "/\0", false),
            ("a space before", " //evil.example", false),
            ("a space", "/ /evil.example", false),
            ("not ASCII", "/\u{2215}/evil.example", false),
            ("an encoded slash", "/%2Fevil.example", false),
            ("an encoded slash, lower case", "/%2fevil.example", false),
            ("two encoded slashes", "%2F%2Fevil.example", false),
            ("an encoded backslash", "/%5Cevil.example", false),
            ("an encoded backslash later", "/a%5c..%5c", false),
            ("encoded twice", "/%252Fevil.example", false),
            ("encoded three times", "/%25252Fevil.example", false),
            ("encoded without end", &format!("/%{}2F", "25".repeat(1000)), false),
            ("encoded in parts", "/%2%46evil.example", false),
            ("an encoded tab", "/%09/evil.example", false),
            ("an encoded line break", "/a%0d%0aSet-Cookie:%20a=b", false),
            ("not UTF-8", "/%ff", false),
            ("a dot segment", "/.//evil.example", false),
            ("a double dot segment", "/a/..//evil.example", false),
            ("an encoded dot segment", "/%2e//evil.example", false),
            ("a user name", "//user@evil.example", false),
            ("too long", &format!("/{}", "a".repeat(MAX_RETURN_TO)), false),
        ];
        for (name, target, is_local) in cases {
            assert_eq!(local_path(target), is_local.then_some(target), "{name}");
        }
    }
}
