//! A body as its items: one object, a list of them, or any number of either, one after the other or one a line; of the API server, which
//! sends many events as one object, its lists too. Pure.

use serde::{
    Deserialize,
    de::{Deserializer as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::Dialect;

/// A body's items, and what is none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Split<'a> {
    /// JSON objects, as they were written; of an object a line, what begins and ends like one.
    pub items: Vec<&'a [u8]>,
    /// How many pieces are no JSON objects.
    pub malformed: u64,
    /// The first of these.
    pub samples: Vec<&'a [u8]>,
    /// There are more items than may come at once; the rest was not looked at.
    pub is_too_many: bool,
    has_lists: bool,
}

/// A list of Kubernetes, `EventList`.
#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    items: &'a RawValue,
}

/// Splits a body of a sensor. Looks at each byte a bounded number of times: what does not read ends the free form, and each line from there on stands
/// for itself.
///
/// An object a line, the form that sensors write, is not read to be split: whoever judges it reads it, and says what does not read.
pub fn split(dialect: Dialect, body: &[u8]) -> Split<'_> {
    let has_lists = dialect == Dialect::KubernetesAudit;
    if !has_lists && let Some(split) = Split::of_lines(body) {
        return split;
    }
    let mut split = Split { has_lists, ..Split::default() };
    // All of it is looked at for being UTF-8 at once, which takes less time than one string after the other.
    let end = match std::str::from_utf8(body) {
        Ok(text) => split.values(serde_json::Deserializer::from_str(text)),
        Err(_) => split.values(serde_json::Deserializer::from_slice(body)),
    };
    let rest = end.and_then(|end| body.get(end..)).unwrap_or_default();
    for line in rest.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(value) => split.value(value),
            Err(_) => split.malformed(line),
        }
    }
    split
}

