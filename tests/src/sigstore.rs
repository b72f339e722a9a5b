//! A private Sigstore on free loopback ports: Fulcio, Rekor 2, a timestamp authority and an OpenID Connect issuer; ended by
//! process id when dropped. `SIGSTORE_BIN` names the folder of their programs, which `.ci/run` builds.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::run;

/// A program of `SIGSTORE_BIN`: `cosign`, `fulcio`, `registry` and others.
pub fn sigstore_tool(name: &str) -> Command {
    let folder = env::var_os("SIGSTORE_BIN").map(PathBuf::from);
    let path = folder.map(|folder| folder.join(name)).filter(|path| path.exists());
    Command::new(path.unwrap_or_else(|| panic!("this suite needs `{name}` in SIGSTORE_BIN: `.ci/run` builds it")))
}

/// A running instance.
#[derive(Debug)]
pub struct Sigstore {
    children: Vec<Child>,
    folder: tempfile::TempDir,
    issuer: Arc<Issuer>,
    _only: MutexGuard<'static, ()>,
}

/// One at a time: the timestamp authority has a port for its metrics that cannot be chosen.
static ONLY: Mutex<()> = Mutex::new(());

impl Sigstore {
    /// Starts everything and waits until it answers.
    pub fn start() -> Self {
        let only = ONLY.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("a folder");
        let [fulcio, rekor, authority] = [(); 3].map(|()| format!("http://127.0.0.1:{}", free_port()));
        let mut sigstore = Self { children: Vec::new(), issuer: Issuer::start(), folder, _only: only };
        let at = |name: &str| sigstore.folder.path().join(name).display().to_string();
        let url = &sigstore.issuer.url;
        fs::write(
            at("fulcio.yaml"),
            format!("oidc-issuers:\n  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n"),
        )
        .expect("written");
        let pem = |file: &str, arguments: &[&str]| {
            run(crate::tool("openssl", "openssl").args(arguments).args(["-out", file])).ok();
        };
        pem(&at("rekor.pem"), &["genpkey", "-algorithm", "ed25519"]);
        pem(&at("rekor.pub"), &["pkey", "-in", &at("rekor.pem"), "-pubout"]);
        fs::create_dir(at("rekor")).expect("a folder");
        let port = |url: &str| url.rsplit(':').next().unwrap_or_default().to_owned();
        let other = || free_port().to_string();
        let socket = format!("@mayfly-{}", port(&fulcio));
        let commands = [
            (
                "fulcio",
                vec![
                    "serve".into(),
                    "--host=127.0.0.1".into(),
                    format!("--port={}", port(&fulcio)),
                    "--grpc-host=127.0.0.1".into(),
                    format!("--grpc-port={}", other()),
                    format!("--metrics-port={}", other()),
                    format!("--legacy-unix-domain-socket={socket}"),
                    "--ca=ephemeralca".into(),
                    "--ct-log-url=".into(),
                    format!("--config-path={}", at("fulcio.yaml")),
                ],
            ),
            (
                "rekor-server",
                vec![
                    "serve".into(),
                    "--hostname=127.0.0.1".into(),
                    format!("--http-port={}", port(&rekor)),
                    format!("--grpc-port={}", other()),
                    format!("--http-metrics-port={}", other()),
                    format!("--storage-dir={}", at("rekor")),
                    format!("--signer-filepath={}", at("rekor.pem")),
                    "--checkpoint-interval=1s".into(),
                ],
            ),
            (
                "timestamp-server",
                vec![
                    "serve".into(),
                    "--host=127.0.0.1".into(),
                    format!("--port={}", port(&authority)),
                    "--scheme=http".into(),
                    "--timestamp-signer=memory".into(),
                    "--disable-ntp-monitoring".into(),
                ],
            ),
        ];
        let children: Vec<_> = commands.iter().map(|(name, arguments)| sigstore.spawn(name, arguments)).collect();
        sigstore.children = children;
        let bundle = sigstore.answer(&format!("{fulcio}/api/v2/trustBundle"));
        let bundle: Value = serde_json::from_slice(&bundle).expect("JSON");
        let chain = bundle["chains"][0]["certificates"].as_array().expect("certificates").iter();
        let chain = chain.map(|pem| pem.as_str().expect("PEM")).collect::<Vec<_>>().join("\n");
        fs::write(sigstore.path("fulcio.pem"), chain).expect("written");
        let stamps = sigstore.answer(&format!("{authority}/api/v1/timestamp/certchain"));
        fs::write(sigstore.path("tsa.pem"), stamps).expect("written");
        sigstore.answer(&format!("{rekor}/healthz"));
        sigstore.documents(&fulcio, &rekor, &authority);
        sigstore
    }

    fn spawn(&self, name: &str, arguments: &[String]) -> Child {
        let log = fs::File::create(self.path(&format!("{name}.log"))).expect("a log");
        let mut command = sigstore_tool(name);
        let command = command.args(arguments).stdin(Stdio::null()).current_dir(self.folder.path());
        command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("it starts")
    }

