//! A file of rules: read, any text. An error says where.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(errors) = policies::load([("rules.yaml", text)]) {
        assert!(errors.iter().all(|error| error.to_string().starts_with("rules.yaml")));
    }
});
