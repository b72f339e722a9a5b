//! Discovery against a scripted registry: all that is there is found, and what could not be read is never "not there".

use std::time::{Duration, Instant};

use dna::Digest;
use oci::{Descriptor, Manifest, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST};
use serde_json::json;
use sigstore_instance::{Fault, Instance, Key, KeyType, Layer, LogVersion};
use trust::{Answer, Discovery, Evidence, Findings, Formats, Material, Place, Reason, Signer, verify};

use crate::{
    made::{alice, holder, image, named, root, statement, variant},
    registry::{BUNDLE, Reply, Script, tag},
};

#[test]
fn nothing_anywhere_is_nothing() {
    let found = search(&Script::default());
    assert!(found.is_complete() && found.candidates.is_empty());
    assert_eq!(found.sources.iter().map(|source| source.place).collect::<Vec<_>>(), PLACES);
    assert!(found.sources.iter().all(|source| source.answer == Answer::Absent && source.subject == image()));
}

#[test]
fn what_is_attached_in_every_way_is_found_and_verified() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    let mut script = Script::default();
    let by_api = script.bundle(&image(), &alice(&instance).log(LogVersion::V1).attest(&statement()));
    let at_tag = script.bundle(&image(), &instance.keyed(&key).log(LogVersion::V1).attest(&statement()));
    script.by_api(&image(), std::slice::from_ref(&by_api)).at_tag(&image(), &[at_tag, by_api]);
    let signer = alice(&instance).log(LogVersion::V1);
    legacy(&mut script, ".sig", &[signer.legacy_signature("app", image().hex(), &json!(null))]);
    legacy(&mut script, ".att", &[signer.legacy_attestation(&statement())]);
    let found = search(&script);
    assert!(found.is_complete(), "{found:?}");
    // Listed twice is found once.
    assert_eq!(places(&found), [PLACES[0], PLACES[1], PLACES[2], PLACES[3]]);
    let counts: Vec<_> = found.sources.iter().map(|source| source.answer.clone()).collect();
    assert_eq!(counts, [1, 2, 1, 1].map(|count| Answer::Present { count }));
    let roots = [root(&instance)];
    let findings = judged(&found, &[named(Evidence::Log, &roots), holder(&key, Evidence::Log, &roots)]);
    assert_eq!((findings.attestations.len(), findings.signatures.len(), findings.refusals.len()), (3, 1, 0));
}

#[test]
fn a_listing_may_call_it_something_else() {
    let instance = Instance::new();
    for listed_as in [None, Some(OCI_EMPTY), Some("application/vnd.example+json")] {
        let mut script = Script::default();
        let listed = script.bundle(&image(), &alice(&instance).log(LogVersion::V1).attest(&statement()));
        let listed = Descriptor { artifact_type: listed_as.map(str::to_owned), ..listed };
        script.by_api(&image(), &[listed]);
        let found = search(&script);
        let findings = judged(&found, &[named(Evidence::Log, &[root(&instance)])]);
        assert_eq!((findings.attestations.len(), found.is_complete()), (1, true), "{listed_as:?}");
    }
}

#[test]
fn notation_is_told_as_not_supported() {
    for listed_as in [Some(NOTATION), None] {
        let mut script = Script::default();
        let layer = script.blob("application/jose+json", b"{}");
        let manifest = script.artifact(&image(), NOTATION, vec![layer]);
        let listed = Descriptor { artifact_type: listed_as.map(str::to_owned), ..script.manifest(&manifest) };
        script.by_api(&image(), &[listed]);
        let findings = judged(&search(&script), &[]);
        let reasons: Vec<_> = findings.refusals.iter().map(|refusal| &refusal.reason).collect();
        assert_eq!(reasons, [&Reason::FormatNotSupported { found: NOTATION.to_owned() }], "{listed_as:?}");
    }
}

