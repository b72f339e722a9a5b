//! What expressions may name, and what is known of each: `image`, `signatures`, `attestations`, `dna`, `kinship`, `expectation`,
//! `findings`, `container`, `pod`, `object`, `oldObject`, `request`, `namespaceObject`, `variables`, `now`; and in rules of run time `deviation`,
//! `activity`, `place`, `dna`, `expectation`, `pod`, `container`, `object`, `variables`.

use std::{collections::BTreeMap, sync::LazyLock};

use dna::{Activity, AttestationFact, ConfigFacts, Deviation, Dna, Expectation, Kinship, SignatureFact};
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

    /// Those that rules of run time have, and the variables before.
    pub(crate) fn of_runtime(variables: &[(&str, Shape)]) -> Self {
        let mut names = RUNTIME_ROOTS.clone();
        let fields = variables.iter().map(|(name, shape)| ((*name).to_owned(), shape.clone())).collect();
        let variables = Object { name: VARIABLES.to_owned(), fields, open: false };
        names.insert(VARIABLES.to_owned(), Shape::Object(variables.into()));
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

/// The shape of a name that every rule of run time has.
pub(crate) fn runtime_root(name: &str) -> &'static Shape {
    RUNTIME_ROOTS.get(name).unwrap_or(&Shape::Any)
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

/// What known images say of one, without their names: who writes a rule of a namespace need not know what others run.
fn kinship() -> Shape {
    let Shape::Object(object) = schema::<Kinship>("kinship") else { return Shape::Any };
    let mut fields = object.fields.clone();
    fields.retain(|name, _| !NAMES_OF_OTHERS.contains(&name.as_str()));
    Shape::Object(Object { name: "kinship".to_owned(), fields, open: false }.into())
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
        ("kinship", kinship()),
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

static RUNTIME_ROOTS: LazyLock<check::Names> = LazyLock::new(|| {
    let dna = match root("dna") {
        Shape::Object(object) => {
            let mut fields = object.fields.clone();
            fields.retain(|name, _| !NOT_AT_RUN_TIME.contains(&name.as_str()));
            Shape::Object(Object { name: "dna".to_owned(), fields, open: false }.into())
        }
        other => other.clone(),
    };
    let place = Shape::object(
        "place",
        false,
        [
            ("cluster", Shape::String(253)),
            ("namespace", Shape::String(63)),
            ("owner", Shape::String(320)),
            ("pod", Shape::String(253)),
            ("container", Shape::String(253)),
            ("image", Shape::String(1 << 10)),
            ("digest", Shape::String(160)),
        ],
    );
    let of_admission = ["expectation", "container", "pod", "object"].map(|name| (name, root(name).clone()));
    let roots = [
        ("deviation", schema::<Deviation>("deviation")),
        ("activity", schema::<Activity>("activity")),
        ("place", place),
        ("dna", dna),
    ];
    roots.into_iter().chain(of_admission).map(|(name, shape)| (name.to_owned(), shape)).collect()
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
/// Fields of a DNA that a bridge does not keep for rules: most of the document.
const NOT_AT_RUN_TIME: [&str; 1] = ["programs"];
/// Fields of a kinship that name other images.
const NAMES_OF_OTHERS: [&str; 2] = ["members", "nearest"];
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
    ("kinship.unlike", 1_000),
    ("kinship.borrowed", 10_000),
    ("expectation.findings", 1_000),
    ("expectation.granted", 64),
    ("expectation.writable", 1_000),
    ("expectation.unknowns", 10_000),
];
