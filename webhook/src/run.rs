//! Everything started in order, and ended in order.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use dna::{Limits, RuntimeFacts};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use kube::Client;
use lineage::{Kept, Ledger, Recorder, RecorderOptions, Retention, Seal};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use oci::registry;
use policies::{Rules, Watch, objects::Key};
use tokio::sync::watch;
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    Error,
    cluster::{Cluster, Permissions},
    gather::{self, Analyzer, Gatherer},
    roots::{Reached, Roots},
    rulebook::{self, Rulebook},
    server::Servers,
    service::{self, Service},
    worker::{self, Worker},
};

/// What the webhook is told once.
#[derive(Debug)]
pub struct Config {
    /// Where reviews are served, by TLS.
    pub listen: SocketAddr,
    /// Where health and metrics are served without it; none: with the reviews only.
    pub status_listen: Option<SocketAddr>,
    /// Where the certificate comes from.
    pub certificates: Certificates,
    /// PEM of the authority whose certificate the API server must show; none: it shows none.
    pub client_authorities: Option<PathBuf>,
    /// Rule files and folders of them; none: the rules are objects of the cluster.
    pub rules: Vec<PathBuf>,
    /// Reads namespaces, nodes and what [`Permissions`] allow from the API server that the environment names.
    pub in_cluster: bool,
    /// What may be read.
    pub may: Permissions,
    /// Where records wait for the ledger.
    pub spool: PathBuf,
    /// A folder that keeps what TUF repositories said of trust roots.
    pub roots: PathBuf,
    /// How registries are reached.
    pub registry: registry::Settings,
    /// Layers, and what was worked out of them.
    pub cache: Option<oci::Cache>,
    /// Facts of the nodes.
    pub runtime: RuntimeFacts,
    /// Limits on images.
    pub limits: Limits,
    /// What the ledger keeps of facts is sealed with it; all replicas need the same.
    pub seal: Option<Seal>,
    /// Bytes of memory for facts.
    pub facts_bytes: u64,
    /// Bytes of compressed images that are analyzed at once.
    pub analysis_bytes: u64,
    /// How the service behaves.
    pub service: service::Settings,
    /// Names this replica among all: the pod's name; none: one is made up.
    pub identity: Option<String>,
    /// Of so many attested DNAs that are used, one is worked out here too and compared; zero: none.
    pub sample: u32,
    /// How long it still serves after it was told to end.
    pub drain: Duration,
}

/// Where the serving certificate comes from.
#[derive(Debug, Clone)]
pub enum Certificates {
    /// `tls.crt` and `tls.key` in a folder, which somebody else renews.
    Folder(PathBuf),
    /// An own authority in a Secret, and its bundle in these webhook configurations.
    Secret {
        /// The Secret's namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// DNS names to serve.
        dns_names: BTreeSet<String>,
        /// Names of `ValidatingWebhookConfiguration`s.
        webhooks: Vec<String>,
    },
}

impl Certificates {
    /// What looks after them; a Secret takes a cluster.
    ///
    /// # Errors
    /// [`Error::Cluster`]: there is none.
    pub fn source(&self, client: Option<&Client>) -> Result<certs::Source, Error> {
        Ok(match self {
            Self::Folder(folder) => certs::Source::Files(certs::FileSource::folder(folder)),
            Self::Secret { namespace, name, dns_names, webhooks } => {
                let missing = || Error::Cluster("a certificate in a Secret needs a cluster".to_owned());
                certs::Source::Secret(Box::new(certs::SecretSource {
                    client: client.cloned().ok_or_else(missing)?,
                    namespace: namespace.clone(),
                    name: name.clone(),
                    dns_names: dns_names.clone(),
                    webhooks: webhooks.clone(),
                    lifetimes: certs::Lifetimes::default(),
                }))
            }
        })
    }
}

