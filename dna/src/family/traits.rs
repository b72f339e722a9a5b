//! What an image says it is, and what it has and does that tells one software from another.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kinds::{self, Place, Tool};
use crate::{Completeness, Confidence, Digest, Dna, Evidence, ImagePath, Kind, Known, Listen, Program, Run};

/// What is kept of a DNA to tell its family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Traits {
    /// The software that it serves, by the name that its start command leads to, without a version; absent where that is an application of its
    /// own, run by an interpreter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// The last name of its repository, where one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The program that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ImagePath>,
    /// Digest of that file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_digest: Option<Digest>,
    /// Packages that own programs, by name alone.
    pub packages: BTreeSet<String>,
    /// Names of the programs that are executed, without versions; possible ones are left out.
    pub programs: BTreeSet<String>,
    /// What it does, by a name that other builds of the software share.
    pub traits: BTreeMap<String, Trait>,
    /// What it is expected to do, by dimension.
    pub does: BTreeMap<String, BTreeSet<String>>,
    /// Dimensions of its behavior that were not worked out.
    pub unknown: BTreeSet<String>,
}

/// Something that an image does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trait {
    /// What sort of thing it is.
    pub sort: Sort,
    /// How sure.
    pub confidence: Confidence,
    /// Where it shows, at most three places.
    pub evidence: Vec<Evidence>,
}

/// Sorts of traits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Sort {
    /// Code of the server's process executes a shell.
    Shell,
    /// Code of an interpreter in the server's process executes something: every interpreter can, whatever its scripts do.
    Embedded,
    /// It executes an interpreter, a compiler, a package manager or a scheduler.
    Tool,
    /// It executes a program that fetches files or opens connections.
    Reach,
    /// It executes a program that no package owns.
    Foreign,
    /// What comes before the server executes a program that fetches files or opens connections.
    StartReach,
    /// What comes before the server executes a compiler, a package manager or a scheduler.
    StartTool,
    /// Code holds the public address of a peer.
    PublicPeer,
    /// Code holds the address of a peer in a private network.
    PrivatePeer,
    /// A library is mapped into every program.
    Preload,
    /// It listens on a port that neither configuration nor documentation names.
    Port,
    /// It writes where a server seldom has business.
    Write,
    /// Its code reaches system calls that few servers need.
    Kernel,
    /// It executes a program that runs as another user.
    Setuid,
    /// Ordinary: it tells how near images are, and nothing else.
    Usual,
}

impl Sort {
    /// How much it weighs that no other of the family has it: an estimate of how seldom builds, versions and configurations of one software
    /// differ in it, from 0 to 1.
    #[must_use]
    pub fn weight(self) -> f64 {
        match self {
            Self::Shell | Self::Reach | Self::PublicPeer | Self::Preload => 1.0,
            Self::Foreign | Self::StartReach => 0.8,
            Self::Tool => 0.6,
            Self::StartTool | Self::Write | Self::Port => 0.4,
            Self::PrivatePeer | Self::Kernel | Self::Setuid | Self::Embedded => 0.2,
            Self::Usual => 0.0,
        }
    }
}

impl Traits {
    /// The same, found in that repository.
    #[must_use]
    pub fn in_repository(&self, repository: &str) -> Self {
        Self { repository: last_name(repository), ..self.clone() }
    }

    /// Of a DNA; `repository` is the name that it was found by, where one is known.
    #[must_use]
    pub fn of(dna: &Dna, repository: Option<&str>) -> Self {
        let graph = Graph::of(dna);
        let served = graph.served();
        let mut all = Collected::default();
        let own = graph.own(served.program);
        for program in &own {
            graph.executions(program, &served, &mut all);
        }
        graph.before(&own, &mut all);
        graph.peers(&served, &mut all);
        graph.places(&own, &served, &mut all);
        let behavior = &dna.behavior;
        let completeness = &behavior.completeness;
        let states = [
            ("exec", &completeness.exec),
            ("load", &completeness.load),
            ("syscalls", &completeness.syscalls),
            ("capabilities", &completeness.capabilities),
            ("listen", &completeness.listen),
            ("connect", &completeness.connect),
            ("write", &completeness.write),
            ("read", &completeness.read),
        ];
        let expected = behavior.named().into_iter().map(|(of, items)| {
            let items = items.into_iter().filter(|(_, confidence)| *confidence != Confidence::Possible);
            (of.to_owned(), items.map(|(name, _)| name).take(MOST_ITEMS).collect::<BTreeSet<_>>())
        });
        let executed = behavior.exec.iter().filter(|item| item.confidence != Confidence::Possible);
        Self {
            says: served.says,
            repository: repository.and_then(last_name),
            server: served.program.map(|program| program.path.clone()),
            server_digest: served.program.map(|program| program.sha256.clone()),
            packages: dna.programs.iter().filter_map(|program| package(program.package.as_deref()?)).collect(),
            programs: executed.map(|item| kinds::stem(&item.what.path.to_string_lossy())).collect(),
            traits: all.0,
            does: expected.filter(|(_, items)| !items.is_empty()).collect(),
            unknown: states
                .into_iter()
                .filter(|(_, state)| matches!(state, Completeness::None))
                .map(|(of, _)| of.to_owned())
                .collect(),
        }
    }
}

