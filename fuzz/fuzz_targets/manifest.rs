//! An archive of images (OCI or `docker save`): indexes, manifests and configs from any bytes.
#![no_main]

use std::io::Write as _;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = tempfile::tempfile() else { return };
    if file.write_all(bytes).is_ok() {
        let _ = oci::open_archive(file, "fuzz", &oci::Options { all_platforms: true, ..Default::default() });
    }
});
