//! A JSON text as the ledger keeps it: packed by zstd, named by the SHA-256 of its bytes.

use std::{cell::RefCell, fmt, io::Read as _, sync::Arc};

use dna::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zstd::bulk::Compressor;

use crate::Error;

/// A packed JSON text. Packing is done once: copies share the bytes, so that many pods of one expectation cost one packing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    digest: Digest,
    bytes: u64,
    packed: Packed,
}

impl Document {
    /// Packs a text.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`MAX_DOCUMENT_BYTES`].
    pub fn pack(json: &[u8]) -> Result<Self, Error> {
        let bytes = json.len() as u64;
        if bytes > MAX_DOCUMENT_BYTES {
            return Err(Error::TooLarge { what: "a document", bytes, limit: MAX_DOCUMENT_BYTES });
        }
        let packed = PACKER.with_borrow_mut(|packer| match packer {
            Some(packer) => packer.compress(json),
            None => zstd::bulk::compress(json, LEVEL),
        });
        let packed = packed.map_err(|source| Error::Pack { what: "a document", source })?;
        Ok(Self { digest: Digest::sha256(json), bytes, packed: Packed(packed.into()) })
    }

    /// What the ledger kept; it is looked at when it is unpacked.
    pub(crate) fn stored(digest: Digest, bytes: i64, packed: Vec<u8>) -> Self {
        Self { digest, bytes: u64::try_from(bytes).unwrap_or(0), packed: Packed(packed.into()) }
    }

    /// The text, after its digest was checked.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn unpack(&self) -> Result<Vec<u8>, Error> {
        let damaged = |reason: String| Error::Damaged { what: "document", key: self.digest.to_string(), reason };
        let limit = self.bytes.min(MAX_DOCUMENT_BYTES);
        let mut json = Vec::new();
        let reader = zstd::stream::read::Decoder::new(&*self.packed.0).map_err(|error| damaged(error.to_string()))?;
        reader.take(limit + 1).read_to_end(&mut json).map_err(|error| damaged(error.to_string()))?;
        if json.len() as u64 != self.bytes || Digest::sha256(&json) != self.digest {
            return Err(damaged("its digest is another".to_owned()));
        }
        Ok(json)
    }

    /// Its name: the SHA-256 of the text.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes of the text.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is kept of it.
    pub fn packed(&self) -> &[u8] {
        &self.packed.0
    }

    pub(crate) fn stored_bytes(&self) -> i64 {
        i64::try_from(self.bytes).unwrap_or(i64::MAX)
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({}, {} bytes)", self.digest, self.bytes)
    }
}

/// Bytes, written to the spool as bytes and not one by one.
#[derive(Clone, PartialEq, Eq)]
struct Packed(Arc<[u8]>);

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Packed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Packed, E> {
                Ok(Packed(bytes.into()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// The largest text: a DNA of a whole distribution has some 10 MiB.
pub const MAX_DOCUMENT_BYTES: u64 = 64 << 20;
const LEVEL: i32 = 3;

thread_local! {
    /// To make one costs more than to pack a small text.
    static PACKER: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(LEVEL).ok());
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_document_comes_back_and_damage_is_noticed() {
        let json = br#"{"a":1}"#.repeat(1000);
        let document = Document::pack(&json).expect("packed");
        assert!(document.packed().len() < json.len() / 10);
        assert_eq!(document.unpack().expect("unpacked"), json);

        let mut packed = document.packed().to_vec();
        packed[20] ^= 1;
        let damaged = Document::stored(document.digest().clone(), document.stored_bytes(), packed);
        assert!(matches!(damaged.unpack(), Err(Error::Damaged { .. })));
    }

    #[test]
    fn a_document_that_unpacks_to_more_than_it_says_is_refused() {
        let document = Document::pack(&[b' '; 100_000]).expect("packed");
        let shorter = Document::stored(document.digest().clone(), 10, document.packed().to_vec());
        assert!(matches!(shorter.unpack(), Err(Error::Damaged { .. })));
    }
}
