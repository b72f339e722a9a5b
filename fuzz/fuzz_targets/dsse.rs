//! An attestation of cosign 1 and 2: whatever envelope and annotations are, they are read and refused.
//!
//! The input is the envelope, and after each zero byte the value of an annotation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trust::{Format, Material};

mod common;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.split(|byte| *byte == 0);
    let envelope = parts.next().unwrap_or_default().to_vec();
    let values = parts.map(|value| String::from_utf8_lossy(value).into_owned());
    let annotations = ANNOTATIONS.map(str::to_owned).into_iter().zip(values).collect();
    common::refused(Format::Envelope, Material::Envelope(envelope, annotations));
});

const ANNOTATIONS: [&str; 3] =
    ["dev.sigstore.cosign/bundle", "dev.sigstore.cosign/rfc3161timestamp", "dev.sigstore.cosign/certificate"];
