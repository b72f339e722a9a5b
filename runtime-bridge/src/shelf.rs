//! What is expected of a container: from the webhook's binding, else from the ledger's DNA of its digest and the pod itself.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use analyzer::ConfigMaps;
use dna::{Digest, Dna, Expectation, Limits, PodSpec, RuntimeFacts};
use k8s_openapi::api::core::v1;
use lineage::{BindingRow, Error, ImageRow, Ledger};
use tracing::warn;

use crate::{
    Expected, Wanted,
    bound::{Admitted, Bound, bound},
    identity::Container,
    overlays::Attached,
};

/// Finds expectations.
#[derive(Debug, Clone)]
pub struct Shelf {
    ledger: Ledger,
    runtime: RuntimeFacts,
    /// The rules of this analyzer: a DNA by them comes first.
    rules: Digest,
    /// What some container is compared with now, by the digest of the expectation, or of the DNA where there is none: pods of one workload have
    /// one, and it is made once.
    shared: Arc<Mutex<HashMap<Digest, Shared>>>,
    attached: Option<Attached>,
}

#[derive(Debug, Clone)]
struct Shared {
    expected: Weak<Expected>,
    dna: Digest,
    steps: Arc<[Option<String>]>,
}

/// What was found for a container.
#[derive(Debug, Clone)]
pub struct Shelved {
    /// What is expected.
    pub expected: Arc<Expected>,
    /// The DNA it comes from.
    pub dna: Digest,
    /// What the webhook bound the container to, by its name in the ledger.
    pub expectation: Option<Digest>,
    /// The build steps of the image's layers, by index.
    pub steps: Arc<[Option<String>]>,
}

/// Which image a container is of.
#[derive(Debug, Clone)]
pub struct Imaged {
    /// Whether it is the one that was admitted.
    pub bound: Bound,
    /// The digest of the platform's manifest: the admitted one's where the webhook bound the container, else that of the image that runs;
    /// absent where it is not known.
    pub image: Option<Digest>,
    rows: Vec<BindingRow>,
}

impl Shelf {
    /// Over a ledger, for clusters whose runtimes are alike.
    ///
    /// # Errors
    /// The analyzer's, where its own tables do not read.
    pub fn new(ledger: Ledger, runtime: RuntimeFacts) -> Result<Self, analyzer::Error> {
        let rules = analyzer::rules(&Limits::default())?;
        Ok(Self { ledger, runtime, rules, shared: Arc::default(), attached: None })
    }

    /// The same, with what people accepted and attached to images.
    #[must_use]
    pub fn looking(self, attached: Attached) -> Self {
        Self { attached: Some(attached), ..self }
    }

    /// Sees that what is accepted at an image is known, as far as can be found out soon. `named` is what a pod calls it.
    pub async fn overlays(&self, image: &Digest, named: &str) {
        if let Some(attached) = &self.attached {
            attached.find(image, named).await;
        }
    }

