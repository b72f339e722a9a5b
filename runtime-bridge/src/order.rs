//! Events in the order they happened, each once, and to each container its share.
//!
//! Sensors send late, twice and out of order. An event waits until its node's latest event is a stated time newer, or until that time
//! has passed; so any arrival within it gives the same order. A key that was seen is not let through again for a while.
//!
//! All that is kept here is kept by whom it is of, its [`Share`]. Where there is no more room, the largest gives way: a flood costs the
//! container that makes it, and no other.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::Hash,
};

use jiff::{SignedDuration, Timestamp};

/// Whom something is of, as a number: a container, as its sensor names it. Two that share a number by chance share their room.
pub type Share = u64;

/// Something of each: a share is a hash with a key of its own already.
pub(crate) type Shares<T> = rustc_hash::FxHashMap<Share, T>;

/// How long a node's latest event is waited by: a clock that was put back is believed after it.
const NEWEST: SignedDuration = SignedDuration::from_secs(10);

/// Events that wait for earlier ones.
#[derive(Debug)]
pub struct Waiting<T> {
    lateness: SignedDuration,
    most: usize,
    /// By name; the empty one is that of events that name none.
    nodes: HashMap<String, Node>,
    shares: Shares<Queue<T>>,
    length: usize,
}

/// A node's latest event, by its own clock, and when it came.
#[derive(Debug, Clone, Copy)]
struct Node {
    number: usize,
    newest: Timestamp,
    received: Timestamp,
}

/// What waits of one share.
#[derive(Debug)]
struct Queue<T> {
    events: BTreeMap<(Timestamp, u128), (usize, T)>,
    /// When each came, and its own time: the first came first.
    arrivals: VecDeque<(Timestamp, Timestamp)>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), arrivals: VecDeque::new() }
    }
}

impl<T> Waiting<T> {
    /// With the lateness that is waited for, and how many may wait at once.
    #[must_use]
    pub fn new(lateness: SignedDuration, most: usize) -> Self {
        Self { lateness, most, nodes: HashMap::new(), shares: Shares::default(), length: 0 }
    }

    /// Takes in an event of a node; its key decides among events of the same time. Events come in the order of `received`. Where too
    /// many wait, the older half of the largest share comes back, in order: it waits no longer.
    pub fn push(
        &mut self,
        share: Share,
        node: Option<&str>,
        at: Timestamp,
        received: Timestamp,
        key: u128,
        item: T,
    ) -> Vec<T> {
        let number = self.newest(node, at, received);
        let queue = self.shares.entry(share).or_default();
        if queue.events.insert((at, key), (number, item)).is_none() {
            self.length += 1;
        }
        queue.arrivals.push_back((received, at));
        if self.length <= self.most {
            return Vec::new();
        }
        let Some(queue) = self.shares.values_mut().max_by_key(|queue| queue.events.len()) else { return Vec::new() };
        let half = queue.events.len().div_ceil(2);
        let early: Vec<T> =
            std::iter::from_fn(|| queue.events.pop_first()).take(half).map(|(_, (_, item))| item).collect();
        self.length -= early.len();
        early
    }

    /// Keeps a node's latest time; gives the node's number.
    fn newest(&mut self, node: Option<&str>, at: Timestamp, received: Timestamp) -> usize {
        let name = node.unwrap_or_default();
        if let Some(node) = self.nodes.get_mut(name) {
            if at >= node.newest || received.duration_since(node.received) > NEWEST {
                (node.newest, node.received) = (at, received);
            }
            return node.number;
        }
        let number = self.nodes.len();
        self.nodes.insert(name.to_owned(), Node { number, newest: at, received });
        number
    }

    /// The events that need not wait, in order.
    pub fn ready(&mut self, now: Timestamp) -> Vec<T> {
        let lateness = self.lateness;
        let mut newest = vec![Timestamp::MIN; self.nodes.len()];
        for node in self.nodes.values() {
            if let Some(newest) = newest.get_mut(node.number) {
                *newest = node.newest;
            }
        }
        let mut ready = Vec::new();
        self.shares.retain(|_, queue| {
            // An event that is ready takes all earlier ones of its share along: they came within the lateness.
            let mut until = None;
            while let Some((received, at)) = queue.arrivals.front()
                && now.duration_since(*received) >= lateness
            {
                until = until.max(Some(*at));
                queue.arrivals.pop_front();
            }
            let passed = |number: usize, at: Timestamp| {
                newest.get(number).is_some_and(|newest| newest.duration_since(at) >= lateness)
            };
            while let Some(entry) = queue.events.first_entry() {
                let (at, _) = *entry.key();
                if Some(at) > until && !passed(entry.get().0, at) {
                    break;
                }
                let (key, (_, item)) = entry.remove_entry();
                ready.push((key, item));
            }
            if queue.events.is_empty() {
                queue.arrivals.clear();
            }
            !queue.events.is_empty()
        });
        self.length -= ready.len();
        ready.sort_by_key(|(key, _)| *key);
        ready.into_iter().map(|(_, item)| item).collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What waits.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.shares.values().flat_map(|queue| queue.events.values()).map(|(_, item)| item)
    }
}

/// Keys seen lately.
#[derive(Debug)]
pub struct Seen<K> {
    keep: SignedDuration,
    most: usize,
    keys: HashSet<K>,
    by_age: Shares<VecDeque<(Timestamp, K)>>,
    looked: Option<Timestamp>,
}

