//! Rules and facts in, a decision out: pure, the same in the webhook, on the command line and in every check made again later.
//!
//! All rules that match are asked, and all must pass. What is not known is neither right nor wrong: it denies, unless the rule says
//! for its cause that it may not.

mod dna;
mod expressions;
mod images;
mod signed;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::BTreeSet};

use ::dna::{Cause, Fact, ImageUse, Last, Role, SubjectFacts};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    decision::{About, AdmittedUnknown, Decision, Effect, Reason, UsedException, Verdict},
    documents::Documents,
    kinds::{Action, Enforcement, Scope, Templates, UnknownAction},
    matching::Matching,
    review::Review,
    rules::{self, Rule, Rules},
};

/// Decides a review. `subjects` must hold every image of the object: one that is not among them was not asked about, and that is
/// not known of it denies.
#[must_use]
pub fn decide(review: &Review, rules: &Rules, now: Timestamp) -> Decision {
    decide_observed(review, rules, now, &mut |_| {})
}

/// The same; `observe` is told which rule is asked next.
pub(crate) fn decide_observed(
    review: &Review,
    rules: &Rules,
    now: Timestamp,
    observe: &mut dyn FnMut(&Rule),
) -> Decision {
    let matching = rules.matching_observed(review, observe);
    let shared = Documents::new(rules, review, Some(now));
    let images: Vec<_> = review.subjects.iter().map(|facts| (facts, Documents::of(&shared, facts))).collect();
    let missing = missing(rules, review);
    let mut found = Found::default();
    for matching in &matching {
        if matching.rule.spec.templates == Templates::Off && !review.is_pod() {
            continue;
        }
        observe(matching.rule);
        let mut judge = Judge { rules, review, rule: matching.rule, now, found: &mut found };
        judge.rule(matching, &missing);
        if matching.rule.is_disabled() {
            continue;
        }
        judge.pod(&shared);
        for (facts, documents) in &images {
            judge.image(facts, documents, &shared);
        }
    }
    found.decision(&matching)
}

/// What is found while rules are asked.
#[derive(Default)]
struct Found {
    reasons: BTreeSet<Reason>,
    unknown: BTreeSet<AdmittedUnknown>,
    exceptions: BTreeSet<UsedException>,
    retry: Option<u64>,
}

impl Found {
    fn decision(self, matching: &[Matching<'_>]) -> Decision {
        let worst = self.reasons.iter().map(|reason| reason.effect).min();
        let verdict = match worst {
            Some(Effect::Deny) => Verdict::Deny,
            Some(Effect::Warn) => Verdict::Warn,
            Some(Effect::Audit) | None => Verdict::Allow,
        };
        let mut rules: Vec<_> = matching.iter().map(|matching| matching.rule.version()).collect();
        rules.sort();
        let is_denied = verdict == Verdict::Deny;
        Decision {
            verdict,
            reasons: self.reasons.into_iter().collect(),
            unknown: if is_denied { Vec::new() } else { self.unknown.into_iter().collect() },
            exceptions: self.exceptions.into_iter().collect(),
            rules,
            retry_seconds: self.retry.filter(|_| is_denied),
        }
    }
}

impl Rule {
    /// Whether its `Deny` refuses this request: it is enforced here, and now.
    #[must_use]
    pub fn is_in_force(&self, review: &Review, now: Timestamp) -> bool {
        let is_labelled = || match review.namespace_label(ENFORCE_LABEL) {
            None | Some("false" | "") => false,
            Some("true") => true,
            Some(names) => names.split(['.', ',']).any(|name| name == self.name),
        };
        // A namespace that could not be looked up is not one that was left out.
        let is_here = || review.is_namespace_unknown() || is_labelled();
        !review.audit_only
            && self.audit_until.is_none_or(|until| now >= until)
            && (self.spec.enforcement == Enforcement::Always || is_here())
    }
}

/// One rule, asked about one request.
struct Judge<'a> {
    rules: &'a Rules,
    review: &'a Review,
    rule: &'a Rule,
    now: Timestamp,
    found: &'a mut Found,
}

/// Something that is not as the rule says, before it is known what comes of it.
#[derive(Default)]
struct Complaint<'a> {
    code: Cow<'static, str>,
    check: Option<&'a str>,
    facts: Option<&'a SubjectFacts>,
    /// The validation's own, where it has any.
    actions: &'a [Action],
    expected: String,
    found: String,
    tried: Vec<String>,
    remedy: Cow<'static, str>,
    /// It is milder than the rule's actions say: no more than a warning.
    is_mild: bool,
    unknown: Option<Cause>,
}

