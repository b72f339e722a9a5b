//! What makes two items the same: senders repeat themselves, and one event may come by two ways.
//!
//! | dialect | key | why |
//! | --- | --- | --- |
//! | Falco | `time`, `rule`, `hostname`, `container.id`, `evt.num` | Falcosidekick writes the same event anew: it cuts texts, adds fields and writes the time shorter; none of these change |
//! | Tetragon | kind, function, `exec_id`, `time` | the file and the stream hold one event with other fields, by their filters |
//! | Kubernetes | `auditID`, and whether it is answered | the API server sends a batch again after any error. A call that lasts is told of when it begins and when it ends (`ResponseStarted`, `ResponseComplete`): one call |
//! | others | all of it, whatever the order of keys | they name nothing of their own that is unique; Go writes maps in any order |

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::Value;

use super::{Dialect, falco, lenient::Text, tetragon};

/// The name of an event: equal for two items that tell of one. The first half of a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u128);

impl Key {
    /// The name of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let sum = digest(&SHA256, bytes);
        let half = sum.as_ref().first_chunk().copied().unwrap_or_default();
        Self(u128::from_be_bytes(half))
    }

    /// As a number.
    #[must_use]
    pub const fn number(self) -> u128 {
        self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// The key of an item. An item that does not decode has one too.
#[must_use]
pub fn key(dialect: Dialect, item: &[u8]) -> Key {
    match dialect {
        Dialect::Falco => falco::identity(item),
        Dialect::Tetragon => tetragon::identity(item).map(|parts| of_parts(dialect, &parts)),
        Dialect::KubernetesAudit => audit(item).map(|parts| of_parts(dialect, &parts)),
        _ => None,
    }
    .unwrap_or_else(|| {
        let mut hashed = Vec::with_capacity(item.len());
        part(&mut hashed, dialect.name().as_bytes());
        // serde_json nests 128 levels at most, so this does not recurse on what is outside.
        match serde_json::from_slice::<Value>(item) {
            Ok(value) => canonical(&value, &mut hashed),
            Err(_) => part(&mut hashed, item),
        }
        Key::of(&hashed)
    })
}

/// The key of an item that these parts name.
pub(crate) fn of_parts(dialect: Dialect, parts: &[impl AsRef<[u8]>]) -> Key {
    let mut hashed = Vec::with_capacity(256);
    part(&mut hashed, dialect.name().as_bytes());
    parts.iter().for_each(|text| part(&mut hashed, text.as_ref()));
    Key::of(&hashed)
}

/// Length first, so that no two lists of parts have the same bytes.
fn part(hashed: &mut Vec<u8>, bytes: &[u8]) {
    hashed.extend_from_slice(&bytes.len().to_le_bytes());
    hashed.extend_from_slice(bytes);
}

/// A name made of texts: 16 hexadecimal digits, the same for the same texts.
pub(crate) fn name_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hashed = Vec::new();
    texts.into_iter().for_each(|text| part(&mut hashed, text.as_bytes()));
    dna::Digest::sha256(&hashed).hex().chars().take(16).collect()
}

/// A value with its keys in order. Numbers stay as written: RFC 8785 would round nanoseconds.
fn canonical(value: &Value, hashed: &mut Vec<u8>) {
    match value {
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            hashed.push(b'{');
            for (key, value) in entries {
                part(hashed, key.as_bytes());
                canonical(value, hashed);
            }
            hashed.push(b'}');
        }
        Value::Array(values) => {
            hashed.push(b'[');
            values.iter().for_each(|value| canonical(value, hashed));
            hashed.push(b']');
        }
        Value::String(text) => {
            hashed.push(b'"');
            part(hashed, text.as_bytes());
        }
        Value::Number(number) => {
            hashed.push(b'#');
            part(hashed, number.to_string().as_bytes());
        }
        Value::Bool(true) => hashed.push(b't'),
        Value::Bool(false) => hashed.push(b'f'),
        Value::Null => hashed.push(b'n'),
    }
}

fn audit(item: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow, rename = "auditID")]
        id: Text<'a>,
        #[serde(borrow)]
        stage: Text<'a>,
    }
    let event: Event<'_> = serde_json::from_slice(item).ok()?;
    let stage = match event.stage.as_deref()? {
        "ResponseStarted" | "ResponseComplete" => "Response",
        stage => stage,
    };
    Some(vec![event.id.owned()?, stage.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falco_and_falcosidekick_tell_of_one_event() {
        let falco = br#"{"hostname":"n","output":"x","priority":"Notice","rule":"r","source":"syscall","time":"2026-01-02T03:04:05.120000000Z","output_fields":{"container.id":"ee97d9c4186f","proc.cmdline":"sh -c long"}}"#;
        let sidekick = br#"{"uuid":"1","output":"x","priority":"Notice","rule":"r","time":"2026-01-02T03:04:05.12Z","source":"syscall","output_fields":{"cluster":"c","container.id":"ee97d9c4186f","proc.cmdline":"sh -c [...]"},"hostname":"n","tags":[]}"#;
        assert_eq!(key(Dialect::Falco, falco), key(Dialect::Falco, sidekick));
        let other = String::from_utf8_lossy(falco).replace("05.12", "05.13");
        assert_ne!(key(Dialect::Falco, falco), key(Dialect::Falco, other.as_bytes()));
    }

    #[test]
    fn a_call_is_one_from_its_beginning_to_its_end() {
        let at = |stage: &str| {
            let event = format!(r#"{{"auditID":"a","stage":"{stage}"}}"#);
            key(Dialect::KubernetesAudit, event.as_bytes())
        };
        assert_eq!(at("ResponseStarted"), at("ResponseComplete"));
        assert_ne!(at("RequestReceived"), at("ResponseComplete"));
    }

    #[test]
    fn the_order_of_keys_is_nothing_and_nanoseconds_are_something() {
        let one = key(Dialect::Tracee, br#"{"timestamp":1677676197900822209,"name":"x","labels":{"a":"1","b":"2"}}"#);
        let same =
            key(Dialect::Tracee, br#"{ "labels":{"b":"2","a":"1"},"name":"x", "timestamp":1677676197900822209}"#);
        let next = key(Dialect::Tracee, br#"{"timestamp":1677676197900822210,"name":"x","labels":{"a":"1","b":"2"}}"#);
        assert_eq!(one, same);
        assert_ne!(one, next);
    }

    #[test]
    fn what_is_no_json_has_a_key_and_dialects_are_apart() {
        assert_ne!(key(Dialect::Mayfly, b"\xff"), key(Dialect::Mayfly, b"\xfe"));
        assert_ne!(key(Dialect::Mayfly, b"{}"), key(Dialect::Tracee, b"{}"));
        assert_ne!(key(Dialect::Mayfly, br#"{"a":"1"}"#), key(Dialect::Mayfly, br#"{"a":1}"#));
    }
}
