//! What the script of an interpreter does by itself: a process in; the modules it reads, the native libraries these map, the commands
//! it runs, ports, peers and files out.
//!
//! ```text
//! process ─► entry file ─► tokens ─► Summary (imports, calls with literal arguments)
//!               ▲                       │
//!               └── resolve import ◄────┴──► effects ─► Findings
//! ```
//!
//! A language is a table of signs, a table of calls and a rule where its modules are found; the walk over the module graph is one.
//! Nothing is run: what is not a constant stays unknown. Modules are followed breadth first, likely ones before possible ones, so
//! that each is seen with the best confidence it has.

mod calls;
mod effects;
mod java;
mod node;
mod perl;
pub(crate) mod php;
mod python;
mod ruby;
mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    rc::Rc,
};

use dna::{Confidence, Connect, Evidence, ImagePath, Known, Limits, Listen, Load, Subject, Unknown, Write};

use crate::{
    InodeId, Resolved,
    closure::Process,
    shell::{Arg, World},
};
use calls::{Call, Grammar, Place, Scope, Site, Value};
pub(crate) use effects::peer;
use tokens::{Rules, Tokens};

/// What scripts do.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Files read as code: modules imported, transitively, as far as constants tell.
    pub(crate) modules: BTreeSet<ImagePath>,
    /// Native extensions mapped.
    pub(crate) load: Vec<Known<Load>>,
    /// Commands run.
    pub(crate) runs: Vec<Command>,
    /// Ports.
    pub(crate) listen: Vec<Known<Listen>>,
    /// Peers.
    pub(crate) connect: Vec<Known<Connect>>,
    /// Files written.
    pub(crate) write: Vec<Known<Write>>,
    /// Environment variables that the application reads.
    pub(crate) reads: BTreeSet<String>,
    pub(crate) unknowns: BTreeSet<Unknown>,
}

/// A command that a script runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Command {
    /// Its words; none where one is not known. A line for a shell is `/bin/sh -c LINE`.
    pub(crate) argv: Vec<Arg>,
    /// Variables set for it.
    pub(crate) env: Vec<(String, Arg)>,
    pub(crate) confidence: Confidence,
    pub(crate) evidence: Evidence,
}

/// Whether a program of this name runs scripts that are read here.
pub(crate) fn is_interpreter(name: &str) -> bool {
    matches!(
        without_version(name),
        "python" | "pypy" | "node" | "nodejs" | "bun" | "perl" | "java" | "ruby" | "php" | "php-fpm" | "php-cgi"
    )
}

/// `python3.11`, `php-fpm8.2`: versions are part of many interpreters' names.
fn without_version(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-')
}

/// Reads scripts of one image; what all of them cost together is bounded, and a file is read once.
#[derive(Debug)]
pub(crate) struct Scripts {
    limits: Limits,
    modules_left: u32,
    bytes_left: u64,
    summaries: HashMap<(InodeId, bool), Rc<Summary>>,
}

impl Scripts {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), modules_left: MODULES, bytes_left: SOURCE_BYTES, summaries: HashMap::new() }
    }

    /// What a process does by its script; nothing where its program is no interpreter.
    pub(crate) fn findings(&mut self, process: &Process, world: World<'_>) -> Findings {
        let invoked = process.argv.first().cloned().flatten().unwrap_or_default();
        let own = process.program.to_string_lossy();
        for name in [own.as_ref(), invoked.as_str()] {
            let name = name.rsplit('/').next().unwrap_or_default();
            let mut findings = match without_version(name) {
                "python" | "pypy" => python::findings(self, process, world),
                "node" | "nodejs" | "bun" => node::findings(self, process, world),
                "perl" => perl::findings(self, process, world),
                "java" => java::findings(process, world, &self.limits),
                "ruby" => ruby::findings(self, process, world),
                "php" | "php-fpm" | "php-cgi" => php::findings(self, process, world),
                _ => continue,
            };
            findings.settle(process.confidence);
            return findings;
        }
        Findings::default()
    }
}

