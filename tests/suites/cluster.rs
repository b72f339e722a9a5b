//! The webhook in a real cluster: real objects by kubectl, real pods by containerd, refused or admitted and running.
//!
//! One cluster for all scenarios; each has a namespace of its own. Arguments name those to run.

use std::{
    env, fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
    process::{Command, ExitCode},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{Cluster, Inside, mayfly_path, run};

type Scenario = fn(&World);

/// What is tried, in this order.
const SCENARIOS: [(&str, Scenario); 9] = [
    ("pods_that_ran_before_are_covered_without_a_restart", pods_that_ran_before_are_covered_without_a_restart),
    ("a_pod_that_fits_is_admitted_and_runs", a_pod_that_fits_is_admitted_and_runs),
    (
        "what_would_not_start_is_refused_where_it_is_enforced_and_does_not_start_where_it_is_not",
        what_would_not_start_is_refused_where_it_is_enforced_and_does_not_start_where_it_is_not,
    ),
    ("every_carrier_of_an_image_is_reviewed", every_carrier_of_an_image_is_reviewed),
    ("every_kind_with_a_pod_is_reviewed", every_kind_with_a_pod_is_reviewed),
    (
        "updates_are_reviewed_where_something_changes_that_is_judged_and_never_hold_up_an_end",
        updates_are_reviewed_where_something_changes_that_is_judged_and_never_hold_up_an_end,
    ),
    ("a_dry_run_is_answered_and_leaves_nothing", a_dry_run_is_answered_and_leaves_nothing),
    ("few_may_exempt_a_namespace", few_may_exempt_a_namespace),
    (
        "many_pods_of_an_image_that_was_never_seen_cost_one_look",
        many_pods_of_an_image_that_was_never_seen_cost_one_look,
    ),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let world = World::start();
    let mut failed = Vec::new();
    for (name, scenario) in SCENARIOS.iter().filter(|(name, _)| is_wanted(name)) {
        let started = Instant::now();
        let done = panic::catch_unwind(AssertUnwindSafe(|| scenario(&world)));
        println!(
            "{} {name} ({:.1} s)",
            if done.is_ok() { "ok    " } else { "FAILED" },
            started.elapsed().as_secs_f32()
        );
        if done.is_err() {
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        println!("the webhook's log ends with\n{}", world.log());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The cluster with the webhook in it.
struct World {
    cluster: Cluster,
    webhook: Mutex<Option<Inside>>,
}

impl World {
    fn start() -> Self {
        let cluster = Cluster::start("");
        let folder = cluster.folder().to_owned();
        certificate(&folder.join("tls"));
        fs::create_dir_all(folder.join("rules")).expect("a folder");
        fs::write(folder.join("rules/rules.yaml"), RULES).expect("written");
        let world = Self { cluster, webhook: Mutex::new(None) };
        world.namespace("mayfly-system", false);
        world.namespace("before", false);
        let sleepers =
            (0..BEFORE).map(|n| pod("before", &format!("p{n}"), &json!({"containers": [sleeping(BUSYBOX)]})));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": sleepers.collect::<Vec<_>>()});
        world.cluster.kubectl_with(&["create"], &list).ok();
        world.all_run("before", BEFORE);
        world.up();
        world.register("Fail");
        world
    }

    /// Starts the webhook and waits until it is ready.
    fn up(&self) {
        let folder = self.cluster.folder();
        let mut command = self.cluster.inside(mayfly_path());
        command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:8443",
                "--status-listen",
                "127.0.0.1:8081",
                "--plain-http",
                "--drain",
                "0",
            ])
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

    /// The end of what the webhook has written.
    fn log(&self) -> String {
        let all =
            self.webhook.lock().map(|inside| inside.as_ref().map(Inside::log).unwrap_or_default()).unwrap_or_default();
        let lines: Vec<&str> = all.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// What a path of the webhook says.
    fn status(&self, path: &str) -> String {
        run(self.cluster.inside("curl").args(["-s", "-m", "5", &format!("http://127.0.0.1:8081/{path}")])).text()
    }

    fn register(&self, failure_policy: &str) {
        let bundle = fs::read(self.cluster.folder().join("tls/ca.crt")).expect("a certificate");
        let rule = |groups: &[&str], resources: &[&str], operations: &[&str]| json!({"apiGroups": groups, "apiVersions": ["*"], "resources": resources, "operations": operations});
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
        self.cluster
            .create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}));
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.cluster.kubectl(["get", "serviceaccount", "default", "-n", name]).code != 0 {
            assert!(Instant::now() < deadline, "namespace {name} has no service account");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The value of a metric, with its labels; 0 before it has one.
    fn metric(&self, name: &str) -> f64 {
        let all = self.status("metrics");
        all.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default()
    }

    /// Requests to registries so far.
    fn requests(&self) -> f64 {
        let all = self.status("metrics");
        let lines = all.lines().filter(|line| line.starts_with("mayfly_registry_requests"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until so many pods of a namespace run.
    fn all_run(&self, namespace: &str, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(120);
        let running = || {
            let list = self.cluster.kubectl(["get", "pods", "-n", namespace, "-o", "json"]).ok().json();
            list["items"].as_array().expect("pods").iter().filter(|pod| is_running(pod)).count()
        };
        while running() < count {
            assert!(Instant::now() < deadline, "{} of {count} pods run in {namespace}", running());
            thread::sleep(Duration::from_millis(500));
        }
    }

    fn refused(&self, object: &Value) -> String {
        let done = self.cluster.kubectl_with(&["create"], object);
        assert_ne!(done.code, 0, "it was admitted: {object:#}");
        done.stderr
    }
}

/// Rules in force where a namespace says so.
const RULES: &str = r#"
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

const BUSYBOX: &str = "127.0.0.1:5000/busybox:1";

fn pod(namespace: &str, name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["terminationGracePeriodSeconds"] = json!(0);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

fn sleeping(image: &str) -> Value {
    json!({"name": "main", "image": image, "command": ["sleep", "100000"]})
}

fn is_running(pod: &Value) -> bool {
    pod.pointer("/status/containerStatuses/0/state/running").is_some()
}

/// The digest of a tag in the cluster's registry.
fn pinned(world: &World, image: &str) -> String {
    let digest = run(world.cluster.inside("crane").args(["digest", image])).ok().text();
    format!("{}@{}", image.rsplit_once(':').expect("a tag").0, digest.trim())
}

fn a_pod_that_fits_is_admitted_and_runs(world: &World) {
    world.namespace("fits", true);
    world.cluster.create(&pod("fits", "sleeps", &json!({"containers": [sleeping(BUSYBOX)]})));
    world.cluster.until("fits", "pod", "sleeps", 60, is_running);
}

fn what_would_not_start_is_refused_where_it_is_enforced_and_does_not_start_where_it_is_not(world: &World) {
    let broken = json!({"containers": [{"name": "main", "image": BUSYBOX, "command": ["/no/such/program"]}]});
    world.namespace("broken", true);
    let why = world.refused(&pod("broken", "broken", &broken));
    assert!(why.contains("WILL_NOT_START") && why.contains("/no/such/program"), "{why}");
    world.namespace("audited", false);
    world.cluster.create(&pod("audited", "broken", &broken));
    let failed = |pod: &Value| {
        let state = pod.pointer("/status/containerStatuses/0");
        state.is_some_and(|state| state.to_string().contains("no such file or directory"))
    };
    world.cluster.until("audited", "pod", "broken", 60, failed);
    let root = json!({"containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "9"],
        "securityContext": {"runAsNonRoot": true}}]});
    let why = world.refused(&pod("broken", "root", &root));
    assert!(why.contains("runAsNonRoot"), "{why}");
}

fn every_carrier_of_an_image_is_reviewed(world: &World) {
    world.cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "carriers",
        "labels": {"mayfly.dev/enforce": "digests", "digests": "true"}}}));
    world.cluster.until("carriers", "serviceaccount", "default", 20, |_| true);
    let by_digest = pinned(world, BUSYBOX);
    let good = sleeping(&by_digest);
    let bad = |name: &str| json!({"name": name, "image": BUSYBOX, "command": ["sleep", "1"]});
    let mut sidecar = bad("side");
    sidecar["restartPolicy"] = json!("Always");
    let specs = [
        ("container", json!({"containers": [bad("main")]})),
        ("second", json!({"containers": [good, bad("second")]})),
        ("init", json!({"containers": [good], "initContainers": [bad("init")]})),
        ("sidecar", json!({"containers": [good], "initContainers": [sidecar]})),
        ("volume", json!({"containers": [good], "volumes": [{"name": "v", "image": {"reference": BUSYBOX}}]})),
    ];
    for (name, spec) in specs {
        let why = world.refused(&pod("carriers", name, &spec));
        assert!(why.contains("TAG_NOT_ALLOWED") || why.contains("digest"), "{name}: {why}");
    }
    world.cluster.create(&pod("carriers", "good", &json!({"containers": [good]})));
    world.cluster.until("carriers", "pod", "good", 60, is_running);
    let debug = world.cluster.kubectl(["debug", "-n", "carriers", "good", "--image", BUSYBOX, "--", "sleep", "9"]);
    assert!(debug.code != 0 && debug.stderr.contains("denied"), "an ephemeral container: {}", debug.stderr);
    world.cluster.kubectl(["debug", "-n", "carriers", "good", "--image", &by_digest, "--", "sleep", "9"]).ok();
}

fn every_kind_with_a_pod_is_reviewed(world: &World) {
    world.cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kinds",
        "labels": {"mayfly.dev/enforce": "digests", "digests": "true"}}}));
    world.cluster.until("kinds", "serviceaccount", "default", 20, |_| true);
    for image in [BUSYBOX.to_owned(), pinned(world, BUSYBOX)] {
        let is_good = image.contains('@');
        let labels = json!({"app": "x"});
        let template = |policy: &str| json!({"metadata": {"labels": labels}, "spec": {"restartPolicy": policy, "containers": [sleeping(&image)]}});
        let apps = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": template("Always")});
        let mut daemon = apps.clone();
        daemon.as_object_mut().expect("an object").remove("replicas");
        daemon["template"]["spec"]["nodeSelector"] = json!({"no": "node"});
        let mut stateful = apps.clone();
        stateful["serviceName"] = json!("x");
        let job = json!({"suspend": true, "template": template("Never")});
        let objects = [
            ("apps/v1", "Deployment", apps.clone()),
            ("apps/v1", "ReplicaSet", apps.clone()),
            ("apps/v1", "StatefulSet", stateful),
            ("apps/v1", "DaemonSet", daemon),
            ("batch/v1", "Job", job.clone()),
            ("batch/v1", "CronJob", json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job}})),
            ("v1", "ReplicationController", json!({"replicas": 0, "selector": labels, "template": template("Always")})),
            ("v1", "PodTemplate", Value::Null),
        ];
        for (version, kind, spec) in objects {
            let metadata = json!({"name": kind.to_lowercase(), "namespace": "kinds"});
            let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
            match kind {
                "PodTemplate" => object["template"] = template("Always"),
                _ => object["spec"] = spec,
            }
            let done = world.cluster.kubectl_with(&["create"], &object);
            assert_eq!(done.code == 0, is_good, "{kind} with {image}: {}", done.stderr);
        }
    }
}

