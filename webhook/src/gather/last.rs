//! What was known of an image the last time everything about it was: for rules that let it count while a registry does not answer.
//!
//! It is kept by who asked and for whom, in memory and, sealed, in the ledger: whoever can write to the ledger cannot make an image
//! signed.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{hmac, rand};
use dna::{AttestationFact, Digest, DnaFact, DnaSource, Fact, Last, Resolved, SignatureFact, SubjectFacts};
use jiff::Timestamp;
use lineage::{Ledger, SealedFact};
use moka::future::Cache;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::{Known, known};
use crate::Error;

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

    /// The same, of a file that is made where it is not there.
    ///
    /// # Errors
    /// [`Error::Seal`].
    pub fn kept_in(path: &Path) -> Result<Self, Error> {
        let made = || {
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

    fn mac(&self, key: &str, at: Timestamp, sealed: &[u8]) -> Vec<u8> {
        hmac::sign(&self.0, &Self::said(key, at, sealed)).as_ref().to_vec()
    }

    fn holds(&self, key: &str, fact: &SealedFact) -> bool {
        hmac::verify(&self.0, &Self::said(key, fact.fetched_at, &fact.sealed), &fact.mac).is_ok()
    }

    /// Kind, key, time and facts, each of which is fixed in length or says it.
    fn said(key: &str, at: Timestamp, sealed: &[u8]) -> Vec<u8> {
        let mut said = Vec::with_capacity(sealed.len() + 128);
        for part in [KIND.as_bytes(), key.as_bytes(), &at.as_millisecond().to_le_bytes(), sealed] {
            said.extend_from_slice(&part.len().to_le_bytes());
            said.extend_from_slice(part);
        }
        said
    }
}

/// What was known, by who asked and for what.
#[derive(Debug)]
pub(super) struct Lasts {
    kept: Cache<Digest, Arc<Kept>>,
    beyond: Option<(Ledger, Seal)>,
}

#[derive(Debug)]
struct Kept {
    at: Timestamp,
    since: Instant,
    records: Vec<Record>,
}

/// One image, for one platform. Its DNA is in the ledger by its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    resolved: Resolved,
    signers: BTreeSet<String>,
    signatures: Option<Vec<SignatureFact>>,
    attestations: Option<Vec<AttestationFact>>,
    dna: Option<(Digest, DnaSource)>,
}

impl Lasts {
    pub(super) fn new(beyond: Option<(Ledger, Seal)>, bytes: u64) -> Self {
        let weigh =
            |_: &Digest, kept: &Arc<Kept>| kept.records.iter().map(Record::weight).fold(200, u32::saturating_add);
        Self { kept: Cache::builder().max_capacity(bytes).weigher(weigh).time_to_live(HOLDS).build(), beyond }
    }

    /// Keeps what is wholly known; of what is not, adds what was. The facts are of one reference, for all its platforms.
    pub(super) async fn settle(
        &self,
        key: Digest,
        facts: Vec<SubjectFacts>,
        known: &Known,
        deadline: Instant,
    ) -> Vec<SubjectFacts> {
        if facts.iter().all(is_whole) {
            self.keep(key, &facts).await;
            return facts;
        }
        if !facts.iter().any(is_unanswered) {
            return facts;
        }
        match self.last(&key).await {
            Some(kept) => recall(&kept, facts, known, deadline).await,
            None => facts,
        }
    }

    async fn keep(&self, key: Digest, facts: &[SubjectFacts]) {
        let before = self.kept.get(&key).await;
        if before.as_ref().is_some_and(|kept| kept.since.elapsed() < KEEP_AGAIN) {
            return;
        }
        let records: Vec<Record> = facts.iter().filter_map(Record::of).collect();
        let kept = Arc::new(Kept { at: Timestamp::now(), since: Instant::now(), records });
        self.kept.insert(key.clone(), Arc::clone(&kept)).await;
        let Some((ledger, seal)) = self.beyond.clone() else { return };
        tokio::spawn(async move {
            let Ok(sealed) = serde_json::to_vec(&kept.records) else { return };
            // The ledger keeps milliseconds; the seal must be over what comes back.
            let Ok(at) = Timestamp::from_millisecond(kept.at.as_millisecond()) else { return };
            let mac = seal.mac(key.as_str(), at, &sealed);
            let fact = SealedFact { sealed, mac, fetched_at: at };
            if let Err(error) = ledger.put_fact(KIND, key.as_str(), &fact).await {
                debug!(%error, "what is known of an image is not kept for later");
            }
        });
    }

    async fn last(&self, key: &Digest) -> Option<Arc<Kept>> {
        if let Some(kept) = self.kept.get(key).await {
            return Some(kept);
        }
        let (ledger, seal) = self.beyond.as_ref()?;
        let fact = ledger.fact(KIND, key.as_str()).await.ok()??;
        if !seal.holds(key.as_str(), &fact) {
            warn!(key = %key, "a fact in the ledger does not have our seal: it is not used, and forgotten");
            let _ = ledger.forget_fact(KIND, key.as_str()).await;
            return None;
        }
        let records = serde_json::from_slice(&fact.sealed).ok()?;
        let kept = Arc::new(Kept { at: fact.fetched_at, since: Instant::now(), records });
        self.kept.insert(key.clone(), Arc::clone(&kept)).await;
        Some(kept)
    }
}

