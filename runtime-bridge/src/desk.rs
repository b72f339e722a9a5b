//! What was found, made into alerts and written, with how far the log was judged: both or neither.
//!
//! In: [`Found`], in the order it was found, and how far the engine is. Out: rows of the ledger in one transaction. While the ledger does
//! not answer, what was found waits here, made into alerts already, so that a flood of one takes no more room than one; where there are
//! too many, the bridge reads no further, and the log goes on taking events.
//!
//! A container of a workload has its part in each class: of subjects never seen, so many an hour are alerts of their own. Further ones are one
//! alert together, which counts them. So nobody can make others' alerts be lost among his own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque, btree_map::Entry},
    hash::{BuildHasher as _, RandomState},
    mem,
    ops::Range,
    time::{Duration, Instant},
};

use dna::Activity;
use jiff::{SignedDuration, Timestamp};
use lineage::{AlertRow, BlindRow, Checkpoint, Committed, Error, Ledger, Notice};

use crate::{
    Class,
    alert::{self, Alert, Change, Place},
    engine::Found,
    explain::Explainer,
    holding::{Dropped, Few},
    known::Context,
    outbox,
    rules::{Audience, Ruled},
    sinks::{Sink, Sinks},
    stored,
    usage::{Compared, Usage},
    used::Used,
};

/// Alerts found and not yet written, at most: then nothing further is judged until they are.
pub const MOST_FOUND: usize = 5_000;
/// Subjects of one container and class that become alerts of their own within an hour.
pub const MOST_SUBJECTS: usize = 64;
/// The subject of the alert that counts all further ones.
pub const OTHERS: &str = "(others)";

/// Writes alerts.
#[derive(Debug)]
pub struct Desk {
    ledger: Ledger,
    bridge: String,
    epoch: u64,
    sinks: Sinks,
    explainer: Explainer,
    found: Parts,
    subjects: Subjects,
    /// Who asked for what an alert tells of, by the alert's id.
    callers: BTreeMap<String, BTreeSet<String>>,
    blind: BTreeMap<[String; 4], BTreeMap<Timestamp, BlindRow>>,
    /// The last of them, for alerts that fall into one.
    lately: Few<BlindRow>,
    /// Events of containers that were not compared, for alerts of the same.
    dropped: VecDeque<(Place, BlindRow)>,
    hasher: RandomState,
    usage: Usage,
    /// What may be written or not, as the ledger's answer was lost: the checkpoint, and what was found until then.
    unsure: Option<(Checkpoint, Parts)>,
}

/// What was found since the last writing: by the alert's id and, where it is told of each pod once, the pod.
type Parts = BTreeMap<(String, String), Part>;

/// An alert as far as it was found since the last writing.
#[derive(Debug)]
struct Part {
    alert: Option<Alert>,
    nodes: BTreeSet<String>,
    /// Who is told, by rules.
    audience: Audience,
    /// What was found first, to be explained.
    first: (Found, Context),
}

impl Part {
    /// Of what was found first.
    fn new(found: Found, context: Context, audience: Audience) -> Self {
        let (mut alert, mut nodes) = (None, BTreeSet::new());
        add(&mut alert, &mut nodes, &found, &context);
        Self { alert, nodes, audience, first: (found, context) }
    }

    /// Adds what was found of the same later.
    fn merge(&mut self, later: Self) {
        if let Some(alert) = later.alert {
            alert::merge(&mut self.alert, alert);
        }
        self.audience.add(later.audience);
        let room = NODES.saturating_sub(self.nodes.len());
        self.nodes.extend(later.nodes.into_iter().take(room));
    }
}

