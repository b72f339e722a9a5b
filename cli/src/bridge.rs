//! `mayfly bridge`: arguments in, a running bridge out, until it is told to end.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, anyhow};
use metrics_exporter_prometheus::PrometheusBuilder;
use runtime_bridge::{api::auth::Fixed, door::Sensors, run, sinks::Sinks};
use tracing_subscriber::filter::LevelFilter;

use crate::{args::bridge as args, logs, output, server};

pub(crate) fn run(args: &args::Bridge) -> anyhow::Result<()> {
    let config = run::Config {
        name: args.name.clone(),
        cluster: args.cluster.clone(),
        data: args.data.clone(),
        ledger: args.ledger.clone(),
        sensors: Sensors::parse(&text(&args.sensors)?, &args.sensors.display().to_string())?,
        listen: args.listen,
        tls: args.tls_dir.clone(),
        client_authorities: args.client_ca.clone(),
        status_listen: args.status_listen,
        tails: args.tails.clone(),
        in_cluster: !args.no_cluster,
        runtime: crate::policy::runtime(args.runtime.as_deref())?,
        sinks: match &args.sinks {
            Some(file) => Sinks::parse(&text(file)?, &file.display().to_string())?,
            None => Sinks::default(),
        },
        api_listen: args.api_listen,
        callers: match &args.callers {
            Some(file) => Fixed::parse(&text(file)?, &file.display().to_string())?,
            None => Fixed::default(),
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the network runtime")?;
    logs::start(args.log_format, LevelFilter::INFO, None);
    let metrics = PrometheusBuilder::new().install_recorder().context("metrics cannot be recorded")?;
    let done = runtime.block_on(async {
        let ended = server::told_to_end()?;
        let ready = |address| output::say(&format!("taking events on {address}"));
        run::run(config, Some(metrics), ready, ended).await.map_err(anyhow::Error::from)
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

fn text(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(output::read(path)?).map_err(|_| anyhow!("{} is no text", path.display()))
}
