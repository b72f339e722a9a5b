//! The text of an expression before anything recursive sees it: its size, and how deeply it can nest. The parser, and every walk
//! over its tree, recurses by nesting, so that a hostile text would overflow the stack.

/// Where something is in an expression: line and column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Position {
    /// The position of a byte of a text.
    pub(crate) fn of(source: &str, byte: usize) -> Self {
        let before = source.get(..byte).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { line, column }
    }
}

/// Checks a text against the limits.
///
/// # Errors
/// Where it is too long or too deep, and why.
pub(crate) fn check(source: &str) -> Result<(), (Position, String)> {
    if source.len() > MAX_SOURCE_BYTES {
        let why = format!("the expression has {} bytes, at most {MAX_SOURCE_BYTES} are read", source.len());
        return Err((Position { line: 1, column: 1 }, why));
    }
    let mut levels = vec![Level::default()];
    let mut at = 0;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let (token, length) = token(rest);
        let level = match levels.last_mut() {
            Some(level) => level,
            None => return Err((Position::of(source, at), "more brackets are closed than opened".to_owned())),
        };
        match token {
            Token::Open => levels.push(Level::default()),
            Token::Close => {
                levels.pop();
                // What follows a bracket is applied to it.
                if let Some(outer) = levels.last_mut() {
                    outer.chain += 1;
                }
            }
            Token::Separator => *level = Level::default(),
            Token::Logical => (level.logical, level.chain) = (level.logical + 1, 0),
            Token::Conditional => (level.conditionals, level.chain) = (level.conditionals + 1, 0),
            Token::Operator => level.chain += 1,
            Token::Other => {}
        }
        if levels.len() > MAX_BRACKETS || levels.iter().map(Level::depth).sum::<usize>() > MAX_DEPTH {
            return Err((Position::of(source, at), format!("the expression nests deeper than {MAX_DEPTH} levels")));
        }
        at += length;
    }
    Ok(())
}

/// What stands between one pair of brackets, up to the next comma.
#[derive(Default)]
struct Level {
    /// `&&` and `||`: the parser balances them.
    logical: usize,
    /// `?` and `:`: each is inside the one before.
    conditionals: usize,
    /// Operators and dots since the last of these: each holds all before it, or all after.
    chain: usize,
}

impl Level {
    fn depth(&self) -> usize {
        1 + self.conditionals + self.chain + (usize::BITS - self.logical.leading_zeros()) as usize
    }
}

enum Token {
    Open,
    Close,
    Separator,
    Logical,
    Conditional,
    Operator,
    Other,
}

/// The first token of a text that is not empty, and its length in bytes: as much of the lexer as nesting depends on.
fn token(rest: &str) -> (Token, usize) {
    let bytes = rest.as_bytes();
    let first = bytes.first().copied().unwrap_or_default();
    let prefix = rest.bytes().take_while(|b| matches!(b, b'r' | b'R' | b'b' | b'B')).count().min(2);
    for (skip, raw) in [(0, false), (prefix, rest.bytes().take(prefix).any(|b| matches!(b, b'r' | b'R')))] {
        if let Some(b'"' | b'\'') = bytes.get(skip) {
            return (Token::Other, skip + literal(rest.get(skip..).unwrap_or_default(), raw));
        }
    }
    match first {
        b'/' if bytes.get(1) == Some(&b'/') => (Token::Other, rest.find('\n').unwrap_or(rest.len())),
        b'`' => (Token::Other, rest.get(1..).and_then(|rest| rest.find('`')).map_or(1, |end| end + 2)),
        b'(' | b'[' | b'{' => (Token::Open, 1),
        b')' | b']' | b'}' => (Token::Close, 1),
        b',' => (Token::Separator, 1),
        b'&' | b'|' => (Token::Logical, rest.bytes().take(2).take_while(|b| *b == first).count()),
        // Of `?.` and `[?` too: that it counts for more than it is does no harm.
        b'?' | b':' => (Token::Conditional, 1),
        b'.' | b'+' | b'-' | b'*' | b'/' | b'%' | b'!' | b'<' | b'>' | b'=' => (Token::Operator, 1),
        b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
            let length = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            let token = if rest.get(..length) == Some("in") { Token::Operator } else { Token::Other };
            (token, length)
        }
        _ => (Token::Other, rest.chars().next().map_or(1, char::len_utf8)),
    }
}

