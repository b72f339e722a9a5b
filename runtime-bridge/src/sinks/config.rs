//! Sinks, as somebody wrote them down.
//!
//! ```toml
//! [[sink]]
//! name = "on-call"                         # in metrics, in the log and in the outbox
//! kind = "pagerduty"
//! secret_file = "/etc/mayfly/pagerduty"    # the integration's key
//! min_risk = 0.7
//! ```
//!
//! Secrets are in files, never here; they are read again for each notice, so that a changed one counts at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use reqwest::{
    Url,
    header::{HeaderName, HeaderValue},
};
use serde::Deserialize;

use crate::{
    alert::NOTIFY,
    settings::{self, SettingsError},
};

/// All sinks; each has a name of its own, what its kind needs and nothing that it does not use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sinks(Vec<Sink>);

/// Where alerts go.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Sink {
    /// Its id: up to 64 of `a-z`, `0-9` and `-`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where it is reached, by HTTP.
    pub url: Option<String>,
    /// A file with that, where the address is itself the secret (Slack, Teams).
    pub url_file: Option<PathBuf>,
    /// The file that is written.
    pub file: Option<PathBuf>,
    /// `udp://host:port`, `tcp://host:port` or `tls://host:port`.
    pub address: Option<String>,
    /// Alerts of this cluster only.
    pub cluster: Option<String>,
    /// The key that a webhook is signed with, the key of PagerDuty's integration, or the token for the API server.
    pub secret_file: Option<PathBuf>,
    /// The lowest risk that is told.
    #[serde(default = "floor")]
    pub min_risk: f64,
    /// Hours after which a repetition is told again.
    #[serde(default = "day")]
    pub repeat_hours: u32,
    /// The only authorities that may vouch for it, PEM. Without it, those of the system.
    pub ca_file: Option<PathBuf>,
    /// Headers, each with the file that holds its value.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// MiB from which a file is put aside.
    pub max_mib: Option<u32>,
    /// Files that are kept aside.
    pub keep: Option<u32>,
}

/// What a sink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// Prometheus' Alertmanager, API v2.
    Alertmanager,
    /// Anything that takes Mayfly's own JSON.
    Webhook,
    /// Slack's incoming webhooks, and what speaks like them.
    Slack,
    /// A workflow of Microsoft Teams.
    Teams,
    /// PagerDuty's Events API v2.
    Pagerduty,
    /// RFC 5424.
    Syslog,
    /// OpenTelemetry logs, by HTTP and JSON.
    Otlp,
    /// Events of the Kubernetes API.
    KubernetesEvent,
    /// PolicyReports of the Kubernetes API, one for each workload.
    PolicyReport,
    /// A file, one JSON object a line.
    File,
}

impl Sinks {
    /// Reads TOML, and looks whether the files that it names can be read. `place` is where it is from, for the error.
    ///
    /// # Errors
    /// [`SettingsError`]: the first thing that is wrong.
    pub fn parse(text: &str, place: &str) -> Result<Self, SettingsError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Document {
            #[serde(default)]
            sink: Vec<Sink>,
        }
        let document: Document = settings::read(text, place)?;
        let mut names = BTreeSet::new();
        let mut sinks = Vec::new();
        for (number, sink) in document.sink.into_iter().enumerate() {
            let place = format!("{place}: sink {} {:?}", number + 1, sink.name);
            let error = |reason| SettingsError { place: place.clone(), reason };
            if !names.insert(sink.name.clone()) {
                return Err(error("another sink has this name".to_owned()));
            }
            sinks.push(sink.checked().map_err(error)?);
        }
        Ok(Self(sinks))
    }

    /// The sinks.
    pub fn iter(&self) -> impl Iterator<Item = &Sink> {
        self.0.iter()
    }
}

impl Kind {
    /// Whether it is told to the API server of a cluster.
    pub(super) const fn is_kubernetes(self) -> bool {
        matches!(self, Self::KubernetesEvent | Self::PolicyReport)
    }

