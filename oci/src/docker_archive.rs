//! What `docker save` writes: `manifest.json` in an archive in, one image out. Source: Docker image specification v1.2,
//! "Combined Image JSON + Filesystem Changeset Format". Its layers are known by their diff ids only.

use std::io::{self, Read as _};

use dna::{Digest, Limits, Platform};
use serde::Deserialize;
use sha2::Digest as _;

use crate::{
    Blob, Contents, Digests, Error, Image, Layer, LayerBody, Reference, Select,
    archive::Archive,
    error::clean,
    layout::bounded,
    manifest::within,
    resolve::{parse_config, platform_of},
    spool::Compression,
};

/// One image of the archive.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The image that `select` names, with the bytes of its config.
///
/// # Errors
/// [`Error::Ambiguous`] where it names several; [`Error::Digest`] where the config's name is not its digest.
pub(crate) fn image(
    archive: &Archive,
    select: &Select,
    name: &str,
    limits: &Limits,
) -> Result<(Image, Vec<u8>), Error> {
    let what = format!("manifest.json of {}", archive.what);
    let hint = || {
        "an archive that `docker save` wrote has one; an OCI layout in an archive is named `oci-archive:FILE`"
            .to_owned()
    };
    let manifest =
        archive.member("manifest.json").ok_or_else(|| Error::Missing { what: what.clone(), hint: hint() })?;
    let items: Vec<Item> =
        serde_json::from_slice(&bounded(&manifest, &what, limits)?).map_err(|error| Error::json(&what, &error))?;
    let item = choose(&items, select, archive)?;
    let what = format!("config {} of {}", clean(&item.config), archive.what);
    let config = archive.member(&item.config).ok_or_else(|| missing(&what))?;
    let config_bytes = bounded(&config, &what, limits)?;
    let digest = Digest::sha256(&config_bytes);
    if let Some(expected) = named_digest(&item.config).filter(|expected| *expected != digest) {
        return Err(Error::Digest { what, expected, actual: digest });
    }
    let config = parse_config(&config_bytes, &what)?;
    let names = item.layers.as_deref().unwrap_or_default();
    within(names.len(), limits.layers, "layers", format!("the number of layers of {}", archive.what))?;
    if names.len() != config.rootfs.diff_ids.len() {
        return Err(Error::LayerCount { layers: names.len(), diff_ids: config.rootfs.diff_ids.len() });
    }
    let mut layers = Vec::new();
    for (name, diff_id) in names.iter().zip(&config.rootfs.diff_ids) {
        let what = format!("layer {} of {}", clean(name), archive.what);
        let blob = archive.member(name).ok_or_else(|| missing(&what))?;
        layers.push(layer(blob, name, diff_id, &what)?);
    }
    let image = Image {
        name: name.to_owned(),
        digests: Digests { config: Some(digest), ..Digests::default() },
        platform: platform_of(&config).unwrap_or_else(|| Platform::new("linux", "unknown", None)),
        config,
        contents: Contents::Layers(layers),
    };
    Ok((image, config_bytes))
}

fn missing(what: &str) -> Error {
    Error::Missing { what: what.to_owned(), hint: "the archive is incomplete".to_owned() }
}

/// A layer whose blob is the plain archive has its diff id as digest; one that some tool compressed has to be hashed.
fn layer(blob: Blob, name: &str, diff_id: &Digest, what: &str) -> Result<Layer, Error> {
    let mut start = Vec::new();
    blob.reader().take(6).read_to_end(&mut start).map_err(|error| Error::read(what, error))?;
    let digest = match (Compression::of(&start, what)?, named_digest(name)) {
        (Compression::None, _) => diff_id.clone(),
        (_, Some(digest)) => digest,
        (_, None) => {
            let mut hasher = Hash(sha2::Sha256::new());
            io::copy(&mut blob.reader(), &mut hasher).map_err(|error| Error::read(what, error))?;
            Digest::from_sha256(hasher.0.finalize().into())
        }
    };
    let (media_type, annotations) = Default::default();
    Ok(Layer { digest, media_type, diff_id: diff_id.clone(), annotations, body: LayerBody::Present(blob) })
}

struct Hash(sha2::Sha256);

impl io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn choose<'a>(items: &'a [Item], select: &Select, archive: &Archive) -> Result<&'a Item, Error> {
    let tags = |item: &Item| item.repo_tags.clone().unwrap_or_default();
    let places =
        || items.iter().enumerate().map(|(at, item)| tags(item).into_iter().next().unwrap_or(format!("@{at}")));
    let fits = |item: &&Item| match select {
        Select::Only => true,
        Select::Name(name) => tags(item).iter().any(|tag| same_name(tag, name)),
        Select::Index(_) | Select::Digest(_) => false,
    };
    let chosen: Vec<_> = match select {
        Select::Index(at) => usize::try_from(*at).ok().and_then(|at| items.get(at)).into_iter().collect(),
        _ => items.iter().filter(fits).collect(),
    };
    match chosen.as_slice() {
        [item] => Ok(item),
        [] => {
            let hint = format!("there is: {}", clean(&places().collect::<Vec<_>>().join(", ")));
            Err(Error::Missing { what: format!("image `{}` in {}", clean(&select.to_string()), archive.what), hint })
        }
        _ => Err(Error::Ambiguous { what: archive.what.clone(), names: places().collect() }),
    }
}

