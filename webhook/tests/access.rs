//! What a `RegistryAccess` says, against registries that hold everybody to it.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dna::{Digest, Limits, RuntimeFacts};
use jiff::Timestamp;
use oci::registry::PullSecret;
use serde_json::{Value, json};
use sigstore_instance::loopback::{self, Stream};
use webhook::{
    cluster::{Cluster, Permissions},
    gather::{self, Analyzer, Gatherer},
    rulebook::{Beside, Rulebook},
    service::{Service, Settings},
};

/// A registry with one image under every name.
struct Registry {
    port: u16,
    ca_pem: String,
    served: Served,
}

/// What it goes by, and what it saw.
#[derive(Clone)]
struct Served {
    /// What `Authorization` must be; none: everybody may read.
    wanted: Option<String>,
    /// When it was asked, and how many were inside at once.
    asked: Arc<Mutex<Vec<Instant>>>,
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Registry {
    fn start(tls: bool, wanted: Option<&str>) -> Self {
        let served = Served {
            wanted: wanted.map(str::to_owned),
            asked: Arc::default(),
            inside: Arc::default(),
            most: Arc::default(),
        };
        let answering = served.clone();
        let (port, ca_pem) = loopback::serve(tls, move |stream| answering.answer(stream));
        Self { port, ca_pem, served }
    }

    fn reference(&self, name: &str) -> String {
        let (manifest, _) = image();
        format!("localhost:{}/{name}@{}", self.port, Digest::sha256(manifest.as_bytes()))
    }
}

impl Served {
    fn answer(&self, stream: &mut dyn Stream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while reader.read_line(&mut head)? > 2 {}
        self.asked.lock().expect("no panic").push(Instant::now());
        self.most.fetch_max(self.inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(10));
        self.inside.fetch_sub(1, Ordering::SeqCst);
        let (manifest, config) = image();
        let shown =
            head.lines().find_map(|line| line.to_ascii_lowercase().starts_with("authorization: ").then(|| &line[15..]));
        let (status, kind, body) = match () {
            () if self.wanted.as_deref().is_some_and(|wanted| shown != Some(wanted)) => {
                ("401 Unauthorized\r\nwww-authenticate: Basic realm=\"tests\"", "text/plain", String::new())
            }
            () if head.contains("/manifests/sha256:") => ("200 OK", MANIFEST, manifest),
            () if head.contains("/blobs/") => ("200 OK", "application/octet-stream", config),
            () => ("404 Not Found", "text/plain", String::new()),
        };
        let named = Digest::sha256(body.as_bytes());
        let sent = if head.starts_with("HEAD") { "" } else { body.as_str() };
        let stream = reader.get_mut();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ndocker-content-digest: {named}\r\nconnection: close\r\n\r\n{sent}",
            body.len()
        )?;
        stream.flush()
    }
}

/// Manifest and configuration.
fn image() -> (String, String) {
    let config = json!({"os": "linux", "architecture": "amd64", "config": {"User": "1000"}, "rootfs": {"type": "layers", "diff_ids": []}});
    let config = config.to_string();
    let (digest, size) = (Digest::sha256(config.as_bytes()), config.len());
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size}});
    (manifest.to_string(), config)
}

/// A service with a rule that must read the image, and one `RegistryAccess`.
fn service(access: &Value, beside: &Beside) -> Service {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let limits = Limits::default();
    let settings = gather::Settings {
        registry: oci::registry::Settings { retries: 0, credentials: Vec::new(), ..oci::registry::Settings::default() },
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
        own_namespace: None,
        exempting_groups: BTreeSet::new(),
        inline_bytes: 64 << 20,
    };
    let service = Service::new(gatherer, cluster, None, None, settings);
    let object = |kind: &str, spec: &Value| json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec});
    let rule = object(
        "ClusterImageRule",
        &json!({"enforcement": "Always",
            "validations": [{"name": "user", "expression": "image.config.user == '1000'"}]}),
    );
    let objects = [rule, object("RegistryAccess", access)];
    let (rules, problems) = policies::Rules::from_objects(&objects);
    assert!(problems.is_empty(), "{problems:?}");
    service.arm(Rulebook::new(rules, Vec::new(), beside, Timestamp::now()));
    service
}

async fn answer(service: &Service, images: &[String]) -> Value {
    let containers = images.iter().enumerate().map(|(n, image)| json!({"name": format!("c{n}"), "image": image}));
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"}, "namespace": "n", "name": "p",
        "operation": "CREATE", "userInfo": {"username": "alice"}, "oldObject": null,
        "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers.collect::<Vec<_>>()}},
    }});
    let response = service.review(review.to_string().as_bytes(), Instant::now() + Duration::from_secs(20)).await;
    serde_json::from_slice(&response.to_json()).expect("JSON")
}

