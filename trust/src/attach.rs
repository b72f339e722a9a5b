//! A bundle onto an image: pushed as a referrer, listed where the registry does not list it itself, and in place of the same
//! signer's older one. Sources: cosign, `specs/BUNDLE_SPEC.md`; OCI distribution specification, "Pushing Manifests with
//! Subject".

use std::collections::BTreeMap;

use dna::Digest;
use jiff::Timestamp;
use oci::{
    Descriptor, Error, Index, Manifest, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST,
    registry::{Deletion, Lookup, Repository, referrers_tag},
};
use serde::Serialize;

use crate::{
    discover::{BUNDLE, CREATED, MAX_BYTES, PREDICATE_TYPE},
    evidence::Evidence,
    place::Place,
    sigstore::{self, Made, PublicKey},
};

/// What became of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// What it is about.
    pub subject: Digest,
    /// The manifest that carries it.
    pub manifest: Digest,
    /// The same signer's same statement was there already: nothing was pushed.
    pub unchanged: bool,
    /// Where it is listed.
    pub listed: Vec<Place>,
    /// The same signer's older statements of this type: no longer listed at the tag, and deleted where the registry lets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<Replaced>,
}

/// An older statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replaced {
    /// The manifest that carried it.
    pub manifest: Digest,
    /// Whether it is gone; else why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// What becomes of the same signer's older statements of one type, where a new one is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Older {
    /// The new one is in their place.
    Replaced,
    /// It stands beside them: each says something of its own.
    Kept,
}

/// Pushes a bundle about `subject`, made now.
///
/// # Errors
/// What the registry answers. Nothing is deleted before the new one is listed.
pub async fn attach(
    repository: &Repository,
    subject: &Descriptor,
    predicate_type: &str,
    bundle: &[u8],
    now: Timestamp,
    of_before: Older,
) -> Result<Attached, Error> {
    let made = sigstore::made(bundle)
        .map_err(|reason| Error::Malformed { what: "the bundle".to_owned(), reason: reason.to_string() })?;
    let older = older(repository, &subject.digest, predicate_type, &made).await?;
    if let Some(unchanged) = unchanged(subject, &older, &made) {
        return Ok(unchanged);
    }
    let older = older.into_iter().filter(|_| of_before == Older::Replaced);
    let older: Vec<_> = older.map(|(descriptor, _)| descriptor.digest).collect();
    let descriptor = push(repository, subject, predicate_type, bundle, now).await?;
    let listed = list(repository, &subject.digest, &descriptor, &older).await?;
    let mut replaced = Vec::new();
    for manifest in older {
        let kept = match repository.delete_manifest(&manifest).await {
            Ok(Deletion::Deleted | Deletion::Absent) => None,
            Ok(Deletion::Refused { status, message }) => {
                Some(format!("the registry does not delete it ({status}) {message}"))
            }
            Err(error) => Some(error.to_string()),
        };
        replaced.push(Replaced { manifest, kept: kept.map(|reason| crate::refusal::clean(reason.trim())) });
    }
    Ok(Attached { subject: subject.digest.clone(), manifest: descriptor.digest, unchanged: false, listed, replaced })
}

/// Whether a statement of this key is there already, on no less evidence: asked before signing, so that a log is not made to
/// keep the same twice. Who a certificate will name is not known before.
///
/// # Errors
/// What the registry answers.
pub async fn attached(
    repository: &Repository,
    subject: &Descriptor,
    predicate_type: &str,
    statement: &[u8],
    key: &PublicKey,
    evidence: Evidence,
) -> Result<Option<Attached>, Error> {
    let made = Made::with(key, statement, evidence);
    let older = older(repository, &subject.digest, predicate_type, &made).await?;
    Ok(unchanged(subject, &older, &made))
}

fn unchanged(subject: &Descriptor, older: &[(Descriptor, Made)], made: &Made) -> Option<Attached> {
    let (same, _) = older.iter().find(|(_, other)| made.is_said_by(other))?;
    let (subject, manifest) = (subject.digest.clone(), same.digest.clone());
    Some(Attached { subject, manifest, unchanged: true, listed: Vec::new(), replaced: Vec::new() })
}

/// Pushes a document that a statement names by digest, as a referrer of its own: cosign expects one layer in a bundle's
/// manifest. What is there and listed already is not pushed again.
///
/// # Errors
/// What the registry answers.
pub async fn attach_document(
    repository: &Repository,
    subject: &Descriptor,
    media_type: &str,
    document: &[u8],
) -> Result<Descriptor, Error> {
    let layer = Descriptor::of(media_type, document);
    let artifact = Artifact::new(subject, media_type, layer.clone(), BTreeMap::new())?;
    if !artifact.is_there(repository, &subject.digest).await {
        repository.push_blob(media_type, document).await?;
        let descriptor = artifact.push(repository).await?;
        list(repository, &subject.digest, &descriptor, &[]).await?;
    }
    Ok(layer)
}

