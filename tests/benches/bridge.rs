//! How much the bridge costs, as ratios in one run: the program on one processor, from the request to the alert in the ledger, beside a
//! loop that only parses the same events; and how long an answer takes at a steady rate. A row that misses its limit says so.
//!
//! `cargo bench --workspace --features tests/e2e --bench bridge`; `BRIDGE_EVENTS` says how many events a row has, `BRIDGE_ROUNDS` how often
//! the judged rows are taken, `BRIDGE_FOLDER` on which disk. The program runs on the last processor, what drives it on the others.

use std::{
    collections::VecDeque,
    env, fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use lineage::Ledger;
use serde_json::json;
use tests::{Bridge, BridgeOptions, Sensor, TAKEN, event, free_port, knows, served, serves, sqlite, starts};

/// Containers that the events are of, on five nodes.
const CONTAINERS: usize = 50;
/// Of so many events one is a deviation.
const DEVIATES: usize = 100;
/// The rate at which answers are timed.
const STEADY: usize = 5_000;

fn main() -> ExitCode {
    let count = setting("BRIDGE_EVENTS", 400_000);
    let rounds = setting("BRIDGE_ROUNDS", 3);
    let mut missed = 0;
    let sample: Vec<String> = (0..20_000).map(|number| one(number, Timestamp::now()).body).collect();
    let bytes = sample.iter().map(String::len).sum::<usize>() / sample.len();
    println!("events of {bytes} bytes, one of {DEVIATES} a deviation; {count} a row");
    for (name, in_body, senders, limit) in
        [("bodies of 100", 100, 8, Some(0.15)), ("bodies of 10", 10, 32, None), ("bodies of one event", 1, 64, None)]
    {
        let count = if in_body == 1 { count / 4 } else { count };
        let mut ratios = Vec::new();
        for _ in 0..rounds {
            // In turn, so that what else the machine does falls on both.
            let parsing = parse(&sample);
            let full = full_path(count, in_body, senders);
            let ratio = parsing / full.micros;
            println!(
                "{name:<24} {:>8.0} events/s judged, {:>6.2} us of CPU each; parsing {parsing:.2} us: {ratio:.3}; wall {:.3}",
                full.per_second,
                full.micros,
                full.per_second * parsing / 1e6
            );
            ratios.push(ratio);
        }
        missed +=
            judged(&format!("  {name}: part of parsing alone, median"), median(ratios), limit.map(Limit::AtLeast));
    }
    let (p50, p99, worst, refused) = steady();
    println!("{STEADY} events/s, one a request: p50 {p50:.2} ms, worst {worst:.1} ms, {refused} not taken");
    missed += judged("  p99 of an answer, ms", p99, Some(Limit::AtMost(10.0)));
    println!("{missed} rows miss their limits");
    ExitCode::SUCCESS
}

/// What one row took.
struct Full {
    /// Events from the first request until the last is judged and written.
    per_second: f64,
    /// Processor time of an event.
    micros: f64,
}

/// Sends events as fast as they are answered, and waits until all are judged.
fn full_path(count: usize, in_body: usize, senders: usize) -> Full {
    let folder = place();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let ledger = Ledger::open(&sqlite(folder.path())).await.expect("a ledger");
        knows(&ledger, 0, &served(300)).await;
        let bridge = bridge(folder.path());
        let begun = begin(&bridge).await;
        let made: Vec<Body> = (0..count / in_body)
            .map(|n| Body::of((n * in_body..(n + 1) * in_body).map(|number| one(number, Timestamp::now()))))
            .collect();
        let bodies: Arc<std::sync::Mutex<VecDeque<Body>>> = Arc::new(std::sync::Mutex::new(made.into()));
        let (before, started) = (bridge.processor_time(), Instant::now());
        let each: Vec<_> = (0..senders)
            .map(|_| {
                let (bodies, port) = (Arc::clone(&bodies), bridge.port);
                tokio::spawn(async move {
                    let mut sensor = Sensor::new(port);
                    loop {
                        let Some(mut body) = bodies.lock().expect("no panic").pop_front() else { return };
                        body.now();
                        assert_eq!(sensor.send(&body.request).await, Some(200), "it is taken");
                    }
                })
            })
            .collect();
        for one in each {
            one.await.expect("no panic");
        }
        let until = begun + (count / in_body * in_body) as u64;
        while ledger.checkpoint("bridge").await.expect("read").is_none_or(|checkpoint| checkpoint.offset < until) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(started.elapsed() < Duration::from_secs(300), "not all is judged");
        }
        let (wall, cpu) = (started.elapsed().as_secs_f64(), bridge.processor_time() - before);
        if env::var_os("BRIDGE_METRICS").is_some() {
            println!("{:.0} MiB resident", bridge.resident_mib());
        }
        bridge.end();
        Full { per_second: count as f64 / wall, micros: cpu.as_secs_f64() * 1e6 / count as f64 }
    })
}

