//! `mayfly policy` as a user meets it: plans, explanations, replays and conversions, without a network.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

fn mayfly(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.args(arguments).current_dir(folder).env_remove("KUBECONFIG").env("HOME", folder).stdin(Stdio::null());
    command.output().expect("runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", out(output), told(output)))
}

/// A folder with files.
fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    for (name, text) in files {
        let file = path.join(name);
        fs::create_dir_all(file.parent().expect("a parent")).expect("a folder");
        fs::write(file, text).expect("a file");
    }
    (folder, path)
}

/// What can be decided without a registry; where one is asked, nobody listens.
const RULES: &str = "apiVersion: mayfly.dev/v1alpha1
kind: ClusterImageRule
metadata: {name: careful}
spec:
  # A tag may lead elsewhere tomorrow.
  tags: RequireDigest
  validations:
    # Nobody listens on the node.
    - name: own-network
      scope: Pod
      expression: \"!has(pod.hostNetwork) || !pod.hostNetwork\"
      message: it uses the node's network
      reason: HOST_NETWORK
";

const OLD: &str = "apiVersion: mayfly.dev/v1alpha1
kind: ClusterImageRule
metadata: {name: careful}
spec: {tags: RequireDigest, templates: Enforce}
";

const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000001";

fn workloads() -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: shop, labels: {{mayfly.dev/enforce: \"true\"}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: shop}}
spec: {{template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: web, image: \"127.0.0.1:1/web:1\"}}]}}}}}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: web-1, namespace: shop, ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: web, uid: u, controller: true}}]}}
spec: {{template: {{spec: {{containers: [{{name: web, image: \"127.0.0.1:1/web:1\"}}]}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: pinned, namespace: shop}}
spec: {{containers: [{{name: c, image: \"example.com/db@{DIGEST}\"}}]}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {{name: nightly, namespace: other}}
spec: {{jobTemplate: {{spec: {{template: {{spec: {{hostNetwork: true, containers: [{{name: c, image: \"example.com/db@{DIGEST}\"}}]}}}}}}}}}}
"
    )
}

#[test]
fn a_plan_says_what_is_denied_now_and_what_would_be() {
    let (_kept, at) = folder(&[("rules.yaml", RULES), ("run/all.yaml", &workloads())]);
    let output = mayfly(&at, &["policy", "plan", "rules.yaml", "--manifests", "run"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    insta::assert_snapshot!("plan", out(&output));
    let output = mayfly(&at, &["policy", "plan", "rules.yaml", "--manifests", "run", "--format", "json"]);
    let plan = json(&output);
    assert_eq!(plan.pointer("/workloads"), Some(&json!(3)), "the ReplicaSet is the Deployment's: {plan:#}");
    assert_eq!(plan.pointer("/now"), Some(&json!({"denied": 1, "warned": 0, "allowed": 2})));
    assert_eq!(plan.pointer("/everywhere"), Some(&json!({"denied": 2, "warned": 0, "allowed": 1})));
}

#[test]
fn a_plan_against_other_rules_says_what_changes() {
    let (_kept, at) = folder(&[("new/r.yaml", RULES), ("old/r.yaml", OLD), ("run/all.yaml", &workloads())]);
    let output = mayfly(&at, &["policy", "plan", "new", "--against", "old", "--manifests", "run"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    insta::assert_snapshot!("plan-against", out(&output));
    let output = mayfly(&at, &["policy", "plan", "new", "--against", "new", "--manifests", "run"]);
    assert!(out(&output).contains("nothing is decided otherwise"), "{}", out(&output));
}

#[test]
fn a_plan_ends_well_where_nothing_is_denied_and_says_what_it_lacks() {
    let pinned = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [{{name: c, image: \"example.com/db@{DIGEST}\"}}]}}\n"
    );
    let (_kept, at) = folder(&[("rules.yaml", RULES), ("pod.yaml", &pinned), ("none/x.yaml", "kind: Namespace\n")]);
    let output = mayfly(&at, &["policy", "plan", "rules.yaml", "--manifests", "pod.yaml", "--enforce"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    for (arguments, part) in [
        (&["policy", "plan", "rules.yaml", "--manifests", "none"][..], "there is no workload"),
        (&["policy", "plan", "nowhere.yaml", "--manifests", "pod.yaml"], "nowhere.yaml"),
        (&["policy", "plan", "rules.yaml", "--kubeconfig", "nowhere"], "nowhere"),
        (&["policy", "plan", "rules.yaml", "--context", "nowhere"], "--manifests"),
    ] {
        let output = mayfly(&at, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", told(&output));
        assert!(told(&output).contains(part), "{arguments:?}: {}", told(&output));
    }
}

#[test]
fn a_decision_is_explained_with_the_rule_s_own_words() {
    let (_kept, at) = folder(&[("rules.yaml", RULES), ("all.yaml", &workloads())]);
    let output =
        mayfly(&at, &["policy", "check", "--rules", "rules.yaml", "--enforce", "all.yaml", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "of templates it warns: {}", told(&output));
    fs::write(at.join("decided.json"), &output.stdout).expect("a file");
    let output =
        mayfly(&at, &["policy", "explain", "decided.json", "--object", "CronJob/nightly", "--rules", "rules.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    insta::assert_snapshot!("explain", out(&output));
    // Other rules of that name are another version.
    fs::write(at.join("other.yaml"), OLD).expect("a file");
    let output =
        mayfly(&at, &["policy", "explain", "decided.json", "--object", "CronJob/nightly", "--rules", "other.yaml"]);
    assert!(out(&output).contains("in the rules given, and was"), "{}", out(&output));
    for (arguments, part) in [
        (&["policy", "explain", "decided.json", "--object", "Pod/none"][..], "nothing was decided about Pod/none"),
        (&["policy", "explain", "all.yaml"], "is no JSON"),
        (&["policy", "explain", "nowhere.json"], "nowhere.json"),
        (&["policy", "explain", "0190a3c2-7f1e-7000-8000-000000000001"], "--ledger"),
        (
            &["policy", "explain", "0190a3c2-7f1e-7000-8000-000000000001", "--ledger", "sqlite:none.db"],
            "there is no ledger at none.db",
        ),
    ] {
        let output = mayfly(&at, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", told(&output));
        assert!(told(&output).contains(part), "{arguments:?}: {}", told(&output));
    }
    assert!(!at.join("none.db").exists(), "looking makes no ledger");
}

fn event(verb: &str, user: &str, pod: &Value, more: &Value) -> String {
    let mut event = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Event", "level": "RequestResponse",
        "stage": "ResponseComplete", "verb": verb, "user": {"username": user}, "responseStatus": {"code": 201},
        "objectRef": {"resource": "pods", "namespace": pod["metadata"]["namespace"], "name": pod["metadata"]["name"], "apiVersion": "v1"},
        "responseObject": pod});
    event.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    event.to_string()
}

#[test]
fn a_log_is_replayed_by_rule_and_user() {
    let pod = |name: &str, image: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"containers": [{"name": "c", "image": image}]}})
    };
    let tagged = pod("web", "127.0.0.1:1/web:1");
    let mut labelled = tagged.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let log = [
        event("create", "ann", &tagged, &json!({"annotations": {"images.mayfly.dev/verdict": "allow"}})),
        // Nothing that the rules read has changed since.
        event("update", "ann", &labelled, &json!({})),
        event(
            "create",
            "bob",
            &pod("db", &format!("example.com/db@{DIGEST}")),
            &json!({"annotations": {"images.mayfly.dev/verdict": "deny"}, "responseStatus": {"code": 403}}),
        ),
        "this is no event".to_owned(),
        event("create", "ann", &pod("meta", "x"), &json!({"level": "Metadata", "responseObject": null})),
        event("get", "ann", &tagged, &json!({})),
        event("create", "eve", &pod("two", "127.0.0.1:1/web:2"), &json!({})),
    ]
    .join("\n");
    let space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {mayfly.dev/enforce: careful}}\n";
    let (_kept, at) = folder(&[("rules.yaml", RULES), ("audit.log", &log), ("shop.yaml", space)]);
    let output = mayfly(&at, &["policy", "replay", "rules.yaml", "audit.log", "--manifests", "shop.yaml"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    insta::assert_snapshot!("replay", out(&output));
    // The same packed, and where nothing is enforced.
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(log.as_bytes()).expect("packs");
    fs::write(at.join("audit.log.gz"), packed.finish().expect("packs")).expect("a file");
    let output = mayfly(&at, &["policy", "replay", "rules.yaml", "audit.log.gz", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let replayed = json(&output);
    assert_eq!(replayed.pointer("/decided/denied"), Some(&json!(0)));
    assert_eq!(replayed.pointer("/deniedIfEnforced"), Some(&json!(2)));
    assert_eq!(replayed.pointer("/lines/first/0/0"), Some(&json!(4)), "{replayed:#}");
    let output = mayfly(&at, &["policy", "replay", "rules.yaml", "rules.yaml"]);
    assert_eq!(output.status.code(), Some(2), "it is no log: {}", out(&output));
}

#[test]
fn a_conversion_says_aloud_what_is_missing() {
    let whole = "apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: signed}
spec:
  images: [{glob: \"ghcr.io/example/**\"}]
  authorities:
    - keyless: {identities: [{issuer: \"https://token.actions.githubusercontent.com\", subjectRegExp: \"^https://github.com/example/.*$\"}]}
      ctlog: {url: \"https://rekor.sigstore.dev\"}
";
    let lossy = format!("{whole}  policy: {{type: cue, data: \"x: 1\"}}\n");
    let (_kept, at) =
        folder(&[("whole.yaml", whole), ("lossy.yaml", &lossy), ("none.yaml", "kind: Pod\napiVersion: v1\n")]);
    let output = mayfly(&at, &["policy", "convert", "whole.yaml", "-o", "made.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    insta::assert_snapshot!("convert", fs::read_to_string(at.join("made.yaml")).expect("rules"));
    let output = mayfly(&at, &["policy", "convert", "lossy.yaml", "--report", "report.json", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(out(&output).contains("not-carried-over") && told(&output).contains("1 checks are not carried over"));
    let report: Value = serde_json::from_slice(&fs::read(at.join("report.json")).expect("a report")).expect("JSON");
    let weaker: Vec<_> = report.as_array().expect("a list").iter().filter(|note| note["effect"] == "weaker").collect();
    assert_eq!(weaker.len(), 1);
    assert_eq!(weaker[0]["path"], "spec.policy");
    let output = mayfly(&at, &["policy", "convert", "none.yaml"]);
    assert_eq!((output.status.code(), told(&output).contains("no policy")), (Some(2), true));
}

#[test]
fn a_decision_of_the_ledger_is_explained_by_its_id() {
    let (_kept, at) = folder(&[("rules.yaml", RULES)]);
    let url = format!("sqlite:{}", at.join("ledger.db").display());
    let id: uuid::Uuid = "0190a3c2-7f1e-7000-8000-000000000001".parse().expect("an id");
    let reason = json!({"effect": "Deny", "rule": "careful", "code": "TAG_NOT_DIGEST", "expected": "a digest", "found": "a tag",
        "remedy": "name it by digest", "image": {"reference": "127.0.0.1:1/web:1", "name": "web", "role": "container"}});
    let details = json!({"reasons": [reason], "unknown": [], "exceptions": [], "findings": {}}).to_string();
    let decision = lineage::Decision {
        id,
        at: "2026-11-01T10:00:00Z".parse().expect("a time"),
        cluster: "c1".to_owned(),
        namespace: "shop".to_owned(),
        kind: "Pod".to_owned(),
        name: "web".to_owned(),
        user: "ann".to_owned(),
        operation: "CREATE".to_owned(),
        verdict: lineage::Verdict::Deny,
        is_dry_run: false,
        has_unknowns: false,
        images: vec![lineage::DecisionImage {
            name: "web".to_owned(),
            reference: "127.0.0.1:1/web:1".to_owned(),
            digest: Some(DIGEST.parse().expect("a digest")),
        }],
        rules: vec![lineage::RuleVersion { name: "careful".to_owned(), version: DIGEST.to_owned() }],
        details: lineage::Document::pack(details.as_bytes()).expect("packs"),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let ledger = lineage::Ledger::open(&url).await.expect("a ledger");
        let options = lineage::RecorderOptions::new(at.join("spool"));
        let recorder = lineage::Recorder::start(ledger.clone(), &options).expect("a recorder");
        assert!(recorder.record(decision));
        let counts = recorder.shutdown(std::time::Duration::from_secs(20)).await;
        assert_eq!(counts.written, 1);
        ledger.close().await;
    });
    let asked = id.to_string();
    let output = mayfly(&at, &["policy", "explain", &asked, "--ledger", &url, "--rules", "rules.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let shown = out(&output);
    for part in [
        "Pod/web in shop: DENIED",
        "asked by  ann",
        DIGEST,
        "TAG_NOT_DIGEST [careful]: denies",
        "do        name it by digest",
        "# A tag may lead elsewhere tomorrow.",
        "in the rules given, and was",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let none = "0190a3c2-7f1e-7000-8000-000000000002";
    let output = mayfly(&at, &["policy", "explain", none, "--ledger", &url]);
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("the ledger has no decision"), "{}", told(&output));
}

/// A DNA of an image that is known to do nothing.
fn still() -> String {
    let complete = json!({"state": "complete"});
    let dimensions = ["exec", "load", "syscalls", "capabilities", "listen", "connect", "write", "read"];
    let mut behavior: serde_json::Map<String, Value> =
        dimensions.iter().map(|name| ((*name).to_owned(), json!([]))).collect();
    let known: serde_json::Map<String, Value> =
        dimensions.iter().map(|name| ((*name).to_owned(), complete.clone())).collect();
    behavior.insert("completeness".to_owned(), known.into());
    json!({"schema": dna::SCHEMA, "analyzer": {"name": "mayfly", "version": "0", "rules": DIGEST},
        "image": {"platform": "linux/amd64"}, "layers": [], "start": {}, "programs": [],
        "accounts": dna::Accounts::default(), "folders": [], "behavior": behavior, "unknowns": []})
    .to_string()
}

const RUNTIME: &str = "apiVersion: mayfly.dev/v1alpha1
kind: RuntimeRule
metadata: {name: debug-port, namespace: shop}
spec:
  classes: [listen]
  when: [{name: port, expression: \"deviation.subject == 'tcp/9000'\"}]
  then: {ignore: {until: '2026-12-14T00:00:00Z', reason: SHOP-77}}
---
apiVersion: mayfly.dev/v1alpha1
kind: ClusterRuntimeRule
metadata: {name: grave}
spec:
  classes: [listen]
  when: [{name: port, expression: \"deviation.subject == 'tcp/4444' && dna.behavior.listen.size() == 0\"}]
  then: {severity: Critical, response: [{action: Isolate}]}
---
apiVersion: mayfly.dev/v1alpha1
kind: ClusterRuntimeRule
metadata: {name: of-the-pod}
spec:
  classes: [connect]
  match: {podLabels: {tier: backend}}
  then: {severity: High}
";

#[test]
fn rules_of_run_time_say_what_comes_of_a_recorded_stream() {
    let event = |at: &str, act: Value| {
        json!({"at": at, "sensor": "any", "container": {"id": "3ad7b26ded6d", "namespace": "shop", "pod": "web-0"},
            "process": {"pid": 7, "exe": "/usr/bin/served"}, "act": act})
        .to_string()
    };
    let listen = |port: u16| json!({"kind": "listen", "protocol": "tcp", "port": port});
    let events = [
        event("2026-12-01T00:00:00Z", listen(9000)),
        event("2026-12-02T00:00:00Z", listen(4444)),
        event("2026-12-15T00:00:00Z", listen(9000)),
    ];
    let (_kept, at) =
        folder(&[("rules/runtime.yaml", RUNTIME), ("dna.json", &still()), ("events.ndjson", &events.join("\n"))]);
    let replay = ["replay", "events.ndjson", "--dna", "dna.json", "--rules", "rules"];
    let output = mayfly(&at, &[&replay[..], &["--format", "ndjson"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let lines: Vec<Value> = out(&output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let listens: Vec<_> = lines.iter().filter(|line| line["deviation"]["class"] == "listen").collect();
    assert_eq!(listens.len(), 3, "{lines:#?}");
    assert_eq!(listens[0]["verdict"]["ignored"]["reason"], "SHOP-77");
    assert_eq!(listens[1]["verdict"]["severity"], "Critical");
    assert_eq!(listens[1]["verdict"]["responses"][0]["dryRun"], true);
    assert!(listens[1]["risk"].as_f64().is_some_and(|risk| risk >= 0.9), "{:#}", listens[1]);
    assert_eq!(listens[2]["verdict"].get("ignored"), None, "its time is over");
    let text = out(&mayfly(&at, &replay));
    for part in [
        "    1 of them are ignored\n",
        "    rule shop/debug-port: ignored until 2026-12-14T00:00:00Z: SHOP-77 (its time was over at 2026-12-14T00:00:00Z)\n",
        "    rule grave: severity critical, response Isolate (dry run)\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // A rule that does not load is told before anything is compared.
    fs::write(at.join("rules/other.yaml"), RUNTIME.replace("deviation.subject", "deviation.subjet")).expect("a file");
    let output = mayfly(&at, &replay);
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("other.yaml:6: RuntimeRule shop/debug-port: spec.when[0].expression: 1:10: `deviation` has no field `subjet`"), "{}", told(&output));
}

#[test]
fn cases_of_run_time_are_tested_beside_others() {
    let cases = "runtime:
- {name: it is ignored, deviation: {class: listen, subject: tcp/9000}, place: {namespace: shop}, expect: {ignored: true}}
- {name: it is not, deviation: {class: listen, subject: tcp/9000}, place: {namespace: bank}, expect: {ignored: true}}
cases:
- {name: by tag, pod: {containers: [{name: a, image: a}]}, expect: {verdict: Allow}}
";
    let (_kept, at) = folder(&[("runtime.yaml", RUNTIME), ("cases.yaml", cases)]);
    let output = mayfly(&at, &["policy", "test", "--rules", "runtime.yaml", "cases.yaml"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let text = out(&output);
    assert!(
        text.contains("ok     cases.yaml: it is ignored\n") && text.contains("ok     cases.yaml: by tag\n"),
        "{text}"
    );
    assert!(text.contains("FAILED cases.yaml: it is not\n         expected ignored true, found false"), "{text}");
}
