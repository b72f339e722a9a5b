//! What rules had done about alerts: claimed by one bridge before it is done, kept, and taken back by people.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::QueryBuilder;

use crate::{
    Error, Ledger,
    build::page,
    ledger::{change, clip, millis, read, timestamp},
};

/// What became of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ResponseState {
    /// It would be done; no rule asks for it in earnest.
    DryRun,
    /// Somebody is about to do it.
    Taken,
    /// It was done, and holds.
    Done,
    /// It was not done, as something does not allow it.
    Refused,
    /// It was tried, and did not succeed.
    Failed,
    /// It was done and taken back.
    Undone,
}

impl ResponseState {
    /// Its name in tables and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DryRun => "dry-run",
            Self::Taken => "taken",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Undone => "undone",
        }
    }

    fn read(text: &str) -> Self {
        [Self::DryRun, Self::Done, Self::Refused, Self::Failed, Self::Undone]
            .into_iter()
            .find(|state| state.as_str() == text)
            .unwrap_or(Self::Taken)
    }
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseRow {
    /// Its name: the same for the same alert, action and target.
    pub id: String,
    /// The alert.
    pub alert: String,
    /// The cluster's name.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// `Isolate`, `DeletePod`, `ScaleToZero`, `QuarantineDigest`.
    pub action: String,
    /// The pod, the workload, or the digest.
    pub target: String,
    /// The rules that ask for it.
    pub rules: BTreeSet<String>,
    /// What became of it.
    pub state: ResponseState,
    /// Why it is so.
    pub note: String,
    /// What is needed to take it back, as JSON.
    pub undo: String,
    /// When it was asked for first.
    pub at: Timestamp,
    /// When its state changed last.
    pub changed_at: Timestamp,
    /// Who took it back; empty: nobody.
    pub actor: String,
    /// Why.
    pub reason: String,
}

type Flat = (String, String, String, String, String, String, String, String, String, String, i64, i64, String, String);

/// The columns in the order of [`Flat`].
const COLUMNS: &str =
    "id, alert, cluster, namespace, action, target, rules, state, note, undo, at, changed_at, actor, reason";

