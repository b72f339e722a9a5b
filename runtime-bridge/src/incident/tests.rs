//! Stories of a month, in any order, beside ones that only look like them.

use dna::Activity;

use super::*;
use crate::{
    Deviation,
    alert::{Place, collate},
};

const DIGESTS: [&str; 3] = ["sha256:aa", "sha256:bb", "sha256:cc"];

fn at(days: f64) -> Timestamp {
    let start: Timestamp = "2026-03-01T00:00:00Z".parse().expect("a time");
    start + SignedDuration::from_secs_f64(days * 86_400.0)
}

/// A deviation of a workload at times.
fn alert(owner: &str, digest: &str, class: Class, subject: &str, technique: &str, risk: f64, days: &[f64]) -> Alert {
    let place = Place {
        cluster: "c".into(),
        namespace: "shop".into(),
        owner: format!("Deployment/{owner}"),
        container: "app".into(),
        image: String::new(),
        digest: digest.into(),
    };
    let deviation = Deviation {
        class,
        subject: subject.into(),
        message: subject.into(),
        after: None,
        layer: None,
        package: None,
        risk,
        drivers: Vec::new(),
        technique: technique.into(),
        blocked: false,
    };
    let mut alert = None;
    for day in days {
        let json = serde_json::json!({"at": at(*day), "sensor": "s", "container": {"id": "0123456789ab"}, "process": {}, "act": {"kind": "exit"}});
        let activity: Activity = serde_json::from_value(json).expect("an activity");
        collate(&mut alert, &place, "pod", &deviation, &activity, std::iter::empty());
    }
    alert.expect("an alert")
}

fn told(alerts: &[Alert]) -> Vec<Incident> {
    let mut stories = Stories::default();
    for alert in alerts {
        stories.take(alert);
    }
    of(&stories, alerts)
}

fn of(stories: &Stories, alerts: &[Alert]) -> Vec<Incident> {
    let chapters: Vec<Chapter> = alerts.iter().map(Chapter::new).collect();
    stories.incidents(|id| chapters.iter().find(|chapter| chapter.alert == id))
}

/// Five stages over a month, through three rollouts.
fn slow() -> Vec<Alert> {
    vec![
        alert("web", DIGESTS[0], Class::StepNotPredicted, "/bin/sh", "T1059.004", 0.6, &[0.0]),
        alert("web", DIGESTS[0], Class::SensitiveRead, "/run/secrets/token", "T1528", 0.5, &[6.0]),
        alert("web", DIGESTS[1], Class::ProgramNotInImage, "/tmp/.x", "T1105", 0.9, &[13.0]),
        alert("web", DIGESTS[1], Class::Write, "/etc/cron.d/x", "T1053.003", 0.7, &[20.0]),
        alert("web", DIGESTS[2], Class::Connect, "tcp/203.0.113.9:443", "T1071", 0.7, &[29.0, 29.5]),
    ]
}

#[test]
fn a_month_of_small_steps_is_one_story_in_any_order() {
    let mut alerts = slow();
    let wanted = told(&alerts);
    assert_eq!(wanted.len(), 1);
    let incident = &wanted[0];
    assert_eq!(
        incident.chapters.iter().map(|chapter| chapter.subject.as_str()).collect::<Vec<_>>(),
        ["/bin/sh", "/run/secrets/token", "/tmp/.x", "/etc/cron.d/x", "tcp/203.0.113.9:443"]
    );
    let tactics: Vec<Tactic> = incident.stages.keys().copied().collect();
    assert_eq!(tactics, [Tactic::Execution, Tactic::Persistence, Tactic::CredentialAccess, Tactic::CommandAndControl]);
    assert!(incident.risk > 0.85, "{}", incident.risk);
    // Every order of five.
    let mut orders = 0;
    permute(&mut alerts, 0, &mut |alerts| {
        orders += 1;
        assert_eq!(told(alerts), wanted);
    });
    assert_eq!(orders, 120);
}

fn permute(alerts: &mut Vec<Alert>, from: usize, each: &mut impl FnMut(&[Alert])) {
    if from == alerts.len() {
        return each(alerts);
    }
    for next in from..alerts.len() {
        alerts.swap(from, next);
        permute(alerts, from + 1, each);
        alerts.swap(from, next);
    }
}

#[test]
fn what_is_seen_later_may_join_stories_and_begin_them_earlier() {
    let (early, late) = (
        alert("web", DIGESTS[0], Class::Write, "/etc/passwd", "T1136", 0.6, &[0.0]),
        alert("web", DIGESTS[0], Class::Listen, "tcp/31337", "T1571", 0.6, &[45.0]),
    );
    let mut stories = Stories::default();
    let (one, other) = (stories.take(&early), stories.take(&late));
    assert_ne!(one, other);
    // The first goes on until day 20: no month of silence is left.
    let longer = alert("web", DIGESTS[0], Class::Write, "/etc/passwd", "T1136", 0.6, &[0.0, 20.0]);
    assert_eq!(stories.take(&longer), early.id);
    assert_eq!(stories.name(&late.id), Some(early.id.clone()));
    // An event that came late: what was second is first.
    let begun = alert("web", DIGESTS[0], Class::Listen, "tcp/31337", "T1571", 0.6, &[-1.0, 45.0]);
    assert_eq!(stories.take(&begun), late.id);
    let now = [longer, begun];
    assert_eq!(of(&stories, &now).len(), 1);
}

