//! Candidates against rules: facts and refusals out. Pure: the same input gives the same answer, but for this machine's
//! clock, which a log's time may not be ahead of.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::{
    candidate::{Candidate, Material},
    claims,
    evidence::Evidence,
    place::{Format, Origin, Place},
    proof::{Attestation, By, Proof, Signature, Verified},
    refusal::{Reason, Refusal},
    signer::{Formats, Signer, Who},
    sigstore::{self, About, Beside, Bundle, Checked, Signed},
    statement::{COSIGN_SIGN, Statement},
};

/// What is known after all candidates were held against all rules.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// Signatures, one for each candidate and rule that it satisfies.
    pub signatures: Vec<Verified<Signature>>,
    /// Attestations, likewise.
    pub attestations: Vec<Verified<Attestation>>,
    /// What satisfies no rule, and why not.
    pub refusals: Vec<Refusal>,
}

impl Findings {
    /// How many different signers signed.
    #[must_use]
    pub fn signers(&self) -> usize {
        self.signatures.iter().map(|signature| signature.proof.signer.as_str()).collect::<BTreeSet<_>>().len()
    }

    /// Attestations of a type.
    pub fn of_type<'a>(&'a self, predicate_type: &'a str) -> impl Iterator<Item = &'a Verified<Attestation>> {
        self.attestations.iter().filter(move |attestation| attestation.predicate_type == predicate_type)
    }
}

/// Holds each candidate against each rule.
#[must_use]
pub fn verify(candidates: &[Candidate], signers: &[Signer], formats: Formats) -> Findings {
    let mut findings = Findings::default();
    for candidate in candidates {
        match read(candidate, formats) {
            Err(reason) => findings.refusals.push(Refusal { origin: candidate.origin.clone(), signer: None, reason }),
            Ok(claim) => judge(candidate, &claim, signers, &mut findings),
        }
    }
    findings
}

/// Holds a bundle of any version against rules, for a file or its SHA-256: as `cosign verify-blob` does, without the rules for
/// images. The first rule that it satisfies counts.
///
/// # Errors
/// Why it satisfies none: the last rule's reason.
pub fn verify_blob(json: &[u8], blob: Blob<'_>, signers: &[Signer]) -> Result<Verified<Proof>, Reason> {
    let (subject, signed) = match blob {
        Blob::Bytes(bytes) => (dna::Digest::sha256(bytes), Signed::Bytes(bytes)),
        Blob::Sha256(digest) => (digest.clone(), Signed::Sha256(sha256(digest)?)),
    };
    let carrier = dna::Digest::sha256(json);
    let origin = Origin { subject, place: Place::File, carrier, format: Format::Bundle };
    let bundle = sigstore::bundle(json)?;
    about_blob(&bundle, blob, &origin.subject)?;
    let claim = Claim { bundle, signed, beside: None, says: Says::Signed(Value::Null) };
    let mut refused = Reason::malformed("no rule was given");
    for signer in signers {
        match proof(&origin, &claim, signer) {
            Ok(proof) => return Ok(Verified::by_check(proof)),
            Err(reason) => refused = reason,
        }
    }
    Err(refused)
}

/// Whether a bundle says that it is about the file: the verifier compares too, but not every rule asks it.
fn about_blob(bundle: &Bundle, blob: Blob<'_>, subject: &dna::Digest) -> Result<(), Reason> {
    match sigstore::about(bundle) {
        About::Statement(envelope) => {
            let statement = Statement::read(&envelope.payload_type, envelope.payload.as_bytes())?;
            match (statement.is_about(subject), blob) {
                (Err(_), Blob::Bytes(bytes)) if statement.names_sha512(&sigstore::sha512(bytes)) => Ok(()),
                (about, _) => about.map(|_| ()),
            }
        }
        About::Message(Some(sha256)) if sha256 != subject.hex() => {
            Err(Reason::WrongSubject { expected: subject.clone(), found: vec![format!("sha256:{sha256}")] })
        }
        About::Message(_) => Ok(()),
    }
}

/// A file to hold a bundle against.
#[derive(Debug, Clone, Copy)]
pub enum Blob<'a> {
    /// Its bytes.
    Bytes(&'a [u8]),
    /// Its SHA-256.
    Sha256(&'a dna::Digest),
}

/// What a candidate claims, before anyone's word for it is checked.
struct Claim<'a> {
    bundle: Bundle,
    signed: Signed<'a>,
    beside: Option<Beside<'a>>,
    says: Says,
}

enum Says {
    Signed(Value),
    Stated { predicate_type: String, predicate: Value },
}

