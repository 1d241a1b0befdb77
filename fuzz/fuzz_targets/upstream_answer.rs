//! Crossmint's answer to a refresh, and the cookies that come of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reference::{answer, assert_stored};
use tower_crossmint_auth::fuzzing::read_answer;

fuzz_target!(|body: &[u8]| {
    let read = read_answer(body);
    assert_eq!(read, answer(body).ok());
    if let Some(answer) = read
        && let Some(jwt) = &answer.jwt
    {
        assert_stored(jwt, &answer.secret, answer.expires_at.as_deref());
    }
});
