//! A server's configuration: read in every syntax, any text.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    analyzer::settings(text);
});
