//! What can be asked: `syscall:ptrace`, `80/tcp` in, a question about one dimension of a behavior out.

use std::str::FromStr;

use dna::{Behavior, Completeness, Condition, Confidence, Evidence, ImagePath, Known, Protocol, Subject};
use serde::Serialize;
use serde_json::Value;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Exec(String),
    Load(String),
    Syscall(String),
    Capability(String),
    Listen(u16, Option<Protocol>),
    Connect(String, Option<u16>),
    Write(String),
    Read(String),
}

/// An item of a behavior that answers a question, whatever its dimension.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Item {
    /// The item as it stands in the DNA: `{"name": "ptrace"}`.
    pub(crate) what: Value,
    pub(crate) confidence: Confidence,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) when: Vec<Condition>,
    #[serde(skip)]
    pub(crate) evidence: Vec<Evidence>,
}

impl FromStr for What {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || {
            let text: String = text.chars().take(120).collect();
            anyhow::anyhow!("`{text}` asks nothing that can be explained: write {FORMS}")
        };
        let Some((kind, value)) = text.split_once(':') else { return port(text).ok_or_else(error) };
        let path = || value.starts_with('/').then(|| value.to_owned());
        let word = || Some(value.to_owned()).filter(|value| !value.is_empty());
        let what = match kind {
            "exec" => path().map(Self::Exec),
            "load" => path().map(Self::Load),
            "write" => path().map(Self::Write),
            "read" => path().map(Self::Read),
            "syscall" => word().map(Self::Syscall),
            "capability" => word().map(|name| {
                let name = name.to_ascii_uppercase();
                Self::Capability(if name.starts_with("CAP_") { name } else { format!("CAP_{name}") })
            }),
            "port" | "listen" => port(value),
            "connect" => word().map(|peer| match peer.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
                Some((host, Ok(port))) => Self::Connect(host.to_owned(), Some(port)),
                _ => Self::Connect(peer, None),
            }),
            _ => None,
        };
        what.ok_or_else(error)
    }
}

impl What {
    /// The same question about the file that a path leads to.
    pub(crate) fn resolved(self, resolve: impl Fn(&ImagePath) -> ImagePath) -> Self {
        let found = |path: String| path.parse().map_or(path, |path| resolve(&path).to_string());
        match self {
            Self::Exec(path) => Self::Exec(found(path)),
            Self::Load(path) => Self::Load(found(path)),
            Self::Write(path) => Self::Write(found(path)),
            Self::Read(path) => Self::Read(found(path)),
            other => other,
        }
    }

    /// The dimension's name, as in the DNA.
    pub(crate) fn dimension(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Load(_) => "load",
            Self::Syscall(_) => "syscalls",
            Self::Capability(_) => "capabilities",
            Self::Listen(..) => "listen",
            Self::Connect(..) => "connect",
            Self::Write(_) => "write",
            Self::Read(_) => "read",
        }
    }

    /// How far the dimension was worked out.
    pub(crate) fn completeness<'a>(&self, behavior: &'a Behavior) -> &'a Completeness {
        let known = &behavior.completeness;
        match self {
            Self::Exec(_) => &known.exec,
            Self::Load(_) => &known.load,
            Self::Syscall(_) => &known.syscalls,
            Self::Capability(_) => &known.capabilities,
            Self::Listen(..) => &known.listen,
            Self::Connect(..) => &known.connect,
            Self::Write(_) => &known.write,
            Self::Read(_) => &known.read,
        }
    }

    /// Whether an unknown of this kind bears on the answer.
    pub(crate) fn depends_on(&self, subject: Subject) -> bool {
        match subject {
            Subject::Load => !matches!(self, Self::Exec(_)),
            Subject::Syscalls => matches!(self, Self::Syscall(_) | Self::Capability(_)),
            Subject::Listen => matches!(self, Self::Listen(..)),
            Subject::Packages => false,
            _ => true,
        }
    }

    /// The items of a behavior that the question is about.
    pub(crate) fn items(&self, behavior: &Behavior) -> Vec<Item> {
        match self {
            Self::Exec(path) => pick(&behavior.exec, |item| covers(item.path.as_bytes(), path)),
            Self::Load(path) => pick(&behavior.load, |item| covers(item.path.as_bytes(), path)),
            Self::Write(path) => pick(&behavior.write, |item| covers(item.path.as_bytes(), path)),
            Self::Read(path) => pick(&behavior.read, |item| covers(item.path.as_bytes(), path)),
            Self::Syscall(name) => pick(&behavior.syscalls, |item| item.name == *name),
            Self::Capability(name) => pick(&behavior.capabilities, |item| item.name == *name),
            Self::Listen(port, protocol) => pick(&behavior.listen, |item| {
                item.port == *port && protocol.is_none_or(|protocol| protocol == item.protocol)
            }),
            Self::Connect(host, port) => pick(&behavior.connect, |item| {
                item.host.eq_ignore_ascii_case(host) && (port.is_none() || item.port.is_none() || item.port == *port)
            }),
        }
    }
}

