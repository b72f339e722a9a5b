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
use lineage::{Ledger, Seal, Sealed};
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
    incidents::Incidents,
    log::{self, Log},
    outbox::LedgerOutbox,
    overlays::{self, Attached, Signers},
    pull::{self, Puller},
    response::{self, Hands, KubeHands, Responder},
    risk::Model,
    rules,
    settings::SettingsError,
    shelf::Shelf,
    sinks::{Delivery, Pace, Sinks},
    stream::{self, Duty, Group, JetStream, Origin, Stream},
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
    /// JetStream in place of the log, where several bridges share events.
    pub stream: Option<stream::Settings>,
    /// Who may send.
    pub sensors: Sensors,
    /// Where sensors post.
    pub listen: SocketAddr,
    /// Where the certificate comes from; without one, something before the bridge speaks TLS.
    pub tls: Option<certs::Source>,
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
    /// What ranks deviations; without it, rules alone do.
    pub risk_model: Option<Arc<Model>>,
    /// Whom alerts are told to.
    pub sinks: Sinks,
    /// Where people ask for alerts, by the same certificate.
    pub api_listen: Option<SocketAddr>,
    /// Who may, beside those whom the cluster's API server knows.
    pub callers: Fixed,
    /// Who may sign what is accepted as expected.
    pub overlay_signers: Signers,
    /// How registries are reached, where overlays are attached to images.
    pub registries: oci::registry::Settings,
    /// Where rules of run time are.
    pub rules: rules::Source,
    /// What the ledger keeps of them is sealed with it, the same for all that read the same rules; none: a restart forgets what they were.
    pub seal: Option<Seal>,
    /// How much of what rules mean in earnest is done in the cluster; none: nothing is.
    pub respond: Option<response::Limits>,
}

