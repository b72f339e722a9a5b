//! What was found, made into alerts and written, with how far the log was judged: both or neither.
//!
//! In: [`Found`], in the order it was found, and how far the engine is. Out: rows of the ledger in one transaction. While the ledger does
//! not answer, what was found waits here, and the bridge reads no further; the log goes on taking events.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use jiff::Timestamp;
use lineage::{AlertRow, BlindRow, Checkpoint, Committed, Document, Error, Ledger, Notice};
use serde_json::json;

use crate::{
    Class,
    alert::{self, Alert, Cause, Change, Place},
    engine::Found,
    sinks::{Sink, Sinks},
    stored,
};

/// Found and not yet written, at most: then nothing further is judged until it is.
pub const MOST_FOUND: usize = 20_000;

/// Writes alerts.
#[derive(Debug)]
pub struct Desk {
    ledger: Ledger,
    bridge: String,
    sinks: Sinks,
    found: Vec<(Found, Option<Cause>)>,
    /// Who asked for what an alert tells of, by the alert's id.
    callers: BTreeMap<String, BTreeSet<String>>,
    blind: Vec<BlindRow>,
    /// The last of them, for alerts that fall into one.
    lately: Vec<BlindRow>,
}

/// What came of writing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Alerts that were written.
    pub alerts: usize,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeskError {
    /// The ledger does not answer.
    #[error(transparent)]
    Ledger(#[from] Error),
    /// Another bridge has this one's name.
    #[error("another bridge named `{bridge}` has judged up to {offset}: give each its own --name")]
    Overtaken {
        /// The name.
        bridge: String,
        /// How far it is.
        offset: u64,
    },
    /// An alert that does not become JSON.
    #[error("an alert cannot be written")]
    Json(#[from] serde_json::Error),
    /// Others write the same alerts without end.
    #[error("the same alerts are written by others again and again")]
    Contended,
}

impl Desk {
    /// For a bridge of this name.
    #[must_use]
    pub const fn new(ledger: Ledger, bridge: String, sinks: Sinks) -> Self {
        Self {
            ledger,
            bridge,
            sinks,
            found: Vec::new(),
            callers: BTreeMap::new(),
            blind: Vec::new(),
            lately: Vec::new(),
        }
    }

    /// How far was judged, by an earlier process.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn checkpoint(&self) -> Result<Option<Checkpoint>, Error> {
        self.ledger.checkpoint(&self.bridge).await
    }

    /// Takes what was found, with what is known of the file that acts.
    pub fn found(&mut self, found: Found, cause: Option<Cause>) {
        self.found.push((found, cause));
    }

    /// Takes who asked for a command from outside.
    pub fn caller(&mut self, place: &Place, subject: &str, user: String) {
        let id = alert::id(place, Class::CommandFromOutside, subject);
        self.callers.entry(id).or_default().insert(user);
    }

    /// Takes an interval in which a sensor did not see.
    pub fn blind(&mut self, row: BlindRow) {
        let is_same = |known: &BlindRow| {
            (&known.cluster, &known.node, &known.sensor, &known.cause, known.from)
                == (&row.cluster, &row.node, &row.sensor, &row.cause, row.from)
        };
        self.lately.retain(|known| !is_same(known));
        if self.lately.len() >= LATELY {
            self.lately.remove(0);
        }
        self.lately.push(row.clone());
        self.blind.retain(|known| !is_same(known));
        self.blind.push(row);
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty() && self.callers.is_empty() && self.blind.is_empty()
    }

    /// Whether the bridge is to wait before it judges on.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.found.len() >= MOST_FOUND
    }

    /// Writes all that was found, and how far the log is judged.
    ///
    /// # Errors
    /// [`DeskError`]: nothing was written, and all of it is kept for the next time.
    pub async fn write(&mut self, offset: u64, judged: Vec<Range<u64>>, now: Timestamp) -> Result<Written, DeskError> {
        let checkpoint = Checkpoint { bridge: self.bridge.clone(), offset, judged, at: now };
        for _ in 0..TRIES {
            let (rows, notices) = self.collate(now).await?;
            match self.ledger.commit(&checkpoint, &rows, &self.blind, &notices).await? {
                Committed::Done(_) => {
                    self.found.clear();
                    self.callers.clear();
                    self.blind.clear();
                    return Ok(Written { alerts: rows.len() });
                }
                Committed::Stale(_) => {}
                Committed::Overtaken { offset } => {
                    return Err(DeskError::Overtaken { bridge: self.bridge.clone(), offset });
                }
            }
        }
        Err(DeskError::Contended)
    }

    /// The alerts as they are with what was found.
    async fn collate(&self, now: Timestamp) -> Result<(Vec<AlertRow>, Vec<Notice>), DeskError> {
        let mut by_id: BTreeMap<String, Vec<&(Found, Option<Cause>)>> = BTreeMap::new();
        for item in &self.found {
            let (found, _) = item;
            let id = alert::id(&found.container.place, found.deviation.class, &found.deviation.subject);
            by_id.entry(id).or_default().push(item);
        }
        for id in self.callers.keys() {
            by_id.entry(id.clone()).or_default();
        }
        let ids: BTreeSet<String> = by_id.keys().cloned().collect();
        let mut known: BTreeMap<String, AlertRow> =
            self.ledger.alerts_by_id(&ids, now).await?.into_iter().map(|row| (row.head.id.clone(), row)).collect();
        let (mut rows, mut notices) = (Vec::new(), Vec::new());
        for (id, items) in by_id {
            let row = known.remove(&id);
            let revision = row.as_ref().map_or(0, |row| row.head.revision);
            let is_suppressed = row.as_ref().is_some_and(|row| row.head.is_suppressed);
            let mut alert = match &row {
                Some(row) => Some(stored::alert(row)?),
                None => None,
            };
            let mut change = Change::Repeated;
            for (found, cause) in items {
                let place = &found.container.place;
                let before = found.before.iter().cloned();
                let changed =
                    alert::collate(&mut alert, place, &found.container.pod, &found.deviation, &found.activity, before);
                if rank(changed) < rank(change) {
                    change = changed;
                }
                if let Some(alert) = &mut alert {
                    alert.users.extend(found.user.clone());
                    if alert.cause.is_none() {
                        alert.cause.clone_from(cause);
                    }
                    self.mark_blind(alert, found);
                }
            }
            let Some(mut alert) = alert else { continue };
            alert.users.extend(self.callers.get(&id).into_iter().flatten().cloned());
            if !is_suppressed {
                let wants = |sink: &&Sink| sink.wants(&alert, change, alert.told.get(&sink.name).copied(), now);
                let told: Vec<String> = self.sinks.iter().filter(wants).map(|sink| sink.name.clone()).collect();
                alert.told.extend(told.iter().map(|sink| (sink.clone(), now)));
                if !told.is_empty() {
                    let body = Document::pack(&serde_json::to_vec(&json!({"change": change, "alert": alert}))?)?;
                    let notice = |sink| Notice { alert: alert.id.clone(), sink, body: body.clone() };
                    notices.extend(told.into_iter().map(notice));
                }
            }
            let row = stored::row(&alert, revision)?;
            rows.push(row);
        }
        Ok((rows, notices))
    }

    /// Says on an alert what a sensor of its node could not see around it.
    fn mark_blind(&self, alert: &mut Alert, found: &Found) {
        let node = found.activity.node.as_deref().unwrap_or_default();
        let touches = |row: &&BlindRow| {
            row.cluster == found.container.place.cluster
                && (row.node.is_empty() || row.node == node)
                && row.from <= alert.last_seen
                && row.until >= alert.first_seen
        };
        for row in self.lately.iter().filter(touches) {
            let told = format!(
                "{} on {} did not see from {} to {}: {}",
                row.sensor, row.node, row.from, row.until, row.reason
            );
            if !alert.blind.contains(&told) && alert.blind.len() < BLIND {
                alert.blind.push(told);
            }
        }
    }
}

/// Blind intervals kept to be marked on alerts, and marks on one alert.
const LATELY: usize = 256;
const BLIND: usize = 8;
/// Times that alerts are read again because people or other bridges wrote them meanwhile.
const TRIES: usize = 5;

/// Which of the changes of one writing is told.
const fn rank(change: Change) -> u8 {
    match change {
        Change::New => 0,
        Change::Reopened => 1,
        Change::Escalated => 2,
        _ => 3,
    }
}
