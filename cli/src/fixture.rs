//! Images built in memory, for tests of everything that is printed.

use std::{io::Write as _, sync::Arc};

use dna::{Digest, Limits};
use oci::{Blob, Config, Contents, Digests, Image, Layer, LayerBody};

/// An image of one plain layer with these files (path, mode, body), run with this config (the `config` of an image config).
pub(crate) fn image(config: &serde_json::Value, files: &[(&str, u32, &[u8])]) -> Image {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, body) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(body.len() as u64);
        tar.append_data(&mut header, path.trim_start_matches('/'), *body).expect("in memory");
    }
    let archive = tar.into_inner().expect("in memory");
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&archive).expect("written");
    let digest = Digest::sha256(&archive);
    let config = serde_json::json!({
        "os": "linux", "architecture": "amd64", "config": config, "rootfs": { "diff_ids": [digest] },
        "history": [{ "created_by": config["history"] }],
    });
    let config: Config = serde_json::from_value(config).expect("a config");
    let layer = Layer {
        digest: digest.clone(),
        media_type: String::new(),
        diff_id: digest.clone(),
        annotations: Default::default(),
        body: LayerBody::Present(Blob::new(Arc::new(file), 0, archive.len() as u64)),
    };
    Image {
        name: "registry.test/team/app:1".to_owned(),
        digests: Digests { index: None, manifest: Some(digest.clone()), config: Some(digest) },
        platform: "linux/amd64".parse().expect("a platform"),
        config,
        contents: Contents::Layers(vec![layer]),
    }
}

/// What is worked out of it.
pub(crate) fn analysis(image: &Image) -> analyzer::Analysis {
    let limits = Limits::default();
    analyzer::analyze(image, &limits, &analyzer::Progress::start(&limits)).expect("analyzes")
}
