//! Objects of a cluster, read again and again: what of them is in force, and what became of each.
//!
//! | condition of a `status` | it is true where |
//! | --- | --- |
//! | `Loaded` | the object loads as it is written |
//! | `Ready` | it is in force, as it is written or as it was before |

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::rules::Rules;

/// Objects of a cluster, read again and again.
///
/// A rule that is changed so that it does not load any more stays in force as it was: a slip of the pen must not let through what it
/// refuses. An exception that does not load ends, for the same reason.
#[derive(Debug, Default)]
pub struct Objects {
    /// Rules as they loaded last.
    good: BTreeMap<Key, Value>,
    /// Those that do not load, and were looked for where earlier processes keep theirs.
    asked: BTreeSet<Key>,
    /// What became of each object that was read last.
    pub standings: Vec<Standing>,
}

/// What became of an object of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The object, as it was read.
    pub object: Value,
    /// Why it does not load; none: it does.
    pub errors: Vec<String>,
    /// It does not load, and is in force as it was before.
    pub is_as_before: bool,
}

impl Objects {
    /// Rules among the objects there are now; what does not load is told.
    #[must_use]
    pub fn read(&mut self, objects: &[Value]) -> (Rules, Vec<String>) {
        let (mut rules, errors) = Rules::from_objects(objects);
        let mut problems: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let mut good = BTreeMap::new();
        let mut chosen = Vec::new();
        self.standings.clear();
        for object in objects {
            let key = Key::of(object);
            let failed = if errors.is_empty() { Vec::new() } else { Rules::from_objects([object]).1 };
            let loads = failed.is_empty();
            let of_before = self.good.remove(&key).filter(|_| !loads);
            if let Some(before) = &of_before {
                problems.push(format!("{key}: it stays in force as it was before"));
                chosen.push(before.clone());
            }
            self.standings.push(Standing {
                object: object.clone(),
                errors: failed.iter().map(ToString::to_string).collect(),
                is_as_before: of_before.is_some(),
            });
            let as_it_is = loads.then(|| object.clone());
            chosen.extend(as_it_is.clone());
            if let Some(object) = of_before.or(as_it_is).filter(|_| key.is_rule()) {
                good.insert(key, object);
            }
        }
        self.good = good;
        if !errors.is_empty() {
            rules = Rules::from_objects(&chosen).0;
        }
        (rules, problems)
    }

    /// Rules that do not load, and of which nobody here knows what they were before.
    #[must_use]
    pub fn lost(&self, objects: &[Value]) -> Vec<Key> {
        let keys = objects.iter().map(|object| (Key::of(object), object));
        let open = keys.filter(|(key, _)| key.is_rule() && !self.good.contains_key(key) && !self.asked.contains(key));
        open.filter(|(_, object)| !loads(object)).map(|(key, _)| key).collect()
    }

    /// Takes what lost rules were before, from where earlier processes keep it. Each is asked for once, as long as it is among the
    /// objects there are now.
    pub fn recall(&mut self, now: &[Value], before: impl IntoIterator<Item = (Key, Option<Value>)>) {
        for (key, rule) in before {
            self.good.extend(rule.map(|rule| (key.clone(), rule)));
            self.asked.insert(key);
        }
        self.asked.retain(|key| now.iter().any(|object| Key::of(object) == *key));
    }

    /// Rules as they loaded last, by name, without what changes though a rule does not.
    #[must_use]
    pub fn good(&self) -> BTreeMap<String, Value> {
        self.good.iter().map(|(key, rule)| (key.name(), lasting(rule))).collect()
    }
}

/// Which object it is: one that was deleted and made anew is another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
}

impl Key {
    /// Of an object.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            uid: text("/metadata/uid"),
        }
    }

    fn is_rule(&self) -> bool {
        self.kind.ends_with("ImageRule") || self.kind.ends_with("RuntimeRule")
    }

    /// Its name, as the ledger has it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}/{}/{}", self.kind, self.namespace, self.name, self.uid)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{separator}{}", self.kind, self.namespace, self.name)
    }
}

/// An object without what changes though the rule does not.
fn lasting(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !matches!(name.as_str(), "managedFields" | "resourceVersion"));
    }
    object
}

fn loads(object: &Value) -> bool {
    Rules::from_objects([object]).1.is_empty()
}

