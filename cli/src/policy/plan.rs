//! `mayfly policy plan`: what runs in, what rules would come to for it out, and what changes against other rules.
//!
//! A workload is decided twice, as the object that it is and as the pod that it makes, and the graver answer counts: a rule may only warn
//! of a template and refuse its pods. Both are decided in the namespace as it is labelled now, and as if everything were enforced.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, bail};
use dna::Workload;
use policies::{About, Decision, Effect, Reason, Verdict};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use webhook::{
    Judged,
    cluster::{Cluster, Permissions},
    listing::is_top,
    rulebook,
    service::Service,
};

use super::{Counts, Judges, Refused, enforce, namespace_of, objects, of_files, review, space};
use crate::{
    args::policy as args,
    expect::{name, workload},
    output, remote,
    text::clean,
};

pub(super) fn run(args: &args::Plan) -> anyhow::Result<()> {
    let plan = remote::block_on(made(args))?;
    output::show(args.format, &plan, human)?;
    let denied = if args.enforce { plan.everywhere.denied } else { plan.now.denied };
    match (denied, plan.undecided.len()) {
        (0, 0) => Ok(()),
        (0, undecided) => bail!("{undecided} of {} workloads could not be decided", plan.workloads),
        (denied, _) => Err(Refused(format!("{denied} of {} workloads would be refused", plan.workloads)).into()),
    }
}

/// What rules would come to.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    /// Workloads that were looked at.
    workloads: usize,
    /// Those no rule is about.
    not_asked: usize,
    /// By the namespaces' labels.
    now: Counts,
    /// If everything were enforced everywhere.
    everywhere: Counts,
    /// By the rules that are in force now.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Before>,
    /// What is not as rules say, by rule and code, the gravest first.
    findings: Vec<Finding>,
    /// Against the rules that are in force now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Change>,
    /// Workloads that nobody could decide.
    undecided: Vec<Undecided>,
}

#[derive(Debug, Default, Serialize)]
struct Before {
    now: Counts,
    everywhere: Counts,
}

/// All that one rule says under one code.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    rule: String,
    code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
    workloads: Vec<Place>,
}

/// A workload that it is about.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    workload: String,
    namespace: String,
    /// What comes of it by the labels of now; none where it is recorded only if it were enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Effect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    everywhere: Option<Effect>,
    images: Vec<About>,
    /// What there is, of the first image.
    #[serde(skip_serializing_if = "String::is_empty")]
    found: String,
    /// The rules of before do not say it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_new: bool,
}

/// A workload for which another answer comes out.
#[derive(Debug, Serialize)]
struct Change {
    workload: String,
    namespace: String,
    now: Turn,
    everywhere: Turn,
}

/// From one verdict to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Turn {
    before: Verdict,
    after: Verdict,
}

#[derive(Debug, Serialize)]
struct Undecided {
    workload: String,
    namespace: String,
    why: String,
}

/// A workload that is to be decided.
struct Subject {
    workload: String,
    namespace: String,
    object: Value,
    space: Value,
}

/// What some rules say of a workload.
#[derive(Debug, Default)]
struct Answer {
    is_asked: bool,
    now: Option<Verdict>,
    everywhere: Option<Verdict>,
    /// Each thing that is not as a rule says, and what comes of it.
    reasons: BTreeMap<Said, (Reason, Option<Effect>, Option<Effect>)>,
}

/// What makes two reasons one.
type Said = (String, String, Option<String>, Option<(String, String)>);

