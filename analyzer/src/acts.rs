//! What a program's code does by constants: what its reachable code asks functions of interest for, in; commands it runs, libraries
//! it opens, files it writes and reads, out.
//!
//! What the program's own file does a few steps from its start is *likely*; all else is *possible*. A path that code merely names is
//! weaker evidence still: it is written where only a writer would name it, since it is not there but its folder is, or where the
//! folder was given to be written in.

use std::collections::BTreeSet;

use dna::{Confidence, Evidence, ImagePath, Known, Read, Write};

use crate::{
    InodeKind, Rootfs,
    closure::is_shell,
    code::{Act, Argument, RUNNERS, Reach, Way},
    lines, places,
    scripts::Command,
    shell::NOT_KNOWN,
};

/// What one program's code does by constants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acts {
    /// Commands it runs; the name of one may be unknown.
    pub(crate) commands: Vec<Command>,
    /// Command lines that a file of it names, which runs a shell with a line that is not known.
    pub(crate) lines: Vec<Command>,
    /// Libraries it opens, by name or path.
    pub(crate) opened: Vec<Opened>,
    pub(crate) writes: Vec<Known<Write>>,
    /// Sensitive files.
    pub(crate) reads: Vec<Known<Read>>,
    /// PAM services it starts; none known, but some started, is an empty name.
    pub(crate) services: Vec<Opened>,
    /// Character sets it converts from and to.
    pub(crate) charsets: Vec<Opened>,
    /// Providers of OpenSSL it asks for.
    pub(crate) providers: Vec<Opened>,
    /// It looks accounts or hosts up.
    pub(crate) looks_up: Option<Evidence>,
    /// It lets users in, and acts as they.
    pub(crate) sessions: Option<Evidence>,
    /// It runs programs whose names are no constants.
    pub(crate) runs_unknown: bool,
    /// Folders of the image that its own code names.
    pub(crate) folders: Vec<(ImagePath, Evidence)>,
}

/// Something opened by its name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Opened {
    pub(crate) name: String,
    pub(crate) confidence: Confidence,
    pub(crate) evidence: Evidence,
}

/// What the code of a process does.
pub(crate) fn of_reach(reach: &Reach, rootfs: &Rootfs) -> Acts {
    let mut acts = Acts::default();
    let mut runs_unknown = false;
    let mut shells: BTreeSet<ImagePath> = BTreeSet::new();
    for act in &reach.acts() {
        let confidence = confidence(&act.way);
        let evidence = || evidence(act, rootfs);
        let texts = |index: usize| act.arguments.get(index).map(Argument::texts).unwrap_or_default();
        if runs_unknown_line(act) {
            shells.insert(act.way.place.file.clone());
        }
        match act.name.as_str() {
            "execv" | "execvp" | "execve" | "execvpe" | "execl" | "execlp" | "execle" => {
                runs_unknown |= texts(0).is_empty();
                acts.run(texts(0), act.arguments.get(1), confidence, evidence());
            }
            "posix_spawn" | "posix_spawnp" => {
                runs_unknown |= texts(1).is_empty();
                acts.run(texts(1), act.arguments.get(4), confidence, evidence());
            }
            "system" | "popen" => acts.run_shell(texts(0), confidence, evidence()),
            "dlopen" | "__libc_dlopen_mode" => open(&mut acts.opened, texts(0), confidence, &evidence()),
            "dlmopen" => open(&mut acts.opened, texts(1), confidence, &evidence()),
            "iconv_open" => {
                for names in [texts(0), texts(1)] {
                    open(&mut acts.charsets, names, confidence, &evidence());
                }
            }
            "OSSL_PROVIDER_load" | "OSSL_PROVIDER_try_load" => {
                open(&mut acts.providers, texts(1), confidence, &evidence());
            }
            "pam_start" => {
                let unknown = [String::new()];
                let names = if texts(0).is_empty() { unknown.as_slice() } else { texts(0) };
                for name in names {
                    acts.services.push(Opened { name: name.clone(), confidence, evidence: evidence() });
                }
            }
            _ => acts.touch(act, confidence, &evidence, rootfs),
        }
    }
    acts.runs_unknown = runs_unknown;
    let runs_files = RUNNERS.iter().any(|name| reach.binds(name));
    for named in reach.paths() {
        let evidence = || at(&named.way, None, rootfs);
        acts.name(&named.text, runs_files && named.way.is_own, &evidence, rootfs);
        if named.way.is_own
            && let Some(found) = named.text.parse().ok().and_then(|path| rootfs.resolve(&path).ok())
            && rootfs.file(found.inode).is_none()
        {
            acts.folders.push((found.path, evidence()));
        }
    }
    for named in reach.lines().iter().filter(|named| shells.contains(&named.way.place.file)) {
        let evidence = at(&named.way, Some(&format!("`{}`", shortened(&named.text))), rootfs);
        acts.lines.push(shell(Some(lines::of_format(&named.text)), Confidence::Possible, evidence));
    }
    if LOOKUPS.iter().any(|name| reach.binds(name)) {
        let place = reach.files.first().cloned().unwrap_or_else(ImagePath::root);
        let layer = rootfs.layer_of(&place);
        let detail = LOOKUPS.iter().find(|name| reach.binds(name)).map(|name| (*name).to_owned());
        let evidence = Evidence::Binary { path: place, offset: None, layer, detail };
        let is_login = reach.binds("pam_open_session") || reach.binds("getspnam");
        let becomes = reach.binds("initgroups") || reach.binds("setgroups") || reach.binds("setusercontext");
        acts.sessions = (is_login && becomes).then(|| evidence.clone());
        acts.looks_up = Some(evidence);
    }
    acts.settle();
    acts
}

