//! `mayfly incident`: stories that alerts tell, from a bridge's API, and their evidence.

use std::fs::File;

use anyhow::Context as _;
use runtime_bridge::{
    evidence,
    incident::{Incident, tree::Tree},
};
use serde::{Deserialize, Serialize};

use crate::{
    api::Api,
    args::api::{Incident as Command, IncidentExport, IncidentList, IncidentShow},
    output::{self, Destination},
    remote,
    text::clean,
};

/// A page of the API's.
#[derive(Deserialize)]
struct Page {
    incidents: Vec<Listed>,
    next: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Listed {
    #[serde(flatten)]
    incident: Incident,
    alerts: u64,
}

#[derive(Serialize, Deserialize)]
struct Whole {
    #[serde(flatten)]
    incident: Incident,
    trees: Vec<Tree>,
    pods: Vec<String>,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list(args),
        Command::Show(args) => show(args),
        Command::Export(args) => export(args),
        Command::Verify { file } => {
            let open = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
            let manifest = evidence::verify(open).with_context(|| file.display().to_string())?;
            output::say(&format!(
                "{}: {} files of incident {}, made at {} for {}, are as they were",
                file.display(),
                manifest.files.len(),
                clean(&manifest.incident),
                manifest.made_at,
                clean(&manifest.made_for)
            ));
            manifest
                .left_out
                .iter()
                .for_each(|path| output::say(&format!("left out, for lack of room: {}", clean(path))));
            Ok(())
        }
    }
}

fn list(args: &IncidentList) -> anyhow::Result<()> {
    let api = Api::new(&args.api)?;
    let risk = args.min_risk.map(|risk| risk.to_string());
    let all = remote::block_on(async {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let least = if args.all { "1" } else { "2" };
            let mut query = vec![("limit", "500"), ("minAlerts", least)];
            query.extend(args.namespace.as_deref().map(|name| ("namespace", name)));
            query.extend(risk.as_deref().map(|risk| ("minRisk", risk)));
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page: Page = api.json(&["incidents"], &query).await?;
            all.extend(page.incidents);
            match page.next {
                Some(next) if all.len() < MOST => cursor = Some(next),
                _ => return Ok(all),
            }
        }
    })?;
    output::show(args.format, &all, |all| {
        if all.is_empty() {
            return "no incidents\n".to_owned();
        }
        all.iter().map(|Listed { incident, alerts }| format!("{}, {alerts} alerts\n", head(incident))).collect()
    })
}

fn show(args: &IncidentShow) -> anyhow::Result<()> {
    let api = Api::new(&args.api)?;
    let whole: Whole = remote::block_on(api.json(&["incidents", &args.incident], &[]))?;
    output::show(args.format, &whole, |whole| told(&whole.incident, &whole.trees, &whole.pods))
}

fn export(args: &IncidentExport) -> anyhow::Result<()> {
    let api = Api::new(&args.api)?;
    let archive = remote::block_on(api.file(&["incidents", &args.incident, "evidence"]))?;
    let manifest = evidence::verify(&*archive).context("what the bridge gave")?;
    let file = args.output.clone().unwrap_or_else(|| format!("incident-{}.tar.gz", clean(&manifest.incident)).into());
    Destination(Some(file.clone())).write(&archive)?;
    output::say(&format!("{}: {} files, {} bytes", file.display(), manifest.files.len(), archive.len()));
    Ok(())
}

/// An incident in a line.
pub(crate) fn head(incident: &Incident) -> String {
    let stages: Vec<&str> = incident.stages.keys().map(|tactic| tactic.name()).collect();
    let campaign = if incident.is_campaign { "campaign, " } else { "" };
    let workloads: Vec<&str> = incident.workloads.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    let places = if workloads.is_empty() { String::new() } else { format!(" in {}", workloads.join(", ")) };
    format!(
        "incident {}: risk {:.2}, {campaign}{}{} from {} to {}",
        clean(&incident.id),
        incident.risk,
        if stages.is_empty() { "no known tactic".to_owned() } else { stages.join(", ") },
        clean(&places),
        incident.first_seen,
        incident.last_seen
    )
}

fn told(incident: &Incident, trees: &[Tree], pods: &[String]) -> String {
    let mut text = head(incident) + "\n";
    let list = |name: &str, all: Vec<String>| match all.len() {
        0 => String::new(),
        _ => format!("  {name}: {}\n", clean(&all.join(", "))),
    };
    text += &list("pods", pods.to_vec());
    text += &list("images", incident.digests.iter().cloned().collect());
    text += &list("people", incident.users.iter().cloned().collect());
    if let Some(root) = &incident.root {
        let origin = &root.origin;
        let parts = [
            origin.layer.map(|layer| format!("layer {layer}")),
            origin.step.as_ref().map(|step| format!("built by {step}")),
            origin.package.as_ref().map(|package| format!("package {package}")),
        ];
        let parts = parts.into_iter().flatten().chain(origin.commits.clone()).chain(origin.changed.clone());
        text += &list(
            "began with",
            std::iter::once(format!("alert {}", root.alert)).chain(root.users.clone()).chain(parts).collect(),
        );
    }
    text += "what happened:\n";
    for chapter in &incident.chapters {
        let tactic = chapter.tactic.map_or("", |tactic| tactic.name());
        text += &format!("  {} {} {tactic} {}\n", chapter.first_seen, chapter.alert, clean(&chapter.message));
    }
    if incident.more > 0 {
        text += &format!("  and {} more alerts\n", incident.more);
    }
    for tree in trees {
        text += &format!("processes of {} {}:\n", clean(&tree.pod), clean(&tree.container));
        for branch in &tree.branches {
            let process = &branch.process;
            let name = if process.argv.is_empty() {
                process.exe.clone().or_else(|| process.name.clone()).unwrap_or_default()
            } else {
                process.argv.join(" ")
            };
            let depth = usize::try_from(branch.depth).unwrap_or_default().min(32);
            let alerts: std::collections::BTreeSet<&String> =
                branch.deeds.iter().flat_map(|deed| &deed.alerts).collect();
            let marks = alerts.into_iter().map(|alert| format!(" [{alert}]")).collect::<String>();
            text += &format!("  {}{}{marks}\n", "  ".repeat(depth), clean(&name));
        }
    }
    text
}

/// Incidents that are listed.
const MOST: usize = 10_000;
