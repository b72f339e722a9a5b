//! Who may pull an image, and who vouches for it: pull secrets, signatures, and what somebody attests that an image does.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use tests::{Sigstore, mayfly_path, run, tool};

use crate::world::{BUSYBOX, World, is_running, pod, push, sleeping, wait};

pub(crate) fn a_private_image_is_for_those_whose_secret_opens_it(world: &World) {
    const PLACE: &str = "127.0.0.1:5001";
    const IMAGE: &str = "127.0.0.1:5001/team/private:1";
    let folder = world.cluster.folder().join("private");
    fs::create_dir_all(folder.join("docker")).expect("a folder");
    let made = run(tool("htpasswd", "apache2-utils").args(["-Bbn", "may", "fly"])).ok();
    let at = |name: &str| folder.join(name).display().to_string();
    fs::write(at("htpasswd"), made.stdout).expect("written");
    let settings = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{PLACE}\"}}\n\
         auth: {{htpasswd: {{realm: tests, path: {}}}}}\n",
        at("data"),
        at("htpasswd")
    );
    fs::write(at("config.yml"), settings).expect("written");
    let mut serve = world.cluster.inside("docker-registry");
    let _registry = world.cluster.spawn("private-registry", serve.arg("serve").arg(at("config.yml")));
    let secret = |password: &str| json!({"auths": {PLACE: {"auth": base64(format!("may:{password}"))}}}).to_string();
    fs::write(at("docker/config.json"), secret("fly")).expect("written");
    wait(20, "the registry has the image", || {
        let mut copy = world.cluster.inside("env");
        copy.arg(format!("DOCKER_CONFIG={}", at("docker"))).args(["crane", "copy", "--insecure", BUSYBOX, IMAGE]);
        let done = run(&mut copy);
        if done.code == 0 { Ok(()) } else { Err(done.stderr) }
    });

    let object = |namespace: &str, name: &str, secrets: &[&str]| {
        let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
        let mut container = sleeping(IMAGE);
        container["imagePullPolicy"] = json!("Always");
        pod(namespace, name, &json!({"containers": [container], "imagePullSecrets": secrets}))
    };
    for (namespace, password) in [("by-pod", "fly"), ("by-account", "fly"), ("wrong", "guess"), ("without", "")] {
        world.namespace(namespace, true);
        if !password.is_empty() {
            world.cluster.create(
                &json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
                "metadata": {"name": "pull", "namespace": namespace},
                "data": {".dockerconfigjson": base64(secret(password))}}),
            );
        }
    }
    let account = r#"{"imagePullSecrets": [{"name": "pull"}]}"#;
    world.cluster.kubectl(["patch", "serviceaccount", "default", "-n", "by-account", "-p", account]).ok();

    // Before anybody was told anything, and after two were: what is kept of it is for them.
    let stranger = object("without", "one", &[]);
    let why = world.refused(&stranger);
    assert!(why.contains("REGISTRY_AUTH"), "{why}");
    world.cluster.create(&object("by-pod", "one", &["pull"]));
    world.cluster.create(&object("by-account", "one", &[]));
    for namespace in ["by-pod", "by-account"] {
        world.cluster.until(namespace, "pod", "one", 60, is_running);
    }
    // Of the first two nothing is asked again but whether they may.
    let (digest, before) = (layer(world, BUSYBOX), world.sum("mayfly_analysis_seconds_count"));
    for (namespace, secrets) in [("without", &[][..]), ("without", &["pull"]), ("wrong", &["pull"])] {
        let why = world.refused(&object(namespace, "two", secrets));
        assert!(why.contains("REGISTRY_AUTH"), "{namespace} {secrets:?}: {why}");
    }
    world.cluster.kubectl_with(&["create", "--dry-run=server"], &object("by-pod", "two", &["pull"])).ok();
    assert_eq!(world.sum("mayfly_analysis_seconds_count"), before, "{digest} was known");
}

