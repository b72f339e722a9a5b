//! What compiled code can do: the files that a process maps in, the system calls their reachable code makes out.
//!
//! ```text
//! ELF file ─► binary ─► module (functions, objects, edges, sites) ─┐
//! ELF file ─► binary ─► module ────────────────────────────────────┼─► link ─► reached ─► syscalls
//! ELF file ─► binary ─► module ────────────────────────────────────┘
//! ```
//!
//! A module is worked out once for a file, whatever processes map it. Nothing is executed, and no path through the code is
//! evaluated: what can be reached counts as done, and how indirectly it is reached is its distance.

mod aarch64;
mod asks;
mod binary;
mod depth;
mod golang;
mod insn;
mod link;
mod loops;
mod module;
mod numbers;
mod serving;
mod sites;
mod tables;
mod values;
mod x86;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZero,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use dna::{Digest, ImagePath, Limits};

use crate::{
    InodeId, InodeKind, Progress, Rootfs,
    elf::ElfError,
    kept::Kept,
    words::{self, Words},
};
pub(crate) use asks::Asked;
use binary::Binary;
use depth::Depths;
use link::{Place, Process, Reached};
use module::Module;
use serving::Serving;
use sites::Site;
pub(crate) use sites::{Argument, RUNNERS};

/// The code of an image, file by file, each worked out when it is first asked for.
#[derive(Debug)]
pub(crate) struct Code<'a> {
    rootfs: &'a Rootfs,
    limits: &'a Limits,
    kept: &'a Kept,
    modules: BTreeMap<InodeId, Summary>,
    /// Processes worked out, by their files and names; they are asked about more than once.
    reached: BTreeMap<(Vec<ImagePath>, BTreeSet<String>), Arc<Reach>>,
    nodes: usize,
    /// The words of Python's sources, once a process asks.
    words: Option<Option<Arc<Words>>>,
}

/// The summary of a file, none where it is no ELF file of a machine we decode; or why there is none.
type Summary = Result<Option<Arc<Module>>, String>;

/// Why a file's code is not worked out.
#[derive(Debug, thiserror::Error)]
enum CodeError {
    #[error(transparent)]
    Elf(#[from] ElfError),
    #[error("it has {bytes} bytes (limit code_bytes: {limit})")]
    Size { bytes: u64, limit: u64 },
    #[error("it has more than six million instructions that matter")]
    Code,
}

/// What the code of a process can do.
#[derive(Debug)]
pub(crate) struct Reach {
    process: Process,
    reached: Reached,
    /// What is reached without despair.
    calm: Reached,
    /// The files, in the order of the process's modules.
    pub(crate) files: Vec<ImagePath>,
}

/// How a system call is reached in one process.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Call {
    /// The shortest distance to a place that makes it.
    pub(crate) distance: u32,
    /// The same, with no way through a function that ends the program in despair.
    pub(crate) calm_distance: Option<u32>,
    /// The program's own file binds to a function of this name.
    pub(crate) is_imported: bool,
    /// The files outside the C library that do.
    pub(crate) importers: u16,
    /// Reached places that make it, and those outside the C library.
    pub(crate) sites: u16,
    pub(crate) own_sites: u16,
    /// Steps inside the C library from what the program's own code asks it for, and from what any file's code does; with no way
    /// through despair.
    pub(crate) program_depth: Option<u16>,
    pub(crate) any_depth: Option<u16>,
    /// A loop that waits for events may lead to it; none where there is no such loop.
    pub(crate) is_served: Option<bool>,
    /// The nearest place: the file's number, the offset of the instruction, the function.
    pub(crate) nearest: Option<Nearest>,
    /// The same in the process.
    place: Option<Place>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nearest {
    pub(crate) file: ImagePath,
    pub(crate) offset: u64,
    pub(crate) function: Option<String>,
}

/// The names of all system calls.
#[cfg(test)]
pub(crate) fn call_names() -> BTreeSet<&'static str> {
    numbers::names()
}

