//! Rules of run time, and what they did to an alert.
//!
//! In: a deviation with what is known around it, and the rules in force. Out: a verdict ([`policies::runtime`]), which changes the deviation's
//! risk before it is collated, says who is told, and stays on the alert as [`Ruled`]. Responses are only named here: whoever carries them
//! out takes them from the alert.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use dna::Activity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams, TypeMeta},
};
use lineage::{Kept, Sealed};
use policies::{
    Rules, Watch,
    kinds::{API_VERSION, ResponseAction},
    objects::{self, Key, Objects, Own},
    runtime::{Applied, Ignored, Planned, Seen, Verdict, Where},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{Deviation, Expected, Wanted, alert::Place, sinks::Sinks};

/// What rules did to the deviations of an alert.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Ruled {
    /// How many of the deviations are ignored. Where all of them are, the alert is suppressed until `ignoredBy` ends, and nobody is told.
    #[serde(skip_serializing_if = "crate::is_default")]
    pub ignored: u64,
    /// The rule that ignores them longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignored_by: Option<Ignored>,
    /// What is to be done about it, the mildest first: [`crate::response`] does it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub responses: Vec<Planned>,
    /// The rules that were about it, and those of which that could not be told, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, RuledBy>,
}

/// What a rule did to the deviations of an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuledBy {
    /// The rule as it was when it was last about one, and what it did then.
    #[serde(flatten)]
    pub applied: Applied,
    /// When that was.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// How often.
    pub count: u64,
}

impl Ruled {
    /// Of one deviation.
    #[must_use]
    pub fn new(verdict: &Verdict, at: Timestamp) -> Self {
        let ruled = verdict.rules.iter().map(|applied| {
            let by = RuledBy { applied: applied.clone(), at, count: 1 };
            (applied.rule.rule.clone(), by)
        });
        Self {
            ignored: u64::from(verdict.ignored.is_some()),
            ignored_by: verdict.ignored.clone(),
            responses: verdict.responses.clone(),
            rules: ruled.collect(),
        }
    }

    /// Adds what rules did to further deviations, in whatever order they come.
    pub fn merge(&mut self, more: Self) {
        self.ignored += more.ignored;
        self.ignored_by = self.ignored_by.take().max(more.ignored_by);
        let all = std::mem::take(&mut self.responses).into_iter().chain(more.responses);
        let mut responses: BTreeMap<ResponseAction, Planned> = BTreeMap::new();
        for mut planned in all {
            if let Some(known) = responses.get_mut(&planned.action) {
                known.dry_run &= planned.dry_run;
                known.rules.append(&mut planned.rules);
            } else {
                responses.insert(planned.action, planned);
            }
        }
        self.responses = responses.into_values().collect();
        for (rule, by) in more.rules {
            let Some(known) = self.rules.get_mut(&rule) else {
                self.rules.insert(rule, by);
                continue;
            };
            let count = known.count + by.count;
            let order = |by: &RuledBy| (by.at, by.applied.rule.version.clone(), by.applied.told());
            if order(&by) > order(known) {
                *known = by;
            }
            known.count = count;
        }
        while self.rules.len() > MOST_RULES {
            self.rules.pop_last();
        }
    }

    /// Until when an alert of so many deviations is ignored; none where not all of them are.
    #[must_use]
    pub fn until(&self, count: u64) -> Option<Timestamp> {
        let is_all = self.ignored > 0 && self.ignored >= count;
        self.ignored_by.as_ref().filter(|_| is_all).map(|by| by.until)
    }

    /// What rules did, a sentence for each.
    pub fn told(&self) -> impl Iterator<Item = String> + '_ {
        self.rules.values().map(|by| by.applied.told())
    }
}