impl Findings {
    /// No item is surer than the process; of equal items the surest stays.
    fn settle(&mut self, sureness: Confidence) {
        merge(&mut self.load, sureness);
        merge(&mut self.listen, sureness);
        merge(&mut self.connect, sureness);
        merge(&mut self.write, sureness);
        for command in &mut self.runs {
            command.confidence = command.confidence.max(sureness);
        }
    }

    /// Adds another process's findings, but for its commands.
    pub(crate) fn add(&mut self, other: Findings) {
        self.modules.extend(other.modules);
        self.load.extend(other.load);
        self.listen.extend(other.listen);
        self.connect.extend(other.connect);
        self.write.extend(other.write);
        self.reads.extend(other.reads);
        self.unknowns.extend(other.unknowns);
        self.settle(Confidence::Certain);
    }
}

/// Sorts by what is named; of equal items the surest stays.
fn merge<T: Ord>(items: &mut Vec<Known<T>>, sureness: Confidence) {
    for item in items.iter_mut() {
        item.confidence = item.confidence.max(sureness);
    }
    items.sort();
    items.dedup_by(|next, kept| next.what == kept.what);
}

/// A language: how it is written and what its calls do.
#[derive(Debug)]
struct Language {
    rules: &'static Rules,
    grammar: &'static Grammar,
    effects: &'static [effects::Rule],
    /// Endings of its files' names.
    endings: &'static [&'static str],
    /// Fills a summary from a file's tokens.
    read: fn(&Tokens<'_>, &Reading<'_>, &mut Summary),
}

/// What reading a file depends on beside its text.
#[derive(Debug, Clone, Copy)]
struct Reading<'a> {
    language: &'static Language,
    /// The file is the program, not a module of it.
    is_entry: bool,
    /// The language's version, `[3, 11]`.
    version: &'a [u32],
    /// Last parts of the names of calls that matter.
    calls: &'a HashSet<&'static str>,
}

impl Reading<'_> {
    /// Whether a call of this name may do anything; its first part may be an alias.
    fn may_matter(&self, callee: &str, scope: &Scope) -> bool {
        let last = callee.rsplit('.').next().unwrap_or_default();
        self.calls.contains(last)
            || scope
                .aliases
                .get(callee)
                .is_some_and(|full| self.calls.contains(full.rsplit('.').next().unwrap_or_default()))
    }
}

/// What a file says.
#[derive(Debug, Default)]
struct Summary {
    imports: Vec<Import>,
    sites: Vec<Site>,
    scope: Scope,
    /// Strings that may name a module or a peer, with their line.
    words: Vec<(String, u32, Place)>,
    reads: BTreeSet<String>,
}

impl Summary {
    /// As many places as are kept of one file.
    fn is_full(&self) -> bool {
        self.sites.len() > SITES || self.words.len() > SITES
    }

    /// A command in backquotes.
    fn add_shell(&mut self, reader: &calls::Reader<'_, '_>, at: usize, place: Place) {
        let call = Call { callee: BACKTICKS.to_owned(), args: vec![reader.interpolated(at)], named: Vec::new() };
        self.sites.push(Site { call, line: reader.tokens.line(at), place });
    }

    /// A string that may be an address of a peer.
    fn add_address(&mut self, tokens: &Tokens<'_>, at: usize) {
        if tokens.text(at).contains("://") && tokens.text(at).len() < 200 {
            self.words.push((tokens.string(at).unwrap_or_default(), tokens.line(at), Place::Top));
        }
    }
}

/// Folders that hold modules, in the order they are searched.
struct LoadPath<'a> {
    world: World<'a>,
    folders: Vec<(ImagePath, Origin)>,
}

impl<'a> LoadPath<'a> {
    fn new(world: World<'a>) -> Self {
        Self { world, folders: Vec::new() }
    }

