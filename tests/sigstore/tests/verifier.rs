//! What an independent verifier says of the material: it accepts all that is honest and names what is wrong of the rest.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sigstore_instance::{
    Entry, Fault, Identity, Instance, Key, KeyType, Layer, Layout, LogVersion, Signing, Statement, StatementVersion,
};
use sigstore_trust_root::TrustedRoot;
use sigstore_types::{Artifact, Bundle, DerPublicKey, Sha256Hash};
use sigstore_verify::{PublicKeyVerificationPolicy, VerificationPolicy, VerificationResult, verify};

#[test]
fn accepts_keyless_attestations() {
    let instance = Instance::new();
    for (name, signer) in logged(&alice(&instance)) {
        for version in [StatementVersion::V0_1, StatementVersion::V1] {
            let result = keyless(&instance, &signer.attest(&statement().version(version)), None)
                .unwrap_or_else(|error| panic!("{name}, {version:?}: {error}"));
            assert!(result.certificate_verified() && result.sct_verified() && result.tlog_verified(), "{name}");
        }
    }
}

#[test]
fn accepts_keyless_signatures_of_blobs() {
    let instance = Instance::new();
    for (name, signer) in logged(&alice(&instance)).into_iter().filter(|(name, _)| *name != "intoto") {
        keyless(&instance, &signer.sign_blob(BLOB), Some(BLOB)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn reads_the_claims_of_a_certificate() {
    let instance = Instance::new();
    let workflow = "https://github.com/o/r/.github/workflows/release.yml@refs/heads/main";
    let signer = instance
        .keyless(Identity::Uri(workflow.to_owned()), ISSUER)
        .claim(5, "o/r")
        .claim(12, "https://github.com/o/r")
        .claim(22, "public");
    let policy = VerificationPolicy::new(workflow, ISSUER);
    let result = check(&instance, &signer.attest(&statement()), None, &policy).expect("accepted");
    let claims = &result.certificate().expect("keyless").ci_claims;
    assert_eq!(claims.source_repository_uri.as_deref(), Some("https://github.com/o/r"));
    assert_eq!(claims.source_repository_visibility_at_signing.as_deref(), Some("public"));
    assert_eq!(claims.deprecated_github.workflow_repository.as_deref(), Some("o/r"));
    assert_eq!(result.issuer(), Some(ISSUER));
}

#[test]
fn accepts_the_signature_that_cosign_makes_of_an_image() {
    let instance = Instance::new();
    let statement = Statement::cosign_signature(&digest());
    keyless(&instance, &alice(&instance).attest(&statement), None).expect("a statement without predicate is accepted");
}

#[test]
fn accepts_keys_of_every_type() {
    let instance = Instance::new();
    for of in [KeyType::P256, KeyType::P384, KeyType::Ed25519, KeyType::Rsa2048] {
        let key = Key::generate(of);
        let signer = instance.keyed(&key);
        let policy = key_policy(&key);
        for signer in [signer.clone().log(LogVersion::V1), signer.clone().log(LogVersion::V1).timestamped()] {
            check(&instance, &signer.attest(&statement()), None, &policy)
                .unwrap_or_else(|error| panic!("{of:?}, log: {error}"));
        }
        let unlogged = policy.skip_tlog_unsafe();
        let stamped = signer.clone().timestamped();
        for (bundle, blob) in [(stamped.attest(&statement()), None), (stamped.sign_blob(BLOB), Some(BLOB))] {
            check(&instance, &bundle, blob, &unlogged).unwrap_or_else(|error| panic!("{of:?}, timestamp: {error}"));
        }
        // Its own limit: what travels with neither is for others to check.
        let error = check(&instance, &signer.attest(&statement()), None, &unlogged).expect_err("no time");
        assert!(error.contains("at least one tlog entry or timestamp"), "{error}");
    }
}

#[test]
fn accepts_keyed_entries_of_rekor_v2() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    let signer = instance.keyed(&key).log(LogVersion::V2).timestamped();
    check(&instance, &signer.attest(&statement()), None, &key_policy(&key)).expect("accepted");
    check(&instance, &signer.sign_blob(BLOB), Some(BLOB), &key_policy(&key)).expect("accepted");
}

#[test]
fn accepts_legacy_layers_as_bundles() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    for layout in [Layout::LegacySignature, Layout::LegacyAttestation] {
        let result = legacy(&instance, &alice(&instance), layout, &VerificationPolicy::new(ALICE, ISSUER));
        assert!(result.expect("keyless").integrated_time().is_some());
        let signer = instance.keyed(&key).log(LogVersion::V1);
        let result = legacy(&instance, &signer, layout, &key_policy(&key));
        assert!(result.expect("keyed").integrated_time().is_some());
    }
}

#[test]
fn refuses_faults_of_legacy_layers() {
    let instance = Instance::new();
    for layout in [Layout::LegacySignature, Layout::LegacyAttestation] {
        let signer = alice(&instance);
        for fault in Fault::ALL.into_iter().filter(|fault| signer.takes(*fault, layout)) {
            let signer = signer.clone().fault(fault);
            let result = legacy(&instance, &signer, layout, &VerificationPolicy::new(ALICE, ISSUER));
            // What a payload or statement says is for others to read.
            let accepted = match layout {
                Layout::LegacySignature => [Fault::WrongPayloadType, Fault::WrongSubject].contains(&fault),
                _ => fault == Fault::WrongPredicateType,
            };
            assert_eq!(result.is_ok(), accepted, "{layout:?}, {fault:?}: {:?}", result.err());
        }
    }
}

#[test]
fn names_each_fault() {
    let instance = Instance::new();
    let signer = alice(&instance).timestamped();
    for fault in Fault::ALL {
        let result = keyless(&instance, &signer.clone().fault(fault).attest(&statement()), None);
        match (result, refusal(fault)) {
            (Err(error), Some(reason)) => assert!(error.contains(reason), "{fault:?}: {error}"),
            (Err(error), None) => panic!("{fault:?} is the policy's matter: {error}"),
            (Ok(_), Some(_)) => panic!("{fault:?} was accepted"),
            (Ok(_), None) => {}
        }
    }
}

#[test]
fn refuses_faults_of_rekor_v2() {
    let instance = Instance::new();
    let signer = alice(&instance).log(LogVersion::V2).timestamped();
    for (fault, reason) in [
        (Fault::NoTimestamp, "no verified timestamp"),
        (Fault::ForeignLog, "No matching Rekor key"),
        (Fault::EntryForeign, "artifact hash mismatch"),
        (Fault::EntryOtherArtifact, "artifact hash mismatch"),
        (Fault::EntryOtherSignature, "does not match signature in Rekor entry"),
        (Fault::EntryOtherKey, "does not match certificate in Rekor entry"),
        (Fault::EntryBodySwapped, "inclusion proof"),
        (Fault::NoInclusionProof, "inclusion proof"),
        (Fault::ProofOfOtherLeaf, "inclusion proof"),
        (Fault::CheckpointForeignKey, "No valid Rekor signature found on checkpoint"),
        (Fault::CheckpointOtherRoot, "inclusion proof"),
        (Fault::TimestampOutside, "certificate"),
        (Fault::TimestampOfOther, "timestamp"),
        (Fault::TimestampForeignAuthority, "timestamp"),
    ] {
        let bundle = signer.clone().fault(fault).attest(&statement());
        let error = keyless(&instance, &bundle, None).err().unwrap_or_else(|| panic!("{fault:?} was accepted"));
        assert!(error.to_lowercase().contains(&reason.to_lowercase()), "{fault:?}: {error}");
    }
}

#[test]
fn refuses_faults_of_blobs_and_keys() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    let (blob, keyed) = (alice(&instance), instance.keyed(&key).log(LogVersion::V1));
    for (fault, reason) in [
        (Fault::SignatureSpoiled, "signature verification failed"),
        (Fault::PayloadChanged, "message digest in bundle does not match"),
        (Fault::EntryForeign, "artifact hash mismatch"),
        (Fault::EntryOtherSignature, "does not match signature in Rekor entry"),
        (Fault::EntryOtherKey, "Rekor entry"),
    ] {
        for (policy, signer) in [(None, &blob), (Some(key_policy(&key)), &keyed)] {
            let bundle = signer.clone().fault(fault).sign_blob(BLOB);
            let result = match &policy {
                None => keyless(&instance, &bundle, Some(BLOB)),
                Some(policy) => check(&instance, &bundle, Some(BLOB), policy),
            };
            let error = result.err().unwrap_or_else(|| panic!("{fault:?} was accepted"));
            assert!(error.to_lowercase().contains(&reason.to_lowercase()), "{fault:?}: {error}");
        }
    }
}

