//! The program `mayfly`: arguments in, reports out. What it does is in the libraries; this page only starts it.

mod analyze;
mod api;
mod args;
mod attest;
mod bridge;
mod conformance;
mod demo;
mod expect;
mod explain;
mod facts;
#[cfg(test)]
mod fixture;
mod html;
mod human;
mod incident;
mod keys;
mod kin;
mod lines;
mod logs;
mod output;
mod overlay;
mod policy;
mod profile;
mod question;
mod remote;
mod replay;
mod response;
mod server;
mod snapshot;
mod text;
mod trust_root;
mod verify;
mod webhook;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// It ran, and there was nothing to object to.
const FINE: u8 = 0;
/// It ran, and the answer is no.
const NO: u8 = 1;
/// It could not run.
const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    // The one place that chooses the cryptography of every connection.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // The servers say how theirs is written.
    if !matches!(args.command, Command::Webhook(_) | Command::Serve(_) | Command::Bridge(_)) {
        logs::start(logs::Format::Text, tracing_subscriber::filter::LevelFilter::WARN, None);
    }
    match run(args.command) {
        Ok(()) => ExitCode::from(FINE),
        Err(error)
            if error.is::<verify::NotVerified>()
                || error.is::<expect::DoesNotFit>()
                || error.is::<policy::Refused>()
                || error.is::<kin::UnlikeItsFamily>() =>
        {
            output::complain(&error);
            ExitCode::from(NO)
        }
        Err(error) if output::is_broken_pipe(&error) => ExitCode::from(FINE),
        Err(error) => {
            output::complain(&error);
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Analyze(analyze) => analyze::run(&analyze),
        Command::Profile(args) => profile::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Expect(args) => expect::run(&args),
        Command::Kin(args) => kin::run(&args),
        Command::Pull(pull) => analyze::pull(&pull),
        Command::Demo(demo) => demo::run(&demo),
        Command::Verify(args) => verify::run(&args),
        Command::Attest(args) => attest::attest(&args),
        Command::Sign(args) => attest::sign(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Overlay(args) => overlay::run(&args),
        Command::TrustRoot(args) => trust_root::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Webhook(args) => webhook::webhook(&args),
        Command::Serve(args) => webhook::serve(&args),
        Command::Bridge(args) => bridge::run(&args),
        Command::Incident(args) => incident::run(&args),
        Command::Response(args) => response::run(&args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Schema => output::Destination::default().write(&output::pretty(&dna::Dna::json_schema())?),
        Command::Completions { shell } => args::completions(shell),
        Command::Man { output } => args::manual(output.as_deref()),
    }
}
