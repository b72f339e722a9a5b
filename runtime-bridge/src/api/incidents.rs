//! Incidents: listed, read whole, and acted on. A caller is told what his alerts tell: of others' there is nothing.

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use jiff::Timestamp;
use lineage::Action;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api, Who,
    alerts::{AlertView, Why, act_on},
    auth::Caller,
    problem::{Asked, Problem, Sent, cursor, is_risk, limit, place, reason},
};
use crate::{
    alert::{Alert, State as Shown},
    incident::{
        Chapter, Incident,
        tree::{Tree, trees},
    },
    stored,
};

/// Which incidents to list.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct IncidentsAsked {
    /// In this cluster.
    cluster: Option<String>,
    /// In this namespace: told of its alerts alone.
    namespace: Option<String>,
    /// In this state.
    state: Option<Shown>,
    /// With this risk or a higher one: 0 to 1.
    min_risk: Option<f64>,
    /// With something seen at this time or later.
    #[schemars(with = "Option<String>")]
    since: Option<Timestamp>,
    /// Of at least so many alerts: 2 leaves out those that say no more than their alert.
    min_alerts: Option<u64>,
    /// Rows of a page: 1 to 500.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of incidents, the likeliest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct IncidentPage {
    /// The incidents.
    incidents: Vec<IncidentView>,
    /// The cursor of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// An incident in a list.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "IncidentSummary")]
pub(super) struct IncidentView {
    /// The incident without its alerts.
    #[serde(flatten)]
    incident: Incident,
    /// How many alerts it has.
    alerts: u64,
}

/// An incident, all of it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "IncidentDetails")]
pub(super) struct IncidentWhole {
    #[serde(flatten)]
    incident: Incident,
    /// The processes of its containers, from the samples of its alerts.
    trees: Vec<Tree>,
    /// Pods it was seen in, as far as its alerts name them.
    pods: std::collections::BTreeSet<String>,
}

/// What became of acting on an incident.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "IncidentActed")]
pub(super) struct ActedOn {
    /// The alerts that changed. Those in whose state it does not fit stay.
    alerts: Vec<AlertView>,
}

impl From<Incident> for IncidentView {
    fn from(incident: Incident) -> Self {
        let alerts = u64::try_from(incident.chapters.len()).unwrap_or(u64::MAX).saturating_add(incident.more);
        Self { incident: Incident { chapters: Vec::new(), ..incident }, alerts }
    }
}

/// Where a list goes on.
#[derive(Serialize, Deserialize)]
struct After {
    risk: f64,
    id: String,
}

/// Lists incidents.
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Who,
    Asked(asked): Asked<IncidentsAsked>,
) -> Result<Json<IncidentPage>, Problem> {
    let limit = usize::try_from(limit(asked.limit)?).unwrap_or(usize::MAX);
    let after = place::<After>(asked.cursor.as_deref())?;
    is_risk(asked.min_risk)?;
    let is_asked = |chapter: &Chapter| {
        may_read(&caller, chapter)
            && asked.cluster.as_ref().is_none_or(|cluster| *cluster == chapter.cluster)
            && asked.namespace.as_ref().is_none_or(|namespace| *namespace == chapter.namespace)
    };
    let mut incidents: Vec<IncidentView> = api
        .incidents
        .all(is_asked)
        .into_iter()
        .filter(|incident| after.as_ref().is_none_or(|after| is_after(incident, after)))
        .filter(|incident| asked.state.is_none_or(|state| state == incident.state))
        .filter(|incident| asked.min_risk.is_none_or(|risk| incident.risk >= risk))
        .filter(|incident| asked.since.is_none_or(|since| incident.last_seen >= since))
        .map(IncidentView::from)
        .filter(|view| asked.min_alerts.is_none_or(|least| view.alerts >= least))
        .take(limit.saturating_add(1))
        .collect();
    let is_more = incidents.len() > limit;
    incidents.truncate(limit);
    let last = incidents.last().filter(|_| is_more).map(|view| &view.incident);
    let next = last.and_then(|last| cursor(&After { risk: last.risk, id: last.id.clone() }));
    Ok(Json(IncidentPage { incidents, next }))
}

