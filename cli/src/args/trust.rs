//! What can be typed about signatures and attestations.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::Registry;

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

#[derive(Debug, ClapArgs)]
pub(crate) struct Verify {
    /// The image in a registry
    #[arg(value_name = "REFERENCE")]
    pub(crate) source: String,
    /// Accept this public key; repeat it for several
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,
    /// Accept a certificate with this subject: an e-mail address or URI
    #[arg(long, value_name = "ID", conflicts_with = "certificate_identity_regexp")]
    pub(crate) certificate_identity: Option<String>,
    /// Accept a certificate whose whole subject matches
    #[arg(long, value_name = "REGEX")]
    pub(crate) certificate_identity_regexp: Option<String>,
    /// The OpenID Connect issuer of the certificate
    #[arg(long, value_name = "URL", conflicts_with = "certificate_oidc_issuer_regexp")]
    pub(crate) certificate_oidc_issuer: Option<String>,
    /// The whole issuer of the certificate matches
    #[arg(long, value_name = "REGEX")]
    pub(crate) certificate_oidc_issuer_regexp: Option<String>,
    /// Another claim the certificate must make, such as sourceRepositoryUri; `--claim help=` names them
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    pub(crate) claims: Vec<String>,
    /// Ask for an attestation of this predicate type instead of a signature: a URI, or dna, slsaprovenance, slsaprovenance1,
    /// cyclonedx, spdxjson, vuln
    #[arg(long = "type", value_name = "PREDICATE")]
    pub(crate) predicate_type: Option<String>,
    /// Write the attested DNA to this file, for `dna:FILE`: of several the newest, by signed time. Asks for it, as
    /// `--type dna` does
    #[arg(long, value_name = "FILE")]
    pub(crate) dna_output: Option<PathBuf>,
    /// How many of the accepted signers must have signed
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) threshold: usize,
    /// What must stand behind a signature
    #[arg(long, value_enum, value_name = "EVIDENCE", default_value_t)]
    pub(crate) evidence: EvidenceArg,
    /// Trust root of a Sigstore instance, tried alone; repeat it for several [default: the public-good instance and GitHub's,
    /// as built in]
    #[arg(long, value_name = "FILE")]
    pub(crate) trusted_root: Vec<PathBuf>,
    /// Accept Sigstore bundles only, not what cosign 1 and 2 wrote
    #[arg(long)]
    pub(crate) bundles_only: bool,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: super::ExplainFormat,
    /// Platform to choose from an index [default: this machine's, on Linux]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<dna::Platform>,
    /// Give up after this many seconds: what was not answered by then is not known
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EvidenceArg {
    /// An entry in a transparency log of the trust root
    #[default]
    Log,
    /// A time signed by a timestamp authority of the trust root
    Timestamp,
    /// Nothing: a key's signature alone
    Signature,
}

/// Who signs.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub(crate) struct Signing {
    /// Sign with this private key: P-256 in PEM, encrypted as cosign's are, or PKCS #8. Its password is taken from
    /// MAYFLY_KEY_PASSWORD or COSIGN_PASSWORD, else asked for
    #[arg(long, value_name = "FILE", required_unless_present = "keyless", conflicts_with = "keyless")]
    pub(crate) key: Option<PathBuf>,
    /// Sign with a certificate for whom an identity token names
    #[arg(long, requires = "signing_config")]
    pub(crate) keyless: bool,
    /// The identity token [default: SIGSTORE_ID_TOKEN, else that of the build service this runs in]
    #[arg(long, value_name = "FILE", requires = "keyless")]
    pub(crate) identity_token: Option<PathBuf>,
    /// The services that sign along: certificates, log, timestamps. Without it a key's signature stands alone
    #[arg(long, value_name = "FILE", env = "MAYFLY_SIGNING_CONFIG")]
    pub(crate) signing_config: Option<PathBuf>,
    /// Use only this version of the log
    #[arg(long, value_name = "1|2", requires = "signing_config", value_parser = clap::value_parser!(u32).range(1..=2))]
    pub(crate) rekor_version: Option<u32>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Sign {
    /// The image in a registry
    #[arg(value_name = "REFERENCE")]
    pub(crate) source: String,
    /// Sign each image of an index too, not only the index
    #[arg(long)]
    pub(crate) recursive: bool,
    #[command(flatten)]
    pub(crate) signing: Signing,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Attest {
    /// The image in a registry; of an index all its images
    #[arg(value_name = "REFERENCE")]
    pub(crate) source: String,
    /// Take this DNA, that `mayfly analyze --format json` wrote, instead of analyzing; repeat it for an index
    #[arg(long, value_name = "FILE")]
    pub(crate) dna: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) signing: Signing,
    /// Give up on signing and attaching after this many seconds; reading the image takes what it takes
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) open: super::Open,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TrustRoot {
    /// The instance
    #[arg(long, value_enum, value_name = "INSTANCE", default_value_t, conflicts_with = "tuf_url")]
    pub(crate) instance: Instance,
    /// The TUF repository of another instance
    #[arg(long, value_name = "URL", requires = "tuf_root")]
    pub(crate) tuf_url: Option<String>,
    /// A root.json of that repository that is trusted
    #[arg(long, value_name = "FILE", requires = "tuf_url")]
    pub(crate) tuf_root: Option<PathBuf>,
    /// Trust the certificate authorities in this PEM file too
    #[arg(long, value_name = "FILE", env = "MAYFLY_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Ask nobody: verify again what is kept
    #[arg(long)]
    pub(crate) offline: bool,
    /// Folder that keeps what repositories said [default: mayfly/trust in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) timeout: u64,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Instance {
    /// Sigstore's public-good instance
    #[default]
    PublicGood,
    /// GitHub's, for attestations of private repositories
    Github,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a P-256 key pair: PREFIX.key, encrypted, and PREFIX.pub
    Generate {
        /// Where they go
        #[arg(long, value_name = "PREFIX", default_value = "mayfly")]
        output_prefix: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Overlay {
    /// Sign what the bridge's API proposed at an alert, for its `POST overlays`. What is signed is said on standard error
    Sign(SignOverlay),
    /// Attach what was signed to its image, beside others, for bridges that look there
    Attach(AttachOverlay),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct AttachOverlay {
    /// Signed bundles, as `mayfly overlay sign` wrote them or `GET overlays/ID/bundle` gives one: one in a file, or one a line
    #[arg(value_name = "FILE", required = true)]
    pub(crate) bundles: Vec<PathBuf>,
    /// The repository that has their images; the digests are the bundles'
    #[arg(value_name = "REFERENCE", required = true)]
    pub(crate) repository: String,
    #[command(flatten)]
    pub(crate) registry: super::Registry,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) timeout: u64,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SignOverlay {
    /// The proposal: the answer of `POST alerts/ID/accept`, or what `mayfly snapshot --draft overlay` printed
    #[arg(value_name = "FILE")]
    pub(crate) proposal: PathBuf,
    /// Write the signed bundle to this file instead of standard output; of several overlays one a line
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) signing: Signing,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) timeout: u64,
}
