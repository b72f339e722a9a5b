//! From the rules of other products to ours: objects in, objects and what could not be carried over out. No I/O.
//!
//! ```text
//! ClusterImagePolicy, TrustRoot        policy_controller ┐
//! ClusterPolicy, Policy: verifyImages  kyverno           ├─► ImageRule, ClusterImageRule, SignerTrust
//! ImageValidatingPolicy                image_validating  ┘   and notes: path, effect, why, what to write instead
//! ```
//!
//! Nothing is dropped silently. A reader takes fields out of an object one by one, and what is left at the end is told. Each note says
//! what comes of it:
//!
//! - [`Effect::Same`]: the rule decides the same without it;
//! - [`Effect::Stricter`]: the rule is about more, or asks for more. Where we may choose, we choose this;
//! - [`Effect::Weaker`]: a check is missing. What could be carried over still denies, since to only audit it would weaken the rule
//!   further; and a validation `not-carried-over`, which never holds, warns of it at every review until somebody has written what
//!   is missing and taken it out.

mod cel;
mod fields;
mod image_validating;
mod images;
mod kyverno;
mod kyverno_match;
mod policy_controller;
mod rule;
mod trust_root;

use serde::Serialize;
use serde_json::{Map, Value};

use fields::{Fields, Notes};

/// What comes of something that is not carried over as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// A check is missing.
    Weaker,
    /// It is about more, or asks for more.
    Stricter,
    /// It decides the same.
    Same,
}

/// Something that is not carried over as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// Where the object was read.
    pub file: String,
    /// Kind and name.
    pub object: String,
    /// What comes of it.
    pub effect: Effect,
    /// The field, joined by dots.
    pub path: String,
    /// Why.
    pub why: String,
    /// What to write or do instead; empty where nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instead: String,
}

/// An object of ours.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Made {
    /// Where what it was made of was read.
    pub file: String,
    /// Kind and name of what it was made of.
    pub from: String,
    /// The object.
    pub object: Value,
}

/// What came of a conversion.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Converted {
    /// Objects of ours; together they load.
    pub made: Vec<Made>,
    /// What is not carried over as it is, in the order it was found.
    pub notes: Vec<Note>,
    /// How many policies were read.
    pub policies: usize,
}

impl Converted {
    /// Whether some check is missing.
    #[must_use]
    pub fn is_weaker(&self) -> bool {
        self.notes.iter().any(|note| note.effect == Effect::Weaker)
    }

    /// The objects as one YAML text; above each what it is made of, and what is missing in it.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut text = String::new();
        for made in &self.made {
            if !text.is_empty() {
                text.push_str("---\n");
            }
            let about = format!("# From {}", made.from);
            text.push_str(&comment(&about));
            let of = |note: &&Note| note.file == made.file && note.object == made.from && note.effect == Effect::Weaker;
            for note in self.notes.iter().filter(of) {
                text.push_str(&comment(&format!("# Not carried over: {}: {}", note.path, note.why)));
            }
            text.push_str(&serde_yaml_ng::to_string(&made.object).unwrap_or_default());
        }
        text
    }
}

/// One line of comment, whatever the text holds.
fn comment(text: &str) -> String {
    format!("{}\n", crate::decision::cut(&text.replace('\n', " "), 400))
}

/// Converts objects, each with the name of the file it was read from.
#[must_use]
pub fn convert(objects: &[(String, Value)]) -> Converted {
    let mut converted = Converted::default();
    let roots = trust_root::names(objects);
    for (file, object) in objects {
        let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let (group, _) = version.split_once('/').unwrap_or(("", version));
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
        let from = match namespace {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}"),
        };
        let mut notes = Notes::new(file, &from);
        let mut made = Vec::new();
        let mut fields = match object {
            Value::Object(fields) => Fields::new(String::new(), fields.clone()),
            _ => Fields::new(String::new(), Map::new()),
        };
        fields.take("apiVersion");
        fields.take("kind");
        if let (Some(_), "policy.sigstore.dev" | "kyverno.io" | "policies.kyverno.io") = (fields.take("status"), group)
        {
            notes.same("status", "what a cluster says of the object is no part of it");
        }
        let is_known = match (group, kind) {
            ("policy.sigstore.dev", "ClusterImagePolicy") => {
                policy_controller::convert(fields, &roots, &mut made, &mut notes);
                true
            }
            ("policy.sigstore.dev", "TrustRoot") => {
                trust_root::convert(fields, &mut made, &mut notes);
                true
            }
            ("kyverno.io", "ClusterPolicy" | "Policy") => {
                kyverno::convert(fields, kind == "Policy", &mut made, &mut notes);
                true
            }
            ("policies.kyverno.io", "ImageValidatingPolicy" | "NamespacedImageValidatingPolicy") => {
                image_validating::convert(fields, kind != "ImageValidatingPolicy", &mut made, &mut notes);
                true
            }
            (other, _) => {
                foreign(other, &from, &mut notes);
                false
            }
        };
        converted.policies += usize::from(is_known);
        converted.notes.append(&mut notes.all);
        let own = |object| Made { file: file.clone(), from: from.clone(), object };
        converted.made.extend(made.into_iter().map(own));
    }
    unique(&mut converted);
    converted
}

/// Something that is none of the policies which are converted.
fn foreign(group: &str, from: &str, notes: &mut Notes) {
    match group {
        "kyverno.io" | "policies.kyverno.io" if from.contains("Exception") => notes.stricter(
            "",
            "an exception names rules and resources of Kyverno; without it more is refused",
            "write a RuleException: it names images, and ends at a time",
        ),
        "kyverno.io" | "policies.kyverno.io" | "policy.sigstore.dev" => {
            notes.weaker("", "no policy about images is in it", "leave it where it is");
        }
        _ => notes.same("", "it is no policy"),
    }
}

/// Two objects of one kind and name, as from two policies, would not load together.
fn unique(converted: &mut Converted) {
    let mut seen = std::collections::BTreeSet::new();
    for made in &mut converted.made {
        let text = |pointer: &str| made.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, name, namespace) = (text("/kind"), text("/metadata/name"), text("/metadata/namespace"));
        let mut given = name.clone();
        let mut next = 2;
        while !seen.insert((kind.clone(), namespace.clone(), given.clone())) {
            given = format!("{name}-{next}");
            next += 1;
        }
        if given != name
            && let Some(slot) = made.object.pointer_mut("/metadata/name")
        {
            *slot = given.into();
        }
    }
}

#[cfg(test)]
mod tests;
