//! The steps, in order: an opened image in, its DNA and inventory out; and the answer for any other command.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
};

use dna::{
    Analyzer, Behavior, Completeness, Completenesses, Confidence, Digest, Dna, Evidence, Exec, Folder, ImageFacts,
    ImagePath, Known, Layer, Limits, Listen, Load, Program, SCHEMA, Subject, Unknown, Write,
};
use oci::{Contents, Image};

use crate::{
    Error, Inventory, Progress, Rootfs, Squashed, accounts,
    capabilities::{self, Needed, Seen},
    closure,
    closure::{Closure, Launch},
    code::{Code, Nearest},
    expect, inventory,
    kept::Kept,
    loader::Loader,
    merge::{self, Configured},
    programs,
    reader::Reader,
    refine::Mounted,
    shell::{World, with_stack},
    squash::squash_with,
    start,
    start::Started,
    syscalls::{self, Calls},
};

/// What was worked out of an image. The tree stays open, so that other commands can be asked about.
#[derive(Debug)]
pub struct Analysis {
    /// The DNA.
    pub dna: Dna,
    /// The packages.
    pub inventory: Inventory,
    /// How code leads to the system calls, by program: what their probabilities rest on.
    pub traits: Vec<expect::Program>,
    rootfs: Rootfs,
    started: Started,
    limits: Limits,
    kept: Kept,
    image: Image,
    mounted: Mounted,
}

/// What a command would do in a container of the image.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What it may do.
    pub behavior: Behavior,
    /// What could not be known.
    pub unknowns: Vec<Unknown>,
}

/// Analyzes an image.
///
/// # Errors
/// [`Error`]: no DNA at all. What cannot be read *inside* the image is an unknown in the DNA.
pub fn analyze(image: &Image, limits: &Limits, progress: &Progress) -> Result<Analysis, Error> {
    analyze_with(image, &Mounted::default(), None, limits, progress)
}

/// Analyzes an image with what a deployment lays over it - the same steps, on the files and variables that a container would see -
/// and with what earlier analyses kept in a cache: it is faster, and the result the same to the last byte.
///
/// # Errors
/// As [`analyze`]; the cache never fails it.
pub fn analyze_with(
    image: &Image,
    mounted: &Mounted,
    cache: Option<&oci::Cache>,
    limits: &Limits,
    progress: &Progress,
) -> Result<Analysis, Error> {
    let kept = Kept::new(cache, &rules(limits)?);
    let mut found = work_out(image, mounted, limits, progress, &kept);
    if kept.is_damaged() {
        // What rests on a damaged body is no answer, whatever came of it.
        progress.begin_again();
        found = work_out(image, mounted, limits, progress, &kept.anew());
    }
    kept.close();
    found
}

fn work_out(
    image: &Image,
    mounted: &Mounted,
    limits: &Limits,
    progress: &Progress,
    kept: &Kept,
) -> Result<Analysis, Error> {
    let Squashed { mut rootfs, layer_sizes, mut unknowns } = squash_with(image, limits, progress, kept)?;
    progress.done("squash")?;
    let mut unreadable = BTreeSet::new();
    mounted.lay_over(&mut rootfs, u32::try_from(layer_sizes.len()).unwrap_or(u32::MAX), &mut unreadable);
    unknowns.extend(unreadable);
    let is_linux = image.platform.os() == "linux";
    let accounts = accounts::read(&rootfs, limits, &mut unknowns);
    let world = World { rootfs: &rootfs, accounts: &accounts, text_bytes: limits.text_bytes };
    let mut doubts = Vec::new();
    let mut config = image.config.config.clone();
    config.env = mounted.environment(&config.env);
    let mut started = start::read(&config, world, &mut doubts);
    let loader = Loader::new(&rootfs, limits);
    let mut reader = Reader::new(&loader, world, limits, kept, progress);
    // Neither asks the other.
    let (inventory, closure) = thread::scope(|scope| {
        let inventory = scope.spawn(|| inventory::inventory(&rootfs, limits));
        let closure = with_stack(|| closure::reach(&launches(image, &started), world, limits, &mut reader));
        (inventory.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), closure)
    });
    progress.done("reach")?;
    let owner = |path: &ImagePath| inventory.owner(path).map(|package| dna::redact(&package.purl).into_owned());
    let survey = programs::survey(&loader, &rootfs, limits, &closure.scripts, owner);
    progress.done("survey")?;
    let (mut configured, config_unknowns) = merge::configured(&closure, world);
    let (loads, load_unknowns) = load(&loader, &closure, &configured, &reader);
    progress.done("load")?;
    let calls = syscalls::of_closure(&mut reader.code, &rootfs, &closure, &loads, is_root(&started), progress)?;
    configured.add_acts(&closure, &calls.acts);
    progress.done("code")?;
    let listen = claimed(&started.start);
    let (exposed, touched) = (listen.as_slice(), touched(&started));
    let seen =
        Seen { closure: &closure, loads: &loads, calls: &calls, configured: &configured, exposed, folders: &touched };
    let needed = capabilities::needed(seen, world);
    started.start.env = start::publish(&started.env, &closure.reads);
    if is_linux {
        unknowns.extend(doubts);
        unknowns.extend(inventory.unknowns.iter().cloned());
        unknowns.extend(survey.unknowns);
        unknowns.extend(closure.unknowns.iter().cloned());
        unknowns.extend(load_unknowns);
        unknowns.extend(config_unknowns);
        unknowns.extend(calls.unknowns.iter().cloned());
    }
    unknowns.sort();
    unknowns.dedup();
    let behavior = behavior(&closure, &loads, &calls, &configured, &needed, listen, is_linux);
    let dna = Dna {
        schema: SCHEMA.to_owned(),
        analyzer: Analyzer {
            name: "mayfly".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rules: rules(limits)?,
        },
        image: ImageFacts { platform: image.platform.clone(), config: image.digests.config.clone() },
        layers: layers(image, &layer_sizes),
        folders: folders(&rootfs, &started, &behavior.write),
        programs: nodes(survey.programs, &closure, &loads, &calls, &configured, &needed),
        behavior,
        start: started.start.clone(),
        accounts,
        unknowns,
    };
    Ok(Analysis {
        dna,
        inventory,
        traits: calls.traits,
        rootfs,
        started,
        limits: limits.clone(),
        kept: kept.clone(),
        image: image.clone(),
        mounted: mounted.clone(),
    })
}

