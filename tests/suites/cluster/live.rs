//! A pod from its admission to the alert: the webhook binds it, the kubelet runs it, a sensor in the kernel sees it, the bridge compares.

#[path = "live/alerts.rs"]
mod alerts;
#[path = "live/attacks.rs"]
mod attacks;
#[path = "live/console.rs"]
mod console;
#[path = "live/install.rs"]
pub(crate) mod install;
#[path = "live/servers.rs"]
mod servers;

use std::{
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{Inside, mayfly_path};

pub(crate) use self::console::a_console_that_anybody_may_open_gets_no_miner_far;
use self::servers::{NAMESPACE, Server, servers};
use crate::{
    api::FORBIDDEN,
    world::{World, wait},
};

/// Where the API server and the sensor find the bridge: in the cluster's network.
pub(crate) const BRIDGE: &str = "127.0.0.1:8444";
/// Where people ask it for alerts.
const API: &str = "127.0.0.1:8445";
/// And what it says of itself.
const STATUS: &str = "127.0.0.1:8446";
/// What the sensors of this suite show.
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

pub(crate) fn intrusions_are_told_with_pod_and_user_and_quiet_is_quiet(world: &World) {
    let (Some(harness), Some(images)) = (env::var_os("TRUTH_HARNESS"), env::var_os("IMAGES")) else {
        println!("not run: TRUTH_HARNESS names the folder of the sensor in the kernel, IMAGES that of real images");
        return;
    };
    let (harness, images) = (Path::new(&harness), Path::new(&images));
    let (bridge, _sensor) = (bridge(world), sensor(world, harness));
    world.namespace(NAMESPACE, true);
    let servers = servers(number("LIVE_IMAGES", 8));
    let started = Instant::now();
    servers.iter().for_each(|server| server.deploy(world, images));
    servers.iter().for_each(|server| server.settled(world));
    println!("{} real servers run after {:.0} s", servers.len(), started.elapsed().as_secs_f32());
    let seconds = number("LIVE_QUIET_SECONDS", 300);
    quiet(world, harness, servers, Duration::from_secs(u64::try_from(seconds).expect("a number")));
    attacks::all_are_told(world, harness, servers);
    rights_were_enough(world, &bridge);
    world.cluster.kubectl(["delete", "namespace", NAMESPACE, "--wait=false"]).ok();
}

/// What happens to servers in a good week: clients, probes, rollouts, more and fewer pods, containers that are started again.
fn quiet(world: &World, harness: &Path, servers: &[Server], lasts: Duration) {
    let until = Instant::now() + lasts;
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < until {
        for server in servers {
            server.drive(world, harness);
            server.kubectl(world, &["rollout", "restart"], &[]);
        }
        servers.iter().for_each(|server| server.settled(world));
        for server in servers {
            server.kubectl(world, &["scale"], &["--replicas", "2"]);
        }
        for server in servers {
            server.settled(world);
            server.drive(world, harness);
            server.kubectl(world, &["scale"], &["--replicas", "1"]);
        }
        for server in servers {
            server.settled(world);
            server.restart_container(world);
            server.settled(world);
        }
        rounds += 1;
        thread::sleep(Duration::from_secs(60).min(until.saturating_duration_since(Instant::now())));
    }
    let told: Vec<String> = alerts::all(world).iter().map(alerts::told).collect();
    assert!(told.is_empty(), "quiet time raised {}", told.join("\n"));
    println!("nothing was told in {:.0} s of quiet, {rounds} rounds of it", lasts.as_secs_f32());
}

fn number(name: &str, default: usize) -> usize {
    env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")))
}

/// The bridge beside the webhook, on the same ledger: installed from `deploy/bridge`, run as a process with the service account's rights.
fn bridge(world: &World) -> Inside {
    let deploy = install::files(world, "bridge", "replicas: [{name: mayfly-bridge, count: 0}]\n");
    world.cluster.kubectl(["apply", "--server-side", "-k", &deploy]).ok();
    install::has_few_rights(world);
    let (kubeconfig, token) = world.account("mayfly-bridge");
    let shipped = |name: &str| {
        let path = format!("{deploy}/base/{name}");
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    // Without TLS the API server shows no token.
    let sensors = world.file("sensors.toml", shipped("sensors.toml").replace("token_sha256", "path_secret_sha256"));
    let folder = world.cluster.folder();
    // What a pod has by itself.
    let account = format!(
        "url = \"https://localhost:6443\"\nsecret_file = \"{token}\"\nca_file = \"{}\"\n",
        folder.join("certs/apiserver.crt").display()
    );
    let sinks = world.file("sinks.toml", shipped("sinks.toml") + &account);
    let callers = world.file("callers.toml", shipped("callers.toml"));
    let mut command = world.cluster.inside("env");
    command.arg(format!("KUBECONFIG={kubeconfig}")).arg("RUST_LOG=info").arg(mayfly_path());
    command.args(["bridge", "--listen", BRIDGE, "--api-listen", API, "--status-listen", STATUS]);
    command.args(["--sensors", &sensors, "--sinks", &sinks, "--callers", &callers, "--data"]);
    command.arg(folder.join("bridge")).args(["--ledger", &ledger_url(world)]);
    let inside = world.cluster.spawn("bridge", &mut command);
    wait(30, "the bridge takes events", || {
        if inside.log().contains("taking events on") { Ok(()) } else { Err(inside.log()) }
    });
    inside
}

/// What was told reached the cluster's own events too, and no right was missing for anything.
fn rights_were_enough(world: &World, bridge: &Inside) {
    wait(60, "an alert is an Event of its pod", || {
        let list = world.cluster.kubectl(["get", "events.events.k8s.io", "-n", NAMESPACE, "-o", "json"]).ok().json();
        let events = list["items"].as_array().expect("events");
        let is_ours = |event: &&Value| event["reportingController"].as_str().is_some_and(|by| by.contains("mayfly"));
        let found = events.iter().find(is_ours).ok_or_else(|| format!("{} events, none of ours", events.len()))?;
        if found["regarding"]["kind"] == "Pod" { Ok(()) } else { Err(format!("{found:#}")) }
    });
    let log = bridge.log();
    let refused: Vec<&str> = log.lines().filter(|line| line.contains(FORBIDDEN)).collect();
    assert!(refused.is_empty(), "{refused:#?}");
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
