//! What can go wrong with certificates.

use std::{io, path::PathBuf};

/// A failure of certificates; none holds a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was read is no certificate, no key, or they do not belong together.
    #[error("{place}: {reason}")]
    Pair {
        /// Where it was read.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A certificate cannot be issued.
    #[error("issuing a certificate for {name}")]
    Issue {
        /// Whom it was for.
        name: String,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// The TLS settings contradict each other.
    #[error("setting up TLS")]
    Tls(#[from] rustls::Error),
    /// The API server refused or cannot be reached.
    #[error("{what}")]
    Kubernetes {
        /// What was asked, and the right it takes.
        what: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// Others changed an object again and again while we wanted to.
    #[error("{what}: others changed it {attempts} times meanwhile; it is tried again")]
    Conflict {
        /// The object.
        what: String,
        /// How often.
        attempts: u32,
    },
}