    /// Whether it is told by HTTP.
    const fn is_http(self) -> bool {
        !matches!(self, Self::Syslog | Self::File)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Alertmanager => "alertmanager",
            Self::Webhook => "webhook",
            Self::Slack => "slack",
            Self::Teams => "teams",
            Self::Pagerduty => "pagerduty",
            Self::Syslog => "syslog",
            Self::Otlp => "otlp",
            Self::KubernetesEvent => "kubernetes-event",
            Self::PolicyReport => "policy-report",
            Self::File => "file",
        }
    }
}

impl Sink {
    /// What is wrong with it, as an error.
    pub(super) fn wrong(&self, reason: String) -> SettingsError {
        SettingsError { place: format!("sink {:?}", self.name), reason }
    }

    /// The sink with the defaults of its kind, or what is wrong with it.
    fn checked(mut self) -> Result<Self, String> {
        if !settings::is_name(&self.name) {
            return Err("`name` must be 1 to 64 of a-z, 0-9 and -".to_owned());
        }
        if !(0.0..=1.0).contains(&self.min_risk) {
            return Err("`min_risk` must be from 0 to 1".to_owned());
        }
        if self.repeat_hours == 0 {
            return Err("`repeat_hours` is 0, so that every repetition would be told; write 1 or more".to_owned());
        }
        let kind = self.kind;
        match kind {
            kind if kind.is_kubernetes() => {
                self.url = self.url.or_else(|| Some(API_SERVER.to_owned()));
                self.secret_file = self.secret_file.or_else(|| Some(PathBuf::from(ACCOUNT).join("token")));
                self.ca_file = self.ca_file.or_else(|| Some(PathBuf::from(ACCOUNT).join("ca.crt")));
            }
            Kind::Pagerduty if self.url_file.is_none() => {
                self.url = self.url.or_else(|| Some(PAGERDUTY.to_owned()));
            }
            _ => {}
        }
        self.unused()?;
        self.needed()?;
        self.files()?;
        Ok(self)
    }

    /// What its kind does not use is an error: whoever wrote it expects something of it.
    fn unused(&self) -> Result<(), String> {
        let kind = self.kind;
        let is_tls = self.address.as_deref().is_some_and(|address| address.starts_with("tls://"));
        let takes_secret = matches!(kind, Kind::Webhook | Kind::Pagerduty) || kind.is_kubernetes();
        let fields = [
            ("url", self.url.is_some(), kind.is_http()),
            ("url_file", self.url_file.is_some(), kind.is_http() && !kind.is_kubernetes()),
            ("file", self.file.is_some(), kind == Kind::File),
            ("address", self.address.is_some(), kind == Kind::Syslog),
            ("secret_file", self.secret_file.is_some(), takes_secret),
            ("ca_file", self.ca_file.is_some(), kind.is_http() || is_tls),
            ("header_files", !self.header_files.is_empty(), kind.is_http()),
            ("max_mib", self.max_mib.is_some(), kind == Kind::File),
            ("keep", self.keep.is_some(), kind == Kind::File),
        ];
        match fields.into_iter().find(|(_, is_there, is_used)| *is_there && !is_used) {
            Some((field, ..)) => Err(format!("`{field}` is not used by the kind `{}`; leave it out", kind.name())),
            None => Ok(()),
        }
    }

