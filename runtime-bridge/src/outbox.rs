//! The ledger as the place where notices wait for their sinks.

use std::time::Duration;

use jiff::Timestamp;
use lineage::Ledger;
use serde::Deserialize;

use crate::{
    alert::{Alert, Change},
    sinks::{Notice, Outbox, OutboxError},
};

/// Notices that were written with their alerts.
#[derive(Debug, Clone)]
pub struct LedgerOutbox(pub Ledger);

#[derive(Deserialize)]
struct Body {
    change: Change,
    alert: Alert,
}

impl Outbox for LedgerOutbox {
    async fn due(&self, sink: &str, hold: Duration, limit: u32, now: Timestamp) -> Result<Vec<Notice>, OutboxError> {
        let mut due = Vec::new();
        for notice in self.0.due(sink, hold, limit, now).await? {
            match serde_json::from_slice::<Body>(&notice.body.unpack()?) {
                Ok(Body { change, alert }) => due.push(Notice {
                    id: notice.id,
                    sink: notice.sink,
                    change,
                    alert,
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

    async fn oldest(&self, sink: &str) -> Result<Option<Timestamp>, OutboxError> {
        Ok(self.0.oldest_notice(sink).await?)
    }
}
