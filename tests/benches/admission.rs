//! How much the webhook costs, as ratios in one run: reviews over TLS on kept-open connections beside a server that answers with a
//! fixed reply, and, where there are the programs of a cluster (`CLUSTER_BIN`), pods created through a real API server beside a
//! webhook that always says yes. A row that misses its limit says so.
//!
//! `cargo bench --workspace --features tests/e2e --bench admission`; `LOAD_SECONDS` says how long each row is driven, `DIGESTS` how many images
//! the last sweep has. It needs `wrk` and, for the images, Debian's `busybox-static`.

use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path as UrlPath, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use axum_server::{
    accept::NoDelayAcceptor,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use dna::Digest;
use serde_json::{Value, json};
use tests::{Cluster, ImageBuilder, Inside, Layer, free_port, mayfly_path, run, tool};

/// Where this program is the server with the fixed reply: the folder of its certificate.
const FIXED: &str = "ADMISSION_FIXED";
const CONNECTIONS: usize = 16;
/// Pods of the mixed rows have one container up to so many.
const CONTAINERS: usize = 5;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let Some(folder) = env::var_os(FIXED) {
        runtime.block_on(answer_always(Path::new(&folder)));
        return ExitCode::SUCCESS;
    }
    let folder = tempfile::tempdir().expect("a folder");
    certificate(&folder.path().join("tls"));
    let mut table = Table::default();
    over_tls(&runtime, folder.path(), &mut table);
    match env::var_os("CLUSTER_BIN") {
        Some(_) => through_the_api_server(folder.path(), &mut table),
        None => println!("not run: pods through an API server (CLUSTER_BIN names no programs of a cluster)"),
    }
    println!("{} rows miss their limits", table.missed);
    ExitCode::SUCCESS
}

/// Rows as they come.
#[derive(Default)]
struct Table {
    missed: usize,
}

impl Table {
    fn row(&mut self, what: &str, says: &str) {
        println!("{what:<52} {says}");
    }

    /// A row with a limit: `value` must be at least, or at most, so much.
    fn judged(&mut self, what: &str, value: f64, limit: Limit) {
        let (is_met, said) = match limit {
            Limit::AtLeast(least) => (value >= least, format!("at least {least}")),
            Limit::AtMost(most) => (value <= most, format!("at most {most}")),
        };
        self.missed += usize::from(!is_met);
        println!("{what:<52} {value:>9.2}  {said}{}", if is_met { "" } else { "  MISSED" });
    }
}

#[derive(Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

fn setting(name: &str, otherwise: usize) -> usize {
    env::var(name).ok().and_then(|value| value.parse().ok()).filter(|value| *value != 0).unwrap_or(otherwise)
}

/// The server with the fixed reply: the same libraries, the same certificate, no work. It says where it listens, as the program does.
async fn answer_always(folder: &Path) {
    let config = served_by(folder).await;
    let listener = std::net::TcpListener::bind(env::var("LISTEN").expect("an address")).expect("it is free");
    listener.set_nonblocking(true).expect("a socket");
    let reply = |_: Bytes| async {
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": "00000000-0000-0000-0000-000000000000", "allowed": true}});
        ([(header::CONTENT_TYPE, "application/json")], body.to_string())
    };
    // The API server takes an answer only with the uid of its question.
    let echo = |body: Bytes| async move {
        let text = String::from_utf8_lossy(&body);
        let uid = text.split("\"uid\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let body = format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{{"uid":"{uid}","allowed":true}}}}"#
        );
        ([(header::CONTENT_TYPE, "application/json")], body)
    };
    let router = Router::new().route("/fixed", post(reply)).route("/validate", post(echo));
    let acceptor = RustlsAcceptor::new(config).acceptor(NoDelayAcceptor::new());
    axum_server::from_tcp(listener)
        .expect("a listener")
        .acceptor(acceptor)
        .serve(router.into_make_service())
        .await
        .expect("it serves");
}

