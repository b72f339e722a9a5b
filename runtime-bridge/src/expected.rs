//! A DNA, bound to a container or as it is, arranged for questions that events ask.
//!
//! In: a [`Dna`] and, where there is one, the pod's [`Expectation`]. Out: [`Expected`], made once for each container and read for
//! each event. Paths are compared as the merged `/usr` has them, so that `/bin/x` and `/usr/bin/x` are one.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
    io::BufReader,
    sync::{Arc, OnceLock},
};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use serde::{Serialize, de::DeserializeOwned};

use crate::{names::shared, sensitive};
use dna::{
    Behavior, Completeness, Completenesses, Confidence, Dna, Expectation, ImagePath, Known, Program, Protocol, is_shell,
};

/// The reason of an edge from a script to what reads it.
const READER: &str = "#! interpreter";

/// Names beside that of a shell from which on a file is many programs: bash has `rbash`, which is a shell.
const APPLETS: usize = 4;

/// A program of the image, by its place in [`Expected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(u32);

/// What a container is expected to do. There is one in memory for each image that runs, which makes it the larger part of a bridge's
/// memory: texts are shared among images, and lists have no room to grow.
#[derive(Debug)]
pub struct Expected {
    programs: Box<[Facts]>,
    /// Every path of a program, in order.
    by_path: Box<[(Arc<str>, Node)]>,
    /// Places in `by_path`, in order of the file names; of several paths with one name the first program's.
    by_name: Box<[u32]>,
    start: Option<Node>,
    start_argv: Vec<String>,
    /// The software that serves: a command of it from outside is how its health is asked for.
    served_by: HashSet<String>,
    beside: Vec<(String, Vec<String>)>,
    listen: HashSet<(Protocol, u16)>,
    connect: Vec<(String, Option<u16>)>,
    write: Texts,
    read: Texts,
    syscalls: Texts,
    capabilities: HashSet<String>,
    completeness: Completenesses,
    volumes: Vec<String>,
    /// It is of a container of a pod.
    is_bound: bool,
    /// Where rules read them: the DNA without its programs, and what the pod makes of it; JSON by zlib, some 10 KiB of an image.
    dna: OnceLock<Box<[u8]>>,
    expectation: OnceLock<Box<[u8]>>,
}

/// What rules read of what is expected, beside what events are compared with: it is kept for them alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The DNA.
    pub dna: bool,
    /// What the pod makes of it.
    pub expectation: bool,
}

type Texts = Box<[Arc<str>]>;

/// What is asked of one program.
#[derive(Debug)]
struct Facts {
    path: Arc<str>,
    layer: u32,
    package: Option<Arc<str>>,
    software: Arc<str>,
    /// How sure it is that the container executes it; none where nothing leads there.
    reached: Option<Confidence>,
    runs: Box<[Edge]>,
    /// What reads the script, where that is no shell: what the script calls hangs on it in the DNA.
    read_by: Option<Node>,
    is_script: bool,
    is_shell: bool,
    /// It is a shell and many another program, by the name it is called by.
    is_multicall: bool,
    is_interpreter: bool,
    /// Its own behavior was worked out.
    is_known: bool,
    write: Texts,
    read: Texts,
    syscalls: Texts,
}

/// That one program may execute another.
#[derive(Debug)]
struct Edge {
    to: Node,
    leads: Leads,
    /// The names of the other's that it is called by.
    called: BTreeSet<String>,
}

/// What an edge stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// To this program.
    Here,
    /// To what reads the script.
    Reader,
    /// To the shell of somebody who logged in, who may then run whatever the image has.
    Login,
}

impl Expected {
    /// Of an image started by its own command.
    #[must_use]
    pub fn of_image(dna: &Dna) -> Self {
        Self::new(dna, &dna.behavior, dna.start.argv.clone(), Vec::new())
    }

