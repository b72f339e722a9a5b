//! What can be typed of the runtime bridge.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args as ClapArgs;

use crate::logs::Format;

#[derive(Debug, ClapArgs)]
pub(crate) struct Bridge {
    /// Where sensors post their events: /v1/events/SENSOR
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8444", env = "MAYFLY_BRIDGE_LISTEN")]
    pub(crate) listen: SocketAddr,
    /// Where people ask for alerts: /api/v1, by the same certificate [default: nowhere]
    #[arg(long, value_name = "ADDRESS", env = "MAYFLY_API_LISTEN")]
    pub(crate) api_listen: Option<SocketAddr>,
    /// Who may, in TOML, beside those whom the cluster's API server knows
    #[arg(long, value_name = "FILE", requires = "api_listen", env = "MAYFLY_CALLERS")]
    pub(crate) callers: Option<PathBuf>,
    /// Whom alerts are told to, in TOML: Alertmanager, Slack, syslog and others [default: nobody]
    #[arg(long, value_name = "FILE", env = "MAYFLY_SINKS")]
    pub(crate) sinks: Option<PathBuf>,
    /// Where health and metrics are served without TLS [default: nowhere]
    #[arg(long, value_name = "ADDRESS", env = "MAYFLY_BRIDGE_STATUS_LISTEN")]
    pub(crate) status_listen: Option<SocketAddr>,
    /// The sensors that may send, in TOML: name, dialect, cluster, and what each shows
    #[arg(long, value_name = "FILE", env = "MAYFLY_SENSORS")]
    pub(crate) sensors: PathBuf,
    /// A file that a sensor writes, followed through its rotations
    #[arg(long = "tail", value_name = "SENSOR=FILE", value_parser = tail)]
    pub(crate) tails: Vec<(String, PathBuf)>,
    /// A folder with tls.crt and tls.key, which somebody renews [default: no TLS; something before the bridge speaks it]
    #[arg(long, value_name = "DIR", env = "MAYFLY_TLS_DIR")]
    pub(crate) tls_dir: Option<PathBuf>,
    /// PEM of the authorities of sensors' client certificates
    #[arg(long, value_name = "FILE", requires = "tls_dir", env = "MAYFLY_SENSOR_CA")]
    pub(crate) client_ca: Option<PathBuf>,
    /// The folder for events that are kept until they are judged
    #[arg(long, value_name = "DIR", default_value = "/var/lib/mayfly/bridge", env = "MAYFLY_BRIDGE_DATA")]
    pub(crate) data: PathBuf,
    /// The ledger, the webhook's own: sqlite:FILE or postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(long, value_name = "URL", env = "MAYFLY_LEDGER", hide_env_values = true)]
    pub(crate) ledger: String,
    /// What this cluster is called in the ledger
    #[arg(long, value_name = "NAME", default_value = "default", env = "MAYFLY_CLUSTER")]
    pub(crate) cluster: String,
    /// Names this bridge, where several share a ledger: each has its own events
    #[arg(long, value_name = "NAME", default_value = "bridge", env = "MAYFLY_BRIDGE_NAME")]
    pub(crate) name: String,
    /// Ask no API server: pods are known by what sensors say of them
    #[arg(long)]
    pub(crate) no_cluster: bool,
    /// Facts of the nodes' container runtime, in YAML or JSON [default: containerd 2]
    #[arg(long, value_name = "FILE")]
    pub(crate) runtime: Option<PathBuf>,
    /// How the log is written; RUST_LOG says how much of it [default level: info]
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", env = "MAYFLY_LOG_FORMAT")]
    pub(crate) log_format: Format,
}

fn tail(text: &str) -> Result<(String, PathBuf), String> {
    let (sensor, file) = text.split_once('=').ok_or("expected SENSOR=FILE")?;
    Ok((sensor.to_owned(), PathBuf::from(file)))
}
