//! A DNA that somebody attests, held against the one worked out here: who signs what is not so is found out by a sample.

use std::collections::BTreeSet;

use dna::{Behavior, Confidence};
use serde::Serialize;

/// Where an attested DNA says something else than ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub(super) enum Disagreement {
    /// Ours expects what the attested one does not name: it would make an alert of what the image does.
    Lacks {
        /// Of which dimension.
        dimension: &'static str,
        /// The first of them.
        items: Vec<String>,
        /// How many there are.
        count: usize,
    },
    /// The attested one names more than twice as many as ours: it would let pass what the image does not do.
    Wider {
        /// Of which dimension.
        dimension: &'static str,
        /// The first that ours does not name.
        items: Vec<String>,
        /// How many it names.
        attested: usize,
        /// How many ours names.
        ours: usize,
    },
}

/// Where `attested` and `ours`, of one image, disagree so far that a person should look.
pub(super) fn compare(attested: &Behavior, ours: &Behavior) -> Vec<Disagreement> {
    let pairs = Dimension::of(attested).into_iter().zip(Dimension::of(ours));
    pairs.flat_map(|(attested, ours)| [lacks(&attested, &ours), wider(&attested, &ours)]).flatten().collect()
}

fn lacks(attested: &Dimension, ours: &Dimension) -> Option<Disagreement> {
    let missing: Vec<&String> = ours.expected.iter().filter(|item| !attested.all.contains(*item)).collect();
    let items = clipped(missing.iter().copied());
    (!missing.is_empty()).then_some(Disagreement::Lacks { dimension: ours.name, items, count: missing.len() })
}

fn wider(attested: &Dimension, ours: &Dimension) -> Option<Disagreement> {
    let (claimed, found) = (attested.all.len(), ours.all.len());
    let items = clipped(attested.all.iter().filter(|item| !ours.all.contains(*item)));
    (ours.is_counted && claimed > found.saturating_mul(2)).then_some(Disagreement::Wider {
        dimension: ours.name,
        items,
        attested: claimed,
        ours: found,
    })
}

fn clipped<'a>(items: impl Iterator<Item = &'a String>) -> Vec<String> {
    items.take(MAX_ITEMS).map(|item| item.chars().take(MAX_CHARS).collect()).collect()
}

/// The items of a dimension by name.
struct Dimension {
    name: &'static str,
    all: BTreeSet<String>,
    /// Those that are certain or likely.
    expected: BTreeSet<String>,
    /// Naming too many is a disagreement: of the other dimensions one glob more or less says little.
    is_counted: bool,
}

impl Dimension {
    fn of(all: &Behavior) -> Vec<Self> {
        let dimension = |(name, items): (&'static str, Vec<(String, Confidence)>)| {
            let is_expected = |one: &(String, Confidence)| matches!(one.1, Confidence::Certain | Confidence::Likely);
            Self {
                name,
                expected: items.iter().filter(|one| is_expected(one)).map(|(item, _)| item.clone()).collect(),
                all: items.into_iter().map(|(item, _)| item).collect(),
                is_counted: matches!(name, "exec" | "syscalls" | "capabilities" | "listen"),
            }
        };
        all.named().into_iter().map(dimension).collect()
    }
}

/// Named of each disagreement: the two DNAs have all.
const MAX_ITEMS: usize = 10;
const MAX_CHARS: usize = 200;

#[cfg(test)]
mod tests {
    use dna::{Capability, Completenesses, Known, Listen, Protocol, Syscall};

    use super::*;

    fn known<T>(what: T, confidence: Confidence) -> Known<T> {
        Known { what, confidence, probability: None, when: Vec::new(), evidence: Vec::new() }
    }

    fn syscall(name: &str, confidence: Confidence) -> Known<Syscall> {
        known(Syscall { name: name.to_owned(), arguments: None, phase: None }, confidence)
    }

    fn honest() -> Behavior {
        let port = Listen { protocol: Protocol::Tcp, port: 80, address: None, claimed: false };
        Behavior {
            exec: Vec::new(),
            load: Vec::new(),
            syscalls: vec![
                syscall("openat", Confidence::Certain),
                syscall("ptrace", Confidence::Possible),
                syscall("write", Confidence::Likely),
            ],
            capabilities: vec![known(Capability { name: "CAP_NET_BIND_SERVICE".to_owned() }, Confidence::Likely)],
            listen: vec![known(port, Confidence::Certain)],
            connect: Vec::new(),
            write: Vec::new(),
            read: Vec::new(),
            completeness: Completenesses::default(),
        }
    }

    #[test]
    fn small_differences_are_no_disagreement() {
        let (ours, mut attested) = (honest(), honest());
        assert_eq!(compare(&attested, &ours), []);
        // Less sure, one more, and without what is merely possible.
        attested.syscalls.retain(|item| item.what.name != "ptrace");
        attested.syscalls.extend(["read", "close"].map(|name| syscall(name, Confidence::Possible)));
        assert_eq!(compare(&attested, &ours), []);
    }

    #[test]
    fn an_over_wide_dna_is_a_disagreement() {
        let (ours, mut attested) = (honest(), honest());
        attested.capabilities.extend(
            ["CAP_SYS_ADMIN", "CAP_NET_RAW"]
                .map(|name| known(Capability { name: name.to_owned() }, Confidence::Certain)),
        );
        let wider = Disagreement::Wider {
            dimension: "capabilities",
            items: vec!["CAP_NET_RAW".to_owned(), "CAP_SYS_ADMIN".to_owned()],
            attested: 3,
            ours: 1,
        };
        assert_eq!(compare(&attested, &ours), [wider]);
        // Twice as many is not yet more than twice.
        attested.capabilities.pop();
        assert_eq!(compare(&attested, &ours), []);
    }

    #[test]
    fn one_that_lacks_what_is_expected_is_a_disagreement() {
        let (ours, mut attested) = (honest(), honest());
        attested.listen.clear();
        attested.syscalls.retain(|item| item.what.name == "ptrace");
        let lacks = |dimension, items: &[&str]| Disagreement::Lacks {
            dimension,
            items: items.iter().map(|&item| item.to_owned()).collect(),
            count: items.len(),
        };
        assert_eq!(compare(&attested, &ours), [lacks("syscalls", &["openat", "write"]), lacks("listen", &["tcp/80"])]);
    }
}
