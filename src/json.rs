//! JSON from outside: objects only, and strictly UTF-8.

use http::HeaderValue;
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

/// Returns the media type of a `Content-Type` field in lower case, without parameters (RFC 9110 section 8.3.1).
///
/// Only space and tab are trimmed (RFC 9110 section 5.6.3): white space of Unicode is part of another type's name.
pub(crate) fn media_type(content_type: &HeaderValue) -> Option<String> {
    let essence = content_type.as_bytes().split(|byte| *byte == b';').next()?;
    Some(std::str::from_utf8(essence).ok()?.trim_matches([' ', '\t']).to_ascii_lowercase())
}
