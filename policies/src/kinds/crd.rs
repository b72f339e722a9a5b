//! The kinds as Kubernetes' custom resource definitions, with structural schemas: made from the same types that read them.
//!
//! Source: kubernetes.io, "Extend the Kubernetes API with CustomResourceDefinitions", "Specifying a structural schema".

use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value, json};

use super::{ImageRuleSpec, RegistryAccessSpec, RuleExceptionSpec, RuntimeRuleSpec, SignerTrustSpec};

/// The definitions of all kinds, in JSON.
#[must_use]
pub fn crds() -> Vec<Value> {
    let rule = structural::<ImageRuleSpec>();
    let runtime = structural::<RuntimeRuleSpec>();
    vec![
        crd("ImageRule", "imagerules", true, rule.clone()),
        crd("ClusterImageRule", "clusterimagerules", false, rule),
        crd("RuleException", "ruleexceptions", false, structural::<RuleExceptionSpec>()),
        crd("SignerTrust", "signertrusts", false, structural::<SignerTrustSpec>()),
        crd("RegistryAccess", "registryaccesses", false, structural::<RegistryAccessSpec>()),
        crd("RuntimeRule", "runtimerules", true, runtime.clone()),
        crd("ClusterRuntimeRule", "clusterruntimerules", false, runtime),
    ]
}

/// The same as one YAML text, for `kubectl apply`.
#[must_use]
pub fn crds_yaml() -> String {
    crds().iter().filter_map(|crd| serde_yaml_ng::to_string(crd).ok()).collect::<Vec<_>>().join("---\n")
}

fn crd(kind: &str, plural: &str, is_namespaced: bool, spec: Value) -> Value {
    let text = |name: &str, path: &str| json!({"name": name, "type": "string", "jsonPath": path});
    let mut columns = vec![text("Status", r#".status.conditions[?(@.type=="Ready")].reason"#)];
    match kind {
        "RuleException" => columns.extend([text("Expires", ".spec.expires"), text("Reason", ".spec.reason")]),
        "ImageRule" | "ClusterImageRule" => {
            columns.extend([text("Actions", ".spec.actions"), text("Enforcement", ".spec.enforcement")]);
        }
        "RuntimeRule" | "ClusterRuntimeRule" => columns.extend([
            text("Severity", ".spec.then.severity"),
            text("Ignored until", ".spec.then.ignore.until"),
            text("Response", ".spec.then.response[*].action"),
        ]),
        _ => {}
    }
    columns.push(json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}));
    let schema = json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status(),
        },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": if is_namespaced { "Namespaced" } else { "Cluster" },
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_ascii_lowercase(),
                "categories": ["mayfly"],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
            }],
        },
    })
}

/// What the webhook, or of runtime rules the bridge, says of an object. Source: Kubernetes, `metav1.Condition`.
fn status() -> Value {
    let text =
        |description: &str, length: u64| json!({"type": "string", "maxLength": length, "description": description});
    let generation = json!({"type": "integer", "format": "int64", "minimum": 0,
        "description": "The `metadata.generation` that this is about."});
    json!({
        "type": "object",
        "description": "What became of it; whoever has it in force writes it.",
        "properties": {
            "observedGeneration": generation,
            "conditions": {
                "type": "array",
                "maxItems": 8,
                "description": "`Loaded`: it loads as it is written. `Ready`: it is in force.",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
                    "properties": {
                        "type": text("Which.", 316),
                        "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it is so."},
                        "reason": text("Why, a word.", 1024),
                        "message": text("Why, for people: what does not load, where, and what to do.", 32768),
                        "observedGeneration": generation,
                        "lastTransitionTime": {"type": "string", "format": "date-time",
                            "description": "When `status` became what it is."},
                    },
                },
            },
        },
    })
}

fn structural<T: JsonSchema>() -> Value {
    let schema = schema_for!(T);
    rewrite(schema.as_value(), schema.as_value())
}