/// A name that tells a software from others.
fn software(name: String) -> Option<String> {
    // What people call programs of their own.
    const ANYTHING: [&str; 18] = [
        "app",
        "application",
        "main",
        "server",
        "service",
        "start",
        "startup",
        "run",
        "entrypoint",
        "docker-entrypoint",
        "entry",
        "init",
        "web",
        "api",
        "worker",
        "backend",
        "daemon",
        "launch",
    ];
    (!ANYTHING.contains(&name.as_str()) && Tool::of(&name).is_none()).then_some(name)
}

/// The last name of a repository, without tag and digest.
fn last_name(repository: &str) -> Option<String> {
    let bare = repository.split('@').next().unwrap_or_default().trim_end_matches('/');
    let last = bare.rsplit('/').next().unwrap_or_default();
    let last = last.split(':').next().unwrap_or_default();
    (!last.is_empty()).then(|| last.to_ascii_lowercase())
}

/// The name in a package URL.
fn package(purl: &str) -> Option<String> {
    let bare = purl.split(['?', '#']).next()?;
    let bare = bare.rsplit_once('@').map_or(bare, |(bare, _)| bare);
    let name = kinds::stem(bare.rsplit('/').next()?);
    (!name.is_empty()).then_some(name)
}

/// Traits so far.
#[derive(Default)]
struct Collected(BTreeMap<String, Trait>);

impl Collected {
    fn put(&mut self, name: String, sort: Sort, confidence: Confidence, evidence: &[Evidence]) {
        let known = self.0.entry(name).or_insert_with(|| Trait { sort, confidence, evidence: Vec::new() });
        // `Certain` comes first in the order of confidences.
        known.confidence = known.confidence.min(confidence);
        for one in evidence {
            if known.evidence.len() < MOST_EVIDENCE && !known.evidence.contains(one) {
                known.evidence.push(one.clone());
            }
        }
    }
}

/// The programs that the start leads to.
struct Graph<'a> {
    dna: &'a Dna,
    programs: BTreeMap<&'a ImagePath, &'a Program>,
    /// Each with the names that it is called by.
    reached: BTreeMap<&'a ImagePath, BTreeSet<&'a str>>,
}

/// What serves.
struct Served<'a> {
    says: Option<String>,
    program: Option<&'a Program>,
}

impl Served<'_> {
    fn is(&self, program: &Program) -> bool {
        self.program.is_some_and(|own| own.path == program.path)
    }
}

impl<'a> Graph<'a> {
    fn of(dna: &'a Dna) -> Self {
        let programs: BTreeMap<_, _> = dna.programs.iter().map(|program| (&program.path, program)).collect();
        let mut reached: BTreeMap<&ImagePath, BTreeSet<&str>> = BTreeMap::new();
        let mut ahead: Vec<&ImagePath> = dna.start.program.iter().collect();
        reached.extend(ahead.iter().map(|path| (*path, BTreeSet::new())));
        while let Some(path) = ahead.pop() {
            for run in programs.get(path).into_iter().flat_map(|program| &program.runs) {
                let names = reached.entry(&run.program).or_insert_with(|| {
                    ahead.push(&run.program);
                    BTreeSet::new()
                });
                names.extend(run.called.iter().map(String::as_str));
            }
        }
        Self { dna, programs, reached }
    }

