//! What each kind of sink is told, in its own format. Pure: the same notice gives the same bytes, so that a receiver may compare them too.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{
    Notice,
    text::{self, plain},
};
use crate::{
    alert::{Alert, By, Change, State},
    grounds,
    incident::Incident,
};

/// How bad an alert is, for receivers that know steps only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Below 0.5.
    Low,
    /// From 0.5.
    Medium,
    /// From 0.7.
    High,
    /// From 0.9.
    Critical,
}

/// The severity of a risk.
#[must_use]
pub fn severity(risk: f64) -> Severity {
    match risk {
        _ if risk >= 0.9 => Severity::Critical,
        _ if risk >= 0.7 => Severity::High,
        _ if risk >= 0.5 => Severity::Medium,
        _ => Severity::Low,
    }
}

impl Severity {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// All there is, for programs. Strings and lists that are longer than anybody needs are cut; what is still too large loses what went
/// before its samples, then the samples.
pub(super) fn generic(notice: &Notice) -> String {
    let mut alert = serde_json::to_value(&notice.alert).unwrap_or_default();
    bound(&mut alert);
    let mut body = json!({
        "apiVersion": "mayfly.dev/v1",
        "kind": if notice.incident.is_some() { "Incident" } else { "Alert" },
        "key": notice.id,
        "change": notice.change,
        "severity": severity(risk(notice)).name(),
        "at": notice.made_at,
        "alert": alert,
    });
    if let (Some(incident), Some(body)) = (&notice.incident, body.as_object_mut()) {
        let mut incident = serde_json::to_value(incident).unwrap_or_default();
        bound(&mut incident);
        body.insert("incident".to_owned(), incident);
    }
    if let (Some(by), Some(body)) = (&notice.by, body.as_object_mut()) {
        let mut by = serde_json::to_value(by).unwrap_or_default();
        bound(&mut by);
        body.insert("by".to_owned(), by);
    }
    let mut text = text::json(&body);
    if text.len() > MAX_BODY {
        for sample in body.pointer_mut("/alert/samples").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(sample) = sample.as_object_mut() {
                sample.insert("before".to_owned(), json!([]));
            }
        }
        text = text::json(&body);
    }
    if text.len() > MAX_BODY {
        if let Some(samples) = body.pointer_mut("/alert/samples") {
            *samples = json!([]);
        }
        if let Some(chapters) = body.pointer_mut("/incident/chapters").and_then(Value::as_array_mut) {
            chapters.truncate(CHAPTERS);
        }
        text = text::json(&body);
    }
    text
}

/// `POST /api/v2/alerts` of Alertmanager. Labels are what an alert keeps: a pod or a time among them would make another alert of each
/// repetition, without end. An alert that is told no more ends by itself some time after it would have been told again.
pub(super) fn alertmanager(notice: &Notice, repeat: SignedDuration) -> String {
    let alert = &notice.alert;
    let place = &alert.place;
    let name = format!("Mayfly{}", camel(class(notice)));
    let severity = severity(risk(notice)).name();
    // An incident is known by its name: its last alert is another each time.
    let labels = match &notice.incident {
        Some(incident) => vec![
            ("alertname", name.as_str()),
            ("cluster", &place.cluster),
            ("incident", &incident.id),
            ("severity", severity),
        ],
        None => vec![
            ("alertname", name.as_str()),
            ("cluster", &place.cluster),
            ("namespace", &place.namespace),
            ("owner", &place.owner),
            ("container", &place.container),
            ("class", alert.class.name()),
            ("severity", severity),
        ],
    };
    let begins = notice.incident.as_ref().map_or(alert.first_seen, |incident| incident.first_seen);
    let annotations: Map<String, Value> = facts(notice)
        .into_iter()
        .filter(|(name, _)| !labels.iter().any(|(label, _)| label == name))
        .chain([("summary", title(notice)), ("description", message(notice)), ("key", notice.id.clone())])
        .map(|(name, value)| (name.to_owned(), plain(&value, MAX_TEXT).into()))
        .collect();
    // A label without a value is none.
    let labels: Map<String, Value> = labels
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(label, value)| (label.to_owned(), plain(value, MAX_NAME).into()))
        .collect();
    let ends = if is_over(notice) { notice.made_at } else { later(notice.made_at, repeat + GRACE) };
    text::json(&json!([{
        "labels": labels,
        "annotations": annotations,
        "startsAt": begins,
        "endsAt": ends.max(begins),
    }]))
}

