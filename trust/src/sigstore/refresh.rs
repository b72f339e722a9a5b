//! Trust roots kept current: from the TUF repository of an instance, whose signed metadata say what the current
//! `trusted_root.json` is. In the background, or by a command; a verification never comes here. Source: The Update
//! Framework, specification 1.0.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dna::Digest;
use jiff::Timestamp;
use reqwest::{Certificate, Client};
use sigstore_tuf::{FileStore, HttpRepository, MetadataStore, StoreRepository, Updater, UpdaterConfig};

use super::root::{MAX_ROOT_BYTES, Root};
use crate::refusal::clean;

/// A TUF repository, and where trust in it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TufRepository {
    name: String,
    url: String,
    root: Vec<u8>,
    /// Authorities for its TLS beside the system's, in PEM.
    ca_pem: Option<Vec<u8>>,
}

/// Why there is no current trust root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no current trust root from {url}: {reason}")]
pub struct RefreshError {
    url: String,
    reason: String,
}

impl TufRepository {
    /// That of Sigstore's public-good instance.
    #[must_use]
    pub fn public_good() -> Self {
        Self::custom("public-good", "https://tuf-repo-cdn.sigstore.dev", PUBLIC_GOOD_ROOT)
    }

    /// That of GitHub's instance.
    #[must_use]
    pub fn github() -> Self {
        Self::custom("github", "https://tuf-repo.github.com", GITHUB_ROOT)
    }

    /// Another, by its address and a `root.json` of it that is trusted; its trust root is called `name`.
    #[must_use]
    pub fn custom(name: &str, url: &str, root: &[u8]) -> Self {
        Self { name: name.to_owned(), url: url.to_owned(), root: root.to_owned(), ca_pem: None }
    }

    /// The same, reached by TLS with certificates of these authorities (PEM) too.
    #[must_use]
    pub fn with_authorities(self, ca_pem: Option<Vec<u8>>) -> Self {
        Self { ca_pem, ..self }
    }

    /// # Errors
    /// [`RefreshError`]: its address is none, or the authorities cannot be read.
    fn http(&self) -> Result<HttpRepository, RefreshError> {
        let http = HttpRepository::new(&self.url).map_err(|error| self.failed(&error))?;
        let Some(pem) = &self.ca_pem else { return Ok(http) };
        let authorities = Certificate::from_pem_bundle(pem).map_err(|error| self.failed(&error))?;
        if authorities.is_empty() {
            let reason = "the authorities to trust are no PEM certificates".to_owned();
            return Err(RefreshError { url: clean(&dna::redact(&self.url)), reason });
        }
        // Bounds in time against a repository that never ends its answer, as the client has without authorities.
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(READ)
            .timeout(REQUEST)
            .tls_certs_merge(authorities)
            .build()
            .map_err(|error| self.failed(&error))?;
        Ok(http.with_http_client(client))
    }

    /// What is kept of it: by address, so that several can share a folder, and a newer `root.json` finds what the older one kept.
    fn store(&self, cache: &Path) -> std::path::PathBuf {
        cache.join(Digest::sha256(self.url.trim_end_matches('/').as_bytes()).hex())
    }

    /// When what is kept was refreshed.
    fn refreshed(&self, cache: &Path) -> Option<Timestamp> {
        let text = fs::read_to_string(self.store(cache).join(REFRESHED)).ok()?;
        text.trim().parse().ok().filter(|time| *time <= Timestamp::now())
    }

