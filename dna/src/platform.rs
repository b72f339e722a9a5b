//! The platform an image is for: text in, a checked value out.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Operating system, architecture and variant as the OCI image index names them, in the words of Go's `GOOS` and
/// `GOARCH`: `linux/amd64`, `linux/arm64/v8`.
///
/// Two spellings of one platform are equal here: `arm64` has variant `v8`, `arm` without one has `v7`, and those default
/// variants of `arm64` are left out. Source: containerd `platforms.Normalize`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// A platform from the three fields of an index entry or image config, spelled in any of the usual ways.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let lower = |text: &str| text.to_ascii_lowercase();
        let os = match lower(os).as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let variant = variant.map(lower).filter(|v| !v.is_empty());
        let (architecture, variant) = match (lower(architecture).as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64".to_owned(), v.filter(|v| *v != "v1").map(str::to_owned)),
            ("i386" | "i486" | "i586" | "i686" | "386", _) => ("386".to_owned(), None),
            ("aarch64" | "arm64", v) => {
                ("arm64".to_owned(), v.filter(|v| !matches!(*v, "8" | "v8")).map(str::to_owned))
            }
            ("armhf", _) => ("arm".to_owned(), Some("v7".to_owned())),
            ("armel", _) => ("arm".to_owned(), Some("v6".to_owned())),
            ("arm", None | Some("7")) => ("arm".to_owned(), Some("v7".to_owned())),
            ("arm", Some(v @ ("5" | "6" | "8"))) => ("arm".to_owned(), Some(format!("v{v}"))),
            (other, v) => (other.to_owned(), v.map(str::to_owned)),
        };
        Self { os, architecture, variant }
    }

    /// The platform this program was built for, with Linux as the system: containers elsewhere run in a Linux machine.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// `linux`, `windows` …
    pub fn os(&self) -> &str {
        &self.os
    }

    /// `amd64`, `arm64` …
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// `v7`, `v8` …, where the architecture has variants and this is not its default one.
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let well_formed = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        match parts.as_slice() {
            [os, architecture] if parts.iter().all(well_formed) => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] if parts.iter().all(well_formed) => {
                Ok(Self::new(os, architecture, Some(variant)))
            }
            _ => Err(PlatformError(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for Platform {
    type Error = PlatformError;

    fn try_from(text: String) -> Result<Self, PlatformError> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: expected OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, such as linux/arm64")]
pub struct PlatformError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_platform_are_equal() {
        let parse = |text: &str| text.parse::<Platform>().expect("well formed");
        assert_eq!(parse("linux/aarch64"), parse("linux/arm64/v8"));
        assert_eq!(parse("Linux/x86_64").to_string(), "linux/amd64");
        assert_eq!(parse("linux/arm").to_string(), "linux/arm/v7");
    }

    #[test]
    fn malformed_platforms_are_refused() {
        for text in ["", "linux", "linux/", "/amd64", "linux/amd64/v2/x", "li nux/amd64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
