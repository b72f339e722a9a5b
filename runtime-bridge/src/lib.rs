//! Live behavior against the prediction, from the first event.
//!
//! ```text
//! POST ─door─┐
//! file ─tail─┤
//! gRPC ─pull─┴─► log, on disk (or JetStream, where bridges share events) ─► 200
//!                 └─► sensor's bytes
//!
//! sensor's bytes ─sensor─► Told ─► Activity ─identity─► container, digest ─► Expected
//!                           │                                                  │
//!                           │        history, overlays ─► Standing ─compare─► Deviation ─rules, collate─► Alert
//!                           └► Call (who ran kubectl exec) · Loss (when a sensor was blind)
//! ```
//!
//! What is news of an alert goes to [`sinks`].
//!
//! Reading order: `dna::Activity`, then `sensor`, then `compare`.

pub mod alert;
pub mod api;
pub mod bound;
pub mod bridge;
mod compare;
pub mod desk;
pub mod door;
pub mod draft;
pub mod engine;
pub mod evidence;
mod expected;
pub mod explain;
pub mod grounds;
mod history;
pub mod holding;
pub mod identity;
pub mod incident;
pub mod incidents;
pub mod known;
pub mod limits;
pub mod log;
mod names;
pub mod order;
pub mod outbox;
pub mod overlays;
pub mod pull;
pub mod replay;
pub mod response;
pub mod risk;
pub mod rules;
pub mod run;
mod sensitive;
pub mod sensor;
pub mod settings;
pub mod shelf;
pub mod sinks;
pub mod snapshot;
pub mod stored;
pub mod stream;
pub mod tail;
mod text;
pub mod usage;
pub mod used;
pub mod watch;

pub use compare::{Judged, compare, judge, judge_accepting};
pub use dna::{Class, Deviation, Driver};
pub use expected::{Expected, Node, Wanted};
pub use history::{History, Line, Phase, Standing};

/// Whether a field says nothing: 0, or what its type begins with. For `serde`.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
