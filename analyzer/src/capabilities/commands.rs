//! What command lines ask for: a process of root and the tree in; capabilities, each with how sure it is and the words it rests
//! on, out. Owners and modes that a command sets are noted for those after it.
//!
//! Sources: chown(1), chgrp(1), chmod(1), install(1), mkdir(1), find(1), setpriv(1); fs/attr.c of Linux.

use dna::{Confidence, ImagePath};

use super::files::{Access, Change, Files};
use crate::{
    closure::Process,
    shell::{Arg, World},
    start, supervisors,
    wrappers::{self, Inner},
};

/// A capability that a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) capability: &'static str,
    pub(super) confidence: Confidence,
    /// The command, in a few words.
    pub(super) why: String,
}

/// What a process of root asks for by its command line; `name` is what it is called.
pub(super) fn asked(name: &str, process: &Process, files: &mut Files<'_>, world: World<'_>) -> Vec<Asked> {
    let mut command = Command { name, process, world, files, asked: Vec::new() };
    command.switches();
    match name {
        "chown" | "chgrp" => command.chown(),
        "chmod" => command.chmod(),
        "install" => command.install(),
        "find" => command.find(),
        "mkdir" | "touch" | "rm" | "rmdir" | "tee" | "truncate" | "mkfifo" => command.uses(Access::Write),
        "ls" | "du" | "cat" | "head" | "tail" => command.uses(Access::Read),
        "cp" | "mv" | "ln" => command.puts(),
        _ => {}
    }
    command.asked
}

struct Command<'a, 'b> {
    name: &'a str,
    process: &'a Process,
    world: World<'a>,
    files: &'a mut Files<'b>,
    asked: Vec<Asked>,
}

impl Command<'_, '_> {
    fn ask(&mut self, capability: &'static str, confidence: Confidence, why: String) {
        self.asked.push(Asked { capability, confidence: confidence.max(self.process.confidence), why });
    }

    /// A wrapper or supervisor that is told a user becomes that user; the kernel asks even where it is root again.
    fn switches(&mut self) {
        let inner = wrappers::unwrap(self.name, &self.process.argv).into_iter();
        let services = supervisors::services(self.name, &self.process.argv, &self.process.cwd, self.world);
        let users: Vec<String> = inner
            .chain(services.into_iter().map(|service| service.inner))
            .filter_map(|inner: Inner| inner.user)
            .collect();
        for user in users {
            let uid = start::uid_of(&user, self.world.accounts);
            let why = format!("{} to user {user}", self.name);
            // A name that the image does not know is an error of the wrapper.
            if uid.is_none() && !user.contains(['$', '*']) {
                continue;
            }
            self.ask("CAP_SETGID", Confidence::Certain, why.clone());
            if uid != Some(0) {
                self.ask("CAP_SETUID", Confidence::Certain, why);
            }
        }
        // setpriv(1) sets groups by options of their own.
        if self.name == "setpriv" {
            let groups =
                ["--regid", "--egid", "--rgid", "--groups", "--clear-groups", "--init-groups", "--keep-groups"];
            let words = self.process.argv.iter().flatten();
            let sets = words.filter(|word| groups.iter().any(|group| word.starts_with(group))).count();
            self.asked.retain(|asked| asked.capability != "CAP_SETGID");
            if sets > 0 {
                self.ask("CAP_SETGID", Confidence::Certain, "setpriv sets groups".to_owned());
            }
        }
    }

    /// The words that are no options; `valued` options take the next word.
    fn operands(&self, valued: &[&str]) -> Vec<Arg> {
        let (mut found, mut options) = (Vec::new(), true);
        let mut words = self.process.argv.iter().skip(1);
        while let Some(word) = words.next() {
            match word.as_deref() {
                Some("--") if options => options = false,
                Some(option) if options && option.len() > 1 && option.starts_with('-') => {
                    if valued.contains(&option) {
                        words.next();
                    }
                }
                _ => found.push(word.clone()),
            }
        }
        found
    }

    /// The value of an option, apart or joined to it.
    fn value(&self, short: &str, long: &str) -> Option<&str> {
        let mut words = self.process.argv.iter().skip(1);
        while let Some(word) = words.next() {
            let Some(word) = word.as_deref() else { continue };
            if word == short || word == long {
                return words.next()?.as_deref();
            }
            let joined = word.strip_prefix(long).and_then(|rest| rest.strip_prefix('='));
            let joined = joined.or_else(|| word.strip_prefix(short).filter(|_| !word.starts_with("--")));
            if joined.is_some_and(|value| !value.is_empty()) {
                return joined;
            }
        }
        None
    }

    fn has(&self, letter: char, long: &str) -> bool {
        self.process
            .argv
            .iter()
            .skip(1)
            .flatten()
            .any(|word| word == long || (word.starts_with('-') && !word.starts_with("--") && word.contains(letter)))
    }

