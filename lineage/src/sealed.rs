//! What is kept in the ledger and believed when it comes back: whoever can write there, and has not the key, changes nothing.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use aws_lc_rs::{hmac, rand};
use dna::Digest;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tracing::warn;

use crate::{Error, Ledger, SealedFact};

/// The key by which facts in the ledger are ours.
#[derive(Debug, Clone)]
pub struct Seal(hmac::Key);

impl Seal {
    /// From the bytes of a file, such as a mounted Secret's: all replicas of one ledger need the same.
    ///
    /// # Errors
    /// [`Error::Seal`]: it cannot be read, or is too short to be a key.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |why: String| Error::Seal { path: path.to_owned(), why };
        let mut bytes = Vec::new();
        let opened = fs::File::open(path).and_then(|file| file.take(MAX_KEY_BYTES).read_to_end(&mut bytes));
        opened.map_err(|error| failed(error.to_string()))?;
        if bytes.len() < KEY_BYTES {
            return Err(failed(format!(
                "{} bytes are no key; make one of {KEY_BYTES} random bytes or more",
                bytes.len()
            )));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The same, of a file that is made where it is not there, its folder too.
    ///
    /// # Errors
    /// [`Error::Seal`].
    pub fn kept_in(path: &Path) -> Result<Self, Error> {
        let made = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let mut key = [0; KEY_BYTES];
            rand::fill(&mut key).map_err(|_| std::io::Error::other("there is no randomness"))?;
            // Written whole or not at all: what is there is never half a key.
            let new = path.with_extension("new");
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&key)?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        if !path.exists() {
            made().map_err(|error| Error::Seal { path: path.to_owned(), why: error.to_string() })?;
        }
        Self::read(path)
    }

    fn mac(&self, kind: &str, key: &str, at: Timestamp, sealed: &[u8]) -> Vec<u8> {
        hmac::sign(&self.0, &Self::said(kind, key, at, sealed)).as_ref().to_vec()
    }

    fn holds(&self, kind: &str, key: &str, fact: &SealedFact) -> bool {
        hmac::verify(&self.0, &Self::said(kind, key, fact.fetched_at, &fact.sealed), &fact.mac).is_ok()
    }

    /// Kind, key, time and facts, each of which is fixed in length or says it.
    fn said(kind: &str, key: &str, at: Timestamp, sealed: &[u8]) -> Vec<u8> {
        let mut said = Vec::with_capacity(sealed.len() + 128);
        for part in [kind.as_bytes(), key.as_bytes(), &at.as_millisecond().to_le_bytes(), sealed] {
            said.extend_from_slice(&part.len().to_le_bytes());
            said.extend_from_slice(part);
        }
        said
    }
}

/// Facts of the ledger under our seal.
#[derive(Debug, Clone)]
pub struct Sealed {
    ledger: Ledger,
    seal: Seal,
}

impl Sealed {
    /// Those of a ledger under a seal.
    #[must_use]
    pub const fn new(ledger: Ledger, seal: Seal) -> Self {
        Self { ledger, seal }
    }

    /// Keeps something, as of `at`, unless something later is there.
    ///
    /// # Errors
    /// As of [`Ledger::put_fact`].
    pub async fn put(&self, kind: &str, key: &str, at: Timestamp, sealed: Vec<u8>) -> Result<(), Error> {
        // The ledger keeps milliseconds; the seal must be over what comes back.
        let at = Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at);
        let mac = self.seal.mac(kind, key, at, &sealed);
        self.ledger.put_fact(kind, key, &SealedFact { sealed, mac, fetched_at: at }).await
    }

    /// What was kept, and as of when. What does not have our seal is not used, and forgotten.
    ///
    /// # Errors
    /// As of [`Ledger::fact`].
    pub async fn get(&self, kind: &str, key: &str) -> Result<Option<(Timestamp, Vec<u8>)>, Error> {
        let Some(fact) = self.ledger.fact(kind, key).await? else { return Ok(None) };
        if self.seal.holds(kind, key, &fact) {
            return Ok(Some((fact.fetched_at, fact.sealed)));
        }
        warn!(kind, key, "a fact in the ledger does not have our seal: it is not used, and forgotten");
        self.ledger.forget_fact(kind, key).await?;
        Ok(None)
    }
}

/// The last good version of each of what people write and change, such as rules: a restart forgets none.
#[derive(Debug)]
pub struct Kept {
    sealed: Sealed,
    /// Of their facts.
    kind: &'static str,
    /// What is there, by digest, and since when.
    written: BTreeMap<String, (Digest, Timestamp)>,
}

impl Kept {
    /// Those that are facts of a kind.
    #[must_use]
    pub const fn new(sealed: Sealed, kind: &'static str) -> Self {
        Self { sealed, kind, written: BTreeMap::new() }
    }

    /// What those were that are not good now, as far as anybody kept it.
    ///
    /// # Errors
    /// As of [`Ledger::fact`].
    pub async fn last<K>(&self, all: Vec<K>, name: impl Fn(&K) -> String) -> Result<Vec<(K, Option<Value>)>, Error> {
        let mut last = Vec::new();
        for one in all {
            let found = self.sealed.get(self.kind, &name(&one)).await?;
            last.push((one, found.and_then(|(_, json)| serde_json::from_slice(&json).ok())));
        }
        Ok(last)
    }

    /// Keeps what is good now, by name: what is new, and what would soon be too old for the ledger.
    ///
    /// # Errors
    /// As of [`Ledger::put_fact`].
    pub async fn keep(&mut self, good: BTreeMap<String, Value>, now: Timestamp) -> Result<(), Error> {
        self.written.retain(|name, _| good.contains_key(name));
        for (name, value) in good {
            let json = value.to_string().into_bytes();
            let digest = Digest::sha256(&json);
            let is_there =
                |(written, at): &(Digest, Timestamp)| *written == digest && now.duration_since(*at) < KEEP_AGAIN;
            if self.written.get(&name).is_some_and(is_there) {
                continue;
            }
            self.sealed.put(self.kind, &name, now, json).await?;
            self.written.insert(name, (digest, now));
        }
        Ok(())
    }
}

/// The ledger keeps facts for a week.
const KEEP_AGAIN: SignedDuration = SignedDuration::from_hours(24);

const KEY_BYTES: usize = 32;
const MAX_KEY_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_for_what_it_was_made_for_and_for_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("seal.key");
        let seal = Seal::kept_in(&path).expect("a key");
        let at = Timestamp::from_second(1_800_000_000).expect("a time");
        let fact = SealedFact { sealed: b"[]".to_vec(), mac: seal.mac("a", "k", at, b"[]"), fetched_at: at };
        assert!(Seal::kept_in(&path).expect("the same key").holds("a", "k", &fact), "a key is kept");
        assert!(!seal.holds("a", "l", &fact) && !seal.holds("b", "k", &fact));
        assert!(!seal.holds("a", "k", &SealedFact { sealed: b"[ ]".to_vec(), ..fact.clone() }));
        let later = Timestamp::from_second(1_800_000_001).expect("a time");
        assert!(!seal.holds("a", "k", &SealedFact { fetched_at: later, ..fact.clone() }), "it cannot be made younger");
        let other = Seal::kept_in(&folder.path().join("other")).expect("a key");
        assert!(!other.holds("a", "k", &fact));
        fs::write(folder.path().join("short"), "secret").expect("written");
        assert!(Seal::read(&folder.path().join("short")).expect_err("no key").to_string().contains("6 bytes"));
    }
}
