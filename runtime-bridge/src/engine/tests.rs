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
                json!({"evt.type": "execve", "proc.pid": 20, "proc.pname": "runc", "proc.exepath": "/usr/bin/dash", "proc.exe": "sh", "proc.args": "-c id; uname"}),
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
        cluster: "one".into(),
        namespace: "shop".to_owned(),
        name: "web-1".to_owned(),
        uid: "u1".to_owned(),
        owner: "Deployment/web".to_owned(),
        containers: vec![PodContainer {
            name: "app".to_owned(),
            image: "registry/app:1".to_owned(),
            image_id: format!("registry/app@sha256:{}", "a".repeat(64)),
            ids: vec![("containerd://0123456789abcdef".to_owned(), Some(at(0)))],
        }],
    }
}

/// Runs arrivals through an engine and collates what it finds.
struct Run {
    engine: Engine,
    alerts: BTreeMap<String, Option<Alert>>,
    used: std::collections::BTreeMap<(&'static str, String), (bool, usize)>,
    needs: usize,
    /// What comes was judged before.
    is_again: bool,
}

impl Run {
    fn new() -> Self {
        Self {
            engine: Engine::new(PATIENCE),
            alerts: BTreeMap::new(),
            used: BTreeMap::new(),
            needs: 0,
            is_again: false,
        }
    }

