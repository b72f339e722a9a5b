//! How much the ledger keeps: a stated age and number for each table. What exceeds them is removed in small batches, so that no
//! admission waits behind a long deletion.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use sqlx::AssertSqlSafe;

use crate::{
    Error, Ledger,
    ledger::{Pools, change, millis, read},
};

/// What is kept of each table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Which DNA a subject has. DNAs that no subject has are removed after a day.
    pub subjects: Keep,
    /// Sealed facts.
    pub facts: Keep,
    /// Bindings, of pods that nobody said ended. Expectations that no binding has are removed after a day.
    pub bindings: Keep,
    /// Decisions.
    pub decisions: Keep,
    /// Pieces of work that were done or failed.
    pub work: Keep,
    /// Alerts that are resolved, by the time of their last change. Others are never removed.
    pub alerts: Keep,
    /// Suppressions that ended.
    pub suppressions: Keep,
    /// Blind intervals, by their end.
    pub blind: Keep,
    /// What a sink could not be told.
    pub notices: Keep,
    /// Images, by when they were last seen.
    pub images: Keep,
    /// Overlays that ended.
    pub overlays: Keep,
    /// What workloads were seen to do, by when they last did it.
    pub used: Keep,
}

/// What is kept of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// For so long; for ever where it is absent.
    pub age: Option<Duration>,
    /// At most so many rows, the latest.
    pub rows: u32,
}

impl Default for Retention {
    /// Half a year of DNAs, a week of facts (they are fetched again), a quarter of decisions and of resolved alerts; bindings as long as
    /// pods live.
    fn default() -> Self {
        Self {
            subjects: Keep { age: Some(180 * DAY), rows: 200_000 },
            facts: Keep { age: Some(7 * DAY), rows: 500_000 },
            bindings: Keep { age: None, rows: 1_000_000 },
            decisions: Keep { age: Some(90 * DAY), rows: 1_000_000 },
            work: Keep { age: Some(7 * DAY), rows: 20_000 },
            alerts: Keep { age: Some(90 * DAY), rows: 200_000 },
            suppressions: Keep { age: Some(90 * DAY), rows: 100_000 },
            blind: Keep { age: Some(30 * DAY), rows: 500_000 },
            notices: Keep { age: Some(7 * DAY), rows: 100_000 },
            images: Keep { age: Some(180 * DAY), rows: 200_000 },
            overlays: Keep { age: Some(400 * DAY), rows: 20_000 },
            used: Keep { age: Some(90 * DAY), rows: 2_000_000 },
        }
    }
}

/// How large the ledger is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes in use on disk, of all tables and indexes; for SQLite without free pages, which are used again.
    pub bytes: u64,
    /// Rows of each table.
    pub rows: BTreeMap<&'static str, u64>,
}

impl Ledger {
    /// Removes what exceeds the limits. Returns the rows removed of each table; what a call leaves, as it is bounded, the next
    /// removes. Any number of replicas may call it.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn prune(&self, retention: &Retention, now: Timestamp) -> Result<BTreeMap<&'static str, u64>, Error> {
        let mut removed = BTreeMap::new();
        let tables = [
            (&SUBJECTS, retention.subjects),
            (&FACTS, retention.facts),
            (&BINDINGS, retention.bindings),
            (&DECISIONS, retention.decisions),
            (&WORK, retention.work),
            (&ALERTS, retention.alerts),
            (&SUPPRESSIONS, retention.suppressions),
            (&BLIND, retention.blind),
            (&NOTICES, retention.notices),
            (&IMAGES, retention.images),
            (&OVERLAYS, retention.overlays),
            (&INCIDENTS_TOLD, retention.alerts),
            (&RESPONSES, retention.alerts),
            (&USED, retention.used),
            (&WORKLOADS, retention.used),
        ];
        for (table, keep) in tables {
            let by_age = keep.age.map(|age| millis(now).saturating_sub(to_millis(age)));
            let by_rows = self.cutoff(table, keep.rows).await?;
            let Some(until) = by_age.max(by_rows) else { continue };
            // What ends in the future still holds, however many there are.
            removed.insert(table.name, self.delete(table.delete, until.min(millis(now))).await?);
        }
        // Made of what was left by the above, and by removed bindings.
        let unused = millis(now).saturating_sub(to_millis(DAY));
        for (name, sql) in UNUSED {
            removed.insert(name, self.delete(sql, unused).await?);
        }
        removed.retain(|_, rows| *rows > 0);
        Ok(removed)
    }

    /// The time of the first row that is one too many, latest first.
    async fn cutoff(&self, table: &Table, rows: u32) -> Result<Option<i64>, Error> {
        let row: Option<(i64,)> = read!(self, "counting rows", |db| sqlx::query_as(table.cutoff)
            .bind(i64::from(rows))
            .fetch_optional(db)
            .await)?;
        Ok(row.map(|(at,)| at))
    }

    /// Deletes the rows of a table up to a time, oldest first, in batches.
    async fn delete(&self, sql: &'static str, until: i64) -> Result<u64, Error> {
        let mut removed = 0;
        for _ in 0..BATCHES {
            let rows = change!(self, "removing old rows", sqlx::query(sql).bind(until).bind(BATCH))?;
            removed += rows;
            if rows < BATCH.unsigned_abs() {
                break;
            }
        }
        Ok(removed)
    }

    /// How large the ledger is, for metrics. It counts every row: ask once a minute, not with each request.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn size(&self) -> Result<Size, Error> {
        let mut size = Size::default();
        for table in TABLES {
            // Names of our own tables.
            let sql = format!("SELECT COUNT(*) FROM {table}");
            let (rows,): (i64,) =
                read!(self, "counting rows", |db| sqlx::query_as(AssertSqlSafe(sql.clone())).fetch_one(db).await)?;
            size.rows.insert(table, rows.unsigned_abs());
        }
        let (bytes,): (i64,) = match self.pools() {
            Pools::Sqlite { read, .. } => {
                self.bounded("measuring", sqlx::query_as(SQLITE_BYTES).fetch_one(read)).await?
            }
            Pools::Postgres(pool) => self.bounded("measuring", sqlx::query_as(POSTGRES_BYTES).fetch_one(pool)).await?,
        };
        size.bytes = bytes.unsigned_abs();
        Ok(size)
    }
}

