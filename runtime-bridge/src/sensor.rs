//! What sensors send, read into one shape.
//!
//! ```text
//! body ─split─► item ─key─► Key (seen before?)
//!                 └─decode: the dialect's adapter ─► the runtime's own left out ─► limits ─► Told
//! ```
//!
//! One module for each sensor, pure, no I/O. A field that is missing or of another type than documented is absent; an object
//! that is no event of the sensor is [`Malformed`], with a reason for whoever set the sensor up. Credentials in command lines
//! and variables are taken out here, and lengths are bounded ([`crate::limits`]).

use std::sync::Arc;

use dna::Activity;
use jiff::Timestamp;
use serde::Serialize;

use crate::limits;

mod audit;
mod dialect;
mod falco;
mod gadget;
mod kernel;
mod key;
mod kubearmor;
mod lenient;
mod own;
pub mod pack;
mod plain;
mod runtime;
mod split;
mod tetragon;
mod tracee;

pub use dialect::{Dialect, UnknownDialect};
pub(crate) use key::name_of;
pub use key::{Key, key};
pub use own::schema;
pub use runtime::is_runtimes_own;
pub(crate) use runtime::starts_programs;
pub use split::{Split, split};

/// What an item of a sensor's stream says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Told {
    /// A process did something.
    Activity(Arc<Activity>),
    /// Somebody asked the Kubernetes API for something that runs a command in a container.
    Call(Box<Call>),
    /// The sensor lost events.
    Loss(Loss),
    /// Nothing that bears on a container: an event of the host, of a rule that is not ours.
    Nothing(&'static str),
}

/// A request to the Kubernetes API that reaches into a container: exec, attach, an ephemeral container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
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
    keyed(dialect, item).map(|(_, told)| told)
}

/// Reads one item, with what [`key()`] says of it: an event that is read anyway is not read twice.
///
/// # Errors
/// [`Malformed`] where it is no event of this sensor.
pub fn decode_with_key(dialect: Dialect, item: &[u8]) -> Result<(Key, Told), Malformed> {
    let (named, told) = keyed(dialect, item)?;
    Ok((named.unwrap_or_else(|| key(dialect, item)), told))
}

fn keyed(dialect: Dialect, item: &[u8]) -> Result<(Option<Key>, Told), Malformed> {
    let (named, told) = match read(dialect, item) {
        // Arguments and paths are any bytes: those of an intruder must not make an event unreadable. Its key is that of its bytes.
        Err(_) if std::str::from_utf8(item).is_err() => {
            read(dialect, String::from_utf8_lossy(item).as_bytes()).map(|(_, told)| (None, told))
        }
        told => told,
    }?;
    let told = match told {
        Told::Activity(activity) if is_runtimes_own(&activity) => Told::Nothing(RUNTIMES_OWN),
        told => limits::bounded(told),
    };
    Ok((named, told))
}

fn read(dialect: Dialect, item: &[u8]) -> Result<(Option<Key>, Told), Malformed> {
    let told = match dialect {
        Dialect::Falco => return falco::decode(item),
        Dialect::Tetragon => tetragon::decode(item),
        Dialect::Tracee => tracee::decode(item),
        Dialect::KubeArmor => kubearmor::decode(item),
        Dialect::InspektorGadget => gadget::decode(item),
        Dialect::KubernetesAudit => audit::decode(item),
        Dialect::Mayfly => own::decode(item),
    };
    Ok((None, told?))
}

/// Why an event of the container's runtime is left out.
const RUNTIMES_OWN: &str = "of the container's runtime, before or beside the container's own program";
/// Why an event that names no container is left out.
const OF_THE_HOST: &str = "of the host";
/// Why an event of a kind that no prediction speaks of is left out.
const NOT_COMPARED: &str = "of a kind that is not compared";

/// A container's id without its scheme (`containerd://`), where it looks like one.
#[must_use]
fn container_id(text: &str) -> Option<String> {
    let id = text.rsplit_once("://").map_or(text, |(_, id)| id);
    let is_id = (12..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_ascii_lowercase())
}

/// `sha256:…` at the end of an image's reference or id (`name@sha256:…`, `docker-pullable://…`); a name is no digest.
#[must_use]
fn image_digest(text: &str) -> Option<String> {
    let digest = text.rsplit(['@', '/']).next()?;
    let hex = digest.strip_prefix("sha256:")?;
    let is_digest = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| digest.to_ascii_lowercase())
}

/// An image's reference without its digest; an id alone is none.
#[must_use]
fn image_name(text: &str) -> Option<String> {
    let text = text.rsplit_once("://").map_or(text, |(_, name)| name);
    let name = text.split_once('@').map_or(text, |(name, _)| name);
    (!name.is_empty() && !name.starts_with("sha256:")).then(|| name.to_owned())
}

/// A command line as words, credentials taken out: of the line first, as one in two words (`Authorization: Bearer …`) is not to
/// be seen in either.
#[must_use]
fn words(line: &str) -> Vec<String> {
    let line = limits::line(line);
    // One more than is kept, so that the cut shows.
    let split =
        |line: &str| line.split_ascii_whitespace().take(limits::WORDS + 1).map(str::to_owned).collect::<Vec<_>>();
    if plain::is_plain(line) {
        return split(line);
    }
    dna::redact_argv(&split(&dna::redact(line)))
}
