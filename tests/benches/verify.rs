//! How long a verification takes: reading and checking one bundle, and all of an image against a registry on loopback that
//! answers each request after a delay. What the delay adds, divided by it, are the requests that had to wait for one another.
//! A row that is over its limit says so. Run: `cargo bench -p tests --bench verify`; `ROUNDS` says how often each row is taken.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dna::Digest;
use oci::{
    Index,
    registry::{Credentials, Lookup, Repository, Settings},
};
use serde_json::{Value, json};
use sigstore_instance::{Identity as Email, Instance, LogVersion, Statement};
use trust::{Evidence, Findings, Formats, Identity, Root, Signer, Text, Who, discover};

const EMAIL: &str = "ci@example.com";
const ISSUER: &str = "https://accounts.example.com";
const PREDICATE: &str = "https://example.com/p/v1";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Milliseconds that an answer takes.
const DELAYS: [u64; 2] = [0, 20];
/// Requests in a row, from a tag.
const MAX_TRIPS: f64 = 6.0;
/// Milliseconds for one bundle.
const MAX_BUNDLE: f64 = 5.0;

fn rounds() -> usize {
    env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).filter(|rounds| *rounds != 0).unwrap_or(9)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of milliseconds.
fn milliseconds(rounds: usize, mut work: impl FnMut()) -> f64 {
    work();
    median(
        (0..rounds)
            .map(|_| {
                let start = Instant::now();
                work();
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect(),
    )
}

/// What a row says where its limit is passed.
fn verdict(value: f64, limit: f64) -> &'static str {
    if value > limit { "  OVER" } else { "" }
}

/// A repository's content, by path below it: media type and bytes.
#[derive(Default)]
struct Content(BTreeMap<String, (String, Vec<u8>)>);

impl Content {
    fn blob(&mut self, bytes: &[u8], media_type: &str) -> Value {
        let digest = Digest::sha256(bytes);
        self.0.insert(format!("blobs/{digest}"), ("application/octet-stream".to_owned(), bytes.to_vec()));
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    fn manifest(&mut self, manifest: &Value, tag: Option<&str>) -> Value {
        let (bytes, media_type) = (manifest.to_string().into_bytes(), manifest["mediaType"].as_str().expect("a type"));
        let digest = Digest::sha256(&bytes);
        for name in [Some(digest.as_str()), tag].into_iter().flatten() {
            self.0.insert(format!("manifests/{name}"), (media_type.to_owned(), bytes.clone()));
        }
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    fn image(&mut self, name: &str, tag: Option<&str>) -> Value {
        let config = self.blob(name.as_bytes(), "application/vnd.oci.image.config.v1+json");
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
        let mut descriptor = self.manifest(&manifest, tag);
        descriptor["platform"] = json!({"os": "linux", "architecture": name});
        descriptor
    }

    /// A bundle about a subject, listed where `api` says or at the tag.
    fn attach(&mut self, subject: &Value, bundle: &[u8], api: bool) {
        let (config, layer) = (self.blob(b"{}", "application/vnd.oci.empty.v1+json"), self.blob(bundle, BUNDLE));
        let manifest = self.manifest(
            &json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE, "config": config,
                "layers": [layer], "subject": subject}),
            None,
        );
        let digest = subject["digest"].as_str().expect("a digest");
        let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
        match api {
            true => _ = self.0.insert(format!("referrers/{digest}"), (INDEX.to_owned(), list.to_string().into())),
            false => _ = self.manifest(&list, Some(&digest.replace(':', "-"))),
        }
    }
}

/// A bundle about a subject: an attestation, or a signature.
type About<'a> = &'a dyn Fn(&Value, bool) -> Vec<u8>;

/// What puts an image and its proof into a repository.
type Make = fn(&mut Content, About<'_>);

/// A registry with one repository, `team/app`, that answers after a delay.
struct Scripted {
    address: String,
    requests: Arc<AtomicUsize>,
}

impl Scripted {
    fn start(content: Content, delay: Duration, token: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let content = Arc::new(content);
        let scripted = Self { address: address.clone(), requests: Arc::clone(&requests) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (content, requests, address) = (Arc::clone(&content), Arc::clone(&requests), address.clone());
                thread::spawn(move || {
                    let challenge = token.then_some(address);
                    while answer(&stream, &content, &requests, delay, challenge.as_deref()).is_some() {}
                });
            }
        });
        scripted
    }

    fn reference(&self) -> String {
        format!("{}/team/app:1", self.address)
    }
}

/// Answers one request; none when there is no other on the connection.
fn answer(
    mut stream: &TcpStream,
    content: &Content,
    requests: &AtomicUsize,
    delay: Duration,
    challenge: Option<&str>,
) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut shown = false;
    loop {
        let line = lines.next()?.ok()?;
        shown |= line.to_ascii_lowercase().starts_with("authorization: bearer");
        if line.is_empty() {
            break;
        }
    }
    requests.fetch_add(1, Ordering::Relaxed);
    thread::sleep(delay);
    let path = first.split(' ').nth(1)?;
    let (status, media_type, body) = match (challenge, path.strip_prefix("/v2/team/app/")) {
        (Some(_), _) if path.starts_with("/token") => ("200 OK", "application/json", br#"{"token": "t"}"#.to_vec()),
        (Some(host), _) if !shown => {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            let head = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0";
            return stream.write_all(format!("{head}\r\nWWW-Authenticate: {challenge}\r\n\r\n").as_bytes()).ok();
        }
        (_, path) => match path.and_then(|path| content.0.get(path)) {
            Some((media_type, body)) => ("200 OK", media_type.as_str(), body.clone()),
            None => ("404 Not Found", "text/plain", Vec::new()),
        },
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &body].concat()).ok()
}

