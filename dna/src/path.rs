//! Paths inside an image: bytes in, a normalized absolute path out. Nothing here looks at a file system.

use std::{borrow::Cow, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An absolute path inside an image's root file system: bytes, starting with `/`, with no empty, `.` or `..` component,
/// no trailing slash (but for the root itself) and no NUL.
///
/// In JSON it is a string where the bytes are UTF-8, and `{"base64": "…"}` where they are not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImagePath(Box<[u8]>);

impl ImagePath {
    /// The root directory, `/`.
    pub fn root() -> Self {
        Self(Box::from(&b"/"[..]))
    }

    /// Normalizes `bytes`, taken as relative to the root: empty and `.` components vanish, `..` goes up one component
    /// and stays at the root there, as the kernel does at the root of a mount.
    ///
    /// # Errors
    /// [`PathError`] when a byte is NUL.
    pub fn normalize(bytes: &[u8]) -> Result<Self, PathError> {
        Self::root().join(bytes)
    }

    /// This path followed by `bytes`, normalized by text alone; an absolute `bytes` replaces this path.
    ///
    /// # Errors
    /// [`PathError`] when a byte is NUL.
    pub fn join(&self, bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.contains(&0) {
            return Err(PathError);
        }
        let base: &[u8] = if bytes.first() == Some(&b'/') { b"/" } else { &self.0 };
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in base.split(|b| *b == b'/').chain(bytes.split(|b| *b == b'/')) {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        Ok(Self::from_parts(&parts))
    }

    /// The path as bytes, always starting with `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as text where it is UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The path as text for people: bytes that are not UTF-8 become U+FFFD. Not for comparing.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The components from the root down; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty())
    }

    /// The last component; empty for the root.
    pub fn file_name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }

    /// The directory this path is in; none for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let mut parts: Vec<&[u8]> = self.components().collect();
        parts.pop();
        Some(Self::from_parts(&parts))
    }

    /// The folder of the file, or of the files that a glob stands for.
    #[must_use]
    pub fn folder(&self) -> Self {
        let is_glob = |part: &[u8]| part.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['));
        let above = self.components().count().saturating_sub(1);
        let fixed = self.components().take(above).take_while(|part| !is_glob(part));
        fixed.fold(Self::root(), |folder, part| folder.join(part).unwrap_or_else(|_| folder.clone()))
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        &*self.0 == b"/"
    }

    /// Whether this path is `ancestor` or below it.
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        ancestor.is_root()
            || self.0.strip_prefix(&*ancestor.0).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }

    fn from_parts(parts: &[&[u8]]) -> Self {
        if parts.is_empty() {
            return Self::root();
        }
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
        for part in parts {
            bytes.push(b'/');
            bytes.extend_from_slice(part);
        }
        Self(bytes.into())
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string_lossy())
    }
}

impl fmt::Debug for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl FromStr for ImagePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::normalize(text.as_bytes())
    }
}

impl Serialize for ImagePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => Encoded { base64: STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ImagePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into_bytes(),
            Form::Encoded(Encoded { base64 }) => STANDARD.decode(base64).map_err(D::Error::custom)?,
        };
        Self::normalize(&bytes).map_err(D::Error::custom)
    }
}

impl JsonSchema for ImagePath {
    fn schema_name() -> Cow<'static, str> {
        "ImagePath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An absolute path inside the image; an object with its bytes in base64 where they are not UTF-8.",
            "oneOf": [
                { "type": "string", "pattern": "^/" },
                { "type": "object", "properties": { "base64": { "type": "string" } }, "required": ["base64"], "additionalProperties": false },
            ],
        })
    }
}

/// Bytes that cannot be a path: they hold a NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("path holds a NUL byte")]
pub struct PathError;

#[derive(Serialize, Deserialize)]
struct Encoded {
    base64: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Encoded(Encoded),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> ImagePath {
        text.parse().expect("no NUL")
    }

    #[test]
    fn dot_dot_stays_inside_the_root() {
        for (text, normal) in [
            ("", "/"),
            ("a//b/", "/a/b"),
            ("./a/../b", "/b"),
            ("../../etc", "/etc"),
            ("/a/..", "/"),
            ("a/./b/../c", "/a/c"),
        ] {
            assert_eq!(path(text), path(normal), "{text}");
        }
    }

    #[test]
    fn nul_is_refused() {
        assert_eq!(ImagePath::normalize(b"a\0b"), Err(PathError));
    }

    #[test]
    fn absolute_join_replaces_the_base() {
        assert_eq!(path("/usr/bin").join(b"/etc").expect("no NUL"), path("/etc"));
        assert_eq!(path("/usr/bin").join(b"../lib").expect("no NUL"), path("/usr/lib"));
    }

    #[test]
    fn a_path_starts_with_whole_components_only() {
        assert!(path("/usr/bin").starts_with(&path("/usr")) && path("/usr").starts_with(&path("/usr")));
        assert!(!path("/usrlocal").starts_with(&path("/usr")));
    }

    proptest! {
        #[test]
        fn json_round_trips_any_bytes(bytes in prop::collection::vec(1u8.., 0..64)) {
            let path = ImagePath::normalize(&bytes).expect("no NUL");
            let json = serde_json::to_string(&path).expect("serializes");
            prop_assert_eq!(serde_json::from_str::<ImagePath>(&json).expect("parses"), path);
        }
    }
}
