//! The program against a real registry: Debian's `docker-registry`, filled by skopeo; open, with a password, with TLS.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tests::{Access, ImageBuilder, Layer, Output, Registry, mayfly, run, tool};

/// A small image: a script as entrypoint and a program it names.
fn small(layout: &Path) -> String {
    let script = "#!/bin/sh\nset -e\nexec /bin/work \"$@\"\n";
    let base = Layer::default().file("/bin/dash", 0o755, fs::read("/bin/dash").expect("dash")).link("/bin/sh", "dash");
    let top = Layer::default()
        .file("/entry.sh", 0o755, script)
        .file("/bin/work", 0o755, fs::read("/bin/true").expect("true"))
        .file("/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n");
    ImageBuilder::new(json!({"Entrypoint": ["/entry.sh"], "Cmd": ["now"], "ExposedPorts": {"8080/tcp": {}}}))
        .layer(base)
        .layer(top)
        .write(layout);
    format!("oci:{}:latest", layout.display())
}

fn analyze(source: &str, options: &[&str]) -> Output {
    mayfly(["analyze", source, "--format", "json", "--no-cache"].iter().chain(options))
}

fn execs(dna: &Value) -> Vec<String> {
    let items = dna["behavior"]["exec"].as_array().expect("a list");
    items.iter().map(|item| item["path"].as_str().expect("text").to_owned()).collect()
}

struct Case {
    registry: Registry,
    source: String,
    folder: tempfile::TempDir,
}

fn case(access: Access) -> Case {
    let folder = tempfile::tempdir().expect("a folder");
    let source = small(&folder.path().join("layout"));
    let registry = Registry::start(access);
    registry.push(&source, "team/small:1", &[]);
    Case { registry, source, folder }
}

#[test]
fn a_pulled_image_has_the_dna_of_its_layout() {
    let Case { registry, source, folder: _folder } = case(Access::Anonymous);
    let pulled = analyze(&registry.reference("team/small:1"), &["--plain-http"]).ok();
    assert_eq!(pulled.stdout, analyze(&source, &[]).ok().stdout);
    assert_eq!(execs(&pulled.json()), ["/bin/dash", "/bin/work", "/entry.sh"]);
}

#[test]
fn archives_and_other_compressions_give_the_same_programs() {
    let Case { registry, source, folder } = case(Access::Anonymous);
    let want = analyze(&source, &[]).ok().json();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for archive in
        [format!("oci-archive:{}:latest", at("oci.tar")), format!("docker-archive:{}:small:1", at("docker.tar"))]
    {
        run(tool("skopeo", "skopeo").args(["copy", "--quiet", "--insecure-policy", &source, &archive])).ok();
        let found = analyze(&archive, &[]).ok().json();
        assert_eq!(found["programs"], want["programs"], "{archive}");
    }
    registry.push(&source, "team/zstd:1", &["--dest-compress-format", "zstd"]);
    let zstd = analyze(&registry.reference("team/zstd:1"), &["--plain-http"]).ok().json();
    assert_eq!(zstd["programs"], want["programs"]);
}

#[test]
fn a_reference_by_digest_is_the_image_itself() {
    let Case { registry, .. } = case(Access::Anonymous);
    let listing = run(tool("skopeo", "skopeo")
        .args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"])
        .arg(format!("docker://{}", registry.reference("team/small:1"))))
    .ok();
    let digest = listing.text().trim().to_owned();
    analyze(&registry.reference(&format!("team/small@{digest}")), &["--plain-http"]).ok();
    let other = format!("team/small@sha256:{}", "0".repeat(64));
    let missing = analyze(&registry.reference(&other), &["--plain-http"]);
    assert_eq!(missing.code, 2);
    assert!(missing.stderr.contains("not found") || missing.stderr.contains("404"), "{}", missing.stderr);
}

