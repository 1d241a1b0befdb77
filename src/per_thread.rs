//! Values and reference counts for each thread, so that threads do not write to each other's cache lines.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Values that many threads write at once, each its own.
///
/// Threads whose numbers differ by a multiple of the number of values share one. The numbers of threads that have ended
/// are not used again.
#[derive(Debug)]
pub(crate) struct PerThread<T>(Box<[Padded<T>]>);

/// Processors fetch lines of 64 bytes in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T> PerThread<T> {
    pub(crate) fn new(mut make: impl FnMut() -> T) -> Self {
        static LENGTH: OnceLock<usize> = OnceLock::new();
        let length = LENGTH.get_or_init(|| {
            let processors = thread::available_parallelism().map_or(ASSUMED_PROCESSORS, usize::from);
            (2 * processors).next_power_of_two()
        });
        Self((0..*length).map(|_| Padded(make())).collect())
    }

    /// Returns the value of the current thread.
    pub(crate) fn own(&self) -> &T {
        // The length is a power of two.
        &self.0[number_of_thread() & (self.0.len() - 1)].0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|Padded(value)| value)
    }
}

/// A reference to a value, whose clones are counted per thread: servers make one for each request.
///
/// Only while there is an original. Without one, threads that have no clones count with others, like those of an `Arc`.
pub(crate) struct PerThreadArc<T>(Kind<T>);

enum Kind<T> {
    Original(Arc<Original<T>>),
    Clone(Count<T>),
}

/// Keeps the counts alive while there is an original.
struct Original<T> {
    counted: Arc<Counted<T>>,
    counts: Mutex<Vec<Count<T>>>,
}

/// The reference count of one thread's clones.
type Count<T> = Arc<Padded<Arc<Counted<T>>>>;

struct Counted<T> {
    value: T,
    /// Each thread's count. Weak, because a count holds a strong reference to this.
    slots: PerThread<OnceLock<Weak<Padded<Arc<Self>>>>>,
    original: Weak<Original<T>>,
}

impl<T> PerThreadArc<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Kind::Original(Arc::new_cyclic(|original| {
            let (slots, original) = (PerThread::new(OnceLock::new), Weak::clone(original));
            Original { counted: Arc::new(Counted { value, slots, original }), counts: Mutex::default() }
        })))
    }

    /// Returns another original if this is one, and a clone otherwise.
    pub(crate) fn original(&self) -> Self {
        match &self.0 {
            Kind::Original(original) => Self(Kind::Original(Arc::clone(original))),
            Kind::Clone(_) => self.clone(),
        }
    }

    fn counted(&self) -> &Arc<Counted<T>> {
        match &self.0 {
            Kind::Original(original) => &original.counted,
            Kind::Clone(count) => &count.0,
        }
    }
}

impl<T> Original<T> {
    /// Starts to count a thread's clones.
    fn count(&self) -> Count<T> {
        let count = Arc::new(Padded(Arc::clone(&self.counted)));
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&count));
        count
    }
}

impl<T> Clone for PerThreadArc<T> {
    fn clone(&self) -> Self {
        let Counted { slots, original, .. } = &**self.counted();
        let slot = slots.own();
        if slot.get().is_none()
            && let Some(original) = original.upgrade()
        {
            slot.get_or_init(|| Arc::downgrade(&original.count()));
        }
        // Without an original, the thread may have no count.
        let count = slot.get().and_then(Weak::upgrade);
        Self(Kind::Clone(count.unwrap_or_else(|| match &self.0 {
            Kind::Original(original) => original.count(),
            Kind::Clone(count) => Arc::clone(count),
        })))
    }
}

impl<T> Deref for PerThreadArc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T: fmt::Debug> fmt::Debug for PerThreadArc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Returns a number that is the same for all calls from one thread.
fn number_of_thread() -> usize {
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// If the number of processors is unknown.
const ASSUMED_PROCESSORS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a value, and what tells whether it is still there.
    fn value() -> (PerThreadArc<Arc<()>>, Weak<()>) {
        let value = Arc::new(());
        let weak = Arc::downgrade(&value);
        (PerThreadArc::new(value), weak)
    }

    #[test]
    fn a_value_is_dropped_with_its_last_reference_of_any_kind() {
        let (original, value) = value();
        let other = original.original();
        let clone = original.clone();
        drop((original, clone));
        assert!(value.upgrade().is_some(), "another original");
        assert!(matches!(other.0, Kind::Original(_)));
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
            [&clone, &original].map(|cloned| match cloned.clone().0 {
                Kind::Original(_) => panic!("a clone is no original"),
                Kind::Clone(count) => Arc::as_ptr(&count).addr(),
            })
        };
        let here = counts()[0];
        assert_eq!(counts(), [here; 2]);
        let there: Vec<_> = (0..100).map(|_| thread::scope(|scope| scope.spawn(counts).join().unwrap())).collect();
        assert!(there.iter().all(|[of_clone, of_original]| of_clone == of_original));
        assert!(there.iter().any(|[of_clone, _]| *of_clone != here));
    }

    #[test]
    fn without_an_original_a_thread_without_clones_counts_with_another() {
        let (original, value) = value();
        // This thread had a count.
        drop(original.clone());
        let clone = thread::scope(|scope| scope.spawn(|| original.clone()).join().unwrap());
        drop(original);
        let clones = [clone.clone(), thread::scope(|scope| scope.spawn(|| clone.clone()).join().unwrap())];
        for other in &clones {
            let [Kind::Clone(one), Kind::Clone(other)] = [&clone.0, &other.0] else { panic!("they are clones") };
            assert!(Arc::ptr_eq(one, other));
        }
        assert!(value.upgrade().is_some());
        drop((clone, clones));
        assert!(value.upgrade().is_none());
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
        assert!(counts.iter().filter(|count| count.load(Ordering::Relaxed) > 0).count() > 1);
    }
}
