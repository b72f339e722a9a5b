//! Rules and overlays held against the alerts that a bridge stores: drafted there, or of a file.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, bail};
use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use runtime_bridge::{
    draft::{Drafted, Kind, LeftOut},
    replay::stored::{Held, Part, Replayed},
    snapshot::Workload,
};
use serde_json::{Value, json};
use serde_yaml_ng::Value as Yaml;

use super::profile::Draft;
use crate::{api::Api, args::api::Snapshot as Args, output, overlay, text::clean};

/// What a draft needs that only a person can say.
pub(super) struct Said<'a> {
    reason: &'a str,
    until: Timestamp,
}

impl<'a> Said<'a> {
    /// By the arguments.
    pub(super) fn of(args: &'a Args, now: Timestamp) -> anyhow::Result<Self> {
        let reason =
            args.reason.as_deref().context("say why by --reason TEXT: it stands where the draft is read and signed")?;
        let until = args.until.as_deref().context(
            "nothing is accepted for ever: say until when by --until, a span such as 14d, or a day or time such as 2026-12-14T00:00:00Z",
        )?;
        Ok(Self { reason, until: time(until, now)? })
    }
}

/// A span from now, a day, or a time.
fn time(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    let span = || text.parse::<Span>().ok().and_then(|span| now.to_zoned(TimeZone::UTC).checked_add(span).ok());
    let day = || text.parse::<Date>().ok().and_then(|day| day.to_zoned(TimeZone::UTC).ok());
    let until = text.parse().ok().or_else(|| span().or_else(day).map(|at| at.timestamp()));
    let until = until.with_context(|| {
        format!("--until {text}: give a span such as 14d or 12h, a day such as 2026-12-14, or a time such as 2026-12-14T00:00:00Z")
    })?;
    // To the second: people read it.
    let until = Timestamp::from_second(until.as_second())?;
    if until <= now {
        bail!("--until {text}: that is over");
    }
    Ok(until)
}

/// Has the bridge draft a rule or overlays of a workload's alerts.
pub(super) async fn draft(
    api: &Api,
    kind: Kind,
    workload: &Workload,
    args: &Args,
    said: Said<'_>,
) -> anyhow::Result<Draft> {
    let body = json!({"kind": kind, "reason": said.reason, "expiresAt": said.until, "alerts": args.alert});
    let Drafted { draft, replayed } = api.post(&["workloads", &workload.id, "draft"], &body).await?;
    let text = match kind {
        Kind::Rule => {
            let documents: Result<Vec<_>, _> =
                draft.rules.iter().map(|rule| serde_yaml_ng::to_string(&ordered(rule))).collect();
            documents?.join("---\n")
        }
        Kind::Overlay => String::from_utf8(output::pretty(&json!({"overlays": draft.overlays}))?)?,
    };
    let mut remarks = vec![format!("of {} {}, image {}", workload.owner, workload.container, workload.digest)];
    remarks.extend(draft.left_out.iter().take(MOST_LEFT_OUT).map(left_out));
    if draft.left_out.len() > MOST_LEFT_OUT {
        remarks.push(format!("not in it: {} more alerts", draft.left_out.len() - MOST_LEFT_OUT));
    }
    remarks.extend(told(&replayed).lines().map(str::to_owned));
    Ok(Draft { text, remarks })
}

/// A rule with its fields in the order in which people write them.
fn ordered(value: &Value) -> Yaml {
    match value {
        Value::Object(fields) => {
            let place = |name: &str| FIELDS.iter().position(|field| *field == name).unwrap_or(FIELDS.len());
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| place(name));
            let fields = fields.into_iter().map(|(name, value)| (name.as_str().into(), ordered(value)));
            Yaml::Mapping(fields.collect())
        }
        Value::Array(items) => Yaml::Sequence(items.iter().map(ordered).collect()),
        Value::String(text) => text.as_str().into(),
        other => serde_yaml_ng::to_value(other).unwrap_or_default(),
    }
}

const FIELDS: [&str; 14] = [
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "namespace",
    "spec",
    "description",
    "match",
    "workloads",
    "containers",
    "classes",
    "when",
    "until",
    "then",
];

fn left_out(one: &LeftOut) -> String {
    format!("not in it: {} {} [{}, risk {:.2}]: {}", one.class, one.subject, one.alert, one.risk, one.why)
}

