//! What the loop knows of containers beside what the engine judges by: which image each is of, and where its files come from.
//!
//! Whether a container's image is the admitted one may be known later than its first event: the kubelet tells what it pulled after the
//! container started, and the webhook what a digest stands for when it has looked. So it is asked for again, less and less often.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use dna::Digest;
use policies::runtime::Verdict;
use tokio::time::Instant;

use crate::{
    Expected, Wanted,
    alert::{Cause, Place},
    bound::Bound,
    engine::Found,
    identity::Container,
    shelf::{Imaged, Shelved},
    usage::Compared,
};

/// Containers of which something is known: twice as many as the engine has a history of. Those that are gone are forgotten first.
const MOST: usize = 20_000;
/// Containers that are asked for again in one turn.
const MOST_DUE: usize = 64;
/// When it is asked first, and how seldom at last.
const FIRST: Duration = Duration::from_secs(60);
const SELDOM: Duration = Duration::from_secs(3600);
/// How long a container that is gone is known: its last events come late.
const KEPT: Duration = Duration::from_secs(3600);

/// What is known of containers, by [`Container::key`].
#[derive(Debug, Default)]
pub struct Known {
    held: HashMap<String, Held>,
}

#[derive(Debug)]
struct Held {
    container: Arc<Container>,
    imaged: Imaged,
    origin: Option<Origin>,
    due: Option<Instant>,
    wait: Duration,
    gone: Option<Instant>,
}

/// The DNA that a container is compared with.
#[derive(Debug)]
struct Origin {
    expected: Arc<Expected>,
    dna: Digest,
    expectation: Option<Digest>,
    steps: Arc<[Option<String>]>,
}

/// What is known of a container at the time of a deviation.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Where the file that acts comes from.
    pub cause: Option<Cause>,
    /// The DNA that it was compared with.
    pub dna: Option<Digest>,
    /// What the webhook bound it to.
    pub expectation: Option<Digest>,
    /// Why it is not known whether its image is the admitted one.
    pub image_unknown: Option<String>,
    /// What rules say of the deviation.
    pub verdict: Verdict,
}

impl Known {
    /// What a container is compared with.
    #[must_use]
    pub fn compared(&self, container: &Container) -> Option<Compared> {
        let origin = self.held.get(&container.key())?.origin.as_ref()?;
        Some(Compared { dna: origin.dna.clone(), expectation: origin.expectation.clone() })
    }

    /// Takes what was found of a container. Returns whether it is new that another image runs than was admitted.
    pub fn put(&mut self, container: &Arc<Container>, imaged: Imaged, shelved: Option<&Shelved>, now: Instant) -> bool {
        if self.held.len() >= MOST {
            self.held.retain(|_, held| held.gone.is_none());
        }
        if self.held.len() >= MOST {
            self.held.clear();
        }
        let before = self.held.remove(&container.key());
        let is_other = matches!(imaged.bound, Bound::Other { .. });
        let is_new = is_other && before.as_ref().is_none_or(|before| before.imaged.bound != imaged.bound);
        let is_open = matches!(imaged.bound, Bound::Unknown(_) | Bound::Unbound);
        let wait = before.as_ref().map_or(FIRST, |before| (before.wait * 2).min(SELDOM));
        let gone = before.as_ref().and_then(|before| before.gone);
        let origin = shelved.map(|shelved| Origin {
            expected: Arc::clone(&shelved.expected),
            dna: shelved.dna.clone(),
            expectation: shelved.expectation.clone(),
            steps: Arc::clone(&shelved.steps),
        });
        let origin = origin.or_else(|| before.and_then(|before| before.origin));
        let due = is_open.then(|| now + wait);
        self.held.insert(container.key(), Held { container: Arc::clone(container), imaged, origin, due, wait, gone });
        is_new
    }

    /// Whether a container, as the cluster tells of it now, is of another digest than it was known by: it is to be asked for again.
    #[must_use]
    pub fn is_renamed(&self, container: &Container) -> bool {
        let held = self.held.get(&container.key());
        held.is_some_and(|held| held.container.place.digest != container.place.digest)
    }

