//! Text from an image on a terminal: it is data, and must not steer the terminal. Bytes in, harmless text out.

use std::borrow::Cow;

/// `text` with control characters, and those that reorder text, made visible.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hostile(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// `text`, cleaned, cut to `width` characters with an ellipsis where it is longer.
pub(crate) fn fit(text: &str, width: usize) -> String {
    let text = clean(text);
    if text.chars().count() <= width {
        return text.into_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Bytes as people count them.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut unit = "B";
    let mut tenths = bytes.saturating_mul(10);
    for next in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
}

fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_made_visible() {
        assert_eq!(clean("a\u{1b}[31mb\r\nc\u{202e}d"), "a\\u{1b}[31mb\\u{d}\\u{a}c\\u{202e}d");
        assert_eq!(clean("grün"), "grün");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!((fit("abcdef", 4).as_str(), fit("abcd", 4).as_str()), ("abc…", "abcd"));
    }

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        assert_eq!(
            [size(0), size(1023), size(1024), size(1_600_000), size(1 << 60)],
            ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "1048576.0 TiB"]
        );
    }
}
