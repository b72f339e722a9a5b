//! Signing: a statement in, a bundle out. By a key, with what the services of a signing config add; or keyless, by a
//! certificate of theirs. Addresses and versions come from the config alone. Source: protobuf-specs,
//! `sigstore_trustroot.proto`, `SigningConfig`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use sigstore_bundle::{BundleV03, VerificationMaterialV03};
use sigstore_oidc::IdentityToken;
use sigstore_rekor::{HashedRekordV2, RekorApiVersion, RekorClient, RekorV2Client, RekorV2KeyDetails};
use sigstore_sign::{SigningContext, SigningServices};
use sigstore_trust_root::SigningConfig;
use sigstore_tsa::TimestampClient;
use sigstore_types::{
    DsseEnvelope, DsseSignature, KeyId, KindVersion, PayloadBytes, SignatureContent, TransparencyLogEntry,
};

use super::{keys::PublicKey, pair::SigningKey};
use crate::{evidence::Evidence, refusal::clean, statement::PAYLOAD_TYPE};

/// The services that take part in signing.
#[derive(Debug, Clone)]
pub struct Services {
    config: SigningConfig,
    rekor: Option<RekorApiVersion>,
}

/// Why nothing was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// No usable signing config.
    #[error(
        "the signing config cannot be used: {0}; give a `signing_config.json` as `cosign signing-config create` writes it"
    )]
    Config(String),
    /// No usable identity token.
    #[error("the identity token cannot be used: {0}; give one for the audience `sigstore` that has not expired")]
    Token(String),
    /// One of the services refused, or did not answer.
    #[error("{service} did not do its part: {reason}")]
    Service {
        /// Fulcio, Rekor or the timestamp authority, with its address.
        service: String,
        /// What it said.
        reason: String,
    },
    /// The key failed.
    #[error("the key did not sign: {0}")]
    Key(String),
}

impl Services {
    /// Reads a signing config. `rekor` restricts which version of the log is used: 1 or 2.
    ///
    /// # Errors
    /// [`SignError::Config`].
    pub fn from_json(json: &[u8], rekor: Option<u32>) -> Result<Self, SignError> {
        let text = std::str::from_utf8(json).map_err(|error| SignError::Config(clean(&error.to_string())))?;
        let config = SigningConfig::from_json(text).map_err(|error| SignError::Config(clean(&error.to_string())))?;
        let version = |major| {
            RekorApiVersion::from_major(major).ok_or_else(|| SignError::Config(format!("Rekor {major} is unknown")))
        };
        Ok(Self { config, rekor: rekor.map(version).transpose()? })
    }

