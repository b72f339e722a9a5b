//! A ledger as the webhook fills it, and what the bridge makes of it: which image runs, and why an alert is one.

use dna::{Act, Activity, Commit, Outcome, Process, SeenContainer, Vouched};
use jiff::Timestamp;
use lineage::{AlertQuery, Binding, Document, Image as Seen, Origin, Record, SubjectDna};
use serde_json::{Value, json};

use super::*;
use crate::{
    Class, Deviation, Wanted, bound::Bound, compare::tests::dna, desk::Desk, identity::Container, known::Known,
    shelf::Shelf, sinks::Sinks, stored,
};

const REPOSITORY: &str = "registry.example/shop/web";

fn digest(of: &str) -> Digest {
    Digest::sha256(of.as_bytes())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

/// The image before: without `cat`, of an older server that opens another port.
fn before() -> Dna {
    let mut document = serde_json::to_value(dna()).expect("JSON");
    document["programs"].as_array_mut().expect("programs").retain(|program| program["path"] != "/usr/bin/cat");
    for program in document["programs"].as_array_mut().expect("programs") {
        if program["path"] == "/usr/sbin/served" {
            program["sha256"] = digest("older").to_string().into();
            program["package"] = "pkg:deb/debian/served@0?arch=amd64".into();
        }
    }
    document["behavior"]["listen"][0]["port"] = 8080.into();
    serde_json::from_value(document).expect("a DNA")
}

fn now() -> Dna {
    let mut document: Value = serde_json::to_value(dna()).expect("JSON");
    document["layers"][0] = json!({"diff_id": digest("layer"), "created_by": "RUN install served coreutils"});
    serde_json::from_value(document).expect("a DNA")
}

fn image(name: &str, second: i64, vouched: Option<&Vouched>) -> Seen {
    Seen {
        digest: digest(name),
        repository: REPOSITORY.to_owned(),
        platform: "linux/amd64".to_owned(),
        index: Some(digest(&format!("{name}-index"))),
        config: Some(digest(&format!("{name}-config"))),
        facts: vouched.map(|vouched| Document::pack(&serde_json::to_vec(vouched).expect("JSON")).expect("packed")),
        at: at(second),
    }
}

fn binding(pod_uid: &str, digest: Option<Digest>) -> Record {
    Binding {
        cluster: "one".to_owned(),
        pod_uid: pod_uid.to_owned(),
        container: "app".to_owned(),
        platform: "linux/amd64".to_owned(),
        namespace: "shop".to_owned(),
        pod: "web-1".to_owned(),
        owner: None,
        image: format!("{REPOSITORY}:1"),
        digest,
        expectation: None,
        decision: None,
        at: at(0),
    }
    .into()
}

/// A ledger that knows two images of one repository, and a pod that was admitted with the later.
async fn ledger() -> (Ledger, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(&format!("sqlite:{}", folder.path().join("l.db").display())).await.expect("a ledger");
    for (name, dna) in [("older", before()), ("web", now())] {
        let named = ledger.put_dna(&dna, dna.to_canonical_json().expect("JSON"), at(0)).await.expect("kept");
        let link = SubjectDna {
            subject: digest(name),
            rules: dna.analyzer.rules.clone(),
            origin: Origin::Analyzed,
            repository: REPOSITORY.to_owned(),
            dna: named,
            at: at(0),
        };
        ledger.link_dna(&link).await.expect("linked");
    }
    let commit = Commit {
        source: "git+https://git.example/shop/web".to_owned(),
        commit: "9b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f7a8b9c".to_owned(),
        builder: "https://ci.example/builder".to_owned(),
        signer: "ci".to_owned(),
    };
    let vouched = Vouched { commits: vec![commit], ..Vouched::default() };
    let records = [
        image("older", 10, None).into(),
        image("web", 20, Some(&vouched)).into(),
        image("evil", 30, None).into(),
        binding("u1", Some(digest("web"))),
        binding("u2", None),
    ];
    ledger.write(&records, at(40)).await.expect("written");
    (ledger, folder)
}

fn container(pod_uid: &str, digest: &str) -> Arc<Container> {
    let place = Place {
        cluster: "one".to_owned(),
        namespace: "shop".to_owned(),
        owner: "Deployment/web".to_owned(),
        container: "app".to_owned(),
        image: format!("{REPOSITORY}:1"),
        digest: digest.to_owned(),
    };
    Arc::new(Container {
        place,
        pod: "web-1".to_owned(),
        pod_uid: pod_uid.to_owned(),
        id: String::new(),
        started: None,
    })
}

fn activity(exe: &str) -> Activity {
    Activity {
        at: at(100),
        sensor: "falco".to_owned(),
        node: None,
        container: SeenContainer::default(),
        process: Process { exe: Some(exe.to_owned()), ..Process::default() },
        ancestors: Vec::new(),
        act: Act::Exec { file: None },
        outcome: Outcome::default(),
        rule: None,
    }
}

fn found(container: &Arc<Container>, class: Class, subject: &str, exe: &str) -> Found {
    let deviation = Deviation {
        class,
        subject: subject.to_owned(),
        message: "a test".to_owned(),
        after: None,
        layer: Some(0),
        package: None,
        risk: 0.8,
        drivers: Vec::new(),
        technique: "T1059".to_owned(),
        blocked: false,
    };
    let container = Arc::clone(container);
    Found {
        container,
        deviation,
        activity: activity(exe).into(),
        before: vec![activity("/usr/sbin/served").into()],
        user: None,
    }
}

fn shelf(ledger: &Ledger) -> Shelf {
    Shelf::new(ledger.clone(), dna::RuntimeFacts::default()).expect("a shelf")
}

#[tokio::test]
async fn which_image_runs_is_known_by_any_of_its_digests() {
    let (ledger, _folder) = ledger().await;
    let shelf = shelf(&ledger);
    let of = async |pod: &str, digest: &str| shelf.image(&container(pod, digest)).await.expect("an answer");
    for name in ["web", "web-index", "web-config"] {
        let found = of("u1", digest(name).as_str()).await;
        assert_eq!((found.bound, found.image), (Bound::Same, Some(digest("web"))), "{name}");
        let unbound = of("u9", digest(name).as_str()).await;
        assert_eq!((unbound.bound, unbound.image), (Bound::Unbound, Some(digest("web"))), "{name}");
    }
    for name in ["evil", "evil-index", "evil-config", "older"] {
        let found = of("u1", digest(name).as_str()).await;
        assert!(matches!(found.bound, Bound::Other { .. }), "{name}: {:?}", found.bound);
        assert_eq!(found.image, Some(digest("web")), "it is held to what was admitted");
    }
    for (pod, running) in
        [("u1", digest("never-seen").to_string()), ("u1", String::new()), ("u2", digest("evil").to_string())]
    {
        let found = of(pod, &running).await;
        assert!(matches!(found.bound, Bound::Unknown(_)), "{pod} {running}: {:?}", found.bound);
    }
    // What a container is held to is found by any name.
    for name in ["web", "web-index", "web-config"] {
        let (container, imaged) = (container("u9", digest(name).as_str()), of("u9", digest(name).as_str()).await);
        let shelved =
            shelf.find(&container, &imaged, None, Wanted::default()).await.expect("an answer").expect("a DNA");
        assert_eq!(shelved.dna, now().digest().expect("a digest"));
    }
}

#[tokio::test]
async fn a_dna_is_kept_for_rules_that_read_it_and_only_then() {
    let (ledger, _folder) = ledger().await;
    let shelf = shelf(&ledger);
    let web = container("u9", digest("web").as_str());
    let imaged = shelf.image(&web).await.expect("an answer");
    let find = async |wanted| shelf.find(&web, &imaged, None, wanted).await.expect("an answer").expect("a DNA");
    let before = find(Wanted::default()).await;
    assert_eq!(before.expected.dna(), None);
    let mut known = Known::default();
    known.put(&web, imaged.clone(), Some(&before), tokio::time::Instant::now());
    // A rule that reads it comes later: what the container is compared with is the same, with the DNA.
    let wanted = Wanted { dna: true, expectation: true };
    assert_eq!((known.lacking(Wanted::default()).len(), known.lacking(wanted).len()), (0, 1));
    let after = find(wanted).await;
    assert!(Arc::ptr_eq(&before.expected, &after.expected));
    assert_eq!(before.expected.dna().expect("kept").behavior, now().behavior);
    assert_eq!(known.lacking(wanted).len(), 0);
}

#[tokio::test]
async fn another_image_is_told_once_for_each_pod_also_after_a_start() {
    let (ledger, _folder) = ledger().await;
    let shelf = shelf(&ledger);
    for _ in 0..2 {
        let mut desk = Desk::new(ledger.clone(), "b".to_owned(), Sinks::default());
        let mut known = Known::default();
        let evil = container("u1", digest("evil-index").as_str());
        let imaged = shelf.image(&evil).await.expect("an answer");
        let deviation = imaged.bound.deviation().expect("another image");
        assert!(known.put(&evil, imaged.clone(), None, tokio::time::Instant::now()));
        assert!(!known.put(&evil, imaged, None, tokio::time::Instant::now()), "it is news once");
        let mut found = found(&evil, deviation.class, &deviation.subject, "/usr/sbin/served");
        found.deviation = deviation;
        Arc::make_mut(&mut found.container).place = known.place(&evil);
        let context = known.context(&found);
        desk.found(found, context);
        desk.write(1, Vec::new(), at(200)).await.expect("written");
    }
    let asked = AlertQuery { digest: Some(digest("web").to_string()), limit: 9, ..AlertQuery::default() };
    let heads = ledger.alerts(&asked, at(300)).await.expect("read");
    let [head] = heads.as_slice() else { panic!("one alert: {heads:?}") };
    assert_eq!((head.class.as_str(), head.count), ("binding-mismatch", 1));
    assert_eq!(head.subject, digest("evil-index").to_string());
}

#[tokio::test]
async fn an_alert_says_what_it_rests_on_and_what_changed() {
    let (ledger, _folder) = ledger().await;
    let shelf = shelf(&ledger);
    let mut desk = Desk::new(ledger.clone(), "b".to_owned(), Sinks::default());
    let mut known = Known::default();
    let web = container("u1", digest("web-index").as_str());
    let imaged = shelf.image(&web).await.expect("an answer");
    let shelved = shelf.find(&web, &imaged, None, Wanted::default()).await.expect("an answer").expect("a DNA");
    known.put(&web, imaged, Some(&shelved), tokio::time::Instant::now());
    for (class, subject, exe) in [
        (Class::ProgramNotReachable, "/usr/bin/cat", "/bin/cat"),
        (Class::Listen, "tcp/4444", "/usr/sbin/served"),
        (Class::ProgramNotInImage, "/tmp/x", "/tmp/x"),
    ] {
        let mut found = found(&web, class, subject, exe);
        Arc::make_mut(&mut found.container).place = known.place(&web);
        let context = known.context(&found);
        desk.found(found, context);
    }
    desk.write(1, Vec::new(), at(200)).await.expect("written");
    // The image and its DNA are gone from the ledger; the alerts keep what they say.
    let gone = lineage::Keep { age: None, rows: 0 };
    let keep = lineage::Retention { subjects: gone, images: gone, bindings: gone, ..lineage::Retention::default() };
    ledger.prune(&keep, at(10_000_000)).await.expect("pruned");
    let asked = AlertQuery { digest: Some(digest("web").to_string()), limit: 9, ..AlertQuery::default() };
    let ids = ledger.alerts(&asked, at(300)).await.expect("read").into_iter().map(|head| head.id).collect();
    let alerts = ledger.alerts_by_id(&ids, at(300)).await.expect("read");
    let of = |class: Class| {
        let alerts = alerts.iter().map(|row| stored::alert(row).expect("an alert"));
        alerts.into_iter().find(|alert| alert.class == class).expect("it is there")
    };
    let cat = of(Class::ProgramNotReachable);
    assert_eq!(cat.samples.first().map(|sample| sample.before.len()), Some(1), "what went before is frozen with it");
    assert_eq!(cat.cause.and_then(|cause| cause.step).as_deref(), Some("RUN install served coreutils"));
    let grounds = cat.grounds.expect("grounds");
    assert_eq!(grounds.dna, Some(now().digest().expect("a digest")));
    let item = grounds.item.expect("an item");
    assert_eq!((item.of.as_str(), item.is_there), ("exec", false));
    assert!(item.others.contains(&"/usr/sbin/served".to_owned()), "{item:?}");
    let file = grounds.file.expect("a file");
    assert_eq!((file.path.as_str(), file.diff_id), ("/usr/bin/cat", Some(digest("layer"))));
    assert_eq!(file.package.as_deref(), Some("pkg:deb/debian/coreutils@1?arch=amd64"));
    assert_eq!(grounds.commits.first().map(|commit| commit.source.as_str()), Some("git+https://git.example/shop/web"));
    let changed = grounds.changed.expect("an image before");
    assert_eq!((changed.before, changed.before_at, changed.at), (digest("older"), at(10), at(20)));
    let told: Vec<String> = changed.bearing.iter().map(grounds::told).collect();
    assert_eq!(told, ["program /usr/bin/cat is new", "package pkg:deb/debian/coreutils is new"]);

    let listen = of(Class::Listen).grounds.expect("grounds");
    assert_eq!(listen.item.map(|item| item.others), Some(vec!["tcp/80".to_owned()]));
    let told: Vec<String> = listen.changed.expect("changed").bearing.iter().map(grounds::told).collect();
    let wanted = [
        "program /usr/sbin/served is another",
        "package pkg:deb/debian/served was 0, 1, is 1",
        "listen tcp/80 is new",
        "listen tcp/8080 is gone",
    ];
    assert_eq!(told, wanted);
    let written = of(Class::ProgramNotInImage).grounds.expect("grounds");
    assert_eq!((written.item.map(|item| item.is_there), written.file), (Some(false), None));
}