fn updates_are_reviewed_where_something_changes_that_is_judged_and_never_hold_up_an_end(world: &World) {
    world.namespace("updates", true);
    world.cluster.create(&pod("updates", "one", &json!({"containers": [sleeping(BUSYBOX)]})));
    world.cluster.until("updates", "pod", "one", 60, is_running);
    world.cluster.kubectl(["label", "-n", "updates", "pod", "one", "a=b"]).ok();
    let missing = world.cluster.kubectl(["set", "image", "-n", "updates", "pod/one", "main=127.0.0.1:5000/no-such:1"]);
    assert!(missing.code != 0 && missing.stderr.contains("denied"), "{}", missing.stderr);
    let labels = json!({"app": "d"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "updates"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [sleeping(BUSYBOX)]}}}});
    world.cluster.create(&deployment);
    let rolled = |object: &Value| object.pointer("/status/readyReplicas") == Some(&json!(1));
    world.cluster.until("updates", "deployment", "d", 60, rolled);
    world.cluster.kubectl(["scale", "-n", "updates", "deployment", "d", "--replicas", "2"]).ok();
    // The same image, and a field that a rule reads.
    let privileged =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"main","securityContext":{"privileged":true}}]}}}}"#;
    let patched = world.cluster.kubectl(["patch", "-n", "updates", "deployment", "d", "-p", privileged]).ok();
    assert!(patched.stderr.contains("PRIVILEGED"), "a template warns: {}", patched.stderr);
    world.cluster.kubectl(["delete", "-n", "updates", "deployment", "d", "--wait=false"]).ok();
    world.cluster.kubectl(["delete", "-n", "updates", "pod", "one", "--wait=true", "--timeout=60s"]).ok();
}

