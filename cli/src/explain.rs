//! `mayfly explain`: why something is predicted. A DNA and a question in; the chain from the start command to the instruction,
//! script line or configuration key out, with the layer and package that brought each file. What is not predicted is said to be
//! so, together with how far that dimension was worked out.

mod chain;
mod what;

use std::fmt::Write as _;

use analyzer::CallStep;
use dna::{Behavior, Completeness, Condition, Evidence, ImagePath, Unknown};
use serde::Serialize;

use crate::{
    args::{self, ExplainFormat},
    facts,
    output::{self, Destination},
    question::Question,
    text,
};
use chain::{Chains, Link};
use what::{Item, What};

/// Answers the question that the arguments ask.
pub(crate) fn run(args: &args::Explain) -> anyhow::Result<()> {
    let what: What = args.what.parse()?;
    let question = Question::open(&args.source, &args.open)?;
    let what = what.resolved(|path| question.resolve(path));
    let explained = explain(&question, &what, &args.what)?;
    let printed = match args.format {
        ExplainFormat::Human => human(&question, &explained).into_bytes(),
        ExplainFormat::Json => output::pretty(&explained)?,
    };
    Destination(args.output.clone()).write(&printed)
}

/// The answer.
#[derive(Debug, Serialize)]
struct Explained<'a> {
    schema: &'static str,
    dna: String,
    asked: &'a str,
    dimension: &'static str,
    predicted: bool,
    completeness: &'a Completeness,
    items: Vec<Reason>,
    /// What could not be known and bears on the answer.
    unknowns: Vec<&'a Unknown>,
}

/// One item with the ways to it.
#[derive(Debug, Serialize)]
struct Reason {
    #[serde(flatten)]
    item: Item,
    /// Programs that do it, in all.
    programs: usize,
    ways: Vec<Way>,
}

/// One way from the start to the item.
#[derive(Debug, Serialize)]
struct Way {
    chain: Vec<Step>,
    /// Where the last program's doing shows.
    evidence: Vec<Place>,
    /// The calls from the program's entry to the function that makes the system call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calls: Vec<Called>,
}

#[derive(Debug, Serialize)]
struct Step {
    #[serde(flatten)]
    link: Link,
    file: Origin,
}

#[derive(Debug, Serialize)]
struct Place {
    #[serde(flatten)]
    evidence: Evidence,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<Origin>,
}

#[derive(Debug, Serialize)]
struct Called {
    path: ImagePath,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
}

/// What brought a file.
#[derive(Debug, Default, Serialize)]
struct Origin {
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<String>,
}

fn explain<'a>(question: &'a Question, what: &What, asked: &'a str) -> anyhow::Result<Explained<'a>> {
    let (behavior, unknowns) = (&question.dna().behavior, &question.dna().unknowns);
    let chains = Chains::new(question.dna(), &behavior.exec);
    let items = what.items(behavior);
    let items: Vec<Reason> = items.into_iter().map(|item| reason(question, behavior, &chains, what, item)).collect();
    Ok(Explained {
        schema: dna::SCHEMA,
        dna: question.dna().digest()?.to_string(),
        asked,
        dimension: what.dimension(),
        predicted: !items.is_empty(),
        completeness: what.completeness(behavior),
        items,
        unknowns: unknowns.iter().filter(|unknown| what.depends_on(unknown.subject)).collect(),
    })
}