    /// Adds a folder that exists and is not there yet.
    fn add(&mut self, cwd: &ImagePath, folder: &str, origin: Origin) {
        if let Ok(found) = self.world.resolve(cwd, folder)
            && self.world.rootfs.file(found.inode).is_none()
            && !self.folders.iter().any(|(known, _)| *known == found.path)
            && self.folders.len() < FOLDERS
        {
            self.folders.push((found.path, origin));
        }
    }
}

/// A module asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Import {
    /// As it is written: `a.b`, `./x`, `Foo::Bar`.
    name: String,
    /// Names taken from it, which may be modules themselves.
    items: Vec<String>,
    /// Python's leading dots.
    level: u32,
    line: u32,
    place: Place,
}

/// Whose code a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The image's own.
    Application,
    /// Installed packages.
    Package,
    /// The interpreter's.
    Standard,
}

/// A file on the walk.
#[derive(Debug, Clone)]
struct Module {
    file: Resolved,
    /// Its name, where the language gives it one.
    name: String,
    origin: Origin,
    is_entry: bool,
}

/// What the walk needs of a language: where modules are found.
trait Finder {
    /// The files read for an import.
    fn find(&mut self, import: &Import, from: &Module) -> Vec<Module>;
    /// The module that a string may name.
    fn find_word(&mut self, _word: &str) -> Vec<Module> {
        Vec::new()
    }
}

/// The walk over one process's modules.
struct Walk<'a> {
    scripts: &'a mut Scripts,
    process: &'a Process,
    world: World<'a>,
    language: &'static Language,
    version: Vec<u32>,
    calls: HashSet<&'static str>,
    likely: VecDeque<(Module, Evidence)>,
    possible: VecDeque<(Module, Evidence)>,
    seen: BTreeSet<InodeId>,
    findings: Findings,
}

impl<'a> Walk<'a> {
    fn new(
        scripts: &'a mut Scripts,
        process: &'a Process,
        world: World<'a>,
        language: &'static Language,
        version: Vec<u32>,
    ) -> Self {
        let (likely, possible) = (VecDeque::new(), VecDeque::new());
        let (seen, findings) = (BTreeSet::new(), Findings::default());
        let calls = effects::last_parts(language.effects);
        Self { scripts, process, world, language, version, calls, likely, possible, seen, findings }
    }

    /// Queues a file.
    fn push(&mut self, module: Module, confidence: Confidence, evidence: Evidence) {
        if self.seen.contains(&module.file.inode) {
            return;
        }
        let queue = if confidence == Confidence::Possible { &mut self.possible } else { &mut self.likely };
        if queue.len() < MODULES as usize {
            queue.push_back((module, evidence));
        }
    }

    /// Starts with the text of the command line, or else with a file.
    fn start(&mut self, text: Option<&str>, script: Option<&str>, finder: &mut dyn Finder) {
        if let Some(text) = text {
            self.push_text(text, finder);
        } else if let Some(file) = script.and_then(|script| self.world.resolve(&self.process.cwd, script).ok()) {
            let module = Module { file, name: String::new(), origin: Origin::Application, is_entry: true };
            self.push(module, Confidence::Likely, Evidence::Config { key: "command line".to_owned() });
            self.push_operands(script);
        }
    }

