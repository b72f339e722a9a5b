//! Bundles of files: the same rules, and the statement or message must be about the file.

use dna::Digest;
use serde_json::json;
use sigstore_instance::{Fault, Instance, Key, KeyType, LogVersion, Signing, Statement};
use trust::{Blob, Evidence, Reason, Signer, verify_blob};

use crate::made::{PREDICATE, alice, holder, named, root, variant};

#[test]
fn a_bundle_is_held_against_its_file() {
    each(|signer, rule, case| {
        let statement = Statement::new(PREDICATE, json!({})).subject("file", Digest::sha256(FILE).hex());
        for made in [signer.sign_blob(FILE), signer.attest(&statement)] {
            let by_digest = Digest::sha256(FILE);
            assert!(verify_blob(&made, Blob::Bytes(FILE), std::slice::from_ref(rule)).is_ok(), "{case}");
            for blob in [Blob::Bytes(b"another file"), Blob::Sha256(&Digest::sha256(b"another file"))] {
                let found = verify_blob(&made, blob, std::slice::from_ref(rule)).expect_err(case);
                assert!(matches!(found, Reason::WrongSubject { .. }), "{case}: {found}");
            }
            // A signature over bytes can be checked by their digest where a log or certificate goes with it.
            let found = verify_blob(&made, Blob::Sha256(&by_digest), std::slice::from_ref(rule));
            let alone =
                rule.evidence < Evidence::Log && rule.name == "holder" && !made.windows(4).any(|at| at == b"dsse");
            assert_eq!(found.is_ok(), !alone, "{case}: {found:?}");
        }
    });
}

#[test]
fn faults_of_files_are_refused_with_their_reason() {
    each(|signer, rule, case| {
        for (fault, expected) in [
            (Fault::SignatureSpoiled, "badSignature"),
            (Fault::PayloadChanged, "wrongSubject"),
            (Fault::EntryForeign, "badProof"),
            (Fault::EntryOtherArtifact, "badProof"),
            (Fault::EntryOtherSignature, "badProof"),
            (Fault::EntryOtherKey, "badProof"),
            (Fault::NoInclusionProof, "evidenceMissing"),
            (Fault::ProofOfOtherLeaf, "badProof"),
        ] {
            if !signer.takes(fault, sigstore_instance::Layout::Blob) {
                continue;
            }
            let made = signer.clone().fault(fault).sign_blob(FILE);
            let found = verify_blob(&made, Blob::Bytes(FILE), std::slice::from_ref(rule)).expect_err(case);
            assert_eq!(variant(&found), expected, "{case}, {fault:?}: {found}");
        }
    });
}

/// An envelope about another file, by the right key and with no log that would compare them.
#[test]
fn a_key_s_statement_about_another_file_is_refused() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    let statement = Statement::new(PREDICATE, json!({})).subject("file", Digest::sha256(b"another").hex());
    let made = instance.keyed(&key).timestamped().attest(&statement);
    for evidence in [Evidence::Signature, Evidence::Timestamp] {
        let rule = holder(&key, evidence, &[root(&instance)]);
        let found = verify_blob(&made, Blob::Bytes(FILE), &[rule]).expect_err("about another file");
        assert!(matches!(found, Reason::WrongSubject { .. }), "{found}");
    }
}

#[test]
fn the_first_rule_that_holds_counts() {
    let instance = Instance::new();
    let [key, other] = [0, 1].map(|_| Key::generate(KeyType::P256));
    let made = instance.keyed(&key).sign_blob(FILE);
    let rules = [&other, &key].map(|key| holder(key, Evidence::Signature, &[]));
    let [stranger, _] = &rules;
    assert!(verify_blob(&made, Blob::Bytes(FILE), &rules).is_ok());
    let found = verify_blob(&made, Blob::Bytes(FILE), std::slice::from_ref(stranger)).expect_err("another key");
    assert!(matches!(found, Reason::UnknownKey { .. }), "{found}");
    assert!(verify_blob(&made, Blob::Bytes(FILE), &[]).is_err());
}

/// Runs `work` for who signs files, with a rule that takes them.
fn each(work: impl Fn(&Signing<'_>, &Signer, &str)) {
    let instance = Instance::new();
    let roots = [root(&instance)];
    let key = Key::generate(KeyType::P256);
    let keyed = || instance.keyed(&key);
    work(&alice(&instance).log(LogVersion::V1), &named(Evidence::Log, &roots), "keyless");
    work(&alice(&instance).log(LogVersion::V2).timestamped(), &named(Evidence::Log, &roots), "keyless, v2");
    work(&keyed().log(LogVersion::V1), &holder(&key, Evidence::Log, &roots), "key, v1");
    work(&keyed().timestamped(), &holder(&key, Evidence::Timestamp, &roots), "key, time");
    work(&keyed(), &holder(&key, Evidence::Signature, &roots), "key");
}

const FILE: &[u8] = b"a file";
