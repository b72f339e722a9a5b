//! A recorded stream through the same steps as a live one, offline.
//!
//! In: items of sensors, in order, and the DNA of their images. Out: deviations with the item each is about, and what was seen of each
//! container.

pub mod stored;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use crate::{
    Deviation, Expected, History, Judged,
    alert::{self, Alert, Place},
    identity::Container as Seen,
    incident::{Chapter, Incident, Stories},
    judge_accepting,
    risk::{Model, Ranking, Whose},
    rules::{self, Ruled},
    sensor::{self, Dialect, Malformed, Told},
};
use dna::{Activity, SeenContainer};
use policies::{Rules, Watch, runtime::Verdict};

/// Finds what is expected of a container from what a sensor says of it; none where its DNA is not known.
pub type Find<'a> = dyn Fn(&SeenContainer) -> Option<Arc<Expected>> + 'a;

/// A recorded stream that is being compared.
pub struct Replay<'a> {
    find: &'a Find<'a>,
    containers: BTreeMap<String, Container>,
    alerts: BTreeMap<String, Option<Alert>>,
    rules: Arc<Rules>,
    watch: Watch,
    stories: Stories,
    ranking: Ranking,
    hasher: RandomState,
    malformed: u64,
    ignored: u64,
}

impl std::fmt::Debug for Replay<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Replay").field("containers", &self.containers.keys()).finish_non_exhaustive()
    }
}

struct Container {
    expected: Option<Arc<Expected>>,
    history: History,
    summary: Summary,
}

/// What was seen of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Its image, or whatever names it.
    pub name: String,
    /// Activities.
    pub activities: u64,
    /// Deviations by the id of their alert: class and subject, and how many.
    pub alerts: BTreeMap<String, (String, u64)>,
    /// There is no DNA for it: nothing was compared.
    pub has_no_dna: bool,
    /// Dimensions that the DNA says nothing of.
    pub unknown: Vec<&'static str>,
}

/// A deviation and the alert it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The deviation.
    pub deviation: Deviation,
    /// The id of its alert.
    pub alert: String,
    /// The name of the incident it is a part of, as far as the stream tells by now; empty where a rule ignores it.
    pub incident: String,
    /// What rules say of it.
    pub verdict: Verdict,
}

impl<'a> Replay<'a> {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(find: &'a Find<'a>) -> Self {
        Self {
            find,
            containers: BTreeMap::new(),
            alerts: BTreeMap::new(),
            rules: Arc::default(),
            watch: rules::rule_watch(),
            stories: Stories::default(),
            ranking: Ranking::default(),
            hasher: RandomState::new(),
            malformed: 0,
            ignored: 0,
        }
    }

    /// The same by these rules of run time.
    #[must_use]
    pub fn by(self, rules: Arc<Rules>) -> Self {
        Self { rules, ..self }
    }

    /// The same, which ranks by this model; by rules alone where there is none.
    #[must_use]
    pub fn ranked_by(self, model: Option<Arc<Model>>) -> Self {
        Self { ranking: Ranking::new(model), ..self }
    }

    /// Compares one item.
    ///
    /// # Errors
    /// [`Malformed`] where it is no event of that sensor; it is counted, and the stream goes on.
    pub fn push(&mut self, dialect: Dialect, item: &[u8]) -> Result<Vec<Found>, Malformed> {
        let told = sensor::decode(dialect, item).inspect_err(|_| self.malformed += 1)?;
        let Told::Activity(activity) = told else {
            self.ignored += 1;
            return Ok(Vec::new());
        };
        Ok(self.compare(&activity))
    }

    fn compare(&mut self, activity: &Activity) -> Vec<Found> {
        let seen = &activity.container;
        let key = key(seen);
        let container = self.hasher.hash_one(&key);
        let image = self.hasher.hash_one((&seen.image, &seen.digest));
        // A stream alone tells of no workload: each container is one.
        let whose = Whose { owner: container, image, container };
        let find = self.find;
        let container = self.containers.entry(key).or_insert_with(|| {
            let expected = find(seen);
            let unknown = expected.as_ref().map(|expected| expected.unknown_dimensions()).unwrap_or_default();
            let summary = Summary { name: name(seen), has_no_dna: expected.is_none(), unknown, ..Summary::default() };
            Container { expected, history: History::default(), summary }
        });
        if container.summary.activities == 0 {
            self.ranking.meet(whose, activity.at);
        }
        container.summary.activities += 1;
        let Some(expected) = &container.expected else { return Vec::new() };
        let Judged { mut deviations, scene, .. } =
            judge_accepting(expected, &mut container.history, activity, |_| false);
        self.ranking.rank(whose, &scene, &mut deviations, activity.at);
        let (place, pod) = (place(seen), seen.pod.as_deref().unwrap_or_default());
        let mut found = Vec::with_capacity(deviations.len());
        for mut deviation in deviations {
            let where_seen = (&place, pod);
            let verdict =
                rules::rule((&self.rules, &self.watch), &mut deviation, activity, where_seen, None, Some(expected));
            let id = alert::id(&place, deviation.class, &deviation.subject);
            let what = || format!("{} {}", deviation.class.name(), deviation.subject);
            container.summary.alerts.entry(id.clone()).or_insert_with(|| (what(), 0)).1 += 1;
            let alert = self.alerts.entry(id.clone()).or_default();
            alert::collate(alert, &place, pod, &deviation, activity, std::iter::empty());
            if let Some(alert) = alert {
                alert.ruled.merge(Ruled::new(&verdict, activity.at));
            }
            // What is ignored is a part of no story.
            let told = alert.as_ref().filter(|_| verdict.ignored.is_none());
            let incident = told.map(|alert| self.stories.take(alert)).unwrap_or_default();
            found.push(Found { deviation, alert: id, incident, verdict });
        }
        found
    }

    /// What the alerts tell together, the likeliest first.
    #[must_use]
    pub fn incidents(&self) -> Vec<Incident> {
        let alerts = self.alerts.iter().filter_map(|(id, alert)| Some((id.as_str(), Chapter::new(alert.as_ref()?))));
        let chapters: BTreeMap<&str, Chapter> = alerts.collect();
        self.stories.incidents(|id| chapters.get(id))
    }

    /// An alert, as far as the stream tells by now.
    #[must_use]
    pub fn alert(&self, id: &str) -> Option<&Alert> {
        self.alerts.get(id)?.as_ref()
    }

    /// What was seen, container by container.
    pub fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.containers.values().map(|container| &container.summary)
    }

    /// Items that were no events, and events that bear on no container.
    #[must_use]
    pub const fn left_out(&self) -> (u64, u64) {
        (self.malformed, self.ignored)
    }
}

fn key(seen: &SeenContainer) -> String {
    // The first 12 digits are what every sensor has of an id.
    let id = seen.id.as_deref().and_then(|id| id.get(..12));
    match id {
        Some(id) => id.to_owned(),
        None => format!("{seen:?}"),
    }
}

fn name(seen: &SeenContainer) -> String {
    let pod = seen.namespace.as_deref().zip(seen.pod.as_deref()).map(|(namespace, pod)| format!("{namespace}/{pod}"));
    let parts = [pod, seen.name.clone(), seen.image.clone()];
    let named: Vec<String> = parts.into_iter().flatten().collect();
    if named.is_empty() { format!("container {}", key(seen)) } else { named.join(" ") }
}

/// Where it was seen, as far as a stream alone tells: a pod's name says nothing of its workload.
fn place(seen: &SeenContainer) -> Place {
    Place { owner: String::new(), ..Seen::of_sensor("", seen).place }
}