/// What a file of rules, or of overlays, would make of what is stored in these places.
pub(super) async fn replay(api: &Api, file: &Path, places: &[(&str, &str)]) -> anyhow::Result<Replayed> {
    let bytes = output::read(file)?;
    let (what, candidate) = match serde_json::from_slice::<Value>(&bytes).ok().and_then(overlay::statements) {
        Some(overlays) => ("overlays", Value::from(overlays)),
        None => {
            let text = String::from_utf8(bytes).with_context(|| format!("{}: no text", file.display()))?;
            ("rules", Value::from(text))
        }
    };
    let places = places.iter().map(|(name, value)| (*name, Value::from(*value)));
    let body: BTreeMap<&str, Value> = places.chain([(what, candidate)]).collect();
    api.post(&["replay"], &body).await
}

/// What would become of alerts, for people.
pub(super) fn told(replayed: &Replayed) -> String {
    let mut text = format!("held against {} stored events of {} alerts", replayed.events, replayed.alerts());
    text += if replayed.is_cut { "; there are more, which there was no time for\n" } else { "\n" };
    for (what, part, is_told) in [
        ("silenced", &replayed.silenced, true),
        ("silenced in part", &replayed.partly, false),
        ("changed, not silenced", &replayed.changed, false),
        ("stay", &replayed.stays, true),
    ] {
        if is_told || part.alerts > 0 {
            text += &part_told(what, part);
        }
    }
    text
}

fn part_told(what: &str, part: &Part) -> String {
    if part.alerts == 0 {
        return format!("{what}: none\n");
    }
    let classes: Vec<String> = part.classes.iter().map(|(class, count)| format!("{class} {count}")).collect();
    let mut text = format!("{what}: {} alerts, {} deviations ({})\n", part.alerts, part.deviations, classes.join(", "));
    part.samples.iter().for_each(|held| text += &held_told(held));
    let more = part.alerts.saturating_sub(part.samples.len() as u64);
    if more > 0 {
        text += &format!("  and {more} more alerts\n");
    }
    text
}

fn held_told(held: &Held) -> String {
    let risk = held.new_risk.map(|risk| format!(" becomes {risk:.2}")).unwrap_or_default();
    let some = if held.ignored > 0 && held.ignored < held.events {
        format!(", {} of {} stored events", held.ignored, held.events)
    } else {
        String::new()
    };
    let mut text = clean(&format!(
        "  {} {} of {} {} [{}, risk {:.2}{risk}, {} times{some}]",
        held.class, held.subject, held.namespace, held.owner, held.alert, held.risk, held.count
    ))
    .into_owned();
    for told in &held.told {
        text += &format!("\n    {}", clean(told));
    }
    text + "\n"
}

/// Alerts that a draft is not about and that are told one by one.
const MOST_LEFT_OUT: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_is_a_span_a_day_or_a_time_to_come() {
        let now: Timestamp = "2026-11-30T12:00:00.5Z".parse().expect("a time");
        for (text, expected) in [
            ("14d", "2026-12-14T12:00:00Z"),
            ("2w", "2026-12-14T12:00:00Z"),
            ("36h", "2026-12-02T00:00:00Z"),
            ("2026-12-14", "2026-12-14T00:00:00Z"),
            ("2026-12-14T08:00:00+01:00", "2026-12-14T07:00:00Z"),
        ] {
            assert_eq!(time(text, now).expect(text).to_string(), expected, "{text}");
        }
        for (text, word) in
            [("soon", "give a span"), ("2026-11-30", "that is over"), ("-1d", "that is over"), ("14", "give a span")]
        {
            let error = time(text, now).expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn what_becomes_of_alerts_is_told_part_by_part() {
        let held = |subject: &str, ignored: u64, told: &[&str]| -> Held {
            serde_json::from_value(json!({"alert": "a1", "namespace": "shop", "owner": "Deployment/web", "class": "listen", "subject": subject,
                "message": "m", "state": "open", "risk": 0.6, "count": 30, "lastSeen": "2026-01-01T00:00:00Z", "events": 5, "ignored": ignored,
                "told": told}))
            .expect("held")
        };
        let mut replayed = Replayed::default();
        replayed.add(held("tcp/1", 5, &["shop/x: ignored"]));
        replayed.add(held("tcp/2", 2, &["shop/x: ignored"]));
        replayed.add(held("tcp/\u{1b}3", 0, &[]));
        assert_eq!(
            told(&replayed),
            "held against 15 stored events of 3 alerts\n\
             silenced: 1 alerts, 30 deviations (listen 1)\n  \
               listen tcp/1 of shop Deployment/web [a1, risk 0.60, 30 times]\n    shop/x: ignored\n\
             silenced in part: 1 alerts, 30 deviations (listen 1)\n  \
               listen tcp/2 of shop Deployment/web [a1, risk 0.60, 30 times, 2 of 5 stored events]\n    shop/x: ignored\n\
             stay: 1 alerts, 30 deviations (listen 1)\n  \
               listen tcp/\\u{1b}3 of shop Deployment/web [a1, risk 0.60, 30 times]\n"
        );
    }
}
