//! The ledger: what is known of a digest.
