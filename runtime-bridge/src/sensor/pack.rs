//! Which sensor pack a node runs, as its events tell.
//!
//! What a sensor is to look for is in `deploy/sensors/`, a pack for each. No sensor tells of its configuration, so a pack carries its version in the
//! names of its rules and policies, `mayfly-1-exec`, which come with every event they raise. Events that no rule raises have none:
//! Tetragon's executions, KubeArmor's telemetry, those of gadgets and of the API server.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::{
    Dialect,
    lenient::{Nested, Text},
};

/// A sensor pack's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pack(u32);

/// The version of the packs that come with this bridge.
pub const CURRENT: Pack = Pack(1);

impl Pack {
    /// The pack that a rule or a policy of this name is of: 1 of `mayfly-1` and of `mayfly-1-exec`. Also for [`dna::Activity::rule`].
    #[must_use]
    pub fn of(rule: &str) -> Option<Self> {
        let rest = rule.strip_prefix("mayfly-")?;
        let version = rest.split_once('-').map_or(rest, |(version, _)| version);
        // `parse` takes a sign too.
        if !version.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        version.parse().ok().map(Self)
    }

    /// What to tell whoever set up the sensors, where the pack is not the one expected.
    #[must_use]
    pub fn told_of(self, node: &str) -> Option<String> {
        let advice = match self.cmp(&CURRENT) {
            Ordering::Equal => return None,
            Ordering::Less => "install the packs of deploy/sensors that came with this bridge",
            Ordering::Greater => "the bridge is older than its sensors: update it",
        };
        Some(format!("node {node} runs sensor pack {self}, this bridge expects {CURRENT}: {advice}"))
    }
}

/// The packs that a sensor's nodes run, as far as its events tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packs {
    by_node: BTreeMap<String, Run>,
    /// Activities that came before any that a pack's rule raised.
    without: u64,
}

/// The pack of a node, and when it last told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    pack: Pack,
    at: Timestamp,
}

impl Run {
    /// What a node runs after this event. Rules of two packs may stand beside each other, and events come late: the older pack is told
    /// until none of its rules was heard for a while.
    fn after(self, pack: Pack, at: Timestamp) -> Self {
        let later = at.duration_since(self.at);
        match pack.cmp(&self.pack) {
            Ordering::Equal => Self { at: at.max(self.at), ..self },
            Ordering::Less if later > -OVER => Self { pack, at },
            Ordering::Greater if later > OVER => Self { pack, at },
            Ordering::Less | Ordering::Greater => self,
        }
    }
}

impl Packs {
    /// Takes in an activity: its node, the rules or policies that raised it, and when. Whether a node's pack is another than before.
    pub fn see(&mut self, node: Option<&str>, rules: Option<&str>, at: Timestamp) -> bool {
        let Some(pack) = rules.and_then(|rules| rules.split(',').find_map(|rule| Pack::of(rule.trim()))) else {
            if !self.by_node.is_empty() || self.without >= ENOUGH {
                return false;
            }
            self.without += 1;
            return self.without == ENOUGH;
        };
        let node = node.unwrap_or("of no name");
        if let Some(run) = self.by_node.get_mut(node) {
            let before = std::mem::replace(run, run.after(pack, at));
            return run.pack != before.pack;
        }
        let is_room = self.by_node.len() < MOST_NODES;
        if is_room {
            self.by_node.insert(node.to_owned(), Run { pack, at });
        }
        is_room
    }

    /// The oldest of them.
    #[must_use]
    pub fn oldest(&self) -> Option<u32> {
        self.by_node.values().map(|run| run.pack.0).min()
    }

    /// What to tell whoever set up the sensors; nothing where all is as expected.
    #[must_use]
    pub fn warnings(&self, dialect: Dialect) -> Vec<String> {
        let others = self.by_node.iter().filter_map(|(node, run)| run.pack.told_of(node));
        // Of the other sensors most events are raised by no rule that a pack could name.
        let is_telling = matches!(dialect, Dialect::Falco | Dialect::Tetragon | Dialect::Tracee);
        let is_missing = is_telling && self.by_node.is_empty() && self.without >= ENOUGH;
        let missing = is_missing.then(|| {
            format!(
                "no rule of Mayfly's pack raised any of its events, so that it tells little: install the pack for {} of deploy/sensors",
                dialect.name()
            )
        });
        missing.into_iter().chain(others).take(MOST_WARNINGS).collect()
    }
}

