//! From a manifest or index to the images that were asked for: descriptors out, their verified bytes in, until nothing is
//! missing. It does no I/O itself, so that registry (async) and layouts (sync) share it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dna::{Digest, Limits, Platform};

use crate::{
    Config, Contents, Digests, Error, Image, Layer, LayerBody,
    error::clean,
    manifest::{Descriptor, Document, IMAGE_TYPES, INDEX_TYPES, Index, Manifest, OCI_CONFIG, unreadable, within},
    verify::verify,
};

/// Which images of an index.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// None: the host's, or where there is only one image, that one.
    pub(crate) platform: Option<Platform>,
    pub(crate) all: bool,
}

/// One image, found: its documents, read and verified; its layers still to be fetched.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) index: Option<Digest>,
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Manifest,
    pub(crate) manifest_bytes: Vec<u8>,
    pub(crate) config: Config,
    pub(crate) config_bytes: Vec<u8>,
    platform: Platform,
}

/// The way from a root descriptor to the images wanted.
#[derive(Debug)]
pub(crate) struct Resolve<'a> {
    wanted: &'a Wanted,
    limits: &'a Limits,
    whence: String,
    tasks: VecDeque<Task>,
    known: BTreeSet<Digest>,
    available: BTreeSet<String>,
    indexes: Vec<(Descriptor, Vec<u8>)>,
    found: Vec<Found>,
}

#[derive(Debug)]
struct Task {
    descriptor: Descriptor,
    index: Option<Digest>,
    depth: u64,
    /// The manifest whose config this is.
    config_of: Option<Box<(Descriptor, Manifest, Vec<u8>)>>,
}

/// What was resolved: the indexes on the way, outermost first, and at least one image.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) indexes: Vec<(Descriptor, Vec<u8>)>,
    pub(crate) found: Vec<Found>,
}

impl<'a> Resolve<'a> {
    /// Starts at `root`; `whence` says in messages where it is from.
    pub(crate) fn new(root: Descriptor, whence: &str, wanted: &'a Wanted, limits: &'a Limits) -> Self {
        let tasks = VecDeque::from([Task { descriptor: root, index: None, depth: 0, config_of: None }]);
        let (known, available, indexes, found) = Default::default();
        Self { wanted, limits, whence: whence.to_owned(), tasks, known, available, indexes, found }
    }

    /// The next manifest, index or config that is needed; its size is within the limit. None: all is there.
    ///
    /// # Errors
    /// [`Error::Limit`] for a document that must not be read.
    pub(crate) fn needs(&self) -> Result<Option<&Descriptor>, Error> {
        let Some(task) = self.tasks.front() else { return Ok(None) };
        if task.descriptor.size > self.limits.manifest_bytes {
            let what = format!("the size of {}", self.what(task));
            return Err(Error::Limit { what, name: "manifest_bytes", limit: self.limits.manifest_bytes });
        }
        Ok(Some(&task.descriptor))
    }

    /// Whether what is needed is a config, which registries keep among the blobs.
    #[cfg(feature = "registry")]
    pub(crate) fn needs_config(&self) -> bool {
        self.tasks.front().is_some_and(|task| task.config_of.is_some())
    }

    /// Takes the bytes of what was needed.
    ///
    /// # Errors
    /// Where they are not those the descriptor names, are malformed, or are none of an image.
    pub(crate) fn give(&mut self, bytes: Vec<u8>) -> Result<(), Error> {
        let Some(task) = self.tasks.pop_front() else { return Ok(()) };
        let what = self.what(&task);
        verify(&bytes, &task.descriptor, &what)?;
        if let Some(image) = task.config_of {
            return self.config(*image, task.index, bytes, &what);
        }
        match Document::parse(&bytes, &task.descriptor.media_type, &what, self.limits)? {
            Document::Index(index) => self.index(task.descriptor, task.index, task.depth, index, bytes, &what),
            Document::Image(manifest) => {
                check_artifact(&manifest, &what)?;
                let descriptor = manifest.config.clone();
                let config_of = Some(Box::new((task.descriptor, *manifest, bytes)));
                self.tasks.push_front(Task { descriptor, index: task.index, depth: task.depth, config_of });
                Ok(())
            }
        }
    }

