//! Values and reference counts for each thread, so that threads do not write to each other's cache lines.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Values that many threads write at once, each its own. Threads beyond twice the number of processors share some.
#[derive(Debug)]
pub(crate) struct PerThread<T>(Box<[Padded<T>]>);

/// Processors fetch lines of 64 bytes in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Padded<T>(T);

impl<T> PerThread<T> {
    pub(crate) fn new(mut make: impl FnMut() -> T) -> Self {
        let processors = thread::available_parallelism().map_or(MIN_PROCESSORS, usize::from);
        Self((0..(2 * processors).next_power_of_two()).map(|_| Padded(make())).collect())
    }

    /// Returns the value of the current thread.
    pub(crate) fn own(&self) -> &T {
        // The number is a power of two.
        &self.0[number_of_thread() & (self.0.len() - 1)].0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|Padded(value)| value)
    }
}

/// A reference to a value, of which threads count their own clones.
///
/// So it is for clones of what [`new`](Self::new) returns, such as a server makes for each request. A clone of a clone is
/// counted with it.
pub(crate) enum Shared<T> {
    Original(Arc<Original<T>>),
    Clone(Arc<Padded<Arc<T>>>),
}

pub(crate) struct Original<T> {
    value: Arc<T>,
    /// Each has a count of its own. Not in the other kind of reference, or they would keep each other alive.
    clones: PerThread<Arc<Padded<Arc<T>>>>,
}

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        let value = Arc::new(value);
        let clones = PerThread::new(|| Arc::new(Padded(Arc::clone(&value))));
        Self::Original(Arc::new(Original { value, clones }))
    }

    /// Returns another reference of the same kind, whose clones are counted by thread as well.
    pub(crate) fn original(&self) -> Self {
        match self {
            Self::Original(original) => Self::Original(Arc::clone(original)),
            Self::Clone(clone) => Self::Clone(Arc::clone(clone)),
        }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self::Clone(Arc::clone(match self {
            Self::Original(original) => original.clones.own(),
            Self::Clone(clone) => clone,
        }))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Original(original) => &original.value,
            Self::Clone(clone) => &clone.0,
        }
    }
}

/// Returns a number that is the same for all calls from one thread.
fn number_of_thread() -> usize {
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Where the number is not known.
const MIN_PROCESSORS: usize = 8;
