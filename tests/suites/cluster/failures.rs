//! What happens when the webhook does not answer, and that nothing is lost while its parts are exchanged.

use std::{fs, path::Path, process::Command, time::Instant};

use serde_json::{Value, json};
use tests::{mayfly_path, run};

use crate::{
    api::FORBIDDEN,
    load::under_load,
    world::{ADDRESS, BUSYBOX, OWN, PROCESS, World, packed, pod, sleeping, wait},
};

pub(crate) fn without_an_answer_the_failure_policy_decides(world: &World) {
    world.namespace("silent", true);
    let object = pod("silent", "one", &json!({"containers": [sleeping(BUSYBOX)]}));
    let tried = || world.cluster.kubectl_with(&["create", "--dry-run=server"], &object);
    let set = |changes: Value| {
        let patch =
            json!({"webhooks": [merged("images.mayfly.dev", &changes), merged("namespaces.mayfly.dev", &changes)]});
        let patch = patch.to_string();
        let name = ["patch", "validatingwebhookconfiguration", "mayfly", "--type=strategic", "-p", &patch];
        world.cluster.kubectl(name).ok();
    };
    // The API server takes note of a change within a moment.
    let becomes = |is_admitted: bool, said: &str| {
        wait(20, said, || {
            let started = Instant::now();
            let done = tried();
            let is_so = (done.code == 0) == is_admitted && done.stderr.contains(said);
            if is_so { Ok(started.elapsed()) } else { Err(done.stderr) }
        })
    };
    world.until_decided(&object, None);

    world.down();
    becomes(false, "failed calling webhook");
    set(json!({"failurePolicy": "Ignore"}));
    becomes(true, "");
    set(json!({"failurePolicy": "Fail"}));
    becomes(false, "failed calling webhook");
    world.up();
    becomes(true, "");

    // One that takes the connection, and says nothing.
    set(json!({"timeoutSeconds": 2}));
    world.signal("STOP");
    let took = becomes(false, "deadline exceeded").as_secs_f32();
    assert!((2.0..9.0).contains(&took), "{took} s");
    set(json!({"failurePolicy": "Ignore"}));
    let took = becomes(true, "").as_secs_f32();
    assert!((2.0..9.0).contains(&took), "{took} s");
    set(json!({"failurePolicy": "Fail", "timeoutSeconds": 10}));
    world.signal("CONT");
    becomes(true, "");
    // And it decides, not only answers.
    let mut bad = object.clone();
    bad["spec"]["containers"][0]["command"] = json!(["/no/such/program"]);
    world.until_decided(&bad, Some("WILL_NOT_START"));
}

fn merged(name: &str, changes: &Value) -> Value {
    let mut webhook = changes.clone();
    webhook["name"] = json!(name);
    webhook
}

/// Replaces the process by the pods of the manifests, as they are shipped; where they run already, that is all.
pub(crate) fn install_pods(world: &World) {
    if !pods(world).is_empty() {
        return;
    }
    push_mayfly(world);
    // What this cluster lacks: a name and an address of the API server for pods, and TLS of its registry.
    let more = r#"
images: [{name: registry.example.com/mayfly, newName: 127.0.0.1:5000/mayfly, newTag: "1"}]
patches:
  - target: {kind: Deployment, name: mayfly}
    patch: |
      - {op: add, path: /spec/template/spec/containers/0/args/-, value: --plain-http}
      - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: KUBERNETES_SERVICE_HOST, value: 10.99.0.1}}
      - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: KUBERNETES_SERVICE_PORT, value: "6443"}}
"#;
    let deploy = world.deploy("webhook", "pods", more);
    world.cluster.kubectl(["apply", "--server-side", "--force-conflicts", "-k", &deploy]).ok();
    rolled(world);
    world.cluster.kubectl(["delete", "endpointslice", "-n", OWN, PROCESS]).ok();
    world.down();
}

/// Waits until the manifests' replicas are those that were asked for.
pub(crate) fn rolled(world: &World) {
    let done = world.cluster.kubectl(["rollout", "status", "-n", OWN, "deployment/mayfly", "--timeout=120s"]);
    assert_eq!(done.code, 0, "{}\n{}", done.stderr, told(world));
}

