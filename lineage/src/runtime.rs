//! What was seen at run time: alerts and what people did to them, blind intervals, what sinks are to be told, and how far a bridge
//! has judged. [`Ledger::commit`] writes all of it in one transaction, so that whoever is killed neither judges twice nor loses.
//!
//! Several may write one alert: bridges, and people. Each change has a number, its revision, and who writes an alert says which
//! one he read; where another came first he reads again.

mod alerts;
mod incidents;
mod notices;
mod overlays;
mod parts;
mod people;
mod responses;
mod used;

use std::{collections::BTreeMap, ops::Range};

use jiff::Timestamp;
use sqlx::QueryBuilder;

pub use self::{
    alerts::{After, AlertQuery, AlertSort},
    incidents::Told,
    notices::{DueNotice, Notice},
    overlays::{MAX_OVERLAYS, OverlayRow, Revoked},
    parts::{Member, Part},
    people::{Acted, Action, AuditRow, MAX_SUPPRESSIONS, Scope, Suppression, Telling},
    responses::{ResponseRow, ResponseState},
    used::{UsedRow, WorkloadQuery, WorkloadRow},
};
use crate::{
    Document, Error, Ledger,
    build::page,
    ledger::{clip, millis, read, timestamp, transact},
};

/// What became of an alert, by the word of a bridge or of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertState {
    /// Nobody has looked.
    Open,
    /// Somebody looks after it.
    Acknowledged,
    /// It is done with.
    Resolved,
}

impl AlertState {
    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }

    /// What the ledger does not know is open: it is never removed.
    pub(crate) fn read(word: &str) -> Self {
        match word {
            "acknowledged" => Self::Acknowledged,
            "resolved" => Self::Resolved,
            _ => Self::Open,
        }
    }
}

/// An alert in a list: without its document.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertHead {
    /// Its name.
    pub id: String,
    /// The cluster's name.
    pub cluster: String,
    /// The pod's namespace; empty: not known.
    pub namespace: String,
    /// The workload, `Deployment/web`.
    pub owner: String,
    /// The container's name.
    pub container: String,
    /// The image's digest; empty: not known.
    pub digest: String,
    /// The deviation's class.
    pub class: String,
    /// What it is about.
    pub subject: String,
    /// One sentence.
    pub message: String,
    /// What became of it.
    pub state: AlertState,
    /// 0 to 1; kept in millionths.
    pub risk: f64,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// How often.
    pub count: u64,
    /// The number of its last change. Of a row to be written: the one that was read, 0 where there was none.
    pub revision: u64,
    /// It is not resolved, and a suppression covers it now, or a rule ignores it. Not written: suppressions are, and the rules' word.
    pub is_suppressed: bool,
    /// A rule ignores it, and no suppression covers it.
    pub is_ignored: bool,
}

/// An alert with its document.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertRow {
    /// What it is found by.
    pub head: AlertHead,
    /// All of it, as JSON.
    pub document: Document,
    /// Until when a rule ignores all of it that was seen; none: none does.
    pub ignored_until: Option<Timestamp>,
}

/// When a sensor could not see. The same cluster, node, sensor, cause and beginning is the same interval: a later word about it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlindRow {
    /// The cluster's name.
    pub cluster: String,
    /// The node; empty: all of them.
    pub node: String,
    /// The sensor.
    pub sensor: String,
    /// Why, in one word of a fixed list: `dropped`, `silent`, `full`, `away`, `damaged`.
    pub cause: String,
    /// From when on.
    pub from: Timestamp,
    /// Until when, as far as is known.
    pub until: Timestamp,
    /// Events lost, where that is known.
    pub count: Option<u64>,
    /// Why, in a sentence.
    pub reason: String,
}

/// How far a bridge has judged its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The bridge's name, or that of a part of what several share.
    pub bridge: String,
    /// Under which it is written: how often the part was taken. 0 where a bridge has its events for itself.
    pub epoch: u64,
    /// All below this offset is judged.
    pub offset: u64,
    /// What is judged above it, in order.
    pub judged: Vec<Range<u64>>,
    /// When.
    pub at: Timestamp,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// It is written; the alerts' new revisions, in the order they were given.
    Done(Vec<u64>),
    /// Nothing is written: these alerts were changed since they were read. Read them, add to them anew, commit again.
    Stale(Vec<String>),
    /// Nothing is written: another has judged further under this name, or took the part over. Who is told so is to end.
    Overtaken {
        /// How far the other is.
        offset: u64,
    },
}

