//! How far an analysis is, and whether its time is up. Shared by all threads; a front end may poll it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use dna::Limits;

use crate::Error;

/// Counts what was read, and holds the deadline.
#[derive(Debug)]
pub struct Progress {
    compressed: AtomicU64,
    uncompressed: AtomicU64,
    entries: AtomicU64,
    start: Instant,
    seconds: u64,
}

impl Progress {
    /// Starts the clock.
    pub fn start(limits: &Limits) -> Self {
        Self {
            compressed: AtomicU64::new(0),
            uncompressed: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            start: Instant::now(),
            seconds: limits.analysis_seconds,
        }
    }

    /// Bytes of layer blobs read so far.
    pub fn bytes(&self) -> u64 {
        self.compressed.load(Ordering::Relaxed)
    }

    /// Fails when the time is up.
    ///
    /// # Errors
    /// [`Error::Time`].
    pub fn check(&self) -> Result<(), Error> {
        if self.start.elapsed() > Duration::from_secs(self.seconds) {
            return Err(Error::Time { seconds: self.seconds });
        }
        Ok(())
    }

    /// Ends a step: says at which second of the analysis, and fails when the time is up.
    pub(crate) fn done(&self, step: &str) -> Result<(), Error> {
        tracing::debug!(
            step,
            milliseconds = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            "done"
        );
        self.check()
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.compressed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds to the uncompressed bytes of all layers; gives their sum.
    pub(crate) fn add_uncompressed(&self, bytes: u64) -> u64 {
        self.uncompressed.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes)
    }

    /// Counts entries; gives the sum over all layers.
    pub(crate) fn add_entries(&self, count: u64) -> u64 {
        self.entries.fetch_add(count, Ordering::Relaxed).saturating_add(count)
    }

    /// Counts from zero again, on the same clock.
    pub(crate) fn begin_again(&self) {
        for count in [&self.compressed, &self.uncompressed, &self.entries] {
            count.store(0, Ordering::Relaxed);
        }
    }
}
