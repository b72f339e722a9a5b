//! Expectations as the ledger keeps them: many pods share one, which is packed once.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use dna::Expectation;
use lineage::Document;

/// The last expectations that were packed.
#[derive(Default)]
pub(crate) struct Packed(Mutex<VecDeque<(Arc<Expectation>, Document)>>);

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed").finish_non_exhaustive()
    }
}

impl Packed {
    /// The document of an expectation; none of one that is too large for the ledger.
    pub(crate) fn document(&self, expectation: &Arc<Expectation>) -> Option<Document> {
        let found = |kept: &VecDeque<(Arc<Expectation>, Document)>| {
            kept.iter().find(|(one, _)| Arc::ptr_eq(one, expectation)).map(|(_, document)| document.clone())
        };
        if let Some(document) = found(&self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Some(document);
        }
        let document = Document::pack(&dna::canonical_json(expectation.as_ref()).ok()?).ok()?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((Arc::clone(expectation), document.clone()));
        if kept.len() > KEPT {
            kept.pop_front();
        }
        Some(document)
    }
}

/// Expectations kept: as many as images that come in a burst together.
const KEPT: usize = 32;
