//! What sinks are to be told: written with the alert it is about, and there until its sink took it. A sink may be told twice, by
//! the same id.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::AlertRow;
use crate::{
    Document, Error, Ledger,
    build::{digest, page},
    ledger::{change, millis, read, timestamp, transact},
};

/// What one sink is to be told of a change to an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The alert, one that is written with it.
    pub alert: String,
    /// The sink's name.
    pub sink: String,
    /// What it is told, as JSON.
    pub body: Document,
}

/// A notice whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueNotice {
    /// `alert/revision`: by it a sink knows what it was told before.
    pub id: String,
    /// The sink's name.
    pub sink: String,
    /// What it is told, as JSON.
    pub body: Document,
    /// How often it was tried, with this time.
    pub attempts: u32,
    /// When it was written.
    pub made_at: Timestamp,
}

impl Ledger {
    /// Takes notices of one sink whose time has come, the longest due first, at most `limit`: for `hold` nobody else gets them. Who was told
    /// says so by [`Ledger::delivered`]; who was not, by [`Ledger::delay`]; who dies is told again after `hold`.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn due(&self, sink: &str, hold: Duration, limit: u32, now: Timestamp) -> Result<Vec<DueNotice>, Error> {
        type Flat = (String, String, i64, Vec<u8>, i64, i64);
        let hold = i64::try_from(hold.as_millis()).unwrap_or(i64::MAX);
        let rows: Vec<Flat> = transact!(self, "taking notices", |tx| {
            // The outer condition is looked at again after a wait for another's lock: what he took is no longer due.
            sqlx::query_as(
                "UPDATE notices SET attempts = attempts + 1, next_try = $2 WHERE sink = $1 AND next_try <= $3 AND id IN
                 (SELECT id FROM notices WHERE sink = $1 AND next_try <= $3 ORDER BY next_try, id LIMIT $4)
                 RETURNING id, document, bytes, packed, attempts, made_at",
            )
            .bind(sink)
            .bind(millis(now).saturating_add(hold))
            .bind(millis(now))
            .bind(page(limit))
            .fetch_all(&mut *tx)
            .await
        })?;
        let row = |(id, document, bytes, packed, attempts, made_at): Flat| {
            Ok(DueNotice {
                id,
                sink: sink.to_owned(),
                body: Document::stored(digest("notice", document)?, bytes, packed),
                attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
                made_at: timestamp(made_at),
            })
        };
        let mut due = rows.into_iter().map(row).collect::<Result<Vec<_>, Error>>()?;
        due.sort_by(|a, b| (a.made_at, &a.id).cmp(&(b.made_at, &b.id)));
        Ok(due)
    }

    /// Says that a sink was told.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn delivered(&self, id: &str, sink: &str) -> Result<(), Error> {
        change!(
            self,
            "ending a notice",
            sqlx::query("DELETE FROM notices WHERE id = $1 AND sink = $2").bind(id).bind(sink)
        )?;
        Ok(())
    }

    /// Says that a sink could not be told, and when to try again.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn delay(&self, id: &str, sink: &str, next_try: Timestamp) -> Result<(), Error> {
        change!(
            self,
            "putting off a notice",
            sqlx::query("UPDATE notices SET next_try = $3 WHERE id = $1 AND sink = $2")
                .bind(id)
                .bind(sink)
                .bind(millis(next_try))
        )?;
        Ok(())
    }
}

impl Ledger {
    /// When the oldest notice of a sink was written that still waits.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn oldest_notice(&self, sink: &str) -> Result<Option<Timestamp>, Error> {
        let (oldest,): (Option<i64>,) = read!(self, "reading the oldest notice", |db| sqlx::query_as(
            "SELECT MIN(made_at) FROM notices WHERE sink = $1"
        )
        .bind(sink)
        .fetch_one(db)
        .await)?;
        Ok(oldest.map(timestamp))
    }
}

/// A notice, written by itself.
macro_rules! insert {
    ($id:expr, $notice:expr, $now:expr) => {
        sqlx::query(
            "INSERT INTO notices (id, sink, document, packed, bytes, attempts, next_try, made_at)
             VALUES ($1, $2, $3, $4, $5, 0, $6, $6)",
        )
        .bind($id)
        .bind(&$notice.sink)
        .bind($notice.body.digest().as_str())
        .bind($notice.body.packed())
        .bind($notice.body.stored_bytes())
        .bind($now)
    };
}

pub(super) use insert;

/// The notices with their ids; an error where one is of no alert that is written with it.
pub(super) fn ids<'a>(
    notices: &'a [Notice],
    alerts: &[(i64, &AlertRow)],
) -> Result<Vec<(String, &'a Notice)>, sqlx::Error> {
    let revisions: BTreeMap<&str, i64> =
        alerts.iter().map(|(revision, row)| (row.head.id.as_str(), *revision)).collect();
    let id = |notice: &'a Notice| match revisions.get(notice.alert.as_str()) {
        Some(revision) => Ok((format!("{}/{revision}", notice.alert), notice)),
        None => {
            Err(sqlx::Error::InvalidArgument(format!("a notice of the alert {}, which is not written", notice.alert)))
        }
    };
    notices.iter().map(id).collect()
}
