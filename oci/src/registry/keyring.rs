//! Image pull secrets of Kubernetes: their content in, the credentials that a kubelet would try for a repository out, in its
//! order. Source: Kubernetes, `pkg/credentialprovider/keyring.go`. Helper programs that a secret names are never run.

use std::{collections::BTreeMap, fmt};

use sha2::{Digest as _, Sha256};

use super::credentials::{Credential, Entry, of_entry};
use crate::{Error, Reference};

/// The content of an image pull secret.
#[derive(Clone, PartialEq, Eq)]
pub struct PullSecret {
    /// Host or pattern, port and path, with what to show there.
    entries: Vec<(String, Credential)>,
}

impl PullSecret {
    /// `bytes` of a secret of type `kubernetes.io/dockerconfigjson` (key `.dockerconfigjson`) or, `legacy`, of type
    /// `kubernetes.io/dockercfg` (key `.dockercfg`); `name` is for messages.
    ///
    /// # Errors
    /// [`Error::Credentials`], with nothing of its content, for what is not of that form.
    pub fn parse(bytes: &[u8], legacy: bool, name: &str) -> Result<Self, Error> {
        #[derive(serde::Deserialize)]
        struct Config {
            #[serde(default)]
            auths: Option<BTreeMap<String, Entry>>,
        }
        let failed = |reason: &str| Error::Credentials { registry: name.to_owned(), reason: reason.to_owned() };
        let parsed = match legacy {
            true => serde_json::from_slice(bytes),
            false => serde_json::from_slice::<Config>(bytes).map(|config| config.auths.unwrap_or_default()),
        };
        let parsed: BTreeMap<String, Entry> = parsed.map_err(|_| failed("the secret holds no such JSON"))?;
        if parsed.len() > MAX_ENTRIES {
            return Err(failed("the secret has too many entries"));
        }
        let mut entries = Vec::new();
        for (place, entry) in parsed {
            entries.extend(of_entry(&entry).map_err(failed)?.map(|credential| (key(&place), credential)));
        }
        Ok(Self { entries })
    }

    /// SHA-256 of the content: equal for secrets that open the same doors. Not to be shown or kept.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let mut part = |text: &str| {
            hasher.update(text.len().to_le_bytes());
            hasher.update(text.as_bytes());
        };
        for (place, credential) in &self.entries {
            part(place);
            match credential {
                Credential::Basic { user, password } => ["basic", user, password].into_iter().for_each(&mut part),
                Credential::Refresh(token) => ["refresh", token].into_iter().for_each(&mut part),
                Credential::Bearer(token) => ["bearer", token].into_iter().for_each(&mut part),
            }
        }
        hasher.finalize().into()
    }
}

impl fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|(place, _)| place)).finish()
    }
}

/// What to try for a repository: of all secrets together, the more specific first.
pub(super) fn matching(secrets: &[PullSecret], reference: &Reference) -> Vec<Credential> {
    let image = format!("{}/{}", reference.registry(), reference.repository());
    let entries = secrets.iter().flat_map(|secret| &secret.entries);
    let mut found: Vec<_> = entries.filter(|(pattern, _)| matches(pattern, &image)).collect();
    // As the kubelet sorts; of equal places, the secret named first comes first.
    found.sort_by(|(a, _), (b, _)| b.cmp(a));
    let mut credentials = Vec::new();
    for (_, credential) in found {
        if !credentials.contains(credential) {
            credentials.push(credential.clone());
        }
    }
    credentials
}

/// A place without scheme; `/v1/` and `/v2/` stand for the host alone, and Docker Hub goes by several names.
fn key(place: &str) -> String {
    let place = place.strip_prefix("https://").or_else(|| place.strip_prefix("http://")).unwrap_or(place);
    let (host, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let path = match path {
        "/v1" | "/v2" => "",
        path => path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/v2/")).unwrap_or(path),
    };
    let path = path.trim_matches('/');
    let host = match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    };
    if path.is_empty() { host } else { format!("{host}/{path}") }
}

/// Whether a place covers an image: its host label by label, `*` and `?` standing for parts of one; the same port; its path
/// as a prefix.
fn matches(pattern: &str, image: &str) -> bool {
    let split = |text: &str| {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let (host, port) = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).unwrap_or((host, ""));
        (host.to_owned(), port.to_owned(), path.to_owned())
    };
    let ((glob, glob_port, prefix), (host, port, path)) = (split(pattern), split(image));
    let (labels, hosts): (Vec<_>, Vec<_>) = (glob.split('.').collect(), host.split('.').collect());
    glob_port == port
        && path.starts_with(&prefix)
        && labels.len() == hosts.len()
        && labels.iter().zip(&hosts).all(|(glob, label)| glob_matches(glob.as_bytes(), label.as_bytes()))
}

