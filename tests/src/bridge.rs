//! The bridge as a user runs it: the program, a sensor that posts as Falco does, and an image whose DNA the ledger has.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use dna::{Digest, Dna};
use jiff::Timestamp;
use lineage::{AlertQuery, Ledger, Origin, SubjectDna};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::mayfly_path;

/// What the sensor of [`Bridge`] shows.
pub const SECRET: &str = "a-secret-of-this-test";

/// How a bridge is run.
#[derive(Debug, Clone)]
pub struct BridgeOptions {
    /// Its settings are here.
    pub folder: PathBuf,
    /// Its log is here.
    pub data: PathBuf,
    /// Its ledger.
    pub ledger: String,
    /// Where it takes events.
    pub port: u16,
    /// The processors it may use, as taskset(1) has them; none: all.
    pub processors: Option<String>,
    /// How much it says, `RUST_LOG`.
    pub says: &'static str,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
    /// Further options of the command.
    pub more: Vec<String>,
}

impl BridgeOptions {
    /// Settings, log and an SQLite ledger in one folder.
    pub fn new(folder: &Path, port: u16) -> Self {
        Self {
            folder: folder.to_owned(),
            data: folder.join("bridge"),
            ledger: sqlite(folder),
            port,
            processors: None,
            says: "info",
            environment: Vec::new(),
            more: Vec::new(),
        }
    }
}

/// The URL of the ledger in a folder.
pub fn sqlite(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("ledger.db").display())
}

/// The file that has the sensor named `falco`, in a folder.
pub fn sensors(folder: &Path) -> PathBuf {
    let sensors = folder.join("sensors.toml");
    let secret = Digest::sha256(SECRET.as_bytes());
    let secret = secret.hex();
    let text = format!(
        "[[sensor]]\nname = \"falco\"\ndialect = \"falco\"\ncluster = \"one\"\npath_secret_sha256 = \"{secret}\"\n"
    );
    fs::write(&sensors, text).expect("written");
    sensors
}

/// A bridge that runs, until it is dropped. One sensor named `falco` may send.
#[derive(Debug)]
pub struct Bridge {
    child: Child,
    /// Where it takes events.
    pub port: u16,
    said: Arc<Mutex<Vec<String>>>,
}

impl Bridge {
    /// Starts one, and waits until it takes events.
    pub fn start(options: &BridgeOptions) -> Self {
        let mut command = match &options.processors {
            None => Command::new(mayfly_path()),
            Some(processors) => {
                let mut command = Command::new("taskset");
                command.args(["-c", processors]).arg(mayfly_path());
                command
            }
        };
        command
            .arg("bridge")
            .args(["--no-cluster", "--cluster", "one", "--listen", &format!("127.0.0.1:{}", options.port)])
            .args(["--ledger", &options.ledger])
            .arg("--sensors")
            .arg(sensors(&options.folder))
            .arg("--data")
            .arg(&options.data)
            .args(&options.more)
            .env("RUST_LOG", options.says)
            .envs(options.environment.iter().map(|(name, value)| (name, value)));
        Self::spawn(command, options.port)
    }

    /// Starts a command that is a bridge, and waits until it takes events on this port.
    pub fn spawn(mut command: Command, port: u16) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let said = Arc::new(Mutex::new(Vec::new()));
        loop {
            match lines.next() {
                Some(Ok(line)) if line.contains("taking events on") => break,
                Some(Ok(line)) => said.lock().expect("no panic").push(line),
                _ => panic!("the bridge ended: {}", said.lock().expect("no panic").join("\n")),
            }
        }
        // Somebody must read it, or it waits for ever.
        let keeps = Arc::clone(&said);
        thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| {
                eprintln!("bridge: {line}");
                keeps.lock().expect("no panic").push(line);
            });
        });
        Self { child, port, said }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().expect("no panic").clone()
    }

    /// Ends it as a lack of memory would.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("it ended");
    }

    /// Ends it as a service manager does.
    pub fn end(mut self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
        assert!(self.child.wait().expect("it ended").success());
    }

    /// Processor time of it so far.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let after = stat.rsplit(") ").next().expect("its state");
        // utime and stime, the 14th and 15th of all, in hundredths of a second.
        let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// MiB of memory of its own: without the pages of files, which the kernel takes back.
    pub fn resident_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("its memory");
        let kib: f64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number");
        kib / 1024.0
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sensor's connection, kept open.
#[derive(Debug)]
pub struct Sensor {
    port: u16,
    stream: Option<TcpStream>,
    answer: Vec<u8>,
}

