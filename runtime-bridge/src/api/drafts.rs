//! Drafts of rules and overlays, and what they, or those of a person, would make of the alerts that are stored. Nothing is written here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use dna::{Dna, Expectation};
use jiff::{SignedDuration, Timestamp};
use lineage::{After, AlertQuery, AlertRow, AlertSort};
use policies::Rules;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinHandle;
use trust::{OverlayPredicate, Statement};

use super::{
    Api, Who,
    alerts::within,
    problem::{Problem, Sent, is_within, reason},
    workloads,
};
use crate::{
    alert::Place,
    draft::{self, Drafted},
    expected::without_programs,
    replay::stored::{Candidate, Held, Known, Replayed},
    stored, usage,
};

/// What to draft of a workload's alerts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "NewDraft")]
pub(super) struct DraftSent {
    /// A rule that ignores what they tell, or overlays by which it is expected.
    kind: draft::Kind,
    /// Why, for whoever reads or signs it: 1 to 1000 bytes, of a rule 512.
    reason: String,
    /// When it ends: within a year.
    #[schemars(with = "String")]
    expires_at: Timestamp,
    /// Names of the alerts. Absent: all of the workload but those that are resolved, suppressed or of a risk from 0.7.
    #[serde(default)]
    alerts: BTreeSet<String>,
}

/// What is to be held against the alerts that are stored.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "ReplayAsked")]
pub(super) struct ReplaySent {
    /// Rules of run time, YAML or JSON, of one or more documents.
    rules: String,
    /// Statements of overlays, signed or not.
    overlays: Vec<Value>,
    /// Alerts in this cluster.
    cluster: Option<String>,
    /// In this namespace.
    namespace: Option<String>,
    /// Of this workload, `Deployment/web`.
    owner: Option<String>,
    /// Seen at this time or later.
    #[schemars(with = "Option<String>")]
    since: Option<Timestamp>,
}

/// Drafts a rule or overlays of a workload's alerts.
pub(super) async fn make(
    State(api): State<Api>,
    Extension(caller): Who,
    Path(id): Path<String>,
    Sent(sent): Sent<DraftSent>,
) -> Result<Json<Drafted>, Problem> {
    let (reason, now) = (reason(&sent.reason)?, Timestamp::now());
    if sent.kind == draft::Kind::Rule && reason.len() > MAX_RULE_REASON {
        return Err(Problem::bad(
            format!("the reason has {} bytes", reason.len()),
            format!("a rule's reason has at most {MAX_RULE_REASON}"),
        ));
    }
    if !is_within(sent.expires_at, now, LONGEST) {
        return Err(Problem::bad("`expiresAt` is not within the next year", "give a time within it"));
    }
    let row = workloads::readable(&api, &caller, &id).await?;
    // An overlay names who proposes it.
    if sent.kind == draft::Kind::Overlay && !caller.may_write(&row.cluster, &row.namespace) {
        return Err(Problem::read_only("you may read this workload, not accept what it does"));
    }
    let alerts = workloads::alerts(&api, &row).await?;
    let asked = draft::Asked {
        kind: sent.kind,
        alerts: sent.alerts,
        reason,
        until: sent.expires_at,
        actor: caller.name.clone(),
        at: now,
    };
    let draft = draft::draft(&row, &alerts, &asked).map_err(|why| {
        Problem::conflict(why, "look at `GET workloads/{id}` for its alerts, and name those that are meant in `alerts`")
    })?;
    let (rules, errors) = Rules::from_objects(&draft.rules);
    if let Some(error) = errors.first() {
        tracing::error!(workload = row.id, %error, "a rule that was drafted does not load");
        return Err(Problem::internal());
    }
    let overlays = draft.overlays.iter().map(overlay).collect::<Result<_, _>>()?;
    let query = AlertQuery {
        cluster: Some(row.cluster),
        namespaces: Some([row.namespace].into()),
        owner: Some(row.owner),
        ..AlertQuery::default()
    };
    let replayed = hold(&api, Candidate { rules, overlays }, query).await?;
    Ok(Json(Drafted { draft, replayed }))
}

/// Holds rules and overlays that nobody saved yet against the alerts that are stored.
pub(super) async fn replay(
    State(api): State<Api>,
    Extension(caller): Who,
    Sent(sent): Sent<ReplaySent>,
) -> Result<Json<Replayed>, Problem> {
    let rules = policies::load([("rules", sent.rules.as_str())]).map_err(|errors| {
        let told: Vec<String> = errors.iter().take(MAX_ERRORS).map(ToString::to_string).collect();
        Problem::bad(
            format!("the rules do not load: {}", dna::redact(&told.join("; "))),
            "`mayfly policy test` says the same of a file",
        )
    })?;
    let overlays = sent.overlays.iter().map(overlay).collect::<Result<Vec<_>, _>>()?;
    let is_empty = rules.runtime().is_empty() && overlays.is_empty();
    if is_empty || rules.runtime().len() > MAX_RULES || overlays.len() > MAX_OVERLAYS {
        return Err(Problem::bad(
            format!("there are {} rules of run time and {} overlays in it", rules.runtime().len(), overlays.len()),
            format!("send at least one of either, at most {MAX_RULES} rules and {MAX_OVERLAYS} overlays"),
        ));
    }
    let Some(within) = within(&caller, sent.cluster.as_deref(), sent.namespace.as_deref()) else {
        return Ok(Json(Replayed::default()));
    };
    let query = AlertQuery { owner: sent.owner, since: sent.since, ..within };
    Ok(Json(hold(&api, Candidate { rules, overlays }, query).await?))
}