/// `*` is any number of characters, `?` is one.
fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Where to go back to: after the last star, and one character further in the text.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(seen) {
        match (glob.get(at), star) {
            (Some(b'*'), _) => {
                at += 1;
                star = Some((at, seen));
            }
            (Some(want), _) if want == byte || *want == b'?' => {
                at += 1;
                seen += 1;
            }
            (_, Some((after, from))) => {
                at = after;
                seen = from + 1;
                star = Some((after, seen));
            }
            _ => return false,
        }
    }
    glob.iter().skip(at).all(|byte| *byte == b'*')
}

const MAX_ENTRIES: usize = 1_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn secret(auths: &serde_json::Value) -> PullSecret {
        PullSecret::parse(json!({"auths": auths}).to_string().as_bytes(), false, "x").expect("a secret")
    }

    fn users(secrets: &[PullSecret], image: &str) -> Vec<String> {
        let user = |credential| match credential {
            Credential::Basic { user, .. } => user,
            other => format!("{other:?}"),
        };
        matching(secrets, &image.parse().expect("a reference")).into_iter().map(user).collect()
    }

    fn entry(user: &str) -> serde_json::Value {
        json!({"username": user, "password": "hunter2"})
    }

    #[test]
    fn places_match_as_the_kubelet_matches_them() {
        for (place, image, want) in [
            ("host.io", "host.io/a/b", true),
            ("https://host.io/v1/", "host.io/a/b", true),
            ("http://host.io/v2/", "host.io/a/b", true),
            ("host.io/a", "host.io/a/b", true),
            ("host.io/a", "host.io/ab/b", true),
            ("host.io/b", "host.io/a/b", false),
            ("*.corp.io", "eu.corp.io/a", true),
            ("*.corp.io", "corp.io/a", false),
            ("*.corp.io", "a.eu.corp.io/a", false),
            ("*.*.corp.io", "a.eu.corp.io/a", true),
            ("e?.corp.io", "eu.corp.io/a", true),
            ("host.io:5000", "host.io/a", false),
            ("*.io:5000", "host.io:5000/a", true),
            ("host.io", "host.io:5000/a", false),
            ("https://index.docker.io/v1/", "nginx", true),
            ("docker.io", "nginx", true),
            ("docker.io/library", "nginx", true),
            ("[::1]:5000", "[::1]:5000/a", true),
        ] {
            let found = users(&[secret(&json!({place: entry("u")}))], image);
            assert_eq!(found.len(), usize::from(want), "{place} {image}");
        }
    }

    #[test]
    fn more_specific_entries_come_first_and_all_that_match_are_given() {
        let one =
            secret(&json!({"host.io": entry("a"), "host.io/team": entry("b"), "*.io": entry("c"), "x.io": entry("d")}));
        let two = secret(&json!({"host.io/team": entry("e"), "https://host.io": entry("a")}));
        assert_eq!(users(&[one.clone(), two.clone()], "host.io/team/app"), ["b", "e", "a", "c"]);
        assert_eq!(users(&[two, one], "host.io/team/app"), ["e", "b", "a", "c"]);
    }

    #[test]
    fn both_forms_are_read_and_broken_ones_show_nothing() {
        let bytes = br#"{"host.io": {"auth": "dTpodW50ZXIy", "email": "a@b"}}"#;
        let legacy = PullSecret::parse(bytes, true, "x").expect("a secret");
        assert_eq!(users(std::slice::from_ref(&legacy), "host.io/a"), ["u"]);
        assert!(!format!("{legacy:?}").contains("hunter2"));
        assert!(PullSecret::parse(b"{}", false, "x").expect("an empty one").entries.is_empty());
        for bytes in [&b"hunter2"[..], br#"{"auths":{"h":{"auth":"hunter2"}}}"#, br#"{"auths":["hunter2"]}"#] {
            let error = PullSecret::parse(bytes, false, "x").expect_err("broken");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn globs_match_as_a_naive_search_does(glob in "[ab*?]{0,6}", text in "[ab]{0,6}") {
            fn naive(glob: &[u8], text: &[u8]) -> bool {
                match (glob.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), None) => naive(rest, text),
                    (Some((b'*', rest)), Some((_, tail))) => naive(rest, text) || naive(glob, tail),
                    (Some((want, rest)), Some((byte, tail))) => (want == byte || *want == b'?') && naive(rest, tail),
                    _ => false,
                }
            }
            prop_assert_eq!(glob_matches(glob.as_bytes(), text.as_bytes()), naive(glob.as_bytes(), text.as_bytes()));
        }
    }
}
