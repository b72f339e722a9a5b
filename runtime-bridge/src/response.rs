//! What rules want done about alerts, and is done.
//!
//! ```text
//! alerts, by revision ─orders─► Order ─claim─► ledger: one bridge does it, once ─Hands─► API server ─► ledger, alert's audit trail
//!                                  └─ dry run, not opted in, too many: kept with why, and not done
//! ```
//!
//! A response is done where a rule says `dryRun: false`, the namespace has the label [`OPT_IN`], the bridge was started to respond, and no more
//! were done within the hour than the limits say. Each is kept, and stands in the alert's audit trail; all but a deleted pod can be taken back.

mod hands;
pub mod view;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use lineage::{Action, Ledger, ResponseRow, ResponseState};
use policies::kinds::ResponseAction;
use serde_json::Value;
use tokio::sync::watch;
use tracing::{error, info, warn};

pub use self::hands::KubeHands;
use crate::{
    alert::{Alert, State},
    incidents::{POLL, read},
    sensor,
};

/// The label of a namespace in which responses are done: `true`.
pub const OPT_IN: &str = "mayfly.dev/respond";
/// The label of a pod that is cut off, with the response's name.
pub const ISOLATED: &str = "mayfly.dev/isolated";

/// How much may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Responses within an hour, in all.
    pub per_hour: u64,
    /// Of these, in one namespace.
    pub per_namespace: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_hour: 20, per_namespace: 5 }
    }
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The response's name.
    pub id: String,
    /// What.
    pub action: ResponseAction,
    /// The namespace.
    pub namespace: String,
    /// The pod, the workload, or the digest.
    pub target: String,
    /// The pod's uid, where it is known.
    pub pod_uid: Option<String>,
    /// When the deviation was seen last: a pod that is younger is another.
    pub seen: Timestamp,
    /// No rule means it in earnest.
    pub is_dry_run: bool,
    /// The rules that want it.
    pub rules: BTreeSet<String>,
}

/// Whoever does it.
pub trait Hands: Send + Sync + std::fmt::Debug {
    /// Whether responses are done in a namespace.
    fn may<'a>(&'a self, namespace: &'a str) -> BoxFuture<'a, Result<bool, String>>;
    /// Does it. What is needed to take it back, or why it was not done.
    fn act<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Value, Undone>>;
    /// Takes it back.
    fn undo<'a>(&'a self, row: &'a ResponseRow) -> BoxFuture<'a, Result<(), String>>;
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// It cannot be, or need not be.
    Refused(String),
    /// It did not succeed.
    Failed(String),
}

/// Does what rules want done, in one cluster. Clones are the same.
#[derive(Debug, Clone)]
pub struct Responder {
    ledger: Ledger,
    cluster: Arc<str>,
    hands: Option<Arc<dyn Hands>>,
    limits: Limits,
}

impl Responder {
    /// In this cluster, by these hands; without hands, it keeps what would be done.
    #[must_use]
    pub fn new(ledger: Ledger, cluster: &str, hands: Option<Arc<dyn Hands>>, limits: Limits) -> Self {
        Self { ledger, cluster: cluster.into(), hands, limits }
    }

