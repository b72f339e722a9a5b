//! Everything in a registry that may prove something about a digest: all places are asked, each answers for itself. A place
//! that did not answer is never "nothing there".

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use dna::{Cause, Digest};
use futures_util::{StreamExt as _, future, stream};
use oci::{
    Descriptor, Error, Manifest,
    registry::{Lookup, Repository},
};
use serde::Serialize;

use crate::{
    candidate::{Candidate, Material},
    facts::cause,
    place::{Format, Origin, Place},
    refusal::clean,
};

/// What was found for some digests, and how well it was looked for.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Discovery {
    /// What each place answered.
    pub sources: Vec<Source>,
    /// What is to be judged; newest first within a place.
    #[serde(skip)]
    pub candidates: Vec<Candidate>,
    /// Listed, but not read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<Unread>,
    /// Caps that were reached: there is more than was looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capped: Vec<Capped>,
}

impl Discovery {
    /// Whether every place answered and everything listed was read: only then is what is missing not there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let unknown = self.sources.iter().any(|source| matches!(source.answer, Answer::Unknown { .. }));
        !unknown && self.unread.is_empty() && self.capped.is_empty()
    }
}

/// One place's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// For which digest.
    pub subject: Digest,
    /// Where.
    pub place: Place,
    /// What it said.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What a place said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "camelCase")]
pub enum Answer {
    /// It has something: so many things.
    Present {
        /// Manifests or layers listed.
        count: usize,
    },
    /// It has nothing, or the registry has no such place.
    Absent,
    /// It did not say: refused, throttled, down, or malformed.
    Unknown {
        /// Why, for rules.
        cause: Cause,
        /// Why.
        reason: String,
    },
}

/// Something listed that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unread {
    /// For which digest.
    pub subject: Digest,
    /// Where.
    pub place: Place,
    /// What.
    pub digest: Digest,
    /// Why, for rules.
    pub cause: Cause,
    /// Why.
    pub reason: String,
}

/// Why something could not be read.
struct Failure {
    cause: Cause,
    reason: String,
}

impl Failure {
    /// It is there, and not as it should be.
    fn content(reason: impl Into<String>) -> Self {
        Self { cause: Cause::Registry, reason: reason.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { cause: cause(&error), reason: error.to_string() }
    }
}

/// A cap that was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capped {
    /// For which digest.
    pub subject: Digest,
    /// Where.
    pub place: Place,
    /// Of what.
    pub what: String,
    /// How many there are.
    pub found: usize,
    /// How many were looked at.
    pub taken: usize,
}

/// Looks in all places for all `subjects`: of an image in an index the index' digest and its manifest's. Ends by the
/// repository's deadline.
pub async fn discover(repository: &Repository, subjects: &[Digest]) -> Discovery {
    let left = AtomicU64::new(MAX_TOTAL_BYTES);
    let found = subjects.iter().map(|subject| {
        let search = |place| Search { repository, subject, place, stated: None, left: &left };
        async move {
            let referrers = referrers(repository, subject, search);
            let tags = [Place::SignatureTag, Place::AttestationTag].map(|place| tag(search(place)));
            let (mut all, tags) = future::join(referrers, future::join_all(tags)).await;
            tags.into_iter().for_each(|found| all.add(found));
            all
        }
    });
    let mut all = Discovery::default();
    future::join_all(found).await.into_iter().for_each(|found| all.add(found));
    all
}

/// Looks among an image's referrers for bundles whose manifests say that they state one predicate type; others are not read.
pub async fn discover_stated(repository: &Repository, subject: &Digest, predicate_type: &str) -> Discovery {
    let left = AtomicU64::new(MAX_TOTAL_BYTES);
    let stated = Some(predicate_type);
    referrers(repository, subject, |place| Search { repository, subject, place, stated, left: &left }).await
}

/// Where is looked, for what, and how much may still be read.
#[derive(Clone, Copy)]
struct Search<'a> {
    repository: &'a Repository,
    subject: &'a Digest,
    place: Place,
    /// The one predicate type that is looked for; all of them where it is absent.
    stated: Option<&'a str>,
    left: &'a AtomicU64,
}

impl Discovery {
    fn add(&mut self, other: Self) {
        self.sources.extend(other.sources);
        self.candidates.extend(other.candidates);
        self.unread.extend(other.unread);
        self.capped.extend(other.capped);
    }

    fn answered<T>(&mut self, subject: &Digest, place: Place, lookup: Lookup<Vec<T>>) -> Vec<T> {
        let (answer, listed) = match lookup {
            Lookup::Present(listed) if listed.is_empty() => (Answer::Absent, Vec::new()),
            Lookup::Present(listed) => (Answer::Present { count: listed.len() }, listed),
            Lookup::Absent => (Answer::Absent, Vec::new()),
            Lookup::Unknown(error) => {
                (Answer::Unknown { cause: cause(&error), reason: clean(&error.to_string()) }, Vec::new())
            }
        };
        self.sources.push(Source { subject: subject.clone(), place, answer });
        listed
    }

