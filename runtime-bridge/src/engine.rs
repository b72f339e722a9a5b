//! From what sensors told to what was not expected, container by container. No I/O: what it needs it asks for, what it found it gives out.
//!
//! ```text
//! Told ─► once ─► in order ─► whose? ─► expected? ─► judged ─► Found
//!                              │ parked    │ parked
//!                       Pod ◄──┘    Need ──┘
//! ```
//!
//! An event whose container is not known waits for the pod; one whose container's expectation is not at hand waits for that. Both waits are
//! bounded in time and number: then the event is judged by what its sensor said, and counted.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use dna::{Act, Activity};
use jiff::{SignedDuration, Timestamp};

use crate::{
    Class, Deviation, Expected, History,
    identity::{Container, Identity, Pod},
    judge,
    order::{Seen, Waiting},
    sensor::{Call, Loss, Told},
};

/// How late an event may come and still be judged in its order.
pub const LATENESS: SignedDuration = SignedDuration::from_secs(2);
/// How long an event waits for its pod where a cluster tells of pods: it does before the kubelet starts them, but watches break.
pub const PATIENCE: SignedDuration = SignedDuration::from_secs(30);
/// Events that wait, for whatever reason: from there on the log is read no further until some are done with.
const MOST_WAITING: usize = 50_000;
/// How long a key that was seen is known: sensors that try again do so within minutes.
const KEYS: SignedDuration = SignedDuration::from_mins(10);
/// Keys known at once, of some 100 bytes.
const MOST_KEYS: usize = 500_000;
/// Containers with a history. The one longest without an event is forgotten first.
const MOST_CONTAINERS: usize = 20_000;
/// Activities kept of a container, to show what went before.
const BEFORE: usize = 12;
/// How far the API server's clock and a node's may be apart for a command to be joined to its caller.
const JOINED: SignedDuration = SignedDuration::from_secs(10);
/// Commands kept to be joined.
const MOST_UNCALLED: usize = 1024;
/// Requests kept to be joined.
const MOST_CALLS: usize = 4096;

/// What a sensor told, with where it stands in the log.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its place in the log.
    pub offset: u64,
    /// The cluster that the sensor is of.
    pub cluster: String,
    /// What names it for good: the same event sent twice has one key.
    pub key: String,
    /// When it came.
    pub received: Timestamp,
    /// It was judged before: only the container's history learns of it.
    pub is_judged: bool,
    /// What it says.
    pub told: Told,
}

/// What comes out.
#[derive(Debug)]
#[non_exhaustive]
pub enum Out {
    /// The expectation of this container is wanted: [`Engine::expect`].
    Need(Arc<Container>),
    /// A step that was not expected.
    Found(Box<Found>),
    /// Who asked the API server for a command from outside that was found before.
    Caller {
        /// The container.
        container: Arc<Container>,
        /// The command's subject.
        subject: String,
        /// The user.
        user: String,
    },
    /// A sensor lost events.
    Blind {
        /// The cluster.
        cluster: String,
        /// What it said.
        loss: Loss,
    },
}

/// A deviation, and where it was seen.
#[derive(Debug)]
pub struct Found {
    /// The container.
    pub container: Arc<Container>,
    /// What was not expected.
    pub deviation: Deviation,
    /// The act.
    pub activity: Activity,
    /// What the container did before, the oldest first.
    pub before: Vec<Activity>,
    /// Who asked the API server for it.
    pub user: Option<String>,
}

/// What is counted, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Activities judged.
    pub judged: u64,
    /// Events that came again.
    pub repeated: u64,
    /// Events whose container is not known to the cluster.
    pub unattributed: u64,
    /// Events of containers without a DNA.
    pub without_dna: u64,
    /// Events that say nothing of a container.
    pub ignored: u64,
}

/// What is expected of a container, as far as is known.
#[derive(Debug)]
enum Knows {
    /// Asked for.
    Asked(VecDeque<Item>),
    /// Known, or known to be absent.
    Expected(Option<Arc<Expected>>),
}

#[derive(Debug)]
struct State {
    knows: Knows,
    history: History,
    before: VecDeque<Activity>,
    used: u64,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    patience: SignedDuration,
    identity: Identity,
    seen: Seen<String>,
    waiting: Waiting<Item>,
    parked: VecDeque<Item>,
    containers: HashMap<String, State>,
    /// Events that wait for an expectation.
    asked: usize,
    calls: VecDeque<(String, Call)>,
    /// Commands from outside whose caller is not known yet: the API server tells of them up to half a minute later.
    uncalled: VecDeque<(Arc<Container>, Activity, Deviation)>,
    counts: Counts,
    clock: u64,
}

