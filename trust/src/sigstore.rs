//! The one module that knows the `sigstore-*` crates: bytes of their formats in, our own facts and reasons out. All
//! cryptography is theirs; nothing here does I/O.

mod certificate;
mod check;
mod keys;
mod legacy;
mod root;

pub use certificate::claim_names;
pub(crate) use check::{Checked, Signed, bundle, content, keyed, keyless};
pub use keys::{KeyError, PublicKey};
pub(crate) use legacy::{envelope, simple_signing};
pub use root::{Root, RootError, RootFacts};
