//! What workloads were seen to do, by dimension and item: what is asked for to see which of a prediction came true.

use std::collections::BTreeMap;

use dna::Digest;
use jiff::Timestamp;
use sqlx::QueryBuilder;

use super::{ROWS, number};
use crate::{
    Error, Ledger,
    build::{digest, page},
    ledger::{clip, millis, read, timestamp, transact},
};

/// Containers of one name and image in one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadRow {
    /// Its name: the same for the same of what follows, up to the digest.
    pub id: String,
    /// The cluster's name.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The workload, `Deployment/web`.
    pub owner: String,
    /// The container's name.
    pub container: String,
    /// The image's digest.
    pub digest: String,
    /// The DNA that it is compared with.
    pub dna: Digest,
    /// What the webhook bound it to.
    pub expectation: Option<Digest>,
    /// Containers that were seen; to be added.
    pub starts: u64,
    /// The first of them.
    pub first_seen: Timestamp,
    /// When anything was seen of them last.
    pub last_seen: Timestamp,
}

/// Something that a workload was seen to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedRow {
    /// The workload, by [`WorkloadRow::id`].
    pub workload: String,
    /// The dimension of behavior, such as `exec`.
    pub dimension: String,
    /// The item, as the DNA has it where it is predicted.
    pub item: String,
    /// Whether the DNA has it.
    pub is_predicted: bool,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When last, within an hour.
    pub last_seen: Timestamp,
}

/// Which workloads to list.
#[derive(Debug, Clone, Default)]
pub struct WorkloadQuery {
    /// In this cluster.
    pub cluster: Option<String>,
    /// In this namespace.
    pub namespace: Option<String>,
    /// This workload.
    pub owner: Option<String>,
    /// This container.
    pub container: Option<String>,
    /// This image.
    pub digest: Option<String>,
}

