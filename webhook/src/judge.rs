//! One object judged without an API server: the same steps as a review, for whoever has a manifest.

use std::time::Instant;

use policies::{Decision, Review};

use crate::service::{Service, Weighed};

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
        let book = self.rulebook.load_full().ok_or("there are no rules yet")?;
        match self.weigh(&book, &mut review, deadline).await {
            Weighed::Passed(_) => Ok(Judged::NotAsked),
            Weighed::Unreadable { why, .. } | Weighed::Later(why) => Err(why),
            Weighed::Decided(decision, _) => Ok(Judged::Decided(Box::new(review), Box::new(decision))),
        }
    }
}