/// Why a bridge does not start, or ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log's folder.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// JetStream.
    #[error(transparent)]
    Stream(#[from] stream::Error),
    /// A tailed file.
    #[error(transparent)]
    Tail(#[from] tail::Error),
    /// A file is tailed for a sensor that is not configured.
    #[error("--tail {0}=…: no sensor has this name; name one of the file of sensors")]
    NoSensor(String),
    /// A sensor that is asked.
    #[error(transparent)]
    Pull(#[from] pull::Error),
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
    #[error("no cluster: {0}; where there is none, start with --no-cluster")]
    Cluster(#[source] Box<kube::Error>),
    /// Rules of files that do not load, at start.
    #[error("the rules do not load:\n{}", .0.join("\n"))]
    Rules(Vec<String>),
    /// The loop.
    #[error(transparent)]
    Bridge(#[from] bridge::BridgeError),
    /// A task that broke.
    #[error("a part of the bridge broke: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// Runs until `shutdown`: what was answered is on disk, and what was judged is written. `ready` learns where sensors post. The metrics are
/// for the address of [`Config::status_listen`].
///
/// # Errors
/// [`Error`].
pub async fn run(
    config: Config,
    ledger: Ledger,
    metrics: Option<metrics_exporter_prometheus::PrometheusHandle>,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let (end, ended) = watch::channel(false);
    let ended = move || {
        let mut ended = ended.clone();
        async move { _ = ended.wait_for(|ended| *ended).await }
    };
    tokio::pin!(shutdown);
    let stream = match &config.stream {
        None => {
            let (log, recovery) = Log::open(&config.data.join("events"), log::Options::default())?;
            if let Some(torn) = recovery.torn {
                info!(?torn, "what was not answered when the last process ended is cut off the log");
            }
            Stream::Log(log)
        }
        Some(settings) => tokio::select! {
            () = &mut shutdown => return Ok(()),
            opened = JetStream::open(settings) => Stream::JetStream(Arc::new(opened?)),
        },
    };
    let (pod_told, pods_seen) = mpsc::channel(1024);
    let mut authenticate: Vec<Arc<dyn Authenticate>> = vec![Arc::new(config.callers)];
    let mut cluster = None;
    let mut hands: Option<Arc<dyn Hands>> = None;
    if config.in_cluster {
        let client = Client::try_default().await.map_err(|error| Error::Cluster(Box::new(error)))?;
        cluster = Some(client.clone());
        if config.respond.is_some() {
            hands = Some(KubeHands::new(client.clone()));
        }
        authenticate.push(Arc::new(Kubernetes::new(client.clone(), config.cluster.clone(), ledger.clone())));
        tokio::spawn(pods(client, config.cluster.clone(), pod_told));
    }
    for (name, path) in &config.tails {
        let sensor = config.sensors.iter().find(|sensor| sensor.name == *name);
        let sensor = sensor.ok_or_else(|| Error::NoSensor(name.clone()))?;
        let options = tail::Options::new(path, name, &sensor.dialect, &config.data.join("tails"));
        tokio::spawn(Tail::open(options)?.run(stream.clone(), ended()));
    }
    let (refused, refusals) = mpsc::unbounded_channel();
    for sensor in config.sensors.iter() {
        if let Some(puller) = Puller::new(sensor, &stream, &refused)? {
            tokio::spawn(puller.run(ended()));
        }
    }
    let healths = Healths::default();
    let of_sensors = Arc::clone(&healths);
    let sensors =
        Arc::new(move || of_sensors.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect());
    let incidents = Incidents::default();
    let limits = config.respond.unwrap_or_default();
    let responder = Responder::new(ledger.clone(), &config.cluster, hands, limits);
    let api = Api::new(ledger.clone(), authenticate, sensors)
        .telling(config.sinks.clone())
        .telling_of(incidents.clone())
        .responding(responder.clone())
        .accepting(config.overlay_signers.clone());
    let (accept, accepted) = watch::channel(Arc::default());
    let attached = Attached::new(
        ledger.clone(),
        &config.overlay_signers,
        config.registries,
        api.when_accepted(),
        accepted.clone(),
    );
    let api = api.looking(attached.clone());
    tokio::spawn(responder.follow(api.when_changed(), ended()));
    tokio::spawn(incidents.follow(ledger.clone(), config.sinks.clone(), api.when_changed(), ended()));
    let changed = api.when_accepted().subscribe();
    tokio::spawn(overlays::follow(ledger.clone(), config.overlay_signers, changed, accept));
    let sealed = config.seal.map(|seal| Sealed::new(ledger.clone(), seal));
    let mut reader = rules::Reader::new(config.rules, cluster, sealed);
    let first = reader.begin().await.map_err(Error::Rules)?;
    if !first.runtime().is_empty() {
        info!(rules = first.runtime().len(), "rules of run time are in force");
    }
    let (put, rules) = watch::channel(Arc::new(first));
    let rule_watch = Arc::new(rules::rule_watch());
    rules::watch_over(&rule_watch);
    tokio::spawn(rules::follow(reader, config.sinks.clone(), put));
    let delivery = Delivery::new(&config.sinks, Pace::default())?;
    tokio::spawn(delivery.run(Arc::new(LedgerOutbox(ledger.clone())), ended()));
    let shelf = Shelf::new(ledger.clone(), config.runtime.clone())?.looking(attached);
    let make = {
        let (ledger, sinks, sensors) = (ledger.clone(), config.sinks.clone(), config.sensors.clone());
        let (healths, api, risk_model) = (Arc::clone(&healths), api.clone(), config.risk_model.clone());
        let patience = if config.in_cluster { engine::PATIENCE } else { SignedDuration::ZERO };
        move |duty: Duty| Parts {
            origin: duty.origin,
            shelf: shelf.clone(),
            desk: Desk::new(ledger.clone(), duty.checkpoint, sinks.clone()).under(duty.epoch),
            sensors: sensors.clone(),
            patience,
            risk_model: risk_model.clone(),
            pods: duty.pods,
            refused: duty.refused,
            healths: Arc::clone(&healths),
            api: api.clone(),
            overlays: accepted.clone(),
            rules: rules.clone(),
            rule_watch: Arc::clone(&rule_watch),
            is_alone: duty.epoch == 0,
        }
    };
    let tls = match config.tls {
        None => None,
        Some(source) => {
            let serving = certs::Serving::new(&certs::ServingOptions {
                client_authorities: config.client_authorities.clone(),
                is_client_optional: true,
                ..certs::ServingOptions::default()
            })?;
            tokio::spawn(certs::run(source, serving.clone(), ended()));
            Some(serving)
        }
    };
    let told = Refusals::new(refused, Arc::clone(&healths));
    let door = Door::new(stream.clone(), config.sensors, Arc::new(told));
    let (stop_judging, judging_ends) = oneshot::channel::<()>();
    let judging_ends = judging_ends.map(|_| ());
    let mut judge = match &stream {
        Stream::Log(log) => {
            let (origin, checkpoint) = (Origin::Log(log.clone()), config.name);
            let duty = Duty { origin, checkpoint, epoch: 0, pods: pods_seen, refused: refusals };
            tokio::spawn(bridge::judge(make(duty), judging_ends))
        }
        Stream::JetStream(stream) => {
            let (ledger, stream) = (ledger.clone(), Arc::clone(stream));
            let group = Group { ledger, name: config.name, stream, pods: pods_seen, refused: refusals, healths };
            tokio::spawn(stream::share(group, make, judging_ends))
        }
    };
    if let Some(address) = config.status_listen {
        let status = status(metrics, ledger.clone(), stream, tls.clone());
        tokio::spawn(door::serve(listen(address)?, None, status, ended()));
    }
    if let Some(address) = config.api_listen {
        tokio::spawn(serve(listen(address)?, tls.clone(), api.router(), ended()));
    }
    let listener = listen(config.listen)?;
    ready(listener.local_addr().map_err(|source| Error::Listen { address: config.listen, source })?);
    let door = tokio::spawn(serve(listener, tls, door.router(), ended()));
    let early = tokio::select! {
        () = &mut shutdown => None,
        broken = &mut judge => Some(broken),
    };
    // Sensors first: what they are answered for is on disk, and judged now or by the next process.
    _ = end.send(true);
    if let Err(error) = door.await? {
        warn!(%error, "the door did not close as it should");
    }
    _ = stop_judging.send(());
    let judged = match early {
        Some(judged) => judged,
        None => judge.await,
    };
    Ok(judged??)
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener, Error> {
    std::net::TcpListener::bind(address).map_err(|source| Error::Listen { address, source })
}

/// Serves once there is a certificate. Who connects before waits in the listener: a sensor that is refused loses its event.
async fn serve(
    listener: std::net::TcpListener,
    tls: Option<certs::Serving>,
    router: Router,
    ended: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    tokio::pin!(ended);
    if let Some(tls) = &tls {
        tokio::select! {
            () = tls.ready() => {}
            () = &mut ended => return Ok(()),
        }
    }
    door::serve(listener, tls.map(|tls| tls.config()), router, ended).await
}

/// Health and metrics, for the cluster itself.
fn status(
    metrics: Option<metrics_exporter_prometheus::PrometheusHandle>,
    ledger: Ledger,
    stream: Stream,
    tls: Option<certs::Serving>,
) -> Router {
    let is_ready = move || {
        let ledger = ledger.clone();
        let is_away = matches!(&stream, Stream::JetStream(stream) if !stream.is_connected());
        let is_closed = tls.as_ref().is_some_and(|tls| !tls.is_ready());
        async move {
            if is_closed {
                return (StatusCode::SERVICE_UNAVAILABLE, "no certificate to serve with yet".to_owned());
            }
            if is_away {
                return (StatusCode::SERVICE_UNAVAILABLE, "NATS does not answer".to_owned());
            }
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
