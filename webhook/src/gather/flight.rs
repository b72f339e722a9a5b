//! One flight for all who ask the same at once; what may be kept is kept for as long as it says.

use std::{
    fmt,
    future::Future,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use dna::{Cause, Fact};
use lineage::Document;
use moka::{Expiry, future::Cache};
use serde::{Serialize, de::DeserializeOwned};
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
    shelf: Shelf<K, V>,
}

/// Answers that hold.
struct Shelf<K, V> {
    kept: Cache<K, Arc<Held<V>>>,
    packing: Option<Packing<K, V>>,
}

/// Large values are kept packed, so that many images fit; those that are asked for now are also kept as they are.
struct Packing<K, V> {
    hot: Cache<K, Hot<V>>,
    /// A value as JSON.
    write: fn(&V) -> Option<Vec<u8>>,
    read: fn(&[u8]) -> Option<V>,
}

/// A value, and the bytes of memory that it takes, roughly.
type Hot<V> = (Arc<V>, u32);

impl<K, V> Clone for Shelf<K, V> {
    fn clone(&self) -> Self {
        let packing = self.packing.as_ref();
        let packing = packing.map(|one| Packing { hot: one.hot.clone(), write: one.write, read: one.read });
        Self { kept: self.kept.clone(), packing }
    }
}

impl<K, V> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("tier", &self.tier).finish_non_exhaustive()
    }
}

struct Held<V> {
    fact: Kept<V>,
    holds: Duration,
}

enum Kept<V> {
    Plain(Fact<Arc<V>>),
    Packed(Document),
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
            Kept::Plain(Fact::Known(value)) => weight(value).saturating_add(OVERHEAD),
            Kept::Plain(_) => OVERHEAD,
            Kept::Packed(packed) => u32::try_from(packed.packed().len()).unwrap_or(u32::MAX).saturating_add(OVERHEAD),
        };
        let kept = Cache::builder().max_capacity(bytes).weigher(weigh).expire_after(AsLongAsItHolds).build();
        Self { tier, shelf: Shelf { kept, packing: None } }
    }

    /// Keeps large values packed, but for those of now, which have a quarter of the room.
    pub(super) fn packed(tier: &'static str, bytes: u64) -> Self
    where
        V: Serialize + DeserializeOwned,
    {
        let weigh = |_: &K, (_, bytes): &Hot<V>| bytes.saturating_add(OVERHEAD);
        let hot = Cache::builder().max_capacity(bytes / 4).weigher(weigh).time_to_live(HOT).build();
        let packing = Packing {
            hot,
            write: |value| serde_json::to_vec(value).ok(),
            read: |json| serde_json::from_slice(json).ok(),
        };
        // What cannot be packed is not kept at all: nothing is known of its size.
        let mut flights = Self::new(tier, bytes - bytes / 4, |_| u32::MAX);
        flights.shelf.packing = Some(packing);
        flights
    }

    /// What is kept.
    pub(super) async fn peek(&self, key: &K) -> Option<Fact<Arc<V>>> {
        let found = self.shelf.look(key).await?;
        self.count("kept");
        Some(found)
    }

    /// What is known by `deadline`. The flight goes on when this one has no time left: the next one finds its answer.
    pub(super) async fn get<F, M>(&self, key: K, deadline: Instant, make: M) -> Fact<Arc<V>>
    where
        F: Future<Output = Answer<V>> + Send + 'static,
        M: FnOnce() -> F,
    {
        if let Some(kept) = self.peek(&key).await {
            return kept;
        }
        let (shelf, making) = (self.shelf.clone(), make());
        let step = async move {
            let place = key.clone();
            let made = shelf.kept.try_get_with(key, async {
                let Answer { fact, holds } = making.await;
                let fact = fact.map(Arc::new);
                if holds.is_zero() { Err(Shared(fact)) } else { Ok(Arc::new(shelf.held(&place, fact, holds).await)) }
            });
            match made.await {
                Ok(held) => shelf.open(&place, &held).await.unwrap_or_else(damaged),
                Err(shared) => shared.0.clone(),
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

impl<K, V> Shelf<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    async fn look(&self, key: &K) -> Option<Fact<Arc<V>>> {
        self.open(key, &*self.kept.get(key).await?).await
    }

    async fn open(&self, key: &K, held: &Held<V>) -> Option<Fact<Arc<V>>> {
        match (&held.fact, &self.packing) {
            (Kept::Plain(fact), _) => Some(fact.clone()),
            (Kept::Packed(packed), Some(packing)) => {
                if let Some((value, _)) = packing.hot.get(key).await {
                    return Some(Fact::Known(value));
                }
                let json = packed.unpack().ok()?;
                let value = Arc::new((packing.read)(&json)?);
                packing.hot.insert(key.clone(), (Arc::clone(&value), in_memory(&json))).await;
                Some(Fact::Known(value))
            }
            (Kept::Packed(_), None) => None,
        }
    }

    async fn held(&self, key: &K, fact: Fact<Arc<V>>, holds: Duration) -> Held<V> {
        let (Fact::Known(value), Some(packing)) = (&fact, &self.packing) else {
            return Held { fact: Kept::Plain(fact), holds };
        };
        let Some(json) = (packing.write)(value) else { return Held { fact: Kept::Plain(fact), holds } };
        packing.hot.insert(key.clone(), (Arc::clone(value), in_memory(&json))).await;
        Held { fact: Document::pack(&json).map_or(Kept::Plain(fact), Kept::Packed), holds }
    }
}

/// Texts, and what stands around each of them.
fn in_memory(json: &[u8]) -> u32 {
    u32::try_from(json.len().saturating_mul(2)).unwrap_or(u32::MAX)
}

fn damaged<V>() -> Fact<Arc<V>> {
    Fact::unknown(Cause::Registry, "what was kept in memory cannot be read")
}

/// What is not kept is still the answer of all who waited for it.
struct Shared<V>(Fact<Arc<V>>);

/// How long nothing is believed to be there: whoever signs an image now can use it within a minute.
pub(super) const ABSENT: Duration = Duration::from_secs(60);

/// How long what was asked for is kept as it is.
const HOT: Duration = Duration::from_secs(600);

/// An entry's key, its place in the map, its clocks.
const OVERHEAD: u32 = 400;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde_json::{Value, json};

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

    #[tokio::test]
    async fn large_values_come_back_as_they_were_whether_they_are_hot_or_packed() {
        let value = json!({"system calls": vec!["read"; 2_000]});
        let flights: Flights<u32, Value> = Flights::packed("test", 40_000);
        for key in 0..8 {
            let made = value.clone();
            let found = flights.get(key, soon(5_000), move || async move { Answer::known(made, ABSENT) }).await;
            assert_eq!(found, Fact::Known(Arc::new(value.clone())));
        }
        let packing = flights.shelf.packing.as_ref().expect("they are packed");
        packing.hot.run_pending_tasks().await;
        assert_eq!(packing.hot.entry_count(), 0, "one is larger than all there is room for");
        for key in 0..8 {
            assert_eq!(flights.peek(&key).await, Some(Fact::Known(Arc::new(value.clone()))), "{key}");
        }
    }
}
