//! Each line is a `Cookie` field.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use reference::{PAIR, UNSCOPED, cookies, fields};
use tower_crossmint_auth::{CookieNames, fuzzing::read_cookies};

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some(headers) = fields("cookie", input.split(|byte| *byte == b'\n')) else { return Corpus::Reject };
    assert_eq!(read_cookies(&headers, &CookieNames::Scoped), cookies(&headers, PAIR, Some(UNSCOPED)));
    assert_eq!(read_cookies(&headers, &CookieNames::Unscoped), cookies(&headers, UNSCOPED, None));
    Corpus::Keep
});
