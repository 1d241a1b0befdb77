//! The locks of the single flight and of the caches of tokens: shuttle's where their models try the interleavings.

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic::AtomicBool};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicBool};

/// Lets another thread run in a model, where something is read or written that is not shuttle's.
#[inline]
pub(crate) fn scheduling_point() {
    #[cfg(all(test, shuttle))]
    shuttle::thread::yield_now();
}
