//! The webhook in a real cluster: real objects by kubectl, real pods by containerd, refused or admitted and running.
//!
//! One cluster for all; each test has a namespace of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{Cluster, Inside, mayfly_path, run};

/// The cluster with the webhook in it.
struct World {
    cluster: Cluster,
    webhook: Mutex<Option<Inside>>,
}

static WORLD: LazyLock<World> = LazyLock::new(World::start);

impl World {
    fn start() -> Self {
        let cluster = Cluster::start("");
        let folder = cluster.folder().to_owned();
        certificate(&folder.join("tls"));
        fs::create_dir_all(folder.join("rules")).expect("a folder");
        fs::write(folder.join("rules/rules.yaml"), RULES).expect("written");
        push_images(&cluster);
        let world = Self { cluster, webhook: Mutex::new(None) };
        world.up();
        world.register("Fail");
        world
    }

    /// Starts the webhook and waits until it is ready.
    fn up(&self) {
        let folder = self.cluster.folder();
        let mut command = self.cluster.inside(mayfly_path());
        command
            .args(["serve", "--listen", "127.0.0.1:8443", "--status-listen", "127.0.0.1:8081", "--plain-http", "--drain", "0"])
            .args(["--read-secrets", "--read-config-maps", "--own-namespace", "mayfly-system"])
            .arg("--tls-dir")
            .arg(folder.join("tls"))
            .arg("--rules")
            .arg(folder.join("rules"))
            .arg("--data")
            .arg(folder.join("mayfly"))
            .env("RUST_LOG", "info");
        let inside = self.cluster.spawn("webhook", &mut command);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.status("readyz") != "ok" {
            assert!(Instant::now() < deadline, "the webhook is not ready: {}", inside.log());
            thread::sleep(Duration::from_millis(50));
        }
        *self.webhook.lock().expect("no panic before") = Some(inside);
    }

    /// What a path of the webhook says.
    fn status(&self, path: &str) -> String {
        run(self.cluster.inside("curl").args(["-s", "-m", "5", &format!("http://127.0.0.1:8081/{path}")])).text()
    }

    fn register(&self, failure_policy: &str) {
        let bundle = fs::read(self.cluster.folder().join("tls/ca.crt")).expect("a certificate");
        let rule = |groups: &[&str], resources: &[&str], operations: &[&str]| {
            json!({"apiGroups": groups, "apiVersions": ["*"], "resources": resources, "operations": operations})
        };
        let both = ["CREATE", "UPDATE"];
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "mayfly"},
            "webhooks": [{
                "name": "images.mayfly.dev",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "NoneOnDryRun",
                "timeoutSeconds": 10,
                "failurePolicy": failure_policy,
                "matchPolicy": "Equivalent",
                "clientConfig": {"url": "https://127.0.0.1:8443/validate", "caBundle": base64(&bundle)},
                "namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn",
                    "values": ["kube-system", "mayfly-system"]}]},
                "rules": [
                    rule(&[""], &["pods", "replicationcontrollers", "podtemplates"], &both),
                    rule(&[""], &["pods/ephemeralcontainers"], &["UPDATE"]),
                    rule(&["apps"], &["deployments", "replicasets", "statefulsets", "daemonsets"], &both),
                    rule(&["batch"], &["jobs", "cronjobs"], &both),
                    rule(&[""], &["namespaces"], &both),
                ],
            }],
        });
        self.cluster.kubectl_with(&["apply"], &configuration).ok();
    }

    /// A namespace; where `enforced`, rules are more than recorded there.
    fn namespace(&self, name: &str, enforced: bool) {
        let labels = if enforced { json!({"mayfly.dev/enforce": "true"}) } else { json!({}) };
        self.cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}));
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.cluster.kubectl(["get", "serviceaccount", "default", "-n", name]).code != 0 {
            assert!(Instant::now() < deadline, "namespace {name} has no service account");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn refused(&self, object: &Value) -> String {
        let done = self.cluster.kubectl_with(&["create"], object);
        assert_ne!(done.code, 0, "it was admitted: {object:#}");
        done.stderr
    }
}

impl Drop for World {
    fn drop(&mut self) {}
}
