//! OCI image layouts, as a folder or in an archive: documents and blobs by digest. Source: OCI image specification,
//! `image-layout.md`. File names come from checked digests only, never from what a document says.

use std::{fs::File, io::Read as _, path::PathBuf, sync::Arc};

use dna::{Digest, Limits};
use serde::Deserialize;

use crate::{
    Blob, Error, Select,
    archive::Archive,
    manifest::{Descriptor, Document, Index, OCI_INDEX},
};

/// Where a layout's files are.
#[derive(Debug)]
pub(crate) enum Layout {
    Folder(PathBuf),
    Archive(Archive),
}

impl Layout {
    /// The layout in a folder.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is none.
    pub(crate) fn folder(path: PathBuf) -> Result<Self, Error> {
        if !path.join(INDEX).is_file() {
            let hint = match path.join("manifest.json").is_file() || !path.is_dir() {
                true if path.is_file() => format!("it is a file: write `oci-archive:{}`", path.display()),
                _ => "an OCI layout has an `index.json`; an unpacked root file system is named `dir:ROOTFS`".to_owned(),
            };
            return Err(Error::Missing { what: format!("an OCI layout in {}", path.display()), hint });
        }
        Ok(Self::Folder(path))
    }

    /// What it is, for messages.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Archive(archive) => archive.what.clone(),
        }
    }

    /// The manifest or index that `select` names, and its name there, if any.
    pub(crate) fn root(&self, select: &Select, limits: &Limits) -> Result<Root, Error> {
        self.check_version(limits)?;
        let what = format!("index.json of {}", self.what());
        let bytes = self.document(INDEX, limits)?;
        let bytes = bytes.ok_or_else(|| Error::Missing { what: what.clone(), hint: String::new() })?;
        let Document::Index(index) = Document::parse(&bytes, "", &what, limits)? else {
            return Err(Error::malformed(what, "it is a manifest instead of an index"));
        };
        let entry = match select {
            Select::Only => match self.only(&index)? {
                Some(entry) => entry,
                None => {
                    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    let descriptor = Descriptor::new(OCI_INDEX, Digest::sha256(&bytes), size);
                    return Ok(Root { descriptor, name: None, bytes: Some(bytes) });
                }
            },
            Select::Index(at) => usize::try_from(*at).ok().and_then(|at| index.manifests.get(at)).ok_or_else(|| {
                let hint = format!("there are {} images", index.manifests.len());
                Error::Missing { what: format!("image @{at} of {}", self.what()), hint }
            })?,
            Select::Digest(digest) => match index.manifests.iter().find(|entry| entry.digest == *digest) {
                Some(entry) => entry,
                None => return self.by_digest(digest, limits),
            },
            Select::Name(name) => self.named(&index, name)?,
        };
        Ok(Root { name: names(entry).next().map(str::to_owned), descriptor: entry.clone(), bytes: None })
    }

    /// The bytes of a manifest, index or config.
    pub(crate) fn small(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let what = format!("blob {} of {}", descriptor.digest, self.what());
        let blob = self.blob(descriptor)?.ok_or_else(|| Error::Missing { what: what.clone(), hint: String::new() })?;
        let mut bytes = Vec::new();
        blob.reader().read_to_end(&mut bytes).map_err(|error| Error::read(what, error))?;
        Ok(bytes)
    }

    /// A blob, not yet verified but for its size. None: it is not there.
    ///
    /// # Errors
    /// [`Error::Size`] where it has another size than its descriptor says.
    pub(crate) fn blob(&self, descriptor: &Descriptor) -> Result<Option<Blob>, Error> {
        let name = format!("blobs/{}/{}", descriptor.digest.algorithm(), descriptor.digest.hex());
        let Some(blob) = self.open(&name)? else { return Ok(None) };
        if blob.len() == descriptor.size {
            return Ok(Some(blob));
        }
        let what = format!("blob {} of {}", descriptor.digest, self.what());
        Err(Error::Size { what, expected: descriptor.size, actual: blob.len() })
    }

    fn open(&self, name: &str) -> Result<Option<Blob>, Error> {
        match self {
            Self::Archive(archive) => Ok(archive.member(name)),
            Self::Folder(folder) => {
                let path = folder.join(name);
                // Opening a pipe or device could block or do worse.
                if !path.is_file() {
                    return Ok(None);
                }
                let read = |error| Error::read(path.display().to_string(), error);
                let file = File::open(&path).map_err(read)?;
                let len = file.metadata().map_err(read)?.len();
                Ok(Some(Blob::new(Arc::new(file), 0, len)))
            }
        }
    }

    fn document(&self, name: &str, limits: &Limits) -> Result<Option<Vec<u8>>, Error> {
        let Some(blob) = self.open(name)? else { return Ok(None) };
        bounded(&blob, &format!("{name} of {}", self.what()), limits).map(Some)
    }

    /// `oci-layout`, which some tools leave out, must have version 1 where it is there.
    fn check_version(&self, limits: &Limits) -> Result<(), Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Marker {
            image_layout_version: String,
        }
        let what = format!("oci-layout of {}", self.what());
        let Some(bytes) = self.document("oci-layout", limits)? else { return Ok(()) };
        let marker: Marker = serde_json::from_slice(&bytes).map_err(|error| Error::json(what.as_str(), &error))?;
        if marker.image_layout_version.starts_with("1.") {
            return Ok(());
        }
        Err(Error::Unsupported { what, reason: "its imageLayoutVersion is not 1".to_owned() })
    }

    /// The only entry; None: the entries are one image for several platforms, so that `index.json` is its index.
    fn only<'a>(&self, index: &'a Index) -> Result<Option<&'a Descriptor>, Error> {
        let images: Vec<_> = index.manifests.iter().filter(|entry| !entry.is_attestation()).collect();
        match images.as_slice() {
            [] => Err(Error::Missing { what: format!("an image in {}", self.what()), hint: "it is empty".to_owned() }),
            [entry] => Ok(Some(entry)),
            [first, rest @ ..] => {
                let one_name = rest.iter().all(|entry| names(entry).eq(names(first)));
                if one_name && images.iter().all(|entry| entry.platform().is_some()) {
                    return Ok(None);
                }
                Err(Error::Ambiguous { what: self.what(), names: self.all_names(index) })
            }
        }
    }

    fn named<'a>(&self, index: &'a Index, name: &str) -> Result<&'a Descriptor, Error> {
        let mut fitting = index.manifests.iter().filter(|entry| names(entry).any(|n| n == name));
        match (fitting.next(), fitting.next()) {
            (Some(entry), None) => Ok(entry),
            (Some(_), Some(_)) => {
                Err(Error::Ambiguous { what: format!("`{name}` in {}", self.what()), names: self.places(index) })
            }
            (None, _) => {
                let hint = format!("there is: {}", self.all_names(index).join(", "));
                Err(Error::Missing { what: format!("`{}` in {}", crate::error::clean(name), self.what()), hint })
            }
        }
    }

    /// A manifest that no entry of `index.json` names, by its digest.
    fn by_digest(&self, digest: &Digest, limits: &Limits) -> Result<Root, Error> {
        let name = format!("blobs/{}/{}", digest.algorithm(), digest.hex());
        let what = format!("manifest {digest} in {}", self.what());
        let blob = self.open(&name)?.ok_or_else(|| Error::Missing { what: what.clone(), hint: String::new() })?;
        let bytes = bounded(&blob, &what, limits)?;
        Ok(Root { descriptor: Descriptor::new("", digest.clone(), blob.len()), name: None, bytes: Some(bytes) })
    }

    fn all_names(&self, index: &Index) -> Vec<String> {
        let named: Vec<_> = index.manifests.iter().filter_map(|entry| names(entry).next()).map(str::to_owned).collect();
        if named.is_empty() { self.places(index) } else { named }
    }

    fn places(&self, index: &Index) -> Vec<String> {
        index.manifests.iter().enumerate().map(|(at, _)| format!("@{at}")).collect()
    }
}

