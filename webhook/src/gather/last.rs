//! What was known of an image the last time everything about it was: for rules that let it count while a registry does not answer.
//!
//! It is kept by who asked and for whom, in memory and, sealed, in the ledger: whoever can write to the ledger cannot make an image
//! signed.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use dna::{AttestationFact, Digest, DnaFact, DnaSource, Fact, Last, Resolved, SignatureFact, SubjectFacts};
use jiff::Timestamp;
use lineage::Sealed;
use moka::future::Cache;
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{Known, known};

/// What was known, by who asked and for what.
#[derive(Debug)]
pub(super) struct Lasts {
    kept: Cache<Digest, Arc<Kept>>,
    beyond: Option<Sealed>,
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
    pub(super) fn new(beyond: Option<Sealed>, bytes: u64) -> Self {
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
        let Some(sealed) = self.beyond.clone() else { return };
        tokio::spawn(async move {
            let Ok(records) = serde_json::to_vec(&kept.records) else { return };
            if let Err(error) = sealed.put(KIND, key.as_str(), kept.at, records).await {
                debug!(%error, "what is known of an image is not kept for later");
            }
        });
    }

    async fn last(&self, key: &Digest) -> Option<Arc<Kept>> {
        if let Some(kept) = self.kept.get(key).await {
            return Some(kept);
        }
        let (at, records) = self.beyond.as_ref()?.get(KIND, key.as_str()).await.ok()??;
        let records = serde_json::from_slice(&records).ok()?;
        let kept = Arc::new(Kept { at, since: Instant::now(), records });
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
pub(super) fn is_whole(facts: &SubjectFacts) -> bool {
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

/// What stays the same is written again after so long, so that its age is right.
const KEEP_AGAIN: Duration = Duration::from_secs(60);

/// In memory; in the ledger as long as that keeps facts.
const HOLDS: Duration = Duration::from_secs(7 * 24 * 3600);
