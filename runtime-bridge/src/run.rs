//! The whole bridge in one process: door, log, loop, and what people see of it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, PoisonError},
};

use axum::{Router, http::StatusCode, routing::get};
use dna::RuntimeFacts;
use futures_util::FutureExt as _;
use jiff::SignedDuration;
use kube::Client;
use lineage::Ledger;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::{
    api::{
        Api, Kubernetes,
        auth::{Authenticate, Fixed},
    },
    bridge::{self, Healths, Parts, Refusals},
    desk::Desk,
    door::{self, Door, Sensors},
    engine,
    log::{self, Log},
    outbox::LedgerOutbox,
    settings::SettingsError,
    shelf::Shelf,
    sinks::{Delivery, Pace, Sinks},
    tail::{self, Tail},
    watch::pods,
};

/// How a bridge is set up.
#[derive(Debug)]
pub struct Config {
    /// Its name: bridges of one ledger have each their own.
    pub name: String,
    /// What the cluster is called whose pods are watched; the webhook's word for it.
    pub cluster: String,
    /// The folder for the log, and the places of tailed files.
    pub data: PathBuf,
    /// The ledger's URL.
    pub ledger: String,
    /// Who may send.
    pub sensors: Sensors,
    /// Where sensors post.
    pub listen: SocketAddr,
    /// A folder with `tls.crt` and `tls.key`; without it, something before the bridge speaks TLS.
    pub tls: Option<PathBuf>,
    /// PEM of the authorities whose client certificates are known.
    pub client_authorities: Option<PathBuf>,
    /// Where health and metrics are served.
    pub status_listen: Option<SocketAddr>,
    /// Files that sensors write: the sensor's name, and the file.
    pub tails: Vec<(String, PathBuf)>,
    /// Whether an API server is asked for pods.
    pub in_cluster: bool,
    /// Facts of the nodes' container runtime.
    pub runtime: RuntimeFacts,
    /// Whom alerts are told to.
    pub sinks: Sinks,
    /// Where people ask for alerts, by the same certificate.
    pub api_listen: Option<SocketAddr>,
    /// Who may, beside those whom the cluster's API server knows.
    pub callers: Fixed,
}

