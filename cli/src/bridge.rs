//! `mayfly bridge`: arguments in, a running bridge out, until it is told to end.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use dna::{Digest, RuntimeFacts};
use lineage::{Ledger, Seal};
use metrics_exporter_prometheus::PrometheusBuilder;
use runtime_bridge::{
    api::auth::Fixed,
    door::Sensors,
    overlays::Signers,
    response,
    risk::Model,
    rules::{Files, Source},
    run,
    sinks::Sinks,
    stream::Settings,
};
use tracing_subscriber::filter::LevelFilter;

use crate::{args::bridge as args, logs, output, server};

pub(crate) fn run(args: &args::Bridge) -> anyhow::Result<()> {
    let base = Base {
        name: args.name.clone(),
        cluster: args.cluster.clone(),
        data: args.data.clone(),
        listen: args.listen,
        client_authorities: args.client_ca.clone(),
        in_cluster: !args.no_cluster,
        runtime: crate::policy::runtime(args.runtime.as_deref())?,
        rules: args.rules.clone(),
        seal: seal(args)?,
        registries: crate::remote::settings(&args.registry)?,
    };
    let config = run::Config {
        tls: args.tls_dir.as_deref().map(|folder| certs::Source::Files(certs::FileSource::folder(folder))),
        status_listen: args.status_listen,
        stream: match &args.stream {
            Some(file) => Some(Settings::parse(&text(file)?, &file.display().to_string())?),
            None => None,
        },
        ..config(base, &args.sensors, &args.telling)?
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().thread_stack_size(crate::webhook::STACK_BYTES).enable_all().build();
    let runtime = runtime.context("cannot start the network runtime")?;
    logs::start(args.log_format, LevelFilter::INFO, None);
    let metrics = PrometheusBuilder::new().install_recorder().context("metrics cannot be recorded")?;
    let done = runtime.block_on(async {
        let ended = server::told_to_end()?;
        let ledger = Ledger::new(&args.ledger).context("the ledger")?;
        let done = run::run(config, ledger.clone(), Some(metrics), ready, ended).await;
        ledger.close().await;
        done.map_err(anyhow::Error::from)
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

/// What seals rules in the ledger. A bridge that is alone makes a key of its own; of several none knows what the others have.
fn seal(args: &args::Bridge) -> anyhow::Result<Option<Seal>> {
    Ok(match (&args.seal_key, &args.stream) {
        (Some(file), _) => Some(Seal::read(file)?),
        (None, None) => Some(Seal::kept_in(&args.data.join("seal.key"))?),
        (None, Some(_)) => None,
    })
}

/// Says where sensors post.
pub(crate) fn ready(address: SocketAddr) {
    output::say(&format!("taking events on {address}"));
}

/// What a bridge has by itself, or from the webhook beside it.
pub(crate) struct Base {
    pub(crate) name: String,
    pub(crate) cluster: String,
    pub(crate) data: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) client_authorities: Option<PathBuf>,
    pub(crate) in_cluster: bool,
    pub(crate) runtime: RuntimeFacts,
    pub(crate) rules: Vec<PathBuf>,
    pub(crate) seal: Option<Seal>,
    pub(crate) registries: oci::registry::Settings,
}

/// A bridge without a certificate, which shows its state nowhere.
pub(crate) fn config(base: Base, sensors: &Path, telling: &args::Telling) -> anyhow::Result<run::Config> {
    let Base { name, cluster, data, listen, client_authorities, in_cluster, runtime, rules, seal, registries } = base;
    Ok(run::Config {
        cluster,
        data,
        stream: None,
        sensors: Sensors::parse(&text(sensors)?, &sensors.display().to_string())?,
        listen,
        tls: None,
        client_authorities,
        status_listen: None,
        tails: telling.tails.clone(),
        in_cluster,
        runtime,
        sinks: match &telling.sinks {
            Some(file) => Sinks::parse(&text(file)?, &file.display().to_string())?,
            None => Sinks::default(),
        },
        risk_model: risk_model(telling.risk_model.as_deref())?,
        api_listen: telling.api_listen,
        callers: match &telling.callers {
            Some(file) => Fixed::parse(&text(file)?, &file.display().to_string())?,
            None => Fixed::default(),
        },
        overlay_signers: match &telling.overlay_signers {
            Some(file) => Signers::parse(&text(file)?, &file.display().to_string())?,
            None => Signers::default(),
        },
        registries,
        rules: source(&name, rules, in_cluster),
        name,
        seal,
        respond: match (telling.respond, in_cluster) {
            (true, false) => anyhow::bail!("--respond: there is no cluster to do anything in; leave out --no-cluster"),
            (true, true) => Some(response::Limits {
                per_hour: telling.respond_per_hour,
                per_namespace: telling.respond_per_namespace,
            }),
            (false, _) => None,
        },
    })
}

/// Where rules of run time are: in files, else in the cluster.
fn source(bridge: &str, rules: Vec<PathBuf>, in_cluster: bool) -> Source {
    if rules.is_empty() {
        return if in_cluster { Source::Cluster } else { Source::Nowhere };
    }
    // Bridges of one ledger may have each their own files by the same names.
    let name = format!("{bridge} {}", Digest::sha256(format!("{rules:?}").as_bytes()));
    Source::Files(Files { name, read: Arc::new(move || webhook::rulebook::texts(&rules)) })
}

/// The model that ranks; none for rules alone.
pub(crate) fn risk_model(asked: Option<&Path>) -> anyhow::Result<Option<Arc<Model>>> {
    let model = match asked {
        None => Model::shipped().context("this version's model for risks")?,
        Some(none) if none == Path::new("none") => None,
        Some(file) => Some(Model::parse(&output::read(file)?).with_context(|| file.display().to_string())?),
    };
    Ok(model.map(Arc::new))
}

fn text(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(output::read(path)?).map_err(|_| anyhow!("{} is no text", path.display()))
}