    /// Of a container of a pod: `dna` is the refined one that the expectation was made from.
    #[must_use]
    pub fn of_container(dna: &Dna, expectation: &Expectation) -> Self {
        let beside = expectation.beside.iter().map(|beside| (beside.field.clone(), beside.argv.clone())).collect();
        let expected = Self::new(dna, &expectation.behavior, expectation.argv.clone(), beside);
        Self { is_bound: true, ..expected }
    }

    /// Keeps what rules read of the DNA, and of what the pod makes of it, that this was made of.
    pub fn keep(&self, wanted: Wanted, dna: &Dna, expectation: Option<&Expectation>) {
        if wanted.dna {
            self.dna.get_or_init(|| packed(&without_programs(dna)));
        }
        if let Some(expectation) = expectation.filter(|_| wanted.expectation && self.is_bound) {
            self.expectation.get_or_init(|| packed(expectation));
        }
    }

    /// Whether all of this that there is is kept.
    #[must_use]
    pub fn keeps(&self, wanted: Wanted) -> bool {
        let has_dna = !wanted.dna || self.dna.get().is_some();
        has_dna && (!(wanted.expectation && self.is_bound) || self.expectation.get().is_some())
    }

    fn new(dna: &Dna, behavior: &Behavior, argv: Vec<String>, beside: Vec<(String, Vec<String>)>) -> Self {
        let mut by_path = Vec::new();
        for (node, program) in (0..).map(Node).zip(&dna.programs) {
            for path in std::iter::once(&program.path).chain(&program.aliases) {
                by_path.push((shared(&merged(&path.to_string_lossy())), node));
            }
        }
        by_path.sort();
        by_path.dedup_by(|one, before| one.0 == before.0);
        let named = |place: &u32| by_path.get(*place as usize).map(|(path, node)| (file_name(path), *node));
        let mut by_name: Vec<u32> = (0..).zip(&by_path).map(|(place, _)| place).collect();
        by_name.sort_by_key(named);
        by_name.dedup_by_key(|place| named(place).map(|(name, _)| name));
        let find = |path: &ImagePath| found(&by_path, &merged(&path.to_string_lossy()));
        let reached: HashMap<&ImagePath, Confidence> =
            behavior.exec.iter().map(|known| (&known.what.path, known.confidence)).collect();
        let interpreters: HashSet<Node> = dna.programs.iter().flat_map(|program| readers(program, &find)).collect();
        let mut programs: Box<[Facts]> = (0..)
            .map(Node)
            .zip(&dna.programs)
            .map(|(node, program)| {
                let edge = |run: &dna::Run| {
                    Some(Edge { to: find(&run.program)?, leads: leads(&run.reason), called: run.called.clone() })
                };
                let runs = program.runs.iter().filter_map(edge).collect();
                Facts::new(program, reached.get(&program.path).copied(), runs, interpreters.contains(&node))
            })
            .collect();
        let read_by: Vec<Option<Node>> =
            dna.programs.iter().map(|program| read_by(program, &programs, &find)).collect();
        for (facts, read_by) in programs.iter_mut().zip(read_by) {
            facts.read_by = read_by;
        }
        let start = dna.start.program.as_ref().and_then(find);
        let served_by = served_by(dna, &programs, start);
        Self {
            start,
            start_argv: argv,
            served_by,
            beside,
            listen: behavior.listen.iter().map(|known| (known.what.protocol, known.what.port)).collect(),
            connect: behavior.connect.iter().map(|known| (known.what.host.clone(), known.what.port)).collect(),
            write: globs(&behavior.write, |write| &write.path),
            read: globs(&behavior.read, |read| &read.path),
            syscalls: asked_for(behavior),
            capabilities: behavior.capabilities.iter().map(|known| known.what.name.clone()).collect(),
            completeness: behavior.completeness.clone(),
            volumes: dna.start.volumes.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            is_bound: false,
            dna: OnceLock::new(),
            expectation: OnceLock::new(),
            programs,
            by_path: by_path.into(),
            by_name: by_name.into(),
        }
    }

