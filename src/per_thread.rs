//! Values and reference counts for each thread, so that threads do not write to each other's cache lines.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
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
pub(crate) struct PerThreadArc<T>(Arc<Count<T>>);

/// A thread's count: the `Arc` that this is in counts the thread's clones.
///
/// A count is kept by its clones, and by the count of the reference that was cloned when it was made. So a thread whose
/// clones come and go keeps its count as long as there are other references. A count only keeps younger ones: there are
/// no cycles.
// Padded, so that the reference count is on another line than this, which other threads read to clone a clone.
type Count<T> = Padded<Counted<T>>;

struct Counted<T> {
    shared: Arc<Shared<T>>,
    keeps: Mutex<Vec<Arc<Count<T>>>>,
}

struct Shared<T> {
    value: T,
    slots: PerThread<Slot<T>>,
}

/// Where a thread finds its count. Weak, because counts keep what this is in.
struct Slot<T> {
    /// Read without a lock.
    first: OnceLock<Weak<Count<T>>>,
    /// The present one, if the first has ended because all that kept it was dropped.
    later: Mutex<Weak<Count<T>>>,
}

impl<T> PerThreadArc<T> {
    pub(crate) fn new(value: T) -> Self {
        let slots = PerThread::new(|| Slot { first: OnceLock::new(), later: Mutex::default() });
        Self(new_count(Arc::new(Shared { value, slots })))
    }

    /// Makes a count, which this one's keeps.
    fn add_count(&self) -> Arc<Count<T>> {
        let Padded(Counted { shared, keeps }) = &*self.0;
        let count = new_count(Arc::clone(shared));
        lock(keeps).push(Arc::clone(&count));
        count
    }
}

fn new_count<T>(shared: Arc<Shared<T>>) -> Arc<Count<T>> {
    Arc::new(Padded(Counted { shared, keeps: Mutex::default() }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Clone for PerThreadArc<T> {
    fn clone(&self) -> Self {
        let slot = self.0.0.shared.slots.own();
        let first = slot.first.get_or_init(|| Arc::downgrade(&self.add_count()));
        Self(first.upgrade().unwrap_or_else(|| {
            let mut later = lock(&slot.later);
            later.upgrade().unwrap_or_else(|| {
                let count = self.add_count();
                *later = Arc::downgrade(&count);
                count
            })
        }))
    }
}

impl<T> Deref for PerThreadArc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0.shared.value
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
    use std::{collections::HashSet, mem, ptr, sync::Barrier};

    use super::*;
    use crate::test_support::Random;

    /// Returns a reference to a value, and what tells whether the value is still there.
    fn value() -> (PerThreadArc<Arc<()>>, Weak<()>) {
        let value = Arc::new(());
        let weak = Arc::downgrade(&value);
        (PerThreadArc::new(value), weak)
    }

    /// Runs something on a thread that has not made a clone, though others with the same slot may have.
    fn on_another<R: Send>(run: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    /// Whose clones the current thread's are counted with.
    fn slot(reference: &PerThreadArc<Arc<()>>) -> usize {
        ptr::from_ref(reference.0.0.shared.slots.own()).addr()
    }

    #[test]
    fn threads_whose_clones_come_and_go_keep_their_counts_whichever_reference_remains() {
        let (layer, value) = value();
        let service = layer.clone();
        drop(layer);
        let counts: Vec<_> =
            (0..100).map(|_| on_another(|| (slot(&service), Arc::downgrade(&service.clone().0)))).collect();
        for (slot_of_one, one) in &counts {
            assert_eq!(one.strong_count(), 1, "no clone is left but `service`, which is one");
            for (slot, other) in &counts {
                assert_eq!(one.ptr_eq(other), slot_of_one == slot);
            }
        }
        assert!(counts.iter().any(|(of_one, _)| *of_one != slot(&service)));
        drop(service);
        assert!(value.upgrade().is_none());
        assert!(counts.iter().all(|(_, count)| count.upgrade().is_none()));
    }

    #[test]
    fn any_series_of_clones_and_drops_counts_per_thread_and_drops_the_value_with_the_last() {
        let mut random = Random(1);
        for _ in 0..40 {
            let (first, value) = value();
            // Its count is no thread's.
            let mut references = vec![(0, first)];
            for _ in 0..60 {
                let Some(at) = random.index(references.len()) else { break };
                if random.below(2) == 0 {
                    let (_, reference) = &references[at];
                    let clone = on_another(|| (slot(reference), reference.clone()));
                    references.push(clone);
                } else {
                    let dropped = references.swap_remove(at);
                    on_another(|| drop(dropped));
                }
                assert_eq!(value.upgrade().is_some(), !references.is_empty());
                for (slot_of_one, one) in &references {
                    for (slot, other) in &references {
                        assert_eq!(Arc::ptr_eq(&one.0, &other.0), slot_of_one == slot);
                    }
                }
            }
            drop(references);
            assert!(value.upgrade().is_none());
        }
    }

    #[test]
    fn a_reference_that_is_replaced_by_its_clone_on_many_threads_at_once_leaves_nothing() {
        let (reference, value) = value();
        let current = Mutex::new(reference);
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..1_000 {
                        let mut current = current.lock().unwrap();
                        let clone = current.clone();
                        let former = mem::replace(&mut *current, clone);
                        drop(current);
                        let _: [_; 2] = [former.clone(), former];
                    }
                });
            }
        });
        assert!(value.upgrade().is_some());
        drop(current);
        assert!(value.upgrade().is_none());
    }

    #[test]
    fn what_threads_read_of_each_other_is_on_other_lines_than_what_they_write() {
        let (reference, _) = value();
        let counts = [reference.clone(), on_another(|| reference.clone())];
        for PerThreadArc(count) in counts {
            let read = ptr::from_ref(&*count).addr();
            // The reference counts precede it in one allocation with its alignment.
            assert_eq!((read % 128, align_of_val(&*count)), (0, 128));
        }
        let hits = PerThread::new(AtomicUsize::default);
        let lines: HashSet<_> = hits.iter().map(|hits| ptr::from_ref(hits).addr() / 128).collect();
        assert_eq!(lines.len(), hits.iter().count());
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