    /// Files of the language among the script's own arguments: a server of applications loads them (`starman app.psgi`,
    /// `puma config.ru`).
    fn push_operands(&mut self, script: Option<&str>) {
        let process = self.process;
        for word in process.argv.iter().skip(1).flatten().filter(|word| Some(word.as_str()) != script) {
            let ending = word.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending);
            if !ending.is_some_and(|ending| self.language.endings.contains(&ending)) {
                continue;
            }
            if let Ok(file) = self.world.resolve(&process.cwd, word)
                && self.world.rootfs.file(file.inode).is_some()
            {
                let module = Module { file, name: String::new(), origin: Origin::Application, is_entry: false };
                self.push(module, Confidence::Likely, Evidence::Config { key: "command line".to_owned() });
            }
        }
    }

    /// Reads text that stands on the command line.
    fn push_text(&mut self, text: &str, finder: &mut dyn Finder) {
        let file = Resolved { path: self.process.cwd.clone(), inode: InodeId::ROOT };
        let module = Module { file, name: String::new(), origin: Origin::Application, is_entry: true };
        let summary = self.summarize(text, true);
        self.apply(&module, &summary, Confidence::Likely, finder);
    }

    /// Follows everything queued.
    fn run(mut self, finder: &mut dyn Finder) -> Findings {
        loop {
            let (next, confidence) = match self.likely.pop_front() {
                Some(next) => (next, Confidence::Likely),
                None => match self.possible.pop_front() {
                    Some(next) => (next, Confidence::Possible),
                    None => return self.findings,
                },
            };
            let (module, evidence) = next;
            if !self.seen.insert(module.file.inode) {
                continue;
            }
            if is_native(module.file.path.file_name()) {
                let what = Load { path: module.file.path };
                self.findings.load.push(Known {
                    what,
                    confidence,
                    probability: None,
                    when: Vec::new(),
                    evidence: vec![evidence],
                });
                continue;
            }
            self.findings.modules.insert(module.file.path.clone());
            match self.summary(&module) {
                Ok(summary) => self.apply(&module, &summary, confidence, finder),
                Err(why) => self.unknown(&module.file.path, Subject::Exec, why),
            }
        }
    }

    fn unknown(&mut self, path: &ImagePath, subject: Subject, why: String) {
        let place = path.as_bytes().escape_ascii().to_string();
        self.findings.unknowns.insert(Unknown { place, subject, why });
    }

    fn summary(&mut self, module: &Module) -> Result<Rc<Summary>, String> {
        let key = (module.file.inode, module.is_entry);
        if let Some(known) = self.scripts.summaries.get(&key) {
            return Ok(Rc::clone(known));
        }
        let size = self.world.rootfs.file(module.file.inode).map_or(0, |file| file.size);
        let (Some(modules), Some(bytes)) =
            (self.scripts.modules_left.checked_sub(1), self.scripts.bytes_left.checked_sub(size))
        else {
            return Err("more modules than are read".to_owned());
        };
        (self.scripts.modules_left, self.scripts.bytes_left) = (modules, bytes);
        let body =
            self.world.rootfs.read(module.file.inode, self.world.text_bytes).map_err(|error| error.to_string())?;
        let summary = Rc::new(self.summarize(&String::from_utf8_lossy(&body), module.is_entry));
        self.scripts.summaries.insert(key, Rc::clone(&summary));
        Ok(summary)
    }

    fn summarize(&self, text: &str, is_entry: bool) -> Summary {
        let tokens = Tokens::new(text, self.language.rules);
        let mut summary = Summary::default();
        let reading = Reading { language: self.language, is_entry, version: &self.version, calls: &self.calls };
        (self.language.read)(&tokens, &reading, &mut summary);
        summary
    }

    /// What a file's calls do, and which files it leads to.
    fn apply(&mut self, module: &Module, summary: &Summary, confidence: Confidence, finder: &mut dyn Finder) {
        for import in summary.imports.iter().filter(|import| import.place != Place::Never) {
            let sureness = if import.place == Place::Top { Confidence::Likely } else { Confidence::Possible };
            for found in finder.find(import, module) {
                let evidence = self.evidence(module, import.line, format!("imports {}", import.name));
                self.push(found, confidence.max(sureness), evidence);
            }
        }
        let is_application = module.origin == Origin::Application;
        // Names of modules in the standard library's own texts are documentation and tests.
        let words = summary.words.iter().filter(|(_, _, place)| *place != Place::Never);
        for (word, line, _) in words.filter(|_| module.origin != Origin::Standard) {
            let sureness = if is_application { Confidence::Likely } else { Confidence::Possible };
            for found in finder.find_word(word) {
                let evidence = self.evidence(module, *line, format!("names {word}"));
                self.push(found, confidence.max(sureness), evidence);
            }
            if is_application {
                let evidence = self.evidence(module, *line, "a constant address".to_owned());
                self.findings.connect.extend(effects::peer(word, &evidence));
            }
        }
        if is_application {
            self.findings.reads.extend(summary.reads.iter().cloned());
        }
        effects::apply(self, module, summary, confidence);
    }

    fn evidence(&self, module: &Module, line: u32, detail: String) -> Evidence {
        if module.file.inode == InodeId::ROOT {
            return Evidence::Config { key: "command line".to_owned() };
        }
        let layer = Some(self.world.rootfs.inode(module.file.inode).meta.layer);
        let detail = Some(dna::redact(&detail).into_owned());
        Evidence::File { path: module.file.path.clone(), line: Some(line), layer, detail }
    }
}

