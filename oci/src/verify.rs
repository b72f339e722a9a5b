//! Bytes against the digest and size they were asked for by: a [`Verifier`] takes them as they come.

use dna::Digest;
use sha2::Digest as _;

use crate::{Error, manifest::Descriptor};

/// Hashes bytes and compares them with a descriptor in the end.
#[derive(Debug, Clone)]
pub(crate) struct Verifier {
    hasher: Hasher,
    expected: Digest,
    size: u64,
    seen: u64,
}

#[derive(Debug, Clone)]
enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Verifier {
    pub(crate) fn new(descriptor: &Descriptor) -> Self {
        let hasher = match descriptor.digest.algorithm() {
            "sha512" => Hasher::Sha512(sha2::Sha512::new()),
            _ => Hasher::Sha256(sha2::Sha256::new()),
        };
        Self { hasher, expected: descriptor.digest.clone(), size: descriptor.size, seen: 0 }
    }

    /// Bytes taken so far.
    #[cfg(feature = "registry")]
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Error::Size`] as soon as there are more than the descriptor says, so that nothing endless is read or stored.
    pub(crate) fn update(&mut self, bytes: &[u8], what: &str) -> Result<(), Error> {
        self.seen = self.seen.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.seen > self.size {
            return Err(Error::Size { what: what.to_owned(), expected: self.size, actual: self.seen });
        }
        match &mut self.hasher {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
        Ok(())
    }

    /// Compares.
    ///
    /// # Errors
    /// [`Error::Size`] where bytes are missing, [`Error::Digest`] where they are others.
    pub(crate) fn finish(self, what: &str) -> Result<(), Error> {
        if self.seen != self.size {
            return Err(Error::Size { what: what.to_owned(), expected: self.size, actual: self.seen });
        }
        let actual = match self.hasher {
            Hasher::Sha256(hasher) => Digest::from_sha256(hasher.finalize().into()),
            Hasher::Sha512(hasher) => Digest::from_sha512(hasher.finalize().into()),
        };
        if actual == self.expected {
            return Ok(());
        }
        Err(Error::Digest { what: what.to_owned(), expected: self.expected, actual })
    }
}

/// Compares bytes that are there as a whole.
pub(crate) fn verify(bytes: &[u8], descriptor: &Descriptor, what: &str) -> Result<(), Error> {
    let mut verifier = Verifier::new(descriptor);
    verifier.update(bytes, what)?;
    verifier.finish(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_algorithms_are_compared_to_the_last_byte() {
        for digest in [Digest::sha256(b"mayfly"), Digest::from_sha512(sha2::Sha512::digest(b"mayfly").into())] {
            let descriptor = Descriptor::new("", digest, 6);
            assert!(verify(b"mayfly", &descriptor, "x").is_ok());
            assert!(matches!(verify(b"mayflx", &descriptor, "x"), Err(Error::Digest { .. })));
            assert!(matches!(verify(b"mayfl", &descriptor, "x"), Err(Error::Size { actual: 5, .. })));
            assert!(matches!(verify(b"mayfly!", &descriptor, "x"), Err(Error::Size { actual: 7, .. })));
        }
    }
}
