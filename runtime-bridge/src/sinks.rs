//! Where alerts go.
//!
//! ```text
//! Alert, Change ─wants─► outbox (in the ledger, with the alert) ─due─► deliver ─body─► http · syslog · file
//!                             ▲                                          │
//!                             └───────────── done, failed ───────────────┘
//! ```
//!
//! A sink is told at least once; by [`Notice::id`] it knows what it was told before. Each sink has a task of its own, so that one that hangs
//! holds up no other. What cannot be delivered waits in the outbox, longer from try to try, and is given up loudly: never silently.

mod body;
mod config;
mod deliver;
mod file;
mod http;
mod report;
mod syslog;
#[cfg(test)]
mod tests;
mod text;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::{
    body::{Severity, severity},
    config::{Kind, Sink, Sinks},
    deliver::{Delivery, Outbox, OutboxError, Pace},
    http::signature,
};
use crate::{
    alert::{Alert, By, Change, State},
    incident::Incident,
};

/// What one sink is to be told of one alert, or of an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// `alert/revision`, `incident-alert/number`: the idempotency key, the same however often it is sent. Of two of one the greater number is
    /// the later.
    pub id: String,
    /// The sink's name.
    pub sink: String,
    /// What was done to the alert.
    pub change: Change,
    /// The alert, as it was then.
    pub alert: Alert,
    /// Who did it, where it was a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// The incident that it is about, where it is about one: the alert is the last of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<Box<Incident>>,
    /// How often it was tried, with this time.
    pub attempts: u32,
    /// When it was written.
    pub made_at: Timestamp,
}

impl Sink {
    /// Whether this sink is told of a change to an alert, of which it was told last at `told`.
    ///
    /// An alert that was below the floor and has risen is told as soon as it is seen again, whatever it is called. That it is resolved, or that
    /// somebody looks after it or wants to be told no more, is told to whoever knows of it. A repetition is told once in a while, unless
    /// somebody looks after it.
    #[must_use]
    pub fn wants(&self, alert: &Alert, change: Change, told: Option<Timestamp>, now: Timestamp) -> bool {
        let is_of_cluster = self.cluster.as_ref().is_none_or(|cluster| *cluster == alert.place.cluster);
        // What the API server has stands in a namespace.
        let has_place = !self.kind.is_kubernetes() || !alert.place.namespace.is_empty();
        let is_silent = alert.state == State::Suppressed && change != Change::Suppressed;
        if !is_of_cluster || !has_place || is_silent || alert.risk < self.min_risk {
            return false;
        }
        match (change, told) {
            (Change::Resolved | Change::Acknowledged | Change::Suppressed, told) => told.is_some(),
            (Change::Repeated, Some(told)) => alert.state == State::Open && now.duration_since(told) >= self.repeat(),
            _ => true,
        }
    }

    /// Whether this sink is told of an incident that was of this risk, and whose last alert this is.
    #[must_use]
    pub fn wants_incident(&self, incident: &Incident, alert: &Alert, risk: f64) -> bool {
        let is_of = |cluster: &String| incident.chapters.iter().any(|chapter| chapter.cluster == *cluster);
        // Reports are lists of alerts.
        let is_told = self.kind != Kind::PolicyReport && self.cluster.as_ref().is_none_or(is_of);
        let has_place = !self.kind.is_kubernetes() || !alert.place.namespace.is_empty();
        is_told && has_place && risk >= self.min_risk
    }

    /// How long a repetition is not told.
    pub(crate) fn repeat(&self) -> SignedDuration {
        SignedDuration::from_hours(i64::from(self.repeat_hours))
    }
}