/// Who is told of deviations, by rules: to begin with nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Every sink, as it is set up.
    All,
    /// Only these.
    Only(BTreeSet<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl Audience {
    /// Of one deviation. Where rules name sinks and none of them is there, all are told: a slip of the pen hides nothing.
    #[must_use]
    pub fn of(verdict: &Verdict, sinks: &Sinks) -> Self {
        match &verdict.notify {
            _ if verdict.ignored.is_some() => Self::default(),
            Some(named) if named.is_empty() || sinks.iter().any(|sink| named.contains(&sink.name)) => {
                Self::Only(named.clone())
            }
            _ => Self::All,
        }
    }

    /// Adds those of another deviation.
    pub fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Only(known), Self::Only(more)) => known.extend(more),
            (_, Self::All) => *self = Self::All,
            (Self::All, Self::Only(_)) => {}
        }
    }

    /// Whether a sink is told.
    #[must_use]
    pub fn has(&self, sink: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(named) => named.contains(sink),
        }
    }
}

/// What comes of a deviation by these rules. Its risk is theirs from then on.
pub fn rule(
    (rules, watch): (&Arc<Rules>, &Watch),
    deviation: &mut Deviation,
    activity: &Activity,
    (place, pod): (&Place, &str),
    object: Option<&v1::Pod>,
    expected: Option<&Expected>,
) -> Verdict {
    if rules.runtime().is_empty() {
        return Verdict::default();
    }
    let object = || {
        let mut object = serde_json::to_value(object?).ok()?;
        let fields = object.as_object_mut()?;
        // An object of a list does not say what it is.
        fields.insert("apiVersion".to_owned(), "v1".into());
        fields.insert("kind".to_owned(), "Pod".into());
        Some(object)
    };
    let seen = Seen {
        deviation,
        activity,
        place: place_of(place, pod),
        pod: &object,
        dna: &|| expected.and_then(Expected::dna),
        expectation: &|| expected.and_then(Expected::expectation),
    };
    let verdict = watch.decide_at_run_time(&seen, rules);
    deviation.risk = verdict.risk(deviation.risk);
    count(&verdict);
    verdict
}

/// What these rules read of what is expected of containers.
#[must_use]
pub fn wanted(rules: &Rules) -> Wanted {
    Wanted { dna: rules.runtime().reads("dna"), expectation: rules.runtime().reads("expectation") }
}

/// A place as rules see it.
pub(crate) fn place_of<'a>(place: &'a Place, pod: &'a str) -> Where<'a> {
    Where {
        cluster: &place.cluster,
        namespace: &place.namespace,
        owner: &place.owner,
        pod,
        container: &place.container,
        image: &place.image,
        digest: &place.digest,
    }
}

fn count(verdict: &Verdict) {
    if verdict.ignored.is_some() {
        metrics::counter!("mayfly_bridge_ignored_deviations_total").increment(1);
    }
    for applied in verdict.rules.iter().filter(|applied| applied.failed) {
        metrics::counter!("mayfly_bridge_rule_errors_total", "rule" => applied.rule.rule.clone()).increment(1);
    }
}

/// Looks, from a thread that nothing can hang, for rules that take too long, until nobody decides any more.
pub fn watch_over(watch: &Arc<Watch>) {
    let tell = |rule: &str| {
        tracing::error!(
            rule,
            "a rule of run time takes too long: it is taken out, and does nothing until it is changed"
        );
    };
    if let Err(error) = Watch::over(watch, tell) {
        warn!(%error, "nobody looks for rules that take too long");
    }
}

/// What looks for rules that take too long.
#[must_use]
pub fn rule_watch() -> Watch {
    Watch::new(RULE_LIMIT)
}

/// Where rules are read.
#[derive(Debug, Clone, Default)]
pub enum Source {
    /// Nowhere.
    #[default]
    Nowhere,
    /// From files; whole or not at all.
    Files(Files),
    /// From the cluster.
    Cluster,
}

/// The name of each file, and its text.
pub type Texts = Vec<(String, String)>;

/// Files of rules.
#[derive(Clone)]
pub struct Files {
    /// What they are called all together: whose they are, and where.
    pub name: String,
    /// Reads them.
    pub read: Arc<dyn Fn() -> Result<Texts, String> + Send + Sync>,
}

