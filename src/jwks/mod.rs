//! Crossmint's key set: parsed once, read synchronously, reloaded by a policy that clients cannot abuse.
//!
//! The terms are those of RFC 5861.
//!
//! 1. A set is fresh for [`SOFT_TTL`]; then one reload starts in the background, and the stale set remains in use.
//! 2. A failed reload keeps the last good set, until it is [`HARD_TTL`] old.
//! 3. A token that names an unknown key causes at most one reload per [`COOLDOWN`], counted from the last attempt.
//! 4. A token that Crossmint has just issued may cause one at any time.
//! 5. Without a set, attempts back off from one second to [`MAX_BACKOFF`], or for as long as Crossmint asks for.
//! 6. A warm-up is not refused: it waits until the last attempt is [`MIN_INTERVAL`] ago, or for as long as Crossmint
//!    asks for.
//! 7. One reload at a time; all who need it wait for the same one.

mod key_set;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

pub(crate) use self::key_set::KeySet;
use crate::{
    clock::{self, Clock, nanos},
    error::{AuthError, AuthErrorKind},
    log_throttle::Throttle,
    stats::Counters,
    task_tracker::{TaskTracker, runtime},
};

/// The current key set, which reloads itself.
pub(crate) struct JwksCache {
    fetch: Box<Fetch>,
    tasks: TaskTracker,
    counters: Arc<Counters>,
    failure_log: Throttle,
    current: RwLock<Option<Arc<KeySet>>>,
    /// Changes whenever the set does: what an older one has verified must be verified again.
    generation: AtomicU64,
    clock: Clock,
    /// When the set becomes too old to be used, as the clock's elapsed time. Zero without a set.
    usable_until: AtomicU64,
    /// When the set may be reloaded in the background, likewise. Atomic, so that requests before that time do not lock.
    reload_at: AtomicU64,
    reload: Mutex<Reload>,
}

/// Loads the document.
type Fetch = dyn Fn() -> BoxFuture<'static, Result<Vec<u8>, AuthError>> + Send + Sync;

/// What reloads are decided by.
#[derive(Default)]
struct Reload {
    last_attempt: Option<Instant>,
    failures: u32,
    last_failure: Option<AuthError>,
    under_way: Option<watch::Sender<()>>,
    /// When the attempt started that has loaded the set, by the wall clock in seconds: a token that Crossmint has
    /// issued since then may have a newer key.
    loaded_at: u64,
    attempted_at: u64,
}

