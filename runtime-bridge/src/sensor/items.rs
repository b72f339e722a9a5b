//! A body as the items in it: one object, an array, lines of JSON, objects one after the other, a list of Kubernetes.
//!
//! Only brackets, strings and line ends are looked at; what an item says is for its decoder. One pass, no recursion, no copy. A damaged item
//! is told and costs nothing else: reading goes on at the next line that begins with `{`. Inside of a line it never goes on by
//! guess, as what stands in an item was written by whoever is watched.

use super::Malformed;
use crate::limits::{DEPTH, ITEM};

/// The items of a body, in order; `Err` for each piece that is none.
pub fn items(body: &[u8]) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    Items { body, at: 0, place: Place::Top }
}

struct Items<'a> {
    body: &'a [u8],
    at: usize,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    /// In an array that is the body.
    Array,
    /// In the array `items` of an object.
    List,
}

/// Where an object ends.
enum End {
    /// Behind its closing brace.
    Closed(usize),
    /// It is a list; behind the bracket that opens its `items`.
    Opens(usize),
    /// It is none.
    Damaged(&'static str),
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<&'a [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.skip();
            let Some(byte) = self.body.get(self.at) else { return self.ended() };
            match (self.place, byte) {
                (_, b'{') => match end(self.body, self.at, self.place == Place::Top) {
                    End::Closed(end) => {
                        let item = self.body.get(self.at..end).unwrap_or_default();
                        self.at = end;
                        return Some(if item.len() > ITEM {
                            Err(Malformed::new(format!("an item of {} bytes; the limit is {ITEM}", item.len())))
                        } else {
                            Ok(item)
                        });
                    }
                    End::Opens(behind) => {
                        self.at = behind;
                        self.place = Place::List;
                    }
                    End::Damaged(why) => return Some(Err(self.damaged(why))),
                },
                (Place::Top, b'[') => {
                    self.at += 1;
                    self.place = Place::Array;
                }
                (Place::Array, b']') => {
                    self.at += 1;
                    self.place = Place::Top;
                }
                (Place::List, b']') => {
                    self.place = Place::Top;
                    match rest_of_list(self.body, self.at + 1) {
                        End::Closed(end) => self.at = end,
                        _ => return Some(Err(self.damaged("a list that does not end"))),
                    }
                }
                _ => return Some(Err(self.damaged("not an object of JSON"))),
            }
        }
    }
}

impl Items<'_> {
    /// Over what stands between items: white space, commas, and the record separator of RFC 7464.
    fn skip(&mut self) {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let between = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | 0x1e);
        self.at += rest.iter().take_while(|byte| between(byte)).count();
    }

    fn ended<T>(&mut self) -> Option<Result<T, Malformed>> {
        let place = std::mem::replace(&mut self.place, Place::Top);
        (place != Place::Top).then(|| Err(Malformed::new("an array that does not end: the body is cut off")))
    }

    /// Tells of a damaged piece, and goes on at the next line that begins with an object.
    fn damaged(&mut self, why: &'static str) -> Malformed {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let next = rest.windows(2).position(|pair| pair == b"\n{");
        let length = next.unwrap_or(rest.len());
        let piece = format!("{why}: {length} bytes at byte {} of the body", self.at);
        self.at += next.map_or(rest.len(), |next| next + 1);
        self.place = Place::Top;
        Malformed::new(piece)
    }
}

/// The end of the object that begins at `start`; `lists` says whether an array under its key `items` is asked for.
fn end(body: &[u8], start: usize, lists: bool) -> End {
    let mut scan = Scan::new(start);
    while let Some(byte) = body.get(scan.at) {
        match scan.step(body, *byte) {
            Step::On => {}
            Step::Closed => return End::Closed(scan.at),
            Step::Array(key) => {
                if lists && scan.depth == 2 && body.get(key.0..key.1) == Some(b"items") {
                    return End::Opens(scan.at);
                }
            }
            Step::Damaged(why) => return End::Damaged(why),
        }
    }
    End::Damaged("an object that does not end")
}

