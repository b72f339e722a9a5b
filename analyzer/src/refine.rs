//! What a DNA answers by itself, and what a deployment lays over an image: a DNA with files and environment variables in, an
//! answer or another DNA out. The image is not at hand.
//!
//! A stand-in for the root file system is made of what the DNA knows: its programs under all their names, and the files laid over
//! it, with their text. The exec closure and the readers of configuration run on it as on an image. Each program that comes to be
//! executed then does what the DNA says of it. The text of the image's own scripts and configuration is not in a DNA, so
//!
//! - a script of the image runs what its edges say; what it does with other arguments is an unknown;
//! - a program that the image's own start never executes has no behavior in the DNA: its dimensions are not worked out;
//! - a server that is told to read another file of the image keeps what it was configured to do; what rests on its arguments alone
//!   is read from those of now.

use std::collections::{BTreeMap, BTreeSet};

use dna::{
    Behavior, Completeness, Completenesses, Condition, Confidence, Dna, EnvVar, Evidence, Exec, ImagePath, Kind, Known,
    Limits, Program, Subject, Unknown,
};

use crate::{
    Answer, Content, File, Inode, InodeKind, Metadata, Rootfs, closure,
    closure::{Closure, Launch},
    merge, phases,
    shell::{DEFAULT_PATH, World, matches, with_stack},
};

/// What a deployment lays over an image: ConfigMaps, volumes, environment variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounted {
    /// What lies at a place in the container, in place of the image's files there.
    pub files: BTreeMap<ImagePath, Laid>,
    /// Environment variables set in place of the image's.
    pub env: BTreeMap<String, String>,
    /// Environment variables that are set, to values that are not known.
    pub hidden: BTreeSet<String>,
}

/// What lies at a place in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Laid {
    /// A file with this text.
    File(Vec<u8>),
    /// A folder that is empty at first.
    Empty,
    /// A file or folder that cannot be read: a secret, a volume filled at run time.
    Unreadable,
}

impl Mounted {
    /// Nothing is laid over the image.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.env.is_empty() && self.hidden.is_empty()
    }

    /// Puts the files in place. They belong to `layer`, one past the image's last.
    pub(crate) fn lay_over(&self, rootfs: &mut Rootfs, layer: u32, unknowns: &mut BTreeSet<Unknown>) {
        for (path, body) in &self.files {
            let mut unknown = |why: String| {
                unknowns.insert(Unknown { place: path.to_string(), subject: Subject::File, why });
            };
            let known = rootfs.resolve(path).ok();
            let place = known.as_ref().map_or(path, |known| &known.path).clone();
            let old = known.map(|known| rootfs.inode(known.inode));
            // A file keeps the mode of the one it hides; Kubernetes gives others 0644.
            let mode =
                old.filter(|inode| matches!(inode.kind, InodeKind::File(_))).map_or(0o644, |inode| inode.meta.mode);
            let is_folder = old.is_some_and(|inode| matches!(inode.kind, InodeKind::Directory(_)));
            let kind = match body {
                Laid::File(body) => file(body),
                Laid::Empty => InodeKind::Directory(BTreeMap::new()),
                Laid::Unreadable if is_folder => InodeKind::Directory(BTreeMap::new()),
                Laid::Unreadable => {
                    InodeKind::File(File { size: 0, sha256: None, content: Content::Dropped(UNREADABLE) })
                }
            };
            if *body == Laid::Unreadable {
                unknown(UNREADABLE.to_owned());
            }
            let mode = if matches!(kind, InodeKind::Directory(_)) { 0o755 } else { mode };
            if let Err(why) = put(rootfs, &place, Metadata { mode, layer, ..Metadata::default() }, kind) {
                unknown(format!("cannot be laid over the image: {why}"));
            }
        }
    }

    /// The environment with the variables set.
    pub(crate) fn environment(&self, env: &[String]) -> Vec<String> {
        let name = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
        let is_set = |entry: &&String| !self.env.contains_key(&name(entry)) && !self.hidden.contains(&name(entry));
        let set = self.env.iter().map(|(name, value)| format!("{name}={value}"));
        env.iter().filter(is_set).cloned().chain(set).collect()
    }
}