    /// Containers that are to be asked for again now.
    pub fn due(&mut self, now: Instant) -> Vec<Arc<Container>> {
        self.held.retain(|_, held| held.gone.is_none_or(|gone| now.duration_since(gone) < KEPT));
        let is_due = |held: &&mut Held| held.gone.is_none() && held.due.is_some_and(|due| due <= now);
        let due = self.held.values_mut().filter(is_due).take(MOST_DUE);
        due.map(|held| {
            // Where nobody answers.
            held.due = Some(now + held.wait);
            Arc::clone(&held.container)
        })
        .collect()
    }

    /// Where there are many, forgets those that nothing else is known of any more.
    pub fn forget(&mut self, is_known: impl Fn(&str) -> bool) {
        if self.held.len() > MOST / 2 {
            self.held.retain(|key, _| is_known(key));
        }
    }

    /// A pod is gone.
    pub fn gone(&mut self, cluster: &str, pod_uid: &str, now: Instant) {
        let of_pod = |held: &&mut Held| held.container.pod_uid == pod_uid && held.container.place.cluster == cluster;
        self.held.values_mut().filter(of_pod).for_each(|held| held.gone = Some(now));
    }

    /// The images of containers that run, and what pods call them.
    #[must_use]
    pub fn images(&self) -> BTreeMap<Digest, String> {
        let live = self.held.values().filter(|held| held.gone.is_none());
        live.filter_map(|held| Some((held.imaged.image.clone()?, held.container.place.image.clone()))).collect()
    }

    /// Where something was found, the image by the digest that is the same for all its names.
    #[must_use]
    pub fn place(&self, container: &Container) -> Place {
        let mut place = container.place.clone();
        if let Some(image) = self.held.get(&container.key()).and_then(|held| held.imaged.image.as_ref()) {
            place.digest = image.to_string();
        }
        place
    }

    /// What is known of the container of a deviation.
    #[must_use]
    pub fn context(&self, found: &Found) -> Context {
        let held = self.held.get(&found.container.key());
        let origin = held.and_then(|held| held.origin.as_ref());
        let (layer, package) = (found.deviation.layer, found.deviation.package.clone());
        let step = layer.and_then(|layer| origin?.steps.get(usize::try_from(layer).ok()?)?.clone());
        let image_unknown = held.and_then(|held| match &held.imaged.bound {
            Bound::Unknown(why) => Some(why.clone()),
            _ => None,
        });
        Context {
            cause: (layer.is_some() || package.is_some()).then_some(Cause { layer, step, package }),
            dna: origin.map(|origin| origin.dna.clone()),
            expectation: origin.and_then(|origin| origin.expectation.clone()),
            image_unknown,
            verdict: Verdict::default(),
        }
    }

    /// What a container is compared with, where that is known.
    #[must_use]
    pub fn expected(&self, container: &Container) -> Option<Arc<Expected>> {
        Some(Arc::clone(&self.held.get(&container.key())?.origin.as_ref()?.expected))
    }

    /// Containers of which something is not kept that rules read: one for each thing that containers are compared with.
    #[must_use]
    pub fn lacking(&self, wanted: Wanted) -> Vec<Arc<Container>> {
        let live = self.held.values().filter(|held| held.gone.is_none());
        let expected = live.filter_map(|held| Some((&held.origin.as_ref()?.expected, &held.container)));
        let lacking = expected.filter(|(expected, _)| !expected.keeps(wanted));
        let by_expected: HashMap<_, _> = lacking.map(|(expected, one)| (Arc::as_ptr(expected), one)).collect();
        by_expected.into_values().map(Arc::clone).collect()
    }

    /// How many containers run the admitted image, another one, and one of which that is not known.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, usize); 4] {
        let live = || self.held.values().filter(|held| held.gone.is_none());
        let count = |is: fn(&Bound) -> bool| live().filter(|held| is(&held.imaged.bound)).count();
        [
            ("same", count(|bound| matches!(bound, Bound::Same))),
            ("other", count(|bound| matches!(bound, Bound::Other { .. }))),
            ("unknown", count(|bound| matches!(bound, Bound::Unknown(_)))),
            ("unbound", count(|bound| matches!(bound, Bound::Unbound))),
        ]
    }
}
