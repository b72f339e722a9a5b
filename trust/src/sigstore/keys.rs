//! Public keys: PEM in, a signature over bytes checked. Source: cosign, `specs/SIGNATURE_SPEC.md`, "Key algorithms".

use dna::Digest;
use sigstore_crypto::{KeyAlgorithm, SigningScheme, VerificationKey};
use sigstore_types::{DerPublicKey, SignatureBytes};

use crate::refusal::clean;

/// A public key whose kind can be checked here.
#[derive(Clone)]
pub struct PublicKey {
    der: DerPublicKey,
    algorithm: KeyAlgorithm,
    fingerprint: Digest,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({:?} {})", self.algorithm, self.fingerprint)
    }
}

/// A text that is no usable public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a usable public key ({reason}); give a PEM file with `BEGIN PUBLIC KEY`: ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits"
)]
pub struct KeyError {
    reason: String,
}

impl PublicKey {
    /// Reads SubjectPublicKeyInfo in PEM, as `cosign.pub` is.
    ///
    /// # Errors
    /// [`KeyError`] for another kind of PEM, and for kinds of keys that are not supported (P-521, short RSA keys).
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.len() > MAX_PEM_BYTES {
            return Err(KeyError { reason: format!("it is larger than {MAX_PEM_BYTES} bytes") });
        }
        let der = DerPublicKey::from_pem(pem.trim()).map_err(|error| KeyError { reason: clean(&error.to_string()) })?;
        Self::from_der(der)
    }

    pub(crate) fn from_der(der: DerPublicKey) -> Result<Self, KeyError> {
        let error = |error: sigstore_crypto::Error| KeyError { reason: clean(&error.to_string()) };
        let algorithm = KeyAlgorithm::from_spki(&der).map_err(error)?;
        for scheme in schemes(algorithm) {
            let key = VerificationKey::from_spki_with_scheme(&der, *scheme).map_err(error)?;
            sigstore_crypto::validate_raw_public_key(*scheme, key.as_bytes()).map_err(error)?;
        }
        if schemes(algorithm).is_empty() {
            return Err(KeyError { reason: format!("{algorithm:?} keys are not supported") });
        }
        let fingerprint = Digest::sha256(der.as_bytes());
        Ok(Self { der, algorithm, fingerprint })
    }

    /// SHA-256 of the DER SubjectPublicKeyInfo: names the key.
    #[must_use]
    pub fn fingerprint(&self) -> &Digest {
        &self.fingerprint
    }

    /// The kind of key, and of the signatures it makes by default.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.default_signing_scheme().name()
    }

    /// How a bundle names the key: base64 of the fingerprint, as cosign does.
    pub(crate) fn hint(&self) -> String {
        sigstore_crypto::sha256(self.der.as_bytes()).to_base64()
    }

    pub(crate) fn der(&self) -> &DerPublicKey {
        &self.der
    }

    /// Whether the key signed `message`, in one of the ways that keys of its kind sign.
    pub(crate) fn verifies(&self, message: &[u8], signature: &SignatureBytes) -> bool {
        schemes(self.algorithm).iter().any(|scheme| {
            let key = VerificationKey::from_spki_with_scheme(&self.der, *scheme);
            key.is_ok_and(|key| key.verify(message, signature).is_ok())
        })
    }
}

/// The schemes for each kind of key, the usual one first. cosign signs with SHA-256 whatever the curve; sigstore-go with the
/// curve's own hash.
fn schemes(algorithm: KeyAlgorithm) -> &'static [SigningScheme] {
    use SigningScheme as S;
    match algorithm {
        KeyAlgorithm::EcdsaP256 => &[S::EcdsaP256Sha256],
        KeyAlgorithm::EcdsaP384 => &[S::EcdsaP384Sha384, S::EcdsaP384Sha256],
        KeyAlgorithm::Ed25519 => &[S::Ed25519],
        KeyAlgorithm::Rsa => &[S::RsaPkcs1Sha256, S::RsaPkcs1Sha384, S::RsaPkcs1Sha512],
        _ => &[],
    }
}

const MAX_PEM_BYTES: usize = 64 << 10;
