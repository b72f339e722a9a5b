//! Predictions against a real kubelet: pods of real images with different security contexts, each run and each asked about.
//!
//! Said to fail must fail, said to come up must run; "may fail" is counted. `FIT_IMAGES` names how many images are taken (default
//! all), `FIT_CASES` how many cases of each; docs/expect.md has the results of all.

use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{Cluster, mayfly, run};

/// What a case sets, and the folders it mounts an empty volume on.
type Case = (&'static str, &'static str, &'static [&'static str]);

const CASES: [Case; 25] = [
    ("plain", "{}", &[]),
    ("drop-all", r#"{"capabilities": {"drop": ["ALL"]}}"#, &[]),
    ("nonroot", r#"{"runAsNonRoot": true}"#, &[]),
    ("readonly", r#"{"readOnlyRootFilesystem": true}"#, &[]),
    ("missing", "command:/no/such/program", &[]),
    ("user-1000", r#"{"runAsUser": 1000}"#, &[]),
    ("seccomp", r#"{"seccompProfile": {"type": "RuntimeDefault"}}"#, &[]),
    ("hide-usr", "{}", &["/usr"]),
    ("privileged", r#"{"privileged": true}"#, &[]),
    (
        "drop-all-add",
        r#"{"capabilities": {"drop": ["ALL"], "add": ["SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "NET_BIND_SERVICE"]}}"#,
        &[],
    ),
    ("nonroot-1000", r#"{"runAsNonRoot": true, "runAsUser": 1000}"#, &[]),
    ("user-0", r#"{"runAsUser": 0}"#, &[]),
    ("nonroot-0", r#"{"runAsNonRoot": true, "runAsUser": 0}"#, &[]),
    ("readonly-tmp", r#"{"readOnlyRootFilesystem": true}"#, &["/tmp", "/run"]),
    ("readonly-var", r#"{"readOnlyRootFilesystem": true}"#, &["/tmp", "/run", "/var/log", "/var/cache", "/var/lib"]),
    ("missing-name", "command:nosuchprogram", &[]),
    ("no-escalation", r#"{"allowPrivilegeEscalation": false}"#, &[]),
    ("drop-setuid", r#"{"capabilities": {"drop": ["SETUID"]}}"#, &[]),
    ("drop-setgid", r#"{"capabilities": {"drop": ["SETGID"]}}"#, &[]),
    ("drop-chown", r#"{"capabilities": {"drop": ["CHOWN"]}}"#, &[]),
    ("drop-dac-override", r#"{"capabilities": {"drop": ["DAC_OVERRIDE"]}}"#, &[]),
    ("drop-net-bind-service", r#"{"capabilities": {"drop": ["NET_BIND_SERVICE"]}}"#, &[]),
    (
        "restricted",
        r#"{"runAsNonRoot": true, "runAsUser": 65534, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}"#,
        &[],
    ),
    (
        "restricted-readonly",
        r#"{"runAsNonRoot": true, "runAsUser": 65534, "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}"#,
        &["/tmp"],
    ),
    ("hide-etc", "{}", &["/etc"]),
];

fn main() -> ExitCode {
    let images =
        PathBuf::from(env::var_os("IMAGES").expect("IMAGES names the folder of real images: `.ci/run` builds them"));
    let mut names: Vec<String> = fs::read_dir(&images)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.truncate(number("FIT_IMAGES", names.len()));
    let cases = &CASES[..number("FIT_CASES", CASES.len()).min(CASES.len())];
    let cluster = Cluster::start("");
    let (mut table, mut wrong) = (BTreeMap::<(String, &str), u32>::new(), Vec::new());
    for name in &names {
        let layout = images.join(name);
        let image = format!("127.0.0.1:5000/fit/{name}:1");
        run(cluster.inside("crane").arg("push").arg(&layout).arg(&image)).ok();
        let dna = cluster.folder().join("dna.json");
        let source = format!("oci:{}", layout.display());
        mayfly(["analyze", &source, "--format", "json", "-o", &dna.to_string_lossy()]).ok();
        for batch in cases.chunks(BATCH) {
            let pods: Vec<(String, Value)> =
                batch.iter().map(|case| (format!("{name}/{}", case.0), pod(name, &image, case))).collect();
            let ran = outcomes(&cluster, &pods);
            for ((case, pod), runs) in pods.iter().zip(ran) {
                let file = cluster.folder().join("pod.json");
                fs::write(&file, pod.to_string()).expect("written");
                let source = format!("dna:{}", dna.display());
                let asked = mayfly(["expect", &source, "--pod", &file.to_string_lossy(), "--format", "json"]);
                let findings = asked.json()["findings"].as_array().cloned().expect("findings");
                let has = |effect: &str| findings.iter().any(|finding| finding["effect"] == effect);
                let said = if has("fails") {
                    "fails"
                } else if has("may-fail") {
                    "may fail"
                } else {
                    "comes up"
                };
                let is_wrong = (said == "fails" && runs.is_none()) || (said == "comes up" && runs.is_some());
                *table.entry((said.to_owned(), if runs.is_none() { "runs" } else { "fails" })).or_default() += 1;
                if is_wrong {
                    wrong.push(format!("{case}: said \"{said}\", {}", runs.unwrap_or_else(|| "runs".to_owned())));
                }
            }
        }
    }
    let total: u32 = table.values().sum();
    println!("{} images, {} cases of each: {total} pods", names.len(), cases.len());
    for ((said, is), count) in &table {
        println!("said \"{said}\", {is}: {count}");
    }
    wrong.iter().for_each(|line| println!("WRONG {line}"));
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn number(name: &str, default: usize) -> usize {
    env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")))
}

fn pod(name: &str, image: &str, (case, sets, folders): &Case) -> Value {
    let mounts: Vec<Value> =
        folders.iter().enumerate().map(|(at, path)| json!({"name": format!("v{at}"), "mountPath": path})).collect();
    let volumes: Vec<Value> = (0..folders.len()).map(|at| json!({"name": format!("v{at}"), "emptyDir": {}})).collect();
    let mut container = json!({"name": "c", "image": image, "volumeMounts": mounts});
    match sets.strip_prefix("command:") {
        Some(program) => container["command"] = json!([program]),
        None => container["securityContext"] = serde_json::from_str(sets).expect("JSON"),
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{name}-{case}"), "labels": {"fit": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "enableServiceLinks": false,
            "containers": [container], "volumes": volumes}})
}

/// Why each does not run; none of what runs. A container that came up once and stayed so for [`STAYS`] runs.
fn outcomes(cluster: &Cluster, pods: &[(String, Value)]) -> Vec<Option<String>> {
    let objects: Vec<&Value> = pods.iter().map(|(_, pod)| pod).collect();
    cluster.kubectl_with(&["create"], &json!({"apiVersion": "v1", "kind": "List", "items": objects})).ok();
    let started = Instant::now();
    let names: Vec<String> =
        objects.iter().map(|pod| pod["metadata"]["name"].as_str().expect("a name").to_owned()).collect();
    let states = loop {
        thread::sleep(Duration::from_secs(2));
        let states: Vec<Value> =
            names.iter().map(|name| cluster.get("default", "pod", name)["status"].clone()).collect();
        let is_settled = |status: &Value| {
            let state = &status["containerStatuses"][0];
            let waits = state["state"]["waiting"]["reason"].as_str().unwrap_or("ContainerCreating");
            state["state"].get("running").is_some()
                || (waits != "ContainerCreating" && waits != "PodInitializing")
                || state["state"].get("terminated").is_some()
        };
        let is_over = started.elapsed() > STAYS && states.iter().all(is_settled);
        if is_over || started.elapsed() > LONGEST {
            break states;
        }
    };
    let label = format!("fit={}", objects[0]["metadata"]["labels"]["fit"].as_str().expect("a label"));
    cluster.kubectl(["delete", "pod", "-l", &label, "--grace-period=0", "--force"]).ok();
    let why = |status: &Value| {
        let state = &status["containerStatuses"][0];
        let runs = state["state"].get("running").is_some() && state["restartCount"] == 0;
        (!runs).then(|| state["state"].to_string().chars().take(300).collect())
    };
    states.iter().map(why).collect()
}

/// Pods at once: a machine of two cores starts so many in time.
const BATCH: usize = 8;
const STAYS: Duration = Duration::from_secs(25);
const LONGEST: Duration = Duration::from_secs(60);
