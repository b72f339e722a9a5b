//! The worker against an API server, a registry and a ledger: installed onto pods that run already.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::Path,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use dna::{Digest, Limits, RuntimeFacts};
use lineage::{Decision, Recorder, RecorderOptions, Verdict};
use serde_json::json;

use super::{fake::Fake, *};
use crate::{
    cluster::{self, Permissions},
    gather::{self, Analyzer, Gatherer},
    rulebook::{Beside, Rulebook},
};

/// An image with one layer, a server's name in it, and a port; the registry's address and the manifest's digest.
async fn registry() -> (String, Digest) {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let server = b"#!/bin/sh\n";
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(server.len() as u64);
    layer.append_data(&mut header, SERVER.trim_start_matches('/'), server.as_slice()).expect("a file");
    let layer = layer.into_inner().expect("an archive");
    let diff_id = Digest::sha256(&layer);
    let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "config": {"Entrypoint": ["/app"], "ExposedPorts": {"8080/tcp": {}}}});
    let config = config.to_string().into_bytes();
    let descriptor =
        |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::sha256(bytes), "size": bytes.len()});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)]});
    let manifest = manifest.to_string().into_bytes();
    let digest = Digest::sha256(&manifest);
    let mut content: BTreeMap<String, Vec<u8>> =
        [config, layer].into_iter().map(|bytes| (format!("blobs/{}", Digest::sha256(&bytes)), bytes)).collect();
    content.insert("manifests/1".to_owned(), manifest.clone());
    content.insert(format!("manifests/{digest}"), manifest);
    let content = Arc::new(content);
    let answer = move |Path(path): Path<String>| async move {
        match content.get(&path) {
            None => StatusCode::NOT_FOUND.into_response(),
            Some(bytes) => {
                let kind = if path.starts_with("manifests") { MANIFEST } else { "application/octet-stream" };
                let headers = [
                    (header::CONTENT_TYPE, kind.to_owned()),
                    (header::HeaderName::from_static("docker-content-digest"), Digest::sha256(bytes).to_string()),
                ];
                (headers, bytes.clone()).into_response()
            }
        }
    };
    let router = Router::new().route("/v2/", get(|| async { "{}" })).route("/v2/app/{*path}", get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address.to_string(), digest)
}

