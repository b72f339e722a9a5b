//! Whom a keyless rule names: the subject of the signing certificate, its issuer, and the claims of the build that asked
//! for it. Source: Fulcio, `docs/oid-info.md`.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde::Serialize;

use crate::refusal::{Reason, clean};

/// A text that must be equal, or match.
#[derive(Debug, Clone)]
pub enum Text {
    /// This text.
    Exact(String),
    /// Wholly matched by this expression.
    Pattern(Regex),
}

impl Text {
    /// An expression in the syntax of the `regex` crate, which takes linear time. It must match the whole text: cosign's
    /// `.*-regexp` options match any part of it.
    ///
    /// # Errors
    /// [`PatternError`] where it is no expression, or too large a one.
    pub fn pattern(expression: &str) -> Result<Self, PatternError> {
        let built = RegexBuilder::new(&format!("{BEFORE}{expression}{AFTER}")).size_limit(MAX_PATTERN_BYTES).build();
        // The expression alone must be one too: `a)|(b` would undo the anchors.
        let alone = RegexBuilder::new(expression).size_limit(MAX_PATTERN_BYTES).build();
        let error =
            |error: regex::Error| PatternError { expression: clean(expression), reason: clean(&error.to_string()) };
        alone.map_err(error)?;
        built.map(Self::Pattern).map_err(error)
    }

    /// Whether the text is meant.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(expected) => expected == text,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(&clean(text)),
            Self::Pattern(pattern) => {
                let anchored = pattern.as_str();
                let typed = anchored.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix(AFTER));
                write!(f, "/{}/", clean(typed.unwrap_or(anchored)))
            }
        }
    }
}

/// Not an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{expression}` is not a regular expression: {reason}")]
pub struct PatternError {
    expression: String,
    reason: String,
}

/// Somebody a keyless rule accepts.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The subject alternative name: an e-mail address or a URI.
    pub subject: Text,
    /// The OpenID Connect issuer that vouched for it.
    pub issuer: Text,
    /// Claims by name, as in [`Certificate::claims`].
    pub claims: BTreeMap<String, Text>,
}

/// What a verified signing certificate says of who signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The first e-mail address or URI among its subject alternative names; other kinds of names are none.
    pub subject: Option<String>,
    /// The OpenID Connect issuer.
    pub issuer: Option<String>,
    /// Claims of a build service, by the names of Fulcio's documentation in camel case: `sourceRepositoryUri`, …
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<&'static str, String>,
}

impl Certificate {
    /// # Errors
    /// [`Reason::WrongIdentity`] where none of the identities is this one.
    pub(crate) fn is_one_of(&self, identities: &[Identity]) -> Result<(), Reason> {
        if identities.iter().any(|identity| identity.is(self)) {
            return Ok(());
        }
        Err(Reason::WrongIdentity { expected: any_of(identities), found: self.to_string() })
    }
}

impl std::fmt::Display for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |text: &Option<String>| clean(text.as_deref().unwrap_or("nobody"));
        write!(f, "{} (issuer {})", text(&self.subject), text(&self.issuer))
    }
}

impl Identity {
    fn is(&self, certificate: &Certificate) -> bool {
        let named = |text: &Text, value: Option<&String>| value.is_some_and(|value| text.matches(value));
        named(&self.subject, certificate.subject.as_ref())
            && named(&self.issuer, certificate.issuer.as_ref())
            && self.claims.iter().all(|(name, text)| named(text, certificate.claims.get(name.as_str())))
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (issuer {}", self.subject, self.issuer)?;
        for (name, text) in &self.claims {
            write!(f, ", {name} {text}")?;
        }
        f.write_str(")")
    }
}

/// Identities, for a message.
pub(crate) fn any_of(identities: &[Identity]) -> String {
    identities.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

const BEFORE: &str = "^(?:";
const AFTER: &str = ")$";
const MAX_PATTERN_BYTES: usize = 1 << 20;