#[test]
fn cosign_s_experimental_variant_is_found() {
    let instance = Instance::new();
    let mut script = Script::default();
    let layer = alice(&instance).log(LogVersion::V1).legacy_signature("app", image().hex(), &json!(null));
    let layers = vec![layered(&mut script, &layer)];
    let manifest = script.artifact(&image(), EXPERIMENTAL, layers);
    let listed = script.manifest(&manifest);
    script.by_api(&image(), &[listed]);
    let found = search(&script);
    let findings = judged(&found, &[named(Evidence::Log, &[root(&instance)])]);
    assert_eq!((findings.signatures.len(), found.is_complete()), (1, true), "{findings:?}");
    // One layer that cannot be read hides no other, and more than are read are told.
    let mut layers = vec![Descriptor::new(layer.media_type, Digest::sha256(b"gone"), 4); 60];
    layers.push(layered(&mut script, &layer));
    let manifest = script.artifact(&image(), EXPERIMENTAL, layers);
    let listed = script.manifest(&manifest);
    script.by_api(&image(), &[listed]);
    let found = search(&script);
    let findings = judged(&found, &[named(Evidence::Log, &[root(&instance)])]);
    assert_eq!((findings.signatures.len(), found.unread.len(), found.capped.len()), (1, 49, 1));
    assert!(!found.is_complete());
}

#[test]
fn what_carries_no_signature_is_passed_over() {
    let mut script = Script::default();
    let layer = script.blob("application/spdx+json", b"{}");
    let manifest = script.artifact(&image(), "application/spdx+json", vec![layer]);
    let listed = script.manifest(&manifest);
    script.by_api(&image(), &[listed]);
    let found = search(&script);
    assert!(found.is_complete() && found.candidates.is_empty(), "{found:?}");
}

