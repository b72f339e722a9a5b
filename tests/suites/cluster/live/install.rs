//! The bridge as `deploy/bridge` has it: its settings, its rights, and its pod.

use std::{fs, os::unix::fs::PermissionsExt as _};

use dna::Digest;
use serde_json::{Value, json};
use tests::run;

use super::SECRET;
use crate::world::{OWN, World, wait};

/// A folder for `kubectl apply -k`: the manifests with the digest of this suite's secret, and what is added to them.
pub(crate) fn files(world: &World, name: &str, more: &str) -> String {
    let deploy = world.deploy("bridge", name, more);
    let sensors = format!("{deploy}/base/sensors.toml");
    let digest = Digest::sha256(SECRET.as_bytes());
    let text = ["SHA-256 OF THE SECRET IN FALCO'S URL", "SHA-256 OF THE API SERVER'S TOKEN"]
        .iter()
        .fold(fs::read_to_string(&sensors).expect("settings"), |text, place| text.replace(place, digest.hex()));
    fs::write(sensors, text).expect("written");
    deploy
}

/// What its account may do, and what it may not.
pub(super) fn has_few_rights(world: &World) {
    let may = |words: &[&str]| {
        let account = format!("--as=system:serviceaccount:{OWN}:mayfly-bridge");
        world.cluster.kubectl([&["auth", "can-i"], words, &[account.as_str()]].concat()).text().trim() == "yes"
    };
    assert!(may(&["watch", "pods", "-A"]) && may(&["create", "events.events.k8s.io", "-A"]));
    for words in [
        &["get", "pods", "-A"][..],
        &["create", "pods", "-n", OWN],
        &["create", "pods", "--subresource=exec", "-n", OWN],
        &["get", "secrets", "-n", OWN],
        &["list", "configmaps", "-A"],
        &["list", "events.events.k8s.io", "-A"],
        &["list", "namespaces"],
    ] {
        assert!(!may(words), "{words:?}");
    }
}

/// Its pod comes up by the manifests, and takes an event. The webhook's ledger and image are there already.
pub(crate) fn runs_as_shipped(world: &World) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([format!("mayfly-bridge.{OWN}.svc")]).expect("a certificate");
    let data = json!({"tls.crt": cert.pem(), "tls.key": signing_key.serialize_pem()});
    world
        .cluster
        .create(&json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "stringData": data,
        "metadata": {"name": "mayfly-bridge-tls", "namespace": OWN}}));
    // What this cluster lacks: volumes.
    let folder = world.cluster.folder().join("events");
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("its owner is us");
    world.cluster.create(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "events"},
        "spec": {"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": folder}}}));
    // And a name and an address of the API server for pods.
    let more = r#"
images: [{name: registry.example.com/mayfly, newName: 127.0.0.1:5000/mayfly, newTag: "1"}]
patches:
  - target: {kind: StatefulSet, name: mayfly-bridge}
    patch: |
      - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: KUBERNETES_SERVICE_HOST, value: 10.99.0.1}}
      - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: KUBERNETES_SERVICE_PORT, value: "6443"}}
"#;
    let deploy = files(world, "bridge-pod", more);
    world.cluster.kubectl(["apply", "--server-side", "--force-conflicts", "-k", &deploy]).ok();
    let done = world.cluster.kubectl(["rollout", "status", "-n", OWN, "statefulset/mayfly-bridge", "--timeout=120s"]);
    let told = || world.cluster.kubectl(["logs", "-n", OWN, "mayfly-bridge-0"]).text();
    let object = || world.cluster.kubectl(["get", "-n", OWN, "pod/mayfly-bridge-0", "-o", "jsonpath={.status}"]).text();
    assert_eq!(done.code, 0, "{}\n{}\n{}", done.stderr, told(), object());
    let pod = world.cluster.get(OWN, "pod", "mayfly-bridge-0");
    let address = pod["status"]["podIP"].as_str().expect("an address").to_owned();
    let asked = |arguments: &[&str]| {
        let mut command = world.cluster.inside("curl");
        run(command.args(["-sSk", "-m", "10"]).args(arguments)).ok().text()
    };
    let event = json!({"rule": "mayfly-1-exec", "source": "syscall", "output_fields": {"evt.type": "execve",
        "evt.time": 1_790_000_000_000_000_000_u64, "container.id": "0123456789ab", "proc.exepath": "/bin/sh"}});
    let url = format!("https://{address}:8444/v1/events/falco/{SECRET}");
    assert_eq!(asked(&["-d", &event.to_string(), &url]), "{}");
    let url = format!("https://{address}:8445/api/v1/sensors");
    wait(30, "the event is taken in", || {
        let answer = asked(&["-H", "Authorization: Bearer admin-token", &url]);
        let known: Value = serde_json::from_str(&answer).unwrap_or_default();
        let sensors = known["sensors"].as_array().cloned().unwrap_or_default();
        let falco = sensors.iter().find(|sensor| sensor["name"] == "falco");
        let is_there = falco.is_some_and(|falco| falco["events"] == 1 && falco["pack"] == 1);
        if is_there { Ok(()) } else { Err(format!("{answer} {}", told())) }
    });
}