/// What is known of objects beside how they load.
#[derive(Debug, Clone, Copy, Default)]
pub struct Own<'a> {
    /// Of the rules in force: `Kind name: why`.
    pub problems: &'a [String],
    /// Ids of rules that are taken out of evaluation.
    pub disabled: &'a [String],
}

/// What a `status` is to be; none where it is so.
#[must_use]
pub fn status(standing: &Standing, own: &Own<'_>, now: Timestamp) -> Option<Value> {
    let Standing { object, errors, is_as_before } = standing;
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let id = match text("/metadata/namespace") {
        "" => name.to_owned(),
        namespace => format!("{namespace}/{name}"),
    };
    let problems: Vec<&str> =
        own.problems.iter().filter_map(|problem| problem.strip_prefix(&format!("{kind} {name}: "))).collect();
    let expires = match kind {
        "RuleException" => text("/spec/expires").parse().ok(),
        "RuntimeRule" | "ClusterRuntimeRule" => text("/spec/then/ignore/until").parse().ok(),
        _ => None,
    };
    let loaded = match errors.is_empty() {
        true => ("True", "Loaded", String::new()),
        false => ("False", "Invalid", errors.join("\n")),
    };
    let of = |text: &str| text.to_owned();
    let ready = if *is_as_before {
        ("True", "AsBefore", of("it does not load as it is written; as it was before, it is in force"))
    } else if !errors.is_empty() {
        ("False", "Invalid", of("it does not load, and is not in force"))
    } else if kind.ends_with("ImageRule") && own.disabled.contains(&id) {
        ("False", "TakenOut", of("it takes too long to evaluate; where it is in force it denies until it is changed"))
    } else if kind.ends_with("RuntimeRule") && own.disabled.contains(&id) {
        ("False", "TakenOut", of("it takes too long to evaluate; it does nothing until it is changed"))
    } else if expires.is_some_and(|expires: Timestamp| expires <= now) {
        ("False", "Expired", of("its time is over"))
    } else if !problems.is_empty() {
        ("False", "Incomplete", problems.join("\n"))
    } else {
        ("True", "InForce", String::new())
    };
    let before = object.pointer("/status/conditions").and_then(Value::as_array);
    let generation = object.pointer("/metadata/generation").cloned().unwrap_or_default();
    let condition = |kind: &str, (status, reason, message): (&str, &str, String)| {
        let same = before.into_iter().flatten().find(|one| {
            one.get("type").and_then(Value::as_str) == Some(kind)
                && one.get("status").and_then(Value::as_str) == Some(status)
        });
        let since = same.and_then(|same| same.get("lastTransitionTime").cloned());
        let message: String = message.chars().take(MAX_MESSAGE).collect();
        json!({"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": generation,
            "lastTransitionTime": since.unwrap_or_else(|| now.round(jiff::Unit::Second).unwrap_or(now).to_string().into())})
    };
    let status = json!({"observedGeneration": generation,
        "conditions": [condition("Loaded", loaded), condition("Ready", ready)]});
    (object.get("status") != Some(&status)).then_some(status)
}

