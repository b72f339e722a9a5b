//! Package databases: any bytes, given to every parser. None may panic, hang or take memory without bound.
#![no_main]

use std::io::Cursor;

use analyzer::inventory::formats::*;
use dna::Limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    parse_os_release(bytes);
    parse_status(bytes);
    parse_copyright(bytes);
    parse_installed(bytes);
    let _ = parse_header(bytes);
    let _ = parse_ndb(bytes, |blob| drop(parse_header(blob)));
    let _ = parse_sqlite(bytes, bytes.len(), &mut |blob| drop(parse_header(blob)));
    parse_metadata(bytes);
    let _ = parse_package_json(bytes);
    parse_archive(Cursor::new(bytes), "a-1.jar", &Limits::default());
    parse_pom_properties(bytes);
    parse_build_info(bytes, |header| bytes.get(..header.width).map(<[u8]>::to_vec));
    let _ = parse_auditable(bytes, 1 << 20);
    parse_gemspec(bytes);
    let _ = parse_installed_json(bytes);
    let _ = parse_deps_json(bytes);
});
