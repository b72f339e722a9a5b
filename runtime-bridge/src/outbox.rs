//! The ledger as the place where notices wait for their sinks.

use std::time::Duration;

use jiff::Timestamp;
use lineage::{AlertHead, AlertQuery, AlertSort, AlertState, Document, Error, Ledger};
use serde::{Deserialize, Serialize};

use crate::{
    alert::{Alert, By, Change, Place},
    incident::Incident,
    sinks::{Notice, Outbox, OutboxError},
};

/// Notices that were written with their alerts.
#[derive(Debug, Clone)]
pub struct LedgerOutbox(pub Ledger);

#[derive(Deserialize)]
struct Body {
    change: Change,
    alert: Alert,
    #[serde(default)]
    by: Option<By>,
    #[serde(default)]
    incident: Option<Box<Incident>>,
}

/// What these sinks are told of an alert, as it is written with it.
///
/// # Errors
/// [`Error::Pack`], [`Error::TooLarge`].
pub fn notices(
    alert: &Alert,
    change: Change,
    by: Option<&By>,
    sinks: impl Iterator<Item = String>,
) -> Result<Vec<lineage::Notice>, Error> {
    written(&Writing { change, alert, by, incident: None }, sinks)
}

/// What these sinks are told of an incident, with the alert that is the last of it.
///
/// # Errors
/// [`Error::Pack`], [`Error::TooLarge`].
pub fn incident_notices(
    incident: &Incident,
    alert: &Alert,
    change: Change,
    sinks: impl Iterator<Item = String>,
) -> Result<Vec<lineage::Notice>, Error> {
    written(&Writing { change, alert, by: None, incident: Some(incident) }, sinks)
}

/// [`Body`], as it is written.
#[derive(Serialize)]
struct Writing<'a> {
    change: Change,
    alert: &'a Alert,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a By>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<&'a Incident>,
}

fn written(body: &Writing<'_>, sinks: impl Iterator<Item = String>) -> Result<Vec<lineage::Notice>, Error> {
    let mut sinks = sinks.peekable();
    if sinks.peek().is_none() {
        return Ok(Vec::new());
    }
    let json = serde_json::to_vec(body).map_err(|error| Error::Pack { what: "a notice", source: error.into() })?;
    let packed = Document::pack(&json)?;
    Ok(sinks.map(|sink| lineage::Notice { alert: body.alert.id.clone(), sink, body: packed.clone() }).collect())
}

impl Outbox for LedgerOutbox {
    async fn due(&self, sink: &str, hold: Duration, limit: u32, now: Timestamp) -> Result<Vec<Notice>, OutboxError> {
        let mut due = Vec::new();
        for notice in self.0.due(sink, hold, limit, now).await? {
            match serde_json::from_slice::<Body>(&notice.body.unpack()?) {
                Ok(Body { change, alert, by, incident }) => due.push(Notice {
                    id: notice.id,
                    sink: notice.sink,
                    change,
                    alert,
                    by,
                    incident,
                    attempts: notice.attempts,
                    made_at: notice.made_at,
                }),
                Err(error) => {
                    tracing::error!(%error, id = notice.id, sink, "a notice of another version is given up");
                    self.0.delivered(&notice.id, sink).await?;
                }
            }
        }
        Ok(due)
    }

    async fn done(&self, notice: &Notice) -> Result<(), OutboxError> {
        Ok(self.0.delivered(&notice.id, &notice.sink).await?)
    }

    async fn failed(&self, notice: &Notice, next_try: Option<Timestamp>, why: &str) -> Result<(), OutboxError> {
        match next_try {
            Some(next_try) => Ok(self.0.delay(&notice.id, &notice.sink, next_try).await?),
            None => {
                tracing::error!(id = notice.id, sink = notice.sink, why, "an alert is not told to this sink");
                Ok(self.0.delivered(&notice.id, &notice.sink).await?)
            }
        }
    }

    async fn of_workload(&self, place: &Place, min_risk: f64, limit: u32) -> Result<Vec<AlertHead>, OutboxError> {
        let mut found = Vec::new();
        for state in [AlertState::Open, AlertState::Acknowledged] {
            let asked = AlertQuery {
                cluster: Some(place.cluster.clone()),
                namespaces: Some([place.namespace.clone()].into()),
                owner: Some(place.owner.clone()),
                min_risk: Some(min_risk),
                state: Some(state),
                sort: AlertSort::Risk,
                limit,
                ..AlertQuery::default()
            };
            found.extend(self.0.alerts(&asked, Timestamp::now()).await?);
        }
        found.sort_by(|one, other| other.risk.total_cmp(&one.risk).then_with(|| one.id.cmp(&other.id)));
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(found)
    }

    async fn oldest(&self, sink: &str) -> Result<Option<Timestamp>, OutboxError> {
        Ok(self.0.oldest_notice(sink).await?)
    }
}
