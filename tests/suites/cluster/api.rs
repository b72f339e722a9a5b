//! What the API server itself takes: the manifests as they are shipped, the kinds of rules, and what it says of its own kinds.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::{Value, json};
use tests::{Carrier, Output, carriers, mayfly_path, run};

use crate::world::{BUSYBOX, OWN, RULES, World, pod, sleeping, wait};

pub(crate) fn the_manifests_are_taken_as_they_are_shipped(world: &World) {
    let kinds = ["deployment", "poddisruptionbudget", "service", "validatingwebhookconfiguration", "clusterrole"];
    is_taken(world, "webhook", &kinds);
    is_taken(world, "bridge", &["statefulset", "service", "configmap", "clusterrole", "serviceaccount"]);
    // What may not be done with its rights.
    let may = |words: &[&str]| {
        let account = format!("--as=system:serviceaccount:{OWN}:mayfly");
        world.cluster.kubectl([&["auth", "can-i"], words, &[account.as_str()]].concat()).text().trim() == "yes"
    };
    assert!(may(&["get", "pods", "-A"]) && may(&["list", "clusterimagerules.mayfly.dev"]));
    assert!(may(&["update", "imagerules.mayfly.dev", "--subresource=status", "-A"]));
    for words in [
        &["create", "pods", "-n", OWN][..],
        &["delete", "pods", "-n", "before"],
        &["list", "secrets", "-n", OWN],
        &["update", "secrets", "-n", "before"],
        &["update", "secrets/other", "-n", OWN],
        &["create", "clusterimagerules.mayfly.dev"],
        &["create", "ruleexceptions.mayfly.dev"],
        &["update", "clusterimagerules.mayfly.dev"],
        &["patch", "clusterimagerules.mayfly.dev", "--subresource=status"],
        &["patch", "validatingwebhookconfigurations/other"],
        &["delete", "validatingwebhookconfigurations/mayfly"],
        &["update", "namespaces"],
    ] {
        assert!(!may(words), "{words:?}");
    }
}

/// What is shipped for a part is taken, without a warning.
fn is_taken(world: &World, part: &str, kinds: &[&str]) {
    let base = format!("{}/base", world.deploy(part, &format!("shipped-{part}"), ""));
    let tried = world.cluster.kubectl(["apply", "--server-side", "--dry-run=server", "-k", &base]);
    assert_eq!(tried.code, 0, "{}", tried.stderr);
    assert!(!tried.stderr.contains("Warning"), "{}", tried.stderr);
    for kind in kinds {
        assert!(
            tried.text().contains(&format!("{kind}.")) || tried.text().contains(&format!("{kind}/")),
            "{kind}: {}",
            tried.text()
        );
    }
}

