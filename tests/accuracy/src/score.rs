//! A prediction against what the kernel saw: recall over all that is predicted, since what is missed breaks an enforced profile;
//! precision and F1 over what is at least `likely`, since that is what is expected.
//!
//! `exec`: scripts may be predicted but need not be, their interpreter must. `capabilities`: recall against those the workload
//! fails without, precision against those exercised at all. `listen`: without ports that the kernel chose. `write`: without
//! /proc, /sys and /dev; every folder written in weighs the same; a glob without a fixed first component is wrong.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{glob::Glob, truth::Truth};

/// The dimensions scored.
pub(crate) const DIMENSIONS: [&str; 6] = ["exec", "load", "syscalls", "capabilities", "listen", "write"];

/// One dimension of one image.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Score {
    pub(crate) recall: f64,
    pub(crate) precision: f64,
    pub(crate) f1: f64,
    /// How much was predicted in all tiers.
    pub(crate) size: usize,
    pub(crate) missed: Vec<String>,
}

/// What is predicted, as plain lists by dimension; ports are `tcp/80`.
pub(crate) type Lists = BTreeMap<&'static str, BTreeSet<String>>;

/// The lists of a DNA: all that is predicted, and what is at least likely.
pub(crate) fn lists(dna: &Value) -> (Lists, Lists) {
    let (mut wide, mut sure) = (Lists::new(), Lists::new());
    for dimension in DIMENSIONS {
        let (mut all, mut expected) = (BTreeSet::new(), BTreeSet::new());
        let items = dna.pointer(&format!("/behavior/{dimension}")).and_then(Value::as_array);
        for item in items.into_iter().flatten() {
            let name = match dimension {
                "syscalls" | "capabilities" => item["name"].as_str().map(str::to_owned),
                "listen" => item["protocol"].as_str().zip(item["port"].as_u64()).map(|(p, n)| format!("{p}/{n}")),
                _ => item["path"].as_str().map(str::to_owned),
            };
            let Some(name) = name else { continue };
            if item["confidence"] != "possible" {
                expected.insert(name.clone());
            }
            all.insert(name);
        }
        wide.insert(dimension, all);
        sure.insert(dimension, expected);
    }
    (wide, sure)
}

/// Scores lists, dimension by dimension.
pub(crate) fn score(wide: &Lists, sure: &Lists, truth: &Truth) -> BTreeMap<&'static str, Score> {
    let one = |dimension| {
        let (all, expected) = (wide.get(dimension)?, sure.get(dimension)?);
        let (counted, narrow) = (count(dimension, all, truth), count(dimension, expected, truth));
        let (recall, precision) = (narrow.recall(), narrow.precision());
        let f1 = if recall + precision > 0.0 { 2.0 * recall * precision / (recall + precision) } else { 0.0 };
        let score = Score { recall: counted.recall(), precision, f1, size: all.len(), missed: counted.missed };
        Some((dimension, score))
    };
    DIMENSIONS.into_iter().filter_map(one).collect()
}

/// How the phases of system calls were told.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    /// Of the calls seen only at start-up, the share that is marked so.
    pub(crate) recall: f64,
    /// Calls marked so that were seen while serving.
    pub(crate) wrong: BTreeSet<String>,
}

/// Scores the phases of a DNA.
pub(crate) fn phases(dna: &Value, truth: &Truth) -> Phases {
    let items = dna.pointer("/behavior/syscalls").and_then(Value::as_array);
    let marked = items.into_iter().flatten().filter(|item| item["phase"] == "startup");
    let marked: BTreeSet<String> = marked.filter_map(|item| item["name"].as_str().map(str::to_owned)).collect();
    let seen = |phase: &str| truth.syscalls_by_phase.get(phase).cloned().unwrap_or_default();
    let (steady, stop) = (seen("steady"), seen("stop"));
    let mut only = seen("startup");
    only.retain(|name| !steady.contains(name) && !stop.contains(name));
    let found = only.intersection(&marked).count() as f64;
    let recall = if only.is_empty() { 1.0 } else { found / only.len() as f64 };
    Phases { recall, wrong: marked.intersection(&steady).cloned().collect() }
}

/// Hits of one list.
#[derive(Debug, Default)]
struct Count {
    truth: usize,
    found: f64,
    predicted: usize,
    good: usize,
    missed: Vec<String>,
}

impl Count {
    fn recall(&self) -> f64 {
        if self.truth == 0 { 1.0 } else { self.found / self.truth as f64 }
    }

    fn precision(&self) -> f64 {
        match (self.predicted, self.truth) {
            (0, 0) => 1.0,
            (0, _) => 0.0,
            (predicted, _) => self.good as f64 / predicted as f64,
        }
    }
}

fn count(dimension: &str, predicted: &BTreeSet<String>, truth: &Truth) -> Count {
    match dimension {
        "exec" => exec(predicted, truth),
        "write" => write(predicted, truth),
        "load" => {
            let merge = |paths: &BTreeSet<String>| paths.iter().map(|path| merged(path)).collect();
            sets(&merge(&truth.libs), None, &merge(predicted))
        }
        "syscalls" => sets(&truth.syscalls, None, predicted),
        "capabilities" => {
            let needed = truth.capabilities_needed.as_ref().unwrap_or(&truth.capabilities);
            sets(needed, Some(&truth.capabilities), predicted)
        }
        _ => {
            let ports = truth.listen.iter().filter(|port| !port.ephemeral);
            sets(&ports.map(|port| format!("{}/{}", port.proto, port.port)).collect(), None, predicted)
        }
    }
}

