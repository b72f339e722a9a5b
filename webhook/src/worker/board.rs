//! What is to be done about running pods, and what was: a table in memory, no I/O. It is made anew with each election, and its
//! size is bounded by what runs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use dna::{Digest, Dna};
use jiff::{SignedDuration, Timestamp};
use policies::Decision;

use super::{
    configuration::Maps,
    running::{Named, Running, Workload},
};

/// Something to be done.
#[derive(Debug, Clone)]
pub(super) enum Job {
    /// Bind the containers of a pod.
    Cover(Named, Digest),
    /// Decide about the pods of a variant, by one of them.
    Decide(Digest, Named),
    /// Work out what somebody attests, and compare.
    Sample(Box<Sample>),
}

/// An attested DNA that was used.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) pod: Named,
    pub(super) container: String,
    /// The platform's manifest digest.
    pub(super) image: Digest,
    /// The attested DNA's digest.
    pub(super) attested: Digest,
    pub(super) document: Arc<Dna>,
    pub(super) signers: BTreeSet<String>,
}

/// What was decided of a variant.
#[derive(Debug, Clone)]
pub(super) struct Decided {
    /// By which rules.
    pub(super) book: Digest,
    pub(super) at: Timestamp,
    pub(super) workload: Workload,
    pub(super) decision: Decision,
    /// Nothing was unknown that mattered.
    pub(super) is_known: bool,
}

/// What a pass is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    /// Digest of the rules in force; none: nothing is decided yet.
    pub(super) book: Option<&'a Digest>,
    /// Bindings are kept.
    pub(super) binds: bool,
    /// What containers are configured by.
    pub(super) maps: &'a Maps,
    pub(super) time: Timestamp,
    pub(super) now: Instant,
}

/// What a pass found gone.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Pods by uid.
    pub(super) pods: Vec<String>,
    /// Workloads some of whose pods are.
    pub(super) workloads: BTreeSet<Workload>,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Board {
    running: BTreeSet<String>,
    /// By uid, what the pod looked like when it was bound.
    covered: HashMap<String, Digest>,
    variants: HashMap<Digest, Variant>,
    retries: HashMap<String, Retry>,
    /// By namespace and name the variant of each pod.
    names: BTreeMap<(String, String), Digest>,
    seen: Seen,
    covers: VecDeque<(Named, Digest)>,
    decides: VecDeque<(Digest, Named)>,
    samples: VecDeque<Sample>,
    /// What waits or is being done.
    pending: HashSet<String>,
    sampled: HashSet<(Digest, Digest)>,
}

#[derive(Debug, Default)]
struct Variant {
    decided: Option<Decided>,
    /// It is to be decided again whatever is known.
    is_asked: bool,
}

/// What a pass has seen so far.
#[derive(Debug, Default)]
struct Seen {
    running: BTreeSet<String>,
    names: BTreeMap<(String, String), Digest>,
    variants: HashSet<Digest>,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    attempts: u32,
    at: Instant,
}

impl Board {
    /// A new look at everything: what an earlier one did not finish is forgotten.
    pub(super) fn begin(&mut self) {
        self.seen = Seen::default();
    }

    /// A pod that runs.
    pub(super) fn see(&mut self, pod: &Running, scope: Scope<'_>) {
        if pod.has_ended() {
            return;
        }
        let (named, face, variant) = (pod.named(), pod.face(scope.maps), pod.variant());
        self.seen.running.insert(named.bound.clone());
        self.seen.names.insert((named.namespace.clone(), named.name.clone()), variant.clone());
        let is_due =
            |retries: &HashMap<String, Retry>, key: &str| retries.get(key).is_none_or(|retry| scope.now >= retry.at);
        if scope.binds
            && !pod.is_new(scope.time)
            && self.covered.get(&named.bound) != Some(&face)
            && is_due(&self.retries, &named.bound)
            && self.covers.len() < MAX_WAITING
            && self.pending.insert(named.bound.clone())
        {
            self.covers.push_back((named.clone(), face));
        }
        let is_first = self.seen.variants.insert(variant.clone());
        if let Some(book) = scope.book
            && is_first
            && self.variants.entry(variant.clone()).or_default().is_open(book, scope.time)
            && is_due(&self.retries, variant.as_str())
            && self.decides.len() < MAX_WAITING
            && self.pending.insert(variant.to_string())
        {
            self.decides.push_back((variant, named));
        }
    }

