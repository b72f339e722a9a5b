//! Manifests and indexes of artifacts: what is read is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::{Index, Manifest};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(index) = serde_json::from_slice::<Index>(bytes) {
        let text = serde_json::to_vec(&index).expect("JSON");
        assert_eq!(serde_json::from_slice::<Index>(&text).expect("an index"), index);
    }
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) {
        let text = serde_json::to_vec(&manifest).expect("JSON");
        assert_eq!(serde_json::from_slice::<Manifest>(&text).expect("a manifest"), manifest);
    }
});
