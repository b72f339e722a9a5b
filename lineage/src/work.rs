//! The queue of analyses: many replicas put work in, each piece is one replica's at a time. A replica that dies loses its lease
//! when it expires, and the piece is given to another; one that never comes to an end is given up after [`MAX_ATTEMPTS`].

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Ledger,
    ledger::{change, clip, millis, read, timestamp, transact},
};

/// An analysis to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The image by digest, `registry/repository@digest`.
    pub image: String,
    /// The platform, such as `linux/amd64`.
    pub platform: String,
    /// What waits for it.
    pub priority: Priority,
    /// Whose credentials may pull it, in any order; names only.
    pub credentials: BTreeSet<Credentials>,
}

/// What waits for an analysis: the more does, the sooner it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Nothing: it already runs, or is looked at again.
    Background,
    /// Pods are about to be made from a template.
    Template,
    /// A pod was told to try again.
    Pod,
}

/// Where to look for credentials: names, never what is in a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's service account.
    pub service_account: String,
    /// The pull secrets it names.
    pub secrets: Vec<String>,
}

/// What became of a piece of work that was put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits.
    New,
    /// It waited already, or is being done; its priority is now at least the one given.
    Present,
    /// It failed for good, not long ago.
    Failed {
        /// Why.
        reason: String,
        /// When it may be put in again.
        again_at: Timestamp,
    },
    /// The queue is full of work at least as urgent.
    Full,
}

/// A piece of work that this worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The work.
    pub work: Work,
    /// How often it was begun, with this time.
    pub attempts: u32,
    /// When another may take it.
    pub until: Timestamp,
    version: i64,
}