impl Engine {
    /// One whose events wait so long for their pod.
    #[must_use]
    pub fn new(patience: SignedDuration) -> Self {
        Self {
            patience,
            identity: Identity::default(),
            seen: Seen::new(KEYS, MOST_KEYS),
            waiting: Waiting::new(LATENESS),
            parked: VecDeque::new(),
            containers: HashMap::new(),
            asked: 0,
            calls: VecDeque::new(),
            uncalled: VecDeque::new(),
            counts: Counts::default(),
            clock: 0,
        }
    }

    /// Takes in what a sensor told.
    pub fn take(&mut self, item: Item, out: &mut Vec<Out>) {
        if !self.seen.is_new(format!("{}/{}", item.cluster, item.key), item.received) {
            self.counts.repeated += 1;
            return;
        }
        match &item.told {
            Told::Activity(activity) => {
                if activity.container == dna::SeenContainer::default() {
                    self.counts.ignored += 1;
                    return;
                }
                let (node, at) = (activity.node.clone(), activity.at);
                self.waiting.push(node.as_deref(), at, item.received, item.key.clone(), item);
            }
            Told::Call(call) => {
                if self.calls.len() >= MOST_CALLS {
                    self.calls.pop_front();
                }
                self.calls.push_back((item.cluster, Call::clone(call)));
                self.join(out);
            }
            Told::Loss(loss) => out.push(Out::Blind { cluster: item.cluster, loss: loss.clone() }),
            Told::Nothing(_) => self.counts.ignored += 1,
        }
    }

    /// Looks for the callers of commands among the requests there are now.
    fn join(&mut self, out: &mut Vec<Out>) {
        let calls = &self.calls;
        self.uncalled.retain(|(container, activity, deviation)| {
            let Some(user) = caller(calls, container, activity, deviation) else { return true };
            let (container, subject) = (Arc::clone(container), deviation.subject.clone());
            out.push(Out::Caller { container, subject, user });
            false
        });
    }

    /// A pod, new or changed.
    pub fn pod(&mut self, pod: &Pod) {
        self.identity.pod(pod);
    }

    /// A pod that is gone.
    pub fn gone(&mut self, cluster: &str, uid: &str, now: Timestamp) {
        self.identity.gone(cluster, uid, now);
    }

    /// What is expected of a container that was asked for; none where nobody knows.
    pub fn expect(&mut self, container: &Arc<Container>, expected: Option<Arc<Expected>>, out: &mut Vec<Out>) {
        let Some(state) = self.containers.get_mut(&container.key()) else { return };
        let is_unknown = expected.is_none();
        let Knows::Asked(items) = std::mem::replace(&mut state.knows, Knows::Expected(expected)) else { return };
        self.asked -= items.len();
        if is_unknown {
            out.extend(items.iter().find_map(|item| without_dna(container, item)));
        }
        for item in items {
            self.hold(container, item, out);
        }
    }

    /// A container of which nothing was known is asked for again with its next event.
    pub fn ask_again(&mut self, key: &str) {
        if self.containers.get(key).is_some_and(|state| matches!(state.knows, Knows::Expected(None))) {
            self.containers.remove(key);
        }
    }

