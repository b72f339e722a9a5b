//! Honest material of every layout: exactly the facts that are in it.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dna::Digest;
use jiff::Timestamp;
use serde_json::{Value, json};
use sigstore_instance::{Identity as San, Instance, Key, KeyType, Layout, LogVersion, TIME};
use trust::{
    By, Candidate, Certificate, Evidence, Identity, LogEntry, Material, Proof, Reason, Root, Signer, Text, Who, verify,
};

use crate::made::{
    ALICE, Added, ISSUER, PREDICATE, alice, bundle, candidate, holder, image, judged, named, refusal, root, statement,
};

#[test]
fn keyless_material_gives_its_facts() {
    let instance = Instance::new();
    let root = root(&instance);
    let bundles = [Added::V1, Added::V1Time, Added::V2Time, Added::Time].map(|added| (Layout::Attestation, added));
    let signatures = [Added::V1, Added::V1Time, Added::Time].map(|added| (Layout::LegacySignature, added));
    let attestations = [Added::V1, Added::V1Time].map(|added| (Layout::LegacyAttestation, added));
    for (layout, added) in bundles.into_iter().chain(signatures).chain(attestations) {
        let candidate = candidate(&added.to(alice(&instance)), layout);
        // It asks for less than there is: what is there counts.
        let rule = named(Evidence::Signature, std::slice::from_ref(&root));
        let expected = Proof {
            signer: "alice".to_owned(),
            by: By::Certificate(Certificate {
                subject: Some(ALICE.to_owned()),
                issuer: Some(ISSUER.to_owned()),
                claims: BTreeMap::new(),
            }),
            evidence: added.evidence(),
            times: vec![then()],
            log: logged(&candidate),
            certificate_logged: true,
            root: Some(root.facts().clone()),
            origin: candidate.origin.clone(),
        };
        assert_eq!(expected.log.len(), usize::from(added.evidence() == Evidence::Log));
        facts(layout, &candidate, &rule, &expected, &format!("{layout:?}, {added:?}"));
    }
}

#[test]
fn material_by_keys_gives_as_much_as_the_rule_asks_for() {
    let instance = Instance::new();
    let root = root(&instance);
    let roots = std::slice::from_ref(&root);
    for of in [KeyType::P256, KeyType::P384, KeyType::Ed25519, KeyType::Rsa2048] {
        let key = Key::generate(of);
        for layout in [Layout::Attestation, Layout::LegacySignature, Layout::LegacyAttestation] {
            for added in Added::ALL {
                let (log, v2) = (added.evidence() == Evidence::Log, matches!(added, Added::V2 | Added::V2Time));
                if v2 && layout != Layout::Attestation {
                    continue;
                }
                let stamped = matches!(added, Added::Time | Added::V1Time | Added::V2Time);
                let candidate = candidate(&added.to(instance.keyed(&key)), layout);
                for needed in [Evidence::Signature, Evidence::Timestamp, Evidence::Log] {
                    let rule = holder(&key, needed, roots);
                    let case = format!("{of:?}, {layout:?}, {added:?}, {needed:?}");
                    // The envelope's timestamp is dropped beside an entry.
                    let stamp = stamped && !(layout == Layout::LegacyAttestation && log);
                    let evidence = match needed {
                        Evidence::Timestamp if !stamp && log => Evidence::Log,
                        needed => needed,
                    };
                    let findings = judged(&candidate, &rule);
                    if evidence > added.evidence() {
                        let expected = Reason::EvidenceMissing { expected: needed, found: added.evidence() };
                        assert_eq!(refusal(&findings), Some(&expected), "{case}");
                        continue;
                    }
                    // Limits of the verifier: version 2 by P-256 alone, and P-384 with the hash that cosign takes.
                    let odd = of == KeyType::P384 && layout == Layout::LegacySignature;
                    if evidence == Evidence::Log && (odd || v2 && of != KeyType::P256) {
                        let found = refusal(&findings);
                        assert!(matches!(found, Some(Reason::FormatNotSupported { .. })), "{case}: {found:?}");
                        continue;
                    }
                    let time = match evidence {
                        Evidence::Signature => false,
                        Evidence::Timestamp => true,
                        Evidence::Log => !v2 || stamp,
                    };
                    let expected = Proof {
                        signer: "holder".to_owned(),
                        by: By::Key(Digest::sha256(&key.public_der())),
                        evidence,
                        times: time.then(then).into_iter().collect(),
                        log: if evidence == Evidence::Log { logged(&candidate) } else { Vec::new() },
                        certificate_logged: false,
                        root: (evidence > Evidence::Signature).then(|| root.facts().clone()),
                        origin: candidate.origin.clone(),
                    };
                    facts(layout, &candidate, &rule, &expected, &case);
                }
            }
        }
    }
}

