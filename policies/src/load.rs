//! From text, or objects of the API server, to rules. An error says which file, line, object and field, and what to do.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    cel::meant,
    kinds::{API_VERSION, Metadata, Object},
    rules::{Exception, Fault, Rule, Rules},
    runtime::RuntimeRule,
};

/// Reads rules from files of one or more YAML documents: names and texts.
///
/// # Errors
/// Everything that is wrong in any of them.
pub fn load<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Rules, Vec<LoadError>> {
    let (mut rules, mut errors) = (Rules::default(), Vec::new());
    for (file, text) in files {
        if text.len() > MAX_FILE_BYTES {
            let why = format!("the file has {} bytes, at most {MAX_FILE_BYTES} are read", text.len());
            errors.push(LoadError { file: file.to_owned(), why, ..LoadError::default() });
            continue;
        }
        for (line, document) in documents(text) {
            match read_yaml(document).and_then(|read| rules.add(read)) {
                Ok(()) => {}
                Err(found) => errors.extend(found.into_iter().map(|error| error.placed(file, line, document))),
            }
        }
    }
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

/// The same of files that were read, each by its name; errors are lines.
///
/// # Errors
/// What does not load, a line each.
pub fn load_texts(texts: &[(String, String)]) -> Result<Rules, Vec<String>> {
    let named = texts.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    load(named).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

impl Rules {
    /// Rules from objects as the API server gives them. One that cannot be read keeps no other from being in force.
    pub fn from_objects<'a>(objects: impl IntoIterator<Item = &'a Value>) -> (Self, Vec<LoadError>) {
        let (mut rules, mut errors) = (Self::default(), Vec::new());
        for object in objects {
            match read(&mut |kind| of_value(kind, object), head_of(object)).and_then(|read| rules.add(read)) {
                Ok(()) => {}
                Err(found) => errors.extend(found),
            }
        }
        (rules, errors)
    }

    fn add(&mut self, read: Read) -> Result<(), Vec<LoadError>> {
        let of = |kind: &str, metadata: &Metadata| {
            let name = match &metadata.namespace {
                Some(namespace) => format!("{kind} {namespace}/{}", metadata.name),
                None => format!("{kind} {}", metadata.name),
            };
            move |faults: Vec<Fault>| -> Vec<LoadError> {
                let error = |fault: Fault| LoadError {
                    object: Some(name.clone()),
                    field: fault.field,
                    why: fault.why,
                    text: fault.text,
                    ..LoadError::default()
                };
                faults.into_iter().map(error).collect()
            }
        };
        match read {
            Read::Rule(mut object, is_namespaced) => {
                let kind = object.kind.clone();
                let failed = of(&kind, &object.metadata);
                if is_namespaced && object.metadata.namespace.is_none() {
                    let why = "an ImageRule is for one namespace: name it, or write a ClusterImageRule";
                    return Err(failed(vec![fault("metadata.namespace", why)]));
                }
                if !is_namespaced {
                    object.metadata.namespace = None;
                }
                let same =
                    |rule: &Rule| rule.name == object.metadata.name && rule.namespace == object.metadata.namespace;
                if self.rules.iter().any(same) {
                    return Err(failed(vec![fault("metadata.name", "there is another rule of this name")]));
                }
                self.push_rule(Rule::new(&object.metadata, object.spec).map_err(failed)?);
            }
            Read::Runtime(mut object, is_namespaced) => {
                let failed = of(&object.kind, &object.metadata);
                if is_namespaced && object.metadata.namespace.is_none() {
                    let why = "a RuntimeRule is for one namespace: name it, or write a ClusterRuntimeRule";
                    return Err(failed(vec![fault("metadata.namespace", why)]));
                }
                if !is_namespaced {
                    object.metadata.namespace = None;
                }
                if self.runtime.has(&object.metadata) {
                    return Err(failed(vec![fault("metadata.name", "there is another rule of this name")]));
                }
                self.runtime.push(RuntimeRule::new(&object.metadata, object.spec).map_err(failed)?);
            }
            Read::Exception(object) => {
                let failed = of(&object.kind, &object.metadata);
                self.push_exception(Exception::new(&object.metadata.name, object.spec).map_err(failed)?);
            }
            Read::Trust(object) => self.push_trust(object.metadata.name, object.spec),
            Read::Access(object) => self.push_access(object.metadata.name, object.spec),
        }
        Ok(())
    }
}

/// Why something could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.told())]
pub struct LoadError {
    /// The file; empty of objects of the API server.
    pub file: String,
    /// The line, where it can be told.
    pub line: Option<usize>,
    /// Kind and name.
    pub object: Option<String>,
    /// The field, joined by dots.
    pub field: String,
    /// What is wrong, and what to do.
    pub why: String,
    /// The text that it is about, to find its line.
    text: Option<String>,
}

impl LoadError {
    fn told(&self) -> String {
        let mut parts = Vec::new();
        match (self.file.is_empty(), self.line) {
            (true, _) => {}
            (false, Some(line)) => parts.push(format!("{}:{line}", self.file)),
            (false, None) => parts.push(self.file.clone()),
        }
        parts.extend(self.object.clone());
        parts.extend((!self.field.is_empty()).then(|| self.field.clone()));
        parts.push(self.why.clone());
        parts.join(": ")
    }

    /// With file and line.
    fn placed(self, file: &str, first: usize, document: &str) -> Self {
        let found = self.line.or_else(|| line_of(document, self.text.as_deref(), &self.field));
        Self { file: file.to_owned(), line: Some(first + found.unwrap_or(1) - 1), ..self }
    }
}

/// The line of a document that has a text in it, or else the last name of a field.
fn line_of(document: &str, text: Option<&str>, field: &str) -> Option<usize> {
    let start = text.and_then(|text| text.lines().find(|line| !line.trim().is_empty()));
    let name = field.rsplit('.').next().and_then(|last| last.split('[').next()).filter(|name| !name.is_empty());
    let find = |part: &str| document.lines().position(|line| line.contains(part)).map(|at| at + 1);
    start.and_then(|start| find(start.trim())).or_else(|| find(&format!("{}:", name?)))
}

/// An object of one of the kinds.
enum Read {
    Rule(Box<Object<crate::kinds::ImageRuleSpec>>, bool),
    Runtime(Box<Object<crate::kinds::RuntimeRuleSpec>>, bool),
    Exception(Object<crate::kinds::RuleExceptionSpec>),
    Trust(Object<crate::kinds::SignerTrustSpec>),
    Access(Box<Object<crate::kinds::RegistryAccessSpec>>),
}

/// What an object says it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

fn fault(field: &str, why: impl Into<String>) -> Fault {
    Fault { field: field.to_owned(), why: why.into(), text: None }
}

/// Which spec an object has.
#[derive(Clone, Copy)]
enum KindOf {
    Rule(bool),
    Runtime(bool),
    Exception,
    Trust,
    Access,
}

fn kind_of(head: &Head) -> Result<KindOf, Box<LoadError>> {
    let error = |field: &str, why: String| Box::new(LoadError { field: field.to_owned(), why, ..LoadError::default() });
    if head.api_version != API_VERSION {
        return Err(error("apiVersion", format!("it is `{}`, and must be `{API_VERSION}`", head.api_version)));
    }
    Ok(match head.kind.as_str() {
        "ImageRule" => KindOf::Rule(true),
        "ClusterImageRule" => KindOf::Rule(false),
        "RuntimeRule" => KindOf::Runtime(true),
        "ClusterRuntimeRule" => KindOf::Runtime(false),
        "RuleException" => KindOf::Exception,
        "SignerTrust" => KindOf::Trust,
        "RegistryAccess" => KindOf::Access,
        other => {
            let known = [
                "ImageRule",
                "ClusterImageRule",
                "RuntimeRule",
                "ClusterRuntimeRule",
                "RuleException",
                "SignerTrust",
                "RegistryAccess",
            ];
            return Err(error("kind", format!("there is no kind `{other}`{}", meant(other, known.into_iter()))));
        }
    })
}

fn read(
    of: &mut dyn FnMut(KindOf) -> Result<Read, Box<LoadError>>,
    head: Result<Head, Box<LoadError>>,
) -> Result<Read, Vec<LoadError>> {
    head.and_then(|head| kind_of(&head)).and_then(of).map_err(|error| vec![*error])
}

fn read_yaml(document: &str) -> Result<Read, Vec<LoadError>> {
    let head = serde_yaml_ng::from_str(document).map_err(|error| yaml_error(&error));
    read(&mut |kind| of_yaml(kind, document), head)
}

fn of_yaml(kind: KindOf, document: &str) -> Result<Read, Box<LoadError>> {
    fn object<S: DeserializeOwned>(document: &str) -> Result<Object<S>, Box<LoadError>> {
        serde_yaml_ng::from_str(document).map_err(|error| yaml_error(&error))
    }
    Ok(match kind {
        KindOf::Rule(is_namespaced) => Read::Rule(Box::new(object(document)?), is_namespaced),
        KindOf::Runtime(is_namespaced) => Read::Runtime(Box::new(object(document)?), is_namespaced),
        KindOf::Exception => Read::Exception(object(document)?),
        KindOf::Trust => Read::Trust(object(document)?),
        KindOf::Access => Read::Access(Box::new(object(document)?)),
    })
}

fn head_of(object: &Value) -> Result<Head, Box<LoadError>> {
    Head::deserialize(object).map_err(|error| LoadError { why: error.to_string(), ..LoadError::default() }.into())
}

fn of_value(kind: KindOf, value: &Value) -> Result<Read, Box<LoadError>> {
    fn object<S: DeserializeOwned>(value: &Value) -> Result<Object<S>, Box<LoadError>> {
        let name = value.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Value::as_str);
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
        Object::deserialize(value).map_err(|error| {
            Box::new(LoadError {
                object: name.map(|name| format!("{kind} {name}")),
                why: error.to_string(),
                ..LoadError::default()
            })
        })
    }
    Ok(match kind {
        KindOf::Rule(is_namespaced) => Read::Rule(Box::new(object(value)?), is_namespaced),
        KindOf::Runtime(is_namespaced) => Read::Runtime(Box::new(object(value)?), is_namespaced),
        KindOf::Exception => Read::Exception(object(value)?),
        KindOf::Trust => Read::Trust(object(value)?),
        KindOf::Access => Read::Access(Box::new(object(value)?)),
    })
}

