//! Alerts as the ledger keeps them, and back.
//!
//! The ledger's word on an alert's state and revision holds, as people change them there; all else is the document's.

use lineage::{AlertHead, AlertRow, AlertState, Document, Error};

use crate::alert::{Alert, State};

/// An alert to be written; `revision` is the one it was read at, 0 where it is new.
///
/// # Errors
/// [`Error::Pack`], [`Error::TooLarge`].
pub fn row(alert: &Alert, revision: u64) -> Result<AlertRow, Error> {
    let json = serde_json::to_vec(alert).map_err(|error| Error::Pack { what: "an alert", source: error.into() })?;
    let place = &alert.place;
    let head = AlertHead {
        id: alert.id.clone(),
        cluster: place.cluster.clone(),
        namespace: place.namespace.clone(),
        owner: place.owner.clone(),
        container: place.container.clone(),
        digest: place.digest.clone(),
        class: alert.class.name().to_owned(),
        subject: alert.subject.clone(),
        message: alert.message.clone(),
        state: match alert.state {
            State::Acknowledged => AlertState::Acknowledged,
            State::Resolved => AlertState::Resolved,
            // A suppression is the ledger's own: it covers what is open.
            State::Open | State::Suppressed => AlertState::Open,
        },
        risk: alert.risk,
        first_seen: alert.first_seen,
        last_seen: alert.last_seen,
        count: alert.count,
        revision,
        is_suppressed: false,
        is_ignored: false,
    };
    Ok(AlertRow { head, document: Document::pack(&json)?, ignored_until: alert.ruled.until(alert.count) })
}

/// An alert that was read. Whether a suppression covers it is not in its state: [`lineage::AlertHead`] has that.
///
/// # Errors
/// [`Error::Damaged`].
pub fn alert(row: &AlertRow) -> Result<Alert, Error> {
    let json = row.document.unpack()?;
    let damaged = |error: serde_json::Error| Error::Damaged {
        what: "alert",
        key: row.head.id.clone(),
        reason: error.to_string(),
    };
    let mut alert: Alert = serde_json::from_slice(&json).map_err(damaged)?;
    alert.state = match row.head.state {
        AlertState::Open => State::Open,
        AlertState::Acknowledged => State::Acknowledged,
        AlertState::Resolved => State::Resolved,
    };
    Ok(alert)
}

/// The state that people see: to be suppressed is one.
#[must_use]
pub const fn shown(head: &AlertHead) -> State {
    match head.state {
        AlertState::Resolved => State::Resolved,
        _ if head.is_suppressed => State::Suppressed,
        AlertState::Acknowledged => State::Acknowledged,
        AlertState::Open => State::Open,
    }
}
