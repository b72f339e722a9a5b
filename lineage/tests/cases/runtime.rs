//! What a ledger keeps of run time: alerts, what people did, blind intervals, notices, checkpoints.

use std::{collections::BTreeSet, time::Duration};

use dna::Digest;
use lineage::{
    Acted, Action, After, AlertHead, AlertQuery, AlertRow, AlertSort, AlertState, BlindRow, Checkpoint, Committed,
    Document, Keep, Ledger, Notice, OverlayRow, ResponseRow, ResponseState, Retention, Revoked, Scope, Suppression,
    Telling, Told, UsedRow, WorkloadQuery, WorkloadRow,
};
use uuid::Uuid;

use super::{at, open};

fn alert(id: &str, namespace: &str, risk: f64, second: i64) -> AlertRow {
    AlertRow {
        head: AlertHead {
            id: id.into(),
            cluster: "east".into(),
            namespace: namespace.into(),
            owner: "Deployment/web".into(),
            container: "c".into(),
            digest: "sha256:ab".into(),
            class: "listen".into(),
            subject: "tcp/4444".into(),
            message: "listens on port 4444".into(),
            state: AlertState::Open,
            risk,
            first_seen: at(second),
            last_seen: at(second),
            count: 1,
            revision: 0,
            is_suppressed: false,
            is_ignored: false,
        },
        document: Document::pack(format!(r#"{{"id":"{id}"}}"#).as_bytes()).expect("packed"),
        ignored_until: None,
    }
}

fn checkpoint(offset: u64) -> Checkpoint {
    Checkpoint {
        bridge: "b".into(),
        epoch: 0,
        offset,
        judged: vec![offset + 2..offset + 5, u64::MAX - 1..u64::MAX],
        at: at(100),
    }
}

async fn commit(ledger: &Ledger, offset: u64, alerts: &[AlertRow]) -> Committed {
    ledger.commit(&checkpoint(offset), alerts, &[], &[]).await.expect("committed")
}

async fn row(ledger: &Ledger, id: &str) -> AlertRow {
    let mut rows = ledger.alerts_by_id(&[id.to_owned()].into(), at(200)).await.expect("read");
    rows.pop().expect("an alert")
}

async fn ids(ledger: &Ledger, asked: AlertQuery) -> Vec<String> {
    let asked = AlertQuery { limit: 1000, ..asked };
    ledger.alerts(&asked, at(200)).await.expect("listed").into_iter().map(|head| head.id).collect()
}

fn suppression(alert: &str, scope: Scope, until: i64) -> Suppression {
    Suppression {
        id: Uuid::now_v7(),
        alert: alert.into(),
        scope,
        reason: "known".into(),
        actor: "eve".into(),
        made_at: at(150),
        expires_at: at(until),
    }
}

pub(crate) async fn what_was_judged_is_committed_whole(url: &str) {
    let ledger = open(url).await;
    assert_eq!(ledger.checkpoint("b").await.expect("read"), None);
    let notice = |alert: &str| Notice { alert: alert.into(), sink: "s".into(), body: alert_body() };
    let blind = BlindRow {
        cluster: "east".into(),
        node: "n1".into(),
        sensor: "falco".into(),
        cause: "dropped".into(),
        from: at(1),
        until: at(2),
        count: Some(7),
        reason: "ring buffer full".into(),
    };
    let rows = [alert("a", "shop", 0.7, 1), alert("b", "shop", 0.2, 2)];
    let done = ledger.commit(&checkpoint(10), &rows, std::slice::from_ref(&blind), &[notice("b")]).await;
    assert_eq!(done.expect("committed"), Committed::Done(vec![1, 2]));
    assert_eq!(ledger.checkpoint("b").await.expect("read"), Some(checkpoint(10)));
    let kept = row(&ledger, "a").await;
    let head = AlertHead { revision: 1, ..rows[0].head.clone() };
    assert_eq!(kept, AlertRow { head, ..rows[0].clone() });
    assert_eq!(kept.document.unpack().expect("whole"), br#"{"id":"a"}"#);

    // Read at an older state, judged by a slower namesake, told of nothing that is written: none of it leaves a trace.
    let later = BlindRow { until: at(9), ..blind.clone() };
    let seen = |row: &AlertRow, revision| AlertRow {
        head: AlertHead { revision, count: 2, ..row.head.clone() },
        ..row.clone()
    };
    let stale = [seen(&rows[0], 1), seen(&rows[1], 1), alert("c", "shop", 0.1, 3)];
    let done = ledger.commit(&checkpoint(20), &stale, std::slice::from_ref(&later), &[notice("c")]).await;
    assert_eq!(done.expect("an answer"), Committed::Stale(vec!["b".into()]));
    let done = ledger.commit(&checkpoint(9), &[seen(&rows[0], 1)], std::slice::from_ref(&later), &[]).await;
    assert_eq!(done.expect("an answer"), Committed::Overtaken { offset: 10 });
    let done = ledger.commit(&checkpoint(20), &[seen(&rows[0], 1)], std::slice::from_ref(&later), &[notice("x")]).await;
    assert!(done.is_err());
    assert_eq!(row(&ledger, "a").await, kept);
    assert_eq!(ledger.checkpoint("b").await.expect("read"), Some(checkpoint(10)));
    assert_eq!(ledger.blind(None, at(0), None, 10).await.expect("read"), [blind]);
    let size = ledger.size().await.expect("measured").rows;
    assert_eq!((size["alerts"], size["notices"], size["blind"], size["checkpoints"]), (2, 1, 1, 1));

    // The same again, read anew; the interval went on meanwhile.
    let done = ledger.commit(&checkpoint(20), &[seen(&rows[0], 1)], std::slice::from_ref(&later), &[]).await;
    let Committed::Done(revisions) = done.expect("committed") else { panic!("not committed") };
    let now = row(&ledger, "a").await.head;
    assert_eq!((now.count, vec![now.revision]), (2, revisions));
    assert!(now.revision > 2, "numbers go up only");
    assert_eq!(ledger.last_revision().await.expect("read"), now.revision);
    assert_eq!(ledger.blind(Some("east"), at(0), None, 10).await.expect("read"), std::slice::from_ref(&later));
    assert!(ledger.blind(Some("west"), at(0), None, 10).await.expect("read").is_empty());
    assert!(ledger.blind(None, at(10), None, 10).await.expect("read").is_empty());
    assert!(ledger.blind(None, at(0), Some(&later), 10).await.expect("read").is_empty());
}

fn alert_body() -> Document {
    Document::pack(br#"{"text":"look"}"#).expect("packed")
}

pub(crate) async fn alerts_are_found_sorted_and_paged(url: &str) {
    let ledger = open(url).await;
    let mut rows: Vec<AlertRow> = Vec::new();
    for n in 0..40_i32 {
        let namespace = if n % 2 == 0 { "shop" } else { "bank" };
        let mut row = alert(&format!("a{n:02}"), namespace, f64::from(n % 5) / 5.0, i64::from(n));
        row.head.count = u64::try_from(40 - n).expect("positive");
        row.head.first_seen = at(i64::from(n / 10));
        rows.push(row);
    }
    rows[3].head.owner = "Job/x".into();
    rows[4].head.digest = "sha256:cd".into();
    rows[5].head.class = "write".into();
    rows[6].head.state = AlertState::Resolved;
    rows[7].head.cluster = "west".into();
    commit(&ledger, 1, &rows).await;

    let one = |id: &str| vec![id.to_owned()];
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(ids(&ledger, AlertQuery { owner: some("Job/x"), ..AlertQuery::default() }).await, one("a03"));
    assert_eq!(ids(&ledger, AlertQuery { digest: some("sha256:cd"), ..AlertQuery::default() }).await, one("a04"));
    assert_eq!(ids(&ledger, AlertQuery { class: some("write"), ..AlertQuery::default() }).await, one("a05"));
    let resolved = AlertQuery { state: Some(AlertState::Resolved), ..AlertQuery::default() };
    assert_eq!(ids(&ledger, resolved).await, one("a06"));
    assert_eq!(ids(&ledger, AlertQuery { cluster: some("west"), ..AlertQuery::default() }).await, one("a07"));
    let bank = AlertQuery { namespaces: Some(["bank".to_owned()].into()), ..AlertQuery::default() };
    assert_eq!(ids(&ledger, bank).await.len(), 20);
    let none = AlertQuery { namespaces: Some(BTreeSet::new()), ..AlertQuery::default() };
    assert!(ids(&ledger, none).await.is_empty(), "a list of none fits none");
    assert_eq!(ids(&ledger, AlertQuery { min_risk: Some(0.6), ..AlertQuery::default() }).await.len(), 16);
    assert_eq!(ids(&ledger, AlertQuery { since: Some(at(38)), ..AlertQuery::default() }).await, ["a39", "a38"]);
    assert_eq!(ledger.namespaces(1000).await.expect("listed"), ["bank", "shop"].map(str::to_owned).into());

    let key = |sort: AlertSort, head: &AlertHead| After::head(head, sort);
    for sort in [AlertSort::LastSeen, AlertSort::FirstSeen, AlertSort::Risk, AlertSort::Count, AlertSort::Revision] {
        for is_ascending in [true, false] {
            let (mut seen, mut after): (Vec<AlertHead>, _) = (Vec::new(), None);
            loop {
                let asked = AlertQuery { sort, is_ascending, after, limit: 7, ..AlertQuery::default() };
                let page = ledger.alerts(&asked, at(200)).await.expect("listed");
                let Some(last) = page.last() else { break };
                after = Some(key(sort, last));
                seen.extend(page);
            }
            assert_eq!(seen.len(), 40);
            let mut keys: Vec<(i64, &str)> = seen.iter().map(|head| (key(sort, head).key, head.id.as_str())).collect();
            if !is_ascending {
                keys.reverse();
            }
            assert!(keys.is_sorted(), "{sort:?}: {keys:?}");
        }
    }

    // What changed after a revision, in order: how a reader follows.
    let asked = AlertQuery {
        sort: AlertSort::Revision,
        is_ascending: true,
        after: Some(After::revision(38)),
        limit: 10,
        ..AlertQuery::default()
    };
    let changed: Vec<u64> =
        ledger.alerts(&asked, at(200)).await.expect("listed").iter().map(|head| head.revision).collect();
    assert_eq!(changed, [39, 40]);
}

pub(crate) async fn what_people_did_is_written_down(url: &str) {
    let ledger = open(url).await;
    commit(&ledger, 1, &[alert("a", "shop", 0.5, 1)]).await;
    let act =
        async |action, second| ledger.act("a", action, ("eve", "why\0"), None, at(second)).await.expect("an answer");
    assert_eq!(act(Action::Reopen, 10).await, Acted::Unfit(AlertState::Open));
    assert!(matches!(act(Action::Acknowledge, 11).await, Acted::Done(_)));
    assert_eq!(act(Action::Acknowledge, 12).await, Acted::Unfit(AlertState::Acknowledged));
    assert!(matches!(act(Action::Annotate, 13).await, Acted::Done(_)));
    assert_eq!(row(&ledger, "a").await.head.state, AlertState::Acknowledged);
    assert!(matches!(act(Action::Resolve, 14).await, Acted::Done(_)));
    let Acted::Done(last) = act(Action::Reopen, 15).await else { panic!("not reopened") };
    assert_eq!(ledger.act("b", Action::Resolve, ("eve", ""), None, at(16)).await.expect("an answer"), Acted::Missing);
    let head = row(&ledger, "a").await.head;
    assert_eq!((head.state, head.revision), (AlertState::Open, last));
    let trail = ledger.audit("a").await.expect("read");
    let acts: Vec<_> = trail.iter().map(|entry| (entry.action.as_str(), entry.at)).collect();
    assert_eq!(acts, [("acknowledge", at(11)), ("annotate", at(13)), ("resolve", at(14)), ("reopen", at(15))]);
    assert_eq!((&*trail[0].actor, &*trail[0].reason), ("eve", "why\u{fffd}"));
    assert_eq!(trail[3].revision, last);
    // A bridge that read it before that has to read it again.
    let mut seen = alert("a", "shop", 0.5, 1);
    seen.head.revision = 1;
    assert_eq!(commit(&ledger, 2, &[seen]).await, Committed::Stale(vec!["a".into()]));
}

pub(crate) async fn what_a_rule_ignores_is_suppressed_until_it_ends(url: &str) {
    let ledger = open(url).await;
    let ignored = |id: &str, state| {
        let row = alert(id, "shop", 0.5, 1);
        AlertRow { head: AlertHead { state, ..row.head }, ignored_until: Some(at(300)), ..row }
    };
    let rows = [ignored("a", AlertState::Open), ignored("b", AlertState::Resolved), alert("c", "shop", 0.5, 1)];
    commit(&ledger, 1, &rows).await;
    let listed = async |is_suppressed, second| {
        let asked = AlertQuery { is_suppressed: Some(is_suppressed), limit: 10, ..AlertQuery::default() };
        let heads = ledger.alerts(&asked, at(second)).await.expect("listed");
        heads.into_iter().map(|head| (head.id, head.is_ignored)).collect::<BTreeSet<_>>()
    };
    let set = |ids: &[(&str, bool)]| ids.iter().map(|(id, is)| ((*id).to_owned(), *is)).collect::<BTreeSet<_>>();
    assert_eq!(listed(true, 299).await, set(&[("a", true)]), "not one that is resolved");
    assert_eq!(listed(false, 299).await, set(&[("b", false), ("c", false)]));
    assert_eq!(listed(true, 300).await, set(&[]), "it is open again by itself");
    let kept = row(&ledger, "a").await;
    assert_eq!((kept.ignored_until, kept.head.is_suppressed, kept.head.is_ignored), (Some(at(300)), true, true));
    // A suppression of people is told apart: it stays when the rule's word does not.
    let scope = Scope { namespace: Some("shop".into()), ..Scope::default() };
    assert!(matches!(ledger.suppress(&suppression("a", scope, 400), None).await.expect("an answer"), Acted::Done(_)));
    let kept = row(&ledger, "a").await;
    assert!(kept.head.is_suppressed && !kept.head.is_ignored);
    let seen = AlertRow { ignored_until: None, ..kept };
    assert!(matches!(commit(&ledger, 2, &[seen]).await, Committed::Done(_)));
    assert_eq!(row(&ledger, "a").await.ignored_until, None);
}

pub(crate) async fn suppressions_cover_until_they_end(url: &str) {
    let ledger = open(url).await;
    let mut other = alert("b", "shop", 0.5, 1);
    other.head.subject = "tcp/5555".into();
    let mut done = alert("c", "shop", 0.5, 1);
    done.head.state = AlertState::Resolved;
    commit(&ledger, 1, &[alert("a", "shop", 0.5, 1), other, done, alert("d", "bank", 0.5, 1)]).await;
    let scope = |namespace: &str, subject: Option<&str>| Scope {
        namespace: Some(namespace.into()),
        subject: subject.map(str::to_owned),
        ..Scope::default()
    };
    let short = suppression("a", scope("shop", Some("tcp/4444")), 300);
    let wide = suppression("d", scope("bank", None), 400);
    let done = async |one| matches!(ledger.suppress(one, None).await.expect("an answer"), Acted::Done(_));
    assert!(done(&short).await);
    assert!(done(&wide).await);
    assert!(!done(&suppression("x", scope("shop", None), 400)).await);
    assert_eq!(ledger.suppressions(at(200)).await.expect("read"), [wide.clone(), short.clone()]);

    let listed = async |is_suppressed, second| {
        let asked = AlertQuery { is_suppressed: Some(is_suppressed), limit: 10, ..AlertQuery::default() };
        let heads = ledger.alerts(&asked, at(second)).await.expect("listed");
        assert!(heads.iter().all(|head| head.is_suppressed == is_suppressed));
        assert!(heads.iter().all(|head| {
            [&short, &wide].iter().any(|one| one.scope.covers(head) && at(second) < one.expires_at) == is_suppressed
                || head.state == AlertState::Resolved
        }));
        heads.into_iter().map(|head| head.id).collect::<BTreeSet<_>>()
    };
    let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(listed(true, 200).await, set(&["a", "d"]), "not one that is resolved");
    assert_eq!(listed(false, 200).await, set(&["b", "c"]));
    assert_eq!(listed(true, 300).await, set(&["d"]), "it ends at its time, by itself");
    assert!(ledger.lift(wide.id, "bob", "enough", at(250)).await.expect("an answer"));
    assert!(!ledger.lift(wide.id, "bob", "enough", at(251)).await.expect("an answer"), "once");
    assert_eq!(ledger.suppressions(at(260)).await.expect("read"), std::slice::from_ref(&short));
    let trail = ledger.audit("d").await.expect("read");
    let acts: Vec<_> = trail.iter().map(|entry| (entry.action.as_str(), entry.actor.as_str())).collect();
    assert_eq!(acts, [("suppress", "eve"), ("lift", "bob")]);
}

pub(crate) async fn notices_are_there_until_they_are_delivered(url: &str) {
    let ledger = open(url).await;
    let notice = |sink: &str| Notice { alert: "a".into(), sink: sink.into(), body: alert_body() };
    let done = ledger.commit(&checkpoint(1), &[alert("a", "shop", 0.5, 1)], &[], &[notice("s"), notice("t")]).await;
    assert_eq!(done.expect("committed"), Committed::Done(vec![1]));
    let minute = Duration::from_secs(60);
    let due = async |second| ledger.due("s", minute, 10, at(second)).await.expect("taken");
    assert!(due(99).await.is_empty(), "not before it was written");
    let first = due(100).await;
    assert_eq!((first.len(), &*first[0].id, first[0].attempts), (1, "a/1", 1));
    assert_eq!(first[0].body.unpack().expect("whole"), br#"{"text":"look"}"#);
    assert!(due(159).await.is_empty(), "held");
    let again = due(160).await;
    assert_eq!((&*again[0].id, again[0].attempts), ("a/1", 2), "who took it first died");
    ledger.delay(&again[0].id, &again[0].sink, at(500)).await.expect("put off");
    assert!(due(499).await.is_empty());
    let last = due(500).await;
    ledger.delivered(&last[0].id, &last[0].sink).await.expect("ended");
    assert!(due(10_000).await.is_empty());
    assert_eq!(ledger.due("t", minute, 10, at(100)).await.expect("taken").len(), 1, "each sink has its own");
}

pub(crate) async fn several_commit_and_act_at_once(url: &str) {
    let ledgers = [open(url).await, open(url).await];
    let mut tasks = Vec::new();
    for n in 0..4_usize {
        let ledger = ledgers[n % 2].clone();
        tasks.push(tokio::spawn(async move {
            for offset in 1..=10 {
                loop {
                    let known = ledger.alerts_by_id(&["a".to_owned()].into(), at(200)).await.expect("read").pop();
                    let mut next = known.unwrap_or_else(|| alert("a", "shop", 0.5, 1));
                    next.head.count += 1;
                    let notice = Notice { alert: "a".into(), sink: "s".into(), body: alert_body() };
                    let checkpoint = Checkpoint { bridge: format!("b{n}"), ..checkpoint(offset) };
                    match ledger.commit(&checkpoint, &[next], &[], &[notice]).await.expect("an answer") {
                        Committed::Done(_) => break,
                        Committed::Stale(ids) => assert_eq!(ids, ["a"]),
                        overtaken @ Committed::Overtaken { .. } => panic!("{overtaken:?}"),
                    }
                }
                ledger.act("a", Action::Annotate, ("eve", ""), None, at(150)).await.expect("an answer");
            }
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(row(&ledgers[0], "a").await.head.count, 41, "no count is lost, none counts twice");
    assert_eq!(ledgers[0].audit("a").await.expect("read").len(), 40);
    let mut tasks = Vec::new();
    for n in 0..4_usize {
        let ledger = ledgers[n % 2].clone();
        tasks.push(tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let due = ledger.due("s", Duration::from_secs(60), 3, at(200)).await.expect("taken");
                if due.is_empty() {
                    return taken;
                }
                taken.extend(due.into_iter().map(|notice| notice.id));
            }
        }));
    }
    let mut taken = Vec::new();
    for task in tasks {
        taken.extend(task.await.expect("no panic"));
    }
    // On PostgreSQL one may come back empty-handed from a wait for another's rows, and ends early; nothing is taken twice.
    let distinct: BTreeSet<_> = taken.iter().collect();
    assert_eq!(distinct.len(), taken.len(), "each is taken once");
    assert!(taken.len() >= 3);
}

pub(crate) async fn open_alerts_are_never_removed(url: &str) {
    let ledger = open(url).await;
    let mut rows: Vec<AlertRow> = (0..6).map(|n| alert(&format!("a{n}"), "shop", 0.5, n)).collect();
    rows[1].head.state = AlertState::Acknowledged;
    for row in &mut rows[2..] {
        row.head.state = AlertState::Resolved;
    }
    let blind = BlindRow {
        cluster: "east".into(),
        node: String::new(),
        sensor: "falco".into(),
        cause: "silent".into(),
        from: at(1),
        until: at(2),
        count: None,
        reason: String::new(),
    };
    let notice = Notice { alert: "a0".into(), sink: "s".into(), body: alert_body() };
    ledger.commit(&checkpoint(1), &rows, &[blind], &[notice]).await.expect("committed");
    ledger.act("a2", Action::Annotate, ("eve", ""), None, at(149)).await.expect("an answer");
    ledger.suppress(&suppression("a3", Scope::default(), 10_000), None).await.expect("an answer");
    ledger.suppress(&suppression("a3", Scope::default(), 160), None).await.expect("an answer");

    let none = Keep { age: Some(Duration::ZERO), rows: 0 };
    let some = Keep { age: None, rows: 1 };
    let keep = Retention { alerts: some, suppressions: none, blind: none, notices: none, ..Retention::default() };
    let removed = ledger.prune(&keep, at(200)).await.expect("pruned");
    let removed: Vec<_> = removed.into_iter().collect();
    assert_eq!(removed, [("alert_audit", 1), ("alerts", 3), ("blind", 1), ("notices", 1), ("suppressions", 1)]);
    assert_eq!(ledger.suppressions(at(200)).await.expect("read").len(), 1, "one that holds stays");
    let size = ledger.size().await.expect("measured").rows;
    assert_eq!((size["alerts"], size["checkpoints"]), (3, 1));
    ledger.prune(&Retention { alerts: none, ..keep }, at(1_000_000)).await.expect("pruned");
    assert_eq!(ids(&ledger, AlertQuery::default()).await, ["a1", "a0"], "for ever");
}

pub(crate) async fn what_people_do_is_told_with_it(url: &str) {
    let ledger = open(url).await;
    commit(&ledger, 1, &[alert("a", "shop", 0.5, 1)]).await;
    let notices = [Notice { alert: "a".into(), sink: "s".into(), body: alert_body() }];
    let act = async |action, revision| {
        let told = Telling { revision, notices: &notices };
        ledger.act("a", action, ("eve", "why"), Some(&told), at(100)).await.expect("an answer")
    };
    assert_eq!(act(Action::Acknowledge, 7).await, Acted::Stale, "it was read before another changed it");
    assert_eq!(row(&ledger, "a").await.head.state, AlertState::Open, "and nothing is written");
    let Acted::Done(revision) = act(Action::Acknowledge, 1).await else { panic!("not done") };
    assert_eq!(act(Action::Acknowledge, revision).await, Acted::Unfit(AlertState::Acknowledged));
    let told = Telling { revision, notices: &notices };
    let suppression = suppression("a", Scope::default(), 400);
    let Acted::Done(last) = ledger.suppress(&suppression, Some(&told)).await.expect("an answer") else {
        panic!("not done")
    };
    assert_eq!(ledger.suppress(&suppression, Some(&told)).await.expect("an answer"), Acted::Stale);
    let due = ledger.due("s", Duration::from_secs(60), 10, at(200)).await.expect("taken");
    let ids: BTreeSet<String> = due.into_iter().map(|notice| notice.id).collect();
    assert_eq!(ids, [format!("a/{revision}"), format!("a/{last}")].into());
}

pub(crate) async fn an_incident_is_told_by_one(url: &str) {
    let ledger = open(url).await;
    let notice = |text: &str| Notice {
        alert: "first".to_owned(),
        sink: "chat".to_owned(),
        body: Document::pack(text.as_bytes()).expect("packed"),
    };
    let tell = async |before, what: &str| {
        ledger.tell_incident("first", before, what, &[notice(what)], at(100)).await.expect("an answer")
    };
    assert!(tell(0, "one stage").await);
    assert!(!tell(0, "one stage").await, "another said it");
    assert!(tell(1, "two stages").await && !tell(1, "three").await);
    let told = ledger.incidents_told(&["first".to_owned(), "other".to_owned()].into()).await.expect("read");
    assert_eq!(told, [("first".to_owned(), Told { number: 2, what: "two stages".to_owned() })].into());
    let due = ledger.due("chat", Duration::from_secs(60), 10, at(200)).await.expect("read");
    let due: Vec<_> = due.iter().map(|notice| (notice.id.as_str(), notice.body.unpack().expect("a body"))).collect();
    assert_eq!(due, [("incident-first/1", b"one stage".to_vec()), ("incident-first/2", b"two stages".to_vec())]);
}

pub(crate) async fn a_response_is_claimed_by_one(url: &str) {
    let ledger = open(url).await;
    let row = |action: &str, target: &str, state, second: i64| ResponseRow {
        id: format!("{action}-{target}"),
        alert: "a".to_owned(),
        cluster: "c".to_owned(),
        namespace: "shop".to_owned(),
        action: action.to_owned(),
        target: target.to_owned(),
        rules: ["one".to_owned(), "two".to_owned()].into(),
        state,
        note: String::new(),
        undo: String::new(),
        at: at(second),
        changed_at: at(second),
        actor: String::new(),
        reason: String::new(),
    };
    let claim = async |row: ResponseRow| ledger.claim_response(&row).await.expect("an answer");
    let quarantine = |state, second| row("QuarantineDigest", "sha256:aa", state, second);
    assert!(claim(quarantine(ResponseState::DryRun, 100)).await);
    assert!(!claim(quarantine(ResponseState::DryRun, 110)).await, "nothing is new");
    assert!(claim(quarantine(ResponseState::Taken, 120)).await, "it is meant now");
    assert!(!claim(quarantine(ResponseState::Taken, 121)).await, "somebody does it");
    assert!(ledger.quarantined().await.expect("read").is_empty());
    ledger.end_response("QuarantineDigest-sha256:aa", ResponseState::Done, "done", "{}", at(122)).await.expect("kept");
    assert_eq!(ledger.quarantined().await.expect("read")[0].target, "sha256:aa");
    assert!(!claim(quarantine(ResponseState::Taken, 999)).await, "it holds");
    // What failed is tried again, not at once; what nobody ended is another's after a while.
    let pod = |state, second| row("DeletePod", "web-1", state, second);
    assert!(claim(pod(ResponseState::Taken, 200)).await);
    ledger.end_response("DeletePod-web-1", ResponseState::Failed, "no", "", at(201)).await.expect("kept");
    assert!(!claim(pod(ResponseState::Taken, 230)).await && claim(pod(ResponseState::Taken, 262)).await);
    assert!(!claim(pod(ResponseState::Taken, 300)).await && claim(pod(ResponseState::Taken, 600)).await);
    assert_eq!(ledger.responses_since("c", "shop", at(90)).await.expect("read"), (2, 2));
    assert_eq!(ledger.responses_since("c", "bank", at(150)).await.expect("read"), (1, 0));
    assert!(ledger.undo_response("QuarantineDigest-sha256:aa", "bob", "a mistake", at(700)).await.expect("done"));
    assert!(!ledger.undo_response("QuarantineDigest-sha256:aa", "bob", "again", at(701)).await.expect("done"));
    assert!(ledger.quarantined().await.expect("read").is_empty());
    assert!(!claim(quarantine(ResponseState::Taken, 9999)).await, "a person took it back");
    let undone = ledger.responses(Some(ResponseState::Undone), 10).await.expect("read");
    assert_eq!((undone.len(), undone[0].actor.as_str(), undone[0].rules.len()), (1, "bob", 2));
    assert_eq!(
        ledger.response("DeletePod-web-1").await.expect("read").map(|row| row.state),
        Some(ResponseState::Taken)
    );
}

pub(crate) async fn what_workloads_do_is_added_up(url: &str) {
    let ledger = open(url).await;
    let workload = |id: &str, owner: &str, first: i64, last: i64| WorkloadRow {
        id: id.to_owned(),
        cluster: "c".to_owned(),
        namespace: "shop".to_owned(),
        owner: owner.to_owned(),
        container: "app".to_owned(),
        digest: "sha256:aa".to_owned(),
        dna: Digest::sha256(b"dna"),
        expectation: None,
        starts: 1,
        first_seen: at(first),
        last_seen: at(last),
    };
    let used = |item: &str, is_predicted, first: i64, last: i64| UsedRow {
        workload: "w".to_owned(),
        dimension: "exec".to_owned(),
        item: item.to_owned(),
        is_predicted,
        first_seen: at(first),
        last_seen: at(last),
    };
    let rows = [workload("w", "Deployment/web", 100, 200), workload("v", "Deployment/db", 100, 150)];
    ledger.add_used(&rows, &[used("/bin/a", true, 100, 110), used("/bin/b", false, 120, 120)]).await.expect("kept");
    // A late event, and a later one.
    let more = workload("w", "Deployment/web", 50, 300);
    ledger.add_used(&[more], &[used("/bin/a", true, 60, 290)]).await.expect("kept");
    let asked = WorkloadQuery { owner: Some("Deployment/web".to_owned()), ..WorkloadQuery::default() };
    let found = ledger.workloads(&asked, 10).await.expect("read");
    assert_eq!(found, [WorkloadRow { starts: 2, ..workload("w", "Deployment/web", 50, 300) }]);
    let all = ledger.workloads(&WorkloadQuery::default(), 10).await.expect("read");
    assert_eq!(all.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["w", "v"]);
    let wanted = [used("/bin/a", true, 60, 290), used("/bin/b", false, 120, 120)];
    assert_eq!(ledger.used("w").await.expect("read"), wanted);
    let retention = Retention { used: Keep { age: None, rows: 1 }, ..Retention::default() };
    ledger.prune(&retention, at(400)).await.expect("pruned");
    assert_eq!(ledger.used("w").await.expect("read"), wanted[..1]);
    assert_eq!(ledger.workloads(&WorkloadQuery::default(), 10).await.expect("read").len(), 1);
}

pub(crate) async fn overlays_are_kept_until_they_end(url: &str) {
    let ledger = open(url).await;
    let overlay = |name: &str, ends: i64| OverlayRow {
        id: Digest::sha256(name.as_bytes()),
        image: Digest::sha256(b"web"),
        bundle: Document::pack(name.as_bytes()).expect("packed"),
        expires_at: at(ends),
        accepted_at: at(100),
        accepted_by: "eve".into(),
        revoked: None,
    };
    let (short, long) = (overlay("short", 200), overlay("long", 900));
    for row in [&short, &long] {
        assert!(ledger.put_overlay(row).await.expect("kept"));
    }
    let again = OverlayRow { accepted_by: "bob".into(), ..long.clone() };
    assert!(!ledger.put_overlay(&again).await.expect("an answer"), "it is there");
    assert_eq!(ledger.overlay(&long.id).await.expect("read"), Some(long.clone()));
    let in_force = async |second| -> BTreeSet<Digest> {
        let rows = ledger.overlays_in_force(at(second)).await.expect("read");
        rows.into_iter().map(|row| row.id).collect()
    };
    assert_eq!(in_force(150).await, [short.id.clone(), long.id.clone()].into());
    assert_eq!(in_force(200).await, [long.id.clone()].into(), "it ends at its time, by itself");
    let revoke = async |id, second| ledger.revoke_overlay(id, "bob", "a mistake", at(second)).await.expect("an answer");
    assert!(!revoke(&short.id, 300).await, "it ended");
    assert!(revoke(&long.id, 300).await && !revoke(&long.id, 301).await, "once");
    assert!(in_force(302).await.is_empty());
    assert!(!ledger.put_overlay(&long).await.expect("an answer"), "nobody brings it back");
    let revoked = Revoked { at: at(300), by: "bob".into(), reason: "a mistake".into() };
    assert_eq!(ledger.overlay(&long.id).await.expect("read").and_then(|row| row.revoked), Some(revoked));
    assert_eq!(ledger.overlays().await.expect("read").len(), 2);
    let keep = Retention { overlays: Keep { age: Some(Duration::ZERO), rows: 9 }, ..Retention::default() };
    assert_eq!(ledger.prune(&keep, at(500)).await.expect("pruned").get("overlays"), Some(&1));
}
