//! What can be typed to ask a bridge's API.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::ExplainFormat;

/// How a bridge is reached.
#[derive(Debug, ClapArgs)]
pub(crate) struct Api {
    /// The bridge's API, as `mayfly bridge --api-listen` serves it
    #[arg(long, value_name = "URL", env = "MAYFLY_API", help_heading = "Bridge")]
    pub(crate) api: String,
    /// A file with the bearer token to show
    #[arg(long, value_name = "FILE", env = "MAYFLY_TOKEN_FILE", help_heading = "Bridge")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM of the authorities of the bridge's certificate [default: the system's]
    #[arg(long, value_name = "FILE", env = "MAYFLY_API_CA", help_heading = "Bridge")]
    pub(crate) api_ca: Option<PathBuf>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = "Bridge")]
    pub(crate) timeout: u64,
}

/// Incidents: alerts that are one story.
#[derive(Debug, Subcommand)]
pub(crate) enum Incident {
    /// List incidents, the likeliest first
    List(IncidentList),
    /// Tell an incident: what happened, in order, by which processes
    Show(IncidentShow),
    /// Write all that is known of an incident into one file, with hashes
    Export(IncidentExport),
    /// Look whether an exported file is as it was made; asks nobody
    Verify {
        /// The file
        file: PathBuf,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct IncidentList {
    #[command(flatten)]
    pub(crate) api: Api,
    /// In this namespace
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Of this risk or a higher one, 0 to 1
    #[arg(long, value_name = "RISK")]
    pub(crate) min_risk: Option<f64>,
    /// Also those of one alert alone
    #[arg(long)]
    pub(crate) all: bool,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct IncidentShow {
    /// The incident, by the name of any of its alerts
    pub(crate) incident: String,
    #[command(flatten)]
    pub(crate) api: Api,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct IncidentExport {
    /// The incident, by the name of any of its alerts
    pub(crate) incident: String,
    #[command(flatten)]
    pub(crate) api: Api,
    /// The file to write [default: incident-ID.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// What rules of run time had done about alerts.
#[derive(Debug, Subcommand)]
pub(crate) enum Response {
    /// List responses, the latest first
    List(ResponseList),
    /// Take a response back
    Undo(ResponseUndo),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ResponseList {
    #[command(flatten)]
    pub(crate) api: Api,
    /// In this state: dry-run, taken, done, refused, failed, undone
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<String>,
    /// In this namespace
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ResponseUndo {
    /// The response, by its name
    pub(crate) response: String,
    #[command(flatten)]
    pub(crate) api: Api,
    /// Why, for the audit trail
    #[arg(long)]
    pub(crate) reason: String,
}

/// What a workload really did against what was predicted.
#[derive(Debug, ClapArgs)]
pub(crate) struct Snapshot {
    /// The workload: NAMESPACE/KIND/NAME, such as shop/Deployment/web; with --replay it may be left out, for all there are
    #[arg(required_unless_present = "replay")]
    pub(crate) workload: Option<String>,
    #[command(flatten)]
    pub(crate) api: Api,
    /// In this cluster, where several have such a workload
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// This container, where the pod has several
    #[arg(long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// This image [default: the one that was seen last]
    #[arg(long, value_name = "DIGEST")]
    pub(crate) digest: Option<String>,
    /// Print a draft; what it would refuse or silence of what is stored is told on standard error. Nothing is saved
    #[arg(long, value_enum, value_name = "KIND", conflicts_with = "format")]
    pub(crate) draft: Option<Draft>,
    /// Let a draft allow what was predicted and never seen too
    #[arg(long, requires = "draft")]
    pub(crate) with_unused: bool,
    /// Labels of the workload's pods for a draft: KEY=VALUE, repeatable
    #[arg(long, value_name = "KEY=VALUE", requires = "draft")]
    pub(crate) label: Vec<String>,
    /// Draft a rule or overlays of this alert, repeatable [default: all but those that are resolved, suppressed or of a risk from 0.7]
    #[arg(long, value_name = "ALERT", requires = "draft")]
    pub(crate) alert: Vec<String>,
    /// Why what a rule or overlay is about is as it should be
    #[arg(long, value_name = "TEXT", requires = "draft")]
    pub(crate) reason: Option<String>,
    /// When a rule or overlay ends, within a year: a span such as 14d, a day, or a time
    #[arg(long, value_name = "SPAN|TIME", requires = "draft")]
    pub(crate) until: Option<String>,
    /// Say what this file would make of the alerts that are stored: rules of run time, or overlays that are proposed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["draft", "container", "digest"])]
    pub(crate) replay: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Draft {
    /// A RuntimeRule that ignores what the workload's alerts tell, there and of this image, until a time
    Rule,
    /// Overlays by which that is expected of this image, for `mayfly overlay sign`
    Overlay,
    /// A NetworkPolicy: ports that were opened, peers that were called
    NetworkPolicy,
    /// A KubeArmorPolicy that lets the programs run that ran
    Kubearmor,
}
