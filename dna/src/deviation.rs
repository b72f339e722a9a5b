//! A step that was not expected, and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an event did that was not expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deviation {
    /// What sort of step.
    pub class: Class,
    /// What it is about, the same for every repetition: a program, a port, a file.
    pub subject: String,
    /// One sentence for a person.
    pub message: String,
    /// The nearest program on the way here that was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Index of the layer that brought the program that acts, where the image has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
    /// The package that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// How likely it is that this is an attack: 0 to 1. By a model where `drivers` says what drove it, else by rules.
    pub risk: f64,
    /// What drove the model's probability, the strongest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drivers: Vec<Driver>,
    /// The technique it looks like, MITRE ATT&CK for containers.
    pub technique: String,
    /// It was kept from happening.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blocked: bool,
}

/// A feature of a deviation that moved its probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Driver {
    /// The feature, by its name in the model.
    pub feature: String,
    /// What it is here.
    pub value: f64,
    /// How far it moved the logarithm of the odds: above 0 towards an attack.
    pub weight: f64,
}

/// What sort of step was not expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A program that the image does not have.
    ProgramNotInImage,
    /// A program of the image that nothing leads to from the start command.
    ProgramNotReachable,
    /// A program that is expected, but not from this one.
    StepNotPredicted,
    /// A command that somebody started in the container: `kubectl exec`.
    CommandFromOutside,
    /// A port.
    Listen,
    /// A peer.
    Connect,
    /// A capability.
    Capability,
    /// A system call.
    Syscall,
    /// A file that was written or changed.
    Write,
    /// A sensitive file that was read.
    SensitiveRead,
    /// Another user.
    Identity,
    /// There is no DNA of the container's image: nothing is compared.
    NoDna,
    /// Another image runs than the one that was admitted.
    BindingMismatch,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::ProgramNotInImage,
        Self::ProgramNotReachable,
        Self::StepNotPredicted,
        Self::CommandFromOutside,
        Self::Listen,
        Self::Connect,
        Self::Capability,
        Self::Syscall,
        Self::Write,
        Self::SensitiveRead,
        Self::Identity,
        Self::NoDna,
        Self::BindingMismatch,
    ];

    /// Its name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProgramNotInImage => "program-not-in-image",
            Self::ProgramNotReachable => "program-not-reachable",
            Self::StepNotPredicted => "step-not-predicted",
            Self::CommandFromOutside => "command-from-outside",
            Self::Listen => "listen",
            Self::Connect => "connect",
            Self::Capability => "capability",
            Self::Syscall => "syscall",
            Self::Write => "write",
            Self::SensitiveRead => "sensitive-read",
            Self::Identity => "identity",
            Self::NoDna => "no-dna",
            Self::BindingMismatch => "binding-mismatch",
        }
    }
}
