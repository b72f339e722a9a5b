//! An overlay: somebody accepts, for one image, an act that its DNA does not expect. Nothing learns; a person says it, signs it, and it ends.
//!
//! In: a signed statement as a bundle, and who may make one. Out: [`Overlay`], verified.

use dna::Digest;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    candidate::{Candidate, Material},
    place::{Format, Origin, Place},
    proof::{Proof, Verified},
    refusal::{Reason, clean},
    signer::{Formats, Signer},
    sigstore,
    statement::Statement,
    verify::verify,
};

/// The predicate of type [`OVERLAY_PREDICATE`]: about the platform's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OverlayPredicate {
    /// The class of deviation.
    pub class: String,
    /// What it is about: a program, a port, a file.
    pub subject: String,
    /// Where it is accepted.
    #[serde(default)]
    pub scope: OverlayScope,
    /// The alert that it was made at.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub alert: String,
    /// Why.
    pub reason: String,
    /// Who proposed it.
    pub actor: String,
    /// When.
    #[schemars(with = "String")]
    pub made_at: Timestamp,
    /// When it ends.
    #[schemars(with = "String")]
    pub expires_at: Timestamp,
}

/// Where an overlay holds: wherever all that is named fits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OverlayScope {
    /// In this cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// In this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Of this workload, `Deployment/web`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// In containers of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// An overlay that somebody signed who may.
#[derive(Debug, Clone, PartialEq)]
pub struct Overlay {
    /// Its name: SHA-256 of the statement that is signed. Signed again, it is the same one.
    pub id: Digest,
    /// The image.
    pub image: Digest,
    /// What is accepted.
    pub predicate: OverlayPredicate,
    /// Who signed.
    pub proof: Proof,
}

impl OverlayPredicate {
    /// What a statement accepts, and of which image.
    ///
    /// # Errors
    /// [`Reason::Malformed`]: it is no overlay.
    pub fn of(statement: &Statement) -> Result<(Digest, Self), Reason> {
        if statement.predicate_type != OVERLAY_PREDICATE {
            let found = clean(&statement.predicate_type);
            return Err(Reason::malformed(format!("it states {found}, no overlay")));
        }
        let [subject] = statement.subject.as_slice() else {
            return Err(Reason::malformed("an overlay is about one image"));
        };
        let sha256 = subject.digest.get("sha256").map(|hex| format!("sha256:{}", hex.to_ascii_lowercase()));
        let image: Option<Digest> = sha256.and_then(|text| text.parse().ok());
        let image = image.ok_or_else(|| Reason::malformed("an overlay names its image by sha256"))?;
        let predicate = Self::deserialize(&statement.predicate).map_err(Reason::malformed)?;
        Ok((image, predicate))
    }

    /// The statement that is to be signed.
    #[must_use]
    pub fn about(&self, image: &Digest) -> Statement {
        Statement::about(image, OVERLAY_PREDICATE, serde_json::to_value(self).unwrap_or_default())
    }
}

/// What a bundle says that it accepts, and of which image: nothing of it is verified.
///
/// # Errors
/// Why it is no overlay.
pub fn claimed_overlay(bundle: &[u8]) -> Result<(Digest, OverlayPredicate), Reason> {
    let (_, image, predicate) = claim(bundle)?;
    Ok((image, predicate))
}

/// The overlay's name, image and predicate.
fn claim(bundle: &[u8]) -> Result<(Digest, Digest, OverlayPredicate), Reason> {
    let read = sigstore::bundle(bundle)?;
    let envelope = sigstore::content(&read)?;
    let payload = envelope.payload.as_bytes();
    let statement = Statement::read(&envelope.payload_type, payload)?;
    let (image, predicate) = OverlayPredicate::of(&statement)?;
    Ok((Digest::sha256(payload), image, predicate))
}

/// Holds a signed overlay against those who may make one.
///
/// # Errors
/// Why it is none, or satisfies no signer.
pub fn overlay(bundle: &[u8], signers: &[Signer]) -> Result<Verified<Overlay>, Reason> {
    let (id, image, predicate) = claim(bundle)?;
    let carrier = Digest::sha256(bundle);
    let origin = Origin { subject: image.clone(), place: Place::File, carrier, format: Format::Bundle };
    let candidate = Candidate { origin, material: Material::Bundle(bundle.to_vec()) };
    let findings = verify(&[candidate], signers, Formats { legacy: false });
    let Some(found) = findings.attestations.first() else {
        let refused = findings.refusals.into_iter().map(|refusal| refusal.reason).next();
        return Err(refused.unwrap_or_else(|| Reason::malformed("nobody may sign overlays")));
    };
    Ok(Verified::by_check(Overlay { id, image, predicate, proof: found.proof.clone() }))
}

/// The predicate type of an overlay.
pub const OVERLAY_PREDICATE: &str = "https://mayfly.dev/overlay/v1";