impl fmt::Debug for Files {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Files").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Reads rules as they are written, and knows what they were when they loaded last.
pub struct Reader {
    source: Source,
    client: Option<Client>,
    objects: Objects,
    /// The texts of files as they loaded last.
    texts: BTreeMap<String, Value>,
    /// What rules were before, over a restart; none: only this process knows.
    kept: Option<Kept>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reader").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Reader {
    /// Of a source. With `sealed`, what loads is kept there for the next start.
    #[must_use]
    pub fn new(source: Source, client: Option<Client>, sealed: Option<Sealed>) -> Self {
        let kept = sealed.map(|sealed| Kept::new(sealed, FACTS));
        Self { source, client, objects: Objects::default(), texts: BTreeMap::new(), kept }
    }

    /// The rules to begin with. Files are read once before anything is served, so that a mistake is told to whoever starts it; those that
    /// loaded before are in force as they were then.
    ///
    /// # Errors
    /// What does not load, and was not known to load before: a line each.
    pub async fn begin(&mut self) -> Result<Rules, Vec<String>> {
        let Source::Files(files) = self.source.clone() else { return Ok(Rules::default()) };
        let mut problems = match self.of_files(&files) {
            Ok(rules) => return Ok(rules),
            Err(problems) => problems,
        };
        let Some(kept) = &self.kept else { return Err(problems) };
        let before = match kept.last(vec![files.name.clone()], Clone::clone).await {
            Ok(before) => before.into_iter().find_map(|(_, texts)| texts),
            Err(error) => {
                problems.push(format!("what they were before is not known: {error}"));
                None
            }
        };
        let rules = before
            .as_ref()
            .and_then(|texts| policies::load_texts(&serde_json::from_value::<Texts>(texts.clone()).ok()?).ok());
        let Some(rules) = rules else { return Err(problems) };
        self.texts.extend(before.map(|texts| (files.name, texts)));
        warn!("rules of run time do not load as they are written: they are in force as they loaded before this start");
        Ok(rules)
    }

    /// The rules there are, and what is wrong with some.
    async fn read(&mut self) -> Result<(Rules, Vec<String>), Vec<String>> {
        match (self.source.clone(), self.client.clone()) {
            (Source::Files(files), _) => {
                let rules = self.of_files(&files);
                self.keep(self.texts.clone()).await;
                rules.map(|rules| (rules, Vec::new()))
            }
            (Source::Cluster, Some(client)) => {
                let listed = list(&client).await.map_err(|error| vec![error])?;
                Ok(self.of_objects(&listed).await)
            }
            _ => Ok(Default::default()),
        }
    }

    fn of_files(&mut self, files: &Files) -> Result<Rules, Vec<String>> {
        let texts = (files.read)().map_err(|error| vec![error])?;
        let rules = policies::load_texts(&texts)?;
        let texts = serde_json::to_value(texts).map_err(|error| vec![error.to_string()])?;
        self.texts.insert(files.name.clone(), texts);
        Ok(rules)
    }

    /// Rules among the objects there are now. One that does not load is as it was when it did, for this process or an earlier one.
    async fn of_objects(&mut self, listed: &[Value]) -> (Rules, Vec<String>) {
        // Without the ledger rules are in force all the same, and what is lost is asked for again.
        let mut unknown = Vec::new();
        if let Some(kept) = &self.kept {
            match kept.last(self.objects.lost(listed), Key::name).await {
                Ok(before) => self.objects.recall(listed, before),
                Err(error) => unknown.push(format!("what rules were that do not load now is not known: {error}")),
            }
        }
        let (rules, mut problems) = self.objects.read(listed);
        self.keep(self.objects.good()).await;
        problems.extend(unknown);
        (rules, problems)
    }