/// Who signs in these tests.
const CI: &str = "ci@example.com";
const OTHER: &str = "other@example.com";

pub(crate) fn signatures_and_attested_dnas_count_by_who_made_them(world: &World) {
    let sigstore = Sigstore::start();
    let relay = world.cluster.relay(5000);
    let root = fs::read_to_string(sigstore.trusted_root()).expect("a root");
    let signer = json!([{"name": "ci", "keyless": {"trust": "private",
        "identities": [{"issuer": sigstore.issuer(), "subject": CI}]}}]);
    let rule = |name: &str, require: Value| {
        json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": "ClusterImageRule", "metadata": {"name": name},
            "spec": {"match": {"namespaces": {"matchLabels": {"vouched": name}}}, "enforcement": "Always",
                "signers": signer, "require": require}})
    };
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "mayfly.dev/v1alpha1", "kind": "SignerTrust", "metadata": {"name": "private"}, "spec": {"trustedRoot": root}},
        rule("signed", json!({"signatures": {"anyOf": ["ci"]}})),
        rule("attested", json!({"dna": {"from": ["Attested"], "signers": ["ci"]}})),
    ]});
    let rules = world.metric("mayfly_rules");
    world.cluster.kubectl_with(&["create"], &objects).ok();
    wait(20, "the rules are in force", || {
        let (now, problems) = (world.metric("mayfly_rules"), world.metric("mayfly_rule_problems"));
        if (now, problems) == (rules + 2.0, 0.0) { Ok(()) } else { Err(format!("{now} rules, {problems} problems")) }
    });
    for name in ["signed", "attested"] {
        world.labeled(name, json!({"vouched": name}));
    }
    let outside = |name: &str| format!("127.0.0.1:{relay}/{name}:1");
    let keyless = |who: &str| {
        let (token, config) = (sigstore.token(who), sigstore.signing_config());
        format!("--keyless --identity-token {token} --signing-config {config} --plain-http")
    };
    let object = |namespace: &str, image: &str| {
        let container = json!({"name": "main", "image": format!("127.0.0.1:5000/{image}:1")});
        pod(namespace, image, &json!({"containers": [container]}))
    };
    for name in ["signed-ci", "signed-other", "signed-none", "dna-ci", "dna-other", "dna-wide"] {
        sleeper(world, name);
    }

    // Signatures.
    mayfly(&format!("sign {} {}", outside("signed-ci"), keyless(CI)));
    mayfly(&format!("sign {} {}", outside("signed-other"), keyless(OTHER)));
    world.cluster.create(&object("signed", "signed-ci"));
    let why = world.refused(&object("signed", "signed-none"));
    assert!(why.contains("IMG_UNSIGNED"), "{why}");
    let why = world.refused(&object("signed", "signed-other"));
    assert!(why.contains("SIGNER_MISMATCH") && why.contains(OTHER), "{why}");

    // DNAs: what a signer states counts, and nothing is fetched to see whether it is so.
    mayfly(&format!("attest {} {} --no-cache", outside("dna-ci"), keyless(CI)));
    mayfly(&format!("attest {} {} --no-cache", outside("dna-other"), keyless(OTHER)));
    let layers = layer(world, "127.0.0.1:5000/dna-ci:1");
    let fetched = || world.fetches("dna-ci", &layers);
    let (fetches, analyses) = (fetched(), world.sum("mayfly_analysis_seconds_count"));
    assert!(fetches > 0, "attesting has read it: the log tells");
    world.cluster.kubectl_with(&["create", "--dry-run=server"], &object("attested", "dna-ci")).ok();
    assert_eq!((fetched(), world.sum("mayfly_analysis_seconds_count")), (fetches, analyses));
    for name in ["dna-other", "signed-ci"] {
        let why = world.refused(&object("attested", name));
        assert!(why.contains("DNA_"), "{name}: {why}");
    }

    // One that is signed as it must be, and claims far more than is so: admitted, and found out by looking.
    let file = world.file("wide.json", "");
    mayfly(&format!("analyze {} --plain-http --no-cache --format json -o {file}", outside("dna-wide")));
    widen(Path::new(&file));
    mayfly(&format!("attest {} {} --dna {file}", outside("dna-wide"), keyless(CI)));
    assert_eq!(world.sum("mayfly_dna_disagreements_total"), 0.0);
    world.cluster.create(&object("attested", "dna-wide"));
    world.cluster.until("attested", "pod", "dna-wide", 60, is_running);
    wait(120, "the claim is found out", || {
        let (found, samples) = (world.sum("mayfly_dna_disagreements_total"), world.sum("mayfly_dna_samples_total"));
        if found >= 1.0 { Ok(()) } else { Err(format!("{found} disagreements in {samples} samples")) }
    });
    assert!(world.log().contains("an attested DNA disagrees with the one worked out here"), "{}", world.log());
    let alert = wait(20, "it is in the ledger", || compared(world).ok_or_else(String::new));
    assert_eq!((alert.0.as_str(), alert.1.as_str()), ("Pod", "dna-wide"));
    let details = &alert.2["dnaDisagreement"];
    assert_eq!(details["disagreements"][0]["kind"], "wider", "{details:#}");
    assert!(details["signers"].to_string().contains("ci"), "{details:#}");
    for kind in ["clusterimagerule/signed", "clusterimagerule/attested", "signertrust/private"] {
        world.cluster.kubectl(["delete", kind]).ok();
    }
}