    /// The DNA, its programs left out, where it is kept.
    #[must_use]
    pub fn dna(&self) -> Option<Dna> {
        unpacked(self.dna.get()?)
    }

    /// What the pod makes of it, where that was bound and is kept.
    #[must_use]
    pub fn expectation(&self) -> Option<Expectation> {
        unpacked(self.expectation.get()?)
    }

    /// The program that the container starts.
    #[must_use]
    pub const fn start(&self) -> Option<Node> {
        self.start
    }

    /// Whether these words are the start command.
    #[must_use]
    pub fn is_start(&self, argv: &[String]) -> bool {
        self.is_command(argv, &self.start_argv)
    }

    /// The field of the pod that has this command run beside the start command: a probe, a hook.
    #[must_use]
    pub fn beside(&self, argv: &[String]) -> Option<&str> {
        self.beside.iter().find(|(_, words)| self.is_command(argv, words)).map(|(field, _)| field.as_str())
    }

    /// Whether a process was started by this command: as it is, or with the interpreter that the kernel puts before a script, execve(2).
    fn is_command(&self, argv: &[String], wanted: &[String]) -> bool {
        // Some sensors tell a command line without the borders of its words.
        let is_same = |one: &[String], other: &[String]| one.join(" ") == other.join(" ");
        let Some((name, arguments)) = wanted.split_first() else { return false };
        if is_same(argv, wanted) {
            return true;
        }
        let Some(script) = self.find(name).filter(|node| self.is_script(*node)) else { return false };
        // What stands before the script is from its first line: an interpreter, by `env` perhaps, and an option. Other words, and a text
        // that a shell is to run, are somebody else's.
        let is_from_first_line = |word: &String| {
            let is_option = word.starts_with('-') && !word.ends_with('c');
            is_option || self.find(word).is_some_and(|node| self.is_interpreter(node) || word.ends_with("/env"))
        };
        let before = argv.iter().take_while(|word| is_from_first_line(word)).count();
        match argv.get(before..).and_then(<[String]>::split_first) {
            Some((file, rest)) => before > 0 && self.find(file) == Some(script) && is_same(rest, arguments),
            None => false,
        }
    }

