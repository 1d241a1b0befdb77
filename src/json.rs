//! JSON from outside: objects only, and strictly UTF-8.

use http::{HeaderMap, header::CONTENT_TYPE};
use serde::Deserialize;

/// Parses a JSON object.
///
/// Serde alone would accept an array for a struct, and would skip invalid UTF-8 in members that it ignores. The
/// parser's error is dropped, since it may quote the input.
pub(crate) fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    let text = std::str::from_utf8(json).ok()?;
    if trim(text).starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

/// Trims the white space of JSON (RFC 8259 section 2).
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\n'])
}

/// Returns the media type of a message in lower case, without parameters.
///
/// Returns `None` if there are two fields: recipients disagree about which one applies (RFC 9110 section 8.3).
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (only, None) = (types.next()?, types.next()) else { return None };
    let essence = only.to_str().ok()?.split(';').next()?;
    Some(essence.trim().to_ascii_lowercase())
}