    /// The program that a word of the start command names.
    fn named(&self, word: &str) -> Option<&'a Program> {
        let name = word.rsplit('/').next().filter(|name| !name.is_empty())?;
        let is = |path: &ImagePath| path.file_name() == name.as_bytes();
        self.reached.iter().find_map(|(path, called)| {
            let program = self.programs.get(*path)?;
            (is(path) || called.contains(name) || program.aliases.iter().any(is)).then_some(*program)
        })
    }

    fn served(&self) -> Served<'a> {
        let words = self.dna.start.argv.iter().flat_map(|word| word.split_whitespace()).take(MOST_WORDS);
        for (index, word) in words.enumerate() {
            let first = self.dna.start.program.as_ref().filter(|_| index == 0);
            // What is started may be called by a name that no file has any more.
            let first = first.and_then(|path| self.programs.get(path).copied());
            let Some(program) = first.or_else(|| self.named(word)) else { continue };
            let name = kinds::stem(word);
            match Tool::of(&name) {
                // A program of many names is what it was called.
                Some(Tool::Shell | Tool::Wrapper) => {}
                Some(Tool::Interpreter) => return Served { says: self.application(program), program: Some(program) },
                _ if is_shell_script(program) => {}
                _ => {
                    let looks_after = program.runs.iter().any(|run| run.reason.starts_with("service of"))
                        || self
                            .interpreter(program)
                            .is_some_and(|one| one.runs.iter().any(|run| run.reason.starts_with("service of")));
                    match self.listening().filter(|other| looks_after && !other.is(program)) {
                        Some(served) => return served,
                        None => return Served { says: software(name), program: Some(program) },
                    }
                }
            }
        }
        self.listening().unwrap_or_else(|| {
            let program = self.dna.start.program.as_ref().and_then(|path| self.programs.get(path)).copied();
            // Without a program to look at, the command still says a name.
            let said = self.dna.start.argv.first().map(|word| kinds::stem(word));
            let is_script = program.is_some_and(|program| is_shell_script(program) && program.package.is_none());
            Served { says: said.filter(|_| !is_script).and_then(software), program }
        })
    }

    /// The program that an interpreter's application is, where a package brings it.
    fn application(&self, interpreter: &Program) -> Option<String> {
        let script = interpreter.runs.iter().find(|run| run.reason.starts_with("script argument"))?;
        let program = self.programs.get(&script.program)?;
        // Archives of Java name a package of themselves; a distribution's name is known to others.
        const DISTRIBUTIONS: [&str; 4] = ["pkg:deb/", "pkg:rpm/", "pkg:apk/", "pkg:alpm/"];
        let purl = program.package.as_deref()?;
        let is_known = DISTRIBUTIONS.iter().any(|kind| purl.starts_with(kind));
        software(kinds::stem(&program.path.to_string_lossy())).filter(|_| is_known)
    }

    /// The first reached program that listens.
    fn listening(&self) -> Option<Served<'a>> {
        let listens = |listen: &Known<Listen>| !listen.what.claimed && listen.confidence != Confidence::Possible;
        self.reached.iter().find_map(|(path, called)| {
            let program = self.programs.get(*path)?;
            let own = program.behavior.as_ref()?;
            let name = called.first().map_or_else(|| path.to_string_lossy().into_owned(), |name| (*name).to_owned());
            let name = kinds::stem(&name);
            let is_server = !matches!(program.kind, Kind::Script(_)) && Tool::of(&name).is_none();
            (is_server && own.listen.iter().any(listens))
                .then_some(Served { says: Some(name), program: Some(*program) })
        })
    }

    fn interpreter(&self, program: &Program) -> Option<&'a Program> {
        let run = program.runs.iter().find(|run| run.reason == "#! interpreter")?;
        self.programs.get(&run.program).copied()
    }

    /// The programs whose code is the server's: itself, and what runs it where it is a script.
    fn own(&self, server: Option<&'a Program>) -> Vec<&'a Program> {
        let Some(server) = server else { return Vec::new() };
        std::iter::once(server).chain(self.interpreter(server)).collect()
    }

    /// What code of the server executes.
    fn executions(&self, program: &Program, served: &Served<'_>, all: &mut Collected) {
        for run in &program.runs {
            let by_code = run.reason.starts_with("executes") || run.reason.starts_with("calls");
            let Some(target) = self.programs.get(&run.program) else { continue };
            let place = run.evidence.first().map_or_else(|| "its code".to_owned(), |one| code(one, served));
            let by = if by_code { format!("in {place}") } else { format!("as {}", run.reason) };
            let (what, sort) = match self.tool(run) {
                Some(Tool::Shell) => ("a shell", Sort::Shell),
                Some(Tool::Interpreter) => ("an interpreter", Sort::Tool),
                Some(Tool::Compiler) => ("a compiler", Sort::Tool),
                Some(Tool::Packages) => ("a package manager", Sort::Tool),
                Some(Tool::Schedule) => ("a scheduler", Sort::Tool),
                Some(Tool::Download) => ("a program that fetches files", Sort::Reach),
                Some(Tool::Network) => ("a program that opens connections", Sort::Reach),
                _ if target.package.is_none() && !matches!(target.kind, Kind::Other) => {
                    ("a program of no package", Sort::Foreign)
                }
                _ => continue,
            };
            let sort = match by_code {
                true if kinds::is_embedded_interpreter(&place) => Sort::Embedded,
                true => sort,
                false => Sort::Usual,
            };
            all.put(format!("executes {what} {by}"), sort, run.confidence, &run.evidence);
        }
    }

    fn tool(&self, run: &Run) -> Option<Tool> {
        let called = run.called.iter().find_map(|name| Tool::of(&kinds::stem(name)));
        called.or_else(|| Tool::of(&kinds::stem(&run.program.to_string_lossy())))
    }

    /// What scripts execute on the way to the server.
    fn before(&self, own: &[&Program], all: &mut Collected) {
        let is_own = |path: &ImagePath| own.iter().any(|program| program.path == *path);
        let mut seen: BTreeSet<&ImagePath> = BTreeSet::new();
        let mut ahead: Vec<&ImagePath> = self.dna.start.program.iter().collect();
        while let Some(path) = ahead.pop() {
            if is_own(path) || !seen.insert(path) {
                continue;
            }
            for run in self.programs.get(path).into_iter().flat_map(|program| &program.runs) {
                if !is_own(&run.program) {
                    let trait_of = match self.tool(run) {
                        Some(Tool::Download) => Some(("a program that fetches files", Sort::StartReach)),
                        Some(Tool::Network) => Some(("a program that opens connections", Sort::StartReach)),
                        Some(Tool::Compiler) => Some(("a compiler", Sort::StartTool)),
                        Some(Tool::Packages) => Some(("a package manager", Sort::StartTool)),
                        Some(Tool::Schedule) => Some(("a scheduler", Sort::StartTool)),
                        Some(Tool::Interpreter) => Some(("an interpreter", Sort::Usual)),
                        _ => None,
                    };
                    if let Some((what, sort)) = trait_of {
                        all.put(format!("executes {what} before it serves"), sort, run.confidence, &run.evidence);
                    }
                }
                ahead.push(&run.program);
            }
        }
    }

    /// Whom it calls.
    fn peers(&self, served: &Served<'_>, all: &mut Collected) {
        for item in &self.dna.behavior.connect {
            let evidence = item.evidence.first();
            let by_code = evidence.is_some_and(|one| self.is_code(one));
            let place = evidence.map_or_else(|| "its code".to_owned(), |one| code(one, served));
            let (name, sort) = match (kinds::place(&item.what.host), by_code) {
                (Some(Place::Public), true) => {
                    (format!("calls a public address that is written in {place}"), Sort::PublicPeer)
                }
                (Some(Place::Private), true) => {
                    (format!("calls an address of a private network that is written in {place}"), Sort::PrivatePeer)
                }
                (Some(Place::Own), _) => continue,
                (None, true) => (format!("calls a host by a name in {place}"), Sort::Usual),
                (_, false) => ("calls peers that its configuration names".to_owned(), Sort::Usual),
            };
            all.put(name, sort, item.confidence, &item.evidence);
        }
    }

    /// Whether evidence is in a program or library, and not in configuration.
    fn is_code(&self, evidence: &Evidence) -> bool {
        match evidence {
            Evidence::Binary { .. } => true,
            Evidence::File { path, .. } => self.programs.contains_key(path),
            Evidence::Config { .. } => false,
        }
    }

    /// Capabilities, ports, files, system calls, and what is mapped into all.
    fn places(&self, own: &[&Program], served: &Served<'_>, all: &mut Collected) {
        let behavior = &self.dna.behavior;
        for item in behavior.capabilities.iter().filter(|item| item.confidence != Confidence::Possible) {
            all.put(format!("needs {}", item.what.name), Sort::Usual, item.confidence, &item.evidence);
        }
        for item in behavior.listen.iter().filter(|item| !item.what.claimed) {
            let protocol = format!("{:?}", item.what.protocol).to_lowercase();
            all.put(format!("listens on {protocol}"), Sort::Usual, item.confidence, &item.evidence);
            if let Some(evidence @ Evidence::Binary { .. }) = item.evidence.first() {
                let name =
                    format!("listens on {protocol}/{} by a constant in {}", item.what.port, code(evidence, served));
                all.put(name, Sort::Port, item.confidence, &item.evidence);
            }
        }
        for item in &behavior.load {
            if item.evidence.iter().any(is_preload) {
                let name = kinds::stem(&item.what.path.to_string_lossy());
                all.put(format!("maps {name} into every program"), Sort::Preload, item.confidence, &item.evidence);
            }
        }
        for program in own {
            let Some(behavior) = &program.behavior else { continue };
            for item in &behavior.write {
                let (what, is_sensitive) = kinds::folder(&item.what.path.to_string_lossy());
                // Code names many paths that it never writes: of these only such as are telling.
                if is_sensitive || item.confidence != Confidence::Possible {
                    let sort = if is_sensitive { Sort::Write } else { Sort::Usual };
                    all.put(format!("writes {what}"), sort, item.confidence, &item.evidence);
                }
            }
            for item in &behavior.syscalls {
                if let Some(what) = kinds::asks_of_kernel(&item.what.name) {
                    all.put(format!("asks the kernel for {what}"), Sort::Kernel, item.confidence, &item.evidence);
                }
                let raw = ["SOCK_RAW".to_owned(), "AF_PACKET".to_owned()];
                let is_raw = item.what.name == "socket"
                    && item.what.arguments.as_ref().is_some_and(|arguments| {
                        [0, 1].iter().any(|parameter| arguments.may_be(*parameter, &raw) == Some(true))
                    });
                if is_raw {
                    all.put(
                        "asks the kernel for raw sockets".to_owned(),
                        Sort::Kernel,
                        item.confidence,
                        &item.evidence,
                    );
                }
            }
        }
        for item in behavior.exec.iter().filter(|item| item.confidence != Confidence::Possible) {
            let Some(program) = self.programs.get(&item.what.path) else { continue };
            if program.mode & 0o4000 != 0 {
                let name = kinds::stem(&program.path.to_string_lossy());
                all.put(
                    format!("executes {name}, which is set-user-id"),
                    Sort::Setuid,
                    item.confidence,
                    &item.evidence,
                );
            }
        }
    }
}