    async fn keep(&mut self, good: BTreeMap<String, Value>) {
        let Some(kept) = &mut self.kept else { return };
        if let Err(error) = kept.keep(good, Timestamp::now()).await {
            debug!(%error, "rules of run time are not kept for the next start");
        }
    }
}

/// Keeps the rules as they are written, until nobody asks any more. What does not load is told, and leaves in force what was.
pub async fn follow(mut reader: Reader, sinks: Sinks, told: watch::Sender<Arc<Rules>>) {
    let (mut problems, mut unwritten) = (Vec::new(), String::new());
    while !told.is_closed() && !matches!(reader.source, Source::Nowhere) {
        let found = match reader.read().await {
            Ok((rules, mut found)) => {
                found.extend(nowhere(&rules, &sinks));
                let versions = |rules: &Rules| rules.runtime().versions().collect::<Vec<_>>();
                if versions(&rules) != versions(&told.borrow()) {
                    // One that is as it was is as slow as it was.
                    told.borrow().runtime().disabled().for_each(|rule| _ = rules.runtime().disable(&rule));
                    info!(rules = rules.runtime().len(), "rules of run time are in force");
                    told.send_replace(Arc::new(rules));
                }
                found
            }
            Err(found) => found,
        };
        if problems != found {
            found.iter().for_each(|problem| warn!(problem, "a rule of run time is not in force as it is written"));
            metrics::gauge!("mayfly_bridge_rule_problems")
                .set(f64::from(u32::try_from(found.len()).unwrap_or(u32::MAX)));
            problems = found;
        }
        let disabled: Vec<String> = told.borrow().runtime().disabled().map(|rule| rule.rule).collect();
        metrics::gauge!("mayfly_bridge_rules_disabled")
            .set(f64::from(u32::try_from(disabled.len()).unwrap_or(u32::MAX)));
        if let (Source::Cluster, Some(client)) = (&reader.source, &reader.client) {
            let written = tell(client, &reader.objects, &disabled).await.err().unwrap_or_default();
            if !written.is_empty() && written != unwritten {
                warn!(error = written, "the status of rules is not written");
            }
            unwritten = written;
        }
        tokio::time::sleep(READ_AGAIN).await;
    }
}

/// Rules that name sinks which are not there.
fn nowhere(rules: &Rules, sinks: &Sinks) -> Vec<String> {
    let is_there = |name: &str| sinks.iter().any(|sink| sink.name == name);
    let missing = rules.runtime().sinks().filter(|(_, sink)| !is_there(sink));
    missing
        .map(|(rule, sink)| {
            format!("{}: there is no sink `{sink}`; where a rule names none that is there, all are told", rule.rule)
        })
        .collect()
}

async fn list(client: &Client) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    for kind in KINDS {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(kind));
        // From the API server's memory: it is asked often.
        let listed = api.list(&ListParams::default().match_any()).await.map_err(|error| format!("{kind}: {error}"))?;
        for mut object in listed.items {
            // Items of a list do not say what they are.
            object.types = Some(TypeMeta { api_version: API_VERSION.to_owned(), kind: kind.to_owned() });
            all.push(serde_json::to_value(object).map_err(|error| format!("{kind}: {error}"))?);
        }
    }
    Ok(all)
}

/// Writes what became of each rule where that is not written yet.
async fn tell(client: &Client, objects: &Objects, disabled: &[String]) -> Result<(), String> {
    for standing in &objects.standings {
        let Some(status) = objects::status(standing, &Own { problems: &[], disabled }, Timestamp::now()) else {
            continue;
        };
        let mut object: DynamicObject =
            serde_json::from_value(standing.object.clone()).map_err(|error| error.to_string())?;
        let name = object.metadata.name.clone().unwrap_or_default();
        let kind = object.types.as_ref().map(|types| types.kind.clone()).unwrap_or_default();
        if let Some(fields) = object.data.as_object_mut() {
            fields.insert("status".to_owned(), status);
        }
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource(&kind)),
            None => Api::all_with(client.clone(), &resource(&kind)),
        };
        // With the version it was read in: what was changed since is read again first.
        match api.replace_status(&name, &PostParams::default(), &object).await {
            Ok(_) => {}
            Err(kube::Error::Api(answer)) if answer.is_conflict() || answer.is_not_found() => {}
            Err(error) => return Err(format!("{kind} {name}: {error}")),
        }
    }
    Ok(())
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("mayfly.dev", "v1alpha1", kind))
}

/// The kind of the ledger's facts that keep rules.
const FACTS: &str = "runtime-rule";
const KINDS: [&str; 2] = ["ClusterRuntimeRule", "RuntimeRule"];
/// How often rules are read again.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// How long one rule may take: some seconds, as a busy machine must not take one out.
const RULE_LIMIT: Duration = Duration::from_secs(3);
/// Rules named on one alert.
const MOST_RULES: usize = 32;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