fn read(candidate: &Candidate, formats: Formats) -> Result<Claim<'_>, Reason> {
    let subject = &candidate.origin.subject;
    let digest = sha256(subject)?;
    let legacy = || match formats.legacy {
        true => Ok(()),
        false => Err(Reason::FormatNotAllowed {
            allowed: "a Sigstore bundle".to_owned(),
            found: candidate.origin.format.to_string(),
        }),
    };
    match &candidate.material {
        Material::Other(found) => Err(Reason::FormatNotSupported { found: found.clone() }),
        Material::Bundle(json) => {
            let bundle = sigstore::bundle(json)?;
            let envelope = sigstore::content(&bundle)?;
            let statement = Statement::read(&envelope.payload_type, envelope.payload.as_bytes())?;
            let says = says(statement, subject)?;
            Ok(Claim { bundle, signed: Signed::Sha256(digest), beside: None, says })
        }
        Material::SimpleSigning(payload, annotations) => {
            legacy()?;
            let bundle = sigstore::simple_signing(payload, annotations)?;
            let optional = claims::of(payload, subject)?;
            Ok(Claim { bundle, signed: Signed::Bytes(payload), beside: None, says: Says::Signed(optional) })
        }
        Material::Envelope(bytes, annotations) => {
            legacy()?;
            let (envelope, bundle, beside) = sigstore::envelope(bytes, annotations)?;
            let statement = Statement::read(&envelope.payload_type, envelope.payload.as_bytes())?;
            let says = match says(statement, subject)? {
                // In this format a signature is a payload of its own.
                Says::Signed(_) => return Err(Reason::malformed("a signature among attestations")),
                stated => stated,
            };
            Ok(Claim { bundle, signed: Signed::Sha256(digest), beside: Some(beside), says })
        }
    }
}

fn sha256(subject: &dna::Digest) -> Result<[u8; 32], Reason> {
    let wrong = || Reason::FormatNotSupported { found: format!("subjects by {}", subject.algorithm()) };
    if subject.algorithm() != "sha256" {
        return Err(wrong());
    }
    sigstore::sha256_of_hex(subject.hex()).ok_or_else(wrong)
}

fn says(statement: Statement, subject: &dna::Digest) -> Result<Says, Reason> {
    let about = statement.is_about(subject)?;
    if statement.predicate_type == COSIGN_SIGN {
        return Ok(Says::Signed(about.annotations.clone()));
    }
    Ok(Says::Stated { predicate_type: statement.predicate_type, predicate: statement.predicate })
}

fn judge(candidate: &Candidate, claim: &Claim<'_>, signers: &[Signer], findings: &mut Findings) {
    let mut refusals = Vec::new();
    let before = (findings.signatures.len(), findings.attestations.len());
    for signer in signers {
        match proof(&candidate.origin, claim, signer) {
            Err(reason) => {
                let signer = Some(signer.name.clone());
                refusals.push(Refusal { origin: candidate.origin.clone(), signer, reason });
            }
            Ok(proof) => match &claim.says {
                Says::Signed(annotations) => {
                    let annotations = annotations.clone();
                    findings.signatures.push(Verified::by_check(Signature { proof, annotations }));
                }
                Says::Stated { predicate_type, predicate } => {
                    let (predicate_type, predicate) = (predicate_type.clone(), predicate.clone());
                    findings.attestations.push(Verified::by_check(Attestation { proof, predicate_type, predicate }));
                }
            },
        }
    }
    // Nobody expects a signature to be by everyone.
    if before == (findings.signatures.len(), findings.attestations.len()) {
        findings.refusals.append(&mut refusals);
    }
}

fn proof(origin: &Origin, claim: &Claim<'_>, signer: &Signer) -> Result<Proof, Reason> {
    let needed = match signer.who {
        Who::Key(_) => signer.evidence,
        Who::Identities(_) => signer.evidence.max(Evidence::Timestamp),
    };
    let mut refused = Reason::NoTrustRoot { needed };
    let alone = [None];
    let roots = signer.roots.iter().map(Some).chain(alone.into_iter().filter(|_| signer.roots.is_empty()));
    for root in roots {
        let Claim { bundle, signed, beside, .. } = claim;
        let checked = match (&signer.who, root) {
            (Who::Key(key), root) => sigstore::keyed(root, key, needed, bundle, *signed, beside.as_ref()),
            (Who::Identities(_), None) => continue,
            (Who::Identities(identities), Some(root)) => {
                let checked = sigstore::keyless(root, bundle, *signed, beside.as_ref());
                let checked = checked.map_err(|reason| reason.expecting(identities));
                checked.and_then(|checked| accepted(checked, identities, needed))
            }
        };
        match checked {
            Err(reason) => refused = reason,
            Ok(checked) => {
                let Checked { evidence, certificate, mut times, log, sct } = checked;
                times.sort_unstable();
                times.dedup();
                let by = match (&signer.who, certificate) {
                    (Who::Identities(_), Some(certificate)) => By::Certificate(certificate),
                    (Who::Key(key), _) => By::Key(key.fingerprint().clone()),
                    (Who::Identities(_), None) => return Err(Reason::malformed("it has no certificate")),
                };
                let root = root.filter(|_| evidence > Evidence::Signature).map(|root| root.facts().clone());
                let (signer, origin) = (signer.name.clone(), origin.clone());
                return Ok(Proof { signer, by, evidence, times, log, certificate_logged: sct, root, origin });
            }
        }
    }
    Err(refused)
}

fn accepted(checked: Checked, identities: &[crate::identity::Identity], needed: Evidence) -> Result<Checked, Reason> {
    let certificate = checked.certificate.as_ref().ok_or_else(|| Reason::malformed("it has no certificate"))?;
    certificate.is_one_of(identities)?;
    if checked.evidence < needed {
        return Err(Reason::EvidenceMissing { expected: needed, found: checked.evidence });
    }
    Ok(checked)
}
