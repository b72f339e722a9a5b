//! From a [`Source`] to its images: each medium's own way, one result.

use std::{
    collections::BTreeMap,
    fs::File,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use dna::{Digest, Limits, Platform};

use crate::{
    Blob, Config, Contents, Digests, Error, Image, Progress, Select, Source,
    archive::Archive,
    docker_archive,
    layout::{Layout, bounded},
    manifest::Descriptor,
    resolve::{Resolve, Wanted, parse_config, platform_of, serves},
    spool,
};

/// How to open a source.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which platform of an image for several; none: the machine's, or where there is only one image, that one.
    pub platform: Option<Platform>,
    /// All platforms of an image for several.
    pub all_platforms: bool,
    /// The image config that belongs to an unpacked root (`dir:`); other sources have their own.
    pub config: Option<PathBuf>,
    /// Limits on what is read.
    pub limits: Limits,
    /// Told how far transfers are.
    pub progress: Arc<Progress>,
    /// How registries are reached.
    #[cfg(feature = "registry")]
    pub registry: crate::registry::Settings,
}

impl Options {
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted { platform: self.platform.clone(), all: self.all_platforms }
    }
}

/// Images with the documents they were read from, so that they can be kept byte for byte.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Indexes on the way, outermost first.
    pub(crate) indexes: Vec<(Descriptor, Vec<u8>)>,
    pub(crate) images: Vec<OpenedImage>,
    /// The tag or reference it has at its source.
    pub(crate) name: Option<String>,
}

#[derive(Debug)]
pub(crate) struct OpenedImage {
    pub(crate) image: Image,
    /// Descriptor and bytes of its manifest, where its medium has one.
    pub(crate) manifest: Option<(Descriptor, Vec<u8>)>,
    pub(crate) config: Vec<u8>,
}

/// The images of a source: one, or with [`Options::all_platforms`] one for each platform. Manifests, indexes and configs
/// are verified; layers are verified by whoever reads them, those from a registry also while they are fetched.
///
/// Without feature `registry`, registries and the Docker daemon are [`Error::Unsupported`]. With it, this starts an own
/// runtime for them and must not be called from within another one: there, `open_async` is.
///
/// # Errors
/// [`Error`]: there is no image, it is not what its digest says, or it exceeds a limit.
pub fn open(source: &Source, options: &Options) -> Result<Vec<Image>, Error> {
    Ok(images(open_all(source, options)?))
}

pub(crate) fn images(opened: Opened) -> Vec<Image> {
    opened.images.into_iter().map(|opened| opened.image).collect()
}

pub(crate) fn open_all(source: &Source, options: &Options) -> Result<Opened, Error> {
    let (name, limits) = (source.to_string(), &options.limits);
    match source {
        Source::Layout(path, select) => layout(&Layout::folder(path.clone())?, select, &name, options),
        Source::OciArchive(path, select) => {
            let archive = Archive::index(archive_file(path, limits)?, &path.display().to_string(), limits)?;
            if archive.member("index.json").is_none() && archive.member("manifest.json").is_some() {
                let hint = format!("it is what `docker save` writes: name it `docker-archive:{}`", path.display());
                return Err(Error::Missing { what: format!("an OCI layout in {}", path.display()), hint });
            }
            layout(&Layout::Archive(archive), select, &name, options)
        }
        Source::DockerArchive(path, select) => {
            let archive = Archive::index(archive_file(path, limits)?, &path.display().to_string(), limits)?;
            docker(&archive, select, &name, options)
        }
        Source::Stdin => {
            let stdin = std::io::stdin().lock();
            if stdin.is_terminal() {
                let hint = "pipe an archive in, such as `docker save IMAGE | mayfly analyze -`".to_owned();
                return Err(Error::Missing { what: "an archive on standard input".to_owned(), hint });
            }
            any_archive(spool::spool(stdin, STDIN, limits)?, STDIN, &name, options)
        }
        Source::Directory(path) => directory(path, &name, options),
        #[cfg(feature = "registry")]
        Source::Registry(_) | Source::DockerDaemon(_) => crate::registry::block_on(source, options),
        #[cfg(not(feature = "registry"))]
        Source::Registry(_) | Source::DockerDaemon(_) => {
            let reason = "this program was built without the registry client (feature `registry`)".to_owned();
            Err(Error::Unsupported { what: name, reason })
        }
    }
}

