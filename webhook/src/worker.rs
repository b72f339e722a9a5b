//! What runs already: every container bound to what it may do, everything decided again when rules or trust change, and told.
//!
//! ```text
//! Lease ─elected─► look at all pods, again and again ─► table of what is open ─┬─► bind a pod's containers ─► ledger
//!                  (pages; no watch that can break)      (memory, bounded)     ├─► decide, by one pod of its like ─► ledger,
//!                                                                              │                                    PolicyReports
//!                                                                              └─► work out a sample of what is attested
//! ```
//!
//! Two things are done at once. Whoever loses the election stops where he is: what he wrote twice counts once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use dna::Platform;
use futures_util::future;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use lineage::{DecisionQuery, Ledger, Retention};
use serde_json::Value;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::service::{EXEMPT, Service};

mod ahead;
mod board;
mod compare;
mod configuration;
mod cover;
mod decide;
mod election;
mod facts;
#[cfg(test)]
pub(crate) mod fake;
mod report;
mod running;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use ahead::{Template, listen, run as run_ahead};

use board::{Board, Job, Scope};
use configuration::Maps;
use election::Election;
use report::Reports;
use running::Cluster;

/// What a worker is told once.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Names this replica in the election.
    pub(crate) identity: String,
    /// The namespace of the Lease.
    pub(crate) namespace: String,
    /// Of so many attested DNAs that are used, one is worked out here too; zero: none.
    pub(crate) sample: u32,
    /// What the ledger keeps.
    pub(crate) retention: Retention,
}

/// Looks after what runs, while it is elected.
pub(crate) struct Worker {
    service: Arc<Service>,
    ledger: Option<Ledger>,
    settings: Settings,
    cluster: Option<Cluster>,
    reports: Option<tokio::sync::Mutex<Reports>>,
    board: Mutex<Board>,
    /// The platform of each node, as of the last look.
    nodes: ArcSwap<BTreeMap<String, Platform>>,
    /// ConfigMaps, as of the last look.
    maps: ArcSwap<Maps>,
    /// That they cannot be listed was said.
    is_told: AtomicBool,
    /// There is something to be done.
    filled: Notify,
    /// Nobody can tell which images are looked at more closely.
    salt: uuid::Uuid,
}

impl Worker {
    pub(crate) fn new(service: Arc<Service>, ledger: Option<Ledger>, settings: Settings) -> Self {
        let client = service.cluster.client().cloned();
        Self {
            service,
            ledger,
            settings,
            cluster: client.clone().map(Cluster::new),
            reports: client.map(|client| tokio::sync::Mutex::new(Reports::new(client))),
            board: Mutex::default(),
            nodes: ArcSwap::default(),
            maps: ArcSwap::default(),
            is_told: AtomicBool::new(false),
            filled: Notify::new(),
            salt: uuid::Uuid::now_v7(),
        }
    }

    /// Takes part in the election, and works while elected, until `ended`.
    pub(crate) async fn run(self, ended: impl Future<Output = ()>) {
        let Settings { identity, namespace, .. } = self.settings.clone();
        let election = Election::new(self.client(), &namespace, identity);
        let working = async {
            loop {
                led(false);
                election.win().await;
                led(true);
                info!("elected to look after what runs");
                *self.board() = Board::default();
                tokio::select! {
                    () = election.hold() => warn!("no longer elected: another may look after what runs"),
                    () = self.work() => {}
                }
            }
        };
        tokio::select! {
            () = working => {}
            () = ended => {}
        }
        led(false);
        election.release().await;
    }

    async fn work(&self) {
        let doing = future::join(self.keep_doing(false), self.keep_doing(true));
        future::join4(self.keep_looking(), doing, self.keep_tidy(), self.keep_telling()).await;
        // Without a cluster and a ledger there is nothing to do, which is no reason to begin again.
        future::pending().await
    }

    /// Looks at all pods, again and again. A look that fails leaves everything as it is.
    async fn keep_looking(&self) {
        let Some(cluster) = &self.cluster else { return };
        let mut told = String::new();
        loop {
            let started = Instant::now();
            match self.look(cluster).await {
                Ok(()) => told.clear(),
                Err(error) => {
                    let error = error.to_string();
                    if told != error {
                        warn!(error, "what runs cannot be looked at");
                    }
                    metrics::counter!("mayfly_worker_looks_failed_total").increment(1);
                    told = error;
                }
            }
            // However many pods there are, the API server spends little of its time on this.
            tokio::time::sleep(LOOK_AGAIN.max(started.elapsed() * 10)).await;
        }
    }

