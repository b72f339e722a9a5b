//! Alerts that are one story.
//!
//! In: [`Alert`]s. Out: [`Incident`]s: which alerts belong together, in what order things happened, how far an intruder came, where it comes
//! from, and how likely it is one. It is a pure function of the alerts, so that no order of arrival, restart or rollout shows: an alert
//! outlives its pods, and an incident the digests of its workload. What people resolve weighs nothing.
//!
//! Two alerts are of one story where they share a link and no more than [`APART`] of silence lies between them: the workload, the
//! person whose command it was, and what came from elsewhere - a program that no image has, a peer out of the cluster.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Class,
    alert::{Alert, State},
    grounds,
    risk::told,
};

pub mod tree;

/// Silence that ends a story. Intruders wait for weeks; a month is what most logs are kept for.
pub const APART: SignedDuration = SignedDuration::from_hours(24 * 30);
/// A stage weighs half as much after this.
const HALF_LIFE: SignedDuration = SignedDuration::from_hours(24 * 14);
/// Alerts told of an incident one by one; further ones are counted.
const CHAPTERS: usize = 256;
/// Commits and changes told of an alert's origin.
const SOME: usize = 8;
/// Workloads of different images that share what came from elsewhere, from which on it is a campaign.
const CAMPAIGN: usize = 3;
/// Hours in which a peer was called, from which on regularity says something.
const BEACON_HOURS: usize = 6;

/// What an intruder is after with a step. Source: MITRE ATT&CK for Containers and Linux, tactics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Tactic {
    /// To run commands.
    Execution,
    /// To stay.
    Persistence,
    /// To become more than the container's user.
    PrivilegeEscalation,
    /// Not to be seen.
    DefenseEvasion,
    /// To get at secrets.
    CredentialAccess,
    /// To look around.
    Discovery,
    /// To be told what to do, and to bring tools in.
    CommandAndControl,
    /// To do harm.
    Impact,
}

impl Tactic {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Execution,
        Self::Persistence,
        Self::PrivilegeEscalation,
        Self::DefenseEvasion,
        Self::CredentialAccess,
        Self::Discovery,
        Self::CommandAndControl,
        Self::Impact,
    ];

    /// Its name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Execution => "execution",
            Self::Persistence => "persistence",
            Self::PrivilegeEscalation => "privilege-escalation",
            Self::DefenseEvasion => "defense-evasion",
            Self::CredentialAccess => "credential-access",
            Self::Discovery => "discovery",
            Self::CommandAndControl => "command-and-control",
            Self::Impact => "impact",
        }
    }

    /// That of a technique; a sub-technique's is its parent's.
    #[must_use]
    pub fn of(technique: &str) -> Option<Self> {
        let parent = technique.split('.').next()?;
        Some(match parent {
            "T1059" | "T1609" | "T1610" => Self::Execution,
            "T1053" | "T1098" | "T1136" | "T1505" | "T1543" | "T1546" | "T1547" | "T1554" | "T1556" | "T1574" => {
                Self::Persistence
            }
            "T1055" | "T1548" | "T1611" => Self::PrivilegeEscalation,
            "T1070" | "T1620" => Self::DefenseEvasion,
            "T1003" | "T1528" | "T1552" => Self::CredentialAccess,
            "T1046" | "T1082" | "T1613" => Self::Discovery,
            "T1071" | "T1105" | "T1571" => Self::CommandAndControl,
            "T1496" | "T1499" | "T1565" => Self::Impact,
            _ => return None,
        })
    }
}

