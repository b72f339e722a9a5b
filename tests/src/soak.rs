//! What a bridge has to live through: it is killed, its disk is full, its ledger is away, clocks jump, a day's containers come and go, and
//! nothing happens for long. Each takes how long or how often, ends with a panic where a promise is broken, and gives what was measured.
//!
//! The suite runs the short forms, the command `soak` the long ones.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use dna::Dna;
use jiff::{SignedDuration, Timestamp};
use lineage::Ledger;

use crate::{
    Bridge, BridgeOptions, Postgres, Sensor, TAKEN, bridge::counted, free_port, knows, run, served, serves, sqlite,
    starts, writes,
};

/// Time for what was answered to be judged.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// MiB of the bridge's own memory, with the containers of [`containers`].
pub const CEILING: f64 = 448.0;

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// A container that serves, and an intruder in it who writes as fast as it is told.
struct Intruder {
    sensor: Sensor,
    began: Timestamp,
    number: u64,
    answered: u64,
}

impl Intruder {
    /// Begins; what is not answered is sent again, as a sensor with a retry does.
    async fn begin(port: u16, began: Timestamp) -> Self {
        let mut sensor = Sensor::new(port);
        let body = format!("{}\n{}\n", starts(began, 1, 0), serves(began + SignedDuration::from_millis(1), 1, 0));
        assert_eq!(sensor.send(&Sensor::request(&body)).await, Some(200));
        Self { sensor, began: began + SignedDuration::from_millis(2), number: 0, answered: 0 }
    }

    /// Twenty writes, one a millisecond; the status of the answer.
    async fn write(&mut self) -> Option<u16> {
        const AT_ONCE: u64 = 20;
        let body: String = (self.number..self.number + AT_ONCE)
            .map(|number| {
                let at = self.began + SignedDuration::from_millis(i64::try_from(number).expect("small"));
                let file = TAKEN[usize::try_from(number).expect("small") % TAKEN.len()];
                let mut event = writes(at, 1, 0, file);
                // Clocks that jump back come to the same times again.
                event["output_fields"]["evt.num"] = number.into();
                format!("{event}\n")
            })
            .collect();
        let status = self.sensor.send(&Sensor::request(&body)).await;
        if status == Some(200) {
            self.number += AT_ONCE;
            self.answered += AT_ONCE;
        }
        status
    }

    async fn write_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.write().await;
        }
    }

    /// Each that was answered is judged, and once.
    async fn is_judged_once(&self, ledger: &Ledger) {
        let counts = counted(ledger, self.answered, PATIENCE).await;
        assert_eq!(counts.values().sum::<u64>(), self.answered, "{counts:?} of {} that were answered", self.answered);
        assert_eq!(counts.len(), TAKEN.len(), "{counts:?}");
    }
}

async fn ledger(url: &str) -> Ledger {
    let ledger = Ledger::open(url).await.expect("a ledger");
    knows(&ledger, 0, &served(0)).await;
    ledger
}

/// The bridge is killed (-9) under load, so often.
pub fn kills(kills: u64) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let options = BridgeOptions::new(folder.path(), free_port());
        let ledger = ledger(&options.ledger).await;
        let mut bridge = Bridge::start(&options);
        let mut intruder = Intruder::begin(options.port, Timestamp::now()).await;
        let mut back = Duration::ZERO;
        for kill in 0..kills {
            intruder.write_for(Duration::from_millis(500 + (kill * 1787) % 4500)).await;
            bridge.kill();
            let began = Instant::now();
            bridge = Bridge::start(&options);
            back = back.max(began.elapsed());
        }
        intruder.is_judged_once(&ledger).await;
        bridge.end();
        format!(
            "{} events answered over {kills} kills, each judged once; it took events again after {:.1} s at most",
            intruder.answered,
            back.as_secs_f64()
        )
    })
}