fn reason(question: &Question, behavior: &Behavior, chains: &Chains, what: &What, item: Item) -> Reason {
    let way = |program: &ImagePath, evidence: &[Evidence]| {
        let name = match what {
            What::Syscall(name) => Some(name),
            _ => None,
        };
        Way {
            chain: chains.to(program).into_iter().map(|link| step(question, link)).collect(),
            evidence: evidence.iter().map(|evidence| place(question, evidence)).collect(),
            calls: name.map(|name| question.calls(program, name)).unwrap_or_default().into_iter().map(called).collect(),
        }
    };
    if let What::Exec(path) = what {
        let program = path.parse::<ImagePath>().ok().filter(|path| chains.cost(path) != u64::MAX);
        let ways = match program {
            Some(program) => vec![way(&program, &[])],
            None => vec![Way { chain: Vec::new(), evidence: places(question, &item.evidence), calls: Vec::new() }],
        };
        return Reason { item, programs: 1, ways };
    }
    // The programs that do it, and where it shows in each.
    let executed = |path: &ImagePath| behavior.exec.iter().any(|known| known.what.path == *path);
    let programs = question.dna().programs.iter().filter(|program| executed(&program.path));
    let mut doing: Vec<_> = programs
        .filter_map(|program| {
            let own = what.items(program.behavior.as_ref()?).into_iter().find(|own| names(own) == names(&item))?;
            Some((own.confidence, chains.cost(&program.path), &program.path, own))
        })
        .collect();
    doing.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
    let mut ways: Vec<Way> =
        doing.iter().take(MAX_WAYS).map(|(_, _, program, own)| way(program, &own.evidence)).collect();
    if ways.is_empty() {
        ways.push(Way { chain: Vec::new(), evidence: places(question, &item.evidence), calls: Vec::new() });
    }
    Reason { item, programs: doing.len(), ways }
}

fn step(question: &Question, link: Link) -> Step {
    let file = question.origin(&link.program, None);
    Step { file, link }
}

fn called(step: CallStep) -> Called {
    Called { path: step.file, offset: step.offset, function: step.function }
}

fn places(question: &Question, evidence: &[Evidence]) -> Vec<Place> {
    evidence.iter().map(|evidence| place(question, evidence)).collect()
}

fn place(question: &Question, evidence: &Evidence) -> Place {
    let file = match evidence {
        Evidence::File { path, layer, .. } | Evidence::Binary { path, layer, .. } => {
            Some(question.origin(path, *layer))
        }
        _ => None,
    };
    Place { evidence: evidence.clone(), file }
}

impl Question {
    /// What brought a file.
    fn origin(&self, path: &ImagePath, layer: Option<u32>) -> Origin {
        let program = self.dna().programs.iter().find(|program| program.path == *path);
        let layer = layer.or_else(|| program.map(|program| program.layer));
        let created_by = layer.and_then(|layer| self.dna().layers.get(layer as usize)?.created_by.clone());
        let package = program.and_then(|program| program.package.clone()).or_else(|| self.package(path));
        Origin { layer, created_by, package }
    }
}

/// The answer for people.
fn human(question: &Question, explained: &Explained<'_>) -> String {
    let mut out = String::new();
    let name = text::clean(&question.name);
    let asked = text::clean(explained.asked);
    if !explained.predicted {
        let _ = writeln!(out, "{asked} is not predicted for {name}");
    }
    for reason in &explained.items {
        let item = text::clean(&shown(&reason.item)).into_owned();
        let sure = facts::confidence(reason.item.confidence);
        let _ = writeln!(out, "{item}  {sure}{}{}", phase(&reason.item), when(&reason.item.when));
        arguments(&mut out, &reason.item);
        for way in &reason.ways {
            out.push('\n');
            draw(&mut out, way, &item);
        }
        let more = reason.programs.saturating_sub(reason.ways.len());
        if more != 0 {
            let _ = writeln!(out, "\nand {more} more of the programs that run");
        }
        out.push('\n');
    }
    let told = match explained.completeness {
        Completeness::Complete => "complete: what is not listed will not happen".to_owned(),
        Completeness::Partial { reason } => format!("partial: {reason}"),
        Completeness::None => "not worked out: nothing follows from absence".to_owned(),
    };
    let _ = writeln!(out, "completeness of {}: {}", explained.dimension, text::clean(&told));
    if !explained.unknowns.is_empty() {
        let _ = writeln!(out, "{} unknowns bear on it:", explained.unknowns.len());
        for unknown in explained.unknowns.iter().take(MAX_UNKNOWNS) {
            let line = format!("{}: {}", unknown.place, unknown.why);
            let _ = writeln!(out, "  {}", text::clean(&line));
        }
        if explained.unknowns.len() > MAX_UNKNOWNS {
            let _ = writeln!(out, "  … `--format json` names all");
        }
    }
    out
}

