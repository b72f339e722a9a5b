//! A TUF repository that carries a trust root, and a server for its files. Source: The Update Framework, specification 1.0,
//! "Document formats".

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    Key, KeyType,
    log::hex,
    loopback::{self, Stream},
};

/// A time that is far away.
pub const LATER: &str = "2999-01-01T00:00:00Z";
/// A time that is over.
pub const PAST: &str = "2020-01-01T00:00:00Z";

/// Files by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A repository whose roles all have one key.
#[derive(Debug)]
pub struct Repository {
    key: Key,
    roots: u64,
    version: u64,
    files: Files,
}

impl Repository {
    /// With this trust root.
    pub fn new(trusted_root: &str) -> Self {
        let mut new = Self { key: Key::generate(KeyType::Ed25519), roots: 1, version: 0, files: Files::new() };
        let root = new.signed(&new.root_document());
        new.files.insert("/1.root.json".to_owned(), root);
        new.publish(trusted_root, LATER);
        new
    }

    /// The first `root.json`, with which trust begins.
    pub fn root(&self) -> &[u8] {
        &self.files["/1.root.json"]
    }

    /// All there is to be served.
    pub fn files(&self) -> Files {
        self.files.clone()
    }

    /// Signs a trust root with the key of now; `expires`: of the timestamp.
    pub fn publish(&mut self, trusted_root: &str, expires: &str) {
        self.publish_as(self.version + 1, trusted_root, expires);
    }

    /// The same, as some version: an older one is what no honest repository offers.
    pub fn publish_as(&mut self, version: u64, trusted_root: &str, expires: &str) {
        self.version = version;
        let pinned = |bytes: &[u8]| json!({"length": bytes.len(), "hashes": {"sha256": hex(&Sha256::digest(bytes))}});
        let of = |bytes: &[u8]| {
            let mut of = pinned(bytes);
            of["version"] = version.into();
            of
        };
        let targets =
            self.document("targets", LATER, "targets", json!({"trusted_root.json": pinned(trusted_root.as_bytes())}));
        let snapshot = self.document("snapshot", LATER, "meta", json!({"targets.json": of(&targets)}));
        self.document("timestamp", expires, "meta", json!({"snapshot.json": of(&snapshot)}));
        self.files.insert("/targets/trusted_root.json".to_owned(), trusted_root.as_bytes().to_vec());
    }

    /// Another key for all roles: a further `root.json`, signed by the old one and the new. What is published is not signed anew.
    pub fn rotate(&mut self) {
        self.roots += 1;
        let old = std::mem::replace(&mut self.key, Key::generate(KeyType::Ed25519));
        let document = self.root_document();
        let bytes = canonical(&document);
        let signature = |key: &Key| json!({"keyid": id(key), "sig": hex(&key.sign(&bytes))});
        let signed = json!({"signed": document, "signatures": [signature(&old), signature(&self.key)]});
        self.files.insert(format!("/{}.root.json", self.roots), signed.to_string().into_bytes());
    }

    fn root_document(&self) -> Value {
        let id = id(&self.key);
        let role = json!({"keyids": [id], "threshold": 1});
        json!({
            "_type": "root", "spec_version": "1.0.0", "version": self.roots, "expires": LATER, "consistent_snapshot": false,
            "keys": {(id): {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public(&self.key)}}},
            "roles": {"root": role, "timestamp": role, "snapshot": role, "targets": role},
        })
    }

    fn document(&mut self, kind: &str, expires: &str, name: &str, what: Value) -> Vec<u8> {
        let document =
            json!({"_type": kind, "spec_version": "1.0.0", "version": self.version, "expires": expires, (name): what});
        let bytes = self.signed(&document);
        self.files.insert(format!("/{kind}.json"), bytes.clone());
        bytes
    }

    fn signed(&self, document: &Value) -> Vec<u8> {
        let signature = hex(&self.key.sign(&canonical(document)));
        json!({"signed": document, "signatures": [{"keyid": id(&self.key), "sig": signature}]}).to_string().into_bytes()
    }
}

fn canonical(document: &Value) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(document).expect("plain JSON")
}

/// The raw key: the last 32 bytes of what is around it.
fn public(key: &Key) -> String {
    let der = key.public_der();
    hex(&der[der.len() - 32..])
}

fn id(key: &Key) -> String {
    hex(&Sha256::digest(public(key)))
}

/// Serves files on loopback until the process ends; it answers 503 where it has none.
#[derive(Debug, Clone)]
pub struct Server {
    url: String,
    ca_pem: String,
    files: Arc<Mutex<Option<Files>>>,
}

impl Server {
    /// Over HTTP.
    pub fn start() -> Self {
        Self::with(false)
    }

    /// Over TLS, with a certificate of an authority of its own.
    pub fn start_tls() -> Self {
        Self::with(true)
    }

    fn with(tls: bool) -> Self {
        let files: Arc<Mutex<Option<Files>>> = Arc::default();
        let served = Arc::clone(&files);
        let (port, ca_pem) = loopback::serve(tls, move |stream| answer(stream, &served));
        let scheme = if tls { "https" } else { "http" };
        Self { url: format!("{scheme}://localhost:{port}"), ca_pem, files }
    }

    /// Its address, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The authority of its certificate; empty without TLS.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Serves these from now on.
    pub fn serve(&self, files: Option<Files>) {
        *self.files.lock().expect("no panic") = files;
    }
}

fn answer(stream: &mut dyn Stream, files: &Mutex<Option<Files>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match &*files.lock().expect("no panic") {
        None => ("503 Down", Vec::new()),
        Some(files) => files.get(path).map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body.clone())),
    };
    let stream = reader.get_mut();
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(&body)?;
    stream.flush()
}