/// Plain sets: what must be there, what else may be.
fn sets(must: &BTreeSet<String>, may: Option<&BTreeSet<String>>, predicted: &BTreeSet<String>) -> Count {
    let is_good = |name: &&String| must.contains(*name) || may.is_some_and(|may| may.contains(*name));
    let missed: Vec<String> = must.difference(predicted).cloned().collect();
    Count {
        truth: must.len(),
        found: (must.len() - missed.len()) as f64,
        predicted: predicted.len(),
        good: predicted.iter().filter(is_good).count(),
        missed,
    }
}

fn exec(predicted: &BTreeSet<String>, truth: &Truth) -> Count {
    let names = |path: &String| -> BTreeSet<String> {
        let aliases = truth.exec_aliases.get(path).into_iter().flatten();
        aliases.chain([path]).map(|name| merged(name)).collect()
    };
    let wanted: Vec<BTreeSet<String>> = truth.exec.iter().map(names).collect();
    let scripts: BTreeSet<String> = truth.scripts.iter().map(|path| merged(path)).collect();
    let globs: BTreeMap<String, Glob> =
        predicted.iter().map(|path| merged(path)).map(|path| (path.clone(), Glob::new(&path))).collect();
    let is_found = |names: &BTreeSet<String>| names.iter().any(|name| globs.values().any(|glob| glob.matches(name)));
    let missed: Vec<String> =
        truth.exec.iter().zip(&wanted).filter(|(_, names)| !is_found(names)).map(|(path, _)| path.clone()).collect();
    let is_good = |glob: &&Glob| wanted.iter().flatten().chain(&scripts).any(|name| glob.matches(name));
    Count {
        truth: wanted.len(),
        found: (wanted.len() - missed.len()) as f64,
        predicted: globs.len(),
        good: globs.values().filter(is_good).count(),
        missed,
    }
}

fn write(predicted: &BTreeSet<String>, truth: &Truth) -> Count {
    let is_real = |path: &&String| !["/proc/", "/sys/", "/dev/"].iter().any(|start| path.starts_with(start));
    let paths: Vec<&String> = truth.write.iter().filter(is_real).collect();
    let mut folders = BTreeMap::<&str, Vec<&String>>::new();
    for path in &paths {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| if folder.is_empty() { "/" } else { folder });
        folders.entry(folder).or_default().push(path);
    }
    let is_fixed = |glob: &&String| {
        let fixed = glob.split(['*', '?']).next().unwrap_or_default();
        !fixed.trim_matches('/').is_empty()
    };
    let globs: Vec<Glob> = predicted.iter().filter(is_fixed).map(|glob| Glob::new(glob)).collect();
    let is_hit = |path: &&&String| globs.iter().any(|glob| glob.matches(path));
    let share = |paths: &Vec<&String>| paths.iter().filter(is_hit).count() as f64 / paths.len() as f64;
    let missed = folders.iter().filter(|(_, paths)| share(paths) == 0.0).map(|(folder, _)| (*folder).to_owned());
    Count {
        truth: folders.len(),
        found: folders.values().map(share).sum(),
        predicted: predicted.len(),
        good: globs.iter().filter(|glob| paths.iter().any(|path| glob.matches(path))).count(),
        missed: missed.collect(),
    }
}

/// Debian's merged /usr: /bin/x is /usr/bin/x.
fn merged(path: &str) -> String {
    let is_merged = ["/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/"].iter().any(|start| path.starts_with(start));
    if is_merged { format!("/usr{path}") } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn recall_counts_all_tiers_and_precision_the_expected() {
        let count = |predicted: &[&str]| sets(&names(&["a", "b"]), None, &names(predicted));
        assert_eq!((count(&["a", "b", "c"]).recall(), count(&["a", "c"]).precision()), (1.0, 0.5));
        assert_eq!((count(&[]).recall(), count(&[]).precision()), (0.0, 0.0));
        assert_eq!(sets(&names(&[]), None, &names(&[])).precision(), 1.0);
    }

    #[test]
    fn a_call_seen_while_serving_is_not_only_made_at_start_up() {
        let call = |name: &str, phase: &str| serde_json::json!({ "name": name, "phase": phase });
        let calls = [call("bind", "startup"), call("mmap", "startup"), call("read", "serving")];
        let dna = serde_json::json!({ "behavior": { "syscalls": calls } });
        let mut truth: Truth = serde_json::from_value(serde_json::json!({
            "image": "a", "list": "open", "digest": "", "exec": [], "libs": [], "syscalls": [], "capabilities": [], "listen": [],
            "write": [], "syscalls_by_phase": { "startup": ["bind", "brk", "kill", "mmap"], "steady": ["mmap"], "stop": ["kill"] },
        }))
        .expect("a run");
        let scored = phases(&dna, &truth);
        assert_eq!((scored.recall, scored.wrong), (0.5, names(&["mmap"])));
        truth.syscalls_by_phase.clear();
        assert_eq!(phases(&dna, &truth).recall, 1.0);
    }

    #[test]
    fn merged_folders_are_one() {
        assert_eq!((merged("/bin/sh"), merged("/lib64/ld.so")), ("/usr/bin/sh".into(), "/usr/lib64/ld.so".into()));
        assert_eq!(merged("/libexec/x"), "/libexec/x");
    }
}
