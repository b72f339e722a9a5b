//! Which bridge judges which part of a stream that several share. A part's checkpoint is its lease too: taking it counts its epoch up
//! in one row, and [`Ledger::commit`] writes only under the epoch that stands there, so that a bridge that was thought dead and is not
//! writes nothing any more.

use jiff::Timestamp;

use super::{Checkpoint, number, read_checkpoint};
use crate::{
    Error, Ledger,
    ledger::{change, millis, read, transact},
};

/// A bridge that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// One process.
    pub member: String,
    /// Counted up while it lives.
    pub beat: u64,
}

/// A part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The name of its checkpoint.
    pub name: String,
    /// The member that judges it; empty: nobody.
    pub holder: String,
    /// How often it was taken.
    pub epoch: u64,
}

impl Ledger {
    /// Says that a member is there. Its first word ends what earlier processes of the same name said, and what was said an hour ago. False: a later one ended it.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn beat(&self, member: &str, name: &str, is_first: bool, now: Timestamp) -> Result<bool, Error> {
        transact!(self, "saying that a bridge is there", |tx| async {
            if is_first {
                sqlx::query("DELETE FROM members WHERE name = $1 OR at < $2")
                    .bind(name)
                    .bind(millis(now) - FORGOTTEN_MILLIS)
                    .execute(&mut *tx)
                    .await?;
                sqlx::query("INSERT INTO members (member, name, beat, at) VALUES ($1, $2, 1, $3)")
                    .bind(member)
                    .bind(name)
                    .bind(millis(now))
                    .execute(&mut *tx)
                    .await?;
                return Ok(true);
            }
            let beaten = sqlx::query("UPDATE members SET beat = beat + 1, at = $2 WHERE member = $1")
                .bind(member)
                .bind(millis(now))
                .execute(&mut *tx)
                .await?;
            Ok(beaten.rows_affected() > 0)
        }
        .await)
    }

    /// A member is there no more.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn leave(&self, member: &str) -> Result<(), Error> {
        change!(self, "a bridge's leave", sqlx::query("DELETE FROM members WHERE member = $1").bind(member))?;
        Ok(())
    }

    /// The members there are.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        let rows: Vec<(String, i64)> =
            read!(self, "listing bridges", |db| sqlx::query_as("SELECT member, beat FROM members ORDER BY member")
                .fetch_all(db)
                .await)?;
        Ok(rows.into_iter().map(|(member, beat)| Member { member, beat: beat.unsigned_abs() }).collect())
    }

    /// The parts whose names begin like this, those that somebody took once.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn parts(&self, start: &str) -> Result<Vec<Part>, Error> {
        let rows: Vec<(String, String, i64)> = read!(self, "listing parts", |db| sqlx::query_as(
            "SELECT bridge, holder, epoch FROM checkpoints WHERE substr(bridge, 1, $2) = $1 ORDER BY bridge"
        )
        .bind(start)
        .bind(i32::try_from(start.chars().count()).unwrap_or(i32::MAX))
        .fetch_all(db)
        .await)?;
        let part = |(name, holder, epoch): (String, String, i64)| Part { name, holder, epoch: epoch.unsigned_abs() };
        Ok(rows.into_iter().map(part).collect())
    }

    /// Takes a part whose epoch is this one, 0 where nobody ever did. Its checkpoint, under the new epoch; none: another was faster.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn take_part(
        &self,
        part: &str,
        epoch: u64,
        member: &str,
        now: Timestamp,
    ) -> Result<Option<Checkpoint>, Error> {
        let judged = super::pack(&[])?;
        let row: Option<(i64, Vec<u8>, i64, i64)> = transact!(self, "taking a part", |tx| async {
            // Waits for a commit that is under way, and sees what it wrote.
            let taken = sqlx::query_as(
                "UPDATE checkpoints SET epoch = epoch + 1, holder = $3 WHERE bridge = $1 AND epoch = $2
                 RETURNING log_offset, judged, at, epoch",
            )
            .bind(part)
            .bind(number(epoch))
            .bind(member)
            .fetch_optional(&mut *tx)
            .await?;
            if taken.is_some() || epoch > 0 {
                return Ok(taken);
            }
            sqlx::query_as(
                "INSERT INTO checkpoints (bridge, log_offset, judged, at, holder, epoch) VALUES ($1, 0, $2, $3, $4, 1)
                 ON CONFLICT (bridge) DO NOTHING RETURNING log_offset, judged, at, epoch",
            )
            .bind(part)
            .bind(&judged)
            .bind(millis(now))
            .bind(member)
            .fetch_optional(&mut *tx)
            .await
        }
        .await)?;
        row.map(|row| read_checkpoint(part, row)).transpose()
    }

    /// Gives a part back, where it is still held under this epoch.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn give_part(&self, part: &str, epoch: u64) -> Result<(), Error> {
        change!(
            self,
            "giving a part back",
            sqlx::query("UPDATE checkpoints SET holder = '' WHERE bridge = $1 AND epoch = $2")
                .bind(part)
                .bind(number(epoch))
        )?;
        Ok(())
    }
}

/// A member that said nothing for so long is forgotten.
const FORGOTTEN_MILLIS: i64 = 3_600_000;
