//! Load, and what is measured of it.

use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

/// Sends `rate` requests a second, each in a task of its own, however long the answers take. Returns when all are in.
pub(crate) async fn open_loop<F>(rate: usize, time: Duration, mut send: impl FnMut(usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (start, mut ticks, mut tasks, mut sent) = (Instant::now(), interval(TICK), JoinSet::new(), 0);
    while start.elapsed() < time {
        ticks.tick().await;
        while sent < due(rate, start) {
            tasks.spawn(send(sent));
            sent += 1;
        }
        while tasks.try_join_next().is_some() {}
    }
    tasks.join_all().await;
}

/// Sends at most `rate` requests a second over a few lanes, each of which waits for its answer before it goes on.
pub(crate) async fn steady<F>(rate: usize, time: Duration, send: impl Fn(usize) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let send = send.clone();
        lanes.spawn(async move {
            let (start, mut ticks, mut sent) = (Instant::now(), interval(TICK), 0);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            while start.elapsed() < time {
                ticks.tick().await;
                let due = due(rate, start).div_ceil(LANES);
                while sent < due && start.elapsed() < time {
                    send(sent * LANES + lane).await;
                    sent += 1;
                }
            }
        });
    }
    lanes.join_all().await;
}

fn due(rate: usize, start: Instant) -> usize {
    let millis = usize::try_from(start.elapsed().as_millis()).unwrap_or(usize::MAX);
    rate.saturating_mul(millis) / 1000
}

/// A histogram whose buckets are 3 % wide. It takes no memory while it fills.
pub(crate) struct Latencies {
    buckets: Vec<AtomicU32>,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { buckets: (0..64 * PER_OCTAVE).map(|_| AtomicU32::new(0)).collect() }
    }

    pub(crate) fn record(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(PER_OCTAVE as u64);
        let octave = nanos.ilog2() as usize;
        let within = (nanos >> (octave - PER_OCTAVE.ilog2() as usize)) as usize - PER_OCTAVE;
        self.buckets[octave * PER_OCTAVE + within].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| u64::from(bucket.load(Ordering::Relaxed))).sum()
    }

    pub(crate) fn p50(&self) -> Duration {
        self.at_rank(self.count() / 2)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.at_rank(self.count() * 99 / 100)
    }

    /// Returns the upper end of the bucket in which the sample of this rank lies.
    fn at_rank(&self, rank: u64) -> Duration {
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|bucket| {
            seen += u64::from(bucket.load(Ordering::Relaxed));
            seen > rank
        });
        let Some(bucket) = bucket else { return Duration::ZERO };
        let (octave, within) = (bucket / PER_OCTAVE, bucket % PER_OCTAVE);
        Duration::from_nanos(((PER_OCTAVE + within + 1) as u64) << (octave - PER_OCTAVE.ilog2() as usize))
    }
}

/// Xorshift: the same load in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// Returns the memory that this process has in RAM, in KiB.
pub(crate) fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells about the process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there is a line VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("VmRSS is a number of kB")
}

pub(crate) fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").expect("Linux tells about the file descriptors").count()
}

pub(crate) fn open_files_limit() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").expect("Linux tells about the limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("there is a line for files");
    line.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX)
}

const TICK: Duration = Duration::from_millis(5);
const LANES: usize = 16;
const PER_OCTAVE: usize = 32;
