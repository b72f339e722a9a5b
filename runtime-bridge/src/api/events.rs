//! Changes of alerts as they come, as server-sent events.
//!
//! An event's id is its alert's revision. Who comes again with `Last-Event-ID` is told every alert that changed since, as it is now:
//! several changes of one alert may be one event, none is missed. Nothing is kept for a client but his place: who takes nothing is dropped.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Extension,
    extract::State,
    http::HeaderMap,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use jiff::Timestamp;
use lineage::{After, AlertQuery, AlertSort};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{
    Api, Who,
    alerts::{AlertView, within},
    auth::Caller,
    incidents::{IncidentView, may_read},
    problem::{Asked, Problem},
};
use crate::incident::Incident;

/// Which alerts to follow.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct FollowAsked {
    /// In this cluster.
    cluster: Option<String>,
    /// In this namespace.
    namespace: Option<String>,
    /// With this risk or a higher one: 0 to 1.
    min_risk: Option<f64>,
}

/// Follows alerts.
pub(super) async fn follow(
    State(api): State<Api>,
    Extension(caller): Who,
    Asked(asked): Asked<FollowAsked>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let full = |_| Problem::later(format!("{} streams are open already", super::MAX_FOLLOWERS));
    let slot = Arc::clone(&api.followers).try_acquire_owned().map_err(full)?;
    let last = api.ledger.last_revision().await?;
    let from = match headers.get("last-event-id") {
        None => last,
        Some(id) => {
            let id = id.to_str().ok().and_then(|id| id.trim().parse::<u64>().ok());
            let wrong = || Problem::bad("`Last-Event-ID` is no revision", "send the `id` of the last event, or none");
            // Of a ledger that was begun anew: nothing of it was told.
            let id = id.ok_or_else(wrong)?;
            if id > last { 0 } else { id }
        }
    };
    let query = within(&caller, asked.cluster.as_deref(), asked.namespace.as_deref()).map(|within| AlertQuery {
        min_risk: asked.min_risk,
        sort: AlertSort::Revision,
        is_ascending: true,
        after: Some(After::revision(from)),
        limit: PAGE,
        ..within
    });
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let _slot = slot;
        let follower = Follower { api: &api, sender };
        match query {
            Some(query) => {
                let _ = tokio::time::timeout(api.limits.stream, follower.run(&caller, query)).await;
            }
            // What he asked for he may not read: there will be nothing.
            None => {
                let _ = tokio::time::timeout(api.limits.stream, follower.sender.closed()).await;
            }
        }
    });
    let events = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<Event>| {
        receiver.recv().await.map(|event| (Ok(event), receiver))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

struct Follower<'a> {
    api: &'a Api,
    sender: mpsc::Sender<Event>,
}

impl Follower<'_> {
    /// Tells what changes until the client is gone, or takes nothing, or the ledger fails: he comes again.
    async fn run(&self, caller: &Caller, mut query: AlertQuery) {
        let mut changed = self.api.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let heads = match self.api.ledger.alerts(&query, Timestamp::now()).await {
                Ok(heads) => heads,
                Err(error) => {
                    tracing::warn!(%error, "a stream of alerts ends");
                    return;
                }
            };
            let is_all = heads.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            let changed_alerts: Vec<(String, u64)> =
                heads.iter().map(|head| (head.id.clone(), head.revision)).collect();
            for head in heads {
                query.after = Some(After::revision(head.revision));
                let event = Event::default().event("alert").id(head.revision.to_string());
                // It is JSON always: texts and numbers.
                let Ok(event) = event.json_data(AlertView::from(head)) else { return };
                if !self.send(event).await {
                    return;
                }
            }
            for incident in self.incidents(caller, &changed_alerts, query.min_risk).await {
                let Ok(event) = Event::default().event("incident").json_data(incident) else { return };
                if !self.send(event).await {
                    return;
                }
            }
            if is_all {
                tokio::select! {
                    _ = changed.changed() => {}
                    () = tokio::time::sleep(self.api.limits.poll) => {}
                    () = self.sender.closed() => return,
                }
            }
        }
    }
}

impl Follower<'_> {
    /// Tells one thing; false: the client is gone, or takes nothing.
    async fn send(&self, event: Event) -> bool {
        match tokio::time::timeout(self.api.limits.stall, self.sender.send(event)).await {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                self.api.dropped.fetch_add(1, Ordering::Relaxed);
                tracing::info!("a client that follows alerts takes nothing, and is dropped");
                false
            }
        }
    }

    /// The incidents that changed with alerts, each once.
    async fn incidents(
        &self,
        caller: &Caller,
        alerts: &[(String, u64)],
        min_risk: Option<f64>,
    ) -> impl Iterator<Item = IncidentView> {
        if let Some((_, last)) = alerts.last() {
            tokio::select! {
                () = self.api.incidents.reached(*last, INCIDENTS) => {}
                () = self.sender.closed() => {}
            }
        }
        let alerts = alerts.iter().map(|(alert, _)| alert.as_str());
        let touched = self.api.incidents.touched(alerts, |chapter| may_read(caller, chapter));
        let is_asked = move |incident: &Incident| min_risk.is_none_or(|risk| incident.risk >= risk);
        touched.into_iter().filter(is_asked).map(IncidentView::from)
    }
}

/// For incidents to hear of alerts.
const INCIDENTS: Duration = Duration::from_secs(3);
/// Alerts read at once.
const PAGE: u32 = 100;
/// Events made before the client takes them.
const AHEAD: usize = 16;
