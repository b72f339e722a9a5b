//! A registry on loopback that answers by script.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use dna::Digest;
use oci::{
    Descriptor, Index, Manifest, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST,
    registry::{Repository, Settings},
};
use trust::{Discovery, discover};

/// What is answered at a path of the repository.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// 200 with a media type and bytes.
    Ok(String, Vec<u8>),
    /// Another status.
    Status(u16),
    /// 200, and the connection ends after half of the bytes.
    Half(String, Vec<u8>),
    /// Nothing, until the client gives up.
    Hang,
}

/// A registry in the making: paths below `/v2/team/app/` and what is answered there; 404 elsewhere.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    replies: BTreeMap<String, Reply>,
}

impl Script {
    pub(crate) fn reply(&mut self, path: &str, reply: Reply) -> &mut Self {
        self.replies.insert(path.to_owned(), reply);
        self
    }

    /// Adds a blob under its digest.
    pub(crate) fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::sha256(bytes);
        self.reply(&format!("blobs/{digest}"), Reply::Ok("application/octet-stream".to_owned(), bytes.to_vec()));
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    /// Adds a manifest under its digest.
    pub(crate) fn manifest(&mut self, manifest: &Manifest) -> Descriptor {
        let bytes = serde_json::to_vec(manifest).expect("JSON");
        let digest = Digest::sha256(&bytes);
        let descriptor = Descriptor::new(OCI_MANIFEST, digest.clone(), bytes.len() as u64);
        self.reply(&format!("manifests/{digest}"), Reply::Ok(OCI_MANIFEST.to_owned(), bytes));
        descriptor
    }

    /// Adds a manifest under a tag.
    pub(crate) fn tag(&mut self, tag: &str, manifest: &Manifest) -> &mut Self {
        let bytes = serde_json::to_vec(manifest).expect("JSON");
        self.reply(&format!("manifests/{tag}"), Reply::Ok(OCI_MANIFEST.to_owned(), bytes))
    }

    /// Adds a referrer that carries a bundle, as cosign 3 writes it; its descriptor is as a registry lists it.
    pub(crate) fn bundle(&mut self, subject: &Digest, json: &[u8]) -> Descriptor {
        let layer = self.blob(BUNDLE, json);
        let manifest = self.artifact(subject, BUNDLE, vec![layer]);
        Descriptor { artifact_type: Some(BUNDLE.to_owned()), ..self.manifest(&manifest) }
    }

    /// An artifact's manifest about a subject.
    pub(crate) fn artifact(&mut self, subject: &Digest, artifact_type: &str, layers: Vec<Descriptor>) -> Manifest {
        let config = self.blob(OCI_EMPTY, b"{}");
        let subject = Some(Descriptor::new(OCI_MANIFEST, subject.clone(), 2));
        Manifest { artifact_type: Some(artifact_type.to_owned()), subject, ..Manifest::new(config, layers) }
    }

    /// Lists referrers by the API.
    pub(crate) fn by_api(&mut self, subject: &Digest, listed: &[Descriptor]) -> &mut Self {
        self.reply(&format!("referrers/{subject}"), Reply::Ok(OCI_INDEX.to_owned(), index(listed)))
    }

    /// Lists referrers at the tag.
    pub(crate) fn at_tag(&mut self, subject: &Digest, listed: &[Descriptor]) -> &mut Self {
        self.reply(&format!("manifests/{}", tag(subject, "")), Reply::Ok(OCI_INDEX.to_owned(), index(listed)))
    }

    pub(crate) fn serve(&self) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::new(self.clone()), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                // Clients may hang up; the test looks at what they say then.
                thread::spawn(move || _ = answer(stream, &script, &log));
            }
        });
        Registry { address, asked }
    }
}

/// A registry that runs until the test ends.
#[derive(Debug)]
pub(crate) struct Registry {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    /// What is found for subjects, within some time.
    pub(crate) fn discover(&self, subjects: &[Digest], within: Duration) -> Discovery {
        let reference = format!("{}/team/app:1", self.address).parse().expect("a reference");
        let settings = Settings {
            plain_http: true,
            credentials: Vec::new(),
            proxy_from_env: false,
            backoff: Duration::ZERO,
            retries: 1,
            ..Settings::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let repository = Repository::open(&reference, &settings).await.expect("opened");
            discover(&repository.with_deadline(Instant::now() + within), subjects).await
        })
    }

    /// Paths that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

/// cosign's tag of a subject, or with an empty suffix that of its referrers.
pub(crate) fn tag(subject: &Digest, suffix: &str) -> String {
    format!("{}{suffix}", subject.as_str().replace(':', "-"))
}

fn index(listed: &[Descriptor]) -> Vec<u8> {
    let (media_type, manifests) = (OCI_INDEX.to_owned(), listed.to_vec());
    serde_json::to_vec(&Index { schema_version: 2, media_type, manifests, annotations: BTreeMap::new() }).expect("JSON")
}

fn answer(mut stream: TcpStream, script: &Script, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let path = path.strip_prefix("/v2/team/app/").unwrap_or(path);
    log.lock().expect("no panic").push(path.to_owned());
    let reply = script.replies.get(path).cloned().unwrap_or(Reply::Status(404));
    let head = |status: u16, media_type: &str, length: usize| {
        format!(
            "HTTP/1.1 {status} x\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )
    };
    match reply {
        Reply::Ok(media_type, bytes) => {
            stream.write_all(head(200, &media_type, bytes.len()).as_bytes())?;
            stream.write_all(&bytes)
        }
        Reply::Status(status) => {
            let error = br#"{"errors":[{"code":"UNKNOWN","message":"by script"}]}"#;
            stream.write_all(head(status, "application/json", error.len()).as_bytes())?;
            stream.write_all(error)
        }
        Reply::Half(media_type, bytes) => {
            stream.write_all(head(200, &media_type, bytes.len()).as_bytes())?;
            stream.write_all(bytes.get(..bytes.len() / 2).unwrap_or_default())
        }
        Reply::Hang => stream.read(&mut [0]).map(|_| ()),
    }
}

pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
