use std::collections::BTreeSet;

use dna::{Act, Outcome, Process, Protocol, SeenContainer};
use lineage::{AlertQuery, Ledger};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    Class,
    alert::{Alert, State},
    compare::tests::dna,
    desk::Desk,
    engine::Found,
    identity::Container,
    known::Context,
    replay::Replay,
    sensor::Dialect,
    sinks, stored,
};

const IGNORE: &str = "
apiVersion: mayfly.dev/v1alpha1
kind: RuntimeRule
metadata: {name: debug-port, namespace: shop}
spec:
  classes: [listen]
  when: [{name: port, expression: \"deviation.subject == 'tcp/9000' && activity.process.uid == 33\"}]
  then: {ignore: {until: '2027-01-15T09:00:00Z', reason: INC-1}}
";

const GRAVE: &str = "
apiVersion: mayfly.dev/v1alpha1
kind: ClusterRuntimeRule
metadata: {name: grave}
spec:
  classes: [listen]
  when: [{name: port, expression: \"deviation.subject == 'tcp/4444'\"}]
  then: {severity: Critical, notify: [on-call], response: [{action: Isolate}]}
";

fn loaded(texts: &[&'static str]) -> Rules {
    policies::load(texts.iter().map(|text| ("rules.yaml", *text))).expect("rules")
}

/// 2027-01-15T08:00:00Z, and so many seconds.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn listen(port: u16, uid: u32, second: i64) -> (Deviation, Activity) {
    let activity = Activity {
        at: at(second),
        sensor: "mayfly".to_owned(),
        node: None,
        container: SeenContainer::default(),
        process: Process { exe: Some("/usr/sbin/served".to_owned()), uid: Some(uid), ..Process::default() },
        ancestors: Vec::new(),
        act: Act::Listen { protocol: Protocol::Tcp, address: None, port },
        outcome: Outcome::Done,
        rule: None,
    };
    let deviation = Deviation {
        class: Class::Listen,
        subject: format!("tcp/{port}"),
        message: format!("listens on {port}"),
        after: None,
        layer: None,
        package: None,
        risk: 0.6,
        drivers: Vec::new(),
        technique: "T1571".to_owned(),
        blocked: false,
    };
    (deviation, activity)
}

/// A desk and what stands behind it.
struct World {
    ledger: Ledger,
    desk: Desk,
    rules: Arc<Rules>,
    offset: u64,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new(rules: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("l.db");
        let ledger = Ledger::open(&format!("sqlite:{}", file.display())).await.expect("a ledger");
        let sinks = "[[sink]]\nname = \"on-call\"\nkind = \"webhook\"\nurl = \"https://a.example\"\n\
                     [[sink]]\nname = \"chat\"\nkind = \"webhook\"\nurl = \"https://b.example\"\n";
        let desk = Desk::new(ledger.clone(), "b".to_owned(), Sinks::parse(sinks, "sinks").expect("sinks"));
        Self { ledger, desk, rules: Arc::new(loaded(rules)), offset: 0, _folder: folder }
    }

    /// Takes what was seen, and writes it.
    async fn see(&mut self, all: &[(u16, u32, i64)]) {
        for (port, uid, second) in all {
            let (mut deviation, activity) = listen(*port, *uid, *second);
            let place = Place {
                cluster: "one".to_owned(),
                namespace: "shop".to_owned(),
                owner: "Deployment/web".to_owned(),
                ..Place::default()
            };
            let verdict = rule((&self.rules, &rule_watch()), &mut deviation, &activity, (&place, "web-1"), None, None);
            let container = Arc::new(Container {
                place,
                pod: "web-1".to_owned(),
                pod_uid: "u1".to_owned(),
                id: String::new(),
                started: None,
            });
            let activity = Arc::new(activity);
            let found = Found { container, deviation, activity, before: Vec::new(), user: None };
            self.desk.found(found, Context { verdict, ..Context::default() });
        }
        self.offset += 1;
        self.desk.write(self.offset, Vec::new(), at(self.offset.cast_signed())).await.expect("written");
    }

    /// The alert of a port as it stands at a time, and the sinks that are to be told of anything.
    async fn alert(&self, port: u16, second: i64) -> (Alert, State, BTreeSet<String>) {
        let heads =
            self.ledger.alerts(&AlertQuery { limit: 9, ..AlertQuery::default() }, at(second)).await.expect("read");
        let head = heads.into_iter().find(|head| head.subject == format!("tcp/{port}")).expect("an alert");
        let row = self.ledger.alerts_by_id(&[head.id.clone()].into(), at(second)).await.expect("read").remove(0);
        let alert = stored::alert(&row).expect("an alert");
        let told = alert.told.keys().cloned().collect();
        (alert, stored::shown(&head), told)
    }
}

#[tokio::test]
async fn what_is_ignored_is_kept_and_not_told_and_comes_back_when_that_ends() {
    let mut world = World::new(&[IGNORE]).await;
    world.see(&[(9000, 33, 1), (9000, 33, 2)]).await;
    let (alert, state, told) = world.alert(9000, 10).await;
    assert_eq!((alert.count, alert.ruled.ignored, state), (2, 2, State::Suppressed));
    assert_eq!(told, BTreeSet::new());
    let by = alert.ruled.ignored_by.expect("a rule");
    assert_eq!((by.rule.as_str(), by.reason.as_str()), ("shop/debug-port", "INC-1"));
    let told_of = alert.ruled.rules.values().map(|by| (by.count, by.applied.told())).collect::<Vec<_>>();
    assert_eq!(told_of, [(2, "shop/debug-port: ignored until 2027-01-15T09:00:00Z: INC-1".to_owned())]);
    // Nothing new is seen: it is open again at its end, by itself.
    assert_eq!(world.alert(9000, 3600).await.1, State::Open);
    // And told when it is seen again.
    world.see(&[(9000, 33, 3601)]).await;
    let (alert, state, told) = world.alert(9000, 3602).await;
    assert_eq!((alert.count, alert.ruled.ignored, state), (3, 2, State::Open));
    assert_eq!(told, ["chat".to_owned(), "on-call".to_owned()].into());
}

#[tokio::test]
async fn one_that_is_not_ignored_is_told_though_others_of_the_alert_are() {
    let mut world = World::new(&[IGNORE]).await;
    world.see(&[(9000, 33, 1)]).await;
    // By another user: the rule is not about it.
    world.see(&[(9000, 33, 2), (9000, 0, 3), (9000, 33, 4)]).await;
    let (alert, state, told) = world.alert(9000, 10).await;
    assert_eq!((alert.count, alert.ruled.ignored, state), (4, 3, State::Open));
    assert_eq!(told, ["chat".to_owned(), "on-call".to_owned()].into());
}

#[tokio::test]
async fn severity_sinks_and_responses_stand_on_the_alert() {
    let mut world = World::new(&[IGNORE, GRAVE]).await;
    world.see(&[(4444, 33, 1), (5555, 33, 1)]).await;
    let (alert, state, told) = world.alert(4444, 10).await;
    assert_eq!((alert.risk, state), (0.9, State::Open));
    assert_eq!(sinks::severity(alert.risk).name(), "critical");
    assert_eq!(told, ["on-call".to_owned()].into());
    let planned: Vec<_> = alert.ruled.responses.iter().map(|one| (one.action, one.dry_run)).collect();
    assert_eq!(planned, [(ResponseAction::Isolate, true)]);
    let (other, _, told) = world.alert(5555, 10).await;
    assert_eq!((other.risk, other.ruled), (0.6, Ruled::default()));
    assert_eq!(told.len(), 2);
}

#[test]
fn severities_are_those_that_sinks_tell() {
    use policies::kinds::Severity;
    for severity in [Severity::Low, Severity::Medium, Severity::High, Severity::Critical] {
        let (least, most) = severity.risks();
        assert_eq!([sinks::severity(least).name(), sinks::severity(most).name()], [severity.name(); 2]);
    }
}

#[test]
fn a_sink_that_is_not_there_hides_nothing() {
    let sinks = Sinks::parse("[[sink]]\nname = \"chat\"\nkind = \"webhook\"\nurl = \"https://b.example\"\n", "x");
    let sinks = sinks.expect("sinks");
    let of = |notify: Option<&[&str]>| {
        let notify = notify.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        Audience::of(&Verdict { notify, ..Verdict::default() }, &sinks)
    };
    assert!(of(None).has("chat") && of(Some(&["chat"])).has("chat") && of(Some(&["chta"])).has("chat"));
    assert!(!of(Some(&[])).has("chat"));
    let rules = loaded(&[GRAVE]);
    assert_eq!(nowhere(&rules, &sinks).len(), 1);
    assert!(nowhere(&rules, &sinks)[0].starts_with("grave: there is no sink `on-call`"));
}

#[test]
fn a_recorded_stream_is_compared_by_rules() {
    let expected = Arc::new(Expected::of_image(&dna()));
    let find = |_: &SeenContainer| Some(Arc::clone(&expected));
    let mut replay = Replay::new(&find).by(Arc::new(loaded(&[IGNORE, GRAVE])));
    let mut see = |port: u16, uid: u32, second: i64| {
        let event = json!({"at": at(second), "sensor": "mayfly", "container": {"id": "3ad7b26ded6d", "namespace": "shop", "pod": "web-1"},
            "process": {"pid": 1, "exe": "/usr/sbin/served", "uid": uid}, "act": {"kind": "listen", "protocol": "tcp", "port": port}});
        let mut found = replay.push(Dialect::Mayfly, event.to_string().as_bytes()).expect("an event");
        found.retain(|found| found.deviation.class == Class::Listen);
        found.pop()
    };
    assert_eq!(see(80, 33, 0), None, "it is expected");
    let ignored = see(9000, 33, 1).expect("a deviation");
    assert!(ignored.verdict.ignored.is_some() && ignored.incident.is_empty());
    let grave = see(4444, 33, 2).expect("a deviation");
    assert!(grave.deviation.risk >= 0.9 && !grave.incident.is_empty());
    assert_eq!(grave.verdict.responses.len(), 1);
    let late = see(9000, 33, 3600).expect("a deviation");
    assert_eq!(late.verdict.ignored, None);
    assert_eq!(late.verdict.rules[0].note.as_deref(), Some("its time was over at 2027-01-15T09:00:00Z"));
    let alert = replay.alert(&late.alert).expect("an alert");
    assert_eq!((alert.count, alert.ruled.ignored), (2, 1));
}

proptest! {
    /// In whatever order deviations come, and however they are put together before, an alert says the same of rules.
    #[test]
    fn parts_come_to_the_same(all in prop::collection::vec((0_i64..7200, 0_u32..2, any::<bool>()), 1..12), cut in 0_usize..12) {
        let rules = Arc::new(loaded(&[IGNORE, GRAVE]));
        let of = |(second, user, is_grave): &(i64, u32, bool)| {
            let (mut deviation, activity) = listen(if *is_grave { 4444 } else { 9000 }, 33 * user, *second);
            let place = Place { namespace: "shop".to_owned(), ..Place::default() };
            Ruled::new(&rule((&rules, &rule_watch()), &mut deviation, &activity, (&place, ""), None, None), activity.at)
        };
        let together = |parts: &[Ruled]| parts.iter().cloned().fold(Ruled::default(), |mut all, more| { all.merge(more); all });
        let parts: Vec<Ruled> = all.iter().map(of).collect();
        let (one, other) = parts.split_at(cut.min(parts.len()));
        let whole = together(&parts);
        prop_assert_eq!(&together(&[together(other), together(one)]), &whole);
        let backwards: Vec<Ruled> = parts.into_iter().rev().collect();
        prop_assert_eq!(together(&backwards), whole);
    }
}

/// The rules a reader has, by their versions.
fn versions(rules: &Rules) -> Vec<String> {
    rules.runtime().versions().map(|version| format!("{} {}", version.rule, version.version)).collect()
}

#[tokio::test]
async fn what_a_rule_was_survives_a_restart_and_is_believed_only_under_our_seal() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("l.db");
    let ledger = Ledger::open(&format!("sqlite:{}", file.display())).await.expect("a ledger");
    let seal = |name: &str| lineage::Seal::kept_in(&folder.path().join(name)).expect("a key");
    // Each is a bridge of its own, or the same after a restart.
    let started =
        |name: &str| Reader::new(Source::Cluster, None, Some(lineage::Sealed::new(ledger.clone(), seal(name))));
    let object = |uid: &str, expression: &str| {
        json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": "RuntimeRule",
            "metadata": {"name": "debug-port", "namespace": "shop", "uid": uid, "resourceVersion": expression},
            "spec": {"classes": ["listen"], "when": [{"name": "port", "expression": expression}],
                "then": {"ignore": {"until": "2027-01-15T09:00:00Z", "reason": "INC-1"}}}})
    };
    let good = [object("a", "deviation.subject == 'tcp/9000'")];
    let bad = [object("a", "deviation.subjcet == 'tcp/9000'")];
    let (before, problems) = started("ours").of_objects(&good).await;
    assert_eq!((before.runtime().len(), problems.len()), (1, 0), "{problems:?}");

    let mut restarted = started("ours");
    for _ in 0..2 {
        let (rules, problems) = restarted.of_objects(&bad).await;
        assert_eq!(versions(&rules), versions(&before));
        assert!(problems.iter().any(|problem| problem.contains("it stays in force as it was before")), "{problems:?}");
        assert!(restarted.objects.standings[0].is_as_before);
    }
    // It is at work, not only there.
    let (mut deviation, activity) = listen(9000, 33, 1);
    let place = Place { namespace: "shop".to_owned(), ..Place::default() };
    let rules = Arc::new(started("ours").of_objects(&bad).await.0);
    let verdict = rule((&rules, &rule_watch()), &mut deviation, &activity, (&place, "web-1"), None, None);
    assert_eq!(verdict.ignored.map(|ignored| ignored.reason), Some("INC-1".to_owned()));
    // Deleted and made anew, with the mistake: it never was anything else.
    assert_eq!(started("ours").of_objects(&[object("b", "deviation.subjcet == 'x'")]).await.0.runtime().len(), 0);

    // Whoever can write to the ledger puts a rule of theirs in its place, under a key of their own: it ignores everything that listens.
    let key = Key::of(&bad[0]).name();
    let forged = object("a", "true").to_string().into_bytes();
    let theirs = lineage::Sealed::new(ledger.clone(), seal("theirs"));
    theirs.put(FACTS, &key, Timestamp::now() + Duration::from_secs(1), forged).await.expect("written");
    assert_eq!(started("ours").of_objects(&bad).await.0.runtime().len(), 0, "a forged rule is not in force");
    assert_eq!(ledger.fact(FACTS, &key).await.expect("asked"), None, "and it is forgotten");
}

#[tokio::test]
async fn files_that_do_not_load_at_start_are_what_they_were_if_that_is_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("l.db");
    let ledger = Ledger::open(&format!("sqlite:{}", file.display())).await.expect("a ledger");
    let started = |key: &str, bridge: &str, text: &str| {
        let texts = vec![("rules.yaml".to_owned(), text.to_owned())];
        let files = Files { name: bridge.to_owned(), read: Arc::new(move || Ok(texts.clone())) };
        let seal = lineage::Seal::kept_in(&folder.path().join(key)).expect("a key");
        Reader::new(Source::Files(files), None, Some(lineage::Sealed::new(ledger.clone(), seal)))
    };
    let bad = IGNORE.replace("deviation.subject", "deviation.subjcet");
    let refused = started("ours", "b", &bad).begin().await.expect_err("nothing is known of before");
    assert!(refused[0].contains("subjcet"), "{refused:?}");

    let mut first = started("ours", "b", IGNORE);
    let before = versions(&first.begin().await.expect("it loads"));
    first.read().await.expect("it loads");

    let mut restarted = started("ours", "b", &bad);
    assert_eq!(versions(&restarted.begin().await.expect("as before")), before);
    assert!(restarted.read().await.is_err(), "what is wrong is told again and again");
    // What was recalled is kept on: the ledger forgets what is not written again.
    assert_eq!(restarted.texts.len(), 1);
    assert!(started("ours", "another", &bad).begin().await.is_err(), "it has files of its own");
    assert!(started("theirs", "b", &bad).begin().await.is_err(), "it is not under its seal");
}
