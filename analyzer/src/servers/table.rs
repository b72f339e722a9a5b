//! The table of servers, `servers.toml`: which names a server is called by, where its configuration is, and what its settings
//! mean. Facts of the field only: manual pages and documentation, named beside each entry.

use std::{collections::BTreeMap, sync::LazyLock};

use dna::Protocol;
use serde::Deserialize;

use super::syntax::Syntax;

/// A server's entry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Server {
    /// Names it is called by, without version; `busybox httpd` and `caddy run` name an applet or a command.
    pub(super) names: Vec<String>,
    /// Where this is documented.
    #[serde(rename = "source")]
    _source: String,
    #[serde(default)]
    pub(super) syntax: Syntax,
    /// Configuration files where no option names one: the first that exists, all with `all-files`. Globs.
    #[serde(default)]
    pub(super) files: Vec<String>,
    #[serde(default)]
    pub(super) all_files: bool,
    /// Shell files that set variables for it, read for their assignments.
    #[serde(default)]
    pub(super) env_files: Vec<String>,
    /// Texts that a start script renders into the configuration; taken as expected, not as certain.
    #[serde(default)]
    pub(super) templates: Vec<Template>,
    /// Sections that hold its settings; with these, other sections are not read, and paths are without them.
    #[serde(default)]
    pub(super) sections: Vec<String>,
    /// Options by the key they set: `!key` takes no value, `@config` names a file, `@text` holds settings, `@set` one `key=value`.
    /// A number is a position among the words that are no options.
    #[serde(default)]
    pub(super) options: BTreeMap<String, String>,
    /// Every long option `--key value` sets `key`.
    #[serde(default)]
    pub(super) long_options: bool,
    /// Environment variables by the key they set; a name that ends in `*` stands for all of that prefix.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// Options of `configure` that the program's file tells, by the key they give a default.
    #[serde(default)]
    pub(super) configure: BTreeMap<String, String>,
    /// Settings assumed where nothing says what to listen on: `key word word`.
    #[serde(default)]
    pub(super) fallback: Vec<String>,
    /// Of several settings of one key the last one holds.
    #[serde(default)]
    pub(super) last: bool,
    /// Relative paths in the configuration start at its folder.
    #[serde(default)]
    pub(super) beside_config: bool,
    /// It opens logs and its pid file before it becomes another user.
    #[serde(default)]
    pub(super) early: bool,
    /// What settings mean.
    #[serde(default)]
    pub(super) keys: BTreeMap<String, Meanings>,
    /// A step of its own over the settings.
    #[serde(default)]
    pub(super) step: Option<Step>,
}

/// A text rendered into the configuration.
#[derive(Debug, Deserialize)]
pub(super) struct Template {
    pub(super) files: String,
    /// The section its settings end up in.
    pub(super) section: String,
}

/// What a key means: one meaning or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Meanings {
    One(Meaning),
    Many(Vec<Meaning>),
}

impl Meanings {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Meaning> {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many.as_slice(),
        }
        .iter()
    }
}

/// Servers whose settings depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    Nginx,
    Apache,
    Caddy,
    Coredns,
}

/// What one setting means: `kind[:port][#word] [default] [if key[!]=value]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Meaning {
    pub(super) kind: Kind,
    /// The port where the value has none.
    pub(super) port: Option<u16>,
    pub(super) word: Word,
    /// The value where nothing sets the key.
    pub(super) default: Option<String>,
    pub(super) condition: Option<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A port or address and port it listens on.
    Listen(&'static [Protocol]),
    /// An address for the ports that other keys name; empty means none.
    Address(&'static [Protocol]),
    /// Where it is on, nothing is listened on.
    Off,
    /// First and last port of a range.
    Low,
    High,
    /// The user it switches to.
    User,
    Chroot,
    /// A file or folder that it gives to that user.
    Give,
    /// A file it writes.
    File,
    /// A folder it writes in.
    Folder,
    /// A folder it makes, and writes in at need.
    Spool,
    /// A sensitive file it reads.
    Read,
    /// A module it loads.
    Load,
    /// Whom it calls.
    Peer,
    /// Further configuration: a glob, or a folder.
    Include,
    /// The folder that relative paths start at.
    Base,
}

/// Which word of a setting holds the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// Counted from 0.
    At(usize),
    All,
    /// The word after this one.
    After(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    /// A key, or `#2` for a word of the setting itself.
    pub(super) key: String,
    /// None: any value.
    pub(super) value: Option<String>,
    pub(super) negated: bool,
}

impl TryFrom<String> for Meaning {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (body, condition) = match text.split_once(" if ") {
            Some((body, condition)) => (body, Some(condition.trim())),
            None => (text.as_str(), None),
        };
        let (head, default) =
            body.trim().split_once(' ').map_or((body.trim(), None), |(head, rest)| (head, Some(rest)));
        let (head, word) = head.split_once('#').map_or((head, None), |(head, word)| (head, Some(word)));
        let (kind, port) = head.split_once(':').map_or((head, None), |(kind, port)| (kind, Some(port)));
        let kind = match kind {
            "tcp" => Kind::Listen(&[Protocol::Tcp]),
            "udp" => Kind::Listen(&[Protocol::Udp]),
            "both" => Kind::Listen(&[Protocol::Tcp, Protocol::Udp]),
            "address" => Kind::Address(&[Protocol::Tcp]),
            "address+udp" => Kind::Address(&[Protocol::Tcp, Protocol::Udp]),
            "off" => Kind::Off,
            "low" => Kind::Low,
            "high" => Kind::High,
            "user" => Kind::User,
            "chroot" => Kind::Chroot,
            "give" => Kind::Give,
            "file" => Kind::File,
            "folder" => Kind::Folder,
            "spool" => Kind::Spool,
            "read" => Kind::Read,
            "load" => Kind::Load,
            "peer" => Kind::Peer,
            "include" => Kind::Include,
            "base" => Kind::Base,
            _ => return Err(format!("`{text}`: no such meaning")),
        };
        let port = port.map(|port| port.parse().map_err(|_| format!("`{text}`: no port"))).transpose()?;
        let word = match word {
            None => Word::At(0),
            Some("*") => Word::All,
            Some(word) => match word.parse::<usize>() {
                Ok(number) => Word::At(number.checked_sub(1).ok_or_else(|| format!("`{text}`: words count from 1"))?),
                Err(_) => Word::After(word.to_owned()),
            },
        };
        let condition = condition.map(|condition| {
            let (key, value) = condition.split_once('=').map_or((condition, None), |(key, value)| (key, Some(value)));
            let (key, negated) = key.strip_suffix('!').map_or((key, false), |key| (key, true));
            let key = if key.starts_with('#') { key.to_owned() } else { normal(key) };
            Condition { key, value: value.map(str::to_owned), negated }
        });
        Ok(Self { kind, port, word, default: default.map(str::to_owned), condition })
    }
}

