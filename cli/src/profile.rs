//! `mayfly profile`: what a container of an image needs, in the words of what enforces it. A DNA in; a seccomp profile, a set of
//! capabilities or the engine's options out. What the DNA could not tell is told on standard error, never left out quietly.

mod capabilities;
mod seccomp;

use anyhow::bail;
use dna::{Behavior, Completeness, Subject, Unknown};

use crate::{
    analyze,
    args::{self, Target},
    output::{self, Destination},
    question::Question,
    text,
};

/// Prints the profile that the arguments ask for.
pub(crate) fn run(args: &args::Profile) -> anyhow::Result<()> {
    let command = args.command.as_deref().map(analyze::split).transpose()?;
    let question = Question::open(&args.source, &args.open)?;
    let answer = question.answer(command.as_deref())?;
    let (name, platform) = (&question.name, &question.dna().image.platform);
    if platform.os() != "linux" {
        bail!("{name} is for {platform}: only Linux containers have seccomp profiles and capabilities");
    }
    let behavior = &answer.behavior;
    let printed = match args.target {
        Target::Seccomp => {
            known(name, "system calls", &behavior.syscalls, &behavior.completeness.syscalls)?;
            let options = seccomp::Options {
                runtimes: &args.runtime,
                no_new_privileges: args.no_new_privileges,
                within_docker: args.within_docker_default,
            };
            let digest = question.dna().digest()?.to_string();
            let made = seccomp::profile(question.dna(), behavior, &digest, &options)?;
            warn(behavior, &behavior.completeness.syscalls, &answer.unknowns, Subject::Syscalls, "system calls");
            made.remarks.iter().for_each(|remark| note(remark));
            output::pretty(&made.profile)?
        }
        Target::Capabilities | Target::DockerRun => {
            // A workload may need none: only what was not worked out is refused.
            if behavior.completeness.capabilities == Completeness::None {
                bail!("the capabilities of {name} were not worked out: no set can be given");
            }
            let add = capabilities::needed(behavior);
            warn(behavior, &behavior.completeness.capabilities, &answer.unknowns, Subject::Syscalls, "capabilities");
            if args.target == Target::DockerRun {
                capabilities::docker_run(&add).into_bytes()
            } else {
                output::pretty(&capabilities::security_context(&add))?
            }
        }
    };
    Destination(args.output.clone()).write(&printed)
}

/// Refuses to make a profile of nothing: it would stop every container, or let everything pass.
fn known<T>(name: &str, what: &str, items: &[T], completeness: &Completeness) -> anyhow::Result<()> {
    if *completeness == Completeness::None {
        bail!("the {what} of {name} were not worked out: no profile can rest on them");
    }
    if items.is_empty() {
        bail!(
            "no {what} were found for {name}: its start command may be missing; see NOT KNOWN in `mayfly analyze`, or ask \
             about another with --command"
        );
    }
    Ok(())
}

/// Tells what the profile may lack.
fn warn(behavior: &Behavior, completeness: &Completeness, unknowns: &[Unknown], subject: Subject, what: &str) {
    let count = |wanted: &[Subject]| unknowns.iter().filter(|unknown| wanted.contains(&unknown.subject)).count();
    let open = count(&[subject]);
    let beside =
        count(&[Subject::Exec, Subject::Load, Subject::Start, Subject::File, Subject::Layer, Subject::Program]);
    if open != 0 || beside != 0 {
        note(&format!(
            "the profile may lack {what}: {open} places in code could not be decided, {beside} more unknowns bear on what runs; \
             `mayfly analyze` names them"
        ));
    }
    if let Completeness::Partial { reason } = completeness {
        note(&format!("{what} are not complete: {reason}"));
    }
    if let Completeness::Partial { reason } = &behavior.completeness.exec {
        note(&format!("programs are not complete: {reason}"));
    }
}

fn note(text: &str) {
    output::say(&format!("mayfly: note: {}", text::clean(text)));
}
