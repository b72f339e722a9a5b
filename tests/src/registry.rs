//! Debian's `docker-registry` on a free loopback port: started here, ended by its process id when dropped.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{run, tool};

/// How the registry is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Plain HTTP, for everyone.
    Anonymous,
    /// Plain HTTP, with a name and password.
    Password,
    /// HTTPS with a certificate of an own authority, for everyone.
    Tls,
}

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    access: Access,
}

impl Registry {
    /// The one name that may enter a registry with [`Access::Password`].
    pub const USER: &'static str = "may";
    /// Its password.
    pub const PASSWORD: &'static str = "fly-7f3a91";

    /// Starts a registry and waits until it answers.
    pub fn start(access: Access) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let config = folder.path().join("config.yml");
        fs::write(&config, settings(folder.path(), port, access)).expect("written");
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let child = tool("docker-registry", "docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let registry = Self { child, folder, port, access };
        let patience = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(patience.elapsed() < Duration::from_secs(20), "no registry: {}", registry.log());
            thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// A reference to `name` in this registry, `localhost:PORT/name`.
    pub fn reference(&self, name: &str) -> String {
        format!("localhost:{}/{name}", self.port)
    }

    /// The certificate authority's file; only with [`Access::Tls`].
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What the registry logged: one line a request.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Requests for the contents of blobs so far.
    pub fn blob_reads(&self) -> usize {
        self.log().lines().filter(|line| line.contains("\"GET /v2/") && line.contains("/blobs/")).count()
    }

    /// Copies an image in with skopeo; `options` are further ones of `skopeo copy`.
    pub fn push(&self, source: &str, name: &str, options: &[&str]) {
        let mut copy = tool("skopeo", "skopeo");
        copy.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]).args(options);
        if self.access == Access::Password {
            copy.arg("--dest-creds").arg(format!("{}:{}", Self::USER, Self::PASSWORD));
        }
        let done = run(copy.arg(source).arg(format!("docker://{}", self.reference(name))));
        assert_eq!(done.code, 0, "{}\n{}", done.stderr, self.log());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(folder: &Path, port: u16, access: Access) -> String {
    let at = |name: &str| folder.join(name).display().to_string();
    let mut text = format!(
        "version: 0.1\nlog: {{ accesslog: {{ disabled: false }}, level: warn }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\n\
         http:\n  addr: 127.0.0.1:{port}\n",
        at("data")
    );
    match access {
        Access::Anonymous => {}
        Access::Password => {
            let made = run(tool("htpasswd", "apache2-utils").args(["-Bbn", Registry::USER, Registry::PASSWORD])).ok();
            fs::write(folder.join("htpasswd"), made.stdout).expect("written");
            text.push_str(&format!("auth:\n  htpasswd: {{ realm: tests, path: {} }}\n", at("htpasswd")));
        }
        Access::Tls => {
            certificates(folder);
            text.push_str(&format!("  tls: {{ certificate: {}, key: {} }}\n", at("server.pem"), at("server.key")));
        }
    }
    text
}

fn certificates(folder: &Path) {
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "authority of the tests");
    let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let server = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let certificate = server.signed_by(&key, &issuer).expect("a certificate");
    fs::write(folder.join("ca.pem"), ca_certificate.pem()).expect("written");
    fs::write(folder.join("server.pem"), certificate.pem()).expect("written");
    fs::write(folder.join("server.key"), key.serialize_pem()).expect("written");
}
