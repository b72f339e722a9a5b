//! What the ledger's DNAs say of one: its family, and what is unlike it. The DNAs are read once, some at a time; what is kept of each is small.
//! The comparison is [`dna::kinship`]'s.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use dna::{Digest, Dna, Kinship, Relative, Traits, kinship};
use moka::future::Cache;

use crate::{Error, Ledger};

/// Holds DNAs against the latest of the ledger.
#[derive(Debug, Clone)]
pub struct Kin {
    ledger: Ledger,
    /// By DNA; none where it is gone, or of another version.
    traits: Cache<Digest, Option<Arc<Traits>>>,
}

/// Which images are known ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// All whose DNA the ledger has.
    All,
    /// Those that a pod was admitted with: what was refused must not be a witness for the next one like it.
    Admitted,
}

/// What was found.
#[derive(Debug)]
pub struct Relatives {
    /// Absent while DNAs wait: without all of them what is known elsewhere would look strange.
    pub kinship: Option<Kinship>,
    /// The DNAs that were looked at.
    pub looked_at: u64,
    /// Those that are yet to be read.
    pub waiting: u64,
}

impl Kin {
    /// Of a ledger.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, traits: Cache::new(MOST_KEPT) }
    }

    /// What the latest DNAs say of this one, which was read from that repository; none where it is gone.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn of(&self, name: &Digest, repository: &str, among: Among) -> Result<Option<Relatives>, Error> {
        let begun = Instant::now();
        let Some(own) = self.read(name).await? else { return Ok(None) };
        let (mut seen, mut known, mut waiting) = (BTreeSet::from([name.clone()]), Vec::new(), 0);
        for (subject, repository, dna) in self.ledger.latest_dnas(among, MOST_LINKS).await? {
            if seen.len() > MOST_KNOWN || !seen.insert(dna.clone()) {
                continue;
            }
            // What is kept costs nothing; the rest is read as long as an answer may take.
            let traits = match self.traits.get(&dna).await {
                Some(kept) => kept,
                None if begun.elapsed() > PATIENCE => {
                    waiting += 1;
                    continue;
                }
                None => self.read(&dna).await?,
            };
            if let Some(traits) = traits {
                known.push(Relative {
                    name: format!("{repository}@{subject}"),
                    traits: traits.in_repository(&repository),
                });
            }
        }
        let looked_at = known.len() as u64;
        let own = own.in_repository(repository);
        let kinship = match waiting {
            0 => tokio::task::spawn_blocking(move || kinship(&own, &known)).await.ok(),
            _ => None,
        };
        Ok(Some(Relatives { kinship, looked_at, waiting }))
    }

    async fn read(&self, name: &Digest) -> Result<Option<Arc<Traits>>, Error> {
        if let Some(kept) = self.traits.get(name).await {
            return Ok(kept);
        }
        let json = self.ledger.dna(name).await?;
        let reading = tokio::task::spawn_blocking(move || {
            let dna = Dna::from_json(&json?).ok()?;
            Some(Arc::new(Traits::of(&dna, None)))
        });
        let traits = reading.await.ok().flatten();
        self.traits.insert(name.clone(), traits.clone()).await;
        Ok(traits)
    }
}

/// Rows of the ledger that are looked at, and the DNAs among them.
const MOST_LINKS: u32 = 1000;
const MOST_KNOWN: usize = 256;
/// Of some twenty kilobytes.
const MOST_KEPT: u64 = 512;
/// How long DNAs are read for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
