//! Registries that fail or lie, between us and what proves an image: what cannot be known is never "no", never "yes", and
//! takes no longer than it may. And registries that do not take what is pushed: what was attested before stays.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use serde_json::{Value, json};
use tests::{
    Access, Fault, ImageBuilder, Layer, Matches, Output, Proxy, ReferrersRegistry, Registry, copy, mayfly_path, run,
    sigstore_tool, written,
};

const FAULTS: [Fault; 8] = [
    Fault::Status(401),
    Fault::Status(403),
    Fault::Throttled,
    Fault::Status(500),
    Fault::Hang,
    Fault::Truncated,
    Fault::Other,
    Fault::Page,
];
const MISSING: Fault = Fault::Status(404);
/// Seconds that a verification is given, and those that a busy machine may take to start and end it.
const TIMEOUT: u64 = 3;
const SLACK: u64 = 4;

/// Requests, by the name of the place that they ask.
const API: (&str, Matches) = ("referrers API", |_, path| path.contains("/referrers/"));
const TAG: (&str, Matches) = ("referrers tag", |_, path| {
    path.contains("/manifests/sha256-") && !path.ends_with(".sig") && !path.ends_with(".att")
});
const SIGNATURES: (&str, Matches) = ("signature tag", |_, path| path.ends_with(".sig"));
const ATTESTATIONS: (&str, Matches) = ("attestation tag", |_, path| path.ends_with(".att"));
const MANIFESTS: Matches = |_, path| path.contains("/manifests/sha256:");
const BLOBS: Matches = |_, path| path.contains("/blobs/");

/// Keys of both programs, and a registry of either kind.
struct Bench {
    folder: tempfile::TempDir,
    plain: Registry,
    referrers: ReferrersRegistry,
}

impl Bench {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bench = Self { folder, plain: Registry::start(Access::Anonymous), referrers: ReferrersRegistry::start() };
        mayfly(&format!("keys generate --output-prefix {}", bench.at("own"))).ok();
        bench
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// An image in the registry, with or without the referrers API.
    fn push(&self, api: bool, name: &str) -> String {
        let reference = match api {
            true => self.referrers.reference(name),
            false => self.plain.reference(name).replace("localhost", "127.0.0.1"),
        };
        copy(&image(&self.folder.path().join(name.replace(['/', ':'], "-"))), &reference);
        reference
    }

    /// The reference through a proxy that fails so, and options that reach it: by a file of registries.
    fn through(&self, reference: &str, matches: Matches, fault: Fault) -> (Proxy, String, String) {
        let host = reference.split('/').next().expect("a host");
        let proxy = Proxy::start(host, matches, fault);
        let name = format!("{}.toml", proxy.address().replace(':', "-"));
        let hosts = written(self.folder.path(), &name, format!("[host.\"{}\"]\nplain_http = true\n", proxy.address()));
        let reference = proxy.reference(reference);
        (proxy, reference, format!("--registries {hosts}"))
    }

    /// Verifies through a proxy that fails so.
    fn verify(&self, reference: &str, options: &str, matches: Matches, fault: Fault) -> Output {
        let (_proxy, reference, hosts) = self.through(reference, matches, fault);
        let key = self.at("own.pub");
        let line = format!("verify {reference} {hosts} --key {key} --evidence signature --timeout {TIMEOUT} {options}");
        let done = mayfly(&line);
        assert!(done.wall < Duration::from_secs(TIMEOUT + SLACK), "{line}: {:?}", done.wall);
        done
    }

    /// Holds that the answer is "not known" with each fault, and says where.
    fn unknown(&self, reference: &str, options: &str, (place, matches): (&str, Matches), faults: &[Fault]) {
        for some in faults.chunks(PARALLEL) {
            thread::scope(|scope| {
                for fault in some {
                    scope.spawn(move || {
                        let done = self.verify(reference, options, matches, *fault);
                        let said = format!("{}\n{}", done.text(), done.stderr);
                        assert_eq!(done.code, 2, "{place} {fault:?}: {said}");
                        let named = |line: &str| line.starts_with("un") && line.contains(place);
                        assert!(done.text().lines().any(named), "{place} {fault:?} is not named: {said}");
                        assert!(done.stderr.contains("not known"), "{place} {fault:?}: {said}");
                    });
                }
            });
        }
    }
}

const PARALLEL: usize = 4;

fn image(folder: &Path) -> String {
    let layer = Layer::default().file("/bin/work", 0o755, fs::read("/bin/true").expect("true"));
    ImageBuilder::new(json!({"Entrypoint": ["/bin/work"]})).layer(layer).write(folder);
    format!("oci:{}:latest", folder.display())
}

