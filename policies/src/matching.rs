//! Which rules are asked about a request, what they need to know, and whether an update changes anything that they read.

use std::collections::{BTreeMap, BTreeSet};

use dna::{ImageUse, NamedImage, Workload};
use serde::Serialize;
use serde_json::Value;

use crate::{
    cel::{self, Frame, Given, Outcome, Reads, Shape, glob},
    documents::Documents,
    kinds::{CustomPath, DnaFrom, Scope, Tags, Templates},
    review::{GroupVersionKind, Review},
    rules::{Rule, Rules},
};

/// A rule that is asked about a request.
#[derive(Debug)]
pub struct Matching<'r> {
    /// The rule.
    pub rule: &'r Rule,
    /// Conditions that could not be evaluated: names, and why. The rule applies, and says so.
    pub(crate) faults: Vec<(String, String)>,
}

/// What must be known of an image for the rules that are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Needs {
    /// What the reference leads to.
    pub digest: bool,
    /// The image config.
    pub config: bool,
    /// Ids of signers whose signatures or attestations count.
    pub signers: BTreeSet<String>,
    /// Signatures.
    pub signatures: bool,
    /// Kinds of attestations.
    pub attestations: BTreeSet<String>,
    /// A DNA: the image's own, or bound to the pod.
    pub dna: bool,
    /// What known images say of it.
    pub kinship: bool,
    /// The DNA bound to the pod, with findings.
    pub expectation: bool,
    /// Parts of the DNA that not every index of it keeps: programs, evidence, layers.
    pub full_dna: bool,
    /// Ids of signers whose word counts about what an image does.
    pub dna_signers: BTreeSet<String>,
    /// A rule takes what is worked out here.
    pub dna_analyzed: bool,
    /// Platforms that must be judged beside those the pod can land on; `*`: all.
    pub platforms: BTreeSet<String>,
}

impl Needs {
    /// Whether signatures or attestations are to be looked for.
    #[must_use]
    pub fn who_vouches(&self) -> bool {
        self.signatures || !self.attestations.is_empty() || !self.dna_signers.is_empty()
    }
}

impl Rules {
    /// Where the rules look for the pod in an object; none where nobody does.
    #[must_use]
    pub fn pod_spec<'v>(&self, kind: &GroupVersionKind, object: &'v Value) -> Option<&'v Value> {
        if let Some(path) = Workload::path(&kind.group, &kind.kind) {
            return object.pointer(path)?.get("spec");
        }
        let path = self.rules.iter().flat_map(|rule| &rule.spec.matches.custom_paths).find(|path| is_of(path, kind))?;
        path.pod_template.split('.').try_fold(object, |value, field| value.get(field))?.get("spec")
    }

    /// The rules that are asked about a request, whatever its images are.
    #[must_use]
    pub fn matching<'r>(&'r self, review: &Review) -> Vec<Matching<'r>> {
        self.matching_observed(review, &mut |_| {})
    }

    /// The same; `observe` is told which rule is asked next.
    pub(crate) fn matching_observed<'r>(
        &'r self,
        review: &Review,
        observe: &mut dyn FnMut(&Rule),
    ) -> Vec<Matching<'r>> {
        let documents = Documents::new(self, review, None);
        let asked = self.rules.iter().inspect(|rule| observe(rule));
        asked.filter_map(|rule| matches(rule, review, &documents)).collect()
    }

    /// Whether an update leaves everything as it is that these rules judge by: its images, and each field that they read. `images`
    /// and `old_images` are those of the object as it would be and as it was.
    ///
    /// Decided by comparison alone: what an owner, a label or an annotation says of it is no reason.
    #[must_use]
    pub fn unchanged(
        &self,
        review: &Review,
        matching: &[Matching<'_>],
        images: &BTreeSet<ImageUse>,
        old_images: &BTreeSet<ImageUse>,
    ) -> bool {
        if review.request.operation != "UPDATE" || review.old_object.is_null() || !images.is_subset(old_images) {
            return false;
        }
        let pods = [&review.object, &review.old_object].map(|object| self.pod_spec(&review.request.kind, object));
        matching.iter().all(|matching| {
            let rule = matching.rule;
            let conditions = rule.conditions.iter().flat_map(|(_, condition)| condition.names());
            matching.faults.is_empty()
                && rule.reads.iter().chain(conditions).all(|(name, reads)| same(name, reads, review, pods))
        })
    }
}

/// Whether what is read of a name is the same in the object as it would be and as it was.
fn same(name: &str, reads: &Reads, review: &Review, [pod, old_pod]: [Option<&Value>; 2]) -> bool {
    match name {
        // The same image is the same, and what is known of it depends on nothing of the pod.
        "image" | "signatures" | "attestations" | "dna" | "kinship" | "variables" => true,
        "object" => reads.same(Some(&review.object), Some(&review.old_object)),
        "pod" => reads.same(pod, old_pod),
        "container" => ["containers", "initContainers", "ephemeralContainers"].iter().all(|list| {
            let of = |pod: Option<&Value>| pod.and_then(|pod| pod.get(*list)).and_then(Value::as_array).cloned();
            let (new, old) = (of(pod).unwrap_or_default(), of(old_pod).unwrap_or_default());
            let named = |container: &Value| container.get("name").cloned();
            new.iter().all(|container| {
                let before = old.iter().find(|before| named(before) == named(container));
                reads.same(Some(container), before)
            })
        }),
        // What is expected follows from all of a pod's specification.
        "expectation" | "findings" => pod.is_some() && pod == old_pod,
        // Who asks, when, and where: each time anew.
        _ => false,
    }
}

