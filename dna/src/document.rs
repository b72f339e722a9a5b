//! The DNA itself: one document for one image, and its digest.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::{Accounts, Behavior, CanonicalError, Digest, Folder, Platform, Program, Start, Unknown, canonical_json};

/// The revision of the format this crate reads and writes.
pub const SCHEMA: &str = "https://mayfly.dev/dna/v1";

/// What a container of an image may do. Equal image and equal rules give equal bytes; no time of day is in it.
///
/// This type's page is the format: JSON with these names. Fields that are not known are ignored on reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Dna {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// What made this document.
    pub analyzer: Analyzer,
    /// The image it is about.
    pub image: ImageFacts,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// What the runtime starts.
    pub start: Start,
    /// Every program of the image, sorted by path.
    pub programs: Vec<Program>,
    /// The account databases.
    pub accounts: Accounts,
    /// Owners and modes of folders that behavior touches, sorted by path.
    pub folders: Vec<Folder>,
    /// What the start command may do.
    pub behavior: Behavior,
    /// What could not be known, sorted.
    pub unknowns: Vec<Unknown>,
}

impl Dna {
    /// The document as canonical JSON; its SHA-256 is [`Dna::digest`].
    ///
    /// # Errors
    /// [`DnaError::Canonical`], which does not happen for a document this crate made.
    pub fn to_canonical_json(&self) -> Result<Vec<u8>, DnaError> {
        Ok(canonical_json(self)?)
    }

    /// The name of this document: SHA-256 of its canonical JSON.
    ///
    /// # Errors
    /// As [`Dna::to_canonical_json`].
    pub fn digest(&self) -> Result<Digest, DnaError> {
        Ok(Digest::sha256(&self.to_canonical_json()?))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`DnaError::Schema`] for another revision, [`DnaError::Json`] for anything else that is not a DNA.
    pub fn from_json(json: &[u8]) -> Result<Self, DnaError> {
        let Revision { schema } = serde_json::from_slice(json).map_err(DnaError::Json)?;
        if schema != SCHEMA {
            return Err(DnaError::Schema { found: schema.chars().take(120).collect() });
        }
        serde_json::from_slice(json).map_err(DnaError::Json)
    }

    /// The JSON Schema of the format.
    pub fn json_schema() -> Schema {
        let mut schema = schemars::schema_for!(Self);
        schema.insert("$id".to_owned(), SCHEMA.into());
        schema
    }
}

/// What made a DNA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Analyzer {
    /// The program.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digest of the rules and limits it worked by.
    pub rules: Digest,
}

/// The image a DNA is about, by what is hashed; blob, manifest and index digests stand beside the DNA, not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageFacts {
    /// The platform it is for.
    pub platform: Platform,
    /// Digest of the image config; absent for an unpacked root without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Layer {
    /// Digest of the uncompressed archive; absent for an unpacked root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// Bytes of the uncompressed archive; absent where the layer was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The build step that made it, from the image's history, credentials taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
}

/// A document that is not a DNA this crate can read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DnaError {
    /// Another revision of the format.
    #[error("DNA of schema `{found}`, this program reads `{SCHEMA}`: analyze the image again with this version")]
    Schema {
        /// The schema named in the document.
        found: String,
    },
    /// Not JSON, or not of the DNA's shape.
    #[error("not a DNA document")]
    Json(#[source] serde_json::Error),
    /// No canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
}

#[derive(Deserialize)]
struct Revision {
    schema: String,
}
