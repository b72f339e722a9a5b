//! Live behavior against the prediction, from the first event.
//!
//! ```text
//! sensor's bytes ─sensor─► Told ─► Activity ─identity─► container, digest ─► Expected
//!                           │                                                  │
//!                           │                 history ─► Standing ─compare─► Deviation ─collate─► Alert
//!                           └► Call (who ran kubectl exec) · Loss (when a sensor was blind)
//! ```
//!
//! Reading order: `dna::Activity`, then `compare`.

pub mod alert;
pub mod api;
mod compare;
mod deviation;
pub mod engine;
mod expected;
mod history;
pub mod identity;
pub mod order;
pub mod replay;
mod sensitive;
pub mod sensor;
pub mod stored;
mod text;

pub use compare::{compare, judge};
pub use deviation::{Class, Deviation};
pub use expected::{Expected, Node};
pub use history::{History, Line, Phase, Standing};
