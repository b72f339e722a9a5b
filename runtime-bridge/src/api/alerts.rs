//! Alerts: listed, read whole, and acted on.

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use jiff::Timestamp;
use lineage::{
    Acted, Action, After, AlertHead, AlertQuery, AlertRow, AlertSort, AlertState, AuditRow, Notice, Telling,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api, Who,
    auth::{Caller, Namespaces},
    problem::{Asked, Problem, Sent, cursor, is_risk, limit, place, reason},
    suppressions::SuppressionView,
};
use crate::{
    Class,
    alert::{Alert, By, Change, State as Shown},
    outbox,
    sinks::Sink,
    stored,
};

/// Which alerts to list.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct AlertsAsked {
    /// In this cluster.
    cluster: Option<String>,
    /// In this namespace.
    namespace: Option<String>,
    /// Of this workload, `Deployment/web`.
    owner: Option<String>,
    /// Of images of this digest.
    digest: Option<String>,
    /// Of this class.
    class: Option<Class>,
    /// In this state.
    state: Option<Shown>,
    /// With this risk or a higher one: 0 to 1.
    min_risk: Option<f64>,
    /// Seen at this time or later.
    #[schemars(with = "Option<String>")]
    since: Option<Timestamp>,
    /// What to sort by.
    sort: Sort,
    /// The highest first, or the lowest.
    order: Order,
    /// Rows of a page: 1 to 500.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Sort {
    #[default]
    LastSeen,
    FirstSeen,
    Risk,
    Count,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Order {
    #[default]
    Desc,
    Asc,
}

impl From<Sort> for AlertSort {
    fn from(sort: Sort) -> Self {
        match sort {
            Sort::LastSeen => Self::LastSeen,
            Sort::FirstSeen => Self::FirstSeen,
            Sort::Risk => Self::Risk,
            Sort::Count => Self::Count,
        }
    }
}

/// Where a list goes on. A list sorted otherwise does not go on there.
#[derive(Serialize, Deserialize)]
struct Place {
    sort: Sort,
    order: Order,
    key: i64,
    id: String,
}

/// A page of alerts.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct AlertPage {
    /// The alerts.
    alerts: Vec<AlertView>,
    /// The cursor of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// An alert in a list.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "AlertSummary")]
pub(super) struct AlertView {
    /// Its name.
    id: String,
    /// The cluster's name.
    cluster: String,
    /// The pod's namespace; empty where it is not known.
    namespace: String,
    /// The workload.
    owner: String,
    /// The container's name.
    container: String,
    /// The image's digest.
    digest: String,
    /// The deviation's class.
    class: String,
    /// What it is about.
    subject: String,
    /// One sentence.
    message: String,
    /// What became of it.
    state: Shown,
    /// 0 to 1.
    risk: f64,
    /// When it was first seen.
    #[schemars(with = "String")]
    first_seen: Timestamp,
    /// When it was last seen.
    #[schemars(with = "String")]
    last_seen: Timestamp,
    /// How often.
    count: u64,
    /// The number of its last change.
    revision: u64,
}

/// An alert, all of it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "AlertDetails")]
pub(super) struct AlertWhole {
    #[serde(flatten)]
    alert: Alert,
    /// The number of its last change.
    revision: u64,
    /// What people did to it, the first act first.
    audit: Vec<AuditView>,
    /// Suppressions that cover it now.
    suppressions: Vec<SuppressionView>,
}

/// What somebody did to an alert.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "AuditEntry")]
pub(super) struct AuditView {
    /// The revision it made.
    revision: u64,
    /// When.
    #[schemars(with = "String")]
    at: Timestamp,
    /// Who.
    actor: String,
    /// What: `acknowledge`, `resolve`, `reopen`, `annotate`, `suppress`, `lift`.
    action: String,
    /// Why.
    reason: String,
}

/// Why somebody does something.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Reason")]
pub(super) struct Why {
    /// For the audit trail: 1 to 1000 bytes.
    pub(super) reason: String,
}

impl AlertView {
    /// The number of its last change.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }
}

impl From<AlertHead> for AlertView {
    fn from(head: AlertHead) -> Self {
        Self {
            state: stored::shown(&head),
            id: head.id,
            cluster: head.cluster,
            namespace: head.namespace,
            owner: head.owner,
            container: head.container,
            digest: head.digest,
            class: head.class,
            subject: head.subject,
            message: head.message,
            risk: head.risk,
            first_seen: head.first_seen,
            last_seen: head.last_seen,
            count: head.count,
            revision: head.revision,
        }
    }
}

