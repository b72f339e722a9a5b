//! What other verifiers once took: a test for each, by its name.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sigstore_instance::{COSIGN_SIGN, Fault, Instance, Key, KeyType, Layout, LogVersion, Statement, StatementVersion};
use trust::{Candidate, Evidence, Formats, Material, Reason, verify};

use crate::made::{
    PREDICATE, alice, bundle, candidate, holder, image, judged, layer, named, refusal, root, statement, variant,
};

/// CVE-2022-36056: the whole entry is the honest one of someone else's signature. CVE-2026-22703: it is about other bytes.
#[test]
fn foreign_log_entries() {
    let instance = Instance::new();
    let roots = [root(&instance)];
    let key = Key::generate(KeyType::P256);
    for layout in [Layout::Attestation, Layout::LegacySignature, Layout::LegacyAttestation] {
        for fault in [Fault::EntryForeign, Fault::EntryOtherArtifact, Fault::EntryOtherKey, Fault::EntryOtherSignature]
        {
            let keyless = alice(&instance).log(LogVersion::V1).fault(fault);
            let keyed = instance.keyed(&key).log(LogVersion::V1).fault(fault);
            for (signer, rule) in
                [(keyless, named(Evidence::Log, &roots)), (keyed, holder(&key, Evidence::Log, &roots))]
            {
                let findings = judged(&candidate(&signer, layout), &rule);
                let found = refusal(&findings);
                assert!(matches!(found, Some(Reason::BadProof { .. })), "{layout:?}, {fault:?}: {found:?}");
            }
        }
    }
}

/// Nothing signs a bundle's version: as an older one it would pass by its promise alone.
#[test]
fn a_downgrade_to_version_0_1() {
    let instance = Instance::new();
    let rule = named(Evidence::Log, &[root(&instance)]);
    let signer = alice(&instance).log(LogVersion::V1);
    let found = judged(&bundle(signer.clone().fault(Fault::Downgrade).attest(&statement())), &rule);
    assert!(matches!(refusal(&found), Some(Reason::FormatNotAllowed { .. })), "{found:?}");
    // With the proof still there it is refused as well, and so is any other version.
    for version in ["0.1", "0.2"] {
        let mut honest: Value = serde_json::from_slice(&signer.attest(&statement())).expect("JSON");
        let media_type = format!("application/vnd.dev.sigstore.bundle+json;version={version}");
        *honest.get_mut("mediaType").expect("a type") = media_type.into();
        let found = judged(&bundle(honest.to_string().into_bytes()), &rule);
        assert!(matches!(refusal(&found), Some(Reason::FormatNotAllowed { .. })), "{found:?}");
    }
}

#[test]
fn an_attestation_is_no_signature() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    let rule = holder(&key, Evidence::Signature, &[]);
    for layout in [Layout::Attestation, Layout::LegacyAttestation] {
        let findings = judged(&candidate(&instance.keyed(&key), layout), &rule);
        assert_eq!((findings.signatures.len(), findings.attestations.len(), findings.signers()), (0, 1, 0));
    }
    let signed = Statement::cosign_signature(image().hex());
    let findings = judged(&bundle(instance.keyed(&key).attest(&signed)), &rule);
    assert_eq!((findings.signatures.len(), findings.attestations.len(), findings.signers()), (1, 0, 1));
    // A tag for attestations has no signatures of images.
    let findings = judged(&layer(instance.keyed(&key).legacy_attestation(&signed)), &rule);
    assert!(matches!(refusal(&findings), Some(Reason::Malformed { .. })), "{findings:?}");
}

/// GHSA-w6c6-c85g-mmv6: asked for one type, told of another.
#[test]
fn another_predicate_type() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    let rule = holder(&key, Evidence::Signature, &[]);
    for layout in [Layout::Attestation, Layout::LegacyAttestation] {
        let signer = instance.keyed(&key).fault(Fault::WrongPredicateType);
        let mut made = candidate(&signer, layout);
        if let Material::Envelope(_, annotations) = &mut made.material {
            // What is said outside of the signature does not count.
            annotations.insert("predicateType".to_owned(), PREDICATE.to_owned());
        }
        let findings = judged(&made, &rule);
        assert_eq!((findings.attestations.len(), findings.of_type(PREDICATE).count()), (1, 0), "{layout:?}");
    }
}

#[test]
fn statements_about_nothing_that_can_be_compared() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    for layout in [Layout::Attestation, Layout::LegacyAttestation] {
        for fault in [Fault::EmptySubject, Fault::SubjectOnlySha512] {
            let made = candidate(&instance.keyed(&key).fault(fault), layout);
            let expected = Reason::WrongSubject { expected: image(), found: Vec::new() };
            assert_eq!(refusal(&judged(&made, &holder(&key, Evidence::Signature, &[]))), Some(&expected), "{fault:?}");
        }
    }
}

#[test]
fn two_signatures_in_one_envelope() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    for layout in [Layout::Attestation, Layout::LegacyAttestation] {
        let made = candidate(&instance.keyed(&key).fault(Fault::TwoSignatures), layout);
        let findings = judged(&made, &holder(&key, Evidence::Signature, &[]));
        assert!(matches!(refusal(&findings), Some(Reason::Malformed { .. })), "{layout:?}");
    }
}