    /// What an address answers, as soon as it does.
    fn answer(&self, url: &str) -> Vec<u8> {
        let patience = Instant::now();
        loop {
            let done = run(crate::tool("curl", "curl").args(["-sf", url]));
            if done.code == 0 {
                return done.stdout;
            }
            assert!(patience.elapsed() < Duration::from_secs(30), "{url} does not answer: {}", self.logs());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn logs(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
        ["fulcio", "rekor-server", "timestamp-server"].map(read).join("\n")
    }

    fn documents(&self, fulcio: &str, rekor: &str, authority: &str) {
        let (since, issuer) = ("start-time=2020-01-01T00:00:00Z", &self.issuer.url);
        let at = |name: &str| self.path(name).display().to_string();
        run(sigstore_tool("cosign").args(["trusted-root", "create"]).args([
            format!("--fulcio=url={fulcio},certificate-chain={},{since}", at("fulcio.pem")),
            format!("--tsa=url={authority},certificate-chain={},{since}", at("tsa.pem")),
            format!("--rekor=url={rekor},public-key={},{since},origin=127.0.0.1", at("rekor.pub")),
            format!("--out={}", at("trusted_root.json")),
        ]))
        .ok();
        let of = |url: &str, version: u8| format!("url={url},api-version={version},{since},operator=test");
        run(sigstore_tool("cosign").args(["signing-config", "create"]).args([
            format!("--fulcio={}", of(fulcio, 1)),
            format!("--rekor={}", of(rekor, 2)),
            "--rekor-config=ANY".to_owned(),
            format!("--tsa={}", of(&format!("{authority}/api/v1/timestamp"), 1)),
            "--tsa-config=ANY".to_owned(),
            format!("--oidc-provider={}", of(issuer, 1)),
            format!("--out={}", at("signing_config.json")),
        ]))
        .ok();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its `trusted_root.json`.
    pub fn trusted_root(&self) -> String {
        self.path("trusted_root.json").display().to_string()
    }

    /// Its `signing_config.json`.
    pub fn signing_config(&self) -> String {
        self.path("signing_config.json").display().to_string()
    }

    /// The issuer's address.
    pub fn issuer(&self) -> &str {
        &self.issuer.url
    }

    /// An identity token for an e-mail address, in a file.
    pub fn token(&self, email: &str) -> String {
        let path = self.path("token");
        fs::write(&path, self.issuer.token(email)).expect("written");
        path.display().to_string()
    }
}

impl Drop for Sigstore {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port that nobody had a moment ago; none twice.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        if GIVEN.lock().expect("no panic").insert(port) {
            return port;
        }
    }
}

/// An OpenID Connect provider for tests: discovery, keys, and tokens for whoever asks.
struct Issuer {
    url: String,
    key: EcdsaKeyPair,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

impl Issuer {
    fn start() -> Arc<Self> {
        let scheme = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(scheme, &SystemRandom::new()).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(scheme, pkcs8.as_ref()).expect("a key");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let issuer = Arc::new(Self { url, key });
        let serving = Arc::clone(&issuer);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serving.serve(stream);
            }
        });
        issuer
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let url = &self.url;
        let body = match first.split(' ').nth(1).unwrap_or_default() {
            "/.well-known/openid-configuration" => json!({
                "issuer": url, "authorization_endpoint": format!("{url}/auth"), "token_endpoint": format!("{url}/token"),
                "jwks_uri": format!("{url}/keys"), "response_types_supported": ["code"],
                "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
            }),
            "/keys" => {
                let point = self.key.public_key().as_ref();
                let [x, y] = [1..33, 33..65].map(|range| URL_SAFE_NO_PAD.encode(&point[range]));
                json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "use": "sig", "alg": "ES256", "x": x, "y": y}]})
            }
            _ => Value::Null,
        };
        let body = body.to_string();
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json";
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn token(&self, email: &str) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        let head = json!({"alg": "ES256", "kid": "1", "typ": "JWT"});
        let claims = json!({"iss": self.url, "aud": "sigstore", "sub": email, "email": email, "email_verified": true,
            "iat": now, "exp": now + 600});
        let signed = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A registry with the referrers API: go-containerregistry's. Its listing gives the config's media type as the artifact type.
#[derive(Debug)]
pub struct ReferrersRegistry {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl ReferrersRegistry {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let mut command = sigstore_tool("registry");
        command.arg(format!("127.0.0.1:{port}")).arg(folder.path()).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let registry = Self { child, port, _folder: folder };
        let patience = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(patience.elapsed() < Duration::from_secs(20), "no registry");
            thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// A reference to `name` in it.
    pub fn reference(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for ReferrersRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies an image into any registry over plain HTTP.
pub fn copy(source: &str, reference: &str) {
    let mut copy = crate::tool("skopeo", "skopeo");
    copy.args(["copy", "--quiet", "--all", "--insecure-policy", "--dest-tls-verify=false", source]);
    run(copy.arg(format!("docker://{reference}"))).ok();
}

/// A file of the folder of this instance; for tests that write their own.
pub fn written(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("written");
    path.display().to_string()
}
