//! What can be typed of `mayfly policy`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::ExplainFormat;

/// Rules for admission.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Hold rules against cases: this input, that decision
    Test(Test),
    /// Decide manifests as the webhook would
    Check(Check),
    /// Say what rules would come to for what runs, and what changes against other rules
    Plan(Plan),
    /// Say why something was decided as it was: each reason, and what to do
    Explain(Explain),
    /// Decide the writes of an audit log as the webhook would have
    Replay(Replay),
    /// Write rules of Sigstore's policy controller and of Kyverno as rules of Mayfly, and tell what is not carried over
    Convert(Convert),
    /// Print the custom resource definitions of the rules
    Crds,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Test {
    #[command(flatten)]
    pub(crate) rules: RuleFiles,
    /// Case files, or folders of them
    #[arg(value_name = "PATH", required = true)]
    pub(crate) cases: Vec<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) rules: RuleFiles,
    /// Manifests in YAML or JSON: objects with pods, the namespaces they are for, the ConfigMaps they mount
    #[arg(value_name = "FILE", required = true)]
    pub(crate) manifests: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) deciding: Deciding,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
}

/// Rules, by an option.
#[derive(Debug, ClapArgs)]
pub(crate) struct RuleFiles {
    /// Rule files, or folders of them
    #[arg(long = "rules", value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
}

/// How objects of files are decided.
#[derive(Debug, ClapArgs)]
pub(crate) struct Deciding {
    /// Take what rules deny as refused, whatever the labels of the namespace; without this, a namespace that is not in the files
    /// counts as one where nothing is enforced
    #[arg(long)]
    pub(crate) enforce: bool,
    #[command(flatten)]
    pub(crate) gathering: Gathering,
}

/// How it is found out what rules must know.
#[derive(Debug, ClapArgs)]
pub(crate) struct Gathering {
    /// The namespace of objects that name none
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
    /// Facts of the nodes' container runtime, in YAML or JSON [default: containerd 2]
    #[arg(long, value_name = "FILE")]
    pub(crate) runtime: Option<PathBuf>,
    /// Seconds to find out what is to be known of one object's images
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) registry: super::Registry,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Plan {
    /// Rule files, or folders of them
    #[arg(value_name = "RULES", required = true)]
    pub(crate) rules: Vec<PathBuf>,
    /// Rules that are in force now, files or folders: what changes against them is told too [default: the cluster's]
    #[arg(long, value_name = "PATH")]
    pub(crate) against: Vec<PathBuf>,
    /// Manifests of what runs, files or folders, in place of a cluster
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["kubeconfig", "context"])]
    pub(crate) manifests: Vec<PathBuf>,
    /// The file that says how the cluster is reached [default: KUBECONFIG, ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// A context of that file [default: the current one]
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Read image pull secrets and service accounts of the cluster, to pull as its pods may
    #[arg(long, conflicts_with = "manifests")]
    pub(crate) read_secrets: bool,
    /// Read ConfigMaps of the cluster that pods mount, to understand their configuration
    #[arg(long, conflicts_with = "manifests")]
    pub(crate) read_config_maps: bool,
    /// The namespace of the cluster's webhook, for keys and trust roots whose rules name none
    #[arg(long, value_name = "NAME", default_value = "mayfly-system")]
    pub(crate) own_namespace: String,
    /// End with 1 for what would be denied if all were enforced everywhere, not only for what is denied by the labels of now
    #[arg(long)]
    pub(crate) enforce: bool,
    #[command(flatten)]
    pub(crate) gathering: Gathering,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Explain {
    /// A decision's id, of a ledger; else a file of decisions as `check --format json` prints them, `-` for standard input
    #[arg(value_name = "ID|FILE")]
    pub(crate) decision: String,
    /// The ledger: sqlite:FILE or postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(long, value_name = "URL", env = "MAYFLY_LEDGER", hide_env_values = true)]
    pub(crate) ledger: Option<String>,
    /// The object that is meant, of several: KIND/NAME
    #[arg(long, value_name = "KIND/NAME")]
    pub(crate) object: Option<String>,
    /// Rule files, or folders of them: what they say is shown beside each reason
    #[arg(long, value_name = "PATH")]
    pub(crate) rules: Vec<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Replay {
    /// Rule files, or folders of them
    #[arg(value_name = "RULES", required = true)]
    pub(crate) rules: Vec<PathBuf>,
    /// The audit log, JSON lines, gzip too; `-` for standard input
    #[arg(value_name = "AUDIT_LOG", required = true)]
    pub(crate) log: PathBuf,
    /// Manifests of namespaces, for their labels, and of ConfigMaps: files or folders
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) manifests: Vec<PathBuf>,
    /// The webhook's own namespace, which it never reviews
    #[arg(long, value_name = "NAME")]
    pub(crate) own_namespace: Option<String>,
    #[command(flatten)]
    pub(crate) deciding: Deciding,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Convert {
    /// Policies in YAML or JSON, files or folders: ClusterImagePolicy and TrustRoot, ClusterPolicy, Policy, ImageValidatingPolicy
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Write the rules to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write what is not carried over as it is to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// How what is not carried over is written
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
}
