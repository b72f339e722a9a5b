//! Events as sensors write them, and what is read from them. Each file of `samples/` names where it is from; what is read from it is in
//! `snapshots/`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use runtime_bridge::{
    limits,
    sensor::{Dialect, Told, decode, key, split},
};
use serde::Deserialize;
use serde_json::value::RawValue;

struct Sample {
    dialect: Dialect,
    name: String,
    event: String,
}

fn samples() -> Vec<Sample> {
    #[derive(Deserialize)]
    struct File {
        source: String,
        event: Box<RawValue>,
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let mut samples = Vec::new();
    for dialect in Dialect::ALL {
        for path in files(&folder.join(dialect.name())) {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let file: File = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("a sample");
            assert!(!file.source.is_empty(), "{name} says where it is from");
            samples.push(Sample { dialect, name, event: file.event.get().to_owned() });
        }
    }
    samples
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn what_is_read_from_each_sample() {
    for sample in samples() {
        let told = decode(sample.dialect, sample.event.as_bytes())
            .unwrap_or_else(|error| panic!("{} {}: {error}", sample.dialect, sample.name));
        insta::assert_json_snapshot!(format!("{}-{}", sample.dialect, sample.name), told);
    }
}

#[test]
fn every_sample_is_known_as_its_sensors() {
    for sample in samples() {
        assert_eq!(Dialect::guess(sample.event.as_bytes()), Some(sample.dialect), "{}", sample.name);
    }
}

#[test]
fn no_credential_of_a_sample_is_kept() {
    for sample in samples() {
        let told = decode(sample.dialect, sample.event.as_bytes()).expect("an event");
        let kept = serde_json::to_string(&told).expect("JSON");
        for secret in ["hunter2", "abcdefgh"] {
            assert!(!kept.contains(secret), "{} {}: {kept}", sample.dialect, sample.name);
        }
    }
}

#[test]
fn every_kind_of_act_and_outcome_has_a_sample() {
    let mut kinds = BTreeSet::new();
    for sample in samples() {
        if let Ok(Told::Activity(activity)) = decode(sample.dialect, sample.event.as_bytes()) {
            let value = serde_json::to_value(&activity).expect("JSON");
            let text = |pointer, or| value.pointer(pointer).and_then(|text| text.as_str()).unwrap_or(or).to_owned();
            kinds.extend([text("/act/kind", "-"), text("/act/change", "-"), text("/outcome/state", "done")]);
        }
    }
    for kind in [
        "exec",
        "exit",
        "listen",
        "accept",
        "connect",
        "connect-unix",
        "write",
        "read",
        "capability",
        "identity",
        "syscall",
        "open",
        "create",
        "remove",
        "rename",
        "truncate",
        "mode",
        "owner",
        "done",
        "failed",
        "blocked",
    ] {
        assert!(kinds.contains(kind), "{kind} is in none: {kinds:?}");
    }
}

#[test]
fn a_sample_cut_off_anywhere_is_malformed() {
    for sample in samples() {
        for end in (0..sample.event.len()).step_by(3) {
            let Some(cut) = sample.event.get(..end) else { continue };
            assert!(decode(sample.dialect, cut.as_bytes()).is_err(), "{} {} cut at {end}", sample.dialect, sample.name);
        }
    }
}

#[test]
fn a_sample_with_any_value_of_another_type_is_no_panic() {
    for sample in samples() {
        let value: serde_json::Value = serde_json::from_str(&sample.event).expect("JSON");
        for other in
            [serde_json::json!(null), serde_json::json!([1]), serde_json::json!({"a": 1}), serde_json::json!(-1)]
        {
            for at in 0..leaves(&value) {
                let mut changed = value.clone();
                replace(&mut changed, &mut { at }, &other);
                // Whatever it says; what counts is that it is within the limits.
                if let Ok(Told::Activity(activity)) = decode(sample.dialect, changed.to_string().as_bytes()) {
                    assert!(activity.ancestors.len() <= limits::ANCESTORS);
                }
                let _ = key(sample.dialect, changed.to_string().as_bytes());
            }
        }
    }
}

fn leaves(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Object(entries) => 1 + entries.values().map(leaves).sum::<usize>(),
        serde_json::Value::Array(values) => 1 + values.iter().map(leaves).sum::<usize>(),
        _ => 1,
    }
}

/// Puts `other` in place of the value number `at`, in the order of [`leaves`].
fn replace(value: &mut serde_json::Value, at: &mut usize, other: &serde_json::Value) -> bool {
    if *at == 0 {
        *value = other.clone();
        return true;
    }
    *at -= 1;
    match value {
        serde_json::Value::Object(entries) => entries.values_mut().any(|value| replace(value, at, other)),
        serde_json::Value::Array(values) => values.iter_mut().any(|value| replace(value, at, other)),
        _ => false,
    }
}

#[test]
fn the_samples_of_a_sensor_are_items_of_one_body() {
    for dialect in Dialect::ALL {
        let events: Vec<String> =
            samples().into_iter().filter(|sample| sample.dialect == dialect).map(|sample| sample.event).collect();
        let lines: Vec<String> = events.iter().map(|event| event.replace('\n', " ")).collect();
        let list = format!("{{\"kind\":\"EventList\",\"items\":[{}]}}", events.join(","));
        let list = Some(list).filter(|_| dialect == Dialect::KubernetesAudit);
        for body in [lines.join("\n"), format!("[{}]", events.join(","))].into_iter().chain(list) {
            let found: Vec<_> =
                split(dialect, body.as_bytes()).items.into_iter().map(|item| key(dialect, item)).collect();
            let expected: Vec<_> = events.iter().map(|event| key(dialect, event.as_bytes())).collect();
            assert_eq!(found, expected, "{dialect}");
        }
    }
}

#[test]
fn a_long_event_is_cut_to_the_limits() {
    let words = vec!["word"; 5000].join(" ");
    let long = "x".repeat(100_000);
    let event = serde_json::json!({"process_exec": {
        "process": {"exec_id": long, "binary": long, "arguments": words, "cwd": long, "pod": {"name": long, "namespace": "n"}},
        "ancestors": vec![serde_json::json!({"binary": "/x"}); 1000],
    }, "node_name": long, "time": "2026-01-02T03:04:05Z"});
    let Ok(Told::Activity(activity)) = decode(Dialect::Tetragon, event.to_string().as_bytes()) else {
        panic!("an activity")
    };
    assert_eq!(activity.ancestors.len(), limits::ANCESTORS);
    assert!(activity.process.argv.len() <= limits::WORDS);
    assert!(activity.process.argv.last().is_some_and(|word| word.ends_with(limits::CUT)));
    assert!(activity.process.exe.as_ref().is_some_and(|exe| exe.len() <= limits::PATH));
    assert!(serde_json::to_string(&activity.container).expect("JSON").len() < 2 * limits::NAME);
    assert!(activity.node.as_ref().is_some_and(|node| node.len() <= limits::NAME));
}

/// The pages' examples are what they say: each block of JSON in Mayfly's own format decodes.
#[test]
fn the_examples_of_the_documentation_decode() {
    let page = include_str!("../../docs/sensors.md");
    let blocks: Vec<&str> = page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        let found = split(Dialect::Mayfly, block.as_bytes());
        assert!(!found.items.is_empty() && found.malformed == 0, "{block}");
        for item in found.items {
            let told = decode(Dialect::Mayfly, item).unwrap_or_else(|error| panic!("{error}: {block}"));
            assert!(matches!(told, Told::Activity(_)), "{block}");
        }
    }
}

#[test]
fn the_schema_is_the_one_that_is_published() {
    insta::assert_json_snapshot!("schema", runtime_bridge::sensor::schema());
}
