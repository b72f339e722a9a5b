//! The syntaxes that servers' configuration is written in: a text in, its settings (path of sections, words, line) out. What a
//! setting means is not decided here, variables are not expanded, includes are not followed.
//!
//! Four families: lines of words (redis, sshd, ini, apache, unbound …), directives with braces (nginx, caddy, named, HCL …),
//! XML attributes, and data formats (YAML, JSON, TOML). Each takes any text; what it does not understand is passed over.

mod braces;
mod data;
mod lines;
mod xml;

use serde::Deserialize;

/// One setting as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// Sections and key joined by dots, each by its first word: `http.server.listen`.
    pub(super) path: String,
    /// What follows the key; the words after a section's first one where a block opens.
    pub(super) words: Vec<String>,
    /// Line, from 1; 0 where the syntax does not tell.
    pub(super) line: u32,
    /// How many sections it stands in.
    pub(super) depth: usize,
    /// It opens a section.
    pub(super) opens: bool,
}

/// How a configuration file reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Syntax {
    /// `key word word`, `#` starts a comment; sections `[a]`, `<A b>` and `a:` are recognized.
    #[default]
    Words,
    /// `key = value`, with `[section]`; `#` and `;` start comments.
    Equals,
    /// `key: value`; a key without value opens a section: unbound, nsd.
    Colons,
    /// `key word word`, sections start with a word at the start of a line and the rest is indented: haproxy.
    Indented,
    /// Columns at the start of a line, continued by indented lines: postfix's `master.cf`.
    Columns,
    /// `key words;` and `key words { … }`: nginx, named.
    Semicolons,
    /// `key words` and `key words {`, ended by the line: caddy, coredns, dovecot, HCL, lighttpd.
    Blocks,
    /// Attributes of XML elements.
    Xml,
    /// YAML, which JSON is a part of.
    Yaml,
    /// TOML.
    Toml,
}

impl Syntax {
    /// Every syntax.
    pub(super) const ALL: [Self; 10] = [
        Self::Words,
        Self::Equals,
        Self::Colons,
        Self::Indented,
        Self::Columns,
        Self::Semicolons,
        Self::Blocks,
        Self::Xml,
        Self::Yaml,
        Self::Toml,
    ];
}

/// Sections within sections beyond which a text is passed over.
const MAX_DEPTH: usize = 64;

/// Settings of one text: real ones have hundreds, generated ones thousands.
const MAX_SETTINGS: usize = 100_000;

/// Reads a text; none where it is no text of this syntax.
pub(super) fn read(text: &str, syntax: Syntax) -> Option<Vec<Setting>> {
    match syntax {
        Syntax::Words | Syntax::Equals | Syntax::Colons | Syntax::Indented | Syntax::Columns => {
            Some(lines::read(text, syntax))
        }
        Syntax::Semicolons => braces::read(text, braces::End::Semicolon),
        Syntax::Blocks => braces::read(text, braces::End::Line),
        Syntax::Xml => Some(xml::read(text)),
        Syntax::Yaml => data::yaml(text),
        Syntax::Toml => data::toml(text),
    }
}

/// Bytes of a section's name: they stand in the path of every setting in it, so a hostile one would cost memory by the square.
const MAX_NAME_BYTES: usize = 255;

/// Bytes of a path of sections and key.
const MAX_PATH_BYTES: usize = 1024;

/// A section's name.
fn name_of(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_NAME_BYTES)).unwrap_or_default().to_owned()
}

fn join(sections: &[String], key: &str) -> String {
    let mut path = if sections.is_empty() { key.to_owned() } else { format!("{}.{key}", sections.join(".")) };
    path.truncate(path.floor_char_boundary(MAX_PATH_BYTES));
    path
}

/// Splits at white space; quotes group and are removed, a backslash outside them takes the next character as it is.
pub(super) fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
pub(super) fn lines_of(text: &str, syntax: Syntax) -> Vec<String> {
    let settings = read(text, syntax).expect("text of this syntax");
    settings.into_iter().map(|s| format!("{} {} {}", s.line, s.path, s.words.join("|")).trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn broken_text_never_panics() {
        for text in [
            "{", "}", "}}}; {", "\"", "a '", "<", "<a b=", "<!--", "[", "[a", "a:\n  b", "${", "a = [", "\\", "/*",
            "é{ü",
        ] {
            for syntax in Syntax::ALL {
                read(text, syntax);
                read(&text.repeat(5_000), syntax);
            }
        }
    }

    #[test]
    fn nesting_beyond_the_bound_is_refused() {
        assert_eq!(read(&"a {\n".repeat(MAX_DEPTH + 1), Syntax::Blocks), None);
        assert_eq!(read(&"[".repeat(10_000), Syntax::Yaml), None);
        assert_eq!(read("a = = b", Syntax::Toml), None);
    }

    #[test]
    fn long_names_of_sections_are_cut() {
        let name = "é".repeat(200);
        for (text, syntax) in [
            (format!("{name} {{ a b; }}"), Syntax::Semicolons),
            (format!("[{name}]\na = b"), Syntax::Equals),
            (format!("<{name}>\na b"), Syntax::Words),
            (format!("{name}:\n a: b"), Syntax::Colons),
            (format!("<{name} a=\"b\"/>"), Syntax::Xml),
            (format!("{name}:\n  a: b"), Syntax::Yaml),
        ] {
            let settings = read(&text, syntax).expect("text of this syntax");
            assert!(settings.last().is_some_and(|last| last.path.len() < 300 && last.words == ["b"]), "{syntax:?}");
        }
    }

    #[test]
    fn quotes_group_words() {
        assert_eq!(split(r#"a "b c" d'e f' g\ h "x\"y""#), ["a", "b c", "de f", "g h", "x\"y"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in r#"([a-z:./*$@=;,<>"'#!%-]|[0-9]{1,6}|[{}\[\]()]|\\|\n| |é|\$\{|listen|</){0,60}"#) {
            crate::servers::settings(&text);
        }
    }
}
