//! Where the Kubernetes API carries container images: its OpenAPI documents in, every such place out, with the smallest object that
//! has an image there.
//!
//! Only what somebody can write is looked at: bodies of requests that create or replace, without `status`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// A place that carries an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Carrier {
    /// API group of the kind.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// Fields from the object to the image: `spec.containers[].image`.
    pub path: String,
    /// The smallest object that names one image there.
    pub object: Value,
    /// What is written to with such a body: `pods`, `pods/ephemeralcontainers`.
    pub resources: BTreeSet<String>,
}

/// The image of all examples.
pub const IMAGE: &str = "registry.invalid/found:1";

impl Carrier {
    /// Whether our reader of pods sees the image.
    pub fn is_read(&self) -> bool {
        let workload = dna::Workload::of(&self.group, &self.kind, None, &self.object);
        let spec = workload.and_then(|workload| workload.spec().ok());
        spec.is_some_and(|spec| spec.images().any(|used| used.reference == IMAGE))
    }
}

impl std::fmt::Display for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.group, self.kind, self.path)
    }
}

/// Every place of a document, of one group and version, that carries an image.
pub fn carriers(document: &Value) -> Vec<Carrier> {
    let schemas = document.pointer("/components/schemas").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut found = Vec::new();
    for (name, resources) in bodies(document) {
        let Some(kind) = schemas.get(&name).and_then(|schema| schema.pointer("/x-kubernetes-group-version-kind/0"))
        else {
            continue;
        };
        let text = |field: &str| kind[field].as_str().unwrap_or_default().to_owned();
        let mut walk = Walk { schemas: &schemas, path: Vec::new(), inside: Vec::new(), found: Vec::new() };
        walk.schema(&json!({"$ref": format!("{SCHEMAS}{name}")}));
        let Walk { found: paths, .. } = walk;
        found.extend(paths.into_iter().map(|path| Carrier {
            group: text("group"),
            kind: text("kind"),
            path: told(&path),
            object: example(&schemas, &name, &path),
            resources: resources.clone(),
        }));
    }
    found
}

/// By schema what can be written with a body of it.
fn bodies(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut bodies: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        // `/apis/GROUP/VERSION/namespaces/{namespace}/RESOURCE/{name}/SUBRESOURCE`; a namespace is a resource too.
        let words: Vec<&str> = path.split('/').skip(1).collect();
        let words = if words.first() == Some(&"apis") { words.get(3..) } else { words.get(2..) }.unwrap_or_default();
        let words = match words {
            ["namespaces", _, rest @ ..] if rest.first().is_some_and(|word| !SUB_RESOURCES.contains(word)) => rest,
            words => words,
        };
        let words: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with('{')).collect();
        for body in ["post", "put"].iter().filter_map(|method| methods.get(method)?.pointer("/requestBody/content")) {
            let schemas =
                body.as_object().into_iter().flatten().filter_map(|(_, content)| referred(&content["schema"]));
            for name in schemas {
                bodies.entry(name.to_owned()).or_default().insert(words.join("/"));
            }
        }
    }
    bodies
}

/// A step from an object to a field of it.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// A field, and the schema that has it.
    Field(String, Value),
    /// Any item of a list.
    Item,
    /// Any value of a map.
    Entry,
}

