//! The capabilities a container needs: the processes with their users, configuration, system calls and the tree in; capabilities
//! out, by program and for the whole.
//!
//! ```text
//! processes of root ─┬─ commands    chown, gosu, find -exec …: what a command line asks for          certain, likely
//!                    ├─ claims      ports below 1024, users and roots a server is configured for     certain, likely
//!                    ├─ files       what root writes and reads that belongs to others                likely
//!                    ├─ table       programs that exist to use a privilege                           likely, possible
//!                    └─ calls       system calls in which the kernel may ask                         possible
//! any process ──────── file capabilities, setuid programs
//! ```
//!
//! A process of another user than root needs none, but for what a file it executes gives it. What only cannot be ruled out is
//! *possible*. Whether a runtime grants what is needed is not asked here.

mod commands;
mod files;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use dna::{
    Capability, Completeness, Condition, Confidence, Evidence, FileCapabilities, ImagePath, Known, Listen, Load,
};

use crate::{
    Inode, InodeKind,
    closure::{Closure, Process},
    filecaps,
    merge::Configured,
    servers::Claims,
    shell::World,
    start,
    syscalls::Calls,
};
use files::{Access, Files};

/// What was worked out before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) closure: &'a Closure,
    pub(crate) loads: &'a BTreeMap<ImagePath, Vec<Known<Load>>>,
    pub(crate) calls: &'a Calls,
    pub(crate) configured: &'a Configured,
    /// Ports that the image only claims.
    pub(crate) exposed: &'a [Known<Listen>],
    /// Folders that the start touches: volumes and the working directory.
    pub(crate) folders: &'a [ImagePath],
}

/// What the executed programs need.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    pub(crate) programs: BTreeMap<ImagePath, Vec<Known<Capability>>>,
    /// Of the whole container.
    pub(crate) all: Vec<Known<Capability>>,
    pub(crate) completeness: Completeness,
}

/// Works out the capabilities of every program executed.
pub(crate) fn needed(seen: Seen<'_>, world: World<'_>) -> Needed {
    let mut judge = Judge {
        seen,
        world,
        files: Files::new(world.rootfs),
        roots: BTreeMap::new(),
        has_others: false,
        is_given: false,
        found: BTreeMap::new(),
    };
    for (index, process) in seen.closure.processes.iter().enumerate() {
        judge.process(index, process);
    }
    judge.has_others |= judge.meets_others();
    for (program, confidence) in std::mem::take(&mut judge.roots) {
        judge.calls(&program);
        judge.scripts(&program, confidence);
        judge.claimed(&program, confidence);
    }
    judge.finish()
}

type Items = BTreeMap<String, Known<Capability>>;

struct Judge<'a> {
    seen: Seen<'a>,
    world: World<'a>,
    files: Files<'a>,
    /// Programs that root executes, and how sure that is.
    roots: BTreeMap<ImagePath, Confidence>,
    /// Some process or file is another user's.
    has_others: bool,
    /// Some file gives rights to who executes it.
    is_given: bool,
    found: BTreeMap<ImagePath, Items>,
}

impl<'a> Judge<'a> {
    fn process(&mut self, index: usize, process: &'a Process) {
        let mut uid = process.uid;
        if let Some(inode) = self.elf(&process.program) {
            self.given(process, inode);
            if inode.meta.mode & 0o4000 != 0 {
                self.is_given = true;
                uid = Some(inode.meta.uid);
            }
        }
        let confidence = match uid {
            Some(0) => process.confidence,
            // A user that is only known at run time is seldom root.
            None => Confidence::Possible,
            Some(_) => {
                self.has_others = true;
                return;
            }
        };
        let best = self.roots.entry(process.program.clone()).or_insert(confidence);
        *best = confidence.min(*best);
        let claims = self.seen.configured.of_root(index);
        for name in names(process) {
            for asked in commands::asked(&name, process, &mut self.files, self.world) {
                let evidence = self.evidence(&process.program, &asked.why);
                self.add(&process.program, asked.capability, asked.confidence.max(confidence), evidence, None);
            }
            self.known_program(&name, process, claims, confidence);
        }
        if let Some(claims) = claims {
            self.configured(&process.program, claims, confidence);
        }
    }

