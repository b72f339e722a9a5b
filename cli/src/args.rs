//! What can be typed: the doc comments here are the help. Nothing is done with it here.

pub(crate) mod api;
pub(crate) mod bridge;
pub(crate) mod policy;
pub(crate) mod trust;
pub(crate) mod webhook;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args as ClapArgs, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::output::Destination;

/// Predicts what a container of an image will do, from its bytes, before it runs.
///
/// Exit codes: 0 fine, 1 policy said no, 2 could not run. Messages go to standard error; RUST_LOG=debug says more.
#[derive(Debug, Parser)]
#[command(name = "mayfly", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read an image and print its DNA
    #[command(after_long_help = SOURCES_AND_DNA)]
    Analyze(Analyze),
    /// Write what enforces the DNA: a seccomp profile, the capabilities to grant
    #[command(after_long_help = SOURCES_AND_DNA)]
    Profile(Profile),
    /// Say why something is predicted: the chain from the start command to the instruction, line or key
    #[command(after_long_help = SOURCES_AND_DNA)]
    Explain(Explain),
    /// Say what an image will do in a pod, and where the two do not fit
    #[command(after_long_help = SOURCES_AND_DNA)]
    Expect(Expect),
    /// Say which known images an image is like, and what no other of its software does
    #[command(after_long_help = SOURCES_AND_DNA)]
    Kin(Kin),
    /// Say who signed an image, and what is attested about it
    Verify(trust::Verify),
    /// Analyze an image and attach its DNA to it, as a signed attestation
    Attest(trust::Attest),
    /// Sign an image as cosign 3 does
    Sign(trust::Sign),
    /// Make keys that sign
    #[command(subcommand)]
    Keys(trust::Keys),
    /// Sign what is accepted as expected of an image
    #[command(subcommand)]
    Overlay(trust::Overlay),
    /// Write the current trust root of a Sigstore instance, for `verify --trusted-root`
    TrustRoot(trust::TrustRoot),
    /// Rules for admission: test them, hold manifests against them
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Review what comes to a Kubernetes cluster, as a validating webhook
    Webhook(webhook::Webhook),
    /// The same with everything that is kept in one folder: no other service is needed
    Serve(webhook::Serve),
    /// Take what sensors on the nodes see, and compare it with what pods are expected to do
    Bridge(bridge::Bridge),
    /// Stories that alerts tell: list them, tell one, export its evidence
    #[command(subcommand)]
    Incident(api::Incident),
    /// What rules of run time had done about alerts: list it, take it back
    #[command(subcommand)]
    Response(api::Response),
    /// Show what a workload did against what was predicted; draft profiles, rules, overlays
    Snapshot(api::Snapshot),
    /// Compare a recorded stream of a sensor with what the images' DNAs expect, offline
    Replay(Replay),
    /// Copy an image into an OCI layout, every byte checked
    #[command(after_long_help = SOURCES)]
    Pull(Pull),
    /// Build an image of this very program and show its DNA: needs no network, no cluster, no other image
    Demo(Demo),
    /// Answer the suite sigstore-conformance
    #[command(hide = true, subcommand)]
    Conformance(trust::Conformance),
    /// Print the JSON Schema of the DNA
    Schema,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command into a folder
    Man {
        /// Folder for the pages
        #[arg(short, long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
}

macro_rules! sources {
    ($more:literal) => {
        concat!(
            "\
SOURCE is one of (names as in containers-transports(5)):
  REFERENCE, docker://REFERENCE   an image in a registry: debian:12, ghcr.io/team/app@sha256:…
  oci:DIR[:TAG]                   an OCI image layout
  oci-archive:FILE[:TAG]          the same in a tar archive
  docker-archive:FILE[:TAG]       what `docker save` writes
  -                               an archive of either kind on standard input
  docker-daemon:REFERENCE         an image of the local Docker engine
  dir:ROOTFS                      an unpacked root file system (with --config)
",
            $more,
            "
Registry credentials are Docker's: config.json with auths, credsStore and credHelpers."
        )
    };
}

