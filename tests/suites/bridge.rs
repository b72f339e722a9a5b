//! The bridge as a user runs it: the program, sensors that post to it, and what stands in the ledger then. It is killed while it works.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dna::{Digest, Dna};
use jiff::Timestamp;
use lineage::{AlertQuery, Ledger, Origin, SubjectDna};
use serde_json::{Value, json};
use tests::{free_port, mayfly_path};

const SECRET: &str = "a-secret-of-this-test";

/// A server that is started by itself, in an image with a shell that nothing leads to.
fn dna() -> Dna {
    let digest = Digest::sha256(b"").to_string();
    let elf = json!({"architecture": "amd64", "linkage": "dynamic", "stripped": true,
        "hardening": {"pie": "yes", "relro": "full", "nx": "yes", "canary": "yes", "fortify": "yes"}});
    let partial = json!({"state": "partial", "reason": "a test"});
    let completeness = json!({"exec": partial, "listen": partial, "connect": partial, "write": partial, "read": partial,
        "syscalls": partial, "capabilities": partial, "load": partial});
    let program = |path: &str, name: &str| {
        json!({"path": path, "sha256": digest, "size": 1, "layer": 0,
        "package": format!("pkg:deb/debian/{name}@1?arch=amd64"), "uid": 0, "gid": 0, "mode": 0o755, "kind": "elf", "facts": elf,
        "behavior": {"completeness": completeness}})
    };
    let known = |mut value: Value| {
        value["confidence"] = "certain".into();
        value["evidence"] = json!([]);
        value
    };
    let document = json!({
        "schema": dna::SCHEMA,
        "analyzer": {"name": "mayfly", "version": "0", "rules": digest},
        "image": {"platform": "linux/amd64"},
        "layers": [{"created_by": "RUN install served"}],
        "start": {"argv": ["served"], "program": "/usr/sbin/served", "uid": 0, "gid": 0},
        "programs": [program("/usr/bin/dash", "dash"), program("/usr/sbin/served", "served")],
        "accounts": {"users": [], "groups": []},
        "folders": [],
        "behavior": {"exec": [known(json!({"path": "/usr/sbin/served"}))],
            "listen": [known(json!({"protocol": "tcp", "port": 80}))], "completeness": completeness},
        "unknowns": [],
    });
    serde_json::from_value(document).expect("a DNA")
}