/// How rows of a table are counted and removed.
struct Table {
    name: &'static str,
    cutoff: &'static str,
    delete: &'static str,
}

const SUBJECTS: Table = Table {
    name: "subject_dna",
    cutoff: "SELECT at FROM subject_dna ORDER BY at DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM subject_dna WHERE (subject, rules, source) IN
             (SELECT subject, rules, source FROM subject_dna WHERE at <= $1 ORDER BY at LIMIT $2)",
};
const FACTS: Table = Table {
    name: "facts",
    cutoff: "SELECT fetched_at FROM facts ORDER BY fetched_at DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM facts WHERE (kind, key) IN
             (SELECT kind, key FROM facts WHERE fetched_at <= $1 ORDER BY fetched_at LIMIT $2)",
};
const BINDINGS: Table = Table {
    name: "bindings",
    cutoff: "SELECT at FROM bindings ORDER BY at DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM bindings WHERE (cluster, pod_uid, container, platform) IN
             (SELECT cluster, pod_uid, container, platform FROM bindings WHERE at <= $1 ORDER BY at LIMIT $2)",
};
const DECISIONS: Table = Table {
    name: "decisions",
    cutoff: "SELECT at FROM decisions ORDER BY at DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM decisions WHERE id IN (SELECT id FROM decisions WHERE at <= $1 ORDER BY at LIMIT $2)",
};
const WORK: Table = Table {
    name: "work",
    cutoff: "SELECT finished_at FROM work WHERE state IN ('done', 'failed') ORDER BY finished_at DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM work WHERE state IN ('done', 'failed') AND (image, platform) IN
             (SELECT image, platform FROM work WHERE state IN ('done', 'failed') AND finished_at <= $1
              ORDER BY finished_at LIMIT $2)",
};
const ALERTS: Table = Table {
    name: "alerts",
    cutoff: "SELECT changed_at FROM alerts WHERE state = 'resolved' ORDER BY changed_at DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM alerts WHERE state = 'resolved' AND id IN
             (SELECT id FROM alerts WHERE state = 'resolved' AND changed_at <= $1 ORDER BY changed_at LIMIT $2)",
};
const SUPPRESSIONS: Table = Table {
    name: "suppressions",
    cutoff: "SELECT expires_at FROM suppressions ORDER BY expires_at DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM suppressions WHERE id IN
             (SELECT id FROM suppressions WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
};
const BLIND: Table = Table {
    name: "blind",
    cutoff: "SELECT ends FROM blind ORDER BY ends DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM blind WHERE (cluster, node, sensor, cause, begins) IN
             (SELECT cluster, node, sensor, cause, begins FROM blind WHERE ends <= $1 ORDER BY ends LIMIT $2)",
};
const NOTICES: Table = Table {
    name: "notices",
    cutoff: "SELECT made_at FROM notices ORDER BY made_at DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM notices WHERE (id, sink) IN
             (SELECT id, sink FROM notices WHERE made_at <= $1 ORDER BY made_at LIMIT $2)",
};
const IMAGES: Table = Table {
    name: "known_images",
    cutoff: "SELECT last_at FROM known_images ORDER BY last_at DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM known_images WHERE (digest, repository) IN
             (SELECT digest, repository FROM known_images WHERE last_at <= $1 ORDER BY last_at LIMIT $2)",
};
const OVERLAYS: Table = Table {
    name: "overlays",
    cutoff: "SELECT expires_at FROM overlays ORDER BY expires_at DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM overlays WHERE id IN
             (SELECT id FROM overlays WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
};
/// What holds is never removed.
const RESPONSES: Table = Table {
    name: "responses",
    cutoff: "SELECT at FROM responses WHERE state <> 'done' ORDER BY at DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM responses WHERE id IN
             (SELECT id FROM responses WHERE state <> 'done' AND at <= $1 ORDER BY at LIMIT $2)",
};
const USED: Table = Table {
    name: "used",
    cutoff: "SELECT last_seen FROM used ORDER BY last_seen DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM used WHERE (workload, dimension, item) IN
             (SELECT workload, dimension, item FROM used WHERE last_seen <= $1 ORDER BY last_seen LIMIT $2)",
};
const WORKLOADS: Table = Table {
    name: "workloads",
    cutoff: "SELECT last_seen FROM workloads ORDER BY last_seen DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM workloads WHERE id IN (SELECT id FROM workloads WHERE last_seen <= $1 ORDER BY last_seen LIMIT $2)",
};
const INCIDENTS_TOLD: Table = Table {
    name: "incidents_told",
    cutoff: "SELECT at FROM incidents_told ORDER BY at DESC LIMIT 1 OFFSET $1",
    delete: "DELETE FROM incidents_told WHERE id IN (SELECT id FROM incidents_told WHERE at <= $1 ORDER BY at LIMIT $2)",
};
/// What nothing refers to any more.
const UNUSED: [(&str, &str); 5] = [
    ("dna", UNUSED_DNA),
    ("expectations", UNUSED_EXPECTATIONS),
    ("images", UNUSED_IMAGES),
    ("alert_audit", UNUSED_AUDIT),
    ("index_images", UNUSED_INDEXES),
];
const UNUSED_DNA: &str = "DELETE FROM dna WHERE digest IN
    (SELECT digest FROM dna WHERE stored_at <= $1
     AND NOT EXISTS (SELECT 1 FROM subject_dna WHERE subject_dna.dna = dna.digest) ORDER BY stored_at LIMIT $2)";
const UNUSED_EXPECTATIONS: &str = "DELETE FROM expectations WHERE digest IN
    (SELECT digest FROM expectations WHERE stored_at <= $1
     AND NOT EXISTS (SELECT 1 FROM bindings WHERE bindings.expectation = expectations.digest)
     ORDER BY stored_at LIMIT $2)";
/// A decision and its images are written together: images without one belong to a decision that was removed, at any time.
const UNUSED_IMAGES: &str = "DELETE FROM decision_images WHERE $1 = $1 AND (digest, decision) IN
    (SELECT digest, decision FROM decision_images
     WHERE NOT EXISTS (SELECT 1 FROM decisions WHERE decisions.id = decision_images.decision) LIMIT $2)";
/// Of alerts that were removed, at any time.
const UNUSED_AUDIT: &str = "DELETE FROM alert_audit WHERE $1 = $1 AND (alert, revision) IN
    (SELECT alert, revision FROM alert_audit
     WHERE NOT EXISTS (SELECT 1 FROM alerts WHERE alerts.id = alert_audit.alert) LIMIT $2)";
/// Of images that were removed, at any time: both are written together.
const UNUSED_INDEXES: &str = "DELETE FROM index_images WHERE $1 = $1 AND (digest, platform, image) IN
    (SELECT digest, platform, image FROM index_images
     WHERE NOT EXISTS (SELECT 1 FROM known_images WHERE known_images.digest = index_images.image) LIMIT $2)";

const TABLES: [&str; 21] = [
    "dna",
    "subject_dna",
    "facts",
    "expectations",
    "bindings",
    "decisions",
    "decision_images",
    "work",
    "alerts",
    "alert_audit",
    "suppressions",
    "blind",
    "checkpoints",
    "notices",
    "known_images",
    "index_images",
    "incidents_told",
    "overlays",
    "responses",
    "used",
    "workloads",
];
const SQLITE_BYTES: &str = "SELECT (p.page_count - f.freelist_count) * s.page_size
    FROM pragma_page_count() p, pragma_freelist_count() f, pragma_page_size() s";
const POSTGRES_BYTES: &str = "SELECT CAST(COALESCE(SUM(pg_total_relation_size(c.oid)), 0) AS BIGINT) FROM pg_class c
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND c.relname IN
    ('dna', 'subject_dna', 'facts', 'expectations', 'bindings', 'decisions', 'decision_images', 'work',
     'alerts', 'alert_audit', 'suppressions', 'blind', 'checkpoints', 'notices', 'known_images', 'index_images',
     'overlays', 'responses', 'incidents_told', 'used', 'workloads')";

fn to_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

const DAY: Duration = Duration::from_secs(86_400);
/// Rows of one transaction.
const BATCH: i64 = 500;
/// Batches of one call and table.
const BATCHES: u32 = 40;
