//! Signing keys: made, kept encrypted as cosign keeps them, and read back. Source: cosign, `pkg/cosign/keys.go`;
//! go-securesystemslib, `encrypted/encrypted.go`.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305, aead::Aead as _};
use serde::{Deserialize, Serialize};
use sigstore_crypto::{KeyAlgorithm, KeyPair};
use sigstore_types::SignatureBytes;

use super::keys::PublicKey;
use crate::refusal::clean;

/// A P-256 key that signs. Other kinds are not made: cosign cannot verify its own bundles by Ed25519 keys, and takes SHA-256
/// for granted.
pub struct SigningKey {
    pair: KeyPair,
    public: PublicKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public).finish_non_exhaustive()
    }
}

/// A new key, as it is written to files.
#[derive(Clone)]
pub struct NewKey {
    /// The private key, encrypted: PEM.
    pub private: String,
    /// The public key: PEM.
    pub public: String,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A private key that cannot be made or read. What it holds is never shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// Not a private key's PEM.
    #[error(
        "not a private key: give a PEM file with `ENCRYPTED SIGSTORE PRIVATE KEY`, as `mayfly keys generate` and `cosign \
         generate-key-pair` write it, or with `PRIVATE KEY` (PKCS #8)"
    )]
    NotAKey,
    /// Encryption with other parameters than cosign's.
    #[error("the private key is encrypted in an unknown way ({0})")]
    Encryption(String),
    /// Another password.
    #[error("the password does not open the private key")]
    Password,
    /// Not a P-256 key.
    #[error("the private key is not for ECDSA P-256, the one kind that others verify by default: {0}")]
    Kind(String),
    /// No entropy.
    #[error("no key can be made: {0}")]
    Random(String),
}

impl NewKey {
    /// Makes a P-256 key pair, the private key encrypted with `password`.
    ///
    /// # Errors
    /// [`SigningKeyError::Random`].
    pub fn generate(password: &[u8]) -> Result<Self, SigningKeyError> {
        let random = |error: &dyn std::fmt::Display| SigningKeyError::Random(error.to_string());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        let pkcs8 = pkcs8.map_err(|error| random(&error))?;
        let (mut salt, mut nonce) = ([0; 32], [0; 24]);
        for bytes in [&mut salt[..], &mut nonce[..]] {
            aws_lc_rs::rand::fill(bytes).map_err(|error| random(&error))?;
        }
        let cost = Cost { n: 1 << 16, r: 8, p: 1 };
        let cipher = XSalsa20Poly1305::new(&cost.key(password, &salt)?.into());
        let sealed = cipher.encrypt(&nonce.into(), pkcs8.as_ref()).map_err(|error| random(&error))?;
        let sealed = Sealed {
            kdf: Kdf { name: SCRYPT.to_owned(), params: cost, salt: STANDARD.encode(salt) },
            cipher: Cipher { name: SECRETBOX.to_owned(), nonce: STANDARD.encode(nonce) },
            ciphertext: STANDARD.encode(sealed),
        };
        let json = serde_json::to_vec(&sealed).map_err(|error| random(&error))?;
        let key = SigningKey::from_pkcs8(pkcs8.as_ref())?;
        Ok(Self { private: pem(ENCRYPTED[0], &json), public: pem("PUBLIC KEY", key.public.der().as_bytes()) })
    }
}