impl<'a> Judge<'a> {
    /// What is wrong with the request or the rule as such.
    fn rule(&mut self, matching: &Matching<'_>, missing: &Missing) {
        if self.rule.is_disabled() {
            self.complain(Complaint {
                code: "RULE_DISABLED".into(),
                found: "the rule took too long and was taken out of evaluation".to_owned(),
                remedy: "simplify its expressions, and load it again".into(),
                ..Complaint::default()
            });
        }
        for (name, why) in &matching.faults {
            self.complain(Complaint {
                code: EVALUATION_ERROR.into(),
                check: Some(name),
                found: format!("whether the rule applies cannot be told: {why}"),
                ..Complaint::default()
            });
        }
        match missing {
            Missing::Unreadable(why) => self.complain(Complaint {
                code: "OBJECT_UNREADABLE".into(),
                found: why.clone(),
                remedy: "declare where this kind holds its pod in `customPaths`".into(),
                ..Complaint::default()
            }),
            Missing::Images(names) => {
                for name in names {
                    self.complain(Complaint {
                        code: code(Cause::NotAsked).into(),
                        found: format!("nothing was gathered about the image of `{name}`"),
                        unknown: Some(Cause::NotAsked),
                        ..Complaint::default()
                    });
                }
            }
        }
    }

    /// Validations of the pod itself.
    fn pod(&mut self, shared: &Documents<'_>) {
        if self.rule.checks.iter().any(|check| check.validation.scope == Scope::Pod) {
            self.expressions(None, shared, Scope::Pod);
        }
    }

    /// Everything about one image.
    fn image(&mut self, facts: &'a SubjectFacts, documents: &Documents<'_>, shared: &Documents<'_>) {
        let image = &facts.image;
        if !self.rule.is_about(&image.registry, &image.repository, image.tag.as_deref()) {
            return;
        }
        match self.settled(facts) {
            None => self.of_image(facts, documents),
            // Some of it is from before: for this rule only.
            Some(settled) => {
                let documents = Documents::of(shared, &settled);
                let mut judge = Judge {
                    rules: self.rules,
                    review: self.review,
                    rule: self.rule,
                    now: self.now,
                    found: &mut *self.found,
                };
                judge.of_image(&settled, &documents);
            }
        }
    }

