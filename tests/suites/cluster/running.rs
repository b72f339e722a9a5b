//! What runs already, and many at once: the worker's coverage and reports, bursts of pods, on nodes that are not there too.

use std::{fs, thread, time::Instant};

use serde_json::{Value, json};

use crate::{
    load::create_many,
    world::{BEFORE, BUSYBOX, World, pod, push, sleeping, wait},
};

pub(crate) fn pods_that_ran_before_are_covered_without_a_restart(world: &World) {
    wait(90, "pods are covered", || {
        let covered = world.metric("mayfly_pods{state=\"covered\"}");
        if covered >= 30.0 { Ok(()) } else { Err(format!("{covered} of {BEFORE}")) }
    });
    let pods = world.cluster.kubectl(["get", "pods", "-n", "before", "-o", "json"]).ok().json();
    let restarted = |pod: &&Value| pod.pointer("/status/containerStatuses/0/restartCount") != Some(&json!(0));
    assert_eq!(pods["items"].as_array().expect("pods").iter().filter(restarted).count(), 0);
}

pub(crate) fn reports_are_written_of_what_runs_though_the_kind_comes_later(world: &World) {
    // Decided before the cluster has such objects.
    world.namespace("reported", false);
    let mut privileged = sleeping(BUSYBOX);
    privileged["securityContext"] = json!({"privileged": true});
    world.cluster.create(&pod("reported", "bad", &json!({"containers": [privileged]})));
    let labels = json!({"app": "good"});
    world.cluster.create(&json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "good", "namespace": "reported"}, "spec": {"replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [sleeping(BUSYBOX)]}}}}));
    world.all_run("reported", 3);
    assert_eq!(world.metric("mayfly_policy_reports_available"), 0.0);
    world.cluster.create(&report_kind());

    let report = |name: &str| {
        wait(90, "there is a report", || {
            let found = world.cluster.kubectl(["get", "policyreport", "-n", "reported", name, "-o", "json"]);
            if found.code == 0 { Ok(found.json()) } else { Err(found.stderr) }
        })
    };
    let bad = report("mayfly-pod-bad");
    let uid = world.cluster.get("reported", "pod", "bad")["metadata"]["uid"].clone();
    assert_eq!((&bad["scope"]["kind"], &bad["scope"]["uid"]), (&json!("Pod"), &uid));
    assert_eq!(bad["metadata"]["ownerReferences"][0]["uid"], uid);
    assert_eq!((&bad["summary"]["fail"], &bad["summary"]["pass"]), (&json!(1), &json!(0)), "{bad:#}");
    let result = &bad["results"][0];
    assert_eq!(
        (&result["policy"], &result["rule"], &result["result"]),
        (&json!("starts"), &json!("PRIVILEGED"), &json!("fail"))
    );
    let good = report("mayfly-deployment-good");
    assert_eq!((&good["summary"]["fail"], &good["summary"]["pass"]), (&json!(0), &json!(1)), "{good:#}");
    // Of what was there before: one for each pod, as nobody made them.
    wait(60, "every pod of before has a report", || {
        let list = world.cluster.kubectl(["get", "policyreports", "-n", "before", "-o", "json"]).ok().json();
        let count = list["items"].as_array().map_or(0, Vec::len);
        if count == BEFORE { Ok(()) } else { Err(format!("{count} reports")) }
    });
    // It goes with what it is about.
    world.cluster.kubectl(["delete", "-n", "reported", "pod", "bad", "--wait=true", "--timeout=60s"]).ok();
    wait(60, "the report is gone", || {
        let found = world.cluster.kubectl(["get", "policyreport", "-n", "reported", "mayfly-pod-bad"]);
        if found.code == 0 { Err(found.text()) } else { Ok(()) }
    });
}

/// `wgpolicyk8s.io/v1alpha2` PolicyReport, with the fields and limits that its working group published.
fn report_kind() -> Value {
    let text = json!({"type": "string"});
    let reference = json!({"type": "object", "properties": {"apiVersion": text, "fieldPath": text, "kind": text, "name": text,
        "namespace": text, "resourceVersion": text, "uid": text}});
    let texts = json!({"type": "object", "additionalProperties": text});
    let result = json!({"type": "object", "required": ["policy"], "properties": {
        "category": text, "message": text, "policy": text, "properties": texts, "resources": {"type": "array", "items": reference},
        "result": {"type": "string", "enum": ["pass", "fail", "warn", "error", "skip"]}, "rule": text,
        "scored": {"type": "boolean"}, "severity": {"type": "string", "enum": ["critical", "high", "low", "medium", "info"]},
        "source": text, "timestamp": {"type": "object", "required": ["nanos", "seconds"],
            "properties": {"nanos": {"type": "integer"}, "seconds": {"type": "integer"}}}}});
    let counts: serde_json::Map<_, _> = ["pass", "fail", "warn", "error", "skip"]
        .map(|name| (name.to_owned(), json!({"type": "integer"})))
        .into_iter()
        .collect();
    let schema = json!({"type": "object", "properties": {"apiVersion": text, "kind": text, "metadata": {"type": "object"},
        "results": {"type": "array", "items": result}, "scope": reference, "summary": {"type": "object", "properties": counts}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "policyreports.wgpolicyk8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/wg-policy-prototypes"}},
        "spec": {"group": "wgpolicyk8s.io", "scope": "Namespaced",
            "names": {"kind": "PolicyReport", "listKind": "PolicyReportList", "plural": "policyreports", "singular": "policyreport"},
            "versions": [{"name": "v1alpha2", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
}

pub(crate) fn many_pods_of_an_image_that_was_never_seen_cost_one_look(world: &World) {
    world.namespace("burst", true);
    push(&world.cluster, "burst", "127.0.0.1:5000/burst:1");
    let before = world.requests();
    let pods: Vec<Value> = (0..30)
        .map(|n| pod("burst", &format!("p{n}"), &json!({"containers": [sleeping("127.0.0.1:5000/burst:1")]})))
        .collect();
    let answers: Vec<_> = thread::scope(|scope| {
        let created: Vec<_> =
            pods.iter().map(|pod| scope.spawn(|| world.cluster.kubectl_with(&["create"], pod))).collect();
        created.into_iter().map(|created| created.join().expect("kubectl runs")).collect()
    });
    for answer in answers {
        answer.ok();
    }
    let asked = world.requests() - before;
    println!("30 pods of a new image: {asked} requests to the registry");
    assert!(asked <= 12.0, "{asked} requests");
    world.all_run("burst", 30);
}

pub(crate) fn a_thousand_pods_on_nodes_that_are_not_there_are_all_reviewed(world: &World) {
    const PODS: usize = 1_000;
    let kubeconfig = world.cluster.folder().join("kubeconfig");
    let mut kwok = world.cluster.inside("kwok");
    kwok.args(["--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"]);
    let stages = world.file("stages.yaml", STAGES);
    let _kwok = world.cluster.spawn("kwok", kwok.args(["--config", &stages, "--kubeconfig"]).arg(kubeconfig));
    for node in 0..10 {
        let name = format!("fake-{node}");
        let room = json!({"cpu": "64", "memory": "256Gi", "pods": "110"});
        world.cluster.create(&json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"},
                "labels": {"type": "fake", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
            "spec": {"taints": [{"key": "fake", "effect": "NoSchedule"}]},
            "status": {"allocatable": room, "capacity": room, "nodeInfo": {"architecture": "amd64", "operatingSystem": "linux",
                "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "",
                "machineID": "", "osImage": "", "systemUUID": ""}}}));
    }
    world.namespace("thousand", true);
    push(&world.cluster, "thousand", "127.0.0.1:5000/thousand:1");
    let spec = json!({"nodeSelector": {"type": "fake"}, "tolerations": [{"key": "fake", "operator": "Exists"}],
        "automountServiceAccountToken": false, "containers": [sleeping("127.0.0.1:5000/thousand:1")]});
    let mut object = pod("thousand", "", &spec);
    object["metadata"] = json!({"generateName": "p-", "namespace": "thousand"});

    let allowed = || world.metric("mayfly_reviews_total{verdict=\"allowed\",reason=\"\"}");
    let (reviews, requests, recorded) = (allowed(), world.requests(), world.metric("mayfly_ledger_records_accepted"));
    let began = Instant::now();
    let answers = create_many(&world.cluster, &object, "", PODS, 32);
    let took = began.elapsed();
    assert_eq!(answers.get("201"), Some(&PODS), "{answers:?}");
    let requests = world.requests() - requests;
    println!("{PODS} pods in {:.1} s: {requests} requests to the registry", took.as_secs_f32());
    assert!(allowed() - reviews >= PODS as f64, "{} reviews", allowed() - reviews);
    assert!(requests <= 40.0, "{requests} requests");
    // A decision and a binding of each.
    let recorded = world.metric("mayfly_ledger_records_accepted") - recorded;
    assert!(recorded >= 2.0 * PODS as f64, "{recorded} records");
    assert_eq!(world.metric("mayfly_ledger_records_lost"), 0.0);
    wait(120, "all of them run", || {
        let field = "--field-selector=status.phase=Running";
        let names = world.cluster.kubectl(["get", "pods", "-n", "thousand", field, "-o", "name"]).ok().text();
        let count = names.lines().count();
        if count == PODS { Ok(()) } else { Err(format!("{count} run; {}", kwok_log(world))) }
    });
    world.cluster.kubectl(["delete", "namespace", "thousand", "--wait=false"]).ok();
}

/// What becomes of nodes and pods that are not there: ready at once, running once they have a node.
const STAGES: &str = r#"
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions: [{key: '.status.conditions.[] | select( .type == "Ready" ) | .status', operator: NotIn, values: ["True"]}]
  next:
    statusTemplate: |
      conditions:
      - {type: Ready, status: "True", reason: Fake, message: fake, lastHeartbeatTime: {{ Now | Quote }}, lastTransitionTime: {{ Now | Quote }}}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-runs}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions: [{key: .status.phase, operator: In, values: [Pending]}]
  next:
    statusTemplate: |
      phase: Running
      startTime: {{ Now | Quote }}
      conditions:
      - {type: Ready, status: "True", lastTransitionTime: {{ Now | Quote }}}
"#;

fn kwok_log(world: &World) -> String {
    let log = fs::read_to_string(world.cluster.folder().join("log/kwok")).unwrap_or_default();
    log.lines().rev().take(3).collect::<Vec<_>>().join("\n")
}
