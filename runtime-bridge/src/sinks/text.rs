//! Words of strangers on their way to people's screens: file names and command lines are chosen by whoever attacks.
//!
//! Nothing that steers a terminal, turns the direction of writing, is markup of a chat or calls people together leaves here as what it is.
//! All lengths are bounded, in bytes.

use std::fmt::Write as _;

use serde::Serialize;

/// One line of text: what steers is written as an escape (`\u{1b}`), and what is longer than `max` bytes ends in `…`.
pub(super) fn plain(text: &str, max: usize) -> String {
    cut(text, max, |letter, out| out.push(letter))
}

/// The same for Slack, which takes `&`, `<` and `>` for markup and `<!channel>` for a call. Source: "Formatting text for app surfaces".
pub(super) fn slack(text: &str, max: usize) -> String {
    cut(&calling_nobody(text), max, |letter, out| match letter {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        _ => out.push(letter),
    })
}

/// The same for a `TextRun` of an adaptive card, which knows no Markdown but replaces `{{DATE(…)}}`; and Teams takes `<at>` for a call.
pub(super) fn teams(text: &str, max: usize) -> String {
    cut(&calling_nobody(text), max, |letter, out| match letter {
        '{' if out.ends_with('{') => out.push_str(" {"),
        '<' => out.push('‹'),
        '>' => out.push('›'),
        _ => out.push(letter),
    })
}

/// A value of structured data. Source: RFC 5424, section 6.3.3.
pub(super) fn syslog(text: &str, max: usize) -> String {
    cut(text, max, |letter, out| {
        if matches!(letter, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(letter);
    })
}

/// JSON in which nothing steers whoever prints it: such letters, which can only stand in strings, are `\u….` there. Nothing is lost.
pub(super) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    if !text.contains(steers) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 64);
    for letter in text.chars() {
        if steers(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                // A `String` takes all that is written.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(letter);
        }
    }
    out
}

fn cut(text: &str, max: usize, push: impl Fn(char, &mut String)) -> String {
    let mut out = String::new();
    // The end of the last letter after which there is room for the sign that there is more: an escape is whole or not there.
    let mut fits = 0;
    for letter in text.chars() {
        match letter {
            '\n' | '\r' | '\t' => out.push(' '),
            _ if steers(letter) => out.extend(letter.escape_unicode()),
            _ => push(letter, &mut out),
        }
        if out.len() > max {
            out.truncate(fits);
            if out.len() + MORE.len_utf8() <= max {
                out.push(MORE);
            }
            break;
        }
        if out.len() + MORE.len_utf8() <= max {
            fits = out.len();
        }
    }
    out
}

/// `@channel` and its like with a sign that looks the same and calls nobody.
fn calling_nobody(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, letter) in text.char_indices() {
        let word = text.get(at + letter.len_utf8()..).unwrap_or_default();
        let calls = |call: &str| word.get(..call.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(call));
        out.push(if letter == '@' && CALLS.iter().any(|call| calls(call)) { '＠' } else { letter });
    }
    out
}

/// Letters that do something to a screen beside being seen on it.
fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

const MORE: char = '…';
const CALLS: [&str; 5] = ["channel", "here", "everyone", "team", "group"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_is_shown() {
        assert_eq!(plain("a\u{1b}[2Jb\u{202e}c\nd\u{9b}", 99), "a\\u{1b}[2Jb\\u{202e}c d\\u{9b}");
        assert_eq!(slack("<!channel> & @Here", 99), "&lt;!channel&gt; &amp; ＠Here");
        assert_eq!(teams("<at>all</at> {{DATE(x)}} a@b.c @everyone", 99), "‹at›all‹/at› { {DATE(x)}} a@b.c ＠everyone");
        assert_eq!(syslog(r#"a"]\"#, 99), r#"a\"\]\\"#);
    }

    #[test]
    fn what_is_cut_says_so_and_keeps_what_fits() {
        assert_eq!(plain("&&&&&&&&", 7), "&&&&…");
        assert_eq!(plain("1234567", 7), "1234567");
        assert_eq!(slack("&&&", 10), "&amp;…");
        assert_eq!(plain("abc", 2), "");
    }

    #[test]
    fn json_says_the_same_and_steers_nothing() {
        let text = "\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\u{e0041}é";
        let json = json(&text);
        assert!(!json.contains(steers) && json.is_char_boundary(1));
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
    }

    proptest! {
        #[test]
        fn nothing_is_longer_than_asked_and_no_escape_is_cut(text in "[&<>\"\\]\\\\a\u{1b}é@{]{0,60}", max in 0_usize..50) {
            for out in [plain(&text, max), slack(&text, max), teams(&text, max), syslog(&text, max)] {
                prop_assert!(out.len() <= max, "{out:?}");
                prop_assert!(!out.contains(steers));
            }
            let out = slack(&text, max);
            let left = out.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "");
            prop_assert!(!left.contains(['&', '<', '>']), "{out:?}");
            // Every quote and bracket stands behind a backslash of its own.
            let mut escaped = false;
            for letter in syslog(&text, max).chars() {
                prop_assert!(escaped || !matches!(letter, '"' | ']'));
                escaped = letter == '\\' && !escaped;
            }
            prop_assert!(!escaped);
        }
    }
}
