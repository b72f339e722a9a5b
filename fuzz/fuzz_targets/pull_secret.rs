//! Image pull secrets in both forms: whatever their bytes are, they are read or refused, and a refusal shows none of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::registry::PullSecret;

fuzz_target!(|bytes: &[u8]| {
    for legacy in [false, true] {
        if let Err(error) = PullSecret::parse(bytes, legacy, "fuzz") {
            let shown = format!("{error} {error:?}");
            // Long enough not to be part of any message.
            let lines = bytes.split(|byte| *byte == b'"').filter(|part| part.len() > 16);
            assert!(lines.filter_map(|part| std::str::from_utf8(part).ok()).all(|part| !shown.contains(part)));
        }
    }
});