fn admitted(answer: &Value) {
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
}

fn refused(answer: &Value, code: &str) {
    let said = answer["response"]["status"]["message"].as_str().unwrap_or_default();
    assert!(answer["response"]["allowed"] == false && said.contains(code), "{code}: {answer}");
}

#[tokio::test]
async fn its_authorities_are_trusted_for_its_hosts_alone() {
    let (registry, other) = (Registry::start(true, None), Registry::start(true, None));
    let images = [registry.reference("app")];
    let access = |hosts: &str| json!({"hosts": [hosts], "caBundle": {"name": "ca"}});
    let beside = |pem: &str| Beside { authorities: [("x".to_owned(), pem.to_owned())].into(), ..Beside::default() };
    let host = format!("localhost:{}", registry.port);
    admitted(&answer(&service(&access(&host), &beside(&registry.ca_pem)), &images).await);
    admitted(
        &answer(&service(&access("local*:*"), &beside(&format!("{}{}", other.ca_pem, registry.ca_pem))), &images).await,
    );
    for (access, beside) in [
        (access(&host), beside(&other.ca_pem)),
        (access(&host), Beside::default()),
        (access(&format!("localhost:{}", other.port)), beside(&registry.ca_pem)),
        (json!({"hosts": [host]}), Beside::default()),
    ] {
        refused(&answer(&service(&access, &beside), &images).await, "REGISTRY_UNAVAILABLE");
    }
    assert!(other.served.asked.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn its_credentials_are_shown_in_the_order_that_it_says() {
    let registry = Registry::start(false, Some("Basic bWF5OmZseQ=="));
    let images = [registry.reference("team/app")];
    let host = format!("localhost:{}", registry.port);
    let secret = |place: &str, password: &str| {
        let auths = json!({"auths": {(place): {"username": "may", "password": password}}});
        PullSecret::parse(auths.to_string().as_bytes(), false, "n/pull").expect("a secret")
    };
    let told = async |authentication: Value, secret: Option<PullSecret>| {
        let access = json!({"hosts": [host], "plainHttp": true, "authentication": authentication, "pullSecret": {"name": "pull"}});
        let secrets = secret.map(|secret| ("x".to_owned(), secret)).into_iter().collect();
        answer(&service(&access, &Beside { secrets, ..Beside::default() }), &images).await
    };
    admitted(&told(json!(["Secret"]), Some(secret(&host, "fly"))).await);
    admitted(&told(json!(["Secret"]), Some(secret(&format!("{host}/team"), "fly"))).await);
    admitted(&told(json!(["PodSecrets", "ServiceAccount", "Secret"]), Some(secret(&host, "fly"))).await);
    for (authentication, secret) in [
        (json!(["Secret"]), Some(secret(&host, "wrong"))),
        (json!(["Secret"]), Some(secret("elsewhere.example.com", "fly"))),
        (json!(["Secret"]), None),
        (json!(["Anonymous"]), Some(secret(&host, "fly"))),
        (json!(["PodSecrets"]), Some(secret(&host, "fly"))),
    ] {
        refused(&told(authentication, secret).await, "REGISTRY_AUTH");
    }
}

#[tokio::test]
async fn its_limits_bound_what_all_reviews_ask_together() {
    let measured = async |limits: Value| {
        let registry = Registry::start(false, None);
        let access = json!({"hosts": [format!("localhost:{}", registry.port)], "plainHttp": true, "limits": limits});
        let service = service(&access, &Beside::default());
        let images: Vec<Vec<String>> =
            (0..3).map(|pod| (0..3).map(|n| registry.reference(&format!("app{pod}{n}"))).collect()).collect();
        let answers = futures_util::future::join_all(images.iter().map(|images| answer(&service, images))).await;
        answers.iter().for_each(admitted);
        let asked = registry.served.asked.lock().expect("no panic").clone();
        (asked, registry.served.most.load(Ordering::SeqCst))
    };
    let (asked, most) = measured(json!({"requestsPerSecond": 1000, "inFlight": 100})).await;
    assert!(most > 2, "without limits to speak of many are inside at once: {most}");
    let slow = json!({"requestsPerSecond": 10, "inFlight": 2});
    let (paced, most) = measured(slow).await;
    assert_eq!(paced.len(), asked.len(), "the same is asked");
    assert!(most <= 2, "{most} at once");
    // One second's worth may go at once, the rest comes one by one; some of it late, none early.
    let began = paced[0];
    for (number, at) in paced.iter().enumerate().skip(10) {
        let earliest = Duration::from_millis(100 * (number as u64 - 10));
        assert!(
            at.duration_since(began) + Duration::from_millis(20) >= earliest,
            "request {number} after {:?}",
            at.duration_since(began)
        );
    }
    assert!(paced.len() > 20, "{} requests", paced.len());
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