impl Ledger {
    /// Writes what was judged and how far, in one transaction. Every notice is of an alert among `alerts`; each alert is there once.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`], also for a notice of no alert; then nothing was written, or, where the connection was lost
    /// during the commit, perhaps all: read the checkpoint before judging on.
    pub async fn commit(
        &self,
        checkpoint: &Checkpoint,
        alerts: &[AlertRow],
        blind: &[BlindRow],
        notices: &[Notice],
    ) -> Result<Committed, Error> {
        let judged = pack(&checkpoint.judged)?;
        // In one order, so that each replica's rows are locked alike.
        let blind: BTreeMap<[String; 4], BTreeMap<i64, &BlindRow>> =
            blind.iter().fold(BTreeMap::new(), |mut all: BTreeMap<_, BTreeMap<_, _>>, row| {
                let key = [&row.cluster, &row.node, &row.sensor, &row.cause].map(|text| clip(text));
                all.entry(key).or_default().insert(millis(row.from), row);
                all
            });
        let blind: Vec<_> =
            blind.iter().flat_map(|(key, rows)| rows.iter().map(move |(from, row)| (key, *from, *row))).collect();
        transact!(self, "committing what was judged", |tx| async {
            let (last,): (i64,) =
                sqlx::query_as(alerts::TAKE).bind(number(alerts.len() as u64)).fetch_one(&mut *tx).await?;
            // Locks the row: who takes the part over waits, and then sees what is written here.
            let done: Option<(i64, i64)> =
                sqlx::query_as("UPDATE checkpoints SET epoch = epoch WHERE bridge = $1 RETURNING log_offset, epoch")
                    .bind(&checkpoint.bridge)
                    .fetch_optional(&mut *tx)
                    .await?;
            let (offset, epoch) = done.unwrap_or_default();
            if offset > number(checkpoint.offset) || epoch != number(checkpoint.epoch) {
                return Ok(Committed::Overtaken { offset: offset.unsigned_abs() });
            }
            let mut stale = Vec::new();
            for rows in alerts.chunks(ROWS) {
                let mut query = QueryBuilder::<Db>::new("SELECT id, revision FROM alerts WHERE id IN (");
                let mut list = query.separated(", ");
                for row in rows {
                    list.push_bind(row.head.id.as_str());
                }
                query.push(")");
                let known: Vec<(String, i64)> = query.build_query_as().persistent(false).fetch_all(&mut *tx).await?;
                let known: BTreeMap<String, i64> = known.into_iter().collect();
                let is_stale = |head: &&AlertHead| known.get(&head.id).copied().unwrap_or(0) != number(head.revision);
                stale.extend(rows.iter().map(|row| &row.head).filter(is_stale).map(|head| head.id.clone()));
            }
            if !stale.is_empty() {
                return Ok(Committed::Stale(stale));
            }

            let first = last - number(alerts.len() as u64) + 1;
            let revisions: Vec<i64> = (first..=last).collect();
            let numbered: Vec<(i64, &AlertRow)> = revisions.iter().copied().zip(alerts).collect();
            for rows in numbered.chunks(ROWS) {
                let mut query = QueryBuilder::<Db>::new(alerts::INSERT);
                query.push_values(rows, |mut values, (revision, row)| {
                    let head = &row.head;
                    values.push_bind(head.id.as_str()).push_bind(clip(&head.cluster)).push_bind(clip(&head.namespace));
                    values.push_bind(clip(&head.owner)).push_bind(clip(&head.container)).push_bind(clip(&head.digest));
                    values.push_bind(clip(&head.class)).push_bind(clip(&head.subject)).push_bind(clip(&head.message));
                    values.push_bind(head.state.as_str()).push_bind(alerts::millionths(head.risk));
                    values.push_bind(millis(head.first_seen)).push_bind(millis(head.last_seen));
                    values.push_bind(number(head.count)).push_bind(*revision).push_bind(millis(checkpoint.at));
                    values.push_bind(row.document.digest().as_str()).push_bind(row.document.packed());
                    values.push_bind(row.document.stored_bytes()).push_bind(row.ignored_until.map(millis));
                });
                query.push(alerts::OVERWRITE);
                query.build().persistent(false).execute(&mut *tx).await?;
            }
            for rows in blind.chunks(ROWS) {
                let mut query = QueryBuilder::<Db>::new(
                    "INSERT INTO blind (cluster, node, sensor, cause, begins, ends, lost, reason) ",
                );
                query.push_values(rows, |mut values, ([cluster, node, sensor, cause], from, row)| {
                    values.push_bind(cluster.as_str()).push_bind(node.as_str()).push_bind(sensor.as_str());
                    values.push_bind(cause.as_str()).push_bind(*from).push_bind(millis(row.until));
                    values.push_bind(row.count.map(number)).push_bind(clip(&row.reason));
                });
                query.push(
                    " ON CONFLICT (cluster, node, sensor, cause, begins) DO UPDATE
                      SET ends = excluded.ends, lost = excluded.lost, reason = excluded.reason",
                );
                query.build().persistent(false).execute(&mut *tx).await?;
            }
            let ids = notices::ids(notices, &numbered)?;
            for rows in ids.chunks(ROWS) {
                let mut query = QueryBuilder::<Db>::new(
                    "INSERT INTO notices (id, sink, document, packed, bytes, attempts, next_try, made_at) ",
                );
                query.push_values(rows, |mut values, (id, notice)| {
                    values.push_bind(id.as_str()).push_bind(notice.sink.as_str());
                    values.push_bind(notice.body.digest().as_str()).push_bind(notice.body.packed());
                    values.push_bind(notice.body.stored_bytes()).push_bind(0_i64);
                    values.push_bind(millis(checkpoint.at)).push_bind(millis(checkpoint.at));
                });
                query.build().persistent(false).execute(&mut *tx).await?;
            }
            sqlx::query(
                "INSERT INTO checkpoints (bridge, log_offset, judged, at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (bridge) DO UPDATE
                 SET log_offset = excluded.log_offset, judged = excluded.judged, at = excluded.at",
            )
            .bind(&checkpoint.bridge)
            .bind(number(checkpoint.offset))
            .bind(&judged)
            .bind(millis(checkpoint.at))
            .execute(&mut *tx)
            .await?;
            Ok(Committed::Done(revisions.into_iter().map(i64::unsigned_abs).collect()))
        }
        .await)
    }

