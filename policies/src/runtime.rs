//! Rules of run time: from a deviation, and what is known around it, to what comes of it. Pure.
//!
//! ```text
//! Seen { deviation, activity, place, pod, dna, expectation } ─fits?─► ─when?─► rules that are about it ─settle─► Verdict
//! ```
//!
//! Where several rules are about one deviation:
//!
//! - of severities the highest holds;
//! - sinks and responses add up, and a response is for real where one of its rules says so;
//! - it is ignored where any rule ignores it whose time is not over, and nothing is done about it then. But a rule of a namespace ignores
//!   nothing that a rule of the cluster gives a severity, sinks or a response to, or might: one that could not be evaluated may have been
//!   about it.
//!
//! A rule that cannot be evaluated does nothing but say so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use dna::{Activity, Deviation, Digest, Dna, Expectation, ImageUse, Role};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    cel::{self, Compiled, Frame, Given, Lack, Lookup, Made, Names, Outcome, Reads, glob, make, runtime_root},
    decision::{RuleVersion, cut},
    kinds::{Ignore, Metadata, ResponseAction, RuntimeRuleSpec, Severity, Then},
    rules::{self, Builder, Fault, any, trace_variables},
};

/// Rules of run time that are in force.
#[derive(Debug, Default)]
pub struct RuntimeRules {
    rules: Vec<RuntimeRule>,
    /// What all of them together read of each name.
    reads: BTreeMap<String, Reads>,
}

/// One of them, every expression compiled.
#[derive(Debug)]
pub struct RuntimeRule {
    name: String,
    namespace: Option<String>,
    version: Digest,
    spec: RuntimeRuleSpec,
    variables: Vec<(String, Compiled)>,
    /// Conditions, and the places of the variables that each needs.
    when: Vec<(String, Compiled, BTreeSet<usize>)>,
    /// When what it ignores is ignored no more.
    until: Option<Timestamp>,
    reads: BTreeMap<String, Reads>,
    disabled: AtomicBool,
}

/// A deviation, and what is known around it.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// What was not expected.
    pub deviation: &'a Deviation,
    /// The act. Its time is the time by which something is still ignored.
    pub activity: &'a Activity,
    /// Where.
    pub place: Where<'a>,
    /// The pod, as the cluster has it; made when a rule asks for it.
    pub pod: &'a (dyn Fn() -> Option<Value> + Sync),
    /// The image's DNA, its programs left out.
    pub dna: &'a (dyn Fn() -> Option<Dna> + Sync),
    /// What the container was bound to.
    pub expectation: &'a (dyn Fn() -> Option<Expectation> + Sync),
}

impl std::fmt::Debug for Seen<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (deviation, place) = (&self.deviation, &self.place);
        formatter.debug_struct("Seen").field("deviation", deviation).field("place", place).finish_non_exhaustive()
    }
}

/// Where a deviation was seen; what is not known is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Where<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The workload, `Deployment/web`.
    pub owner: &'a str,
    /// The pod's name.
    pub pod: &'a str,
    /// The container's name.
    pub container: &'a str,
    /// The image as the pod names it.
    pub image: &'a str,
    /// The image's digest.
    pub digest: &'a str,
}

/// What comes of a deviation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Verdict {
    /// How grave it is, where a rule says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// It is ignored, and by which rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignored: Option<Ignored>,
    /// The only sinks that are told, where rules name any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<BTreeSet<String>>,
    /// What is to be done about it, the mildest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub responses: Vec<Planned>,
    /// The rules that are about it, and those of which that could not be told, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Applied>,
}

/// That a deviation is ignored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ignored {
    /// Until when.
    #[schemars(with = "String")]
    pub until: Timestamp,
    /// The rule; of a namespace, `NAMESPACE/NAME`.
    pub rule: String,
    /// Why.
    pub reason: String,
}

/// Something that rules want done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Planned {
    /// What.
    pub action: ResponseAction,
    /// It is only told.
    #[serde(default = "yes")]
    pub dry_run: bool,
    /// The rules that want it.
    pub rules: BTreeSet<String>,
}

const fn yes() -> bool {
    true
}