    fn cap<T>(&mut self, subject: &Digest, place: Place, what: &str, mut listed: Vec<T>, most: usize) -> Vec<T> {
        if listed.len() > most {
            let (what, found) = (clean(what), listed.len());
            self.capped.push(Capped { subject: subject.clone(), place, what, found, taken: most });
            listed.truncate(most);
        }
        listed
    }

    fn read(&mut self, search: Search<'_>, digest: Digest, read: Result<Candidate, Failure>) {
        match read {
            Ok(candidate) => self.candidates.push(candidate),
            Err(Failure { cause, reason }) => {
                let (subject, place, reason) = (search.subject.clone(), search.place, clean(&reason));
                self.unread.push(Unread { subject, place, digest, cause, reason });
            }
        }
    }
}

async fn referrers<'a>(
    repository: &'a Repository,
    subject: &Digest,
    search: impl Fn(Place) -> Search<'a>,
) -> Discovery {
    let mut found = Discovery::default();
    let listed = repository.referrers(subject).await;
    let api = found.answered(subject, Place::ReferrersApi, listed.api);
    let mut tag = found.answered(subject, Place::ReferrersTag, listed.tag);
    tag.retain(|descriptor| api.iter().all(|other| other.digest != descriptor.digest));
    let read = [(Place::ReferrersApi, api), (Place::ReferrersTag, tag)].map(|(place, listed)| {
        let mut taken = Vec::new();
        for (what, listed) in by_type(listed) {
            taken.extend(found.cap(subject, place, &what, listed, MAX_CANDIDATES));
        }
        let taken = found.cap(subject, place, "referrers", taken, MAX_REFERRERS);
        let search = search(place);
        let read = taken.into_iter().map(move |descriptor| search.referrer(descriptor));
        stream::iter(read).buffered(PARALLEL).collect::<Vec<_>>()
    });
    for read in future::join_all(read).await.into_iter().flatten() {
        found.add(read);
    }
    found
}

/// Descriptors by what their listing calls them, each kind newest first. The listing may be wrong; it only says what is cut
/// off first.
fn by_type(listed: Vec<Descriptor>) -> Vec<(String, Vec<Descriptor>)> {
    let mut kinds: Vec<(String, Vec<Descriptor>)> = Vec::new();
    for descriptor in listed {
        let kind = descriptor.annotations.get(PREDICATE_TYPE).or(descriptor.artifact_type.as_ref());
        let kind = kind.map_or("referrers", String::as_str);
        match kinds.iter_mut().find(|(known, _)| known == kind) {
            Some((_, descriptors)) => descriptors.push(descriptor),
            None => kinds.push((kind.to_owned(), vec![descriptor])),
        }
    }
    for (_, descriptors) in &mut kinds {
        descriptors.sort_by(|a, b| b.annotations.get(CREATED).cmp(&a.annotations.get(CREATED)));
    }
    kinds
}

/// What a tag of cosign 1 and 2 carries: a layer each.
async fn tag(search: Search<'_>) -> Discovery {
    let Search { repository, subject, place, .. } = search;
    let mut found = Discovery::default();
    let suffix = if place == Place::SignatureTag { "sig" } else { "att" };
    let tag = format!("{}-{}.{suffix}", subject.algorithm(), subject.hex());
    let layers = match repository.manifest(&tag).await {
        Lookup::Present((_, bytes)) => match serde_json::from_slice::<Manifest>(&bytes) {
            Ok(manifest) => Lookup::Present(manifest.layers),
            Err(error) => {
                let what = format!("{}:{tag}", repository.reference());
                Lookup::Unknown(Error::Malformed { what, reason: format!("it is no manifest: {error}") })
            }
        },
        Lookup::Absent => Lookup::Absent,
        Lookup::Unknown(error) => Lookup::Unknown(error),
    };
    let layers = found.answered(subject, place, layers);
    found.add(search.layers(layers).await);
    found
}

/// What a referrer's manifest is.
enum Carrier {
    /// One bundle's.
    Bundle(Descriptor),
    /// cosign's experimental variant, which keeps signatures as it did at tags.
    Layers(Vec<Descriptor>),
    /// Notation's.
    Notation,
    /// No signature's: a bill of materials, say.
    Other,
}