/// How often it is looked for keys that are too old.
const LOOK: SignedDuration = SignedDuration::from_secs(10);

impl<K: Copy + Eq + Hash> Seen<K> {
    /// Keeps keys so long, and so many.
    #[must_use]
    pub fn new(keep: SignedDuration, most: usize) -> Self {
        Self { keep, most, keys: HashSet::new(), by_age: Shares::default(), looked: None }
    }

    /// Whether a key is new; it is known from now on. Where there are too many, a part of the largest share's goes, the oldest first.
    pub fn is_new(&mut self, share: Share, key: K, received: Timestamp) -> bool {
        if self.looked.is_none_or(|looked| received.duration_since(looked) >= LOOK) {
            self.looked = Some(received);
            self.forget(received);
        }
        if !self.keys.insert(key) {
            return false;
        }
        self.by_age.entry(share).or_default().push_back((received, key));
        if self.keys.len() > self.most
            && let Some(ages) = self.by_age.values_mut().max_by_key(|ages| ages.len())
        {
            // A part at a time, as the largest has to be looked for each time.
            for (_, old) in ages.drain(..ages.len().div_ceil(8)) {
                self.keys.remove(&old);
            }
        }
        true
    }

    fn forget(&mut self, now: Timestamp) {
        let (keep, keys) = (self.keep, &mut self.keys);
        self.by_age.retain(|_, ages| {
            while let Some((at, old)) = ages.front()
                && now.duration_since(*at) > keep
            {
                keys.remove(old);
                ages.pop_front();
            }
            !ages.is_empty()
        });
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
            let mut waiting = Waiting::new(lateness, 10_000);
            let mut seen = Seen::new(SignedDuration::from_secs(600), 10_000);
            let mut out = Vec::new();
            for (arrival, n) in arrivals {
                if seen.is_new(1, n, at(arrival)) {
                    let early = waiting.push(1, Some("node"), at(events[n].0), at(arrival), n as u128, n);
                    prop_assert!(early.is_empty());
                }
                out.extend(waiting.ready(at(arrival)));
            }
            out.extend(waiting.ready(at(1_000_000)));
            let mut wanted: Vec<usize> = (0..events.len()).collect();
            wanted.sort_by_key(|n| (events[*n].0, *n));
            prop_assert_eq!(out, wanted);
            prop_assert!(waiting.is_empty());
        }

        /// However much one container sends, what is of another waits its time, and comes out in its order.
        #[test]
        fn a_flood_costs_no_other_its_order(
            quiet in prop::collection::vec((0_i64..5_000, 0_i64..1_900), 1..40),
            flood in prop::collection::vec(0_i64..5_000, 200..600),
        ) {
            let mut arrivals: Vec<(i64, u64, i64)> = quiet.iter().map(|(at, delay)| (at + delay, 1, *at)).collect();
            arrivals.extend(flood.iter().map(|at| (*at, 2, *at)));
            arrivals.sort_unstable();
            // Room for what is quiet, and twice as much.
            let mut waiting = Waiting::new(SignedDuration::from_secs(2), quiet.len() * 3);
            let mut out = Vec::new();
            for (n, (arrival, share, own)) in arrivals.iter().enumerate() {
                out.extend(waiting.push(*share, Some("node"), at(*own), at(*arrival), n as u128, (*share, *own)));
                prop_assert!(waiting.len() <= quiet.len() * 3);
                out.extend(waiting.ready(at(*arrival)));
            }
            out.extend(waiting.ready(at(1_000_000)));
            prop_assert_eq!(out.len(), arrivals.len(), "nothing is lost");
            let own: Vec<i64> = out.iter().filter(|(share, _)| *share == 1).map(|(_, own)| *own).collect();
            prop_assert!(own.is_sorted(), "{:?}", own);
        }

        /// However many keys one container brings, those of another are known for as long as they are to be.
        #[test]
        fn a_flood_costs_no_other_its_keys(quiet in 1_u64..100, flood in 1_000_u64..5_000) {
            let mut seen = Seen::new(SignedDuration::from_secs(600), 500);
            for key in 0..quiet {
                prop_assert!(seen.is_new(1, key, at(0)));
            }
            for key in 0..flood {
                seen.is_new(2, 1_000_000 + key, at(1));
                prop_assert!(seen.keys.len() <= 500);
            }
            for key in 0..quiet {
                prop_assert!(!seen.is_new(1, key, at(2)), "{} of {}", key, quiet);
            }
            prop_assert!(seen.is_new(1, 0, at(700_000)), "after its time it is new");
        }
    }

    #[test]
    fn a_clock_that_is_put_back_is_believed_after_a_while() {
        let mut waiting = Waiting::new(SignedDuration::from_secs(2), 100);
        waiting.push(1, Some("node"), at(3_600_000), at(0), 0, "of an hour ahead");
        assert_eq!(waiting.ready(at(2_000)), ["of an hour ahead"]);
        waiting.push(1, Some("node"), at(20_000), at(20_000), 1, "later");
        waiting.push(1, Some("node"), at(19_000), at(20_100), 2, "earlier");
        assert!(waiting.ready(at(20_100)).is_empty(), "they wait for each other again");
        assert_eq!(waiting.ready(at(22_100)), ["earlier", "later"]);
    }
}
