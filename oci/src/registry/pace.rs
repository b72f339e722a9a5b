//! How much a registry is asked, by all who ask it together.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Requests a second and at once; clones count together.
#[derive(Clone)]
pub struct Pace(Arc<Inner>);

struct Inner {
    at_once: Arc<Semaphore>,
    gap: Duration,
    /// When the next one may go.
    next: Mutex<Instant>,
}

impl Pace {
    /// At most so many a second, of which those of one second may go together, and so many at once; each at least one.
    #[must_use]
    pub fn new(per_second: u32, at_once: u32) -> Self {
        let at_once = usize::try_from(at_once.max(1)).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            at_once: Arc::new(Semaphore::new(at_once)),
            gap: SECOND / per_second.max(1),
            next: Mutex::new(Instant::now()),
        }))
    }

    /// Waits for its turn, and holds it until the permit is dropped.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        let permit = Arc::clone(&self.0.at_once).acquire_owned().await.ok();
        let (now, turn) = {
            let mut next = self.0.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            // What was not used is saved for a second.
            let turn = (*next).max(now.checked_sub(SECOND).unwrap_or(now));
            *next = turn + self.0.gap;
            (now, turn)
        };
        if turn > now {
            tokio::time::sleep_until(turn).await;
        }
        permit
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace").field("gap", &self.0.gap).finish_non_exhaustive()
    }
}

impl PartialEq for Pace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Pace {}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_may_be_saved_and_the_rest_comes_one_by_one() {
        let pace = Pace::new(10, 100);
        tokio::time::advance(Duration::from_secs(30)).await;
        let started = Instant::now();
        for _ in 0..11 {
            pace.turn().await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO, "a second's worth, and one for now");
        for _ in 0..10 {
            pace.turn().await;
        }
        assert!(started.elapsed() >= SECOND && started.elapsed() < SECOND * 2, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn no_more_than_so_many_are_under_way() {
        let pace = Pace::new(1_000, 1);
        let first = pace.turn().await;
        let second = tokio::time::timeout(Duration::from_millis(20), pace.turn()).await;
        assert!(second.is_err());
        drop(first);
        assert!(pace.turn().await.is_some());
    }
}
