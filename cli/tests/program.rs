//! The program as a user meets it: exit codes, help, errors, pipes.

use std::process::{Command, Output, Stdio};

fn mayfly(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mayfly")).args(arguments).stdin(Stdio::null()).output().expect("runs")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn errors_end_with_two_and_say_what_where_and_what_to_do() {
    for (arguments, parts) in [
        (&["analyze", "oci:/nowhere/image"][..], &["/nowhere/image"][..]),
        (&["analyze", "oci-archive:/nowhere.tar"], &["/nowhere.tar"]),
        (&["analyze", "dir:/nowhere"], &["/nowhere"]),
        (&["analyze", "bad image name"], &["bad image name"]),
        (&["analyze", "x", "--limit", "depth=1"], &["depth=1", "path_depth"]),
        (&["analyze", "x", "--platform", "linux"], &["--platform", "OS/ARCHITECTURE"]),
        (&["analyze", "x", "--command", "a 'b"], &["--command", "quote"]),
        (&["analyze"], &["SOURCE"]),
        (&["analyze", "x", "--mount", "etc=x"], &["etc=x", "PATH=FILE"]),
        (&["analyze", "x", "--mount", "/etc/x=/nowhere"], &["--mount", "/nowhere"]),
        (&["analyze", "x", "--env", "name"], &["NAME=VALUE"]),
        (&["analyze", "dna:/nowhere.json"], &["--format json"]),
        (&["profile", "oci:/nowhere/image"], &["--for"]),
        (&["profile", "dna:/nowhere.json", "--for", "seccomp"], &["/nowhere.json", "No such file"]),
        (&["profile", "x", "--for", "seccomp", "--all-platforms"], &["--platform"]),
        (&["explain", "dna:/nowhere.json", "what"], &["what", "syscall:NAME"]),
        (
            &["verify", "x", "--certificate-identity", "a", "--certificate-oidc-issuer", "b", HOSTS.0, HOSTS.1],
            &[HOSTS.1],
        ),
        (&["sign", "x", "--key", "y", HOSTS.0, HOSTS.1], &[HOSTS.1]),
        (&["attest", "x", "--key", "y", HOSTS.0, HOSTS.1], &[HOSTS.1]),
        (&["nosuch"], &["nosuch"]),
    ] {
        let output = mayfly(arguments);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(output.stdout.is_empty(), "{arguments:?} writes data");
        for part in parts {
            assert!(told.contains(part), "{arguments:?} does not name {part}: {told}");
        }
    }
}

const HOSTS: (&str, &str) = ("--registries", "/nowhere.toml");

#[test]
fn help_version_schema_manual_and_completions_are_printed() {
    for (arguments, part) in [
        (&["--help"][..], "analyze"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["analyze", "--help"], "oci-archive:FILE"),
        (&["schema"], "https://mayfly.dev/dna/v1"),
        (&["man"], ".TH mayfly"),
        (&["completions", "bash"], "_mayfly"),
    ] {
        let output = mayfly(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", told(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains(part), "{arguments:?} lacks {part}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mayfly"))
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!((output.status.code(), told(&output).as_str()), (Some(0), ""));
}

#[test]
fn the_demo_shows_its_own_dna_without_anything_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("demo.html");
    let output = mayfly(&["demo", "--no-wait", "-o", page.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(report.contains("/usr/bin/mayfly") && report.contains("user mayfly (65532)"), "{report}");
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg"), "{page}");
}

#[test]
fn a_result_appears_whole_or_not_at_all() {
    let output = mayfly(&["demo", "--no-wait", "-o", "/nowhere/at/all.html"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("cannot write /nowhere/at/all.html"), "{}", told(&output));
}

#[test]
fn the_help_is_the_one_people_know() {
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("help-analyze", &["analyze", "--help"]),
        ("help-explain", &["explain", "--help"]),
        ("help-profile", &["profile", "--help"]),
        ("help-pull", &["pull", "--help"]),
        ("help-verify", &["verify", "--help"]),
        ("help-attest", &["attest", "--help"]),
        ("help-sign", &["sign", "--help"]),
        ("help-trust-root", &["trust-root", "--help"]),
        ("help-keys", &["keys", "--help"]),
        ("help-keys-generate", &["keys", "generate", "--help"]),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_mayfly"))
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .expect("runs");
        insta::assert_snapshot!(name, String::from_utf8_lossy(&output.stdout));
    }
}