fn add(alert: &mut Option<Alert>, nodes: &mut BTreeSet<String>, found: &Found, context: &Context) {
    let container = &found.container;
    let before = found.before.iter().map(|activity| Activity::clone(activity));
    alert::collate(alert, &container.place, &container.pod, &found.deviation, &found.activity, before);
    if let Some(alert) = alert {
        alert.ruled.merge(Ruled::new(&context.verdict, found.activity.at));
        alert.users.extend(found.user.clone());
        if alert.cause.is_none() {
            alert.cause.clone_from(&context.cause);
        }
    }
    let node = found.activity.node.as_deref().unwrap_or_default();
    if nodes.len() < NODES && !nodes.contains(node) {
        nodes.insert(node.to_owned());
    }
}

/// Which subjects are alerts of their own, by container and class.
#[derive(Debug, Default)]
struct Subjects {
    hasher: RandomState,
    by_class: HashMap<u64, Known>,
}

#[derive(Debug)]
struct Known {
    since: Instant,
    /// New ones since then.
    new: usize,
    subjects: HashSet<u64>,
}

impl Subjects {
    /// Whether a subject is told apart from others.
    fn is_own(&mut self, place: &Place, class: Class, subject: &str, now: Instant) -> bool {
        if self.by_class.len() >= MOST_CLASSES {
            self.by_class.clear();
        }
        let known = self.by_class.entry(self.hasher.hash_one((place, class))).or_insert_with(|| Known {
            since: now,
            new: 0,
            subjects: HashSet::new(),
        });
        if now.duration_since(known.since) >= HOUR {
            (known.since, known.new) = (now, 0);
        }
        let subject = self.hasher.hash_one(subject);
        if known.subjects.contains(&subject) {
            return true;
        }
        if known.new >= MOST_SUBJECTS {
            return false;
        }
        known.new += 1;
        if known.subjects.len() >= MOST_KNOWN {
            known.subjects.clear();
        }
        known.subjects.insert(subject);
        true
    }
}

