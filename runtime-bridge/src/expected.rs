//! A DNA, bound to a container or as it is, arranged for questions that events ask.
//!
//! In: a [`Dna`] and, where there is one, the pod's [`Expectation`]. Out: [`Expected`], made once for each container and read for
//! each event. Paths are compared as the merged `/usr` has them, so that `/bin/x` and `/usr/bin/x` are one.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use dna::{Behavior, Completeness, Completenesses, Confidence, Dna, Expectation, ImagePath, Known, Program, Protocol};

/// Programs that read other programs' text as commands, by file name. Source: POSIX `sh` and its kin; `/etc/shells` of distributions.
const SHELLS: [&str; 10] = ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox", "toybox", "fish"];

/// A program of the image, by its place in [`Expected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node(usize);

/// What a container is expected to do.
#[derive(Debug)]
pub struct Expected {
    programs: Vec<Facts>,
    by_path: HashMap<String, Node>,
    by_name: HashMap<String, Node>,
    start: Option<Node>,
    start_argv: Vec<String>,
    /// The software that serves: a command of it from outside is how its health is asked for.
    served_by: HashSet<String>,
    beside: Vec<(String, Vec<String>)>,
    listen: HashSet<(Protocol, u16)>,
    connect: Vec<(String, Option<u16>)>,
    write: Vec<String>,
    read: Vec<String>,
    syscalls: HashSet<String>,
    capabilities: HashSet<String>,
    completeness: Completenesses,
    volumes: Vec<String>,
}

/// What is asked of one program.
#[derive(Debug)]
struct Facts {
    path: ImagePath,
    layer: u32,
    package: Option<String>,
    software: String,
    /// How sure it is that the container executes it; none where nothing leads there.
    reached: Option<Confidence>,
    runs: Vec<(Node, Leads)>,
    is_script: bool,
    is_shell: bool,
    is_interpreter: bool,
    /// Its own behavior was worked out.
    is_known: bool,
    write: Vec<String>,
    read: Vec<String>,
    syscalls: HashSet<String>,
}

