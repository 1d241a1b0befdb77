//! Crossmint's key set: parsed once, read synchronously, reloaded by a policy that clients cannot abuse.
//!
//! The terms are those of RFC 5861.
//!
//! 1. A set is fresh for [`SOFT_TTL`]; then one reload starts in the background, and the stale set goes on serving.
//! 2. A failed reload keeps the last good set, until it is [`HARD_TTL`] old.
//! 3. A token that names an unknown key causes at most one reload per [`COOLDOWN`], counted from the last attempt.
//! 4. A token that Crossmint has just issued may cause one at any time.
//! 5. Without a set, attempts back off from one second to [`MAX_BACKOFF`], or for as long as Crossmint asks for.
//! 6. One reload at a time; all who need it wait for the same one.

mod key_set;

use std::{
    error::Error,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::Instant};

pub(crate) use self::key_set::KeySet;
use crate::{
    clock,
    error::{AuthError, AuthErrorKind},
    stats::Counters,
    task_tracker::{TaskTracker, runtime},
    throttle::Throttle,
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
    /// When the set was loaded, in milliseconds since `epoch`; `u64::MAX` without a set.
    loaded_at: AtomicU64,
    /// The same in seconds of the clock that tokens are issued by.
    loaded_at_unix: AtomicU64,
    epoch: Instant,
    reload: Mutex<Reload>,
    /// When a stale set may be reloaded, in milliseconds since `epoch`: most requests learn without the lock that it is too
    /// soon.
    stale_until: AtomicU64,
}

