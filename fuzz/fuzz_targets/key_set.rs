//! A key set, in which `<1>`, `<2>` and `<4>` stand for moduli of 2048, 2048 and 4096 bits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reference::{key_ids, with_moduli};

fuzz_target!(|input: &[u8]| {
    let document = with_moduli(input);
    assert_eq!(tower_crossmint_auth::fuzzing::key_ids(&document), key_ids(&document).ok());
});
