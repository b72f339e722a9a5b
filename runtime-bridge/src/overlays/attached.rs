//! Overlays that are attached to images in their registries: looked for when an image runs, and again while it does.
//!
//! What a signer signed who may is put into the ledger, and counts from there as one that was given to the API. What does not count is
//! said, in the log once and in [`Attached::refused`], and changes nothing. A registry that does not answer holds nothing up for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use dna::Digest;
use jiff::Timestamp;
use lineage::{Document, Ledger, MAX_OVERLAYS};
use oci::{
    Reference,
    registry::{Repository, Settings},
};
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};
use trust::{Answer, Discovery, Material, OVERLAY_PREDICATE};

use super::{Overlays, Refused, Signers, keep};

/// Finds overlays at images. Clones share what was found.
#[derive(Debug, Clone)]
pub struct Attached(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    signers: Signers,
    registries: Settings,
    /// Images that were looked at lately: whoever asks meanwhile waits for the same look.
    looked: moka::future::Cache<Digest, ()>,
    at_once: Semaphore,
    refused: Mutex<BTreeMap<Digest, Vec<NotCounted>>>,
    changed: watch::Sender<()>,
    told: watch::Receiver<Arc<Overlays>>,
}

/// Something at an image that does not count, or a place that did not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotCounted {
    /// The image.
    pub image: Digest,
    /// Where it was looked: registry and repository.
    pub repository: String,
    /// The manifest that carries it; absent where the registry did not say what there is.
    pub carrier: Option<Digest>,
    /// Why.
    pub reason: String,
}

impl Attached {
    /// Looks by these signers, those of them who may attach. `changed` is told when the ledger has a new one, `told` has what holds.
    #[must_use]
    pub fn new(
        ledger: Ledger,
        signers: &Signers,
        registries: Settings,
        changed: watch::Sender<()>,
        told: watch::Receiver<Arc<Overlays>>,
    ) -> Self {
        let looked = moka::future::Cache::builder().max_capacity(MOST).time_to_live(AGAIN).build();
        let (at_once, refused) = (Semaphore::new(AT_ONCE), Mutex::default());
        let signers = signers.attaching();
        Self(Arc::new(Inner { ledger, signers, registries, looked, at_once, refused, changed, told }))
    }

    /// What does not count, as it was found last; some of it, where there is much.
    #[must_use]
    pub fn refused(&self) -> Vec<NotCounted> {
        let refused = self.0.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.values().flatten().take(MOST_TOLD).cloned().collect()
    }

    /// Sees that overlays attached to an image hold, those that can be found within some seconds. `named` is what a pod calls the image.
    pub async fn find(&self, image: &Digest, named: &str) {
        if self.0.signers.is_empty() {
            return;
        }
        let (inner, image, named) = (Arc::clone(&self.0), image.clone(), named.to_owned());
        // Whoever waits no longer ends no look that others wait for.
        let look = tokio::spawn(async move {
            let look = inner.look(&image, &named);
            inner.looked.get_with(image.clone(), look).await;
        });
        _ = tokio::time::timeout(PATIENCE, look).await;
    }
}

impl Inner {
    async fn look(&self, image: &Digest, named: &str) {
        let Ok(_turn) = self.at_once.acquire().await else { return };
        let mut refused = Vec::new();
        for place in self.places(image, named).await {
            let repository = format!("{}/{}", place.registry(), place.repository());
            let mut not = |carrier: Option<&Digest>, reason: String| {
                let (image, repository) = (image.clone(), repository.clone());
                refused.push(NotCounted { image, repository, carrier: carrier.cloned(), reason });
            };
            let found = match Repository::open(&place, &self.registries).await {
                Ok(asked) => {
                    let asked = asked.with_deadline(Instant::now() + LIMIT);
                    trust::discover_stated(&asked, image, OVERLAY_PREDICATE).await
                }
                Err(error) => {
                    not(None, error.to_string());
                    continue;
                }
            };
            let Discovery { sources, candidates, unread, capped } = found;
            for source in sources {
                if let Answer::Unknown { reason, .. } = source.answer {
                    not(None, format!("{}: {reason}", source.place));
                }
            }
            unread.into_iter().for_each(|unread| not(Some(&unread.digest), unread.reason));
            capped.iter().for_each(|cap| {
                not(None, format!("of {} {} that are there, {} were looked at", cap.found, cap.what, cap.taken));
            });
            for candidate in candidates {
                if let Material::Bundle(bundle) = candidate.material
                    && let Err(why) = self.take(image, &repository, bundle).await
                {
                    not(Some(&candidate.origin.carrier), why);
                }
            }
        }
        self.tell(image, refused);
    }