/// Loads the document.
type Fetch = dyn Fn() -> BoxFuture<'static, Result<Vec<u8>, AuthError>> + Send + Sync;

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
            loaded_at: AtomicU64::new(u64::MAX),
            loaded_at_unix: AtomicU64::new(0),
            epoch: Instant::now(),
            reload: Mutex::default(),
            stale_until: AtomicU64::new(0),
        }
    }

    /// Returns which set is in use, unless there is none or it is too old. Does not lock.
    ///
    /// A stale set is reloaded in the background when that is due.
    pub(crate) fn generation(self: &Arc<Self>) -> Option<u64> {
        match self.freshness() {
            Freshness::Unusable => return None,
            Freshness::Stale if self.is_due() => self.reload_in_background(),
            Freshness::Fresh | Freshness::Stale => {}
        }
        Some(self.generation.load(Ordering::Acquire))
    }

    /// Returns the set and its generation, unless there is none or it is too old.
    pub(crate) fn current(&self) -> Option<(Arc<KeySet>, u64)> {
        if self.freshness() == Freshness::Unusable {
            return None;
        }
        // Held for a reference count. Under the lock, the generation is that of the set.
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some((current.clone()?, self.generation.load(Ordering::Acquire)))
    }

    /// Returns whether a token was issued after the set was loaded, so that its key may be a new one. Tokens that are not
    /// verified say what they like.
    pub(crate) fn is_older_than(&self, issued_at: u64) -> bool {
        issued_at > self.loaded_at_unix.load(Ordering::Acquire)
    }

    /// Loads a set if there is none that can be used.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(crate) async fn ensure_usable(self: &Arc<Self>) -> Result<(), AuthError> {
        match self.freshness() {
            Freshness::Fresh => return Ok(()),
            Freshness::Stale => {
                self.reload_in_background();
                return Ok(());
            }
            Freshness::Unusable => {}
        }
        let reloaded = self.reload(ReloadReason::Missing).await;
        if self.freshness() != Freshness::Unusable {
            return Ok(());
        }
        reloaded.and(Err(AuthError::of(AuthErrorKind::Unavailable)))
    }

    /// Reloads the set, or waits for the reload that is under way, if the policy allows one now.
    ///
    /// # Errors
    ///
    /// When the last reload failed, whichever request started it.
    pub(crate) async fn reload(self: &Arc<Self>, reason: ReloadReason) -> Result<Reloaded, AuthError> {
        let (reloaded, done) = self.start_reload(reason)?;
        if let Some(mut done) = done {
            while done.changed().await.is_ok() {}
        }
        match (self.state().last_failure.clone(), reloaded) {
            (None, reloaded) => Ok(reloaded),
            (Some(error), Reloaded::NotBefore(delay)) => Err(error.with_retry_after(Some(delay))),
            (Some(error), _) => Err(error),
        }
    }

    fn reload_in_background(self: &Arc<Self>) {
        // Requests that need the outcome look at the set.
        let _ = self.start_reload(ReloadReason::Stale);
    }

    /// Starts a reload in a task of its own: the requests that wait for it may be cancelled. The receiver closes when it has
    /// ended.
    fn start_reload(
        self: &Arc<Self>,
        reason: ReloadReason,
    ) -> Result<(Reloaded, Option<watch::Receiver<()>>), AuthError> {
        // Before the attempt is recorded: a missing runtime is no failure of Crossmint's.
        runtime()?;
        let (guard, done) = match self.decide_reload(reason) {
            ReloadDecision::Start(guard, done) => (guard, done),
            ReloadDecision::Join(done) => return Ok((Reloaded::Joined, Some(done))),
            ReloadDecision::NotBefore(delay) => return Ok((Reloaded::NotBefore(delay), None)),
        };
        let cache = Arc::clone(self);
        self.tasks.spawn(async move {
            let set = (cache.fetch)().await.and_then(|document| {
                KeySet::parse(&document).map_err(|why| AuthError::new(AuthErrorKind::UnusableAnswer, why))
            });
            match set {
                Ok(set) => {
                    cache.counters.reloads.count();
                    tracing::debug!(keys = set.len(), "loaded the key set");
                    guard.succeed(set);
                }
                Err(error) => {
                    cache.counters.failed_reloads.count();
                    if cache.failure_log.is_due() {
                        let kind = error.kind();
                        tracing::warn!(?kind, error = &error as &dyn Error, "the key set could not be loaded");
                    }
                    guard.fail(error);
                }
            }
        })?;
        Ok((Reloaded::Now, Some(done)))
    }

    /// Decides whether a reload may start now.
    fn decide_reload(self: &Arc<Self>, reason: ReloadReason) -> ReloadDecision {
        let mut state = self.state();
        // Another request may have been faster.
        match (reason, self.freshness()) {
            (ReloadReason::Stale, Freshness::Fresh) | (ReloadReason::Missing, Freshness::Fresh | Freshness::Stale) => {
                return ReloadDecision::NotBefore(Duration::ZERO);
            }
            _ => {}
        }
        if let Some(under_way) = &state.under_way {
            return ReloadDecision::Join(under_way.clone());
        }
        let now = Instant::now();
        if let Some(last) = state.last_attempt
            && let remaining = state.pause(reason).saturating_sub(now.saturating_duration_since(last))
            && !remaining.is_zero()
        {
            return ReloadDecision::NotBefore(remaining);
        }
        // One second for the attempt itself, or as long as the next failure will ask for.
        self.pause_stale_reloads(backoff(state.failures.saturating_add(1)));
        let (sender, done) = watch::channel(());
        state.last_attempt = Some(now);
        state.under_way = Some(done.clone());
        ReloadDecision::Start(ReloadGuard { cache: Arc::clone(self), is_open: true, _done: sender }, done)
    }

    /// Returns whether a stale set may be reloaded. Does not lock.
    fn is_due(&self) -> bool {
        self.millis() >= self.stale_until.load(Ordering::Acquire)
    }

    /// Returns how far the set can be trusted. Does not lock.
    fn freshness(&self) -> Freshness {
        let loaded_at = self.loaded_at.load(Ordering::Acquire);
        let age = Duration::from_millis(self.millis().saturating_sub(loaded_at));
        match age {
            _ if loaded_at == u64::MAX => Freshness::Unusable,
            age if age >= HARD_TTL => Freshness::Unusable,
            age if age >= SOFT_TTL => Freshness::Stale,
            _ => Freshness::Fresh,
        }
    }

    fn install(&self, set: KeySet) {
        {
            // Held while two sets are compared and one is replaced: readers wait for no parsing and no network.
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if current.as_deref() != Some(&set) {
                *current = Some(Arc::new(set));
                self.generation.fetch_add(1, Ordering::AcqRel);
            }
        }
        let unix = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.loaded_at_unix.store(unix.as_secs(), Ordering::Release);
        // Last, with `Release`: a reader that sees a fresh set sees the set, too.
        self.loaded_at.store(self.millis(), Ordering::Release);
    }

    fn pause_stale_reloads(&self, pause: Duration) {
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX >> 1);
        self.stale_until.store(self.millis() + pause, Ordering::Release);
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    /// Locks what only reloads, and requests that want one, look at.
    fn state(&self) -> MutexGuard<'_, Reload> {
        self.reload.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Reload {
    last_attempt: Option<Instant>,
    failures: u32,
    last_failure: Option<AuthError>,
    under_way: Option<watch::Receiver<()>>,
}