impl Sensor {
    /// To a bridge on this port; it need not be there yet.
    pub fn new(port: u16) -> Self {
        Self { port, stream: None, answer: Vec::with_capacity(512) }
    }

    /// A request with this body, to be sent as it is.
    pub fn request(body: &str) -> Vec<u8> {
        format!(
            "POST /v1/events/falco/{SECRET} HTTP/1.1\r\nhost: bridge\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    /// The status of the answer; none where there was no answer within five seconds.
    pub async fn send(&mut self, request: &[u8]) -> Option<u16> {
        let answered = tokio::time::timeout(Duration::from_secs(5), self.exchange(request)).await;
        let status = answered.ok().and_then(Result::ok).flatten();
        if status.is_none() {
            self.stream = None;
        }
        status
    }

    async fn exchange(&mut self, request: &[u8]) -> std::io::Result<Option<u16>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
                stream.set_nodelay(true)?;
                none.insert(stream)
            }
        };
        stream.write_all(request).await?;
        self.answer.clear();
        loop {
            if stream.read_buf(&mut self.answer).await? == 0 {
                return Ok(None);
            }
            if let Some(status) = answered(&self.answer) {
                return Ok(Some(status));
            }
        }
    }
}

/// The status of an answer, once it is whole.
fn answered(bytes: &[u8]) -> Option<u16> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&bytes[..head]).expect("a head is text");
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    let status = text.split_whitespace().nth(1)?.parse().ok()?;
    (bytes.len() >= head + 4 + length).then_some(status)
}

/// The DNA of a server that is started by itself, in an image with a shell that nothing leads to, and so many other programs.
pub fn served(others: usize) -> Dna {
    let digest = Digest::sha256(b"").to_string();
    let elf = json!({"architecture": "amd64", "linkage": "dynamic", "stripped": true,
        "hardening": {"pie": "yes", "relro": "full", "nx": "yes", "canary": "yes", "fortify": "yes"}});
    let partial = json!({"state": "partial", "reason": "a test"});
    let completeness = json!({"exec": partial, "listen": partial, "connect": partial, "write": partial, "read": partial,
        "syscalls": partial, "capabilities": partial, "load": partial});
    let known = |mut value: Value| {
        value["confidence"] = "certain".into();
        value["evidence"] = json!([]);
        value
    };
    let program = |path: String, name: &str, calls: usize| {
        let calls: Vec<Value> = (0..calls).map(|n| known(json!({"name": format!("a_system_call_{n}")}))).collect();
        json!({"path": path, "sha256": digest, "size": 1, "layer": 0,
        "package": format!("pkg:deb/debian/{name}@1?arch=amd64"), "uid": 0, "gid": 0, "mode": 0o755, "kind": "elf", "facts": elf,
        "behavior": {"syscalls": calls, "completeness": completeness}})
    };
    let mut programs: Vec<Value> = (0..others)
        .map(|n| program(format!("/usr/bin/a{n:04}"), "others", if n % 10 == 0 { 150 } else { 0 }))
        .collect();
    programs.push(program("/usr/bin/dash".to_owned(), "dash", 0));
    programs.push(program("/usr/sbin/served".to_owned(), "served", 0));
    let document = json!({
        "schema": dna::SCHEMA,
        "analyzer": {"name": "mayfly", "version": "0", "rules": digest},
        "image": {"platform": "linux/amd64"},
        "layers": [{"created_by": "RUN install served"}],
        "start": {"argv": ["served"], "program": "/usr/sbin/served", "uid": 0, "gid": 0},
        "programs": programs,
        "accounts": {"users": [], "groups": []},
        "folders": [],
        "behavior": {"exec": [known(json!({"path": "/usr/sbin/served"}))],
            "listen": [known(json!({"protocol": "tcp", "port": 80}))],
            "write": [known(json!({"path": "/var/lib/served/**"}))], "completeness": completeness},
        "unknowns": [],
    });
    serde_json::from_value(document).expect("a DNA")
}

