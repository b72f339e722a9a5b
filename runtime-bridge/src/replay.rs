//! A recorded stream through the same steps as a live one, offline.
//!
//! In: items of sensors, in order, and the DNA of their images. Out: deviations with the item each is about, and what was seen of each
//! container.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Deviation, Expected, History,
    alert::{self, Place},
    identity::Container as Seen,
    judge,
    sensor::{self, Dialect, Malformed, Told},
};
use dna::{Activity, SeenContainer};

/// Finds what is expected of a container from what a sensor says of it; none where its DNA is not known.
pub type Find<'a> = dyn Fn(&SeenContainer) -> Option<Arc<Expected>> + 'a;

/// A recorded stream that is being compared.
pub struct Replay<'a> {
    find: &'a Find<'a>,
    containers: BTreeMap<String, Container>,
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
}

impl<'a> Replay<'a> {
    /// Nothing seen yet.
    #[must_use]
    pub const fn new(find: &'a Find<'a>) -> Self {
        Self { find, containers: BTreeMap::new(), malformed: 0, ignored: 0 }
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
        let find = self.find;
        let container = self.containers.entry(key).or_insert_with(|| {
            let expected = find(seen);
            let unknown = expected.as_ref().map(|expected| expected.unknown_dimensions()).unwrap_or_default();
            let summary = Summary { name: name(seen), has_no_dna: expected.is_none(), unknown, ..Summary::default() };
            Container { expected, history: History::default(), summary }
        });
        container.summary.activities += 1;
        let Some(expected) = &container.expected else { return Vec::new() };
        let deviations = judge(expected, &mut container.history, activity);
        deviations
            .into_iter()
            .map(|deviation| {
                let alert = alert::id(&place(seen), deviation.class, &deviation.subject);
                let what = || format!("{} {}", deviation.class.name(), deviation.subject);
                container.summary.alerts.entry(alert.clone()).or_insert_with(|| (what(), 0)).1 += 1;
                Found { deviation, alert }
            })
            .collect()
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
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Where it was seen, as far as a stream alone tells: a pod's name says nothing of its workload.
fn place(seen: &SeenContainer) -> Place {
    Place { owner: String::new(), ..Seen::of_sensor("", seen).place }
}
