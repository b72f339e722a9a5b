//! Names of images in registries: text in, a checked and normalized [`Reference`] out. Nothing is looked up here.

use std::{fmt, str::FromStr};

use dna::Digest;

/// A name of an image in a registry, normalized as Docker does: `nginx` is `docker.io/library/nginx:latest`.
///
/// Source: distribution, `reference` package (grammar and `ParseNormalizedNamed`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host, and port where one is named: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path of the repository within its registry: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` where neither tag nor digest was given. With a digest beside it, it is for people only.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, which decides over the tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest, else the tag.
    pub fn wanted(&self) -> &str {
        self.digest.as_ref().map_or_else(|| self.tag.as_deref().unwrap_or(LATEST), Digest::as_str)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.rsplit_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| ReferenceError("the part after `@` is no digest"))?))
            }
        };
        if rest.len() > MAX_NAME_BYTES {
            return Err(ReferenceError("the name is longer than 255 bytes"));
        }
        if rest.contains('@') {
            return Err(ReferenceError("a user name or password has no place in it"));
        }
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" || is_ipv6(host) => (host, path),
            _ => (DOCKER_HUB, name),
        };
        let registry = match registry.to_ascii_lowercase().as_str() {
            "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
            other => other.to_owned(),
        };
        if !is_host(&registry) {
            return Err(ReferenceError("the registry is no host name with an optional port"));
        }
        let repository = match registry.as_str() {
            DOCKER_HUB if !path.contains('/') => format!("library/{path}"),
            _ => path.to_owned(),
        };
        if !repository.split('/').all(is_component) {
            return Err(ReferenceError(
                "the repository is not made of lower-case letters, digits and single separators",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError("the tag is not made of up to 128 letters, digits, `_`, `.` and `-`"));
        }
        let tag = tag.or(digest.is_none().then_some(LATEST)).map(str::to_owned);
        Ok(Self { registry, repository, tag, digest })
    }
}

/// What is wrong with a text that should name an image. The text itself is not in it: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReferenceError(&'static str);

fn is_ipv6(host: &str) -> bool {
    host.starts_with('[')
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, port))) => {
            let v6 = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
            return v6 && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        Some(None) => return false,
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port != 0)
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<u8>| b.is_some_and(alphanumeric);
    if !ends(text.bytes().next()) || !ends(text.bytes().next_back()) {
        return false;
    }
    text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub(crate) fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && !text.starts_with(['.', '-'])
}

const DOCKER_HUB: &str = "docker.io";
const LATEST: &str = "latest";
const MAX_NAME_BYTES: usize = 255 + 1 + 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> String {
        text.parse::<Reference>().expect(text).to_string()
    }

    #[test]
    fn short_names_are_normalized_as_docker_does() {
        let digest = Digest::sha256(b"");
        for (text, want) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_owned()),
            ("bitnami/redis", "docker.io/bitnami/redis:latest".to_owned()),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("localhost:5000/a/b__c:1", "localhost:5000/a/b__c:1".to_owned()),
            ("GHCR.io/a/b", "ghcr.io/a/b:latest".to_owned()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            (&format!("nginx@{digest}"), format!("docker.io/library/nginx@{digest}")),
            (&format!("nginx:1@{digest}"), format!("docker.io/library/nginx:1@{digest}")),
        ] {
            assert_eq!(normal(text), want);
            assert_eq!(normal(&want), want, "normal names stay");
        }
    }

    #[test]
    fn malformed_names_are_refused() {
        for text in [
            "",
            "Nginx",
            "nginx:",
            "nginx@",
            "nginx@sha256:abc",
            "a//b",
            "a/",
            "-a",
            "a..b",
            "a___b",
            "host:port/a",
            "h.io:70000/a",
            "./image.tar",
            "/image",
            "nginx:.tag",
            "a b",
            "user:secret@host.io/a",
            "[::1/a",
        ] {
            let error = text.parse::<Reference>().expect_err(text);
            assert!(!error.to_string().contains("secret"));
        }
        assert!("a".repeat(400).parse::<Reference>().is_err());
    }
}