fn overlay(statement: &Value) -> Result<(dna::Digest, OverlayPredicate), Problem> {
    let wrong = |why: String| {
        Problem::bad(
            format!("it is no overlay: {}", dna::redact(&why)),
            "send the `statement` that `POST alerts/{id}/accept` gave",
        )
    };
    let statement = Statement::deserialize(statement).map_err(|error| wrong(error.to_string()))?;
    OverlayPredicate::of(&statement).map_err(|why| wrong(why.to_string()))
}

/// Holds a candidate against alerts, the latest seen first, as far as there is time.
async fn hold(api: &Api, candidate: Candidate, query: AlertQuery) -> Result<Replayed, Problem> {
    // It is work for a processor, and one caller's is enough beside the events.
    let _turn = api.replays.acquire().await.map_err(|_| Problem::internal())?;
    let (candidate, until, now) = (Arc::new(candidate), Instant::now() + LIMIT, Timestamp::now());
    let (mut replayed, mut after, mut known) = (Replayed::default(), None, BTreeMap::new());
    for _ in 0..MAX_ALERTS.div_ceil(AT_ONCE) {
        let asked = AlertQuery { after: after.take(), limit: AT_ONCE, ..query.clone() };
        let heads = api.ledger.alerts(&asked, now).await?;
        let Some(last) = heads.last() else { return Ok(replayed) };
        after = Some(After::head(last, AlertSort::default()));
        let is_last = heads.len() < AT_ONCE as usize;
        let ids = heads.into_iter().map(|head| head.id).collect();
        let rows = api.ledger.alerts_by_id(&ids, now).await?;
        if candidate.asks_for_known() {
            for row in &rows {
                look_up(api, row, &mut known, until).await?;
            }
        }
        let candidate = Arc::clone(&candidate);
        // What is known goes there and comes back: it is read on from page to page.
        let held: JoinHandle<(Result<Vec<_>, lineage::Error>, AllKnown)> = tokio::task::spawn_blocking(move || {
            (rows.iter().map(|row| hold_one(&candidate, row, &known, until)).collect(), known)
        });
        let (held, read) = held.await.map_err(|_| Problem::internal())?;
        known = read;
        for held in held? {
            let Some(held) = held else {
                replayed.is_cut = true;
                return Ok(replayed);
            };
            replayed.add(held);
        }
        if is_last {
            return Ok(replayed);
        }
    }
    replayed.is_cut = true;
    Ok(replayed)
}

/// What is expected of containers, by the name of the workload's row.
type AllKnown = BTreeMap<String, Known>;

fn hold_one(
    candidate: &Candidate,
    row: &AlertRow,
    known: &AllKnown,
    until: Instant,
) -> Result<Option<Held>, lineage::Error> {
    let alert = stored::alert(row)?;
    let nothing = Known::default();
    let known = known.get(&usage::workload(&alert.place)).unwrap_or(&nothing);
    Ok(candidate.hold(&alert, stored::shown(&row.head), known, until))
}

/// Reads what is expected of an alert's container, where that was not read before.
async fn look_up(api: &Api, row: &AlertRow, all: &mut AllKnown, until: Instant) -> Result<(), Problem> {
    let head = &row.head;
    let place = Place {
        cluster: head.cluster.clone(),
        namespace: head.namespace.clone(),
        owner: head.owner.clone(),
        container: head.container.clone(),
        image: String::new(),
        digest: head.digest.clone(),
    };
    let id = usage::workload(&place);
    if all.contains_key(&id) || all.len() >= MAX_KNOWN || Instant::now() >= until {
        return Ok(());
    }
    let mut known = Known::default();
    if let Some(workload) = api.ledger.workload(&id).await? {
        if let Some(json) = api.ledger.dna(&workload.dna).await? {
            known.dna = serde_json::from_slice::<Dna>(&json).ok().map(|dna| without_programs(&dna));
        }
        if let Some(name) = &workload.expectation
            && let Some(json) = api.ledger.expectation(name).await?
        {
            known.expectation = serde_json::from_slice::<Expectation>(&json).ok();
        }
    }
    all.insert(id, known);
    Ok(())
}

const LONGEST: SignedDuration = SignedDuration::from_hours(366 * 24);
const MAX_RULE_REASON: usize = 512;
/// Errors of rules that are told.
const MAX_ERRORS: usize = 5;
/// Of one request.
const MAX_RULES: usize = 64;
const MAX_OVERLAYS: usize = 64;
/// Bytes of rules and overlays.
pub(super) const MAX_SENT: usize = 256 << 10;
/// Alerts that are held, and those of them that are in memory at once.
const MAX_ALERTS: u32 = 5_000;
const AT_ONCE: u32 = 100;
/// Workloads whose prediction is in memory at once; of others, nothing is known.
const MAX_KNOWN: usize = 200;
/// How long alerts are looked at: an answer has 20 seconds.
const LIMIT: Duration = Duration::from_secs(10);
/// Callers whose candidates are held at once.
pub(super) const AT_A_TIME: usize = 1;
