//! From what sensors told to what was not expected, container by container. No I/O: what it needs it asks for, what it found it gives out.
//!
//! ```text
//! Told ─► once ─► in order ─► whose? ─► expected? ─► judged ─► Found
//!                              │ parked    │ parked
//!                       Pod ◄──┘    Need ──┘
//! ```
//!
//! An event whose container is not known waits for the pod; one whose container's expectation is not at hand waits for that. Both waits are
//! bounded in time: then the event is judged by what its sensor said, and counted. They are bounded in number too, by container and kind of
//! act ([`crate::holding`]): what was dropped is told.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use dna::{Act, Activity, SeenContainer};
use jiff::{SignedDuration, Timestamp};

use crate::{
    Class, Deviation, Expected, History, Judged,
    history::Command,
    holding::{Dropped, Drops, Few, Holding, kind},
    identity::{Container, Identity, Pod, short},
    judge_accepting,
    order::{Seen, Share, Shares, Waiting},
    overlays::Overlays,
    risk::{Model, Ranking, Whose},
    sensor::{Call, Key, Loss, Told, starts_programs},
    used::{Used, Uses},
};

/// How late an event may come and still be judged in its order.
pub const LATENESS: SignedDuration = SignedDuration::from_secs(2);
/// How long an event waits for its pod where a cluster tells of pods: it does before the kubelet starts them, but watches break.
pub const PATIENCE: SignedDuration = SignedDuration::from_secs(30);
/// Events that wait for earlier ones; of further ones, those of who has the most wait no longer.
const MOST_WAITING: usize = 20_000;
/// Events that wait for a pod or an expectation; of further ones, the latest of who has the most are dropped.
const MOST_HELD: usize = 50_000;
/// How long a key that was seen is known: sensors that try again do so within minutes.
const KEYS: SignedDuration = SignedDuration::from_mins(10);
/// Keys known at once, of some 100 bytes.
const MOST_KEYS: usize = 500_000;
/// Containers with a history. Of the workload that has most of them, those longest without an event are forgotten first.
const MOST_CONTAINERS: usize = 10_000;
/// A container that is first heard of so long after it was started was started before anybody listened: its start is an event too.
const STARTED: SignedDuration = SignedDuration::from_secs(10);
/// Activities kept of a container, to show what went before.
const BEFORE: usize = 12;
/// How far the API server's clock and a node's may be apart for a command to be joined to its caller.
const JOINED: SignedDuration = SignedDuration::from_secs(10);
/// What came of commands, kept to be joined.
const MOST_UNCALLED: usize = 1024;
/// Requests kept to be joined.
const MOST_CALLS: usize = 4096;

/// What a sensor told, with where it stands in the log.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its place in the log.
    pub offset: u64,
    /// The cluster that the sensor is of.
    pub cluster: Arc<str>,
    /// What names it for good: the same event sent twice has one key.
    pub key: Key,
    /// When it came, by a clock that is never put back.
    pub received: Timestamp,
    /// It was judged before: only the container's history learns of it.
    pub is_judged: bool,
    /// It was kept before this engine began: of what it is about, earlier events may be removed already.
    pub is_old: bool,
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
    /// A container did something for the first time.
    Used {
        /// The container.
        container: Arc<Container>,
        /// What.
        used: Used,
        /// When.
        at: Timestamp,
    },
    /// Who asked the API server for the command from outside that something found before came of.
    Caller {
        /// The container.
        container: Arc<Container>,
        /// What was found: its class.
        class: Class,
        /// And its subject.
        subject: String,
        /// The user.
        user: String,
    },
    /// Events of a container were not compared: more came than could be kept until it was known.
    Dropped {
        /// The container.
        container: Arc<Container>,
        /// What sort of acts.
        kind: &'static str,
        /// How many, and when.
        dropped: Dropped,
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
    pub activity: Arc<Activity>,
    /// What the container did before, the oldest first.
    pub before: Vec<Arc<Activity>>,
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
    /// Events that did not wait as long as they should have, since their container had too many.
    pub hurried: u64,
    /// Events that were dropped, since their container had too many before it was known.
    pub dropped: u64,
}

/// What is expected of a container, as far as is known.
#[derive(Debug)]
enum Knows {
    /// Asked for; what waits for it is held.
    Asked,
    /// Known, or known to be absent.
    Expected(Option<Arc<Expected>>),
}