impl Search<'_> {
    /// What one referrer carries.
    async fn referrer(self, descriptor: Descriptor) -> Discovery {
        let mut found = Discovery::default();
        let digest = descriptor.digest.clone();
        match self.carrier(&descriptor).await {
            Err(failure) => found.read(self, digest, Err(failure)),
            Ok(Carrier::Other) => {}
            Ok(Carrier::Notation) => {
                let material = Material::Other(NOTATION.to_owned());
                found.candidates.push(Candidate { origin: self.origin(&digest, Format::Other), material });
            }
            Ok(Carrier::Layers(layers)) => return self.layers(layers).await,
            Ok(Carrier::Bundle(layer)) => {
                let origin = self.origin(&digest, Format::Bundle);
                let read = self.blob(&layer).await;
                found.read(self, digest, read.map(|json| Candidate { origin, material: Material::Bundle(json) }));
            }
        }
        found
    }

    /// What a referrer is. Registries list other artifact types than the manifest has, so that each is opened.
    async fn carrier(self, descriptor: &Descriptor) -> Result<Carrier, Failure> {
        let says = |annotations: &BTreeMap<String, String>| annotations.get(PREDICATE_TYPE).cloned();
        let is_other = |said: Option<String>| self.stated.is_some() && said.as_deref() != self.stated;
        // A listing without annotations does not say.
        if says(&descriptor.annotations).is_some_and(|said| is_other(Some(said))) {
            return Ok(Carrier::Other);
        }
        if descriptor.artifact_type.as_deref() == Some(NOTATION) {
            return Ok(Carrier::Notation);
        }
        let manifest = self.repository.manifest(descriptor.digest.as_str()).await.known()?;
        let (_, bytes) = manifest.ok_or_else(|| Failure::content("listed, but not there"))?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| Failure::content(format!("it is no manifest: {error}")))?;
        if is_other(says(&manifest.annotations)) {
            return Ok(Carrier::Other);
        }
        match manifest.artifact_type.as_deref().unwrap_or(&manifest.config.media_type) {
            NOTATION => return Ok(Carrier::Notation),
            EXPERIMENTAL => return Ok(Carrier::Layers(manifest.layers)),
            _ => {}
        }
        // cosign writes one; more would be someone else's.
        let mut layers = manifest.layers.into_iter().filter(|layer| layer.media_type.starts_with(BUNDLE));
        match (layers.next(), layers.next()) {
            (None, _) => Ok(Carrier::Other),
            (Some(_), Some(_)) => Err(Failure::content("it holds more than one bundle")),
            (Some(layer), None) => Ok(Carrier::Bundle(layer)),
        }
    }

    /// What the layers of cosign 1 and 2 carry; a new one is added at the end.
    async fn layers(self, layers: Vec<Descriptor>) -> Discovery {
        let mut found = Discovery::default();
        let newest = layers.into_iter().rev().collect();
        let newest = found.cap(self.subject, self.place, "layers", newest, MAX_CANDIDATES);
        let read = newest.into_iter().map(|layer| async move {
            let digest = layer.digest.clone();
            (digest, self.layer(layer).await)
        });
        let read: Vec<_> = stream::iter(read).buffered(PARALLEL).collect().await;
        read.into_iter().for_each(|(digest, read)| found.read(self, digest, read));
        found
    }

    /// What a layer of cosign 1 and 2 carries.
    async fn layer(self, layer: Descriptor) -> Result<Candidate, Failure> {
        let (format, make): (_, fn(Vec<u8>, _) -> Material) = match layer.media_type.as_str() {
            SIMPLE_SIGNING => (Format::SimpleSigning, Material::SimpleSigning),
            ENVELOPE => (Format::Envelope, Material::Envelope),
            other => {
                let origin = self.origin(&layer.digest, Format::Other);
                return Ok(Candidate { origin, material: Material::Other(clean(other)) });
            }
        };
        let bytes = self.blob(&layer).await?;
        Ok(Candidate { origin: self.origin(&layer.digest, format), material: make(bytes, layer.annotations) })
    }

    async fn blob(self, layer: &Descriptor) -> Result<Vec<u8>, Failure> {
        if layer.size > MAX_BYTES {
            return Err(Failure::content(format!("it has {} bytes, more than {MAX_BYTES}", layer.size)));
        }
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(layer.size));
        if taken.is_err() {
            return Err(Failure::content(format!("all that is listed has more than {MAX_TOTAL_BYTES} bytes")));
        }
        let found = self.repository.blob(&layer.digest, layer.size).await.known()?;
        found.ok_or_else(|| Failure::content("its content is not there"))
    }

    fn origin(self, carrier: &Digest, format: Format) -> Origin {
        Origin { subject: self.subject.clone(), place: self.place, carrier: carrier.clone(), format }
    }
}

pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
pub(crate) const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";
pub(crate) const CREATED: &str = "org.opencontainers.image.created";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
const EXPERIMENTAL: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const NOTATION: &str = "application/vnd.cncf.notary.signature";
/// Of each kind; who signs nightly has as many in two months.
const MAX_CANDIDATES: usize = 50;
/// Of all kinds of referrers together: a listing may make up a kind for each.
const MAX_REFERRERS: usize = 400;
/// The largest SBOM attestations seen have some MiB.
pub(crate) const MAX_BYTES: u64 = 16 << 20;
/// What is read for one image; the rest is told as unread.
const MAX_TOTAL_BYTES: u64 = 64 << 20;
/// Requests at once for one subject and place.
const PARALLEL: usize = 8;
