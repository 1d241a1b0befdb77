//! The fields of a response that carries our cookies.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, SET_COOKIE, VARY},
};

/// Adds cookies to a response, except where the application has set a cookie of that name itself.
pub(crate) fn add_to_response(headers: &mut HeaderMap, set_cookie: &[HeaderValue]) {
    // Without those that are added here: two that are cleared may differ in nothing but the domain.
    let present: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    for cookie in set_cookie.iter().filter(|cookie| !is_among(cookie, &present)) {
        headers.append(SET_COOKIE, cookie.clone());
    }
    forbid_caching(headers);
}

/// Keeps caches from storing a response with a user's cookies, in spite of the application's caching headers.
fn forbid_caching(headers: &mut HeaderMap) {
    // Fields for one kind of cache take precedence over `Cache-Control` there (RFC 9213 section 2.2).
    let is_targeted = |name: &&HeaderName| {
        name.as_str().ends_with("-cache-control")
            || ["surrogate-control", "x-accel-expires", "edge-control"].contains(&name.as_str())
    };
    let targeted: Vec<HeaderName> = headers.keys().filter(is_targeted).cloned().collect();
    for name in targeted {
        headers.remove(name);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Sets cookies on a response, in place of those of the same names.
pub(crate) fn replace_in_response(headers: &mut HeaderMap, set_cookie: &[HeaderValue]) {
    if headers.contains_key(SET_COOKIE) {
        let present = headers.get_all(SET_COOKIE).iter();
        let kept: Vec<HeaderValue> = present.filter(|cookie| !is_among(cookie, set_cookie)).cloned().collect();
        headers.remove(SET_COOKIE);
        for cookie in kept {
            headers.append(SET_COOKIE, cookie);
        }
    }
    add_to_response(headers, set_cookie);
}

/// Adds `Vary: cookie`, unless the response says so already (RFC 9110 section 12.5.5).
pub(crate) fn vary_by_cookie(headers: &mut HeaderMap) {
    let covers_cookie = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|name| {
            let name = name.trim_ascii();
            name == b"*" || name.eq_ignore_ascii_case(b"cookie")
        })
    };
    if !headers.get_all(VARY).iter().any(covers_cookie) {
        headers.append(VARY, HeaderValue::from_static("cookie"));
    }
}

/// Returns whether one of these fields sets a cookie of the same name.
fn is_among<'a>(cookie: &HeaderValue, fields: impl IntoIterator<Item = &'a HeaderValue>) -> bool {
    fields.into_iter().any(|other| cookie_name(other) == cookie_name(cookie))
}

fn cookie_name(set_cookie: &HeaderValue) -> &[u8] {
    let end = memchr::memchr2(b'=', b';', set_cookie.as_bytes()).unwrap_or(set_cookie.len());
    set_cookie.as_bytes()[..end].trim_ascii()
}
