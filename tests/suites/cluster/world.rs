//! The cluster with the webhook in it: installed from `deploy/webhook`, run as a process with the service account's rights.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{Cluster, Inside, mayfly_path, run};

/// What all scenarios share.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    /// Files that the API server reads.
    _audit: tempfile::TempDir,
    webhook: Mutex<Option<Inside>>,
    starts: AtomicUsize,
}

impl World {
    pub(crate) fn start() -> Self {
        let audit = tempfile::tempdir().expect("a folder");
        let cluster = Cluster::start(&crate::live::audited(audit.path()));
        let world = Self { cluster, _audit: audit, webhook: Mutex::new(None), starts: AtomicUsize::new(0) };
        world.namespace("before", false);
        let sleepers =
            (0..BEFORE).map(|n| pod("before", &format!("p{n}"), &json!({"containers": [sleeping(BUSYBOX)]})));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": sleepers.collect::<Vec<_>>()});
        world.cluster.kubectl_with(&["create"], &list).ok();
        world.all_run("before", BEFORE);
        world.install();
        world.up();
        world
    }

    /// Everything of `deploy/webhook`, without pods: the webhook is a process at the service's address.
    fn install(&self) {
        let deploy = self.deploy("webhook", "none", "replicas: [{name: mayfly, count: 0}]\n");
        self.cluster.kubectl(["apply", "--server-side", "-k", &deploy]).ok();
        self.cluster.kubectl(["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).ok();
        let rules = self.file("rules.yaml", RULES);
        self.cluster.kubectl(["apply", "-f", &rules]).ok();
        self.cluster.create(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": PROCESS, "namespace": OWN, "labels": {"kubernetes.io/service-name": "mayfly"}},
            "ports": [{"name": "webhook", "port": 8443, "protocol": "TCP"}],
            "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": true}}],
        }));
        self.account("mayfly");
    }

    /// Files with which a process has the rights of a service account: its kubeconfig, and its token alone.
    pub(crate) fn account(&self, name: &str) -> (String, String) {
        let token = self.cluster.kubectl(["create", "token", name, "-n", OWN, "--duration", "2h"]).ok().text();
        let administrator = fs::read_to_string(self.cluster.folder().join("kubeconfig")).expect("a kubeconfig");
        let kubeconfig = self.file(&format!("{name}.kubeconfig"), administrator.replace("admin-token", token.trim()));
        (kubeconfig, self.file(&format!("{name}.token"), token.trim()))
    }

    /// A folder for `kubectl apply -k`: the manifests as they are shipped for `part`, and what is added to them.
    pub(crate) fn deploy(&self, part: &str, name: &str, more: &str) -> String {
        let folder = self.cluster.folder().join("deploy").join(name);
        fs::create_dir_all(folder.join("base")).expect("a folder");
        for entry in fs::read_dir(Path::new(SHIPPED).join(part)).expect("the manifests") {
            let path = entry.expect("a file").path();
            fs::copy(&path, folder.join("base").join(path.file_name().expect("a name"))).expect("copied");
        }
        fs::write(folder.join("kustomization.yaml"), format!("resources: [base]\n{more}")).expect("written");
        folder.display().to_string()
    }

    /// A file in the cluster's folder.
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        tests::written(self.cluster.folder(), name, text)
    }

    /// Starts the webhook, and waits until the API server has its answers.
    pub(crate) fn up(&self) {
        let folder = self.cluster.folder();
        let mut command = self.cluster.inside("env");
        command.arg(format!("KUBECONFIG={}", folder.join("mayfly.kubeconfig").display())).arg("RUST_LOG=info");
        command.arg(mayfly_path()).args(["serve", "--listen", &format!("{ADDRESS}:8443"), "--plain-http"]);
        command.args(["--status-listen", "127.0.0.1:8081", "--own-namespace", OWN, "--drain", "0"]);
        command.args(["--tls-secret", "mayfly-system/mayfly-tls", "--dns-name", "mayfly.mayfly-system.svc"]);
        command.args(["--webhook-configuration", "mayfly", "--read-secrets", "--read-config-maps"]);
        command.args(["--sample-attested", "1", "--data"]).arg(folder.join("mayfly"));
        let number = self.starts.fetch_add(1, Ordering::Relaxed);
        let inside = self.cluster.spawn(&format!("webhook-{number}"), &mut command);
        let log = || inside.log();
        wait(30, "the webhook is ready", || (self.status("readyz") == "ok").then_some(()).ok_or_else(log));
        wait(30, "the API server has its answers", || self.is_answered().then_some(()).ok_or_else(log));
        *self.webhook.lock().expect("no panic before") = Some(inside);
    }

    /// Whether a pod that fits is admitted.
    pub(crate) fn is_answered(&self) -> bool {
        let object = pod("before", "asked", &json!({"containers": [sleeping(BUSYBOX)]}));
        self.cluster.kubectl_with(&["create", "--dry-run=server"], &object).code == 0
    }

    /// Ends the webhook without a word.
    pub(crate) fn down(&self) {
        drop(self.webhook.lock().expect("no panic before").take());
    }

    /// Sends the webhook a signal.
    pub(crate) fn signal(&self, name: &str) {
        self.webhook.lock().expect("no panic before").as_ref().expect("it runs").signal(name);
    }

    /// How often the webhook was started.
    pub(crate) fn starts(&self) -> usize {
        self.starts.load(Ordering::Relaxed)
    }

    /// All that webhooks have written.
    pub(crate) fn log(&self) -> String {
        let read = |number| fs::read_to_string(self.cluster.folder().join(format!("log/webhook-{number}")));
        (0..self.starts.load(Ordering::Relaxed)).filter_map(|number| read(number).ok()).collect()
    }

    /// What a path of the webhook says.
    pub(crate) fn status(&self, path: &str) -> String {
        run(self.cluster.inside("curl").args(["-s", "-m", "5", &format!("http://127.0.0.1:8081/{path}")])).text()
    }

    /// A namespace; where `enforced`, rules are more than recorded there.
    pub(crate) fn namespace(&self, name: &str, enforced: bool) {
        self.labeled(name, if enforced { json!({"mayfly.dev/enforce": "true"}) } else { json!({}) });
    }

    /// A namespace with labels.
    pub(crate) fn labeled(&self, name: &str, labels: Value) {
        self.cluster
            .create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}));
        wait(20, "a namespace has its service account", || {
            let found = self.cluster.kubectl(["get", "serviceaccount", "default", "-n", name]);
            if found.code == 0 { Ok(()) } else { Err(found.stderr) }
        });
    }

    /// The value of a metric, with its labels; 0 before it has one.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let all = self.status("metrics");
        all.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default()
    }

    /// The sum of a metric over its labels.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let all = self.status("metrics");
        let lines = all.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Requests to registries so far.
    pub(crate) fn requests(&self) -> f64 {
        self.sum("mayfly_registry_requests")
    }

    /// Requests for a blob that the registry has served.
    pub(crate) fn fetches(&self, repository: &str, digest: &str) -> usize {
        let log = fs::read_to_string(self.cluster.folder().join("log/registry")).expect("the registry's log");
        log.lines().filter(|line| line.contains(&format!("GET /v2/{repository}/blobs/{digest}"))).count()
    }

    /// Waits until so many pods of a namespace run.
    pub(crate) fn all_run(&self, namespace: &str, count: usize) {
        wait(120, "pods run", || {
            let list = self.cluster.kubectl(["get", "pods", "-n", namespace, "-o", "json"]).ok().json();
            let running = list["items"].as_array().expect("pods").iter().filter(|pod| is_running(pod)).count();
            if running >= count { Ok(()) } else { Err(format!("{running} of {count} in {namespace}")) }
        });
    }

    /// What is said of an object that must be refused.
    pub(crate) fn refused(&self, object: &Value) -> String {
        let done = self.cluster.kubectl_with(&["create"], object);
        assert_ne!(done.code, 0, "it was admitted: {object:#}");
        done.stderr
    }

    /// Waits until a pod that is only tried is refused with `code`; none: admitted.
    pub(crate) fn until_decided(&self, object: &Value, code: Option<&str>) {
        wait(30, &format!("it is decided as {code:?}"), || {
            let done = self.cluster.kubectl_with(&["create", "--dry-run=server"], object);
            let is_so = match code {
                Some(code) => done.code != 0 && done.stderr.contains(code),
                None => done.code == 0,
            };
            if is_so { Ok(()) } else { Err(done.stderr) }
        });
    }
}

