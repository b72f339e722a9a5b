//! Signing: from what a signer has and a log and an authority add, to the layouts in which signatures travel.

use crate::{
    Instance,
    certificate::{CtLog, Identity, Request},
    entry::{Entry, Envelope, Subject, Verifier},
    fault::{Fault, Needs},
    key::{Digest, Key, KeyType, pem},
    log::{LogVersion, Logged},
    statement::{self, Statement},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::PublicKeyData;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// A signer with choices: which log, whether a timestamp, what is wrong.
#[derive(Debug, Clone)]
pub struct Signing<'a> {
    instance: &'a Instance,
    signer: Signer<'a>,
    log: Log,
    timestamp: bool,
    fault: Option<Fault>,
}

#[derive(Debug, Clone)]
enum Signer<'a> {
    Keyless { identity: Identity, claims: Vec<(u64, String)> },
    Keyed(&'a Key),
}

#[derive(Debug, Clone, Copy)]
enum Log {
    None,
    /// The entry type that clients use for the layout.
    Usual(LogVersion),
    Of(Entry),
}

/// A layer of cosign's legacy images: `.sig` or `.att`.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Media type of the layer.
    pub media_type: &'static str,
    /// The layer: simple-signing payload, or DSSE envelope.
    pub bytes: Vec<u8>,
    /// The layer's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// How a signature travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A bundle around an envelope: [`Signing::attest`].
    Attestation,
    /// A bundle around a signature over bytes: [`Signing::sign_blob`].
    Blob,
    /// A layer of a `.sig` image: [`Signing::legacy_signature`].
    LegacySignature,
    /// A layer of an `.att` image: [`Signing::legacy_attestation`].
    LegacyAttestation,
}

/// What is signed.
struct Content<'a> {
    layout: Layout,
    payload: Vec<u8>,
    payload_type: &'a str,
}

/// A signature with all that was said of it.
struct Signed {
    signature: Vec<u8>,
    /// The envelope's JSON, where there is one.
    envelope: Vec<u8>,
    certificate: Option<Vec<u8>>,
    logged: Option<Logged>,
    timestamp: Option<Vec<u8>>,
}

impl<'a> Signing<'a> {
    /// Someone with an identity: a certificate for ten minutes, and an entry in Rekor v1.
    pub(crate) fn keyless(instance: &'a Instance, identity: Identity, issuer: &str) -> Self {
        let claims = vec![(1, issuer.to_owned()), (8, issuer.to_owned())];
        let log = Log::Usual(LogVersion::V1);
        Self { instance, signer: Signer::Keyless { identity, claims }, log, timestamp: false, fault: None }
    }

    /// Someone with a key, who asks no one.
    pub(crate) fn keyed(instance: &'a Instance, key: &'a Key) -> Self {
        Self { instance, signer: Signer::Keyed(key), log: Log::None, timestamp: false, fault: None }
    }

    /// Adds a claim about CI to the certificate: the Fulcio extension `1.3.6.1.4.1.57264.1.<number>`, 2 to 24.
    ///
    /// # Panics
    /// With a key, which has no certificate.
    pub fn claim(mut self, number: u64, value: &str) -> Self {
        let Signer::Keyless { claims, .. } = &mut self.signer else { panic!("a key has no claims") };
        claims.push((number, value.to_owned()));
        claims.sort();
        self
    }

    /// Enters the signature into a log, as clients do for the layout.
    pub fn log(mut self, version: LogVersion) -> Self {
        self.log = Log::Usual(version);
        self
    }

    /// Enters the signature into the log that takes this type of entry. Layouts without an envelope panic at types
    /// that are about envelopes.
    pub fn entry(mut self, entry: Entry) -> Self {
        self.log = Log::Of(entry);
        self
    }

    /// Tells no log.
    pub fn without_log(mut self) -> Self {
        self.log = Log::None;
        self
    }

    /// Has the signature stamped with the time.
    pub fn timestamped(mut self) -> Self {
        self.timestamp = true;
        self
    }