/// A bundle around bytes says nothing of an image, whoever signed the bytes.
#[test]
fn a_signature_over_bytes_beside_an_image() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    let findings = judged(&bundle(instance.keyed(&key).sign_blob(b"bytes")), &holder(&key, Evidence::Signature, &[]));
    assert!(matches!(refusal(&findings), Some(Reason::FormatNotAllowed { .. })), "{findings:?}");
}

#[test]
fn the_wrong_kind_of_signer() {
    let instance = Instance::new();
    let roots = [root(&instance)];
    let key = Key::generate(KeyType::P256);
    for layout in [Layout::Attestation, Layout::LegacySignature, Layout::LegacyAttestation] {
        let keyless = candidate(&alice(&instance).log(LogVersion::V1), layout);
        let findings = judged(&keyless, &holder(&key, Evidence::Log, &roots));
        assert!(matches!(refusal(&findings), Some(Reason::UnknownKey { found: Some(_), .. })), "{findings:?}");
        let keyed = candidate(&instance.keyed(&key).log(LogVersion::V1), layout);
        let findings = judged(&keyed, &named(Evidence::Log, &roots));
        assert!(matches!(refusal(&findings), Some(Reason::WrongIdentity { .. })), "{findings:?}");
        let other = Key::generate(KeyType::P256);
        let findings = judged(&keyed, &holder(&other, Evidence::Log, &roots));
        assert!(matches!(refusal(&findings), Some(Reason::UnknownKey { .. })), "{layout:?}, {findings:?}");
    }
}

#[test]
fn legacy_formats_where_the_rule_allows_none() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    let rules = [holder(&key, Evidence::Signature, &[])];
    for (layout, taken) in
        [(Layout::Attestation, true), (Layout::LegacySignature, false), (Layout::LegacyAttestation, false)]
    {
        let made = candidate(&instance.keyed(&key), layout);
        let findings = verify(&[made], &rules, Formats { legacy: false });
        let found = refusal(&findings);
        assert_eq!(found.map_or("ok".to_owned(), variant), if taken { "ok" } else { "formatNotAllowed" }, "{layout:?}");
    }
}

/// A proof without a promise does not sign which log, which index and which time the bundle names.
#[test]
fn unsigned_words_about_the_log() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    let rule = holder(&key, Evidence::Log, &[root(&instance)]);
    let trusted: Value = serde_json::from_str(&instance.trusted_root()).expect("JSON");
    let log = |at: usize| trusted.pointer(&format!("/tlogs/{at}/logId/keyId")).cloned().expect("a log");
    let v1 = instance.keyed(&key).log(LogVersion::V1).fault(Fault::NoInclusionPromise).attest(&statement());
    let v2 = instance.keyed(&key).log(LogVersion::V2).attest(&statement());
    for (own, other, made) in [(log(0), log(1), v1), (log(1), log(0), v2)] {
        let changed = |field: &str, value: Value| {
            let mut made: Value = serde_json::from_slice(&made).expect("JSON");
            let entry = made.pointer_mut("/verificationMaterial/tlogEntries/0").expect("an entry");
            entry.as_object_mut().expect("an object").insert(field.to_owned(), value);
            judged(&bundle(made.to_string().into_bytes()), &rule)
        };
        let honest = judged(&bundle(made.clone()), &rule);
        let entries = &honest.attestations.first().expect("taken").proof.log;
        let [entry] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!((json!(entry.log), entry.integrated), (own, None));
        let found = changed("integratedTime", json!("1700000000"));
        assert_eq!(&found.attestations.first().expect("taken").proof.log, entries);
        let found = changed("logIndex", json!("3"));
        assert!(found.attestations.first().is_none_or(|made| made.proof.log == *entries), "{found:?}");
        for unknown in [other, json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")] {
            let found = changed("logId", json!({ "keyId": unknown }));
            assert!(matches!(refusal(&found), Some(Reason::BadProof { .. })), "{found:?}");
        }
    }
}

#[test]
fn what_is_no_statement_of_a_known_version() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    let rule = holder(&key, Evidence::Signature, &[]);
    let old = statement().version(StatementVersion::V0_1);
    assert_eq!(refusal(&judged(&bundle(instance.keyed(&key).attest(&old)), &rule)), None);
    for found in [judged(&bundle(b"{}".to_vec()), &rule), judged(&bundle(vec![0xff]), &rule)] {
        assert!(matches!(refusal(&found), Some(Reason::Malformed { .. })), "{found:?}");
    }
    let nothing = Candidate {
        material: Material::SimpleSigning(b"{}".to_vec(), BTreeMap::new()),
        ..candidate(&instance.keyed(&key), Layout::LegacySignature)
    };
    assert!(matches!(refusal(&judged(&nothing, &rule)), Some(Reason::Malformed { .. })));
}

/// cosign 3 before 3.0.5 signed without a predicate; what it says about the subject is kept.
#[test]
fn a_signature_without_predicate_is_one() {
    let instance = Instance::new();
    let roots = [root(&instance)];
    let made = alice(&instance).log(LogVersion::V1).attest(&Statement::cosign_signature(image().hex()));
    let findings = judged(&bundle(made), &named(Evidence::Log, &roots));
    assert_eq!(findings.signatures.first().expect("a signature").annotations, Value::Null);
    assert_eq!(COSIGN_SIGN, trust::COSIGN_SIGN);
}
