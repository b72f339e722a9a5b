//! A shell script: parsed and walked, any text.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    analyzer::commands(text);
});