#[test]
fn trusts_no_other_instance() {
    let (instance, other) = (Instance::new(), Instance::new());
    keyless(&other, &alice(&instance).attest(&statement()), None).expect_err("other keys");
}

#[test]
fn holds_at_another_time() {
    let instance = Instance::at(1_700_000_000);
    let result = keyless(&instance, &alice(&instance).timestamped().attest(&statement()), None).expect("accepted");
    assert!(result.verified_timestamps().iter().all(|time| time.as_second() == 1_700_000_000));
}

#[test]
fn tekton_s_entries_are_as_rekor_writes_them() {
    let instance = Instance::new();
    let layer = alice(&instance).entry(Entry::IntotoV001).legacy_attestation(&statement());
    let logged: Value = serde_json::from_str(&layer.annotations["dev.sigstore.cosign/bundle"]).expect("JSON");
    let body = BASE64_STANDARD.decode(logged["Payload"]["body"].as_str().expect("text")).expect("base64");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&body["kind"], &body["apiVersion"]), (&json!("intoto"), &json!("0.0.1")));
    let hash = Sha256::digest(&layer.bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(body["spec"]["content"]["hash"], json!({ "algorithm": "sha256", "value": hash }));
    let pem = BASE64_STANDARD.decode(body["spec"]["publicKey"].as_str().expect("text")).expect("base64");
    assert_eq!(pem, layer.annotations["dev.sigstore.cosign/certificate"].as_bytes());
}