    /// The program at a path, or the one of that name where it is no path.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Node> {
        if path.starts_with('/') {
            found(&self.by_path, &merged(path))
        } else if path.contains('/') {
            None
        } else {
            let at = |place: &u32| self.by_path.get(*place as usize);
            let place =
                self.by_name.binary_search_by_key(&Some(path), |place| at(place).map(|(path, _)| file_name(path)));
            place.ok().and_then(|place| self.by_name.get(place)).and_then(at).map(|(_, node)| *node)
        }
    }

    fn facts(&self, node: Node) -> Option<&Facts> {
        self.programs.get(node.0 as usize)
    }

    /// The file of a program.
    #[must_use]
    pub fn path(&self, node: Node) -> String {
        self.facts(node).map(|facts| facts.path.to_string()).unwrap_or_default()
    }

    /// The index of the layer that brought it.
    #[must_use]
    pub fn layer(&self, node: Node) -> Option<u32> {
        self.facts(node).map(|facts| facts.layer)
    }

    /// The package URL of the package that owns it.
    #[must_use]
    pub fn package(&self, node: Node) -> Option<&str> {
        self.facts(node)?.package.as_deref()
    }

    /// How sure it is that the container executes it.
    #[must_use]
    pub fn reached(&self, node: Node) -> Option<Confidence> {
        self.facts(node)?.reached
    }

    /// Whether it is text for an interpreter.
    #[must_use]
    pub fn is_script(&self, node: Node) -> bool {
        self.facts(node).is_some_and(|facts| facts.is_script)
    }

    /// Whether it is a shell.
    #[must_use]
    pub fn is_shell(&self, node: Node) -> bool {
        self.facts(node).is_some_and(|facts| facts.is_shell)
    }

    /// Whether other programs of the image are text for it.
    #[must_use]
    pub fn is_interpreter(&self, node: Node) -> bool {
        self.facts(node).is_some_and(|facts| facts.is_interpreter || facts.is_shell)
    }

    /// Whether the program's own behavior was worked out; where it was not, nothing follows from what is missing.
    #[must_use]
    pub fn is_known(&self, node: Node) -> bool {
        self.facts(node).is_some_and(|facts| facts.is_known)
    }

    /// The edge from one program to another.
    #[must_use]
    pub fn edge(&self, from: Node, to: Node) -> Option<Leads> {
        self.edges(from).find(|edge| edge.to == to).map(|edge| edge.leads)
    }

    /// Whether a program may have a shell execute another: Perl and Ruby execute a plain command line themselves, and so may a shell
    /// in its own place.
    #[must_use]
    pub fn runs_by_shell(&self, from: Node, to: Node) -> bool {
        let is_shell = |edge: &&Edge| edge.leads != Leads::Login && self.is_shell(edge.to);
        self.edges(from).filter(is_shell).any(|shell| self.edge(shell.to, to).is_some())
    }

    /// The edges from a program, and from what reads it where it is a script.
    fn edges(&self, from: Node) -> impl Iterator<Item = &Edge> {
        let own = self.facts(from);
        let reader = own.and_then(|facts| facts.read_by).and_then(|node| self.facts(node));
        own.into_iter().chain(reader).flat_map(|facts| &facts.runs)
    }

    /// Whether a program may execute another under this name.
    #[must_use]
    pub fn calls_as(&self, from: Node, to: Node, name: &str) -> bool {
        self.edges(from).any(|edge| edge.to == to && edge.called.contains(name))
    }

    /// Whether what a program does depends on the name it is called by, as with busybox(1).
    #[must_use]
    pub fn is_multicall(&self, node: Node) -> bool {
        self.facts(node).is_some_and(|facts| facts.is_multicall)
    }

    /// Whether two programs are of one software: of packages whose names begin alike, or of one folder where no package owns them.
    #[must_use]
    pub fn are_kin(&self, one: Node, other: Node) -> bool {
        one == other
            || self.facts(one).zip(self.facts(other)).is_some_and(|(one, other)| one.software == other.software)
    }

    /// Whether a program is a helper of another: of the very same package, or of the same software and where no user looks for programs
    /// (`/usr/libexec`, `/usr/lib/dovecot`; Filesystem Hierarchy Standard 4.6, 4.7). Neither runs others' text.
    #[must_use]
    pub fn is_helper(&self, of: Node, node: Node) -> bool {
        let both = self.facts(of).zip(self.facts(node));
        both.is_some_and(|(of, facts)| {
            let is_internal = ["/usr/lib/", "/usr/libexec/", "/usr/lib64/", "/lib/"]
                .iter()
                .any(|folder| facts.path.starts_with(folder));
            let is_packaged = of.package.is_some() && facts.package.is_some();
            is_packaged && (of.package == facts.package || is_internal && of.software == facts.software)
        }) && !self.is_interpreter(of)
            && !self.is_interpreter(node)
    }

    /// Whether a program is of the software that serves, and no interpreter.
    #[must_use]
    pub fn is_of_server(&self, node: Node) -> bool {
        self.facts(node).is_some_and(|facts| self.served_by.contains(&*facts.software)) && !self.is_interpreter(node)
    }

    /// Whether a port is expected.
    #[must_use]
    pub fn listens(&self, protocol: Protocol, port: u16) -> bool {
        self.listen.contains(&(protocol, port))
    }

    /// Whether any peer is expected at this port.
    #[must_use]
    pub fn connects(&self, hosts: &[&str], port: u16) -> bool {
        self.connect.iter().any(|expected| is_peer(expected, hosts, port))
    }

    /// The peer that is expected, as `HOST:PORT`, or the host where any port is.
    #[must_use]
    pub fn peer(&self, hosts: &[&str], port: u16) -> Option<String> {
        let is_named = |(host, _): &&(String, Option<u16>)| hosts.contains(&host.as_str());
        let fitting = || self.connect.iter().filter(|expected| is_peer(expected, hosts, port));
        fitting().find(is_named).or_else(|| fitting().next()).map(|(host, port)| peer_name(host, *port))
    }

    /// Whether this program is expected to write a file; the container, where the program's behavior is not known.
    #[must_use]
    pub fn writes(&self, node: Option<Node>, path: &str) -> bool {
        self.writing(node, path).is_some() || self.volumes.iter().any(|volume| is_below(path, volume))
    }

    fn writing(&self, node: Option<Node>, path: &str) -> Option<&Arc<str>> {
        let globs = match node.and_then(|node| self.facts(node)).filter(|facts| facts.is_known) {
            Some(facts) => &facts.write,
            None => &self.write,
        };
        globs.iter().find(|glob| matches(glob, path))
    }

    /// The item of the container's behavior that a file which it writes is of: what a program of it writes is there too.
    #[must_use]
    pub fn written_as(&self, node: Option<Node>, path: &str) -> Option<Arc<str>> {
        let own = || self.write.iter().find(|glob| matches(glob, path));
        let volume = || self.volumes.iter().find(|volume| is_below(path, volume));
        own().or_else(|| self.writing(node, path)).cloned().or_else(|| volume().map(|volume| shared(volume)))
    }

    /// Whether this program is expected to read a sensitive file; the container, where the program's behavior is not known.
    #[must_use]
    pub fn reads(&self, node: Option<Node>, path: &str) -> bool {
        match node.and_then(|node| self.facts(node)).filter(|facts| facts.is_known) {
            Some(facts) => facts.read.iter().any(|glob| matches(glob, path)),
            None => self.read.iter().any(|glob| matches(glob, path)),
        }
    }

    /// The item of the container's behavior that a file which it reads is of.
    #[must_use]
    pub fn read_as(&self, node: Option<Node>, path: &str) -> Option<Arc<str>> {
        let of_program = node.and_then(|node| self.facts(node)).map(|facts| &facts.read);
        self.read.iter().chain(of_program.into_iter().flatten()).find(|glob| matches(glob, path)).cloned()
    }

    /// Whether the container, or this program, can reach a system call.
    #[must_use]
    pub fn calls(&self, node: Option<Node>, name: &str) -> bool {
        let has = |calls: &Texts| calls.iter().any(|call| **call == *name);
        has(&self.syscalls) || node.and_then(|node| self.facts(node)).is_some_and(|facts| has(&facts.syscalls))
    }

    /// Whether a capability is expected to be needed.
    #[must_use]
    pub fn needs(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
    }

    /// How far each dimension was worked out.
    #[must_use]
    pub const fn completeness(&self) -> &Completenesses {
        &self.completeness
    }

    /// The dimensions in which nothing follows from an item's absence.
    #[must_use]
    pub fn unknown_dimensions(&self) -> Vec<&'static str> {
        let all = &self.completeness;
        [
            ("exec", &all.exec),
            ("syscalls", &all.syscalls),
            ("capabilities", &all.capabilities),
            ("listen", &all.listen),
            ("connect", &all.connect),
            ("write", &all.write),
            ("read", &all.read),
        ]
        .into_iter()
        .filter(|(_, completeness)| matches!(completeness, Completeness::None))
        .map(|(name, _)| name)
        .collect()
    }
}

