//! Workloads that were seen, and what they did against what was predicted.

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use dna::{Behavior, Dna, Expectation};
use jiff::Timestamp;
use lineage::{AlertHead, AlertQuery, PAGE, WorkloadQuery, WorkloadRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api, Who,
    auth::Caller,
    problem::{Asked, Problem},
};
use crate::snapshot::{Snapshot, Workload, snapshot};

/// Which workloads to list.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct WorkloadsAsked {
    /// In this cluster.
    cluster: Option<String>,
    /// In this namespace.
    namespace: Option<String>,
    /// This one, `Deployment/web`.
    owner: Option<String>,
    /// This container.
    container: Option<String>,
    /// Of this image's digest.
    digest: Option<String>,
}

/// Workloads that were seen.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkloadList {
    /// The latest seen first.
    workloads: Vec<Workload>,
    /// There may be more than are looked at: ask for fewer by a filter.
    is_cut: bool,
}

/// Lists workloads.
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Who,
    Asked(asked): Asked<WorkloadsAsked>,
) -> Result<Json<WorkloadList>, Problem> {
    let query = WorkloadQuery {
        cluster: asked.cluster.or_else(|| caller.cluster.clone()),
        namespace: asked.namespace,
        owner: asked.owner,
        container: asked.container,
        digest: asked.digest,
    };
    let rows = api.ledger.workloads(&query, PAGE).await?;
    let is_cut = rows.len() as u64 >= u64::from(PAGE);
    let workloads = rows.into_iter().filter(|row| caller.may_read(&row.cluster, &row.namespace)).map(Workload::from);
    Ok(Json(WorkloadList { workloads: workloads.collect(), is_cut }))
}

/// Holds a workload against its prediction.
pub(super) async fn read(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
) -> Result<Json<Snapshot>, Problem> {
    let row = readable(&api, &caller, &id).await?;
    let behavior = behavior(&api, &row).await?.ok_or_else(|| {
        Problem::conflict(
            "the DNA that it was compared with is not in the ledger any more",
            "wait until the image is analyzed again, or give the ledger a longer retention",
        )
    })?;
    let used = api.ledger.used(&id).await?;
    let alerts = alerts(&api, &row).await?;
    Ok(Json(snapshot(row, &behavior, &used, &alerts)))
}

/// Alerts of a workload's container of one image, the latest seen first.
pub(super) async fn alerts(api: &Api, row: &WorkloadRow) -> Result<Vec<AlertHead>, Problem> {
    let query = AlertQuery {
        cluster: Some(row.cluster.clone()),
        namespaces: Some([row.namespace.clone()].into()),
        owner: Some(row.owner.clone()),
        digest: Some(row.digest.clone()),
        limit: PAGE,
        ..AlertQuery::default()
    };
    let mut alerts = api.ledger.alerts(&query, Timestamp::now()).await?;
    alerts.retain(|head| head.container == row.container);
    Ok(alerts)
}

pub(super) async fn readable(api: &Api, caller: &Caller, id: &str) -> Result<WorkloadRow, Problem> {
    let row = api.ledger.workload(id).await?;
    row.filter(|row| caller.may_read(&row.cluster, &row.namespace)).ok_or_else(|| Problem::missing("such workload"))
}

/// What was predicted of a workload: by the pod that the webhook saw, else by the image alone.
async fn behavior(api: &Api, row: &WorkloadRow) -> Result<Option<Behavior>, Problem> {
    if let Some(name) = &row.expectation
        && let Some(json) = api.ledger.expectation(name).await?
        && let Ok(expectation) = serde_json::from_slice::<Expectation>(&json)
    {
        return Ok(Some(expectation.behavior));
    }
    let Some(json) = api.ledger.dna(&row.dna).await? else { return Ok(None) };
    Ok(serde_json::from_slice::<Dna>(&json).ok().map(|dna| dna.behavior))
}