/// A rule that is about a deviation, or might be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Applied {
    /// Which, and in which version.
    #[serde(flatten)]
    pub rule: RuleVersion,
    /// What it says comes of it.
    pub then: Then,
    /// Why it, or a part of it, does nothing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// It could not be evaluated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

impl Applied {
    /// What it does, in a sentence.
    #[must_use]
    pub fn told(&self) -> String {
        let Then { severity, ignore, notify, response } = &self.then;
        let mut parts = Vec::new();
        parts.extend(severity.map(|severity| format!("severity {}", severity.name())));
        parts.extend(ignore.as_ref().map(|ignore| format!("ignored until {}: {}", ignore.until, ignore.reason)));
        parts.extend(notify.as_ref().map(|sinks| match sinks.as_slice() {
            [] => "nobody is told".to_owned(),
            sinks => format!("told to {}", sinks.join(", ")),
        }));
        parts.extend(response.iter().map(|response| {
            let dry = if response.dry_run { " (dry run)" } else { "" };
            format!("response {}{dry}", response.action.name())
        }));
        let effect = parts.join(", ");
        match &self.note {
            Some(note) if self.failed => format!("{}: cannot be evaluated, does nothing: {note}", self.rule.rule),
            Some(note) => format!("{}: {effect} ({note})", self.rule.rule),
            None => format!("{}: {effect}", self.rule.rule),
        }
    }
}

impl Verdict {
    /// The risk by the rules, of what was found.
    #[must_use]
    pub fn risk(&self, found: f64) -> f64 {
        match self.severity.map(Severity::risks) {
            Some((least, most)) => found.clamp(least, most),
            None => found,
        }
    }
}

impl RuntimeRules {
    /// What comes of a deviation.
    #[must_use]
    pub fn decide(&self, seen: &Seen<'_>) -> Verdict {
        self.decide_observed(seen, &mut |_| {})
    }

    /// The same, telling each rule before it is asked.
    pub(crate) fn decide_observed(&self, seen: &Seen<'_>, observe: &mut dyn FnMut(&RuntimeRule)) -> Verdict {
        if self.rules.is_empty() {
            return Verdict::default();
        }
        let documents = Documents::new(self, seen);
        let asked = self.rules.iter().map(|rule| {
            observe(rule);
            (rule, rule.about(seen, &documents))
        });
        let asked: Vec<Asked<'_>> = asked.filter(|(_, said)| *said != Ok(false)).collect();
        settle(&asked, seen.activity.at)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Takes a rule out of evaluation, in a version: it cannot be evaluated from now on. Whether there is such a rule and it was not taken out
    /// before.
    pub fn disable(&self, rule: &RuleVersion) -> bool {
        let found = self.rules.iter().find(|known| known.version() == *rule);
        found.is_some_and(|rule| !rule.disabled.swap(true, Ordering::Relaxed))
    }

    /// Rules that were taken out of evaluation.
    pub fn disabled(&self) -> impl Iterator<Item = RuleVersion> + '_ {
        self.rules.iter().filter(|rule| rule.is_disabled()).map(RuntimeRule::version)
    }

    /// Whether any of them asks for this: a name of their expressions.
    #[must_use]
    pub fn reads(&self, name: &str) -> bool {
        self.reads.contains_key(name)
    }

    /// Each rule and its version.
    pub fn versions(&self) -> impl Iterator<Item = RuleVersion> + '_ {
        self.rules.iter().map(RuntimeRule::version)
    }

    /// The sinks that rules name, each with the rule that does: for whoever knows which there are.
    pub fn sinks(&self) -> impl Iterator<Item = (RuleVersion, &str)> + '_ {
        let named = self.rules.iter().map(|rule| (rule, rule.spec.then.notify.as_deref().unwrap_or_default()));
        named.flat_map(|(rule, sinks)| sinks.iter().map(|sink| (rule.version(), sink.as_str())))
    }

    pub(crate) fn has(&self, metadata: &Metadata) -> bool {
        self.rules.iter().any(|rule| rule.name == metadata.name && rule.namespace == metadata.namespace)
    }

    pub(crate) fn push(&mut self, rule: RuntimeRule) {
        for (name, reads) in &rule.reads {
            self.reads.entry(name.clone()).or_default().add(reads);
        }
        let at = self.rules.partition_point(|known| known.id() < rule.id());
        self.rules.insert(at, rule);
    }
}

