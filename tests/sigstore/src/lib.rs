//! A small Sigstore instance for tests: certificate authority, transparency logs of both versions and time-stamping
//! authority, at a fixed time.
//!
//! ```text
//! Instance ── keyless(identity, issuer) ─┐            ┌─ attest              bundle v0.3, DSSE
//!          └─ keyed(key) ────────────────┴─ Signing ──┼─ sign_blob           bundle v0.3, message signature
//!                      log · timestamp · fault        ├─ legacy_signature    layer of a `.sig` image
//!                                                     └─ legacy_attestation  layer of an `.att` image
//! ```
//!
//! [`Server`] offers the same over HTTP, for clients that sign.
//!
//! What it makes is what a real instance makes, down to canonical log entries, trees with many leaves and promises of
//! certificate transparency; with a [`Fault`] it makes what no honest instance would. Times are fixed; keys, and so all
//! signatures and digests, are fresh in each instance. It is no part of the product and looks at nothing that is: no
//! limits, no checks, panics instead of errors.
//!
//! ```
//! use sigstore_instance::{Fault, Identity, Instance, LogVersion, Statement};
//!
//! let instance = Instance::new();
//! let statement = Statement::new("https://example.com/p/v1", serde_json::json!({})).subject("app", &"00".repeat(32));
//! let signer = instance.keyless(Identity::Email("alice@example.com".into()), "https://accounts.example.com");
//! let accepted = signer.clone().log(LogVersion::V2).timestamped().attest(&statement);
//! let refused = signer.fault(Fault::SetForeignKey).attest(&statement);
//! # assert!(accepted != refused);
//! let trust = instance.trusted_root();
//! ```

mod certificate;
mod der;
mod entry;
mod fault;
mod instance;
mod key;
mod log;
pub mod loopback;
mod server;
mod sign;
mod statement;
mod timestamp;
pub mod tuf;

pub use certificate::Identity;
pub use entry::Entry;
pub use fault::Fault;
pub use instance::{Instance, TIME};
pub use key::{Key, KeyType};
pub use log::LogVersion;
pub use server::{Server, identity_token};
pub use sign::{BUNDLE, IN_TOTO, Layer, Layout, Signing};
pub use statement::{COSIGN_SIGN, COSIGN_TYPE, OTHER_DIGEST, OTHER_PREDICATE, Statement, StatementVersion};