#[test]
fn a_place_that_does_not_say_is_unknown() {
    let paths = ["referrers/DIGEST", "manifests/TAG", "manifests/TAG.sig", "manifests/TAG.att"];
    for (place, path) in PLACES.into_iter().zip(paths) {
        let path = path.replace("DIGEST", image().as_str()).replace("TAG", &tag(&image(), ""));
        let garbage = Reply::Ok(OCI_MANIFEST.to_owned(), b"<html>".to_vec());
        let index = Reply::Ok(OCI_INDEX.to_owned(), br#"{"schemaVersion":2,"manifests":3}"#.to_vec());
        let half = Reply::Half(OCI_INDEX.to_owned(), br#"{"schemaVersion":2,"manifests":[]}"#.to_vec());
        let statuses = [401, 403, 429, 500, 502, 503].map(Reply::Status);
        for reply in statuses.into_iter().chain([garbage, index, half, Reply::Hang]) {
            let started = Instant::now();
            let mut script = Script::default();
            script.reply(&path, reply.clone());
            let hangs = matches!(reply, Reply::Hang);
            let within = if hangs { Duration::from_millis(300) } else { PLENTY };
            let found = script.serve().discover(&[image()], within);
            let case = format!("{place}, {reply:?}: {found:?}");
            assert!(!found.is_complete() && found.candidates.is_empty(), "{case}");
            for source in &found.sources {
                let unknown = matches!(source.answer, Answer::Unknown { .. });
                assert_eq!(unknown, source.place == place, "{case}");
            }
            assert!(started.elapsed() < PLENTY, "{case}");
        }
        let mut script = Script::default();
        assert!(search(script.reply(&path, Reply::Status(404))).is_complete(), "{place}");
    }
}

#[test]
fn what_is_listed_and_not_read_is_told() {
    let instance = Instance::new();
    let json = alice(&instance).log(LogVersion::V1).attest(&statement());
    let mut whole = Script::default();
    let listed = whole.bundle(&image(), &json);
    whole.by_api(&image(), std::slice::from_ref(&listed));
    assert!(search(&whole).is_complete());
    let manifest = (format!("manifests/{}", listed.digest), listed.digest.clone());
    let blob = (format!("blobs/{}", Digest::sha256(&json)), listed.digest.clone());
    for (path, named) in [manifest, blob] {
        let lie = Reply::Ok(OCI_MANIFEST.to_owned(), br#"{"schemaVersion":2}"#.to_vec());
        let half = Reply::Half(OCI_MANIFEST.to_owned(), json.clone());
        for reply in [401, 403, 404, 429, 500].map(Reply::Status).into_iter().chain([lie, half, Reply::Hang]) {
            let within = if matches!(reply, Reply::Hang) { Duration::from_millis(300) } else { PLENTY };
            let found = whole.clone().reply(&path, reply.clone()).serve().discover(&[image()], within);
            let unread: Vec<_> = found.unread.iter().map(|unread| (unread.place, &unread.digest)).collect();
            assert_eq!(unread, [(Place::ReferrersApi, &named)], "{path}, {reply:?}");
            assert!(!found.is_complete() && found.candidates.is_empty(), "{path}, {reply:?}");
        }
    }
}

#[test]
fn a_tag_that_lies_about_its_digest_is_unknown() {
    let mut script = Script::default();
    let manifest = serde_json::to_vec(&Manifest::new(script.blob(OCI_EMPTY, b"{}"), Vec::new())).expect("JSON");
    // The digest that the registry names goes into the fields of the answer.
    let named = format!("{OCI_MANIFEST}\r\ndocker-content-digest: {}", Digest::sha256(b"other"));
    script.reply(&format!("manifests/{}", tag(&image(), ".sig")), Reply::Ok(named, manifest));
    let found = search(&script);
    let answer = found.sources.iter().find(|source| source.place == Place::SignatureTag).map(|source| &source.answer);
    assert!(matches!(answer, Some(Answer::Unknown { .. })), "{found:?}");
}

/// A new one is added at the end; that there are more is told.
#[test]
fn of_1001_layers_the_newest_are_read() {
    let mut script = Script::default();
    let layers: Vec<_> = (0..1001)
        .map(|number| Layer {
            media_type: "application/vnd.dev.cosign.simplesigning.v1+json",
            bytes: format!("{number}").into_bytes(),
            annotations: [].into(),
        })
        .collect();
    legacy(&mut script, ".sig", &layers);
    let found = search(&script);
    assert!(!found.is_complete());
    let [capped] = found.capped.as_slice() else { panic!("{:?}", found.capped) };
    assert_eq!((capped.place, capped.found, capped.taken), (Place::SignatureTag, 1001, 50));
    let payloads = found.candidates.iter().map(|candidate| match &candidate.material {
        Material::SimpleSigning(bytes, _) => String::from_utf8(bytes.clone()).expect("text"),
        other => panic!("{other:?}"),
    });
    assert_eq!(payloads.collect::<Vec<_>>(), (951..1001).rev().map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn of_one_kind_the_newest_referrers_are_read() {
    let mut script = Script::default();
    let listed: Vec<_> = (0..60)
        .map(|day| {
            let mut descriptor = script.bundle(&image(), format!("{day}").as_bytes());
            let created = format!("2026-06-{day:02}T00:00:00Z");
            descriptor.annotations.insert("org.opencontainers.image.created".to_owned(), created);
            descriptor
        })
        .collect();
    script.by_api(&image(), &listed);
    let found = search(&script);
    assert_eq!((found.candidates.len(), found.capped.len(), found.is_complete()), (50, 1, false));
    let Some(Material::Bundle(newest)) = found.candidates.first().map(|first| &first.material) else { panic!("none") };
    assert_eq!(newest, b"59");
}

#[test]
fn a_bundle_of_50_mb_is_not_read() {
    let large = vec![b' '; 50 << 20];
    // Told or not: what is larger than it says is not read to its end either.
    for told in [large.len() as u64, 100] {
        let mut script = Script::default();
        let layer = Descriptor { size: told, ..script.blob(BUNDLE, &large) };
        let manifest = script.artifact(&image(), BUNDLE, vec![layer.clone()]);
        let listed = script.manifest(&manifest);
        script.by_api(&image(), &[listed]);
        let registry = script.serve();
        let found = registry.discover(&[image()], PLENTY);
        assert_eq!((found.unread.len(), found.candidates.len(), found.is_complete()), (1, 0, false), "{found:?}");
        let asked = registry.asked().iter().any(|path| path.contains("blobs/"));
        assert_eq!(asked, told == 100);
    }
}

#[test]
fn all_that_is_read_has_a_limit() {
    let mut script = Script::default();
    let listed: Vec<_> = (0..6_u8).map(|byte| script.bundle(&image(), &vec![byte; 15 << 20])).collect();
    script.by_api(&image(), &listed);
    let found = search(&script);
    assert_eq!((found.candidates.len(), found.unread.len(), found.is_complete()), (4, 2, false));
}

#[test]
fn referrers_that_lead_in_circles_end() {
    let mut script = Script::default();
    let subject = Manifest::new(script.blob(OCI_EMPTY, b"{}"), Vec::new());
    let image = script.manifest(&subject);
    let bytes = serde_json::to_vec(&subject).expect("JSON");
    // One carries the image's own manifest as its bundle, one refers to the other, and the image is its own referrer.
    let own = Descriptor { media_type: BUNDLE.to_owned(), ..script.blob(BUNDLE, &bytes) };
    let first = script.artifact(&image.digest, BUNDLE, vec![own]);
    let first = script.manifest(&first);
    let second = script.artifact(&first.digest, BUNDLE, Vec::new());
    let second = script.manifest(&second);
    script.by_api(&image.digest, &[image.clone(), first.clone(), second.clone()]);
    script.by_api(&first.digest, std::slice::from_ref(&second)).by_api(&second.digest, std::slice::from_ref(&first));
    let registry = script.serve();
    let found = registry.discover(std::slice::from_ref(&image.digest), PLENTY);
    assert!(found.is_complete(), "{found:?}");
    assert_eq!(registry.asked().len(), 4 + 3 + 1, "{:?}", registry.asked());
    let findings = judged(&found, &[]);
    let reasons: Vec<_> = findings.refusals.iter().map(|refusal| variant(&refusal.reason)).collect();
    assert_eq!(reasons, ["formatNotSupported"]);
}

/// A valid signature of one image, copied to another's tag and referrers.
#[test]
fn a_signature_of_another_image_is_about_that_one() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    let signer = instance.keyed(&key).log(LogVersion::V1);
    let mut script = Script::default();
    let other = Digest::sha256(b"another image");
    legacy(&mut script, ".sig", &[signer.legacy_signature("app", other.hex(), &json!(null))]);
    let copied = script.bundle(&image(), &signer.clone().fault(Fault::WrongSubject).attest(&statement()));
    script.by_api(&image(), &[copied]);
    let findings = judged(&search(&script), &[holder(&key, Evidence::Log, &[root(&instance)])]);
    let reasons: Vec<_> = findings.refusals.iter().map(|refusal| variant(&refusal.reason)).collect();
    assert_eq!((reasons, findings.signers()), (vec!["wrongSubject".to_owned(); 2], 0));
}

/// A platform's signature counts for its manifest where that is asked for, never for the index.
#[test]
fn a_platform_s_signature_is_none_of_the_index() {
    let instance = Instance::new();
    let key = Key::generate(KeyType::P256);
    let platform = Digest::sha256(b"a platform");
    let layer = instance.keyed(&key).legacy_signature("app", platform.hex(), &json!(null));
    let mut script = Script::default();
    legacy(&mut script, ".sig", std::slice::from_ref(&layer));
    let layer = layered(&mut script, &layer);
    let manifest = Manifest::new(script.blob(OCI_EMPTY, b"{}"), vec![layer]);
    script.tag(&tag(&platform, ".sig"), &manifest);
    let found = script.serve().discover(&[image(), platform.clone()], PLENTY);
    let findings = judged(&found, &[holder(&key, Evidence::Signature, &[])]);
    let subjects: Vec<_> = findings.signatures.iter().map(|signature| &signature.proof.origin.subject).collect();
    assert_eq!(subjects, [&platform]);
    let [refusal] = findings.refusals.as_slice() else { panic!("{:?}", findings.refusals) };
    assert_eq!(refusal.origin.subject, image());
    let (expected, named) = (image(), vec![platform.to_string()]);
    assert_eq!(refusal.reason, Reason::WrongSubject { expected, found: named });
}

fn search(script: &Script) -> Discovery {
    script.serve().discover(&[image()], PLENTY)
}

fn judged(found: &Discovery, signers: &[Signer]) -> Findings {
    verify(&found.candidates, signers, Formats::default())
}

fn places(found: &Discovery) -> Vec<Place> {
    found.candidates.iter().map(|candidate| candidate.origin.place).collect()
}

/// Adds an image of cosign 1 and 2 at [`image`]'s tag.
fn legacy(script: &mut Script, suffix: &str, layers: &[Layer]) {
    let layers = layers.iter().map(|layer| layered(script, layer)).collect();
    let manifest = Manifest::new(script.blob(OCI_EMPTY, b"{}"), layers);
    script.tag(&tag(&image(), suffix), &manifest);
}

fn layered(script: &mut Script, layer: &Layer) -> Descriptor {
    let annotations = layer.annotations.clone();
    Descriptor { annotations, ..script.blob(layer.media_type, &layer.bytes) }
}

const PLACES: [Place; 4] = [Place::ReferrersApi, Place::ReferrersTag, Place::SignatureTag, Place::AttestationTag];
const PLENTY: Duration = Duration::from_secs(20);
const NOTATION: &str = "application/vnd.cncf.notary.signature";
const EXPERIMENTAL: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
