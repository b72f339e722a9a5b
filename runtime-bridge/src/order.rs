//! Events in the order they happened, each once.
//!
//! Sensors send late, twice and out of order. An event waits until its node's latest event is a stated time newer, or until that time
//! has passed; so any arrival within it gives the same order. A key that was seen is not let through again for a while.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::Hash,
};

use jiff::{SignedDuration, Timestamp};

/// Events that wait for earlier ones.
#[derive(Debug)]
pub struct Waiting<T> {
    lateness: SignedDuration,
    by_time: BTreeMap<(Timestamp, String), (Option<String>, Timestamp, T)>,
    newest: HashMap<Option<String>, Timestamp>,
}

impl<T> Waiting<T> {
    /// With the lateness that is waited for.
    #[must_use]
    pub fn new(lateness: SignedDuration) -> Self {
        Self { lateness, by_time: BTreeMap::new(), newest: HashMap::new() }
    }

    /// Takes in an event of a node; its key decides among events of the same time.
    pub fn push(&mut self, node: Option<&str>, at: Timestamp, received: Timestamp, key: String, item: T) {
        let node = node.map(str::to_owned);
        let newest = self.newest.entry(node.clone()).or_insert(at);
        *newest = (*newest).max(at);
        self.by_time.insert((at, key), (node, received, item));
    }

    /// The events that need not wait, in order.
    pub fn ready(&mut self, now: Timestamp) -> Vec<T> {
        let lateness = self.lateness;
        let newest = &self.newest;
        let is_ready = |at: &Timestamp, node: &Option<String>, received: &Timestamp| {
            let is_passed = newest.get(node).is_some_and(|newest| newest.duration_since(*at) >= lateness);
            is_passed || now.duration_since(*received) >= lateness
        };
        // An event that is ready takes all earlier ones of its node along: they came within the lateness.
        let mut until: HashMap<Option<String>, Timestamp> = HashMap::new();
        for ((at, _), (node, received, _)) in &self.by_time {
            if is_ready(at, node, received) {
                let until = until.entry(node.clone()).or_insert(*at);
                *until = (*until).max(*at);
            }
        }
        let keys: Vec<(Timestamp, String)> = self
            .by_time
            .iter()
            .filter(|((at, _), (node, ..))| until.get(node).is_some_and(|until| at <= until))
            .map(|(key, _)| key.clone())
            .collect();
        keys.into_iter().filter_map(|key| self.by_time.remove(&key)).map(|(_, _, item)| item).collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_time.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }

    /// What waits.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.by_time.values().map(|(_, _, item)| item)
    }
}

/// Keys seen lately.
#[derive(Debug)]
pub struct Seen<K> {
    keep: SignedDuration,
    most: usize,
    keys: HashSet<K>,
    by_age: VecDeque<(Timestamp, K)>,
}

impl<K: Clone + Eq + Hash> Seen<K> {
    /// Keeps keys so long, and so many.
    #[must_use]
    pub fn new(keep: SignedDuration, most: usize) -> Self {
        Self { keep, most, keys: HashSet::new(), by_age: VecDeque::new() }
    }

    /// Whether a key is new; it is known from now on.
    pub fn is_new(&mut self, key: K, received: Timestamp) -> bool {
        while let Some((at, _)) = self.by_age.front()
            && (received.duration_since(*at) > self.keep || self.by_age.len() >= self.most)
        {
            if let Some((_, old)) = self.by_age.pop_front() {
                self.keys.remove(&old);
            }
        }
        let is_new = self.keys.insert(key.clone());
        if is_new {
            self.by_age.push_back((received, key));
        }
        is_new
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).expect("a time")
    }

    proptest! {
        /// Whatever the order of arrival within the lateness, and whatever comes twice, the order that comes out is the same.
        #[test]
        fn any_arrival_within_the_lateness_gives_one_order(
            events in prop::collection::vec((0_i64..60_000, 0_i64..2_000), 1..200),
            repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let lateness = SignedDuration::from_secs(2);
            let mut arrivals: Vec<(i64, usize)> = events.iter().enumerate().map(|(n, (at, delay))| (at + delay, n)).collect();
            arrivals.extend(repeats.iter().map(|index| { let n = index.index(events.len()); (events[n].0 + events[n].1, n) }));
            arrivals.sort_unstable();
            let mut waiting = Waiting::new(lateness);
            let mut seen = Seen::new(SignedDuration::from_secs(600), 10_000);
            let mut out = Vec::new();
            for (arrival, n) in arrivals {
                if seen.is_new(n, at(arrival)) {
                    waiting.push(Some("node"), at(events[n].0), at(arrival), format!("{n:05}"), n);
                }
                out.extend(waiting.ready(at(arrival)));
            }
            out.extend(waiting.ready(at(1_000_000)));
            let mut wanted: Vec<usize> = (0..events.len()).collect();
            wanted.sort_by_key(|n| (events[*n].0, *n));
            prop_assert_eq!(out, wanted);
            prop_assert!(waiting.is_empty());
        }
    }
}