#[test]
#[should_panic(expected = "NoSct changes nothing in Attestation")]
fn a_fault_that_changes_nothing_is_refused() {
    let key = Key::generate(KeyType::P256);
    Instance::new().keyed(&key).fault(Fault::NoSct).attest(&statement());
}

#[test]
fn every_fault_can_be_made_where_it_changes_something() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::Ed25519);
    let keyed = instance.keyed(&key);
    let keyless = alice(&instance).timestamped();
    let logs = [LogVersion::V1, LogVersion::V2].into_iter();
    let logged = logs.flat_map(|log| [keyless.clone().log(log), keyed.clone().log(log)]);
    for signer in logged.chain([keyed.clone()]) {
        for layout in [Layout::Attestation, Layout::Blob, Layout::LegacySignature, Layout::LegacyAttestation] {
            for fault in Fault::ALL.into_iter().filter(|fault| signer.takes(*fault, layout)) {
                let signer = signer.clone().fault(fault);
                let made = match layout {
                    Layout::Attestation => signer.attest(&statement()),
                    Layout::Blob => signer.sign_blob(BLOB),
                    Layout::LegacySignature => signer.legacy_signature("app", &digest(), &Value::Null).bytes,
                    Layout::LegacyAttestation => signer.legacy_attestation(&statement()).bytes,
                };
                serde_json::from_slice::<Value>(&made).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            }
        }
    }
    assert!(Fault::ALL.iter().all(|fault| keyless.takes(*fault, Layout::Attestation)));
    let alone: Vec<_> = Fault::ALL.into_iter().filter(|fault| keyed.takes(*fault, Layout::Blob)).collect();
    assert_eq!(alone, [Fault::SignatureSpoiled, Fault::PayloadChanged]);
}

/// How the verifier names a fault of a keyless attestation in Rekor v1 with a timestamp. None: it is the policy's matter.
fn refusal(fault: Fault) -> Option<&'static str> {
    Some(match fault {
        Fault::CertificateExpired => "CertExpired",
        Fault::CertificateNotYetValid => "CertNotValidYet",
        Fault::WrongIdentity => "identity mismatch",
        Fault::WrongIssuer => "issuer mismatch",
        Fault::NoSct => "missing SCT",
        Fault::SctForeignKey => "SCT signature verification failed",
        Fault::CertificateForeignAuthority => "certificate chain validation failed",
        Fault::NoCodeSigning => "RequiredEkuNotFound",
        Fault::ForeignLog => "No log key",
        Fault::SetForeignKey | Fault::SetOfOtherEntry | Fault::EntryBodySwapped => "SET verification failed",
        Fault::EntryForeign | Fault::EntryOtherArtifact => "payload hash mismatch",
        Fault::EntryOtherSignature | Fault::EntryOtherKey => "does not match any signature in Rekor entry",
        Fault::NoInclusionProof => "inclusion proof",
        Fault::ProofOfOtherLeaf => "inclusion proof verification failed",
        Fault::CheckpointForeignKey => "No valid Rekor signature found on checkpoint",
        Fault::CheckpointOtherRoot => "root hash",
        Fault::IntegratedTimeOutside | Fault::TimestampOutside => "CertExpired",
        Fault::TimestampOfOther => "hash mismatch",
        Fault::TimestampForeignAuthority => "TSA timestamp verification failed",
        Fault::SignatureSpoiled | Fault::PayloadChanged => "DSSE signature verification failed",
        Fault::TwoSignatures => "signature",
        Fault::WrongPayloadType => "unsupported DSSE payload type",
        Fault::EmptySubject => "no subjects",
        Fault::SubjectOnlySha512 | Fault::WrongSubject => "does not match any subject",
        // The timestamp stands in for the promise's time, and the promise for the timestamp.
        Fault::NoInclusionPromise | Fault::NoTimestamp => return None,
        // Nothing signs the media type.
        Fault::Downgrade => return None,
        Fault::WrongPredicateType => return None,
    })
}