    /// The facts with those that were known before in place of unknown ones, where the rule takes them.
    fn settled(&mut self, facts: &SubjectFacts) -> Option<SubjectFacts> {
        let max = self.rule.max_staleness.filter(|_| keeps_last(facts))?;
        let mut settled = Vec::new();
        let (rule, now) = (self.rule, self.now);
        let mut settle = |what: &'static str, cause: Cause, as_of: &str| -> bool {
            let is_young = as_of.parse::<Timestamp>().is_ok_and(|as_of| now.duration_since(as_of) <= max);
            let takes = is_young && rule.spec.on_unknown.action(cause) == UnknownAction::UseLastVerified;
            if takes {
                settled.push((what, cause, as_of.to_owned()));
            }
            takes
        };
        let mut all = facts.clone();
        take_last(&mut all.resolved, |cause, as_of| settle("the image's digest", cause, as_of));
        take_last(&mut all.signatures, |cause, as_of| settle("the signatures", cause, as_of));
        take_last(&mut all.attestations, |cause, as_of| settle("the attestations", cause, as_of));
        take_last(&mut all.dna, |cause, as_of| settle("the DNA", cause, as_of));
        take_last(&mut all.expectation, |cause, as_of| settle("the expectation", cause, as_of));
        if settled.is_empty() {
            return None;
        }
        for (what, cause, as_of) in settled {
            self.found.unknown.insert(AdmittedUnknown {
                rule: self.rule.id(),
                image: about(&all),
                what: what.to_owned(),
                cause: cause.name().to_owned(),
                as_of: Some(as_of),
            });
        }
        Some(all)
    }

    /// What comes of something that is not as it must be.
    fn effect(&self, complaint: &Complaint<'_>) -> Effect {
        let spec = &self.rule.spec;
        let actions = [complaint.actions, &spec.actions].into_iter().find(|actions| !actions.is_empty());
        let actions = actions.unwrap_or(&[Action::Deny]);
        let is_in_force = self.rule.is_in_force(self.review, self.now);
        let is_mild = complaint.is_mild || (spec.templates == Templates::Warn && !self.review.is_pod());
        match actions.iter().max() {
            Some(Action::Deny) if is_in_force && !is_mild => Effect::Deny,
            Some(Action::Deny) if is_in_force => Effect::Warn,
            _ if actions.contains(&Action::Warn) && !self.review.audit_only => Effect::Warn,
            _ => Effect::Audit,
        }
    }

    fn complain(&mut self, complaint: Complaint<'_>) {
        let image = complaint.facts.map(about);
        if let Some(exception) = self.exception(&complaint) {
            self.found.exceptions.insert(UsedException {
                exception: exception.name.clone(),
                rule: self.rule.id(),
                code: complaint.code.into_owned(),
                image,
                reason: exception.spec.reason.clone(),
                expires: exception.spec.expires.clone(),
            });
            return;
        }
        let effect = self.effect(&complaint);
        if let (Some(cause), Some(image), true) = (complaint.unknown, &image, effect != Effect::Deny) {
            self.found.unknown.insert(AdmittedUnknown {
                rule: self.rule.id(),
                image: image.clone(),
                what: complaint.found.clone(),
                cause: cause.name().to_owned(),
                as_of: None,
            });
        }
        if let (Some(Cause::AnalysisPending { retry_seconds }), Effect::Deny) = (complaint.unknown, effect) {
            let seconds = retry_seconds.unwrap_or(DEFAULT_RETRY_SECONDS);
            self.found.retry = Some(self.found.retry.map_or(seconds, |known| known.max(seconds)));
        }
        let clean = |text: String| crate::decision::cut(&text, MAX_PART_CHARS);
        self.found.reasons.insert(Reason {
            effect,
            rule: self.rule.id(),
            check: complaint.check.map(str::to_owned),
            code: complaint.code.into_owned(),
            image,
            expected: clean(complaint.expected),
            found: clean(complaint.found),
            tried: complaint.tried,
            remedy: complaint.remedy.into_owned(),
            unknown: complaint.unknown.map(|cause| cause.name().to_owned()),
        });
    }

    /// The exception that lets this pass, if there is one.
    fn exception(&self, complaint: &Complaint<'_>) -> Option<&'a rules::Exception> {
        let image = &complaint.facts?.image;
        let names = |list: &[String], name: &str| list.iter().any(|known| known == name);
        let mut exceptions = self.rules.exceptions.iter().filter(|exception| {
            let spec = &exception.spec;
            let is_rule = names(&spec.rules, &self.rule.id()) || names(&spec.rules, &self.rule.name);
            let is_check = spec.checks.is_empty()
                || names(&spec.checks, &complaint.code)
                || complaint.check.is_some_and(|check| names(&spec.checks, check));
            let is_here = spec.namespaces.is_empty() || names(&spec.namespaces, &self.review.request.namespace);
            is_rule && is_check && is_here && self.now < exception.expires && excepts(&spec.images, image)
        });
        let first = exceptions.next()?;
        // Which of several is told does not depend on their order.
        Some(exceptions.fold(first, |least, other| if other.name < least.name { other } else { least }))
    }

    /// Something of an image is not known.
    fn unknown(&mut self, what: &str, causes: &[(Cause, &str)], complaint: Complaint<'_>) {
        let action = |cause: Cause| match self.rule.spec.on_unknown.action(cause) {
            // Nothing that was known before is left to use.
            UnknownAction::UseLastVerified => UnknownAction::Deny,
            action => action,
        };
        // Of several causes the gravest decides.
        let worst = causes.iter().min_by_key(|(cause, _)| (action(*cause), *cause));
        let (cause, detail) = worst.copied().unwrap_or((Cause::NotAsked, "nobody looked"));
        let is_mild = action(cause) == UnknownAction::Warn;
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        self.complain(Complaint {
            code: code(cause).into(),
            found: format!("{what} cannot be told ({cause}{detail})"),
            remedy: remedy(cause).into(),
            is_mild,
            unknown: Some(cause),
            ..complaint
        });
    }
}

/// Images of the object that there are no facts of.
enum Missing {
    Images(Vec<String>),
    Unreadable(String),
}

