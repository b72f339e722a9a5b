//! Pods created as fast as the API server takes them, by many at once: curl, since a kubectl for each would be most of the work.

use std::{
    collections::BTreeMap,
    fs,
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::Value;
use tests::{Cluster, run};

use crate::world::World;

/// Creates `count` pods, `at_once` at a time, with this query; gives how many ended with each HTTP status, or with [`NO_ANSWER`]. What
/// failed is told.
pub(crate) fn create_many(
    cluster: &Cluster,
    object: &Value,
    query: &str,
    count: usize,
    at_once: usize,
) -> BTreeMap<String, usize> {
    let folder = tempfile::tempdir().expect("a folder");
    let body = tests::written(folder.path(), "pod.json", object.to_string());
    let namespace = object["metadata"]["namespace"].as_str().expect("a namespace");
    let url = format!("https://localhost:6443/api/v1/namespaces/{namespace}/pods?{query}&number=[1-{count}]");
    let mut curl = cluster.inside("curl");
    curl.args([
        "-sS",
        "--parallel",
        "--parallel-immediate",
        "--parallel-max",
        &at_once.to_string(),
        "--max-time",
        "60",
    ]);
    curl.arg("--cacert").arg(cluster.folder().join("certs/apiserver.crt"));
    curl.args(["-H", "Authorization: Bearer admin-token", "-H", "Content-Type: application/json"]);
    curl.args(["--data", &format!("@{body}"), "-w", "%{http_code} %{filename_effective} %{errormsg}\n", "-o"]);
    let done = run(curl.arg(folder.path().join("answer_#1")).arg(url));
    let mut answers = BTreeMap::new();
    for line in done.text().lines() {
        let (code, rest) = line.split_once(' ').unwrap_or((line, ""));
        let file = rest.split(' ').next().unwrap_or_default();
        let said = if code == "201" { String::new() } else { fs::read_to_string(file).unwrap_or_default() };
        let end = if said.contains("failed calling webhook") { NO_ANSWER } else { code };
        if end != "201" && !answers.contains_key(end) {
            println!("{line} {said}");
        }
        *answers.entry(end.to_owned()).or_default() += 1;
    }
    answers
}

/// Does something while pods are tried, eight at once, every one of which must be admitted. Gives how many there were.
pub(crate) fn under_load(world: &World, object: &Value, act: impl FnOnce()) -> usize {
    let is_over = AtomicBool::new(false);
    let answers = thread::scope(|scope| {
        let trying = scope.spawn(|| {
            let mut answers: BTreeMap<String, usize> = BTreeMap::new();
            while !is_over.load(Ordering::Relaxed) {
                for (code, count) in create_many(&world.cluster, object, "dryRun=All", BATCH, 8) {
                    *answers.entry(code).or_default() += count;
                }
            }
            answers
        });
        // The load ends whatever happens.
        let done = panic::catch_unwind(AssertUnwindSafe(act));
        is_over.store(true, Ordering::Relaxed);
        let answers = trying.join().expect("curl runs");
        done.unwrap_or_else(|panicked| panic::resume_unwind(panicked));
        answers
    });
    assert!(answers.keys().all(|code| code == "201"), "{answers:?}");
    answers.values().sum()
}

/// The webhook gave none: the failure policy decided.
pub(crate) const NO_ANSWER: &str = "no answer";

/// So many until it is asked whether it is over.
const BATCH: usize = 100;
