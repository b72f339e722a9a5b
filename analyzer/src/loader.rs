//! The dynamic loader's search: a program and its environment in, the files mapped as code out.
//!
//! glibc's order (ld.so(8), elf/dl-load.c): `DT_RPATH` of the asking object and of those that loaded it, where it has no
//! `DT_RUNPATH`; `LD_LIBRARY_PATH`; `DT_RUNPATH` of the asking object alone; the cache; the default folders. musl's
//! (ldso/dynlink.c): `LD_LIBRARY_PATH`, the paths of the asking object and its loaders, `/etc/ld-musl-ARCH.path` or the
//! default. What a program opens by dlopen(3) is not looked for.

mod cache;
mod search;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use dna::{Confidence, Evidence, ImagePath, Known, Limits, Load, Needed, Subject, Unknown};

use crate::{
    InodeId, Resolved, Rootfs,
    elf::{self, ElfFile},
};
use cache::Cache;
use search::{Found, Kind, Search};

/// Loads programs of one tree; libraries are read once.
#[derive(Debug)]
pub struct Loader<'a> {
    rootfs: &'a Rootfs,
    limits: &'a Limits,
    objects: Mutex<HashMap<InodeId, Result<Arc<ElfFile>, String>>>,
    caches: [OnceLock<Option<Cache>>; 2],
    configured: OnceLock<Vec<String>>,
    default_folders: Mutex<HashMap<InodeId, Arc<Vec<Vec<u8>>>>>,
}

/// What is mapped when a program starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadClosure {
    /// The interpreter and every library, sorted by path.
    pub items: Vec<Known<Load>>,
    /// The program's own needed libraries, in order.
    pub needed: Vec<Needed>,
    /// What was not found or could not be read.
    pub unknowns: Vec<Unknown>,
}

/// An object in the order it is loaded.
struct Object {
    path: ImagePath,
    inode: InodeId,
    elf: Arc<ElfFile>,
    /// The object that asked for it first; none for the program.
    loader: Option<usize>,
    /// The names it was asked for by.
    names: Vec<String>,
    /// How sure it is that it is loaded.
    confidence: Confidence,
}

impl<'a> Loader<'a> {
    /// A loader over a tree.
    pub fn new(rootfs: &'a Rootfs, limits: &'a Limits) -> Self {
        Self {
            rootfs,
            limits,
            objects: Mutex::default(),
            caches: [OnceLock::new(), OnceLock::new()],
            configured: OnceLock::new(),
            default_folders: Mutex::default(),
        }
    }

