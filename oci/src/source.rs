//! What a person typed: the text of a [`Source`] in, a checked value out. Nothing is opened here; only a text that cannot
//! be read is compared with the file system, to say what was probably meant.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use dna::Digest;

use crate::Reference;

/// Where an image is. Source of the forms: containers-transports(5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// `REFERENCE` or `docker://REFERENCE`: in a registry.
    Registry(Reference),
    /// `oci:DIR[:NAME]`: an OCI image layout.
    Layout(PathBuf, Select),
    /// `oci-archive:FILE[:NAME]`: a tar archive of a layout, plain or compressed.
    OciArchive(PathBuf, Select),
    /// `docker-archive:FILE[:NAME]`: what `docker save` writes, plain or compressed.
    DockerArchive(PathBuf, Select),
    /// `-`: an archive of either kind on standard input.
    Stdin,
    /// `docker-daemon:NAME`: an image of the local Docker daemon, by name or by `sha256:` id.
    DockerDaemon(String),
    /// `dir:ROOTFS`: an unpacked root file system.
    Directory(PathBuf),
}

/// Which image of a layout or archive: `:NAME`, `:@INDEX`, `@DIGEST` or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Select {
    /// The only one there.
    Only,
    /// The one with this tag or reference.
    Name(String),
    /// The one at this place, from 0.
    Index(u32),
    /// The one with this manifest digest; only of OCI layouts.
    Digest(Digest),
}

impl Source {
    /// What a bare name that no registry knows was probably meant as: a file or folder of that name.
    pub fn meant(text: &str) -> Option<String> {
        let path = Path::new(text);
        let kind = if path.join("index.json").is_file() {
            "oci:"
        } else if path.is_dir() {
            "dir:"
        } else if path.is_file() {
            return Some(format!(
                "there is a file of that name: write `oci-archive:{text}` or `docker-archive:{text}`"
            ));
        } else {
            return None;
        };
        Some(format!("there is a folder of that name: write `{kind}{text}`"))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "docker://{reference}"),
            Self::Layout(path, select) => write!(f, "oci:{}{select}", path.display()),
            Self::OciArchive(path, select) => write!(f, "oci-archive:{}{select}", path.display()),
            Self::DockerArchive(path, select) => write!(f, "docker-archive:{}{select}", path.display()),
            Self::Stdin => f.write_str("-"),
            Self::DockerDaemon(name) => write!(f, "docker-daemon:{name}"),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => Ok(()),
            Self::Name(name) => write!(f, ":{name}"),
            Self::Index(index) => write!(f, ":@{index}"),
            Self::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if text == "-" {
            return Ok(Self::Stdin);
        }
        let (transport, rest) = text.split_once(':').unwrap_or(("", text));
        let error = |reason: String| SourceError { text: shown(text), reason };
        let bad_path = |reason| error(format!("{reason}: expected `{transport}:PATH` or `{transport}:PATH:NAME`"));
        let located = |rest| located(rest).map_err(bad_path);
        match transport {
            "docker" if rest.starts_with("//") => {
                let name = rest.trim_start_matches("//");
                name.parse().map(Self::Registry).map_err(|why| error(why.to_string()))
            }
            "oci" => located(rest).map(|(path, select)| Self::Layout(path, select)),
            "oci-archive" => located(rest).map(|(path, select)| Self::OciArchive(path, select)),
            "docker-archive" => match located(rest)? {
                (_, Select::Digest(_)) => {
                    Err(error("a docker-archive knows no manifest digests; name a tag".to_owned()))
                }
                (path, select) => Ok(Self::DockerArchive(path, select)),
            },
            "docker-daemon" => daemon_name(rest).map(Self::DockerDaemon).map_err(error),
            "dir" if !rest.is_empty() => Ok(Self::Directory(rest.into())),
            "dir" => Err(error("it names no folder: expected `dir:ROOTFS`".to_owned())),
            "http" | "https" => {
                Err(error("a registry is named without a scheme: write `docker://HOST/REPOSITORY:TAG`".to_owned()))
            }
            "containers-storage" | "ostree" | "sif" | "tarball" => {
                Err(error(format!("the transport `{transport}:` is not supported; {TRANSPORTS}")))
            }
            _ => text.parse().map(Self::Registry).map_err(|why: crate::ReferenceError| {
                let meant = Self::meant(text).unwrap_or_else(|| TRANSPORTS.to_owned());
                error(format!("{why}; {meant}"))
            }),
        }
    }
}

/// A text that is no source: what it is, without user names or passwords, what is wrong, and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no image: {reason}")]
pub struct SourceError {
    text: String,
    reason: String,
}

