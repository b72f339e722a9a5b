//! `mayfly policy`: rules held against cases, and manifests against rules; what decisions come to, and why.

mod convert;
mod explain;
mod plan;
mod replay;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use dna::{Limits, RuntimeFacts};
use jiff::Timestamp;
use policies::{Decision, Effect, GroupVersionKind, Request, Review, Verdict, kinds::ObjectRef};
use serde_json::{Value, json};
use webhook::{
    Judged,
    cluster::{Cluster, Given},
    gather::{self, Analyzer, Gatherer},
    rulebook::{self, Beside, Rulebook},
    service::{self, Service},
};

use crate::{
    args::policy as args,
    expect::{config_maps, documents, name, told, workload},
    output::{self, Destination},
    remote,
    text::clean,
};

/// A case failed, or an object would be refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(String);

pub(crate) fn run(args: &args::Policy) -> anyhow::Result<()> {
    match args {
        args::Policy::Test(args) => test(args),
        args::Policy::Check(args) => check(args),
        args::Policy::Plan(args) => plan::run(args),
        args::Policy::Explain(args) => explain::run(args),
        args::Policy::Replay(args) => replay::run(args),
        args::Policy::Convert(args) => convert::run(args),
        args::Policy::Crds => Destination::default().write(policies::kinds::crds_yaml().as_bytes()),
    }
}

/// The rules of files, and of the files of folders.
pub(crate) fn rules(paths: &[PathBuf]) -> anyhow::Result<policies::Rules> {
    rulebook::from_files(paths).map_err(|problems| anyhow::anyhow!("the rules do not load:\n{}", problems.join("\n")))
}

fn test(args: &args::Test) -> anyhow::Result<()> {
    let rules = rules(&args.rules.paths)?;
    let (mut text, mut failed, mut results) = (String::new(), 0, Vec::new());
    for file in rulebook::yaml_files(&args.cases).map_err(anyhow::Error::msg)? {
        let shown = file.display().to_string();
        let cases = String::from_utf8(output::read(&file)?).with_context(|| format!("{shown} is not UTF-8"))?;
        for result in policies::cases::run(&rules, &cases).with_context(|| format!("{shown} holds no cases"))? {
            let mark = if result.failures.is_empty() { "ok    " } else { "FAILED" };
            failed += usize::from(!result.failures.is_empty());
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{mark} {shown}: {}", clean(&result.name));
            for failure in &result.failures {
                let _ = writeln!(text, "         {}", clean(failure));
            }
            results.push(json!({"file": shown, "case": result}));
        }
    }
    if results.is_empty() {
        bail!("there are no cases");
    }
    output::show(args.format, &results, |_| text)?;
    if failed > 0 {
        return Err(Refused(format!("{failed} of {} cases failed", results.len())).into());
    }
    Ok(())
}

/// What became of one object.
#[derive(serde::Serialize)]
struct Checked {
    file: String,
    object: String,
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
    findings: BTreeMap<String, Vec<dna::Finding>>,
}

fn check(args: &args::Check) -> anyhow::Result<()> {
    let mut objects = Vec::new();
    for file in &args.manifests {
        let shown = file.display().to_string();
        objects.extend(documents(file)?.into_iter().map(|object| (shown.clone(), object)));
    }
    let all: Vec<Value> = objects.iter().map(|(_, object)| object.clone()).collect();
    let asked: Vec<_> = objects.into_iter().filter(|(_, object)| workload(object).is_some()).collect();
    if asked.is_empty() {
        bail!("there is no object with a pod in these files");
    }
    let checked = remote::block_on(async {
        let judges = Judges::new(&args.deciding.gathering, of_files(&all), all.clone())?;
        let service = judges.service(&args.rules.paths, None).await?;
        let mut checked = Vec::new();
        for (file, object) in &asked {
            let namespace = namespace_of(object, &args.deciding.gathering.namespace);
            let mut space = space(&all, &namespace);
            if args.deciding.enforce {
                enforce(&mut space);
            }
            let review = review(object, &namespace, space);
            let judged = service.judge(review, judges.deadline()).await.map_err(anyhow::Error::msg);
            let judged = judged.with_context(|| format!("{} in {file} cannot be judged", name(object)))?;
            checked.push(outcome(file, object, &args.deciding.gathering.namespace, judged));
        }
        Ok(checked)
    })?;
    output::show(args.format, &checked, |checked| human(checked))?;
    let is_denied = |one: &&Checked| one.decision.as_ref().is_some_and(|decision| decision.verdict == Verdict::Deny);
    match checked.iter().filter(is_denied).count() {
        0 => Ok(()),
        denied => Err(Refused(format!("{denied} of {} objects would be refused", checked.len())).into()),
    }
}

