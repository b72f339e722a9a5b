//! What the API server is owed, whatever it sends and whatever the registry does: a list of scenarios.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dna::{Digest, Dna, Limits, RuntimeFacts};
use jiff::Timestamp;
use lineage::{Ledger, Seal};
use serde_json::{Value, json};
use webhook::{
    cluster::{Cluster, Permissions},
    gather::{self, Analyzer, Gatherer},
    rulebook::{Beside, Rulebook},
    service::{Service, Settings},
};

/// A service with these rules, which reaches registries by plain HTTP.
fn service(rules: &str) -> Service {
    service_with(rules, None, None)
}

/// The same, with a ledger and the key of what is sealed in it.
fn service_with(rules: &str, ledger: Option<Ledger>, seal: Option<Seal>) -> Service {
    let limits = Limits::default();
    let registry = oci::registry::Settings { plain_http: true, retries: 0, ..oci::registry::Settings::default() };
    let settings = gather::Settings {
        registry,
        runtime: RuntimeFacts::default(),
        limits: limits.clone(),
        memory_bytes: 32 << 20,
        seal,
    };
    let analyzer = Arc::new(Analyzer::new(limits, None, 64 << 20).expect("an analyzer"));
    let gatherer = Arc::new(Gatherer::new(settings, analyzer, ledger));
    let cluster = Cluster::new(None, Permissions { secrets: false, config_maps: false });
    let settings = Settings {
        cluster: "test".to_owned(),
        own_namespace: Some("mayfly-system".to_owned()),
        exempting_groups: BTreeSet::from(["system:masters".to_owned()]),
        inline_bytes: 64 << 20,
    };
    let service = Service::new(gatherer, cluster, None, None, settings);
    let rules = policies::load([("rules.yaml", rules)]).expect("rules");
    service.arm(Rulebook::new(rules, Vec::new(), &Beside::default(), Timestamp::now()));
    service
}

/// Needs what only the registry knows, and is enforced everywhere.
const STRICT: &str = "
apiVersion: mayfly.dev/v1alpha1
kind: ClusterImageRule
metadata: {name: strict}
spec:
  enforcement: Always
  templates: Enforce
  require: {dna: {}}
  validations:
    - {name: not-privileged, expression: '!container.?securityContext.?privileged.orValue(false)', reason: PRIVILEGED}
";

fn pod(image: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "pod-uid"},
        "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn review(operation: &str, object: &Value, old: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "n", "name": "p", "operation": operation, "userInfo": {"username": "alice", "groups": []},
        "object": object, "oldObject": old, "dryRun": false,
    }})
}

async fn answer(service: &Service, body: &Value, query: &str) -> Value {
    let deadline = webhook::review::deadline(Instant::now(), Some(query));
    let response = service.review(body.to_string().as_bytes(), deadline).await;
    serde_json::from_slice(&response.to_json()).expect("JSON")
}

/// A registry that takes connections and never answers.
fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        let mut open = Vec::new();
        for connection in listener.incoming() {
            open.push(connection);
        }
    });
    format!("127.0.0.1:{port}/app@sha256:{}", "0".repeat(64))
}

/// A registry that answers everything with this status line and headers.
fn answering(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut buffer = [0; 4096];
            let _ = connection.read(&mut buffer);
            let _ = connection
                .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes());
        }
    });
    format!("127.0.0.1:{port}/app@sha256:{}", "0".repeat(64))
}

/// A registry with one image, `app:1`, until it is told to be silent; and how often it was asked.
struct OneImage {
    address: String,
    digest: Digest,
    is_silent: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    /// Requests for its configuration.
    blobs: Arc<AtomicUsize>,
}