/// What a command would do in a container of the image that a DNA is about, from the DNA alone.
pub fn answer(dna: &Dna, command: &[String], mounted: &Mounted, limits: &Limits) -> Answer {
    if mounted.is_empty() && command == dna.start.argv {
        return Answer { behavior: dna.behavior.clone(), unknowns: dna.unknowns.clone() };
    }
    let mut unknowns = BTreeSet::new();
    let rootfs = stand_in(dna, mounted, limits, &mut unknowns);
    let world = World { rootfs: &rootfs, accounts: &dna.accounts, text_bytes: limits.text_bytes };
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    env.extend(dna.start.env.iter().filter_map(|known| Some((known.name.clone(), known.value.clone()?))));
    env.extend(mounted.env.clone());
    env.retain(|name, _| !mounted.hidden.contains(name));
    let launch = Launch {
        argv: command.to_vec(),
        env: env.clone().into_iter().collect(),
        uid: dna.start.uid,
        cwd: dna.start.workdir.clone().unwrap_or_else(ImagePath::root),
        confidence: Confidence::Certain,
        evidence: Evidence::Config { key: COMMAND_LINE.to_owned() },
    };
    let closure = with_stack(|| closure::reach(&[launch], world, limits, &mut closure::Silent));
    unknowns.extend(closure.unknowns.iter().cloned());
    if closure.exec.is_empty() {
        let name = command.first().map(|name| dna::redact(name).into_owned()).unwrap_or_default();
        let why = format!("`{name}` is no executable file of the image");
        unknowns.insert(Unknown { place: COMMAND_LINE.to_owned(), subject: Subject::Start, why });
    }
    let executed = executed(dna, command, mounted, &env, &closure, &mut unknowns);
    let is_own = command == dna.start.argv;
    let behavior = joined(dna, (mounted, is_own), &closure, &executed, world, &mut unknowns);
    Answer { behavior, unknowns: unknowns.into_iter().collect() }
}

/// The DNA of the image as a deployment runs it: its own start command, with what is laid over.
pub fn refine(dna: &Dna, mounted: &Mounted, limits: &Limits) -> Dna {
    let Answer { behavior, mut unknowns } = answer(dna, &dna.start.argv, mounted, limits);
    if !mounted.is_empty() {
        // What was not known of the image stays so.
        unknowns.extend(dna.unknowns.iter().cloned());
        unknowns.sort();
        unknowns.dedup();
    }
    let mut refined = Dna { behavior, unknowns, ..dna.clone() };
    refined.start.env.retain(|known| !mounted.env.contains_key(&known.name) && !mounted.hidden.contains(&known.name));
    let shown = |name: &str, value: &str| !dna::is_secret_name(name) && dna::redact(value) == value;
    refined.start.env.extend(
        mounted
            .env
            .iter()
            .map(|(name, value)| EnvVar { name: name.clone(), value: shown(name, value).then(|| value.clone()) }),
    );
    refined.start.env.extend(mounted.hidden.iter().map(|name| EnvVar { name: name.clone(), value: None }));
    refined
}

/// The program that a name stands for, where there is one.
pub(crate) fn find(dna: &Dna, name: &str, path: Option<&str>, mounted: &Mounted, limits: &Limits) -> Option<ImagePath> {
    let rootfs = stand_in(dna, mounted, limits, &mut BTreeSet::new());
    let world = World { rootfs: &rootfs, accounts: &dna.accounts, text_bytes: limits.text_bytes };
    let workdir = dna.start.workdir.clone().unwrap_or_else(ImagePath::root);
    world.find_program(&workdir, name, path.unwrap_or(DEFAULT_PATH)).map(|found| found.path)
}

/// A root file system of what the DNA knows.
fn stand_in(dna: &Dna, mounted: &Mounted, limits: &Limits, unknowns: &mut BTreeSet<Unknown>) -> Rootfs {
    let mut rootfs = Rootfs::new(limits.symlinks);
    // Merged folders, as every current distribution has them, where no program of the image says otherwise.
    let has = |folder: &str| dna.programs.iter().any(|one| one.path.as_bytes().starts_with(folder.as_bytes()));
    for (folder, inside, target) in [("/bin", "/usr/bin/", "usr/bin"), ("/sbin", "/usr/sbin/", "usr/sbin")] {
        if !has(&format!("{folder}/")) && has(inside) {
            link(&mut rootfs, folder, target);
        }
    }
    for program in &dna.programs {
        let body: Vec<u8> = match &program.kind {
            Kind::Elf(_) => b"\x7fELF".to_vec(),
            Kind::Script(script) if !script.shebang.is_empty() => {
                format!("#!{}\n", script.shebang.join(" ")).into_bytes()
            }
            Kind::Jar { .. } => b"PK\x03\x04".to_vec(),
            _ => Vec::new(),
        };
        let meta = Metadata {
            mode: program.mode,
            uid: program.uid,
            gid: program.gid,
            layer: program.layer,
            ..Metadata::default()
        };
        // A name that a file of the image stands in the way of is not there.
        let _ = put(&mut rootfs, &program.path, meta, file(&body));
        for alias in &program.aliases {
            let kind = InodeKind::Symlink(program.path.as_bytes().into());
            let _ = put(&mut rootfs, alias, Metadata { mode: 0o777, ..Metadata::default() }, kind);
        }
    }
    mounted.lay_over(&mut rootfs, u32::try_from(dna.layers.len()).unwrap_or(u32::MAX), unknowns);
    rootfs
}