/// Keys are compared without case, `_` like `-`: servers that care for either do not use both.
pub(super) fn normal(key: &str) -> String {
    key.to_ascii_lowercase().replace('_', "-")
}

/// Whether a setting's path is that of a key, both in [`normal`] form: the same, below any sections where the key starts with `*.`, or as a pattern.
pub(super) fn is_of(key: &str, path: &str) -> bool {
    match key.strip_prefix("*.") {
        Some(last) if !last.contains('*') => {
            path.strip_suffix(last).is_some_and(|sections| sections.is_empty() || sections.ends_with('.'))
        }
        _ if key.contains('*') => crate::shell::matches(key, path),
        _ => key == path,
    }
}

/// The entry of a server by one of its names.
pub(super) fn find(name: &str) -> Option<&'static Server> {
    SERVERS.get(name).copied()
}

static TABLE: LazyLock<Vec<Server>> = LazyLock::new(|| {
    #[derive(Deserialize)]
    struct Table {
        server: Vec<Server>,
    }
    let table: Table =
        toml::from_str(include_str!("servers.toml")).expect("the table is part of the program and tested");
    let normalized = |mut server: Server| {
        server.keys = server.keys.into_iter().map(|(key, meanings)| (normal(&key), meanings)).collect();
        server
    };
    table.server.into_iter().map(normalized).collect()
});

static SERVERS: LazyLock<BTreeMap<&str, &Server>> = LazyLock::new(|| {
    TABLE.iter().flat_map(|server| server.names.iter().map(move |name| (name.as_str(), server))).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads_and_no_name_stands_twice() {
        let names: usize = TABLE.iter().map(|server| server.names.len()).sum();
        assert_eq!(SERVERS.len(), names);
        assert!(names > 100, "{names}");
    }

    #[test]
    fn options_set_keys_that_mean_something() {
        for server in TABLE.iter().filter(|server| server.step != Some(Step::Coredns)) {
            let set = server.options.values().chain(server.env.values()).chain(server.configure.values());
            let set = set.chain(&server.fallback).filter(|key| !key.starts_with('@') && !key.ends_with('*'));
            for key in set {
                let key = normal(key.trim_start_matches('!').split_whitespace().next().unwrap_or_default());
                let asked =
                    server.keys.values().flat_map(Meanings::iter).filter_map(|meaning| meaning.condition.as_ref());
                let known =
                    server.keys.keys().any(|known| is_of(known, &key)) || asked.into_iter().any(|c| c.key == key);
                assert!(known, "{}: nothing reads `{key}`", server.names.join(" "));
            }
        }
    }

    #[test]
    fn meanings() {
        let read = |text: &str| Meaning::try_from(text.to_owned());
        let meaning = read("tcp:53#port 127.0.0.1 if control_enable!=no").expect("well formed");
        assert_eq!((meaning.port, meaning.word), (Some(53), Word::After("port".to_owned())));
        assert_eq!(meaning.default.as_deref(), Some("127.0.0.1"));
        let condition = meaning.condition.expect("a condition");
        assert_eq!(
            (condition.key.as_str(), condition.value.as_deref(), condition.negated),
            ("control-enable", Some("no"), true)
        );
        for broken in ["tpc 80", "tcp:x", "tcp#0", ""] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn keys_match_paths() {
        assert!(is_of("*.listen", "http.server.listen") && is_of("*.listen", "listen") && is_of("a.*.b", "a.x.y.b"));
        assert!(!is_of("*.listen", "http.xlisten") && !is_of("port", "client.port"));
    }
}
