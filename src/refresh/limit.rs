//! Back-pressure: how many calls to Crossmint are under way at once, and when none is made at all.
//!
//! 1. The number of permits is fixed. Eight times as many refreshes may queue for them; any more fail at once.
//! 2. If all permits are taken and none is returned for a tenth of the refresh's time limit, Crossmint hangs, and the
//!    circuit breaker opens: all queued refreshes fail, and later ones fail at once.
//! 3. While it is open, one refresh is let through per half of that time, until Crossmint has answered one. The breaker
//!    closes by itself after ten times as long.
//! 4. After [`MAX_CONSECUTIVE_429S`], no refresh is started before the time that Crossmint has asked for.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::{Instant, timeout, timeout_at},
};

use crate::error::{AuthError, AuthErrorKind};

/// Limits the refreshes.
pub(crate) struct RefreshLimit {
    queue: Arc<Semaphore>,
    permits: Semaphore,
    timeout: Duration,
    state: Mutex<State>,
}

struct State {
    breaker: CircuitBreaker,
    consecutive_429s: u32,
    /// After too many 429s: the last of them, and until when no refresh is started.
    paused: Option<(AuthError, Instant)>,
}

impl RefreshLimit {
    /// Creates a limit. The circuit breaker opens after a tenth of the time that a refresh may take: one second by
    /// default.
    pub(crate) fn new(permits: usize, timeout: Duration) -> Self {
        let breaker = CircuitBreaker {
            stall: (timeout / 10).clamp(MIN_STALL, MAX_STALL),
            last_progress: Instant::now(),
            is_open: false,
        };
        Self {
            queue: Arc::new(queue(permits)),
            permits: Semaphore::new(permits),
            timeout,
            state: Mutex::new(State { breaker, consecutive_429s: 0, paused: None }),
        }
    }

    /// Enters the queue for a refresh, until the result is dropped.
    pub(crate) fn enqueue(&self) -> Result<OwnedSemaphorePermit, AuthError> {
        let now = Instant::now();
        let mut state = self.state();
        state.paused.take_if(|(_, until)| *until <= now);
        if let Some((error, until)) = &state.paused {
            return Err(error.clone().with_retry_after(Some(*until - now)));
        }
        Arc::clone(&self.queue).try_acquire_owned().map_err(|_| queue_full())
    }

    /// Waits for a permit to send one token.
    pub(crate) async fn acquire(&self) -> Result<Permit<'_>, AuthError> {
        let permit = timeout(self.timeout, self.wait()).await.ok().flatten();
        permit.ok_or_else(|| AuthError::new(AuthErrorKind::Unavailable, "Crossmint has stopped answering"))
    }

    async fn wait(&self) -> Option<Permit<'_>> {
        // Pinned across the rounds: the semaphore is fair, and a new future would lose its place in the queue.
        let mut turn = pin!(self.permits.acquire());
        let mut is_queued = false;
        loop {
            let deadline = {
                // A free permit is taken under the lock: two refreshes must not be the same probe.
                let mut state = self.state();
                let (breaker, now) = (&mut state.breaker, Instant::now());
                if !breaker.lets_through(now) {
                    return None;
                }
                if !is_queued && let Ok(permit) = self.permits.try_acquire() {
                    breaker.last_progress = now;
                    return Some(Permit { limit: self, _permit: permit });
                }
                breaker.trip_or_deadline(now)?
            };
            is_queued = true;
            if let Ok(Ok(permit)) = timeout_at(deadline, turn.as_mut()).await {
                self.state().breaker.last_progress = Instant::now();
                return Some(Permit { limit: self, _permit: permit });
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Held for a few comparisons, never while waiting for a permit.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Detects that Crossmint hangs.
struct CircuitBreaker {
    /// Without progress for so long, Crossmint hangs.
    stall: Duration,
    /// When a permit was last acquired, or Crossmint last answered.
    last_progress: Instant,
    is_open: bool,
}

impl CircuitBreaker {
    /// Returns whether a call may be made: the breaker is closed, or a probe is due. Closes a breaker that was opened
    /// long ago.
    fn lets_through(&mut self, now: Instant) -> bool {
        // An old outage says nothing about the present.
        self.is_open &= now < self.last_progress + self.stall * 10;
        !self.is_open || now >= self.last_progress + self.stall / 2
    }

    /// Returns until when to wait for progress. If there was none for too long, opens the breaker and returns `None`.
    fn trip_or_deadline(&mut self, now: Instant) -> Option<Instant> {
        let deadline = self.last_progress + self.stall;
        self.is_open |= now >= deadline;
        (!self.is_open).then_some(deadline)
    }

    fn record_success(&mut self, now: Instant) {
        self.last_progress = now;
        self.is_open = false;
    }
}

/// Permits sending one token, until it is dropped.
pub(crate) struct Permit<'a> {
    limit: &'a RefreshLimit,
    _permit: SemaphorePermit<'a>,
}

impl Permit<'_> {
    /// Records how Crossmint has answered.
    pub(crate) fn record(&self, error: Option<&AuthError>) {
        let now = Instant::now();
        let mut state = self.limit.state();
        if error.is_none_or(|error| error.kind() != AuthErrorKind::Unavailable) {
            state.breaker.record_success(now);
        }
        let limited = error.filter(|error| error.kind() == AuthErrorKind::RateLimited);
        state.consecutive_429s = limited.map_or(0, |_| state.consecutive_429s.saturating_add(1));
        if let Some(error) = limited.filter(|_| state.consecutive_429s >= MAX_CONSECUTIVE_429S) {
            state.paused = Some((error.clone(), now + error.retry_after()));
        }
    }
}