impl OneImage {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("127.0.0.1:{}", listener.local_addr().expect("an address").port());
        let config = json!({"os": "linux", "architecture": "amd64", "config": {"User": "1000"}, "rootfs": {"type": "layers", "diff_ids": []}});
        let config = config.to_string();
        let digest = Digest::sha256(config.as_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": config.len()}});
        let manifest = manifest.to_string();
        let named = Digest::sha256(manifest.as_bytes());
        let is_silent = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicUsize::new(0));
        let blobs = Arc::new(AtomicUsize::new(0));
        let (silent, count, read) = (Arc::clone(&is_silent), Arc::clone(&asked), Arc::clone(&blobs));
        thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let mut buffer = [0; 4096];
                let length = connection.read(&mut buffer).unwrap_or_default();
                let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
                count.fetch_add(1, Ordering::Relaxed);
                read.fetch_add(usize::from(request.contains("/blobs/")), Ordering::Relaxed);
                let (status, kind, body) = match () {
                    () if silent.load(Ordering::Relaxed) => ("503 Service Unavailable", "text/plain", ""),
                    () if request.contains("/manifests/") => ("200 OK", MANIFEST, manifest.as_str()),
                    () if request.contains("/blobs/") => ("200 OK", "application/octet-stream", config.as_str()),
                    () => ("404 Not Found", "text/plain", ""),
                };
                let named = Digest::sha256(body.as_bytes());
                let sent = if request.starts_with("HEAD") { "" } else { body };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ndocker-content-digest: {named}\r\nconnection: close\r\n\r\n{sent}",
                    body.len()
                );
                let _ = connection.write_all(head.as_bytes());
            }
        });
        Self { address, digest: named, is_silent, asked, blobs }
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn message(answer: &Value) -> &str {
    answer.pointer("/response/status/message").and_then(Value::as_str).unwrap_or_default()
}

