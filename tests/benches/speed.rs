//! How fast `mayfly analyze` is, as ratios taken in one run: against `gzip -dc` and `zstd -dc` of the same layers, against
//! syft on the same archive, against itself where it kept the layers below and the code in them, and the peak of memory. The
//! first rows use no cache. A row that is over its limit says so. Run: `cargo bench -p tests --features e2e --bench speed`;
//! `BENCH` names other images than the servers, `ROUNDS` how often each pair is taken.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::{Value, json};
use tests::{mayfly_path, run, tool};

/// Pairs taken for one ratio.
fn rounds() -> usize {
    env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).filter(|rounds| *rounds != 0).unwrap_or(3)
}

/// Wall seconds of a command with its output thrown away.
fn seconds(command: &mut Command) -> f64 {
    let start = Instant::now();
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("runs");
    assert!(done.success(), "{command:?}");
    start.elapsed().as_secs_f64()
}

/// The median of pairwise ratios of two commands run in turn, with the median seconds of each.
fn ratio(mut ours: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64, rounds: usize) -> (f64, f64, f64) {
    if rounds > 1 {
        ours();
        theirs();
    }
    let pairs: Vec<(f64, f64)> = (0..rounds).map(|_| (ours(), theirs())).collect();
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    (
        median(pairs.iter().map(|(a, b)| a / b).collect()),
        median(pairs.iter().map(|(a, _)| *a).collect()),
        median(pairs.iter().map(|(_, b)| *b).collect()),
    )
}

/// An image after another of those given that has the same base, over the same image with nothing kept; none where there is no such.
fn kept(images: &Path, name: &str, chosen: &str, folder: &Path) -> Option<(f64, f64, f64)> {
    let source = |name: &str| format!("oci:{}", images.join(name).display());
    let base = |name: &str| layers(&images.join(name)).first().and_then(|blob| blob.file_name().map(ToOwned::to_owned));
    let other = chosen.split(',').find(|other| *other != name && base(other) == base(name))?;
    let cache = folder.join("cache");
    let analyze = |name: &str, options: &[&str]| {
        seconds(
            Command::new(mayfly_path())
                .args(["analyze", &source(name), "--format", "json", "--cache-dir"])
                .arg(&cache)
                .args(options),
        )
    };
    let second = || {
        let _ = fs::remove_dir_all(&cache);
        analyze(other, &[]);
        analyze(name, &[])
    };
    Some(ratio(second, || analyze(name, &["--no-cache"]), rounds()))
}

/// Peak resident memory of an analysis without cache, in MiB.
fn peak(source: &str) -> f64 {
    let mut command = tool("/usr/bin/time", "time");
    command.arg("-f").arg("%M").arg(mayfly_path()).args(["analyze", source, "--no-cache", "--format", "json"]);
    let done = run(&mut command).ok();
    done.stderr.lines().last().and_then(|line| line.parse::<f64>().ok()).expect("kilobytes") / 1024.0
}

/// The file of a blob in a layout.
fn blob(layout: &Path, digest: &Value) -> PathBuf {
    layout.join("blobs/sha256").join(digest.as_str().expect("a digest").trim_start_matches("sha256:"))
}

/// Manifest and config of the first image of a layout.
fn documents(layout: &Path) -> (Value, Value) {
    let read = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON") };
    let index = read(layout.join("index.json"));
    let manifest = read(blob(layout, &index["manifests"][0]["digest"]));
    let config = read(blob(layout, &manifest["config"]["digest"]));
    (manifest, config)
}

/// The blobs of the layers of the first image of a layout.
fn layers(layout: &Path) -> Vec<PathBuf> {
    let (manifest, _) = documents(layout);
    manifest["layers"].as_array().expect("a list").iter().map(|layer| blob(layout, &layer["digest"])).collect()
}

