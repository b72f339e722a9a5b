//! Rules: who is accepted, and on what evidence.

use crate::{
    evidence::Evidence,
    identity::Identity,
    sigstore::{PublicKey, Root},
};

/// Somebody who is accepted as a signer.
#[derive(Debug, Clone)]
pub struct Signer {
    /// What the rule calls them; results name it.
    pub name: String,
    /// How they are known.
    pub who: Who,
    /// What must stand behind their signature. A certificate outlives its use by minutes, so that with one
    /// [`Evidence::Signature`] means [`Evidence::Timestamp`].
    pub evidence: Evidence,
    /// Trust roots, each tried alone.
    pub roots: Vec<Root>,
}

/// How a signer is known.
#[derive(Debug, Clone)]
pub enum Who {
    /// They hold a key.
    Key(PublicKey),
    /// A certificate names them: any of these.
    Identities(Vec<Identity>),
}

/// What is accepted beside bundles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats {
    /// Simple signing and envelopes with annotations, of cosign 1 and 2.
    pub legacy: bool,
}

impl Default for Formats {
    fn default() -> Self {
        Self { legacy: true }
    }
}
