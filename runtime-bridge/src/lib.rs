//! Live behavior against the prediction, from the first event.
//!
//! ```text
//! POST ─door─┐
//! file ─tail─┴─► log, on disk ─► 200
//!                 └─► sensor's bytes
//!
//! sensor's bytes ─sensor─► Told ─► Activity ─identity─► container, digest ─► Expected
//!                           │                                                  │
//!                           │                 history ─► Standing ─compare─► Deviation ─collate─► Alert
//!                           └► Call (who ran kubectl exec) · Loss (when a sensor was blind)
//! ```
//!
//! What is news of an alert goes to [`sinks`].
//!
//! Reading order: `dna::Activity`, then `compare`.

pub mod alert;
mod compare;
mod deviation;
pub mod door;
pub mod engine;
mod expected;
mod history;
pub mod identity;
pub mod log;
pub mod order;
pub mod replay;
mod sensitive;
pub mod sensor;
pub mod sinks;
pub mod tail;
mod text;

pub use compare::{compare, judge};
pub use deviation::{Class, Deviation};
pub use expected::{Expected, Node};
pub use history::{History, Line, Phase, Standing};
