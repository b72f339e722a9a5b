//! A pod from its admission to the alert: the webhook binds it, the kubelet runs it, a sensor in the kernel sees it, the bridge compares.

use std::{
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dna::Digest;
use lineage::{AlertHead, AlertQuery, Ledger};
use serde_json::json;
use tests::{Inside, mayfly_path};

use crate::world::{BUSYBOX, World, wait};

/// Where the API server and the sensor find the bridge: in the cluster's network.
pub(crate) const BRIDGE: &str = "127.0.0.1:8444";
const SECRET: &str = "a-secret-of-this-suite";
/// Where runc puts the containers of pods.
const CGROUP: &str = "/sys/fs/cgroup/unified/kubepods";

/// The sensor, until it is dropped.
struct Sensor(Child);

impl Drop for Sensor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn an_intrusion_is_told_with_its_pod_and_its_user_and_quiet_is_quiet(world: &World) {
    let Some(harness) = env::var_os("TRUTH_HARNESS") else {
        println!("not run: there is no sensor in the kernel (TRUTH_HARNESS names its folder)");
        return;
    };
    let (_bridge, _sensor) = (bridge(world), sensor(world, Path::new(&harness)));
    world.namespace("watched", false);
    let labels = json!({"app": "web"});
    let container = json!({"name": "app", "image": BUSYBOX, "command": ["sleep", "100000"],
        "readinessProbe": {"exec": {"command": ["/bin/busybox", "true"]}, "periodSeconds": 1}});
    world.cluster.create(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "watched"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}}}));
    world.all_run("watched", 2);
    // Quiet: probes, more and fewer pods, a rollout.
    let quiet = env::var("LIVE_QUIET_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let until = Instant::now() + Duration::from_secs(quiet);
    world.cluster.kubectl(["scale", "-n", "watched", "deployment/web", "--replicas", "4"]).ok();
    world.cluster.kubectl(["rollout", "restart", "-n", "watched", "deployment/web"]).ok();
    world.cluster.kubectl(["rollout", "status", "-n", "watched", "deployment/web", "--timeout", "90s"]).ok();
    world.cluster.kubectl(["scale", "-n", "watched", "deployment/web", "--replicas", "1"]).ok();
    wait(60, "one pod is left", || {
        let pods = world.cluster.kubectl(["get", "pods", "-n", "watched", "-o", "name"]).text();
        if pods.lines().count() == 1 { Ok(()) } else { Err(pods) }
    });
    thread::sleep(until.saturating_duration_since(Instant::now()));
    let before = alerts(world);
    assert!(before.is_empty(), "quiet time raised {before:#?}");
    // The sensor has seen it: the readiness probe runs every second.
    let pod =
        world.cluster.kubectl(["get", "pods", "-n", "watched", "-o", "jsonpath={.items[0].metadata.name}"]).ok().text();
    let script =
        "echo x >> /etc/passwd; cp /bin/busybox /x; /x true; (nc -l -p 31337 & sleep 1; kill $!) 2>/dev/null; true";
    world.cluster.kubectl(["exec", "-n", "watched", pod.trim(), "--", "sh", "-c", script]).ok();
    let wanted = [
        ("command-from-outside", "/bin/busybox"),
        ("write", "/etc/passwd"),
        ("program-not-in-image", "/x"),
        ("listen", "tcp/31337"),
    ];
    let found = wait(60, "the intrusion is told", || {
        let found = alerts(world);
        let has =
            |(class, subject): &(&str, &str)| found.iter().any(|head| head.class == *class && head.subject == *subject);
        if wanted.iter().all(has) { Ok(found) } else { Err(format!("{found:#?}")) }
    });
    for head in &found {
        assert_eq!((head.owner.as_str(), head.container.as_str()), ("Deployment/web", "app"), "{head:?}");
        assert!(head.digest.starts_with("sha256:"), "{head:?}");
    }
    let outside = found.iter().find(|head| head.class == "command-from-outside").expect("it is there");
    wait(60, "the API server says who it was", || {
        let document = document(world, &outside.id);
        let has_pod = document["pods"].as_array().is_some_and(|pods| pods.contains(&json!(pod.trim())));
        let has_user = document["users"].as_array().is_some_and(|users| !users.is_empty());
        if has_pod && has_user { Ok(()) } else { Err(format!("{document:#}")) }
    });
}

