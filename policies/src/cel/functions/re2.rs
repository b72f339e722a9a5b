//! Regular expressions as the API server reads them (RE2, by Go), in the syntax of the `regex` crate: what both know and mean
//! differently is written as the one means it, and what only the other knows is refused. Source: Go, `regexp/syntax`.

use std::fmt::Write as _;

/// The same pattern for the `regex` crate.
///
/// # Errors
/// What RE2 does not know.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    // Inside brackets, and whether something stands there yet.
    let mut class: Option<bool> = None;
    // Where the last repetition ended, in what is left, and whether it is a lazy one.
    let mut repeated: Option<(usize, bool)> = None;
    while let Some(first) = rest.chars().next() {
        let after = rest.get(first.len_utf8()..).unwrap_or_default();
        if class.is_none() && "*+?{".contains(first) && (first != '{' || repeats(after)) {
            let is_lazy = match repeated.filter(|(end, _)| *end == rest.len()) {
                None => false,
                Some((_, false)) if first == '?' => true,
                Some(_) => return Err("a repetition is repeated: put it in brackets".to_owned()),
            };
            let end = if first == '{' { after.find('}').map_or(0, |end| after.len() - end - 1) } else { after.len() };
            repeated = Some((end, is_lazy));
        }
        rest = match (first, class) {
            ('\\', _) => escape(after, class.is_some(), &mut out)?,
            ('[', None) => {
                out.push('[');
                // A bracket that comes first is one of the characters.
                let (negated, after) = after.strip_prefix('^').map_or(("", after), |after| ("^", after));
                out.push_str(negated);
                class = Some(false);
                match after.strip_prefix(']') {
                    Some(after) => {
                        out.push_str("\\]");
                        class = Some(true);
                        after
                    }
                    None => after,
                }
            }
            ('[', Some(_)) => match after.strip_prefix(':').and_then(|after| after.find(":]")) {
                Some(end) => {
                    let name = after.get(1..=end).unwrap_or_default();
                    if !POSIX.contains(&name.trim_start_matches('^')) {
                        return Err(format!("there is no class `{name}`"));
                    }
                    let length = 1 + 1 + end + 2;
                    out.push_str(rest.get(..length).unwrap_or_default());
                    class = Some(true);
                    rest.get(length..).unwrap_or_default()
                }
                None => {
                    out.push_str("\\[");
                    class = Some(true);
                    after
                }
            },
            (']', Some(_)) => {
                out.push(']');
                class = None;
                after
            }
            // Two of them would be an operation on sets.
            ('&' | '~', Some(_)) => {
                out.push('\\');
                out.push(first);
                class = Some(true);
                after
            }
            ('-', Some(_)) if after.starts_with('-') => {
                return Err("write `\\-` for a hyphen between brackets".to_owned());
            }
            ('{', None) => repetition(after, &mut out)?,
            ('(', None) if after.starts_with('?') => {
                flags(after)?;
                out.push('(');
                after
            }
            (other, _) => {
                out.push(other);
                class = class.map(|_| true);
                after
            }
        };
    }
    Ok(out)
}

/// What follows a backslash; returns what follows that.
fn escape<'p>(rest: &'p str, in_class: bool, out: &mut String) -> Result<&'p str, String> {
    let Some(first) = rest.chars().next() else { return Err("it ends with a backslash".to_owned()) };
    let after = rest.get(first.len_utf8()..).unwrap_or_default();
    // Classes are of ASCII.
    let perl = match first {
        'd' | 'D' => Some("0-9"),
        'w' | 'W' => Some("0-9A-Za-z_"),
        's' | 'S' => Some("\\t\\n\\f\\r "),
        _ => None,
    };
    match first {
        _ if let Some(class) = perl => {
            let negated = if first.is_ascii_uppercase() { "^" } else { "" };
            let _ =
                if in_class && negated.is_empty() { write!(out, "{class}") } else { write!(out, "[{negated}{class}]") };
        }
        'b' | 'B' if !in_class => {
            let _ = write!(out, "(?-u:\\{first})");
        }
        'Q' if !in_class => {
            let (literal, after) = after.split_once("\\E").unwrap_or((after, ""));
            out.push_str(&regex::escape(literal));
            return Ok(after);
        }
        '0'..='7' => {
            let digits = rest.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
            if first != '0' && digits < 2 {
                return Err(format!("`\\{first}` refers back to a group, which is not possible"));
            }
            let (octal, after) = rest.split_at_checked(digits).unwrap_or((rest, ""));
            let _ = write!(out, "\\x{{{:X}}}", u32::from_str_radix(octal, 8).unwrap_or_default());
            return Ok(after);
        }
        'A' | 'z' if !in_class => {
            let _ = write!(out, "\\{first}");
        }
        'a' | 'f' | 'n' | 'r' | 't' | 'v' | 'x' | 'p' | 'P' => {
            // What stands in braces behind it is a name or number, and no repetition.
            let braced = after.split_once('}').filter(|(name, _)| name.starts_with('{'));
            let (name, after) = braced.map_or((String::new(), after), |(name, after)| (format!("{name}}}"), after));
            let _ = write!(out, "\\{first}{name}");
            return Ok(after);
        }
        _ if first.is_ascii_punctuation() => {
            // `\<` is the character, and no start of a word.
            match first {
                '<' | '>' => out.push(first),
                _ => {
                    let _ = write!(out, "\\{first}");
                }
            }
        }
        _ => return Err(format!("`\\{first}` means nothing")),
    }
    Ok(after)
}

