//! Rules and overlays held against the alerts that are stored, before anybody saves them. Pure.
//!
//! In: a [`Candidate`] and alerts with the events that were kept of them. Out: [`Replayed`], which alerts would be silenced, and which stay.
//! Of an alert its first events are kept ([`crate::alert::SAMPLES`]); risk, technique and the program before are those of its gravest
//! deviation, and pods are not kept: what asks for one fails here, and says so.

use std::{collections::BTreeMap, time::Instant};

use dna::{Deviation, Digest, Dna, Expectation, Outcome};
use jiff::Timestamp;
use policies::{
    Rules,
    runtime::{Applied, Seen},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trust::OverlayPredicate;

use crate::{
    alert::{Alert, Sample, State},
    overlays,
    rules::{Ruled, place_of},
};

/// Rules and overlays that nobody saved yet.
#[derive(Debug, Default)]
pub struct Candidate {
    /// Rules.
    pub rules: Rules,
    /// What overlays would accept, and of which image.
    pub overlays: Vec<(Digest, OverlayPredicate)>,
}

/// What is expected of an alert's container, as far as rules ask for it.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Its DNA, the programs left out.
    pub dna: Option<Dna>,
    /// What it was bound to.
    pub expectation: Option<Expectation>,
}

/// What would become of alerts. An alert is in one of the four parts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// Stored events that were held against it: the first of each alert.
    pub events: u64,
    /// There was no time, or no room, for all alerts: those seen last were looked at.
    pub is_cut: bool,
    /// Nobody would be told of these: all their stored events are ignored, or accepted.
    pub silenced: Part,
    /// Of these some events are ignored, and some are not.
    pub partly: Part,
    /// Rules are about these, or cannot be evaluated, and ignore none of it.
    pub changed: Part,
    /// Nothing becomes of these.
    pub stays: Part,
}

/// Alerts of which the same becomes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReplayedPart")]
pub struct Part {
    /// How many.
    pub alerts: u64,
    /// Deviations that they count.
    pub deviations: u64,
    /// Alerts by class.
    pub classes: BTreeMap<String, u64>,
    /// The gravest of them.
    pub samples: Vec<Held>,
}

/// An alert, and what would become of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReplayedAlert")]
pub struct Held {
    /// The alert's name.
    pub alert: String,
    /// The namespace.
    pub namespace: String,
    /// The workload.
    pub owner: String,
    /// Its class.
    pub class: String,
    /// What it is about.
    pub subject: String,
    /// One sentence.
    pub message: String,
    /// What became of it until now.
    pub state: State,
    /// 0 to 1.
    pub risk: f64,
    /// What a severity makes of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_risk: Option<f64>,
    /// How often it was seen.
    pub count: u64,
    /// When it was last seen.
    #[schemars(with = "String")]
    pub last_seen: Timestamp,
    /// Its stored events.
    pub events: u64,
    /// Those of them that are ignored, or accepted.
    pub ignored: u64,
    /// What rules or overlays say of it, a sentence for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<String>,
}

impl Candidate {
    /// Whether rules ask for what is [`Known`].
    #[must_use]
    pub fn asks_for_known(&self) -> bool {
        ["dna", "expectation"].into_iter().any(|name| self.rules.runtime().reads(name))
    }