/// A step of a way through code: a function, or in the last one the instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallStep {
    /// The file its code is in.
    pub file: ImagePath,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The function's name, where the file tells it.
    pub function: Option<String>,
}

impl Analysis {
    /// The file that a path leads to, symbolic links resolved.
    pub fn resolve(&self, path: &ImagePath) -> Option<ImagePath> {
        self.rootfs.resolve(path).ok().map(|found| found.path)
    }

    /// The shortest way of calls by which a program comes to make a system call, from its start to the instruction; empty where
    /// it makes none.
    pub fn calls(&self, program: &ImagePath, syscall: &str) -> Vec<CallStep> {
        let mut programs = self.dna.programs.iter();
        let behavior = programs.find(|known| known.path == *program).and_then(|known| known.behavior.as_ref());
        let loaded = behavior.into_iter().flat_map(|behavior| behavior.load.iter().map(|load| load.what.path.clone()));
        let mut code = Code::new(&self.rootfs, &self.limits, &self.kept);
        let (reach, _) = code.reach([program.clone()].into_iter().chain(loaded), BTreeSet::new());
        let step = |nearest: Nearest| CallStep {
            file: nearest.file,
            offset: nearest.offset,
            function: nearest.function.map(|name| dna::redact(&name).into_owned()),
        };
        reach.way(syscall).into_iter().map(step).collect()
    }

    /// What another command would do, in place of the image's own: as the image's user, in its working directory and
    /// environment.
    ///
    /// # Errors
    /// Time ran out: it is counted anew for each answer.
    pub fn answer(&self, command: &[String]) -> Result<Answer, Error> {
        let progress = &Progress::start(&self.limits);
        let world = World { rootfs: &self.rootfs, accounts: &self.dna.accounts, text_bytes: self.limits.text_bytes };
        let evidence = Evidence::Config { key: "command line".to_owned() };
        let launch = launch(&self.started, command.to_vec(), Confidence::Certain, evidence);
        let loader = Loader::new(&self.rootfs, &self.limits);
        let mut reader = Reader::new(&loader, world, &self.limits, &self.kept, progress);
        let closure = with_stack(|| closure::reach(&[launch], world, &self.limits, &mut reader));
        let (mut configured, config_unknowns) = merge::configured(&closure, world);
        let (loads, load_unknowns) = load(&loader, &closure, &configured, &reader);
        let is_root = is_root(&self.started);
        let calls = syscalls::of_closure(&mut reader.code, &self.rootfs, &closure, &loads, is_root, progress)?;
        configured.add_acts(&closure, &calls.acts);
        let (exposed, folders) = (&[][..], &touched(&self.started)[..]);
        let seen = Seen { closure: &closure, loads: &loads, calls: &calls, configured: &configured, exposed, folders };
        let needed = capabilities::needed(seen, world);
        let mut unknowns: Vec<Unknown> = closure.unknowns.iter().cloned().chain(load_unknowns).collect();
        unknowns.extend(config_unknowns);
        unknowns.extend(calls.unknowns.iter().cloned());
        if closure.exec.is_empty() {
            let name = command.first().map(|name| dna::redact(name).into_owned()).unwrap_or_default();
            let why = format!("`{name}` is no executable file of the image");
            unknowns.push(Unknown { place: "command line".to_owned(), subject: Subject::Start, why });
        }
        unknowns.sort();
        unknowns.dedup();
        if self.kept.is_damaged() {
            return work_out(&self.image, &self.mounted, &self.limits, progress, &self.kept.anew())?.answer(command);
        }
        self.kept.close();
        // Ports are claimed for the image's own command, not for this one.
        Ok(Answer { behavior: behavior(&closure, &loads, &calls, &configured, &needed, Vec::new(), true), unknowns })
    }
}

