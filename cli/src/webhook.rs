//! `mayfly webhook` and `mayfly serve`: arguments in, a running server out, until it is told to end.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use dna::Limits;
use tracing_subscriber::filter::LevelFilter;
use webhook::{gather::Seal, traces::Traces};

use crate::{args::webhook as args, logs, output, remote, server};

pub(crate) fn webhook(args: &args::Webhook) -> anyhow::Result<()> {
    let mut config = config(&args.serving, args.ledger.clone(), args.spool.clone(), args.cache.clone())?;
    config.seal = args.seal_key.as_deref().map(Seal::read).transpose()?;
    run(&args.serving, config)
}

pub(crate) fn serve(args: &args::Serve) -> anyhow::Result<()> {
    let data = &args.data;
    let ledger = format!("sqlite:{}", data.join("ledger.db").display());
    std::fs::create_dir_all(data).with_context(|| format!("cannot make the folder {}", data.display()))?;
    let mut config = config(&args.serving, Some(ledger), data.join("spool"), Some(data.join("cache")))?;
    config.seal = Some(Seal::kept_in(&data.join("seal.key"))?);
    run(&args.serving, config)
}

fn run(args: &args::Serving, config: webhook::Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK_BYTES).enable_all().build();
    let runtime = runtime.context("cannot start the network runtime")?;
    let traces = {
        let _inside = runtime.enter();
        args.otlp_endpoint.as_deref().map(|endpoint| Traces::start(endpoint, &args.cluster)).transpose()?
    };
    logs::start(args.log_format, LevelFilter::INFO, traces.as_ref());
    let done = runtime.block_on(async {
        let ended = server::told_to_end()?;
        let ready = |address| output::say(&format!("serving reviews on {address}"));
        webhook::run(config, ready, ended).await.map_err(anyhow::Error::from)
    });
    if let Some(traces) = traces {
        traces.end();
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

fn config(
    args: &args::Serving,
    ledger: Option<String>,
    spool: PathBuf,
    cache: Option<PathBuf>,
) -> anyhow::Result<webhook::Config> {
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
        ledger,
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
const STACK_BYTES: usize = 8 << 20;

/// Layers that a server keeps.
const MAX_CACHE_BYTES: u64 = 10 << 30;
