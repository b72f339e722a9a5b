//! The instance: its services, and beside them strangers of the same names for what must not be trusted.

use crate::{
    certificate::{Authority, Identity, YEAR},
    der,
    key::{Key, KeyType, pem},
    log::{Log, LogVersion},
    sign::Signing,
    timestamp::TimestampAuthority,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A Sigstore instance at a fixed time.
pub struct Instance {
    /// Unix seconds of all that is made.
    pub(crate) time: i64,
    pub(crate) trusted: Services,
    pub(crate) foreign: Services,
}

/// Who vouches for signatures.
pub(crate) struct Services {
    pub(crate) authority: Authority,
    pub(crate) ct: Key,
    rekor: Log,
    rekor_v2: Log,
    pub(crate) timestamps: TimestampAuthority,
}

impl Instance {
    /// An instance at [`TIME`], which is past on every clock that works.
    pub fn new() -> Self {
        Self::at(TIME)
    }

    /// An instance at another time, in Unix seconds.
    pub fn at(time: i64) -> Self {
        Self { time, trusted: Services::new(time), foreign: Services::new(time) }
    }

    /// Unix seconds of all that is made.
    pub fn time(&self) -> i64 {
        self.time
    }

    /// Someone with an identity, whom an issuer's token names: a certificate, and an entry in Rekor v1.
    pub fn keyless(&self, identity: Identity, issuer: &str) -> Signing<'_> {
        Signing::keyless(self, identity, issuer)
    }

    /// Someone with a key: neither log nor timestamp unless they are asked for.
    pub fn keyed<'a>(&'a self, key: &'a Key) -> Signing<'a> {
        Signing::keyed(self, key)
    }

    /// `trusted_root.json`: whom verifiers are to trust (protobuf-specs, `sigstore_trustroot.proto`).
    pub fn trusted_root(&self) -> String {
        let Services { authority, ct, rekor, rekor_v2, timestamps } = &self.trusted;
        let valid = json!({ "start": der::rfc3339(self.time - YEAR) });
        let key = |key: &Key| {
            json!({
                "rawBytes": BASE64_STANDARD.encode(key.public_der()),
                "keyDetails": key.details(),
                "validFor": valid,
            })
        };
        let log = |url: String, public: &Key, id: [u8; 32]| {
            json!({
                "baseUrl": url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": key(public),
                "logId": { "keyId": BASE64_STANDARD.encode(id) },
            })
        };
        let chain = |certificates: [&[u8]; 2]| -> Value {
            let certificates = certificates.map(|der| json!({ "rawBytes": BASE64_STANDARD.encode(der) }));
            json!({ "certificates": certificates })
        };
        let root = json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": ([rekor, rekor_v2].map(|rekor| log(rekor.url(), &rekor.key, rekor.id()))),
            "ctlogs": [log("https://ctfe.sigstore.test".to_owned(), ct, Sha256::digest(ct.public_der()).into())],
            "certificateAuthorities": [{
                "subject": { "organization": "sigstore.test", "commonName": "sigstore" },
                "uri": "https://fulcio.sigstore.test",
                "certChain": chain(authority.chain()),
                "validFor": valid,
            }],
            "timestampAuthorities": [{
                "subject": { "organization": "sigstore.test", "commonName": "sigstore-tsa-selfsigned" },
                "uri": "https://timestamp.sigstore.test/api/v1/timestamp",
                "certChain": chain(timestamps.chain()),
                "validFor": valid,
            }],
        });
        serde_json::to_string_pretty(&root).expect("JSON")
    }

    /// The public key of Rekor v1, as PEM.
    pub fn rekor_public_pem(&self) -> String {
        self.trusted.rekor.key.public_pem()
    }

    /// Intermediate and root of the certificate authority, as PEM.
    pub fn authority_pem(&self) -> String {
        self.trusted.authority.chain().iter().map(|der| pem("CERTIFICATE", der)).collect()
    }
}

impl Default for Instance {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("time", &self.time).finish_non_exhaustive()
    }
}

impl Services {
    fn new(time: i64) -> Self {
        Self {
            authority: Authority::new(time),
            ct: Key::generate(KeyType::P256),
            rekor: Log::new(LogVersion::V1, "rekor.sigstore.test"),
            rekor_v2: Log::new(LogVersion::V2, "log2026.rekor.sigstore.test"),
            timestamps: TimestampAuthority::new(time),
        }
    }

    pub(crate) fn log(&self, version: LogVersion) -> &Log {
        match version {
            LogVersion::V1 => &self.rekor,
            LogVersion::V2 => &self.rekor_v2,
        }
    }
}

/// 2026-06-01T12:00:00Z, the time of an instance, in Unix seconds.
pub const TIME: i64 = 1_780_315_200;