    /// The images, once nothing is needed any more.
    ///
    /// # Errors
    /// [`Error::Platform`] where there is none for the platform.
    pub(crate) fn finish(mut self) -> Result<Resolved, Error> {
        if !self.wanted.all {
            let wanted = self.wanted.platform.clone().unwrap_or_else(Platform::host);
            let alone = self.wanted.platform.is_none() && self.found.len() == 1;
            self.found.retain(|image| alone || serves(&wanted, &image.platform));
            self.found.sort_by_key(|image| rank(&wanted, &image.platform));
            self.found.truncate(1);
            if self.found.is_empty() {
                return Err(Error::Platform { wanted, available: self.available.into_iter().collect() });
            }
        }
        if self.found.is_empty() {
            return Err(Error::malformed(self.whence, "the index lists no image"));
        }
        Ok(Resolved { indexes: self.indexes, found: self.found })
    }

    fn index(
        &mut self,
        descriptor: Descriptor,
        outer: Option<Digest>,
        depth: u64,
        index: Index,
        bytes: Vec<u8>,
        what: &str,
    ) -> Result<(), Error> {
        let depth = depth.saturating_add(1);
        if depth > self.limits.index_depth {
            let what = format!("the nesting of {what}");
            return Err(Error::Limit { what, name: "index_depth", limit: self.limits.index_depth });
        }
        let top = outer.unwrap_or_else(|| descriptor.digest.clone());
        self.indexes.push((descriptor, bytes));
        for entry in self.choose(index) {
            if self.known.insert(entry.digest.clone()) {
                self.tasks.push_back(Task { descriptor: entry, index: Some(top.clone()), depth, config_of: None });
            }
        }
        within(
            self.known.len(),
            self.limits.index_manifests,
            "index_manifests",
            format!("the number of manifests in {what}"),
        )
    }

    /// The entries to follow: all of them; or the best for the platform; or those that do not say what they are for.
    fn choose(&mut self, index: Index) -> Vec<Descriptor> {
        let is_image = |entry: &Descriptor| {
            let media_type = entry.media_type.as_str();
            media_type.is_empty() || IMAGE_TYPES.contains(&media_type) || INDEX_TYPES.contains(&media_type)
        };
        let mut entries = index.manifests;
        entries.retain(|entry| is_image(entry) && !entry.is_attestation());
        self.available.extend(entries.iter().filter_map(Descriptor::platform).map(|platform| platform.to_string()));
        if self.wanted.all || (self.wanted.platform.is_none() && entries.len() == 1) {
            return entries;
        }
        let wanted = self.wanted.platform.clone().unwrap_or_else(Platform::host);
        let ranked = |entry: &Descriptor| entry.platform().and_then(|platform| rank(&wanted, &platform));
        // `min_by_key` gives the first of equals, as every other client takes it.
        match entries.iter().filter(|entry| ranked(entry).is_some()).min_by_key(|entry| ranked(entry)) {
            Some(best) => vec![best.clone()],
            None => entries.into_iter().filter(|entry| entry.platform().is_none()).collect(),
        }
    }

    fn config(
        &mut self,
        (descriptor, manifest, manifest_bytes): (Descriptor, Manifest, Vec<u8>),
        index: Option<Digest>,
        config_bytes: Vec<u8>,
        what: &str,
    ) -> Result<(), Error> {
        let config = parse_config(&config_bytes, what)?;
        let platform = match (platform_of(&config), descriptor.platform()) {
            // Many configs leave out the variant that their index entry names.
            (Some(own), Some(entry)) if config.variant.is_none() && same_machine(&own, &entry) => entry,
            (Some(platform), _) | (None, Some(platform)) => platform,
            (None, None) => Platform::new("linux", "unknown", None),
        };
        self.available.insert(platform.to_string());
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(Error::LayerCount { layers: manifest.layers.len(), diff_ids: config.rootfs.diff_ids.len() });
        }
        self.found.push(Found { index, descriptor, manifest, manifest_bytes, config, config_bytes, platform });
        Ok(())
    }

    fn what(&self, task: &Task) -> String {
        let kind = if task.config_of.is_some() { "config" } else { "manifest" };
        format!("{kind} {} of {}", task.descriptor.digest, self.whence)
    }
}