/// The questions there are.
const FORMS: &str = "syscall:NAME, capability:CAP_NAME, port:NUMBER[/PROTOCOL], exec:/PATH, load:/PATH, write:/PATH, read:/PATH or \
    connect:HOST[:PORT]";

fn pick<T: Serialize>(items: &[Known<T>], is_asked: impl Fn(&T) -> bool) -> Vec<Item> {
    let item = |known: &Known<T>| Item {
        what: serde_json::to_value(&known.what).unwrap_or_default(),
        confidence: known.confidence,
        when: known.when.clone(),
        evidence: known.evidence.clone(),
    };
    items.iter().filter(|known| is_asked(&known.what)).map(item).collect()
}

/// `80`, `80/tcp`.
fn port(text: &str) -> Option<What> {
    let (port, protocol) = text.split_once('/').map_or((text, None), |(port, protocol)| (port, Some(protocol)));
    let protocol = match protocol {
        None => None,
        Some("tcp") => Some(Protocol::Tcp),
        Some("udp") => Some(Protocol::Udp),
        Some("sctp") => Some(Protocol::Sctp),
        Some(_) => return None,
    };
    Some(What::Listen(port.parse().ok().filter(|port| *port != 0)?, protocol))
}

/// Whether a path, or a glob over paths, stands for this one; a glob is also found by its own text.
fn covers(glob: &[u8], path: &str) -> bool {
    glob == path.as_bytes() || dna::path_matches(glob, path.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read() {
        let what = |text: &str| text.parse::<What>().expect("a question");
        assert_eq!(what("80/tcp"), What::Listen(80, Some(Protocol::Tcp)));
        assert_eq!(what("port:53/udp"), What::Listen(53, Some(Protocol::Udp)));
        assert_eq!(what("listen:80"), What::Listen(80, None));
        assert_eq!(what("capability:sys_admin"), What::Capability("CAP_SYS_ADMIN".to_owned()));
        assert_eq!(what("connect:db:5432"), What::Connect("db".to_owned(), Some(5432)));
        assert_eq!(what("exec:/bin/sh"), What::Exec("/bin/sh".to_owned()));
    }

    #[test]
    fn what_asks_nothing_is_refused() {
        for text in ["", "80/xyz", "0", "70000", "exec:sh", "syscall:", "nosuch:x", "port:"] {
            assert!(text.parse::<What>().is_err(), "{text}");
        }
    }

    #[test]
    fn globs_stand_for_paths() {
        for (glob, path, yes) in [
            ("/var/log/*.log", "/var/log/a.log", true),
            ("/var/log/*.log", "/var/log/a/b.log", false),
            ("/var/lib/**", "/var/lib/a/b", true),
            ("/var/**/b", "/var/lib/a/b", true),
            ("/run/x.?", "/run/x.1", true),
            ("/run/x", "/run/xy", false),
            ("/tmp/*/*", "/tmp/a/b", true),
        ] {
            assert_eq!(covers(glob.as_bytes(), path), yes, "{glob} {path}");
        }
    }
}