/// What reachable code asks a function of interest for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Act {
    /// The function's name, as in `open`, `execve`, `socket`.
    pub(crate) name: String,
    pub(crate) arguments: Vec<Argument>,
    /// How it is reached.
    pub(crate) way: Way,
}

/// A text that reachable code or data names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Named {
    pub(crate) text: String,
    pub(crate) way: Way,
}

/// How a place is reached in one process.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Way {
    /// The same as in [`Call`].
    pub(crate) calm_distance: Option<u32>,
    /// It is in the program's own file.
    pub(crate) is_own: bool,
    pub(crate) place: Nearest,
}

/// Functions that end a program in despair; what only they reach is not expected.
const FATAL: &[&str] = &["abort", "__assert_fail", "__stack_chk_fail", "__chk_fail", "__fortify_fail", "__libc_fatal"];

impl<'a> Code<'a> {
    pub(crate) fn new(rootfs: &'a Rootfs, limits: &'a Limits, kept: &'a Kept) -> Self {
        Self { rootfs, limits, kept, modules: BTreeMap::new(), reached: BTreeMap::new(), nodes: 0, words: None }
    }

    fn module(&mut self, inode: InodeId) -> Summary {
        let (rootfs, limits, kept) = (self.rootfs, self.limits, self.kept);
        self.modules.entry(inode).or_insert_with(|| summary(rootfs, inode, limits, kept)).clone()
    }