/// An alert, as a part of a story.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chapter {
    /// The alert's name.
    pub alert: String,
    /// The cluster's name.
    pub cluster: String,
    /// The namespace; empty where it is not known.
    pub namespace: String,
    /// What became of the alert.
    pub state: State,
    /// The workload, `NAMESPACE/Deployment/web`.
    pub workload: String,
    /// Digest of the image; what the sensor has in its place.
    pub digest: String,
    /// What sort of step.
    pub class: Class,
    /// What it is about.
    pub subject: String,
    /// One sentence.
    pub message: String,
    /// MITRE ATT&CK technique.
    pub technique: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tactic: Option<Tactic>,
    /// 0 to 1.
    pub risk: f64,
    /// When it was first seen.
    #[schemars(with = "String")]
    pub first_seen: Timestamp,
    /// When it was last seen.
    #[schemars(with = "String")]
    pub last_seen: Timestamp,
    /// How often.
    pub count: u64,
    /// Who asked for it, where the API server's audit log tells.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub users: BTreeSet<String>,
    /// The same peer is called at regular times: every so many hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_hours: Option<u64>,
    /// Where what it is about comes from.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub origin: Origin,
}

/// Where what an alert is about comes from, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Origin {
    /// Index of the image's layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
    /// The build step that made the layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The commits that the image was built from, `SOURCE@COMMIT`, as verified attestations say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commits: Vec<String>,
    /// What bears on it and changed against the image before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
}

/// With what a story began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// The alert that says so: the first that says anything.
    pub alert: String,
    /// Whose command it was.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub users: BTreeSet<String>,
    /// What in the image it was.
    #[serde(flatten)]
    pub origin: Origin,
}

/// One story.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Incident {
    /// The name of the alert that it began with.
    pub id: String,
    /// How likely it is that this is an intruder: of every tactic the highest risk, less for what is long past, joined as if they were
    /// independent. 0 to 1.
    pub risk: f64,
    /// What became of it: open while one of its alerts is, resolved when all are.
    pub state: State,
    /// How far he came: every tactic, with its risk.
    pub stages: BTreeMap<Tactic, f64>,
    /// With what it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// The same thing from elsewhere in workloads of different images.
    pub is_campaign: bool,
    /// When it began.
    #[schemars(with = "String")]
    pub first_seen: Timestamp,
    /// The last of it.
    #[schemars(with = "String")]
    pub last_seen: Timestamp,
    /// The workloads.
    pub workloads: BTreeSet<String>,
    /// The images.
    pub digests: BTreeSet<String>,
    /// Who asked for any of it.
    pub users: BTreeSet<String>,
    /// What happened, in order.
    pub chapters: Vec<Chapter>,
    /// Alerts beyond those.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub more: u64,
}

/// What two alerts of one story share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Link {
    /// The workload; the pod or the container's image where nothing more is known.
    Workload(String),
    /// Somebody whose commands are run in containers.
    User(String),
    /// A program that no image has.
    Program(String),
    /// A peer out of the cluster.
    Peer(String),
}

impl Link {
    /// Whether it says by itself that something came from elsewhere.
    const fn is_foreign(&self) -> bool {
        matches!(self, Self::Program(_) | Self::Peer(_))
    }
}

/// The stories that alerts tell: which of them belong together. What they say is the alerts' own.
#[derive(Debug, Default)]
pub struct Stories {
    /// The group that an alert is in, and when the alert began.
    group_of: BTreeMap<String, (usize, Timestamp)>,
    /// Alerts of a group, as they began; empty where it went into another.
    groups: Vec<BTreeSet<(Timestamp, String)>>,
    /// Where a link was seen: intervals that are more than [`APART`] apart, with an alert of each.
    spans: BTreeMap<Link, Vec<Span>>,
    /// Workloads' images that a foreign link was seen in.
    seen_in: BTreeMap<Link, BTreeSet<(String, String)>>,
}

#[derive(Debug)]
struct Span {
    from: Timestamp,
    until: Timestamp,
    alert: String,
}

