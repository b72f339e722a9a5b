//! What a rule says about what nobody can say.

use dna::Cause;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens where a fact is unknown, for each cause. What is not written denies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct OnUnknown {
    /// The registry does not answer.
    pub registry: UnknownAction,
    /// The registry asks to come back later.
    pub throttled: UnknownAction,
    /// The registry refuses the credentials at hand.
    pub credentials: UnknownAction,
    /// Time ran out.
    pub deadline: UnknownAction,
    /// The trust root is too old to judge by.
    pub trust_expired: UnknownAction,
    /// The image is still being analyzed.
    pub analysis_pending: UnknownAction,
    /// The analysis failed, or cannot be made.
    pub analysis_failed: UnknownAction,
    /// The ledger does not answer.
    pub ledger: UnknownAction,
    /// How old the last known value may be where it is to be used: a span such as `24h`. Without it, it may not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub max_staleness: Option<String>,
}

/// What happens where a fact is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum UnknownAction {
    /// As where a check fails.
    #[default]
    Deny,
    /// It is admitted with a warning, recorded as admitted without being known, and decided again later.
    Warn,
    /// What was known the last time counts, if it is not older than `maxStaleness`; else it is denied.
    UseLastVerified,
}

impl OnUnknown {
    /// What it says for a cause. Nothing can be said for what was not even asked: that is a fault, and denies.
    #[must_use]
    pub fn action(&self, cause: Cause) -> UnknownAction {
        match cause {
            Cause::Registry => self.registry,
            Cause::Throttled => self.throttled,
            Cause::Credentials => self.credentials,
            Cause::Deadline => self.deadline,
            Cause::TrustExpired => self.trust_expired,
            Cause::AnalysisPending { .. } => self.analysis_pending,
            Cause::AnalysisFailed => self.analysis_failed,
            Cause::Ledger => self.ledger,
            Cause::NotAsked => UnknownAction::Deny,
        }
    }
}
