//! An image in a registry, by digest: what commands about signatures start from.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use dna::{Digest, Platform};
use oci::{
    Descriptor, Index, Reference, Source,
    registry::{Hosts, Repository, Settings},
};

use crate::{analyze, args};

/// An image, or an index of several.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) repository: Repository,
    /// What the reference names.
    pub(crate) root: Descriptor,
    /// Of an index, its images; BuildKit's attestations are none.
    pub(crate) images: Vec<Descriptor>,
}

impl Remote {
    /// Asks what `text` names.
    pub(crate) async fn resolve(text: &str, settings: &Settings, limit: Duration) -> anyhow::Result<Self> {
        let reference = reference(text)?;
        let repository = Repository::open(&reference, settings).await?.with_deadline(Instant::now() + limit);
        let name = reference.wanted();
        let found = repository.manifest(name).await.known()?;
        let (root, bytes) = found.with_context(|| format!("{reference} is not found"))?;
        let index = serde_json::from_slice::<Index>(&bytes).ok().filter(|index| !index.manifests.is_empty());
        let images = index.map(|index| index.manifests).unwrap_or_default();
        let images = images.into_iter().filter(|image| platform(image).is_some()).collect();
        Ok(Self { repository, root, images })
    }

    /// What was named, by its digest: what happens to the tag meanwhile does not matter.
    pub(crate) fn pinned(&self) -> String {
        let reference = self.repository.reference();
        format!("docker://{}/{}@{}", reference.registry(), reference.repository(), self.root.digest)
    }

    /// The same, asked until `limit` from now.
    pub(crate) fn again(self, limit: Duration) -> Self {
        Self { repository: self.repository.with_deadline(Instant::now() + limit), ..self }
    }

    /// The digests whose proof counts for one platform: the index' and its image's.
    pub(crate) fn subjects(&self, wanted: Option<&Platform>) -> anyhow::Result<Vec<Digest>> {
        if self.images.is_empty() {
            return Ok(vec![self.root.digest.clone()]);
        }
        let wanted = wanted.cloned().unwrap_or_else(Platform::host);
        let image = self.images.iter().find(|image| platform(image).is_some_and(|platform| serves(&platform, &wanted)));
        let Some(image) = image else {
            let names: Vec<_> = self.images.iter().filter_map(platform).map(|platform| platform.to_string()).collect();
            bail!(
                "{} has no image for {wanted}; choose with --platform: {}",
                self.repository.reference(),
                names.join(", ")
            );
        };
        Ok(vec![self.root.digest.clone(), image.digest.clone()])
    }
}

fn serves(platform: &Platform, wanted: &Platform) -> bool {
    (platform.os(), platform.architecture()) == (wanted.os(), wanted.architecture())
        && (wanted.variant().is_none() || platform.variant() == wanted.variant())
}

/// The platform of an index' image; none for what is no image.
pub(crate) fn platform(image: &Descriptor) -> Option<Platform> {
    let platform = image.platform.as_ref().filter(|platform| !matches!(platform.os.as_str(), "" | "unknown"))?;
    Some(Platform::new(&platform.os, &platform.architecture, platform.variant.as_deref()))
}

/// How registries are reached, as the arguments say.
pub(crate) fn settings(args: &args::Registry) -> anyhow::Result<Settings> {
    let hosts = args.registries.as_deref().map(Hosts::read).transpose()?.unwrap_or_default();
    Ok(Settings { plain_http: args.plain_http, ca_file: args.ca_file.clone(), hosts, ..Settings::default() })
}

/// A reference to a registry, for commands that need one.
pub(crate) fn reference(text: &str) -> anyhow::Result<Reference> {
    match analyze::source(text)? {
        Source::Registry(reference) => Ok(reference),
        other => bail!("{other} is not in a registry, where signatures are kept: name a REFERENCE"),
    }
}

/// Ends work that takes longer than `limit`; what asks the registry only has that limit itself, and then says where it was.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let late = || format!("it was not done within {} seconds: give it more with --timeout", limit.as_secs());
    tokio::time::timeout(limit.saturating_add(GRACE), work).await.with_context(late)?
}

/// Runs what needs the network.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("cannot start the network runtime")?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

/// For a limit within to be told first.
const GRACE: Duration = Duration::from_secs(1);