/// `mayfly` with the words of a line, and the password of all keys here.
fn mayfly(line: &str) -> Output {
    let mut command = Command::new(mayfly_path());
    run(command.args(line.split_whitespace()).env("MAYFLY_KEY_PASSWORD", "pw").env_remove("SIGSTORE_ID_TOKEN"))
}

fn without(faults: &[Fault], less: Fault) -> Vec<Fault> {
    faults.iter().copied().filter(|fault| *fault != less).collect()
}

#[test]
fn an_unsigned_image_is_so_only_where_every_place_answers() {
    let bench = Bench::start();
    let [plain, referrers] = [false, true].map(|api| bench.push(api, "team/app:1"));
    for (reference, place) in
        [(&referrers, API), (&plain, API), (&plain, TAG), (&plain, SIGNATURES), (&plain, ATTESTATIONS)]
    {
        let missing = bench.verify(reference, "", place.1, MISSING);
        assert_eq!(missing.code, 1, "{}: {}\n{}", place.0, missing.text(), missing.stderr);
        // An answer that is cut or turned says that it is not there, still.
        let faults = without(&without(&FAULTS, Fault::Truncated), Fault::Other);
        bench.unknown(reference, "", place, &faults);
    }
}

#[test]
fn proof_that_a_fault_hides_is_not_known() {
    let bench = Bench::start();
    let key = bench.at("own.key");
    for (api, place) in [(true, API), (false, TAG)] {
        let reference = bench.push(api, "team/signed:1");
        mayfly(&format!("sign {reference} --key {key} --plain-http")).ok();
        mayfly(&format!("attest {reference} --key {key} --plain-http --no-cache")).ok();
        for options in ["", "--type dna"] {
            let missing = bench.verify(&reference, options, place.1, MISSING);
            assert_eq!(missing.code, 1, "{}: {}\n{}", place.0, missing.text(), missing.stderr);
            // A list has no digest: whoever turns its bits can leave out entries too. At a tag it has.
            let faults = if api { without(&FAULTS, Fault::Other) } else { FAULTS.to_vec() };
            bench.unknown(&reference, options, place, &faults);
        }
        // What is listed should be there: that it is not is no answer either.
        let faults = [&FAULTS[..], &[MISSING]].concat();
        bench.unknown(&reference, "--type dna", (place.0, MANIFESTS), &faults);
        bench.unknown(&reference, "", (place.0, BLOBS), &faults);
        // What hides nothing changes nothing.
        for fault in [Fault::Status(500), Fault::Hang, MISSING] {
            let done = bench.verify(&reference, "", SIGNATURES.1, fault);
            assert_eq!(done.code, 0, "{fault:?}: {}\n{}", done.text(), done.stderr);
        }
    }
}