    fn take(&mut self, key: usize, received: i64, told: Told) {
        let mut out = Vec::new();
        let item = Item {
            offset: key as u64,
            cluster: "one".into(),
            key: Key::of(key.to_string().as_bytes()),
            received: at(received),
            is_judged: self.is_again,
            is_old: self.is_again,
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
                    let before = found.before.iter().map(|activity| Activity::clone(activity));
                    alert::collate(alert, place, &found.container.pod, &found.deviation, &found.activity, before);
                    if let (Some(alert), Some(user)) = (alert, found.user) {
                        alert.users.insert(user);
                    }
                }
                Out::Caller { container, class, subject, user } => {
                    let id = alert::id(&container.place, class, &subject);
                    self.alerts.get_mut(&id).and_then(Option::as_mut).expect("an alert").users.insert(user);
                }
                Out::Blind { .. } | Out::Dropped { .. } => panic!("nothing was lost"),
                Out::Used { used, .. } => {
                    let known = self.used.entry((used.dimension.name(), used.item.to_string())).or_default();
                    (known.0, known.1) = (used.is_predicted, known.1 + 1);
                }
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

/// Jane asks for the command that `stream` has.
fn asked() -> Call {
    Call {
        at: at(850),
        id: "a".to_owned(),
        user: "jane".to_owned(),
        impersonated: None,
        subresource: "exec".to_owned(),
        namespace: "shop".to_owned(),
        pod: "web-1".to_owned(),
        container: Some("app".to_owned()),
        command: vec!["sh".to_owned(), "-c".to_owned(), "id; uname".to_owned()],
        source: Vec::new(),
        allowed: true,
    }
}

#[test]
fn a_caller_who_is_told_of_after_a_takeover_is_on_what_was_found_before() {
    let call = || Told::Call(Box::new(asked()));
    let judge = |run: &mut Run| {
        run.engine.pod(&pod());
        for (n, (at, told)) in stream().into_iter().enumerate() {
            run.take(n, at, told);
        }
        run.take(999, 60_000, Told::Nothing("time passes"));
    };
    let mut former = Run::new();
    judge(&mut former);
    let found = former.alerts;
    let users = |run: Run| -> Vec<(Class, u64, Vec<String>)> {
        run.end().into_iter().map(|alert| (alert.class, alert.count, alert.users.into_iter().collect())).collect()
    };
    let nobody = users(Run { alerts: found.clone(), ..Run::new() });
    let called: Vec<_> = nobody
        .iter()
        .map(|(class, count, _)| {
            let is_outside = *class == Class::CommandFromOutside;
            (*class, *count, if is_outside { vec!["jane".to_owned()] } else { Vec::new() })
        })
        .collect();
    assert_ne!(nobody, called);
    // The request is read after what came of it, before it, or was itself judged before: then the former bridge told of it.
    for (is_first, is_judged, wanted) in [(false, false, &called), (true, false, &called), (false, true, &nobody)] {
        let mut run = Run { alerts: found.clone(), ..Run::new() };
        if is_first {
            run.take(1000, 870, call());
        }
        run.is_again = true;
        judge(&mut run);
        run.is_again = is_judged;
        if !is_first {
            run.take(1000, 61_000, call());
        }
        run.is_again = true;
        assert_eq!(&users(run), wanted, "{is_first} {is_judged}");
    }
}

fn a_command_from_outside(is_late: bool) {
    let mut run = Run::new();
    run.engine.pod(&pod());
    let call = asked();
    // Another's at the same time, and later than it.
    let other = Call {
        at: at(860),
        id: "b".to_owned(),
        user: "joe".to_owned(),
        command: vec!["sh".to_owned(), "-c".to_owned(), "date".to_owned()],
        ..call.clone()
    };
    let (call, other) = (Told::Call(Box::new(call)), Told::Call(Box::new(other)));
    if !is_late {
        run.take(1000, 870, call.clone());
        run.take(1001, 870, other);
    }
    for (n, (at, told)) in stream().into_iter().enumerate() {
        run.take(n, at, told);
    }
    // What the same shell does much later came of the same command.
    let writes = json!({"evt.type": "openat", "proc.pid": 20, "proc.exepath": "/usr/bin/dash", "fd.name": "/etc/shadow", "evt.is_open_write": true});
    run.take(2000, 40_000, event(40_000, writes));
    if is_late {
        run.take(1000, 45_000, call);
    }
    let alerts = run.end();
    let written = alerts.iter().find(|alert| alert.subject == "/etc/shadow").expect("an alert");
    assert!(written.users.contains("jane"), "{written:?}");
    let by_itself = alerts.iter().find(|alert| alert.subject == "/etc/passwd").expect("an alert");
    assert!(by_itself.users.is_empty(), "{by_itself:?}");
    let from_outside = alerts.iter().find(|alert| alert.class == Class::CommandFromOutside).expect("an alert");
    assert_eq!(from_outside.users, ["jane".to_owned()].into(), "{from_outside:?}");
}

#[test]
fn a_command_in_a_container_that_ran_before_is_not_taken_for_its_start() {
    let shell = json!({"evt.type": "execve", "proc.pid": 20, "proc.pname": "runc", "proc.exepath": "/usr/bin/dash", "proc.exe": "sh", "proc.args": "-c id"});
    for (milliseconds, wanted) in [(500, 0), (60_000, 1)] {
        let mut run = Run::new();
        run.engine.pod(&pod());
        run.take(0, milliseconds, event(milliseconds, shell.clone()));
        let alerts = run.end();
        let outside = alerts.iter().filter(|alert| alert.class == Class::CommandFromOutside).count();
        assert_eq!(outside, wanted, "first heard of {milliseconds} ms after its start: {alerts:?}");
    }
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
fn a_container_whose_beginning_is_removed_does_not_start_up() {
    // A write that is usual while a container starts up.
    for (is_old, told) in [(true, 1), (false, 0)] {
        let mut engine = Engine::new(SignedDuration::ZERO);
        let (mut out, mut more) = (Vec::new(), Vec::new());
        engine.take(Item { is_old, ..write(7, 100, "/etc/passwd") }, &mut out);
        engine.tick(at(100_000), &mut out);
        let Some(Out::Need(container)) = out.first() else { panic!("{out:?}") };
        engine.expect(container, Some(Arc::new(Expected::of_image(&dna()))), &mut more);
        assert_eq!(more.iter().filter(|out| matches!(out, Out::Found(_))).count(), told, "{is_old}: {more:?}");
    }
}

#[test]
fn what_was_judged_before_is_only_remembered() {
    let mut run = Run::new();
    run.engine.pod(&pod());
    for (n, (received, told)) in stream().into_iter().enumerate() {
        let mut out = Vec::new();
        let item = Item {
            offset: n as u64,
            cluster: "one".into(),
            key: Key::of(n.to_string().as_bytes()),
            received: at(received),
            is_judged: n < 44,
            is_old: n < 44,
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
            cluster: "one".into(),
            key: Key::of(n.to_string().as_bytes()),
            received: at(received),
            is_judged: false,
            is_old: false,
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

/// A write of a container by its number.
fn write(container: usize, number: u64, file: &str) -> Item {
    let mut told = event(
        i64::try_from(number).expect("small"),
        json!({"evt.type": "openat", "proc.pid": 10, "fd.name": file, "evt.is_open_write": true}),
    );
    if let Told::Activity(activity) = &mut told {
        Arc::make_mut(activity).container.id = Some(format!("{container:012x}"));
    }
    Item {
        offset: number,
        cluster: "one".into(),
        key: Key::of(number.to_string().as_bytes()),
        received: at(i64::try_from(number / 100).expect("small")),
        is_judged: false,
        is_old: false,
        told,
    }
}

#[test]
fn a_flood_of_a_container_that_is_not_known_drops_nothing_of_another_and_is_told() {
    let mut engine = Engine::new(SignedDuration::ZERO);
    let mut out = Vec::new();
    let flood = 2 * (MOST_WAITING + MOST_HELD) as u64;
    for number in 0..flood {
        engine.take(write(1, number, "/x"), &mut out);
        if number % 1000 == 0 {
            engine.take(write(2, flood + number, "/etc/passwd"), &mut out);
        }
        assert!(engine.waiting.len() <= MOST_WAITING && engine.holding.len() <= MOST_HELD);
    }
    engine.tick(at(1_000_000), &mut out);
    let counts = engine.counts();
    assert!(counts.hurried > 0 && counts.dropped > 0, "{counts:?}");
    let containers: Vec<Arc<Container>> = out
        .drain(..)
        .filter_map(|out| match out {
            Out::Need(container) => Some(container),
            _ => None,
        })
        .collect();
    assert_eq!(containers.len(), 2);
    let mut told = Vec::new();
    let expected = Arc::new(Expected::of_image(&dna()));
    for container in &containers {
        engine.expect(container, Some(Arc::clone(&expected)), &mut told);
    }
    let (mut dropped_of, mut found) = (BTreeMap::new(), 0);
    for out in told {
        match out {
            Out::Dropped { container, kind, dropped } => {
                assert_eq!(kind, "write");
                *dropped_of.entry(container.id.clone()).or_insert(0) += dropped.count;
            }
            Out::Found(of) if of.deviation.subject == "/etc/passwd" => found += 1,
            _ => {}
        }
    }
    assert_eq!(dropped_of, BTreeMap::from([(format!("{:012x}", 1), counts.dropped)]));
    assert!(found > 0, "what the other wrote after it had started is found");
    assert_eq!(engine.counts().judged + counts.dropped, flood + flood / 1000, "each is judged or told as dropped");
    assert!(engine.open().is_empty());
}

#[test]
fn containers_of_one_workload_push_out_no_other() {
    let mut engine = Engine::new(SignedDuration::ZERO);
    let mut out = Vec::new();
    let quiet = MOST_CONTAINERS / 4;
    for container in 0..3 * MOST_CONTAINERS {
        let mut item = write(container, container as u64, "/x");
        if let Told::Activity(activity) = &mut item.told {
            // Without a cluster, a workload is a pod: one of them has its container made anew again and again.
            let pod = if container < quiet { format!("quiet-{container}") } else { "restless".to_owned() };
            Arc::make_mut(activity).container.pod = Some(pod);
        }
        engine.take(item, &mut out);
        engine.tick(at(1_000_000), &mut out);
        for told in std::mem::take(&mut out) {
            if let Out::Need(container) = told {
                engine.expect(&container, Some(Arc::new(Expected::of_image(&dna()))), &mut Vec::new());
            }
        }
    }
    assert!(engine.containers.len() <= MOST_CONTAINERS);
    let known = (0..quiet).filter(|container| engine.knows(&format!("id/one/{container:012x}"))).count();
    assert_eq!(known, quiet);
}

#[test]
fn the_callers_of_one_pod_are_known_whoever_calls_others() {
    let call = |pod: &str, number: usize| {
        Told::Call(Box::new(Call {
            at: at(850),
            id: number.to_string(),
            user: "jane".to_owned(),
            impersonated: None,
            subresource: "exec".to_owned(),
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            container: Some("app".to_owned()),
            command: vec!["sh".to_owned(), "-c".to_owned(), "id".to_owned()],
            source: Vec::new(),
            allowed: true,
        }))
    };
    let mut run = Run::new();
    run.engine.pod(&pod());
    run.take(1_000, 870, call("web-1", 0));
    for number in 1..=3 * MOST_CALLS {
        run.take(1_000 + number, 870, call("other", number));
    }
    for (n, (at, told)) in stream().into_iter().enumerate() {
        run.take(n, at, told);
    }
    let alerts = run.end();
    let from_outside = alerts.iter().find(|alert| alert.class == Class::CommandFromOutside).expect("an alert");
    assert!(from_outside.users.contains("jane"), "{from_outside:?}");
}

#[test]
fn what_is_told_of_a_container_comes_with_its_last_event_or_its_next() {
    let other = || Deviation {
        class: Class::BindingMismatch,
        subject: "sha256:bb".to_owned(),
        message: "another image runs".to_owned(),
        after: None,
        layer: None,
        package: None,
        risk: 0.9,
        drivers: Vec::new(),
        technique: "T1525".to_owned(),
        blocked: false,
    };
    let mut run = Run::new();
    run.engine.pod(&pod());
    let mut items = stream().into_iter().enumerate();
    let (key, (received, told)) = items.next().expect("an event");
    run.take(key, received, told);
    let mut out = Vec::new();
    run.engine.tick(at(received + 2500), &mut out);
    let Some(Out::Need(container)) = out.first() else { panic!("it is asked for") };
    let container = Arc::clone(container);
    let mut told = Vec::new();
    run.engine.tell(&container, other(), &mut told);
    assert!(told.is_empty(), "there is no event yet that was judged");
    run.engine.expect(&container, None, &mut told);
    let classes = |told: &[Out]| -> Vec<(Class, Timestamp, usize)> {
        let found = told.iter().filter_map(|out| match out {
            Out::Found(found) => Some((found.deviation.class, found.activity.at, found.before.len())),
            _ => None,
        });
        found.collect()
    };
    assert_eq!(classes(&told), [(Class::NoDna, at(0), 0), (Class::BindingMismatch, at(0), 0)]);
    told.clear();
    run.engine.tell(&container, other(), &mut told);
    assert_eq!(classes(&told), [(Class::BindingMismatch, at(0), 0)], "with the last event");
}

#[test]
fn what_is_accepted_is_judged_as_expected_and_does_not_stray() {
    let expected = Expected::of_image(&dna());
    let mut history = History::default();
    let served = |milliseconds: i64, fields: Value| match event(milliseconds, fields) {
        Told::Activity(activity) => Arc::unwrap_or_clone(activity),
        other => panic!("{other:?}"),
    };
    let start = json!({"evt.type": "execve", "proc.pid": 10, "proc.pname": "runc", "proc.exepath": "/usr/sbin/served", "proc.exe": "served"});
    let cat = json!({"evt.type": "execve", "proc.pid": 30, "proc.ppid": 10, "proc.pname": "served", "proc.pexepath": "/usr/sbin/served",
        "proc.exepath": "/usr/bin/cat", "proc.exe": "cat", "proc.args": "/etc/motd"});
    let listen = |port: u16| json!({"evt.type": "listen", "proc.pid": 30, "proc.exepath": "/usr/bin/cat", "fd.l4proto": "tcp", "fd.lport": port});
    let accepted = |deviation: &Deviation| deviation.subject == "/usr/bin/cat";
    assert_eq!(judge_accepting(&expected, &mut history, &served(0, start.clone()), accepted).deviations, []);
    assert_eq!(judge_accepting(&expected, &mut history, &served(10, cat.clone()), accepted).deviations, []);
    assert_eq!(
        judge_accepting(&expected, &mut history, &served(20, listen(80)), accepted).deviations,
        [],
        "what it does is held to the image"
    );
    let strange = judge_accepting(&expected, &mut history, &served(30, listen(4444)), accepted).deviations;
    assert_eq!(strange.iter().map(|one| one.class).collect::<Vec<_>>(), [Class::Listen]);
    // Not accepted, both are deviations: what it does is astray with it.
    let mut history = History::default();
    assert_eq!(judge_accepting(&expected, &mut history, &served(0, start), |_| false).deviations, []);
    assert_eq!(judge_accepting(&expected, &mut history, &served(10, cat), |_| false).deviations.len(), 1);
    assert_eq!(judge_accepting(&expected, &mut history, &served(20, listen(80)), |_| false).deviations.len(), 1);
}

#[test]
fn what_a_container_does_as_expected_is_told_once() {
    let mut run = Run::new();
    run.engine.pod(&pod());
    for (n, (at, told)) in stream().into_iter().enumerate() {
        run.take(n, at, told);
    }
    let mut out = Vec::new();
    run.engine.tick(at(60_000), &mut out);
    run.settle(out);
    assert!(run.used.values().all(|(_, times)| *times == 1), "{:?}", run.used);
    let told =
        |dimension, item: &str| run.used.get(&(dimension, item.to_owned())).map(|(is_predicted, _)| *is_predicted);
    assert_eq!(told("exec", "/usr/sbin/served"), Some(true));
    assert_eq!(told("listen", "tcp/80"), Some(true));
    assert_eq!(
        told("write", "/var/lib/served/*"),
        Some(false),
        "nobody is alerted of it, and the DNA does not name it"
    );
    // What is a deviation is its alert's.
    assert!(
        !run.used.keys().any(|(_, item)| item.starts_with("/tmp") || item.starts_with("/etc/passwd")),
        "{:?}",
        run.used
    );
}