/// Why a bridge does not start, or ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The ledger's URL or file.
    #[error("the ledger: {0}")]
    Ledger(#[from] lineage::Error),
    /// The log's folder.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// A tailed file.
    #[error(transparent)]
    Tail(#[from] tail::Error),
    /// A file is tailed for a sensor that is not configured.
    #[error("--tail {0}=…: no sensor has this name; name one of the file of sensors")]
    NoSensor(String),
    /// The analyzer's tables.
    #[error(transparent)]
    Analyzer(#[from] analyzer::Error),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] certs::Error),
    /// An address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file that a sink names.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The API server.
    #[error("no cluster: {0}")]
    Cluster(#[source] Box<kube::Error>),
    /// The loop.
    #[error(transparent)]
    Bridge(#[from] bridge::BridgeError),
    /// A task that broke.
    #[error("a part of the bridge broke: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// Runs until `shutdown`: what was answered is on disk, and what was judged is written. `ready` learns where sensors post.
///
/// # Errors
/// [`Error`].
pub async fn run(
    config: Config,
    metrics: Option<metrics_exporter_prometheus::PrometheusHandle>,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let (end, ended) = watch::channel(false);
    let ended = move || {
        let mut ended = ended.clone();
        async move { _ = ended.wait_for(|ended| *ended).await }
    };
    let (log, recovery) = Log::open(&config.data.join("events"), log::Options::default())?;
    if let Some(torn) = recovery.torn {
        info!(?torn, "what was not answered when the last process ended is cut off the log");
    }
    let ledger = Ledger::new(&config.ledger)?;
    let (pod_told, pods_seen) = mpsc::channel(1024);
    let mut authenticate: Vec<Arc<dyn Authenticate>> = vec![Arc::new(config.callers)];
    if config.in_cluster {
        let client = Client::try_default().await.map_err(|error| Error::Cluster(Box::new(error)))?;
        authenticate.push(Arc::new(Kubernetes::new(client.clone(), config.cluster.clone(), ledger.clone())));
        tokio::spawn(pods(client, config.cluster.clone(), pod_told));
    }
    for (name, path) in &config.tails {
        let sensor = config.sensors.iter().find(|sensor| sensor.name == *name);
        let sensor = sensor.ok_or_else(|| Error::NoSensor(name.clone()))?;
        let options = tail::Options::new(path, name, &sensor.dialect, &config.data.join("tails"));
        tokio::spawn(Tail::open(options)?.run(log.clone(), ended()));
    }
    let (refused, refusals) = mpsc::unbounded_channel();
    let healths = Healths::default();
    let of_sensors = Arc::clone(&healths);
    let sensors =
        Arc::new(move || of_sensors.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect());
    let api = Api::new(ledger.clone(), authenticate, sensors);
    let delivery = Delivery::new(&config.sinks, Pace::default())?;
    tokio::spawn(delivery.run(Arc::new(LedgerOutbox(ledger.clone())), ended()));
    let parts = Parts {
        log: log.clone(),
        shelf: Shelf::new(ledger.clone(), config.runtime.clone())?,
        desk: Desk::new(ledger.clone(), config.name.clone(), config.sinks.clone()),
        sensors: config.sensors.clone(),
        patience: if config.in_cluster { engine::PATIENCE } else { SignedDuration::ZERO },
        pods: pods_seen,
        refused: refusals,
        healths: Arc::clone(&healths),
        api: api.clone(),
    };
    let tls = match &config.tls {
        None => None,
        Some(folder) => {
            let serving = certs::Serving::new(&certs::ServingOptions {
                client_authorities: config.client_authorities.clone(),
                is_client_optional: true,
                ..certs::ServingOptions::default()
            })?;
            let tls = serving.config();
            tokio::spawn(certs::run(certs::Source::Files(certs::FileSource::folder(folder)), serving, ended()));
            Some(tls)
        }
    };
    let door = Door::new(log, config.sensors, Arc::new(Refusals(refused)));
    let (stop_judging, judging_ends) = oneshot::channel::<()>();
    let mut judge = tokio::spawn(bridge::judge(parts, judging_ends.map(|_| ())));
    if let Some(address) = config.status_listen {
        let status = status(metrics, ledger.clone());
        tokio::spawn(door::serve(listen(address)?, None, status, ended()));
    }
    if let Some(address) = config.api_listen {
        tokio::spawn(door::serve(listen(address)?, tls.clone(), api.router(), ended()));
    }
    let listener = listen(config.listen)?;
    ready(listener.local_addr().map_err(|source| Error::Listen { address: config.listen, source })?);
    let serve = tokio::spawn(door::serve(listener, tls, door.router(), ended()));
    tokio::pin!(shutdown);
    let early = tokio::select! {
        () = &mut shutdown => None,
        broken = &mut judge => Some(broken),
    };
    // Sensors first: what they are answered for is on disk, and judged now or by the next process.
    _ = end.send(true);
    if let Err(error) = serve.await? {
        warn!(%error, "the door did not close as it should");
    }
    _ = stop_judging.send(());
    let judged = match early {
        Some(judged) => judged,
        None => judge.await,
    };
    ledger.close().await;
    Ok(judged??)
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener, Error> {
    std::net::TcpListener::bind(address).map_err(|source| Error::Listen { address, source })
}

/// Health and metrics, for the cluster itself.
fn status(metrics: Option<metrics_exporter_prometheus::PrometheusHandle>, ledger: Ledger) -> Router {
    let is_ready = move || {
        let ledger = ledger.clone();
        async move {
            match ledger.ping().await {
                Ok(()) => (StatusCode::OK, "ok".to_owned()),
                // Events are taken all the same, and judged when it answers.
                Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            }
        }
    };
    let page = move || {
        let page = metrics.as_ref().map(metrics_exporter_prometheus::PrometheusHandle::render).unwrap_or_default();
        async move { page }
    };
    Router::new().route("/healthz", get(async || "ok")).route("/readyz", get(is_ready)).route("/metrics", get(page))
}