/// The end of a list, from behind the bracket that closes its `items`.
fn rest_of_list(body: &[u8], start: usize) -> End {
    let mut scan = Scan { at: start, depth: 1, objects: 1, before: b']', text: (0, 0) };
    while let Some(byte) = body.get(scan.at) {
        match scan.step(body, *byte) {
            Step::Closed => return End::Closed(scan.at),
            Step::Damaged(why) => return End::Damaged(why),
            Step::On | Step::Array(_) => {}
        }
    }
    End::Damaged("a list that does not end")
}

struct Scan {
    at: usize,
    depth: u32,
    /// A bit for each level: whether it is an object.
    objects: u64,
    /// The last byte that is no white space.
    before: u8,
    /// Where the last string is, without its quotes.
    text: (usize, usize),
}

enum Step {
    On,
    /// The outermost object is closed.
    Closed,
    /// An array begins, behind the string here.
    Array((usize, usize)),
    Damaged(&'static str),
}

impl Scan {
    fn new(start: usize) -> Self {
        Self { at: start, depth: 0, objects: 0, before: b':', text: (0, 0) }
    }

    fn step(&mut self, body: &[u8], byte: u8) -> Step {
        self.at += 1;
        let step = match byte {
            b'"' => {
                let Some(end) = string_end(body, self.at) else { return Step::Damaged("a string that does not end") };
                self.text = (self.at, end);
                self.at = end + 1;
                Step::On
            }
            b'{' | b'[' => self.open(byte == b'{'),
            b'}' | b']' => self.close(byte == b'}'),
            _ => Step::On,
        };
        if !byte.is_ascii_whitespace() {
            self.before = byte;
        }
        step
    }

