//! `mayfly webhook` and `mayfly serve`: arguments in, a running server out, until it is told to end.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use dna::Limits;
use tokio::signal::unix::{SignalKind, signal};

use crate::{args::webhook as args, output, remote};

pub(crate) fn webhook(args: &args::Webhook) -> anyhow::Result<()> {
    let config = config(&args.serving, args.ledger.clone(), args.spool.clone(), args.cache.clone())?;
    run(config)
}

pub(crate) fn serve(args: &args::Serve) -> anyhow::Result<()> {
    let data = &args.data;
    let ledger = format!("sqlite:{}", data.join("ledger.db").display());
    run(config(&args.serving, Some(ledger), data.join("spool"), Some(data.join("cache")))?)
}

fn run(config: webhook::Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the network runtime")?;
    let done = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
        let ended = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let ready = |address| output::say(&format!("serving reviews on {address}"));
        webhook::run(config, ready, ended).await.map_err(anyhow::Error::from)
    });
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
        spool,
        registry: remote::settings(&args.registry)?,
        cache: cache.map(|folder| oci::Cache::new(folder, MAX_CACHE_BYTES)),
        runtime,
        limits: Limits::default(),
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

/// Layers that a server keeps.
const MAX_CACHE_BYTES: u64 = 10 << 30;
