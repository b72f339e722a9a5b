//! A signing client against the server: what comes out is accepted by a verifier.

use sigstore_instance::{Identity, Instance, LogVersion, Server, identity_token};
use sigstore_sign::{
    SigningContext, SigningServices,
    oidc::IdentityToken,
    trust_root::{SigningConfig, TrustedRoot},
    types::{Bundle, Sha256Hash},
};
use sigstore_verify::{VerificationPolicy, verify};
use std::{future::Future, sync::Arc};

#[test]
fn a_client_signs_and_a_verifier_accepts() {
    let instance = Arc::new(Instance::new());
    let server = Server::start(Arc::clone(&instance));
    let root = TrustedRoot::from_json(&instance.trusted_root()).expect("a trusted root");
    for log in [LogVersion::V1, LogVersion::V2] {
        for (identity, name) in [
            (Identity::Email("alice@example.com".to_owned()), "alice@example.com"),
            (Identity::Uri("https://example.com/workflow".to_owned()), "https://example.com/workflow"),
        ] {
            let config = SigningConfig::from_json(&server.signing_config(log)).expect("a signing config");
            let services = SigningServices::from_signing_config(&config).expect("all services");
            let token = IdentityToken::from_jwt(&identity_token(&identity, ISSUER)).expect("a token");
            let signer = SigningContext::new(services).signer(token);
            let policy = VerificationPolicy::new(name, ISSUER);

            let bundle = wait(signer.sign(b"bytes")).unwrap_or_else(|error| panic!("{log:?}, {name}: {error}"));
            accept(verify(b"bytes", &again(&bundle), &policy, &root));
            let bundle = wait(signer.sign_raw_statement(STATEMENT)).unwrap_or_else(|error| panic!("{log:?}: {error}"));
            accept(verify(Sha256Hash::new([0; 32]), &again(&bundle), &policy, &root));
        }
    }
}

#[test]
fn what_is_not_understood_is_an_error() {
    let server = Server::start(Arc::new(Instance::new()));
    let services = SigningServices::new(format!("{}/nowhere", server.url()), server.url());
    let token =
        IdentityToken::from_jwt(&identity_token(&Identity::Email("a@b.c".to_owned()), ISSUER)).expect("a token");
    let error = wait(SigningContext::new(services).signer(token).sign(b"bytes")).expect_err("no such place");
    assert!(error.to_string().contains("400") || format!("{error:?}").contains("400"), "{error:?}");
}

fn accept(result: sigstore_verify::Result<sigstore_verify::VerificationResult>) {
    let result = result.expect("accepted");
    assert!(result.sct_verified() && result.tlog_verified());
    assert!(result.verified_timestamps().iter().all(|time| time.as_second() == sigstore_instance::TIME));
}

/// The bundle as it travels.
fn again(bundle: &Bundle) -> Bundle {
    Bundle::from_json(&bundle.to_json().expect("JSON")).expect("a bundle")
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    // The client brings no TLS of its own, and does not start without.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime").block_on(future)
}

const ISSUER: &str = "https://accounts.example.com";
const STATEMENT: &[u8] = br#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":
"0000000000000000000000000000000000000000000000000000000000000000"}}],"predicateType":"https://example.com/p/v1",
"predicate":{}}"#;
