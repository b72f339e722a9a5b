//! Where JetStream is, as somebody wrote it down.
//!
//! ```toml
//! url = "nats://nats-0:4222,nats://nats-1:4222"    # tls://… where it speaks TLS
//! stream = "mayfly"
//! partitions = 16                                  # for good: another number is another stream
//! replicas = 3
//! max_bytes = 8589934592
//! credentials = "/etc/mayfly/nats.creds"
//! ca = "/etc/mayfly/nats-ca.pem"
//! client_certificate = "/etc/mayfly/nats.crt"
//! client_key = "/etc/mayfly/nats.key"
//! ```

use std::path::PathBuf;

use serde::Deserialize;

use crate::settings::{self, SettingsError};

/// A stream that several bridges share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Servers, apart by commas.
    pub(super) url: String,
    /// The stream's name, and the begin of its subjects.
    #[serde(default = "name")]
    pub(super) stream: String,
    /// Parts that are judged apart: no more bridges than these have something to do.
    #[serde(default = "partitions")]
    pub(super) partitions: u16,
    /// Servers that keep each message.
    #[serde(default = "replicas")]
    pub(super) replicas: usize,
    /// The room of the stream.
    #[serde(default = "max_bytes")]
    pub(super) max_bytes: u64,
    /// A file of a user's JWT and key.
    pub(super) credentials: Option<PathBuf>,
    /// PEM of the authorities of the servers' certificates.
    pub(super) ca: Option<PathBuf>,
    /// PEM of a client certificate.
    pub(super) client_certificate: Option<PathBuf>,
    /// Its key.
    pub(super) client_key: Option<PathBuf>,
}

impl Settings {
    /// Reads TOML. `place` is where it is from, for the error.
    ///
    /// # Errors
    /// [`SettingsError`]: the first thing that is wrong.
    pub fn parse(text: &str, place: &str) -> Result<Self, SettingsError> {
        let settings: Self = settings::read(text, place)?;
        match settings.problem() {
            None => Ok(settings),
            Some(reason) => Err(SettingsError { place: place.to_owned(), reason: reason.to_owned() }),
        }
    }

    fn problem(&self) -> Option<&'static str> {
        if !settings::is_name(&self.stream) {
            return Some("`stream` must be 1 to 64 of a-z, 0-9 and -");
        }
        let is_known = |server: &str| ["nats://", "tls://"].iter().any(|scheme| server.trim().starts_with(scheme));
        if !self.url.split(',').all(is_known) {
            return Some("`url` must be nats://HOST:PORT or tls://HOST:PORT, several apart by commas");
        }
        if !(1..=MOST_PARTITIONS).contains(&self.partitions) {
            return Some("`partitions` must be 1 to 64");
        }
        if !(1..=5).contains(&self.replicas) {
            return Some("`replicas` must be 1 to 5: the servers that keep each event");
        }
        if !(LEAST_BYTES..=i64::MAX.unsigned_abs()).contains(&self.max_bytes) {
            return Some("`max_bytes` must be at least 1048576, and leave room for events of some hours");
        }
        let is_half = self.client_certificate.is_some() != self.client_key.is_some();
        is_half.then_some("`client_certificate` and `client_key` belong together; give both or none")
    }
}

fn name() -> String {
    "mayfly".to_owned()
}

const fn partitions() -> u16 {
    16
}

const fn replicas() -> usize {
    1
}

const fn max_bytes() -> u64 {
    8 << 30
}

const MOST_PARTITIONS: u16 = 64;
const LEAST_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        let settings = Settings::parse("url = \"nats://a:4222,tls://b:4222\"", "stream.toml").expect("settings");
        assert_eq!((settings.stream.as_str(), settings.partitions, settings.replicas), ("mayfly", 16, 1));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, told) in [
            ("url = \"http://a\"", "`url`"),
            ("url = \"nats://a\"\nstream = \"a.b\"", "`stream`"),
            ("url = \"nats://a\"\npartitions = 0", "`partitions`"),
            ("url = \"nats://a\"\nreplicas = 9", "`replicas`"),
            ("url = \"nats://a\"\nmax_bytes = 10", "`max_bytes`"),
            ("url = \"nats://a\"\nclient_key = \"x\"", "belong together"),
            ("url = \"nats://a\"\nport = 1", "unknown field"),
        ] {
            let error = Settings::parse(text, "stream.toml").expect_err(text).to_string();
            assert!(error.contains(told) && error.starts_with("stream.toml"), "{error}");
        }
    }
}
