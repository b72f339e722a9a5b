//! Valid material with one byte changed: it is refused, or where the byte means nothing it gives the same facts. A change that
//! takes away what is not asked for, such as a field's name, may leave fewer facts, never others.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use sigstore_instance::{Entry, Instance, Key, KeyType, Layout, Signing};
use trust::{Candidate, Material, Signer};

use crate::made::{Added, alice, candidate, holder, judged, named, refusal, root};

/// Decoded bytes: all of them are signed, but for the few of [`is_unsigned`].
#[test]
fn a_changed_byte_of_any_signed_part_is_refused() {
    each(|made, rule, case| {
        let facts = facts(made, rule).expect("honest");
        let mut parts = 0;
        for part in parts_of(made) {
            parts += 1;
            for at in sampled(part.bytes.len(), PER_PART) {
                let mut bytes = part.bytes.clone();
                *bytes.get_mut(at).expect("a byte") ^= 1 << (at % 8);
                let found = self::facts(&(part.put)(made, &bytes), rule);
                let unsigned = is_unsigned(&part, at, case);
                match found {
                    None => {}
                    Some(found) if unsigned => assert_eq!(found, facts, "{case}, {}, byte {at}", part.name),
                    Some(_) => panic!("{case}: {} was taken with byte {at} changed", part.name),
                }
            }
        }
        assert!(parts >= 2, "{case}: too little was changed");
    });
}

#[test]
fn a_changed_byte_of_the_text_is_refused_or_means_the_same() {
    each(|made, rule, case| {
        let honest = facts(made, rule).expect("honest");
        let mut refused = 0;
        for (name, text, put) in texts_of(made) {
            for at in sampled(text.len(), PER_TEXT) {
                for change in [1_u8, 0x20] {
                    let mut bytes = text.clone();
                    *bytes.get_mut(at).expect("a byte") ^= change;
                    match facts(&put(made, &bytes), rule) {
                        None => refused += 1,
                        Some(found) => {
                            let same = found == honest || is_part(&found, &honest);
                            assert!(same, "{case}: {name}, byte {at} changed by {change}: {found} from {honest}");
                        }
                    }
                }
            }
        }
        assert!(refused > 50, "{case}: {refused} were refused");
    });
}

/// All that was verified; none where it is refused.
fn facts(candidate: &Candidate, rule: &Signer) -> Option<Value> {
    let findings = judged(candidate, rule);
    let taken = refusal(&findings).is_none();
    taken.then(|| serde_json::to_value((&findings.signatures, &findings.attestations)).expect("JSON"))
}

/// Whether all that was found is in the honest facts, with less of what log and authority added.
fn is_part(found: &Value, honest: &Value) -> bool {
    let pair = |facts: &Value| {
        let mut all = facts.as_array().into_iter().flatten().filter_map(Value::as_array).flatten();
        let mut facts = all.next().and_then(Value::as_object).cloned().expect("facts");
        let added = ["evidence", "times", "log", "root"].map(|name| facts.remove(name).unwrap_or_default());
        (facts, added)
    };
    let ((found, [.., found_times, found_log, _]), (honest, [.., times, log, _])) = (pair(found), pair(honest));
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let entry = |found: &Value, entry: &Value| {
        // Without the promise only the place in the tree is known, and no time.
        found == entry || found.get("log") == entry.get("log") && found.get("integrated").is_none()
    };
    found == honest
        && list(&found_times).iter().all(|time| list(&times).contains(time))
        && list(&found_log).iter().all(|found| list(&log).iter().any(|known| entry(found, known)))
}

/// Whether nobody signs this byte: a log of version 2 repeats its root beside the checkpoint; the name before a note's
/// signature is a hint, and the line ends after it; a token is signed in its TSTInfo, what is around that names algorithms and
/// certificates that the trust root has.
fn is_unsigned(part: &Part, at: usize, case: &str) -> bool {
    let repeated = case.contains("V2") && part.name.ends_with("inclusionProof/rootHash");
    let note = part.name.ends_with("checkpoint/envelope").then(|| String::from_utf8_lossy(&part.bytes).into_owned());
    let named = note.is_some_and(|note| {
        let begin = note.find("— ").expect("a signature") + "— ".len();
        let end = begin + note.get(begin..).and_then(|rest| rest.find(' ')).expect("a name");
        (begin..end).contains(&at) || at + 1 == note.len()
    });
    let framing = part.name.ends_with("signedTimestamp") || part.name.ends_with("SignedRFC3161Timestamp");
    // A whole envelope's token is not looked at where the log speaks.
    let beside_log = case.contains("LegacyAttestation V1Time");
    repeated || named || framing && (beside_log || !is_token(&part.bytes, at))
}