    fn failed(&self, error: &(dyn std::error::Error + 'static)) -> RefreshError {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let reason = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        RefreshError { url: clean(&dna::redact(&self.url)), reason: clean(&dna::redact(&reason)) }
    }
}

/// The trust root that the repository has now. What it says is kept in `cache`, so that it cannot go back to older metadata
/// later, and for [`cached`] and [`last`]. Each of its requests ends within two minutes.
///
/// # Errors
/// [`RefreshError`] where the repository does not answer, its metadata are not signed as its root says, older than those
/// kept, or expired, and where the target is no usable trust root; what is kept is then as it was.
pub async fn refresh(from: &TufRepository, cache: &Path) -> Result<Root, RefreshError> {
    let (now, store) = (Timestamp::now(), from.store(cache));
    fs::create_dir_all(&store).map_err(|error| from.failed(&error))?;
    let updater = Updater::new(from.http()?, &from.root).map_err(|error| from.failed(&error))?;
    let pending = Pending { kept: FileStore::new(&store), new: Arc::default() };
    let root = read(from, updater.with_store(pending.clone()), now, Some(now)).await?;
    pending.keep().map_err(|error| from.failed(&error))?;
    fs::write(store.join(REFRESHED), now.to_string()).map_err(|error| from.failed(&error))?;
    Ok(root)
}

/// The trust root that the last [`refresh`] found, without the network: all that is kept is verified again, from the
/// repository's `root.json` on, as if it came from there.
///
/// # Errors
/// [`RefreshError`] where nothing is kept, it was changed, or has expired: then only a refresh helps.
pub async fn cached(from: &TufRepository, cache: &Path) -> Result<Root, RefreshError> {
    // Nobody signs when it was: for people only.
    kept(from, cache, Timestamp::now(), from.refreshed(cache)).await
}

/// The same as of when it was refreshed, though it has expired since: for who goes on with it where a refresh fails, and bounds its
/// age himself.
///
/// # Errors
/// [`RefreshError`] where nothing is kept, or it was changed.
pub async fn last(from: &TufRepository, cache: &Path) -> Result<Root, RefreshError> {
    let reason = "nothing was kept of it".to_owned();
    let nothing = || RefreshError { url: clean(&dna::redact(&from.url)), reason };
    let refreshed = from.refreshed(cache).ok_or_else(nothing)?;
    kept(from, cache, refreshed, Some(refreshed)).await
}

async fn kept(
    from: &TufRepository,
    cache: &Path,
    now: Timestamp,
    as_of: Option<Timestamp>,
) -> Result<Root, RefreshError> {
    let kept = FileStore::new(from.store(cache));
    let updater = Updater::new(StoreRepository::new(kept.clone()), &from.root).map_err(|error| from.failed(&error))?;
    read(from, updater.with_store(kept), now, as_of).await
}

async fn read(
    from: &TufRepository,
    updater: Updater,
    now: Timestamp,
    as_of: Option<Timestamp>,
) -> Result<Root, RefreshError> {
    let mut config = UpdaterConfig::default();
    config.target_max_length = u64::try_from(MAX_ROOT_BYTES).unwrap_or(u64::MAX);
    let mut updater = updater.with_config(config);
    updater.refresh(now).await.map_err(|error| from.failed(&error))?;
    let json = updater.get_target(TARGET, now).await.map_err(|error| from.failed(&error))?;
    Root::from_json(&from.name, &json, as_of).map_err(|error| from.failed(&error))
}

/// What is learned goes to the store once all of it holds: half of it would leave no trust root that can be read again.
#[derive(Clone)]
struct Pending {
    kept: FileStore,
    new: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Pending {
    fn keep(&self) -> sigstore_tuf::Result<()> {
        let new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        new.iter().try_for_each(|(name, bytes)| self.kept.store(name, bytes))
    }
}

impl MetadataStore for Pending {
    fn load(&self, name: &str) -> sigstore_tuf::Result<Option<Vec<u8>>> {
        let new = self.new.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        new.map_or_else(|| self.kept.load(name), |bytes| Ok(Some(bytes)))
    }

    fn store(&self, name: &str, bytes: &[u8]) -> sigstore_tuf::Result<()> {
        self.new.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }
}

const CONNECT: Duration = Duration::from_secs(30);
const READ: Duration = Duration::from_secs(60);
const REQUEST: Duration = Duration::from_secs(120);
const TARGET: &str = "trusted_root.json";
const REFRESHED: &str = "refreshed";
/// As the pinned sigstore-trust-root carries them; each signs its successors.
const PUBLIC_GOOD_ROOT: &[u8] = include_bytes!("../../data/tuf-public-good.json");
const GITHUB_ROOT: &[u8] = include_bytes!("../../data/tuf-github.json");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roots_that_trust_begins_with_are_signed_as_they_say() {
        for repository in [TufRepository::public_good(), TufRepository::github()] {
            let none = StoreRepository::new(sigstore_tuf::MemoryStore::new());
            assert!(Updater::new(none, &repository.root).is_ok(), "{}", repository.url);
        }
    }
}
