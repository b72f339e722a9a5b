//! `mayfly policy replay`: an audit log of Kubernetes in, what the webhook would have made of its writes out.
//!
//! Source: kubernetes, `staging/src/k8s.io/apiserver/pkg/apis/audit/v1/types.go`. The log is read line by line, and no line is longer than
//! a limit. Facts are of now, not of then: a tag is what it leads to today.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use anyhow::{Context as _, bail};
use policies::{Decision, Effect, GroupVersionKind, GroupVersionResource, Request, Review, UserInfo, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use webhook::service::{Considered, Service};

use super::{Counts, Judges, Refused, enforce, objects, of_files, space};
use crate::{
    args::policy as args,
    lines::{self, Ended},
    output, remote,
    text::clean,
};

pub(super) fn run(args: &args::Replay) -> anyhow::Result<()> {
    let replayed = remote::block_on(replayed(args))?;
    output::show(args.format, &replayed, human)?;
    let denied = replayed.decided.denied;
    match denied {
        0 if replayed.lines.events == 0 => bail!("{} holds no event of an audit log", args.log.display()),
        0 => Ok(()),
        denied => Err(Refused(format!("{denied} of {} writes would have been refused", replayed.decided.all())).into()),
    }
}

/// What the webhook would have made of a log.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Replayed {
    lines: Lines,
    /// Events that were not decided, by why.
    passed: BTreeMap<&'static str, u64>,
    /// Writes of workloads whose object is not in the log: its audit policy says `Metadata` of them, or only the change is there.
    without_object: BTreeMap<String, u64>,
    decided: Counts,
    /// If everything were enforced everywhere.
    denied_if_enforced: u64,
    /// Against what was answered then.
    then: Then,
    /// What would have been refused, by rule, code and user, the most often first.
    denials: Vec<Denial>,
    /// Writes that could not be decided, by why.
    undecided: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Serialize)]
struct Lines {
    read: u64,
    events: u64,
    /// Lines that are no event.
    damaged: u64,
    /// The first of them: line number and why.
    first: Vec<(u64, String)>,
}

/// Against what was answered then.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Then {
    /// Writes whose answer of then is in the log.
    known: u64,
    was_allowed_would_be_denied: u64,
    was_denied_would_be_allowed: u64,
    /// Nobody decided then, and it was admitted.
    was_not_asked_would_be_denied: u64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Denial {
    rule: String,
    code: String,
    user: String,
    count: u64,
    /// It is refused only if everything were enforced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    only_if_enforced: bool,
    /// Some of the objects: `Pod/web in shop`.
    objects: Vec<String>,
    /// Of the first: what was found, and what to do.
    found: String,
    remedy: String,
}

