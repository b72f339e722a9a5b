//! Script text to syntax tree, with bounds: what `brush-parser` is never shown is text that is too long or nested too deep for
//! a recursive parser.

use brush_parser::{ParserOptions, ast, word};

/// Bytes of one script; generated ones of a megabyte are data, not programs.
const MAX_BYTES: usize = 512 << 10;
/// Nesting of brackets and quotes; the parser needs some kilobytes of stack for each, and backtracks.
const MAX_DEPTH: usize = 24;

/// Parses a script.
///
/// # Errors
/// Why it cannot be parsed, with the line where the parser knows it.
pub(super) fn parse(text: &str) -> Result<ast::Program, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("the script is larger than {MAX_BYTES} bytes"));
    }
    if depth(text) > MAX_DEPTH {
        return Err(format!("the script nests deeper than {MAX_DEPTH} levels"));
    }
    let tokens = brush_parser::uncached_tokenize_str(text, &options().tokenizer_options())
        .map_err(|error| format!("the shell parser does not take it: {error}"))?;
    brush_parser::parse_tokens(&tokens, &options())
        .map_err(|error| format!("the shell parser does not take it: {error}"))
}

/// Parses one word into what it is made of; an unreadable one is text.
pub(super) fn pieces(text: &str) -> Vec<word::WordPieceWithSource> {
    if depth(text) > MAX_DEPTH {
        return Vec::new();
    }
    word::parse(text, &options()).unwrap_or_default()
}

fn options() -> ParserOptions {
    ParserOptions::default()
}

/// An upper bound for the nesting of a script: brackets open at once.
fn depth(text: &str) -> usize {
    let (mut open, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'{' | b'[' => {
                open += 1;
                deepest = deepest.max(open);
            }
            b')' | b'}' | b']' => open = open.saturating_sub(1),
            // Unbalanced brackets in one command (`case` patterns, quoted text) do not add up.
            b'\n' if open <= 4 => open = 0,
            _ => {}
        }
    }
    deepest
}