impl SigningKey {
    /// Reads a private key; `password` is asked for where it is encrypted.
    ///
    /// # Errors
    /// [`SigningKeyError`].
    pub fn from_pem<E: From<SigningKeyError>>(
        text: &str,
        password: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let (label, body) = unarmoured(text).ok_or(SigningKeyError::NotAKey)?;
        if label == "PRIVATE KEY" {
            return Ok(Self::from_pkcs8(&body)?);
        }
        if !ENCRYPTED.contains(&label) {
            return Err(SigningKeyError::NotAKey.into());
        }
        let sealed = Sealed::read(&body)?;
        Ok(Self::from_pkcs8(&sealed.open(&password()?)?)?)
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, SigningKeyError> {
        let kind = |error: String| SigningKeyError::Kind(clean(&error));
        let pair = KeyPair::from_pkcs8_der(der).map_err(|error| kind(error.to_string()))?;
        if pair.algorithm() != KeyAlgorithm::EcdsaP256 {
            return Err(kind(format!("{:?}", pair.algorithm())));
        }
        let public = pair.public_key_der().map_err(|error| kind(error.to_string()))?;
        let public = PublicKey::from_der(public).map_err(|error| kind(error.to_string()))?;
        Ok(Self { pair, public })
    }

    /// Its public key.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<SignatureBytes, String> {
        self.pair.sign(message).map_err(|error| error.to_string())
    }
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Cost,
    salt: String,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
struct Cost {
    #[serde(rename = "N")]
    n: u32,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

impl Cost {
    /// scrypt (RFC 7914). Its memory is 128 · N · r bytes, so that only the two costs in use are accepted.
    fn key(self, password: &[u8], salt: &[u8]) -> Result<[u8; 32], SigningKeyError> {
        let unknown = || SigningKeyError::Encryption(format!("scrypt N={} r={} p={}", self.n, self.r, self.p));
        let log_n = match self {
            Self { n: 32768, r: 8, p: 1 } => 15,
            Self { n: 65536, r: 8, p: 1 } => 16,
            _ => return Err(unknown()),
        };
        let params = scrypt::Params::new(log_n, self.r, self.p).map_err(|_| unknown())?;
        let mut key = [0; 32];
        scrypt::scrypt(password, salt, &params, &mut key).map_err(|_| unknown())?;
        Ok(key)
    }
}

impl Sealed {
    fn read(json: &[u8]) -> Result<Self, SigningKeyError> {
        // What is wrong with it could quote it.
        let sealed: Self = serde_json::from_slice(json).map_err(|_| SigningKeyError::NotAKey)?;
        if sealed.kdf.name != SCRYPT || sealed.cipher.name != SECRETBOX {
            return Err(SigningKeyError::Encryption(clean(&format!("{}, {}", sealed.kdf.name, sealed.cipher.name))));
        }
        Ok(sealed)
    }

    fn open(&self, password: &[u8]) -> Result<Vec<u8>, SigningKeyError> {
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| SigningKeyError::NotAKey);
        let nonce: [u8; 24] = decode(&self.cipher.nonce)?.try_into().map_err(|_| SigningKeyError::NotAKey)?;
        let cipher = XSalsa20Poly1305::new(&self.kdf.params.key(password, &decode(&self.kdf.salt)?)?.into());
        let sealed = decode(&self.ciphertext)?;
        cipher.decrypt(&nonce.into(), sealed.as_slice()).map_err(|_| SigningKeyError::Password)
    }
}

/// PEM with the line length and line ends of RFC 7468, section 2.
pub(super) fn pem(label: &str, bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let mut lines = String::new();
    for (at, character) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            lines.push('\n');
        }
        lines.push(character);
    }
    format!("-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
}

/// The first PEM block: its label and bytes.
fn unarmoured(text: &str) -> Option<(&str, Vec<u8>)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_whitespace().collect();
    Some((label, STANDARD.decode(body).ok()?))
}

const ENCRYPTED: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
const SCRYPT: &str = "scrypt";
const SECRETBOX: &str = "nacl/secretbox";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, password: &str) -> Result<SigningKey, SigningKeyError> {
        SigningKey::from_pem(text, || Ok(password.as_bytes().to_vec()))
    }

    #[test]
    fn a_new_key_is_opened_by_its_password_alone_and_signs() {
        let new = NewKey::generate(b"secret").expect("a key");
        assert_eq!(read(&new.private, "other").expect_err("another password"), SigningKeyError::Password);
        let key = read(&new.private, "secret").expect("a key");
        let public = PublicKey::from_pem(&new.public).expect("a public key");
        assert_eq!(key.public().fingerprint(), public.fingerprint());
        let signature = key.sign(b"message").expect("signed");
        assert!(public.verifies(b"message", &signature));
        assert!(!public.verifies(b"another", &signature));
        assert!(!format!("{new:?} {key:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_is_no_key_or_too_costly_is_told_apart() {
        assert_eq!(read("", "").expect_err("nothing"), SigningKeyError::NotAKey);
        assert_eq!(read(&pem("CERTIFICATE", b"x"), "").expect_err("another kind"), SigningKeyError::NotAKey);
        let costly = br#"{"kdf":{"name":"scrypt","params":{"N":1073741824,"r":8,"p":1},"salt":""},
            "cipher":{"name":"nacl/secretbox","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},"ciphertext":""}"#;
        assert!(matches!(read(&pem(ENCRYPTED[1], costly), ""), Err(SigningKeyError::Encryption(_))));
    }
}