    /// The inode of an ELF program: of scripts the kernel takes no rights.
    fn elf(&self, program: &ImagePath) -> Option<&'a Inode> {
        let found = self.world.rootfs.resolve(program).ok()?;
        let head = self.world.rootfs.read_range(found.inode, 0, 4).ok()?;
        (head == b"\x7fELF").then(|| self.world.rootfs.inode(found.inode))
    }

    /// File capabilities. Where they are raised at once, execve(2) fails in a container that may not have them, for root too
    /// (security/commoncap.c, `bprm_caps_from_vfs_caps`).
    fn given(&mut self, process: &Process, inode: &Inode) {
        let Some(FileCapabilities { permitted, effective, root_uid, .. }) = file_capabilities(inode) else { return };
        if root_uid.is_some_and(|uid| uid != 0) {
            return;
        }
        self.is_given = true;
        let confidence = match (effective, process.uid) {
            (true, _) => Confidence::Certain,
            (false, Some(0)) => Confidence::Possible,
            (false, _) => Confidence::Likely,
        };
        for name in permitted {
            let evidence = self.evidence(&process.program, "file capability");
            self.add(&process.program, &name, confidence.max(process.confidence), evidence, None);
        }
    }

    /// A program of the table.
    fn known_program(&mut self, name: &str, process: &Process, claims: Option<&Claims>, confidence: Confidence) {
        let arguments = process.argv.get(1..).unwrap_or_default();
        let drops = claims.is_some_and(|claims| self.target(claims).is_some());
        for program in table::programs(name) {
            if !program.is_asked_by(arguments) || (program.dropped && !drops) {
                continue;
            }
            let needs = program.needs.iter().map(|name| (name, Confidence::Likely));
            for (capability, sureness) in needs.chain(program.may.iter().map(|name| (name, Confidence::Possible))) {
                let evidence = self.evidence(&process.program, &format!("what {name} is made for"));
                self.add(&process.program, capability, sureness.max(confidence), evidence, None);
            }
        }
    }

    /// The user that a server becomes, where that is not root.
    fn target(&self, claims: &Claims) -> Option<(u32, Evidence)> {
        let known = |(user, evidence): &(String, Evidence)| {
            let uid = start::uid_of(user, self.world.accounts).filter(|uid| *uid != 0)?;
            Some((uid, evidence.clone()))
        };
        claims.users.iter().find_map(known)
    }

    /// What a server is configured to do.
    fn configured(&mut self, program: &ImagePath, claims: &Claims, confidence: Confidence) {
        let target = self.target(claims);
        let sure = confidence.max(Confidence::Likely);
        if let Some((_, evidence)) = &target {
            self.has_others = true;
            self.add(program, "CAP_SETUID", sure, evidence.clone(), None);
            self.add(program, "CAP_SETGID", sure, evidence.clone(), None);
        }
        for (_, evidence) in claims.chroot.iter().take(1) {
            let reached = self.reaches(program, "chroot");
            let sureness = if reached { sure } else { Confidence::Possible };
            self.add(program, "CAP_SYS_CHROOT", sureness, evidence.clone(), None);
        }
        for listen in &claims.listen {
            self.listens(program, listen, confidence);
        }
        if let Some((uid, _)) = target {
            for (path, evidence) in &claims.gives {
                if self.files.owner(path).is_none_or(|owner| owner.uid != uid) {
                    self.add(program, "CAP_CHOWN", sure, evidence.clone(), None);
                }
            }
        }
        // What is opened after the drop is opened without any.
        let is_root = target.is_none() || claims.is_early;
        for write in claims.write.iter().filter(|write| is_root && write.confidence != Confidence::Possible) {
            self.reads_or_writes(program, &write.what.path, Access::Write, sure, &write.evidence);
        }
        let sureness = if target.is_none() { sure } else { Confidence::Possible };
        for read in claims.read.iter().filter(|read| read.confidence != Confidence::Possible) {
            self.reads_or_writes(program, &read.what.path, Access::Read, sureness, &read.evidence);
        }
    }

    fn listens(&mut self, program: &ImagePath, listen: &Known<Listen>, confidence: Confidence) {
        if listen.what.port >= FIRST_FREE_PORT {
            return;
        }
        let evidence = listen.evidence.first().cloned();
        let evidence = evidence.unwrap_or_else(|| self.evidence(program, &format!("port {}", listen.what.port)));
        let when = privileged(u64::from(listen.what.port));
        self.add(program, "CAP_NET_BIND_SERVICE", listen.confidence.max(confidence), evidence, Some(when));
    }

    fn reads_or_writes(
        &mut self,
        program: &ImagePath,
        path: &ImagePath,
        access: Access,
        confidence: Confidence,
        evidence: &[Evidence],
    ) {
        // Up to the first open component: what is made there has some name.
        let fixed = path.components().take_while(|part| !part.contains(&b'*'));
        let Ok(mut plain) = fixed.into_iter().try_fold(ImagePath::root(), |path, part| path.join(part)) else { return };
        if plain != *path && access == Access::Write {
            plain = plain.join(b"new").unwrap_or(plain);
        }
        let Some(obstacle) = self.files.obstacle(&plain, access) else { return };
        let layer = self.world.rootfs.layer_of(&obstacle);
        let detail = Some("not open to root by owner and mode".to_owned());
        self.add(
            program,
            "CAP_DAC_OVERRIDE",
            confidence,
            Evidence::File { path: obstacle, line: None, layer, detail },
            None,
        );
        if let Some(first) = evidence.first() {
            self.add(program, "CAP_DAC_OVERRIDE", confidence, first.clone(), None);
        }
    }

    /// Whether some process or file belongs to another user than root.
    fn meets_others(&self) -> bool {
        let foreign = |path: &ImagePath| self.files.owner(path).is_some_and(|owner| owner.uid != 0);
        let drops = |program: &ImagePath| {
            let sets =
                |asked: &BTreeSet<String>| ["setuid", "setreuid", "setresuid"].iter().any(|call| asked.contains(*call));
            !is_general(program) && self.seen.calls.asked.get(program).is_some_and(sets)
        };
        self.files.gives_away() || self.seen.folders.iter().any(foreign) || self.roots.keys().any(drops)
    }

    fn reaches(&self, program: &ImagePath, call: &str) -> bool {
        let calls = self.seen.calls.programs.get(program);
        calls.is_none_or(|calls| calls.iter().any(|known| known.what.name == call))
    }

    /// What the code of a program that root executes may ask for.
    fn calls(&mut self, program: &ImagePath) {
        let (seen, has_others) = (self.seen, self.has_others);
        let calls = seen.calls.programs.get(program).map(Vec::as_slice).unwrap_or_default();
        let asked = seen.calls.asked.get(program).filter(|_| !is_general(program));
        let loads = seen.loads.get(program).map(Vec::as_slice).unwrap_or_default();
        for entry in table::entries().iter().filter(|entry| !entry.others || has_others) {
            let when = (entry.name == "CAP_NET_BIND_SERVICE").then(|| privileged(0));
            let by_call = calls.iter().find(|call| {
                let name = &call.what.name;
                let is_asked = entry.calls.contains(name)
                    || (entry.asked.contains(name) && asked.is_some_and(|asked| asked.contains(name)));
                is_asked && entry.is_asked_with(&call.what)
            });
            if let Some(call) = by_call {
                let evidence = call.evidence.first().cloned();
                let evidence = evidence.unwrap_or_else(|| self.evidence(program, &call.what.name));
                self.add(program, &entry.name, Confidence::Possible, evidence, when.clone());
            }
            let uses = |load: &&Known<Load>| {
                let name = load.what.path.file_name();
                entry.libraries.iter().any(|library| name.starts_with(library.as_bytes()))
            };
            if let Some(load) = loads.iter().find(uses) {
                let evidence = self.evidence(&load.what.path, "library of this use");
                self.add(program, &entry.name, Confidence::Possible, evidence, when);
            }
        }
    }

    /// Ports that the scripts of an interpreter open.
    fn scripts(&mut self, program: &ImagePath, confidence: Confidence) {
        let seen = self.seen;
        for listen in seen.closure.findings.get(program).map(|findings| findings.listen.as_slice()).unwrap_or_default()
        {
            self.listens(program, listen, confidence);
        }
    }

    /// Ports that the image claims.
    fn claimed(&mut self, program: &ImagePath, confidence: Confidence) {
        let (seen, binds) = (self.seen, self.reaches(program, "bind"));
        for listen in seen.exposed.iter().filter(|_| binds) {
            self.listens(program, listen, confidence.max(Confidence::Possible));
        }
    }

    fn evidence(&self, file: &ImagePath, detail: &str) -> Evidence {
        let layer = self.world.rootfs.layer_of(file);
        let detail: String = detail.chars().filter(|c| !c.is_control()).take(120).collect();
        Evidence::Binary { path: file.clone(), offset: None, layer, detail: Some(dna::redact(&detail).into_owned()) }
    }

    fn add(
        &mut self,
        program: &ImagePath,
        capability: &str,
        confidence: Confidence,
        evidence: Evidence,
        when: Option<Condition>,
    ) {
        let item = Known {
            what: Capability { name: capability.to_owned() },
            confidence,
            probability: None,
            when: when.into_iter().collect(),
            evidence: vec![evidence],
        };
        put(self.found.entry(program.clone()).or_default(), item);
    }

    fn finish(self) -> Needed {
        let mut all = Items::new();
        for (program, items) in &self.found {
            let sureness = self.seen.closure.exec.get(program).map_or(Confidence::Possible, |exec| exec.confidence);
            for item in items.values() {
                put(&mut all, Known { confidence: item.confidence.max(sureness), ..item.clone() });
            }
        }
        let is_root = self.seen.closure.processes.iter().any(|process| process.uid.unwrap_or(0) == 0);
        let completeness = if is_root || self.is_given {
            Completeness::Partial { reason: PARTIAL.to_owned() }
        } else if self.world.rootfs.inodes().any(gives_rights) {
            Completeness::Partial { reason: NOT_ROOT.to_owned() }
        } else {
            Completeness::Complete
        };
        let programs = self.found.into_iter().map(|(path, items)| (path, items.into_values().collect())).collect();
        Needed { programs, all: all.into_values().collect(), completeness }
    }
}

