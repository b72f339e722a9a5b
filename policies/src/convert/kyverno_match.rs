//! Which objects a policy is about: Kyverno's `match` and `exclude`, label selectors, and metadata, as conditions over the request.
//!
//! Source: kyverno, `api/kyverno/v1/match_resources_types.go`, `resource_description_types.go`. A part that cannot be said makes what is meant
//! wider, and what is left out narrower.

use serde_json::Value;

use super::{
    cel,
    fields::{Fields, Notes},
    rule::Draft,
};
use crate::kinds::CustomPath;

/// What is taken of an object's metadata.
#[derive(Debug, Default)]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) description: Option<String>,
    /// Kyverno's list of controllers that a rule about pods is for too.
    pub(super) autogen: Option<String>,
}

/// Metadata, the namespace that it is for, and the `spec` of a policy; none where it has none, which is told.
pub(super) fn opened(
    mut object: Fields,
    is_namespaced: bool,
    notes: &mut Notes,
) -> Option<(Meta, Option<String>, Fields)> {
    let meta = metadata(&mut object, notes);
    let namespace = is_namespaced.then(|| meta.namespace.clone().unwrap_or_else(|| "default".to_owned()));
    let spec = object.part("spec", notes);
    if spec.is_none() {
        notes.weaker("spec", "there is none", "");
    }
    object.end(notes);
    Some((meta, namespace, spec?))
}

