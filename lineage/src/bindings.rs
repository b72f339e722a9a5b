//! Bindings that were written: by pod, by digest, since a time; and their end.

use std::collections::BTreeSet;

use dna::Digest;
use jiff::Timestamp;
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::{
    Document, Error, Ledger,
    build::{digest, page},
    ledger::{millis, read, timestamp, transact},
};

/// A binding in a list: as [`crate::Binding`], with its expectation by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingRow {
    /// The cluster's name.
    pub cluster: String,
    /// The pod's `metadata.uid`.
    pub pod_uid: String,
    /// The container's name.
    pub container: String,
    /// The platform whose image it is; empty: not known.
    pub platform: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name; empty where the API server was yet to make one.
    pub pod: String,
    /// The controller, as `Kind/name`.
    pub owner: Option<String>,
    /// The image as the pod names it.
    pub image: String,
    /// The platform's manifest digest that was verified.
    pub digest: Option<Digest>,
    /// The name of what the container may do: [`Ledger::expectation`] has it.
    pub expectation: Option<Digest>,
    /// The decision that admitted it.
    pub decision: Option<Uuid>,
    /// When it was admitted.
    pub at: Timestamp,
    /// When the ledger learned of it.
    pub written_at: Timestamp,
}

/// Where a list by time goes on: after the last row that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    written_at: Timestamp,
    pod_uid: String,
    container: String,
    platform: String,
}

impl Since {
    /// From a time on.
    pub fn time(written_at: Timestamp) -> Self {
        Self { written_at, pod_uid: String::new(), container: String::new(), platform: String::new() }
    }
}

impl From<&BindingRow> for Since {
    fn from(row: &BindingRow) -> Self {
        Self {
            written_at: row.written_at,
            pod_uid: row.pod_uid.clone(),
            container: row.container.clone(),
            platform: row.platform.clone(),
        }
    }
}

impl Ledger {
    /// The bindings of a pod, by container and platform.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn bindings_of_pod(&self, cluster: &str, pod_uid: &str) -> Result<Vec<BindingRow>, Error> {
        let rows = read!(self, "reading the bindings of a pod", |db| sqlx::query_as(SELECT_OF_POD)
            .bind(cluster)
            .bind(pod_uid)
            .bind(page(u32::MAX))
            .fetch_all(db)
            .await)?;
        rows.into_iter().map(row).collect()
    }

    /// The bindings to a digest in all clusters, those after a row, at most `limit` and [`crate::PAGE`].
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn bindings_to(
        &self,
        digest: &Digest,
        after: Option<&BindingRow>,
        limit: u32,
    ) -> Result<Vec<BindingRow>, Error> {
        let (cluster, pod, container, platform) =
            after.map_or(("", "", "", ""), |row| (&*row.cluster, &*row.pod_uid, &*row.container, &*row.platform));
        let rows = read!(self, "reading the bindings to a digest", |db| sqlx::query_as(SELECT_TO_DIGEST)
            .bind(digest.as_str())
            .bind(cluster)
            .bind(pod)
            .bind(container)
            .bind(platform)
            .bind(page(limit))
            .fetch_all(db)
            .await)?;
        rows.into_iter().map(row).collect()
    }

    /// The bindings of a cluster that the ledger learned of after `since`, in that order, at most `limit` and [`crate::PAGE`].
    /// A replica's transaction may end some seconds after the times in it, and clocks differ: who follows the ledger reads again
    /// from a minute before his last row.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn bindings_since(&self, cluster: &str, since: &Since, limit: u32) -> Result<Vec<BindingRow>, Error> {
        let rows = read!(self, "reading new bindings", |db| sqlx::query_as(SELECT_SINCE)
            .bind(cluster)
            .bind(millis(since.written_at))
            .bind(&since.pod_uid)
            .bind(&since.container)
            .bind(&since.platform)
            .bind(page(limit))
            .fetch_all(db)
            .await)?;
        rows.into_iter().map(row).collect()
    }

    /// What a container may do, its digest checked.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn expectation(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let row: Option<(i64, Vec<u8>)> = read!(self, "reading an expectation", |db| sqlx::query_as(
            "SELECT bytes, packed FROM expectations WHERE digest = $1"
        )
        .bind(digest.as_str())
        .fetch_optional(db)
        .await)?;
        row.map(|(bytes, packed)| Document::stored(digest.clone(), bytes, packed).unpack()).transpose()
    }

    /// Removes the bindings of pods that ended. Returns how many.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn remove_pods(&self, cluster: &str, pod_uids: &[String]) -> Result<u64, Error> {
        let mut removed = 0;
        for uids in pod_uids.chunks(BATCH) {
            removed += transact!(self, "removing bindings", |tx| async {
                let mut query = QueryBuilder::<Db>::new("DELETE FROM bindings WHERE cluster = ");
                query.push_bind(cluster).push(" AND pod_uid IN (");
                let mut list = query.separated(", ");
                for uid in uids {
                    list.push_bind(uid.as_str());
                }
                query.push(")");
                Ok(query.build().persistent(false).execute(&mut *tx).await?.rows_affected())
            }
            .await)?;
        }
        Ok(removed)
    }

    /// Removes the bindings of a cluster that were admitted before a time and whose pods are not among `running`: those that
    /// ended unseen, or that were admitted and never came to be. Returns how many.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn keep_pods(
        &self,
        cluster: &str,
        running: &BTreeSet<String>,
        admitted_before: Timestamp,
    ) -> Result<u64, Error> {
        let (mut removed, mut after) = (0, String::new());
        loop {
            let uids: Vec<(String,)> = read!(self, "listing pods", |db| sqlx::query_as(
                "SELECT DISTINCT pod_uid FROM bindings WHERE cluster = $1 AND pod_uid > $2 AND at < $3
                 ORDER BY pod_uid LIMIT $4"
            )
            .bind(cluster)
            .bind(&after)
            .bind(millis(admitted_before))
            .bind(page(u32::MAX))
            .fetch_all(db)
            .await)?;
            let Some((last,)) = uids.last() else { return Ok(removed) };
            after.clone_from(last);
            let gone: Vec<String> = uids.into_iter().map(|(uid,)| uid).filter(|uid| !running.contains(uid)).collect();
            removed += self.remove_pods(cluster, &gone).await?;
        }
    }
}