#[derive(Debug)]
struct State {
    knows: Knows,
    /// Its workload, as a number.
    workload: Share,
    history: History,
    uses: Uses,
    before: VecDeque<Arc<Activity>>,
    /// What is to be told of the container with its next event.
    pending: Option<Deviation>,
    /// The digest of its image, where it is known by another than the sensor's.
    image: Option<String>,
    /// The ranking knows of it.
    is_met: bool,
    used: u64,
}

impl State {
    fn keep(&mut self, activity: Arc<Activity>) {
        if self.before.len() >= BEFORE {
            self.before.pop_front();
        }
        self.before.push_back(activity);
    }
}

/// Somebody asked the API server for a command.
#[derive(Debug)]
struct Request {
    cluster: Arc<str>,
    call: Call,
    is_judged: bool,
}

/// Something found that came of a command from outside.
#[derive(Debug, PartialEq)]
struct Uncalled {
    container: Arc<Container>,
    command: Arc<Command>,
    class: Class,
    subject: String,
    /// It stands in the ledger, with the caller where that was told then.
    is_judged: bool,
}

impl Uncalled {
    fn called_by(&self, user: String) -> Out {
        let (container, subject) = (Arc::clone(&self.container), self.subject.clone());
        Out::Caller { container, class: self.class, subject, user }
    }
}

/// A container by what its sensor calls it.
#[derive(Debug)]
struct Named {
    cluster: Arc<str>,
    seen: SeenContainer,
    container: Arc<Container>,
    key: Arc<str>,
    is_of_pod: bool,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    patience: SignedDuration,
    overlays: Arc<Overlays>,
    ranking: Ranking,
    identity: Identity,
    hasher: RandomState,
    seen: Seen<u128>,
    waiting: Waiting<Item>,
    /// What waits for a pod, or for what is expected.
    holding: Holding<Item>,
    /// Those of whom something waits for a pod.
    parked: HashSet<Share>,
    named: Shares<Named>,
    containers: HashMap<Arc<str>, State>,
    /// Requests by pod.
    calls: Few<Request>,
    /// What came of commands from outside whose caller is not known yet, by pod: the API server tells of them up to half a minute later.
    uncalled: Few<Uncalled>,
    counts: Counts,
    clock: u64,
}

impl Engine {
    /// One whose events wait so long for their pod.
    #[must_use]
    pub fn new(patience: SignedDuration) -> Self {
        Self {
            patience,
            overlays: Arc::default(),
            ranking: Ranking::default(),
            identity: Identity::default(),
            hasher: RandomState::new(),
            seen: Seen::new(KEYS, MOST_KEYS),
            waiting: Waiting::new(LATENESS, MOST_WAITING),
            holding: Holding::new(MOST_HELD),
            parked: HashSet::new(),
            named: Shares::default(),
            containers: HashMap::new(),
            calls: Few::new(MOST_CALLS),
            uncalled: Few::new(MOST_UNCALLED),
            counts: Counts::default(),
            clock: 0,
        }
    }

    /// The same, which ranks by this model; by rules alone where there is none.
    #[must_use]
    pub fn ranked_by(self, model: Option<Arc<Model>>) -> Self {
        Self { ranking: Ranking::new(model), ..self }
    }

    /// Takes in what a sensor told.
    pub fn take(&mut self, item: Item, out: &mut Vec<Out>) {
        let share = match &item.told {
            Told::Activity(activity) => self.share(&item.cluster, &activity.container),
            Told::Call(call) => self.pod_share(&item.cluster, &call.namespace, &call.pod),
            Told::Loss(_) | Told::Nothing(_) => self.hasher.hash_one(&item.cluster),
        };
        // Half of it is the cluster's too: one number takes half the room of two.
        let key = item.key.number() ^ u128::from(self.hasher.hash_one(&item.cluster));
        if !self.seen.is_new(share, key, item.received) {
            self.counts.repeated += 1;
            return;
        }
        match &item.told {
            Told::Activity(activity) => {
                if activity.container == SeenContainer::default() {
                    self.counts.ignored += 1;
                    return;
                }
                let (at, received) = (activity.at, item.received);
                let node = activity.node.clone();
                for early in self.waiting.push(share, node.as_deref(), at, received, item.key.number(), item) {
                    self.counts.hurried += 1;
                    self.attribute(early, received, out);
                }
            }
            Told::Call(call) => {
                let (cluster, is_judged) = (item.cluster, item.is_judged);
                self.calls.push(share, Request { cluster, call: Call::clone(call), is_judged });
                self.join(share, out);
            }
            Told::Loss(loss) => out.push(Out::Blind { cluster: item.cluster.to_string(), loss: loss.clone() }),
            Told::Nothing(_) => self.counts.ignored += 1,
        }
    }