/// Activities after which a sensor without a pack is taken to have none.
const ENOUGH: u64 = 1000;
/// How long an older pack is told after its last event.
const OVER: SignedDuration = SignedDuration::from_mins(10);
/// Nodes whose packs are kept.
const MOST_NODES: usize = 10_000;
const MOST_WARNINGS: usize = 8;

impl fmt::Display for Pack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The pack whose rule or policy raised this item; `None` where none did, or where the item is not readable.
#[must_use]
pub fn pack_version(dialect: Dialect, item: &[u8]) -> Option<Pack> {
    match dialect {
        Dialect::Falco => falco(item),
        Dialect::Tetragon => tetragon(item),
        Dialect::Tracee => tracee(item),
        Dialect::KubeArmor => kubearmor(item),
        // Neither carries a name that whoever runs it can choose.
        Dialect::InspektorGadget | Dialect::KubernetesAudit => None,
        Dialect::Mayfly => falco(item),
    }
}

/// Of Falco the rule; of Mayfly's own format the same field.
fn falco(item: &[u8]) -> Option<Pack> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Event<'a> {
        #[serde(borrow)]
        rule: Text<'a>,
    }
    let event: Event<'_> = serde_json::from_slice(item).ok()?;
    Pack::of(event.rule.as_deref()?)
}

fn tetragon(item: &[u8]) -> Option<Pack> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Of<'a> {
        #[serde(borrow)]
        policy_name: Text<'a>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Event<'a> {
        #[serde(borrow)]
        process_kprobe: Nested<Of<'a>>,
        #[serde(borrow)]
        process_tracepoint: Nested<Of<'a>>,
        #[serde(borrow)]
        process_lsm: Nested<Of<'a>>,
    }
    let event: Event<'_> = serde_json::from_slice(item).ok()?;
    let kinds = [&event.process_kprobe, &event.process_tracepoint, &event.process_lsm];
    kinds.into_iter().find_map(|of| Pack::of(of.as_ref()?.policy_name.as_deref()?))
}

/// An event may match several policies, others' among them.
fn tracee(item: &[u8]) -> Option<Pack> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Policies<'a> {
        #[serde(borrow)]
        matched: Nested<Vec<Text<'a>>>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Event<'a> {
        #[serde(borrow, rename = "matchedPolicies")]
        flat: Nested<Vec<Text<'a>>>,
        #[serde(borrow)]
        policies: Nested<Policies<'a>>,
    }
    let event: Event<'_> = serde_json::from_slice(item).ok()?;
    let matched = event.flat.as_ref().or_else(|| event.policies.as_ref()?.matched.as_ref())?;
    matched.iter().find_map(|name| Pack::of(name.as_deref()?))
}