impl Ledger {
    /// Adds what workloads were seen to do.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn add_used(&self, workloads: &[WorkloadRow], used: &[UsedRow]) -> Result<(), Error> {
        // In one order, so that rows of several bridges are locked alike.
        let workloads: BTreeMap<&str, &WorkloadRow> = workloads.iter().map(|row| (row.id.as_str(), row)).collect();
        let workloads: Vec<&WorkloadRow> = workloads.into_values().collect();
        let used: BTreeMap<[&str; 3], &UsedRow> =
            used.iter().map(|row| ([row.workload.as_str(), row.dimension.as_str(), row.item.as_str()], row)).collect();
        let used: Vec<&UsedRow> = used.into_values().collect();
        transact!(self, "keeping what workloads do", |tx| {
            async {
            for rows in workloads.chunks(ROWS) {
                let mut query = QueryBuilder::<Db>::new(
                    "INSERT INTO workloads (id, cluster, namespace, owner, container, digest, dna, expectation, starts, first_seen,
                     last_seen) ",
                );
                query.push_values(rows, |mut values, row| {
                    values.push_bind(row.id.as_str()).push_bind(clip(&row.cluster)).push_bind(clip(&row.namespace));
                    values.push_bind(clip(&row.owner)).push_bind(clip(&row.container)).push_bind(clip(&row.digest));
                    values.push_bind(row.dna.as_str()).push_bind(row.expectation.as_ref().map(Digest::as_str));
                    values.push_bind(number(row.starts)).push_bind(millis(row.first_seen));
                    values.push_bind(millis(row.last_seen));
                });
                query.push(
                    " ON CONFLICT (id) DO UPDATE SET dna = excluded.dna, expectation = excluded.expectation,
                     starts = workloads.starts + excluded.starts,
                     first_seen = CASE WHEN excluded.first_seen < workloads.first_seen THEN excluded.first_seen
                                  ELSE workloads.first_seen END,
                     last_seen = CASE WHEN excluded.last_seen > workloads.last_seen THEN excluded.last_seen
                                 ELSE workloads.last_seen END",
                );
                query.build().persistent(false).execute(&mut *tx).await?;
            }
            for rows in used.chunks(ROWS) {
                let mut query = QueryBuilder::<Db>::new(
                    "INSERT INTO used (workload, dimension, item, predicted, first_seen, last_seen) ",
                );
                query.push_values(rows, |mut values, row| {
                    values.push_bind(row.workload.as_str()).push_bind(row.dimension.as_str());
                    values.push_bind(clip(&row.item)).push_bind(i64::from(row.is_predicted));
                    values.push_bind(millis(row.first_seen)).push_bind(millis(row.last_seen));
                });
                query.push(
                    " ON CONFLICT (workload, dimension, item) DO UPDATE SET predicted = excluded.predicted,
                     first_seen = CASE WHEN excluded.first_seen < used.first_seen THEN excluded.first_seen ELSE used.first_seen END,
                     last_seen = CASE WHEN excluded.last_seen > used.last_seen THEN excluded.last_seen ELSE used.last_seen END",
                );
                query.build().persistent(false).execute(&mut *tx).await?;
            }
            Ok(())
        }
        .await
        })
    }

    /// Workloads that were seen, the latest first, at most `limit` and [`crate::PAGE`].
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn workloads(&self, asked: &WorkloadQuery, limit: u32) -> Result<Vec<WorkloadRow>, Error> {
        let texts = [
            (" AND cluster = ", &asked.cluster),
            (" AND namespace = ", &asked.namespace),
            (" AND owner = ", &asked.owner),
            (" AND container = ", &asked.container),
            (" AND digest = ", &asked.digest),
        ];
        self.listed_workloads(&texts, limit).await
    }

    /// A workload by its name.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Deadline`], [`Error::Store`].
    pub async fn workload(&self, id: &str) -> Result<Option<WorkloadRow>, Error> {
        Ok(self.listed_workloads(&[(" AND id = ", &Some(id.to_owned()))], 1).await?.pop())
    }

    async fn listed_workloads(
        &self,
        texts: &[(&'static str, &Option<String>)],
        limit: u32,
    ) -> Result<Vec<WorkloadRow>, Error> {
        type Flat = (String, String, String, String, String, String, String, Option<String>, i64, i64, i64);
        let rows: Vec<Flat> = read!(self, "listing workloads", |db| {
            async {
            let mut query = QueryBuilder::new(
                "SELECT id, cluster, namespace, owner, container, digest, dna, expectation, starts, first_seen, last_seen
                 FROM workloads WHERE 1 = 1",
            );
            for (sql, text) in texts {
                if let Some(text) = text {
                    query.push(*sql).push_bind(text.as_str());
                }
            }
            query.push(" ORDER BY last_seen DESC, id LIMIT ").push_bind(page(limit));
            query.build_query_as().persistent(false).fetch_all(db).await
        }
        .await
        })?;
        let row = |(id, cluster, namespace, owner, container, image, dna, expectation, starts, first, last): Flat| {
            Ok(WorkloadRow {
                id,
                cluster,
                namespace,
                owner,
                container,
                digest: image,
                dna: digest("workload", dna)?,
                expectation: expectation.map(|name| digest("workload", name)).transpose()?,
                starts: starts.unsigned_abs(),
                first_seen: timestamp(first),
                last_seen: timestamp(last),
            })
        };
        rows.into_iter().map(row).collect()
    }

    /// What a workload was seen to do, in the order of dimensions and items.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn used(&self, workload: &str) -> Result<Vec<UsedRow>, Error> {
        type Flat = (String, String, i64, i64, i64);
        let rows: Vec<Flat> = read!(self, "reading what a workload does", |db| sqlx::query_as(
            "SELECT dimension, item, predicted, first_seen, last_seen FROM used WHERE workload = $1
             ORDER BY dimension, item LIMIT $2"
        )
        .bind(workload)
        .bind(MOST_USED)
        .fetch_all(db)
        .await)?;
        let row = |(dimension, item, predicted, first, last): Flat| UsedRow {
            workload: workload.to_owned(),
            dimension,
            item,
            is_predicted: predicted != 0,
            first_seen: timestamp(first),
            last_seen: timestamp(last),
        };
        Ok(rows.into_iter().map(row).collect())
    }
}

/// Items of one workload that are read.
const MOST_USED: i64 = 10_000;
