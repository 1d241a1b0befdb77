//! The renewals, and what two or three threads may do with them at once.

#[path = "../../../src/error.rs"]
#[expect(dead_code, reason = "the renewals need not all of it")]
mod error;
#[path = "../../../src/auth/renewal.rs"]
#[expect(dead_code, reason = "the sessions and cookies of a logout are not looked at")]
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
