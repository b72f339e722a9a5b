//! What people did: to an alert, with an audit trail; and suppressions, which end by themselves.

use jiff::Timestamp;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{
    AlertHead, AlertState,
    alerts::TAKE,
    notices::{self, Notice},
    number,
};
use crate::{
    Error, Ledger,
    bindings::id as parse,
    build::page,
    ledger::{clip, millis, read, timestamp, transact},
};

/// What somebody does to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Looks after it: of an open alert.
    Acknowledge,
    /// Is done with it: of one that is not resolved.
    Resolve,
    /// Takes that back: of one that is not open.
    Reopen,
    /// Says something about it.
    Annotate,
}

impl Action {
    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledge => "acknowledge",
            Self::Resolve => "resolve",
            Self::Reopen => "reopen",
            Self::Annotate => "annotate",
        }
    }

    /// The state after it; none where it does not fit the one before.
    fn from(self, state: AlertState) -> Option<AlertState> {
        match (self, state) {
            (Self::Acknowledge, AlertState::Open) => Some(AlertState::Acknowledged),
            (Self::Resolve, AlertState::Open | AlertState::Acknowledged) => Some(AlertState::Resolved),
            (Self::Reopen, AlertState::Acknowledged | AlertState::Resolved) => Some(AlertState::Open),
            (Self::Annotate, state) => Some(state),
            _ => None,
        }
    }
}

/// What became of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acted {
    /// It is written: the alert's new revision.
    Done(u64),
    /// It does not fit the alert's state, which this is.
    Unfit(AlertState),
    /// The alert was changed since it was read: what was to be told of it is old.
    Stale,
    /// There is no such alert.
    Missing,
}

/// An entry of an alert's audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The revision it made.
    pub revision: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What: [`Action::as_str`], `suppress` or `lift`.
    pub action: String,
    /// Why.
    pub reason: String,
}

/// Which alerts: those that fit all that is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// In this cluster.
    pub cluster: Option<String>,
    /// In this namespace.
    pub namespace: Option<String>,
    /// Of this workload.
    pub owner: Option<String>,
    /// Of containers of this name.
    pub container: Option<String>,
    /// Of images of this digest.
    pub digest: Option<String>,
    /// Of this class.
    pub class: Option<String>,
    /// About this.
    pub subject: Option<String>,
}

impl Scope {
    /// Whether an alert is among them.
    pub fn covers(&self, head: &AlertHead) -> bool {
        let is = |part: &Option<String>, text: &str| part.as_ref().is_none_or(|part| clip(part) == clip(text));
        is(&self.cluster, &head.cluster)
            && is(&self.namespace, &head.namespace)
            && is(&self.owner, &head.owner)
            && is(&self.container, &head.container)
            && is(&self.digest, &head.digest)
            && is(&self.class, &head.class)
            && is(&self.subject, &head.subject)
    }

    fn parts(&self) -> [&Option<String>; 7] {
        [&self.cluster, &self.namespace, &self.owner, &self.container, &self.digest, &self.class, &self.subject]
    }
}

/// Alerts that nobody is told of until a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    /// Its name.
    pub id: Uuid,
    /// The alert it was made at.
    pub alert: String,
    /// Which alerts.
    pub scope: Scope,
    /// Why.
    pub reason: String,
    /// By whom.
    pub actor: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What sinks are to be told of an act, written with it.
#[derive(Debug, Clone, Copy)]
pub struct Telling<'a> {
    /// The alert's revision when it was read, which the notices rest on.
    pub revision: u64,
    /// The notices, all of that alert.
    pub notices: &'a [Notice],
}

impl Telling<'_> {
    fn is_stale(told: Option<&Self>, revision: i64) -> bool {
        told.is_some_and(|told| number(told.revision) != revision)
    }
}

