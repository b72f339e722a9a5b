use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    alert::{self, Alert},
    compare::tests::dna,
    identity::PodContainer,
    sensor::{Dialect, decode},
};

const START: i64 = 1_700_000_000_000;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(START + milliseconds).expect("a time")
}

/// An event of the pod's container, so many milliseconds after the start.
fn event(milliseconds: i64, mut fields: Value) -> Told {
    fields["evt.time"] = ((START + milliseconds) * 1_000_000).into();
    fields["container.id"] = "0123456789ab".into();
    let item = json!({"output_fields": fields, "source": "syscall", "hostname": "node"}).to_string();
    decode(Dialect::Falco, item.as_bytes()).expect("an event")
}

/// A container's life: it starts, serves, is asked how it is, and then broken into.
fn stream() -> Vec<(i64, Told)> {
    let server = |milliseconds: i64, mut fields: Value| {
        fields["proc.pid"] = 10.into();
        fields["proc.exepath"] = "/usr/sbin/served".into();
        (milliseconds, event(milliseconds, fields))
    };
    let mut stream = vec![
        (
            0,
            event(
                0,
                json!({"evt.type": "execve", "proc.pid": 10, "proc.pname": "runc", "proc.exepath": "/usr/bin/dash", "proc.exe": "/bin/sh", "proc.args": "/entry.sh", "evt.arg.filename": "/entry.sh"}),
            ),
        ),
        (
            100,
            event(
                100,
                json!({"evt.type": "execve", "proc.pid": 10, "proc.pname": "runc", "proc.exepath": "/usr/sbin/served", "proc.exe": "served"}),
            ),
        ),
        server(200, json!({"evt.type": "listen", "fd.l4proto": "tcp", "fd.lip": "0.0.0.0", "fd.lport": 80})),
        (
            900,
            event(
                900,
                json!({"evt.type": "execve", "proc.pid": 20, "proc.pname": "runc", "proc.exepath": "/usr/bin/dash", "proc.exe": "sh", "proc.args": "-c id"}),
            ),
        ),
    ];
    for n in 0..20 {
        stream.push(server(
            1000 + n * 350,
            json!({"evt.type": "openat", "fd.name": format!("/var/lib/served/{n}"), "evt.is_open_write": true}),
        ));
        stream.push(server(
            1100 + n * 350,
            json!({"evt.type": "openat", "fd.name": "/etc/passwd", "evt.is_open_write": true}),
        ));
    }
    stream.push((9000, event(9000, json!({"evt.type": "execve", "proc.pid": 30, "proc.ppid": 10, "proc.pname": "served", "proc.pexepath": "/usr/sbin/served", "proc.exepath": "/tmp/x"}))));
    stream.push((9001, event(9001, json!({"evt.type": "connect", "proc.pid": 30, "proc.exepath": "/tmp/x", "fd.l4proto": "tcp", "fd.rip": "10.1.1.1", "fd.rport": 4444}))));
    stream
}

fn pod() -> Pod {
    Pod {
        cluster: "one".to_owned(),
        namespace: "shop".to_owned(),
        name: "web-1".to_owned(),
        uid: "u1".to_owned(),
        owner: "Deployment/web".to_owned(),
        containers: vec![PodContainer {
            name: "app".to_owned(),
            image: "registry/app:1".to_owned(),
            image_id: format!("registry/app@sha256:{}", "a".repeat(64)),
            ids: vec!["containerd://0123456789abcdef".to_owned()],
        }],
    }
}

/// Runs arrivals through an engine and collates what it finds.
struct Run {
    engine: Engine,
    alerts: BTreeMap<String, Option<Alert>>,
    needs: usize,
}

impl Run {
    fn new() -> Self {
        Self { engine: Engine::new(PATIENCE), alerts: BTreeMap::new(), needs: 0 }
    }

    fn take(&mut self, key: usize, received: i64, told: Told) {
        let mut out = Vec::new();
        let item = Item {
            offset: key as u64,
            cluster: "one".to_owned(),
            key: key.to_string(),
            received: at(received),
            is_judged: false,
            told,
        };
        self.engine.take(item, &mut out);
        self.engine.tick(at(received), &mut out);
        self.settle(out);
    }

