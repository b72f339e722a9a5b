//! `mayfly webhook` and `mayfly serve`: arguments in, a running server out, until it is told to end.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use dna::Limits;
use kube::Client;
use lineage::{Ledger, Seal};
use runtime_bridge::run;
use tracing_subscriber::filter::LevelFilter;
use webhook::{Certificates, traces::Traces};

use crate::{args::webhook as args, bridge, logs, output, remote, server};

pub(crate) fn webhook(args: &args::Webhook) -> anyhow::Result<()> {
    let mut config = config(&args.serving, args.spool.clone(), args.cache.clone())?;
    config.seal = args.seal_key.as_deref().map(Seal::read).transpose()?;
    run(&args.serving, config, args.ledger.as_deref(), None)
}

pub(crate) fn serve(args: &args::Serve) -> anyhow::Result<()> {
    let data = &args.data;
    let ledger = format!("sqlite:{}", data.join("ledger.db").display());
    std::fs::create_dir_all(data).with_context(|| format!("cannot make the folder {}", data.display()))?;
    let mut config = config(&args.serving, data.join("spool"), Some(data.join("cache")))?;
    config.seal = Some(Seal::kept_in(&data.join("seal.key"))?);
    let beside = |sensors: &PathBuf| {
        let base = bridge::Base {
            name: "bridge".to_owned(),
            cluster: args.serving.cluster.clone(),
            data: data.join("bridge"),
            listen: args.bridge.bridge_listen,
            client_authorities: args.bridge.sensor_ca.clone(),
            in_cluster: config.in_cluster,
            runtime: config.runtime.clone(),
            rules: args.serving.rules.clone(),
            seal: config.seal.clone(),
            registries: config.registry.clone(),
        };
        bridge::config(base, sensors, &args.bridge.telling)
    };
    let beside = args.bridge.sensors.as_ref().map(beside).transpose()?;
    run(&args.serving, config, Some(&ledger), beside)
}

/// The webhook, with a bridge beside it where there is one, until the process is told to end.
fn run(
    args: &args::Serving,
    config: webhook::Config,
    ledger: Option<&str>,
    bridge: Option<run::Config>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK_BYTES).enable_all().build();
    let runtime = runtime.context("cannot start the network runtime")?;
    let traces = {
        let _inside = runtime.enter();
        args.otlp_endpoint.as_deref().map(|endpoint| Traces::start(endpoint, &args.cluster)).transpose()?
    };
    logs::start(args.log_format, LevelFilter::INFO, traces.as_ref());
    let done = runtime.block_on(async {
        let ended = server::told_to_end()?;
        let ledger = ledger.map(Ledger::new).transpose()?;
        let metrics = webhook::recorder()?;
        let ready = |address| output::say(&format!("serving reviews on {address}"));
        let done = match (bridge, &ledger) {
            (Some(bridge), Some(ledger)) => {
                let certificates = config.certificates.clone();
                let together = server::Together::new(ended);
                let reviews = webhook::run(config, Some(ledger.clone()), metrics, ready, together.ended());
                let events = beside(bridge, certificates, ledger.clone(), together.ended());
                together.run(async { Ok(reviews.await?) }, events).await
            }
            _ => webhook::run(config, ledger.clone(), metrics, ready, ended).await.map_err(anyhow::Error::from),
        };
        if let Some(ledger) = ledger {
            ledger.close().await;
        }
        done
    });
    if let Some(traces) = traces {
        traces.end();
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

/// A bridge with the webhook's certificate and ledger. Its metrics are among the webhook's.
async fn beside(
    mut config: run::Config,
    certificates: Certificates,
    ledger: Ledger,
    ended: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    // The webhook looks after its registration already.
    let (certificates, client) = match certificates {
        Certificates::Secret { namespace, name, dns_names, webhooks: _ } => {
            let client = Client::try_default().await.context("the certificate is in a Secret of a cluster")?;
            (Certificates::Secret { namespace, name, dns_names, webhooks: Vec::new() }, Some(client))
        }
        folder @ Certificates::Folder(_) => (folder, None),
    };
    config.tls = Some(certificates.source(client.as_ref())?);
    run::run(config, ledger, None, bridge::ready, ended).await.map_err(anyhow::Error::from)
}

fn config(args: &args::Serving, spool: PathBuf, cache: Option<PathBuf>) -> anyhow::Result<webhook::Config> {
    const MIB: u64 = 1 << 20;
    let certificates = match (&args.tls_dir, &args.tls_secret) {
        (Some(folder), _) => webhook::Certificates::Folder(folder.clone()),
        (None, Some(place)) => {
            let Some((namespace, name)) = place.split_once('/') else {
                bail!("--tls-secret {place}: expected NAMESPACE/NAME");
            };
            webhook::Certificates::Secret {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                dns_names: args.dns_names.iter().cloned().collect(),
                webhooks: args.configurations.clone(),
            }
        }
        (None, None) => bail!("name --tls-dir or --tls-secret"),
    };
    let runtime = crate::policy::runtime(args.runtime.as_deref())?;
    Ok(webhook::Config {
        listen: args.listen,
        status_listen: args.status_listen,
        certificates,
        client_authorities: args.client_ca.clone(),
        rules: args.rules.clone(),
        in_cluster: !args.no_cluster,
        may: webhook::cluster::Permissions { secrets: args.read_secrets, config_maps: args.read_config_maps },
        roots: spool.with_file_name("trust"),
        spool,
        registry: remote::settings(&args.registry)?,
        cache: cache.map(|folder| oci::Cache::new(folder, MAX_CACHE_BYTES)),
        runtime,
        limits: Limits::default(),
        seal: None,
        facts_bytes: args.facts_memory * MIB,
        analysis_bytes: args.analysis_memory * MIB,
        service: webhook::service::Settings {
            cluster: args.cluster.clone(),
            own_namespace: args.own_namespace.clone(),
            exempting_groups: args.exempting_groups.iter().cloned().collect(),
            inline_bytes: args.inline * MIB,
        },
        identity: args.replica.clone(),
        sample: args.sample_attested,
        drain: Duration::from_secs(args.drain),
    })
}

/// Expressions are evaluated on the threads that serve, by their nesting, which is bounded.
pub(crate) const STACK_BYTES: usize = 8 << 20;

/// Layers that a server keeps.
const MAX_CACHE_BYTES: u64 = 10 << 30;
