//! What a ledger does, whatever its store. Called for SQLite by this crate's tests, for PostgreSQL by the end-to-end suite, each
//! case with a ledger that is empty and its own.

#![expect(clippy::indexing_slicing, reason = "a row that is missing fails its case")]

mod parts;
mod runtime;

use std::{collections::BTreeSet, time::Duration};

use dna::{Accounts, Analyzer, Behavior, Digest, Dna, ImageFacts, Platform, SCHEMA, Start};
use jiff::Timestamp;
use lineage::{
    Among, Binding, Credentials, Decision, DecisionImage, DecisionQuery, Document, Enqueued, Error, Image, Keep,
    Ledger, MAX_ATTEMPTS, MAX_KEY_BYTES, MAX_WAITING, Origin, Place, Priority, Record, Recorder, RecorderOptions,
    Retention, RuleVersion, SealedFact, Since, SubjectDna, Verdict, Work,
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection, migrate::Migrator};
use uuid::Uuid;

pub(crate) use parts::*;
pub(crate) use runtime::*;

/// A test for each case; `$fresh` is the URL of an empty ledger, and what keeps it alive.
#[macro_export]
macro_rules! suite {
    ($fresh:path) => {
        $crate::suite!($fresh: a_dna_comes_back_whole, the_dnas_of_a_subject_are_in_order,
            the_latest_dnas_are_of_all_or_of_what_pods_were_admitted_with, the_latest_fact_stays,
            bindings_are_written_once_and_the_latest_holds, bindings_are_listed_by_pod_digest_and_time,
            bindings_of_pods_that_are_gone_are_removed, decisions_are_found_and_paged, what_was_unknown_is_settled_once,
            dry_runs_leave_no_trace, hostile_texts_are_kept_within_bounds, urgent_work_is_first,
            a_lease_that_expires_is_given_to_another, work_that_never_ends_is_given_up, failed_work_rests,
            a_full_queue_takes_what_is_more_urgent, places_in_the_queue_are_told, what_exceeds_its_limits_is_removed,
            several_open_one_ledger_at_once, several_write_and_lease_at_once, a_ledger_of_the_schema_before_is_brought_on,
            a_ledger_of_a_newer_schema_is_left_alone, a_recorder_writes_what_it_took,
            what_was_judged_is_committed_whole, alerts_are_found_sorted_and_paged, what_people_did_is_written_down,
            suppressions_cover_until_they_end, what_a_rule_ignores_is_suppressed_until_it_ends,
            notices_are_there_until_they_are_delivered, several_commit_and_act_at_once,
            what_people_do_is_told_with_it, an_incident_is_told_by_one, what_workloads_do_is_added_up, a_response_is_claimed_by_one, images_are_found_by_all_their_digests, overlays_are_kept_until_they_end, open_alerts_are_never_removed,
            a_part_is_committed_by_who_took_it_last, members_are_there_until_they_leave,
            who_takes_a_part_sees_all_that_was_committed);
    };
    ($fresh:path: $($case:ident),*) => {
        $(#[test]
        fn $case() {
            let (url, _alive) = $fresh();
            $crate::cases::run($crate::cases::$case(&url));
        })*
    };
}

/// Runs a case to its end.
pub(crate) fn run(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(case);
}

/// A time so many seconds after one that all cases begin at.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn digest(of: &str) -> Digest {
    Digest::sha256(of.as_bytes())
}

async fn open(url: &str) -> Ledger {
    Ledger::open(url).await.expect("a ledger")
}

fn dna(user: &str) -> (Dna, Vec<u8>) {
    let dna = Dna {
        schema: SCHEMA.to_owned(),
        analyzer: Analyzer { name: "mayfly".into(), version: "1".into(), rules: digest("rules") },
        image: ImageFacts { platform: "linux/amd64".parse::<Platform>().expect("a platform"), config: None },
        layers: Vec::new(),
        start: Start { user: user.to_owned(), ..Start::default() },
        programs: Vec::new(),
        accounts: Accounts::default(),
        folders: Vec::new(),
        behavior: Behavior::default(),
        unknowns: Vec::new(),
    };
    let json = dna.to_canonical_json().expect("JSON");
    (dna, json)
}

