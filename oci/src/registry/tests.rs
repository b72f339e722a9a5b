//! The client against a scripted registry on loopback: each test says what is answered, and what must come of it.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::TcpListener,
    os::unix::net::UnixListener,
    sync::{Arc, Mutex},
    thread,
};

mod mirrors;
mod push;
mod repository;
mod tokens;

use super::*;
use crate::{
    Contents, LayerBody,
    fixture::{config, layer, manifest, tar},
    manifest::{OCI_INDEX, OCI_MANIFEST},
    open,
};

/// What the client asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    /// Request line and fields.
    pub(super) head: Vec<String>,
    pub(super) authorization: String,
    range: String,
    /// Its media type and the bytes sent.
    content_type: String,
    pub(super) body: Vec<u8>,
    /// How often this path was asked before, by the same method.
    pub(super) before: usize,
}

type Answer = Arc<dyn Fn(&Asked) -> Vec<u8> + Send + Sync>;

/// A server that answers by script and remembers what it was asked.
pub(super) struct Server {
    pub(super) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(super) fn start(answer: impl Fn(&Asked, &str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, own) = (Arc::clone(&asked), address.clone());
        let answer: Answer = Arc::new(move |asked| answer(asked, &own));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                // Clients may hang up; the test looks at what they say then.
                thread::spawn(move || _ = serve(&stream, &log, &answer));
            }
        });
        Self { address, asked }
    }

    /// One that serves a whole image, unless `special` has another answer.
    fn image(special: impl Fn(&Asked, &str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::start(move |asked, own| special(asked, own).unwrap_or_else(|| usual(asked)))
    }

    fn open(&self, change: impl FnOnce(&mut Options)) -> Result<Vec<Image>, Error> {
        let mut options = Options { registry: quick(), ..Options::default() };
        change(&mut options);
        let source = format!("docker://{}/team/app:1", self.address).parse().expect("a source");
        open(&source, &options)
    }

    pub(super) fn asked(&self, part: &str) -> Vec<Asked> {
        self.asked.lock().expect("no panic").iter().filter(|asked| asked.path.contains(part)).cloned().collect()
    }
}

impl Server {
    fn reference(&self) -> Reference {
        format!("{}/team/app:1", self.address).parse().expect("a reference")
    }

    /// Runs `work` on the repository of the server's image.
    fn with<T, F: Future<Output = T>>(
        &self,
        change: impl FnOnce(&mut Settings),
        work: impl FnOnce(Repository) -> F,
    ) -> T {
        let mut settings = quick();
        change(&mut settings);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { work(Repository::open(&self.reference(), &settings).await.expect("opened")).await })
    }
}

pub(super) fn quick() -> Settings {
    Settings {
        plain_http: true,
        credentials: Vec::new(),
        proxy_from_env: false,
        backoff: Duration::ZERO,
        retries: 2,
        ..Settings::default()
    }
}

fn serve(mut stream: impl Read + Write, log: &Mutex<Vec<Asked>>, answer: &Answer) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut reader = BufReader::new(&mut stream);
    loop {
        let mut line = String::new();
        // Bytes of a TLS client are no text and end in no line; they are answered at once.
        if reader.fill_buf()?.first() == Some(&0x16) || reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let field = |name: &str| {
        let value =
            head.iter().find_map(|line| line.to_lowercase().starts_with(name).then(|| line.split_at(name.len()).1));
        value.unwrap_or_default().trim().to_owned()
    };
    let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let method = head.first().and_then(|line| line.split(' ').next()).unwrap_or_default().to_owned();
    let mut body = vec![0; field("content-length:").parse().unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let (authorization, range, content_type) = (field("authorization:"), field("range:"), field("content-type:"));
    let mut asked = Asked { method, path, head, authorization, range, content_type, body, before: 0 };
    {
        let mut log = log.lock().expect("no panic");
        asked.before = log.iter().filter(|other| (&other.path, &other.method) == (&asked.path, &asked.method)).count();
        log.push(asked.clone());
    }
    let answer = answer(&asked);
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4).filter(|_| asked.method == "HEAD");
    stream.write_all(answer.get(..head.unwrap_or(answer.len())).unwrap_or_default())
}