/// What came of writing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Alerts that were written.
    pub alerts: usize,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeskError {
    /// The ledger does not answer.
    #[error(transparent)]
    Ledger(#[from] Error),
    /// Another bridge has this one's name, or took its part over.
    #[error("another bridge judges `{bridge}`, up to {offset}: give each its own --name")]
    Overtaken {
        /// The name of the checkpoint.
        bridge: String,
        /// How far it is.
        offset: u64,
    },
    /// Others write the same alerts without end.
    #[error("the same alerts are written by others again and again")]
    Contended,
}

impl Desk {
    /// For a bridge of this name.
    #[must_use]
    pub fn new(ledger: Ledger, bridge: String, sinks: Sinks) -> Self {
        Self {
            explainer: Explainer::new(ledger.clone()),
            ledger,
            bridge,
            epoch: 0,
            sinks,
            found: BTreeMap::new(),
            subjects: Subjects::default(),
            callers: BTreeMap::new(),
            blind: BTreeMap::new(),
            lately: Few::new(LATELY),
            dropped: VecDeque::new(),
            hasher: RandomState::new(),
            usage: Usage::default(),
            unsure: None,
        }
    }

    /// The same for a part of a stream that several share, as it was taken.
    #[must_use]
    pub fn under(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    /// Learns of blind intervals that other bridges tell of, where there are others.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn learn_blind(&mut self, now: Timestamp) -> Result<(), Error> {
        if self.epoch == 0 {
            return Ok(());
        }
        let since = now - LEARNED;
        for row in self.ledger.blind(None, since, None, u32::try_from(BLIND_ROWS).unwrap_or(u32::MAX)).await? {
            self.keep_lately(row);
        }
        Ok(())
    }

    /// How far was judged, by an earlier process.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn checkpoint(&self) -> Result<Option<Checkpoint>, Error> {
        self.ledger.checkpoint(&self.bridge).await
    }

    /// Takes what was found, with what is known of its container.
    pub fn found(&mut self, mut found: Found, context: Context) {
        let place = &found.container.place;
        let deviation = &mut found.deviation;
        if !self.subjects.is_own(place, deviation.class, &deviation.subject, Instant::now()) {
            metrics::counter!("mayfly_bridge_subjects_together_total", "class" => deviation.class.name()).increment(1);
            OTHERS.clone_into(&mut deviation.subject);
            deviation.message.push_str("; others too: more than are told apart within an hour");
        }
        let id = alert::id(place, deviation.class, &deviation.subject);
        // Of a pod's image it is told once.
        let pod = if deviation.class == Class::BindingMismatch { found.container.pod.clone() } else { String::new() };
        let key = (id, pod);
        let audience = Audience::of(&context.verdict, &self.sinks);
        match self.found.get_mut(&key) {
            Some(_) if !key.1.is_empty() => {}
            Some(part) => {
                add(&mut part.alert, &mut part.nodes, &found, &context);
                part.audience.add(audience);
            }
            None => _ = self.found.insert(key, Part::new(found, context, audience)),
        }
    }

    /// Takes what was not compared of a container.
    pub fn dropped(&mut self, place: &Place, pod: &str, kind: &str, dropped: Dropped) {
        let who = format!("{}/{pod}/{}", place.namespace, place.container);
        let row = BlindRow {
            cluster: place.cluster.clone(),
            node: String::new(),
            sensor: format!("bridge, {kind} of {who}"),
            cause: "flood".to_owned(),
            from: dropped.from,
            until: dropped.until,
            count: Some(dropped.count),
            reason: format!(
                "{} events of the sort {kind} of {who} were not compared: more came than could be kept until it was known",
                dropped.count
            ),
        };
        if self.dropped.len() >= LATELY {
            self.dropped.pop_front();
        }
        self.dropped.push_back((place.clone(), row.clone()));
        self.keep_blind(row);
    }

    /// Takes that a container was met whose expectation is known.
    pub fn started(&mut self, place: &Place, compared: &Compared, at: Timestamp) {
        self.usage.started(place, compared, at);
    }

    /// Takes what a container did that is no deviation.
    pub fn used(&mut self, place: &Place, compared: &Compared, used: &Used, at: Timestamp) {
        self.usage.used(place, compared, used, at);
    }

    /// Takes who asked for the command from outside that something came of.
    pub fn caller(&mut self, place: &Place, class: Class, subject: &str, user: String) {
        let id = alert::id(place, class, subject);
        self.callers.entry(id).or_default().insert(user);
    }

    /// Takes an interval in which a sensor did not see.
    pub fn blind(&mut self, row: BlindRow) {
        self.keep_lately(row.clone());
        self.keep_blind(row);
    }

    fn keep_lately(&mut self, row: BlindRow) {
        let share = self.hasher.hash_one((&row.cluster, &row.node, &row.sensor));
        self.lately.retain(share, |known| (&known.cause, known.from) != (&row.cause, row.from));
        self.lately.push(share, row);
    }

    /// Keeps an interval to be written; of a sensor that tells of too many, the last ones are one.
    fn keep_blind(&mut self, row: BlindRow) {
        let key = [&row.cluster, &row.node, &row.sensor, &row.cause].map(String::clone);
        let rows = self.blind.entry(key).or_default();
        if rows.len() < ROWS || rows.contains_key(&row.from) {
            rows.insert(row.from, row);
        } else if let Some(mut last) = rows.last_entry() {
            let last = last.get_mut();
            last.until = last.until.max(row.until);
            last.count = last.count.zip(row.count).map(|(known, more)| known.saturating_add(more));
        }
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting() == 0 && self.callers.is_empty() && self.blind.is_empty() && self.usage.is_empty()
    }

    /// Whether the bridge is to wait before it judges on.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting() >= MOST_FOUND
    }

    fn waiting(&self) -> usize {
        self.found.len() + self.unsure.as_ref().map_or(0, |(_, found)| found.len())
    }

    /// Writes all that was found, and how far the log is judged.
    ///
    /// # Errors
    /// [`DeskError`]: nothing was written, and all of it is kept for the next time.
    pub async fn write(&mut self, offset: u64, judged: Vec<Range<u64>>, now: Timestamp) -> Result<Written, DeskError> {
        self.make_sure().await?;
        if !self.usage.is_empty() {
            // Before it counts as judged. Written twice it says the same.
            let (workloads, used) = self.usage.rows();
            self.ledger.add_used(&workloads, &used).await?;
            self.usage.written();
        }
        let checkpoint = Checkpoint { bridge: self.bridge.clone(), epoch: self.epoch, offset, judged, at: now };
        for _ in 0..TRIES {
            let (rows, notices) = self.collate(now).await?;
            let blind: Vec<BlindRow> = self.blind.values().flat_map(BTreeMap::values).cloned().collect();
            self.unsure = Some((checkpoint.clone(), mem::take(&mut self.found)));
            let committed = self.ledger.commit(&checkpoint, &rows, &blind, &notices).await?;
            let tried = self.unsure.take().map(|(_, tried)| tried).unwrap_or_default();
            match committed {
                Committed::Done(_) => {
                    self.callers.clear();
                    self.blind.clear();
                    return Ok(Written { alerts: rows.len() });
                }
                Committed::Stale(_) => self.found = tried,
                Committed::Overtaken { offset } => {
                    self.found = tried;
                    return Err(DeskError::Overtaken { bridge: self.bridge.clone(), offset });
                }
            }
        }
        Err(DeskError::Contended)
    }

    /// Where an answer of the ledger was lost, looks whether it was done: else all of it would be counted twice.
    async fn make_sure(&mut self) -> Result<(), DeskError> {
        if self.unsure.is_none() {
            return Ok(());
        }
        let known = self.checkpoint().await?;
        let Some((tried, found)) = self.unsure.take() else { return Ok(()) };
        let name = |of: &Checkpoint| (of.epoch, of.offset, of.judged.clone(), of.at.as_millisecond());
        if known.as_ref().map(name) == Some(name(&tried)) {
            return Ok(());
        }
        let later = mem::replace(&mut self.found, found);
        for (key, part) in later {
            match self.found.entry(key) {
                Entry::Vacant(place) => _ = place.insert(part),
                // It is told once of each pod.
                Entry::Occupied(place) if !place.key().1.is_empty() => {}
                Entry::Occupied(mut place) => place.get_mut().merge(part),
            }
        }
        Ok(())
    }

    /// The alerts as they are with what was found.
    async fn collate(&self, now: Timestamp) -> Result<(Vec<AlertRow>, Vec<Notice>), DeskError> {
        let ids: BTreeSet<String> = self.found.keys().map(|(id, _)| id).chain(self.callers.keys()).cloned().collect();
        let mut known: BTreeMap<String, AlertRow> =
            self.ledger.alerts_by_id(&ids, now).await?.into_iter().map(|row| (row.head.id.clone(), row)).collect();
        let (mut rows, mut notices) = (Vec::new(), Vec::new());
        for id in ids {
            let row = known.remove(&id);
            let revision = row.as_ref().map_or(0, |row| row.head.revision);
            let is_suppressed = row.as_ref().is_some_and(|row| row.head.is_suppressed && !row.head.is_ignored);
            let mut alert = match &row {
                Some(row) => Some(stored::alert(row)?),
                None => None,
            };
            let (mut change, mut audience) = (Change::Repeated, None::<Audience>);
            let parts = self.found.range((id.clone(), String::new())..).take_while(|((of, _), _)| *of == id);
            for ((_, pod), part) in parts {
                // Also after a start.
                let is_told = |alert: &Alert| !pod.is_empty() && alert.pods.contains(pod);
                let Some(found) = part.alert.clone().filter(|_| !alert.as_ref().is_some_and(is_told)) else { continue };
                let changed = alert::merge(&mut alert, found);
                audience.get_or_insert_default().add(part.audience.clone());
                if rank(changed) < rank(change) {
                    change = changed;
                }
                if let Some(alert) = &mut alert {
                    if alert.grounds.is_none() {
                        let (found, context) = &part.first;
                        alert.grounds = self.explainer.grounds(found, context).await;
                    }
                    self.mark_blind(alert, &part.nodes);
                }
            }
            let Some(mut alert) = alert else { continue };
            alert.users.extend(self.callers.get(&id).into_iter().flatten().cloned());
            if !is_suppressed {
                let has = |sink: &Sink| audience.as_ref().is_none_or(|audience| audience.has(&sink.name));
                let wants =
                    |sink: &&Sink| has(sink) && sink.wants(&alert, change, alert.told.get(&sink.name).copied(), now);
                let told: Vec<String> = self.sinks.iter().filter(wants).map(|sink| sink.name.clone()).collect();
                alert.told.extend(told.iter().map(|sink| (sink.clone(), now)));
                notices.extend(outbox::notices(&alert, change, None, told.into_iter())?);
            }
            let row = stored::row(&alert, revision)?;
            rows.push(row);
        }
        Ok((rows, notices))
    }

    /// Says on an alert what a sensor of its node could not see around it.
    fn mark_blind(&self, alert: &mut Alert, nodes: &BTreeSet<String>) {
        let touches = |row: &&BlindRow| {
            row.cluster == alert.place.cluster
                && (row.node.is_empty() || nodes.contains(&row.node))
                && row.from <= alert.last_seen
                && row.until >= alert.first_seen
        };
        let seen = |row: &BlindRow| {
            format!("{} on {} did not see from {} to {}: {}", row.sensor, row.node, row.from, row.until, row.reason)
        };
        // What was not compared may have come before or after it: it is told with whatever the same container did.
        let of_container = self.dropped.iter().filter(|(place, _)| *place == alert.place);
        let not_compared = of_container.map(|(_, row)| format!("{}, from {} to {}", row.reason, row.from, row.until));
        let all: Vec<String> = not_compared.chain(self.lately.all().filter(touches).map(seen)).collect();
        for told in all {
            if !alert.blind.contains(&told) && alert.blind.len() < BLIND {
                alert.blind.push(told);
            }
        }
    }
}

