//! Values and reference counts for each thread, so that threads do not write to each other's cache lines.

use std::{
    collections::BTreeSet,
    fmt, mem,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    thread,
};

/// Values that many threads write at once, each its own.
///
/// Threads whose numbers differ by a multiple of the number of values share one: some do, if there are more threads at
/// once than values, of which there are twice as many as processors.
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

/// Counts the clones of one thread, by the `Arc` that it is in. The first reference has one of its own.
///
/// Padded: other threads read it, to clone one of the clones. The reference count before it is on another line.
type Count<T> = Padded<Counted<T>>;

struct Counted<T> {
    shared: Arc<Shared<T>>,
    /// Counts of other threads, which last as long as this even if the threads have no clones.
    ///
    /// A count is kept by one other at most, and never by one that it keeps itself, directly or indirectly.
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
    /// The present one, once the first has ended: the thread takes this lock for each clone from then on.
    later: Mutex<Weak<Count<T>>>,
}

impl<T> PerThreadArc<T> {
    pub(crate) fn new(value: T) -> Self {
        let slots = PerThread::new(|| Slot { first: OnceLock::new(), later: Mutex::default() });
        Self(new_count(Arc::new(Shared { value, slots })))
    }

    /// Makes a count that this reference's own keeps.
    fn add_count(&self) -> Arc<Count<T>> {
        let Padded(Counted { shared, keeps }) = &*self.0;
        let count = new_count(Arc::clone(shared));
        lock(keeps).push(Arc::clone(&count));
        count
    }