pub(super) fn reply(status: u16, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A body without its length, ended by the end of the connection.
fn endless(body: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 x\r\nConnection: close\r\n\r\n", body].concat()
}

fn is_layer(asked: &Asked) -> bool {
    asked.path.ends_with(Digest::sha256(&layer()).as_str())
}

fn usual(asked: &Asked) -> Vec<u8> {
    let image_type = format!("Content-Type: {OCI_MANIFEST}; charset=utf-8\r\n");
    let (manifest, config) = (manifest("amd64"), config("amd64"));
    match asked.path.as_str() {
        "/v2/team/app/manifests/1" => reply(200, &image_type, &manifest),
        path if path.ends_with(Digest::sha256(&manifest).as_str()) => reply(200, &image_type, &manifest),
        path if path.ends_with(Digest::sha256(&config).as_str()) => reply(200, "", &config),
        path if path.ends_with(Digest::sha256(&layer()).as_str()) => reply(200, "", &layer()),
        _ => reply(404, "", br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
    }
}

fn layer_bytes(images: &[Image]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match &images.first().expect("an image").contents {
        Contents::Layers(layers) => match &layers.first().expect("a layer").body {
            LayerBody::Present(blob) => blob.reader().read_to_end(&mut bytes).expect("readable"),
            LayerBody::Unreadable(why) => panic!("{why}"),
        },
        Contents::Directory(_) => panic!("no layers"),
    };
    bytes
}

fn auth_file(server: &Server, user: &str, password: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let entry = serde_json::json!({"auths": {&server.address: {"username": user, "password": password}}});
    file.write_all(entry.to_string().as_bytes()).expect("written");
    file
}

fn files(file: &tempfile::NamedTempFile) -> Vec<Credentials> {
    vec![Credentials::Files(vec![file.path().to_owned()])]
}

#[test]
fn opening_can_be_spawned() {
    fn spawnable<T: Send + 'static>(_: T) {}
    let (source, options) = (Source::Stdin, Options::default());
    spawnable(async move { open_async(&source, &options).await.is_ok() });
}

#[test]
fn an_image_is_fetched_by_tag_and_counted() {
    let server = Server::image(|_, _| None);
    let progress = Arc::new(Progress::default());
    let images = server.open(|options| options.progress = Arc::clone(&progress)).expect("opened");
    assert_eq!(layer_bytes(&images), layer());
    let image = images.first().expect("one");
    assert_eq!(image.digests.manifest, Some(Digest::sha256(&manifest("amd64"))));
    assert_eq!((progress.total(), progress.done()), (layer().len() as u64, layer().len() as u64));
}

#[test]
fn a_token_is_fetched_with_the_password_and_shown_to_the_registry_only() {
    let server = Server::image(|asked, own| {
        let fields = format!("WWW-Authenticate: Bearer realm=\"http://{own}/token?x=1\",service=\"s\"\r\n");
        match (asked.path.starts_with("/token"), asked.authorization.as_str()) {
            (true, "Basic dTpw") => Some(reply(200, "", br#"{"token":"t1","expires_in":60}"#)),
            (true, _) => Some(reply(401, "", b"")),
            (false, "Bearer t1") => None,
            _ => Some(reply(401, &fields, b"")),
        }
    });
    let file = auth_file(&server, "u", "p");
    let images = server.open(|options| options.registry.credentials = files(&file));
    assert_eq!(layer_bytes(&images.expect("opened")), layer());
    let tokens = server.asked("/token");
    assert_eq!(tokens.len(), 1, "one token serves all requests");
    assert!(
        tokens.iter().all(|t| t.path.contains("scope=repository%3Ateam%2Fapp%3Apull") && t.path.contains("service=s"))
    );
    let wrong = auth_file(&server, "u", "hunter2");
    let error = server.open(|options| options.registry.credentials = files(&wrong));
    let error = error.expect_err("a wrong password");
    assert!(matches!(&error, Error::Denied { status: 401, .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn an_expired_token_is_replaced() {
    let server = Server::image(|asked, own| {
        let fields = format!("WWW-Authenticate: Bearer realm=\"http://{own}/token\"\r\n");
        let token = |n: usize| reply(200, "", format!("{{\"access_token\":\"t{n}\"}}").as_bytes());
        let good = if asked.path.contains("/manifests/") { "Bearer t0" } else { "Bearer t1" };
        match asked.path.starts_with("/token") {
            true => Some(token(asked.before)),
            false => (asked.authorization != good).then(|| reply(401, &fields, b"")),
        }
    });
    assert_eq!(layer_bytes(&server.open(|_| {}).expect("opened")), layer());
}

#[test]
fn basic_authentication_and_its_refusal() {
    let server = Server::image(|asked, _| {
        let fields = "WWW-Authenticate: Basic realm=\"r\"\r\n";
        (asked.authorization != "Basic dTpw").then(|| reply(401, fields, b""))
    });
    let file = auth_file(&server, "u", "p");
    server.open(|options| options.registry.credentials = files(&file)).expect("opened");
    let error = server.open(|_| {}).expect_err("nothing to log in with").to_string();
    assert!(error.contains("401") && error.contains("docker login"), "{error}");
}

#[test]
fn bytes_that_are_not_what_was_asked_for_are_refused() {
    let wrong = |name: &'static str, bytes: Vec<u8>| {
        Server::image(move |asked, _| asked.path.contains(name).then(|| reply(200, "", &bytes))).open(|_| {})
    };
    let mut changed = layer();
    changed.iter_mut().for_each(|byte| *byte ^= 1);
    let server = Server::image(move |asked, _| is_layer(asked).then(|| reply(200, "", &changed)));
    assert!(matches!(server.open(|_| {}), Err(Error::Digest { .. })));
    assert!(matches!(wrong("/blobs/", vec![0; config("amd64").len()]), Err(Error::Digest { .. })));
    assert!(matches!(wrong("/manifests/", b"<html>".to_vec()), Err(Error::Malformed { .. })));
    let server = Server::image(|_, _| None);
    let name = format!("docker://{}/team/app@{}", server.address, Digest::sha256(&manifest("amd64")));
    let options = Options { registry: quick(), ..Options::default() };
    assert!(open(&name.parse().expect("a source"), &options).is_ok());
    let other =
        Server::image(|asked, _| asked.path.contains("/manifests/").then(|| reply(200, "", &manifest("arm64"))));
    let name = name.replace(&server.address, &other.address);
    assert!(matches!(open(&name.parse().expect("a source"), &options), Err(Error::Size { .. } | Error::Digest { .. })));
}

#[test]
fn a_blob_of_another_size_is_refused_before_it_is_stored() {
    let more = || [layer(), vec![0; 100]].concat();
    for answer in [reply(200, "", &more()), endless(&more()), endless(b"short")] {
        let server = Server::image(move |asked, _| is_layer(asked).then(|| answer.clone()));
        assert!(matches!(server.open(|_| {}), Err(Error::Size { .. })));
    }
}

#[test]
fn an_interrupted_blob_goes_on_where_it_ended() {
    let cut = |asked: &Asked| {
        let mut answer = usual(asked);
        answer.truncate(answer.len() - 500);
        answer
    };
    for ranges in [true, false] {
        let server = Server::image(move |asked, _| match (is_layer(asked), asked.before) {
            (false, _) => None,
            (true, 0) => Some(cut(asked)),
            (true, _) if ranges => {
                let from = asked.range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
                let from = from.and_then(|from| from.parse().ok()).unwrap_or(0);
                let fields = format!("Content-Range: bytes {from}-{}/{}\r\n", layer().len() - 1, layer().len());
                Some(reply(206, &fields, layer().get(from..).unwrap_or_default()))
            }
            (true, _) => None,
        });
        let progress = Arc::new(Progress::default());
        let images = server.open(|options| options.progress = Arc::clone(&progress)).expect("opened");
        assert_eq!(layer_bytes(&images), layer(), "ranges: {ranges}");
        assert_eq!(progress.done(), layer().len() as u64, "ranges: {ranges}");
    }
    let server = Server::image(move |asked, _| is_layer(asked).then(|| cut(asked)));
    assert!(matches!(server.open(|_| {}), Err(Error::Connection { .. })));
    assert_eq!(server.asked(&Digest::sha256(&layer()).to_string()).len(), 3, "one attempt and two further ones");
}

#[test]
fn what_may_pass_is_tried_again_as_the_server_says() {
    for status in [429, 500, 503] {
        let server =
            Server::image(move |asked, _| (asked.before < 2).then(|| reply(status, "Retry-After: 0\r\n", b"")));
        server.open(|_| {}).expect("opened in the end");
        let server = Server::image(move |_, _| Some(reply(status, "Retry-After: 3600\r\n", b"")));
        let error = server.open(|_| {}).expect_err("nobody waits for an hour");
        match error {
            Error::Throttled { retry_after, .. } => assert_eq!(retry_after, Some(Duration::from_secs(3600))),
            Error::Status { status: told, .. } => assert_eq!(told, status),
            error => panic!("{error}"),
        }
        assert_eq!(server.asked("").len(), 1);
    }
}

#[test]
fn what_does_not_pass_is_named_at_once() {
    let text = Server::image(|_, _| Some(reply(400, "", b"HTTP to HTTPS\nmore"))).open(|_| {}).expect_err("refused");
    assert!(text.to_string().ends_with("400; HTTP to HTTPS"), "{text}");
    let answering = |status: u16| Server::image(move |_, _| Some(reply(status, "", b""))).open(|_| {});
    assert!(matches!(answering(403), Err(Error::Denied { status: 403, .. })));
    assert!(matches!(answering(418), Err(Error::Status { status: 418, .. })));
    let server = Server::start(|asked, _| usual(&Asked { path: "none".to_owned(), ..asked.clone() }));
    let error = server.open(|_| {}).expect_err("not there").to_string();
    assert!(error.contains("not found") && error.contains("404: manifest unknown"), "{error}");
    assert_eq!(server.asked("").len(), 1);
}

#[test]
fn a_manifest_beyond_the_limit_is_not_read() {
    let small = |options: &mut Options| options.limits.manifest_bytes = 10_000;
    let announced = b"HTTP/1.1 200 x\r\nContent-Length: 99999999999\r\n\r\n{".to_vec();
    for answer in [announced, endless(&vec![b' '; 1 << 20])] {
        let server = Server::image(move |_, _| Some(answer.clone()));
        let error = server.open(small).expect_err("large");
        assert!(matches!(error, Error::Limit { name: "manifest_bytes", .. }), "{error}");
    }
    let server = Server::image(|_, _| Some(reply(418, "", &vec![b' '; 1 << 22])));
    assert!(matches!(server.open(small), Err(Error::Status { .. })), "an error's body is cut off");
}

#[test]
fn a_redirected_blob_does_not_take_the_credentials_along() {
    let store = Server::image(|_, _| None);
    let to = store.address.clone();
    let server = Server::image(move |asked, _| {
        if asked.authorization != "Basic dTpw" {
            return Some(reply(401, "WWW-Authenticate: Basic realm=\"r\"\r\n", b""));
        }
        let fields = format!("Location: http://{to}{}\r\n", asked.path);
        asked.path.contains("/blobs/").then(|| reply(307, &fields, b""))
    });
    let file = auth_file(&server, "u", "p");
    let images = server.open(|options| options.registry.credentials = files(&file));
    assert_eq!(layer_bytes(&images.expect("opened")), layer());
    assert!(store.asked("/blobs/").iter().all(|asked| asked.authorization.is_empty()));
    assert_eq!(store.asked("/blobs/").len(), 2);
    let server =
        Server::image(|asked, own| Some(reply(307, &format!("Location: http://{own}{}\r\n", asked.path), b"")));
    assert!(matches!(server.open(|_| {}), Err(Error::Unsupported { .. })), "a circle ends");
}

#[test]
fn silence_and_missing_tls_are_named() {
    let server = Server::start(|_, _| {
        thread::sleep(Duration::from_millis(300));
        Vec::new()
    });
    let impatient = |options: &mut Options| {
        options.registry.read_timeout = Duration::from_millis(20);
        options.registry.retries = 0;
    };
    assert!(matches!(server.open(impatient), Err(Error::Timeout { .. })));
    let error = server.open(|options| {
        impatient(options);
        options.registry.read_timeout = Duration::from_secs(9);
        options.registry.total_timeout = Duration::from_millis(20);
    });
    assert!(matches!(error, Err(Error::Timeout { seconds: 0, .. })));
    for answer in [&b"HTTP/1.1 400 x\r\n\r\n"[..], b""] {
        let server = Server::start(move |_, _| answer.to_vec());
        let error = server.open(|options| options.registry.plain_http = false).expect_err("no TLS");
        assert!(matches!(&error, Error::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains("--plain-http"), "{error}");
    }
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let nobody = Server { address: free.to_string(), asked: Arc::default() };
    assert!(matches!(nobody.open(impatient), Err(Error::Connection { .. })));
}

#[test]
fn a_file_without_certificates_is_refused() {
    let server = Server::image(|_, _| None);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let error = server.open(|options| options.registry.ca_file = Some(file.path().to_owned())).expect_err("empty");
    assert!(error.to_string().contains("no PEM certificate"), "{error}");
    let error = server.open(|options| options.registry.ca_file = Some("/nonexistent.pem".into()));
    assert!(matches!(error, Err(Error::Io { .. })));
}

#[test]
fn an_index_is_followed_to_all_platforms_and_layers_are_fetched_once() {
    let index = |own: &[&str]| {
        let entries = own.iter().map(|platform| {
            let mut entry = crate::fixture::descriptor(OCI_MANIFEST, &manifest(platform));
            let platform = serde_json::json!({"os": "linux", "architecture": platform});
            entry.as_object_mut().expect("an object").insert("platform".to_owned(), platform);
            entry
        });
        serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries.collect::<Vec<_>>()})
            .to_string()
    };
    let body = index(&["amd64", "arm64"]);
    let served = body.clone();
    let server = Server::image(move |asked, _| {
        let of = |bytes: Vec<u8>| asked.path.ends_with(Digest::sha256(&bytes).as_str()).then(|| reply(200, "", &bytes));
        match asked.path.ends_with("/manifests/1") {
            true => Some(reply(200, "", served.as_bytes())),
            false => of(manifest("arm64")).or_else(|| of(config("arm64"))),
        }
    });
    let images = server.open(|options| options.all_platforms = true).expect("opened");
    assert_eq!(images.len(), 2);
    assert!(images.iter().all(|image| image.digests.index == Some(Digest::sha256(body.as_bytes()))));
    assert_eq!(server.asked(Digest::sha256(&layer()).as_str()).len(), 1);
}

#[test]
fn what_the_cache_has_is_not_fetched_again_unless_it_was_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::image(|_, _| None);
    let open = || {
        let cache = Cache::new(folder.path(), 1 << 20);
        layer_bytes(&server.open(|options| options.registry.cache = Some(cache)).expect("opened"))
    };
    assert_eq!((open(), open()), (layer(), layer()));
    assert_eq!(server.asked("/blobs/").len(), 2, "config and layer, once");
    let path = folder.path().join("sha256").join(Digest::sha256(&layer()).hex());
    std::fs::write(&path, vec![0; layer().len()]).expect("damaged");
    assert_eq!(open(), layer());
    assert_eq!(server.asked("/blobs/").len(), 3);
}

#[test]
fn the_docker_daemon_gives_an_archive_on_its_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let log = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&log);
    thread::spawn(move || {
        let item = br#"[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]"#.to_vec();
        let archive = tar(&[("c", config("amd64")), ("l", layer()), ("manifest.json", item)]);
        let answer: Answer = Arc::new(move |asked| match asked.path.contains("missing") {
            true => reply(404, "", b"{\"message\":\"No such image\"}"),
            false => endless(&archive),
        });
        for stream in listener.incoming().flatten() {
            let _ = serve(stream, &seen, &answer);
        }
    });
    let docker_host = Some(format!("unix://{}", socket.display()));
    let options = Options { registry: Settings { docker_host, ..quick() }, ..Options::default() };
    let open_name =
        |name: &str, options: &Options| open(&format!("docker-daemon:{name}").parse().expect("a source"), options);
    assert_eq!(layer_bytes(&open_name("a:1", &options).expect("opened")), layer());
    let path = log.lock().expect("no panic").first().map(|asked: &Asked| asked.path.clone());
    assert_eq!(path.as_deref(), Some("/images/docker.io/library/a%3A1/get"));
    assert!(matches!(open_name("missing", &options), Err(Error::Missing { .. })));
    let mut small = options.clone();
    small.limits.image_bytes = 100;
    assert!(matches!(open_name("a:1", &small), Err(Error::Limit { name: "image_bytes", .. })));
    small.registry.docker_host = Some("ssh://x".to_owned());
    assert!(matches!(open_name("a:1", &small), Err(Error::Unsupported { .. })));
}