async fn served_by(folder: &Path) -> RustlsConfig {
    // One provider for the process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    RustlsConfig::from_pem_file(folder.join("tls.crt"), folder.join("tls.key")).await.expect("a certificate")
}

fn certificate(folder: &Path) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::CertificateParams::new(names).and_then(|made| made.self_signed(&key)).expect("a certificate");
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join("tls.crt"), made.pem()).expect("written");
    fs::write(folder.join("tls.key"), key.serialize_pem()).expect("written");
}

/// A registry in memory: one layer, and as many images of it as are asked for, which differ by a label.
#[derive(Clone)]
struct Images {
    blobs: Arc<BTreeMap<String, Vec<u8>>>,
    asked: Arc<AtomicUsize>,
}

impl Images {
    fn make(count: usize) -> (Self, Vec<String>) {
        let layout = tempfile::tempdir().expect("a folder");
        let busybox = fs::read("/bin/busybox").expect("Debian's package busybox-static");
        let config = json!({"Entrypoint": ["/bin/busybox"], "Cmd": ["sleep", "3600"], "User": "1000"});
        let layer = Layer::default().file("/bin/busybox", 0o755, busybox).file(
            "/etc/passwd",
            0o644,
            "u:x:1000:1000::/:/bin/sh\n",
        );
        ImageBuilder::new(config).layer(layer).write(layout.path());
        let read = |digest: &str| {
            fs::read(layout.path().join("blobs/sha256").join(digest.trim_start_matches("sha256:"))).expect("a blob")
        };
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
        let digest_of = |value: &Value| value["digest"].as_str().expect("a digest").to_owned();
        let index = parse(&fs::read(layout.path().join("index.json")).expect("an index"));
        let manifest = parse(&read(&digest_of(&index["manifests"][0])));
        let config = parse(&read(&digest_of(&manifest["config"])));
        let mut blobs = BTreeMap::new();
        let mut put = |bytes: Vec<u8>| {
            let (digest, size) = (Digest::sha256(&bytes).to_string(), bytes.len());
            blobs.insert(digest.clone(), bytes);
            (digest, size)
        };
        put(read(&digest_of(&manifest["layers"][0])));
        let digests = (0..count).map(|n| {
            let (mut manifest, mut config) = (manifest.clone(), config.clone());
            config["config"]["Labels"] = json!({"org.opencontainers.image.version": n.to_string()});
            let (digest, size) = put(config.to_string().into_bytes());
            manifest["config"]["digest"] = digest.into();
            manifest["config"]["size"] = size.into();
            put(manifest.to_string().into_bytes()).0
        });
        let digests = digests.collect();
        (Self { blobs: Arc::new(blobs), asked: Arc::default() }, digests)
    }

    fn serve(&self, runtime: &tokio::runtime::Runtime) -> SocketAddr {
        async fn answer(State(images): State<Images>, method: Method, UrlPath(path): UrlPath<String>) -> Response {
            images.asked.fetch_add(1, Ordering::Relaxed);
            let digest = path.rsplit('/').next().unwrap_or_default();
            let Some(bytes) = images.blobs.get(digest) else { return StatusCode::NOT_FOUND.into_response() };
            let mut headers = HeaderMap::new();
            let media_type = match path.contains("/manifests/") {
                true => "application/vnd.oci.image.manifest.v1+json",
                false => "application/octet-stream",
            };
            headers.insert(header::CONTENT_TYPE, media_type.parse().expect("a value"));
            headers.insert("docker-content-digest", digest.parse().expect("a value"));
            headers.insert(header::CONTENT_LENGTH, bytes.len().into());
            let body = if method == Method::HEAD { Vec::new() } else { bytes.clone() };
            (headers, body).into_response()
        }
        let router =
            Router::new().route("/v2/", any(|| async {})).route("/v2/{*path}", any(answer)).with_state(self.clone());
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("an address");
            tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
            address
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// A pod that passes `restricted`.
fn pod(images: &[&str]) -> Value {
    let containers = images.iter().enumerate().map(|(n, image)| {
        json!({"name": format!("c{n}"), "image": image, "command": ["/bin/busybox", "sleep", "3600"],
            "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
            "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 1000,
                "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent",
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]})
    });
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "load", "labels": {"app": "load"}},
        "spec": {"containers": containers.collect::<Vec<_>>(), "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst", "serviceAccountName": "default", "automountServiceAccountToken": false,
            "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true,
            "volumes": [{"name": "tmp", "emptyDir": {}}]}})
}

