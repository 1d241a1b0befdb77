//! The renewals, and what two or three threads may do with them at once.

extern crate self as aws_lc_rs;

#[path = "../../../src/error.rs"]
#[expect(dead_code, reason = "the renewals need not all of it")]
mod error;
#[path = "../../../src/auth/grace.rs"]
#[expect(dead_code, reason = "no cookies are set")]
mod grace;
#[path = "../../../src/auth/renewal.rs"]
#[expect(dead_code, reason = "what a logout leaves to do elsewhere is not looked at")]
mod renewal;
#[path = "../../../src/secret.rs"]
mod secret;
#[path = "../../../src/session.rs"]
#[expect(dead_code, reason = "the renewals need not all of it")]
mod session;

pub mod scenarios;

mod sync {
    pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic::AtomicBool};
}

/// Digests that are as good for the scenarios' short tokens, and need no C.
#[doc(hidden)]
pub mod digest {
    pub struct Algorithm;
    pub static SHA256: Algorithm = Algorithm;

    pub fn digest(_: &Algorithm, token: &[u8]) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..token.len()].copy_from_slice(token);
        digest
    }
}