/// Thirty pods of three Deployments, one of them in an exempt namespace, and a pod of the kubelet's own.
fn install(fake: &Fake, registry: &str, digest: &Digest) -> Vec<String> {
    let mut uids = Vec::new();
    let mut pod = |namespace: &str, name: &str, more: &Value| {
        let uid = format!("uid-{namespace}-{name}");
        let mut object = json!({
            "metadata": {"name": name, "namespace": namespace, "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": format!("{registry}/app:1")}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "c", "imageID": format!("{registry}/app@{digest}")}]}});
        for (field, value) in more.as_object().expect("fields") {
            object["metadata"][field] = value.clone();
        }
        fake.put(&format!("/api/v1/namespaces/{namespace}/pods/{name}"), object);
        uids.push(uid);
    };
    let owner = |group: &str, kind: &str, name: &str| json!([{"apiVersion": format!("{group}/v1"), "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true}]);
    for (namespace, name) in [("shop", "web"), ("shop", "api"), ("infra", "dns")] {
        let set = format!("{name}-6f");
        fake.put(
            &format!("/apis/apps/v1/namespaces/{namespace}/replicasets/{set}"),
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": set, "namespace": namespace,
                "uid": format!("uid-{set}"), "ownerReferences": owner("apps", "Deployment", name)}}),
        );
        for at in 0..10 {
            pod(namespace, &format!("{set}-{at}"), &json!({"ownerReferences": owner("apps", "ReplicaSet", &set)}));
        }
        let label = if namespace == "infra" { json!({EXEMPT: "true"}) } else { json!({}) };
        fake.put(&format!("/api/v1/namespaces/{namespace}"), json!({"metadata": {"name": namespace, "labels": label}}));
    }
    pod(
        "infra",
        "etcd-node-1",
        &json!({"annotations": {"kubernetes.io/config.mirror": "uid-infra-etcd-node-1"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "n", "controller": true}]}),
    );
    fake.put("/api/v1/nodes/node-1", json!({"metadata": {"name": "node-1"}, "status": {"nodeInfo": {
        "operatingSystem": "linux", "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "",
        "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "osImage": "", "systemUUID": ""}}}));
    let reports = json!({"groupVersion": "wgpolicyk8s.io/v1alpha2", "resources": [{"name": "policyreports",
        "singularName": "", "namespaced": true, "kind": "PolicyReport", "verbs": ["patch"]}]});
    fake.put("/apis/wgpolicyk8s.io/v1alpha2", reports);
    uids
}

fn rule(name: &str, spec: &str) -> Rulebook {
    let text =
        format!("apiVersion: mayfly.dev/v1alpha1\nkind: ClusterImageRule\nmetadata: {{name: {name}}}\nspec: {spec}\n");
    let rules = policies::load([("rules.yaml", text.as_str())]).expect("rules");
    Rulebook::new(rules, Vec::new(), &Beside::default(), Timestamp::now())
}

struct Bench {
    worker: Worker,
    fake: Fake,
    recorder: Arc<Recorder>,
    ledger: Ledger,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new(fake: Fake) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let ledger = Ledger::open(&url).await.expect("a ledger");
        let options = RecorderOptions::new(folder.path().join("spool"));
        let recorder = Arc::new(Recorder::start(ledger.clone(), &options).expect("a recorder"));
        let registry = oci::registry::Settings { plain_http: true, retries: 0, ..oci::registry::Settings::default() };
        let limits = Limits::default();
        let analyzer = Arc::new(Analyzer::new(limits.clone(), None, 64 << 20).expect("an analyzer"));
        let settings =
            gather::Settings { registry, runtime: RuntimeFacts::default(), limits, memory_bytes: 32 << 20, seal: None };
        let gatherer = Arc::new(Gatherer::new(settings, analyzer, Some(ledger.clone())));
        let may = Permissions { secrets: false, config_maps: true };
        let cluster = cluster::Cluster::new(Some(fake.client()), may);
        let settings = crate::service::Settings {
            cluster: "test".to_owned(),
            own_namespace: Some("mayfly-system".to_owned()),
            exempting_groups: BTreeSet::new(),
            inline_bytes: 64 << 20,
        };
        let service = Arc::new(Service::new(gatherer, cluster, Some(recorder.clone()), None, settings));
        let settings = Settings {
            identity: "one".to_owned(),
            namespace: "mayfly-system".to_owned(),
            sample: 1,
            retention: Retention::default(),
        };
        let worker = Worker::new(service, Some(ledger.clone()), settings);
        Self { worker, fake, recorder, ledger, _folder: folder }
    }

    /// Looks once, and works until `is_done`.
    async fn work(&self, is_done: impl Fn(&Board) -> bool) {
        let cluster = self.worker.cluster.as_ref().expect("a cluster");
        self.worker.look(cluster).await.expect("a look");
        let done = async {
            while !is_done(&self.worker.board()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let working = async {
            tokio::select! {
                _ = future::join(self.worker.keep_doing(false), self.worker.keep_doing(true)) => {}
                () = done => {}
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), working).await;
        assert!(in_time.is_ok(), "it does not end: {:?}", self.worker.board().counts());
    }

    /// Until everything that was recorded is in the ledger.
    async fn written(&self) {
        let written = async {
            while self.recorder.counts().accepted != self.recorder.counts().written {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), written).await.expect("the ledger takes it");
    }

    async fn decisions(&self, has_unknowns: bool) -> Vec<lineage::DecisionRow> {
        let query = DecisionQuery { has_unknowns, limit: 100, ..DecisionQuery::default() };
        self.ledger.decisions(&query).await.expect("decisions")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn installed_onto_running_pods_it_covers_all_and_follows_the_rules() {
    let (registry, digest) = registry().await;
    let fake = Fake::default();
    let uids = install(&fake, &registry, &digest);
    let bench = Bench::new(fake).await;
    bench.worker.service.arm(rule("by-digest", "{tags: RequireDigest, enforcement: Always}"));
    bench.work(|board| board.counts().1 == 31 && board.workloads().len() == 4).await;
    bench.written().await;

    for uid in &uids {
        let rows = bench.ledger.bindings_of_pod("test", uid).await.expect("bindings");
        assert_eq!(rows.len(), 1, "{uid}");
        assert_eq!(rows[0].digest.as_ref(), Some(&digest), "{uid}");
        assert_eq!(rows[0].image, format!("{registry}/app:1"), "as the pod names it");
        assert!(rows[0].expectation.is_some() && rows[0].decision.is_none(), "{uid}");
    }
    let verdicts = |rows: &[lineage::DecisionRow]| {
        let mut all: Vec<String> =
            rows.iter().map(|row| format!("{} {}/{} {:?}", row.namespace, row.kind, row.name, row.verdict)).collect();
        all.sort();
        all
    };
    // One of each workload; where nothing is refused it is recorded.
    let expected = [
        "infra Deployment/dns Allow",
        "infra Pod/etcd-node-1 Allow",
        "shop Deployment/api Deny",
        "shop Deployment/web Deny",
    ];
    let rows = bench.decisions(false).await;
    assert_eq!(verdicts(&rows), expected);
    assert!(rows.iter().all(|row| row.user == "system:mayfly"));
    let report =
        |name: &str| bench.fake.state().objects[&format!("/apis/wgpolicyk8s.io/v1alpha2/{name}")]["summary"].clone();
    let web = "namespaces/shop/policyreports/mayfly-deployment-web";
    assert_eq!(report(web)["fail"], 1);
    assert_eq!(report("namespaces/infra/policyreports/mayfly-deployment-dns")["fail"], 1);

    // Other rules: everything is decided again, and what is bound stays.
    bench.worker.service.arm(rule("known", "{require: {dna: {}}, enforcement: Always}"));
    let book = bench.worker.service.rulebook.load_full().expect("rules").digest.clone();
    let all_by = |board: &Board| board.decided_by(&book) == 4;
    bench.work(all_by).await;
    bench.written().await;
    assert_eq!(bench.decisions(false).await.len(), 8);
    assert_eq!((report(web)["fail"].clone(), report(web)["pass"].clone()), (json!(0), json!(1)));

    // Half of them end: their bindings go.
    for at in 0..10 {
        bench.fake.state().objects.remove(&format!("/api/v1/namespaces/shop/pods/web-6f-{at}"));
    }
    bench.work(|board| board.counts().0 == 21).await;
    let rows = bench.ledger.bindings_of_pod("test", "uid-shop-web-6f-0").await.expect("bindings");
    assert_eq!(rows, []);
    let is_there = bench.fake.state().objects.contains_key(&format!("/apis/wgpolicyk8s.io/v1alpha2/{web}"));
    assert!(!is_there, "nothing of it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_bound_again_when_its_files_change_and_its_variables_count_from_the_next_start() {
    let (registry, digest) = registry().await;
    let fake = Fake::default();
    let put_map = |name: &str, key: &str, value: &str, modified: &str| {
        let object = json!({"metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{"manager": "kubectl", "operation": "Update", "time": modified}]}, "data": {key: value}});
        fake.put(&format!("/api/v1/namespaces/shop/configmaps/{name}"), object);
    };
    let put_pod = |started: &str| {
        let object = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "uid-web", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "node-1", "volumes": [{"name": "files", "configMap": {"name": "files"}}],
                "containers": [{"name": "c", "image": format!("{registry}/app:1"), "command": [SERVER, "/conf/redis.conf"], "args": ["--loglevel", "$(MODE)"],
                    "env": [{"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "mode"}}}],
                    "volumeMounts": [{"name": "files", "mountPath": "/conf"}]}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "c", "imageID": format!("{registry}/app@{digest}"),
                "containerID": format!("containerd://{started}"), "state": {"running": {"startedAt": started}}}]}});
        fake.put("/api/v1/namespaces/shop/pods/web", object);
    };
    let later = |seconds: i64| (Timestamp::now() + SignedDuration::from_secs(seconds)).to_string();
    fake.put("/api/v1/namespaces/shop", json!({"metadata": {"name": "shop"}}));
    put_map("files", "redis.conf", "port 7001\n", "2026-01-01T00:00:00Z");
    put_map("env", "mode", "fast", "2026-01-01T00:00:00Z");
    put_pod("2026-01-01T00:01:00Z");
    let bench = Bench::new(fake.clone()).await;
    bench.worker.service.arm(rule("by-digest", "{tags: RequireDigest}"));
    let bound = async || {
        bench.work(Board::is_idle).await;
        bench.written().await;
        let rows = bench.ledger.bindings_of_pod("test", "uid-web").await.expect("bindings");
        assert_eq!(rows.len(), 1, "{rows:?}");
        let digest = rows[0].expectation.clone().expect("an expectation");
        let bytes = bench.ledger.expectation(&digest).await.expect("an answer").expect("it is there");
        String::from_utf8(bytes).expect("JSON")
    };
    let first = bound().await;
    assert!(first.contains("7001") && first.contains("fast"), "{first}");
    assert_eq!(bound().await, first);

    put_map("env", "mode", "slow", &later(0));
    assert_eq!(bound().await, first, "variables stay as they were");
    // Another replica is elected, which knows of no earlier look.
    *bench.worker.board() = Board::default();
    assert_eq!(bound().await, first);

    put_map("files", "redis.conf", "port 7002\n", &later(0));
    let second = bound().await;
    assert!(second.contains("7002") && !second.contains("7001"), "{second}");
    assert!(!second.contains("fast") && !second.contains("slow"), "what it was started with nobody knows: {second}");
    bench.fake.state().objects.remove("/api/v1/namespaces/shop/configmaps/files");
    assert_eq!(bound().await, second, "the kubelet leaves the files of what is gone");

    put_map("files", "redis.conf", "port 7002\n", &later(0));
    put_pod(&later(10));
    let third = bound().await;
    assert!(third.contains("7002") && third.contains("slow"), "{third}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_come_of_what_was_decided_before_the_cluster_had_any() {
    let (registry, digest) = registry().await;
    let fake = Fake::default();
    install(&fake, &registry, &digest);
    let kind = "/apis/wgpolicyk8s.io/v1alpha2";
    let list = fake.state().objects.remove(kind).expect("it was put there");
    let bench = Bench::new(fake).await;
    bench.worker.service.arm(rule("by-digest", "{tags: RequireDigest, enforcement: Always}"));
    bench.work(|board| board.workloads().len() == 4).await;
    let written = || bench.fake.state().objects.keys().filter(|path| path.contains("/policyreports/")).count();
    assert_eq!(written(), 0);
    bench.fake.put(kind, list);
    bench.work(|_| true).await;
    assert_eq!(written(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_admitted_without_all_facts_is_settled_once_all_are_known() {
    let (registry, digest) = registry().await;
    let fake = Fake::default();
    install(&fake, &registry, &digest);
    let bench = Bench::new(fake).await;
    bench.worker.service.arm(rule("known", "{require: {dna: {}}, enforcement: Always}"));
    let at = Timestamp::now().checked_sub(SignedDuration::from_hours(1)).expect("a time");
    for (kind, name) in [("Pod", "web-6f-"), ("Deployment", "gone")] {
        let details = lineage::Document::pack(b"{}").expect("a document");
        bench.recorder.record(Decision {
            id: uuid::Uuid::now_v7(),
            at,
            cluster: "test".to_owned(),
            namespace: "shop".to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            user: "alice".to_owned(),
            operation: "CREATE".to_owned(),
            verdict: Verdict::Allow,
            is_dry_run: false,
            has_unknowns: true,
            images: Vec::new(),
            rules: Vec::new(),
            details,
        });
    }
    bench.written().await;
    bench.work(|board| board.workloads().len() == 4).await;
    let open = bench.decisions(true).await;
    assert_eq!(open.len(), 1, "what does not run is settled at once: {open:?}");
    bench.work(|_| true).await;
    assert_eq!(bench.decisions(true).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_over_wide_dna_that_somebody_attests_is_an_alert() {
    let (registry, digest) = registry().await;
    let fake = Fake::default();
    install(&fake, &registry, &digest);
    let bench = Bench::new(fake).await;
    bench.worker.service.arm(rule("known", "{require: {dna: {}}, enforcement: Always}"));
    let cluster = bench.worker.cluster.as_ref().expect("a cluster");
    let found = cluster.pod(&named("shop", "web-6f-0")).await.expect("an answer").expect("a pod");
    let pod = found.named();
    let asked = bench.worker.asked(cluster, &pod).await.expect("an answer").expect("a pod");
    let facts = bench.worker.facts(&asked, &asked.needs).await.expect("facts");
    let ours = facts[0].dna.known().expect("a DNA").document.clone();

    let mut wide = ours.as_ref().clone();
    let syscall = |at: u32| dna::Known {
        what: dna::Syscall { name: format!("call-{at}"), arguments: None, phase: None },
        confidence: dna::Confidence::Certain,
        probability: None,
        when: Vec::new(),
        evidence: Vec::new(),
    };
    let many = u32::try_from(wide.behavior.syscalls.len()).expect("few") + 1;
    wide.behavior.syscalls.extend((0..many).map(syscall));
    // Neither what is ours, nor ours without what it merely might do, is told.
    for (at, document) in [ours, Arc::new(wide)].into_iter().enumerate() {
        let attested = Digest::sha256(&[u8::try_from(at).expect("few")]);
        let signers = BTreeSet::from(["signer".to_owned()]);
        let (pod, container, image) = (pod.clone(), "c".to_owned(), digest.clone());
        bench.worker.board().sample(board::Sample { pod, container, image, attested, document, signers });
    }
    for _ in 0..2 {
        let job = bench.worker.board().next(false);
        let Some(Job::Sample(sample)) = job else { panic!("two samples wait, found {job:?}") };
        bench.worker.sample(cluster, &sample).await.expect("a comparison");
    }
    bench.written().await;
    let rows = bench.decisions(false).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0].operation.as_str(), rows[0].verdict), ("COMPARE", Verdict::Warn));
    assert_eq!((rows[0].kind.as_str(), rows[0].name.as_str()), ("Deployment", "web"));
    let alert = bench.ledger.decision(rows[0].id).await.expect("an answer").expect("a decision");
    let details: Value = serde_json::from_slice(&alert.details.unpack().expect("details")).expect("JSON");
    let details = &details["dnaDisagreement"];
    assert_eq!(details["attested"], Digest::sha256(&[1]).to_string());
    assert!(details["analyzed"].is_string() && details["sameRules"] == true, "{details}");
    assert_eq!(details["disagreements"][0]["kind"], "wider");
}

fn named(namespace: &str, name: &str) -> running::Named {
    let uid = format!("uid-{namespace}-{name}");
    running::Named { namespace: namespace.to_owned(), name: name.to_owned(), bound: uid.clone(), uid }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_cut_short_ends_nothing() {
    let (registry, digest) = registry().await;
    let fake = Fake::default();
    install(&fake, &registry, &digest);
    for at in 0..300 {
        let pod = json!({"metadata": {"name": format!("p{at}"), "namespace": "bulk", "uid": format!("bulk-{at}")},
            "spec": {"containers": []}, "status": {"phase": "Running"}});
        fake.put(&format!("/api/v1/namespaces/bulk/pods/p{at}"), pod);
    }
    let bench = Bench::new(fake).await;
    let cluster = bench.worker.cluster.as_ref().expect("a cluster");
    bench.worker.look(cluster).await.expect("a look");
    assert_eq!(bench.worker.board().counts().0, 331);
    bench.fake.state().gone = 1;
    assert!(bench.worker.look(cluster).await.is_err());
    assert_eq!(bench.worker.board().counts().0, 331);
}

const SERVER: &str = "/usr/bin/redis-server";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
