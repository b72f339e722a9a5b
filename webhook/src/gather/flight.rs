//! One flight for all who ask the same at once; what may be kept is kept for as long as it says.

use std::{
    fmt,
    future::Future,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use dna::{Cause, Fact};
use moka::{Expiry, future::Cache};
use tracing::Instrument as _;

/// An answer, and how long it holds: zero where it must be asked again.
#[derive(Debug)]
pub(super) struct Answer<V> {
    pub(super) fact: Fact<V>,
    pub(super) holds: Duration,
}

impl<V> Answer<V> {
    pub(super) fn known(value: V, holds: Duration) -> Self {
        Self { fact: Fact::Known(value), holds }
    }

    /// Nothing is there: that is believed for [`ABSENT`].
    pub(super) fn absent(tried: Vec<String>) -> Self {
        Self { fact: Fact::Absent { tried }, holds: ABSENT }
    }

    pub(super) fn unknown(cause: Cause, detail: impl Into<String>) -> Self {
        Self { fact: Fact::unknown(cause, detail), holds: Duration::ZERO }
    }

    pub(super) fn failed(error: &oci::Error) -> Self {
        Self::unknown(trust::cause(error), error.to_string())
    }
}

/// Answers by key: those that hold, and those on their way.
pub(super) struct Flights<K, V> {
    tier: &'static str,
    kept: Cache<K, Arc<Held<V>>>,
}

impl<K, V> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("tier", &self.tier).finish_non_exhaustive()
    }
}

struct Held<V> {
    fact: Fact<Arc<V>>,
    holds: Duration,
}

struct AsLongAsItHolds;

impl<K, V> Expiry<K, Arc<Held<V>>> for AsLongAsItHolds {
    fn expire_after_create(&self, _: &K, held: &Arc<Held<V>>, _: Instant) -> Option<Duration> {
        Some(held.holds)
    }
}

impl<K, V> Flights<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Keeps at most `bytes`, by what `weight` says of a value.
    pub(super) fn new(tier: &'static str, bytes: u64, weight: fn(&V) -> u32) -> Self {
        let weigh = move |_: &K, held: &Arc<Held<V>>| match &held.fact {
            Fact::Known(value) => weight(value).saturating_add(OVERHEAD),
            _ => OVERHEAD,
        };
        let kept = Cache::builder().max_capacity(bytes).weigher(weigh).expire_after(AsLongAsItHolds).build();
        Self { tier, kept }
    }

    /// What is kept.
    pub(super) async fn peek(&self, key: &K) -> Option<Fact<Arc<V>>> {
        let held = self.kept.get(key).await?;
        self.count("kept");
        Some(held.fact.clone())
    }

    /// What is known by `deadline`. The flight goes on when this one has no time left: the next one finds its answer.
    pub(super) async fn get<F, M>(&self, key: K, deadline: Instant, make: M) -> Fact<Arc<V>>
    where
        F: Future<Output = Answer<V>> + Send + 'static,
        M: FnOnce() -> F + Send + 'static,
    {
        if let Some(kept) = self.peek(&key).await {
            return kept;
        }
        let kept = self.kept.clone();
        let step = async move {
            let made = kept.try_get_with(key, async move {
                let Answer { fact, holds } = make().await;
                let held = Arc::new(Held { fact: fact.map(Arc::new), holds });
                if held.holds.is_zero() { Err(Shared(held)) } else { Ok(held) }
            });
            match made.await {
                Ok(held) => held.fact.clone(),
                Err(shared) => shared.0.fact.clone(),
            }
        };
        let flight = tokio::spawn(step.instrument(tracing::info_span!("gather", tier = self.tier)));
        match tokio::time::timeout_at(deadline.into(), flight).await {
            Ok(Ok(fact)) => {
                self.count(match fact {
                    Fact::Known(_) => "known",
                    Fact::Absent { .. } => "absent",
                    Fact::Unknown { .. } => "unknown",
                });
                fact
            }
            Ok(Err(failed)) => {
                tracing::error!(tier = self.tier, %failed, "a step of the gathering panicked");
                self.count("failed");
                Fact::unknown(Cause::Registry, "an internal error; the log has more")
            }
            Err(_) => {
                self.count("late");
                Fact::unknown(Cause::Deadline, "there was no time left to ask")
            }
        }
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!("mayfly_facts_total", "tier" => self.tier, "outcome" => outcome).increment(1);
    }
}

/// What is not kept is still the answer of all who waited for it.
struct Shared<V>(Arc<Held<V>>);

/// How long nothing is believed to be there: whoever signs an image now can use it within a minute.
pub(super) const ABSENT: Duration = Duration::from_secs(60);

/// An entry's key, its place in the map, its clocks.
const OVERHEAD: u32 = 400;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn soon(millis: u64) -> Instant {
        Instant::now() + Duration::from_millis(millis)
    }

    fn flights() -> Flights<&'static str, u32> {
        Flights::new("test", 1 << 20, |_| 4)
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_one_flight() {
        let (flights, asked) = (Arc::new(flights()), Arc::new(AtomicU32::new(0)));
        let each = (0..40).map(|_| {
            let (flights, asked) = (Arc::clone(&flights), Arc::clone(&asked));
            tokio::spawn(async move {
                let make = move || async move {
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Answer::unknown(Cause::Throttled, "later")
                };
                flights.get("key", soon(5_000), make).await
            })
        });
        for fact in futures_util::future::join_all(each).await {
            assert!(matches!(fact.expect("no panic"), Fact::Unknown { cause: Cause::Throttled, .. }));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        // It was not kept: the next one asks again.
        assert_eq!(
            flights.get("key", soon(5_000), || async { Answer::known(7, ABSENT) }).await,
            Fact::Known(Arc::new(7))
        );
    }

    #[tokio::test]
    async fn a_flight_goes_on_for_the_next_one() {
        let flights = flights();
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(60)).await;
            Answer::known(1, ABSENT)
        };
        let late = flights.get("key", soon(5), slow).await;
        assert!(matches!(late, Fact::Unknown { cause: Cause::Deadline, .. }));
        let next = flights.get("key", soon(5_000), || async { Answer::known(2, ABSENT) }).await;
        assert_eq!(next, Fact::Known(Arc::new(1)));
    }

    #[tokio::test]
    async fn what_is_not_there_is_asked_again_once_it_no_longer_holds() {
        let flights = flights();
        let absent = || async { Answer { fact: Fact::Absent { tried: Vec::new() }, holds: Duration::from_millis(30) } };
        assert!(matches!(flights.get("key", soon(5_000), absent).await, Fact::Absent { .. }));
        assert!(matches!(
            flights.get("key", soon(5_000), || async { Answer::known(1, ABSENT) }).await,
            Fact::Absent { .. }
        ));
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert_eq!(
            flights.get("key", soon(5_000), || async { Answer::known(1, ABSENT) }).await,
            Fact::Known(Arc::new(1))
        );
    }
}