/// A disk of its own, of so many MiB, until it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn new(folder: &Path, mib: usize) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let size = format!("size={mib}m,mode=700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "bridge"]).arg(folder)).ok();
        Self(folder.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The disk of the log is full, and is not any more.
pub fn full_disk() -> String {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let mut options = BridgeOptions::new(folder.path(), free_port());
        options.data = folder.path().join("disk/bridge");
        let disk = Disk::new(&folder.path().join("disk"), 32);
        // What else is on the disk.
        fs::write(disk.0.join("other"), vec![0; 24 << 20]).expect("there is room yet");
        let ledger = ledger(&options.ledger).await;
        let bridge = Bridge::start(&options);
        let mut intruder = Intruder::begin(options.port, Timestamp::now()).await;
        let began = Timestamp::now();
        let until = Instant::now() + PATIENCE;
        while intruder.write().await != Some(503) {
            assert!(Instant::now() < until, "the disk is not full");
        }
        let before = intruder.answered;
        intruder.is_judged_once(&ledger).await;
        // It is full for a while, and each is told so.
        for _ in 0..20 {
            assert_eq!(intruder.write().await, Some(503));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        fs::remove_file(disk.0.join("other")).expect("removed");
        while intruder.write().await != Some(200) {
            assert!(Instant::now() < until, "it goes on when there is room");
        }
        intruder.write_for(Duration::from_secs(1)).await;
        intruder.is_judged_once(&ledger).await;
        let until = Instant::now() + PATIENCE;
        let blind = loop {
            let blind = ledger.blind(None, began, None, 100).await.expect("read");
            if blind.iter().any(|row| row.cause == "full" && row.until > row.from) || Instant::now() > until {
                break blind;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let full = blind.iter().find(|row| row.cause == "full" && row.until > row.from);
        let full = full.unwrap_or_else(|| panic!("it is told when it was blind: {blind:?}"));
        assert_eq!((full.sensor.as_str(), full.cluster.as_str()), ("falco", "one"));
        let seconds = full.until.duration_since(full.from).as_secs_f64();
        bridge.end();
        format!(
            "{before} events answered until 503, {} after there was room; each judged once, blind for {seconds:.1} s",
            intruder.answered - before
        )
    })
}

/// PostgreSQL is ended as by a loss of power, under load, so often, and is away for so long each time.
pub fn postgres_restarts(times: usize, away: Duration) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let postgres = Postgres::start(&[], None);
    let url = postgres.database("ledger");
    runtime().block_on(async {
        let mut options = BridgeOptions::new(folder.path(), free_port());
        options.ledger = url.clone();
        let ledger = ledger(&url).await;
        let bridge = Bridge::start(&options);
        let mut intruder = Intruder::begin(options.port, Timestamp::now()).await;
        let mut meanwhile = 0;
        for _ in 0..times {
            intruder.write_for(Duration::from_secs(2)).await;
            postgres.kill();
            let before = intruder.answered;
            intruder.write_for(away).await;
            assert!(intruder.answered > before, "events are taken while the ledger is away");
            meanwhile += intruder.answered - before;
            tokio::task::block_in_place(|| postgres.restart());
        }
        intruder.write_for(Duration::from_secs(2)).await;
        intruder.is_judged_once(&ledger).await;
        bridge.end();
        format!(
            "{} events answered over {times} restarts, {meanwhile} of them while it was away; each judged once",
            intruder.answered
        )
    })
}

/// The nodes' clocks jump: an hour ahead, back again, and a day back. What is seen is judged within seconds, whatever the clock says.
pub fn clock_jumps() -> String {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let options = BridgeOptions::new(folder.path(), free_port());
        let ledger = ledger(&options.ledger).await;
        let bridge = Bridge::start(&options);
        let mut intruder = Intruder::begin(options.port, Timestamp::now()).await;
        let mut slowest = Duration::ZERO;
        for hours in [0, 1, 0, -24, 0] {
            intruder.began = Timestamp::now() + SignedDuration::from_hours(hours)
                - SignedDuration::from_millis(i64::try_from(intruder.number).expect("small"));
            intruder.write_for(Duration::from_secs(2)).await;
            let began = Instant::now();
            intruder.is_judged_once(&ledger).await;
            slowest = slowest.max(began.elapsed());
            assert!(began.elapsed() < Duration::from_secs(15), "{hours} hours off: {:?}", began.elapsed());
        }
        bridge.end();
        format!(
            "{} events over jumps of the nodes' clocks by 1 h and by 24 h, each judged once, within {:.1} s",
            intruder.answered,
            slowest.as_secs_f64()
        )
    })
}

