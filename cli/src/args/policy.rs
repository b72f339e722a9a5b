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
    /// Print the custom resource definitions of the rules
    Crds,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Test {
    /// Rule files, or folders of them
    #[arg(long, value_name = "PATH", required = true)]
    pub(crate) rules: Vec<PathBuf>,
    /// Case files, or folders of them
    #[arg(value_name = "PATH", required = true)]
    pub(crate) cases: Vec<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Check {
    /// Rule files, or folders of them
    #[arg(long, value_name = "PATH", required = true)]
    pub(crate) rules: Vec<PathBuf>,
    /// Manifests in YAML or JSON: objects with pods, the namespaces they are for, the ConfigMaps they mount
    #[arg(value_name = "FILE", required = true)]
    pub(crate) manifests: Vec<PathBuf>,
    /// The namespace of objects that name none
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
    /// Take what rules deny as refused, whatever the labels of the namespace; without this, a namespace that is not in the files
    /// counts as one where nothing is enforced
    #[arg(long)]
    pub(crate) enforce: bool,
    /// Facts of the nodes' container runtime, in YAML or JSON [default: containerd 2]
    #[arg(long, value_name = "FILE")]
    pub(crate) runtime: Option<PathBuf>,
    /// Seconds to find out what is to be known of one object's images
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
    #[command(flatten)]
    pub(crate) registry: super::Registry,
}