/// Which of the changes of one writing is told.
const fn rank(change: Change) -> u8 {
    match change {
        Change::New => 0,
        Change::Reopened => 1,
        Change::Escalated => 2,
        _ => 3,
    }
}

/// Blind intervals kept to be marked on alerts, and marks on one alert.
const LATELY: usize = 256;
/// Of others: how many at once, and how long after their end.
const BLIND_ROWS: usize = 100;
const LEARNED: SignedDuration = SignedDuration::from_mins(10);
const BLIND: usize = 8;
/// Blind intervals of one sensor and cause that are written at once.
const ROWS: usize = 64;
/// Nodes of one alert by which blind intervals are looked for.
const NODES: usize = 64;
/// Containers and classes whose subjects are known, of some hundred bytes, and subjects of one.
const MOST_CLASSES: usize = 50_000;
const MOST_KNOWN: usize = 1_024;
const HOUR: Duration = Duration::from_secs(3600);
/// Times that alerts are read again because people or other bridges wrote them meanwhile.
const TRIES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_one_container_take_no_room_of_another() {
        let mut subjects = Subjects::default();
        let place = |owner: &str| Place { owner: owner.to_owned(), ..Place::default() };
        let (loud, quiet, now) = (place("Deployment/loud"), place("Deployment/quiet"), Instant::now());
        let own = (0..10_000).filter(|n| subjects.is_own(&loud, Class::Write, &format!("/tmp/{n}"), now)).count();
        assert_eq!(own, MOST_SUBJECTS);
        assert!(subjects.is_own(&loud, Class::Write, "/tmp/0", now), "what is told apart stays so");
        assert!(subjects.is_own(&loud, Class::Connect, "10.0.0.1:4444", now), "another class has its own part");
        assert!(subjects.is_own(&quiet, Class::Write, "/etc/passwd", now));
        assert!(subjects.is_own(&loud, Class::Write, "/etc/passwd", now + HOUR), "an hour later there is room");
    }
}
