//! `mayfly expect`: an image and a pod in, what the container will do and where the two do not fit out.

use std::{collections::BTreeMap, fmt::Write as _};

use analyzer::ConfigMaps;
use anyhow::{Context as _, bail};
use dna::{ContainerSpec, Effect, Expectation, Finding, Limits, Workload};
use serde::Deserialize as _;
use serde_json::Value;

use crate::{
    args::{self, ExplainFormat},
    output::{self, Destination},
    question::Question,
    text::clean,
};

/// The container will not come up.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct DoesNotFit(String);

pub(crate) fn run(args: &args::Expect) -> anyhow::Result<()> {
    let manifests = documents(&args.pod)?;
    let file = args.pod.display();
    let (name, pod) = chosen(&manifests, args.object.as_deref()).with_context(|| format!("in {file}"))?;
    let spec = pod.spec().with_context(|| format!("{name} in {file}"))?;
    let container =
        container(&spec.containers, args.container.as_deref()).with_context(|| format!("{name} in {file}"))?;
    let runtime = crate::policy::runtime(args.runtime.as_deref())?;
    let question = Question::open(&args.source, &args.open)?;
    let dna = question.dna();
    let maps = config_maps(&manifests);
    let expectation = analyzer::bind(dna, &dna.digest()?, container, &maps, &runtime, &Limits::default());
    let destination = Destination(args.output.clone());
    match args.format {
        ExplainFormat::Json => destination.write(&output::pretty(&expectation)?)?,
        ExplainFormat::Human => destination.write(human(&question.name, &name, container, &expectation).as_bytes())?,
    }
    match expectation.effect() {
        Effect::Fails => Err(DoesNotFit(format!("container {} of {name} will not come up", container.name)).into()),
        _ => Ok(()),
    }
}

/// The documents of a file.
pub(crate) fn documents(path: &std::path::Path) -> anyhow::Result<Vec<Value>> {
    let bytes = output::read(path)?;
    let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is not UTF-8", path.display()))?;
    let mut found = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document).with_context(|| format!("{} cannot be read", path.display()))?;
        match value.get("items").and_then(Value::as_array) {
            Some(items) if value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List")) => {
                found.extend(items.iter().cloned());
            }
            _ if value.is_null() => {}
            _ => found.push(value),
        }
    }
    Ok(found)
}

/// The object with a pod that is meant, and how it is called.
fn chosen<'a>(documents: &'a [Value], wanted: Option<&str>) -> anyhow::Result<(String, Workload<'a>)> {
    let mut workloads: Vec<_> = documents.iter().filter_map(|object| Some((name(object), workload(object)?))).collect();
    let names: Vec<String> = workloads.iter().map(|(name, _)| name.clone()).collect();
    if let Some(wanted) = wanted {
        workloads.retain(|(name, _)| name.eq_ignore_ascii_case(wanted));
    }
    match (workloads.pop(), workloads.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) if names.is_empty() => bail!("there is no object with a pod"),
        _ => bail!("there are several objects with pods: name one with --object: {}", names.join(", ")),
    }
}

/// `Kind/name`.
pub(crate) fn name(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{}/{}", text("/kind"), text("/metadata/name"))
}

pub(crate) fn workload(object: &Value) -> Option<Workload<'_>> {
    let version = object.get("apiVersion").and_then(Value::as_str)?;
    let group = version.split_once('/').map_or("", |(group, _)| group);
    Workload::of(group, object.get("kind").and_then(Value::as_str)?, None, object)
}

fn container<'a>(containers: &'a [ContainerSpec], wanted: Option<&str>) -> anyhow::Result<&'a ContainerSpec> {
    let names: Vec<&str> = containers.iter().map(|one| one.name.as_str()).collect();
    match (wanted, containers) {
        (Some(wanted), _) => {
            let found = containers.iter().find(|one| one.name == wanted);
            found.with_context(|| format!("there is no container {wanted}, but {}", names.join(", ")))
        }
        (None, [one]) => Ok(one),
        (None, _) => bail!("there are several containers: name one with --container: {}", names.join(", ")),
    }
}

/// What ConfigMaps among the documents hold.
pub(crate) fn config_maps(documents: &[Value]) -> ConfigMaps {
    let maps = documents.iter().filter(|object| object.get("kind").and_then(Value::as_str) == Some("ConfigMap"));
    maps.filter_map(|object| {
        let name = object.pointer("/metadata/name")?.as_str()?;
        let data = object.get("data").and_then(Value::as_object).into_iter().flatten();
        let texts = data.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.as_bytes().to_vec())));
        Some((name.to_owned(), texts.collect::<BTreeMap<_, _>>()))
    })
    .collect()
}

fn human(source: &str, name: &str, container: &ContainerSpec, expectation: &Expectation) -> String {
    let mut text = String::new();
    let user = expectation.uid.map_or("unknown".to_owned(), |uid| uid.to_string());
    let line = expectation.argv.join(" ");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} as container {} of {name}", clean(source), clean(&container.name));
    let _ = writeln!(text, "runs    {} as user {user}", clean(&line));
    let _ = writeln!(text, "verdict {}", verdict(expectation.effect()));
    for finding in &expectation.findings {
        text.push('\n');
        text.push_str(&told(finding));
    }
    if expectation.findings.is_empty() {
        text.push_str("\nPod and image fit: nothing to say.\n");
    }
    text
}

/// A finding for people.
pub(crate) fn told(finding: &Finding) -> String {
    let effect = match finding.effect {
        Effect::Fails => "fails",
        Effect::MayFail => "may fail",
        Effect::None => "notice",
    };
    let mut text = format!("{effect:<9}{}\n", clean(&finding.message));
    if let Some(remedy) = &finding.remedy {
        let _ = writeln!(text, "         do: {}", clean(remedy));
    }
    text
}

fn verdict(effect: Effect) -> &'static str {
    match effect {
        Effect::Fails => "it will not come up",
        Effect::MayFail => "it may not come up",
        Effect::None => "it comes up",
    }
}
