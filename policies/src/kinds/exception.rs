//! `RuleException`: an image that need not pass, for a time, for a reason.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Lets images pass rules that they do not satisfy. Whoever may create one may switch rules off: give that right to few.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "size(self.images) > 0 && size(self.rules) > 0", "message": "name the rules and the images"},
]))]
pub struct RuleExceptionSpec {
    /// Names of rules, of either kind.
    #[schemars(length(min = 1, max = 64), inner(length(max = 253)))]
    pub rules: Vec<String>,
    /// Which of their checks: names of validations, or reason codes such as `IMG_UNSIGNED`. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    pub checks: Vec<String>,
    /// Images, as globs over the normalized reference: `registry.example.com/tools/debug@sha256:…`. `*` stays within a path
    /// component, `**` does not.
    #[schemars(length(min = 1, max = 64), inner(length(max = 512)))]
    pub images: Vec<String>,
    /// Names of namespaces. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 63)))]
    pub namespaces: Vec<String>,
    /// When it ends, RFC 3339. There is no exception for ever.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub expires: String,
    /// Why, for those who read decisions: `INC-1234`.
    #[schemars(length(min = 1, max = 512))]
    pub reason: String,
}