    /// The files that words name; a word that is not known names none.
    fn paths(&self, words: &[Arg]) -> Vec<ImagePath> {
        let path = |word: &Arg| {
            let word = word.as_deref().filter(|word| !word.is_empty() && word.len() <= PATH_MAX)?;
            let path = self.process.cwd.join(word.as_bytes()).ok()?;
            (!word.contains(['*', '?', '['])).then_some(path)
        };
        words.iter().filter_map(path).take(MAX_OPERANDS).collect()
    }

    fn closed(&mut self, path: &ImagePath, access: Access) {
        if let Some(obstacle) = self.files.obstacle(path, access) {
            self.ask(
                "CAP_DAC_OVERRIDE",
                Confidence::Likely,
                format!("{} {path}: {obstacle} is not open to root", self.name),
            );
        }
    }

    fn uses(&mut self, access: Access) {
        let operands = self.operands(&["-m", "--mode", "-r", "-d", "-t", "-n", "-c", "-s", "--reference"]);
        // What mkdir(1) is told to make is there for those after it.
        let mode = self.value("-m", "--mode").and_then(octal);
        for path in self.paths(&operands) {
            self.closed(&path, access);
            if self.name == "mkdir" && self.files.owner(&path).is_none() {
                self.files.change(&path, false, Change { uid: Some(0), gid: Some(0), mode });
            }
        }
    }

    /// The last operand is where it goes.
    fn puts(&mut self) {
        let paths = self.paths(&self.operands(&["-S", "--suffix"]));
        if let Some(path) = paths.last() {
            self.closed(path, Access::Write);
        }
    }

    fn chown(&mut self) {
        let operands = self.operands(&["--from", "--reference"]);
        let Some((Some(target), rest)) = operands.split_first().map(|(first, rest)| (first.clone(), rest.to_vec()))
        else {
            return;
        };
        let Some((uid, gid)) = self.identity(&target) else { return };
        let is_recursive = self.has('R', "--recursive");
        for path in self.paths(&rest) {
            self.gives(&path, is_recursive, uid, gid);
            if is_recursive {
                self.closed(&path, Access::Read);
            }
            self.files.change(&path, is_recursive, Change { uid, gid, mode: None });
        }
    }

    /// Asks for what giving a file away takes: the caller owns it and it stays so, or it takes `CAP_CHOWN`.
    fn gives(&mut self, path: &ImagePath, is_recursive: bool, uid: Option<u32>, gid: Option<u32>) {
        let owners = if is_recursive { self.files.below(path) } else { self.files.owner(path).into_iter().collect() };
        // What is missing is made before; that root made it is all there is to know.
        let made = owners.is_empty() && (uid.is_some_and(|uid| uid != 0) || gid.is_some_and(|gid| gid != 0));
        let foreign = owners.iter().any(|owner| {
            uid.is_some_and(|uid| uid != 0 || owner.uid != 0) || gid.is_some_and(|gid| gid != 0 || owner.uid != 0)
        });
        if made || foreign {
            self.ask("CAP_CHOWN", Confidence::Likely, format!("{} {path}", self.name));
        }
    }