fn is_shell_script(program: &Program) -> bool {
    let Kind::Script(script) = &program.kind else { return false };
    let by_line = script.shebang.iter().any(|word| Tool::of(&kinds::stem(word)) == Some(Tool::Shell));
    by_line || program.language.as_ref().is_some_and(|language| language.name == "shell")
}

/// ld.so(8), FILES.
fn is_preload(evidence: &Evidence) -> bool {
    matches!(evidence, Evidence::File { path, .. } if path.as_bytes() == b"/etc/ld.so.preload")
}

/// Whose code evidence is in: of the server's own file its software, else the library, the module or the package of scripts, without versions.
fn code(evidence: &Evidence, served: &Served<'_>) -> String {
    let path = match evidence {
        Evidence::Binary { path, .. } | Evidence::File { path, .. } => path,
        Evidence::Config { .. } => return "the image's configuration".to_owned(),
    };
    if served.program.is_some_and(|program| program.path == *path)
        && let Some(says) = &served.says
    {
        return says.clone();
    }
    let text = path.to_string_lossy();
    // Where languages keep what is installed; a package is a folder, or a file, below.
    const HOLDERS: [&str; 5] = ["dist-packages/", "site-packages/", "node_modules/", "gems/", "perl5/"];
    let installed = HOLDERS.iter().find_map(|holder| text.rsplit_once(holder).map(|(_, below)| below));
    match installed.and_then(|below| below.split('/').next()) {
        Some(name) => kinds::stem(name),
        None => kinds::stem(&text),
    }
}

/// Items of a dimension that are kept.
const MOST_ITEMS: usize = 64;
const MOST_EVIDENCE: usize = 3;
/// Words of the start command that are looked at.
const MOST_WORDS: usize = 64;
