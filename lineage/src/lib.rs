//! The ledger: what is known of a digest at build, deploy and run.
//!
//! In: DNAs, sealed facts, bindings of containers, decisions, analyses to be done, alerts. Out: the same, by digest, pod or time. It judges
//! nothing and believes nothing: what it keeps is named by its digest, or sealed by who made it.
//!
//! ```text
//! build    dna ◄── subject_dna            which DNA a digest has, by whose word
//!          facts                          verified once, sealed
//!          known_images ── index_images   which digests are one image, where it was seen, who vouches for it
//! deploy   decisions ── decision_images   what was decided, refusals too
//!          bindings ──► expectations      what a container of a pod is held to: all that run time needs
//!          work                           analyses to be done, leased to one replica at a time
//! run      alerts ── alert_audit          what was not expected, and what people did about it
//!          suppressions · blind           what nobody is told of, and what nobody could see
//!          overlays                       what somebody accepted as expected, and signed
//!          notices · checkpoints          what sinks are to be told, and how far a bridge, or a part of a stream, is judged
//!          members                        bridges that are there, where several share a stream
//! ```
//!
//! SQLite for one process (the default), PostgreSQL for several replicas; one schema, one text of SQL, one suite of tests.
//! Admission does not need the ledger: facts are derived again, and what is to be written waits in a [`Recorder`].
//!
//! ```no_run
//! # async fn example() -> Result<(), lineage::Error> {
//! use lineage::{Ledger, Recorder, RecorderOptions};
//!
//! let ledger = Ledger::new("sqlite:/var/lib/mayfly/ledger.db")?;
//! let recorder = Recorder::start(ledger.clone(), &RecorderOptions::new("/var/lib/mayfly/spool"))?;
//! # Ok(())
//! # }
//! ```

mod bindings;
mod build;
mod decisions;
mod document;
mod error;
mod facts;
mod images;
mod kin;
mod ledger;
mod location;
mod record;
mod recorder;
mod retention;
mod runtime;
mod sealed;
mod spool;
mod work;
mod write;

pub use bindings::{BindingRow, Since};
pub use build::{DnaRow, Origin, PAGE, SubjectDna};
pub use decisions::{DecisionQuery, DecisionRow};
pub use document::{Document, MAX_DOCUMENT_BYTES};
pub use error::Error;
pub use facts::{MAX_FACT_BYTES, MAX_KEY_BYTES, SealedFact};
pub use images::ImageRow;
pub use kin::{Among, Kin, Relatives};
pub use ledger::Ledger;
pub use record::{Binding, Decision, DecisionImage, Image, Record, RuleVersion, Verdict};
pub use recorder::{Counts, Recorder, RecorderOptions};
pub use retention::{Keep, Retention, Size};
pub use runtime::{
    Acted, Action, After, AlertHead, AlertQuery, AlertRow, AlertSort, AlertState, AuditRow, BlindRow, Checkpoint,
    Committed, DueNotice, MAX_OVERLAYS, MAX_SUPPRESSIONS, Member, Notice, OverlayRow, Part, ResponseRow, ResponseState,
    Revoked, Scope, Suppression, Telling, Told, UsedRow, WorkloadQuery, WorkloadRow,
};
pub use sealed::{Kept, Seal, Sealed};
pub use work::{Credentials, Enqueued, Lease, MAX_ATTEMPTS, MAX_WAITING, Place, Priority, Work};