impl Found {
    /// The layers that are to be fetched, each digest once.
    pub(crate) fn needed_layers(&self) -> Vec<&Descriptor> {
        let mut known = BTreeSet::new();
        self.manifest.layers.iter().filter(|l| unreadable(l).is_none() && known.insert(&l.digest)).collect()
    }

    /// Refuses an image whose compressed layers are larger than the limit, before any is fetched.
    pub(crate) fn check_size(&self, what: &str, limits: &Limits) -> Result<(), Error> {
        let bytes = self.needed_layers().iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
        if bytes <= limits.image_bytes {
            return Ok(());
        }
        let what = format!("the compressed size of {what}");
        Err(Error::Limit { what, name: "image_bytes", limit: limits.image_bytes })
    }

    /// The image, with the bodies of its layers by digest; one that is not there is unreadable.
    pub(crate) fn image(&self, name: &str, bodies: &BTreeMap<Digest, crate::Blob>) -> Image {
        let layers = self.manifest.layers.iter().zip(&self.config.rootfs.diff_ids).map(|(layer, diff_id)| Layer {
            digest: layer.digest.clone(),
            media_type: layer.media_type.clone(),
            diff_id: diff_id.clone(),
            annotations: layer.annotations.clone(),
            body: match (unreadable(layer), bodies.get(&layer.digest)) {
                (Some(why), _) => LayerBody::Unreadable(why),
                (None, Some(blob)) => LayerBody::Present(blob.clone()),
                (None, None) => LayerBody::Unreadable("the layer's blob is missing".to_owned()),
            },
        });
        Image {
            name: name.to_owned(),
            digests: Digests {
                index: self.index.clone(),
                manifest: Some(self.descriptor.digest.clone()),
                config: Some(self.manifest.config.digest.clone()),
            },
            platform: self.platform.clone(),
            config: self.config.clone(),
            contents: Contents::Layers(layers.collect()),
        }
    }
}

/// An image config from its bytes.
pub(crate) fn parse_config(bytes: &[u8], what: &str) -> Result<Config, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::json(what, &error))
}

/// The platform a config names, if any.
pub(crate) fn platform_of(config: &Config) -> Option<Platform> {
    (!config.os.is_empty()).then(|| Platform::new(&config.os, &config.architecture, config.variant.as_deref()))
}

/// Helm charts, signatures, WebAssembly modules and the like are manifests too, but no images.
fn check_artifact(manifest: &Manifest, what: &str) -> Result<(), Error> {
    let media_type = manifest.config.media_type.as_str();
    if matches!(media_type, "" | OCI_CONFIG | DOCKER_CONFIG | "application/octet-stream") {
        return Ok(());
    }
    let reason = format!("it is an artifact with config type {}, not a container image", clean(media_type));
    Err(Error::Unsupported { what: what.to_owned(), reason })
}

/// Whether an image for platform `has` runs where `wanted` is asked for.
pub(crate) fn serves(wanted: &Platform, has: &Platform) -> bool {
    rank(wanted, has).is_some()
}

/// How well an image for platform `has` serves `wanted`, 0 best; None: not at all. A 32-bit ARM machine runs older
/// variants too, an amd64 machine lower levels. Source: containerd, `platforms/compare.go`.
fn rank(wanted: &Platform, has: &Platform) -> Option<u32> {
    if !same_machine(wanted, has) {
        return None;
    }
    let level = |platform: &Platform| -> Option<u32> {
        match platform.variant() {
            None if platform.architecture() == "arm64" => Some(8),
            None => Some(1),
            Some(variant) => variant.strip_prefix('v')?.split('.').next()?.parse().ok(),
        }
    };
    if wanted.variant() == has.variant() {
        return Some(0);
    }
    level(wanted)?.checked_sub(level(has)?)
}