fn review(images: &[&str], is_dry: bool) -> String {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "name": "p", "namespace": "load",
        "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "requestResource": {"group": "", "version": "v1", "resource": "pods"},
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "uid": "u",
            "groups": ["system:serviceaccounts", "system:authenticated"]},
        "object": pod(images), "oldObject": null, "dryRun": is_dry, "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}}})
    .to_string()
}

/// Pods of one to [`CONTAINERS`] containers, as many as there are images.
fn reviews(images: &[String], is_dry: bool) -> Vec<String> {
    (0..images.len())
        .map(|n| {
            let used: Vec<&str> = (0..=n % CONTAINERS).map(|k| images[(n + k) % images.len()].as_str()).collect();
            review(&used, is_dry)
        })
        .collect()
}

/// A server under load, ended when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn fixed(folder: &Path) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.env(FIXED, folder.join("tls")).env("LISTEN", address.to_string());
        Self::start(command, address)
    }

    /// `mayfly serve` with these rules; its ledger and layers are new.
    fn mayfly(folder: &Path, rules: &Path, name: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(mayfly_path());
        command.args(["serve", "--no-cluster", "--plain-http", "--drain", "0", "--listen", &address.to_string()]);
        command.arg("--tls-dir").arg(folder.join("tls")).arg("--rules").arg(rules).arg("--data").arg(folder.join(name));
        Self::start(command, address)
    }

    fn start(mut command: Command, address: SocketAddr) -> Self {
        let quiet = if env::var_os("SHOW").is_some() { Stdio::inherit() } else { Stdio::null() };
        let child = command
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(quiet)
            .spawn()
            .expect("it starts");
        let patience = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(patience.elapsed() < Duration::from_secs(20), "the server does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Self { child, address }
    }

    fn cpu(&self) -> Duration {
        cpu(self.child.id())
    }

    fn resident_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let kib: f64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number");
        kib / 1024.0
    }
}

/// Processor time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after = stat.rsplit(") ").next().expect("its state");
    // utime and stime, the 14th and 15th of all, in hundredths of a second.
    let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// What `wrk` says.
#[derive(Debug, Clone, Copy)]
struct Load {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    requests: f64,
    failed: f64,
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>7.0}/s  p50 {:>7.2} ms  p99 {:>7.2} ms", self.per_second, self.p50_ms, self.p99_ms)
    }
}

/// What wrk sends: each line of a file in turn.
const LUA: &str = r#"
local bodies = {}
local n = 0
function init(args)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  local token = os.getenv("TOKEN")
  if token then wrk.headers["Authorization"] = "Bearer " .. token end
  for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = wrk.format(nil, nil, nil, line) end
end
function request()
  n = n % #bodies + 1
  return bodies[n]
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %f %f %f %f %f\n", summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, summary.requests, e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// Drives `url` with these bodies for a while.
fn drive(mut wrk: Command, folder: &Path, url: &str, bodies: &[String], connections: usize, seconds: usize) -> Load {
    let (script, lines) = (folder.join("post.lua"), folder.join("bodies"));
    fs::write(&script, LUA).expect("written");
    fs::write(&lines, bodies.join("\n")).expect("written");
    wrk.env("BODIES", &lines).args([
        "-t1",
        &format!("-c{connections}"),
        &format!("-d{seconds}s"),
        "--timeout",
        "10s",
        "-s",
    ]);
    let done = run(wrk.arg(&script).arg(url)).ok();
    let text = done.text();
    let numbers = text.lines().find_map(|line| line.strip_prefix("RESULT ")).unwrap_or_else(|| panic!("{text}"));
    let numbers: Vec<f64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [per_second, p50_ms, p99_ms, requests, failed] = numbers[..] else { panic!("{text}") };
    Load { per_second, p50_ms, p99_ms, requests, failed }
}