    /// Follows alerts until `ended`: those of the last hour, and what changes.
    pub async fn follow(self, mut changed: watch::Receiver<()>, ended: impl Future<Output = ()> + Send) {
        tokio::pin!(ended);
        let follow = async {
            let (mut revision, mut since) = (0, Some(Timestamp::now() - SignedDuration::from_hours(1)));
            loop {
                match self.catch_up(&mut revision, &mut since).await {
                    Ok(()) => {
                        tokio::select! {
                            _ = changed.changed() => {}
                            () = tokio::time::sleep(POLL) => {}
                        }
                    }
                    Err(error) => {
                        warn!(%error, "responses wait for the ledger");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        };
        tokio::select! {
            () = follow => {}
            () = &mut ended => {}
        }
    }

    async fn catch_up(&self, revision: &mut u64, since: &mut Option<Timestamp>) -> Result<(), lineage::Error> {
        while let Some(changed) = read(&self.ledger, *revision, *since).await? {
            for alert in &changed.alerts {
                for order in orders(alert, &self.cluster) {
                    self.respond(alert, &order).await?;
                }
            }
            *revision = changed.until;
        }
        *since = None;
        Ok(())
    }

    /// Does one thing, or says why not.
    async fn respond(&self, alert: &Alert, order: &Order) -> Result<(), lineage::Error> {
        let now = Timestamp::now();
        let (state, note) = match self.why_not(order, now).await? {
            Some((state, note)) => (state, note),
            None => (ResponseState::Taken, String::new()),
        };
        let row = ResponseRow {
            id: order.id.clone(),
            alert: alert.id.clone(),
            cluster: alert.place.cluster.clone(),
            namespace: order.namespace.clone(),
            action: order.action.name().to_owned(),
            target: order.target.clone(),
            rules: order.rules.clone(),
            state,
            note,
            undo: String::new(),
            at: now,
            changed_at: now,
            actor: String::new(),
            reason: String::new(),
        };
        let hands = match &self.hands {
            _ if !self.ledger.claim_response(&row).await? => return Ok(()),
            Some(hands) if state == ResponseState::Taken => hands,
            _ => {
                info!(
                    action = row.action,
                    target = row.target,
                    state = state.as_str(),
                    note = row.note,
                    "a response is not done"
                );
                return Ok(());
            }
        };
        let (state, note, undo) = match hands.act(order).await {
            Ok(undo) => (ResponseState::Done, String::new(), undo.to_string()),
            Err(Undone::Refused(why)) => (ResponseState::Refused, why, String::new()),
            Err(Undone::Failed(why)) => (ResponseState::Failed, why, String::new()),
        };
        self.ledger.end_response(&row.id, state, &note, &undo, Timestamp::now()).await?;
        metrics::counter!("mayfly_responses_total", "action" => order.action.name(), "state" => state.as_str())
            .increment(1);
        let rules = row.rules.iter().cloned().collect::<Vec<_>>().join(", ");
        let told = format!(
            "{} {}: {}{}{note}, by {rules}",
            row.action,
            row.target,
            state.as_str(),
            if note.is_empty() { "" } else { ": " }
        );
        match state {
            ResponseState::Failed => error!(action = row.action, target = row.target, note, "a response failed"),
            _ => info!(action = row.action, target = row.target, state = state.as_str(), note, "a response"),
        }
        // The trail of who did what; that it cannot be written takes nothing back.
        if let Err(error) = self.ledger.act(&row.alert, Action::Annotate, (ACTOR, &told), None, Timestamp::now()).await
        {
            warn!(%error, alert = row.alert, "a response is not in the alert's audit trail");
        }
        Ok(())
    }

    /// Why something is not done.
    async fn why_not(&self, order: &Order, now: Timestamp) -> Result<Option<(ResponseState, String)>, lineage::Error> {
        let no = |state, why: String| Ok(Some((state, why)));
        if order.is_dry_run {
            return no(ResponseState::DryRun, "no rule says `dryRun: false`".to_owned());
        }
        let Some(hands) = &self.hands else {
            return no(ResponseState::DryRun, "the bridge was not started with --respond".to_owned());
        };
        match hands.may(&order.namespace).await {
            Ok(true) => {}
            Ok(false) => {
                let why = format!("the namespace {} has no label {OPT_IN}=true", order.namespace);
                return no(ResponseState::Refused, why);
            }
            Err(why) => return no(ResponseState::Failed, why),
        }
        let since = now - SignedDuration::from_hours(1);
        let (all, own) = self.ledger.responses_since(&self.cluster, &order.namespace, since).await?;
        if all >= self.limits.per_hour || own >= self.limits.per_namespace {
            let why = format!(
                "{all} responses were done within the hour, {own} of them in {}: the limits are {} and {}",
                order.namespace, self.limits.per_hour, self.limits.per_namespace
            );
            return no(ResponseState::Refused, why);
        }
        Ok(None)
    }

    /// Takes a response back, in somebody's name.
    ///
    /// # Errors
    /// Why it is not, for people.
    pub async fn undo(&self, row: &ResponseRow, actor: &str, reason: &str) -> Result<(), String> {
        if row.state != ResponseState::Done {
            return Err(format!("it is {}: there is nothing to take back", row.state.as_str()));
        }
        // A quarantine is of the ledger alone.
        if row.action != ResponseAction::QuarantineDigest.name() {
            let hands = self.hands.as_ref().filter(|_| *row.cluster == *self.cluster);
            let hands = hands.ok_or_else(|| {
                format!(
                    "this bridge does nothing in the cluster {}: ask one there that was started with --respond",
                    row.cluster
                )
            })?;
            hands.undo(row).await?;
        }
        let now = Timestamp::now();
        if !self.ledger.undo_response(&row.id, actor, reason, now).await.map_err(|error| error.to_string())? {
            return Err("somebody else was faster".to_owned());
        }
        info!(action = row.action, target = row.target, actor, reason, "a response is taken back");
        let told = format!("{} {}: taken back: {reason}", row.action, row.target);
        if let Err(error) = self.ledger.act(&row.alert, Action::Annotate, (actor, &told), None, now).await {
            warn!(%error, alert = row.alert, "that a response is taken back is not in the alert's audit trail");
        }
        Ok(())
    }
}

/// What is to be done about an alert of a cluster.
#[must_use]
pub fn orders(alert: &Alert, cluster: &str) -> Vec<Order> {
    let place = &alert.place;
    if place.cluster != cluster || matches!(alert.state, State::Suppressed | State::Resolved) {
        return Vec::new();
    }
    let order = |action: ResponseAction, target: &str, is_dry_run, rules: &BTreeSet<String>| {
        let seen = alert.samples.iter().map(|sample| &sample.activity.container);
        let mut seen = seen.filter(|seen| seen.pod.as_deref() == Some(target));
        Order {
            id: sensor::name_of([alert.id.as_str(), action.name(), target]),
            action,
            namespace: place.namespace.clone(),
            target: target.to_owned(),
            pod_uid: seen.find_map(|seen| seen.pod_uid.clone()),
            seen: alert.last_seen,
            is_dry_run,
            rules: rules.clone(),
        }
    };
    let mut orders = Vec::new();
    for planned in &alert.ruled.responses {
        let targets: Vec<&str> = match planned.action {
            ResponseAction::Isolate | ResponseAction::DeletePod => alert.pods.iter().map(String::as_str).collect(),
            ResponseAction::ScaleToZero => vec![place.owner.as_str()],
            ResponseAction::QuarantineDigest => vec![place.digest.as_str()],
        };
        let known = targets.into_iter().filter(|target| !target.is_empty() && !place.namespace.is_empty());
        orders.extend(known.map(|target| order(planned.action, target, planned.dry_run, &planned.rules)));
    }
    orders
}

/// Who does it, in audit trails.
const ACTOR: &str = "mayfly";
/// Between tries where the ledger fails.
const AGAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
