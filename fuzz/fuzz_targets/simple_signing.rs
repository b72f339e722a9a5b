//! A signature of cosign 1 and 2: whatever payload and annotations are, they are read and refused.
//!
//! The input is the payload, and after each zero byte the value of an annotation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trust::{Format, Material};

mod common;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.split(|byte| *byte == 0);
    let payload = parts.next().unwrap_or_default().to_vec();
    let values = parts.map(|value| String::from_utf8_lossy(value).into_owned());
    let annotations = ANNOTATIONS.map(str::to_owned).into_iter().zip(values).collect();
    common::refused(Format::SimpleSigning, Material::SimpleSigning(payload, annotations));
});

const ANNOTATIONS: [&str; 4] = [
    "dev.cosignproject.cosign/signature",
    "dev.sigstore.cosign/bundle",
    "dev.sigstore.cosign/rfc3161timestamp",
    "dev.sigstore.cosign/certificate",
];
