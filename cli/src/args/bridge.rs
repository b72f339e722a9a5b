//! What can be typed of the runtime bridge.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args as ClapArgs;

use crate::logs::Format;

#[derive(Debug, ClapArgs)]
pub(crate) struct Bridge {
    /// Where sensors post their events: /v1/events/SENSOR
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8444", env = "MAYFLY_BRIDGE_LISTEN")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) telling: Telling,
    /// Where health and metrics are served without TLS [default: nowhere]
    #[arg(long, value_name = "ADDRESS", env = "MAYFLY_BRIDGE_STATUS_LISTEN")]
    pub(crate) status_listen: Option<SocketAddr>,
    /// The sensors that may send, in TOML: name, dialect, cluster, and what each shows
    #[arg(long, value_name = "FILE", env = "MAYFLY_SENSORS")]
    pub(crate) sensors: PathBuf,
    /// A folder with tls.crt and tls.key, which somebody renews [default: no TLS; something before the bridge speaks it]
    #[arg(long, value_name = "DIR", env = "MAYFLY_TLS_DIR")]
    pub(crate) tls_dir: Option<PathBuf>,
    /// PEM of the authorities of sensors' client certificates
    #[arg(long, value_name = "FILE", requires = "tls_dir", env = "MAYFLY_SENSOR_CA")]
    pub(crate) client_ca: Option<PathBuf>,
    /// The folder for events that are kept until they are judged
    #[arg(long, value_name = "DIR", default_value = "/var/lib/mayfly/bridge", env = "MAYFLY_BRIDGE_DATA")]
    pub(crate) data: PathBuf,
    /// Where JetStream is, in TOML, for events that several bridges share [default: the folder, for this bridge alone]
    #[arg(long, value_name = "FILE", env = "MAYFLY_STREAM")]
    pub(crate) stream: Option<PathBuf>,
    /// The ledger, the webhook's own: sqlite:FILE or postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(long, value_name = "URL", env = "MAYFLY_LEDGER", hide_env_values = true)]
    pub(crate) ledger: String,
    /// What this cluster is called in the ledger
    #[arg(long, value_name = "NAME", default_value = "default", env = "MAYFLY_CLUSTER")]
    pub(crate) cluster: String,
    /// Names this bridge, where several share a ledger
    #[arg(long, value_name = "NAME", default_value = "bridge", env = "MAYFLY_BRIDGE_NAME")]
    pub(crate) name: String,
    /// Files of rules of run time, or folders of them, read again when they change [default: the cluster's own]
    #[arg(long, value_name = "FILE|FOLDER")]
    pub(crate) rules: Vec<PathBuf>,
    /// A file of 32 random bytes or more, the same for all bridges of one ledger, that seals rules there: one that is changed so that it
    /// does not load stays as it was, over a restart too [default: with --stream none, else one that is made in the folder of --data]
    #[arg(long, value_name = "FILE", env = "MAYFLY_SEAL_KEY")]
    pub(crate) seal_key: Option<PathBuf>,
    /// Ask no API server: pods are known by what sensors say of them
    #[arg(long)]
    pub(crate) no_cluster: bool,
    /// Facts of the nodes' container runtime, in YAML or JSON [default: containerd 2]
    #[arg(long, value_name = "FILE")]
    pub(crate) runtime: Option<PathBuf>,
    /// How the log is written; RUST_LOG says how much of it [default level: info]
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", env = "MAYFLY_LOG_FORMAT")]
    pub(crate) log_format: Format,
    #[command(flatten)]
    pub(crate) registry: super::Registry,
}

/// The same within `mayfly serve`, which has the rest already.
#[derive(Debug, ClapArgs)]
pub(crate) struct Beside {
    /// The sensors that may send, in TOML; with it, the runtime bridge runs in this process too [default: it does not]
    #[arg(long, value_name = "FILE", env = "MAYFLY_SENSORS", help_heading = "Runtime bridge")]
    pub(crate) sensors: Option<PathBuf>,
    /// Where sensors post their events, by the same certificate: /v1/events/SENSOR
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "[::]:8444",
        env = "MAYFLY_BRIDGE_LISTEN",
        help_heading = "Runtime bridge"
    )]
    pub(crate) bridge_listen: SocketAddr,
    /// PEM of the authorities of sensors' client certificates
    #[arg(long, value_name = "FILE", env = "MAYFLY_SENSOR_CA", help_heading = "Runtime bridge")]
    pub(crate) sensor_ca: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) telling: Telling,
}

/// What a bridge hears beside posts, and whom it tells.
#[derive(Debug, ClapArgs)]
pub(crate) struct Telling {
    /// A file that a sensor writes, followed through its rotations
    #[arg(long = "tail", value_name = "SENSOR=FILE", value_parser = tail)]
    pub(crate) tails: Vec<(String, PathBuf)>,
    /// Where people ask for alerts: /api/v1, by the same certificate [default: nowhere]
    #[arg(long, value_name = "ADDRESS", env = "MAYFLY_API_LISTEN")]
    pub(crate) api_listen: Option<SocketAddr>,
    /// Who may, in TOML, beside those whom the cluster's API server knows
    #[arg(long, value_name = "FILE", requires = "api_listen", env = "MAYFLY_CALLERS")]
    pub(crate) callers: Option<PathBuf>,
    /// Whose signature makes an act an expected one, in TOML: keys, or whom certificates name [default: nobody's]
    #[arg(long, value_name = "FILE", requires = "api_listen", env = "MAYFLY_OVERLAY_SIGNERS")]
    pub(crate) overlay_signers: Option<PathBuf>,
    /// Do in the cluster what rules of run time mean in earnest, in namespaces with the label mayfly.dev/respond=true
    #[arg(long, env = "MAYFLY_RESPOND")]
    pub(crate) respond: bool,
    /// Of that at most so many within an hour
    #[arg(long, value_name = "NUMBER", requires = "respond", default_value_t = 20)]
    pub(crate) respond_per_hour: u64,
    /// And so many in one namespace
    #[arg(long, value_name = "NUMBER", requires = "respond", default_value_t = 5)]
    pub(crate) respond_per_namespace: u64,
    /// A model that ranks what is not expected: a file that `accuracy risk` made, or `none` for rules alone [default: this version's]
    #[arg(long, value_name = "FILE|none", env = "MAYFLY_RISK_MODEL")]
    pub(crate) risk_model: Option<PathBuf>,
    /// Whom alerts are told to, in TOML: Alertmanager, Slack, syslog and others [default: nobody]
    #[arg(long, value_name = "FILE", env = "MAYFLY_SINKS")]
    pub(crate) sinks: Option<PathBuf>,
}

fn tail(text: &str) -> Result<(String, PathBuf), String> {
    let (sensor, file) = text.split_once('=').ok_or("expected SENSOR=FILE")?;
    Ok((sensor.to_owned(), PathBuf::from(file)))
}
