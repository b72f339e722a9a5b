//! A Sigstore bundle, beside an image and of a file: whatever its bytes are, it is read and refused.
#![no_main]

use dna::Digest;
use libfuzzer_sys::fuzz_target;
use trust::{Blob, Format, Material, verify_blob};

mod common;

fuzz_target!(|bytes: &[u8]| {
    common::refused(Format::Bundle, Material::Bundle(bytes.to_vec()));
    assert!(verify_blob(bytes, Blob::Bytes(b""), &common::SIGNERS).is_err());
    assert!(verify_blob(bytes, Blob::Sha256(&Digest::sha256(b"")), &common::SIGNERS).is_err());
});
