//! Alerts: found by filter, page by page, in the order that was asked for.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::QueryBuilder;

use super::{AlertHead, AlertRow, AlertState, number};
use crate::{
    Document, Error, Ledger,
    build::{digest, page},
    ledger::{millis, read, timestamp},
};

/// Which alerts to list; what is absent is not asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AlertQuery {
    /// In this cluster.
    pub cluster: Option<String>,
    /// In one of these namespaces: what the reader may see.
    pub namespaces: Option<BTreeSet<String>>,
    /// Of this workload.
    pub owner: Option<String>,
    /// Of an image of this digest.
    pub digest: Option<String>,
    /// Of this class.
    pub class: Option<String>,
    /// In this state.
    pub state: Option<AlertState>,
    /// Covered by a suppression, or not.
    pub is_suppressed: Option<bool>,
    /// With this risk or a higher one.
    pub min_risk: Option<f64>,
    /// Seen at this time or later.
    pub since: Option<Timestamp>,
    /// In which order.
    pub sort: AlertSort,
    /// The lowest first, not the highest.
    pub is_ascending: bool,
    /// The next page: what comes after this place.
    pub after: Option<After>,
    /// At most so many, and [`crate::PAGE`].
    pub limit: u32,
}

/// What alerts are sorted by; of equal ones, by id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AlertSort {
    /// When it was last seen.
    #[default]
    LastSeen,
    /// When it was first seen.
    FirstSeen,
    /// How likely it is an attack.
    Risk,
    /// How often it was seen.
    Count,
    /// When it last changed.
    Revision,
}

impl AlertSort {
    const fn column(self) -> &'static str {
        match self {
            Self::LastSeen => "last_seen",
            Self::FirstSeen => "first_seen",
            Self::Risk => "risk",
            Self::Count => "count",
            Self::Revision => "revision",
        }
    }
}

/// A place in a sorted list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    /// What is sorted by, as the tables have it.
    pub key: i64,
    /// The alert's name.
    pub id: String,
}

impl After {
    /// The place of an alert in a list sorted so.
    pub fn head(head: &AlertHead, sort: AlertSort) -> Self {
        let key = match sort {
            AlertSort::LastSeen => millis(head.last_seen),
            AlertSort::FirstSeen => millis(head.first_seen),
            AlertSort::Risk => millionths(head.risk),
            AlertSort::Count => number(head.count),
            AlertSort::Revision => number(head.revision),
        };
        Self { key, id: head.id.clone() }
    }

    /// The place behind a change, in a list by [`AlertSort::Revision`], ascending.
    pub fn revision(revision: u64) -> Self {
        Self { key: number(revision.saturating_add(1)), id: String::new() }
    }
}

/// Asks how an alert stands at a time: 1 where a suppression covers it, 2 where only a rule ignores it, else 0.
macro_rules! standing {
    ($query:expr, $now:expr) => {
        $query.push("CAST(CASE WHEN state = 'resolved' THEN 0 WHEN ");
        $query.push(SUPPRESSED).push_bind(millis($now)).push(") THEN 1 WHEN COALESCE(ignored_until, 0) > ");
        $query.push_bind(millis($now)).push(" THEN 2 ELSE 0 END AS BIGINT)");
    };
}

/// The columns in the order of [`Flat`], but for the last.
macro_rules! columns {
    () => {
        "id, cluster, namespace, owner, container, digest, class, subject, message, state, risk, first_seen, last_seen, count, revision"
    };
}

