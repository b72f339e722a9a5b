//! The formats, their names, and which of them an object is in.

use std::{fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// A sensor's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// Falco's `http_output`, and Falcosidekick's webhook.
    Falco,
    /// Tetragon's JSON export.
    Tetragon,
    /// Tracee's JSON, of any version since 0.11.
    Tracee,
    /// KubeArmor's logs and alerts.
    KubeArmor,
    /// The gadgets of Inspektor Gadget, `-o json`.
    InspektorGadget,
    /// Audit events of the Kubernetes API server.
    KubernetesAudit,
    /// Mayfly's own: [`dna::Activity`] as JSON.
    Mayfly,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Falco,
        Self::Tetragon,
        Self::Tracee,
        Self::KubeArmor,
        Self::InspektorGadget,
        Self::KubernetesAudit,
        Self::Mayfly,
    ];

    /// Its name, as written in configuration and as [`dna::Activity::sensor`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Falco => "falco",
            Self::Tetragon => "tetragon",
            Self::Tracee => "tracee",
            Self::KubeArmor => "kubearmor",
            Self::InspektorGadget => "inspektor-gadget",
            Self::KubernetesAudit => "kubernetes-audit",
            Self::Mayfly => "mayfly",
        }
    }

    /// Which sensor wrote this, by the top-level keys of its first object: for files, of which nobody said. An array, lines of
    /// JSON and a list of Kubernetes are known by their first item.
    #[must_use]
    pub fn guess(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii_start();
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let text = text.strip_prefix(b"[").unwrap_or(text);
        // What is behind the first object is of no interest.
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        Keys::deserialize(&mut deserializer).ok().and_then(|keys| keys.dialect())
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Self, UnknownDialect> {
        Self::ALL
            .into_iter()
            .find(|dialect| dialect.name() == name)
            .ok_or_else(|| UnknownDialect { name: name.chars().take(64).collect() })
    }
}

/// A name that is none of a sensor's format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no sensor's format is called `{name}`; there are falco, tetragon, tracee, kubearmor, inspektor-gadget, \
     kubernetes-audit and mayfly"
)]
pub struct UnknownDialect {
    name: String,
}

/// Which telling keys an object has.
#[derive(Default)]
struct Keys(u32);

/// Keys that tell, by sensor.
const TELLING: [&str; 26] = [
    "output_fields",
    "rule",
    "priority",
    "process_exec",
    "process_exit",
    "process_kprobe",
    "process_tracepoint",
    "process_lsm",
    "process_loader",
    "process_uprobe",
    "process_usdt",
    "process_throttle",
    "rate_limit_info",
    "eventName",
    "workload",
    "data",
    "name",
    "Operation",
    "HostName",
    "timestamp_raw",
    "runtime",
    "k8s",
    "auditID",
    "items",
    "act",
    "at",
];

impl Keys {
    fn has(&self, key: &str) -> bool {
        TELLING.iter().position(|known| *known == key).is_some_and(|index| self.0 & (1 << index) != 0)
    }

    fn add(&mut self, key: &str) {
        if let Some(index) = TELLING.iter().position(|known| *known == key) {
            self.0 |= 1 << index;
        }
    }

    /// The most telling key first.
    fn dialect(&self) -> Option<Dialect> {
        let tetragon =
            TELLING.iter().any(|key| (key.starts_with("process_") || *key == "rate_limit_info") && self.has(key));
        let dialect = if self.has("output_fields") || (self.has("rule") && self.has("priority")) {
            Dialect::Falco
        } else if tetragon {
            Dialect::Tetragon
        } else if self.has("eventName") || (self.has("name") && (self.has("workload") || self.has("data"))) {
            Dialect::Tracee
        } else if self.has("Operation") && self.has("HostName") {
            Dialect::KubeArmor
        } else if self.has("auditID") || self.has("items") {
            Dialect::KubernetesAudit
        } else if self.has("act") && self.has("at") {
            Dialect::Mayfly
        } else if self.has("timestamp_raw") || (self.has("runtime") && self.has("k8s")) {
            Dialect::InspektorGadget
        } else {
            return None;
        };
        Some(dialect)
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeysVisitor;

        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Keys, A::Error> {
                let mut keys = Keys::default();
                while let Some(key) = entries.next_key::<String>()? {
                    keys.add(&key);
                    entries.next_value::<IgnoredAny>()?;
                }
                Ok(keys)
            }
        }

        deserializer.deserialize_map(KeysVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.to_string().parse(), Ok(dialect));
        }
        let error = "Falco".parse::<Dialect>().expect_err("upper case");
        assert!(error.to_string().contains("`Falco`"), "{error}");
    }

    #[test]
    fn the_error_names_every_format() {
        let error = "x".parse::<Dialect>().expect_err("no name").to_string();
        assert!(Dialect::ALL.iter().all(|dialect| error.contains(dialect.name())), "{error}");
    }

    #[test]
    fn a_list_and_an_array_are_known_by_what_is_in_them() {
        assert_eq!(Dialect::guess(br#"{"kind":"EventList","items":[]}"#), Some(Dialect::KubernetesAudit));
        assert_eq!(Dialect::guess(br#" [{"output_fields":{}}]"#), Some(Dialect::Falco));
        assert_eq!(Dialect::guess(b"{\"process_exec\":{}}\n{\"process_exit\":{}}\n"), Some(Dialect::Tetragon));
        for nothing in [&b""[..], b"[", b"1", b"{}", b"{\"a\":1}", b"\xff"] {
            assert_eq!(Dialect::guess(nothing), None);
        }
    }
}
