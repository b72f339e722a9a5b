//! Trust roots that are renewed from TUF repositories, in the background: no review waits for one.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use policies::kinds::Refresh;
use tracing::{info, warn};
use trust::{RefreshError, Root, TufRepository};

use crate::service::Service;

/// A trust root as a repository had it, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// `trusted_root.json`.
    pub json: String,
    /// When the repository said so.
    pub as_of: Timestamp,
}

/// Those that were renewed, by the name of their `SignerTrust` and where they come from: another repository is another root.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roots(Arc<Mutex<BTreeMap<(String, Refresh), Renewed>>>);

impl Roots {
    /// What is to be used for a `SignerTrust` in place of what it says.
    pub(crate) fn renewed(&self, name: &str, refresh: &Refresh) -> Option<Renewed> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(name.to_owned(), refresh.clone())).cloned()
    }

    fn keep(&self, name: &str, refresh: &Refresh, root: &Root) {
        let Ok(json) = String::from_utf8(root.json().to_vec()) else { return };
        let renewed = Renewed { json, as_of: root.facts().as_of.unwrap_or_else(Timestamp::now) };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((name.to_owned(), refresh.clone()), renewed);
    }

    /// Renews all that rules name, each as often as it says, until `ended`. `folder` keeps what repositories said, so that they cannot go
    /// back behind it.
    pub(crate) async fn keep_renewing(self, service: Arc<Service>, folder: PathBuf, ended: impl Future<Output = ()>) {
        let renewing = async {
            let mut due: BTreeMap<(String, Refresh), Instant> = BTreeMap::new();
            loop {
                let book = service.rulebook.load_full();
                let trusts = book.iter().flat_map(|book| book.rules.trusts());
                let wanted: Vec<_> =
                    trusts.filter_map(|(name, spec)| Some((name.clone(), spec.refresh.clone()?))).collect();
                due.retain(|key, _| wanted.contains(key));
                for (name, refresh) in wanted {
                    let key = (name, refresh);
                    let is_new = !due.contains_key(&key);
                    if due.get(&key).is_some_and(|due| *due > Instant::now()) {
                        continue;
                    }
                    let (name, refresh) = &key;
                    let repository = TufRepository::custom(name, &refresh.tuf, refresh.root.as_bytes());
                    let next = match self.renew(&repository, &key, &folder, is_new).await {
                        Ok(()) => every(refresh),
                        Err(error) => {
                            warn!(trust = name, %error, "a trust root is not renewed; what is known of it stays in use");
                            AGAIN
                        }
                    };
                    due.insert(key, Instant::now() + next);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = renewing => {}
            () = ended => {}
        }
    }

    async fn renew(
        &self,
        repository: &TufRepository,
        (name, refresh): &(String, Refresh),
        folder: &std::path::Path,
        is_new: bool,
    ) -> Result<(), RefreshError> {
        // What the last process learned is newer than what the rule says, and there at once.
        if is_new && let Ok(root) = trust::cached(repository, folder).await {
            self.keep(name, refresh, &root);
        }
        let root = trust::refresh(repository, folder).await?;
        info!(trust = name, digest = %root.facts().digest, "a trust root is renewed");
        self.keep(name, refresh, &root);
        Ok(())
    }
}

fn every(refresh: &Refresh) -> Duration {
    let said = refresh.every.as_deref().and_then(|text| text.parse::<SignedDuration>().ok());
    said.and_then(|every| Duration::try_from(every).ok()).map_or(EVERY, |every| every.max(LOOK))
}

/// A repository's timestamp is good for days.
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// After a failure.
const AGAIN: Duration = Duration::from_secs(600);

/// How often it is seen what is due.
const LOOK: Duration = Duration::from_secs(5);