async fn made(args: &args::Plan) -> anyhow::Result<Plan> {
    let (cluster, documents) = match args.manifests.as_slice() {
        [] => {
            let may = Permissions { secrets: args.read_secrets, config_maps: args.read_config_maps };
            let connected = Cluster::connect(args.kubeconfig.as_deref(), args.context.as_deref(), may).await;
            let cluster = connected.map_err(anyhow::Error::msg).context(
                "there is no cluster to look at: name --kubeconfig or --context, or a folder of manifests with --manifests",
            )?;
            (cluster, Vec::new())
        }
        paths => {
            let documents: Vec<Value> = objects(paths)?.into_iter().map(|(_, object)| object).collect();
            (of_files(&documents), documents)
        }
    };
    let own = Some(args.own_namespace.as_str());
    let judges = Judges::new(&args.gathering, cluster.clone(), documents.clone())?;
    let after = Arc::new(judges.service(&args.rules, own).await?);
    let before = match args.against.as_slice() {
        [] => in_force(&cluster, &judges, own).await?.map(Arc::new),
        paths => Some(Arc::new(judges.service(paths, own).await?)),
    };
    let subjects = subjects(args, &cluster, documents, judges.deadline()).await?;
    if subjects.is_empty() {
        bail!("there is no workload to look at");
    }
    let mut plan =
        Plan { workloads: subjects.len(), before: before.as_ref().map(|_| Before::default()), ..Plan::default() };
    let mut findings = BTreeMap::new();
    let mut waiting = subjects.into_iter();
    let mut at_work = JoinSet::new();
    let mut answers = Vec::new();
    loop {
        while at_work.len() < AT_ONCE {
            let Some(subject) = waiting.next() else { break };
            let (after, before, deadline) = (Arc::clone(&after), before.clone(), judges.deadline());
            at_work.spawn(async move {
                let asked = async {
                    let new = answer(&after, &subject, deadline).await?;
                    let old = match &before {
                        Some(before) => Some(answer(before, &subject, deadline).await?),
                        None => None,
                    };
                    Ok((new, old))
                };
                let answered: Result<_, String> = asked.await;
                (subject, answered)
            });
        }
        match at_work.join_next().await {
            None => break,
            Some(answered) => answers.push(answered.context("a workload could not be decided")?),
        }
    }
    answers.sort_by(|(a, _), (b, _)| (&a.namespace, &a.workload).cmp(&(&b.namespace, &b.workload)));
    for (subject, answered) in answers {
        match answered {
            Ok((new, old)) => plan.add(&subject, &new, old.as_ref(), &mut findings),
            Err(why) => {
                let Subject { workload, namespace, .. } = subject;
                plan.undecided.push(Undecided { workload, namespace, why });
            }
        }
    }
    plan.findings = findings.into_values().collect();
    plan.findings.sort_by_key(|finding: &Finding| {
        let worst = |of: fn(&Place) -> Option<Effect>| finding.workloads.iter().filter_map(of).min();
        // What has no effect now comes last.
        let now = worst(|place| place.now).filter(|effect| *effect == Effect::Deny);
        (now.is_none(), worst(|place| place.everywhere), std::cmp::Reverse(finding.workloads.len()))
    });
    Ok(plan)
}

/// The rules of the cluster, as its webhook has them in force; none where there is none to compare with.
async fn in_force(cluster: &Cluster, judges: &Judges, own: Option<&str>) -> anyhow::Result<Option<Service>> {
    let Some(client) = cluster.client() else { return Ok(None) };
    let without = |why: &str| {
        output::say(&format!(
            "mayfly: {why}: nothing is compared with what is in force now; --against takes its rules from files"
        ));
        Ok(None)
    };
    let objects = match rulebook::objects(client).await {
        Ok(objects) => objects,
        Err(unread) if unread.is_lasting() => return without(&unread.to_string()),
        Err(unread) => return Err(unread).context("it is not known what is in force now"),
    };
    let (rules, mut problems) = rulebook::Objects::default().read(&objects);
    if rules.is_empty() && problems.is_empty() {
        return without("the cluster has no rules");
    }
    let (service, others) = judges.armed(rules, own).await?;
    problems.extend(others);
    for problem in &problems {
        // The webhook may hold on to what it was before, which only it knows.
        output::say(&format!("mayfly: of what is in force, this is not taken as it is written: {}", clean(problem)));
    }
    Ok(Some(service))
}

