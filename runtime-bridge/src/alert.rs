//! Deviations of one workload that are one matter: counted, never dropped.
//!
//! In: a [`Deviation`] and where it was seen. Out: the [`Alert`] it belongs to, and whether anybody is to be told. An alert is the same
//! whatever order its deviations come in: counts add up, times are the earliest and latest, samples are the first in time.

use std::collections::{BTreeMap, BTreeSet};

use dna::Activity;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, Deviation, Driver, grounds::Grounds, rules::Ruled, sensor};

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
    /// What drove that risk, where a model made it; the strongest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drivers: Vec<Driver>,
    /// MITRE ATT&CK technique.
    pub technique: String,
    /// The nearest program on the way that was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// What is known of the file that acts: layer, build step, package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What of the DNA it rests on, what the image was built from and what changed: as it was known when the alert was new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grounds: Option<Grounds>,
    /// What rules did to it.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub ruled: Ruled,
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
    #[serde(default, skip_serializing_if = "crate::is_default")]
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
    /// It is told no more until a time, as somebody suppressed it or a rule ignores it.
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
    /// Somebody looks after it.
    Acknowledged,
    /// Somebody wants to be told no more of it.
    Suppressed,
    /// Somebody resolved it.
    Resolved,
    /// It was seen again.
    Repeated,
}

/// Who did something to an alert, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct By {
    /// Who, by the name that the API knows him by.
    pub actor: String,
    /// Why, in his words.
    pub reason: String,
}

/// The name of the alert that a deviation belongs to.
#[must_use]
pub fn id(place: &Place, class: Class, subject: &str) -> String {
    let parts = [&place.cluster, &place.namespace, &place.owner, &place.container, &place.digest];
    let image = if place.digest.is_empty() { place.image.as_str() } else { "" };
    sensor::name_of(parts.into_iter().map(String::as_str).chain([image, class.name(), subject]))
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
        drivers: Vec::new(),
        technique: deviation.technique.clone(),
        after: deviation.after.clone(),
        cause: None,
        grounds: None,
        ruled: Ruled::default(),
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
    add_pod(alert, pod);
    let was = alert.risk;
    if is_heavier(deviation.risk, &deviation.message, alert) {
        alert.risk = deviation.risk;
        alert.drivers.clone_from(&deviation.drivers);
        alert.message.clone_from(&deviation.message);
        alert.technique.clone_from(&deviation.technique);
        alert.after.clone_from(&deviation.after);
    }
    keep_sample(alert, deviation, activity, before);
    if is_new {
        return Change::New;
    }
    changed(alert, was)
}

/// Adds what was collated elsewhere to an alert: as if each of its deviations had been added.
pub fn merge(alert: &mut Option<Alert>, more: Alert) -> Change {
    let Some(alert) = alert else {
        *alert = Some(more);
        return Change::New;
    };
    let Alert {
        id: _,
        place: _,
        class: _,
        subject: _,
        message,
        risk,
        drivers,
        technique,
        after,
        cause,
        blocked,
        state: _,
        first_seen,
        last_seen,
        count,
        per_hour,
        pods,
        more_pods,
        users,
        samples,
        blind,
        told: _,
        grounds,
        ruled,
    } = more;
    let (was_ignored, is_ignored) = (alert.ruled.until(alert.count).is_some(), ruled.until(count).is_some());
    alert.count += count;
    alert.ruled.merge(ruled);
    alert.first_seen = alert.first_seen.min(first_seen);
    alert.last_seen = alert.last_seen.max(last_seen);
    alert.blocked &= blocked;
    for (hour, count) in per_hour {
        *alert.per_hour.entry(hour).or_default() += count;
    }
    while alert.per_hour.len() > HOURS {
        alert.per_hour.pop_first();
    }
    alert.more_pods += more_pods;
    for pod in pods {
        add_pod(alert, &pod);
    }
    let was = alert.risk;
    if is_heavier(risk, &message, alert) {
        (alert.risk, alert.drivers) = (risk, drivers);
        (alert.message, alert.technique, alert.after) = (message, technique, after);
    }
    for sample in samples {
        insert_sample(alert, sample);
    }
    alert.users.extend(users);
    if alert.cause.is_none() {
        alert.cause = cause;
    }
    if alert.grounds.is_none() {
        alert.grounds = grounds;
    }
    for told in blind {
        if !alert.blind.contains(&told) {
            alert.blind.push(told);
        }
    }
    match changed_by(alert.state, was_ignored, is_ignored) {
        Some(change) => change,
        None => changed(alert, was),
    }
}

/// What deviations do to an alert that rules ignored before, or that they ignore now.
fn changed_by(state: State, was_ignored: bool, is_ignored: bool) -> Option<Change> {
    match (was_ignored, is_ignored) {
        // What is ignored opens nothing.
        (_, true) if state == State::Resolved => Some(Change::Repeated),
        (true, false) if state != State::Resolved => Some(Change::Reopened),
        _ => None,
    }
}

