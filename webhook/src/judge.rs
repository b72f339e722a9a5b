//! One object judged without an API server: the same steps as a review, for whoever has a manifest.

use std::time::Instant;

use dna::PodSpec;
use jiff::Timestamp;
use policies::{Decision, Review};

use crate::{rulebook, service::Service};

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
        let matching = book.rules.matching(&review);
        let Some(spec) = book.rules.pod_spec(&review.request.kind, &review.object) else { return Ok(Judged::NotAsked) };
        if matching.is_empty() {
            return Ok(Judged::NotAsked);
        }
        let spec = PodSpec::read(spec).map_err(|error| error.to_string())?;
        let needs = rulebook::needs(&matching, &spec, &review);
        let namespace = review.request.namespace.clone();
        review.subjects = self.gather(&namespace, &spec, &needs, &book, deadline).await?;
        let decision = policies::decide(&review, &book.rules, Timestamp::now());
        Ok(Judged::Decided(Box::new(review), Box::new(decision)))
    }
}
