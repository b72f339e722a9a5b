//! Credentials for a registry, as `docker login` and `podman login` left them: configuration files and helper programs
//! in, at most one [`Credential`] out. Sources: Docker CLI `config.json`, containers-auth.json(5),
//! docker-credential-helpers' protocol. What a file or helper says never enters a message.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tracing::warn;

use super::{Cloud, PullSecret};
use crate::{Error, Reference};

/// A place where credentials for registries are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// `REGISTRY_AUTH_FILE` alone where it is set; else Docker's `config.json` in `DOCKER_CONFIG` or `~/.docker`, and Podman's
    /// `auth.json` in `$XDG_RUNTIME_DIR/containers` and `~/.config/containers`.
    DefaultFiles,
    /// Such files; the first that has an entry for the repository, or names a helper program that has one, gives it.
    Files(Vec<PathBuf>),
    /// Secrets of a Kubernetes pod or service account, by the kubelet's rules: each entry that matches is tried.
    PullSecrets(Vec<PullSecret>),
    /// Who this machine or pod is to its cloud, for that cloud's registries.
    Cloud(Cloud),
    /// None at all.
    Anonymous,
}

/// What a registry or its token service is shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    Basic {
        user: String,
        password: String,
    },
    /// An OAuth 2 refresh token ("identity token").
    Refresh(String),
    /// A ready bearer token.
    Bearer(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(..)",
            Self::Refresh(_) => "Refresh(..)",
            Self::Bearer(_) => "Bearer(..)",
        })
    }
}

/// `config.json` of Docker, `auth.json` of Podman.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct File {
    auths: Option<BTreeMap<String, Entry>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// See [`Credentials::DefaultFiles`].
pub(super) fn default_files() -> Vec<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = set("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = |below: &str| set("HOME").map(|home| home.join(below));
    let docker = set("DOCKER_CONFIG").or_else(|| home(".docker")).map(|folder| folder.join("config.json"));
    let runtime = set("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json"));
    let podman = set("XDG_CONFIG_HOME").or_else(|| home(".config")).map(|folder| folder.join("containers/auth.json"));
    [docker, runtime, podman].into_iter().flatten().collect()
}

/// The first credential that one of `files` has for the repository; a file that is not there is skipped.
///
/// # Errors
/// [`Error::Credentials`] for a file or helper that is there but does not work; a helper has `patience` to answer.
pub(super) async fn find(
    reference: &Reference,
    files: &[PathBuf],
    patience: Duration,
) -> Result<Option<Credential>, Error> {
    for path in files {
        let Some(file) = read(path, reference)? else { continue };
        if let Some(credential) = of_file(file, path, reference, patience).await? {
            return Ok(Some(credential));
        }
    }
    Ok(None)
}

fn read(path: &Path, reference: &Reference) -> Result<Option<File>, Error> {
    let mut bytes = Vec::new();
    match std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)) {
        Ok(_) if bytes.is_empty() => Ok(None),
        Ok(_) => match serde_json::from_slice(&bytes) {
            Ok(file) => Ok(Some(file)),
            // serde_json's own message could show a value.
            Err(error) => Err(failed(reference, path, &format!("malformed JSON in line {}", error.line()))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(reference, path, &error.to_string())),
    }
}

async fn of_file(
    file: File,
    path: &Path,
    reference: &Reference,
    patience: Duration,
) -> Result<Option<Credential>, Error> {
    let registry = reference.registry();
    let helpers = file.cred_helpers.unwrap_or_default();
    if let Some((_, helper)) = helpers.iter().find(|(key, _)| host_of(key) == registry) {
        let found = ask(helper, registry, patience).await;
        return found.map_err(|reason| failed(reference, path, &reason.to_string()));
    }
    let auths = file.auths.unwrap_or_default();
    if let Some(entry) = keys(reference).iter().find_map(|key| auths.iter().find(|(name, _)| host_of(name) == *key))
        && let Some(credential) = of_entry(entry.1).map_err(|reason| failed(reference, path, reason))?
    {
        return Ok(Some(credential));
    }
    let Some(helper) = file.creds_store.filter(|helper| !helper.is_empty()) else { return Ok(None) };
    match ask(&helper, registry, patience).await {
        Ok(found) => Ok(found),
        // Configurations are carried between machines; public images must not fail for that.
        Err(HelperError::NotInstalled(helper)) => {
            warn!(helper, "the credential store of the configuration is not installed");
            Ok(None)
        }
        Err(reason) => Err(failed(reference, path, &reason.to_string())),
    }
}

fn failed(reference: &Reference, path: &Path, reason: &str) -> Error {
    let registry = reference.registry().to_owned();
    Error::Credentials { registry, reason: format!("{}: {reason}", path.display()) }
}

/// Keys to look under, the most specific first: Podman has entries for repositories and namespaces too.
fn keys(reference: &Reference) -> Vec<String> {
    let mut path = format!("{}/{}", reference.registry(), reference.repository());
    let mut keys = vec![path.clone()];
    while let Some((parent, _)) = path.rsplit_once('/') {
        keys.push(parent.to_owned());
        path = parent.to_owned();
    }
    keys
}

/// A key without scheme and API path; Docker Hub goes by several names.
fn host_of(key: &str) -> String {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest).trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    match key.split_once('/').unwrap_or((key, "")) {
        ("index.docker.io" | "registry-1.docker.io", "") => "docker.io".to_owned(),
        _ => key.to_owned(),
    }
}

