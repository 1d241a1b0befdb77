//! JSON nested so deep that a parser that recurses without a limit overflows the stack.

use std::{panic::resume_unwind, thread};

/// Returns arrays in arrays, `levels` of them.
pub(crate) fn arrays(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

/// Runs a test on a thread with little stack. An overflow aborts the process.
pub(crate) fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().stack_size(SMALL_STACK).spawn(test).unwrap();
    thread.join().unwrap_or_else(|panic| resume_unwind(panic));
}

const SMALL_STACK: usize = 256 << 10;
