//! `mayfly trust-root` against a TUF repository on loopback.
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use sigstore_instance::tuf::{LATER, PAST, Repository, Server};

fn trust_root(server: &Server, folder: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.args(["trust-root", "--tuf-url", server.url(), "--tuf-root"]).arg(folder.join("root.json"));
    command.arg("--cache-dir").arg(folder.join("cache")).args(more).stdin(Stdio::null());
    command.output().expect("runs")
}

fn refused(output: &Output, said: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{told}");
    assert!(told.contains(said), "{said}: {told}");
}

#[test]
fn a_trust_root_is_refreshed_and_what_is_kept_is_verified_again() {
    let (server, folder) = (Server::start(), tempfile::tempdir().expect("a folder"));
    let trusted = sigstore_instance::Instance::new().trusted_root();
    let mut repository = Repository::new(&trusted);
    fs::write(folder.path().join("root.json"), repository.root()).expect("written");
    let run = |more: &[&str]| trust_root(&server, folder.path(), more);
    let same_text = |output: &Output| {
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout), trusted);
    };

    refused(&run(&["--offline"]), "no current trust root");
    repository.publish_as(2, &trusted, LATER);
    server.serve(Some(repository.files()));
    same_text(&run(&[]));
    server.serve(None);
    refused(&run(&[]), server.url());
    same_text(&run(&["--offline"]));

    // Older metadata, of the same signer.
    repository.publish_as(1, &trusted, LATER);
    server.serve(Some(repository.files()));
    refused(&run(&[]), "no current trust root");

    // What is kept is no more believed than what is sent.
    let kept = fs::read_dir(folder.path().join("cache")).expect("a folder").next().expect("one").expect("one").path();
    let target = kept.join("targets/trusted_root.json");
    fs::write(&target, trusted.replace("2020", "2010").replace("2021", "2011") + " ").expect("written");
    refused(&run(&["--offline"]), "no current trust root");
}

#[test]
fn a_repository_that_is_old_or_not_signed_as_its_root_says_is_refused() {
    let trusted = sigstore_instance::Instance::new().trusted_root();
    let mut repository = Repository::new(&trusted);
    let root = repository.root().to_owned();
    let mut turned = repository.files();
    turned.insert("/targets/trusted_root.json".to_owned(), trusted.replace("https", "httpz").into_bytes());
    let mut foreign = Repository::new(&trusted).files();
    foreign.insert("/1.root.json".to_owned(), root.clone());
    repository.publish(&trusted, PAST);
    for (said, files) in [("integrity check", turned), ("signature", foreign), ("expired", repository.files())] {
        let (server, folder) = (Server::start(), tempfile::tempdir().expect("a folder"));
        fs::write(folder.path().join("root.json"), &root).expect("written");
        server.serve(Some(files));
        refused(&trust_root(&server, folder.path(), &[]), said);
    }
}

#[test]
fn a_repository_behind_tls_is_reached_with_its_authority_and_not_without() {
    let (server, folder) = (Server::start_tls(), tempfile::tempdir().expect("a folder"));
    let trusted = sigstore_instance::Instance::new().trusted_root();
    let repository = Repository::new(&trusted);
    server.serve(Some(repository.files()));
    fs::write(folder.path().join("root.json"), repository.root()).expect("written");
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, server.ca_pem()).expect("written");
    let ca = ca.display().to_string();
    refused(&trust_root(&server, folder.path(), &[]), server.url());
    let reached = trust_root(&server, folder.path(), &["--ca-file", &ca]);
    assert_eq!(String::from_utf8_lossy(&reached.stdout), trusted, "{}", String::from_utf8_lossy(&reached.stderr));
    fs::write(&ca, "nothing").expect("written");
    refused(&trust_root(&server, folder.path(), &["--ca-file", &ca]), "no PEM certificates");
}