    /// What they add to a key's signature.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        let log = self.config.rekor_url(self.rekor.map(RekorApiVersion::major));
        match (log, self.config.tsa_url()) {
            (Some(_), _) => Evidence::Log,
            (None, Some(_)) => Evidence::Timestamp,
            (None, None) => Evidence::Signature,
        }
    }

    /// Signs a statement with a new certificate for whom the token names.
    ///
    /// # Errors
    /// [`SignError`].
    pub async fn keyless(&self, token: &str, statement: &[u8]) -> Result<Vec<u8>, SignError> {
        let token =
            IdentityToken::from_jwt(token.trim()).map_err(|error| SignError::Token(clean(&error.to_string())))?;
        if token.is_expired() {
            return Err(SignError::Token("it has expired".to_owned()));
        }
        let services = SigningServices::from_signing_config_with_rekor_version(&self.config, self.rekor);
        let services = services.map_err(|error| SignError::Config(clean(&error.to_string())))?;
        let names = format!("one of {} and {}", services.fulcio_url(), services.rekor_url());
        let signed = SigningContext::new(services).signer(token).sign_raw_statement(statement).await;
        let bundle = signed.map_err(|error| failed(&names, &error))?;
        bundle.to_json().map(String::into_bytes).map_err(|error| failed(&names, &error))
    }

    /// The log's entry for an envelope; none where the config names no log.
    async fn logged(
        &self,
        envelope: &DsseEnvelope,
        key: &PublicKey,
    ) -> Result<Option<TransparencyLogEntry>, SignError> {
        let Some(log) = self.config.rekor_url(self.rekor.map(RekorApiVersion::major)) else {
            return match self.rekor {
                Some(version) => Err(SignError::Config(format!("it names no Rekor of version {}", version.major()))),
                None => Ok(None),
            };
        };
        let service = format!("the log {}", log.url);
        let entry = match RekorApiVersion::from_major(log.major_api_version) {
            Some(RekorApiVersion::V1) => {
                let client = RekorClient::new(&log.url).map_err(|error| failed(&service, &error))?;
                let envelope = serde_json::to_string(envelope).map_err(|error| failed(&service, &error))?;
                let verifier = STANDARD.encode(super::pair::pem("PUBLIC KEY", key.der().as_bytes()));
                // The crate's own constructor takes certificates only.
                let request = json!({"apiVersion": "0.0.1", "kind": "dsse", "spec": {
                    "proposedContent": {"envelope": envelope, "verifiers": [verifier]}}});
                let request = serde_json::from_value(request).map_err(|error| failed(&service, &error))?;
                let entry = client.create_dsse_entry(request).await.map_err(|error| failed(&service, &error))?;
                entry.to_bundle_entry(KindVersion::DsseV001).map_err(|error| failed(&service, &error))?
            }
            Some(RekorApiVersion::V2) => {
                let client = RekorV2Client::builder(&log.url).build().map_err(|error| failed(&service, &error))?;
                let hash = sigstore_crypto::sha256(&envelope.pae());
                let details = RekorV2KeyDetails::PkixEcdsaP256Sha256;
                let request = HashedRekordV2::new_with_public_key(&hash, &envelope.signature.sig, key.der(), details);
                client.create_entry(request).await.map_err(|error| failed(&service, &error))?
            }
            _ => return Err(SignError::Config(format!("Rekor {} is unknown", log.major_api_version))),
        };
        Ok(Some(entry))
    }
}

/// Signs a statement with a key. The services add the entry of their log and a timestamp; without them the bundle holds the
/// signature alone.
///
/// # Errors
/// [`SignError`].
pub async fn sign(key: &SigningKey, services: Option<&Services>, statement: &[u8]) -> Result<Vec<u8>, SignError> {
    let pae = sigstore_types::pae(PAYLOAD_TYPE, statement);
    let signature = key.sign(&pae).map_err(SignError::Key)?;
    let payload = PayloadBytes::from_bytes(statement);
    let envelope = DsseEnvelope::new(PAYLOAD_TYPE, payload, DsseSignature::new(signature.clone(), KeyId::default()));
    let material = VerificationMaterialV03::PublicKey { hint: key.public().hint() };
    let mut bundle = BundleV03::new(material, SignatureContent::DsseEnvelope(envelope.clone()));
    if let Some(services) = services {
        if let Some(entry) = services.logged(&envelope, key.public()).await? {
            bundle = bundle.with_tlog_entry(entry);
        }
        if let Some(authority) = services.config.tsa_url() {
            let service = format!("the timestamp authority {}", authority.url);
            let client = TimestampClient::new(&authority.url).map_err(|error| failed(&service, &error))?;
            let stamp = client.timestamp_signature(&signature).await.map_err(|error| failed(&service, &error))?;
            bundle = bundle.with_rfc3161_timestamp(stamp);
        }
    }
    let json = bundle.into_bundle().to_json().map_err(|error| SignError::Key(clean(&error.to_string())))?;
    Ok(json.into_bytes())
}

/// The identity token of the build service that this runs in: GitHub Actions, GitLab and others.
///
/// # Errors
/// [`SignError::Token`] where there is a build service, but it gives none.
pub async fn ambient_token() -> Result<Option<String>, SignError> {
    let found = IdentityToken::detect_ambient().await;
    let found = found.map_err(|error| SignError::Token(clean(&error.to_string())))?;
    Ok(found.map(|token| token.expose_secret().to_owned()))
}

fn failed(service: &str, error: &dyn std::fmt::Display) -> SignError {
    SignError::Service { service: clean(service), reason: clean(&error.to_string()) }
}