fn draw(out: &mut String, way: &Way, item: &str) {
    for (depth, step) in way.chain.iter().enumerate() {
        let indent = "   ".repeat(depth);
        let because: Vec<String> = step.link.evidence.iter().take(1).map(facts::place).collect();
        let because = because.first().filter(|place| **place != step.link.reason);
        let because = because.map(|place| format!(", {place}")).unwrap_or_default();
        let sure = facts::confidence(step.link.confidence);
        let line = format!("{}  {}{because}, {sure}{}", step.link.program, step.link.reason, when(&step.link.when));
        let _ = writeln!(out, "{indent}{}", text::clean(&line));
        origin(out, &indent, &step.file);
    }
    let indent = "   ".repeat(way.chain.len());
    for place in &way.evidence {
        let (offset, detail) = match &place.evidence {
            Evidence::Binary { offset, detail, .. } => (offset.map(|offset| format!("+{offset:#x}")), detail.as_ref()),
            Evidence::File { detail, .. } => (None, detail.as_ref()),
            _ => (None, None),
        };
        let detail = detail.map(|detail| format!("  {detail}")).unwrap_or_default();
        let line = format!("{item}  {}{}{detail}", facts::place(&place.evidence), offset.unwrap_or_default());
        let _ = writeln!(out, "{indent}{}", text::clean(&line));
        if let Some(file) = &place.file {
            origin(out, &indent, file);
        }
    }
    if !way.calls.is_empty() {
        let _ = writeln!(out, "{indent}   by these calls:");
        let mut last = None;
        for call in &way.calls {
            let function = call.function.clone().unwrap_or_else(|| format!("function at {:#x}", call.offset));
            let file = if last == Some(&call.path) { String::new() } else { format!("  {}", call.path) };
            let _ = writeln!(out, "{indent}   → {}", text::clean(&format!("{function}{file}")));
            last = Some(&call.path);
        }
    }
}

fn origin(out: &mut String, indent: &str, file: &Origin) {
    let layer = file.layer.map(|layer| match &file.created_by {
        Some(step) => format!("layer {layer} ({})", text::fit(step, 60)),
        None => format!("layer {layer}"),
    });
    let parts: Vec<String> = layer.into_iter().chain(file.package.clone()).collect();
    if !parts.is_empty() {
        let _ = writeln!(out, "{indent}  {}", text::clean(&parts.join(", ")));
    }
}

fn when(conditions: &[Condition]) -> String {
    let told: Vec<String> = conditions.iter().map(facts::condition).collect();
    if told.is_empty() { String::new() } else { format!(", when {}", told.join(" and ")) }
}

/// The item in one word or two.
/// What an item names: what is known of a call's arguments differs by program.
fn names(item: &Item) -> &serde_json::Value {
    item.what.get("name").unwrap_or(&item.what)
}

/// The values of a call's arguments, a line each.
fn arguments(out: &mut String, item: &Item) {
    let arguments = item.what.get("arguments").cloned().and_then(|value| serde_json::from_value(value).ok());
    let Some(dna::Arguments { parameters, values, all_known }) = arguments else { return };
    let _ = writeln!(out, "  {}:", text::clean(&parameters.join(", ")));
    for value in values.iter().take(MAX_VALUES) {
        let shown: Vec<&str> = value.iter().map(|value| value.as_deref().unwrap_or("?")).collect();
        let _ = writeln!(out, "    {}", text::clean(&shown.join(", ")));
    }
    if values.len() > MAX_VALUES {
        let _ = writeln!(out, "    … `--format json` names all {}", values.len());
    }
    let _ = writeln!(out, "    {}", if all_known { "no others" } else { "others are possible" });
}

