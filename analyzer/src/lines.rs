//! Texts of a program that read as command lines of a shell: a text in, the program it would run out. Whether the image has such a
//! program is asked elsewhere.
//!
//! A program holds many sentences, and words such as `time`, `find`, `more` and `test` begin both. A line is told from a sentence by
//! its first argument, an option - or after an absolute path anything but a plain word -, and by what sentences have and lines do not: several plain words in a row, marks at a word's end,
//! the brackets of a usage text.

use crate::shell::NOT_KNOWN;

/// The program that a text runs where it is a command line: the first word after `exec` and variables set for the command.
pub(crate) fn program(text: &str) -> Option<&str> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~' | b'\t');
    if !(SHORTEST..=LONGEST).contains(&text.len()) || !text.bytes().all(is_plain) || text.starts_with([' ', '\t']) {
        return None;
    }
    let mut words = text.split_ascii_whitespace().peekable();
    words.next_if_eq(&"exec");
    while words.next_if(|word| is_assignment(word)).is_some() {}
    let program = words.next().filter(|word| is_program(word))?;
    let arguments: Vec<&str> = words.collect();
    let is_told = |word: &&str| is_option(word) || program.starts_with('/') && word.starts_with(TOLD);
    let is_line = arguments.first().is_some_and(is_told)
        && !arguments.iter().any(|word| is_of_sentence(word))
        && !arguments.windows(SENTENCE).any(|row| row.iter().all(|word| is_plain_word(word)))
        && is_quoted_evenly(text);
    is_line.then_some(program)
}

/// A format as a line: each conversion is a word, or a part of one, that is not known.
pub(crate) fn of_format(format: &str) -> String {
    let mut rest = format.chars().peekable();
    let next = || {
        let c = rest.next()?;
        if c != '%' || rest.next_if_eq(&'%').is_some() {
            return Some(Some(c));
        }
        while rest.next_if(|c| !c.is_ascii_alphabetic() || matches!(c, 'l' | 'h' | 'z' | 'j' | 't' | 'L')).is_some() {}
        rest.next();
        Some(None)
    };
    line(std::iter::from_fn(next))
}

/// A pattern as a line: `*` stands for what is not known.
pub(crate) fn of_pattern(pattern: &str) -> String {
    line(pattern.chars().map(|c| Some(c).filter(|c| *c != '*')))
}

/// A line of characters, none where one is not known. Quotes around are closed for the variable that stands there, and opened again.
fn line(parts: impl Iterator<Item = Option<char>>) -> String {
    let mut out = String::new();
    let mut quote: Option<char> = None;
    for part in parts {
        match (part, quote) {
            (Some(c), _) => {
                out.push(c);
                quote = match quote {
                    None if matches!(c, '\'' | '"') => Some(c),
                    Some(open) if open == c => None,
                    known => known,
                };
            }
            (None, Some('\'')) => out.push_str(&format!("'\"${{{NOT_KNOWN}}}\"'")),
            (None, Some(_)) => out.push_str(&format!("${{{NOT_KNOWN}}}")),
            (None, None) => out.push_str(&format!("\"${{{NOT_KNOWN}}}\"")),
        }
    }
    out
}

fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(is_first) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A name or an absolute path.
fn is_program(word: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-@[".contains(&byte);
    let is_path = word.starts_with('/') && !word.ends_with('/');
    (is_path || word.starts_with(|c: char| c.is_ascii_alphanumeric()) && !word.contains('/'))
        && word.bytes().all(is_part)
        && !word.ends_with('.')
}

/// `-g`, `--quiet`, `-Wl,-x`; no dash of a sentence, and no two of them.
fn is_option(word: &str) -> bool {
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or_default();
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// What stands in sentences and usage texts: a mark at a word's end, a placeholder, a choice.
fn is_of_sentence(word: &str) -> bool {
    let is_marked = word.ends_with([',', ':', '!', '?']) || word.ends_with('.') && !word.ends_with("/.") && word != ".";
    let is_placeholder = word.starts_with('<') && word.len() > 1 && word.ends_with('>');
    is_marked
        || is_placeholder
        || word.starts_with(['[', '(']) && word != "["
        || word.contains("|-")
        || word.contains("...")
}

fn is_plain_word(word: &str) -> bool {
    word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_alphabetic())
}

fn is_quoted_evenly(text: &str) -> bool {
    let mut quote: Option<char> = None;
    for c in text.chars().filter(|c| matches!(c, '\'' | '"')) {
        quote = match quote {
            None => Some(c),
            Some(open) if open == c => None,
            known => known,
        };
    }
    quote.is_none()
}

/// What an argument begins with that is no plain word: a conversion, a path, a quote, a variable.
const TOLD: [char; 6] = ['%', '/', '.', '\'', '"', '$'];
/// `ls -l`.
const SHORTEST: usize = 5;
/// Longer texts are scripts or help.
const LONGEST: usize = 1_024;
/// Plain words in a row that make a sentence.
const SENTENCE: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_known_by_its_options() {
        assert_eq!(program("exec cc -g -O2 -Wl,-x -fpic -shared -o %o %s"), Some("cc"));
        assert_eq!(program("exec x86_64-linux-gnu-gcc -g -O2 %w -o %o %s"), Some("x86_64-linux-gnu-gcc"));
        assert_eq!(program("LC_ALL=C sort -u -k 2"), Some("sort"));
        assert_eq!(program("/usr/sbin/sendmail -t -i"), Some("/usr/sbin/sendmail"));
        assert_eq!(program("gzip -dc '%s' > %s"), Some("gzip"));
        assert_eq!(program("ps -A -o pid,comm | grep -c '%s'"), Some("ps"));
        assert_eq!(program("/bin/cp '%s' %s"), Some("/bin/cp"));
        assert_eq!(program("mount -t tmpfs none %s"), Some("mount"));
    }

    #[test]
    fn sentences_and_usage_texts_are_none() {
        for text in [
            "time out",
            "more than",
            "find no file",
            "test failed",
            "exec format error",
            "exec failed: %s",
            "test -f is not supported here",
            "install -d: no such folder",
            "sort -u or -c, not both",
            "file -f required.",
            "date - the day of today",
            "make -- what you want",
            "tar -x [file]",
            "cut -d|-f list",
            "kill -s <signal> <pid>",
            "echo -n don't",
            "  ls -l",
            "%s -x -y",
            "a/b -c",
            "/usr/sbin/daemon failed: %s",
            "/usr/sbin/daemon is gone",
            "ls",
        ] {
            assert_eq!(program(text), None, "{text}");
        }
    }

    #[test]
    fn what_a_format_fills_in_is_not_known() {
        assert_eq!(of_format("cc -o %o '%s.c' 100%%"), "cc -o \"${_not_known}\" ''\"${_not_known}\"'.c' 100%");
        assert_eq!(of_format("rm -f \"%s\"/x"), "rm -f \"${_not_known}\"/x");
        assert_eq!(of_pattern("rm -rf *"), "rm -rf \"${_not_known}\"");
    }
}