    async fn look(&self, cluster: &Cluster) -> Result<(), kube::Error> {
        let book = self.service.rulebook.load_full();
        self.look_at_configuration(cluster).await;
        let maps = self.maps.load_full();
        let scope = Scope {
            book: book.as_ref().map(|book| &book.digest),
            binds: book.is_some() && self.ledger.is_some() && self.service.recorder.is_some(),
            maps: &maps,
            time: Timestamp::now(),
            now: Instant::now(),
        };
        match cluster.nodes().await {
            Ok(nodes) => self.nodes.store(Arc::new(nodes)),
            Err(error) => debug!(%error, "the nodes' platforms are not known anew"),
        }
        self.board().begin();
        cluster.pods(|pod| self.board().see(&pod, scope)).await?;
        let gone = self.board().end();
        self.filled.notify_waiters();
        if let Some(ledger) = self.ledger.as_ref().filter(|_| !gone.pods.is_empty()) {
            let removed = ledger.remove_pods(&self.service.settings.cluster, &gone.pods).await;
            // What is left is found by `keep_pods`.
            removed.map(drop).unwrap_or_else(|error| debug!(%error, "bindings of ended pods stay for now"));
        }
        if let Some(reports) = &self.reports {
            let mut reports = reports.lock().await;
            reports.discover().await;
            for workload in &gone.workloads {
                let decisions = self.board().decisions(workload);
                match decisions.is_empty() {
                    true => reports.remove(workload).await,
                    false => {
                        let _ = reports.write(&report::report(workload, &decisions)).await;
                    }
                }
            }
            let workloads = self.board().workloads();
            reports.keep(&workloads);
            // Of what was decided before the cluster had such objects, or while none could be written.
            let mut failing = BTreeSet::new();
            for workload in &workloads {
                // A namespace that takes none now, as it ends for one, is no reason for the others.
                if reports.is_written(workload) || failing.contains(&workload.namespace) {
                    continue;
                }
                let decisions = self.board().decisions(workload);
                if !reports.write(&report::report(workload, &decisions)).await {
                    failing.insert(workload.namespace.clone());
                }
            }
        }
        self.settle().await;
        self.measure();
        Ok(())
    }

    /// Finds which ConfigMaps were changed, in one list of their names. What is not known anew stays as it was.
    async fn look_at_configuration(&self, cluster: &Cluster) {
        if !self.service.cluster.reads_config_maps() {
            return;
        }
        match cluster.config_maps().await {
            Ok(maps) => {
                // What is kept of one must not be older than what is known of it here.
                for (namespace, name) in maps.changed_since(&self.maps.load()) {
                    self.service.cluster.forget_config_map(namespace, name).await;
                }
                self.maps.store(Arc::new(maps));
                self.is_told.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                metrics::counter!("mayfly_worker_looks_failed_total").increment(1);
                if !self.is_told.swap(true, Ordering::Relaxed) {
                    warn!(%error, "ConfigMaps cannot be listed: no change of them is seen");
                }
            }
        }
    }

    /// Finds what was admitted without all facts, and has it decided again while it runs.
    async fn settle(&self) {
        let Some(ledger) = &self.ledger else { return };
        let old = Timestamp::now().checked_sub(SETTLE_AFTER).unwrap_or_default();
        let mut query = DecisionQuery {
            cluster: Some(self.service.settings.cluster.clone()),
            // Its pods have come by then, if they ever do.
            until: Some(old),
            has_unknowns: true,
            limit: lineage::PAGE,
            ..DecisionQuery::default()
        };
        let mut open = 0_u32;
        for _ in 0..MAX_PAGES {
            let rows = match ledger.decisions(&query).await {
                Ok(rows) => rows,
                Err(error) => return debug!(%error, "what was admitted without all facts is not known now"),
            };
            for row in &rows {
                let is_settled = self.board().settles(&row.namespace, &row.kind, &row.name, row.at);
                match is_settled {
                    true => match ledger.settle(row.id).await {
                        Ok(_) => {}
                        Err(error) => return debug!(%error, "a decision is not settled now"),
                    },
                    false => open += 1,
                }
            }
            match rows.last() {
                Some(last) if rows.len() >= lineage::PAGE as usize => query.before = Some(last.id),
                _ => break,
            }
        }
        metrics::gauge!("mayfly_decisions_open").set(open);
    }

    /// Does what is open.
    async fn keep_doing(&self, decides_first: bool) {
        let Some(cluster) = &self.cluster else { return };
        loop {
            let job = self.board().next(decides_first);
            match job {
                None => {
                    let _ = tokio::time::timeout(IDLE, self.filled.notified()).await;
                }
                Some(Job::Cover(named, face)) => {
                    let covered = self.cover(cluster, &named).await;
                    let is_covered = covered.inspect_err(|why| {
                        debug!(why, namespace = named.namespace, pod = named.name, "a running pod is not bound yet");
                    });
                    self.board().covered(&named, face, is_covered.is_ok(), Instant::now());
                    if is_covered.is_ok_and(|is_other| is_other) {
                        self.board().ask(&named);
                    }
                }
                Some(Job::Decide(variant, named)) => {
                    let decided = self.decide(cluster, &variant, &named).await;
                    let decided = decided.inspect_err(|why| {
                        debug!(why, namespace = named.namespace, pod = named.name, "nothing is decided of it yet");
                    });
                    let decided = decided.ok();
                    let workload = decided.as_ref().map(|decided| decided.workload.clone());
                    self.board().decided(&variant, decided, Instant::now());
                    if let (Some(reports), Some(workload)) = (&self.reports, workload) {
                        let decisions = self.board().decisions(&workload);
                        reports.lock().await.write(&report::report(&workload, &decisions)).await;
                    }
                }
                Some(Job::Sample(sample)) => {
                    if let Err(why) = self.sample(cluster, &sample).await {
                        debug!(why, image = %sample.image, "an attested DNA could not be compared");
                    }
                }
            }
        }
    }

