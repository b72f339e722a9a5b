//! The processes of a story, as they started each other.
//!
//! In: alerts with their samples. Out: for each container a [`Tree`]: its processes, children below parents, with what each was seen to do
//! and which alert that is of. Sensors tell of a process's ancestors as far as they know them: what several events tell is put together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dna::{Act, Activity, Process};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::alert::Alert;

/// Processes of a container; later ones are left out.
const PROCESSES: usize = 256;
/// Deeds of a process; later ones are left out.
const DEEDS: usize = 32;

/// The processes of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tree {
    /// The container's id; its name where the sensor has none.
    pub container: String,
    /// Its pod; empty where that is not known.
    pub pod: String,
    /// Its processes: each below the one that started it.
    pub branches: Vec<Branch>,
    /// Something was left out: the story has more than fits.
    pub is_cut: bool,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Branch {
    /// How many processes are above it.
    pub depth: u32,
    /// The process.
    pub process: Process,
    /// What it was seen to do, in order.
    pub deeds: Vec<Deed>,
}

/// What a process was seen to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deed {
    /// When, by the node's clock.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// What.
    pub act: Act,
    /// The alerts that it is of: none where it was expected.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub alerts: BTreeSet<String>,
}

/// The trees of a story's containers, in the order of their names.
#[must_use]
pub fn trees(alerts: &[Alert]) -> Vec<Tree> {
    let mut all: BTreeMap<String, Growing> = BTreeMap::new();
    let mut seen: Vec<(&Activity, Option<&str>)> = Vec::new();
    for alert in alerts {
        for sample in &alert.samples {
            seen.push((&sample.activity, Some(alert.id.as_str())));
            seen.extend(sample.before.iter().map(|activity| (activity, None)));
        }
    }
    // In time's order, so that what is left out is the latest.
    seen.sort_by_key(|(activity, _)| activity.at);
    for (activity, alert) in seen {
        let container = &activity.container;
        let name = container.id.as_ref().or(container.name.as_ref()).cloned().unwrap_or_default();
        all.entry(name).or_default().add(activity, alert);
    }
    all.into_iter().map(|(container, growing)| growing.grown(container)).collect()
}

/// What makes processes one: the sensor's name for it, else its number and file.
type Key = (Option<String>, Option<u32>, Option<String>);

fn key(process: &Process) -> Key {
    match &process.id {
        Some(id) => (Some(id.clone()), None, None),
        None => (None, process.pid, process.exe.clone().or_else(|| process.name.clone())),
    }
}

#[derive(Debug, Default)]
struct Growing {
    pod: String,
    nodes: Vec<Node>,
    by_key: HashMap<Key, usize>,
    is_cut: bool,
}

#[derive(Debug)]
struct Node {
    process: Process,
    parent: Option<usize>,
    deeds: Vec<Deed>,
}

impl Growing {
    fn add(&mut self, activity: &Activity, alert: Option<&str>) {
        if let Some(pod) = activity.container.pod.as_ref().filter(|_| self.pod.is_empty()) {
            self.pod.clone_from(pod);
        }
        // From the farthest ancestor down.
        let mut above = None;
        for process in activity.ancestors.iter().rev().chain([&activity.process]) {
            let Some(node) = self.node(process) else { return };
            if let Some(parent) = above
                && !self.is_above(node, parent)
                && let Some(node) = self.nodes.get_mut(node)
            {
                node.parent.get_or_insert(parent);
            }
            above = Some(node);
        }
        let Some(node) = above.and_then(|node| self.nodes.get_mut(node)) else { return };
        // The same event may be of several alerts, and come before others'.
        let is_full = node.deeds.len() >= DEEDS;
        let known = node.deeds.iter_mut().find(|deed| deed.at == activity.at && deed.act == activity.act);
        if let Some(deed) = known {
            deed.alerts.extend(alert.map(str::to_owned));
        } else if is_full {
            self.is_cut = true;
        } else {
            let alerts = alert.map(str::to_owned).into_iter().collect();
            node.deeds.push(Deed { at: activity.at, act: activity.act.clone(), alerts });
        }
    }

    /// The place of a process; none where there are too many.
    fn node(&mut self, process: &Process) -> Option<usize> {
        let key = key(process);
        if let Some(place) = self.by_key.get(&key) {
            // Sensors tell less of ancestors than of those who act.
            if let Some(node) = self.nodes.get_mut(*place).filter(|node| node.process.argv.is_empty()) {
                node.process.clone_from(process);
            }
            return Some(*place);
        }
        if self.nodes.len() >= PROCESSES {
            self.is_cut = true;
            return None;
        }
        self.nodes.push(Node { process: process.clone(), parent: None, deeds: Vec::new() });
        self.by_key.insert(key, self.nodes.len() - 1);
        Some(self.nodes.len() - 1)
    }