/// What an edge stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// To this program.
    Here,
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
        Self::new(dna, &expectation.behavior, expectation.argv.clone(), beside)
    }

    fn new(dna: &Dna, behavior: &Behavior, argv: Vec<String>, beside: Vec<(String, Vec<String>)>) -> Self {
        let mut by_path = HashMap::new();
        let mut by_name = HashMap::new();
        for (index, program) in dna.programs.iter().enumerate() {
            for path in std::iter::once(&program.path).chain(&program.aliases) {
                let path = merged(&path.to_string_lossy()).into_owned();
                if let Some(name) = path.rsplit('/').next() {
                    by_name.entry(name.to_owned()).or_insert(Node(index));
                }
                by_path.entry(path).or_insert(Node(index));
            }
        }
        let find = |path: &ImagePath| by_path.get(merged(&path.to_string_lossy()).as_ref()).copied();
        let reached: HashMap<&ImagePath, Confidence> =
            behavior.exec.iter().map(|known| (&known.what.path, known.confidence)).collect();
        let interpreters: HashSet<Node> = dna
            .programs
            .iter()
            .flat_map(|program| &program.runs)
            .filter(|run| run.reason == "#! interpreter")
            .filter_map(|run| find(&run.program))
            .collect();
        let programs: Vec<Facts> = dna
            .programs
            .iter()
            .enumerate()
            .map(|(index, program)| {
                let runs =
                    program.runs.iter().filter_map(|run| Some((find(&run.program)?, leads(&run.reason)))).collect();
                Facts::new(program, reached.get(&program.path).copied(), runs, interpreters.contains(&Node(index)))
            })
            .collect();
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
            syscalls: behavior.syscalls.iter().map(|known| known.what.name.clone()).collect(),
            capabilities: behavior.capabilities.iter().map(|known| known.what.name.clone()).collect(),
            completeness: behavior.completeness.clone(),
            volumes: dna.start.volumes.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            programs,
            by_path,
            by_name,
        }
    }

    /// The program that the container starts.
    #[must_use]
    pub const fn start(&self) -> Option<Node> {
        self.start
    }

    /// Whether these words are the start command.
    #[must_use]
    pub fn is_start(&self, argv: &[String]) -> bool {
        !self.start_argv.is_empty() && argv.ends_with(&self.start_argv)
    }

    /// The field of the pod that has this command run beside the start command: a probe, a hook.
    #[must_use]
    pub fn beside(&self, argv: &[String]) -> Option<&str> {
        self.beside.iter().find(|(_, words)| words == argv).map(|(field, _)| field.as_str())
    }

    /// The program at a path, or the one of that name where it is no path.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Node> {
        if path.starts_with('/') {
            self.by_path.get(merged(path).as_ref()).copied()
        } else if path.contains('/') {
            None
        } else {
            self.by_name.get(path).copied()
        }
    }

    fn facts(&self, node: Node) -> Option<&Facts> {
        self.programs.get(node.0)
    }

    /// The file of a program.
    #[must_use]
    pub fn path(&self, node: Node) -> String {
        self.facts(node).map(|facts| facts.path.to_string_lossy().into_owned()).unwrap_or_default()
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
        self.facts(from)?.runs.iter().find(|(node, _)| *node == to).map(|(_, leads)| *leads)
    }

    /// Whether two programs are of one software: of packages whose names begin alike, or of one folder where no package owns them.
    #[must_use]
    pub fn are_kin(&self, one: Node, other: Node) -> bool {
        one == other
            || self.facts(one).zip(self.facts(other)).is_some_and(|(one, other)| one.software == other.software)
    }

    /// Whether a program is of the software that serves, and no interpreter.
    #[must_use]
    pub fn is_of_server(&self, node: Node) -> bool {
        self.facts(node).is_some_and(|facts| self.served_by.contains(&facts.software)) && !self.is_interpreter(node)
    }

    /// Whether a port is expected.
    #[must_use]
    pub fn listens(&self, protocol: Protocol, port: u16) -> bool {
        self.listen.contains(&(protocol, port))
    }

    /// Whether any peer is expected at this port.
    #[must_use]
    pub fn connects(&self, hosts: &[&str], port: u16) -> bool {
        self.connect.iter().any(|(host, at)| {
            at.is_none_or(|at| at == port)
                && (hosts.contains(&host.as_str()) || host.parse::<std::net::IpAddr>().is_err())
        })
    }

    /// Whether this program is expected to write a file; the container, where the program's behavior is not known.
    #[must_use]
    pub fn writes(&self, node: Option<Node>, path: &str) -> bool {
        let globs = match node.and_then(|node| self.facts(node)).filter(|facts| facts.is_known) {
            Some(facts) => &facts.write,
            None => &self.write,
        };
        globs.iter().any(|glob| matches(glob, path)) || self.volumes.iter().any(|volume| is_below(path, volume))
    }

    /// Whether this program is expected to read a sensitive file; the container, where the program's behavior is not known.
    #[must_use]
    pub fn reads(&self, node: Option<Node>, path: &str) -> bool {
        match node.and_then(|node| self.facts(node)).filter(|facts| facts.is_known) {
            Some(facts) => facts.read.iter().any(|glob| matches(glob, path)),
            None => self.read.iter().any(|glob| matches(glob, path)),
        }
    }

    /// Whether the container, or this program, can reach a system call.
    #[must_use]
    pub fn calls(&self, node: Option<Node>, name: &str) -> bool {
        self.syscalls.contains(name)
            || node.and_then(|node| self.facts(node)).is_some_and(|facts| facts.syscalls.contains(name))
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

impl Facts {
    fn new(program: &Program, reached: Option<Confidence>, runs: Vec<(Node, Leads)>, is_interpreter: bool) -> Self {
        let behavior = program.behavior.as_ref();
        let name = String::from_utf8_lossy(program.path.file_name()).into_owned();
        let aliases = program.aliases.iter().map(|alias| String::from_utf8_lossy(alias.file_name()).into_owned());
        let is_script = matches!(program.kind, dna::Kind::Script(_));
        let is_shell = !is_script && std::iter::once(name).chain(aliases).any(|name| is_shell(&name));
        Self {
            path: program.path.clone(),
            layer: program.layer,
            package: program.package.clone(),
            software: software(program),
            reached,
            runs,
            is_script,
            is_shell,
            is_interpreter,
            is_known: behavior.is_some(),
            write: behavior.map(|behavior| globs(&behavior.write, |write| &write.path)).unwrap_or_default(),
            read: behavior.map(|behavior| globs(&behavior.read, |read| &read.path)).unwrap_or_default(),
            syscalls: behavior
                .map(|behavior| behavior.syscalls.iter().map(|known| known.what.name.clone()).collect())
                .unwrap_or_default(),
        }
    }
}

/// Whether a file of that name is a shell.
#[must_use]
pub(crate) fn is_shell(name: &str) -> bool {
    SHELLS.contains(&name)
}

fn leads(reason: &str) -> Leads {
    if reason == "login shell" { Leads::Login } else { Leads::Here }
}

fn globs<T>(items: &[Known<T>], path: impl Fn(&T) -> &ImagePath) -> Vec<String> {
    items.iter().map(|known| glob(&path(&known.what).to_string_lossy())).collect()
}

/// The software that listens; where none is seen to, that of the start command.
fn served_by(dna: &Dna, programs: &[Facts], start: Option<Node>) -> HashSet<String> {
    let listens = |program: &Program| program.behavior.as_ref().is_some_and(|behavior| !behavior.listen.is_empty());
    let servers: HashSet<String> = dna
        .programs
        .iter()
        .zip(programs)
        .filter(|(program, facts)| listens(program) && !facts.is_shell)
        .map(|(_, facts)| facts.software.clone())
        .collect();
    if !servers.is_empty() {
        return servers;
    }
    start.and_then(|start| programs.get(start.0)).map(|facts| facts.software.clone()).into_iter().collect()
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
fn glob(path: &str) -> String {
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
