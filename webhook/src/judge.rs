//! Objects judged without an API server's asking: the same steps as a review, for whoever has a manifest, or a request of the past.

use std::time::Instant;

use jiff::Timestamp;
use policies::{Decision, Review};

use crate::service::{Considered, Service};

/// What became of an object.
#[derive(Debug)]
pub enum Judged {
    /// No rule is about it, or it has no pod.
    NotAsked,
    /// It was decided.
    Decided(Box<Review>, Box<Decision>),
}

impl Service {
    /// Gathers what the rules need to know by `deadline`, and decides.
    ///
    /// # Errors
    /// Why it cannot be judged, for people.
    pub async fn judge(&self, mut review: Review, deadline: Instant) -> Result<Judged, String> {
        let book = self.rulebook.load_full().ok_or(NO_RULES)?;
        match self.consider(&book, &mut review, deadline).await {
            Considered::Passed(_) => Ok(Judged::NotAsked),
            Considered::Unreadable { why, .. } | Considered::Failed(why) => Err(why),
            Considered::Decided { decision, .. } => Ok(Judged::Decided(Box::new(review), decision)),
        }
    }

    /// Decides a request of the past by the rules of now: nothing is answered, told or recorded. Of the review everything but its facts is given;
    /// they are added.
    ///
    /// # Errors
    /// There are no rules yet.
    pub async fn replay(&self, review: &mut Review, deadline: Instant) -> Result<Considered, String> {
        if let Some(why) = self.passes(review) {
            return Ok(Considered::Passed(why));
        }
        let book = self.rulebook.load_full().ok_or(NO_RULES)?;
        Ok(self.consider(&book, review, deadline).await)
    }

    /// Decides once more what was gathered already, as in another namespace.
    #[must_use]
    pub fn decide_again(&self, review: &Review) -> Option<Decision> {
        let book = self.rulebook.load_full()?;
        Some(self.decide(review, &book, Timestamp::now()))
    }
}

const NO_RULES: &str = "there are no rules yet";
