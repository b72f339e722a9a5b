//! Where a pod and the DNA of its image do not fit.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Confidence, Evidence};

/// One thing that does not fit between what a pod says and what its image does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What sort.
    pub code: FindingCode,
    /// What it is about: a capability, `80/tcp`, a path, a program.
    pub subject: String,
    /// What will come of it.
    pub effect: Effect,
    /// How sure the prediction is that it rests on.
    pub certainty: Confidence,
    /// For people, one sentence.
    pub message: String,
    /// What to change in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Where in the image it shows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
}

/// The sorts of findings. Their names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FindingCode {
    /// A capability is added that nothing in the image is predicted to need.
    CapabilityNotNeeded,
    /// A capability that is needed is not granted.
    CapabilityMissing,
    /// The container is privileged, and nothing is predicted to need more than some capabilities.
    PrivilegedNotNeeded,
    /// A setuid or file-capability program is predicted to run where it cannot gain anything.
    NoNewPrivileges,
    /// A port is declared that nothing is predicted to open.
    PortNotServed,
    /// A port is predicted to be opened that the pod does not declare.
    PortNotDeclared,
    /// A port below the unprivileged range, and no right to open it.
    PortNotPermitted,
    /// A probe or hook asks a port that nothing is predicted to open.
    ProbePortNotServed,
    /// `runAsNonRoot`, and it would run as root.
    RunsAsRoot,
    /// `runAsNonRoot`, and the image names its user by name: the kubelet refuses, as it cannot tell.
    UserNotVerifiable,
    /// The image's user is in no account database of it.
    UserNotFound,
    /// The user may not write what is predicted to be written.
    UserCannotWrite,
    /// The root file system is read-only, and it is predicted to be written.
    RootReadOnly,
    /// The seccomp profile denies a system call that is predicted.
    SeccompDenies,
    /// The command's program is not in the image.
    ProgramMissing,
    /// A probe's or hook's program is not in the image.
    ProbeProgramMissing,
    /// A volume hides a program or library that is predicted to be used.
    ProgramHidden,
    /// A volume hides files that the prediction rests on: configuration, account databases.
    FilesHidden,
    /// It runs as another user than the image was made for.
    UserChanged,
}

/// What comes of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The container does not come up.
    Fails,
    /// It may not come up, or fail at some later task.
    MayFail,
    /// It works; the pod says more, or less, than is true.
    None,
}
