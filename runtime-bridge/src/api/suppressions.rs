//! Suppressions: alerts that nobody is told of until a time.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use jiff::{SignedDuration, Timestamp};
use lineage::{Acted, AlertState, MAX_SUPPRESSIONS, Scope, Suppression, Telling};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Api, Who,
    alerts::{TRIES, told, writable},
    auth::Caller,
    problem::{Asked, Problem, Sent, is_within, reason},
};
use crate::alert::{By, Change, State as Shown};

/// Which alerts: those that fit all that is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Scope")]
pub(super) struct ScopeView {
    /// In this cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    /// In this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// Of this workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// Of containers of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    /// Of images of this digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// Of this class.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    /// About this.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
}

/// A suppression to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "NewSuppression")]
pub(super) struct SuppressionSent {
    /// For the audit trail: 1 to 1000 bytes.
    reason: String,
    /// When it ends: within 90 days.
    #[schemars(with = "String")]
    expires_at: Timestamp,
    /// Which alerts, this one among them; this one alone where it is absent.
    #[serde(default)]
    scope: Option<ScopeView>,
}

/// A suppression.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Suppression")]
pub(super) struct SuppressionView {
    /// Its name.
    id: String,
    /// The alert it was made at.
    alert: String,
    /// Which alerts it covers.
    scope: ScopeView,
    /// Why.
    reason: String,
    /// By whom.
    actor: String,
    /// When it was made.
    #[schemars(with = "String")]
    made_at: Timestamp,
    /// When it ends.
    #[schemars(with = "String")]
    expires_at: Timestamp,
}

/// The suppressions that hold.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SuppressionList {
    /// The latest first.
    suppressions: Vec<SuppressionView>,
}

/// Why a suppression is ended.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LiftAsked {
    /// For the audit trail: 1 to 1000 bytes.
    reason: String,
}

impl From<Scope> for ScopeView {
    fn from(scope: Scope) -> Self {
        let Scope { cluster, namespace, owner, container, digest, class, subject } = scope;
        Self { cluster, namespace, owner, container, digest, class, subject }
    }
}

impl From<ScopeView> for Scope {
    fn from(scope: ScopeView) -> Self {
        let ScopeView { cluster, namespace, owner, container, digest, class, subject } = scope;
        Self { cluster, namespace, owner, container, digest, class, subject }
    }
}

impl From<Suppression> for SuppressionView {
    fn from(suppression: Suppression) -> Self {
        Self {
            id: suppression.id.to_string(),
            alert: suppression.alert,
            scope: suppression.scope.into(),
            reason: suppression.reason,
            actor: suppression.actor,
            made_at: suppression.made_at,
            expires_at: suppression.expires_at,
        }
    }
}

/// Suppresses alerts, from one of them on.
pub(super) async fn make(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
    Sent(sent): Sent<SuppressionSent>,
) -> Result<(StatusCode, Json<SuppressionView>), Problem> {
    let mut row = writable(&api, &caller, &id).await?;
    let head = &row.head;
    let (reason, now) = (reason(&sent.reason)?, Timestamp::now());
    if !is_within(sent.expires_at, now, LONGEST) {
        return Err(Problem::bad(
            "`expiresAt` is not within the next 90 days",
            "give a time within them; suppress again when it comes",
        ));
    }
    let scope = sent.scope.map_or_else(
        || Scope {
            cluster: Some(head.cluster.clone()),
            namespace: Some(head.namespace.clone()),
            owner: Some(head.owner.clone()),
            container: Some(head.container.clone()),
            digest: Some(head.digest.clone()),
            class: Some(head.class.clone()),
            subject: Some(head.subject.clone()),
        },
        Scope::from,
    );
    if scope == Scope::default() {
        return Err(Problem::bad("the scope names nothing, and would hide everything", "name a part of it"));
    }
    if !scope.covers(head) {
        return Err(Problem::bad(
            "the scope does not cover the alert it is made at",
            "name what the alert has, or nothing, for each part",
        ));
    }
    if !may_hide(&caller, &scope) {
        return Err(Problem::forbidden(
            "the scope reaches into namespaces or clusters that you may not change",
            "name a `namespace`, and the `cluster`, in the scope",
        ));
    }
    if api.ledger.suppressions(now).await?.len() as u64 >= MAX_SUPPRESSIONS {
        return Err(Problem::conflict(
            format!("{MAX_SUPPRESSIONS} suppressions hold already"),
            "end some, or make one with a wider scope in their place",
        ));
    }
    let suppression = Suppression {
        id: Uuid::now_v7(),
        alert: id,
        scope,
        reason,
        actor: caller.name.clone(),
        made_at: now,
        expires_at: sent.expires_at,
    };
    let by = By { actor: suppression.actor.clone(), reason: suppression.reason.clone() };
    let mut tries = 0..TRIES;
    loop {
        // Of what is resolved nobody is told anyhow.
        let notices = match row.head.state {
            AlertState::Resolved => Vec::new(),
            _ => told(&api, &row, Change::Suppressed, Shown::Suppressed, &by, now)?,
        };
        let telling = Telling { revision: row.head.revision, notices: &notices };
        match api.ledger.suppress(&suppression, Some(&telling)).await? {
            Acted::Done(_) => break,
            Acted::Stale if tries.next().is_some() => row = writable(&api, &caller, &suppression.alert).await?,
            Acted::Stale => return Err(Problem::later("the alert changes again and again")),
            _ => return Err(Problem::missing("such alert")),
        }
    }
    api.changed();
    Ok((StatusCode::CREATED, Json(suppression.into())))
}

/// Lists the suppressions that hold and bear on what the caller may read.
pub(super) async fn list(State(api): State<Api>, Extension(caller): Who) -> Result<Json<SuppressionList>, Problem> {
    let all = api.ledger.suppressions(Timestamp::now()).await?;
    let seen = all.into_iter().filter(|suppression| bears_on(&caller, &suppression.scope));
    Ok(Json(SuppressionList { suppressions: seen.map(Into::into).collect() }))
}

/// Ends one before its time.
pub(super) async fn lift(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
    Asked(asked): Asked<LiftAsked>,
) -> Result<StatusCode, Problem> {
    let (reason, now) = (reason(&asked.reason)?, Timestamp::now());
    let missing = || Problem::missing("such suppression");
    let id: Uuid = id.parse().map_err(|_| missing())?;
    let mut all = api.ledger.suppressions(now).await?.into_iter();
    let found = all.find(|suppression| suppression.id == id && bears_on(&caller, &suppression.scope));
    let scope = found.ok_or_else(missing)?.scope;
    if !may_hide(&caller, &scope) {
        return Err(Problem::forbidden(
            "the suppression reaches into namespaces or clusters that you may not change",
            "ask somebody who may change all of them",
        ));
    }
    if !api.ledger.lift(id, &caller.name, &reason, now).await? {
        return Err(missing());
    }
    api.changed();
    Ok(StatusCode::NO_CONTENT)
}

/// Whether all that a scope may cover is the caller's to change.
fn may_hide(caller: &Caller, scope: &Scope) -> bool {
    caller.may_write_all(scope.cluster.as_deref(), scope.namespace.as_deref())
}

/// Whether a scope may cover what the caller may read.
fn bears_on(caller: &Caller, scope: &Scope) -> bool {
    caller.may_read_in(scope.cluster.as_deref(), scope.namespace.as_deref())
}

const LONGEST: SignedDuration = SignedDuration::from_hours(90 * 24);