/// The programs executed: those of the closure, and those that the DNA's edges lead to from scripts without text and from
/// compiled programs.
fn executed(
    dna: &Dna,
    command: &[String],
    mounted: &Mounted,
    env: &BTreeMap<String, String>,
    closure: &Closure,
    unknowns: &mut BTreeSet<Unknown>,
) -> BTreeMap<ImagePath, Known<Exec>> {
    let programs: BTreeMap<&ImagePath, &Program> = dna.programs.iter().map(|one| (&one.path, one)).collect();
    let mut executed = closure.exec.clone();
    let mut ahead: Vec<ImagePath> = executed.keys().cloned().collect();
    while let Some(path) = ahead.pop() {
        let Some(program) = programs.get(&path) else { continue };
        let is_script = matches!(program.kind, Kind::Script(_));
        if is_script && matches!(mounted.files.get(&path), Some(Laid::File(_))) {
            continue; // Its new text was walked.
        }
        let arguments = closure.processes.iter().find(|process| process.program == path).map(|process| &process.argv);
        let own = dna.start.program.as_ref() == Some(&path) && command == dna.start.argv;
        if is_script && !own && arguments.is_some_and(|argv| argv.len() > 1) {
            let why = "its text is not in the DNA: what it does with these arguments is not known".to_owned();
            unknowns.insert(Unknown { place: path.to_string(), subject: Subject::Exec, why });
        }
        let sureness = executed.get(&path).map_or(Confidence::Possible, |known| known.confidence);
        for run in &program.runs {
            // The closure followed these itself, with the arguments of now.
            if run.reason == closure::TOLD || run.reason.starts_with("argument of") || run.reason.starts_with("#!") {
                continue;
            }
            let holds = run.when.iter().all(|condition| may_hold(condition, arguments, env, mounted, dna));
            let confidence = if holds { run.confidence.max(sureness) } else { Confidence::Possible };
            let better = executed.get(&run.program).is_none_or(|known| confidence < known.confidence);
            if better {
                let what = Exec { path: run.program.clone() };
                let evidence = run.evidence.clone();
                let item = Known { what, confidence, probability: None, when: Vec::new(), evidence };
                executed.insert(run.program.clone(), item);
                ahead.push(run.program.clone());
            }
        }
    }
    executed
}

/// Whether a condition may hold; what is not known may.
fn may_hold(
    condition: &Condition,
    arguments: Option<&Vec<Option<String>>>,
    env: &BTreeMap<String, String>,
    mounted: &Mounted,
    dna: &Dna,
) -> bool {
    match condition {
        Condition::Argv { index, matches: pattern, negated } => {
            let Some(arguments) = arguments else { return true };
            let word = arguments.get(*index as usize).map_or(Some(""), |word| word.as_deref());
            word.is_none_or(|word| matches(pattern, word) != *negated)
        }
        Condition::Env { name, matches: pattern, negated } => {
            let is_hidden = mounted.hidden.contains(name)
                || dna.start.env.iter().any(|known| known.name == *name && known.value.is_none());
            match env.get(name) {
                None if is_hidden => true,
                value => matches(pattern, value.map_or("", String::as_str)) != *negated,
            }
        }
        Condition::Uid { equals, negated } => dna.start.uid.is_none_or(|uid| (uid == *equals) != *negated),
        _ => true,
    }
}

