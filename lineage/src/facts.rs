//! Facts that somebody verified, by a kind and a key. The ledger cannot read them and does not believe them: whoever made them
//! sealed them ([`crate::Sealed`]), and checks the MAC when they come back.

use jiff::Timestamp;

use crate::{
    Error, Ledger,
    ledger::{change, millis, read, timestamp},
};

/// A sealed fact.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedFact {
    /// The facts themselves, as their maker wrote them.
    pub sealed: Vec<u8>,
    /// The maker's MAC, over kind, key, time and facts.
    pub mac: Vec<u8>,
    /// When they were fetched.
    pub fetched_at: Timestamp,
}

impl std::fmt::Debug for SealedFact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedFact({} bytes, {})", self.sealed.len(), self.fetched_at)
    }
}

impl Ledger {
    /// Keeps a fact, unless a later one is there.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a key above [`MAX_KEY_BYTES`] or a fact above [`MAX_FACT_BYTES`]; [`Error::Deadline`],
    /// [`Error::Store`].
    pub async fn put_fact(&self, kind: &str, key: &str, fact: &SealedFact) -> Result<(), Error> {
        let sizes = [
            ("the key of a fact", kind.len() + key.len(), MAX_KEY_BYTES),
            ("a fact", fact.sealed.len() + fact.mac.len(), MAX_FACT_BYTES),
        ];
        for (what, bytes, limit) in sizes {
            if bytes > limit {
                return Err(Error::TooLarge { what, bytes: bytes as u64, limit: limit as u64 });
            }
        }
        change!(
            self,
            "keeping a fact",
            sqlx::query(
                "INSERT INTO facts (kind, key, sealed, mac, fetched_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (kind, key) DO UPDATE
             SET sealed = excluded.sealed, mac = excluded.mac, fetched_at = excluded.fetched_at
             WHERE excluded.fetched_at >= facts.fetched_at"
            )
            .bind(kind)
            .bind(key)
            .bind(&*fact.sealed)
            .bind(&*fact.mac)
            .bind(millis(fact.fetched_at))
        )?;
        Ok(())
    }

    /// A fact.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn fact(&self, kind: &str, key: &str) -> Result<Option<SealedFact>, Error> {
        let row: Option<(Vec<u8>, Vec<u8>, i64)> = read!(self, "reading a fact", |db| sqlx::query_as(
            "SELECT sealed, mac, fetched_at FROM facts WHERE kind = $1 AND key = $2"
        )
        .bind(kind)
        .bind(key)
        .fetch_optional(db)
        .await)?;
        Ok(row.map(|(sealed, mac, at)| SealedFact { sealed, mac, fetched_at: timestamp(at) }))
    }

    /// Forgets a fact, such as one whose MAC is wrong.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn forget_fact(&self, kind: &str, key: &str) -> Result<(), Error> {
        change!(
            self,
            "forgetting a fact",
            sqlx::query("DELETE FROM facts WHERE kind = $1 AND key = $2").bind(kind).bind(key)
        )?;
        Ok(())
    }
}

/// Of kind and key: an index entry of PostgreSQL takes 2,704.
pub const MAX_KEY_BYTES: usize = 2048;
/// Of facts and MAC: the attestations of one image.
pub const MAX_FACT_BYTES: usize = 16 << 20;