/// Where a piece of work stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It waits behind so many.
    Waiting {
        /// Pieces before it, with those being done.
        position: u64,
        /// Until it is done, about.
        estimate: Duration,
        /// Why it failed before, where it did.
        reason: Option<String>,
    },
    /// It is being done.
    Leased {
        /// Until it is done, about.
        estimate: Duration,
    },
    /// It was done.
    Done {
        /// When.
        at: Timestamp,
    },
    /// It failed for good.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Ledger {
    /// Puts work in. Who was told [`Enqueued::New`] for an image that was analyzed before asks for it anew: look for its DNA first.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn enqueue(&self, work: &Work, now: Timestamp) -> Result<Enqueued, Error> {
        let (image, platform, at) = (clip(&work.image), clip(&work.platform), millis(now));
        let priority = work.priority as i64;
        transact!(self, "enqueuing an analysis", |tx| {
            async {
            let found: Option<(String, i64, String, String, i64)> = sqlx::query_as(
                "SELECT state, priority, credentials, reason, finished_at FROM work WHERE image = $1 AND platform = $2",
            )
            .bind(&image)
            .bind(&platform)
            .fetch_optional(&mut *tx)
            .await?;
            if let Some((state, _, _, reason, finished)) = &found {
                let again_at = timestamp(finished + FAILED_HOLD_MILLIS);
                if state == FAILED && again_at > now {
                    return Ok(Enqueued::Failed { reason: reason.clone(), again_at });
                }
                if state == WAITING || state == LEASED {
                    let earlier = found.as_ref().map_or("", |found| &found.2);
                    sqlx::query(
                        "UPDATE work SET credentials = $3, priority = CASE WHEN priority < $4 THEN $4 ELSE priority END
                         WHERE image = $1 AND platform = $2",
                    )
                    .bind(&image)
                    .bind(&platform)
                    .bind(merged(earlier, &work.credentials))
                    .bind(priority)
                    .execute(&mut *tx)
                    .await?;
                    return Ok(Enqueued::Present);
                }
            }
            let (waiting,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM work WHERE state = 'waiting'")
                .fetch_one(&mut *tx)
                .await?;
            if waiting >= MAX_WAITING {
                // The last of the least urgent gives way.
                let freed = sqlx::query(
                    "DELETE FROM work WHERE state = 'waiting' AND (image, platform) IN (
                       SELECT image, platform FROM work WHERE state = 'waiting' AND priority < $1
                       ORDER BY priority, enqueued_at DESC, image, platform LIMIT 1)",
                )
                .bind(priority)
                .execute(&mut *tx)
                .await?;
                if freed.rows_affected() == 0 {
                    return Ok(Enqueued::Full);
                }
            }
            sqlx::query(
                "INSERT INTO work (image, platform, priority, credentials, state, attempts, version, lease_until, ready_at,
                 enqueued_at, started_at, finished_at, reason) VALUES ($1, $2, $3, $4, 'waiting', 0, 0, 0, $5, $5, 0, 0, '')
                 ON CONFLICT (image, platform) DO UPDATE
                 SET priority = excluded.priority, credentials = excluded.credentials, state = 'waiting', attempts = 0,
                     version = work.version + 1, worker = NULL, ready_at = excluded.ready_at,
                     enqueued_at = excluded.enqueued_at, reason = ''
                 WHERE work.state IN ('done', 'failed')",
            )
            .bind(&image)
            .bind(&platform)
            .bind(priority)
            .bind(merged("", &work.credentials))
            .bind(at)
            .execute(&mut *tx)
            .await?;
            Ok(Enqueued::New)
        }
        .await
        })
    }

    /// Takes the most urgent piece of work for `hold`; none where nothing waits. `worker` names this replica.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn lease(&self, worker: &str, hold: Duration, now: Timestamp) -> Result<Option<Lease>, Error> {
        let (at, until) =
            (millis(now), millis(now).saturating_add(i64::try_from(hold.as_millis()).unwrap_or(i64::MAX)));
        let worker = clip(worker);
        type Row = (String, String, i64, String, i64, i64);
        let taken: Option<Row> = transact!(self, "taking an analysis", |tx| async {
            loop {
                let rows: Vec<Row> = sqlx::query_as(
                    "SELECT image, platform, priority, credentials, attempts, version FROM work
                     WHERE (state = 'waiting' AND ready_at <= $1) OR (state = 'leased' AND lease_until <= $1)
                     ORDER BY priority DESC, enqueued_at, image, platform LIMIT 16",
                )
                .bind(at)
                .fetch_all(&mut *tx)
                .await?;
                if rows.is_empty() {
                    return Ok(None);
                }
                for row in rows {
                    let (image, platform, _, _, attempts, version) = &row;
                    // Whoever changes the version first has it; others see that no row was changed.
                    let (state, attempts, reason) = if *attempts >= i64::from(MAX_ATTEMPTS) {
                        (FAILED, *attempts, "no worker came to an end with it")
                    } else {
                        (LEASED, attempts + 1, "")
                    };
                    let done = sqlx::query(
                        "UPDATE work SET state = $3, attempts = $4, worker = $5, lease_until = $6, started_at = $7,
                         finished_at = $7, version = version + 1, reason = CASE WHEN $8 = '' THEN reason ELSE $8 END
                         WHERE image = $1 AND platform = $2 AND version = $9",
                    )
                    .bind(image)
                    .bind(platform)
                    .bind(state)
                    .bind(attempts)
                    .bind(&worker)
                    .bind(until)
                    .bind(at)
                    .bind(reason)
                    .bind(version)
                    .execute(&mut *tx)
                    .await?;
                    if done.rows_affected() == 1 && state == LEASED {
                        return Ok(Some(row));
                    }
                }
            }
        }
        .await)?;
        let Some((image, platform, priority, credentials, attempts, version)) = taken else { return Ok(None) };
        let damaged =
            |error: serde_json::Error| Error::Damaged { what: "work", key: image.clone(), reason: error.to_string() };
        let credentials = serde_json::from_str(&credentials).map_err(damaged)?;
        let work = Work { image, platform, priority: Priority::read(priority), credentials };
        let attempts = u32::try_from(attempts + 1).unwrap_or(u32::MAX);
        Ok(Some(Lease { work, attempts, until: timestamp(until), version: version + 1 }))
    }

    /// Holds on to a piece of work. Returns whether it is still ours.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn renew(&self, lease: &mut Lease, hold: Duration, now: Timestamp) -> Result<bool, Error> {
        let until = millis(now).saturating_add(i64::try_from(hold.as_millis()).unwrap_or(i64::MAX));
        let held = change!(self, "holding an analysis", sqlx::query(
            "UPDATE work SET lease_until = $4 WHERE image = $1 AND platform = $2 AND version = $3 AND state = 'leased'"
        )
        .bind(&lease.work.image)
        .bind(&lease.work.platform)
        .bind(lease.version)
        .bind(until))?
            == 1;
        if held {
            lease.until = timestamp(until);
        }
        Ok(held)
    }

    /// Says that a piece of work is done. Returns whether it was still ours.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn finish(&self, lease: &Lease, now: Timestamp) -> Result<bool, Error> {
        self.end(lease, DONE, "", now, now).await
    }

    /// Says that a piece of work failed: for good, or to be tried again at a time, unless it was tried [`MAX_ATTEMPTS`] times.
    /// Returns whether it was still ours.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn fail(
        &self,
        lease: &Lease,
        reason: &str,
        again_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        match again_at.filter(|_| lease.attempts < MAX_ATTEMPTS) {
            Some(ready_at) => self.end(lease, WAITING, reason, ready_at, now).await,
            None => self.end(lease, FAILED, reason, now, now).await,
        }
    }

    async fn end(
        &self,
        lease: &Lease,
        state: &str,
        reason: &str,
        ready_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let done = change!(self, "ending an analysis", sqlx::query(
            "UPDATE work SET state = $4, reason = $5, ready_at = $6, finished_at = $7, version = version + 1, worker = NULL
             WHERE image = $1 AND platform = $2 AND version = $3 AND state = 'leased'"
        )
        .bind(&lease.work.image)
        .bind(&lease.work.platform)
        .bind(lease.version)
        .bind(state)
        .bind(clip(reason))
        .bind(millis(ready_at))
        .bind(millis(now)))?;
        Ok(done == 1)
    }

    /// Where a piece of work stands; none where it was never put in, or gave way.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn place(&self, image: &str, platform: &str, now: Timestamp) -> Result<Option<Place>, Error> {
        let (image, platform, at) = (clip(image), clip(platform), millis(now));
        read!(self, "looking for an analysis", |db| async {
            type Row = (String, i64, i64, i64, i64, i64, String);
            let found: Option<Row> = sqlx::query_as(
                "SELECT state, priority, enqueued_at, ready_at, started_at, finished_at, reason FROM work
                 WHERE image = $1 AND platform = $2",
            )
            .bind(&image)
            .bind(&platform)
            .fetch_optional(db)
            .await?;
            let Some((state, priority, enqueued_at, ready_at, started_at, finished_at, reason)) = found else {
                return Ok(None);
            };
            if state == DONE {
                return Ok(Some(Place::Done { at: timestamp(finished_at) }));
            }
            if state == FAILED {
                return Ok(Some(Place::Failed { reason }));
            }
            let durations: Vec<(i64,)> = sqlx::query_as(
                "SELECT finished_at - started_at FROM work WHERE state = 'done' ORDER BY finished_at DESC LIMIT 32",
            )
            .fetch_all(db)
            .await?;
            let one = mean(durations.iter().map(|(millis,)| *millis));
            if state == LEASED {
                let left = (one - (at - started_at)).max(1000);
                return Ok(Some(Place::Leased { estimate: duration(left) }));
            }
            let (before,): (i64,) = sqlx::query_as(
                "SELECT COUNT(*) FROM work WHERE state = 'waiting'
                 AND (priority > $1 OR (priority = $1 AND enqueued_at < $2))",
            )
            .bind(priority)
            .bind(enqueued_at)
            .fetch_one(db)
            .await?;
            let (leased, workers): (i64, i64) =
                sqlx::query_as("SELECT COUNT(*), COUNT(DISTINCT worker) FROM work WHERE state = 'leased'")
                    .fetch_one(db)
                    .await?;
            let position = before + leased;
            let rounds = (position + 1).saturating_mul(one) / workers.max(1);
            let estimate = duration(rounds.max(one).saturating_add((ready_at - at).max(0)));
            let reason = Some(reason).filter(|reason| !reason.is_empty());
            Ok(Some(Place::Waiting { position: u64::try_from(position).unwrap_or(0), estimate, reason }))
        }
        .await)
    }
}

