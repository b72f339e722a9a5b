//! Trust roots kept current: from the TUF repository of an instance, whose signed metadata say what the current
//! `trusted_root.json` is. In the background, or by a command; a verification never comes here. Source: The Update
//! Framework, specification 1.0.

use std::{fs, path::Path};

use dna::Digest;
use jiff::Timestamp;
use sigstore_tuf::{FileStore, HttpRepository, StoreRepository, Updater, UpdaterConfig};

use super::root::{MAX_ROOT_BYTES, Root};
use crate::refusal::clean;

/// A TUF repository, and where trust in it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TufRepository {
    name: String,
    url: String,
    root: Vec<u8>,
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
        Self { name: name.to_owned(), url: url.to_owned(), root: root.to_owned() }
    }

    /// What is kept of it: by address, so that several can share a folder, and a newer `root.json` finds what the older one kept.
    fn store(&self, cache: &Path) -> std::path::PathBuf {
        cache.join(Digest::sha256(self.url.trim_end_matches('/').as_bytes()).hex())
    }

    fn failed(&self, error: &(dyn std::error::Error + 'static)) -> RefreshError {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let reason = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        RefreshError { url: clean(&dna::redact(&self.url)), reason: clean(&dna::redact(&reason)) }
    }
}

/// The trust root that the repository has now. What it says is kept in `cache`, so that it cannot go back to older metadata
/// later, and for [`cached`]. Each of its requests ends within two minutes.
///
/// # Errors
/// [`RefreshError`] where the repository does not answer, its metadata are not signed as its root says, older than those
/// kept, or expired, and where the target is no usable trust root.
pub async fn refresh(from: &TufRepository, cache: &Path) -> Result<Root, RefreshError> {
    let (now, store) = (Timestamp::now(), from.store(cache));
    fs::create_dir_all(&store).map_err(|error| from.failed(&error))?;
    let http = HttpRepository::new(&from.url).map_err(|error| from.failed(&error))?;
    let updater = Updater::new(http, &from.root).map_err(|error| from.failed(&error))?;
    let root = read(from, updater.with_store(FileStore::new(&store)), now, Some(now)).await?;
    fs::write(store.join(REFRESHED), now.to_string()).map_err(|error| from.failed(&error))?;
    Ok(root)
}

/// The trust root that the last [`refresh`] found, without the network: all that is kept is verified again, from the
/// repository's `root.json` on, as if it came from there.
///
/// # Errors
/// [`RefreshError`] where nothing is kept, it was changed, or has expired: then only a refresh helps.
pub async fn cached(from: &TufRepository, cache: &Path) -> Result<Root, RefreshError> {
    let (now, store) = (Timestamp::now(), from.store(cache));
    let kept = FileStore::new(&store);
    let updater = Updater::new(StoreRepository::new(kept.clone()), &from.root).map_err(|error| from.failed(&error))?;
    // Nobody signs when it was: for people only.
    let refreshed = fs::read_to_string(store.join(REFRESHED)).ok().and_then(|time| time.trim().parse().ok());
    read(from, updater.with_store(kept), now, refreshed.filter(|time| *time <= now)).await
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
