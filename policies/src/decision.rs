//! What comes of a review. There is no default decision: one exists only where all rules were asked.

use std::collections::{BTreeMap, BTreeSet};

use dna::{Digest, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What comes of a review, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Whether it may be.
    pub verdict: Verdict,
    /// Everything that is not as a rule says, the gravest first; what is only recorded too.
    pub reasons: Vec<Reason>,
    /// What is admitted though nobody can say whether it may be: to be decided again.
    pub unknown: Vec<AdmittedUnknown>,
    /// Exceptions that made a difference.
    pub exceptions: Vec<UsedException>,
    /// The rules that were asked, and their versions.
    pub rules: Vec<RuleVersion>,
    /// Of a denial: after how many seconds it is worthwhile to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_seconds: Option<u64>,
}

/// Whether it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// Yes.
    Allow,
    /// Yes, with warnings.
    Warn,
    /// No.
    Deny,
}

/// A rule, and which version of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleVersion {
    /// Its name; of a rule of a namespace `NAMESPACE/NAME`.
    pub rule: String,
    /// SHA-256 of its canonical JSON.
    pub version: Digest,
}

/// Something that is not as a rule says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// What comes of it.
    pub effect: Effect,
    /// Which rule.
    pub rule: String,
    /// Which of its checks, of a validation its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// A stable code: `IMG_UNSIGNED`.
    pub code: String,
    /// The image; none of what is about the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<About>,
    /// What there should be.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub expected: String,
    /// What there is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub found: String,
    /// Where it was looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// It is not that something is wrong, but that nobody can say; why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// An image that a reason is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The reference as written.
    pub reference: String,
    /// The container's or volume's name.
    pub name: String,
    /// What it is used for.
    pub role: Role,
    /// What the reference leads to, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The platform, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// What comes of a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Effect {
    /// It is refused.
    Deny,
    /// The user is warned.
    Warn,
    /// It is recorded.
    Audit,
}

/// Something that was admitted without being known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdmittedUnknown {
    /// Which rule admits it.
    pub rule: String,
    /// The image.
    pub image: About,
    /// What is not known.
    pub what: String,
    /// Why, as rules name it.
    pub cause: String,
    /// Since when what counted instead is known, where something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
}

/// An exception that made a difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsedException {
    /// Its name.
    pub exception: String,
    /// Of which rule.
    pub rule: String,
    /// What it lets pass.
    pub code: String,
    /// For which image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<About>,
    /// Its reason.
    pub reason: String,
    /// Until when.
    pub expires: String,
}

impl Decision {
    /// Whether the request is admitted.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.verdict != Verdict::Deny
    }

    /// What the user is told of a denial: all images in one message.
    #[must_use]
    pub fn message(&self) -> String {
        let denied = self.reasons.iter().filter(|reason| reason.effect == Effect::Deny);
        let mut told = BTreeSet::new();
        let lines: Vec<_> = denied.map(Reason::text).filter(|line| told.insert(line.clone())).collect();
        let mut message = String::new();
        for (at, line) in lines.iter().enumerate() {
            if at >= MAX_MESSAGE_REASONS || message.len() + line.len() > MAX_MESSAGE_BYTES {
                message.push_str(&format!("; and {} more", lines.len() - at));
                break;
            }
            if at > 0 {
                message.push_str("; ");
            }
            message.push_str(line);
        }
        match self.retry_seconds {
            Some(seconds) if !message.is_empty() => format!("{message}; try again in {seconds} s"),
            _ => message,
        }
    }

    /// What the user is warned of: at most ten lines of at most 120 characters, as Kubernetes asks.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let warned = self.reasons.iter().filter(|reason| reason.effect == Effect::Warn);
        let mut told = BTreeSet::new();
        let mut lines: Vec<_> = warned
            .map(|reason| cut(&reason.text(), MAX_WARNING_CHARS))
            .filter(|line| told.insert(line.clone()))
            .collect();
        if lines.len() > MAX_WARNINGS {
            let more = lines.len() - (MAX_WARNINGS - 1);
            lines.truncate(MAX_WARNINGS - 1);
            lines.push(format!("and {more} more warnings"));
        }
        lines
    }

    /// Annotations for the audit log, at most 8 KiB together.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let mut left = MAX_ANNOTATIONS_BYTES;
        let mut annotations = BTreeMap::new();
        let verdict = match self.verdict {
            Verdict::Allow => "allow",
            Verdict::Warn => "warn",
            Verdict::Deny => "deny",
        };
        let list = |lines: Vec<String>| lines.join("\n");
        let reasons =
            self.reasons.iter().map(|reason| format!("{:?} {} {}", reason.effect, reason.rule, reason.text()));
        let rules = self.rules.iter().map(|rule| format!("{} {}", rule.rule, rule.version));
        let unknown =
            self.unknown.iter().map(|it| format!("{} {}: {} ({})", it.rule, it.image.name, it.what, it.cause));
        let exceptions =
            self.exceptions.iter().map(|it| format!("{} {} {}: {}", it.exception, it.rule, it.code, it.reason));
        for (name, text) in [
            ("verdict", verdict.to_owned()),
            ("reasons", list(reasons.collect())),
            ("unknown", list(unknown.collect())),
            ("exceptions", list(exceptions.collect())),
            ("rules", list(rules.collect())),
        ] {
            if text.is_empty() || left <= name.len() {
                continue;
            }
            let text = cut_bytes(&text, MAX_ANNOTATION_BYTES.min(left - name.len()));
            left = left.saturating_sub(name.len() + text.len());
            annotations.insert(name.to_owned(), text);
        }
        annotations
    }
}

impl Reason {
    /// One sentence: what, of which image, what was expected and found, and what to do.
    #[must_use]
    pub fn text(&self) -> String {
        let image =
            self.image.as_ref().map_or_else(String::new, |image| format!("{} ({})", image.reference, image.name));
        let expected = if self.expected.is_empty() { String::new() } else { format!(": expected {}", self.expected) };
        let found = match (self.found.is_empty(), self.expected.is_empty()) {
            (true, _) => String::new(),
            (false, true) => format!(": {}", self.found),
            (false, false) => format!(", found {}", self.found),
        };
        let check = self.check.as_ref().map_or_else(String::new, |check| format!("/{check}"));
        let remedy = if self.remedy.is_empty() { String::new() } else { format!("; {}", self.remedy) };
        let image = if image.is_empty() { image } else { format!(" {image}") };
        format!("{} [{}{check}]{image}{expected}{found}{remedy}", self.code, self.rule)
    }
}

/// The start of a text, without control characters.
pub(crate) fn cut(text: &str, most: usize) -> String {
    let clean = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    match text.char_indices().nth(most) {
        None => text.chars().map(clean).collect(),
        Some(_) => text.chars().take(most.saturating_sub(1)).map(clean).chain(['…']).collect(),
    }
}

/// The same by bytes.
fn cut_bytes(text: &str, most: usize) -> String {
    let fits = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= most).count();
    cut(text, if fits == text.chars().count() { fits } else { fits.saturating_sub('…'.len_utf8()) })
}

/// Kubernetes cuts longer ones.
const MAX_WARNING_CHARS: usize = 120;
const MAX_WARNINGS: usize = 10;
const MAX_MESSAGE_REASONS: usize = 20;
const MAX_MESSAGE_BYTES: usize = 4 << 10;
const MAX_ANNOTATIONS_BYTES: usize = 8 << 10;
const MAX_ANNOTATION_BYTES: usize = 4 << 10;
