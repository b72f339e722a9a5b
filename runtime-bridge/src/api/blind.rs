//! What is seen at all: the sensors' health, and when they could not see. Neither is of a namespace: whoever reads anything of a cluster
//! may know how much of it is watched.

use axum::{Extension, Json, extract::State};
use jiff::{SignedDuration, Timestamp};
use lineage::BlindRow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api, Who,
    problem::{Asked, Problem, cursor, limit, place},
};

/// How a sensor does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SensorHealth {
    /// The cluster it is of.
    pub cluster: String,
    /// Its name, as it is configured.
    pub name: String,
    /// Its kind: `falco`, `tetragon`, `tracee`, `kubearmor`, `audit`, `inspektor-gadget`, `mayfly`.
    pub kind: String,
    /// The time of its last event, by the node's clock.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event: Option<Timestamp>,
    /// When anything last came from it, by the bridge's clock.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_received: Option<Timestamp>,
    /// Events taken in.
    pub events: u64,
    /// Items that were no events of it.
    pub malformed: u64,
    /// Events it said it lost.
    pub lost: u64,
    /// Events that were refused, as the bridge could not keep them.
    pub refused: u64,
}

impl SensorHealth {
    /// One of which nothing was heard yet.
    #[must_use]
    pub fn new(cluster: &str, name: &str, kind: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            last_event: None,
            last_received: None,
            events: 0,
            malformed: 0,
            lost: 0,
            refused: 0,
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
struct BlindView {
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

/// Where a list goes on.
#[derive(Serialize, Deserialize)]
struct Place(Timestamp, [String; 4]);

/// Tells how the sensors do.
pub(super) async fn sensors(State(api): State<Api>, Extension(caller): Who) -> Json<SensorList> {
    let mut sensors = (api.sensors)();
    sensors.retain(|sensor| caller.sees(&sensor.cluster));
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
    let view = |row: BlindRow| BlindView {
        cluster: row.cluster,
        node: row.node,
        sensor: row.sensor,
        from: row.from,
        until: row.until,
        count: row.count,
        cause: row.cause,
        reason: row.reason,
    };
    Ok(Json(BlindPage { blind: rows.into_iter().map(view).collect(), next }))
}