/// How often which verdict was given.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
struct Counts {
    denied: u64,
    warned: u64,
    allowed: u64,
}

impl Counts {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Deny => self.denied += 1,
            Verdict::Warn => self.warned += 1,
            Verdict::Allow => self.allowed += 1,
        }
    }

    fn all(&self) -> u64 {
        self.denied + self.warned + self.allowed
    }
}

/// Makes the webhook's own services. All of them share what is found out of images.
pub(super) struct Judges {
    gatherer: Arc<Gatherer>,
    cluster: Cluster,
    /// Objects that may hold what rules refer to.
    documents: Vec<Value>,
    timeout: Duration,
}

impl Judges {
    fn new(args: &args::Gathering, cluster: Cluster, documents: Vec<Value>) -> anyhow::Result<Self> {
        let limits = Limits::default();
        let mut registry = remote::settings(&args.registry)?;
        let folder = oci::Cache::default_folder();
        registry.cache = folder.map(|folder| oci::Cache::new(folder, oci::Cache::DEFAULT_BYTES));
        let runtime = runtime(args.runtime.as_deref())?;
        let analyzer = Arc::new(Analyzer::new(limits.clone(), registry.cache.clone(), MEMORY)?);
        let settings = gather::Settings { registry, runtime, limits, memory_bytes: MEMORY, seal: None };
        let gatherer = Arc::new(Gatherer::new(settings, analyzer, None));
        Ok(Self { gatherer, cluster, documents, timeout: Duration::from_secs(args.timeout) })
    }

    /// A service with the rules of these files.
    async fn service(&self, rules: &[PathBuf], own_namespace: Option<&str>) -> anyhow::Result<Service> {
        let (service, problems) = self.armed(self::rules(rules)?, own_namespace).await?;
        match problems.first() {
            Some(problem) => bail!("{problem}"),
            None => Ok(service),
        }
    }

    /// A service with these rules; and what is not in force as it is written.
    async fn armed(
        &self,
        rules: policies::Rules,
        own_namespace: Option<&str>,
    ) -> anyhow::Result<(Service, Vec<String>)> {
        let settings = service::Settings {
            cluster: String::new(),
            own_namespace: own_namespace.map(str::to_owned),
            exempting_groups: BTreeSet::new(),
            inline_bytes: u64::MAX,
        };
        let service = Service::new(Arc::clone(&self.gatherer), self.cluster.clone(), None, None, settings);
        let beside = match self.cluster.client() {
            Some(_) => self.cluster.beside(&rules, own_namespace).await.map_err(anyhow::Error::msg)?,
            None => beside_of(&rules, &self.documents),
        };
        let book = Rulebook::new(rules, Vec::new(), &beside, Timestamp::now());
        let problems = book.problems.clone();
        service.arm(book);
        Ok((service, problems))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }
}

/// A cluster that files say all about.
fn of_files(documents: &[Value]) -> Cluster {
    Cluster::of_files(Given { namespaces: BTreeMap::new(), config_maps: config_maps(documents) })
}

/// What rules refer to, among documents: keys and trust roots in ConfigMaps, keys in Secrets that are written out.
fn beside_of(rules: &policies::Rules, documents: &[Value]) -> Beside {
    let text = |reference: &ObjectRef| -> Option<String> {
        let meant = documents.iter().find(|object| {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
            let namespace = text("/metadata/namespace");
            matches!(text("/kind"), Some("ConfigMap" | "Secret"))
                && text("/metadata/name") == Some(&reference.name)
                && (namespace.is_none() || reference.namespace.is_none() || namespace == reference.namespace.as_deref())
        })?;
        let field = if meant.get("kind")?.as_str()? == "Secret" { "stringData" } else { "data" };
        let entries = meant.get(field)?.as_object()?;
        let entry = match &reference.key {
            Some(key) => entries.get(key),
            None => entries.values().next().filter(|_| entries.len() == 1),
        };
        entry?.as_str().map(str::to_owned)
    };
    Beside {
        keys: rules.key_refs().into_iter().filter_map(|place| Some((place.clone(), text(&place)?))).collect(),
        roots: rules
            .trusts()
            .iter()
            .filter_map(|(name, spec)| Some((name.clone(), text(spec.config_map_ref.as_ref()?)?)))
            .collect(),
        authorities: rules
            .access()
            .iter()
            .filter_map(|(name, spec)| Some((name.clone(), text(spec.ca_bundle.as_ref()?)?)))
            .collect(),
        ..Beside::default()
    }
}