pub(crate) fn bad_rules_are_refused_by_the_api_server(world: &World) {
    let list = world.cluster.kubectl(["get", "crd", "-o", "json"]).ok().json();
    let ours: Vec<&Value> =
        list["items"].as_array().expect("kinds").iter().filter(|kind| kind["spec"]["group"] == "mayfly.dev").collect();
    assert_eq!(ours.len(), policies::kinds::crds().len());
    for kind in ours {
        let is = |wanted: &str| {
            let conditions = kind["status"]["conditions"].as_array().expect("conditions");
            conditions.iter().any(|condition| condition["type"] == wanted && condition["status"] == "True")
        };
        assert!(is("Established") && !is("NonStructuralSchema"), "{:#}", kind["status"]);
    }
    let object = |kind: &str, spec: Value| json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": kind, "metadata": {"name": "bad"}, "spec": spec});
    let exception = json!({"rules": ["starts"], "images": ["**"], "reason": "x", "expires": "2026-01-01T00:00:00Z"});
    let without = |field: &str| {
        let mut exception = exception.clone();
        exception.as_object_mut().expect("fields").remove(field);
        exception
    };
    let mut for_ever = exception.clone();
    for_ever["expires"] = json!("never");
    let signer = |signer: Value| json!({"signers": [signer]});
    let identity = json!({"issuer": "https://i", "subject": "s"});
    let keyless = json!({"identities": [identity]});
    let twice = json!({"issuer": "https://i", "issuerRegExp": "i", "subject": "s"});
    let cases = [
        ("ClusterImageRule", json!({"tag": "RequireDigest"}), "unknown field"),
        ("ClusterImageRule", json!({"tags": "Never"}), "Unsupported value"),
        ("ClusterImageRule", json!({"validations": [{"name": "x"}]}), "expression"),
        (
            "ClusterImageRule",
            json!({"validations": [{"name": "x", "expression": "true", "reason": "no code"}]}),
            "reason",
        ),
        (
            "ClusterImageRule",
            signer(json!({"name": "a", "keyless": keyless, "key": {"data": "x"}})),
            "known by `keyless` or by `key`",
        ),
        ("ClusterImageRule", signer(json!({"name": "a"})), "known by `keyless` or by `key`"),
        (
            "ClusterImageRule",
            signer(json!({"name": "a", "keyless": {"identities": [twice]}})),
            "say `issuer` or `issuerRegExp`",
        ),
        (
            "ClusterImageRule",
            signer(json!({"name": "a", "key": {"data": "x", "secretRef": {"name": "y"}}})),
            "say one of `data`",
        ),
        ("RuleException", without("expires"), "spec.expires"),
        ("RuleException", without("reason"), "spec.reason"),
        ("RuleException", for_ever, "spec.expires"),
        ("SignerTrust", json!({}), "say `trustedRoot` or `configMapRef`"),
        ("RegistryAccess", json!({"hosts": []}), "spec.hosts"),
        ("ClusterRuntimeRule", json!({"then": {}}), "say what comes of it"),
        ("ClusterRuntimeRule", json!({"then": {"severity": "low"}}), "Unsupported value"),
        ("ClusterRuntimeRule", json!({"then": {"ignore": {"until": "2099-01-01T00:00:00Z"}}}), "reason"),
        (
            "ClusterRuntimeRule",
            json!({"then": {"severity": "Low", "ignore": {"until": "2099-01-01T00:00:00Z", "reason": "x"}}}),
            "`ignore` stands alone",
        ),
        ("ClusterRuntimeRule", json!({"then": {"severity": "Low"}, "when": [{"name": "x"}]}), "expression"),
    ];
    for (kind, spec, said) in cases {
        let object = object(kind, spec);
        let why = world.refused(&object);
        assert!(why.contains(said), "{said}: {why}\n{object:#}");
    }
    world.cluster.kubectl_with(&["create", "--dry-run=server"], &object("RuleException", exception)).ok();
}

pub(crate) fn rules_and_exceptions_of_the_cluster_take_effect_without_a_restart(world: &World) {
    world.namespace("live", true);
    let tried = pod("live", "tried", &json!({"containers": [sleeping(BUSYBOX)]}));
    let mut privileged = tried.clone();
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    world.until_decided(&tried, None);
    let rule = |name: &str, expression: &str| {
        json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": "ClusterImageRule", "metadata": {"name": name},
            "spec": {"match": {"namespaces": {"names": ["live"]}}, "enforcement": "Always",
                "validations": [{"name": "none", "expression": expression, "message": "none here", "reason": "NONE_HERE"}]}})
    };
    let apply = |object: &Value| world.cluster.kubectl_with(&["apply"], object).ok();
    let problems = |are_there: bool| {
        wait(20, "the rule is told", || {
            let told = world.metric("mayfly_rule_problems");
            if (told > 0.0) == are_there { Ok(()) } else { Err(format!("{told} problems")) }
        });
    };
    apply(&rule("none-live", "false"));
    world.until_decided(&tried, Some("NONE_HERE"));

    let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let exception = json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": "RuleException", "metadata": {"name": "for-now"},
        "spec": {"rules": ["none-live"], "images": ["127.0.0.1:5000/busybox:*"], "expires": expires.to_string(), "reason": "INC-1"}});
    apply(&exception);
    world.until_decided(&tried, None);
    world.until_decided(&privileged, Some("PRIVILEGED"));
    world.cluster.kubectl(["delete", "ruleexception", "for-now"]).ok();
    world.until_decided(&tried, Some("NONE_HERE"));

    // A rule that does not load is told, and leaves the others as they are.
    problems(false);
    apply(&rule("typo", "contaner.name == 'x'"));
    problems(true);
    assert!(world.log().contains("typo") && world.log().contains("contaner"), "{}", world.log());
    world.until_decided(&tried, Some("NONE_HERE"));
    world.until_decided(&privileged, Some("PRIVILEGED"));
    world.cluster.kubectl(["delete", "clusterimagerule", "typo"]).ok();
    problems(false);
    // Nor does one that did, and is changed so that it does not any more: it stays as it was.
    apply(&rule("none-live", "fasle"));
    problems(true);
    world.until_decided(&tried, Some("NONE_HERE"));
    // Through a restart too.
    world.down();
    world.up();
    world.until_decided(&tried, Some("NONE_HERE"));
    problems(true);
    world.cluster.kubectl(["delete", "clusterimagerule", "none-live"]).ok();
    problems(false);
    world.until_decided(&tried, None);
}