/// Length of a string literal that starts with a quote. Of what the parser would not take for one only the quote: it goes on behind
/// it, and what stands there must be counted.
fn literal(rest: &str, raw: bool) -> usize {
    let quote = rest.get(..1).unwrap_or_default();
    let triple = quote.repeat(3);
    let close = if rest.starts_with(&triple) { triple.as_str() } else { quote };
    let mut at = close.len();
    while let Some(left) = rest.get(at..).filter(|left| !left.is_empty()) {
        if left.starts_with(close) {
            return at + close.len();
        }
        at += match left.strip_prefix('\\').filter(|_| !raw) {
            Some(escape) => match escaped(escape) {
                Some(length) => 1 + length,
                None => return quote.len(),
            },
            None if left.starts_with(['\n', '\r']) && close.len() == 1 => return quote.len(),
            None => left.chars().next().map_or(1, char::len_utf8),
        };
    }
    quote.len()
}

/// Length of what follows a backslash; none where it is no escape.
fn escaped(rest: &str) -> Option<usize> {
    let digits = |from: usize, count: usize, radix: u32| {
        let digits = rest.get(from..from + count)?;
        digits.chars().all(|c| c.is_digit(radix)).then_some(from + count)
    };
    match rest.bytes().next()? {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`' => Some(1),
        b'x' | b'X' => digits(1, 2, 16),
        b'u' => digits(1, 4, 16),
        b'U' => digits(1, 8, 16),
        b'0'..=b'3' => digits(0, 3, 8),
        _ => None,
    }
}

/// Bytes of one expression.
pub(crate) const MAX_SOURCE_BYTES: usize = 4 << 10;
/// Brackets in brackets: the parser needs a dozen of frames for each.
const MAX_BRACKETS: usize = 24;
/// Levels of the tree, counted too high rather than too low.
const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_expressions_are_within_limits() {
        for source in [
            "container.?securityContext.?capabilities.?add.orValue([]).all(c, c in expectation.capabilities)",
            "a ? b : c ? d : e",
            "'(((((' + \"[[[[\" + r'\\' + '''it's''' // ((((\n + b'x'",
            &vec!["c.name == 'x'"; 200].join(" || "),
            &format!("image.registry in [{}]", vec!["'registry.example.com'"; 100].join(", ")),
        ] {
            assert_eq!(check(source), Ok(()), "{source}");
        }
    }

    #[test]
    fn what_nests_too_deeply_is_refused_before_it_is_parsed() {
        for source in [
            "(".repeat(200),
            "[".repeat(30),
            "!".repeat(200),
            "-".repeat(200),
            format!("a{}", ".b".repeat(500)),
            format!("1{}", "+1".repeat(500)),
            "a?b:".repeat(200),
            format!("a{}", "[0]".repeat(500)),
            format!("f{}", "(0)".repeat(500)),
            format!("a{}", " in a".repeat(500)),
        ] {
            let error = check(&source).expect_err(&source).1;
            assert!(error.contains("nests deeper"), "{error}");
        }
        for hidden in ["'", "\"\n", "'\\q", "'\\x0", "`"] {
            assert!(check(&format!("{hidden}{}", "(".repeat(200))).is_err(), "{hidden} is no literal");
        }
        assert!(check("a))").is_err());
        assert!(check(&" ".repeat(5000)).is_err());
    }

    #[test]
    fn positions_are_lines_and_columns() {
        let position = check(&format!("true &&\n  {}", "(".repeat(40))).expect_err("deep").0;
        assert_eq!((position.line, position.column), (2, 26));
    }
}