impl Reload {
    /// Returns how long to wait after the last attempt.
    fn pause(&self, reason: ReloadReason) -> Duration {
        let requested = self.last_failure.as_ref().and_then(AuthError::requested_retry_after).unwrap_or_default();
        match reason {
            ReloadReason::Issued => Duration::ZERO,
            ReloadReason::UnknownKey => COOLDOWN.max(requested),
            ReloadReason::Stale if self.failures == 0 => Duration::ZERO,
            ReloadReason::Missing | ReloadReason::Stale => backoff(self.failures).max(requested),
        }
    }

    fn fail(&mut self, error: AuthError) {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(error);
        self.under_way = None;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    Fresh,
    /// Good enough, and due for a reload.
    Stale,
    /// Never loaded, or not for [`HARD_TTL`].
    Unusable,
}

/// Why a reload is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadReason {
    /// There is no usable set.
    Missing,
    /// The set is stale.
    Stale,
    /// A request's token names a key that is not in the set.
    UnknownKey,
    /// A token that Crossmint itself has just issued names one.
    Issued,
}

/// What has been done for a fresher key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reloaded {
    Now,
    /// An earlier request had started it.
    Joined,
    /// Nothing: it is too soon.
    NotBefore(Duration),
}

enum ReloadDecision {
    /// The caller carries the reload out.
    Start(ReloadGuard, watch::Receiver<()>),
    /// One is under way.
    Join(watch::Receiver<()>),
    /// Not before this much time has passed.
    NotBefore(Duration),
}

/// A reload under way. Dropped unfinished (a panic, a runtime that shuts down), it has failed.
struct ReloadGuard {
    cache: Arc<JwksCache>,
    is_open: bool,
    _done: watch::Sender<()>,
}

impl ReloadGuard {
    fn succeed(mut self, set: KeySet) {
        self.is_open = false;
        let mut state = self.cache.state();
        self.cache.install(set);
        state.failures = 0;
        state.last_failure = None;
        state.under_way = None;
    }

    fn fail(mut self, error: AuthError) {
        self.is_open = false;
        let mut state = self.cache.state();
        state.fail(error);
        self.cache.pause_stale_reloads(state.pause(ReloadReason::Stale));
    }
}

impl Drop for ReloadGuard {
    fn drop(&mut self) {
        if self.is_open {
            self.cache.state().fail(AuthError::of(AuthErrorKind::Unavailable));
        }
    }
}

fn backoff(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        failures => Duration::from_secs(1 << (failures - 1).min(5)).min(MAX_BACKOFF),
    }
}

/// Long enough that reloads are rare, short enough that a withdrawn key does not verify for long.
const SOFT_TTL: Duration = Duration::from_secs(10 * 60);

/// How long an outage of Crossmint's may last before known sessions are affected.
const HARD_TTL: Duration = Duration::from_secs(60 * 60);

/// Anonymous clients can name unknown keys: this bounds what they cost Crossmint.
const COOLDOWN: Duration = Duration::from_secs(30);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

#[cfg(test)]
pub(crate) mod tests;
