//! Files in which somebody sets up a bridge: who may send, who may ask, who is told. TOML in, a typed document or what is wrong out.

use serde::de::DeserializeOwned;

/// Settings that cannot be used as they are written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct SettingsError {
    /// The file, with the line or the entry where it is known.
    pub place: String,
    /// What is wrong, and what to write instead.
    pub reason: String,
}

/// Reads a document. `place` is where it is from, for the error.
///
/// # Errors
/// [`SettingsError`], with the line and without its text: somebody may have written the secret itself there.
pub(crate) fn read<T: DeserializeOwned>(text: &str, place: &str) -> Result<T, SettingsError> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(String::new(), |before| format!(":{}", before.matches('\n').count() + 1));
        SettingsError { place: format!("{place}{line}"), reason: error.message().to_owned() }
    })
}

/// Whether a text is a name: of a sensor, a sink, a cursor.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