/// Revision of the rules that a DNA depends on, beside the version: raised with every change of a table or rule.
const RULES_REVISION: u32 = 11;

/// Names the rules and limits: those on time and memory change no DNA.
pub fn rules(limits: &Limits) -> Result<Digest, Error> {
    let mut limits = serde_json::to_value(limits).map_err(|_| Error::Rules)?;
    if let Some(fields) = limits.as_object_mut() {
        fields.remove("queue_bytes");
        fields.remove("analysis_seconds");
    }
    let named =
        serde_json::json!({ "limits": limits, "revision": RULES_REVISION, "version": env!("CARGO_PKG_VERSION") });
    Ok(Digest::sha256(&dna::canonical_json(&named).map_err(|_| Error::Rules)?))
}

/// The commands a container starts by itself: its own, and its health check, which only Docker runs.
fn launches(image: &Image, started: &Started) -> Vec<Launch> {
    let config = &image.config.config;
    let key = if config.entrypoint.is_empty() { "Cmd" } else { "Entrypoint" };
    let argv: Vec<String> = config.entrypoint.iter().chain(&config.cmd).cloned().collect();
    let own = launch(started, argv, Confidence::Certain, Evidence::Config { key: key.to_owned() });
    let check = start::healthcheck(config)
        .map(|argv| launch(started, argv, Confidence::Possible, Evidence::Config { key: "Healthcheck".to_owned() }));
    [own].into_iter().chain(check).filter(|launch| !launch.argv.is_empty()).collect()
}

fn launch(started: &Started, argv: Vec<String>, confidence: Confidence, evidence: Evidence) -> Launch {
    Launch { argv, env: started.env.clone(), uid: started.start.uid, cwd: started.cwd.clone(), confidence, evidence }
}

fn is_root(started: &Started) -> bool {
    started.start.uid.is_none_or(|uid| uid == 0)
}

type Loads = BTreeMap<ImagePath, Vec<Known<Load>>>;

/// What each executed program maps.
fn load(loader: &Loader<'_>, closure: &Closure, configured: &Configured, reader: &Reader<'_>) -> (Loads, Vec<Unknown>) {
    let (mut loads, mut unknowns) = (Loads::new(), Vec::new());
    for path in closure.exec.keys() {
        let env = closure.env.get(path).into_iter().flatten().cloned().collect();
        let opened = [configured.opened(path), reader.opened(path)].concat();
        let loaded = loader.load_opening(path, &env, &opened);
        loads.insert(path.clone(), loaded.items);
        unknowns.extend(loaded.unknowns);
    }
    (loads, unknowns)
}

/// The nodes of the graph: edges and behavior hung on the programs that the closure reaches.
fn nodes(
    programs: Vec<Program>,
    closure: &Closure,
    loads: &Loads,
    calls: &Calls,
    configured: &Configured,
    needed: &Needed,
) -> Vec<Program> {
    let node = |mut program: Program| {
        program.runs = closure.runs.get(&program.path).cloned().unwrap_or_default();
        program.runs.sort();
        if closure.exec.contains_key(&program.path) {
            let exec = executed_by(&program);
            let load = loads.get(&program.path).cloned().unwrap_or_default();
            let syscalls = calls.programs.get(&program.path).cloned().unwrap_or_default();
            let capabilities = needed.programs.get(&program.path).cloned().unwrap_or_default();
            let completeness = completeness(needed);
            let mut behavior = Behavior { exec, load, syscalls, capabilities, completeness, ..Behavior::default() };
            configured.add_of(&program.path, &mut behavior);
            program.behavior = Some(behavior);
        }
        program
    };
    programs.into_iter().map(node).collect()
}

