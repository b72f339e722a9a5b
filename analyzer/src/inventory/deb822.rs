//! Stanzas of `Field: value` lines: bytes in, borrowed fields out. Source: deb822(5), section "Syntax"; Python's core metadata
//! and Java's manifests are near enough to be read with it. Lines that are no field are passed over.

/// One stanza: its fields in order, values with their continuation lines as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stanza<'a> {
    fields: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Stanza<'a> {
    /// The first value of the field called `name`, in any case of letters.
    pub(super) fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Every value of the field called `name`.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| *value)
    }

    /// Every field, in order.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.fields.iter().copied()
    }

    /// The first value of a field as text; bytes that are not UTF-8 become U+FFFD.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| String::from_utf8_lossy(value).into_owned()).filter(|text| !text.is_empty())
    }
}

/// The stanzas of `bytes`, separated by empty lines.
pub(super) fn stanzas(bytes: &[u8]) -> impl Iterator<Item = Stanza<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let mut stanza = Stanza::default();
        while !rest.is_empty() {
            let (line, after) = split_line(rest);
            if line.trim_ascii().is_empty() {
                rest = after;
                if stanza.fields.is_empty() {
                    continue;
                }
                break;
            }
            // The field reaches to the first line that does not begin with a blank.
            let mut end = rest.len() - after.len();
            let mut next = after;
            while matches!(next.first(), Some(b' ' | b'\t')) && !split_line(next).0.trim_ascii().is_empty() {
                next = split_line(next).1;
                end = rest.len() - next.len();
            }
            let field = rest.get(..end).unwrap_or_default();
            rest = next;
            if let Some(colon) = memchr::memchr(b':', line)
                && let Some((name, value)) = field.split_at_checked(colon)
            {
                stanza.fields.push((name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii()));
            }
        }
        (!stanza.fields.is_empty()).then_some(stanza)
    })
}

fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    (bytes.get(..end).unwrap_or_default(), bytes.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_end_at_empty_lines_and_values_continue() {
        let text = b"\n\nPackage: a\nDescription: x\n  y\n .\nVersion: 1\n\n \nnonsense\npackage:b";
        let found: Vec<_> = stanzas(text).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found.first().and_then(|s| s.get("description")), Some(&b"x\n  y\n ."[..]));
        assert_eq!(found.first().and_then(|s| s.text("Version")).as_deref(), Some("1"));
        assert_eq!(found.get(1).and_then(|s| s.text("Package")).as_deref(), Some("b"));
    }
}
