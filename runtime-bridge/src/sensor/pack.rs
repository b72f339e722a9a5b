//! Which sensor pack a node runs, as its events tell.
//!
//! What a sensor is to look for is in `deploy/sensors/`, a pack for each. No sensor tells of its configuration, so a pack carries its version in the
//! names of its rules and policies, `mayfly-1-exec`, which come with every event they raise. Events that no rule raises have none:
//! Tetragon's executions, KubeArmor's telemetry, those of gadgets and of the API server.

use std::fmt;

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
            std::cmp::Ordering::Equal => return None,
            std::cmp::Ordering::Less => "install the packs of deploy/sensors that came with this bridge",
            std::cmp::Ordering::Greater => "the bridge is older than its sensors: update it",
        };
        Some(format!("node {node} runs sensor pack {self}, this bridge expects {CURRENT}: {advice}"))
    }
}

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
    fn another_pack_than_expected_is_told() {
        assert_eq!(CURRENT.told_of("n"), None);
        let old = Pack(0).told_of("node-3").expect("older");
        assert!(old.starts_with("node node-3 runs sensor pack 0, this bridge expects 1"), "{old}");
        let new = Pack(2).told_of("n").expect("newer");
        assert!(new.contains("bridge is older"), "{new}");
    }
}