    /// Judges what need not wait any longer.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Out>) {
        for item in std::mem::take(&mut self.parked) {
            self.attribute(item, now, out);
        }
        for item in self.waiting.ready(now) {
            self.attribute(item, now, out);
        }
        for (cluster, uid) in self.identity.forget(now) {
            let start = format!("{cluster}/{uid}/");
            self.containers.retain(|key, state| !key.starts_with(&start) || matches!(state.knows, Knows::Asked(_)));
        }
    }

    /// Finds the container of an event, which waits for the pod as long as it may.
    fn attribute(&mut self, item: Item, now: Timestamp, out: &mut Vec<Out>) {
        let Told::Activity(activity) = &item.told else { return };
        let is_last = self.patience.is_zero() || now.duration_since(item.received) > self.patience;
        let container = match self.identity.find(&item.cluster, &activity.container) {
            Some(container) => container,
            None if is_last => {
                self.counts.unattributed += 1;
                Arc::new(Container::of_sensor(&item.cluster, &activity.container))
            }
            None => {
                self.parked.push_back(item);
                return;
            }
        };
        self.hold(&container, item, out);
    }

    /// Judges an event of a container, or has it wait for what is expected.
    fn hold(&mut self, container: &Arc<Container>, item: Item, out: &mut Vec<Out>) {
        let Told::Activity(activity) = &item.told else { return };
        self.clock += 1;
        let key = container.key();
        if !self.containers.contains_key(&key) {
            if self.containers.len() >= MOST_CONTAINERS {
                self.forget_oldest();
            }
            out.push(Out::Need(Arc::clone(container)));
        }
        let state = self.containers.entry(key).or_insert_with(|| State {
            knows: Knows::Asked(VecDeque::new()),
            history: History::default(),
            before: VecDeque::new(),
            used: 0,
        });
        state.used = self.clock;
        match &mut state.knows {
            Knows::Asked(items) => {
                items.push_back(item);
                self.asked += 1;
            }
            Knows::Expected(None) => self.counts.without_dna += 1,
            Knows::Expected(Some(expected)) => {
                let expected = Arc::clone(expected);
                let deviations = judge(&expected, &mut state.history, activity);
                if !item.is_judged {
                    self.counts.judged += 1;
                    for deviation in deviations {
                        let user = caller(&self.calls, container, activity, &deviation);
                        if user.is_none() && deviation.class == Class::CommandFromOutside {
                            if self.uncalled.len() >= MOST_UNCALLED {
                                self.uncalled.pop_front();
                            }
                            let activity = Activity::clone(activity);
                            self.uncalled.push_back((Arc::clone(container), activity, deviation.clone()));
                        }
                        out.push(Out::Found(Box::new(Found {
                            container: Arc::clone(container),
                            deviation,
                            activity: Activity::clone(activity),
                            before: state.before.iter().cloned().collect(),
                            user,
                        })));
                    }
                }
                if state.before.len() >= BEFORE {
                    state.before.pop_front();
                }
                state.before.push_back(Activity::clone(activity));
            }
        }
    }

    fn forget_oldest(&mut self) {
        let mut ages: Vec<u64> = self.containers.values().map(|state| state.used).collect();
        let tenth = ages.len() / 10;
        let (_, until, _) = ages.select_nth_unstable(tenth);
        let until = *until;
        // What still waits for an answer is not forgotten: it is not judged yet.
        let is_asked = |state: &State| matches!(&state.knows, Knows::Asked(items) if !items.is_empty());
        self.containers.retain(|_, state| state.used > until || is_asked(state));
    }

    /// Places in the log of what waits: all others that were taken are done with.
    #[must_use]
    pub fn open(&self) -> BTreeSet<u64> {
        let asked = self.containers.values().filter_map(|state| match &state.knows {
            Knows::Asked(items) => Some(items.iter()),
            Knows::Expected(_) => None,
        });
        self.waiting.items().chain(&self.parked).chain(asked.flatten()).map(|item| item.offset).collect()
    }

    /// Whether so many events wait that no further ones are to be taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.len() + self.parked.len() + self.asked >= MOST_WAITING
    }

    /// What is counted.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }
}

/// What is told of a container that cannot be compared: that it cannot.
fn without_dna(container: &Arc<Container>, item: &Item) -> Option<Out> {
    let Told::Activity(activity) = &item.told else { return None };
    if item.is_judged {
        return None;
    }
    let image = match container.place.image.as_str() {
        "" => "its image",
        image => image,
    };
    let deviation = Deviation {
        class: Class::NoDna,
        subject: image.to_owned(),
        message: format!("nobody knows what {image} is expected to do: what this container does is not compared"),
        after: None,
        layer: None,
        package: None,
        risk: 0.2,
        technique: String::new(),
        blocked: false,
    };
    let found = Found {
        container: Arc::clone(container),
        deviation,
        activity: Activity::clone(activity),
        before: Vec::new(),
        user: None,
    };
    Some(Out::Found(Box::new(found)))
}

/// Who asked the API server for a command from outside.
fn caller(
    calls: &VecDeque<(String, Call)>,
    container: &Container,
    activity: &Activity,
    deviation: &Deviation,
) -> Option<String> {
    if deviation.class != Class::CommandFromOutside || !matches!(activity.act, Act::Exec { .. }) {
        return None;
    }
    let is_near = |call: &Call| activity.at.duration_since(call.at).abs() <= JOINED;
    let is_same = |cluster: &String, call: &Call| {
        *cluster == container.place.cluster
            && call.namespace == container.place.namespace
            && call.pod == container.pod
            && call.container.as_ref().is_none_or(|name| *name == container.place.container)
            && call.allowed
    };
    let mut near = calls.iter().rev().filter(|(cluster, call)| is_near(call) && is_same(cluster, call));
    let exact = near.clone().find(|(_, call)| call.command == activity.process.argv);
    let (_, call) = exact.or_else(|| near.next())?;
    Some(call.impersonated.as_ref().map_or_else(|| call.user.clone(), |other| format!("{} as {other}", call.user)))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
