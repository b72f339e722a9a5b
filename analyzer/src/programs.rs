//! The nodes of the graph: a tree in, every file of it that can be executed, with its facts, out.
//!
//! The tree is walked once; what may be a program is then read on all cores. Edges and behavior are added by later steps.

pub(crate) mod jar;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use dna::{Digest, ImagePath, Kind, Language, Limits, Program, Script, Subject, Unknown};
use sha2::{Digest as _, Sha256};

use crate::{InodeId, InodeKind, ReadError, Rootfs, filecaps, language, loader::Loader};

/// The programs of an image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Survey {
    /// Sorted by path.
    pub programs: Vec<Program>,
    /// What could not be read, sorted.
    pub unknowns: Vec<Unknown>,
}

/// A regular file with all its names.
struct Candidate {
    /// An interpreter is told to run it: it needs no execute bit.
    is_script: bool,
    inode: InodeId,
    path: ImagePath,
    aliases: BTreeSet<ImagePath>,
}

/// Finds every program of a tree: executable files, and the `scripts` that interpreters are told to run; `owner` gives the
/// package URL of the package that owns a file.
pub fn survey(
    loader: &Loader<'_>,
    rootfs: &Rootfs,
    limits: &Limits,
    scripts: &BTreeSet<ImagePath>,
    owner: impl Fn(&ImagePath) -> Option<String>,
) -> Survey {
    let candidates = candidates(rootfs, scripts);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let work = || {
        let mut mine = Vec::new();
        while let Some(candidate) = candidates.get(next.fetch_add(1, Ordering::Relaxed)) {
            mine.push(examine(loader, rootfs, limits, candidate));
        }
        results.lock().unwrap_or_else(PoisonError::into_inner).extend(mine);
    };
    thread::scope(|scope| {
        for _ in 1..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
        work();
    });
    let mut survey = Survey::default();
    for (program, unknowns) in results.into_inner().unwrap_or_else(PoisonError::into_inner) {
        survey.programs.extend(program.map(|program| Program { package: owner(&program.path), ..program }));
        survey.unknowns.extend(unknowns);
    }
    survey.programs.sort_by(|a, b| a.path.cmp(&b.path));
    survey.unknowns.sort();
    survey.unknowns.dedup();
    survey
}

/// Regular files that are executable, or are named as archives of Java are, with the links that lead to them.
fn candidates(rootfs: &Rootfs, scripts: &BTreeSet<ImagePath>) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut by_inode: HashMap<InodeId, usize> = HashMap::new();
    let mut links = Vec::new();
    for entry in rootfs.walk() {
        let inode = rootfs.inode(entry.inode);
        match &inode.kind {
            InodeKind::Symlink(_) => links.push(entry.path),
            InodeKind::File(_)
                if inode.meta.mode & 0o111 != 0
                    || entry.path.as_bytes().ends_with(b".jar")
                    || scripts.contains(&entry.path) =>
            {
                match by_inode.get(&entry.inode).and_then(|index| found.get_mut(*index)) {
                    Some(candidate) => {
                        candidate.aliases.insert(entry.path);
                    }
                    None => {
                        by_inode.insert(entry.inode, found.len());
                        let is_script = scripts.contains(&entry.path);
                        let (inode, path) = (entry.inode, entry.path);
                        found.push(Candidate { is_script, inode, path, aliases: BTreeSet::new() });
                    }
                }
            }
            _ => {}
        }
    }
    for link in links {
        let Ok(target) = rootfs.resolve(&link) else { continue };
        if let Some(candidate) = by_inode.get(&target.inode).and_then(|index| found.get_mut(*index)) {
            candidate.aliases.insert(link);
        }
    }
    found
}