    /// All was seen.
    pub(super) fn end(&mut self) -> Gone {
        let Seen { running, names, variants } = std::mem::take(&mut self.seen);
        let mut gone = Gone { pods: self.running.difference(&running).cloned().collect(), ..Gone::default() };
        self.covered.retain(|uid, _| running.contains(uid));
        self.variants.retain(|variant, state| {
            let stays = variants.contains(variant);
            if !stays {
                gone.workloads.extend(state.decided.take().map(|decided| decided.workload));
            }
            stays
        });
        let known = &self.variants;
        self.retries.retain(|key, _| running.contains(key) || key.parse().is_ok_and(|key| known.contains_key(&key)));
        (self.running, self.names) = (running, names);
        gone
    }

    /// Pods that run, of the last look at all of them.
    pub(super) fn running(&self) -> &BTreeSet<String> {
        &self.running
    }

    /// The next thing to do; of two who ask, one prefers to decide, so that slow analyses do not hold up decisions.
    pub(super) fn next(&mut self, decides_first: bool) -> Option<Job> {
        let cover = |board: &mut Self| board.covers.pop_front().map(|(named, face)| Job::Cover(named, face));
        let decide = |board: &mut Self| board.decides.pop_front().map(|(variant, named)| Job::Decide(variant, named));
        let job = match decides_first {
            true => decide(self).or_else(|| cover(self)),
            false => cover(self).or_else(|| decide(self)),
        };
        job.or_else(|| self.samples.pop_front().map(|sample| Job::Sample(Box::new(sample))))
    }

    /// A pod was bound, or not.
    pub(super) fn covered(&mut self, named: &Named, face: Digest, is_covered: bool, now: Instant) {
        self.pending.remove(&named.bound);
        match is_covered {
            true => {
                self.retries.remove(&named.bound);
                self.covered.insert(named.bound.clone(), face);
            }
            false => self.retry(&named.bound, now),
        }
    }

    /// Has a pod's like decided again: what it may do is another thing now.
    pub(super) fn ask(&mut self, named: &Named) {
        let variant = self.names.get(&(named.namespace.clone(), named.name.clone()));
        if let Some(state) = variant.and_then(|variant| self.variants.get_mut(variant)) {
            state.is_asked = true;
        }
    }

    /// A variant was decided, or nobody could.
    pub(super) fn decided(&mut self, variant: &Digest, decided: Option<Decided>, now: Instant) {
        let key = variant.to_string();
        self.pending.remove(&key);
        match &decided {
            Some(decided) if decided.is_known => drop(self.retries.remove(&key)),
            _ => self.retry(&key, now),
        }
        if let (Some(decided), Some(state)) = (decided, self.variants.get_mut(variant)) {
            (state.decided, state.is_asked) = (Some(decided), false);
        }
    }

    /// What was decided of a variant.
    pub(super) fn decision(&self, variant: &Digest) -> Option<&Decided> {
        self.variants.get(variant)?.decided.as_ref()
    }

    /// What was decided of a workload's pods.
    pub(super) fn decisions(&self, workload: &Workload) -> Vec<Decision> {
        let decided = self.variants.values().filter_map(|state| state.decided.as_ref());
        decided.filter(|decided| decided.workload == *workload).map(|decided| decided.decision.clone()).collect()
    }

    /// All workloads that were decided on.
    pub(super) fn workloads(&self) -> BTreeSet<Workload> {
        self.variants.values().filter_map(|state| Some(state.decided.as_ref()?.workload.clone())).collect()
    }

    /// Whether nothing waits or is being done.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many variants were decided by these rules.
    #[cfg(test)]
    pub(super) fn decided_by(&self, book: &Digest) -> usize {
        self.variants.values().filter(|state| state.decided.as_ref().is_some_and(|it| it.book == *book)).count()
    }

    /// Whether a decision of an earlier time stands no longer: everything that runs of its object was decided since, with all
    /// facts. What was not is decided again.
    pub(super) fn settles(&mut self, namespace: &str, kind: &str, name: &str, at: Timestamp) -> bool {
        let from = (namespace.to_owned(), name.to_owned());
        let of_object =
            self.names.range(from..).take_while(|((space, pod), _)| space == namespace && pod.starts_with(name));
        // Pods have the name itself, or begin with what they are generated from: `web-` of a ReplicaSet, or of a Deployment `web`.
        let is_its = |pod: &str| {
            let rest = pod.strip_prefix(name).unwrap_or(pod);
            rest.is_empty() || name.ends_with('-') || (kind != "Pod" && rest.starts_with('-'))
        };
        let variants: BTreeSet<Digest> =
            of_object.filter(|((_, pod), _)| is_its(pod)).map(|(_, variant)| variant.clone()).collect();
        let mut settled = true;
        for variant in variants {
            let Some(state) = self.variants.get_mut(&variant) else { continue };
            if !state.decided.as_ref().is_some_and(|decided| decided.is_known && decided.at > at) {
                (settled, state.is_asked) = (false, true);
            }
        }
        settled
    }

