//! The arrows between crates run downward only, and what must stay out of the tree stays out.

use std::{collections::BTreeSet, process::Command};

/// Which crates of the workspace each may use, at any depth.
const ARROWS: [(&str, &[&str]); 11] = [
    ("dna", &[]),
    ("oci", &["dna"]),
    ("analyzer", &["dna", "oci"]),
    ("trust", &["dna", "oci"]),
    ("policies", &["dna"]),
    ("lineage", &["dna"]),
    ("certs", &[]),
    ("webhook", &["analyzer", "certs", "dna", "lineage", "oci", "policies", "trust"]),
    ("runtime-bridge", &["analyzer", "certs", "dna", "lineage", "oci", "policies", "trust"]),
    ("cli", &["analyzer", "certs", "dna", "lineage", "oci", "policies", "runtime-bridge", "trust", "webhook"]),
    // Makes signed material for tests only: it uses nothing of ours, and nothing we ship uses it.
    ("sigstore-instance", &[]),
];

/// Crates that nothing we ship may bring in, and why.
const BANNED: [(&str, &str); 3] =
    [("ring", "one crypto library: aws-lc-rs"), ("openssl-sys", "no OpenSSL"), ("native-tls", "no OpenSSL")];

/// Crates that pull a network or a runtime into what must stay sync and offline.
const ASYNC: [&str; 5] = ["tokio", "reqwest", "hyper", "oci-client", "rustls"];

/// Names of all crates in `package`'s tree: normal and build dependencies on Linux.
fn tree(package: &str, options: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--prefix=none", "--format={p}", "--edges=normal,build", "--package", package])
        .args(options)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("UTF-8");
    names.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn arrows_between_crates_run_downward_only() {
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for (name, may_use) in ARROWS {
        let used = tree(name, &[]);
        let wrong: Vec<_> =
            used.iter().filter(|n| ours.contains(n.as_str()) && *n != name && !may_use.contains(&n.as_str())).collect();
        assert!(wrong.is_empty(), "{name} uses {wrong:?}");
    }
}

#[test]
fn nothing_banned_is_in_the_tree() {
    let used = tree("cli", &[]);
    for (name, why) in BANNED {
        assert!(!used.contains(name), "{name} is in the tree ({why}): cargo tree -i {name}");
    }
}

#[test]
fn analysis_is_offline_and_sync() {
    for name in ["dna", "oci", "analyzer", "policies"] {
        let used = tree(name, &["--no-default-features"]);
        let found: Vec<_> = ASYNC.iter().filter(|banned| used.contains(**banned)).collect();
        assert!(found.is_empty(), "{name} brings in {found:?}");
    }
}

#[test]
fn the_check_sees_the_program_s_own_runtime() {
    assert!(tree("cli", &[]).contains("tokio"), "the registry client needs tokio: the check above looks at nothing");
}
