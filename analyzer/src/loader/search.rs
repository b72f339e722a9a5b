//! Where a loader looks for one name: the objects loaded so far in, the file it takes out.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use dna::ImagePath;

use super::{Loader, Object, file_name, text};
use crate::{Resolved, elf::ElfFile};

/// One program's search.
pub(super) struct Search<'a> {
    loader: &'a Loader<'a>,
    program: Arc<ElfFile>,
    is_musl: bool,
    is_secure: bool,
    library_path: Vec<String>,
    preload: String,
    default_folders: Vec<Vec<u8>>,
    lib: String,
    tries_left: Cell<u32>,
}

/// The outcome for one name.
pub(super) enum Found {
    /// An object that is loaded already, by its place.
    Loaded(usize),
    /// A file.
    File { file: Resolved, elf: Arc<ElfFile>, by: String, kind: Kind },
    /// None, and why.
    Missing(String),
}

/// How sure a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// By the image alone.
    Sure,
    /// Unless the processor is of a level that has a variant.
    ByProcessor,
    /// Only after ldconfig(8) has run.
    Configured,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        loader: &'a Loader<'a>,
        program: &Resolved,
        interpreter: &Resolved,
        elf: &Arc<ElfFile>,
        interpreter_name: &str,
        env: &BTreeMap<String, String>,
    ) -> Self {
        let meta = &loader.rootfs.inode(program.inode).meta;
        let is_secure = meta.mode & 0o6000 != 0 || meta.xattrs.contains_key(b"security.capability".as_slice());
        let musl = file_name(interpreter_name)
            .strip_prefix("ld-musl-")
            .map(|rest| rest.split('.').next().unwrap_or_default().to_owned());
        let variable = |name: &str| env.get(name).filter(|_| !is_secure).cloned().unwrap_or_default();
        let library_path = match variable("LD_LIBRARY_PATH") {
            text if text.is_empty() => Vec::new(),
            text => text.split([':', ';']).map(str::to_owned).collect(),
        };
        let default_folders = match &musl {
            Some(architecture) => {
                let path = format!("/etc/ld-musl-{architecture}.path");
                let list = loader.read_text(path.as_bytes()).unwrap_or_else(|| MUSL_FOLDERS.to_owned());
                let folders = list.split(['\n', ':']).filter(|folder| !folder.is_empty());
                folders.map(|folder| folder.as_bytes().to_vec()).collect()
            }
            None => loader.default_folders(interpreter.inode).to_vec(),
        };
        let lib = default_folders.first().map(|folder| text(folder).trim_matches('/').to_owned());
        Self {
            loader,
            program: elf.clone(),
            is_musl: musl.is_some(),
            is_secure,
            library_path,
            preload: variable("LD_PRELOAD"),
            default_folders,
            lib: lib.unwrap_or_else(|| "lib".to_owned()),
            tries_left: Cell::new(TRIES),
        }
    }

    /// What is loaded before everything, with where that is said.
    pub(super) fn preloads(&self) -> Vec<(String, String)> {
        let words = |list: &str, by: &str| -> Vec<(String, String)> {
            let words = list.split([' ', ':', '\t', '\n']).filter(|word| !word.is_empty());
            words.take(PRELOADS).map(|word| (word.to_owned(), by.to_owned())).collect()
        };
        let mut all = words(&self.preload, "LD_PRELOAD");
        if !self.is_musl {
            let list = self.loader.read_text(b"/etc/ld.so.preload").unwrap_or_default();
            let uncommented: String =
                list.lines().map(|line| line.split('#').next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
            all.extend(words(&uncommented, "/etc/ld.so.preload"));
        }
        all
    }

    /// What the loader takes for `name`, asked for by the object at `asker`.
    pub(super) fn find(&self, objects: &[Object], asker: usize, name: &str) -> Found {
        if name.is_empty() {
            return Found::Missing("an empty name".to_owned());
        }
        let is_loaded = |object: &Object| {
            object.names.iter().any(|known| known == name)
                || (!self.is_musl && object.elf.soname.as_deref() == Some(name))
        };
        // The program itself answers to no name.
        if let Some(index) = objects.iter().skip(1).position(is_loaded) {
            return Found::Loaded(index.saturating_add(1));
        }
        if self.is_musl && is_musl_own(name) {
            return Found::Loaded(1);
        }
        let Some(object) = objects.get(asker) else { return Found::Missing("no object asks".to_owned()) };
        if name.contains('/') {
            return self.find_path(object, name);
        }
        let tried =
            if self.is_musl { self.find_musl(objects, asker, name) } else { self.find_glibc(objects, asker, name) };
        tried.unwrap_or_else(|| Found::Missing("no such library where the loader looks".to_owned()))
    }

    fn find_path(&self, object: &Object, name: &str) -> Found {
        match self.expand(object, name) {
            Some(path) if path.starts_with('/') => self
                .open(path.as_bytes(), "by path")
                .unwrap_or_else(|| Found::Missing("no such file of this architecture".to_owned())),
            Some(_) => Found::Missing("relative to the working directory".to_owned()),
            None => Found::Missing("$ORIGIN means nothing in a privileged program".to_owned()),
        }
    }

    fn find_glibc(&self, objects: &[Object], asker: usize, name: &str) -> Option<Found> {
        let object = objects.get(asker)?;
        if object.elf.facts.runpath.is_empty() {
            let mut chain: Vec<&Object> = Vec::new();
            let mut next = Some(object);
            while let Some(object) = next.filter(|_| chain.len() <= objects.len()) {
                chain.push(object);
                next = object.loader.and_then(|index| objects.get(index));
            }
            for owner in chain.iter().filter(|owner| owner.elf.facts.runpath.is_empty()) {
                let by = format!("DT_RPATH of {}", owner.path);
                if let Some(found) = self.find_in(owner, &owner.elf.facts.rpath, name, &by) {
                    return Some(found);
                }
            }
        }
        let program = objects.first()?;
        self.find_in(program, &self.library_path, name, "LD_LIBRARY_PATH")
            .or_else(|| {
                self.find_in(object, &object.elf.facts.runpath, name, &format!("DT_RUNPATH of {}", object.path))
            })
            .or_else(|| self.find_cached(object, name))
            .or_else(|| self.find_default(object, name))
            .or_else(|| self.find_configured(name))
    }

    fn find_musl(&self, objects: &[Object], asker: usize, name: &str) -> Option<Found> {
        let program = objects.first()?;
        if let Some(found) = self.find_in(program, &self.library_path, name, "LD_LIBRARY_PATH") {
            return Some(found);
        }
        let mut next = objects.get(asker);
        for _ in 0..objects.len() {
            let Some(owner) = next else { break };
            let facts = &owner.elf.facts;
            let paths = if facts.runpath.is_empty() { &facts.rpath } else { &facts.runpath };
            if let Some(found) = self.find_in(owner, paths, name, &format!("DT_RUNPATH or DT_RPATH of {}", owner.path))
            {
                return Some(found);
            }
            next = owner.loader.and_then(|index| objects.get(index));
        }
        self.default_folders.iter().find_map(|folder| self.open_in(folder, name, "the loader's folders"))
    }

    fn find_in(&self, owner: &Object, folders: &[String], name: &str, by: &str) -> Option<Found> {
        folders.iter().filter_map(|folder| self.expand(owner, folder)).find_map(|folder| {
            // An empty or relative folder is the working directory's, which the image does not fix.
            if folder.starts_with('/') { self.open_in(folder.as_bytes(), name, by) } else { None }
        })
    }

    fn find_cached(&self, object: &Object, name: &str) -> Option<Found> {
        let entries = self.loader.cache(self.program.is_little_endian)?.find(name.as_bytes());
        let has_variant = entries.iter().any(|entry| entry.is_special);
        let plain = entries.iter().filter(|entry| !entry.is_special && self.takes(entry.flags));
        let in_defaults = |path: &[u8]| self.default_folders.iter().any(|folder| path.starts_with(folder));
        let mut allowed = plain.filter(|entry| !object.elf.is_outside_default_folders || !in_defaults(&entry.path));
        let found = allowed.find_map(|entry| self.open(&entry.path, "ld.so.cache"))?;
        Some(match found {
            Found::File { file, elf, by, .. } if has_variant => Found::File { file, elf, by, kind: Kind::ByProcessor },
            other => other,
        })
    }

    fn find_default(&self, object: &Object, name: &str) -> Option<Found> {
        if object.elf.is_outside_default_folders {
            return None;
        }
        self.default_folders.iter().find_map(|folder| self.open_in(folder, name, "default folder"))
    }

    /// The loader never reads ld.so.conf; ldconfig(8) does, when it makes the cache.
    fn find_configured(&self, name: &str) -> Option<Found> {
        if self.loader.cache(self.program.is_little_endian).is_some() {
            return None;
        }
        let folders = self.loader.configured.get_or_init(|| {
            let (mut folders, mut files) = (Vec::new(), CONFIGURED);
            self.read_configuration(b"/etc/ld.so.conf", 0, &mut files, &mut folders);
            folders
        });
        folders.iter().find_map(|folder| match self.open_in(folder.as_bytes(), name, "ld.so.conf")? {
            Found::File { file, elf, by, .. } => Some(Found::File { file, elf, by, kind: Kind::Configured }),
            _ => None,
        })
    }

    fn read_configuration(&self, path: &[u8], depth: usize, files: &mut usize, folders: &mut Vec<String>) {
        let Some(left) = files.checked_sub(1).filter(|_| depth <= 4) else { return };
        *files = left;
        for line in self.loader.read_text(path).unwrap_or_default().lines().take(CONFIGURED) {
            let line = line.split('#').next().unwrap_or_default().trim();
            match line.strip_prefix("include").filter(|rest| rest.starts_with([' ', '\t'])) {
                Some(patterns) => {
                    for pattern in patterns.split_whitespace() {
                        for file in self.glob(pattern) {
                            self.read_configuration(file.as_bytes(), depth.saturating_add(1), files, folders);
                        }
                    }
                }
                None if line.starts_with('/') && folders.len() < CONFIGURED => folders.push(line.to_owned()),
                None => {}
            }
        }
    }

    /// The files of a pattern with one `*` in its last component, sorted.
    fn glob(&self, pattern: &str) -> Vec<ImagePath> {
        let root = ImagePath::normalize(b"/etc").unwrap_or_else(|_| ImagePath::root());
        let Ok(path) = root.join(pattern.as_bytes()) else { return Vec::new() };
        let name = text(path.file_name());
        let Some((before, after)) = name.split_once('*') else { return vec![path] };
        let Some(folder) = path.parent().and_then(|folder| self.loader.rootfs.resolve(&folder).ok()) else {
            return Vec::new();
        };
        let children = self.loader.rootfs.children(folder.inode).map(|(name, _)| name);
        let matches =
            |name: &&[u8]| name.strip_prefix(before.as_bytes()).is_some_and(|rest| rest.ends_with(after.as_bytes()));
        children.filter(matches).take(CONFIGURED).filter_map(|name| folder.path.join(name).ok()).collect()
    }

    fn open_in(&self, folder: &[u8], name: &str, by: &str) -> Option<Found> {
        let found = self.open(&[folder, b"/", name.as_bytes()].concat(), by)?;
        Some(match found {
            Found::File { file, elf, by, .. } if !self.is_musl && self.has_levels(folder, name) => {
                Found::File { file, elf, by, kind: Kind::ByProcessor }
            }
            other => other,
        })
    }

    fn has_levels(&self, folder: &[u8], name: &str) -> bool {
        self.levels(folder, name).next().is_some()
    }

    fn levels<'b>(&'b self, folder: &[u8], name: &'b str) -> impl Iterator<Item = ImagePath> + use<'b, 'a> {
        let path = [folder, b"/glibc-hwcaps"].concat();
        let base = self.loader.rootfs.resolve_from(&ImagePath::root(), &path).ok();
        base.into_iter().flat_map(move |base| {
            let children = self.loader.rootfs.children(base.inode).take(CONFIGURED);
            let path = base.path.clone();
            children.filter_map(move |(level, _)| {
                let file = [level, b"/", name.as_bytes()].concat();
                let found = self.loader.rootfs.resolve_from(&path, &file).ok()?;
                self.fits(&found).ok()??;
                Some(found.path)
            })
        })
    }

    /// The files some processors get in place of the plain one, in the cache and the default folders.
    pub(super) fn variants(&self, name: &str) -> Vec<ImagePath> {
        if self.is_musl || name.contains('/') {
            return Vec::new();
        }
        let cached =
            self.loader.cache(self.program.is_little_endian).map_or(&[][..], |cache| cache.find(name.as_bytes()));
        let special = cached.iter().filter(|entry| entry.is_special && self.takes(entry.flags));
        let mut all: Vec<ImagePath> = special
            .filter_map(|entry| match self.open(&entry.path, "")? {
                Found::File { file, .. } => Some(file.path),
                _ => None,
            })
            .collect();
        if cached.is_empty() {
            all.extend(self.default_folders.iter().flat_map(|folder| self.levels(folder, name)));
        }
        all.sort();
        all.dedup();
        all
    }

    /// The file at a path, where the loader would map it; glibc goes on where class or machine is another's.
    fn open(&self, path: &[u8], by: &str) -> Option<Found> {
        match self.tries_left.get().checked_sub(1) {
            Some(left) => self.tries_left.set(left),
            None => return Some(Found::Missing("more places than are searched for one program".to_owned())),
        }
        let file = self.loader.rootfs.resolve_from(&ImagePath::root(), path).ok()?;
        self.loader.rootfs.file(file.inode)?;
        match self.fits(&file) {
            Ok(Some(elf)) => Some(Found::File { file, elf, by: by.to_owned(), kind: Kind::Sure }),
            Ok(None) => None,
            Err(why) => Some(Found::Missing(format!("{} stops the loader: {why}", file.path))),
        }
    }

    fn fits(&self, file: &Resolved) -> Result<Option<Arc<ElfFile>>, String> {
        let elf = self.loader.elf(file.inode)?.ok_or("no ELF file")?;
        let is_same = elf.machine == self.program.machine
            && elf.is_64 == self.program.is_64
            && elf.is_little_endian == self.program.is_little_endian;
        match is_same {
            true => Ok(Some(elf)),
            false if self.is_musl => Err("another architecture".to_owned()),
            false => Ok(None),
        }
    }

    /// Whether the loader takes a cache entry, `_dl_cache_check_flags`; the file's own header is checked on top of it.
    fn takes(&self, flags: u32) -> bool {
        let wanted = match self.program.facts.architecture.as_str() {
            "amd64" => 0x0303,
            "386" => 0x0003,
            "arm64" => 0x0a03,
            "s390x" => 0x0403,
            "ppc64" | "ppc64le" => 0x0503,
            _ => return flags & 0xff == 3 || flags == 1,
        };
        flags == wanted || flags == 1
    }

    /// Expands `$ORIGIN`, `$LIB` and `$PLATFORM`; none where a privileged program must not.
    fn expand(&self, owner: &Object, path: &str) -> Option<String> {
        if !path.contains('$') {
            return Some(path.to_owned());
        }
        let origin = text(owner.path.parent().unwrap_or_else(ImagePath::root).as_bytes());
        let platform = match self.program.facts.architecture.as_str() {
            "amd64" => "x86_64",
            "386" => "i686",
            "arm64" => "aarch64",
            other => other,
        };
        let mut out = String::new();
        let mut rest = path;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let tokens = [("ORIGIN", origin.as_str()), ("LIB", &self.lib), ("PLATFORM", platform)];
            // musl knows $ORIGIN alone.
            let tokens = tokens.iter().take(if self.is_musl { 1 } else { 3 });
            let hit = tokens.filter_map(|(token, value)| Some((*token, *value, after_token(after, token)?))).next();
            match hit {
                Some(("ORIGIN", _, _)) if self.is_secure => return None,
                Some((_, value, left)) => {
                    out.push_str(value);
                    rest = left;
                }
                None => {
                    out.push('$');
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        Some(out)
    }
}

/// What follows `TOKEN` or `{TOKEN}`; a longer word is another token.
fn after_token<'t>(text: &'t str, token: &str) -> Option<&'t str> {
    if let Some(braced) = text.strip_prefix('{') {
        return braced.strip_prefix(token)?.strip_prefix('}');
    }
    let rest = text.strip_prefix(token)?;
    (!rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')).then_some(rest)
}