/// An event of an audit log, as much of it as matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Event {
    api_version: String,
    kind: String,
    level: String,
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: UserOf,
    impersonated_user: Option<UserOf>,
    object_ref: ObjectRef,
    response_status: Option<Status>,
    request_object: Value,
    response_object: Value,
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct UserOf {
    username: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectRef {
    resource: String,
    namespace: String,
    name: String,
    api_group: String,
    api_version: String,
    subresource: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

/// What an event comes to, before anything is decided.
enum Asked {
    /// It is to be decided.
    Write(Box<Review>),
    /// It is not; why.
    Passed(&'static str),
    /// It would be, and its object is not there; why.
    Without(String),
}

async fn replayed(args: &args::Replay) -> anyhow::Result<Replayed> {
    let documents: Vec<Value> = objects(&args.manifests)?.into_iter().map(|(_, object)| object).collect();
    let judges = Judges::new(&args.deciding.gathering, of_files(&documents), documents.clone())?;
    let service = judges.service(&args.rules, args.own_namespace.as_deref()).await?;
    let mut log = lines::open(&args.log)?;
    let mut replayed = Replayed::default();
    let mut denials = BTreeMap::new();
    let mut before = Former::default();
    let mut line = Vec::new();
    loop {
        let ended = lines::next(&mut log, &mut line, MAX_LINE_BYTES)
            .with_context(|| format!("cannot read {}", args.log.display()))?;
        if ended == Ended::File {
            break;
        }
        replayed.lines.read += 1;
        if line.iter().all(u8::is_ascii_whitespace) && ended == Ended::Line {
            continue;
        }
        let event = match event(&line, ended) {
            Ok(event) => event,
            Err(why) => {
                replayed.lines.damaged += 1;
                if replayed.lines.first.len() < MAX_DAMAGED {
                    replayed.lines.first.push((replayed.lines.read, why));
                }
                continue;
            }
        };
        replayed.lines.events += 1;
        let mut review = match read(&event) {
            Asked::Write(review) => review,
            Asked::Passed(why) => {
                *replayed.passed.entry(why).or_default() += 1;
                before.forget(&event);
                continue;
            }
            Asked::Without(why) => {
                *replayed.without_object.entry(why).or_default() += 1;
                continue;
            }
        };
        review.old_object = before.swap(&review);
        review.namespace_object = space(&documents, &review.request.namespace);
        if args.deciding.enforce {
            enforce(&mut review.namespace_object);
        }
        let considered = service.replay(&mut review, judges.deadline()).await.map_err(anyhow::Error::msg)?;
        replayed.add(&event, *review, considered, &service, &mut denials);
    }
    replayed.denials = denials.into_values().collect();
    replayed.denials.sort_by_key(|denial: &Denial| (denial.only_if_enforced, std::cmp::Reverse(denial.count)));
    Ok(replayed)
}

impl Replayed {
    fn add(
        &mut self,
        event: &Event,
        review: Review,
        considered: Considered,
        service: &Service,
        denials: &mut BTreeMap<(String, String, String, bool), Denial>,
    ) {
        let decision = match considered {
            Considered::Decided { decision, .. } => decision,
            Considered::Passed(why) => {
                *self.passed.entry(told(why)).or_default() += 1;
                return;
            }
            Considered::Unreadable { why, .. } | Considered::Failed(why) => {
                *self.undecided.entry(why).or_default() += 1;
                return;
            }
        };
        self.decided.add(decision.verdict);
        self.compare(event, &decision);
        let mut enforced = review;
        enforce(&mut enforced.namespace_object);
        let everywhere = service.decide_again(&enforced).unwrap_or_else(|| decision.as_ref().clone());
        self.denied_if_enforced += u64::from(everywhere.verdict == Verdict::Deny);
        let (shown, only_if_enforced) = match decision.verdict {
            Verdict::Deny => (decision.as_ref(), false),
            Verdict::Allow | Verdict::Warn => (&everywhere, true),
        };
        let mut counted = Vec::new();
        for reason in shown.reasons.iter().filter(|reason| reason.effect == Effect::Deny) {
            let request = &enforced.request;
            let user = request.user_info.username.clone();
            let key = (reason.rule.clone(), reason.code.clone(), user.clone(), only_if_enforced);
            if counted.contains(&key) {
                continue;
            }
            counted.push(key.clone());
            let denial = denials.entry(key).or_insert_with(|| Denial {
                rule: reason.rule.clone(),
                code: reason.code.clone(),
                user,
                count: 0,
                only_if_enforced,
                objects: Vec::new(),
                found: reason.found.clone(),
                remedy: reason.remedy.clone(),
            });
            denial.count += 1;
            let object = format!("{}/{} in {}", request.kind.kind, request.name, request.namespace);
            if denial.objects.len() < MAX_OBJECTS && !denial.objects.contains(&object) {
                denial.objects.push(object);
            }
        }
    }

    fn compare(&mut self, event: &Event, decision: &Decision) {
        let is_denied = decision.verdict == Verdict::Deny;
        let Some(then) = event.verdict() else {
            let was_admitted = event.response_status.as_ref().is_none_or(|status| status.code < 400);
            self.then.was_not_asked_would_be_denied += u64::from(is_denied && was_admitted);
            return;
        };
        self.then.known += 1;
        self.then.was_allowed_would_be_denied += u64::from(then != "deny" && is_denied);
        self.then.was_denied_would_be_allowed += u64::from(then == "deny" && !is_denied);
    }
}

impl Event {
    /// What the webhook answered then: the API server puts its name before what it says.
    fn verdict(&self) -> Option<&str> {
        let ours = |key: &str| key.strip_suffix("/verdict").is_some_and(|name| name.ends_with("mayfly.dev"));
        self.annotations.iter().find(|(key, _)| ours(key)).map(|(_, verdict)| verdict.as_str())
    }
}

/// Why nothing was decided, in words.
fn told(why: &'static str) -> &'static str {
    match why {
        "no-rule" => "no rule is about it",
        "no-pod" => "no pod is in it",
        "unchanged" => "nothing that a rule reads has changed",
        "deleting" => "it is being deleted",
        "own-namespace" => "it is in the webhook's own namespace",
        "subresource" => "it is not about the object itself",
        other => other,
    }
}

fn read(event: &Event) -> Asked {
    if event.stage != "ResponseComplete" {
        return Asked::Passed("another stage of a request");
    }
    let operation = match event.verb.as_str() {
        "create" => "CREATE",
        "update" | "patch" => "UPDATE",
        _ => return Asked::Passed("it writes no object"),
    };
    let named = &event.object_ref;
    if !matches!(named.subresource.as_str(), "" | "ephemeralcontainers") {
        return Asked::Passed("it is not about the object itself");
    }
    let was_denied = event.verdict() == Some("deny");
    if event.response_status.as_ref().is_some_and(|status| status.code >= 400) && !was_denied {
        return Asked::Passed("the API server refused it for another reason");
    }
    let is_whole = |object: &&Value| object.get("kind").and_then(Value::as_str).is_some_and(|kind| kind != "Status");
    let asked = Some(&event.request_object).filter(|_| event.verb != "patch").filter(is_whole);
    // What is stored has what the API server and others filled in.
    let Some(object) = Some(&event.response_object).filter(is_whole).or(asked) else {
        return match is_workload(named) {
            false => Asked::Passed("it is no workload"),
            true => Asked::Without(match (event.level.as_str(), event.verb.as_str()) {
                ("Request" | "RequestResponse", "patch") => {
                    "a patch without its result: RequestResponse logs it".to_owned()
                }
                (level, _) => format!("logged at level {}", if level.is_empty() { "none" } else { level }),
            }),
        };
    };
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let version = text("/apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", version.as_str()));
    let user = event.impersonated_user.as_ref().unwrap_or(&event.user);
    let first = |a: &str, b: String| if a.is_empty() { b } else { a.to_owned() };
    let request = Request {
        uid: String::new(),
        kind: GroupVersionKind { group: group.to_owned(), version: version.to_owned(), kind: text("/kind") },
        resource: GroupVersionResource {
            group: named.api_group.clone(),
            version: named.api_version.clone(),
            resource: named.resource.clone(),
        },
        sub_resource: named.subresource.clone(),
        name: first(&named.name, first(&text("/metadata/name"), text("/metadata/generateName"))),
        namespace: first(&named.namespace, text("/metadata/namespace")),
        operation: operation.to_owned(),
        user_info: UserInfo {
            username: user.username.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
        },
        dry_run: event.request_uri.contains("dryRun=All"),
    };
    Asked::Write(Box::new(Review { request, object: object.clone(), ..Review::default() }))
}

fn is_workload(named: &ObjectRef) -> bool {
    dna::Workload::all()
        .any(|(group, kind)| group == named.api_group && format!("{}s", kind.to_lowercase()) == named.resource)
}

/// Objects as the log had them last, for what an update changes. Bounded: those that do not fit are not known.
#[derive(Default)]
struct Former {
    objects: HashMap<(String, String, String), (Value, usize)>,
    bytes: usize,
}

impl Former {
    /// Keeps an object, and gives what it was before.
    fn swap(&mut self, review: &Review) -> Value {
        let request = &review.request;
        let key = (request.resource.resource.clone(), request.namespace.clone(), request.name.clone());
        let old = self.objects.remove(&key);
        self.bytes -= old.as_ref().map_or(0, |(_, bytes)| *bytes);
        let bytes = review.object.to_string().len();
        if self.bytes + bytes <= MAX_FORMER_BYTES && !request.dry_run {
            self.bytes += bytes;
            self.objects.insert(key, (review.object.clone(), bytes));
        }
        match (request.operation.as_str(), old) {
            ("UPDATE", Some((object, _))) => object,
            _ => Value::Null,
        }
    }

    fn forget(&mut self, event: &Event) {
        if event.verb == "delete" && event.stage == "ResponseComplete" {
            let named = &event.object_ref;
            let key = (named.resource.clone(), named.namespace.clone(), named.name.clone());
            if let Some((_, bytes)) = self.objects.remove(&key) {
                self.bytes -= bytes;
            }
        }
    }
}

fn event(line: &[u8], ended: Ended) -> Result<Event, String> {
    if ended == Ended::TooLong {
        return Err(format!("it is longer than {MAX_LINE_BYTES} bytes"));
    }
    let event: Event = serde_json::from_slice(line).map_err(|error| format!("it is no event: {error}"))?;
    match (event.api_version.as_str(), event.kind.as_str()) {
        ("audit.k8s.io/v1", "Event") => Ok(event),
        (version, kind) => Err(format!("expected audit.k8s.io/v1 Event, found `{version} {kind}`")),
    }
}

fn human(replayed: &Replayed) -> String {
    let mut text = String::new();
    let lines = &replayed.lines;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} lines, {} events, {} writes decided", lines.read, lines.events, replayed.decided.all());
    if lines.damaged > 0 {
        let _ = writeln!(text, "{} lines are damaged:", lines.damaged);
        for (number, why) in &lines.first {
            let _ = writeln!(text, "  line {number}: {}", clean(why));
        }
    }
    for (why, count) in &replayed.without_object {
        let _ = writeln!(text, "not decided, {count}: no object in the log: {}", clean(why));
    }
    for (why, count) in &replayed.undecided {
        let _ = writeln!(text, "not decided, {count}: {}", clean(why));
    }
    for (why, count) in &replayed.passed {
        let _ = writeln!(text, "passed over, {count}: {why}");
    }
    let Counts { denied, warned, allowed } = replayed.decided;
    let _ = writeln!(text, "\n{denied} would be denied, {warned} warned, {allowed} allowed");
    let _ = writeln!(text, "{} would be denied if everything were enforced", replayed.denied_if_enforced);
    let then = &replayed.then;
    let _ = writeln!(
        text,
        "was allowed, would be denied: {}; was denied, would be allowed: {}; was not asked, would be denied: {}",
        then.was_allowed_would_be_denied, then.was_denied_would_be_allowed, then.was_not_asked_would_be_denied
    );
    for denial in &replayed.denials {
        let only = if denial.only_if_enforced { ", if enforced" } else { "" };
        let _ = writeln!(
            text,
            "\n{} [{}] by {}: {} times{only}",
            clean(&denial.code),
            clean(&denial.rule),
            clean(&denial.user),
            denial.count
        );
        for object in &denial.objects {
            let _ = writeln!(text, "  {}", clean(object));
        }
        if !denial.found.is_empty() {
            let _ = writeln!(text, "  found: {}", clean(&denial.found));
        }
        if !denial.remedy.is_empty() {
            let _ = writeln!(text, "  do: {}", clean(&denial.remedy));
        }
    }
    text
}

/// An object has at most 3 MiB, and an event may have two of them, escaped.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// Damaged lines that are told.
const MAX_DAMAGED: usize = 20;

/// Objects that are named of one denial.
const MAX_OBJECTS: usize = 5;

/// Objects that are kept to compare with.
const MAX_FORMER_BYTES: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(image: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"containers": [{"name": "web", "image": image}]}})
    }

    fn event(change: Value) -> Event {
        let mut event = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Event", "level": "RequestResponse",
            "stage": "ResponseComplete", "verb": "create", "user": {"username": "ann"},
            "objectRef": {"resource": "pods", "namespace": "shop", "name": "web", "apiVersion": "v1"},
            "responseStatus": {"code": 201}, "requestObject": pod("a:1"), "responseObject": pod("a:2")});
        for (name, value) in change.as_object().cloned().unwrap_or_default() {
            event.as_object_mut().expect("an object").insert(name, value);
        }
        super::event(event.to_string().as_bytes(), Ended::Line).expect("an event")
    }

    fn written(event: &Event) -> Result<Review, String> {
        match read(event) {
            Asked::Write(review) => Ok(*review),
            Asked::Passed(why) => Err(why.to_owned()),
            Asked::Without(why) => Err(format!("without: {why}")),
        }
    }

    #[test]
    fn a_write_is_read_as_it_was_stored() {
        let review = written(&event(json!({}))).expect("a write");
        assert_eq!(review.object.pointer("/spec/containers/0/image"), Some(&json!("a:2")));
        assert_eq!((review.request.operation.as_str(), review.request.user_info.username.as_str()), ("CREATE", "ann"));
        // Of a refusal the answer is no object.
        let refused =
            event(json!({"responseObject": {"kind": "Status", "apiVersion": "v1"}, "responseStatus": {"code": 403},
            "annotations": {"images.mayfly.dev/verdict": "deny"}}));
        let review = written(&refused).expect("a write");
        assert_eq!(review.object.pointer("/spec/containers/0/image"), Some(&json!("a:1")));
        let other = event(json!({"impersonatedUser": {"username": "bob"}, "requestURI": "/api/v1/pods?dryRun=All"}));
        let review = written(&other).expect("a write");
        assert_eq!((review.request.user_info.username.as_str(), review.request.dry_run), ("bob", true));
    }

    #[test]
    fn what_is_no_write_or_has_no_object_says_so() {
        for (change, expected) in [
            (json!({"verb": "get"}), "it writes no object"),
            (json!({"stage": "RequestReceived"}), "another stage of a request"),
            (json!({"responseStatus": {"code": 409}}), "the API server refused it for another reason"),
            (json!({"objectRef": {"resource": "pods", "subresource": "status"}}), "it is not about the object itself"),
            (
                json!({"level": "Metadata", "requestObject": null, "responseObject": null}),
                "without: logged at level Metadata",
            ),
            (
                json!({"verb": "patch", "responseObject": null, "level": "Request"}),
                "without: a patch without its result",
            ),
            (
                json!({"objectRef": {"resource": "secrets"}, "requestObject": null, "responseObject": null}),
                "it is no workload",
            ),
        ] {
            let found = written(&event(change.clone())).expect_err("it is not decided");
            assert!(found.starts_with(expected), "{change}: {found}");
        }
    }

    #[test]
    fn what_was_answered_then_is_compared() {
        let decision = |verdict: Verdict| {
            let (reasons, unknown, exceptions, rules) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            Decision { verdict, reasons, unknown, exceptions, rules, retry_seconds: None }
        };
        let mut replayed = Replayed::default();
        let of = |verdict: &str| event(json!({"annotations": {"images.mayfly.dev/verdict": verdict}}));
        replayed.compare(&of("allow"), &decision(Verdict::Deny));
        replayed.compare(&of("warn"), &decision(Verdict::Allow));
        replayed.compare(&of("deny"), &decision(Verdict::Warn));
        replayed.compare(&event(json!({})), &decision(Verdict::Deny));
        replayed.compare(
            &event(json!({"annotations": {"images.example.org/verdict": "allow"}})),
            &decision(Verdict::Allow),
        );
        let then = &replayed.then;
        assert_eq!(
            (
                then.known,
                then.was_allowed_would_be_denied,
                then.was_denied_would_be_allowed,
                then.was_not_asked_would_be_denied
            ),
            (3, 1, 1, 1)
        );
    }

    #[test]
    fn lines_are_bounded_and_what_is_damaged_is_no_event() {
        let long = vec![b'x'; usize::try_from(MAX_LINE_BYTES).expect("it fits") + 10];
        let log = [b"{\"a\"\n".as_slice(), &long, b"\n{}\nlast"].concat();
        let (mut log, mut line, mut found) = (log.as_slice(), Vec::new(), Vec::new());
        loop {
            match lines::next(&mut log, &mut line, MAX_LINE_BYTES).expect("reads") {
                Ended::File => break,
                ended => found.push((super::event(&line, ended).map(|_| ()).expect_err("none is one"), line.len())),
            }
        }
        let whys: Vec<_> = found.iter().map(|(why, _)| why.split(':').next().unwrap_or_default()).collect();
        assert_eq!(
            whys,
            [
                "it is no event",
                "it is longer than 16777216 bytes",
                "expected audit.k8s.io/v1 Event, found ` `",
                "it is no event"
            ]
        );
        assert!(found.iter().all(|(_, bytes)| *bytes < 100), "nothing of a long line is kept");
    }

    #[test]
    fn an_update_is_held_against_what_the_log_had_before() {
        let mut former = Former::default();
        let created = written(&event(json!({}))).expect("a write");
        assert!(former.swap(&created).is_null());
        let updated = written(&event(json!({"verb": "update"}))).expect("a write");
        assert_eq!(former.swap(&updated), created.object);
        former.forget(&event(json!({"verb": "delete"})));
        assert!(former.swap(&updated).is_null(), "it was deleted");
        assert!(former.bytes > 0 && former.objects.len() == 1);
    }
}