/// Limits the logouts: each holds memory on behalf of a client that may be gone.
pub(crate) struct LogoutLimit {
    queue: Semaphore,
    permits: Semaphore,
}

impl LogoutLimit {
    pub(crate) fn new(permits: usize) -> Self {
        Self { queue: queue(permits), permits: Semaphore::new(permits) }
    }

    /// Waits for a permit to revoke one token. Fails at once if the queue is full.
    pub(crate) async fn acquire(&self) -> Result<[SemaphorePermit<'_>; 2], AuthError> {
        let queued = self.queue.try_acquire().map_err(|_| queue_full())?;
        let permit = self.permits.acquire().await.map_err(|_| queue_full())?;
        // The permit is dropped first: the queue must not have more places than it says.
        Ok([permit, queued])
    }
}

/// Creates a queue. Calls stay in it after they have a permit.
fn queue(permits: usize) -> Semaphore {
    Semaphore::new(permits.saturating_mul(1 + QUEUED_PER_PERMIT))
}

fn queue_full() -> AuthError {
    AuthError::new(AuthErrorKind::Unavailable, "too many calls to Crossmint are waiting")
}

const QUEUED_PER_PERMIT: usize = 8;
const MAX_CONSECUTIVE_429S: u32 = 10;

/// Shorter, and a garbage collection at Crossmint would open the breaker.
const MIN_STALL: Duration = Duration::from_secs(1);
const MAX_STALL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use futures_util::{FutureExt, future::join_all};
    use tokio::time::advance;

    use super::*;

    const STALL: Duration = Duration::from_secs(1);

    fn at_once(limit: &RefreshLimit) -> Option<Option<Permit<'_>>> {
        limit.acquire().now_or_never().map(Result::ok)
    }

    /// Takes both permits, and waits until a third one is refused.
    async fn stalled(limit: &RefreshLimit) -> [Permit<'_>; 2] {
        let taken = [(); 2].map(|()| at_once(limit).flatten().expect("a permit is free"));
        advance(STALL).await;
        assert!(matches!(at_once(limit), Some(None)));
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_moves_as_permits_are_returned() {
        let limit = RefreshLimit::new(2, STALL * 10);
        // However long nothing has happened before.
        advance(STALL * 100).await;
        let served = join_all((0..20).map(|_| async {
            let permit = limit.acquire().await.ok()?;
            tokio::time::sleep(STALL * 9 / 10).await;
            permit.record(None);
            Some(())
        }));
        assert!(served.await.iter().all(Option::is_some));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_cleared_when_no_permit_is_returned() {
        let limit = RefreshLimit::new(2, STALL * 10);
        let _taken = [(); 2].map(|()| at_once(&limit));
        advance(STALL / 2).await;
        let start = Instant::now();
        assert!(join_all((0..20).map(|_| limit.acquire())).await.iter().all(Result::is_err));
        assert_eq!(start.elapsed().as_millis(), (STALL / 2).as_millis());
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_breaker_lets_one_probe_through_at_a_time_until_one_is_answered() {
        let limit = RefreshLimit::new(2, STALL * 10);
        drop(stalled(&limit).await);
        for _ in 0..3 {
            let probe = at_once(&limit).flatten().expect("it is time for a probe");
            assert!(matches!(at_once(&limit), Some(None)));
            advance(STALL / 2).await;
            drop(probe);
        }
        at_once(&limit).flatten().expect("it is time for a probe").record(None);
        assert!(at_once(&limit).flatten().is_some(), "all is well again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_fair() {
        let limit = RefreshLimit::new(1, STALL * 10);
        let served = Mutex::new(Vec::new());
        let (limit, served) = (&limit, &served);
        join_all((0..16).map(|number| async move {
            let permit = limit.acquire().await.expect("the queue moves");
            served.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            tokio::time::sleep(STALL * 3 / 5).await;
            permit.record(None);
        }))
        .await;
        assert_eq!(*served.lock().unwrap_or_else(PoisonError::into_inner), Vec::from_iter(0..16));
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_outage_does_not_keep_the_breaker_open() {
        let limit = RefreshLimit::new(2, STALL * 10);
        drop(stalled(&limit).await);
        advance(STALL * 10).await;
        let both = [at_once(&limit), at_once(&limit)];
        assert!(both.iter().all(|permit| matches!(permit, Some(Some(_)))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_closes_the_breaker() {
        let limit = RefreshLimit::new(2, STALL * 10);
        let [one, _other] = stalled(&limit).await;
        one.record(None);
        drop(one);
        assert!(at_once(&limit).flatten().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded() {
        let limit = RefreshLimit::new(2, STALL * 10);
        let queued: Vec<_> = (0..18).map(|_| limit.enqueue().unwrap()).collect();
        let error = limit.enqueue().unwrap_err();
        let reason = error.source().map(ToString::to_string);
        assert_eq!(reason.as_deref(), Some("too many calls to Crossmint are waiting"));
        drop(queued);
        assert!(limit.enqueue().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn after_ten_429s_in_a_row_no_refresh_is_started_before_crossmint_wants_one() {
        let limit = RefreshLimit::new(2, STALL * 10);
        let delay = Duration::from_secs(7);
        let limited = AuthError::of(AuthErrorKind::RateLimited).with_retry_after(Some(delay));
        let answer = |error: Option<&AuthError>| at_once(&limit).flatten().expect("a permit is free").record(error);
        answer(Some(&limited));
        answer(None);
        for _ in 0..MAX_CONSECUTIVE_429S {
            assert!(limit.enqueue().is_ok());
            answer(Some(&limited));
        }
        let error = limit.enqueue().unwrap_err();
        assert_eq!((error.kind(), error.retry_after()), (AuthErrorKind::RateLimited, delay));
        advance(delay).await;
        assert!(limit.enqueue().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_moves_keeps_the_breaker_closed_even_if_no_call_succeeds() {
        let limit = RefreshLimit::new(1, STALL * 10);
        let unavailable = AuthError::of(AuthErrorKind::Unavailable);
        let served = join_all((0..16).map(|_| async {
            let permit = limit.acquire().await.ok()?;
            tokio::time::sleep(STALL * 3 / 5).await;
            permit.record(Some(&unavailable));
            Some(())
        }));
        assert!(served.await.iter().all(Option::is_some));
    }
}
