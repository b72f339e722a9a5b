//! A rule of run time, or overlays, drafted of what a workload's alerts tell, and no wider than that. Pure; nothing is saved here.
//!
//! In: a workload, its alerts, which of them are meant. Out: [`Draft`]. What a workload did beside its prediction and nobody is alerted of
//! needs neither: there is nothing to ignore or to accept.

use std::collections::{BTreeMap, BTreeSet};

use dna::{Class, Digest};
use jiff::Timestamp;
use lineage::{AlertHead, WorkloadRow};
use policies::kinds::API_VERSION;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trust::{OverlayPredicate, OverlayScope};

use crate::{alert::State, overlays::is_acceptable, replay::stored::Replayed, stored};

/// What is drafted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DraftKind")]
pub enum Kind {
    /// A `RuntimeRule` that ignores it.
    Rule,
    /// Overlays, by which it is expected of this image once they are signed.
    Overlay,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What.
    pub kind: Kind,
    /// Of these alerts; where there is none, of all that are not grave, resolved or suppressed.
    pub alerts: BTreeSet<String>,
    /// Why.
    pub reason: String,
    /// When it ends.
    pub until: Timestamp,
    /// Who asks.
    pub actor: String,
    /// When he does.
    pub at: Timestamp,
}

/// A draft: of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Draft {
    /// Objects of kind `RuntimeRule`, to be applied as they are; several where one has no room for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Value>,
    /// In-toto statements, each to be signed by `mayfly overlay sign` and given to `POST /overlays`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overlays: Vec<Value>,
    /// Alerts that it is not about though nobody chose, or that it cannot be about, the gravest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// A draft, and what it would make of the alerts that are stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drafted {
    /// The draft.
    #[serde(flatten)]
    pub draft: Draft,
    /// Held against all alerts of the workload, of any container and image.
    pub replayed: Replayed,
}

/// An alert that a draft is not about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// The alert's name.
    pub alert: String,
    /// Its class.
    pub class: String,
    /// What it is about.
    pub subject: String,
    /// 0 to 1.
    pub risk: f64,
    /// Why.
    pub why: String,
}

/// Drafts what is asked for.
///
/// # Errors
/// Why there can be no draft.
pub fn draft(workload: &WorkloadRow, alerts: &[AlertHead], asked: &Asked) -> Result<Draft, String> {
    if let Some(name) = asked.alerts.iter().find(|name| alerts.iter().all(|head| head.id != **name)) {
        return Err(format!("this workload has no alert {name} of this image"));
    }
    let (mut meant, mut left_out) = (Vec::new(), Vec::new());
    let is_named = |head: &&AlertHead| asked.alerts.is_empty() || asked.alerts.contains(&head.id);
    for head in alerts.iter().filter(is_named) {
        match why_not(head, asked) {
            None => meant.push(head),
            Some(why) => left_out.push(LeftOut {
                alert: head.id.clone(),
                class: head.class.clone(),
                subject: head.subject.clone(),
                risk: head.risk,
                why: why.to_owned(),
            }),
        }
    }
    left_out.sort_by(|one, other| other.risk.total_cmp(&one.risk).then_with(|| one.alert.cmp(&other.alert)));
    if meant.is_empty() {
        return Err(match left_out.first() {
            Some(first) => {
                format!("there is none of its alerts to draft it of: {} {}: {}", first.class, first.subject, first.why)
            }
            None => "nobody was alerted of anything that this workload did: there is nothing to draft it of".to_owned(),
        });
    }
    match asked.kind {
        Kind::Rule => Ok(Draft { rules: rules(workload, &meant, asked)?, overlays: Vec::new(), left_out }),
        Kind::Overlay => Ok(Draft { rules: Vec::new(), overlays: overlays(workload, &meant, asked)?, left_out }),
    }
}

/// Why a draft is not about an alert that is named, or where none is.
fn why_not(head: &AlertHead, asked: &Asked) -> Option<&'static str> {
    let is_act = class(&head.class).is_some_and(is_acceptable);
    match (asked.alerts.is_empty(), stored::shown(head)) {
        _ if !is_act => Some("it is no act of the image"),
        (false, _) => None,
        (true, State::Resolved) => Some("it is resolved; name it to have it in"),
        (true, State::Suppressed) => Some("it is suppressed already; name it to have it in"),
        // A draft that is applied unread must hide no attack.
        (true, _) if head.risk >= GRAVE => Some("its risk is high: look at it, and name it to have it in"),
        (true, _) => None,
    }
}