fn shown(item: &Item) -> String {
    let text = |key: &str| item.what.get(key).and_then(|value| value.as_str().map(str::to_owned));
    let port = item.what.get("port").and_then(serde_json::Value::as_u64);
    if let Some(host) = text("host") {
        return port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
    }
    match (port, text("protocol")) {
        (Some(port), Some(protocol)) => format!("{port}/{protocol}"),
        _ => text("name").or_else(|| text("path")).unwrap_or_else(|| item.what.to_string()),
    }
}

/// When a system call is made, where that is known.
fn phase(item: &Item) -> &'static str {
    match item.what.get("phase").and_then(serde_json::Value::as_str) {
        Some("startup") => ", not while the server serves",
        _ => "",
    }
}

/// Rows of arguments that people are shown.
const MAX_VALUES: usize = 20;
/// Programs whose way is drawn.
const MAX_WAYS: usize = 3;
/// Unknowns that people are shown.
const MAX_UNKNOWNS: usize = 5;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "JSON of a test: a missing key is null")]
mod tests {
    use super::*;
    use crate::fixture;

    fn question() -> Question {
        let config = serde_json::json!({
            "Entrypoint": ["/entry.sh"], "Cmd": ["app"], "ExposedPorts": {"80/tcp": {}}, "history": "COPY . /",
        });
        let files: [(&str, u32, &[u8]); 3] = [
            ("/entry.sh", 0o755, b"#!/bin/sh\nset -e\nif [ \"$1\" = app ]; then other; fi\nexec \"$@\"\n"),
            ("/bin/sh", 0o755, b"\x7fELF"),
            ("/bin/app", 0o755, b"\x7fELF"),
        ];
        let image = fixture::image(&config, &files);
        Question::about("registry.test/team/app:1", fixture::analysis(&image))
    }

    fn told(asked: &str) -> String {
        let question = question();
        let what: What = asked.parse().expect("a question");
        let explained = explain(&question, &what, asked).expect("explained");
        human(&question, &explained)
    }

    #[test]
    fn a_program_is_explained_from_the_start_to_the_line() {
        let text = told("exec:/bin/app");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines.first(), Some(&"/bin/app  certain"), "{text}");
        assert!(lines.contains(&"/entry.sh  Entrypoint, certain"), "{text}");
        assert!(lines.iter().any(|line| line.starts_with("/bin/app  calls, /entry.sh:4, certain")), "{text}");
        assert!(lines.contains(&"layer 0 (COPY . /)"), "{text}");
    }

    #[test]
    fn a_claimed_port_is_explained_by_its_key() {
        let text = told("80/tcp");
        assert!(text.starts_with("80/tcp  possible\n") && text.contains("80/tcp  ExposedPorts"), "{text}");
    }

    #[test]
    fn what_is_not_predicted_says_how_far_that_was_worked_out() {
        let text = told("exec:/bin/nosuch");
        assert!(text.starts_with("exec:/bin/nosuch is not predicted for registry.test/team/app:1\n"), "{text}");
        assert!(text.contains("completeness of exec: partial: ") && text.contains("unknowns bear on it"), "{text}");
    }

    #[test]
    fn the_json_names_file_layer_and_step() {
        let question = question();
        let what: What = "exec:/bin/app".parse().expect("a question");
        let explained = explain(&question, &what, "exec:/bin/app").expect("explained");
        let json = serde_json::to_value(&explained).expect("JSON");
        let last = &json["items"][0]["ways"][0]["chain"][1];
        assert_eq!((&last["program"], &last["file"]["layer"]), (&"/bin/app".into(), &0.into()));
        assert_eq!(last["evidence"][0]["line"], 4);
        assert_eq!(json["predicted"], true);
    }
}