/// Runs until `shutdown`, then ends without losing a review or a record. Nothing is kept where there is no ledger. `ready` is told the address
/// once it serves.
///
/// # Errors
/// [`Error`]: it cannot start, or the server broke.
pub async fn run(
    config: Config,
    ledger: Option<Ledger>,
    metrics: PrometheusHandle,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let client = match config.in_cluster {
        true => Some(Client::try_default().await.map_err(|error| Error::Cluster(error.to_string()))?),
        false => None,
    };
    let serving = certs::Serving::new(&certs::ServingOptions {
        client_authorities: config.client_authorities.clone(),
        ..certs::ServingOptions::default()
    })?;
    let records = match &ledger {
        Some(ledger) => Some(Arc::new(Recorder::start(ledger.clone(), &RecorderOptions::new(&config.spool))?)),
        None => None,
    };
    let analyzer = Arc::new(Analyzer::new(config.limits.clone(), config.cache.clone(), config.analysis_bytes)?);
    let gathering = gather::Settings {
        registry: config.registry.clone(),
        runtime: config.runtime.clone(),
        limits: config.limits.clone(),
        memory_bytes: config.facts_bytes,
        seal: config.seal.clone(),
    };
    let gatherer = Arc::new(Gatherer::new(gathering, analyzer, ledger.clone()));
    let cluster = Cluster::new(client.clone(), config.may);
    let service = Arc::new(Service::new(
        gatherer,
        cluster.clone(),
        records.clone(),
        Some(serving.clone()),
        config.service.clone(),
    ));

    let (end, ending) = watch::channel(false);
    let ended = || {
        let mut ending = ending.clone();
        async move { drop(ending.wait_for(|end| *end).await) }
    };
    let certificates = tokio::spawn(certs::run(config.certificates.source(client.as_ref())?, serving.clone(), ended()));
    let mut rules = Source {
        objects: rulebook::Objects::default(),
        kept: ledger.clone().zip(config.seal.clone()).map(|(ledger, seal)| rulebook::kept(ledger, seal)),
        files: config.rules.clone(),
        cluster: cluster.clone(),
        own_namespace: config.service.own_namespace.clone(),
        roots: Roots::default(),
    };
    if let Some(ledger) = ledger.clone() {
        tokio::spawn(service.quarantine.clone().follow(ledger, ended()));
    }
    let roots = rules.roots.clone();
    if client.is_none() || !config.rules.is_empty() {
        // Files are read once before anything is served, so that a mistake is told to whoever starts it.
        rules.read(&service, Timestamp::now()).await.map_err(Error::Rules)?;
    }
    let reached = Reached { folder: config.roots.clone(), ca_file: config.registry.ca_file.clone() };
    let roots = tokio::spawn(roots.keep_renewing(Arc::clone(&service), reached, ended()));
    let rules = tokio::spawn(rules.keep_reading(Arc::clone(&service), ended()));
    let nodes = tokio::spawn(keep_platforms(cluster, ended()));
    let own_namespace = config.service.own_namespace.clone().filter(|own| !own.is_empty());
    let settings = worker::Settings {
        // Two processes never have one name: a replica that was restarted in place is another one.
        identity: format!("{}_{}", config.identity.as_deref().unwrap_or("mayfly"), Uuid::now_v7()),
        namespace: own_namespace
            .or_else(|| client.as_ref().map(|client| client.default_namespace().to_owned()))
            .unwrap_or_default(),
        sample: config.sample,
        retention: Retention::default(),
    };
    let templates = worker::listen(&service);
    let ahead = tokio::spawn(worker::run_ahead(Arc::clone(&service), templates, ended()));
    watch_over(&service);
    let worker = tokio::spawn(Worker::new(Arc::clone(&service), ledger.clone(), settings).run(ended()));
    let servers =
        Servers::bind(service, metrics, (config.listen, serving.config()), config.status_listen, config.drain)?;
    if let Some(address) = servers.address() {
        info!(%address, "serving reviews");
        ready(address);
    }
    let served = servers.run(shutdown).await;
    let _ = end.send(true);
    for task in [certificates, roots, rules, nodes, ahead, worker] {
        if let Err(panicked) = task.await {
            warn!(%panicked, "a task ended before its time");
        }
    }
    if let Some(records) = records {
        let counts = records.shutdown(LAST_WRITES).await;
        info!(
            written = counts.written,
            lost = counts.lost(),
            "the ledger's records are written or kept for the next start"
        );
    }
    served
}

/// The one recorder of metrics of this process, whatever runs in it.
///
/// # Errors
/// [`Error::Metrics`]: there is one already.
pub fn recorder() -> Result<PrometheusHandle, Error> {
    let failed = |error: metrics_exporter_prometheus::BuildError| Error::Metrics(error.to_string());
    let seconds = |name: &str| Matcher::Full(name.to_owned());
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(seconds("mayfly_review_seconds"), &REVIEW_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(seconds("mayfly_analysis_seconds"), &ANALYSIS_BUCKETS));
    builder.map_err(failed)?.install_recorder().map_err(failed)
}