/// Facts of the nodes, as a file has them.
pub(crate) fn runtime(path: Option<&Path>) -> anyhow::Result<RuntimeFacts> {
    match path {
        None => Ok(RuntimeFacts::default()),
        Some(path) => serde_yaml_ng::from_slice(&output::read(path)?)
            .with_context(|| format!("{} holds no facts of a runtime", path.display())),
    }
}

/// Objects of files, and of the files of folders, each with the name of its file.
fn objects(paths: &[PathBuf]) -> anyhow::Result<Vec<(String, Value)>> {
    let mut objects = Vec::new();
    for file in rulebook::yaml_files(paths).map_err(anyhow::Error::msg)? {
        let shown = file.display().to_string();
        objects.extend(documents(&file)?.into_iter().map(|object| (shown.clone(), object)));
    }
    Ok(objects)
}

fn namespace_of(object: &Value, usual: &str) -> String {
    let own = object.pointer("/metadata/namespace").and_then(Value::as_str).filter(|name| !name.is_empty());
    own.unwrap_or(usual).to_owned()
}

/// The namespace among documents; else one without labels.
fn space(documents: &[Value], namespace: &str) -> Value {
    let is_meant = |one: &&Value| {
        one.get("kind").and_then(Value::as_str) == Some("Namespace")
            && one.pointer("/metadata/name").and_then(Value::as_str) == Some(namespace)
    };
    let bare = || json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    documents.iter().find(is_meant).cloned().unwrap_or_else(bare)
}

/// Labels a namespace as one where rules are in force.
fn enforce(space: &mut Value) {
    if let Some(metadata) = space.get_mut("metadata").and_then(Value::as_object_mut) {
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        if !labels.is_object() {
            *labels = json!({});
        }
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(service::ENFORCE.to_owned(), "true".into());
        }
    }
}

/// An object as the API server would ask about it.
fn review(object: &Value, namespace: &str, space: Value) -> Review {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let version = text("/apiVersion");
    let (group, version) = version.split_once('/').map_or(("", version.as_str()), |(group, version)| (group, version));
    let kind = GroupVersionKind { group: group.to_owned(), version: version.to_owned(), kind: text("/kind") };
    let request = Request {
        kind,
        name: text("/metadata/name"),
        namespace: namespace.to_owned(),
        operation: "CREATE".to_owned(),
        ..Request::default()
    };
    Review { request, object: object.clone(), namespace_object: space, ..Review::default() }
}

fn outcome(file: &str, object: &Value, namespace: &str, judged: Judged) -> Checked {
    let (decision, findings) = match judged {
        Judged::NotAsked => (None, BTreeMap::new()),
        Judged::Decided(review, decision) => {
            let of = |subject: &dna::SubjectFacts| {
                Some((subject.image.used.name.clone(), subject.expectation.known()?.findings.clone()))
            };
            (Some(*decision), review.subjects.iter().filter_map(of).collect())
        }
    };
    let own = object.pointer("/metadata/namespace").and_then(Value::as_str);
    Checked {
        file: file.to_owned(),
        object: name(object),
        namespace: own.unwrap_or(namespace).to_owned(),
        decision,
        findings,
    }
}

fn human(checked: &[Checked]) -> String {
    let mut text = String::new();
    for one in checked {
        let verdict = match one.decision.as_ref().map(|decision| decision.verdict) {
            None => "not asked: no rule is about it",
            Some(Verdict::Allow) => "allowed",
            Some(Verdict::Warn) => "allowed with warnings",
            Some(Verdict::Deny) => "DENIED",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} in {}: {verdict}", clean(&one.object), clean(&one.namespace));
        for reason in one.decision.iter().flat_map(|decision| &decision.reasons) {
            let effect = match reason.effect {
                Effect::Deny => "deny ",
                Effect::Warn => "warn ",
                Effect::Audit => "audit",
            };
            let _ = writeln!(text, "  {effect} {}", clean(&reason.text()));
        }
        for (container, findings) in &one.findings {
            for finding in findings {
                let _ = write!(text, "  {}: {}", clean(container), told(finding));
            }
        }
    }
    text
}

/// For facts of one run, and for images analyzed at once.
const MEMORY: u64 = 512 << 20;