pub(crate) fn what_became_of_a_rule_stands_in_its_status(world: &World) {
    let apply = |expression: &str| {
        let rule = json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": "ClusterImageRule", "metadata": {"name": "told"},
            "spec": {"match": {"namespaces": {"names": ["nowhere"]}}, "actions": ["Deny"],
                "validations": [{"name": "one", "expression": expression}]}});
        world.cluster.kubectl_with(&["apply"], &rule).ok();
    };
    let told = |reason: &str| {
        wait(60, &format!("it is told as {reason}"), || {
            let rule = world.cluster.kubectl(["get", "clusterimagerule", "told", "-o", "json"]).ok().json();
            let conditions = rule["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_now = rule["status"]["observedGeneration"] == rule["metadata"]["generation"];
            let is_so = is_now && conditions.iter().any(|one| one["type"] == "Ready" && one["reason"] == reason);
            let loaded = conditions.iter().find(|one| one["type"] == "Loaded").cloned();
            loaded.filter(|_| is_so).ok_or_else(|| format!("{:#}", rule["status"]))
        })
    };
    apply("contaner.name == 'x'");
    let loaded = told("Invalid");
    assert_eq!(loaded["status"], "False");
    let why = loaded["message"].as_str().expect("a message");
    for part in ["spec.validations[0].expression: 1:1", "`contaner` is not known here: did you mean `container`?"] {
        assert!(why.contains(part), "{why}");
    }
    let yaml = world.cluster.kubectl(["get", "clusterimagerule", "told", "-o", "yaml"]).ok().text();
    assert!(yaml.contains("did you mean `container`?"), "{yaml}");
    let table = || world.cluster.kubectl(["get", "clusterimagerules"]).ok().text();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let shown = table();
    assert_eq!(words(shown.lines().next().expect("a head")), ["NAME", "STATUS", "ACTIONS", "ENFORCEMENT", "AGE"]);
    let row = shown.lines().map(words).find(|row| row[0] == "told").expect("a row");
    assert_eq!(row[1..3], ["Invalid", r#"["Deny"]"#], "{shown}");
    assert!(shown.lines().map(words).any(|row| row[..2] == ["starts", "InForce"]), "{shown}");

    apply("true");
    assert_eq!(told("InForce")["status"], "True");
    apply("fasle");
    let loaded = told("AsBefore");
    assert!(
        loaded["status"] == "False" && loaded["message"].as_str().is_some_and(|why| why.contains("fasle")),
        "{loaded}"
    );
    // What is written stays, and is not written again and again.
    let version = || {
        world
            .cluster
            .kubectl(["get", "clusterimagerules", "-o", "jsonpath={.items[*].metadata.resourceVersion}"])
            .text()
    };
    let before = version();
    thread::sleep(Duration::from_secs(12));
    assert_eq!(version(), before);
    world.cluster.kubectl(["delete", "clusterimagerule", "told"]).ok();
}

pub(crate) fn a_plan_is_held_against_the_rules_of_the_cluster(world: &World) {
    world.namespace("planned", false);
    world.cluster.create(&pod("planned", "one", &json!({"containers": [sleeping(BUSYBOX)]})));
    let rule = r#"
apiVersion: mayfly.dev/v1alpha1
kind: ClusterImageRule
metadata: {name: planned}
spec:
  match: {namespaces: {names: [planned]}}
  enforcement: Always
  validations: [{name: none, expression: "false", reason: NONE_HERE}]
"#;
    let file = world.file("planned.yaml", format!("{RULES}---{rule}"));
    let plan = || {
        let mut command = world.cluster.inside(mayfly_path());
        // A registry that is not there is waited for: that of the manifests.
        command.args(["policy", "plan", &file, "--format", "json", "--plain-http", "--timeout", "15", "--kubeconfig"]);
        run(command.arg(world.cluster.folder().join("kubeconfig")))
    };
    let changes = |planned: &Output| {
        let plan = planned.json();
        let changes = plan["changes"].as_array().cloned().unwrap_or_default();
        let text = |change: &Value| {
            let turn = |when: &str| format!("{}-{}", change[when]["before"], change[when]["after"]).to_lowercase();
            format!("{} {} {}", change["namespace"], change["workload"], turn("now")).replace('"', "")
        };
        assert!(plan["before"].is_object(), "{plan:#}");
        changes.iter().map(text).collect::<Vec<_>>()
    };
    let planned = plan();
    assert_eq!(planned.code, 1, "{}", planned.stderr);
    assert_eq!(changes(&planned), ["planned Pod/one allow-deny"], "{}", planned.stderr);
    // Once it is in force, nothing changes any more.
    let in_force = world.file("planned-rule.yaml", rule);
    world.cluster.kubectl(["apply", "-f", &in_force]).ok();
    let planned = plan();
    assert_eq!(changes(&planned), [""; 0], "{}", planned.stderr);
    world.cluster.kubectl(["delete", "-f", &in_force]).ok();
    world.cluster.kubectl(["delete", "namespace", "planned", "--wait=false"]).ok();
}

/// Subresources that change no image of what they belong to, and why.
const NO_IMAGE_CHANGES: [(&str, &str); 3] = [
    ("status", "what is said to have become of it"),
    ("resize", "requests and limits only"),
    ("scale", "how many there are"),
];

pub(crate) fn no_kind_of_the_api_server_carries_an_image_that_is_not_read(world: &World) {
    let index = world.cluster.kubectl(["get", "--raw", "/openapi/v3"]).ok().json();
    let mut found: Vec<Carrier> = Vec::new();
    for (name, at) in index["paths"].as_object().expect("documents") {
        // Our own kinds and other custom ones name images in patterns; their pods are declared by rules.
        if name.starts_with("apis/mayfly.dev") || name.starts_with("apis/wgpolicyk8s.io") {
            continue;
        }
        let path = at["serverRelativeURL"].as_str().expect("an address");
        found.extend(carriers(&world.cluster.kubectl(["get", "--raw", path]).ok().json()));
    }
    let unread: Vec<String> = found.iter().filter(|carrier| !carrier.is_read()).map(ToString::to_string).collect();
    assert!(unread.is_empty(), "places of images that nobody reads: {unread:#?}");
    // It was looked at the right place: each of nine kinds with four places at least.
    let kinds: BTreeSet<String> = found.iter().map(|carrier| format!("{}/{}", carrier.group, carrier.kind)).collect();
    assert_eq!(kinds.len(), dna::Workload::kinds().count(), "{kinds:?}");
    for path in
        ["containers[].image", "initContainers[].image", "ephemeralContainers[].image", "volumes[].image.reference"]
    {
        let count = found.iter().filter(|carrier| carrier.path.ends_with(&format!("spec.{path}"))).count();
        assert_eq!(count, kinds.len(), "{path}");
    }
    // And the registration that is shipped covers whatever writes them.
    let registered =
        world.cluster.kubectl(["get", "validatingwebhookconfiguration", "mayfly", "-o", "json"]).ok().json();
    let rules = registered["webhooks"]
        .as_array()
        .expect("webhooks")
        .iter()
        .flat_map(|hook| hook["rules"].as_array().into_iter().flatten());
    let has = |list: &Value, wanted: &str| list.as_array().is_some_and(|list| list.iter().any(|one| one == wanted));
    let rules: Vec<&Value> = rules.collect();
    for carrier in &found {
        for resource in &carrier.resources {
            let part = resource.split_once('/').map(|(_, part)| part);
            let is_left_out = part.is_some_and(|part| NO_IMAGE_CHANGES.iter().any(|(name, _)| *name == part));
            let is_covered =
                rules.iter().any(|rule| has(&rule["apiGroups"], &carrier.group) && has(&rule["resources"], resource));
            assert!(is_left_out || is_covered, "{resource} of {carrier} is not registered");
        }
    }
    println!("{} places of images in {} kinds", found.len(), kinds.len());
}

/// How the API server says that somebody has no right; a namespace that ends is "forbidden" too, and for everyone.
pub(crate) const FORBIDDEN: &str = "forbidden: User";

pub(crate) fn the_service_account_s_rights_were_enough(world: &World) {
    let log = world.log();
    let refused: Vec<&str> = log.lines().filter(|line| line.contains(FORBIDDEN)).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    assert_eq!(world.metric("mayfly_worker_looks_failed_total"), 0.0);
}