/// Has rules looked for that hang.
fn watch_over(service: &Service) {
    let tell = |rule: &str| {
        tracing::error!(
            rule,
            "a rule takes too long and is taken out of evaluation; where it is in force it denies until it is changed"
        );
    };
    if let Err(error) = Watch::over(&service.watch, tell) {
        warn!(%error, "nobody looks for rules that hang");
    }
}

async fn keep_platforms(cluster: Cluster, ended: impl Future<Output = ()>) {
    let looking = async {
        loop {
            if let Err(error) = cluster.refresh_platforms().await {
                warn!(%error, "the nodes' platforms are not known anew");
            }
            tokio::time::sleep(LOOK_AT_NODES).await;
        }
    };
    tokio::select! {
        () = looking => {}
        () = ended => {}
    }
}

/// Where rules are read.
struct Source {
    objects: rulebook::Objects,
    /// What rules were before they were changed so that they do not load; none: only this process knows.
    kept: Option<Kept>,
    files: Vec<PathBuf>,
    cluster: Cluster,
    own_namespace: Option<String>,
    roots: Roots,
}

impl Source {
    /// Reads all there is and puts it in force. What cannot be read leaves what was in force.
    async fn read(&mut self, service: &Service, now: Timestamp) -> Result<(), Vec<String>> {
        let (rules, problems) = match (self.cluster.client().cloned(), self.files.is_empty()) {
            (Some(client), true) => {
                let read = self.of_cluster(&client).await.map_err(|error| vec![error])?;
                service.standings.store(Arc::new(std::mem::take(&mut self.objects.standings)));
                read
            }
            _ => (rulebook::from_files(&self.files)?, Vec::new()),
        };
        let beside = self.cluster.beside(&rules, self.own_namespace.as_deref()).await;
        let mut beside = beside.map_err(|error| vec![error])?;
        let renewed = rules
            .trusts()
            .iter()
            .filter_map(|(name, spec)| Some((name.clone(), self.roots.renewed(name, spec.refresh.as_ref()?)?)));
        beside.renewed = renewed.collect();
        let book = Rulebook::new(rules, problems, &beside, now);
        let before = service.rulebook.load_full();
        let (old, new) = (before.as_ref().map(|book| &book.problems), &book.problems);
        if old != Some(new) {
            new.iter().for_each(|problem| warn!(problem, "a rule is not in force as it is written"));
        }
        match before {
            // What is in force stays: a rule that was taken out of evaluation does not come back by being read again.
            Some(before) if before.digest == book.digest && before.problems == book.problems => {}
            _ => {
                info!(rules = book.rules.len(), digest = %book.digest, "rules are in force");
                service.arm(book);
            }
        }
        Ok(())
    }

    async fn keep_reading(mut self, service: Arc<Service>, ended: impl Future<Output = ()>) {
        let ended = ended.shared();
        let mut told = Vec::new();
        loop {
            match self.read(&service, Timestamp::now()).await {
                Ok(()) => told.clear(),
                Err(problems) if problems != told => {
                    problems
                        .iter()
                        .for_each(|problem| warn!(problem, "the rules cannot be read; those of before stay in force"));
                    told = problems;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(rulebook::READ_AGAIN) => {}
                () = ended.clone() => return,
            }
        }
    }

    async fn of_cluster(&mut self, client: &Client) -> Result<(Rules, Vec<String>), String> {
        let objects = rulebook::objects(client).await.map_err(|unread| unread.to_string())?;
        // Without the ledger rules are read all the same: admission does not wait for it.
        let mut unkept = Vec::new();
        if let Some(kept) = &self.kept {
            match kept.last(self.objects.lost(&objects), Key::name).await {
                Ok(before) => self.objects.recall(&objects, before),
                Err(error) => unkept.push(format!("what rules were that do not load now is not known: {error}")),
            }
        }
        let (rules, mut problems) = self.objects.read(&objects);
        if let Some(kept) = &mut self.kept
            && let Err(error) = kept.keep(self.objects.good(), Timestamp::now()).await
        {
            tracing::debug!(%error, "rules are not kept for the next start");
        }
        problems.extend(unkept);
        Ok((rules, problems))
    }
}

/// Time to write what is still in memory.
const LAST_WRITES: Duration = Duration::from_secs(10);
const LOOK_AT_NODES: Duration = Duration::from_secs(60);

const REVIEW_BUCKETS: [f64; 11] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
const ANALYSIS_BUCKETS: [f64; 8] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];