/// `PATH[:NAME|:@INDEX|@DIGEST]`; as containers/image, the path ends at the first colon.
fn located(text: &str) -> Result<(PathBuf, Select), &'static str> {
    let by_digest = text.rsplit_once('@').and_then(|(path, digest)| Some((path, digest.parse::<Digest>().ok()?)));
    let (path, select) = match by_digest {
        Some((path, digest)) => (path, Select::Digest(digest)),
        None => match text.split_once(':') {
            None => (text, Select::Only),
            Some((path, name)) => match name.strip_prefix('@').map(str::parse) {
                Some(Ok(index)) => (path, Select::Index(index)),
                Some(Err(_)) => return Err("the place after `@` is no number"),
                None if name.is_empty() => return Err("there is no name after the colon"),
                None => (path, Select::Name(name.to_owned())),
            },
        },
    };
    match path {
        "" => Err("it names no path"),
        path if path.contains(':') => Err("a path with a colon cannot be named"),
        path => Ok((path.into(), select)),
    }
}

/// A reference, or an image id; a bare id without its algorithm is Docker's short form.
fn daemon_name(text: &str) -> Result<String, String> {
    let id = text.strip_prefix("sha256:").unwrap_or(text);
    if (12..=64).contains(&id.len()) && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(text.to_owned());
    }
    match text.parse::<Reference>() {
        Ok(reference) => Ok(reference.to_string()),
        Err(why) => Err(format!("{why}; expected `docker-daemon:NAME:TAG` or an image id")),
    }
}

/// The text for a message: what stands where a user name and password would is left out, and so is what is too long.
fn shown(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    let Some((before, after)) = clean.rsplit_once('@') else { return clean };
    if after.contains(':') && after.parse::<Digest>().is_ok() && !before.contains('@') {
        return clean;
    }
    let scheme = before.find("//").and_then(|at| before.get(..at.saturating_add(2))).unwrap_or("");
    format!("{scheme}{}@{after}", dna::REDACTED)
}

const TRANSPORTS: &str = "write REFERENCE, docker://REFERENCE, oci:DIR, oci-archive:FILE, docker-archive:FILE, docker-daemon:NAME, \
                          dir:ROOTFS, or - for an archive on standard input";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Source {
        text.parse().expect(text)
    }

    #[test]
    fn each_transport_is_told_by_its_prefix() {
        let digest = Digest::sha256(b"");
        let name = |name: &str| Select::Name(name.to_owned());
        for (text, want) in [
            ("oci:a/b", Source::Layout("a/b".into(), Select::Only)),
            ("oci:/a:v1", Source::Layout("/a".into(), name("v1"))),
            ("oci:/a:host/x:v1", Source::Layout("/a".into(), name("host/x:v1"))),
            ("oci:/a:@2", Source::Layout("/a".into(), Select::Index(2))),
            (&format!("oci:/a@{digest}"), Source::Layout("/a".into(), Select::Digest(digest.clone()))),
            ("oci-archive:a.tar:v1", Source::OciArchive("a.tar".into(), name("v1"))),
            ("docker-archive:a.tar:x/y:1", Source::DockerArchive("a.tar".into(), name("x/y:1"))),
            ("docker-archive:a.tar:@0", Source::DockerArchive("a.tar".into(), Select::Index(0))),
            ("docker-daemon:nginx", Source::DockerDaemon("docker.io/library/nginx:latest".into())),
            ("dir:/r:x", Source::Directory("/r:x".into())),
            ("-", Source::Stdin),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
        assert_eq!(parse("docker://nginx"), parse("nginx"));
        assert_eq!(parse("docker:dind"), parse("docker://docker.io/library/docker:dind"), "an image of that name");
    }

    #[test]
    fn what_names_nothing_is_refused_with_what_to_write() {
        for (text, want) in [
            ("", "REFERENCE"),
            ("oci:", "oci:PATH"),
            ("oci:a:", "oci:PATH:NAME"),
            ("oci:a:@x", "no number"),
            ("dir:", "dir:ROOTFS"),
            ("https://host/x", "docker://"),
            ("containers-storage:x", "not supported"),
            ("./x.tar", "oci-archive"),
            ("docker-archive:a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "tag"),
        ] {
            let error = text.parse::<Source>().expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn a_folder_typed_as_a_name_is_explained() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = folder.path().display().to_string();
        let error = text.parse::<Source>().expect_err("a path").to_string();
        assert!(error.contains("write `dir:"), "{error}");
    }

    #[test]
    fn passwords_do_not_show_in_errors() {
        for text in [
            "docker://user:hunter2@host.io/a",
            "user:hunter2@host.io/a",
            "https://u:hunter2@h/x",
            "u:hunter2@h@sha256:00",
        ] {
            let error = text.parse::<Source>().expect_err(text);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(text in "(docker://|oci:|oci-archive:|docker-archive:|docker-daemon:|dir:|)[a-z0-9./_:@-]{1,24}") {
            if let Ok(source) = text.parse::<Source>() {
                prop_assert_eq!(source.to_string().parse::<Source>(), Ok(source));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = text.parse::<Source>();
        }
    }
}