impl Priority {
    fn read(number: i64) -> Self {
        match number {
            i64::MIN..=0 => Self::Background,
            1 => Self::Template,
            _ => Self::Pod,
        }
    }
}

/// Both lists of credentials, at most [`MAX_CREDENTIALS`]; those that were there stay.
fn merged(earlier: &str, added: &BTreeSet<Credentials>) -> String {
    let mut all: BTreeSet<Credentials> = serde_json::from_str(earlier).unwrap_or_default();
    for credentials in added {
        if all.len() < MAX_CREDENTIALS {
            all.insert(credentials.clone());
        }
    }
    serde_json::to_string(&all).unwrap_or_else(|_| "[]".to_owned())
}

fn mean(durations: impl ExactSizeIterator<Item = i64>) -> i64 {
    let count = i64::try_from(durations.len()).unwrap_or(i64::MAX);
    if count == 0 { FIRST_ESTIMATE_MILLIS } else { (durations.sum::<i64>() / count).max(1) }
}

fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

const WAITING: &str = "waiting";
const LEASED: &str = "leased";
const DONE: &str = "done";
const FAILED: &str = "failed";

/// How often a piece of work is begun before it is given up.
pub const MAX_ATTEMPTS: u32 = 5;
/// Pieces that may wait: a day's work of a few replicas.
pub const MAX_WAITING: i64 = 10_000;
/// Of one piece: namespaces that share an image.
const MAX_CREDENTIALS: usize = 16;
/// What fails for good is not begun again for an hour, however often pods ask for it.
const FAILED_HOLD_MILLIS: i64 = 3_600_000;
/// Of an analysis, until one was done.
const FIRST_ESTIMATE_MILLIS: i64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(namespace: &str) -> Credentials {
        Credentials { namespace: namespace.into(), service_account: "default".into(), secrets: vec!["pull".into()] }
    }

    #[test]
    fn credentials_are_merged_up_to_a_bound() {
        let text = merged(&merged("", &[credentials("a")].into()), &[credentials("a"), credentials("b")].into());
        let all: BTreeSet<Credentials> = serde_json::from_str(&text).expect("JSON");
        assert_eq!(all, [credentials("a"), credentials("b")].into());
        let many = (0..100).map(|n| credentials(&format!("n{n}"))).collect();
        let text = merged(&text, &many);
        let all: BTreeSet<Credentials> = serde_json::from_str(&text).expect("JSON");
        assert!(all.len() == MAX_CREDENTIALS && all.contains(&credentials("b")));
    }

    #[test]
    fn an_estimate_is_the_mean_of_what_was_done() {
        assert_eq!(mean([].into_iter()), FIRST_ESTIMATE_MILLIS);
        assert_eq!(mean([1000, 3000].into_iter()), 2000);
    }
}