    /// Puts an attested DNA aside to be compared, once.
    pub(super) fn sample(&mut self, sample: Sample) {
        if self.sampled.len() >= MAX_SAMPLED {
            self.sampled.clear();
        }
        if self.samples.len() < MAX_SAMPLES && self.sampled.insert((sample.image.clone(), sample.attested.clone())) {
            self.samples.push_back(sample);
        }
    }

    /// For metrics: pods that run, those of them that are bound, and what waits: pods, variants, samples.
    pub(super) fn counts(&self) -> (usize, usize, [usize; 3]) {
        let covered = self.running.iter().filter(|uid| self.covered.contains_key(*uid)).count();
        (self.running.len(), covered, [self.covers.len(), self.decides.len(), self.samples.len()])
    }

    fn retry(&mut self, key: &str, now: Instant) {
        let retry = self.retries.entry(key.to_owned()).or_insert(Retry { attempts: 0, at: now });
        let wait = FIRST_RETRY.saturating_mul(1 << retry.attempts.min(10)).min(LAST_RETRY);
        *retry = Retry { attempts: retry.attempts.saturating_add(1), at: now + wait };
    }
}

impl Variant {
    /// Whether it is to be decided by these rules.
    fn is_open(&self, book: &Digest, now: Timestamp) -> bool {
        self.is_asked
            || self.decided.as_ref().is_none_or(|decided| {
                decided.book != *book || !decided.is_known || now.duration_since(decided.at) > DECIDE_AGAIN
            })
    }
}

/// Pods or variants that wait; more are found again by the next look.
const MAX_WAITING: usize = 10_000;
/// Samples hold a DNA each.
const MAX_SAMPLES: usize = 32;
const MAX_SAMPLED: usize = 20_000;

const FIRST_RETRY: Duration = Duration::from_secs(30);
const LAST_RETRY: Duration = Duration::from_secs(3600);

