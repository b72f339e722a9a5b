//! Signing keys of the types people bring, and their text forms.

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha384};

/// What a key is, and with it how it signs: ECDSA in DER with the hash of the curve's size, Ed25519 pure, RSA PKCS#1
/// v1.5 with SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA on P-256 with SHA-256.
    P256,
    /// ECDSA on P-384 with SHA-384. `cosign sign --key` takes SHA-256 with such keys, which is not made here.
    P384,
    /// Ed25519 over the message itself.
    Ed25519,
    /// RSA of 2048 bits, PKCS#1 v1.5 with SHA-256.
    Rsa2048,
}

/// A private key.
pub struct Key {
    pair: KeyPair,
    of: KeyType,
}

impl Key {
    /// Makes a fresh key.
    pub fn generate(of: KeyType) -> Self {
        let algorithm = match of {
            KeyType::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyType::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyType::Ed25519 => &rcgen::PKCS_ED25519,
            KeyType::Rsa2048 => &rcgen::PKCS_RSA_SHA256,
        };
        Self { pair: KeyPair::generate_for(algorithm).expect("keys of this type can be made"), of }
    }

    /// Its type.
    pub fn key_type(&self) -> KeyType {
        self.of
    }

    /// Signs a message, which is hashed as the type says.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).expect("an own key signs")
    }

    /// The public key as DER SubjectPublicKeyInfo.
    pub fn public_der(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// The public key as PEM.
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &self.public_der())
    }

    /// The private key as PEM, PKCS#8, not encrypted.
    pub fn private_pem(&self) -> String {
        pem("PRIVATE KEY", self.pair.serialized_der())
    }

    /// The hint cosign puts into bundles: base64 of the SHA-256 of the public key.
    pub fn hint(&self) -> String {
        BASE64_STANDARD.encode(Sha256::digest(self.public_der()))
    }

    /// The key's name in Sigstore's `PublicKeyDetails`.
    pub fn details(&self) -> &'static str {
        match self.of {
            KeyType::P256 => "PKIX_ECDSA_P256_SHA_256",
            KeyType::P384 => "PKIX_ECDSA_P384_SHA_384",
            KeyType::Ed25519 => "PKIX_ED25519",
            KeyType::Rsa2048 => "PKIX_RSA_PKCS1V15_2048_SHA256",
        }
    }

    /// Digest of a message by the hash that goes with the key in logs and bundles.
    pub(crate) fn digest(&self, message: &[u8]) -> Digest {
        match self.of {
            KeyType::P384 => Digest::Sha384(Sha384::digest(message).into()),
            _ => Digest::Sha256(Sha256::digest(message).into()),
        }
    }

    /// For the certificates that it signs.
    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.of)
    }
}

/// Digest of a signed message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Digest {
    Sha256([u8; 32]),
    Sha384([u8; 48]),
}

impl Digest {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha384(bytes) => bytes,
        }
    }

    /// The algorithm's name in Rekor v1.
    pub(crate) fn rekor_name(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha384(_) => "sha384",
        }
    }

    /// `HashOutput` of protobuf-specs.
    pub(crate) fn json(&self) -> Value {
        let algorithm = match self {
            Self::Sha256(_) => "SHA2_256",
            Self::Sha384(_) => "SHA2_384",
        };
        json!({ "algorithm": algorithm, "digest": BASE64_STANDARD.encode(self.bytes()) })
    }
}

/// DER as PEM with lines of 64 characters and LF.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII"));
    let body: String = lines.flat_map(|line| [line, "\n"]).collect();
    format!("-----BEGIN {label}-----\n{body}-----END {label}-----\n")
}
