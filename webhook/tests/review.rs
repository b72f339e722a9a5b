//! What the API server is owed, whatever it sends and whatever the registry does: a list of scenarios.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use dna::{Limits, RuntimeFacts};
use jiff::Timestamp;
use serde_json::{Value, json};
use webhook::{
    cluster::{Cluster, Permissions},
    gather::{self, Analyzer, Gatherer},
    rulebook::{Beside, Rulebook},
    service::{Service, Settings},
};

/// A service with these rules, which reaches registries by plain HTTP.
fn service(rules: &str) -> Service {
    let limits = Limits::default();
    let registry = oci::registry::Settings { plain_http: true, retries: 0, ..oci::registry::Settings::default() };
    let settings = gather::Settings {
        registry,
        runtime: RuntimeFacts::default(),
        limits: limits.clone(),
        memory_bytes: 32 << 20,
        seal: None,
    };
    let analyzer = Arc::new(Analyzer::new(limits, None, 64 << 20).expect("an analyzer"));
    let gatherer = Arc::new(Gatherer::new(settings, analyzer, None));
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
    let response = service.review(body.to_string().as_bytes(), Some(query)).await;
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
        let response = service.review(body.as_bytes(), None).await;
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
