//! Script text to syntax tree, with bounds: what `brush-parser` is never shown is text that is too long or nested too deep for
//! a recursive parser.

use std::{
    cell::Cell,
    panic::{self, UnwindSafe},
    sync::Once,
};

use brush_parser::{ParserOptions, ast, word};

/// Bytes of one script; generated ones of a megabyte are data, not programs.
const MAX_BYTES: usize = 512 << 10;
/// Nesting of brackets: the parser backtracks on them, twice as long for each level.
const MAX_DEPTH: usize = 12;
/// Nesting of `case`, for the same reason.
const MAX_CASES: usize = 8;
/// Compound commands open at once. The parser and the walk recurse into each; [`with_stack`] holds this many.
const MAX_OPEN_COMMANDS: usize = 200;
/// Stack for recursion over a script: only what is used takes memory.
const STACK_BYTES: usize = 512 << 20;

/// Runs `work` on a thread whose stack bears the deepest script that [`parse`] lets through.
pub(crate) fn with_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let joined = worker.expect("a thread can be started").join();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Parses a script.
///
/// # Errors
/// Why it cannot be parsed, with the line where the parser knows it.
pub(super) fn parse(text: &str) -> Result<ast::Program, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("the script is larger than {MAX_BYTES} bytes"));
    }
    if depth(text) > MAX_DEPTH || open_commands(text) > MAX_OPEN_COMMANDS {
        return Err("the script nests too deep".to_owned());
    }
    contained(|| {
        let tokens = brush_parser::uncached_tokenize_str(text, &options().tokenizer_options())
            .map_err(|error| format!("the shell parser does not take it: {error}"))?;
        brush_parser::parse_tokens(&tokens, &options())
            .map_err(|error| format!("the shell parser does not take it: {error}"))
    })
    .unwrap_or_else(|| Err("the shell parser fails on it".to_owned()))
}

/// Parses one word into what it is made of; an unreadable one is text.
pub(super) fn pieces(text: &str) -> Vec<word::WordPieceWithSource> {
    if depth(text) > MAX_DEPTH {
        return Vec::new();
    }
    contained(|| word::parse(text, &options()).unwrap_or_default()).unwrap_or_default()
}

/// What `parse` gives; none where the parser panics, as it does on some texts that end within a word. The panic is then no
/// news to anyone: it is not printed.
fn contained<T>(parse: impl FnOnce() -> T + UnwindSafe) -> Option<T> {
    thread_local!(static CONTAINED: Cell<bool> = const { Cell::new(false) });
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !CONTAINED.get() {
                print(panic);
            }
        }));
    });
    CONTAINED.set(true);
    let parsed = panic::catch_unwind(parse);
    CONTAINED.set(false);
    parsed.ok()
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

/// An upper bound for the compound commands open at once: their first words where a command may start, less their last words.
fn open_commands(text: &str) -> usize {
    let (mut open, mut deepest, mut starts, mut cases) = (0usize, 0, true, 0usize);
    for part in text.split_inclusive(ENDS) {
        let word = part.strip_suffix(ENDS).unwrap_or(part);
        let end = part.get(word.len()..).unwrap_or_default();
        if starts {
            match word {
                "if" | "while" | "until" | "for" | "case" | "select" | "function" | "!" | "time" | "coproc" | "[[" => {
                    open += 1;
                    cases += usize::from(word == "case");
                    // One `case` too many counts as too deep.
                    deepest = deepest.max(if cases > MAX_CASES { usize::MAX } else { open });
                }
                "esac" => {
                    open = open.saturating_sub(1);
                    cases = cases.saturating_sub(1);
                }
                "fi" | "done" => open = open.saturating_sub(1),
                _ => {}
            }
        }
        // A backquote or a line of operators opens nothing the brackets do not count, but recurses all the same.
        starts = match (word, end) {
            ("" | "if" | "then" | "else" | "elif" | "while" | "until" | "do" | "{" | "!" | "time", " " | "\t") => {
                starts || !word.is_empty()
            }
            (_, " " | "\t") => false,
            _ => true,
        };
    }
    deepest
}

/// What ends a word, for [`open_commands`].
const ENDS: [char; 10] = [' ', '\t', '\n', ';', '&', '|', '(', ')', '`', '"'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_the_parser_panics_on_is_an_error() {
        let text = include_str!("../../../fuzz/corpus/shell/unended-word");
        assert_eq!(parse(text).expect_err("it panics"), "the shell parser fails on it");
        assert!(parse("echo further").is_ok());
    }
}