struct Walk<'a> {
    schemas: &'a Map<String, Value>,
    path: Vec<Step>,
    /// Schemas that are being walked: one that contains itself is walked once.
    inside: Vec<String>,
    found: Vec<Vec<Step>>,
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Value) {
        if let Some(name) = referred(schema) {
            let Some(of) = self.schemas.get(name).filter(|_| !self.inside.iter().any(|one| one == name)) else {
                return;
            };
            self.inside.push(name.to_owned());
            self.schema(&of.clone());
            self.inside.pop();
            return;
        }
        if let Some(items) = schema.get("items") {
            self.step(Step::Item, items);
        }
        if let Some(entries) = schema.get("additionalProperties").filter(|entries| entries.is_object()) {
            self.step(Step::Entry, entries);
        }
        for (field, value) in schema["properties"].as_object().into_iter().flatten() {
            if self.path.is_empty() && field == "status" {
                continue;
            }
            if self.is_image(field, value) {
                self.path.push(Step::Field(field.clone(), schema.clone()));
                let list = value.get("items").is_some();
                self.path.extend(list.then_some(Step::Item));
                self.found.push(self.path.clone());
                self.path.truncate(self.path.len() - 1 - usize::from(list));
            } else {
                self.step(Step::Field(field.clone(), schema.clone()), value);
            }
        }
    }

    fn step(&mut self, step: Step, schema: &Value) {
        self.path.push(step);
        self.schema(schema);
        self.path.pop();
    }

    /// Whether a field names an image: text, or a list of texts, whose name or whose owner's name says so.
    fn is_image(&self, field: &str, schema: &Value) -> bool {
        let is_text = |schema: &Value| schema["type"] == "string";
        let owner = self.inside.last().and_then(|name| name.rsplit('.').next()).unwrap_or_default();
        let says_so = |name: &str| name.to_lowercase().contains("image");
        let is_known = NO_IMAGES.iter().any(|(of, name, _)| (*of, *name) == (owner, field));
        (is_text(schema) || schema.get("items").is_some_and(is_text)) && (says_so(field) || says_so(owner)) && !is_known
    }
}

/// The name of the schema that is meant; Kubernetes wraps it where it says more beside it.
fn referred(schema: &Value) -> Option<&str> {
    let wrapped = schema.get("allOf").and_then(|all| all.get(0));
    schema.get("$ref").or_else(|| wrapped?.get("$ref"))?.as_str()?.strip_prefix(SCHEMAS)
}

fn told(path: &[Step]) -> String {
    let word = |step: &Step| match step {
        Step::Field(name, _) => format!(".{name}"),
        Step::Item => "[]".to_owned(),
        Step::Entry => "{}".to_owned(),
    };
    path.iter().map(word).collect::<String>().trim_start_matches('.').to_owned()
}

/// The smallest object with an image at `path`, required fields filled in.
fn example(schemas: &Map<String, Value>, root: &str, path: &[Step]) -> Value {
    let mut made = Value::from(IMAGE);
    for step in path.iter().rev() {
        made = match step {
            Step::Item => json!([made]),
            Step::Entry => json!({"any": made}),
            Step::Field(name, owner) => {
                let mut object = required(schemas, owner);
                object.insert(name.clone(), made);
                object.into()
            }
        };
    }
    let kind = schemas.get(root).and_then(|schema| schema.pointer("/x-kubernetes-group-version-kind/0/kind"));
    made["kind"] = kind.cloned().unwrap_or_default();
    made
}

fn required(schemas: &Map<String, Value>, schema: &Value) -> Map<String, Value> {
    let names = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let blank = |name: &str| {
        let field = &schema["properties"][name];
        let field = referred(field).and_then(|name| schemas.get(name)).unwrap_or(field);
        match field["type"].as_str() {
            Some("string") => json!("x"),
            Some("integer" | "number") => json!(1),
            Some("array") => json!([]),
            Some("boolean") => json!(false),
            _ => json!({}),
        }
    };
    names.map(|name| (name.to_owned(), blank(name))).collect()
}

const SCHEMAS: &str = "#/components/schemas/";

/// Of a namespace itself.
const SUB_RESOURCES: [&str; 2] = ["finalize", "status"];