/// The programs a program executes itself, by its edges.
fn executed_by(program: &Program) -> Vec<Known<Exec>> {
    let item = |run: &dna::Run| Known {
        what: Exec { path: run.program.clone() },
        confidence: run.confidence,
        probability: None,
        when: run.when.clone(),
        evidence: run.evidence.clone(),
    };
    program.runs.iter().filter(|run| run.reason != closure::TOLD).map(item).collect()
}

/// The behavior of a whole container: of every program executed in it.
fn behavior(
    closure: &Closure,
    loads: &Loads,
    calls: &Calls,
    configured: &Configured,
    needed: &Needed,
    exposed: Vec<Known<Listen>>,
    is_linux: bool,
) -> Behavior {
    let mut behavior = Behavior {
        exec: executed(closure),
        load: merge::union(loads, closure),
        syscalls: calls.of_all(closure),
        capabilities: needed.all.clone(),
        completeness: if is_linux { completeness(needed) } else { Completenesses::default() },
        ..Behavior::default()
    };
    configured.add_all(exposed, &mut behavior);
    behavior
}

/// Every program executed, and those that users of sessions may ask for.
fn executed(closure: &Closure) -> Vec<Known<Exec>> {
    let offered = closure.offered.iter().filter(|(path, _)| !closure.exec.contains_key(*path));
    let mut all: Vec<Known<Exec>> = closure.exec.values().chain(offered.map(|(_, item)| item)).cloned().collect();
    all.sort();
    all
}

/// How far this version looks.
fn completeness(needed: &Needed) -> Completenesses {
    let partial = |reason: &str| Completeness::Partial { reason: reason.to_owned() };
    merge::completeness(Completenesses {
        exec: partial("of what programs and scripts execute by themselves, only constants are followed"),
        load: partial(
            "of the libraries that a program opens at run time, only those that constants or configuration name are followed",
        ),
        syscalls: partial("code of libraries not known to be loaded, and code made at run time, is not followed"),
        capabilities: needed.completeness.clone(),
        ..Completenesses::default()
    })
}

/// Ports from `EXPOSE`: claimed, not proven.
fn claimed(start: &dna::Start) -> Vec<Known<Listen>> {
    let item = |port: &dna::ExposedPort| Known {
        what: Listen { protocol: port.protocol, port: port.port, address: None, claimed: true },
        confidence: Confidence::Possible,
        probability: None,
        when: Vec::new(),
        evidence: vec![Evidence::Config { key: "ExposedPorts".to_owned() }],
    };
    let mut items: Vec<_> = start.exposed.iter().map(item).collect();
    items.sort();
    items
}

fn layers(image: &Image, sizes: &[Option<u64>]) -> Vec<Layer> {
    let Contents::Layers(layers) = &image.contents else {
        return vec![Layer { diff_id: None, size: None, created_by: None }];
    };
    let steps = image.config.build_steps(layers.len());
    let layer = |(index, layer): (usize, &oci::Layer)| Layer {
        diff_id: Some(layer.diff_id.clone()),
        size: sizes.get(index).copied().flatten(),
        created_by: steps.get(index).copied().flatten().map(|step| dna::redact(step).into_owned()),
    };
    layers.iter().enumerate().map(layer).collect()
}

/// The folders that a start works in: volumes and its working directory.
fn touched(started: &Started) -> Vec<ImagePath> {
    started.start.volumes.iter().cloned().chain([started.cwd.clone()]).collect()
}

/// Owners and modes of the folders a start touches: its working directory, home and volumes, and where it is expected to write
/// the folder, or the nearest one above it that the image has.
fn folders(rootfs: &Rootfs, started: &Started, written: &[Known<Write>]) -> Vec<Folder> {
    let home = started.env.iter().find(|(name, _)| name == "HOME").and_then(|(_, home)| home.parse::<ImagePath>().ok());
    let mut paths: BTreeSet<ImagePath> =
        started.start.volumes.iter().cloned().chain(home).chain([started.cwd.clone()]).collect();
    let written = written.iter().filter(|item| item.confidence <= Confidence::Likely);
    paths.extend(written.filter_map(|item| nearest(rootfs, item.what.path.folder())));
    let folder = |path: ImagePath| {
        let meta = &rootfs.inode(rootfs.resolve(&path).ok()?.inode).meta;
        Some(Folder { path, uid: meta.uid, gid: meta.gid, mode: meta.mode })
    };
    paths.into_iter().filter_map(folder).collect()
}

fn nearest(rootfs: &Rootfs, folder: ImagePath) -> Option<ImagePath> {
    let mut path = Some(folder);
    while let Some(here) = path {
        if rootfs.resolve(&here).is_ok() {
            return Some(here);
        }
        path = here.parent();
    }
    None
}