#[test]
fn a_key_alone_needs_no_trust_root() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    let alone = bundle(Added::V1Time.to(instance.keyed(&key)).attest(&statement()));
    assert_eq!(refusal(&judged(&alone, &holder(&key, Evidence::Signature, &[]))), None);
    for needed in [Evidence::Timestamp, Evidence::Log] {
        let findings = judged(&alone, &holder(&key, needed, &[]));
        assert_eq!(refusal(&findings), Some(&Reason::NoTrustRoot { needed }));
    }
    let findings = judged(&bundle(Added::V1.to(alice(&instance)).attest(&statement())), &named(Evidence::Log, &[]));
    assert_eq!(refusal(&findings), Some(&Reason::NoTrustRoot { needed: Evidence::Log }));
}

#[test]
fn a_certificate_without_time_proves_nothing() {
    let instance = Instance::new();
    let roots = [root(&instance)];
    let rule = named(Evidence::Signature, &roots);
    let findings = judged(&bundle(alice(&instance).attest(&statement())), &rule);
    let missing = Reason::EvidenceMissing { expected: Evidence::Timestamp, found: Evidence::Signature };
    assert_eq!(refusal(&findings), Some(&missing));
    // A log of version 2 tells no time.
    let findings = judged(&bundle(Added::V2.to(alice(&instance)).attest(&statement())), &rule);
    assert!(matches!(refusal(&findings), Some(Reason::BadTime { .. })), "{findings:?}");
    let stamped = bundle(Added::Time.to(alice(&instance)).attest(&statement()));
    let findings = judged(&stamped, &named(Evidence::Log, &roots));
    let missing = Reason::EvidenceMissing { expected: Evidence::Log, found: Evidence::Timestamp };
    assert_eq!(refusal(&findings), Some(&missing));
}

#[test]
fn a_build_is_known_by_its_claims() {
    let instance = Instance::new();
    let roots = [root(&instance)];
    let workflow = "https://github.com/o/r/.github/workflows/release.yml@refs/heads/main";
    let signer =
        instance.keyless(San::Uri(workflow.to_owned()), ISSUER).claim(5, "o/r").claim(12, "https://github.com/o/r");
    let made = bundle(signer.attest(&statement()));
    let rule = |subject: &str, claims: &[(&str, &str)]| {
        let text = |text: &str| Text::pattern(text).expect("a pattern");
        let claims = claims.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
        let identity = Identity { subject: text(subject), issuer: Text::Exact(ISSUER.to_owned()), claims };
        let who = Who::Identities(vec![identity]);
        Signer { name: "build".to_owned(), who, evidence: Evidence::Log, roots: roots.to_vec() }
    };
    let accepted = rule("https://github\\.com/o/.*", &[("sourceRepositoryUri", "https://github\\.com/o/r")]);
    let findings = verify(std::slice::from_ref(&made), &[accepted], trust::Formats::default());
    let claims = [("githubWorkflowRepository", "o/r"), ("sourceRepositoryUri", "https://github.com/o/r")];
    let expected = By::Certificate(Certificate {
        subject: Some(workflow.to_owned()),
        issuer: Some(ISSUER.to_owned()),
        claims: claims.map(|(name, value)| (name, value.to_owned())).into(),
    });
    assert_eq!(findings.attestations.first().expect("taken").proof.by, expected);
    for refused in [
        rule("github\\.com/o", &[]),
        rule(".*", &[("sourceRepositoryUri", "https://github\\.com/o")]),
        rule(".*", &[("buildTrigger", ".*")]),
    ] {
        let findings = judged(&made, &refused);
        assert!(matches!(refusal(&findings), Some(Reason::WrongIdentity { .. })), "{findings:?}");
    }
}

