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
//! Reading order: `dna::Activity`, then `sensor`, then `compare`.

pub mod alert;
pub mod api;
pub mod bridge;
mod compare;
pub mod desk;
mod deviation;
pub mod door;
pub mod engine;
mod expected;
mod history;
pub mod identity;
pub mod limits;
pub mod log;
pub mod order;
pub mod outbox;
pub mod replay;
pub mod run;
mod sensitive;
pub mod sensor;
pub mod settings;
pub mod shelf;
pub mod sinks;
pub mod stored;
pub mod tail;
mod text;
pub mod watch;

pub use compare::{compare, judge};
pub use deviation::{Class, Deviation};
pub use expected::{Expected, Node};
pub use history::{History, Line, Phase, Standing};