pub(super) fn metadata(object: &mut Fields, notes: &mut Notes) -> Meta {
    let mut meta = Meta::default();
    if let Some(mut fields) = object.part("metadata", notes) {
        meta.name = fields.text("name", notes).unwrap_or_default();
        meta.namespace = fields.text("namespace", notes);
        let mut annotations = fields.pairs("annotations", notes);
        let described = annotations.remove("policies.kyverno.io/description");
        meta.description = described.map(|text| crate::decision::cut(text.trim(), 1000));
        meta.autogen = annotations.remove("pod-policies.kyverno.io/autogen-controllers");
        let others =
            ["labels", "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "ownerReferences"];
        let has_others = others.iter().filter(|name| fields.take(name).is_some()).count() > 0;
        if has_others || !annotations.is_empty() {
            notes.same(fields.here(), "labels, annotations and what the API server adds are left out");
        }
        fields.end(notes);
    }
    if meta.name.is_empty() {
        meta.name = "unnamed".to_owned();
    }
    meta
}

/// What a label selector asks for; none where it asks what cannot be said.
pub(super) fn selector(mut fields: Fields, of: &str, notes: &mut Notes) -> Option<Vec<String>> {
    let mut parts = cel::labels(of, &fields.pairs("matchLabels", notes));
    let mut is_whole = true;
    for mut one in fields.parts("matchExpressions", notes) {
        let key = one.text("key", notes).unwrap_or_default();
        let values = one.texts("values", notes);
        let name = cel::quoted(&key);
        let there = format!("has({of}) && {name} in {of}");
        let within = format!("{there} && {of}[{name}] in {}", cel::list(&values));
        match one.text("operator", notes).unwrap_or_default().as_str() {
            "In" => parts.push(within),
            "NotIn" => parts.push(format!("!({within})")),
            "Exists" => parts.push(there),
            "DoesNotExist" => parts.push(format!("!({there})")),
            other => {
                notes.stricter(
                    one.at("operator"),
                    format!("`{other}` is no operator of a selector, and is left out"),
                    "",
                );
                is_whole = false;
            }
        }
        one.end(notes);
    }
    fields.end(notes);
    is_whole.then_some(parts)
}

/// One filter of `match` or `exclude`.
struct Filter {
    kinds: Vec<String>,
    names: Vec<String>,
    namespaces: Vec<String>,
    /// All else, as expressions.
    parts: Vec<String>,
    /// Something of it cannot be said.
    is_partial: bool,
}

/// Lays `match` and `exclude` of a rule over a draft. `extracted` are kinds that the rule says where images are of.
pub(super) fn lay(
    rule: &mut Fields,
    draft: &mut Draft,
    autogen: Option<&str>,
    extracted: &[CustomPath],
    notes: &mut Notes,
) {
    draft.spec.matches.custom_paths = extracted.to_vec();
    if let Some(mut matches) = rule.part("match", notes) {
        let path = matches.here().to_owned();
        let (filters, is_all) = filters(&mut matches, autogen, extracted, false, notes);
        matches.end(notes);
        match filters.as_slice() {
            [] => {}
            [one] => lay_one(one, draft, &path),
            several => {
                let ways: Vec<String> =
                    several.iter().map(|filter| filter.expression().unwrap_or_else(|| "true".to_owned())).collect();
                let expression = if is_all { cel::all(ways) } else { cel::any(ways) };
                draft.condition("match", expression.unwrap_or_else(|| "true".to_owned()), &path);
            }
        }
    }
    if let Some(mut excludes) = rule.part("exclude", notes) {
        let path = excludes.here().to_owned();
        let (filters, is_all) = filters(&mut excludes, autogen, extracted, true, notes);
        excludes.end(notes);
        // Of all that must fit together, one that cannot be said leaves nothing out.
        if is_all && filters.iter().any(|filter| filter.is_partial) {
            return;
        }
        let filters: Vec<_> = filters.into_iter().filter(|filter| !filter.is_partial).collect();
        let only_namespaces = |filter: &Filter| {
            filter.kinds.is_empty()
                && filter.names.is_empty()
                && filter.parts.is_empty()
                && !filter.namespaces.is_empty()
        };
        let mut ways = Vec::new();
        for filter in &filters {
            if only_namespaces(filter) && (!is_all || filters.len() == 1) {
                draft.spec.matches.namespaces.exclude.extend(filter.namespaces.iter().cloned());
            } else {
                ways.extend(filter.expression());
            }
        }
        let expression = if is_all { cel::all(ways) } else { cel::any(ways) };
        if let Some(expression) = expression {
            draft.condition("exclude", format!("!({expression})"), &path);
        }
    }
}

fn lay_one(filter: &Filter, draft: &mut Draft, path: &str) {
    let matches = &mut draft.spec.matches;
    matches.workloads.clone_from(&filter.kinds);
    matches.namespaces.names.clone_from(&filter.namespaces);
    let mut parts = filter.parts.clone();
    parts.extend(filter.named());
    for part in parts {
        draft.condition("match", part, path);
    }
}

impl Filter {
    fn named(&self) -> Option<String> {
        let each = |name: &String| cel::like("object.metadata.name", name);
        let any = cel::any(self.names.iter().map(each).collect())?;
        Some(format!("has(object.metadata.name) && {}", cel::wrapped(&any)))
    }

    /// All of it as one expression; none where it is about everything.
    fn expression(&self) -> Option<String> {
        let mut parts = Vec::new();
        if !self.kinds.is_empty() {
            parts.push(format!("request.kind.kind in {}", cel::list(&self.kinds)));
        }
        let namespace = |name: &String| cel::like("request.namespace", name);
        parts.extend(cel::any(self.namespaces.iter().map(namespace).collect()));
        parts.extend(self.named());
        parts.extend(self.parts.iter().cloned());
        cel::all(parts)
    }
}

/// The filters, and whether all must fit or any.
fn filters(
    fields: &mut Fields,
    autogen: Option<&str>,
    extracted: &[CustomPath],
    is_exclude: bool,
    notes: &mut Notes,
) -> (Vec<Filter>, bool) {
    let any = fields.parts("any", notes);
    let all = fields.parts("all", notes);
    let (parts, is_all) = if all.is_empty() { (any, false) } else { (all, true) };
    let mut filters = Vec::new();
    for mut part in parts {
        if let Some(filter) = filter(&mut part, autogen, extracted, is_exclude, notes) {
            filters.push(filter);
        }
        part.end(notes);
    }
    // As it was written before there were `any` and `all`.
    let is_flat = ["resources", "subjects", "roles", "clusterRoles"].iter().any(|name| fields.has(name));
    if is_flat && let Some(filter) = filter(fields, autogen, extracted, is_exclude, notes) {
        filters.push(filter);
    }
    (filters, is_all)
}

/// One filter; none where it is about no kind that holds pods.
fn filter(
    part: &mut Fields,
    autogen: Option<&str>,
    extracted: &[CustomPath],
    is_exclude: bool,
    notes: &mut Notes,
) -> Option<Filter> {
    let mut filter =
        Filter { kinds: Vec::new(), names: Vec::new(), namespaces: Vec::new(), parts: Vec::new(), is_partial: false };
    let mut is_about_pods = true;
    if let Some(mut resources) = part.part("resources", notes) {
        let written = resources.texts("kinds", notes);
        let path = resources.at("kinds");
        (filter.kinds, is_about_pods) = kinds(&written, autogen, extracted, &path, is_exclude, notes);
        filter.names = resources.texts("names", notes);
        filter.names.extend(resources.text("name", notes));
        filter.namespaces = resources.texts("namespaces", notes);
        filter.parts.extend(cel::labels("object.metadata.annotations", &resources.pairs("annotations", notes)));
        if let Some(labels) = resources.part("selector", notes) {
            match selector(labels, "object.metadata.labels", notes) {
                Some(parts) => filter.parts.extend(parts),
                None => filter.is_partial = true,
            }
        }
        if let Some(labels) = resources.part("namespaceSelector", notes) {
            match selector(labels, "namespaceObject.metadata.labels", notes) {
                Some(parts) => filter.parts.extend(parts),
                None => filter.is_partial = true,
            }
        }
        let operations = resources.texts("operations", notes);
        if !operations.is_empty() && !covers(&operations) {
            filter.parts.push(format!("request.operation in {}", cel::list(&operations)));
        }
        resources.end(notes);
    }
    if let Some(users) = subjects(part, notes) {
        filter.parts.push(users);
    }
    for name in ["roles", "clusterRoles"] {
        if !part.texts(name, notes).is_empty() {
            let why = "who has which role is not looked up; it is taken as if it were not written";
            notes.stricter(part.at(name), why, "name users or groups: request.userInfo");
            filter.is_partial = true;
        }
    }
    is_about_pods.then_some(filter)
}

/// Whether creation and update are both meant.
pub(super) fn covers(operations: &[String]) -> bool {
    let has = |name: &str| operations.iter().any(|operation| operation == name || operation == "*");
    has("CREATE") && has("UPDATE")
}

/// Users and groups.
fn subjects(part: &mut Fields, notes: &mut Notes) -> Option<String> {
    let mut ways = Vec::new();
    for mut subject in part.parts("subjects", notes) {
        let name = subject.text("name", notes).unwrap_or_default();
        let namespace = subject.text("namespace", notes).unwrap_or_default();
        subject.text("apiGroup", notes);
        match subject.text("kind", notes).as_deref() {
            Some("Group") => ways.push(format!("request.userInfo.groups.exists(g, {})", cel::like("g", &name))),
            Some("ServiceAccount") => {
                let user = format!("system:serviceaccount:{namespace}:{name}");
                ways.push(cel::like("request.userInfo.username", &user));
            }
            _ => ways.push(cel::like("request.userInfo.username", &name)),
        }
        subject.end(notes);
    }
    cel::any(ways)
}

/// Kinds as ours are named; empty: all. And whether any of them holds pods.
fn kinds(
    written: &[String],
    autogen: Option<&str>,
    extracted: &[CustomPath],
    path: &str,
    is_exclude: bool,
    notes: &mut Notes,
) -> (Vec<String>, bool) {
    let (mut kinds, mut is_all) = (Vec::new(), written.is_empty());
    for one in written {
        let mut parts = one.split('/').rev();
        let last = parts.next().unwrap_or_default();
        let named = match last {
            "*" | "ephemeralcontainers" | "status" | "scale" => {
                parts.next().filter(|_| one.contains('/')).unwrap_or(last)
            }
            _ => last,
        };
        match named {
            "*" => is_all = true,
            "Pod" if autogen.is_none_or(|list| list != "none") => match autogen {
                None | Some("all" | "") => is_all = true,
                Some(list) => {
                    kinds.push("Pod".to_owned());
                    kinds.extend(
                        list.split(',').map(|kind| kind.trim().to_owned()).filter(|kind| holds(kind, extracted)),
                    );
                }
            },
            kind if holds(kind, extracted) => kinds.push(kind.to_owned()),
            kind if is_exclude => notes.same(path, format!("`{kind}` holds no pods")),
            kind => notes.weaker(
                path,
                format!("where `{kind}` holds a pod is not known"),
                "if it holds a template of pods, declare it in spec.match.customPaths",
            ),
        }
    }
    let is_about_pods = is_all || !kinds.is_empty();
    if is_all {
        kinds.clear();
    }
    kinds.sort();
    kinds.dedup();
    (kinds, is_about_pods)
}

fn holds(kind: &str, extracted: &[CustomPath]) -> bool {
    dna::Workload::kinds().any(|known| known == kind) || extracted.iter().any(|path| path.kind == kind)
}

/// Preconditions that say nothing here: nothing is decided about deletions, and everything has an operation.
pub(super) fn is_about_deletion(conditions: &Value) -> bool {
    let lists: Vec<&Value> = match conditions {
        Value::Array(list) => list.iter().collect(),
        Value::Object(parts) if parts.keys().all(|name| name == "all") => {
            parts.values().filter_map(Value::as_array).flatten().collect()
        }
        _ => return false,
    };
    lists.iter().all(|condition| {
        let text = |name: &str| condition.get(name).and_then(Value::as_str).unwrap_or_default();
        let key: String = text("key").chars().filter(|c| !c.is_whitespace()).collect();
        let key = key.trim_start_matches("{{").trim_end_matches("}}").split("||").next().unwrap_or_default().to_owned();
        key == "request.operation"
            && matches!(text("operator"), "NotEquals" | "NotEqual")
            && condition.get("value").and_then(Value::as_str) == Some("DELETE")
    })
}
