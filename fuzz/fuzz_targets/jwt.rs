//! Two lines are a header and claims, to be encoded; one line is a token as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reference::{jwt, token};
use tower_crossmint_auth::fuzzing::read_jwt;

fuzz_target!(|input: &[u8]| {
    let token = token(input);
    for (leeway, now) in [(0, 1_800_000_000), (5, 1_800_000_000), (300, 0), (300, u64::MAX)] {
        assert_eq!(read_jwt(&token, leeway, now), jwt(&token, leeway, now).ok());
    }
});
