//! The Kubernetes validating webhook: an AdmissionReview in, a decision out.
//!
//! ```text
//!            ┌ review   the protocol                    cluster  namespaces, secrets, ConfigMaps, platforms
//! server ──► service ─┬─ policies: which rules, what they need      │
//!                     ├─ gather: reference ► digest ► who vouches, DNA, expectation   (by digest, one flight for all)
//!                     ├─ policies: decide, pure
//!                     └─ lineage: what was decided, what containers are bound to, which digests are one image
//! worker ──► what runs already: bound, decided again when rules change, reported        (one replica at a time)
//! ```
//!
//! [`run()`] starts all of it. What was verified is kept by digest; what was decided never is: rules are asked every time.

pub mod cluster;
mod error;
pub mod gather;
mod images;
mod judge;
pub mod listing;
mod packed;
pub mod quarantine;
pub mod review;
mod roots;
pub mod rulebook;
mod run;
mod server;
pub mod service;
pub mod traces;
mod worker;

pub use error::Error;
pub use judge::Judged;
pub use roots::Renewed;
pub use run::{Certificates, Config, recorder, run};
