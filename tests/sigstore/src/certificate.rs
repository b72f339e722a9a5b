//! Certificates as Fulcio issues them: an identity for ten minutes, promised to a certificate transparency log.

use crate::{der, key::Key};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use sha2::{Digest, Sha256};

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A person's address.
    Email(String),
    /// A workload, such as the URI of a CI workflow.
    Uri(String),
}

/// What a certificate is asked to say.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) identity: &'a Identity,
    /// Fulcio extensions below 1.3.6.1.4.1.57264.1 by number.
    pub(crate) claims: &'a [(u64, String)],
    /// Unix seconds, first and last.
    pub(crate) validity: (i64, i64),
    pub(crate) code_signing: bool,
}

/// Who promises that a certificate is logged: the key that signs, and the log it speaks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CtLog<'a> {
    pub(crate) key: &'a Key,
    pub(crate) id: [u8; 32],
    /// Unix seconds of the promise.
    pub(crate) time: i64,
}

/// A certificate authority: root, intermediate, and what it issues.
pub(crate) struct Authority {
    root: Vec<u8>,
    intermediate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    issuer_public: Vec<u8>,
}

impl Authority {
    /// An authority whose own certificates hold for the years around `time`.
    pub(crate) fn new(time: i64) -> Self {
        let (root_key, key) = (key_pair(), key_pair());
        let root_params = authority_params("sigstore", time, None);
        let root = root_params.self_signed(&root_key).expect("a root signs itself");
        let params = authority_params("sigstore-intermediate", time, Some(ExtendedKeyUsagePurpose::CodeSigning));
        let root_issuer = Issuer::new(root_params, root_key);
        let intermediate = params.signed_by(&key, &root_issuer).expect("the root signs the intermediate");
        Self {
            root: root.der().to_vec(),
            intermediate: intermediate.der().to_vec(),
            issuer_public: key.subject_public_key_info(),
            issuer: Issuer::new(params, key),
        }
    }

    /// DER of intermediate and root.
    pub(crate) fn chain(&self) -> [&[u8]; 2] {
        [&self.intermediate, &self.root]
    }

    /// Issues a leaf, as DER. A log's promise (RFC 6962, section 3.3) is made over the certificate without it.
    pub(crate) fn issue(&self, key: &impl PublicKeyData, request: &Request<'_>, log: Option<CtLog<'_>>) -> Vec<u8> {
        let mut params = leaf_params(request);
        let precertificate = self.sign(&params, key);
        let Some(log) = log else { return precertificate.der().to_vec() };
        let tbs = der::children(precertificate.der())[0];
        let list = timestamp_list(tbs, &self.issuer_public, log);
        params.custom_extensions.push(CustomExtension::from_oid_content(&SCT_LIST, der::octets(&list)));
        self.sign(&params, key).der().to_vec()
    }

    fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Certificate {
        params.signed_by(key, &self.issuer).expect("the intermediate signs leaves")
    }
}

/// A key that stands for any public P-256 key, for which a certificate is asked.
#[derive(Debug)]
pub(crate) struct PublicP256(pub(crate) Vec<u8>);