/// A rule, and whether it is about a deviation, or why that cannot be told.
type Asked<'r> = (&'r RuntimeRule, Result<bool, String>);

/// What rules come to together. `asked`: by name, those that are about it and those that failed.
fn settle(asked: &[Asked<'_>], at: Timestamp) -> Verdict {
    let about = || asked.iter().filter(|(_, said)| said.is_ok()).map(|(rule, _)| *rule);
    let claims = |rule: &RuntimeRule| rule.namespace.is_none() && rule.spec.then.ignore.is_none();
    let claimed = asked.iter().map(|(rule, _)| *rule).find(|rule| claims(rule));
    let holds = |rule: &RuntimeRule| rule.namespace.is_none() || claimed.is_none();
    let ignoring = about().filter(|rule| holds(rule)).filter_map(|rule| {
        let Ignore { reason, .. } = rule.spec.then.ignore.as_ref()?;
        let until = rule.until.filter(|until| at < *until)?;
        Some(Ignored { until, rule: rule.id(), reason: reason.clone() })
    });
    // The one that lasts longest; of those the last by name.
    let ignored = ignoring.max();
    let mut responses: BTreeMap<ResponseAction, Planned> = BTreeMap::new();
    let mut notify: Option<BTreeSet<String>> = None;
    for rule in about().filter(|_| ignored.is_none()) {
        for response in &rule.spec.then.response {
            let rules = BTreeSet::new();
            let planned =
                responses.entry(response.action).or_insert(Planned { action: response.action, dry_run: true, rules });
            planned.dry_run &= response.dry_run;
            planned.rules.insert(rule.id());
        }
        if let Some(sinks) = &rule.spec.then.notify {
            notify.get_or_insert_default().extend(sinks.iter().cloned());
        }
    }
    let applied = asked.iter().map(|(rule, said)| {
        let note = match (said, rule.until, &ignored) {
            (Err(why), ..) => Some(cut(why, MAX_NOTE)),
            (Ok(_), Some(until), _) if until <= at => Some(format!("its time was over at {until}")),
            (Ok(_), Some(_), _) if !holds(rule) => {
                claimed.map(|other| format!("does not hold, as {} of the cluster is about it too", other.id()))
            }
            (Ok(_), None, Some(ignored)) => Some(format!("{} ignores it", ignored.rule)),
            _ => None,
        };
        Applied { rule: rule.version(), then: rule.spec.then.clone(), note, failed: said.is_err() }
    });
    Verdict {
        severity: about().filter_map(|rule| rule.spec.then.severity).max(),
        notify,
        responses: responses.into_values().collect(),
        rules: applied.collect(),
        ignored,
    }
}

impl RuntimeRule {
    pub(crate) fn new(metadata: &Metadata, spec: RuntimeRuleSpec) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let version = rules::version(metadata, &spec, &mut faults);
        let mut builder = Builder { faults, cost: 0 };
        let until = builder.time("spec.then.ignore.until", spec.then.ignore.as_ref().map(|it| it.until.as_str()));
        builder.effects(&spec);
        let (variables, shapes) = builder.variables(&spec.variables, Names::of_runtime);
        let known: Vec<_> = shapes.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
        let compiled = builder.conditions("spec.when", &spec.when, &Names::of_runtime(&known));
        builder.end()?;
        let (mut when, mut reads) = (Vec::new(), BTreeMap::<String, Reads>::new());
        for (name, condition) in compiled {
            let mut read = condition.names().clone();
            let needed = trace_variables(&mut read, &variables);
            for (name, read) in &read {
                reads.entry(name.clone()).or_default().add(read);
            }
            when.push((name, condition, needed));
        }
        let (name, namespace) = (metadata.name.clone(), metadata.namespace.clone());
        let disabled = AtomicBool::new(false);
        Ok(Self { name, namespace, version, spec, variables, when, until, reads, disabled })
    }

    /// What it says.
    #[must_use]
    pub const fn spec(&self) -> &RuntimeRuleSpec {
        &self.spec
    }

    /// Its name; of a rule of a namespace `NAMESPACE/NAME`.
    #[must_use]
    pub fn id(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }

    pub(crate) fn version(&self) -> RuleVersion {
        RuleVersion { rule: self.id(), version: self.version.clone() }
    }

    /// Whether it is about a deviation; an error says why that cannot be told.
    fn about(&self, seen: &Seen<'_>, documents: &Documents<'_>) -> Result<bool, String> {
        Ok(self.fits(seen, documents)? && self.holds(documents)?)
    }

    fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Relaxed)
    }

    /// Whether a deviation is of a class and place that it names. What is not known of a place fits no name, and is no other place.
    fn fits(&self, seen: &Seen<'_>, documents: &Documents<'_>) -> Result<bool, String> {
        let (matches, place) = (&self.spec.matches, &seen.place);
        if !(self.spec.classes.is_empty() || self.spec.classes.contains(&seen.deviation.class)) {
            return Ok(false);
        }
        if self.namespace.as_ref().is_some_and(|namespace| namespace != place.namespace) {
            return Ok(false);
        }
        let one_of = |globs: &[String], name: &str| globs.iter().any(|pattern| glob(pattern, name));
        let namespaces = &matches.namespaces;
        let lists = [
            ("namespace", &namespaces.names, &namespaces.exclude, place.namespace),
            ("workload", &matches.workloads, &Vec::new(), place.owner),
            ("container's name", &matches.containers, &Vec::new(), place.container),
        ];
        let mut unknown = None;
        for (what, include, exclude, name) in lists {
            if include.is_empty() && exclude.is_empty() {
                continue;
            }
            if name.is_empty() {
                unknown = unknown.or(Some(format!("the {what} is not known")));
            } else if !(include.is_empty() || one_of(include, name)) || one_of(exclude, name) {
                return Ok(false);
            }
        }
        let images = &matches.images;
        if !(images.include.is_empty() && images.exclude.is_empty()) {
            if place.image.is_empty() {
                unknown = unknown.or(Some("the image is not known".to_owned()));
            } else {
                let (reference, name) = (place.image.to_owned(), place.container.to_owned());
                let named = rules::named(ImageUse { role: Role::Container, name, reference });
                let is_in = |globs: &[String]| any(globs, &named.registry, &named.repository, named.tag.as_deref());
                if !(images.include.is_empty() || is_in(&images.include)) || is_in(&images.exclude) {
                    return Ok(false);
                }
            }
        }
        if !matches.pod_labels.is_empty() {
            match documents.object() {
                None => unknown = unknown.or(Some("the pod's labels are not known".to_owned())),
                Some(pod) => {
                    let has = |(name, value): (&String, &String)| {
                        let labels = pod.get("metadata").and_then(|metadata| metadata.get("labels"));
                        labels.and_then(|labels| labels.get(name)).and_then(Value::as_str) == Some(value)
                    };
                    if !matches.pod_labels.iter().all(has) {
                        return Ok(false);
                    }
                }
            }
        }
        unknown.map_or(Ok(true), Err)
    }

    /// Whether all its conditions are true.
    fn holds(&self, documents: &Documents<'_>) -> Result<bool, String> {
        if self.when.is_empty() {
            return Ok(true);
        }
        if self.is_disabled() {
            return Err("it takes too long to evaluate, and is taken out until it is changed".to_owned());
        }
        let given = Given::new(documents);
        let mut frame = Frame::new(&given);
        let mut evaluated = BTreeSet::<usize>::new();
        for (name, condition, needed) in &self.when {
            for at in needed.iter().filter(|at| !evaluated.contains(*at)) {
                let Some((name, compiled)) = self.variables.get(*at) else { continue };
                let name = format!("{}.{name}", cel::VARIABLES);
                match frame.evaluate(compiled) {
                    Outcome::Value(value) => frame.bind(name, value),
                    Outcome::Lacks(lacks) => lacks.into_iter().for_each(|lack| frame.lack(name.clone(), lack)),
                    Outcome::Error(error) => frame.lack(name.clone(), Lack::Error(format!("`{name}`: {error}"))),
                }
            }
            evaluated.extend(needed);
            let why = match frame.evaluate(condition) {
                Outcome::Value(value) => match cel::as_bool(&*value) {
                    Some(true) => continue,
                    Some(false) => return Ok(false),
                    None => "it gives neither true nor false".to_owned(),
                },
                Outcome::Lacks(lacks) => cel::told(&lacks),
                Outcome::Error(error) => error,
            };
            return Err(format!("condition {name}: {why}"));
        }
        Ok(true)
    }
}