/// A binding of container `c` of a pod.
pub(crate) fn binding(pod_uid: &str, second: i64) -> Binding {
    Binding {
        cluster: "east".into(),
        pod_uid: pod_uid.into(),
        container: "c".into(),
        platform: "linux/amd64".into(),
        namespace: "shop".into(),
        pod: format!("web-{pod_uid}"),
        owner: Some("ReplicaSet/web".into()),
        image: "registry.example/web:1".into(),
        digest: Some(digest("web")),
        expectation: Some(Document::pack(br#"{"ports":[80]}"#).expect("packed")),
        decision: Some(Uuid::now_v7()),
        at: at(second),
    }
}

/// A decision about an image.
pub(crate) fn decision(image: &str, namespace: &str, verdict: Verdict, second: i64) -> Decision {
    Decision {
        id: Uuid::now_v7(),
        at: at(second),
        cluster: "east".into(),
        namespace: namespace.into(),
        kind: "Pod".into(),
        name: "web-".into(),
        user: "system:serviceaccount:kube-system:replicaset-controller".into(),
        operation: "CREATE".into(),
        verdict,
        is_dry_run: false,
        has_unknowns: false,
        images: vec![DecisionImage { name: "c".into(), reference: image.into(), digest: Some(digest(image)) }],
        rules: vec![RuleVersion { name: "baseline".into(), version: "7".into() }],
        details: Document::pack(br#"{"reasons":[{"code":"IMG_UNSIGNED"}]}"#).expect("packed"),
    }
}

fn work(image: &str, priority: Priority) -> Work {
    let credentials =
        Credentials { namespace: "shop".into(), service_account: "default".into(), secrets: vec!["pull".into()] };
    Work { image: image.into(), platform: "linux/amd64".into(), priority, credentials: [credentials].into() }
}

/// Statements of a test's own, on either store.
async fn raw(url: &str, sql: &str) -> u64 {
    if url.starts_with("sqlite") {
        let mut connection = SqliteConnection::connect(url).await.expect("connected");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.expect(sql).rows_affected()
    } else {
        let mut connection = PgConnection::connect(url).await.expect("connected");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.expect(sql).rows_affected()
    }
}

pub(crate) async fn a_dna_comes_back_whole(url: &str) {
    let ledger = open(url).await;
    let (one, json) = dna("one");
    let name = ledger.put_dna(&one, json.clone(), at(0)).await.expect("kept");
    assert_eq!(name, one.digest().expect("a digest"));
    assert_eq!(ledger.put_dna(&one, json.clone(), at(5)).await.expect("kept again"), name);
    assert_eq!(ledger.dna(&name).await.expect("read"), Some(json.clone()));
    assert_eq!(ledger.dna(&digest("other")).await.expect("read"), None);

    let (two, other) = dna("two");
    ledger.put_dna(&two, other, at(0)).await.expect("kept");
    let first = ledger.dnas(None, 1).await.expect("listed");
    let second = ledger.dnas(Some(&first[0].digest), 10).await.expect("listed");
    let mut rows = [first, second].concat();
    rows.sort_by_key(|row| row.digest != name);
    assert_eq!((rows.len(), rows[0].bytes, rows[0].programs, rows[0].stored_at), (2, json.len() as u64, 0, at(5)));

    raw(url, "UPDATE dna SET bytes = bytes - 1").await;
    assert!(matches!(ledger.dna(&name).await, Err(Error::Damaged { .. })));
}

pub(crate) async fn the_dnas_of_a_subject_are_in_order(url: &str) {
    let ledger = open(url).await;
    let link = |rules: &str, origin, repository: &str, dna: &str, second| SubjectDna {
        subject: digest("subject"),
        rules: digest(rules),
        origin,
        repository: repository.into(),
        dna: digest(dna),
        at: at(second),
    };
    let signers = Origin::Attested { signers: ["a", "b"].map(str::to_owned).into() };
    let links = [
        link("new", Origin::Analyzed, "r.example/a", "n", 1),
        link("newer, not ours", signers, "r.example/a", "x", 9),
        link("old", Origin::Analyzed, "r.example/a", "o", 5),
        link("old", Origin::Analyzed, "r.example/b", "o", 4),
    ];
    for link in links.iter().rev() {
        ledger.link_dna(link).await.expect("linked");
    }
    // An older word does not replace a newer one.
    ledger.link_dna(&link("new", Origin::Analyzed, "r.example/a", "stale", 0)).await.expect("linked");
    assert_eq!(ledger.dnas_of(&digest("subject"), &digest("new")).await.expect("read"), links);
    ledger.link_dna(&link("new", Origin::Analyzed, "r.example/a", "again", 2)).await.expect("linked");
    assert_eq!(ledger.dnas_of(&digest("subject"), &digest("new")).await.expect("read")[0].dna, digest("again"));
    assert!(ledger.dnas_of(&digest("other"), &digest("new")).await.expect("read").is_empty());
}

pub(crate) async fn the_latest_dnas_are_of_all_or_of_what_pods_were_admitted_with(url: &str) {
    let ledger = open(url).await;
    let mut records: Vec<Record> = Vec::new();
    for (second, (image, verdict)) in
        (0..).zip([("let in", Verdict::Allow), ("warned of", Verdict::Warn), ("refused", Verdict::Deny)])
    {
        records.push(decision(image, "shop", verdict, second).into());
    }
    // A Deployment may be let in where its pods are not; and one that was refused first may be let in later.
    records.push(Decision { kind: "Deployment".into(), ..decision("refused", "shop", Verdict::Warn, 9) }.into());
    records.push(decision("warned of", "bank", Verdict::Deny, 10).into());
    ledger.write(&records, at(20)).await.expect("written");
    for (second, image) in (0..).zip(["let in", "warned of", "refused", "never seen"]) {
        let link = SubjectDna {
            subject: digest(image),
            rules: digest("rules"),
            origin: Origin::Analyzed,
            repository: "r.example/a".into(),
            dna: digest("dna"),
            at: at(second),
        };
        ledger.link_dna(&link).await.expect("linked");
    }
    let latest = async |among| {
        let found = ledger.latest_dnas(among, 9).await.expect("read");
        found.into_iter().map(|(subject, ..)| subject).collect::<Vec<_>>()
    };
    assert_eq!(latest(Among::All).await, ["never seen", "refused", "warned of", "let in"].map(digest));
    assert_eq!(latest(Among::Admitted).await, ["warned of", "let in"].map(digest));
}

pub(crate) async fn the_latest_fact_stays(url: &str) {
    let ledger = open(url).await;
    let fact = |byte: u8, second| SealedFact { sealed: vec![byte, 0, 255], mac: vec![1; 32], fetched_at: at(second) };
    ledger.put_fact("signatures", "k", &fact(1, 10)).await.expect("kept");
    ledger.put_fact("signatures", "k", &fact(2, 5)).await.expect("kept");
    ledger.put_fact("referrers", "k", &fact(3, 1)).await.expect("kept");
    assert_eq!(ledger.fact("signatures", "k").await.expect("read"), Some(fact(1, 10)));
    ledger.put_fact("signatures", "k", &fact(4, 11)).await.expect("kept");
    assert_eq!(ledger.fact("signatures", "k").await.expect("read"), Some(fact(4, 11)));
    ledger.forget_fact("signatures", "k").await.expect("forgotten");
    assert_eq!(ledger.fact("signatures", "k").await.expect("read"), None);
    assert_eq!(ledger.fact("referrers", "k").await.expect("read"), Some(fact(3, 1)));
    let long = "k".repeat(MAX_KEY_BYTES);
    assert!(matches!(ledger.put_fact("kind", &long, &fact(1, 1)).await, Err(Error::TooLarge { .. })));
}

pub(crate) async fn bindings_are_written_once_and_the_latest_holds(url: &str) {
    let ledger = open(url).await;
    let (early, late) = (binding("p", 1), Binding { image: "registry.example/web:2".into(), ..binding("p", 2) });
    for records in [
        vec![late.clone().into(), early.clone().into(), late.clone().into()],
        vec![early.into()],
        vec![late.clone().into()],
    ] {
        ledger.write(&records, at(100)).await.expect("written");
    }
    let rows = ledger.bindings_of_pod("east", "p").await.expect("read");
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!((&row.image, row.at, row.decision), (&late.image, at(2), late.decision));
    assert_eq!((&row.digest, &row.owner, &row.pod), (&late.digest, &late.owner, &late.pod));
    let expectation = row.expectation.as_ref().expect("an expectation");
    assert_eq!(ledger.expectation(expectation).await.expect("read").as_deref(), Some(&br#"{"ports":[80]}"#[..]));
    assert_eq!(ledger.size().await.expect("measured").rows["expectations"], 1);

    let unknown = Binding { digest: None, expectation: None, decision: None, owner: None, ..binding("q", 3) };
    ledger.write(&[unknown.into()], at(100)).await.expect("written");
    let rows = ledger.bindings_of_pod("east", "q").await.expect("read");
    assert_eq!((&rows[0].digest, &rows[0].expectation, rows[0].decision, &rows[0].owner), (&None, &None, None, &None));
}

pub(crate) async fn bindings_are_listed_by_pod_digest_and_time(url: &str) {
    let ledger = open(url).await;
    let records: Vec<Record> = (0..600).map(|n| binding(&format!("p{n:03}"), n).into()).collect();
    ledger.write(&records, at(1000)).await.expect("written");
    let other = Binding { platform: "linux/arm64".into(), digest: Some(digest("arm")), ..binding("both", 1) };
    ledger.write(&[binding("both", 1).into(), other.into()], at(900)).await.expect("written");
    let both = ledger.bindings_of_pod("east", "both").await.expect("read");
    assert_eq!(both.iter().map(|row| &*row.platform).collect::<Vec<_>>(), ["linux/amd64", "linux/arm64"]);
    ledger.remove_pods("east", &["both".to_owned()]).await.expect("removed");
    let side = Binding { container: "side".into(), digest: Some(digest("side")), ..binding("p007", 7) };
    ledger.write(&[side.into()], at(1001)).await.expect("written");

    let of_pod = ledger.bindings_of_pod("east", "p007").await.expect("read");
    assert_eq!(of_pod.iter().map(|row| &*row.container).collect::<Vec<_>>(), ["c", "side"]);
    assert!(ledger.bindings_of_pod("west", "p007").await.expect("read").is_empty());
    assert_eq!(ledger.bindings_to(&digest("side"), None, 10).await.expect("read").len(), 1);

    let (mut to, mut since) = (Vec::new(), Vec::new());
    loop {
        let page = ledger.bindings_to(&digest("web"), to.last(), 250).await.expect("read");
        if page.is_empty() {
            break;
        }
        to.extend(page);
    }
    let mut cursor = Since::time(at(0));
    loop {
        let page = ledger.bindings_since("east", &cursor, 250).await.expect("read");
        let Some(last) = page.last() else { break };
        cursor = Since::from(last);
        since.extend(page);
    }
    assert_eq!((to.len(), since.len()), (600, 601));
    let names: BTreeSet<_> = to.iter().map(|row| &row.pod_uid).collect();
    assert_eq!((names.len(), since.last().map(|row| &*row.container)), (600, Some("side")));
    assert_eq!(ledger.bindings_since("east", &Since::time(at(1001)), 9).await.expect("read").len(), 1);
}

pub(crate) async fn bindings_of_pods_that_are_gone_are_removed(url: &str) {
    let ledger = open(url).await;
    let records: Vec<Record> = (0..1200).map(|n| binding(&format!("p{n:04}"), n).into()).collect();
    ledger.write(&records, at(5000)).await.expect("written");
    ledger.write(&[Binding { cluster: "west".into(), ..binding("p0001", 0) }.into()], at(5000)).await.expect("written");

    assert_eq!(ledger.remove_pods("east", &["p0000".into(), "p0001".into(), "none".into()]).await.expect("removed"), 2);
    let running: BTreeSet<String> = (0..1200).step_by(2).map(|n| format!("p{n:04}")).collect();
    // Those admitted since may be on their way.
    assert_eq!(ledger.keep_pods("east", &running, at(1100)).await.expect("removed"), 549);
    assert_eq!(ledger.size().await.expect("measured").rows["bindings"], 599 + 50 + 1);
}

pub(crate) async fn decisions_are_found_and_paged(url: &str) {
    let ledger = open(url).await;
    let mut all = Vec::new();
    for n in 0..25 {
        let verdict = if n % 5 == 0 { Verdict::Deny } else { Verdict::Allow };
        all.push(decision(if n % 2 == 0 { "even" } else { "odd" }, if n < 10 { "shop" } else { "bank" }, verdict, n));
    }
    let records: Vec<Record> = all.iter().cloned().map(Record::from).collect();
    // Twice: a decision is one.
    ledger.write(&records, at(100)).await.expect("written");
    ledger.write(&records, at(101)).await.expect("written");

    assert_eq!(ledger.decision(all[3].id).await.expect("read").as_ref(), Some(&all[3]));
    assert_eq!(ledger.decision(Uuid::now_v7()).await.expect("read"), None);

    let count = async |query: DecisionQuery| ledger.decisions(&query).await.expect("read").len();
    let any = DecisionQuery { limit: 100, ..DecisionQuery::default() };
    assert_eq!(count(any.clone()).await, 25);
    assert_eq!(count(DecisionQuery { digest: Some(digest("odd")), ..any.clone() }).await, 12);
    assert_eq!(count(DecisionQuery { namespace: Some("shop".into()), ..any.clone() }).await, 10);
    assert_eq!(count(DecisionQuery { cluster: Some("west".into()), ..any.clone() }).await, 0);
    assert_eq!(count(DecisionQuery { verdict: Some(Verdict::Deny), ..any.clone() }).await, 5);
    assert_eq!(count(DecisionQuery { since: Some(at(5)), until: Some(at(9)), ..any.clone() }).await, 4);
    let both = DecisionQuery { verdict: Some(Verdict::Deny), namespace: Some("shop".into()), ..any.clone() };
    assert_eq!(count(both).await, 2);

    let mut paged = Vec::new();
    loop {
        let before = paged.last().map(|row: &lineage::DecisionRow| row.id);
        let page = ledger.decisions(&DecisionQuery { before, limit: 7, ..any.clone() }).await.expect("read");
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    let expected: Vec<_> = all.iter().rev().map(|decision| decision.id).collect();
    assert_eq!(paged.iter().map(|row| row.id).collect::<Vec<_>>(), expected);
    assert_eq!((&paged[0].images, &paged[0].user), (&all[24].images, &all[24].user));
}

pub(crate) async fn what_was_unknown_is_settled_once(url: &str) {
    let ledger = open(url).await;
    let unknown = Decision { has_unknowns: true, ..decision("web", "shop", Verdict::Allow, 1) };
    let records = [unknown.clone().into(), decision("web", "shop", Verdict::Allow, 2).into()];
    ledger.write(&records, at(1)).await.expect("written");
    let query = DecisionQuery { has_unknowns: true, limit: 9, ..DecisionQuery::default() };
    let open: Vec<_> = ledger.decisions(&query).await.expect("read").into_iter().map(|row| row.id).collect();
    assert_eq!(open, [unknown.id]);
    assert!(ledger.settle(unknown.id).await.expect("settled"));
    assert!(!ledger.settle(unknown.id).await.expect("settled"), "by one");
    // Written again, as a spool may: it stays settled.
    ledger.write(&records, at(1)).await.expect("written");
    assert!(ledger.decisions(&query).await.expect("read").is_empty());
}

pub(crate) async fn dry_runs_leave_no_trace(url: &str) {
    let ledger = open(url).await;
    let dry = Decision { is_dry_run: true, ..decision("web", "shop", Verdict::Deny, 1) };
    ledger.write(&[dry.into()], at(1)).await.expect("written");
    let size = ledger.size().await.expect("measured");
    assert!(size.rows.values().all(|rows| *rows == 0) && size.bytes > 0, "{size:?}");
}

pub(crate) async fn hostile_texts_are_kept_within_bounds(url: &str) {
    let ledger = open(url).await;
    let hostile = Binding { image: format!("a\0b{}", "é".repeat(5000)), pod: "p\0".into(), ..binding("p'; --", 1) };
    let user =
        Decision { user: "\0".repeat(5000), name: "n\u{202e}".into(), ..decision("\0", "shop", Verdict::Deny, 1) };
    ledger.write(&[hostile.into(), user.clone().into()], at(1)).await.expect("written");
    let row = &ledger.bindings_of_pod("east", "p'; --").await.expect("read")[0];
    assert!(row.image.starts_with("a\u{fffd}bé") && row.image.len() <= 1024 && row.pod == "p\u{fffd}");
    let read = ledger.decision(user.id).await.expect("read").expect("a decision");
    assert!(read.user.len() <= 1024 && read.images[0].reference == "\0" && read.name == "n\u{202e}");
}

pub(crate) async fn urgent_work_is_first(url: &str) {
    let ledger = open(url).await;
    let put =
        async |image: &str, priority, second| ledger.enqueue(&work(image, priority), at(second)).await.expect("put in");
    assert_eq!(put("a", Priority::Background, 1).await, Enqueued::New);
    assert_eq!(put("b", Priority::Template, 2).await, Enqueued::New);
    assert_eq!(put("c", Priority::Template, 3).await, Enqueued::New);
    assert_eq!(put("d", Priority::Background, 4).await, Enqueued::New);
    assert_eq!(put("d", Priority::Pod, 5).await, Enqueued::Present);
    assert_eq!(put("d", Priority::Background, 6).await, Enqueued::Present);
    let mut order = Vec::new();
    while let Some(lease) = ledger.lease("w", Duration::from_secs(60), at(10)).await.expect("taken") {
        assert!(ledger.finish(&lease, at(12)).await.expect("done"));
        assert!(!ledger.finish(&lease, at(12)).await.expect("done"), "once");
        order.push((lease.work.image, lease.work.priority));
    }
    let expected =
        [("d", Priority::Pod), ("b", Priority::Template), ("c", Priority::Template), ("a", Priority::Background)];
    assert_eq!(order, expected.map(|(image, priority)| (image.to_owned(), priority)));
    // What was done may be asked for again.
    assert_eq!(put("a", Priority::Pod, 20).await, Enqueued::New);
    let lease = ledger.lease("w", Duration::from_secs(60), at(21)).await.expect("taken").expect("work");
    assert_eq!((lease.attempts, lease.work), (1, work("a", Priority::Pod)));
}

pub(crate) async fn a_lease_that_expires_is_given_to_another(url: &str) {
    let ledger = open(url).await;
    ledger.enqueue(&work("a", Priority::Pod), at(0)).await.expect("put in");
    let hold = Duration::from_secs(60);
    let mut first = ledger.lease("one", hold, at(0)).await.expect("taken").expect("work");
    assert_eq!(ledger.lease("two", hold, at(59)).await.expect("taken"), None);
    assert!(ledger.renew(&mut first, hold, at(50)).await.expect("held"));
    assert_eq!((first.until, ledger.lease("two", hold, at(61)).await.expect("taken")), (at(110), None));

    let second = ledger.lease("two", hold, at(111)).await.expect("taken").expect("work");
    assert_eq!((second.attempts, &second.work), (2, &first.work));
    assert!(!ledger.renew(&mut first, hold, at(112)).await.expect("held"));
    assert!(!ledger.finish(&first, at(112)).await.expect("done"), "it is not the first's any more");
    assert!(!ledger.fail(&first, "late", None, at(112)).await.expect("done"));
    assert!(ledger.finish(&second, at(113)).await.expect("done"));
}

pub(crate) async fn work_that_never_ends_is_given_up(url: &str) {
    let ledger = open(url).await;
    ledger.enqueue(&work("bomb", Priority::Pod), at(0)).await.expect("put in");
    let hold = Duration::from_secs(10);
    for attempt in 1..=MAX_ATTEMPTS {
        let lease = ledger.lease("w", hold, at(i64::from(attempt) * 100)).await.expect("taken").expect("work");
        assert_eq!(lease.attempts, attempt);
    }
    assert_eq!(ledger.lease("w", hold, at(10_000)).await.expect("taken"), None);
    let place = ledger.place("bomb", "linux/amd64", at(10_000)).await.expect("read");
    assert!(matches!(place, Some(Place::Failed { reason }) if reason.contains("no worker")));
}

pub(crate) async fn failed_work_rests(url: &str) {
    let ledger = open(url).await;
    let (hold, a) = (Duration::from_secs(60), work("a", Priority::Pod));
    ledger.enqueue(&a, at(0)).await.expect("put in");
    let lease = ledger.lease("w", hold, at(1)).await.expect("taken").expect("work");
    assert!(ledger.fail(&lease, "429 from the registry", Some(at(30)), at(2)).await.expect("ended"));
    assert_eq!(ledger.lease("w", hold, at(29)).await.expect("taken"), None);
    let place = ledger.place("a", "linux/amd64", at(20)).await.expect("read");
    let Some(Place::Waiting { position: 0, estimate, reason: Some(reason) }) = place else { panic!("{place:?}") };
    assert!(estimate >= Duration::from_secs(10) && reason == "429 from the registry");

    let lease = ledger.lease("w", hold, at(30)).await.expect("taken").expect("work");
    assert!(ledger.fail(&lease, "not an image", None, at(31)).await.expect("ended"));
    let again_at = at(31 + 3600);
    let refused = Enqueued::Failed { reason: "not an image".into(), again_at };
    assert_eq!(ledger.enqueue(&a, at(40)).await.expect("put in"), refused);
    assert_eq!(ledger.enqueue(&a, again_at).await.expect("put in"), Enqueued::New);
}

pub(crate) async fn a_full_queue_takes_what_is_more_urgent(url: &str) {
    let ledger = open(url).await;
    raw(
        url,
        &format!(
            "INSERT INTO work (image, platform, priority, credentials, state, attempts, version, lease_until, ready_at,
             enqueued_at, started_at, finished_at, reason)
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MAX_WAITING})
             SELECT 'i' || i, 'p', CASE WHEN i = 7 THEN 0 ELSE 1 END, '[]', 'waiting', 0, 0, 0, 0, i, 0, 0, '' FROM n"
        ),
    )
    .await;
    assert_eq!(ledger.enqueue(&work("x", Priority::Background), at(0)).await.expect("put in"), Enqueued::Full);
    assert_eq!(ledger.enqueue(&work("y", Priority::Template), at(0)).await.expect("put in"), Enqueued::New);
    assert_eq!(ledger.place("i7", "p", at(0)).await.expect("read"), None, "the least urgent gave way");
    assert_eq!(ledger.enqueue(&work("z", Priority::Template), at(0)).await.expect("put in"), Enqueued::Full);
    assert_eq!(ledger.enqueue(&work("z", Priority::Pod), at(0)).await.expect("put in"), Enqueued::New);
    let newest = format!("i{MAX_WAITING}");
    assert_eq!(ledger.size().await.expect("measured").rows["work"], u64::try_from(MAX_WAITING).expect("positive"));
    assert!(ledger.place("y", "linux/amd64", at(0)).await.expect("read").is_none(), "{newest} is older than y");
}

pub(crate) async fn places_in_the_queue_are_told(url: &str) {
    let ledger = open(url).await;
    let hold = Duration::from_secs(60);
    for (n, image) in ["done", "leased", "one", "two"].iter().enumerate() {
        let second = i64::try_from(n).expect("small");
        ledger.enqueue(&work(image, Priority::Pod), at(second)).await.expect("put in");
    }
    let place = async |image: &str, second| ledger.place(image, "linux/amd64", at(second)).await.expect("read");
    let lease = ledger.lease("w1", hold, at(10)).await.expect("taken").expect("work");
    ledger.finish(&lease, at(14)).await.expect("done");
    ledger.lease("w1", hold, at(20)).await.expect("taken").expect("work");
    assert_eq!(place("done", 21).await, Some(Place::Done { at: at(14) }));
    assert_eq!(place("leased", 21).await, Some(Place::Leased { estimate: Duration::from_secs(3) }));
    let waiting = |position, seconds| Place::Waiting { position, estimate: Duration::from_secs(seconds), reason: None };
    assert_eq!(place("one", 21).await, Some(waiting(1, 8)));
    assert_eq!(place("two", 21).await, Some(waiting(2, 12)));
    assert_eq!(place("never", 21).await, None);
}

pub(crate) async fn what_exceeds_its_limits_is_removed(url: &str) {
    let ledger = open(url).await;
    let day = 86_400;
    let (dna, json) = dna("one");
    let name = ledger.put_dna(&dna, json, at(0)).await.expect("kept");
    let link = SubjectDna {
        subject: digest("s"),
        rules: digest("r"),
        origin: Origin::Analyzed,
        repository: "r.example/a".into(),
        dna: name.clone(),
        at: at(0),
    };
    ledger.link_dna(&link).await.expect("linked");
    for n in 0..10 {
        let fact = SealedFact { sealed: vec![1], mac: vec![2], fetched_at: at(n * day) };
        ledger.put_fact("k", &n.to_string(), &fact).await.expect("kept");
        let records =
            [binding(&format!("p{n}"), n * day).into(), decision("web", "shop", Verdict::Allow, n * day).into()];
        ledger.write(&records, at(n * day)).await.expect("written");
    }
    let all = Keep { age: None, rows: 1000 };
    let keep = Retention {
        subjects: all,
        facts: all,
        bindings: all,
        decisions: all,
        work: all,
        alerts: all,
        suppressions: all,
        blind: all,
        notices: all,
        images: all,
        overlays: all,
        used: all,
    };
    assert!(ledger.prune(&keep, at(10 * day)).await.expect("pruned").is_empty());

    let five_days = Keep { age: Some(Duration::from_secs(5 * 86_400)), rows: 1000 };
    let two_rows = Keep { age: None, rows: 2 };
    let removed =
        ledger.prune(&Retention { facts: five_days, decisions: two_rows, ..keep.clone() }, at(10 * day)).await;
    let removed = removed.expect("pruned");
    assert_eq!((removed["facts"], removed["decisions"], removed["images"], removed.len()), (6, 8, 8, 3));

    // What nothing refers to goes after a day.
    let none = Keep { age: Some(Duration::ZERO), rows: 0 };
    let removed = ledger.prune(&Retention { subjects: none, bindings: none, ..keep.clone() }, at(10 * day)).await;
    let removed = removed.expect("pruned");
    assert_eq!((removed["dna"], removed["bindings"], removed.get("expectations")), (1, 10, Some(&1)));
    let rows = ledger.size().await.expect("measured").rows;
    assert_eq!((rows["dna"], rows["expectations"], rows["facts"], rows["decision_images"]), (0, 0, 4, 2));
}

pub(crate) async fn several_open_one_ledger_at_once(url: &str) {
    let opening: Vec<_> = (0..6)
        .map(|_| {
            let url = url.to_owned();
            tokio::spawn(async move { Ledger::open(&url).await })
        })
        .collect();
    for opened in opening {
        let ledger = opened.await.expect("no panic").expect("opened");
        ledger.ping().await.expect("it answers");
        ledger.close().await;
    }
}

pub(crate) async fn several_write_and_lease_at_once(url: &str) {
    let ledgers = [open(url).await, open(url).await];
    for n in 0..40 {
        ledgers[0].enqueue(&work(&format!("i{n}"), Priority::Pod), at(n)).await.expect("put in");
    }
    let records: Vec<Record> = (0..120).map(|n| binding(&format!("p{n}"), n).into()).collect();
    let mut tasks = Vec::new();
    for (n, ledger) in ledgers.iter().cycle().take(6).enumerate() {
        let (ledger, mut records) = (ledger.clone(), records.clone());
        // In another order: rows locked in a circle would end in a deadlock.
        records.rotate_left(n * 20);
        tasks.push(tokio::spawn(async move {
            for _ in 0..3 {
                for records in records.chunks(30) {
                    ledger.write(records, at(500)).await.expect("written");
                }
            }
            let mut leased = Vec::new();
            while let Some(lease) =
                ledger.lease(&format!("w{n}"), Duration::from_secs(60), at(600)).await.expect("taken")
            {
                leased.push(lease.work.image);
            }
            leased
        }));
    }
    let mut leased = Vec::new();
    for task in tasks {
        leased.extend(task.await.expect("no panic"));
    }
    assert_eq!((leased.len(), leased.iter().collect::<BTreeSet<_>>().len()), (40, 40), "each piece once");
    assert_eq!(ledgers[1].size().await.expect("measured").rows["bindings"], 120);
}

/// The migrations of this version but the last `without`, as a program before it would have made the tables.
async fn migrate(url: &str, without: usize) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../lineage/migrations");
    let all = Migrator::new(folder).await.expect("migrations");
    let count = all.iter().count();
    let some = Migrator::with_migrations(all.iter().take(count - without).cloned().collect());
    if let Some(path) = url.strip_prefix("sqlite:") {
        let folder = std::path::Path::new(path).parent().expect("a folder");
        std::fs::create_dir_all(folder).expect("a folder");
        let mut connection = SqliteConnection::connect(&format!("{url}?mode=rwc")).await.expect("connected");
        some.run_direct(None, &mut connection, false).await.expect("migrated");
        connection.close().await.expect("closed");
    } else {
        let mut connection = PgConnection::connect(url).await.expect("connected");
        some.run_direct(None, &mut connection, false).await.expect("migrated");
    }
}

pub(crate) async fn a_ledger_of_the_schema_before_is_brought_on(url: &str) {
    migrate(url, 1).await;
    raw(url, "INSERT INTO facts (kind, key, sealed, mac, fetched_at) VALUES ('k', 'x', 'ab', 'cd', 7)").await;
    let ledger = open(url).await;
    let fact = ledger.fact("k", "x").await.expect("read").expect("what was there is there");
    assert_eq!((fact.sealed, fact.mac), (b"ab".to_vec(), b"cd".to_vec()));
    assert_eq!(ledger.last_revision().await.expect("read"), 0, "what is new is there too");
}

pub(crate) async fn a_ledger_of_a_newer_schema_is_left_alone(url: &str) {
    open(url).await.close().await;
    raw(
        url,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', true, 'ab', 1)",
    )
    .await;
    let error = Ledger::open(url).await.expect_err("a refusal");
    assert!(matches!(error, Error::Newer { version: 9999, .. }), "{error}");
    assert!(error.to_string().contains("run the newer version"));
}

pub(crate) async fn a_recorder_writes_what_it_took(url: &str) {
    let ledger = open(url).await;
    let spool = tempfile::tempdir().expect("a folder");
    let recorder = Recorder::start(ledger.clone(), &RecorderOptions::new(spool.path())).expect("a recorder");
    for n in 0..500 {
        assert!(recorder.record(binding(&format!("p{n}"), n)));
        assert!(recorder.record(decision("web", "shop", Verdict::Allow, n)));
    }
    assert!(recorder.record(Decision { is_dry_run: true, ..decision("web", "shop", Verdict::Allow, 1) }));
    let counts = recorder.shutdown(Duration::from_secs(30)).await;
    assert_eq!((counts.accepted, counts.written, counts.lost(), counts.spool_bytes), (1000, 1000, 0, 0), "{counts:?}");
    assert!(!recorder.record(binding("late", 0)), "it takes no more, and says so");
    let rows = ledger.size().await.expect("measured").rows;
    assert_eq!((rows["bindings"], rows["decisions"], rows["expectations"]), (500, 500, 1));
    assert_eq!(std::fs::read_dir(spool.path()).expect("a folder").count(), 1, "only the lock is left");
}

pub(crate) async fn images_are_found_by_all_their_digests(url: &str) {
    let ledger = open(url).await;
    let image = |name: &str, platform: &str, second| Image {
        digest: digest(name),
        repository: "registry.example/web".into(),
        platform: platform.into(),
        index: Some(digest("index")),
        config: Some(digest(&format!("{name}-config"))),
        facts: Some(Document::pack(name.as_bytes()).expect("packed")),
        at: at(second),
    };
    let write = async |images: &[Image]| {
        let records: Vec<Record> = images.iter().cloned().map(Record::from).collect();
        ledger.write(&records, at(50)).await.expect("written");
    };
    let named = async |name: &str| ledger.images_named(digest(name).as_str()).await.expect("read");
    let before = Image { index: None, ..image("old", "linux/amd64", 5) };
    write(&[before.clone(), image("web", "linux/amd64", 20), image("web-arm", "linux/arm64", 20)]).await;
    write(&[Image { index: None, ..image("newer", "linux/amd64", 30) }]).await;
    // Seen again, by who did not look for who vouches for it.
    write(&[Image { index: None, config: None, facts: None, ..image("web", "linux/amd64", 40) }]).await;
    for name in ["web", "web-config"] {
        let rows = named(name).await;
        assert_eq!(rows.len(), 1, "{name}");
        assert_eq!((&rows[0].digest, &rows[0].config), (&digest("web"), &Some(digest("web-config"))));
        assert_eq!((rows[0].first_at, rows[0].last_at), (at(20), at(40)));
        assert_eq!(rows[0].facts.as_ref().map(|facts| facts.unpack().expect("whole")), Some(b"web".to_vec()));
    }
    let of_index: BTreeSet<Digest> = named("index").await.into_iter().map(|row| row.digest).collect();
    assert_eq!(of_index, [digest("web"), digest("web-arm")].into());
    assert!(named("nothing").await.is_empty());
    assert_eq!(ledger.indexes_of(&digest("web")).await.expect("read"), [digest("index")]);
    let last = ledger.image_before(&named("newer").await[0]).await.expect("read").expect("one");
    assert_eq!(last.digest, digest("web"), "the last that was new, of this platform");
    let none = ledger.image_before(&named("old").await[0]).await.expect("read");
    assert_eq!(none, None);
    let keep = Retention { images: Keep { age: Some(Duration::from_secs(65)), rows: 10 }, ..Retention::default() };
    let removed = ledger.prune(&keep, at(100)).await.expect("pruned");
    assert_eq!((removed.get("known_images"), removed.get("index_images")), (Some(&3), Some(&1)), "{removed:?}");
    assert_eq!(named("index").await.len(), 1);
}