/// Notes what is opened by its name.
fn open(opened: &mut Vec<Opened>, names: &[String], confidence: Confidence, evidence: &Evidence) {
    for name in names.iter().filter(|name| !name.contains('*')) {
        opened.push(Opened { name: name.clone(), confidence, evidence: evidence.clone() });
    }
}

impl Acts {
    fn run(&mut self, paths: &[String], words: Option<&Argument>, confidence: Confidence, evidence: Evidence) {
        for path in paths.iter().filter(|path| !path.contains('*')) {
            let words = words.map(Argument::words).unwrap_or_default();
            let argv = [Some(path.clone())].into_iter().chain(words.iter().skip(1).cloned()).collect();
            self.commands.push(Command { argv, env: Vec::new(), confidence, evidence: evidence.clone() });
        }
    }

    fn run_shell(&mut self, lines: &[String], confidence: Confidence, evidence: Evidence) {
        if lines.is_empty() {
            self.commands.push(shell(None, confidence, evidence.clone()));
        }
        for line in lines {
            // A command that depends on what is not known is not expected, only possible.
            let is_known = !line.contains('*');
            let is_named = line.split_whitespace().next().is_some_and(|word| !word.contains('*'));
            let confidence = if is_known { confidence } else { Confidence::Possible };
            let line = is_named.then(|| if is_known { line.clone() } else { lines::of_pattern(line) });
            self.commands.push(shell(line, confidence, evidence.clone()));
        }
    }

    /// Files that a call opens, makes or changes.
    fn touch(&mut self, act: &Act, confidence: Confidence, evidence: &dyn Fn() -> Evidence, rootfs: &Rootfs) {
        let argument = |index: usize| act.arguments.get(index);
        let texts = |index: usize| argument(index).map(Argument::texts).unwrap_or_default();
        let writes = |index: usize| {
            let flags = argument(index).and_then(Argument::numbers).unwrap_or_default();
            flags.iter().any(|flags| flags & O_ACCMODE != 0 || flags & O_CREAT != 0)
        };
        let (paths, is_write): (Vec<&String>, bool) = match act.name.as_str() {
            "open" | "open64" | "__open_2" | "__open64_2" | "__open" | "__open64" => {
                (texts(0).iter().collect(), writes(1))
            }
            "openat" | "openat64" | "__openat_2" | "__openat64_2" => (texts(1).iter().collect(), writes(2)),
            "fopen" | "fopen64" | "freopen" | "freopen64" => {
                let mode = texts(1).first().map(String::as_str).unwrap_or_default();
                (texts(0).iter().collect(), mode.contains(['w', 'a', '+']))
            }
            "creat" | "creat64" | "mkdir" | "rmdir" | "unlink" | "remove" | "chmod" | "chown" | "lchown" | "mkfifo"
            | "mknod" | "truncate" | "truncate64" | "utime" | "utimes" | "mkstemp" | "mkstemp64" | "mkostemp"
            | "mkstemps" | "mkdtemp" | "mktemp" => (texts(0).iter().collect(), true),
            "rename" | "link" => (texts(0).iter().chain(texts(1)).collect(), true),
            "symlink" => (texts(1).iter().collect(), true),
            _ => return,
        };
        for path in paths.into_iter().filter(|path| path.starts_with('/')) {
            // mkstemp(3) fills the six characters in.
            let glob = path.strip_suffix("XXXXXX").map_or_else(|| path.clone(), |stem| format!("{stem}*"));
            let Ok(path) = ImagePath::normalize(glob.as_bytes()) else { continue };
            let path = places::real(rootfs, &path);
            if !places::is_kept(&path) {
                continue;
            }
            let folder_exists = path.parent().is_some_and(|parent| rootfs.resolve(&parent).is_ok());
            let confidence = if folder_exists { confidence } else { Confidence::Possible };
            let evidence = vec![evidence()];
            if is_write {
                self.writes.push(Known {
                    what: Write { path },
                    confidence,
                    probability: None,
                    when: Vec::new(),
                    evidence,
                });
            } else if is_sensitive(&path) && rootfs.resolve(&path).is_ok() {
                self.reads.push(Known {
                    what: Read { path },
                    confidence,
                    probability: None,
                    when: Vec::new(),
                    evidence,
                });
            }
        }
    }