    /// Makes one thing wrong. The layouts panic where the fault has nothing to change.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// Whether the fault changes something in what this signer makes.
    pub fn takes(&self, fault: Fault, layout: Layout) -> bool {
        let log = self.entry_type(layout).map(Entry::log);
        fault.needs().iter().all(|needs| match needs {
            Needs::Certificate => matches!(self.signer, Signer::Keyless { .. }),
            Needs::Entry => log.is_some(),
            Needs::Promise => log == Some(LogVersion::V1),
            Needs::Proof => log.is_some() && matches!(layout, Layout::Attestation | Layout::Blob),
            Needs::Timestamp => self.timestamp,
            Needs::Envelope => layout.is_envelope(),
            Needs::Form => layout != Layout::Blob,
        })
    }

    /// A bundle v0.3 around a DSSE envelope with a statement, as JSON.
    pub fn attest(&self, statement: &Statement) -> Vec<u8> {
        let signed = self.sign(&self.statement(Layout::Attestation, statement));
        let mut envelope: Value = serde_json::from_slice(&signed.envelope).expect("own JSON");
        for signature in envelope["signatures"].as_array_mut().into_iter().flatten() {
            signature.as_object_mut().map(|signature| signature.remove("keyid"));
        }
        self.bundle(&signed, "dsseEnvelope", envelope)
    }

    /// A bundle v0.3 around a signature over bytes, as JSON.
    pub fn sign_blob(&self, bytes: &[u8]) -> Vec<u8> {
        let signed = self.sign(&Content { layout: Layout::Blob, payload: bytes.to_vec(), payload_type: "" });
        let changed: &[u8] = if self.fault == Some(Fault::PayloadChanged) { b" " } else { b"" };
        let message = json!({
            "messageDigest": self.digest(&[bytes, changed].concat()).json(),
            "signature": BASE64_STANDARD.encode(&signed.signature),
        });
        self.bundle(&signed, "messageSignature", message)
    }

    /// A legacy signature of an image: a layer of the image at tag `sha256-<digest>.sig`. `annotations` is the payload's
    /// `optional`, an object or null.
    pub fn legacy_signature(&self, reference: &str, sha256: &str, annotations: &Value) -> Layer {
        let payload = statement::simple_signing(reference, sha256, annotations, self.fault);
        let mut content = Content { layout: Layout::LegacySignature, payload, payload_type: "" };
        let signed = self.sign(&content);
        if self.fault == Some(Fault::PayloadChanged) {
            content.payload.push(b' ');
        }
        let mut annotations = self.annotations(&signed);
        annotations.insert(SIGNATURE.to_owned(), BASE64_STANDARD.encode(&signed.signature));
        Layer { media_type: "application/vnd.dev.cosign.simplesigning.v1+json", bytes: content.payload, annotations }
    }

    /// A legacy attestation: a layer of the image at tag `sha256-<digest>.att`.
    pub fn legacy_attestation(&self, statement: &Statement) -> Layer {
        let signed = self.sign(&self.statement(Layout::LegacyAttestation, statement));
        let mut annotations = self.annotations(&signed);
        annotations.insert(SIGNATURE.to_owned(), String::new());
        annotations.insert("predicateType".to_owned(), statement.predicate_type(self.fault).to_owned());
        Layer { media_type: "application/vnd.dsse.envelope.v1+json", bytes: signed.envelope, annotations }
    }

    /// The certificate alone, for a key that stays with its owner. None for a signer with a key.
    pub(crate) fn certificate_for(&self, key: &impl PublicKeyData) -> Option<Vec<u8>> {
        match &self.signer {
            Signer::Keyless { identity, claims } => Some(self.certificate(key, identity, claims)),
            Signer::Keyed(_) => None,
        }
    }

    fn digest(&self, bytes: &[u8]) -> Digest {
        match &self.signer {
            Signer::Keyed(key) => key.digest(bytes),
            Signer::Keyless { .. } => Digest::Sha256(Sha256::digest(bytes).into()),
        }
    }

