//! Decisions that were written: by id, digest, namespace, verdict and time, page by page; and those to be made again.

use dna::Digest;
use jiff::Timestamp;
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::{
    Decision, DecisionImage, Document, Error, Ledger, RuleVersion, Verdict,
    bindings::id,
    build::{digest, page},
    ledger::{change, millis, read, timestamp},
};

/// Which decisions to list; what is absent is not asked for.
#[derive(Debug, Clone, Default)]
pub struct DecisionQuery {
    /// About an image of this digest.
    pub digest: Option<Digest>,
    /// In this cluster.
    pub cluster: Option<String>,
    /// In this namespace.
    pub namespace: Option<String>,
    /// With this verdict.
    pub verdict: Option<Verdict>,
    /// Made at this time or later.
    pub since: Option<Timestamp>,
    /// Made before this time.
    pub until: Option<Timestamp>,
    /// Admitted without all facts, and not decided again since.
    pub has_unknowns: bool,
    /// The next page: those older than this one, the last that was read.
    pub before: Option<Uuid>,
    /// At most so many, and [`crate::PAGE`].
    pub limit: u32,
}

/// A decision in a list: without details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionRow {
    /// Its name.
    pub id: Uuid,
    /// When it was made.
    pub at: Timestamp,
    /// The cluster's name.
    pub cluster: String,
    /// The object's namespace.
    pub namespace: String,
    /// The object's kind.
    pub kind: String,
    /// The object's name.
    pub name: String,
    /// Who asked.
    pub user: String,
    /// What was asked.
    pub operation: String,
    /// What was decided.
    pub verdict: Verdict,
    /// Whether it is to be decided again.
    pub has_unknowns: bool,
    /// The images it was about.
    pub images: Vec<DecisionImage>,
}

impl Ledger {
    /// Decisions, latest first.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn decisions(&self, asked: &DecisionQuery) -> Result<Vec<DecisionRow>, Error> {
        let rows: Vec<Flat> = read!(self, "listing decisions", |db| async {
            let mut query = QueryBuilder::new(
                "SELECT id, at, cluster, namespace, kind, name, requester, operation, verdict, unknowns, images
                 FROM decisions WHERE ",
            );
            // Names of version 7 sort by time; below every name is "", above it "g".
            query.push("id < ").push_bind(asked.before.map_or_else(|| "g".to_owned(), |id| id.to_string()));
            if let Some(digest) = &asked.digest {
                query.push(" AND id IN (SELECT decision FROM decision_images WHERE digest = ");
                query.push_bind(digest.as_str()).push(")");
            }
            if let Some(cluster) = &asked.cluster {
                query.push(" AND cluster = ").push_bind(cluster.as_str());
            }
            if let Some(namespace) = &asked.namespace {
                query.push(" AND namespace = ").push_bind(namespace.as_str());
            }
            if let Some(verdict) = asked.verdict {
                query.push(" AND verdict = ").push_bind(verdict.as_str());
            }
            if let Some(since) = asked.since {
                query.push(" AND at >= ").push_bind(millis(since));
            }
            if let Some(until) = asked.until {
                query.push(" AND at < ").push_bind(millis(until));
            }
            if asked.has_unknowns {
                query.push(" AND unknowns = 1");
            }
            query.push(" ORDER BY id DESC LIMIT ").push_bind(page(asked.limit));
            query.build_query_as().persistent(false).fetch_all(db).await
        }
        .await)?;
        rows.into_iter().map(row).collect()
    }

    /// A decision with its details.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn decision(&self, id: Uuid) -> Result<Option<Decision>, Error> {
        let key = id.to_string();
        let found: Option<(Flat, Rest)> = read!(self, "reading a decision", |db| async {
            let flat: Option<Flat> = sqlx::query_as(
                "SELECT id, at, cluster, namespace, kind, name, requester, operation, verdict, unknowns, images
                 FROM decisions WHERE id = $1",
            )
            .bind(&key)
            .fetch_optional(db)
            .await?;
            let rest: Option<Rest> =
                sqlx::query_as("SELECT rules, details, bytes, packed FROM decisions WHERE id = $1")
                    .bind(&key)
                    .fetch_optional(db)
                    .await?;
            Ok(flat.zip(rest))
        }
        .await)?;
        let Some((flat, (rules, details, bytes, packed))) = found else { return Ok(None) };
        let row = row(flat)?;
        let rules: Vec<RuleVersion> = json(&key, &rules)?;
        Ok(Some(Decision {
            id: row.id,
            at: row.at,
            cluster: row.cluster,
            namespace: row.namespace,
            kind: row.kind,
            name: row.name,
            user: row.user,
            operation: row.operation,
            verdict: row.verdict,
            is_dry_run: false,
            has_unknowns: row.has_unknowns,
            images: row.images,
            rules,
            details: Document::stored(digest("decision", details)?, bytes, packed),
        }))
    }

    /// Says that a decision was made again, with all facts. Returns whether it was to be.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn settle(&self, id: Uuid) -> Result<bool, Error> {
        let key = id.to_string();
        let done = change!(
            self,
            "settling a decision",
            sqlx::query("UPDATE decisions SET unknowns = 0 WHERE id = $1 AND unknowns = 1").bind(&key)
        )?;
        Ok(done == 1)
    }
}

type Flat = (String, i64, String, String, String, String, String, String, String, i64, String);
type Rest = (String, String, i64, Vec<u8>);

fn row(flat: Flat) -> Result<DecisionRow, Error> {
    let (key, at, cluster, namespace, kind, name, user, operation, verdict, unknowns, images) = flat;
    Ok(DecisionRow {
        id: id("decision", &key)?,
        at: timestamp(at),
        cluster,
        namespace,
        kind,
        name,
        user,
        operation,
        verdict: Verdict::read(&verdict),
        has_unknowns: unknowns != 0,
        images: json(&key, &images)?,
    })
}

fn json<T: serde::de::DeserializeOwned>(key: &str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::Damaged {
        what: "decision",
        key: key.to_owned(),
        reason: error.to_string(),
    })
}