    /// Which image a container is of, and whether that is the admitted one.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn image(&self, container: &Container) -> Result<Imaged, Error> {
        let place = &container.place;
        let mut rows = self.ledger.bindings_of_pod(&place.cluster, &container.pod_uid).await?;
        rows.retain(|row| row.container == place.container);
        let named = match place.digest.as_str() {
            "" => Vec::new(),
            running => self.ledger.images_named(running).await?,
        };
        if rows.is_empty() {
            let is_one = |one: &ImageRow, other: &ImageRow| {
                one.digest == other.digest || one.config.is_some() && one.config == other.config
            };
            let image = match named.first() {
                None => place.digest.parse().ok(),
                Some(first) if named.iter().all(|row| is_one(first, row)) => Some(first.digest.clone()),
                // An index of several platforms: which one the node has, nobody said.
                Some(_) => None,
            };
            return Ok(Imaged { bound: Bound::Unbound, image, rows });
        }
        let mut admitted = Vec::new();
        for (digest, platform) in rows.iter().filter_map(|row| Some((row.digest.as_ref()?, &row.platform))) {
            let known = self.ledger.images_named(digest.as_str()).await?;
            let config = known.into_iter().find_map(|row| row.config.filter(|_| row.digest == *digest));
            admitted.push(Admitted { platform: platform.clone(), digest: digest.clone(), config });
        }
        let image = chosen(&admitted, &place.digest, &named).map(|one| one.digest.clone());
        Ok(Imaged { bound: bound(&admitted, &place.digest, &named), image, rows })
    }

    /// What is expected of a container of an image, with what rules read of it; none where nobody knows the image's DNA.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn find(
        &self,
        container: &Container,
        imaged: &Imaged,
        pod: Option<&v1::Pod>,
        wanted: Wanted,
    ) -> Result<Option<Shelved>, Error> {
        let has_all = |known: &Shelved| known.expected.keeps(wanted);
        // One for each platform the pod might have landed on: that of the image that runs, else the first.
        let own = imaged.rows.iter().find(|row| row.digest.is_some() && row.digest == imaged.image);
        if let Some(name) = own.or_else(|| imaged.rows.first()).and_then(|row| row.expectation.as_ref()) {
            if let Some(known) = self.known(name, Some(name)).filter(has_all) {
                return Ok(Some(known));
            }
            if let Some(json) = self.ledger.expectation(name).await? {
                match serde_json::from_slice::<Expectation>(&json) {
                    Ok(expectation) => {
                        if let Some(dna) = self.dna(&expectation.dna).await? {
                            let make = || Expected::of_container(&dna, &expectation);
                            let shelved = self.share(name, &expectation.dna, steps(&dna), Some(name), make);
                            shelved.expected.keep(wanted, &dna, Some(&expectation));
                            return Ok(Some(shelved));
                        }
                    }
                    Err(error) => warn!(%error, pod = container.pod, "an expectation of another version is not used"),
                }
            }
        }
        let Some(digest) = &imaged.image else { return Ok(None) };
        let links = self.ledger.dnas_of(digest, &self.rules).await?;
        let Some(link) = links.into_iter().next() else {
            return Ok(None);
        };
        // What the pod adds takes the DNA; without one, the DNA alone names what is expected.
        if pod.is_none()
            && let Some(known) = self.known(&link.dna, None).filter(has_all)
        {
            return Ok(Some(known));
        }
        let Some(dna) = self.dna(&link.dna).await? else { return Ok(None) };
        let shelved = match pod.and_then(|pod| self.bind(&dna, &link.dna, container, pod)) {
            Some(expectation) => {
                let name = serde_json::to_vec(&expectation).map(|json| Digest::sha256(&json));
                let make = || Expected::of_container(&dna, &expectation);
                let shelved = match name {
                    Ok(name) => self.share(&name, &link.dna, steps(&dna), None, make),
                    Err(_) => {
                        let expected = Arc::new(make());
                        Shelved { expected, dna: link.dna, expectation: None, steps: steps(&dna) }
                    }
                };
                shelved.expected.keep(wanted, &dna, Some(&expectation));
                shelved
            }
            None => {
                let shelved = self.share(&link.dna, &link.dna, steps(&dna), None, || Expected::of_image(&dna));
                shelved.expected.keep(wanted, &dna, None);
                shelved
            }
        };
        Ok(Some(shelved))
    }

    /// What another container is compared with already; `bound` is what the webhook bound this one to.
    fn known(&self, name: &Digest, bound: Option<&Digest>) -> Option<Shelved> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let known = shared.get(name)?;
        let expected = known.expected.upgrade()?;
        let (dna, steps) = (known.dna.clone(), Arc::clone(&known.steps));
        Some(Shelved { expected, dna, expectation: bound.cloned(), steps })
    }

    /// Makes what is expected, or takes what another container is compared with.
    fn share(
        &self,
        name: &Digest,
        dna: &Digest,
        steps: Arc<[Option<String>]>,
        bound: Option<&Digest>,
        make: impl FnOnce() -> Expected,
    ) -> Shelved {
        if let Some(known) = self.known(name, bound) {
            return known;
        }
        let expected = Arc::new(make());
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|_, known| known.expected.strong_count() > 0);
        let known = Shared { expected: Arc::downgrade(&expected), dna: dna.clone(), steps: Arc::clone(&steps) };
        shared.insert(name.clone(), known);
        Shelved { expected, dna: dna.clone(), expectation: bound.cloned(), steps }
    }

    async fn dna(&self, digest: &Digest) -> Result<Option<Dna>, Error> {
        let Some(json) = self.ledger.dna(digest).await? else { return Ok(None) };
        Ok(Dna::from_json(&json)
            .inspect_err(|error| warn!(%error, %digest, "a DNA of another version is not used"))
            .ok())
    }

    /// The DNA laid under the pod as it runs. Its ConfigMaps are not read here: what they bear on is unknown then.
    fn bind(&self, dna: &Dna, name: &Digest, container: &Container, pod: &v1::Pod) -> Option<Expectation> {
        let spec = serde_json::to_value(pod.spec.as_ref()?).ok()?;
        let spec = PodSpec::read(&spec).ok()?;
        let spec = spec.containers.iter().find(|spec| spec.name == container.place.container)?;
        let maps: ConfigMaps = BTreeMap::new();
        Some(analyzer::bind(dna, name, spec, &maps, &self.runtime, &Limits::default()))
    }
}

/// The admitted image that runs, as far as is known; else the first.
fn chosen<'a>(admitted: &'a [Admitted], running: &str, named: &[ImageRow]) -> Option<&'a Admitted> {
    let runs = |one: &&Admitted| bound(std::slice::from_ref(*one), running, named) == Bound::Same;
    admitted.iter().find(runs).or_else(|| admitted.first())
}

fn steps(dna: &Dna) -> Arc<[Option<String>]> {
    dna.layers.iter().map(|layer| layer.created_by.clone()).collect()
}