/// The workloads that stand for themselves, each with its namespace.
async fn subjects(
    args: &args::Plan,
    cluster: &Cluster,
    documents: Vec<Value>,
    deadline: Instant,
) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    if cluster.client().is_some() {
        let found = cluster.workloads().await.map_err(anyhow::Error::msg)?;
        let names: BTreeSet<String> = found.iter().map(|object| namespace_of(object, "")).collect();
        let mut spaces = BTreeMap::new();
        for name in names {
            let space = cluster.namespace(&name, deadline).await?;
            spaces.insert(name, space);
        }
        if let Err(error) = cluster.refresh_platforms().await {
            output::say(&format!(
                "mayfly: the nodes' platforms are not known, and every platform of an image is judged: {error}"
            ));
        }
        for object in found {
            let namespace = namespace_of(&object, "");
            let space = spaces.get(&namespace).map(|space| space.as_ref().clone()).unwrap_or_default();
            subjects.push(Subject { workload: name(&object), namespace, object, space });
        }
        return Ok(subjects);
    }
    for object in documents.iter().filter(|object| workload(object).is_some() && is_top(object)) {
        let namespace = namespace_of(object, &args.gathering.namespace);
        let space = space(&documents, &namespace);
        subjects.push(Subject { workload: name(object), namespace, object: object.clone(), space });
    }
    Ok(subjects)
}

/// The pod that a workload makes; none where it is one.
fn pod(subject: &Subject) -> Option<Value> {
    let template = workload(&subject.object).filter(|Workload { is_template, .. }| *is_template)?.pod;
    let metadata = |field: &str| template.pointer("/metadata").and_then(|metadata| metadata.get(field)).cloned();
    let made_by = subject.object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let mut named = json!({"namespace": subject.namespace, "generateName": format!("{made_by}-")});
    if let Some(fields) = named.as_object_mut() {
        for field in ["labels", "annotations"] {
            fields.extend(metadata(field).map(|value| (field.to_owned(), value)));
        }
    }
    Some(json!({"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": template.get("spec")}))
}

async fn answer(service: &Service, subject: &Subject, deadline: Instant) -> Result<Answer, String> {
    let mut answer = Answer::default();
    for object in [Some(subject.object.clone()), pod(subject)].into_iter().flatten() {
        let asked = review(&object, &subject.namespace, subject.space.clone());
        let Judged::Decided(review, now) = service.judge(asked, deadline).await? else { continue };
        let mut enforced = *review;
        enforce(&mut enforced.namespace_object);
        let everywhere = service.decide_again(&enforced).ok_or("there are no rules")?;
        answer.add(&now, &everywhere);
    }
    Ok(answer)
}

impl Answer {
    fn add(&mut self, now: &Decision, everywhere: &Decision) {
        self.is_asked = true;
        self.now = self.now.max(Some(now.verdict));
        self.everywhere = self.everywhere.max(Some(everywhere.verdict));
        for (is_now, decision) in [(true, now), (false, everywhere)] {
            for reason in &decision.reasons {
                let entry = self.reasons.entry(said(reason)).or_insert_with(|| (reason.clone(), None, None));
                let slot = if is_now { &mut entry.1 } else { &mut entry.2 };
                // The gravest is the least.
                *slot = Some(slot.map_or(reason.effect, |known| known.min(reason.effect)));
            }
        }
    }
}

fn said(reason: &Reason) -> Said {
    let image = reason.image.as_ref().map(|image| (image.reference.clone(), image.name.clone()));
    (reason.rule.clone(), reason.code.clone(), reason.check.clone(), image)
}

