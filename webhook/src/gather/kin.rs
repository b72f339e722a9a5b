//! What known images say of one: whether it is like others that say they are the same software.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dna::{Cause, Digest, DnaFact, Fact, Kinship};
use lineage::{Among, Kin, Ledger};

use super::flight::{Answer, Flights};

/// Kinships by DNA, and by the repository that an image is called by.
#[derive(Debug)]
pub(super) struct Kinships {
    kin: Option<Kin>,
    kept: Flights<(Digest, String), Kinship>,
}

impl Kinships {
    pub(super) fn new(ledger: Option<Ledger>, bytes: u64) -> Self {
        Self { kin: ledger.map(Kin::new), kept: Flights::new("kinships", bytes, weight) }
    }

    pub(super) async fn of(&self, dna: &Fact<DnaFact>, repository: &str, deadline: Instant) -> Fact<Arc<Kinship>> {
        super::following(dna, |dna| self.of_dna(&dna.digest, repository, deadline)).await
    }

    async fn of_dna(&self, name: &Digest, repository: &str, deadline: Instant) -> Fact<Arc<Kinship>> {
        let Some(kin) = self.kin.clone() else {
            return Fact::unknown(Cause::Ledger, "there is no ledger that knows other images: give one by --ledger");
        };
        let key = (name.clone(), repository.to_owned());
        let (name, repository) = key.clone();
        let make = move || async move { answer(&kin, &name, &repository).await };
        self.kept.get(key, deadline, make).await
    }
}

async fn answer(kin: &Kin, name: &Digest, repository: &str) -> Answer<Kinship> {
    match kin.of(name, repository, Among::Admitted).await {
        Ok(Some(found)) => match found.kinship {
            Some(kinship) => Answer::known(kinship.without_names(), HOLDS),
            None => {
                let detail = format!("{} known images are yet to be read: try again in some seconds", found.waiting);
                Answer::unknown(Cause::AnalysisPending { retry_seconds: Some(5) }, detail)
            }
        },
        Ok(None) => Answer::unknown(Cause::Ledger, format!("the ledger has no DNA {name}")),
        Err(error) => Answer::unknown(Cause::Ledger, error.to_string()),
    }
}

fn weight(kinship: &Kinship) -> u32 {
    u32::try_from(500 + (kinship.unlike.len() + kinship.borrowed.len()) * 700).unwrap_or(u32::MAX)
}

/// Which images are known changes with each that is admitted.
const HOLDS: Duration = Duration::from_secs(60);