impl Stories {
    /// Takes in an alert, new or as it is now. Gives the incident's name.
    pub fn take(&mut self, alert: &Alert) -> String {
        let began = alert.first_seen;
        match self.group_of.get_mut(&alert.id) {
            Some((group, known)) => {
                // An event that came late may make it begin earlier.
                if *known != began
                    && let Some(members) = self.groups.get_mut(*group)
                {
                    members.remove(&(*known, alert.id.clone()));
                    members.insert((began, alert.id.clone()));
                    *known = began;
                }
            }
            None => {
                self.group_of.insert(alert.id.clone(), (self.groups.len(), began));
                self.groups.push(BTreeSet::from([(began, alert.id.clone())]));
            }
        }
        for link in links(alert) {
            if link.is_foreign() {
                let place = (workload(alert), alert.place.digest.clone());
                self.seen_in.entry(link.clone()).or_default().insert(place);
            }
            self.connect(link, alert);
        }
        self.name(&alert.id).unwrap_or_default()
    }

    /// Joins an alert with those that share a link and are near in time.
    fn connect(&mut self, link: Link, alert: &Alert) {
        let spans = self.spans.entry(link).or_default();
        let mut joined = Span { from: alert.first_seen, until: alert.last_seen, alert: alert.id.clone() };
        let mut others = Vec::new();
        spans.retain(|span| {
            let is_apart =
                span.from.duration_since(joined.until) > APART || joined.from.duration_since(span.until) > APART;
            if !is_apart {
                joined.from = joined.from.min(span.from);
                joined.until = joined.until.max(span.until);
                others.push(span.alert.clone());
            }
            is_apart
        });
        spans.push(joined);
        for other in others {
            self.join(&alert.id, &other);
        }
    }

    fn group(&self, alert: &str) -> Option<usize> {
        self.group_of.get(alert).map(|(group, _)| *group)
    }

    fn join(&mut self, one: &str, other: &str) {
        let Some((one, other)) = self.group(one).zip(self.group(other)) else { return };
        if one == other {
            return;
        }
        let size = |group: usize| self.groups.get(group).map_or(0, BTreeSet::len);
        let (into, from) = if size(one) < size(other) { (other, one) } else { (one, other) };
        let moved = self.groups.get_mut(from).map(std::mem::take).unwrap_or_default();
        for (began, alert) in &moved {
            self.group_of.insert(alert.clone(), (into, *began));
        }
        if let Some(group) = self.groups.get_mut(into) {
            group.extend(moved);
        }
    }

    /// The name of the incident that an alert is a part of.
    #[must_use]
    pub fn name(&self, alert: &str) -> Option<String> {
        let (_, first) = self.groups.get(self.group(alert)?)?.first()?;
        Some(first.clone())
    }

    /// All incidents, the likeliest first; `find` gives an alert as it is now, where it is to be told of.
    #[must_use]
    pub fn incidents<'a>(&self, find: impl Fn(&str) -> Option<&'a Chapter>) -> Vec<Incident> {
        let mut all = self.of_groups(0..self.groups.len(), find);
        all.sort_by(|one, other| other.risk.total_cmp(&one.risk).then_with(|| one.id.cmp(&other.id)));
        all
    }

    /// The incident that an alert is a part of.
    #[must_use]
    pub fn incident<'a>(&self, alert: &str, find: impl Fn(&str) -> Option<&'a Chapter>) -> Option<Incident> {
        self.touched([alert], find).pop()
    }

    /// The incidents that alerts are a part of, each once, by name.
    #[must_use]
    pub fn touched<'a, 'b>(
        &self,
        alerts: impl IntoIterator<Item = &'b str>,
        find: impl Fn(&str) -> Option<&'a Chapter>,
    ) -> Vec<Incident> {
        let groups: BTreeSet<usize> = alerts.into_iter().filter_map(|alert| self.group(alert)).collect();
        let mut touched = self.of_groups(groups, find);
        touched.sort_by(|one, other| one.id.cmp(&other.id));
        touched
    }

    fn of_groups<'a>(
        &self,
        numbers: impl IntoIterator<Item = usize>,
        find: impl Fn(&str) -> Option<&'a Chapter>,
    ) -> Vec<Incident> {
        let campaigns = self.campaigns();
        let of = |number: usize| incident(self.groups.get(number)?, campaigns.contains(&number), &find);
        numbers.into_iter().filter_map(of).collect()
    }

    /// Groups whose workloads of different images share what came from elsewhere. Replicas of one image, and its next version, share what
    /// is wrong in its prediction.
    fn campaigns(&self) -> BTreeSet<usize> {
        let shared = self.seen_in.iter().filter(|(_, places)| {
            let workloads: BTreeSet<&String> = places.iter().map(|(workload, _)| workload).collect();
            let images: BTreeSet<&String> = places.iter().map(|(_, digest)| digest).collect();
            workloads.len() >= CAMPAIGN && images.len() >= 2
        });
        let spans = shared.flat_map(|(link, _)| self.spans.get(link).into_iter().flatten());
        spans.filter_map(|span| self.group(&span.alert)).collect()
    }
}

