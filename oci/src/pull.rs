//! Keeps what was opened: images in, an OCI image layout on disk out. Blobs are verified while they are copied, documents
//! are kept byte for byte; only an image that has no manifest (`docker save`) gets a new one.

use std::{
    collections::BTreeSet,
    fs::{self, File, Permissions},
    io::{self, Read, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use dna::Digest;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{
    Contents, Error, Layer, LayerBody, Options, Select, Source,
    layout::{REF_NAME, bounded},
    manifest::{
        Descriptor, DescriptorPlatform, Index, Manifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, is_foreign,
    },
    open::{Opened, OpenedImage, open_all},
    spool::Compression,
    verify::Verifier,
};

/// What is in the layout now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Digest of the manifest, or with [`Options::all_platforms`] of the index.
    pub digest: Digest,
    /// The name it can be found by in the layout, if any.
    pub name: Option<String>,
    /// Images written.
    pub images: usize,
}

/// Opens `source` and writes its image, or all its platforms' images with their index, into the layout `to`
/// (`oci:DIR[:NAME]`), beside what is there; an image of the same name is replaced. Without a name in `to`, it has the tag
/// that it has at its source. An index whose attestations and artifacts are left out is written anew, with what is left.
///
/// # Errors
/// As [`open`](crate::open); [`Error::Digest`] or [`Error::Size`] for a layer that is not what its digest says;
/// [`Error::Unsupported`] for what a layout cannot hold.
pub fn pull(source: &Source, to: &Source, options: &Options) -> Result<Pulled, Error> {
    let unsupported = |reason: &str| Error::Unsupported { what: to.to_string(), reason: reason.to_owned() };
    let (folder, name) = match to {
        Source::Layout(folder, Select::Only) => (folder, None),
        Source::Layout(folder, Select::Name(name)) => (folder, Some(name.clone())),
        _ => return Err(unsupported("images are written to `oci:DIR` or `oci:DIR:NAME` only")),
    };
    let opened = open_all(source, options)?;
    let name = name.or_else(|| opened.name.clone());
    let images = opened.images.len();
    write(folder, "oci-layout", &mut &br#"{"imageLayoutVersion":"1.0.0"}"#[..], None)?;
    let root = documents(folder, opened, options.all_platforms)?;
    list(folder, &root, name.as_deref(), options)?;
    Ok(Pulled { digest: root.digest, name, images })
}

/// Writes all blobs and gives the descriptor that stands for all.
fn documents(folder: &Path, opened: Opened, all: bool) -> Result<Descriptor, Error> {
    let mut manifests = Vec::new();
    for image in &opened.images {
        manifests.push(image_blobs(folder, image)?);
    }
    let written: BTreeSet<_> =
        manifests.iter().chain(opened.indexes.iter().map(|(index, _)| index)).map(|d| &d.digest).collect();
    let complete = opened.indexes.iter().all(|(_, bytes)| {
        serde_json::from_slice::<Index>(bytes)
            .is_ok_and(|index| index.manifests.iter().all(|m| written.contains(&m.digest)))
    });
    match (all, opened.indexes.first(), manifests.first()) {
        (true, Some((root, _)), _) if complete => {
            for (descriptor, bytes) in &opened.indexes {
                blob(folder, descriptor, &mut bytes.as_slice())?;
            }
            Ok(Descriptor { media_type: media_type(root, OCI_INDEX), ..root.clone() })
        }
        (true, Some(_), _) => {
            let (media_type, annotations) = (OCI_INDEX.to_owned(), Default::default());
            json_blob(folder, &Index { schema_version: 2, media_type, manifests, annotations }, OCI_INDEX)
        }
        (_, _, Some(manifest)) => Ok(manifest.clone()),
        (_, _, None) => Err(Error::malformed(folder.display().to_string(), "there is no image to write")),
    }
}

fn media_type(descriptor: &Descriptor, otherwise: &str) -> String {
    if descriptor.media_type.is_empty() { otherwise.to_owned() } else { descriptor.media_type.clone() }
}

/// Writes one image's layers, config and manifest.
fn image_blobs(folder: &Path, opened: &OpenedImage) -> Result<Descriptor, Error> {
    let image = &opened.image;
    let Contents::Layers(layers) = &image.contents else {
        let reason = "an unpacked root file system has no layers to keep".to_owned();
        return Err(Error::Unsupported { what: image.name.clone(), reason });
    };
    let mut descriptors = Vec::new();
    for layer in layers {
        descriptors.extend(layer_blob(folder, layer)?);
    }
    let size = u64::try_from(opened.config.len()).unwrap_or(u64::MAX);
    let config = Descriptor::new(OCI_CONFIG, Digest::sha256(&opened.config), size);
    let Some((descriptor, bytes)) = &opened.manifest else {
        blob(folder, &config, &mut opened.config.as_slice())?;
        return json_blob(folder, &Manifest::new(config, descriptors), OCI_MANIFEST);
    };
    let config = image.digests.config.clone().map_or(config, |digest| Descriptor::new(OCI_CONFIG, digest, size));
    blob(folder, &config, &mut opened.config.as_slice())?;
    blob(folder, descriptor, &mut bytes.as_slice())?;
    let platform = DescriptorPlatform {
        architecture: image.platform.architecture().to_owned(),
        os: image.platform.os().to_owned(),
        os_version: None,
        variant: image.platform.variant().map(str::to_owned),
    };
    let platform = descriptor.platform.clone().unwrap_or(platform);
    Ok(Descriptor { platform: Some(platform), media_type: media_type(descriptor, OCI_MANIFEST), ..descriptor.clone() })
}

/// Writes a layer. None: it is foreign, which layouts may lack.
fn layer_blob(folder: &Path, layer: &Layer) -> Result<Option<Descriptor>, Error> {
    let what = format!("layer {}", layer.digest);
    let body = match &layer.body {
        LayerBody::Present(body) => body,
        LayerBody::Unreadable(_) if is_foreign(&layer.media_type) => return Ok(None),
        LayerBody::Unreadable(why) => return Err(Error::Unsupported { what, reason: why.clone() }),
    };
    let mut start = Vec::new();
    body.reader().take(6).read_to_end(&mut start).map_err(|error| Error::read(&*what, error))?;
    let suffix = match Compression::of(&start, &what)? {
        Compression::None => "",
        Compression::Gzip => "+gzip",
        Compression::Zstd => "+zstd",
    };
    let descriptor = Descriptor::new(&format!("{OCI_LAYER}{suffix}"), layer.digest.clone(), body.len());
    blob(folder, &descriptor, &mut body.reader())?;
    Ok(Some(descriptor))
}

fn json_blob(folder: &Path, document: &impl serde::Serialize, media_type: &str) -> Result<Descriptor, Error> {
    let bytes = serde_json::to_vec(document).map_err(|error| Error::json("the new manifest", &error))?;
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let descriptor = Descriptor::new(media_type, Digest::sha256(&bytes), size);
    blob(folder, &descriptor, &mut bytes.as_slice())?;
    Ok(descriptor)
}

fn blob(folder: &Path, descriptor: &Descriptor, from: &mut dyn Read) -> Result<(), Error> {
    let name = format!("blobs/{}/{}", descriptor.digest.algorithm(), descriptor.digest.hex());
    write(folder, &name, from, Some(Verifier::new(descriptor)))
}

/// Writes a file under another name, verifies it, and only then renames it.
fn write(folder: &Path, name: &str, from: &mut dyn Read, mut verifier: Option<Verifier>) -> Result<(), Error> {
    let path = folder.join(name);
    let what = path.display().to_string();
    let failed = |error| Error::write(&*what, error);
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(failed)?;
    let mut file = new_file(parent).map_err(failed)?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::read(format!("the source of {name}"), error)),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if let Some(verifier) = &mut verifier {
            verifier.update(bytes, name)?;
        }
        file.write_all(bytes).map_err(failed)?;
    }
    verifier.map_or(Ok(()), |verifier| verifier.finish(name))?;
    file.persist(&path).map_err(|error| failed(error.error)).map(drop)
}