fn missing(rules: &Rules, review: &Review) -> Missing {
    let Some(pod) = rules.pod_spec(&review.request.kind, &review.object).filter(|pod| pod.is_object()) else {
        return Missing::Unreadable(format!("no pod is found in this {}", review.request.kind.kind));
    };
    let mut names = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers", "volumes"] {
        match pod.get(list) {
            None | Some(Value::Null) => {}
            Some(Value::Array(entries)) => {
                for entry in entries {
                    if list == "volumes" && entry.get("image").is_none_or(Value::is_null) {
                        continue;
                    }
                    let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
                    let is_it = |used: &ImageUse| used.name == name && list_of(used.role) == list;
                    if !review.subjects.iter().any(|facts| is_it(&facts.image.used)) {
                        names.push(name.to_owned());
                    }
                }
            }
            Some(_) => return Missing::Unreadable(format!("`{list}` of the pod is no list")),
        }
    }
    Missing::Images(names)
}

/// The pod's list that a use of an image stands in.
pub(crate) fn list_of(role: Role) -> &'static str {
    match role {
        Role::Init | Role::Sidecar => "initContainers",
        Role::Container => "containers",
        Role::Ephemeral => "ephemeralContainers",
        Role::Volume => "volumes",
    }
}

/// Whether anything is unknown that was known before.
fn keeps_last(facts: &SubjectFacts) -> bool {
    fn of<T>(fact: &Fact<T>) -> bool {
        matches!(fact, Fact::Unknown { last: Some(_), .. })
    }
    of(&facts.resolved) || of(&facts.signatures) || of(&facts.attestations) || of(&facts.dna) || of(&facts.expectation)
}

fn take_last<T>(fact: &mut Fact<T>, mut takes: impl FnMut(Cause, &str) -> bool) {
    if let Fact::Unknown { cause, last, .. } = fact
        && last.as_ref().is_some_and(|last| takes(*cause, &last.as_of))
        && let Some(Last { value, .. }) = last.take()
    {
        *fact = Fact::Known(value);
    }
}

fn about(facts: &SubjectFacts) -> About {
    let resolved = facts.resolved.known();
    About {
        reference: facts.image.used.reference.clone(),
        name: facts.image.used.name.clone(),
        role: facts.image.used.role,
        digest: resolved.map(|resolved| resolved.digest.clone()),
        platform: resolved.map(|resolved| resolved.platform.to_string()),
    }
}

/// Whether an exception's globs mean an image: by name, tag, or digest.
fn excepts(globs: &[String], image: &::dna::NamedImage) -> bool {
    rules::any(globs, &image.registry, &image.repository, image.tag.as_deref())
        || image.digest.as_ref().is_some_and(|digest| {
            let name = format!("{}/{}@{digest}", image.registry, image.repository);
            globs.iter().any(|pattern| crate::cel::glob(pattern, &name))
        })
}

fn code(cause: Cause) -> &'static str {
    match cause {
        Cause::Registry => "REGISTRY_UNAVAILABLE",
        Cause::Throttled => "REGISTRY_THROTTLED",
        Cause::Credentials => "REGISTRY_AUTH",
        Cause::Deadline => "DEADLINE",
        Cause::TrustExpired => "TRUST_EXPIRED",
        Cause::AnalysisPending { .. } => "ANALYSIS_PENDING",
        Cause::AnalysisFailed => "ANALYSIS_FAILED",
        Cause::Ledger => "LEDGER_UNAVAILABLE",
        Cause::NotAsked => "NOT_ASKED",
    }
}

fn remedy(cause: Cause) -> &'static str {
    match cause {
        Cause::Registry => "check the registry and the name, and try again",
        Cause::Throttled => "wait, or give credentials with a higher limit",
        Cause::Credentials => "check the pod's imagePullSecrets and its service account",
        Cause::Deadline => "try again: what was found is kept",
        Cause::TrustExpired => "renew the trust root",
        Cause::AnalysisPending { .. } => "try again: the image is being analyzed",
        Cause::AnalysisFailed => "analyze the image by hand to see why: mayfly analyze",
        Cause::Ledger => "check the ledger's database",
        Cause::NotAsked => "this is a fault of the webhook: report it",
    }
}

/// The label of namespaces where rules are in force.
pub const ENFORCE_LABEL: &str = "mayfly.dev/enforce";
pub(crate) const EVALUATION_ERROR: &str = "EVALUATION_ERROR";
const DEFAULT_RETRY_SECONDS: u64 = 30;
const MAX_PART_CHARS: usize = 600;