/// Several policies that match are joined by commas.
fn kubearmor(item: &[u8]) -> Option<Pack> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Event<'a> {
        #[serde(borrow, rename = "PolicyName")]
        policies: Text<'a>,
    }
    let event: Event<'_> = serde_json::from_slice(item).ok()?;
    event.policies.as_deref()?.split(',').find_map(|name| Pack::of(name.trim()))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_version() {
        assert_eq!(Pack::of("mayfly-1-exec"), Some(Pack(1)));
        assert_eq!(Pack::of("mayfly-1"), Some(Pack(1)));
        assert_eq!(Pack::of("mayfly-12-tcp-connect"), Some(Pack(12)));
        assert_eq!(Pack::of("mayfly-0-exec"), Some(Pack(0)));
    }

    #[test]
    fn another_name_has_none() {
        for name in [
            "",
            "mayfly",
            "mayfly-",
            "mayfly--1",
            "mayfly-+1",
            "mayfly-1x",
            "mayfly-exec-1",
            "Mayfly-1",
            "x-mayfly-1",
            "mayfly-99999999999",
            "Terminal shell in container",
        ] {
            assert_eq!(Pack::of(name), None, "{name}");
        }
    }

    #[test]
    fn each_sensor_carries_it_in_its_own_place() {
        let cases: [(Dialect, &str); 8] = [
            (Dialect::Falco, r#"{"rule":"mayfly-1-exec","tags":["mayfly"],"output_fields":{}}"#),
            (Dialect::Tetragon, r#"{"process_kprobe":{"policy_name":"mayfly-1-udp"}}"#),
            (Dialect::Tetragon, r#"{"process_lsm":{"policy_name":"mayfly-1-exec"}}"#),
            (Dialect::Tetragon, r#"{"process_tracepoint":{"policy_name":"mayfly-1-exec"}}"#),
            (Dialect::Tracee, r#"{"eventName":"setuid","matchedPolicies":["theirs","mayfly-1"]}"#),
            (Dialect::Tracee, r#"{"name":"setuid","policies":{"matched":["mayfly-1"]}}"#),
            (Dialect::KubeArmor, r#"{"PolicyName":"theirs,mayfly-1-special"}"#),
            (Dialect::Mayfly, r#"{"rule":"mayfly-1"}"#),
        ];
        for (dialect, item) in cases {
            assert_eq!(pack_version(dialect, item.as_bytes()), Some(CURRENT), "{item}");
        }
    }

    #[test]
    fn what_no_pack_raised_has_none() {
        for dialect in Dialect::ALL {
            for item in ["", "{", "[]", "{}", r#"{"rule":1,"policies":[],"matchedPolicies":{},"PolicyName":null}"#] {
                assert_eq!(pack_version(dialect, item.as_bytes()), None, "{dialect} {item}");
            }
        }
        let exec = br#"{"process_exec":{"process":{"binary":"/bin/sh"}}}"#;
        assert_eq!(pack_version(Dialect::Tetragon, exec), None);
    }

    #[test]
    fn a_sensor_s_packs_are_those_of_its_nodes() {
        let mut packs = Packs::default();
        let at = |minute: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
        for _ in 0..ENOUGH - 1 {
            assert!(!packs.see(Some("a"), Some("theirs"), at(0)));
        }
        assert!(packs.warnings(Dialect::Falco).is_empty(), "a few events say nothing");
        assert!(packs.see(Some("a"), None, at(0)));
        assert!(packs.warnings(Dialect::Falco)[0].starts_with("no rule of Mayfly's pack"));
        assert!(packs.warnings(Dialect::KubeArmor).is_empty(), "its events have no rules");
        assert!(packs.see(Some("a"), Some("theirs,mayfly-1-exec"), at(0)));
        assert!(!packs.see(Some("a"), Some("mayfly-1-write"), at(0)) && !packs.see(Some("a"), Some("theirs"), at(0)));
        assert_eq!((packs.oldest(), packs.warnings(Dialect::Falco)), (Some(1), vec![]));
        assert!(packs.see(Some("b"), Some("mayfly-0-exec"), at(1)));
        assert_eq!(packs.oldest(), Some(0));
        assert!(packs.warnings(Dialect::Falco)[0].starts_with("node b runs sensor pack 0"));
        // Rules of both packs, by turns: one of them is told, once.
        for minute in 2..30 {
            let rule = if minute % 2 == 0 { "mayfly-1-exec" } else { "mayfly-0-exec" };
            assert!(!packs.see(Some("b"), Some(rule), at(minute)), "{minute}");
        }
        assert!(packs.see(Some("b"), Some("mayfly-1-exec"), at(40)));
        assert!(packs.warnings(Dialect::Falco).is_empty(), "it was renewed");
        assert!(!packs.see(Some("b"), Some("mayfly-0-exec"), at(29)), "what is read again is no news");
    }

    #[test]
    fn another_pack_than_expected_is_told() {
        assert_eq!(CURRENT.told_of("n"), None);
        let old = Pack(0).told_of("node-3").expect("older");
        assert!(old.starts_with("node node-3 runs sensor pack 0, this bridge expects 1"), "{old}");
        let new = Pack(2).told_of("n").expect("newer");
        assert!(new.contains("bridge is older"), "{new}");
    }
}