#[test]
fn strangers_are_no_story() {
    let incidents = told(&[
        alert("web", DIGESTS[0], Class::Write, "/etc/passwd", "T1136", 0.6, &[0.0]),
        alert("db", DIGESTS[1], Class::Write, "/etc/passwd", "T1136", 0.6, &[0.1]),
        alert("db", DIGESTS[1], Class::Connect, "tcp/10.0.0.9:443", "T1071", 0.5, &[0.1]),
        alert("cache", DIGESTS[2], Class::Connect, "tcp/10.0.0.9:443", "T1071", 0.5, &[0.1]),
        alert("cache", DIGESTS[2], Class::ProgramNotInImage, "memfd", "T1620", 0.9, &[0.1]),
        alert("web", DIGESTS[0], Class::ProgramNotInImage, "memfd", "T1620", 0.9, &[0.1]),
    ]);
    assert_eq!(incidents.len(), 3);
    assert!(incidents.iter().all(|incident| incident.workloads.len() == 1 && !incident.is_campaign));
}

#[test]
fn a_campaign_is_the_same_thing_from_elsewhere_in_different_images() {
    let dropped = |owner: &str, digest: &str, day: f64| {
        alert(owner, digest, Class::ProgramNotInImage, "/tmp/kdevtmpfsi", "T1105", 0.9, &[day])
    };
    let owners = ["web", "db", "cache"];
    let campaign: Vec<Alert> = owners
        .iter()
        .zip(DIGESTS)
        .enumerate()
        .map(|(day, (owner, digest))| dropped(owner, digest, day as f64))
        .collect();
    let incidents = told(&campaign);
    assert_eq!((incidents.len(), incidents[0].is_campaign, incidents[0].workloads.len()), (1, true, 3));
    // Its twin: one image in three workloads, with what nobody predicted of it.
    let same: Vec<Alert> = owners.iter().map(|owner| dropped(owner, DIGESTS[0], 0.0)).collect();
    assert!(told(&same).iter().all(|incident| !incident.is_campaign));
}

#[test]
fn who_hops_between_workloads_is_one_story() {
    let by = |owner: &str, day: f64, user: &str| {
        let mut alert = alert(owner, DIGESTS[0], Class::CommandFromOutside, "/bin/sh", "T1609", 0.6, &[day]);
        alert.users.insert(user.to_owned());
        alert
    };
    let incidents = told(&[by("a", 0.0, "eve"), by("b", 1.0, "eve"), by("c", 2.0, "eve"), by("d", 2.0, "ann")]);
    let mut sizes: Vec<usize> = incidents.iter().map(|incident| incident.workloads.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 3]);
}

#[test]
fn a_beacon_calls_by_the_clock() {
    let calls = |days: &[f64]| {
        let called = alert("web", DIGESTS[0], Class::Connect, "tcp/203.0.113.9:443", "T1071", 0.7, days);
        told(&[called])[0].chapters[0].every_hours
    };
    let hourly = |every: f64, jitter: f64, n: u32| -> Vec<f64> {
        (0..n).map(|i| (f64::from(i) * every + jitter * f64::from(i * 7 % 5) / 5.0) / 24.0).collect()
    };
    assert_eq!(calls(&hourly(6.0, 0.3, 12)), Some(6));
    assert_eq!(calls(&hourly(1.0, 0.0, 30)), Some(1));
    assert_eq!(calls(&hourly(0.25, 0.05, 80)), Some(1));
    // Its twin: people ask now and then.
    assert_eq!(calls(&[0.0, 0.1, 0.7, 0.72, 1.9, 2.0, 4.4, 4.5, 4.9]), None);
    assert_eq!(calls(&hourly(6.0, 0.0, 4)), None);
}

#[test]
fn what_is_long_past_weighs_less() {
    let now = told(&[alert("web", DIGESTS[0], Class::Write, "/etc/passwd", "T1136", 0.6, &[0.0])]);
    assert!((now[0].risk - 0.6).abs() < 1e-9);
    let two = |days: f64| {
        told(&[
            alert("web", DIGESTS[0], Class::Write, "/etc/passwd", "T1136", 0.6, &[0.0]),
            alert("web", DIGESTS[0], Class::Listen, "tcp/31337", "T1571", 0.6, &[days]),
        ])[0]
            .risk
    };
    assert!((two(0.0) - 0.84).abs() < 1e-9);
    assert!((two(14.0) - (1.0 - 0.4 * 0.7)).abs() < 1e-9);
    // Told in millionths, however it is worked out.
    let third = two(9.7);
    assert_eq!(third, (third * 1e6).round() / 1e6);
    assert_eq!(two(0.0), 0.84);
}
