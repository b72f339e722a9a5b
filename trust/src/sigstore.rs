//! The one module that knows the `sigstore-*` crates: bytes of their formats in, our own facts and reasons out. All
//! cryptography is theirs. Nothing but `services`, which signs, and `refresh`
//! does I/O.

mod certificate;
mod check;
mod intoto;
mod keys;
mod legacy;
mod pair;
#[cfg(feature = "tuf")]
mod refresh;
mod root;
mod services;

pub use certificate::claim_names;
pub(crate) use check::{
    About, Beside, Checked, Made, Signed, about, bundle, content, keyed, keyless, made, sha256_of_hex, sha512,
};
pub use keys::{KeyError, PublicKey};
pub(crate) use legacy::{envelope, simple_signing};
pub use pair::{NewKey, SigningKey, SigningKeyError};
#[cfg(feature = "tuf")]
pub use refresh::{RefreshError, TufRepository, cached, last, refresh};
pub use root::{Root, RootError, RootFacts};
pub use services::{Services, SignError, ambient_token, sign};
pub(crate) use sigstore_types::Bundle;