    /// A path that is only named.
    fn name(&mut self, path: &str, may_run: bool, evidence: &dyn Fn() -> Evidence, rootfs: &Rootfs) {
        let Ok(path) = ImagePath::normalize(path.as_bytes()) else { return };
        let path = places::real(rootfs, &path);
        if !places::is_kept(&path) {
            return;
        }
        let mut write = |path: ImagePath| {
            let evidence = vec![evidence()];
            self.writes.push(Known {
                what: Write { path },
                confidence: Confidence::Possible,
                probability: None,
                when: Vec::new(),
                evidence,
            });
        };
        match rootfs.resolve(&path) {
            Ok(found) => {
                let inode = rootfs.inode(found.inode);
                match inode.kind {
                    InodeKind::File(_) if may_run && inode.meta.mode & 0o111 != 0 => {
                        let argv = vec![Some(path.to_string_lossy().into_owned())];
                        let confidence = Confidence::Possible;
                        self.commands.push(Command { argv, env: Vec::new(), confidence, evidence: evidence() });
                    }
                    InodeKind::Directory(_) if is_given(inode.meta.uid, inode.meta.mode) => {
                        path.join(b"**").into_iter().for_each(&mut write);
                    }
                    _ => {}
                }
            }
            Err(_) if !is_installed(&path) => {
                let parent = path.parent().and_then(|parent| rootfs.resolve(&parent).ok());
                if parent.is_some_and(|parent| rootfs.file(parent.inode).is_none()) {
                    write(path);
                }
            }
            Err(_) => {}
        }
    }

    /// Of equal claims the surest stays, and no list grows without end.
    fn settle(&mut self) {
        self.commands.sort_by(|one, other| (&one.argv, one.confidence).cmp(&(&other.argv, other.confidence)));
        self.commands.dedup_by(|next, kept| next.argv == kept.argv);
        self.commands.truncate(MAX_ITEMS);
        self.lines.sort_by(|one, other| (&one.argv, &one.evidence).cmp(&(&other.argv, &other.evidence)));
        self.lines.dedup_by(|next, kept| next.argv == kept.argv);
        self.lines.truncate(MAX_ITEMS);
        for list in [&mut self.opened, &mut self.services, &mut self.charsets, &mut self.providers] {
            list.sort_by(|one, other| (&one.name, one.confidence).cmp(&(&other.name, other.confidence)));
            list.dedup_by(|next, kept| next.name == kept.name);
            list.truncate(MAX_ITEMS);
        }
        self.folders.sort();
        self.folders.dedup_by(|next, kept| next.0 == kept.0);
        self.folders.truncate(MAX_ITEMS);
        self.writes.sort();
        self.writes.dedup_by(|next, kept| next.what == kept.what);
        self.writes.truncate(MAX_ITEMS);
        self.reads.sort();
        self.reads.dedup_by(|next, kept| next.what == kept.what);
        self.reads.truncate(MAX_ITEMS);
    }

    /// The names of the PAM services that a program of this name starts.
    pub(crate) fn pam_services(&self, program: &ImagePath) -> Vec<Opened> {
        let mut names = BTreeSet::new();
        let mut services = Vec::new();
        let own = String::from_utf8_lossy(program.file_name()).into_owned();
        for service in &self.services {
            // A service named by the program itself goes by its name.
            let name = if service.name.is_empty() { own.clone() } else { service.name.clone() };
            for name in [name, "other".to_owned()] {
                if names.insert(name.clone()) {
                    services.push(Opened { name, ..service.clone() });
                }
            }
        }
        services
    }
}