    fn needed(&self) -> Result<(), String> {
        match self.kind {
            Kind::File => {
                self.file.as_ref().ok_or("`file` is missing: the path to write to")?;
                if self.max_mib == Some(0) {
                    return Err("`max_mib` is 0; leave it out for 100".to_owned());
                }
            }
            Kind::Syslog => {
                let address = self.address.as_deref().ok_or("`address` is missing: `udp://host:514`, say")?;
                let (scheme, _, _) = split_address(address)
                    .ok_or("`address` must be `udp://host:port`, `tcp://host:port` or `tls://host:port`")?;
                if scheme == "tls" && self.ca_file.is_none() {
                    return Err("`ca_file` is missing: the authority of the receiver's certificate".to_owned());
                }
            }
            kind => {
                match (&self.url, &self.url_file) {
                    (Some(url), None) => drop(parse_url(url)?),
                    (None, Some(_)) => {}
                    (Some(_), Some(_)) => return Err("both `url` and `url_file` are given; leave one out".to_owned()),
                    (None, None) => {
                        return Err("`url` is missing, or `url_file` where the address is a secret".to_owned());
                    }
                }
                if kind == Kind::Pagerduty && self.secret_file.is_none() {
                    return Err("`secret_file` is missing: a file with the integration's key".to_owned());
                }
                if kind.is_kubernetes() && self.cluster.is_none() {
                    return Err(
                        "`cluster` is missing: the one whose API server this is; alerts of others are not for it"
                            .to_owned(),
                    );
                }
            }
        }
        Ok(())
    }

    /// Reads each file once, so that what is wrong is said at the start.
    fn files(&self) -> Result<(), String> {
        if let Some(path) = &self.url_file {
            let url = secret(path).map_err(|reason| format!("`url_file` {reason}"))?;
            parse_url(&url).map_err(|_| format!("`url_file` {}: no http or https address in it", path.display()))?;
        }
        if let Some(path) = &self.secret_file {
            secret(path).map_err(|reason| format!("`secret_file` {reason}"))?;
        }
        for (name, path) in &self.header_files {
            let problem = |reason: String| format!("`header_files`, {name:?}: {reason}");
            let parsed = HeaderName::try_from(name.as_str()).map_err(|_| problem("no name of a header".to_owned()))?;
            if OURS.contains(&parsed.as_str()) {
                return Err(problem("this header is written by Mayfly itself".to_owned()));
            }
            let value = secret(path).map_err(problem)?;
            HeaderValue::try_from(value).map_err(|_| problem(format!("{}: no value of a header", path.display())))?;
        }
        if let Some(path) = &self.ca_file {
            let pem = read(path).map_err(|reason| format!("`ca_file` {reason}"))?;
            match reqwest::Certificate::from_pem_bundle(&pem) {
                Ok(certificates) if !certificates.is_empty() => {}
                _ => return Err(format!("`ca_file` {}: no PEM certificate in it", path.display())),
            }
        }
        Ok(())
    }
}

/// Without addresses: they may be secrets.
impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The scheme, host and port of a syslog receiver.
pub(super) fn split_address(address: &str) -> Option<(&str, &str, u16)> {
    let (scheme, rest) = address.split_once("://").filter(|(scheme, _)| matches!(*scheme, "udp" | "tcp" | "tls"))?;
    let (host, port) = rest.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty() && !host.contains('/')).then_some((scheme, host, port))
}

pub(super) fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("`url` is no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("`url` must begin with http:// or https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("`url` has a user in it; give the header in `header_files`: Authorization = \"FILE\"".to_owned());
    }
    Ok(url)
}

/// What a small file holds, without white space around it.
pub(super) fn secret(path: &Path) -> Result<String, String> {
    let text = String::from_utf8(read(path)?).map_err(|_| format!("{}: no text", path.display()))?;
    let text = text.trim();
    if text.is_empty() { Err(format!("{}: it is empty", path.display())) } else { Ok(text.to_owned()) }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let error = |error| format!("{}: it cannot be read: {error}", path.display());
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(error)?.take(MAX_FILE).read_to_end(&mut bytes).map_err(error)?;
    Ok(bytes)
}

const fn floor() -> f64 {
    NOTIFY
}

const fn day() -> u32 {
    24
}

/// Bytes of a file with a secret or certificates.
const MAX_FILE: u64 = 1 << 20;

/// Where a pod finds the API server and what it shows there.
const API_SERVER: &str = "https://kubernetes.default.svc";
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