/// A message of Slack's incoming webhooks. All words are `plain_text`, in which there is no markup, and escaped all the same.
pub(super) fn slack(notice: &Notice) -> String {
    let words = |text: &str, max| json!({"type": "plain_text", "text": text::slack(text, max), "emoji": false});
    // A section takes ten fields of 2,000 letters.
    let fields: Vec<Value> = facts(notice)
        .chunks(10)
        .map(|facts| {
            let fields: Vec<Value> =
                facts.iter().map(|(name, value)| words(&format!("{name}: {value}"), MAX_NAME)).collect();
            json!({"type": "section", "fields": fields})
        })
        .collect();
    let mut blocks = vec![
        json!({"type": "header", "text": words(&title(notice), 150)}),
        json!({"type": "section", "text": words(&message(notice), MAX_TEXT)}),
    ];
    blocks.extend(fields);
    blocks.push(json!({"type": "context", "elements": [words(&notice.id, MAX_NAME)]}));
    text::json(&json!({"text": text::slack(&title(notice), MAX_NAME), "blocks": blocks}))
}

/// An adaptive card, for the workflow "When a Teams webhook request is received". All words are `TextRun`s, in which there is no Markdown.
pub(super) fn teams(notice: &Notice) -> String {
    let line = |name: Option<&str>, text: &str, max| {
        let name = name.map(|name| json!({"type": "TextRun", "text": format!("{name}: "), "weight": "Bolder"}));
        let run = json!({"type": "TextRun", "text": text::teams(text, max)});
        json!({"type": "RichTextBlock", "inlines": name.into_iter().chain([run]).collect::<Vec<_>>()})
    };
    let mut title_line = line(None, &title(notice), MAX_NAME);
    if let Some(run) = title_line.pointer_mut("/inlines/0").and_then(Value::as_object_mut) {
        run.insert("size".to_owned(), "Large".into());
        run.insert("weight".to_owned(), "Bolder".into());
    }
    let mut lines = vec![title_line, line(None, &message(notice), MAX_TEXT)];
    lines.extend(facts(notice).iter().map(|(name, value)| line(Some(name), value, MAX_NAME)));
    lines.push(line(Some("key"), &notice.id, MAX_NAME));
    text::json(&json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": lines,
            },
        }],
    }))
}

/// PagerDuty's Events API v2. All that is told of an alert is one incident.
pub(super) fn pagerduty(notice: &Notice, routing_key: &str) -> String {
    let alert = &notice.alert;
    let action = match notice.change {
        _ if is_over(notice) => "resolve",
        Change::Acknowledged => "acknowledge",
        _ => "trigger",
    };
    let mut body = json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": plain(matter(notice), 255),
    });
    // Of an incident that is there, no more is taken.
    if let ("trigger", Some(body)) = (action, body.as_object_mut()) {
        let details: Map<String, Value> = facts(notice)
            .into_iter()
            .chain([("key", notice.id.clone()), ("description", message(notice))])
            .map(|(name, value)| (name.to_owned(), plain(&value, MAX_TEXT).into()))
            .collect();
        let severity = match severity(risk(notice)) {
            Severity::Critical => "critical",
            Severity::High => "error",
            Severity::Medium => "warning",
            Severity::Low => "info",
        };
        let payload = json!({
            "summary": plain(&title(notice), 1024),
            "source": plain(&whereabouts(alert), MAX_NAME),
            "severity": severity,
            "timestamp": alert.last_seen,
            "component": plain(&alert.place.container, MAX_NAME),
            "group": plain(&alert.place.owner, MAX_NAME),
            "class": class(notice),
            "custom_details": details,
        });
        body.insert("client".to_owned(), "Mayfly".into());
        body.insert("payload".to_owned(), payload);
    }
    text::json(&body)
}