impl PublicKeyData for PublicP256 {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// A time-stamping authority's root and leaf, as DER, leaf first.
pub(crate) fn timestamping_chain(leaf_key: &Key, time: i64) -> [Vec<u8>; 2] {
    let root_key = key_pair();
    let root_params = authority_params("sigstore-tsa-selfsigned", time, None);
    let root = root_params.self_signed(&root_key).expect("a root signs itself");
    let mut params = base_params(time - YEAR, time + 10 * YEAR);
    params.distinguished_name = name("sigstore-tsa");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // RFC 3161, section 2.3: alone and critical.
    let usage = der::sequence(&[&der::oid(&TIME_STAMPING)]);
    let mut usage = CustomExtension::from_oid_content(&EXTENDED_KEY_USAGE, usage);
    usage.set_criticality(true);
    params.custom_extensions = vec![usage];
    let leaf = params.signed_by(leaf_key.pair(), &Issuer::new(root_params, root_key)).expect("the root signs the leaf");
    [leaf.der().to_vec(), root.der().to_vec()]
}

/// The promise of a log for a precertificate, as the list in a certificate's extension (RFC 6962, section 3.3).
fn timestamp_list(tbs: &[u8], issuer_public: &[u8], log: CtLog<'_>) -> Vec<u8> {
    let millis = u64::try_from(log.time).expect("after 1970") * 1000;
    let no_extensions = [0; 2];
    // Version v1, certificate_timestamp, and the entry: a precertificate by its issuer's key.
    let mut signed = vec![0, 0];
    signed.extend(millis.to_be_bytes());
    signed.extend(1_u16.to_be_bytes());
    signed.extend(Sha256::digest(issuer_public));
    signed.extend(&length(tbs)[1..]);
    signed.extend(tbs);
    signed.extend(no_extensions);

    let signature = log.key.sign(&signed);
    let mut timestamp = vec![0];
    timestamp.extend(log.id);
    timestamp.extend(millis.to_be_bytes());
    timestamp.extend(no_extensions);
    timestamp.extend(SHA256_ECDSA);
    timestamp.extend(&length(&signature)[2..]);
    timestamp.extend(signature);

    let mut list = length(&timestamp)[2..].to_vec();
    list.extend(timestamp);
    [&length(&list)[2..], &list].concat()
}

/// Length as four bytes; TLS takes the last two or three.
fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("certificates are small").to_be_bytes()
}

fn leaf_params(request: &Request<'_>) -> CertificateParams {
    let mut params = base_params(request.validity.0, request.validity.1);
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![match request.identity {
        Identity::Email(address) => SanType::Rfc822Name(address.as_str().try_into().expect("ASCII address")),
        Identity::Uri(uri) => SanType::URI(uri.as_str().try_into().expect("ASCII URI")),
    }];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if request.code_signing {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    }
    params.custom_extensions = request.claims.iter().map(|(number, value)| claim(*number, value)).collect();
    params
}

/// A Fulcio extension: bare bytes up to `.1.6`, a UTF8String from `.1.8` on.
fn claim(number: u64, value: &str) -> CustomExtension {
    let oid: Vec<u64> = FULCIO.into_iter().chain([number]).collect();
    let content = if number <= 6 { value.as_bytes().to_vec() } else { der::utf8(value) };
    CustomExtension::from_oid_content(&oid, content)
}

fn authority_params(common_name: &str, time: i64, usage: Option<ExtendedKeyUsagePurpose>) -> CertificateParams {
    let mut params = base_params(time - YEAR, time + 10 * YEAR);
    params.distinguished_name = name(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = usage.into_iter().collect();
    params
}

fn base_params(from: i64, to: i64) -> CertificateParams {
    let at = |seconds| {
        let seconds = u64::try_from(seconds).expect("after 1970");
        rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds)
    };
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (at(from), at(to));
    params.use_authority_key_identifier_extension = true;
    params
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "sigstore.test");
    name.push(DnType::CommonName, common_name);
    name
}

fn key_pair() -> KeyPair {
    KeyPair::generate().expect("P-256 keys can be made")
}

/// A year in seconds.
pub(crate) const YEAR: i64 = 365 * 24 * 3600;

/// Arc of Fulcio's extensions (`docs/oid-info.md` of sigstore/fulcio).
const FULCIO: [u64; 8] = [1, 3, 6, 1, 4, 1, 57264, 1];
/// Embedded list of signed certificate timestamps (RFC 6962, section 3.3).
const SCT_LIST: [u64; 10] = [1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];
/// Hash SHA-256 and signature ECDSA (RFC 5246, section 7.4.1.4.1).
const SHA256_ECDSA: [u8; 2] = [4, 3];
const EXTENDED_KEY_USAGE: [u64; 4] = [2, 5, 29, 37];
const TIME_STAMPING: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 8];
