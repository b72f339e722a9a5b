//! Pieces of expressions.

use std::collections::BTreeMap;

/// A text as CEL writes it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A list of texts.
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    let texts: Vec<_> = texts.into_iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// All of them hold; none of none, which is true.
pub(super) fn all(parts: Vec<String>) -> Option<String> {
    joined(parts, " && ")
}

/// One of them holds.
pub(super) fn any(parts: Vec<String>) -> Option<String> {
    joined(parts, " || ")
}

fn joined(mut parts: Vec<String>, by: &str) -> Option<String> {
    match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(parts.iter().map(|part| wrapped(part)).collect::<Vec<_>>().join(by)),
    }
}

/// In parentheses where it needs them.
pub(super) fn wrapped(part: &str) -> String {
    if part.contains(" && ") || part.contains(" || ") || part.contains(" ? ") {
        format!("({part})")
    } else {
        part.to_owned()
    }
}

/// Whether a text is a plain name of a field.
pub(super) fn is_name(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(first) && text.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// Whether a text has a wildcard of Kyverno.
pub(super) fn is_wild(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// That `value` is a text, which may have wildcards: `*` for any characters, `?` for one.
pub(super) fn like(value: &str, pattern: &str) -> String {
    if is_wild(pattern) {
        format!("{value}.matches({})", quoted(&format!("^{}$", expression(pattern))))
    } else {
        format!("{value} == {}", quoted(pattern))
    }
}

/// A pattern with wildcards as a regular expression for the whole text.
pub(super) fn expression(pattern: &str) -> String {
    let mut out = String::new();
    for c in pattern.chars() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            c if c.is_ascii_alphanumeric()
                || matches!(c, '_' | '-' | '/' | ':' | '@' | '%' | '=' | ',' | ' ' | '<' | '>') =>
            {
                out.push(c)
            }
            c => {
                if c.is_ascii() {
                    out.push('\\');
                }
                out.push(c);
            }
        }
    }
    out
}

/// A regular expression that is looked for anywhere, as one for the whole text.
pub(super) fn whole(found: &str) -> String {
    if found.contains('|') {
        return format!(".*(?:{found}).*");
    }
    let (start, rest) = match found.strip_prefix('^') {
        Some(rest) => ("", rest),
        None => (".*", found),
    };
    let (end, rest) = match rest.strip_suffix('$').filter(|rest| !ends_escaped(rest)) {
        Some(rest) => ("", rest),
        None => (".*", rest),
    };
    let start = if rest.starts_with(".*") { "" } else { start };
    let end = if rest.ends_with(".*") && !ends_escaped(rest.strip_suffix(".*").unwrap_or_default()) { "" } else { end };
    format!("{start}{rest}{end}")
}

/// Whether what comes after a text would be taken literally.
fn ends_escaped(text: &str) -> bool {
    text.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1
}

/// Labels or annotations of an object, all of these.
pub(super) fn labels(of: &str, wanted: &BTreeMap<String, String>) -> Vec<String> {
    let each = |(key, value): (&String, &String)| {
        if is_wild(key) {
            let key = like("k", key);
            format!("has({of}) && {of}.exists(k, {} && {})", wrapped(&key), like(&format!("{of}[k]"), value))
        } else {
            let key = quoted(key);
            format!("has({of}) && {key} in {of} && {}", like(&format!("{of}[{key}]"), value))
        }
    };
    wanted.iter().map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_searched_expression_means_the_same_as_a_whole_one() {
        for (found, expected) in [
            ("^https://github.com/a/.*$", "https://github.com/a/.*"),
            ("https://github.com/a/", ".*https://github.com/a/.*"),
            (".*@example.com", ".*@example.com.*"),
            ("^a|b$", ".*(?:^a|b$).*"),
            (r"^cost\$", r"cost\$.*"),
            (r"^a\.*", r"a\.*.*"),
        ] {
            let made = whole(found);
            assert_eq!(made, expected);
            let (searched, anchored) =
                (regex::Regex::new(found).expect("one"), regex::Regex::new(&format!("^(?:{made})$")).expect("one"));
            for text in [
                "https://github.com/a/b",
                "xhttps://github.com/a/b",
                "me@example.com",
                "ax",
                "xb",
                "cost$",
                "a..x",
                "a",
            ] {
                assert_eq!(searched.is_match(text), anchored.is_match(text), "{found} {text}");
            }
        }
    }

    #[test]
    fn wildcards_become_expressions() {
        assert_eq!(expression("https://github.com/*/a+b?"), r"https://github\.com/.*/a\+b.");
        assert_eq!(like("x", "a*"), "x.matches(\"^a.*$\")");
        assert_eq!(like("x", "a\"b"), "x == \"a\\\"b\"");
    }
}
