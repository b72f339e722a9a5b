//! OCI images built by code: layers and a config in, an image layout on disk out.

use std::{fs, io::Write as _, path::Path};

use dna::Digest;
use serde_json::{Value, json};

/// One layer in the making: a tar archive.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    /// Adds a regular file owned by root.
    pub fn file(mut self, path: &str, mode: u32, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut header = header(tar::EntryType::Regular, mode);
        header.set_size(body.len() as u64);
        self.0.append_data(&mut header, path.trim_start_matches('/'), body).expect("fits");
        self
    }

    /// Adds a symbolic link.
    pub fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = header(tar::EntryType::Symlink, 0o777);
        self.0.append_link(&mut header, path.trim_start_matches('/'), target).expect("fits");
        self
    }
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(0);
    header
}

/// One or more images of one layout.
#[derive(Default)]
pub struct ImageBuilder {
    layers: Vec<Layer>,
    config: Value,
    platforms: Vec<(String, String)>,
}

impl ImageBuilder {
    /// An image that runs with `config`, the execution parameters of an OCI image config.
    pub fn new(config: Value) -> Self {
        Self { layers: Vec::new(), config, platforms: vec![("linux".into(), "amd64".into())] }
    }

    /// Puts a layer on top.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Makes the same files an image for each of these platforms, under one index.
    pub fn platforms(mut self, platforms: &[(&str, &str)]) -> Self {
        self.platforms = platforms.iter().map(|(os, arch)| ((*os).to_owned(), (*arch).to_owned())).collect();
        self
    }

    /// Writes the layout, gzip layers, tagged `latest`.
    pub fn write(self, layout: &Path) {
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("created");
        let put = |body: &[u8]| {
            let digest = Digest::sha256(body);
            fs::write(blobs.join(digest.hex()), body).expect("written");
            (digest.to_string(), body.len())
        };
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in self.layers {
            let archive = layer.0.into_inner().expect("finished");
            diff_ids.push(Digest::sha256(&archive).to_string());
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            gzip.write_all(&archive).expect("in memory");
            let (digest, size) = put(&gzip.finish().expect("in memory"));
            layers.push(
                json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size}),
            );
        }
        let mut manifests = Vec::new();
        for (os, architecture) in &self.platforms {
            let config = json!({
                "os": os, "architecture": architecture, "config": self.config,
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "history": diff_ids.iter().map(|_| json!({"created_by": "COPY . /"})).collect::<Vec<_>>(),
            });
            let (digest, size) = put(config.to_string().as_bytes());
            let manifest = json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size},
            });
            let (digest, size) = put(manifest.to_string().as_bytes());
            manifests.push(json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
                "platform": {"os": os, "architecture": architecture},
            }));
        }
        let mut top = match manifests.len() {
            1 => manifests.remove(0),
            _ => {
                let index = json!({
                    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
                });
                let (digest, size) = put(index.to_string().as_bytes());
                json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": size})
            }
        };
        top["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        let index = json!({"schemaVersion": 2, "manifests": [top]});
        fs::write(layout.join("index.json"), index.to_string()).expect("written");
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    }
}
