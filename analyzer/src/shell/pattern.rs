//! Shell patterns (POSIX.1-2024, Shell Command Language, 2.14): does a text match? `*`, `?`, `[…]` and `\`; no extended globs.

/// Whether `text` matches `pattern` as a whole. Linear space, at worst quadratic time.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` stands, and how much it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some(_) => text.get(t).and_then(|c| one(&pattern, p, *c)),
            None => None,
        };
        match (step, star) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((at, taken))) => {
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
            (None, None) => return false,
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

/// Matches one character at `p`; gives the place after it in the pattern.
fn one(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match pattern.get(p)? {
        '?' => Some(p + 1),
        '\\' => (pattern.get(p + 1).copied().unwrap_or('\\') == c).then_some(p + 2),
        '[' => match bracket(pattern, p + 1, c) {
            Some((true, next)) => Some(next),
            Some((false, _)) => None,
            None => (c == '[').then_some(p + 1),
        },
        literal => (*literal == c).then_some(p + 1),
    }
}

/// A bracket expression from after its `[`: whether `c` is in it, and the place after `]`; none where it does not end.
fn bracket(pattern: &[char], mut p: usize, c: char) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(p), Some('!' | '^'));
    if negated {
        p += 1;
    }
    let (mut found, mut first) = (false, true);
    loop {
        match *pattern.get(p)? {
            ']' if !first => return Some((found != negated, p + 1)),
            '[' if pattern.get(p + 1) == Some(&':') => {
                let end = (p + 2..pattern.len()).find(|i| pattern.get(*i..i + 2) == Some(&[':', ']'][..]))?;
                let class: String = pattern.get(p + 2..end)?.iter().collect();
                found |= in_class(&class, c);
                p = end + 2;
            }
            low => {
                let (low, after) = if low == '\\' { (*pattern.get(p + 1)?, p + 2) } else { (low, p + 1) };
                if pattern.get(after) == Some(&'-') && pattern.get(after + 1).is_some_and(|c| *c != ']') {
                    let high = *pattern.get(after + 1)?;
                    found |= (low..=high).contains(&c);
                    p = after + 2;
                } else {
                    found |= low == c;
                    p = after;
                }
            }
        }
        first = false;
    }
}

fn in_class(class: &str, c: char) -> bool {
    match class {
        "alnum" => c.is_alphanumeric(),
        "alpha" => c.is_alphabetic(),
        "blank" => matches!(c, ' ' | '\t'),
        "digit" => c.is_ascii_digit(),
        "lower" => c.is_lowercase(),
        "upper" => c.is_uppercase(),
        "punct" => c.is_ascii_punctuation(),
        "space" => c.is_whitespace(),
        "xdigit" => c.is_ascii_hexdigit(),
        _ => false,
    }
}

/// Whether a pattern has any special character.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// `text` as a pattern that matches itself only.
pub(super) fn quote(text: &str) -> String {
    text.chars().flat_map(|c| if "*?[]\\".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_case() {
        for (pattern, text) in [
            ("*.sh", "a.sh"),
            ("-*", "-g"),
            ("[0-9]*", "8080"),
            ("a?c", "abc"),
            ("*", ""),
            ("a*b*c", "aXbXbXc"),
            ("\\*", "*"),
            ("[!a]x", "bx"),
            ("[]a]", "]"),
            ("[[:digit:]]", "7"),
            ("x[", "x["),
            ("**a", "bca"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn patterns_refuse_the_rest() {
        for (pattern, text) in [("*.sh", "a.shx"), ("?", ""), ("[!a]", "a"), ("\\*", "x"), ("", "x"), ("a*b", "a")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!matches(&"*a".repeat(100), &"b".repeat(10_000)));
    }
}
