//! A text that is an `expiresAt`, a refresh secret, a `Retry-After` and a route.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reference::{assert_stored, fields, is_route, retry_after};
use tower_crossmint_auth::fuzzing;

fuzz_target!(|text: &str| {
    assert_stored("a.b.c", "secret", Some(text));
    assert_stored("a.b.c", text, None);
    if let Some(headers) = fields("retry-after", [text.as_bytes()]) {
        assert_eq!(fuzzing::retry_after(&headers), retry_after(text));
    }
    assert_eq!(fuzzing::is_route(text), is_route(text));
});