/// The program on the last processor.
fn bridge(folder: &Path) -> Bridge {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = BridgeOptions::new(folder, free_port());
    options.processors = Some((processors - 1).to_string());
    options.says = "warn";
    Bridge::start(&options)
}

/// The containers start and serve; gives the number of events that were sent.
async fn begin(bridge: &Bridge) -> u64 {
    let now = Timestamp::now();
    let begin: String = (0..CONTAINERS)
        .flat_map(|container| [starts(now, container, 0), serves(now, container, 0)])
        .map(|event| format!("{event}\n"))
        .collect();
    assert_eq!(Sensor::new(bridge.port).send(&Sensor::request(&begin)).await, Some(200));
    tokio::time::sleep(Duration::from_secs(4)).await;
    2 * CONTAINERS as u64
}

/// Events one by one, at a steady rate over 64 connections: p50, p99 and worst milliseconds from when each was to be sent, and how many were
/// not taken.
fn steady() -> (f64, f64, f64, usize) {
    const CONNECTIONS: usize = 64;
    let seconds = setting("BRIDGE_SECONDS", 20);
    let folder = place();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let ledger = Ledger::open(&sqlite(folder.path())).await.expect("a ledger");
        knows(&ledger, 0, &served(300)).await;
        let bridge = bridge(folder.path());
        begin(&bridge).await;
        let refused = Arc::new(AtomicUsize::new(0));
        let began = tokio::time::Instant::now();
        let each: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let (refused, port) = (Arc::clone(&refused), bridge.port);
                tokio::spawn(async move {
                    let mut sensor = Sensor::new(port);
                    let mut took = Vec::new();
                    for turn in 0..STEADY * seconds / CONNECTIONS {
                        let number = turn * CONNECTIONS + connection;
                        let due = began + Duration::from_secs_f64(number as f64 / STEADY as f64);
                        tokio::time::sleep_until(due).await;
                        let mut body = Body::of(std::iter::once(one(number, Timestamp::now())));
                        body.now();
                        if sensor.send(&body.request).await != Some(200) {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        // The wake-up of a timer is a millisecond late at times: that is ours and not the bridge's.
                        took.push(due.elapsed().as_secs_f64() * 1e3);
                    }
                    took
                })
            })
            .collect();
        let mut took = Vec::new();
        for one in each {
            took.extend(one.await.expect("no panic"));
        }
        bridge.end();
        took.sort_by(f64::total_cmp);
        let at = |part: usize| took[(took.len() * part / 1000).min(took.len() - 1)];
        (at(500), at(990), at(1000), refused.load(Ordering::Relaxed))
    })
}

/// A request whose events get the time at which it is sent.
struct Body {
    request: Vec<u8>,
    times: Vec<usize>,
}

impl Body {
    fn of(events: impl Iterator<Item = One>) -> Self {
        let (mut body, mut times) = (String::new(), Vec::new());
        for one in events {
            times.push(body.len() + one.time);
            body.push_str(&one.body);
            body.push('\n');
        }
        let request = Sensor::request(&body);
        let head = request.len() - body.len();
        times.iter_mut().for_each(|time| *time += head);
        Self { request, times }
    }

