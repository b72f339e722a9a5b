//! Families of images: what says of itself that it is one software, and whether it behaves as such.
//!
//! In: DNAs. Out: the [`Traits`] of each; of one against known ones its [`Kinship`]: the nearest of them, what none of its family does, and what
//! they do where its own bytes do not tell. Nothing of it goes into a DNA.

mod kinds;
mod kinship;
mod similarity;
mod traits;

pub use kinship::{Borrowed, Kinship, LEAST_MEMBERS, Relative, Unlike, kinship};
pub use similarity::{Near, nearest};
pub use traits::{Sort, Trait, Traits};

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