    /// The facts of an ELF file; none for another file.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn elf(&self, inode: InodeId) -> Result<Option<Arc<ElfFile>>, String> {
        let known = self.objects.lock().unwrap_or_else(PoisonError::into_inner).get(&inode).cloned();
        if let Some(known) = known {
            return known.map(Some);
        }
        let read = match elf::read(self.rootfs, inode) {
            Ok(None) => return Ok(None),
            Ok(Some(file)) => Ok(Arc::new(file)),
            Err(error) => Err(error.to_string()),
        };
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).insert(inode, read.clone());
        read.map(Some)
    }

    /// What the kernel and the loader map for the program at `path` (resolved), run with the variables `env`.
    pub fn load(&self, path: &ImagePath, env: &BTreeMap<String, String>) -> LoadClosure {
        self.load_opening(path, env, &[])
    }

    /// As [`Loader::load`], and what it opens by dlopen(3), each with what that needs in turn.
    pub fn load_opening(
        &self,
        path: &ImagePath,
        env: &BTreeMap<String, String>,
        opened: &[Known<Load>],
    ) -> LoadClosure {
        let mut closure = LoadClosure::default();
        let unknown = |place: &ImagePath, why: String| Unknown {
            place: place.as_bytes().escape_ascii().to_string(),
            subject: Subject::Load,
            why,
        };
        let program = match self.rootfs.resolve(path) {
            Ok(program) => program,
            Err(error) => {
                closure.unknowns.push(unknown(path, error.to_string()));
                return closure;
            }
        };
        let elf = match self.elf(program.inode) {
            Ok(Some(elf)) => elf,
            Ok(None) => return closure,
            Err(why) => {
                closure.unknowns.push(unknown(path, why));
                return closure;
            }
        };
        let Some(interpreter) = elf.facts.interpreter.clone() else { return closure };
        let Ok(loader) = self.rootfs.resolve_from(&ImagePath::root(), interpreter.as_bytes()) else {
            closure.unknowns.push(unknown(&program.path, format!("its interpreter {interpreter} does not exist")));
            closure.needed.clone_from(&elf.facts.needed);
            return closure;
        };
        let mut items: BTreeMap<ImagePath, Known<Load>> = BTreeMap::new();
        let item = |path: &ImagePath, confidence, evidence: Evidence| Known {
            what: Load { path: path.clone() },
            confidence,
            probability: None,
            when: Vec::new(),
            evidence: vec![evidence],
        };
        let evidence = self.evidence(&program, "PT_INTERP".to_owned());
        items.insert(loader.path.clone(), item(&loader.path, Confidence::Certain, evidence));
        let search = Search::new(self, &program, &loader, &elf, &interpreter, env);
        let mut objects = vec![Object {
            path: program.path,
            inode: program.inode,
            elf,
            loader: None,
            names: Vec::new(),
            confidence: Confidence::Certain,
        }];
        // The loader itself satisfies its own name.
        if let Ok(Some(elf)) = self.elf(loader.inode) {
            let names = vec![text(loader.path.file_name()), file_name(&interpreter)];
            let confidence = Confidence::Certain;
            objects.push(Object { path: loader.path, inode: loader.inode, elf, loader: None, names, confidence });
        }
        let (mut at, mut asked) = (0, 0usize);
        // What is sure to be opened first, so that what it needs is as sure.
        let mut opened: Vec<&Known<Load>> = opened.iter().collect();
        opened.sort_by_key(|known| std::cmp::Reverse(known.confidence));
        loop {
            if at == objects.len() {
                let Some(known) = opened.pop() else { break };
                self.open(known, &mut objects, &mut items);
                continue;
            }
            let Some(object) = objects.get(at) else { break };
            let sureness = object.confidence;
            let asks: Vec<(String, String)> = if at == 0 {
                let preloads = search.preloads().into_iter();
                preloads
                    .chain(object.elf.facts.needed.iter().map(|n| (n.name.clone(), "DT_NEEDED".to_owned())))
                    .collect()
            } else {
                object.elf.facts.needed.iter().map(|n| (n.name.clone(), "DT_NEEDED".to_owned())).collect()
            };
            let place = object.path.clone();
            let asker = Resolved { path: object.path.clone(), inode: object.inode };
            for (name, why) in asks {
                asked = asked.saturating_add(1);
                if asked > LOOKUPS {
                    closure.unknowns.push(unknown(&place, "more needed libraries than are looked up".to_owned()));
                    break;
                }
                let is_needed = why == "DT_NEEDED";
                let mut path = None;
                match search.find(&objects, at, &name) {
                    Found::Loaded(index) => {
                        path = objects.get(index).map(|object| object.path.clone());
                    }
                    Found::File { file, elf, by, kind } => {
                        let confidence = match kind {
                            Kind::Sure => Confidence::Certain,
                            Kind::ByProcessor => Confidence::Likely,
                            Kind::Configured => Confidence::Possible,
                        };
                        let confidence = confidence.max(sureness);
                        if kind == Kind::Configured {
                            let why = format!("{name} is in no cache and no default folder; {by} names its folder");
                            closure.unknowns.push(unknown(&place, why));
                        } else {
                            path = Some(file.path.clone());
                        }
                        let evidence = self.evidence(&asker, format!("{why} {name}, {by}"));
                        items.entry(file.path.clone()).or_insert_with(|| item(&file.path, confidence, evidence));
                        let count = objects.len();
                        let known = objects.iter_mut().find(|object| object.inode == file.inode);
                        match known {
                            Some(object) => object.names.push(name.clone()),
                            None if count < OBJECTS => objects.push(Object {
                                path: file.path,
                                inode: file.inode,
                                elf,
                                loader: Some(at),
                                names: vec![name.clone()],
                                confidence: sureness,
                            }),
                            None => {
                                closure.unknowns.push(unknown(&place, "more libraries than are followed".to_owned()))
                            }
                        }
                    }
                    Found::Missing(reason) => closure.unknowns.push(unknown(&place, format!("{name}: {reason}"))),
                }
                if at == 0 && is_needed {
                    closure.needed.push(Needed { name: name.clone(), path });
                }
                for variant in search.variants(&name) {
                    let evidence = self.evidence(&asker, format!("{why} {name}, if the processor is of that level"));
                    items.entry(variant.clone()).or_insert_with(|| item(&variant, Confidence::Possible, evidence));
                }
            }
            at = at.saturating_add(1);
        }
        closure.items = items.into_values().collect();
        closure.unknowns.sort();
        closure.unknowns.dedup();
        closure
    }

    /// Where the loader finds each of some names that a program opens by dlopen(3).
    pub(crate) fn search<'n>(
        &self,
        path: &ImagePath,
        env: &BTreeMap<String, String>,
        names: impl Iterator<Item = &'n str>,
    ) -> Vec<Option<ImagePath>> {
        let program = self.rootfs.resolve(path).ok();
        let elf = program.as_ref().and_then(|program| self.elf(program.inode).ok().flatten());
        let interpreter = elf.as_ref().and_then(|elf| elf.facts.interpreter.clone());
        let loader = interpreter
            .as_ref()
            .and_then(|interpreter| self.rootfs.resolve_from(&ImagePath::root(), interpreter.as_bytes()).ok());
        let (Some(program), Some(elf), Some(interpreter), Some(loader)) = (program, elf, interpreter, loader) else {
            return names.map(|_| None).collect();
        };
        let search = Search::new(self, &program, &loader, &elf, &interpreter, env);
        let (path, inode, confidence) = (program.path, program.inode, Confidence::Certain);
        let objects = [Object { path, inode, elf, loader: None, names: Vec::new(), confidence }];
        let find = |name: &str| match search.find(&objects, 0, name) {
            Found::File { file, .. } => Some(file.path),
            _ => None,
        };
        names.map(find).collect()
    }

    /// Maps a library that the program opens by its path.
    fn open(&self, known: &Known<Load>, objects: &mut Vec<Object>, items: &mut BTreeMap<ImagePath, Known<Load>>) {
        let Ok(found) = self.rootfs.resolve(&known.what.path) else { return };
        if objects.len() >= OBJECTS || objects.iter().any(|object| object.inode == found.inode) {
            return;
        }
        // One of another architecture is refused, and tried again elsewhere: it is not mapped.
        let Ok(Some(elf)) = self.elf(found.inode) else { return };
        let what = Load { path: found.path.clone() };
        items.entry(found.path.clone()).or_insert_with(|| Known { what, ..known.clone() });
        let (path, inode, names) = (found.path, found.inode, Vec::new());
        objects.push(Object { path, inode, elf, loader: Some(0), names, confidence: known.confidence });
    }

    fn evidence(&self, file: &Resolved, detail: String) -> Evidence {
        let layer = Some(self.rootfs.inode(file.inode).meta.layer);
        Evidence::Binary { path: file.path.clone(), offset: None, layer, detail: Some(detail) }
    }

    fn cache(&self, is_little_endian: bool) -> Option<&Cache> {
        let [big, little] = &self.caches;
        let slot = if is_little_endian { little } else { big };
        let read = || {
            let path = "/etc/ld.so.cache".parse().ok()?;
            Cache::parse(&self.rootfs.read_path(&path, self.limits.text_bytes).ok()?, is_little_endian)
        };
        slot.get_or_init(read).as_ref()
    }

    /// A configuration text, where there is one.
    fn read_text(&self, path: &[u8]) -> Option<String> {
        let found = self.rootfs.resolve_from(&ImagePath::root(), path).ok()?;
        let bytes = self.rootfs.read(found.inode, self.limits.text_bytes).ok()?;
        Some(text(&bytes))
    }

    /// glibc's default folders, as the loader's own constants have them: distributions choose them when they build it.
    fn default_folders(&self, loader: InodeId) -> Arc<Vec<Vec<u8>>> {
        let known = self.default_folders.lock().unwrap_or_else(PoisonError::into_inner).get(&loader).cloned();
        if let Some(known) = known {
            return known;
        }
        let bytes = self.rootfs.read_range(loader, 0, LOADER_BYTES).unwrap_or_default();
        let found = Arc::new(search::default_folders(&bytes));
        self.default_folders.lock().unwrap_or_else(PoisonError::into_inner).insert(loader, found.clone());
        found
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    memchr::memchr(0, bytes).and_then(|end| bytes.get(..end)).unwrap_or(bytes)
}

fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Objects of one process: LibreOffice has some 200.
const OBJECTS: usize = 2_000;
/// Names asked for in one process: some tens for each of its objects.
const LOOKUPS: usize = 10_000;
/// Loaders have some 250 KiB.
const LOADER_BYTES: u64 = 4 << 20;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