impl Builder {
    /// What a rule of run time does, and about what.
    fn effects(&mut self, spec: &RuntimeRuleSpec) {
        let then = &spec.then;
        let does_else = then.severity.is_some() || then.notify.is_some() || !then.response.is_empty();
        if let Some(ignore) = &then.ignore {
            if does_else {
                self.fault("spec.then.ignore", "what is ignored has nothing else come of it: write two rules");
            }
            if ignore.reason.trim().is_empty() {
                self.fault("spec.then.ignore.reason", "say why, for those who read alerts");
            }
            let is_of_all = spec.matches == Default::default() && spec.classes.is_empty() && spec.when.is_empty();
            if is_of_all {
                self.fault("spec.then.ignore", "it would ignore everything: say what, by `match`, `classes` or `when`");
            }
        } else if !does_else {
            self.fault("spec.then", "nothing comes of it: write `severity`, `ignore`, `notify` or `response`");
        }
        let mut actions = BTreeSet::new();
        for (at, response) in then.response.iter().enumerate() {
            if !actions.insert(response.action) {
                self.fault(format!("spec.then.response[{at}].action"), "it is there twice: write it once");
            }
        }
        let mut names = BTreeSet::new();
        for (at, condition) in spec.when.iter().enumerate() {
            if !names.insert(condition.name.as_str()) {
                self.fault(format!("spec.when[{at}].name"), format!("there are two conditions `{}`", condition.name));
            }
        }
    }
}