#[tokio::test]
async fn every_answer_is_an_admission_review_with_the_uid() {
    let service = service(STRICT);
    let answer =
        answer(&service, &review("CREATE", &pod(&answering("404 Not Found")), &Value::Null), "timeout=10s").await;
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    assert_eq!(answer["response"]["allowed"], false);
    assert!(answer["response"]["auditAnnotations"]["decision"].is_string(), "{answer}");
    assert!(message(&answer).contains("IMG_NOT_FOUND"), "{answer}");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_answered() {
    let service = service(STRICT);
    for body in ["", "{", "[]", "null", r#"{"kind": "Pod"}"#] {
        let response = service.review(body.as_bytes(), webhook::review::deadline(Instant::now(), None)).await;
        assert!(!response.allowed, "{body}");
        assert_eq!(response.status.map(|status| status.code), Some(400), "{body}");
    }
    let mut shapeless = pod("x");
    shapeless["spec"]["containers"] = json!("none");
    let answer = answer(&service, &review("CREATE", &shapeless, &Value::Null), "timeout=10s").await;
    assert_eq!(answer["response"]["allowed"], false, "{answer}");
}

#[tokio::test]
async fn ends_are_never_held_up() {
    let service = service(STRICT);
    let image = silent();
    let mut ending = pod(&image);
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut status = review("UPDATE", &pod(&image), &pod(&image));
    status["request"]["subResource"] = json!("status");
    let mut own = review("CREATE", &pod(&image), &Value::Null);
    own["request"]["namespace"] = json!("mayfly-system");
    let free = [
        review("DELETE", &Value::Null, &pod(&image)),
        review("CONNECT", &Value::Null, &Value::Null),
        review("UPDATE", &ending, &pod(&image)),
        review("UPDATE", &pod(&image), &pod(&image)),
        status,
        own,
    ];
    for body in free {
        let started = Instant::now();
        let answer = answer(&service, &body, "timeout=10s").await;
        assert_eq!(answer["response"]["allowed"], true, "{body}");
        assert!(started.elapsed() < Duration::from_secs(1), "nothing is asked for it: {body}");
    }
}

#[tokio::test]
async fn an_unchanged_image_is_reviewed_where_a_field_that_a_rule_reads_changes() {
    let service = service(STRICT);
    let image = answering("404 Not Found");
    let mut privileged = pod(&image);
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    privileged["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "r", "controller": true}]);
    let answer = answer(&service, &review("UPDATE", &privileged, &pod(&image)), "timeout=10s").await;
    assert_eq!(answer["response"]["allowed"], false, "{answer}");
    assert!(message(&answer).contains("PRIVILEGED"), "{answer}");
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_answered_for_in_time_and_never_by_yes() {
    let service = service(STRICT);
    let started = Instant::now();
    let answer = answer(&service, &review("CREATE", &pod(&silent()), &Value::Null), "timeout=2s").await;
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(900) && waited < Duration::from_millis(1_600), "{waited:?}");
    assert_eq!(answer["response"]["allowed"], false);
    assert!(message(&answer).contains("DEADLINE"), "{answer}");
}

#[tokio::test]
async fn a_registry_s_refusals_are_told_apart() {
    for (status, code) in [
        ("404 Not Found", "IMG_NOT_FOUND"),
        ("429 Too Many Requests", "REGISTRY_THROTTLED"),
        ("401 Unauthorized", "REGISTRY_AUTH"),
        ("500 Internal Server Error", "REGISTRY"),
    ] {
        let service = service(STRICT);
        let answer = answer(&service, &review("CREATE", &pod(&answering(status)), &Value::Null), "timeout=3s").await;
        assert_eq!(answer["response"]["allowed"], false, "{status}");
        assert!(message(&answer).contains(code), "{status}: {}", message(&answer));
    }
}

#[tokio::test]
async fn a_rule_may_admit_what_nobody_can_say() {
    let lenient = format!("{STRICT}  onUnknown: {{deadline: Warn, registry: Warn}}\n");
    let service = service(&lenient);
    let answer = answer(&service, &review("CREATE", &pod(&silent()), &Value::Null), "timeout=2s").await;
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    let warnings = answer["response"]["warnings"].as_array().expect("a warning");
    assert!(!warnings.is_empty() && warnings.len() <= 10, "{answer}");
    assert!(
        warnings.iter().all(|warning| warning.as_str().is_some_and(|text| text.chars().count() <= 120)),
        "{answer}"
    );
    assert!(answer["response"]["auditAnnotations"]["unknown"].is_string(), "{answer}");
}

#[tokio::test]
async fn without_rules_nothing_is_asked_and_before_them_nothing_passes() {
    let service = service("");
    let body = review("CREATE", &pod(&silent()), &Value::Null);
    assert_eq!(answer(&service, &body, "timeout=2s").await["response"]["allowed"], true);
}

#[tokio::test]
async fn exempting_a_namespace_is_for_few() {
    let service = service("");
    let namespace =
        |labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": labels}});
    let body = |groups: Value, old: Value, new: Value| {
        let mut body = review("UPDATE", &namespace(new), &namespace(old));
        body["request"]["kind"] = json!({"group": "", "version": "v1", "kind": "Namespace"});
        body["request"]["userInfo"]["groups"] = groups;
        body
    };
    let enforced = json!({"mayfly.dev/enforce": "true"});
    for (groups, old, new, allowed) in [
        (json!([]), json!({}), json!({"mayfly.dev/exempt": "true"}), false),
        (json!(["system:masters"]), json!({}), json!({"mayfly.dev/exempt": "true"}), true),
        (json!([]), enforced.clone(), json!({}), false),
        (json!([]), enforced.clone(), json!({"mayfly.dev/enforce": "false"}), false),
        (json!([]), json!({}), enforced, true),
        (json!([]), json!({}), json!({"team": "x"}), true),
    ] {
        let answer = answer(&service, &body(groups.clone(), old.clone(), new.clone()), "timeout=2s").await;
        assert_eq!(answer["response"]["allowed"], allowed, "{groups} {old} {new}");
    }
}

const NOT_ROOT: &str = "
apiVersion: mayfly.dev/v1alpha1
kind: ClusterImageRule
metadata: {name: not-root}
spec:
  enforcement: Always
  validations:
    - {name: not-root, expression: \"image.config.user == '1000'\"}
  onUnknown: {registry: UseLastVerified, maxStaleness: 24h}
";

#[tokio::test]
async fn what_was_known_counts_while_a_registry_is_silent_and_only_with_the_seal() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = || Ledger::new(&format!("sqlite:{}", folder.path().join("ledger.db").display())).expect("a ledger");
    let seal = |name: &str| Some(Seal::kept_in(&folder.path().join(name)).expect("a key"));
    let registry = OneImage::start();
    let asked = review("CREATE", &pod(&format!("{}/app:1", registry.address)), &Value::Null);
    let first = answer(&service_with(NOT_ROOT, Some(ledger()), seal("ours")), &asked, "timeout=10s").await;
    assert_eq!(first["response"]["allowed"], true, "{first}");
    registry.is_silent.store(true, Ordering::Relaxed);

    // What is kept is written behind the answer.
    let until = Instant::now() + Duration::from_secs(10);
    let later = loop {
        let later = answer(&service_with(NOT_ROOT, Some(ledger()), seal("ours")), &asked, "timeout=10s").await;
        if later["response"]["allowed"] == true || Instant::now() > until {
            break later;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(later["response"]["allowed"], true, "{later}");
    // Whoever wrote into the ledger without the key has told nothing.
    let forged = answer(&service_with(NOT_ROOT, Some(ledger()), seal("another")), &asked, "timeout=10s").await;
    assert_eq!(forged["response"]["allowed"], false, "{forged}");
    assert!(message(&forged).contains("REGISTRY_UNAVAILABLE"), "{forged}");
    // A rule that does not say so is not held by what was.
    let strict = NOT_ROOT.replace("registry: UseLastVerified", "registry: Deny");
    let denied = answer(&service_with(&strict, Some(ledger()), seal("ours")), &asked, "timeout=10s").await;
    assert_eq!(denied["response"]["allowed"], false, "{denied}");
}

/// Builds of a software that is called `webd`, each of which a pod was admitted with, or refused.
async fn builds(ledger: &Ledger, verdict: lineage::Verdict) {
    let (now, mut records) = (Timestamp::now(), Vec::new());
    for build in 0..3_u8 {
        let named = |of: &str| Digest::sha256(format!("{of}{build}").as_bytes());
        let dna: Dna = serde_json::from_value(json!({
            "schema": dna::SCHEMA, "analyzer": {"name": "mayfly", "version": "0", "rules": named("rules")},
            "image": {"platform": "linux/amd64"}, "layers": [], "start": {"argv": ["webd"], "program": "/usr/sbin/webd"},
            "programs": [{"path": "/usr/sbin/webd", "sha256": named("webd"), "size": 1, "layer": 0, "uid": 0, "gid": 0, "mode": 0o755,
                "kind": "other", "package": format!("pkg:deb/debian/webd@{build}"), "runs": []}],
            "accounts": {"users": [], "groups": []}, "folders": [], "behavior": {}, "unknowns": [],
        }))
        .expect("a DNA");
        let link = lineage::SubjectDna {
            subject: named("image"),
            rules: named("rules"),
            origin: lineage::Origin::Analyzed,
            repository: "registry.example/webd".into(),
            dna: ledger.put_dna(&dna, dna.to_canonical_json().expect("JSON"), now).await.expect("put"),
            at: now,
        };
        ledger.link_dna(&link).await.expect("linked");
        let image = lineage::DecisionImage { name: "c".into(), reference: "webd".into(), digest: Some(named("image")) };
        let decision = lineage::Decision {
            id: uuid::Uuid::now_v7(),
            at: now,
            cluster: "test".into(),
            namespace: "n".into(),
            kind: "Pod".into(),
            name: "p".into(),
            user: "u".into(),
            operation: "CREATE".into(),
            verdict,
            is_dry_run: false,
            has_unknowns: false,
            images: vec![image],
            rules: Vec::new(),
            details: lineage::Document::pack(b"{}").expect("packed"),
        };
        records.push(lineage::Record::from(decision));
    }
    ledger.write(&records, now).await.expect("written");
}

#[tokio::test]
async fn an_image_is_held_against_those_that_pods_were_admitted_with() {
    const ALIKE: &str = "
apiVersion: mayfly.dev/v1alpha1
kind: ClusterImageRule
metadata: {name: alike}
spec:
  enforcement: Always
  validations: [{name: alike, expression: '!kinship.isUnlike', messageExpression: kinship.summary, reason: UNLIKE}]
";
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = async |name: &str| {
        Ledger::open(&format!("sqlite:{}", folder.path().join(name).display())).await.expect("a ledger")
    };
    let registry = OneImage::start();
    // It is called `webd`, and has no program of that name.
    let asked = review("CREATE", &pod(&format!("{}/webd:1", registry.address)), &Value::Null);
    let (known, strange) = (ledger("known").await, ledger("strange").await);
    builds(&known, lineage::Verdict::Allow).await;
    builds(&strange, lineage::Verdict::Deny).await;
    let told = answer(&service_with(ALIKE, Some(known), None), &asked, "timeout=10s").await;
    assert_eq!(told["response"]["allowed"], false, "{told}");
    assert!(message(&told).contains("UNLIKE") && message(&told).contains("executes no program of that name"), "{told}");
    // What was refused is no witness.
    let told = answer(&service_with(ALIKE, Some(strange), None), &asked, "timeout=10s").await;
    assert_eq!(told["response"]["allowed"], true, "{told}");
    // Without a ledger nobody knows other images.
    let told = answer(&service(ALIKE), &asked, "timeout=10s").await;
    assert_eq!(told["response"]["allowed"], false, "{told}");
    assert!(message(&told).contains("LEDGER_UNAVAILABLE"), "{told}");
}

#[tokio::test]
async fn a_registry_access_says_where_mirrors_are() {
    let registry = OneImage::start();
    let access = format!(
        "{NOT_ROOT}---
apiVersion: mayfly.dev/v1alpha1
kind: RegistryAccess
metadata: {{name: hub}}
spec: {{hosts: [\"127.0.0.1:*\"], plainHttp: true, mirrors: [\"https://{}\"]}}
",
        registry.address
    );
    // Nobody is there but the mirror.
    let asked = review("CREATE", &pod(&format!("127.0.0.1:9/app@{}", registry.digest)), &Value::Null);
    let told = answer(&service(&access), &asked, "timeout=10s").await;
    assert!(registry.asked.load(Ordering::Relaxed) > 0, "the mirror is asked: {told}");
}

#[tokio::test]
async fn an_image_is_analyzed_once_for_rules_that_take_its_dna_from_others() {
    let registry = OneImage::start();
    let key = rcgen::KeyPair::generate().expect("a key").public_key_pem().replace('\n', "\n          ");
    let rules = format!(
        "apiVersion: mayfly.dev/v1alpha1
kind: ImageRule
metadata: {{name: anybody, namespace: n}}
spec: {{enforcement: Always, require: {{dna: {{}}}}}}
---
apiVersion: mayfly.dev/v1alpha1
kind: ImageRule
metadata: {{name: ours, namespace: m}}
spec:
  enforcement: Always
  signers:
    - name: ci
      evidence: Signature
      key:
        data: |
          {key}
  require: {{dna: {{signers: [ci]}}}}
"
    );
    let service = service(&rules);
    let asked = |namespace: &str| {
        let mut asked = review("CREATE", &pod(&format!("{}/app:1", registry.address)), &Value::Null);
        asked["request"]["namespace"] = namespace.into();
        asked
    };
    let (n, m) = (asked("n"), asked("m"));
    let (one, other) = futures_util::join!(answer(&service, &n, "timeout=20s"), answer(&service, &m, "timeout=20s"));
    assert!(one["response"]["allowed"] == true && other["response"]["allowed"] == true, "{one} {other}");
    // The configuration is read to resolve the image, and once more to analyze it.
    assert_eq!(registry.blobs.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_quarantined_digest_is_refused_where_no_rule_asks_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(&format!("sqlite:{}", folder.path().join("l.db").display())).await.expect("a ledger");
    let image = OneImage::start();
    // A rule of another namespace.
    let service = service_with(
        "apiVersion: mayfly.dev/v1alpha1\nkind: ImageRule\nmetadata: {name: digests, namespace: other}\nspec: {tags: RequireDigest}\n",
        Some(ledger.clone()),
        None,
    );
    tokio::spawn(service.quarantine().clone().follow(ledger.clone(), std::future::pending()));
    let new = review("CREATE", &pod(&format!("{}/app:1", image.address)), &Value::Null);
    assert_eq!(answer(&service, &new, "timeout=5s").await["response"]["allowed"], true);
    let asked = image.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 0, "nobody asks for what nobody needs");
    let now = Timestamp::now();
    let row = lineage::ResponseRow {
        id: "r1".to_owned(),
        alert: "a1".to_owned(),
        cluster: "test".to_owned(),
        namespace: "n".to_owned(),
        action: "QuarantineDigest".to_owned(),
        target: image.digest.to_string(),
        rules: ["miners".to_owned()].into(),
        state: lineage::ResponseState::Taken,
        note: String::new(),
        undo: String::new(),
        at: now,
        changed_at: now,
        actor: String::new(),
        reason: String::new(),
    };
    assert!(ledger.claim_response(&row).await.expect("claimed"));
    ledger.end_response("r1", lineage::ResponseState::Done, "", "", now).await.expect("done");
    let until = Instant::now() + Duration::from_secs(10);
    let denied = loop {
        let answer = answer(&service, &new, "timeout=5s").await["response"].clone();
        if answer["allowed"] == false {
            break answer;
        }
        assert!(Instant::now() < until, "it is not refused");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let message = denied["status"]["message"].as_str().expect("a message");
    assert!(message.contains("quarantined by miners") && message.contains("mayfly response undo r1"), "{message}");
    // What runs may be changed, and dies as it likes.
    let object = pod(&format!("{}/app:1", image.address));
    let mut labelled = object.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let update = review("UPDATE", &labelled, &object);
    assert_eq!(answer(&service, &update, "timeout=5s").await["response"]["allowed"], true);
    assert!(ledger.undo_response("r1", "bob", "a mistake", now).await.expect("undone"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(answer(&service, &new, "timeout=5s").await["response"]["allowed"], true);
}
