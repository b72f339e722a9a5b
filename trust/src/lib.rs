//! Who signed an image, and what is attested about it.
//!
//! ```text
//! digest ──discover──► candidates ──read──► claims ──against signers' rules──► Verified<Signature>, Verified<Attestation>
//!        registry       bytes, not           what they                          and for all else a reason
//!                       yet believed         would say
//! ```
//!
//! Formats and cryptography are Sigstore's; the crates of that project do the latter, in one module (`sigstore`). Nothing in
//! a verification reaches the network: candidates come in as bytes, trust roots as files.

mod attach;
mod attested;
mod candidate;
mod claims;
mod discover;
mod evidence;
mod facts;
mod identity;
mod overlay;
mod place;
mod predicate;
mod proof;
mod refusal;
mod signer;
mod sigstore;
mod statement;
mod verify;

pub use attach::{Attached, Older, Replaced, attach, attach_document, attached};
pub use attested::{Undecided, attested_dna};
pub use candidate::{Candidate, Material};
pub use discover::{Answer, Capped, Discovery, Source, Unread, discover, discover_stated};
pub use evidence::Evidence;
pub use facts::{Proofs, cause, proofs, vouched};
pub use identity::{Certificate, Identity, PatternError, Text};
pub use overlay::{OVERLAY_PREDICATE, Overlay, OverlayPredicate, OverlayScope, claimed_overlay, overlay};
pub use place::{Format, Origin, Place};
pub use predicate::{
    DNA_MEDIA_TYPE, DNA_PREDICATE, DnaPredicate, Package, PlatformDna, Predicate, Provenance, Sbom, Scan,
    Source as BuiltFrom,
};
pub use proof::{Attestation, By, LogEntry, Proof, Signature, Verified};
pub use refusal::{Reason, Refusal};
pub use signer::{Formats, Signer, Who};
pub use sigstore::{
    KeyError, NewKey, PublicKey, Root, RootError, RootFacts, Services, SignError, SigningKey, SigningKeyError,
    ambient_token, claim_names, sign,
};
#[cfg(feature = "tuf")]
pub use sigstore::{RefreshError, TufRepository, cached, last, refresh};
pub use statement::{COSIGN_SIGN, PAYLOAD_TYPE, Statement, Subject};
pub use verify::{Blob, Findings, verify, verify_blob};
