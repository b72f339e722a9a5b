//! How single registries are reached: a TOML document in, settings by host out. Its keys are those of containerd's
//! `hosts.toml`, where that has them; see `docs/registries.md`.

use std::{
    collections::BTreeMap,
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use sha2::Digest as _;

use super::{Pace, Settings, transport};
use crate::{Error, Reference};

/// What differs for some registries from [`Settings`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// By host, and port where one is named in references: `docker.io`, `registry.corp.io:5000`.
    #[serde(default)]
    pub host: BTreeMap<String, Host>,
}

/// One registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// PEM file with authorities to trust beside the system's.
    pub ca: Option<PathBuf>,
    /// The same, as text.
    #[serde(skip)]
    pub ca_pem: Option<String>,
    /// PEM files with the certificate, and the key, to be shown to the registry.
    pub client: Option<(PathBuf, PathBuf)>,
    /// HTTP without TLS: see [`Settings::plain_http`].
    pub plain_http: bool,
    /// The proxy to go through, whatever the environment says; empty: none.
    pub proxy: Option<String>,
    /// Seconds to connect.
    pub dial_timeout: Option<u64>,
    /// Seconds between two pieces of an answer.
    pub read_timeout: Option<u64>,
    /// Where the registry's content also is, in the order to be asked before the registry itself.
    pub mirrors: Vec<Mirror>,
    /// Whether mirrors are asked what tags and lists of referrers hold. Without, they are asked for what has a digest only,
    /// which no mirror can change: a mirror may be old, or somebody else's.
    pub mirror_tags: bool,
    /// Bounds how much is asked.
    #[serde(skip)]
    pub pace: Option<Pace>,
}

/// Another registry that has the same repositories, below a path or not: `mirror.corp.io`, `harbor.corp.io/docker-hub`. How it
/// is reached, and with what credentials, goes by its own name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mirror(String);

impl FromStr for Mirror {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let host = text.split('/').next().unwrap_or(text);
        let reference =
            format!("{text}/a/b").parse::<Reference>().ok().filter(|reference| reference.registry() == host);
        match reference {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(Error::malformed("the mirror", "it is no host, with a path or without")),
        }
    }
}

impl TryFrom<String> for Mirror {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Mirror {
    /// What `reference` is there.
    pub(super) fn of(&self, reference: &Reference) -> Result<Reference, Error> {
        let tag = reference.tag().map_or_else(String::new, |tag| format!(":{tag}"));
        let digest = reference.digest().map_or_else(String::new, |digest| format!("@{digest}"));
        let text = format!("{self}/{}{tag}{digest}", reference.repository());
        text.parse().map_err(|error| Error::malformed(format!("the mirror {self}"), error))
    }
}

impl Hosts {
    /// The document `path`; other files that it names are relative to its folder.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::Malformed`] for what is no such document.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let what = path.display().to_string();
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(|error| Error::read(&*what, error))?;
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| Error::read(&*what, error))?;
        // The whole message shows the line, which may hold a proxy's password.
        let mut hosts: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or("").lines().count().max(1));
            Error::malformed(&*what, format!("line {line}: {}", error.message()))
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        for host in hosts.host.values_mut() {
            for file in host.ca.iter_mut().chain(host.client.iter_mut().flat_map(|(cert, key)| [cert, key])) {
                *file = folder.join(&*file);
            }
        }
        Ok(hosts)
    }
}

impl Settings {
    /// The settings for one registry.
    pub(super) fn of(&self, registry: &str) -> Self {
        let Some(host) = self.hosts.host.get(registry) else { return self.clone() };
        let seconds = |seconds: Option<u64>, usual| seconds.map_or(usual, Duration::from_secs);
        Self {
            plain_http: self.plain_http || host.plain_http,
            ca_pem: host.ca_pem.clone().or_else(|| self.ca_pem.clone()),
            pace: host.pace.clone().or_else(|| self.pace.clone()),
            ca_file: host.ca.clone().or_else(|| self.ca_file.clone()),
            client: host.client.clone().or_else(|| self.client.clone()),
            proxy: host.proxy.clone().or_else(|| self.proxy.clone()),
            connect_timeout: seconds(host.dial_timeout, self.connect_timeout),
            read_timeout: seconds(host.read_timeout, self.read_timeout),
            ..self.clone()
        }
    }
}

/// Connections to registries, kept for whoever asks the same registry in the same way; clones share them. They carry no
/// credentials of repositories.
#[derive(Clone, Default)]
pub struct Connections(Arc<std::sync::Mutex<BTreeMap<[u8; 32], transport::Clients>>>);

impl Connections {
    /// The clients for `settings`, new ones where a file that they name has changed.
    pub(super) fn clients(&self, settings: &Settings) -> Result<transport::Clients, Error> {
        let files = transport::Files::read(settings)?;
        let way = (
            settings.connect_timeout,
            settings.read_timeout,
            &settings.proxy,
            settings.proxy_from_env,
            settings.plain_http,
        );
        let key = sha2::Sha256::digest(format!("{way:?} {files:?}").as_bytes()).into();
        let lock = || self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(clients) = lock().get(&key) {
            return Ok(clients.clone());
        }
        let clients = transport::Clients::new(settings, &files)?;
        let mut kept = lock();
        if kept.len() >= MAX_CLIENTS {
            kept.clear();
        }
        kept.insert(key, clients.clone());
        Ok(clients)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connections(..)")
    }
}

/// Any two are equal: what is connected is no setting.
impl PartialEq for Connections {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Connections {}

const MAX_BYTES: u64 = 1 << 20;
const MAX_CLIENTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Hosts, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registries.toml");
        std::fs::write(&path, text).expect("written");
        Hosts::read(&path).map(|mut hosts| {
            for host in hosts.host.values_mut() {
                host.ca = host.ca.take().map(|ca| ca.strip_prefix(folder.path()).unwrap_or(&ca).to_owned());
            }
            hosts
        })
    }

    #[test]
    fn a_registry_has_what_its_table_says_and_else_what_all_have() {
        let hosts = read(
            r#"
            [host."docker.io"]
            mirrors = ["mirror.corp.io", "harbor.corp.io:8443/docker-hub"]
            [host."mirror.corp.io"]
            ca = "corp.pem"
            dial_timeout = 2
            plain_http = true
            "#,
        );
        let settings = Settings { hosts: hosts.expect("read"), ..Settings::default() };
        let mirror = settings.of("mirror.corp.io");
        assert_eq!((mirror.ca_file, mirror.connect_timeout), (Some("corp.pem".into()), Duration::from_secs(2)));
        assert!(mirror.plain_http && !settings.of("docker.io").plain_http);
        let reference = "nginx:1".parse().expect("a reference");
        let mirrors = &settings.hosts.host.get("docker.io").expect("there").mirrors;
        let at: Vec<_> = mirrors.iter().map(|mirror| mirror.of(&reference).expect("a reference").to_string()).collect();
        assert_eq!(at, ["mirror.corp.io/library/nginx:1", "harbor.corp.io:8443/docker-hub/library/nginx:1"]);
    }

    #[test]
    fn what_is_no_such_document_is_refused_without_its_text() {
        for text in [
            "[host.\"a.io\"]\nskip_verify = true",
            "[host.\"a.io\"]\nmirrors = [\"hub\"]",
            "[host.\"a.io\"]\nmirrors = [\"https://b.io\"]",
            "[host.\"a.io\"]\nproxy = \"http://u:hunter2@p",
            "host = 1",
        ] {
            let error = read(text).expect_err(text);
            assert!(matches!(error, Error::Malformed { .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