impl Ledger {
    /// Claims a response, or notes what became of one that is not done (`DryRun`, `Refused`). False: it is there already, and is done, under way,
    /// or was taken back. One that was refused or failed a minute ago, one whose bridge died, and a dry run that is meant now are claimed again.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn claim_response(&self, row: &ResponseRow) -> Result<bool, Error> {
        let rules = row.rules.iter().cloned().collect::<Vec<_>>().join("\n");
        let done = change!(
            self,
            "claiming a response",
            sqlx::query(
                "INSERT INTO responses (id, alert, cluster, namespace, action, target, rules, state, note, undo, at, changed_at, actor, reason)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, '', '')
                 ON CONFLICT (id) DO UPDATE SET state = excluded.state, note = excluded.note, rules = excluded.rules,
                     changed_at = excluded.changed_at
                 WHERE (responses.state IN ('refused', 'failed') AND responses.changed_at <= excluded.changed_at - $12)
                    OR (responses.state = 'taken' AND responses.changed_at <= excluded.changed_at - $13)
                    OR (responses.state = 'dry-run' AND excluded.state <> 'dry-run')"
            )
            .bind(&row.id)
            .bind(&row.alert)
            .bind(clip(&row.cluster))
            .bind(clip(&row.namespace))
            .bind(&row.action)
            .bind(clip(&row.target))
            .bind(clip(&rules))
            .bind(row.state.as_str())
            .bind(clip(&row.note))
            .bind(&row.undo)
            .bind(millis(row.changed_at))
            .bind(AGAIN_MILLIS)
            .bind(ABANDONED_MILLIS)
        )?;
        Ok(done == 1)
    }

    /// Says what became of a response that was claimed.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn end_response(
        &self,
        id: &str,
        state: ResponseState,
        note: &str,
        undo: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        change!(
            self,
            "ending a response",
            sqlx::query("UPDATE responses SET state = $2, note = $3, undo = $4, changed_at = $5 WHERE id = $1 AND state = 'taken'")
                .bind(id)
                .bind(state.as_str())
                .bind(clip(note))
                .bind(undo)
                .bind(millis(now))
        )?;
        Ok(())
    }

    /// Says that a response was taken back. False: it is none that is done.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn undo_response(&self, id: &str, actor: &str, reason: &str, now: Timestamp) -> Result<bool, Error> {
        let done = change!(
            self,
            "taking a response back",
            sqlx::query(
                "UPDATE responses SET state = 'undone', actor = $2, reason = $3, changed_at = $4 WHERE id = $1 AND state = 'done'"
            )
            .bind(id)
            .bind(clip(actor))
            .bind(clip(reason))
            .bind(millis(now))
        )?;
        Ok(done == 1)
    }

    /// Responses, the latest first; in one state, where one is named.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn responses(&self, state: Option<ResponseState>, limit: u32) -> Result<Vec<ResponseRow>, Error> {
        let rows: Vec<Flat> = read!(self, "listing responses", |db| async {
            let mut query = QueryBuilder::new("SELECT ");
            query.push(COLUMNS).push(" FROM responses");
            if let Some(state) = state {
                query.push(" WHERE state = ").push_bind(state.as_str());
            }
            query.push(" ORDER BY at DESC, id LIMIT ").push_bind(page(limit));
            query.build_query_as().persistent(false).fetch_all(db).await
        }
        .await)?;
        Ok(rows.into_iter().map(row).collect())
    }

    /// A response by its name.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn response(&self, id: &str) -> Result<Option<ResponseRow>, Error> {
        let found: Option<Flat> = read!(self, "reading a response", |db| async {
            let mut query = QueryBuilder::new("SELECT ");
            query.push(COLUMNS).push(" FROM responses WHERE id = ").push_bind(id);
            query.build_query_as().persistent(false).fetch_optional(db).await
        }
        .await)?;
        Ok(found.map(row))
    }

    /// How many responses were done since a time, in all and in a namespace of a cluster: what a limit is held against.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn responses_since(&self, cluster: &str, namespace: &str, since: Timestamp) -> Result<(u64, u64), Error> {
        let (all, own): (i64, i64) = read!(self, "counting responses", |db| {
            sqlx::query_as(
            "SELECT COUNT(*), CAST(COALESCE(SUM(CASE WHEN cluster = $1 AND namespace = $2 THEN 1 ELSE 0 END), 0) AS BIGINT)
             FROM responses WHERE state IN ('taken', 'done', 'undone') AND at >= $3"
        )
        .bind(cluster)
        .bind(namespace)
        .bind(millis(since))
        .fetch_one(db)
        .await
        })?;
        Ok((all.unsigned_abs(), own.unsigned_abs()))
    }

    /// Digests that no new pod may have, with the response that says so.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn quarantined(&self) -> Result<Vec<ResponseRow>, Error> {
        let rows: Vec<Flat> = read!(self, "reading which digests are quarantined", |db| async {
            let mut query = QueryBuilder::new("SELECT ");
            query.push(COLUMNS).push(
                " FROM responses WHERE action = 'QuarantineDigest' AND state = 'done' ORDER BY at DESC, id LIMIT ",
            );
            query.push_bind(MOST_QUARANTINED);
            query.build_query_as().persistent(false).fetch_all(db).await
        }
        .await)?;
        Ok(rows.into_iter().map(row).collect())
    }
}

fn row(flat: Flat) -> ResponseRow {
    let (id, alert, cluster, namespace, action, target, rules, state, note, undo, at, changed_at, actor, reason) = flat;
    ResponseRow {
        id,
        alert,
        cluster,
        namespace,
        action,
        target,
        rules: rules.lines().map(str::to_owned).collect(),
        state: ResponseState::read(&state),
        note,
        undo,
        at: timestamp(at),
        changed_at: timestamp(changed_at),
        actor,
        reason,
    }
}

/// After which one that was refused or failed is tried again, where its alert is seen again.
const AGAIN_MILLIS: i64 = 60_000;
/// After which one that somebody claimed and did not end is another's.
const ABANDONED_MILLIS: i64 = 300_000;
/// Digests that are quarantined at once.
const MOST_QUARANTINED: i64 = 10_000;
