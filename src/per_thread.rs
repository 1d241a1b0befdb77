//! Values and reference counts for each thread, so that threads do not write to each other's cache lines.

use std::{
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
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

/// A reference to a value, whose clones are counted per thread: servers make one for each request.
pub(crate) enum Shared<T> {
    Original(Arc<Original<T>>),
    Clone(Count<T>),
}

/// Keeps a count for each thread, which it shares with other references of its kind.
pub(crate) struct Original<T>(Arc<Counted<T>>);

/// All of one thread's references.
type Count<T> = Arc<Padded<Arc<Counted<T>>>>;

pub(crate) struct Counted<T> {
    value: T,
    /// A cycle, which the last original breaks.
    counts: PerThread<Mutex<Option<Count<T>>>>,
}

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        let counted = Arc::new(Counted { value, counts: PerThread::new(Mutex::default) });
        counted.counts.iter().for_each(|count| *lock(count) = Some(counted.new_count()));
        Self::Original(Arc::new(Original(counted)))
    }

    /// Returns another reference of the same kind.
    pub(crate) fn original(&self) -> Self {
        match self {
            Self::Original(original) => Self::Original(Arc::clone(original)),
            Self::Clone(_) => self.clone(),
        }
    }

    fn counted(&self) -> &Arc<Counted<T>> {
        match self {
            Self::Original(original) => &original.0,
            Self::Clone(count) => &count.0,
        }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        let counted = self.counted();
        // The thread's own lock.
        let count = lock(counted.counts.own()).clone();
        Self::Clone(count.unwrap_or_else(|| counted.new_count()))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T> Counted<T> {
    fn new_count(self: &Arc<Self>) -> Count<T> {
        Arc::new(Padded(Arc::clone(self)))
    }
}

impl<T> Drop for Original<T> {
    fn drop(&mut self) {
        self.0.counts.iter().for_each(|count| *lock(count) = None);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a number that is the same for all calls from one thread.
fn number_of_thread() -> usize {
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Where the number is not known.
const MIN_PROCESSORS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a value, and what tells whether it is still there.
    fn value() -> (Shared<Arc<()>>, std::sync::Weak<()>) {
        let value = Arc::new(());
        let weak = Arc::downgrade(&value);
        (Shared::new(value), weak)
    }

    #[test]
    fn a_value_is_dropped_with_its_last_reference_of_any_kind() {
        let (original, value) = value();
        let other = original.original();
        let clone = original.clone();
        drop((original, clone));
        assert!(value.upgrade().is_some(), "another original");
        let clone = other.clone();
        drop(other);
        let clone_of_clone = clone.clone();
        drop(clone);
        assert!(value.upgrade().is_some(), "a clone of a clone");
        drop(clone_of_clone);
        assert!(value.upgrade().is_none());
    }

    #[test]
    fn each_thread_counts_its_own_clones_whoever_made_what_it_clones() {
        let (original, _) = value();
        let clone = original.clone();
        let counts = || {
            [&original, &clone].map(|cloned| match cloned.clone() {
                Shared::Original(_) => panic!("a clone is no original"),
                Shared::Clone(count) => Arc::as_ptr(&count).addr(),
            })
        };
        let here = counts()[0];
        assert_eq!(counts(), [here; 2]);
        let there: Vec<_> = (0..100).map(|_| thread::scope(|scope| scope.spawn(counts).join().unwrap())).collect();
        assert!(there.iter().all(|[of_original, of_clone]| of_original == of_clone));
        assert!(there.iter().any(|[of_original, _]| *of_original != here));
    }

    #[test]
    fn threads_sum_up_what_each_has_counted() {
        let counts = PerThread::new(AtomicUsize::default);
        thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| counts.own().fetch_add(1, Ordering::Relaxed));
            }
        });
        assert_eq!(counts.iter().map(|count| count.load(Ordering::Relaxed)).sum::<usize>(), 100);
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) > 0), "every place is used");
    }
}
