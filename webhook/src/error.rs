//! What keeps the webhook from running.

use std::{io, net::SocketAddr};

/// The webhook cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server ended.
    #[error("cannot serve")]
    Serve {
        /// Why.
        source: io::Error,
    },
    /// Rules that do not load, at start: nothing is in force that could go on.
    #[error("the rules cannot be loaded:\n{}", .0.join("\n"))]
    Rules(Vec<String>),
    /// The API server cannot be found.
    #[error("the cluster cannot be reached: {0}")]
    Cluster(String),
    /// Certificates.
    #[error(transparent)]
    Certificates(#[from] certs::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] lineage::Error),
    /// Limits.
    #[error(transparent)]
    Analyzer(#[from] analyzer::Error),
    /// Metrics are set up twice.
    #[error("metrics cannot be recorded: {0}")]
    Metrics(String),
    /// Where traces go.
    #[error("traces cannot be sent: {0}")]
    Traces(String),
}
