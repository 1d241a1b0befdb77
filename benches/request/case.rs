//! What is timed, and how.

use std::{
    collections::HashMap,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Something to be timed.
pub(crate) struct Case<'a> {
    pub(crate) name: String,
    /// How often it runs in each turn.
    rounds: u64,
    /// Runs so many rounds and tells how long they took, without what they needed to be set up.
    pub(crate) run: Box<dyn FnMut(u64) -> Duration + 'a>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(name: impl Into<String>, rounds: u64, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        Self { name: name.into(), rounds, run: Box::new(run) }
    }

    pub(crate) fn of(name: impl Into<String>, rounds: u64, mut once: impl FnMut() + 'a) -> Self {
        Self::new(name, rounds, move |rounds| time(rounds, &mut once))
    }

    /// A case on so many threads at once, of which the slowest counts.
    pub(crate) fn on<F>(
        threads: usize,
        name: &str,
        rounds: u64,
        case: impl Fn(usize, Arc<Gate>) -> F + Sync + 'a,
    ) -> Self
    where
        F: FnMut(u64) -> Duration,
    {
        Self::new(format!("{name} on {threads}"), rounds, move |rounds| {
            let (ready, gate) = (Barrier::new(threads), Gate::of(threads));
            let run = |thread| {
                let mut run = case(thread, Arc::clone(&gate));
                ready.wait();
                run(rounds)
            };
            thread::scope(|scope| {
                let run = &run;
                let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
                all.into_iter().map(|one| one.join().unwrap()).max().unwrap()
            })
        })
    }
}

pub(crate) fn time(rounds: u64, mut once: impl FnMut()) -> Duration {
    // What ran before has left other things in the processor's caches.
    (0..rounds.min(100)).for_each(|_| once());
    let start = Instant::now();
    (0..rounds).for_each(|_| once());
    start.elapsed()
}

/// Where threads wait for each other. None of them sleeps, because waking it up takes longer than what is timed.
pub(crate) struct Gate {
    threads: usize,
    arrivals: AtomicUsize,
}

impl Gate {
    pub(crate) fn of(threads: usize) -> Arc<Self> {
        Arc::new(Self { threads, arrivals: AtomicUsize::new(0) })
    }

    pub(crate) fn wait(&self) {
        let earlier = self.arrivals.fetch_add(1, Ordering::AcqRel);
        let all = (earlier / self.threads + 1) * self.threads;
        while self.arrivals.load(Ordering::Acquire) < all {
            thread::yield_now();
        }
    }
}

/// The times of all cases in nanoseconds, turn by turn: they share the machine's good and bad moments.
pub(crate) struct Turns(HashMap<String, Vec<f64>>);

impl Turns {
    pub(crate) fn take(cases: &mut [Case<'_>], turns: usize) -> Self {
        let mut times: HashMap<String, Vec<f64>> = HashMap::new();
        for turn in 0..turns {
            for Case { name, rounds, run } in &mut *cases {
                times.entry(name.clone()).or_default().push(run(*rounds).as_nanos() as f64 / *rounds as f64);
            }
            // No case is to gain from what ran before it.
            if turn % 2 == 0 { cases.reverse() } else { cases.rotate_left(1) }
        }
        Self(times)
    }

    /// The median, over the turns, of something that is computed from the times of these cases.
    pub(crate) fn median<const N: usize>(&self, names: [&str; N], compute: impl Fn([f64; N]) -> f64) -> f64 {
        let times = names.map(|name| &self.0[name]);
        let mut all: Vec<f64> = (0..times[0].len()).map(|turn| compute(times.map(|times| times[turn]))).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }
}
