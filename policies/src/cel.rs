//! Expressions of the Common Expression Language (cel.dev), with bounds: compiled when a rule is loaded, refused there with line and
//! column where a name is unknown, a kind does not fit or the cost may grow too high; evaluated without I/O, to a value, to *not
//! known*, to *not there*, or to an error, none of which can be taken for another.
//!
//! ```text
//! text ─source──► bounded ─cel parser──► tree ─check──► Compiled { kind, cost, reads }
//!                                                        │ facts, as far as they are read (value)
//!                                                        └─evaluate──► Outcome
//! ```

mod check;
mod compile;
mod evaluate;
mod functions;
mod kubernetes;
mod names;
mod reads;
mod shape;
mod shared;
mod signatures;
mod source;
mod value;

#[cfg(test)]
mod tests;

pub use compile::{Compiled, Error};
pub use functions::glob;
pub use reads::Reads;
pub use source::Position;

pub(crate) use check::{ATTESTATIONS, VARIABLES, meant};
pub(crate) use compile::Expected;
pub(crate) use evaluate::{Frame, Given, Lack, Lookup, Outcome, told};
pub(crate) use names::{
    MAX_ATTESTATIONS, MAX_SIGNATURES, Names, attestation, needs_config, needs_resolved, root, runtime_root,
};
pub(crate) use shape::Shape;
pub(crate) use value::{Made, as_bool, as_text, list, make, none, some, timestamp, truth, with_text};
