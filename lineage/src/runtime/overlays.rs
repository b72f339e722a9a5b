//! Overlays: acts that somebody accepted for an image. The ledger keeps the signed statements and believes none: whoever reads one verifies
//! it. One that is revoked stays, so that nobody brings it back.

use dna::Digest;
use jiff::Timestamp;

use super::people::MAX_SUPPRESSIONS;
use crate::{
    Document, Error, Ledger,
    build::digest,
    ledger::{change, clip, millis, read, timestamp},
};

/// An overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayRow {
    /// Its name: SHA-256 of the statement that is signed.
    pub id: Digest,
    /// The image it is for.
    pub image: Digest,
    /// The signed statement, a Sigstore bundle.
    pub bundle: Document,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When a bridge took it.
    pub accepted_at: Timestamp,
    /// Who gave it to the bridge.
    pub accepted_by: String,
    /// Who ended it before its time.
    pub revoked: Option<Revoked>,
}

/// The end of an overlay before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Ledger {
    /// Keeps an overlay. Returns whether it is new: one that is there stays as it is, also where it was revoked.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn put_overlay(&self, row: &OverlayRow) -> Result<bool, Error> {
        let done = change!(
            self,
            "keeping an overlay",
            sqlx::query(
                "INSERT INTO overlays (id, image, document, packed, bytes, expires_at, accepted_at, accepted_by)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING"
            )
            .bind(row.id.as_str())
            .bind(row.image.as_str())
            .bind(row.bundle.digest().as_str())
            .bind(row.bundle.packed())
            .bind(row.bundle.stored_bytes())
            .bind(millis(row.expires_at))
            .bind(millis(row.accepted_at))
            .bind(clip(&row.accepted_by))
        )?;
        Ok(done == 1)
    }

    /// Overlays that are neither revoked nor at their end, the latest first, at most [`crate::MAX_OVERLAYS`].
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn overlays_in_force(&self, now: Timestamp) -> Result<Vec<OverlayRow>, Error> {
        self.listed(IN_FORCE, millis(now)).await
    }

    /// Overlays, also those that ended, the latest first, at most [`crate::MAX_OVERLAYS`].
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn overlays(&self) -> Result<Vec<OverlayRow>, Error> {
        self.listed(ALL, 0).await
    }

    /// An overlay.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn overlay(&self, id: &Digest) -> Result<Option<OverlayRow>, Error> {
        let found: Option<Flat> =
            read!(self, "reading an overlay", |db| sqlx::query_as(ONE).bind(id.as_str()).fetch_optional(db).await)?;
        found.map(row).transpose()
    }

    /// Ends an overlay before its time. Returns whether it held until now.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn revoke_overlay(&self, id: &Digest, by: &str, reason: &str, now: Timestamp) -> Result<bool, Error> {
        let done = change!(
            self,
            "revoking an overlay",
            sqlx::query(
                "UPDATE overlays SET revoked_at = $2, revoked_by = $3, revoked_reason = $4
                 WHERE id = $1 AND revoked_at IS NULL AND expires_at > $2"
            )
            .bind(id.as_str())
            .bind(millis(now))
            .bind(clip(by))
            .bind(clip(reason))
        )?;
        Ok(done == 1)
    }

    async fn listed(&self, sql: &'static str, after: i64) -> Result<Vec<OverlayRow>, Error> {
        let most = i64::try_from(MAX_OVERLAYS).unwrap_or(i64::MAX);
        let rows: Vec<Flat> =
            read!(self, "listing overlays", |db| sqlx::query_as(sql).bind(after).bind(most).fetch_all(db).await)?;
        rows.into_iter().map(row).collect()
    }
}

type Flat = (String, String, String, i64, Vec<u8>, i64, i64, String, Option<i64>, Option<String>, Option<String>);

fn row(flat: Flat) -> Result<OverlayRow, Error> {
    let (id, image, document, bytes, packed, expires_at, accepted_at, accepted_by, at, by, reason) = flat;
    Ok(OverlayRow {
        id: digest("overlay", id)?,
        image: digest("image", image)?,
        bundle: Document::stored(digest("overlay", document)?, bytes, packed),
        expires_at: timestamp(expires_at),
        accepted_at: timestamp(accepted_at),
        accepted_by,
        revoked: at.map(|at| Revoked {
            at: timestamp(at),
            by: by.unwrap_or_default(),
            reason: reason.unwrap_or_default(),
        }),
    })
}

macro_rules! columns {
    () => {
        "SELECT id, image, document, bytes, packed, expires_at, accepted_at, accepted_by, revoked_at, revoked_by, revoked_reason
         FROM overlays "
    };
}

const IN_FORCE: &str =
    concat!(columns!(), "WHERE revoked_at IS NULL AND expires_at > $1 ORDER BY accepted_at DESC, id LIMIT $2");
const ALL: &str = concat!(columns!(), "WHERE accepted_at >= $1 ORDER BY accepted_at DESC, id LIMIT $2");
const ONE: &str = concat!(columns!(), "WHERE id = $1");

/// Overlays that are read at once. Whoever takes them sees to it that no more hold.
pub const MAX_OVERLAYS: u64 = MAX_SUPPRESSIONS;
