//! How far a transfer is: counters that the transfer writes and a progress bar reads, whenever it likes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of compressed layers to fetch and fetched, over all images of one [`open`](crate::open). Bytes that a retry
/// fetches again count once; what the cache had counts as fetched.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// Bytes to fetch, as far as is known yet.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Bytes fetched.
    pub fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    #[cfg(feature = "registry")]
    pub(crate) fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Relaxed);
    }

    #[cfg(feature = "registry")]
    pub(crate) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }

    /// Takes back what has to be fetched again.
    #[cfg(feature = "registry")]
    pub(crate) fn again(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Relaxed);
    }
}
