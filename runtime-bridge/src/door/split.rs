//! A body as its items: one object, a list of them, or any number of either, one after the other or one a line. Pure.

use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A body's items, and what is none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Split<'a> {
    /// JSON objects, as they were written.
    pub(super) items: Vec<&'a [u8]>,
    /// How many pieces are no JSON objects.
    pub(super) malformed: u64,
    /// The first of these.
    pub(super) samples: Vec<&'a [u8]>,
    /// There are more items than may come at once; the rest was not looked at.
    pub(super) is_too_many: bool,
}

/// Splits a body. Looks at each byte a bounded number of times: what does not read ends the free form, and each line from there on stands
/// for itself.
pub(super) fn split(body: &[u8]) -> Split<'_> {
    let mut split = Split::default();
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
    let rest = loop {
        match values.next() {
            Some(Ok(value)) => split.value(value),
            Some(Err(_)) => break body.get(values.byte_offset()..).unwrap_or_default(),
            None => return split,
        }
    };
    for line in rest.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(value) => split.value(value),
            Err(_) => split.malformed(line),
        }
    }
    split
}

impl<'a> Split<'a> {
    fn value(&mut self, value: &'a RawValue) {
        let text = value.get();
        match text.as_bytes().first() {
            Some(b'{') => self.item(text),
            Some(b'[') => {
                let mut list = serde_json::Deserializer::from_str(text);
                // The text is JSON already; a list that is too long ends early.
                let _ = list.deserialize_seq(List(self));
            }
            _ => self.malformed(text.as_bytes()),
        }
    }

    fn item(&mut self, text: &'a str) {
        match self.items.len() < MAX_ITEMS {
            true => self.items.push(text.as_bytes()),
            false => self.is_too_many = true,
        }
    }

    fn malformed(&mut self, bytes: &'a [u8]) {
        self.malformed += 1;
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push(bytes);
        }
    }
}

struct List<'s, 'a>(&'s mut Split<'a>);

impl<'a> Visitor<'a> for List<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(value) = list.next_element::<&'a RawValue>()? {
            match value.get() {
                text if text.starts_with('{') => self.0.item(text),
                text => self.0.malformed(text.as_bytes()),
            }
            if self.0.is_too_many {
                break;
            }
        }
        Ok(())
    }
}

/// Items of one body.
const MAX_ITEMS: usize = 1 << 16;

const MAX_SAMPLES: usize = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts<'a>(split: &Split<'a>) -> Vec<&'a str> {
        split.items.iter().map(|item| std::str::from_utf8(item).expect("UTF-8")).collect()
    }

    #[test]
    fn all_forms_give_their_objects() {
        for body in [
            "{\"a\":1}\n{\"b\":[{}]}\n",
            "[{\"a\":1}, {\"b\":[{}]}]",
            "{\"a\":1}{\"b\":[{}]}",
            "[{\"a\":1}]\r\n\r\n[{\"b\":[{}]}]",
        ] {
            let split = split(body.as_bytes());
            assert_eq!(texts(&split), ["{\"a\":1}", "{\"b\":[{}]}"], "{body}");
            assert_eq!(split.malformed, 0);
        }
        assert_eq!(texts(&split(b"{\n \"a\": 1\n}")), ["{\n \"a\": 1\n}"]);
        assert_eq!(split(b" \n"), Split::default());
        assert_eq!(split(b"[]"), Split::default());
    }

    #[test]
    fn a_line_that_does_not_read_costs_only_itself() {
        let body = b"{\"a\":1}\n{\"cut\":\"of\n{\"b\":2}\nnot json\n\"text\"\n{\"c\":\xff}\n{\"d\":4}";
        let split = split(body);
        assert_eq!(texts(&split), ["{\"a\":1}", "{\"b\":2}", "{\"d\":4}"]);
        assert_eq!(split.malformed, 4);
        assert_eq!(split.samples, [&b"{\"cut\":\"of"[..], b"not json", b"\"text\""]);
    }

    #[test]
    fn hostile_nesting_and_length_cost_no_more_than_their_bytes() {
        let opened = "[\n".repeat(1 << 20);
        assert_eq!(split(opened.as_bytes()).malformed, 1 << 20);
        let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert_eq!(split(deep.as_bytes()).malformed, 1);
        let long = format!("[{}{{}}]", "{},".repeat(MAX_ITEMS));
        let split = split(long.as_bytes());
        assert!(split.is_too_many && split.items.len() == MAX_ITEMS);
    }

    proptest! {
        #[test]
        fn no_body_breaks_it(body in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b':'), Just(b','), Just(b'\n'), Just(b'1'), any::<u8>()], 0..200)) {
            for item in split(&body).items {
                prop_assert!(serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(item).is_ok());
            }
        }
    }
}
