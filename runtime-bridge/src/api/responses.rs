//! What rules had done about alerts: listed, and taken back.

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use lineage::{PAGE, ResponseRow, ResponseState};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Api, Who,
    alerts::Why,
    auth::Caller,
    problem::{Asked, Problem, Sent, reason},
};
use crate::response::view::{ResponseList, ResponseView};

/// Which responses to list.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ResponsesAsked {
    /// In this state.
    state: Option<ResponseState>,
    /// In this namespace.
    namespace: Option<String>,
    /// About this alert.
    alert: Option<String>,
}

/// Lists responses.
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Who,
    Asked(asked): Asked<ResponsesAsked>,
) -> Result<Json<ResponseList>, Problem> {
    let rows = api.ledger.responses(asked.state, PAGE).await?;
    let is_cut = rows.len() as u64 >= u64::from(PAGE);
    let is_asked = |row: &ResponseRow| {
        caller.may_read(&row.cluster, &row.namespace)
            && asked.namespace.as_ref().is_none_or(|namespace| *namespace == row.namespace)
            && asked.alert.as_ref().is_none_or(|alert| *alert == row.alert)
    };
    let responses = rows.into_iter().filter(is_asked).map(Into::into).collect();
    Ok(Json(ResponseList { responses, is_cut }))
}

/// Takes a response back.
pub(super) async fn undo(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
    Sent(why): Sent<Why>,
) -> Result<Json<ResponseView>, Problem> {
    let reason = reason(&why.reason)?;
    let row = readable(&api, &caller, &id).await?;
    if !caller.may_write(&row.cluster, &row.namespace) {
        return Err(Problem::read_only("you may read this response, not take it back"));
    }
    let responder = api.responder.as_ref().ok_or_else(Problem::internal)?;
    responder
        .undo(&row, &caller.name, &reason)
        .await
        .map_err(|why| Problem::conflict(why, "read it again, or undo by hand what it says"))?;
    api.changed();
    Ok(Json(readable(&api, &caller, &id).await?.into()))
}

async fn readable(api: &Api, caller: &Caller, id: &str) -> Result<ResponseRow, Problem> {
    let row = api.ledger.response(id).await?;
    row.filter(|row| caller.may_read(&row.cluster, &row.namespace)).ok_or_else(|| Problem::missing("such response"))
}