/// What the alerts of a group tell.
fn incident<'a>(
    group: &BTreeSet<(Timestamp, String)>,
    is_campaign: bool,
    find: &impl Fn(&str) -> Option<&'a Chapter>,
) -> Option<Incident> {
    let chapters: Vec<&Chapter> = group.iter().filter_map(|(_, alert)| find(alert)).collect();
    let first = chapters.first()?;
    let last_seen = chapters.iter().map(|chapter| chapter.last_seen).max()?;
    let mut stages: BTreeMap<Tactic, f64> = BTreeMap::new();
    // What no technique is known of counts, and is no stage.
    let mut other: f64 = 0.0;
    for chapter in chapters.iter().filter(|chapter| matches!(chapter.state, State::Open | State::Acknowledged)) {
        let weight = chapter.risk * decay(last_seen.duration_since(chapter.last_seen));
        let stage = match chapter.tactic {
            Some(tactic) => stages.entry(tactic).or_default(),
            None => &mut other,
        };
        *stage = stage.max(told(weight));
    }
    let calm: f64 = stages.values().chain([&other]).map(|weight| 1.0 - weight).product();
    Some(Incident {
        id: first.alert.clone(),
        risk: told(1.0 - calm),
        state: chapters.iter().map(|chapter| chapter.state).min()?,
        stages,
        root: chapters.iter().find_map(|chapter| root(chapter)),
        is_campaign,
        first_seen: first.first_seen,
        last_seen,
        workloads: chapters.iter().map(|chapter| chapter.workload.clone()).collect(),
        digests: chapters.iter().map(|chapter| chapter.digest.clone()).filter(|digest| !digest.is_empty()).collect(),
        users: chapters.iter().flat_map(|chapter| chapter.users.iter().cloned()).collect(),
        more: u64::try_from(chapters.len().saturating_sub(CHAPTERS)).unwrap_or(u64::MAX),
        chapters: chapters.into_iter().take(CHAPTERS).cloned().collect(),
    })
}

fn root(chapter: &Chapter) -> Option<Root> {
    let is_known = !chapter.users.is_empty() || chapter.origin != Origin::default();
    let root = || Root { alert: chapter.alert.clone(), users: chapter.users.clone(), origin: chapter.origin.clone() };
    is_known.then(root)
}

/// The workload as people name it.
fn workload(alert: &Alert) -> String {
    let place = &alert.place;
    let name = if place.owner.is_empty() {
        [place.container.as_str(), place.image.as_str(), place.digest.as_str()]
            .into_iter()
            .find(|part| !part.is_empty())
    } else {
        Some(place.owner.as_str())
    };
    [place.cluster.as_str(), place.namespace.as_str(), name.unwrap_or_default()]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("/")
}