/// The parser's words name the field and the line; the line is kept apart, as it counts from the document's start.
fn yaml_error(error: &serde_yaml_ng::Error) -> Box<LoadError> {
    let line = error.location().map(|location| location.line());
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    let (field, why) = match text.split_once(": ") {
        Some((field, why)) if !field.contains(' ') => (field.to_owned(), why),
        _ => (String::new(), text),
    };
    Box::new(LoadError { line, field, why: crate::decision::cut(why, 400), ..LoadError::default() })
}

/// The documents of a text, each with the number of its first line; those without content are none.
pub(crate) fn documents(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let (mut starts, mut at) = (vec![(1, 0)], 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        at += line.len();
        if line.trim_end() == "---" || line.starts_with("--- ") {
            starts.push((number + 2, at));
        }
    }
    let ends: Vec<_> = starts.iter().skip(1).map(|(_, start)| *start).chain([text.len()]).collect();
    starts.into_iter().zip(ends).filter_map(move |((line, start), end)| {
        let document = text.get(start..end)?;
        let document = document.strip_suffix("---\n").or_else(|| document.strip_suffix("---")).unwrap_or(document);
        let is_content = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        document.lines().any(is_content).then_some((line, document))
    })
}

/// Bytes of one file.
const MAX_FILE_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        load([("rules.yaml", text)]).map(|_| ()).expect_err(text).iter().map(ToString::to_string).collect()
    }

    fn rule(spec: &str) -> String {
        let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
        format!("apiVersion: mayfly.dev/v1alpha1\nkind: ClusterImageRule\nmetadata: {{name: x}}\nspec:\n{spec}")
    }

    #[test]
    fn errors_say_file_line_object_field_and_what_to_do() {
        for (text, expected) in [
            (rule("tgas: RequireDigest"), "rules.yaml:5: spec: unknown field `tgas`, expected one of"),
            (rule("tags: Require"), "rules.yaml:5: spec.tags: unknown variant `Require`, expected `RequireDigest` or"),
            (
                rule("validations:\n- name: a\n  expression: \"true &&\n    contaner.name == ''\""),
                "rules.yaml:7: ClusterImageRule x: spec.validations[0].expression: 1:9: `contaner` is not known here: did you mean `container`?",
            ),
            (rule("require: {signatures: {anyOf: [ci]}}"), "there is no signer `ci` in this rule"),
            (rule("signers: [{name: ci}]"), "spec.signers[0]: a signer is known by `keyless` or by `key`"),
            (rule("signers: [{name: a, key: {data: x}}]"), "must be a public key"),
            (
                rule("signers: [{name: a, keyless: {identities: [{issuer: x, subjectRegExp: '('}]}}]"),
                "spec.signers[0].keyless.identities[0].subjectRegExp",
            ),
            (rule("signers: [{name: a, keyless: {identities: [{issuer: x}]}}]"), "write `subject` or `subjectRegExp`"),
            (rule("onUnknown: {maxStaleness: soon}"), "rules.yaml:5: ClusterImageRule x: spec.onUnknown.maxStaleness: it must be a span"),
            (rule("onUnknown: {registry: Allow}"), "unknown variant `Allow`"),
            (rule("match: {workloads: [Deploiment]}"), "did you mean `Deployment`?"),
            (rule("match: {conditions: [{name: a, expression: 'findings.size() > 0'}]}"), "`findings` is not known here"),
            (rule("validations: [{name: a, scope: Pod, expression: 'image.pinned'}]"), "it has no value with `scope: Pod`"),
            (rule("validations: [{name: a, expression: '1'}]"), "it must give true or false, and gives a int"),
            (rule("validations: [{name: a, expression: 'true', reason: bad}]"), "a reason is a code"),
            (rule("validations: [{name: a, expression: 'variables.b'}]"), "`variables` has no field `b`"),
            (rule("variables: [{name: a, expression: 'variables.a'}]"), "`variables` has no field `a`"),
            (rule("rollout: {auditUntil: tomorrow}"), "it must be a time"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n".to_owned(), "rules.yaml:1: apiVersion: it is `v1`, and must be"),
            (
                "apiVersion: mayfly.dev/v1alpha1\nkind: ImageRul\nmetadata: {name: x}\nspec: {}\n".to_owned(),
                "did you mean `ImageRule`?",
            ),
            (
                "apiVersion: mayfly.dev/v1alpha1\nkind: ImageRule\nmetadata: {name: x}\nspec: {}\n".to_owned(),
                "metadata.namespace: an ImageRule is for one namespace",
            ),
            (
                "apiVersion: mayfly.dev/v1alpha1\nkind: RuleException\nmetadata: {name: x}\nspec: {rules: [a], images: [b], reason: c}\n".to_owned(),
                "missing field `expires`",
            ),
            ("a: [".to_owned(), "rules.yaml:"),
        ] {
            let told = errors(&text);
            assert!(told.iter().any(|error| error.contains(expected)), "expected {expected}\nfound {told:#?}");
        }
    }

    #[test]
    fn lines_count_through_the_file_and_every_error_is_told() {
        let good = rule("tags: RequireDigest");
        let text = format!(
            "# a comment\n---\n{good}---\n{}\n---\n{}",
            rule("tgas: x").replace("name: x", "name: y"),
            rule("tags: y")
        );
        let told = errors(&text);
        assert_eq!(told.len(), 2, "{told:#?}");
        assert!(told.first().is_some_and(|error| error.starts_with("rules.yaml:13:")), "{told:#?}");
        let twice = format!("{good}---\n{good}");
        assert!(errors(&twice).iter().any(|error| error.contains("another rule of this name")));
    }

    #[test]
    fn an_object_that_cannot_be_read_keeps_no_other_from_being_in_force() {
        let object = |name: &str, expression: &str| {
            serde_json::json!({"apiVersion": API_VERSION, "kind": "ClusterImageRule",
                "metadata": {"name": name, "uid": "1", "labels": {}}, "status": {"loaded": true},
                "spec": {"validations": [{"name": "a", "expression": expression}]}})
        };
        let objects = [object("good", "image.pinned"), object("bad", "image.pined")];
        let (rules, errors) = Rules::from_objects(&objects);
        assert_eq!(rules.versions().map(|version| version.rule).collect::<Vec<_>>(), ["good"]);
        assert!(
            errors
                .first()
                .is_some_and(|error| error.to_string().starts_with("ClusterImageRule bad: spec.validations[0]"))
        );
        let (again, _) = Rules::from_objects(objects.iter().rev());
        assert_eq!(
            again.versions().collect::<Vec<_>>(),
            rules.versions().collect::<Vec<_>>(),
            "a version is its content's"
        );
    }

    #[test]
    fn hostile_files_end() {
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
        for text in [bomb, &"[".repeat(10_000), &"a: ".repeat(10_000), &"x".repeat(2 << 20), "\u{0}", "---\n---\n--- x"]
        {
            assert!(load([("x", text)]).is_err() || text.starts_with("---"), "{}", text.get(..20).unwrap_or(text));
        }
    }
}