/// The values that expressions name, made when the first of them asks, as far as any rule reads them.
struct Documents<'a> {
    rules: &'a RuntimeRules,
    seen: &'a Seen<'a>,
    object: OnceLock<Option<Value>>,
    made: [(&'static str, Cell); 8],
}

type Cell = OnceLock<Result<Made, Lack>>;

impl<'a> Documents<'a> {
    fn new(rules: &'a RuntimeRules, seen: &'a Seen<'a>) -> Self {
        let names = ["deviation", "activity", "place", "dna", "expectation", "object", "pod", "container"];
        Self { rules, seen, object: OnceLock::new(), made: names.map(|name| (name, Cell::new())) }
    }

    /// The whole pod.
    fn object(&self) -> Option<&Value> {
        self.object.get_or_init(self.seen.pod).as_ref()
    }

    fn make<T: Serialize + ?Sized>(&self, name: &str, value: Option<&T>) -> Result<Made, Lack> {
        let nothing = Reads::default();
        let reads = self.rules.reads.get(name).unwrap_or(&nothing);
        let value = value.ok_or_else(|| Lack::Absent { what: format!("`{name}`"), tried: Vec::new() })?;
        make(value, reads, runtime_root(name)).map_err(|error| Lack::Error(format!("`{name}`: {error}")))
    }

    fn value_of(&self, name: &str) -> Result<Made, Lack> {
        let seen = self.seen;
        let spec = || self.object()?.get("spec");
        match name {
            "deviation" => self.make(name, Some(seen.deviation)),
            "activity" => self.make(name, Some(seen.activity)),
            "place" => self.make(name, Some(&seen.place)),
            "dna" => self.make(name, (seen.dna)().as_ref()),
            "expectation" => self.make(name, (seen.expectation)().as_ref()),
            "object" => self.make(name, self.object()),
            "pod" => self.make(name, spec()),
            _ => {
                let lists = ["containers", "initContainers", "ephemeralContainers"];
                let all = lists.iter().filter_map(|list| spec()?.get(*list)?.as_array()).flatten();
                let mut named = all.filter(|one| one.get("name").and_then(Value::as_str) == Some(seen.place.container));
                self.make(name, named.next())
            }
        }
    }
}

impl Lookup for Documents<'_> {
    fn value(&self, name: &str, _: bool) -> Option<Result<&Made, Lack>> {
        let (_, cell) = self.made.iter().find(|(known, _)| *known == name)?;
        Some(cell.get_or_init(|| self.value_of(name)).as_ref().map_err(Clone::clone))
    }
}

/// Characters of a note on an alert.
const MAX_NOTE: usize = 300;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