/// `POST /v1/logs` of OTLP, as JSON. Source: opentelemetry-proto, `logs/v1/logs.proto`; numbers of 64 bits are strings there.
pub(super) fn otlp(notice: &Notice) -> String {
    let alert = &notice.alert;
    let attribute = |name: &str, value: &str| json!({"key": name, "value": {"stringValue": plain(value, MAX_TEXT)}});
    // Names of OpenTelemetry's semantic conventions where there are any.
    let place = &alert.place;
    let resource: Vec<Value> = [
        ("service.name", "mayfly"),
        ("k8s.cluster.name", &place.cluster),
        ("k8s.namespace.name", &place.namespace),
        ("k8s.container.name", &place.container),
        ("container.image.name", &place.image),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| attribute(name, value))
    .collect();
    let attributes: Vec<Value> = facts(notice)
        .iter()
        .filter(|(name, _)| !matches!(*name, "cluster" | "namespace" | "container" | "image"))
        .map(|(name, value)| attribute(&format!("mayfly.{name}"), value))
        .chain([
            attribute("mayfly.key", &notice.id),
            attribute(if notice.incident.is_some() { "mayfly.incident" } else { "mayfly.alert" }, matter(notice)),
            attribute("mayfly.change", change(notice)),
        ])
        .collect();
    let number = match severity(risk(notice)) {
        Severity::Critical => 21,
        Severity::High => 17,
        Severity::Medium => 13,
        Severity::Low => 9,
    };
    let nanoseconds = |at: Timestamp| at.as_nanosecond().max(0).to_string();
    text::json(&json!({"resourceLogs": [{
        "resource": {"attributes": resource},
        "scopeLogs": [{
            "scope": {"name": "mayfly", "version": env!("CARGO_PKG_VERSION")},
            "logRecords": [{
                "timeUnixNano": nanoseconds(alert.last_seen),
                "observedTimeUnixNano": nanoseconds(notice.made_at),
                "severityNumber": number,
                "severityText": severity(risk(notice)).name(),
                "eventName": if notice.incident.is_some() { "mayfly.incident" } else { "mayfly.alert" },
                "body": {"stringValue": plain(&message(notice), MAX_TEXT)},
                "attributes": attributes,
            }],
        }],
    }]}))
}

/// An Event of `events.k8s.io/v1`, about the pod where there is one, else about the workload. Its name is the notice's, so that the API
/// server takes it once. `host` is where it comes from.
pub(super) fn event(notice: &Notice, host: &str) -> String {
    let alert = &notice.alert;
    let place = &alert.place;
    let mut name: String =
        format!("mayfly-{}", notice.id).to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    name.truncate(MAX_NAME);
    let uid = |pod: &str| {
        let mut seen = alert.samples.iter().map(|sample| &sample.activity.container);
        seen.find(|seen| seen.pod.as_deref() == Some(pod)).and_then(|seen| seen.pod_uid.clone())
    };
    let regarding = match (alert.pods.len(), alert.pods.first()) {
        (1, Some(pod)) => {
            let mut regarding = reference("Pod", pod, &place.namespace);
            if let (Some(uid), Some(regarding)) = (uid(pod), regarding.as_object_mut()) {
                regarding.insert("uid".to_owned(), plain(&uid, MAX_NAME).into());
            }
            regarding
        }
        (_, pod) => match place.owner.split_once('/') {
            Some((kind, name)) => reference(kind, name, &place.namespace),
            None => reference("Pod", pod.map_or(place.owner.as_str(), String::as_str), &place.namespace),
        },
    };
    // Microseconds, always six digits: the API server takes nothing else.
    let time = notice.made_at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    text::json(&json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": place.namespace},
        "eventTime": time,
        "reportingController": "mayfly.dev/runtime-bridge",
        "reportingInstance": plain(host, 128),
        "action": "Compare",
        "reason": match notice.change {
            _ if is_resolved(notice) => "DeviationResolved".to_owned(),
            Change::Acknowledged => "DeviationAcknowledged".to_owned(),
            Change::Suppressed => "DeviationSuppressed".to_owned(),
            _ => camel(class(notice)),
        },
        "type": if is_over(notice) || notice.change == Change::Acknowledged { "Normal" } else { "Warning" },
        "regarding": regarding,
        // 1,024 bytes are taken.
        "note": plain(&format!("{}: {} [{}]", title(notice), message(notice), notice.id), 1000),
    }))
}