/// Whether what follows `{` is a repetition.
fn repeats(rest: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    rest.split_once('}').is_some_and(|(inside, _)| {
        let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
        !least.is_empty() && digits(least) && digits(most)
    })
}

/// What follows `{`: a repetition, or else the character.
fn repetition<'p>(rest: &'p str, out: &mut String) -> Result<&'p str, String> {
    let Some((inside, after)) = rest.split_once('}').filter(|_| repeats(rest)) else {
        out.push_str("\\{");
        return Ok(rest);
    };
    if inside.split(',').any(|count| !count.is_empty() && count.parse().map_or(true, |count: u64| count > MAX_COUNT)) {
        return Err(format!("it repeats more than {MAX_COUNT} times"));
    }
    let _ = write!(out, "{{{inside}}}");
    Ok(after)
}

/// What may follow `(?`: a name, or flags that both know.
fn flags(rest: &str) -> Result<(), String> {
    let inside = rest.get(1..).unwrap_or_default();
    if inside.starts_with("P<") || inside.starts_with('<') {
        return Ok(());
    }
    match inside.find([':', ')']).and_then(|end| inside.get(..end)) {
        Some(flags) if flags.chars().all(|flag| "imsU-".contains(flag)) => Ok(()),
        _ => Err("what stands behind `(?` is none of i, m, s, U and names of groups".to_owned()),
    }
}

const MAX_COUNT: u64 = 1_000;
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_both_know_is_written_as_the_api_server_means_it() {
        for (pattern, expected) in [
            (r"^a.c$", r"^a.c$"),
            (r"\d+\.\w*", r"[0-9]+\.[0-9A-Za-z_]*"),
            (r"[\w.-]", r"[0-9A-Za-z_.-]"),
            (r"[^\S]", r"[^[^\t\n\f\r ]]"),
            (r"\bx\B", r"(?-u:\b)x(?-u:\B)"),
            (r"[]a]", r"[\]a]"),
            (r"[^]a]", r"[^\]a]"),
            (r"[[:alpha:]_]", r"[[:alpha:]_]"),
            (r"[[a]", r"[\[a]"),
            (r"[a&&b~~c]", r"[a\&\&b\~\~c]"),
            (r"a{2,}b{x}", r"a{2,}b\{x}"),
            (r"\Qa.b\Ec", r"a\.bc"),
            (r"\141\x{62}\pL", r"\x{61}\x{62}\pL"),
            (r"\p{Greek}\x{61}", r"\p{Greek}\x{61}"),
            (r"a*?b+?c{2}?", r"a*?b+?c{2}?"),
            (r"\<a\>", "<a>"),
            (r"(?i)(?P<x>a)(?<y>b)(?:c)", r"(?i)(?P<x>a)(?<y>b)(?:c)"),
        ] {
            let translated = translate(pattern).expect(pattern);
            assert_eq!(translated, expected, "{pattern}");
            assert!(regex::Regex::new(&translated).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn what_only_one_knows_is_refused() {
        for pattern in
            [r"(?x) a", "(?=a)", "(?R)a", "(?u)a", r"a{1001}", r"\1", r"\C", r"\Z", r"\h", r"\", "[a--b]", r"\G"]
        {
            assert!(translate(pattern).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_translated_or_refused(pattern in r"[\\\[\]{}()?^$.*+|&~:<>a-eQE0-9 é-]{0,40}") {
            let _ = translate(&pattern).map(|pattern| regex::Regex::new(&pattern));
        }

        #[test]
        fn a_plain_text_stands_for_itself(text in "[ -~é]{0,30}") {
            let pattern = format!("^(?:{})$", regex::escape(&text));
            let compiled = regex::Regex::new(&translate(&pattern).expect("it is escaped")).expect("a pattern");
            prop_assert!(compiled.is_match(&text));
        }
    }
}