/// An image that sleeps, with a layer of its own.
fn sleeper(world: &World, name: &str) {
    let image = format!("127.0.0.1:5000/{name}:1");
    push(&world.cluster, name, &image);
    let entrypoint = ["mutate", "--insecure", &image, "--entrypoint=/bin/sleep,100000", "-t", &image];
    run(world.cluster.inside("crane").args(entrypoint)).ok();
}

/// The digest of an image's last layer.
fn layer(world: &World, image: &str) -> String {
    let manifest = run(world.cluster.inside("crane").args(["manifest", "--insecure", image])).ok().json();
    let layers = manifest["layers"].as_array().expect("layers");
    layers.last().and_then(|layer| layer["digest"].as_str()).expect("a digest").to_owned()
}

fn mayfly(line: &str) {
    run(Command::new(mayfly_path()).args(line.split_whitespace()).env_remove("SIGSTORE_ID_TOKEN")).ok();
}

/// Makes a DNA name three times as many system calls, and every capability.
fn widen(path: &Path) {
    let mut dna: Value = serde_json::from_slice(&fs::read(path).expect("a DNA")).expect("JSON");
    let calls = dna["behavior"]["syscalls"].as_array_mut().expect("system calls");
    let like = calls.first().expect("one").clone();
    for number in 0..calls.len() * 3 {
        let mut more = like.clone();
        more["name"] = json!(format!("zz_{number:04}"));
        calls.push(more);
    }
    fs::write(path, dna.to_string()).expect("written");
}

/// The comparison that the ledger holds: the workload's kind, its name, the details.
fn compared(world: &World) -> Option<(String, String, Value)> {
    let url = format!("sqlite:{}", world.cluster.folder().join("mayfly/ledger.db").display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let ledger = lineage::Ledger::open(&url).await.expect("the ledger");
        let query = lineage::DecisionQuery { limit: lineage::PAGE, ..lineage::DecisionQuery::default() };
        let rows = ledger.decisions(&query).await.expect("decisions");
        let row = rows.into_iter().find(|row| row.operation == "COMPARE");
        let found = match row {
            Some(row) => {
                let decision = ledger.decision(row.id).await.expect("an answer").expect("a decision");
                let details = decision.details.unpack().expect("details");
                Some((row.kind, row.name, serde_json::from_slice(&details).expect("JSON")))
            }
            None => None,
        };
        ledger.close().await;
        found
    })
}

fn base64(text: impl AsRef<[u8]>) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