fn packed(value: &impl Serialize) -> Box<[u8]> {
    let mut out = ZlibEncoder::new(Vec::new(), Compression::fast());
    // What cannot be written is told by who asks for it.
    let _ = serde_json::to_writer(&mut out, value);
    out.finish().unwrap_or_default().into()
}

fn unpacked<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match serde_json::from_reader(BufReader::new(ZlibDecoder::new(bytes))) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(%error, "what is expected of a container cannot be given to rules");
            None
        }
    }
}

pub(crate) fn without_programs(dna: &Dna) -> Dna {
    Dna {
        schema: dna.schema.clone(),
        analyzer: dna.analyzer.clone(),
        image: dna.image.clone(),
        layers: dna.layers.clone(),
        start: dna.start.clone(),
        programs: Vec::new(),
        accounts: dna.accounts.clone(),
        folders: dna.folders.clone(),
        behavior: dna.behavior.clone(),
        unknowns: dna.unknowns.clone(),
    }
}

impl Facts {
    fn new(program: &Program, reached: Option<Confidence>, runs: Box<[Edge]>, is_interpreter: bool) -> Self {
        let behavior = program.behavior.as_ref();
        let paths = std::iter::once(&program.path).chain(&program.aliases);
        let names: BTreeSet<_> = paths.map(|path| String::from_utf8_lossy(path.file_name())).collect();
        let is_script = matches!(program.kind, dna::Kind::Script(_));
        let is_shell = !is_script && names.iter().any(|name| is_shell(name));
        let is_multicall = is_shell && names.iter().filter(|name| !self::is_shell(name)).count() >= APPLETS;
        Self {
            path: shared(&program.path.to_string_lossy()),
            layer: program.layer,
            package: program.package.as_deref().map(shared),
            software: shared(&software(program)),
            reached,
            runs,
            read_by: None,
            is_script,
            is_shell,
            is_multicall,
            is_interpreter,
            is_known: behavior.is_some(),
            write: behavior.map(|behavior| globs(&behavior.write, |write| &write.path)).unwrap_or_default(),
            read: behavior.map(|behavior| globs(&behavior.read, |read| &read.path)).unwrap_or_default(),
            syscalls: behavior.map(asked_for).unwrap_or_default(),
        }
    }
}

