//! A time-stamping authority (RFC 3161): tokens over any bytes, at any time, in whole seconds.

use crate::{
    certificate, der,
    key::{Key, KeyType},
};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};

/// An authority with its key, its certificate and the root above.
pub(crate) struct TimestampAuthority {
    key: Key,
    /// Leaf, then root, as DER.
    chain: [Vec<u8>; 2],
    serial: AtomicU64,
}

impl TimestampAuthority {
    pub(crate) fn new(time: i64) -> Self {
        let key = Key::generate(KeyType::P256);
        Self { chain: certificate::timestamping_chain(&key, time), key, serial: AtomicU64::new(1) }
    }

    /// DER of leaf and root.
    pub(crate) fn chain(&self) -> [&[u8]; 2] {
        [&self.chain[0], &self.chain[1]]
    }

    /// A granted TimeStampResp, as DER, that the bytes existed at `time`.
    pub(crate) fn stamp(&self, bytes: &[u8], time: i64) -> Vec<u8> {
        let imprint = der::sequence(&[&sha256_algorithm(), &der::octets(&Sha256::digest(bytes))]);
        self.respond(&imprint, None, time)
    }

    /// Answers for a MessageImprint and a nonce, both as DER elements of the request.
    pub(crate) fn respond(&self, imprint: &[u8], nonce: Option<&[u8]>, time: i64) -> Vec<u8> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let info = der::sequence(&[
            &der::integer(&[1]),
            &der::oid(&POLICY),
            imprint,
            &der::integer(&serial.to_be_bytes()),
            &der::generalized_time(time),
            nonce.unwrap_or_default(),
        ]);
        let granted = der::sequence(&[&der::integer(&[0])]);
        let content = der::sequence(&[&der::oid(&SIGNED_DATA), &der::tagged(0, &self.signed_data(&info, time))]);
        der::sequence(&[&granted, &content])
    }

    /// CMS SignedData (RFC 5652, section 5) around a TSTInfo.
    fn signed_data(&self, info: &[u8], time: i64) -> Vec<u8> {
        // TBSCertificate: version, serial, algorithm, issuer.
        let tbs = der::children(der::children(&self.chain[0])[0]);
        let certificate_hash = der::octets(&Sha256::digest(&self.chain[0]));
        let signing_certificate = der::sequence(&[&der::sequence(&[&der::sequence(&[&certificate_hash])])]);
        let attributes = der::set(vec![
            attribute(&CONTENT_TYPE, der::oid(&TST_INFO)),
            attribute(&SIGNING_TIME, der::utc_time(time)),
            attribute(&MESSAGE_DIGEST, der::octets(&Sha256::digest(info))),
            attribute(&SIGNING_CERTIFICATE_V2, signing_certificate),
        ]);
        let signer = der::sequence(&[
            &der::integer(&[1]),
            &der::sequence(&[tbs[3], tbs[1]]),
            &sha256_algorithm(),
            &der::tagged(0, der::content(&attributes)),
            &der::sequence(&[&der::oid(&ECDSA_WITH_SHA256)]),
            &der::octets(&self.key.sign(&attributes)),
        ]);
        der::sequence(&[
            &der::integer(&[3]),
            &der::set(vec![sha256_algorithm()]),
            &der::sequence(&[&der::oid(&TST_INFO), &der::tagged(0, &der::octets(info))]),
            &der::tagged(0, &self.chain[0]),
            &der::set(vec![signer]),
        ])
    }
}

fn attribute(of: &[u64], value: Vec<u8>) -> Vec<u8> {
    der::sequence(&[&der::oid(of), &der::set(vec![value])])
}

fn sha256_algorithm() -> Vec<u8> {
    der::sequence(&[&der::oid(&SHA256)])
}

/// The policy that Sigstore's authority names in its tokens.
const POLICY: [u64; 8] = [1, 3, 6, 1, 4, 1, 57264, 2];
const SHA256: [u64; 9] = [2, 16, 840, 1, 101, 3, 4, 2, 1];
const ECDSA_WITH_SHA256: [u64; 7] = [1, 2, 840, 10045, 4, 3, 2];
const SIGNED_DATA: [u64; 7] = [1, 2, 840, 113549, 1, 7, 2];
const TST_INFO: [u64; 9] = [1, 2, 840, 113549, 1, 9, 16, 1, 4];
const CONTENT_TYPE: [u64; 7] = [1, 2, 840, 113549, 1, 9, 3];
const MESSAGE_DIGEST: [u64; 7] = [1, 2, 840, 113549, 1, 9, 4];
const SIGNING_TIME: [u64; 7] = [1, 2, 840, 113549, 1, 9, 5];
/// RFC 5816: which certificate signed, so that no other with the same key can be put in its place.
const SIGNING_CERTIFICATE_V2: [u64; 9] = [1, 2, 840, 113549, 1, 9, 16, 2, 47];