/// The digest of an image that a sensor names.
pub fn subject(image: usize) -> Digest {
    Digest::sha256(format!("image {image}").as_bytes())
}

/// A ledger that knows the DNA of an image.
pub async fn knows(ledger: &Ledger, image: usize, dna: &Dna) {
    let now = Timestamp::now();
    let json = dna.to_canonical_json().expect("JSON");
    let digest = ledger.put_dna(dna, json, now).await.expect("kept");
    let link = SubjectDna {
        subject: subject(image),
        rules: dna.analyzer.rules.clone(),
        origin: Origin::Analyzed,
        repository: "registry.test/served".to_owned(),
        dna: digest,
        at: now,
    };
    ledger.link_dna(&link).await.expect("linked");
}

/// An event as Falco sends it: of a container of an image, at a time, with these fields.
pub fn event(at: Timestamp, container: usize, image: usize, fields: Value) -> Value {
    let mut all = json!({
        "container.id": format!("{container:012x}"),
        "container.image.digest": subject(image).to_string(),
        "container.image.repository": "registry.test/served",
        "k8s.ns.name": "shop", "k8s.pod.name": format!("web-{container}"), "container.name": "app",
    });
    for (name, value) in fields.as_object().expect("fields") {
        all[name] = value.clone();
    }
    all["evt.time"] = i64::try_from(at.as_nanosecond()).expect("a time of our days").into();
    json!({"output": "x", "priority": "Notice", "rule": "r", "source": "syscall",
        "hostname": format!("node-{}", container % 5), "time": at.to_string(), "output_fields": all})
}

/// The server's process, as the sensor tells of it.
const SERVER: i64 = 10;

/// The server is started by the container's runtime.
pub fn starts(at: Timestamp, container: usize, image: usize) -> Value {
    let fields = json!({"evt.type": "execve", "proc.pid": SERVER, "proc.pname": "runc", "proc.exepath": "/usr/sbin/served",
        "proc.exe": "served"});
    event(at, container, image, fields)
}

/// It serves: what it writes from now on is no start-up.
pub fn serves(at: Timestamp, container: usize, image: usize) -> Value {
    let fields = json!({"evt.type": "listen", "proc.pid": SERVER, "proc.exepath": "/usr/sbin/served", "fd.l4proto": "tcp",
        "fd.lport": 80});
    event(at, container, image, fields)
}

/// It writes a file: no deviation below `/var/lib/served`.
pub fn writes(at: Timestamp, container: usize, image: usize, file: &str) -> Value {
    let fields = json!({"evt.type": "openat", "proc.pid": SERVER, "proc.exepath": "/usr/sbin/served", "proc.exe": "served",
        "fd.name": file, "evt.is_open_write": true});
    event(at, container, image, fields)
}

/// Files that no server writes: each is an alert of its own.
pub const TAKEN: [&str; 4] = ["/etc/passwd", "/etc/cron.d/x", "/root/.ssh/authorized_keys", "/etc/ld.so.preload"];

/// Alerts by subject, and how often each was counted, once there are so many in all, or the time has passed.
pub async fn counted(ledger: &Ledger, wanted: u64, patience: Duration) -> BTreeMap<String, u64> {
    let until = Instant::now() + patience;
    loop {
        let asked = AlertQuery { limit: 100, ..AlertQuery::default() };
        // A ledger that is just away is asked again.
        if let Ok(alerts) = ledger.alerts(&asked, Timestamp::now()).await {
            let counts: BTreeMap<String, u64> = alerts.iter().map(|head| (head.subject.clone(), head.count)).collect();
            assert_eq!(counts.len(), alerts.len(), "an alert is there twice");
            if counts.values().sum::<u64>() >= wanted || Instant::now() > until {
                return counts;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
