//! What sinks were told of incidents: written with their notices, by the bridge that is first.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sqlx::QueryBuilder;

use super::{
    ROWS,
    notices::{Notice, insert},
};
use crate::{
    Error, Ledger,
    ledger::{millis, read, transact},
};

/// What was said of an incident.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// How often something was.
    pub number: u64,
    /// The last of it, in the words of the bridges.
    pub what: String,
}

impl Ledger {
    /// What was said of incidents, by id; those of which nothing was are left out.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn incidents_told(&self, ids: &BTreeSet<String>) -> Result<BTreeMap<String, Told>, Error> {
        let mut told = BTreeMap::new();
        let ids: Vec<&String> = ids.iter().collect();
        for ids in ids.chunks(ROWS) {
            let rows: Vec<(String, i64, String)> = read!(self, "reading what was told of incidents", |db| async {
                let mut query = QueryBuilder::new("SELECT id, number, told FROM incidents_told WHERE id IN (");
                let mut list = query.separated(", ");
                for id in ids {
                    list.push_bind(id.as_str());
                }
                query.push(")");
                query.build_query_as().persistent(false).fetch_all(db).await
            }
            .await)?;
            let row = |(id, number, what): (String, i64, String)| (id, Told { number: number.unsigned_abs(), what });
            told.extend(rows.into_iter().map(row));
        }
        Ok(told)
    }

    /// Says something of an incident of which was told so often before, 0 where nothing was. False: another was faster, and nothing was
    /// written. The notices' ids are `incident-ID/NUMBER`.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Store`].
    pub async fn tell_incident(
        &self,
        id: &str,
        before: u64,
        what: &str,
        notices: &[Notice],
        now: Timestamp,
    ) -> Result<bool, Error> {
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        transact!(self, "telling of an incident", |tx| async {
            let written = sqlx::query(
                "INSERT INTO incidents_told (id, number, told, at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (id) DO UPDATE SET number = excluded.number, told = excluded.told, at = excluded.at
                 WHERE incidents_told.number = $5",
            )
            .bind(id)
            .bind(before.saturating_add(1))
            .bind(what)
            .bind(millis(now))
            .bind(before)
            .execute(&mut *tx)
            .await?;
            if written.rows_affected() == 0 {
                return Ok(false);
            }
            for notice in notices {
                let id = format!("incident-{id}/{}", before.saturating_add(1));
                insert!(id, notice, millis(now)).execute(&mut *tx).await?;
            }
            Ok(true)
        }
        .await)
    }
}