/// A message of RFC 5424, without the framing of its transport, of at most `max` bytes; 2,048 are what every receiver should take.
pub(super) fn syslog(notice: &Notice, host: &str, max: usize) -> String {
    let alert = &notice.alert;
    let place = &alert.place;
    // Facility 4: security. Source: section 6.2.1.
    let level = match severity(risk(notice)) {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
    };
    let host: String = host.chars().filter(char::is_ascii_graphic).take(255).collect();
    let host = if host.is_empty() { "-" } else { &host };
    let time = alert.last_seen.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
    let weight = format!("{:.2}", risk(notice));
    let count = alert.count.to_string();
    let values = [
        ("key", notice.id.as_str(), 64),
        (if notice.incident.is_some() { "incident" } else { "alert" }, matter(notice), 64),
        ("change", change(notice), 16),
        ("severity", severity(risk(notice)).name(), 16),
        ("risk", &weight, 8),
        ("technique", &alert.technique, 32),
        ("cluster", &place.cluster, 64),
        ("namespace", &place.namespace, 64),
        ("owner", &place.owner, 128),
        ("container", &place.container, 64),
        ("digest", &place.digest, 80),
        ("count", &count, 20),
        ("subject", &alert.subject, 400),
    ];
    let data: String =
        values.iter().map(|(name, value, max)| format!(" {name}=\"{}\"", text::syslog(value, *max))).collect();
    let head = format!("<{}>1 {time} {host} mayfly - {} [mayfly@{ENTERPRISE}{data}] ", 4 * 8 + level, class(notice));
    // A byte order mark says that UTF-8 follows. Source: section 6.4.
    let left = max.saturating_sub(head.len() + '\u{feff}'.len_utf8());
    format!("{head}\u{feff}{}", plain(&message(notice), left.min(MAX_TEXT)))
}

