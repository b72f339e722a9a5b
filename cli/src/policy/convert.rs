//! `mayfly policy convert`: rules of other products in, rules of ours out, and what is not carried over.

use std::fmt::Write as _;

use anyhow::bail;
use policies::convert::{Converted, Effect, convert};

use super::{Refused, objects};
use crate::{
    args::{ExplainFormat, policy as args},
    output::{self, Destination},
    text::clean,
};

pub(super) fn run(args: &args::Convert) -> anyhow::Result<()> {
    let converted = convert(&objects(&args.files)?);
    if converted.policies == 0 {
        bail!(
            "there is no policy in these files: ClusterImagePolicy, TrustRoot, ClusterPolicy, Policy or ImageValidatingPolicy"
        );
    }
    let yaml = converted.yaml();
    if let Err(errors) = policies::load([("the rules made", yaml.as_str())]) {
        let told: Vec<_> = errors.iter().map(ToString::to_string).collect();
        bail!("what was made of them does not load: {}", told.join("\n"));
    }
    let report = match args.format {
        ExplainFormat::Human => human(&converted).into_bytes(),
        ExplainFormat::Json => output::pretty(&converted.notes)?,
    };
    match &args.report {
        Some(file) => Destination(Some(file.clone())).write(&report)?,
        None => output::say(String::from_utf8_lossy(&report).trim_end()),
    }
    Destination(args.output.clone()).write(yaml.as_bytes())?;
    match converted.notes.iter().filter(|note| note.effect == Effect::Weaker).count() {
        0 => Ok(()),
        count => Err(Refused(format!("{count} checks are not carried over: the rules are weaker without them")).into()),
    }
}

fn human(converted: &Converted) -> String {
    let count = |effect: Effect| converted.notes.iter().filter(|note| note.effect == effect).count();
    // Writing to a string cannot fail.
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} policies read, {} objects written; of what is not carried over as it is, {} makes the rules weaker, {} stricter, {} neither",
        converted.policies,
        converted.made.len(),
        count(Effect::Weaker),
        count(Effect::Stricter),
        count(Effect::Same),
    );
    let mut notes: Vec<_> = converted.notes.iter().collect();
    notes.sort_by_key(|note| note.effect);
    for note in notes {
        let effect = match note.effect {
            Effect::Weaker => "WEAKER  ",
            Effect::Stricter => "stricter",
            Effect::Same => "same    ",
        };
        let path = if note.path.is_empty() { String::new() } else { format!(": {}", clean(&note.path)) };
        let _ = writeln!(text, "{effect} {} in {}{path}", clean(&note.object), clean(&note.file));
        let _ = writeln!(text, "         {}", clean(&note.why));
        if !note.instead.is_empty() {
            let _ = writeln!(text, "         do: {}", clean(&note.instead));
        }
    }
    text
}
