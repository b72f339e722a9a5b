//! What the ledger knows that explains an alert: DNAs in outline, the commits an image was built from, the image before it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use dna::{Commit, Difference, Digest, Dna, Expectation, Outline, Vouched};
use lineage::{Error, ImageRow, Ledger};
use moka::future::Cache;

use crate::{
    alert::Place,
    engine::Found,
    grounds::{self, Changed, Grounds},
    known::Context,
};

/// Explains alerts. What was read is kept for the next one: an intrusion makes many alerts of one image.
#[derive(Debug, Clone)]
pub struct Explainer {
    ledger: Ledger,
    outlines: Cache<(Digest, Option<Digest>), Option<Arc<Outline>>>,
    images: Cache<(String, String), Option<Arc<Image>>>,
    differences: Cache<(Digest, Digest), Arc<[Difference]>>,
}

/// What is known of an image.
#[derive(Debug)]
struct Image {
    row: ImageRow,
    commits: Vec<Commit>,
    before: Option<ImageRow>,
}

impl Explainer {
    /// Over a ledger.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            outlines: Cache::new(MOST_OUTLINES),
            images: Cache::builder().max_capacity(MOST_IMAGES).time_to_live(HOLDS).build(),
            differences: Cache::new(MOST_OUTLINES),
        }
    }

    /// What a deviation rests on; none where the ledger does not say now.
    pub async fn grounds(&self, found: &Found, context: &Context) -> Option<Grounds> {
        match self.read(found, context).await {
            Ok(grounds) => Some(grounds),
            Err(error) => {
                tracing::warn!(%error, "an alert is not explained yet");
                None
            }
        }
    }

    async fn read(&self, found: &Found, context: &Context) -> Result<Grounds, Error> {
        let deviation = &found.deviation;
        let outline = match &context.dna {
            Some(dna) => self.outline(dna, context.expectation.as_ref()).await?,
            None => None,
        };
        let file = outline.as_deref().and_then(|outline| {
            let exe = found.activity.process.exe.as_deref();
            grounds::file(deviation, exe, outline)
        });
        let image = self.image(&found.container.place).await?;
        let changed = match (&image, &context.dna) {
            (Some(image), dna) => {
                self.changed(image, dna.as_ref(), |all| grounds::bearing(deviation, file.as_ref(), all)).await?
            }
            (None, _) => None,
        };
        Ok(Grounds {
            dna: context.dna.clone(),
            item: outline.as_deref().and_then(|outline| grounds::item(deviation, outline)),
            file,
            commits: image.map(|image| image.commits.clone()).unwrap_or_default(),
            changed,
            image_unknown: context.image_unknown.clone(),
        })
    }

    /// A DNA in outline, with the behavior that a pod's container is bound to.
    async fn outline(&self, dna: &Digest, bound: Option<&Digest>) -> Result<Option<Arc<Outline>>, Error> {
        let key = (dna.clone(), bound.cloned());
        if let Some(known) = self.outlines.get(&key).await {
            return Ok(known);
        }
        let json = self.ledger.dna(dna).await?;
        let expectation = match bound {
            Some(bound) => self.ledger.expectation(bound).await?,
            None => None,
        };
        let outlined = tokio::task::spawn_blocking(move || {
            let dna = Dna::from_json(&json?).ok()?;
            let expectation: Option<Expectation> = expectation.and_then(|json| serde_json::from_slice(&json).ok());
            let behavior = expectation.as_ref().map_or(&dna.behavior, |expectation| &expectation.behavior);
            Some(Arc::new(Outline::of(&dna, behavior)))
        });
        let outline = outlined.await.ok().flatten();
        self.outlines.insert(key, outline.clone()).await;
        Ok(outline)
    }

    /// The image of a place, in the repository that the pod names.
    async fn image(&self, place: &Place) -> Result<Option<Arc<Image>>, Error> {
        if place.digest.is_empty() {
            return Ok(None);
        }
        let key = (place.digest.clone(), place.image.clone());
        if let Some(known) = self.images.get(&key).await {
            return Ok(known);
        }
        let rows = self.ledger.images_named(&place.digest).await?;
        let named: Option<oci::Reference> = place.image.parse().ok();
        let repository = named.map(|named| format!("{}/{}", named.registry(), named.repository()));
        let is_named = |row: &ImageRow| Some(&row.repository) == repository.as_ref();
        // Elsewhere only where nobody saw it there: a mirror, another name of the registry.
        let row = rows.iter().find(|row| is_named(row)).or_else(|| rows.iter().max_by_key(|row| row.last_at)).cloned();
        let image = match row {
            None => None,
            Some(row) => {
                let commits: BTreeSet<Commit> = rows
                    .iter()
                    .filter(|other| other.digest == row.digest)
                    .filter_map(vouched)
                    .flat_map(|vouched| vouched.commits)
                    .collect();
                let before = self.ledger.image_before(&row).await?;
                Some(Arc::new(Image { row, commits: commits.into_iter().take(MOST_COMMITS).collect(), before }))
            }
        };
        self.images.insert(key, image.clone()).await;
        Ok(image)
    }

    /// What changed against the image before; `dna` is that of this one.
    async fn changed(
        &self,
        image: &Image,
        dna: Option<&Digest>,
        bearing: impl Fn(&[Difference]) -> Vec<Difference>,
    ) -> Result<Option<Changed>, Error> {
        let Some(before) = &image.before else { return Ok(None) };
        let links = self.ledger.dnas_of(&before.digest, &before.digest).await?;
        let all = match (dna, links.first()) {
            (Some(dna), Some(link)) => self.differences(&link.dna, dna).await?,
            _ => None,
        };
        Ok(Some(Changed {
            repository: image.row.repository.clone(),
            before: before.digest.clone(),
            before_at: before.first_at,
            at: image.row.first_at,
            bearing: all.as_deref().map(bearing).unwrap_or_default(),
            all: all.map(|all| all.len() as u64),
        }))
    }

    /// What differs between two images as they are, whatever pods make of them.
    async fn differences(&self, before: &Digest, after: &Digest) -> Result<Option<Arc<[Difference]>>, Error> {
        let key = (before.clone(), after.clone());
        if let Some(known) = self.differences.get(&key).await {
            return Ok(Some(known));
        }
        let (Some(one), Some(other)) = (self.outline(before, None).await?, self.outline(after, None).await?) else {
            return Ok(None);
        };
        let all: Arc<[Difference]> = one.differences(&other).into();
        self.differences.insert(key, Arc::clone(&all)).await;
        Ok(Some(all))
    }
}

/// What was verified of an image, where anybody looked.
#[must_use]
pub fn vouched(row: &ImageRow) -> Option<Vouched> {
    let json = row.facts.as_ref()?.unpack();
    let read = json
        .map_err(|error| error.to_string())
        .and_then(|json| serde_json::from_slice(&json).map_err(|error| error.to_string()));
    read.inspect_err(|error| tracing::warn!(error, image = %row.digest, "who vouches for an image cannot be read")).ok()
}

/// DNAs in outline, of half a megabyte or so each.
const MOST_OUTLINES: u64 = 16;
const MOST_IMAGES: u64 = 4096;
const MOST_COMMITS: usize = 8;
/// What is known of an image grows.
const HOLDS: Duration = Duration::from_secs(60);

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
