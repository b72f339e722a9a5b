//! What runtime rules mean in earnest, in the cluster: done, taken back, refused without right or label, and repeated without harm.
//!
//! The bridge is a process with its service account's rights. What its sensor sees is told to it by this suite, of containers that run.

use jiff::Timestamp;
use serde_json::{Value, json};
use tests::{Inside, mayfly_path, run};

use crate::{
    live::install,
    world::{BUSYBOX, World, pod, sleeping, wait},
};

const DOOR: &str = "127.0.0.1:8454";
const API: &str = "127.0.0.1:8455";
const SECRET: &str = "a-secret-of-this-suite";
const HERE: &str = "respond";
const ELSEWHERE: &str = "respond-not";

/// What is to be done about a program that was brought in, by its name.
const RULES: &str = r#"
apiVersion: mayfly.dev/v1alpha1
kind: ClusterRuntimeRule
metadata: {name: isolates}
spec:
  classes: [program-not-in-image]
  when: [{name: it, expression: "deviation.subject == '/tmp/isolate'"}]
  then: {response: [{action: Isolate, dryRun: false}]}
---
apiVersion: mayfly.dev/v1alpha1
kind: ClusterRuntimeRule
metadata: {name: deletes}
spec:
  classes: [program-not-in-image]
  when: [{name: it, expression: "deviation.subject.startsWith('/tmp/delete')"}]
  then: {response: [{action: DeletePod, dryRun: false}]}
---
apiVersion: mayfly.dev/v1alpha1
kind: ClusterRuntimeRule
metadata: {name: scales}
spec:
  classes: [program-not-in-image]
  when: [{name: it, expression: "deviation.subject == '/tmp/scale'"}]
  then: {response: [{action: ScaleToZero, dryRun: false}]}
---
apiVersion: mayfly.dev/v1alpha1
kind: ClusterRuntimeRule
metadata: {name: quarantines}
spec:
  classes: [program-not-in-image]
  when: [{name: it, expression: "deviation.subject == '/tmp/quarantine'"}]
  then: {response: [{action: QuarantineDigest, dryRun: false}]}
---
apiVersion: mayfly.dev/v1alpha1
kind: ClusterRuntimeRule
metadata: {name: would-scale}
spec:
  classes: [program-not-in-image]
  when: [{name: it, expression: "deviation.subject == '/tmp/dry'"}]
  then: {response: [{action: ScaleToZero}]}
"#;

struct Scene<'a> {
    world: &'a World,
    bridge: Inside,
    token: String,
}

impl<'a> Scene<'a> {
    fn begin(world: &'a World) -> Self {
        let deploy = install::files(world, "bridge-respond", "replicas: [{name: mayfly-bridge, count: 0}]\n");
        world.cluster.kubectl(["apply", "--server-side", "-k", &deploy]).ok();
        let respond = world.deploy("respond", "respond", "");
        world.cluster.kubectl(["apply", "--server-side", "-k", &respond]).ok();
        let rules = world.file("runtime-rules.yaml", RULES);
        world.cluster.kubectl(["apply", "--server-side", "-f", &rules]).ok();
        let (kubeconfig, _) = world.account("mayfly-bridge");
        let digest = dna::Digest::sha256(SECRET.as_bytes());
        let sensors = format!(
            "[[sensor]]\nname = \"falco\"\ndialect = \"falco\"\ncluster = \"default\"\npath_secret_sha256 = \"{}\"\n",
            digest.hex()
        );
        let sensors = world.file("respond-sensors.toml", sensors);
        let folder = world.cluster.folder();
        let mut command = world.cluster.inside("env");
        command.arg(format!("KUBECONFIG={kubeconfig}")).arg("RUST_LOG=info").arg(mayfly_path());
        command.args(["bridge", "--name", "responder", "--listen", DOOR, "--api-listen", API, "--respond"]);
        command.args(["--respond-per-namespace", "20", "--sensors", &sensors, "--data"]);
        command.arg(folder.join("respond-data"));
        command.args(["--ledger", &format!("sqlite:{}", folder.join("mayfly/ledger.db").display())]);
        let bridge = world.cluster.spawn("responder", &mut command);
        wait(30, "the bridge takes events", || {
            if bridge.log().contains("taking events on") { Ok(()) } else { Err(bridge.log()) }
        });
        let token = world.file("administrator.token", "admin-token");
        Self { world, bridge, token }
    }

    /// A pod of a workload that runs.
    fn pod(&self, namespace: &str) -> Value {
        wait(120, "a pod runs", || {
            let list = self.world.cluster.kubectl(["get", "pods", "-n", namespace, "-o", "json"]).ok().json();
            let pods = list["items"].as_array().cloned().unwrap_or_default();
            let runs = |pod: &&Value| crate::world::is_running(pod) && pod["metadata"]["deletionTimestamp"].is_null();
            pods.iter().find(runs).cloned().ok_or_else(|| format!("{} pods", pods.len()))
        })
    }

    /// The sensor tells that a program runs in a pod that its image does not have.
    fn runs(&self, pod: &Value, file: &str) {
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("an id");
        let id: String = id.rsplit('/').next().expect("an id").chars().take(12).collect();
        let now = Timestamp::now();
        let event = json!({"output": "x", "priority": "Notice", "rule": "r", "source": "syscall", "time": now.to_string(), "output_fields": {
            "evt.time": i64::try_from(now.as_nanosecond()).expect("a time"), "evt.type": "execve",
            "proc.pid": 7, "proc.exepath": file, "proc.exe": file, "proc.is_exe_upper_layer": true, "container.id": id,
            "k8s.ns.name": pod["metadata"]["namespace"], "k8s.pod.name": pod["metadata"]["name"], "container.name": "main"}});
        let url = format!("http://{DOOR}/v1/events/falco/{SECRET}");
        run(self.world.cluster.inside("curl").args(["-sSf", "-m", "10", "-d", &event.to_string(), &url])).ok();
    }

