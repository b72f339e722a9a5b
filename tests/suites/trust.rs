//! Signatures and attestations between us and cosign, over real registries and a private Sigstore: what one writes the other
//! accepts. Then registries that fail or lie: what cannot be known is never "no".

use std::{env, fs, path::Path, sync::Arc};

use serde_json::{Value, json};
use sigstore_instance::{Identity, Instance, LogVersion, Server, identity_token};
use tests::{
    Access, ImageBuilder, Layer, Output, ReferrersRegistry, Registry, Sigstore, copy, mayfly_path, run, sigstore_tool,
    tool, written,
};

const EMAIL: &str = "ci@example.com";
const DNA: &str = "https://mayfly.dev/dna/v1";

/// A registry of either kind.
enum Kind {
    /// Without the referrers API.
    Plain(Registry),
    /// With it.
    Referrers(ReferrersRegistry),
}

impl Kind {
    fn both() -> [Self; 2] {
        [Self::Plain(Registry::start(Access::Anonymous)), Self::Referrers(ReferrersRegistry::start())]
    }

    fn reference(&self, name: &str) -> String {
        match self {
            // By address: cosign takes no port of `localhost` for a registry without TLS.
            Self::Plain(registry) => registry.reference(name).replace("localhost", "127.0.0.1"),
            Self::Referrers(registry) => registry.reference(name),
        }
    }
}

fn image(folder: &Path, platforms: &[(&str, &str)]) -> String {
    let layer = Layer::default().file("/bin/work", 0o755, fs::read("/bin/true").expect("true")).file(
        "/etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\n",
    );
    ImageBuilder::new(json!({"Entrypoint": ["/bin/work"]})).layer(layer).platforms(platforms).write(folder);
    format!("oci:{}:latest", folder.display())
}

/// `mayfly` with the words of a line, and the password of all keys here.
fn mayfly(line: &str) -> Output {
    let mut command = std::process::Command::new(mayfly_path());
    run(command.args(line.split_whitespace()).env("MAYFLY_KEY_PASSWORD", "pw").env_remove("SIGSTORE_ID_TOKEN"))
}

fn cosign(line: &str) -> Output {
    run(sigstore_tool("cosign").args(line.split_whitespace()).env("COSIGN_PASSWORD", "pw"))
}

struct Bench {
    folder: tempfile::TempDir,
    sigstore: Sigstore,
    servers: [Kind; 2],
}

impl Bench {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bench = Self { folder, sigstore: Sigstore::start(), servers: Kind::both() };
        mayfly(&format!("keys generate --output-prefix {}", bench.at("own"))).ok();
        bench
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn push(&self, server: &Kind, name: &str, platforms: &[(&str, &str)]) -> String {
        let reference = server.reference(name);
        copy(&image(&self.folder.path().join(name.replace(['/', ':'], "-")), platforms), &reference);
        reference
    }

    /// Options by which both accept the certificate of [`EMAIL`].
    fn keyless(&self) -> String {
        let (root, issuer) = (self.sigstore.trusted_root(), self.sigstore.issuer());
        format!("--certificate-identity {EMAIL} --certificate-oidc-issuer {issuer} --trusted-root {root}")
    }
}

const ONE: &[(&str, &str)] = &[("linux", "amd64")];