/// The behavior of all that is executed: each program's own, and what the files laid over and the arguments of now configure.
fn joined(
    dna: &Dna,
    (mounted, is_own): (&Mounted, bool),
    closure: &Closure,
    executed: &BTreeMap<ImagePath, Known<Exec>>,
    world: World<'_>,
    unknowns: &mut BTreeSet<Unknown>,
) -> Behavior {
    let mut all = Behavior { exec: executed.values().cloned().collect(), ..Behavior::default() };
    let mut is_whole = !executed.is_empty();
    let (hidden, mut lost) = (&mounted.files, BTreeSet::new());
    let (mut loads, mut syscalls) = (BTreeMap::new(), BTreeMap::new());
    let mut configured = merge::Configured::default();
    if !mounted.is_empty() || !is_own {
        let (read, more) = merge::configured(closure, world);
        unknowns.extend(more);
        configured = read;
    }
    for path in executed.keys() {
        let program = dna.programs.iter().find(|program| program.path == *path);
        if program.is_some_and(|program| matches!(program.kind, Kind::Script(_))) {
            continue; // Its interpreter does it.
        }
        let Some(behavior) = program.and_then(|program| program.behavior.as_ref()) else {
            is_whole = false;
            let why = "what it does is not worked out in the DNA: the image's own start does not execute it".to_owned();
            unknowns.insert(Unknown { place: path.to_string(), subject: Subject::Program, why });
            continue;
        };
        loads.insert(path.clone(), behavior.load.clone());
        syscalls.insert(path.clone(), behavior.syscalls.clone());
        merge::join(&mut all.capabilities, &behavior.capabilities);
        let is_started = !is_own && closure.processes.iter().any(|process| process.program == *path);
        let now = configured.program(path).filter(|_| is_started);
        let mut listen = shown(&behavior.listen, hidden, "listen", &mut lost);
        let mut connect = shown(&behavior.connect, hidden, "connect", &mut lost);
        let mut write = shown(&behavior.write, hidden, "write", &mut lost);
        let mut read = shown(&behavior.read, hidden, "read", &mut lost);
        if let Some(now) = now {
            stays(&mut listen, &now.listen, hidden);
            stays(&mut connect, &now.connect, hidden);
            stays(&mut write, &now.write, hidden);
            stays(&mut read, &now.read, hidden);
        }
        merge::join(&mut all.listen, &listen);
        merge::join(&mut all.connect, &connect);
        merge::join(&mut all.write, &write);
        merge::join(&mut all.read, &read);
    }
    let sureness = |path: &ImagePath| executed.get(path).map_or(Confidence::Possible, |known| known.confidence);
    let runs =
        dna.programs.iter().filter(|program| executed.contains_key(&program.path)).flat_map(|program| &program.runs);
    all.load = merge::union_by(&loads, sureness);
    all.syscalls = phases::union(&syscalls, runs, sureness);
    let mut claimed = Behavior::default();
    configured.add_all(Vec::new(), &mut claimed);
    merge::join(&mut all.listen, &said_now(&claimed.listen, hidden, is_own));
    merge::join(&mut all.connect, &said_now(&claimed.connect, hidden, is_own));
    merge::join(&mut all.write, &said_now(&claimed.write, hidden, is_own));
    merge::join(&mut all.read, &said_now(&claimed.read, hidden, is_own));
    all.completeness = if is_whole { dna.behavior.completeness.clone() } else { exec_only(dna) };
    // What rested on a file that another, unreadable one now hides: nothing follows from what is left.
    for dimension in lost {
        match dimension {
            "listen" => all.completeness.listen = Completeness::None,
            "connect" => all.completeness.connect = Completeness::None,
            "write" => all.completeness.write = Completeness::None,
            _ => all.completeness.read = Completeness::None,
        }
    }
    all
}

/// The items that rest on more than files which are hidden now. Where what hides one cannot be read, the dimension is lost.
fn shown<T: Clone>(
    items: &[Known<T>],
    hidden: &BTreeMap<ImagePath, Laid>,
    dimension: &'static str,
    lost: &mut BTreeSet<&'static str>,
) -> Vec<Known<T>> {
    let mut stays = |item: &&Known<T>| {
        let over: Vec<&Laid> = item.evidence.iter().filter_map(|one| over(one, hidden)).collect();
        let is_gone = !item.evidence.is_empty() && over.len() == item.evidence.len();
        if is_gone && over.contains(&&Laid::Unreadable) {
            lost.insert(dimension);
        }
        !is_gone
    };
    items.iter().filter(|item| stays(item)).cloned().collect()
}

/// Leaves what does not rest on the arguments of the image's own start. What is so by default stays, unless something else is said now and
/// the default is not.
fn stays<T: Clone + PartialEq>(then: &mut Vec<Known<T>>, now: &[Known<T>], files: &BTreeMap<ImagePath, Laid>) {
    let is_default = |item: &Known<T>| {
        let is = |one: &Evidence| matches!(one, Evidence::Binary { detail: Some(detail), .. } if detail.starts_with(DEFAULT));
        !item.evidence.is_empty() && item.evidence.iter().all(is)
    };
    let is_said = !said_now(now, files, false).is_empty();
    then.retain(|item| {
        let is_so = now.iter().any(|other| other.what == item.what);
        !is_argument(item) && (!is_default(item) || !is_said || is_so)
    });
}