    fn now(&mut self) {
        let now = Timestamp::now().as_nanosecond();
        for (n, time) in self.times.iter().enumerate() {
            let digits = (now + i128::try_from(n).expect("small")).to_string();
            self.request[*time..*time + DIGITS].copy_from_slice(digits.as_bytes());
        }
    }
}

/// Digits of a time in nanoseconds, until the year 2286.
const DIGITS: usize = 19;

struct One {
    body: String,
    /// Where the digits of its time begin.
    time: usize,
}

/// An event as Falco sends it with the fields that are asked of it: a write, a file of the server's own but for one of [`DEVIATES`].
fn one(number: usize, at: Timestamp) -> One {
    let file = match number % DEVIATES {
        0 => TAKEN[number / DEVIATES % TAKEN.len()].to_owned(),
        _ => format!("/var/lib/served/{}/data", number % 1000),
    };
    let padding = "x".repeat(160);
    let mut made = event(
        at,
        number % CONTAINERS,
        0,
        json!({"container.full_id": format!("{:064x}", number % CONTAINERS), "container.image.tag": "1.29", "evt.arg.flags": "O_LARGEFILE|O_TRUNC|O_CREAT|O_WRONLY",
            "evt.is_open_read": false, "evt.is_open_write": true, "evt.num": number, "evt.rawres": 12, "evt.res": "SUCCESS", "evt.type": "openat",
            "fd.name": file, "fs.path.name": file, "k8s.pod.uid": format!("0f7ad251-39da-44f7-af28-{:012x}", number % CONTAINERS),
            "proc.aname[2]": "containerd-shim", "proc.args": "-g daemon -c /etc/served/served.conf", "proc.cmdline": "served -g daemon -c /etc/served/served.conf",
            "proc.cwd": "/var/lib/served/", "proc.exe": "served", "proc.exepath": "/usr/sbin/served", "proc.is_exe_from_memfd": false,
            "proc.is_exe_upper_layer": false, "proc.name": "served", "proc.pcmdline": "runc init", "proc.pexepath": "/usr/bin/runc", "proc.pid": 10,
            "proc.pname": "runc", "proc.ppid": 1, "user.uid": 101}),
    );
    made["output"] = format!("13:44:05.478445995: Notice A file was opened for writing {padding}").into();
    made["rule"] = "Mayfly: file opened for writing".into();
    made["tags"] = json!(["container", "mayfly"]);
    let body = made.to_string();
    let time = body.find("\"evt.time\":").expect("its time") + "\"evt.time\":".len();
    One { body, time }
}

/// Microseconds of processor time that parsing an event takes.
fn parse(events: &[String]) -> f64 {
    const TIMES: usize = 20;
    let before = own_time();
    for _ in 0..TIMES {
        for event in events {
            tests::parse(black_box(event)).expect("an event");
        }
    }
    (own_time() - before).as_secs_f64() * 1e6 / (TIMES * events.len()) as f64
}

/// Processor time of this thread. Source: Documentation/scheduler/sched-stats.rst, `/proc/PID/schedstat`, the first field.
fn own_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    Duration::from_nanos(text.split_whitespace().next().and_then(|field| field.parse().ok()).expect("a time"))
}

fn place() -> tempfile::TempDir {
    match env::var_os("BRIDGE_FOLDER") {
        Some(folder) => tempfile::tempdir_in(PathBuf::from(folder)),
        None => tempfile::tempdir(),
    }
    .expect("a folder")
}

#[derive(Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// A row, and whether it misses its limit.
fn judged(what: &str, value: f64, limit: Option<Limit>) -> usize {
    let (is_met, said) = match limit {
        Some(Limit::AtLeast(least)) => (value >= least, format!("at least {least}")),
        Some(Limit::AtMost(most)) => (value <= most, format!("at most {most}")),
        None => (true, String::new()),
    };
    println!("{what:<52} {value:>9.3}  {said}{}", if is_met { "" } else { "  MISSED" });
    usize::from(!is_met)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn setting(name: &str, otherwise: usize) -> usize {
    env::var(name).ok().and_then(|value| value.parse().ok()).filter(|value| *value != 0).unwrap_or(otherwise)
}