#[test]
fn keyless_signatures_and_attestations_are_accepted_both_ways() {
    let bench = Bench::start();
    let (config, accept) = (bench.sigstore.signing_config(), bench.keyless());
    for server in &bench.servers {
        let ours = bench.push(server, "team/ours:1", ONE);
        let token = bench.sigstore.token(EMAIL);
        let keyless = format!("--keyless --identity-token {token} --signing-config {config} --plain-http");
        mayfly(&format!("sign {ours} {keyless}")).ok();
        mayfly(&format!("attest {ours} {keyless} --no-cache")).ok();
        // The instance has no log of certificates.
        let options = format!("{accept} --allow-http-registry --insecure-ignore-sct");
        cosign(&format!("verify {options} {ours}")).ok();
        cosign(&format!("verify-attestation {options} --type {DNA} {ours}")).ok();

        let theirs = bench.push(server, "team/theirs:1", ONE);
        let statement = written(bench.folder.path(), "statement.json", r#"{"from": "cosign"}"#);
        let root = bench.sigstore.trusted_root();
        let options = format!(
            "-y --identity-token {token} --signing-config {config} --trusted-root {root} --allow-http-registry"
        );
        cosign(&format!("sign {options} {theirs}")).ok();
        cosign(&format!("attest {options} --type https://example.com/x --predicate {statement} {theirs}")).ok();
        for reference in [&ours, &theirs] {
            let found = mayfly(&format!("verify {reference} {accept} --plain-http --format json")).ok().json();
            let signature = &found["signatures"][0];
            assert_eq!(signature["by"]["certificate"]["subject"], EMAIL);
            assert_eq!((&signature["evidence"], signature["log"].as_array().map(Vec::len)), (&json!("log"), Some(1)));
        }
        let line = format!("verify {theirs} {accept} --type https://example.com/x --plain-http --format json");
        assert_eq!(mayfly(&line).ok().json()["attestations"][0]["predicate"], json!({"from": "cosign"}));

        let other = accept.replace(EMAIL, "other@example.com");
        let refused = mayfly(&format!("verify {ours} {other} --plain-http"));
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        assert!(refused.text().contains("is signed by ci@example.com"), "{}", refused.text());
        let missing = mayfly(&format!("verify {ours} {accept} --type https://example.com/x --plain-http"));
        assert_eq!(missing.code, 1, "{}", missing.stderr);
    }
}

#[test]
fn keyed_signatures_and_attestations_are_accepted_both_ways() {
    let bench = Bench::start();
    let (config, root) = (bench.sigstore.signing_config(), bench.sigstore.trusted_root());
    let (private, public) = (bench.at("own.key"), bench.at("own.pub"));
    let none = written(
        bench.folder.path(),
        "none.json",
        r#"{"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"}"#,
    );
    let statement = written(bench.folder.path(), "statement.json", r#"{"from": "cosign"}"#);
    let mut theirs = sigstore_tool("cosign");
    run(theirs.args(["generate-key-pair", "--output-key-prefix", &bench.at("theirs")]).env("COSIGN_PASSWORD", "pw"))
        .ok();
    for server in &bench.servers {
        // With a log, then with the signature alone.
        let logged = bench.push(server, "team/logged:1", ONE);
        mayfly(&format!("sign {logged} --key {private} --signing-config {config} --plain-http")).ok();
        mayfly(&format!("attest {logged} --key {private} --signing-config {config} --plain-http --no-cache")).ok();
        let options = format!("--key {public} --trusted-root {root} --allow-http-registry");
        cosign(&format!("verify {options} {logged}")).ok();
        cosign(&format!("verify-attestation {options} --type {DNA} {logged}")).ok();
        mayfly(&format!("verify {logged} --key {public} --trusted-root {root} --plain-http")).ok();
        mayfly(&format!("verify {logged} --key {public} --trusted-root {root} --plain-http --evidence timestamp")).ok();

        let signed = mayfly(&format!("sign {logged} --key {private} --signing-config {config} --plain-http")).ok();
        assert_eq!(signed.json()[0]["unchanged"], true, "the log is not made to keep the same twice");

        // With the key that cosign made and encrypted.
        let alone = bench.push(server, "team/alone:1", ONE);
        let (private, public) = (bench.at("theirs.key"), bench.at("theirs.pub"));
        mayfly(&format!("sign {alone} --key {private} --plain-http")).ok();
        mayfly(&format!("attest {alone} --key {private} --plain-http --no-cache")).ok();
        let options = format!("--key {public} --insecure-ignore-tlog --allow-http-registry");
        cosign(&format!("verify {options} {alone}")).ok();
        cosign(&format!("verify-attestation {options} --type {DNA} {alone}")).ok();
        let strict = format!("verify {alone} --key {public} --trusted-root {root} --plain-http");
        let refused = mayfly(&strict);
        assert_eq!(refused.code, 1, "no log saw it: {}", refused.text());
        mayfly(&format!("verify {alone} --key {public} --evidence signature --plain-http")).ok();

        // The same once more, on more evidence.
        let again = mayfly(&format!("sign {alone} --key {private} --signing-config {config} --plain-http")).ok();
        assert_eq!(again.json()[0]["unchanged"], false);
        mayfly(&strict).ok();

        // cosign's, as it writes now and as it wrote before.
        for (name, format) in [("new", format!("--signing-config {none}")), ("old", OLD.to_owned())] {
            let theirs = bench.push(server, &format!("team/{name}:1"), ONE);
            let options = format!("-y --key {private} --allow-http-registry {format}");
            cosign(&format!("sign {options} {theirs}")).ok();
            cosign(&format!("attest {options} --type custom --predicate {statement} {theirs}")).ok();
            let line = format!("verify {theirs} --key {public} --evidence signature --plain-http --format json");
            let found = mayfly(&line).ok().json();
            assert_eq!((count(&found, "signatures"), count(&found, "attestations")), (1, 1), "{name}: {found:#}");
            let bundles = mayfly(&format!("{line} --bundles-only"));
            assert_eq!(bundles.code, i32::from(name == "old"), "{name}");
        }
        // Two signers, of whom both are asked.
        let (one, two) = (bench.at("own.pub"), bench.at("theirs.pub"));
        let both = format!("verify {alone} --key {one} --key {two} --evidence signature --plain-http --threshold 2");
        assert_eq!(mayfly(&both).code, 1);
        mayfly(&format!("sign {alone} --key {} --plain-http", bench.at("own.key"))).ok();
        mayfly(&both).ok();
    }
}

const OLD: &str = "--new-bundle-format=false --use-signing-config=false --tlog-upload=false";

fn count(found: &Value, what: &str) -> usize {
    found[what].as_array().map_or(0, Vec::len)
}

#[test]
fn an_index_and_each_of_its_images_are_attested_and_an_older_statement_is_replaced() {
    let bench = Bench::start();
    let (private, public) = (bench.at("own.key"), bench.at("own.pub"));
    for server in &bench.servers {
        let index = bench.push(server, "team/index:1", &[("linux", "amd64"), ("linux", "arm64")]);
        let attest = format!("attest {index} --key {private} --plain-http --no-cache");
        let done = mayfly(&attest).ok().json();
        assert_eq!(done.as_array().map(Vec::len), Some(3), "{done:#}");
        let again = mayfly(&attest).ok().json();
        assert!(again.as_array().expect("a list").iter().all(|done| done["unchanged"] == true), "{again:#}");

        let verify =
            format!("verify {index} --key {public} --evidence signature --type dna --plain-http --format json");
        let found = mayfly(&format!("{verify} --platform linux/arm64")).ok().json();
        let of = |found: &Value, digest: &Value| {
            let all = found["attestations"].as_array().expect("a list").clone();
            all.into_iter().filter(|one| one["origin"]["subject"] == *digest).collect::<Vec<_>>()
        };
        let [on_index, on_image] = [0, 1].map(|at| of(&found, &found["subjects"][at]));
        assert_eq!((on_index.len(), on_image.len()), (1, 1), "{found:#}");
        let platforms = on_index[0]["predicate"]["platforms"].as_array().expect("platforms");
        let named = platforms.iter().find(|one| one["platform"] == "linux/arm64").expect("arm64");
        assert_eq!((&named["manifest"], &named["dna"]), (&found["subjects"][1], &on_image[0]["predicate"]["digest"]));

        // A DNA that differs takes the place of the older one; a large one is beside its statement.
        let dna = mayfly(&format!("analyze {index} --platform linux/arm64 --plain-http --no-cache --format json")).ok();
        let mut dna = dna.json();
        dna["layers"][0]["created_by"] = json!("x".repeat(2 << 20));
        let large = written(bench.folder.path(), "large.json", dna.to_string());
        let done = mayfly(&format!("{attest} --dna {large}")).ok().json();
        assert_eq!(done[0]["replaced"].as_array().map(Vec::len), Some(1), "{done:#}");
        let found = mayfly(&format!("{verify} --platform linux/arm64")).ok().json();
        let on_image = of(&found, &found["subjects"][1]);
        let predicate = &on_image.first().expect("one").get("predicate").expect("a predicate");
        assert_eq!(on_image.len(), 1, "the older one is no longer found: {found:#}");
        assert!(predicate["document"].is_null() && predicate["digest"].is_string(), "{predicate:#}");
    }
}

/// The bundle about an image in a registry with the referrers API.
fn bundle(registry: &ReferrersRegistry, name: &str, digest: &str) -> Vec<u8> {
    let get = |what: &str| {
        let url = format!("http://{}/{what}", registry.reference("").replacen('/', "/v2/", 1).trim_end_matches('/'));
        run(tool("curl", "curl").args(["-sfH", "Accept: application/vnd.oci.image.manifest.v1+json", &url])).ok()
    };
    let listed = get(&format!("{name}/referrers/{digest}")).json();
    let manifest = listed["manifests"][0]["digest"].as_str().expect("one referrer");
    let manifest = get(&format!("{name}/manifests/{manifest}")).json();
    get(&format!("{name}/blobs/{}", manifest["layers"][0]["digest"].as_str().expect("a layer"))).stdout
}

#[test]
fn verifiers_in_other_languages_accept_what_we_sign() {
    let (python, node) = (env::var_os("PEER_PYTHON"), env::var_os("NODE_FOLDER"));
    let (Some(python), Some(node)) = (python, node) else {
        panic!(
            "this suite needs PEER_PYTHON with PyPI sigstore, and NODE_FOLDER with npm @sigstore/verify: `.ci/run` installs them"
        )
    };
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    for name in ["own", "other"] {
        mayfly(&format!("keys generate --output-prefix {}", at(name))).ok();
    }
    let registry = ReferrersRegistry::start();
    // Unlike the real instance this one has a log of certificates, which PyPI's asks for, and both versions of the log.
    let instance = Arc::new(Instance::new());
    let root = written(folder.path(), "root.json", instance.trusted_root());
    let server = Server::start(Arc::clone(&instance));
    let issuer = "https://issuer.example.com";
    let token = written(folder.path(), "token", identity_token(&Identity::Email(EMAIL.to_owned()), issuer));
    let identity = format!("--certificate-identity {EMAIL} --certificate-oidc-issuer {issuer}");
    for log in [LogVersion::V1, LogVersion::V2] {
        let config = written(folder.path(), "config.json", server.signing_config(log));
        for keyed in [false, true] {
            let name = format!("team/{log:?}-{keyed}").to_lowercase();
            let reference = registry.reference(&format!("{name}:1"));
            copy(&image(&folder.path().join(name.replace('/', "-")), ONE), &reference);
            let signer =
                if keyed { format!("--key {}", at("own.key")) } else { format!("--keyless --identity-token {token}") };
            let attest = format!("attest {reference} {signer} --signing-config {config} --plain-http --no-cache");
            let done = mayfly(&attest).ok().json();
            let bundle = bundle(&registry, &name, done[0]["subject"].as_str().expect("a digest"));
            let bundle = written(folder.path(), "bundle.json", bundle);
            let accept = if keyed { format!("--key {}", at("own.pub")) } else { identity.clone() };
            mayfly(&format!("verify {reference} {accept} --type dna --trusted-root {root} --plain-http")).ok();

            let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/peers");
            let npm = |whom: &[&str]| {
                let mut npm = tool("node", "nodejs");
                npm.env("NODE_FOLDER", &node).arg(suites.join("verify.mjs")).args([&root, &bundle]);
                run(npm.args(whom))
            };
            let pypi = |whom: &[&str]| {
                let mut pypi = std::process::Command::new(&python);
                run(pypi.arg(suites.join("verify.py")).args([&root, &bundle]).args(whom))
            };
            if keyed {
                assert_eq!(npm(&[&at("own.pub")]).ok().text().trim(), DNA, "{name}");
                assert_ne!(npm(&[&at("other.pub")]).code, 0, "{name}: another key");
                continue; // PyPI's takes no keys.
            }
            for verify in [&npm as &dyn Fn(&[&str]) -> Output, &pypi] {
                assert_eq!(verify(&[EMAIL, issuer]).ok().text().trim(), DNA, "{name}");
                assert_ne!(verify(&["other@example.com", issuer]).code, 0, "{name}: another identity");
            }
        }
    }
}

#[test]
fn bundles_are_judged_as_the_conformance_suite_expects() {
    let Some(suite) = env::var_os("CONFORMANCE") else {
        eprintln!("skipped: CONFORMANCE names no folder with the cases of sigstore-conformance and their `run`");
        return;
    };
    let done =
        run(std::process::Command::new(Path::new(&suite).join("run")).arg(mayfly_path()).arg("conformance")).ok();
    assert!(done.text().trim_end().ends_with("140 passed, 0 failed"), "{}", done.text());
}

#[test]
fn an_attested_dna_is_written_and_profiles_are_made_of_it() {
    let bench = Bench::start();
    let (config, root) = (bench.sigstore.signing_config(), bench.sigstore.trusted_root());
    mayfly(&format!("keys generate --output-prefix {}", bench.at("other"))).ok();
    let (own, other) = (bench.at("own.pub"), bench.at("other.pub"));
    for (number, server) in bench.servers.iter().enumerate() {
        let index = bench.push(server, "team/dna:1", &[("linux", "amd64"), ("linux", "arm64")]);
        let at = |name: &str| bench.at(&format!("{number}-{name}.json"));
        let analyze = format!("analyze {index} --platform linux/arm64 --plain-http --no-cache --format json");
        mayfly(&format!("{analyze} -o {}", at("analyzed"))).ok();
        let mut large: Value = serde_json::from_slice(&fs::read(at("analyzed")).expect("read")).expect("JSON");
        large["layers"][0]["created_by"] = json!("x".repeat(2 << 20));
        fs::write(at("large"), large.to_string()).expect("written");

        let attest = |key: &str, more: &str| {
            let key = bench.at(&format!("{key}.key"));
            mayfly(&format!("attest {index} --key {key} --signing-config {config} --plain-http --no-cache {more}")).ok()
        };
        attest("own", "");
        let verify = format!("verify {index} --platform linux/arm64 --plain-http --trusted-root {root}");
        mayfly(&format!("{verify} --key {own} --dna-output {}", at("attested"))).ok();
        let read = |name: &str| fs::read(at(name)).expect("a file");
        assert_eq!(read("attested"), read("analyzed"), "the one of this platform, to the byte");
        let profile =
            |source: &str| mayfly(&format!("profile {source} --for seccomp --platform linux/arm64 --plain-http"));
        let of_dna = profile(&format!("dna:{}", at("attested"))).ok();
        assert_eq!(of_dna.json()["syscalls"], profile(&index).ok().json()["syscalls"]);

        // Another signer's, later, and beside its statement. Times are in seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        attest("other", &format!("--dna {}", at("large")));
        let both = format!("{verify} --key {own} --key {other} --dna-output {}", at("newest"));
        mayfly(&both).ok();
        let newest: Value = serde_json::from_slice(&read("newest")).expect("JSON");
        assert_eq!(newest["layers"], large["layers"]);
        let agreed = mayfly(&format!("{both} --threshold 2"));
        assert_eq!(
            (agreed.code, agreed.stderr.contains("no DNA of it is attested by 2")),
            (1, true),
            "{}",
            agreed.stderr
        );
        let typed = mayfly(&format!("{both} --type vuln"));
        assert_eq!((typed.code, typed.stderr.contains("leave out --type")), (2, true), "{}", typed.stderr);
    }
}

#[test]
fn bad_input_is_told_and_nothing_is_written_over() {
    let bench = Bench::start();
    let reference = bench.push(&bench.servers[0], "team/app:1", ONE);
    let again = mayfly(&format!("keys generate --output-prefix {}", bench.at("own")));
    assert_eq!((again.code, again.stderr.contains("is there already")), (2, true), "{}", again.stderr);
    let wrong = [
        (format!("verify {reference} --plain-http"), "whose signature is accepted"),
        (format!("verify {reference} --certificate-identity x --plain-http"), "anyone can be an issuer"),
        (format!("verify {reference} --key {} --plain-http", bench.at("own.key")), "not a usable public key"),
        (format!("sign {reference} --key {} --plain-http", bench.at("own.pub")), "not a private key"),
        (format!("sign {reference} --keyless --plain-http"), "--signing-config"),
        (format!("verify {} --key {} --plain-http", "127.0.0.1:1/x/y:1", bench.at("own.pub")), "connection failed"),
        (format!("verify oci:/nowhere --key {}", bench.at("own.pub")), "not in a registry"),
    ];
    for (line, said) in wrong {
        let done = mayfly(&line);
        assert_eq!(done.code, 2, "{line}: {}", done.stderr);
        assert!(done.stderr.contains(said), "{line}: {}", done.stderr);
    }
    let unsigned = mayfly(&format!("verify {reference} --key {} --plain-http", bench.at("own.pub")));
    assert_eq!(unsigned.code, 1, "{}", unsigned.stderr);
}