/// All that a verification from a tag does.
async fn verify(reference: &str, signer: &Signer) -> Findings {
    let settings = Settings { plain_http: true, credentials: vec![Credentials::Anonymous], ..Settings::default() };
    let reference = reference.parse().expect("a reference");
    let repository = Repository::open(&reference, &settings).await.expect("opened");
    let Lookup::Present((root, bytes)) = repository.manifest("1").await else { panic!("the tag is there") };
    let index = serde_json::from_slice::<Index>(&bytes).ok();
    let image = index.and_then(|index| index.manifests.into_iter().map(|image| image.digest).next());
    let subjects: Vec<_> = [root.digest].into_iter().chain(image).collect();
    let found = discover(&repository, &subjects).await;
    assert!(found.is_complete(), "{found:?}");
    trust::verify(&found.candidates, std::slice::from_ref(signer), Formats::default())
}

fn main() {
    let instance = Instance::new();
    let root = instance.trusted_root();
    let read = || Root::from_json("instance", root.as_bytes(), None).expect("a root");
    let identity = Identity {
        subject: Text::Exact(EMAIL.to_owned()),
        issuer: Text::Exact(ISSUER.to_owned()),
        claims: BTreeMap::new(),
    };
    let signer = Signer {
        name: "ci".to_owned(),
        who: Who::Identities(vec![identity]),
        evidence: Evidence::Log,
        roots: vec![read()],
    };
    println!("{:44} {:>9.3} ms", "a trust root is read", milliseconds(rounds(), || _ = read()));
    let signing = instance.keyless(Email::Email(EMAIL.to_owned()), ISSUER).log(LogVersion::V2).timestamped();
    let about = |subject: &Value, attested: bool| {
        let hex = subject["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
        let statement = match attested {
            true => Statement::new(PREDICATE, json!({"a": 1})).subject("app", hex),
            false => Statement::cosign_signature(hex),
        };
        signing.attest(&statement)
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut content = Content::default();
    let image = content.image("amd64", Some("1"));
    let bundle = about(&image, false);
    let digest: Digest = image["digest"].as_str().and_then(|digest| digest.parse().ok()).expect("a digest");
    let kept = trust::Candidate {
        origin: trust::Origin {
            subject: digest.clone(),
            place: trust::Place::ReferrersApi,
            carrier: digest,
            format: trust::Format::Bundle,
        },
        material: trust::Material::Bundle(bundle.clone()),
    };
    let one = milliseconds(100, || {
        let found = trust::verify(std::slice::from_ref(&kept), std::slice::from_ref(&signer), Formats::default());
        assert_eq!(found.signatures.len(), 1, "{found:?}");
    });
    let over = verdict(one, MAX_BUNDLE);
    println!("{:44} {one:>9.3} ms  (limit {MAX_BUNDLE}){over}", "a keyless bundle is read and checked");

    println!("\n{:44} {:>9} {:>9} {:>9} {:>9}", "an image from its tag", "ms", "ms late", "requests", "in a row");
    let cases: [(&str, Make, bool, (usize, usize)); 6] = [
        ("unsigned", |content, _| _ = content.image("amd64", Some("1")), false, (0, 0)),
        ("a signature, referrers API", |content, about| one_bundle(content, about, true), false, (1, 0)),
        ("a signature, referrers tag", |content, about| one_bundle(content, about, false), false, (1, 0)),
        ("a signature at both, tokens asked for", at_both, true, (2, 0)),
        ("a signature, tokens asked for", |content, about| one_bundle(content, about, true), true, (1, 0)),
        ("an index signed, its image attested", of_index, false, (1, 1)),
    ];
    for (name, make, token, expected) in cases {
        let mut wall = Vec::new();
        let mut asked = 0;
        for delay in DELAYS {
            let mut content = Content::default();
            make(&mut content, &about);
            let registry = Scripted::start(content, Duration::from_millis(delay), token);
            let count = rounds();
            let work = || {
                let found = runtime.block_on(verify(&registry.reference(), &signer));
                assert_eq!((found.signatures.len(), found.attestations.len()), expected, "{found:?}");
            };
            wall.push(milliseconds(count, work));
            asked = registry.requests.load(Ordering::Relaxed) / (count + 1);
        }
        let trips = (wall[1] - wall[0]) / DELAYS[1] as f64;
        let over = verdict(trips.round(), MAX_TRIPS);
        println!("{name:44} {:>9.1} {:>9.1} {asked:>9} {trips:>9.1}  (limit {MAX_TRIPS}){over}", wall[0], wall[1]);
    }
}

fn one_bundle(content: &mut Content, about: About<'_>, api: bool) {
    let image = content.image("amd64", Some("1"));
    content.attach(&image, &about(&image, false), api);
}

fn at_both(content: &mut Content, about: About<'_>) {
    let image = content.image("amd64", Some("1"));
    content.attach(&image, &about(&image, false), true);
    content.attach(&image, &about(&image, false), false);
}

fn of_index(content: &mut Content, about: About<'_>) {
    let images = ["amd64", "arm64"].map(|name| content.image(name, None));
    let index = content.manifest(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": images}), Some("1"));
    let [image, _] = &images;
    content.attach(&index, &about(&index, false), true);
    content.attach(image, &about(image, true), true);
}