/// Waits until `found` does not fail.
pub(crate) fn wait<T>(seconds: u64, what: &str, mut found: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match found() {
            Ok(found) => return found,
            Err(why) => assert!(Instant::now() < deadline, "not within {seconds} s: {what}: {why}"),
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// The manifests that are shipped.
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

/// Pods that run before the webhook does.
pub(crate) const BEFORE: usize = 30;

/// The webhook's namespace.
pub(crate) const OWN: &str = "mayfly-system";

/// The node's address, where the webhook listens, and the registry and the API server for pods.
pub(crate) const ADDRESS: &str = "10.99.0.1";

/// The EndpointSlice that leads the service to the process.
pub(crate) const PROCESS: &str = "mayfly-process";

pub(crate) const BUSYBOX: &str = "127.0.0.1:5000/busybox:1";

/// Rules in force where a namespace says so.
pub(crate) const RULES: &str = r#"
apiVersion: mayfly.dev/v1alpha1
kind: ClusterImageRule
metadata: {name: starts}
spec:
  templates: Warn
  require: {dna: {onMissing: DenyRetry}}
  validations:
    - name: comes-up
      expression: "findings.all(f, f.effect != 'fails')"
      messageExpression: "findings.filter(f, f.effect == 'fails').map(f, f.message).join('; ')"
      reason: WILL_NOT_START
    - name: not-privileged
      expression: "!container.?securityContext.?privileged.orValue(false)"
      message: it is privileged
      reason: PRIVILEGED
---
apiVersion: mayfly.dev/v1alpha1
kind: ClusterImageRule
metadata: {name: digests}
spec:
  match: {namespaces: {matchLabels: {digests: "true"}}}
  templates: Enforce
  tags: RequireDigest
"#;

pub(crate) fn pod(namespace: &str, name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["terminationGracePeriodSeconds"] = json!(0);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

pub(crate) fn sleeping(image: &str) -> Value {
    json!({"name": "main", "image": image, "command": ["sleep", "100000"]})
}

pub(crate) fn is_running(pod: &Value) -> bool {
    pod.pointer("/status/containerStatuses/0/state/running").is_some()
}

/// Kills those processes of a pod, which its cgroup names, whose command line begins so: at once, without a word. Gives how many.
pub(crate) fn kill_of_pod(uid: &str, command: &str) -> usize {
    let mut killed = 0;
    for entry in fs::read_dir("/proc").expect("processes").flatten() {
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let words = read("cmdline").replace('\0', " ");
        if read("cgroup").contains(uid) && words.starts_with(command) {
            let pid = entry.file_name();
            killed += usize::from(run(Command::new("kill").arg("-9").arg(pid)).code == 0);
        }
    }
    killed
}

/// The digest of a tag in the cluster's registry.
pub(crate) fn pinned(world: &World, image: &str) -> String {
    let digest = run(world.cluster.inside("crane").args(["digest", image])).ok().text();
    format!("{}@{}", image.rsplit_once(':').expect("a tag").0, digest.trim())
}

/// An image of one program, with content of its own.
pub(crate) fn push(cluster: &Cluster, content: &str, image: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("content"), content).expect("written");
    let layer = packed(folder.path(), &["content"]);
    run(cluster.inside("crane").args(["append", "--insecure", "-b", BUSYBOX, "-f"]).arg(&layer).args(["-t", image]))
        .ok();
}

/// An archive of these entries of a folder, in it.
pub(crate) fn packed(folder: &Path, entries: &[&str]) -> PathBuf {
    let layer = folder.join("layer.tar");
    run(Command::new("tar").arg("-C").arg(folder).arg("-cf").arg(&layer).args(entries)).ok();
    layer
}