/// Whether a tag of the archive is the one typed: the same text, the same normalized reference, or its tag alone.
fn same_name(tag: &str, typed: &str) -> bool {
    let reference = |text: &str| text.parse::<Reference>().ok();
    tag == typed
        || reference(tag)
            .is_some_and(|tag| tag.tag() == Some(typed) || reference(typed).is_some_and(|typed| tag == typed))
}

/// The digest in a member's name: `blobs/sha256/HEX`, `HEX.json`, `HEX.tar` or `HEX`.
fn named_digest(name: &str) -> Option<Digest> {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    let hex = match folder {
        "" => file.strip_suffix(".json")?,
        "blobs/sha256" => file,
        _ => return None,
    };
    format!("sha256:{hex}").parse().ok()
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture::{blob, config, layer, tar};

    fn members(tags: &[&str]) -> Vec<(String, Vec<u8>)> {
        let mut items = Vec::new();
        let mut members = vec![("l/layer.tar".to_owned(), layer())];
        for (at, tag) in tags.iter().enumerate() {
            let config = config(&format!("arch{at}"));
            let name = format!("{}.json", Digest::sha256(&config).hex());
            items.push(json!({"Config": name, "RepoTags": [tag], "Layers": ["l/layer.tar"]}));
            members.push((name, config));
        }
        members.push(("manifest.json".to_owned(), json!(items).to_string().into_bytes()));
        members
    }

    fn open(members: &[(String, Vec<u8>)], select: &Select) -> Result<Image, Error> {
        let archive = Archive::index(blob(&tar(members)), "a.tar", &Limits::default()).expect("indexed");
        image(&archive, select, "x", &Limits::default()).map(|(image, _)| image)
    }

    fn only_layer(image: &Image) -> &Layer {
        let Contents::Layers(layers) = &image.contents else { panic!("no layers") };
        &layers[0]
    }

    #[test]
    fn the_only_image_needs_no_name() {
        let image = open(&members(&["a/b:1"]), &Select::Only).expect("there");
        assert_eq!(image.platform.to_string(), "linux/arch0");
        assert_eq!(image.digests.config, Some(Digest::sha256(&config("arch0"))));
        assert_eq!(only_layer(&image).digest, Digest::sha256(&layer()));
    }

    #[test]
    fn one_of_several_is_named_by_reference_tag_or_place() {
        let two = members(&["nginx:1", "docker.io/library/redis:2"]);
        for select in ["redis:2", "2", "docker.io/library/redis:2"].map(|name| Select::Name(name.to_owned())) {
            assert_eq!(open(&two, &select).expect("there").platform.to_string(), "linux/arch1", "{select:?}");
        }
        assert_eq!(open(&two, &Select::Index(1)).expect("there").platform.to_string(), "linux/arch1");
        let error = open(&two, &Select::Only).expect_err("two").to_string();
        assert!(error.contains("nginx:1, docker.io/library/redis:2"), "{error}");
        assert!(matches!(open(&two, &Select::Name("x:1".to_owned())), Err(Error::Missing { .. })));
    }

    #[test]
    fn a_compressed_layer_is_known_by_its_own_digest() {
        let packed = zstd::encode_all(&*layer(), 1).expect("encoded");
        let mut members = members(&["a:1"]);
        members[0].1 = packed.clone();
        let image = open(&members, &Select::Only).expect("there");
        assert_eq!(only_layer(&image).digest, Digest::sha256(&packed));
        assert_eq!(only_layer(&image).diff_id, Digest::sha256(&layer()));
    }

    #[test]
    fn changed_config_missing_layer_and_wrong_count_are_refused() {
        let mut changed = members(&["a:1"]);
        changed[1].1.push(b' ');
        assert!(matches!(open(&changed, &Select::Only), Err(Error::Digest { .. })));
        let mut missing = members(&["a:1"]);
        missing.remove(0);
        assert!(matches!(open(&missing, &Select::Only), Err(Error::Missing { .. })));
        let mut count = members(&["a:1"]);
        let name = count[1].0.clone();
        count[2].1 = json!([{"Config": name, "Layers": []}]).to_string().into_bytes();
        assert!(matches!(open(&count, &Select::Only), Err(Error::LayerCount { layers: 0, diff_ids: 1 })));
        assert!(matches!(open(&missing[..1], &Select::Only), Err(Error::Missing { .. })), "no manifest.json");
    }
}
