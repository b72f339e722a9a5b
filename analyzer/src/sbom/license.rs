//! Licenses as documents want them: a database's text in, an SPDX expression out where it is one.

use spdx::{Expression, ParseMode};

/// A license as a package states it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum License {
    /// One identifier of the SPDX license list.
    Identifier(String),
    /// A valid SPDX license expression of more than one identifier, or with an own one (`LicenseRef-`).
    Expression(String),
    /// Anything else, as written.
    Text(String),
}

impl License {
    /// Judges `text`.
    pub(super) fn of(text: &str) -> Self {
        let trimmed = text.trim();
        if spdx::license_id(trimmed).is_some_and(|id| id.name == trimmed) {
            return Self::Identifier(trimmed.to_owned());
        }
        // Old packages use identifiers that the list has deprecated since.
        let mode = ParseMode { allow_deprecated: true, allow_postfix_plus_on_gpl: true, ..ParseMode::STRICT };
        if trimmed.len() <= MAX_EXPRESSION_BYTES && Expression::parse_mode(trimmed, mode).is_ok() {
            return Self::Expression(trimmed.to_owned());
        }
        Self::Text(trimmed.to_owned())
    }
}

/// Longer ones are license texts.
const MAX_EXPRESSION_BYTES: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_expressions_are_expressions() {
        let kind = |text: &str| match License::of(text) {
            License::Identifier(_) => "id",
            License::Expression(_) => "expression",
            License::Text(_) => "text",
        };
        for (text, expected) in [
            ("MIT", "id"),
            ("GPL-2.0", "id"),
            ("GPL-2.0+", "expression"),
            ("MIT OR Apache-2.0", "expression"),
            ("(MIT AND LicenseRef-x) OR GPL-2.0-only WITH Classpath-exception-2.0", "expression"),
            ("MIT AND", "text"),
            ("mit", "text"),
            ("BSD License", "text"),
            ("MIT/Apache-2.0", "text"),
            ("", "text"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
        assert_eq!(kind(&"(".repeat(1_000_000)), "text");
        assert_eq!(kind(&"(".repeat(1_999)), "text");
    }
}