    fn mayfly(&self, args: &[&str]) -> tests::Output {
        let mut command = self.world.cluster.inside(mayfly_path().display().to_string());
        command.args(args).args(["--api", &format!("http://{API}"), "--token-file", &self.token]);
        run(&mut command)
    }

    /// What became of a response of a rule in a namespace.
    fn response(&self, namespace: &str, rule: &str, state: &str) -> Value {
        wait(60, &format!("{rule} is {state}"), || {
            let list = self.mayfly(&["response", "list", "--format", "json", "--namespace", namespace]).ok().json();
            let all = list.as_array().cloned().unwrap_or_default();
            let is_it = |one: &&Value| one["rules"][0] == rule && one["state"] == state;
            let alerts = || {
                let url = format!("http://{API}/api/v1/alerts?namespace={namespace}");
                let asked = ["-sS", "-m", "10", "-H", "Authorization: Bearer admin-token", &url];
                run(self.world.cluster.inside("curl").args(asked)).text()
            };
            all.iter().find(is_it).cloned().ok_or_else(|| format!("{list:#} {} {}", alerts(), self.bridge.log()))
        })
    }

    fn undo(&self, response: &Value) -> tests::Output {
        self.mayfly(&["response", "undo", response["id"].as_str().expect("a name"), "--reason", "a drill"])
    }

    fn replicas(&self) -> Value {
        self.world.cluster.get(HERE, "deployment", "web")["spec"]["replicas"].clone()
    }
}

pub(crate) fn responses_are_done_taken_back_and_refused(world: &World) {
    let scene = Scene::begin(world);
    world.labeled(HERE, json!({"mayfly.dev/respond": "true"}));
    world.namespace(ELSEWHERE, false);
    for namespace in [HERE, ELSEWHERE] {
        world.cluster.create(&json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": namespace}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [sleeping(BUSYBOX)]}}}}));
    }
    let one = scene.pod(HERE);
    let name = one["metadata"]["name"].as_str().expect("a name").to_owned();

    // Isolated, and back. Seen again, it is not done again.
    scene.runs(&one, "/tmp/isolate");
    let done = scene.response(HERE, "isolates", "done");
    let policy = format!("mayfly-isolate-{}", done["id"].as_str().expect("a name"));
    let found = world.cluster.get(HERE, "networkpolicy", &policy);
    assert_eq!(found["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    let label = |name: &str| world.cluster.get(HERE, "pod", name)["metadata"]["labels"]["mayfly.dev/isolated"].clone();
    assert_eq!(label(&name), done["id"]);
    scene.runs(&one, "/tmp/isolate");
    scene.undo(&done).ok();
    assert_ne!(world.cluster.kubectl(["get", "networkpolicy", "-n", HERE, &policy]).code, 0);
    assert_eq!(label(&name), Value::Null);
    assert_ne!(scene.undo(&done).code, 0, "there is nothing to take back any more");

    // A dry run says what it would do.
    scene.runs(&one, "/tmp/dry");
    scene.response(HERE, "would-scale", "dry-run");
    assert_eq!(scene.replicas(), json!(1));

    // Scaled to zero, and back.
    scene.runs(&one, "/tmp/scale");
    let done = scene.response(HERE, "scales", "done");
    assert_eq!(scene.replicas(), json!(0));
    scene.undo(&done).ok();
    assert_eq!(scene.replicas(), json!(1));

    // The digest is admitted no more, and then again.
    let two = scene.pod(HERE);
    scene.runs(&two, "/tmp/quarantine");
    let done = scene.response(HERE, "quarantines", "done");
    let another = pod(ELSEWHERE, "another", &json!({"containers": [sleeping(BUSYBOX)]}));
    world.until_decided(&another, Some("quarantined by quarantines"));
    scene.undo(&done).ok();
    world.until_decided(&another, None);

    // Without the right it fails, and says which; with it, it is done when it is seen again a minute later.
    world.cluster.kubectl(["delete", "clusterrolebinding", "mayfly-respond-delete"]).ok();
    scene.runs(&two, "/tmp/delete");
    let failed = scene.response(HERE, "deletes", "failed");
    let note = failed["note"].as_str().expect("why");
    assert!(note.contains("forbidden") && note.contains("deploy/respond"), "{note}");
    let shipped = format!("{}/respond", concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy"));
    world.cluster.kubectl(["apply", "--server-side", "-k", &shipped]).ok();
    scene.runs(&two, "/tmp/delete-now");
    let done = scene.response(HERE, "deletes", "done");
    assert_eq!(done["target"], two["metadata"]["name"]);
    wait(60, "another pod is made", || {
        let now = scene.pod(HERE);
        if now["metadata"]["uid"] != two["metadata"]["uid"] { Ok(()) } else { Err("the same".to_owned()) }
    });
    let told = scene.undo(&done);
    assert!(told.code != 0 && told.stderr.contains("does not come back"), "{}", told.stderr);

    // Nobody asked for it there.
    let other = scene.pod(ELSEWHERE);
    scene.runs(&other, "/tmp/scale");
    let refused = scene.response(ELSEWHERE, "scales", "refused");
    assert!(refused["note"].as_str().expect("why").contains("mayfly.dev/respond=true"));
    world.cluster.kubectl(["delete", "-k", &shipped]).ok();
    world.cluster.kubectl(["delete", "clusterruntimerule", "--all"]).ok();
    for namespace in [HERE, ELSEWHERE] {
        world.cluster.kubectl(["delete", "namespace", namespace, "--wait=false"]).ok();
    }
}