/// What reads a script, by its `#!` line.
fn readers(program: &Program, find: &impl Fn(&ImagePath) -> Option<Node>) -> Vec<Node> {
    let followed = program.runs.iter().filter(|run| run.reason == READER).map(|run| run.program.clone());
    let written = match &program.kind {
        dna::Kind::Script(script) => script.shebang.first().and_then(|path| path.parse().ok()),
        _ => None,
    };
    followed.chain(written).filter_map(|path| find(&path)).collect()
}

/// The interpreter of a script, also behind `#!/usr/bin/env`; none where it is a shell, whose calls are the script's own.
fn read_by(program: &Program, programs: &[Facts], find: &impl Fn(&ImagePath) -> Option<Node>) -> Option<Node> {
    let run = program.runs.iter().find(|run| run.reason == READER)?;
    let first = find(&run.program)?;
    let of = |node: Node| programs.get(node.0 as usize);
    let facts = of(first)?;
    let interpreter = match facts.runs.iter().find(|edge| of(edge.to).is_some_and(|to| to.is_interpreter)) {
        Some(edge) if file_name(&facts.path) == "env" => edge.to,
        _ => first,
    };
    of(interpreter).is_some_and(|facts| !facts.is_shell).then_some(interpreter)
}

fn leads(reason: &str) -> Leads {
    match reason {
        "login shell" => Leads::Login,
        READER => Leads::Reader,
        _ => Leads::Here,
    }
}

/// The system calls that are ever asked for: all others would only take memory, for each program of each image.
fn asked_for(behavior: &Behavior) -> Texts {
    let names = behavior.syscalls.iter().map(|known| &known.what.name);
    names.filter(|name| *name == "connect" || sensitive::system_call(name).is_some()).map(|name| shared(name)).collect()
}

fn globs<T>(items: &[Known<T>], path: impl Fn(&T) -> &ImagePath) -> Texts {
    items.iter().map(|known| shared(&glob(&path(&known.what).to_string_lossy()))).collect()
}

