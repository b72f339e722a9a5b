//! Something found that may be a proof: bytes, not yet believed.

use std::collections::BTreeMap;

use crate::place::Origin;

/// Something found beside an image, or in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is from.
    pub origin: Origin,
    /// Its bytes.
    pub material: Material,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Material {
    /// The JSON text of a Sigstore bundle.
    Bundle(Vec<u8>),
    /// A simple signing payload, and its layer's annotations.
    SimpleSigning(Vec<u8>, BTreeMap<String, String>),
    /// A DSSE envelope, and its layer's annotations.
    Envelope(Vec<u8>, BTreeMap<String, String>),
    /// A format that nothing here can check, by its media type.
    Other(String),
}