    /// How far a bridge has judged; none where it never did.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn checkpoint(&self, bridge: &str) -> Result<Option<Checkpoint>, Error> {
        let row: Option<(i64, Vec<u8>, i64, i64)> = read!(self, "reading a checkpoint", |db| sqlx::query_as(
            "SELECT log_offset, judged, at, epoch FROM checkpoints WHERE bridge = $1"
        )
        .bind(bridge)
        .fetch_optional(db)
        .await)?;
        row.map(|row| read_checkpoint(bridge, row)).transpose()
    }

    /// Blind intervals that end at `since` or later, the latest beginning first: those after a row, at most `limit` and [`crate::PAGE`].
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn blind(
        &self,
        cluster: Option<&str>,
        since: Timestamp,
        after: Option<&BlindRow>,
        limit: u32,
    ) -> Result<Vec<BlindRow>, Error> {
        type Flat = (String, String, String, String, i64, i64, Option<i64>, String);
        let rows: Vec<Flat> = read!(self, "listing blind intervals", |db| async {
            let mut query = QueryBuilder::new(
                "SELECT cluster, node, sensor, cause, begins, ends, lost, reason FROM blind WHERE ends >= ",
            );
            query.push_bind(millis(since));
            if let Some(cluster) = cluster {
                query.push(" AND cluster = ").push_bind(cluster);
            }
            if let Some(row) = after {
                query.push(" AND (begins, cluster, node, sensor, cause) < (").push_bind(millis(row.from));
                for text in [&row.cluster, &row.node, &row.sensor, &row.cause] {
                    query.push(", ").push_bind(text.as_str());
                }
                query.push(")");
            }
            query.push(" ORDER BY begins DESC, cluster DESC, node DESC, sensor DESC, cause DESC LIMIT ");
            query.push_bind(page(limit));
            query.build_query_as().persistent(false).fetch_all(db).await
        }
        .await)?;
        let row = |(cluster, node, sensor, cause, from, until, count, reason): Flat| BlindRow {
            cluster,
            node,
            sensor,
            cause,
            from: timestamp(from),
            until: timestamp(until),
            count: count.map(i64::unsigned_abs),
            reason,
        };
        Ok(rows.into_iter().map(row).collect())
    }
}

/// A row of a checkpoint: how far, what above it, when, under which epoch.
fn read_checkpoint(bridge: &str, row: (i64, Vec<u8>, i64, i64)) -> Result<Checkpoint, Error> {
    let (offset, judged, at, epoch) = row;
    let judged = postcard::from_bytes(&judged).map_err(|error| Error::Damaged {
        what: "checkpoint",
        key: bridge.to_owned(),
        reason: error.to_string(),
    })?;
    let (offset, epoch) = (offset.unsigned_abs(), epoch.unsigned_abs());
    Ok(Checkpoint { bridge: bridge.to_owned(), epoch, offset, judged, at: timestamp(at) })
}

fn pack(judged: &[Range<u64>]) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(judged)
        .map_err(|error| Error::Pack { what: "a checkpoint", source: std::io::Error::other(error) })
}

/// A count as the tables have it.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Rows of one statement: an alert has 19 columns.
const ROWS: usize = 250;