#[test]
fn proof_at_cosigns_tags_that_a_fault_hides_is_not_known() {
    let bench = Bench::start();
    let mut import = sigstore_tool("cosign");
    import.args(["generate-key-pair", "--output-key-prefix", &bench.at("theirs")]).env("COSIGN_PASSWORD", "pw");
    run(&mut import).ok();
    fs::copy(bench.at("theirs.pub"), bench.at("own.pub")).expect("copied");
    let statement = written(bench.folder.path(), "statement.json", r#"{"from": "cosign"}"#);
    let reference = bench.push(false, "team/old:1");
    let old = "--new-bundle-format=false --use-signing-config=false --tlog-upload=false";
    for command in ["sign".to_owned(), format!("attest --type custom --predicate {statement}")] {
        let line = format!("{command} -y --key {} --allow-http-registry {old} {reference}", bench.at("theirs.key"));
        run(sigstore_tool("cosign").args(line.split_whitespace()).env("COSIGN_PASSWORD", "pw")).ok();
    }
    let custom = "--type https://cosign.sigstore.dev/attestation/v1";
    for (options, place) in [("", SIGNATURES), (custom, ATTESTATIONS)] {
        let found = bench.verify(&reference, options, |_, _| false, MISSING);
        assert_eq!(found.code, 0, "{}\n{}", found.text(), found.stderr);
        let missing = bench.verify(&reference, options, place.1, MISSING);
        assert_eq!(missing.code, 1, "{}: {}\n{}", place.0, missing.text(), missing.stderr);
        bench.unknown(&reference, options, place, &FAULTS);
        bench.unknown(&reference, options, (place.0, BLOBS), &[&FAULTS[..], &[MISSING]].concat());
    }
}

/// A DNA of the image that differs from what an analysis finds, in a file.
fn another(bench: &Bench, reference: &str, name: &str, bytes: usize) -> String {
    let mut dna = mayfly(&format!("analyze {reference} --plain-http --no-cache --format json")).ok().json();
    dna["layers"][0]["created_by"] = json!("x".repeat(bytes));
    written(bench.folder.path(), name, dna.to_string())
}

/// The attestations of a DNA that verify.
fn attested(bench: &Bench, reference: &str) -> Vec<Value> {
    let key = bench.at("own.pub");
    let line = format!("verify {reference} --key {key} --evidence signature --type dna --plain-http --format json");
    mayfly(&line).ok().json()["attestations"].as_array().expect("a list").clone()
}

#[test]
fn what_cannot_be_pushed_leaves_what_was_there() {
    let bench = Bench::start();
    let key = bench.at("own.key");
    let uploads: Matches = |method, path| method == "POST" && path.contains("/blobs/uploads");
    let bodies: Matches = |method, path| method == "PUT" && path.contains("/blobs/uploads");
    let manifests: Matches = |method, path| method == "PUT" && path.contains("/manifests/sha256:");
    let lists: Matches = |method, path| method == "PUT" && path.contains("/manifests/sha256-");
    let reference = bench.push(false, "team/app:1");
    mayfly(&format!("attest {reference} --key {key} --plain-http --no-cache")).ok();
    let before = attested(&bench, &reference);
    assert_eq!(before.len(), 1);
    let changed = another(&bench, &reference, "changed.json", 10);
    for (place, matches) in [("uploads", uploads), ("bodies", bodies), ("manifests", manifests), ("lists", lists)] {
        for fault in [Fault::Status(401), Fault::Status(413), Fault::Status(500)] {
            let (_proxy, through, hosts) = bench.through(&reference, matches, fault);
            for command in [format!("attest {through} --dna {changed} --no-cache"), format!("sign {through}")] {
                let done = mayfly(&format!("{command} {hosts} --key {key} --timeout {TIMEOUT}"));
                let said = format!("{place} {fault:?}: {}\n{}", done.text(), done.stderr);
                assert_eq!((done.code, done.stdout.len()), (2, 0), "{said}");
                assert!(done.stderr.contains("127.0.0.1"), "which registry? {said}");
                assert!(done.wall < Duration::from_secs(TIMEOUT + SLACK), "{said} {:?}", done.wall);
            }
            assert_eq!(attested(&bench, &reference), before, "{place} {fault:?}");
        }
    }
}

#[test]
fn what_cannot_be_deleted_is_no_longer_listed_and_told() {
    let bench = Bench::start();
    let key = bench.at("own.key");
    let reference = bench.push(false, "team/app:1");
    mayfly(&format!("attest {reference} --key {key} --plain-http --no-cache")).ok();
    let before = attested(&bench, &reference);
    let changed = another(&bench, &reference, "changed.json", 10);
    let (_proxy, through, hosts) = bench.through(&reference, |method, _| method == "DELETE", Fault::Status(405));
    let done = mayfly(&format!("attest {through} {hosts} --key {key} --no-cache --dna {changed}")).ok();
    let carrier = before[0]["origin"]["carrier"].as_str().expect("a digest");
    assert!(done.stderr.contains(carrier) && done.stderr.contains("405"), "{}", done.stderr);
    let after = attested(&bench, &reference);
    assert_eq!(after.len(), 1, "the older one is still listed: {after:#?}");
    assert_ne!(after[0]["predicate"]["digest"], before[0]["predicate"]["digest"]);
}

#[test]
fn an_equal_attestation_pushes_nothing() {
    let bench = Bench::start();
    let key = bench.at("own.key");
    for api in [false, true] {
        let reference = bench.push(api, "team/app:1");
        // One that stands in its statement, and one that lies beside it.
        for (name, bytes) in [("small.json", 10), ("large.json", 2 << 20)] {
            let dna = another(&bench, &reference, name, bytes);
            let (proxy, through, hosts) = bench.through(&reference, |_, _| false, MISSING);
            let attest = format!("attest {through} {hosts} --key {key} --no-cache --dna {dna}");
            mayfly(&attest).ok();
            let writes = |proxy: &Proxy| {
                let reads = |request: &String| request.starts_with("GET ") || request.starts_with("HEAD ");
                proxy.requests().into_iter().filter(|request| !reads(request)).collect::<Vec<_>>()
            };
            assert!(!writes(&proxy).is_empty());
            let again = mayfly(&attest).ok().json();
            assert_eq!((writes(&proxy), &again[0]["unchanged"]), (Vec::new(), &json!(true)), "{name}: {again:#}");
        }
    }
}
