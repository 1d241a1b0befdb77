//! What the renewals lock with: `tests/model` compiles them with locks of its own, to try the interleavings.

pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicBool};