pub(crate) fn installed_as_shipped_its_certificate_and_replicas_are_exchanged_under_load(world: &World) {
    install_pods(world);
    world.namespace("loaded", true);
    let image = format!("{ADDRESS}:5000/busybox:1");
    let mut object = pod("loaded", "", &json!({"containers": [sleeping(&image)]}));
    object["metadata"] = json!({"generateName": "p-", "namespace": "loaded"});
    wait(30, "the pods answer", || {
        let done = world.cluster.kubectl_with(&["create", "--dry-run=server"], &object);
        if done.code == 0 { Ok(()) } else { Err(done.stderr) }
    });
    let mut bad = object.clone();
    bad["spec"]["containers"][0]["command"] = json!(["/no/such/program"]);
    world.until_decided(&bad, Some("WILL_NOT_START"));

    let before = served(world);
    assert!(before.len() == 2 && before[0] == before[1], "one certificate for both: {before:?}");
    let tried = under_load(world, &object, || {
        // Without a certificate in the Secret the next look makes one.
        let patch = r#"{"data": {"tls.crt": ""}}"#;
        world.cluster.kubectl(["patch", "secret", "-n", OWN, "mayfly-tls", "-p", patch]).ok();
        let now = wait(80, "both serve another certificate", || {
            let now = served(world);
            let is_other = now.len() == 2 && now[0] == now[1] && now[0] != before[0];
            if is_other { Ok(now) } else { Err(format!("{now:?}")) }
        });
        assert_ne!(now, before);
    });
    println!("{tried} pods while the certificate was exchanged");
    assert!(tried >= 200, "{tried}");

    let tried = under_load(world, &object, || {
        let gone = pods(world)[0].0.clone();
        world.cluster.kubectl(["delete", "pod", "-n", OWN, &gone, "--wait=true", "--timeout=90s"]).ok();
        rolled(world);
        assert!(pods(world).iter().all(|(name, _)| *name != gone));
    });
    println!("{tried} pods while one of two replicas was replaced");
    let tried = under_load(world, &object, || {
        world.cluster.kubectl(["rollout", "restart", "-n", OWN, "deployment/mayfly"]).ok();
        rolled(world);
        wait(90, "the old ones have ended", || if pods(world).len() == 2 { Ok(()) } else { Err(told(world)) });
    });
    println!("{tried} pods while all replicas were replaced");
    let log = told(world);
    assert!(!log.contains(FORBIDDEN), "{log}");
}

/// The webhook's pods, each with its address.
pub(crate) fn pods(world: &World) -> Vec<(String, String)> {
    let list = world.cluster.kubectl(["get", "pods", "-n", OWN, "-o", "json"]).ok().json();
    let text = |pod: &Value, pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let pods = list["items"].as_array().expect("pods").iter();
    pods.map(|pod| (text(pod, "/metadata/name"), text(pod, "/status/podIP"))).collect()
}

/// The serial number of the certificate that each pod serves.
fn served(world: &World) -> Vec<String> {
    let serial = |address: &str| {
        let asked = format!(
            "openssl s_client -connect {address}:8443 -servername mayfly.{OWN}.svc </dev/null 2>/dev/null | openssl x509 -noout -serial"
        );
        run(world.cluster.inside("sh").args(["-c", &asked])).text()
    };
    pods(world).iter().map(|(_, address)| serial(address)).collect()
}

/// What the webhook's pods say, and what is said of them.
pub(crate) fn told(world: &World) -> String {
    let logs =
        world.cluster.kubectl(["logs", "-n", OWN, "-l", "app.kubernetes.io/name=mayfly", "--tail=200", "--prefix"]);
    let events = world.cluster.kubectl(["get", "events", "-n", OWN, "--sort-by=.lastTimestamp"]);
    let events = events.text();
    let events: Vec<&str> = events.lines().rev().take(15).collect();
    format!("{}{}\n{}", logs.text(), logs.stderr, events.join("\n"))
}

/// An image of the program under test and the libraries it is linked to.
fn push_mayfly(world: &World) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |path: &str| folder.path().join(path.trim_start_matches('/'));
    fs::create_dir_all(at("usr/bin")).expect("a folder");
    let program = at("usr/bin/mayfly");
    fs::copy(mayfly_path(), &program).expect("copied");
    // Symbols are most of it.
    let _ = Command::new("strip").arg(&program).status();
    let linked = run(Command::new("ldd").arg(mayfly_path())).ok().text();
    for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = at(library);
        fs::create_dir_all(target.parent().unwrap_or(Path::new("/"))).expect("a folder");
        fs::copy(library, target).expect("copied");
    }
    let entries: Vec<String> = fs::read_dir(folder.path())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let layer = packed(folder.path(), &entries.iter().map(String::as_str).collect::<Vec<_>>());
    let target = ["-t", "127.0.0.1:5000/mayfly:1", "--platform", "linux/amd64"];
    run(world.cluster.inside("crane").args(["append", "--insecure", "-f"]).arg(&layer).args(target)).ok();
}