fn a_dry_run_is_answered_and_leaves_nothing(world: &World) {
    world.namespace("dry", true);
    let accepted = || world.metric("mayfly_ledger_records_accepted");
    let broken = json!({"containers": [{"name": "main", "image": BUSYBOX, "command": ["/no/such/program"]}]});
    let object = pod("dry", "broken", &broken);
    let done = world.cluster.kubectl_with(&["create", "--dry-run=server"], &object);
    assert!(done.code != 0 && done.stderr.contains("WILL_NOT_START"), "{}", done.stderr);
    let before = accepted();
    assert_eq!(world.cluster.kubectl_with(&["create", "--dry-run=server"], &object).code, 1);
    let fine = pod("dry", "fine", &json!({"containers": [sleeping(BUSYBOX)]}));
    world.cluster.kubectl_with(&["create", "--dry-run=server"], &fine).ok();
    assert_eq!(accepted(), before);
}

fn few_may_exempt_a_namespace(world: &World) {
    world.namespace("labels", true);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "alice"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}]});
    world.cluster.create(&role);
    for change in ["mayfly.dev/exempt=true", "mayfly.dev/enforce-"] {
        let done = world.cluster.kubectl(["label", "--as", "alice", "namespace", "labels", change, "--overwrite"]);
        assert!(done.code != 0 && done.stderr.contains("may change the label"), "{change}: {}", done.stderr);
    }
    world.cluster.kubectl(["label", "--as", "alice", "namespace", "labels", "team=x"]).ok();
    world.cluster.kubectl(["label", "namespace", "labels", "mayfly.dev/exempt=true"]).ok();
}

