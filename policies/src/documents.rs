//! The values that expressions name: made of a review when the first expression touches them, as far as any rule reads them, and
//! then shared by all rules.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use dna::{ConfigFacts, Digest, Expectation, Fact, Platform, Role, SubjectFacts};
use serde::Serialize;
use serde_json::Value;

use crate::{
    cel::{Lack, Lookup, Made, Reads, make, root},
    decide::list_of,
    review::Review,
    rules::Rules,
};

/// Values of a review, and of one of its images.
pub(crate) struct Documents<'r> {
    rules: &'r Rules,
    review: &'r Review,
    pod: Option<&'r Value>,
    shared: Shared,
    image: Option<OfImage<'r>>,
    parent: Option<&'r Documents<'r>>,
}

type Cell = OnceLock<Result<Made, Lack>>;

#[derive(Default)]
struct Shared {
    object: Cell,
    old_object: Cell,
    namespace: Cell,
    request: Cell,
    pod: Cell,
    now: Option<Result<Made, Lack>>,
}

/// Of one image.
struct OfImage<'r> {
    facts: &'r SubjectFacts,
    container: Option<&'r Value>,
    named: Cell,
    resolved: Cell,
    container_made: Cell,
    dna: Cell,
    kinship: Cell,
    bound: Arc<Bound>,
}

/// Of one expectation.
#[derive(Default)]
struct Bound {
    expectation: Cell,
    findings: Cell,
}

/// What was made of the expectations asked about last: pods that say the same share one, and what is read of it.
#[derive(Default)]
pub(crate) struct Bounds(Mutex<VecDeque<(Weak<Expectation>, Arc<Bound>)>>);

impl fmt::Debug for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounds").finish_non_exhaustive()
    }
}

impl Bounds {
    fn of(&self, expectation: &Fact<Arc<Expectation>>) -> Arc<Bound> {
        let Fact::Known(expectation) = expectation else { return Arc::default() };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An address is not given away again while there is somebody who holds it, and be it weakly.
        let is_same = |known: &Weak<Expectation>| std::ptr::eq(known.as_ptr(), Arc::as_ptr(expectation));
        if let Some((_, bound)) = kept.iter().find(|(known, _)| is_same(known)) {
            return Arc::clone(bound);
        }
        if kept.len() >= KEPT_BOUNDS {
            kept.pop_front();
        }
        let bound = Arc::default();
        kept.push_back((Arc::downgrade(expectation), Arc::clone(&bound)));
        bound
    }
}

/// As many as the images of pods that come in a burst together.
const KEPT_BOUNDS: usize = 64;

/// `image`, as JSON has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageDocument<'a> {
    reference: &'a str,
    registry: &'a str,
    repository: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    pinned: bool,
    role: Role,
    name: &'a str,
    #[serde(flatten)]
    resolved: Option<ResolvedDocument<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResolvedDocument<'a> {
    digest: &'a Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_digest: Option<&'a Digest>,
    platform_digest: &'a Digest,
    platform: &'a Platform,
    config: &'a ConfigFacts,
}

impl<'r> Documents<'r> {
    /// Of a review. `now`: the time that expressions see; none where they may not ask.
    pub(crate) fn new(rules: &'r Rules, review: &'r Review, now: Option<jiff::Timestamp>) -> Self {
        let pod = rules.pod_spec(&review.request.kind, &review.object);
        let time = now.map(|now| made(&now.to_string()).ok_or_else(|| lack_error("the time cannot be told")));
        Self { rules, review, pod, shared: Shared { now: time, ..Shared::default() }, image: None, parent: None }
    }

    /// Of one of its images.
    pub(crate) fn of(parent: &'r Documents<'r>, facts: &'r SubjectFacts) -> Self {
        let used = &facts.image.used;
        let list = (used.role != Role::Volume).then(|| list_of(used.role));
        let containers = parent.pod.and_then(|pod| pod.get(list?)).and_then(Value::as_array);
        let named = |container: &&Value| container.get("name").and_then(Value::as_str) == Some(&used.name);
        let container = containers.and_then(|containers| containers.iter().find(named));
        let image = OfImage {
            facts,
            container,
            named: Cell::new(),
            resolved: Cell::new(),
            container_made: Cell::new(),
            dna: Cell::new(),
            kinship: Cell::new(),
            bound: parent.rules.bounds.of(&facts.expectation),
        };
        Self {
            rules: parent.rules,
            review: parent.review,
            pod: parent.pod,
            shared: Shared::default(),
            image: Some(image),
            parent: Some(parent),
        }
    }