fn new_file(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".partial-").permissions(Permissions::from_mode(0o644)).tempfile_in(folder)
}

/// Adds the image to `index.json`; what else is there stays as it is.
fn list(folder: &Path, root: &Descriptor, name: Option<&str>, options: &Options) -> Result<(), Error> {
    let path = folder.join("index.json");
    let what = path.display().to_string();
    // Two pulls into one layout take turns here; the folder itself is the lock, so that none stays behind.
    let lock = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
    let _lock = lock.map_err(|error| Error::write(&*what, error))?;
    let mut index = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => json!({"schemaVersion": 2, "manifests": []}),
        Err(error) => return Err(Error::read(what, error)),
        Ok(file) => {
            let len = file.metadata().map_err(|error| Error::read(&*what, error))?.len();
            let bytes = bounded(&crate::Blob::new(std::sync::Arc::new(file), 0, len), &what, &options.limits)?;
            serde_json::from_slice(&bytes).map_err(|error| Error::json(&*what, &error))?
        }
    };
    let entries = index.get_mut("manifests").and_then(Value::as_array_mut);
    let entries = entries.ok_or_else(|| Error::malformed(&*what, "it has no `manifests`"))?;
    let mut entry = root.clone();
    entry.annotations.extend(name.map(|name| (REF_NAME.to_owned(), name.to_owned())));
    if name.is_none() {
        entry.annotations.remove(REF_NAME);
    }
    let named = |entry: &Value| {
        entry.get("annotations").and_then(|a| a.get(REF_NAME)).and_then(Value::as_str).map(str::to_owned)
    };
    let same = |entry: &Value| match named(entry) {
        Some(other) => name == Some(&other),
        None => entry.get("digest").and_then(Value::as_str) == Some(root.digest.as_str()),
    };
    entries.retain(|entry| !same(entry));
    entries.push(serde_json::to_value(&entry).map_err(|error| Error::json(&*what, &error))?);
    let bytes = serde_json::to_vec(&index).map_err(|error| Error::json(&*what, &error))?;
    write(folder, "index.json", &mut bytes.as_slice(), None)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::{
        fixture::{config, layer, layout, manifest, place, tar},
        open,
    };

    struct Case {
        folder: tempfile::TempDir,
    }

    impl Case {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().expect("a folder") }
        }

        fn archive(&self, kind: &str, members: &[(String, Vec<u8>)], name: &str) -> Source {
            let path = self.folder.path().join("archive.tar");
            fs::write(&path, tar(members)).expect("written");
            format!("{kind}:{}{name}", path.display()).parse().expect("a source")
        }

        fn kept(&self, name: &str) -> Source {
            format!("oci:{}{name}", self.folder.path().join("kept").display()).parse().expect("a source")
        }

        fn bytes(&self, name: &str) -> Vec<u8> {
            fs::read(self.folder.path().join("kept").join(name)).expect("readable")
        }
    }

    #[test]
    fn images_are_kept_beside_each_other_byte_for_byte() {
        let case = Case::new();
        let options = Options::default();
        for tag in ["one", "two", "one"] {
            let source = case.archive("oci-archive", &layout(&["one", "two"]), &format!(":{tag}"));
            let pulled = pull(&source, &case.kept(""), &options).expect("pulled");
            assert_eq!((pulled.digest, pulled.name.as_deref()), (Digest::sha256(&manifest(tag)), Some(tag)));
        }
        for bytes in [manifest("one"), config("two"), layer()] {
            assert_eq!(case.bytes(&place(&bytes)), bytes);
        }
        let index: Value = serde_json::from_slice(&case.bytes("index.json")).expect("JSON");
        assert_eq!(index["manifests"].as_array().expect("a list").len(), 2, "the second `one` replaced the first");
        assert_eq!(open(&case.kept(":two"), &options).expect("opened")[0].platform.to_string(), "linux/two");
    }

    #[test]
    fn a_docker_archive_gets_a_manifest_and_keeps_its_config() {
        let case = Case::new();
        let item = br#"[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]"#.to_vec();
        let members = [("c", config("amd64")), ("l", layer()), ("manifest.json", item)];
        let source = case.archive("docker-archive", &members.map(|(name, bytes)| (name.to_owned(), bytes)), "");
        let options = Options::default();
        let pulled = pull(&source, &case.kept(":new"), &options).expect("pulled");
        let image = open(&case.kept(":new"), &options).expect("opened").remove(0);
        assert_eq!(image.digests.manifest, Some(pulled.digest));
        assert_eq!(image.digests.config, Some(Digest::sha256(&config("amd64"))));
        assert_eq!(case.bytes(&place(&config("amd64"))), config("amd64"));
    }

    #[test]
    fn all_platforms_keep_their_index_or_get_one_without_attestations() {
        let case = Case::new();
        let options = Options { all_platforms: true, ..Options::default() };
        let mut entries = Vec::new();
        for platform in ["amd64", "arm64"] {
            let mut entry = crate::fixture::descriptor(OCI_MANIFEST, &manifest(platform));
            entry["platform"] = json!({"os": "linux", "architecture": platform});
            entries.push(entry);
        }
        for attested in [false, true] {
            if attested {
                let mut entry = crate::fixture::descriptor(OCI_MANIFEST, b"{}");
                entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
                entries.push(entry);
            }
            let index =
                json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string().into_bytes();
            let top = json!({"schemaVersion": 2, "manifests": [crate::fixture::descriptor(OCI_INDEX, &index)]});
            let mut members = layout(&["amd64", "arm64"]);
            members.retain(|(name, _)| name != "index.json");
            members.push((place(&index), index.clone()));
            members.push(("index.json".to_owned(), top.to_string().into_bytes()));
            let source = case.archive("oci-archive", &members, "");
            let pulled = pull(&source, &case.kept(&format!(":{attested}")), &options).expect("pulled");
            assert_eq!((pulled.images, pulled.digest == Digest::sha256(&index)), (2, !attested));
            assert_eq!(open(&case.kept(&format!(":{attested}")), &options).expect("opened").len(), 2);
        }
    }

    #[test]
    fn a_changed_layer_is_not_kept() {
        let case = Case::new();
        let mut members = layout(&["one"]);
        members.iter_mut().filter(|(name, _)| *name == place(&layer())).for_each(|(_, bytes)| bytes[600] ^= 1);
        let source = case.archive("oci-archive", &members, "");
        let error = pull(&source, &case.kept(""), &Options::default()).expect_err("changed");
        assert!(matches!(error, Error::Digest { .. }), "{error}");
        assert!(!case.folder.path().join("kept").join(place(&layer())).exists());
        assert!(matches!(
            pull(&source, &"-".parse().expect("a source"), &Options::default()),
            Err(Error::Unsupported { .. })
        ));
    }
}
