//! The DNA, enforced: every real image runs under the seccomp profile and the capabilities that its DNA gives, and its workload
//! still passes. The harness that recorded the truth starts and drives the containers (`enforced.py`).

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tests::{mayfly, run};

/// What Docker's default profile allows, from the table that `mayfly profile` measures itself by.
fn docker() -> BTreeSet<String> {
    let table = include_str!("../../cli/src/profile/seccomp.toml");
    let list = table.split_once("[docker]").expect("the yardstick is last").1;
    let names = list.split_once("names = [").expect("a list").1;
    names.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn allowed(profile: &Value) -> BTreeSet<String> {
    let rules = profile["syscalls"].as_array().expect("rules").iter();
    let allowing = rules.filter(|rule| rule["action"] == "SCMP_ACT_ALLOW");
    let names = allowing.flat_map(|rule| rule["names"].as_array().expect("names"));
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The capabilities to run with; none where they are not worked out: Docker's default ones then.
fn capabilities(dna: &str) -> Vec<String> {
    let output = mayfly(["profile", dna, "--for", "capabilities"]);
    if output.code != 0 {
        return Vec::new();
    }
    let context = output.json();
    let add = context["securityContext"]["capabilities"]["add"].as_array().expect("a list").clone();
    let names: Vec<String> = add.iter().filter_map(Value::as_str).map(|name| format!("CAP_{name}")).collect();
    if names.is_empty() { vec!["none".to_owned()] } else { names }
}

#[test]
fn every_workload_passes_under_its_profile() {
    let images = PathBuf::from(env::var_os("IMAGES").expect("IMAGES names the folder of image layouts: see .ci/run"));
    let harness = PathBuf::from(env::var_os("TRUTH_HARNESS").expect("TRUTH_HARNESS names the harness: see .ci/run"));
    let folder = tempfile::tempdir().expect("a folder");
    let docker = docker();
    let (mut failed, mut shares) = (Vec::new(), Vec::new());
    let mut names: Vec<String> = fs::read_dir(&images)
        .expect("IMAGES is a folder")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| images.join(name).join("index.json").exists())
        .collect();
    names.sort();
    println!("{:16} {:>7} {:>7} {:>4}  capabilities", "image", "allowed", "denied", "ok");
    for name in names {
        let file = |kind: &str| folder.path().join(format!("{name}.{kind}.json")).display().to_string();
        let (dna, profile) = (format!("dna:{}", file("dna")), file("profile"));
        mayfly(["analyze", &format!("oci:{}", images.join(&name).display()), "--format", "json", "-o", &file("dna")])
            .ok();
        mayfly(["profile", &dna, "--for", "seccomp", "-o", &profile]).ok();
        let document: Value = serde_json::from_slice(&fs::read(&profile).expect("a profile")).expect("JSON");
        let ours = allowed(&document);
        let share = 1.0 - docker.intersection(&ours).count() as f64 / docker.len() as f64;
        shares.push(share);
        let capabilities = capabilities(&dna);
        let done = enforced(&harness, &name, &profile, &capabilities);
        let shown = if capabilities.is_empty() { "Docker's default".to_owned() } else { capabilities.join(" ") };
        let ok = if done["error"].is_null() { "yes" } else { "no" };
        println!("{name:16} {:>7} {:>6.1}% {ok:>4}  {shown}", ours.len(), share * 100.0);
        if !done["error"].is_null() {
            println!("{:16} {done}", "");
            failed.push(name);
        }
    }
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    println!(
        "{} images; {:.1} % of Docker's {} system calls are denied on average",
        shares.len(),
        mean * 100.0,
        docker.len()
    );
    assert!(shares.len() >= 10, "only {} images", shares.len());
    assert!(failed.is_empty(), "the profile breaks {failed:?}");
    assert!(mean >= LEAST_DENIED, "{mean}");
}

fn enforced(harness: &Path, name: &str, profile: &str, capabilities: &[String]) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/suites/enforced.py");
    let mut command = Command::new("python3");
    command.arg(script).args([name, profile]).args(capabilities).env("TRUTH_HARNESS", harness);
    run(&mut command).ok().json()
}

/// The share of Docker's default profile that is denied, on average: what this version reaches. The aim is 0.6.
const LEAST_DENIED: f64 = 0.48;