    fn statement(&self, layout: Layout, statement: &Statement) -> Content<'static> {
        let wrong = self.fault == Some(Fault::WrongPayloadType);
        let payload_type = if wrong { "application/vnd.example+json" } else { IN_TOTO };
        Content { layout, payload: statement.bytes(self.fault), payload_type }
    }

    /// Signs, and asks log and authority.
    fn sign(&self, content: &Content<'_>) -> Signed {
        let layout = content.layout;
        if let Some(fault) = self.fault {
            // A fault that changes nothing would pass a positive off as a negative.
            assert!(self.takes(fault, layout), "{fault:?} changes nothing in {layout:?} of this signer");
        }
        let entry = self.entry_type(layout);

        let fresh;
        let (key, certificate) = match &self.signer {
            Signer::Keyed(key) => (*key, None),
            Signer::Keyless { identity, claims } => {
                fresh = Key::generate(KeyType::P256);
                (&fresh, Some(self.certificate(fresh.pair(), identity, claims)))
            }
        };
        let message = content.signed_bytes();
        let mut signature = key.sign(&message);
        if self.fault == Some(Fault::SignatureSpoiled) {
            *signature.last_mut().expect("not empty") ^= 1;
        }
        let envelope = self.envelope(content, &signature);
        let honest = Subject {
            digest: key.digest(&message),
            signature: &signature,
            verifier: certificate.clone().map_or_else(|| Verifier::of_key(key), Verifier::Certificate),
            envelope: Some(Envelope { json: &envelope, payload: &content.payload, payload_type: content.payload_type })
                .filter(|_| layout.is_envelope()),
        };
        let logged = entry.map(|entry| self.logged(entry, &honest, key));
        // cosign stamps the whole envelope of a legacy attestation (`attest.go`), and signatures elsewhere.
        let stamped = if layout == Layout::LegacyAttestation { &envelope } else { &signature };
        let timestamp = self.timestamp.then(|| self.timestamp(stamped)).flatten();
        Signed { signature, envelope, certificate, logged, timestamp }
    }

    fn entry_type(&self, layout: Layout) -> Option<Entry> {
        match self.log {
            Log::None => None,
            Log::Usual(LogVersion::V1) if layout.is_envelope() => Some(Entry::Dsse),
            Log::Usual(LogVersion::V1) => Some(Entry::HashedRekord),
            Log::Usual(LogVersion::V2) => Some(Entry::HashedRekordV2),
            Log::Of(entry) => Some(entry),
        }
    }

    fn certificate(&self, key: &impl PublicKeyData, identity: &Identity, claims: &[(u64, String)]) -> Vec<u8> {
        let time = self.instance.time;
        let (trusted, foreign) = (&self.instance.trusted, &self.instance.foreign);
        let mut claims = claims.to_vec();
        if self.fault == Some(Fault::WrongIssuer) {
            for (_, issuer) in claims.iter_mut().filter(|(number, _)| [1, 8].contains(number)) {
                *issuer = "https://issuer.example.com".to_owned();
            }
        }
        let other = match identity {
            Identity::Email(_) => Identity::Email("mallory@example.com".to_owned()),
            Identity::Uri(_) => Identity::Uri("https://example.com/mallory".to_owned()),
        };
        let begin = match self.fault {
            Some(Fault::CertificateExpired) => time - HOUR - LIFETIME,
            Some(Fault::CertificateNotYetValid) => time + HOUR,
            _ => time - LIFETIME / 2,
        };
        let request = Request {
            identity: if self.fault == Some(Fault::WrongIdentity) { &other } else { identity },
            claims: &claims,
            validity: (begin, begin + LIFETIME),
            code_signing: self.fault != Some(Fault::NoCodeSigning),
        };
        let ct_key = if self.fault == Some(Fault::SctForeignKey) { &foreign.ct } else { &trusted.ct };
        let log = CtLog { key: ct_key, id: Sha256::digest(trusted.ct.public_der()).into(), time: begin };
        let is_foreign = self.fault == Some(Fault::CertificateForeignAuthority);
        let authority = if is_foreign { &foreign.authority } else { &trusted.authority };
        authority.issue(key, &request, Some(log).filter(|_| self.fault != Some(Fault::NoSct)))
    }

    /// The envelope's JSON as cosign writes it.
    fn envelope(&self, content: &Content<'_>, signature: &[u8]) -> Vec<u8> {
        let mut payload = content.payload.clone();
        if self.fault == Some(Fault::PayloadChanged) {
            payload.push(b' ');
        }
        let mut signatures = vec![json!({ "keyid": "", "sig": BASE64_STANDARD.encode(signature) })];
        if self.fault == Some(Fault::TwoSignatures) {
            let second = Key::generate(KeyType::P256).sign(&content.signed_bytes());
            signatures.push(json!({ "keyid": "", "sig": BASE64_STANDARD.encode(second) }));
        }
        json!({
            "payloadType": content.payload_type,
            "payload": BASE64_STANDARD.encode(payload),
            "signatures": signatures,
        })
        .to_string()
        .into_bytes()
    }

    /// Enters what the fault makes of the honest subject, and changes what the log said.
    fn logged(&self, entry: Entry, honest: &Subject<'_>, key: &Key) -> Logged {
        let services = match self.fault {
            Some(Fault::ForeignLog) => &self.instance.foreign,
            _ => &self.instance.trusted,
        };
        let log = services.log(entry.log());
        let foreign_key = &self.instance.foreign.log(entry.log()).key;
        let time = match self.fault {
            Some(Fault::IntegratedTimeOutside) => self.instance.time + LIFETIME + HOUR,
            _ => self.instance.time,
        };
        let enter = |subject: &Subject<'_>| log.append(entry.kind(), entry.body(subject), time);

        let (stranger, other_signature) = (Key::generate(key.key_type()), key.sign(OTHER));
        let stranger_signature = stranger.sign(OTHER);
        let other_envelope = honest.envelope.map(|envelope| Envelope { json: OTHER, payload: OTHER, ..envelope });
        let other_artifact = Subject { digest: key.digest(OTHER), envelope: other_envelope, ..honest.clone() };
        let foreign =
            Subject { signature: &stranger_signature, verifier: self.verifier_of(&stranger), ..other_artifact.clone() };
        let mut logged = match self.fault {
            Some(Fault::EntryForeign) => enter(&foreign),
            Some(Fault::EntryOtherArtifact) => enter(&other_artifact),
            Some(Fault::EntryOtherSignature) => enter(&Subject { signature: &other_signature, ..honest.clone() }),
            Some(Fault::EntryOtherKey) => enter(&Subject { verifier: foreign.verifier.clone(), ..honest.clone() }),
            _ => enter(honest),
        };
        match self.fault {
            Some(Fault::SetForeignKey) => logged.promise = Some(foreign_key.sign(&logged.promised())),
            Some(Fault::SetOfOtherEntry) => logged.promise = enter(&foreign).promise,
            Some(Fault::EntryBodySwapped) => logged.body = entry.body(&foreign),
            Some(Fault::NoInclusionPromise) => logged.promise = None,
            Some(Fault::NoInclusionProof | Fault::Downgrade) => logged.path = None,
            Some(Fault::ProofOfOtherLeaf) => {
                let (index, path) = log.neighbor_path(&logged);
                (logged.tree_index, logged.path) = (index, Some(path));
            }
            Some(Fault::CheckpointForeignKey) => {
                logged.checkpoint = log.checkpoint(logged.tree_size, &logged.root, foreign_key);
            }
            Some(Fault::CheckpointOtherRoot) => {
                logged.checkpoint = log.checkpoint(logged.tree_size, &Sha256::digest(OTHER).into(), &log.key);
            }
            _ => {}
        }
        logged
    }

    /// How a log names a stranger who signs as this signer does.
    fn verifier_of(&self, stranger: &Key) -> Verifier {
        match &self.signer {
            Signer::Keyed(_) => Verifier::of_key(stranger),
            Signer::Keyless { identity, claims } => {
                let honest = Self { fault: None, ..self.clone() };
                Verifier::Certificate(honest.certificate(stranger.pair(), identity, claims))
            }
        }
    }

    fn timestamp(&self, stamped: &[u8]) -> Option<Vec<u8>> {
        let (trusted, time) = (&self.instance.trusted.timestamps, self.instance.time);
        match self.fault {
            Some(Fault::NoTimestamp) => None,
            Some(Fault::TimestampOutside) => Some(trusted.stamp(stamped, time + LIFETIME + HOUR)),
            Some(Fault::TimestampOfOther) => Some(trusted.stamp(OTHER, time)),
            Some(Fault::TimestampForeignAuthority) => Some(self.instance.foreign.timestamps.stamp(stamped, time)),
            _ => Some(trusted.stamp(stamped, time)),
        }
    }

    fn bundle(&self, signed: &Signed, kind: &str, content: Value) -> Vec<u8> {
        let media_type = match self.fault {
            Some(Fault::Downgrade) => "application/vnd.dev.sigstore.bundle+json;version=0.1",
            _ => BUNDLE,
        };
        let mut material = json!({
            "tlogEntries": signed.logged.iter().map(Logged::json).collect::<Vec<_>>(),
            "timestampVerificationData": { "rfc3161Timestamps": signed
                .timestamp
                .iter()
                .map(|token| json!({ "signedTimestamp": BASE64_STANDARD.encode(token) }))
                .collect::<Vec<_>>() },
        });
        match (&self.signer, &signed.certificate) {
            (Signer::Keyed(key), _) => material["publicKey"] = json!({ "hint": key.hint() }),
            (_, certificate) => {
                let der = certificate.as_deref().expect("keyless signers have one");
                material["certificate"] = json!({ "rawBytes": BASE64_STANDARD.encode(der) });
            }
        }
        json!({ "mediaType": media_type, "verificationMaterial": material, kind: content }).to_string().into_bytes()
    }

    fn annotations(&self, signed: &Signed) -> BTreeMap<String, String> {
        let mut annotations = BTreeMap::new();
        if let Some(certificate) = &signed.certificate {
            let chain = match self.fault {
                Some(Fault::CertificateForeignAuthority) => self.instance.foreign.authority.chain(),
                _ => self.instance.trusted.authority.chain(),
            };
            annotations.insert(CERTIFICATE.to_owned(), pem("CERTIFICATE", certificate));
            annotations.insert(CHAIN.to_owned(), chain.iter().map(|der| pem("CERTIFICATE", der)).collect());
        }
        if let Some(logged) = &signed.logged {
            annotations.insert(ENTRY.to_owned(), logged.annotation());
        }
        if let Some(token) = &signed.timestamp {
            let token = json!({ "SignedRFC3161Timestamp": BASE64_STANDARD.encode(token) });
            annotations.insert(TIMESTAMP.to_owned(), token.to_string());
        }
        annotations
    }
}

impl Layout {
    fn is_envelope(self) -> bool {
        matches!(self, Self::Attestation | Self::LegacyAttestation)
    }
}

impl Content<'_> {
    /// The bytes themselves, or an envelope's pre-authentication encoding (DSSE protocol).
    fn signed_bytes(&self) -> Vec<u8> {
        if !self.layout.is_envelope() {
            return self.payload.clone();
        }
        let (of, payload) = (self.payload_type, &self.payload);
        [format!("DSSEv1 {} {of} {} ", of.len(), payload.len()).as_bytes(), payload].concat()
    }
}

/// Media type of bundles v0.3.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Payload type of envelopes with statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// Annotations of legacy layers (cosign, `pkg/types` and `pkg/oci/static`).
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const ENTRY: &str = "dev.sigstore.cosign/bundle";
const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";

/// Bytes that someone else signed.
const OTHER: &[u8] = b"something else";
/// Seconds that a certificate holds, half of them before the instance's time.
const LIFETIME: i64 = 600;
const HOUR: i64 = 3600;