/// What is told of an alert beside its message, in the order in which a person wants it. Names are camel case.
fn facts(notice: &Notice) -> Vec<(&'static str, String)> {
    if let Some(incident) = &notice.incident {
        return incident_facts(incident);
    }
    let alert = &notice.alert;
    let place = &alert.place;
    let by = notice.by.clone().unwrap_or(By { actor: String::new(), reason: String::new() });
    let grounds = alert.grounds.clone().unwrap_or_default();
    let commits = grounds.commits.iter().map(|commit| format!("{}@{}", commit.source, commit.commit)).collect();
    let changed =
        grounds.changed.as_ref().map(|changed| &changed.bearing).into_iter().flatten().map(grounds::told).collect();
    let cause = alert.cause.clone().unwrap_or_default();
    let pods = alert.pods.iter().take(SOME).cloned().collect::<Vec<_>>().join(", ");
    let more = (alert.pods.len().saturating_sub(SOME) as u64).saturating_add(alert.more_pods);
    let pods = if more > 0 { format!("{pods} and {more} more") } else { pods };
    let some = |all: Vec<String>| all.into_iter().take(SOME).collect::<Vec<_>>().join(", ");
    let all = [
        ("actor", by.actor),
        ("reason", by.reason),
        ("severity", severity(risk(notice)).name().to_owned()),
        ("class", class(notice).to_owned()),
        ("subject", alert.subject.clone()),
        ("cluster", place.cluster.clone()),
        ("namespace", place.namespace.clone()),
        ("owner", place.owner.clone()),
        ("container", place.container.clone()),
        ("image", place.image.clone()),
        ("digest", place.digest.clone()),
        ("pods", pods),
        ("users", some(alert.users.iter().cloned().collect())),
        ("risk", format!("{:.2}", risk(notice))),
        ("technique", alert.technique.clone()),
        ("after", alert.after.clone().unwrap_or_default()),
        ("package", cause.package.unwrap_or_default()),
        ("layer", cause.layer.map(|layer| layer.to_string()).unwrap_or_default()),
        ("step", cause.step.unwrap_or_default()),
        ("commit", some(commits)),
        ("changed", some(changed)),
        ("before", grounds.changed.map(|changed| changed.before.to_string()).unwrap_or_default()),
        ("imageUnknown", grounds.image_unknown.unwrap_or_default()),
        ("rules", some(alert.ruled.told().collect())),
        ("blocked", if alert.blocked { "yes".to_owned() } else { String::new() }),
        ("count", alert.count.to_string()),
        ("firstSeen", alert.first_seen.to_string()),
        ("lastSeen", alert.last_seen.to_string()),
        ("blind", some(alert.blind.clone())),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn incident_facts(incident: &Incident) -> Vec<(&'static str, String)> {
    let some = |all: Vec<String>| {
        let told = all.iter().take(SOME).cloned().collect::<Vec<_>>().join(", ");
        match all.len().saturating_sub(SOME) {
            0 => told,
            more => format!("{told} and {more} more"),
        }
    };
    let root = incident.root.clone();
    let origin = root.as_ref().map(|root| root.origin.clone()).unwrap_or_default();
    let all = [
        ("incident", incident.id.clone()),
        ("severity", severity(incident.risk).name().to_owned()),
        ("risk", format!("{:.2}", incident.risk)),
        ("stages", stages(incident)),
        ("campaign", if incident.is_campaign { "yes".to_owned() } else { String::new() }),
        ("alerts", (incident.chapters.len() as u64).saturating_add(incident.more).to_string()),
        ("workloads", some(incident.workloads.iter().cloned().collect())),
        ("digests", some(incident.digests.iter().cloned().collect())),
        ("users", some(incident.users.iter().cloned().collect())),
        ("beganWith", root.map(|root| root.alert).unwrap_or_default()),
        ("package", origin.package.unwrap_or_default()),
        ("layer", origin.layer.map(|layer| layer.to_string()).unwrap_or_default()),
        ("step", origin.step.unwrap_or_default()),
        ("commit", some(origin.commits)),
        ("changed", some(origin.changed)),
        ("firstSeen", incident.first_seen.to_string()),
        ("lastSeen", incident.last_seen.to_string()),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn stages(incident: &Incident) -> String {
    incident.stages.keys().map(|tactic| tactic.name()).collect::<Vec<_>>().join(", ")
}

fn title(notice: &Notice) -> String {
    let alert = &notice.alert;
    let severity = severity(risk(notice)).name();
    match &notice.incident {
        Some(incident) => {
            let place = match incident.workloads.first() {
                Some(workload) if incident.workloads.len() == 1 => workload.clone(),
                _ => format!("{} workloads", incident.workloads.len()),
            };
            format!("[{}] {severity} incident in {place}: {}", change(notice), stages(incident))
        }
        None => {
            format!(
                "[{}] {severity} {} {} in {}",
                change(notice),
                alert.class.name(),
                alert.subject,
                whereabouts(alert)
            )
        }
    }
}

/// What it is about, by name.
fn matter(notice: &Notice) -> &str {
    notice.incident.as_ref().map_or(&notice.alert.id, |incident| &incident.id)
}

fn risk(notice: &Notice) -> f64 {
    notice.incident.as_ref().map_or(notice.alert.risk, |incident| incident.risk)
}

fn class(notice: &Notice) -> &'static str {
    if notice.incident.is_some() { "incident" } else { notice.alert.class.name() }
}

/// What happened: of an incident its first steps, in order.
fn message(notice: &Notice) -> String {
    let Some(incident) = &notice.incident else { return notice.alert.message.clone() };
    let told = incident.chapters.iter().take(SOME);
    let mut told: Vec<String> =
        told.map(|chapter| format!("{} {}", chapter.first_seen.strftime("%Y-%m-%d %H:%M"), chapter.message)).collect();
    let more = (incident.chapters.len().saturating_sub(SOME) as u64).saturating_add(incident.more);
    if more > 0 {
        told.push(format!("and {more} more alerts"));
    }
    told.join("; ")
}

fn whereabouts(alert: &Alert) -> String {
    let place = &alert.place;
    let parts = [&place.cluster, &place.namespace, &place.owner, &place.container];
    let known: Vec<&str> = parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    if known.is_empty() { "an unknown container".to_owned() } else { known.join(" ") }
}

fn change(notice: &Notice) -> &'static str {
    match notice.change {
        _ if is_resolved(notice) => "resolved",
        Change::New => "new",
        Change::Escalated => "escalated",
        Change::Reopened => "reopened",
        Change::Acknowledged => "acknowledged",
        Change::Suppressed => "suppressed",
        Change::Repeated => "again",
        Change::Resolved => "resolved",
    }
}

fn is_resolved(notice: &Notice) -> bool {
    notice.change == Change::Resolved || notice.incident.is_none() && notice.alert.state == State::Resolved
}

/// Whether nobody is to be told of it any more.
fn is_over(notice: &Notice) -> bool {
    is_resolved(notice) || notice.change == Change::Suppressed
}

fn reference(kind: &str, name: &str, namespace: &str) -> Value {
    let version = match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => "apps/v1",
        "Job" | "CronJob" => "batch/v1",
        "Pod" => "v1",
        // Of another's kind the version is not known here; the API server takes it without.
        _ => "",
    };
    json!({"apiVersion": version, "kind": plain(kind, MAX_NAME), "name": plain(name, MAX_NAME), "namespace": namespace})
}

/// `program-not-in-image` as `ProgramNotInImage`.
fn camel(name: &str) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        first.to_ascii_uppercase() + rest
    };
    name.split('-').map(word).collect()
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Cuts strings and lists.
fn bound(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > MAX_STRING => {
            let end = (0..=MAX_STRING).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
            text.truncate(end);
            text.push('…');
        }
        Value::Array(items) => {
            items.truncate(MAX_ITEMS);
            items.iter_mut().for_each(bound);
        }
        Value::Object(fields) => fields.values_mut().for_each(bound),
        _ => {}
    }
}

/// Bytes of a body for programs.
const MAX_BODY: usize = 256 << 10;
/// Bytes of a string in it, and items of a list.
/// Alerts of an incident that is too large to be told whole.
const CHAPTERS: usize = 16;
const MAX_STRING: usize = 4096;
const MAX_ITEMS: usize = 256;
/// Bytes of a sentence. A section of Slack takes 3,000 letters.
const MAX_TEXT: usize = 1500;
/// Bytes of a name: a file's may have 4,096, of which the beginning is told.
const MAX_NAME: usize = 250;
/// Pods, users and blind intervals that are named.
const SOME: usize = 5;
/// The number for examples, since there is none of our own. Source: RFC 5612.
const ENTERPRISE: u32 = 32473;
/// An alert that is told again comes a little later than it could.
const GRACE: SignedDuration = SignedDuration::from_hours(1);