fn examine(
    loader: &Loader<'_>,
    rootfs: &Rootfs,
    limits: &Limits,
    candidate: &Candidate,
) -> (Option<Program>, Vec<Unknown>) {
    let mut unknowns = Vec::new();
    let place = candidate.path.as_bytes().escape_ascii().to_string();
    let mut unknown = |why: String| unknowns.push(Unknown { place: place.clone(), subject: Subject::Program, why });
    let kind = match kind_of(loader, rootfs, limits, candidate) {
        Ok(kind) => kind,
        Err(why) => {
            unknown(why);
            // The kernel would try it all the same: a node without facts.
            Some((Kind::Other, None))
        }
    };
    let Some((kind, language)) = kind else { return (None, unknowns) };
    let (Some(file), meta) = (rootfs.file(candidate.inode), &rootfs.inode(candidate.inode).meta) else {
        return (None, unknowns);
    };
    let sha256 = match file.sha256.map_or_else(|| hash(rootfs, candidate.inode, file.size), Ok) {
        Ok(sha256) => Digest::from_sha256(sha256),
        Err(error) => {
            unknown(format!("no node without its digest: {error}"));
            return (None, unknowns);
        }
    };
    let capabilities = meta.xattrs.get(b"security.capability".as_slice()).and_then(|value| {
        let read = filecaps::read_capabilities(value);
        if read.is_none() {
            unknown("security.capability of an unknown form".to_owned());
        }
        read
    });
    let program = Program {
        path: candidate.path.clone(),
        sha256,
        size: file.size,
        layer: meta.layer,
        package: None,
        aliases: candidate.aliases.clone(),
        uid: meta.uid,
        gid: meta.gid,
        mode: meta.mode,
        capabilities,
        kind,
        language,
        runs: Vec::new(),
        behavior: None,
    };
    (Some(program), unknowns)
}

/// What a file is; none for one that is no program.
fn kind_of(
    loader: &Loader<'_>,
    rootfs: &Rootfs,
    limits: &Limits,
    candidate: &Candidate,
) -> Result<Option<(Kind, Option<Language>)>, String> {
    let head = rootfs.read_range(candidate.inode, 0, SHEBANG_BYTES).map_err(|error| error.to_string())?;
    let is_executable = rootfs.inode(candidate.inode).meta.mode & 0o111 != 0;
    if head.starts_with(b"PK\x03\x04") {
        let main_class = jar::main_class(rootfs, candidate.inode, limits).map_err(|error| error.to_string())?;
        let language = Language { name: "java".to_owned(), version: None, module: None };
        return Ok(main_class.map(|main_class| (Kind::Jar { main_class }, Some(language))));
    }
    if !is_executable && !candidate.is_script {
        return Ok(None);
    }
    if head.starts_with(b"\x7fELF") {
        let Some(elf) = loader.elf(candidate.inode)?.filter(|elf| elf.is_program) else { return Ok(None) };
        let mut facts = elf.facts.clone();
        if facts.interpreter.is_some() {
            facts.needed = loader.load(&candidate.path, &BTreeMap::new()).needed;
        }
        return Ok(Some((Kind::Elf(Box::new(facts)), language::of_elf(&elf))));
    }
    if let Some(line) = head.strip_prefix(b"#!") {
        let shebang = split_shebang(line);
        let language = language::of_shebang(&shebang);
        return Ok(Some((Kind::Script(Script { shebang }), language)));
    }
    if candidate.is_script {
        return Ok(Some((Kind::Script(Script::default()), None)));
    }
    // execvp(3) hands a text that the kernel refuses to the shell; anything else cannot be started.
    let is_text =
        !head.is_empty() && !head.iter().any(|byte| *byte == 0 || (*byte < 32 && !byte.is_ascii_whitespace()));
    Ok(is_text.then_some((Kind::Other, None)))
}

/// The words of a `#!` line as the kernel splits it, binfmt_script.c: the interpreter, and the rest as one argument.
pub(crate) fn split_shebang(line: &[u8]) -> Vec<String> {
    let line = line.split(|b| matches!(b, b'\n' | 0)).next().unwrap_or_default();
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = line.get(line.iter().position(|byte| !is_space(byte)).unwrap_or(line.len())..).unwrap_or_default();
    let line = line.get(..line.iter().rposition(|byte| !is_space(byte)).map_or(0, |end| end.saturating_add(1)));
    let line = line.unwrap_or_default();
    let (word, rest) = line.split_at(line.iter().position(is_space).unwrap_or(line.len()));
    let rest = rest.get(rest.iter().position(|byte| !is_space(byte)).unwrap_or(rest.len())..).unwrap_or_default();
    let words = [word, rest].into_iter().filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn hash(rootfs: &Rootfs, inode: InodeId, size: u64) -> Result<[u8; 32], ReadError> {
    let mut hash = Sha256::new();
    let mut offset = 0;
    while offset < size {
        let chunk = rootfs.read_range(inode, offset, HASH_BYTES)?;
        if chunk.is_empty() {
            break;
        }
        hash.update(&chunk);
        offset = offset.saturating_add(chunk.len() as u64);
    }
    Ok(hash.finalize().into())
}

/// BINPRM_BUF_SIZE: what the kernel reads of a `#!` line.
const SHEBANG_BYTES: u64 = 256;
const HASH_BYTES: u64 = 1 << 20;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