    /// Whom an event is of, as far as its sensor says.
    fn share(&self, cluster: &str, seen: &SeenContainer) -> Share {
        match &seen.id {
            Some(id) => self.hasher.hash_one((cluster, short(id))),
            None => self.hasher.hash_one((cluster, &seen.pod_uid, &seen.namespace, &seen.pod, &seen.name)),
        }
    }

    fn pod_share(&self, cluster: &str, namespace: &str, pod: &str) -> Share {
        self.hasher.hash_one((cluster, namespace, pod))
    }

    /// Looks for the callers of a pod's commands among the requests there are now.
    fn join(&mut self, share: Share, out: &mut Vec<Out>) {
        let calls = &self.calls;
        self.uncalled.retain(share, |uncalled| {
            let Some((user, is_known)) = caller(calls.of(share), &uncalled.container, &uncalled.command) else {
                return true;
            };
            if !(is_known && uncalled.is_judged) {
                out.push(uncalled.called_by(user));
            }
            false
        });
    }

    /// A pod, new or changed.
    pub fn pod(&mut self, pod: &Pod) {
        if self.identity.pod(pod) {
            self.named.clear();
        }
    }

    /// A pod that is gone.
    pub fn gone(&mut self, cluster: &str, uid: &str, now: Timestamp) {
        self.identity.gone(cluster, uid, now);
    }

    /// What is expected of a container that was asked for; none where nobody knows.
    pub fn expect(&mut self, container: &Arc<Container>, expected: Option<Arc<Expected>>, out: &mut Vec<Out>) {
        let key: Arc<str> = container.key().into();
        let Some(state) = self.containers.get_mut(&key) else { return };
        if !matches!(state.knows, Knows::Asked) {
            return;
        }
        let is_unknown = expected.is_none();
        state.knows = Knows::Expected(expected);
        let held = self.holding.take(self.hasher.hash_one(&*key));
        if is_unknown {
            out.extend(held.items.iter().find_map(|(_, item)| without_dna(container, item)));
        } else {
            tell_dropped(container, held.dropped, out);
        }
        for (_, item) in held.items {
            self.hold(container, &key, item, out);
        }
    }

    /// Something about a container as a whole: told with its last event, or with its next one.
    pub fn tell(&mut self, container: &Arc<Container>, deviation: Deviation, out: &mut Vec<Out>) {
        let Some(state) = self.containers.get_mut(&*container.key()) else { return };
        let Some(activity) = state.before.back().cloned() else {
            state.pending = Some(deviation);
            return;
        };
        let before = state.before.iter().take(state.before.len().saturating_sub(1)).cloned().collect();
        out.push(found(container, deviation, activity, before));
    }

    /// What people accept from now on.
    pub fn accept(&mut self, overlays: Arc<Overlays>) {
        self.overlays = overlays;
    }

    /// The digest of a container's image, by which it is accepted what it does.
    pub fn image(&mut self, container: &Container, digest: String) {
        if let Some(state) = self.containers.get_mut(&*container.key()) {
            state.image = Some(digest);
        }
    }

    /// A container of a pod, as the cluster tells of it now.
    #[must_use]
    pub fn container(&self, cluster: &str, pod_uid: &str, name: &str) -> Option<Arc<Container>> {
        self.identity.container(cluster, pod_uid, name)
    }

    /// A container of which nothing was known is asked for again with its next event.
    pub fn ask_again(&mut self, key: &str) {
        if self.containers.get(key).is_some_and(|state| matches!(state.knows, Knows::Expected(None))) {
            self.containers.remove(key);
        }
    }

    /// Whether anything is kept of a container.
    #[must_use]
    pub fn knows(&self, key: &str) -> bool {
        self.containers.contains_key(key)
    }

