//! The system calls of a container: the programs it executes and what each maps in, the calls of each out.
//!
//! Every call that reachable code makes is *possible*: no larger set is needed, as far as the code can be followed. A call is
//! *likely* where the program's own file asks the C library for it, or where few steps lead to it that do not end the program in
//! despair.

use std::collections::{BTreeMap, BTreeSet};

use dna::{Arguments, Confidence, Evidence, ImagePath, Known, Load, Subject, Syscall, Unknown};

use crate::{
    Error, Progress, Rootfs,
    acts::{self, Acts},
    closure::Closure,
    code::{Asked, Call, Code, Nearest},
    constants,
    expect::{self, Traits},
    phases,
};

/// What the code of the executed programs does.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// By program.
    pub(crate) programs: BTreeMap<ImagePath, Vec<Known<Syscall>>>,
    /// Those that a program's own file asks for: it imports the function, or makes the call itself close by.
    pub(crate) asked: BTreeMap<ImagePath, BTreeSet<String>>,
    /// What they do by constants, by program.
    pub(crate) acts: BTreeMap<ImagePath, Acts>,
    /// How the code leads to them.
    pub(crate) traits: Vec<expect::Program>,
    pub(crate) unknowns: BTreeSet<Unknown>,
}

impl Calls {
    /// The calls of all programs together: what to expect of a container is judged of them as a whole.
    pub(crate) fn of_all(&self, closure: &Closure) -> Vec<Known<Syscall>> {
        let sureness = |path: &ImagePath| closure.exec.get(path).map_or(Confidence::Possible, |exec| exec.confidence);
        let mut all = phases::union(&self.programs, closure.runs.values().flatten(), sureness);
        expect::judge(&self.traits, &mut all);
        all
    }
}

/// The calls of every program executed.
///
/// # Errors
/// Time ran out.
pub(crate) fn of_closure(
    code: &mut Code<'_>,
    rootfs: &Rootfs,
    closure: &Closure,
    loads: &BTreeMap<ImagePath, Vec<Known<Load>>>,
    is_root: bool,
    progress: &Progress,
) -> Result<Calls, Error> {
    let mut calls = Calls::default();
    let mapped = |path| loads.get(path).into_iter().flatten().map(|load| &load.what.path);
    code.prepare(closure.exec.keys().flat_map(|path| std::iter::once(path).chain(mapped(path))), progress);
    for (path, exec) in &closure.exec {
        progress.check()?;
        let loaded = loads.get(path).into_iter().flatten().map(|load| load.what.path.clone());
        let (reach, failed) = code.reach([path.clone()].into_iter().chain(loaded), closure.called(path));
        for (file, why) in failed {
            let why = format!("its code cannot be read: {why}");
            calls.unknowns.insert(Unknown { place: place(&file), subject: Subject::Syscalls, why });
        }
        if reach.is_empty() {
            continue;
        }
        calls.acts.insert(path.clone(), acts::of_reach(&reach, rootfs));
        let (found, open) = reach.syscalls();
        let more = open.len().saturating_sub(MAX_OPEN);
        if more != 0 {
            let why = format!("{more} more system calls whose number could not be found");
            calls.unknowns.insert(Unknown { place: place(path), subject: Subject::Syscalls, why });
        }
        for nearest in open.into_iter().take(MAX_OPEN) {
            let function = nearest.function.as_deref().unwrap_or("a function without a name");
            let why =
                format!("a system call in {function} at offset {:#x} whose number could not be found", nearest.offset);
            calls.unknowns.insert(Unknown { place: place(&nearest.file), subject: Subject::Syscalls, why });
        }
        let program = expect::Program {
            path: path.clone(),
            confidence: exec.confidence,
            is_go: reach.is_go(),
            is_alone: reach.is_alone(),
            is_x86: reach.is_x86(),
            is_root,
            calls: found.iter().map(|(name, call)| (*name, traits(call))).collect(),
        };
        let asked = reach.asked();
        let told = |name: &str| asked.get(name).and_then(|asked: &Asked| constants::arguments(name, asked));
        let mut list: Vec<Known<Syscall>> =
            found.iter().map(|(name, call)| item(name, call, told(name), rootfs)).collect();
        // What starts the program is a call itself.
        if !found.contains_key(STARTS) {
            let evidence =
                Evidence::Binary { path: path.clone(), offset: None, layer: rootfs.layer_of(path), detail: None };
            let what = Syscall { name: STARTS.to_owned(), arguments: None, phase: phases::of_start(&found) };
            list.push(Known {
                what,
                confidence: Confidence::Certain,
                probability: None,
                when: Vec::new(),
                evidence: vec![evidence],
            });
            list.sort();
        }
        expect::judge(std::slice::from_ref(&program), &mut list);
        calls.traits.push(program);
        calls.programs.insert(path.clone(), list);
        let asks = |call: &Call| {
            let is_own = call.nearest.as_ref().is_some_and(|nearest| nearest.file == *path);
            call.is_imported || (is_own && call.calm_distance.is_some_and(|distance| distance <= NEAR))
        };
        let asked = found.iter().filter(|(_, call)| asks(call)).map(|(name, _)| (*name).to_owned());
        calls.asked.insert(path.clone(), asked.collect());
    }
    Ok(calls)
}

fn item(name: &str, call: &Call, arguments: Option<Arguments>, rootfs: &Rootfs) -> Known<Syscall> {
    let evidence = call.nearest.as_ref().map(|Nearest { file, offset, function }| Evidence::Binary {
        path: file.clone(),
        offset: Some(*offset),
        layer: rootfs.layer_of(file),
        detail: function.as_deref().map(|function| dna::redact(function).into_owned()),
    });
    let is_near = call.calm_distance.is_some_and(|distance| distance <= NEAR);
    let confidence = match name {
        STARTS => Confidence::Certain,
        _ if call.is_imported || is_near => Confidence::Likely,
        _ => Confidence::Possible,
    };
    let what = Syscall { name: name.to_owned(), arguments, phase: phases::of_call(call) };
    Known { what, confidence, probability: None, when: Vec::new(), evidence: evidence.into_iter().collect() }
}

fn traits(call: &Call) -> Traits {
    Traits {
        distance: call.distance,
        calm_distance: call.calm_distance,
        is_imported: call.is_imported,
        importers: call.importers,
        sites: call.sites,
        own_sites: call.own_sites,
        program_depth: call.program_depth,
        any_depth: call.any_depth,
        programs: 0,
    }
}

fn place(path: &ImagePath) -> String {
    path.as_bytes().escape_ascii().to_string()
}

/// The call that starts every program.
const STARTS: &str = "execve";
/// Among the programs whose calls the kernel recorded, a call no farther than this is made in six cases of ten.
const NEAR: u32 = 10;
/// Open places named for one program.
const MAX_OPEN: usize = 50;
