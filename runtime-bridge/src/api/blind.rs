//! What is seen at all: the sensors' health, and when they could not see. Neither is of a namespace: whoever reads anything of a cluster
//! may know how much of it is watched.

use std::{collections::VecDeque, time::Instant};

use axum::{Extension, Json, extract::State};
use jiff::{SignedDuration, Timestamp};
use lineage::BlindRow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api, Who,
    auth::Namespaces,
    problem::{Asked, Problem, cursor, limit, place},
};
use crate::sensor::pack::Packs;

/// How a sensor does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SensorHealth {
    /// The cluster it is of.
    pub cluster: String,
    /// Its name, as it is configured.
    pub name: String,
    /// Its kind: `falco`, `tetragon`, `tracee`, `kubearmor`, `inspektor-gadget`, `kubernetes-audit`, `mayfly`.
    pub kind: String,
    /// The time of its last event, by the node's clock.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event: Option<Timestamp>,
    /// When anything last came from it, by the bridge's clock.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_received: Option<Timestamp>,
    /// The same by a clock that does not jump.
    #[serde(skip)]
    pub heard: Option<Instant>,
    /// Events taken in.
    pub events: u64,
    /// Items that were no events of it.
    pub malformed: u64,
    /// The last of these, the oldest first; for who may read all namespaces.
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    pub samples: VecDeque<MalformedItem>,
    /// Events it said it lost.
    pub lost: u64,
    /// Events that were refused, as the bridge could not keep them; a request that was not read counts as one.
    pub refused: u64,
    /// The version of the sensor pack that its nodes run, the oldest of them; absent where its events tell of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pack: Option<u32>,
    /// The packs of its nodes, by the events of all that one bridge reads.
    #[serde(skip)]
    pub packs: Packs,
    /// What to do about it: a pack that is missing, or older than this bridge expects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Something a sensor sent that is no event of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MalformedItem {
    /// When it came.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// What is wrong with it.
    pub reason: String,
    /// How it begins, credentials taken out.
    pub text: String,
}

/// Samples that are kept of a sensor.
const MAX_SAMPLES: usize = 8;
/// How much of each.
const SAMPLE_BYTES: usize = 512;

impl SensorHealth {
    /// Keeps how something began that is no event of the sensor.
    pub(crate) fn keep(&mut self, at: Timestamp, reason: &str, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes.get(..SAMPLE_BYTES).unwrap_or(bytes));
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(MalformedItem { at, reason: reason.to_owned(), text: dna::redact(&text).into_owned() });
    }

    /// One of which nothing was heard yet.
    #[must_use]
    pub fn new(cluster: &str, name: &str, kind: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            last_event: None,
            last_received: None,
            heard: None,
            events: 0,
            malformed: 0,
            samples: VecDeque::new(),
            lost: 0,
            refused: 0,
            pack: None,
            packs: Packs::default(),
            warnings: Vec::new(),
        }
    }
}

/// The sensors.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SensorList {
    /// By cluster and name.
    sensors: Vec<SensorHealth>,
}

/// Which blind intervals to list.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct BlindAsked {
    /// In this cluster.
    cluster: Option<String>,
    /// That ended at this time or later; a day ago where it is absent.
    #[schemars(with = "Option<String>")]
    since: Option<Timestamp>,
    /// Rows of a page: 1 to 500.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of blind intervals.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct BlindPage {
    /// The latest beginning first.
    blind: Vec<BlindView>,
    /// The cursor of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// When a sensor could not see.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "BlindInterval")]
pub(super) struct BlindView {
    /// The cluster's name.
    cluster: String,
    /// The node; empty: all of them.
    node: String,
    /// The sensor.
    sensor: String,
    /// From when on.
    #[schemars(with = "String")]
    from: Timestamp,
    /// Until when, as far as is known.
    #[schemars(with = "String")]
    until: Timestamp,
    /// Events lost, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    /// Why, in a word.
    cause: String,
    /// Why, in a sentence.
    reason: String,
}

impl From<BlindRow> for BlindView {
    fn from(row: BlindRow) -> Self {
        Self {
            cluster: row.cluster,
            node: row.node,
            sensor: row.sensor,
            from: row.from,
            until: row.until,
            count: row.count,
            cause: row.cause,
            reason: row.reason,
        }
    }
}

/// Where a list goes on.
#[derive(Serialize, Deserialize)]
struct Place(Timestamp, [String; 4]);

/// Tells how the sensors do.
pub(super) async fn sensors(State(api): State<Api>, Extension(caller): Who) -> Json<SensorList> {
    let mut sensors = (api.sensors)();
    sensors.retain(|sensor| caller.sees(&sensor.cluster));
    // What a sensor sent may be of any namespace.
    if caller.read != Namespaces::All {
        sensors.iter_mut().for_each(|sensor| sensor.samples.clear());
    }
    sensors.sort_by(|a, b| (&a.cluster, &a.name).cmp(&(&b.cluster, &b.name)));
    Json(SensorList { sensors })
}

/// Lists blind intervals.
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Who,
    Asked(asked): Asked<BlindAsked>,
) -> Result<Json<BlindPage>, Problem> {
    let limit = limit(asked.limit)?;
    if asked.cluster.as_ref().is_some_and(|cluster| !caller.sees(cluster)) {
        return Ok(Json(BlindPage { blind: Vec::new(), next: None }));
    }
    let after = place::<Place>(asked.cursor.as_deref())?.map(|Place(from, [cluster, node, sensor, cause])| BlindRow {
        cluster,
        node,
        sensor,
        cause,
        from,
        until: from,
        count: None,
        reason: String::new(),
    });
    let since = asked.since.unwrap_or_else(|| Timestamp::now() - SignedDuration::from_hours(24));
    let cluster = asked.cluster.as_ref().or(caller.cluster.as_ref());
    let mut rows = api.ledger.blind(cluster.map(String::as_str), since, after.as_ref(), limit + 1).await?;
    let kept = usize::try_from(limit).unwrap_or(usize::MAX);
    let is_more = rows.len() > kept;
    rows.truncate(kept);
    let next = rows.last().filter(|_| is_more).and_then(|row| {
        let names = [&row.cluster, &row.node, &row.sensor, &row.cause].map(String::clone);
        cursor(&Place(row.from, names))
    });
    Ok(Json(BlindPage { blind: rows.into_iter().map(Into::into).collect(), next }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_samples_are_kept_short_and_without_credentials() {
        let mut health = SensorHealth::new("one", "falco", "falco");
        for number in 0..20 {
            let text = format!("{number} password=hunter2hunter2 \u{e4}{}", "x".repeat(2000));
            health.keep(Timestamp::UNIX_EPOCH, "expected an object", text.as_bytes());
        }
        assert_eq!(health.samples.len(), MAX_SAMPLES);
        let last = health.samples.back().expect("a sample");
        assert!(last.text.starts_with("19 ") && last.text.len() <= SAMPLE_BYTES, "{last:?}");
        assert!(!last.text.contains("hunter2"), "{last:?}");
    }
}
