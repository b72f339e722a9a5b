//! The simple signing payload: which image the signer meant. Source: containers/image, `docs/containers-signature.5.md`;
//! cosign checks only the digest, here the type too.

use dna::Digest;
use serde::Deserialize;
use serde_json::Value;

use crate::refusal::{Reason, clean};

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
    #[serde(default)]
    optional: Value,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: String,
}

/// The optional claims of a payload that is about `subject`. What the image was called when it was signed is not compared:
/// mirrors have other names for it.
///
/// # Errors
/// [`Reason::Malformed`], [`Reason::WrongSubject`], [`Reason::WrongClaim`].
pub(crate) fn of(payload: &[u8], subject: &Digest) -> Result<Value, Reason> {
    let payload: Payload = serde_json::from_slice(payload).map_err(Reason::malformed)?;
    let kind = payload.critical.kind;
    if !KINDS.contains(&kind.as_str()) {
        let expected = KINDS.join(" or ");
        return Err(Reason::WrongClaim { claim: "critical.type".to_owned(), expected, found: clean(&kind) });
    }
    let found = payload.critical.image.docker_manifest_digest;
    if found != subject.as_str() {
        return Err(Reason::WrongSubject { expected: subject.clone(), found: vec![clean(&found)] });
    }
    Ok(payload.optional)
}

const KINDS: [&str; 2] = ["cosign container image signature", "https://sigstore.dev/cosign/sign/v1"];