    /// Works the summaries of files out beforehand, as many at once as there are processors and memory should be given to, the
    /// largest first. It stops where time is up.
    pub(crate) fn prepare<'p>(&mut self, files: impl Iterator<Item = &'p ImagePath>, progress: &Progress) {
        let (rootfs, limits, kept) = (self.rootfs, self.limits, self.kept);
        let inodes: BTreeSet<InodeId> =
            files.filter_map(|file| rootfs.resolve(file).ok()).map(|found| found.inode).collect();
        let size = |inode: &InodeId| rootfs.file(*inode).map_or(0, |file| file.size);
        let unknown = inodes.into_iter().filter(|inode| !self.modules.contains_key(inode));
        let mut work: Vec<(u64, InodeId)> = unknown.map(|inode| (size(&inode), inode)).collect();
        work.sort_unstable();
        let workers = thread::available_parallelism().map_or(1, NonZero::get).min(work.len());
        let (work, gate) = (Mutex::new(work), Gate::default());
        let next = || lock(&work).pop().filter(|_| progress.check().is_ok());
        let worker = || {
            let mut done = Vec::new();
            while let Some((bytes, inode)) = next() {
                gate.enter(bytes);
                done.push((inode, summary(rootfs, inode, limits, kept)));
                gate.leave(bytes);
            }
            done
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
            for thread in threads {
                self.modules.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
        });
    }

    /// What a process that maps these files can reach, the program first, which is called by the given names. Files that cannot
    /// be decoded are left out, and named with the reason.
    pub(crate) fn reach(
        &mut self,
        files: impl IntoIterator<Item = ImagePath>,
        called: BTreeSet<String>,
    ) -> (Arc<Reach>, Vec<(ImagePath, String)>) {
        let (mut modules, mut names, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for file in files {
            let Ok(found) = self.rootfs.resolve(&file) else { continue };
            match self.module(found.inode) {
                Ok(Some(module)) => {
                    modules.push(module);
                    names.push(file);
                }
                Ok(None) => {}
                Err(why) => failed.push((file, why)),
            }
        }
        // Which name it is called by matters only to a program that looks its own functions up by it.
        let is_lookup = modules.first().is_some_and(|module: &Arc<Module>| !module.tables.is_empty());
        let called = if is_lookup { called } else { BTreeSet::new() };
        let key = (names, called);
        if let Some(known) = self.reached.get(&key) {
            return (known.clone(), failed);
        }
        let nodes: usize = modules.iter().map(|module| module.edges.len()).sum();
        let is_python = modules.iter().any(|module| !module.python.is_empty());
        let words = || words::python(self.rootfs).map(Arc::new);
        let words = if is_python { self.words.get_or_insert_with(words).clone() } else { None };
        let process = Process::new(modules, key.1.clone(), words);
        let (reached, calm) = thread::scope(|scope| {
            let calm = scope.spawn(|| process.reach(FATAL));
            let reached = process.reach(&[]);
            (reached, calm.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let reach = Arc::new(Reach { process, reached, calm, files: key.0.clone() });
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MAX_KEPT_NODES {
            self.reached.insert(key, reach.clone());
        }
        (reach, failed)
    }
}

/// Holds back whoever would work on too many bytes of files at once; a file larger than that is worked on alone.
#[derive(Debug, Default)]
struct Gate {
    bytes: Mutex<u64>,
    left: Condvar,
}

impl Gate {
    fn enter(&self, bytes: u64) {
        let mut inside = lock(&self.bytes);
        while *inside != 0 && inside.saturating_add(bytes) > BYTES_AT_ONCE {
            inside = self.left.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        *inside = inside.saturating_add(bytes);
    }

    fn leave(&self, bytes: u64) {
        let mut inside = lock(&self.bytes);
        *inside = inside.saturating_sub(bytes);
        self.left.notify_all();
    }
}

/// A file's decoded code takes three to four times its bytes.
const BYTES_AT_ONCE: u64 = 24 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The summary of a file: the one that was kept, else worked out, and kept.
fn summary(rootfs: &Rootfs, inode: InodeId, limits: &Limits, kept: &Kept) -> Summary {
    let digest = rootfs.file(inode).and_then(|file| file.sha256).map(|digest| Digest::from_sha256(digest).to_string());
    let name = digest.map(|digest| kept.name("code", &[&digest]));
    if let Some((known, _)) = name.as_ref().and_then(|name| kept.load::<Module>(name)) {
        return Ok(Some(Arc::new(known)));
    }
    let found = summarize(rootfs, inode, limits).map_err(|error| error.to_string())?;
    // Some step may have taken a damaged body for an empty one.
    if !kept.is_damaged()
        && let Some(((name, file), module)) = name.zip(kept.file()).zip(found.as_deref())
    {
        kept.keep(&name, file, (0, &[]), module);
    }
    Ok(found)
}

/// Works a file out.
fn summarize(rootfs: &Rootfs, inode: InodeId, limits: &Limits) -> Result<Option<Arc<Module>>, CodeError> {
    if let InodeKind::File(file) = &rootfs.inode(inode).kind
        && file.size > limits.code_bytes
    {
        return Err(CodeError::Size { bytes: file.size, limit: limits.code_bytes });
    }
    let Some(binary) = Binary::read(rootfs, inode)? else { return Ok(None) };
    Ok(Some(Arc::new(module::summarize(&binary).ok_or(CodeError::Code)?)))
}

impl Reach {
    /// The program is Go's own: its runtime starts it.
    pub(crate) fn is_go(&self) -> bool {
        let functions = self.process.modules.first().map(|module| module.functions.as_slice()).unwrap_or_default();
        functions.iter().any(|function| function.name.as_deref() == Some("runtime.main"))
    }

    /// The program brings its C library along, or has none.
    pub(crate) fn is_alone(&self) -> bool {
        self.process.modules.len() == 1
    }

    /// The program is x86-64 code.
    pub(crate) fn is_x86(&self) -> bool {
        self.process.modules.first().is_some_and(|module| module.machine == insn::Machine::X86_64)
    }

    /// No file of the process could be decoded.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The system calls that reachable code makes, by name; and how many places are open.
    pub(crate) fn syscalls(&self) -> (BTreeMap<&'static str, Call>, Vec<Nearest>) {
        let mut calls = BTreeMap::<&'static str, Call>::new();
        let mut open = Vec::new();
        let depths = Depths::of(&self.process, &self.calm);
        let serving = Serving::of(&self.process, &self.calm);
        let note = |calls: &mut BTreeMap<&'static str, Call>, name, place, at, distance| {
            self.note(calls, (&depths, serving.as_ref()), name, place, at, distance);
        };
        for (index, module) in self.process.modules.iter().enumerate() {
            for (node, sites) in &module.sites {
                let place: Place = (index, *node);
                let Some(step) = self.reached.step(place) else { continue };
                let is_asked = |site: &&Site| self.reached.is_scheduled || !module.scheduling.places.contains(&site.at);
                for site in sites.iter().filter(is_asked) {
                    if site.is_open {
                        open.extend(self.nearest(place, site.at));
                    }
                    for number in &site.numbers {
                        let name = if site.is_32_bit {
                            numbers::name_32_bit(*number)
                        } else {
                            numbers::name(module.machine, *number)
                        };
                        let Some(name) = name else { continue };
                        note(&mut calls, name, place, site.at, step.distance);
                    }
                }
            }
            for call in module.calls.iter().filter(|call| call.name == "syscall") {
                let place: Place = (index, call.node);
                let Some(step) = self.reached.step(place) else { continue };
                match call.arguments.first().and_then(Argument::numbers) {
                    Some(numbers) => {
                        for number in numbers {
                            let number = u32::try_from(*number).ok();
                            let name = number.and_then(|number| numbers::name(module.machine, number));
                            let Some(name) = name else { continue };
                            note(&mut calls, name, place, call.at, step.distance.saturating_add(1));
                        }
                    }
                    None => open.extend(self.nearest(place, call.at)),
                }
            }
        }
        // The kernel's return from a signal handler goes through a trampoline that only the kernel's frame names.
        if calls.contains_key("rt_sigaction") && !calls.contains_key("rt_sigreturn") {
            let call = calls.get("rt_sigaction").cloned().unwrap_or_default();
            calls.insert("rt_sigreturn", call);
        }
        // Signals come at any time.
        if let Some(call) = calls.get_mut("rt_sigreturn") {
            call.is_served = call.is_served.map(|_| true);
        }
        if let Some(program) = self.process.modules.first() {
            let imported: BTreeSet<&str> = program.imports.iter().map(String::as_str).collect();
            for (name, call) in &mut calls {
                call.is_imported = imported.contains(name);
            }
        }
        for module in self.process.modules.iter().filter(|module| !depth::is_c_library(module)) {
            for name in &module.imports {
                if let Some(call) = calls.get_mut(name.as_str()) {
                    call.importers = call.importers.saturating_add(1);
                }
            }
        }
        (calls, open)
    }

    /// What reachable code asks functions of interest for; the C library's own calls say nothing about the program.
    pub(crate) fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        for (index, module) in self.modules_but_libc() {
            for call in module.calls.iter().filter(|call| call.name != "syscall") {
                let Some(way) = self.way_to((index, call.node), call.at) else { continue };
                acts.push(Act { name: call.name.clone(), arguments: call.arguments.clone(), way });
            }
        }
        acts
    }

    /// The paths that reachable code and data name; `*` stands for what a format fills in.
    pub(crate) fn paths(&self) -> Vec<Named> {
        self.named(|module| &module.paths)
    }

    /// The command lines of a shell that reachable code and data name, as they stand there, with the conversions of a format.
    pub(crate) fn lines(&self) -> Vec<Named> {
        self.named(|module| &module.lines)
    }

    fn named(&self, texts: impl Fn(&Module) -> &[sites::Named]) -> Vec<Named> {
        let mut found = Vec::new();
        for (index, module) in self.modules_but_libc() {
            for named in texts(module) {
                let Some(way) = self.way_to((index, named.node), named.at) else { continue };
                found.push(Named { text: named.text.clone(), way });
            }
        }
        found
    }

    /// Whether some file but the C library binds to a function of this name.
    pub(crate) fn binds(&self, name: &str) -> bool {
        self.modules_but_libc().any(|(_, module)| module.imports.iter().any(|import| import == name))
    }

    fn modules_but_libc(&self) -> impl Iterator<Item = (usize, &Arc<Module>)> {
        self.process.modules.iter().enumerate().filter(|(_, module)| !module.exports.contains_key("execve"))
    }

    fn way_to(&self, place: Place, at: u64) -> Option<Way> {
        self.reached.step(place)?;
        let calm_distance = self.calm.step(place).map(|step| step.distance);
        let found = match self.nearest(place, at) {
            Some(found) => found,
            // A data object.
            None => Nearest { file: self.files.get(place.0)?.clone(), offset: 0, function: None },
        };
        Some(Way { calm_distance, is_own: place.0 == 0, place: found })
    }

    fn note(
        &self,
        calls: &mut BTreeMap<&'static str, Call>,
        (depths, serving): (&Depths, Option<&Serving>),
        name: &'static str,
        place: Place,
        at: u64,
        distance: u32,
    ) {
        let call = calls.entry(name).or_insert_with(|| Call { distance: u32::MAX, ..Call::default() });
        call.sites = call.sites.saturating_add(1);
        if !self.process.modules.get(place.0).is_some_and(|module| depth::is_c_library(module)) {
            call.own_sites = call.own_sites.saturating_add(1);
        }
        let (program, any) = depths.at(place);
        call.program_depth = nearer(call.program_depth, program);
        call.any_depth = nearer(call.any_depth, any);
        call.is_served = serving.map(|serving| call.is_served == Some(true) || serving.leads_to(place));
        if let Some(calm) = self.calm.step(place) {
            let calm = calm.distance;
            call.calm_distance = Some(call.calm_distance.map_or(calm, |known| known.min(calm)));
        }
        if distance < call.distance {
            call.distance = distance;
            call.nearest = self.nearest(place, at);
            call.place = Some(place);
        }
    }

    /// The calls from the start of the process to the function that makes a system call, and the instruction there.
    pub(crate) fn way(&self, name: &str) -> Vec<Nearest> {
        let (mut calls, _) = self.syscalls();
        let Some(call) = calls.remove(name) else { return Vec::new() };
        let Some(to) = call.place else { return Vec::new() };
        let avoided = if call.calm_distance.is_some() { FATAL } else { &[] };
        let mut way = self.process.way(to, avoided);
        if way.is_empty() {
            way = self.process.way(to, &[]);
        }
        let function = |place: &Place| {
            let at = self.process.modules.get(place.0)?.functions.get(place.1 as usize)?.at;
            self.nearest(*place, at)
        };
        let mut steps: Vec<Nearest> = way.iter().filter_map(function).collect();
        // In the last function, the instruction itself.
        if let (Some(last), Some(nearest)) = (steps.last_mut(), call.nearest) {
            *last = nearest;
        }
        steps
    }

    fn nearest(&self, place: Place, at: u64) -> Option<Nearest> {
        let function = self.process.modules.get(place.0)?.functions.get(place.1 as usize)?;
        Some(Nearest {
            file: self.files.get(place.0)?.clone(),
            offset: function.offset.saturating_add(at.saturating_sub(function.at)),
            function: function.name.clone(),
        })
    }
}

/// Functions and objects of the processes kept, each with two distances of eight bytes.
const MAX_KEPT_NODES: usize = 1_500_000;

fn nearer(one: Option<u16>, other: Option<u16>) -> Option<u16> {
    one.into_iter().chain(other).min()
}

/// Reads any bytes as the code of a file, for fuzzing: how many system calls it makes.
pub fn count_calls(bytes: &[u8]) -> usize {
    let (rootfs, inode) = Rootfs::of_bytes(bytes);
    let limits = Limits::default();
    let kept = Kept::default();
    let module = Code::new(&rootfs, &limits, &kept).module(inode).ok().flatten();
    let process = Process::new(module.into_iter().collect(), BTreeSet::new(), None);
    let reached = process.reach(FATAL);
    Reach { calm: process.reach(&[]), process, reached, files: vec![ImagePath::root()] }.syscalls().0.len()
}

#[cfg(test)]
mod tests;