impl Plan {
    fn add(
        &mut self,
        subject: &Subject,
        new: &Answer,
        old: Option<&Answer>,
        findings: &mut BTreeMap<(String, String, Option<String>), Finding>,
    ) {
        self.not_asked += usize::from(!new.is_asked);
        // What no rule is about is allowed.
        let given = |verdict: Option<Verdict>| verdict.unwrap_or(Verdict::Allow);
        self.now.add(given(new.now));
        self.everywhere.add(given(new.everywhere));
        if let (Some(before), Some(old)) = (&mut self.before, old) {
            before.now.add(given(old.now));
            before.everywhere.add(given(old.everywhere));
            let turn = |before, after| Turn { before: given(before), after: given(after) };
            let (now, everywhere) = (turn(old.now, new.now), turn(old.everywhere, new.everywhere));
            if now.before != now.after || everywhere.before != everywhere.after {
                let (workload, namespace) = (subject.workload.clone(), subject.namespace.clone());
                self.changes.push(Change { workload, namespace, now, everywhere });
            }
        }
        for (said, (reason, now, everywhere)) in &new.reasons {
            let key = (reason.rule.clone(), reason.code.clone(), reason.check.clone());
            let finding = findings.entry(key).or_insert_with(|| Finding {
                rule: reason.rule.clone(),
                code: reason.code.clone(),
                check: reason.check.clone(),
                remedy: reason.remedy.clone(),
                workloads: Vec::new(),
            });
            let is_new = old.is_some_and(|old| !old.reasons.contains_key(said));
            let is_same =
                |place: &&mut Place| place.workload == subject.workload && place.namespace == subject.namespace;
            match finding.workloads.last_mut().filter(is_same) {
                Some(place) => {
                    place.images.extend(reason.image.clone());
                    place.now = least(place.now, *now);
                    place.everywhere = least(place.everywhere, *everywhere);
                    place.is_new |= is_new;
                }
                None => finding.workloads.push(Place {
                    workload: subject.workload.clone(),
                    namespace: subject.namespace.clone(),
                    now: *now,
                    everywhere: *everywhere,
                    images: reason.image.clone().into_iter().collect(),
                    found: reason.found.clone(),
                    is_new,
                }),
            }
        }
    }
}

/// The graver of two.
fn least(a: Option<Effect>, b: Option<Effect>) -> Option<Effect> {
    [a, b].into_iter().flatten().min()
}

fn human(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} workloads; no rule is about {} of them\n", plan.workloads, plan.not_asked);
    let _ = writeln!(text, "{:<30}{:>8}{:>8}{:>8}", "", "denied", "warned", "allowed");
    let mut row = |name: &str, counts: &Counts| {
        let _ = writeln!(text, "{name:<30}{:>8}{:>8}{:>8}", counts.denied, counts.warned, counts.allowed);
    };
    row("by the labels of now", &plan.now);
    row("if enforced everywhere", &plan.everywhere);
    if let Some(before) = &plan.before {
        row("before, by the labels", &before.now);
        row("before, if enforced", &before.everywhere);
        let _ = writeln!(text, "\nwhat changes:");
        for change in &plan.changes {
            let _ = write!(text, "  {} in {}:", clean(&change.workload), clean(&change.namespace));
            let turns = [("now", change.now), ("if enforced", change.everywhere)];
            let told: Vec<_> = turns
                .iter()
                .filter(|(_, turn)| turn.before != turn.after)
                .map(|(when, turn)| format!(" {when} {} -> {}", verdict(turn.before), verdict(turn.after)))
                .collect();
            let _ = writeln!(text, "{}", told.join(","));
        }
        if plan.changes.is_empty() {
            let _ = writeln!(text, "  nothing is decided otherwise");
        }
    }
    for finding in &plan.findings {
        let check = finding.check.as_ref().map_or_else(String::new, |check| format!("/{check}"));
        let count = finding.workloads.len();
        let workloads = if count == 1 { "1 workload".to_owned() } else { format!("{count} workloads") };
        let _ = writeln!(text, "\n{} [{}{}]: {workloads}", clean(&finding.code), clean(&finding.rule), clean(&check));
        if !finding.remedy.is_empty() {
            let _ = writeln!(text, "  do: {}", clean(&finding.remedy));
        }
        for place in &finding.workloads {
            let effect = match (place.now, place.everywhere) {
                (Some(Effect::Deny), _) => "denied",
                (_, Some(Effect::Deny)) => "denied if enforced",
                (Some(Effect::Warn), _) => "warned",
                (_, Some(Effect::Warn)) => "warned if enforced",
                _ => "recorded",
            };
            let new = if place.is_new { "new: " } else { "" };
            let _ = writeln!(text, "  {new}{effect}: {} in {}", clean(&place.workload), clean(&place.namespace));
            for image in &place.images {
                let _ = writeln!(text, "      {} ({})", clean(&image.reference), clean(&image.name));
            }
            if !place.found.is_empty() {
                let _ = writeln!(text, "      found: {}", clean(&place.found));
            }
        }
    }
    for one in &plan.undecided {
        let _ =
            writeln!(text, "\nnot decided: {} in {}: {}", clean(&one.workload), clean(&one.namespace), clean(&one.why));
    }
    text
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allowed",
        Verdict::Warn => "warned",
        Verdict::Deny => "denied",
    }
}

