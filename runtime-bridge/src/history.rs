//! What is known of the processes of one container, from its events alone.
//!
//! In: activities, in order. Out: a [`Standing`] for each: which program of the image acts, who started it, and whether all that led
//! here was expected. Sensors do not tell of fork(2), so a process that is not known is taken for a child, or a copy, of the one
//! that its event names as its parent. Memory is bounded: the processes longest unused are forgotten first.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use dna::{Act, Activity, Process};
use jiff::{SignedDuration, Timestamp};

use crate::{
    expected::{Expected, Node},
    sensor::starts_programs,
};

/// Processes kept of a container. A process that is forgotten is worked out again from its parent's name.
const PROCESSES: usize = 4096;
/// When start-up ends where no expected port is opened: the kubelet's default start-up budget is of this order.
const STARTUP: SignedDuration = SignedDuration::from_secs(120);

/// How a process came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// It descends from the start command.
    Start,
    /// It descends from a command of the pod: a probe, a hook.
    Beside,
    /// It descends from a command from outside that only asks the software that serves how it is.
    Check,
    /// It descends from somebody's login: any program of the image may be run.
    Login,
    /// It descends from a command that somebody started in the container.
    Outside,
    /// It descends from a step that was not expected.
    Strayed,
    /// The sensor was not there when it started.
    Unseen,
}

/// A command that somebody started in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// When.
    pub at: Timestamp,
    /// Its words.
    pub argv: Vec<String>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// It gets ready.
    #[default]
    Startup,
    /// It serves.
    Steady,
}

/// A process as an activity finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The program that acts; a script rather than its interpreter. None where the image has no such file.
    pub node: Option<Node>,
    /// Who executed it: the same process before, or its parent.
    pub by: Option<Entry>,
    /// How it came to be, before this act is judged.
    pub line: Line,
    /// It is a shell with its text on the command line.
    pub is_inline: bool,
    /// It is a shell that is told to read its commands from its input.
    pub reads_input: bool,
    /// It was started by the container's runtime: the start command, or a command from outside.
    pub is_from_outside: bool,
    /// When, in the life of the container.
    pub phase: Phase,
    /// The command from outside that it is, or descends from.
    pub command: Option<Arc<Command>>,
    /// Executions on the way to this act since the last one that was expected.
    pub astray: u32,
}

/// What is kept of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its program.
    pub node: Option<Node>,
    /// How it came to be.
    pub line: Line,
    /// It is a shell with its text on the command line.
    pub is_inline: bool,
    /// It is a shell that is told to read its commands from its input.
    pub reads_input: bool,
    /// The program behind a shell: who asked it to run its text.
    pub behind: Option<Node>,
    /// The command from outside that it is, or descends from.
    pub command: Option<Arc<Command>>,
    /// Executions on the way here since the last one that was expected.
    pub astray: u32,
    /// The file and command line that it runs.
    look: u64,
    used: u64,
}

/// The processes of a container.
#[derive(Debug, Default)]
pub struct History {
    processes: HashMap<u32, Entry>,
    /// The latest process with a file and a command line, for children whose parent's number is not known.
    alike: HashMap<u64, u32>,
    hasher: RandomState,
    began: Option<Timestamp>,
    phase: Phase,
    has_started: bool,
    clock: u64,
}

impl History {
    /// Of a container that ran before anything was heard of it: its start command is not among what is heard from now on.
    #[must_use]
    pub fn of_running() -> Self {
        Self { has_started: true, phase: Phase::Steady, ..Self::default() }
    }