    /// Keeps the ledger within its limits.
    async fn keep_tidy(&self) {
        let Some(ledger) = &self.ledger else { return };
        let mut pruned: Option<Instant> = None;
        loop {
            // First some looks at what runs.
            tokio::time::sleep(MEASURE_AGAIN).await;
            if pruned.is_none_or(|pruned| pruned.elapsed() >= PRUNE_AGAIN) {
                pruned = Some(Instant::now());
                self.prune(ledger).await;
            }
            match ledger.size().await {
                Ok(size) => {
                    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
                    let bytes = size.bytes as f64;
                    metrics::gauge!("mayfly_ledger_bytes").set(bytes);
                    for (table, rows) in size.rows {
                        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
                        let rows = rows as f64;
                        metrics::gauge!("mayfly_ledger_rows", "table" => table).set(rows);
                    }
                }
                Err(error) => debug!(%error, "the ledger's size is not known"),
            }
        }
    }

    async fn prune(&self, ledger: &Ledger) {
        let now = Timestamp::now();
        let running: BTreeSet<String> = self.board().running().clone();
        // No pod at all is more likely a look that has not ended yet.
        if !running.is_empty()
            && let Ok(before) = now.checked_sub(ADMITTED)
            && let Err(error) = ledger.keep_pods(&self.service.settings.cluster, &running, before).await
        {
            warn!(%error, "bindings of pods that ended are not removed");
        }
        match ledger.prune(&self.settings.retention, now).await {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => info!(?removed, "rows of the ledger were removed"),
            Err(error) => warn!(%error, "the ledger is not kept within its limits"),
        }
    }

    fn measure(&self) {
        let (running, covered, waiting) = self.board().counts();
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        let gauge = |count: usize| count as f64;
        metrics::gauge!("mayfly_pods", "state" => "covered").set(gauge(covered));
        metrics::gauge!("mayfly_pods", "state" => "uncovered").set(gauge(running.saturating_sub(covered)));
        for (kind, count) in ["bind", "decide", "sample"].into_iter().zip(waiting) {
            metrics::gauge!("mayfly_worker_queue", "kind" => kind).set(gauge(count));
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Option<&Client> {
        self.service.cluster.client()
    }

    /// Whether the webhook leaves out a namespace: what runs there is bound, and what is decided is only recorded.
    fn is_exempt(&self, name: &str, namespace: &Value) -> bool {
        let own = self.service.settings.own_namespace.as_deref().filter(|own| !own.is_empty());
        own == Some(name) || namespace.pointer("/metadata/labels").and_then(|labels| labels.get(EXEMPT)).is_some()
    }
}

/// A pod as rules see it, who asks being nobody but us.
fn asked(pod: &Value, namespace: Value, audit_only: bool) -> policies::Review {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = ("v1".to_owned(), "Pod".to_owned());
    let request = policies::Request {
        uid: text("/metadata/uid"),
        kind: policies::GroupVersionKind { group: String::new(), version: version.clone(), kind },
        resource: policies::GroupVersionResource { group: String::new(), version, resource: "pods".to_owned() },
        name: text("/metadata/name"),
        namespace: text("/metadata/namespace"),
        operation: "CREATE".to_owned(),
        user_info: policies::UserInfo { username: USER.to_owned(), ..policies::UserInfo::default() },
        ..policies::Request::default()
    };
    let mut object = pod.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    policies::Review { request, object, namespace_object: namespace, audit_only, ..policies::Review::default() }
}

fn led(is_leader: bool) {
    metrics::gauge!("mayfly_worker_is_leader").set(f64::from(u8::from(is_leader)));
}

/// Who asks when nobody does.
const USER: &str = "system:mayfly";

const LOOK_AGAIN: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(5);
const MEASURE_AGAIN: Duration = Duration::from_secs(300);
const PRUNE_AGAIN: Duration = Duration::from_secs(3600);

/// A pod that was admitted so long ago exists, or never will.
const ADMITTED: SignedDuration = SignedDuration::from_mins(15);
const SETTLE_AFTER: SignedDuration = SignedDuration::from_mins(2);

/// Of open decisions in one look.
const MAX_PAGES: usize = 10;
