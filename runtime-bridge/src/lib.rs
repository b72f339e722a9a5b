//! Live behavior against the prediction, from the first event.
//!
//! ```text
//! sensor's bytes ─sensor─► Told ─► Activity ─identity─► container, digest ─► Expected
//!                           │                                                  │
//!                           │                 history ─► Standing ─compare─► Deviation ─collate─► Alert
//!                           └► Call (who ran kubectl exec) · Loss (when a sensor was blind)
//! ```
//!
//! Reading order: `dna::Activity`, then `sensor`, then `compare`.

pub mod limits;
pub mod sensor;
