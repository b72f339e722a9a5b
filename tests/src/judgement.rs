//! What is connected over weeks and over a fleet: a month of small steps among events that mean nothing, and a fleet whose containers and
//! images are replaced all day, with an intruder who hops between them. The suite runs the short forms, the command `soak` the long ones.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use dna::Dna;
use jiff::{SignedDuration, Timestamp};
use lineage::{AlertQuery, Ledger};
use runtime_bridge::{
    incident::{Chapter, Incident, Stories, Tactic},
    stored,
};
use serde_json::{Value, json};

use crate::{
    Bridge, BridgeOptions, Sensor,
    bridge::{event, knows, served, serves, sqlite, starts, subject, writes},
    free_port,
    soak::{PATIENCE, runtime},
};

/// MiB that a bridge may have grown by after the first third of a month.
const GROWTH: f64 = 64.0;

/// A stream of one sensor, in order.
struct Stream {
    sensor: Sensor,
    body: String,
    sent: u64,
}

impl Stream {
    fn new(port: u16) -> Self {
        Self { sensor: Sensor::new(port), body: String::new(), sent: 0 }
    }

    fn tell(&mut self, event: &Value) {
        self.body += &event.to_string();
        self.body.push('\n');
        self.sent += 1;
    }

    async fn flush(&mut self) {
        let request = Sensor::request(&std::mem::take(&mut self.body));
        while self.sensor.send(&request).await != Some(200) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until all of it is judged.
    async fn is_judged(&self, ledger: &Ledger) {
        let until = Instant::now() + PATIENCE;
        while ledger.checkpoint("bridge").await.expect("read").is_none_or(|checkpoint| checkpoint.offset < self.sent) {
            assert!(Instant::now() < until, "not all is judged");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// The incidents that the ledger's alerts are, and how many alerts there are.
async fn incidents(ledger: &Ledger) -> (Vec<Incident>, usize) {
    let mut asked = AlertQuery { limit: 500, sort: lineage::AlertSort::FirstSeen, ..AlertQuery::default() };
    let (mut stories, mut chapters) = (Stories::default(), std::collections::BTreeMap::new());
    loop {
        let heads = ledger.alerts(&asked, Timestamp::now()).await.expect("read");
        let Some(last) = heads.last() else { break };
        asked.after = Some(lineage::After::head(last, asked.sort));
        let ids: BTreeSet<String> = heads.into_iter().map(|head| head.id).collect();
        for row in ledger.alerts_by_id(&ids, Timestamp::now()).await.expect("read") {
            let alert = stored::alert(&row).expect("an alert");
            stories.take(&alert);
            chapters.insert(alert.id.clone(), Chapter::new(&alert));
        }
    }
    (stories.incidents(|id| chapters.get(id)), chapters.len())
}

fn executes(at: Timestamp, container: usize, image: usize, pid: i64, file: &str) -> Value {
    let fields = json!({"evt.type": "execve", "proc.pid": pid, "proc.ppid": 10, "proc.pname": "served",
        "proc.pexepath": "/usr/sbin/served", "proc.exepath": file, "proc.exe": file, "proc.is_exe_upper_layer": true});
    event(at, container, image, fields)
}

fn calls(at: Timestamp, container: usize, image: usize, pid: i64, file: &str, address: &str) -> Value {
    let fields = json!({"evt.type": "connect", "proc.pid": pid, "proc.exepath": file, "fd.l4proto": "tcp", "fd.rip": address,
        "fd.rport": 443});
    event(at, container, image, fields)
}

/// So many days, each with so many events that mean nothing; in one workload an intruder takes a step every few days, through restarts
/// and two rollouts. All of it is one incident, with every stage, and memory stays where it was.
pub fn month(days: usize, events_a_day: usize) -> String {
    const NOISY: usize = 20;
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let ledger = Ledger::open(&sqlite(folder.path())).await.expect("a ledger");
        for image in 0..3 {
            knows(&ledger, image, &version_of(0, image)).await;
        }
        let mut options = BridgeOptions::new(folder.path(), free_port());
        options.says = "warn";
        let bridge = Bridge::start(&options);
        let mut stream = Stream::new(options.port);
        let began = Timestamp::now() - SignedDuration::from_hours(24 * i64::try_from(days).expect("days"));
        let hours = |day: usize, part: f64| {
            began + SignedDuration::from_secs_f64((day as f64 + part) * 86_400.0)
        };
        let (mut early, mut late) = (0_f64, 0_f64);
        for day in 0..days {
            // A day's containers are new ones; every ten days or so, a new image.
            let image = (day * 3 / days).min(2);
            let container = |n: usize| 1 + day * (NOISY + 1) + n;
            // All are of stateful sets, whose pods keep their names.
            let named = |mut event: Value, n: usize| {
                event["output_fields"]["k8s.pod.name"] = format!("app-{n}").into();
                event
            };
            for n in 0..=NOISY {
                stream.tell(&named(starts(hours(day, 0.0), container(n), image), n));
                stream.tell(&named(serves(hours(day, 0.00001), container(n), image), n));
            }
            stream.flush().await;
            let steps = |at: Timestamp| -> Vec<Value> {
                let of = container(0);
                match day * 30 / days {
                    0 => vec![executes(at, of, image, 30, "/tmp/.x")],
                    6 => vec![writes(at, of, image, "/etc/cron.d/x")],
                    13 => vec![calls(at, of, image, 10, "/usr/sbin/served", "203.0.113.9")],
                    20 => vec![writes(at, of, image, "/root/.ssh/authorized_keys")],
                    29 => vec![writes(at, of, image, "/etc/passwd")],
                    _ => Vec::new(),
                }
            };
            // Once in each of its days.
            let is_first = day == 0 || (day * 30 / days) != ((day - 1) * 30 / days);
            if is_first {
                for step in steps(hours(day, 0.4)) {
                    stream.tell(&named(step, 0));
                }
            }
            for n in 0..events_a_day {
                let at = hours(day, 0.5 + 0.4 * n as f64 / events_a_day as f64);
                let of = 1 + n % NOISY;
                stream.tell(&named(writes(at, container(of), image, &format!("/var/lib/served/{n}")), of));
                if n % 500 == 499 {
                    stream.flush().await;
                }
            }
            stream.flush().await;
            // What waits is another matter, and depends on how fast the machine is.
            stream.is_judged(&ledger).await;
            let now = bridge.resident_mib();
            if day < days / 3 {
                early = early.max(now);
            } else {
                late = late.max(now);
            }
        }
        let (incidents, alerts) = incidents(&ledger).await;
        assert_eq!((incidents.len(), alerts), (1, 5), "{incidents:#?}");
        let incident = &incidents[0];
        let subjects: Vec<&str> = incident.chapters.iter().map(|chapter| chapter.subject.as_str()).collect();
        assert_eq!(
            subjects,
            ["/tmp/.x", "/etc/cron.d/x", "tcp/203.0.113.9:443", "/root/.ssh/authorized_keys", "/etc/passwd"],
            "in order"
        );
        let tactics: BTreeSet<Tactic> = incident.stages.keys().copied().collect();
        assert!(tactics.is_superset(&[Tactic::Persistence, Tactic::CommandAndControl].into()), "{tactics:?}");
        assert!(incident.risk > 0.8 && incident.digests.len() == 3, "{} {:?}", incident.risk, incident.digests);
        assert!(late <= early + GROWTH, "it grew from {early:.0} to {late:.0} MiB");
        bridge.end();
        format!(
            "{days} days, {} events: one incident of 5 steps over 3 images, risk {:.2}; {early:.0} MiB at most in the first third, {late:.0} after",
            stream.sent, incident.risk
        )
    })
}

/// Version `version` of a service's image: it opens a port that no other version opens.
fn version_of(service: usize, version: usize) -> Dna {
    let mut document = serde_json::to_value(served(20)).expect("JSON");
    document["layers"][0]["created_by"] = format!("RUN install service {service} {version}").into();
    let mut port = document["behavior"]["listen"][0].clone();
    port["port"] = (8000 + version).into();
    document["behavior"]["listen"].as_array_mut().expect("ports").push(port);
    serde_json::from_value(document).expect("a DNA")
}

/// A day of so many containers, which live minutes, of services whose images are replaced by newer ones all day. An intruder hops from container
/// to container. Nothing is told of what a new image's DNA predicts, from its first event; all that the intruder does is one incident.
pub fn fleet(containers: usize, services: usize, versions: usize) -> String {
    const HOPS: usize = 12;
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let ledger = Ledger::open(&sqlite(folder.path())).await.expect("a ledger");
        for service in 0..services {
            for version in 0..versions {
                knows(&ledger, service * versions + version, &version_of(service, version)).await;
            }
        }
        let mut options = BridgeOptions::new(folder.path(), free_port());
        options.says = "warn";
        let bridge = Bridge::start(&options);
        let mut stream = Stream::new(options.port);
        let midnight = Timestamp::now() - SignedDuration::from_hours(24);
        let mut hopped = 0;
        for n in 0..containers {
            let at = |part: f64| {
                midnight + SignedDuration::from_secs_f64((n as f64 / containers as f64) * 86_000.0 + part)
            };
            let (service, version) = (n % services, n * versions / containers);
            let image = service * versions + version;
            let container = n + 1;
            stream.tell(&starts(at(0.0), container, image));
            stream.tell(&serves(at(0.1), container, image));
            // The first that this version does is what the one before did not.
            let opens = json!({"evt.type": "listen", "proc.pid": 10, "proc.exepath": "/usr/sbin/served", "fd.l4proto": "tcp",
                "fd.lport": 8000 + version});
            stream.tell(&event(at(0.2), container, image, opens));
            for file in 0..5 {
                stream.tell(&writes(at(0.3 + f64::from(file) / 10.0), container, image, &format!("/var/lib/served/{file}")));
            }
            if n % (containers / HOPS) == containers / HOPS / 2 && hopped < HOPS {
                hopped += 1;
                stream.tell(&executes(at(1.0), container, image, 30, "/tmp/.hop"));
                stream.tell(&calls(at(1.1), container, image, 30, "/tmp/.hop", "203.0.113.66"));
                stream.tell(&writes(at(1.2), container, image, "/etc/cron.d/hop"));
            }
            if n % 50 == 49 {
                stream.flush().await;
            }
        }
        stream.flush().await;
        stream.is_judged(&ledger).await;
        let (incidents, alerts) = incidents(&ledger).await;
        assert_eq!(incidents.len(), 1, "{incidents:#?}");
        let incident = &incidents[0];
        assert_eq!((alerts, incident.workloads.len()), (3 * HOPS, HOPS), "{incident:#?}");
        let strange: BTreeSet<&str> = incident.chapters.iter().map(|chapter| chapter.subject.as_str()).collect();
        assert_eq!(strange, ["/etc/cron.d/hop", "/tmp/.hop", "tcp/203.0.113.66:443"].into());
        assert!(incident.is_campaign);
        let ports = ledger.workloads(&lineage::WorkloadQuery::default(), 500).await.expect("read");
        assert!(ports.iter().any(|row| row.digest == subject(services * versions - 1).to_string()), "the last version was met");
        let most = bridge.resident_mib();
        bridge.end();
        format!(
            "{containers} containers of {services} services and {} images, {} events: {alerts} alerts, all of one intruder in {HOPS} containers, one incident, a campaign; {most:.0} MiB",
            services * versions,
            stream.sent
        )
    })
}
