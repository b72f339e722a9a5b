//! Serving certificates: where they come from, how they change, and who is told to trust them.
//!
//! In: a Secret to share with other replicas, or mounted files. Out: a [`rustls::ServerConfig`] whose certificate changes without a
//! restart, and the `caBundle` of the webhook configurations. It listens nowhere; [`Patiently`] is for those who do.
//!
//! ```text
//! Secret ──read, step, write──► Authority ──leaf──► Serving ──► handshakes
//!                                   └──────bundle─► ValidatingWebhookConfiguration
//! files  ──read───────────────► Pair ──────────────► Serving
//! ```
//!
//! ```no_run
//! use certs::{FileSource, Serving, ServingOptions, Source, run};
//!
//! # async fn example(shutdown: impl Future<Output = ()>) -> Result<(), certs::Error> {
//! let serving = Serving::new(&ServingOptions::default())?;
//! let tls = serving.config();
//! run(Source::Files(FileSource::folder("/etc/mayfly/tls".as_ref())), serving, shutdown).await;
//! # Ok(())
//! # }
//! ```

mod authority;
mod error;
mod files;
mod pair;
mod patient;
#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod probe;
mod run;
mod secret;
mod serving;

pub use authority::{Authority, Lifetimes, Step};
pub use error::Error;
pub use files::FileSource;
pub use pair::Pair;
pub use patient::{Patient, Patiently};
pub use run::{Source, run, run_every};
pub use secret::SecretSource;
pub use serving::{Provider, Serving, ServingOptions, Status};
