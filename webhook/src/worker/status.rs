//! What became of each rule, exception and whatever belongs to them, written into its `status`: for `kubectl get`.
//!
//! | condition | it is true where |
//! | --- | --- |
//! | `Loaded` | the object loads as it is written |
//! | `Ready` | it is in force, as it is written or as it was before |

use std::time::Duration;

use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PostParams},
};
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::Worker;
use crate::rulebook::Standing;

impl Worker {
    /// Writes what is not written yet, again and again.
    pub(super) async fn keep_telling(&self) {
        let Some(client) = self.client() else { return };
        let mut told = String::new();
        loop {
            match self.tell_all(client).await {
                Ok(()) => told.clear(),
                Err(error) => {
                    if told != error {
                        warn!(error, "the status of rules is not written");
                    }
                    told = error;
                }
            }
            tokio::time::sleep(crate::rulebook::READ_AGAIN).await;
        }
    }

    pub(super) async fn tell_all(&self, client: &Client) -> Result<(), String> {
        let standings = self.service.standings.load_full();
        let Some(book) = self.service.rulebook.load_full() else { return Ok(()) };
        let disabled: Vec<String> = book.rules.disabled().collect();
        for standing in standings.iter() {
            let own = Own { problems: &book.problems, disabled: &disabled };
            if let Some(status) = status(standing, &own, Timestamp::now()) {
                write(client, &standing.object, status).await?;
            }
        }
        Ok(())
    }
}

async fn write(client: &Client, object: &Value, status: Value) -> Result<(), String> {
    let mut object: DynamicObject = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let name = object.metadata.name.clone().unwrap_or_default();
    let types = object.types.clone().unwrap_or_default();
    let kind = types.kind.clone();
    if let Some(fields) = object.data.as_object_mut() {
        fields.insert("status".to_owned(), status);
    }
    let resource =
        ApiResource::from_gvk(&kube::core::GroupVersionKind::try_from(&types).map_err(|error| error.to_string())?);
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    // With the version it was read in: what was changed since is read again first.
    let written = tokio::time::timeout(PATIENCE, api.replace_status(&name, &PostParams::default(), &object)).await;
    match written {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(answer))) if answer.is_conflict() || answer.is_not_found() => {
            debug!(kind, name, "it was changed meanwhile");
            Ok(())
        }
        Ok(Err(error)) => Err(format!("{kind} {name}: {error}")),
        Err(late) => Err(format!("{kind} {name}: {late}")),
    }
}

/// What is known of objects beside how they load.
struct Own<'a> {
    /// Of the rules in force: `Kind name: why`.
    problems: &'a [String],
    /// Ids of rules that are taken out of evaluation.
    disabled: &'a [String],
}

/// What a `status` is to be; none where it is so.
fn status(standing: &Standing, own: &Own<'_>, now: Timestamp) -> Option<Value> {
    let Standing { object, errors, is_as_before } = standing;
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let id = match text("/metadata/namespace") {
        "" => name.to_owned(),
        namespace => format!("{namespace}/{name}"),
    };
    let problems: Vec<&str> =
        own.problems.iter().filter_map(|problem| problem.strip_prefix(&format!("{kind} {name}: "))).collect();
    let is_rule = kind.ends_with("ImageRule");
    let expires = text("/spec/expires").parse().ok().filter(|_| kind == "RuleException");
    let loaded = match errors.is_empty() {
        true => ("True", "Loaded", String::new()),
        false => ("False", "Invalid", errors.join("\n")),
    };
    let of = |text: &str| text.to_owned();
    let ready = if *is_as_before {
        ("True", "AsBefore", of("it does not load as it is written; as it was before, it is in force"))
    } else if !errors.is_empty() {
        ("False", "Invalid", of("it does not load, and is not in force"))
    } else if is_rule && own.disabled.contains(&id) {
        ("False", "TakenOut", of("it takes too long to evaluate; where it is in force it denies until it is changed"))
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

/// Of one write.
const PATIENCE: Duration = Duration::from_secs(10);

/// Characters of a message. Source: Kubernetes, `metav1.Condition`: 32768 bytes.
const MAX_MESSAGE: usize = 8_000;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

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
}
