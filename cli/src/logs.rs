//! What is logged, and as what. Everything goes to the standard error.

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};
use webhook::traces::Traces;

/// How a log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people
    #[default]
    Text,
    /// A JSON object a line
    Json,
}

/// Starts logging as `RUST_LOG` says, from `otherwise` on, and sends spans where `traces` says.
pub(crate) fn start(format: Format, otherwise: LevelFilter, traces: Option<&Traces>) {
    let filter = EnvFilter::builder().with_default_directive(otherwise.into()).from_env_lossy();
    let lines = match format {
        Format::Text => fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).boxed(),
        Format::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
    };
    let spans = traces.map(|traces| {
        // Of what we depend on, nothing: the exporter would trace itself.
        let ours = ["analyzer", "lineage", "oci", "policies", "trust", "webhook"];
        let ours = Targets::new().with_targets(ours.map(|name| (name, LevelFilter::INFO)));
        tracing_opentelemetry::layer().with_tracer(traces.tracer()).with_filter(ours)
    });
    Registry::default().with(lines.with_filter(filter)).with(spans).init();
}
