//! What can go wrong on the way to an image: a variant says what, its fields where, its text what to do.

use std::{io, time::Duration};

use dna::{Digest, Platform};

use crate::SourceError;

/// Why there is no image. No text holds a user name, a password or a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text that names no image.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file, folder or stream that cannot be read or written.
    #[error("cannot {action} {what}")]
    Io {
        /// `read`, `write` …
        action: &'static str,
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Outside bytes that are not what they should be.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// Which manifest, config, archive, layout …
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A well-formed image of a kind that is not read.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// What it is.
        what: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// More outside bytes, entries or levels than a limit allows.
    #[error("{what} exceeds the limit of {limit}; if it is trusted, raise `{name}`")]
    Limit {
        /// What grew too large.
        what: String,
        /// The limit's name among [`dna::Limits`].
        name: &'static str,
        /// Its value.
        limit: u64,
    },
    /// Bytes that do not have the digest they were asked for by.
    #[error("{what} has digest {actual} instead of {expected}: it was changed or damaged")]
    Digest {
        /// Which blob, and from where.
        what: String,
        /// The digest its descriptor gives.
        expected: Digest,
        /// The digest of its bytes.
        actual: Digest,
    },
    /// Bytes that are fewer or more than their descriptor says.
    #[error("{what} has {actual} bytes instead of {expected}: it is truncated or not the blob that was asked for")]
    Size {
        /// Which blob, and from where.
        what: String,
        /// The size its descriptor gives.
        expected: u64,
        /// Bytes there are; where there are too many, how many were read.
        actual: u64,
    },
    /// A config and a manifest that do not belong together.
    #[error("the image has {layers} layers, but its config lists {diff_ids} diff ids")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// Entries of the config's `rootfs.diff_ids`.
        diff_ids: usize,
    },
    /// No image for the platform.
    #[error("there is no image for platform {wanted}; there is one for: {available}", available = listed(available))]
    Platform {
        /// Asked for.
        wanted: Platform,
        /// Those there are.
        available: Vec<String>,
    },
    /// Several images where one must be named.
    #[error("{what} holds several images; name one of: {names}", names = listed(names))]
    Ambiguous {
        /// The archive or layout.
        what: String,
        /// How each can be named.
        names: Vec<String>,
    },
    /// Nothing of that name.
    #[error("{what} is not found{hint}", hint = aside(hint))]
    Missing {
        /// What was asked for, and where.
        what: String,
        /// What there is instead, or what to do; may be empty.
        hint: String,
    },
    /// 401 or 403.
    #[error("{what}: access denied ({status}); {hint}")]
    Denied {
        /// The repository.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What to do.
        hint: String,
    },
    /// 429, after all attempts.
    #[error("{what}: too many requests (429){after}; wait, or log in for a higher limit", after = wait(*retry_after))]
    Throttled {
        /// The registry.
        what: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// Another status that is no success, after all attempts where it may pass.
    #[error("{what}: the server answered {status}{message}", message = aside(message))]
    Status {
        /// What was asked for, and where.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What it said, shortened; may be empty.
        message: String,
    },
    /// No answer in time.
    #[error("{what}: no answer within {seconds} s; check the network, or allow more time")]
    Timeout {
        /// What was asked for, and where.
        what: String,
        /// The time allowed.
        seconds: u64,
    },
    /// A certificate that is not trusted, or a server that does not speak TLS.
    #[error(
        "{what}: no trusted TLS connection ({reason}); give the authority's certificates with --ca-file, or use --plain-http for a registry without TLS"
    )]
    Tls {
        /// The server.
        what: String,
        /// What the handshake said.
        reason: String,
    },
    /// Name lookup, connection or transfer failed.
    #[error("{what}: the connection failed ({reason}); check the name, the network and the proxy")]
    Connection {
        /// The server.
        what: String,
        /// What happened.
        reason: String,
    },
    /// A credential helper or credential file that does not work.
    #[error("credentials for {registry} cannot be read: {reason}")]
    Credentials {
        /// The registry.
        registry: String,
        /// What is wrong, and where.
        reason: String,
    },
}

impl Error {
    pub(crate) fn read(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { action: "read", what: what.into(), source }
    }

    pub(crate) fn write(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { action: "write", what: what.into(), source }
    }

    /// Bytes that are not the JSON they should be. The values that serde quotes are left out: a config's may be secrets.
    pub(crate) fn json(what: impl Into<String>, error: &serde_json::Error) -> Self {
        let text = error.to_string().replace("\\\"", "");
        let parts = text.split('"').enumerate().map(|(at, part)| if at % 2 == 1 { "…" } else { part });
        Self::malformed(what, parts.collect::<String>())
    }

    pub(crate) fn malformed(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Malformed { what: what.into(), reason: clean(&reason.to_string()) }
    }
}

/// Outside text, fit for a message: no control characters, not long.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_OUTSIDE_CHARS).collect()
}

fn listed(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(MAX_LISTED).map(|name| clean(name)).collect();
    match names.len().saturating_sub(shown.len()) {
        _ if names.is_empty() => "none".to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn aside(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("; {text}") }
}

fn wait(wait: Option<Duration>) -> String {
    wait.map_or_else(String::new, |wait| format!(", to be asked again in {} s", wait.as_secs()))
}

const MAX_OUTSIDE_CHARS: usize = 240;
const MAX_LISTED: usize = 20;