/// What a server did under a load: that, and its processor time a request.
fn measure(server: &Server, folder: &Path, path: &str, bodies: &[String], seconds: usize) -> (Load, f64) {
    let (url, wrk) = (format!("https://{}{path}", server.address), || tool("wrk", "wrk"));
    drive(wrk(), folder, &url, &bodies[..bodies.len().min(50)], CONNECTIONS, 1);
    let before = server.cpu();
    let load = drive(wrk(), folder, &url, bodies, CONNECTIONS, seconds);
    assert!(load.failed == 0.0, "{} of {} requests failed", load.failed, load.requests);
    (load, (server.cpu() - before).as_secs_f64() * 1e6 / load.requests)
}

/// Asks about each of these once, so many at a time, and says how long each took. All must be admitted.
fn ask(
    runtime: &tokio::runtime::Runtime,
    address: SocketAddr,
    folder: &Path,
    bodies: Vec<String>,
    at_once: usize,
) -> Vec<f64> {
    let pem = fs::read(folder.join("tls/tls.crt")).expect("a certificate");
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let root = reqwest::Certificate::from_pem(&pem).expect("a certificate");
    let client = reqwest::Client::builder().tls_certs_only([root]).build().expect("a client");
    let url = format!("https://127.0.0.1:{}/validate?timeout=30s", address.port());
    let room = Arc::new(tokio::sync::Semaphore::new(at_once));
    runtime.block_on(async {
        let each = bodies.into_iter().map(|body| {
            let (client, url, room) = (client.clone(), url.clone(), Arc::clone(&room));
            tokio::spawn(async move {
                let _turn = room.acquire().await.expect("it is open");
                let started = Instant::now();
                let answer = client.post(url).body(body).send().await.expect("an answer");
                let answer: Value = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
                assert_eq!(answer["response"]["allowed"], true, "{answer:#}");
                started.elapsed().as_secs_f64() * 1e3
            })
        });
        let each: Vec<_> = each.collect();
        let mut took = Vec::new();
        for one in each {
            took.push(one.await.expect("no panic"));
        }
        took
    })
}

fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

