//! What was not expected earlier: of the same workload, and of other containers of the same image. Bounded.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
};

use jiff::{SignedDuration, Timestamp};

use crate::{Class, Deviation, incident::Tactic};

/// Silence after which what a workload did earlier says nothing any more.
const SILENCE: SignedDuration = SignedDuration::from_mins(10);
/// Workloads known at once; of more, the half that was silent longest is forgotten. The same for images.
const MOST: usize = 4096;
/// Matters kept of a workload: class and subject, the latest.
const MATTERS: usize = 64;
/// Containers known of an image, the latest.
const CONTAINERS: usize = 32;
/// Matters kept of an image, the latest, and containers of each.
const MATTERS_OF_IMAGE: usize = 256;
const CONTAINERS_OF_MATTER: usize = 8;

/// What is known when something is not expected.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Earlier {
    /// Deviations of the workload.
    pub count: u32,
    /// Their classes.
    pub classes: u32,
    /// Their tactics.
    pub tactics: u32,
    /// The highest risk of them by rules.
    pub highest: f64,
    /// One of them was of the same class and subject.
    pub is_known: bool,
    /// Other containers of the image that are known.
    pub others: u32,
    /// How many of those did the same, 0 to 1.
    pub share: f64,
}

/// All workloads and images.
#[derive(Debug, Default)]
pub struct Past {
    owners: HashMap<u64, Owner>,
    images: HashMap<u64, Image>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Owner {
    at: Timestamp,
    count: u32,
    classes: u32,
    tactics: u32,
    highest: f64,
    matters: VecDeque<u64>,
}

#[derive(Debug)]
struct Image {
    at: Timestamp,
    containers: VecDeque<u64>,
    matters: VecDeque<(u64, Vec<u64>)>,
}

/// Whose deviation it is, each as a number: the workload, the image, the container.
#[derive(Debug, Clone, Copy)]
pub struct Whose {
    /// The workload.
    pub owner: u64,
    /// The image.
    pub image: u64,
    /// The container.
    pub container: u64,
}

impl Past {
    /// Knows a container from now on: how rare something is shows beside those that do not do it.
    pub fn meet(&mut self, whose: Whose, at: Timestamp) {
        let Whose { image, container, .. } = whose;
        make_room(&mut self.images, image, |image| image.at);
        let known = self.images.entry(image).or_insert_with(|| Image {
            at,
            containers: VecDeque::new(),
            matters: VecDeque::new(),
        });
        known.at = known.at.max(at);
        if !known.containers.contains(&container) {
            if known.containers.len() >= CONTAINERS {
                known.containers.pop_front();
            }
            known.containers.push_back(container);
        }
    }

    /// What is known before this deviation.
    #[must_use]
    pub fn earlier(&self, whose: Whose, deviation: &Deviation, at: Timestamp) -> Earlier {
        let matter = self.matter(deviation);
        let mut earlier = Earlier::default();
        if let Some(owner) = self.owners.get(&whose.owner).filter(|owner| !owner.is_over(at)) {
            earlier.count = owner.count;
            earlier.classes = owner.classes.count_ones();
            earlier.tactics = owner.tactics.count_ones();
            earlier.highest = owner.highest;
            earlier.is_known = owner.matters.contains(&matter);
        }
        if let Some(image) = self.images.get(&whose.image) {
            let others =
                image.containers.iter().filter(|one| **one != whose.container).count().min(CONTAINERS_OF_MATTER);
            let alike = image.matters.iter().find(|(one, _)| *one == matter);
            let alike = alike.map_or(0, |(_, by)| by.iter().filter(|one| **one != whose.container).count()).min(others);
            let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            earlier.others = number(others);
            earlier.share = f64::from(number(alike)) / f64::from(number(others.max(1)));
        }
        earlier
    }

    /// Keeps a deviation, whose risk is that of the rules.
    pub fn keep(&mut self, whose: Whose, deviation: &Deviation, at: Timestamp) {
        let matter = self.matter(deviation);
        make_room(&mut self.owners, whose.owner, |owner| owner.at);
        let owner = self.owners.entry(whose.owner).or_insert_with(|| Owner::new(at));
        if owner.is_over(at) {
            *owner = Owner::new(at);
        }
        owner.at = owner.at.max(at);
        owner.count = owner.count.saturating_add(1);
        owner.highest = owner.highest.max(deviation.risk);
        owner.classes |= bit(Class::ALL.iter().position(|class| *class == deviation.class));
        let tactic = Tactic::of(&deviation.technique);
        owner.tactics |= bit(Tactic::ALL.iter().position(|one| Some(*one) == tactic));
        if !owner.matters.contains(&matter) {
            if owner.matters.len() >= MATTERS {
                owner.matters.pop_front();
            }
            owner.matters.push_back(matter);
        }
        self.meet(whose, at);
        let Some(image) = self.images.get_mut(&whose.image) else { return };
        match image.matters.iter_mut().find(|(one, _)| *one == matter) {
            Some((_, by)) if by.contains(&whose.container) => {}
            Some((_, by)) => {
                if by.len() >= CONTAINERS_OF_MATTER {
                    by.remove(0);
                }
                by.push(whose.container);
            }
            None => {
                if image.matters.len() >= MATTERS_OF_IMAGE {
                    image.matters.pop_front();
                }
                image.matters.push_back((matter, vec![whose.container]));
            }
        }
    }

    /// How many workloads and images are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.owners.len() + self.images.len()
    }

    fn matter(&self, deviation: &Deviation) -> u64 {
        self.hasher.hash_one((deviation.class, &deviation.subject))
    }
}

impl Owner {
    const fn new(at: Timestamp) -> Self {
        Self { at, count: 0, classes: 0, tactics: 0, highest: 0.0, matters: VecDeque::new() }
    }

    fn is_over(&self, at: Timestamp) -> bool {
        at.duration_since(self.at) > SILENCE
    }
}

const fn bit(position: Option<usize>) -> u32 {
    match position {
        Some(position) if position < 32 => 1 << position,
        _ => 0,
    }
}

fn make_room<T>(known: &mut HashMap<u64, T>, key: u64, at: impl Fn(&T) -> Timestamp) {
    if known.len() < MOST || known.contains_key(&key) {
        return;
    }
    let mut times: Vec<Timestamp> = known.values().map(&at).collect();
    let middle = times.len() / 2;
    let (_, middle, _) = times.select_nth_unstable(middle);
    let middle = *middle;
    known.retain(|_, one| at(one) > middle);
}