    /// What would become of an alert; none where the time is over before that is known.
    #[must_use]
    pub fn hold(&self, alert: &Alert, state: State, known: &Known, until: Instant) -> Option<Held> {
        let (mut ruled, mut new_risk, mut ignored) = (Ruled::default(), None::<f64>, 0);
        let mut told: Vec<String> = self.accepts(alert).into_iter().collect();
        let is_accepted = !told.is_empty();
        let overruled = self.overruled(alert);
        for sample in alert.samples.iter().filter(|_| !is_accepted) {
            if Instant::now() >= until {
                return None;
            }
            let deviation = deviation(alert, sample);
            let pod = sample.activity.container.pod.as_ref().or(alert.pods.first()).map_or("", String::as_str);
            let verdict = self.rules.runtime().decide(&Seen {
                deviation: &deviation,
                activity: &sample.activity,
                place: place_of(&alert.place, pod),
                pod: &|| None,
                dna: &|| known.dna.clone(),
                expectation: &|| known.expectation.clone(),
            });
            let holds = overruled.is_none() || verdict.rules.iter().any(ignores_for_all);
            ignored += u64::from(verdict.ignored.is_some() && holds);
            let risk = verdict.risk(alert.risk);
            if (risk - alert.risk).abs() > f64::EPSILON {
                new_risk = Some(new_risk.map_or(risk, |before| before.max(risk)));
            }
            ruled.merge(Ruled::new(&verdict, sample.activity.at));
        }
        told.extend(ruled.told());
        if ruled.ignored > ignored
            && let Some(rule) = overruled
        {
            told.push(format!(
                "{rule} of the cluster, which is in force, is about it too: no rule of a namespace ignores it then"
            ));
        }
        let events = alert.samples.len() as u64;
        Some(Held {
            alert: alert.id.clone(),
            namespace: alert.place.namespace.clone(),
            owner: alert.place.owner.clone(),
            class: alert.class.name().to_owned(),
            subject: alert.subject.clone(),
            message: alert.message.clone(),
            state,
            risk: alert.risk,
            new_risk,
            count: alert.count,
            last_seen: alert.last_seen,
            events,
            ignored: if is_accepted { events } else { ignored },
            told,
        })
    }

    /// The overlay that accepts what an alert is about.
    fn accepts(&self, alert: &Alert) -> Option<String> {
        let place = &alert.place;
        let covers = |(image, said): &&(Digest, OverlayPredicate)| {
            image.to_string() == place.digest && overlays::covers(said, place, alert.class, &alert.subject)
        };
        let (_, said) = self.overlays.iter().find(covers)?;
        Some(format!("expected until {}: {}", said.expires_at, said.reason))
    }

    /// The rule of the cluster that is in force beside these, and lets no namespace ignore an alert.
    fn overruled<'a>(&self, alert: &'a Alert) -> Option<&'a str> {
        let claims = |applied: &&Applied| is_for_all(applied) && applied.then.ignore.is_none();
        let is_ours = |name: &str| self.rules.runtime().versions().any(|version| version.rule == name);
        let in_force = alert.ruled.rules.values().map(|by| &by.applied);
        in_force.filter(claims).map(|applied| applied.rule.rule.as_str()).find(|name| !is_ours(name))
    }
}

/// Whether a rule is the cluster's.
fn is_for_all(applied: &Applied) -> bool {
    !applied.rule.rule.contains('/')
}

/// Whether a rule of the cluster ignores it.
fn ignores_for_all(applied: &Applied) -> bool {
    is_for_all(applied) && applied.then.ignore.is_some() && applied.note.is_none()
}

/// A deviation of an alert, as far as it was kept.
fn deviation(alert: &Alert, sample: &Sample) -> Deviation {
    let cause = alert.cause.as_ref();
    Deviation {
        class: alert.class,
        subject: alert.subject.clone(),
        message: sample.message.clone(),
        after: alert.after.clone(),
        layer: cause.and_then(|cause| cause.layer),
        package: cause.and_then(|cause| cause.package.clone()),
        risk: alert.risk,
        drivers: alert.drivers.clone(),
        technique: alert.technique.clone(),
        blocked: sample.activity.outcome == Outcome::Blocked,
    }
}

impl Replayed {
    /// Adds what would become of an alert.
    pub fn add(&mut self, held: Held) {
        self.events += held.events;
        let part = match held.ignored {
            0 if held.told.is_empty() => &mut self.stays,
            0 => &mut self.changed,
            ignored if ignored < held.events => &mut self.partly,
            _ => &mut self.silenced,
        };
        part.alerts += 1;
        part.deviations += held.count;
        *part.classes.entry(held.class.clone()).or_default() += 1;
        let order =
            |held: &Held, other: &Held| other.risk.total_cmp(&held.risk).then_with(|| held.alert.cmp(&other.alert));
        let at = part.samples.partition_point(|known| order(known, &held).is_lt());
        part.samples.insert(at, held);
        part.samples.truncate(MOST_SAMPLES);
    }

    /// Alerts that were looked at.
    #[must_use]
    pub fn alerts(&self) -> u64 {
        [&self.silenced, &self.partly, &self.changed, &self.stays].iter().map(|part| part.alerts).sum()
    }
}