/// The images of an archive that is open already, of either kind, plain or compressed; `name` is what it is called.
///
/// # Errors
/// As [`open`].
pub fn open_archive(file: File, name: &str, options: &Options) -> Result<Vec<Image>, Error> {
    let len = file.metadata().map_err(|error| Error::read(name, error))?.len();
    let blob = spool::inflated(Blob::new(Arc::new(file), 0, len), name, &options.limits)?;
    any_archive(blob, name, name, options).map(images)
}

/// An archive whose kind its content tells: an OCI layout where there is one, for it has more digests.
fn any_archive(blob: Blob, what: &str, name: &str, options: &Options) -> Result<Opened, Error> {
    let archive = Archive::index(blob, what, &options.limits)?;
    if archive.member("index.json").is_some() {
        return layout(&Layout::Archive(archive), &Select::Only, name, options);
    }
    if archive.member("manifest.json").is_some() {
        return docker(&archive, &Select::Only, name, options);
    }
    Err(Error::malformed(what, "it is a tar archive, but no image: it has neither `index.json` nor `manifest.json`"))
}

pub(crate) fn layout(layout: &Layout, select: &Select, name: &str, options: &Options) -> Result<Opened, Error> {
    let limits = &options.limits;
    let wanted = options.wanted();
    let mut root = layout.root(select, limits)?;
    let mut resolve = Resolve::new(root.descriptor, &layout.what(), &wanted, limits);
    while let Some(descriptor) = resolve.needs()? {
        let bytes = match root.bytes.take() {
            Some(bytes) => bytes,
            None => layout.small(descriptor)?,
        };
        resolve.give(bytes)?;
    }
    let resolved = resolve.finish()?;
    let mut images = Vec::new();
    for found in resolved.found {
        found.check_size(name, limits)?;
        let mut bodies: BTreeMap<Digest, Blob> = BTreeMap::new();
        for layer in found.needed_layers() {
            let hint = || "the layout is incomplete; copy the image again".to_owned();
            let what = || format!("layer {} of {}", layer.digest, layout.what());
            let blob = layout.blob(layer)?.ok_or_else(|| Error::Missing { what: what(), hint: hint() })?;
            bodies.insert(layer.digest.clone(), blob);
        }
        let image = found.image(name, &bodies);
        images.push(OpenedImage {
            image,
            manifest: Some((found.descriptor, found.manifest_bytes)),
            config: found.config_bytes,
        });
    }
    Ok(Opened { indexes: resolved.indexes, images, name: root.name })
}

pub(crate) fn docker(archive: &Archive, select: &Select, name: &str, options: &Options) -> Result<Opened, Error> {
    let (image, config) = docker_archive::image(archive, select, name, &options.limits)?;
    if let Some(wanted) = options.platform.as_ref().filter(|wanted| !serves(wanted, &image.platform)) {
        return Err(Error::Platform { wanted: wanted.clone(), available: vec![image.platform.to_string()] });
    }
    let name = match select {
        Select::Name(name) => Some(name.clone()),
        _ => None,
    };
    Ok(Opened { indexes: Vec::new(), images: vec![OpenedImage { image, manifest: None, config }], name })
}

fn directory(path: &Path, name: &str, options: &Options) -> Result<Opened, Error> {
    if !path.is_dir() {
        let hint = "`dir:` takes the folder of an unpacked root file system".to_owned();
        return Err(Error::Missing { what: format!("folder {}", path.display()), hint });
    }
    let (config, bytes) = match &options.config {
        None => (Config::default(), None),
        Some(path) => {
            let what = path.display().to_string();
            let bytes = bounded(&file(path)?, &what, &options.limits)?;
            (parse_config(&bytes, &what)?, Some(bytes))
        }
    };
    let platform = options.platform.clone().or_else(|| platform_of(&config)).unwrap_or_else(Platform::host);
    let digests = Digests { config: bytes.as_deref().map(Digest::sha256), ..Digests::default() };
    let contents = Contents::Directory(path.to_owned());
    let image = Image { name: name.to_owned(), digests, platform, config, contents };
    let images = vec![OpenedImage { image, manifest: None, config: bytes.unwrap_or_default() }];
    Ok(Opened { indexes: Vec::new(), images, name: None })
}

fn archive_file(path: &Path, limits: &Limits) -> Result<Blob, Error> {
    if path.is_dir() {
        let hint =
            format!("it is a folder: write `oci:{0}` for a layout or `dir:{0}` for an unpacked root", path.display());
        return Err(Error::Missing { what: format!("an archive at {}", path.display()), hint });
    }
    spool::inflated(file(path)?, &path.display().to_string(), limits)
}

