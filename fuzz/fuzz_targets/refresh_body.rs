//! The first line is the content type, if it is not empty; the rest is the body.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use reference::{fields, refresh_token};

fuzz_target!(|input: &[u8]| -> Corpus {
    let (content_type, body) = reference::lines(input);
    let content_type = (!content_type.is_empty()).then_some(content_type);
    let Some(headers) = fields("content-type", content_type) else { return Corpus::Reject };
    assert_eq!(tower_crossmint_auth::fuzzing::refresh_token(&headers, body), refresh_token(&headers, body));
    Corpus::Keep
});