impl From<AuditRow> for AuditView {
    fn from(row: AuditRow) -> Self {
        Self { revision: row.revision, at: row.at, actor: row.actor, action: row.action, reason: row.reason }
    }
}

/// What a caller may read of what he asks for; none where that is nothing.
pub(super) fn within(caller: &Caller, cluster: Option<&str>, namespace: Option<&str>) -> Option<AlertQuery> {
    if cluster.is_some_and(|cluster| !caller.sees(cluster)) {
        return None;
    }
    let namespaces = match (&caller.read, namespace) {
        (read, Some(name)) if !read.has(name) => return None,
        (_, Some(name)) => Some([name.to_owned()].into()),
        (Namespaces::All, None) => None,
        (Namespaces::Only(names), None) => Some(names.clone()),
    };
    let cluster = cluster.map(str::to_owned).or_else(|| caller.cluster.clone());
    Some(AlertQuery { cluster, namespaces, ..AlertQuery::default() })
}

/// Lists alerts.
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Who,
    Asked(asked): Asked<AlertsAsked>,
) -> Result<Json<AlertPage>, Problem> {
    let limit = limit(asked.limit)?;
    let after = place::<Place>(asked.cursor.as_deref())?;
    if after.as_ref().is_some_and(|place| (place.sort, place.order) != (asked.sort, asked.order)) {
        return Err(Problem::bad(
            "the cursor is of a list in another order",
            "keep `sort` and `order` from page to page",
        ));
    }
    is_risk(asked.min_risk)?;
    let Some(within) = within(&caller, asked.cluster.as_deref(), asked.namespace.as_deref()) else {
        return Ok(Json(AlertPage { alerts: Vec::new(), next: None }));
    };
    let (state, is_suppressed) = match asked.state {
        None => (None, None),
        Some(Shown::Open) => (Some(AlertState::Open), Some(false)),
        Some(Shown::Acknowledged) => (Some(AlertState::Acknowledged), Some(false)),
        Some(Shown::Suppressed) => (None, Some(true)),
        Some(Shown::Resolved) => (Some(AlertState::Resolved), None),
    };
    let query = AlertQuery {
        owner: asked.owner,
        digest: asked.digest,
        class: asked.class.map(|class| class.name().to_owned()),
        state,
        is_suppressed,
        min_risk: asked.min_risk,
        since: asked.since,
        sort: asked.sort.into(),
        is_ascending: asked.order == Order::Asc,
        after: after.map(|place| After { key: place.key, id: place.id }),
        // One more, to know whether there is another page.
        limit: limit + 1,
        ..within
    };
    let mut heads = api.ledger.alerts(&query, Timestamp::now()).await?;
    let kept = usize::try_from(limit).unwrap_or(usize::MAX);
    let is_more = heads.len() > kept;
    heads.truncate(kept);
    let last = heads.last().filter(|_| is_more).map(|head| {
        let After { key, id } = After::head(head, query.sort);
        Place { sort: asked.sort, order: asked.order, key, id }
    });
    let next = last.and_then(|place| cursor(&place));
    Ok(Json(AlertPage { alerts: heads.into_iter().map(Into::into).collect(), next }))
}

/// Reads one alert.
pub(super) async fn read(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
) -> Result<Json<AlertWhole>, Problem> {
    whole(&api, &caller, &id).await.map(Json)
}

/// All of an alert.
pub(super) async fn whole(api: &Api, caller: &Caller, id: &str) -> Result<AlertWhole, Problem> {
    let now = Timestamp::now();
    let row = readable(api, caller, id, now).await?;
    let mut alert = stored::alert(&row)?;
    alert.state = stored::shown(&row.head);
    let audit = api.ledger.audit(id).await?.into_iter().map(Into::into).collect();
    let suppressions = api.ledger.suppressions(now).await?;
    let covering = suppressions.into_iter().filter(|suppression| suppression.scope.covers(&row.head));
    let suppressions = covering.map(Into::into).collect();
    Ok(AlertWhole { alert, revision: row.head.revision, audit, suppressions })
}

