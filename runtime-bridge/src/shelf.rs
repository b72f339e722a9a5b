//! What is expected of a container: from the webhook's binding, else from the ledger's DNA of its digest and the pod itself.

use std::{collections::BTreeMap, sync::Arc};

use analyzer::ConfigMaps;
use dna::{Digest, Dna, Expectation, Limits, PodSpec, RuntimeFacts};
use k8s_openapi::api::core::v1;
use lineage::{Error, Ledger};
use tracing::warn;

use crate::{Expected, identity::Container};

/// Finds expectations.
#[derive(Debug, Clone)]
pub struct Shelf {
    ledger: Ledger,
    runtime: RuntimeFacts,
    /// The rules of this analyzer: a DNA by them comes first.
    rules: Digest,
}

/// What was found for a container.
#[derive(Debug, Clone)]
pub struct Shelved {
    /// What is expected.
    pub expected: Arc<Expected>,
    /// The DNA it comes from.
    pub dna: Digest,
    /// The build steps of the image's layers, by index.
    pub steps: Vec<Option<String>>,
    /// The digest that was admitted, where the webhook bound the container.
    pub admitted: Option<Digest>,
}

impl Shelf {
    /// Over a ledger, for clusters whose runtimes are alike.
    ///
    /// # Errors
    /// The analyzer's, where its own tables do not read.
    pub fn new(ledger: Ledger, runtime: RuntimeFacts) -> Result<Self, analyzer::Error> {
        Ok(Self { ledger, runtime, rules: analyzer::rules(&Limits::default())? })
    }

    /// What is expected of a container; none where nobody knows its image's DNA.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn find(&self, container: &Container, pod: Option<&v1::Pod>) -> Result<Option<Shelved>, Error> {
        let place = &container.place;
        let bindings = self.ledger.bindings_of_pod(&place.cluster, &container.pod_uid).await?;
        let mut own = bindings.into_iter().filter(|row| row.container == place.container);
        // One for each platform the pod might have landed on: that of the digest that runs, else the first.
        let bound = own
            .clone()
            .find(|row| row.digest.as_ref().is_some_and(|digest| digest.as_str() == place.digest))
            .or_else(|| own.next());
        let admitted = bound.as_ref().and_then(|row| row.digest.clone());
        if let Some(name) = bound.as_ref().and_then(|row| row.expectation.as_ref())
            && let Some(json) = self.ledger.expectation(name).await?
        {
            match serde_json::from_slice::<Expectation>(&json) {
                Ok(expectation) => {
                    if let Some(dna) = self.dna(&expectation.dna).await? {
                        let expected = Arc::new(Expected::of_container(&dna, &expectation));
                        return Ok(Some(Shelved { expected, dna: expectation.dna, steps: steps(&dna), admitted }));
                    }
                }
                Err(error) => warn!(%error, pod = container.pod, "an expectation of another version is not used"),
            }
        }
        let digest = admitted.clone().or_else(|| place.digest.parse().ok());
        let Some(digest) = digest else { return Ok(None) };
        let links = self.ledger.dnas_of(&digest, &self.rules).await?;
        let Some(link) = links.into_iter().next() else {
            return Ok(None);
        };
        let Some(dna) = self.dna(&link.dna).await? else { return Ok(None) };
        let expected = match pod.and_then(|pod| self.bind(&dna, &link.dna, container, pod)) {
            Some(expectation) => Expected::of_container(&dna, &expectation),
            None => Expected::of_image(&dna),
        };
        Ok(Some(Shelved { expected: Arc::new(expected), dna: link.dna, steps: steps(&dna), admitted }))
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

fn steps(dna: &Dna) -> Vec<Option<String>> {
    dna.layers.iter().map(|layer| layer.created_by.clone()).collect()
}
