//! What can go wrong with the ledger, said so that whoever reads it knows what to do.

use std::{io, path::PathBuf, time::Duration};

/// A failure of the ledger. No message holds a password: a ledger is named by [`crate::Ledger::name`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A URL that names no ledger.
    #[error("`{shown}` names no ledger: {reason}; give sqlite:PATH or postgres://USER@HOST/DATABASE")]
    Url {
        /// The URL without what may be secret.
        shown: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The place of an SQLite ledger cannot be made.
    #[error("making the ledger {path}")]
    Place {
        /// The file or its folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A newer version of this program made the ledger's tables.
    #[error("the ledger {ledger} has schema {version}, newer than this program knows: run the newer version")]
    Newer {
        /// The ledger.
        ledger: String,
        /// The migration that is not known here.
        version: i64,
    },
    /// The ledger's tables cannot be made.
    #[error("making the tables of the ledger {ledger}: {advice}")]
    Migrate {
        /// The ledger.
        ledger: String,
        /// What to do.
        advice: &'static str,
        /// Why not.
        #[source]
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// No answer in time.
    #[error("{what}: the ledger {ledger} did not answer within {limit:?}")]
    Deadline {
        /// What was asked.
        what: &'static str,
        /// The ledger.
        ledger: String,
        /// The time it had.
        limit: Duration,
    },
    /// The store refused or cannot be reached.
    #[error("{what} in the ledger {ledger}")]
    Store {
        /// What was asked.
        what: &'static str,
        /// The ledger.
        ledger: String,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
    /// What is stored is not what was written.
    #[error("{what} {key} in the ledger is damaged ({reason}): remove it, it is made again")]
    Damaged {
        /// The kind of thing.
        what: &'static str,
        /// Its name.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Larger than the ledger takes.
    #[error("{what} of {bytes} bytes, the ledger takes {limit}")]
    TooLarge {
        /// The kind of thing.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// Cannot be packed.
    #[error("packing {what}")]
    Pack {
        /// The kind of thing.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The key that facts are sealed with.
    #[error("the key {} cannot be used: {why}", path.display())]
    Seal {
        /// Its file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The spool cannot be used.
    #[error("the spool {path}: {advice}")]
    Spool {
        /// The folder or file.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether the store looked at what it was given and will never take it, so that trying again is of no use.
    ///
    /// SQLite: constraint, mismatch, too big. PostgreSQL: classes 21 (cardinality), 22 (data), 23 (constraint) and 54 (limits).
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Pack { .. } => true,
            Self::Store { source: sqlx::Error::Database(error), .. } => {
                error.code().is_some_and(|code| refuses(&code, error.is_unique_violation()))
            }
            Self::Store { source: sqlx::Error::Encode(_), .. } => true,
            _ => false,
        }
    }
}

/// `code` is five characters in PostgreSQL, a decimal extended result code in SQLite.
fn refuses(code: &str, is_unique: bool) -> bool {
    let primary = code.parse::<u32>().map(|code| code & 0xff);
    match (code.len(), primary) {
        (5, _) => ["21", "22", "23", "54"].iter().any(|class| code.starts_with(class)),
        (_, Ok(SQLITE_TOOBIG | SQLITE_CONSTRAINT | SQLITE_MISMATCH)) => true,
        _ => is_unique,
    }
}

const SQLITE_TOOBIG: u32 = 18;
const SQLITE_CONSTRAINT: u32 = 19;
const SQLITE_MISMATCH: u32 = 20;

#[cfg(test)]
mod tests {
    use super::refuses;

    #[test]
    fn refusals_are_told_from_failures() {
        for code in ["22021", "23505", "54000", "19", "1555", "18"] {
            assert!(refuses(code, false), "{code}");
        }
        // A server that shuts down, a deadlock, a cancelled statement; a busy file, a full disk.
        for code in ["57P01", "40P01", "57014", "5", "13", "10"] {
            assert!(!refuses(code, false), "{code}");
        }
    }
}