    /// `user`, `user:group`, `user.group`, `:group`, `group` for chgrp(1); none where the image does not know the name.
    fn identity(&self, target: &str) -> Option<(Option<u32>, Option<u32>)> {
        if self.name == "chgrp" {
            return Some((None, Some(self.group(target)?)));
        }
        let known = |name: &str| start::uid_of(name, self.world.accounts);
        let (user, group) = match target.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => match target.split_once('.') {
                Some((user, group)) if known(target).is_none() => (user, Some(group)),
                _ => (target, None),
            },
        };
        let uid = if user.is_empty() { None } else { Some(known(user)?) };
        let gid = match group {
            Some("") | None => None,
            Some(group) => Some(self.group(group)?),
        };
        Some((uid, gid))
    }

    fn group(&self, name: &str) -> Option<u32> {
        let by_name = self.world.accounts.groups.iter().find(|group| group.name == name).map(|group| group.gid);
        by_name.or_else(|| name.parse().ok())
    }

    fn chmod(&mut self) {
        let operands = self.operands(&["--reference"]);
        let Some((Some(mode), rest)) = operands.split_first().map(|(first, rest)| (first.clone(), rest.to_vec()))
        else {
            return;
        };
        let number = octal(&mode);
        let is_recursive = self.has('R', "--recursive");
        for path in self.paths(&rest) {
            let owners =
                if is_recursive { self.files.below(&path) } else { self.files.owner(&path).into_iter().collect() };
            let why = format!("chmod {mode} {path}");
            if owners.iter().any(|owner| owner.uid != 0) {
                self.ask("CAP_FOWNER", Confidence::Likely, why.clone());
            }
            // Without it the kernel takes the setgid bit off a file of a foreign group.
            let sets = number.map_or(mode.contains('s'), |number| number & 0o2000 != 0);
            if sets && owners.iter().any(|owner| owner.gid != 0) {
                self.ask("CAP_FSETID", Confidence::Likely, why);
            }
            self.files.change(&path, is_recursive, Change { mode: number, ..Change::default() });
        }
    }

    /// install(1) makes files and folders, and gives them away.
    fn install(&mut self) {
        let uid = self.value("-o", "--owner").and_then(|user| start::uid_of(user, self.world.accounts));
        let gid = self.value("-g", "--group").and_then(|group| self.group(group));
        let mode = self.value("-m", "--mode").and_then(octal);
        let operands = self.operands(&["-o", "--owner", "-g", "--group", "-m", "--mode", "-S", "--suffix", "-t"]);
        let mut paths = self.paths(&operands);
        if !self.has('d', "--directory") {
            paths = paths.pop().into_iter().collect();
        }
        for path in paths {
            self.closed(&path, Access::Write);
            if uid.is_some_and(|uid| uid != 0) || gid.is_some_and(|gid| gid != 0) {
                self.ask("CAP_CHOWN", Confidence::Likely, format!("install {path}"));
            }
            self.files.change(&path, false, Change { uid: uid.or(Some(0)), gid: gid.or(Some(0)), mode });
        }
    }

    /// find(1) reads its folders; `-exec chown` gives away what its tests let through.
    fn find(&mut self) {
        let words: Vec<&str> =
            self.process.argv.iter().skip(1).map(|word| word.as_deref().unwrap_or_default()).collect();
        let starts = words.iter().skip_while(|word| matches!(**word, "-H" | "-L" | "-P"));
        let starts = starts.take_while(|word| !word.starts_with(['-', '!', '(', ')']));
        let mut starts: Vec<Arg> = starts.map(|word| Some((*word).to_owned())).collect();
        if starts.is_empty() {
            starts.push(Some(".".to_owned()));
        }
        let given = wrappers::unwrap("find", &self.process.argv).into_iter().find_map(|inner| {
            let mut inner = inner.argv.into_iter().flatten();
            let called = inner.next()?;
            let called =
                if called.ends_with("chgrp") { "chgrp" } else { called.ends_with("chown").then_some("chown")? };
            let target = inner.find(|word| !word.starts_with('-'))?;
            Some((called, target))
        });
        for path in self.paths(&starts) {
            self.closed(&path, Access::Read);
            let Some((called, target)) = &given else { continue };
            let found: Vec<_> =
                self.files.below(&path).into_iter().filter(|owner| self.lets(&words, owner.uid, owner.gid)).collect();
            let identity = if *called == "chgrp" {
                self.group(target).map(|gid| (None, Some(gid)))
            } else {
                self.identity(target)
            };
            let Some((uid, gid)) = identity else { continue };
            let stays =
                |uid: Option<u32>, gid: Option<u32>| uid.is_none_or(|uid| uid == 0) && gid.is_none_or(|gid| gid == 0);
            if found.iter().any(|owner| owner.uid != 0 || !stays(uid, gid)) {
                self.ask("CAP_CHOWN", Confidence::Likely, format!("find {path} -exec {called} {target}"));
            }
        }
    }

    /// The tests of find(1) on owners: `! -user NAME`, `-not -group NAME`, `-user NAME`.
    fn lets(&self, words: &[&str], uid: u32, gid: u32) -> bool {
        let (mut all, mut any, either) = (true, false, words.iter().any(|word| matches!(*word, "-o" | "-or")));
        let mut tests = 0_usize;
        for (at, word) in words.iter().enumerate() {
            let Some(name) = at.checked_add(1).and_then(|at| words.get(at)) else { continue };
            let is = match *word {
                "-user" | "-uid" => start::uid_of(name, self.world.accounts).is_none_or(|wanted| wanted == uid),
                "-group" | "-gid" => self.group(name).is_none_or(|wanted| wanted == gid),
                _ => continue,
            };
            let before = at.checked_sub(1).and_then(|at| words.get(at)).copied().unwrap_or_default();
            let negated = matches!(before, "!" | "-not");
            tests = tests.saturating_add(1);
            all &= is != negated;
            any |= is != negated;
        }
        if either { any || tests == 0 } else { all }
    }
}

/// A mode in octal digits.
fn octal(mode: &str) -> Option<u32> {
    u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// The kernel's PATH_MAX: longer names are refused.
const PATH_MAX: usize = 4096;
/// Operands of one command that are looked at.
const MAX_OPERANDS: usize = 100;
