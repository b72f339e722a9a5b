//! What can be typed about signatures and attestations.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

/// The client protocol of sigstore-conformance.
#[derive(Debug, Subcommand)]
pub(crate) enum Conformance {
    /// Verify a bundle against a file or its digest
    VerifyBundle(VerifyBundle),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyBundle {
    /// Use Sigstore's staging instance
    #[arg(long)]
    pub(crate) staging: bool,
    /// The bundle
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: PathBuf,
    /// The certificate's subject
    #[arg(long, value_name = "ID", required_unless_present = "key")]
    pub(crate) certificate_identity: Option<String>,
    /// The certificate's issuer
    #[arg(long, value_name = "URL", required_unless_present = "key")]
    pub(crate) certificate_oidc_issuer: Option<String>,
    /// A public key in place of a certificate
    #[arg(long, value_name = "FILE", conflicts_with_all = ["certificate_identity", "certificate_oidc_issuer"])]
    pub(crate) key: Option<PathBuf>,
    /// The trust root
    #[arg(long, value_name = "FILE")]
    pub(crate) trusted_root: Option<PathBuf>,
    /// What is signed: a file, or `sha256:` and 64 digits
    #[arg(value_name = "FILE_OR_DIGEST")]
    pub(crate) blob: String,
}