    /// Lets one of the counts that this reference's keeps, if one has clones, keep it and the others.
    ///
    /// If none has, or in a race of two last references, counts end, and their threads make others.
    #[cold]
    fn hand_over(&self) {
        let mut counts = mem::take(&mut *lock(&self.0.0.keeps));
        if let Some(at) = counts.iter().position(|count| Arc::strong_count(count) > 1) {
            let heir = counts.swap_remove(at);
            counts.push(Arc::clone(&self.0));
            lock(&heir.0.keeps).append(&mut counts);
        }
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

impl<T> Drop for PerThreadArc<T> {
    fn drop(&mut self) {
        // A count that another keeps has one reference more.
        if Arc::strong_count(&self.0) == 1 {
            self.hand_over();
        }
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

/// Returns a number that is the same for all calls from one thread, and that no other thread has at that time.
fn number_of_thread() -> usize {
    thread_local!(static NUMBER: Number = Number::lowest());
    // It may be gone while other thread-locals are dropped: those share the first thread's values.
    NUMBER.try_with(|number| number.0).unwrap_or_default()
}

/// The number of a thread, until it ends.
struct Number(usize);

impl Number {
    /// Takes the lowest number that no thread has.
    fn lowest() -> Self {
        let mut taken = lock(&TAKEN);
        let lowest = taken.iter().zip(0..).take_while(|&(&taken, index)| taken == index).count();
        taken.insert(lowest);
        Self(lowest)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        lock(&TAKEN).remove(&self.0);
    }
}

static TAKEN: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// If the number of processors is unknown.
const ASSUMED_PROCESSORS: usize = 8;

#[cfg(test)]
mod tests {
    use std::{
        array,
        collections::HashSet,
        ptr,
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
            mpsc::{self, Sender},
        },
    };

    use super::*;
    use crate::test_support::Random;

    type Reference = PerThreadArc<Arc<()>>;

    /// Returns a reference to a value, and what tells whether the value is still there.
    fn value() -> (Reference, Weak<()>) {
        let value = Arc::new(());
        let weak = Arc::downgrade(&value);
        (PerThreadArc::new(value), weak)
    }

    /// A thread that does one thing after the other.
    struct Thread(Sender<Box<dyn FnOnce() + Send>>);

    impl Thread {
        fn new() -> Self {
            let (sender, jobs) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
            thread::spawn(move || jobs.iter().for_each(|job| job()));
            Self(sender)
        }

        fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
            let (sender, result) = mpsc::channel();
            self.0.send(Box::new(move || sender.send(job()).unwrap())).unwrap();
            result.recv().unwrap()
        }

        fn clone(&self, reference: &Arc<Reference>) -> Arc<Reference> {
            let reference = Arc::clone(reference);
            self.run(move || Arc::new(Reference::clone(&reference)))
        }

        fn drop(&self, reference: Arc<Reference>) {
            self.run(|| drop(reference));
        }

        /// Clones a reference, drops the clone, and returns its count.
        fn count(&self, reference: &Arc<Reference>) -> Weak<Count<Arc<()>>> {
            let reference = Arc::clone(reference);
            self.run(move || Arc::downgrade(&Reference::clone(&reference).0))
        }

        /// The same for threads that share a count.
        fn slot(&self) -> usize {
            static SLOTS: OnceLock<PerThread<u8>> = OnceLock::new();
            self.run(|| ptr::from_ref(SLOTS.get_or_init(|| PerThread::new(|| 0)).own()).addr())
        }
    }

    /// Returns two threads that do not share counts.
    fn two_threads() -> [Thread; 2] {
        let thread = Thread::new();
        let mut others = (0..THREADS).map(|_| Thread::new());
        let other = others.find(|other| other.slot() != thread.slot()).expect("there are two counts at least");
        [thread, other]
    }

    #[test]
    fn threads_whose_clones_come_and_go_keep_their_counts() {
        let [thread, other] = two_threads();
        let (layer, value) = value();
        let service = thread.clone(&Arc::new(layer));
        let counts = [&thread, &other].map(|thread| thread.count(&service));
        assert!(!counts[0].ptr_eq(&counts[1]));
        assert_eq!(counts[1].strong_count(), 1, "no clone is left");
        assert!(other.count(&service).ptr_eq(&counts[1]));
        thread.drop(service);
        assert!(value.upgrade().is_none());
        assert!(counts.iter().all(|count| count.upgrade().is_none()));
    }

    // As a middleware does that keeps a clone of the ready service that it calls.
    #[test]
    fn threads_keep_their_counts_if_the_only_reference_is_replaced_by_its_clone_on_one_after_the_other() {
        let [one, two] = two_threads();
        let threads = [one, two, Thread::new()];
        let (first, value) = value();
        let mut only = Arc::new(first);
        let counts = threads.each_ref().map(|thread| {
            let clone = thread.clone(&only);
            thread.drop(mem::replace(&mut only, clone));
            Arc::downgrade(&only.0)
        });
        for turn in 0..100 {
            let (thread, count) = (&threads[turn % 3], &counts[turn % 3]);
            let clone = thread.clone(&only);
            thread.drop(mem::replace(&mut only, clone));
            assert!(count.ptr_eq(&Arc::downgrade(&only.0)), "turn {turn}");
        }
        drop(only);
        assert!(value.upgrade().is_none());
    }

    #[test]
    fn a_thread_whose_count_has_ended_makes_another_and_keeps_it() {
        let [thread, other] = two_threads();
        let (first, value) = value();
        let first = Arc::new(first);
        let clone = thread.clone(&first);
        let clone_of_clone = other.clone(&clone);
        let count = Arc::downgrade(&clone.0);
        drop((clone, first));
        assert!(count.upgrade().is_none());
        let count = thread.count(&clone_of_clone);
        assert_eq!(count.strong_count(), 1, "no clone is left");
        assert!(thread.count(&clone_of_clone).ptr_eq(&count));
        drop(clone_of_clone);
        assert!(value.upgrade().is_none());
    }

    #[test]
    fn any_series_of_clones_and_drops_counts_per_thread_and_drops_the_value_with_the_last() {
        let mut random = Random(1);
        let threads: [_; 4] = array::from_fn(|_| Thread::new());
        for _ in 0..100 {
            let (first, value) = value();
            // Its count is no thread's.
            let mut references = vec![(0, Arc::new(first))];
            for _ in 0..60 {
                let Some(at) = random.index(references.len()) else { break };
                let thread = &threads[random.index(threads.len()).unwrap()];
                if random.below(2) == 0 {
                    references.push((thread.slot(), thread.clone(&references[at].1)));
                } else {
                    thread.drop(references.swap_remove(at).1);
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
        // The reference count precedes it in one allocation with its alignment.
        let read = ptr::from_ref(&*reference.0).addr();
        assert_eq!((read % 128, align_of_val(&*reference.0)), (0, 128));
        let hits = PerThread::new(AtomicUsize::default);
        let lines: HashSet<_> = hits.iter().map(|hits| ptr::from_ref(hits).addr() / 128).collect();
        assert_eq!(lines.len(), hits.iter().count());
    }

    #[test]
    fn threads_write_to_the_value_of_their_number_and_sum_up_what_each_has_counted() {
        let counts = PerThread::new(AtomicUsize::default);
        // None ends before the last has counted.
        let counted = Barrier::new(THREADS);
        let values: HashSet<_> = thread::scope(|scope| {
            let count = || {
                counts.own().fetch_add(1, Ordering::Relaxed);
                counted.wait();
                (number_of_thread() % counts.iter().count(), ptr::from_ref(counts.own()).addr())
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(values.len() > 1);
        let [numbers, addresses]: [HashSet<_>; 2] =
            [values.iter().map(|value| value.0).collect(), values.iter().map(|value| value.1).collect()];
        assert_eq!([numbers.len(), addresses.len()], [values.len(); 2], "a value for each number");
        assert_eq!(counts.iter().map(|count| count.load(Ordering::Relaxed)).sum::<usize>(), THREADS);
    }

    #[test]
    fn threads_have_different_numbers_which_are_used_again_when_they_have_ended() {
        let threads: [_; 50] = array::from_fn(|_| Thread::new());
        let numbers: HashSet<_> = threads.iter().map(|thread| thread.run(number_of_thread)).collect();
        assert_eq!(numbers.len(), threads.len());
        let one_after_the_other: HashSet<_> =
            (0..1_000).map(|_| thread::spawn(number_of_thread).join().unwrap()).collect();
        assert!(one_after_the_other.len() < 500, "{}", one_after_the_other.len());
    }

    const THREADS: usize = 100;
}