/// The bridge's own clock jumps, an hour ahead and two back: by libfaketime, which stands between a program and what it asks the time.
pub fn own_clock_jumps() -> String {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    let library =
        if Path::new(library).exists() { library } else { "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1" };
    assert!(Path::new(library).exists(), "this needs `libfaketime`: apt-get install libfaketime");
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let file = folder.path().join("clock");
        let set = |text: &str| {
            // At once, as a half of it is another time.
            fs::write(folder.path().join("next"), format!("{text}\n")).expect("written");
            fs::rename(folder.path().join("next"), &file).expect("renamed");
        };
        set("+0");
        let mut options = BridgeOptions::new(folder.path(), free_port());
        options.environment = vec![
            ("LD_PRELOAD".to_owned(), library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE".to_owned(), file.display().to_string()),
            ("FAKETIME_NO_CACHE".to_owned(), "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
        ];
        let ledger = ledger(&options.ledger).await;
        let began = Timestamp::now();
        let bridge = Bridge::start(&options);
        let mut intruder = Intruder::begin(options.port, began).await;
        let mut slowest = Duration::ZERO;
        for jump in ["+0", "+3600", "-3600", "+0"] {
            set(jump);
            intruder.write_for(Duration::from_secs(2)).await;
            let waited = Instant::now();
            intruder.is_judged_once(&ledger).await;
            slowest = slowest.max(waited.elapsed());
            assert!(waited.elapsed() < Duration::from_secs(15), "at {jump}: {:?}", waited.elapsed());
        }
        // Longer than it is looked who says nothing.
        intruder.write_for(Duration::from_secs(6)).await;
        intruder.is_judged_once(&ledger).await;
        let since = began - SignedDuration::from_hours(2);
        let blind = ledger.blind(None, since, None, 100).await.expect("read");
        assert!(blind.iter().all(|row| row.cause != "silent"), "a sensor that sends is not silent: {blind:?}");
        bridge.end();
        format!("{} events over jumps of its own clock by 1 h and 2 h, each judged once, within {:.1} s; no sensor taken for silent",
            intruder.answered, slowest.as_secs_f64())
    })
}

/// The containers of a day, of so many services, each of which dies and is replaced: their events bear the times of a day. A thousand of them
/// run at once.
pub fn containers(services: usize, containers: usize) -> String {
    const PROGRAMS: usize = 300;
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let ledger = Ledger::open(&sqlite(folder.path())).await.expect("a ledger");
        for image in 0..services {
            knows(&ledger, image, &image_of(image, PROGRAMS)).await;
        }
        let mut options = BridgeOptions::new(folder.path(), free_port());
        options.says = "warn";
        let bridge = Bridge::start(&options);
        let empty = bridge.resident_mib();
        let mut sensor = Sensor::new(options.port);
        let midnight = Timestamp::now() - SignedDuration::from_hours(24);
        let a_day = 24 * 3600 * 1000;
        let (mut most, mut sent) = (0_f64, 0_u64);
        for container in 0..containers {
            let at = |part: usize| {
                let begins = a_day * container / containers;
                midnight + SignedDuration::from_millis(i64::try_from(begins + part * 500).expect("a day"))
            };
            let image = container % services;
            let mut body = String::new();
            let mut tell = |event: serde_json::Value| {
                body.push_str(&event.to_string());
                body.push('\n');
                sent += 1;
            };
            tell(starts(at(0), container, image));
            tell(serves(at(1), container, image));
            for n in 0..100 {
                tell(writes(at(2 + n), container, image, &format!("/var/lib/served/{n}")));
            }
            // One it shall not write, in each: as many alerts as containers.
            tell(writes(at(110), container, image, "/etc/passwd"));
            // One that died before is told of late: it is known still, and what it does is compared with what it did.
            if container >= services {
                tell(writes(at(111), container - services, image, "/etc/ld.so.preload"));
            }
            let request = Sensor::request(&body);
            while sensor.send(&request).await != Some(200) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if container % 50 == 0 {
                most = most.max(bridge.resident_mib());
            }
        }
        let until = Instant::now() + 2 * PATIENCE;
        while ledger.checkpoint("bridge").await.expect("read").is_none_or(|checkpoint| checkpoint.offset < sent) {
            most = most.max(bridge.resident_mib());
            assert!(Instant::now() < until, "not all is judged");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        most = most.max(bridge.resident_mib());
        let mut counts = std::collections::BTreeMap::<String, u64>::new();
        let mut asked = lineage::AlertQuery { limit: 500, sort: lineage::AlertSort::FirstSeen, ..lineage::AlertQuery::default() };
        loop {
            let page = ledger.alerts(&asked, Timestamp::now()).await.expect("read");
            let Some(last) = page.last() else { break };
            asked.after = Some(lineage::After::head(last, asked.sort));
            for head in &page {
                *counts.entry(head.subject.clone()).or_default() += head.count;
            }
        }
        assert_eq!(counts.get("/etc/passwd"), Some(&(containers as u64)), "{counts:?}");
        assert_eq!(counts.get("/etc/ld.so.preload").copied().unwrap_or(0), (containers - services) as u64, "{counts:?}");
        assert!(most <= CEILING, "{most:.0} MiB; the ceiling is {CEILING:.0}");
        bridge.end();
        format!("{services} services, {containers} containers, {sent} events: {most:.0} MiB at most (ceiling {CEILING:.0}), {empty:.0} before the first")
    })
}