fn file(path: &Path) -> Result<Blob, Error> {
    let read = |error| Error::read(path.display().to_string(), error);
    let metadata = std::fs::metadata(path).map_err(read)?;
    if !metadata.is_file() {
        let hint = "it is no regular file; pipe it in and name it `-`".to_owned();
        return Err(Error::Missing { what: format!("a file at {}", path.display()), hint });
    }
    Ok(Blob::new(Arc::new(File::open(path).map_err(read)?), 0, metadata.len()))
}

const STDIN: &str = "standard input";

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        LayerBody,
        fixture::{self, blob, tar},
    };

    fn opened(members: &[(String, Vec<u8>)]) -> Result<Vec<Image>, Error> {
        any_archive(blob(&tar(members)), "x", "x", &Options::default()).map(images)
    }

    proptest! {
        #[test]
        fn no_bytes_make_opening_panic(at in 0usize..9000, with in proptest::collection::vec(any::<u8>(), 1..20)) {
            let mut bytes = tar(&fixture::layout(&["amd64"]));
            let end = bytes.len().min(at + with.len());
            bytes.splice(at.min(end)..end, with);
            let _ = any_archive(blob(&bytes), "x", "x", &Options::default());
        }
    }

    #[test]
    fn the_kind_of_an_archive_is_told_by_its_content() {
        let images = opened(&fixture::layout(&["amd64"])).expect("an OCI archive");
        assert!(images[0].digests.manifest.is_some());
        let config = fixture::config("amd64");
        let manifest = br#"[{"Config":"c","Layers":["l"]}]"#.to_vec();
        let members = [("c", config), ("l", fixture::layer()), ("manifest.json", manifest)];
        let images = opened(&members.map(|(name, bytes)| (name.to_owned(), bytes))).expect("a docker archive");
        assert_eq!(images[0].digests.manifest, None);
        let error = opened(&[("x".to_owned(), Vec::new())]).expect_err("no image").to_string();
        assert!(error.contains("neither"), "{error}");
    }

    #[test]
    fn a_compressed_archive_file_opens_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("image.tar.zst");
        fs::write(&path, zstd::encode_all(&*tar(&fixture::layout(&["amd64"])), 1).expect("encoded")).expect("written");
        let source: Source = format!("oci-archive:{}", path.display()).parse().expect("a source");
        let images = open(&source, &Options::default()).expect("opened");
        let Contents::Layers(layers) = &images[0].contents else { panic!("no layers") };
        assert!(matches!(&layers[0].body, LayerBody::Present(blob) if blob.len() == fixture::layer().len() as u64));
        let docker: Source = format!("docker-archive:{}", path.display()).parse().expect("a source");
        let error = open(&docker, &Options::default()).expect_err("none").to_string();
        assert!(error.contains("oci-archive:"), "{error}");
    }

    #[test]
    fn a_missing_layer_is_an_error_of_the_layout() {
        let mut members = fixture::layout(&["amd64"]);
        members.retain(|(_, bytes)| *bytes != fixture::layer());
        let error = opened(&members).expect_err("incomplete");
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }

    #[test]
    fn an_image_larger_than_the_limit_is_refused() {
        let options = Options { limits: Limits { image_bytes: 10, ..Limits::default() }, ..Options::default() };
        let error = any_archive(blob(&tar(&fixture::layout(&["amd64"]))), "x", "x", &options).expect_err("large");
        assert!(matches!(error, Error::Limit { name: "image_bytes", .. }), "{error}");
    }

    #[test]
    fn an_unpacked_root_has_the_config_it_is_given() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("config.json");
        fs::write(&config, br#"{"os":"linux","architecture":"riscv64","config":{"Cmd":["/a"]}}"#).expect("written");
        let source = Source::Directory(folder.path().to_owned());
        let options = Options { config: Some(config.clone()), ..Options::default() };
        let images = open(&source, &options).expect("opened");
        assert_eq!(images[0].platform.to_string(), "linux/riscv64");
        assert_eq!(images[0].config.config.cmd, ["/a"]);
        assert_eq!(open(&source, &Options::default()).expect("opened")[0].platform, Platform::host());
        assert!(matches!(open(&Source::Directory(config), &options), Err(Error::Missing { .. })));
    }
}
