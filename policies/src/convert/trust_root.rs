//! `TrustRoot` of the policy controller as a `SignerTrust`. Source: sigstore/policy-controller, `pkg/apis/policy/v1alpha1/trustroot_types.go`;
//! protobuf-specs, `sigstore_trustroot.proto`.

use std::collections::BTreeSet;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    fields::{Fields, Notes},
    kyverno_match::metadata,
    rule::{refresh, trust, trust_to_bring},
};
use crate::kinds::SignerTrustSpec;

/// Names of the roots among the objects.
pub(super) fn names(objects: &[(String, Value)]) -> BTreeSet<String> {
    let is_root = |object: &&Value| {
        object.get("kind").and_then(Value::as_str) == Some("TrustRoot")
            && object
                .get("apiVersion")
                .and_then(Value::as_str)
                .is_some_and(|version| version.starts_with("policy.sigstore.dev/"))
    };
    let name = |object: &Value| Some(object.pointer("/metadata/name")?.as_str()?.to_owned());
    objects.iter().map(|(_, object)| object).filter(is_root).filter_map(name).collect()
}

pub(super) fn convert(mut object: Fields, made: &mut Vec<Value>, notes: &mut Notes) {
    let meta = metadata(&mut object, notes);
    if let Some(mut spec) = object.part("spec", notes) {
        if let Some(mut remote) = spec.part("remote", notes) {
            let mirror = remote.text("mirror", notes);
            let path = remote.here().to_owned();
            let root = remote.text("root", notes);
            remote.end(notes);
            let refresh = refresh(mirror.as_deref(), root.as_deref());
            let (root, told) = trust_to_bring(&meta.name, refresh);
            made.push(root);
            let url = mirror.unwrap_or_default();
            let why = "a TUF repository is asked by a person or in the background, never by the converter";
            let fetch = format!("mayfly trust-root --tuf-url {url} --tuf-root root.json -o trusted_root.json; {told}");
            notes.stricter(path, format!("{why}: until its root is brought, nobody is known by it"), fetch);
        } else if let Some(mut repository) = spec.part("repository", notes) {
            let path = repository.here().to_owned();
            for name in ["root", "mirrorFS", "targets"] {
                repository.take(name);
            }
            repository.end(notes);
            let (root, told) = trust_to_bring(&meta.name, None);
            made.push(root);
            let why = "the packed repository is not unpacked: until its root is brought, nobody is known by it";
            notes.stricter(path, why, format!("take targets/trusted_root.json out of mirrorFS (tar, gzip); {told}"));
        } else if let Some(keys) = spec.part("sigstoreKeys", notes) {
            let root = trusted_root(keys, notes);
            let text = serde_json::to_string(&root).unwrap_or_default();
            let spec = SignerTrustSpec { trusted_root: Some(text), config_map_ref: None, refresh: None, max_age: None };
            made.push(trust(&meta.name, &spec));
        } else {
            notes.weaker("spec", "it has none of `remote`, `repository` and `sigstoreKeys`", "correct it");
        }
        spec.end(notes);
    }
    object.end(notes);
}

/// The keys of one instance as a trusted root.
fn trusted_root(mut keys: Fields, notes: &mut Notes) -> Value {
    let mut root = json!({"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"});
    for (theirs, ours) in [("tLogs", "tlogs"), ("ctLogs", "ctlogs")] {
        let logs: Vec<_> = keys.parts(theirs, notes).into_iter().filter_map(|log| self::log(log, notes)).collect();
        set(&mut root, ours, logs);
    }
    for (theirs, ours) in
        [("certificateAuthorities", "certificateAuthorities"), ("timestampAuthorities", "timestampAuthorities")]
    {
        let list: Vec<_> = keys.parts(theirs, notes).into_iter().filter_map(|one| authority(one, notes)).collect();
        set(&mut root, ours, list);
    }
    keys.end(notes);
    root
}

fn set(root: &mut Value, name: &str, values: Vec<Value>) {
    if let Some(fields) = root.as_object_mut() {
        fields.insert(name.to_owned(), values.into());
    }
}

