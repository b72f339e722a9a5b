#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::OnceLock,
};

use flate2::{Compression, write::GzEncoder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use reqwest::{Certificate, Client, Identity};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
};

use super::*;
use crate::log::{Log, Offset, Options, Read, Record};

const SECRET: &str = "s3cr3t-in-the-path";
const TOKEN: &str = "t0ken-in-a-header";
const EVENT: &str = r#"{"rule":"Terminal shell in container","output_fields":{"proc.name":"sh"}}"#;

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Two sensors; their names begin alike, since metrics are those of all tests.
fn sensors(prefix: &str) -> Sensors {
    let text = format!(
        r#"
        [[sensor]]
        name = "{prefix}-falco"
        dialect = "falco"
        cluster = "eu"
        path_secret_sha256 = "{}"
        token_sha256 = "{}"
        client_cn = "falco.sensors"

        [[sensor]]
        name = "{prefix}-loud"
        dialect = "falco"
        cluster = "eu"
        path_secret_sha256 = "{}"
        bytes_per_second = 1000
        "#,
        sha256(SECRET),
        sha256(TOKEN),
        sha256(SECRET).to_uppercase(),
    );
    Sensors::parse(&text, "sensors.toml").expect("sensors")
}

fn metrics_of_all() -> &'static PrometheusHandle {
    static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
    METRICS.get_or_init(|| PrometheusBuilder::new().install_recorder().expect("the only one"))
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Blind for Told {
    fn refused(&self, sensor: &Sensor, events: u64) {
        lock(&self.0).push(format!("{} lost {events}", sensor.name));
    }

    fn malformed(&self, sensor: &Sensor, count: u64, samples: &[&[u8]]) {
        let samples = samples.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect::<Vec<_>>();
        lock(&self.0).push(format!("{} malformed {count}: {samples:?}", sensor.name));
    }

    fn opened(&self, sensor: &Sensor, _: Timestamp, reason: &'static str) {
        lock(&self.0).push(format!("{} blind: {reason}", sensor.name));
    }

    fn closed(&self, sensor: &Sensor, _: Timestamp) {
        lock(&self.0).push(format!("{} sees", sensor.name));
    }
}

/// A door that is served.
struct Served {
    address: SocketAddr,
    door: Door,
    log: Log,
    blind: Arc<Told>,
    folder: TempDir,
    end: Option<oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    prefix: &'static str,
}

impl Served {
    fn start(prefix: &'static str, options: Options, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        metrics_of_all();
        let folder = TempDir::new().expect("a folder");
        let (log, _) = Log::open(folder.path(), options).expect("a log");
        let blind = Arc::new(Told::default());
        let door = Door::new(log.clone(), sensors(prefix), blind.clone());
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        let address = listener.local_addr().expect("bound");
        let (end, ended) = oneshot::channel();
        let router = door.router();
        let server = tokio::spawn(async move { serve(listener, tls, router, async { drop(ended.await) }).await });
        Self { address, door, log, blind, folder, end: Some(end), server, prefix }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v1/events/{}-{path}", self.address, self.prefix)
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
        let response = Client::new().post(self.url(path)).body(body).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("a body"))
    }

    fn records(&self) -> Vec<Record> {
        let mut reader = self.log.reader(Offset(0));
        let mut records = Vec::new();
        while let Some(Read::Records(read)) = reader.read().expect("reads") {
            records.extend(read);
        }
        records
    }

    fn metric(&self, name: &str, more: &str) -> u64 {
        let text = metrics_of_all().render();
        let lines = text.lines().filter(|l| l.starts_with(name) && l.contains(self.prefix) && l.contains(more));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    async fn end(mut self) {
        drop(self.end.take());
        self.server.await.expect("no panic").expect("served");
    }
}

fn path() -> String {
    format!("falco/{SECRET}")
}