/// Workloads that are decided at once.
const AT_ONCE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(effect: Effect, container: &str) -> Reason {
        let image = json!({"reference": "app:1", "name": container, "role": "container"});
        let image = serde_json::from_value(image).expect("an image");
        let text = |text: &str| text.to_owned();
        Reason {
            effect,
            rule: text("r"),
            check: None,
            code: text("IMG_UNSIGNED"),
            image: Some(image),
            expected: String::new(),
            found: text("none"),
            tried: Vec::new(),
            remedy: text("sign it"),
            unknown: None,
        }
    }

    fn decision(verdict: Verdict, reasons: Vec<Reason>) -> Decision {
        let (unknown, exceptions, rules) = (Vec::new(), Vec::new(), Vec::new());
        Decision { verdict, reasons, unknown, exceptions, rules, retry_seconds: None }
    }

    fn subject(name: &str) -> Subject {
        Subject { workload: name.to_owned(), namespace: "shop".to_owned(), object: Value::Null, space: Value::Null }
    }

    #[test]
    fn the_graver_answer_of_object_and_pod_counts() {
        let mut answer = Answer::default();
        let warned = decision(Verdict::Warn, vec![reason(Effect::Warn, "web")]);
        let denied = decision(Verdict::Deny, vec![reason(Effect::Deny, "web")]);
        answer.add(&warned, &warned);
        answer.add(&warned, &denied);
        assert_eq!((answer.now, answer.everywhere), (Some(Verdict::Warn), Some(Verdict::Deny)));
        let effects: Vec<_> = answer.reasons.values().map(|(_, now, everywhere)| (*now, *everywhere)).collect();
        assert_eq!(effects, [(Some(Effect::Warn), Some(Effect::Deny))], "one thing is said once");
    }

    #[test]
    fn what_changes_is_told_and_what_is_new_is_marked() {
        let (mut old, mut new) = (Answer::default(), Answer::default());
        let allowed = decision(Verdict::Allow, Vec::new());
        let denied = decision(Verdict::Deny, vec![reason(Effect::Deny, "a"), reason(Effect::Deny, "b")]);
        old.add(&allowed, &allowed);
        new.add(&allowed, &denied);
        let mut plan = Plan { workloads: 2, before: Some(Before::default()), ..Plan::default() };
        let mut findings = BTreeMap::new();
        plan.add(&subject("Pod/a"), &new, Some(&old), &mut findings);
        plan.add(&subject("Pod/b"), &new, Some(&new), &mut findings);
        plan.findings = findings.into_values().collect();
        assert_eq!(plan.changes.len(), 1);
        let finding = plan.findings.first().expect("one finding");
        let places: Vec<_> =
            finding.workloads.iter().map(|place| (place.workload.as_str(), place.images.len(), place.is_new)).collect();
        assert_eq!(places, [("Pod/a", 2, true), ("Pod/b", 2, false)]);
        let told = human(&plan);
        assert!(told.contains("Pod/a in shop: if enforced allowed -> denied"), "{told}");
        assert!(told.contains("new: denied if enforced: Pod/a in shop"), "{told}");
        assert_eq!(
            plan.before.as_ref().map(|before| before.everywhere),
            Some(Counts { denied: 1, warned: 0, allowed: 1 })
        );
    }

    #[test]
    fn a_template_becomes_the_pod_that_is_made_of_it() {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}});
        let pod = pod(&Subject { object, ..subject("Deployment/web") }).expect("a pod");
        assert_eq!(pod.pointer("/metadata/labels/app"), Some(&json!("web")));
        assert_eq!(pod.pointer("/metadata/generateName"), Some(&json!("web-")));
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}});
        assert!(super::pod(&Subject { object, ..subject("Pod/p") }).is_none(), "it is one");
    }
}
