//! `mayfly snapshot`: what a workload really did against what was predicted, and drafts of tighter profiles, rules and overlays.

mod profile;
mod stored;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use runtime_bridge::{
    draft,
    snapshot::{Snapshot, View, Workload},
};
use serde::Deserialize;

use crate::{
    api::Api,
    args::api::{Draft, Snapshot as Args},
    output::{self, Destination},
    remote,
    text::clean,
};

#[derive(Deserialize)]
struct List {
    workloads: Vec<Workload>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workload = args.workload.as_deref().map(|workload| {
        let parts = workload.split_once('/').filter(|(_, owner)| owner.contains('/'));
        parts.with_context(|| format!("{workload}: a workload is NAMESPACE/KIND/NAME, such as shop/Deployment/web"))
    });
    let workload = workload.transpose()?;
    if let Some(file) = &args.replay {
        let mut places: Vec<(&str, &str)> = workload
            .map(|(namespace, owner)| [("namespace", namespace), ("owner", owner)])
            .into_iter()
            .flatten()
            .collect();
        places.extend(args.cluster.as_deref().map(|cluster| ("cluster", cluster)));
        let api = Api::new(&args.api)?;
        let replayed = remote::block_on(stored::replay(&api, file, &places))?;
        return output::show(args.format, &replayed, stored::told);
    }
    let workload = workload.context("name a workload: NAMESPACE/KIND/NAME, such as shop/Deployment/web")?;
    let Some(kind) = args.draft else {
        let api = Api::new(&args.api)?;
        let snapshot = remote::block_on(async { snapshot(&api, &found(&api, args, workload).await?).await })?;
        return output::show(args.format, &snapshot, told);
    };
    let draft = match kind {
        Draft::Rule => by_bridge(draft::Kind::Rule, args, workload)?,
        Draft::Overlay => by_bridge(draft::Kind::Overlay, args, workload)?,
        Draft::NetworkPolicy | Draft::Kubearmor => {
            if !args.alert.is_empty() || args.reason.is_some() || args.until.is_some() {
                bail!(
                    "--alert, --reason and --until are for drafts of a rule or overlay: a policy is of what was seen"
                );
            }
            let labels = args.label.iter().map(|label| profile::label(label)).collect::<anyhow::Result<Vec<_>>>()?;
            let api = Api::new(&args.api)?;
            let snapshot = remote::block_on(async { snapshot(&api, &found(&api, args, workload).await?).await })?;
            profile::draft(kind, &snapshot, &labels, args.with_unused)?
        }
    };
    // Who keeps it has read this: standard error, as standard output is the draft.
    draft.remarks.iter().for_each(|remark| output::say(&clean(remark)));
    Destination::default().write(draft.text.as_bytes())
}

/// A rule or overlays, which the bridge drafts, as it has the alerts.
fn by_bridge(kind: draft::Kind, args: &Args, workload: (&str, &str)) -> anyhow::Result<profile::Draft> {
    if !args.label.is_empty() || args.with_unused {
        bail!("--label and --with-unused are for drafts of a policy: a rule or overlay is of the workload's alerts");
    }
    let said = stored::Said::of(args, Timestamp::now())?;
    let api = Api::new(&args.api)?;
    remote::block_on(async { stored::draft(&api, kind, &found(&api, args, workload).await?, args, said).await })
}

/// The workload that is meant.
async fn found(api: &Api, args: &Args, (namespace, owner): (&str, &str)) -> anyhow::Result<Workload> {
    let mut query = vec![("namespace", namespace), ("owner", owner)];
    query.extend(args.cluster.as_deref().map(|cluster| ("cluster", cluster)));
    query.extend(args.container.as_deref().map(|container| ("container", container)));
    query.extend(args.digest.as_deref().map(|digest| ("digest", digest)));
    let list: List = api.json(&["workloads"], &query).await?;
    chosen(&format!("{namespace}/{owner}"), list.workloads)
}

async fn snapshot(api: &Api, workload: &Workload) -> anyhow::Result<Snapshot> {
    api.json(&["workloads", &workload.id], &[]).await
}

/// Of several images the one that was seen last.
fn chosen(name: &str, workloads: Vec<Workload>) -> anyhow::Result<Workload> {
    let places: std::collections::BTreeSet<(&str, &str)> =
        workloads.iter().map(|one| (one.cluster.as_str(), one.container.as_str())).collect();
    if places.len() > 1 {
        let names: Vec<String> =
            places.iter().map(|(cluster, container)| format!("--cluster {cluster} --container {container}")).collect();
        bail!("{name}: there are several; choose one of: {}", names.join("; "));
    }
    workloads
        .into_iter()
        .next()
        .with_context(|| format!("{name}: nothing was seen of it; the bridge's `GET workloads` lists what was"))
}

fn told(snapshot: &Snapshot) -> String {
    let workload = &snapshot.workload;
    let mut text = format!(
        "{} {} {} {}, {}\n  image {}, compared with {}\n  {} containers from {} to {}\n",
        clean(&workload.cluster),
        clean(&workload.namespace),
        clean(&workload.owner),
        clean(&workload.container),
        if workload.expectation.is_some() { "as the webhook bound it" } else { "by its image alone" },
        clean(&workload.digest),
        workload.expectation.as_ref().unwrap_or(&workload.dna),
        workload.starts,
        workload.first_seen,
        workload.last_seen
    );
    for (name, view) in &snapshot.dimensions {
        text += &dimension(name, view);
    }
    text
}

fn dimension(name: &str, view: &View) -> String {
    if !view.is_observed {
        let count = view.never_used.len();
        return format!("{name}: no sensor told of any; {count} predicted\n");
    }
    let mut text = format!(
        "{name}: {} confirmed, {} never used, {} not predicted, {} alerts\n",
        view.confirmed.len(),
        view.never_used.len(),
        view.not_predicted.len(),
        view.alerts.len()
    );
    let mut line = |mark: char, item: &str, more: &str| text += &format!("  {mark} {}{more}\n", clean(item));
    view.confirmed.iter().for_each(|seen| line('=', &seen.item, ""));
    for one in view.never_used.iter().take(SHOWN) {
        line('-', &one.item, &format!(" ({})", format!("{:?}", one.confidence).to_lowercase()));
    }
    if view.never_used.len() > SHOWN {
        line('-', &format!("and {} more (--format json)", view.never_used.len() - SHOWN), "");
    }
    view.not_predicted.iter().for_each(|seen| line('+', &seen.item, ""));
    for alert in &view.alerts {
        line('!', &alert.message, &format!(" [{}, risk {:.2}, {} times]", alert.alert, alert.risk, alert.count));
    }
    text
}

/// Items that were never used and are told to people.
const SHOWN: usize = 20;