impl Ledger {
    /// Does something to an alert, and writes down who and why, and what sinks are to be told of it.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn act(
        &self,
        alert: &str,
        action: Action,
        (actor, reason): (&str, &str),
        told: Option<&Telling<'_>>,
        now: Timestamp,
    ) -> Result<Acted, Error> {
        let (actor, reason) = (clip(actor), clip(reason));
        transact!(self, "changing an alert", |tx| async {
            let (revision,): (i64,) = sqlx::query_as(TAKE).bind(1_i64).fetch_one(&mut *tx).await?;
            let found: Option<(String, i64)> = sqlx::query_as("SELECT state, revision FROM alerts WHERE id = $1")
                .bind(alert)
                .fetch_optional(&mut *tx)
                .await?;
            let Some((state, before)) = found else { return Ok(Acted::Missing) };
            if Telling::is_stale(told, before) {
                return Ok(Acted::Stale);
            }
            let state = AlertState::read(&state);
            let Some(next) = action.from(state) else { return Ok(Acted::Unfit(state)) };
            sqlx::query(CHANGE)
                .bind(alert)
                .bind(revision)
                .bind(next.as_str())
                .bind(millis(now))
                .execute(&mut *tx)
                .await?;
            sqlx::query(AUDIT)
                .bind(alert)
                .bind(revision)
                .bind(millis(now))
                .bind(&actor)
                .bind(action.as_str())
                .bind(&reason)
                .execute(&mut *tx)
                .await?;
            for notice in told.map(|told| told.notices).unwrap_or_default() {
                notices::insert!(format!("{alert}/{revision}"), notice, millis(now)).execute(&mut *tx).await?;
            }
            Ok(Acted::Done(revision.unsigned_abs()))
        }
        .await)
    }

    /// What people did to an alert, the first act first.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn audit(&self, alert: &str) -> Result<Vec<AuditRow>, Error> {
        let rows: Vec<(i64, i64, String, String, String)> = read!(self, "reading an audit trail", |db| {
            sqlx::query_as(
                "SELECT revision, at, actor, action, reason FROM alert_audit WHERE alert = $1 ORDER BY revision LIMIT $2"
            )
            .bind(alert)
            .bind(page(u32::MAX))
            .fetch_all(db)
            .await
        })?;
        let row = |(revision, at, actor, action, reason): (i64, i64, String, String, String)| AuditRow {
            revision: revision.unsigned_abs(),
            at: timestamp(at),
            actor,
            action,
            reason,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Writes a suppression, and into its alert's audit trail that it was made, and what sinks are to be told of that. Where there is no such
    /// alert, or it was changed since it was read, nothing is written.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn suppress(&self, suppression: &Suppression, told: Option<&Telling<'_>>) -> Result<Acted, Error> {
        let (actor, reason, now) = (clip(&suppression.actor), clip(&suppression.reason), millis(suppression.made_at));
        transact!(self, "suppressing alerts", |tx| {
            async {
            let (revision,): (i64,) = sqlx::query_as(TAKE).bind(1_i64).fetch_one(&mut *tx).await?;
            let found: Option<(i64,)> = sqlx::query_as("SELECT revision FROM alerts WHERE id = $1")
                .bind(&suppression.alert)
                .fetch_optional(&mut *tx)
                .await?;
            let Some((before,)) = found else { return Ok(Acted::Missing) };
            if Telling::is_stale(told, before) {
                return Ok(Acted::Stale);
            }
            sqlx::query("UPDATE alerts SET revision = $2, changed_at = $3 WHERE id = $1")
                .bind(&suppression.alert)
                .bind(revision)
                .bind(now)
                .execute(&mut *tx)
                .await?;
            let mut query = QueryBuilder::<Db>::new(
                "INSERT INTO suppressions (id, alert, cluster, namespace, owner, container, digest, class, subject, reason,
                 actor, made_at, expires_at) ",
            );
            query.push_values([suppression], |mut row, suppression| {
                row.push_bind(suppression.id.to_string()).push_bind(suppression.alert.as_str());
                for part in suppression.scope.parts() {
                    row.push_bind(part.as_deref().map(clip));
                }
                row.push_bind(reason.as_str()).push_bind(actor.as_str());
                row.push_bind(now).push_bind(millis(suppression.expires_at));
            });
            query.build().persistent(false).execute(&mut *tx).await?;
            sqlx::query(AUDIT)
                .bind(&suppression.alert)
                .bind(revision)
                .bind(now)
                .bind(&actor)
                .bind("suppress")
                .bind(&reason)
                .execute(&mut *tx)
                .await?;
            for notice in told.map(|told| told.notices).unwrap_or_default() {
                notices::insert!(format!("{}/{revision}", suppression.alert), notice, now).execute(&mut *tx).await?;
            }
            Ok(Acted::Done(revision.unsigned_abs()))
        }
        .await
        })
    }

    /// Ends a suppression before its time. Returns whether it held until now.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn lift(&self, id: Uuid, actor: &str, reason: &str, now: Timestamp) -> Result<bool, Error> {
        let (key, actor, reason) = (id.to_string(), clip(actor), clip(reason));
        transact!(self, "ending a suppression", |tx| async {
            let (revision,): (i64,) = sqlx::query_as(TAKE).bind(1_i64).fetch_one(&mut *tx).await?;
            let ended: Option<(String,)> = sqlx::query_as(
                "UPDATE suppressions SET expires_at = $2 WHERE id = $1 AND expires_at > $2 RETURNING alert",
            )
            .bind(&key)
            .bind(millis(now))
            .fetch_optional(&mut *tx)
            .await?;
            let Some((alert,)) = ended else { return Ok(false) };
            let changed = sqlx::query("UPDATE alerts SET revision = $2, changed_at = $3 WHERE id = $1")
                .bind(&alert)
                .bind(revision)
                .bind(millis(now))
                .execute(&mut *tx)
                .await?
                .rows_affected();
            // Its alert may be gone.
            if changed == 1 {
                sqlx::query(AUDIT)
                    .bind(&alert)
                    .bind(revision)
                    .bind(millis(now))
                    .bind(&actor)
                    .bind("lift")
                    .bind(&reason)
                    .execute(&mut *tx)
                    .await?;
            }
            Ok(true)
        }
        .await)
    }

    /// Suppressions that hold at a time, the latest first, at most [`MAX_SUPPRESSIONS`].
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn suppressions(&self, now: Timestamp) -> Result<Vec<Suppression>, Error> {
        let rows: Vec<Flat> = read!(self, "listing suppressions", |db| {
            sqlx::query_as(
            "SELECT id, alert, cluster, namespace, owner, container, digest, class, subject, reason, actor, made_at, expires_at
             FROM suppressions WHERE expires_at > $1 ORDER BY id DESC LIMIT $2"
        )
        .bind(millis(now))
        .bind(number(MAX_SUPPRESSIONS))
        .fetch_all(db)
        .await
        })?;
        rows.into_iter().map(row).collect()
    }
}

type Part = Option<String>;
type Flat = (String, String, Part, Part, Part, Part, Part, Part, Part, String, String, i64, i64);

fn row(flat: Flat) -> Result<Suppression, Error> {
    let (id, alert, cluster, namespace, owner, container, digest, class, subject, reason, actor, made_at, expires_at) =
        flat;
    Ok(Suppression {
        id: parse("suppression", &id)?,
        alert,
        scope: Scope { cluster, namespace, owner, container, digest, class, subject },
        reason,
        actor,
        made_at: timestamp(made_at),
        expires_at: timestamp(expires_at),
    })
}

const CHANGE: &str = "UPDATE alerts SET revision = $2, state = $3, changed_at = $4 WHERE id = $1";
const AUDIT: &str =
    "INSERT INTO alert_audit (alert, revision, at, actor, action, reason) VALUES ($1, $2, $3, $4, $5, $6)";

/// Suppressions that are read at once. Whoever makes them sees to it that no more hold.
pub const MAX_SUPPRESSIONS: u64 = 1000;
