//! Log entries of kind `intoto` 0.0.1, as Tekton Chains has them made: for keys only.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sigstore_instance::{Entry, Fault, Instance, Key, KeyType, Layout, Signing, TIME};
use trust::{By, Candidate, Evidence, Formats, Material, Reason, Root, verify};

use crate::made::{alice, bundle, candidate, holder, judged, layer, named, refusal, root, statement, variant};

#[test]
fn a_key_s_entry_is_checked() {
    let instance = Instance::new();
    let roots = [root(&instance)];
    for of in [KeyType::P256, KeyType::P384, KeyType::Ed25519, KeyType::Rsa2048] {
        let key = Key::generate(of);
        for signer in [entered(&instance, &key), entered(&instance, &key).timestamped()] {
            let made = candidate(&signer, Layout::LegacyAttestation);
            let findings = judged(&made, &holder(&key, Evidence::Log, &roots));
            assert_eq!(refusal(&findings), None, "{of:?}");
            let proof = &findings.attestations.first().expect("an attestation").proof;
            assert!(matches!(&proof.by, By::Key(by) if *by == dna::Digest::sha256(&key.public_der())));
            assert_eq!((proof.evidence, &proof.origin), (Evidence::Log, &made.origin));
            assert_eq!(proof.times.iter().map(|time| time.as_second()).collect::<Vec<_>>(), [TIME]);
            assert_eq!(proof.root.as_ref(), roots.first().map(trust::Root::facts));
            let [entry] = proof.log.as_slice() else { panic!("{:?}", proof.log) };
            let trusted: Value = serde_json::from_str(&instance.trusted_root()).expect("JSON");
            assert_eq!(trusted.pointer("/tlogs/0/logId/keyId"), Some(&json!(entry.log)));
            assert_eq!(entry.integrated.map(|time| time.as_second()), Some(TIME));
            let index = annotation(&made).pointer("/Payload/logIndex").and_then(Value::as_u64);
            assert_eq!(Some(entry.index), index);
        }
    }
}

#[test]
fn less_is_asked_of_it_where_the_rule_asks_for_less() {
    let instance = Instance::new();
    let roots = [root(&instance)];
    let key = Key::generate(KeyType::P256);
    let evidence = |signer: &Signing<'_>, needed| {
        let findings = judged(&candidate(signer, Layout::LegacyAttestation), &holder(&key, needed, &roots));
        findings.attestations.first().expect("taken").proof.evidence
    };
    let plain = entered(&instance, &key);
    assert_eq!(evidence(&plain, Evidence::Signature), Evidence::Signature);
    assert_eq!(evidence(&plain, Evidence::Timestamp), Evidence::Log);
    assert_eq!(evidence(&plain.timestamped(), Evidence::Timestamp), Evidence::Timestamp);
}

#[test]
fn its_faults_are_refused_with_their_reason() {
    let instance = Instance::new();
    let roots = [root(&instance)];
    let key = Key::generate(KeyType::P256);
    for fault in Fault::ALL {
        let signer = entered(&instance, &key);
        if !signer.takes(fault, Layout::LegacyAttestation) {
            continue;
        }
        let expected = match fault {
            // It holds no signature: a key's other one over the same envelope is as good.
            Fault::EntryOtherSignature | Fault::WrongPredicateType => "ok",
            Fault::SignatureSpoiled | Fault::PayloadChanged => "unknownKey",
            Fault::TwoSignatures => "malformed",
            Fault::WrongPayloadType => "formatNotSupported",
            Fault::EmptySubject | Fault::SubjectOnlySha512 | Fault::WrongSubject => "wrongSubject",
            _ => "badProof",
        };
        let made = candidate(&signer.fault(fault), Layout::LegacyAttestation);
        let findings = judged(&made, &holder(&key, Evidence::Log, &roots));
        let found = refusal(&findings);
        assert_eq!(found.map_or("ok".to_owned(), variant), expected, "{fault:?}: {found:?}");
    }
}

#[test]
fn each_thing_that_binds_the_entry_counts() {
    let instance = Instance::new();
    let roots = [root(&instance)];
    let key = Key::generate(KeyType::P256);
    let rule = holder(&key, Evidence::Log, &roots);
    let made = candidate(&entered(&instance, &key), Layout::LegacyAttestation);
    // The promise covers all four.
    for (field, value) in
        [("integratedTime", json!(TIME - 1)), ("logIndex", json!(7)), ("logID", json!("00".repeat(32)))]
    {
        let changed = with(&made, |entry| *entry.pointer_mut(&format!("/Payload/{field}")).expect("a field") = value);
        let found = judged(&changed, &rule);
        assert!(matches!(refusal(&found), Some(Reason::BadProof { .. })), "{field}: {found:?}");
    }
    let body = |entry: &mut Value| {
        let text = entry.pointer("/Payload/body").and_then(Value::as_str).expect("text");
        let body = String::from_utf8(STANDARD.decode(text).expect("base64")).expect("text");
        *entry.pointer_mut("/Payload/body").expect("a body") =
            STANDARD.encode(body.replacen("sha256", "sha512", 1)).into();
    };
    let found = judged(&with(&made, body), &rule);
    assert!(matches!(refusal(&found), Some(Reason::BadProof { .. })), "{found:?}");
    // The entry is about the envelope as it is stored.
    let Material::Envelope(bytes, annotations) = &made.material else { panic!("an envelope") };
    let spaced = Material::Envelope([bytes, &b" "[..]].concat(), annotations.clone());
    let found = judged(&Candidate { material: spaced, ..made.clone() }, &rule);
    assert!(matches!(refusal(&found), Some(Reason::BadProof { .. })), "{found:?}");
    // Another key's rule, another instance's root.
    let other = holder(&Key::generate(KeyType::P256), Evidence::Log, &roots);
    assert!(matches!(refusal(&judged(&made, &other)), Some(Reason::UnknownKey { .. })));
    let found = judged(&made, &holder(&key, Evidence::Log, &[root(&Instance::new())]));
    assert!(matches!(refusal(&found), Some(Reason::BadProof { .. })), "{found:?}");
}