#[test]
fn plain_http_is_used_only_when_asked() {
    let Case { registry, .. } = case(Access::Anonymous);
    let refused = analyze(&registry.reference("team/small:1"), &[]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--plain-http"), "{}", refused.stderr);
}

#[test]
fn a_password_comes_from_docker_s_config() {
    use base64_text as encode;
    let Case { registry, folder, .. } = case(Access::Password);
    let reference = registry.reference("team/small:1");
    let config = |password: &str| {
        let host = reference.split('/').next().expect("a host");
        let auth = encode(format!("{}:{password}", Registry::USER).as_bytes());
        let home = folder.path().join(format!("docker-{password}"));
        fs::create_dir_all(&home).expect("created");
        fs::write(home.join("config.json"), json!({"auths": {host: {"auth": auth}}}).to_string()).expect("written");
        home
    };
    let with = |home: &Path| {
        run(std::process::Command::new(tests::mayfly_path())
            .args(["analyze", &reference, "--format", "json", "--no-cache", "--plain-http"])
            .env("DOCKER_CONFIG", home))
    };
    with(&config(Registry::PASSWORD)).ok();
    for refused in [with(&config("wrong")), with(&folder.path().join("none"))] {
        assert_eq!(refused.code, 2);
        assert!(refused.stderr.contains("401") || refused.stderr.contains("credential"), "{}", refused.stderr);
        assert!(!refused.stderr.contains("wrong"), "the password is shown: {}", refused.stderr);
    }
}

#[test]
fn an_own_authority_is_trusted_only_when_given() {
    let Case { registry, .. } = {
        let folder = tempfile::tempdir().expect("a folder");
        let source = small(&folder.path().join("layout"));
        let registry = Registry::start(Access::Tls);
        registry.push(&source, "team/small:1", &[]);
        Case { registry, source, folder }
    };
    let reference = registry.reference("team/small:1");
    analyze(&reference, &["--ca-file", &registry.authority().display().to_string()]).ok();
    let refused = analyze(&reference, &[]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--ca-file"), "{}", refused.stderr);
}

#[test]
fn an_index_gives_the_platform_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let layout = folder.path().join("layout");
    ImageBuilder::new(json!({"Cmd": ["/hello"]}))
        .layer(Layer::default().file("/hello", 0o755, "#!/bin/hello\n"))
        .platforms(&[("linux", "amd64"), ("linux", "arm64")])
        .write(&layout);
    let registry = Registry::start(Access::Anonymous);
    registry.push(&format!("oci:{}:latest", layout.display()), "team/two:1", &["--all"]);
    let reference = registry.reference("team/two:1");
    let dna = analyze(&reference, &["--plain-http", "--platform", "linux/arm64"]).ok().json();
    assert_eq!(dna["image"]["platform"], "linux/arm64");
    let none = analyze(&reference, &["--plain-http", "--platform", "linux/s390x"]);
    assert_eq!(none.code, 2);
    assert!(none.stderr.contains("linux/arm64"), "the platforms there are not named: {}", none.stderr);
    let all = analyze(&reference, &["--plain-http", "--all-platforms"]).ok().text();
    assert!(all.contains("linux/amd64") && all.contains("linux/arm64"), "{all}");
}

#[test]
fn a_cached_blob_is_fetched_once() {
    let Case { registry, folder, .. } = case(Access::Anonymous);
    let cache = folder.path().join("cache").display().to_string();
    let reference = registry.reference("team/small:1");
    let pull = || mayfly(["analyze", &reference, "--format", "json", "--plain-http", "--cache-dir", &cache]).ok();
    let first = pull();
    let reads = registry.blob_reads();
    assert!(reads >= 3, "config and two layers: {}", registry.log());
    assert_eq!(pull().stdout, first.stdout);
    assert_eq!(registry.blob_reads(), reads, "{}", registry.log());
}

#[test]
fn a_pulled_layout_is_read_by_others() {
    let Case { registry, folder, source } = case(Access::Anonymous);
    let kept = format!("oci:{}:kept", folder.path().join("kept").display());
    mayfly(["pull", &registry.reference("team/small:1"), &kept, "--plain-http", "--no-cache"]).ok();
    let digest =
        |source: &str| run(tool("skopeo", "skopeo").args(["inspect", "--format", "{{.Digest}}", source])).ok().text();
    assert_eq!(digest(&kept), digest(&source));
    assert_eq!(analyze(&kept, &[]).ok().stdout, analyze(&source, &[]).ok().stdout);
}

fn base64_text(bytes: &[u8]) -> String {
    let coded = run(tool("sh", "dash")
        .args(["-c", "printf %s \"$0\" | base64 -w0"])
        .arg(std::str::from_utf8(bytes).expect("text")));
    coded.ok().text()
}