    /// Where an activity comes from. Nothing is kept of it until it is [settled](Self::settle).
    pub fn standing(&mut self, expected: &Expected, activity: &Activity) -> Standing {
        // A clock that is put back begins anew, and does not have it start up until it is where it was.
        let began = self.began.map_or(activity.at, |began| began.min(activity.at));
        self.began = Some(began);
        if activity.at.duration_since(began) > STARTUP {
            self.phase = Phase::Steady;
        }
        let process = &activity.process;
        let known = process.pid.and_then(|pid| self.processes.get(&pid)).cloned();
        let by = match &activity.act {
            Act::Exec { .. } => known.or_else(|| self.parent(expected, activity)),
            _ => match known {
                Some(entry) => {
                    return Standing {
                        node: entry.node,
                        line: entry.line,
                        is_inline: entry.is_inline,
                        reads_input: entry.reads_input,
                        is_from_outside: false,
                        phase: self.phase,
                        command: entry.command.clone(),
                        astray: entry.astray,
                        by: entry.behind.map(|node| Entry { node: Some(node), ..entry }),
                    };
                }
                // A copy of its parent by fork(2), or a process that started before the sensor looked.
                None => {
                    self.copied(activity).or_else(|| self.alike(process)).or_else(|| self.parent(expected, activity))
                }
            },
        };
        let node = program(expected, process, &activity.act);
        let is_from_outside = by.is_none() && activity.ancestors.first().is_some_and(starts_programs);
        let line = self.line(expected, activity, node, by.as_ref(), is_from_outside);
        let command = match &by {
            Some(entry) => entry.command.clone(),
            None if line == Line::Outside => {
                Some(Arc::new(Command { at: activity.at, argv: activity.process.argv.clone() }))
            }
            None => None,
        };
        let is_shell = node.is_some_and(|node| expected.is_shell(node));
        Standing {
            node,
            line,
            command,
            is_inline: is_shell && inline(&process.argv).is_some(),
            reads_input: is_shell && reads_input(&process.argv),
            is_from_outside,
            phase: self.phase,
            astray: by.as_ref().map_or(0, |by| by.astray),
            by,
        }
    }

    fn line(
        &self,
        expected: &Expected,
        activity: &Activity,
        node: Option<Node>,
        by: Option<&Entry>,
        is_from_outside: bool,
    ) -> Line {
        if let Some(entry) = by {
            return entry.line;
        }
        if !is_from_outside {
            return Line::Unseen;
        }
        let argv = &activity.process.argv;
        // The kubelet may run a probe before the start command has got to its first step.
        let is_beside = expected.beside(argv).is_some();
        if expected.is_start(argv) || !self.has_started && !is_beside && (node == expected.start() || node.is_some()) {
            Line::Start
        } else if is_beside {
            Line::Beside
        } else if is_check(expected, node, argv) {
            Line::Check
        } else {
            Line::Outside
        }
    }

    /// The parent, where it runs what its child does: until it executes, the child is a copy of it.
    fn copied(&self, activity: &Activity) -> Option<Entry> {
        let parent = self.processes.get(&activity.ancestors.first()?.pid?)?;
        (parent.look == self.look(&activity.process)).then(|| parent.clone())
    }

    /// The entry of the process that an event names as the parent.
    fn parent(&self, expected: &Expected, activity: &Activity) -> Option<Entry> {
        let parent = activity.ancestors.first()?;
        if let Some(entry) = parent.pid.and_then(|pid| self.processes.get(&pid)) {
            return Some(entry.clone());
        }
        if starts_programs(parent) {
            return None;
        }
        self.alike(parent).or_else(|| {
            let node = program(expected, parent, &Act::Exec { file: None })?;
            Some(Entry {
                node: Some(node),
                line: Line::Unseen,
                is_inline: false,
                reads_input: false,
                behind: None,
                command: None,
                astray: 0,
                look: self.look(parent),
                used: self.clock,
            })
        })
    }

    fn alike(&self, process: &Process) -> Option<Entry> {
        process.exe.as_ref()?;
        let look = self.look(process);
        let entry = self.processes.get(self.alike.get(&look)?)?;
        // It may run something else by now.
        (entry.look == look).then(|| entry.clone())
    }

    /// Keeps what an activity told, with the line its process is on from now.
    pub fn settle(&mut self, activity: &Activity, standing: &Standing, line: Line) {
        let Some(pid) = activity.process.pid else { return };
        self.clock += 1;
        match activity.act {
            Act::Exit => {
                self.processes.remove(&pid);
                return;
            }
            Act::Exec { .. } => self.has_started |= line != Line::Beside,
            _ if self.processes.contains_key(&pid) => {
                if let Some(entry) = self.processes.get_mut(&pid) {
                    entry.used = self.clock;
                }
                return;
            }
            _ => {}
        }
        if self.processes.len() >= PROCESSES {
            self.forget();
        }
        let behind = if standing.is_inline {
            standing.by.as_ref().and_then(|by| by.behind.filter(|_| by.is_inline).or(by.node))
        } else {
            None
        };
        let entry = Entry {
            node: standing.node,
            line,
            is_inline: standing.is_inline,
            reads_input: standing.reads_input,
            behind,
            command: standing.command.clone(),
            astray: match (line, &activity.act) {
                (Line::Outside | Line::Strayed, Act::Exec { .. }) => standing.astray.saturating_add(1),
                (Line::Outside | Line::Strayed, _) => standing.astray,
                _ => 0,
            },
            look: self.look(&activity.process),
            used: self.clock,
        };
        self.alike.insert(entry.look, pid);
        self.processes.insert(pid, entry);
        // Processes that end leave theirs behind.
        if self.alike.len() > 2 * PROCESSES {
            let processes = &self.processes;
            self.alike.retain(|_, pid| processes.contains_key(pid));
        }
    }