fn main() {
    let images = PathBuf::from(env::var_os("IMAGES").expect("IMAGES names the folder of image layouts"));
    let syft = env::var_os("SYFT");
    let chosen = env::var("BENCH").unwrap_or_else(|_| "nginx,redis,haproxy,postgres".into());
    let folder = tempfile::tempdir().expect("a folder");
    println!("{:12} {:>9} {:>28} {:>9}", "image", "mayfly s", "peer s", "ratio");
    for name in chosen.split(',') {
        let layout = images.join(name);
        let source = format!("oci:{}", layout.display());
        let analyze = |source: &str| {
            seconds(Command::new(mayfly_path()).args(["analyze", source, "--no-cache", "--format", "json"]))
        };
        let row = |peer: &str, (ratio, ours, theirs): (f64, f64, f64), limit: f64| {
            let verdict = verdict(ratio, limit);
            println!(
                "{name:12} {ours:>9.3} {:>28} {ratio:>9.2}  (limit {limit}){verdict}",
                format!("{peer} {theirs:.3}")
            );
        };
        let gzip = || seconds(tool("gzip", "gzip").arg("-dc").args(layers(&layout)));
        row("gzip -dc", ratio(|| analyze(&source), gzip, rounds()), 1.2);
        let zstd = folder.path().join(name);
        let zstd_source = format!("oci:{}:latest", zstd.display());
        run(tool("skopeo", "skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--dest-compress-format", "zstd"])
            .args([&format!("{source}:truth/{name}:latest"), &zstd_source]))
        .ok();
        let unzstd = || seconds(tool("zstd", "zstd").args(["-dc", "-T1"]).args(layers(&zstd)));
        row("zstd -dc", ratio(|| analyze(&zstd_source), unzstd, rounds()), 3.0);
        if let Some(syft) = &syft {
            let archive = folder.path().join(format!("{name}.tar"));
            let there = format!("oci-archive:{}", archive.display());
            // With directory entries and names that do not start with `./`: syft reads no other.
            let mut pack = tool("tar", "tar");
            pack.arg("-C").arg(&layout).arg("-cf").arg(&archive).args(["blobs", "index.json", "oci-layout"]);
            run(&mut pack).ok();
            let syft = || seconds(Command::new(syft).args(["scan", "-q", &there, "-o", "json"]));
            row("syft", ratio(|| analyze(&there), syft, 1), 0.2);
        }
        if let Some(ratio) = kept(&images, name, &chosen, folder.path()) {
            row("without cache", ratio, 0.4);
        }
    }
    let mut names: Vec<_> =
        fs::read_dir(&images).expect("a folder").filter_map(|entry| Some(entry.ok()?.path())).collect();
    names.retain(|path| path.join("index.json").exists());
    let peaks =
        names.iter().map(|path| (peak(&format!("oci:{}", path.display())), path.file_name().unwrap_or_default()));
    let (mib, name) = peaks.max_by(|one, other| one.0.total_cmp(&other.0)).expect("images");
    let count = names.len();
    let over = verdict(mib, PEAK_MIB);
    println!("{:12} {mib:>9.0} MiB peak, the highest of {count} images  (limit {PEAK_MIB}){over}", name.display());
    let (stacked, mib) = stack(&images, &folder.path().join("stacked"));
    let peak = peak(&format!("oci:{}", stacked.display()));
    let over = verdict(peak, PEAK_MIB);
    println!("{:12} {peak:>9.0} MiB peak, {mib} MiB unpacked  (limit {PEAK_MIB}){over}", "stacked");
}

/// What a row says where its limit is passed.
fn verdict(value: f64, limit: f64) -> &'static str {
    if value > limit { "  OVER" } else { "" }
}

const PEAK_MIB: f64 = 256.0;

/// One image with the layers of all, lowest base once, until it unpacks to a gigabyte: for the peak of memory.
fn stack(images: &Path, layout: &Path) -> (PathBuf, u64) {
    let mut names: Vec<_> = fs::read_dir(images).expect("a folder").filter_map(|e| Some(e.ok()?.path())).collect();
    names.sort();
    let (mut descriptors, mut diff_ids, mut bytes) = (Vec::new(), Vec::new(), 0);
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("created");
    for image in names.iter().filter(|path| path.join("index.json").exists()) {
        let (manifest, config) = documents(image);
        let ids = config["rootfs"]["diff_ids"].as_array().expect("a list");
        for (descriptor, id) in manifest["layers"].as_array().expect("a list").iter().zip(ids) {
            if bytes >= 1 << 30 || diff_ids.contains(id) {
                continue;
            }
            let path = blob(image, &descriptor["digest"]);
            let unpacked = run(tool("sh", "dash").args(["-c", "gzip -dc \"$0\" | wc -c"]).arg(&path)).ok().text();
            bytes += unpacked.trim().parse::<u64>().expect("a number");
            fs::copy(&path, blob(layout, &descriptor["digest"])).expect("copied");
            descriptors.push(descriptor.clone());
            diff_ids.push(id.clone());
        }
    }
    let put = |document: serde_json::Value| {
        let text = document.to_string();
        let digest = dna::Digest::sha256(text.as_bytes()).to_string();
        fs::write(blob(layout, &digest.as_str().into()), &text).expect("written");
        (digest, text.len())
    };
    let (digest, size) = put(json!({
        "os": "linux", "architecture": "amd64", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }));
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size});
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let (digest, size) =
        put(json!({"schemaVersion": 2, "mediaType": manifest, "config": config, "layers": descriptors}));
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": manifest, "digest": digest, "size": size}]});
    fs::write(layout.join("index.json"), index.to_string()).expect("written");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    (layout.to_owned(), bytes >> 20)
}