/// Alerts of a part that are told one by one.
const MOST_SAMPLES: usize = 20;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
pub(crate) mod tests {
    use policies::runtime::Where;
    use std::time::Duration;

    use dna::{Act, Activity, Change, Class, Process, SeenContainer};
    use trust::OverlayScope;

    use super::*;
    use crate::alert::{Place, collate};

    fn alert(class: Class, subject: &str, files: &[&str]) -> Alert {
        let place = Place {
            cluster: "east".to_owned(),
            namespace: "shop".to_owned(),
            owner: "Deployment/web".to_owned(),
            container: "app".to_owned(),
            image: "registry.example/web:1".to_owned(),
            digest: Digest::sha256(b"image").to_string(),
        };
        let mut alert = None;
        for (second, file) in (1..).zip(files) {
            let activity = Activity {
                at: Timestamp::from_second(second).expect("a time"),
                sensor: "falco".to_owned(),
                node: None,
                container: SeenContainer::default(),
                process: Process { exe: Some((*file).to_owned()), ..Process::default() },
                ancestors: Vec::new(),
                act: Act::Write { path: "/x".to_owned(), change: Change::Open },
                outcome: Outcome::Done,
                rule: None,
            };
            let deviation = Deviation {
                class,
                subject: subject.to_owned(),
                message: "a message".to_owned(),
                after: None,
                layer: None,
                package: None,
                risk: 0.6,
                drivers: Vec::new(),
                technique: String::new(),
                blocked: false,
            };
            collate(&mut alert, &place, "web-1", &deviation, &activity, std::iter::empty());
        }
        alert.expect("an alert")
    }

    fn rules(text: &str) -> Rules {
        policies::load([("rules.yaml", text)]).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn rule(kind: &str, name: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: mayfly.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
        )
    }

    fn hold(candidate: &Candidate, alert: &Alert) -> Held {
        let until = Instant::now() + Duration::from_secs(60);
        candidate.hold(alert, State::Open, &Known::default(), until).expect("in time")
    }

    /// Whether rules ignore an act of this class and subject.
    pub(crate) fn ignores(rules: &Rules, class: Class, subject: &str) -> bool {
        let alert = alert(class, subject, &["/bin/x"]);
        let seen = |sample: &Sample| {
            rules.runtime().decide(&Seen {
                deviation: &deviation(&alert, sample),
                activity: &sample.activity,
                place: place_of(&alert.place, ""),
                pod: &|| None,
                dna: &|| None,
                expectation: &|| None,
            })
        };
        alert.samples.iter().all(|sample| seen(sample).ignored.is_some())
    }

    #[test]
    fn alerts_are_silenced_in_whole_or_in_part_changed_or_stay() {
        let ignore = "{classes: [write], when: [{name: who, expression: \"activity.process.exe == '/bin/a'\"}], \
                      then: {ignore: {until: '2030-01-01T00:00:00Z', reason: known}}}";
        let raise = "{classes: [listen], then: {severity: Critical}}";
        let text = rule("RuntimeRule", "known", ignore) + &rule("RuntimeRule", "raise", raise);
        let candidate = Candidate { rules: rules(&text), overlays: Vec::new() };
        let mut replayed = Replayed::default();
        for alert in [
            alert(Class::Write, "/a", &["/bin/a", "/bin/a"]),
            alert(Class::Write, "/b", &["/bin/a", "/bin/b", "/bin/b"]),
            alert(Class::Listen, "tcp/1", &["/bin/a"]),
            alert(Class::Connect, "x:1", &["/bin/a"]),
        ] {
            replayed.add(hold(&candidate, &alert));
        }
        let told = |part: &Part| (part.alerts, part.deviations, part.samples[0].subject.clone());
        assert_eq!(told(&replayed.silenced), (1, 2, "/a".to_owned()));
        assert_eq!(told(&replayed.partly), (1, 3, "/b".to_owned()));
        assert_eq!(told(&replayed.changed), (1, 1, "tcp/1".to_owned()));
        assert_eq!(told(&replayed.stays), (1, 1, "x:1".to_owned()));
        assert_eq!((replayed.partly.samples[0].ignored, replayed.events, replayed.alerts()), (1, 7, 4));
        assert_eq!(replayed.changed.samples[0].new_risk, Some(0.9));
        assert!(replayed.silenced.samples[0].told[0].starts_with("shop/known: ignored until"), "{replayed:?}");
    }