impl Ledger {
    /// Alerts by filter, without their documents. `now` tells which suppressions hold.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn alerts(&self, asked: &AlertQuery, now: Timestamp) -> Result<Vec<AlertHead>, Error> {
        let rows: Vec<Flat> = read!(self, "listing alerts", |db| async {
            let mut query = QueryBuilder::new(concat!("SELECT ", columns!(), ", "));
            standing!(query, now);
            query.push(" FROM alerts WHERE 1 = 1");
            let texts = [
                (" AND cluster = ", &asked.cluster),
                (" AND owner = ", &asked.owner),
                (" AND digest = ", &asked.digest),
                (" AND class = ", &asked.class),
            ];
            for (sql, text) in texts {
                if let Some(text) = text {
                    query.push(sql).push_bind(text.as_str());
                }
            }
            if let Some(namespaces) = &asked.namespaces {
                // Never empty: a list of none fits none. No namespace has a NUL.
                query.push(" AND namespace IN (' '");
                for namespace in namespaces {
                    query.push(", ").push_bind(namespace.as_str());
                }
                query.push(")");
            }
            if let Some(state) = asked.state {
                query.push(" AND state = ").push_bind(state.as_str());
            }
            if let Some(is_suppressed) = asked.is_suppressed {
                query.push(" AND ");
                standing!(query, now);
                query.push(if is_suppressed { " <> 0" } else { " = 0" });
            }
            if let Some(risk) = asked.min_risk {
                query.push(" AND risk >= ").push_bind(millionths(risk));
            }
            if let Some(since) = asked.since {
                query.push(" AND last_seen >= ").push_bind(millis(since));
            }
            let (column, is_up) = (asked.sort.column(), asked.is_ascending);
            if let Some(after) = &asked.after {
                query.push(" AND (").push(column).push(if is_up { ", id) > (" } else { ", id) < (" });
                query.push_bind(after.key).push(", ").push_bind(after.id.as_str()).push(")");
            }
            let way = if is_up { " ASC" } else { " DESC" };
            query.push(" ORDER BY ").push(column).push(way).push(", id").push(way);
            query.push(" LIMIT ").push_bind(page(asked.limit));
            query.build_query_as().persistent(false).fetch_all(db).await
        }
        .await)?;
        Ok(rows.into_iter().map(head).collect())
    }

    /// Alerts by name with their documents, in the order of their names; those that are not there are left out.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn alerts_by_id(&self, ids: &BTreeSet<String>, now: Timestamp) -> Result<Vec<AlertRow>, Error> {
        let mut found = Vec::new();
        let ids: Vec<&String> = ids.iter().collect();
        for ids in ids.chunks(super::ROWS) {
            // One statement, so that heads and documents are of one moment: the columns of both are more than a tuple has.
            let rows: Vec<Whole> = read!(self, "reading alerts", |db| async {
                let mut query = QueryBuilder::new(concat!("SELECT ", columns!(), ", "));
                standing!(query, now);
                query.push(", document, bytes, packed, ignored_until FROM alerts WHERE id IN (");
                let mut list = query.separated(", ");
                for id in ids {
                    list.push_bind(id.as_str());
                }
                query.push(") ORDER BY id");
                query.build_query_as().persistent(false).fetch_all(db).await
            }
            .await)?;
            for Whole { flat, document, bytes, packed, ignored_until } in rows {
                let document = Document::stored(digest("alert", document)?, bytes, packed);
                found.push(AlertRow { head: head(flat), document, ignored_until: ignored_until.map(timestamp) });
            }
        }
        Ok(found)
    }

    /// The number of the last change to any alert.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn last_revision(&self) -> Result<u64, Error> {
        let (last,): (i64,) = read!(self, "reading the last revision", |db| sqlx::query_as(
            "SELECT last FROM revisions WHERE name = 'alerts'"
        )
        .fetch_one(db)
        .await)?;
        Ok(last.unsigned_abs())
    }

    /// The namespaces that alerts or decisions are about, at most `limit` of each: what a reader's rights are asked for.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn namespaces(&self, limit: u32) -> Result<BTreeSet<String>, Error> {
        let mut all = BTreeSet::new();
        for sql in [ALERTED, DECIDED] {
            let rows: Vec<(String,)> =
                read!(self, "listing namespaces", |db| sqlx::query_as(sql).bind(page(limit)).fetch_all(db).await)?;
            all.extend(rows.into_iter().map(|(namespace,)| namespace));
        }
        Ok(all)
    }
}

