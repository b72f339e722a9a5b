//! Images as the ledger keeps them: by all their digests, with who vouches for them. What has not changed is written once an hour.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use dna::{Digest, Fact, SubjectFacts};
use jiff::Timestamp;
use lineage::{Document, Image, Recorder};

/// What was written of images, by image and repository.
#[derive(Default)]
pub(crate) struct Images(Mutex<HashMap<(Digest, String), (Digest, Instant)>>);

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").finish_non_exhaustive()
    }
}

impl Images {
    /// Leaves what is known of images; never waits.
    pub(crate) fn record(&self, subjects: &[SubjectFacts], recorder: &Recorder, now: Timestamp) {
        for image in subjects.iter().filter_map(|subject| image(subject, now)) {
            if self.is_new(&image) && !recorder.record(image.clone()) {
                self.forget(&image);
            }
        }
    }

    fn is_new(&self, image: &Image) -> bool {
        let facts = image.facts.as_ref().map(Document::digest);
        let said = format!("{} {:?} {:?} {facts:?}", image.platform, image.index, image.config);
        let said = Digest::sha256(said.as_bytes());
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (image.digest.clone(), image.repository.clone());
        if written.get(&key).is_some_and(|(before, at)| *before == said && at.elapsed() < AGAIN) {
            return false;
        }
        if written.len() >= MAX_WRITTEN {
            written.clear();
        }
        written.insert(key, (said, Instant::now()));
        true
    }

    fn forget(&self, image: &Image) {
        let key = (image.digest.clone(), image.repository.clone());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}

/// An image that is resolved now: what was known of it before says nothing new.
fn image(subject: &SubjectFacts, now: Timestamp) -> Option<Image> {
    let Fact::Known(resolved) = &subject.resolved else { return None };
    let named = &subject.image;
    let facts = trust::vouched(subject).and_then(|vouched| Document::pack(&serde_json::to_vec(&vouched).ok()?).ok());
    Some(Image {
        digest: resolved.platform_digest.clone(),
        repository: format!("{}/{}", named.registry, named.repository),
        platform: resolved.platform.to_string(),
        index: resolved.index_digest.clone(),
        config: resolved.config_digest.clone(),
        facts,
        at: now,
    })
}

/// When what has not changed is written again, so that its age is right.
const AGAIN: Duration = Duration::from_secs(3600);
const MAX_WRITTEN: usize = 20_000;
