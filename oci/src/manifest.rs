//! Manifests and indexes: JSON bytes in, typed documents out. Sources: OCI image specification, `manifest.md`,
//! `image-index.md`, `descriptor.md`; Docker image manifest version 2, schema 2. Nothing is fetched here.

use std::collections::BTreeMap;

use dna::{Digest, Limits, Platform};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Points at a blob or manifest by digest. Source: OCI image specification, `descriptor.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the bytes; empty where none is given.
    #[serde(default)]
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
    /// Where they may also be had.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Anything, by key.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index, what an image runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    /// In an index, what an artifact is. A hint: registries give other values than the artifact's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

/// What an image runs on. Source: OCI image specification, `image-index.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// As `GOARCH`: `amd64` …
    #[serde(default)]
    pub architecture: String,
    /// As `GOOS`: `linux` …
    #[serde(default)]
    pub os: String,
    /// The operating system's version, which Windows images name.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Variant of the architecture: `v8` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Descriptor {
    /// One with what every descriptor has.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let (urls, annotations, platform, artifact_type) = Default::default();
        Self { media_type: media_type.to_owned(), digest, size, urls, annotations, platform, artifact_type }
    }

    /// One of these bytes, by their SHA-256.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::sha256(bytes), u64::try_from(bytes.len()).unwrap_or(u64::MAX))
    }

    /// The platform its entry names; BuildKit marks attestations, which are no images, as `unknown/unknown`.
    pub(crate) fn platform(&self) -> Option<Platform> {
        let platform = self.platform.as_ref()?;
        (!platform.os.is_empty())
            .then(|| Platform::new(&platform.os, &platform.architecture, platform.variant.as_deref()))
    }

    pub(crate) fn is_attestation(&self) -> bool {
        self.platform().is_some_and(|p| p.os() == "unknown")
            || self.annotations.contains_key("vnd.docker.reference.type")
    }
}

/// One image, or one artifact: a config and layers. Source: OCI image specification, `manifest.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The manifest's own media type; empty where none is given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What an artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image's config; of an artifact often the two bytes `{}` of [`OCI_EMPTY`].
    pub config: Descriptor,
    /// Layers, the lowest first; of an artifact its content.
    #[serde(default, deserialize_with = "nullable")]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Anything, by key.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// An image's manifest, without all that one may lack.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        let (artifact_type, subject, annotations) = Default::default();
        let media_type = OCI_MANIFEST.to_owned();
        Self { schema_version: 2, media_type, artifact_type, config, layers, subject, annotations }
    }
}

/// Several manifests: images, usually one a platform, or what refers to one. Source: OCI image specification,
/// `image-index.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The index' own media type; empty where none is given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Which.
    #[serde(default, deserialize_with = "nullable")]
    pub manifests: Vec<Descriptor>,
    /// Anything, by key.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest's bytes are.
#[derive(Debug)]
pub(crate) enum Document {
    Image(Box<Manifest>),
    Index(Index),
}

impl Document {
    /// `bytes` as a manifest or index. What it is, the bytes say: the media type within, else which of `config` and
    /// `manifests` is there; one that has both is ambiguous (CVE-2021-41190) and refused, like one that is not of the
    /// media type it was announced by (`announced`, which may be empty).
    pub(crate) fn parse(bytes: &[u8], announced: &str, what: &str, limits: &Limits) -> Result<Self, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            schema_version: Option<u32>,
            #[serde(default)]
            media_type: Option<String>,
            config: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            manifests: Option<serde::de::IgnoredAny>,
            fs_layers: Option<serde::de::IgnoredAny>,
        }
        let malformed = |error: serde_json::Error| Error::json(what, &error);
        let shape: Shape = serde_json::from_slice(bytes).map_err(malformed)?;
        let inside = shape.media_type.as_deref().unwrap_or("");
        if shape.schema_version == Some(1) || shape.fs_layers.is_some() || inside.starts_with(DOCKER_SCHEMA1) {
            let reason =
                "it is a Docker schema 1 manifest, obsolete since 2017; push the image again with a current tool";
            return Err(Error::Unsupported { what: what.to_owned(), reason: reason.to_owned() });
        }
        if shape.schema_version != Some(2) {
            return Err(Error::malformed(what, "its schemaVersion is not 2"));
        }
        let single = shape.config.is_some() || shape.layers.is_some();
        if single == shape.manifests.is_some() {
            return Err(Error::malformed(what, "it must have either `config` and `layers` or `manifests`"));
        }
        for media_type in [inside, announced].into_iter().filter(|media_type| !media_type.is_empty()) {
            let known = if single { &IMAGE_TYPES } else { &INDEX_TYPES };
            let other = if single { &INDEX_TYPES } else { &IMAGE_TYPES };
            if other.contains(&media_type) {
                return Err(Error::malformed(what, format!("its content is not of its media type {media_type}")));
            }
            if !known.contains(&media_type) && media_type != "application/json" {
                let reason = format!("its media type {} is none of an image", crate::error::clean(media_type));
                return Err(Error::Unsupported { what: what.to_owned(), reason });
            }
        }
        if single {
            let manifest: Manifest = serde_json::from_slice(bytes).map_err(malformed)?;
            within(manifest.layers.len(), limits.layers, "layers", format!("the number of layers of {what}"))?;
            Ok(Self::Image(Box::new(manifest)))
        } else {
            let index: Index = serde_json::from_slice(bytes).map_err(malformed)?;
            within(
                index.manifests.len(),
                limits.index_manifests,
                "index_manifests",
                format!("the number of entries of {what}"),
            )?;
            Ok(Self::Index(index))
        }
    }
}

