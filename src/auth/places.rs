//! How many tokens are sent to Crossmint at once, and how soon nobody waits any longer for a Crossmint that hangs.
//!
//! 1. At most so many at a time. Who comes later waits in line.
//! 2. Where all places are taken and none becomes free for a while, Crossmint hangs: the line is sent away, and so is
//!    whoever comes, at once.
//! 3. From then on, one token is sent in half of that while, until Crossmint has given one a verdict or a successor, or
//!    ten such whiles have passed in silence: what was so long ago says nothing of now.

use std::{
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

#[derive(Debug)]
pub(crate) struct Places {
    free: Semaphore,
    patience: Duration,
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    /// When a place was last taken, or Crossmint last answered.
    moved: Instant,
    is_stalled: bool,
}

impl Places {
    /// Creates so many places. The while is a tenth of what a call may take: one second by default.
    pub(crate) fn new(places: usize, time_limit: Duration) -> Self {
        let line = Line { moved: Instant::now(), is_stalled: false };
        let patience = (time_limit / 10).clamp(MIN_PATIENCE, MAX_PATIENCE);
        Self { free: Semaphore::new(places), patience, line: Mutex::new(line) }
    }

    /// Waits for a place. `None` where that would be in vain.
    pub(crate) async fn take(&self) -> Option<Place<'_>> {
        let mut turn = pin!(self.free.acquire());
        let mut is_in_line = false;
        loop {
            let deadline = {
                let mut line = self.line();
                let now = Instant::now();
                line.is_stalled &= now < line.moved + self.patience * 10;
                if line.is_stalled && now < line.moved + self.patience / 2 {
                    return None;
                }
                if !is_in_line && let Ok(permit) = self.free.try_acquire() {
                    line.moved = now;
                    return Some(Place { places: self, _permit: permit });
                }
                line.is_stalled |= now >= line.moved + self.patience;
                if line.is_stalled {
                    return None;
                }
                line.moved + self.patience
            };
            is_in_line = true;
            if let Ok(Ok(permit)) = timeout_at(deadline, turn.as_mut()).await {
                self.line().moved = Instant::now();
                return Some(Place { places: self, _permit: permit });
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to send one token, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    places: &'a Places,
    _permit: SemaphorePermit<'a>,
}

impl Place<'_> {
    /// Says that Crossmint has answered.
    pub(crate) fn answered(&self) {
        let mut line = self.places.line();
        line.moved = Instant::now();
        line.is_stalled = false;
    }
}

const MIN_PATIENCE: Duration = Duration::from_secs(1);
const MAX_PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::join_all};
    use tokio::time::advance;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn at_once(places: &Places) -> Option<Option<Place<'_>>> {
        places.take().now_or_never()
    }

    /// Takes both places, and waits until a third one is refused.
    async fn stalled(places: &Places) -> [Place<'_>; 2] {
        let taken = [(); 2].map(|()| at_once(places).flatten().expect("a place is free"));
        advance(PATIENCE).await;
        assert!(matches!(at_once(places), Some(None)));
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_moves_as_places_become_free() {
        let places = Places::new(2, PATIENCE * 10);
        // However long nothing has happened before.
        advance(PATIENCE * 100).await;
        let served = join_all((0..20).map(|_| async {
            let place = places.take().await?;
            tokio::time::sleep(PATIENCE * 9 / 10).await;
            place.answered();
            Some(())
        }));
        assert!(served.await.iter().all(Option::is_some));
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_is_sent_away_when_it_does_not_move() {
        let places = Places::new(2, PATIENCE * 10);
        let _taken = [(); 2].map(|()| at_once(&places));
        advance(PATIENCE / 2).await;
        let start = Instant::now();
        assert!(join_all((0..20).map(|_| places.take())).await.iter().all(Option::is_none));
        assert_eq!(start.elapsed().as_millis(), (PATIENCE / 2).as_millis());
    }

    #[tokio::test(start_paused = true)]
    async fn while_crossmint_hangs_one_probe_goes_out_at_a_time_until_one_is_answered() {
        let places = Places::new(2, PATIENCE * 10);
        drop(stalled(&places).await);
        for _ in 0..3 {
            let probe = at_once(&places).flatten().expect("it is time for a probe");
            assert!(matches!(at_once(&places), Some(None)));
            advance(PATIENCE / 2).await;
            drop(probe);
        }
        at_once(&places).flatten().expect("it is time for a probe").answered();
        assert!(at_once(&places).flatten().is_some(), "all is well again");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_loses_the_turn() {
        let places = Places::new(1, PATIENCE * 10);
        let served = Mutex::new(Vec::new());
        let (places, served) = (&places, &served);
        join_all((0..20).map(|number| async move {
            let place = places.take().await.expect("the line moves");
            served.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            tokio::time::sleep(PATIENCE * 3 / 5).await;
            place.answered();
        }))
        .await;
        assert_eq!(*served.lock().unwrap_or_else(PoisonError::into_inner), Vec::from_iter(0..20));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_long_ago_is_forgotten() {
        let places = Places::new(2, PATIENCE * 10);
        drop(stalled(&places).await);
        advance(PATIENCE * 10).await;
        let both = [at_once(&places), at_once(&places)];
        assert!(both.iter().all(|place| matches!(place, Some(Some(_)))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_is_one() {
        let places = Places::new(2, PATIENCE * 10);
        let [one, _other] = stalled(&places).await;
        one.answered();
        drop(one);
        assert!(at_once(&places).flatten().is_some());
    }
}
