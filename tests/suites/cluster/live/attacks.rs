//! What an intruder does in those servers: the harness's attacks, by `kubectl exec`, and what must be told of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    alerts,
    servers::{NAMESPACE, Running, Server},
};
use crate::world::World;

/// What tells of each attack: alerts of a class whose subject has this in it, any one of them.
const TOLD: [(&str, &[(&str, &str)]); 25] = [
    ("recon", &[("command-from-outside", "/uname"), ("command-from-outside", "busybox")]),
    ("read-shadow", &[("sensitive-read", "/etc/shadow")]),
    ("env-harvest", &[("sensitive-read", "/environ")]),
    ("sa-token", &[("sensitive-read", "serviceaccount")]),
    ("drop-exec", &[("program-not-in-image", "/tmp/kdevtmpfsi")]),
    ("drop-exec-busybox", &[("program-not-in-image", "/tmp/kdevtmpfsi")]),
    ("reverse-shell", &[("connect", "shell/127.0.0.1:4444")]),
    ("reverse-shell-nc", &[("connect", "127.0.0.1:4444")]),
    ("miner", &[("program-not-in-image", "/tmp/xmrig")]),
    ("cron-persist", &[("write", "/etc/cron.d")]),
    ("ssh-key", &[("write", "/.ssh")]),
    ("new-listener", &[("listen", "tcp/31337")]),
    ("new-listener-nc", &[("listen", "tcp/31337")]),
    ("fileless", &[("program-not-in-image", "memfd")]),
    ("ptrace", &[("syscall", "ptrace")]),
    ("setuid-shell", &[("program-not-in-image", "/tmp/.sh")]),
    ("package-install", &[("command-from-outside", "/apt-get")]),
    ("mount-escape", &[("syscall", "mount"), ("syscall", "unshare"), ("syscall", "setns")]),
    ("raw-scan", &[("connect", "127.0.0.1:3306")]),
    ("dns-exfil", &[("connect", "udp/127.0.0.1:5353")]),
    ("webshell", &[("write", "s.php")]),
    ("bin-tamper", &[("write", "/bin/.hid")]),
    ("add-user", &[("write", "/etc/passwd")]),
    ("ld-preload", &[("write", "/etc/ld.so.preload")]),
    ("log-wipe", &[("write", "/var/log/")]),
];

/// The ports of the far end: a download, a shell, a mining pool.
const FAR_END: [&str; 3] = ["8000", "4444", "3333"];

/// An attack as the harness has it.
struct Attack {
    id: String,
    needs: Vec<String>,
    script: String,
}

/// An attack that was run.
struct Ran {
    id: String,
    from: Timestamp,
    until: Timestamp,
}

/// The far end of a pod's intruder, on the pod's own loopback address, until it is dropped.
struct FarEnd(Child);