    fn open(&mut self, object: bool) -> Step {
        if self.depth >= DEPTH {
            return Step::Damaged("nested too deeply");
        }
        let is_in_object = self.depth == 0 || self.objects & 1 == 1;
        // A value stands behind a colon in an object; so an object that was cut off does not swallow the next line.
        let fits = if is_in_object { self.before == b':' } else { matches!(self.before, b'[' | b',') };
        if !fits {
            return Step::Damaged("an object that is cut off");
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u64::from(object);
        if object { Step::On } else { Step::Array(self.text) }
    }

    fn close(&mut self, object: bool) -> Step {
        if (self.objects & 1 == 1) != object {
            return Step::Damaged("brackets that do not match");
        }
        self.depth -= 1;
        self.objects >>= 1;
        if self.depth == 0 { Step::Closed } else { Step::On }
    }
}

/// The closing quote of the string that begins at `start`. A line does not end in a string.
fn string_end(body: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match body.get(at)? {
            b'"' => return Some(at),
            b'\n' => return None,
            b'\\' if body.get(at + 1) != Some(&b'\n') => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &str) -> Vec<Result<String, String>> {
        items(body.as_bytes())
            .map(|item| item.map(|item| String::from_utf8_lossy(item).into_owned()).map_err(|error| error.to_string()))
            .collect()
    }

    fn good(body: &str) -> Vec<String> {
        read(body).into_iter().filter_map(Result::ok).collect()
    }

    #[test]
    fn every_way_of_writing_several() {
        let both = ["{\"a\":1}", "{\"b\":[{}]}"];
        for body in [
            "{\"a\":1}\n{\"b\":[{}]}\n",
            "{\"a\":1}{\"b\":[{}]}",
            "[{\"a\":1},{\"b\":[{}]}]",
            "\u{feff} [ {\"a\":1} ,\n {\"b\":[{}]} ] ",
            "{\"kind\":\"EventList\",\"metadata\":{},\"items\":[{\"a\":1},{\"b\":[{}]}]}",
            "{\"items\":[{\"a\":1},{\"b\":[{}]}],\"kind\":\"EventList\",\"metadata\":{\"x\":[{}]}}\n",
            "\u{1e}{\"a\":1}\n\u{1e}{\"b\":[{}]}\n",
        ] {
            assert_eq!(good(body), both, "{body}");
            assert_eq!(read(body).len(), 2, "{body}");
        }
        assert!(read("").is_empty());
        assert!(read("[]").is_empty());
        assert!(read("{\"items\":[]}").is_empty());
    }

    #[test]
    fn brackets_in_strings_are_text() {
        assert_eq!(good(r#"{"a":"}\"{[\\"}{"b":"\u007b"}"#), [r#"{"a":"}\"{[\\"}"#, r#"{"b":"\u007b"}"#]);
    }

    #[test]
    fn items_of_something_else_are_no_list() {
        assert_eq!(good("{\"x\":{\"items\":[{}]}}"), ["{\"x\":{\"items\":[{}]}}"]);
        assert_eq!(good("{\"items\":1}"), ["{\"items\":1}"]);
        // Only the body is a list, not what is in one.
        assert_eq!(good("[{\"items\":[{}]}]"), ["{\"items\":[{}]}"]);
    }

    #[test]
    fn a_damaged_line_takes_no_other_with_it() {
        for damaged in
            ["{\"a\":\"cut of", "{\"a\":1", "{\"a\":1,", "{\"a\":{\"b\":2}", "garbage", "{]", "\"text\"", "{\"a\":[1"]
        {
            let body = format!("{{\"n\":1}}\n{damaged}\n{{\"n\":2}}\n{{\"n\":3}}\n");
            assert_eq!(good(&body), ["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"], "{damaged}");
            assert_eq!(read(&body).len(), 4, "{damaged}");
        }
    }

    #[test]
    fn a_value_that_is_no_json_damages_its_item_only() {
        assert_eq!(good("[{\"a\":1},{\"b\":tru},{\"c\":3}]").len(), 3, "the second is for its decoder to refuse");
    }

    #[test]
    fn a_body_that_is_cut_off_says_so() {
        assert_eq!(good("[{\"a\":1},{\"b\":"), ["{\"a\":1}"]);
        assert_eq!(read("[{\"a\":1}").len(), 2);
        assert_eq!(read("{\"items\":[{\"a\":1}").len(), 2);
        assert_eq!(read("{\"items\":[{\"a\":1}]").len(), 2);
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let depth = DEPTH as usize;
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert_eq!(good(&nested(depth)).len(), 1);
        assert_eq!(good(&nested(depth + 1)).len(), 0);
        let long = format!("[{{\"a\":\"{}\"}},{{\"b\":1}}]", "x".repeat(ITEM));
        assert_eq!(good(&long), ["{\"b\":1}"]);
        let is_said = |item: &Result<String, String>| item.as_ref().is_err_and(|error| error.contains("the limit"));
        assert!(read(&long).first().is_some_and(is_said));
    }

    #[test]
    fn what_an_item_holds_is_never_an_item() {
        // Behind damage on one line, nothing is looked for: it may be what an intruder wrote.
        for body in ["[{\"a\":}}, {\"forged\":1}]", "{\"a\":}}{\"forged\":1}\n", "{\"a\":[}, {\"forged\":1}]}"] {
            assert!(good(body).iter().all(|item| !item.contains("forged")), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            let total: usize = items(&body).filter_map(Result::ok).map(<[u8]>::len).sum();
            prop_assert!(total <= body.len());
        }

        #[test]
        fn json_like_bytes_end_without_a_panic(body in "[\\[\\]{}\",:\\\\\n a-c1]{0,256}") {
            for item in items(body.as_bytes()).flatten() {
                let is_object = item.starts_with(b"{") && item.ends_with(b"}");
                prop_assert!(is_object);
            }
        }

        #[test]
        fn whole_lines_are_found_whatever_stands_between(
            lines in proptest::collection::vec(prop_oneof![
                (0..1000u32).prop_map(|n| Ok(format!("{{\"n\":{n}}}"))),
                "[a-z\"\\[,:]{1,20}".prop_map(Err),
            ], 0..20)
        ) {
            let body: String = lines.iter().map(|line| line.clone().unwrap_or_else(|bad| bad) + "\n").collect();
            let expected: Vec<String> = lines.into_iter().flatten().collect();
            prop_assert_eq!(good(&body), expected);
        }
    }
}
