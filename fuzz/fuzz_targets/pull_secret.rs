//! Image pull secrets in both forms: whatever their bytes are, they are read or refused, and a refusal shows none of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::registry::PullSecret;

/// Stands for what is secret; no message of ours has it.
const SECRET: &str = "hunter2-horse-battery";

fuzz_target!(|bytes: &[u8]| {
    let marked = |byte: &u8| if *byte == b'~' { SECRET.as_bytes().to_vec() } else { vec![*byte] };
    let bytes: Vec<u8> = bytes.iter().flat_map(marked).collect();
    for legacy in [false, true] {
        if let Err(error) = PullSecret::parse(&bytes, legacy, "fuzz") {
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains(SECRET), "{shown}");
        }
    }
});