impl Drop for FarEnd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Attacks every server, all at once, and finds each attack's alert with where it was and who it was.
pub(super) fn all_are_told(world: &World, harness: &Path, servers: &[Server]) {
    let attacks = read(harness);
    let unknown: Vec<&str> = attacks.iter().map(|attack| attack.id.as_str()).filter(|id| told(id).is_none()).collect();
    assert!(unknown.is_empty(), "nothing is said of what tells of {unknown:?}");
    let started = Instant::now();
    let results: Vec<(Running, Vec<Ran>)> = thread::scope(|scope| {
        let running: Vec<_> =
            servers.iter().map(|server| scope.spawn(|| run_all(world, harness, server, &attacks))).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    println!("the attacks ran in {:.0} s", started.elapsed().as_secs_f32());
    let deadline = Instant::now() + PATIENCE;
    let mut missing = vec![String::new()];
    while !missing.is_empty() {
        assert!(
            Instant::now() < deadline,
            "not told: {}\nall there is:\n{}",
            missing.iter().take(20).cloned().collect::<Vec<_>>().join("\n"),
            all_there_is(world)
        );
        thread::sleep(Duration::from_secs(2));
        let found = alerts::all(world);
        missing = servers
            .iter()
            .zip(&results)
            .flat_map(|(server, (pod, ran))| {
                ran.iter().filter_map(|ran| {
                    lacks(server, pod, ran, &found).map(|lacks| format!("{} in {}: {lacks}", ran.id, server.name))
                })
            })
            .collect();
    }
    let kinds: BTreeSet<&str> = results.iter().flat_map(|(_, ran)| ran).map(|ran| ran.id.as_str()).collect();
    let count: usize = results.iter().map(|(_, ran)| ran.len()).sum();
    println!(
        "{count} attacks, {} kinds in {} images, each told with its pod, owner, digest and user",
        kinds.len(),
        servers.len()
    );
    assert!(servers.len() < 5 || kinds.len() >= 15, "only {kinds:?}");
}

/// Who attacks a server, as the API server's audit log has it: an administrator in another's name.
fn user(server: &Server) -> String {
    format!("admin as intruder-of-{}", server.name)
}

/// Runs, one after the other, what fits the image.
fn run_all(world: &World, harness: &Path, server: &Server, attacks: &[Attack]) -> (Running, Vec<Ran>) {
    let pod = server.pod(world);
    let far_end = pod
        .in_network()
        .arg("python3")
        .arg(harness.join("drive.py"))
        .args(["sink", "600"])
        .args(FAR_END)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _far_end = FarEnd(far_end.expect("python3 runs"));
    let (mut ran, mut left_out) = (Vec::new(), BTreeMap::<String, Vec<&str>>::new());
    for attack in attacks {
        if let Some(why) = unfit(attack, &pod) {
            left_out.entry(why).or_default().push(&attack.id);
            continue;
        }
        // As in the recorded runs: where the server has the far end's port, another of its ports stands for it.
        let script = match server.name {
            "flask-gunicorn" => attack.script.replace(":8000", ":3333"),
            _ => attack.script.clone(),
        };
        let from = Timestamp::now();
        let who = user(server);
        let who = who.rsplit(' ').next().expect("a name");
        world.cluster.kubectl([
            "exec",
            "-n",
            NAMESPACE,
            &pod.name,
            "--as",
            who,
            "--as-group",
            "system:masters",
            "--request-timeout",
            "40s",
            "--",
            "sh",
            "-c",
            &script,
        ]);
        ran.push(Ran { id: attack.id.clone(), from, until: Timestamp::now() });
    }
    println!("{}: {} attacks ran; not run: {}", server.name, ran.len(), listed(&left_out));
    (pod, ran)
}

/// Why an attack does not fit an image.
fn unfit(attack: &Attack, pod: &Running) -> Option<String> {
    let missing: Vec<&str> = attack.needs.iter().map(String::as_str).filter(|program| !pod.has(program)).collect();
    if !missing.is_empty() {
        return Some(format!("no {} in the image", missing.join(" and ")));
    }
    // The harness has some attacks twice.
    let is_second = attack.needs.iter().any(|program| program == "busybox") && pod.has("perl");
    is_second.then(|| "the same is run by perl".to_owned())
}

fn listed(left_out: &BTreeMap<String, Vec<&str>>) -> String {
    if left_out.is_empty() {
        return "none".to_owned();
    }
    let parts: Vec<String> = left_out.iter().map(|(why, ids)| format!("{} ({why})", ids.join(", "))).collect();
    parts.join("; ")
}

/// What is missing of an attack's alert.
fn lacks(server: &Server, pod: &Running, ran: &Ran, alerts: &[Value]) -> Option<String> {
    let wanted = told(&ran.id).expect("looked for before");
    let owner = format!("Deployment/{}", server.name);
    let text = |alert: &Value, field: &str| alert[field].as_str().unwrap_or_default().to_owned();
    // By one clock: the alert began within the attack.
    let is_then = |alert: &Value| {
        let at: Option<Timestamp> = text(alert, "firstSeen").parse().ok();
        at.is_some_and(|at| at >= ran.from && at <= ran.until + SignedDuration::from_secs(2))
    };
    let of_it = |alert: &&Value| {
        let (class, subject) = (text(alert, "class"), text(alert, "subject"));
        text(alert, "owner") == owner && wanted.iter().any(|(of, part)| *of == class && subject.contains(part))
    };
    let own: Vec<&Value> = alerts.iter().filter(of_it).collect();
    let Some(alert) = own.iter().find(|alert| is_then(alert)) else {
        return Some(format!("no alert of {wanted:?} that began {} to {}; {} others", ran.from, ran.until, own.len()));
    };
    let has =
        |field: &str, wanted: &str| alert[field].as_array().is_some_and(|all| all.iter().any(|item| item == wanted));
    let checks = [
        (text(alert, "container") == server.name, "container"),
        (text(alert, "namespace") == NAMESPACE, "namespace"),
        (text(alert, "digest") == pod.digest, "digest"),
        (has("pods", &pod.name), "pod"),
        (alert["users"] == json!([user(server)]), "user"),
    ];
    let wrong: Vec<&str> = checks.into_iter().filter(|(is_right, _)| !is_right).map(|(_, what)| what).collect();
    let shown = ["container", "namespace", "digest", "pods", "users"].map(|field| format!("{field} {}", alert[field]));
    (!wrong.is_empty()).then(|| format!("wrong {}: {}", wrong.join(", "), shown.join(", ")))
}

fn all_there_is(world: &World) -> String {
    let line = |head: &Value| format!("{} {} {} {}", head["owner"], head["class"], head["subject"], head["firstSeen"]);
    alerts::heads(world).iter().map(line).collect::<Vec<_>>().join("\n")
}

fn told(id: &str) -> Option<&'static [(&'static str, &'static str)]> {
    TOLD.iter().find(|(name, _)| *name == id).map(|(_, alerts)| *alerts)
}

fn read(harness: &Path) -> Vec<Attack> {
    let text = fs::read_to_string(harness.join("attacks.toml")).expect("the attacks");
    let table: toml::Table = text.parse().expect("TOML");
    let attacks = table["attack"].as_array().expect("attacks");
    let words = |value: &toml::Value| {
        value.as_array().into_iter().flatten().filter_map(|word| Some(word.as_str()?.to_owned())).collect()
    };
    attacks
        .iter()
        .map(|attack| Attack {
            id: attack["id"].as_str().expect("a name").to_owned(),
            needs: attack.get("needs").map(words).unwrap_or_default(),
            script: attack["sh"].as_str().expect("a script").to_owned(),
        })
        .collect()
}

/// The API server's audit log comes in batches, and the bridge waits for what comes late.
const PATIENCE: Duration = Duration::from_secs(90);
