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
use crate::alert::{Alert, Change, State};

/// What one sink is to be told of one alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// `alert/revision`: the idempotency key, the same however often it is sent. Of two of one alert the greater revision is the later.
    pub id: String,
    /// The sink's name.
    pub sink: String,
    /// What was done to the alert.
    pub change: Change,
    /// The alert, as it was then.
    pub alert: Alert,
    /// How often it was tried, with this time.
    pub attempts: u32,
    /// When it was written.
    pub made_at: Timestamp,
}

impl Sink {
    /// Whether this sink is told of a change to an alert, of which it was told last at `told`.
    ///
    /// An alert that was below the floor and has risen is told as soon as it is seen again, whatever it is called. That it is resolved is told
    /// to whoever knows of it. A repetition is told once in a while, unless somebody looks after it.
    #[must_use]
    pub fn wants(&self, alert: &Alert, change: Change, told: Option<Timestamp>, now: Timestamp) -> bool {
        let is_of_cluster = self.cluster.as_ref().is_none_or(|cluster| *cluster == alert.place.cluster);
        // An Event stands in a namespace.
        let has_place = self.kind != Kind::KubernetesEvent || !alert.place.namespace.is_empty();
        if !is_of_cluster || !has_place || alert.state == State::Suppressed || alert.risk < self.min_risk {
            return false;
        }
        match (change, told) {
            (Change::Resolved, told) => told.is_some(),
            (Change::Repeated, Some(told)) => alert.state == State::Open && now.duration_since(told) >= self.repeat(),
            _ => true,
        }
    }

    /// How long a repetition is not told.
    pub(crate) fn repeat(&self) -> SignedDuration {
        SignedDuration::from_hours(i64::from(self.repeat_hours))
    }
}