impl Record {
    fn of(facts: &SubjectFacts) -> Option<Self> {
        Some(Self {
            resolved: facts.resolved.known()?.clone(),
            signers: facts.signers.clone(),
            signatures: facts.signatures.known().cloned(),
            attestations: facts.attestations.known().cloned(),
            dna: facts.dna.known().map(|dna| (dna.digest.clone(), dna.from.clone())),
        })
    }

    /// Bytes of memory, roughly; predicates are shared with what else is kept.
    fn weight(&self) -> u32 {
        let proofs = self.signatures.as_ref().map_or(0, Vec::len) + self.attestations.as_ref().map_or(0, Vec::len);
        let labels = self.resolved.config.labels.len() + self.resolved.config.cmd.len();
        u32::try_from(900 + proofs * 900 + labels * 120).unwrap_or(u32::MAX)
    }
}

/// Whether everything that was asked is known.
fn is_whole(facts: &SubjectFacts) -> bool {
    fn answered<T>(fact: &Fact<T>) -> bool {
        match fact {
            Fact::Known(_) => true,
            Fact::Absent { .. } => false,
            Fact::Unknown { cause, .. } => *cause == dna::Cause::NotAsked,
        }
    }
    facts.resolved.known().is_some()
        && facts.gaps.is_empty()
        && answered(&facts.signatures)
        && answered(&facts.attestations)
        && answered(&facts.dna)
}

/// Whether something was asked and not answered.
fn is_unanswered(facts: &SubjectFacts) -> bool {
    fn of<T>(fact: &Fact<T>) -> bool {
        matches!(fact, Fact::Unknown { cause, .. } if *cause != dna::Cause::NotAsked)
    }
    of(&facts.resolved) || of(&facts.signatures) || of(&facts.attestations) || of(&facts.dna)
}

/// Adds what was known to what is not.
async fn recall(kept: &Kept, facts: Vec<SubjectFacts>, known: &Known, deadline: Instant) -> Vec<SubjectFacts> {
    let as_of = kept.at.to_string();
    let mut told = Vec::new();
    for one in facts {
        // Of what is not resolved there is one for all platforms; what is resolved is only what it was if its digest is.
        let records: Vec<&Record> = match one.resolved.known() {
            Some(resolved) => kept.records.iter().filter(|record| record.resolved == *resolved).collect(),
            None => kept.records.iter().collect(),
        };
        if records.is_empty() || !is_unanswered(&one) {
            told.push(one);
            continue;
        }
        for record in records {
            let mut one = one.clone();
            one.signers.clone_from(&record.signers);
            add(&mut one.resolved, || Some(record.resolved.clone()), &as_of);
            add(&mut one.signatures, || record.signatures.clone(), &as_of);
            add(&mut one.attestations, || record.attestations.clone(), &as_of);
            if is_open(&one.dna)
                && let Some((digest, from)) = &record.dna
                && let Fact::Known(whole) = known.whole(digest, deadline).await
            {
                let document = Arc::new(known::abridged(&whole));
                let fact = DnaFact { digest: digest.clone(), from: from.clone(), document, abridged: true };
                add(&mut one.dna, || Some(fact), &as_of);
            }
            told.push(one);
        }
    }
    told
}

fn is_open<T>(fact: &Fact<T>) -> bool {
    matches!(fact, Fact::Unknown { cause, last: None, .. } if *cause != dna::Cause::NotAsked)
}

fn add<T>(fact: &mut Fact<T>, value: impl FnOnce() -> Option<T>, as_of: &str) {
    if is_open(fact)
        && let Fact::Unknown { last, .. } = fact
    {
        *last = value().map(|value| Last { value, as_of: as_of.to_owned() });
    }
}

const KIND: &str = "subject";
const KEY_BYTES: usize = 32;
const MAX_KEY_BYTES: u64 = 4096;

/// What stays the same is written again after so long, so that its age is right.
const KEEP_AGAIN: Duration = Duration::from_secs(60);

/// In memory; in the ledger as long as that keeps facts.
const HOLDS: Duration = Duration::from_secs(7 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_for_what_it_was_made_for_and_for_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("seal.key");
        let seal = Seal::kept_in(&path).expect("a key");
        let at = Timestamp::from_second(1_800_000_000).expect("a time");
        let fact = SealedFact { sealed: b"[]".to_vec(), mac: seal.mac("k", at, b"[]"), fetched_at: at };
        assert!(Seal::kept_in(&path).expect("the same key").holds("k", &fact), "a key is kept");
        assert!(!seal.holds("l", &fact));
        assert!(!seal.holds("k", &SealedFact { sealed: b"[ ]".to_vec(), ..fact.clone() }));
        let later = Timestamp::from_second(1_800_000_001).expect("a time");
        assert!(!seal.holds("k", &SealedFact { fetched_at: later, ..fact.clone() }), "it cannot be made younger");
        let other = Seal::kept_in(&folder.path().join("other")).expect("a key");
        assert!(!other.holds("k", &fact));
        fs::write(folder.path().join("short"), "secret").expect("written");
        assert!(Seal::read(&folder.path().join("short")).expect_err("no key").to_string().contains("6 bytes"));
    }
}