    #[test]
    fn a_rule_that_cannot_be_evaluated_silences_nothing_and_says_so() {
        let asks = "{when: [{name: it, expression: \"object.metadata.name == 'x'\"}], \
                    then: {ignore: {until: '2030-01-01T00:00:00Z', reason: known}}}";
        let candidate = Candidate { rules: rules(&rule("RuntimeRule", "asks", asks)), overlays: Vec::new() };
        let held = hold(&candidate, &alert(Class::Write, "/a", &["/bin/a"]));
        assert_eq!(held.ignored, 0);
        assert!(held.told[0].contains("cannot be evaluated"), "{:?}", held.told);
    }

    #[test]
    fn a_rule_of_the_cluster_that_is_in_force_lets_no_namespace_ignore() {
        let ignore = "{classes: [write], then: {ignore: {until: '2030-01-01T00:00:00Z', reason: known}}}";
        let mut alert = alert(Class::Write, "/a", &["/bin/a"]);
        let grave = rules(&rule("ClusterRuntimeRule", "grave", "{classes: [write], then: {severity: High}}"));
        let verdict = grave.runtime().decide(&Seen {
            deviation: &deviation(&alert, &alert.samples[0]),
            activity: &alert.samples[0].activity,
            place: Where::default(),
            pod: &|| None,
            dna: &|| None,
            expectation: &|| None,
        });
        alert.ruled = Ruled::new(&verdict, Timestamp::UNIX_EPOCH);
        let ignored = |kind: &str, name: &str| {
            let candidate = Candidate { rules: rules(&rule(kind, name, ignore)), overlays: Vec::new() };
            hold(&candidate, &alert)
        };
        let held = ignored("RuntimeRule", "known");
        assert_eq!(held.ignored, 0);
        assert!(held.told[1].contains("grave of the cluster, which is in force"), "{:?}", held.told);
        assert_eq!(ignored("ClusterRuntimeRule", "known").ignored, 1);
        // In another version of itself it claims nothing.
        assert_eq!(ignored("ClusterRuntimeRule", "grave").ignored, 1);
    }

    #[test]
    fn an_overlay_silences_what_it_accepts_there_and_of_that_image() {
        let said = OverlayPredicate {
            class: "write".to_owned(),
            subject: "/a".to_owned(),
            scope: OverlayScope { namespace: Some("shop".to_owned()), ..OverlayScope::default() },
            alert: String::new(),
            reason: "known".to_owned(),
            actor: String::new(),
            made_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::from_second(2_000_000_000).expect("a time"),
        };
        let ignored = |image: &[u8], said: OverlayPredicate, subject: &str| {
            let overlays = vec![(Digest::sha256(image), said)];
            let held = hold(
                &Candidate { rules: Rules::default(), overlays },
                &alert(Class::Write, subject, &["/bin/a", "/bin/b"]),
            );
            (held.ignored, held.told.len())
        };
        assert_eq!(ignored(b"image", said.clone(), "/a"), (2, 1));
        assert_eq!(ignored(b"other", said.clone(), "/a"), (0, 0));
        assert_eq!(ignored(b"image", said.clone(), "/b"), (0, 0));
        let elsewhere = OverlayScope { namespace: Some("bank".to_owned()), ..OverlayScope::default() };
        assert_eq!(ignored(b"image", OverlayPredicate { scope: elsewhere, ..said }, "/a"), (0, 0));
    }

    #[test]
    fn when_the_time_is_over_nothing_is_said() {
        let ignore = "{classes: [write], then: {ignore: {until: '2030-01-01T00:00:00Z', reason: known}}}";
        let candidate = Candidate { rules: rules(&rule("RuntimeRule", "known", ignore)), overlays: Vec::new() };
        let alert = alert(Class::Write, "/a", &["/bin/a"]);
        assert_eq!(candidate.hold(&alert, State::Open, &Known::default(), Instant::now()), None);
    }
}