async fn push(
    repository: &Repository,
    subject: &Descriptor,
    predicate_type: &str,
    bundle: &[u8],
    now: Timestamp,
) -> Result<Descriptor, Error> {
    let layer = repository.push_blob(BUNDLE_TYPE, bundle).await?;
    let annotations = BTreeMap::from([
        ("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned()),
        (PREDICATE_TYPE.to_owned(), predicate_type.to_owned()),
        (CREATED.to_owned(), now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    ]);
    Artifact::new(subject, BUNDLE_TYPE, layer, annotations)?.push(repository).await
}

/// A manifest with one layer about a subject, before it is pushed.
struct Artifact {
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

impl Artifact {
    fn new(
        subject: &Descriptor,
        artifact_type: &str,
        layer: Descriptor,
        annotations: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let subject = Descriptor::new(&subject.media_type, subject.digest.clone(), subject.size);
        let manifest = Manifest {
            artifact_type: Some(artifact_type.to_owned()),
            subject: Some(subject),
            annotations: annotations.clone(),
            ..Manifest::new(Descriptor::of(OCI_EMPTY, EMPTY), vec![layer])
        };
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|error| Error::Malformed { what: "the new manifest".to_owned(), reason: error.to_string() })?;
        let artifact_type = Some(artifact_type.to_owned());
        Ok(Self {
            descriptor: Descriptor { artifact_type, annotations, ..Descriptor::of(OCI_MANIFEST, &bytes) },
            bytes,
        })
    }

    /// Whether it is listed, and there. Who does not know pushes it.
    async fn is_there(&self, repository: &Repository, subject: &Digest) -> bool {
        let (listed, _) = repository.referrers(subject).await.all();
        let digest = &self.descriptor.digest;
        listed.iter().any(|descriptor| descriptor.digest == *digest)
            && matches!(repository.head(digest.as_str()).await, Lookup::Present(_))
    }

    async fn push(self, repository: &Repository) -> Result<Descriptor, Error> {
        repository.push_blob(OCI_EMPTY, EMPTY).await?;
        repository.push_manifest(self.descriptor.digest.as_str(), OCI_MANIFEST, &self.bytes).await?;
        Ok(self.descriptor)
    }
}

/// The same signer's statements of this type about the subject.
async fn older(
    repository: &Repository,
    subject: &Digest,
    predicate_type: &str,
    made: &Made,
) -> Result<Vec<(Descriptor, Made)>, Error> {
    let (listed, reason) = repository.referrers(subject).await.all();
    if let Some(error) = reason {
        return Err(error);
    }
    // A listing without annotations does not say.
    let may_be =
        |descriptor: &Descriptor| descriptor.annotations.get(PREDICATE_TYPE).is_none_or(|kind| kind == predicate_type);
    let mut older = Vec::new();
    for descriptor in listed.into_iter().filter(may_be).take(MAX_OLDER) {
        let Lookup::Present((_, bytes)) = repository.manifest(descriptor.digest.as_str()).await else { continue };
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { continue };
        let [layer] = manifest.layers.as_slice() else { continue };
        let same_type = manifest.annotations.get(PREDICATE_TYPE).is_some_and(|kind| kind == predicate_type);
        if !same_type || !layer.media_type.starts_with(BUNDLE) || layer.size > MAX_BYTES {
            continue;
        }
        let Lookup::Present(bytes) = repository.blob(&layer.digest, MAX_BYTES).await else { continue };
        // What is no bundle is nobody's.
        if let Ok(other) = sigstore::made(&bytes)
            && other.by == made.by
        {
            older.push((descriptor, other));
        }
    }
    Ok(older)
}

/// Sees that the new manifest is listed, by the registry or at the tag; and that `gone` are not at the tag.
async fn list(
    repository: &Repository,
    subject: &Digest,
    new: &Descriptor,
    gone: &[Digest],
) -> Result<Vec<Place>, Error> {
    let tag = referrers_tag(subject);
    let mut last = None;
    // Two who add at once overwrite each other; whoever finds his own gone adds it again.
    for _ in 0..LIST_ATTEMPTS {
        let listed = repository.referrers(subject).await;
        let has = |lookup: &Lookup<Vec<Descriptor>>| {
            lookup.present().is_some_and(|listed| listed.iter().any(|descriptor| descriptor.digest == new.digest))
        };
        let (by_api, at_tag) = (has(&listed.api), has(&listed.tag));
        let tagged = matches!(listed.tag, Lookup::Present(_));
        match (by_api, at_tag) {
            (true, _) if !tagged => return Ok(vec![Place::ReferrersApi]),
            (true, true) => return Ok(vec![Place::ReferrersApi, Place::ReferrersTag]),
            (false, true) => return Ok(vec![Place::ReferrersTag]),
            _ => {}
        }
        let mut manifests = match listed.tag {
            Lookup::Present(manifests) => manifests,
            Lookup::Absent => Vec::new(),
            // Writing over what cannot be read would lose it.
            Lookup::Unknown(error) => return Err(error),
        };
        manifests.retain(|descriptor| !gone.contains(&descriptor.digest));
        manifests.push(new.clone());
        let index =
            Index { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests, annotations: BTreeMap::new() };
        let bytes = serde_json::to_vec(&index)
            .map_err(|error| Error::Malformed { what: "the new index".to_owned(), reason: error.to_string() })?;
        last = Some(repository.push_manifest(&tag, OCI_INDEX, &bytes).await?);
    }
    Err(Error::Malformed {
        what: format!("{}:{tag}", repository.reference()),
        reason: format!("after {LIST_ATTEMPTS} attempts ({last:?}) the new referrer is not listed"),
    })
}

/// The config of what has none.
const EMPTY: &[u8] = b"{}";
const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Statements of one type that are looked through for older ones.
const MAX_OLDER: usize = 50;
const LIST_ATTEMPTS: u32 = 4;