    /// A process' file and command line, as a number.
    fn look(&self, process: &Process) -> u64 {
        self.hasher.hash_one((&process.exe, &process.argv))
    }

    /// The command from outside that a process is, or descends from, as it was last settled.
    #[must_use]
    pub fn command(&self, process: &Process) -> Option<Arc<Command>> {
        self.processes.get(&process.pid?)?.command.clone()
    }

    /// From now on the container serves.
    pub const fn serves(&mut self) {
        self.phase = Phase::Steady;
    }

    /// The older half goes.
    fn forget(&mut self) {
        let mut ages: Vec<u64> = self.processes.values().map(|entry| entry.used).collect();
        let middle = ages.len() / 2;
        let (_, middle, _) = ages.select_nth_unstable(middle);
        let middle = *middle;
        self.processes.retain(|_, entry| entry.used >= middle);
        let processes = &self.processes;
        self.alike.retain(|_, pid| processes.contains_key(pid));
    }
}

/// The program of the image that a process runs: the script where it runs one.
fn program(expected: &Expected, process: &Process, act: &Act) -> Option<Node> {
    if let Act::Exec { file: Some(file) } = act
        && let Some(node) = expected.find(&absolute(file, process.cwd.as_deref()))
        && expected.is_script(node)
    {
        return Some(node);
    }
    let own = process.exe.as_deref().and_then(|exe| expected.find(exe));
    // `sh -c TEXT`: what the text names is executed next.
    let is_inline = own.is_some_and(|node| expected.is_shell(node)) && inline(&process.argv).is_some();
    if !is_inline && own.is_none_or(|node| expected.is_interpreter(node)) {
        // `sh -e script`, `python3 -u /app/main.py`: the first word that is no option, where it is a script of the image.
        let script = process.argv.iter().skip(1).find(|word| !word.starts_with('-'));
        let script = script.and_then(|word| expected.find(&absolute(word, process.cwd.as_deref())));
        // One that nobody predicted to be executed is what the interpreter reads, and no program of its own.
        if let Some(node) = script.filter(|node| expected.is_script(*node) && expected.reached(*node).is_some()) {
            return Some(node);
        }
    }
    own
}

fn absolute(file: &str, cwd: Option<&str>) -> String {
    if file.starts_with('/') {
        return file.to_owned();
    }
    match cwd {
        Some(cwd) => format!("{}/{}", cwd.trim_end_matches('/'), file.trim_start_matches("./")),
        None => file.to_owned(),
    }
}

/// The text of a shell that has it on its command line: `sh -c TEXT`.
#[must_use]
pub(crate) fn inline(argv: &[String]) -> Option<String> {
    let option =
        argv.iter().skip(1).position(|word| word.starts_with('-') && !word.starts_with("--") && word.ends_with('c'))?;
    Some(argv.get(option + 2..)?.join(" "))
}

/// Whether a shell is told to read its commands from its standard input: `sh -s NAME` (POSIX, sh). Nobody does so by hand.
fn reads_input(argv: &[String]) -> bool {
    let mut options = argv.iter().skip(1).take_while(|word| word.starts_with('-') && !word.starts_with("--"));
    options.any(|word| word.contains('s') && !word.contains('c'))
}

/// Whether a command from outside only asks the software that serves how it is: one plain command of that software, alone or as
/// the one command of a shell.
fn is_check(expected: &Expected, node: Option<Node>, argv: &[String]) -> bool {
    let Some(node) = node else { return false };
    if !expected.is_shell(node) {
        return expected.is_of_server(node);
    }
    let Some(text) = inline(argv) else { return false };
    if text.contains(['|', '&', ';', '<', '>', '(', ')', '$', '`', '\n', '*', '?', '{', '}']) {
        return false;
    }
    let command = text.split_ascii_whitespace().map(|word| word.trim_matches(['"', '\''])).find(|word| *word != "exec");
    command.and_then(|word| expected.find(word)).is_some_and(|node| expected.is_of_server(node))
}