fn class(name: &str) -> Option<Class> {
    Class::ALL.into_iter().find(|class| class.name() == name)
}

fn rules(workload: &WorkloadRow, alerts: &[&AlertHead], asked: &Asked) -> Result<Vec<Value>, String> {
    let WorkloadRow { cluster, namespace, owner, container, digest, .. } = workload;
    for (what, text) in [("namespace", namespace), ("workload", owner), ("container", container)] {
        // A rule names them by globs.
        if text.is_empty() || text.contains(['*', '?']) {
            return Err(format!("its {what} `{text}` is none that a rule could name"));
        }
    }
    let mut place =
        vec![json!({"name": "same-cluster", "expression": format!("place.cluster == {}", literal(cluster))})];
    if !digest.is_empty() {
        place.push(json!({"name": "same-image", "expression": format!("place.digest == {}", literal(digest))}));
    }
    let parts = parts(alerts)?;
    let rule = |part: &BTreeMap<&str, Vec<String>>| {
        let seen = expression(part);
        let mut when = place.clone();
        when.push(json!({"name": "as-seen", "expression": seen}));
        json!({
            "apiVersion": API_VERSION,
            "kind": "RuntimeRule",
            // What it says is in its name: a later draft does not take its place by chance.
            "metadata": {"name": name(workload, &format!("{seen}{}", asked.until)), "namespace": namespace},
            "spec": {
                "description": format!("Drafted {:.0} of what {owner} was seen to do.", asked.at),
                "match": {"workloads": [owner], "containers": [container]},
                "classes": part.keys().collect::<Vec<_>>(),
                "when": when,
                "then": {"ignore": {"until": asked.until, "reason": asked.reason}},
            },
        })
    };
    Ok(parts.iter().map(rule).collect())
}

/// Subjects as literals by class, in parts that one expression has room for.
fn parts<'a>(alerts: &[&'a AlertHead]) -> Result<Vec<BTreeMap<&'a str, Vec<String>>>, String> {
    let pairs: BTreeSet<(&str, &str)> =
        alerts.iter().map(|head| (head.class.as_str(), head.subject.as_str())).collect();
    let (mut parts, mut part, mut room) = (Vec::new(), BTreeMap::<&str, Vec<String>>::new(), ROOM);
    for (class, subject) in pairs {
        let literal = literal(subject);
        let bytes = literal.len() + SEPARATOR + if part.contains_key(class) { 0 } else { OF_CLASS };
        if bytes > ROOM {
            let start: String = subject.chars().take(80).collect();
            return Err(format!(
                "an alert of class {class} is about a text that no rule has room for: {start}…; suppress it"
            ));
        }
        if bytes > room {
            parts.push(std::mem::take(&mut part));
            room = ROOM;
        }
        room -= bytes;
        part.entry(class).or_default().push(literal);
    }
    parts.push(part);
    Ok(parts)
}

fn expression(part: &BTreeMap<&str, Vec<String>>) -> String {
    let is_one = part.len() == 1;
    let term = |(class, subjects): (&&str, &Vec<String>)| {
        let listed = format!("deviation.subject in [{}]", subjects.join(", "));
        // The rule's `classes` say it already where there is one.
        if is_one { listed } else { format!("deviation.class == {} && {listed}", literal(class)) }
    };
    part.iter().map(term).collect::<Vec<_>>().join(" ||\n")
}

/// A text as CEL writes it: whatever a container made of it, it is a text there.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            // Whoever reviews it sees what is there.
            c if c.is_control() || !c.is_ascii() => out.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

fn name(workload: &WorkloadRow, says: &str) -> String {
    let last = workload.owner.rsplit('/').next().unwrap_or_default();
    let letters = format!("{last}-{}", workload.container).to_lowercase();
    let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let letters: String = letters.chars().map(fits).take(MAX_NAME).collect();
    let sum: String = Digest::sha256(says.as_bytes()).hex().chars().take(8).collect();
    format!("{}-as-seen-{sum}", letters.trim_matches('-'))
}

fn overlays(workload: &WorkloadRow, alerts: &[&AlertHead], asked: &Asked) -> Result<Vec<Value>, String> {
    let image: Digest = workload.digest.parse().map_err(|_| {
        format!(
            "an overlay is for one digest of an image, and `{}` is none: have the webhook bind the pod",
            workload.digest
        )
    })?;
    let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let scope = OverlayScope {
        cluster: part(&workload.cluster),
        namespace: part(&workload.namespace),
        owner: part(&workload.owner),
        container: part(&workload.container),
    };
    let statement = |head: &&AlertHead| {
        let predicate = OverlayPredicate {
            class: head.class.clone(),
            subject: head.subject.clone(),
            scope: scope.clone(),
            alert: head.id.clone(),
            reason: asked.reason.clone(),
            actor: asked.actor.clone(),
            made_at: asked.at,
            expires_at: asked.until,
        };
        serde_json::to_value(predicate.about(&image)).map_err(|error| error.to_string())
    };
    alerts.iter().map(statement).collect()
}