/// Whether a byte is in the TSTInfo of a token (RFC 3161, section 2.4.2), or in the signature at its end.
fn is_token(bytes: &[u8], at: usize) -> bool {
    let content = bytes.windows(TST_INFO.len()).position(|window| window == TST_INFO).expect("a content");
    // [0] and OCTET STRING around it, both short.
    let begin = content + TST_INFO.len() + 4;
    let length = usize::from(*bytes.get(begin - 1).expect("a length"));
    assert!(length < 0x80, "it is short");
    (content..begin + length).contains(&at) || at + 60 > bytes.len()
}

/// Runs `work` on every layout with what speaks for it, and the rule that asks for it.
fn each(work: impl Fn(&Candidate, &Signer, &str)) {
    let instance = Instance::new();
    let roots = [root(&instance)];
    let key = Key::generate(KeyType::P256);
    let run = |signer: &Signing<'_>, layout: Layout, rule: &Signer, case: String| {
        work(&candidate(signer, layout), rule, &case);
    };
    for layout in [Layout::Attestation, Layout::LegacySignature, Layout::LegacyAttestation] {
        for added in Added::ALL {
            let of_version_2 = matches!(added, Added::V2 | Added::V2Time);
            let stamp_only = added == Added::Time && layout == Layout::LegacyAttestation;
            if of_version_2 && layout != Layout::Attestation {
                continue;
            }
            if !matches!(added, Added::Nothing | Added::V2) && !stamp_only {
                let rule = named(added.evidence(), &roots);
                run(&added.to(alice(&instance)), layout, &rule, format!("keyless {layout:?} {added:?}"));
            }
            let rule = holder(&key, added.evidence(), &roots);
            run(&added.to(instance.keyed(&key)), layout, &rule, format!("key {layout:?} {added:?}"));
        }
    }
    let tekton = instance.keyed(&key).entry(Entry::IntotoV001);
    let rule = holder(&key, Added::V1.evidence(), &roots);
    run(&tekton, Layout::LegacyAttestation, &rule, "key intoto".to_owned());
}

/// Some bytes under a name, and how they are put back changed.
struct Part {
    name: String,
    bytes: Vec<u8>,
    put: Put,
}

type Put = Box<dyn Fn(&Candidate, &[u8]) -> Candidate>;

/// The signed parts of a candidate, decoded.
fn parts_of(candidate: &Candidate) -> Vec<Part> {
    let mut parts = Vec::new();
    for (name, text, put) in texts_of(candidate) {
        if matches!(name.as_str(), CHAIN | "predicateType") {
            continue;
        }
        let put: std::rc::Rc<Put> = std::rc::Rc::new(put);
        if name == "payload" {
            let put = put.clone();
            parts.push(Part { name, bytes: text, put: Box::new(move |candidate, bytes| put(candidate, bytes)) });
        } else if name == SIGNATURE {
            let bytes = STANDARD.decode(&text).expect("base64");
            let put = put.clone();
            let put =
                Box::new(move |candidate: &Candidate, bytes: &[u8]| put(candidate, STANDARD.encode(bytes).as_bytes()));
            parts.push(Part { name, bytes, put });
        } else if name == CERTIFICATE {
            let body: String =
                String::from_utf8(text).expect("text").lines().filter(|line| !line.starts_with('-')).collect();
            let bytes = STANDARD.decode(body).expect("base64");
            let put = put.clone();
            let put = Box::new(move |candidate: &Candidate, bytes: &[u8]| {
                let pem =
                    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(bytes));
                put(candidate, pem.as_bytes())
            });
            parts.push(Part { name, bytes, put });
        } else {
            let json: Value = serde_json::from_slice(&text).expect("JSON");
            for (pointer, bytes, is_base64) in leaves(&json, String::new()) {
                let (json, put, at) = (json.clone(), put.clone(), pointer.clone());
                let put = Box::new(move |candidate: &Candidate, bytes: &[u8]| {
                    let mut json = json.clone();
                    let text =
                        if is_base64 { STANDARD.encode(bytes) } else { String::from_utf8_lossy(bytes).into_owned() };
                    *json.pointer_mut(&at).expect("a leaf") = text.into();
                    put(candidate, json.to_string().as_bytes())
                });
                parts.push(Part { name: format!("{name}{pointer}"), bytes, put });
            }
        }
    }
    parts
}