impl JwksCache {
    pub(crate) fn new(
        fetch: impl Fn() -> BoxFuture<'static, Result<Vec<u8>, AuthError>> + Send + Sync + 'static,
        tasks: TaskTracker,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            fetch: Box::new(fetch),
            tasks,
            counters,
            failure_log: Throttle::default(),
            current: RwLock::default(),
            generation: AtomicU64::new(0),
            clock: Clock::new(),
            usable_until: AtomicU64::new(0),
            reload_at: AtomicU64::new(0),
            reload: Mutex::default(),
        }
    }

    /// Returns which set is in use, unless there is none or it is too old. Does not wait.
    ///
    /// Starts the reload of a stale set in the background when that is due ("stale-while-revalidate", RFC 5861 section
    /// 3), and takes no lock otherwise.
    pub(crate) fn generation(self: &Arc<Self>) -> Option<u64> {
        self.generation_and_time().map(|(generation, _)| generation)
    }

    /// Returns which set is in use, and the wall clock's time in seconds since 1970, from one clock reading.
    pub(crate) fn generation_and_time(self: &Arc<Self>) -> Option<(u64, u64)> {
        let now = self.clock.elapsed();
        if now >= self.usable_until.load(Ordering::Acquire) {
            return None;
        }
        let unix_seconds = self.clock.unix_seconds(now);
        if now >= self.reload_at.load(Ordering::Acquire) {
            self.reload_in_background();
        }
        Some((self.generation.load(Ordering::Acquire), unix_seconds))
    }

    /// Returns the set and its generation, unless there is none or it is too old.
    pub(crate) fn current(&self) -> Option<(Arc<KeySet>, u64)> {
        if !self.is_usable() {
            return None;
        }
        // Held for a reference count. Under the lock, the generation is that of the set.
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some((current.clone()?, self.generation.load(Ordering::Acquire)))
    }

    /// Returns whether a token claims to have been issued after the set was loaded, so that its key may be a new one.
    pub(crate) fn is_older_than(&self, issued_at: u64) -> bool {
        issued_at > self.state().loaded_at
    }

    /// Loads a set if there is none that can be used.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(crate) async fn ensure_usable(self: &Arc<Self>) -> Result<(), AuthError> {
        if self.generation().is_some() {
            return Ok(());
        }
        let reloaded = self.reload(ReloadReason::Missing).await;
        if self.is_usable() { Ok(()) } else { reloaded.and(Err(AuthError::of(AuthErrorKind::Unavailable))) }
    }

    /// Loads a set if there is none that can be used. Waits until that is allowed.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(crate) async fn warm_up(self: &Arc<Self>) -> Result<(), AuthError> {
        while self.generation().is_none() {
            match self.start_reload(ReloadReason::WarmUp)? {
                ReloadDecision::NotBefore(delay) => sleep(delay).await,
                ReloadDecision::Start(mut done) | ReloadDecision::Join(mut done) => {
                    while done.changed().await.is_ok() {}
                    self.state().last_failure.clone().map_or(Ok(()), Err)?;
                }
            }
        }
        Ok(())
    }

    /// Reloads the set, or waits for the reload that is under way, if the policy allows one now.
    ///
    /// # Errors
    ///
    /// When the last reload failed, whichever request started it.
    pub(crate) async fn reload(self: &Arc<Self>, reason: ReloadReason) -> Result<ReloadDecision, AuthError> {
        let mut reloaded = self.start_reload(reason)?;
        if let ReloadDecision::Start(done) | ReloadDecision::Join(done) = &mut reloaded {
            while done.changed().await.is_ok() {}
        }
        match (self.state().last_failure.clone(), &reloaded) {
            (None, _) => Ok(reloaded),
            (Some(error), ReloadDecision::NotBefore(delay)) => Err(error.with_retry_after(Some(*delay))),
            (Some(error), _) => Err(error),
        }
    }

    // Out of line: inlined, it makes `generation` slower, which every request calls.
    #[cold]
    fn reload_in_background(self: &Arc<Self>) {
        // Without a runtime there is no reload, and the set is used until it is too old.
        let _ = self.start_reload(ReloadReason::Stale);
    }

    /// Starts a reload in a task of its own, because the requests that wait for it may be cancelled.
    fn start_reload(self: &Arc<Self>, reason: ReloadReason) -> Result<ReloadDecision, AuthError> {
        // Before the attempt is recorded: a missing runtime is no failure of Crossmint's.
        runtime()?;
        let reloaded = self.decide_reload(reason);
        if let ReloadDecision::Start(_) = reloaded {
            let mut guard = ReloadGuard { cache: Arc::clone(self), outcome: None };
            self.tasks.spawn(async move {
                guard.outcome = Some(guard.cache.load().await);
                drop(guard);
            })?;
        }
        Ok(reloaded)
    }

    /// Decides whether a reload may start now. The caller carries it out.
    fn decide_reload(&self, reason: ReloadReason) -> ReloadDecision {
        let mut state = self.state();
        // Another request may have been faster.
        let is_wanted = match reason {
            ReloadReason::Missing | ReloadReason::WarmUp => !self.is_usable(),
            ReloadReason::Stale => self.clock.elapsed() >= self.reload_at.load(Ordering::Acquire),
            ReloadReason::UnknownKey | ReloadReason::Issued => true,
        };
        if !is_wanted {
            return ReloadDecision::NotBefore(Duration::ZERO);
        }
        if let Some(under_way) = &state.under_way {
            return ReloadDecision::Join(under_way.subscribe());
        }
        let now = Instant::now();
        if let Some(last) = state.last_attempt
            && let remaining = (last + state.pause(reason)).saturating_duration_since(now)
            && !remaining.is_zero()
        {
            return ReloadDecision::NotBefore(remaining);
        }
        // One second for the attempt itself, or as long as the next failure will ask for.
        self.pause_background_reloads(backoff(state.failures.saturating_add(1)));
        state.last_attempt = Some(now);
        state.attempted_at = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (sender, done) = watch::channel(());
        state.under_way = Some(sender);
        ReloadDecision::Start(done)
    }

    async fn load(&self) -> Result<KeySet, AuthError> {
        let set = (self.fetch)().await.and_then(|document| {
            KeySet::parse(&document).map_err(|why| AuthError::new(AuthErrorKind::UnusableAnswer, why))
        });
        match &set {
            Ok(set) => {
                self.counters.reloads.count();
                self.counters.recorder.keys_loaded();
                tracing::debug!(keys = set.len(), "loaded the key set");
            }
            Err(error) => {
                self.counters.failed_reloads.count();
                if self.failure_log.is_due() {
                    let kind = error.kind().as_str();
                    tracing::warn!(kind, error = %error.causes(), "could not load the key set");
                }
            }
        }
        set
    }

    /// Records the outcome of a reload, and wakes the requests that wait for it.
    fn finish_reload(&self, outcome: Result<KeySet, AuthError>) {
        let mut state = self.state();
        state.under_way = None;
        match outcome {
            Ok(set) => {
                let (last_attempt, loaded_at) = (state.last_attempt, state.attempted_at);
                *state = Reload { last_attempt, loaded_at, ..Reload::default() };
                self.install(set);
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                state.last_failure = Some(error);
                self.pause_background_reloads(state.pause(ReloadReason::Stale));
            }
        }
    }

    fn install(&self, set: KeySet) {
        // Held while two sets are compared and one is replaced: readers wait for no parsing and no network.
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_deref() != Some(&set) {
            *current = Some(Arc::new(set));
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        self.reload_at.store(self.after(SOFT_TTL), Ordering::Release);
        // Last, with `Release`: a reader that sees a usable set sees its generation, too.
        self.usable_until.store(self.after(HARD_TTL), Ordering::Release);
    }

    /// Returns whether there is a set that is not too old. Does not lock.
    fn is_usable(&self) -> bool {
        self.clock.elapsed() < self.usable_until.load(Ordering::Acquire)
    }

    /// Puts off reloads in the background. Those of a fresh set are due later anyway.
    fn pause_background_reloads(&self, pause: Duration) {
        self.reload_at.fetch_max(self.after(pause), Ordering::AcqRel);
    }

    /// Returns the clock's elapsed time after a delay.
    fn after(&self, delay: Duration) -> u64 {
        self.clock.elapsed().saturating_add(nanos(delay))
    }

    /// Locks what only reloads, and requests that want one, look at.
    fn state(&self) -> MutexGuard<'_, Reload> {
        self.reload.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reload {
    /// Returns how long to wait after the last attempt.
    fn pause(&self, reason: ReloadReason) -> Duration {
        let requested = self.last_failure.as_ref().and_then(AuthError::requested_retry_after).unwrap_or_default();
        match reason {
            ReloadReason::Issued => Duration::ZERO,
            ReloadReason::UnknownKey => COOLDOWN.max(requested),
            ReloadReason::Missing | ReloadReason::Stale => backoff(self.failures).max(requested),
            // The application asks, not its clients.
            ReloadReason::WarmUp => MIN_INTERVAL.max(requested),
        }
    }
}

/// Returns 0, 1, 2, 4, ... seconds.
fn backoff(failures: u32) -> Duration {
    Duration::from_secs((1 << failures.min(6)) / 2).min(MAX_BACKOFF)
}

/// Why a reload is wanted.
#[derive(Clone, Copy)]
pub(crate) enum ReloadReason {
    /// There is no usable set.
    Missing,
    /// The same, and the application itself asks for one.
    WarmUp,
    /// The set is stale.
    Stale,
    /// A request's token names a key that is not in the set.
    UnknownKey,
    /// A token that Crossmint itself has just issued names one.
    Issued,
}

/// What is done for a fresher key set. The receivers close when the reload has ended.
pub(crate) enum ReloadDecision {
    /// A reload is started.
    Start(watch::Receiver<()>),
    /// One is under way already.
    Join(watch::Receiver<()>),
    /// None is started before this much time has passed.
    NotBefore(Duration),
}

/// A reload under way, which ends with this. Without an outcome (a panic, a runtime that shuts down), it has failed.
struct ReloadGuard {
    cache: Arc<JwksCache>,
    outcome: Option<Result<KeySet, AuthError>>,
}

impl Drop for ReloadGuard {
    fn drop(&mut self) {
        let interrupted = || Err(AuthError::of(AuthErrorKind::Unavailable));
        self.cache.finish_reload(self.outcome.take().unwrap_or_else(interrupted));
    }
}

/// Long enough that reloads are rare, short enough that a withdrawn key does not verify for long.
const SOFT_TTL: Duration = Duration::from_secs(10 * 60);

/// How long an outage of Crossmint's may last before known sessions are affected.
const HARD_TTL: Duration = Duration::from_secs(60 * 60);

/// Anonymous clients can name unknown keys: this bounds what they cost Crossmint.
const COOLDOWN: Duration = Duration::from_secs(30);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Few operators notice it, and a loop without a pause of its own does not flood Crossmint.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(crate) mod tests;