#[test]
fn each_root_is_tried_alone() {
    let (instance, other) = (Instance::new(), Instance::new());
    let roots = [root(&other), root(&instance)];
    let made = bundle(Added::V1.to(alice(&instance)).attest(&statement()));
    let findings = judged(&made, &named(Evidence::Log, &roots));
    let [_, own] = &roots;
    assert_eq!(findings.attestations.first().expect("taken").proof.root.as_ref(), Some(own.facts()));
    let findings = judged(&made, &named(Evidence::Log, &[Root::public_good().expect("a root")]));
    assert!(refusal(&findings).is_some());
}

/// Compares all that is known of a candidate.
fn facts(layout: Layout, candidate: &Candidate, rule: &Signer, expected: &Proof, case: &str) {
    let findings = judged(candidate, rule);
    assert_eq!(refusal(&findings), None, "{case}");
    if layout == Layout::LegacySignature {
        let signature = findings.signatures.first().expect("a signature");
        assert_eq!((&signature.proof, &signature.annotations), (expected, &json!({ "env": "test" })), "{case}");
    } else {
        let made = findings.attestations.first().expect("an attestation");
        assert_eq!(&made.proof, expected, "{case}");
        assert_eq!((made.predicate_type.as_str(), &made.predicate), (PREDICATE, &json!({ "made": "well" })), "{case}");
        assert_eq!(candidate.origin.subject, image());
    }
}

/// The entries that the material holds, read independently.
fn logged(candidate: &Candidate) -> Vec<LogEntry> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    match &candidate.material {
        Material::Bundle(json) => {
            let bundle: Value = serde_json::from_slice(json).expect("JSON");
            let entries =
                bundle.pointer("/verificationMaterial/tlogEntries").and_then(Value::as_array).expect("a list");
            let entry = |entry: &Value| LogEntry {
                log: text(entry.pointer("/logId/keyId").expect("an id")),
                index: text(entry.get("logIndex").expect("an index")).parse().expect("a number"),
                integrated: entry.get("integratedTime").map(|_| then()),
            };
            entries.iter().map(entry).collect()
        }
        Material::SimpleSigning(_, annotations) | Material::Envelope(_, annotations) => {
            let entry = annotations.get("dev.sigstore.cosign/bundle").map(|json| {
                let entry: Value = serde_json::from_str(json).expect("JSON");
                let payload = entry.get("Payload").expect("a payload");
                let index = payload.get("logIndex").and_then(Value::as_u64).expect("an index");
                let instance_log = payload.get("logID").map(text).expect("an id");
                LogEntry { log: base64_of_hex(&instance_log), index, integrated: Some(then()) }
            });
            entry.into_iter().collect()
        }
        Material::Other(_) => Vec::new(),
    }
}

fn base64_of_hex(hex: &str) -> String {
    let bytes = (0..hex.len() / 2).map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2).expect("two"), 16));
    STANDARD.encode(bytes.collect::<Result<Vec<_>, _>>().expect("hexadecimal"))
}

/// The instance's time.
fn then() -> Timestamp {
    Timestamp::from_second(TIME).expect("in range")
}

#[test]
fn both_logs_of_an_instance_are_told_apart() {
    let instance = Instance::new();
    let roots = [root(&instance)];
    let key = Key::generate(KeyType::P256);
    let mut logs = Vec::new();
    for version in [LogVersion::V1, LogVersion::V2] {
        let made = bundle(instance.keyed(&key).log(version).attest(&statement()));
        let findings = judged(&made, &holder(&key, Evidence::Log, &roots));
        logs.push(findings.attestations.first().expect("taken").proof.log.first().expect("an entry").log.clone());
    }
    let trusted: Value = serde_json::from_str(&instance.trusted_root()).expect("JSON");
    let known = trusted.get("tlogs").and_then(Value::as_array).expect("logs").iter();
    let known: Vec<_> = known.filter_map(|log| log.pointer("/logId/keyId")?.as_str()).collect();
    assert_eq!(logs, known);
}