fn log(mut log: Fields, notes: &mut Notes) -> Option<Value> {
    let path = log.at("publicKey");
    let url = log.text("baseURL", notes).unwrap_or_default();
    let algorithm = log.text("hashAlgorithm", notes).unwrap_or_else(|| "sha256".to_owned());
    if !algorithm.eq_ignore_ascii_case("sha256") && algorithm != "sha-256" {
        notes.stricter(log.at("hashAlgorithm"), format!("logs are read with sha256, not {algorithm}"), "");
    }
    let key = log.text("publicKey", notes).unwrap_or_default();
    // What the policy controller calls it is the digest of the key, as here.
    log.take("logID");
    log.end(notes);
    let der = blocks(&key, "PUBLIC KEY").into_iter().next();
    let details = der.as_deref().and_then(details);
    let (Some(der), Some(details)) = (der, details) else {
        let why = "it is no public key that is known: entries of this log prove nothing";
        notes.stricter(path, why, "give an ECDSA, Ed25519 or RSA key, PEM in base64");
        return None;
    };
    let digest = dna::Digest::sha256(&der);
    let id: Vec<u8> = unhex(digest.hex());
    Some(json!({
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": BASE64_STANDARD.encode(&der),
            "keyDetails": details,
            "validFor": {"start": "1970-01-01T00:00:00Z"},
        },
        "logId": {"keyId": BASE64_STANDARD.encode(id)},
    }))
}

fn authority(mut authority: Fields, notes: &mut Notes) -> Option<Value> {
    let path = authority.at("certChain");
    let mut subject = authority.part("subject", notes);
    let mut of = |name: &str, notes: &mut Notes| subject.as_mut().and_then(|subject| subject.text(name, notes));
    let (organization, common_name) = (of("organization", notes), of("commonName", notes));
    if let Some(subject) = subject {
        subject.end(notes);
    }
    let uri = authority.text("uri", notes).unwrap_or_default();
    let chain = authority.text("certChain", notes).unwrap_or_default();
    authority.end(notes);
    let certificates = blocks(&chain, "CERTIFICATE");
    if certificates.is_empty() {
        notes.stricter(
            path,
            "there is no certificate in it: nothing is judged by this authority",
            "give PEM in base64",
        );
        return None;
    }
    let certificates: Vec<_> =
        certificates.iter().map(|der| json!({"rawBytes": BASE64_STANDARD.encode(der)})).collect();
    Some(json!({
        "subject": {"organization": organization.unwrap_or_default(), "commonName": common_name.unwrap_or_default()},
        "uri": uri,
        "certChain": {"certificates": certificates},
        "validFor": {"start": "1970-01-01T00:00:00Z"},
    }))
}

/// DER of the PEM blocks of one kind, in a text that may be base64 once more, as bytes in JSON are.
fn blocks(text: &str, label: &str) -> Vec<Vec<u8>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let packed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let unpacked = BASE64_STANDARD.decode(packed).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = unpacked.as_deref().filter(|text| text.contains(&begin)).unwrap_or(text);
    let bodies = text.split(&begin).skip(1).filter_map(|rest| rest.split(&end).next());
    let der = bodies.map(|body| body.chars().filter(|c| !c.is_whitespace()).collect::<String>());
    der.filter_map(|body| BASE64_STANDARD.decode(body).ok()).collect()
}

/// The kind of a SubjectPublicKeyInfo, by its algorithm's bytes. Source: RFC 5480, RFC 8410, RFC 3279.
fn details(der: &[u8]) -> Option<&'static str> {
    let has = |oid: &[u8]| der.windows(oid.len()).take(40).any(|window| window == oid);
    if has(&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]) {
        Some("PKIX_ECDSA_P256_SHA_256")
    } else if has(&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]) {
        Some("PKIX_ECDSA_P384_SHA_384")
    } else if has(&[0x06, 0x03, 0x2b, 0x65, 0x70]) {
        Some("PKIX_ED25519")
    } else if has(&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]) {
        Some(match der.len() {
            ..=350 => "PKIX_RSA_PKCS1V15_2048_SHA256",
            351..=480 => "PKIX_RSA_PKCS1V15_3072_SHA256",
            _ => "PKIX_RSA_PKCS1V15_4096_SHA256",
        })
    } else {
        None
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digit =
        |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or_default();
    text.as_bytes()
        .chunks(2)
        .map(|pair| pair.iter().fold(0_u8, |value, byte| value.wrapping_mul(16).wrapping_add(digit(byte))))
        .collect()
}