fn many_pods_of_an_image_that_was_never_seen_cost_one_look(world: &World) {
    world.namespace("burst", true);
    push(&world.cluster, "burst", "127.0.0.1:5000/burst:1");
    let before = world.requests();
    let pods: Vec<Value> = (0..30)
        .map(|n| pod("burst", &format!("p{n}"), &json!({"containers": [sleeping("127.0.0.1:5000/burst:1")]})))
        .collect();
    let answers: Vec<_> = thread::scope(|scope| {
        let created: Vec<_> =
            pods.iter().map(|pod| scope.spawn(|| world.cluster.kubectl_with(&["create"], pod))).collect();
        created.into_iter().map(|created| created.join().expect("kubectl runs")).collect()
    });
    for answer in answers {
        answer.ok();
    }
    let asked = world.requests() - before;
    println!("30 pods of a new image: {asked} requests to the registry");
    assert!(asked <= 12.0, "{asked} requests");
    world.all_run("burst", 30);
}

/// Pods that run before the webhook does.
const BEFORE: usize = 30;

fn pods_that_ran_before_are_covered_without_a_restart(world: &World) {
    let deadline = Instant::now() + Duration::from_secs(90);
    let covered = || world.metric("mayfly_pods{state=\"covered\"}");
    while covered() < 30.0 {
        assert!(Instant::now() < deadline, "{} of {BEFORE} pods are covered", covered());
        thread::sleep(Duration::from_millis(500));
    }
    let pods = world.cluster.kubectl(["get", "pods", "-n", "before", "-o", "json"]).ok().json();
    let restarted = |pod: &&Value| pod.pointer("/status/containerStatuses/0/restartCount") != Some(&json!(0));
    assert_eq!(pods["items"].as_array().expect("pods").iter().filter(restarted).count(), 0);
}

/// An image of one program, with content of its own.
fn push(cluster: &Cluster, content: &str, image: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("content"), content).expect("written");
    let layer = folder.path().join("layer.tar");
    run(Command::new("tar").arg("-C").arg(folder.path()).arg("-cf").arg(&layer).arg("content")).ok();
    run(cluster.inside("crane").args(["append", "--insecure", "-b", BUSYBOX, "-f"]).arg(&layer).args(["-t", image]))
        .ok();
}

/// A certificate for the loopback address, and its authority.
fn certificate(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    fs::create_dir_all(folder).expect("a folder");
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).expect("an authority");
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let leaf = CertificateParams::new(names).expect("parameters").signed_by(&key, &issuer).expect("a leaf");
    fs::write(folder.join("ca.crt"), certificate.pem()).expect("written");
    fs::write(folder.join("tls.crt"), leaf.pem()).expect("written");
    fs::write(folder.join("tls.key"), key.serialize_pem()).expect("written");
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
