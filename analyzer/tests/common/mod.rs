//! Opens an image layout for tests, the plainest way.

use std::{fs, path::Path, sync::Arc};

/// The first image of the layout, its layers gzip, zstd or plain.
pub fn open(layout: &Path) -> oci::Image {
    let blob = |digest: &serde_json::Value| {
        layout.join("blobs/sha256").join(digest.as_str().expect("a digest").trim_start_matches("sha256:"))
    };
    let read = |path: std::path::PathBuf| fs::read(path).expect("a blob");
    let index: serde_json::Value = serde_json::from_slice(&read(layout.join("index.json"))).expect("JSON");
    let manifest: serde_json::Value =
        serde_json::from_slice(&read(blob(&index["manifests"][0]["digest"]))).expect("JSON");
    let config: oci::Config = serde_json::from_slice(&read(blob(&manifest["config"]["digest"]))).expect("JSON");
    let layers = manifest["layers"].as_array().expect("a list").iter().zip(&config.rootfs.diff_ids);
    let layers = layers
        .map(|(layer, diff_id)| {
            let file = fs::File::open(blob(&layer["digest"])).expect("a layer");
            let len = file.metadata().expect("metadata").len();
            oci::Layer {
                digest: layer["digest"].as_str().expect("a digest").parse().expect("a digest"),
                media_type: String::new(),
                diff_id: diff_id.clone(),
                annotations: Default::default(),
                body: oci::LayerBody::Present(oci::Blob::new(Arc::new(file), 0, len)),
            }
        })
        .collect();
    oci::Image {
        name: layout.display().to_string(),
        digests: Default::default(),
        platform: "linux/amd64".parse().expect("a platform"),
        config,
        contents: oci::Contents::Layers(layers),
    }
}
