//! What is kept between analyses: it changes no byte of a DNA, whatever becomes of it on the disk.

use std::{collections::BTreeMap, fs, io::Write as _, os::unix::fs::FileExt as _, path::PathBuf, sync::Arc};

use analyzer::{Error, Mounted, Progress, analyze, analyze_with};
use dna::{Digest, Limits};
use oci::{Blob, Cache, Config, Contents, Digests, Image, Layer, LayerBody};

/// A static program: `mov eax, 60; syscall`.
fn program() -> Vec<u8> {
    const START: u64 = 0x40_0000;
    let code = [0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend([2u16, 62].iter().flat_map(|word| word.to_le_bytes()));
    out.extend(1u32.to_le_bytes());
    out.extend([START + 120, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    out.extend(0u32.to_le_bytes());
    out.extend([64u16, 56, 1, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    out.extend([1u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    let len = 120 + code.len() as u64;
    out.extend([0, START, START, len, len, 4096].iter().flat_map(|word| word.to_le_bytes()));
    out.extend(code);
    out
}

/// An image of two layers, whose blobs are these files.
fn image() -> (Image, Vec<fs::File>) {
    let lower: [(&str, u32, &[u8]); 3] = [
        ("bin/sh", 0o755, &program()),
        ("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\n"),
        ("large", 0o644, &[7; 100_000]),
    ];
    let upper: [(&str, u32, &[u8]); 1] = [("entry.sh", 0o755, b"#!/bin/sh\necho \"$HOME\" > /run/x\nexec \"$@\"\n")];
    let (mut layers, mut files) = (Vec::new(), Vec::new());
    for list in [&lower[..], &upper[..]] {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, mode, body) in list {
            let mut header = tar::Header::new_gnu();
            header.set_mode(*mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1);
            header.set_size(body.len() as u64);
            tar.append_data(&mut header, path, *body).expect("in memory");
        }
        let archive = tar.into_inner().expect("in memory");
        let mut blob = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        blob.write_all(&archive).expect("in memory");
        let blob = blob.finish().expect("in memory");
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&blob).expect("written");
        files.push(file.try_clone().expect("cloned"));
        layers.push(Layer {
            digest: Digest::sha256(&blob),
            media_type: String::new(),
            diff_id: Digest::sha256(&archive),
            annotations: BTreeMap::new(),
            body: LayerBody::Present(Blob::new(Arc::new(file), 0, blob.len() as u64)),
        });
    }
    let config = serde_json::json!({
        "os": "linux", "architecture": "amd64", "config": { "Entrypoint": ["/entry.sh"], "Cmd": ["/bin/sh"] },
        "rootfs": { "diff_ids": layers.iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>() },
    });
    let config: Config = serde_json::from_value(config).expect("a config");
    let image = Image {
        name: "test".to_owned(),
        digests: Digests::default(),
        platform: "linux/amd64".parse().expect("a platform"),
        config,
        contents: Contents::Layers(layers),
    };
    (image, files)
}

fn dna(image: &Image, cache: Option<&Cache>) -> Result<String, Error> {
    let limits = Limits::default();
    let analysis = analyze_with(image, &Mounted::default(), cache, &limits, &Progress::start(&limits))?;
    let answer = analysis.answer(&["/bin/sh".to_owned()])?;
    let dna = analysis.dna.to_canonical_json().expect("canonical");
    Ok(format!("{} {answer:?}", String::from_utf8(dna).expect("UTF-8")))
}

/// The files of facts in a cache folder.
fn facts(folder: &tempfile::TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.path().join("facts")).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths
}

#[test]
fn cached_or_not_the_dna_is_the_same() {
    let (image, _) = image();
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::new(folder.path(), 1 << 20);
    let limits = Limits::default();
    let plain = analyze(&image, &limits, &Progress::start(&limits)).expect("analyzed").dna;
    assert!(plain.behavior.syscalls.iter().any(|call| call.what.name == "exit"), "{:?}", plain.behavior.syscalls);
    let want = dna(&image, None).expect("analyzed");
    assert_eq!(dna(&image, Some(&cache)).expect("analyzed"), want);
    let kept = facts(&folder);
    assert_eq!(kept.len(), 3, "two layers and a program: {kept:?}");
    assert_eq!(dna(&image, Some(&cache)).expect("analyzed"), want);
    assert_eq!(facts(&folder), kept);
}

#[test]
fn a_known_layer_is_hashed_again() {
    let (image, files) = image();
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::new(folder.path(), 1 << 20);
    dna(&image, Some(&cache)).expect("analyzed");
    for file in files {
        file.write_all_at(b"!", 30).expect("spoilt");
    }
    assert!(matches!(dna(&image, Some(&cache)), Err(Error::BlobDigest { .. })));
}

#[test]
fn damaged_facts_change_nothing_and_are_made_anew() {
    let (image, _) = image();
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::new(folder.path(), 1 << 20);
    let want = dna(&image, Some(&cache)).expect("analyzed");
    for path in facts(&folder) {
        let whole = fs::read(&path).expect("there");
        let mut damaged: Vec<Vec<u8>> = vec![Vec::new(), whole.iter().rev().copied().collect()];
        damaged.push(whole.get(..whole.len() / 2).unwrap_or_default().to_vec());
        for at in (0..whole.len()).step_by(whole.len() / 20 + 1) {
            let mut bytes = whole.clone();
            bytes.iter_mut().skip(at).take(3).for_each(|byte| *byte ^= 0x55);
            damaged.push(bytes);
        }
        for bytes in damaged {
            fs::write(&path, &bytes).expect("damaged");
            assert_eq!(dna(&image, Some(&cache)).expect("analyzed"), want);
            let now = fs::read(&path).expect("made anew");
            // Damage in what no step reads may stay.
            assert!(now == whole || now == bytes);
        }
        fs::write(&path, &whole).expect("mended");
    }
}

#[test]
fn a_cache_that_fails_or_is_too_small_fails_no_analysis() {
    let (image, _) = image();
    let want = dna(&image, None).expect("analyzed");
    let nowhere = Cache::new("/proc/none", 1 << 20);
    assert_eq!(dna(&image, Some(&nowhere)).expect("analyzed"), want);
    let folder = tempfile::tempdir().expect("a folder");
    let small = Cache::new(folder.path(), 10);
    assert_eq!(dna(&image, Some(&small)).expect("analyzed"), want);
    assert_eq!(facts(&folder), Vec::<PathBuf>::new());
}

#[test]
fn many_at_once_keep_the_same_facts() {
    let (image, _) = image();
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::new(folder.path(), 1 << 20);
    let want = dna(&image, None).expect("analyzed");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(dna(&image, Some(&cache)).expect("analyzed"), want));
        }
    });
    assert_eq!(facts(&folder).len(), 3);
}
