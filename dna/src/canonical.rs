//! Canonical JSON (RFC 8785): equal values, equal bytes.

use serde::Serialize;

/// `value` as canonical JSON.
///
/// # Errors
/// [`CanonicalError`] when the value has no JSON form.
pub fn canonical_json<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    serde_json_canonicalizer::to_vec(value).map_err(CanonicalError)
}

/// A value that has no JSON form.
#[derive(Debug, thiserror::Error)]
#[error("no canonical JSON")]
pub struct CanonicalError(#[source] serde_json::Error);