/// A line for a shell.
fn shell(line: Option<String>, confidence: Confidence, evidence: Evidence) -> Command {
    let is_partly_known = line.as_ref().is_some_and(|line| line.contains(NOT_KNOWN));
    let env = is_partly_known.then(|| (NOT_KNOWN.to_owned(), None)).into_iter().collect();
    Command { argv: vec![Some("/bin/sh".to_owned()), Some("-c".to_owned()), line], env, confidence, evidence }
}

/// Whether a call runs a shell, and what it is to run is not known.
fn runs_unknown_line(act: &Act) -> bool {
    let argument = |index: usize| act.arguments.get(index);
    let texts = |index: usize| argument(index).map(Argument::texts).unwrap_or_default();
    let (paths, words) = match act.name.as_str() {
        "system" | "popen" => return texts(0).is_empty(),
        "execv" | "execvp" | "execve" | "execvpe" | "execl" | "execlp" | "execle" => (texts(0), argument(1)),
        "posix_spawn" | "posix_spawnp" => (texts(1), argument(4)),
        _ => return false,
    };
    let words = words.map(Argument::words).unwrap_or_default();
    let is_line = |word: &Option<String>| word.as_deref() == Some("-c");
    let line = words.iter().position(is_line).and_then(|at| words.get(at.saturating_add(1)));
    // A vector whose words nobody knows may be any; one that names a script has no line.
    let is_open = line.map_or_else(|| words.iter().skip(1).all(Option::is_none), Option::is_none);
    is_open && paths.iter().any(|path| is_shell(path.rsplit('/').next().unwrap_or_default()))
}

/// What of a line is shown as evidence.
fn shortened(line: &str) -> String {
    if line.len() <= SHOWN_BYTES {
        line.to_owned()
    } else {
        format!("{}…", line.chars().take(SHOWN_BYTES).collect::<String>())
    }
}

fn confidence(way: &Way) -> Confidence {
    let is_near = way.calm_distance.is_some_and(|distance| distance <= NEAR);
    if way.is_own && is_near { Confidence::Likely } else { Confidence::Possible }
}

fn evidence(act: &Act, rootfs: &Rootfs) -> Evidence {
    at(&act.way, Some(&act.name), rootfs)
}

fn at(way: &Way, name: Option<&str>, rootfs: &Rootfs) -> Evidence {
    let function = way.place.function.as_deref();
    let detail = match (name, function) {
        (Some(name), Some(function)) => Some(format!("{name} in {function}")),
        (Some(name), None) => Some(name.to_owned()),
        (None, function) => function.map(str::to_owned),
    };
    let (path, offset) = (way.place.file.clone(), Some(way.place.offset).filter(|offset| *offset != 0));
    let layer = rootfs.layer_of(&path);
    Evidence::Binary { path, offset, layer, detail: detail.map(|detail| dna::redact(&detail).into_owned()) }
}

/// Whether a folder was given to be written in: to all, or to a user other than root.
fn is_given(uid: u32, mode: u32) -> bool {
    uid != 0 || mode & 0o002 != 0
}

/// Folders whose contents come with packages (hier(7)).
fn is_installed(path: &ImagePath) -> bool {
    let first = path.components().next().unwrap_or_default();
    matches!(first, b"usr" | b"bin" | b"sbin" | b"lib" | b"lib32" | b"lib64" | b"libx32" | b"boot" | b"etc")
}

/// Files that hold secrets: shadow(5), gshadow(5), and private keys by the names that distributions give them.
fn is_sensitive(path: &ImagePath) -> bool {
    let text = path.to_string_lossy();
    matches!(text.as_ref(), "/etc/shadow" | "/etc/gshadow") || text.contains("/private/") || text.ends_with(".key")
}

/// Functions that ask the name service switch (nsswitch.conf(5)).
const LOOKUPS: &[&str] = &[
    "getpwnam",
    "getpwnam_r",
    "getpwuid",
    "getpwuid_r",
    "getgrnam",
    "getgrnam_r",
    "getgrgid",
    "getgrgid_r",
    "initgroups",
    "getaddrinfo",
    "gethostbyname",
];

/// Steps from the start within which code is expected to run: as for system calls.
const NEAR: u32 = 10;
/// Bytes of a line shown as evidence.
const SHOWN_BYTES: usize = 80;
/// Claims of one kind kept of one program.
const MAX_ITEMS: usize = 500;
/// open(2): the access mode is in the lowest two bits.
const O_ACCMODE: u64 = 3;
const O_CREAT: u64 = 0o100;