fn over_tls(runtime: &tokio::runtime::Runtime, folder: &Path, table: &mut Table) {
    let seconds = setting("LOAD_SECONDS", 5);
    let (images, digests) = Images::make(setting("DIGESTS", 10_000).max(300));
    let registry = images.serve(runtime);
    let names: Vec<String> = digests.iter().map(|digest| format!("{registry}/team/app@{digest}")).collect();
    let restricted = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/rules/restricted.yaml");
    let nothing = folder.join("no-rules");
    fs::create_dir_all(&nothing).expect("a folder");
    let some = &names[..20];
    let bodies = reviews(some, true);

    let fixed = Server::fixed(folder);
    let (ceiling, own) = measure(&fixed, folder, "/fixed", &bodies, seconds);
    table.row("a fixed reply, pods of 1 to 5 containers", &format!("{ceiling}  {own:>6.0} us of CPU"));
    drop(fixed);

    let server = Server::mayfly(folder, &nothing, "without");
    let (load, cost) = measure(&server, folder, "/validate?timeout=10s", &bodies, seconds);
    table.row("no rules", &format!("{load}  {cost:>6.0} us of CPU"));
    table.judged("  part of the fixed reply's throughput", load.per_second / ceiling.per_second, Limit::AtLeast(0.5));
    drop(server);

    let server = Server::mayfly(folder, &restricted, "with");
    let before = images.asked();
    let burst = ask(runtime, server.address, folder, vec![review(&[&names[200]], false); 200], 200);
    table.row("burst: 200 pods of one image never seen", &format!("all in {:.0} ms", percentile(burst, 100)));
    table.judged("  requests to the registry in all", (images.asked() - before) as f64, Limit::AtMost(12.0));
    let cold =
        ask(runtime, server.address, folder, names[100..200].iter().map(|name| review(&[name], false)).collect(), 1);
    table.row(
        "cold: pods of 100 images never seen, one by one",
        &format!("p50 {:.2} ms  p99 {:.2} ms", percentile(cold.clone(), 50), percentile(cold, 99)),
    );

    ask(runtime, server.address, folder, bodies.clone(), 4);
    let before = images.asked();
    let (mixed, cost) = measure(&server, folder, "/validate?timeout=10s", &bodies, seconds);
    table.row("warm, restricted, pods of 1 to 5 containers", &format!("{mixed}  {cost:>6.0} us of CPU"));
    table.judged("  part of the fixed reply's throughput", mixed.per_second / ceiling.per_second, Limit::AtLeast(0.2));
    table.judged("  p99, times the fixed reply's", mixed.p99_ms / ceiling.p99_ms, Limit::AtMost(5.0));
    table.judged("  requests to the registry", (images.asked() - before) as f64, Limit::AtMost(0.0));
    for containers in [1, 3, CONTAINERS] {
        let same: Vec<&str> = some[..containers].iter().map(String::as_str).collect();
        let (load, cost) = measure(&server, folder, "/validate?timeout=10s", &[review(&same, true)], seconds);
        table.row(&format!("warm, restricted, {containers} containers"), &format!("{load}  {cost:>6.0} us of CPU"));
    }
    let (load, cost) = measure(&server, folder, "/validate?timeout=10s", &reviews(some, false), seconds);
    table.row("  no dry run: each is recorded", &format!("{load}  {cost:>6.0} us of CPU"));
    drop(server);

    let server = Server::mayfly(folder, &restricted, "sweep");
    let mut seen = 0;
    for count in [100, 1_000, names.len()].into_iter().filter(|count| *count <= names.len()) {
        let started = Instant::now();
        ask(runtime, server.address, folder, names[seen..count].iter().map(|name| review(&[name], false)).collect(), 4);
        let (made, took) = (count - seen, started.elapsed().as_secs_f64());
        seen = count;
        let (load, cost) = measure(&server, folder, "/validate?timeout=10s", &reviews(&names[..count], true), seconds);
        table.row(&format!("{count} digests known ({made} in {took:.0} s)"), &format!("{load}  {cost:>6.0} us of CPU"));
        table.judged("  MiB resident", server.resident_mib(), Limit::AtMost(200.0));
    }
}

const IN_CLUSTER: &str = "https://127.0.0.1:8443/validate";
/// Requests at once through the API server.
const AT_ONCE: usize = 8;

