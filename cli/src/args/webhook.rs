//! What can be typed of the servers.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args as ClapArgs;

use crate::logs::Format;

#[derive(Debug, ClapArgs)]
pub(crate) struct Webhook {
    #[command(flatten)]
    pub(crate) serving: Serving,
    /// The ledger: sqlite:FILE or postgres://USER:PASSWORD@HOST/DATABASE [default: none is kept]
    #[arg(long, value_name = "URL", env = "MAYFLY_LEDGER", hide_env_values = true)]
    pub(crate) ledger: Option<String>,
    /// A folder of this process alone, where records wait for the ledger
    #[arg(long, value_name = "DIR", default_value = "/var/lib/mayfly/spool", env = "MAYFLY_SPOOL")]
    pub(crate) spool: PathBuf,
    /// A file of 32 random bytes or more, the same for all replicas, that seals facts in the ledger: with it, what was verified
    /// before a restart can count while a registry does not answer (`UseLastVerified`)
    #[arg(long, value_name = "FILE", env = "MAYFLY_SEAL_KEY")]
    pub(crate) seal_key: Option<PathBuf>,
    /// A folder that keeps layers and what was worked out of them [default: none]
    #[arg(long, value_name = "DIR", env = "MAYFLY_CACHE_DIR")]
    pub(crate) cache: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) serving: Serving,
    /// The folder for everything that is kept: the ledger (SQLite), its spool, layers, events
    #[arg(long, value_name = "DIR", default_value = "/var/lib/mayfly", env = "MAYFLY_DATA")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) bridge: super::bridge::Beside,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Serving {
    /// Where reviews are served, by TLS
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8443", env = "MAYFLY_LISTEN")]
    pub(crate) listen: SocketAddr,
    /// Where health and metrics are served without TLS [default: with the reviews only]
    #[arg(long, value_name = "ADDRESS", env = "MAYFLY_STATUS_LISTEN")]
    pub(crate) status_listen: Option<SocketAddr>,
    /// A folder with tls.crt and tls.key, which somebody renews: cert-manager, a mounted Secret
    #[arg(
        long,
        value_name = "DIR",
        env = "MAYFLY_TLS_DIR",
        required_unless_present = "tls_secret",
        conflicts_with = "tls_secret"
    )]
    pub(crate) tls_dir: Option<PathBuf>,
    /// A Secret for an authority of our own, which is made and renewed here
    #[arg(long, value_name = "NAMESPACE/NAME", env = "MAYFLY_TLS_SECRET", requires = "dns_names")]
    pub(crate) tls_secret: Option<String>,
    /// A DNS name to serve, such as mayfly.mayfly-system.svc
    #[arg(long = "dns-name", value_name = "NAME", env = "MAYFLY_DNS_NAMES", value_delimiter = ',')]
    pub(crate) dns_names: Vec<String>,
    /// A ValidatingWebhookConfiguration whose caBundle is kept
    #[arg(
        long = "webhook-configuration",
        value_name = "NAME",
        env = "MAYFLY_WEBHOOK_CONFIGURATIONS",
        value_delimiter = ','
    )]
    pub(crate) configurations: Vec<String>,
    /// PEM of the authority whose certificate the API server must show
    #[arg(long, value_name = "FILE", env = "MAYFLY_CLIENT_CA")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Rule files, or folders of them [default: the rules of the cluster]
    #[arg(long, value_name = "PATH")]
    pub(crate) rules: Vec<PathBuf>,
    /// Ask no API server: namespaces, nodes, secrets and ConfigMaps are not known
    #[arg(long, requires = "rules")]
    pub(crate) no_cluster: bool,
    /// Read image pull secrets and service accounts, to pull as a pod may
    #[arg(long, env = "MAYFLY_READ_SECRETS")]
    pub(crate) read_secrets: bool,
    /// Read ConfigMaps that pods mount, to understand their configuration
    #[arg(long, env = "MAYFLY_READ_CONFIG_MAPS")]
    pub(crate) read_config_maps: bool,
    /// Facts of the nodes' container runtime, in YAML or JSON [default: containerd 2]
    #[arg(long, value_name = "FILE")]
    pub(crate) runtime: Option<PathBuf>,
    /// What this cluster is called in the ledger
    #[arg(long, value_name = "NAME", default_value = "default", env = "MAYFLY_CLUSTER")]
    pub(crate) cluster: String,
    /// The namespace the webhook runs in, which it never reviews
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    pub(crate) own_namespace: Option<String>,
    /// A group whose members may exempt a namespace, or take enforcement off it
    #[arg(long = "exempting-group", value_name = "GROUP", default_value = "system:masters")]
    pub(crate) exempting_groups: Vec<String>,
    /// MiB of compressed image that are analyzed while a review waits; larger ones are analyzed behind it
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pub(crate) inline: u64,
    /// MiB of memory for what is known of images
    #[arg(long, value_name = "MIB", default_value_t = 40)]
    pub(crate) facts_memory: u64,
    /// MiB of compressed images that are analyzed at once
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub(crate) analysis_memory: u64,
    /// Of so many attested DNAs that are used, one is worked out here too and compared; 0: none
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) sample_attested: u32,
    /// Names this replica where one of several is elected to look after what runs
    #[arg(long, value_name = "NAME", env = "HOSTNAME", hide_env_values = true)]
    pub(crate) replica: Option<String>,
    /// Seconds to go on serving after the signal to end
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) drain: u64,
    /// How the log is written; RUST_LOG says how much of it [default level: info]
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", env = "MAYFLY_LOG_FORMAT")]
    pub(crate) log_format: Format,
    /// An OpenTelemetry collector for traces, by OTLP over gRPC: http://HOST:4317
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub(crate) otlp_endpoint: Option<String>,
    #[command(flatten)]
    pub(crate) registry: super::Registry,
}