fn links(alert: &Alert) -> Vec<Link> {
    let cluster = &alert.place.cluster;
    let mut links = vec![Link::Workload(workload(alert))];
    links.extend(alert.users.iter().map(|user| Link::User(format!("{cluster}/{user}"))));
    match alert.class {
        // A name that says nothing is shared by strangers.
        Class::ProgramNotInImage if alert.subject.starts_with('/') => links.push(Link::Program(alert.subject.clone())),
        Class::Connect => links.extend(public_peer(&alert.subject).map(|peer| Link::Peer(peer.to_owned()))),
        _ => {}
    }
    links
}

/// The peer of a connection's subject, `tcp/192.0.2.1:443`, where it is an address out of the cluster.
fn public_peer(subject: &str) -> Option<&str> {
    let (_, peer) = subject.split_once('/')?;
    let (host, _) = peer.rsplit_once(':')?;
    let address: std::net::IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    (!crate::compare::is_private(address)).then_some(peer)
}

impl Chapter {
    /// An alert as a part of a story.
    #[must_use]
    pub fn new(alert: &Alert) -> Self {
        Self {
            alert: alert.id.clone(),
            cluster: alert.place.cluster.clone(),
            namespace: alert.place.namespace.clone(),
            state: alert.state,
            workload: workload(alert),
            digest: alert.place.digest.clone(),
            class: alert.class,
            subject: alert.subject.clone(),
            message: alert.message.clone(),
            technique: alert.technique.clone(),
            tactic: Tactic::of(&alert.technique),
            risk: told(alert.risk),
            first_seen: alert.first_seen,
            last_seen: alert.last_seen,
            count: alert.count,
            users: alert.users.clone(),
            every_hours: if alert.class == Class::Connect { rhythm(&alert.per_hour) } else { None },
            origin: origin(alert),
        }
    }
}

fn origin(alert: &Alert) -> Origin {
    let cause = alert.cause.clone().unwrap_or_default();
    let grounds = alert.grounds.as_ref();
    let commits = grounds.into_iter().flat_map(|grounds| &grounds.commits);
    let changed = grounds.and_then(|grounds| grounds.changed.as_ref()).into_iter().flat_map(|changed| &changed.bearing);
    Origin {
        layer: cause.layer,
        step: cause.step,
        package: cause.package,
        commits: commits.map(|commit| format!("{}@{}", commit.source, commit.commit)).take(SOME).collect(),
        changed: changed.map(grounds::told).take(SOME).collect(),
    }
}

/// How much a stage still weighs after some time.
fn decay(since: SignedDuration) -> f64 {
    (-since.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
}

/// The hours between calls, where they are all but the same: what a program does by the clock, not what people ask of it. Two calls in
/// a row of hours may fall into hours that are one more or one less apart.
fn rhythm(per_hour: &BTreeMap<String, u64>) -> Option<u64> {
    let hours: Vec<i64> = per_hour.keys().filter_map(|hour| hours(hour)).collect();
    if hours.len() < BEACON_HOURS {
        return None;
    }
    let mut gaps: Vec<i64> = hours.iter().zip(hours.iter().skip(1)).map(|(one, next)| next - one).collect();
    gaps.sort_unstable();
    let middle = *gaps.get(gaps.len() / 2)?;
    let (least, most) = (*gaps.first()?, *gaps.last()?);
    if most - least > 2 || most > middle + 1 || least < middle - 1 {
        return None;
    }
    // More than once an hour: by the clock it is as often every hour. The first and the last hour are cut.
    let counts: Vec<u64> = per_hour.values().copied().collect();
    let whole = counts.get(1..counts.len() - 1)?;
    let (fewest, most) = (*whole.iter().min()?, *whole.iter().max()?);
    (most - fewest <= 1 + most / 10).then(|| u64::try_from(middle).unwrap_or_default())
}

/// `2026-11-30T07` as hours since 1970.
fn hours(hour: &str) -> Option<i64> {
    let at: Timestamp = format!("{hour}:00:00Z").parse().ok()?;
    Some(at.as_second() / 3600)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