/// A risk as the tables have it.
#[expect(clippy::cast_possible_truncation, reason = "a risk is at most 1, and a cast saturates")]
pub(super) fn millionths(risk: f64) -> i64 {
    (risk * MILLION).round() as i64
}

type Flat =
    (String, String, String, String, String, String, String, String, String, String, i64, i64, i64, i64, i64, i64);

struct Whole {
    flat: Flat,
    document: String,
    bytes: i64,
    packed: Vec<u8>,
    ignored_until: Option<i64>,
}

impl<'r, R: sqlx::Row> sqlx::FromRow<'r, R> for Whole
where
    Flat: sqlx::FromRow<'r, R>,
    usize: sqlx::ColumnIndex<R>,
    String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    Option<i64>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    Vec<u8>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            flat: Flat::from_row(row)?,
            document: row.try_get(16)?,
            bytes: row.try_get(17)?,
            packed: row.try_get(18)?,
            ignored_until: row.try_get(19)?,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a risk is at most a million millionths")]
pub(super) fn head(flat: Flat) -> AlertHead {
    let (
        id,
        cluster,
        namespace,
        owner,
        container,
        digest,
        class,
        subject,
        message,
        state,
        risk,
        first_seen,
        last_seen,
        count,
        revision,
        suppressed,
    ) = flat;
    AlertHead {
        id,
        cluster,
        namespace,
        owner,
        container,
        digest,
        class,
        subject,
        message,
        state: AlertState::read(&state),
        risk: risk as f64 / MILLION,
        first_seen: timestamp(first_seen),
        last_seen: timestamp(last_seen),
        count: count.unsigned_abs(),
        revision: revision.unsigned_abs(),
        is_suppressed: suppressed != 0,
        is_ignored: suppressed == 2,
    }
}

const MILLION: f64 = 1e6;

pub(super) const INSERT: &str =
    concat!("INSERT INTO alerts (", columns!(), ", changed_at, document, packed, bytes, ignored_until) ");

pub(super) const OVERWRITE: &str = " ON CONFLICT (id) DO UPDATE
    SET cluster = excluded.cluster, namespace = excluded.namespace, owner = excluded.owner, container = excluded.container,
        digest = excluded.digest, class = excluded.class, subject = excluded.subject, message = excluded.message,
        state = excluded.state, risk = excluded.risk, first_seen = excluded.first_seen, last_seen = excluded.last_seen,
        count = excluded.count, revision = excluded.revision, changed_at = excluded.changed_at,
        document = excluded.document, packed = excluded.packed, bytes = excluded.bytes,
        ignored_until = excluded.ignored_until";

/// Whether a suppression covers an alert; the time and a parenthesis follow.
const SUPPRESSED: &str = "EXISTS (SELECT 1 FROM suppressions s
    WHERE (s.owner = alerts.owner OR s.owner IS NULL) AND (s.cluster IS NULL OR s.cluster = alerts.cluster)
      AND (s.namespace IS NULL OR s.namespace = alerts.namespace) AND (s.container IS NULL OR s.container = alerts.container)
      AND (s.digest IS NULL OR s.digest = alerts.digest) AND (s.class IS NULL OR s.class = alerts.class)
      AND (s.subject IS NULL OR s.subject = alerts.subject) AND s.expires_at > ";

/// Each name is looked up behind the one before it: an index is read once for each name and not once for each row.
macro_rules! names {
    ($table:literal) => {
        concat!(
            "WITH RECURSIVE names (name) AS (SELECT MIN(namespace) FROM ",
            $table,
            " UNION ALL SELECT (SELECT MIN(namespace) FROM ",
            $table,
            " WHERE namespace > names.name) FROM names WHERE names.name IS NOT NULL)
             SELECT name FROM names WHERE name IS NOT NULL LIMIT $1"
        )
    };
}

const ALERTED: &str = names!("alerts");
const DECIDED: &str = names!("decisions");

/// Takes the next numbers of changes, which locks out other writers of alerts until the transaction ends; gives the last of them.
pub(super) const TAKE: &str = "UPDATE revisions SET last = last + $1 WHERE name = 'alerts' RETURNING last";