/// An image of its own for each service.
fn image_of(image: usize, programs: usize) -> Dna {
    let mut dna = served(programs);
    dna.layers[0].created_by = Some(format!("RUN install service {image}"));
    dna
}

/// A steady load for so long: memory stays where it is.
pub fn steady(time: Duration, per_second: u64) -> String {
    const AT_ONCE: u64 = 50;
    const CONTAINERS: usize = 50;
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let mut options = BridgeOptions::new(folder.path(), free_port());
        options.says = "warn";
        let ledger = ledger(&options.ledger).await;
        let bridge = Bridge::start(&options);
        let mut sensor = Sensor::new(options.port);
        let now = Timestamp::now();
        let begin: String = (0..CONTAINERS).map(|n| format!("{}\n{}\n", starts(now, n, 0), serves(now, n, 0))).collect();
        assert_eq!(sensor.send(&Sensor::request(&begin)).await, Some(200));
        let began = tokio::time::Instant::now();
        let (mut number, mut seen, mut taken) = (0_u64, Vec::new(), 0_u64);
        while began.elapsed() < time {
            tokio::time::sleep_until(began + Duration::from_secs_f64(number as f64 / per_second as f64)).await;
            let body: String = (number..number + AT_ONCE)
                .map(|n| {
                    let container = usize::try_from(n).expect("small") % CONTAINERS;
                    // One in a thousand is a deviation.
                    let file = if n % 1000 == 7 { TAKEN[0].to_owned() } else { format!("/var/lib/served/{n}") };
                    taken += u64::from(n % 1000 == 7);
                    let at = Timestamp::now() + SignedDuration::from_nanos(i64::try_from(n - number).expect("small"));
                    format!("{}\n", writes(at, container, 0, &file))
                })
                .collect();
            assert_eq!(sensor.send(&Sensor::request(&body)).await, Some(200));
            number += AT_ONCE;
            if number % (per_second * 5).next_multiple_of(AT_ONCE) == 0 {
                seen.push(bridge.resident_mib());
            }
        }
        let counts = counted(&ledger, taken, PATIENCE).await;
        assert_eq!(counts.values().sum::<u64>(), taken, "{counts:?}");
        // Keys are known for ten minutes: until then it grows.
        let half = seen.split_off(seen.len() / 2);
        let most = |of: &[f64]| of.iter().copied().fold(0.0, f64::max);
        let (first, second) = (most(&seen), most(&half));
        if time > Duration::from_secs(30 * 60) {
            assert!(second <= first * 1.1 + 4.0, "memory grows: {first:.0} MiB in the first half, {second:.0} in the second");
        }
        bridge.end();
        format!("{number} events in {} s: {first:.0} MiB at most in the first half, {second:.0} in the second; {taken} deviations, each counted once",
            time.as_secs())
    })
}