    /// Where an image may be: the repositories in which the webhook saw it, else the one that a pod names.
    async fn places(&self, image: &Digest, named: &str) -> Vec<Reference> {
        let rows = self.ledger.images_named(image.as_str()).await.unwrap_or_default();
        let known: BTreeSet<String> =
            rows.into_iter().filter(|row| row.digest == *image).map(|row| row.repository).collect();
        let known: Vec<Reference> = known.iter().filter_map(|name| name.parse().ok()).take(MOST_PLACES).collect();
        if known.is_empty() { named.parse().into_iter().collect() } else { known }
    }

    /// Takes one that counts; it holds when this returns. Else says why not.
    async fn take(&self, image: &Digest, repository: &str, bundle: Vec<u8>) -> Result<(), String> {
        let (signers, now) = (self.signers.clone(), Timestamp::now());
        let document = Document::pack(&bundle).map_err(|error| error.to_string())?;
        let verified = tokio::task::spawn_blocking(move || signers.verify(&bundle, now)).await;
        let overlay = verified.map_err(|error| error.to_string())?.map_err(|refused| refused.to_string())?;
        if overlay.image != *image {
            return Err(Refused::OtherImage(overlay.image.clone()).to_string());
        }
        // It was said before it was found: from then on such acts are expected.
        let from = overlay.predicate.made_at.min(now);
        let by = format!("attached in {repository}");
        let kept = keep(&self.ledger, &overlay, document, &by, from).await.map_err(|error| error.to_string())?;
        let (row, is_new) = kept.ok_or_else(|| format!("{MAX_OVERLAYS} overlays hold already: revoke some"))?;
        if is_new {
            let signer = &overlay.proof.signer;
            info!(overlay = %row.id, %image, signer, repository, "an act is expected from now on: the image has an overlay");
        }
        if row.revoked.is_none() {
            self.wait(image, &row.id).await;
        }
        Ok(())
    }

    /// Waits until those who judge know of it.
    async fn wait(&self, image: &Digest, id: &Digest) {
        let mut told = self.told.clone();
        if !told.borrow().has(image, id) {
            self.changed.send_replace(());
            _ = tokio::time::timeout(PATIENCE, told.wait_for(|told| told.has(image, id))).await;
        }
    }

    /// Says what is new of what does not count.
    fn tell(&self, image: &Digest, now: Vec<NotCounted>) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let before = refused.remove(image).unwrap_or_default();
        for not in now.iter().filter(|not| !before.contains(not)) {
            let NotCounted { image, repository, carrier, reason } = not;
            match carrier {
                Some(carrier) => {
                    warn!(%image, repository, %carrier, reason, "an overlay that is attached to an image does not count");
                }
                None => warn!(%image, repository, reason, "which overlays are attached to an image is not known"),
            }
        }
        if !now.is_empty() && refused.len() < MOST_TOLD {
            refused.insert(image.clone(), now);
        }
    }
}

/// When an image is looked at again.
const AGAIN: Duration = Duration::from_secs(300);
/// How long events wait for what is attached.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for all of one repository.
const LIMIT: Duration = Duration::from_secs(20);
/// Images that are looked at at once.
const AT_ONCE: usize = 8;
/// Images that are known to have been looked at.
const MOST: u64 = 10_000;
/// Repositories of one image that are asked.
const MOST_PLACES: usize = 4;
/// Images of which something does not count, and what is told of them.
const MOST_TOLD: usize = 200;