const SOURCES: &str = sources!("");
const SOURCES_AND_DNA: &str = sources!(
    "  dna:FILE                        a DNA that `mayfly analyze --format json` wrote; `dna:-` reads standard input
"
);

#[derive(Debug, ClapArgs)]
pub(crate) struct Analyze {
    /// The image
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: Format,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Ask what another command would do in a container of the image, in place of its own
    #[arg(long, value_name = "COMMAND LINE")]
    pub(crate) command: Option<String>,
    /// Lay a file, or the files of a folder, over the image as a deployment mounts them (a ConfigMap); a path alone stands for
    /// what cannot be read (a Secret, a volume)
    #[arg(long = "mount", value_name = "PATH[=FILE]")]
    pub(crate) mounts: Vec<String>,
    /// Set an environment variable as a deployment does
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Profile {
    /// The image, or its DNA
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// What to write
    #[arg(long = "for", value_enum, value_name = "TARGET")]
    pub(crate) target: Target,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// For another command in place of the image's own
    #[arg(long, value_name = "COMMAND LINE")]
    pub(crate) command: Option<String>,
    /// The runtime that will load the seccomp profile; repeat it for several [default: runc and crun]
    #[arg(long, value_enum, value_name = "RUNTIME")]
    pub(crate) runtime: Vec<Runtime>,
    /// The container runs with no_new_privs (`--security-opt no-new-privileges`, allowPrivilegeEscalation: false): the
    /// runtime loads the seccomp profile last, so fewer calls of its own are allowed
    #[arg(long)]
    pub(crate) no_new_privileges: bool,
    /// Allow no system call that Docker's default profile refuses, even where it is predicted
    #[arg(long)]
    pub(crate) within_docker_default: bool,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Explain {
    /// The image, or its DNA: without the image, calls inside of compiled code are not shown
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// syscall:NAME, capability:CAP_NAME, port:NUMBER[/PROTOCOL], exec:/PATH, load:/PATH, write:/PATH, read:/PATH or
    /// connect:HOST or connect:HOST:PORT
    #[arg(value_name = "WHAT")]
    pub(crate) what: String,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Expect {
    /// The image, or its DNA
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Manifests in YAML or JSON: an object with a pod in it, and the ConfigMaps that it mounts
    #[arg(long, value_name = "FILE")]
    pub(crate) pod: PathBuf,
    /// The object of the file, where it holds several with pods
    #[arg(long, value_name = "KIND/NAME")]
    pub(crate) object: Option<String>,
    /// The container, where the pod has several
    #[arg(long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// Facts of the nodes' container runtime, in YAML or JSON [default: containerd 2]
    #[arg(long, value_name = "FILE")]
    pub(crate) runtime: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ExplainFormat,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Kin {
    /// The image, or its DNA
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Known images: a folder of DNAs that `mayfly analyze --format json` wrote, or of their traits (`--format traits`)
    #[arg(long, value_name = "FOLDER")]
    pub(crate) known: PathBuf,
    /// The name of its repository, where it says what the image is [default: that of SOURCE, where it has one]
    #[arg(long, value_name = "NAME")]
    pub(crate) repository: Option<String>,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: KinFormat,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Exit with 1 where it is unlike its family
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum KinFormat {
    /// For people
    #[default]
    Human,
    /// For programs
    Json,
    /// What is kept of the DNA, for a folder of known ones: some kilobytes of JSON
    Traits,
}

/// A recorded stream, and what it is held against.
#[derive(Debug, ClapArgs)]
pub(crate) struct Replay {
    /// Events of a sensor, one JSON object a line, also gzip-compressed; `-` is standard input
    #[arg(value_name = "EVENTS")]
    pub(crate) events: PathBuf,
    /// A DNA for all containers, or a folder of them: found by the image's digest, else by its repository's last name
    #[arg(long, value_name = "FILE|FOLDER")]
    pub(crate) dna: PathBuf,
    /// Rules of run time, in files or folders of them, by the time of each event
    #[arg(long, value_name = "FILE|FOLDER")]
    pub(crate) rules: Vec<PathBuf>,
    /// What to print: for people what was found by container, or a line for each deviation with the event it is about
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: ReplayFormat,
    /// A model that ranks what is not expected: a file that `accuracy risk` made, or `none` for rules alone [default: this version's]
    #[arg(long, value_name = "FILE|none")]
    pub(crate) risk_model: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReplayFormat {
    /// For people
    #[default]
    Human,
    /// A JSON object a line: `deviation`, `risk`, `alert`, `incident`, `verdict` of rules, `event`; a summary on standard error
    Ndjson,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExplainFormat {
    /// For people
    #[default]
    Human,
    /// For programs
    Json,
}

/// How an image is found and opened.
#[derive(Debug, ClapArgs)]
pub(crate) struct Open {
    /// Platform to choose from an index [default: this machine's, on Linux]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<dna::Platform>,
    /// Take every platform of an index
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all_platforms: bool,
    /// Image config of an unpacked root (dir:)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set a limit on what is read; `--limit help=0` names them
    #[arg(long = "limit", value_name = "NAME=NUMBER")]
    pub(crate) limits: Vec<String>,
    #[command(flatten)]
    pub(crate) registry: Registry,
    /// Folder that keeps blobs and facts [default: mayfly/blobs in the user's cache folder]
    #[arg(long, value_name = "DIR", env = "MAYFLY_CACHE_DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Bytes that folder may hold; the least recently used go first
    #[arg(long, value_name = "BYTES", env = "MAYFLY_CACHE_SIZE")]
    pub(crate) cache_size: Option<u64>,
    /// Keep nothing, and use nothing that was kept
    #[arg(long)]
    pub(crate) no_cache: bool,
}

/// How registries are reached.
#[derive(Debug, ClapArgs)]
pub(crate) struct Registry {
    /// Speak unencrypted HTTP to the registry
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// Trust the certificate authorities in this PEM file too
    #[arg(long, value_name = "FILE", env = "MAYFLY_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Certificates, proxies, mirrors and timeouts of single registries, in this TOML file
    #[arg(long, value_name = "FILE", env = "MAYFLY_REGISTRIES")]
    pub(crate) registries: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Pull {
    /// The image
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Where it goes: `oci:DIR[:TAG]`
    #[arg(value_name = "oci:DIR[:TAG]")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Demo {
    /// End after printing instead of keeping the page open
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Write the page to this file too
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people, on a terminal
    #[default]
    Human,
    /// The DNA as canonical JSON: its SHA-256 is the DNA's digest
    Json,
    /// One self-contained page with the exec graph drawn
    Html,
    /// The packages as CycloneDX 1.6 JSON
    Cyclonedx,
    /// The packages as SPDX 2.3 JSON
    Spdx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// A seccomp profile, as Docker, Podman and Kubernetes load it
    Seccomp,
    /// The `securityContext` of a Kubernetes container: all capabilities dropped, the needed ones added
    Capabilities,
    /// The same as options of `docker run`
    DockerRun,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// Docker, containerd, CRI-O
    Runc,
    /// Podman, CRI-O
    Crun,
    /// youki
    Youki,
}

impl Runtime {
    /// Its name, as the tables have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Youki => "youki",
        }
    }
}

/// Prints a completion script.
pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "mayfly", &mut script);
    Destination::default().write(&script)
}

/// Prints the manual page, or writes one for each command.
pub(crate) fn manual(folder: Option<&Path>) -> anyhow::Result<()> {
    match folder {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Args::command()).render(&mut page)?;
            Destination::default().write(&page)
        }
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
            clap_mangen::generate_to(Args::command(), folder)
                .with_context(|| format!("cannot write manual pages to {}", folder.display()))
        }
    }
}
