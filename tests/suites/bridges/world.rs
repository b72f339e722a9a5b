//! What these suites share: an image of which a ledger knows what it does, bridges as a user runs them, and how alerts are counted.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use dna::Digest;
use jiff::Timestamp;
use lineage::{AlertQuery, Ledger};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tests::{Bridge, knows, mayfly_path, served, written};

/// The digest that the containers' sensor names.
pub(crate) fn subject() -> Digest {
    tests::subject(0)
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// A ledger that knows the image's DNA.
pub(crate) async fn ledger(url: &str) -> Ledger {
    let ledger = Ledger::open(url).await.expect("a ledger");
    knows(&ledger, 0, &served(0)).await;
    ledger
}

/// The program; its files are in `folder`. Of its sensors and options, these are the test's.
pub(crate) fn command(folder: &Path, port: u16, sensors: &str, options: &[String]) -> Command {
    let mut command = Command::new(mayfly_path());
    command
        .arg("bridge")
        .args(["--no-cluster", "--cluster", "one", "--listen", &format!("127.0.0.1:{port}")])
        .args(options)
        .args(["--sensors", &written(folder, "sensors.toml", sensors)])
        .arg("--data")
        .arg(folder.join("bridge"));
    command
}

/// Starts it, and waits until it takes events.
pub(crate) fn start(folder: &Path, port: u16, sensors: &str, options: &[String]) -> Bridge {
    Bridge::spawn(command(folder, port, sensors, options), port)
}

/// Alerts by subject, and how often each was counted, once there are so many in all.
pub(crate) async fn counted(ledger: &Ledger, wanted: u64) -> BTreeMap<String, u64> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let alerts =
            ledger.alerts(&AlertQuery { limit: 100, ..AlertQuery::default() }, Timestamp::now()).await.expect("read");
        let counts: BTreeMap<String, u64> =
            alerts.iter().map(|head| (format!("{} {}", head.owner, head.subject), head.count)).collect();
        assert_eq!(counts.len(), alerts.len(), "an alert is there twice");
        if counts.values().sum::<u64>() >= wanted || Instant::now() > until {
            return counts;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Certificates of one authority, by their files.
pub(crate) struct Certificates {
    pub(crate) ca: String,
    pub(crate) server: String,
    pub(crate) server_key: String,
    pub(crate) client: String,
    pub(crate) client_key: String,
}

impl Certificates {
    /// The server is called `localhost`.
    pub(crate) fn new(folder: &Path) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).expect("signed").pem();
        let issuer = Issuer::new(params, key);
        let issued = |name: &str, purpose| {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new([name.to_owned()]).expect("names");
            params.extended_key_usages = vec![purpose];
            (params.signed_by(&key, &issuer).expect("signed").pem(), key.serialize_pem())
        };
        let (server, server_key) = issued("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let (client, client_key) = issued("bridge", ExtendedKeyUsagePurpose::ClientAuth);
        let file = |name: &str, text: &str| written(folder, name, text);
        Self {
            ca: file("ca.pem", &authority),
            server: file("server.pem", &server),
            server_key: file("server.key", &server_key),
            client: file("client.pem", &client),
            client_key: file("client.key", &client_key),
        }
    }
}
