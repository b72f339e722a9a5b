//! A certificate chain and its key: PEM in, what TLS serves out. What does not parse or does not match is refused here.

use std::{collections::BTreeSet, fmt, sync::Arc};

use jiff::Timestamp;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_parser::{extensions::GeneralName, prelude::X509Certificate};

use crate::Error;

/// A certificate chain whose key matches.
#[derive(Clone)]
pub struct Pair {
    certified: Arc<CertifiedKey>,
    key: Arc<[u8]>,
    leaf: Facts,
}

impl Pair {
    /// Reads a chain, leaf first, and the leaf's key; `place` says where they are from.
    ///
    /// # Errors
    /// [`Error::Pair`].
    pub fn parse(place: &str, chain_pem: &[u8], key_pem: &[u8], provider: &CryptoProvider) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Pair { place: place.to_owned(), reason };
        let chain = certificates(chain_pem).map_err(&wrong)?;
        let leaf = chain.first().ok_or_else(|| wrong("no certificate in it".to_owned()))?;
        let leaf = Facts::of(leaf).map_err(&wrong)?;
        // The parser's error says where, not what: no part of the key is in it.
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| wrong("no private key in PEM".to_owned()))?;
        let bytes = key.secret_der().into();
        let certified = CertifiedKey::from_der(chain, key, provider)
            .map_err(|error| wrong(format!("certificate and key do not belong together: {error}")))?;
        Ok(Self { certified: Arc::new(certified), key: bytes, leaf })
    }

    /// What TLS serves.
    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// From when the leaf is valid.
    pub fn not_before(&self) -> Timestamp {
        self.leaf.not_before
    }

    /// Until when the leaf is valid.
    pub fn not_after(&self) -> Timestamp {
        self.leaf.not_after
    }

    /// DNS names of the leaf.
    pub fn names(&self) -> &BTreeSet<String> {
        &self.leaf.names
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert && self.key == other.key
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pair({:?} until {})", self.leaf.names, self.leaf.not_after)
    }
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) names: BTreeSet<String>,
    /// The public key, as SubjectPublicKeyInfo.
    pub(crate) public_key: Vec<u8>,
}

impl Facts {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let parsed = parse(certificate)?;
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| "its validity is out of range".to_owned());
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        Ok(Self {
            not_before: time(parsed.validity().not_before.timestamp())?,
            not_after: time(parsed.validity().not_after.timestamp())?,
            names: names.collect(),
            public_key: parsed.public_key().raw.to_vec(),
        })
    }
}

/// Whether `issuer` signed `certificate`.
pub(crate) fn is_issued_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let (Ok(leaf), Ok(parent)) = (parse(certificate), parse(issuer)) else { return false };
    let key_id = |certificate: &X509Certificate<'_>| {
        certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
    };
    let authority = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => {
            id.key_identifier.as_ref().map(|id| id.0.to_vec())
        }
        _ => None,
    });
    leaf.issuer() == parent.subject() && authority.is_some() && authority == key_id(&parent)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(error) => Err(format!("not a certificate: {error}")),
    }
}

/// The certificates of a PEM text, in its order.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(format!("larger than {MAX_PEM_BYTES} bytes"));
    }
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not certificates in PEM: {error}"))
}

/// A chain has some KiB, the list of authorities of a machine 250.
pub(crate) const MAX_PEM_BYTES: usize = 1 << 20;