/// Fields that speak of images and name none, by schema, and why.
const NO_IMAGES: [(&str, &str, &str); 5] = [
    ("Container", "imagePullPolicy", "when it is pulled"),
    ("EphemeralContainer", "imagePullPolicy", "when it is pulled"),
    ("ImageVolumeSource", "pullPolicy", "when it is pulled"),
    ("RBDVolumeSource", "image", "a block device of Ceph"),
    ("RBDPersistentVolumeSource", "image", "a block device of Ceph"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// As the API server describes a pod, shortened.
    fn document() -> Value {
        let of =
            |name: &str| json!({"allOf": [{"$ref": format!("{SCHEMAS}io.k8s.api.core.v1.{name}")}], "default": {}});
        let list = |name: &str| json!({"type": "array", "items": of(name)});
        let container = json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string"}, "image": {"type": "string"}, "imagePullPolicy": {"type": "string"}}});
        let body = |name: &str| json!({"requestBody": {"content": {"*/*": {"schema": {"$ref": format!("{SCHEMAS}io.k8s.api.core.v1.{name}")}}}}});
        json!({
            "paths": {
                "/api/v1/namespaces/{namespace}/pods": {"get": {}, "post": body("Pod")},
                "/api/v1/namespaces/{namespace}/pods/{name}/ephemeralcontainers": {"put": body("Pod")},
                "/api/v1/namespaces/{name}/finalize": {"put": body("Namespace")},
            },
            "components": {"schemas": {
                "io.k8s.api.core.v1.Pod": {
                    "type": "object",
                    "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Pod"}],
                    "properties": {"kind": {"type": "string"}, "spec": of("PodSpec"), "status": of("Container")},
                },
                "io.k8s.api.core.v1.Namespace": {
                    "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Namespace"}],
                    "properties": {},
                },
                "io.k8s.api.core.v1.PodSpec": {"type": "object", "required": ["containers"], "properties": {
                    "containers": list("Container"), "volumes": list("Volume")}},
                "io.k8s.api.core.v1.Container": container,
                "io.k8s.api.core.v1.Volume": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "image": of("ImageVolumeSource"), "again": of("Volume")}},
                "io.k8s.api.core.v1.ImageVolumeSource": {"type": "object", "properties": {
                    "reference": {"type": "string"}, "pullPolicy": {"type": "string"}}},
            }},
        })
    }

    fn unread(document: &Value) -> Vec<String> {
        carriers(document).iter().filter(|carrier| !carrier.is_read()).map(ToString::to_string).collect()
    }

    #[test]
    fn every_place_is_found_with_what_writes_it_and_read() {
        let found = carriers(&document());
        let paths: Vec<&str> = found.iter().map(|carrier| carrier.path.as_str()).collect();
        assert_eq!(paths, ["spec.containers[].image", "spec.volumes[].image.reference"]);
        let resources = ["pods".to_owned(), "pods/ephemeralcontainers".to_owned()];
        assert!(found.iter().all(|carrier| carrier.resources == BTreeSet::from(resources.clone())), "{found:?}");
        assert_eq!(unread(&document()), [""; 0]);
    }

    #[test]
    fn a_new_place_is_told() {
        let spec = "/components/schemas/io.k8s.api.core.v1.PodSpec/properties";
        let text = json!({"type": "string"});
        let helpers = json!({"type": "array", "items": {"$ref": format!("{SCHEMAS}io.k8s.api.core.v1.Container")}});
        let layers = json!({"type": "object", "additionalProperties": {"type": "object", "properties": {"imageRefs": {"type": "array", "items": text}}}});
        for (field, schema, path) in [
            ("bootImage", text.clone(), "/Pod spec.bootImage"),
            ("helperContainers", helpers, "/Pod spec.helperContainers[].image"),
            ("layers", layers, "/Pod spec.layers{}.imageRefs[]"),
        ] {
            let mut document = document();
            document.pointer_mut(spec).expect("fields")[field] = schema;
            assert_eq!(unread(&document), [path]);
        }
    }

    #[test]
    fn a_new_kind_with_a_pod_is_told() {
        let mut document = document();
        let kind = json!([{"group": "batch", "version": "v1", "kind": "Swarm"}]);
        let mut swarm = document["components"]["schemas"]["io.k8s.api.core.v1.Pod"].clone();
        swarm["x-kubernetes-group-version-kind"] = kind;
        document["components"]["schemas"]["io.k8s.api.batch.v1.Swarm"] = swarm;
        document["paths"]["/apis/batch/v1/namespaces/{namespace}/swarms"] = json!({"post": {"requestBody": {"content": {
            "*/*": {"schema": {"$ref": format!("{SCHEMAS}io.k8s.api.batch.v1.Swarm")}}}}}});
        assert_eq!(
            unread(&document),
            ["batch/Swarm spec.containers[].image", "batch/Swarm spec.volumes[].image.reference"]
        );
    }
}