/// Strings of the fields that someone signed, decoded where they are base64.
fn leaves(json: &Value, pointer: String) -> Vec<(String, Vec<u8>, bool)> {
    match json {
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, value)| leaves(value, format!("{pointer}/{name}"))).collect()
        }
        Value::Array(values) => {
            values.iter().enumerate().flat_map(|(at, value)| leaves(value, format!("{pointer}/{at}"))).collect()
        }
        Value::String(text) if SIGNED.iter().any(|field| pointer.contains(field)) && !text.is_empty() => {
            let decoded = STANDARD.decode(text).ok().filter(|_| !pointer.ends_with("envelope"));
            let is_base64 = decoded.is_some();
            vec![(pointer, decoded.unwrap_or_else(|| text.clone().into_bytes()), is_base64)]
        }
        _ => Vec::new(),
    }
}

/// The texts that a candidate consists of.
fn texts_of(candidate: &Candidate) -> Vec<(String, Vec<u8>, Put)> {
    let whole = |make: fn(&Candidate, Vec<u8>) -> Material| -> Put {
        Box::new(move |candidate, bytes| Candidate { material: make(candidate, bytes.to_vec()), ..candidate.clone() })
    };
    let (mut texts, annotations): (Vec<(String, Vec<u8>, Put)>, _) = match &candidate.material {
        Material::Bundle(json) => {
            (vec![("bundle".to_owned(), json.clone(), whole(|_, bytes| Material::Bundle(bytes)))], None)
        }
        Material::SimpleSigning(payload, annotations) => {
            let make = |candidate: &Candidate, bytes| match &candidate.material {
                Material::SimpleSigning(_, annotations) => Material::SimpleSigning(bytes, annotations.clone()),
                other => other.clone(),
            };
            (vec![("payload".to_owned(), payload.clone(), whole(make))], Some(annotations))
        }
        Material::Envelope(json, annotations) => {
            let make = |candidate: &Candidate, bytes| match &candidate.material {
                Material::Envelope(_, annotations) => Material::Envelope(bytes, annotations.clone()),
                other => other.clone(),
            };
            (vec![("envelope".to_owned(), json.clone(), whole(make))], Some(annotations))
        }
        Material::Other(_) => (Vec::new(), None),
    };
    for (name, text) in annotations.into_iter().flatten().filter(|(_, text)| !text.is_empty()) {
        let key = name.clone();
        let put: Put = Box::new(move |candidate, bytes| {
            let mut changed = candidate.clone();
            if let Material::SimpleSigning(_, annotations) | Material::Envelope(_, annotations) = &mut changed.material
            {
                annotations.insert(key.clone(), String::from_utf8_lossy(bytes).into_owned());
            }
            changed
        });
        texts.push((name.clone(), text.clone().into_bytes(), put));
    }
    texts
}

/// Positions spread over a length: the first, the last and some between.
fn sampled(length: usize, count: usize) -> impl Iterator<Item = usize> {
    let step = length.div_ceil(count).max(1);
    (0..length).step_by(step).chain(length.checked_sub(1))
}

const PER_PART: usize = 24;
const PER_TEXT: usize = 64;
/// Fields that hold what someone signed, or a signature.
const SIGNED: [&str; 14] = [
    "payload",
    "/sig",
    "signature",
    "rawBytes",
    "canonicalizedBody",
    "signedEntryTimestamp",
    "hashes",
    "rootHash",
    "envelope",
    "signedTimestamp",
    "Payload",
    "SignedEntryTimestamp",
    "SignedRFC3161Timestamp",
    "keyId",
];
/// The object identifier 1.2.840.113549.1.9.16.1.4 in DER.
const TST_INFO: [u8; 13] = [0x06, 0x0b, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x01, 0x04];
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