    fn settle(&mut self, out: Vec<Out>) {
        for out in out {
            match out {
                Out::Need(container) => {
                    self.needs += 1;
                    let mut more = Vec::new();
                    self.engine.expect(&container, Some(Arc::new(Expected::of_image(&dna()))), &mut more);
                    self.settle(more);
                }
                Out::Found(found) => {
                    let place = &found.container.place;
                    let id = alert::id(place, found.deviation.class, &found.deviation.subject);
                    let alert = self.alerts.entry(id).or_default();
                    let before = found.before.into_iter();
                    alert::collate(alert, place, &found.container.pod, &found.deviation, &found.activity, before);
                    if let (Some(alert), Some(user)) = (alert, found.user) {
                        alert.users.insert(user);
                    }
                }
                Out::Caller { container, subject, user } => {
                    let id = alert::id(&container.place, Class::CommandFromOutside, &subject);
                    self.alerts.get_mut(&id).and_then(Option::as_mut).expect("an alert").users.insert(user);
                }
                Out::Blind { .. } => panic!("nothing was lost"),
            }
        }
    }

    fn end(mut self) -> Vec<Alert> {
        let mut out = Vec::new();
        self.engine.tick(at(10_000_000), &mut out);
        self.settle(out);
        self.alerts.into_values().flatten().collect()
    }
}

fn in_order() -> Vec<Alert> {
    let mut run = Run::new();
    run.engine.pod(&pod());
    for (n, (at, told)) in stream().into_iter().enumerate() {
        run.take(n, at, told);
    }
    run.end()
}