/// Where resolving starts.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) descriptor: Descriptor,
    /// Its tag or reference.
    pub(crate) name: Option<String>,
    /// Its bytes, where they were read already.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// A document's bytes, within the limit.
pub(crate) fn bounded(blob: &Blob, what: &str, limits: &Limits) -> Result<Vec<u8>, Error> {
    if blob.len() > limits.manifest_bytes {
        let what = format!("the size of {what}");
        return Err(Error::Limit { what, name: "manifest_bytes", limit: limits.manifest_bytes });
    }
    let mut bytes = Vec::new();
    blob.reader().read_to_end(&mut bytes).map_err(|error| Error::read(what, error))?;
    Ok(bytes)
}

/// What an entry can be named by: its tag, and the full reference that containerd and Docker write beside it.
fn names(entry: &Descriptor) -> impl Iterator<Item = &str> {
    [REF_NAME, "io.containerd.image.name"].into_iter().filter_map(|key| entry.annotations.get(key)).map(String::as_str)
}

/// The annotation that holds an entry's tag.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
const INDEX: &str = "index.json";

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::fixture::{blob, layout, manifest, place, tar};

    fn archive(tags: &[&str]) -> Layout {
        let limits = Limits::default();
        Layout::Archive(Archive::index(blob(&tar(&layout(tags))), "a.tar", &limits).expect("indexed"))
    }

    fn root(tags: &[&str], select: &Select) -> Result<Root, Error> {
        archive(tags).root(select, &Limits::default())
    }

    #[test]
    fn an_image_is_named_by_tag_place_digest_or_alone() {
        let arm = Digest::sha256(&manifest("arm64"));
        for select in [Select::Name("arm64".to_owned()), Select::Index(1), Select::Digest(arm.clone())] {
            let root = root(&["amd64", "arm64"], &select).expect("there");
            assert_eq!((root.descriptor.digest, root.name.as_deref()), (arm.clone(), Some("arm64")), "{select:?}");
        }
        assert_eq!(root(&["arm64"], &Select::Only).expect("alone").descriptor.digest, arm);
    }

    #[test]
    fn what_names_no_or_several_images_is_refused_with_their_names() {
        let error = root(&["one", "two"], &Select::Only).expect_err("two");
        assert!(matches!(&error, Error::Ambiguous { names, .. } if *names == ["one", "two"]), "{error}");
        let error = root(&["one", "two"], &Select::Name("three".to_owned())).expect_err("none").to_string();
        assert!(error.contains("one, two"), "{error}");
        assert!(matches!(root(&["one"], &Select::Index(1)), Err(Error::Missing { .. })));
        assert!(matches!(root(&["one"], &Select::Digest(Digest::sha256(b""))), Err(Error::Missing { .. })));
        assert!(matches!(root(&[], &Select::Only), Err(Error::Missing { .. })));
    }

    #[test]
    fn a_blob_of_another_size_is_refused() {
        let mut descriptor = root(&["one"], &Select::Only).expect("there").descriptor;
        assert!(archive(&["one"]).blob(&descriptor).expect("readable").is_some());
        descriptor.size += 1;
        assert!(matches!(archive(&["one"]).blob(&descriptor), Err(Error::Size { .. })));
    }

    #[test]
    fn another_layout_version_is_refused() {
        let mut members = layout(&["one"]);
        members[0].1 = br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec();
        let archive = Archive::index(blob(&tar(&members)), "x", &Limits::default()).expect("indexed");
        let error = Layout::Archive(archive).root(&Select::Only, &Limits::default());
        assert!(matches!(error, Err(Error::Unsupported { .. })), "{error:?}");
    }

    #[test]
    fn a_folder_is_read_like_an_archive() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in layout(&["one"]) {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("created");
            std::fs::write(path, bytes).expect("written");
        }
        let layout = Layout::folder(folder.path().to_owned()).expect("a layout");
        let root = layout.root(&Select::Only, &Limits::default()).expect("there");
        assert_eq!(layout.small(&root.descriptor).expect("readable"), manifest("one"));
        std::fs::remove_file(folder.path().join(place(&manifest("one")))).expect("removed");
        assert!(matches!(layout.small(&root.descriptor), Err(Error::Missing { .. })));
        assert!(matches!(Layout::folder(folder.path().join("blobs")), Err(Error::Missing { .. })));
    }
}
