//! `mayfly conformance`: the client protocol by which the suite sigstore-conformance asks. Source: its
//! `docs/cli_protocol.md`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use trust::{Blob, Evidence, Identity, PublicKey, Root, Signer, Text, Who, verify_blob};

use crate::{
    args::trust::{Conformance, VerifyBundle},
    output,
};

/// Answers by succeeding or not.
pub(crate) fn run(command: &Conformance) -> anyhow::Result<()> {
    match command {
        Conformance::VerifyBundle(args) => verify_bundle(args),
    }
}

fn verify_bundle(args: &VerifyBundle) -> anyhow::Result<()> {
    let root = match &args.trusted_root {
        Some(path) => Root::from_json(&path.display().to_string(), &output::read(path)?, None)?,
        None if args.staging => Root::staging()?,
        None => Root::public_good()?,
    };
    let who = match &args.key {
        Some(path) => {
            let pem = String::from_utf8(output::read(path)?).with_context(|| path.display().to_string())?;
            Who::Key(PublicKey::from_pem(&pem).with_context(|| path.display().to_string())?)
        }
        None => Who::Identities(vec![Identity {
            subject: Text::Exact(args.certificate_identity.clone().unwrap_or_default()),
            issuer: Text::Exact(args.certificate_oidc_issuer.clone().unwrap_or_default()),
            claims: BTreeMap::new(),
        }]),
    };
    let signer = Signer { name: "conformance".to_owned(), who, evidence: Evidence::Log, roots: vec![root] };
    let bundle = output::read(&args.bundle)?;
    let path = std::path::Path::new(&args.blob);
    let proof = if path.exists() {
        verify_blob(&bundle, Blob::Bytes(&output::read(path)?), &[signer])?
    } else {
        verify_blob(&bundle, Blob::Sha256(&args.blob.parse()?), &[signer])?
    };
    output::Destination::default().write(&output::pretty(&proof)?)
}