/// The columns in the order of [`Flat`].
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT cluster, pod_uid, container, platform, namespace, pod, owner, image, digest, expectation, decision, at,
             written_at FROM bindings WHERE ",
            $rest
        )
    };
}

const SELECT_OF_POD: &str = select!("cluster = $1 AND pod_uid = $2 ORDER BY container, platform LIMIT $3");
const SELECT_TO_DIGEST: &str = select!(
    "digest = $1 AND (cluster, pod_uid, container, platform) > ($2, $3, $4, $5)
     ORDER BY cluster, pod_uid, container, platform LIMIT $6"
);
const SELECT_SINCE: &str = select!(
    "cluster = $1 AND (written_at, pod_uid, container, platform) > ($2, $3, $4, $5)
     ORDER BY written_at, pod_uid, container, platform LIMIT $6"
);

type Flat = (
    String,
    String,
    String,
    String,
    String,
    String,
    Option<String>,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    i64,
    i64,
);

fn row(flat: Flat) -> Result<BindingRow, Error> {
    let (
        cluster,
        pod_uid,
        container,
        platform,
        namespace,
        pod,
        owner,
        image,
        verified,
        expectation,
        decision,
        at,
        written_at,
    ) = flat;
    let decision = decision.map(|text| id("decision", &text)).transpose()?;
    Ok(BindingRow {
        cluster,
        pod_uid,
        container,
        platform,
        namespace,
        pod,
        owner,
        image,
        digest: verified.map(|text| digest("binding", text)).transpose()?,
        expectation: expectation.map(|text| digest("binding", text)).transpose()?,
        decision,
        at: timestamp(at),
        written_at: timestamp(written_at),
    })
}

/// The name of a decision or suppression as it is kept.
pub(crate) fn id(what: &'static str, text: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(text).map_err(|error| Error::Damaged { what, key: text.to_owned(), reason: error.to_string() })
}

/// Pods removed in one statement.
const BATCH: usize = 500;