/// Pods by `?dryRun=All` through a real API server: the rate with a webhook that always says yes is the ceiling.
fn through_the_api_server(folder: &Path, table: &mut Table) {
    let seconds = setting("LOAD_SECONDS", 5);
    let cluster = Cluster::start("");
    let tls = folder.join("tls");
    cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "load", "labels": {"mayfly.dev/enforce": "true"}}}));
    let digest = run(cluster.inside("crane").args(["digest", "127.0.0.1:5000/busybox:1"])).ok().text();
    let image = format!("127.0.0.1:5000/busybox@{}", digest.trim());
    let bodies: Vec<String> = (1..=CONTAINERS)
        .map(|count| {
            let mut pod = pod(&vec![image.as_str(); count]);
            pod["metadata"]["name"] = Value::Null;
            pod["metadata"]["generateName"] = "p-".into();
            pod.to_string()
        })
        .collect();
    cluster.until("load", "serviceaccount", "default", 20, |_| true);

    let fixed = |cluster: &Cluster| {
        let mut command = cluster.inside(env::current_exe().expect("this program"));
        command.env(FIXED, &tls).env("LISTEN", "127.0.0.1:8443");
        listening(cluster, cluster.spawn("fixed", &mut command))
    };
    let ours = |cluster: &Cluster| {
        let mut command = cluster.inside(mayfly_path());
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:8443",
            "--plain-http",
            "--drain",
            "0",
            "--own-namespace",
            "default",
            "--tls-dir",
        ]);
        command
            .arg(&tls)
            .arg("--rules")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/rules/restricted.yaml"));
        command.arg("--data").arg(folder.join("in-cluster")).env("RUST_LOG", "warn");
        listening(cluster, cluster.spawn("mayfly", &mut command))
    };
    drop(fixed(&cluster));
    let send = |cluster: &Cluster, seconds| {
        let mut wrk = cluster.inside(tool("wrk", "wrk").get_program());
        wrk.env("TOKEN", "admin-token");
        drive(wrk, folder, "https://127.0.0.1:6443/api/v1/namespaces/load/pods?dryRun=All", &bodies, AT_ONCE, seconds)
    };
    let bare = {
        send(&cluster, 2);
        send(&cluster, seconds)
    };
    table.row("API server, no webhook", &bare.to_string());
    register(&cluster, &tls);
    let (mut ceilings, mut loads, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let inside = fixed(&cluster);
        send(&cluster, 2);
        let ceiling = send(&cluster, seconds);
        assert!(ceiling.failed == 0.0, "{} pods failed", ceiling.failed);
        ceilings.push(ceiling);
        drop(inside);
        let inside = ours(&cluster);
        send(&cluster, 2);
        let before = cpu(inside.pid());
        let load = send(&cluster, seconds);
        assert!(load.failed == 0.0, "{} of {} pods failed: {}", load.failed, load.requests, inside.log());
        costs.push((cpu(inside.pid()) - before).as_secs_f64() * 1e3 / load.requests);
        loads.push(load);
    }
    let middle = |loads: &[Load], of: fn(&Load) -> f64| percentile(loads.iter().map(of).collect(), 50);
    for (what, all) in
        [("API server, a webhook that always says yes", &ceilings), ("API server, mayfly under restricted", &loads)]
    {
        table.row(
            what,
            &Load {
                per_second: middle(all, |l| l.per_second),
                p50_ms: middle(all, |l| l.p50_ms),
                p99_ms: middle(all, |l| l.p99_ms),
                requests: 0.0,
                failed: 0.0,
            }
            .to_string(),
        );
    }
    let part = |of: fn(&Load) -> f64| middle(&loads, of) / middle(&ceilings, of);
    table.judged("  part of the ceiling's throughput", part(|load| load.per_second), Limit::AtLeast(0.85));
    table.judged("  p99, times the ceiling's", part(|load| load.p99_ms), Limit::AtMost(1.5));
    table.judged("  ms of our CPU a review", percentile(costs, 50), Limit::AtMost(0.5));
}

/// Once it listens.
fn listening(cluster: &Cluster, inside: Inside) -> Inside {
    let patience = Instant::now();
    while run(cluster.inside("curl").args(["-sk", "-m", "2", IN_CLUSTER])).code != 0 {
        assert!(patience.elapsed() < Duration::from_secs(20), "the webhook does not listen: {}", inside.log());
        thread::sleep(Duration::from_millis(50));
    }
    inside
}

fn register(cluster: &Cluster, tls: &Path) {
    let bundle = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        fs::read(tls.join("tls.crt")).expect("a certificate"),
    );
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "load"}, "webhooks": [{"name": "images.mayfly.dev", "admissionReviewVersions": ["v1"],
            "sideEffects": "NoneOnDryRun", "timeoutSeconds": 10, "failurePolicy": "Fail",
            "clientConfig": {"url": IN_CLUSTER, "caBundle": bundle},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "load"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]}]});
    cluster.kubectl_with(&["apply"], &configuration).ok();
    // The API server looks at its webhooks every second or so.
    thread::sleep(Duration::from_secs(3));
}
