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

    /// Renews all that rules name, each as often as it says, until `ended`.
    pub(crate) async fn keep_renewing(self, service: Arc<Service>, reached: Reached, ended: impl Future<Output = ()>) {
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
                    let next = match self.renew(&key, &reached, is_new).await {
                        Ok(()) => every(refresh),
                        Err(error) => {
                            let as_of = self.renewed(name, refresh).map(|root| root.as_of.to_string());
                            let as_of = as_of.as_deref().unwrap_or("the rule's own");
                            warn!(trust = name, %error, as_of, "a trust root is not renewed; what is known of it stays in use");
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

    async fn renew(&self, key: &(String, Refresh), reached: &Reached, is_new: bool) -> Result<(), RefreshError> {
        let (name, refresh) = key;
        let repository = TufRepository::custom(name, &refresh.tuf, refresh.root.as_bytes());
        // What the last process learned is newer than what the rule says, and there at once; its age is bounded as any root's is.
        if is_new && let Ok(root) = trust::last(&repository, &reached.folder).await {
            self.keep(name, refresh, &root);
        }
        // Read each time, as for registries: it may be renewed. One that cannot be read is told by what then cannot be reached.
        let authorities = reached.ca_file.as_ref().and_then(|file| std::fs::read(file).ok());
        let root = trust::refresh(&repository.with_authorities(authorities), &reached.folder).await?;
        info!(trust = name, digest = %root.facts().digest, "a trust root is renewed");
        self.keep(name, refresh, &root);
        Ok(())
    }
}

/// How repositories are reached.
#[derive(Debug, Clone)]
pub(crate) struct Reached {
    /// Keeps what they said, so that they cannot go back behind it.
    pub(crate) folder: PathBuf,
    /// PEM of authorities to trust beside the system's.
    pub(crate) ca_file: Option<PathBuf>,
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

#[cfg(test)]
mod tests {
    use policies::{Rules, kinds::Refresh};
    use serde_json::json;
    use sigstore_instance::tuf::{LATER, PAST, Repository, Server};

    use super::*;
    use crate::rulebook::{Beside, Rulebook};

    const RULE: &str = "corp";

    struct World {
        server: Server,
        reached: Reached,
        key: (String, Refresh),
        _folder: tempfile::TempDir,
    }

    impl World {
        fn new(repository: &Repository) -> Self {
            let server = Server::start_tls();
            let folder = tempfile::tempdir().expect("a folder");
            let ca_file = folder.path().join("ca.pem");
            std::fs::write(&ca_file, server.ca_pem()).expect("written");
            let root = String::from_utf8(repository.root().to_vec()).expect("JSON");
            let refresh = serde_json::from_value(json!({"tuf": server.url(), "every": "1h", "root": root}));
            let reached = Reached { folder: folder.path().join("trust"), ca_file: Some(ca_file) };
            Self { server, reached, key: (RULE.to_owned(), refresh.expect("how")), _folder: folder }
        }

        async fn renew(&self, roots: &Roots, is_new: bool) -> Result<(), String> {
            roots.renew(&self.key, &self.reached, is_new).await.map_err(|error| error.to_string())
        }

        fn known(&self, roots: &Roots) -> Option<Renewed> {
            roots.renewed(&self.key.0, &self.key.1)
        }
    }

    fn instance() -> String {
        sigstore_instance::Instance::new().trusted_root()
    }

    #[tokio::test]
    async fn a_trust_root_follows_its_repository_through_a_rotation_of_its_keys() {
        let (first, second) = (instance(), instance());
        let mut repository = Repository::new(&first);
        let (world, roots) = (World::new(&repository), Roots::default());
        assert!(world.renew(&roots, true).await.is_err() && world.known(&roots).is_none());
        world.server.serve(Some(repository.files()));
        world.renew(&roots, true).await.expect("renewed");
        assert_eq!(world.known(&roots).expect("known").json, first);
        // New keys, which the old ones signed; and twice, so that a process that was away has two steps to take.
        for trusted in [&first, &second] {
            repository.rotate();
            repository.publish(trusted, LATER);
        }
        world.server.serve(Some(repository.files()));
        world.renew(&roots, false).await.expect("renewed");
        assert_eq!(world.known(&roots).expect("known").json, second);
        // Keys that nobody vouches for.
        let mut foreign = Repository::new(&first);
        (0..4).for_each(|_| foreign.rotate());
        foreign.publish(&first, LATER);
        world.server.serve(Some(foreign.files()));
        assert!(world.renew(&roots, false).await.is_err());
        assert_eq!(world.known(&roots).expect("known").json, second);
    }

    #[tokio::test]
    async fn what_is_expired_or_tampered_with_leaves_the_last_root_and_a_restart_finds_it() {
        let (first, second) = (instance(), instance());
        let mut repository = Repository::new(&first);
        let (world, roots) = (World::new(&repository), Roots::default());
        world.server.serve(Some(repository.files()));
        world.renew(&roots, true).await.expect("renewed");
        let before = world.known(&roots).expect("known");

        repository.publish(&second, PAST);
        world.server.serve(Some(repository.files()));
        let why = world.renew(&roots, false).await.expect_err("expired");
        assert!(why.contains("expired"), "{why}");
        repository.publish(&second, LATER);
        let mut files = repository.files();
        // As long as the one that is vouched for: a longer one is refused before its bytes are looked at.
        files.insert("/targets/trusted_root.json".to_owned(), second.replacen('a', "b", 1).into_bytes());
        world.server.serve(Some(files));
        let why = world.renew(&roots, false).await.expect_err("another target");
        assert!(why.contains("integrity"), "{why}");
        assert_eq!(world.known(&roots), Some(before.clone()));

        // Another process: the repository is away, and what was kept is there, as old as it is.
        world.server.serve(None);
        let restarted = Roots::default();
        assert!(world.renew(&restarted, true).await.is_err());
        let after = world.known(&restarted).expect("what was kept");
        assert_eq!((&after.json, after.as_of.as_second()), (&before.json, before.as_of.as_second()));
        // Nor is what was kept believed where somebody changed it.
        let kept =
            std::fs::read_dir(&world.reached.folder).expect("a folder").next().expect("one").expect("one").path();
        std::fs::write(kept.join("targets/trusted_root.json"), &second).expect("written");
        let restarted = Roots::default();
        assert!(world.renew(&restarted, true).await.is_err() && world.known(&restarted).is_none());
    }

    #[tokio::test]
    async fn without_its_authority_a_repository_is_not_reached() {
        let trusted = instance();
        let repository = Repository::new(&trusted);
        let (mut world, roots) = (World::new(&repository), Roots::default());
        world.server.serve(Some(repository.files()));
        world.reached.ca_file = None;
        assert!(world.renew(&roots, true).await.is_err() && world.known(&roots).is_none());
    }

    #[tokio::test]
    async fn a_root_that_grows_old_is_told_by_its_age_and_ends_at_its_bound() {
        let trusted = instance();
        let repository = Repository::new(&trusted);
        let (world, roots) = (World::new(&repository), Roots::default());
        world.server.serve(Some(repository.files()));
        world.renew(&roots, true).await.expect("renewed");
        let (_, refresh) = &world.key;
        let objects = [
            json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": "SignerTrust", "metadata": {"name": RULE},
                "spec": {"trustedRoot": trusted, "maxAge": "48h", "refresh": refresh}}),
            json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": "ClusterImageRule", "metadata": {"name": "signed"}, "spec": {
                "signers": [{"name": "ci", "keyless": {"trust": RULE, "identities": [{"issuer": "https://i", "subject": "s"}]}}],
                "require": {"signatures": {"anyOf": ["ci"]}}}}),
        ];
        let renewed = world.known(&roots).expect("known");
        let book = |hours: i64| {
            let (rules, problems) = Rules::from_objects(&objects);
            assert!(problems.is_empty(), "{problems:?}");
            let beside = Beside { renewed: [(RULE.to_owned(), renewed.clone())].into(), ..Beside::default() };
            Rulebook::new(rules, Vec::new(), &beside, renewed.as_of + SignedDuration::from_hours(hours))
        };
        let fresh = book(47);
        assert_eq!(fresh.roots_as_of, Some(renewed.as_of), "the metric counts from here");
        let ids = fresh.rules.signers(&policies::Material::default()).into_keys().collect();
        assert!(fresh.signers(&ids).1.is_empty(), "it is in use");
        let (_, gaps) = book(49).signers(&ids);
        assert!(gaps.iter().all(|gap| gap.cause == dna::Cause::TrustExpired) && !gaps.is_empty(), "{gaps:?}");
        assert!(gaps.iter().any(|gap| gap.detail.contains("older than its maxAge")), "{gaps:?}");
    }
}
