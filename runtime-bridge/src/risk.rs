//! How likely a deviation is an attack, learned from labeled streams.
//!
//! ```text
//! Deviation + Scene (DNA, ancestry, phase) + Earlier (workload, other containers) ─features─► numbers ─Model─► probability, drivers
//! ```
//!
//! The rules' risk is one of the features; without a model, and for classes that the model has seen nothing of, it stays as it is. Training
//! is `accuracy risk`; docs/risk.md has the data and the figures.

mod features;
mod model;
mod past;

use std::sync::Arc;

use jiff::Timestamp;

pub use features::{COUNT, Features, NAMES, Scene, features};
pub use model::{Data, Figures, Model, ModelError, Node, odds};
pub use past::{Earlier, Past, Whose};

use crate::Deviation;

/// A risk as it is told, of an incident as of an alert: in millionths, as the ledger has it.
#[must_use]
pub fn told(risk: f64) -> f64 {
    (risk * 1e6).round() / 1e6
}

/// Ranks deviations, in the order in which they happen.
#[derive(Debug, Default)]
pub struct Ranking {
    model: Option<Arc<Model>>,
    past: Past,
}

impl Ranking {
    /// By a model, or by rules alone.
    #[must_use]
    pub fn new(model: Option<Arc<Model>>) -> Self {
        Self { model, past: Past::default() }
    }

    /// Knows a container, whether or not it ever deviates.
    pub fn meet(&mut self, whose: Whose, at: Timestamp) {
        self.past.meet(whose, at);
    }

    /// Gives each deviation of an act the model's probability, and keeps it for those that follow.
    pub fn rank(&mut self, whose: Whose, scene: &Scene, deviations: &mut [Deviation], at: Timestamp) {
        let Some(model) = &self.model else { return };
        for deviation in deviations {
            let features = observe(&mut self.past, whose, scene, deviation, at);
            if model.knows(deviation.class) {
                deviation.risk = model.probability(&features);
                deviation.drivers = model.explain(&features);
            }
        }
    }
}

/// The features of a deviation ranked by rules, which is kept for those that follow.
pub fn observe(past: &mut Past, whose: Whose, scene: &Scene, deviation: &Deviation, at: Timestamp) -> Features {
    let earlier = past.earlier(whose, deviation, at);
    past.keep(whose, deviation, at);
    features(deviation, scene, &earlier)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
