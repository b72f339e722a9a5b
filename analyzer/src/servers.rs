//! What servers do by their configuration: a process about to be and the image in; the ports it listens on, the files it
//! writes, reads and loads, whom it calls and the user it becomes, out.
//!
//! ```text
//! Process ─► named ──► entry of servers.toml ─► gather ─► facts ─► step ─► judge ─► Claims
//!            (who it   (data: which files,      (command line,             (what each
//!             is)       keys, defaults)          files, includes,           fact means)
//!                │                               environment)
//!                └──► generic, where it is in no table: options and variables that name a port
//! ```
//!
//! The command line goes over the environment, the environment over files, files over documented defaults. A setting that was
//! read makes a certain claim, a default a likely one. Whether the network lets anyone in, and what a program does beyond its
//! configuration, is not asked here.

mod gather;
mod generic;
mod judge;
mod named;
mod steps;
mod syntax;
mod table;
mod values;

use dna::{Confidence, Connect, Evidence, ImagePath, Known, Listen, Load, Read, Unknown, Write};

use crate::{closure::Process, shell::World};

/// What a process does by its configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims {
    pub(crate) listen: Vec<Known<Listen>>,
    pub(crate) write: Vec<Known<Write>>,
    pub(crate) read: Vec<Known<Read>>,
    pub(crate) connect: Vec<Known<Connect>>,
    pub(crate) load: Vec<Known<Load>>,
    /// Users it switches to, by name or number.
    pub(crate) users: Vec<(String, Evidence)>,
    /// Folders it makes its root.
    pub(crate) chroot: Vec<(ImagePath, Evidence)>,
    /// Files and folders it makes and gives to the user it switches to.
    pub(crate) gives: Vec<(ImagePath, Evidence)>,
    /// It opens its files before it switches, not after.
    pub(crate) is_early: bool,
    pub(crate) unknowns: Vec<Unknown>,
}

/// Reads what the server that `process` is was told.
pub(crate) fn claims(process: &Process, world: World<'_>) -> Claims {
    let server = named::names(process).into_iter().find_map(|(name, argv)| Some((table::find(&name)?, argv)));
    match server {
        Some((server, argv)) => {
            let mut gathered = gather::gather(server, process, &argv, world);
            match server.step {
                Some(table::Step::Nginx) => steps::nginx(&mut gathered.facts, process.uid),
                Some(table::Step::Apache) => steps::apache(&mut gathered.facts, &argv),
                Some(table::Step::Caddy) => steps::caddy(&mut gathered.facts),
                Some(table::Step::Coredns) => steps::coredns(&mut gathered.facts),
                None => {}
            }
            judge::judge(server, gathered, process, world)
        }
        None => generic::claims(process, world),
    }
}

/// The number of settings that a text has in all syntaxes together, each expanded and read as a place: the whole way of a
/// configuration's text, for tests and fuzzing.
pub fn settings(text: &str) -> usize {
    let env = |name: &str| Some(name.to_owned());
    let settings = syntax::Syntax::ALL.into_iter().filter_map(|syntax| syntax::read(text, syntax)).flatten();
    let words = settings
        .map(|setting| setting.words.iter().filter_map(|word| values::place(&values::expand(word, &env))).count());
    words.fold(0, |all, places| all.saturating_add(places).saturating_add(1))
}

/// A setting with its origin, variables expanded.
#[derive(Debug, Clone)]
struct Fact {
    /// As [`syntax::Setting::path`], in [`table::normal`] form.
    path: String,
    words: Vec<String>,
    origin: Origin,
    evidence: Evidence,
    depth: usize,
    opens: bool,
}

/// Where a setting is from; a later one goes over an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    /// Documented.
    Default,
    /// Told by the program's file.
    BuiltIn,
    /// A template that a start script renders.
    Template,
    /// A configuration file.
    File,
    Environment,
    CommandLine,
}

impl Origin {
    /// Settings of one rank stand side by side.
    fn rank(self) -> u8 {
        match self {
            Self::Default => 0,
            Self::BuiltIn => 1,
            Self::Template | Self::File => 2,
            Self::Environment => 3,
            Self::CommandLine => 4,
        }
    }

    fn confidence(self) -> Confidence {
        match self {
            Self::Default | Self::BuiltIn | Self::Template => Confidence::Likely,
            Self::File | Self::Environment | Self::CommandLine => Confidence::Certain,
        }
    }
}

/// A few words of a setting, without what may be secret.
fn quote(key: &str, words: &[String]) -> String {
    let text = format!("{key} {}", words.join(" "));
    let short: String = text.trim().chars().filter(|c| !c.is_control()).take(80).collect();
    dna::redact(&short).into_owned()
}

#[cfg(test)]
mod tests;