/// The software that listens; where none is seen to, that of the start command.
fn served_by(dna: &Dna, programs: &[Facts], start: Option<Node>) -> HashSet<String> {
    let listens = |program: &Program| program.behavior.as_ref().is_some_and(|behavior| !behavior.listen.is_empty());
    let servers: HashSet<String> = dna
        .programs
        .iter()
        .zip(programs)
        .filter(|(program, facts)| listens(program) && !facts.is_shell)
        .map(|(_, facts)| facts.software.to_string())
        .collect();
    if !servers.is_empty() {
        return servers;
    }
    let start = start.and_then(|start| programs.get(start.0 as usize));
    start.map(|facts| facts.software.to_string()).into_iter().collect()
}

/// What a program is a part of: the first word of its package's name, which the packages of one software share
/// (`postgresql-15`, `postgresql-client-15`); its folder where no package owns it.
fn software(program: &Program) -> String {
    let name = program.package.as_deref().and_then(|package| {
        let name = package.split(['@', '?']).next()?.rsplit('/').next()?;
        let word: String = name.chars().take_while(|letter| letter.is_alphabetic()).collect();
        (!word.is_empty()).then_some(word)
    });
    name.unwrap_or_else(|| program.path.folder().to_string_lossy().into_owned())
}

/// Whether a peer is this one; a name stands for any address.
fn is_peer((host, at): &(String, Option<u16>), hosts: &[&str], port: u16) -> bool {
    at.is_none_or(|at| at == port) && (hosts.contains(&host.as_str()) || host.parse::<std::net::IpAddr>().is_err())
}

/// A peer as it is named in a snapshot.
pub(crate) fn peer_name(host: &str, port: Option<u16>) -> String {
    port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The program of a path, among those in order.
fn found(by_path: &[(Arc<str>, Node)], path: &str) -> Option<Node> {
    let place = by_path.binary_search_by_key(&path, |(path, _)| path).ok()?;
    by_path.get(place).map(|(_, node)| *node)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A path as the merged `/usr` has it.
#[must_use]
pub(crate) fn merged(path: &str) -> Cow<'_, str> {
    for folder in ["/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/"] {
        if path.starts_with(folder) {
            return Cow::Owned(format!("/usr{path}"));
        }
    }
    Cow::Borrowed(path)
}

/// Whether a path is a folder or below it.
#[must_use]
pub(crate) fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a glob of a DNA stands for a path; that of a folder's contents also for the folder, which is made before them.
pub(crate) fn matches(glob: &str, path: &str) -> bool {
    match glob.strip_suffix("/**") {
        Some(folder) if !folder.contains('*') => is_below(path, folder),
        _ => dna::path_matches(glob.as_bytes(), path.as_bytes()),
    }
}

/// A path as a glob: `XXXXXX` of mkstemp(3) stands for any letters.
pub(crate) fn glob(path: &str) -> String {
    let mut glob = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, template)) = rest.split_once("XXXXXX") {
        glob.push_str(before);
        glob.push('*');
        rest = template.trim_start_matches('X');
    }
    glob + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_stand_for_paths() {
        for (glob, path, wanted) in [
            ("/tmp/**", "/tmp/a/b", true),
            ("/tmp/**", "/tmp", true),
            ("/tmp/**", "/tmpx", false),
            ("/run/*.pid", "/run/x.pid", true),
            ("/run/*.pid", "/run/x/y.pid", false),
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/b/c", false),
            ("/a/**/c", "/a/b/b/c", true),
            ("/tmp/ssh-XXXXXXXXXX", "/tmp/ssh-a8Bc", true),
            ("/tmp/ssh-XXXXXXXXXX/agent", "/tmp/ssh-a8Bc/agent", true),
            ("/etc/ssh/ssh_host_*", "/etc/ssh/ssh_host_rsa_key.pub", true),
            ("/data", "/data/x", false),
        ] {
            assert_eq!(matches(&super::glob(glob), path), wanted, "{glob} {path}");
        }
    }

    #[test]
    fn paths_are_those_of_the_merged_usr() {
        assert_eq!(merged("/bin/sh"), "/usr/bin/sh");
        assert_eq!(merged("/lib64/ld.so"), "/usr/lib64/ld.so");
        assert_eq!(merged("/binary/x"), "/binary/x");
    }
}
