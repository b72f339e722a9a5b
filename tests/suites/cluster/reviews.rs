//! What is reviewed, and what is not: carriers of images, kinds, updates, dry runs, labels of namespaces.

use serde_json::{Value, json};

use crate::world::{BUSYBOX, World, is_running, pinned, pod, sleeping};

pub(crate) fn a_pod_that_fits_is_admitted_and_runs(world: &World) {
    world.namespace("fits", true);
    world.cluster.create(&pod("fits", "sleeps", &json!({"containers": [sleeping(BUSYBOX)]})));
    world.cluster.until("fits", "pod", "sleeps", 60, is_running);
}

pub(crate) fn what_would_not_start_is_refused_where_it_is_enforced_and_does_not_start_where_it_is_not(world: &World) {
    let broken = json!({"containers": [{"name": "main", "image": BUSYBOX, "command": ["/no/such/program"]}]});
    world.namespace("broken", true);
    let why = world.refused(&pod("broken", "broken", &broken));
    assert!(why.contains("WILL_NOT_START") && why.contains("/no/such/program"), "{why}");
    world.namespace("audited", false);
    world.cluster.create(&pod("audited", "broken", &broken));
    let failed = |pod: &Value| {
        let state = pod.pointer("/status/containerStatuses/0");
        state.is_some_and(|state| state.to_string().contains("no such file or directory"))
    };
    world.cluster.until("audited", "pod", "broken", 60, failed);
    let root = json!({"containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "9"],
        "securityContext": {"runAsNonRoot": true}}]});
    let why = world.refused(&pod("broken", "root", &root));
    assert!(why.contains("runAsNonRoot"), "{why}");
}

pub(crate) fn every_carrier_of_an_image_is_reviewed(world: &World) {
    world.cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "carriers",
        "labels": {"mayfly.dev/enforce": "digests", "digests": "true"}}}));
    world.cluster.until("carriers", "serviceaccount", "default", 20, |_| true);
    let by_digest = pinned(world, BUSYBOX);
    let good = sleeping(&by_digest);
    let bad = |name: &str| json!({"name": name, "image": BUSYBOX, "command": ["sleep", "1"]});
    let mut sidecar = bad("side");
    sidecar["restartPolicy"] = json!("Always");
    let specs = [
        ("container", json!({"containers": [bad("main")]})),
        ("second", json!({"containers": [good, bad("second")]})),
        ("init", json!({"containers": [good], "initContainers": [bad("init")]})),
        ("sidecar", json!({"containers": [good], "initContainers": [sidecar]})),
        ("volume", json!({"containers": [good], "volumes": [{"name": "v", "image": {"reference": BUSYBOX}}]})),
    ];
    for (name, spec) in specs {
        let why = world.refused(&pod("carriers", name, &spec));
        assert!(why.contains("TAG_NOT_ALLOWED") || why.contains("digest"), "{name}: {why}");
    }
    world.cluster.create(&pod("carriers", "good", &json!({"containers": [good]})));
    world.cluster.until("carriers", "pod", "good", 60, is_running);
    let debug = world.cluster.kubectl(["debug", "-n", "carriers", "good", "--image", BUSYBOX, "--", "sleep", "9"]);
    assert!(debug.code != 0 && debug.stderr.contains("denied"), "an ephemeral container: {}", debug.stderr);
    world.cluster.kubectl(["debug", "-n", "carriers", "good", "--image", &by_digest, "--", "sleep", "9"]).ok();
}