    fn make<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<Made, Lack> {
        let nothing = Reads::default();
        let reads = self.rules.reads.get(name).unwrap_or(&nothing);
        make(value, reads, root(name)).map_err(|error| Lack::Error(format!("`{name}`: {error}")))
    }

    fn shared_value(&self, name: &str) -> Option<Result<&Made, Lack>> {
        let review = self.review;
        let given = |value: &Value| if value.is_null() { Err(absent(name)) } else { self.make(name, value) };
        let cell = &self.shared;
        let made = match name {
            "object" => cell.object.get_or_init(|| given(&review.object)),
            "oldObject" => cell.old_object.get_or_init(|| given(&review.old_object)),
            "namespaceObject" => cell.namespace.get_or_init(|| given(&review.namespace_object)),
            "request" => cell.request.get_or_init(|| self.make(name, &review.request)),
            "pod" => cell.pod.get_or_init(|| self.pod.map_or_else(|| Err(absent(name)), |pod| self.make(name, pod))),
            "now" => cell.now.as_ref()?,
            _ => return None,
        };
        Some(made.as_ref().map_err(Clone::clone))
    }

    fn image_document(&self, image: &OfImage<'_>, with: bool) -> Result<Made, Lack> {
        let named = &image.facts.image;
        let resolved = match (&image.facts.resolved, with) {
            (_, false) => None,
            (Fact::Known(resolved), true) => Some(ResolvedDocument {
                digest: &resolved.digest,
                index_digest: resolved.index_digest.as_ref(),
                platform_digest: &resolved.platform_digest,
                platform: &resolved.platform,
                config: &resolved.config,
            }),
            (other, true) => return Err(lacking("the image's digest", other)),
        };
        let document = ImageDocument {
            reference: &named.used.reference,
            registry: &named.registry,
            repository: &named.repository,
            tag: named.tag.as_deref(),
            pinned: named.digest.is_some(),
            role: named.used.role,
            name: &named.used.name,
            resolved,
        };
        self.make("image", &document)
    }
}

impl Lookup for Documents<'_> {
    fn value(&self, name: &str, resolved: bool) -> Option<Result<&Made, Lack>> {
        let Some(image) = &self.image else { return self.shared_value(name) };
        let facts = image.facts;
        let made = match name {
            "image" if resolved => image.resolved.get_or_init(|| self.image_document(image, true)),
            "image" => image.named.get_or_init(|| self.image_document(image, false)),
            "container" => image.container_made.get_or_init(|| {
                image.container.map_or_else(|| Err(absent(name)), |container| self.make(name, container))
            }),
            "dna" => image.dna.get_or_init(|| match &facts.dna {
                Fact::Known(dna) => self.make(name, &*dna.document),
                other => Err(lacking("the DNA", other)),
            }),
            "kinship" => image.kinship.get_or_init(|| match &facts.kinship {
                Fact::Known(kinship) => self.make(name, &**kinship),
                other => Err(lacking("the image's family", other)),
            }),
            "expectation" => image.bound.expectation.get_or_init(|| match &facts.expectation {
                Fact::Known(expectation) => self.make(name, &**expectation),
                other => Err(lacking("the expectation", other)),
            }),
            "findings" => image.bound.findings.get_or_init(|| match &facts.expectation {
                Fact::Known(expectation) => self.make(name, &expectation.findings),
                other => Err(lacking("the findings", other)),
            }),
            _ => return self.parent.and_then(|parent| parent.shared_value(name)),
        };
        Some(made.as_ref().map_err(Clone::clone))
    }
}

/// A point in time as a value.
fn made(text: &str) -> Option<Made> {
    crate::cel::timestamp(text)
}

fn absent(name: &str) -> Lack {
    Lack::Absent { what: format!("`{name}`"), tried: Vec::new() }
}

fn lack_error(why: &str) -> Lack {
    Lack::Error(why.to_owned())
}

/// Why there is no value of a fact.
pub(crate) fn lacking<T>(what: &str, fact: &Fact<T>) -> Lack {
    match fact {
        Fact::Known(_) => Lack::Error(format!("{what} cannot be told")),
        Fact::Absent { tried } => Lack::Absent { what: what.to_owned(), tried: tried.clone() },
        Fact::Unknown { cause, detail, .. } => {
            Lack::Unknown { what: what.to_owned(), cause: *cause, detail: detail.clone() }
        }
    }
}
