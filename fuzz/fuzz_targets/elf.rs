//! An ELF file: its facts and the system calls of its code, from any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = analyzer::elf::read_bytes(bytes);
    analyzer::count_calls(bytes);
});