/// From this risk on an alert is in a draft only where it was named: `high` and `critical`.
const GRAVE: f64 = 0.7;
/// Bytes of subjects in one expression; it may have 4096.
const ROOM: usize = 3_500;
/// Bytes that a subject, and a class, take beside their own text.
const SEPARATOR: usize = 2;
const OF_CLASS: usize = 80;
/// Letters of a rule's name that tell of the workload.
const MAX_NAME: usize = 100;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use lineage::AlertState;
    use policies::Rules;
    use proptest::prelude::*;
    use trust::Statement;

    use super::*;

    fn workload() -> WorkloadRow {
        WorkloadRow {
            id: "w".to_owned(),
            cluster: "east".to_owned(),
            namespace: "shop".to_owned(),
            owner: "Deployment/web".to_owned(),
            container: "app".to_owned(),
            digest: Digest::sha256(b"image").to_string(),
            dna: Digest::sha256(b"dna"),
            expectation: None,
            starts: 1,
            first_seen: Timestamp::UNIX_EPOCH,
            last_seen: Timestamp::UNIX_EPOCH,
        }
    }

    fn head(id: &str, class: Class, subject: &str, risk: f64) -> AlertHead {
        AlertHead {
            id: id.to_owned(),
            cluster: "east".to_owned(),
            namespace: "shop".to_owned(),
            owner: "Deployment/web".to_owned(),
            container: "app".to_owned(),
            digest: Digest::sha256(b"image").to_string(),
            class: class.name().to_owned(),
            subject: subject.to_owned(),
            message: String::new(),
            state: AlertState::Open,
            risk,
            first_seen: Timestamp::UNIX_EPOCH,
            last_seen: Timestamp::UNIX_EPOCH,
            count: 1,
            revision: 1,
            is_suppressed: false,
            is_ignored: false,
        }
    }

    fn asked(kind: Kind, alerts: &[&str]) -> Asked {
        Asked {
            kind,
            alerts: alerts.iter().map(|name| (*name).to_owned()).collect(),
            reason: "SHOP-77".to_owned(),
            until: Timestamp::from_second(2_000_000_000).expect("a time"),
            actor: "soc".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_rule_names_place_class_and_subjects_and_ends() {
        let alerts = [
            head("a", Class::Listen, "tcp/9000", 0.5),
            head("b", Class::Write, "/srv/it's", 0.4),
            head("c", Class::Listen, "tcp/9001", 0.3),
        ];
        let draft = draft(&workload(), &alerts, &asked(Kind::Rule, &[])).expect("a draft");
        let rule = &draft.rules[0];
        let (_, errors) = Rules::from_objects(&draft.rules);
        assert_eq!((draft.rules.len(), errors), (1, Vec::new()), "{rule:#}");
        assert_eq!(rule["spec"]["match"], json!({"workloads": ["Deployment/web"], "containers": ["app"]}));
        assert_eq!(rule["metadata"]["namespace"], "shop");
        assert_eq!(rule["spec"]["classes"], json!(["listen", "write"]));
        assert_eq!(
            rule["spec"]["when"][2]["expression"],
            "deviation.class == 'listen' && deviation.subject in ['tcp/9000', 'tcp/9001'] ||\n\
             deviation.class == 'write' && deviation.subject in ['/srv/it\\'s']"
        );
        assert_eq!(rule["spec"]["then"], json!({"ignore": {"until": "2033-05-18T03:33:20Z", "reason": "SHOP-77"}}));
    }

    #[test]
    fn what_is_grave_resolved_or_suppressed_is_in_where_it_is_named() {
        let mut alerts = [
            head("grave", Class::Listen, "tcp/1", 0.7),
            head("done", Class::Listen, "tcp/2", 0.1),
            head("quiet", Class::Listen, "tcp/3", 0.1),
            head("noise", Class::Listen, "tcp/4", 0.69),
        ];
        alerts[1].state = AlertState::Resolved;
        alerts[2].is_suppressed = true;
        let made = draft(&workload(), &alerts, &asked(Kind::Rule, &[])).expect("a draft");
        let said = |draft: &Draft| draft.rules[0]["spec"]["when"][2]["expression"].to_string();
        assert_eq!(said(&made), "\"deviation.subject in ['tcp/4']\"");
        let left: Vec<&str> = made.left_out.iter().map(|one| one.alert.as_str()).collect();
        assert_eq!(left, ["grave", "done", "quiet"]);
        let named = draft(&workload(), &alerts, &asked(Kind::Rule, &["grave", "done"])).expect("a draft");
        assert_eq!(said(&named), "\"deviation.subject in ['tcp/1', 'tcp/2']\"");
        let error = draft(&workload(), &alerts[..1], &asked(Kind::Rule, &[])).expect_err("none");
        assert!(error.contains("name it to have it in"), "{error}");
        assert!(
            draft(&workload(), &alerts, &asked(Kind::Rule, &["other"])).expect_err("none").contains("no alert other")
        );
        assert!(draft(&workload(), &[], &asked(Kind::Rule, &[])).expect_err("none").contains("nobody was alerted"));
        let image = [head("image", Class::BindingMismatch, "x", 0.1)];
        assert!(draft(&workload(), &image, &asked(Kind::Rule, &["image"])).expect_err("none").contains("no act"));
    }

    #[test]
    fn what_one_rule_has_no_room_for_is_in_several() {
        let alerts: Vec<AlertHead> =
            (0..400).map(|n| head(&format!("a{n}"), Class::Write, &format!("/srv/data/{n:020}"), 0.1)).collect();
        let draft = draft(&workload(), &alerts, &asked(Kind::Rule, &[])).expect("a draft");
        let (rules, errors) = Rules::from_objects(&draft.rules);
        assert_eq!((errors, rules.runtime().len()), (Vec::new(), draft.rules.len()));
        assert!(draft.rules.len() > 2, "{}", draft.rules.len());
        let long = [head("a", Class::Write, &"x".repeat(4000), 0.1)];
        assert!(super::draft(&workload(), &long, &asked(Kind::Rule, &[])).expect_err("no room").contains("has room"));
    }

    #[test]
    fn a_workload_that_no_rule_could_name_has_none() {
        for spoil in [|row: &mut WorkloadRow| row.owner.clear(), |row: &mut WorkloadRow| row.container = "*".to_owned()]
        {
            let mut row = workload();
            spoil(&mut row);
            let alerts = [head("a", Class::Listen, "tcp/1", 0.1)];
            assert!(
                draft(&row, &alerts, &asked(Kind::Rule, &[]))
                    .expect_err("none")
                    .contains("none that a rule could name")
            );
        }
    }

    #[test]
    fn an_overlay_is_what_would_be_accepted_of_each_alert() {
        let alerts = [head("a", Class::Listen, "tcp/9000", 0.5), head("b", Class::Write, "/srv/x", 0.4)];
        let draft = draft(&workload(), &alerts, &asked(Kind::Overlay, &[])).expect("a draft");
        assert_eq!(draft.overlays.len(), 2);
        let statement: Statement = serde_json::from_value(draft.overlays[0].clone()).expect("a statement");
        let (image, said) = OverlayPredicate::of(&statement).expect("an overlay");
        assert_eq!(
            (image, said.class.as_str(), said.subject.as_str()),
            (Digest::sha256(b"image"), "listen", "tcp/9000")
        );
        assert_eq!((said.scope.owner.as_deref(), said.alert.as_str()), (Some("Deployment/web"), "a"));
        let row = WorkloadRow { digest: "latest".to_owned(), ..workload() };
        assert!(super::draft(&row, &alerts, &asked(Kind::Overlay, &[])).expect_err("none").contains("one digest"));
    }

    proptest! {
        /// Whatever a container made of a subject, the rule is one that loads, and names it alone.
        #[test]
        fn a_subject_is_a_text_whatever_is_in_it(subject in "\\PC{0,40}|[\\x00-\\x7f'\\\\]{0,40}") {
            let alerts = [head("a", Class::Write, &subject, 0.1), head("b", Class::Listen, &subject, 0.1)];
            let draft = draft(&workload(), &alerts, &asked(Kind::Rule, &[])).expect("a draft");
            let (rules, errors) = Rules::from_objects(&draft.rules);
            prop_assert_eq!(errors, Vec::new());
            let held = crate::replay::stored::tests::ignores(&rules, Class::Write, &subject);
            let other = crate::replay::stored::tests::ignores(&rules, Class::Write, &format!("{subject}x"));
            prop_assert_eq!((held, other), (true, false));
        }
    }
}