/// In the order of [`crate::incidents::Incidents::all`].
fn is_after(incident: &Incident, after: &After) -> bool {
    after.risk.total_cmp(&incident.risk).then_with(|| incident.id.cmp(&after.id)).is_gt()
}

/// Reads one incident; any of its alerts names it.
pub(super) async fn read(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
) -> Result<Json<IncidentWhole>, Problem> {
    let incident = readable(&api, &caller, &id)?;
    let alerts = alerts(&api, &incident).await?;
    let pods = alerts.iter().flat_map(|alert| alert.pods.iter().cloned()).collect();
    Ok(Json(IncidentWhole { trees: trees(&alerts), pods, incident }))
}

/// The alerts of an incident that it tells of.
pub(super) async fn alerts(api: &Api, incident: &Incident) -> Result<Vec<Alert>, Problem> {
    let names = incident.chapters.iter().map(|chapter| chapter.alert.clone()).collect();
    let rows = api.ledger.alerts_by_id(&names, Timestamp::now()).await?;
    let alert = |row| stored::alert(row).map(|alert| Alert { state: stored::shown(&row.head), ..alert });
    Ok(rows.iter().map(alert).collect::<Result<Vec<_>, _>>()?)
}

pub(super) fn readable(api: &Api, caller: &Caller, id: &str) -> Result<Incident, Problem> {
    api.incidents.of(id, |chapter| may_read(caller, chapter)).ok_or_else(|| Problem::missing("such incident"))
}

pub(super) fn may_read(caller: &Caller, chapter: &Chapter) -> bool {
    caller.may_read(&chapter.cluster, &chapter.namespace)
}

pub(super) async fn acknowledge(
    api: State<Api>,
    who: Who,
    id: Path<String>,
    why: Sent<Why>,
) -> Result<Json<ActedOn>, Problem> {
    act(api, who, id, why, Action::Acknowledge).await
}

pub(super) async fn resolve(
    api: State<Api>,
    who: Who,
    id: Path<String>,
    why: Sent<Why>,
) -> Result<Json<ActedOn>, Problem> {
    act(api, who, id, why, Action::Resolve).await
}

pub(super) async fn reopen(
    api: State<Api>,
    who: Who,
    id: Path<String>,
    why: Sent<Why>,
) -> Result<Json<ActedOn>, Problem> {
    act(api, who, id, why, Action::Reopen).await
}

/// Acts on all alerts of an incident; on none where he may not on one of them.
async fn act(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
    Sent(why): Sent<Why>,
    action: Action,
) -> Result<Json<ActedOn>, Problem> {
    let reason = reason(&why.reason)?;
    let incident = readable(&api, &caller, &id)?;
    if incident.more > 0 {
        return Err(Problem::conflict(
            format!("the incident has {} more alerts than are acted on at once", incident.more),
            "act on alerts by themselves, or suppress them by a scope",
        ));
    }
    let may_write = |chapter: &Chapter| caller.may_write(&chapter.cluster, &chapter.namespace);
    if !incident.chapters.iter().all(may_write) {
        return Err(Problem::read_only("you may read this incident, not change all of its alerts"));
    }
    let mut alerts = Vec::new();
    for chapter in &incident.chapters {
        let fits = match action {
            Action::Acknowledge => chapter.state == Shown::Open,
            Action::Resolve => chapter.state != Shown::Resolved,
            _ => matches!(chapter.state, Shown::Acknowledged | Shown::Resolved),
        };
        if !fits {
            continue;
        }
        match act_on(&api, &caller, &chapter.alert, &reason, action).await {
            Ok(alert) => alerts.push(alert),
            // Somebody was faster, or it is gone.
            Err(problem) if problem.is_of_state() => {}
            Err(problem) => return Err(problem),
        }
    }
    if let Some(last) = alerts.iter().map(AlertView::revision).max() {
        api.incidents.reached(last, SOON).await;
    }
    Ok(Json(ActedOn { alerts }))
}

/// For the incidents to hear of what was done, so that who reads them next finds it.
const SOON: std::time::Duration = std::time::Duration::from_secs(3);