pub(crate) fn every_kind_with_a_pod_is_reviewed(world: &World) {
    world.cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kinds",
        "labels": {"mayfly.dev/enforce": "digests", "digests": "true"}}}));
    world.cluster.until("kinds", "serviceaccount", "default", 20, |_| true);
    for image in [BUSYBOX.to_owned(), pinned(world, BUSYBOX)] {
        let is_good = image.contains('@');
        let labels = json!({"app": "x"});
        let template = |policy: &str| json!({"metadata": {"labels": labels}, "spec": {"restartPolicy": policy, "containers": [sleeping(&image)]}});
        let apps = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": template("Always")});
        let mut daemon = apps.clone();
        daemon.as_object_mut().expect("an object").remove("replicas");
        daemon["template"]["spec"]["nodeSelector"] = json!({"no": "node"});
        let mut stateful = apps.clone();
        stateful["serviceName"] = json!("x");
        let job = json!({"suspend": true, "template": template("Never")});
        let objects = [
            ("apps/v1", "Deployment", apps.clone()),
            ("apps/v1", "ReplicaSet", apps.clone()),
            ("apps/v1", "StatefulSet", stateful),
            ("apps/v1", "DaemonSet", daemon),
            ("batch/v1", "Job", job.clone()),
            ("batch/v1", "CronJob", json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job}})),
            ("v1", "ReplicationController", json!({"replicas": 0, "selector": labels, "template": template("Always")})),
            ("v1", "PodTemplate", Value::Null),
        ];
        for (version, kind, spec) in objects {
            let metadata = json!({"name": kind.to_lowercase(), "namespace": "kinds"});
            let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
            match kind {
                "PodTemplate" => object["template"] = template("Always"),
                _ => object["spec"] = spec,
            }
            let done = world.cluster.kubectl_with(&["create"], &object);
            assert_eq!(done.code == 0, is_good, "{kind} with {image}: {}", done.stderr);
        }
    }
}

pub(crate) fn updates_are_reviewed_where_something_changes_that_is_judged_and_never_hold_up_an_end(world: &World) {
    world.namespace("updates", true);
    world.cluster.create(&pod("updates", "one", &json!({"containers": [sleeping(BUSYBOX)]})));
    world.cluster.until("updates", "pod", "one", 60, is_running);
    world.cluster.kubectl(["label", "-n", "updates", "pod", "one", "a=b"]).ok();
    let missing = world.cluster.kubectl(["set", "image", "-n", "updates", "pod/one", "main=127.0.0.1:5000/no-such:1"]);
    assert!(missing.code != 0 && missing.stderr.contains("denied"), "{}", missing.stderr);
    let labels = json!({"app": "d"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "updates"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [sleeping(BUSYBOX)]}}}});
    world.cluster.create(&deployment);
    let rolled = |object: &Value| object.pointer("/status/readyReplicas") == Some(&json!(1));
    world.cluster.until("updates", "deployment", "d", 60, rolled);
    world.cluster.kubectl(["scale", "-n", "updates", "deployment", "d", "--replicas", "2"]).ok();
    // The same image, and a field that a rule reads.
    let privileged =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"main","securityContext":{"privileged":true}}]}}}}"#;
    let patched = world.cluster.kubectl(["patch", "-n", "updates", "deployment", "d", "-p", privileged]).ok();
    assert!(patched.stderr.contains("PRIVILEGED"), "a template warns: {}", patched.stderr);
    world.cluster.kubectl(["delete", "-n", "updates", "deployment", "d", "--wait=false"]).ok();
    world.cluster.kubectl(["delete", "-n", "updates", "pod", "one", "--wait=true", "--timeout=60s"]).ok();
}

pub(crate) fn a_dry_run_is_answered_and_leaves_nothing(world: &World) {
    world.namespace("dry", true);
    let accepted = || world.metric("mayfly_ledger_records_accepted");
    let broken = json!({"containers": [{"name": "main", "image": BUSYBOX, "command": ["/no/such/program"]}]});
    let object = pod("dry", "broken", &broken);
    let done = world.cluster.kubectl_with(&["create", "--dry-run=server"], &object);
    assert!(done.code != 0 && done.stderr.contains("WILL_NOT_START"), "{}", done.stderr);
    let before = accepted();
    assert_eq!(world.cluster.kubectl_with(&["create", "--dry-run=server"], &object).code, 1);
    let fine = pod("dry", "fine", &json!({"containers": [sleeping(BUSYBOX)]}));
    world.cluster.kubectl_with(&["create", "--dry-run=server"], &fine).ok();
    assert_eq!(accepted(), before);
}

pub(crate) fn few_may_exempt_a_namespace(world: &World) {
    world.namespace("labels", true);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "alice"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}]});
    world.cluster.create(&role);
    for change in ["mayfly.dev/exempt=true", "mayfly.dev/enforce-"] {
        let done = world.cluster.kubectl(["label", "--as", "alice", "namespace", "labels", change, "--overwrite"]);
        assert!(done.code != 0 && done.stderr.contains("may change the label"), "{change}: {}", done.stderr);
    }
    world.cluster.kubectl(["label", "--as", "alice", "namespace", "labels", "team=x"]).ok();
    world.cluster.kubectl(["label", "namespace", "labels", "mayfly.dev/exempt=true"]).ok();
}