impl<'a> Split<'a> {
    /// An object in each line; none where the body has any other form. Out of its strings no JSON value has a `}` and, but for space, a `{`
    /// after it, so that lines which begin and end with braces, and have no such pair within, are one object each, or none that reads.
    fn of_lines(body: &'a [u8]) -> Option<Self> {
        let mut split = Self::default();
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', body).chain([body.len()]) {
            let line = body.get(begin..end)?.trim_ascii();
            begin = end + 1;
            match (line.first(), line.last()) {
                (None, _) => {}
                (Some(b'{'), Some(b'}')) if line.len() > 1 && !has_two(line) => split.item(line),
                _ => return None,
            }
            if split.is_too_many {
                break;
            }
        }
        Some(split)
    }

    /// Values one after the other; where one does not read, its place.
    fn values<R: serde_json::de::Read<'a>>(&mut self, values: serde_json::Deserializer<R>) -> Option<usize> {
        let mut values = values.into_iter::<&'a RawValue>();
        loop {
            match values.next() {
                Some(Ok(value)) => self.value(value),
                Some(Err(_)) => return Some(values.byte_offset()),
                None => return None,
            }
        }
    }

    fn value(&mut self, value: &'a RawValue) {
        let text = value.get();
        match text.as_bytes().first() {
            Some(b'{') => match self.has_lists.then(|| serde_json::from_str::<Listed<'a>>(text)) {
                Some(Ok(Listed { items })) if items.get().starts_with('[') => self.list(items),
                _ => self.item(text.as_bytes()),
            },
            Some(b'[') => self.list(value),
            _ => self.malformed(text.as_bytes()),
        }
    }

    fn list(&mut self, list: &'a RawValue) {
        let mut list = serde_json::Deserializer::from_str(list.get());
        // The text is JSON already; a list that is too long ends early.
        let _ = list.deserialize_seq(List(self));
    }

    fn item(&mut self, bytes: &'a [u8]) {
        match self.items.len() < MAX_ITEMS {
            true => self.items.push(bytes),
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

/// Whether a second object may begin in a line.
fn has_two(line: &[u8]) -> bool {
    let before = |at: usize| line.get(..at).and_then(|before| before.trim_ascii_end().last());
    memchr::memchr_iter(b'{', line).any(|at| before(at) == Some(&b'}'))
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
                text if text.starts_with('{') => self.0.item(text.as_bytes()),
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

    fn split(body: &[u8]) -> Split<'_> {
        super::split(Dialect::Falco, body)
    }

    fn texts<'a>(split: &Split<'a>) -> Vec<&'a str> {
        split.items.iter().map(|item| std::str::from_utf8(item).expect("UTF-8")).collect()
    }

    #[test]
    fn all_forms_give_their_objects() {
        for body in [
            "{\"a\":1}\n{\"b\":[{}]}\n",
            "[{\"a\":1}, {\"b\":[{}]}]",
            "{\"a\":1}{\"b\":[{}]}",
            "{\"a\":1} {\"b\":[{}]}\n",
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
    fn a_line_that_ends_like_an_object_is_read_by_whoever_judges_it() {
        let body = b"{\"a\":1}\n{\"c\":\xff}\n\n {\"not\" json}\r\n";
        assert_eq!(split(body).items, [&b"{\"a\":1}"[..], b"{\"c\":\xff}", b"{\"not\" json}"]);
    }

    #[test]
    fn a_list_of_the_api_server_is_its_events() {
        let list =
            |items: &str| format!("{{\"kind\":\"EventList\",\"items\":{items},\"metadata\":{{\"items\":[{{}}]}}}}");
        let audit = |body: &str| {
            let split = super::split(Dialect::KubernetesAudit, body.as_bytes());
            (texts(&split).into_iter().map(str::to_owned).collect::<Vec<_>>(), split.malformed)
        };
        let both = list("[{\"a\":1},{\"items\":[{}]}]");
        assert_eq!(audit(&both), (vec!["{\"a\":1}".to_owned(), "{\"items\":[{}]}".to_owned()], 0));
        assert_eq!(audit(&format!("{both}\n{{\"a\":2}}")).0.len(), 3);
        assert_eq!(audit(&list("[]")), (Vec::new(), 0));
        assert_eq!(audit(&list("[1,{}]")), (vec!["{}".to_owned()], 1));
        assert_eq!(audit(&list("1")).0, [list("1")]);
        assert_eq!(texts(&split(both.as_bytes())), [&both], "of other sensors it is one event");
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

    /// Any object.
    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf =
            prop_oneof![any::<i32>().prop_map(Into::into), "[\\{\\}\n\"]{0,3}".prop_map(serde_json::Value::from)];
        let inner = leaf.prop_recursive(4, 16, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
                proptest::collection::btree_map("[\\{\\}\n]{0,2}", inner, 0..3)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        });
        proptest::collection::btree_map("[a-c]", inner, 0..3)
            .prop_map(|map| serde_json::Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn no_body_breaks_it(body in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b':'), Just(b','), Just(b'\n'), Just(b'1'), any::<u8>()], 0..200)) {
            for item in split(&body).items {
                let (first, last) = (item.first(), item.last());
                prop_assert_eq!((first, last), (Some(&b'{'), Some(&b'}')));
            }
        }

        #[test]
        fn lines_are_what_a_reader_of_json_finds(values in proptest::collection::vec(value(), 0..5), ends in proptest::collection::vec(prop_oneof![Just(""), Just(" "), Just("\n"), Just("\r\n"), Just("\n \n")], 5), is_wide in any::<bool>()) {
            let body: String = values.iter().zip(ends).map(|(value, end)| {
                let text = if is_wide { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
                text.expect("JSON") + end
            }).collect();
            let found: Vec<serde_json::Value> = split(body.as_bytes()).items.into_iter().map(|item| serde_json::from_slice(item).expect("JSON")).collect();
            prop_assert_eq!(found, values);
        }
    }
}