/// A JSON Schema as the API server takes it: nothing refers elsewhere, each value has one type, and what may be null says so.
fn rewrite(schema: &Value, root: &Value) -> Value {
    let Some(fields) = schema.as_object() else { return json!({"x-kubernetes-preserve-unknown-fields": true}) };
    let mut made = Map::new();
    if let Some(referred) = fields.get("$ref").and_then(Value::as_str) {
        let referred = root.pointer(referred.trim_start_matches('#')).map(|referred| rewrite(referred, root));
        made.extend(referred.as_ref().and_then(Value::as_object).cloned().unwrap_or_default());
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        let Some(variants) = fields.get(keyword).and_then(Value::as_array) else { continue };
        let is_null = |variant: &&Value| variant.get("type").and_then(Value::as_str) == Some("null");
        if variants.iter().any(|variant| is_null(&variant)) {
            made.insert("nullable".to_owned(), true.into());
        }
        let mut names = Vec::new();
        for variant in variants.iter().filter(|variant| !is_null(variant)) {
            names.extend(variant.get("const").cloned());
            names.extend(variant.get("enum").and_then(Value::as_array).into_iter().flatten().cloned());
            if variant.get("const").is_none() && variant.get("enum").is_none() {
                made.extend(rewrite(variant, root).as_object().cloned().unwrap_or_default());
            }
        }
        if !names.is_empty() {
            made.insert("type".to_owned(), "string".into());
            made.insert("enum".to_owned(), names.into());
        }
    }
    for (name, value) in fields {
        let value = match (name.as_str(), value) {
            ("$ref" | "$schema" | "$defs" | "title" | "default" | "allOf" | "anyOf" | "oneOf" | "const", _) => continue,
            // Beside `properties` it is not allowed; unknown fields are pruned, and told by strict clients.
            ("additionalProperties", Value::Bool(_)) => continue,
            ("additionalProperties" | "items", schema) => rewrite(schema, root),
            ("properties", Value::Object(properties)) => {
                let properties = properties.iter().map(|(name, schema)| (name.clone(), rewrite(schema, root)));
                Value::Object(properties.collect())
            }
            ("type", Value::Array(kinds)) => {
                if kinds.iter().any(|kind| kind == "null") {
                    made.insert("nullable".to_owned(), true.into());
                }
                kinds.iter().find(|kind| *kind != "null").cloned().unwrap_or_default()
            }
            ("format", Value::String(format)) if format.starts_with("uint") => "int64".into(),
            (_, value) => value.clone(),
        };
        made.insert(name.clone(), value);
    }
    // What may be left out is left out, not null.
    made.remove("nullable");
    Value::Object(made)
}

const GROUP: &str = "mayfly.dev";
const VERSION: &str = "v1alpha1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::API_VERSION;

    /// Every rule of a structural schema that can be seen without a server.
    fn assert_structural(schema: &Value, path: &str) {
        let fields = schema.as_object().unwrap_or_else(|| panic!("{path} is no schema"));
        let known = [
            "description",
            "enum",
            "format",
            "items",
            "maxItems",
            "maxLength",
            "maxProperties",
            "maximum",
            "minItems",
            "minLength",
            "minProperties",
            "minimum",
            "pattern",
            "properties",
            "additionalProperties",
            "required",
            "type",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-list-type",
            "x-kubernetes-validations",
            "x-kubernetes-preserve-unknown-fields",
        ];
        for name in fields.keys() {
            assert!(known.contains(&name.as_str()), "{path}: {name}");
        }
        let kind = schema.get("type").and_then(Value::as_str).unwrap_or_else(|| panic!("{path} has no type: {schema}"));
        assert!(["string", "integer", "boolean", "array", "object"].contains(&kind), "{path}: {kind}");
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            assert!(!fields.contains_key("additionalProperties"), "{path}");
            properties.iter().for_each(|(name, schema)| assert_structural(schema, &format!("{path}.{name}")));
        }
        if kind == "array" {
            assert!(fields.contains_key("maxItems"), "{path}: a list without bound makes validations costly");
            assert_structural(schema.get("items").unwrap_or(&Value::Null), &format!("{path}[]"));
        }
    }

    #[test]
    fn schemas_are_structural_and_say_what_each_field_is() {
        for crd in crds() {
            let name = crd.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").expect("a spec");
            assert_structural(spec, &name);
            let status = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/status").expect("a status");
            assert_structural(status, &name);
            let properties = spec.get("properties").and_then(Value::as_object).expect("fields");
            assert!(properties.values().all(|field| field.get("description").is_some()), "{name}");
        }
        assert_eq!(API_VERSION, format!("{GROUP}/{VERSION}"));
    }

    #[test]
    fn what_is_installed_is_what_is_made_here() {
        let installed = include_str!("../../../deploy/webhook/crds.yaml");
        assert!(installed == crds_yaml(), "make it anew: mayfly policy crds > deploy/webhook/crds.yaml");
    }

    #[test]
    fn names_validations_and_bounds_are_in_them() {
        let yaml = crds_yaml();
        for part in [
            "name: clusterimagerules.mayfly.dev",
            "scope: Namespaced",
            "name the rules and the images",
            "- RequireDigest",
            "maxLength: 4096",
            "a signer is known by `keyless` or by `key`",
        ] {
            assert!(yaml.contains(part), "{part}");
        }
        let expires = crds().into_iter().find_map(|crd| {
            crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/required").cloned().filter(
                |required| required.as_array().is_some_and(|required| required.iter().any(|name| name == "expires")),
            )
        });
        assert!(expires.is_some(), "an exception must end");
    }
}