/// Exceptions end, audit-only times end, further signatures come: what stands unchanged for so long is looked at again.
const DECIDE_AGAIN: SignedDuration = SignedDuration::from_hours(12);

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use policies::Verdict;
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, set: &str, phase: &str) -> Running {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": set, "controller": true});
        Running::new(json!({"metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"),
                "ownerReferences": [owner], "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "c", "image": "app:1"}]}, "status": {"phase": phase}}))
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn look(board: &mut Board, pods: &[Running], book: &str, now: Instant, second: i64) -> Gone {
        let book = Digest::sha256(book.as_bytes());
        let maps = Maps::default();
        let scope = Scope { book: Some(&book), binds: true, maps: &maps, time: time(second), now };
        board.begin();
        pods.iter().for_each(|pod| board.see(pod, scope));
        board.end()
    }

    fn decided(book: &str, second: i64, is_known: bool) -> Decided {
        let workload = Workload {
            namespace: "shop".to_owned(),
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
            uid: "d".to_owned(),
        };
        let decision = Decision {
            verdict: Verdict::Allow,
            reasons: Vec::new(),
            unknown: Vec::new(),
            exceptions: Vec::new(),
            rules: Vec::new(),
            retry_seconds: None,
        };
        Decided { book: Digest::sha256(book.as_bytes()), at: time(second), workload, decision, is_known }
    }

    /// Does everything there is to do.
    fn drain(board: &mut Board, now: Instant, decided: &Decided) -> Vec<&'static str> {
        let mut done = Vec::new();
        while let Some(job) = board.next(false) {
            match job {
                Job::Cover(named, face) => {
                    done.push("cover");
                    board.covered(&named, face, true, now);
                }
                Job::Decide(variant, _) => {
                    done.push("decide");
                    board.decided(&variant, Some(decided.clone()), now);
                }
                Job::Sample(_) => done.push("sample"),
            }
        }
        done
    }

    #[test]
    fn each_pod_is_bound_once_and_its_like_decided_once() {
        let (mut board, now) = (Board::default(), Instant::now());
        let pods = [pod("web-1-a", "web-1", "Running"), pod("web-1-b", "web-1", "Pending"), pod("x", "x", "Succeeded")];
        look(&mut board, &pods, "rules", now, 0);
        look(&mut board, &pods, "rules", now, 0);
        assert_eq!(board.counts(), (2, 0, [2, 1, 0]), "twice seen is once queued, and what ended does not run");
        assert_eq!(drain(&mut board, now, &decided("rules", 0, true)), ["cover", "cover", "decide"]);
        look(&mut board, &pods, "rules", now, 30);
        assert_eq!(board.counts(), (2, 2, [0, 0, 0]));
        // The kubelet pulled it, or a container was added: it is looked at again.
        let mut pulled = pods.clone();
        pulled[0].object["status"]["containerStatuses"] = json!([{"name": "c", "imageID": "app@sha256:0"}]);
        look(&mut board, &pulled, "rules", now, 60);
        assert_eq!(board.counts().2, [1, 1, 0]);
    }

    #[test]
    fn other_rules_time_and_unknowns_are_reasons_to_decide_again() {
        let (mut board, now) = (Board::default(), Instant::now());
        let pods = [pod("web-1-a", "web-1", "Running")];
        look(&mut board, &pods, "rules", now, 0);
        drain(&mut board, now, &decided("rules", 0, true));
        look(&mut board, &pods, "others", now, 30);
        assert_eq!(drain(&mut board, now, &decided("others", 30, false)), ["decide"]);
        // It was not known: again, but not at once.
        look(&mut board, &pods, "others", now + FIRST_RETRY / 2, 45);
        assert_eq!(drain(&mut board, now, &decided("others", 45, true)), [""; 0]);
        let later = now + FIRST_RETRY;
        look(&mut board, &pods, "others", later, 60);
        assert_eq!(drain(&mut board, later, &decided("others", 60, true)), ["decide"]);
        look(&mut board, &pods, "others", later, 3600);
        assert_eq!(drain(&mut board, later, &decided("others", 60, true)), [""; 0]);
        look(&mut board, &pods, "others", later, 13 * 3600);
        assert_eq!(drain(&mut board, later, &decided("others", 13 * 3600, true)), ["decide"]);
    }

    #[test]
    fn what_cannot_be_bound_is_tried_again_ever_more_seldom() {
        let (mut board, mut now) = (Board::default(), Instant::now());
        let pods = [pod("web-1-a", "web-1", "Running")];
        let mut waits = Vec::new();
        for _ in 0..12 {
            let from = now;
            loop {
                look(&mut board, &pods, "rules", now, 0);
                if board.covers.pop_front().is_some() {
                    break;
                }
                now += Duration::from_secs(15);
            }
            waits.push(now.duration_since(from).as_secs());
            let named = pods[0].named();
            board.covered(&named, pods[0].face(&Maps::default()), false, now);
        }
        assert_eq!(waits, [0, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]);
        assert_eq!(board.counts().1, 0);
    }

    #[test]
    fn what_is_gone_is_told_once_all_was_seen() {
        let (mut board, now) = (Board::default(), Instant::now());
        let pods = [pod("web-1-a", "web-1", "Running"), pod("web-2-a", "web-2", "Running")];
        look(&mut board, &pods, "rules", now, 0);
        drain(&mut board, now, &decided("rules", 0, true));
        // A look that was cut short says nothing.
        board.begin();
        assert_eq!(board.running().len(), 2);
        let gone = look(&mut board, &pods[..1], "rules", now, 30);
        assert_eq!(gone.pods, ["uid-web-2-a"]);
        assert_eq!(gone.workloads.len(), 1);
        assert_eq!(board.counts(), (1, 1, [0, 0, 0]));
        assert_eq!(board.decisions(&decided("rules", 0, true).workload).len(), 1);
    }

    #[test]
    fn a_decision_without_all_facts_is_settled_by_a_later_one_with_them() {
        let (mut board, now) = (Board::default(), Instant::now());
        let pods = [pod("web-1-a", "web-1", "Running"), pod("webshop-1-a", "webshop-1", "Running")];
        look(&mut board, &pods, "rules", now, 0);
        drain(&mut board, now, &decided("rules", 0, true));
        let at = time(10);
        assert!(board.settles("shop", "Deployment", "gone", at), "nothing of it runs");
        for (kind, name) in [("Deployment", "web"), ("Pod", "web-1-"), ("Pod", "web-1-a")] {
            assert!(!board.settles("shop", kind, name, at), "{kind} {name}");
        }
        look(&mut board, &pods, "rules", now, 30);
        assert_eq!(board.counts().2, [0, 1, 0], "not what only begins like it");
        drain(&mut board, now, &decided("rules", 30, true));
        assert!(board.settles("shop", "Deployment", "web", at));
        assert!(board.settles("other", "Deployment", "web", time(99)));
        assert!(board.settles("shop", "Pod", "web", time(99)), "a pod of that name is gone");
    }

    #[test]
    fn a_new_pod_is_left_to_its_own_review() {
        let (mut board, now) = (Board::default(), Instant::now());
        let mut new = pod("web-1-a", "web-1", "Pending");
        new.object["metadata"]["creationTimestamp"] = Value::String(time(0).to_string());
        look(&mut board, &[new.clone()], "rules", now, 5);
        assert_eq!(board.counts().2[0], 0);
        look(&mut board, &[new], "rules", now, 35);
        assert_eq!(board.counts().2[0], 1);
    }
}