/// The items that rest on the files laid over, or on other arguments than the image's own.
fn said_now<T: Clone>(items: &[Known<T>], files: &BTreeMap<ImagePath, Laid>, is_own: bool) -> Vec<Known<T>> {
    let is_laid = |item: &Known<T>| item.evidence.iter().any(|one| over(one, files).is_some());
    items.iter().filter(|item| is_laid(item) || (!is_own && is_argument(item))).cloned().collect()
}

/// Whether an item rests on arguments alone.
fn is_argument<T>(item: &Known<T>) -> bool {
    let is = |one: &Evidence| matches!(one, Evidence::Config { key } if key == COMMAND_LINE);
    !item.evidence.is_empty() && item.evidence.iter().all(is)
}

/// What lies over the file that evidence is in.
fn over<'a>(evidence: &Evidence, files: &'a BTreeMap<ImagePath, Laid>) -> Option<&'a Laid> {
    let Evidence::File { path, .. } = evidence else { return None };
    let covering = files.iter().filter(|(place, _)| path.starts_with(place));
    covering.max_by_key(|(place, _)| place.components().count()).map(|(_, laid)| laid)
}

/// Where a program's behavior is missing, nothing follows from what is not listed.
fn exec_only(dna: &Dna) -> Completenesses {
    let exec = match &dna.behavior.completeness.exec {
        Completeness::Complete => Completeness::Partial { reason: "some programs are not worked out".to_owned() },
        known => known.clone(),
    };
    Completenesses { exec, ..Completenesses::default() }
}

fn file(body: &[u8]) -> InodeKind {
    InodeKind::File(File { size: body.len() as u64, sha256: None, content: Content::Memory(body.into()) })
}

fn put(rootfs: &mut Rootfs, path: &ImagePath, meta: Metadata, kind: InodeKind) -> Result<(), &'static str> {
    let parent = path.parent().ok_or("it is the root")?;
    let folder = rootfs.make_directories(&parent, meta.layer)?;
    let inode = rootfs.add(Inode { meta, kind });
    rootfs.name(folder, path.file_name(), inode);
    Ok(())
}

fn link(rootfs: &mut Rootfs, path: &str, target: &str) {
    if let Ok(path) = path.parse() {
        let kind = InodeKind::Symlink(target.as_bytes().into());
        let _ = put(rootfs, &path, Metadata { mode: 0o777, ..Metadata::default() }, kind);
    }
}

/// The evidence of what arguments say.
const COMMAND_LINE: &str = "command line";
/// How evidence begins of what a server does where nothing says otherwise.
const DEFAULT: &str = "default: ";
const UNREADABLE: &str = "laid over by the deployment, and cannot be read";

#[cfg(test)]
mod tests {
    use super::*;

    fn known(port: u16, evidence: Evidence) -> Known<u16> {
        Known {
            what: port,
            confidence: Confidence::Certain,
            probability: None,
            when: Vec::new(),
            evidence: vec![evidence],
        }
    }

    fn argument() -> Evidence {
        Evidence::Config { key: COMMAND_LINE.to_owned() }
    }

    fn default() -> Evidence {
        let path = "/usr/bin/server".parse().expect("a path");
        Evidence::Binary { path, offset: None, layer: None, detail: Some(format!("{DEFAULT}port 11211")) }
    }

    fn file(path: &str) -> Evidence {
        Evidence::File { path: path.parse().expect("a path"), line: None, layer: None, detail: None }
    }

    #[test]
    fn arguments_of_now_count_in_place_of_those_of_then_and_a_default_while_nothing_else_is_said() {
        let laid = BTreeMap::from([("/config".parse().expect("a path"), Laid::Empty)]);
        let then = [known(8080, argument()), known(11211, default()), known(9000, file("/etc/server.conf"))];
        let after = |now: &[Known<u16>]| {
            let mut left = then.to_vec();
            stays(&mut left, now, &laid);
            left.extend(said_now(now, &laid, false));
            left.iter().map(|item| item.what).collect::<Vec<_>>()
        };
        assert_eq!(after(&[known(7101, argument())]), [9000, 7101]);
        assert_eq!(after(&[known(7101, file("/config/server.conf"))]), [9000, 7101]);
        assert_eq!(after(&[known(11211, default()), known(7101, argument())]), [11211, 9000, 7101]);
        assert_eq!(after(&[]), [11211, 9000]);
        // Of the image's own start only what is laid over is news.
        assert!(said_now(&[known(7101, argument())], &laid, true).is_empty());
        assert_eq!(said_now(&[known(7101, file("/config/server.conf"))], &laid, true).len(), 1);
    }
}
