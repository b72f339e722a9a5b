//! How many requests went out, and what became of them: for metrics, and to see what a change costs.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Counts of HTTP requests by [`RequestKind`] and [`Outcome`]; clones count together. Attempts count one by one, redirects
/// do not.
#[derive(Clone, Default)]
pub struct Requests(Arc<[[AtomicU64; Outcome::ALL.len()]; RequestKind::ALL.len()]>);

impl Requests {
    /// What was counted so far, without zeros.
    pub fn counts(&self) -> Vec<(RequestKind, Outcome, u64)> {
        let kinds = RequestKind::ALL.into_iter().zip(self.0.iter());
        let all = kinds.flat_map(|(kind, row)| {
            Outcome::ALL.into_iter().zip(row).map(move |(outcome, n)| (kind, outcome, n.load(Ordering::Relaxed)))
        });
        all.filter(|(_, _, count)| *count > 0).collect()
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.counts().iter().map(|(_, _, count)| count).sum()
    }

    pub(super) fn count(&self, kind: RequestKind, outcome: Outcome) {
        if let Some(cell) = self.0.get(kind as usize).and_then(|row| row.get(outcome as usize)) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.counts()).finish()
    }
}

/// Any two are equal: what was counted is no setting.
impl PartialEq for Requests {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Requests {}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RequestKind {
    /// A manifest's digest, or whether a blob is there.
    Head,
    /// A manifest or index.
    Manifest,
    /// A blob.
    Blob,
    /// The referrers API.
    Referrers,
    /// A step of an upload.
    Upload,
    /// A manifest to delete.
    Delete,
    /// A token, or credentials of a cloud.
    Token,
    /// The Docker daemon.
    Daemon,
}

impl RequestKind {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Head,
        Self::Manifest,
        Self::Blob,
        Self::Referrers,
        Self::Upload,
        Self::Delete,
        Self::Token,
        Self::Daemon,
    ];

    /// Its name as a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Referrers => "referrers",
            Self::Upload => "upload",
            Self::Delete => "delete",
            Self::Token => "token",
            Self::Daemon => "daemon",
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// 2xx.
    Success,
    /// 404.
    Missing,
    /// 401 or 403. The first 401 of a registry that asks for a token is one.
    Denied,
    /// 429.
    Throttled,
    /// 5xx.
    ServerError,
    /// Another status.
    Other,
    /// No answer: no connection, no TLS, no time.
    Failed,
}

impl Outcome {
    /// All of them, in order.
    pub const ALL: [Self; 7] =
        [Self::Success, Self::Missing, Self::Denied, Self::Throttled, Self::ServerError, Self::Other, Self::Failed];

    /// Its name as a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Missing => "missing",
            Self::Denied => "denied",
            Self::Throttled => "throttled",
            Self::ServerError => "server_error",
            Self::Other => "other",
            Self::Failed => "failed",
        }
    }

    pub(super) fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Success,
            404 => Self::Missing,
            401 | 403 => Self::Denied,
            429 => Self::Throttled,
            500..=599 => Self::ServerError,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_outcome_has_its_own_cell() {
        let requests = Requests::default();
        for (at, kind) in RequestKind::ALL.into_iter().enumerate() {
            for (nth, outcome) in Outcome::ALL.into_iter().enumerate() {
                assert_eq!((kind as usize, outcome as usize), (at, nth), "{} {}", kind.name(), outcome.name());
                requests.clone().count(kind, outcome);
            }
        }
        assert_eq!(requests.counts().len(), RequestKind::ALL.len() * Outcome::ALL.len());
        assert!(requests.counts().iter().all(|(_, _, count)| *count == 1));
    }
}
