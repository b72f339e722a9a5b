//! How much is known of when and where a signature was made.

use serde::{Deserialize, Serialize};

/// What stands behind a signature, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Evidence {
    /// The signature alone, by a key: nobody else saw it.
    Signature,
    /// A time that a timestamp authority of the trust root signed (RFC 3161).
    Timestamp,
    /// An entry in a transparency log of the trust root: its proof of inclusion, or in cosign's older formats its promise.
    Log,
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Signature => "a signature alone",
            Self::Timestamp => "a signed timestamp",
            Self::Log => "an entry of a transparency log",
        })
    }
}
