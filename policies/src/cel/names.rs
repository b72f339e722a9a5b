//! What expressions may name, and what is known of each: `image`, `signatures`, `attestations`, `dna`, `expectation`, `findings`,
//! `container`, `pod`, `object`, `oldObject`, `request`, `namespaceObject`, `variables`, `now`.

use std::{collections::BTreeMap, sync::LazyLock};

use dna::{AttestationFact, ConfigFacts, Dna, Expectation, SignatureFact};
use schemars::{JsonSchema, schema_for};
use serde_json::Value;

use super::{
    check::{self, ATTESTATIONS, VARIABLES},
    kubernetes,
    reads::Reads,
    shape::{Object, Shape},
};

/// What the expressions of one rule may name.
#[derive(Debug, Clone)]
pub(crate) struct Names(check::Names);

impl std::ops::Deref for Names {
    type Target = check::Names;

    fn deref(&self) -> &check::Names {
        &self.0
    }
}

impl Names {
    /// Those that every rule has, its attestations and the variables before.
    pub(crate) fn of(attestations: &[&str], variables: &[(&str, Shape)]) -> Self {
        let object = |name: &str, fields: BTreeMap<String, Shape>| {
            Shape::Object(Object { name: name.to_owned(), fields, open: false }.into())
        };
        let mut names = ROOTS.clone();
        let listed = attestations.iter().map(|name| ((*name).to_owned(), attested()));
        names.insert(ATTESTATIONS.to_owned(), object(ATTESTATIONS, listed.collect()));
        let made = variables.iter().map(|(name, shape)| ((*name).to_owned(), shape.clone()));
        names.insert(VARIABLES.to_owned(), object(VARIABLES, made.collect()));
        Self(names)
    }

    /// Only what a request brings, before anything is looked up.
    pub(crate) fn of_request() -> Self {
        let known = |name: &&String| ["object", "oldObject", "request", "namespaceObject"].contains(&name.as_str());
        let names = ROOTS.keys().filter(known).filter_map(|name| Some((name.clone(), ROOTS.get(name)?.clone())));
        Self(names.collect())
    }
}

/// The shape of a name that every rule has.
pub(crate) fn root(name: &str) -> &'static Shape {
    ROOTS.get(name).unwrap_or(&Shape::Any)
}

/// The shape of one attestation of a list.
pub(crate) fn attestation() -> &'static Shape {
    static SHAPE: LazyLock<Shape> = LazyLock::new(|| {
        let Shape::Object(object) = schema::<AttestationFact>("attestation") else { return Shape::Any };
        let mut fields = object.fields.clone();
        fields.insert("predicate".to_owned(), Shape::Large);
        Shape::Object(Object { name: "attestation".to_owned(), fields, open: false }.into())
    });
    &SHAPE
}

fn attested() -> Shape {
    Shape::list(attestation().clone(), MAX_ATTESTATIONS as u64)
}

/// Whether more is read of an image than how the pod names it.
pub(crate) fn needs_resolved(reads: &BTreeMap<String, Reads>) -> bool {
    reads
        .get("image")
        .is_some_and(|image| image.whole || image.fields.keys().any(|field| RESOLVED.contains(&field.as_str())))
}

/// Whether the image config is read.
pub(crate) fn needs_config(reads: &BTreeMap<String, Reads>) -> bool {
    reads.get("image").is_some_and(|image| image.whole || image.fields.contains_key("config"))
}

static ROOTS: LazyLock<check::Names> = LazyLock::new(|| {
    let digest = || Shape::String(160);
    let image = Shape::object(
        "image",
        false,
        [
            ("reference", Shape::String(1 << 10)),
            ("registry", Shape::String(256)),
            ("repository", Shape::String(256)),
            ("tag", Shape::String(128)),
            ("pinned", Shape::Bool),
            ("role", Shape::String(16)),
            ("name", Shape::String(253)),
            ("digest", digest()),
            ("indexDigest", digest()),
            ("platformDigest", digest()),
            ("platform", Shape::String(64)),
            ("config", schema::<ConfigFacts>("image.config")),
        ],
    );
    let expectation = schema::<Expectation>("expectation");
    let findings = match &expectation {
        Shape::Object(object) => object.fields.get("findings").cloned().unwrap_or(Shape::Any),
        _ => Shape::Any,
    };
    let roots = [
        ("image", image),
        ("signatures", Shape::list(schema::<SignatureFact>("signature"), MAX_SIGNATURES as u64)),
        ("dna", schema::<Dna>("dna")),
        ("expectation", expectation),
        ("findings", findings),
        ("container", kubernetes::container()),
        ("pod", kubernetes::pod_spec()),
        ("object", kubernetes::object()),
        ("oldObject", kubernetes::object()),
        ("request", kubernetes::request()),
        ("namespaceObject", kubernetes::object()),
        ("now", Shape::Timestamp),
    ];
    roots.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect()
});

fn schema<T: JsonSchema>(name: &str) -> Shape {
    let schema = schema_for!(T);
    let json: &Value = schema.as_value();
    match Shape::of_schema(json, name, LIMITS) {
        Shape::Object(object) => {
            Shape::Object(Object { name: name.to_owned(), fields: object.fields.clone(), open: object.open }.into())
        }
        other => other,
    }
}

/// Fields of `image` that the registry has to be asked for.
const RESOLVED: [&str; 5] = ["digest", "indexDigest", "platformDigest", "platform", "config"];
/// Signatures by a rule's signers; the newest count.
pub(crate) const MAX_SIGNATURES: usize = 50;
/// Attestations of one name; the newest count.
pub(crate) const MAX_ATTESTATIONS: usize = 8;
/// How long lists of a DNA and of what follows from it may be: some times what large images have. An image that has more is an
/// error of the evaluation.
const LIMITS: &[(&str, u64)] = &[
    ("dna.programs", 50_000),
    ("dna.layers", 500),
    ("dna.unknowns", 10_000),
    ("dna.folders", 10_000),
    ("Behavior.exec", 10_000),
    ("Behavior.load", 10_000),
    ("Behavior.syscalls", 512),
    ("Behavior.capabilities", 64),
    ("Behavior.listen", 1_000),
    ("Behavior.connect", 10_000),
    ("Behavior.write", 10_000),
    ("Behavior.read", 10_000),
    ("Program.runs", 1_000),
    ("expectation.findings", 1_000),
    ("expectation.granted", 64),
    ("expectation.writable", 1_000),
    ("expectation.unknowns", 10_000),
];