    /// Judges what need not wait any longer.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Out>) {
        self.look_for_pods(now, out);
        for item in self.waiting.ready(now) {
            self.attribute(item, now, out);
        }
        let forgotten = self.identity.forget(now);
        if !forgotten.is_empty() {
            let gone: HashSet<String> = forgotten.iter().map(|(cluster, uid)| format!("{cluster}/{uid}")).collect();
            // Behind the pod are the container's name and id.
            let is_gone = |key: &str| key.rsplitn(3, '/').nth(2).is_some_and(|pod| gone.contains(pod));
            self.containers.retain(|key, state| !is_gone(key) || matches!(state.knows, Knows::Asked));
            self.named.clear();
        }
    }

    /// Goes on with what waited for its pod, where the pod is known now or was waited for long enough.
    fn look_for_pods(&mut self, now: Timestamp, out: &mut Vec<Out>) {
        let is_due = |item: &Item| match &item.told {
            Told::Activity(activity) => {
                self.is_last(item, now) || self.identity.find(&item.cluster, &activity.container).is_some()
            }
            _ => true,
        };
        let due = |share: &Share| self.holding.first(*share).is_none_or(is_due);
        let due: Vec<Share> = self.parked.iter().copied().filter(due).collect();
        for share in due {
            self.parked.remove(&share);
            let mut held = self.holding.take(share);
            let dropped = std::mem::take(&mut held.dropped);
            let of = held.items.front().and_then(|(_, item)| self.whose(share, item, now));
            match of {
                Some((container, key, _)) => self.note_dropped(&container, &key, dropped, out),
                None => self.holding.note(share, dropped),
            }
            for (_, item) in held.items {
                self.attribute(item, now, out);
            }
        }
    }

    fn is_last(&self, item: &Item, now: Timestamp) -> bool {
        self.patience.is_zero() || now.duration_since(item.received) > self.patience
    }

    /// What was dropped of a container is told when it is known what is expected of it: else nothing would have been compared.
    fn note_dropped(&mut self, container: &Arc<Container>, key: &Arc<str>, dropped: Drops, out: &mut Vec<Out>) {
        match self.containers.get(key).map(|state| &state.knows) {
            Some(Knows::Expected(Some(_))) => tell_dropped(container, dropped, out),
            Some(Knows::Expected(None)) => {}
            Some(Knows::Asked) | None => self.holding.note(self.hasher.hash_one(&**key), dropped),
        }
    }

    /// The container of an event, its key, and whether a pod of the cluster has it; none where the pod is still waited for.
    fn whose(&mut self, share: Share, item: &Item, now: Timestamp) -> Option<(Arc<Container>, Arc<str>, bool)> {
        let Told::Activity(activity) = &item.told else { return None };
        let seen = &activity.container;
        if let Some(named) = self.named.get(&share)
            && named.seen == *seen
            && named.cluster == item.cluster
        {
            return Some((Arc::clone(&named.container), Arc::clone(&named.key), named.is_of_pod));
        }
        let found = self.identity.find(&item.cluster, seen);
        let is_of_pod = found.is_some();
        let container = match found {
            Some(container) => container,
            None if self.is_last(item, now) => Arc::new(Container::of_sensor(&item.cluster, seen)),
            None => return None,
        };
        let key: Arc<str> = container.key().into();
        // What waited in vain is not taken for settled: the pod may come yet.
        if is_of_pod || self.patience.is_zero() {
            if self.named.len() >= 2 * MOST_CONTAINERS {
                self.named.clear();
            }
            let (cluster, seen) = (Arc::clone(&item.cluster), seen.clone());
            let named = Named { cluster, seen, container: Arc::clone(&container), key: Arc::clone(&key), is_of_pod };
            self.named.insert(share, named);
        }
        Some((container, key, is_of_pod))
    }

    /// Finds the container of an event, which waits for the pod as long as it may.
    fn attribute(&mut self, item: Item, now: Timestamp, out: &mut Vec<Out>) {
        let Told::Activity(activity) = &item.told else { return };
        let share = self.share(&item.cluster, &activity.container);
        // Behind those that wait already.
        let whose = if self.parked.contains(&share) { None } else { self.whose(share, &item, now) };
        match whose {
            Some((container, key, is_of_pod)) => {
                self.counts.unattributed += u64::from(!is_of_pod);
                self.hold(&container, &key, item, out);
            }
            None => {
                self.parked.insert(share);
                let kind = kind(&activity.act);
                self.counts.dropped += self.holding.push(share, kind, item, at) as u64;
            }
        }
    }

    /// Judges an event of a container, or has it wait for what is expected.
    fn hold(&mut self, container: &Arc<Container>, key: &Arc<str>, item: Item, out: &mut Vec<Out>) {
        let is_judged = item.is_judged;
        let Told::Activity(activity) = &item.told else { return };
        self.clock += 1;
        if !self.containers.contains_key(key) {
            if self.containers.len() >= MOST_CONTAINERS {
                self.forget_oldest();
            }
            out.push(Out::Need(Arc::clone(container)));
            let place = &container.place;
            let state = State {
                knows: Knows::Asked,
                workload: self.hasher.hash_one((&place.cluster, &place.namespace, &place.owner)),
                history: match container.started {
                    Some(started) if activity.at.duration_since(started) > STARTED => History::of_running(),
                    None if item.is_old && !is_start(activity) => History::of_running(),
                    _ => History::default(),
                },
                uses: Uses::default(),
                before: VecDeque::new(),
                pending: None,
                image: None,
                is_met: false,
                used: 0,
            };
            self.containers.insert(Arc::clone(key), state);
        }
        let Some(state) = self.containers.get_mut(key) else { return };
        state.used = self.clock;
        let expected = match &state.knows {
            Knows::Asked => {
                let (share, kind) = (self.hasher.hash_one(&**key), kind(&activity.act));
                self.counts.dropped += self.holding.push(share, kind, item, at) as u64;
                return;
            }
            Knows::Expected(expected) => expected.clone(),
        };
        let Told::Activity(activity) = item.told else { return };
        if !is_judged && let Some(deviation) = state.pending.take() {
            let before = state.before.iter().cloned().collect();
            out.push(found(container, deviation, Arc::clone(&activity), before));
        }
        let Some(expected) = expected else {
            self.counts.without_dna += 1;
            state.keep(activity);
            return;
        };
        let is_first = !std::mem::replace(&mut state.is_met, true);
        let image = state.image.as_deref().unwrap_or(&container.place.digest);
        let overlays = &self.overlays;
        let is_accepted = |deviation: &Deviation| overlays.accept(image, &container.place, deviation, activity.at);
        let Judged { mut deviations, node, scene } =
            judge_accepting(&expected, &mut state.history, &activity, is_accepted);
        // Also of what was judged before: what was seen then is known by the ledger, and nothing is told twice there.
        if deviations.is_empty()
            && activity.outcome.is_done()
            && let Some(used) = state.uses.take(&expected, &activity, node)
            && !is_judged
        {
            out.push(Out::Used { container: Arc::clone(container), used, at: activity.at });
        }
        // Nearly all events are neither.
        if is_first || !deviations.is_empty() {
            let whose = Whose {
                owner: state.workload,
                image: self.hasher.hash_one((image, &container.place.image)),
                container: self.hasher.hash_one(&**key),
            };
            if is_first {
                self.ranking.meet(whose, activity.at);
            }
            self.ranking.rank(whose, &scene, &mut deviations, activity.at);
        }
        self.counts.judged += u64::from(!is_judged);
        if deviations.is_empty() {
            return state.keep(activity);
        }
        let before: Vec<_> = state.before.iter().cloned().collect();
        let command = state.history.command(&activity.process);
        state.keep(Arc::clone(&activity));
        self.give(container, command.as_ref(), (&activity, is_judged), &before, deviations, out);
    }

    /// Gives out what an act was not expected to be, with who asked for it where it came of a command from outside. Of what was judged
    /// before, only a caller who is told of since then is news.
    fn give(
        &mut self,
        container: &Arc<Container>,
        command: Option<&Arc<Command>>,
        (activity, is_judged): (&Arc<Activity>, bool),
        before: &[Arc<Activity>],
        deviations: Vec<Deviation>,
        out: &mut Vec<Out>,
    ) {
        let pod = self.pod_share(&container.place.cluster, &container.place.namespace, &container.pod);
        let called = command.and_then(|command| caller(self.calls.of(pod), container, command));
        for deviation in deviations {
            if let Some(command) = command {
                let uncalled = Uncalled {
                    container: Arc::clone(container),
                    command: Arc::clone(command),
                    class: deviation.class,
                    subject: deviation.subject.clone(),
                    is_judged,
                };
                match &called {
                    None if !self.uncalled.of(pod).any(|known| *known == uncalled) => self.uncalled.push(pod, uncalled),
                    Some((user, false)) if is_judged => out.push(uncalled.called_by(user.clone())),
                    _ => {}
                }
            }
            if !is_judged {
                out.push(Out::Found(Box::new(Found {
                    container: Arc::clone(container),
                    deviation,
                    activity: Arc::clone(activity),
                    before: before.to_vec(),
                    user: called.as_ref().map(|(user, _)| user.clone()),
                })));
            }
        }
    }

    /// Makes room for other containers: of a workload that has a good part of all, else of all.
    fn forget_oldest(&mut self) {
        let mut counts: HashMap<Share, usize> = HashMap::new();
        for state in self.containers.values() {
            *counts.entry(state.workload).or_default() += 1;
        }
        let largest = counts.into_iter().max_by_key(|(_, count)| *count);
        let (of, part) = match largest {
            Some((workload, count)) if count > MOST_CONTAINERS / 10 => (Some(workload), 2),
            _ => (None, 10),
        };
        let is_of = |state: &State| of.is_none_or(|of| state.workload == of);
        let mut ages: Vec<u64> =
            self.containers.values().filter(|state| is_of(state)).map(|state| state.used).collect();
        let oldest = ages.len() / part;
        let (_, until, _) = ages.select_nth_unstable(oldest);
        let until = *until;
        // What still waits for an answer is not forgotten: it is not judged yet.
        let (holding, hasher) = (&self.holding, &self.hasher);
        let is_asked =
            |key: &str, state: &State| matches!(state.knows, Knows::Asked) && holding.has(hasher.hash_one(key));
        self.containers.retain(|key, state| !is_of(state) || state.used > until || is_asked(key, state));
    }

    /// Places in the log of what waits: all others that were taken are done with.
    #[must_use]
    pub fn open(&self) -> BTreeSet<u64> {
        self.waiting.items().chain(self.holding.items()).map(|item| item.offset).collect()
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
        drivers: Vec::new(),
        technique: String::new(),
        blocked: false,
    };
    Some(found(container, deviation, Arc::new(Activity::clone(activity)), Vec::new()))
}