/// The variables of a process whose values are known.
fn known_env(process: &Process) -> BTreeMap<&str, &str> {
    process.env.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?))).collect()
}

/// Whether a file is mapped, not read.
fn is_native(name: &[u8]) -> bool {
    name.ends_with(b".so") || name.ends_with(b".node") || memchr::memmem::find(name, b".so.").is_some()
}

/// What calls in backquotes are known as.
const BACKTICKS: &str = "`…`";
/// Places of one file.
const SITES: usize = 20_000;
/// Folders of a load path: a hundred gems and their extensions.
const FOLDERS: usize = 2_000;
/// Modules read in one image, all processes together.
const MODULES: u32 = 20_000;
/// Bytes of source read in one image.
const SOURCE_BYTES: u64 = 256 << 20;

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;
    use crate::Rootfs;

    /// What a command does: one line an item, `~` in front of a likely one, `?` of a possible one; modules apart.
    pub(crate) fn found(rootfs: &Rootfs, argv: &[&str], env: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let limits = Limits::default();
        let accounts = crate::accounts::read(rootfs, &limits, &mut Vec::new());
        let world = World { rootfs, accounts: &accounts, text_bytes: limits.text_bytes };
        let owned = |text: &str| Some(text.to_owned());
        let cwd: ImagePath = "/app".parse().expect("no NUL");
        let name = argv.first().copied().unwrap_or_default();
        let program = world.find_program(&cwd, name, "/usr/bin").expect("a program of the tree").path;
        let process = Process {
            program,
            argv: argv.iter().map(|word| owned(word)).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), owned(value))).collect(),
            uid: Some(0),
            cwd,
            confidence: Confidence::Certain,
            told: None,
        };
        let findings = Scripts::new(&limits).findings(&process, world);
        let mark = |confidence: Confidence| match confidence {
            Confidence::Certain => "",
            Confidence::Likely => "~",
            Confidence::Possible => "?",
        };
        let mut lines = Vec::new();
        for item in &findings.load {
            lines.push(format!("{}load {}", mark(item.confidence), item.what.path));
        }
        for run in &findings.runs {
            let words: Vec<&str> = run.argv.iter().map(|word| word.as_deref().unwrap_or("…")).collect();
            lines.push(format!("{}run {}", mark(run.confidence), words.join(" ")));
        }
        for item in &findings.listen {
            let (what, mark) = (&item.what, mark(item.confidence));
            let address = what.address.as_deref().map(|address| format!(" {address}")).unwrap_or_default();
            lines.push(format!("{mark}listen {:?} {}{address}", what.protocol, what.port).replace("Tcp ", ""));
        }
        for item in &findings.connect {
            lines.push(format!("{}connect {} {:?}", mark(item.confidence), item.what.host, item.what.port));
        }
        for item in &findings.write {
            lines.push(format!("{}write {}", mark(item.confidence), item.what.path));
        }
        lines.extend(findings.unknowns.iter().map(|unknown| format!("! {}: {}", unknown.place, unknown.why)));
        (lines, findings.modules.iter().map(ToString::to_string).collect())
    }
}
