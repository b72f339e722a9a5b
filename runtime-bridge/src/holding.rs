//! What waits for knowledge: for the pod of a container, or for what is expected of it. To each container and kind of act its part.
//!
//! Nothing is dropped while there is room. Where there is none, the container and kind that holds the most gives way, its latest first: what
//! a container did when it began tells most of what follows. What was dropped is counted, and told when the container is known.

use std::collections::{BTreeMap, VecDeque};

use dna::Act;
use jiff::Timestamp;

use crate::order::{Share, Shares};

/// Items held, by whom they are of.
#[derive(Debug)]
pub(crate) struct Holding<T> {
    most: usize,
    queues: Shares<Held<T>>,
    length: usize,
}

/// What is held of one.
#[derive(Debug)]
pub(crate) struct Held<T> {
    /// In the order they came.
    pub(crate) items: VecDeque<(&'static str, T)>,
    /// What was dropped, by kind.
    pub(crate) dropped: Drops,
    kinds: BTreeMap<&'static str, usize>,
}

/// What was dropped, by kind.
pub(crate) type Drops = BTreeMap<&'static str, Dropped>;

/// How many, and from when until when by their own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// How many.
    pub count: u64,
    /// The earliest.
    pub from: Timestamp,
    /// The latest.
    pub until: Timestamp,
}

impl Dropped {
    fn one(at: Timestamp) -> Self {
        Self { count: 1, from: at, until: at }
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.from = self.from.min(other.from);
        self.until = self.until.max(other.until);
    }
}

/// Adds what was dropped to what was before.
pub(crate) fn add(to: &mut Drops, other: Drops) {
    for (kind, dropped) in other {
        to.entry(kind).and_modify(|known| known.add(dropped)).or_insert(dropped);
    }
}

/// What sort of act it is: each sort has its own part.
pub(crate) const fn kind(act: &Act) -> &'static str {
    match act {
        Act::Exec { .. } => "exec",
        Act::Listen { .. } => "listen",
        Act::Connect { .. } | Act::ConnectUnix { .. } => "connect",
        Act::Write { .. } => "write",
        Act::Read { .. } => "read",
        Act::Syscall { .. } => "syscall",
        Act::Capability { .. } => "capability",
        Act::Identity { .. } => "identity",
        _ => "other",
    }
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), dropped: Drops::new(), kinds: BTreeMap::new() }
    }
}

impl<T> Held<T> {
    fn largest(&self) -> (usize, &'static str) {
        self.kinds.iter().map(|(kind, count)| (*count, *kind)).max().unwrap_or((0, ""))
    }

    /// Drops the later half of a kind.
    fn halve(&mut self, kind: &'static str, at: impl Fn(&T) -> Timestamp) -> usize {
        let count = self.kinds.get(kind).copied().unwrap_or(0);
        let keep = count / 2;
        let (mut seen, dropped) = (0, &mut self.dropped);
        self.items.retain(|(own, item)| {
            if *own != kind {
                return true;
            }
            seen += 1;
            if seen > keep {
                let one = Dropped::one(at(item));
                dropped.entry(kind).and_modify(|known| known.add(one)).or_insert(one);
            }
            seen <= keep
        });
        self.kinds.insert(kind, keep);
        count - keep
    }
}

impl<T> Holding<T> {
    /// Holds so many.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, queues: Shares::default(), length: 0 }
    }

    /// Holds an item; `at` is an item's own time. Gives how many were dropped to make room.
    pub(crate) fn push(&mut self, share: Share, kind: &'static str, item: T, at: impl Fn(&T) -> Timestamp) -> usize {
        let queue = self.queues.entry(share).or_default();
        queue.items.push_back((kind, item));
        *queue.kinds.entry(kind).or_default() += 1;
        self.length += 1;
        if self.length <= self.most {
            return 0;
        }
        let Some(largest) = self.queues.values_mut().max_by_key(|queue| queue.largest()) else { return 0 };
        let (_, kind) = largest.largest();
        let dropped = largest.halve(kind, at);
        self.length -= dropped;
        dropped
    }

    /// Keeps that something was dropped before.
    pub(crate) fn note(&mut self, share: Share, dropped: Drops) {
        if !dropped.is_empty() {
            add(&mut self.queues.entry(share).or_default().dropped, dropped);
        }
    }

    /// The oldest of one.
    pub(crate) fn first(&self, share: Share) -> Option<&T> {
        self.queues.get(&share)?.items.front().map(|(_, item)| item)
    }

    /// All of one.
    pub(crate) fn take(&mut self, share: Share) -> Held<T> {
        let held = self.queues.remove(&share).unwrap_or_default();
        self.length -= held.items.len();
        held
    }

    /// Whether anything is held of one.
    pub(crate) fn has(&self, share: Share) -> bool {
        self.queues.get(&share).is_some_and(|held| !held.items.is_empty())
    }

    /// How many are held.
    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    /// All that is held.
    pub(crate) fn items(&self) -> impl Iterator<Item = &T> {
        self.queues.values().flat_map(|held| held.items.iter().map(|(_, item)| item))
    }
}