/// The bridge beside the webhook, on the same ledger.
fn bridge(world: &World) -> Inside {
    let digest = Digest::sha256(SECRET.as_bytes());
    let digest = digest.hex();
    let sensor = |name: &str, dialect: &str| {
        format!(
            "[[sensor]]\nname = \"{name}\"\ndialect = \"{dialect}\"\ncluster = \"default\"\npath_secret_sha256 = \"{digest}\"\n"
        )
    };
    let sensors = world.file("sensors.toml", sensor("falco", "falco") + &sensor("audit", "kubernetes-audit"));
    let folder = world.cluster.folder();
    let mut command = world.cluster.inside("env");
    command.arg("RUST_LOG=info").arg(mayfly_path()).args([
        "bridge",
        "--listen",
        BRIDGE,
        "--sensors",
        &sensors,
        "--data",
    ]);
    command.arg(folder.join("bridge")).args(["--ledger", &ledger_url(world)]);
    let inside = world.cluster.spawn("bridge", &mut command);
    wait(30, "the bridge takes events", || {
        if inside.log().contains("taking events on") { Ok(()) } else { Err(inside.log()) }
    });
    inside
}

/// A sensor in the kernel of this machine, which posts as Falco does.
fn sensor(world: &World, harness: &Path) -> Sensor {
    let network = world.cluster.network();
    let [program, arguments @ ..] = network.as_slice() else { panic!("a command") };
    let log = world.cluster.folder().join("log/sensor");
    let mut command = Command::new(program);
    command.args(arguments).arg("python3").arg(harness.join("live.py")).args([CGROUP, "--level", "1", "--url"]);
    command.arg(format!("http://{BRIDGE}/v1/events/falco/{SECRET}"));
    command
        .current_dir(harness)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).expect("a file"));
    let mut sensor = Sensor(command.spawn().expect("the sensor starts"));
    wait(60, "the sensor watches", || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        assert!(sensor.0.try_wait().expect("asked").is_none(), "the sensor ended: {said}");
        if said.contains("watching") { Ok(()) } else { Err(said) }
    });
    sensor
}

fn ledger_url(world: &World) -> String {
    format!("sqlite:{}", world.cluster.folder().join("mayfly/ledger.db").display())
}

/// The alerts of this scenario's namespace.
fn alerts(world: &World) -> Vec<AlertHead> {
    block_on(async {
        let ledger = Ledger::open(&ledger_url(world)).await.expect("the webhook's ledger");
        let asked = AlertQuery { namespaces: Some(["watched".to_owned()].into()), limit: 100, ..AlertQuery::default() };
        ledger.alerts(&asked, jiff::Timestamp::now()).await.expect("alerts")
    })
}

fn document(world: &World, id: &str) -> serde_json::Value {
    block_on(async {
        let ledger = Ledger::open(&ledger_url(world)).await.expect("the webhook's ledger");
        let rows = ledger.alerts_by_id(&[id.to_owned()].into(), jiff::Timestamp::now()).await.expect("an alert");
        let json = rows.first().expect("it is there").document.unpack().expect("JSON");
        serde_json::from_slice(&json).expect("JSON")
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Files by which the API server sends its audit log to the bridge, and the options that name them.
pub(crate) fn audited(folder: &Path) -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/sensors/audit/policy.yaml");
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "bridge",
        "clusters": [{"name": "bridge", "cluster": {"server": format!("http://{BRIDGE}/v1/events/audit/{SECRET}")}}],
        "users": [{"name": "bridge", "user": {}}], "contexts": [{"name": "bridge", "context": {"cluster": "bridge", "user": "bridge"}}]});
    let file = tests::written(folder, "audit.kubeconfig", kubeconfig.to_string());
    format!(
        "--audit-policy-file={} --audit-webhook-config-file={file} --audit-webhook-batch-max-wait=2s",
        shipped.canonicalize().expect("the policy").display()
    )
}