#[tokio::test]
async fn what_is_answered_is_on_disk() {
    let served = Served::start("disk", Options::default(), None);
    assert_eq!(served.post(&path(), EVENT).await, (200, "{}".to_owned()));
    let several = format!("[{EVENT},{EVENT}]\n{EVENT}\n");
    assert_eq!(served.post(&path(), several).await.0, 200);
    assert_eq!(served.post(&path(), "").await.0, 200, "who asks whether anybody is there");
    let records = served.records();
    assert!(
        records.iter().all(|record| record.body == EVENT && &*record.sensor == "disk-falco" && !record.is_over_limit)
    );
    assert_eq!(records.len(), 4);
    assert_eq!(served.metric("mayfly_events_received_total", "falco"), 4);
    let Served { door, log, folder, end, server, .. } = served;
    drop(end);
    server.await.expect("no panic").expect("served");
    drop((door, log));
    let (log, recovery) = Log::open(folder.path(), Options::default()).expect("opens");
    assert_eq!((log.end(), recovery), (Offset(4), crate::log::Recovery::default()));
}

#[tokio::test]
async fn only_who_has_a_credential_comes_in() {
    let served = Served::start("who", Options::default(), None);
    let wrong = SECRET.replace('s', "x");
    for (path, bearer, expected) in [
        ("falco".to_owned(), None, 401),
        ("falco".to_owned(), Some(TOKEN), 200),
        ("falco".to_owned(), Some("another"), 403),
        ("falco".to_owned(), Some(SECRET), 403),
        ("loud".to_owned(), Some(TOKEN), 403),
        (format!("falco/{SECRET}"), None, 200),
        (format!("falco/{SECRET}"), Some("another"), 200),
        (format!("falco/{wrong}"), None, 403),
        (format!("falco/{TOKEN}"), None, 403),
        ("falco/".to_owned(), None, 404),
        ("other".to_owned(), Some(TOKEN), 404),
        ("%ff/x".to_owned(), None, 404),
    ] {
        let mut request = Client::new().post(served.url(&path)).body(EVENT);
        if let Some(token) = bearer {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), expected, "{path} {bearer:?}");
        let text = response.text().await.expect("a body");
        assert!(!text.contains(SECRET) && !text.contains(TOKEN), "{text}");
    }
    assert_eq!(served.records().len(), 3);
    assert_eq!(served.metric("mayfly_requests_refused_total", "not authenticated"), 6);
    assert_eq!(*lock(&served.blind.0), [""; 0], "strangers make nobody blind");
    served.end().await;
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_logged_or_measured() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());
    // All tasks of this test run in its thread, where its subscriber is.
    let served = Served::start("quiet", Options { max_bytes: 1, ..Options::default() }, None);
    assert_eq!(served.post(&path(), EVENT).await.0, 503);
    assert_eq!(served.post(&path(), format!("password={SECRET} {{")).await.0, 400);
    assert_eq!(served.post("falco/wrong-s3cr3t", EVENT).await.0, 403);
    let raw = format!("POST /v1/events/quiet-falco/{SECRET} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nbroken");
    let mut stream = TcpStream::connect(served.address).await.expect("connects");
    stream.write_all(raw.as_bytes()).await.expect("written");
    drop(stream);
    let shown = format!("{:?}", served.door);
    served.end().await;
    drop(guard);
    let text = String::from_utf8(lock(&lines.0).clone()).expect("text");
    // The client of the test is in this process too, and says what it likes.
    let ours: Vec<&str> =
        text.lines().filter(|line| !line.contains("hyper_util::client") && !line.contains("reqwest")).collect();
    assert!(ours.iter().any(|line| line.contains("refused and lost")), "{text}");
    for secret in [SECRET, TOKEN, "wrong-s3cr3t"] {
        assert!(ours.iter().all(|line| !line.contains(secret)), "{ours:#?}");
        assert!(!metrics_of_all().render().contains(secret) && !shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn gzip_is_inflated_and_bounded() {
    let served = Served::start("gzip", Options::default(), None);
    let zip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    };
    let post = async |body: Vec<u8>, encoding: &str| {
        let request = Client::new().post(served.url(&path())).header("content-encoding", encoding).body(body);
        request.send().await.expect("an answer").status().as_u16()
    };
    let lines = format!("{EVENT}\n").repeat(1000);
    assert_eq!(post(zip(lines.as_bytes()), "gzip").await, 200);
    assert_eq!(served.records().len(), 1000);
    let bomb = zip(&vec![b' '; body::MAX_BODY + 1]);
    assert!(bomb.len() < 64 << 10);
    assert_eq!(post(bomb, "gzip").await, 413);
    assert_eq!(post(zip(&vec![b' '; body::MAX_BODY]), "gzip").await, 200, "just not too large");
    assert_eq!(post(EVENT.into(), "gzip").await, 400);
    let mut cut = zip(lines.as_bytes());
    cut.truncate(cut.len() / 2);
    assert_eq!(post(cut, "gzip").await, 400);
    assert_eq!(post(EVENT.into(), "zstd").await, 415);
    assert_eq!(post(EVENT.into(), "identity").await, 200);
    assert_eq!(served.records().len(), 1001);
    served.end().await;
}

#[tokio::test]
async fn a_large_body_is_refused_with_and_without_a_length() {
    let served = Served::start("large", Options::default(), None);
    // As much as is announced is never sent: the answer comes before.
    for (head, body) in [
        (format!("content-length: {}", body::MAX_BODY + 1), Vec::new()),
        ("transfer-encoding: chunked".to_owned(), {
            let mut chunk = format!("{:x}\r\n", body::MAX_BODY + 1).into_bytes();
            chunk.extend(vec![b' '; body::MAX_BODY + 1]);
            chunk
        }),
    ] {
        let mut stream = TcpStream::connect(served.address).await.expect("connects");
        let head = format!("POST /v1/events/large-falco/{SECRET} HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("written");
        let (mut read, mut write) = stream.into_split();
        tokio::spawn(async move { drop(write.write_all(&body).await) });
        let mut answer = [0; 12];
        read.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 413");
    }
    served.end().await;
}

#[tokio::test]
async fn what_is_no_json_costs_only_itself_and_is_told() {
    let served = Served::start("json", Options::default(), None);
    let long = format!("{EVENT}\nAuthorization: Bearer abcdefghijklmnop {}\n{EVENT}\n17\n", "x".repeat(5000));
    assert_eq!(served.post(&path(), long).await.0, 200);
    assert_eq!(served.records().len(), 2);
    for _ in 0..20 {
        assert_eq!(served.post(&path(), "<html>").await.0, 400);
    }
    assert_eq!(served.post(&path(), format!("[{}{{}}]", "{},".repeat(1 << 16))).await.0, 413);
    assert_eq!(served.metric("mayfly_events_malformed_total", "falco"), 22);
    let told: Vec<String> = lock(&served.blind.0).iter().filter(|line| line.contains("malformed")).cloned().collect();
    assert_eq!(told.len(), 21);
    assert!(
        told[0].starts_with("json-falco malformed 2: [\"Authorization") && told[20].ends_with("1: [\"<html>\"]"),
        "{told:?}"
    );
    assert_eq!(served.records().len(), 2);
    served.end().await;
}

#[tokio::test]
async fn a_log_that_takes_nothing_is_said_and_opens_a_blind_interval() {
    let served = Served::start("full", Options { max_bytes: 8000, segment_bytes: 2000, ..Options::default() }, None);
    let mut cursor = served.log.cursor("judge").expect("a cursor");
    let mut taken = 0;
    let refused = loop {
        let response = Client::new().post(served.url(&path())).body(EVENT).send().await.expect("an answer");
        match response.status().as_u16() {
            200 => taken += 1,
            _ => break response,
        }
    };
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"5"[..]));
    assert_eq!(refused.text().await.expect("a body"), r#"{"error":"the log is full of what is not read yet"}"#);
    assert_eq!(served.post(&path(), format!("[{EVENT},{EVENT},{EVENT}]")).await.0, 503);
    assert_eq!(served.records().len(), taken);
    while cursor.read().expect("reads").is_some() {}
    cursor.commit(served.log.end()).expect("committed");
    assert_eq!(served.post(&path(), EVENT).await.0, 200);
    let told = lock(&served.blind.0).clone();
    let blind = "full-falco blind: the log is full of what is not read yet";
    assert_eq!(told, ["full-falco lost 1", blind, "full-falco lost 3", "full-falco sees"]);
    assert_eq!(served.metric("mayfly_requests_refused_total", "full-falco"), 2);
    served.end().await;
}

#[tokio::test]
async fn over_its_rate_a_sensor_is_marked_and_only_refused_while_the_log_fills_up() {
    let served = Served::start("rate", Options { max_bytes: 60_000, segment_bytes: 8000, ..Options::default() }, None);
    let loud = format!("loud/{SECRET}");
    let body = format!("{{\"x\":\"{}\"}}", "-".repeat(4000));
    for _ in 0..4 {
        assert_eq!(served.post(&loud, body.clone()).await.0, 200);
    }
    let marked: Vec<bool> = served.records().iter().map(|record| record.is_over_limit).collect();
    assert_eq!(marked, [false, false, true, true]);
    let mut refused = None;
    for _ in 0..20 {
        match served.post(&loud, body.clone()).await {
            (200, _) => {}
            other => refused = refused.or(Some(other)),
        }
    }
    let (status, why) = refused.expect("refused, when half of the disk is taken");
    assert!(status == 503 && why.contains("over its rate"), "{why}");
    assert_eq!(served.post(&path(), EVENT).await.0, 200, "others are taken");
    assert!(served.metric("mayfly_events_over_limit_total", "loud") >= 20);
    served.end().await;
}

#[test]
fn a_rate_comes_back_with_time() {
    let begin = Instant::now();
    let after = |seconds| begin + Duration::from_secs(seconds);
    let mut rate = Rate { at: begin, ..Rate::new(Some(100)) };
    assert!(!rate.is_over(1000, begin), "ten seconds' worth at once");
    assert!(rate.is_over(1, begin));
    assert!(!rate.is_over(400, after(5)) && rate.is_over(200, after(5)));
    assert!(rate.is_over(1 << 40, after(6)));
    assert!(!rate.is_over(500, after(30)), "a flood is forgotten");
    assert!(!Rate::new(None).is_over(usize::MAX, begin));
}

#[tokio::test]
async fn a_slow_client_holds_up_nobody_and_is_told_to_go() {
    let served = Served::start("slow", Options::default(), None);
    let mut slow = TcpStream::connect(served.address).await.expect("connects");
    let head = format!("POST /v1/events/slow-falco/{SECRET} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{");
    slow.write_all(head.as_bytes()).await.expect("written");
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(served.post(&path(), EVENT).await.0, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert_eq!(lock(&served.blind.0)[..], ["slow-falco lost 1", "slow-falco blind: the body did not come in time"]);
    served.end().await;
}

#[tokio::test]
async fn a_client_that_asks_nothing_is_told_to_go() {
    let served = Served::start("mute", Options::default(), None);
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = listener.local_addr().expect("bound");
    let (end, ended) = oneshot::channel::<()>();
    let header = Duration::from_millis(200);
    let router = served.door.router();
    let serving = serve::serve_within(header, listener, None, router, async { drop(ended.await) });
    let serving = tokio::spawn(serving);
    for begin in ["", "P", "POST /v1/ev", "POST /v1/events/mute-falco HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(begin.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(matches!(read, Ok(Ok(_) | Err(_))), "still open after {begin:?}");
    }
    drop(end);
    serving.await.expect("no panic").expect("served");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_requests_at_once_are_all_taken() {
    let served = Arc::new(Served::start("many", Options::default(), None));
    let requests: Vec<_> = (0..200)
        .map(|number| {
            let served = Arc::clone(&served);
            // A client of its own each, as Tracee has it: no connection is shared.
            tokio::spawn(async move { served.post(&path(), format!("{{\"number\":{number}}}")).await })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.expect("runs").0, 200);
    }
    let mut bodies: Vec<_> = served.records().into_iter().map(|record| record.body).collect();
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!(bodies.len(), 200);
    Arc::into_inner(served).expect("the last").end().await;
}

/// An authority, and what it issued: certificate and key in PEM.
fn issued(names: &[&str]) -> (String, Vec<(String, String)>) {
    let named = |name: &str| {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params
    };
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = named("authority");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("a certificate").pem();
    let issuer = rcgen::Issuer::new(params, key);
    let leaf = |name: &&str| {
        let key = rcgen::KeyPair::generate().expect("a key");
        (named(name).signed_by(&key, &issuer).expect("a certificate").pem(), key.serialize_pem())
    };
    (authority, names.iter().map(leaf).collect())
}

fn files(folder: &TempDir, files: &[(&str, &str)]) -> PathBuf {
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    folder.path().to_owned()
}

#[tokio::test]
async fn a_client_certificate_lets_in_whom_it_names() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (authority, pairs) = issued(&["server", "falco.sensors", "somebody"]);
    let (stranger, strangers) = issued(&["falco.sensors"]);
    let folder = TempDir::new().expect("a folder");
    let place = files(&folder, &[("tls.crt", &pairs[0].0), ("tls.key", &pairs[0].1), ("ca.crt", &authority)]);
    let options = certs::ServingOptions {
        client_authorities: Some(place.join("ca.crt")),
        is_client_optional: true,
        ..certs::ServingOptions::default()
    };
    let serving = certs::Serving::new(&options).expect("TLS");
    let (end, ended) = oneshot::channel::<()>();
    let source = certs::Source::Files(certs::FileSource::folder(&place));
    let renewing = tokio::spawn(certs::run(source, serving.clone(), async { drop(ended.await) }));
    while !serving.is_ready() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let served = Served::start("mtls", Options::default(), Some(serving.config()));
    let url = |path: &str| format!("https://localhost:{}/v1/events/mtls-{path}", served.address.port());
    let client = |pair: Option<&(String, String)>| {
        let root = Certificate::from_pem(authority.as_bytes()).expect("a certificate");
        let builder = Client::builder().tls_certs_only([root]).resolve("localhost", served.address);
        match pair {
            None => builder,
            Some((chain, key)) => {
                builder.identity(Identity::from_pem(format!("{chain}{key}").as_bytes()).expect("an identity"))
            }
        }
        .build()
        .expect("a client")
    };
    let post = async |client: Client, path: &str| {
        let answer = client.post(url(path)).body(EVENT).send().await;
        answer.map(|response| response.status().as_u16()).ok()
    };
    assert_eq!(post(client(Some(&pairs[1])), "falco").await, Some(200));
    assert_eq!(post(client(Some(&pairs[2])), "falco").await, Some(403));
    assert_eq!(post(client(Some(&pairs[1])), "loud").await, Some(403), "the other sensor has no client");
    assert_eq!(post(client(None), "falco").await, Some(401));
    assert_eq!(post(client(None), &path()).await, Some(200), "who shows none has the other ways");
    assert_eq!(post(client(Some(&strangers[0])), "falco").await, None, "another authority's, not even by a handshake");
    assert_ne!(stranger, authority);
    assert_eq!(served.records().len(), 2);
    served.end().await;
    drop(end);
    renewing.await.expect("no panic");
}

#[test]
fn sensors_that_cannot_be_used_are_refused_with_the_reason() {
    let digest = sha256(SECRET);
    let one = |more: &str| format!("[[sensor]]\nname = \"a\"\ndialect = \"falco\"\ncluster = \"eu\"\n{more}");
    let good = one(&format!("token_sha256 = \"{digest}\"\n"));
    assert_eq!(Sensors::parse(&good, "f").expect("sensors").iter().count(), 1);
    assert_eq!(Sensors::parse("", "f").expect("none").iter().count(), 0);
    for (text, expected) in [
        (one(""), "f: sensor 1 \"a\": it has no credential"),
        (format!("{good}{good}"), "f: sensor 2 \"a\": another sensor has this name"),
        (one("tokens_sha256 = \"x\""), "f:5: unknown field `tokens_sha256`, expected one of"),
        (one(&format!("token_sha256 = \"{SECRET}\"")), "f:5: not a SHA-256 of 64 hexadecimal digits"),
        (one(&format!("token_sha256 = \"{}\"", sha256(""))), "f:5: it is the SHA-256 of nothing"),
        (good.replace("\"falco\"", "\"falcon\""), "`dialect` \"falcon\" is not known; there are: falco"),
        (good.replace("\"a\"", "\"a/b\""), "`name` must be"),
        (good.replace("\"eu\"", "\"\""), "`cluster` is empty"),
        (one("client_cn = \"\""), "`client_cn` is empty"),
        (format!("{good}bytes_per_second = 0\n"), "`bytes_per_second` is 0"),
        (good.replace("cluster = \"eu\"\n", ""), "missing field `cluster`"),
        ("[[sensors]]".to_owned(), "unknown field `sensors`"),
        ("[[sensor]".to_owned(), "f:1: "),
    ] {
        let error = Sensors::parse(&text, "f").expect_err(expected).to_string();
        assert!(error.contains(expected) && !error.contains(SECRET), "{error}");
    }
}