pub(super) fn of_entry(entry: &Entry) -> Result<Option<Credential>, &'static str> {
    let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    if let Some(token) = given(&entry.registrytoken) {
        return Ok(Some(Credential::Bearer(token)));
    }
    if let Some(token) = given(&entry.identitytoken) {
        return Ok(Some(Credential::Refresh(token)));
    }
    if let Some(auth) = given(&entry.auth) {
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let text = GeneralPurpose::new(&alphabet::STANDARD, config).decode(auth.trim()).ok();
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or("an `auth` is not base64 of text")?;
        let (user, password) = text.split_once(':').ok_or("an `auth` has no colon")?;
        // Docker pads the password with zero bytes when it writes it.
        let password = password.trim_matches('\0').to_owned();
        return Ok(Some(Credential::Basic { user: user.to_owned(), password }));
    }
    Ok(given(&entry.username).zip(given(&entry.password)).map(|(user, password)| Credential::Basic { user, password }))
}

/// Why a helper gave no answer. What it printed is left out: it could be a secret.
#[derive(Debug, thiserror::Error)]
enum HelperError {
    #[error("`{0}` is not installed")]
    NotInstalled(String),
    #[error("`{0}` did not answer within {1} s")]
    Slow(String, u64),
    #[error("`{0}` failed")]
    Failed(String),
    #[error("`{0}` gave no credentials")]
    Malformed(String),
    #[error("the helper's name is not made of letters, digits, `.`, `_` and `-`")]
    Name,
}

/// Asks `docker-credential-HELPER get`. None: it knows none for the registry.
async fn ask(helper: &str, registry: &str, patience: Duration) -> Result<Option<Credential>, HelperError> {
    if helper.is_empty() || !helper.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Err(HelperError::Name);
    }
    let program = format!("docker-credential-{helper}");
    let server = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    talk(program, server, patience).await
}

/// The helpers' protocol: the server's name in, JSON out.
async fn talk(program: String, server: &str, patience: Duration) -> Result<Option<Credential>, HelperError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let spawned = tokio::process::Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(HelperError::NotInstalled(program)),
        spawned => spawned.map_err(|_| HelperError::Failed(program.clone()))?,
    };
    let talk = async {
        if let Some(mut input) = child.stdin.take() {
            // A helper may know without reading; then its answer counts, not the broken pipe.
            let _ = input.write_all(server.as_bytes()).await;
        }
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_ANSWER_BYTES).read_to_end(&mut output).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, output))
    };
    let (status, output) = match tokio::time::timeout(patience, talk).await {
        Err(_) => return Err(HelperError::Slow(program, patience.as_secs())),
        Ok(done) => done.map_err(|_| HelperError::Failed(program.clone()))?,
    };
    if !status.success() {
        let unknown = String::from_utf8_lossy(&output).contains("credentials not found");
        return if unknown { Ok(None) } else { Err(HelperError::Failed(program)) };
    }
    let answer: Answer = serde_json::from_slice(&output).map_err(|_| HelperError::Malformed(program))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credential::Refresh(answer.secret),
        _ => Credential::Basic { user: answer.username, password: answer.secret },
    }))
}

const MAX_FILE_BYTES: u64 = 4 << 20;
const MAX_ANSWER_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::{fs, future::Future};

    use serde_json::{Value, json};

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
    }

    fn found(config: &Value, name: &str) -> Result<Option<Credential>, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.json");
        fs::write(&path, config.to_string()).expect("written");
        let reference = name.parse().expect("a reference");
        run(find(&reference, &[folder.path().join("none"), path], Duration::from_secs(5)))
    }

    fn basic(user: &str, password: &str) -> Option<Credential> {
        Some(Credential::Basic { user: user.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn the_most_specific_entry_of_the_registry_counts() {
        // `a:b` and `c:d`.
        let config = json!({"auths": {
            "https://host.io/v1/": {"auth": "YTpi"},
            "host.io/team": {"auth": "Yzpk"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
            "token.io": {"identitytoken": "t"},
        }});
        assert_eq!(found(&config, "host.io/x").expect("read"), basic("a", "b"));
        assert_eq!(found(&config, "host.io/team/x").expect("read"), basic("c", "d"));
        assert_eq!(found(&config, "nginx").expect("read"), basic("hub", "p"));
        assert_eq!(found(&config, "token.io/x").expect("read"), Some(Credential::Refresh("t".to_owned())));
        assert_eq!(found(&config, "other.io/x").expect("read"), None);
    }

    #[test]
    fn a_helper_that_fails_hangs_or_never_stops_is_named() {
        let talk = |program: &str, seconds| run(talk(program.to_owned(), "host.io", Duration::from_secs(seconds)));
        assert!(matches!(talk("false", 9), Err(HelperError::Failed(_))));
        assert!(matches!(talk("echo", 9), Err(HelperError::Malformed(_))));
        assert!(matches!(talk("yes", 9), Err(HelperError::Failed(_))), "cut off, then ended by its pipe");
        // It may happen to be quicker than no time at all.
        assert!((0..99).any(|_| matches!(talk("yes", 0), Err(HelperError::Slow(..)))));
    }

    #[test]
    fn broken_files_are_errors_that_show_no_secret() {
        let error = found(&json!({"auths": {"host.io": {"auth": "hunter2!"}}}), "host.io/x").expect_err("no base64");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        let error = found(&json!({"auths": "hunter2"}), "host.io/x").expect_err("no object");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }

    #[test]
    fn a_helper_that_is_missing_fails_only_where_it_was_named_for_the_registry() {
        let store = json!({"credsStore": "mayfly-tests-have-none"});
        assert_eq!(found(&store, "host.io/x").expect("skipped"), None);
        let helper = json!({"credHelpers": {"host.io": "mayfly-tests-have-none"}});
        let error = found(&helper, "host.io/x").expect_err("named").to_string();
        assert!(error.contains("not installed"), "{error}");
        let path = json!({"credHelpers": {"host.io": "../../bin/sh"}});
        assert!(found(&path, "host.io/x").is_err());
    }
}
