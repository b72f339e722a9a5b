//! Test images, built in memory: archives, blobs and the documents of an OCI image.

use std::{io::Write as _, sync::Arc};

use dna::Digest;
use serde_json::{Value, json};

use crate::{
    Blob,
    manifest::{IMAGE_TYPES, OCI_CONFIG, OCI_LAYER},
};

/// `bytes` as a blob.
pub(crate) fn blob(bytes: &[u8]) -> Blob {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    Blob::new(Arc::new(file), 0, u64::try_from(bytes.len()).expect("small"))
}

/// A tar archive of regular files.
pub(crate) fn tar<N: AsRef<str>, B: AsRef<[u8]>>(members: &[(N, B)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(bytes.as_ref().len()).expect("small"));
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name.as_ref(), bytes.as_ref()).expect("appended");
    }
    builder.into_inner().expect("finished")
}

/// A layer of one file.
pub(crate) fn layer() -> Vec<u8> {
    tar(&[("etc/motd", "hello")])
}

/// A descriptor of `bytes`.
pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256(bytes).to_string(), "size": bytes.len()})
}

/// The config of an image of [`layer`].
pub(crate) fn config(architecture: &str) -> Vec<u8> {
    let diff_ids = [Digest::sha256(&layer()).to_string()];
    let config =
        json!({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    config.to_string().into_bytes()
}

/// The manifest of that image.
pub(crate) fn manifest(architecture: &str) -> Vec<u8> {
    let config = descriptor(OCI_CONFIG, &config(architecture));
    let layers = [descriptor(OCI_LAYER, &layer())];
    let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE_TYPES[0], "config": config, "layers": layers});
    manifest.to_string().into_bytes()
}

/// The name of a blob in a layout.
pub(crate) fn place(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::sha256(bytes).hex())
}

/// The members of a layout with one image for each tag; the tag is its architecture too.
pub(crate) fn layout(tags: &[&str]) -> Vec<(String, Vec<u8>)> {
    let mut members = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut entries = Vec::new();
    for tag in tags {
        let mut entry = descriptor(IMAGE_TYPES[0], &manifest(tag));
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        entries.push(entry);
        members.extend([manifest(tag), config(tag)].map(|bytes| (place(&bytes), bytes)));
    }
    members.push((place(&layer()), layer()));
    members.push(("index.json".to_owned(), json!({"schemaVersion": 2, "manifests": entries}).to_string().into_bytes()));
    members
}