/// Whether a layer of this media type can be read, or why not.
pub(crate) fn unreadable(layer: &Descriptor) -> Option<String> {
    let media_type = layer.media_type.as_str();
    if media_type.ends_with("+encrypted") {
        return Some(format!("the layer is encrypted ({}) and there is no key", crate::error::clean(media_type)));
    }
    if FOREIGN_TYPES.contains(&media_type) {
        return Some(format!("the layer is foreign ({media_type}): its licence keeps it out of registries"));
    }
    if !LAYER_TYPES.contains(&media_type) {
        return Some(format!("the layer's media type {} is not known", crate::error::clean(media_type)));
    }
    None
}

/// Whether a layout may lack the layer's blob.
pub(crate) fn is_foreign(media_type: &str) -> bool {
    FOREIGN_TYPES.contains(&media_type)
}

pub(crate) fn within(count: usize, limit: u64, name: &'static str, what: String) -> Result<(), Error> {
    match u64::try_from(count) {
        Ok(count) if count <= limit => Ok(()),
        _ => Err(Error::Limit { what, name, limit }),
    }
}

fn nullable<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Media type of an image's or artifact's manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of the empty JSON object, `{}`, where a config or content is required and there is none.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1";

/// Media types of one image's manifest.
pub(crate) const IMAGE_TYPES: [&str; 2] = [OCI_MANIFEST, DOCKER_MANIFEST];
/// Media types of an index.
pub(crate) const INDEX_TYPES: [&str; 2] = [OCI_INDEX, DOCKER_LIST];

const LAYER_TYPES: [&str; 6] = [
    OCI_LAYER,
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

const FOREIGN_TYPES: [&str; 5] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(value: &Value) -> Result<Document, Error> {
        Document::parse(value.to_string().as_bytes(), "", "the manifest", &Limits::default())
    }

    fn descriptor(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": Digest::sha256(b"x").to_string(), "size": 1})
    }

    fn image() -> Value {
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG), "layers": [descriptor(OCI_LAYER)]})
    }

    fn refused(change: impl Fn(&mut Value)) -> String {
        let mut value = image();
        assert!(parse(&value).is_ok());
        change(&mut value);
        parse(&value).expect_err("spoiled").to_string()
    }

    #[test]
    fn schema_1_is_refused_with_what_to_do() {
        let error = parse(&json!({"schemaVersion": 1, "fsLayers": [], "history": []})).expect_err("old").to_string();
        assert!(error.contains("schema 1") && error.contains("push the image again"), "{error}");
    }

    #[test]
    fn a_document_that_is_both_is_refused() {
        assert!(refused(|v| v["manifests"] = json!([])).contains("either"));
    }

    #[test]
    fn a_lying_media_type_is_refused() {
        assert!(refused(|v| v["mediaType"] = OCI_INDEX.into()).contains("not of its media type"));
        let error = Document::parse(image().to_string().as_bytes(), DOCKER_LIST, "x", &Limits::default());
        assert!(matches!(error, Err(Error::Malformed { .. })), "{error:?}");
    }

    #[test]
    fn spoiled_fields_are_refused() {
        assert!(refused(|v| v["schemaVersion"] = 3.into()).contains("schemaVersion"));
        assert!(refused(|v| v["config"]["digest"] = "sha256:xyz".into()).contains("not a digest"));
        assert!(refused(|v| v["layers"][0]["size"] = (-1).into()).contains("malformed"));
        assert!(refused(|v| v["mediaType"] = "text/html".into()).contains("none of an image"));
    }

    #[test]
    fn more_layers_than_the_limit_are_refused() {
        let limits = Limits { layers: 0, ..Limits::default() };
        let error = Document::parse(image().to_string().as_bytes(), "", "x", &limits).expect_err("too many");
        assert!(matches!(error, Error::Limit { name: "layers", .. }), "{error}");
    }

    #[test]
    fn layers_that_cannot_be_read_say_why() {
        let why = |media_type: &str| unreadable(&Descriptor::new(media_type, Digest::sha256(b""), 0));
        assert_eq!(why("application/vnd.oci.image.layer.v1.tar+zstd"), None);
        assert!(why("application/vnd.oci.image.layer.v1.tar+gzip+encrypted").is_some_and(|w| w.contains("encrypted")));
        assert!(why(FOREIGN_TYPES[4]).is_some_and(|w| w.contains("foreign")));
        assert!(why("application/wasm").is_some_and(|w| w.contains("not known")));
    }
}