fn logged<'a>(signer: &Signing<'a>) -> [(&'static str, Signing<'a>); 4] {
    [
        ("v1", signer.clone()),
        ("v1 and timestamp", signer.clone().timestamped()),
        ("v2 and timestamp", signer.clone().log(LogVersion::V2).timestamped()),
        ("intoto", signer.clone().entry(Entry::IntotoV002)),
    ]
}

/// Verifies a legacy layer, as a bundle v0.1.
fn legacy(
    instance: &Instance,
    signer: &Signing<'_>,
    layout: Layout,
    policy: &impl sigstore_verify::Policy,
) -> Result<VerificationResult, String> {
    if layout == Layout::LegacyAttestation {
        let layer = signer.legacy_attestation(&statement());
        let envelope = serde_json::from_slice(&layer.bytes).expect("JSON");
        return check(instance, &from_legacy(&layer, "dsseEnvelope", envelope), None, policy);
    }
    let layer = signer.legacy_signature("registry.test/app:1", &digest(), &json!({ "env": "test" }));
    let digest = BASE64_STANDARD.encode(Sha256::digest(&layer.bytes));
    let message = json!({
        "messageDigest": { "algorithm": "SHA2_256", "digest": digest },
        "signature": layer.annotations["dev.cosignproject.cosign/signature"],
    });
    check(instance, &from_legacy(&layer, "messageSignature", message), Some(&layer.bytes), policy)
}

fn from_legacy(layer: &Layer, kind: &str, content: Value) -> Vec<u8> {
    let entry: Value = serde_json::from_str(&layer.annotations["dev.sigstore.cosign/bundle"]).expect("JSON");
    let payload = &entry["Payload"];
    let body = BASE64_STANDARD.decode(payload["body"].as_str().expect("text")).expect("base64");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let log_id: Vec<u8> = payload["logID"]
        .as_str()
        .expect("text")
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("digits"))
        .collect();
    let mut material = json!({ "tlogEntries": [{
        "logIndex": payload["logIndex"].to_string(),
        "logId": { "keyId": BASE64_STANDARD.encode(log_id) },
        "kindVersion": { "kind": body["kind"], "version": body["apiVersion"] },
        "integratedTime": payload["integratedTime"].to_string(),
        "inclusionPromise": { "signedEntryTimestamp": entry["SignedEntryTimestamp"] },
        "canonicalizedBody": payload["body"],
    }]});
    match layer.annotations.get("dev.sigstore.cosign/certificate") {
        Some(pem) => {
            let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
            material["x509CertificateChain"] = json!({ "certificates": [{ "rawBytes": der }] });
        }
        None => material["publicKey"] = json!({ "hint": "" }),
    }
    let media_type = "application/vnd.dev.sigstore.bundle+json;version=0.1";
    json!({ "mediaType": media_type, "verificationMaterial": material, kind: content }).to_string().into_bytes()
}

fn alice(instance: &Instance) -> Signing<'_> {
    instance.keyless(Identity::Email(ALICE.to_owned()), ISSUER)
}

fn keyless(instance: &Instance, bundle: &[u8], blob: Option<&[u8]>) -> Result<VerificationResult, String> {
    check(instance, bundle, blob, &VerificationPolicy::new(ALICE, ISSUER))
}

fn key_policy(key: &Key) -> PublicKeyVerificationPolicy {
    PublicKeyVerificationPolicy::new(DerPublicKey::from_pem(&key.public_pem()).expect("PEM"))
}

fn check(
    instance: &Instance,
    bundle: &[u8],
    blob: Option<&[u8]>,
    policy: &impl sigstore_verify::Policy,
) -> Result<VerificationResult, String> {
    let root = TrustedRoot::from_json(&instance.trusted_root()).expect("a trusted root");
    let bundle = Bundle::from_json(std::str::from_utf8(bundle).expect("UTF-8")).map_err(|error| error.to_string())?;
    let artifact = match blob {
        Some(blob) => Artifact::from(blob),
        None => Artifact::from(Sha256Hash::from_hex(&digest()).expect("digits")),
    };
    verify(artifact, &bundle, policy, &root).map_err(|error| {
        let error: &dyn std::error::Error = &error;
        let causes = std::iter::successors(Some(error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    })
}

fn statement() -> Statement {
    Statement::new("https://example.com/predicate/v1", json!({ "answer": "42" }))
        .subject("registry.test/app", &digest())
}

fn digest() -> String {
    "0123456789abcdef".repeat(4)
}

const ALICE: &str = "alice@example.com";
const ISSUER: &str = "https://accounts.example.com";
const BLOB: &[u8] = b"some bytes";