/// Headers that receivers rely on.
const OURS: [&str; 4] = ["content-type", "content-length", "idempotency-key", "x-mayfly-signature"];

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Sinks::parse(text, "sinks.toml").expect_err("refused").to_string()
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let webhook = "[[sink]]\nname = \"a\"\nkind = \"webhook\"\n";
        let cases = [
            (format!("{webhook}urll = \"http://x\""), "sinks.toml:4: unknown field `urll`"),
            (webhook.to_owned(), "sink 1 \"a\": `url` is missing"),
            (
                format!("{webhook}url = \"http://x\"\n{webhook}url = \"http://x\""),
                "sink 2 \"a\": another sink has this name",
            ),
            (format!("{webhook}url = \"ftp://x\""), "must begin with http"),
            (format!("{webhook}url = \"http://u:hunter2@x\""), "has a user in it"),
            (format!("{webhook}url = \"http://x\"\nfile = \"/x\""), "`file` is not used by the kind `webhook`"),
            (
                format!("{webhook}url = \"http://x\"\nsecret_file = \"/no/such\""),
                "`secret_file` /no/such: it cannot be read",
            ),
            (format!("{webhook}url = \"http://x\"\nurl_file = \"/no/such\""), "leave one out"),
            (format!("{webhook}url = \"http://x\"\nca_file = \"/dev/null\""), "no PEM certificate"),
            (format!("{webhook}url = \"http://x\"\nmin_risk = 7"), "`min_risk` must be from 0 to 1"),
            (format!("{webhook}url = \"http://x\"\nrepeat_hours = 0"), "`repeat_hours` is 0"),
            (
                format!("{webhook}url = \"http://x\"\nheader_files = {{ \"Idempotency-Key\" = \"/x\" }}"),
                "by Mayfly itself",
            ),
            (format!("{webhook}url = \"http://x\"\nheader_files = {{ \"a b\" = \"/x\" }}"), "no name of a header"),
            ("[[sink]]\nname = \"A\"\nkind = \"file\"\nfile = \"/x\"".to_owned(), "1 to 64 of a-z"),
            ("[[sink]]\nname = \"a\"\nkind = \"fax\"".to_owned(), "sinks.toml:3: unknown variant `fax`"),
            ("[[sink]]\nname = \"a\"\nkind = \"file\"".to_owned(), "`file` is missing"),
            ("[[sink]]\nname = \"a\"\nkind = \"syslog\"".to_owned(), "`address` is missing"),
            ("[[sink]]\nname = \"a\"\nkind = \"syslog\"\naddress = \"udp://x\"".to_owned(), "host:port"),
            ("[[sink]]\nname = \"a\"\nkind = \"syslog\"\naddress = \"tls://x:1\"".to_owned(), "`ca_file` is missing"),
            ("[[sink]]\nname = \"a\"\nkind = \"pagerduty\"".to_owned(), "`secret_file` is missing"),
            ("[[sink]]\nname = \"a\"\nkind = \"kubernetes-event\"".to_owned(), "`cluster` is missing"),
        ];
        for (text, expected) in cases {
            let error = error(&text);
            assert!(error.contains(expected), "{text}\n{error}\n{expected}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_address_is_not_printed() {
        let text = "[[sink]]\nname = \"a\"\nkind = \"slack\"\nurl = \"https://hooks.example/services/T0/hunter2\"";
        let sinks = Sinks::parse(text, "x").expect("sinks");
        assert!(!format!("{sinks:?}").contains("hunter2"));
        let sink = sinks.iter().next().expect("one");
        assert!((sink.min_risk - 0.5).abs() < f64::EPSILON && sink.repeat_hours == 24);
    }

    #[test]
    fn addresses_of_syslog() {
        assert_eq!(split_address("tcp://[::1]:514"), Some(("tcp", "::1", 514)));
        assert_eq!(split_address("udp://log.example:514"), Some(("udp", "log.example", 514)));
        for wrong in ["log.example:514", "http://x:1", "udp://:1", "udp://x:0", "udp://x:70000", "udp://x/y:1"] {
            assert_eq!(split_address(wrong), None, "{wrong}");
        }
    }
}