/// musl's loader is these libraries too, `load_library`.
fn is_musl_own(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("lib") else { return false };
    ["c", "pthread", "rt", "m", "dl", "util", "xnet"]
        .iter()
        .any(|own| rest.strip_prefix(own).is_some_and(|rest| rest.starts_with('.')))
}

/// The default folders among the constants of glibc's loader: strings behind one another, each `/…lib…/`.
pub(super) fn default_folders(loader: &[u8]) -> Vec<Vec<u8>> {
    let is_folder = |part: &&[u8]| part.len() > 1 && part.len() < 128 && part.starts_with(b"/") && part.ends_with(b"/");
    for at in memchr::memmem::find_iter(loader, b"/\0/usr/lib") {
        // The string before the match starts behind the NUL before it; up to two more may precede it.
        let from = at.saturating_sub(256);
        let before = loader.get(from..at.saturating_add(1)).unwrap_or_default();
        let mut first: Vec<&[u8]> = before.rsplit(|b| *b == 0).take_while(is_folder).collect();
        first.reverse();
        let after = loader.get(at.saturating_add(2)..at.saturating_add(514).min(loader.len())).unwrap_or_default();
        let folders: Vec<&[u8]> = first.into_iter().chain(after.split(|b| *b == 0).take_while(is_folder)).collect();
        if folders.len() > 1 {
            return folders.into_iter().map(|folder| folder.strip_suffix(b"/").unwrap_or(folder).to_vec()).collect();
        }
    }
    ["/lib64", "/usr/lib64", "/lib", "/usr/lib"].iter().map(|folder| folder.as_bytes().to_vec()).collect()
}

const MUSL_FOLDERS: &str = "/lib:/usr/local/lib:/usr/lib";
/// Places looked at for one program: real ones need a few for each library.
const TRIES: u32 = 100_000;
const PRELOADS: usize = 64;
const CONFIGURED: usize = 1_000;
