//! Content digests: text in, a checked value out. Hashing of streams is done where the bytes are.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A content digest, `sha256:` and 64 or `sha512:` and 128 lower-case hexadecimal digits.
///
/// Source: OCI image specification, *descriptor*, section "Digests"; only the registered algorithms are taken.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Digest(String);

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::from_sha256(sha2::Sha256::digest(bytes).into())
    }

    /// A digest from an already computed SHA-256 value.
    pub fn from_sha256(value: [u8; 32]) -> Self {
        Self(format!("sha256:{}", hex(&value)))
    }

    /// A digest from an already computed SHA-512 value.
    pub fn from_sha512(value: [u8; 64]) -> Self {
        Self(format!("sha512:{}", hex(&value)))
    }

    /// The algorithm's registered name: `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        self.0.split_once(':').map_or("", |(algorithm, _)| algorithm)
    }

    /// The lower-case hexadecimal digits.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The whole digest as text, `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> &str {
        self.hex().get(..12).unwrap_or_default()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let error = |reason| DigestError { text: text.chars().take(160).collect(), reason };
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| error("no colon between algorithm and value"))?;
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return Err(error("algorithm is neither sha256 nor sha512")),
        };
        if hex.len() != length {
            return Err(error("value has the wrong length"));
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(error("value is not lower-case hexadecimal"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest: {reason}")]
pub struct DigestError {
    text: String,
    reason: &'static str,
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_digest_round_trips() {
        let digest = Digest::sha256(b"mayfly");
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest.clone()));
        assert_eq!((digest.algorithm(), digest.hex().len(), digest.short().len()), ("sha256", 64, 12));
    }

    #[test]
    fn malformed_digests_are_refused() {
        let upper = format!("sha256:{}", "A".repeat(64));
        for text in ["", "sha256", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:abc", &upper] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
