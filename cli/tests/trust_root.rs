//! `mayfly trust-root` against a TUF repository on loopback, made and signed here. Source: The Update Framework, specification
//! 1.0, "Document formats".
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

const LATER: &str = "2999-01-01T00:00:00Z";
const PAST: &str = "2020-01-01T00:00:00Z";

/// By path.
type Files = BTreeMap<String, Vec<u8>>;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A repository's files, and who signs them all.
struct Tuf<'a> {
    key: &'a Ed25519KeyPair,
    files: Files,
}

impl<'a> Tuf<'a> {
    /// With this trust root; `version` of all but the root, `expires` of the timestamp.
    fn new(key: &'a Ed25519KeyPair, trusted_root: &str, version: u64, expires: &str) -> Self {
        let mut tuf = Self { key, files: BTreeMap::new() };
        let public = hex(tuf.key.public_key().as_ref());
        let role = json!({"keyids": ["one"], "threshold": 1});
        let root = tuf.signed(json!({
            "_type": "root", "spec_version": "1.0.0", "version": 1, "expires": LATER, "consistent_snapshot": false,
            "keys": {"one": {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}}},
            "roles": {"root": role, "timestamp": role, "snapshot": role, "targets": role},
        }));
        let of = |bytes: &[u8]| {
            let sha256 = hex(digest(&SHA256, bytes).as_ref());
            json!({"version": version, "length": bytes.len(), "hashes": {"sha256": sha256}})
        };
        let mut pinned = of(trusted_root.as_bytes());
        pinned.as_object_mut().expect("an object").remove("version");
        let mut document = |kind: &str, expires: &str, more: (&str, Value)| {
            let document = json!({"_type": kind, "spec_version": "1.0.0", "version": version, "expires": expires});
            let mut document = document;
            document.as_object_mut().expect("an object").insert(more.0.to_owned(), more.1);
            let bytes = tuf.signed(document);
            tuf.files.insert(format!("/{kind}.json"), bytes.clone());
            bytes
        };
        let targets = document("targets", LATER, ("targets", json!({"trusted_root.json": pinned})));
        let snapshot = document("snapshot", LATER, ("meta", json!({"targets.json": of(&targets)})));
        document("timestamp", expires, ("meta", json!({"snapshot.json": of(&snapshot)})));
        tuf.files.insert("/targets/trusted_root.json".to_owned(), trusted_root.as_bytes().to_vec());
        tuf.files.insert("/1.root.json".to_owned(), root);
        tuf
    }

    fn root(&self) -> &[u8] {
        self.files.get("/1.root.json").expect("there")
    }

    fn signed(&self, document: Value) -> Vec<u8> {
        let canonical = serde_json_canonicalizer::to_vec(&document).expect("canonical");
        let signature = hex(self.key.sign(&canonical).as_ref());
        json!({"signed": document, "signatures": [{"keyid": "one", "sig": signature}]}).to_string().into_bytes()
    }
}

/// The files over HTTP; none: it answers nothing but 503.
#[derive(Clone)]
struct Server {
    url: String,
    files: Arc<Mutex<Option<Files>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = Self { url, files: Arc::default() };
        let serving = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serving.answer(stream);
            }
        });
        server
    }

    fn serve(&self, files: Option<Files>) {
        *self.files.lock().expect("no panic") = files;
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let path = first.split(' ').nth(1).unwrap_or_default();
        let (status, body) = match &*self.files.lock().expect("no panic") {
            None => ("503 Down", Vec::new()),
            Some(files) => files.get(path).map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body.clone())),
        };
        write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())?;
        stream.write_all(&body)
    }
}

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::generate().expect("a key")
}

fn trust_root(server: &Server, folder: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.args(["trust-root", "--tuf-url", &server.url, "--tuf-root"]).arg(folder.join("root.json"));
    command.arg("--cache-dir").arg(folder.join("cache")).args(more).stdin(Stdio::null());
    command.output().expect("runs")
}

fn refused(output: &Output, said: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{told}");
    assert!(told.contains(said), "{said}: {told}");
}

#[test]
fn a_trust_root_is_refreshed_and_what_is_kept_is_verified_again() {
    let (server, folder) = (Server::start(), tempfile::tempdir().expect("a folder"));
    let trusted = sigstore_instance::Instance::new().trusted_root();
    let key = key();
    let tuf = Tuf::new(&key, &trusted, 2, LATER);
    fs::write(folder.path().join("root.json"), tuf.root()).expect("written");
    let run = |more: &[&str]| trust_root(&server, folder.path(), more);
    let same_text = |output: &Output| {
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout), trusted);
    };

    refused(&run(&["--offline"]), "no current trust root");
    server.serve(Some(tuf.files));
    same_text(&run(&[]));
    server.serve(None);
    refused(&run(&[]), &server.url);
    same_text(&run(&["--offline"]));

    // Older metadata, of the same signer.
    server.serve(Some(Tuf::new(&key, &trusted, 1, LATER).files));
    refused(&run(&[]), "no current trust root");

    // What is kept is no more believed than what is sent.
    let kept = fs::read_dir(folder.path().join("cache")).expect("a folder").next().expect("one").expect("one").path();
    let target = kept.join("targets/trusted_root.json");
    fs::write(&target, trusted.replace("2020", "2010").replace("2021", "2011") + " ").expect("written");
    refused(&run(&["--offline"]), "no current trust root");
}

#[test]
fn a_repository_that_is_old_or_not_signed_as_its_root_says_is_refused() {
    let trusted = sigstore_instance::Instance::new().trusted_root();
    let (key, other) = (key(), key());
    let mut turned = Tuf::new(&key, &trusted, 1, LATER);
    let root = turned.root().to_owned();
    turned.files.insert("/targets/trusted_root.json".to_owned(), trusted.replace("https", "httpz").into_bytes());
    let mut foreign = Tuf::new(&other, &trusted, 1, LATER);
    foreign.files.insert("/1.root.json".to_owned(), root.clone());
    let expired = Tuf::new(&key, &trusted, 1, PAST);
    for (said, files) in [("integrity check", turned.files), ("signature", foreign.files), ("expired", expired.files)] {
        let (server, folder) = (Server::start(), tempfile::tempdir().expect("a folder"));
        fs::write(folder.path().join("root.json"), &root).expect("written");
        server.serve(Some(files));
        refused(&trust_root(&server, folder.path(), &[]), said);
    }
}
