//! A trust root: the authorities and logs of one Sigstore instance, ready to verify. Source: protobuf-specs,
//! `sigstore_trustroot.proto`.

use std::sync::Arc;

use dna::Digest;
use jiff::Timestamp;
use serde::Serialize;
use sigstore_trust_root::{
    SIGSTORE_GITHUB_TRUSTED_ROOT, SIGSTORE_PRODUCTION_TRUSTED_ROOT, SIGSTORE_STAGING_TRUSTED_ROOT, TrustedRoot,
};
use sigstore_verify::Verifier;

use crate::refusal::clean;

/// One instance's trust root. Several are never merged: each proof is held against each root alone.
#[derive(Clone)]
pub struct Root {
    inner: Arc<Inner>,
}

struct Inner {
    facts: RootFacts,
    json: Vec<u8>,
    trusted: TrustedRoot,
    verifier: Verifier,
}

/// Which trust root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RootFacts {
    /// What it is called here.
    pub name: String,
    /// SHA-256 of its JSON text.
    pub digest: Digest,
    /// When its content was last known to be current: for an embedded root its release, for a file what the caller knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
}

/// A trust root that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the trust root {name} cannot be used: {reason}; give a `trusted_root.json` as `cosign trusted-root create` writes it"
)]
pub struct RootError {
    name: String,
    reason: String,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Root").field(&self.inner.facts).finish()
    }
}

impl Root {
    /// Sigstore's public-good instance, as embedded.
    ///
    /// # Errors
    /// None in practice; a test reads it.
    pub fn public_good() -> Result<Self, RootError> {
        Self::embedded("public-good", SIGSTORE_PRODUCTION_TRUSTED_ROOT)
    }

    /// GitHub's instance for attestations of private repositories, as embedded.
    ///
    /// # Errors
    /// None in practice; a test reads it.
    pub fn github() -> Result<Self, RootError> {
        Self::embedded("github", SIGSTORE_GITHUB_TRUSTED_ROOT)
    }

    /// The staging instance of the public-good one: nothing that is released should rest on it.
    ///
    /// # Errors
    /// None in practice; a test reads it.
    pub fn staging() -> Result<Self, RootError> {
        Self::embedded("staging", SIGSTORE_STAGING_TRUSTED_ROOT)
    }

    fn embedded(name: &str, json: &str) -> Result<Self, RootError> {
        Self::from_json(name, json.as_bytes(), EMBEDDED_AS_OF.parse().ok())
    }

    /// Reads `trusted_root.json`; `as_of` is when it was last known to be current.
    ///
    /// # Errors
    /// [`RootError`] for malformed or contradicting content: duplicate logs, validities that end before they start,
    /// unknown kinds of keys.
    pub fn from_json(name: &str, json: &[u8], as_of: Option<Timestamp>) -> Result<Self, RootError> {
        let failed = |reason: String| RootError { name: clean(name), reason: clean(&reason) };
        if json.len() > MAX_ROOT_BYTES {
            return Err(failed(format!("it is larger than {MAX_ROOT_BYTES} bytes")));
        }
        let text = std::str::from_utf8(json).map_err(|error| failed(error.to_string()))?;
        let trusted = TrustedRoot::from_json(text).map_err(|error| failed(error.to_string()))?;
        let verifier = Verifier::new(&trusted).map_err(|error| failed(error.to_string()))?;
        let facts = RootFacts { name: name.to_owned(), digest: Digest::sha256(json), as_of };
        Ok(Self { inner: Arc::new(Inner { facts, json: json.to_owned(), trusted, verifier }) })
    }

    /// Which root this is.
    #[must_use]
    pub fn facts(&self) -> &RootFacts {
        &self.inner.facts
    }

    /// The JSON text that it was read from.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.inner.json
    }

    pub(super) fn trusted(&self) -> &TrustedRoot {
        &self.inner.trusted
    }

    pub(super) fn verifier(&self) -> &Verifier {
        &self.inner.verifier
    }
}

/// The day the embedded roots were last refreshed: the release of the pinned crate that carries them. A test holds it to the pin.
const EMBEDDED_AS_OF: &str = "2026-10-13T00:00:00Z";
pub(super) const MAX_ROOT_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_roots_are_read_and_dated_by_the_pinned_release() {
        for root in [Root::public_good(), Root::github(), Root::staging()] {
            assert!(root.expect("a root").facts().as_of.is_some());
        }
        let manifest = include_str!("../../../Cargo.toml");
        assert!(
            manifest.contains("sigstore-trust-root = { version = \"=0.15.1\""),
            "with another pin comes another date of the embedded roots"
        );
    }

    #[test]
    fn a_root_that_contradicts_itself_is_an_error() {
        let mut root: serde_json::Value = serde_json::from_str(SIGSTORE_PRODUCTION_TRUSTED_ROOT).expect("JSON");
        let logs = root.get_mut("tlogs").and_then(serde_json::Value::as_array_mut).expect("logs");
        logs.push(logs.first().expect("a log").clone());
        let error = Root::from_json("twice", root.to_string().as_bytes(), None).expect_err("a log twice");
        assert!(error.to_string().contains("duplicate"), "{error}");
        assert!(Root::from_json("empty", b"", None).is_err());
    }
}
