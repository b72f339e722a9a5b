//! A layer: any bytes, taken as a blob. It may be refused; it may not panic, hang or take memory without bound.
#![no_main]

use dna::{Digest, Limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { layer_bytes: 8 << 20, total_bytes: 8 << 20, layer_entries: 2_000, ..Limits::default() };
    // The whole way for a plain archive; a compressed one gets as far as its diff id.
    let _ = analyzer::squash_layer(bytes, Some(Digest::sha256(bytes)), &limits);
});