fn same_machine(one: &Platform, other: &Platform) -> bool {
    (one.os(), one.architecture()) == (other.os(), other.architecture())
}

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::manifest::OCI_LAYER;

    /// Documents by digest.
    #[derive(Default)]
    struct Shelf(BTreeMap<Digest, Vec<u8>>);

    impl Shelf {
        fn put(&mut self, media_type: &str, value: &Value) -> Value {
            let bytes = value.to_string().into_bytes();
            let digest = Digest::sha256(&bytes);
            let descriptor = json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()});
            self.0.insert(digest, bytes);
            descriptor
        }

        /// A manifest of one layer whose config names the platform.
        fn image(&mut self, os: &str, architecture: &str) -> Value {
            let config = json!({"os": os, "architecture": architecture, "rootfs": {"diff_ids": [Digest::sha256(b"l").to_string()]}});
            let config = self.put(OCI_CONFIG, &config);
            let layer = json!({"mediaType": OCI_LAYER, "digest": Digest::sha256(b"l").to_string(), "size": 1});
            self.put(IMAGE_TYPES[0], &json!({"schemaVersion": 2, "config": config, "layers": [layer]}))
        }

        fn index(&mut self, entries: &[Value]) -> Value {
            self.put(INDEX_TYPES[0], &json!({"schemaVersion": 2, "manifests": entries}))
        }

        fn resolve(&self, root: &Value, wanted: &Wanted, limits: &Limits) -> Result<Resolved, Error> {
            let root = serde_json::from_value(root.clone()).expect("a descriptor");
            let mut resolve = Resolve::new(root, "the test", wanted, limits);
            while let Some(descriptor) = resolve.needs()? {
                let bytes = self.0[&descriptor.digest].clone();
                resolve.give(bytes)?;
            }
            resolve.finish()
        }

        fn platforms(&self, root: &Value, wanted: &Wanted) -> Result<Vec<String>, Error> {
            let resolved = self.resolve(root, wanted, &Limits::default())?;
            Ok(resolved.found.iter().map(|found| found.platform.to_string()).collect())
        }
    }

    fn on(mut descriptor: Value, os: &str, architecture: &str) -> Value {
        descriptor["platform"] = json!({"os": os, "architecture": architecture});
        descriptor
    }

    fn wanted(platform: &str) -> Wanted {
        Wanted { platform: Some(platform.parse().expect("a platform")), all: false }
    }

    fn all() -> Wanted {
        Wanted { platform: None, all: true }
    }

    fn two_platforms(shelf: &mut Shelf) -> Value {
        let entries = [
            on(shelf.image("linux", "amd64"), "linux", "amd64"),
            on(shelf.image("linux", "arm64"), "linux", "arm64"),
            on(shelf.put(IMAGE_TYPES[0], &json!({"schemaVersion": 2})), "unknown", "unknown"),
        ];
        shelf.index(&entries)
    }

    #[test]
    fn the_platform_chooses_and_attestations_never_count() {
        let mut shelf = Shelf::default();
        let index = two_platforms(&mut shelf);
        assert_eq!(shelf.platforms(&index, &wanted("linux/arm64")).expect("there"), ["linux/arm64"]);
        assert_eq!(shelf.platforms(&index, &all()).expect("there"), ["linux/amd64", "linux/arm64"]);
        let error = shelf.platforms(&index, &wanted("linux/s390x")).expect_err("none").to_string();
        assert!(error.contains("linux/amd64, linux/arm64") && !error.contains("unknown"), "{error}");
    }

    #[test]
    fn an_index_in_an_index_is_followed_up_to_the_limit() {
        let mut shelf = Shelf::default();
        let inner = two_platforms(&mut shelf);
        let outer = shelf.index(&[inner]);
        let resolved = shelf.resolve(&outer, &wanted("linux/arm64"), &Limits::default()).expect("there");
        assert_eq!(resolved.indexes.len(), 2);
        assert_eq!(resolved.found[0].index.as_ref().map(Digest::to_string).as_deref(), outer["digest"].as_str());
        let limits = Limits { index_depth: 1, ..Limits::default() };
        let error = shelf.resolve(&outer, &all(), &limits).expect_err("too deep");
        assert!(matches!(error, Error::Limit { name: "index_depth", .. }), "{error}");
        let limits = Limits { index_manifests: 2, ..Limits::default() };
        let error = shelf.resolve(&outer, &all(), &limits).expect_err("too many");
        assert!(matches!(error, Error::Limit { name: "index_manifests", .. }), "{error}");
    }

    #[test]
    fn entries_without_a_platform_are_told_by_their_config() {
        let mut shelf = Shelf::default();
        let entries = [shelf.image("linux", "amd64"), shelf.image("linux", "riscv64")];
        let index = shelf.index(&entries);
        assert_eq!(shelf.platforms(&index, &wanted("linux/riscv64")).expect("there"), ["linux/riscv64"]);
        assert!(matches!(shelf.platforms(&index, &wanted("linux/arm")), Err(Error::Platform { .. })));
    }

    #[test]
    fn the_only_image_is_taken_unless_another_platform_was_asked_for() {
        let mut shelf = Shelf::default();
        let image = shelf.image("windows", "amd64");
        let index = shelf.index(&[on(image.clone(), "windows", "amd64")]);
        for root in [&image, &index] {
            assert_eq!(shelf.platforms(root, &Wanted::default()).expect("there"), ["windows/amd64"]);
            assert!(matches!(shelf.platforms(root, &wanted("linux/amd64")), Err(Error::Platform { .. })));
        }
    }

    #[test]
    fn older_arm_variants_serve_newer_machines_only() {
        let platform = |text: &str| text.parse::<Platform>().expect("a platform");
        assert_eq!(rank(&platform("linux/arm/v7"), &platform("linux/arm/v6")), Some(1));
        assert_eq!(rank(&platform("linux/arm/v6"), &platform("linux/arm/v7")), None);
        assert_eq!(rank(&platform("linux/amd64"), &platform("linux/amd64/v3")), None);
        assert_eq!(rank(&platform("linux/amd64/v3"), &platform("linux/amd64")), Some(2));
    }

    #[test]
    fn changed_bytes_missing_diff_ids_and_artifacts_are_refused() {
        let mut shelf = Shelf::default();
        let image = shelf.image("linux", "amd64");
        let config = shelf.put(OCI_CONFIG, &json!({"os": "linux", "architecture": "amd64"}));
        let layer = json!({"mediaType": OCI_LAYER, "digest": Digest::sha256(b"l").to_string(), "size": 1});
        let short = shelf.put(IMAGE_TYPES[0], &json!({"schemaVersion": 2, "config": config, "layers": [layer]}));
        assert!(matches!(shelf.platforms(&short, &all()), Err(Error::LayerCount { layers: 1, diff_ids: 0 })));
        let chart = shelf.put("application/vnd.cncf.helm.config.v1+json", &json!({}));
        let chart = shelf.put(IMAGE_TYPES[0], &json!({"schemaVersion": 2, "config": chart, "layers": []}));
        let error = shelf.platforms(&chart, &all()).expect_err("no image").to_string();
        assert!(error.contains("artifact"), "{error}");
        let digest: Digest = image["digest"].as_str().expect("text").parse().expect("a digest");
        shelf.0.get_mut(&digest).expect("there")[0] = b' ';
        assert!(matches!(shelf.platforms(&image, &all()), Err(Error::Digest { .. })));
    }

    #[test]
    fn a_malformed_config_is_explained_without_its_values() {
        let error = parse_config(br#"{"config": {"Env": "TOKEN=hunter2\" x"}}"#, "the config").expect_err("no list");
        assert!(error.to_string().contains("invalid type: string …"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }

    #[test]
    fn a_document_larger_than_the_limit_is_never_asked_for() {
        let mut shelf = Shelf::default();
        let image = shelf.image("linux", "amd64");
        let limits = Limits { manifest_bytes: 10, ..Limits::default() };
        let error = shelf.resolve(&image, &all(), &limits).expect_err("too large");
        assert!(matches!(error, Error::Limit { name: "manifest_bytes", .. }), "{error}");
    }
}