/// Adds an item to those of its name: the surest stays, with the evidence of all.
fn put(items: &mut Items, mut item: Known<Capability>) {
    let Some(known) = items.get_mut(&item.what.name) else {
        items.insert(item.what.name.clone(), item);
        return;
    };
    if item.confidence < known.confidence {
        std::mem::swap(known, &mut item);
    } else if item.confidence == known.confidence {
        known.when = match (known.when.first(), item.when.first()) {
            (Some(one), Some(other)) => vec![one.min(other).clone()],
            _ => Vec::new(),
        };
    }
    // What is only possible says nothing beside what is expected.
    if known.confidence == Confidence::Possible || item.confidence != Confidence::Possible {
        for evidence in item.evidence {
            if known.evidence.len() < MAX_EVIDENCE && !known.evidence.contains(&evidence) {
                known.evidence.push(evidence);
            }
        }
    }
}

/// What a process is called, and its file where that has another name.
fn names(process: &Process) -> Vec<String> {
    let base = |name: &str| name.rsplit('/').next().unwrap_or_default().trim_start_matches('-').to_owned();
    let called = process.argv.first().cloned().flatten().map(|name: String| base(&name));
    let own = String::from_utf8_lossy(process.program.file_name()).into_owned();
    let own = Some(own).filter(|own| called.as_ref() != Some(own));
    // `php-fpm8.2` is `php-fpm`.
    let plain = |name: String| {
        let cut = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
        if table::programs(&name).is_empty() && !table::programs(cut).is_empty() { cut.to_owned() } else { name }
    };
    [called, own].into_iter().flatten().map(plain).filter(|name| !name.is_empty()).collect()
}

