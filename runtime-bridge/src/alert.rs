//! Deviations of one workload that are one matter: counted, never dropped.
//!
//! In: a [`Deviation`] and where it was seen. Out: the [`Alert`] it belongs to, and whether anybody is to be told. An alert is the same
//! whatever order its deviations come in: counts add up, times are the earliest and latest, samples are the first in time.

use std::collections::{BTreeMap, BTreeSet};

use dna::{Activity, Digest};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, Deviation, sensor};

/// Samples kept of an alert.
pub const SAMPLES: usize = 5;
/// Pods named in an alert; further ones are counted.
pub const PODS: usize = 64;
/// Hours of the histogram: four weeks. Older ones are counted in the total only.
pub const HOURS: usize = 24 * 28;
/// A risk from which an alert is told to people at once.
pub const NOTIFY: f64 = 0.5;
/// Risks at which an alert that rises is news: those of `sinks::severity`.
const STEPS: [f64; 3] = [NOTIFY, 0.7, 0.9];

/// Where a deviation was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The cluster's name.
    pub cluster: String,
    /// The pod's namespace; empty where it is not known.
    pub namespace: String,
    /// The workload that owns the pod, `Deployment/web`; the pod itself where nothing owns it.
    pub owner: String,
    /// The container's name.
    pub container: String,
    /// The image as the pod names it.
    pub image: String,
    /// Digest of the platform's manifest, or what the sensor has in its place; empty where it is not known.
    pub digest: String,
}

/// One matter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Its name: the same for the same workload, container, digest, class and subject.
    pub id: String,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What sort of step.
    pub class: Class,
    /// What it is about.
    pub subject: String,
    /// One sentence, of the deviation with the highest risk.
    pub message: String,
    /// The highest risk of its deviations: 0 to 1.
    pub risk: f64,
    /// MITRE ATT&CK technique.
    pub technique: String,
    /// The nearest program on the way that was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// What is known of the file that acts: layer, build step, package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// All of it was kept from happening.
    pub blocked: bool,
    /// What became of it.
    pub state: State,
    /// When it was first and last seen, by the nodes' clocks.
    #[schemars(with = "String")]
    pub first_seen: Timestamp,
    /// The last time.
    #[schemars(with = "String")]
    pub last_seen: Timestamp,
    /// How often.
    pub count: u64,
    /// How often by hour, `2026-11-30T07`.
    pub per_hour: BTreeMap<String, u64>,
    /// Pods it was seen in.
    pub pods: BTreeSet<String>,
    /// Pods beyond those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_pods: u64,
    /// Who asked the API server for the command that began it, where its audit log tells.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub users: BTreeSet<String>,
    /// The first events.
    pub samples: Vec<Sample>,
    /// What a sensor could not see meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blind: Vec<String>,
    /// When each sink was told last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub told: BTreeMap<String, Timestamp>,
}

/// What became of an alert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// Nobody has looked.
    #[default]
    Open,
    /// Somebody looks after it.
    Acknowledged,
    /// It is told no more until a time.
    Suppressed,
    /// It is done with; another deviation opens it again.
    Resolved,
}

/// Where the file that acts comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// Index of the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
    /// The build step that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
}

/// An event of an alert, with what its container did before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// The event.
    pub activity: Activity,
    /// What the deviation says of it.
    pub message: String,
    /// The container's activities before it, the oldest first.
    pub before: Vec<Activity>,
}

/// What a further deviation did to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Change {
    /// There was none.
    New,
    /// It weighs more than before.
    Escalated,
    /// It was resolved.
    Reopened,
    /// Somebody resolved it.
    Resolved,
    /// It was seen again.
    Repeated,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The name of the alert that a deviation belongs to.
#[must_use]
pub fn id(place: &Place, class: Class, subject: &str) -> String {
    let parts = [&place.cluster, &place.namespace, &place.owner, &place.container, &place.digest];
    let image = if place.digest.is_empty() { place.image.as_str() } else { "" };
    let mut hashed = Vec::new();
    for text in parts.into_iter().map(String::as_str).chain([image, class.name(), subject]) {
        sensor::part(&mut hashed, text.as_bytes());
    }
    Digest::sha256(&hashed).hex().chars().take(16).collect()
}

/// Adds a deviation to its alert.
pub fn collate(
    alert: &mut Option<Alert>,
    place: &Place,
    pod: &str,
    deviation: &Deviation,
    activity: &Activity,
    before: impl Iterator<Item = Activity>,
) -> Change {
    let is_new = alert.is_none();
    let alert = alert.get_or_insert_with(|| Alert {
        id: id(place, deviation.class, &deviation.subject),
        place: place.clone(),
        class: deviation.class,
        subject: deviation.subject.clone(),
        message: deviation.message.clone(),
        risk: 0.0,
        technique: deviation.technique.clone(),
        after: deviation.after.clone(),
        cause: None,
        blocked: true,
        state: State::Open,
        first_seen: activity.at,
        last_seen: activity.at,
        count: 0,
        per_hour: BTreeMap::new(),
        pods: BTreeSet::new(),
        more_pods: 0,
        users: BTreeSet::new(),
        samples: Vec::new(),
        blind: Vec::new(),
        told: BTreeMap::new(),
    });
    alert.count += 1;
    alert.first_seen = alert.first_seen.min(activity.at);
    alert.last_seen = alert.last_seen.max(activity.at);
    alert.blocked &= deviation.blocked;
    *alert.per_hour.entry(activity.at.strftime("%Y-%m-%dT%H").to_string()).or_default() += 1;
    while alert.per_hour.len() > HOURS {
        alert.per_hour.pop_first();
    }
    if !pod.is_empty() && !alert.pods.contains(pod) {
        if alert.pods.len() < PODS {
            alert.pods.insert(pod.to_owned());
        } else {
            alert.more_pods += 1;
        }
    }
    let was = alert.risk;
    // Of equal risks the first in the order of words, so that no order of arrival shows.
    if deviation.risk > was || (deviation.risk - was).abs() < f64::EPSILON && deviation.message < alert.message {
        alert.risk = deviation.risk;
        alert.message.clone_from(&deviation.message);
        alert.technique.clone_from(&deviation.technique);
        alert.after.clone_from(&deviation.after);
    }
    keep_sample(alert, deviation, activity, before);
    if is_new {
        return Change::New;
    }
    if alert.state == State::Resolved {
        alert.state = State::Open;
        return Change::Reopened;
    }
    let is_worse = STEPS.iter().any(|step| was < *step && alert.risk >= *step);
    if is_worse { Change::Escalated } else { Change::Repeated }
}

fn keep_sample(alert: &mut Alert, deviation: &Deviation, activity: &Activity, before: impl Iterator<Item = Activity>) {
    let is_full = alert.samples.len() >= SAMPLES;
    if is_full && alert.samples.last().is_some_and(|last| last.activity.at <= activity.at) {
        return;
    }
    let sample = Sample { activity: activity.clone(), message: deviation.message.clone(), before: before.collect() };
    let at = alert.samples.partition_point(|kept| kept.activity.at <= activity.at);
    alert.samples.insert(at, sample);
    alert.samples.truncate(SAMPLES);
}