/// What further deviations did to an alert that was there, and weighed so much.
fn changed(alert: &mut Alert, was: f64) -> Change {
    if alert.state == State::Resolved {
        alert.state = State::Open;
        return Change::Reopened;
    }
    let is_worse = STEPS.iter().any(|step| was < *step && alert.risk >= *step);
    if is_worse { Change::Escalated } else { Change::Repeated }
}

/// Of equal risks the first in the order of words, so that no order of arrival shows.
fn is_heavier(risk: f64, message: &str, alert: &Alert) -> bool {
    risk > alert.risk || (risk - alert.risk).abs() < f64::EPSILON && *message < *alert.message
}

fn add_pod(alert: &mut Alert, pod: &str) {
    if pod.is_empty() || alert.pods.contains(pod) {
        return;
    }
    if alert.pods.len() < PODS {
        alert.pods.insert(pod.to_owned());
    } else {
        alert.more_pods += 1;
    }
}

fn keep_sample(alert: &mut Alert, deviation: &Deviation, activity: &Activity, before: impl Iterator<Item = Activity>) {
    let is_full = alert.samples.len() >= SAMPLES;
    if is_full && alert.samples.last().is_some_and(|last| last.activity.at <= activity.at) {
        return;
    }
    let sample = Sample { activity: activity.clone(), message: deviation.message.clone(), before: before.collect() };
    insert_sample(alert, sample);
}

fn insert_sample(alert: &mut Alert, sample: Sample) {
    let at = alert.samples.partition_point(|kept| kept.activity.at <= sample.activity.at);
    alert.samples.insert(at, sample);
    alert.samples.truncate(SAMPLES);
}

#[cfg(test)]
mod tests {
    use dna::{Act, Change as Write, Outcome, Process, SeenContainer};
    use proptest::prelude::*;

    use super::*;

    fn found(second: i64, risk: u8, is_blocked: bool) -> (Deviation, Activity) {
        let activity = Activity {
            at: Timestamp::from_second(1_700_000_000 + second).expect("a time"),
            sensor: "falco".to_owned(),
            node: None,
            container: SeenContainer::default(),
            process: Process::default(),
            ancestors: Vec::new(),
            act: Act::Write { path: "/etc/passwd".to_owned(), change: Write::Open },
            outcome: Outcome::Done,
            rule: None,
        };
        let deviation = Deviation {
            class: Class::Write,
            subject: "/etc/passwd".to_owned(),
            message: format!("of risk {risk}"),
            after: None,
            layer: None,
            package: None,
            risk: f64::from(risk) / 10.0,
            drivers: Vec::new(),
            technique: format!("T{risk}"),
            blocked: is_blocked,
        };
        (deviation, activity)
    }

    proptest! {
        /// However deviations are put together before they are added, the alert is the one of each added by itself.
        #[test]
        fn parts_make_the_same_alert(
            all in prop::collection::vec((0_i64..1_000_000, 0_u8..10, any::<bool>(), 0_usize..4), 1..60),
            parts in prop::collection::vec(1_usize..10, 60),
        ) {
            // Of one time there is one: samples of equal times are kept in the order in which they came.
            let mut times = BTreeSet::new();
            let all: Vec<_> = all.into_iter().filter(|(second, ..)| times.insert(*second)).collect();
            let place = Place { owner: "Deployment/web".to_owned(), ..Place::default() };
            let add = |to: &mut Option<Alert>, (second, risk, is_blocked, pod): &(i64, u8, bool, usize)| {
                let (deviation, activity) = found(*second, *risk, *is_blocked);
                collate(to, &place, &format!("web-{pod}"), &deviation, &activity, std::iter::empty());
            };
            let mut one_by_one = None;
            all.iter().for_each(|each| add(&mut one_by_one, each));
            let (mut merged, mut rest, mut parts) = (None, all.as_slice(), parts.into_iter());
            while !rest.is_empty() {
                let (these, others) = rest.split_at(parts.next().unwrap_or(60).min(rest.len()));
                let mut part = None;
                these.iter().for_each(|each| add(&mut part, each));
                merge(&mut merged, part.expect("not empty"));
                rest = others;
            }
            prop_assert_eq!(merged, one_by_one);
        }
    }

    #[test]
    fn a_part_reopens_and_escalates_as_its_deviations_do() {
        let part = |risk| {
            let mut part = None;
            let (deviation, activity) = found(0, risk, false);
            collate(&mut part, &Place::default(), "", &deviation, &activity, std::iter::empty());
            part.expect("an alert")
        };
        let mut alert = None;
        assert_eq!(merge(&mut alert, part(3)), Change::New);
        assert_eq!(merge(&mut alert, part(3)), Change::Repeated);
        assert_eq!(merge(&mut alert, part(7)), Change::Escalated);
        if let Some(alert) = &mut alert {
            alert.state = State::Resolved;
        }
        assert_eq!(merge(&mut alert, part(3)), Change::Reopened);
    }
}
