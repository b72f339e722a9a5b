//! Keys, public and private: any text is read or refused, and a refusal shows none of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trust::{PublicKey, SigningKey, SigningKeyError};

fuzz_target!(|text: &str| {
    _ = PublicKey::from_pem(text);
    if let Err(error) = SigningKey::from_pem(text, || Ok::<_, SigningKeyError>(b"password".to_vec())) {
        let shown = format!("{error} {error:?}");
        // Long enough not to be part of any message.
        assert!(text.split_whitespace().filter(|line| line.len() > 40).all(|line| !shown.contains(line)));
    }
});
