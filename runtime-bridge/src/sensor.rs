//! What sensors send, read into one shape.
//!
//! In: one JSON object as a sensor wrote it. Out: [`Told`]. One module for each sensor, pure, no I/O. A field that is missing or
//! of another type than documented is absent; an object that is no event of the sensor is [`Malformed`], with a reason for
//! whoever set the sensor up. Credentials in command lines and variables are taken out here.

use dna::Activity;
use jiff::Timestamp;

pub mod falco;
mod lenient;

/// A sensor's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// Falco's `http_output`, and Falcosidekick's webhook.
    Falco,
}

/// What an item of a sensor's stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Told {
    /// A process did something.
    Activity(Box<Activity>),
    /// Somebody asked the Kubernetes API for something that runs a command in a container.
    Call(Box<Call>),
    /// The sensor lost events.
    Loss(Loss),
    /// Nothing that bears on a container: an event of the host, of a rule that is not ours.
    Nothing(&'static str),
}

/// A request to the Kubernetes API that reaches into a container: exec, attach, an ephemeral container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// When it was received.
    pub at: Timestamp,
    /// `auditID`.
    pub id: String,
    /// The user, as the API server knows them.
    pub user: String,
    /// On whose behalf, where the user impersonates.
    pub impersonated: Option<String>,
    /// `exec`, `attach`, `ephemeralcontainers`, `portforward`.
    pub subresource: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container, where it is named.
    pub container: Option<String>,
    /// The command, credentials taken out.
    pub command: Vec<String>,
    /// Where the request came from.
    pub source: Vec<String>,
    /// Whether it was let through.
    pub allowed: bool,
}

/// Events that a sensor says it lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// When it says so.
    pub at: Timestamp,
    /// The node.
    pub node: Option<String>,
    /// How many, where it knows.
    pub count: Option<u64>,
    /// In its own words.
    pub reason: String,
}

/// An item that is no event of its sensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Malformed {
    /// What is wrong, and what was expected.
    pub reason: String,
}

impl Malformed {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Reads one item.
///
/// # Errors
/// [`Malformed`] where it is no event of this sensor.
pub fn decode(dialect: Dialect, item: &[u8]) -> Result<Told, Malformed> {
    match dialect {
        Dialect::Falco => falco::decode(item),
    }
}

/// A container's id without its scheme (`containerd://`), where it looks like one.
#[must_use]
pub(crate) fn container_id(text: &str) -> Option<String> {
    let id = text.rsplit_once("://").map_or(text, |(_, id)| id);
    let is_id = id.len() >= 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_ascii_lowercase())
}

/// A command line as words, credentials taken out.
#[must_use]
pub(crate) fn words(line: &str) -> Vec<String> {
    let words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
    dna::redact_argv(&words)
}
