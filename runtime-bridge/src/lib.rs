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
//! Reading order: `dna::Activity`, then `compare`.

pub mod door;
pub mod log;
pub mod sensor;
pub mod tail;