/// A log that leaves the envelope's hash out, and then enters another payload or kind of hash.
#[test]
fn the_payload_alone_binds_where_no_envelope_is_named() {
    let instance = Instance::new();
    let [key, log] = [0, 1].map(|_| Key::generate(KeyType::P256));
    let mut trusted: Value = serde_json::from_str(&instance.trusted_root()).expect("JSON");
    let id = dna::Digest::sha256(&log.public_der());
    let own = trusted.pointer_mut("/tlogs/0").expect("a log");
    *own.pointer_mut("/publicKey/rawBytes").expect("a key") = STANDARD.encode(log.public_der()).into();
    *own.pointer_mut("/logId/keyId").expect("an id") = log.hint().into();
    let trusted = Root::from_json("own", trusted.to_string().as_bytes(), None).expect("a root");
    let made = candidate(&entered(&instance, &key), Layout::LegacyAttestation);
    let Material::Envelope(bytes, _) = &made.material else { panic!("an envelope") };
    let envelope: Value = serde_json::from_slice(bytes).expect("JSON");
    let payload = envelope.get("payload").and_then(Value::as_str).expect("text");
    let payload = dna::Digest::sha256(&STANDARD.decode(payload).expect("base64"));
    let other = dna::Digest::sha256(b"another");
    for (algorithm, value, taken) in
        [("sha256", payload.hex(), true), ("sha256", other.hex(), false), ("sha512", payload.hex(), false)]
    {
        let spec = json!({
            "content": { "payloadHash": { "algorithm": algorithm, "value": value } },
            "publicKey": STANDARD.encode(key.public_pem()),
        });
        let body = STANDARD.encode(json!({ "apiVersion": "0.0.1", "kind": "intoto", "spec": spec }).to_string());
        let id = id.hex();
        let promised = format!(r#"{{"body":"{body}","integratedTime":{TIME},"logID":"{id}","logIndex":7}}"#);
        let changed = with(&made, |entry| {
            let payload = serde_json::from_str::<Value>(&promised).expect("JSON");
            let promise = STANDARD.encode(log.sign(promised.as_bytes()));
            *entry = json!({ "SignedEntryTimestamp": promise, "Payload": payload });
        });
        let findings = judged(&changed, &holder(&key, Evidence::Log, std::slice::from_ref(&trusted)));
        match refusal(&findings) {
            None => assert!(taken, "{algorithm}:{value}"),
            Some(found) => assert!(!taken && matches!(found, Reason::BadProof { .. }), "{algorithm}:{value}: {found}"),
        }
    }
}

#[test]
fn with_a_certificate_it_is_not_supported() {
    let instance = Instance::new();
    let roots = [root(&instance)];
    let made = layer(alice(&instance).entry(Entry::IntotoV001).legacy_attestation(&statement()));
    let findings = verify(std::slice::from_ref(&made), &[named(Evidence::Log, &roots)], Formats::default());
    let found = "log entry intoto 0.0.1 with a certificate, only with a key".to_owned();
    assert_eq!(refusal(&findings), Some(&Reason::FormatNotSupported { found }));
    // In bundles no one writes it.
    let made = bundle(alice(&instance).entry(Entry::IntotoV001).attest(&statement()));
    let found = judged(&made, &named(Evidence::Log, &roots));
    assert!(matches!(refusal(&found), Some(Reason::FormatNotSupported { .. })), "{found:?}");
}

fn entered<'a>(instance: &'a Instance, key: &'a Key) -> Signing<'a> {
    instance.keyed(key).entry(Entry::IntotoV001)
}

fn annotation(candidate: &Candidate) -> Value {
    let Material::Envelope(_, annotations) = &candidate.material else { panic!("an envelope") };
    serde_json::from_str(annotations.get(ENTRY).expect("an entry")).expect("JSON")
}

fn with(candidate: &Candidate, change: impl FnOnce(&mut Value)) -> Candidate {
    let mut entry = annotation(candidate);
    change(&mut entry);
    let mut changed = candidate.clone();
    let Material::Envelope(_, annotations) = &mut changed.material else { panic!("an envelope") };
    annotations.insert(ENTRY.to_owned(), entry.to_string());
    changed
}

const ENTRY: &str = "dev.sigstore.cosign/bundle";