    /// Whether a process is another, or above it: numbers are used again, and a process is not its own ancestor.
    fn is_above(&self, upper: usize, lower: usize) -> bool {
        std::iter::successors(Some(lower), |place| self.nodes.get(*place)?.parent).any(|place| place == upper)
    }

    fn grown(self, container: String) -> Tree {
        let mut children: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
        for (place, node) in self.nodes.iter().enumerate() {
            children.entry(node.parent).or_default().push(place);
        }
        let mut nodes: Vec<Option<Node>> = self.nodes.into_iter().map(Some).collect();
        let mut branches = Vec::new();
        let below = |of: Option<usize>, depth: u32| {
            children.get(&of).into_iter().flatten().rev().map(move |place| (*place, depth))
        };
        let mut open: Vec<(usize, u32)> = below(None, 0).collect();
        while let Some((place, depth)) = open.pop() {
            open.extend(below(Some(place), depth + 1));
            if let Some(Node { process, deeds, parent: _ }) = nodes.get_mut(place).and_then(Option::take) {
                branches.push(Branch { depth, process, deeds });
            }
        }
        Tree { container, pod: self.pod, branches, is_cut: self.is_cut }
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        Class, Deviation,
        alert::{Place, collate},
    };

    fn activity(second: u32, process: &Value, ancestors: &Value, path: &str) -> Activity {
        let json = json!({"at": format!("2026-03-01T00:00:{second:02}Z"), "sensor": "s", "container": {"id": "c1", "pod": "web-0"},
            "process": process, "ancestors": ancestors, "act": {"kind": "write", "path": path, "change": "open"}});
        serde_json::from_value(json).expect("an activity")
    }

    fn alert(subject: &str, activity: &Activity, before: Vec<Activity>) -> Alert {
        let deviation = Deviation {
            class: Class::Write,
            subject: subject.to_owned(),
            message: String::new(),
            after: None,
            layer: None,
            package: None,
            risk: 0.5,
            drivers: Vec::new(),
            technique: String::new(),
            blocked: false,
        };
        let mut alert = None;
        collate(&mut alert, &Place::default(), "web-0", &deviation, activity, before.into_iter());
        alert.expect("an alert")
    }

    #[test]
    fn what_events_tell_of_ancestors_is_put_together() {
        let (server, shell, tool) = (
            json!({"pid": 1, "exe": "/usr/sbin/served"}),
            json!({"pid": 7, "exe": "/bin/sh", "argv": ["sh", "-c", "x"]}),
            json!({"pid": 8, "exe": "/bin/cp", "argv": ["cp"]}),
        );
        let before = activity(1, &shell, &json!([server]), "/tmp/x");
        let last = activity(2, &tool, &json!([{"pid": 7, "exe": "/bin/sh"}]), "/etc/passwd");
        let (one, other) = (alert("/etc/passwd", &last, vec![before.clone()]), alert("/etc/shadow", &last, Vec::new()));
        let trees = trees(&[one.clone(), other.clone()]);
        assert_eq!((trees.len(), trees[0].pod.as_str(), trees[0].is_cut), (1, "web-0", false));
        let lines: Vec<(u32, Option<&str>, usize)> = trees[0]
            .branches
            .iter()
            .map(|branch| (branch.depth, branch.process.exe.as_deref(), branch.deeds.len()))
            .collect();
        assert_eq!(lines, [(0, Some("/usr/sbin/served"), 0), (1, Some("/bin/sh"), 1), (2, Some("/bin/cp"), 1)]);
        assert_eq!(trees[0].branches[1].process.argv, ["sh", "-c", "x"]);
        assert_eq!(trees[0].branches[2].deeds[0].alerts, [one.id, other.id].into());
    }

    #[test]
    fn a_circle_of_numbers_and_a_flood_end() {
        let process = |pid: u32| json!({"pid": pid, "exe": format!("/bin/p{pid}")});
        let circle = [
            activity(1, &process(1), &json!([process(2)]), "/a"),
            activity(2, &process(2), &json!([process(1)]), "/b"),
            activity(3, &process(3), &json!([process(3)]), "/c"),
        ];
        let told = trees(&[alert("x", &circle[2], circle[..2].to_vec())]);
        let depths: Vec<u32> = told[0].branches.iter().map(|branch| branch.depth).collect();
        assert_eq!(depths, [0, 1, 0]);
        let many: Vec<Activity> = (0..1000).map(|n| activity(1, &process(n), &json!([]), "/a")).collect();
        let told = trees(&[alert("x", &circle[0], many)]);
        assert!(told[0].is_cut && told[0].branches.len() == PROCESSES);
    }
}