/// A shell, an interpreter or a multi-call binary: its file asks for calls that its script may never make.
fn is_general(program: &ImagePath) -> bool {
    let name = String::from_utf8_lossy(program.file_name()).into_owned();
    let family = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    const GENERAL: &[&str] = &[
        "sh",
        "ash",
        "dash",
        "bash",
        "ksh",
        "mksh",
        "zsh",
        "busybox",
        "toybox",
        "coreutils",
        "python",
        "pypy",
        "perl",
        "ruby",
        "node",
        "php",
        "lua",
        "java",
        "tclsh",
        "Rscript",
        "bun",
        "deno",
        "dotnet",
    ];
    GENERAL.contains(&family)
}

fn file_capabilities(inode: &Inode) -> Option<FileCapabilities> {
    filecaps::read_capabilities(inode.meta.xattrs.get(&b"security.capability"[..])?)
}

/// Whether executing a file gives rights to who is not root.
fn gives_rights(inode: &Inode) -> bool {
    let is_file = matches!(inode.kind, InodeKind::File(_));
    is_file && ((inode.meta.mode & 0o4000 != 0 && inode.meta.uid == 0) || file_capabilities(inode).is_some())
}

/// The condition under which a port asks for a capability (ip-sysctl, `ip_unprivileged_port_start`).
fn privileged(port: u64) -> Condition {
    Condition::Sysctl { name: "net.ipv4.ip_unprivileged_port_start".to_owned(), exceeds: port }
}

/// Where a runtime leaves `ip_unprivileged_port_start` as the kernel has it.
const FIRST_FREE_PORT: u16 = 1024;

const MAX_EVIDENCE: usize = 4;

const PARTIAL: &str = "files are judged by the image's owners and modes, servers by their configuration; mounted files of other \
                       owners and programs that are not known may ask for more";
const NOT_ROOT: &str =
    "no process is root; a setuid program or one with file capabilities that is not seen to run may ask for more";

#[cfg(test)]
mod tests;