#[test]
fn a_break_in_is_told_with_what_went_before() {
    let alerts = in_order();
    let classes: Vec<Class> = alerts.iter().map(|alert| alert.class).collect();
    assert_eq!(classes.len(), 4, "{classes:?}");
    let passwd = alerts.iter().find(|alert| alert.subject == "/etc/passwd").expect("an alert");
    assert_eq!((passwd.count, passwd.samples.len(), passwd.pods.len()), (20, alert::SAMPLES, 1));
    assert_eq!(passwd.place.owner, "Deployment/web");
    assert!(passwd.place.digest.starts_with("sha256:"));
    assert!(!passwd.samples[0].before.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Late by less than the lateness, twice, before the pod is known: the alerts are the same.
    #[test]
    fn any_order_within_the_lateness_gives_the_same_alerts(
        delays in prop::collection::vec(0_i64..1900, 46),
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        pod_at in 0_i64..20_000,
    ) {
        let stream = stream();
        prop_assert_eq!(stream.len(), delays.len());
        let mut arrivals: Vec<(i64, usize)> = stream.iter().zip(&delays).enumerate().map(|(n, ((at, _), delay))| (at + delay, n)).collect();
        arrivals.extend(repeats.iter().map(|index| { let n = index.index(stream.len()); (stream[n].0 + 1900, n) }));
        arrivals.sort_unstable();
        let mut run = Run::new();
        let mut is_known = false;
        for (arrival, n) in arrivals {
            if !is_known && arrival >= pod_at {
                run.engine.pod(&pod());
                is_known = true;
            }
            run.take(n, arrival, stream[n].1.clone());
        }
        if !is_known {
            run.engine.pod(&pod());
        }
        prop_assert_eq!(run.engine.counts().unattributed, 0);
        prop_assert_eq!(run.end(), in_order());
    }
}

#[test]
fn a_command_from_outside_has_its_caller_whichever_is_told_first() {
    for is_late in [false, true] {
        a_command_from_outside(is_late);
    }
}

fn a_command_from_outside(is_late: bool) {
    let mut run = Run::new();
    run.engine.pod(&pod());
    let call = Call {
        at: at(850),
        id: "a".to_owned(),
        user: "jane".to_owned(),
        impersonated: None,
        subresource: "exec".to_owned(),
        namespace: "shop".to_owned(),
        pod: "web-1".to_owned(),
        container: Some("app".to_owned()),
        command: vec!["sh".to_owned(), "-c".to_owned(), "id".to_owned()],
        source: Vec::new(),
        allowed: true,
    };
    let call = Told::Call(Box::new(call));
    if !is_late {
        run.take(1000, 870, call.clone());
    }
    for (n, (at, told)) in stream().into_iter().enumerate() {
        run.take(n, at, told);
    }
    if is_late {
        run.take(1000, 30_000, call);
    }
    let alerts = run.end();
    let from_outside = alerts.iter().find(|alert| alert.class == Class::CommandFromOutside).expect("an alert");
    assert!(from_outside.users.contains("jane"), "{from_outside:?}");
}

#[test]
fn what_no_cluster_knows_is_judged_by_what_the_sensor_says() {
    let mut run = Run::new();
    for (n, (at, told)) in stream().into_iter().enumerate() {
        run.take(n, at, told);
    }
    assert!(run.alerts.is_empty(), "it waits for the pod");
    let mut out = Vec::new();
    run.engine.tick(at(100_000), &mut out);
    run.settle(out);
    assert_eq!(run.engine.counts().unattributed, 46);
    assert_eq!(run.end().len(), 4);
}

#[test]
fn what_was_judged_before_is_only_remembered() {
    let mut run = Run::new();
    run.engine.pod(&pod());
    for (n, (received, told)) in stream().into_iter().enumerate() {
        let mut out = Vec::new();
        let item = Item {
            offset: n as u64,
            cluster: "one".to_owned(),
            key: n.to_string(),
            received: at(received),
            is_judged: n < 44,
            told,
        };
        run.engine.take(item, &mut out);
        run.engine.tick(at(received), &mut out);
        run.settle(out);
    }
    let alerts = run.end();
    let classes: Vec<Class> = alerts.iter().map(|alert| alert.class).collect();
    assert_eq!(classes.len(), 2, "only the last two events: {classes:?}");
}

#[test]
fn a_container_that_cannot_be_compared_is_told_once() {
    let mut engine = Engine::new(SignedDuration::ZERO);
    let mut out = Vec::new();
    for (n, (received, told)) in stream().into_iter().enumerate() {
        let item = Item {
            offset: n as u64,
            cluster: "one".to_owned(),
            key: n.to_string(),
            received: at(received),
            is_judged: false,
            told,
        };
        engine.take(item, &mut out);
    }
    engine.tick(at(100_000), &mut out);
    let container = out.iter().find_map(|out| match out {
        Out::Need(container) => Some(Arc::clone(container)),
        _ => None,
    });
    let container = container.expect("it is asked for");
    assert_eq!(engine.open().len(), 46, "nothing is done with before it is known");
    let mut told = Vec::new();
    engine.expect(&container, None, &mut told);
    let classes: Vec<Class> = told
        .iter()
        .filter_map(|out| match out {
            Out::Found(found) => Some(found.deviation.class),
            _ => None,
        })
        .collect();
    assert_eq!(classes, [Class::NoDna]);
    assert_eq!((engine.counts().without_dna, engine.open().len()), (46, 0));
}

#[test]
fn nothing_is_dropped_while_an_expectation_is_awaited() {
    let mut engine = Engine::new(SignedDuration::ZERO);
    let mut out = Vec::new();
    let mut taken = 0_u64;
    while !engine.is_full() {
        let told = event(
            i64::try_from(taken).expect("small"),
            json!({"evt.type": "openat", "proc.pid": 10, "fd.name": "/x", "evt.is_open_write": true}),
        );
        let item = Item {
            offset: taken,
            cluster: "one".to_owned(),
            key: taken.to_string(),
            received: at(0),
            is_judged: false,
            told,
        };
        engine.take(item, &mut out);
        taken += 1;
    }
    engine.tick(at(1_000_000), &mut out);
    assert!(engine.is_full(), "they wait for what is expected");
    assert_eq!(engine.open().len() as u64, taken);
}