fn found(container: &Arc<Container>, deviation: Deviation, activity: Arc<Activity>, before: Vec<Arc<Activity>>) -> Out {
    Out::Found(Box::new(Found { container: Arc::clone(container), deviation, activity, before, user: None }))
}

/// An item's own time.
fn at(item: &Item) -> Timestamp {
    match &item.told {
        Told::Activity(activity) => activity.at,
        _ => item.received,
    }
}

fn tell_dropped(container: &Arc<Container>, dropped: Drops, out: &mut Vec<Out>) {
    let tell = |(kind, dropped)| Out::Dropped { container: Arc::clone(container), kind, dropped };
    out.extend(dropped.into_iter().map(tell));
}

/// Who asked the API server for a command from outside, by the requests for its pod; and whether that was judged before.
fn caller<'a>(
    requests: impl DoubleEndedIterator<Item = &'a Request>,
    container: &Container,
    command: &Command,
) -> Option<(String, bool)> {
    let is_its = |Request { cluster, call, .. }: &&Request| {
        command.at.duration_since(call.at).abs() <= JOINED
            && **cluster == container.place.cluster
            && call.namespace == container.place.namespace
            && call.pod == container.pod
            && call.container.as_ref().is_none_or(|name| *name == container.place.container)
            && call.allowed
    };
    let near: Vec<_> = requests.rev().filter(is_its).collect();
    // Some sensors tell a command line without the borders of its words.
    let exact = near.iter().find(|request| request.call.command.join(" ") == command.argv.join(" "));
    let Request { call, is_judged, .. } = exact.or_else(|| near.first())?;
    let user =
        call.impersonated.as_ref().map_or_else(|| call.user.clone(), |other| format!("{} as {other}", call.user));
    Some((user, *is_judged))
}

/// Whether a container may begin with this.
fn is_start(activity: &Activity) -> bool {
    matches!(activity.act, Act::Exec { .. }) && activity.ancestors.first().is_none_or(starts_programs)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
