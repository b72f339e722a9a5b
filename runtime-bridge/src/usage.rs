//! What workloads did since the last writing, for the ledger: each thing at most once an hour, whatever number of containers did it.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use dna::Digest;
use jiff::Timestamp;
use lineage::{UsedRow, WorkloadRow};

use crate::{alert::Place, sensor, used::Used};

/// The DNA and, where the webhook bound the container, the expectation that it is compared with.
#[derive(Debug, Clone)]
pub struct Compared {
    /// The DNA.
    pub dna: Digest,
    /// The expectation.
    pub expectation: Option<Digest>,
}

/// What is to be written.
#[derive(Debug, Default)]
pub struct Usage {
    hasher: RandomState,
    workloads: BTreeMap<String, WorkloadRow>,
    used: BTreeMap<(String, &'static str, Arc<str>), UsedRow>,
    /// What was written within the hour.
    lately: HashSet<u64>,
}

/// The name of a workload's container and image.
#[must_use]
pub fn workload(place: &Place) -> String {
    let parts = [&place.cluster, &place.namespace, &place.owner, &place.container, &place.digest];
    sensor::name_of(parts.into_iter().map(String::as_str))
}

impl Usage {
    /// Takes that a container was met.
    pub fn started(&mut self, place: &Place, compared: &Compared, at: Timestamp) {
        if self.is_full() {
            return;
        }
        self.workload(place, compared, at).starts += 1;
    }

    /// Takes what a container did.
    pub fn used(&mut self, place: &Place, compared: &Compared, used: &Used, at: Timestamp) {
        if self.is_full() {
            metrics::counter!("mayfly_bridge_used_left_out_total").increment(1);
            return;
        }
        let id = workload(place);
        let hour = at.as_second().div_euclid(3600);
        if self.lately.len() >= MOST_LATELY {
            self.lately.clear();
        }
        if !self.lately.insert(self.hasher.hash_one((&id, used, hour))) {
            return;
        }
        self.workload(place, compared, at);
        let dimension = used.dimension.name();
        let row = self.used.entry((id.clone(), dimension, Arc::clone(&used.item))).or_insert_with(|| UsedRow {
            workload: id,
            dimension: dimension.to_owned(),
            item: used.item.to_string(),
            is_predicted: used.is_predicted,
            first_seen: at,
            last_seen: at,
        });
        row.is_predicted = used.is_predicted;
        row.first_seen = row.first_seen.min(at);
        row.last_seen = row.last_seen.max(at);
    }

    fn workload(&mut self, place: &Place, compared: &Compared, at: Timestamp) -> &mut WorkloadRow {
        let id = workload(place);
        let row = self.workloads.entry(id.clone()).or_insert_with(|| WorkloadRow {
            id,
            cluster: place.cluster.clone(),
            namespace: place.namespace.clone(),
            owner: place.owner.clone(),
            container: place.container.clone(),
            digest: place.digest.clone(),
            dna: compared.dna.clone(),
            expectation: compared.expectation.clone(),
            starts: 0,
            first_seen: at,
            last_seen: at,
        });
        row.first_seen = row.first_seen.min(at);
        row.last_seen = row.last_seen.max(at);
        row
    }

    /// More waits than a ledger that answers would leave.
    fn is_full(&self) -> bool {
        self.used.len() >= MOST_WAITING || self.workloads.len() >= MOST_WAITING
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workloads.is_empty() && self.used.is_empty()
    }

    /// What is to be written.
    #[must_use]
    pub fn rows(&self) -> (Vec<WorkloadRow>, Vec<UsedRow>) {
        (self.workloads.values().cloned().collect(), self.used.values().cloned().collect())
    }

    /// It was written.
    pub fn written(&mut self) {
        self.workloads.clear();
        self.used.clear();
    }
}

/// Items that are remembered as written.
const MOST_LATELY: usize = 200_000;
/// Rows that wait while the ledger does not answer.
const MOST_WAITING: usize = 50_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::used::Dimension;

    #[test]
    fn a_thing_is_written_once_an_hour_and_containers_are_counted() {
        let mut usage = Usage::default();
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).expect("a time");
        let place = |container: &str| Place { container: container.to_owned(), ..Place::default() };
        let compared = Compared { dna: Digest::sha256(b""), expectation: None };
        let used = |item: &str| Used { dimension: Dimension::Exec, item: item.into(), is_predicted: true };
        for second in [30, 20, 40] {
            usage.started(&place("a"), &compared, at(second));
            usage.used(&place("a"), &compared, &used("/bin/x"), at(second));
        }
        usage.used(&place("b"), &compared, &used("/bin/x"), at(50));
        let (workloads, rows) = usage.rows();
        assert_eq!((workloads.len(), rows.len()), (2, 2));
        let first = workloads.iter().find(|row| row.container == "a").expect("one");
        assert_eq!((first.starts, first.first_seen, first.last_seen), (3, at(20), at(40)));
        usage.written();
        usage.used(&place("a"), &compared, &used("/bin/x"), at(60));
        assert!(usage.is_empty(), "it was written within the hour");
        usage.used(&place("a"), &compared, &used("/bin/x"), at(60 + 3600));
        assert_eq!(usage.rows().1.len(), 1);
    }
}