/// A few things of each, and so many of all: where there are too many, the oldest of whoever has the most goes.
#[derive(Debug)]
pub(crate) struct Few<T> {
    most: usize,
    queues: Shares<VecDeque<T>>,
    length: usize,
}

impl<T> Few<T> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, queues: Shares::default(), length: 0 }
    }

    pub(crate) fn push(&mut self, share: Share, item: T) {
        self.queues.entry(share).or_default().push_back(item);
        self.length += 1;
        if self.length > self.most
            && let Some((largest, queue)) = self.queues.iter_mut().max_by_key(|(_, queue)| queue.len())
        {
            let largest = *largest;
            // A part at a time, as the largest has to be looked for each time.
            let gone = queue.len().div_ceil(8);
            queue.drain(..gone);
            self.length -= gone;
            if queue.is_empty() {
                self.queues.remove(&largest);
            }
        }
    }

    /// Those of one, the oldest first.
    pub(crate) fn of(&self, share: Share) -> impl DoubleEndedIterator<Item = &T> + Clone {
        self.queues.get(&share).into_iter().flatten()
    }

    /// All there are.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.queues.values().flatten()
    }

    /// Keeps some of one.
    pub(crate) fn retain(&mut self, share: Share, keep: impl FnMut(&T) -> bool) {
        let Some(queue) = self.queues.get_mut(&share) else { return };
        let before = queue.len();
        queue.retain(keep);
        self.length -= before - queue.len();
        if queue.is_empty() {
            self.queues.remove(&share);
        }
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(n: &usize) -> Timestamp {
        Timestamp::from_second(i64::try_from(*n).expect("small")).expect("a time")
    }

    proptest! {
        /// Nothing of who holds little is dropped, and all that is dropped is counted with its kind and time.
        #[test]
        fn a_flood_costs_only_itself(pushes in prop::collection::vec((0_u64..20, 0_usize..3), 0..100), flood in 100_usize..3_000) {
            const KINDS: [&str; 3] = ["exec", "read", "write"];
            const MOST: usize = 250;
            let mut holding = Holding::new(MOST);
            let mut all: Vec<(u64, &str)> = pushes.iter().map(|(share, kind)| (*share, KINDS[*kind])).collect();
            let quiet = all.len();
            // In between, so that it comes before and after.
            all.splice(quiet / 2..quiet / 2, std::iter::repeat_n((99, "write"), flood));
            for (n, (share, kind)) in all.iter().enumerate() {
                holding.push(*share, kind, n, at);
                prop_assert!(holding.len() <= MOST);
            }
            let mut held = 0;
            for share in 0..20 {
                let own = holding.take(share);
                prop_assert!(own.dropped.is_empty(), "{:?}", own.dropped);
                let wanted: Vec<usize> = (0..all.len()).filter(|n| all[*n].0 == share).collect();
                prop_assert_eq!(own.items.iter().map(|(_, n)| *n).collect::<Vec<_>>(), wanted);
                held += own.items.len();
            }
            prop_assert_eq!(held, quiet);
            let own = holding.take(99);
            let dropped = own.dropped.get("write").map_or(0, |dropped| dropped.count);
            prop_assert_eq!(own.items.len() as u64 + dropped, flood as u64);
            prop_assert_eq!(holding.len(), 0);
            if let (Some(dropped), Some((_, first))) = (own.dropped.get("write"), own.items.front()) {
                prop_assert_eq!(*first, quiet / 2, "its beginning is kept");
                prop_assert!(dropped.from > at(first) && dropped.until <= at(&(quiet / 2 + flood - 1)));
            }
        }

        /// A kind of a container that floods does not cost the same container's other kinds.
        #[test]
        fn a_flood_of_one_kind_costs_no_other_kind(execs in 1_usize..50, flood in 500_usize..2_000) {
            let mut holding = Holding::new(200);
            for n in 0..execs {
                holding.push(1, "exec", n, at);
            }
            for n in 0..flood {
                holding.push(1, "write", n, at);
            }
            let own = holding.take(1);
            prop_assert_eq!(own.items.iter().filter(|(kind, _)| *kind == "exec").count(), execs);
            prop_assert_eq!(own.dropped.keys().copied().collect::<Vec<_>>(), ["write"]);
        }

        /// Of who has few, all are there.
        #[test]
        fn few_are_kept_whoever_floods(few in 1_usize..50, flood in 0_usize..3_000) {
            let mut calls = Few::new(200);
            for n in 0..few {
                calls.push(1, n);
            }
            for n in 0..flood {
                calls.push(2, n);
            }
            prop_assert_eq!(calls.of(1).count(), few);
            prop_assert!(calls.length <= 200);
            prop_assert_eq!(calls.of(2).next_back().copied(), flood.checked_sub(1), "the latest is there");
            calls.retain(2, |_| false);
            prop_assert_eq!(calls.length, few);
        }
    }
}