/// Characters of a message. Source: Kubernetes, `metav1.Condition`: 32768 bytes.
const MAX_MESSAGE: usize = 8_000;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn rule(name: &str, expression: &str) -> Value {
        json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": "ClusterImageRule", "metadata": {"name": name},
            "spec": {"validations": [{"name": "x", "expression": expression}]}})
    }

    fn standing(kind: &str, errors: &[&str], is_as_before: bool) -> Standing {
        let object = json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": kind, "spec": {"expires": "2026-06-01T00:00:00Z"},
            "metadata": {"name": "one", "generation": 3}});
        Standing { object, errors: errors.iter().map(|&error| error.to_owned()).collect(), is_as_before }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn each_end_of_an_object_has_a_reason() {
        let now = at("2026-07-01T00:00:00Z");
        let problems =
            ["SignerTrust one: the ConfigMap that it names is not there".to_owned(), "SignerTrust other: x".to_owned()];
        let told = |standing: &Standing, disabled: &[String]| {
            let status = status(standing, &Own { problems: &problems, disabled }, now).expect("it had none");
            assert_eq!(status["observedGeneration"], 3);
            let conditions = status["conditions"].as_array().expect("conditions");
            let text = |at: usize, field: &str| conditions[at][field].as_str().expect("text").to_owned();
            assert_eq!((text(0, "type"), text(1, "type")), ("Loaded".to_owned(), "Ready".to_owned()));
            (text(0, "status"), text(1, "status"), text(1, "reason"), text(0, "message") + &text(1, "message"))
        };
        let is = |told: (String, String, String, String), loaded: &str, ready: &str, reason: &str, said: &str| {
            assert_eq!((told.0.as_str(), told.1.as_str(), told.2.as_str()), (loaded, ready, reason));
            assert!(told.3.contains(said), "{}", told.3);
        };
        is(told(&standing("ImageRule", &[], false), &[]), "True", "True", "InForce", "");
        let errors = ["ImageRule one: spec.tags: no such word"];
        is(told(&standing("ImageRule", &errors, false), &[]), "False", "False", "Invalid", "spec.tags: no such word");
        is(told(&standing("ImageRule", &errors, true), &[]), "False", "True", "AsBefore", "spec.tags: no such word");
        is(told(&standing("ImageRule", &[], false), &["one".to_owned()]), "True", "False", "TakenOut", "too long");
        is(told(&standing("RuleException", &[], false), &[]), "True", "False", "Expired", "over");
        is(told(&standing("SignerTrust", &[], false), &[]), "True", "False", "Incomplete", "is not there");
    }

    #[test]
    fn what_is_written_already_is_not_written_again_and_a_time_is_that_of_a_change() {
        let own = Own { problems: &[], disabled: &[] };
        let mut rule = standing("ImageRule", &[], false);
        let first = status(&rule, &own, at("2026-01-01T00:00:00.7Z")).expect("a status");
        assert_eq!(first["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:01Z");
        rule.object["status"] = first.clone();
        assert_eq!(status(&rule, &own, at("2026-01-02T00:00:00Z")), None);
        // Another message is no other state.
        rule.object["metadata"]["generation"] = json!(4);
        let second = status(&rule, &own, at("2026-01-02T00:00:00Z")).expect("a status");
        assert_eq!(second["observedGeneration"], 4);
        assert_eq!(second["conditions"][0]["lastTransitionTime"], first["conditions"][0]["lastTransitionTime"]);
        rule.errors.push("no".to_owned());
        let third = status(&rule, &own, at("2026-01-03T00:00:00Z")).expect("a status");
        assert_eq!(third["conditions"][1]["lastTransitionTime"], "2026-01-03T00:00:00Z");
    }

    #[test]
    fn a_rule_that_no_longer_loads_stays_as_it_was() {
        let mut objects = Objects::default();
        let (rules, problems) = objects.read(&[rule("one", "true"), rule("two", "image.pinned")]);
        assert_eq!((rules.len(), problems.len()), (2, 0));
        let versions = |rules: &Rules| rules.versions().map(|version| version.version.to_string()).collect::<Vec<_>>();
        let before = versions(&rules);
        for _ in 0..2 {
            let (rules, problems) = objects.read(&[rule("one", "true"), rule("two", "imaeg.pinned")]);
            assert_eq!(versions(&rules), before);
            assert!(problems.iter().any(|problem| problem.contains("ClusterImageRule two: it stays")), "{problems:?}");
            let [one, two] = &*objects.standings else { panic!("of each object: {:?}", objects.standings) };
            assert!(one.errors.is_empty() && two.is_as_before && two.errors.len() == 1, "{two:?}");
        }
        // Deleted, and made anew with the same mistake: there is nothing that it was before.
        let (rules, _) = objects.read(&[rule("one", "true")]);
        assert_eq!(rules.len(), 1);
        let (rules, problems) = objects.read(&[rule("one", "true"), rule("two", "imaeg.pinned")]);
        assert_eq!((rules.len(), problems.len()), (1, 1), "{problems:?}");
        let (rules, problems) = objects.read(&[rule("one", "true"), rule("two", "true")]);
        assert_eq!((rules.len(), problems.len()), (2, 0));
    }

    #[test]
    fn an_exception_that_no_longer_loads_ends() {
        let exception = |expires: &str| {
            json!({"apiVersion": "mayfly.dev/v1alpha1", "kind": "RuleException", "metadata": {"name": "e"},
                "spec": {"rules": ["one"], "images": ["**"], "reason": "r", "expires": expires}})
        };
        let mut objects = Objects::default();
        let (before, _) = objects.read(&[rule("one", "true"), exception("2099-01-01T00:00:00Z")]);
        let (after, problems) = objects.read(&[rule("one", "true"), exception("some day")]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!((before.exceptions().count(), after.exceptions().count()), (1, 0));
    }
}