/// The digest that the containers' sensor names.
fn subject() -> Digest {
    Digest::sha256(b"the image")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// A ledger that knows the image's DNA.
async fn ledger(folder: &Path) -> Ledger {
    let url = format!("sqlite:{}", folder.join("ledger.db").display());
    let ledger = Ledger::open(&url).await.expect("a ledger");
    let (dna, now) = (dna(), Timestamp::now());
    let json = dna.to_canonical_json().expect("JSON");
    let digest = ledger.put_dna(&dna, json, now).await.expect("kept");
    let link = SubjectDna {
        subject: subject(),
        rules: dna.analyzer.rules.clone(),
        origin: Origin::Analyzed,
        repository: "registry.test/served".to_owned(),
        dna: digest,
        at: now,
    };
    ledger.link_dna(&link).await.expect("linked");
    ledger
}

/// A bridge that runs, until it is dropped.
struct Bridge {
    child: Child,
    port: u16,
}

impl Bridge {
    fn start(folder: &Path, port: u16) -> Self {
        let sensors = folder.join("sensors.toml");
        let secret = Digest::sha256(SECRET.as_bytes());
        let secret = secret.hex();
        let text = format!(
            "[[sensor]]\nname = \"falco\"\ndialect = \"falco\"\ncluster = \"one\"\npath_secret_sha256 = \"{secret}\"\n"
        );
        fs::write(&sensors, text).expect("written");
        let mut child = Command::new(mayfly_path())
            .arg("bridge")
            .args(["--no-cluster", "--cluster", "one", "--listen", &format!("127.0.0.1:{port}")])
            .args(["--ledger", &format!("sqlite:{}", folder.join("ledger.db").display())])
            .arg("--sensors")
            .arg(&sensors)
            .arg("--data")
            .arg(folder.join("bridge"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut seen = Vec::new();
        loop {
            match lines.next() {
                Some(Ok(line)) if line.contains("taking events on") => break,
                Some(Ok(line)) => seen.push(line),
                _ => panic!("the bridge ended: {}", seen.join("\n")),
            }
        }
        // Somebody must read it, or it waits for ever.
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("bridge: {line}")));
        Self { child, port }
    }

    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("it ended");
    }

    /// Ends as a service manager has it end.
    fn end(mut self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
        assert!(self.child.wait().expect("it ended").success());
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An event of the container, the number of which is in its time.
fn event(number: u64, mut fields: Value) -> Value {
    let start = 1_790_000_000_000_000_000_u64;
    fields["evt.time"] = (start + number * 1_000_000).into();
    fields["evt.num"] = number.into();
    fields["container.id"] = "0123456789ab".into();
    fields["container.name"] = "app".into();
    fields["container.image.repository"] = "registry.test/served".into();
    fields["container.image.digest"] = subject().to_string().into();
    fields["k8s.ns.name"] = "shop".into();
    fields["k8s.pod.name"] = "web-1".into();
    json!({"rule": "a rule", "source": "syscall", "hostname": "node", "output_fields": fields})
}

/// Writes that nothing in the image does: one alert for each of these files, so often.
fn intrusion(number: u64) -> Value {
    const FILES: [&str; 4] = ["/etc/passwd", "/etc/ld.so.preload", "/usr/bin/ls", "/etc/cron.d/x"];
    let file = FILES[usize::try_from(number % 4).expect("small")];
    event(
        number,
        json!({"evt.type": "openat", "proc.pid": 10, "proc.exepath": "/usr/sbin/served", "proc.exe": "served",
        "fd.name": file, "evt.is_open_write": true}),
    )
}

async fn post(client: &reqwest::Client, port: u16, body: String) -> bool {
    let url = format!("http://127.0.0.1:{port}/v1/events/falco/{SECRET}");
    let sent = client.post(url).body(body).timeout(Duration::from_secs(5)).send().await;
    sent.is_ok_and(|answer| answer.status() == 200)
}

/// Alerts by subject, and how often each was counted, once there are so many in all.
async fn counted(ledger: &Ledger, wanted: u64) -> BTreeMap<String, u64> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let alerts =
            ledger.alerts(&AlertQuery { limit: 100, ..AlertQuery::default() }, Timestamp::now()).await.expect("read");
        let counts: BTreeMap<String, u64> = alerts.iter().map(|head| (head.subject.clone(), head.count)).collect();
        assert_eq!(counts.len(), alerts.len(), "an alert is there twice");
        if counts.values().sum::<u64>() >= wanted || Instant::now() > until {
            return counts;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn what_was_answered_is_judged_once_however_often_the_bridge_is_killed() {
    let kills: u64 = std::env::var("BRIDGE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let ledger = ledger(folder.path()).await;
        let client = reqwest::Client::new();
        let port = free_port();
        let starts = event(0, json!({"evt.type": "execve", "proc.pid": 10, "proc.pname": "runc", "proc.exepath": "/usr/sbin/served", "proc.exe": "served"}));
        let mut bridge = Bridge::start(folder.path(), port);
        assert!(post(&client, port, starts.to_string()).await);
        // It serves: what it writes from now on is no start-up.
        let serves = event(1, json!({"evt.type": "listen", "proc.pid": 10, "proc.exepath": "/usr/sbin/served", "fd.l4proto": "tcp", "fd.lport": 80}));
        assert!(post(&client, port, serves.to_string()).await);
        let mut number = 10_u64;
        let mut answered = 0_u64;
        for kill in 0..kills {
            let until = Instant::now() + Duration::from_millis(500 + (kill * 1787) % 4500);
            while Instant::now() < until {
                let body: String = (number..number + 20).map(|number| format!("{}\n", intrusion(number))).collect();
                // What gets no answer is sent again, as a sensor with a retry does: it is one event still.
                if post(&client, port, body).await {
                    number += 20;
                    answered += 20;
                }
            }
            bridge.kill();
            bridge = Bridge::start(folder.path(), port);
        }
        let counts = counted(&ledger, answered).await;
        assert_eq!(counts.values().sum::<u64>(), answered, "{counts:?} of {answered} events that were answered");
        assert_eq!(counts.len(), 4, "{counts:?}");
        println!("{answered} events were answered, each was judged once, over {kills} kills");
        bridge.end();
    });
}

#[test]
fn a_sensor_without_its_secret_is_refused_and_a_full_answer_tells_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let _ledger = ledger(folder.path()).await;
        let bridge = Bridge::start(folder.path(), free_port());
        let client = reqwest::Client::new();
        let url = format!("http://127.0.0.1:{}/v1/events/falco/wrong", bridge.port);
        let answer = client.post(url).body(intrusion(1).to_string()).send().await.expect("an answer");
        assert_eq!(answer.status(), 403);
        assert!(!answer.text().await.expect("a body").contains(SECRET));
        bridge.end();
    });
}