pub(super) async fn acknowledge(
    api: State<Api>,
    who: Who,
    id: Path<String>,
    why: Sent<Why>,
) -> Result<Json<AlertView>, Problem> {
    act(api, who, id, why, Action::Acknowledge).await
}

pub(super) async fn resolve(
    api: State<Api>,
    who: Who,
    id: Path<String>,
    why: Sent<Why>,
) -> Result<Json<AlertView>, Problem> {
    act(api, who, id, why, Action::Resolve).await
}

pub(super) async fn reopen(
    api: State<Api>,
    who: Who,
    id: Path<String>,
    why: Sent<Why>,
) -> Result<Json<AlertView>, Problem> {
    act(api, who, id, why, Action::Reopen).await
}

pub(super) async fn annotate(
    api: State<Api>,
    who: Who,
    id: Path<String>,
    why: Sent<Why>,
) -> Result<Json<AlertView>, Problem> {
    act(api, who, id, why, Action::Annotate).await
}

async fn act(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
    Sent(why): Sent<Why>,
    action: Action,
) -> Result<Json<AlertView>, Problem> {
    act_on(&api, &caller, &id, &reason(&why.reason)?, action).await.map(Json)
}

/// Does something to an alert, in a caller's name.
pub(super) async fn act_on(
    api: &Api,
    caller: &Caller,
    id: &str,
    reason: &str,
    action: Action,
) -> Result<AlertView, Problem> {
    let now = Timestamp::now();
    let by = By { actor: caller.name.clone(), reason: reason.to_owned() };
    let mut tries = 0..TRIES;
    loop {
        let row = writable(api, caller, id).await?;
        let after = match action {
            Action::Acknowledge => Some((Change::Acknowledged, Shown::Acknowledged)),
            Action::Resolve => Some((Change::Resolved, Shown::Resolved)),
            Action::Reopen if row.head.is_suppressed => Some((Change::Reopened, Shown::Suppressed)),
            Action::Reopen => Some((Change::Reopened, Shown::Open)),
            Action::Annotate => None,
        };
        let notices = after.map(|(change, state)| told(api, &row, change, state, &by, now)).transpose()?;
        let telling = notices.as_ref().map(|notices| Telling { revision: row.head.revision, notices });
        match api.ledger.act(id, action, (&by.actor, &by.reason), telling.as_ref(), now).await? {
            Acted::Done(_) => break,
            Acted::Missing => return Err(Problem::missing("such alert")),
            Acted::Stale if tries.next().is_some() => {}
            Acted::Stale => return Err(Problem::later("the alert changes again and again")),
            Acted::Unfit(state) => {
                return Err(Problem::conflict(
                    format!("the alert is {}: `{}` does not fit", state.as_str(), action.as_str()),
                    "read it again; somebody else may have been there first",
                ));
            }
        }
    }
    api.changed();
    Ok(readable(api, caller, id, now).await?.head.into())
}

/// What sinks are to be told of what somebody does to an alert, after which it is in this state.
pub(super) fn told(
    api: &Api,
    row: &AlertRow,
    change: Change,
    state: Shown,
    by: &By,
    now: Timestamp,
) -> Result<Vec<Notice>, Problem> {
    let alert = Alert { state, ..stored::alert(row)? };
    let wants = |sink: &&Sink| sink.wants(&alert, change, alert.told.get(&sink.name).copied(), now);
    let sinks = api.sinks.iter().filter(wants).map(|sink| sink.name.clone());
    Ok(outbox::notices(&alert, change, Some(by), sinks)?)
}

/// An alert that this caller may read.
async fn readable(api: &Api, caller: &Caller, id: &str, now: Timestamp) -> Result<AlertRow, Problem> {
    let found = api.ledger.alerts_by_id(&[id.to_owned()].into(), now).await?.pop();
    found
        .filter(|row| caller.may_read(&row.head.cluster, &row.head.namespace))
        .ok_or_else(|| Problem::missing("such alert"))
}

/// An alert that this caller may change.
pub(super) async fn writable(api: &Api, caller: &Caller, id: &str) -> Result<AlertRow, Problem> {
    let row = readable(api, caller, id, Timestamp::now()).await?;
    if caller.may_write(&row.head.cluster, &row.head.namespace) {
        return Ok(row);
    }
    Err(Problem::read_only("you may read this alert, not change it"))
}

/// Times that an alert is read again because a bridge wrote it meanwhile.
pub(super) const TRIES: usize = 5;