impl Matching<'_> {
    /// Adds what this rule must know of an image, if it is about it.
    pub fn needs(&self, image: &NamedImage, review: &Review, needs: &mut Needs) {
        let rule = self.rule;
        if !rule.is_about(&image.registry, &image.repository, image.tag.as_deref())
            || (rule.spec.templates == Templates::Off && !review.is_pod())
        {
            return;
        }
        let reads = |name: &str| rule.reads.contains_key(name);
        let require = &rule.spec.require;
        let signs = require.signatures.as_ref().map(|signatures| rule.ids(&signatures.any_of)).unwrap_or_default();
        needs.signatures |= require.signatures.is_some() || reads("signatures");
        needs.signers.extend(signs.into_iter().map(str::to_owned));
        if reads("signatures") {
            needs.signers.extend(rule.signers.iter().map(|signer| signer.id.clone()));
        }
        for attestation in &require.attestations {
            needs.attestations.insert(attestation.predicate_type.clone());
            needs.signers.extend(rule.ids(&attestation.from).into_iter().map(str::to_owned));
        }
        needs.expectation |= rule.reads_any(&["expectation", "findings"]);
        needs.kinship |= reads("kinship");
        if require.dna.is_some() || rule.reads_any(&["dna", "kinship", "expectation", "findings"]) {
            needs.dna = true;
            let dna = require.dna.clone().unwrap_or_default();
            needs.dna_signers.extend(rule.ids(&dna.signers).into_iter().map(str::to_owned));
            needs.dna_analyzed |= dna.from.is_empty() || dna.from.iter().any(|from| *from != DnaFrom::Attested);
        }
        needs.full_dna |= rule.reads.get("dna").is_some_and(is_full);
        needs.digest |= needs.signatures
            || !needs.attestations.is_empty()
            || needs.dna
            || rule.spec.tags == Tags::AllowAndBind
            || cel::needs_resolved(&rule.reads);
        needs.config |= cel::needs_config(&rule.reads);
        needs.platforms.extend(rule.spec.platforms.iter().cloned());
    }
}

/// Whether more is read of a DNA than what its start command may do.
fn is_full(dna: &Reads) -> bool {
    let evidence =
        |reads: &Reads| reads.items.as_ref().is_some_and(|item| item.whole || item.fields.contains_key("evidence"));
    dna.whole
        || dna.fields.iter().any(|(field, reads)| match field.as_str() {
            "behavior" => reads.whole || reads.fields.values().any(|dimension| dimension.whole || evidence(dimension)),
            "schema" | "analyzer" | "image" | "start" | "unknowns" => false,
            _ => true,
        })
}

fn is_of(path: &CustomPath, kind: &GroupVersionKind) -> bool {
    let version = if kind.group.is_empty() { kind.version.clone() } else { format!("{}/{}", kind.group, kind.version) };
    path.kind == kind.kind && path.api_version == version
}

fn matches<'r>(rule: &'r Rule, review: &Review, documents: &Documents<'_>) -> Option<Matching<'r>> {
    let (spec, request) = (&rule.spec.matches, &review.request);
    let is_custom = spec.custom_paths.iter().any(|path| is_of(path, &request.kind));
    let is_kind = spec.workloads.is_empty() || spec.workloads.contains(&request.kind.kind);
    if !is_kind || !(is_custom || Workload::path(&request.kind.group, &request.kind.kind).is_some()) {
        return None;
    }
    if rule.namespace.as_ref().is_some_and(|namespace| *namespace != request.namespace) {
        return None;
    }
    let namespaces = &spec.namespaces;
    let named = |globs: &[String]| globs.iter().any(|pattern| glob(pattern, &request.namespace));
    if !(namespaces.names.is_empty() || named(&namespaces.names)) || named(&namespaces.exclude) {
        return None;
    }
    if !review.is_namespace_unknown()
        && namespaces.match_labels.iter().any(|(name, value)| review.namespace_label(name) != Some(value))
    {
        return None;
    }
    let mut faults = Vec::new();
    if !rule.conditions.is_empty() && !rule.is_disabled() {
        let given = Given::new(documents);
        let frame = Frame::new(&given);
        for (name, condition) in &rule.conditions {
            match frame.evaluate(condition) {
                Outcome::Value(value) => match cel::as_bool(&*value) {
                    Some(true) => {}
                    Some(false) => return None,
                    None => faults.push((name.clone(), "it gives neither true nor false".to_owned())),
                },
                Outcome::Lacks(lacks) => faults.push((name.clone(), cel::told(&lacks))),
                Outcome::Error(error) => faults.push((name.clone(), error)),
            }
        }
    }
    Some(Matching { rule, faults })
}

/// Names that rules of a request's images read, with what they may be; for tools that show them.
#[must_use]
pub fn readable() -> BTreeMap<&'static str, String> {
    let names = [
        "image",
        "signatures",
        "dna",
        "kinship",
        "expectation",
        "findings",
        "container",
        "pod",
        "object",
        "request",
        "now",
    ];
    names.into_iter().map(|name| (name, Shape::name(cel::root(name)).to_owned())).collect()
}

/// Whether a validation is one for each image.
pub(crate) fn is_of_image(scope: Scope) -> bool {
    scope == Scope::Image
}
